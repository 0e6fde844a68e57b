//! Nobody is singled out where the records of one contributor are bounded either, and what leaves is computed of the records
//! that count: the exact search over those that the lots choose, chosen the slow way. Each bug that is planted is found.

use std::cell::Cell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::nobody::{Record, least, outlet, outlets, pooled, records, released_within, runner};
use super::*;
use crate::domain::aggregate::{Lot, Request};
use crate::domain::dataset::Bounds;
use crate::planted::for_tests::plant;

/// The lots of the records: they are all of one request.
fn lots(records: usize) -> Vec<Lot> {
    let request = Request::Placed { lsn: 1, at: 0 };
    ContributorKey([7; 16]).lots(request).take(records).collect()
}

/// The records of the lowest lots of each person in each cell.
fn that_count(records: &[Record], lots: &[Lot], records_per_cell: u32) -> Vec<Record> {
    let mut of: BTreeMap<(Option<usize>, usize), BTreeMap<Lot, &Record>> = BTreeMap::new();
    for (record, lot) in records.iter().zip(lots) {
        of.entry((record.person, record.group)).or_default().insert(*lot, record);
    }
    of.into_values().flat_map(|records| records.into_values().take(records_per_cell as usize)).cloned().collect()
}

/// The columns of what left, without what names the release.
fn told(outcome: &Outcome) -> Vec<Vec<ArrayRef>> {
    outcome.released.iter().map(|released| released.cells().columns().iter().skip(1).cloned().collect()).collect()
}

/// How many cells left.
fn nobody(records: &[Record], bounds: Bounds, outlets: &[Outlet]) -> Result<usize, TestCaseError> {
    let lots = lots(records.len());
    let outcome = released_within(Some(bounds), records, &[], &lots, outlets);
    let (mut backwards, mut lots_backwards) = (records.to_vec(), lots.clone());
    backwards.reverse();
    lots_backwards.reverse();
    let again = released_within(Some(bounds), &backwards, &[], &lots_backwards, outlets);
    prop_assert_eq!(told(&outcome), told(&again), "it depends on who comes first");
    if bounds.cells_per_window.is_none() {
        let counted = that_count(records, &lots, bounds.records_per_cell);
        let found = pooled(&counted, &outcome)?.singled_out(least(outlets));
        prop_assert!(found.is_none(), "{:?} can be worked out", found);
    }
    Ok(outcome.cells_released)
}

fn bounds() -> impl Strategy<Value = Bounds> {
    (1..4_u32, prop::option::weighted(0.3, Just(1)))
        .prop_map(|(records_per_cell, cells_per_window)| Bounds { records_per_cell, cells_per_window })
}

#[test]
fn nothing_that_leaves_of_bounded_records_singles_out_fewer_than_k() {
    let left = Cell::new(0);
    let holds = runner(500).run(&(records(), bounds(), outlets()), |(records, bounds, outlets)| {
        left.set(left.get() + nobody(&records, bounds, &outlets)?);
        Ok(())
    });
    holds.unwrap();
    assert!(left.get() >= 300, "too little leaves for the test to show anything: {}", left.get());
}

#[test]
fn that_the_first_records_count_is_found() {
    let _planted = plant("first-come-bounds");
    let found = runner(500).run(&(records(), bounds(), outlets()), |(records, bounds, outlets)| {
        nobody(&records, bounds, &outlets).map(drop)
    });
    assert!(found.is_err(), "`first-come-bounds` is planted, and nobody noticed");
}

/// A contributor with many records counts as often as the bounds say, and a contributor in many cells in so many of them:
/// the cells that it is not drawn for have it neither among their records nor among their contributors.
#[test]
fn one_contributor_weighs_no_more_than_the_bounds_say() {
    let record = |person, group| Record { person: Some(person), group, value: Some(3.0), label: Some(1), level: 1.5 };
    // Ten people of whom one has a hundred records, in both cells.
    let records: Vec<Record> = (0..10)
        .flat_map(|person| [record(person, 0), record(person, 1)])
        .chain((0..200).map(|at| record(0, at % 2)))
        .collect();
    let lots = lots(records.len());
    let counts = |records_per_cell, cells_per_window, k| -> Vec<i64> {
        let bounds = Some(Bounds { records_per_cell, cells_per_window });
        let outcome = released_within(bounds, &records, &[], &lots, &[outlet("a", k, k, false)]);
        let released = outcome.released.iter();
        let counts = released.flat_map(|released| {
            let counts = released.cells().column_by_name("n").unwrap().as_primitive::<Int64Type>();
            counts.values().to_vec()
        });
        counts.collect()
    };
    assert_eq!(counts(3, None, 10), [12, 12]);
    assert_eq!(counts(1, None, 10), [10, 10]);
    let drawn = counts(1, Some(1), 1);
    assert_eq!((drawn.len(), drawn.iter().sum::<i64>()), (2, 10), "{drawn:?}");
    assert_eq!(counts(1, Some(1), 10), Vec::<i64>::new());
}

/// Cells that nobody held to the bounds, or to others, go nowhere.
#[test]
fn cells_that_are_not_held_to_the_bounds_do_not_leave() {
    let plain = dataset();
    let bounds = |records_per_cell| Some(Bounds { records_per_cell, cells_per_window: None });
    let released = |counted: &Dataset, declared: &Dataset, are_bounded: bool| {
        let columns = samples::columns();
        let contributors = ContributorKey([7; 16]).hash(&columns[0]);
        let lots = lots(60);
        let mut cells = Cells::new(counted);
        cells.fold(counted, &Foldable::new(counted, &columns, &contributors).drawn_by(&lots), &Rows::All);
        let cells = if are_bounded { cells.bounded(counted) } else { cells };
        let gateway = "eu".parse().unwrap();
        let closed = ClosedWindow { gateway: &gateway, dataset: declared, window: 2, part: 0, cells, deferral: None };
        release(&closed, &[to("a", 10)], Digest::from_bytes([5; 32])).unwrap().cells_released
    };
    let [two, three] = [2, 3].map(|records| Dataset { bounds: bounds(records), ..plain.clone() });
    assert_eq!(released(&plain, &plain, true), 1);
    assert_eq!(released(&two, &two, true), 1);
    assert_eq!(released(&two, &two, false), 0);
    assert_eq!(released(&plain, &two, true), 0);
    assert_eq!(released(&three, &two, true), 0);
    assert_eq!(released(&two, &plain, true), 0);
}
