//! A window of a dataset that bounds how many records of one contributor count: the records of each that may still count,
//! until the window is closed and the cells are made of them.
//!
//! Which records count is drawn by lot, so that nobody can choose them and the first ones are not favoured. The lots are
//! hashes under the gateway's secret: that of a record says who sent it, in which request and at which place in it
//! ([`ContributorKey::lots`]); that of a cell, for one contributor, is of the contributor's own hash. The lowest lots win.
//! A record has the same lot when it is sent again, when it is replayed, and on whatever worker it arrives. The least ones
//! of a set are the least ones of the least ones of its parts. So what is kept depends only on the records, not on their
//! order or on how they were merged, and nothing beyond what may count is ever kept.
//!
//! A contributor draws the same cells in every window: to count in more of them, it would have to be another contributor.

#![allow(clippy::indexing_slicing, reason = "the cells themselves make the slots that they index with")]

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use foldhash::fast::RandomState;
use siphasher::sip::SipHasher13;
use siphasher::sip128::Hasher128;

use super::brought::{Origin, Producer};
use super::columns::each_summed;
use super::contributors::NEVER_ENOUGH;
use super::hashed::{Change, Contributor, ContributorKey, PassThrough, table_bytes};
use super::moments::Ends;
use super::parted::Sets;
use super::portions::key;
use super::producer_sums::Summed;
use super::state::State;
use super::{Cells, Foldable, Rows};
use crate::domain::binary::{Reader, Writer};
use crate::domain::dataset::{Bounds, Dataset, Measure};
use crate::domain::producer::Number;
use crate::planted::planted;

/// The lot of a record: records of lower lots count before those of higher ones.
pub type Lot = u64;

/// A request, as it is known whenever its records are counted.
#[derive(Debug, Clone, Copy)]
pub enum Request<'r> {
    /// Its producer numbered it.
    Numbered {
        /// The series that the number counts in.
        series: &'r str,
        /// The number.
        number: Number,
    },
    /// Nobody did: it is the request at this place in the entry of the journal at this position.
    Placed {
        /// The position.
        lsn: u64,
        /// The place, from 0.
        at: usize,
    },
}

impl ContributorKey {
    /// The lots of the records of a request, in their order.
    pub fn lots(&self, request: Request<'_>) -> impl Iterator<Item = Lot> {
        let mut hasher = siphasher::sip128::SipHasher13::new_with_key(&self.0);
        match request {
            Request::Numbered { series, number } => {
                hasher.write(b"numbered ");
                hasher.write(&number.epoch.to_le_bytes());
                hasher.write(&number.sequence.to_le_bytes());
                hasher.write(series.as_bytes());
            }
            Request::Placed { lsn, at } => {
                hasher.write(b"placed ");
                hasher.write(&lsn.to_le_bytes());
                hasher.write(&(at as u64).to_le_bytes());
            }
        }
        let of_request = SipHasher13::new_with_key(&hasher.finish128().as_bytes());
        (0_u64..).map(move |row| of_request.hash(&row.to_le_bytes()))
    }
}

/// A record that may count: all that a cell needs of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kept {
    /// The lot of its cell, for its contributor.
    of_cell: Lot,
    /// The number of its cell.
    pub(super) cell: u32,
    lot: Lot,
    /// The combination of parts that it is in.
    pub(super) combination: u64,
    /// Who brought it.
    pub(super) producer: Producer,
}

/// What is kept of one contributor, in order: cell by cell from the lowest lot up, and in each from the lowest lot up.
#[derive(Debug)]
pub(super) struct OfOne {
    pub(super) contributor: Contributor,
    pub(super) kept: Vec<Kept>,
    /// The value of each of these records in each summed column, as an integer.
    values: Vec<Option<i64>>,
    /// In how many cells.
    cells: u32,
}

