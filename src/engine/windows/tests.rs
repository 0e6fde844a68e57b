use arrow_array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray};
use proptest::prelude::*;

use super::super::open_windows;
use super::*;
use crate::decode::test_stream;
use crate::domain::aggregate::{OpenBytes, Saved, most_added};
use crate::domain::binary::{Reader, Writer};
use crate::domain::dataset::Bounds;
use crate::domain::dataset::samples::plain;
use crate::domain::gateway::{Effect, Gateway};
use crate::domain::stream::{FieldType, Stream, Undeclared};
use crate::domain::watermark::Heard;
use crate::domain::window::micros;
use crate::domain::window::tests::{by_definition, steps_and_lengths};

const MINUTE: Duration = Duration::from_secs(60);

fn d() -> DatasetName {
    "d".parse().unwrap()
}

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
    windows.restore(BTreeMap::from([(d(), of_each.collect())]));

    windows.obey(Order::Checkpoint { lsn: 5 });
    // More is folded into a window that stays, into one that closes, and into one that was not there.
    let open = windows.open.get_mut(&d()).unwrap();
    for window in [1, 3, 4] {
        count(open.cells(&dataset, window, Digest::from_bytes([1; 32])), &dataset, 100);
    }
    windows.obey(Order::Close { lsn: 6, dataset: d(), before: Some(2 * micros(MINUTE)) });
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
        let mut open = OpenWindows { grid: dataset.grid(), first: 2, cells: BTreeMap::new(), bytes };
        let records = Foldable::new(&dataset, batch.columns(), &contributors);
        assert_eq!(open.late(&batch), times.iter().filter(|time| **time < open_from).count(), "{times:?}");
        open.fold(&dataset, &records, &batch, Digest::from_bytes([1; 32]));
        let windows: std::collections::BTreeSet<i64> =
            times.iter().map(|time| time.div_euclid(minute).max(2)).collect();
        assert!(open.cells.keys().eq(&windows), "{times:?}");
    }
}

/// A life of a worker's windows, with what it has released, and what the journal would hold of it.
struct Life {
    dataset: Arc<Dataset>,
    windows: Windows,
    open: Arc<OpenBytes>,
    reports: crossbeam_channel::Receiver<Report>,
    gateway: Gateway,
}

/// What the journal holds.
#[derive(Clone)]
enum Journaled {
    Records(Lsn, Vec<(i64, u8)>),
    Closed(Lsn, i64),
}

/// Cells by the closing that released them, and window.
type Left = BTreeMap<(Lsn, i64), Vec<u8>>;

/// A dataset whose windows overlap, of which one record of a contributor counts in each.
fn overlapping(step: i64, length: i64, grace: u64) -> Arc<Dataset> {
    let seconds = |seconds: i64| Duration::from_secs(seconds.unsigned_abs());
    let (window, overlap) = (seconds(step), seconds(length - step));
    let bounds = Some(Bounds { records_per_cell: 1, cells_per_window: Some(1) });
    let grace = Duration::from_secs(grace);
    let open_max = u64::MAX;
    Arc::new(Dataset { contributor: "f2".into(), window, overlap, grace, bounds, open_max, ..plain() })
}

fn two_fields() -> Arc<Stream> {
    test_stream(&[(1, FieldType::Timestamp), (2, FieldType::String)], Undeclared::Drop)
}

fn batch_of(records: &[(i64, u8)]) -> Batch {
    let people: ArrayRef = Arc::new(StringArray::from_iter_values(records.iter().map(|(_, who)| format!("p{who}"))));
    let times = TimestampMicrosecondArray::from_iter_values(records.iter().map(|(time, _)| *time));
    Batch::restored(two_fields(), vec![Arc::new(times), people]).unwrap()
}

const KEY: ContributorKey = ContributorKey([7; 16]);
const POLICY: [u8; 32] = [1; 32];

