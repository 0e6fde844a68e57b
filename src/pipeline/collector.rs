//! The collector: merges the workers' parts of closed windows and lets go what may leave.

use std::collections::BTreeMap;
use std::sync::Arc;

use crossbeam_channel::Receiver;

use crate::domain::aggregate::Cells;
use crate::domain::dataset::Dataset;
use crate::domain::policy::{ClosedWindow, Digest, Released, release};
use crate::telemetry::Telemetry;

use super::Report;

/// What the collector must know to release a window.
pub struct ReleaseRules {
    /// The gateway's id.
    pub gateway: String,
    /// The policy in force.
    pub policy: Digest,
    /// Each dataset with the destinations that every regime lets it go to.
    pub datasets: BTreeMap<String, (Arc<Dataset>, Vec<String>)>,
    /// The part number of windows that are closed because the gateway stops: when it was started, in
    /// microseconds since the Unix epoch. Never 0.
    pub run: u64,
}

pub(super) struct Collector {
    rules: ReleaseRules,
    workers: usize,
    outlet: Box<dyn FnMut(Released) + Send>,
    telemetry: Arc<Telemetry>,
    /// The oldest open window of each worker, by dataset.
    open: BTreeMap<String, Vec<i64>>,
    parts: BTreeMap<String, BTreeMap<i64, Cells>>,
}

impl Collector {
    pub(super) fn new(
        rules: ReleaseRules,
        workers: usize,
        outlet: Box<dyn FnMut(Released) + Send>,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        Self { rules, workers, outlet, telemetry, open: BTreeMap::new(), parts: BTreeMap::new() }
    }

    pub(super) fn run(mut self, reports: &Receiver<Report>) {
        let mut running = self.workers;
        while running > 0 {
            match reports.recv() {
                Ok(Report::Part { dataset, window, cells }) => self.part(dataset, window, cells),
                Ok(Report::Closed { worker, dataset, open }) => self.closed(worker, &dataset, open),
                Ok(Report::Finished) => running -= 1,
                Err(_) => return,
            }
        }
    }

    fn part(&mut self, dataset: String, window: i64, cells: Cells) {
        let windows = self.parts.entry(dataset).or_default();
        match windows.entry(window) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(cells);
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => entry.get_mut().merge(cells),
        }
    }

    fn closed(&mut self, worker: usize, dataset: &str, open: i64) {
        let workers = self.workers;
        let by_worker = self.open.entry(dataset.to_owned()).or_insert_with(|| vec![i64::MIN; workers]);
        if let Some(mine) = by_worker.get_mut(worker) {
            *mine = open;
        }
        let open = by_worker.iter().copied().min().unwrap_or(i64::MIN);
        let Some(windows) = self.parts.get_mut(dataset) else { return };
        let still_open = windows.split_off(&open);
        let closed = std::mem::replace(windows, still_open);
        let part = if open == i64::MAX { self.rules.run } else { 0 };
        for (window, cells) in closed {
            self.release(dataset, window, part, cells);
        }
    }

    fn release(&mut self, dataset: &str, window: i64, part: u64, cells: Cells) {
        let Some((declared, destinations)) = self.rules.datasets.get(dataset) else { return };
        let closed = ClosedWindow { gateway: &self.rules.gateway, dataset: declared, window, part, cells };
        match release(&closed, destinations, self.rules.policy) {
            Ok(outcome) => {
                Telemetry::add(&self.telemetry.cells_released, outcome.cells_released);
                Telemetry::add(&self.telemetry.cells_withheld, outcome.cells_withheld);
                let (released, withheld) = (outcome.cells_released, outcome.cells_withheld);
                tracing::info!(dataset, window, released, withheld, "window closed");
                for released in outcome.released {
                    Telemetry::add(&self.telemetry.releases, 1);
                    (self.outlet)(released);
                }
            }
            Err(error) => tracing::error!(%error, dataset, window, "a window could not be released"),
        }
    }
}
