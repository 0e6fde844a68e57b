//! Inspecting and repairing damaged logs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::super::fs::sim::Sim;
use super::super::shared::Limits;
use super::super::{Error, Log, Lsn, entries, inspect, repair};
use super::reference::{LAST, content, open, reference, segments, settings};
use super::world::{DIRECTORY, survival};

fn readable(sim: &Sim) -> BTreeMap<Lsn, Vec<u8>> {
    let mut reader = entries(Arc::new(sim.clone()), Path::new(DIRECTORY)).unwrap();
    let mut found = BTreeMap::new();
    while let Some(entry) = reader.next().unwrap() {
        found.insert(entry.lsn, entry.payload);
    }
    found
}

fn look(sim: &Sim) -> super::super::Report {
    inspect(sim, Path::new(DIRECTORY), 0).unwrap()
}

/// One log for each way to be damaged.
fn damaged_logs() -> Vec<Sim> {
    let sim = reference();
    let mut logs = Vec::new();
    for path in segments(&sim) {
        let length = sim.bytes(&path).unwrap().len();
        for byte in (0..length).step_by(11) {
            let flipped = sim.copy();
            flipped.flip(&path, byte, (byte % 8) as u8);
            logs.push(flipped);
        }
        for cut in (0..length).step_by(53) {
            let shorter = sim.copy();
            shorter.put(&path, &sim.bytes(&path).unwrap()[..cut]);
            logs.push(shorter);
        }
    }
    for path in segments(&sim).iter().skip(1) {
        let without = sim.copy();
        without.take_away(path);
        logs.push(without);
    }
    logs
}

#[test]
fn a_sound_log_is_found_sound_and_repair_leaves_it_alone() {
    let sim = reference();
    let report = look(&sim);
    assert!(report.is_sound());
    assert_eq!((report.first, report.last, report.entries, report.torn_bytes), (1, LAST, LAST, 0));
    assert!(report.segments.iter().all(|segment| segment.context_bytes == Some(10)));
    let before = sim.files(Path::new(DIRECTORY));
    assert_eq!(repair(&sim, Path::new(DIRECTORY)).unwrap(), report);
    assert_eq!(before, sim.files(Path::new(DIRECTORY)));
    assert_eq!(readable(&sim).len() as u64, LAST);
}

#[test]
fn after_a_repair_a_log_is_sound_and_has_what_could_be_read_before() {
    let mut repaired = 0;
    for sim in damaged_logs() {
        let (before, report) = (readable(&sim), look(&sim));
        let names: Vec<_> = report.damage.iter().filter(|damage| !damage.bytes.is_empty()).collect();
        let after = repair(&sim, Path::new(DIRECTORY)).unwrap();
        assert!(after.is_sound(), "{:?}", after.damage);
        assert_eq!(before, readable(&sim));
        assert_eq!(report.last, after.last);
        for damage in names {
            let aside = Path::new(DIRECTORY).join("damaged").join(&damage.file);
            assert!(sim.bytes(&aside).is_some(), "{} is gone", damage.file);
        }
        // Opening it does not alarm again, and writing goes on.
        sim.power_loss(|| false);
        let (log, mut writer, recovery) =
            Log::open_stepped(Arc::new(sim.clone()), settings(0), Limits::default()).unwrap();
        assert_eq!((recovery.damage, recovery.last), (Vec::new(), report.last));
        log.submit(recovery.last + 1, content(1), log.reserve(100).unwrap(), None);
        writer.step();
        assert_eq!(log.durable(), recovery.last + 1);
        let mut reader = log.reader(0);
        let mut count = 0;
        while reader.next().unwrap().is_some() {
            count += 1;
        }
        assert_eq!((count, log.damage()), (before.len() + 1, Vec::new()));
        drop((log, writer));
        repaired += usize::from(!report.is_sound());
    }
    assert!(repaired > 250, "{repaired}");
}

#[test]
fn a_crash_anywhere_in_a_repair_loses_nothing_and_it_can_be_done_again() {
    for damaged in damaged_logs().iter().step_by(17) {
        let before = readable(damaged);
        for stop in 0..70 {
            for seed in [0, 1, 3] {
                let sim = damaged.copy();
                sim.stop_after(stop);
                let _ = repair(&sim, Path::new(DIRECTORY));
                sim.power_loss(survival(seed));
                assert_eq!(before, readable(&sim));
                assert!(repair(&sim, Path::new(DIRECTORY)).unwrap().is_sound());
                sim.power_loss(|| false);
                assert_eq!(before, readable(&sim));
                assert!(look(&sim).is_sound());
            }
        }
    }
}

#[test]
fn a_log_in_use_is_inspected_but_not_repaired() {
    let sim = reference();
    let opened = Log::open_stepped(Arc::new(sim.clone()), settings(0), Limits::default()).unwrap();
    assert!(look(&sim).is_sound());
    assert!(matches!(repair(&sim, Path::new(DIRECTORY)), Err(Error::Locked { .. })));
    drop(opened);
    repair(&sim, Path::new(DIRECTORY)).unwrap();
    open(&sim, 0).unwrap();
}
