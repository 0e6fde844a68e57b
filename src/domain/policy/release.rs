//! Release: which cells of a closed window may leave, and the columns they leave as.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use sha2::{Digest as _, Sha256};

use crate::domain::aggregate::{Cells, Measured, Value, positions_of};
use crate::domain::binary::Writer;
use crate::domain::dataset::{Dataset, KeyDomain, Metric, REST, View};
use crate::domain::deferral::Deferral;
use crate::domain::name::{DatasetName, DestinationName, GatewayId};
use crate::domain::rounding::Rounding;
use crate::domain::table::{Change, Fingerprint, Said, Tables, Telling};
use crate::domain::window::{micros, window_start};
use crate::planted::planted;

use super::Digest;
use super::egress::Outlet;
use super::permit::Released;

mod coarser;
mod columns;
mod longer;
mod noised;
mod reduced;
mod rolled;
mod steps;

#[cfg(test)]
pub(crate) use reduced::receiver;
pub use reduced::{
    ALL, Adding, By, Changes, DEGRADED, LastTold, ON_CHANGE, ROLL_UP, Reduction, RollUp, SINCE, Step, TOP, Top,
};

pub use columns::RELEASE_COLUMNS;
pub(super) use columns::{Beside, Head, assemble};

pub use longer::{Added, Addition, Ended, Longer, release_longer};

pub use noised::{NotNoised, asked_for, release_noised};

pub use steps::steps_above;

pub(super) use rolled::HIDDEN_MIN;
use rolled::{Levels, Row, Rule};
use steps::Steps;

/// A closed window of a dataset.
pub struct ClosedWindow<'w> {
    /// The gateway's id.
    pub gateway: &'w GatewayId,
    /// What was counted: a dataset, or [`Dataset::counted_for`] several.
    pub dataset: &'w Dataset,
    /// The window's number.
    pub window: i64,
    /// Which part of the window this is: 0 for a window that the watermark closed, another number for what
    /// was in it when it was flushed. Parts of a window share no record.
    pub part: u64,
    /// Its cells.
    pub cells: Cells,
    /// What waited before: it says how many windows each cell covers. `None`: its own.
    pub deferral: Option<&'w Deferral>,
}

/// What came of a closed window.
#[derive(Default)]
pub struct Outcome {
    /// At most one release per dataset and destination; none when no cell may leave.
    pub released: Vec<Released>,
    /// Cells that may leave, and remainders.
    pub cells_released: usize,
    /// The numbers of the cells.
    pub left: BTreeSet<u32>,
    /// Those of cells that leave in a remainder.
    pub rolled_up: BTreeSet<u32>,
    /// How many remainders leave.
    pub remainders: usize,
    /// How many rows leave of each coarser dataset: sums of the cells and remainders that leave. None leave yet of one with
    /// longer windows.
    pub coarser: BTreeMap<DatasetName, usize>,
    /// Cells that go nowhere.
    pub cells_withheld: usize,
    /// Those, by what they fail of the least strict that any destination asks for.
    pub withheld: BTreeMap<Withheld, usize>,
    /// Cells that may leave and are told to nobody, since they say what they said before.
    pub cells_unchanged: usize,
    /// What the releases change of the tables of their destinations, of a dataset that tells only what has changed.
    pub told: Vec<Telling>,
    /// What the rows that leave add to the datasets with longer windows.
    pub longer: Vec<Added>,
}

/// Why a cell goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Withheld {
    /// It has too few contributors.
    Contributors,
    /// It has too few without the records of a single producer.
    Producers,
    /// A single producer brought too much of it.
    Share,
    /// It is not held to the bounds of its dataset.
    Bounds,
    /// It was not given the noise that every destination asks for.
    Noise,
    /// No destination may have it.
    Nowhere,
}

impl Outcome {
    /// How many rows left as those of a dataset: all cells and remainders that left, or none, or their sums.
    #[must_use]
    pub fn of_dataset(&self, dataset: &str) -> usize {
        if let Some(sums) = self.coarser.get(dataset) {
            return *sums;
        }
        let has_left = self.released.iter().any(|released| *released.dataset() == *dataset);
        if has_left { self.cells_released } else { 0 }
    }

    /// How many cells and remainders left, and not as those of a dataset.
    #[must_use]
    pub fn beside_dataset(&self, dataset: &str) -> usize {
        if self.coarser.contains_key(dataset) { 0 } else { self.cells_released - self.of_dataset(dataset) }
    }

