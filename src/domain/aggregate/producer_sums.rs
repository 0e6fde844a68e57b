//! What each producer adds to the sums of a cell, for the rule that no sum says much about one contributor, whichever
//! producer's records are taken away.
//!
//! A producer knows what it sent itself. It could invent contributors with large values, so that the others seem to add
//! enough ([`portions`](super::portions)), and take them off the sum again. So the rules of both ends must hold without any
//! single producer:
//!
//! - **p%**: all that is known to be brought by the *other* producers, less the portions of the two largest contributors,
//!   must be enough of the largest portion. The largest ones may be the producer's own: then the rule is too careful.
//! - **k off the end**: without any single producer, as many contributors as a part needs have a value off the end.
//!
//! - **The largest share**: what the others add is at least as much of the whole as is asked for.
//!
//! When a cell has more than [`PRODUCERS_MAX`] producers, those whose hashes end alike count as one.

use std::collections::BTreeMap;

use super::brought::{Origin, Producer};
use super::hashed::Change;
use super::off_ends::{OffEnds, off_ends_bytes};
use super::points::{BroughtAlone, without_low_bits};
use super::portions::{AtEnd, ENDS, Portion, key};
use super::rule::PartRule;
use crate::planted::planted;

/// The most producers that are told apart in the sums of one cell. Part of the cells' version in checkpoints.
pub(super) const PRODUCERS_MAX: usize = 256;

/// What producers add to the sums of a cell. Nothing, as long as it is not known who brought a record.
#[derive(Debug, Clone, Default)]
pub(super) struct ProducerSums(pub(super) Option<Box<Known>>);

/// What is known of the producers.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// Whether there were more producers than are told apart.
    pub(super) is_coarse: bool,
    /// What each adds to the sum of each column.
    pub(super) totals: BTreeMap<u16, Vec<Portion>>,
    /// Of each column who has a value above the lower end, and who has one below the upper end.
    pub(super) off_ends: OffEnds,
}

impl Known {
    pub(super) fn new(columns: usize) -> Self {
        Self { is_coarse: false, totals: BTreeMap::new(), off_ends: OffEnds::new(2 * columns) }
    }

    fn number(&self, producer: u16) -> u16 {
        if self.is_coarse { producer % PRODUCERS_MAX as u16 } else { producer }
    }

    fn add_total(&mut self, producer: u16, columns: usize, column: usize, portion: Portion) {
        let number = self.number(producer);
        if let Some(total) = self.totals.get_mut(&number).and_then(|totals| totals.get_mut(column)) {
            return total.add(portion);
        }
        let mut totals = vec![Portion::default(); columns];
        if let Some(total) = totals.get_mut(column) {
            *total = portion;
        }
        self.totals.insert(number, totals);
        if self.totals.len() > PRODUCERS_MAX {
            self.coarsen();
        }
    }

    /// From now on producers whose hashes end alike count as one.
    fn coarsen(&mut self) {
        self.is_coarse = true;
        for (producer, theirs) in std::mem::take(&mut self.totals) {
            let number = self.number(producer);
            let mine = self.totals.entry(number).or_insert_with(|| vec![Portion::default(); theirs.len()]);
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| mine.add(theirs));
        }
    }

    fn sizes(&self) -> Sizes {
        Sizes { producers: self.totals.len(), off_end: self.off_ends.rows() }
    }
}

/// How many producers there are, and how many contributors who are off an end.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sizes {
    producers: usize,
    off_end: usize,
}

/// A column with a sum, of so many.
#[derive(Clone, Copy)]
pub(super) struct Summed {
    pub(super) columns: usize,
    pub(super) column: usize,
}

/// What one producer's totals take: a place in a tree, of which a part is empty, and a list.
fn total_bytes(columns: usize) -> usize {
    96 + columns * size_of::<Portion>()
}

/// What is known of so many producers takes, with so many contributors who are off an end.
fn known_bytes(columns: usize, sizes: Sizes) -> usize {
    size_of::<Known>() + sizes.producers * total_bytes(columns) + off_ends_bytes(2 * columns, sizes.off_end)
}

