//! Nobody is singled out: all that leaves of small windows to all destinations, pooled, before an exact search that was
//! written apart from the code that releases. Each bug that is planted is found.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, Float64Array, Int64Array, StringArray};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::row_space::Pool;
use super::*;
use crate::domain::aggregate::{Lot, Producer};
use crate::domain::dataset::samples::plain;
use crate::domain::dataset::{Bounds, GroupKey, Measure, Source};
use crate::domain::stream::ValueRange;
use crate::planted::for_tests::plant;

#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) person: Option<usize>,
    pub(super) group: usize,
    /// Optional.
    pub(super) value: Option<f64>,
    /// Optional.
    pub(super) label: Option<i64>,
    /// Required.
    pub(super) level: f64,
}

const EDGES: [f64; 5] = [0.0, 1.0, 2.0, 3.0, 4.0];
const LEVELS: [f64; 4] = [0.0, 1.0, 2.0, 3.0];

/// Records of few people, of which some are like each other: a label often goes with a value, and a value with a level.
pub(super) fn records() -> impl Strategy<Value = Vec<Record>> {
    let person = prop::option::weighted(0.95, 0..9_usize);
    let value = prop::option::weighted(0.85, 0..4_u8);
    let record = (person, 0..2_usize, value, 0..10_u8, 0..3_u8, any::<(bool, bool)>());
    let record = record.prop_map(|(person, group, value, odd, level, (goes_with, has_label))| Record {
        person,
        group: usize::from(group == 1 && odd == 0),
        value: value.map(f64::from),
        label: (has_label || goes_with).then_some(match value {
            Some(value) if goes_with || odd < 7 => i64::from(value > 1),
            _ => i64::from(odd % 2),
        }),
        level: if odd < 5 { f64::from(value.unwrap_or(level).min(2)) } else { f64::from(level) },
    });
    prop::collection::vec(record, 0..40)
}

pub(super) fn dataset() -> Dataset {
    let source = |field: &str, column, may_be_missing| Source { column, field: field.into(), may_be_missing };
    let range = ValueRange { low: 0.0, high: 4.0 };
    let metric = |name: &str, function| Metric { name: name.into(), function, digits: None };
    let domain = KeyDomain::text(vec!["a".into()]);
    Dataset {
        contributor: "person".into(),
        min_contributors: 5,
        keys: vec![GroupKey { name: "group".into(), column: 1, domain }],
        metrics: vec![
            metric("n", Function::Count),
            metric("sum", Function::Sum(Measure { source: source("value", 2, true), range })),
            metric("values", Function::Histogram { source: source("value", 2, true), edges: EDGES.into() }),
            metric(
                "share",
                Function::Fraction { source: source("label", 3, true), equals: KeyDomain::Integers(vec![1].into()) },
            ),
            metric("levels", Function::Histogram { source: source("level", 4, false), edges: LEVELS.into() }),
        ],
        ..plain()
    }
}

/// The same with a variance, and with another sum.
pub(super) fn with_more_sums() -> Dataset {
    let source = |field: &str, column, may_be_missing| Source { column, field: field.into(), may_be_missing };
    let range = ValueRange { low: 0.0, high: 4.0 };
    let metric = |name: &str, function| Metric { name: name.into(), function, digits: None };
    let mut dataset = dataset();
    dataset.metrics.extend([
        metric("variance", Function::Variance(Measure { source: source("value", 2, true), range })),
        metric("level_sum", Function::Sum(Measure { source: source("level", 4, false), range })),
    ]);
    dataset
}

pub(super) fn columns(records: &[Record]) -> Vec<ArrayRef> {
    let person = |record: &Record| record.person.map(|person| person.to_string());
    vec![
        Arc::new(StringArray::from_iter(records.iter().map(person))),
        Arc::new(StringArray::from_iter_values(records.iter().map(|record| ["a", "b"][record.group]))),
        Arc::new(Float64Array::from_iter(records.iter().map(|record| record.value))),
        Arc::new(Int64Array::from_iter(records.iter().map(|record| record.label))),
        Arc::new(Float64Array::from_iter_values(records.iter().map(|record| record.level))),
    ]
}

