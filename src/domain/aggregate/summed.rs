//! Which sums of a cell may leave.

use super::Cells;
use super::moments::Moments;
use super::plan::Plan;
use super::points::Points;
use super::rule::PartRule;
use super::state::State;
use super::ways::{By, ways};
use super::{off_most, squares};
use crate::domain::dataset::{Dataset, Measure};

impl Cells {
    /// Of each summed column of a slot whether its sums may leave, and whether its squares may.
    pub(super) fn sums_that_leave(
        &self,
        dataset: &Dataset,
        slot: usize,
        rule: PartRule,
        finer: Option<&Plan>,
    ) -> (Vec<bool>, Vec<bool>) {
        let leaves = |column| self.sum_holds(slot, column, rule) && finer.is_none_or(|finer| finer.sum_leaves(column));
        let sums: Vec<bool> = (0..self.summed).map(leaves).collect();
        if rule.percent == 0 || !sums.contains(&true) {
            return (sums.clone(), sums);
        }
        let columns: Vec<(&Measure, &[Moments])> = self.summed_columns(dataset).collect();
        let steps: Vec<f64> = columns.iter().map(|(measure, _)| measure.scale().ends().steps()).collect();
        let portions = &self.portions[slot];
        let brought = if portions.are_shared() { None } else { self.producer_sums[slot].brought_alone() };
        let points = Points::new(portions.by_contributor(self.summed), &steps, brought.as_ref());
        let sums = off_most::together(&points, &sums, rule);
        let squares = columns.iter().enumerate().map(|(column, (measure, moments))| {
            let asked = dataset.metrics.iter().any(|metric| metric.function.is_variance_of(measure));
            let total = moments.get(slot).and_then(|moments| moments.squares_off_ends(measure));
            let hold = |total| points.whoever_is_left_out(rule, |points| squares::hold(points, column, total, rule));
            asked && finer.is_none_or(|finer| finer.squares_leave(column)) && total.is_none_or(hold)
        });
        (sums, squares.collect())
    }

    /// The columns that are summed, and what is kept of their values.
    fn summed_columns<'c>(&'c self, dataset: &'c Dataset) -> impl Iterator<Item = (&'c Measure, &'c [Moments])> {
        let metrics = dataset.metrics.iter().zip(&self.metrics);
        metrics.filter_map(|(metric, state)| match state {
            State::Moments(moments) => Some((metric.function.measure()?, moments.as_slice())),
            _ => None,
        })
    }

    /// Whether the rules that no sum says much about one contributor hold for a summed column of a slot.
    fn sum_holds(&self, slot: usize, column: usize, rule: PartRule) -> bool {
        if rule.percent == 0 {
            return true;
        }
        let Some(ends) = self.portions[slot].at_ends(self.summed, column) else { return false };
        let hold = ends.iter().all(|end| end.holds(rule));
        hold && (!rule.asks_for_producers() || self.producer_sums[slot].hold(column, &ends, rule, self.enough))
    }

    /// What is kept of the values of a metric's column, and which of the summed columns that is.
    pub(super) fn moments(&self, metric: usize, slot: usize) -> Option<(usize, &Moments)> {
        let first = match self.metrics.get(metric)? {
            State::Same(first) => *first,
            _ => metric,
        };
        let State::Moments(moments) = self.metrics.get(first)? else { return None };
        Some((State::summed(self.metrics.get(..first)?), moments.get(slot)?))
    }

    /// Whether what is computed from all values of a column may leave. Of a field that every record has, every record must
    /// have counted.
    pub(super) fn holds(
        &self,
        dataset: &Dataset,
        measure: &Measure,
        slot: usize,
        moments: &Moments,
        plan: &Plan,
    ) -> bool {
        let column = measure.source.column;
        let presence = ways(dataset).iter().position(|way| way.by == By::Presence && way.source.column == column);
        match presence {
            Some(presence) => plan.groups(presence).is_some(),
            None => moments.values == self.records[slot],
        }
    }
}
