//! Entries that became durable together, as one entry of the log before the tiles, with the checkpoint that covers them.
//!
//! ```text
//! version     u8: 1
//! first       u64: the number of the first entry
//! entries     count, then the bytes of each
//! checkpoint  text: the signed checkpoint of the tree with these entries
//! ```

use crate::domain::binary::{Reader, Writer};

const VERSION: u8 = 1;

/// Entries that became durable together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// The number of the first entry.
    pub(super) first: u64,
    /// The entries' bytes.
    pub(super) entries: Vec<Vec<u8>>,
    /// The signed checkpoint of the tree with these entries.
    pub(super) checkpoint: String,
}

impl Group {
    /// Its bytes.
    #[must_use]
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u8(VERSION).u64(self.first).count(self.entries.len());
        self.entries.iter().for_each(|entry| {
            writer.bytes(entry);
        });
        writer.text(&self.checkpoint);
        writer.finish()
    }

    /// Reads it.
    #[must_use]
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (VERSION, first) = (reader.u8()?, reader.u64()?) else { return None };
        let mut entries = Vec::new();
        for _ in 0..reader.count(4)? {
            entries.push(reader.bytes()?.to_vec());
        }
        let checkpoint = reader.text()?.to_owned();
        reader.is_empty().then_some(Self { first, entries, checkpoint })
    }

    /// The number of the entry after the last.
    #[must_use]
    pub(super) fn end(&self) -> u64 {
        self.first.saturating_add(self.entries.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_read_as_it_is_written() {
        let entries = vec![b"one".to_vec(), Vec::new()];
        let group = Group { first: 7, entries, checkpoint: "signed\n".to_owned() };
        let golden = include_bytes!("../../tests/golden/ledger-group-1");
        assert_eq!(group.encode(), golden);
        assert_eq!(Group::decode(golden), Some(group.clone()));
        assert_eq!(group.end(), 9);
        for cut in 0..golden.len() {
            assert_eq!(Group::decode(&golden[..cut]), None, "cut at {cut}");
        }
    }
}
