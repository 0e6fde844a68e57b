//! What lies in a log's directory, for a person who has to find out. Reads only; works beside a process that has the
//! log open and on a log that is damaged.

use std::path::Path;
use std::sync::Arc;

use super::fs::{FileSystem, Kind};
use super::let_go::DAMAGED_DIRECTORY;
use super::recover::{summary, table_segment};
use super::scan::{self, Scanned};
use super::segment::Name;
use super::table::Table;
use super::{Damage, Error, Lsn, Reader};

/// What a directory holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The segments, oldest first.
    pub segments: Vec<SegmentReport>,
    /// The oldest LSN that a segment was made for.
    pub first: Lsn,
    /// The last LSN.
    pub last: Lsn,
    /// Entries that can be read.
    pub entries: u64,
    /// Bytes of all segments.
    pub bytes: u64,
    /// Everything that is wrong.
    pub damage: Vec<Damage>,
    /// Bytes at the end that a crash left incomplete, or that are being written.
    pub torn_bytes: u64,
    /// Files in `damaged/`.
    pub set_aside: usize,
}

/// What one segment holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReport {
    /// The file's name.
    pub file: String,
    /// Its id.
    pub id: u64,
    /// The LSN that it was made for.
    pub first: Lsn,
    /// The last LSN that it accounts for; `first - 1` if none.
    pub last: Lsn,
    /// Entries that can be read.
    pub entries: u64,
    /// The file's length.
    pub bytes: u64,
    /// The length of the context; `None` if the header cannot be read.
    pub context_bytes: Option<u64>,
    /// LSNs that were lost and have been dealt with.
    pub known_gaps: Vec<(Lsn, Lsn)>,
    /// A later segment took its place; nothing in it is needed.
    pub is_superseded: bool,
    /// What is wrong.
    pub damage: Vec<Damage>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

/// Looks at a log, of which everything through an LSN was durable once, as the caller knows. No directory is an empty log.
///
/// # Errors
/// When the directory or a file cannot be read, or has another format version. Damage is not an error.
pub fn inspect(fs: &dyn FileSystem, directory: &Path, at_least: Lsn) -> Result<Report, Error> {
    let names = names(fs, directory)?;
    let scanned = scan::scan_all(fs, directory, &names, at_least)?;
    let found = summary(&scanned, at_least);
    let aside = fs.list(&directory.join(DAMAGED_DIRECTORY)).unwrap_or_default();
    Ok(Report {
        first: found.first,
        last: found.last,
        entries: found.entries,
        bytes: scanned.iter().map(|segment| segment.length).sum(),
        damage: found.damage,
        torn_bytes: found.torn_bytes,
        set_aside: aside.into_iter().filter(|(_, kind)| *kind == Kind::File).count(),
        segments: scanned.into_iter().map(report).collect(),
    })
}

/// Reads the entries of a log that need not be open, those that can be read.
///
/// # Errors
/// As [`inspect`].
pub fn entries(fs: Arc<dyn FileSystem>, directory: &Path) -> Result<Reader, Error> {
    let names = names(&*fs, directory)?;
    let scanned = scan::scan_all(&*fs, directory, &names, 0)?;
    let found = summary(&scanned, 0);
    let segments = scanned.iter().map(table_segment).collect();
    let table = Table::new(directory.to_owned(), segments, found.damage, found.last);
    Ok(Reader::new(fs, Arc::new(table), true, 0))
}

fn names(fs: &dyn FileSystem, directory: &Path) -> Result<Vec<Name>, Error> {
    match fs.kind(directory).map_err(Error::io("look up", directory))? {
        None => Ok(Vec::new()),
        Some(_) => scan::list(fs, directory).map(|(names, _)| names),
    }
}

fn report(scanned: Scanned) -> SegmentReport {
    SegmentReport {
        file: scanned.name.to_string(),
        id: scanned.name.id.0,
        first: scanned.name.first,
        last: scanned.last,
        entries: scanned.entries,
        bytes: scanned.length,
        context_bytes: scanned.header.as_ref().map(|header| header.context.len() as u64),
        is_superseded: scanned.is_superseded(),
        known_gaps: scanned.header.map(|header| header.gaps).unwrap_or_default(),
        damage: scanned.damage,
    }
}
