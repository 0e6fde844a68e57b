use std::collections::BTreeSet;

use arrow_array::builder::{Int64Builder, ListBuilder};
use arrow_array::{Array, Float64Array, Int64Array, TimestampMicrosecondArray};
use proptest::prelude::*;

use super::*;
use crate::domain::dataset::CONTRIBUTORS;
use crate::domain::policy::{Digest, ReleasedParts};

const COUNTRIES: [&str; 3] = ["DE", "FR", "rest"];
const CITIES: [&str; 3] = ["a", "b", "other"];

/// What a row says: two keys, how many windows it covers, a count, a sum, a mean, a histogram.
#[derive(Debug, Clone)]
struct Row {
    country: usize,
    city: usize,
    windows: i64,
    n: i64,
    sum: Option<f64>,
    mean: Option<f64>,
    bins: Option<Vec<Option<i64>>>,
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    // Quarters are added without an error.
    let number = || prop::option::weighted(0.9, (-40..40_i32).prop_map(|quarters| f64::from(quarters) / 4.0));
    // The first range is never without a count.
    let bins = (0..9_i64, prop::option::of(0..9_i64), prop::option::of(0..9_i64));
    let bins = prop::option::weighted(0.9, bins.prop_map(|(first, second, third)| vec![Some(first), second, third]));
    let row = (0..3_usize, 0..3_usize, 1..3_i64, 0..50_i64, number(), number(), bins);
    let row =
        row.prop_map(|(country, city, windows, n, sum, mean, bins)| Row { country, city, windows, n, sum, mean, bins });
    let key = |row: &Row| (row.country, row.city);
    prop::collection::vec(row, 1..12).prop_map(move |mut rows| {
        rows.sort_by_key(key);
        rows.dedup_by_key(|row| key(row));
        rows
    })
}

fn released(rows: &[Row]) -> Released {
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text; rows.len()])) };
    let time = |time: i64| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from_value(time, rows.len())) };
    let label = |of: &dyn Fn(&Row) -> &'static str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(of)))
    };
    let mut bins = ListBuilder::new(Int64Builder::new());
    for row in rows {
        row.bins.iter().flatten().for_each(|count| bins.values().append_option(*count));
        bins.append(row.bins.is_some());
    }
    let whole = |of: fn(&Row) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(rows.iter().map(of))) };
    let number = |of: fn(&Row) -> Option<f64>| -> ArrayRef { Arc::new(rows.iter().map(of).collect::<Float64Array>()) };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("release", text("0123456789abcdef0123456789abcdef")),
        ("gateway", text("eu-1")),
        ("dataset", text("cells")),
        ("policy", text("0123456789ab")),
        ("window_start", time(0)),
        ("window_end", time(60_000_000)),
        ("windows", whole(|row| row.windows)),
        ("country", label(&|row| COUNTRIES[row.country])),
        ("city", label(&|row| CITIES[row.city])),
        ("n", whole(|row| row.n)),
        ("sum", number(|row| row.sum)),
        ("mean", number(|row| row.mean)),
        ("variance", number(|row| row.mean)),
        ("bins", Arc::new(bins.finish())),
    ];
    Released::for_tests(ReleasedParts {
        id: "0123456789abcdef0123456789abcdef".to_owned(),
        destination: "desk".parse().unwrap(),
        dataset: "cells".parse().unwrap(),
        gateway: "eu-1".parse().unwrap(),
        window_start: 0,
        window_end: 60_000_000,
        policy: Digest::from_bytes([7; 32]),
        cells: nullable(columns),
    })
}

