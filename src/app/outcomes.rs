//! What came of reading files again while the gateway runs: counted, and kept until it is over.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What came of reloads.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    changed: AtomicU64,
    unchanged: AtomicU64,
    refused: AtomicU64,
    /// Why the policies on disk are not in force, and what to do.
    policies: Mutex<Option<(String, &'static str)>>,
    /// Whether the files of `[tls]` on disk cannot be used.
    is_tls_stale: AtomicBool,
}

impl Outcomes {
    /// The policies were read again, and are in force.
    pub(super) fn reloaded(&self, is_new: bool) {
        let count = if is_new { &self.changed } else { &self.unchanged };
        count.fetch_add(1, Ordering::Relaxed);
        *self.policies.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// They were read again, and are not put in force.
    pub(super) fn refused(&self, why: String, advice: &'static str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        *self.policies.lock().unwrap_or_else(PoisonError::into_inner) = Some((why, advice));
    }

    /// The files of `[tls]` were replaced: whether they can be used.
    pub(super) fn tls(&self, is_usable: bool) {
        self.is_tls_stale.store(!is_usable, Ordering::Relaxed);
    }

    /// Reloads so far, by what came of them.
    pub(super) fn reloads(&self) -> [(&'static str, u64); 3] {
        [("changed", &self.changed), ("unchanged", &self.unchanged), ("refused", &self.refused)]
            .map(|(outcome, count)| (outcome, count.load(Ordering::Relaxed)))
    }

    /// Why the policies on disk are not in force, when they are not, and what to do.
    pub(super) fn policies_refused(&self) -> Option<(String, &'static str)> {
        self.policies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn is_tls_stale(&self) -> bool {
        self.is_tls_stale.load(Ordering::Relaxed)
    }
}
