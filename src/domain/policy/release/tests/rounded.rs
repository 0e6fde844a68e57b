//! Rounded counts: each number that leaves is held against one that is computed the slow way, from the records alone. What is
//! added up is what anybody can add up of the rows, and what leaves does not change with what rounding hides.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use proptest::prelude::*;

use super::coarser::{countries, country_of};
use super::nobody::{self, Record, outlet, runner};
use super::rolled::{self, in_cities};
use super::*;
use crate::domain::dataset::{Measure, Source};
use crate::domain::policy::strictest;
use crate::domain::stream::ValueRange;
use crate::planted::for_tests::plant;

fn rounding(base: usize) -> Rounding {
    Rounding::to_multiples_of(base).unwrap()
}

fn to(destination: &str, k: usize, base: usize) -> Outlet {
    Outlet { rounding: rounding(base), ..outlet(destination, k, k, false) }
}

/// The slow way: of all multiples the nearest, the greater of two.
fn near(base: usize, count: usize) -> i64 {
    let multiples = (0..).map(|times| times * base).take_while(|multiple| *multiple <= count + base);
    multiples.min_by_key(|multiple| (multiple.abs_diff(count), usize::MAX - multiple)).unwrap() as i64
}

/// The metrics of small windows, with means and a variance.
fn with_means(dataset: Dataset) -> Dataset {
    let source = |field: &str, column, may_be_missing| Source { column, field: field.into(), may_be_missing };
    let range = ValueRange { low: 0.0, high: 4.0 };
    let metric = |name: &str, function| Metric { name: name.into(), function, digits: None };
    let mut metrics = nobody::with_more_sums().metrics;
    metrics.extend([
        metric("mean", Function::Mean(Measure { source: source("value", 2, true), range })),
        metric("level_mean", Function::Mean(Measure { source: source("level", 4, false), range })),
    ]);
    Dataset { metrics, ..dataset }
}

fn cells_of(records: &[Record], outlet: &Outlet) -> Option<RecordBatch> {
    let outcome = nobody::released_as(&with_means(nobody::dataset()), records, &[], &[], std::slice::from_ref(outlet));
    outcome.released.first().map(|released| released.cells().clone())
}

fn count(cells: &RecordBatch, name: &str, row: usize) -> i64 {
    cells.column_by_name(name).unwrap().as_primitive::<Int64Type>().value(row)
}

fn number(cells: &RecordBatch, name: &str, row: usize) -> Option<f64> {
    let column = cells.column_by_name(name).unwrap().as_primitive::<Float64Type>();
    column.is_valid(row).then(|| column.value(row))
}

fn list(cells: &RecordBatch, name: &str, row: usize) -> Option<Vec<Option<i64>>> {
    let lists = cells.column_by_name(name).unwrap().as_list::<i32>();
    lists.is_valid(row).then(|| lists.value(row).as_primitive::<Int64Type>().iter().collect())
}

/// Records, k and a base.
fn windows() -> impl Strategy<Value = (Vec<Record>, usize, usize)> {
    (nobody::records(), 2..5_usize, 2..13_usize)
}

/// How often each metric of a row was told.
type Told = RefCell<BTreeMap<&'static str, usize>>;