/// The most bytes that one more record of a cell adds.
pub(super) fn first_producer_sums(columns: usize) -> usize {
    known_bytes(columns, Sizes { producers: 1, off_end: 1 })
}

impl ProducerSums {
    /// Adds a value of a record to the sum of a column. `row`: where the record's contributor is, for its other
    /// values. By how much the bytes change is added to `change`. Whether [`ProducerSums::end`] is due.
    pub(super) fn add(
        &mut self,
        origin: Origin,
        Summed { columns, column }: Summed,
        portion: Portion,
        row: &mut Option<u32>,
        enough: usize,
        change: &mut Change,
    ) -> bool {
        let Origin { contributor, producer } = origin;
        let before = self.0.as_ref().map(|known| known.sizes());
        let known = self.0.get_or_insert_with(|| Box::new(Known::new(columns)));
        known.add_total(producer.number(), columns, column, portion);
        let person = contributor.into();
        let mut is_due = false;
        for (end, portion) in (2 * column..).zip([portion.above, portion.below]) {
            is_due |= portion > 0 && known.off_ends.add(row, person, producer, end, enough);
        }
        let after = known.sizes();
        if before != Some(after) {
            let before = before.map_or(0, |sizes| known_bytes(columns, sizes));
            change.add(Change { before, after: known_bytes(columns, after) });
        }
        is_due
    }

    /// Keeps less where what is kept says enough.
    pub(super) fn end(&mut self, columns: usize, enough: usize) -> Change {
        let before = self.bytes(columns);
        if let Some(known) = &mut self.0 {
            known.off_ends.end(enough);
        }
        Change { before, after: self.bytes(columns) }
    }

    /// Adds those of another part of the cell.
    pub(super) fn merge(&mut self, other: Self, enough: usize) {
        let Some(mut theirs) = other.0 else { return };
        let Some(mine) = &mut self.0 else {
            self.0 = Some(theirs);
            return;
        };
        if mine.is_coarse != theirs.is_coarse {
            mine.coarsen();
            theirs.coarsen();
        }
        for (producer, totals) in theirs.totals {
            let columns = totals.len();
            for (column, total) in totals.into_iter().enumerate() {
                mine.add_total(producer, columns, column, total);
            }
        }
        mine.off_ends.merge(theirs.off_ends, enough);
    }

    /// Whether these rules hold for a column without any single producer. `ends`: the portions at both of its ends.
    pub(super) fn hold(&self, column: usize, ends: &[AtEnd; 2], rule: PartRule, enough: usize) -> bool {
        let Some(known) = &self.0 else { return false };
        ends.iter().zip(ENDS).zip(2 * column..).all(|((end, of), off_end)| {
            if end.largest == 0 {
                return !rule.not_empty;
            }
            let totals = known.totals.values().filter_map(|totals| totals.get(column)).map(of);
            let (all, most) = totals.fold((0_u128, 0), |(all, most), total| (all + u128::from(total), most.max(total)));
            let by_others = (all - u128::from(most)).saturating_sub(u128::from(end.largest) + u128::from(end.second));
            let by_percent = by_others * 100 >= u128::from(end.largest) * u128::from(rule.percent);
            let are_enough = known.off_ends.has_beyond_one(off_end, rule.least, enough);
            // What it is not known of who brought it, any single one may have.
            let beside = (all - u128::from(most)) * 1_000 >= end.total * u128::from(rule.beside);
            let holds_beyond_one = !rule.beyond_one || by_percent && are_enough || planted("sums-of-one-producer");
            holds_beyond_one && (beside || planted("sums-mostly-of-one"))
        })
    }

    /// Who alone brought whom. `None`: that is not kept of everybody any more, or never was.
    pub(super) fn brought_alone(&self) -> Option<BroughtAlone> {
        let known = self.0.as_ref()?;
        known.off_ends.keep_each().then(|| {
            let mut brought = BroughtAlone::default();
            for (person, producer) in known.off_ends.everybody() {
                let person = without_low_bits(key(person.into()));
                brought.entry(person).and_modify(|by: &mut Producer| *by = by.and(producer)).or_insert(producer);
            }
            brought
        })
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self, columns: usize) -> usize {
        self.0.as_ref().map_or(0, |known| known_bytes(columns, known.sizes()))
    }
}
