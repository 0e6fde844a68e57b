//! Cells that an earlier version wrote are read.

use super::*;
use crate::domain::dataset::samples;

/// The cells of the sample, with sets that end at so many contributors.
fn sample_up_to(dataset: &Dataset, enough: usize) -> Cells {
    let columns = samples::columns();
    let contributors = ContributorKey([7; 16]).hash(&columns[0]);
    let foldable = Foldable::new(dataset, &columns, &contributors);
    let mut cells = Cells::up_to(dataset, enough);
    cells.decided_under(Digest::from_bytes([3; 32]));
    cells.fold(dataset, &foldable, &Rows::All);
    cells
}

/// The same of which the first records were counted without their producers, and the others with them.
pub(super) fn sample_with_producers(dataset: &Dataset, enough: usize) -> Cells {
    let columns = samples::columns();
    let key = ContributorKey([7; 16]);
    let contributors = key.hash(&columns[0]);
    let producers: Vec<Producer> =
        (0..60).map(|row| key.producer(["till-1", "till-2", "till-3"][row / 7 % 3])).collect();
    let mut cells = Cells::up_to(dataset, enough);
    cells.decided_under(Digest::from_bytes([3; 32]));
    let (first, others): (Vec<u32>, Vec<u32>) = (0..60).partition(|row| *row < 20);
    let lots: Vec<Lot> = key.lots(Request::Placed { lsn: 1, at: 0 }).take(60).collect();
    cells.fold(dataset, &Foldable::new(dataset, &columns, &contributors).drawn_by(&lots), &Rows::Some(&first));
    let sent = Foldable::new(dataset, &columns, &contributors).brought_by(&producers).drawn_by(&lots);
    cells.fold(dataset, &sent, &Rows::Some(&others));
    cells
}

/// Whether two values are the same but for what version 1 rounded.
fn same(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Number(old), Value::Number(new)) => (old - new).abs() <= 1e-9 * new.abs(),
        _ => old == new,
    }
}

/// Where a cell is, who is in it, and what it would say.
type Said = (Vec<usize>, BTreeSet<Contributor>, Vec<Value>);

fn said(cells: &Cells, dataset: &Dataset) -> Vec<Said> {
    let slots = cells.in_order().into_iter();
    slots
        .map(|slot| {
            let values = values(cells, dataset, slot, 1);
            (cells.key_positions(dataset, slot), everybody(cells, slot), values)
        })
        .collect()
}

/// That cells of an older version are those of the sample, but for what parts their records: of that nothing leaves.
fn says_what_an_older_version_kept(kept: &mut Cells, now: Cells, dataset: &Dataset) {
    assert_eq!(kept.policies(), now.policies());
    let (was, is) = (said(kept, dataset), said(&now, dataset));
    assert_eq!((was.len(), is.len()), (26, 26));
    let parts = |name: &str| name.starts_with("x_") || name == "histogram" || name.starts_with("share");
    for (was, is) in was.iter().zip(&is) {
        assert_eq!(was.0, is.0);
        // Where a set has ended, who is in it is not known.
        assert!(was.1 == is.1 || was.1.is_empty());
        for ((metric, was), is) in dataset.metrics.iter().zip(&was.2).zip(&is.2) {
            if parts(&metric.name) {
                assert_eq!((was, &*metric.name), (&Value::Null, &*metric.name));
            } else {
                assert!(same(was, is), "{was:?} {is:?}");
            }
        }
    }
    // That stays so when more is counted in the same window.
    kept.merge(now);
    for (_, _, values) in said(kept, dataset) {
        let Value::Count(records) = values[0] else { panic!("a count") };
        assert_eq!(records % 2, 0);
        assert!(
            dataset.metrics.iter().zip(&values).all(|(metric, value)| !parts(&metric.name) || *value == Value::Null)
        );
    }
    assert_eq!(kept.set_bytes, counted_anew(kept));
}

