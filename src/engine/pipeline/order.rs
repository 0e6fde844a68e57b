//! What goes between the sequencer, the workers and the collector.

use std::collections::BTreeMap;

use arrow_array::ArrayRef;
use tokio::sync::oneshot;

use crate::domain::aggregate::{Cells, Reserved};
use crate::domain::outcome::{Outcome, Taken};
use crate::domain::policy::Resident;
use crate::domain::producer::Lsn;
use crate::domain::refusal::Reason;
use crate::durable::checkpoint::WindowPart;

use super::place::Place;

/// What a request came to, and the model's outputs of the records that were taken in: one column per output.
#[derive(Debug)]
pub struct Answer {
    /// What it came to.
    pub outcome: Outcome,
    /// The outputs.
    pub outputs: Vec<ArrayRef>,
}

impl Answer {
    /// An answer without outputs.
    #[must_use]
    pub fn without_outputs(outcome: Outcome) -> Self {
        Self { outcome, outputs: Vec::new() }
    }
}

/// Outputs that are worked out again, or why there are none.
pub(super) type Again = oneshot::Sender<Result<Vec<ArrayRef>, Reason>>;

/// An order to a worker.
pub(super) enum Order {
    /// Records to be scored, written and counted.
    Batch(Waiting),
    /// Records that were counted before: they are scored for the answer and nothing else.
    Score(Resident, Again),
    /// Windows of a dataset that began before a time are closed, as the journal says at `lsn`. Without a time, all are
    /// released as they are and none is closed.
    Close { lsn: Lsn, dataset: String, before: Option<i64> },
    /// The state that every entry of the journal through `lsn` led to is wanted.
    Checkpoint { lsn: Lsn },
    /// Nothing comes any more.
    Finish,
}

/// A batch that waits for a worker.
pub(super) struct Waiting {
    pub(super) resident: Resident,
    /// What it comes to, if the model does not fail.
    pub(super) taken: Taken,
    /// The newest event time that it brought or promised.
    pub(super) newest: Option<i64>,
    pub(super) place: Place,
    /// Room in the open windows, until it is counted.
    pub(super) windows: Reserved,
}

/// What a worker tells the collector.
pub(super) enum Report {
    /// Its part of windows that were closed.
    Closed {
        lsn: Lsn,
        dataset: String,
        /// 0, or the position of the flush.
        part: Lsn,
        windows: BTreeMap<i64, Cells>,
    },
    /// The gateway's own state; comes before the workers'.
    State { lsn: Lsn, gateway: Vec<u8> },
    /// Its part of a checkpoint.
    Checkpoint { lsn: Lsn, windows: Vec<WindowPart> },
    /// It has come to the end.
    Finished,
}
