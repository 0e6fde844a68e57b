//! What may be promised so that it can be written, whatever order it comes in.

use std::collections::BTreeMap;

/// What is promised and not durable yet, and what there is to put it in.
#[derive(Debug, Default)]
pub(super) struct Promises {
    /// How many promises there are of each cost.
    costs: BTreeMap<u64, usize>,
    total: u64,
    count: u64,
    /// Bytes left in the segment being written.
    pub(super) current: u64,
    /// Bytes for frames in the next one, if it is ready.
    pub(super) spare: Option<u64>,
}

impl Promises {
    /// Whether one more can be kept.
    ///
    /// All of it goes into the current segment; or all of it into the spare; or the current one is left when an entry
    /// does not fit any more, so that less than the largest entry is wasted, and the rest goes into the spare.
    pub(super) fn fits(&self, cost: u64) -> bool {
        let total = self.total.saturating_add(cost);
        let largest = self.costs.last_key_value().map_or(cost, |(largest, _)| cost.max(*largest));
        total <= self.current
            || self.spare.is_some_and(|spare| {
                total <= spare || total.saturating_add(largest) <= spare.saturating_add(self.current)
            })
    }

    pub(super) fn promise(&mut self, cost: u64) {
        *self.costs.entry(cost).or_default() += 1;
        self.total = self.total.saturating_add(cost);
        self.count += 1;
    }

    pub(super) fn give_back(&mut self, cost: u64) {
        if let Some(count) = self.costs.get_mut(&cost) {
            *count -= 1;
            if *count == 0 {
                self.costs.remove(&cost);
            }
            self.total = self.total.saturating_sub(cost);
            self.count -= 1;
        }
    }

    /// How many promises there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_promised_fits_in_the_worst_order() {
        let mut promises = Promises { current: 100, spare: Some(300), ..Promises::default() };
        for cost in [90, 90, 90] {
            assert!(promises.fits(cost));
            promises.promise(cost);
        }
        // 90 into the current one, 10 wasted, and the spare holds 300 more: 4 * 90 would do, but 100 + 3 * 90 not
        // always.
        assert!(!promises.fits(100));
        promises.give_back(90);
        assert!(promises.fits(100));
    }

    #[test]
    fn without_a_spare_only_the_current_segment_counts() {
        let promises = Promises { current: 100, ..Promises::default() };
        assert!(promises.fits(100));
        assert!(!promises.fits(101));
    }
}