    /// How many remainders left as rows of a dataset. A coarser one only has sums.
    #[must_use]
    pub fn remainders_of(&self, dataset: &str) -> usize {
        if self.of_dataset(dataset) == 0 || self.coarser.contains_key(dataset) { 0 } else { self.remainders }
    }
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Contributors => "too few contributors",
            Self::Producers => "too few beside one producer's",
            Self::Share => "too large a share of one producer",
            Self::Bounds => "not held to the bounds",
            Self::Noise => "without the noise that is asked for",
            Self::Nowhere => "no destination may have them",
        })
    }
}

impl Withheld {
    /// Why a slot's cell goes nowhere that goes to nobody of this rule.
    fn of(cells: &Cells, slot: usize, rule: Option<&Rule>) -> Self {
        match rule {
            None => Self::Nowhere,
            Some((_, least)) if !cells.has(slot, *least, false) => Self::Contributors,
            Some((parts, least)) if !cells.has(slot, *least, parts.beyond_one) => Self::Producers,
            Some(_) => Self::Share,
        }
    }
}

/// Releases the cells of a window that hold enough contributors for each outlet: a cell below the number of one may go
/// to another. A cell counts as released when it goes anywhere. Of the parts of a cell (the ranges of a histogram, a
/// fraction, who has no value) only those leave that hold enough contributors too, and that give nobody away together.
///
/// Cells that go nowhere leave in a remainder, where the dataset gives keys up for that: see [`rolled`].
///
/// Outlets of other rules may hear of the same cell. So what leaves under one rule is made of what leaves under those that
/// are less strict: all of it together tells no more than the least strict.
///
/// Datasets that share their cells are judged as one that has the metrics of all, by the strictest rule of all their outlets:
/// whoever has the numbers of several learns no more than that one would tell. So a cell leaves in all of them or in none.
/// A coarser one of them adds up what leaves: see [`coarser`].
///
/// Cells that are not held to the bounds of their dataset ([`Cells::bounded`]) go nowhere. A dataset that tells only what has
/// changed tells everything here: see [`release_changes`].
///
/// # Errors
/// When Arrow cannot assemble the columns, which no valid dataset causes.
pub fn release(closed: &ClosedWindow<'_>, outlets: &[Outlet], policy: Digest) -> Result<Outcome, ArrowError> {
    released(closed, outlets, policy, None)
}

/// The same for a dataset that tells only what has changed. Of the cells that may leave, those leave that say something
/// else than the destination was told last. Others are told as gone. `receivers` are the destinations that may have the
/// dataset under the policies in force: what was told to one of them and does not leave to it now is told as gone.
///
/// # Errors
/// As those of [`release`].
pub fn release_changes(
    closed: &ClosedWindow<'_>,
    outlets: &[Outlet],
    policy: Digest,
    tables: &Tables,
    receivers: &BTreeSet<DestinationName>,
) -> Result<Outcome, ArrowError> {
    let mut outcome = released(closed, outlets, policy, Some(tables))?;
    let given: BTreeSet<DestinationName> = outcome.told.iter().map(|telling| telling.destination.clone()).collect();
    for receiver in receivers.difference(&given) {
        changes(closed, &[], policy, receiver, tables, &mut outcome)?;
    }
    outcome.told.retain(|telling| !telling.is_empty());
    let told: BTreeSet<u32> = outcome.told.iter().flat_map(|telling| &telling.set).map(|(number, _)| *number).collect();
    outcome.cells_unchanged = outcome.left.difference(&told).count();
    Ok(outcome)
}