#[test]
fn cells_of_older_versions_are_read() {
    let dataset = samples::every_kind();
    let of_version_1 = as_version_1(include_bytes!("../../../../tests/golden/checkpoint-2-cells.bin"));
    let of_version_2 = include_bytes!("../../../../tests/golden/cells-2.bin");
    let of_version_3 = include_bytes!("../../../../tests/golden/cells-3.bin");
    for (kept, enough) in [(&of_version_1[..], ENOUGH), (of_version_2, ENOUGH), (of_version_3, 3)] {
        let mut reader = Reader::new(kept);
        let mut cells = Cells::decode_up_to(&dataset, enough, &mut reader).unwrap();
        assert!(reader.is_empty());
        says_what_an_older_version_kept(&mut cells, sample_up_to(&dataset, enough), &dataset);
        for end in 0..kept.len() {
            assert!(Cells::decode_up_to(&dataset, enough, &mut Reader::new(&kept[..end])).is_none());
        }
    }
}

/// Without the rule about sums it says what it said; under it, no sum leaves, however much more is counted.
#[test]
fn of_version_4_no_sum_leaves() {
    let dataset = samples::every_kind();
    let now = sample_up_to(&dataset, 2);
    let golden = include_bytes!("../../../../tests/golden/cells-4.bin");
    let mut reader = Reader::new(golden);
    let mut kept = Cells::decode_up_to(&dataset, 2, &mut reader).unwrap();
    assert!(reader.is_empty());
    assert_eq!(said(&kept, &dataset), said(&now, &dataset));
    kept.merge(now);
    let rule = PartRule { least: 1, not_empty: false, percent: 1, beyond_one: false, beside: 0 };
    for slot in kept.in_order() {
        let plan = kept.plan(&dataset, slot, rule, None);
        for (metric, declared) in dataset.metrics.iter().enumerate() {
            let is_sum = declared.function.measure().is_some();
            assert!(!is_sum || kept.measured(&dataset, metric, slot, &plan).is_none(), "{}", declared.name);
        }
    }
    assert_eq!(kept.set_bytes, counted_anew(&kept));
}

/// Without a rule about producers it says what it said; under it nothing leaves but what came after.
#[test]
fn of_version_5_it_is_not_known_who_brought_contributors() {
    let dataset = samples::every_kind();
    let now = sample_up_to(&dataset, 2);
    let golden = include_bytes!("../../../../tests/golden/cells-5.bin");
    let mut reader = Reader::new(golden);
    let mut kept = Cells::decode_up_to(&dataset, 2, &mut reader).unwrap();
    assert!(reader.is_empty());
    assert_eq!(canonical(&kept), canonical(&now));
    assert_eq!(said(&kept, &dataset), said(&now, &dataset));
    assert!((0..kept.len()).all(|slot| !kept.has(slot, 1, true)));
    kept.merge(sample_with_producers(&dataset, 2));
    assert!((0..kept.len()).any(|slot| kept.has(slot, 1, true)));
    assert_eq!(kept.set_bytes, counted_anew(&kept));
}

#[test]
fn version_6_of_cells_stays_what_it_is() {
    // With sets that end at two, so that there are sets of most kinds.
    let dataset = samples::every_kind();
    let now = sample_with_producers(&dataset, 2);
    let golden = include_bytes!("../../../../tests/golden/cells-6.bin");
    let mut reader = Reader::new(golden);
    let kept = Cells::decode_up_to(&dataset, 2, &mut reader).unwrap();
    assert!(reader.is_empty());
    assert_eq!(canonical(&kept), canonical(&now));
    assert_eq!(said(&kept, &dataset), said(&now, &dataset));
    let sets: Vec<&Contributors> = (0..kept.len()).flat_map(|slot| kept.parted[slot].contributors()).collect();
    let kinds: [fn(&Contributors) -> bool; 3] = [
        |set| matches!(set, Contributors::Few(_)),
        |set| matches!(set, Contributors::Brought(_)),
        |set| matches!(set, Contributors::Settled),
    ];
    let of_kind = kinds.map(|kind| sets.iter().filter(|set| kind(set)).count());
    assert!(of_kind.iter().all(|sets| *sets > 0), "{of_kind:?}");
    let mut writer = Writer::default();
    now.encode(&mut writer);
    let bytes = writer.finish();
    assert_eq!(bytes.len(), golden.len());
}

#[test]
fn a_newer_version_is_not_read() {
    let mut bytes = include_bytes!("../../../../tests/golden/cells-6.bin").to_vec();
    bytes[0] = 8;
    assert!(Cells::decode(&samples::every_kind(), &mut Reader::new(&bytes)).is_none());
}
