//! One worker: score what waits together, write it into the journal, fold it into the open windows.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::{ArrayRef, BooleanArray};
use arrow_select::filter::filter;
use crossbeam_channel::{Receiver, Sender};

use crate::domain::aggregate::{Cells, ContributorKey, Foldable, OpenBytes, Rows, cell_numbers};
use crate::domain::batch::Batch;
use crate::domain::binary::Writer;
use crate::domain::dataset::Dataset;
use crate::domain::outcome::{Outcome, Taken, Why};
use crate::domain::policy::{Digest, Resident};
use crate::domain::producer::Lsn;
use crate::domain::refusal::Reason;
use crate::domain::window::{first_window, micros, window_of};
use crate::durable::checkpoint::WindowPart;
use crate::durable::entry::{BatchWriter, Sent};
use crate::durable::recovery::{Closed, Error, Present, Replay, Step};
use crate::durable::seal::Keys;
use crate::planted::planted;
use crate::scoring::{Scored, Scorer};
use crate::telemetry::Telemetry;

use super::order::{Order, Report, Waiting};

/// What a worker has for itself.
pub(super) struct Setup {
    pub(super) scorers: BTreeMap<String, Scorer>,
    pub(super) key: ContributorKey,
    pub(super) rows_max: usize,
    pub(super) keys: Arc<Keys>,
    pub(super) open: Arc<OpenBytes>,
}

/// What it shares with the others.
pub(super) struct Shared {
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
    /// What all open windows of the gateway hold.
    bytes: Arc<OpenBytes>,
}

impl Worker {
    pub(super) fn new(
        setup: Setup,
        present: &[Present],
        closed_before: &BTreeMap<String, i64>,
        shared: Shared,
    ) -> Self {
        let datasets = present.iter().flat_map(|present| &present.datasets).map(|dataset| {
            let open = first_window(closed_before.get(&dataset.name).copied(), dataset.window);
            (dataset.name.clone(), OpenWindows { open, cells: BTreeMap::new(), bytes: Arc::clone(&setup.open) })
        });
        let windows = datasets.collect();
        let writer = |present: &Present| {
            let writer = BatchWriter::new(&present.stream, present.outputs.clone(), Arc::clone(&setup.keys));
            (present.stream.name.clone(), writer)
        };
        let writers = present.iter().map(writer).collect();
        Self {
            setup,
            shared,
            windows,
            datasets: present.iter().map(|present| (present.stream.name.clone(), present.datasets.clone())).collect(),
            writers,
        }
    }

    /// Goes on with the windows of a checkpoint.
    pub(super) fn restore(&mut self, windows: BTreeMap<String, BTreeMap<i64, Cells>>) {
        for (dataset, cells) in windows {
            if let Some(windows) = self.windows.get_mut(&dataset) {
                let counted = cells.into_iter().map(|(window, cells)| (window, cells.counted_in(&windows.bytes)));
                windows.cells = counted.collect();
            }
        }
    }

    /// The windows that are open: their datasets and numbers.
    pub(super) fn open_windows(&self) -> impl Iterator<Item = (&str, i64)> {
        self.windows
            .iter()
            .flat_map(|(dataset, windows)| windows.cells.keys().map(|window| (dataset.as_str(), *window)))
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
                // What was late was counted before the start.
                Step::Fold { batch, outputs, policy } => {
                    self.fold(&batch, &outputs, policy);
                }
                Step::Close(Closed { lsn, dataset, before }) => self.close(lsn, dataset, before),
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
                Order::Score(resident, answer) => {
                    self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
                    let stream = Arc::clone(resident.batch().stream());
                    let scored = self.score(&stream.name, &[&resident]);
                    let _ = answer.send(scored.and_then(|scored| scored.usable().ok_or(Reason::ModelFailed)));
                }
                Order::Close { lsn, dataset, before } => self.close(lsn, dataset, before),
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
        let batches: Vec<&Resident> = together.iter().map(|waiting| &waiting.resident).collect();
        let scored = self.score(&stream.name, &batches);
        let mut offset = 0;
        for waiting in together {
            let rows = waiting.resident.batch().rows();
            match &scored {
                Ok(scored) => {
                    let scores = scored.outputs.iter().map(|column| column.slice(offset, rows)).collect();
                    let unusable = scored.unusable_in(offset..offset + rows);
                    match unusable.as_slice() {
                        [] => self.take(waiting, scores),
                        unusable => self.take_without(waiting, scores, unusable),
                    }
                }
                Err(reason) => waiting.place.refuse(*reason),
            }
            offset += rows;
        }
    }

    fn score(&mut self, stream: &str, batches: &[&Resident]) -> Result<Scored, Reason> {
        let Some(scorer) = self.setup.scorers.get_mut(stream) else { return Ok(Scored::default()) };
        // What panics in the library or on the way to it concerns these records, and no others.
        let scored = catch_unwind(AssertUnwindSafe(|| scorer.score(batches)));
        match scored {
            Ok(Ok(scored)) => {
                if !scored.unusable.is_empty() {
                    let (records, output) = (scored.records_unusable(), scorer.output(scored.unusable.first()));
                    tracing::warn!(%stream, records, output, "the model's values for records are not finite, or outside the range");
                }
                if !scored.outputs.is_empty() {
                    let rows = batches.iter().map(|resident| resident.batch().rows()).sum();
                    Telemetry::add(&self.shared.telemetry.of(stream).scored, rows);
                }
                Ok(scored)
            }
            Ok(Err(error)) => {
                tracing::error!(%error, %stream, "a batch could not be scored; it is refused. Check the model with \
                 `bailiwick check`");
                Err(Reason::ModelFailed)
            }
            Err(_) => {
                tracing::error!(%stream, "scoring a batch panicked; it is refused. A fault in bailiwick or in the \
                 model: please report this line");
                Err(Reason::ModelFailed)
            }
        }
    }

