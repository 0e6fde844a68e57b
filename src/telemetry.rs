//! Every count of a running gateway, declared once. Counts and names only: no content of a record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

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
    /// Records put into quarantine.
    pub quarantined: AtomicU64,
    /// Records that were taken in from quarantine when more was known.
    pub quarantine_released: AtomicU64,
    /// Records that were discarded from quarantine.
    pub quarantine_expired: AtomicU64,
    /// Releases that a dry run did not make.
    pub dry_releases: AtomicU64,
    /// What the policies in the shadow would do otherwise.
    pub shadow: Shadow,
    refused: [AtomicU64; Reason::ALL.len()],
}

/// What the policies in the shadow would do otherwise.
#[derive(Debug, Default)]
pub struct Shadow {
    /// Records they would let stay, and the ones in force do not.
    pub newly_allowed: AtomicU64,
    /// Records they would not let stay, and the ones in force do.
    pub newly_denied: AtomicU64,
    /// The same by the id of each rule that determined it: newly allowed, newly denied.
    by_rule: Mutex<BTreeMap<String, (u64, u64)>>,
    /// By dataset and destination: windows that would go there and do not, windows that go there and would not.
    by_outlet: Mutex<BTreeMap<(String, String), (u64, u64)>>,
}

impl Shadow {
    /// The differences by rule: newly allowed, newly denied.
    #[must_use]
    pub fn by_rule(&self) -> BTreeMap<String, (u64, u64)> {
        self.by_rule.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The differences by dataset and destination: newly allowed, newly denied.
    #[must_use]
    pub fn by_outlet(&self) -> BTreeMap<(String, String), (u64, u64)> {
        self.by_outlet.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says in the log what would be otherwise, if anything would.
    pub fn say(&self) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (newly_allowed, newly_denied) = (count(&self.newly_allowed), count(&self.newly_denied));
        if newly_allowed + newly_denied > 0 {
            tracing::info!(newly_allowed, newly_denied, "records under the policies in the shadow");
        }
        for (rule, (newly_allowed, newly_denied)) in self.by_rule() {
            tracing::info!(rule, newly_allowed, newly_denied, "records under the policies in the shadow");
        }
        for ((dataset, destination), (newly_allowed, newly_denied)) in self.by_outlet() {
            tracing::info!(
                dataset,
                destination,
                newly_allowed,
                newly_denied,
                "windows under the policies in the shadow"
            );
        }
    }

    /// Counts a window of a dataset: where it goes, and where it would.
    pub fn window(&self, dataset: &str, goes: &BTreeSet<&str>, would_go: &BTreeSet<&str>) {
        let mut by_outlet = self.by_outlet.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = |destination: &&str, allowed: u64, denied: u64| {
            let counts = by_outlet.entry((dataset.to_owned(), (*destination).to_owned())).or_default();
            counts.0 += allowed;
            counts.1 += denied;
        };
        would_go.difference(goes).for_each(|destination| count(destination, 1, 0));
        goes.difference(would_go).for_each(|destination| count(destination, 0, 1));
    }
}

impl Telemetry {
    /// Counts the differences between the refusals of a batch and those under the policies in the shadow. Both are in the
    /// order of the records.
    pub fn compared(&self, live: &[Refusal], shadow: &[Refusal]) {
        let only = |these: &[Refusal], those: &[Refusal]| -> Vec<Refusal> {
            let others: BTreeSet<u32> = those.iter().map(|refusal| refusal.index).collect();
            these.iter().filter(|refusal| !others.contains(&refusal.index)).cloned().collect()
        };
        let (allowed, denied) = (only(live, shadow), only(shadow, live));
        if allowed.is_empty() && denied.is_empty() {
            return;
        }
        Self::add(&self.shadow.newly_allowed, allowed.len());
        Self::add(&self.shadow.newly_denied, denied.len());
        let mut by_rule = self.shadow.by_rule.lock().unwrap_or_else(PoisonError::into_inner);
        for (refusals, counts) in [(allowed, (1, 0)), (denied, (0, 1))] {
            for rule in refusals.iter().flat_map(|refusal| refusal.rules.iter().flat_map(|rules| rules.iter())) {
                let entry = by_rule.entry(rule.clone()).or_default();
                entry.0 += counts.0;
                entry.1 += counts.1;
            }
        }
    }

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
