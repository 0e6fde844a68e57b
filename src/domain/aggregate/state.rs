//! What metrics keep of the cells of a window.

use super::moments::Moments;
use crate::domain::dataset::{Dataset, Function};

/// What one metric keeps, per slot.
pub(super) enum State {
    /// The count of records is kept for all cells.
    Count,
    Moments(Vec<Moments>),
    /// The records are kept by the parts that the metric parts them into, for all cells.
    Parts,
    /// What the metric at this position keeps, which is of the same values.
    Same(usize),
}

impl State {
    /// What each of a dataset's metrics keeps, of no cells yet.
    pub(super) fn of(dataset: &Dataset) -> Vec<Self> {
        let states = dataset.metrics.iter().enumerate().map(|(position, metric)| match &metric.function {
            Function::Count => Self::Count,
            Function::Sum(measure) | Function::Mean(measure) | Function::Variance(measure) => {
                let first = dataset.metrics.iter().position(|other| other.function.measure() == Some(measure));
                first.filter(|first| *first < position).map_or(Self::Moments(Vec::new()), Self::Same)
            }
            Function::Histogram { .. } | Function::Fraction { .. } => Self::Parts,
        });
        states.collect()
    }

    /// How many columns are summed.
    pub(super) fn summed(metrics: &[Self]) -> usize {
        metrics.iter().filter(|state| matches!(state, Self::Moments(_))).count()
    }

    /// A cell appears.
    pub(super) fn appear(&mut self) {
        match self {
            Self::Count | Self::Parts | Self::Same(_) => {}
            Self::Moments(moments) => moments.push(Moments::default()),
        }
    }

    /// Adds what another part holds; its slots are at these places here.
    pub(super) fn merge(&mut self, other: &Self, places: &[usize]) {
        if let (Self::Moments(mine), Self::Moments(theirs)) = (self, other) {
            places.iter().zip(theirs).for_each(|(&slot, theirs)| mine[slot].merge(theirs));
        }
    }

    /// Bytes that it keeps of one cell.
    pub(super) fn bytes_of_a_cell(&self) -> usize {
        match self {
            Self::Count | Self::Parts | Self::Same(_) => 0,
            Self::Moments(_) => size_of::<Moments>(),
        }
    }
}
