//! What contributors add to the sums of a cell, as points, for the rules that look at more than one end of one column.
//!
//! A point is a contributor. Its coordinates are, for each summed column, how many values it has and how far they are above
//! the lower end of the range. Where [portions](super::portions) are shared, a point is all who share one: whatever holds
//! for each of them holds for all together, so no more points than contributors are an exception.

use std::collections::{BTreeSet, HashMap};

use super::brought::Producer;
use super::portions::{Key, Portion};
use super::rule::PartRule;

/// What one contributor, or several, add to the sum of one column.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Own {
    /// How many values.
    pub(super) values: f64,
    /// How far they are above the lower end and below the upper end, in all. 1 is the whole range.
    pub(super) off_ends: [f64; 2],
}

impl Own {
    /// Of a portion, of a column whose range is so many steps.
    fn of(portion: Portion, steps: f64) -> Self {
        if steps <= 0.0 {
            return Self::default();
        }
        let [above, below] = [portion.above, portion.below].map(|steps_off| steps_off as f64 / steps);
        // Each value is as far from one end as it is not from the other one. Both were rounded up to a step.
        Self { values: (above + below).round(), off_ends: [above, below] }
    }
}

/// A contributor, or several.
#[derive(Debug, Clone)]
pub(super) struct Point {
    /// Of each summed column.
    pub(super) own: Vec<Own>,
    /// Who alone brought it.
    producer: Producer,
}

/// The contributors of a cell, in an order that only depends on who they are.
#[derive(Debug)]
pub(super) struct Points {
    all: Vec<Point>,
    /// Whether it is known who brought each of them, or that it is not known.
    tell_producers: bool,
}

/// Who alone brought whom, by what is kept of the contributor's key: see [`without_low_bits`].
pub(super) type BroughtAlone = HashMap<Key, Producer>;

/// A key without the bits that are not kept where its producer is.
pub(super) fn without_low_bits(key: Key) -> Key {
    key >> 16
}

/// The most bytes that the points of so many contributors take, with what is worked out from them: a table of who brought
/// whom, the points themselves, and for each dimension a table of twice as many numbers as there are columns.
pub(super) fn points_bytes(contributors: usize, columns: usize) -> usize {
    let numbers = 2 * columns * size_of::<f64>();
    let of_point =
        size_of::<(Key, Point)>() + columns * size_of::<Own>() + 4 * size_of::<&Point>() + 4 * size_of::<usize>();
    contributors * (of_point + 4 * size_of::<(Key, Producer)>() + (2 * columns + 3) * numbers)
}

impl Points {
    /// Of portions in columns whose ranges are so many steps. `brought`: who brought whom, if that is known of each.
    pub(super) fn new<'p>(
        portions: impl Iterator<Item = (Key, &'p [Portion])>,
        steps: &[f64],
        brought: Option<&BroughtAlone>,
    ) -> Self {
        let mut all: Vec<(Key, Point)> = portions
            .map(|(key, portions)| {
                let own = portions.iter().zip(steps).map(|(portion, steps)| Own::of(*portion, *steps)).collect();
                let producer = brought.and_then(|brought| brought.get(&without_low_bits(key)).copied());
                (key, Point { own, producer: producer.unwrap_or(Producer::UNKNOWN) })
            })
            .collect();
        all.sort_by_key(|(key, _)| *key);
        Self { all: all.into_iter().map(|(_, point)| point).collect(), tell_producers: brought.is_some() }
    }

    /// Whether something holds for all of them; and if the rule asks for that, without those that any single producer
    /// brought alone. Of whom it is not known who brought them, any producer may have.
    pub(super) fn whichever_producer(&self, rule: PartRule, holds: impl Fn(&[&Point]) -> bool) -> bool {
        if !holds(&self.all.iter().collect::<Vec<_>>()) {
            return false;
        }
        if !rule.beyond_one || !self.tell_producers {
            return true;
        }
        let alone: BTreeSet<Producer> =
            self.all.iter().map(|point| point.producer).filter(|producer| producer.is_one()).collect();
        alone.into_iter().all(|producer| {
            let is_other = |point: &&Point| ![producer, Producer::UNKNOWN].contains(&point.producer);
            holds(&self.all.iter().filter(is_other).collect::<Vec<_>>())
        })
    }
}
