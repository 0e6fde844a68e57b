//! What goes between the sequencer, the workers and the collector.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::ArrayRef;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::adapters::journal::Room;
use crate::domain::aggregate::Cells;
use crate::domain::policy::Resident;
use crate::domain::producer::{Lsn, Number};
use crate::domain::refusal::Reason;
use crate::durable::checkpoint::WindowPart;

/// The scores of a batch: one column per output of its model. Or why there are none.
pub type Answer = Result<Vec<ArrayRef>, Reason>;

/// An order to a worker.
pub(super) enum Order {
    Batch(Waiting),
    /// Windows of a dataset are closed, as the journal says at `lsn`. Without `open`, all are released as they
    /// are and none is closed.
    Close {
        lsn: Lsn,
        dataset: String,
        open: Option<i64>,
    },
    /// The state that every entry of the journal through `lsn` led to is wanted.
    Checkpoint {
        lsn: Lsn,
    },
    Finish,
}

/// A batch that waits for a worker.
pub(super) struct Waiting {
    pub(super) resident: Resident,
    pub(super) place: Place,
    pub(super) answer: oneshot::Sender<Answer>,
    /// What it takes of the bytes in work, until it is on disk: whether the producer reads its answer is not the
    /// others' concern.
    pub(super) budget: Option<OwnedSemaphorePermit>,
}

/// Where the journal has a batch.
pub(super) enum Place {
    /// There, as soon as the worker has written the entry.
    New { lsn: Lsn, producer: Arc<str>, number: Option<Number>, at: i64, room: Room },
    /// It was taken before, at or before this position: it is scored again and not counted.
    Taken { through: Lsn },
}

/// What a worker tells the collector.
pub(super) enum Report {
    Closed {
        lsn: Lsn,
        dataset: String,
        /// 0, or the position of the flush.
        part: Lsn,
        windows: BTreeMap<i64, Cells>,
    },
    /// The gateway's own state; comes before the workers'.
    State {
        lsn: Lsn,
        gateway: Vec<u8>,
    },
    Checkpoint {
        lsn: Lsn,
        windows: Vec<WindowPart>,
    },
    Finished,
}