/// What leaves of the records, counted in two parts.
pub(super) fn released(records: &[Record], outlets: &[Outlet]) -> Outcome {
    released_of(records, &[], outlets)
}

/// The same, with who sent each record.
pub(super) fn released_of(records: &[Record], senders: &[usize], outlets: &[Outlet]) -> Outcome {
    released_within(None, records, senders, &[], outlets)
}

/// The same of a dataset with bounds, with the lot of each record.
pub(super) fn released_within(
    bounds: Option<Bounds>,
    records: &[Record],
    senders: &[usize],
    lots: &[Lot],
    outlets: &[Outlet],
) -> Outcome {
    let keeps_all = outlets.iter().any(|outlet| outlet.parts.beside > 0);
    released_as(&Dataset { bounds, keeps_all, ..dataset() }, records, senders, lots, outlets)
}

/// The same of a dataset of these records.
pub(super) fn released_as(
    dataset: &Dataset,
    records: &[Record],
    senders: &[usize],
    lots: &[Lot],
    outlets: &[Outlet],
) -> Outcome {
    let cells = cells_of(dataset, columns, records, senders, lots).bounded(dataset);
    let gateway = "eu".parse().unwrap();
    let closed = ClosedWindow { gateway: &gateway, dataset, window: 2, part: 0, cells, deferral: None };
    release(&closed, outlets, Digest::from_bytes([5; 32])).unwrap()
}

/// The cells of records of a dataset, which counts these columns of them: counted in two parts.
pub(super) fn cells_of(
    dataset: &Dataset,
    columns: fn(&[Record]) -> Vec<ArrayRef>,
    records: &[Record],
    senders: &[usize],
    lots: &[Lot],
) -> Cells {
    let producers = senders.iter().map(|sender| ContributorKey([7; 16]).producer(&sender.to_string()));
    let producers: Vec<Producer> = producers.collect();
    let half = records.len() / 2;
    let part = |records: &[Record], producers: &[Producer], lots: &[Lot]| {
        let columns = columns(records);
        let contributors = ContributorKey([7; 16]).hash(&columns[0]);
        let mut cells = Cells::new(dataset);
        let foldable = Foldable::new(dataset, &columns, &contributors).brought_by(producers).drawn_by(lots);
        cells.fold(dataset, &foldable, &Rows::All);
        cells
    };
    let (of_one, of_other) = producers.split_at(half.min(producers.len()));
    let (lots_of_one, lots_of_other) = lots.split_at(half.min(lots.len()));
    let (one, other) = records.split_at(half);
    let mut cells = part(one, of_one, lots_of_one);
    cells.merge(part(other, of_other, lots_of_other));
    cells
}

/// The rows of what left: each number as the records that it must be of. A number that is not that of these records is an
/// error of its own.
pub(super) fn pooled(records: &[Record], outcome: &Outcome) -> Result<Pool, TestCaseError> {
    pooled_for(records, outcome, |_| true)
}

/// The same for somebody who takes the other records off, because they are known.
pub(super) fn pooled_for(
    records: &[Record],
    outcome: &Outcome,
    is_unknown: impl Fn(usize) -> bool,
) -> Result<Pool, TestCaseError> {
    let mut pool = pool_of(records);
    for released in &outcome.released {
        pool_cells(&mut pool, records, released.cells(), &|_, _| true, &is_unknown)?;
    }
    Ok(pool)
}

/// Nothing that left, of the people of these records.
pub(super) fn pool_of(records: &[Record]) -> Pool {
    Pool::new(records.iter().map(|record| record.person.map(|person| person.to_string())))
}

