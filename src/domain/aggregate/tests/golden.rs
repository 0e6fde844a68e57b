//! Cells that an earlier version wrote are read.

use super::*;
use crate::domain::dataset::samples;

/// The cells of the sample.
fn sample(dataset: &Dataset) -> Cells {
    let columns = samples::columns();
    let contributors = ContributorKey([7; 16]).hash(&columns[0]);
    let numbers = cell_numbers(dataset, &columns, samples::RECORDS);
    let foldable = Foldable { columns: &columns, contributors: &contributors, cells: &numbers };
    let mut cells = Cells::new(dataset);
    cells.decided_under(Digest::from_bytes([3; 32]));
    cells.fold(dataset, &foldable, &Rows::All);
    cells
}

#[test]
fn the_cells_of_a_checkpoint_of_version_2_are_read() {
    let dataset = samples::every_kind();
    let kept = as_version_1(include_bytes!("../../../../tests/golden/checkpoint-2-cells.bin"));
    let mut reader = Reader::new(&kept);
    let restored = Cells::decode(&dataset, &mut reader).unwrap();
    assert!(reader.is_empty());
    let now = sample(&dataset);
    assert_eq!(restored.policies(), now.policies());
    assert_eq!(restored.len(), 26);
    for ((old, contributors), (new, expected)) in restored.in_order().into_iter().zip(now.in_order()) {
        assert_eq!(restored.key_positions(&dataset, old), now.key_positions(&dataset, new));
        assert_eq!(contributors, expected);
        for metric in 0..dataset.metrics.len() {
            assert_eq!(restored.value(&dataset, metric, old), now.value(&dataset, metric, new));
        }
    }
}
