//! The order of everything, and the threads that work in it.
//!
//! Under one lock a request is put at its producer's place, given its position in the journal (its LSN) and
//! put into the shortest worker's queue; then the watermark moves, and what it closes gets the next
//! positions and goes into every queue. So each queue is in the order of the journal, and "before the window
//! closed" means the same to every worker and to a replay.
//!
//! A worker scores its batches, writes their entries and counts them; the answer is sent when the journal
//! says that the entry is on disk. One more worker counts what the journal held at the start, while new
//! records come in. The collector merges the workers' parts of a closed window and puts what may leave into
//! the outbox; it writes the checkpoints too.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arrow_array::ArrayRef;
use crossbeam_channel::{Receiver, Sender, unbounded};
use tokio::sync::oneshot;

use crate::domain::aggregate::{Cells, ContributorKey, OpenBytes, Reserved};
use crate::domain::binary::Writer;
use crate::domain::event_time::TimeBounds;
use crate::domain::gateway::{Effect, Gateway, Input};
use crate::domain::outcome::{Outcome, Taken};
use crate::domain::policy::Resident;
use crate::domain::producer::{Came, Lsn, Mark, Number, OutOfOrder, Position};
use crate::domain::refusal::Reason;
use crate::domain::stream::Stream;
use crate::domain::watermark::Heard;
use crate::durable::entry::{self, Before as ClosedBefore, Entry, Sent};
use crate::durable::recovery::{Closed, Present, Replay};
use crate::durable::seal::Keys;
use crate::engine::budget::Charge;
use crate::engine::supervision::Supervisor;
use crate::planted::planted;
use crate::scoring::Scorer;
use crate::storage::{Log, NoRoom, Room, Then};
use crate::telemetry::Telemetry;

mod closings;
mod collector;
mod open_windows;
mod order;
mod place;
mod sequencer;
mod worker;

pub use collector::{Collecting, ReleaseRules};
pub use order::Answer;

use open_windows::OpenWindowsRoom;
use order::{Order, Report, Waiting};
use place::{Open, Place};
use sequencer::{Ordered, Sequencer};

/// What all workers start with.
pub struct Setup {
    /// The scorers of each worker, by the stream's name.
    pub scorers: Vec<BTreeMap<String, Scorer>>,
    /// The streams.
    pub present: Vec<Present>,
    /// The secret for contributors.
    pub key: ContributorKey,
    /// The keys of the regimes, to seal the journal with.
    pub keys: Arc<Keys>,
    /// The most records scored in one run of the model.
    pub rows_max: usize,
    /// What all open windows hold, and the most that they may.
    pub open: Arc<OpenBytes>,
    /// What was there before the start.
    pub before: Before,
    /// When a checkpoint is due.
    pub checkpoints: CheckpointsDue,
}

/// What was there before the start.
pub struct Before {
    /// Windows of each dataset that began before this time had closed at the checkpoint.
    pub closed_before: BTreeMap<String, i64>,
    /// The open windows, at the checkpoint.
    pub windows: BTreeMap<String, BTreeMap<i64, Cells>>,
    /// The journal after the checkpoint.
    pub replay: Replay,
    /// What was closed in it.
    pub closed: Vec<Closed>,
    /// The last position of the journal.
    pub last: Lsn,
}

/// When a checkpoint is due: whichever comes first, if anything happened.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointsDue {
    /// Bytes of the journal since the last one.
    pub bytes: u64,
    /// Time since the last one.
    pub every: Duration,
}

struct Queue {
    orders: Sender<Order>,
    waiting: Arc<AtomicUsize>,
}

/// The running workers.
pub struct Pipeline {
    ordered: Arc<Ordered>,
    queues: Vec<Queue>,
    /// The queue of the worker that counts what was there before.
    replay: Sender<Order>,
    reports: Sender<Report>,
    checkpoints: CheckpointsDue,
    is_checkpointing: Arc<AtomicBool>,
    /// How many outputs the model of each stream has.
    outputs: BTreeMap<String, usize>,
    open_windows: OpenWindowsRoom,
    threads: Mutex<Vec<JoinHandle<()>>>,
    supervisor: Supervisor,
}