/// The rows of a release. `is_of` says which records may be in a row of it, `is_unknown` which of them somebody does not know.
pub(super) fn pool_cells(
    pool: &mut Pool,
    records: &[Record],
    cells: &RecordBatch,
    is_of: &dyn Fn(usize, usize) -> bool,
    is_unknown: &dyn Fn(usize) -> bool,
) -> Result<(), TestCaseError> {
    let groups = cells.column_by_name("group").unwrap().as_string::<i32>();
    let group = |row: usize| usize::from(groups.value(row) == "other");
    let is_of = |row: usize, record: usize| records[record].group == group(row) && is_of(row, record);
    pool_rows(pool, records, cells, &is_of, is_unknown)
}

/// The same, where the group of a record does not say in which row it is.
pub(super) fn pool_rows(
    pool: &mut Pool,
    records: &[Record],
    cells: &RecordBatch,
    is_of: &dyn Fn(usize, usize) -> bool,
    is_unknown: &dyn Fn(usize) -> bool,
) -> Result<(), TestCaseError> {
    // A dataset may have some of the metrics only.
    let column = |name: &str| cells.column_by_name(name);
    let of_value = |name: &str, row: usize| column(name).filter(|column| column.is_valid(row));
    for row in 0..cells.num_rows() {
        let of = |is_in: &dyn Fn(&Record) -> bool| -> Vec<usize> {
            let records =
                records.iter().enumerate().filter(|(position, record)| is_of(row, *position) && is_in(record));
            records.map(|(position, _)| position).collect()
        };
        if let Some(column) = of_value("n", row) {
            let all = of(&|_| true);
            prop_assert_eq!(column.as_primitive::<Int64Type>().value(row), all.len() as i64);
            pool.left(all.into_iter().filter(|record| is_unknown(*record)));
        }
        if let Some(column) = of_value("sum", row) {
            let with = of(&|record| record.value.is_some());
            let sum: f64 = with.iter().filter_map(|record| records[*record].value).sum();
            prop_assert_eq!(column.as_primitive::<Float64Type>().value(row), sum);
            pool.left(with.into_iter().filter(|record| is_unknown(*record)));
        }
        if let Some(column) = of_value("share", row) {
            let (with, is) = (of(&|record| record.label.is_some()), of(&|record| record.label == Some(1)));
            let share = is.len() as f64 / with.len() as f64;
            prop_assert_eq!(column.as_primitive::<Float64Type>().value(row), share);
            pool.left(with.into_iter().filter(|record| is_unknown(*record)));
            pool.left(is.into_iter().filter(|record| is_unknown(*record)));
        }
        let value = |name: &str, record: &Record| if name == "values" { record.value } else { Some(record.level) };
        for (name, edges) in [("values", &EDGES[..]), ("levels", &LEVELS[..])] {
            let Some(column) = of_value(name, row) else { continue };
            let counts = column.as_list::<i32>().value(row);
            let counts = counts.as_primitive::<Int64Type>();
            prop_assert_eq!(counts.len(), edges.len() - 1);
            prop_assert!(counts.is_valid(0));
            // A range without a count is counted in the one before.
            let starts: Vec<usize> = (0..counts.len()).filter(|range| counts.is_valid(*range)).collect();
            for (at, start) in starts.iter().enumerate() {
                let end = starts.get(at + 1).copied().unwrap_or(counts.len());
                let is_last = end == counts.len();
                let within =
                    |value: f64| edges[*start] <= value && (value < edges[end] || is_last && value == edges[end]);
                let inside = of(&|record| value(name, record).is_some_and(within));
                prop_assert_eq!(counts.value(*start), inside.len() as i64, "{}", name);
                pool.left(inside.into_iter().filter(|record| is_unknown(*record)));
            }
        }
    }
    Ok(())
}

pub(super) fn outlet(destination: &str, min_contributors: usize, least: usize, not_empty: bool) -> Outlet {
    let parts = PartRule { least, not_empty, percent: 0, beyond_one: false, beside: 0 };
    let (dataset, destination) = ("d".parse().unwrap(), destination.parse().unwrap());
    Outlet {
        dataset,
        destination,
        min_contributors,
        parts,
        privacy: None,
        tells_contributors: false,
        rounding: Rounding::NONE,
        by_override: None,
    }
}

