//! Longer windows: a dataset adds up what leaves of a finer one, over several of its windows.
//!
//! A row of such a dataset is the sum of all rows of the finer one that agree in its keys, of all windows in the longer one.
//! Windows have no record in common, and neither have the parts of one that were flushed. So it tells nothing that these rows
//! do not tell, as [a coarser dataset](super::coarser) does not: that is true whether rows are of one window or of several.
//!
//! The rows leave one window after the other, and their sum with the last of them. What was added up until then is a pure state
//! machine, whose inputs are what closings add and end ([`Addition`]): checkpoints have the state, and the outbox has the inputs
//! since. What is withheld of a row is not kept.
//!
//! **Which policies hold.** A sum goes where each of its rows could go when it left, and where all policies let it go now that
//! any of its records was decided under, or any of its rows left under, and those in force. Its rows were judged when they
//! left. If all these policies together ask for more than was asked of any row, the sum does not leave.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use arrow_schema::ArrowError;

use super::coarser::{Agree, GIVEN_UP, added_up, measured};
use super::rolled::{Row, Rule};
use super::steps::Steps;
use super::{ClosedWindow, Leaving, Line, Released, rounding_for, strictest_of, values};
use crate::domain::aggregate::{Measured, PartRule, Value};
use crate::domain::binary::{Reader, Writer};
use crate::domain::dataset::{Dataset, GroupKey, REST, View};
use crate::domain::digest::Digest;
use crate::domain::name::{DatasetName, DestinationName, GatewayId};
use crate::domain::policy::Outlet;
use crate::domain::window::{micros, window_of, window_start};

/// What each metric of a dataset comes to, in one row. `None`: it may not leave of one of the rows that are added up.
type Metrics = Vec<Option<Measured>>;

/// A longer window: its dataset, and its number.
type Window = (DatasetName, i64);

/// Rows that are added up, of one window or of several.
#[derive(Debug, Clone, PartialEq)]
struct Sum {
    /// What was asked of each of the rows, at least.
    rule: Rule,
    /// What their records were decided under, and they left under.
    policies: BTreeSet<Digest>,
    /// Where all of them could go. None: what is added up goes nowhere, and is not kept.
    destinations: BTreeSet<DestinationName>,
    rows: BTreeMap<Agree, Metrics>,
}

/// What the rows of one window add to a longer one.
#[derive(Debug, Clone, PartialEq)]
pub struct Added {
    window: Window,
    sum: Sum,
}

/// What a closing does to the longer windows of the datasets that share its cells.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Addition {
    /// What it adds is all that there is.
    pub is_all: bool,
    /// What it adds.
    pub added: Vec<Added>,
    /// Which windows end with it.
    pub ended: Vec<Window>,
}

/// What was added up of the longer windows that are open, of the datasets that share their cells.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Longer {
    open: BTreeMap<Window, Sum>,
}

/// A longer window that has ended, with what was added up in it.
#[derive(Debug)]
pub struct Ended {
    window: Window,
    sum: Sum,
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.rule = (self.rule.0.laxer(other.rule.0), self.rule.1.min(other.rule.1));
        self.policies.extend(&other.policies);
        self.destinations.retain(|destination| other.destinations.contains(destination));
        if self.destinations.is_empty() {
            return self.rows.clear();
        }
        for (agree, metrics) in &other.rows {
            match self.rows.entry(agree.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert(metrics.clone());
                }
                Entry::Occupied(mut entry) => {
                    for (sum, of_rows) in entry.get_mut().iter_mut().zip(metrics) {
                        *sum = sum.take().zip(of_rows.clone()).and_then(|(sum, of_rows)| sum.plus(of_rows));
                    }
                }
            }
        }
    }

    fn encode(&self, writer: &mut Writer) {
        let (parts, least) = self.rule;
        parts.encode(writer);
        writer.u32(u32::try_from(least).unwrap_or(u32::MAX)).count(self.policies.len());
        self.policies.iter().for_each(|policy| {
            writer.raw(policy.bytes());
        });
        writer.count(self.destinations.len());
        self.destinations.iter().for_each(|destination| {
            writer.text(destination);
        });
        writer.count(self.rows.len());
        for (agree, metrics) in &self.rows {
            writer.count(agree.len());
            agree.iter().for_each(|position| {
                writer.u32(*position);
            });
            writer.count(metrics.len());
            metrics.iter().for_each(|metric| Measured::encode(metric.as_ref(), writer));
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let rule = (PartRule::decode(reader)?, reader.u32()? as usize);
        let policies =
            (0..reader.count(32)?).map(|_| Some(Digest::from_bytes(reader.array()?))).collect::<Option<_>>()?;
        let destinations =
            (0..reader.count(8)?).map(|_| DestinationName::new(reader.text()?).ok()).collect::<Option<_>>()?;
        let mut rows = BTreeMap::new();
        for _ in 0..reader.count(16)? {
            let agree = (0..reader.count(4)?).map(|_| reader.u32()).collect::<Option<_>>()?;
            let metrics = (0..reader.count(1)?).map(|_| Measured::decode(reader)).collect::<Option<_>>()?;
            rows.insert(agree, metrics);
        }
        Some(Self { rule, policies, destinations, rows })
    }
}