/// Each number is that of the records, rounded the slow way.
fn as_the_slow_way(records: &[Record], k: usize, base: usize, told: &Told) -> Result<(), TestCaseError> {
    let (exact, rounded) = (cells_of(records, &outlet("a", k, k, false)), cells_of(records, &to("a", k, base)));
    prop_assert_eq!(exact.is_some(), rounded.is_some());
    let (Some(exact), Some(rounded)) = (exact, rounded) else { return Ok(()) };
    prop_assert_eq!(exact.schema(), rounded.schema());
    prop_assert_eq!(exact.num_rows(), rounded.num_rows());
    let tell = |name, is_told: bool| *told.borrow_mut().entry(name).or_default() += usize::from(is_told);
    for row in 0..exact.num_rows() {
        let group = exact.column_by_name("group").unwrap().as_string::<i32>().value(row);
        let of_row = || records.iter().filter(|record| (record.group == 1) == (group == "other"));
        let of = |is_wanted: fn(&Record) -> bool| of_row().filter(|record| is_wanted(record)).count();
        prop_assert_eq!(count(&rounded, "n", row), near(base, of(|_| true)));
        for name in ["values", "levels"] {
            let by_range = list(&exact, name, row);
            let near_of = |count: Option<i64>| count.map(|count| near(base, count as usize));
            let slow = by_range.map(|ranges| ranges.into_iter().map(near_of).collect::<Vec<_>>());
            prop_assert_eq!(list(&rounded, name, row), slow, "{}", name);
        }
        for name in ["sum", "level_sum"] {
            prop_assert_eq!(number(&rounded, name, row), number(&exact, name, row), "a sum is no count");
        }
        let [is, other] = [of(|record| record.label == Some(1)), of(|record| record.label == Some(0))];
        let (is, other) = (near(base, is) as f64, near(base, other) as f64);
        let share = number(&exact, "share", row).and_then(|_| (is + other > 0.0).then(|| is / (is + other)));
        prop_assert_eq!(number(&rounded, "share", row), share);
        tell("share", share.is_some_and(|share| share > 0.0 && share < 1.0));
        let value: f64 = of_row().filter_map(|record| record.value).sum();
        let level: f64 = of_row().map(|record| record.level).sum();
        let values = of(|record| record.value.is_some());
        for (name, sum, values) in [("mean", value, values), ("level_mean", level, of(|_| true))] {
            let by = near(base, values);
            let mean = number(&exact, name, row).filter(|_| by > 0).map(|_| (sum / by as f64).clamp(0.0, 4.0));
            prop_assert_eq!(number(&rounded, name, row), mean, "{}", name);
            tell(name, mean.is_some_and(|_| by != values as i64));
        }
        prop_assert_eq!(number(&rounded, "variance", row), None);
        tell("variance", number(&exact, "variance", row).is_some());
    }
    Ok(())
}

#[test]
fn each_number_is_what_the_slow_way_says() {
    let told = Told::default();
    runner(500).run(&windows(), |(records, k, base)| as_the_slow_way(&records, k, base, &told)).unwrap();
    let told = told.into_inner();
    for name in ["share", "mean", "level_mean", "variance"] {
        assert!(told.get(name).copied().unwrap_or(0) >= 50, "too little leaves: {told:?}");
    }
}

/// Records that add nothing to a sum, and that rounding hides, change nothing that leaves: neither a number nor the id.
fn hides(records: &[Record], k: usize, base: usize, hidden: &RefCell<usize>) -> Result<(), TestCaseError> {
    let Some(first) = records.first() else { return Ok(()) };
    let more = Record { value: Some(0.0), label: Some(0), level: 0.0, ..first.clone() };
    let more: Vec<Record> = records.iter().cloned().chain([more]).collect();
    let of = |records: &[Record], is_wanted: &dyn Fn(&Record) -> bool| {
        near(base, records.iter().filter(|record| record.group == first.group && is_wanted(record)).count())
    };
    let is_hidden = |is_wanted: &dyn Fn(&Record) -> bool| of(records, is_wanted) == of(&more, is_wanted);
    let nulls = |records: &[Record]| -> Option<Vec<usize>> {
        let cells = cells_of(records, &outlet("a", k, k, false))?;
        let ranges = |column: &ArrayRef| column.as_list_opt::<i32>().map_or(0, |lists| lists.values().null_count());
        Some(cells.columns().iter().map(|column| column.null_count() + ranges(column)).collect())
    };
    let lowest = |of: Option<f64>| of.is_some_and(|of| of < 1.0);
    // A range that others are merged with is rounded with them.
    let is_merged = |records: &[Record]| nulls(records).is_none_or(|nulls| nulls.iter().any(|nulls| *nulls > 0));
    let are_hidden = is_hidden(&|_| true)
        && is_hidden(&|record| record.value.is_some())
        && is_hidden(&|record| record.label == Some(0))
        && is_hidden(&|record| lowest(record.value))
        && is_hidden(&|record| lowest(Some(record.level)));
    if !are_hidden || is_merged(records) || nulls(records) != nulls(&more) {
        return Ok(());
    }
    *hidden.borrow_mut() += 1;
    let left = |records: &[Record]| cells_of(records, &to("a", k, base)).unwrap();
    prop_assert_eq!(left(records), left(&more));
    Ok(())
}

