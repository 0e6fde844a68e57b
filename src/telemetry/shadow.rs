//! What policies in the shadow would do otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Declaration, declared};
use crate::domain::refusal::Refusal;

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

    /// Says in the log what would be otherwise, if anything would. Records are shown in steps: `shown` is how a count of a
    /// rule, or of all, is.
    pub(super) fn say(&self, shown: impl Fn(Declaration, &str, u64) -> u64) {
        let newly = |rule: &str, allowed: u64, denied: u64| {
            (shown(declared::SHADOW_NEWLY_ALLOWED, rule, allowed), shown(declared::SHADOW_NEWLY_DENIED, rule, denied))
        };
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (allowed, denied) = (count(&self.newly_allowed), count(&self.newly_denied));
        if allowed + denied > 0 {
            let (newly_allowed, newly_denied) = newly("", allowed, denied);
            tracing::info!(newly_allowed, newly_denied, "records under the policies in the shadow");
        }
        for (rule, (allowed, denied)) in self.by_rule() {
            let (newly_allowed, newly_denied) = newly(&rule, allowed, denied);
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
        super::Telemetry::add(&self.newly_allowed, allowed.len());
        super::Telemetry::add(&self.newly_denied, denied.len());
        let mut by_rule = self.by_rule.lock().unwrap_or_else(PoisonError::into_inner);
        for (refusals, counts) in [(allowed, (1, 0)), (denied, (0, 1))] {
            for rule in refusals.iter().flat_map(|refusal| refusal.rules.iter().flat_map(|rules| rules.iter())) {
                let entry = by_rule.entry(rule.clone()).or_default();
                entry.0 += counts.0;
                entry.1 += counts.1;
            }
        }
    }
}
