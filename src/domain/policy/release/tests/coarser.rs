//! A coarser dataset beside the finer one whose rows it adds up. Which rows leave, and what each counts, is worked out the slow
//! way, and all that leaves of both is pooled before the exact search. Each sum is held against the rows of the finer one.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef};
use proptest::prelude::*;

use super::nobody::{Record, outlet, outlets, pool_of, pool_rows, runner};
use super::rolled::{self, CITIES, COUNTRIES, Row, bounds, expected, in_cities, lots, records, released, rows};
use super::*;
use crate::domain::aggregate::Lot;
use crate::domain::dataset::Bounds;
use crate::planted::for_tests::plant;

/// The finer dataset `d` of countries and cities, `e` of countries, and `f` of all.
fn family(both: bool, bounds: Option<Bounds>) -> Arc<Dataset> {
    let finer = Dataset { bounds, min_contributors: 1, ..rolled::dataset(both) };
    let coarser = |name: &str, keys: usize| {
        let keys = finer.keys[..keys].to_vec();
        let coarser_than = Some("d".parse().unwrap());
        Arc::new(Dataset { name: name.parse().unwrap(), coarser_than, keys, roll_up: Vec::new(), ..finer.clone() })
    };
    let (e, f) = (coarser("e", 1), coarser("f", 0));
    Dataset::counted_for(&[Arc::new(finer.clone()), e, f]).unwrap()
}

/// `d` goes to the first outlet, `e` to the second one and `f` to both.
fn to(outlets: &[Outlet]) -> Vec<Outlet> {
    let of = |dataset: &str, outlet: &Outlet| Outlet { dataset: dataset.parse().unwrap(), ..outlet.clone() };
    vec![of("d", &outlets[0]), of("e", &outlets[1]), of("f", &outlets[0]), of("f", &outlets[1])]
}

fn of<'o>(outcome: &'o Outcome, dataset: &str) -> Option<&'o Released> {
    outcome.released.iter().find(|released| *released.dataset() == *dataset)
}

/// The country of each row of a release; `rest` for that of a remainder of all.
pub(super) fn countries(cells: &RecordBatch) -> Vec<String> {
    cells.column_by_name("country").unwrap().as_string::<i32>().iter().map(|label| label.unwrap().to_owned()).collect()
}

pub(super) fn country_of(row: Row) -> &'static str {
    match row {
        Row::Cell(cell) => COUNTRIES[cell / CITIES.len()],
        Row::Country(country) => COUNTRIES[country],
        Row::All => "rest",
    }
}

fn nobody(
    records: &[Record],
    outlets: &[Outlet],
    (both, bounds): (bool, Option<Bounds>),
    told: &RefCell<BTreeMap<String, usize>>,
) -> Result<(), TestCaseError> {
    let lots = lots(records.len());
    let outcome = released(&family(both, bounds), records, &[], &lots, &to(outlets));
    let every: Vec<usize> = (0..records.len()).collect();
    let k = outlets.iter().map(|outlet| outlet.min_contributors).max().unwrap();
    let row_of = expected(records, &[], &every, k, both);
    prop_assert_eq!(outcome.released.is_empty(), row_of.is_empty());
    if row_of.is_empty() {
        return Ok(());
    }
    let [d, e, f] = ["d", "e", "f"].map(|dataset| of(&outcome, dataset).unwrap().cells());
    let finer = rows(d);
    prop_assert_eq!(finer.iter().copied().collect::<BTreeSet<_>>(), row_of.values().copied().collect());
    let coarser = countries(e);
    let distinct: BTreeSet<&str> = row_of.values().map(|row| country_of(*row)).collect();
    prop_assert_eq!(coarser.iter().map(String::as_str).collect::<BTreeSet<_>>(), distinct.clone());
    prop_assert_eq!((coarser.len(), f.num_rows()), (distinct.len(), 1));
    prop_assert_eq!(["d", "e", "f"].map(|of| outcome.of_dataset(of)), [finer.len(), coarser.len(), 1]);
    // Of each person in each row, the records of the lowest lots: a coarser dataset draws none of its own.
    let mut drawn: BTreeMap<(Option<usize>, Row), BTreeMap<Lot, usize>> = BTreeMap::new();
    for (record, row) in &row_of {
        drawn.entry((records[*record].person, *row)).or_default().insert(lots[*record], *record);
    }
    let most = bounds.map_or(usize::MAX, |bounds| bounds.records_per_cell as usize);
    let counts: BTreeSet<usize> = drawn.into_values().flat_map(|lots| lots.into_values().take(most)).collect();
    let mut pool = pool_of(records);
    let row = |record: usize| row_of.get(&record).filter(|_| counts.contains(&record)).copied();
    pool_rows(&mut pool, records, d, &|at, record| row(record) == Some(finer[at]), &|_| true)?;
    let is_of = |at: usize, record: usize| row(record).is_some_and(|row| country_of(row) == coarser[at]);
    pool_rows(&mut pool, records, e, &is_of, &|_| true)?;
    pool_rows(&mut pool, records, f, &|_, record| row(record).is_some(), &|_| true)?;
    let of_parts = outlets.iter().map(|outlet| outlet.parts.least).max().unwrap();
    let found = pool.singled_out(of_parts.min(k));
    prop_assert!(found.is_none(), "{:?} can be worked out", found);
    // What is null in one of the rows is null in the sum, and nothing else is.
    for (at, country) in coarser.iter().enumerate() {
        let parts: Vec<usize> = (0..finer.len()).filter(|row| country_of(finer[*row]) == country).collect();
        adds_up(d, &parts, (e, at), told)?;
    }
    adds_up(d, &(0..finer.len()).collect::<Vec<_>>(), (f, 0), told)
}

