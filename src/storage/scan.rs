//! What the segments of a directory hold: used to open a log, to inspect one and to repair one. Only reads.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::fs::{Access, FileSystem, Kind, read_full};
use super::segment::{CONTEXT_BYTES_MAX, Decoded, Header, Name, is_spare};
use super::walk::{Bad, Found, Walk};
use super::{Damage, Error, Lsn, Wrong};
use crate::planted::planted;

/// What one segment holds.
#[derive(Debug, Clone)]
pub(super) struct Scanned {
    pub(super) name: Name,
    /// `None`: it cannot be read.
    pub(super) header: Option<Header>,
    /// The file's length.
    pub(super) length: u64,
    /// The first LSN of the next segment.
    pub(super) limit: Option<Lsn>,
    /// The last LSN it accounts for, lost ones included; `first - 1` if it is empty.
    pub(super) last: Lsn,
    /// Entries that can be read.
    pub(super) entries: u64,
    /// Everything through this LSN was durable, by what the segment says.
    pub(super) proven: Lsn,
    pub(super) damage: Vec<Damage>,
    /// Whether there are bytes in it that should be something else.
    pub(super) is_damaged: bool,
    /// Bytes at the end of the newest one that a crash left incomplete.
    pub(super) torn_bytes: u64,
    /// The frames that `proven` does not cover: first LSN and place.
    pub(super) unproven: Vec<(Lsn, u64)>,
}

impl Scanned {
    /// Whether a later segment took its place.
    pub(super) fn is_superseded(&self) -> bool {
        self.limit.is_some_and(|limit| limit <= self.name.first)
    }
}

/// The segments' names in order, and the names of spares.
pub(super) fn list(fs: &dyn FileSystem, directory: &Path) -> Result<(Vec<Name>, Vec<String>), Error> {
    let (mut names, mut spares) = (Vec::new(), Vec::new());
    for (file, kind) in fs.list(directory).map_err(Error::io("list", directory))? {
        if let Some(name) = Name::parse(&file) {
            if kind != Kind::File {
                return Err(Error::InTheWay { path: directory.join(file), expected: "a regular file" });
            }
            names.push(name);
        } else if is_spare(&file) {
            spares.push(file);
        }
    }
    names.sort_unstable();
    Ok((names, spares))
}

/// Scans all segments. A file that is gone by now is passed over.
pub(super) fn scan_all(
    fs: &dyn FileSystem,
    directory: &Path,
    names: &[Name],
    at_least: Lsn,
) -> Result<Vec<Scanned>, Error> {
    let mut all = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let limit = names.get(index + 1).map(|next| next.first);
        if let Some(scanned) = scan(fs, directory, *name, limit, at_least)? {
            all.push(scanned);
        }
    }
    Ok(all)
}

fn scan(
    fs: &dyn FileSystem,
    directory: &Path,
    name: Name,
    limit: Option<Lsn>,
    at_least: Lsn,
) -> Result<Option<Scanned>, Error> {
    let path = directory.join(name.to_string());
    let file = match fs.open(&path, Access::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            return Err(Error::InTheWay { path, expected: "a regular file" });
        }
        file => file.map_err(Error::io("open", &path))?,
    };
    let decoded = read_header(&*file, name).map_err(Error::io("read", &path))?;
    let header = match decoded {
        Decoded::OtherVersion(version) => return Err(Error::UnknownVersion { path, version }),
        Decoded::Header(header, _) => Some(header),
        Decoded::Incomplete(_) | Decoded::Damaged => None,
    };
    let offset = header.as_ref().map_or(0, Header::bytes);
    let walk = Walk::new(Arc::clone(&file), name.id.seed(), offset).map_err(Error::io("read", &path))?;
    let scan = Scan::new(walk, name, header, limit, at_least);
    let scanned = if scan.scanned.header.is_some() { scan.frames() } else { scan.without_header() };
    let scanned = scanned.map_err(Error::io("read", &path))?;
    // The process that has the log open may have let it go meanwhile.
    let has_holes = scanned.is_damaged || !scanned.damage.is_empty();
    if has_holes && !file.is_at(&path).map_err(Error::io("look up", path))? {
        return Ok(None);
    }
    Ok(Some(scanned))
}

/// Reads a segment's header.
pub(super) fn read_header(file: &dyn super::File, name: Name) -> io::Result<Decoded> {
    let length = file.length()?;
    let mut bytes_max = HEADER_BYTES_TRIED;
    loop {
        let mut bytes = vec![0; usize::try_from(length.min(bytes_max)).map_err(io::Error::other)?];
        let read = match read_full(file, &mut bytes, 0) {
            // A header that the disk cannot read any more is a damaged one.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => 0,
            read => read?,
        };
        match Header::decode(bytes.get(..read).unwrap_or_default(), name) {
            Decoded::Incomplete(needed)
                if needed > bytes_max && needed <= length && needed <= 2 * CONTEXT_BYTES_MAX =>
            {
                bytes_max = needed;
            }
            decoded => return Ok(decoded),
        }
    }
}

