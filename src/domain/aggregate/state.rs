//! What metrics keep of the cells of a window.

use super::moments::Moments;
use crate::domain::dataset::{Dataset, Function};

/// What one metric keeps, per slot.
pub(super) enum State {
    /// The count of records is kept for all cells.
    Count,
    Moments(Vec<Moments>),
    Histogram {
        buckets: usize,
        counts: Vec<u64>,
    },
    Shares(Vec<Share>),
    /// What the metric at this position keeps, which is of the same values.
    Same(usize),
}

/// How many records have a value, and how many of them the one that is looked for.
#[derive(Clone, Copy, Default)]
pub(super) struct Share {
    pub(super) values: u64,
    pub(super) matches: u64,
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
            Function::Histogram { edges, .. } => {
                Self::Histogram { buckets: edges.len().saturating_sub(1), counts: Vec::new() }
            }
            Function::Fraction { .. } => Self::Shares(Vec::new()),
        });
        states.collect()
    }

    /// A cell appears.
    pub(super) fn appear(&mut self) {
        match self {
            Self::Count | Self::Same(_) => {}
            Self::Moments(moments) => moments.push(Moments::default()),
            Self::Histogram { buckets, counts } => counts.resize(counts.len() + *buckets, 0),
            Self::Shares(shares) => shares.push(Share::default()),
        }
    }

    /// Adds what another part holds; its slots are at these places here.
    pub(super) fn merge(&mut self, other: &Self, places: &[usize]) {
        match (self, other) {
            (Self::Moments(mine), Self::Moments(theirs)) => {
                places.iter().zip(theirs).for_each(|(&slot, theirs)| mine[slot].merge(theirs));
            }
            (Self::Histogram { buckets, counts: mine }, Self::Histogram { counts: theirs, .. }) => {
                for (&slot, theirs) in places.iter().zip(theirs.chunks((*buckets).max(1))) {
                    mine[slot * *buckets..].iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine += theirs);
                }
            }
            (Self::Shares(mine), Self::Shares(theirs)) => {
                for (&slot, theirs) in places.iter().zip(theirs) {
                    mine[slot].values += theirs.values;
                    mine[slot].matches += theirs.matches;
                }
            }
            _ => {}
        }
    }

    /// How many records of a slot had a value.
    pub(super) fn values(&self, slot: usize) -> u64 {
        match self {
            Self::Moments(moments) => moments[slot].values,
            Self::Histogram { buckets, counts } => counts[slot * buckets..(slot + 1) * buckets].iter().sum(),
            Self::Shares(shares) => shares[slot].values,
            Self::Count | Self::Same(_) => 0,
        }
    }

    /// Bytes that it keeps of one cell.
    pub(super) fn bytes_of_a_cell(&self) -> usize {
        match self {
            Self::Count | Self::Same(_) => 0,
            Self::Moments(_) => size_of::<Moments>(),
            Self::Histogram { buckets, .. } => buckets * size_of::<u64>(),
            Self::Shares(_) => size_of::<Share>(),
        }
    }
}
