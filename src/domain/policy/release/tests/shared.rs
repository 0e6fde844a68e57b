//! Datasets that share their cells: random metrics of the sample are split over two, which go to destinations of other rules.
//! All that leaves of both is pooled, before the same exact search.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::nobody::{Record, columns, dataset, outlet, outlets, pool_cells, pool_of, records, runner};
use super::*;
use crate::planted::for_tests::plant;

/// For each metric of the sample, whether each of the two datasets has it.
type Split = Vec<(bool, bool)>;

fn split() -> impl Strategy<Value = Split> {
    let has = prop_oneof![4 => Just((true, false)), 4 => Just((false, true)), 1 => Just((true, true))];
    let both_have_some = |split: &Split| split.iter().any(|(one, _)| *one) && split.iter().any(|(_, other)| *other);
    prop::collection::vec(has, 5).prop_filter("both have metrics", both_have_some)
}

/// What is counted for two datasets that have these metrics of the sample.
fn shared(split: &Split) -> Arc<Dataset> {
    let of = |name: &str, has: fn(&(bool, bool)) -> bool| {
        let all = dataset();
        let metrics = all.metrics.iter().zip(split).filter(|(_, of_both)| has(of_both));
        let metrics = metrics.map(|(metric, _)| metric.clone()).collect();
        Arc::new(Dataset { name: name.parse().unwrap(), metrics, ..all })
    };
    Dataset::counted_for(&[of("d", |(one, _)| *one), of("e", |(_, other)| *other)]).unwrap()
}

/// What leaves of records: the first outlet is of the one dataset, the second of the other.
fn left(counted: &Dataset, records: &[Record], outlets: &[Outlet]) -> Outcome {
    let columns = columns(records);
    let contributors = ContributorKey([7; 16]).hash(&columns[0]);
    let mut cells = Cells::new(counted);
    cells.fold(counted, &Foldable::new(counted, &columns, &contributors), &Rows::All);
    let gateway = "eu".parse().unwrap();
    let closed = ClosedWindow { gateway: &gateway, dataset: counted, window: 2, part: 0, cells, deferral: None };
    let outlets = outlets.iter().zip(["d", "e"]);
    let outlets = outlets.map(|(outlet, of)| Outlet { dataset: of.parse().unwrap(), ..outlet.clone() });
    release(&closed, &outlets.collect::<Vec<_>>(), Digest::from_bytes([5; 32])).unwrap()
}

/// The numbers of both datasets single out no fewer people than the strictest of both rules asks for of a part.
fn nobody(split: &Split, records: &[Record], outlets: &[Outlet]) -> Result<Outcome, TestCaseError> {
    let outcome = left(&shared(split), records, outlets);
    let mut pool = pool_of(records);
    for released in &outcome.released {
        pool_cells(&mut pool, records, released.cells(), &|_, _| true, &|_| true)?;
    }
    let of_parts = outlets.iter().map(|outlet| outlet.parts.least).max().unwrap();
    let of_cells = outlets.iter().map(|outlet| outlet.min_contributors).max().unwrap();
    let found = pool.singled_out(of_parts.min(of_cells));
    prop_assert!(found.is_none(), "{:?} can be worked out", found);
    Ok(outcome)
}

#[test]
fn nothing_that_leaves_in_two_datasets_singles_out_fewer_than_the_strictest_k() {
    let told = RefCell::new(BTreeMap::<String, usize>::new());
    runner(500)
        .run(&(split(), records(), outlets()), |(split, records, outlets)| {
            let outcome = nobody(&split, &records, &outlets)?;
            // That it is not safe by saying nothing: what left, of which dataset.
            for released in &outcome.released {
                for (field, column) in released.cells().schema().fields().iter().zip(released.cells().columns()) {
                    let name = format!("{} of {}", field.name(), released.dataset());
                    *told.borrow_mut().entry(name).or_default() += column.len() - column.null_count();
                }
            }
            Ok(())
        })
        .unwrap();
    let told = told.into_inner();
    for name in ["n", "sum", "share", "values", "levels"] {
        for dataset in ["d", "e"] {
            let left = told.get(&format!("{name} of {dataset}")).copied().unwrap_or(0);
            assert!(left >= 10, "too little leaves for the test to show anything: {told:?}");
        }
    }
}

#[test]
fn every_planted_bug_is_found_in_two_datasets_too() {
    for bug in ["datasets-judged-apart", "bins-free", "nulls-by-subtraction", "parts-alone", "cells-in-records"] {
        let _planted = plant(bug);
        let cases = (split(), records(), outlets());
        let found = runner(5_000).run(&cases, |(split, records, outlets)| nobody(&split, &records, &outlets).map(drop));
        assert!(found.is_err(), "`{bug}` is planted, and nobody noticed");
    }
}

