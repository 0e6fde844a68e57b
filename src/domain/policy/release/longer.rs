//! Longer windows: a dataset adds up what leaves of a finer one, over several of its windows.
//!
//! A row of such a dataset is the sum of all rows of the finer one that agree in its keys, of all windows in the longer one.
//! Windows have no record in common, and neither have the parts of one that were flushed. So it tells nothing that these rows
//! do not tell, as [a coarser dataset](super::coarser) does not: that is true whether rows are of one window or of several.
//!
//! The rows leave one window after the other, and their sum with the last of them. What was added up until then is kept with
//! the closings in the outbox, each time as a whole: a closing is there with what it added, or neither is, and it is done
//! again. What a row may not tell is not kept.
//!
//! **Which policies hold.** A sum goes where all policies let it go that any of its records was decided under, or any of its
//! rows left under, and those in force when it leaves. Its rows were judged when they left. If more is asked of cells now than
//! was asked of any of them then, the sum does not leave.

use std::collections::{BTreeMap, BTreeSet};

use arrow_schema::ArrowError;

use super::coarser::{Agree, GIVEN_UP, added_up, measured};
use super::rolled::{Row, Rule};
use super::steps::Steps;
use super::{Leaving, Line, Released, strictest_of, values};
use crate::domain::aggregate::{Measured, PartRule, Value};
use crate::domain::binary::{Reader, Writer};
use crate::domain::dataset::{Dataset, GroupKey, REST, View};
use crate::domain::digest::Digest;
use crate::domain::name::{DatasetName, GatewayId};
use crate::domain::policy::Outlet;
use crate::domain::table::Fingerprint;
use crate::domain::window::{micros, window_of, window_start};

/// What each metric of a dataset comes to, in one row. `None`: it may not leave of one of the rows that are added up.
type Metrics = Vec<Option<Measured>>;

/// What the rows of one window add to a dataset with longer windows.
#[derive(Debug)]
pub struct Added {
    dataset: DatasetName,
    /// What was asked of the rows.
    rule: Rule,
    rows: BTreeMap<Agree, Metrics>,
}

/// What was added up of the datasets with longer windows that share their cells.
#[derive(Debug, Clone, PartialEq)]
pub struct Longer {
    /// How the cells are counted.
    counted_as: Fingerprint,
    /// By dataset and the number of its window.
    open: BTreeMap<(DatasetName, i64), Sum>,
}

#[derive(Debug, Clone, PartialEq)]
struct Sum {
    policies: BTreeSet<Digest>,
    /// What was asked of each of the rows, at least.
    rule: Rule,
    rows: BTreeMap<Agree, Metrics>,
}

/// A longer window that has ended, with what was added up in it.
#[derive(Debug)]
pub struct Ended {
    dataset: DatasetName,
    window: i64,
    sum: Sum,
}

impl Added {
    pub(super) fn of(counted: &Dataset, view: &View<'_>, rows: &[Row<'_>], rule: Rule) -> Self {
        let metrics =
            |rows: Vec<Row<'_>>| view.metrics.iter().map(|metric| measured(counted, *metric, &rows)).collect();
        let sums = added_up(counted, rows, &view.keys, None);
        let rows = sums.into_iter().map(|(agree, rows)| (agree, metrics(rows))).collect();
        Self { dataset: view.dataset.name.clone(), rule, rows }
    }
}

impl Longer {
    /// Nothing is added up yet. `None`: no dataset has longer windows than are counted.
    #[must_use]
    pub fn new(counted: &Dataset) -> Option<Self> {
        let has_longer = counted.views().iter().any(|view| view.is_longer(counted));
        has_longer.then(|| Self { counted_as: Fingerprint::of_shape(counted), open: BTreeMap::new() })
    }