/// Records of many people that have all values, so that nothing is withheld.
fn many() -> impl Strategy<Value = Vec<Record>> {
    let record = (0..12_usize, 0..4_u8, 0..2_i64, 0..3_u8).prop_map(|(person, value, label, level)| Record {
        person: Some(person),
        group: 0,
        value: Some(f64::from(value)),
        label: Some(label),
        level: f64::from(level),
    });
    prop::collection::vec(record, 40..80)
}

#[test]
fn what_rounding_hides_changes_nothing_that_leaves() {
    let hidden = RefCell::new(0);
    let ran = |cases| runner(cases).run(&(many(), 2..13_usize), |(records, base)| hides(&records, 2, base, &hidden));
    ran(300).unwrap();
    assert!(*hidden.borrow() >= 30, "too little is hidden: {hidden:?}");
    let _planted = plant("means-of-exact-counts");
    assert!(ran(300).is_err(), "a bug is planted, and nobody noticed");
}

#[test]
fn a_mean_of_the_exact_count_is_found() {
    let _planted = plant("means-of-exact-counts");
    let found = runner(500).run(&windows(), |(records, k, base)| as_the_slow_way(&records, k, base, &Told::default()));
    assert!(found.is_err(), "a bug is planted, and nobody noticed");
}

/// The finer dataset `d` of countries and cities, `e` of countries; with longer windows, `h` of countries and cities.
fn family() -> Arc<Dataset> {
    let finer = Dataset { min_contributors: 1, window: Duration::from_secs(60), ..with_means(rolled::dataset(true)) };
    let coarser = |name: &str, keys: usize, times: u32| {
        let (keys, window) = (finer.keys[..keys].to_vec(), finer.window * times);
        let coarser_than = Some("d".parse().unwrap());
        Arc::new(Dataset {
            name: name.parse().unwrap(),
            coarser_than,
            keys,
            window,
            roll_up: Vec::new(),
            ..finer.clone()
        })
    };
    Dataset::counted_for(&[Arc::new(finer.clone()), coarser("e", 1, 1), coarser("h", 2, 3)]).unwrap()
}

fn of_all(outlet: &Outlet) -> Vec<Outlet> {
    let of = |dataset: &str| Outlet { dataset: dataset.parse().unwrap(), ..outlet.clone() };
    ["d", "e", "h"].map(of).to_vec()
}

/// A row is what anybody can compute from these rows.
fn is_made_of(cells: &RecordBatch, parts: &[usize], (sums, at): (&RecordBatch, usize)) -> Result<(), TestCaseError> {
    let all: i64 = parts.iter().map(|part| count(cells, "n", *part)).sum();
    prop_assert_eq!(count(sums, "n", at), all);
    for name in ["values", "levels"] {
        let of_all: Option<i64> =
            parts.iter().map(|part| Some(list(cells, name, *part)?.iter().flatten().sum::<i64>())).sum();
        let of_sum = list(sums, name, at).map(|ranges| ranges.iter().flatten().sum::<i64>());
        prop_assert_eq!(of_sum, of_all, "{}", name);
    }
    // The mean of a field that every record has: weighted by the counts beside it. A count of 0 adds nothing.
    let weighted: Option<f64> = parts
        .iter()
        .filter(|part| count(cells, "n", **part) > 0)
        .map(|part| Some(number(cells, "level_mean", *part)? * count(cells, "n", *part) as f64))
        .sum();
    if let (Some(weighted), Some(mean)) = (weighted, number(sums, "level_mean", at)) {
        prop_assert!((mean - weighted / all as f64).abs() < 1e-9, "{} of {}", mean, weighted);
    }
    prop_assert_eq!(number(sums, "variance", at), None);
    Ok(())
}

fn sums(records: &[Record], k: usize, base: usize, several: &RefCell<usize>) -> Result<(), TestCaseError> {
    let outlets = of_all(&to("a", k, base));
    let outcome = rolled::released(&family(), records, &[], &rolled::lots(records.len()), &outlets);
    let of = |dataset: &str| outcome.released.iter().find(|released| *released.dataset() == *dataset);
    let (Some(d), Some(e)) = (of("d"), of("e")) else { return Ok(()) };
    let (d, e) = (d.cells(), e.cells());
    let (finer, coarser) = (rolled::rows(d), countries(e));
    for (at, country) in coarser.iter().enumerate() {
        let parts: Vec<usize> = (0..finer.len()).filter(|row| country_of(finer[*row]) == country).collect();
        *several.borrow_mut() += usize::from(parts.len() > 1);
        is_made_of(d, &parts, (e, at))?;
    }
    Ok(())
}

