//! A request's place in the journal. Every position that was given out is filled, whatever happens to whoever holds it:
//! the journal waits for it, and with it everything that comes after.

use std::sync::Arc;

use arrow_array::ArrayRef;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::adapters::journal::Room;
use crate::domain::outcome::Outcome;
use crate::domain::producer::{Lsn, Number};
use crate::domain::refusal::Reason;
use crate::durable::entry::Entry;

use super::order::Answer;
use super::sequencer::Ordered;

/// A place that one entry fills. Dropped before that, it fills itself: the request is refused as
/// [`Reason::Internal`], and its producer is told.
pub(super) struct Place {
    pub(super) lsn: Lsn,
    pub(super) producer: Arc<str>,
    pub(super) number: Option<Number>,
    /// The wall clock when it was given out, in microseconds since the Unix epoch.
    pub(super) at: i64,
    pub(super) ordered: Arc<Ordered>,
    /// `None` when it is filled.
    pub(super) open: Option<Open>,
}

/// What a place holds until it is filled.
pub(super) struct Open {
    pub(super) room: Room,
    pub(super) answer: oneshot::Sender<Answer>,
    /// What the request takes of the bytes in work.
    pub(super) budget: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Fills it with an entry. The producer is answered when the entry is on disk.
    pub(super) fn fill(mut self, entry: Vec<u8>, outcome: Outcome, outputs: Vec<ArrayRef>) {
        let Some(open) = self.open.take() else { return };
        if entry.len() as u64 > open.room.bytes() {
            // The room is worked out from the declaration; the entry must not outgrow it.
            tracing::error!(
                bytes = entry.len(),
                room = open.room.bytes(),
                "an entry outgrew its room in the journal; report this"
            );
            self.open = Some(open);
            return self.refuse(Reason::Internal);
        }
        self.submit(open, entry, Answer { outcome, outputs });
    }

    /// Fills it with nothing to be counted: the request is refused as a whole.
    pub(super) fn refuse(mut self, reason: Reason) {
        self.refuse_open(reason);
    }

    fn refuse_open(&mut self, reason: Reason) {
        let Some(open) = self.open.take() else { return };
        let outcome = Outcome::refused(reason);
        if let Some(number) = self.number {
            self.ordered.correct(self.lsn, &self.producer, number, &outcome);
        }
        let spent = Entry::Spent { producer: &self.producer, number: self.number, outcome: Some(outcome.clone()) };
        self.submit(open, spent.encode(), Answer::without_outputs(outcome));
    }

    fn submit(&self, open: Open, entry: Vec<u8>, answer: Answer) {
        let Open { room, answer: sender, budget } = open;
        // The producer may have gone; its records count all the same.
        let then = Box::new(move || drop((sender.send(answer), budget)));
        self.ordered.journal.submit(self.lsn, entry, room, Some(then));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.refuse_open(Reason::Internal);
    }
}
