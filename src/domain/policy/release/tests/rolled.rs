//! Roll-up: what leaves of cells and remainders is worked out the slow way, from the records alone, and all that leaves to all
//! destinations is pooled before the exact search. The same of runs in which cells wait, too. Each bug that is planted is
//! found.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, StringArray};
use proptest::prelude::*;

use super::deferred::{Model, Step, steps};
use super::nobody::{self, Record, least, outlet, outlets, pool_of, pool_rows, runner};
use super::row_space::Pool;
use super::*;
use crate::domain::aggregate::{Lot, OpenBytes, Request};
use crate::domain::dataset::{Bounds, GroupKey};
use crate::planted::for_tests::plant;

pub(super) const COUNTRIES: [&str; 3] = ["DE", "FR", "other"];
pub(super) const CITIES: [&str; 4] = ["a", "b", "c", "other"];
const SENDERS: usize = 3;

/// The records of [`nobody::records`] in cities of countries, most of them in few.
pub(super) fn records() -> impl Strategy<Value = Vec<Record>> {
    let cell = (0..10_usize, 0..10_usize).prop_map(|(country, city)| {
        let (country, city) = ([0, 0, 0, 0, 0, 0, 1, 1, 1, 2][country], [0, 0, 0, 1, 1, 1, 2, 2, 3, 3][city]);
        country * CITIES.len() + city
    });
    (nobody::records(), prop::collection::vec(cell, 40)).prop_map(|(mut records, cells)| {
        records.iter_mut().zip(cells).for_each(|(record, cell)| record.group = cell);
        records
    })
}

/// Its keys that are given up: the city alone, or the country too.
pub(super) fn dataset(both: bool) -> Dataset {
    let key = |name: &str, column, words: &[&str]| {
        let words = words.iter().filter(|word| **word != "other").map(|word| (*word).to_owned()).collect();
        GroupKey { name: name.into(), column, domain: KeyDomain::text(words) }
    };
    let keys = vec![key("country", 1, &COUNTRIES), key("city", 5, &CITIES)];
    Dataset { keys, roll_up: if both { vec![1, 0] } else { vec![1] }, ..nobody::dataset() }
}

fn columns(records: &[Record]) -> Vec<ArrayRef> {
    let of = |text: fn(&Record) -> &'static str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(records.iter().map(text)))
    };
    let mut columns =
        nobody::columns(&records.iter().map(|record| Record { group: 0, ..record.clone() }).collect::<Vec<_>>());
    columns[1] = of(|record| COUNTRIES[country(record)]);
    columns.push(of(|record| CITIES[record.group % CITIES.len()]));
    columns
}

fn country(record: &Record) -> usize {
    record.group / CITIES.len()
}

/// A row of a release: a cell, or a remainder of a country, or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Row {
    Cell(usize),
    Country(usize),
    All,
}

/// The rows of a release.
pub(super) fn rows(cells: &RecordBatch) -> Vec<Row> {
    let label = |key: &str, row: usize| cells.column_by_name(key).unwrap().as_string::<i32>().value(row).to_owned();
    let position = |labels: &[&str], label: String| labels.iter().position(|known| *known == label);
    let row = |row: usize| match (position(&COUNTRIES, label("country", row)), position(&CITIES, label("city", row))) {
        (Some(country), Some(city)) => Row::Cell(country * CITIES.len() + city),
        (Some(country), None) => {
            assert_eq!(label("city", row), "rest");
            Row::Country(country)
        }
        (None, city) => {
            assert_eq!((city, label("country", row), label("city", row)), (None, "rest".into(), "rest".into()));
            Row::All
        }
    };
    (0..cells.num_rows()).map(row).collect()
}

