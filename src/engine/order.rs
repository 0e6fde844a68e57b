//! What goes between the sequencer, the workers and the collector.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::aggregate::{Cells, Saved};
use crate::domain::gateway::Snapshot;
use crate::domain::name::DatasetName;
use crate::domain::tally::Told;
use crate::storage::Lsn;

/// An order to a worker. Each worker gets the same orders, in the order of the journal.
#[derive(Debug, Clone)]
pub(super) enum Order {
    /// Windows of a dataset that began before a time are closed, as the journal says at `lsn`. Without a time, all are
    /// released as they are and none is closed.
    Close { lsn: Lsn, dataset: DatasetName, before: Option<i64> },
    /// The state that every entry of the journal through `lsn` led to is wanted.
    Checkpoint { lsn: Lsn },
    /// Nothing comes any more.
    Finish,
}

/// What a worker tells the collector.
pub(super) enum Report {
    /// Its part of windows that were closed.
    Closed {
        lsn: Lsn,
        dataset: DatasetName,
        /// The windows that began before this time are closed, in microseconds since the Unix epoch. `None`: all are
        /// released as they are, and none is closed.
        before: Option<i64>,
        windows: BTreeMap<i64, Cells>,
        /// The checkpoint that is under way. The windows' part of it comes with them.
        saving: Option<Lsn>,
    },
    /// What is told of refused records with the closing at `lsn`, which comes after it.
    Refused {
        lsn: Lsn,
        /// The windows that began before this time are closed, in microseconds since the Unix epoch. `None`: they are
        /// released as they are.
        before: Option<i64>,
        refused: Vec<Told>,
    },
    /// The gateway's own state; comes before the workers'.
    State { lsn: Lsn, gateway: Snapshot },
    /// Its part of a checkpoint, without the windows that have closed since, and how long it worked on it.
    Checkpoint { lsn: Lsn, windows: Vec<SavedWindow>, took: Duration },
    /// It has come to the end.
    Finished,
}

/// A worker's part of a window, as it was at the position of a checkpoint.
pub(super) struct SavedWindow {
    pub(super) dataset: DatasetName,
    pub(super) window: i64,
    pub(super) cells: Saved,
}
