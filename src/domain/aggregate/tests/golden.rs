//! Cells that an earlier version wrote are read.

use super::*;
use crate::domain::dataset::samples;

/// The cells of the sample.
fn sample(dataset: &Dataset) -> Cells {
    sample_up_to(dataset, ENOUGH)
}

/// The same with sets that end at so many contributors.
fn sample_up_to(dataset: &Dataset, enough: usize) -> Cells {
    let columns = samples::columns();
    let contributors = ContributorKey([7; 16]).hash(&columns[0]);
    let numbers = cell_numbers(dataset, &columns, samples::RECORDS);
    let foldable = Foldable { columns: &columns, contributors: &contributors, cells: &numbers };
    let mut cells = Cells::up_to(dataset, enough);
    cells.decided_under(Digest::from_bytes([3; 32]));
    cells.fold(dataset, &foldable, &Rows::All);
    cells
}

/// Whether two values are the same but for what version 1 rounded.
fn same(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Number(old), Value::Number(new)) => (old - new).abs() <= 1e-9 * new.abs(),
        _ => old == new,
    }
}

#[test]
fn the_cells_of_a_checkpoint_of_version_2_are_read() {
    let dataset = samples::every_kind();
    let kept = as_version_1(include_bytes!("../../../../tests/golden/checkpoint-2-cells.bin"));
    let mut reader = Reader::new(&kept);
    let mut restored = Cells::decode(&dataset, &mut reader).unwrap();
    assert!(reader.is_empty());
    let now = sample(&dataset);
    assert_eq!(restored.policies(), now.policies());
    assert_eq!(restored.len(), 26);
    for (old, new) in restored.in_order().into_iter().zip(now.in_order()) {
        assert_eq!(restored.key_positions(&dataset, old), now.key_positions(&dataset, new));
        assert_eq!(sorted(&restored.contributors[old]), sorted(&now.contributors[new]));
        for (metric, declared) in dataset.metrics.iter().enumerate() {
            let (old, new) = (restored.value(&dataset, metric, old, 1), now.value(&dataset, metric, new, 1));
            if declared.name.starts_with("x_") {
                // Who had a value was not kept: so nothing of it leaves.
                assert_eq!(old, Value::Null);
            } else {
                assert!(same(&old, &new), "{old:?} {new:?}");
            }
        }
    }
    // That stays so when more is counted in the same window.
    restored.merge(sample(&dataset));
    for slot in restored.in_order() {
        assert_eq!(restored.value(&dataset, 4, slot, 1), Value::Null);
        let Value::Count(records) = restored.value(&dataset, 0, slot, 1) else { panic!("a count") };
        assert_eq!(records % 2, 0);
    }
}

/// Where a cell is, who is in it, and what it would say.
type Said = (Vec<usize>, Option<Vec<Contributor>>, Vec<Value>);

fn values(cells: &Cells, dataset: &Dataset) -> Vec<Said> {
    let slots = cells.in_order().into_iter();
    slots
        .map(|slot| {
            let values = (0..dataset.metrics.len()).map(|metric| cells.value(dataset, metric, slot, 1));
            (cells.key_positions(dataset, slot), sorted(&cells.contributors[slot]), values.collect())
        })
        .collect()
}

#[test]
fn cells_of_version_2_are_read() {
    let dataset = samples::every_kind();
    let mut reader = Reader::new(include_bytes!("../../../../tests/golden/cells-2.bin"));
    let kept = Cells::decode(&dataset, &mut reader).unwrap();
    assert!(reader.is_empty());
    assert_eq!(values(&kept, &dataset), values(&sample(&dataset), &dataset));
    // A set that is too large by now ends when it is read.
    let mut reader = Reader::new(include_bytes!("../../../../tests/golden/cells-2.bin"));
    let kept = Cells::decode_up_to(&dataset, 2, &mut reader).unwrap();
    let now = sample_up_to(&dataset, 2);
    assert_eq!(canonical(&kept), canonical(&now));
    assert_eq!(kept.bytes(), now.bytes());
}

#[test]
fn version_3_of_cells_stays_what_it_is() {
    // With sets that end at three, so that there are both kinds.
    let dataset = samples::every_kind();
    let now = sample_up_to(&dataset, 3);
    let golden = include_bytes!("../../../../tests/golden/cells-3.bin");
    let mut reader = Reader::new(golden);
    let kept = Cells::decode_up_to(&dataset, 3, &mut reader).unwrap();
    assert!(reader.is_empty());
    assert_eq!(canonical(&kept), canonical(&now));
    assert_eq!(values(&kept, &dataset), values(&now, &dataset));
    let ended = kept.contributors.iter().filter(|all| matches!(all, Contributors::Enough)).count();
    assert!(ended > 0 && ended < kept.len(), "{ended}");
    let mut writer = Writer::default();
    now.encode(&mut writer);
    assert_eq!(writer.finish().len(), golden.len());
}

#[test]
fn a_newer_version_is_not_read() {
    let mut bytes = include_bytes!("../../../../tests/golden/cells-3.bin").to_vec();
    bytes[0] = 4;
    assert!(Cells::decode(&samples::every_kind(), &mut Reader::new(&bytes)).is_none());
}