/// Which rows leave of some of the records to anybody, and in which of them each record is. `senders`: who sent each record,
/// where no single one's word is enough.
pub(super) fn expected(
    records: &[Record],
    senders: &[usize],
    some: &[usize],
    k: usize,
    both: bool,
) -> BTreeMap<usize, Row> {
    let enough_without = |of: &dyn Fn(&Record) -> bool, sender: Option<usize>| {
        let is_other = |record: &usize| sender.is_none() || senders.get(*record).copied() != sender;
        let of =
            some.iter().filter(|record| is_other(record)).map(|record| &records[*record]).filter(|record| of(record));
        of.map(|record| record.person).collect::<BTreeSet<_>>().len() >= k
    };
    let enough = |of: &dyn Fn(&Record) -> bool| {
        enough_without(of, None) && (senders.is_empty() || (0..SENDERS).all(|sender| enough_without(of, Some(sender))))
    };
    let cells: BTreeSet<usize> =
        (0..COUNTRIES.len() * CITIES.len()).filter(|cell| enough(&|record| record.group == *cell)).collect();
    let shown = |country: usize| cells.iter().filter(|cell| *cell / CITIES.len() == country).count();
    let is_alone = |record: &Record| cells.contains(&record.group);
    // Each cell that is not there has fewer than k, and it must be that any one of them has nobody.
    let hides = |hidden: usize, of: &dyn Fn(&Record) -> bool| {
        let persons: BTreeSet<_> = some
            .iter()
            .map(|record| &records[*record])
            .filter(|record| of(record))
            .map(|record| record.person)
            .collect();
        hidden >= 3 && enough(of) && persons.len() <= (hidden - 1) * (k - 1)
    };
    let countries: BTreeSet<usize> = (0..COUNTRIES.len())
        .filter(|of| hides(CITIES.len() - shown(*of), &|record| country(record) == *of && !is_alone(record)))
        .collect();
    let is_rolled_up = |record: &Record| countries.contains(&country(record));
    let hidden = (0..COUNTRIES.len()).filter(|of| !countries.contains(of) && shown(*of) < CITIES.len()).count();
    let all = both && hides(hidden, &|record| !is_alone(record) && !is_rolled_up(record));
    let row = |record: &Record| {
        if is_alone(record) {
            Some(Row::Cell(record.group))
        } else if is_rolled_up(record) {
            Some(Row::Country(country(record)))
        } else {
            all.then_some(Row::All)
        }
    };
    some.iter().filter_map(|record| Some((*record, row(&records[*record])?))).collect()
}

/// The cells of records, counted in two parts.
pub(super) fn cells(dataset: &Dataset, records: &[Record]) -> Cells {
    nobody::cells_of(dataset, columns, records, &[], &lots(records.len())).bounded(dataset)
}

/// What leaves of the records, counted in two parts.
pub(super) fn released(
    dataset: &Dataset,
    records: &[Record],
    senders: &[usize],
    lots: &[Lot],
    outlets: &[Outlet],
) -> Outcome {
    let cells = nobody::cells_of(dataset, columns, records, senders, lots);
    let open = Arc::new(OpenBytes::new(usize::MAX));
    let (cells, gateway) = (cells.counted_in(&open).bounded(dataset), "eu".parse().unwrap());
    let closed = ClosedWindow { gateway: &gateway, dataset, window: 2, part: 0, cells, deferral: None };
    let held = open.held();
    let outcome = release(&closed, outlets, Digest::from_bytes([5; 32])).unwrap();
    assert_eq!(open.held(), held);
    drop(closed);
    assert_eq!((open.held(), open.cells()), (0, 0));
    outcome
}

pub(super) fn lots(records: usize) -> Vec<Lot> {
    ContributorKey([7; 16]).lots(Request::Placed { lsn: 1, at: 0 }).take(records).collect()
}

/// How much of a run shows anything.
#[derive(Debug, Default)]
struct Shown {
    cells: usize,
    countries: usize,
    all: usize,
    /// Remainders that have records of earlier windows.
    waited: usize,
}

impl Shown {
    fn add(&mut self, rows: &BTreeSet<Row>) {
        for row in rows {
            *match row {
                Row::Cell(_) => &mut self.cells,
                Row::Country(_) => &mut self.countries,
                Row::All => &mut self.all,
            } += 1;
        }
    }
}

