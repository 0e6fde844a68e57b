//! A request's place in the journal. Every position that was given out is filled, whatever happens to whoever holds it:
//! the journal waits for it, and with it everything that comes after.

use std::sync::Arc;

use arrow_array::ArrayRef;
use tokio::sync::oneshot;

use crate::domain::outcome::Outcome;
use crate::domain::producer::{Lsn, Number};
use crate::domain::refusal::Reason;
use crate::durable::entry::Entry;
use crate::engine::budget::Charge;
use crate::storage::Room;

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
    pub(super) budget: Option<Charge>,
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

    /// The request comes to something else than was said when it was taken. `kept` is what may be kept of it.
    pub(super) fn correct(&self, kept: &Outcome) {
        if let Some(number) = self.number {
            self.ordered.correct(self.lsn, &self.producer, number, kept);
        }
    }

    /// Fills it with nothing to be counted: of its records none is taken in. `kept` is what may be kept of the outcome.
    pub(super) fn spend(mut self, outcome: Outcome, kept: Outcome) {
        self.spend_open(outcome, kept);
    }

    fn refuse_open(&mut self, reason: Reason) {
        let outcome = Outcome::refused(reason);
        self.spend_open(outcome.clone(), outcome);
    }

    fn spend_open(&mut self, outcome: Outcome, kept: Outcome) {
        let Some(open) = self.open.take() else { return };
        self.correct(&kept);
        let spent = Entry::Spent { producer: &self.producer, number: self.number, outcome: Some(kept) };
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;
    use crate::domain::binary::Writer;
    use crate::domain::gateway::Gateway;
    use crate::domain::producer::Came;
    use crate::storage::{Log, RealFileSystem, Settings};

    const NUMBER: Option<Number> = Some(Number { epoch: 1, sequence: 1 });

    fn journal(directory: &TempDir) -> Arc<Log> {
        let settings = Settings {
            directory: directory.path().to_owned(),
            segment_bytes: 64 << 10,
            quota_bytes: 1 << 20,
            context: Vec::new(),
            at_least: 0,
        };
        Arc::new(Log::open(Arc::new(RealFileSystem), settings).unwrap().0)
    }

    fn ordered(directory: &TempDir) -> Arc<Ordered> {
        Arc::new(Ordered::new(journal(directory), Gateway::new(std::iter::empty()), 0))
    }

    /// The next place, and where its answer comes.
    fn place(ordered: &Arc<Ordered>, room: u64) -> (Place, oneshot::Receiver<Answer>) {
        let room = ordered.journal.reserve(room).unwrap();
        let (answer, received) = oneshot::channel();
        let mut sequencer = ordered.lock();
        let lsn = sequencer.next(room.bytes());
        let taken = Outcome::nothing();
        sequencer.gateway.producers.take("till-1", NUMBER.unwrap(), lsn, Some(&taken), Came::default());
        let open = Some(Open { room, answer, budget: None });
        (Place { lsn, producer: "till-1".into(), number: NUMBER, at: 0, ordered: Arc::clone(ordered), open }, received)
    }

    #[test]
    fn a_place_that_is_dropped_fills_itself_and_its_producer_is_told() {
        let directory = TempDir::new().unwrap();
        let ordered = ordered(&directory);
        let (lost, answer) = place(&ordered, 500);
        let (kept, after) = place(&ordered, 500);
        kept.fill(vec![5], Outcome::nothing(), Vec::new());
        let worker = std::thread::spawn(move || {
            let _lost = lost;
            panic!("of a test");
        });
        worker.join().unwrap_err();
        assert!(ordered.journal.wait_durable(2), "what comes after it is not held up");
        assert_eq!(answer.blocking_recv().unwrap().outcome, Outcome::refused(Reason::Internal));
        assert_eq!(after.blocking_recv().unwrap().outcome, Outcome::nothing());
        let remembered = ordered.lock().gateway.producers.outcome("till-1", NUMBER.unwrap());
        assert_eq!(remembered, Some(Outcome::refused(Reason::Internal)), "a repeat is told the same");
        let mut reader = ordered.journal.reader(1);
        let entry = reader.next().unwrap().unwrap().payload;
        let Some(Entry::Spent { producer, number, outcome }) = Entry::decode(&entry) else { panic!("another entry") };
        assert_eq!((producer, number, outcome), ("till-1", NUMBER, Some(Outcome::refused(Reason::Internal))));
    }

    #[test]
    fn an_entry_that_outgrows_its_room_is_refused_and_nothing_waits_for_it() {
        let directory = TempDir::new().unwrap();
        let ordered = ordered(&directory);
        let (place, answer) = place(&ordered, 100);
        place.fill(vec![0; 101], Outcome::nothing(), Vec::new());
        assert!(ordered.journal.wait_durable(1));
        assert_eq!(answer.blocking_recv().unwrap().outcome, Outcome::refused(Reason::Internal));
    }

    #[test]
    fn a_checkpoint_knows_what_its_requests_came_to_in_the_end() {
        let directory = TempDir::new().unwrap();
        let ordered = ordered(&directory);
        let (failing, _answer) = place(&ordered, 500);
        let lsn = {
            let mut sequencer = ordered.lock();
            let mut state = Writer::default();
            sequencer.gateway.encode(&mut state);
            sequencer.begin_checkpoint()
        };
        // The model fails after the state was written down, and before the workers come to the checkpoint.
        failing.refuse(Reason::ModelFailed);
        let (later, _answer) = place(&ordered, 500);
        later.refuse(Reason::ModelFailed);
        let corrections = ordered.corrections();
        let corrected: Vec<_> =
            corrections.iter().map(|correction| (&*correction.producer, &correction.outcome)).collect();
        assert_eq!((lsn, corrected), (1, vec![("till-1", &Outcome::refused(Reason::ModelFailed))]));
        assert!(ordered.corrections().is_empty());
        assert!(ordered.journal.wait_beyond(1, Duration::from_secs(60)) >= 2);
    }
}
