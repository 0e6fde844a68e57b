//! What leaves of a cell, and that nobody is singled out by it.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, StringArray};

use super::*;
use crate::domain::aggregate::{ContributorKey, Foldable, PartRule, Rows};
use crate::domain::dataset::{CHANGE, CONTRIBUTORS, Function, Metric, samples};
use crate::domain::policy::Widest;

mod bounds;
mod coarser;
mod contributors;
mod deferred;
mod longer;
mod nobody;
mod noised;
mod producers;
mod rolled;
mod rounded;
mod row_space;
mod shared;
mod sums;

/// The sample without keys, so in one cell, with a histogram of `x` too. Of `x` every third record has no value.
fn dataset() -> Dataset {
    let mut dataset = samples::every_kind();
    dataset.keys.clear();
    if let Some(source) = dataset.metrics[4].function.source().cloned() {
        let function = Function::Histogram { source, edges: vec![0.0, 10.0, 100.0] };
        dataset.metrics.push(Metric { name: "x_histogram".into(), function, digits: None });
    }
    dataset
}

/// What leaves of some of the records.
fn leaves(dataset: &Dataset, rows: &Rows<'_>, outlets: &[Outlet]) -> Outcome {
    let gateway = "eu".parse().unwrap();
    release(&closed(&gateway, dataset, rows), outlets, Digest::from_bytes([5; 32])).unwrap()
}

/// A window that has some of the records.
fn closed<'w>(gateway: &'w GatewayId, dataset: &'w Dataset, rows: &Rows<'_>) -> ClosedWindow<'w> {
    let columns = samples::columns();
    let contributors = ContributorKey([7; 16]).hash(&columns[0]);
    let mut cells = Cells::new(dataset);
    let records = Foldable::new(dataset, &columns, &contributors);
    cells.fold(dataset, &records, rows);
    ClosedWindow { gateway, dataset, window: 2, part: 0, cells, deferral: None }
}

