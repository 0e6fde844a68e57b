use arrow_array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray};

use super::*;
use crate::decode::test_stream;
use crate::domain::aggregate::{OpenBytes, Saved};
use crate::domain::binary::{Reader, Writer};
use crate::domain::dataset::samples::plain;
use crate::domain::stream::{FieldType, Undeclared};

const MINUTE: Duration = Duration::from_secs(60);

fn dataset() -> Arc<Dataset> {
    Arc::new(Dataset { contributor: "f2".into(), window: MINUTE, ..plain() })
}

/// Cells with so many records.
fn cells(dataset: &Dataset, records: i64) -> Cells {
    let mut cells = Cells::new(dataset);
    count(&mut cells, dataset, records);
    cells
}

fn count(cells: &mut Cells, dataset: &Dataset, records: i64) {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..records));
    let contributors = ContributorKey([7; 16]).hash(&column);
    let columns = [column];
    cells.fold(dataset, &Foldable::new(dataset, &columns, &contributors), &Rows::All);
}

fn encoded(cells: &Cells) -> Vec<u8> {
    let mut writer = Writer::default();
    cells.encode(&mut writer);
    writer.finish()
}

#[test]
fn a_window_that_closes_while_it_is_saved_takes_its_part_of_the_checkpoint_along() {
    let dataset = dataset();
    let fields = [(1, FieldType::Timestamp), (2, FieldType::String)];
    let stream = test_stream(&fields, Undeclared::Drop);
    let present = Present { stream, outputs: Vec::new(), datasets: vec![Arc::clone(&dataset)] };
    let (reports, received) = crossbeam_channel::unbounded();
    let open = Arc::new(OpenBytes::new(usize::MAX));
    let key = ContributorKey([7; 16]);
    let mut windows = Windows::new(&[present], &BTreeMap::new(), key, &open, reports, Clock::start());
    let of_each = (0..4).map(|window| (window, cells(&dataset, 10 + window)));
    windows.restore(BTreeMap::from([("d".parse().unwrap(), of_each.collect())]));

    windows.obey(Order::Checkpoint { lsn: 5 });
    // More is folded into a window that stays, into one that closes, and into one that was not there.
    let open = windows.open.get_mut("d").unwrap();
    for window in [1, 3, 4] {
        count(open.cells(&dataset, window, Digest::from_bytes([1; 32])), &dataset, 100);
    }
    windows.obey(Order::Close { lsn: 6, dataset: "d".parse().unwrap(), before: Some(2 * micros(MINUTE)) });
    let Ok(Report::Closed { windows: mut closed, saving: Some(5), .. }) = received.try_recv() else {
        panic!("windows closed while the checkpoint at 5 is under way");
    };
    assert_eq!(closed.keys().copied().collect::<Vec<_>>(), [0, 1]);
    let saved = |saved: Saved| saved.bytes();
    let mut found: BTreeMap<i64, Vec<u8>> =
        closed.iter_mut().map(|(window, cells)| (*window, saved(cells.take_saved().unwrap()))).collect();
    assert_ne!(encoded(&closed[&1]), found[&1], "the window itself has what was folded since");

    while windows.is_saving() {
        windows.save_some();
    }
    let Ok(Report::Checkpoint { lsn: 5, windows: parts, .. }) = received.try_recv() else { panic!("the checkpoint") };
    found.extend(parts.into_iter().map(|part| (part.window, saved(part.cells))));
    let expected: BTreeMap<i64, Vec<u8>> =
        (0..4).map(|window| (window, encoded(&cells(&dataset, 10 + window)))).collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (window, bytes) in found {
        let (found, expected) = (Cells::decode(&dataset, &mut Reader::new(&bytes)), &expected[&window]);
        assert_eq!(encoded(&found.unwrap()), *expected, "window {window}");
    }
}

#[test]
fn records_are_late_and_lie_in_windows_by_their_own_times() {
    let dataset = dataset();
    let fields = [(1, FieldType::Timestamp), (2, FieldType::String)];
    let stream = test_stream(&fields, Undeclared::Drop);
    let minute = micros(MINUTE);
    let open_from = 2 * minute;
    let of_times: [&[i64]; 6] = [
        &[],
        &[open_from],
        &[open_from - 1],
        &[open_from, open_from + minute - 1],
        &[open_from + minute, 0, i64::MIN, open_from - 1],
        &[open_from - 1, open_from + 3 * minute, open_from],
    ];
    for times in of_times {
        let people = StringArray::from_iter_values(times.iter().map(ToString::to_string));
        let contributors = ContributorKey([7; 16]).hash(&(Arc::new(people.clone()) as ArrayRef));
        let columns: Vec<ArrayRef> = vec![Arc::new(TimestampMicrosecondArray::from(times.to_vec())), Arc::new(people)];
        let batch = Batch::restored(Arc::clone(&stream), columns).unwrap();
        let bytes = Arc::new(OpenBytes::new(usize::MAX));
        let mut open = OpenWindows { size: MINUTE, first: 2, cells: BTreeMap::new(), bytes };
        let records = Foldable::new(&dataset, batch.columns(), &contributors);
        assert_eq!(open.late(&batch), times.iter().filter(|time| **time < open_from).count(), "{times:?}");
        open.fold(&dataset, &records, &batch, Digest::from_bytes([1; 32]));
        let windows: std::collections::BTreeSet<i64> =
            times.iter().map(|time| time.div_euclid(minute).max(2)).collect();
        assert!(open.cells.keys().eq(&windows), "{times:?}");
    }
}