fn nobody(
    records: &[Record],
    senders: &[usize],
    outlets: &[Outlet],
    (both, bounds): (bool, Option<Bounds>),
    shown: &RefCell<Shown>,
) -> Result<(), TestCaseError> {
    let (dataset, lots) = (Dataset { bounds, ..dataset(both) }, lots(records.len()));
    let outcome = released(&dataset, records, senders, &lots, outlets);
    let every: Vec<usize> = (0..records.len()).collect();
    let k = outlets.iter().map(|outlet| outlet.min_contributors).min().unwrap();
    let row_of = expected(records, senders, &every, k, both);
    let should: BTreeSet<Row> = row_of.values().copied().collect();
    let left: BTreeSet<Row> = outcome.released.iter().flat_map(|released| rows(released.cells())).collect();
    prop_assert_eq!(&left, &should);
    let groups = |is_wanted: &dyn Fn(usize) -> bool| -> usize {
        every
            .iter()
            .filter(|record| is_wanted(**record))
            .map(|record| records[*record].group)
            .collect::<BTreeSet<_>>()
            .len()
    };
    prop_assert_eq!(outcome.cells_released, should.len());
    prop_assert_eq!(outcome.cells_withheld, groups(&|record| !row_of.contains_key(&record)));
    let is_in_remainder = |record: usize| !matches!(row_of.get(&record), None | Some(Row::Cell(_)));
    prop_assert_eq!(outcome.rolled_up.len(), groups(&is_in_remainder));
    // Of each person in each row, the records of the lowest lots.
    let mut drawn: BTreeMap<(Option<usize>, Row), BTreeMap<Lot, usize>> = BTreeMap::new();
    for (record, row) in &row_of {
        drawn.entry((records[*record].person, *row)).or_default().insert(lots[*record], *record);
    }
    let most = bounds.map_or(usize::MAX, |bounds| bounds.records_per_cell as usize);
    let counts: BTreeSet<usize> = drawn.into_values().flat_map(|lots| lots.into_values().take(most)).collect();
    // For everybody, and for each sender, who takes its own records off.
    let of_senders = if senders.is_empty() { 0 } else { SENDERS };
    for knows in std::iter::once(None).chain((0..of_senders).map(Some)) {
        let mut pool = pool_of(records);
        for released in &outcome.released {
            let rows = rows(released.cells());
            let is_of = |row: usize, record: usize| row_of.get(&record) == Some(&rows[row]) && counts.contains(&record);
            let is_unknown = |record: usize| knows.is_none() || senders.get(record).copied() != knows;
            pool_rows(&mut pool, records, released.cells(), &is_of, &is_unknown)?;
        }
        let found = pool.singled_out(least(outlets));
        prop_assert!(found.is_none(), "{:?} can be worked out, with {:?}", found, knows);
    }
    shown.borrow_mut().add(&left);
    Ok(())
}

pub(super) fn bounds() -> impl Strategy<Value = Option<Bounds>> {
    let bounds = |records_per_cell| Bounds { records_per_cell, cells_per_window: None };
    prop::option::weighted(0.3, (1..4_u32).prop_map(bounds))
}

#[test]
fn nothing_that_leaves_of_cells_and_remainders_singles_out_fewer_than_k() {
    let shown = RefCell::new(Shown::default());
    runner(600)
        .run(&(records(), outlets(), (any::<bool>(), bounds())), |(records, outlets, how)| {
            nobody(&records, &[], &outlets, how, &shown)
        })
        .unwrap();
    let shown = shown.into_inner();
    assert!(shown.cells > 600 && shown.countries > 300 && shown.all > 10, "too little leaves: {shown:?}");
}

#[test]
fn a_producer_that_takes_its_records_off_remainders_singles_out_nobody() {
    let shown = RefCell::new(Shown::default());
    let ran = || {
        let senders = prop::collection::vec(0..SENDERS, 40);
        runner(400).run(&(records(), senders, 2..4_usize, any::<bool>()), |(records, senders, k, both)| {
            let to = outlet("a", k, k, false);
            let to = Outlet { parts: PartRule { beyond_one: true, ..to.parts }, ..to };
            nobody(&records, &senders[..records.len()], &[to], (both, None), &shown)
        })
    };
    ran().unwrap();
    {
        let shown = shown.borrow();
        assert!(shown.cells > 50 && shown.countries > 30, "too little leaves: {shown:?}");
    }
    let _planted = plant("cells-of-one-producer");
    assert!(ran().is_err());
}