/// A row is the sum of these rows of another release.
pub(super) fn adds_up(
    finer: &RecordBatch,
    parts: &[usize],
    (coarser, at): (&RecordBatch, usize),
    told: &RefCell<BTreeMap<String, usize>>,
) -> Result<(), TestCaseError> {
    for name in ["n", "sum", "share", "values", "levels"] {
        let [finer, coarser] = [finer, coarser].map(|cells| cells.column_by_name(name).unwrap());
        let is_told = parts.iter().all(|part| finer.is_valid(*part));
        prop_assert_eq!(coarser.is_valid(at), is_told, "{}", name);
        if !is_told {
            continue;
        }
        *told.borrow_mut().entry(name.to_owned()).or_default() += usize::from(parts.len() > 1);
        match name {
            "n" => {
                let value = |column: &ArrayRef, row: usize| column.as_primitive::<Int64Type>().value(row);
                prop_assert_eq!(value(coarser, at), parts.iter().map(|part| value(finer, *part)).sum::<i64>());
            }
            "sum" => {
                let value = |column: &ArrayRef, row: usize| column.as_primitive::<Float64Type>().value(row);
                prop_assert_eq!(value(coarser, at), parts.iter().map(|part| value(finer, *part)).sum::<f64>());
            }
            "values" | "levels" => {
                let counts = |column: &ArrayRef, row: usize| -> Vec<Option<i64>> {
                    column.as_list::<i32>().value(row).as_primitive::<Int64Type>().iter().collect()
                };
                let (sum, parts) =
                    (counts(coarser, at), parts.iter().map(|part| counts(finer, *part)).collect::<Vec<_>>());
                for (range, count) in sum.iter().enumerate() {
                    prop_assert_eq!(count.is_some(), parts.iter().all(|part| part[range].is_some()), "{}", name);
                }
                let all = |counts: &[Option<i64>]| counts.iter().flatten().sum::<i64>();
                prop_assert_eq!(all(&sum), parts.iter().map(|part| all(part)).sum::<i64>());
            }
            // The pool has checked its value.
            _ => {}
        }
    }
    Ok(())
}

#[test]
fn sums_of_rows_single_out_nobody_beside_the_rows_and_are_their_sums() {
    let told = RefCell::new(BTreeMap::new());
    runner(600)
        .run(&(records(), outlets(), (any::<bool>(), bounds())), |(records, outlets, how)| {
            nobody(&records, &outlets, how, &told)
        })
        .unwrap();
    let told = told.into_inner();
    for name in ["n", "sum", "values", "levels"] {
        assert!(told.get(name).copied().unwrap_or(0) >= 20, "too little is added up: {told:?}");
    }
}

