//! What of replayed records would leave under one version of the policies: how many cells of each window, by which rule the
//! others would not, and how many numbers of the cells would be null. Never what is in a cell.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Result, bail};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow_select::filter::filter;
use indicatif::{HumanBytes, HumanCount};

use super::super::table::table;
use crate::domain::aggregate::{Cells, ContributorKey, Foldable, Lot, OpenBytes, Producer, Request, Rows, Scored};
use crate::domain::batch::{Batch, Candidate};
use crate::domain::counting::NotCounted;
use crate::domain::dataset::{CONTRIBUTORS, Dataset, Metric};
use crate::domain::evidence::Sender;
use crate::domain::name::{DatasetName, GatewayId};
use crate::domain::policy::{
    Addition, ClosedWindow, Longer, Outcome, Outlet, Released, Version, Withheld, release, release_longer,
};
use crate::domain::producer::speaker_of;
use crate::domain::time::rfc3339;
use crate::domain::window::{first_window, window_start};
use crate::durable::entry::Before;

/// The secret of a gateway is not asked for: which of a contributor's records count is drawn anew.
const KEY: ContributorKey = ContributorKey(*b"bailiwick replay");

/// The cells of all windows that records fall into, under one version. Records of files come in any order, so no window is
/// over before the last record: all are held, as far as there is memory for them.
pub(super) struct Counted {
    /// What all windows hold.
    open: Arc<OpenBytes>,
    /// By dataset, window, and how often its windows were released as they were before. What came later leaves by itself.
    windows: BTreeMap<(DatasetName, i64, u64), Cells>,
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

/// What would leave of a window, or of several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// Cells that go somewhere.
    released: usize,
    /// Cells that go nowhere, by what they fail.
    withheld: BTreeMap<Withheld, usize>,
    /// Numbers of released cells that are null, or ranges that leave with the one before, by metric.
    nulls: BTreeMap<String, usize>,
}

impl Left {
    fn withheld(&self) -> usize {
        self.withheld.values().sum()
    }

    fn add(&mut self, other: &Self) {
        self.released += other.released;
        for (why, cells) in &other.withheld {
            *self.withheld.entry(*why).or_default() += cells;
        }
        for (metric, nulls) in &other.nulls {
            *self.nulls.entry(metric.clone()).or_default() += nulls;
        }
    }

    /// What would leave as the cells of a dataset.
    fn of(dataset: &Dataset, outcome: &Outcome) -> Self {
        let nulls = Self::nulls(dataset, &outcome.released);
        let (released, mut withheld) = (outcome.of_dataset(&dataset.name), outcome.withheld.clone());
        // Those that leave in other datasets only.
        let nowhere = outcome.beside_dataset(&dataset.name);
        if nowhere > 0 {
            *withheld.entry(Withheld::Nowhere).or_default() += nowhere;
        }
        Self { released, withheld, nulls }
    }

    fn nulls(dataset: &Dataset, released: &[Released]) -> BTreeMap<String, usize> {
        let mut nulls = BTreeMap::new();
        let of_dataset = || released.iter().filter(|released| *released.dataset() == dataset.name);
        let told = dataset.tells_contributors.then_some(CONTRIBUTORS);
        for name in dataset.metrics.iter().map(|metric| metric.name.as_str()).chain(told) {
            let columns = of_dataset().filter_map(|released| released.cells().column_by_name(name));
            // Of several destinations, that of which most is withheld.
            let most = columns.map(nulls_of).max().unwrap_or(0);
            nulls.insert(name.to_owned(), most);
        }
        nulls
    }
}

fn nulls_of(column: &ArrayRef) -> usize {
    let of_lists = column.as_list_opt::<i32>().map_or(0, |lists| lists.values().null_count());
    column.null_count() + of_lists
}

