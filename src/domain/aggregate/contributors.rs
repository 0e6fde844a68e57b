//! Sets of contributors, and of which of them have a value in a field that may be missing.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::open_bytes::{SPLIT, set_bytes};

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

    /// Whether there are at least so many. More than are enough cannot be told: then there are not.
    pub(super) fn at_least(&self, least: usize, enough: usize) -> bool {
        match self {
            Self::Few(set) => set.len() >= least,
            Self::Enough => enough >= least,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Few(set) if set.is_empty())
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Few(set) => set_bytes(set.len()),
            Self::Enough => 0,
        }
    }
}

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
    pub(super) fn merge(&mut self, all: &Contributors, other: Self, others: &Contributors, enough: usize) {
        match other {
            Self::Unknown => *self = Self::Unknown,
            Self::Whole => {
                if let Self::Split(split) = self {
                    split.with.merge(others.clone(), enough);
                }
            }
            Self::Split(other) => {
                if let Some(split) = self.split(all) {
                    split.with.merge(other.with, enough);
                    split.without.merge(other.without, enough);
                }
            }
        }
    }

    /// Whether what is computed from the records that have a value may leave a cell of at least `least` contributors:
    /// they come from at least as many, and those without a value from none or from at least as many.
    pub(super) fn holds(&self, least: usize, enough: usize) -> bool {
        match self {
            Self::Whole => true,
            Self::Split(split) => {
                split.with.at_least(least, enough)
                    && (split.without.is_empty() || split.without.at_least(least, enough))
            }
            Self::Unknown => false,
        }
    }

    /// Bytes of memory. Before a first record without a value: those that it takes, when it comes, to keep a set of
    /// `all` contributors of the cell.
    pub(super) fn bytes(&self, all: &Contributors) -> usize {
        match self {
            Self::Whole | Self::Unknown => all.bytes(),
            Self::Split(split) => SPLIT + split.with.bytes() + split.without.bytes(),
        }
    }
}