/// Two destinations of which one may want more contributors than the other.
pub(super) fn outlets() -> impl Strategy<Value = Vec<Outlet>> {
    (2..5_usize, 0..3_usize, 0..3_usize, any::<bool>()).prop_map(|(least, more, of_parts, not_empty)| {
        let one = outlet("a", least, least, not_empty);
        vec![one, outlet("b", least + more, least + of_parts, not_empty)]
    })
}

/// The least number of contributors that any destination asks for.
pub(super) fn least(outlets: &[Outlet]) -> usize {
    outlets.iter().map(|outlet| outlet.parts.least.min(outlet.min_contributors)).min().unwrap()
}

fn nobody(records: &[Record], outlets: &[Outlet]) -> Result<(), TestCaseError> {
    let outcome = released(records, outlets);
    let found = pooled(records, &outcome)?.singled_out(least(outlets));
    prop_assert!(found.is_none(), "{:?} can be worked out", found);
    Ok(())
}

pub(super) fn runner(cases: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    TestRunner::new_with_rng(config, proptest::test_runner::TestRng::deterministic_rng(Default::default()))
}

#[test]
fn nothing_that_leaves_singles_out_fewer_than_k() {
    let mut runner = runner(500);
    let told = std::cell::RefCell::new(BTreeMap::<&str, usize>::new());
    runner
        .run(&(records(), outlets()), |(records, outlets)| {
            nobody(&records, &outlets)?;
            // That it is not safe by saying nothing: what else than counts left.
            let outcome = released(&records, &outlets);
            for released in &outcome.released {
                for name in ["sum", "share", "values", "levels"] {
                    let column = released.cells().column_by_name(name).unwrap();
                    *told.borrow_mut().entry(name).or_default() += column.len() - column.null_count();
                    if let Some(lists) = column.as_list_opt::<i32>() {
                        let ranges = lists.values().len() - lists.values().null_count();
                        *told.borrow_mut().entry("ranges").or_default() += ranges;
                    }
                }
            }
            Ok(())
        })
        .unwrap();
    let told = told.into_inner();
    for (name, least) in [("sum", 50), ("share", 50), ("values", 50), ("levels", 250), ("ranges", 750)] {
        assert!(
            told.get(name).copied().unwrap_or(0) >= least,
            "too little leaves for the test to show anything: {told:?}"
        );
    }
}

#[test]
fn every_planted_bug_is_found() {
    let bugs = ["cells-in-records", "k-in-records", "bins-free", "nulls-by-subtraction", "parts-alone", "plans-apart"];
    for bug in bugs.into_iter().chain(["differences-free"]) {
        let _planted = plant(bug);
        let found = runner(5_000).run(&(records(), outlets()), |(records, outlets)| nobody(&records, &outlets));
        assert!(found.is_err(), "`{bug}` is planted, and nobody noticed");
    }
}

/// Records of people of their own, all in one cell.
fn each(records: impl IntoIterator<Item = (Option<f64>, Option<i64>, f64)>) -> Vec<Record> {
    let records = records.into_iter().enumerate();
    records
        .map(|(person, (value, label, level))| Record { person: Some(person), group: 0, value, label, level })
        .collect()
}

/// The counts of a histogram in the only cell of the only release.
fn counts(outcome: &Outcome, name: &str) -> Option<Vec<Option<i64>>> {
    let lists = outcome.released[0].cells().column_by_name(name).unwrap().as_list::<i32>().clone();
    lists.is_valid(0).then(|| lists.value(0).as_primitive::<Int64Type>().iter().collect())
}

