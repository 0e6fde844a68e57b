use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::domain::dataset::samples;

fn hub() -> DestinationName {
    "hub".parse().unwrap()
}

fn values(values: u8) -> Fingerprint {
    Fingerprint::of(&[values])
}

fn said(number: u32, of: u8) -> Said {
    Said { number, values: values(of), windows: 1 }
}

/// Tells a window: what is told as `all`, which cells, and which are gone.
fn tell(tables: &mut Tables, (window, part): (i64, u64), said: &[Said]) -> (bool, Vec<u32>, Vec<u32>) {
    let telling = tables.telling(&hub(), window, part, said);
    if !telling.is_empty() {
        tables.tell(&telling);
    }
    (telling.all, telling.set.iter().map(|(number, _)| *number).collect(), telling.gone)
}

#[test]
fn what_has_changed_is_told_and_what_is_gone() {
    let mut tables = Tables::new(&samples::every_kind());
    assert_eq!(tell(&mut tables, (0, 0), &[]), (true, vec![], vec![]), "nothing is known, and nothing is told");
    assert_eq!(tell(&mut tables, (1, 0), &[said(1, 7), said(2, 7)]), (true, vec![1, 2], vec![]));
    assert_eq!(tell(&mut tables, (2, 0), &[said(1, 7), said(2, 7)]), (false, vec![], vec![]));
    assert_eq!(tell(&mut tables, (3, 0), &[said(1, 8), said(3, 7)]), (false, vec![1, 3], vec![2]));
    assert_eq!(tell(&mut tables, (4, 0), &[]), (false, vec![], vec![1, 3]));
    assert_eq!(tell(&mut tables, (5, 0), &[]), (false, vec![], vec![]), "it is gone once");
    assert_eq!(tell(&mut tables, (6, 0), &[said(1, 8)]), (false, vec![1], vec![]), "what was gone is told again");
    tables.forget();
    assert_eq!(tell(&mut tables, (7, 0), &[said(1, 8)]), (true, vec![1], vec![]));
    assert_eq!(tables.telling(&"desk".parse().unwrap(), 8, 0, &[said(1, 8)]).set.len(), 1, "another one knows nothing");
}

#[test]
fn a_cell_of_several_windows_is_never_unchanged_nor_is_what_comes_after_it() {
    let mut tables = Tables::new(&samples::every_kind());
    let wide = Said { windows: 2, ..said(1, 7) };
    for (window, said) in [(1, said(1, 7)), (2, wide), (3, wide), (4, said(1, 7))] {
        assert_eq!(tell(&mut tables, (window, 0), &[said]).1, [1], "window {window}");
    }
    assert_eq!(tell(&mut tables, (5, 0), &[said(1, 7)]).1, [0_u32; 0]);
}

#[test]
fn parts_of_windows_are_told_whole_and_so_is_the_rest_of_each() {
    let mut tables = Tables::new(&samples::every_kind());
    tell(&mut tables, (1, 0), &[said(1, 7), said(2, 7)]);
    // A flush of windows 2 and 3.
    assert_eq!(tell(&mut tables, (2, 99), &[said(1, 7)]), (false, vec![1], vec![]), "a part says nothing of others");
    assert_eq!(tell(&mut tables, (3, 99), &[said(1, 7)]).1, [1]);
    // The rest of them.
    assert_eq!(tell(&mut tables, (2, 0), &[said(1, 7)]), (false, vec![1], vec![2]));
    assert_eq!(tell(&mut tables, (3, 0), &[said(1, 7)]).1, [1], "of window 3 parts were told");
    assert_eq!(tell(&mut tables, (4, 0), &[said(1, 7)]).1, [0_u32; 0]);
}

#[test]
fn cells_are_gone_with_the_first_window_without_records() {
    let mut tables = Tables::new(&samples::every_kind());
    assert_eq!(tables.gap(9), None, "nothing was told");
    tables.at(4);
    tell(&mut tables, (4, 0), &[said(1, 7)]);
    tables.closed_before(5);
    assert_eq!((tables.gap(5), tables.gap(9)), (None, Some(5)));
    tell(&mut tables, (5, 0), &[]);
    assert_eq!(tables.gap(9), None);
}

