//! The small durable value.

use std::path::Path;
use std::sync::Arc;

use super::super::fs::sim::{Failing, Sim};
use super::super::{SLOT_BYTES_MAX, Slots, Stored, read_file, write_file_durably};
use super::world::{payload, survival};

const PATH: &str = "/var/cursor";

fn sim() -> Sim {
    let sim = Sim::default();
    sim.put(Path::new("/var/other"), b"");
    sim
}

fn value(number: u64) -> Vec<u8> {
    payload(number, 1, 100 + number as usize * 300)
}

fn open(sim: &Sim) -> (Slots, Stored) {
    Slots::open(Arc::new(sim.clone()), Path::new(PATH)).unwrap()
}

#[test]
fn the_newest_value_is_read_back() {
    let sim = sim();
    assert_eq!(open(&sim).1, Stored::Missing);
    for number in 0..5 {
        let (mut slots, _) = open(&sim);
        slots.write(&value(number)).unwrap();
        slots.write(&value(number + 1)).unwrap();
        assert_eq!(open(&sim).1, Stored::Value(value(number + 1)));
        sim.power_loss(|| false);
        assert_eq!(open(&sim).1, Stored::Value(value(number + 1)));
    }
    let (mut slots, _) = open(&sim);
    slots.write(&vec![1; SLOT_BYTES_MAX]).unwrap();
    assert!(slots.write(&vec![1; SLOT_BYTES_MAX + 1]).is_err());
    assert_eq!(open(&sim).1, Stored::Value(vec![1; SLOT_BYTES_MAX]));
}

#[test]
fn after_a_crash_anywhere_there_is_the_value_or_the_one_being_written() {
    a_crash_anywhere_keeps_the_value();
}

pub(super) fn a_crash_anywhere_keeps_the_value() {
    for stop in 0..60 {
        for seed in 0..12 {
            let sim = sim();
            sim.stop_after(stop);
            let (mut written, mut tried) = (None, None);
            if let Ok((mut slots, _)) = Slots::open(Arc::new(sim.clone()), Path::new(PATH)) {
                for number in 0..5 {
                    tried = Some(number);
                    if slots.write(&value(number)).is_ok() {
                        written = Some(number);
                    }
                }
            }
            // Again in the middle of the next open.
            sim.power_loss(survival(seed));
            sim.stop_after(stop % 13);
            drop(Slots::open(Arc::new(sim.clone()), Path::new(PATH)));
            sim.power_loss(survival(seed + 1));
            match open(&sim).1 {
                Stored::Missing => assert_eq!(written, None, "the value is lost"),
                Stored::Damaged => panic!("damaged by a crash"),
                Stored::Value(found) => {
                    let good = [written, tried, Some(0)].into_iter().flatten().chain(written.map(|last| last + 1));
                    assert!(good.filter(|number| Some(*number) >= written).any(|number| value(number) == found));
                }
            }
        }
    }
}

#[test]
fn a_flipped_bit_costs_one_value_and_two_are_reported() {
    let sim = sim();
    let (mut slots, _) = open(&sim);
    slots.write(&value(1)).unwrap();
    slots.write(&value(2)).unwrap();
    let length = sim.bytes(Path::new(PATH)).unwrap().len();
    let used: Vec<_> = (0..24 + value(1).len()).chain(length - value(2).len() - 24..length).collect();
    assert!(!Slots::has_damage(&sim, Path::new(PATH)).unwrap());
    for byte in used {
        let flipped = sim.copy();
        flipped.flip(Path::new(PATH), byte, (byte % 8) as u8);
        assert!(Slots::has_damage(&flipped, Path::new(PATH)).unwrap(), "byte {byte}");
        // Whoever says what is safe then gets that, and so does the next.
        let safe = flipped.copy();
        let (_, stored) = Slots::open_or(Arc::new(safe.clone()), Path::new(PATH), |_| value(3)).unwrap();
        assert_eq!((stored, open(&safe).1), (Stored::Value(value(3)), Stored::Value(value(3))));
        let (_, stored) = open(&flipped);
        assert!(stored == Stored::Value(value(1)) || stored == Stored::Value(value(2)), "byte {byte}: {stored:?}");
    }
    let both = sim.copy();
    both.flip(Path::new(PATH), 30, 0);
    both.flip(Path::new(PATH), length - 1, 0);
    let (mut slots, stored) = open(&both);
    assert_eq!(stored, Stored::Damaged);
    slots.write(&value(3)).unwrap();
    assert_eq!(open(&both).1, Stored::Value(value(3)));
    assert!(both.bytes(Path::new("/var/cursor.damaged")).is_some());
}