fn released(
    closed: &ClosedWindow<'_>,
    outlets: &[Outlet],
    policy: Digest,
    tables: Option<&Tables>,
) -> Result<Outcome, ArrowError> {
    let in_order = closed.cells.in_order();
    let mut outcome = Outcome { cells_withheld: in_order.len(), ..Outcome::default() };
    if closed.cells.bounds() != closed.dataset.bounds {
        outcome.withheld.extend((!in_order.is_empty()).then_some((Withheld::Bounds, in_order.len())));
        return Ok(outcome);
    }
    let rounding = rounding_for(outlets);
    // Without noise nothing leaves to who asks for it.
    let quiet = || outlets.iter().filter(|outlet| outlet.privacy.is_none());
    let mut rules: BTreeSet<Rule> = quiet().map(Outlet::rule).collect();
    let is_shared = closed.dataset.is_shared();
    if is_shared {
        rules = strictest_of(closed.dataset, rules).into_iter().collect();
    }
    let levels = Levels::of(closed.dataset, &closed.cells, &rules);
    let steps = Steps::of(closed.dataset, quiet(), &rules, rounding);
    for rule in &rules {
        let rows = levels.rows(rule, &steps);
        let all = planted("sums-of-all").then(|| Levels::of(closed.dataset, &closed.cells, &[(rule.0, 1)].into()));
        let all = all.as_ref().map(|all| all.rows(&(rule.0, 1), &steps));
        let of_sums = all.as_ref().unwrap_or(&rows);
        for view in closed.dataset.views() {
            let is_of_view = |outlet: &&Outlet| match is_shared {
                true => outlet.dataset == view.dataset.name,
                false => outlet.rule() == *rule,
            };
            let mut to = quiet().filter(is_of_view).map(|outlet| &outlet.destination).peekable();
            if rows.is_empty() {
                continue;
            }
            if view.is_longer(closed.dataset) {
                outcome.coarser.insert(view.dataset.name.clone(), 0);
                outcome.longer.push(Added::of(closed, policy, &view, of_sums, *rule, to));
                continue;
            }
            if to.peek().is_none() {
                continue;
            }
            if view.dataset.coarser_than.is_some() {
                let sums = coarser::added_up(closed.dataset, of_sums, &view.keys, steps.told_of_remainder(rule.1));
                outcome.coarser.insert(view.dataset.name.clone(), sums.len());
                let leaving = Leaving::new(closed, &view, sums.values().map(Vec::as_slice), policy);
                outcome.released.extend(leaving.released(to)?);
                continue;
            }
            let Some(tables) = tables else {
                outcome.released.extend(Leaving::new(closed, &view, each(&rows), policy).released(to)?);
                continue;
            };
            for destination in to {
                changes(closed, &rows, policy, destination, tables, &mut outcome)?;
            }
        }
    }
    outcome.left = levels.left().clone();
    outcome.rolled_up = levels.rolled_up();
    for slot in in_order {
        let number = closed.cells.number(slot);
        if outcome.left.contains(&number) || outcome.rolled_up.contains(&number) {
            continue;
        }
        let why = match rules.first() {
            None if !outlets.is_empty() => Withheld::Noise,
            rule => Withheld::of(&closed.cells, slot, rule),
        };
        *outcome.withheld.entry(why).or_default() += 1;
    }
    outcome.remainders = levels.remainders();
    outcome.cells_released = outcome.left.len() + outcome.remainders;
    outcome.cells_withheld = outcome.withheld.values().sum();
    Ok(outcome)
}

/// To which multiples the counts of a window are rounded, for all outlets together.
fn rounding_for(outlets: &[Outlet]) -> Rounding {
    Rounding::of_all(outlets.iter().map(|outlet| outlet.rounding))
}

/// The rule of all datasets that share their cells: the strictest of those of all their outlets.
fn strictest_of(counted: &Dataset, rules: impl IntoIterator<Item = Rule>) -> Option<Rule> {
    let strictest = rules.into_iter().reduce(|(one, k), (other, of_other)| (one.stricter(other), k.max(of_other)));
    strictest.map(|(parts, k)| (parts, k.max(counted.min_contributors)))
}

/// Lets go what has changed of the cells that may leave to a destination, if anything has. Their dataset
/// shares no cells and has no remainders.
fn changes(
    closed: &ClosedWindow<'_>,
    rows: &[Row<'_>],
    policy: Digest,
    destination: &DestinationName,
    tables: &Tables,
    outcome: &mut Outcome,
) -> Result<(), ArrowError> {
    let view = View::alone(closed.dataset);
    let all = Leaving::new(closed, &view, each(rows), policy);
    let said: Vec<Said> = all.lines.iter().map(|line| all.said(line)).collect();
    let telling = tables.telling(destination, closed.window, closed.part, &said);
    if !telling.is_empty() {
        let change = Some(if telling.all { Change::All } else { Change::Set });
        let told: BTreeSet<u32> = telling.set.iter().map(|(number, _)| *number).collect();
        let set = all.lines.iter().filter(|line| told.contains(&line.number));
        let set = set.map(|line| Line { change, ..line.clone() });
        let gone = telling.gone.iter().map(|number| Line {
            number: *number,
            labels: labels(closed.dataset, &view, *number, &[]),
            values: vec![Value::Null; closed.dataset.metrics.len()],
            contributors: Value::Null,
            windows: 1,
            change: Some(Change::Gone),
        });
        let lines = set.chain(gone).collect();
        outcome.released.extend(Leaving { lines, ..all }.released(std::iter::once(destination))?);
    }
    outcome.told.push(telling);
    Ok(())
}

/// What of a window may leave as that of a dataset to outlets of one rule.
struct Leaving<'l> {
    gateway: &'l GatewayId,
    dataset: &'l Dataset,
    start: i64,
    end: i64,
    part: u64,
    policy: Digest,
    lines: Vec<Line>,
}

