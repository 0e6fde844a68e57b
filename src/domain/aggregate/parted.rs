//! The records of a cell by the combinations of parts that they are in.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use foldhash::fast::RandomState;

use super::brought::Origin;
use super::contributors::Contributors;
use super::hashed::{Change, table_bytes};

/// The records of a cell by their combinations.
#[derive(Debug, Clone)]
pub(super) enum Parted {
    /// Those of each combination that there is.
    Known(HashMap<u64, Combination, RandomState>),
    /// It was not kept: an older version began the window.
    Unknown,
}

/// The records of one combination.
#[derive(Debug, Clone, Default)]
pub(super) struct Combination {
    pub(super) records: u64,
    pub(super) contributors: Contributors,
}

impl Default for Parted {
    fn default() -> Self {
        Self::Known(HashMap::default())
    }
}

/// What a table of combinations holds at least.
pub(super) const FIRST_COMBINATION: usize = combinations_bytes(1);

/// Bytes of a table of so many combinations, without their sets.
const fn combinations_bytes(combinations: usize) -> usize {
    table_bytes(combinations, size_of::<(u64, Combination)>())
}

impl Parted {
    /// Adds a record of a contributor that a producer brought; a set of `enough` contributors ends.
    #[inline]
    pub(super) fn add(&mut self, combination: u64, origin: Origin, enough: usize) -> Change {
        let Self::Known(combinations) = self else { return Change::default() };
        let known = combinations.len();
        let kept = combinations.entry(combination).or_default();
        kept.records += 1;
        let Change { before, after } = kept.contributors.add(origin, enough);
        if combinations.len() == known {
            return Change { before, after };
        }
        Change { before: before + combinations_bytes(known), after: after + combinations_bytes(known + 1) }
    }

    /// Adds what another part of the cell holds. Where one of them did not keep it, the other one forgets it: then these
    /// are its contributors.
    pub(super) fn merge(&mut self, other: Self, enough: usize) -> Contributors {
        let mut forgotten = Contributors::default();
        let (mine, theirs) = match (&mut *self, other) {
            (Self::Known(mine), Self::Known(theirs)) => (mine, theirs),
            (Self::Known(known), Self::Unknown) => {
                for (_, kept) in known.drain() {
                    forgotten.merge(kept.contributors, enough);
                }
                *self = Self::Unknown;
                return forgotten;
            }
            (Self::Unknown, Self::Known(known)) => {
                for (_, kept) in known {
                    forgotten.merge(kept.contributors, enough);
                }
                return forgotten;
            }
            (Self::Unknown, Self::Unknown) => return forgotten,
        };
        for (combination, theirs) in theirs {
            match mine.entry(combination) {
                Entry::Occupied(mut mine) => {
                    mine.get_mut().records += theirs.records;
                    mine.get_mut().contributors.merge(theirs.contributors, enough);
                }
                Entry::Vacant(place) => {
                    place.insert(theirs);
                }
            }
        }
        forgotten
    }

    /// The contributors of each combination.
    pub(super) fn contributors(&self) -> impl Iterator<Item = &Contributors> {
        let known = if let Self::Known(combinations) = self { Some(combinations.values()) } else { None };
        known.into_iter().flatten().map(|kept| &kept.contributors)
    }

    /// The combinations that there are, in any order, each with how many records it has.
    pub(super) fn counts(&self) -> impl Iterator<Item = (u64, u64)> {
        let known = if let Self::Known(combinations) = self { Some(combinations) } else { None };
        known.into_iter().flatten().map(|(number, kept)| (*number, kept.records))
    }

    /// The combinations that there are, in the order of their numbers. `None`: it was not kept.
    pub(super) fn in_order(&self) -> Option<Vec<(u64, &Combination)>> {
        let Self::Known(combinations) = self else { return None };
        let mut in_order: Vec<_> = combinations.iter().map(|(number, kept)| (*number, kept)).collect();
        in_order.sort_unstable_by_key(|(number, _)| *number);
        Some(in_order)
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Known(combinations) => {
                let sets: usize = combinations.values().map(|kept| kept.contributors.bytes()).sum();
                combinations_bytes(combinations.len()) + sets
            }
            Self::Unknown => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_table_are_never_below_what_is_allocated() {
        let mut table: HashMap<u64, Combination, RandomState> = HashMap::default();
        for combination in 0..100_000 {
            table.insert(combination, Combination::default());
            let places = (table.capacity() * 8).div_ceil(7).next_power_of_two().max(4);
            let place = size_of::<(u64, Combination)>() + 1;
            assert!(combinations_bytes(table.len()) >= places * place + 16, "{} combinations", table.len());
        }
        assert_eq!(combinations_bytes(0), 0);
    }
}
