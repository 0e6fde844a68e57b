//! Entries as bytes, of this version and of earlier ones.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};

use super::*;
use crate::domain::refusal::Reason;
use crate::domain::table::{Fingerprint, Telling};
use crate::domain::tally::Cause;

fn released(destination: &str) -> Released {
    let columns: [(&str, ArrayRef); 2] = [
        ("country", Arc::new(StringArray::from(vec!["DE", "F\u{e9}"]))),
        ("n", Arc::new(Int64Array::from(vec![12, 10]))),
    ];
    Released::for_tests(ReleasedParts {
        id: format!("id-of-{destination}"),
        destination: destination.parse().unwrap(),
        dataset: "golden".parse().unwrap(),
        gateway: "g-1".parse().unwrap(),
        window_start: -60_000_000,
        window_end: 0,
        policy: Digest::from_bytes([7; 32]),
        cells: RecordBatch::try_from_iter(columns).unwrap(),
    })
}

const GOLDEN_NOTES: &[u8] = include_bytes!("../../../tests/golden/outbox-notes-8.bin");

fn refused(reason: Reason, rules: &[&str], to: Option<&str>, before: Option<i64>) -> Note {
    let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
    let rules = (!rules.is_empty()).then(|| rules.into());
    let cause = Cause { reason, rules, to: to.map(|to| to.parse().unwrap()) };
    Note::Refused { stream: "visits".parse().unwrap(), before, told: Told { cause, records: 300 } }
}

fn notes() -> Vec<Note> {
    vec![
        Note::Withheld { window_start: -60_000_000, at_least: 100 },
        Note::Override { id: "audit".into(), destination: "desk".parse().unwrap(), window_start: 0 },
        refused(Reason::NoRegime, &[], None, None),
        refused(Reason::BelongsElsewhere, &["law/a", "law/b"], Some("in-1"), Some(-1)),
        Note::Privacy { window_start: -60_000_000, outcome: Paid::Lost, rho: Rho::from_billionths(10_000_000) },
    ]
}

fn decided() -> Vec<Decided> {
    let nothing = Decided { window: -2, under: None, left: BTreeSet::new(), rolled_up: BTreeSet::new() };
    let (under, left) = (Some(Digest::from_bytes([7; 32])), [0, 70_000].into());
    vec![nothing, Decided { window: -1, under, left, rolled_up: [1, 65_535].into() }]
}

/// What versions up to 4 say of that.
fn without_rolled_up() -> Vec<Decided> {
    decided().into_iter().map(|decided| Decided { rolled_up: BTreeSet::new(), ..decided }).collect()
}

fn told() -> Tellings {
    let of_values = Some(Fingerprint::from_bytes([8; 16]));
    let desk = Telling {
        destination: "desk".parse().unwrap(),
        all: true,
        whole_through: Some(-3),
        set: vec![(0, of_values), (70_000, None)],
        gone: Vec::new(),
    };
    let (destination, gone) = ("hub".parse().unwrap(), vec![1, 65_535]);
    let hub = Telling { destination, all: false, whole_through: None, set: Vec::new(), gone };
    Tellings { counted_as: Fingerprint::from_bytes([9; 16]), next: -1, of: vec![desk, hub] }
}

/// What stands before the cells of the first release: the cells are Arrow's, who may come to write them otherwise.
fn before_cells(entry: &[u8]) -> &[u8] {
    let ends = entry.windows(32).position(|bytes| bytes == [7; 32]).unwrap() + 32;
    &entry[..ends]
}

