//! Sets of contributors.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use siphasher::sip128::SipHasher13;

/// What a hash table of contributors holds at least: four places of 17 bytes, and its end.
pub(super) const FIRST_CONTRIBUTOR: usize = 4 * 17 + 16;
/// What one more contributor adds at most: 17 bytes for each place, of which there are at most 16 for 7 contributors.
const EACH_CONTRIBUTOR: usize = (17 * 16_usize).div_ceil(7);

/// Bytes of a set of so many contributors.
pub(super) fn set_bytes(contributors: usize) -> usize {
    match contributors {
        0 => 0,
        more => FIRST_CONTRIBUTOR + EACH_CONTRIBUTOR * (more - 1),
    }
}

/// By how much the bytes of what is kept changed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Change {
    pub(super) before: usize,
    pub(super) after: usize,
}

/// The secret under which contributors are hashed.
#[derive(Clone, Copy)]
pub struct ContributorKey(pub [u8; 16]);

/// A contributor, hashed.
pub type Contributor = u128;

impl ContributorKey {
    /// Hashes the contributor of every record. All records without one are one contributor.
    #[must_use]
    pub fn hash(&self, column: &ArrayRef) -> Vec<Contributor> {
        let hasher = SipHasher13::new_with_key(&self.0);
        let hash = |bytes: &[u8]| hasher.hash(bytes).as_u128();
        let nobody = hash(&[]);
        let rows = 0..column.len();
        let or_nobody = |row: usize, contributor: &dyn Fn() -> Contributor| {
            if column.is_valid(row) { contributor() } else { nobody }
        };
        match column.data_type() {
            DataType::Utf8 => {
                let values = column.as_string::<i32>();
                rows.map(|row| or_nobody(row, &|| hash(values.value(row).as_bytes()))).collect()
            }
            DataType::Int64 => {
                let values = column.as_primitive::<Int64Type>();
                rows.map(|row| or_nobody(row, &|| hash(&values.value(row).to_le_bytes()))).collect()
            }
            // The loader takes no contributor of another type.
            _ => rows.map(|_| nobody).collect(),
        }
    }
}

/// Passes a hash through: contributors are hashed already.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PassThrough(u64);

impl Hasher for PassThrough {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_u128(&mut self, contributor: u128) {
        self.0 = contributor as u64;
    }

    fn write_u64(&mut self, half: u64) {
        self.0 = half;
    }
}

/// Hashed contributors, each once.
pub(super) type Set = HashSet<Contributor, BuildHasherDefault<PassThrough>>;

/// So many contributors are enough for every rule: a set that has them is no longer kept.
///
/// The policies' loader takes no greater `min_contributors`, and no rule asks for more than whether there are that many. A
/// rule that needs more than that (an exact count, bounds of what one contributor adds) needs sets that are kept. The
/// number is part of the cells' version in checkpoints: with another number the version is another.
pub const ENOUGH: usize = 1_000;

/// Distinct contributors: a set of them, or that there are enough.
///
/// What it is depends only on who was added, not on the order or on how it was merged: a set below the number that is
/// enough, `Enough` from there on.
#[derive(Debug, Clone)]
pub(super) enum Contributors {
    Few(Set),
    Enough,
}

impl Default for Contributors {
    fn default() -> Self {
        Self::Few(Set::default())
    }
}

impl Contributors {
    /// Adds one; `enough` of them are. Whether anything changed.
    #[inline]
    pub(super) fn insert(&mut self, contributor: Contributor, enough: usize) -> bool {
        let Self::Few(set) = self else { return false };
        let is_new = set.insert(contributor);
        if is_new && set.len() >= enough {
            *self = Self::Enough;
        }
        is_new
    }

    /// The same, with how many bytes it takes.
    #[inline]
    pub(super) fn add(&mut self, contributor: Contributor, enough: usize) -> Change {
        let before = self.bytes();
        let is_new = self.insert(contributor, enough);
        if is_new { Change { before, after: self.bytes() } } else { Change::default() }
    }

    /// Adds those of another part of the cell.
    pub(super) fn merge(&mut self, other: Self, enough: usize) {
        match (&mut *self, other) {
            (Self::Enough, _) => {}
            (_, Self::Enough) => *self = Self::Enough,
            (Self::Few(mine), Self::Few(mut theirs)) => {
                if mine.len() < theirs.len() {
                    std::mem::swap(mine, &mut theirs);
                }
                // One by one: `extend` makes room for all of them, also for those that are there already.
                for contributor in theirs {
                    self.insert(contributor, enough);
                }
            }
        }
    }

    /// How many are kept.
    pub(super) fn known(&self) -> usize {
        match self {
            Self::Few(set) => set.len(),
            Self::Enough => 0,
        }
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        set_bytes(self.known())
    }
}

/// Distinct contributors of several sets together, until there are as many as are asked for.
#[derive(Debug)]
pub(super) struct Together {
    least: usize,
    /// Whether so many can be told at all.
    can_tell: bool,
    seen: Set,
    suffice: bool,
}

impl Together {
    /// None yet. At least `least` are asked for; more than `enough` cannot be told.
    pub(super) fn new(least: usize, enough: usize) -> Self {
        let can_tell = least <= enough;
        Self { least, can_tell, seen: Set::default(), suffice: can_tell && least == 0 }
    }

    /// Adds those of a set.
    pub(super) fn add(&mut self, set: &Contributors) {
        if self.suffice || !self.can_tell {
            return;
        }
        self.suffice = match set {
            Contributors::Enough => true,
            Contributors::Few(set) => set.iter().any(|contributor| {
                self.seen.insert(*contributor);
                self.seen.len() >= self.least
            }),
        };
    }

    /// Whether there are as many as are asked for. If more are asked for than can be told, there are not.
    pub(super) fn suffice(&self) -> bool {
        self.suffice
    }
}

/// Whether there are so many distinct contributors in these sets together. More than `enough` cannot be told: then there
/// are not.
pub(super) fn at_least<'c>(sets: impl IntoIterator<Item = &'c Contributors>, least: usize, enough: usize) -> bool {
    let mut together = Together::new(least, enough);
    let mut sets = sets.into_iter();
    while !together.suffice() {
        let Some(set) = sets.next() else { return false };
        together.add(set);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_set_are_never_below_those_of_its_table() {
        let mut set = HashSet::new();
        for contributor in 0..100_000_u128 {
            set.insert(contributor);
            let places = (set.capacity() * 8).div_ceil(7).next_power_of_two().max(4);
            assert!(set_bytes(set.len()) >= places * 17 + 16, "{} contributors", set.len());
        }
        assert_eq!(set_bytes(0), 0);
    }
}
