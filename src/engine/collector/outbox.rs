//! How closings get into the outbox, and how it makes room for them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::Collector;
use crate::domain::name::DatasetName;
use crate::durable::outbox::{Closing, LastClosing};
use crate::storage::{Lsn, NoRoom, Room};

/// How long the outbox is given before it is asked for room again.
const PAUSE: Duration = Duration::from_millis(100);

impl Collector {
    /// Waits until the outbox has the entry on disk. While it is full, windows wait, and in the end so do the
    /// producers.
    pub(super) fn put_out(&mut self, dataset: &DatasetName, entry: Vec<u8>) {
        let bytes = entry.len() as u64;
        let (mut warned, mut tried) = (false, None);
        let room = loop {
            match self.collecting.outbox.reserve(bytes) {
                Ok(room) => break room,
                Err(error) => {
                    let is_too_large = matches!(error, NoRoom::TooLarge { .. });
                    if !warned && is_too_large {
                        tracing::error!(%error, dataset = dataset.as_str(), "the release of a closing does not fit into a segment of the outbox. \
                         Nothing more leaves until `segment_bytes` is raised and the gateway is started again; nothing is lost");
                    } else if !warned {
                        tracing::warn!(%error, "a release waits for room in the outbox: see which destination does \
                         not take releases, or raise `quota_bytes`");
                    }
                    warned = true;
                    if is_too_large {
                        self.telemetry.too_large_for_outbox.store(bytes, Ordering::Relaxed);
                        thread::sleep(PAUSE);
                        continue;
                    }
                    let needless = (self.collecting.confirmed)().min(self.outbox_needed);
                    let mut through = self.wholes.spare(needless);
                    // Where that gives no room, a release is worth more than to know after a crash what was told.
                    if tried.replace(through) == Some(through) && matches!(error, NoRoom::Full) {
                        through = needless.max(self.needless_at_worst());
                        self.wholes.give_up(through);
                    }
                    if let Err(error) = self.collecting.outbox.let_go(through) {
                        tracing::error!(%error, "the outbox could not be shortened: check the disk");
                    }
                    thread::sleep(PAUSE);
                }
            }
        };
        self.append(entry, room);
        self.wholes.closed(bytes);
    }

    /// Puts an entry into the outbox. Whether it is on disk.
    pub(super) fn append(&mut self, entry: Vec<u8>, room: Room) -> bool {
        self.collecting.outbox_last += 1;
        self.collecting.outbox.submit(self.collecting.outbox_last, entry, room, None);
        self.collecting.outbox.wait_durable(self.collecting.outbox_last)
    }

    /// Through which position a full outbox may be let go although closings since the checkpoints are there. No further
    /// checkpoint is written while a release waits for room, so without this it would wait for ever.
    ///
    /// What a start cannot do without is the last closing of each dataset, of those that the journal has. Where all is
    /// confirmed, these are put behind everything else, without what they released; that takes a few bytes. What was added up of
    /// longer windows goes behind them. What a start then does not know of the others is what waited for other windows at them:
    /// that is dropped by it.
    fn needless_at_worst(&mut self) -> Lsn {
        let (confirmed, end) = ((self.collecting.confirmed)(), self.collecting.outbox_last);
        let oldest = self.sequencer.journal.usage().oldest;
        let is_needed = |last: &LastClosing| last.closed_at >= oldest;
        let needed = self.collecting.released.iter().filter(|(_, last)| is_needed(last));
        let mut needed: Vec<_> = needed.map(|(dataset, last)| (dataset.clone(), *last)).collect();
        // The first ones are most in the way.
        needed.sort_by_key(|(_, last)| last.at);
        let first = |released: &BTreeMap<DatasetName, LastClosing>| {
            released.values().filter(|last| is_needed(last)).map(|last| last.at).min().unwrap_or(Lsn::MAX)
        };
        let held = end.saturating_add(1).saturating_sub(first(&self.collecting.released));
        // Not again and again, where nothing else is there.
        let whole = needed.len() + self.collecting.longer.len();
        if confirmed >= end && held > whole as u64 {
            for (dataset, LastClosing { closed_at, .. }) in needed {
                let Ok(entry) = Closing::new(dataset.clone(), closed_at).encode() else { break };
                let Ok(room) = self.collecting.outbox.reserve_control(entry.len() as u64) else { break };
                if !self.append(entry, room) {
                    break;
                }
                let last = LastClosing { closed_at, at: self.collecting.outbox_last };
                self.collecting.released.insert(dataset, last);
            }
        }
        let through = confirmed.min(first(&self.collecting.released).saturating_sub(1));
        // What closings added goes only if what was added up stands behind it.
        let is_added_up = through <= self.added_up_at.max(self.outbox_needed) || self.keep_added_up();
        if is_added_up { through } else { 0 }
    }
}