#[test]
fn a_coarser_row_is_what_anybody_can_compute_from_the_rounded_rows() {
    let several = RefCell::new(0);
    let ran = |cases| {
        runner(cases)
            .run(&(rolled::records(), 2..4_usize, 2..13_usize), |(records, k, base)| sums(&records, k, base, &several))
    };
    ran(400).unwrap();
    assert!(*several.borrow() >= 100, "too little is added up: {several:?}");
    let _planted = plant("sums-of-exact-counts");
    assert!(ran(400).is_err(), "a bug is planted, and nobody noticed");
}

/// 12, 13 and 14 leave as 10, 15 and 15. Where the policies ask for multiples of 4 as well when the longer window ends, so does
/// the sum: its rows have left, and 40 is no less.
#[test]
fn a_sum_of_windows_is_one_of_rounded_rows_and_as_the_policies_ask_when_it_leaves() {
    let (counted, gateway) = (family(), "eu".parse().unwrap());
    let mut outlets = of_all(&to("a", 5, 5));
    let mut longer = Longer::default();
    for (window, persons) in [(0, 12), (1, 13), (2, 14)] {
        let cells = rolled::cells(&counted, &in_cities([persons, 0, 0, 0]));
        let closed = ClosedWindow { gateway: &gateway, dataset: &counted, window, part: 0, cells, deferral: None };
        let outcome = release(&closed, &outlets, Digest::from_bytes([5; 32])).unwrap();
        longer.add(&Addition { added: outcome.longer, ..Addition::default() });
    }
    let left = |outlets: &[Outlet]| -> Vec<i64> {
        let ended = longer.ending(&counted, None, &mut Addition::default());
        let released = release_longer(&gateway, &counted, &ended[0], 0, outlets, Digest::from_bytes([5; 32])).unwrap();
        released.iter().map(|released| count(released.cells(), "n", 0)).collect()
    };
    assert_eq!(left(&outlets), [40]);
    outlets.iter_mut().for_each(|outlet| outlet.rounding = rounding(15));
    assert_eq!(left(&outlets), [45]);
    outlets[0].rounding = rounding(997);
    assert_eq!(left(&outlets), [0], "a multiple of 997 and of the base of another outlet");
}

#[test]
fn a_remainder_is_rounded_as_a_cell() {
    // Four cities of 4 people each under k = 5.
    let dataset = with_means(rolled::dataset(false));
    let records = in_cities([4, 4, 4, 0]);
    let outcome = rolled::released(&dataset, &records, &[], &rolled::lots(records.len()), &[to("a", 5, 5)]);
    let cells = outcome.released[0].cells();
    assert_eq!((rolled::rows(cells), count(cells, "n", 0)), (vec![rolled::Row::Country(0)], 10));
}

#[test]
fn of_versions_that_ask_for_other_bases_both_get_what_they_ask_for() {
    let versions = |bases: &[usize]| strictest(bases.iter().map(|base| vec![to("a", 5, *base)]));
    let bases = |bases: &[usize]| versions(bases).iter().map(|outlet| outlet.rounding.base()).collect::<Vec<_>>();
    assert_eq!(
        (bases(&[4, 6]), bases(&[6, 4]), bases(&[5, 10, 4]), bases(&[7, 999])),
        (vec![12], vec![12], vec![20], vec![6_993])
    );
    let records: Vec<Record> = in_cities([20, 0, 0, 0]);
    assert_eq!(count(&cells_of(&records, &versions(&[4, 6])[0]).unwrap(), "n", 0), 24);
    // Outlets of one window that ask for others, which no policies do: all together.
    let dataset = with_means(nobody::dataset());
    let outcome = |bases: [usize; 2]| {
        let outlets = [to("a", 5, bases[0]), to("b", 5, bases[1])];
        nobody::released_as(&dataset, &records, &[], &[], &outlets)
    };
    let all: Vec<i64> = outcome([4, 6]).released.iter().map(|released| count(released.cells(), "n", 0)).collect();
    assert_eq!(all, [24, 24]);
    // A base that no policy may come to: nobody is told less than that there is a cell.
    let large: Vec<i64> = outcome([7, 999]).released.iter().map(|released| count(released.cells(), "n", 0)).collect();
    assert_eq!(large, [0, 0]);
}

