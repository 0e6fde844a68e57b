//! How many contributors a cell has at least, where a dataset tells it: in cells of several parts, in remainders, to
//! destinations of other rules, and where somebody forbids it.

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;

use super::nobody::{self, Record, outlet};
use super::*;
use crate::domain::aggregate::{Lot, Producer, Request};
use crate::domain::dataset::{Bounds, GroupKey};
use crate::domain::deferral::{Deferral, Gone, Joined};

fn telling() -> Dataset {
    Dataset { tells_contributors: true, ..nobody::dataset() }
}

fn to(destination: &str, k: usize) -> Outlet {
    Outlet { tells_contributors: true, ..outlet(destination, k, k, false) }
}

/// So many records of each of these people.
fn records(people: std::ops::Range<usize>, each: usize) -> Vec<Record> {
    let record = |person| Record { person: Some(person), group: 0, value: Some(1.0), label: Some(1), level: 1.5 };
    people.flat_map(|person| (0..each).map(move |_| record(person))).collect()
}

fn cells(dataset: &Dataset, columns: &[ArrayRef], producers: &[Producer]) -> Cells {
    let contributors = ContributorKey([7; 16]).hash(&columns[0]);
    let mut cells = Cells::new(dataset);
    let foldable = Foldable::new(dataset, columns, &contributors).brought_by(producers);
    cells.fold(dataset, &foldable, &Rows::All);
    cells
}

fn leave(dataset: &Dataset, cells: Cells, outlets: &[Outlet]) -> Vec<Released> {
    let gateway = "eu".parse().unwrap();
    let cells = cells.bounded(dataset);
    let closed = ClosedWindow { gateway: &gateway, dataset, window: 2, part: 0, cells, deferral: None };
    release(&closed, outlets, Digest::from_bytes([5; 32])).unwrap().released
}

/// What leaves of records.
fn left(dataset: &Dataset, records: &[Record], outlets: &[Outlet]) -> Vec<Released> {
    leave(dataset, cells(dataset, &nobody::columns(records), &[]), outlets)
}

/// What each row says.
fn told(released: &Released) -> Vec<Option<i64>> {
    released.cells().column_by_name(CONTRIBUTORS).unwrap().as_primitive::<Int64Type>().iter().collect()
}

#[test]
fn the_column_stands_between_keys_and_metrics_and_only_where_it_is_asked_for() {
    let names = |released: &Released| -> Vec<String> {
        released
            .cells()
            .schema()
            .fields()
            .iter()
            .skip(RELEASE_COLUMNS.len())
            .map(|field| field.name().clone())
            .collect()
    };
    let records = records(0..25, 2);
    let with = left(&telling(), &records, &[to("a", 10)]);
    assert_eq!(names(&with[0]), ["group", CONTRIBUTORS, "n", "sum", "values", "share", "levels"]);
    assert_eq!(told(&with[0]), [Some(20)]);
    let without = left(&nobody::dataset(), &records, &[to("a", 10)]);
    assert_eq!(names(&without[0]), ["group", "n", "sum", "values", "share", "levels"]);
    assert_ne!(with[0].id(), without[0].id());
    // With 19 contributors in 50 records, nothing else differs.
    let other: Vec<Record> = [records[..38].to_vec(), records[..12].to_vec()].concat();
    let other = left(&telling(), &other, &[to("a", 10)]);
    assert_eq!(told(&other[0]), [Some(10)]);
    let without = |released: &Released| {
        let mut cells = released.cells().clone();
        for at in [7, 0] {
            cells.remove_column(at);
        }
        cells
    };
    assert_eq!(without(&with[0]), without(&other[0]));
    assert_ne!(with[0].id(), other[0].id(), "the id is of the column, too");
}

#[test]
fn the_id_of_version_6_stays_what_it_is() {
    let dataset = Dataset { max_defer: 2, tells_contributors: true, ..samples::every_kind() };
    let outcome = leaves(&dataset, &Rows::All, &[Outlet { tells_contributors: true, ..super::to("a", 3) }]);
    assert_eq!(outcome.released[0].id(), include_str!("../../../../../tests/golden/release-id-6.txt").trim());
}

/// Parts of a cell that were counted apart have some people in common.
#[test]
fn contributors_of_all_parts_of_a_cell_count_once() {
    let dataset = telling();
    let of = |people| cells(&dataset, &nobody::columns(&records(people, 3)), &[]);
    for (other, told_of_both) in [(0..12, 10), (8..19, 10), (8..20, 20), (19..31, 20), (60..1_099, 1_000)] {
        let mut both = of(0..12);
        both.merge(of(other.clone()));
        let released = leave(&dataset, both, &[to("a", 10)]);
        assert_eq!(told(&released[0]), [Some(told_of_both)], "{other:?}");
    }
}

