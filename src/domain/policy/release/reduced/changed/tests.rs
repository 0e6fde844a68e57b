use std::sync::Arc;

use arrow_array::builder::{Int64Builder, ListBuilder};
use arrow_array::{ArrayRef, Float64Array};
use proptest::prelude::*;

use super::receiver::{Receiver, Table, released};
use super::*;
use crate::domain::name::DatasetName;
use crate::domain::policy::{By, Reduction, Step, Top};

fn tables() -> impl Strategy<Value = Table> {
    let keys = (0..4_u8, 0..3_u8).prop_map(|(country, city)| [country, city].map(|key| format!("k{key}")));
    let says = (1..3_i64, 0..3_i64, prop::option::of(-2..3_i64));
    prop::collection::btree_map(keys, says, 1..12)
}

fn table(rows: &[(&str, i64)]) -> Table {
    rows.iter().map(|(city, n)| (["DE".to_owned(), (*city).to_owned()], (1, *n, None))).collect()
}

fn told<'t>(whole: &'t Released, left: &'t Released) -> impl Fn(&DatasetName) -> Option<LastTold<'t>> {
    move |dataset| (*whole.dataset() == *dataset).then_some(LastTold { id: left.id(), whole })
}

/// In this form, what has changed since one release that left whole.
fn alone(before: &Released, now: &Released) -> Released {
    let form = Reduction::on_change(Changes::since(told(before, before), std::slice::from_ref(now)));
    form.applied(std::slice::from_ref(now)).unwrap().remove(0)
}

/// What has changed, row by row.
fn told_by_hand(before: &Table, now: &Table) -> (usize, usize) {
    let set = now.iter().filter(|(keys, says)| before.get(*keys) != Some(*says)).count();
    (set, before.keys().filter(|keys| !now.contains_key(*keys)).count())
}

proptest! {
    /// Releases of two datasets leave together, several at once, after what left before.
    #[test]
    fn a_receiver_has_the_whole_table_of_each_release(together in prop::collection::vec(prop::collection::vec((any::<bool>(), tables()), 1..5), 1..4)) {
        let mut receivers: BTreeMap<String, Receiver> = BTreeMap::new();
        let mut last: BTreeMap<String, (Released, Released)> = BTreeMap::new();
        for (of_all, releases) in together.into_iter().enumerate() {
            let releases: Vec<(Table, Released)> = releases.into_iter().enumerate().map(|(at, (is_other, table))| {
                let whole = released(if is_other { "others" } else { "cells" }, &format!("{of_all:016x}{at:016x}"), &table);
                (table, whole)
            }).collect();
            let whole: Vec<Released> = releases.iter().map(|(_, whole)| whole.clone()).collect();
            let of = |dataset: &DatasetName| last.get(dataset.as_str()).map(|(whole, left)| LastTold { id: left.id(), whole });
            let form = Reduction::on_change(Changes::since(of, &whole));
            let mut writer = Writer::default();
            form.encode(&mut writer);
            let bytes = writer.finish();
            prop_assert_eq!(Reduction::decode(&mut Reader::new(&bytes)), Some(form.clone()));
            for end in 0..bytes.len() {
                prop_assert_eq!(Reduction::decode(&mut Reader::new(&bytes[..end])), None);
            }
            let left = form.applied(&whole).unwrap();
            prop_assert_eq!(left.len(), whole.len());
            for ((table, whole), left) in releases.iter().zip(&left) {
                let receiver = receivers.entry(whole.dataset().to_string()).or_default();
                let (set, gone) = told_by_hand(&receiver.table, table);
                let is_first = receiver.release.is_none();
                prop_assert!(receiver.hear(left));
                prop_assert_eq!(&receiver.table, table);
                let rows = (set + gone).max(1);
                let is_less = !is_first && rows < table.len();
                prop_assert_eq!(left.made_smaller().is_some(), is_less);
                prop_assert_eq!(left.cells().num_rows(), if is_less { rows } else { table.len() });
                prop_assert_eq!(left.id_of_whole(), whole.id());
                last.insert(whole.dataset().to_string(), (whole.clone(), left.clone()));
            }
        }
    }
}