#[test]
fn k_is_asked_of_exact_numbers_and_a_cell_that_leaves_may_say_0() {
    let left = |persons: usize, k: usize, base: usize| {
        let cells = cells_of(&in_cities([persons, 0, 0, 0]), &to("a", k, base))?;
        Some((count(&cells, "n", 0), number(&cells, "level_mean", 0)))
    };
    // 9 would be 10, and 10 with k = 10 leaves.
    assert_eq!((left(9, 10, 5), left(10, 10, 5).map(|(n, _)| n)), (None, Some(10)));
    // A mean by 0 is none.
    assert_eq!(left(10, 10, 50), Some((0, None)));
    assert_eq!(left(25, 10, 50), Some((50, Some(0.25))));
    // 12 people, each with 0.5: by 10 records that is 0.6, and no mean is outside of the range.
    assert_eq!(left(12, 10, 5), Some((10, Some(0.6))));
    let all_at_end: Vec<Record> =
        in_cities([12, 0, 0, 0]).into_iter().map(|one| Record { level: 4.0, ..one }).collect();
    assert_eq!(number(&cells_of(&all_at_end, &to("a", 10, 5)).unwrap(), "level_mean", 0), Some(4.0));
}

/// A count is rounded, to its digits, and again: it is a multiple, and says nothing that the multiple does not say.
#[test]
fn a_count_of_few_digits_is_a_multiple_that_depends_on_the_multiple_alone() {
    let left = |persons: usize, base: usize, digits: Option<u8>| {
        let mut dataset = Dataset { min_contributors: 5, ..nobody::dataset() };
        dataset.metrics[0].digits = digits;
        let outcome = nobody::released_as(&dataset, &in_cities([persons, 0, 0, 0]), &[], &[], &[to("a", 5, base)]);
        count(outcome.released[0].cells(), "n", 0)
    };
    for base in [3, 7, 10, 25] {
        let mut seen = BTreeMap::new();
        for persons in 5..160 {
            let (multiple, both) = (left(persons, base, None), left(persons, base, Some(1)));
            assert_eq!(both % base as i64, 0, "{persons} to {base}");
            assert_eq!(*seen.entry(multiple).or_insert(both), both, "{persons} to {base}");
        }
        assert!(seen.values().collect::<BTreeSet<_>>().len() < seen.len(), "{base}: {seen:?}");
    }
    assert_eq!((left(104, 5, Some(1)), left(140, 10, Some(1)), left(26, 25, Some(1))), (100, 100, 25));
}

#[test]
fn what_rounds_to_the_same_is_no_change() {
    let dataset = Dataset { only_on_change: true, ..nobody::dataset() };
    let mut tables = Tables::new(&dataset);
    let gateway = "eu".parse().unwrap();
    let mut tell = |window, persons: usize, base: usize| -> Vec<i64> {
        let records: Vec<Record> =
            in_cities([persons, 0, 0, 0]).into_iter().map(|one| Record { value: None, ..one }).collect();
        let cells = nobody::cells_of(&dataset, nobody::columns, &records, &[], &[]);
        let closed = ClosedWindow { gateway: &gateway, dataset: &dataset, window, part: 0, cells, deferral: None };
        let receivers = ["a".parse().unwrap()].into();
        let outcome = release_changes(&closed, &[to("a", 5, base)], Digest::from_bytes([5; 32]), &tables, &receivers);
        let outcome = outcome.unwrap();
        outcome.told.iter().for_each(|telling| tables.tell(telling));
        outcome.released.iter().map(|released| count(released.cells(), "n", 0)).collect()
    };
    assert_eq!(tell(1, 13, 5), [15]);
    assert_eq!(tell(2, 17, 5), [0; 0]);
    assert_eq!(tell(3, 18, 5), [20]);
    // Another base is a change only if the cell says another number.
    assert_eq!((tell(4, 18, 10), tell(5, 18, 15)), (vec![], vec![15]));
}