fn encode_window((dataset, number): &Window, writer: &mut Writer) {
    writer.text(dataset).i64(*number);
}

fn decode_window(reader: &mut Reader<'_>) -> Option<Window> {
    Some((DatasetName::new(reader.text()?).ok()?, reader.i64()?))
}

impl Added {
    /// Of the rows of a window that leave under the policies in force. Sums of them may go to these destinations.
    pub(super) fn of<'o>(
        closed: &ClosedWindow<'_>,
        in_force: Digest,
        view: &View<'_>,
        rows: &[Row<'_>],
        rule: Rule,
        destinations: impl Iterator<Item = &'o DestinationName>,
    ) -> Self {
        let counted = closed.dataset;
        let metrics =
            |rows: Vec<Row<'_>>| view.metrics.iter().map(|metric| measured(counted, *metric, &rows)).collect();
        let destinations: BTreeSet<DestinationName> = destinations.cloned().collect();
        let rows = if destinations.is_empty() { &[] } else { rows };
        let sums = added_up(counted, rows, &view.keys, None);
        let rows = sums.into_iter().map(|(agree, rows)| (agree, metrics(rows))).collect();
        let policies = closed.cells.policies().iter().copied().chain([in_force]).collect();
        let window = window_of(window_start(closed.window, counted.window), view.dataset.window);
        let sum = Sum { rule, policies, destinations, rows };
        Self { window: (view.dataset.name.clone(), window), sum }
    }
}

impl Addition {
    /// Whether nothing is added, and no window ends.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.is_all && self.added.is_empty() && self.ended.is_empty()
    }

    /// Adds it to an entry of the outbox.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u8(self.is_all.into()).count(self.added.len());
        for Added { window, sum } in &self.added {
            encode_window(window, writer);
            sum.encode(writer);
        }
        writer.count(self.ended.len());
        self.ended.iter().for_each(|window| encode_window(window, writer));
    }

    /// Reads it from one.
    pub fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let is_all = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let added = |reader: &mut Reader<'_>| Some(Added { window: decode_window(reader)?, sum: Sum::decode(reader)? });
        let added = (0..reader.count(16)?).map(|_| added(reader)).collect::<Option<_>>()?;
        let ended = (0..reader.count(16)?).map(|_| decode_window(reader)).collect::<Option<_>>()?;
        Some(Self { is_all, added, ended })
    }
}

impl Longer {
    /// Whether nothing is added up.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Takes in what a closing adds, and which windows ended with it.
    pub fn add(&mut self, addition: &Addition) {
        if addition.is_all {
            self.open.clear();
        }
        for Added { window, sum } in &addition.added {
            match self.open.entry(window.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert(sum.clone());
                }
                Entry::Occupied(mut entry) => entry.get_mut().add(sum),
            }
        }
        for window in &addition.ended {
            self.open.remove(window);
        }
    }

    /// The windows that end with a closing, by which all windows that are counted and began before a time have closed. It is
    /// noted which. `None`: all of them end, as they are.
    #[must_use]
    pub fn ending(&self, counted: &Dataset, before: Option<i64>, addition: &mut Addition) -> Vec<Ended> {
        let views = counted.views();
        let ends = |(dataset, number): &&Window| {
            let view = views.iter().find(|view| view.dataset.name == *dataset);
            let end = view.map(|view| window_start(number.saturating_add(1), view.dataset.window));
            before.is_none_or(|before| end.is_none_or(|end| end <= before))
        };
        let windows = self.open.keys().chain(addition.added.iter().map(|added| &added.window));
        let windows: BTreeSet<Window> = windows.filter(ends).cloned().collect();
        let ended = |window: &Window| {
            let added = addition.added.iter().filter(|added| added.window == *window).map(|added| &added.sum);
            let mut sums = self.open.get(window).into_iter().chain(added);
            let mut sum = sums.next()?.clone();
            sums.for_each(|added| sum.add(added));
            Some(Ended { window: window.clone(), sum })
        };
        let ended = windows.iter().filter_map(ended).collect();
        addition.ended.extend(windows);
        ended
    }

    /// All that was added up, as one entry of the outbox has it.
    #[must_use]
    pub fn all(&self) -> Addition {
        let added = |(window, sum): (&Window, &Sum)| Added { window: window.clone(), sum: sum.clone() };
        Addition { is_all: true, added: self.open.iter().map(added).collect(), ended: Vec::new() }
    }
}

