//! The records of a cell by the combinations of parts that they are in.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::brought::Origin;
use super::contributors::Contributors;
use super::hashed::{Change, table_bytes};

/// The records of a cell by their combinations.
#[derive(Debug, Clone)]
pub(super) enum Parted {
    /// Those of each combination that there is.
    Known(Combinations),
    /// It was not kept: an older version began the window.
    Unknown,
}

/// The records of each combination, by its number.
#[derive(Debug, Clone)]
pub(super) enum Combinations {
    /// So few that to look at one after the other is quicker than a hash.
    Few(Vec<(u64, Combination)>),
    Many(HashMap<u64, Combination, RandomState>),
}

/// So many combinations are few. [`Sets`] tells 15 apart.
const FEW: usize = 8;

/// Sets of a cell that it is known of that somebody is in them, so that it need not be looked up: the set of the cell, and
/// those of its combinations while they are few. Nobody ever leaves a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sets(u16);

impl Sets {
    pub(super) const NONE: Self = Self(0);
    /// That of a cell whose records are not kept by their combinations.
    pub(super) const OF_CELL: Self = Self(1);

    fn of(place: usize) -> Self {
        Self(2 << place)
    }

    /// Whether one set is among these.
    #[inline]
    pub(super) fn contain(self, one: Self) -> bool {
        self.0 & one.0 != 0
    }

    /// These and another one.
    #[inline]
    pub(super) fn and(self, one: Self) -> Self {
        Self(self.0 | one.0)
    }
}

/// The records of one combination.
#[derive(Debug, Clone, Default)]
pub(super) struct Combination {
    pub(super) records: u64,
    pub(super) contributors: Contributors,
}

impl Default for Parted {
    fn default() -> Self {
        Self::Known(Combinations::default())
    }
}

impl Default for Combinations {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

/// Of two with the same number it is the last.
impl FromIterator<(u64, Combination)> for Combinations {
    fn from_iter<I: IntoIterator<Item = (u64, Combination)>>(all: I) -> Self {
        let mut combinations = Self::default();
        for (number, kept) in all {
            match combinations.get_mut(number) {
                Some(known) => *known = kept,
                None => combinations.insert(number, kept),
            }
        }
        combinations
    }
}

impl Combinations {
    fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }

    #[inline]
    fn get_mut(&mut self, number: u64) -> Option<&mut Combination> {
        self.find_mut(number).map(|(kept, _)| kept)
    }

    /// One of them, with what stands for its set.
    #[inline]
    fn find_mut(&mut self, number: u64) -> Option<(&mut Combination, Sets)> {
        match self {
            Self::Few(few) => {
                let at = few.iter().position(|(known, _)| *known == number)?;
                few.get_mut(at).map(|(_, kept)| (kept, Sets::of(at)))
            }
            Self::Many(many) => many.get_mut(&number).map(|kept| (kept, Sets::NONE)),
        }
    }

    /// Adds one that is not there.
    fn insert(&mut self, number: u64, kept: Combination) {
        match self {
            Self::Few(few) if few.len() < FEW => few.push((number, kept)),
            Self::Few(few) => *self = Self::Many(std::mem::take(few).into_iter().chain([(number, kept)]).collect()),
            Self::Many(many) => {
                many.insert(number, kept);
            }
        }
    }

    /// All of them, in any order.
    fn iter(&self) -> impl Iterator<Item = (u64, &Combination)> {
        let (few, many) = match self {
            Self::Few(few) => (few.as_slice(), None),
            Self::Many(many) => (&[][..], Some(many)),
        };
        let few = few.iter().map(|(number, kept)| (*number, kept));
        few.chain(many.into_iter().flatten().map(|(number, kept)| (*number, kept)))
    }

    fn into_all(self) -> impl Iterator<Item = (u64, Combination)> {
        let (few, many) = match self {
            Self::Few(few) => (few, None),
            Self::Many(many) => (Vec::new(), Some(many)),
        };
        few.into_iter().chain(many.into_iter().flatten())
    }
}

/// What a table of combinations holds at least.
pub(super) const FIRST_COMBINATION: usize = combinations_bytes(1);

/// Bytes of a table of so many combinations, without their sets. Few of them, in a list, take less.
const fn combinations_bytes(combinations: usize) -> usize {
    table_bytes(combinations, size_of::<(u64, Combination)>())
}

impl Parted {
    /// Adds a record of a contributor that a producer brought, and is known to be in some sets; a set of `enough`
    /// contributors ends. Also in which set the contributor is now, if that can be told.
    #[inline]
    pub(super) fn add(&mut self, combination: u64, origin: Origin, enough: usize, is_in: Sets) -> (Change, Sets) {
        let Self::Known(combinations) = self else { return Default::default() };
        if let Some((kept, set)) = combinations.find_mut(combination) {
            kept.records += 1;
            let change = if is_in.contain(set) { Change::default() } else { kept.contributors.add(origin, enough) };
            return (change, set);
        }
        let known = combinations.len();
        let mut kept = Combination { records: 1, ..Combination::default() };
        let Change { before, after } = kept.contributors.add(origin, enough);
        combinations.insert(combination, kept);
        let change =
            Change { before: before + combinations_bytes(known), after: after + combinations_bytes(known + 1) };
        (change, Sets::NONE)
    }

