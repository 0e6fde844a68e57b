//! How far the windows have come, as it is told outside.
//!
//! It is read without the lock of the sequencer: whoever looks must not make the workers wait, nor wait for them.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::domain::gateway::{Gateway, HowFar};
use crate::domain::name::DatasetName;

/// How far the windows of each dataset have come.
pub(super) struct Progress(Vec<OfDataset>);

struct OfDataset {
    dataset: DatasetName,
    /// [`NOTHING`] until a window has closed.
    closed: AtomicI64,
    open: AtomicU64,
}

const NOTHING: i64 = i64::MIN;

impl Progress {
    /// As it is now.
    pub(super) fn of(gateway: &Gateway) -> Self {
        let of =
            |HowFar { dataset, .. }| OfDataset { dataset, closed: AtomicI64::new(NOTHING), open: AtomicU64::new(0) };
        let progress = Self(gateway.windows().map(of).collect());
        progress.has_come_to(gateway);
        progress
    }

    /// From now on this is told.
    pub(super) fn has_come_to(&self, gateway: &Gateway) {
        // A gateway has the same datasets from its start to its end.
        for (of, HowFar { closed, open, .. }) in self.0.iter().zip(gateway.windows()) {
            of.closed.store(closed.unwrap_or(NOTHING), Ordering::Relaxed);
            of.open.store(open, Ordering::Relaxed);
        }
    }

    /// Of each dataset.
    pub(super) fn told(&self) -> Vec<HowFar> {
        let of = |of: &OfDataset| {
            let (closed, open) = (of.closed.load(Ordering::Relaxed), of.open.load(Ordering::Relaxed));
            HowFar { dataset: of.dataset.clone(), closed: (closed != NOTHING).then_some(closed), open }
        };
        self.0.iter().map(of).collect()
    }
}