#[test]
fn ranges_of_few_contributors_join_those_above_and_the_rest_those_below() {
    let with = |numbers: [usize; 4]| {
        let values = [0.5, 1.5, 2.5, 3.5].into_iter().zip(numbers);
        each(values.flat_map(|(value, number)| std::iter::repeat_n((Some(value), Some(1), 0.5), number)))
    };
    let leaves = |numbers, not_empty| {
        let mut records = with(numbers);
        // If the class is special, it may not be told that everybody has a value.
        let nobody = Record { person: None, group: 0, value: None, label: Some(1), level: 0.5 };
        records
            .extend((0..5).filter(|_| not_empty).map(|person| Record { person: Some(100 + person), ..nobody.clone() }));
        counts(&released(&records, &[outlet("a", 5, 5, not_empty)]), "values").unwrap()
    };
    assert_eq!(leaves([5, 6, 7, 8], false), [Some(5), Some(6), Some(7), Some(8)]);
    assert_eq!(leaves([1, 6, 7, 8], false), [Some(7), None, Some(7), Some(8)]);
    assert_eq!(leaves([5, 6, 7, 4], false), [Some(5), Some(6), Some(11), None]);
    assert_eq!(leaves([5, 0, 7, 0], false), [Some(5), Some(0), Some(7), Some(0)]);
    assert_eq!(leaves([5, 0, 7, 0], true), [Some(5), Some(7), None, None]);
    assert_eq!(leaves([9, 0, 1, 0], false), [Some(10), None, None, None]);
    assert_eq!(leaves([1, 1, 1, 2], false), [Some(5), None, None, None]);
}

#[test]
fn a_fraction_of_few_is_null_and_of_none_only_if_the_class_is_special() {
    let share = |is: usize, is_not: usize, not_empty| {
        let labels = std::iter::repeat_n(1, is).chain(std::iter::repeat_n(0, is_not));
        let records = each(labels.map(|label| (Some(1.5), Some(label), 0.5)));
        let outcome = released(&records, &[outlet("a", 5, 5, not_empty)]);
        let column = outcome.released[0].cells().column_by_name("share").unwrap().clone();
        column.is_valid(0).then(|| column.as_primitive::<Float64Type>().value(0))
    };
    assert_eq!(share(5, 15, false), Some(0.25));
    assert_eq!(share(4, 16, false), None);
    assert_eq!(share(16, 4, false), None);
    assert_eq!(share(20, 0, false), Some(1.0));
    assert_eq!(share(20, 0, true), None);
    assert_eq!(share(0, 20, true), None);
}

#[test]
fn a_fraction_that_a_histogram_tells_less_the_difference_is_withheld() {
    // Six of the seven in the second range have the label, and nobody else: the one is told by subtraction.
    let records = (0..14).map(|person| {
        let is_in = person < 7;
        (Some(if is_in { 1.5 } else { 0.5 }), Some(i64::from(person < 6)), 0.5)
    });
    let records = each(records);
    let outcome = released(&records, &[outlet("a", 5, 5, false)]);
    assert_eq!(counts(&outcome, "values"), Some(vec![Some(7), Some(7), Some(0), Some(0)]));
    assert!(outcome.released[0].cells().column_by_name("share").unwrap().is_null(0));
    nobody(&records, &[outlet("a", 5, 5, false)]).unwrap();
}

#[test]
fn a_difference_of_two_small_parts_is_withheld() {
    // Ten of the twelve people in the second range have the label, and two of the twelve in the first one do: so the range
    // less those with the label is about two less two. Both parts alone have twelve.
    let records = (0..24).map(|person| {
        let (is_in, is_odd) = (person < 12, person % 12 < 2);
        (Some(if is_in { 1.5 } else { 0.5 }), Some(i64::from(is_in != is_odd)), 0.5)
    });
    let records = each(records);
    let to = |least| [outlet("a", 5, least, false)];
    let outcome = released(&records, &to(5));
    assert_eq!(counts(&outcome, "values"), Some(vec![Some(12), Some(12), Some(0), Some(0)]));
    assert!(outcome.released[0].cells().column_by_name("share").unwrap().is_null(0));
    // Four people are enough for a rule of four.
    assert!(released(&records, &to(4)).released[0].cells().column_by_name("share").unwrap().is_valid(0));
    for least in [4, 5] {
        nobody(&records, &to(least)).unwrap();
    }
    let _planted = plant("differences-free");
    assert!(nobody(&records, &to(5)).is_err());
}