#[test]
fn every_bug_in_remainders_is_found() {
    for bug in ["remainder-of-all", "remainder-of-each-destination", "remainder-of-full-cells"] {
        let _planted = plant(bug);
        let found = runner(2_000).run(&(records(), outlets(), any::<bool>()), |(records, outlets, both)| {
            nobody(&records, &[], &outlets, (both, None), &RefCell::default())
        });
        assert!(found.is_err(), "`{bug}` is planted, and nobody noticed");
    }
}

/// Persons of their own in cities of one country.
pub(super) fn in_cities(persons: [usize; 4]) -> Vec<Record> {
    let cities = persons.into_iter().enumerate().flat_map(|(city, persons)| std::iter::repeat_n(city, persons));
    let record = |(person, group)| Record { person: Some(person), group, value: Some(1.0), label: None, level: 0.5 };
    cities.enumerate().map(record).collect()
}

/// What leaves, each row as the records that it counts: all of the country's where it counts so many.
fn pooled(records: &[Record], outcome: &Outcome) -> Pool {
    let mut pool = pool_of(records);
    for released in &outcome.released {
        let counts = released.cells().column_by_name("n").unwrap().as_primitive::<Int64Type>();
        let rows = rows(released.cells());
        let alone: Vec<usize> =
            rows.iter().filter_map(|row| if let Row::Cell(cell) = row { Some(*cell) } else { None }).collect();
        for (at, row) in rows.iter().enumerate() {
            let of = |is_of: &dyn Fn(usize) -> bool| -> Vec<usize> {
                (0..records.len()).filter(|record| is_of(records[*record].group)).collect()
            };
            let is_inclusive = counts.value(at) == records.len() as i64;
            let of_row = match row {
                Row::Cell(cell) => of(&|group| group == *cell),
                _ => of(&|group| is_inclusive || !alone.contains(&group)),
            };
            assert_eq!(counts.value(at), of_row.len() as i64);
            pool.left(of_row);
        }
    }
    pool
}

#[test]
fn an_inclusive_parent_beside_its_children_is_found() {
    let records = in_cities([5, 2, 1, 0]);
    let leaves = || released(&dataset(false), &records, &[], &lots(records.len()), &[outlet("a", 5, 5, false)]);
    // Two and one are fewer than five.
    assert_eq!(rows(leaves().released[0].cells()), [Row::Cell(0)]);
    assert_eq!(pooled(&records, &leaves()).singled_out(5), None);
    let _planted = plant("remainder-of-all");
    assert_eq!(rows(leaves().released[0].cells()), [Row::Cell(0), Row::Country(0)]);
    assert_eq!(pooled(&records, &leaves()).singled_out(5), Some([5, 6, 7].into()));
}

#[test]
fn a_remainder_of_which_it_could_be_told_who_is_in_it_does_not_leave() {
    let leaves = |persons: [usize; 4]| {
        let records = in_cities(persons);
        let outcome = released(&dataset(false), &records, &[], &lots(records.len()), &[outlet("a", 5, 5, false)]);
        (outcome.cells_withheld, outcome.released.first().map_or(Vec::new(), |released| rows(released.cells())))
    };
    assert_eq!(leaves([5, 4, 4, 0]), (0, vec![Row::Cell(0), Row::Country(0)]));
    // Only `c` and `other` are not there: both would have somebody.
    assert_eq!(leaves([5, 5, 4, 4]), (2, vec![Row::Cell(0), Row::Cell(1)]));
    assert_eq!(leaves([4, 0, 0, 0]), (1, vec![]));
    // Each of four could have nobody, if there are no more than three cells can have.
    assert_eq!(leaves([3, 3, 3, 3]), (0, vec![Row::Country(0)]));
    assert_eq!(leaves([4, 3, 3, 3]), (4, vec![]));
}

