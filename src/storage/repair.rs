//! Puts what can be read of damaged segments into clean ones, and writes down what is lost, so that it is not reported
//! again. Nothing is deleted: a damaged segment is moved to `damaged/`.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use tracing::warn;

use super::durable::sync_dir;
use super::frame::{Frames, payloads};
use super::fs::{Access, FileSystem, write_full};
use super::inspect::{Report, inspect};
use super::let_go::set_aside;
use super::recover::lock;
use super::scan::{self, Scanned};
use super::segment::{Header, Id, Name};
use super::walk::{Found, Walk};
use super::{Error, Lsn, Wrong};

/// Repairs a log that no process has open. Says what there is afterwards: it is sound, and the gaps are known.
///
/// # Errors
/// When the log is in use, or the file system refuses. It can be tried again: at no time is a readable entry in
/// `damaged/` only.
pub fn repair(fs: &dyn FileSystem, directory: &Path) -> Result<Report, Error> {
    let _lock = lock(fs, directory)?;
    let (names, _) = scan::list(fs, directory)?;
    let mut id = names.iter().map(|name| name.id).max().unwrap_or_default();
    for scanned in scan::scan_all(fs, directory, &names, 0)? {
        if scanned.damage.is_empty() && !scanned.is_damaged {
            continue;
        }
        if !scanned.is_superseded() {
            id = id.next(fs.random()).ok_or(Error::NumbersExhausted)?;
            replace(fs, directory, &scanned, id)?;
        }
        if scanned.is_damaged {
            set_aside(fs, directory, scanned.name)?;
            sync_dir(fs, directory)?;
        }
    }
    inspect(fs, directory, 0)
}

/// Writes a clean segment in a segment's place, or one for what is missing after it.
fn replace(fs: &dyn FileSystem, directory: &Path, scanned: &Scanned, id: Id) -> Result<(), Error> {
    let lost: Vec<_> = scanned.damage.iter().map(|damage| damage.lsns).collect();
    let header = match scanned.damage.as_slice() {
        // The file is good as far as it goes.
        [missing] if missing.what == Wrong::Missing && missing.lsns.1 == scanned.last && !scanned.is_damaged => {
            Header { name: Name { first: missing.lsns.0, id }, context: Arc::default(), gaps: lost }
        }
        _ => {
            let (context, mut gaps) = scanned
                .header
                .as_ref()
                .map_or_else(Default::default, |header| (header.context.clone(), header.gaps.clone()));
            gaps.extend(lost);
            Header { name: Name { first: scanned.name.first, id }, context, gaps }
        }
    };
    let path = directory.join(header.name.to_string());
    write_clean(fs, directory, scanned, &header).map_err(Error::io("write", &path))?;
    sync_dir(fs, directory)?;
    warn!(from = %scanned.name, to = %header.name, lost = header.gaps.len(), "repaired a segment of the log");
    Ok(())
}

fn write_clean(fs: &dyn FileSystem, directory: &Path, scanned: &Scanned, header: &Header) -> io::Result<()> {
    let temporary = directory.join(super::segment::spare_name(header.name.id));
    let file = fs.create(&temporary)?;
    let encoded = header.encode();
    let mut offset = write_full(&*file, &mut [IoSlice::new(&encoded)], 0)?;
    if let Some(old) = &scanned.header {
        let from = fs.open(&directory.join(scanned.name.to_string()), Access::Read)?;
        let mut walk = Walk::new(from, scanned.name.id.seed(), old.bytes())?;
        let mut expected = header.name.first;
        while expected <= scanned.last {
            match walk.next()? {
                Found::End => break,
                Found::Frame(at, frame)
                    if frame.count > 0 && frame.first >= expected && frame.first <= scanned.last =>
                {
                    let next = frame.next().min(scanned.last.saturating_add(1));
                    let entries = (frame.first..next).zip(payloads(walk.body(at, &frame)));
                    let mut copy = Frames::new(header.name.id.seed());
                    copy.push(frame.first, before(header.name.first), entries.map(|(_, payload)| payload));
                    copy.write(&*file, offset)?;
                    offset += copy.bytes();
                    expected = next;
                }
                Found::Frame(..) | Found::Bad(_) => {}
            }
        }
        // All of it is on disk before it gets its name.
        let mut end = Frames::new(header.name.id.seed());
        end.push(scanned.last.saturating_add(1), scanned.last, None);
        end.write(&*file, offset)?;
    }
    file.sync_all()?;
    fs.rename(&temporary, &directory.join(header.name.to_string()))
}

fn before(first: Lsn) -> Lsn {
    first.saturating_sub(1)
}