struct Scan {
    walk: Walk,
    scanned: Scanned,
    at_least: Lsn,
    /// The LSN that comes next.
    expected: Lsn,
    /// Bad bytes since the last good frame.
    hole: Option<Hole>,
    /// Holes that a crash may have left: what to go back to if nothing proves that it did not.
    cuts: Vec<Cut>,
}

#[derive(Clone)]
struct Hole {
    bytes: Range<u64>,
    is_torn: bool,
}

struct Cut {
    expected: Lsn,
    offset: u64,
    entries: u64,
    damage: usize,
    was_damaged: bool,
}

impl Scan {
    fn new(walk: Walk, name: Name, header: Option<Header>, limit: Option<Lsn>, at_least: Lsn) -> Self {
        let before = name.first.saturating_sub(1);
        let scanned = Scanned {
            name,
            header,
            length: walk.length(),
            limit,
            last: before,
            entries: 0,
            proven: before,
            damage: Vec::new(),
            is_damaged: false,
            torn_bytes: 0,
            unproven: Vec::new(),
        };
        // Only the newest segment ends where its frames do.
        let at_least = if limit.is_none() { at_least } else { 0 };
        Self { walk, scanned, at_least, expected: name.first, hole: None, cuts: Vec::new() }
    }

    /// Without the header nothing is delivered. What the frames say is still good for knowing which LSNs are lost.
    fn without_header(mut self) -> io::Result<Scanned> {
        let mut last = self.expected;
        let mut trailing = 0;
        loop {
            match self.walk.next()? {
                Found::Frame(_, header) | Found::Bad(Bad { header: Some(header), .. }) => {
                    last = last.max(header.next().saturating_sub(1)).max(header.durable);
                    trailing = 0;
                }
                Found::Bad(bad) => trailing = entries_max(&bad.bytes),
                Found::End => break,
            }
        }
        let last = last.saturating_add(trailing).min(Lsn::MAX - 1).max(self.at_least);
        self.scanned.is_damaged = true;
        let last = self.scanned.limit.map_or(last, |limit| limit.saturating_sub(1));
        let bytes = 0..self.scanned.length;
        self.expected = last.saturating_add(1);
        if last >= self.scanned.name.first {
            self.damaged(self.scanned.name.first, last, bytes, Wrong::Header);
        }
        self.scanned.last = last;
        Ok(self.scanned)
    }

    fn frames(mut self) -> io::Result<Scanned> {
        while self.scanned.limit.is_none_or(|limit| self.expected < limit) {
            match self.walk.next()? {
                Found::End => break,
                Found::Frame(at, header) => {
                    if !self.frame(at, header) {
                        break;
                    }
                }
                Found::Bad(_) if planted("truncate-recovery") => return Ok(self.finish()),
                Found::Bad(bad) => self.bad(bad),
            }
        }
        match self.scanned.limit {
            Some(limit) if self.expected < limit => self.missing(limit - 1),
            Some(_) => {}
            None => self.end(),
        }
        Ok(self.finish())
    }

    fn finish(mut self) -> Scanned {
        let gaps = self.scanned.header.iter().flat_map(|header| &header.gaps);
        let known = gaps.map(|(_, last)| *last).max().unwrap_or(0);
        self.scanned.last = self.expected.saturating_sub(1).max(known.min(Lsn::MAX - 1));
        let proven = self.scanned.proven;
        self.scanned.unproven.retain(|(first, _)| *first > proven);
        self.scanned
    }

    /// A whole frame. `false` if it is beyond what is read of this segment.
    fn frame(&mut self, at: u64, header: super::frame::Header) -> bool {
        self.scanned.proven = self.scanned.proven.max(header.durable);
        if header.count == 0 {
            return true;
        }
        if header.first < self.expected {
            self.widen(at..at.saturating_add(header.frame_bytes()), false);
            self.scanned.is_damaged = true;
            return true;
        }
        let limit = self.scanned.limit.unwrap_or(Lsn::MAX);
        if header.first >= limit {
            return false;
        }
        if header.first > self.expected {
            self.missing(header.first - 1);
        }
        self.hole = None;
        self.expected = header.next().min(limit);
        self.scanned.entries += self.expected - header.first;
        let proven = self.scanned.proven;
        self.scanned.unproven.retain(|(first, _)| *first > proven || self.scanned.limit.is_some());
        if self.scanned.limit.is_none() {
            self.scanned.unproven.push((header.first, at));
        }
        true
    }

