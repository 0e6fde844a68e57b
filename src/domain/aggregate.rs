//! Mergeable cells: exact counts, exact sums and exact sets of contributors.
//!
//! Sums and sums of squares are integers ([`moments`]). Addition of integers is associative, so a cell is the same to
//! the last bit whatever the order of the records, the size of the batches or the number of workers.
//!
//! Contributors are kept as 128-bit SipHash-1-3 values under a secret key: the count of distinct
//! ones is exact but for collisions of probability below 2^-80 per billion contributors, and no
//! identifier is held. For a field that a record may be without, the contributors with and without a value are kept
//! apart ([`contributors`]): k must hold for both. A set ends when it has as many as any rule asks for ([`ENOUGH`]).

#![allow(
    clippy::indexing_slicing,
    reason = "hot loops; the cells themselves make the slots and rows that they index with"
)]

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::ArrayRef;

use super::dataset::{Dataset, Function};
use super::policy::Digest;

mod checkpoint;
mod columns;
mod contributors;
mod moments;
mod open_bytes;
mod slots;
mod state;
mod wide;

pub use checkpoint::as_version_1;
pub use contributors::{Contributor, ContributorKey, ENOUGH};
pub use open_bytes::{Full, OpenBytes, Reserved, most_added};

use columns::{fold_histogram, fold_moments, fold_shares, has_value};
use contributors::{Contributors, Presence};
use open_bytes::{Charge, cell_bytes, cells_bytes};
use slots::Slots;
use state::{Share, State};

/// The open cells of one window of one dataset.
pub struct Cells {
    /// The slot of each cell number; slots are given out as cells appear.
    slots: Slots,
    /// The cell number of each slot.
    numbers: Vec<u32>,
    records: Vec<u64>,
    contributors: Vec<Contributors>,
    metrics: Vec<State>,
    /// The fields of metrics that a record may be without.
    optional: Vec<Optional>,
    /// The policies that the records were decided under.
    policies: BTreeSet<Digest>,
    /// Bytes of a cell without its sets.
    cell_bytes: usize,
    /// Bytes of all sets of contributors.
    set_bytes: usize,
    /// So many contributors are enough: [`ENOUGH`], fewer in tests.
    enough: usize,
    charge: Charge,
}

/// Who has a value in a field that a record may be without, per slot. Metrics of the same field share it.
struct Optional {
    column: usize,
    presences: Vec<Presence>,
}

/// The records of a batch that go into one window.
pub enum Rows<'r> {
    /// All of them.
    All,
    /// These positions.
    Some(&'r [u32]),
}

impl Rows<'_> {
    fn each(&self, total: usize, mut visit: impl FnMut(usize)) {
        match self {
            Self::All => (0..total).for_each(visit),
            Self::Some(rows) => rows.iter().for_each(|&row| visit(row as usize)),
        }
    }
}

/// Columns of scored records, with what folding needs of them computed once.
pub struct Foldable<'b> {
    /// The stream's fields, then the model's outputs.
    pub columns: &'b [ArrayRef],
    /// The hashed contributor of each record.
    pub contributors: &'b [Contributor],
    /// The cell number of each record, by [`cell_numbers`].
    pub cells: &'b [u32],
}

/// The number of the cell that each record of a batch belongs to.
#[must_use]
pub fn cell_numbers(dataset: &Dataset, columns: &[ArrayRef], rows: usize) -> Vec<u32> {
    let mut numbers = vec![0; rows];
    let mut stride = 1;
    for key in &dataset.keys {
        if let Some(column) = columns.get(key.column) {
            key.domain.add_positions(column, stride, &mut numbers);
        }
        stride *= u32::try_from(key.domain.size()).unwrap_or(1);
    }
    numbers
}

impl Cells {
    /// No cells yet.
    #[must_use]
    pub fn new(dataset: &Dataset) -> Self {
        Self::up_to(dataset, ENOUGH)
    }

    /// No cells yet, whose sets end at so many contributors.
    fn up_to(dataset: &Dataset, enough: usize) -> Self {
        let total = dataset.keys.iter().map(|key| key.domain.size()).product();
        let (metrics, optional) = (State::of(dataset), Optional::of(dataset));
        Self {
            slots: Slots::new(total),
            numbers: Vec::new(),
            records: Vec::new(),
            contributors: Vec::new(),
            cell_bytes: cell_bytes(&metrics, optional.len()),
            metrics,
            optional,
            policies: BTreeSet::new(),
            set_bytes: 0,
            enough,
            charge: Charge::default(),
        }
    }

    /// From now on what this holds counts among what all open windows hold.
    #[must_use]
    pub fn counted_in(mut self, open: &Arc<OpenBytes>) -> Self {
        self.charge.to(open, self.bytes());
        self
    }