/// What is kept of a window.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) bounds: Bounds,
    /// Whether a contributor can be in more cells than count.
    draws_cells: bool,
    /// How many columns are summed.
    summed: usize,
    /// Where each contributor is.
    at: HashMap<Contributor, u32, BuildHasherDefault<PassThrough>>,
    pub(super) contributors: Vec<OfOne>,
    /// How many contributors have something kept in each cell.
    cells: HashMap<u32, u32, RandomState>,
    /// Bytes of what is kept of all contributors.
    kept_bytes: usize,
}

/// A record as it comes: the number of its cell, and its lot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drawn {
    pub(super) cell: u32,
    pub(super) lot: Lot,
}

/// The lot of a cell for a contributor, whose hash is secret.
pub(super) fn lot_of_cell(contributor: Contributor, cell: u32) -> Lot {
    let [a, b, c, d] = cell.to_le_bytes();
    SipHasher13::new_with_key(&contributor.to_le_bytes()).hash(&[b'c', b'e', b'l', b'l', b' ', a, b, c, d])
}

impl OfOne {
    /// Where the records of a cell begin and end.
    fn run(&self, of_cell: Lot, cell: u32) -> std::ops::Range<usize> {
        let start = self.kept.partition_point(|kept| (kept.of_cell, kept.cell) < (of_cell, cell));
        let end = self.kept.partition_point(|kept| (kept.of_cell, kept.cell) <= (of_cell, cell));
        start..end
    }

    /// Whether a record with these lots can be among those that count. That it has the same lots as another one is as good
    /// as impossible: then it is looked at whole.
    fn may_count(&self, bounds: Bounds, of_cell: Lot, drawn: Drawn) -> bool {
        let run = self.run(of_cell, drawn.cell);
        if run.is_empty() {
            let is_full = self.cells >= bounds.most_cells();
            let worst = self.kept.last().map(|kept| (kept.of_cell, kept.cell));
            return !is_full || !planted("first-come-bounds") && worst > Some((of_cell, drawn.cell));
        }
        let is_full = run.len() >= bounds.records_per_cell as usize;
        let worst = self.kept.get(run.end - 1).map(|kept| kept.lot);
        !is_full || !planted("first-come-bounds") && worst >= Some(drawn.lot)
    }

    /// The values of the record at a place, of so many summed columns.
    pub(super) fn values(&self, at: usize, summed: usize) -> &[Option<i64>] {
        self.values.get(at * summed..(at + 1) * summed).unwrap_or_default()
    }

    /// The records with their values.
    pub(super) fn records(&self, summed: usize) -> impl Iterator<Item = (&Kept, &[Option<i64>])> {
        self.kept.iter().enumerate().map(move |(at, kept)| (kept, self.values(at, summed)))
    }

    /// Adds a record, and lets those go that can no longer count.
    fn add(
        &mut self,
        bounds: Bounds,
        record: Kept,
        values: &[Option<i64>],
        cells: &mut HashMap<u32, u32, RandomState>,
    ) {
        let summed = values.len();
        let (of_cell, cell) = (record.of_cell, record.cell);
        if self.run(of_cell, cell).is_empty() {
            self.cells += 1;
            *cells.entry(cell).or_default() += 1;
        }
        let mut place = self.kept.partition_point(|kept| *kept < record);
        while self.kept.get(place) == Some(&record) && self.values(place, summed) < values {
            place += 1;
        }
        self.kept.insert(place, record);
        self.values.splice(place * summed..place * summed, values.iter().copied());
        let run = self.run(of_cell, cell);
        if run.len() > bounds.records_per_cell as usize {
            self.kept.remove(run.end - 1);
            self.values.drain((run.end - 1) * summed..run.end * summed);
        }
        while self.cells > bounds.most_cells()
            && let Some(worst) = self.kept.last().map(|kept| (kept.of_cell, kept.cell))
        {
            let start = self.run(worst.0, worst.1).start;
            self.kept.truncate(start);
            self.values.truncate(start * summed);
            self.cells -= 1;
            if let Some(count) = cells.get_mut(&worst.1) {
                *count -= 1;
                if *count == 0 {
                    cells.remove(&worst.1);
                }
            }
            // What is counted follows the lengths ([`records_bytes`]).
            self.kept.shrink_to((2 * self.kept.len()).max(4));
            self.values.shrink_to((2 * self.values.len()).max(4));
        }
    }