    fn bad(&mut self, bad: Bad) {
        self.widen(bad.bytes, bad.is_torn);
        let Some(header) = bad.header else { return };
        self.scanned.proven = self.scanned.proven.max(header.durable);
        let limit = self.scanned.limit.unwrap_or(Lsn::MAX);
        if header.first == self.expected && header.count > 0 {
            self.missing(header.next().min(limit) - 1);
        }
    }

    fn widen(&mut self, bytes: Range<u64>, is_torn: bool) {
        let hole = self.hole.get_or_insert(Hole { bytes: bytes.clone(), is_torn });
        hole.bytes.end = bytes.end;
        hole.is_torn |= is_torn;
    }

    /// What comes before this LSN, and after the last frame, is not there.
    fn missing(&mut self, last: Lsn) {
        let hole = self.hole.take();
        let at = hole.as_ref().map_or(self.walk.offset(), |hole| hole.bytes.start);
        if self.scanned.limit.is_none() && hole.as_ref().is_some_and(|hole| hole.is_torn) {
            self.cuts.push(Cut {
                expected: self.expected,
                offset: at,
                entries: self.scanned.entries,
                damage: self.scanned.damage.len(),
                was_damaged: self.scanned.is_damaged,
            });
        }
        let first = std::mem::replace(&mut self.expected, last.saturating_add(1));
        match hole {
            Some(hole) => {
                self.scanned.is_damaged = true;
                self.damaged(first, last, hole.bytes, Wrong::Frames);
            }
            None => self.damaged(first, last, at..at, Wrong::Missing),
        }
    }

    /// The newest segment's end: what of it is torn, what is damaged.
    fn end(&mut self) {
        let known = self.scanned.proven.max(self.at_least);
        if let Some(hole) = &self.hole {
            let holds_entry = hole.bytes.end - hole.bytes.start > super::frame::HEADER_BYTES;
            if holds_entry && !hole.is_torn {
                // The numbers that may have been given out must not be given out again.
                let last = self.expected.saturating_add(entries_max(&hole.bytes)).min(Lsn::MAX - 1);
                self.missing(known.max(last));
            } else if known >= self.expected {
                self.missing(known);
            } else {
                self.scanned.torn_bytes = self.scanned.length - hole.bytes.start;
            }
        }
        if let Some(cut) = self.cuts.iter().find(|cut| cut.expected > known) {
            self.expected = cut.expected;
            self.scanned.entries = cut.entries;
            self.scanned.damage.truncate(cut.damage);
            self.scanned.is_damaged = cut.was_damaged;
            self.scanned.torn_bytes = self.scanned.length - cut.offset;
            let expected = self.expected;
            self.scanned.unproven.retain(|(first, _)| *first < expected);
        }
        if known >= self.expected {
            self.missing(known);
        }
    }

    fn damaged(&mut self, first: Lsn, last: Lsn, bytes: Range<u64>, what: Wrong) {
        let file = self.scanned.name.to_string();
        let gaps = self.scanned.header.as_ref().map_or(&[][..], |header| &header.gaps);
        for lsns in without(first, last, gaps) {
            self.scanned.damage.push(Damage { file: file.clone(), bytes: bytes.clone(), lsns, what });
        }
    }
}

/// The most entries, but one, that these bytes can have held.
fn entries_max(bytes: &Range<u64>) -> u64 {
    (bytes.end - bytes.start).saturating_sub(super::frame::HEADER_BYTES) / 4
}

/// A range of LSNs without those known to be lost.
pub(super) fn without(first: Lsn, last: Lsn, gaps: &[(Lsn, Lsn)]) -> Vec<(Lsn, Lsn)> {
    let mut gaps = gaps.to_vec();
    gaps.sort_unstable();
    let (mut rest, mut from) = (Vec::new(), first);
    for (gap_first, gap_last) in gaps {
        if gap_last < from || gap_first > last {
            continue;
        }
        if gap_first > from {
            rest.push((from, gap_first - 1));
        }
        from = gap_last.saturating_add(1);
    }
    if from <= last {
        rest.push((from, last));
    }
    rest
}

const HEADER_BYTES_TRIED: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_gaps_are_taken_out() {
        assert_eq!(without(1, 9, &[]), [(1, 9)]);
        assert_eq!(without(1, 9, &[(7, 7), (1, 2)]), [(3, 6), (8, 9)]);
        assert_eq!(without(3, 5, &[(1, 9)]), []);
        assert_eq!(without(3, 5, &[(9, 9), (4, 20)]), [(3, 3)]);
    }
}