    /// Adds records.
    pub fn fold(&mut self, dataset: &Dataset, records: &Foldable<'_>, rows: &Rows<'_>) {
        let slots = if self.optional.is_empty() {
            self.place(records, rows, |cells, slot, contributor| {
                cells.add_contributor(slot, contributor);
            })
        } else {
            self.place_with_optional(records, rows)
        };
        for (metric, state) in dataset.metrics.iter().zip(&mut self.metrics) {
            let column = |position: usize| records.columns.get(position);
            match (&metric.function, state) {
                (
                    Function::Sum(measure) | Function::Mean(measure) | Function::Variance(measure),
                    State::Moments(moments),
                ) => {
                    if let Some(column) = column(measure.source.column) {
                        fold_moments(measure, column, rows, &slots, moments);
                    }
                }
                (Function::Histogram { source, edges }, State::Histogram { buckets, counts }) => {
                    if let Some(column) = column(source.column) {
                        fold_histogram(edges, *buckets, column, rows, &slots, counts);
                    }
                }
                (Function::Fraction { source, equals }, State::Shares(shares)) => {
                    if let Some(column) = column(source.column) {
                        fold_shares(equals, column, rows, &slots, shares);
                    }
                }
                _ => {}
            }
        }
        self.charge.set(self.bytes());
    }

    /// Counts the records, and calls `visit` with the slot and the contributor of each. Their slots.
    #[inline]
    fn place(
        &mut self,
        records: &Foldable<'_>,
        rows: &Rows<'_>,
        mut visit: impl FnMut(&mut Self, usize, Contributor),
    ) -> Vec<u32> {
        let total = records.cells.len();
        let mut slots = Vec::with_capacity(total);
        rows.each(total, |row| {
            let (Some(&number), Some(&contributor)) = (records.cells.get(row), records.contributors.get(row)) else {
                return;
            };
            let slot = self.slot(number);
            slots.push(slot as u32);
            self.records[slot] += 1;
            visit(self, slot, contributor);
        });
        slots
    }

    /// Counts the records and their contributors, and who has no value in a field that a record may be without.
    fn place_with_optional(&mut self, records: &Foldable<'_>, rows: &Rows<'_>) -> Vec<u32> {
        let mut placed = Vec::new();
        let slots = self.place(records, rows, |_, _, contributor| placed.push(contributor));
        let each = || slots.iter().map(|slot| *slot as usize).zip(placed.iter().copied());
        // Before this batch's contributors are added: until now all of a cell have a value, unless it is split.
        for optional in &mut self.optional {
            let Some(column) = records.columns.get(optional.column) else { continue };
            let has_value = has_value(column);
            let mut given = Vec::with_capacity(slots.len());
            rows.each(records.cells.len(), |row| {
                given.push(has_value.as_ref().is_none_or(|has_value| row < has_value.len() && has_value.value(row)));
            });
            if given.contains(&false) {
                for ((slot, contributor), _) in each().zip(&given).filter(|(_, given)| !**given) {
                    let (presence, all) = (&mut optional.presences[slot], &self.contributors[slot]);
                    let before = presence.bytes(all);
                    if let Some(split) = presence.split(all) {
                        split.without.insert(contributor, self.enough);
                    }
                    self.set_bytes = self.set_bytes + presence.bytes(all) - before;
                }
            }
            for ((slot, contributor), _) in each().zip(&given).filter(|(_, given)| **given) {
                if let Presence::Split(split) = &mut optional.presences[slot] {
                    let before = split.with.bytes();
                    split.with.insert(contributor, self.enough);
                    self.set_bytes = self.set_bytes + split.with.bytes() - before;
                }
            }
        }
        for (slot, contributor) in each() {
            self.add_contributor(slot, contributor);
        }
        slots
    }

    #[inline]
    fn add_contributor(&mut self, slot: usize, contributor: Contributor) {
        let contributors = &mut self.contributors[slot];
        if matches!(contributors, Contributors::Enough) {
            return;
        }
        let before = contributors.bytes();
        if contributors.insert(contributor, self.enough) {
            // The room that a first record without a value would take changes with it.
            let whole = self.optional.iter().filter(|optional| !matches!(optional.presences[slot], Presence::Split(_)));
            let copies = 1 + whole.count();
            self.set_bytes = self.set_bytes + copies * contributors.bytes() - copies * before;
        }
    }

    /// Bytes of the sets of a slot.
    fn sets_of(&self, slot: usize) -> usize {
        let all = &self.contributors[slot];
        all.bytes() + self.optional.iter().map(|optional| optional.presences[slot].bytes(all)).sum::<usize>()
    }

    /// Some of the records were decided under this policy.
    pub fn decided_under(&mut self, policy: Digest) {
        self.policies.insert(policy);
    }

    /// The policies that the records were decided under.
    #[must_use]
    pub fn policies(&self) -> &BTreeSet<Digest> {
        &self.policies
    }