#[test]
fn every_truncation_leaves_a_value_or_is_reported() {
    let sim = sim();
    let (mut slots, _) = open(&sim);
    slots.write(&value(1)).unwrap();
    slots.write(&value(2)).unwrap();
    let bytes = sim.bytes(Path::new(PATH)).unwrap();
    for length in (0..bytes.len()).step_by(7) {
        let cut = sim.copy();
        cut.put(Path::new(PATH), &bytes[..length]);
        assert!(Slots::has_damage(&cut, Path::new(PATH)).unwrap(), "{length} bytes");
        let expected = if length < 24 + value(1).len() { Stored::Damaged } else { Stored::Value(value(1)) };
        assert_eq!(open(&cut).1, expected);
    }
}

#[test]
fn what_was_written_whole_is_not_called_damaged() {
    let sim = sim();
    let has_damage = || Slots::has_damage(&sim, Path::new(PATH)).unwrap();
    assert!(!has_damage(), "there is none");
    let (mut slots, _) = open(&sim);
    for number in [1, 9, 2, 7, 0, 8] {
        slots.write(&value(number)).unwrap();
        assert!(!has_damage(), "value {number}");
    }
    drop(Slots::open_or(Arc::new(sim.clone()), Path::new(PATH), |_| panic!("nothing is damaged")).unwrap());
    assert!(!has_damage(), "one slot, again");
}

#[test]
fn after_a_failed_sync_the_file_is_replaced() {
    let sim = sim();
    let (mut slots, _) = open(&sim);
    slots.write(&value(1)).unwrap();
    sim.fail_syncs(Failing::Once);
    assert!(slots.write(&value(2)).is_err());
    slots.write(&value(3)).unwrap();
    sim.power_loss(|| false);
    assert_eq!(open(&sim).1, Stored::Value(value(3)));
    // A killed process leaves what it could not sync in the page cache; what is handed out must be durable.
    let (mut slots, _) = open(&sim);
    sim.fail_syncs(Failing::Once);
    assert!(slots.write(&value(4)).is_err());
    drop(slots);
    sim.kill();
    let stored = open(&sim).1;
    sim.power_loss(|| false);
    assert_eq!(open(&sim).1, stored);
}

#[test]
fn a_value_whose_file_was_removed_is_written_into_a_new_one() {
    let sim = sim();
    let (mut slots, _) = open(&sim);
    slots.write(&value(1)).unwrap();
    drop(sim.hide(Path::new(PATH)));
    slots.write(&value(2)).unwrap();
    assert_eq!(open(&sim).1, Stored::Value(value(2)));
    let away = sim.hide(Path::new("/var"));
    assert!(slots.write(&value(3)).is_err());
    sim.put_back(away);
    slots.write(&value(4)).unwrap();
    sim.power_loss(|| false);
    assert_eq!(open(&sim).1, Stored::Value(value(4)));
}

#[test]
fn a_file_is_the_old_one_or_the_new_one() {
    let path = Path::new("/var/checkpoint");
    for stop in 0..20 {
        for seed in 0..8 {
            let sim = sim();
            write_file_durably(&sim, path, &value(1)).unwrap();
            sim.stop_after(stop);
            let written = write_file_durably(&sim, path, &value(2)).is_ok();
            sim.power_loss(survival(seed));
            let found = read_file(&sim, path, 1 << 20).unwrap().unwrap();
            assert!(found == value(2) || (!written && found == value(1)));
            write_file_durably(&sim, path, &value(3)).unwrap();
            assert!(read_file(&sim, path, 10).is_err());
        }
    }
    assert_eq!(read_file(&sim(), path, 10).unwrap(), None);
}
