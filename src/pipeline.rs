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
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::adapters::journal::{Log, NoRoom, Room, Then};
use crate::adapters::onnx::Scorer;
use crate::domain::aggregate::{Cells, ContributorKey};
use crate::domain::batch::TimeBounds;
use crate::domain::binary::Writer;
use crate::domain::gateway::{Effect, Gateway, Input};
use crate::domain::policy::Resident;
use crate::domain::producer::{Lsn, Mark, Number, OutOfOrder, Position};
use crate::domain::refusal::Reason;
use crate::durable::entry::{self, Entry};
use crate::durable::recovery::{Closed, Present, Replay};
use crate::durable::seal::Keys;
use crate::planted::planted;
use crate::telemetry::Telemetry;

mod closings;
mod collector;
mod order;
mod worker;

pub use collector::{Collecting, ReleaseRules};
pub use order::Answer;

use closings::ClosingRooms;
use order::{Order, Place, Report, Waiting};

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
    /// What was there before the start.
    pub before: Before,
    /// When a checkpoint is due.
    pub checkpoints: CheckpointsDue,
}

/// What was there before the start.
pub struct Before {
    /// The oldest open window of each dataset, at the checkpoint.
    pub open: BTreeMap<String, i64>,
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

/// What stands under the lock.
struct Sequencer {
    gateway: Gateway,
    /// The last position that was given out.
    last: Lsn,
    checkpoint: LastCheckpoint,
    closing_rooms: ClosingRooms,
}

struct LastCheckpoint {
    lsn: Lsn,
    at: Duration,
    /// Bytes given to the journal since.
    bytes: u64,
}

/// The running workers.
pub struct Pipeline {
    sequencer: Mutex<Sequencer>,
    journal: Arc<Log>,
    queues: Vec<Queue>,
    /// The queue of the worker that counts what was there before.
    replay: Sender<Order>,
    reports: Sender<Report>,
    checkpoints: CheckpointsDue,
    is_checkpointing: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// A request, as far as its records may stay.
pub struct Request<'r> {
    /// Who sent it.
    pub producer: &'r str,
    /// Its number.
    pub number: Option<Number>,
    /// The records.
    pub resident: Resident,
    /// Room for them in the journal.
    pub room: Room,
    /// What they take of the bytes in work; given back when they are on disk.
    pub budget: Option<OwnedSemaphorePermit>,
}

/// A place in the order of everything.
pub struct Ticket {
    /// Comes when the request is on disk.
    pub answer: oneshot::Receiver<Answer>,
    /// How far the producer is then.
    pub mark: Mark,
    /// Whether the request was taken before.
    pub duplicate: bool,
}

/// How long a request waits for the disk before it looks again.
const BEHIND_MAX: Duration = Duration::from_millis(100);

/// Why a request was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unaccepted {
    /// It is not its producer's next one.
    OutOfOrder(OutOfOrder),
    /// There is no room for it.
    NoRoom(Reason),
}

impl From<OutOfOrder> for Unaccepted {
    fn from(out_of_order: OutOfOrder) -> Self {
        Self::OutOfOrder(out_of_order)
    }
}