    /// Adds the cells of another part of the same window.
    pub fn merge(&mut self, other: Self) {
        self.policies.extend(other.policies.iter().copied());
        let places: Vec<usize> = other.numbers.iter().map(|number| self.slot(*number)).collect();
        for (&slot, records) in places.iter().zip(&other.records) {
            self.records[slot] += records;
        }
        for (mine, theirs) in self.metrics.iter_mut().zip(&other.metrics) {
            mine.merge(theirs, &places);
        }
        let held = |cells: &Self| places.iter().map(|&slot| cells.sets_of(slot)).sum::<usize>();
        let before = held(self);
        for (mine, theirs) in self.optional.iter_mut().zip(other.optional) {
            for ((&slot, presence), others) in places.iter().zip(theirs.presences).zip(&other.contributors) {
                mine.presences[slot].merge(&self.contributors[slot], presence, others, self.enough);
            }
        }
        for (&slot, contributors) in places.iter().zip(other.contributors) {
            self.contributors[slot].merge(contributors, self.enough);
        }
        self.set_bytes = self.set_bytes + held(self) - before;
        self.charge.set(self.bytes());
    }

    /// How many cells hold a record.
    #[must_use]
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether no cell holds a record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The slots, in the order of their cell numbers.
    pub(super) fn in_order(&self) -> Vec<usize> {
        let mut slots: Vec<usize> = (0..self.numbers.len()).collect();
        slots.sort_by_key(|&slot| self.numbers[slot]);
        slots
    }

    /// Whether a slot's cell has at least so many distinct contributors. Of more than [`ENOUGH`] it is not known: no.
    pub(super) fn has(&self, slot: usize, least: usize) -> bool {
        self.contributors[slot].at_least(least, self.enough)
    }

    /// The positions of a slot's cell in the domains of the dataset's keys.
    pub(super) fn key_positions(&self, dataset: &Dataset, slot: usize) -> Vec<usize> {
        let mut number = self.numbers[slot] as usize;
        let positions = dataset.keys.iter().map(|key| {
            let size = key.domain.size();
            let position = number % size;
            number /= size;
            position
        });
        positions.collect()
    }

    /// The value of a metric of a slot that may leave when the cell has at least `least` contributors. Null when it may
    /// not, and when there is none: which of both cannot be told.
    pub(super) fn value(&self, dataset: &Dataset, metric: usize, slot: usize, least: usize) -> Value {
        let state = match &self.metrics[metric] {
            State::Same(first) => &self.metrics[*first],
            state => state,
        };
        let function = &dataset.metrics[metric].function;
        if !self.holds(function, state, slot, least) {
            return Value::Null;
        }
        let number =
            |number: Option<f64>| number.filter(|number| number.is_finite()).map_or(Value::Null, Value::Number);
        match (function, state) {
            (Function::Sum(measure), State::Moments(moments)) => number(moments[slot].sum(measure)),
            (Function::Mean(measure), State::Moments(moments)) => number(moments[slot].mean(measure)),
            (Function::Variance(measure), State::Moments(moments)) => number(moments[slot].variance(measure)),
            (Function::Histogram { .. }, State::Histogram { buckets, counts }) => {
                Value::Counts(counts[slot * buckets..(slot + 1) * buckets].to_vec())
            }
            (Function::Fraction { .. }, State::Shares(shares)) => {
                let Share { values, matches } = shares[slot];
                number((values > 0).then(|| matches as f64 / values as f64))
            }
            _ => Value::Count(self.records[slot]),
        }
    }

    /// Whether k holds for a metric of a slot: [`Presence::holds`]. Of a field that every record has, every record must
    /// have counted; the sets of contributors are not kept for it.
    fn holds(&self, function: &Function, state: &State, slot: usize, least: usize) -> bool {
        let Some(source) = function.source() else { return true };
        match self.optional.iter().find(|optional| optional.column == source.column) {
            Some(optional) => optional.presences[slot].holds(least, self.enough),
            None => state.values(slot) == self.records[slot],
        }
    }

    #[inline]
    fn slot(&mut self, number: u32) -> usize {
        match self.slots.get(number) {
            Some(slot) => slot,
            None => self.appear(number),
        }
    }

    /// A cell appears.
    fn appear(&mut self, number: u32) -> usize {
        let slot = self.numbers.len();
        self.slots.insert(number, slot);
        self.numbers.push(number);
        self.records.push(0);
        self.contributors.push(Contributors::default());
        for state in &mut self.metrics {
            state.appear();
        }
        for optional in &mut self.optional {
            optional.presences.push(Presence::default());
        }
        slot
    }

    /// About how many bytes of memory this holds, and never less: see [`OpenBytes`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        cells_bytes(self.numbers.len(), self.cell_bytes) + self.set_bytes
    }
}

impl Optional {
    /// The fields of a dataset's metrics that a record may be without, each once, in the order of the metrics.
    fn of(dataset: &Dataset) -> Vec<Self> {
        let mut optional: Vec<Self> = Vec::new();
        let sources = dataset.metrics.iter().filter_map(|metric| metric.function.source());
        for source in sources.filter(|source| source.may_be_missing) {
            if optional.iter().all(|known| known.column != source.column) {
                optional.push(Self { column: source.column, presences: Vec::new() });
            }
        }
        optional
    }
}

/// The value of one metric of one cell.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// None, or none that may leave.
    Null,
    /// A count of records.
    Count(u64),
    /// A finite number.
    Number(f64),
    /// The counts of a histogram.
    Counts(Vec<u64>),
}

#[cfg(test)]
mod tests;
