//! Every truncation and every flipped bit of a small log.

use std::path::Path;

use super::super::fs::sim::Sim;
use super::super::segment::Name;
use super::super::{Error, Wrong, repair};
use super::reference::{LAST, TOGETHER, check, open, reference, segments};
use super::world::DIRECTORY;

/// The log with one file changed.
fn changed(sim: &Sim, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Sim {
    let copy = sim.copy();
    let mut bytes = sim.bytes(path).unwrap();
    change(&mut bytes);
    copy.put(path, &bytes);
    copy
}

fn is_aside(sim: &Sim, path: &Path) -> bool {
    sim.bytes(&Path::new(DIRECTORY).join("damaged").join(path.file_name().unwrap())).is_some()
}

#[test]
fn every_flipped_bit_is_detected_or_harmless() {
    let sim = reference();
    let whole = open(&sim.copy(), 0).unwrap();
    assert_eq!((whole.1.len() as u64, whole.2.len(), whole.0.last), (LAST, 0, LAST));
    let (mut detected, mut harmless) = (0, 0);
    for path in segments(&sim) {
        let in_header = 64;
        for bit in 0..sim.bytes(&path).unwrap().len() * 8 {
            let flipped = changed(&sim, &path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            let (recovery, entries, damage) = open(&flipped, 0).unwrap();
            let missing = check(&entries, &damage);
            assert!(bit / 8 < in_header || missing <= TOGETHER, "bit {bit} costs {missing} entries");
            assert!(recovery.last >= LAST);
            assert_eq!(missing > 0, !recovery.damage.is_empty(), "bit {bit}: {:?}", recovery.damage);
            assert_eq!(missing > 0, is_aside(&flipped, &path), "bit {bit}");
            if missing > 0 { detected += 1 } else { harmless += 1 }
        }
    }
    // Padding, the frames that only say what is durable, and what is behind the next segment's first LSN.
    assert!(detected > 10 * harmless, "{detected} detected, {harmless} harmless");
}

#[test]
fn every_truncation_is_detected_or_harmless() {
    let sim = reference();
    let paths = segments(&sim);
    for (index, path) in paths.iter().enumerate() {
        let is_newest = index + 1 == paths.len();
        for length in 0..sim.bytes(path).unwrap().len() {
            let cut = changed(&sim, path, |bytes| bytes.truncate(length));
            // The caller's checkpoint knows how far the log went.
            let (recovery, entries, damage) = open(&cut, LAST).unwrap();
            let missing = check(&entries, &damage);
            assert_eq!(missing > 0, !recovery.damage.is_empty());
            // Without it a shorter log is what a crash leaves; its end is all that can be missing.
            let cut = changed(&sim, path, |bytes| bytes.truncate(length));
            let (recovery, entries, damage) = open(&cut, 0).unwrap();
            if is_newest && damage.is_empty() {
                assert_eq!(entries.keys().copied().collect::<Vec<_>>(), (1..=recovery.last).collect::<Vec<_>>());
            } else if is_newest {
                // With the header gone, too, only the checkpoint knows how many there were; that they are lost is said.
                let lost = damage[0].lsns.0..=LAST;
                assert!((1..=LAST).all(|lsn| entries.contains_key(&lsn) != lost.contains(&lsn)));
            } else {
                check(&entries, &damage);
            }
        }
    }
}

#[test]
fn every_zeroed_sector_is_detected_or_harmless() {
    let sim = reference();
    for path in segments(&sim) {
        let length = sim.bytes(&path).unwrap().len();
        for start in (0..length).step_by(512) {
            let zeroed = changed(&sim, &path, |bytes| bytes[start..length.min(start + 512)].fill(0));
            let (_, entries, damage) = open(&zeroed, LAST).unwrap();
            check(&entries, &damage);
        }
    }
}

#[test]
fn a_page_that_cannot_be_read_is_damage_and_the_rest_is_delivered() {
    let sim = reference();
    for path in segments(&sim) {
        let length = sim.bytes(&path).unwrap().len();
        let bad = sim.copy();
        bad.fail_reads(&path, 0..length);
        let (_, entries, damage) = open(&bad, 0).unwrap();
        assert!(check(&entries, &damage) > 0);
        assert!(!entries.is_empty());
    }
}

#[test]
fn a_missing_segment_is_damage() {
    let sim = reference();
    let paths = segments(&sim);
    for (index, path) in paths.iter().enumerate() {
        let without = sim.copy();
        without.take_away(path);
        let (recovery, entries, damage) = open(&without, LAST).unwrap();
        if index == 0 {
            // Like one that was let go: the caller, who knows what it let go, compares.
            assert!(recovery.first > 1 && damage.is_empty());
            assert_eq!(entries.keys().next(), Some(&recovery.first));
        } else {
            assert!(check(&entries, &damage) > 0);
            assert!(damage.iter().all(|damage| damage.what == Wrong::Missing), "{damage:?}");
        }
    }
}

#[test]
fn a_segment_under_another_name_is_damage() {
    let sim = reference();
    let paths = segments(&sim);
    let swapped = sim.copy();
    swapped.put(&paths[1], &sim.bytes(&paths[2]).unwrap());
    let (_, entries, damage) = open(&swapped, LAST).unwrap();
    assert!(check(&entries, &damage) > 0);
    assert!(damage.iter().any(|damage| damage.what == Wrong::Header));
}

#[test]
fn frames_of_another_segment_are_not_read() {
    stale_frames_are_not_read();
}

/// The space of a segment held another one before, whose next frame happens to come next.
pub(super) fn stale_frames_are_not_read() {
    let sim = reference();
    let paths = segments(&sim);
    let frames = |path: &Path| sim.bytes(path).unwrap().split_off(64);
    let (last, before) = (&paths[paths.len() - 1], &paths[paths.len() - 2]);
    let mixed = sim.copy();
    mixed.take_away(last);
    // What is stale comes next, by its numbers.
    let mut bytes = sim.bytes(before).unwrap();
    bytes.extend(frames(last));
    mixed.put(before, &bytes);
    let end = open(&mixed, 0).unwrap();
    assert!(end.0.last < LAST || !end.0.damage.is_empty(), "stale frames were read");
}

/// A frame with right check sums and any fields.
fn forged(seed: u32, first: u64, durable: u64, count: u32, body_bytes: u32, body: &[u8]) -> Vec<u8> {
    let mut frame = b"\xb1FRM".to_vec();
    frame.extend(body_bytes.to_le_bytes());
    frame.extend(first.to_le_bytes());
    frame.extend(durable.to_le_bytes());
    frame.extend(count.to_le_bytes());
    frame.extend(crc32c::crc32c_append(seed, body).to_le_bytes());
    frame.extend([0; 4]);
    frame.extend(crc32c::crc32c_append(seed, &frame).to_le_bytes());
    frame.extend(body);
    frame.resize(frame.len().next_multiple_of(8), 0);
    frame
}

#[test]
fn a_frame_that_contradicts_itself_is_no_panic_and_not_delivered() {
    let sim = reference();
    let paths = segments(&sim);
    let newest = &paths[paths.len() - 1];
    let name = Name::parse(newest.file_name().unwrap().to_str().unwrap()).unwrap();
    let body = [3, 0, 0, 0, 9, 9, 9];
    let numbers = [0, 1, LAST, LAST + 1, LAST + 2, u64::MAX - 1, u64::MAX];
    let mut forgeries = 0;
    for first in numbers {
        for durable in numbers {
            for (count, bytes) in [(2, 7), (0, 7), (u32::MAX, 7), (1, 6), (1, u32::MAX), (1, 8), (u32::MAX, u32::MAX)] {
                let frame = forged(name.id.seed(), first, durable, count, bytes, &body);
                let sim = changed(&sim, newest, |file| file.extend(frame));
                match open(&sim, 0) {
                    Ok((recovery, entries, damage)) => {
                        check(&entries, &damage);
                        assert_eq!(entries.len() as u64, LAST);
                        assert!(recovery.last >= LAST);
                    }
                    // It claims the last number.
                    Err(Error::NumbersExhausted) => {}
                    Err(error) => panic!("{error}"),
                }
                repair(&sim, Path::new(DIRECTORY)).unwrap();
                forgeries += 1;
            }
        }
    }
    assert_eq!(forgeries, 343);
}

#[test]
fn another_version_is_an_error_and_nothing_is_touched() {
    let sim = reference();
    let path = &segments(&sim)[1];
    let other = changed(&sim, path, |bytes| {
        bytes[8..12].copy_from_slice(&2_u32.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..12]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    });
    let before: Vec<_> = segments(&other).iter().map(|path| other.bytes(path)).collect();
    assert!(matches!(open(&other, 0), Err(Error::UnknownVersion { version: 2, .. })));
    assert_eq!(before, segments(&other).iter().map(|path| other.bytes(path)).collect::<Vec<_>>());
}

#[test]
fn rubbish_is_no_log_and_no_panic() {
    let name = Path::new(DIRECTORY).join("00000000000000000001-0000000100000001.segment");
    for length in [0, 1, 39, 64, 5000] {
        for byte in [0, 0xb1, 0xff] {
            let sim = Sim::default();
            sim.put(&name, &vec![byte; length]);
            let (recovery, entries, _) = open(&sim, 0).unwrap();
            assert!(entries.is_empty() && recovery.damage.len() == 1);
        }
    }
}
