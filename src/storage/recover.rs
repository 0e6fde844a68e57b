//! What a log finds when it is opened.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::Path;

use tracing::warn;

use super::durable::{create_directories, sync_dir};
use super::error::in_one_line;
use super::frame::payloads;
use super::fs::{Access, Directory, FileSystem, Lock, read_full, write_full};
use super::scan::{self, Scanned};
use super::segment::{Header, Id, Name};
use super::table::{Readable, Segment, on_disk, report};
use super::walk::{Found, Walk};
use super::{Damage, Error, Lsn, Recovery, Settings, Wrong};
use crate::planted::planted;

/// What was found.
pub(super) struct Recovered {
    /// The directory, open.
    pub(super) home: Box<dyn Directory>,
    pub(super) lock: Box<dyn Lock>,
    pub(super) recovery: Recovery,
    pub(super) segments: Vec<Segment>,
    /// The newest id there is.
    pub(super) id: Id,
    /// What is certainly on disk.
    pub(super) durable: Lsn,
    /// The entries after it, which may be in the page cache only.
    pub(super) unproven: Vec<(Lsn, Vec<u8>)>,
}

/// Takes the directory and finds out what is in it. Changes nothing but names that mean nothing.
pub(super) fn recover(fs: &dyn FileSystem, settings: &Settings) -> Result<Recovered, Error> {
    let directory = &settings.directory;
    create_directories(fs, directory)?;
    let home = fs.open_dir(directory).map_err(Error::io("open", directory))?;
    let lock = lock(fs, directory)?;
    let (names, spares) = scan::list(fs, directory)?;
    for spare in spares {
        let path = directory.join(spare);
        fs.remove(&path).map_err(Error::io("remove", path))?;
    }
    // A name that the last process could not sync any more must not vanish after it was built upon.
    sync_dir(fs, directory)?;
    let scanned = scan::scan_all(fs, directory, &names, settings.at_least)?;
    let mut recovery = summary(&scanned, settings.at_least);
    if planted("wrong-next-lsn") {
        recovery.last = recovery.last.saturating_sub(1);
    }
    if recovery.last == Lsn::MAX {
        return Err(Error::NumbersExhausted);
    }
    recovery.damage.iter().for_each(report);
    let mut durable = recovery.last;
    let mut unproven = Vec::new();
    if let Some(newest) = scanned.last()
        && !planted("trust-page-cache")
    {
        let lost = newest.damage.iter().map(|damage| damage.lsns.1).max().unwrap_or(0);
        let proven = newest.proven.max(settings.at_least).max(lost);
        unproven = unproven_entries(fs, directory, newest, proven..recovery.last)?;
        durable = if unproven.is_empty() { durable } else { proven };
    }
    let segments = scanned.iter().map(|scanned| segment(fs, directory, scanned)).collect();
    let id = names.iter().map(|name| name.id).max().unwrap_or_default();
    Ok(Recovered { home, lock, recovery, segments, id, durable, unproven })
}

/// Keeps everybody else from opening a log, for as long as what it gives is held. `None`: there is no such directory.
///
/// # Errors
/// When another process has the log open, or the system refuses.
pub fn hold(fs: &dyn FileSystem, directory: &Path) -> Result<Option<Box<dyn Lock>>, Error> {
    match fs.kind(directory).map_err(Error::io("look up", directory))? {
        None => Ok(None),
        Some(_) => lock(fs, directory).map(Some),
    }
}

/// Takes the lock of a directory.
pub(super) fn lock(fs: &dyn FileSystem, directory: &Path) -> Result<Box<dyn Lock>, Error> {
    let path = directory.join(LOCK_FILE);
    let lock = fs.lock(&path).map_err(Error::io("lock", path))?;
    lock.ok_or_else(|| Error::Locked { path: directory.to_owned() })
}

