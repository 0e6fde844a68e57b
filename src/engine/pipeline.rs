//! The threads: workers, the one that replays, and the collector.
//!
//! Each worker is a thread with a runtime of its own ([`Lane`]), on which the connections that are dealt to it are served
//! too: from the socket to the fold a record stays on one thread. One more worker counts what the journal held at the
//! start, while new records come in. The collector merges the workers' parts of a closed window and puts what may leave
//! into the outbox; it writes the checkpoints too.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Error;
use crossbeam_channel::unbounded;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::domain::aggregate::{Cells, ContributorKey, OpenBytes};
use crate::domain::gateway::{Gateway, HowFar};
use crate::domain::name::{DatasetName, StreamName};
use crate::domain::tally::Told;
use crate::durable::entry::BatchWriter;
use crate::durable::recovery::{self, Brought, Closed, Present, Replay, Step};
use crate::durable::seal::Keys;
use crate::scoring::Scorer;
use crate::storage::{Log, Lsn};
use crate::telemetry::Telemetry;

use super::collector::Collector;
use super::inbox::Inbox;
use super::intake::Intake;
use super::open_windows::OpenWindowsRoom;
use super::order::{Order, Report};
use super::scores::Scores;
use super::sequencer::{CheckpointsDue, Sequencer};
use super::supervision::Supervisor;
use super::versions::Versions;
use super::windows::{OfRequest, Origins, Windows};
use super::worker::{Waiting, Worker};

pub use super::collector::{Collecting, ReleaseRules};

/// What all workers start with.
pub struct Setup {
    /// The scorers of each worker, by the stream's name.
    pub scorers: Vec<BTreeMap<StreamName, Scorer>>,
    /// The streams.
    pub present: Vec<Present>,
    /// The secret for contributors.
    pub key: ContributorKey,
    /// The keys of the regimes, to seal the journal with.
    pub keys: Arc<Keys>,
    /// The most records of one batch.
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
    pub closed_before: BTreeMap<DatasetName, i64>,
    /// The open windows, at the checkpoint.
    pub windows: BTreeMap<DatasetName, BTreeMap<i64, Cells>>,
    /// The journal after the checkpoint.
    pub replay: Replay,
    /// What was closed in it.
    pub closed: Vec<Closed>,
    /// What is told of refused records with each closing that tells something.
    pub refused: BTreeMap<Lsn, Vec<Told>>,
    /// The last position of the journal.
    pub last: Lsn,
}

/// A worker's thread, as others see it.
#[derive(Clone)]
pub struct Lane {
    /// Where requests wait for the worker.
    pub inbox: Arc<Inbox>,
    /// The thread's runtime: connections are served on it.
    pub runtime: Handle,
}