/// The first step is a destination's own k. The others are the same for all, so that two that put theirs together do not learn
/// more: with k = 19 at the one, the step of 20 at the other would say that 19 are 19.
#[test]
fn destinations_of_another_k_have_their_own_first_step_and_the_same_above() {
    let people = |people: usize| records(0..people, 3);
    let told_of = |records: &[Record], outlets: &[Outlet]| -> Vec<(String, Option<i64>)> {
        let released = left(&telling(), records, outlets);
        released.iter().map(|released| (released.destination().to_string(), told(released)[0])).collect()
    };
    let of = |told: &[(&str, i64)]| -> Vec<(String, Option<i64>)> {
        told.iter().map(|(name, told)| ((*name).to_owned(), Some(*told))).collect()
    };
    let both = [to("few", 8), to("many", 19)];
    assert_eq!(told_of(&people(18), &both), of(&[("few", 8)]));
    assert_eq!(told_of(&people(19), &both), of(&[("few", 8), ("many", 19)]));
    assert_eq!(told_of(&people(49), &both), of(&[("few", 8), ("many", 19)]));
    assert_eq!(told_of(&people(50), &both), of(&[("few", 50), ("many", 50)]));
    assert_eq!(told_of(&people(49), &both[..1]), of(&[("few", 20)]));
}

#[test]
fn what_one_forbids_none_is_told() {
    let records = records(0..25, 2);
    let forbids = Outlet { tells_contributors: false, ..to("b", 12) };
    let released = left(&telling(), &records, &[to("a", 10), forbids.clone()]);
    assert_eq!(released.iter().map(told).collect::<Vec<_>>(), [[None], [None]]);
    // Of two versions of the policies, of which one forbids it.
    for versions in [[to("a", 10), forbids.clone()], [forbids, to("a", 10)]] {
        let versions = versions.map(|outlet| vec![Outlet { destination: "a".parse().unwrap(), ..outlet }]);
        let strictest = crate::domain::policy::strictest(versions);
        assert_eq!(told(&left(&telling(), &records, &strictest)[0]), [None]);
    }
}

/// A producer knows how many records are not its own.
#[test]
fn where_no_producer_is_believed_alone_there_is_no_step_above_k() {
    let dataset = telling();
    let records = records(0..100, 4);
    let producers = ["a", "b", "c"].map(|name| ContributorKey([7; 16]).producer(name));
    let of_each: Vec<Producer> = (0..records.len()).map(|at| producers[at % producers.len()]).collect();
    let cells = || cells(&dataset, &nobody::columns(&records), &of_each);
    let plain = to("a", 10);
    let beyond_one = Outlet { parts: PartRule { beyond_one: true, ..plain.parts }, ..plain.clone() };
    assert_eq!(told(&leave(&dataset, cells(), &[plain])[0]), [Some(100)]);
    assert_eq!(told(&leave(&dataset, cells(), &[beyond_one])[0]), [Some(10)]);
}

#[test]
fn with_bounds_the_records_that_count_are_those_that_leave_room() {
    let bounds = |records_per_cell| Some(Bounds { records_per_cell, cells_per_window: None });
    for (of_one, step) in [(3, 10), (4, 10), (5, 20), (8, 20)] {
        let dataset = Dataset { bounds: bounds(of_one), ..telling() };
        let columns = nobody::columns(&records(0..22, 2));
        let contributors = ContributorKey([7; 16]).hash(&columns[0]);
        let lots: Vec<Lot> = (0..44)
            .map(|at| ContributorKey([7; 16]).lots(Request::Placed { lsn: at, at: 0 }).next().unwrap())
            .collect();
        let mut cells = Cells::new(&dataset);
        cells.fold(&dataset, &Foldable::new(&dataset, &columns, &contributors).drawn_by(&lots), &Rows::All);
        // 44 records; of 20 contributors there could be 60, 80, 100, 160.
        assert_eq!(told(&leave(&dataset, cells, &[to("a", 10)])[0]), [Some(step)], "{of_one}");
    }
}

/// Four cells have seven people each, of whom the last two are in the next cell, too.
#[test]
fn a_remainder_tells_k_whatever_it_holds() {
    let words = ["a", "b", "c", "d", "e"];
    let domain = KeyDomain::text(words.map(str::to_owned).to_vec());
    let keys = vec![GroupKey { name: "group".into(), column: 1, domain }];
    let dataset = Dataset { keys, roll_up: vec![0], ..telling() };
    let leaves = |each: usize| {
        let of_cells = (0..4).map(|cell| records(cell * 5..cell * 5 + 7, each));
        let (mut all, mut groups) = (Vec::new(), Vec::new());
        for (cell, records) in of_cells.enumerate() {
            groups.extend(records.iter().map(|_| words[cell]));
            all.extend(records);
        }
        let mut columns = nobody::columns(&all);
        columns[1] = Arc::new(StringArray::from(groups));
        leave(&dataset, cells(&dataset, &columns, &[]), &[to("a", 10)])
    };
    // 22 people with 28 records, and with 56. It leaves only with 45 people at most: a step of 20 would say from 20 to 45.
    for each in [1, 2] {
        let released = leaves(each);
        assert_eq!(released[0].cells().column_by_name("group").unwrap().as_string::<i32>().value(0), REST);
        assert_eq!(told(&released[0]), [Some(10)]);
    }
}

