//! Every count of a running gateway, declared once. Counts and names only: no content of a record.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::refusal::{Reason, Refusal};

/// The counts since start.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// Bytes of payload received.
    pub bytes_in: AtomicU64,
    /// Records received, whatever became of them.
    pub records_in: AtomicU64,
    /// Records taken in.
    pub accepted: AtomicU64,
    /// Requests that were durable already.
    pub duplicates: AtomicU64,
    /// Records scored by a model.
    pub scored: AtomicU64,
    /// Records that the journal held at the start under a key that was not there any more.
    pub erased: AtomicU64,
    /// Values of undeclared fields that were dropped.
    pub dropped_values: AtomicU64,
    /// Cells that left.
    pub cells_released: AtomicU64,
    /// Cells with too few contributors.
    pub cells_withheld: AtomicU64,
    /// Releases handed to a destination.
    pub releases: AtomicU64,
    /// Bytes that destinations took.
    pub bytes_out: AtomicU64,
    refused: [AtomicU64; Reason::ALL.len()],
}

impl Telemetry {
    /// Adds to a count.
    pub fn add(counter: &AtomicU64, amount: usize) {
        counter.fetch_add(amount as u64, Ordering::Relaxed);
    }

    /// Counts refused records by reason.
    pub fn refused(&self, refusals: &[Refusal]) {
        for refusal in refusals {
            self.refused_as(refusal.reason, 1);
        }
    }

    /// Counts records refused for one reason; a request refused as a whole counts once.
    pub fn refused_as(&self, reason: Reason, records: usize) {
        let position = Reason::ALL.iter().position(|(known, _)| *known == reason);
        if let Some(counter) = position.and_then(|position| self.refused.get(position)) {
            Self::add(counter, records);
        }
    }

    /// The refusals so far, by reason, without those that never happened.
    #[must_use]
    pub fn refusals(&self) -> Vec<(&'static str, u64)> {
        let counts = Reason::ALL.iter().zip(&self.refused);
        let counts = counts.map(|((_, name), counter)| (*name, counter.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}