    fn bytes(&self, summed: usize) -> usize {
        records_bytes(self.kept.len(), summed)
    }
}

/// Bytes of so many records of one contributor, as if their lists had just doubled; each has room for four at least.
fn records_bytes(records: usize, summed: usize) -> usize {
    let places = |used: usize| if used == 0 { 0 } else { (2 * used).max(4) };
    places(records) * size_of::<Kept>() + places(records * summed) * size_of::<Option<i64>>()
}

/// Bytes of so many contributors in so many cells, without their records.
fn contributors_bytes(contributors: usize, cells: usize) -> usize {
    table_bytes(contributors, size_of::<(Contributor, u32)>())
        + 2 * contributors * size_of::<OfOne>()
        + table_bytes(cells, size_of::<(u32, u32)>())
}

/// The most bytes that one more record adds.
pub(super) fn first_kept(summed: usize) -> usize {
    contributors_bytes(1, 1) + records_bytes(1, summed)
}

impl Sample {
    /// Nothing yet, of a window that can have so many cells.
    pub(super) fn new(bounds: Bounds, cells: usize, summed: usize) -> Self {
        Self {
            bounds,
            draws_cells: cells > bounds.most_cells() as usize,
            summed,
            at: HashMap::default(),
            contributors: Vec::new(),
            cells: HashMap::default(),
            kept_bytes: 0,
        }
    }

    /// Where a contributor is, if there is anything of it.
    pub(super) fn position(&self, contributor: Contributor) -> Option<usize> {
        self.at.get(&contributor).map(|at| *at as usize)
    }

    /// In how many cells there is anything.
    pub(super) fn cells(&self) -> usize {
        self.cells.len()
    }

    /// The lot of a cell for a contributor. Where a contributor counts in all cells, nothing is drawn.
    fn of_cell(&self, contributor: Contributor, cell: u32) -> Lot {
        if self.draws_cells { lot_of_cell(contributor, cell) } else { 0 }
    }

    /// Adds a record, if it may count. `rest` gives what else there is to keep of it.
    pub(super) fn add<'v>(
        &mut self,
        contributor: Contributor,
        drawn: Drawn,
        rest: impl FnOnce() -> (u64, Producer, &'v [Option<i64>]),
    ) {
        let of_cell = self.of_cell(contributor, drawn.cell);
        if let Some(of_one) = self.position(contributor).and_then(|at| self.contributors.get(at))
            && !of_one.may_count(self.bounds, of_cell, drawn)
        {
            return;
        }
        let (combination, producer, values) = rest();
        let record = Kept { of_cell, cell: drawn.cell, lot: drawn.lot, combination, producer };
        self.put(contributor, record, values);
    }

    fn put(&mut self, contributor: Contributor, record: Kept, values: &[Option<i64>]) {
        let next = self.contributors.len();
        let at = *self.at.entry(contributor).or_insert(next as u32) as usize;
        if at == next {
            self.contributors.push(OfOne { contributor, kept: Vec::new(), values: Vec::new(), cells: 0 });
        }
        if let Some(of_one) = self.contributors.get_mut(at) {
            let before = of_one.bytes(self.summed);
            of_one.add(self.bounds, record, values, &mut self.cells);
            self.kept_bytes = self.kept_bytes + of_one.bytes(self.summed) - before;
        }
    }

    /// Adds what another part of the window keeps.
    pub(super) fn merge(&mut self, other: &Self) {
        for of_one in &other.contributors {
            for (record, values) in of_one.records(self.summed) {
                self.put(of_one.contributor, *record, values);
            }
        }
    }

