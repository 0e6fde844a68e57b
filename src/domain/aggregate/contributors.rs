//! Sets of contributors, and of which of them have a value in a field that may be missing.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::open_bytes::split_bytes;

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
        let hash = |bytes: &[u8]| {
            let mut hasher = hasher;
            hasher.write(bytes);
            hasher.finish128().as_u128()
        };
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
}

pub(super) type Contributors = HashSet<Contributor, BuildHasherDefault<PassThrough>>;

/// Which of a cell's contributors have a value in one field.
///
/// Sets are kept only from the first record without a value on: before, all contributors of the cell have one.
#[derive(Debug, Clone, Default)]
pub(super) enum Presence {
    /// Every record has a value.
    #[default]
    Whole,
    /// Not every record has one.
    Split(Box<Split>),
    /// It was not kept.
    Unknown,
}

/// The contributors of a cell by what their records hold. One who has records of both kinds is in both.
#[derive(Debug, Clone, Default)]
pub(super) struct Split {
    /// Those with at least one record that has a value.
    pub(super) with: Contributors,
    /// Those with at least one record that has none.
    pub(super) without: Contributors,
}

impl Presence {
    /// Both sets. `all` are the cell's contributors so far. `None`: they cannot be known.
    pub(super) fn split(&mut self, all: &Contributors) -> Option<&mut Split> {
        if matches!(self, Self::Whole) {
            *self = Self::Split(Box::new(Split { with: all.clone(), without: Contributors::default() }));
        }
        match self {
            Self::Split(split) => Some(split),
            Self::Whole | Self::Unknown => None,
        }
    }

    /// Adds what another part of the cell holds. `all` and `others` are the contributors of both parts, before they are
    /// put together.
    pub(super) fn merge(&mut self, all: &Contributors, other: &Self, others: &Contributors) {
        match other {
            Self::Unknown => *self = Self::Unknown,
            Self::Whole => {
                if let Self::Split(split) = self {
                    split.with.extend(others);
                }
            }
            Self::Split(other) => {
                if let Some(split) = self.split(all) {
                    split.with.extend(&other.with);
                    split.without.extend(&other.without);
                }
            }
        }
    }

    /// Whether what is computed from the records that have a value may leave a cell of at least `least` contributors:
    /// they come from at least as many, and those without a value from none or from at least as many.
    pub(super) fn holds(&self, least: usize) -> bool {
        match self {
            Self::Whole => true,
            Self::Split(split) => {
                split.with.len() >= least && (split.without.is_empty() || split.without.len() >= least)
            }
            Self::Unknown => false,
        }
    }

    /// Bytes of memory of those without a value. Those with one are counted with the cell's contributors, whom they may
    /// all be.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Whole | Self::Unknown => 0,
            Self::Split(split) => split_bytes(split.without.len()),
        }
    }
}
