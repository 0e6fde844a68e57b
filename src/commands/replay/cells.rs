//! The cells of replayed records under one version of the policies, and what of them would leave.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Result, bail};
use arrow_array::{ArrayRef, BooleanArray, RecordBatch};
use arrow_select::filter::filter;
use indicatif::HumanBytes;

use super::left::AllLeft;
use super::noised::Budgets;
use super::releasing::{Part, Releasing, Until, Windows};
use crate::domain::aggregate::{Cells, ContributorKey, Foldable, Lot, OpenBytes, Producer, Request, Rows, Scored};
use crate::domain::batch::{Batch, Candidate};
use crate::domain::counting::NotCounted;
use crate::domain::dataset::{Dataset, Metric};
use crate::domain::evidence::Sender;
use crate::domain::name::{DatasetName, GatewayId};
use crate::domain::policy::{Outlet, Version, asked_for};
use crate::domain::producer::speaker_of;
use crate::domain::window::first_window;
use crate::durable::entry::Before;

/// The secret of a gateway is not asked for: which of a contributor's records count is drawn anew.
const KEY: ContributorKey = ContributorKey(*b"bailiwick replay");

/// The cells of all windows that records fall into, under one version. Records of files come in any order, so no window is
/// over before the last record: all are held, as far as there is memory for them.
pub(super) struct Counted {
    /// What all windows hold.
    open: Arc<OpenBytes>,
    /// By dataset.
    windows: BTreeMap<DatasetName, Windows>,
    /// What a journal says of windows, by the dataset that it names.
    passed: BTreeMap<DatasetName, Passed>,
    /// What is counted for datasets, as far as it can be computed. `None`: a key is an output of the model, which is not there.
    datasets: BTreeMap<DatasetName, Option<Arc<Dataset>>>,
    /// Those that want outputs of the model.
    unscored: BTreeSet<DatasetName>,
    requests: u64,
}

/// Which windows of a dataset are over.
#[derive(Debug, Default)]
struct Passed {
    /// Those that closed.
    before: Option<Before>,
    /// How often all open ones were released as they were.
    flushes: u64,
}

