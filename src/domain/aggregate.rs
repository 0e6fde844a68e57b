//! Mergeable cells: exact counts, exact sums and exact sets of contributors.
//!
//! Sums and sums of squares are integers ([`moments`]). Addition of integers is associative, so a cell is the same to
//! the last bit whatever the order of the records, the size of the batches or the number of workers.
//!
//! Contributors are kept as 128-bit SipHash-1-3 values under a secret key: the count of distinct
//! ones is exact but for collisions of probability below 2^-80 per billion contributors, and no
//! identifier is held. Where values are summed, half of the hash says whether somebody is in a set already ([`portions`]): a
//! million contributors of a cell collide with a probability below 2^-24, and then a set has one fewer.
//!
//! A set ends when it has as many as any rule asks for ([`ENOUGH`]). Where metrics part the records of a cell ([`ways`]), the
//! contributors of each combination of parts are kept too: a part leaves only if it has enough of them, and so does every
//! number of some of the records that can be made of what leaves ([`plan`], [`safe`]). Where a rule asks for it, who brought
//! each contributor is kept as well ([`brought`]).

#![allow(
    clippy::indexing_slicing,
    reason = "hot loops; the cells themselves make the slots and rows that they index with"
)]

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::ArrayRef;

use super::dataset::{Bounds, Dataset, Function};
use super::policy::Digest;
use crate::planted::planted;

mod brought;
mod checkpoint;
mod columns;
mod contributors;
mod hashed;
mod moments;
mod numbers;
mod off_ends;
mod off_most;
mod open_bytes;
mod parted;
mod plan;
mod points;
mod portions;
mod producer_sums;
mod rolled;
mod rows;
mod rule;
mod safe;
mod sample;
mod slots;
mod snapshot;
mod some;
mod squares;
mod state;
mod summed;
mod value;
mod ways;
mod wide;
mod work;

pub use brought::Producer;
pub use checkpoint::{Saved, as_version_1};
pub use contributors::ENOUGH;
pub use hashed::{Contributor, ContributorKey};
pub(super) use numbers::positions_of;
pub use numbers::{cells_of, integers_of};
pub(super) use open_bytes::Charge;
pub use open_bytes::{Full, OpenBytes, Reserved, most_added};
pub(super) use plan::Plan;
pub use rows::Rows;
pub use rule::PartRule;
pub use sample::{Lot, Request};
pub(super) use value::Measured;
pub use value::{Value, plus};
pub use ways::{COMBINATIONS_MAX, combinations};

use brought::Origin;
use columns::each_summed;
use contributors::{Contributors, at_least, enough_of};
use hashed::Change;
use open_bytes::{cell_bytes, cells_bytes, plan_bytes, planning_bytes};
use parted::{Parted, Sets};
use points::points_bytes;
use portions::{Place, Portions, key};
use producer_sums::{ProducerSums, Summed};
use rows::each_contributor;
use sample::Sample;
use slots::Slots;
use snapshot::Snapshot;
use state::State;
use ways::{By, combinations_of, parts_of, way_of, ways};

/// The open cells of one window of one dataset.
pub struct Cells {
    /// The slot of each cell number; slots are given out as cells appear.
    slots: Slots,
    /// The cell number of each slot.
    numbers: Vec<u32>,
    records: Vec<u64>,
    /// Those of cells whose records are not kept by their combinations.
    contributors: Vec<Contributors>,
    metrics: Vec<State>,
    /// The records of each slot by their combinations of parts; empty where no metric parts them.
    parted: Vec<Parted>,
    /// Whether a metric does.
    is_parted: bool,
    /// What the contributors of each slot add to its sums; empty where nothing is summed.
    portions: Vec<Portions>,
    /// What each producer adds to the sums of each slot; empty where nothing is summed.
    producer_sums: Vec<ProducerSums>,
    /// How many columns are summed.
    summed: usize,
    /// The policies that the records were decided under.
    policies: BTreeSet<Digest>,
    /// Bytes of a cell without its sets.
    cell_bytes: usize,
    /// Bytes of all sets of contributors.
    set_bytes: usize,
    /// So many contributors are enough: [`ENOUGH`], fewer in tests.
    enough: usize,
    /// What may count of each contributor's records, of a dataset that bounds it: the cells are made of it in the end.
    sample: Option<Sample>,
    /// The bounds that hold for what the cells are made of.
    bounds: Option<Bounds>,
    /// The records that cells with bounds are made of, where cells may be merged.
    drawn: Option<Sample>,
    charge: Charge,
    /// What is being written of the cells for a checkpoint, as they were at its position.
    snapshot: Option<Box<Snapshot>>,
}