    /// Adds what another part of the cell holds. Where one of them did not keep it, the other one forgets it: then these
    /// are its contributors.
    pub(super) fn merge(&mut self, other: Self, enough: usize) -> Contributors {
        let mut forgotten = Contributors::default();
        let (mine, theirs) = match (&mut *self, other) {
            (Self::Known(mine), Self::Known(theirs)) => (mine, theirs),
            (Self::Known(known), Self::Unknown) => {
                for (_, kept) in std::mem::take(known).into_all() {
                    forgotten.merge(kept.contributors, enough);
                }
                *self = Self::Unknown;
                return forgotten;
            }
            (Self::Unknown, Self::Known(known)) => {
                for (_, kept) in known.into_all() {
                    forgotten.merge(kept.contributors, enough);
                }
                return forgotten;
            }
            (Self::Unknown, Self::Unknown) => return forgotten,
        };
        for (combination, theirs) in theirs.into_all() {
            match mine.get_mut(combination) {
                Some(mine) => {
                    mine.records += theirs.records;
                    mine.contributors.merge(theirs.contributors, enough);
                }
                None => mine.insert(combination, theirs),
            }
        }
        forgotten
    }

    /// The contributors of each combination.
    pub(super) fn contributors(&self) -> impl Iterator<Item = &Contributors> {
        let known = if let Self::Known(combinations) = self { Some(combinations.iter()) } else { None };
        known.into_iter().flatten().map(|(_, kept)| &kept.contributors)
    }

    /// The combinations that there are, in any order, each with how many records it has.
    pub(super) fn counts(&self) -> impl Iterator<Item = (u64, u64)> {
        let known = if let Self::Known(combinations) = self { Some(combinations.iter()) } else { None };
        known.into_iter().flatten().map(|(number, kept)| (number, kept.records))
    }

    /// The combinations that there are, in the order of their numbers. `None`: it was not kept.
    pub(super) fn in_order(&self) -> Option<Vec<(u64, &Combination)>> {
        let Self::Known(combinations) = self else { return None };
        let mut in_order: Vec<_> = combinations.iter().collect();
        in_order.sort_unstable_by_key(|(number, _)| *number);
        Some(in_order)
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Known(combinations) => {
                let sets: usize = combinations.iter().map(|(_, kept)| kept.contributors.bytes()).sum();
                combinations_bytes(combinations.len()) + sets
            }
            Self::Unknown => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::aggregate::Producer;

    proptest! {
        #[test]
        fn few_combinations_are_counted_as_many_are(
            numbers in prop::collection::vec((0..4 * FEW as u64, any::<bool>()), 0..100),
        ) {
            let (mut one, mut other) = (Parted::default(), Parted::default());
            let mut counted = BTreeMap::<u64, u64>::new();
            let mut bytes = [0, 0];
            for (number, is_one) in &numbers {
                let part = if *is_one { &mut one } else { &mut other };
                let (change, _) = part.add(*number, Origin { contributor: u128::from(*number), producer: Producer::UNKNOWN }, 10, Sets::NONE);
                let bytes = &mut bytes[usize::from(*is_one)];
                *bytes = *bytes + change.after - change.before;
                *counted.entry(*number).or_default() += 1;
            }
            prop_assert_eq!(bytes, [other.bytes(), one.bytes()]);
            one.merge(other, 10);
            let Parted::Known(combinations) = &one else { unreachable!() };
            prop_assert_eq!(matches!(combinations, Combinations::Many(_)), counted.len() > FEW);
            prop_assert!(one.counts().collect::<BTreeMap<_, _>>() == counted && one.counts().count() == counted.len());
            let in_order = one.in_order().unwrap();
            prop_assert!(in_order.iter().map(|(number, kept)| (*number, kept.records)).eq(counted.clone()));
            prop_assert!(in_order.iter().all(|(_, kept)| kept.contributors.known() == 1));
            prop_assert_eq!(one.contributors().count(), counted.len());
            // One that stands twice among what is read is the last.
            let read = numbers.iter().zip(0..).map(|((number, _), records)| {
                (*number, Combination { records, ..Combination::default() })
            });
            let last: BTreeMap<_, _> = numbers.iter().zip(0..).map(|((number, _), records)| (*number, records)).collect();
            prop_assert_eq!(Parted::Known(read.collect()).counts().collect::<BTreeMap<_, _>>(), last);
        }
    }

    #[test]
    fn the_bytes_of_a_table_are_never_below_what_is_allocated() {
        let mut combinations = Combinations::default();
        for combination in 0..100_000 {
            combinations.insert(combination, Combination::default());
            let allocated = match &combinations {
                Combinations::Few(few) => few.capacity() * size_of::<(u64, Combination)>(),
                Combinations::Many(many) => {
                    let places = (many.capacity() * 8).div_ceil(7).next_power_of_two().max(4);
                    places * (size_of::<(u64, Combination)>() + 1) + 16
                }
            };
            let known = combinations.len();
            assert!(combinations_bytes(known) >= allocated, "{known} combinations");
        }
        assert_eq!(combinations_bytes(0), 0);
    }
}
