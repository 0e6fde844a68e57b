//! How far each destination is, on disk.
//!
//! ```text
//! magic    "bwcursor"
//! version  u32
//! through  u64: every entry of the outbox through this position is confirmed
//! files    count, then per dataset: name, last position in a file (u64), last position of the file in work (u64)
//! ```
//!
//! Version 0 has neither magic nor version: it begins with `through`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::binary::{Reader, Writer};
use crate::domain::name::{DatasetName, DestinationName};
use crate::storage::{self, FileSystem, Lsn, Slots, Stored};

const MAGIC: [u8; 8] = *b"bwcursor";
/// The version that this program writes.
pub const VERSION: u32 = 1;

/// Why the cursors cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] storage::Error),
    /// A later version of the program wrote it.
    #[error(
        "the cursor of destination `{destination}` has version {version}; this program reads versions up to {VERSION}. \
         Run the program that wrote it"
    )]
    Newer {
        /// The destination.
        destination: String,
        /// The version.
        version: u32,
    },
}

/// How far a destination is in the outbox.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Every entry through this position is confirmed.
    pub(super) through: Lsn,
    /// For files, by dataset, as a text: what is known of a dataset whose name is none any more is still read.
    pub(super) files: BTreeMap<String, Files>,
}

/// How far the files of a dataset are.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Files {
    /// The last position that is in a file.
    pub(super) written: Lsn,
    /// The last position of the file in work. After a crash the very same file is written again.
    pub(super) pending: Lsn,
}

/// What the bytes of a cursor are.
#[derive(Debug, PartialEq, Eq)]
enum Decoded {
    Cursor(Cursor),
    Newer(u32),
    Unreadable,
}

impl Cursor {
    /// How far a destination is, by a cursor that may be in use. What is damaged or of a later version says nothing.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn peek(fs: &dyn FileSystem, directory: &Path, destination: &str) -> Result<Self, storage::Error> {
        Ok(match Slots::peek(fs, &directory.join(destination))? {
            Stored::Value(bytes) => match Self::decode(&bytes) {
                Decoded::Cursor(cursor) => cursor,
                Decoded::Newer(_) | Decoded::Unreadable => Self::default(),
            },
            Stored::Missing | Stored::Damaged => Self::default(),
        })
    }

    /// Whether the destination has confirmed all that the outbox holds at a position.
    #[must_use]
    pub fn has_all(&self, lsn: Lsn) -> bool {
        lsn <= self.through
    }

    /// Whether the destination has confirmed what the outbox holds of a dataset at a position.
    #[must_use]
    pub fn has(&self, dataset: &DatasetName, lsn: Lsn) -> bool {
        self.has_all(lsn) || self.files.get(dataset.as_str()).is_some_and(|files| lsn <= files.written)
    }

    /// The last position that it has come to, confirmed or not.
    #[must_use]
    pub fn reached(&self) -> Lsn {
        let files = self.files.values().map(|files| files.pending.max(files.written));
        files.max().unwrap_or(0).max(self.through)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.raw(&MAGIC).u32(VERSION).u64(self.through).count(self.files.len());
        for (dataset, files) in &self.files {
            writer.text(dataset).u64(files.written).u64(files.pending);
        }
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Decoded {
        let Some(rest) = bytes.strip_prefix(&MAGIC) else {
            return Self::fields(Reader::new(bytes)).map_or(Decoded::Unreadable, Decoded::Cursor);
        };
        let mut reader = Reader::new(rest);
        match reader.u32() {
            Some(VERSION) => Self::fields(reader).map_or(Decoded::Unreadable, Decoded::Cursor),
            Some(version) if version > VERSION => Decoded::Newer(version),
            Some(_) | None => Decoded::Unreadable,
        }
    }

    fn fields(mut reader: Reader<'_>) -> Option<Self> {
        let mut cursor = Self { through: reader.u64()?, files: BTreeMap::new() };
        for _ in 0..reader.count(24)? {
            let dataset = reader.text()?.to_owned();
            cursor.files.insert(dataset, Files { written: reader.u64()?, pending: reader.u64()? });
        }
        reader.is_empty().then_some(cursor)
    }
}