/// A request, as far as its records may stay.
pub struct Request<'r> {
    /// Who sent it.
    pub producer: &'r str,
    /// From where, if that is known.
    pub address: Option<IpAddr>,
    /// Its number.
    pub number: Option<Number>,
    /// The records.
    pub resident: Resident,
    /// What it comes to, if the model does not fail.
    pub taken: Taken,
    /// The event time that the producer promises to have come to.
    pub promised: Option<i64>,
    /// Room for them, by [`Pipeline::room`].
    pub room: Admitted,
    /// What they take of the bytes in work; given back when they are on disk.
    pub budget: Option<Charge>,
}

/// Room for a request's records.
pub struct Admitted {
    journal: Room,
    /// In the open windows, until the records are counted.
    windows: Reserved,
}

/// A place in the order of everything.
pub struct Ticket {
    /// Comes when the request is on disk.
    pub answer: oneshot::Receiver<Answer>,
    /// How far the producer is then.
    pub mark: Mark,
}

/// How long a request waits for the disk before it looks again.
const BEHIND_MAX: Duration = Duration::from_millis(100);

/// Why a request was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unaccepted {
    /// It is not its producer's next one.
    OutOfOrder(OutOfOrder),
    /// A request with its number was taken before.
    Repeated,
    /// It cannot be taken now, or at all.
    Refused(Reason),
}

impl From<OutOfOrder> for Unaccepted {
    fn from(out_of_order: OutOfOrder) -> Self {
        Self::OutOfOrder(out_of_order)
    }
}

impl Unaccepted {
    fn of(no_room: &NoRoom) -> Self {
        Self::Refused(match no_room {
            NoRoom::Full | NoRoom::Behind => Reason::Overloaded,
            NoRoom::Failing { .. } | NoRoom::NumbersExhausted => Reason::JournalFailing,
            NoRoom::TooLarge { .. } => Reason::TooLarge,
            NoRoom::Closed => Reason::Stopping,
        })
    }
}