#[test]
fn another_way_of_counting_and_releases_that_told_nothing_make_a_table_unknown() {
    let mut tables = Tables::new(&samples::every_kind());
    tell(&mut tables, (1, 0), &[said(1, 7)]);
    let whole = tables.whole().unwrap();
    let mut again = Tables::new(&samples::every_kind());
    again.heard(Some(&whole), [].iter());
    assert_eq!(again, tables);
    again.heard(None, ["desk".parse().unwrap()].iter());
    assert_eq!(again, tables, "to another destination");
    again.heard(None, [hub()].iter());
    assert_eq!(again.whole(), None);
    let mut other = Tables::new(&Dataset { window: std::time::Duration::from_secs(7), ..samples::every_kind() });
    other.heard(Some(&whole), [].iter());
    assert_eq!(other.whole(), None);
    // A change of what is not known says nothing of the rest.
    let mut late = Tables::new(&samples::every_kind());
    let change = tables.telling(&hub(), 2, 0, &[said(1, 8)]);
    late.heard(Some(&tables.tellings(vec![change])), [hub()].iter());
    assert_eq!(late.whole(), None);
}

/// The cells of a window or, with `true`, of a part of one: number, values, whether it covers several windows; and what
/// happens after it.
type Step = (Vec<(u32, u8, bool)>, bool, u8);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let cell = (0..5_u32, 0..3_u8, prop::bool::weighted(0.2));
    prop::collection::vec((prop::collection::vec(cell, 0..5), prop::bool::weighted(0.15), 0..10_u8), 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// A receiver that applies what it is told has what each window would have told it, whatever is forgotten, kept or read
    /// again from the outbox in between.
    #[test]
    fn a_receiver_has_the_same_table(steps in steps()) {
        let new = || Tables::new(&samples::every_kind());
        let (mut tables, mut outbox, mut receiver) = (new(), Vec::new(), BTreeMap::new());
        let mut knows = false;
        for (window, (cells, is_part, then)) in (0_i64..).zip(steps) {
            let cells: BTreeMap<u32, (u8, bool)> = cells.into_iter().map(|(number, of, wide)| (number, (of, wide))).collect();
            let said: Vec<Said> = cells.iter().map(|(number, (of, wide))| {
                Said { number: *number, values: values(*of), windows: if *wide { 2 } else { 1 } }
            }).collect();
            let telling = tables.telling(&hub(), window, u64::from(is_part), &said);
            if telling.is_empty() {
                prop_assert!(!is_part || cells.is_empty(), "a part is told whole");
            } else {
                tables.tell(&telling);
                outbox.push(tables.tellings(vec![telling.clone()]));
                if telling.all {
                    receiver.clear();
                    knows = true;
                }
                for (number, _) in &telling.set {
                    receiver.insert(*number, cells[number]);
                }
                for number in &telling.gone {
                    prop_assert!(receiver.remove(number).is_some(), "what was never told is gone");
                }
            }
            if knows && !is_part {
                prop_assert_eq!(&receiver.iter().map(|(number, (of, _))| (*number, *of)).collect::<Vec<_>>(),
                    &cells.iter().map(|(number, (of, _))| (*number, *of)).collect::<Vec<_>>());
            }
            match then {
                // A crash: what the outbox has is read.
                0 | 1 => {
                    let mut again = new();
                    for told in &outbox {
                        let mut writer = Writer::default();
                        told.encode(&mut writer);
                        let bytes = writer.finish();
                        again.heard(Tellings::decode(&mut Reader::new(&bytes)).as_ref(), [hub()].iter());
                    }
                    prop_assert_eq!(again.whole(), tables.whole());
                    tables = again;
                }
                // A checkpoint: what the outbox had is let go.
                2 | 3 => outbox = tables.whole().into_iter().collect(),
                // It is lost.
                4 => {
                    tables.forget();
                    outbox.clear();
                    knows = false;
                }
                _ => {}
            }
        }
    }
}