/// By dataset and window.
pub(super) type AllLeft = BTreeMap<(DatasetName, i64), Left>;

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
        for ((oldest, newest), rows) in by_windows {
            for window in oldest..=newest {
                let place = self.windows.entry((dataset.name.clone(), window, flushes));
                let cells = place.or_insert_with(|| Cells::new(dataset).counted_in(&self.open));
                cells.fold(dataset, &records, &Rows::Some(&rows));
            }
        }
    }

    /// What would leave of each window, by its start in microseconds since the Unix epoch.
    pub(super) fn left(self, version: &Version, gateway: &GatewayId) -> Result<AllLeft> {
        let (mut left, mut all_longer) = (AllLeft::new(), BTreeMap::new());
        let outlets = |dataset: &Dataset| -> Vec<Outlet> {
            let of_dataset =
                |dataset: &Dataset| version.policy.outlets(&dataset.name, &version.here.serves, version.day);
            dataset.released_as().flat_map(of_dataset).collect()
        };
        for ((name, window, _), cells) in self.windows {
            let Some(Some(dataset)) = self.datasets.get(&name) else { continue };
            let cells = cells.bounded(dataset);
            let closed = ClosedWindow { gateway, dataset, window, part: 0, cells, deferral: None };
            let mut outcome = release(&closed, &outlets(dataset), version.digest())?;
            let start = window_start(window, dataset.window);
            for view in dataset.views().iter().filter(|view| !view.is_longer(dataset)) {
                let of_window = left.entry((view.dataset.name.clone(), start)).or_default();
                of_window.add(&Left::of(view.dataset, &outcome));
            }
            let added = std::mem::take(&mut outcome.longer);
            all_longer.entry(name).or_insert_with(Longer::default).add(&Addition { added, ..Addition::default() });
        }
        for (name, longer) in all_longer {
            let Some(Some(dataset)) = self.datasets.get(&name) else { continue };
            for ended in longer.ending(dataset, None, &mut Addition::default()) {
                let released = release_longer(gateway, dataset, &ended, 0, &outlets(dataset), version.digest())?;
                let Some(of) = dataset.released_as().find(|of| of.name == *ended.dataset()) else { continue };
                let nulls = Left::nulls(of, &released);
                let rows = if released.is_empty() { 0 } else { ended.rows() };
                let sums = Left { released: rows, withheld: BTreeMap::new(), nulls };
                left.insert((of.name.clone(), ended.start(dataset)), sums);
            }
        }
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

/// So many windows are listed at most.
const WINDOWS_SHOWN: usize = 20;

/// The cells of both versions, for people: in all, by what is withheld and why, and window by window where it differs.
pub(super) fn report(before: &AllLeft, after: &AllLeft) -> String {
    let mut text = String::from("\ncells that would leave, of whole windows of these records:\n\n");
    let datasets: BTreeSet<&DatasetName> = before.keys().chain(after.keys()).map(|(dataset, _)| dataset).collect();
    if datasets.is_empty() {
        text.push_str("  none of them is counted\n");
        return text;
    }
    let mut rows = vec![["dataset", "cells", "before", "after"].map(str::to_owned)];
    for dataset in datasets {
        let [was, is] = [before, after].map(|left| {
            let mut all = Left::default();
            left.iter().filter(|((name, _), _)| name == dataset).for_each(|(_, left)| all.add(left));
            all
        });
        let mut line = |what: String, was: usize, is: usize| {
            rows.push([dataset.to_string(), what, count(was), count(is)]);
        };
        line("released".to_owned(), was.released, is.released);
        let reasons: BTreeSet<Withheld> = was.withheld.keys().chain(is.withheld.keys()).copied().collect();
        for why in reasons {
            let of = |left: &Left| left.withheld.get(&why).copied().unwrap_or(0);
            line(format!("withheld: {why}"), of(&was), of(&is));
        }
        let metrics: BTreeSet<&String> = was.nulls.keys().chain(is.nulls.keys()).collect();
        for metric in metrics {
            let of = |left: &Left| left.nulls.get(metric).copied().unwrap_or(0);
            if of(&was) + of(&is) > 0 {
                line(format!("nulls of {metric}"), of(&was), of(&is));
            }
        }
    }
    text.push_str(&table(&rows));
    windows(&mut text, before, after);
    text
}

/// The windows that differ.
fn windows(text: &mut String, before: &AllLeft, after: &AllLeft) {
    let nothing = Left::default();
    let all: BTreeSet<&(DatasetName, i64)> = before.keys().chain(after.keys()).collect();
    let differ = all.into_iter().map(|window| {
        let [was, is] = [before, after].map(|left| left.get(window).unwrap_or(&nothing));
        (window, was, is)
    });
    let differ: Vec<_> = differ.filter(|(_, was, is)| was != is).collect();
    // Writing to a string does not fail.
    let _ = writeln!(text, "\nwindows of which not the same would leave: {}\n", count(differ.len()));
    if differ.is_empty() {
        return;
    }
    let header =
        ["dataset", "window from", "released before", "after", "withheld before", "after", "nulls before", "after"];
    let mut rows = vec![header.map(str::to_owned)];
    for ((dataset, start), was, is) in differ.iter().take(WINDOWS_SHOWN) {
        let nulls = |left: &Left| count(left.nulls.values().sum());
        rows.push([
            dataset.to_string(),
            rfc3339(*start),
            count(was.released),
            count(is.released),
            count(was.withheld()),
            count(is.withheld()),
            nulls(was),
            nulls(is),
        ]);
    }
    text.push_str(&table(&rows));
    if let Some(more) = differ.len().checked_sub(WINDOWS_SHOWN).filter(|more| *more > 0) {
        let _ = writeln!(text, "  and {} more", count(more));
    }
}

fn count(count: usize) -> String {
    HumanCount(count as u64).to_string()
}