impl Counted {
    /// None yet, and so much memory for them.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            open: Arc::new(OpenBytes::new(bytes_max)),
            windows: BTreeMap::new(),
            passed: BTreeMap::new(),
            datasets: BTreeMap::new(),
            unscored: BTreeSet::new(),
            requests: 0,
        }
    }

    /// Windows of a dataset closed. What comes later and belongs to them counts in the oldest one that is open.
    pub(super) fn closed(&mut self, dataset: &DatasetName, before: Before) {
        self.passed.entry(dataset.clone()).or_default().before = Some(before);
    }

    /// All open windows of a dataset were released as they were.
    pub(super) fn flushed(&mut self, dataset: &DatasetName) {
        self.passed.entry(dataset.clone()).or_default().flushes += 1;
    }

    /// The oldest window of a dataset that is open, and how often its windows were released as they were.
    fn open_from(&self, dataset: &Dataset) -> (i64, u64) {
        let first = |before: Before| match before {
            Before::Time(time) => first_window(Some(time), dataset.window),
            Before::Window(window) => window,
        };
        let passed = self.passed.iter().filter(|(name, _)| dataset.is_counted_for(name));
        passed.fold((i64::MIN, 0), |(oldest, flushes), (_, passed)| {
            (passed.before.map_or(oldest, |before| oldest.max(first(before))), flushes + passed.flushes)
        })
    }

    /// Counts those of the records that may stay. `columns`: as the journal holds them, with the model's outputs; none of
    /// records that were not scored.
    pub(super) fn add(
        &mut self,
        version: &Version,
        candidate: Candidate,
        series: &str,
        columns: Option<&RecordBatch>,
    ) -> Result<()> {
        let (rows, stream) = (candidate.rows(), candidate.stream().name.clone());
        let from = Sender { producer: speaker_of(series), address: None };
        let decided = version.decide(candidate, from, &mut NotCounted)?;
        self.requests += 1;
        let (Some(resident), Some(plan)) = (decided.resident, version.policy.streams.get(&stream)) else {
            return Ok(());
        };
        let refused: BTreeSet<usize> = decided.refusals.iter().map(|refusal| refusal.index as usize).collect();
        let stays = BooleanArray::from_iter((0..rows).map(|row| Some(!refused.contains(&row))));
        let mut outputs = Vec::new();
        for output in plan.model.iter().flat_map(|model| &model.outputs) {
            let Some(column) = columns.and_then(|columns| columns.column_by_name(&output.field)) else { break };
            outputs.push(filter(column, &stays)?);
        }
        let known = plan.stream.fields.len() + outputs.len();
        let is_kept = version.asks_for_producers(&stream);
        let producer = if is_kept { KEY.producer(from.producer) } else { Producer::UNKNOWN };
        for dataset in &plan.counted {
            let dataset = match self.datasets.entry(dataset.name.clone()) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let of_known = of_columns(dataset, known);
                    for wanted in dataset.released_as() {
                        let is_whole = |counted: &Arc<Dataset>| {
                            let found = counted.released_as().find(|found| found.name == wanted.name);
                            found.is_some_and(|found| found.metrics.len() == wanted.metrics.len())
                        };
                        if !of_known.as_ref().is_some_and(is_whole) {
                            self.unscored.insert(wanted.name.clone());
                        }
                    }
                    place.insert(of_known)
                }
            };
            if let Some(dataset) = dataset.clone() {
                self.fold(&dataset, resident.batch(), &outputs, producer);
            }
        }
        if self.open.held() > self.open.max() {
            bail!(
                "the windows of these records take more memory than {}, which `--windows-bytes-max` allows for each of both \
                 policies; they are all held until the last record is read. Replay the records of a shorter time at once, or \
                 give that option more",
                HumanBytes(self.open.max() as u64)
            );
        }
        Ok(())
    }

    fn fold(&mut self, dataset: &Dataset, batch: &Batch, outputs: &[ArrayRef], producer: Producer) {
        let columns = Scored::new(batch.columns(), outputs);
        let Some(contributor) = batch.columns().get(batch.stream().contributor) else { return };
        let contributors = KEY.hash(contributor);
        let producers = if producer == Producer::UNKNOWN { Vec::new() } else { vec![producer; batch.rows()] };
        let lots: Vec<Lot> = KEY.lots(Request::Placed { lsn: self.requests, at: 0 }).take(batch.rows()).collect();
        let records = Foldable::new(dataset, columns, &contributors).brought_by(&producers).drawn_by(&lots);
        let (first, flushes) = self.open_from(dataset);
        let mut by_windows: BTreeMap<(i64, i64), Vec<u32>> = BTreeMap::new();
        for (time, row) in batch.event_times().iter().zip(0..) {
            by_windows.entry(dataset.grid().windows(*time, first).into_inner()).or_default().push(row);
        }
        let windows = self.windows.entry(dataset.name.clone()).or_default();
        for ((oldest, newest), rows) in by_windows {
            for window in oldest..=newest {
                let place = windows.entry(Part { flushes, window });
                let cells = place.or_insert_with(|| Cells::new(dataset).counted_in(&self.open));
                cells.fold(dataset, &records, &Rows::Some(&rows));
            }
        }
    }

    /// What would leave of each window, by its start in microseconds since the Unix epoch.
    pub(super) fn left(mut self, version: &Version, gateway: &GatewayId) -> Result<AllLeft> {
        let (mut left, mut budgets) = (AllLeft::new(), Budgets::default());
        for (name, windows) in std::mem::take(&mut self.windows) {
            let Some(Some(dataset)) = self.datasets.get(&name) else { continue };
            let of_dataset =
                |dataset: &Dataset| version.policy.outlets(&dataset.name, &version.here.serves, version.day);
            let outlets: Vec<Outlet> = dataset.released_as().flat_map(of_dataset).collect();
            // As the gateway does: noise is for a dataset alone.
            if let Some(privacy) = asked_for(&outlets).filter(|_| !dataset.is_shared()) {
                budgets.add(dataset, privacy, windows.into_keys());
                continue;
            }
            let (open_from, flushes) = self.open_from(dataset);
            let releasing = Releasing { gateway, dataset, outlets: &outlets, policy: version.digest() };
            releasing.all(windows, Until { open_from, flushes }, &mut left)?;
        }
        budgets.spend(&mut left);
        Ok(left)
    }

    /// The datasets that want outputs of the model, which were not there.
    pub(super) fn unscored(&self) -> &BTreeSet<DatasetName> {
        &self.unscored
    }
}

/// A dataset with the metrics that so many columns give. `None`: they do not give its keys.
fn of_columns(dataset: &Arc<Dataset>, known: usize) -> Option<Arc<Dataset>> {
    let is_known = |column: usize| column < known;
    let has_columns = |metric: &Metric| metric.function.source().is_none_or(|source| is_known(source.column));
    let has_keys = dataset.keys.iter().all(|key| is_known(key.column));
    has_keys.then(|| Arc::new(dataset.with_metrics(&has_columns)))
}