/// Cells as a release has them: numbers other than counts may be null.
fn nullable(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let is_number = |name: &str| ["sum", "mean", "variance", "bins", CONTRIBUTORS].contains(&name);
    let columns = columns.into_iter().map(|(name, column)| (name, column, is_number(name)));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// The rows of a release, as they were put in; of keys the labels.
fn read(released: &Released) -> Vec<(Vec<String>, Row)> {
    let cells = released.cells();
    let column = |name: &str| Arc::clone(cells.column_by_name(name).unwrap());
    let whole = |name: &str| column(name).as_primitive::<Int64Type>().clone();
    let number = |name: &str, row: usize| {
        let values = column(name).as_primitive::<Float64Type>().clone();
        values.is_valid(row).then(|| values.value(row))
    };
    let label = |name: &str, row: usize| column(name).as_string::<i32>().value(row).to_owned();
    let bins = column("bins").as_list::<i32>().clone();
    let read = (0..cells.num_rows()).map(|row| {
        let of_row = || bins.value(row).as_primitive::<Int64Type>().iter().collect();
        let (windows, n) = (whole("windows").value(row), whole("n").value(row));
        let (sum, mean, bins) = (number("sum", row), number("mean", row), bins.is_valid(row).then(of_row));
        let of_row = Row { country: 0, city: 0, windows, n, sum, mean, bins };
        (vec![label("country", row), label("city", row)], of_row)
    });
    read.collect()
}

fn top(rows: u32, by: &str) -> Step {
    Step::Top(Top { rows, by: By::Metric(by.to_owned()) })
}

fn roll_up(keys: &[&str]) -> Step {
    let adding = |weight: Option<&str>| Adding { weight: weight.map(str::to_owned), digits: None };
    let metrics = [("n", adding(None)), ("sum", adding(None)), ("mean", adding(Some("n"))), ("bins", adding(None))];
    let metrics = metrics.map(|(metric, adding)| (metric.to_owned(), adding)).into();
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    Step::RollUp(RollUp { keys, datasets: [("cells".parse().unwrap(), metrics)].into() })
}

/// The sum of all, if each is there.
fn all<T: std::iter::Sum<T>>(values: impl Iterator<Item = Option<T>>) -> Option<T> {
    values.sum()
}

proptest! {
    #[test]
    fn the_largest_rows_stay_as_they_are(rows in rows(), most in 1..6_u32, by_sum: bool) {
        let whole = released(&rows);
        let smaller = whole.reduced(&Reduction(vec![top(most, if by_sum { "sum" } else { "n" })])).unwrap();
        if rows.len() <= most as usize {
            prop_assert!(smaller.made_smaller().is_none() && smaller.id() == whole.id());
            prop_assert_eq!(smaller.cells(), whole.cells());
            return Ok(());
        }
        // One after the other, the first of the largest is taken.
        let size = |row: &Row| if by_sum { row.sum } else { Some(row.n as f64) };
        let mut stay = BTreeSet::new();
        for _ in 0..most {
            let left = (0..rows.len()).filter(|row| !stay.contains(row));
            let largest = left.reduce(|best, row| {
                let (of_best, of_row) = (size(&rows[best]), size(&rows[row]));
                if of_row.is_some_and(|of_row| of_best.is_none_or(|of_best| of_row > of_best)) { row } else { best }
            });
            stay.insert(largest.unwrap());
        }
        let found = format!("{:?}", read(&smaller));
        let expected: Vec<_> = read(&whole).into_iter().enumerate().filter(|(at, _)| stay.contains(at)).map(|(_, row)| row).collect();
        prop_assert_eq!(found, format!("{expected:?}"));
    }

    #[test]
    fn rows_are_added_up_over_the_keys_that_are_given_up(rows in rows(), both: bool) {
        let whole = released(&rows);
        let keys: &[&str] = if both { &["city", "country"] } else { &["city"] };
        let smaller = whole.reduced(&Reduction(vec![roll_up(keys)])).unwrap();
        let apart = |row: &Row| (if both { 0 } else { row.country }, row.windows);
        let groups: BTreeSet<_> = rows.iter().map(apart).collect();
        if groups.len() == rows.len() {
            prop_assert!(smaller.made_smaller().is_none());
            return Ok(());
        }
        prop_assert_eq!(smaller.cells().num_rows(), groups.len());
        let variances = smaller.cells().column_by_name("variance").unwrap();
        prop_assert_eq!(variances.null_count(), groups.len(), "nobody can add variances");
        for (keys, found) in read(&smaller) {
            prop_assert_eq!(&keys[1], ALL);
            let country = COUNTRIES.iter().position(|country| **country == *keys[0]);
            prop_assert_eq!(country.is_none(), both && keys[0] == ALL);
            let of_group: Vec<&Row> = rows.iter().filter(|row| apart(row) == (country.unwrap_or(0), found.windows)).collect();
            let records: i64 = of_group.iter().map(|row| row.n).sum();
            prop_assert_eq!(found.n, records);
            prop_assert_eq!(found.sum, all(of_group.iter().map(|row| row.sum)));
            let weighted = all(of_group.iter().map(|row| Some(row.mean? * row.n as f64)));
            prop_assert_eq!(found.mean, weighted.filter(|_| records > 0).map(|sum| sum / records as f64));
            // Counts from each range with a count of its own to the next one.
            let bins = of_group.iter().map(|row| row.bins.clone()).collect::<Option<Vec<_>>>();
            prop_assert_eq!(found.bins.is_some(), bins.is_some());
            let (Some(found), Some(bins)) = (found.bins, bins) else { continue };
            let is_own = |range: usize| bins.iter().all(|bins| bins[range].is_some());
            for range in 0..3 {
                let next = (range + 1..3).find(|next| is_own(*next)).unwrap_or(3);
                let counted: i64 = bins.iter().flat_map(|bins| &bins[range..next]).flatten().sum();
                prop_assert_eq!(found[range], is_own(range).then_some(counted), "range {}", range);
            }
        }
    }

    #[test]
    fn a_form_is_read_as_it_was_written(rows: u32, each: bool, keys in prop::collection::vec("[a-z]{1,4}", 0..3)) {
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let by = By::Each([("cells".parse().unwrap(), "n".to_owned())].into());
        let top = if each { Step::Top(Top { rows, by }) } else { top(rows, "n") };
        let form = Reduction(vec![roll_up(&keys), top]);
        let mut writer = Writer::default();
        form.encode(&mut writer);
        let bytes = writer.finish();
        prop_assert_eq!(Reduction::decode(&mut Reader::new(&bytes)), Some(form));
        for end in 0..bytes.len() {
            prop_assert_eq!(Reduction::decode(&mut Reader::new(&bytes[..end])), None);
        }
    }
}

fn row(country: usize, city: usize, n: i64) -> Row {
    Row { country, city, windows: 1, n, sum: Some(0.5), mean: None, bins: None }
}

#[test]
fn a_smaller_release_says_what_it_was_made_of_and_by_which_steps() {
    let whole = released(&[row(0, 0, 7), row(0, 1, 5), row(1, 0, 5), row(2, 0, 3)]);
    let of = |steps: &[Step]| whole.reduced(&Reduction(steps.to_vec())).unwrap();
    let (added, both) = (of(&[roll_up(&["city"])]), of(&[roll_up(&["city"]), top(2, "n")]));
    let labels = |released: &Released| -> Vec<(String, i64)> {
        read(released).into_iter().map(|(keys, row)| (keys.join("/"), row.n)).collect()
    };
    let counts = |counts: &[(&str, i64)]| counts.iter().map(|(keys, n)| ((*keys).to_owned(), *n)).collect::<Vec<_>>();
    assert_eq!(labels(&added), counts(&[("DE/all", 12), ("FR/all", 5), ("rest/all", 3)]));
    assert_eq!(labels(&both), counts(&[("DE/all", 12), ("FR/all", 5)]));
    // Of equal ones the first stays.
    assert_eq!(labels(&of(&[top(2, "n")])), counts(&[("DE/a", 7), ("DE/b", 5)]));
    let reduced = both.made_smaller().unwrap();
    assert_eq!((reduced.text().as_str(), reduced.whole.as_str(), reduced.cells), ("roll_up,top", whole.id(), 4));
    assert_eq!((both.id_of_whole(), whole.id_of_whole()), (whole.id(), whole.id()));
    let names = |released: &Released| -> Vec<String> {
        released.cells().schema().fields().iter().map(|field| field.name().clone()).collect()
    };
    let mut expected = names(&whole);
    expected.insert(RELEASE_COLUMNS.len(), DEGRADED.to_owned());
    assert_eq!(names(&both), expected);
    let column = |name: &str| both.cells().column_by_name(name).unwrap().as_string::<i32>().value(1).to_owned();
    assert_eq!((column("release").as_str(), column(DEGRADED).as_str()), (both.id(), "roll_up,top"));
    // Whatever differs has another id, of the same length. The same has the same.
    let others = [top(1, "n"), top(2, "n"), top(2, "sum"), roll_up(&["city"]), roll_up(&["country"])];
    let ids: BTreeSet<String> = others.iter().map(|step| of(std::slice::from_ref(step)).id().to_owned()).collect();
    assert!(ids.len() == others.len() && ids.iter().all(|id| id.len() == whole.id().len()) && !ids.contains(both.id()));
    assert_eq!(both.id(), of(&[roll_up(&["city"]), top(2, "n")]).id());
    // It is not made smaller again.
    assert_eq!(both.reduced(&Reduction(vec![top(1, "n")])).unwrap().id(), both.id());
}

#[test]
fn what_a_step_knows_nothing_of_stays_whole() {
    let whole = released(&[row(0, 0, 7), row(0, 1, 5)]);
    let mut other = roll_up(&["city"]);
    if let Step::RollUp(roll_up) = &mut other {
        roll_up.datasets.clear();
    }
    let each = Step::Top(Top { rows: 1, by: By::Each([("others".parse().unwrap(), "n".to_owned())].into()) });
    for step in [top(1, "none"), top(1, "bins"), top(1, "city"), top(1, "windows"), each, roll_up(&["none"]), other] {
        let smaller = whole.reduced(&Reduction(vec![step.clone()])).unwrap();
        assert_eq!((smaller.id(), smaller.made_smaller()), (whole.id(), None), "{step:?}");
    }
    // A row that a receiver does not get is unchanged to it.
    let cells = whole.cells();
    let mut columns: Vec<(String, ArrayRef)> =
        cells.schema().fields().iter().map(|field| field.name().clone()).zip(cells.columns().iter().cloned()).collect();
    columns.insert(7, (CHANGE.to_owned(), Arc::new(StringArray::from(vec!["set"; 2]))));
    let changes = Released { cells: RecordBatch::try_from_iter(columns).unwrap(), ..whole };
    assert!(changes.reduced(&Reduction(vec![top(1, "n")])).unwrap().made_smaller().is_none());
}

#[test]
fn sums_are_rounded_to_the_digits_of_their_metric() {
    let whole = released(&[row(0, 0, 1_200), row(0, 1, 55)]);
    let mut step = roll_up(&["city"]);
    if let Step::RollUp(roll_up) = &mut step {
        roll_up.datasets.get_mut("cells").unwrap().get_mut("n").unwrap().digits = Some(2);
    }
    let (_, row) = read(&whole.reduced(&Reduction(vec![step])).unwrap()).remove(0);
    assert_eq!((row.n, row.sum), (1_300, Some(1.0)));
}

/// 14 and 14 of a base of 7 are 28. To one digit they would be 30, which is no multiple, and a profile may ask for multiples
/// at any time.
#[test]
fn counts_are_added_up_and_not_rounded_to_digits_again() {
    use crate::domain::document::changed_first;
    use crate::domain::policy::explain::tests::STREAM;
    use crate::domain::policy::fixture::tests::{SET, set};
    let stream = changed_first(STREAM, "fn = \"count\"", "fn = \"count\", digits = 1");
    let policy = set(&[SET[0], SET[1], SET[2], SET[3], &stream]);
    let of_policy = RollUp { keys: Vec::new(), datasets: BTreeMap::new() }.of(&policy);
    assert_eq!(of_policy.datasets["visits_by_home"]["visits"].digits, None);
}

#[test]
fn rows_that_are_added_up_have_at_least_as_many_contributors_as_the_largest_of_them() {
    let plain = released(&[row(0, 0, 40), row(0, 1, 60), row(1, 0, 40)]);
    let schema = plain.cells.schema();
    let names = schema.fields().iter().map(|field| field.name().as_str());
    let steps: ArrayRef = Arc::new(Int64Array::from(vec![Some(10), Some(20), None]));
    let columns = names.zip(plain.cells.columns().iter().cloned()).chain([(CONTRIBUTORS, steps)]);
    let told = Released { cells: nullable(columns.collect()), ..plain.clone() };
    let smaller = told.reduced(&Reduction(vec![roll_up(&["city"])])).unwrap();
    let found = smaller.cells.column_by_name(CONTRIBUTORS).unwrap().as_primitive::<Int64Type>();
    assert_eq!(found.iter().collect::<Vec<_>>(), [Some(20), None]);
}