impl Life {
    fn begin(dataset: &Arc<Dataset>, closed_before: Option<i64>) -> Self {
        let (stream, name) = (two_fields(), dataset.name.clone());
        let mut gateway = Gateway::new([(&stream, std::slice::from_ref(dataset))].into_iter());
        closed_before.iter().for_each(|before| gateway.restore_closed(&d(), *before, i64::MIN));
        let present = Present { stream, outputs: Vec::new(), datasets: vec![Arc::clone(dataset)] };
        let (to, reports) = crossbeam_channel::unbounded();
        let open = Arc::new(OpenBytes::new(usize::MAX));
        let closed = closed_before.map(|before| (name, before)).into_iter().collect();
        let windows = Windows::new(&[present], &closed, KEY, &open, to, Clock::start());
        Self { dataset: Arc::clone(dataset), windows, open, reports, gateway }
    }

    /// Does what the journal holds.
    fn obey(&mut self, journaled: &Journaled) {
        match journaled {
            Journaled::Records(lsn, records) => {
                let requests = [OfRequest { series: "p", number: None, rows: records.len() }];
                let origins = Origins { lsn: *lsn, requests: &requests, keeps_producers: false };
                let (batch, held) = (batch_of(records), self.open.held());
                self.windows.fold(&batch, &[], Digest::from_bytes(POLICY), origins);
                let most = most_added(&self.dataset, batch.rows(), open_windows::windows(&self.dataset, &batch), false);
                assert!(self.open.held() <= held + most, "more than was reserved");
            }
            Journaled::Closed(lsn, before) => self.windows.close(*lsn, d(), Some(*before)),
        }
    }

    /// Takes records in; what the journal has of them, and of what closes then.
    fn take(&mut self, next: &mut Lsn, records: &[(i64, u8)]) -> Vec<Journaled> {
        let mut lsn = || {
            *next += 1;
            *next
        };
        let mut journal = vec![Journaled::Records(lsn(), records.to_vec())];
        let newest = records.iter().map(|(time, _)| *time).max();
        let heard = Heard { producer: "p", address: None, identity: None, event_time: newest };
        let stream = "s".parse().unwrap();
        let oldest = records.iter().map(|(time, _)| *time).min();
        assert!(oldest.zip(newest).is_none_or(|(oldest, newest)| self.gateway.open_windows(&stream, oldest, newest)));
        self.gateway.hear(&stream, heard, Duration::ZERO);
        loop {
            let mut effects = Vec::new();
            self.gateway.advance(&stream, Duration::ZERO, &mut effects);
            let [Effect::Close { before, .. }] = &effects[..] else { break };
            journal.push(Journaled::Closed(lsn(), *before));
        }
        journal.iter().for_each(|journaled| self.obey(journaled));
        journal
    }

    /// What has closed since the last time.
    fn left(&self) -> Left {
        let mut left = Left::new();
        while let Ok(report) = self.reports.try_recv() {
            let Report::Closed { lsn, windows, .. } = report else { panic!("nothing else was asked for") };
            left.extend(windows.iter().map(|(window, cells)| ((lsn, *window), encoded(cells))));
        }
        left
    }

    /// What a checkpoint would hold of the open windows.
    fn saved(&self) -> BTreeMap<i64, Vec<u8>> {
        self.windows.open.values().flat_map(|open| &open.cells).map(|(at, cells)| (*at, encoded(cells))).collect()
    }
}

