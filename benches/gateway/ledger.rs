//! What the ledger costs: intents of releases in groups, on disk before anybody is told, beside a bare write and sync of as
//! many bytes; and verifying what was written, as each start does.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bailiwick::domain::policy::Released;
use bailiwick::durable::outbox::Closing;
use bailiwick::ledger::audit::audit;
use bailiwick::ledger::note::Verifier;
use bailiwick::ledger::{Clocks, Files, Intent, Ledger, Outbox, Settings, VERIFIER};
use bailiwick::storage::{FileSystem, RealFileSystem};
use tempfile::TempDir;

use super::{at, figure};

/// Intents of a group, and how many groups are measured.
const GROUPS: [(usize, usize); 4] = [(1, 400), (10, 400), (100, 100), (1_000, 20)];
/// An entry of the outbox with two releases of two cells each.
const OUTBOX_ENTRY: &[u8] = include_bytes!("../../tests/golden/outbox-entry-1.bin");
/// The id of the first of them.
const ID: &[u8] = b"id-of-desk";
/// The bytes of an intent in the ledger, with its share of a group, about.
const INTENT_BYTES: usize = 460;

pub(super) fn run() {
    let directory = TempDir::new().unwrap();
    let ledger = opened(directory.path());
    let (mut number, mut entries) = (0, 0);
    for (size, groups) in GROUPS {
        let bare = bare(directory.path(), size * INTENT_BYTES, groups);
        let mut times = Vec::new();
        for _ in 0..groups {
            let releases: Vec<Released> = (0..size).map(|place| released(number + place)).collect();
            number += size;
            let lines = br#"{"country":"DE","n":12}"#;
            let intents: Vec<_> = releases.iter().map(|released| Intent { released, outbox: 1, lines }).collect();
            let start = Instant::now();
            ledger.intend(&intents).unwrap();
            times.push(start.elapsed());
        }
        entries += size * groups;
        let took = at(&times, 0.5);
        figure(&format!("ledger: group of {size} intents, durable"), took, "us", Some(took / at(&bare, 0.5)));
        figure(&format!("ledger: intents in groups of {size}"), size as f64 / took * 1e6, "1/s", None);
    }
    let start = Instant::now();
    ledger.publish().unwrap();
    figure("ledger: into tiles, per entry", start.elapsed().as_secs_f64() * 1e9 / entries as f64, "ns", None);
    ledger.close();
    verify(directory.path(), entries);
}

fn opened(directory: &Path) -> Ledger {
    let settings = Settings {
        directory: directory.join("ledger"),
        key: directory.join("key"),
        origin: "bench".to_owned(),
        seen: directory.join("seen"),
    };
    let start = Instant::now();
    let clocks = Clocks { wall: Box::new(|| 0), now: Box::new(move || start.elapsed()) };
    let outbox = Outbox { last: 0, confirmed: Box::new(|_, _, _| false) };
    let ledger = Ledger::new(settings, Arc::new(RealFileSystem), clocks, outbox);
    ledger.open().unwrap();
    ledger
}

/// A release with an id of its own.
fn released(number: usize) -> Released {
    let mut entry = OUTBOX_ENTRY.to_vec();
    let place = entry.windows(ID.len()).position(|bytes| bytes == ID).unwrap();
    entry[place..place + ID.len()].copy_from_slice(format!("{number:010}").as_bytes());
    Closing::decode(&entry).unwrap().releases.remove(0)
}

/// The times of so many bare writes and syncs.
fn bare(directory: &Path, bytes: usize, times: usize) -> Vec<Duration> {
    let path = directory.join(format!("bare-{bytes}"));
    let file = RealFileSystem.create(&path).unwrap();
    file.allocate((bytes * times) as u64).unwrap();
    let written = vec![7; bytes];
    let time = |turn: usize| {
        let start = Instant::now();
        file.write_at(&[IoSlice::new(&written)], (turn * bytes) as u64).unwrap();
        file.sync_data().unwrap();
        start.elapsed()
    };
    let times = (0..times).map(time).collect();
    RealFileSystem.remove(&path).unwrap();
    times
}

fn verify(directory: &Path, entries: usize) {
    let directory = directory.join("ledger");
    let key = Verifier::parse(&std::fs::read_to_string(directory.join(VERIFIER)).unwrap()).unwrap();
    let start = Instant::now();
    let found = audit(&Files::new(Arc::new(RealFileSystem), &directory), &key, &[], &mut |_, _, _| {}).unwrap();
    assert_eq!((found.bad.len(), found.entries), (0, entries as u64));
    figure("ledger: verified, entries", entries as f64 / start.elapsed().as_secs_f64(), "1/s", None);
}