#[test]
fn a_cell_that_waited_tells_of_all_its_windows() {
    let dataset = Dataset { max_defer: 2, ..telling() };
    let gateway = "eu".parse().unwrap();
    let mut deferral = Deferral::new(2, 0);
    let mut told_of = Vec::new();
    // Eight people, and fourteen of whom two were there before: 20 with 44 records.
    for (window, people) in [(0, 0..8), (1, 6..20)] {
        let own = cells(&dataset, &nobody::columns(&records(people, 2)), &[]);
        deferral.close(window, Some(Digest::from_bytes([5; 32])));
        let Joined { cells, own } = deferral.join(window, own);
        let closed =
            ClosedWindow { gateway: &gateway, dataset: &dataset, window, part: 0, cells, deferral: Some(&deferral) };
        let outcome = release(&closed, &[to("a", 10)], Digest::from_bytes([5; 32])).unwrap();
        told_of.extend(outcome.released.iter().map(told));
        let cells = closed.cells;
        deferral.settle(window, &Joined { cells, own }, Gone { left: &outcome.left, rolled_up: &outcome.rolled_up });
    }
    assert_eq!(told_of, [[Some(20)]]);
}

/// That a cell has more contributors now is a change, though it has as many records.
#[test]
fn another_step_is_a_change_and_what_is_gone_says_nothing() {
    let dataset = Dataset { only_on_change: true, ..telling() };
    let gateway = "eu".parse().unwrap();
    let mut tables = Tables::new(&dataset);
    let mut tell = |window, records: &[Record]| {
        let cells = cells(&dataset, &nobody::columns(records), &[]);
        let closed = ClosedWindow { gateway: &gateway, dataset: &dataset, window, part: 0, cells, deferral: None };
        let receivers = ["a".parse().unwrap()].into();
        let outcome = release_changes(&closed, &[to("a", 10)], Digest::from_bytes([5; 32]), &tables, &receivers);
        let outcome = outcome.unwrap();
        outcome.told.iter().for_each(|telling| tables.tell(telling));
        let rows = outcome.released.iter().flat_map(|released| {
            let change = released.cells().column_by_name(CHANGE).unwrap().as_string::<i32>().value(0).to_owned();
            told(released).into_iter().map(move |told| (change.clone(), told))
        });
        rows.collect::<Vec<_>>()
    };
    let twice = |people| [records(0..people, 1), records(0..50 - people, 1)].concat();
    assert_eq!(tell(1, &twice(25)), [("all".to_owned(), Some(20))]);
    assert!(tell(2, &twice(30)).is_empty(), "the same step, and as many records");
    let few = [records(0..19, 2), records(0..12, 1)].concat();
    assert_eq!(tell(3, &few), [("set".to_owned(), Some(10))]);
    assert_eq!(tell(4, &records(0..3, 1)), [("gone".to_owned(), None)]);
}

/// Each asks by itself. What forbids it in one, is in the rule of all.
#[test]
fn of_datasets_that_share_their_cells_each_asks_by_itself() {
    let of = |name: &str, tells_contributors| {
        Arc::new(Dataset { name: name.parse().unwrap(), tells_contributors, ..nobody::dataset() })
    };
    let counted = Dataset::counted_for(&[of("d", false), of("e", true)]).unwrap();
    let of_dataset = |outlet: Outlet, dataset: &str| Outlet { dataset: dataset.parse().unwrap(), ..outlet };
    let silent = |outlet: Outlet| Outlet { tells_contributors: false, ..outlet };
    let released = |outlets: &[Outlet]| left(&counted, &records(0..25, 2), outlets);
    let [d, e] = &released(&[silent(of_dataset(to("a", 10), "d")), of_dataset(to("b", 12), "e")])[..] else {
        panic!("one of each")
    };
    assert!(d.cells().column_by_name(CONTRIBUTORS).is_none());
    // The k of both is 12, and so is the first step.
    assert_eq!(told(e), [Some(12)]);
    let [_, e] = &released(&[silent(of_dataset(to("a", 10), "d")), silent(of_dataset(to("b", 10), "e"))])[..] else {
        panic!("one of each")
    };
    assert_eq!(told(e), [None]);
}
