//! What contributors add to the sums of a cell, as points, for the rules that look at more than one end of one column.
//!
//! A point is a contributor. Its coordinates are, for each summed column, how many values it has and how far they are above
//! the lower end of the range. Where [portions](super::portions) are shared, or there are more than [`APART_MAX`], a point
//! is several contributors: whatever holds for each of them holds for all together, so no more points than contributors
//! are an exception.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::brought::Producer;
use super::portions::{Key, Portion, SHARED};
use super::rule::PartRule;

/// So many contributors are told apart at most.
const APART_MAX: usize = 1_024;

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

    fn add(&mut self, other: &Self) {
        self.values += other.values;
        self.off_ends.iter_mut().zip(other.off_ends).for_each(|(mine, theirs)| *mine += theirs);
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

/// The most bytes that the points of so many contributors take, with what is worked out from them: a list of them and a table
/// of who brought whom; and of each point that is told apart, the numbers for each dimension that a search looks at.
pub(super) fn points_bytes(contributors: usize, columns: usize) -> usize {
    let numbers = 2 * columns * size_of::<f64>();
    let of_point = size_of::<Point>() + columns * size_of::<Own>() + 4 * size_of::<&Point>() + 4 * size_of::<usize>();
    let listed = size_of::<(Key, &[Portion])>() + 4 * size_of::<(Key, Producer)>();
    contributors * listed + contributors.min(APART_MAX) * (of_point + (2 * columns + 5) * numbers)
}

impl Points {
    /// Of portions in columns whose ranges are so many steps. `brought`: who brought whom, if that is known of each.
    pub(super) fn new<'p>(
        portions: impl Iterator<Item = (Key, &'p [Portion])>,
        steps: &[f64],
        brought: Option<&BroughtAlone>,
    ) -> Self {
        let own = |portions: &[Portion]| -> Vec<Own> {
            portions.iter().zip(steps).map(|(portion, steps)| Own::of(*portion, *steps)).collect()
        };
        let mut all: Vec<(Key, &[Portion])> = portions.collect();
        all.sort_by_key(|(key, _)| *key);
        if all.len() > APART_MAX {
            let mut shared: BTreeMap<usize, Vec<Own>> = BTreeMap::new();
            for (key, portions) in all {
                let mine = shared.entry(key as usize % SHARED).or_insert_with(|| vec![Own::default(); steps.len()]);
                mine.iter_mut().zip(&own(portions)).for_each(|(mine, theirs)| mine.add(theirs));
            }
            let all = shared.into_values().map(|own| Point { own, producer: Producer::UNKNOWN }).collect();
            return Self { all, tell_producers: false };
        }
        let point = |(key, portions): (Key, &[Portion])| {
            let producer = brought.and_then(|brought| brought.get(&without_low_bits(key)).copied());
            Point { own: own(portions), producer: producer.unwrap_or(Producer::UNKNOWN) }
        };
        Self { all: all.into_iter().map(point).collect(), tell_producers: brought.is_some() }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Point> {
        self.all.iter()
    }

    /// Without whom a rule must hold: with everybody there; and if the rule asks for that, without those that any single
    /// producer brought alone. Of whom it is not known who brought them, any producer may have.
    pub(super) fn left_out(&self, rule: PartRule) -> Vec<LeftOut> {
        let mut each = vec![LeftOut { nobody: true, producer: Producer::UNKNOWN }];
        if rule.beyond_one && self.tell_producers {
            let alone: BTreeSet<Producer> =
                self.all.iter().map(|point| point.producer).filter(|producer| *producer != Producer::SEVERAL).collect();
            each.extend(alone.into_iter().map(|producer| LeftOut { nobody: false, producer }));
        }
        each
    }

    /// Whether something holds whoever is left out.
    pub(super) fn whoever_is_left_out(&self, rule: PartRule, holds: impl Fn(&[&Point]) -> bool) -> bool {
        self.left_out(rule)
            .into_iter()
            .all(|left_out| holds(&self.all.iter().filter(|point| !left_out.has(point)).collect::<Vec<_>>()))
    }
}

/// Contributors that a producer may take off.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeftOut {
    nobody: bool,
    producer: Producer,
}

impl LeftOut {
    pub(super) fn has(self, point: &Point) -> bool {
        !self.nobody && [self.producer, Producer::UNKNOWN].contains(&point.producer)
    }
}
