//! What each producer adds to the sums of a cell, for the rule that no sum says much about one contributor, whichever
//! producer's records are taken away.
//!
//! A producer knows what it sent itself. It could invent contributors with large values, so that the others seem to add
//! enough ([`portions`](super::portions)), and take them off the sum again. So both rules must hold without any single
//! producer:
//!
//! - **p%**: all that is known to be brought by the *other* producers, less the portions of the two largest contributors,
//!   must be enough of the largest portion. The largest ones may be the producer's own: then the rule is too careful.
//! - **k off the end**: without any single producer, as many contributors as a part needs have a value off the end.
//!
//! - **The largest share**: what the others add is at least as much of the whole as is asked for.
//!
//! When a cell has more than [`PRODUCERS_MAX`] producers, those whose hashes end alike count as one.

use std::collections::BTreeMap;

use super::brought::{FIRST_BROUGHT, Origin};
use super::contributors::{Contributors, at_least};
use super::hashed::{Change, FIRST_CONTRIBUTOR};
use super::portions::{AtEnd, ENDS, Portion};
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
    pub(super) off_end: Vec<Contributors>,
}

impl Known {
    pub(super) fn new(columns: usize) -> Self {
        let off_end = (0..2 * columns).map(|_| Contributors::default()).collect();
        Self { is_coarse: false, totals: BTreeMap::new(), off_end }
    }

    fn number(&self, producer: u16) -> u16 {
        if self.is_coarse { producer % PRODUCERS_MAX as u16 } else { producer }
    }

    fn add_total(&mut self, producer: u16, columns: usize, column: usize, portion: Portion) {
        let totals = self.totals.entry(self.number(producer)).or_insert_with(|| vec![Portion::default(); columns]);
        if let Some(total) = totals.get_mut(column) {
            total.add(portion);
        }
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

    fn bytes(&self, columns: usize) -> usize {
        let of_sets: usize = self.off_end.iter().map(Contributors::bytes).sum();
        known_bytes(columns) + self.totals.len() * total_bytes(columns) + of_sets
    }
}

/// What one producer's totals take: a place in a tree, of which a part is empty, and a list.
fn total_bytes(columns: usize) -> usize {
    96 + columns * size_of::<Portion>()
}

/// What is known of the producers takes so much without totals and sets.
fn known_bytes(columns: usize) -> usize {
    size_of::<Known>() + 2 * columns * size_of::<Contributors>()
}

/// The most bytes that one more record of a cell adds.
pub(super) fn first_producer_sums(columns: usize) -> usize {
    known_bytes(columns) + total_bytes(columns) + 2 * columns * (FIRST_CONTRIBUTOR + FIRST_BROUGHT)
}

impl ProducerSums {
    /// Adds a value of a record.
    pub(super) fn add(
        &mut self,
        (contributor, producer): Origin,
        columns: usize,
        column: usize,
        portion: Portion,
        enough: usize,
    ) -> Change {
        let mut change = Change::default();
        let known = self.0.get_or_insert_with(|| {
            change.after += known_bytes(columns);
            Box::new(Known::new(columns))
        });
        change.before += known.totals.len() * total_bytes(columns);
        known.add_total(producer.number(), columns, column, portion);
        change.after += known.totals.len() * total_bytes(columns);
        let ends = [portion.above, portion.below].into_iter().zip(known.off_end.iter_mut().skip(2 * column));
        for (_, off_end) in ends.filter(|(portion, _)| *portion > 0) {
            change.before += off_end.bytes();
            off_end.insert(contributor, producer, enough);
            change.after += off_end.bytes();
        }
        change
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
        mine.off_end.iter_mut().zip(theirs.off_end).for_each(|(mine, theirs)| mine.merge(theirs, enough));
    }

    /// Whether both rules hold for a column without any single producer. `ends`: the portions at both of its ends.
    pub(super) fn hold(&self, column: usize, ends: &[AtEnd; 2], rule: PartRule, enough: usize) -> bool {
        let Some(known) = &self.0 else { return false };
        ends.iter().zip(ENDS).zip(known.off_end.iter().skip(2 * column)).all(|((end, of), off_end)| {
            if end.largest == 0 {
                return !rule.not_empty;
            }
            let totals = known.totals.values().filter_map(|totals| totals.get(column)).map(of);
            let (all, most) = totals.fold((0_u128, 0), |(all, most), total| (all + u128::from(total), most.max(total)));
            let by_others = (all - u128::from(most)).saturating_sub(u128::from(end.largest) + u128::from(end.second));
            let by_percent = by_others * 100 >= u128::from(end.largest) * u128::from(rule.percent);
            let are_enough = at_least([off_end], (rule.least, true), enough);
            // What it is not known of who brought it, any single one may have.
            let beside = (all - u128::from(most)) * 1_000 >= end.total * u128::from(rule.beside);
            let holds_beyond_one = !rule.beyond_one || by_percent && are_enough || planted("sums-of-one-producer");
            holds_beyond_one && (beside || planted("sums-mostly-of-one"))
        })
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self, columns: usize) -> usize {
        self.0.as_ref().map_or(0, |known| known.bytes(columns))
    }
}
