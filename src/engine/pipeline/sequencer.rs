//! What stands under the one lock that orders things.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::gateway::Gateway;
use crate::domain::outcome::Outcome;
use crate::domain::producer::{Lsn, Number};
use crate::durable::checkpoint::Correction;
use crate::storage::Log;

use super::closings::ClosingRooms;

/// The journal, and the order in which it is filled.
pub(super) struct Ordered {
    pub(super) journal: Arc<Log>,
    sequencer: Mutex<Sequencer>,
}

/// The state under the lock.
pub(super) struct Sequencer {
    pub(super) gateway: Gateway,
    /// The last position that was given out.
    pub(super) last: Lsn,
    pub(super) checkpoint: LastCheckpoint,
    /// Room in the journal for the closings to come.
    pub(super) closing_rooms: ClosingRooms,
    /// What requests came to, as far as the checkpoint that is being made holds something else: it was too early for
    /// their workers.
    corrections: Vec<Correction>,
}

pub(super) struct LastCheckpoint {
    pub(super) lsn: Lsn,
    pub(super) at: Duration,
    /// Bytes given to the journal since.
    pub(super) bytes: u64,
}

impl Ordered {
    pub(super) fn new(journal: Arc<Log>, gateway: Gateway, last: Lsn) -> Self {
        let checkpoint = LastCheckpoint { lsn: last, at: Duration::ZERO, bytes: 0 };
        let closing_rooms = ClosingRooms::new(gateway.datasets());
        let sequencer = Sequencer { gateway, last, checkpoint, closing_rooms, corrections: Vec::new() };
        Self { journal, sequencer: Mutex::new(sequencer) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Sequencer> {
        self.sequencer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request at a position came to something else than was said when it was taken.
    pub(super) fn correct(&self, lsn: Lsn, producer: &Arc<str>, number: Number, outcome: &Outcome) {
        let mut sequencer = self.lock();
        sequencer.gateway.producers.correct(producer, number, outcome);
        if lsn <= sequencer.checkpoint.lsn {
            let (producer, outcome) = (Arc::clone(producer), outcome.clone());
            sequencer.corrections.push(Correction { producer, number, outcome });
        }
    }

    /// What the checkpoint that was begun last holds otherwise than it came to be.
    pub(super) fn corrections(&self) -> Vec<Correction> {
        std::mem::take(&mut self.lock().corrections)
    }
}

impl Sequencer {
    /// Gives out the next position, for an entry of so many bytes.
    pub(super) fn next(&mut self, bytes: u64) -> Lsn {
        self.last += 1;
        self.checkpoint.bytes += bytes;
        self.last
    }

    /// A checkpoint of what there is now is begun. Its position.
    pub(super) fn begin_checkpoint(&mut self) -> Lsn {
        self.corrections.clear();
        self.checkpoint = LastCheckpoint { lsn: self.last, bytes: 0, at: self.checkpoint.at };
        self.last
    }
}