impl Unaccepted {
    fn of(no_room: &NoRoom) -> Self {
        Self::NoRoom(match no_room {
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
    ) -> std::io::Result<Self> {
        let Setup { scorers, present, key, keys, rows_max, before, checkpoints } = setup;
        let (reports, from_workers) = unbounded();
        let workers = scorers.len() + 1;
        let new = |scorers, waiting: &Arc<AtomicUsize>| {
            let shared = worker::Shared {
                journal: Arc::clone(&journal),
                reports: reports.clone(),
                waiting: Arc::clone(waiting),
                telemetry: Arc::clone(telemetry),
            };
            let setup = worker::Setup { scorers, key, rows_max, keys: Arc::clone(&keys) };
            worker::Worker::new(setup, &present, &before.open, shared)
        };
        let mut queues = Vec::new();
        let mut threads = Vec::new();
        for (index, scorers) in scorers.into_iter().enumerate() {
            let (orders, received): (_, Receiver<Order>) = unbounded();
            for Closed { lsn, dataset, open } in before.closed.clone() {
                let _ = orders.send(Order::Close { lsn, dataset, open });
            }
            let waiting = Arc::new(AtomicUsize::new(0));
            let worker = new(scorers, &waiting);
            let thread = thread::Builder::new().name(format!("worker-{index}"));
            threads.push(thread.spawn(move || worker.run(&received))?);
            queues.push(Queue { orders, waiting });
        }
        let (replay, received) = unbounded();
        let mut worker = new(BTreeMap::new(), &Arc::default());
        let (windows, mut steps) = (before.windows, before.replay);
        threads.push(thread::Builder::new().name("replay".into()).spawn(move || {
            worker.restore(windows);
            if let Err(error) = worker.replay(&mut steps) {
                // The first pass read all of it; what is wrong now is the disk. Nothing is released without it.
                let error = anyhow::Error::from(error);
                tracing::error!(
                    error = format!("{error:#}"),
                    "the journal could not be replayed; no window is released"
                );
                return;
            }
            worker.run(&received);
        })?);
        let is_checkpointing = Arc::new(AtomicBool::new(false));
        let collector = collector::Collector::new(
            collecting,
            workers,
            Arc::clone(&journal),
            Arc::clone(&is_checkpointing),
            Arc::clone(telemetry),
        );
        threads.push(thread::Builder::new().name("collector".into()).spawn(move || collector.run(&from_workers))?);
        let checkpoint = LastCheckpoint { lsn: before.last, at: Duration::ZERO, bytes: 0 };
        let closing_rooms = ClosingRooms::new(gateway.datasets());
        Ok(Self {
            sequencer: Mutex::new(Sequencer { gateway, last: before.last, checkpoint, closing_rooms }),
            journal,
            queues,
            replay,
            reports,
            checkpoints,
            is_checkpointing,
            threads: Mutex::new(threads),
        })
    }

    /// Room in the journal for a batch. Waits while the disk is behind; not when it is full.
    ///
    /// # Errors
    /// When there is none.
    pub async fn room(&self, resident: &Resident, producer: &str) -> Result<Room, Unaccepted> {
        let bytes = entry::size_bound(resident, producer);
        loop {
            match self.journal.reserve(bytes) {
                Ok(room) => return Ok(room),
                Err(NoRoom::Behind) => {
                    let (moved, has_moved) = oneshot::channel();
                    self.journal
                        .when_durable(self.journal.durable() + 1, Box::new(move || moved.send(()).unwrap_or(())));
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
    /// When it is not the producer's next one, or there is no room.
    pub fn accept(&self, request: Request<'_>, now: Duration, wall: i64) -> Result<Ticket, Unaccepted> {
        let Request { producer, number, resident, room, budget } = request;
        let bytes = room.bytes();
        let stream = resident.batch().stream().clone();
        let newest = resident.batch().event_times().iter().copied().max();
        let (answer, received) = oneshot::channel();
        let mut sequencer = self.lock();
        let producers = &sequencer.gateway.producers;
        let position = number.map_or(Ok(Position::Next), |number| producers.locate(producer, number))?;
        let duplicate = position == Position::Taken && !planted("no-dedup");
        let place = if duplicate {
            Place::Taken { through: sequencer.gateway.producers.mark(producer).lsn }
        } else {
            let lsn = sequencer.next(bytes);
            if let Some(number) = number {
                sequencer.gateway.producers.take(producer, number, lsn);
            }
            Place::New { lsn, producer: producer.into(), number, at: wall, room }
        };
        if let Some(queue) = self.queues.iter().min_by_key(|queue| queue.waiting.load(Ordering::Relaxed)) {
            queue.waiting.fetch_add(1, Ordering::Relaxed);
            // A worker only goes away at the end; then the answer's sender is dropped, and the caller sees that.
            let _ = queue.orders.send(Order::Batch(Waiting { resident, place, answer, budget }));
        }
        let mark = sequencer.gateway.producers.mark(producer);
        if !duplicate {
            self.handle(&mut sequencer, Input::Heard { stream: &stream.name, producer, event_time: newest }, now);
            self.checkpoint_if_due(&mut sequencer, now);
        }
        Ok(Ticket { answer: received, mark, duplicate })
    }

    /// A numbered request brought no records to be counted: its number is spent.
    ///
    /// # Errors
    /// When it is not the producer's next one, or there is no room to write that down.
    pub fn spend(&self, producer: &str, number: Option<Number>) -> Result<Ticket, Unaccepted> {
        self.spend_if(producer, number, |sequencer, number| sequencer.gateway.producers.locate(producer, number))
    }

    /// A numbered request says that nothing comes under the numbers up to its own.
    ///
    /// # Errors
    /// When a greater epoch was begun, or there is no room to write that down.
    pub fn skip(&self, producer: &str, number: Number) -> Result<Ticket, Unaccepted> {
        let locate = |sequencer: &Sequencer, number| sequencer.gateway.producers.locate_skip(producer, number);
        self.spend_if(producer, Some(number), locate)
    }

    fn spend_if(
        &self,
        producer: &str,
        number: Option<Number>,
        locate: impl Fn(&Sequencer, Number) -> Result<Position, OutOfOrder>,
    ) -> Result<Ticket, Unaccepted> {
        self.journal_works()?;
        let (answer, received) = oneshot::channel();
        let done: Then = Box::new(move || drop(answer.send(Ok(Vec::new()))));
        let mut sequencer = self.lock();
        let Some(number) = number else {
            let mark = sequencer.gateway.producers.mark(producer);
            done();
            return Ok(Ticket { answer: received, mark, duplicate: false });
        };
        let duplicate = locate(&sequencer, number)? == Position::Taken;
        if duplicate {
            let through = sequencer.gateway.producers.mark(producer).lsn;
            self.journal.when_durable(through, done);
        } else {
            let bytes = Entry::Spent { producer, number: Some(number) }.encode();
            let room = self.small_room(&bytes)?;
            let lsn = sequencer.next(bytes.len() as u64);
            sequencer.gateway.producers.take(producer, number, lsn);
            self.journal.submit(lsn, bytes, room, Some(done));
        }
        let mark = sequencer.gateway.producers.mark(producer);
        Ok(Ticket { answer: received, mark, duplicate })
    }

    /// A producer was heard on a stream, and perhaps promises to have come to an event time. The answer comes
    /// when that, and all that the producer sent before, is on disk.
    ///
    /// # Errors
    /// When there is no room for it in the journal, or the journal cannot be written.
    pub fn heard(
        &self,
        stream: &str,
        producer: &str,
        event_time: Option<i64>,
        now: Duration,
    ) -> Result<Ticket, Unaccepted> {
        self.journal_works()?;
        let (answer, received) = oneshot::channel();
        let bytes = Entry::Heard { stream, producer, event_time }.encode();
        let room = self.small_room(&bytes)?;
        let mut sequencer = self.lock();
        let lsn = sequencer.next(bytes.len() as u64);
        self.journal.submit(lsn, bytes, room, Some(Box::new(move || drop(answer.send(Ok(Vec::new()))))));
        self.handle(&mut sequencer, Input::Heard { stream, producer, event_time }, now);
        let mark = sequencer.gateway.producers.mark(producer);
        Ok(Ticket { answer: received, mark, duplicate: false })
    }

    /// How far a producer is.
    #[must_use]
    pub fn mark(&self, producer: &str) -> Mark {
        self.lock().gateway.producers.mark(producer)
    }

    /// Whether a numbered request was taken before.
    #[must_use]
    pub fn was_taken(&self, producer: &str, number: Option<Number>) -> bool {
        number.is_some_and(|number| self.lock().gateway.producers.locate(producer, number) == Ok(Position::Taken))
    }

    /// Time has passed.
    pub fn tick(&self, now: Duration) {
        let mut sequencer = self.lock();
        self.handle(&mut sequencer, Input::Tick, now);
        self.checkpoint_if_due(&mut sequencer, now);
    }

    /// The event times that a stream takes.
    #[must_use]
    pub fn time_bounds(&self, stream: &str, now: Duration, wall: i64) -> TimeBounds {
        self.lock().gateway.time_bounds(stream, now, wall)
    }

    /// Returns when everything that was accepted is counted and in a checkpoint, and what was closed is in the
    /// outbox. With `flush`, the windows that are still open are released as they are. Nothing may be accepted
    /// after it.
    pub fn finish(&self, flush: bool) {
        {
            let mut sequencer = self.lock();
            if flush {
                let datasets: Vec<String> = sequencer.gateway.datasets().map(str::to_owned).collect();
                for dataset in datasets {
                    let Some(room) = sequencer.closing_rooms.take(&self.journal, &dataset) else {
                        tracing::warn!(
                            dataset,
                            "there is no room in the journal to release the open windows; they stay open until the next start"
                        );
                        continue;
                    };
                    let bytes = Entry::Flushed { dataset: &dataset }.encode();
                    let lsn = sequencer.next(bytes.len() as u64);
                    self.journal.submit(lsn, bytes, room, None);
                    self.order_all(|| Order::Close { lsn, dataset: dataset.clone(), open: None });
                }
            }
            self.checkpoint(&mut sequencer);
            self.order_all(|| Order::Finish);
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Sequencer> {
        self.sequencer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn journal_works(&self) -> Result<(), Unaccepted> {
        if self.journal.is_failing() { Err(Unaccepted::NoRoom(Reason::JournalFailing)) } else { Ok(()) }
    }

    /// Room for a producer's entry that is not a batch. It does not wait: the sender may try again.
    fn small_room(&self, entry: &[u8]) -> Result<Room, Unaccepted> {
        self.journal.reserve(entry.len() as u64).map_err(|no_room| Unaccepted::of(&no_room))
    }

    fn order_all(&self, order: impl Fn() -> Order) {
        for orders in self.queues.iter().map(|queue| &queue.orders).chain([&self.replay]) {
            let _ = orders.send(order());
        }
    }

    /// Takes an input. Windows close only while each dataset has room in the journal to say so; without it they close
    /// with a later input.
    fn handle(&self, sequencer: &mut Sequencer, input: Input<'_>, now: Duration) {
        if !sequencer.closing_rooms.fill(&self.journal) {
            if let Input::Heard { stream, producer, event_time } = input {
                sequencer.gateway.restore_heard(stream, producer, event_time, now);
            }
            return;
        }
        let mut effects = Vec::new();
        sequencer.gateway.handle(input, now, &mut effects);
        for Effect::Close { dataset, open, watermark } in effects {
            // One input closes a dataset's windows at most once, and each has room.
            let Some(room) = sequencer.closing_rooms.take(&self.journal, &dataset) else { continue };
            let bytes = Entry::Closed { dataset: &dataset, open, watermark }.encode();
            let lsn = sequencer.next(bytes.len() as u64);
            self.journal.submit(lsn, bytes, room, None);
            self.order_all(|| Order::Close { lsn, dataset: dataset.clone(), open: Some(open) });
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
        let lsn = sequencer.last;
        sequencer.checkpoint = LastCheckpoint { lsn, bytes: 0, at: sequencer.checkpoint.at };
        self.is_checkpointing.store(true, Ordering::Release);
        let mut writer = Writer::default();
        sequencer.gateway.encode(&mut writer);
        let _ = self.reports.send(Report::State { lsn, gateway: writer.finish() });
        self.order_all(|| Order::Checkpoint { lsn });
    }
}

impl Sequencer {
    fn next(&mut self, bytes: u64) -> Lsn {
        self.last += 1;
        self.checkpoint.bytes += bytes;
        self.last
    }
}
