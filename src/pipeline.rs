//! Worker threads: resident batches in, scores and closed windows out.
//!
//! Each worker owns a queue, its sessions and its part of every open window. Batches and the orders to
//! close windows are put into the queues under one lock, so a batch that was put in before a window closed
//! is counted before it closes, on every worker. The collector thread merges the parts of a window when
//! the last worker has closed it, and hands what may leave to the destinations.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arrow_array::ArrayRef;
use crossbeam_channel::{Receiver, Sender, unbounded};
use tokio::sync::oneshot;

use crate::adapters::onnx::Scorer;
use crate::domain::aggregate::{Cells, ContributorKey};
use crate::domain::batch::TimeBounds;
use crate::domain::dataset::Dataset;
use crate::domain::gateway::{Effect, Gateway, Input};
use crate::domain::policy::{Released, Resident};
use crate::domain::refusal::Reason;
use crate::telemetry::Telemetry;

mod collector;
mod worker;

pub use collector::ReleaseRules;

/// The scores of a batch: one column per output of its model. Or why there are none.
pub type Answer = Result<Vec<ArrayRef>, Reason>;

/// An order to a worker.
enum Order {
    Batch { resident: Resident, answer: oneshot::Sender<Answer> },
    Close { dataset: String, open: i64 },
    Finish,
}

/// What a worker tells the collector.
enum Report {
    Part { dataset: String, window: i64, cells: Cells },
    Closed { worker: usize, dataset: String, open: i64 },
    Finished,
}

/// What each worker starts with.
pub struct WorkerSetup {
    /// The scorer of each stream that has a model, by the stream's name.
    pub scorers: BTreeMap<String, Scorer>,
    /// The datasets of each stream.
    pub datasets: BTreeMap<String, Vec<Arc<Dataset>>>,
    /// The secret for contributors; the same for all workers of a process.
    pub key: ContributorKey,
    /// The most records scored in one run of the model.
    pub rows_max: usize,
}

struct Queue {
    orders: Sender<Order>,
    waiting: Arc<AtomicUsize>,
}

/// The running workers.
pub struct Pipeline {
    gateway: Mutex<Gateway>,
    queues: Vec<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Pipeline {
    /// Starts one thread per setup, and the collector.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        gateway: Gateway,
        setups: Vec<WorkerSetup>,
        rules: ReleaseRules,
        outlet: Box<dyn FnMut(Released) + Send>,
        telemetry: &Arc<Telemetry>,
    ) -> std::io::Result<Self> {
        let (reports, from_workers) = unbounded();
        let workers = setups.len();
        let mut queues = Vec::new();
        let mut threads = Vec::new();
        for (index, setup) in setups.into_iter().enumerate() {
            let (orders, received): (_, Receiver<Order>) = unbounded();
            let waiting = Arc::new(AtomicUsize::new(0));
            let worker =
                worker::Worker::new(index, setup, reports.clone(), Arc::clone(&waiting), Arc::clone(telemetry));
            let thread = thread::Builder::new().name(format!("worker-{index}"));
            threads.push(thread.spawn(move || worker.run(&received))?);
            queues.push(Queue { orders, waiting });
        }
        let collector = collector::Collector::new(rules, workers, outlet, Arc::clone(telemetry));
        let thread = thread::Builder::new().name("collector".into());
        threads.push(thread.spawn(move || collector.run(&from_workers))?);
        Ok(Self { gateway: Mutex::new(gateway), queues, threads: Mutex::new(threads) })
    }

    /// Puts a batch into the shortest queue. The answer comes when it is scored and counted.
    #[must_use]
    pub fn accept(&self, resident: Resident, producer: &str, now: Duration) -> oneshot::Receiver<Answer> {
        let (answer, received) = oneshot::channel();
        let newest = resident.batch().event_times().iter().copied().max();
        let stream = resident.batch().stream().name.clone();
        let queue = self.queues.iter().min_by_key(|queue| queue.waiting.load(Ordering::Relaxed));
        let mut gateway = self.gateway.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queue {
            queue.waiting.fetch_add(1, Ordering::Relaxed);
            // A worker only goes away at the end; then the answer's sender is dropped, and the caller sees that.
            let _ = queue.orders.send(Order::Batch { resident, answer });
        }
        self.handle(&mut gateway, Input::Heard { stream: &stream, producer, event_time: newest }, now);
        received
    }

    /// A producer was heard without records.
    pub fn heard(&self, stream: &str, producer: &str, event_time: Option<i64>, now: Duration) {
        let mut gateway = self.gateway.lock().unwrap_or_else(PoisonError::into_inner);
        self.handle(&mut gateway, Input::Heard { stream, producer, event_time }, now);
    }

    /// Time has passed.
    pub fn tick(&self, now: Duration) {
        let mut gateway = self.gateway.lock().unwrap_or_else(PoisonError::into_inner);
        self.handle(&mut gateway, Input::Tick, now);
    }

    /// The event times that a stream takes.
    #[must_use]
    pub fn time_bounds(&self, stream: &str, now: Duration, wall: i64) -> TimeBounds {
        let mut gateway = self.gateway.lock().unwrap_or_else(PoisonError::into_inner);
        gateway.time_bounds(stream, now, wall)
    }

    /// Closes every window, and returns when what may leave was handed to the destinations. Nothing may be
    /// accepted after it.
    pub fn finish(&self, now: Duration) {
        {
            let mut gateway = self.gateway.lock().unwrap_or_else(PoisonError::into_inner);
            self.handle(&mut gateway, Input::Stop, now);
            for queue in &self.queues {
                let _ = queue.orders.send(Order::Finish);
            }
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }

    fn handle(&self, gateway: &mut Gateway, input: Input<'_>, now: Duration) {
        let mut effects = Vec::new();
        gateway.handle(input, now, &mut effects);
        for Effect::Close { dataset, open } in effects {
            for queue in &self.queues {
                let _ = queue.orders.send(Order::Close { dataset: dataset.clone(), open });
            }
        }
    }
}