    /// What is kept of some cells, as if their records had come in the cells that `to` gives: so many of each of those count.
    pub(super) fn moved(&self, is_wanted: impl Fn(u32) -> bool, to: impl Fn(u32) -> u32) -> Self {
        let mut moved = Self { draws_cells: self.draws_cells, ..Self::new(self.bounds, 0, self.summed) };
        for of_one in &self.contributors {
            for (record, values) in of_one.records(self.summed).filter(|(record, _)| is_wanted(record.cell)) {
                let cell = to(record.cell);
                let of_cell = self.of_cell(of_one.contributor, cell);
                moved.put(of_one.contributor, Kept { of_cell, cell, ..*record }, values);
            }
        }
        moved
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        contributors_bytes(self.contributors.len(), self.cells.len()) + self.kept_bytes
    }

    /// Adds what is kept of a contributor to a checkpoint.
    pub(super) fn encode(&self, at: usize, writer: &mut Writer) {
        let Some(of_one) = self.contributors.get(at) else { return };
        writer.u128(of_one.contributor).count(of_one.kept.len());
        for (Kept { cell, lot, combination, producer, .. }, values) in of_one.records(self.summed) {
            writer.u32(*cell).u64(*lot).u64(*combination).u32(producer.number().into());
            values.iter().for_each(|value| {
                writer.option(*value);
            });
        }
    }

    /// Reads what is kept of a contributor. `None`: it is not what [`Sample::encode`] wrote.
    pub(super) fn decode(&mut self, can_be: impl Fn(u32) -> bool, reader: &mut Reader<'_>) -> Option<()> {
        let contributor = reader.u128()?;
        for _ in 0..reader.count(4 + 8 + 8 + 4 + self.summed)? {
            let (cell, lot, combination) = (reader.u32()?, reader.u64()?, reader.u64()?);
            let producer = Producer::of_number(u16::try_from(reader.u32()?).ok()?);
            let values = (0..self.summed).map(|_| reader.option()).collect::<Option<Vec<_>>>()?;
            if !can_be(cell) {
                return None;
            }
            let of_cell = self.of_cell(contributor, cell);
            self.put(contributor, Kept { of_cell, cell, lot, combination, producer }, &values);
        }
        Some(())
    }
}

impl Cells {
    /// Adds records to what is kept of each contributor.
    pub(super) fn fold_into_sample(&mut self, dataset: &Dataset, records: &Foldable<'_>, rows: &Rows<'_>) {
        let Some(sample) = &mut self.sample else { return };
        let (total, summed) = (records.cells.len(), sample.summed);
        let mut values = vec![None; rows.len(total) * summed];
        for (column, measure) in summed_measures(dataset, &self.metrics).into_iter().enumerate() {
            let Some(array) = records.columns.get(measure.source.column) else { continue };
            each_summed(measure, array, rows, |at, integer, _| {
                if let Some(value) = values.get_mut(at * summed + column) {
                    *value = Some(integer);
                }
            });
        }
        let mut next = 0;
        rows.each(total, |row| {
            let own = next * summed..(next + 1) * summed;
            next += 1;
            let (Some(&cell), Some(&contributor)) = (records.cells.get(row), records.contributors.get(row)) else {
                return;
            };
            let drawn = Drawn { cell, lot: records.lots.get(row).copied().unwrap_or(0) };
            sample.add(contributor, drawn, || {
                let combination = records.combinations.get(row).copied().unwrap_or(0);
                let producer = records.origin(row, contributor).producer;
                (combination, producer, values.get(own).unwrap_or_default())
            });
        });
        self.set_bytes = sample.bytes();
        self.charge.set(self.bytes(), self.len());
    }

    /// What is written to a checkpoint one by one: cells, or contributors with what is kept of them.
    pub(super) fn units(&self) -> usize {
        self.sample.as_ref().map_or(self.numbers.len(), |sample| sample.contributors.len())
    }

    /// The cells of a window that is closed, all parts of it: of a dataset that bounds how many records of one contributor
    /// count, made of those that do. Until then there are none, and nothing leaves.
    #[must_use]
    pub fn bounded(mut self, dataset: &Dataset) -> Self {
        match self.sample.take() {
            // What is kept is still there meanwhile, and counted.
            Some(sample) => self.made_of(dataset, sample),
            None => self,
        }
    }