/// Records of so many people in one cell, each with a value, a label and a level.
fn people(people: usize, of: impl Fn(usize) -> (f64, i64)) -> Vec<Record> {
    let record = |person| {
        let (value, label) = of(person);
        Record { person: Some(person), group: 0, value: Some(value), label: Some(label), level: 0.5 }
    };
    (0..people).map(record).collect()
}

const COUNT_AND_VALUES: [(bool, bool); 5] = [(true, true), (false, true), (true, false), (false, true), (true, false)];

#[test]
fn a_number_that_one_dataset_may_tell_alone_is_withheld_when_the_other_would_tell_the_rest() {
    // Six of the seven in the second range have the label, and nobody else: the one is told by subtraction.
    let records = people(14, |person| (if person < 7 { 1.5 } else { 0.5 }, i64::from(person < 6)));
    let to = |name| outlet(name, 5, 5, false);
    let split = COUNT_AND_VALUES.to_vec();
    let outcome = nobody(&split, &records, &[to("a"), to("b")]).unwrap();
    let [one, other] = outcome.released.as_slice() else { panic!("one of each dataset") };
    assert_eq!((&**one.dataset(), &**one.destination()), ("d", "a"));
    assert_eq!((&**other.dataset(), &**other.destination()), ("e", "b"));
    assert_ne!(one.id(), other.id());
    assert!(one.cells().column_by_name("values").unwrap().is_valid(0));
    assert!(one.cells().column_by_name("share").is_none());
    assert!(other.cells().column_by_name("share").unwrap().is_null(0));
    let _planted = plant("datasets-judged-apart");
    assert!(nobody(&split, &records, &[to("a"), to("b")]).is_err());
}

#[test]
fn a_cell_leaves_in_all_datasets_or_in_none() {
    let records = people(7, |_| (1.5, 1));
    let to = |name, least| outlet(name, least, 5, false);
    let split = COUNT_AND_VALUES.to_vec();
    let outcome = nobody(&split, &records, &[to("a", 5), to("b", 7)]).unwrap();
    assert_eq!((outcome.released.len(), outcome.of_dataset("d"), outcome.of_dataset("e")), (2, 1, 1));
    let outcome = nobody(&split, &records, &[to("a", 5), to("b", 8)]).unwrap();
    assert_eq!((outcome.released.len(), outcome.cells_withheld), (0, 1));
    assert_eq!(outcome.withheld, [(Withheld::Contributors, 1)].into());
    // Of one that goes nowhere nothing is told; the k that it declares holds all the same.
    let mut counted = Dataset::clone(&shared(&split));
    let outcome = left(&counted, &records, &[to("a", 5)]);
    assert_eq!((outcome.released.len(), outcome.of_dataset("d"), outcome.of_dataset("e")), (1, 1, 0));
    counted.min_contributors = 8;
    assert!(left(&counted, &records, &[to("a", 5)]).released.is_empty());
}

#[test]
fn each_dataset_leaves_with_its_own_names_and_digits() {
    let records = people(20, |person| (f64::from(u8::from(person < 9)), 1));
    let mut split = COUNT_AND_VALUES.to_vec();
    split[1] = (true, true);
    let shared = shared(&split);
    let mut members: Vec<Arc<Dataset>> = shared.members.iter().map(|member| Arc::clone(&member.dataset)).collect();
    let mut coarse = Dataset::clone(&members[1]);
    for metric in &mut coarse.metrics {
        (metric.name, metric.digits) = (format!("about_{}", metric.name), Some(1));
    }
    members[1] = Arc::new(coarse);
    let counted = Dataset::counted_for(&members).unwrap();
    let to = |name| outlet(name, 5, 5, false);
    let outcome = left(&counted, &records, &[to("a"), to("b")]);
    let [exact, coarse] = outcome.released.as_slice() else { panic!("one of each dataset") };
    let value = |released: &Released, name: &str| {
        released.cells().column_by_name(name).unwrap().as_primitive::<Float64Type>().value(0)
    };
    assert_eq!((value(exact, "sum"), value(coarse, "about_sum")), (9.0, 9.0));
    let count = |released: &Released, name: &str| {
        released.cells().column_by_name(name).unwrap().as_primitive::<Int64Type>().value(0)
    };
    assert_eq!((count(exact, "n"), count(coarse, "about_n")), (20, 20));
    assert!(coarse.cells().column_by_name("sum").is_none());
}
