//! What a checkpoint gets of cells into which records go on being folded.

use super::*;

/// What was saved, read again.
fn read(saved: Saved, dataset: &Dataset, enough: usize) -> Cells {
    let bytes = saved.bytes();
    let mut reader = Reader::new(&bytes);
    let cells = Cells::decode_up_to(dataset, enough, &mut reader).unwrap();
    assert!(reader.is_empty());
    cells
}

proptest! {
    /// Whatever is folded meanwhile, and however little is written at a time.
    #[test]
    fn what_is_saved_is_what_there_was(
        before in records(),
        meanwhile in prop::collection::vec((records(), 0..200_usize), 0..6),
        enough in 1..20_usize,
    ) {
        let dataset = dataset();
        let mut cells = Cells::up_to(&dataset, enough);
        cells.decided_under(Digest::from_bytes([1; 32]));
        fold(&mut cells, &dataset, &before, &Rows::All);
        let (expected, policies) = (canonical(&cells), cells.policies().clone());
        cells.save();
        for (records, mut bytes) in meanwhile {
            cells.save_some(&mut bytes);
            cells.decided_under(Digest::from_bytes([2; 32]));
            fold(&mut cells, &dataset, &records, &Rows::All);
        }
        let saved = read(cells.take_saved().unwrap(), &dataset, enough);
        prop_assert_eq!(canonical(&saved), expected);
        prop_assert_eq!(saved.policies(), &policies);
        prop_assert!(cells.take_saved().is_none());
    }
}

#[test]
fn a_cell_that_is_written_before_it_changes_is_not_written_again() {
    let dataset = dataset();
    let mut cells = Cells::up_to(&dataset, 10);
    let record = |group| Record {
        person: Some("a".to_owned()),
        group,
        value: Some(1.0),
        label: Some(1),
        score: 0.5,
        sent_by: 2,
    };
    fold(&mut cells, &dataset, &[record(0), record(1)], &Rows::All);
    let expected = canonical(&cells);
    cells.save();
    fold(&mut cells, &dataset, &[record(1), record(1)], &Rows::Some(&[1]));
    let mut bytes = usize::MAX;
    assert!(cells.save_some(&mut bytes));
    let written = usize::MAX - bytes;
    assert!(cells.save_some(&mut bytes));
    assert_eq!(usize::MAX - bytes, written, "nothing is left to write");
    assert_eq!(canonical(&read(cells.take_saved().unwrap(), &dataset, 10)), expected);
}

#[test]
fn saving_a_cell_after_it_has_changed_is_noticed() {
    let _planted = crate::planted::for_tests::plant("save-after-change");
    let test = std::panic::AssertUnwindSafe(a_cell_that_is_written_before_it_changes_is_not_written_again);
    assert!(std::panic::catch_unwind(test).is_err());
}
