//! Release: which cells of a closed window may leave, and the columns they leave as.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arrow_array::builder::{Int64Builder, ListBuilder};
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use sha2::{Digest as _, Sha256};

use crate::domain::aggregate::{Cells, Value, positions_of};
use crate::domain::binary::Writer;
use crate::domain::dataset::{CHANGE, CONTRIBUTORS, Dataset, Function, KeyDomain, REST, View, WINDOWS};
use crate::domain::deferral::Deferral;
use crate::domain::name::{DatasetName, DestinationName, GatewayId};
use crate::domain::table::{Change, Fingerprint, Said, Tables, Telling};
use crate::domain::window::{micros, window_start};

use super::Digest;
use super::egress::Outlet;
use super::permit::Released;

mod coarser;
mod noised;
mod reduced;
mod rolled;
mod steps;

pub use reduced::{ALL, Adding, By, DEGRADED, ROLL_UP, Reduction, RollUp, Step, TOP, Top};

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
    /// How many rows leave of each coarser dataset: sums of the cells and remainders that leave.
    pub coarser: BTreeMap<DatasetName, usize>,
    /// Cells that go nowhere.
    pub cells_withheld: usize,
    /// Those, by what they fail of the least strict that any destination asks for.
    pub withheld: BTreeMap<Withheld, usize>,
    /// Cells that may leave and are told to nobody, since they say what they said before.
    pub cells_unchanged: usize,
    /// What the releases change of the tables of their destinations, of a dataset that tells only what has changed.
    pub told: Vec<Telling>,
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
/// Cells that are not held to the bounds of their dataset ([`Cells::bounded`]) go nowhere.
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
    (tables, receivers): (&Tables, &BTreeSet<DestinationName>),
) -> Result<Outcome, ArrowError> {
    let mut outcome = released(closed, outlets, policy, Some(tables))?;
    let given: BTreeSet<DestinationName> = outcome.told.iter().map(|telling| telling.destination.clone()).collect();
    for receiver in receivers.difference(&given) {
        changes(closed, &[], policy, (receiver, tables), &mut outcome)?;
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
    // Without noise nothing leaves to who asks for it.
    let quiet = || outlets.iter().filter(|outlet| outlet.privacy.is_none());
    let mut rules: BTreeSet<Rule> = quiet().map(Outlet::rule).collect();
    let is_shared = closed.dataset.is_shared();
    if is_shared {
        let strictest = rules.into_iter().reduce(|(one, k), (other, of_other)| (one.stricter(other), k.max(of_other)));
        rules = strictest.map(|(parts, k)| (parts, k.max(closed.dataset.min_contributors))).into_iter().collect();
    }
    let levels = Levels::of(closed.dataset, &closed.cells, &rules);
    let steps = Steps::of(closed.dataset, quiet(), &rules);
    for rule in &rules {
        let rows = levels.rows(rule, &steps);
        for view in closed.dataset.views() {
            let is_of_view = |outlet: &&Outlet| match is_shared {
                true => outlet.dataset == view.dataset.name,
                false => outlet.rule() == *rule,
            };
            let outlets: Vec<&Outlet> = quiet().filter(is_of_view).collect();
            if rows.is_empty() || outlets.is_empty() {
                continue;
            }
            if view.dataset.coarser_than.is_some() {
                let sums = coarser::added_up(closed.dataset, &rows, &view.keys, steps.told_of_remainder(rule.1));
                outcome.coarser.insert(view.dataset.name.clone(), sums.len());
                let leaving = Leaving::new(closed, view, sums.iter().map(Vec::as_slice), policy);
                outcome.released.extend(leaving.released(outlets)?);
                continue;
            }
            let Some(tables) = tables else {
                let leaving = Leaving::new(closed, view, each(&rows), policy);
                outcome.released.extend(leaving.released(outlets)?);
                continue;
            };
            for outlet in outlets {
                changes(closed, &rows, policy, (&outlet.destination, tables), &mut outcome)?;
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

/// Lets go what has changed of the cells that may leave to a destination, if anything has. Their dataset
/// shares no cells and has no remainders.
fn changes(
    closed: &ClosedWindow<'_>,
    rows: &[Row<'_>],
    policy: Digest,
    (destination, tables): (&DestinationName, &Tables),
    outcome: &mut Outcome,
) -> Result<(), ArrowError> {
    let all = Leaving::new(closed, View::alone(closed.dataset), each(rows), policy);
    let said: Vec<Said> = all.lines.iter().map(|line| all.said(line)).collect();
    let telling = tables.telling(destination, (closed.window, closed.part), &said);
    if !telling.is_empty() {
        let change = Some(if telling.all { Change::All } else { Change::Set });
        let told: BTreeSet<u32> = telling.set.iter().map(|(number, _)| *number).collect();
        let set = all.lines.iter().filter(|line| told.contains(&line.number)).map(|line| Line { change, ..*line });
        let change = Some(Change::Gone);
        let gone = telling.gone.iter().map(|number| Line { rows: &[], number: *number, change });
        let lines = set.chain(gone).collect();
        outcome.released.push(Leaving { lines, ..all }.released_to(destination)?);
    }
    outcome.told.push(telling);
    Ok(())
}

/// What of a window may leave as that of a dataset to outlets of one rule.
struct Leaving<'l> {
    closed: &'l ClosedWindow<'l>,
    view: View<'l>,
    lines: Vec<Line<'l>>,
    start: i64,
    end: i64,
    policy: Digest,
}

/// A line of a release.
#[derive(Clone, Copy)]
struct Line<'l> {
    /// What it tells: one, or several that are added up. None: the cell is gone.
    rows: &'l [Row<'l>],
    /// The number of the cell; that of one of the cells, of a remainder.
    number: u32,
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
    fn new(
        closed: &'l ClosedWindow<'l>,
        view: View<'l>,
        lines: impl Iterator<Item = &'l [Row<'l>]>,
        policy: Digest,
    ) -> Self {
        let start = window_start(closed.window, closed.dataset.window);
        let end = start.saturating_add(micros(closed.dataset.window));
        let line = |rows: &'l [Row<'l>]| {
            let number = rows.first().map(|row| row.cells.number(row.slot))?;
            Some(Line { rows, number, change: None })
        };
        Self { closed, view, lines: lines.filter_map(line).collect(), start, end, policy }
    }

    fn released(&self, outlets: Vec<&Outlet>) -> Result<Vec<Released>, ArrowError> {
        let id = self.id();
        let columns = self.columns(&id)?;
        let to = |outlet: &Outlet| self.to(&outlet.destination, id.clone(), columns.clone());
        Ok(outlets.into_iter().map(to).collect())
    }

    fn released_to(&self, destination: &DestinationName) -> Result<Released, ArrowError> {
        let id = self.id();
        let columns = self.columns(&id)?;
        Ok(self.to(destination, id, columns))
    }

    fn to(&self, destination: &DestinationName, id: String, cells: RecordBatch) -> Released {
        Released {
            id,
            destination: destination.clone(),
            dataset: self.view.dataset.name.clone(),
            gateway: self.closed.gateway.clone(),
            window_start: self.start,
            window_end: self.end,
            policy: self.policy,
            cells,
            reduced: None,
        }
    }

    /// What a line says.
    fn said(&self, line: &Line<'_>) -> Said {
        let mut writer = Writer::default();
        (0..self.view.metrics.len()).for_each(|metric| hashed(&self.value(metric, line), &mut writer));
        if self.view.dataset.tells_contributors {
            hashed(&contributors(line), &mut writer);
        }
        Said { number: line.number, values: Fingerprint::of(&writer.finish()), windows: self.windows(line) }
    }

    /// How many windows a line covers: those of the row that covers most.
    fn windows(&self, line: &Line<'_>) -> u64 {
        let ClosedWindow { deferral: Some(deferral), window, .. } = self.closed else { return 1 };
        let covers = |row: &Row<'_>| match row.given_up {
            [] => deferral.covers(*window, row.cells.number(row.slot)),
            _ => deferral.covers_at_most(*window),
        };
        line.rows.iter().map(covers).max().unwrap_or(1)
    }

    /// The value of a metric of a line, null when it may not leave.
    fn value(&self, metric: usize, line: &Line<'_>) -> Value {
        let at = self.view.metrics.get(metric);
        let value = at.map_or(Value::Null, |at| coarser::value(self.closed.dataset, *at, line.rows));
        match self.view.dataset.metrics.get(metric).and_then(|metric| metric.digits) {
            Some(digits) => value.rounded(digits),
            None => value,
        }
    }

    /// How the keys of a line are written.
    fn labels(&self, line: &Line<'_>) -> Vec<String> {
        let dataset = self.closed.dataset;
        let positions = positions_of(dataset, line.number as usize);
        // Of rows that are added up, all have the same.
        let given_up = |index: &usize| line.rows.first().is_some_and(|row| row.given_up.contains(index));
        let label = |index: &usize| match (dataset.keys.get(*index), positions.get(*index)) {
            (Some(key), Some(position)) if !given_up(index) => key.domain.label(*position),
            _ => REST.to_owned(),
        };
        self.view.keys.iter().map(label).collect()
    }

    /// The first 128 bits of SHA-256 over gateway, dataset, window, part, policy and the cells: the same records
    /// give the same id, and whatever differs has another one.
    fn id(&self) -> String {
        let dataset = self.view.dataset;
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
        writer.text(self.closed.gateway).text(&dataset.name);
        writer.i64(self.start).i64(self.end).u64(self.closed.part).raw(self.policy.bytes());
        for name in dataset.keys.iter().map(|key| &key.name).chain(dataset.metrics.iter().map(|metric| &metric.name)) {
            writer.text(name);
        }
        writer.count(self.lines.len());
        for line in &self.lines {
            if cells_wait || dataset.only_on_change {
                writer.u64(self.windows(line));
            }
            if dataset.only_on_change {
                writer.text(line.change.map_or("", Change::name));
            }
            self.labels(line).iter().for_each(|label| {
                writer.text(label);
            });
            for metric in 0..dataset.metrics.len() {
                hashed(&self.value(metric, line), &mut writer);
            }
            if dataset.tells_contributors {
                hashed(&contributors(line), &mut writer);
            }
        }
        Sha256::digest(writer.finish()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    fn columns(&self, id: &str) -> Result<RecordBatch, ArrowError> {
        let (gateway, dataset) = (self.closed.gateway, self.view.dataset);
        let (policy, start, end) = (self.policy, self.start, self.end);
        let head = Head { id, gateway, dataset, policy, start, end };
        let labels: Vec<Vec<String>> = self.lines.iter().map(|line| self.labels(line)).collect();
        let labels =
            |index: usize, _: &KeyDomain| labels.iter().filter_map(|labels| labels.get(index).cloned()).collect();
        let values = |metric| self.lines.iter().map(|line| self.value(metric, line)).collect::<Vec<_>>();
        let windows: Vec<u64> = self.lines.iter().map(|line| self.windows(line)).collect();
        let changes: Vec<Change> = self.lines.iter().filter_map(|line| line.change).collect();
        let contributors: Vec<Value> = self.lines.iter().map(contributors).collect();
        assemble(&head, (&windows, &changes, &contributors), labels, values)
    }
}

/// How many contributors a line's cell has at least. Null where that is not told, and of a cell that is gone.
fn contributors(line: &Line<'_>) -> Value {
    line.rows.first().and_then(|row| row.contributors).map_or(Value::Null, Value::Count)
}

/// The columns that every release has: what is the same in all its cells. Keys and metrics come after them, and before those
/// [`WINDOWS`] where cells wait, and [`CHANGE`] where only what has changed is told. Where it is told how many contributors
/// there are at least, [`CONTRIBUTORS`] stands between keys and metrics.
pub const RELEASE_COLUMNS: [&str; 6] = ["release", "gateway", "dataset", "policy", "window_start", "window_end"];

/// What a release says of each of its cells.
pub(super) struct Head<'h> {
    pub(super) id: &'h str,
    pub(super) gateway: &'h str,
    pub(super) dataset: &'h Dataset,
    pub(super) policy: Digest,
    pub(super) start: i64,
    pub(super) end: i64,
}

/// The columns of a release of cells that cover so many windows each, change what was told before like this, and have so many
/// contributors at least, where that is told: `labels` gives those of a key, `values` those of a metric.
pub(super) fn assemble(
    head: &Head<'_>,
    (windows, changes, contributors): (&[u64], &[Change], &[Value]),
    labels: impl Fn(usize, &KeyDomain) -> Vec<String>,
    values: impl Fn(usize) -> Vec<Value>,
) -> Result<RecordBatch, ArrowError> {
    let rows = windows.len();
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    let mut add = |name: &str, is_nullable: bool, column: ArrayRef| {
        fields.push(Field::new(name, column.data_type().clone(), is_nullable));
        columns.push(column);
    };
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values((0..rows).map(|_| text))) };
    let time =
        |time: i64| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from_value(time, rows).with_timezone("UTC")) };
    let [release, gateway, dataset, policy, start, end] = RELEASE_COLUMNS;
    add(release, false, text(head.id));
    add(gateway, false, text(head.gateway));
    add(dataset, false, text(&head.dataset.name));
    add(policy, false, text(&head.policy.to_string()));
    add(start, false, time(head.start));
    add(end, false, time(head.end));
    if head.dataset.max_defer > 0 {
        let windows = windows.iter().map(|windows| i64::try_from(*windows).unwrap_or(i64::MAX));
        add(WINDOWS, false, Arc::new(Int64Array::from_iter_values(windows)));
    }
    if head.dataset.only_on_change {
        add(CHANGE, false, Arc::new(StringArray::from_iter_values(changes.iter().map(|change| change.name()))));
    }
    for (index, key) in head.dataset.keys.iter().enumerate() {
        add(&key.name, false, Arc::new(StringArray::from_iter_values(labels(index, &key.domain))));
    }
    if head.dataset.tells_contributors {
        add(CONTRIBUTORS, true, metric_column(&Function::Count, contributors, true));
    }
    for (index, metric) in head.dataset.metrics.iter().enumerate() {
        // Of a cell that is gone, all are null.
        let is_nullable = head.dataset.only_on_change || !matches!(metric.function, Function::Count);
        add(&metric.name, is_nullable, metric_column(&metric.function, &values(index), is_nullable));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
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

fn metric_column(function: &Function, values: &[Value], is_nullable: bool) -> ArrayRef {
    let count = |count: &u64| i64::try_from(*count).unwrap_or(i64::MAX);
    match function {
        Function::Count => {
            let counts = values.iter().map(|value| match value {
                Value::Count(records) => Some(count(records)),
                Value::Null | Value::Number(_) | Value::Counts(_) => (!is_nullable).then_some(0),
            });
            Arc::new(counts.collect::<Int64Array>())
        }
        Function::Histogram { .. } => {
            let mut lists =
                ListBuilder::new(Int64Builder::new()).with_field(Field::new_list_field(DataType::Int64, true));
            for value in values {
                if let Value::Counts(counts) = value {
                    counts.iter().for_each(|of_range| lists.values().append_option(of_range.as_ref().map(count)));
                }
                lists.append(matches!(value, Value::Counts(_)));
            }
            Arc::new(lists.finish())
        }
        Function::Sum(_) | Function::Mean(_) | Function::Variance(_) | Function::Fraction { .. } => {
            let number = |value: &Value| if let Value::Number(number) = value { Some(*number) } else { None };
            Arc::new(values.iter().map(number).collect::<Float64Array>())
        }
    }
}

#[cfg(test)]
mod tests;