/// How far every destination is, and the ledger, for whoever shortens the outbox.
#[derive(Clone, Default)]
pub struct Confirmed(Vec<Arc<AtomicU64>>);

impl Confirmed {
    /// The position through which all destinations have confirmed, and the ledger says what closings say.
    #[must_use]
    pub fn through(&self) -> Lsn {
        self.0.iter().map(|cursor| cursor.load(Ordering::Acquire)).min().unwrap_or(Lsn::MAX)
    }
}

/// One destination's cursor, and where it is kept.
pub(super) struct Opened {
    pub(super) slots: Slots,
    pub(super) cursor: Cursor,
    /// `cursor.through` as it is on disk.
    pub(super) through: Arc<AtomicU64>,
}

/// The cursors of all destinations, read before anything is sent.
pub struct Cursors {
    pub(super) opened: BTreeMap<DestinationName, Opened>,
    /// Through which position the ledger says on disk what closings say. It is its own cursor: it knows what it says.
    pub(super) noted: Arc<AtomicU64>,
}

impl Cursors {
    /// Opens the cursors of destinations.
    ///
    /// # Errors
    /// When one cannot be read, or a later version of the program wrote it.
    pub fn open<'d>(
        fs: &Arc<dyn FileSystem>,
        directory: &Path,
        destinations: impl Iterator<Item = &'d DestinationName>,
    ) -> Result<Self, Error> {
        storage::create_directories(&**fs, directory)?;
        let mut opened = BTreeMap::new();
        for name in destinations {
            let (slots, stored) = Slots::open(Arc::clone(fs), &directory.join(name.as_str()))?;
            let decoded = match stored {
                Stored::Missing => Decoded::Cursor(Cursor::default()),
                Stored::Value(bytes) => Cursor::decode(&bytes),
                Stored::Damaged => Decoded::Unreadable,
            };
            let cursor = match decoded {
                Decoded::Cursor(cursor) => cursor,
                Decoded::Newer(version) => return Err(Error::Newer { destination: name.into(), version }),
                Decoded::Unreadable => {
                    tracing::error!(
                        destination = name.as_str(),
                        "the cursor is damaged: what the outbox holds is sent again. Check the disk"
                    );
                    Cursor::default()
                }
            };
            let through = Arc::new(AtomicU64::new(cursor.through));
            opened.insert(name.clone(), Opened { slots, cursor, through });
        }
        Ok(Self { opened, noted: Arc::default() })
    }

    /// The last position of the outbox that any of them has come to.
    #[must_use]
    pub fn reached(&self) -> Lsn {
        self.opened.values().map(|opened| opened.cursor.reached()).max().unwrap_or(0)
    }

    /// Each of them as it was when it was opened.
    #[must_use]
    pub fn at_start(&self) -> BTreeMap<DestinationName, Cursor> {
        self.opened.iter().map(|(name, opened)| (name.clone(), opened.cursor.clone())).collect()
    }

    /// How far they are, now and later.
    #[must_use]
    pub fn confirmed(&self) -> Confirmed {
        let destinations = self.opened.values().map(|opened| &opened.through);
        Confirmed(destinations.chain([&self.noted]).map(Arc::clone).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor() -> Cursor {
        let files = [("a".to_owned(), Files { written: 3, pending: 9 }), ("b".to_owned(), Files::default())];
        Cursor { through: 2, files: files.into() }
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        assert_eq!(Cursor::decode(&cursor().encode()), Decoded::Cursor(cursor()));
        assert_eq!(cursor().reached(), 9);
        for end in 0..cursor().encode().len() {
            let cut = cursor().encode().get(..end).map(Cursor::decode);
            assert_eq!(cut, Some(Decoded::Unreadable), "cut at {end}");
        }
    }

    #[test]
    fn every_version_is_read() {
        assert_eq!(cursor().encode(), include_bytes!("../../../tests/golden/cursor-1"));
        for stored in
            [&include_bytes!("../../../tests/golden/cursor-0")[..], include_bytes!("../../../tests/golden/cursor-1")]
        {
            assert_eq!(Cursor::decode(stored), Decoded::Cursor(cursor()));
        }
        let mut newer = cursor().encode();
        newer[8] = 2;
        assert_eq!(Cursor::decode(&newer), Decoded::Newer(2));
    }
}
