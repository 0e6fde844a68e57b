//! Room in the journal for the closings to come: one for each dataset, had before the closing is decided.
//!
//! A closing is written for the gateway itself, so nobody can be refused instead. Time alone makes closings, also while
//! the journal is full: idle streams go on with the clock. So they may use the space that the journal keeps from
//! producers, and when that is used up too, windows close later. What waits in memory is bounded by the number of
//! datasets.

use std::collections::BTreeMap;

use crate::domain::name::DatasetName;
use crate::storage::{Log, Room};

/// Room for the next closing of each dataset.
pub(super) struct ClosingRooms {
    rooms: BTreeMap<DatasetName, Option<Room>>,
    /// How many of them are missing.
    missing: usize,
}

impl ClosingRooms {
    /// None yet, for these datasets.
    pub(super) fn new<'d>(datasets: impl Iterator<Item = &'d DatasetName>) -> Self {
        let rooms: BTreeMap<_, _> = datasets.map(|dataset| (dataset.clone(), None)).collect();
        Self { missing: rooms.len(), rooms }
    }

    /// Gets what is missing; whether every dataset has room now.
    pub(super) fn fill(&mut self, journal: &Log) -> bool {
        if self.missing > 0 {
            for (dataset, room) in self.rooms.iter_mut().filter(|(_, room)| room.is_none()) {
                let Ok(reserved) = journal.reserve_control(closing_bytes(dataset)) else { break };
                *room = Some(reserved);
                self.missing -= 1;
            }
        }
        self.missing == 0
    }

    /// The room of a dataset, for its closing or its last flush.
    pub(super) fn take(&mut self, journal: &Log, dataset: &DatasetName) -> Option<Room> {
        self.fill(journal);
        let room = self.rooms.get_mut(dataset)?.take()?;
        self.missing += 1;
        Some(room)
    }
}

/// No entry that closes windows of a dataset has more bytes: its numbers and times have a fixed size.
fn closing_bytes(dataset: &DatasetName) -> u64 {
    dataset.len() as u64 + 64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::{NoRoom, RealFileSystem, Settings};

    #[test]
    fn on_a_full_journal_so_many_closings_have_room_and_then_they_wait() {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings {
            directory: directory.path().to_owned(),
            segment_bytes: 64 << 10,
            quota_bytes: 128 << 10,
            context: Vec::new(),
            at_least: 0,
        };
        let (journal, _) = Log::open(Arc::new(RealFileSystem), settings).unwrap();
        let mut taken = Vec::new();
        let refusal = loop {
            match journal.reserve(1000) {
                Ok(room) => taken.push(room),
                Err(refusal) => break refusal,
            }
        };
        assert!(matches!(refusal, NoRoom::Behind | NoRoom::Full));
        let datasets: [DatasetName; 2] = ["one", "two"].map(|name| name.parse().unwrap());
        let mut rooms = ClosingRooms::new(datasets.iter());
        let mut lsn = 0;
        while rooms.fill(&journal) {
            for dataset in &datasets {
                let room = rooms.take(&journal, dataset).unwrap();
                lsn += 1;
                journal.submit(lsn, vec![0; usize::try_from(closing_bytes(dataset)).unwrap()], room, None);
            }
            assert!(lsn < 100, "closings without a bound");
        }
        assert!(lsn > 10);
        assert!(journal.wait_durable(lsn));
        taken.clear();
        assert!(rooms.fill(&journal));
    }

    #[test]
    fn a_closing_fits_its_room() {
        use crate::durable::entry::{Before, Entry};
        let dataset: DatasetName = "d".repeat(64).parse().unwrap();
        for (open, watermark) in [(i64::MIN, i64::MAX), (i64::MAX, i64::MIN)] {
            let entry = Entry::Closed { dataset: dataset.clone(), before: Before::Time(open), watermark }.encode();
            assert!(entry.len() as u64 <= closing_bytes(&dataset));
        }
        assert!(Entry::Flushed { dataset: dataset.clone() }.encode().len() as u64 <= closing_bytes(&dataset));
    }
}
