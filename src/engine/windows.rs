//! One worker's part of the open windows: records are folded into them, and they are closed and written down as ordered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::ArrayRef;
use crossbeam_channel::Sender;

use crate::clock::Clock;
use crate::domain::aggregate::{Cells, ContributorKey, Foldable, Lot, OpenBytes, Producer, Request, Rows, Scored};
use crate::domain::batch::Batch;
use crate::domain::dataset::Dataset;
use crate::domain::name::{DatasetName, StreamName};
use crate::domain::policy::Digest;
use crate::domain::producer::{Number, speaker_of};
use crate::domain::window::{Grid, first_window};
use crate::durable::recovery::Present;
use crate::planted::planted;
use crate::storage::Lsn;

use super::order::{Order, Report, SavedWindow};

/// The open windows of all datasets, as far as one worker has folded records into them.
pub(super) struct Windows {
    key: ContributorKey,
    reports: Sender<Report>,
    /// The datasets of each stream.
    datasets: BTreeMap<StreamName, Vec<Arc<Dataset>>>,
    /// The open windows of each dataset.
    open: BTreeMap<DatasetName, OpenWindows>,
    saving: Option<Saving>,
    clock: Clock,
}

/// A checkpoint under way: the windows as they were at its position are written, a little at a time.
struct Saving {
    lsn: Lsn,
    /// The windows that are not written yet. One that has closed meanwhile is the collector's to write.
    left: Vec<(DatasetName, i64)>,
    windows: Vec<SavedWindow>,
    /// The time that it has taken so far.
    took: Duration,
}

/// Where records come from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origins<'r> {
    /// The position of their entry in the journal.
    pub(super) lsn: Lsn,
    /// Its requests, in the order of the records.
    pub(super) requests: &'r [OfRequest<'r>],
    /// Whether it is kept who brought a contributor.
    pub(super) keeps_producers: bool,
}

/// A request that brought records.
#[derive(Debug, Clone, Copy)]
pub(super) struct OfRequest<'r> {
    /// The series of numbers of whoever sent it.
    pub(super) series: &'r str,
    /// Its number, if it has one.
    pub(super) number: Option<Number>,
    /// How many records it brought.
    pub(super) rows: usize,
}

impl Origins<'_> {
    /// Who brought each record; none where that is not kept.
    fn producers(&self, key: ContributorKey) -> Vec<Producer> {
        let requests = self.requests.iter().filter(|_| self.keeps_producers);
        requests.flat_map(|sent| std::iter::repeat_n(key.producer(speaker_of(sent.series)), sent.rows)).collect()
    }

    /// The lot of each record.
    fn lots(&self, key: ContributorKey) -> Vec<Lot> {
        let requests = self.requests.iter().enumerate();
        let lots = requests.flat_map(|(at, OfRequest { series, number, rows })| {
            let request = match *number {
                Some(number) => Request::Numbered { series, number },
                None => Request::Placed { lsn: self.lsn, at },
            };
            key.lots(request).take(*rows)
        });
        lots.collect()
    }
}

/// So much is written at a time: less than a batch takes.
const SAVED_AT_ONCE: usize = 64 << 10;
/// A window counts as at least so much: many small ones take time, too.
const SAVED_OF_A_WINDOW: usize = 256;

struct OpenWindows {
    grid: Grid,
    /// The number of the oldest window that may take records.
    first: i64,
    cells: BTreeMap<i64, Cells>,
    /// What all open windows of the gateway hold.
    bytes: Arc<OpenBytes>,
}

impl Windows {
    /// No window is open; those that began before some times have closed.
    pub(super) fn new(
        present: &[Present],
        closed_before: &BTreeMap<DatasetName, i64>,
        key: ContributorKey,
        bytes: &Arc<OpenBytes>,
        reports: Sender<Report>,
        clock: Clock,
    ) -> Self {
        let open = present.iter().flat_map(|present| &present.datasets).map(|dataset| {
            let first = first_window(closed_before.get(&dataset.name).copied(), dataset.window);
            let windows = OpenWindows { grid: dataset.grid(), first, cells: BTreeMap::new(), bytes: Arc::clone(bytes) };
            (dataset.name.clone(), windows)
        });
        let datasets = present.iter().map(|present| (present.stream.name.clone(), present.datasets.clone()));
        Self { key, reports, datasets: datasets.collect(), open: open.collect(), saving: None, clock }
    }

    /// Goes on with the windows of a checkpoint.
    pub(super) fn restore(&mut self, windows: BTreeMap<DatasetName, BTreeMap<i64, Cells>>) {
        for (dataset, cells) in windows {
            if let Some(open) = self.open.get_mut(&dataset) {
                let counted = cells.into_iter().map(|(window, cells)| (window, cells.counted_in(&open.bytes)));
                open.cells = counted.collect();
            }
        }
    }

    /// The windows that are open: their datasets and numbers.
    pub(super) fn open(&self) -> impl Iterator<Item = (&DatasetName, i64)> {
        self.open.iter().flat_map(|(dataset, open)| open.cells.keys().map(move |window| (dataset, *window)))
    }