proptest! {
    /// Records in any order and some of them late, over a midnight: each is counted in the windows that hold it and are open,
    /// found by looking at each window. A crash changes nothing: the windows of a checkpoint and what the journal holds after it
    /// come to the same cells, to the byte.
    #[test]
    fn windows_that_overlap_hold_what_is_theirs_before_a_crash_and_after_it(
        (step, length) in steps_and_lengths(),
        grace in 0_u64..100,
        batches in prop::collection::vec(prop::collection::vec((-4_000_i64..1_000, 0_u8..5), 1..8), 1..20),
        (checkpoint, crash) in (0_usize..20, 0_usize..20),
        speed in 0_i64..3_000,
    ) {
        let dataset = overlapping(step, length, grace);
        let day = 86_400;
        // It begins some steps before midnight, and goes on.
        let times = |at: usize, from: i64| (day - 4 * length.min(5_000) + at as i64 * speed + from) * 1_000_000;
        let batches: Vec<Vec<(i64, u8)>> = (0..).zip(&batches).map(|(at, records)| {
            records.iter().map(|(from, who)| (times(at, *from), *who)).collect()
        }).collect();
        let (mut life, mut next, mut journal) = (Life::begin(&dataset, None), 0, Vec::new());
        let (mut left, mut kept) = (Left::new(), None);
        // By definition: what each window has, and when it has closed.
        let (mut expected, mut watermark): (BTreeMap<i64, Cells>, Option<i64>) = (BTreeMap::new(), None);
        let (step, length) = (step * 1_000_000, length * 1_000_000);
        for (at, records) in batches.iter().enumerate() {
            if at == checkpoint {
                kept = Some((journal.len(), life.saved(), life.gateway.closed_before(&d())));
            }
            if at == crash && let Some((since, saved, closed_before)) = &kept {
                let before = life.saved();
                life = Life::begin(&dataset, *closed_before);
                let cells = |bytes: &Vec<u8>| Cells::decode(&dataset, &mut Reader::new(bytes)).unwrap();
                let cells = saved.iter().map(|(window, bytes)| (*window, cells(bytes))).collect();
                life.windows.restore(BTreeMap::from([(dataset.name.clone(), cells)]));
                journal[*since..].iter().for_each(|journaled| life.obey(journaled));
                for (of, cells) in life.left() {
                    prop_assert_eq!(left.get(&of), Some(&cells), "what leaves is what left");
                }
                prop_assert_eq!(life.saved(), before);
                for journaled in &journal {
                    if let Journaled::Closed(_, before) = journaled {
                        life.gateway.restore_closed(&d(), *before, watermark.unwrap());
                    }
                }
            }
            let is_open = |window: i64| {
                let closes = window * step + length + micros(dataset.grace);
                watermark.is_none_or(|watermark| closes > watermark)
            };
            let batch = batch_of(records);
            let lsn = next + 1;
            let requests = [OfRequest { series: "p", number: None, rows: records.len() }];
            let lots = Origins { lsn, requests: &requests, keeps_producers: false }.lots(KEY);
            let contributors = KEY.hash(&batch.columns()[1]);
            let mut rows: Vec<(Vec<i64>, u32)> = records
                .iter()
                .zip(0_u32..)
                .map(|((time, _), row)| (by_definition(*time, step, length, is_open), row))
                .collect();
            // To the byte, cells are the same in the order that they are folded in: by the windows of records.
            rows.sort_by_key(|(windows, _)| (windows.first().copied(), windows.last().copied()));
            for (windows, row) in rows {
                for window in windows {
                    let cells = expected.entry(window).or_insert_with(|| Cells::new(&dataset));
                    cells.decided_under(Digest::from_bytes(POLICY));
                    let foldable = Foldable::new(&dataset, batch.columns(), &contributors).drawn_by(&lots);
                    cells.fold(&dataset, &foldable, &Rows::Some(&[row]));
                }
            }
            journal.extend(life.take(&mut next, records));
            watermark = watermark.max(records.iter().map(|(time, _)| *time).max());
            left.extend(life.left());
        }
        let windows: Vec<i64> = left.keys().map(|(_, window)| *window).collect();
        let different: std::collections::BTreeSet<&i64> = windows.iter().collect();
        prop_assert_eq!(different.len(), windows.len(), "no window closes twice");
        let all = left.into_iter().map(|((_, window), cells)| (window, cells)).chain(life.saved());
        let expected = expected.iter().map(|(window, cells)| (*window, encoded(cells)));
        prop_assert_eq!(all.collect::<BTreeMap<_, _>>(), expected.collect::<BTreeMap<_, _>>());
    }
}
