//! What leaves with noise is computed from numbers with noise alone.

use std::collections::BTreeMap;

use super::*;
use crate::domain::aggregate::Lot;
use crate::domain::dataset::Bounds;
use crate::domain::privacy::{Charge, Charged, Mechanism, NoNoise, Noise, Privacy, Rho, Spread, WindowKey};

/// The sample with the metrics that can have noise.
fn private() -> Dataset {
    let mut dataset = samples::every_kind();
    dataset.keys.truncate(1);
    let wanted = ["n", "amount_sum", "amount_mean", "x_sum", "histogram"];
    dataset.metrics.retain(|metric| wanted.contains(&metric.name.as_str()));
    dataset.bounds = Some(Bounds { records_per_cell: 4, cells_per_window: Some(3) });
    let rho = Rho::of(0.5).unwrap();
    dataset.privacy = Some(Privacy { mechanism: Mechanism::DiscreteGaussian, per_window: rho, per_day: rho });
    dataset
}

fn cells(dataset: &Dataset, rows: &[u32]) -> Cells {
    let columns = samples::columns();
    let contributors = ContributorKey([7; 16]).hash(&columns[0]);
    let lots: Vec<Lot> = (0..60).collect();
    let mut cells = Cells::new(dataset);
    cells.fold(dataset, &Foldable::new(dataset, &columns, &contributors).drawn_by(&lots), &Rows::Some(rows));
    cells.bounded(dataset)
}

/// The same numbers, whatever the true ones are; or the true ones, each so much greater.
enum Known {
    Same(BTreeMap<usize, Vec<i64>>, usize),
    Plus(i64),
}

impl Noise for Known {
    fn added(&mut self, numbers: Vec<i64>, _: &Spread) -> Result<Vec<i64>, NoNoise> {
        match self {
            Self::Same(lists, next) => {
                *next += 1;
                Ok(lists.entry(*next).or_insert(numbers).clone())
            }
            Self::Plus(more) => Ok(numbers.into_iter().map(|number| number + *more).collect()),
        }
    }
}

fn charged(rho: f64) -> Charged {
    let window = WindowKey { dataset: "golden".parse().unwrap(), start: 0, part: 0 };
    let rho = Rho::of(rho).unwrap();
    Charged::charge_is_on_disk(&Charge {
        stream: "payments".parse().unwrap(),
        contributor: "person".into(),
        window,
        rho,
    })
}

fn with_noise(dataset: &Dataset, cells: Cells, least: usize, noise: &mut dyn Noise) -> Result<Outcome, NotNoised> {
    rounded(dataset, cells, least, Rounding::NONE, noise)
}

/// The same where counts are rounded.
fn rounded(
    dataset: &Dataset,
    cells: Cells,
    least: usize,
    rounding: Rounding,
    noise: &mut dyn Noise,
) -> Result<Outcome, NotNoised> {
    let gateway = "eu".parse().unwrap();
    let closed = ClosedWindow { gateway: &gateway, dataset, window: 2, part: 0, cells, deferral: None };
    let outlets = ["a", "b"].map(|name| Outlet { privacy: dataset.privacy, rounding, ..to(name, least) });
    let privacy = asked_for(&outlets).unwrap();
    release_noised(&closed, &outlets, Digest::from_bytes([5; 32]), privacy, charged(0.5), noise)
}

/// What left, as far as anybody can see it.
fn seen(outcome: &Outcome) -> (usize, usize, Vec<(String, RecordBatch)>) {
    let released = outcome.released.iter();
    let released = released.map(|released| (released.id().to_owned(), released.cells().clone())).collect();
    (outcome.cells_released, outcome.cells_withheld, released)
}

#[test]
fn windows_whose_numbers_with_noise_are_the_same_leave_as_the_same() {
    let dataset = private();
    let all: Vec<u32> = (0..60).collect();
    let mut noise = Known::Same(BTreeMap::new(), 0);
    // The first window gives the numbers, with noise that lifts its cells over k.
    let first = with_noise(&dataset, cells(&dataset, &all), 5, &mut Known::Plus(1_000)).unwrap();
    assert_eq!((first.cells_released, first.cells_withheld, first.released.len()), (3, 0, 2));
    let mut shown = Vec::new();
    for rows in [&all[..], &all[..1], &[], &all[20..40]] {
        if let Known::Same(_, next) = &mut noise {
            *next = 0;
        }
        shown.push(seen(&with_noise(&dataset, cells(&dataset, rows), 5, &mut noise).unwrap()));
    }
    assert!(shown.iter().all(|one| *one == shown[0]), "a number without noise shows");
}

/// A cell leaves when its number of contributors with noise is above k by a margin. The true number does not count.
#[test]
fn k_holds_for_the_number_of_contributors_with_noise_and_a_margin() {
    let dataset = private();
    let lists = crate::domain::policy::noised(&dataset, &dataset.privacy.unwrap(), Rho::of(0.5).unwrap());
    let margin = lists[0].spread.margin();
    assert!(margin > 20.0, "{margin}");
    let all: Vec<u32> = (0..60).collect();
    // Each of the 13 contributors is in all three cells.
    let least = (margin + 50.0).ceil() as i64 - 13;
    let released =
        |more| with_noise(&dataset, cells(&dataset, &all), 50, &mut Known::Plus(more)).unwrap().cells_released;
    assert_eq!((released(least - 1), released(least)), (0, 3));
    // With no margin, no noise and enough contributors nothing leaves.
    let none = with_noise(&dataset, cells(&dataset, &all), 5, &mut Known::Plus(0)).unwrap();
    assert_eq!((none.cells_released, none.cells_withheld), (0, 3));
}

