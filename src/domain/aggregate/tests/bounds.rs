//! Of each contributor as many records count as a dataset says, drawn by lot: against a slow reference, whatever the split
//! and the order.

use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::super::contributors::NEVER_ENOUGH;
use super::super::sample::lot_of_cell;
use super::*;
use crate::domain::dataset::{Bounds, samples};
use crate::domain::producer::Number;
use crate::planted::for_tests::plant;

/// A record and its number among all of them, by which its lot is drawn.
type Numbered = (usize, Record);

fn bounded(bounds: Bounds) -> Dataset {
    Dataset { bounds: Some(bounds), ..dataset() }
}

fn lot(number: usize) -> Lot {
    ContributorKey([7; 16]).lots(Request::Placed { lsn: 3, at: number }).next().unwrap()
}

fn fold_drawn(cells: &mut Cells, dataset: &Dataset, records: &[Numbered]) {
    let lots: Vec<Lot> = records.iter().map(|(number, _)| lot(*number)).collect();
    let records: Vec<Record> = records.iter().map(|(_, record)| record.clone()).collect();
    let columns = columns(&records);
    let contributors = ContributorKey([7; 16]).hash(&columns[0]);
    let producers: Vec<Producer> = records.iter().map(producer).collect();
    let foldable = Foldable::new(dataset, &columns, &contributors).brought_by(&producers).drawn_by(&lots);
    cells.fold(dataset, &foldable, &Rows::All);
}

/// Records by the lot of their cell, each with its own.
type Drawn = BTreeMap<(Lot, u32), Vec<(Lot, Record)>>;

/// The records that count, the slow and obvious way.
fn that_count(records: &[Numbered], bounds: Bounds) -> Vec<Record> {
    let contributors = ContributorKey([7; 16])
        .hash(&columns(&records.iter().map(|(_, record)| record.clone()).collect::<Vec<_>>())[0]);
    let mut of: BTreeMap<Contributor, Drawn> = BTreeMap::new();
    for ((number, record), contributor) in records.iter().zip(contributors) {
        let cell = record.group as u32;
        let cells = of.entry(contributor).or_default();
        cells.entry((lot_of_cell(contributor, cell), cell)).or_default().push((lot(*number), record.clone()));
    }
    let cells = of.into_values().flat_map(|cells| {
        let most = bounds.cells_per_window.map_or(usize::MAX, |cells| cells as usize);
        cells.into_values().take(most).collect::<Vec<_>>()
    });
    let records = cells.flat_map(|mut records| {
        records.sort_by_key(|(lot, _)| *lot);
        records.truncate(bounds.records_per_cell as usize);
        records
    });
    records.map(|(_, record)| record).collect()
}

/// The cells, written and read again.
fn read_again(cells: &Cells, dataset: &Dataset) -> Cells {
    let mut writer = Writer::default();
    cells.encode(&mut writer);
    let bytes = writer.finish();
    let mut reader = Reader::new(&bytes);
    let cells = Cells::decode(dataset, &mut reader).unwrap();
    assert!(reader.is_empty());
    cells
}

fn numbered() -> impl Strategy<Value = Vec<Numbered>> {
    records().prop_map(|records| records.into_iter().enumerate().collect())
}

fn bounds() -> impl Strategy<Value = Bounds> {
    (1..4_u32, prop::option::of(1..4_u32))
        .prop_map(|(records_per_cell, cells_per_window)| Bounds { records_per_cell, cells_per_window })
}