    /// Counts records in the windows of their stream's datasets. How many of them came after all their windows had closed.
    pub(super) fn fold(&mut self, batch: &Batch, outputs: &[ArrayRef], policy: Digest, origins: Origins<'_>) -> usize {
        let mut late = 0;
        let Some(datasets) = self.datasets.get(&batch.stream().name).filter(|datasets| !datasets.is_empty()) else {
            return late;
        };
        #[expect(clippy::panic, reason = "shows that no thread dies in silence")]
        if planted("panic-in-fold") {
            panic!("planted");
        }
        let columns = Scored::new(batch.columns(), outputs);
        let Some(contributor) = batch.columns().get(batch.stream().contributor) else { return late };
        let contributors = self.key.hash(contributor);
        let producers = origins.producers(self.key);
        let are_drawn = datasets.iter().any(|dataset| dataset.bounds.is_some());
        let lots = if are_drawn { origins.lots(self.key) } else { Vec::new() };
        for dataset in datasets {
            let Some(windows) = self.open.get_mut(&dataset.name) else { continue };
            let records = Foldable::new(dataset, columns, &contributors).brought_by(&producers).drawn_by(&lots);
            late = late.max(windows.late(batch));
            windows.fold(dataset, &records, batch, policy);
        }
        late
    }

    /// Does what is ordered. Whether that was the end.
    pub(super) fn obey(&mut self, order: Order) -> bool {
        match order {
            Order::Close { lsn, dataset, before } => self.close(lsn, dataset, before),
            Order::Checkpoint { lsn } => self.checkpoint(lsn),
            Order::Finish => {
                while self.is_saving() {
                    self.save_some();
                }
                let _ = self.reports.send(Report::Finished);
                return true;
            }
        }
        false
    }

    /// Closes windows, and gives the collector their cells.
    pub(super) fn close(&mut self, lsn: Lsn, dataset: DatasetName, before: Option<i64>) {
        let Some(open) = self.open.get_mut(&dataset) else { return };
        let still_open = match before {
            Some(before) => {
                open.first = open.grid.first_from(before);
                open.cells.split_off(&open.first)
            }
            None => BTreeMap::new(),
        };
        let windows = std::mem::replace(&mut open.cells, still_open);
        let saving = self.saving.as_ref().map(|saving| saving.lsn);
        let _ = self.reports.send(Report::Closed { lsn, dataset, before, windows, saving });
    }

    /// Begins a checkpoint. One that is under way is given up: only the last of all comes so soon.
    fn checkpoint(&mut self, lsn: Lsn) {
        let began = self.clock.now();
        let mut left = Vec::new();
        for (dataset, open) in &mut self.open {
            for (window, cells) in &mut open.cells {
                cells.save();
                left.push((dataset.clone(), *window));
            }
        }
        self.saving = Some(Saving { lsn, left, windows: Vec::new(), took: self.clock.now().saturating_sub(began) });
    }

    /// Whether a checkpoint is under way.
    pub(super) fn is_saving(&self) -> bool {
        self.saving.is_some()
    }

    /// Goes on with the checkpoint that is under way, for a short time. When it is whole the collector gets it.
    pub(super) fn save_some(&mut self) {
        let Some(saving) = &mut self.saving else { return };
        let began = self.clock.now();
        let mut bytes = SAVED_AT_ONCE;
        while bytes > 0
            && let Some((dataset, window)) = saving.left.pop()
        {
            let open = self.open.get_mut(&dataset);
            let Some(cells) = open.and_then(|open| open.cells.get_mut(&window)) else { continue };
            if !cells.save_some(&mut bytes) {
                saving.left.push((dataset, window));
                break;
            }
            bytes = bytes.saturating_sub(SAVED_OF_A_WINDOW);
            saving.windows.extend(cells.take_saved().map(|cells| SavedWindow { dataset, window, cells }));
        }
        saving.took += self.clock.now().saturating_sub(began);
        if saving.left.is_empty()
            && let Some(Saving { lsn, windows, took, .. }) = self.saving.take()
        {
            let _ = self.reports.send(Report::Checkpoint { lsn, windows, took });
        }
    }
}

impl OpenWindows {
    /// How many records came after all their windows had closed.
    fn late(&self, batch: &Batch) -> usize {
        let is_late = |time: i64| self.grid.is_late(time, self.first);
        if batch.event_time_range().is_none_or(|(oldest, _)| !is_late(oldest)) {
            return 0;
        }
        batch.event_times().iter().filter(|time| is_late(**time)).count()
    }

    fn fold(&mut self, dataset: &Dataset, records: &Foldable<'_>, batch: &Batch, policy: Digest) {
        let Some((oldest, newest)) = batch.event_time_range() else { return };
        let first = if planted("late-restated") { i64::MIN } else { self.first };
        let grid = self.grid;
        let (of_oldest, of_newest) = (grid.windows(oldest, first), grid.windows(newest, first));
        if of_oldest == of_newest {
            // So are those of all records between.
            for window in of_oldest {
                self.cells(dataset, window, policy).fold(dataset, records, &Rows::All);
            }
            return;
        }
        // Records that go into the same windows stand together: each once, in however many windows it is.
        let mut by_windows: BTreeMap<(i64, i64), Vec<u32>> = BTreeMap::new();
        for (&time, row) in batch.event_times().iter().zip(0..) {
            let (oldest, newest) = grid.windows(time, first).into_inner();
            by_windows.entry((oldest, newest)).or_default().push(row);
        }
        for ((oldest, newest), rows) in by_windows {
            for window in oldest..=newest {
                self.cells(dataset, window, policy).fold(dataset, records, &Rows::Some(&rows));
            }
        }
    }

    fn cells(&mut self, dataset: &Dataset, window: i64, policy: Digest) -> &mut Cells {
        let bytes = &self.bytes;
        let cells = self.cells.entry(window).or_insert_with(|| Cells::new(dataset).counted_in(bytes));
        cells.decided_under(policy);
        cells
    }
}

#[cfg(test)]
mod tests;
