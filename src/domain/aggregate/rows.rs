//! The records of a batch that go into one window.

use super::Foldable;
use super::hashed::Contributor;

/// The records of a batch that go into one window.
pub enum Rows<'r> {
    /// All of them.
    All,
    /// These positions.
    Some(&'r [u32]),
}

impl Rows<'_> {
    /// How many of a batch of so many they are.
    pub(super) fn len(&self, total: usize) -> usize {
        match self {
            Self::All => total,
            Self::Some(rows) => rows.len(),
        }
    }

    pub(super) fn each(&self, total: usize, mut visit: impl FnMut(usize)) {
        match self {
            Self::All => (0..total).for_each(visit),
            Self::Some(rows) => rows.iter().for_each(|&row| visit(row as usize)),
        }
    }
}

/// Calls `visit` with the position, the slot and the contributor of each of these records. `slots`: those of all of them.
#[inline]
pub(super) fn each_contributor(
    records: &Foldable<'_>,
    rows: &Rows<'_>,
    slots: &[u32],
    mut visit: impl FnMut(usize, usize, Contributor),
) {
    let mut slots = slots.iter();
    rows.each(records.cells.len(), |row| {
        if let (Some(&slot), Some(&contributor)) = (slots.next(), records.contributors.get(row)) {
            visit(row, slot as usize, contributor);
        }
    });
}
