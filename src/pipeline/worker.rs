//! One worker: score what waits together, fold it into the open windows, answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::{Array, ArrayRef};
use crossbeam_channel::{Receiver, Sender};
use tokio::sync::oneshot;

use crate::domain::aggregate::{Cells, Foldable, Rows, cell_numbers};
use crate::domain::dataset::Dataset;
use crate::domain::policy::Resident;
use crate::domain::refusal::Reason;
use crate::domain::window::{micros, window_of};
use crate::telemetry::Telemetry;

use super::{Answer, Order, Report, WorkerSetup};

pub(super) struct Worker {
    index: usize,
    setup: WorkerSetup,
    /// The open windows of each dataset, and the oldest that may take records.
    windows: BTreeMap<String, OpenWindows>,
    reports: Sender<Report>,
    waiting: Arc<AtomicUsize>,
    telemetry: Arc<Telemetry>,
}

struct OpenWindows {
    open: i64,
    cells: BTreeMap<i64, Cells>,
}

type Waiting = (Resident, oneshot::Sender<Answer>);

impl Worker {
    pub(super) fn new(
        index: usize,
        setup: WorkerSetup,
        reports: Sender<Report>,
        waiting: Arc<AtomicUsize>,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        let datasets = setup.datasets.values().flatten();
        let windows =
            datasets.map(|dataset| (dataset.name.clone(), OpenWindows { open: i64::MIN, cells: BTreeMap::new() }));
        Self { index, windows: windows.collect(), setup, reports, waiting, telemetry }
    }

    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        let mut next = orders.recv().ok();
        while let Some(order) = next.take() {
            match order {
                Order::Batch { resident, answer } => {
                    let (together, after) = self.gather((resident, answer), orders);
                    self.waiting.fetch_sub(together.len(), Ordering::Relaxed);
                    self.process(together);
                    next = after;
                }
                Order::Close { dataset, open } => self.close(&dataset, open),
                Order::Finish => {
                    let _ = self.reports.send(Report::Finished);
                    return;
                }
            }
            next = next.or_else(|| orders.recv().ok());
        }
    }

    /// Takes the batches of the same stream that wait already, up to the most that are scored together.
    /// Returns them with the order that came after.
    fn gather(&self, first: Waiting, orders: &Receiver<Order>) -> (Vec<Waiting>, Option<Order>) {
        let stream = Arc::clone(first.0.batch().stream());
        let mut rows = first.0.batch().rows();
        let mut together = vec![first];
        while rows < self.setup.rows_max {
            match orders.try_recv() {
                Ok(Order::Batch { resident, answer })
                    if Arc::ptr_eq(resident.batch().stream(), &stream)
                        && rows + resident.batch().rows() <= self.setup.rows_max =>
                {
                    rows += resident.batch().rows();
                    together.push((resident, answer));
                }
                Ok(other) => return (together, Some(other)),
                Err(_) => break,
            }
        }
        (together, None)
    }

    fn process(&mut self, together: Vec<Waiting>) {
        let Some(stream) = together.first().map(|(resident, _)| resident.batch().stream().name.clone()) else { return };
        let outputs = match self.setup.scorers.get_mut(&stream) {
            None => Ok(Vec::new()),
            Some(scorer) => {
                let batches: Vec<&Resident> = together.iter().map(|(resident, _)| resident).collect();
                scorer.score(&batches)
            }
        };
        let outputs = match outputs {
            Ok(outputs) => outputs,
            Err(error) => {
                tracing::error!(%error, %stream, "a batch could not be scored");
                for (_, answer) in together {
                    let _ = answer.send(Err(Reason::ModelFailed));
                }
                return;
            }
        };
        let mut offset = 0;
        for (resident, answer) in together {
            let rows = resident.batch().rows();
            let scores: Vec<ArrayRef> = outputs.iter().map(|column| column.slice(offset, rows)).collect();
            offset += rows;
            if !scores.is_empty() {
                Telemetry::add(&self.telemetry.scored, rows);
            }
            self.fold(&stream, &resident, &scores);
            // The producer may have gone; its records count all the same.
            let _ = answer.send(Ok(scores));
        }
    }

    fn fold(&mut self, stream: &str, resident: &Resident, scores: &[ArrayRef]) {
        let batch = resident.batch();
        let Some(datasets) = self.setup.datasets.get(stream).filter(|datasets| !datasets.is_empty()) else { return };
        let mut columns = batch.columns().to_vec();
        columns.extend_from_slice(scores);
        let Some(contributor) = batch.columns().get(batch.stream().contributor) else { return };
        let contributors = self.setup.key.hash(contributor);
        for dataset in datasets {
            let Some(windows) = self.windows.get_mut(&dataset.name) else { continue };
            let cells = cell_numbers(dataset, &columns, batch.rows());
            let records = Foldable { columns: &columns, contributors: &contributors, cells: &cells };
            windows.fold(dataset, &records, batch.event_times());
        }
    }

    fn close(&mut self, dataset: &str, open: i64) {
        let Some(windows) = self.windows.get_mut(dataset) else { return };
        windows.open = open;
        let still_open = windows.cells.split_off(&open);
        let closed = std::mem::replace(&mut windows.cells, still_open);
        for (window, cells) in closed {
            let _ = self.reports.send(Report::Part { dataset: dataset.to_owned(), window, cells });
        }
        let _ = self.reports.send(Report::Closed { worker: self.index, dataset: dataset.to_owned(), open });
    }
}

impl OpenWindows {
    fn fold(&mut self, dataset: &Dataset, records: &Foldable<'_>, times: &[i64]) {
        let (Some(&oldest), Some(&newest)) = (times.iter().min(), times.iter().max()) else { return };
        let size = micros(dataset.window);
        let window = |time: i64| time.div_euclid(size).max(self.open);
        let (first, last) = (window_of(oldest, dataset.window).max(self.open), window(newest));
        if first == last {
            self.cells(dataset, first).fold(dataset, records, &Rows::All);
            return;
        }
        let mut by_window: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for (&time, row) in times.iter().zip(0..) {
            by_window.entry(window(time)).or_default().push(row);
        }
        for (window, rows) in by_window {
            self.cells(dataset, window).fold(dataset, records, &Rows::Some(&rows));
        }
    }

    fn cells(&mut self, dataset: &Dataset, window: i64) -> &mut Cells {
        self.cells.entry(window).or_insert_with(|| Cells::new(dataset))
    }
}
