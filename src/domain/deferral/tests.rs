//! What waits, by itself. That nobody is singled out by it is tested with the rules of release.

use super::*;
use crate::domain::aggregate::{ContributorKey, Foldable, Rows};
use crate::domain::dataset::samples;

fn policies() -> Digest {
    Digest::from_bytes([7; 32])
}

fn dataset(max_defer: u64) -> Dataset {
    Dataset { max_defer, ..samples::every_kind() }
}

/// Cells of all records of the sample.
fn cells(dataset: &Dataset) -> Cells {
    let columns = samples::columns();
    let contributors = ContributorKey([7; 16]).hash(&columns[0]);
    let mut cells = Cells::new(dataset);
    cells.fold(dataset, &Foldable::new(dataset, &columns, &contributors), &Rows::All);
    cells.decided_under(policies());
    cells
}

/// A window closes, and these of its cells leave. How many windows what was dropped was of.
fn close(deferral: &mut Deferral, window: i64, cells: Cells, left: &[u32]) -> usize {
    deferral.as_declared();
    let dropped = deferral.close(window, Some(policies()));
    let joined = deferral.join(window, cells);
    let gone = Gone { left: &left.iter().copied().collect(), rolled_up: &BTreeSet::new() };
    deferral.settle(window, &joined, gone);
    dropped.len()
}

fn encoded(deferral: &mut Deferral) -> Vec<u8> {
    let mut writer = Writer::default();
    deferral.encode(&mut writer);
    writer.finish()
}

fn decoded(dataset: &Dataset, bytes: &[u8]) -> Deferral {
    let mut reader = Reader::new(bytes);
    let deferral = Deferral::decode(dataset, &mut reader).unwrap();
    assert!(reader.is_empty());
    deferral
}

#[test]
fn what_a_checkpoint_keeps_of_version_1_is_read_as_it_is_written() {
    let dataset = dataset(3);
    let golden = include_str!("../../../tests/golden/deferral-1.hex").trim();
    let mut deferral = Deferral::new(3, -5);
    close(&mut deferral, 7, Cells::new(&dataset), &[70_000]);
    close(&mut deferral, 8, Cells::new(&dataset), &[0]);
    deferral.closed_before(9);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&encoded(&mut deferral)), golden);
    let bytes: Vec<u8> =
        (0..golden.len()).step_by(2).map(|at| u8::from_str_radix(&golden[at..at + 2], 16).unwrap()).collect();
    assert_eq!(Deferral::waits_in(&bytes), Some(false));
    let mut read = decoded(&dataset, &bytes);
    assert_eq!(hex(&encoded(&mut read)), golden);
    assert_eq!([70_000, 0, 5].map(|number| read.covers(9, number)), [2, 1, 4]);
    for cut in 0..bytes.len() {
        assert!(Deferral::decode(&dataset, &mut Reader::new(&bytes[..cut])).is_none());
    }
}

#[test]
fn cells_wait_for_so_many_windows_and_give_their_memory_back() {
    let dataset = dataset(2);
    let open = Arc::new(OpenBytes::new(usize::MAX));
    let mut deferral = Deferral::new(2, i64::MIN);
    let all: Vec<u32> = cells(&dataset).numbers().collect();
    close(&mut deferral, 3, cells(&dataset).counted_in(&open), &all[1..]);
    let held = open.held();
    assert_eq!((open.cells(), Deferral::waits_in(&encoded(&mut deferral))), (1, Some(true)));
    close(&mut deferral, 4, cells(&dataset).counted_in(&open), &all[1..]);
    assert!(open.cells() == 2 && open.held() > held);
    assert_eq!(deferral.closed_before(5).len(), 0);
    // Two windows are not joined any more once two others have closed.
    assert_eq!(deferral.closed_before(6).iter().map(|dropped| dropped.window).collect::<Vec<_>>(), [3]);
    close(&mut deferral, 6, cells(&dataset).counted_in(&open), &all);
    assert_eq!((open.held(), open.cells(), deferral.is_empty()), (0, 0, true));
}

#[test]
fn under_other_policies_and_with_another_number_of_windows_what_waits_is_dropped() {
    let dataset = dataset(2);
    let waits = || {
        let mut deferral = Deferral::new(2, i64::MIN);
        close(&mut deferral, 3, cells(&dataset), &[]);
        deferral.closed_before(4);
        deferral
    };
    let mut deferral = waits();
    assert_eq!(deferral.close(4, Some(Digest::from_bytes([8; 32]))).len(), 1);
    assert_eq!(deferral.covers(4, 0), 3);
    assert_eq!(waits().close(4, None).len(), 1);
    let mut again = decoded(&dataset, &encoded(&mut waits()));
    assert_eq!((close(&mut again, 4, cells(&dataset), &[]), again.covers(5, 0)), (0, 3));
    for other in [0, 1, 3] {
        let other = Dataset { max_defer: other, ..samples::every_kind() };
        let mut changed = decoded(&other, &encoded(&mut waits()));
        assert_eq!((close(&mut changed, 4, cells(&dataset), &[]), changed.covers(4, 0)), (1, 1));
    }
    let mut flushed = waits();
    assert_eq!(flushed.flushed(Some(6)).len(), 1);
    // What comes of the flushed windows later does not wait: some of it has left, or was dropped.
    close(&mut flushed, 6, cells(&dataset), &[]);
    assert!(flushed.is_empty());
    close(&mut flushed, 7, cells(&dataset), &[]);
    assert_eq!((flushed.is_empty(), flushed.covers(7, 0)), (false, 3));
}

