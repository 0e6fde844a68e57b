//! Contributors as hashes, and what tables of them take.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use siphasher::sip::SipHasher24;
use siphasher::sip128::SipHasher13;

/// Bytes of a hash table of so many entries of a size: at least four places and its end, and at most 16 places for 7 entries.
pub(super) const fn table_bytes(entries: usize, entry: usize) -> usize {
    match entries {
        0 => 0,
        more => 4 * (entry + 1) + 16 + ((entry + 1) * 16).div_ceil(7) * (more - 1),
    }
}

/// What a set of contributors holds at least.
pub(super) const FIRST_CONTRIBUTOR: usize = set_bytes(1);

/// Bytes of a set of so many contributors.
pub(super) const fn set_bytes(contributors: usize) -> usize {
    table_bytes(contributors, size_of::<Contributor>())
}

/// By how much the bytes of what is kept changed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Change {
    pub(super) before: usize,
    pub(super) after: usize,
}

impl Change {
    /// Another one came after it.
    pub(super) fn add(&mut self, other: Self) {
        self.before += other.before;
        self.after += other.after;
    }
}

/// The secret under which contributors are hashed, and what else of the journal must not be found by trying.
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

    /// What stands for the flush at a position of the journal: never 0. It goes into ids, which leave, and the position tells
    /// how many entries there are.
    #[must_use]
    pub fn part(&self, flushed_at: u64) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(b"part ");
        hasher.write(&flushed_at.to_le_bytes());
        hasher.finish().max(1)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_is_known_by_the_same_number_again_and_by_another_one_under_another_key() {
        let golden: Vec<u64> =
            include_str!("../../../tests/golden/part-1.txt").lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!([1, 2, u64::MAX].map(|position| ContributorKey([7; 16]).part(position)), *golden);
        assert_ne!(ContributorKey([8; 16]).part(1), ContributorKey([7; 16]).part(1));
    }

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