    /// Whether nothing is added up.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Rows leave of a window that begins at a time, under these policies.
    pub fn add(&mut self, counted: &Dataset, start: i64, added: Vec<Added>, policies: &BTreeSet<Digest>) {
        for Added { dataset, rule, rows } in added {
            let Some(view) = counted.views().into_iter().find(|view| view.dataset.name == dataset) else { continue };
            let window = window_of(start, view.dataset.window);
            let new = || Sum { policies: BTreeSet::new(), rule, rows: BTreeMap::new() };
            let sum = self.open.entry((dataset, window)).or_insert_with(new);
            sum.policies.extend(policies);
            sum.rule = (sum.rule.0.laxer(rule.0), sum.rule.1.min(rule.1));
            for (agree, metrics) in rows {
                match sum.rows.entry(agree) {
                    std::collections::btree_map::Entry::Vacant(entry) => {
                        entry.insert(metrics);
                    }
                    std::collections::btree_map::Entry::Occupied(mut entry) => {
                        for (sum, of_rows) in entry.get_mut().iter_mut().zip(metrics) {
                            *sum = sum.take().zip(of_rows).and_then(|(sum, of_rows)| sum.plus(of_rows));
                        }
                    }
                }
            }
        }
    }

    /// The windows that have ended when all windows that are counted and began before a time have closed. `None`: all of them,
    /// as they are.
    pub fn ended(&mut self, counted: &Dataset, before: Option<i64>) -> Vec<Ended> {
        let views = counted.views();
        let has_ended = |(dataset, window): &(DatasetName, i64)| {
            let view = views.iter().find(|view| view.dataset.name == *dataset);
            let end = view.map(|view| window_start(window.saturating_add(1), view.dataset.window));
            before.is_none_or(|before| end.is_none_or(|end| end <= before))
        };
        let (ended, open) = std::mem::take(&mut self.open).into_iter().partition(|(at, _)| has_ended(at));
        self.open = open;
        let ended: BTreeMap<_, _> = ended;
        ended.into_iter().map(|((dataset, window), sum)| Ended { dataset, window, sum }).collect()
    }

    /// What the outbox says was added up, if the cells were counted in the same way then.
    pub fn heard(&mut self, said: Self) {
        if said.counted_as == self.counted_as {
            *self = said;
        }
    }

    /// What was added up is not known.
    pub fn forget(&mut self) {
        self.open.clear();
    }

    /// Adds it to an entry of the outbox.
    pub fn encode(&self, writer: &mut Writer) {
        writer.raw(self.counted_as.bytes()).count(self.open.len());
        for ((dataset, window), Sum { policies, rule: (parts, least), rows }) in &self.open {
            writer.text(dataset).i64(*window).count(policies.len());
            policies.iter().for_each(|policy| {
                writer.raw(policy.bytes());
            });
            parts.encode(writer);
            writer.u32(u32::try_from(*least).unwrap_or(u32::MAX)).count(rows.len());
            for (agree, metrics) in rows {
                writer.count(agree.len());
                agree.iter().for_each(|position| {
                    writer.u32(*position);
                });
                writer.count(metrics.len());
                metrics.iter().for_each(|metric| Measured::encode(metric.as_ref(), writer));
            }
        }
    }

    /// Reads it from one.
    pub fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let counted_as = Fingerprint::from_bytes(reader.array()?);
        let mut open = BTreeMap::new();
        for _ in 0..reader.count(8)? {
            let (dataset, window) = (DatasetName::new(reader.text()?).ok()?, reader.i64()?);
            let policies =
                (0..reader.count(32)?).map(|_| Some(Digest::from_bytes(reader.array()?))).collect::<Option<_>>()?;
            let rule = (PartRule::decode(reader)?, reader.u32()? as usize);
            let mut rows = BTreeMap::new();
            for _ in 0..reader.count(16)? {
                let agree = (0..reader.count(4)?).map(|_| reader.u32()).collect::<Option<_>>()?;
                let metrics = (0..reader.count(1)?).map(|_| Measured::decode(reader)).collect::<Option<_>>()?;
                rows.insert(agree, metrics);
            }
            open.insert((dataset, window), Sum { policies, rule, rows });
        }
        Some(Self { counted_as, open })
    }
}