/// What counts of the records is what the reference says, whatever comes first, is merged, and goes through a checkpoint.
fn what_counts_is_drawn(records: &[Numbered], bounds: Bounds, split: usize) -> Result<(), TestCaseError> {
    let (dataset, plain) = (bounded(bounds), dataset());
    let mut expected = Cells::up_to(&plain, NEVER_ENOUGH);
    fold(&mut expected, &plain, &that_count(records, bounds), &Rows::All);

    let open = Arc::new(OpenBytes::new(usize::MAX));
    let mut whole = Cells::new(&dataset).counted_in(&open);
    for batch in records.chunks(7) {
        let before = whole.bytes();
        fold_drawn(&mut whole, &dataset, batch);
        prop_assert!(whole.bytes() <= before + most_added(&dataset, batch.len(), 1, true));
        prop_assert_eq!((open.held(), open.cells()), (whole.bytes(), whole.len()));
    }
    let mut reversed = records.to_vec();
    reversed.reverse();
    let (left, right) = reversed.split_at(split);
    let (mut one, mut two) = (Cells::new(&dataset), Cells::new(&dataset));
    fold_drawn(&mut one, &dataset, left);
    fold_drawn(&mut two, &dataset, right);
    let mut one = read_again(&one, &dataset);
    one.merge(read_again(&two, &dataset));
    prop_assert_eq!((one.bytes(), one.len()), (whole.bytes(), whole.len()));
    prop_assert_eq!(one.len(), expected.len());
    prop_assert!((whole.numbers.is_empty(), whole.bounds()) == (true, None), "nothing can leave yet");
    for cells in [one.bounded(&dataset), whole.bounded(&dataset)] {
        prop_assert_eq!(canonical(&cells), canonical(&expected));
        prop_assert_eq!((cells.set_bytes, cells.bounds()), (counted_anew(&cells), Some(bounds)));
    }
    prop_assert_eq!((open.held(), open.cells()), (0, 0));
    Ok(())
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}

#[test]
fn of_each_contributor_as_many_records_count_as_may_and_those_that_are_drawn() {
    let holds = runner(256).run(&(numbered(), bounds(), any::<prop::sample::Index>()), |(records, bounds, split)| {
        what_counts_is_drawn(&records, bounds, split.index(records.len() + 1))
    });
    holds.unwrap();
}

#[test]
fn that_the_first_ones_count_is_noticed() {
    let _planted = plant("first-come-bounds");
    let found = runner(256).run(&(numbered(), bounds(), any::<prop::sample::Index>()), |(records, bounds, split)| {
        what_counts_is_drawn(&records, bounds, split.index(records.len() + 1))
    });
    assert!(found.is_err(), "`first-come-bounds` is planted, and nobody noticed");
}

proptest! {
    /// Whatever is folded meanwhile, and however little is written at a time.
    #[test]
    fn what_is_saved_of_contributors_is_what_there_was(
        before in numbered(),
        meanwhile in prop::collection::vec((records(), 0..200_usize), 0..6),
        bounds in bounds(),
    ) {
        let dataset = bounded(bounds);
        let mut cells = Cells::new(&dataset);
        fold_drawn(&mut cells, &dataset, &before);
        let expected = canonical(&read_again(&cells, &dataset).bounded(&dataset));
        cells.save();
        let mut next = before.len();
        for (records, mut bytes) in meanwhile {
            cells.save_some(&mut bytes);
            let records: Vec<Numbered> = (next..).zip(records).collect();
            next += records.len();
            fold_drawn(&mut cells, &dataset, &records);
        }
        let saved = cells.take_saved().unwrap().bytes();
        let mut reader = Reader::new(&saved);
        let saved = Cells::decode(&dataset, &mut reader).unwrap();
        prop_assert!(reader.is_empty());
        prop_assert_eq!(canonical(&saved.bounded(&dataset)), expected);
    }
}