fn to(destination: &str, min_contributors: usize) -> Outlet {
    let parts = PartRule { least: min_contributors, not_empty: false, percent: 0, beyond_one: false, beside: 0 };
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

#[test]
fn a_cell_leaves_to_outlets_that_want_no_more_contributors_than_it_has() {
    let outcome = leaves(&dataset(), &Rows::All, &[to("a", 13), to("b", 14)]);
    assert_eq!((outcome.cells_released, outcome.cells_withheld), (1, 0));
    assert_eq!(outcome.released.iter().map(Released::destination).collect::<Vec<_>>(), ["a"]);
    let outcome = leaves(&dataset(), &Rows::All, &[to("b", 14)]);
    assert_eq!((outcome.cells_released, outcome.cells_withheld, outcome.released.len()), (0, 1, 0));
}

#[test]
fn a_metric_is_null_where_k_does_not_hold_for_it_and_its_column_has_the_same_type() {
    let dataset = dataset();
    // All have a value of `x` in some record, and all have none in another. Then in one record only.
    let one_without: Vec<u32> = (0..60).filter(|row| *row == 0 || row % 3 != 0).collect();
    let all = leaves(&dataset, &Rows::All, &[to("a", 10)]);
    let few = leaves(&dataset, &Rows::Some(&one_without), &[to("a", 10)]);
    let (all, few) = (all.released[0].cells(), few.released[0].cells());
    assert_eq!(all.schema(), few.schema());
    for metric in &dataset.metrics {
        let column = |cells: &RecordBatch| cells.column_by_name(&metric.name).unwrap().clone();
        assert!(column(all).is_valid(0), "{}", metric.name);
        // Nearly all who have no value of `x` are those of one country.
        let is_few = metric.name.starts_with("x_") || metric.name == "share_of_de";
        assert_eq!(column(few).is_null(0), is_few, "{}", metric.name);
        let schema = all.schema();
        let is_nullable = schema.field_with_name(&metric.name).unwrap().is_nullable();
        assert_eq!(is_nullable, metric.name != "n", "{}", metric.name);
    }
    assert_eq!(few.column_by_name("n").unwrap().as_primitive::<Int64Type>().value(0), 41);
}

#[test]
fn outlets_of_other_numbers_have_nulls_and_ids_of_their_own() {
    let five_without: Vec<u32> = (0..60).filter(|row| *row < 15 || row % 3 != 0).collect();
    let outcome = leaves(&dataset(), &Rows::Some(&five_without), &[to("a", 5), to("b", 6), to("c", 5)]);
    let [a, c, b] = outcome.released.as_slice() else { panic!("one for each outlet") };
    assert!(a.cells().column_by_name("x_sum").unwrap().is_valid(0));
    assert!(b.cells().column_by_name("x_sum").unwrap().is_null(0));
    assert_eq!((a.id(), &**a.destination(), &**c.destination()), (c.id(), "a", "c"));
    assert_ne!(a.id(), b.id());
}

#[test]
fn the_id_of_version_3_stays_what_it_is() {
    let outcome = leaves(&samples::every_kind(), &Rows::All, &[to("a", 3)]);
    assert_eq!(outcome.released[0].id(), include_str!("../../../../tests/golden/release-id-3.txt").trim());
}

/// Where cells wait, what they cover is part of the id.
#[test]
fn the_id_of_version_4_stays_what_it_is() {
    let dataset = Dataset { max_defer: 2, ..samples::every_kind() };
    let outcome = leaves(&dataset, &Rows::All, &[to("a", 3)]);
    assert_eq!(outcome.released[0].id(), include_str!("../../../../tests/golden/release-id-4.txt").trim());
}

/// Where only what has changed leaves, how each cell changes what was told before is part of the id, too.
#[test]
fn the_ids_of_version_5_stay_what_they_are() {
    let dataset = Dataset { only_on_change: true, ..samples::every_kind() };
    let mut tables = Tables::new(&dataset);
    let mut id_of = |window, rows: &Rows<'_>| {
        let gateway = "eu".parse().unwrap();
        let closed = ClosedWindow { window, ..closed(&gateway, &dataset, rows) };
        let receivers = BTreeSet::from(["a".parse().unwrap()]);
        let mut outcome =
            release_changes(&closed, &[to("a", 3)], Digest::from_bytes([5; 32]), &tables, &receivers).unwrap();
        outcome.told.iter().for_each(|telling| tables.tell(telling));
        outcome.released.remove(0)
    };
    // The whole table; then a cell that has other values, and cells that are gone.
    let fewer: Vec<u32> = (0..60).filter(|row| row % 4 != 2 && *row != 51).collect();
    let released = [id_of(2, &Rows::All), id_of(3, &Rows::Some(&fewer))];
    let changes = |released: &Released| {
        let changes = released.cells().column_by_name("change").unwrap().as_string::<i32>().clone();
        changes.iter().flatten().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    assert_eq!(
        released.each_ref().map(changes),
        [BTreeSet::from(["all".into()]), BTreeSet::from(["gone".into(), "set".into()])]
    );
    let golden: Vec<&str> = include_str!("../../../../tests/golden/release-id-5.txt").lines().collect();
    assert_eq!(released.each_ref().map(|released| released.id()), *golden);
}

/// Written as JSON or as Arrow, no cell is larger than the widest.
#[test]
fn no_cell_is_larger_than_the_widest() {
    let dataset = Dataset { max_defer: 2, ..samples::every_kind() };
    let outcome = leaves(&dataset, &Rows::All, &[to("a", 3)]);
    let released = &outcome.released[0];
    let widest = Widest::of(&dataset, released.gateway()).unwrap();
    assert_eq!(widest.cells().schema(), released.cells().schema());
    for (wide, column) in widest.cells().columns().iter().zip(released.cells().columns()) {
        if let (Some(wide), Some(texts)) = (wide.as_string_opt::<i32>(), column.as_string_opt::<i32>()) {
            let longest = texts.iter().flatten().map(|text| format!("{text:?}").len() - 2).max();
            assert!(longest <= Some(wide.value(0).len()), "{texts:?}");
        }
    }
}

#[test]
fn a_metric_leaves_with_no_more_digits_than_it_is_declared_with_and_the_release_has_another_id() {
    let (exact, mut coarse) = (dataset(), dataset());
    for metric in &mut coarse.metrics {
        metric.digits = Some(2);
    }
    let released = |dataset: &Dataset| leaves(dataset, &Rows::All, &[to("a", 5)]).released.remove(0);
    let (exact, coarse) = (released(&exact), released(&coarse));
    assert_ne!(exact.id(), coarse.id());
    assert_eq!(exact.cells().schema(), coarse.cells().schema());
    let mut differ = 0;
    for (field, column) in exact.cells().schema().fields().iter().zip(exact.cells().columns()) {
        let Some(column) = column.as_primitive_opt::<Float64Type>() else { continue };
        let rounded = coarse.cells().column_by_name(field.name()).unwrap().as_primitive::<Float64Type>().value(0);
        assert_eq!(rounded, format!("{:.1e}", column.value(0)).parse::<f64>().unwrap(), "{}", field.name());
        differ += usize::from(rounded != column.value(0));
    }
    assert!(differ > 1);
}