#[cfg(test)]
impl Longer {
    /// One with every kind of what a metric can come to.
    pub(crate) fn sample() -> Self {
        let mut moments = Writer::default();
        moments.u8(2).u64(3).i128(-5).u128(7).u64(1);
        let moments = Measured::decode(&mut Reader::new(&moments.finish())).unwrap();
        let metrics = vec![Some(Measured::Records(12)), moments, None, Some(Measured::Parts(vec![Some(12), None]))];
        let parts = PartRule { least: 5, not_empty: true, percent: 10, beyond_one: false, beside: 500 };
        let rows = [(vec![1, GIVEN_UP], metrics.clone()), (vec![2, 0], metrics)].into();
        let sum = Sum { policies: [Digest::from_bytes([7; 32])].into(), rule: (parts, 10), rows };
        Self { counted_as: Fingerprint::from_bytes([9; 16]), open: [(("hours".parse().unwrap(), -4), sum)].into() }
    }
}

impl Ended {
    /// The dataset whose window it is.
    #[must_use]
    pub fn dataset(&self) -> &DatasetName {
        &self.dataset
    }

    /// What its records were decided under, and its rows left under.
    #[must_use]
    pub fn policies(&self) -> &BTreeSet<Digest> {
        &self.sum.policies
    }

    /// When it began, in microseconds since the Unix epoch.
    #[must_use]
    pub fn start(&self, counted: &Dataset) -> i64 {
        let view = counted.views().into_iter().find(|view| view.dataset.name == self.dataset);
        view.map_or(0, |view| window_start(self.window, view.dataset.window))
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

/// Releases the sums of a longer window that has ended to those of these outlets that are of its dataset. `part` as that of
/// [`super::ClosedWindow`].
///
/// # Errors
/// As those of [`super::release`].
pub fn release_longer(
    (gateway, counted): (&GatewayId, &Dataset),
    ended: &Ended,
    part: u64,
    outlets: &[Outlet],
    policy: Digest,
) -> Result<Vec<Released>, ArrowError> {
    let views = counted.views();
    let Some(view) = views.iter().find(|view| view.dataset.name == ended.dataset) else { return Ok(Vec::new()) };
    let quiet = || outlets.iter().filter(|outlet| outlet.privacy.is_none());
    // Somebody can be in several of the rows: of all of them it is only known that each has as many as were asked for.
    let steps = Steps::of(counted, quiet(), &[ended.sum.rule].into());
    let contributors = steps.told_of_remainder(ended.sum.rule.1).map_or(Value::Null, Value::Count);
    let line = |(number, (agree, metrics)): (u32, (&Agree, &Metrics))| Line {
        number,
        labels: labels(view, agree),
        values: values(view.dataset, |at, function| metrics.get(at)?.clone().map(|sum| sum.value(function))),
        contributors: contributors.clone(),
        windows: 1,
        change: None,
    };
    let lines = (0..).zip(&ended.sum.rows).map(line).collect();
    let start = ended.start(counted);
    let end = start.saturating_add(micros(view.dataset.window));
    let leaving = Leaving { gateway, dataset: view.dataset, start, end, part, policy, lines };
    let to = quiet().filter(|outlet| outlet.dataset == ended.dataset);
    leaving.released(to.map(|outlet| &outlet.destination))
}

/// How the keys of a row are written.
fn labels(view: &View<'_>, agree: &[u32]) -> Vec<String> {
    let label = |(key, position): (&GroupKey, &u32)| match *position {
        GIVEN_UP => REST.to_owned(),
        position => key.domain.label(position as usize),
    };
    view.dataset.keys.iter().zip(agree.iter().rev()).map(label).collect()
}
