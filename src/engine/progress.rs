//! How far the windows have come, as it is told outside.
//!
//! It is read without the lock of the sequencer: whoever looks must not make the workers wait, nor wait for them.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::domain::gateway::Gateway;
use crate::domain::name::DatasetName;

/// How far the windows of each dataset have come.
pub(super) struct Progress(Vec<OfDataset>);

struct OfDataset {
    name: DatasetName,
    /// [`NOTHING`] until a window has closed.
    closed: AtomicI64,
    open: AtomicU64,
}

const NOTHING: i64 = i64::MIN;

impl Progress {
    /// As it is now.
    pub(super) fn of(gateway: &Gateway) -> Self {
        let of = |(name, _, _): (&DatasetName, _, _)| OfDataset {
            name: name.clone(),
            closed: AtomicI64::new(NOTHING),
            open: AtomicU64::new(0),
        };
        let progress = Self(gateway.windows().map(of).collect());
        progress.has_come_to(gateway);
        progress
    }

    /// From now on this is told.
    pub(super) fn has_come_to(&self, gateway: &Gateway) {
        // A gateway has the same datasets from its start to its end.
        for (of, (_, closed, open)) in self.0.iter().zip(gateway.windows()) {
            of.closed.store(closed.unwrap_or(NOTHING), Ordering::Relaxed);
            of.open.store(open, Ordering::Relaxed);
        }
    }

    /// The name of each dataset, the event time through which its windows have closed, and how many are open.
    pub(super) fn told(&self) -> Vec<(DatasetName, Option<i64>, u64)> {
        let of = |of: &OfDataset| {
            let closed = of.closed.load(Ordering::Relaxed);
            (of.name.clone(), (closed != NOTHING).then_some(closed), of.open.load(Ordering::Relaxed))
        };
        self.0.iter().map(of).collect()
    }
}