/// A line of a release: one row, or several that are added up.
#[derive(Clone)]
struct Line {
    /// The number of the cell; that of one of the cells, of a remainder or a sum.
    number: u32,
    /// How its keys are written.
    labels: Vec<String>,
    /// The value of each metric, null when it may not leave. Of a cell that is gone, all are null.
    values: Vec<Value>,
    /// How many contributors it has at least. Null where that is not told, and of a cell that is gone.
    contributors: Value,
    /// How many windows it covers: those of the row that covers most.
    windows: u64,
    /// How it changes what was told before, where that is told.
    change: Option<Change>,
}

/// Version 1 hashed texts of Rust's; version 2 knew no ranges that leave together.
const RELEASE_ID_VERSION: u8 = 3;
/// Of a dataset whose cells wait: how many windows each covers is hashed, too.
const RELEASE_ID_VERSION_OF_WAITING: u8 = 4;
/// Of a dataset that tells only what has changed: that, and how each cell changes what was told before.
const RELEASE_ID_VERSION_OF_CHANGES: u8 = 5;
/// Of a dataset that tells how many contributors cells have at least: which of the others it would be, and the numbers.
const RELEASE_ID_VERSION_OF_CONTRIBUTORS: u8 = 6;

/// A line for each row.
fn each<'l>(rows: &'l [Row<'l>]) -> impl Iterator<Item = &'l [Row<'l>]> {
    rows.chunks(1)
}

impl<'l> Leaving<'l> {
    /// Of the rows of each line.
    fn new<'r>(
        closed: &ClosedWindow<'l>,
        view: &View<'l>,
        lines: impl Iterator<Item = &'r [Row<'r>]>,
        policy: Digest,
    ) -> Self {
        let ClosedWindow { gateway, part, .. } = *closed;
        let start = window_start(closed.window, closed.dataset.window);
        let end = start.saturating_add(micros(closed.dataset.length()));
        let line = |rows: &[Row<'_>]| {
            let first = rows.first()?;
            let number = first.cells.number(first.slot);
            Some(Line {
                number,
                labels: labels(closed.dataset, view, number, first.given_up),
                values: values(view.dataset, first.rounding, |at| {
                    coarser::measured(closed.dataset, *view.metrics.get(at)?, rows)
                }),
                contributors: first.contributors.map_or(Value::Null, Value::Count),
                windows: rows.iter().map(|row| covers(closed, row)).max().unwrap_or(1),
                // Who knows of nothing that was told before tells the whole table.
                change: closed.dataset.only_on_change.then_some(Change::All),
            })
        };
        Self { gateway, dataset: view.dataset, start, end, part, policy, lines: lines.filter_map(line).collect() }
    }

    fn released<'o>(
        &self,
        destinations: impl Iterator<Item = &'o DestinationName>,
    ) -> Result<Vec<Released>, ArrowError> {
        let id = self.id();
        let cells = self.columns(&id)?;
        let to = |destination: &DestinationName| Released {
            id: id.clone(),
            destination: destination.clone(),
            dataset: self.dataset.name.clone(),
            gateway: self.gateway.clone(),
            window_start: self.start,
            window_end: self.end,
            policy: self.policy,
            cells: cells.clone(),
            reduced: None,
        };
        Ok(destinations.map(to).collect())
    }

    /// What a line says.
    fn said(&self, line: &Line) -> Said {
        let mut writer = Writer::default();
        line.values.iter().for_each(|value| hashed(value, &mut writer));
        if self.dataset.tells_contributors {
            hashed(&line.contributors, &mut writer);
        }
        Said { number: line.number, values: Fingerprint::of(&writer.finish()), windows: line.windows }
    }

    /// The first 128 bits of SHA-256 over gateway, dataset, window, part, policy and the cells: the same records
    /// give the same id, and whatever differs has another one.
    fn id(&self) -> String {
        let dataset = self.dataset;
        let mut writer = Writer::default();
        let cells_wait = dataset.max_defer > 0;
        if dataset.tells_contributors {
            writer.u8(RELEASE_ID_VERSION_OF_CONTRIBUTORS);
        }
        writer.u8(match (dataset.only_on_change, cells_wait) {
            (true, _) => RELEASE_ID_VERSION_OF_CHANGES,
            (false, true) => RELEASE_ID_VERSION_OF_WAITING,
            (false, false) => RELEASE_ID_VERSION,
        });
        writer.text(self.gateway).text(&dataset.name);
        writer.i64(self.start).i64(self.end).u64(self.part).raw(self.policy.bytes());
        for name in dataset.keys.iter().map(|key| &key.name).chain(dataset.metrics.iter().map(|metric| &metric.name)) {
            writer.text(name);
        }
        writer.count(self.lines.len());
        for line in &self.lines {
            if cells_wait || dataset.only_on_change {
                writer.u64(line.windows);
            }
            if dataset.only_on_change {
                writer.text(line.change.map_or("", Change::name));
            }
            line.labels.iter().for_each(|label| {
                writer.text(label);
            });
            line.values.iter().for_each(|value| hashed(value, &mut writer));
            if dataset.tells_contributors {
                hashed(&line.contributors, &mut writer);
            }
        }
        Sha256::digest(writer.finish()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    fn columns(&self, id: &str) -> Result<RecordBatch, ArrowError> {
        let Self { gateway, dataset, policy, start, end, ref lines, .. } = *self;
        let head = Head { id, gateway, dataset, policy, start, end };
        let windows: Vec<u64> = lines.iter().map(|line| line.windows).collect();
        let changes: Vec<Change> = lines.iter().filter_map(|line| line.change).collect();
        let contributors: Vec<Value> = lines.iter().map(|line| line.contributors.clone()).collect();
        let labels =
            |index: usize, _: &KeyDomain| lines.iter().filter_map(|line| line.labels.get(index).cloned()).collect();
        let values = |metric: usize| {
            lines.iter().map(|line| line.values.get(metric).cloned().unwrap_or(Value::Null)).collect::<Vec<_>>()
        };
        let beside = Beside { windows: &windows, changes: &changes, contributors: &contributors };
        assemble(&head, beside, labels, values)
    }
}

/// The metrics of a row as they leave: what each comes to, null where there is nothing, computed from rounded counts, with the
/// digits that it is to have. All that leaves without noise comes by here.
fn values(dataset: &Dataset, rounding: Rounding, measured: impl Fn(usize) -> Option<Measured>) -> Vec<Value> {
    let as_it_leaves = |(at, metric): (usize, &Metric)| {
        let measured = measured(at).and_then(|exact| exact.rounded(&metric.function, rounding));
        let value = measured.map_or(Value::Null, |measured| measured.value(&metric.function));
        match metric.digits {
            // A count stays a multiple.
            Some(digits) => value.rounded(digits).in_multiples(rounding),
            None => value,
        }
    };
    dataset.metrics.iter().enumerate().map(as_it_leaves).collect()
}

/// How the keys of a cell are written, or of what is made of it. Of rows that are added up, all have given up the same.
fn labels(counted: &Dataset, view: &View<'_>, number: u32, given_up: &[usize]) -> Vec<String> {
    let positions = positions_of(counted, number as usize);
    let label = |index: &usize| match (counted.keys.get(*index), positions.get(*index)) {
        (Some(key), Some(position)) if !given_up.contains(index) => key.domain.label(*position),
        _ => REST.to_owned(),
    };
    view.keys.iter().map(label).collect()
}

/// How many windows a row covers.
fn covers(closed: &ClosedWindow<'_>, row: &Row<'_>) -> u64 {
    let ClosedWindow { deferral: Some(deferral), window, .. } = closed else { return 1 };
    match row.given_up {
        [] => deferral.covers(*window, row.cells.number(row.slot)),
        _ => deferral.covers_at_most(*window),
    }
}

/// Adds a value to what a release's id is made of.
fn hashed(value: &Value, writer: &mut Writer) {
    match value {
        Value::Null => {
            writer.u8(0);
        }
        Value::Count(count) => {
            writer.u8(1).u64(*count);
        }
        Value::Number(number) => {
            writer.u8(2).f64(*number);
        }
        Value::Counts(counts) => {
            writer.u8(3).count(counts.len());
            for count in counts {
                writer.u8(count.is_some().into()).u64(count.unwrap_or(0));
            }
        }
    }
}

#[cfg(test)]
mod tests;
