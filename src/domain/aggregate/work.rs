//! How much work the plan of one cell may take.

use std::cell::Cell;

/// Steps for each combination of parts and each contributor that a cell holds. What is usual takes 40 at most.
const STEPS_FOR_EACH: u64 = 128;
/// Steps for a cell that holds next to nothing.
const STEPS_LEAST: u64 = 65_536;

/// Steps for the sums of a cell, and so many more for each number of what its contributors add.
const STEPS_FOR_SUMS: (u64, u64) = (1 << 22, 128);

/// The steps that are left for the plan of one cell: looks at a contributor, at a combination, or at a pair of parts.
///
/// They are given out once for a cell, by what it holds: so the plans of all cells take no more than a multiple of what
/// the windows may hold. When none is left, every question of the plan is answered with no, which merges and withholds.
#[derive(Debug)]
pub(super) struct Work(Cell<u64>);

impl Work {
    /// That for a cell of so many combinations of parts, with so many contributors in all their sets.
    pub(super) fn for_cell(combinations: usize, contributors: usize) -> Self {
        let held = (combinations as u64).saturating_add(contributors as u64);
        Self(Cell::new(held.saturating_mul(STEPS_FOR_EACH).saturating_add(STEPS_LEAST)))
    }

    /// One of so many parts of that for the sums of a cell, of so many numbers.
    pub(super) fn for_sums(numbers: usize, parts: usize) -> Self {
        let (least, for_each) = STEPS_FOR_SUMS;
        let all = (numbers as u64).saturating_mul(for_each).saturating_add(least);
        Self(Cell::new(all / parts.max(1) as u64))
    }

    /// Takes steps. Whether there were so many; if not, there is none any more.
    pub(super) fn take(&self, steps: usize) -> bool {
        let left = self.0.get().checked_sub(steps as u64);
        self.0.set(left.unwrap_or(0));
        left.is_some()
    }

    /// Whether no step is left.
    pub(super) fn is_over(&self) -> bool {
        self.0.get() == 0
    }

    /// So many steps are left.
    #[cfg(test)]
    pub(super) fn of(steps: u64) -> Self {
        Self(Cell::new(steps))
    }

    /// How many steps are left.
    #[cfg(test)]
    pub(super) fn left(&self) -> u64 {
        self.0.get()
    }
}