    /// Cells that are made of the records that count. The records are kept beside them where cells may be merged: together
    /// they are held to the bounds again.
    pub(super) fn made_of(&self, dataset: &Dataset, sample: Sample) -> Self {
        let mut cells = Self { bounds: Some(sample.bounds), sample: None, ..Self::up_to(dataset, NEVER_ENOUGH) };
        cells.policies.clone_from(&self.policies);
        cells.charge = self.charge.beside(cells.bytes());
        let ends = summed_measures(dataset, &cells.metrics).into_iter().map(|measure| measure.scale().ends());
        let ends: Vec<Ends> = ends.collect();
        for of_one in &sample.contributors {
            for (record, values) in of_one.records(sample.summed) {
                cells.add_kept(of_one.contributor, record, values, &ends);
            }
        }
        if !dataset.roll_up.is_empty() {
            cells.set_bytes += sample.bytes();
            cells.drawn = Some(sample);
        }
        cells.charge.set(cells.bytes(), cells.len());
        cells
    }

    /// The bounds that hold for what the cells are made of.
    #[must_use]
    pub fn bounds(&self) -> Option<Bounds> {
        self.bounds
    }

    /// Adds a record that counts, with its value in each summed column. `ends`: those of the column's range.
    fn add_kept(&mut self, contributor: Contributor, record: &Kept, values: &[Option<i64>], ends: &[Ends]) {
        let slot = self.slot(record.cell);
        let origin = Origin { contributor, producer: record.producer };
        self.records[slot] += 1;
        self.add_contributor(slot, self.is_parted.then_some(&record.combination), origin, Sets::NONE);
        if self.summed == 0 {
            return;
        }
        let (place, change) = self.portions[slot].place(key(contributor), self.summed);
        self.change_bytes(change);
        let moments = self.metrics.iter_mut().filter_map(|state| match state {
            State::Moments(moments) => moments.get_mut(slot),
            _ => None,
        });
        let (mut change, mut row, mut is_due) = (Change::default(), None, false);
        for (column, ((moments, ends), value)) in moments.zip(ends).zip(values).enumerate() {
            let Some(integer) = *value else { continue };
            let portion = ends.portion(integer);
            moments.add(integer);
            self.portions[slot].add(place, self.summed, column, portion);
            if record.producer != Producer::UNKNOWN {
                let sums = &mut self.producer_sums[slot];
                is_due |= sums.add(
                    origin,
                    Summed { columns: self.summed, column },
                    portion,
                    &mut row,
                    self.enough,
                    &mut change,
                );
            }
        }
        if is_due {
            change.add(self.producer_sums[slot].end(self.summed, self.enough));
        }
        self.change_bytes(change);
    }
}

/// Where the values of each summed column lie.
fn summed_measures<'d>(dataset: &'d Dataset, metrics: &[State]) -> Vec<&'d Measure> {
    let summed = dataset.metrics.iter().zip(metrics).filter(|(_, state)| matches!(state, State::Moments(_)));
    summed.filter_map(|(metric, _)| metric.function.measure()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contributor_holds_no_more_than_is_counted_also_when_a_cell_counts_no_more() {
        let bounds = Bounds { records_per_cell: 1_000, cells_per_window: Some(1) };
        let (mut of_one, mut cells) =
            (OfOne { contributor: 1, kept: Vec::new(), values: Vec::new(), cells: 0 }, HashMap::default());
        let mut add = |of_cell, cell, lot| {
            let record = Kept { of_cell, cell, lot, combination: 0, producer: Producer::SEVERAL };
            of_one.add(bounds, record, &[Some(1); 4], &mut cells);
            let kept = of_one.kept.capacity() * size_of::<Kept>();
            let held = kept + of_one.values.capacity() * size_of::<Option<i64>>();
            assert!(held <= of_one.bytes(4), "{held} bytes for {} records", of_one.kept.len());
            of_one.kept.len()
        };
        for lot in 0..1_000 {
            add(2, 7, lot);
        }
        assert_eq!(add(1, 8, 0), 1, "the other cell has the lower lot");
    }
}
