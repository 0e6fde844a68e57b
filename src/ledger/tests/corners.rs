//! What closings say, groups of any size, a disk that hangs, a ledger that is closed while it is opened, folders.

use std::thread;

use super::*;
use crate::ledger::appending::GROUP_BYTES_MAX;
use crate::ledger::book::Closed;
use crate::ledger::group::Group;

fn withheld(outbox: u64, window: u64) -> What {
    let (dataset, window_start) = ("cells".to_owned(), format!("window {window}"));
    What::Withheld { dataset, window_start, at_least: 10, outbox: Some(outbox) }
}

fn closing(outbox: u64, notes: u64) -> Closed {
    Closed { outbox, notes: (0..notes).map(|window| withheld(outbox, window)).collect() }
}

/// The notes of closings that a ledger holds.
fn noted(fs: &Sim) -> Vec<What> {
    let (found, all) = look(fs, &verifier(fs), &[]);
    assert_eq!(found.bad, []);
    said(&all).into_iter().filter(|what| matches!(what, What::Withheld { .. })).collect()
}

#[test]
fn what_closings_say_is_said_once_whatever_a_crash_takes() {
    let closings = || [closing(3, 2), closing(5, 1), closing(6, 3)];
    let expected: Vec<What> = closings().into_iter().flat_map(|closing| closing.notes).collect();
    let whole = Sim::default();
    opened(&whole).closed(&closings()).unwrap();
    assert_eq!(noted(&whole), expected);
    // After a crash the outbox says all of it again, from any position on.
    for stop in (0..60).step_by(7) {
        let fs = Sim::default();
        opened(&fs).close();
        let before = opened(&fs);
        fs.stop_after(stop);
        let [first, second, _] = closings();
        let was_said = before.closed(&[first]).is_ok() && before.closed(&[second]).is_ok();
        let crashed = fs.copy();
        crashed.power_loss(|| stop % 2 == 0);
        let after = opened(&crashed);
        after.closed(&closings()[if was_said { 2 } else { 0 }..]).unwrap();
        after.closed(&closings()).unwrap();
        assert_eq!(noted(&crashed), expected, "stopped after {stop} operations");
    }
}

#[test]
fn the_positions_of_an_outbox_that_is_no_more_say_nothing_of_the_next() {
    let fs = Sim::default();
    let before = opened(&fs);
    before.closed(&[closing(101, 1)]).unwrap();
    before.close();
    // Here the outbox had come to 100 when the gateway started: it is another one.
    opened(&fs).closed(&[closing(7, 1)]).unwrap();
    assert_eq!(noted(&fs), [withheld(101, 0), withheld(7, 0)]);
}

#[test]
fn what_closings_say_waits_while_the_ledger_is_away_and_is_not_dropped() {
    let fs = Sim::default();
    let ledger = opened(&fs);
    let hanging = fs.hang();
    let many = || [closing(9, 6_000)];
    (0..2).for_each(|_| assert!(ledger.closed(&many()).is_err()));
    drop(hanging);
    let mut tries = 0;
    while ledger.closed(&many()).is_err() {
        tries += 1;
        assert!(tries < 100, "{:?}", ledger.trouble());
    }
    assert_eq!(noted(&fs).len(), 6_000);
}

#[test]
fn a_group_of_any_size_is_split() {
    let fs = Sim::default();
    let ledger = opened(&fs);
    let releases: Vec<Released> = (0..20_000).map(|number| released(&format!("{number:032}"))).collect();
    let intents: Vec<Intent<'_>> = releases.iter().map(|released| Intent { released, outbox: 3, lines: b"" }).collect();
    while ledger.intend(&intents).is_err() {
        assert_eq!(ledger.trouble(), None);
    }
    ledger.publish().unwrap();
    let (found, all) = look(&fs, &verifier(&fs), &[]);
    assert_eq!((found.bad, all.len()), (vec![], 20_000));
    assert!(all.iter().map(Vec::len).sum::<usize>() > 7 * GROUP_BYTES_MAX, "more than the log takes at once");
    (0..4_000).for_each(|number| ledger.note(What::Policy { policy: "x".repeat(3_000), reload: number > 0 }));
    ledger.note(What::Policy { policy: "x".repeat(70_000), reload: true });
    intend(&ledger, "after", 4).unwrap();
    let (found, all) = look(&fs, &verifier(&fs), &[]);
    assert_eq!((found.bad, all.len()), (vec![], 24_002));
    assert_eq!(said(&all)[24_000], What::Missed { entries: 1 }, "too long for any group");
    let (mut log, _) = files(&fs).log().unwrap();
    let sizes = std::iter::from_fn(|| log.next().unwrap()).map(|entry| Group::decode(&entry.payload).unwrap());
    assert!(sizes.into_iter().all(|group| group.encode().len() <= GROUP_BYTES_MAX + (64 << 10)));
}

#[test]
fn a_disk_that_hangs_is_told() {
    let fs = Sim::default();
    let ledger = opened(&fs);
    intend(&ledger, "before", 1).unwrap();
    assert_eq!(ledger.trouble(), None);
    let hanging = fs.hang();
    note(&ledger, 1);
    // In this test a second passes at each look.
    let said: Vec<_> = (0..6).map(|_| ledger.trouble()).collect();
    assert_eq!(said[..2], [None, None]);
    assert!(said[5].as_ref().is_some_and(|why| why.contains("its disk hangs: a write to it has been under way")));
    assert!(intend(&ledger, "during", 1).unwrap_err().contains("its disk hangs"));
    drop(hanging);
    while intend(&ledger, "during", 1).is_err() {}
    assert_eq!(ledger.trouble(), None);
}

#[test]
fn a_ledger_that_is_closed_while_it_is_opened_stays_closed() {
    let fs = Sim::default();
    opened(&fs).close();
    let ledger = ledger(&fs);
    let hanging = fs.hang();
    thread::scope(|scope| {
        let opening = scope.spawn(|| ledger.open());
        while !fs.is_held() {
            thread::sleep(Duration::from_millis(1));
        }
        ledger.close();
        drop(hanging);
        assert_eq!(opening.join().unwrap().unwrap_err().as_ref(), "the gateway stops");
    });
    assert!(intend(&ledger, "late", 1).unwrap_err().contains("the gateway stops"));
    // Nor does it hold the files.
    opened(&fs).close();
}

#[test]
fn no_empty_folders_stay() {
    let fs = Sim::default();
    let ledger = opened(&fs);
    for number in 0..1_300 {
        note(&ledger, number);
        if number % 50 == 0 {
            intend(&ledger, &number.to_string(), 1).unwrap();
            ledger.publish().unwrap();
        }
    }
    for id in ["last", "but one", "of the edges that are kept"] {
        intend(&ledger, id, 1).unwrap();
        ledger.publish().unwrap();
    }
    let folders = |of: &str| fs.folders(&path(Path::new("tile").join(of)));
    assert_eq!(folders("entries"), ["005.p"], "but that of the last bundle");
    assert_eq!((folders("0"), folders("1")), (vec!["005.p".to_owned()], vec!["000.p".to_owned()]));
    assert_eq!(look(&fs, &verifier(&fs), &[]).0.bad, []);
}
