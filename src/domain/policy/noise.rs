//! How much noise the numbers of a dataset with differential privacy get.
//!
//! What a release may tell is shared in equal parts by the lists of numbers that it is made of: how many contributors the
//! cells have (which decides what leaves), and what each metric needs. A mean is a sum by the number of records, both with
//! noise, and costs nothing that these do not.

use crate::domain::aggregate::{cells_of, integers_of};
use crate::domain::dataset::{Dataset, Function, Measure};
use crate::domain::privacy::{Privacy, Rho, Sensitivity, Spread};
use crate::planted::planted;

/// What is counted in every cell.
#[derive(Debug, Clone, Copy)]
pub enum Counted<'d> {
    /// Distinct contributors.
    Contributors,
    /// Records.
    Records,
    /// The sum of a column, in steps of 2^`shift` of its integers.
    Sum {
        /// The position of the first metric that it is for.
        metric: usize,
        /// Of what.
        measure: &'d Measure,
        /// How many bits of the integers are left out.
        shift: u32,
    },
    /// Records in each range of a histogram.
    Ranges {
        /// The position of its metric.
        metric: usize,
    },
}

/// A list of numbers and the noise that it gets.
#[derive(Debug, Clone, Copy)]
pub struct Noised<'d> {
    /// What the numbers are.
    pub counted: Counted<'d>,
    /// Their noise.
    pub spread: Spread,
}

impl Noised<'_> {
    /// How much one step of the numbers is.
    #[must_use]
    pub fn step(&self) -> f64 {
        match self.counted {
            Counted::Sum { measure, shift, .. } => integers_of(measure).1 * 2_f64.powi(shift.cast_signed()),
            Counted::Contributors | Counted::Records | Counted::Ranges { .. } => 1.0,
        }
    }
}

/// Values are told to this share of the largest: 2^-20. The noise is never less than the largest value.
const SUM_BITS: u32 = 20;

/// With a larger scale, noise might not fit into 64 bits.
const SCALE_MAX: f64 = (1_u64 << 52) as f64;

/// The lists of a dataset when a release may tell so much; the contributors come first. Empty: the dataset does not bound
/// what one contributor adds.
#[must_use]
pub fn noised<'d>(dataset: &'d Dataset, privacy: &Privacy, rho: Rho) -> Vec<Noised<'d>> {
    let Some((records, cells)) = bounds(dataset) else { return Vec::new() };
    let counted = counted(dataset);
    let (mechanism, rho) = (privacy.mechanism, rho.share(counted.len()));
    let spread = |each| Spread { mechanism, sensitivity: Sensitivity { each, cells }, rho };
    let noised = counted.into_iter().map(|counted| match counted {
        Counted::Contributors => Noised { counted, spread: spread(1) },
        Counted::Records | Counted::Ranges { .. } => Noised { counted, spread: spread(records) },
        Counted::Sum { metric, measure, .. } => {
            let (largest, _) = integers_of(measure);
            let bits = u64::BITS - largest.leading_zeros();
            let fits = |shift: &u32| with_sum(largest, *shift, records, spread).scale() <= SCALE_MAX;
            let shift = (bits.saturating_sub(SUM_BITS)..=bits).find(fits).unwrap_or(bits);
            let spread = with_sum(largest, shift, records, spread);
            Noised { counted: Counted::Sum { metric, measure, shift }, spread }
        }
    });
    noised.collect()
}

fn with_sum(largest: u64, shift: u32, records: u64, spread: impl Fn(u64) -> Spread) -> Spread {
    // Two sums that differ by so much, both rounded down, differ by no more than this.
    let steps = u128::from(largest).div_ceil(1 << shift).max(1);
    spread(records.saturating_mul(u64::try_from(steps).unwrap_or(u64::MAX)))
}

/// The most records of one contributor in a cell, and the most cells of one in a window.
fn bounds(dataset: &Dataset) -> Option<(u64, u32)> {
    let mut bounds = dataset.bounds?;
    if planted("noise-for-one-record") {
        bounds.records_per_cell = 1;
    }
    let cells = u32::try_from(cells_of(dataset)).unwrap_or(u32::MAX);
    // In more cells than there are nobody can be.
    Some((bounds.records_per_cell.into(), bounds.cells_per_window?.min(cells)))
}