#[test]
fn it_says_since_which_release_and_what_is_gone() {
    let before = released("cells", "aa", &table(&[("a", 7), ("b", 5), ("c", 5), ("d", 1)]));
    let now = released("cells", "bb", &table(&[("a", 7), ("b", 6), ("d", 1), ("e", 9)]));
    let left = alone(&before, &now);
    let names: Vec<&str> = left.cells.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names[6..], [DEGRADED, SINCE, WINDOWS, CHANGE, "country", "city", "n", "mean"]);
    let column = |name: &str| -> Vec<String> {
        left.cells
            .column_by_name(name)
            .unwrap()
            .as_string::<i32>()
            .iter()
            .map(|text| text.unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        (column("city"), column(CHANGE)),
        (["b", "e", "c"].map(str::to_owned).into(), ["set", "set", "gone"].map(str::to_owned).into())
    );
    assert_eq!(
        (column(SINCE)[2].as_str(), column(DEGRADED)[2].as_str(), column("release")[2].as_str()),
        ("aa", "on_change", left.id())
    );
    let reduced = left.made_smaller().unwrap();
    assert_eq!(
        (reduced.text().as_str(), reduced.whole.as_str(), reduced.cells, reduced.since.as_deref()),
        ("on_change", "bb", 4, Some("aa"))
    );
    assert_eq!(reduced.columns(), [DEGRADED, SINCE]);
    // The same has the same id, and since another release it has another one.
    let other = released("cells", "cc", &table(&[("a", 7), ("b", 5), ("c", 5), ("d", 1)]));
    assert_eq!(alone(&before, &now).id(), left.id());
    assert!(left.id() != alone(&other, &now).id() && left.id() != now.id());
    // It is not made smaller again, in any form.
    let top = Reduction(vec![Step::Top(Top { rows: 1, by: By::Metric("n".to_owned()) })]);
    assert_eq!(left.reduced(&top).unwrap().id(), left.id());
    assert_eq!(alone(&now, &left).id(), left.id());
}

#[test]
fn where_nothing_has_changed_one_row_is_told_again() {
    let rows = table(&[("a", 7), ("b", 5), ("c", 5)]);
    let left = alone(&released("cells", "aa", &rows), &released("cells", "bb", &rows));
    assert_eq!((left.cells.num_rows(), left.made_smaller().is_some()), (1, true));
    // Of one row nothing can be left out.
    let rows = table(&[("a", 7)]);
    assert!(alone(&released("cells", "aa", &rows), &released("cells", "bb", &rows)).made_smaller().is_none());
}

#[test]
fn what_cannot_be_compared_leaves_whole() {
    let rows = table(&[("a", 7), ("b", 5), ("c", 5)]);
    let (before, now) = (released("cells", "aa", &rows), released("cells", "bb", &rows));
    let with = |of: &Released, name: &str, column: ArrayRef| {
        let cells = of.cells();
        let mut columns: Vec<(String, ArrayRef, bool)> = cells
            .schema_ref()
            .fields()
            .iter()
            .zip(cells.columns())
            .map(|(field, column)| (field.name().clone(), Arc::clone(column), field.is_nullable()))
            .collect();
        columns.push((name.to_owned(), column, true));
        Released { cells: RecordBatch::try_from_iter_with_nullable(columns).unwrap(), ..of.clone() }
    };
    let number = || -> ArrayRef { Arc::new(Float64Array::from(vec![1.0; 3])) };
    let text = || -> ArrayRef { Arc::new(StringArray::from(vec!["set"; 3])) };
    let is_whole = |before: &Released, now: &Released| alone(before, now).made_smaller().is_none();
    assert!(!is_whole(&before, &now) && !is_whole(&with(&before, "sum", number()), &with(&now, "sum", number())));
    // Of a histogram, each range and that a range has no count of its own.
    let bins = |third: Option<i64>| -> ArrayRef {
        let mut bins = ListBuilder::new(Int64Builder::new());
        [Some(1), None, third].into_iter().for_each(|count| {
            bins.values().append_option(Some(7));
            bins.values().append_option(count);
            bins.append(true);
        });
        Arc::new(bins.finish())
    };
    let cities = |third: Option<i64>, now_third: Option<i64>| {
        let left = alone(&with(&before, "bins", bins(third)), &with(&now, "bins", bins(now_third)));
        let city = left.cells.column_by_name("city").unwrap().as_string::<i32>().clone();
        city.iter().map(|city| city.unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(cities(Some(3), Some(3)), ["a"], "nothing has changed");
    assert_eq!([cities(Some(3), Some(4)), cities(Some(3), None), cities(None, Some(0))], [["c"]; 3]);
    assert!(is_whole(&before, &with(&now, "sum", number())), "another metric");
    assert!(is_whole(&with(&before, "sum", text()), &with(&now, "sum", number())), "a key was a metric");
    for own in [CHANGE, SINCE, DEGRADED] {
        assert!(is_whole(&with(&before, own, text()), &with(&now, own, text())), "{own}");
    }
    // Two rows with the same keys.
    let twice = Released { cells: now.cells.slice(0, 2), ..now.clone() };
    let twice = Released {
        cells: arrow_select::concat::concat_batches(&now.cells.schema(), [&twice.cells, &twice.cells]).unwrap(),
        ..twice
    };
    assert!(is_whole(&before, &twice) && is_whole(&twice, &now));
    // Nothing was told, or another release stands there.
    assert!(
        Reduction::on_change(Changes::default()).applied(std::slice::from_ref(&now)).unwrap()[0]
            .made_smaller()
            .is_none()
    );
    let form = Reduction::on_change(Changes::since(told(&before, &before), std::slice::from_ref(&now)));
    assert!(form.applied(&[released("cells", "cc", &rows)]).unwrap()[0].made_smaller().is_none());
}
