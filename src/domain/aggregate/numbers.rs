//! The numbers of all cells of a closed window, those without records too, as they get noise: whole numbers, in the order of
//! the cells' numbers. Cells that nobody is in would give themselves away by having no noise.

use super::brought::People;
use super::contributors::Of;
use super::ways::{By, parts_of, way_of, ways};
use super::{Cells, State};
use crate::domain::dataset::{Dataset, Measure};

/// How many cells a window of a dataset can have.
#[must_use]
pub fn cells_of(dataset: &Dataset) -> usize {
    dataset.keys.iter().map(|key| key.domain.size()).product()
}

/// The positions of a cell in the domains of a dataset's keys.
pub(in crate::domain) fn positions_of(dataset: &Dataset, cell: usize) -> Vec<usize> {
    let mut rest = cell;
    let positions = dataset.keys.iter().map(|key| {
        let size = key.domain.size();
        let position = rest % size;
        rest /= size;
        position
    });
    positions.collect()
}

/// The largest magnitude of the integers that a measure's values become, and how much one such step is, as a value.
#[must_use]
pub fn integers_of(measure: &Measure) -> (u64, f64) {
    let scale = measure.scale();
    let [low, high] = [measure.range.low, measure.range.high].map(|end| scale.integer(end).unsigned_abs());
    (low.max(high), scale.step())
}

impl Cells {
    /// A list with a number for each cell, or with several.
    fn of_all(
        &self,
        dataset: &Dataset,
        each: usize,
        mut put: impl FnMut(usize, &mut [i64]) -> Option<()>,
    ) -> Option<Vec<i64>> {
        let mut numbers = vec![0; cells_of(dataset) * each];
        for (slot, number) in self.numbers.iter().enumerate() {
            let first = *number as usize * each;
            put(slot, numbers.get_mut(first..first + each)?)?;
        }
        Some(numbers)
    }

    /// How many distinct contributors each cell has. `None`: that is not known, because a set has ended.
    pub(in crate::domain) fn contributors_of_all(&self, dataset: &Dataset) -> Option<Vec<i64>> {
        self.of_all(dataset, 1, |slot, to| {
            let mut people = People::default();
            for set in self.sets_of(slot) {
                set.gather(Of::All, &mut people)?;
            }
            to.fill(whole(people.len() as u64));
            Some(())
        })
    }

    /// How many records each cell has.
    pub(in crate::domain) fn records_of_all(&self, dataset: &Dataset) -> Option<Vec<i64>> {
        self.of_all(dataset, 1, |slot, to| {
            to.fill(whole(*self.records.get(slot)?));
            Some(())
        })
    }

    /// What the values of a metric's column add up to in each cell, in steps of 2^`shift` integers, rounded down.
    pub(in crate::domain) fn sums_of_all(&self, dataset: &Dataset, metric: usize, shift: u32) -> Option<Vec<i64>> {
        let State::Moments(moments) = self.metrics.get(metric)? else { return None };
        self.of_all(dataset, 1, |slot, to| {
            let sum = moments.get(slot)?.sum >> shift;
            to.fill(i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX }));
            Some(())
        })
    }

    /// How many records of each cell are in each range of a histogram.
    pub(in crate::domain) fn ranges_of_all(&self, dataset: &Dataset, metric: usize) -> Option<Vec<i64>> {
        let ways = ways(dataset);
        let wanted = way_of(&dataset.metrics.get(metric)?.function)?;
        let before = dataset.metrics.get(..metric)?.iter().filter(|metric| way_of(&metric.function).is_some()).count();
        let position = ways.iter().filter(|way| way.by == By::Presence).count() + before;
        self.of_all(dataset, wanted.parts_with_value(), |slot, to| {
            for (combination, records) in self.parted.get(slot)?.counts() {
                // Records without a value are in no range.
                if let Some(count) = to.get_mut(parts_of(&ways, combination).nth(position)?) {
                    *count = count.saturating_add(whole(records));
                }
            }
            Some(())
        })
    }
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