fn counted(dataset: &Dataset) -> Vec<Counted<'_>> {
    let mut counted = vec![Counted::Contributors];
    let needs_records = |function: &Function| matches!(function, Function::Count | Function::Mean(_));
    if dataset.metrics.iter().any(|metric| needs_records(&metric.function)) {
        counted.push(Counted::Records);
    }
    for (metric, declared) in dataset.metrics.iter().enumerate() {
        match &declared.function {
            Function::Sum(measure) | Function::Mean(measure) => {
                let is_known =
                    |known: &Counted<'_>| matches!(known, Counted::Sum { measure: other, .. } if *other == measure);
                if !counted.iter().any(is_known) {
                    counted.push(Counted::Sum { metric, measure, shift: 0 });
                }
            }
            Function::Histogram { .. } => counted.push(Counted::Ranges { metric }),
            // The loader takes none of these.
            Function::Count | Function::Variance(_) | Function::Fraction { .. } => {}
        }
    }
    counted
}

/// How many numbers of one release get noise.
#[must_use]
pub(super) fn numbers(dataset: &Dataset) -> usize {
    let each = counted(dataset).into_iter().map(|counted| match counted {
        Counted::Ranges { metric } => match dataset.metrics.get(metric).map(|metric| &metric.function) {
            Some(Function::Histogram { edges, .. }) => edges.len().saturating_sub(1),
            _ => 0,
        },
        Counted::Contributors | Counted::Records | Counted::Sum { .. } => 1,
    });
    each.sum::<usize>().saturating_mul(cells_of(dataset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::dataset::{Bounds, KeyDomain, samples};
    use crate::domain::privacy::Mechanism;
    use crate::domain::stream::ValueRange;

    /// The figures of docs/egress.md.
    #[test]
    fn noise_is_as_large_as_the_documentation_says() {
        let mut dataset = samples::every_kind();
        dataset.keys.truncate(1);
        let regions = ["north", "south", "east", "west"].map(str::to_owned);
        dataset.keys[0].domain = KeyDomain::text(regions.to_vec());
        dataset.metrics.retain(|metric| matches!(metric.name.as_str(), "n" | "amount_mean"));
        if let Function::Mean(measure) = &mut dataset.metrics[1].function {
            measure.range = ValueRange { low: 0.0, high: 100.0 };
        }
        dataset.bounds = Some(Bounds { records_per_cell: 3, cells_per_window: Some(4) });
        let rho = |rho| Rho::of(rho).unwrap();
        let mechanism = Mechanism::DiscreteGaussian;
        let privacy = Privacy { mechanism, per_window: rho(0.006), per_day: rho(0.144) };
        let lists = noised(&dataset, &privacy, privacy.per_window);
        let scales: Vec<f64> = lists.iter().map(|list| list.spread.scale() * list.step()).collect();
        for (scale, documented) in scales.iter().zip([31.6, 94.9, 9_490.0]) {
            assert!((scale / documented - 1.0).abs() < 2e-3, "{scale}, documented {documented}");
        }
        assert_eq!((lists.len(), (10.0 + lists[0].spread.margin()).ceil()), (3, 214.0));
        assert_eq!(numbers(&dataset), 3 * 5);
        // Nobody is in more cells than there are.
        dataset.bounds = Some(Bounds { records_per_cell: 3, cells_per_window: Some(1_000) });
        assert_eq!(noised(&dataset, &privacy, privacy.per_window)[0].spread.sensitivity.cells, 5);
        dataset.bounds = Some(Bounds { records_per_cell: 3, cells_per_window: None });
        assert!(noised(&dataset, &privacy, privacy.per_window).is_empty());
    }

    /// The noise of any sum fits into 64 bits, however many records there are and however little may be told.
    #[test]
    fn noise_fits_into_its_integers() {
        let mut dataset = samples::every_kind();
        dataset.bounds = Some(Bounds { records_per_cell: 1_000, cells_per_window: Some(1_000) });
        for (_, mechanism) in Mechanism::NAMES {
            let rho = Rho::of(Rho::LEAST).unwrap();
            let privacy = Privacy { mechanism, per_window: rho, per_day: rho };
            for list in noised(&dataset, &privacy, rho) {
                assert!(list.spread.scale() <= SCALE_MAX, "{list:?}");
                assert!(list.spread.scale() >= 1_000.0);
            }
        }
    }
}
