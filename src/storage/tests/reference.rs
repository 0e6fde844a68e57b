//! A small log of several segments to be spoilt, and how to look at what is left of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::fs::sim::Sim;
use super::super::shared::Limits;
use super::super::{Damage, Error, Log, Lsn, Recovery, Settings};
use super::world::{DIRECTORY, payload};

pub(super) const LAST: Lsn = 18;
/// Entries of one frame.
pub(super) const TOGETHER: usize = 2;

pub(super) fn settings(at_least: Lsn) -> Settings {
    Settings {
        directory: PathBuf::from(DIRECTORY),
        segment_bytes: 1024,
        quota_bytes: 1 << 20,
        context: b"the schema".to_vec(),
        at_least,
    }
}

/// A log of several segments, closed properly: 18 entries, two in each frame.
pub(super) fn reference() -> Sim {
    let sim = Sim::default();
    let (log, mut writer, _) = Log::open_stepped(Arc::new(sim.clone()), settings(0), Limits::default()).unwrap();
    for lsn in 1..=LAST {
        log.submit(lsn, content(lsn), log.reserve(content(lsn).len() as u64).unwrap(), None);
        if lsn % TOGETHER as u64 == 0 {
            writer.step();
        }
    }
    writer.step();
    assert_eq!(log.durable(), LAST);
    writer.finish();
    assert!(segments(&sim).len() >= 3);
    sim
}

pub(super) fn content(lsn: Lsn) -> Vec<u8> {
    payload(lsn, 0, 30 + lsn as usize * 9)
}

pub(super) fn segments(sim: &Sim) -> Vec<PathBuf> {
    let files = sim.files(Path::new(DIRECTORY)).into_iter();
    files.filter(|path| path.extension().is_some_and(|extension| extension == "segment")).collect()
}

/// What opening found, what could be read, the damage known then.
type Opened = (Recovery, BTreeMap<Lsn, Vec<u8>>, Vec<Damage>);

/// What is found when it is opened: the recovery, what can be read, all damage known then. Then all of it is let go.
pub(super) fn open(sim: &Sim, at_least: Lsn) -> Result<Opened, Error> {
    let (log, writer, recovery) = Log::open_stepped(Arc::new(sim.clone()), settings(at_least), Limits::default())?;
    let mut reader = log.reader(0);
    let mut entries = BTreeMap::new();
    while let Some(entry) = reader.next().unwrap() {
        assert!(entries.insert(entry.lsn, entry.payload).is_none());
    }
    let damage = log.damage();
    log.let_go(log.durable()).unwrap();
    writer.finish();
    Ok((recovery, entries, damage))
}

/// What was read is unaltered, and what is missing was reported. How much is missing.
pub(super) fn check(entries: &BTreeMap<Lsn, Vec<u8>>, damage: &[Damage]) -> usize {
    for (lsn, payload) in entries {
        assert_eq!(*payload, content(*lsn), "LSN {lsn} is altered");
    }
    let missing: Vec<_> = (1..=LAST).filter(|lsn| !entries.contains_key(lsn)).collect();
    for lsn in &missing {
        assert!(
            damage.iter().any(|damage| (damage.lsns.0..=damage.lsns.1).contains(lsn)),
            "LSN {lsn} is lost silently"
        );
    }
    missing.len()
}