/// Columns of scored records.
#[derive(Clone, Copy)]
pub struct Scored<'b> {
    fields: &'b [ArrayRef],
    outputs: &'b [ArrayRef],
}

impl<'b> Scored<'b> {
    /// Those of the stream's fields, followed by the model's outputs.
    #[must_use]
    pub fn new(fields: &'b [ArrayRef], outputs: &'b [ArrayRef]) -> Self {
        Self { fields, outputs }
    }

    /// The column at a position.
    fn get(self, position: usize) -> Option<&'b ArrayRef> {
        match position.checked_sub(self.fields.len()) {
            None => self.fields.get(position),
            Some(position) => self.outputs.get(position),
        }
    }
}

/// All of them in a row.
impl<'b, C: AsRef<[ArrayRef]> + ?Sized> From<&'b C> for Scored<'b> {
    fn from(columns: &'b C) -> Self {
        Self::new(columns.as_ref(), &[])
    }
}

/// Columns of scored records, with what a dataset needs of them computed once, however many windows they go into.
pub struct Foldable<'b> {
    columns: Scored<'b>,
    contributors: &'b [Contributor],
    /// Who brought each record; none where that is not kept.
    producers: &'b [Producer],
    /// The lot of each record; none where all of them count.
    lots: &'b [Lot],
    /// The cell number of each record.
    cells: Vec<u32>,
    /// The combination of parts of each record; none where no metric parts them.
    combinations: Vec<u64>,
}

impl<'b> Foldable<'b> {
    /// Of columns, and the hashed contributor of each record.
    #[must_use]
    pub fn new(dataset: &Dataset, columns: impl Into<Scored<'b>>, contributors: &'b [Contributor]) -> Self {
        let columns = columns.into();
        let (cells, ways) = (cell_numbers(dataset, columns, contributors.len()), ways(dataset));
        let combinations =
            if ways.is_empty() { Vec::new() } else { combinations_of(&ways, columns, contributors.len()) };
        Self { columns, contributors, producers: &[], lots: &[], cells, combinations }
    }

    /// The same with who brought each record, which is kept then.
    #[must_use]
    pub fn brought_by(self, producers: &'b [Producer]) -> Self {
        Self { producers, ..self }
    }

    /// The same with the lot of each record, which says whether it counts where not all of them do.
    #[must_use]
    pub fn drawn_by(self, lots: &'b [Lot]) -> Self {
        Self { lots, ..self }
    }

    #[inline]
    fn origin(&self, row: usize, contributor: Contributor) -> Origin {
        let producer = self.producers.get(row).copied().unwrap_or(Producer::UNKNOWN);
        Origin { contributor, producer }
    }
}