    /// Refuses the records at some positions, whose scores cannot be used, and takes the others.
    fn take_without(&mut self, waiting: Waiting, scores: Vec<ArrayRef>, unusable: &[u32]) {
        let Waiting { resident, taken, newest, place, windows } = waiting;
        let stream = Arc::clone(resident.batch().stream());
        self.shared.telemetry.of(&stream.name).refused.add(Reason::ModelFailed, unusable.len());
        let mut keep = vec![true; resident.batch().rows()];
        for &position in unusable {
            if let Some(mark) = keep.get_mut(position as usize) {
                *mark = false;
            }
        }
        let accepted = u32::try_from(keep.iter().filter(|&&keep| keep).count()).unwrap_or(u32::MAX);
        let refusals = taken.refusals.with(unusable, &Arc::new(Why::new(Reason::ModelFailed)));
        let taken = Taken { accepted, refusals, ..taken };
        let outcome = Outcome::Taken(taken.clone());
        let kept = outcome.declared(&stream);
        if accepted == 0 {
            return place.spend(outcome, kept);
        }
        let mask = BooleanArray::from(keep);
        let resident = resident.keep(&mask);
        let scores = scores.iter().map(|column| filter(column, &mask)).collect::<Result<Vec<_>, _>>();
        match (resident, scores) {
            (Ok(resident), Ok(scores)) => {
                place.correct(&kept);
                self.take(Waiting { resident, taken, newest, place, windows }, scores);
            }
            // Arrow filters every valid batch.
            _ => place.refuse(Reason::Internal),
        }
    }

    /// Writes and counts a scored batch; the producer is answered when it is on disk.
    fn take(&mut self, waiting: Waiting, scores: Vec<ArrayRef>) {
        let Waiting { resident, taken, newest, place, windows } = waiting;
        let stream = Arc::clone(resident.batch().stream());
        let rows = u32::try_from(resident.batch().rows()).unwrap_or(u32::MAX);
        let outcome = Outcome::Taken(taken);
        let kept = Some(outcome.declared(&stream));
        let sent = Sent { producer: &place.producer, number: place.number, rows, newest, outcome: kept };
        let writer = self.writers.get_mut(&stream.name);
        match writer.map(|writer| writer.encode(&resident, &scores, &[sent], place.at)) {
            Some(Ok(entry)) => {
                // A panic in here leaves windows that are not to be trusted: it ends this worker, and so the gateway.
                let late = self.fold(resident.batch(), &scores, resident.policy());
                drop(windows);
                Telemetry::add(&self.shared.telemetry.of(&stream.name).late, late);
                place.fill(entry, outcome, scores);
            }
            failed => {
                let error = failed.and_then(Result::err);
                tracing::error!(
                    ?error,
                    "a batch could not be written; it is refused. A fault in bailiwick: please report this line"
                );
                place.refuse(Reason::ModelFailed);
            }
        }
    }

    /// Counts a batch in the windows of its stream's datasets. How many of its records came after their window had
    /// closed.
    fn fold(&mut self, batch: &Batch, scores: &[ArrayRef], policy: Digest) -> usize {
        let mut late = 0;
        let Some(datasets) = self.datasets.get(&batch.stream().name).filter(|datasets| !datasets.is_empty()) else {
            return late;
        };
        #[expect(clippy::panic, reason = "shows that no thread dies in silence")]
        if planted("panic-in-fold") {
            panic!("planted");
        }
        let mut columns = batch.columns().to_vec();
        columns.extend_from_slice(scores);
        let Some(contributor) = batch.columns().get(batch.stream().contributor) else { return late };
        let contributors = self.setup.key.hash(contributor);
        for dataset in datasets {
            let Some(windows) = self.windows.get_mut(&dataset.name) else { continue };
            let cells = cell_numbers(dataset, &columns, batch.rows());
            let records = Foldable { columns: &columns, contributors: &contributors, cells: &cells };
            late = late.max(windows.late(dataset, batch.event_times()));
            windows.fold(dataset, &records, batch.event_times(), policy);
        }
        late
    }

    fn close(&mut self, lsn: Lsn, dataset: String, before: Option<i64>) {
        let size = self.datasets.values().flatten().find(|declared| declared.name == dataset);
        let (Some(windows), Some(size)) = (self.windows.get_mut(&dataset), size.map(|dataset| dataset.window)) else {
            return;
        };
        let still_open = match before {
            Some(before) => {
                windows.open = first_window(Some(before), size);
                windows.cells.split_off(&windows.open)
            }
            None => BTreeMap::new(),
        };
        let closed = std::mem::replace(&mut windows.cells, still_open);
        let part = if before.is_some() { 0 } else { lsn };
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
    /// How many of these event times lie in windows that have closed.
    fn late(&self, dataset: &Dataset, times: &[i64]) -> usize {
        let open_from = self.open.saturating_mul(micros(dataset.window).max(1));
        times.iter().filter(|time| **time < open_from).count()
    }

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
        let bytes = &self.bytes;
        let cells = self.cells.entry(window).or_insert_with(|| Cells::new(dataset).counted_in(bytes));
        cells.decided_under(policy);
        cells
    }
}