#[test]
fn a_sum_that_tells_what_a_row_or_a_window_withholds_is_found() {
    for bug in ["sums-by-one-plan", "sums-of-all"] {
        let _planted = plant(bug);
        let found = runner(2_000).run(&(records(), outlets(), any::<bool>()), |(records, outlets, both)| {
            nobody(&records, &outlets, (both, None), &RefCell::default())
        });
        assert!(found.is_err(), "`{bug}` is planted, and nobody noticed");
    }
}

#[test]
fn what_is_in_no_row_is_in_no_sum_and_who_has_the_sums_alone_learns_no_more() {
    // Of the second city two are there, and one of the third: no remainder of three cells could be of them.
    let records = in_cities([7, 2, 1, 0]);
    let leaves = |datasets: &[&str]| {
        let mut outlets = to(&[outlet("a", 5, 5, false), outlet("b", 5, 5, false)]);
        outlets.retain(|outlet| datasets.contains(&outlet.dataset.as_str()));
        let outcome = released(&family(false, None), &records, &[], &lots(records.len()), &outlets);
        let count = |released: &Released| {
            released.cells().column_by_name("n").unwrap().as_primitive::<Int64Type>().values().to_vec()
        };
        outcome.released.iter().map(count).collect::<Vec<_>>()
    };
    assert_eq!(leaves(&["d", "e"]), [[7], [7]]);
    assert_eq!(leaves(&["e"]), [[7]]);
    assert_eq!(leaves(&["f"]), [[7], [7]]);
}

#[test]
fn a_share_of_all_is_that_of_all_records_and_null_where_one_row_withholds_its_own() {
    let share = |labels: [usize; 2]| {
        let mut records = in_cities([12, 18, 0, 0]);
        for (city, with) in labels.into_iter().enumerate() {
            let of_city = records.iter_mut().filter(|record| record.group == city);
            of_city.enumerate().for_each(|(at, record)| record.label = Some(i64::from(at < with)));
        }
        // Some have none, so that it is no wonder who has one.
        let none = (100..112).map(|person| Record { person: Some(person), group: person % 2, ..records[0].clone() });
        let none = none.map(|record| Record { label: None, ..record }).collect::<Vec<_>>();
        let records = [records, none].concat();
        let outlets = to(&[outlet("a", 5, 5, false), outlet("b", 5, 5, false)]);
        let outcome = released(&family(false, None), &records, &[], &lots(records.len()), &outlets);
        let shares = |dataset: &str| -> Vec<Option<f64>> {
            let cells = of(&outcome, dataset).unwrap().cells();
            cells.column_by_name("share").unwrap().as_primitive::<Float64Type>().iter().collect()
        };
        (shares("d"), shares("e"))
    };
    // Not the mean of both, 0.41.
    assert_eq!(share([6, 6]), (vec![Some(0.5), Some(1.0 / 3.0)], vec![Some(0.4)]));
    assert_eq!(share([6, 2]), (vec![Some(0.5), None], vec![None]));
}

#[test]
fn each_has_its_own_id_its_own_keys_and_rounds_the_whole_sum() {
    let mut members: Vec<Arc<Dataset>> =
        family(false, None).members.iter().map(|member| Arc::clone(&member.dataset)).collect();
    let mut e = Dataset::clone(&members[1]);
    (e.metrics[0].name, e.metrics[0].digits, e.tells_contributors) = ("about".into(), Some(1), true);
    members[1] = Arc::new(e);
    let counted = Dataset::counted_for(&members).unwrap();
    // 14 and 14 are about 30, and not 10 and 10.
    let records = in_cities([14, 14, 0, 0]);
    let told = |outlet: Outlet| Outlet { tells_contributors: true, ..outlet };
    let outlets = to(&[outlet("a", 5, 5, false), told(outlet("b", 5, 5, false))]);
    let outcome = released(&counted, &records, &[], &lots(records.len()), &outlets);
    let [d, e] = ["d", "e"].map(|dataset| of(&outcome, dataset).unwrap());
    assert_ne!(d.id(), e.id());
    let names: Vec<String> = e.cells().schema().fields().iter().skip(6).map(|field| field.name().clone()).collect();
    assert_eq!(names[..3], ["country", CONTRIBUTORS, "about"]);
    let number = |name: &str| e.cells().column_by_name(name).unwrap().as_primitive::<Int64Type>().value(0);
    assert_eq!((e.cells().num_rows(), number("about"), number(CONTRIBUTORS)), (1, 30, 5));
}