/// A record that is sent again, or replayed, has the lot that it had; another one has another.
#[test]
fn a_lot_is_of_the_request_and_the_place_in_it() {
    let key = ContributorKey([7; 16]);
    let of = |request| key.lots(request).take(3).collect::<Vec<_>>();
    let numbered = |series, epoch, sequence| of(Request::Numbered { series, number: Number { epoch, sequence } });
    assert_eq!(numbered("a", 1, 2), numbered("a", 1, 2));
    let all = [
        numbered("a", 1, 2),
        numbered("b", 1, 2),
        numbered("a", 2, 2),
        numbered("a", 1, 3),
        of(Request::Placed { lsn: 1, at: 2 }),
        of(Request::Placed { lsn: 1, at: 3 }),
        of(Request::Placed { lsn: 2, at: 2 }),
    ];
    let lots: BTreeSet<Lot> = all.iter().flatten().copied().collect();
    assert_eq!(lots.len(), 3 * all.len());
    let other_key = ContributorKey([8; 16]);
    assert!(other_key.lots(Request::Placed { lsn: 1, at: 2 }).take(3).all(|lot| !lots.contains(&lot)));
}

/// No place in the order is favoured: each of ten records counts in about a tenth of the draws, and each of two cells in
/// about half of them.
#[test]
fn every_record_has_the_same_chance() {
    let dataset = bounded(Bounds { records_per_cell: 1, cells_per_window: Some(1) });
    let (mut records, mut cells_drawn) = ([0_u32; 10], [0_u32; 2]);
    for draw in 0..2_000 {
        let one = |group, value: usize| Record { group, ..of(draw, Some(value as f64)) };
        let mine: Vec<Numbered> = (0..20).map(|at| (1_000 * draw + at, one(at % 2, at / 2))).collect();
        let mut cells = Cells::new(&dataset);
        fold_drawn(&mut cells, &dataset, &mine);
        let cells = cells.bounded(&dataset);
        assert_eq!((cells.len(), cells.records[0]), (1, 1));
        cells_drawn[cells.numbers[0] as usize] += 1;
        let Value::Number(value) = values(&cells, &dataset, 0, 1)[1] else { panic!("a sum") };
        records[value as usize] += 1;
    }
    // 200 and 1,000 are expected; these are five standard deviations.
    assert!(records.iter().all(|drawn| drawn.abs_diff(200) < 67), "{records:?}");
    assert!(cells_drawn.iter().all(|drawn| drawn.abs_diff(1_000) < 112), "{cells_drawn:?}");
}

/// Cells of another kind are not taken for these, and cells that are not held to the bounds say so.
#[test]
fn cells_without_bounds_are_not_read_as_bounded_ones() {
    let with = bounded(Bounds { records_per_cell: 1, cells_per_window: None });
    let bytes = |dataset: &Dataset| {
        let mut writer = Writer::default();
        Cells::new(dataset).encode(&mut writer);
        writer.finish()
    };
    assert!(Cells::decode(&with, &mut Reader::new(&bytes(&dataset()))).is_none());
    assert!(Cells::decode(&dataset(), &mut Reader::new(&bytes(&with))).is_none());
    let mut both = Cells::new(&with).bounded(&with);
    assert_eq!(both.bounds(), with.bounds);
    both.merge(Cells::new(&with).bounded(&with));
    assert_eq!(both.bounds(), None, "who is in both may count twice as often");
}

#[test]
fn version_7_of_cells_stays_what_it_is() {
    let bounds = Bounds { records_per_cell: 1, cells_per_window: Some(2) };
    let dataset = Dataset { bounds: Some(bounds), ..samples::every_kind() };
    let now = golden::sample_with_producers(&dataset, NEVER_ENOUGH);
    let golden = include_bytes!("../../../../tests/golden/cells-7.bin");
    for end in 0..golden.len() {
        assert!(Cells::decode(&dataset, &mut Reader::new(&golden[..end])).is_none(), "{end} bytes");
    }
    let mut reader = Reader::new(golden);
    let kept = Cells::decode(&dataset, &mut reader).unwrap();
    assert!(reader.is_empty());
    let mut writer = Writer::default();
    now.encode(&mut writer);
    assert_eq!(writer.finish().len(), golden.len());
    assert_eq!((kept.policies(), kept.len(), kept.bytes()), (now.policies(), now.len(), now.bytes()));
    assert_eq!(canonical(&kept.bounded(&dataset)), canonical(&now.bounded(&dataset)));
}