#[cfg(test)]
impl Addition {
    /// One with every kind of what a metric can come to.
    pub(crate) fn sample() -> Self {
        let mut moments = Writer::default();
        moments.u8(2).u64(3).i128(-5).u128(7).u64(1);
        let moments = Measured::decode(&mut Reader::new(&moments.finish())).unwrap();
        let metrics = vec![Some(Measured::Records(12)), moments, None, Some(Measured::Parts(vec![Some(12), None]))];
        let parts = PartRule { least: 5, not_empty: true, percent: 10, beyond_one: false, beside: 500 };
        let rows = [(vec![1, GIVEN_UP], metrics.clone()), (vec![2, 0], metrics)].into();
        let rule = (parts, 10);
        let policies = [Digest::from_bytes([7; 32])].into();
        let sum = Sum { rule, policies, destinations: ["hub".parse().unwrap()].into(), rows };
        let (policies, destinations, rows) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        let empty = Sum { rule, policies, destinations, rows };
        let of = |number, sum| Added { window: ("hours".parse().unwrap(), number), sum };
        Self { is_all: false, added: vec![of(-4, sum), of(-3, empty)], ended: vec![("days".parse().unwrap(), -1)] }
    }
}

impl Ended {
    /// The dataset whose window it is.
    #[must_use]
    pub fn dataset(&self) -> &DatasetName {
        &self.window.0
    }

    /// When it began, in microseconds since the Unix epoch.
    #[must_use]
    pub fn start(&self, counted: &Dataset) -> i64 {
        let (dataset, number) = &self.window;
        let view = counted.views().into_iter().find(|view| view.dataset.name == *dataset);
        view.map_or(0, |view| window_start(*number, view.dataset.window))
    }

    /// What its records were decided under, and its rows left under.
    #[must_use]
    pub fn policies(&self) -> &BTreeSet<Digest> {
        &self.sum.policies
    }

    /// How many rows it has.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.sum.rows.len()
    }

    /// Whether at least as much was asked of each row as is asked for these outlets, of all datasets that share the cells.
    #[must_use]
    pub fn was_asked_enough(&self, counted: &Dataset, outlets: &[Outlet]) -> bool {
        let (parts, least) = self.sum.rule;
        let now = strictest_of(counted, outlets.iter().filter(|outlet| outlet.privacy.is_none()).map(Outlet::rule));
        now.is_none_or(|(parts_now, least_now)| parts.stricter(parts_now) == parts && least >= least_now)
    }
}

/// Releases the sums of a longer window that has ended to those of these outlets that are of its dataset, and that all rows
/// could go to. The outlets are those by all [policies](Ended::policies). Nothing leaves if not
/// [enough was asked](Ended::was_asked_enough) of the rows. `part` as that of [`ClosedWindow`].
///
/// # Errors
/// As those of [`super::release`].
pub fn release_longer(
    gateway: &GatewayId,
    counted: &Dataset,
    ended: &Ended,
    part: u64,
    outlets: &[Outlet],
    policy: Digest,
) -> Result<Vec<Released>, ArrowError> {
    let Sum { rule, destinations, rows, .. } = &ended.sum;
    // The rows were rounded when they left. Policies may ask for more since.
    let rounding = rounding_for(outlets);
    let quiet = || outlets.iter().filter(|outlet| outlet.privacy.is_none());
    let to = quiet().filter(|outlet| outlet.dataset == *ended.dataset()).map(|outlet| &outlet.destination);
    let mut to = to.filter(|destination| destinations.contains(*destination)).peekable();
    let views = counted.views();
    let view = views.iter().find(|view| view.dataset.name == *ended.dataset());
    let Some(view) = view.filter(|_| to.peek().is_some() && ended.was_asked_enough(counted, outlets)) else {
        return Ok(Vec::new());
    };
    // Somebody can be in several of the rows: of all of them it is only known that each has as many as were asked for.
    let steps = Steps::of(counted, quiet(), &[*rule].into(), rounding);
    let contributors = steps.told_of_remainder(rule.1).map_or(Value::Null, Value::Count);
    let line = |(number, (agree, metrics)): (u32, (&Agree, &Metrics))| Line {
        number,
        labels: labels(view, agree),
        values: values(view.dataset, rounding, |at| metrics.get(at)?.clone()),
        contributors: contributors.clone(),
        windows: 1,
        change: None,
    };
    let lines = (0..).zip(rows).map(line).collect();
    let start = ended.start(counted);
    let end = start.saturating_add(micros(view.dataset.window));
    Leaving { gateway, dataset: view.dataset, start, end, part, policy, lines }.released(to)
}

/// How the keys of a row are written.
fn labels(view: &View<'_>, agree: &[u32]) -> Vec<String> {
    let label = |(key, position): (&GroupKey, &u32)| match *position {
        GIVEN_UP => REST.to_owned(),
        position => key.domain.label(position as usize),
    };
    view.dataset.keys.iter().zip(agree.iter().rev()).map(label).collect()
}
