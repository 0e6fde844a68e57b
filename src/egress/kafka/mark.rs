//! What tells one entry of the outbox from another one that has its position: the outbox of a journal that was removed or
//! put back counts its entries anew.

use sha2::{Digest, Sha256};

use crate::domain::binary::Writer;
use crate::domain::policy::Released;

/// As many letters of an id, or of a hash, tell it from others.
const LETTERS: usize = 16;

/// What an entry has for a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    all: String,
    last: String,
}

/// What a progress record says that an entry has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Said {
    /// All its releases.
    All(String),
    /// Its last release. Of the others, records before version 3 say nothing.
    Last(String),
    /// The messages that it is cut into, in order ([`Mark::of_cut`]).
    Cut(String),
}

impl Mark {
    /// The mark of an entry with these releases for a destination; `None` when there are none. It is the same, whether they
    /// leave whole or smaller.
    #[must_use]
    pub fn of(releases: &[Released]) -> Option<Self> {
        let ids: Vec<&str> = releases.iter().map(Released::id_of_whole).collect();
        Self::of_ids(&ids)
    }

    /// A closing can have many windows, and two that differ in one of them can end with the same. So each release counts.
    pub(super) fn of_ids(ids: &[&str]) -> Option<Self> {
        let last = short(ids.last()?);
        if ids.len() == 1 {
            return Some(Self { all: last.clone(), last });
        }
        let mut writer = Writer::default();
        writer.count(ids.len());
        for id in ids {
            writer.text(id);
        }
        Some(Self { all: short(&hex(&Sha256::digest(writer.finish()))), last })
    }

    /// As records write it.
    pub(super) fn text(&self) -> &str {
        &self.all
    }

    /// What tells the messages that the entry is cut into from others, by what each holds. Where a topic's limit was changed,
    /// cells are set aside, or the form is another one, as many messages can hold something else.
    pub(super) fn of_cut<'m>(&self, messages: impl ExactSizeIterator<Item = &'m [u8]>) -> String {
        // One message is never there in part.
        if messages.len() < 2 {
            return self.all.clone();
        }
        let mut writer = Writer::default();
        writer.text(&self.all);
        for message in messages {
            writer.bytes(&Sha256::digest(message));
        }
        short(&hex(&Sha256::digest(writer.finish())))
    }

    /// Whether a record speaks of the entry.
    pub(super) fn is(&self, said: &Said) -> bool {
        match said {
            Said::All(all) => *all == self.all,
            Said::Last(last) => *last == self.last,
            Said::Cut(_) => false,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn short(id: &str) -> String {
    id.chars().take(LETTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_release_counts_and_one_alone_is_its_own_mark() {
        let text = |ids: &[&str]| Mark::of_ids(ids).map(|mark| mark.text().to_owned());
        assert_eq!(text(&["0123456789abcdef0123456789abcdef"]).as_deref(), Some("0123456789abcdef"));
        let marks = [text(&[]), text(&["b"]), text(&["a", "b"]), text(&["c", "b"]), text(&["b", "a"]), text(&["ab"])];
        let distinct: std::collections::BTreeSet<_> = marks.iter().collect();
        assert_eq!(distinct.len(), marks.len(), "{marks:?}");
        // It stands in topics: another program must make the same.
        assert_eq!(text(&["a", "b"]).as_deref(), Some("3f5ca3a8d1e9bec8"));
    }
}
