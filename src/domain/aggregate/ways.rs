//! The ways in which a dataset's metrics part the records of a cell, and which part of each way a record is in.
//!
//! A histogram parts them by ranges, a fraction by whether they have the value that is looked for, and every metric of a
//! field that a record may be without by whether they have a value. A record's parts of all ways are one number: its
//! combination.

use super::Scored;
use super::columns::{add_presence, add_ranges, add_shares};
use crate::domain::dataset::{Dataset, Function, KeyDomain, Source};

/// One way of parting the records of a cell. The last part holds the records without a value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way<'d> {
    pub(super) source: &'d Source,
    pub(super) by: By<'d>,
}

/// What a way goes by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum By<'d> {
    /// Whether there is a value: it is, it is not.
    Presence,
    /// In which range it is: those between these edges.
    Ranges(&'d [f64]),
    /// Whether it is the one of this domain: it is, it is not.
    Value(&'d KeyDomain),
}

impl Way<'_> {
    /// How many parts there are of records that have a value.
    pub(super) fn parts_with_value(&self) -> usize {
        match self.by {
            By::Presence => 1,
            By::Ranges(edges) => edges.len().saturating_sub(1),
            By::Value(_) => 2,
        }
    }

    /// How many parts there are.
    pub(super) fn parts(&self) -> usize {
        self.parts_with_value() + 1
    }
}

/// The ways of a dataset: first those by presence, one for each field that a record may be without, then one for each
/// histogram and fraction, in the order of the metrics.
pub(super) fn ways(dataset: &Dataset) -> Vec<Way<'_>> {
    let mut ways: Vec<Way<'_>> = Vec::new();
    let sources = dataset.metrics.iter().filter_map(|metric| metric.function.source());
    for source in sources.filter(|source| source.may_be_missing) {
        if ways.iter().all(|known| known.source.column != source.column) {
            ways.push(Way { source, by: By::Presence });
        }
    }
    ways.extend(dataset.metrics.iter().filter_map(|metric| way_of(&metric.function)));
    ways
}

/// The way of a histogram or a fraction.
pub(super) fn way_of(function: &Function) -> Option<Way<'_>> {
    match function {
        Function::Histogram { source, edges } => Some(Way { source, by: By::Ranges(edges) }),
        Function::Fraction { source, equals } => Some(Way { source, by: By::Value(equals) }),
        Function::Count | Function::Sum(_) | Function::Mean(_) | Function::Variance(_) => None,
    }
}

/// How many combinations of parts there are. The loader takes no dataset of more than [`COMBINATIONS_MAX`].
#[must_use]
pub fn combinations(dataset: &Dataset) -> u128 {
    ways(dataset).iter().map(|way| way.parts() as u128).fold(1, u128::saturating_mul)
}

/// A combination is a number of 64 bits.
pub const COMBINATIONS_MAX: u128 = u64::MAX as u128;

/// The combination of each record of a batch.
pub(super) fn combinations_of(ways: &[Way<'_>], columns: Scored<'_>, rows: usize) -> Vec<u64> {
    let mut combinations = vec![0; rows];
    let mut stride = 1_u64;
    for way in ways {
        if let Some(column) = columns.get(way.source.column) {
            match way.by {
                By::Presence => add_presence(column, stride, &mut combinations),
                By::Ranges(edges) => add_ranges(edges, column, stride, &mut combinations),
                By::Value(equals) => add_shares(equals, column, stride, &mut combinations),
            }
        }
        stride = stride.saturating_mul(way.parts() as u64);
    }
    combinations
}

/// The part of each way that a combination is of.
pub(super) fn parts_of(ways: &[Way<'_>], combination: u64) -> impl Iterator<Item = usize> {
    let mut rest = combination;
    ways.iter().map(move |way| {
        let parts = way.parts() as u64;
        let part = rest % parts;
        rest /= parts;
        part as usize
    })
}
