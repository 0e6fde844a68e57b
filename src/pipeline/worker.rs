//! One worker: score what waits together, write it into the journal, fold it into the open windows.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::ArrayRef;
use crossbeam_channel::{Receiver, Sender};

use crate::adapters::journal::Log;
use crate::adapters::onnx::Scorer;
use crate::domain::aggregate::{Cells, ContributorKey, Foldable, Rows, cell_numbers};
use crate::domain::batch::Batch;
use crate::domain::binary::Writer;
use crate::domain::dataset::Dataset;
use crate::domain::policy::{Digest, Resident};
use crate::domain::producer::Lsn;
use crate::domain::refusal::Reason;
use crate::domain::window::{micros, window_of};
use crate::durable::checkpoint::WindowPart;
use crate::durable::entry::{BatchWriter, Entry};
use crate::durable::recovery::{Closed, Error, Present, Replay, Step};
use crate::durable::seal::Keys;
use crate::telemetry::Telemetry;

use super::order::{Order, Place, Report, Waiting};

/// What a worker has for itself.
pub(super) struct Setup {
    pub(super) scorers: BTreeMap<String, Scorer>,
    pub(super) key: ContributorKey,
    pub(super) rows_max: usize,
    pub(super) keys: Arc<Keys>,
}

/// What it shares with the others.
pub(super) struct Shared {
    pub(super) journal: Arc<Log>,
    pub(super) reports: Sender<Report>,
    pub(super) waiting: Arc<AtomicUsize>,
    pub(super) telemetry: Arc<Telemetry>,
}

pub(super) struct Worker {
    setup: Setup,
    shared: Shared,
    datasets: BTreeMap<String, Vec<Arc<Dataset>>>,
    writers: BTreeMap<String, BatchWriter>,
    /// The open windows of each dataset, and the oldest that may take records.
    windows: BTreeMap<String, OpenWindows>,
}

struct OpenWindows {
    open: i64,
    cells: BTreeMap<i64, Cells>,
}

impl Worker {
    pub(super) fn new(setup: Setup, present: &[Present], open: &BTreeMap<String, i64>, shared: Shared) -> Self {
        let datasets = present.iter().flat_map(|present| &present.datasets).map(|dataset| {
            let open = open.get(&dataset.name).copied().unwrap_or(i64::MIN);
            (dataset.name.clone(), OpenWindows { open, cells: BTreeMap::new() })
        });
        let writer = |present: &Present| {
            let writer = BatchWriter::new(&present.stream, present.outputs.clone(), Arc::clone(&setup.keys));
            (present.stream.name.clone(), writer)
        };
        let writers = present.iter().map(writer).collect();
        Self {
            setup,
            shared,
            windows: datasets.collect(),
            datasets: present.iter().map(|present| (present.stream.name.clone(), present.datasets.clone())).collect(),
            writers,
        }
    }

    /// Goes on with the windows of a checkpoint.
    pub(super) fn restore(&mut self, windows: BTreeMap<String, BTreeMap<i64, Cells>>) {
        for (dataset, cells) in windows {
            if let Some(windows) = self.windows.get_mut(&dataset) {
                windows.cells = cells;
            }
        }
    }

    /// Counts and closes what the journal held at the start.
    pub(super) fn replay(&mut self, steps: &mut Replay) -> Result<(), Error> {
        let done = self.count(steps);
        let erased = steps.erased();
        erased.say();
        self.shared.telemetry.gateway.erased.fetch_add(erased.records, Ordering::Relaxed);
        done
    }