/// Each row that left of a run in which cells wait, as it must be; and that nobody is singled out by all of them.
fn nobody_of_a_run(
    model: &Model<'_>,
    (records, outlets): (&[Record], &[Outlet]),
    (both, max_defer): (bool, u64),
    shown: &RefCell<Shown>,
) -> Result<(), TestCaseError> {
    let (counted, _) = model.counted();
    let (max_defer, size) = (max_defer as i64, micros(dataset(both).window));
    let k = outlets.iter().map(|outlet| outlet.min_contributors).min().unwrap();
    let (mut gone, mut alone) = (BTreeSet::new(), BTreeMap::<usize, i64>::new());
    let mut pool = pool_of(records);
    for (position, (releases, decided)) in &model.outbox {
        for window in decided.iter().map(|decided| decided.window) {
            let own = |record: &usize| counted.get(record) == Some(&(window, *position));
            let keys: BTreeSet<usize> = (0..records.len()).filter(own).map(|record| records[record].group).collect();
            let is_joined = |record: &usize| {
                let Some((of, closed)) = counted.get(record) else { return false };
                let has_waited = (window - max_defer..window).contains(of) && (closed, of) < (position, &window);
                keys.contains(&records[*record].group) && (own(record) || has_waited && !gone.contains(record))
            };
            let joined: Vec<usize> = (0..records.len()).filter(is_joined).collect();
            let row_of = expected(records, &[], &joined, k, both);
            let should: BTreeSet<Row> = row_of.values().copied().collect();
            let of_window = || releases.iter().filter(|released| released.window_start() == window * size);
            let left: BTreeSet<Row> = of_window().flat_map(|released| rows(released.cells())).collect();
            prop_assert_eq!(&left, &should, "of window {}", window);
            for released in of_window() {
                let rows = rows(released.cells());
                let is_of = |row: usize, record: usize| row_of.get(&record) == Some(&rows[row]);
                pool_rows(&mut pool, records, released.cells(), &is_of, &|_| true)?;
                let windows = released.cells().column_by_name("windows").unwrap().as_primitive::<Int64Type>();
                for (at, row) in rows.iter().enumerate() {
                    let since = match row {
                        Row::Cell(cell) => alone.get(cell).map_or(i64::MAX, |left| window - left),
                        _ => i64::MAX,
                    };
                    prop_assert_eq!(windows.value(at), since.min(max_defer + 1), "{:?} of window {}", row, window);
                }
            }
            let mut shown = shown.borrow_mut();
            shown.add(&left);
            let is_of_remainder = |row: &Row| !matches!(row, Row::Cell(_));
            let waited = row_of.iter().filter(|(record, row)| is_of_remainder(row) && !own(record));
            shown.waited += waited.map(|(_, row)| row).collect::<BTreeSet<_>>().len();
            alone.extend(
                left.iter().filter_map(|row| if let Row::Cell(cell) = row { Some((*cell, window)) } else { None }),
            );
            for record in row_of.into_keys() {
                prop_assert!(gone.insert(record), "a record left twice");
            }
        }
    }
    let found = pool.singled_out(least(outlets));
    prop_assert!(found.is_none(), "{:?} can be worked out", found);
    Ok(())
}

fn of_runs(cases: u32, shown: &RefCell<Shown>) -> bool {
    let runs = (records(), outlets(), (any::<bool>(), 1..4_u64), steps());
    let ran = runner(cases).run(&runs, |(records, outlets, (both, max_defer), steps)| {
        let steps: Vec<Step> = steps.into_iter().filter(|step| !matches!(step, Step::Reload | Step::Flush)).collect();
        let dataset = Dataset { max_defer, ..dataset(both) };
        let mut model = Model::of(dataset, columns, &records, &outlets);
        model.run(&steps);
        nobody_of_a_run(&model, (&records, &outlets), (both, max_defer), shown)
    });
    if let Err(failed) = &ran {
        println!("{failed}");
    }
    ran.is_ok()
}

#[test]
fn what_is_rolled_up_does_not_wait_and_what_waits_is_not_rolled_up() {
    let shown = RefCell::new(Shown::default());
    assert!(of_runs(600, &shown));
    let shown = shown.into_inner();
    let enough = shown.cells > 300 && shown.countries > 100 && shown.all > 10 && shown.waited > 30;
    assert!(enough, "too little leaves: {shown:?}");
}

#[test]
fn each_bug_in_remainders_of_what_waits_is_found() {
    for bug in ["rolled-up-waits", "rolled-up-tells", "deferred-twice-after-restart"] {
        let _planted = plant(bug);
        assert!(!of_runs(2_000, &RefCell::default()), "`{bug}` is planted, and nobody noticed");
    }
}
