//! Permission as a type: what may stay, what belongs elsewhere, what may leave.
//!
//! All fields are private to the policy module, there is no other constructor, and none of the types
//! can be printed, defaulted or deserialised. An adapter that asks for one of them can only be called
//! with something that `decide` or `release` let through.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{BooleanArray, RecordBatch};
use arrow_schema::ArrowError;

use crate::domain::batch::{Batch, Candidate};
use crate::domain::name::{DatasetName, DestinationName, GatewayId};
use crate::domain::peer::Peer;

use super::{Digest, RegimeSet};

/// Records that may be processed and kept here: this gateway serves every regime that applies to them.
#[derive(Clone)]
pub struct Resident {
    pub(super) batch: Batch,
    pub(super) policy: Digest,
    pub(super) regimes: RegimeSet,
}

impl Resident {
    /// The records.
    #[must_use]
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Those of them that a mask keeps, which has one mark per record. What all of them may, some of them may.
    ///
    /// # Errors
    /// When Arrow cannot filter the columns, which no valid batch causes.
    pub fn keep(self, mask: &BooleanArray) -> Result<Self, ArrowError> {
        Ok(Self { batch: self.batch.keep(mask)?, ..self })
    }

    /// Some of them in a row, without a copy.
    #[must_use]
    pub fn slice(&self, first: usize, rows: usize) -> Self {
        Self { batch: self.batch.slice(first, rows), regimes: Arc::clone(&self.regimes), ..*self }
    }

    /// The policy they were decided under.
    #[must_use]
    pub fn policy(&self) -> Digest {
        self.policy
    }

    /// Every regime that applies to one of them or more. At least one.
    #[must_use]
    pub fn regimes(&self) -> &RegimeSet {
        &self.regimes
    }
}

/// Records that belong to another gateway. They are never scored, counted or stored here.
pub struct Foreign {
    pub(super) rows: Vec<u32>,
    pub(super) route: Arc<Peer>,
}

impl Foreign {
    /// How many records there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Where they belong.
    #[must_use]
    pub fn route(&self) -> &Arc<Peer> {
        &self.route
    }
}

/// Records that are held in memory until more is known. They are never scored, counted or stored.
#[derive(Clone)]
pub struct Quarantined {
    candidate: Candidate,
    /// Their positions in the batch that was decided, in ascending order.
    positions: Vec<u32>,
}

impl Quarantined {
    pub(super) fn new(candidate: Candidate, positions: Vec<u32>) -> Self {
        Self { candidate, positions }
    }

    /// Those that were at these positions of the batch that was decided. `None`: none was.
    ///
    /// # Errors
    /// When Arrow cannot take the records, which no valid batch causes.
    pub fn within(&self, positions: Range<u32>) -> Result<Option<Self>, ArrowError> {
        let first = self.positions.partition_point(|position| *position < positions.start);
        let end = self.positions.partition_point(|position| *position < positions.end);
        if first >= end {
            return Ok(None);
        }
        let rows: Vec<u32> = (0..).skip(first).take(end - first).collect();
        let positions = self.positions.iter().skip(first).take(end - first).copied().collect();
        Ok(Some(Self { candidate: self.candidate.some(&rows)?, positions }))
    }

    /// How many records there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.candidate.rows()
    }

    /// How many bytes they hold.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.candidate.bytes()
    }

    /// The records, to be decided again.
    #[must_use]
    pub fn again(self) -> Candidate {
        self.candidate
    }
}

/// Cells of one window that passed the release rules, bound for one destination.
#[derive(Clone)]
pub struct Released {
    pub(super) id: String,
    pub(super) destination: DestinationName,
    pub(super) dataset: DatasetName,
    pub(super) gateway: GatewayId,
    pub(super) window_start: i64,
    pub(super) window_end: i64,
    pub(super) policy: Digest,
    pub(super) cells: RecordBatch,
    pub(super) reduced: Option<Reduced>,
}

/// What a [`Released`] is made of.
pub struct ReleasedParts {
    /// The release's id.
    pub id: String,
    /// The destination's name.
    pub destination: DestinationName,
    /// The dataset's name.
    pub dataset: DatasetName,
    /// The gateway's id.
    pub gateway: GatewayId,
    /// The window's start, in microseconds since the Unix epoch.
    pub window_start: i64,
    /// Its end.
    pub window_end: i64,
    /// The policy it was released under.
    pub policy: Digest,
    /// The cells.
    pub cells: RecordBatch,
}

/// What a smaller release was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reduced {
    /// The steps that made it smaller, in order.
    pub steps: Vec<&'static str>,
    /// The id of the whole release.
    pub whole: String,
    /// How many cells the whole release has.
    pub cells: u64,
    /// The id under which that left which its receiver was told last, where only what has changed since then leaves.
    pub since: Option<String>,
}

impl Reduced {
    /// The steps, as receivers read them.
    #[must_use]
    pub fn text(&self) -> String {
        self.steps.join(",")
    }
}

impl Released {
    /// A release as the outbox holds it. Only the outbox may call this, and it is given nothing but what
    /// [`release`](super::release) let go; `tests/architecture.rs` holds it to that.
    #[must_use]
    pub fn from_outbox(parts: ReleasedParts) -> Self {
        let ReleasedParts { id, destination, dataset, gateway, window_start, window_end, policy, cells } = parts;
        Self { id, destination, dataset, gateway, window_start, window_end, policy, cells, reduced: None }
    }

    /// A release that nothing let go.
    #[cfg(test)]
    pub(crate) fn for_tests(parts: ReleasedParts) -> Self {
        Self::from_outbox(parts)
    }

    /// The release's id: the same for the same gateway, dataset, window, policy and cells.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The id that the release has in the outbox. A smaller release than that has another id.
    #[must_use]
    pub fn id_of_whole(&self) -> &str {
        self.reduced.as_ref().map_or(&self.id, |reduced| &reduced.whole)
    }

    /// What it was made of; `None`: it is whole.
    #[must_use]
    pub fn made_smaller(&self) -> Option<&Reduced> {
        self.reduced.as_ref()
    }

    /// The destination's name.
    #[must_use]
    pub fn destination(&self) -> &DestinationName {
        &self.destination
    }

    /// The dataset's name.
    #[must_use]
    pub fn dataset(&self) -> &DatasetName {
        &self.dataset
    }

    /// The gateway's id.
    #[must_use]
    pub fn gateway(&self) -> &GatewayId {
        &self.gateway
    }

    /// The window's start, in microseconds since the Unix epoch.
    #[must_use]
    pub fn window_start(&self) -> i64 {
        self.window_start
    }

    /// The window's end (exclusive), in microseconds since the Unix epoch.
    #[must_use]
    pub fn window_end(&self) -> i64 {
        self.window_end
    }

    /// The policy it was released under.
    #[must_use]
    pub fn policy(&self) -> Digest {
        self.policy
    }

    /// The cells, one a row: the release's own columns, the group keys, the metrics.
    #[must_use]
    pub fn cells(&self) -> &RecordBatch {
        &self.cells
    }
}