    fn count(&mut self, steps: &mut Replay) -> Result<(), Error> {
        while let Some(step) = steps.step()? {
            match step {
                Step::Fold { batch, outputs, policy } => self.fold(&batch, &outputs, policy),
                Step::Close(Closed { lsn, dataset, open }) => self.close(lsn, dataset, open),
            }
        }
        Ok(())
    }

    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        let mut next = orders.recv().ok();
        while let Some(order) = next.take() {
            match order {
                Order::Batch(first) => {
                    let (together, after) = self.gather(first, orders);
                    self.shared.waiting.fetch_sub(together.len(), Ordering::Relaxed);
                    self.process(together);
                    next = after;
                }
                Order::Close { lsn, dataset, open } => self.close(lsn, dataset, open),
                Order::Checkpoint { lsn } => self.checkpoint(lsn),
                Order::Finish => {
                    let _ = self.shared.reports.send(Report::Finished);
                    return;
                }
            }
            next = next.or_else(|| orders.recv().ok());
        }
    }

    /// Takes the batches of the same stream that wait already, up to the most that are scored together.
    /// Returns them with the order that came after.
    fn gather(&self, first: Waiting, orders: &Receiver<Order>) -> (Vec<Waiting>, Option<Order>) {
        let stream = Arc::clone(first.resident.batch().stream());
        let mut rows = first.resident.batch().rows();
        let mut together = vec![first];
        while rows < self.setup.rows_max {
            match orders.try_recv() {
                Ok(Order::Batch(waiting))
                    if Arc::ptr_eq(waiting.resident.batch().stream(), &stream)
                        && rows + waiting.resident.batch().rows() <= self.setup.rows_max =>
                {
                    rows += waiting.resident.batch().rows();
                    together.push(waiting);
                }
                Ok(other) => return (together, Some(other)),
                Err(_) => break,
            }
        }
        (together, None)
    }

    fn process(&mut self, together: Vec<Waiting>) {
        let Some(stream) = together.first().map(|first| Arc::clone(first.resident.batch().stream())) else { return };
        let outputs = self.score(&stream.name, &together);
        let mut offset = 0;
        for waiting in together {
            let rows = waiting.resident.batch().rows();
            let scores = outputs
                .as_ref()
                .map(|columns| columns.iter().map(|column| column.slice(offset, rows)).collect::<Vec<ArrayRef>>());
            offset += rows;
            match scores {
                Ok(scores) => self.take(waiting, scores),
                Err(reason) => self.spend(waiting, *reason),
            }
        }
    }

    fn score(&mut self, stream: &str, together: &[Waiting]) -> Result<Vec<ArrayRef>, Reason> {
        let Some(scorer) = self.setup.scorers.get_mut(stream) else { return Ok(Vec::new()) };
        let batches: Vec<&Resident> = together.iter().map(|waiting| &waiting.resident).collect();
        // A position in the journal has been given out for each: whatever happens, it must be filled.
        let scored = catch_unwind(AssertUnwindSafe(|| scorer.score(&batches)));
        match scored {
            Ok(Ok(outputs)) => {
                if !outputs.is_empty() {
                    let rows = batches.iter().map(|resident| resident.batch().rows()).sum();
                    Telemetry::add(&self.shared.telemetry.of(stream).scored, rows);
                }
                Ok(outputs)
            }
            Ok(Err(error)) => {
                tracing::error!(%error, %stream, "a batch could not be scored");
                Err(Reason::ModelFailed)
            }
            Err(_) => {
                tracing::error!(%stream, "scoring a batch panicked");
                Err(Reason::ModelFailed)
            }
        }
    }

    /// Writes and counts a scored batch; the producer is answered when it is on disk.
    fn take(&mut self, waiting: Waiting, scores: Vec<ArrayRef>) {
        let Waiting { resident, place, answer, budget } = waiting;
        match place {
            Place::Taken { through } => {
                self.shared.journal.when_durable(through, Box::new(move || drop((answer.send(Ok(scores)), budget))));
            }
            Place::New { lsn, producer, number, at, room } => {
                let writer = self.writers.get_mut(&resident.batch().stream().name);
                let entry = writer.map(|writer| writer.encode(&resident, &scores, (&producer, number), at));
                match entry {
                    Some(Ok(entry)) => {
                        self.fold(resident.batch(), &scores, resident.policy());
                        // The producer may have gone; its records count all the same.
                        let then = Box::new(move || drop((answer.send(Ok(scores)), budget)));
                        self.shared.journal.submit(lsn, entry, room, Some(then));
                    }
                    failed => {
                        let error = failed.and_then(Result::err);
                        tracing::error!(?error, "a batch could not be written");
                        let place = Place::New { lsn, producer, number, at, room };
                        self.spend(Waiting { resident, place, answer, budget }, Reason::ModelFailed);
                    }
                }
            }
        }
    }

    /// Gives the place of a batch that failed to nothing.
    fn spend(&self, waiting: Waiting, reason: Reason) {
        let Waiting { place, answer, .. } = waiting;
        match place {
            Place::Taken { .. } => drop(answer.send(Err(reason))),
            Place::New { lsn, producer, number, room, .. } => {
                let entry = Entry::Spent { producer: &producer, number }.encode();
                self.shared.journal.submit(lsn, entry, room, Some(Box::new(move || drop(answer.send(Err(reason))))));
            }
        }
    }

    fn fold(&mut self, batch: &Batch, scores: &[ArrayRef], policy: Digest) {
        let Some(datasets) = self.datasets.get(&batch.stream().name).filter(|datasets| !datasets.is_empty()) else {
            return;
        };
        let mut columns = batch.columns().to_vec();
        columns.extend_from_slice(scores);
        let Some(contributor) = batch.columns().get(batch.stream().contributor) else { return };
        let contributors = self.setup.key.hash(contributor);
        for dataset in datasets {
            let Some(windows) = self.windows.get_mut(&dataset.name) else { continue };
            let cells = cell_numbers(dataset, &columns, batch.rows());
            let records = Foldable { columns: &columns, contributors: &contributors, cells: &cells };
            windows.fold(dataset, &records, batch.event_times(), policy);
        }
    }

    fn close(&mut self, lsn: Lsn, dataset: String, open: Option<i64>) {
        let Some(windows) = self.windows.get_mut(&dataset) else { return };
        let still_open = match open {
            Some(open) => {
                windows.open = open;
                windows.cells.split_off(&open)
            }
            None => BTreeMap::new(),
        };
        let closed = std::mem::replace(&mut windows.cells, still_open);
        let part = if open.is_some() { 0 } else { lsn };
        let _ = self.shared.reports.send(Report::Closed { lsn, dataset, part, windows: closed });
    }

    fn checkpoint(&self, lsn: Lsn) {
        let windows = self.windows.iter().flat_map(|(dataset, windows)| {
            windows.cells.iter().map(|(&window, cells)| {
                let mut writer = Writer::default();
                cells.encode(&mut writer);
                WindowPart { dataset: dataset.clone(), window, cells: writer.finish() }
            })
        });
        let _ = self.shared.reports.send(Report::Checkpoint { lsn, windows: windows.collect() });
    }
}

impl OpenWindows {
    fn fold(&mut self, dataset: &Dataset, records: &Foldable<'_>, times: &[i64], policy: Digest) {
        let (Some(&oldest), Some(&newest)) = (times.iter().min(), times.iter().max()) else { return };
        let size = micros(dataset.window).max(1);
        let window = |time: i64| time.div_euclid(size).max(self.open);
        let (first, last) = (window_of(oldest, dataset.window).max(self.open), window(newest));
        if first == last {
            self.cells(dataset, first, policy).fold(dataset, records, &Rows::All);
            return;
        }
        let mut by_window: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for (&time, row) in times.iter().zip(0..) {
            by_window.entry(window(time)).or_default().push(row);
        }
        for (window, rows) in by_window {
            self.cells(dataset, window, policy).fold(dataset, records, &Rows::Some(&rows));
        }
    }

    fn cells(&mut self, dataset: &Dataset, window: i64, policy: Digest) -> &mut Cells {
        let cells = self.cells.entry(window).or_insert_with(|| Cells::new(dataset));
        cells.decided_under(policy);
        cells
    }
}
