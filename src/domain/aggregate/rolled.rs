//! Cells of a window that are merged into one.

use super::Cells;
use crate::domain::dataset::Dataset;

impl Cells {
    /// Whether it is known that a slot's cell has at most so many distinct contributors.
    pub(in crate::domain) fn has_at_most(&self, slot: usize, most: usize) -> bool {
        // There are no more than records. Of a set that has ended it is known that it has as many as are enough.
        self.records.get(slot).is_some_and(|records| *records <= most as u64)
            || !self.has(slot, most.saturating_add(1).min(self.enough), false)
    }

    /// Merges the cells whose numbers are wanted: those to which `to` gives the same number become one cell. Somebody
    /// who is in several of them is one contributor. Where the records of one contributor are bounded, the bound holds
    /// in the merged cell, too. The result counts among what the open windows hold if these cells do.
    pub(in crate::domain) fn merged(
        &self,
        dataset: &Dataset,
        is_wanted: impl Fn(u32) -> bool,
        to: impl Fn(u32) -> u32,
    ) -> Self {
        if let Some(drawn) = &self.drawn {
            return self.made_of(dataset, drawn.moved(is_wanted, to));
        }
        let mut apart = self.some(is_wanted);
        apart.numbers.iter_mut().for_each(|number| *number = to(*number));
        let mut merged = self.some(|_| false);
        merged.merge(apart);
        // Several of them went to one place, and were counted there more than once.
        merged.set_bytes = (0..merged.numbers.len()).map(|slot| merged.bytes_of_sets(slot)).sum();
        merged.charge.set(merged.bytes(), merged.len());
        merged
    }
}