/// With noise that is the same for every number, values are what they are without, and so much more.
#[test]
fn values_are_made_of_numbers_with_noise() {
    let dataset = private();
    let all: Vec<u32> = (0..60).collect();
    let outcome = with_noise(&dataset, cells(&dataset, &all), 5, &mut Known::Plus(1_000)).unwrap();
    let leaving = outcome.released[0].cells();
    let number = |name: &str| leaving.column_by_name(name).unwrap().as_primitive::<Float64Type>().value(0);
    let records = leaving.column_by_name("n").unwrap().as_primitive::<Int64Type>().value(0);
    // 13 contributors have at most four records each in the first cell, and 20 records are in it.
    assert_eq!(records, 1_020);
    let step = 2_f64.powi(5 - 20);
    assert!((number("amount_mean") - number("amount_sum") / 1_020.0).abs() < 1e-9);
    let columns = samples::columns();
    let amounts = columns[4].as_primitive::<Float64Type>();
    let sum: f64 = (0..20).map(|row| amounts.value(row * 3)).sum();
    assert!((number("amount_sum") - sum - 1_000.0 * step).abs() < 2.0 * step, "{} {sum}", number("amount_sum"));
    let ranges = leaving.column_by_name("histogram").unwrap().as_list::<i32>().value(0);
    assert_eq!(ranges.as_primitive::<Int64Type>().values().iter().sum::<i64>(), 20 + 3 * 1_000);
}

/// Noise first, and then a count is a multiple, below zero as 0. A mean is computed from the rounded count. Which cells leave is
/// decided before.
#[test]
fn a_count_with_noise_is_rounded_after_it() {
    let dataset = private();
    let all: Vec<u32> = (0..60).collect();
    let leaving = |base: usize, more: i64| {
        let rounding = Rounding::to_multiples_of(base).unwrap_or_default();
        rounded(&dataset, cells(&dataset, &all), 5, rounding, &mut Known::Plus(more)).unwrap()
    };
    let (exact, rounded) = (leaving(1, 1_002), leaving(50, 1_002));
    assert_eq!((exact.cells_released, rounded.cells_released), (3, 3));
    let [exact, rounded] = [exact, rounded].map(|outcome| outcome.released[0].cells().clone());
    assert_eq!(exact.schema(), rounded.schema());
    let count = |cells: &RecordBatch| cells.column_by_name("n").unwrap().as_primitive::<Int64Type>().value(0);
    assert_eq!((count(&exact), count(&rounded)), (1_022, 1_000));
    let number =
        |cells: &RecordBatch, name: &str| cells.column_by_name(name).unwrap().as_primitive::<Float64Type>().value(0);
    assert_eq!(number(&exact, "amount_sum"), number(&rounded, "amount_sum"));
    assert!((number(&rounded, "amount_mean") - number(&rounded, "amount_sum") / 1_000.0).abs() < 1e-9);
    let ranges = |cells: &RecordBatch| -> Vec<i64> {
        let lists = cells.column_by_name("histogram").unwrap().as_list::<i32>().value(0);
        lists.as_primitive::<Int64Type>().values().to_vec()
    };
    let slow = |count: &i64| (count + 25).div_euclid(50) * 50;
    assert_eq!(ranges(&rounded), ranges(&exact).iter().map(slow).collect::<Vec<_>>());
    assert_ne!(ranges(&rounded), ranges(&exact));
}

#[test]
fn without_bounds_or_noise_nothing_leaves() {
    struct Broken;
    impl Noise for Broken {
        fn added(&mut self, _: Vec<i64>, _: &Spread) -> Result<Vec<i64>, NoNoise> {
            Err(NoNoise("no random numbers".into()))
        }
    }
    let dataset = private();
    let all: Vec<u32> = (0..60).collect();
    let broken = with_noise(&dataset, cells(&dataset, &all), 5, &mut Broken);
    assert!(matches!(broken, Err(NotNoised::NoNoise(_))));
    let unbounded = Dataset { bounds: None, ..private() };
    let without = with_noise(&unbounded, cells(&unbounded, &all), 5, &mut Known::Plus(1_000));
    assert!(matches!(without, Err(NotNoised::Unbounded)));
    // An outlet that asks for noise gets nothing without.
    let gateway = "eu".parse().unwrap();
    let closed = ClosedWindow {
        gateway: &gateway,
        dataset: &dataset,
        window: 2,
        part: 0,
        cells: cells(&dataset, &all),
        deferral: None,
    };
    let outlets = [Outlet { privacy: dataset.privacy, ..to("a", 5) }, to("b", 5)];
    let outcome = release(&closed, &outlets, Digest::from_bytes([5; 32])).unwrap();
    assert_eq!(outcome.released.iter().map(Released::destination).collect::<Vec<_>>(), ["b"]);
}