impl Pipeline {
    /// Starts the workers, the one that replays, and the collector.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        gateway: Gateway,
        setup: Setup,
        collecting: Collecting,
        journal: Arc<Log>,
        telemetry: &Arc<Telemetry>,
        supervisor: &Supervisor,
    ) -> std::io::Result<Self> {
        let Setup { scorers, present, key, keys, rows_max, open, before, checkpoints } = setup;
        let (reports, from_workers) = unbounded();
        let workers = scorers.len() + 1;
        let ordered = Arc::new(Ordered::new(journal, gateway, before.last));
        let new = |scorers, waiting: &Arc<AtomicUsize>| {
            let shared = worker::Shared {
                reports: reports.clone(),
                waiting: Arc::clone(waiting),
                telemetry: Arc::clone(telemetry),
            };
            let setup = worker::Setup { scorers, key, rows_max, keys: Arc::clone(&keys), open: Arc::clone(&open) };
            worker::Worker::new(setup, &present, &before.closed_before, shared)
        };
        let mut queues = Vec::new();
        let mut threads = Vec::new();
        for (index, scorers) in scorers.into_iter().enumerate() {
            let (orders, received): (_, Receiver<Order>) = unbounded();
            for Closed { lsn, dataset, before } in before.closed.clone() {
                let _ = orders.send(Order::Close { lsn, dataset, before });
            }
            let waiting = Arc::new(AtomicUsize::new(0));
            let worker = new(scorers, &waiting);
            threads.push(supervisor.spawn(&format!("worker-{index}"), move || worker.run(&received))?);
            queues.push(Queue { orders, waiting });
        }
        let (replay, received) = unbounded();
        let mut worker = new(BTreeMap::new(), &Arc::default());
        let (windows, mut steps, failing) = (before.windows, before.replay, supervisor.clone());
        let replayed = Arc::clone(&ordered);
        threads.push(supervisor.spawn("replay", move || {
            worker.restore(windows);
            match worker.replay(&mut steps) {
                Ok(()) => {
                    let mut sequencer = replayed.lock();
                    worker
                        .open_windows()
                        .for_each(|(dataset, window)| sequencer.gateway.restore_window(dataset, window));
                    drop(sequencer);
                    worker.run(&received);
                }
                // The first pass read all of it; what is wrong now is the disk. Without it nothing could be released.
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    failing.fail(&format!("the journal could not be replayed: {error:#}"));
                }
            }
        })?);
        let is_checkpointing = Arc::new(AtomicBool::new(false));
        let collector = collector::Collector::new(
            collecting,
            workers,
            Arc::clone(&ordered),
            Arc::clone(&is_checkpointing),
            Arc::clone(telemetry),
        );
        threads.push(supervisor.spawn("collector", move || collector.run(&from_workers))?);
        let outputs = present.iter().map(|present| (present.stream.name.clone(), present.outputs.len()));
        Ok(Self {
            ordered,
            queues,
            replay,
            reports,
            checkpoints,
            is_checkpointing,
            outputs: outputs.collect(),
            open_windows: OpenWindowsRoom::new(open, &present),
            threads: Mutex::new(threads),
            supervisor: supervisor.clone(),
        })
    }

    /// Room for a request's records in the journal and in the open windows. Waits while the disk is behind and while
    /// others are being counted; not when one of both is full.
    ///
    /// # Errors
    /// When there is none.
    pub async fn room(&self, resident: &Resident, producer: &str, taken: &Taken) -> Result<Admitted, Unaccepted> {
        let outputs = self.outputs.get(&resident.batch().stream().name).copied().unwrap_or(0);
        let outcome = Some(Outcome::Taken(taken.clone()));
        let sent = Sent { producer, number: None, rows: 0, newest: None, outcome };
        let bytes = entry::size_bound(resident, outputs).saturating_add(sent.bytes() as u64);
        let windows = self.open_windows.reserve(resident.batch()).await.map_err(Unaccepted::Refused)?;
        Ok(Admitted { journal: self.room_for(bytes).await?, windows })
    }

    async fn room_for(&self, bytes: u64) -> Result<Room, Unaccepted> {
        if self.supervisor.failure().is_some() {
            return Err(Unaccepted::Refused(Reason::Internal));
        }
        let journal = &self.ordered.journal;
        loop {
            match journal.reserve(bytes) {
                Ok(room) => return Ok(room),
                Err(NoRoom::Behind) => {
                    let (moved, has_moved) = oneshot::channel();
                    journal.when_durable(journal.durable() + 1, Box::new(move || moved.send(()).unwrap_or(())));
                    // Room may also be given back without a commit.
                    let _ = tokio::time::timeout(BEHIND_MAX, has_moved).await;
                }
                Err(no_room) => return Err(Unaccepted::of(&no_room)),
            }
        }
    }

    /// Takes a request at its producer's place. The answer comes when the records are scored, counted and on
    /// disk.
    ///
    /// # Errors
    /// When it is not the producer's next one.
    pub fn accept(&self, request: Request<'_>, now: Duration, wall: i64) -> Result<Ticket, Unaccepted> {
        let Request { producer, address, number, resident, taken, promised, room, budget } = request;
        let stream = resident.batch().stream().clone();
        let (oldest, newest) = resident.batch().event_time_range();
        // A window does not close before its time has come, whatever one producer sends or promises.
        let event_time = newest.max(promised).map(|newest| newest.min(wall));
        let heard = Heard { producer, address, event_time };
        let outcome = Outcome::Taken(taken.clone()).declared(&stream);
        let (answer, received) = oneshot::channel();
        let Admitted { journal: room, windows } = room;
        let bytes = room.bytes();
        let mut sequencer = self.ordered.lock();
        let came = Came { at: Some(wall), from: address };
        let lsn = Self::place(&mut sequencer, (producer, number, came), bytes, &outcome, |gateway| {
            gateway.admit(&stream.name, heard, now).map_err(OutOfOrder::TooMany)?;
            let is_open =
                oldest.zip(newest).is_none_or(|(oldest, newest)| gateway.open_windows(&stream.name, oldest, newest));
            if is_open { Ok(()) } else { Err(Unaccepted::Refused(Reason::TooManyWindows)) }
        })?;
        let place = Place {
            lsn,
            producer: producer.into(),
            number,
            at: wall,
            ordered: Arc::clone(&self.ordered),
            open: Some(Open { room, answer, budget }),
        };
        let queue = self.queues.iter().min_by_key(|queue| queue.waiting.load(Ordering::Relaxed));
        let waiting = Order::Batch(Waiting { resident, taken, newest: event_time, place, windows });
        let unsent = match queue {
            Some(queue) => {
                queue.waiting.fetch_add(1, Ordering::Relaxed);
                queue.orders.send(waiting).err().map(|unsent| unsent.0)
            }
            None => Some(waiting),
        };
        let mark = sequencer.gateway.producers.mark(producer);
        self.handle(&mut sequencer, Input::Heard { stream: &stream.name, heard }, now);
        self.checkpoint_if_due(&mut sequencer, now);
        drop(sequencer);
        // The worker is gone: the place fills itself, which takes the lock.
        drop(unsent);
        Ok(Ticket { answer: received, mark })
    }

    /// Finds a request's place behind its producer's last one, if `admit` lets the request in.
    fn place(
        sequencer: &mut Sequencer,
        (producer, number, came): (&str, Option<Number>, Came),
        bytes: u64,
        outcome: &Outcome,
        admit: impl FnOnce(&mut Gateway) -> Result<(), Unaccepted>,
    ) -> Result<Lsn, Unaccepted> {
        let Some(number) = number else {
            admit(&mut sequencer.gateway)?;
            return Ok(sequencer.next(bytes));
        };
        let position = sequencer.gateway.producers.locate(producer, number)?;
        if position == Position::Taken && !planted("no-dedup") {
            return Err(Unaccepted::Repeated);
        }
        let producers = &mut sequencer.gateway.producers;
        producers.admit(producer, came).map_err(OutOfOrder::TooMany)?;
        admit(&mut sequencer.gateway)?;
        let lsn = sequencer.next(bytes);
        sequencer.gateway.producers.take(producer, number, lsn, Some(outcome), came);
        Ok(lsn)
    }

    /// A request brought no records to be counted. Its number is spent, and what it came to is remembered.
    ///
    /// # Errors
    /// When it is not the producer's next one, or the journal has no room.
    pub async fn spend(
        &self,
        producer: &str,
        number: Option<Number>,
        came: Came,
        outcome: Outcome,
        stream: Option<&Stream>,
    ) -> Result<Ticket, Unaccepted> {
        let (answer, received) = oneshot::channel();
        let Some(number) = number else {
            let mark = self.mark(producer);
            let _ = answer.send(Answer::without_outputs(outcome));
            return Ok(Ticket { answer: received, mark });
        };
        let kept = stream.map_or_else(|| outcome.with_fields(&|_| false), |stream| outcome.declared(stream));
        let entry = Entry::Spent { producer, number: Some(number), outcome: Some(kept.clone()) }.encode();
        let room = self.room_for(entry.len() as u64).await?;
        let mut sequencer = self.ordered.lock();
        let lsn = Self::place(&mut sequencer, (producer, Some(number), came), room.bytes(), &kept, |_| Ok(()))?;
        let then: Then = Box::new(move || drop(answer.send(Answer::without_outputs(outcome))));
        self.ordered.journal.submit(lsn, entry, room, Some(then));
        Ok(Ticket { answer: received, mark: sequencer.gateway.producers.mark(producer) })
    }

    /// A numbered request says that nothing comes under the numbers up to its own.
    ///
    /// # Errors
    /// When a greater epoch was begun, or the journal has no room.
    pub async fn skip(&self, producer: &str, number: Number, came: Came) -> Result<(), Unaccepted> {
        let is_known = |sequencer: &Sequencer| {
            let position = sequencer.gateway.producers.locate_skip(producer, number)?;
            Ok::<_, Unaccepted>(position == Position::Taken)
        };
        if is_known(&self.ordered.lock())? {
            return Ok(());
        }
        let outcome = Outcome::nothing();
        let entry = Entry::Spent { producer, number: Some(number), outcome: Some(outcome.clone()) }.encode();
        let room = self.room_for(entry.len() as u64).await?;
        let mut sequencer = self.ordered.lock();
        if !is_known(&sequencer)? {
            sequencer.gateway.producers.admit(producer, came).map_err(OutOfOrder::TooMany)?;
            let lsn = sequencer.next(room.bytes());
            sequencer.gateway.producers.take(producer, number, lsn, Some(&outcome), came);
            self.ordered.journal.submit(lsn, entry, room, None);
        }
        Ok(())
    }

    /// A producer was heard on a stream, and perhaps promises to have come to an event time. The answer comes
    /// when that, and all that the producer sent before, is on disk.
    ///
    /// # Errors
    /// When the journal has no room, or too many producers are active.
    pub async fn heard(&self, stream: &str, heard: Heard<'_>, now: Duration) -> Result<Ticket, Unaccepted> {
        let Heard { producer, event_time, .. } = heard;
        let entry = Entry::Heard { stream, producer, event_time }.encode();
        let room = self.room_for(entry.len() as u64).await?;
        let (answer, received) = oneshot::channel();
        let mut sequencer = self.ordered.lock();
        sequencer.gateway.admit(stream, heard, now).map_err(OutOfOrder::TooMany)?;
        let lsn = sequencer.next(room.bytes());
        let then: Then = Box::new(move || drop(answer.send(Answer::without_outputs(Outcome::nothing()))));
        self.ordered.journal.submit(lsn, entry, room, Some(then));
        self.handle(&mut sequencer, Input::Heard { stream, heard }, now);
        Ok(Ticket { answer: received, mark: sequencer.gateway.producers.mark(producer) })
    }

    /// What a numbered request that was taken before came to, when that is on disk.
    pub async fn outcome(&self, producer: &str, number: Number) -> (Outcome, Mark) {
        let mark = self.mark(producer);
        let (durable, is_durable) = oneshot::channel();
        self.ordered.journal.when_durable(mark.lsn, Box::new(move || durable.send(()).unwrap_or(())));
        // The journal was closed before it was on disk: nothing may be told of it.
        if is_durable.await.is_err() {
            return (Outcome::refused(Reason::Stopping), mark);
        }
        let remembered = self.ordered.lock().gateway.producers.outcome(producer, number);
        (remembered.unwrap_or_else(|| Outcome::refused(Reason::OutcomeUnknown)), mark)
    }

    /// Scores records that were counted before. The model's outputs.
    ///
    /// # Errors
    /// When the model fails, or its worker is gone.
    pub async fn score(&self, resident: Resident) -> Result<Vec<ArrayRef>, Reason> {
        let (answer, received) = oneshot::channel();
        if let Some(queue) = self.queues.iter().min_by_key(|queue| queue.waiting.load(Ordering::Relaxed)) {
            queue.waiting.fetch_add(1, Ordering::Relaxed);
            let _ = queue.orders.send(Order::Score(resident, answer));
        }
        received.await.unwrap_or(Err(Reason::Internal))
    }

    /// How far a producer is.
    #[must_use]
    pub fn mark(&self, producer: &str) -> Mark {
        self.ordered.lock().gateway.producers.mark(producer)
    }

    /// Whether a numbered request was taken before.
    #[must_use]
    pub fn was_taken(&self, producer: &str, number: Option<Number>) -> bool {
        let is_taken = |number| self.ordered.lock().gateway.producers.locate(producer, number) == Ok(Position::Taken);
        !planted("no-dedup") && number.is_some_and(is_taken)
    }

    /// Time has passed.
    pub fn tick(&self, now: Duration) {
        let mut sequencer = self.ordered.lock();
        self.handle(&mut sequencer, Input::Tick, now);
        self.checkpoint_if_due(&mut sequencer, now);
    }

    /// The event times that a stream takes.
    #[must_use]
    pub fn time_bounds(&self, stream: &str, wall: i64) -> TimeBounds {
        self.ordered.lock().gateway.time_bounds(stream, wall)
    }

    /// Returns when everything that was accepted is counted and in a checkpoint, and what was closed is in the
    /// outbox. With `flush`, the windows that are still open are released as they are. Nothing may be accepted
    /// after it.
    pub fn finish(&self, flush: bool) {
        if self.supervisor.failure().is_some() {
            // Whoever is gone would be waited for. The journal has all that was acknowledged.
            return;
        }
        {
            let journal = &self.ordered.journal;
            let mut sequencer = self.ordered.lock();
            if flush {
                let datasets: Vec<String> = sequencer.gateway.datasets().map(str::to_owned).collect();
                for dataset in datasets {
                    let Some(room) = sequencer.closing_rooms.take(journal, &dataset) else {
                        tracing::warn!(
                            dataset,
                            "there is no room in the journal to release the open windows; they stay open until the \
                             next start. Raise `quota_bytes`"
                        );
                        continue;
                    };
                    let bytes = Entry::Flushed { dataset: &dataset }.encode();
                    let lsn = sequencer.next(bytes.len() as u64);
                    journal.submit(lsn, bytes, room, None);
                    self.order_all(|| Order::Close { lsn, dataset: dataset.clone(), before: None });
                }
            }
            self.checkpoint(&mut sequencer);
            self.order_all(|| Order::Finish);
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A thread that panicked has told the supervisor.
            let _ = thread.join();
        }
    }

    fn order_all(&self, order: impl Fn() -> Order) {
        for orders in self.queues.iter().map(|queue| &queue.orders).chain([&self.replay]) {
            let _ = orders.send(order());
        }
    }

    /// Takes an input. Windows close only while each dataset has room in the journal to say so; without it they close
    /// with a later input.
    fn handle(&self, sequencer: &mut Sequencer, input: Input<'_>, now: Duration) {
        let journal = &self.ordered.journal;
        if !sequencer.closing_rooms.fill(journal) {
            if let Input::Heard { stream, heard } = input {
                sequencer.gateway.restore_heard(stream, heard, now);
            }
            return;
        }
        let mut effects = Vec::new();
        sequencer.gateway.handle(input, now, &mut effects);
        for Effect::Close { dataset, before, watermark } in effects {
            // One input closes a dataset's windows at most once, and each has room.
            let Some(room) = sequencer.closing_rooms.take(journal, &dataset) else { continue };
            let closed = Entry::Closed { dataset: &dataset, before: ClosedBefore::Time(before), watermark };
            let bytes = closed.encode();
            let lsn = sequencer.next(bytes.len() as u64);
            journal.submit(lsn, bytes, room, None);
            self.order_all(|| Order::Close { lsn, dataset: dataset.clone(), before: Some(before) });
        }
    }

    fn checkpoint_if_due(&self, sequencer: &mut Sequencer, now: Duration) {
        let last = &sequencer.checkpoint;
        let is_due = last.bytes >= self.checkpoints.bytes
            || (sequencer.last > last.lsn && now.saturating_sub(last.at) >= self.checkpoints.every);
        if is_due && !self.is_checkpointing.load(Ordering::Acquire) {
            sequencer.checkpoint.at = now;
            self.checkpoint(sequencer);
        }
    }

    fn checkpoint(&self, sequencer: &mut Sequencer) {
        let lsn = sequencer.begin_checkpoint();
        self.is_checkpointing.store(true, Ordering::Release);
        let mut writer = Writer::default();
        sequencer.gateway.encode(&mut writer);
        let _ = self.reports.send(Report::State { lsn, gateway: writer.finish() });
        self.order_all(|| Order::Checkpoint { lsn });
    }
}