/// What all segments together amount to.
pub(super) fn summary(scanned: &[Scanned], at_least: Lsn) -> Recovery {
    let mut damage: Vec<_> = scanned.iter().flat_map(|segment| segment.damage.clone()).collect();
    let mut last = scanned.last().map_or(0, |newest| newest.last);
    if last < at_least {
        let file = scanned.last().map_or_else(String::new, |newest| newest.name.to_string());
        damage.push(Damage { file, bytes: 0..0, lsns: (last + 1, at_least), what: Wrong::Missing });
        last = at_least;
    }
    // A segment of which nothing is needed any more says nothing about where the log begins.
    let oldest = scanned.iter().find(|segment| !segment.is_superseded());
    Recovery {
        first: oldest.map_or(last.saturating_add(1), |oldest| oldest.name.first),
        last,
        entries: scanned.iter().map(|segment| segment.entries).sum(),
        damage,
        torn_bytes: scanned.iter().map(|segment| segment.torn_bytes).sum(),
    }
}

/// The entries of the newest segment after the start of a range through its end; none if one is missing.
fn unproven_entries(
    fs: &dyn FileSystem,
    directory: &Path,
    newest: &Scanned,
    range: Range<Lsn>,
) -> Result<Vec<(Lsn, Vec<u8>)>, Error> {
    let Some((_, offset)) = newest.unproven.iter().find(|(first, _)| *first > range.start) else {
        return Ok(Vec::new());
    };
    let path = directory.join(newest.name.to_string());
    let read = || {
        let mut walk = Walk::new(fs.open(&path, Access::Read)?, newest.name.id.seed(), *offset)?;
        let mut entries = Vec::new();
        while let Found::Frame(at, header) = walk.next()? {
            if header.next() > range.end.saturating_add(1) {
                break;
            }
            let lsns = header.first..header.next();
            entries.extend(lsns.zip(payloads(walk.body(at, &header)).map(<[u8]>::to_vec)));
        }
        Ok::<_, io::Error>(entries)
    };
    let entries = read().map_err(Error::io("read", &path))?;
    // Known gaps cannot be written again, and need not be: a repair has synced what is around them.
    let is_gapless = entries.iter().map(|(lsn, _)| *lsn).eq(range.start + 1..range.end + 1);
    Ok(if is_gapless { entries } else { Vec::new() })
}

/// A segment for the table. What an earlier process claimed for it and did not use is given back.
fn segment(fs: &dyn FileSystem, directory: &Path, scanned: &Scanned) -> Segment {
    let path = directory.join(scanned.name.to_string());
    if !scanned.is_damaged
        && let Err(source) = fs.open(&path, Access::Write).and_then(|file| file.trim())
    {
        let error = Error::Io { doing: "trim", path, source };
        warn!(error = in_one_line(&error), "a segment of the log may take more space than it needs: check the disk");
    }
    table_segment(scanned)
}

pub(super) fn table_segment(scanned: &Scanned) -> Segment {
    let readable = |header: &Header| Readable {
        context: header.context.clone(),
        header_bytes: header.bytes(),
        gaps: header.gaps.as_slice().into(),
    };
    Segment {
        name: scanned.name,
        header: scanned.header.as_ref().map(readable),
        bytes: on_disk(scanned.length),
        is_damaged: scanned.is_damaged,
        is_leaving: false,
    }
}

/// Makes the newest segment durable where it stands, when there is no space to write its last entries anew: its bytes
/// are written over themselves. A sync alone might find nothing to do, as after a failed one. All of them, since what
/// stands before the last entries decides whether those are read.
pub(super) fn rewrite_in_place(fs: &dyn FileSystem, directory: &Path, segment: Name) -> Result<(), Error> {
    let path = directory.join(segment.to_string());
    let rewrite = || {
        let file = fs.open(&path, Access::Write)?;
        let mut bytes = vec![0; REWRITTEN_AT_ONCE];
        let mut offset = 0;
        loop {
            let read = read_full(&*file, &mut bytes, offset)?;
            let Some(read_bytes) = bytes.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
            offset += write_full(&*file, &mut [IoSlice::new(read_bytes)], offset)?;
        }
        file.sync_data()
    };
    rewrite().map_err(Error::io("write to", &path))
}

const REWRITTEN_AT_ONCE: usize = 1 << 20;
const LOCK_FILE: &str = "lock";