#[test]
fn what_was_decided_for_another_number_of_windows_comes_again_as_it_was_decided() {
    let (two, one) = (dataset(2), dataset(1));
    let all: BTreeSet<u32> = cells(&two).numbers().collect();
    let first = *all.first().unwrap();
    let decided =
        |window, left: BTreeSet<u32>| Decided { window, under: Some(policies()), left, rolled_up: BTreeSet::new() };
    let mut deferral = Deferral::new(2, i64::MIN);
    close(&mut deferral, 3, cells(&two), &[]);
    deferral.closed_before(4);
    // After the checkpoint a window closes without one of the cells. Then there is a crash, and cells wait for one window.
    let mut restarted = decoded(&one, &encoded(&mut deferral));
    let but_first: Vec<u32> = all.iter().copied().filter(|number| *number != first).collect();
    restarted.again(4, cells(&two), Some(&decided(4, but_first.into_iter().collect())), Some(2));
    assert_eq!(restarted.closed_before(5).len(), 0, "it was not dropped then");
    assert_eq!(restarted.waiting(), 2);
    // A closing that is decided now drops what waits.
    assert_eq!(close(&mut restarted, 5, cells(&one), &[]), 2);
    assert_eq!(restarted.waiting(), all.len());
    // It may come again, too, after the one before.
    let mut third = decoded(&one, &encoded(&mut deferral));
    third.again(4, cells(&two), Some(&decided(4, BTreeSet::new())), Some(2));
    assert_eq!(third.waiting(), 2 * all.len());
    third.again(5, cells(&one), Some(&decided(5, BTreeSet::new())), Some(1));
    assert_eq!(third.waiting(), all.len());
}

#[test]
fn what_a_cell_covers_hangs_on_no_record_around_a_reload_and_a_flush() {
    let dataset = dataset(3);
    let covers = |has_record: bool, end: &dyn Fn(&mut Deferral)| {
        let mut deferral = Deferral::new(3, 0);
        close(&mut deferral, 10, cells(&dataset), &[]);
        if has_record {
            end(&mut deferral);
        }
        deferral.closed_before(12);
        deferral.close(12, Some(Digest::from_bytes([8; 32])));
        deferral.covers(12, 0)
    };
    // A window with one record that was withheld: under other policies, or under both.
    for under in [Some(Digest::from_bytes([8; 32])), None] {
        let reload = |deferral: &mut Deferral| {
            let _ = deferral.close(11, under);
        };
        assert_eq!(covers(true, &reload), covers(false, &reload));
    }
    // A flush of the newest window, which has a record or has none.
    let flushed = |last: Option<i64>| {
        let mut deferral = Deferral::new(3, 0);
        close(&mut deferral, 10, cells(&dataset), &[]);
        deferral.closed_before(11);
        let _ = deferral.flushed(last);
        deferral.close(13, Some(policies()));
        deferral.covers(13, 0)
    };
    assert_eq!((flushed(Some(11)), flushed(Some(12))), (flushed(None), flushed(None)));
}

/// Windows come from the journal again that closed before cells waited. Only what left of them is known to everybody.
#[test]
fn a_window_that_closed_before_cells_waited_does_not_show_in_what_a_cell_covers() {
    let dataset = dataset(3);
    let covers = |again: &[i64]| {
        let mut deferral = Deferral::new(3, 0);
        deferral.left_before(8);
        for window in again {
            deferral.again(*window, cells(&dataset), None, None);
        }
        deferral.closed_before(10);
        deferral.close(10, Some(policies()));
        (deferral.is_empty(), deferral.covers(10, 0), deferral.covers_at_most(10))
    };
    assert_eq!((covers(&[]), covers(&[7, 8, 9])), ((true, 3, 3), (true, 3, 3)));
    // What waited before is not covered, so it does not leave with it.
    let mut deferral = Deferral::new(3, 0);
    close(&mut deferral, 7, cells(&dataset), &[]);
    deferral.left_before(8);
    deferral.closed_before(8);
    deferral.close(8, Some(policies()));
    assert!(deferral.join(8, cells(&dataset)).own.is_empty());
}