#[test]
fn an_entry_is_read_as_it_is_written() {
    let releases = vec![released("desk"), released("hub")];
    let (dataset, notes, decided, told) = ("golden".parse().unwrap(), notes(), decided(), Some(told()));
    let decided_before = vec![(38, decided.clone()), (40, Vec::new())];
    let longer = Addition::sample();
    let closing = Closing { closed_at: 41, dataset, releases, notes, decided, told, decided_before, longer };
    let golden = include_bytes!("../../../tests/golden/outbox-entry-1.bin");
    assert_eq!(before_cells(&closing.encode().unwrap()), before_cells(golden));
    for bytes in [closing.encode().unwrap().as_slice(), golden] {
        let addressed = addressed(bytes).unwrap();
        let addressed = addressed.iter().map(|release| (release.dataset.as_str(), release.destination.as_str()));
        assert_eq!(addressed.collect::<Vec<_>>(), [("golden", "desk"), ("golden", "hub")]);
        let read = Closing::decode(bytes).unwrap();
        assert_eq!((read.closed_at, read.dataset.as_str(), read.releases.len()), (41, "golden", 2));
        for (read, written) in read.releases.iter().zip(&closing.releases) {
            assert_eq!((read.id(), read.destination()), (written.id(), written.destination()));
            assert_eq!((read.dataset(), read.gateway()), (written.dataset(), written.gateway()));
            assert_eq!((read.window_start(), read.window_end()), (-60_000_000, 0));
            assert_eq!((read.policy(), read.cells()), (written.policy(), written.cells()));
        }
        let has_notes = bytes != golden;
        assert_eq!(read.notes, if has_notes { closing.notes.as_slice() } else { &[] });
        assert_eq!(read.decided, if has_notes { closing.decided.as_slice() } else { &[] });
        assert_eq!(read.told, closing.told.clone().filter(|_| has_notes));
        assert_eq!(read.decided_before, if has_notes { closing.decided_before.as_slice() } else { &[] });
        assert_eq!(read.longer, if has_notes { closing.longer.clone() } else { Addition::default() });
        // Without its notes it is as entries were before there were any.
        let whole = if bytes == golden { usize::MAX } else { bytes.len() - GOLDEN_NOTES.len() };
        for cut in 0..bytes.len() {
            assert_eq!(Closing::decode(&bytes[..cut]).is_some(), cut == whole, "cut at {cut}");
        }
    }
    assert!(closing.encode().unwrap().ends_with(GOLDEN_NOTES));
}

#[test]
fn a_closing_is_quiet_if_all_its_cells_wait() {
    let decided = |left: &[u32], rolled_up: &[u32]| {
        let (left, rolled_up) = (left.iter().copied().collect(), rolled_up.iter().copied().collect());
        Decided { window: 1, under: None, left, rolled_up }
    };
    let new = || Closing::new("golden".parse().unwrap(), 0);
    let is_quiet = |decided| Closing { decided, ..new() }.only_decides();
    assert!(is_quiet(vec![decided(&[], &[]), decided(&[], &[])]));
    assert!(!is_quiet(vec![decided(&[], &[]), decided(&[3], &[])]) && !is_quiet(vec![decided(&[], &[3])]));
    assert!(!is_quiet(Vec::new()), "it says nothing at all");
    let says = Closing { decided: vec![decided(&[], &[])], notes: notes(), ..new() };
    assert!(!says.only_decides());
}

#[test]
fn notes_of_earlier_versions_are_read() {
    let read = |golden: &[u8]| decode_notes(&mut Reader::new(golden));
    let of = |notes: &[Note], decided: Vec<Decided>, told| {
        Some(Noted { notes: notes.to_vec(), decided, told, ..Noted::default() })
    };
    let all = notes();
    assert_eq!(read(include_bytes!("../../../tests/golden/outbox-notes-1.bin")), of(&all[..2], Vec::new(), None));
    assert_eq!(read(include_bytes!("../../../tests/golden/outbox-notes-2.bin")), of(&all[..4], Vec::new(), None));
    assert_eq!(
        read(include_bytes!("../../../tests/golden/outbox-notes-3.bin")),
        of(&all[..4], without_rolled_up(), None)
    );
    assert_eq!(read(include_bytes!("../../../tests/golden/outbox-notes-4.bin")), of(&all, without_rolled_up(), None));
    assert_eq!(read(include_bytes!("../../../tests/golden/outbox-notes-5.bin")), of(&all, decided(), None));
    assert_eq!(read(include_bytes!("../../../tests/golden/outbox-notes-6.bin")), of(&all, decided(), Some(told())));
    let version_7 = read(include_bytes!("../../../tests/golden/outbox-notes-7.bin")).unwrap();
    let decided_before = vec![(38, decided()), (40, Vec::new())];
    let of_7 = Noted {
        notes: all.clone(),
        decided: decided(),
        told: Some(told()),
        decided_before,
        longer: Addition::default(),
    };
    assert_eq!(version_7, of_7);
    // Version 3 had no budgets of privacy.
    let mut other = GOLDEN_NOTES.to_vec();
    other[0] = 3;
    assert_eq!(decode_notes(&mut Reader::new(&other)), None);
    // Version 1 had no refused records.
    let mut other = GOLDEN_NOTES.to_vec();
    other[0] = 1;
    assert_eq!(decode_notes(&mut Reader::new(&other)), None);
    other[0] = NOTES_VERSION + 1;
    assert_eq!(decode_notes(&mut Reader::new(&other)), None);
}
