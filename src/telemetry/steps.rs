//! Counts of what may be in a cell, shown in steps.
//!
//! Whoever reads exact counts of records each second, and gets the released cells, can subtract: what was taken in and did
//! not leave is in the cells that were withheld. If that is one cell, its count is told, and a count below k must not be.
//! So a count is shown as a multiple of a step that is at least twice k. Where between two multiples the shown number
//! changes is chosen by chance at each start. docs/metrics.md says what this does not stop.

use std::fmt;

use siphasher::sip::SipHasher24;

/// A secret that chances come from: one for each thing that has a name, and who knows some of them cannot work out another.
#[derive(Clone, Copy, Default)]
pub struct Chances(pub [u8; 16]);

impl Chances {
    /// The chance of what has this name.
    pub(super) fn of(&self, name: &str) -> u64 {
        SipHasher24::new_with_key(&self.0).hash(name.as_bytes())
    }
}

impl fmt::Debug for Chances {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Chances")
    }
}

/// How counts of one stream are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    size: u64,
    phase: u64,
}

impl Default for Steps {
    /// Every count as it is.
    fn default() -> Self {
        Self { size: 1, phase: 0 }
    }
}

/// So many bytes of payload stand for one record: more than most records have.
const BYTES_OF_RECORD: u64 = 16 << 10;

impl Steps {
    /// Steps for counts of contributors to cells of which at least `k` leave together. `chance` is any number.
    #[must_use]
    pub fn new(k: usize, chance: u64) -> Self {
        let size = (k as u64).saturating_mul(2).max(1);
        Self { size, phase: chance % size }
    }

    /// The size of a step.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A count of records as it is shown: within one step of what it is, and never going back.
    #[must_use]
    pub fn records(&self, count: u64) -> u64 {
        count.saturating_add(self.phase) / self.size * self.size
    }

    /// A count of bytes as it is shown.
    #[must_use]
    pub fn bytes(&self, bytes: u64) -> u64 {
        let steps = Self { size: self.size * BYTES_OF_RECORD, phase: self.phase * BYTES_OF_RECORD };
        steps.records(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_count_never_goes_back_and_is_within_a_step() {
        for chance in 0..40 {
            let steps = Steps::new(10, chance);
            let mut last = 0;
            for count in 0..500 {
                let shown = steps.records(count);
                assert!(shown >= last && shown.is_multiple_of(20) && shown.abs_diff(count) < 20, "{count} {shown}");
                last = shown;
            }
            assert_eq!((steps.records(0), steps.bytes(0)), (0, 0));
        }
    }

    #[test]
    fn each_shown_count_stands_for_at_least_twice_k_counts() {
        let steps = Steps::new(10, 7);
        let mut each = std::collections::BTreeMap::new();
        (0..1_000).for_each(|count| *each.entry(steps.records(count)).or_insert(0) += 1);
        // But for the first and the last, of which a part is not there.
        let whole: Vec<usize> = each.values().skip(1).take(each.len() - 2).copied().collect();
        assert!(whole.iter().all(|counts| *counts == 20), "{whole:?}");
    }
}