/// The number of the cell that each record of a batch belongs to.
fn cell_numbers(dataset: &Dataset, columns: Scored<'_>, rows: usize) -> Vec<u32> {
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
        Self::up_to(dataset, enough_of(dataset))
    }

    /// No cells yet, whose sets end at so many contributors.
    fn up_to(dataset: &Dataset, enough: usize) -> Self {
        let total = dataset.keys.iter().map(|key| key.domain.size()).product();
        let (metrics, is_parted) = (State::of(dataset), !ways(dataset).is_empty());
        let summed = State::summed(&metrics);
        Self {
            slots: Slots::new(total),
            numbers: Vec::new(),
            records: Vec::new(),
            contributors: Vec::new(),
            cell_bytes: cell_bytes(&metrics, is_parted),
            metrics,
            parted: Vec::new(),
            is_parted,
            portions: Vec::new(),
            producer_sums: Vec::new(),
            summed,
            policies: BTreeSet::new(),
            set_bytes: 0,
            enough,
            sample: dataset.bounds.map(|bounds| Sample::new(bounds, total, summed)),
            bounds: None,
            drawn: None,
            charge: Charge::default(),
            snapshot: None,
        }
    }

    /// From now on what this holds counts among what all open windows hold.
    #[must_use]
    pub fn counted_in(mut self, open: &Arc<OpenBytes>) -> Self {
        self.charge.to(open, self.bytes(), self.len());
        self
    }

    /// Adds records.
    pub fn fold(&mut self, dataset: &Dataset, records: &Foldable<'_>, rows: &Rows<'_>) {
        self.save_before_change(records, rows);
        if self.sample.is_some() {
            return self.fold_into_sample(dataset, records, rows);
        }
        // In passes: what the records of one pass look up does not depend on each other, so the processor fetches it for
        // many of them together. Of many open cells little is in its cache.
        let total = records.cells.len();
        let mut slots = Vec::with_capacity(rows.len(total));
        rows.each(total, |row| slots.extend(records.cells.get(row).map(|number| self.slot(*number) as u32)));
        slots.iter().for_each(|slot| self.records[*slot as usize] += 1);
        // Where the portions of each record's contributor are, where something is summed; the sets that it is known to be in.
        let mut places = Vec::with_capacity(if self.summed > 0 { slots.len() } else { 0 });
        let mut known = Vec::with_capacity(slots.len());
        let mut full = Vec::new();
        each_contributor(records, rows, &slots, |_, slot, contributor| {
            if self.summed == 0 {
                let is_in = !self.is_parted && self.contributors[slot].hold(contributor);
                known.push(if is_in { Sets::OF_CELL } else { Sets::NONE });
                return;
            }
            let (place, change, is_in) = self.portions[slot].find(key(contributor), self.summed);
            if change.after > 0 {
                self.change_bytes(change);
                if self.portions[slot].are_full(self.enough) {
                    full.push(slot);
                }
            }
            places.push((slot as u32, place));
            known.push(is_in);
        });
        let mut known = known.into_iter();
        each_contributor(records, rows, &slots, |row, slot, contributor| {
            let is_in = known.next().unwrap_or(Sets::NONE);
            self.add_contributor(slot, records.combinations.get(row), records.origin(row, contributor), is_in);
        });
        self.fold_sums(dataset, records, rows, &places);
        if !records.producers.is_empty() && self.summed > 0 {
            self.fold_producer_sums(dataset, records, rows, &places);
        }
        for slot in full {
            let change = self.portions[slot].end(self.summed, self.enough);
            self.change_bytes(change);
        }
        self.charge.set(self.bytes(), self.len());
    }

    /// Adds the values of records to sums. `places`: the slot of each record, and where the portions of its contributor are.
    fn fold_sums(&mut self, dataset: &Dataset, records: &Foldable<'_>, rows: &Rows<'_>, places: &[(u32, Place)]) {
        let mut summed_columns = 0..self.summed;
        for (metric, state) in dataset.metrics.iter().zip(&mut self.metrics) {
            let (Some(measure), State::Moments(moments)) = (metric.function.measure(), state) else { continue };
            let (Some(summed_column), Some(column)) =
                (summed_columns.next(), records.columns.get(measure.source.column))
            else {
                continue;
            };
            each_summed(measure, column, rows, |at, integer, portion| {
                let (slot, place) = places[at];
                moments[slot as usize].add(integer);
                self.portions[slot as usize].add(place, self.summed, summed_column, portion);
            });
        }
    }

    /// Adds to sums what each producer adds to them. `places`: the slot of each record comes first.
    fn fold_producer_sums(
        &mut self,
        dataset: &Dataset,
        records: &Foldable<'_>,
        rows: &Rows<'_>,
        places: &[(u32, Place)],
    ) {
        // Of each record who brought it, and where its contributor is among those who are off the ends.
        let mut origins = Vec::with_capacity(places.len());
        rows.each(records.cells.len(), |row| {
            origins.extend(records.contributors.get(row).map(|contributor| (records.origin(row, *contributor), None)));
        });
        let (mut change, mut full) = (Change::default(), Vec::new());
        let summed = dataset.metrics.iter().zip(&self.metrics).filter(|(_, state)| matches!(state, State::Moments(_)));
        let measures = summed.filter_map(|(metric, _)| metric.function.measure());
        for (summed_column, measure) in measures.enumerate() {
            let Some(column) = records.columns.get(measure.source.column) else { continue };
            each_summed(measure, column, rows, |at, _, portion| {
                let (slot, (origin, found)) = (places[at].0 as usize, &mut origins[at]);
                if origin.producer != Producer::UNKNOWN {
                    let sums = &mut self.producer_sums[slot];
                    let column = Summed { columns: self.summed, column: summed_column };
                    if sums.add(*origin, column, portion, found, self.enough, &mut change) {
                        full.push(slot);
                    }
                }
            });
        }
        for slot in full {
            change.add(self.producer_sums[slot].end(self.summed, self.enough));
        }
        self.change_bytes(change);
    }

    /// Adds the contributor of a record, who is known to be in some of the cell's sets, to the set that it belongs to: that of
    /// the record's combination of parts, or that of the cell where no combinations are kept.
    #[inline]
    fn add_contributor(&mut self, slot: usize, combination: Option<&u64>, origin: Origin, is_in: Sets) {
        // Where it is kept who brought a contributor, a set learns more of one that is in it.
        let is_in = if origin.producer == Producer::UNKNOWN { is_in } else { Sets::NONE };
        let (change, set) = match (self.parted.get_mut(slot), combination) {
            (Some(parted @ Parted::Known(_)), Some(combination)) => {
                parted.add(*combination, origin, self.enough, is_in)
            }
            _ if is_in.contain(Sets::OF_CELL) => return,
            _ => (self.contributors[slot].add(origin, self.enough), Sets::OF_CELL),
        };
        self.change_bytes(change);
        if self.summed > 0 && origin.producer == Producer::UNKNOWN && set != Sets::NONE && !is_in.contain(set) {
            self.portions[slot].joins(key(origin.contributor), set);
        }
    }

    /// The sets and portions hold more bytes now, or fewer.
    #[inline]
    fn change_bytes(&mut self, change: Change) {
        self.set_bytes = self.set_bytes + change.after - change.before;
    }

    /// The sets that the contributors of a slot are in. Where its records are kept by their combinations, those are in
    /// their sets, and in no other.
    fn sets_of(&self, slot: usize) -> impl Iterator<Item = &Contributors> {
        let parted = self.parted.get(slot).into_iter().flat_map(Parted::contributors);
        self.contributors.get(slot).into_iter().chain(parted)
    }

    /// Bytes of the sets of a slot.
    fn bytes_of_sets(&self, slot: usize) -> usize {
        let portions = self.portions.get(slot).map_or(0, |portions| portions.bytes(self.summed));
        let of_producers = self.producer_sums.get(slot).map_or(0, |sums| sums.bytes(self.summed));
        self.contributors[slot].bytes() + self.parted.get(slot).map_or(0, Parted::bytes) + portions + of_producers
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

    /// Adds the cells of another part of the same window. Neither is being saved.
    pub fn merge(&mut self, other: Self) {
        self.policies.extend(other.policies.iter().copied());
        if let (Some(mine), Some(theirs)) = (&mut self.sample, other.sample) {
            mine.merge(&theirs);
            self.set_bytes = mine.bytes();
            return self.charge.set(self.bytes(), self.len());
        }
        // Together, cells that were made apart are held to no bounds.
        self.bounds = None;
        let places: Vec<usize> = other.numbers.iter().map(|number| self.slot(*number)).collect();
        for (&slot, records) in places.iter().zip(&other.records) {
            self.records[slot] += records;
        }
        for (mine, theirs) in self.metrics.iter_mut().zip(&other.metrics) {
            mine.merge(theirs, &places);
        }
        let held = |cells: &Self| places.iter().map(|&slot| cells.bytes_of_sets(slot)).sum::<usize>();
        let before = held(self);
        for (&slot, theirs) in places.iter().zip(other.parted) {
            let forgotten = self.parted[slot].merge(theirs, self.enough);
            self.contributors[slot].merge(forgotten, self.enough);
        }
        for (&slot, contributors) in places.iter().zip(other.contributors) {
            self.contributors[slot].merge(contributors, self.enough);
        }
        for (&slot, portions) in places.iter().zip(other.portions) {
            self.portions[slot].merge(portions, self.summed, self.enough);
        }
        for (&slot, sums) in places.iter().zip(other.producer_sums) {
            self.producer_sums[slot].merge(sums, self.enough);
        }
        self.set_bytes = self.set_bytes + held(self) - before;
        self.charge.set(self.bytes(), self.len());
    }

    /// How many cells hold a record.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sample.as_ref().map_or(self.numbers.len(), Sample::cells)
    }

    /// Whether no cell holds a record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The slots, in the order of their cell numbers.
    pub(super) fn in_order(&self) -> Vec<usize> {
        let mut slots: Vec<usize> = (0..self.numbers.len()).collect();
        slots.sort_by_key(|&slot| self.numbers[slot]);
        slots
    }

    /// Whether a slot's cell has at least so many distinct contributors, `beyond_one`: without the records of any single
    /// producer too. Of more than [`ENOUGH`] it is not known: no.
    pub(super) fn has(&self, slot: usize, least: usize, beyond_one: bool) -> bool {
        if planted("cells-in-records") {
            return self.records[slot] >= least as u64;
        }
        at_least(self.sets_of(slot), least, beyond_one, self.enough)
    }

    /// The positions of a slot's cell in the domains of the dataset's keys.
    #[cfg(test)]
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

    /// Which parts of a slot's cell may leave under a rule. `finer`: what leaves under a rule that is not stricter.
    pub(super) fn plan(&self, dataset: &Dataset, slot: usize, rule: PartRule, finer: Option<&Plan>) -> Plan {
        let parted = self.parted.get(slot).unwrap_or(&Parted::Unknown);
        let (sums, squares) = self.sums_that_leave(dataset, slot, rule, finer);
        Plan::of(dataset, parted, rule, self.enough, finer).with_sums(sums, squares)
    }

    /// Room for planning the cells, among what all open windows hold: for as long as it is kept, they hold so much more.
    pub(super) fn room_for_plans(&self, dataset: &Dataset) -> Charge {
        let ways = ways(dataset);
        let of_parts = |parted| planning_bytes(&ways, parted);
        let most = self.parted.iter().map(of_parts).max().unwrap_or(0);
        let points = self.portions.iter().map(|portions| points_bytes(portions.contributors(), self.summed));
        let most = most + points.max().unwrap_or(0);
        self.charge.beside(most + self.numbers.len() * plan_bytes(&ways))
    }

    /// What a metric of a slot comes to by a plan, so that it can be added to that of another one. `None`: it may not leave.
    pub(super) fn measured(&self, dataset: &Dataset, metric: usize, slot: usize, plan: &Plan) -> Option<Measured> {
        match &dataset.metrics.get(metric)?.function {
            Function::Count => Some(Measured::Records(self.records[slot])),
            Function::Sum(measure) | Function::Mean(measure) | Function::Variance(measure) => {
                let (column, moments) = self.moments(metric, slot)?;
                let is_variance = dataset.metrics.get(metric)?.function.is_variance_of(measure);
                let may_leave = if is_variance { plan.squares_leave(column) } else { plan.sum_leaves(column) };
                let leaves = may_leave && self.holds(dataset, measure, slot, moments, plan);
                leaves.then_some(Measured::Moments(*moments))
            }
            Function::Histogram { .. } | Function::Fraction { .. } => {
                self.counts(dataset, metric, slot, plan).map(Measured::Parts)
            }
        }
    }

    /// How many records of a slot are in each part of a metric's way, as they may leave: those of parts that leave only
    /// together are counted in the first of them, and the others have no count.
    fn counts(&self, dataset: &Dataset, metric: usize, slot: usize, plan: &Plan) -> Option<Vec<Option<u64>>> {
        let ways = ways(dataset);
        let wanted = way_of(&dataset.metrics.get(metric)?.function)?;
        let before = dataset.metrics.get(..metric)?.iter().filter(|metric| way_of(&metric.function).is_some()).count();
        let position = ways.iter().filter(|way| way.by == By::Presence).count() + before;
        let groups = plan.groups(position)?;
        let mut counts = vec![0; wanted.parts()];
        for (combination, records) in self.parted.get(slot)?.counts() {
            let part = parts_of(&ways, combination).nth(position)?;
            *counts.get_mut(*groups.get(part)?)? += records;
        }
        let of_part = |(part, count): (usize, u64)| (groups.get(part) == Some(&part)).then_some(count);
        Some(counts.into_iter().enumerate().take(wanted.parts_with_value()).map(of_part).collect())
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
        if self.is_parted {
            self.parted.push(Parted::default());
        }
        if self.summed > 0 {
            self.portions.push(Portions::default());
            self.producer_sums.push(ProducerSums::default());
        }
        slot
    }

    /// About how many bytes of memory this holds, and never less: see [`OpenBytes`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        cells_bytes(self.numbers.len(), self.cell_bytes) + self.set_bytes
    }
}

#[cfg(test)]
mod tests;