/// The running threads.
pub struct Pipeline {
    sequencer: Arc<Sequencer>,
    lanes: Vec<Lane>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    supervisor: Supervisor,
    /// Whether what the journal held at the start is counted.
    has_replayed: Arc<AtomicBool>,
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
        intake: &Arc<Intake>,
        supervisor: &Supervisor,
    ) -> io::Result<Self> {
        let Setup { scorers, present, key, keys, rows_max, open, mut before, checkpoints } = setup;
        let mut refused = std::mem::take(&mut before.refused);
        let (reports, from_workers) = unbounded();
        let windows = || Windows::new(&present, &before.closed_before, key, &open, reports.clone(), intake.clock);
        let workers = scorers.len() + 1;
        let (orders, mut received): (Vec<_>, Vec<_>) = (0..workers).map(|_| unbounded_channel()).unzip();
        for Closed { lsn, dataset, before } in &before.closed {
            // Not to the one that replays: it finds them itself.
            for orders in orders.iter().skip(1) {
                let _ = orders.send(Order::Close { lsn: *lsn, dataset: dataset.clone(), before: *before });
            }
            if let Some(refused) = refused.remove(lsn) {
                let _ = reports.send(Report::Refused { lsn: *lsn, before: *before, refused });
            }
        }
        let sequencer = Arc::new(Sequencer::new(journal, gateway, before.last, orders, reports.clone(), checkpoints));
        let collector =
            Collector::new(collecting, workers, Arc::clone(&sequencer), Arc::clone(&intake.telemetry), intake.clock);
        let mut threads = vec![supervisor.spawn("collector", move || collector.run(&from_workers))?];
        let open_windows = Arc::new(OpenWindowsRoom::new(Arc::clone(&open), &present));
        let mut lanes = Vec::new();
        for (index, (scorers, orders)) in scorers.into_iter().zip(received.drain(1..)).enumerate() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let lane = Lane { inbox: Arc::new(Inbox::new(intake.clock)), runtime: runtime.handle().clone() };
            let writers = present.iter().map(|present| {
                let writer = BatchWriter::new(&present.stream, present.outputs.clone(), Arc::clone(&keys));
                (present.stream.name.clone(), writer)
            });
            let times = intake.telemetry.times(index);
            let worker = Worker {
                intake: Arc::clone(intake),
                sequencer: Arc::clone(&sequencer),
                inbox: Arc::clone(&lane.inbox),
                scores: Scores::new(scorers, Arc::clone(&intake.telemetry), intake.clock, Arc::clone(&times)),
                windows: windows(),
                writers: writers.collect(),
                open_windows: Arc::clone(&open_windows),
                supervisor: supervisor.clone(),
                rows_max,
                seals: !keys.is_empty(),
                orders,
                waiting: Waiting::new(intake.clock, times),
                is_finished: false,
            };
            threads.push(supervisor.spawn(&format!("worker-{index}"), move || work(runtime, worker))?);
            lanes.push(lane);
        }
        let has_replayed = Arc::new(AtomicBool::new(false));
        if let Some(orders) = received.pop() {
            let replaying = Replaying {
                windows: windows(),
                orders,
                sequencer: Arc::clone(&sequencer),
                telemetry: Arc::clone(&intake.telemetry),
                supervisor: supervisor.clone(),
                versions: Arc::clone(&intake.versions),
                has_replayed: Arc::clone(&has_replayed),
            };
            let (windows, steps) = (before.windows, before.replay);
            threads.push(supervisor.spawn("replay", move || replaying.run(windows, steps))?);
        }
        Ok(Self { sequencer, lanes, threads: Mutex::new(threads), supervisor: supervisor.clone(), has_replayed })
    }

    /// The workers' threads.
    #[must_use]
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// How far the windows of each dataset had come at the last [`Self::tick`]: its name, the event time through which they
    /// have closed, and how many are open. This takes no lock.
    #[must_use]
    pub fn windows(&self) -> Vec<HowFar> {
        self.sequencer.windows()
    }

    /// Whether what the journal held at the start is counted. Nothing that closes is released before.
    #[must_use]
    pub fn has_replayed(&self) -> bool {
        self.has_replayed.load(Ordering::Acquire)
    }

    /// Refused records of streams are told in steps of so many from the next checkpoint on.
    pub fn tell_in_steps(&self, steps: &[(StreamName, u64)]) {
        self.sequencer.tell_in_steps(steps);
    }

    /// Time has passed.
    pub fn tick(&self, now: Duration) {
        self.sequencer.tick(now);
    }

    /// Returns when everything that was accepted is counted and in a checkpoint, and what was closed is in the outbox. With
    /// `flush`, the windows that are still open are released as they are. Nothing may be accepted after it.
    pub fn finish(&self, flush: bool) {
        if self.supervisor.failure().is_some() {
            // Whoever is gone would be waited for. The journal has all that was acknowledged.
            return;
        }
        self.sequencer.finish(flush);
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A thread that panicked has told the supervisor.
            let _ = thread.join();
        }
    }
}

/// A worker's thread.
fn work(runtime: Runtime, worker: Worker) {
    runtime.block_on(worker.run());
    // Connections are at their end by now, or were cut.
    runtime.shutdown_background();
}

/// Counts and closes what the journal held at the start.
struct Replaying {
    windows: Windows,
    orders: UnboundedReceiver<Order>,
    sequencer: Arc<Sequencer>,
    telemetry: Arc<Telemetry>,
    supervisor: Supervisor,
    versions: Arc<Versions>,
    has_replayed: Arc<AtomicBool>,
}

impl Replaying {
    fn run(mut self, windows: BTreeMap<DatasetName, BTreeMap<i64, Cells>>, mut steps: Replay) {
        self.windows.restore(windows);
        let counted = self.count(&mut steps);
        let erased = steps.erased();
        erased.say();
        Telemetry::add(&self.telemetry.gateway.erased, usize::try_from(erased.records).unwrap_or(usize::MAX));
        if let Err(error) = counted {
            // The first pass read all of it; what is wrong now is the disk. Without it nothing could be released.
            let error = Error::from(error);
            return self.supervisor.fail(&format!("the journal could not be replayed: {error:#}"));
        }
        drop(steps);
        self.sequencer.restore_windows(self.windows.open());
        self.has_replayed.store(true, Ordering::Release);
        while let Some(order) = self.orders.blocking_recv() {
            if self.windows.obey(order) {
                return;
            }
            // Nobody waits for an answer of this thread.
            while self.windows.is_saving() {
                self.windows.save_some();
            }
        }
    }

    fn count(&mut self, steps: &mut Replay) -> Result<(), recovery::Error> {
        while let Some(step) = steps.step()? {
            match step {
                // What was late was counted before the start.
                Step::Fold { lsn, batch, outputs, policy, senders } => {
                    let keeps_producers = self.versions.asks_for_producers(&batch.stream().name);
                    let requests = senders.iter().map(|Brought { series, number, rows }| OfRequest {
                        series,
                        number: *number,
                        rows: *rows,
                    });
                    let origins = Origins { lsn, requests: &requests.collect::<Vec<_>>(), keeps_producers };
                    self.windows.fold(&batch, &outputs, policy, origins);
                }
                Step::Close(Closed { lsn, dataset, before }) => self.windows.close(lsn, dataset, before),
            }
        }
        Ok(())
    }
}
