//! What a sync takes while segments of the journal are deleted: at once, and as the journal does it, in steps.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bailiwick::storage::{File, FileSystem, Log, RealFileSystem, SEGMENT_BYTES, Settings};
use tempfile::TempDir;

use super::{at, figure};

/// Segments that are deleted one after the other, in a turn.
const SEGMENTS: u64 = 4;
const TURNS: usize = 4;
/// Bytes of a commit.
const COMMIT: usize = 256 << 10;
/// How long no segment is deleted, before each.
const REST: Duration = Duration::from_millis(150);

/// How segments are deleted.
#[derive(Clone, Copy)]
enum How {
    Not,
    AtOnce,
    InSteps,
}

const ALL: [(&str, How); 3] =
    [("without deletions", How::Not), ("files removed at once", How::AtOnce), ("segments released", How::InSteps)];

/// Prints the figures. The ratio is that to the same without deletions.
pub(super) fn run() {
    let mut latencies: [Vec<Duration>; 3] = Default::default();
    for _ in 0..TURNS {
        for ((_, how), latencies) in ALL.iter().zip(&mut latencies) {
            latencies.extend(turn(*how));
        }
    }
    for (percentile, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        let without = at(&latencies[0], share);
        for ((name, _), latencies) in ALL.iter().zip(&latencies) {
            let took = at(latencies, share);
            figure(&format!("fdatasync of 256 KiB, {name}: {percentile}"), took, "us", Some(took / without));
        }
    }
}

/// The times of all syncs while the segments are deleted, until their space is free.
fn turn(how: How) -> Vec<Duration> {
    let directory = TempDir::new().unwrap();
    let log = matches!(how, How::InSteps).then(|| filled(directory.path()));
    if matches!(how, How::AtOnce) {
        files(directory.path());
    }
    let file = RealFileSystem.create(&directory.path().join("synced")).unwrap();
    file.allocate(2 << 30).unwrap();
    let (is_over, is_counted) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let syncs = scope.spawn(|| syncs(&*file, &is_over, &is_counted));
        for segment in 1..=SEGMENTS {
            thread::sleep(REST);
            is_counted.store(true, Ordering::Relaxed);
            match (how, &log) {
                (How::AtOnce, _) => RealFileSystem.remove(&directory.path().join(format!("old-{segment}"))).unwrap(),
                (How::InSteps, Some(log)) => {
                    let before = log.usage();
                    let through = (log.usage().oldest..).find(|through| {
                        log.let_go(*through).unwrap();
                        log.usage().segments < before.segments
                    });
                    assert!(through.is_some());
                    while log.usage().bytes + SEGMENT_BYTES / 2 > before.bytes {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
                _ => {}
            }
            // What a deletion leaves to the file system is done soon after it.
            thread::sleep(Duration::from_millis(50));
            is_counted.store(false, Ordering::Relaxed);
        }
        is_over.store(true, Ordering::Relaxed);
        syncs.join().unwrap()
    })
}

fn syncs(file: &dyn File, is_over: &AtomicBool, is_counted: &AtomicBool) -> Vec<Duration> {
    let commit = vec![7; COMMIT];
    let (mut offset, mut times) = (0, Vec::new());
    while !is_over.load(Ordering::Relaxed) {
        let start = Instant::now();
        assert_eq!(file.write_at(&[IoSlice::new(&commit)], offset).unwrap(), COMMIT);
        file.sync_data().unwrap();
        if is_counted.load(Ordering::Relaxed) {
            times.push(start.elapsed());
        }
        offset = (offset + COMMIT as u64) % (2 << 30);
    }
    times
}

/// A log of some full segments.
fn filled(directory: &Path) -> Log {
    let settings = Settings {
        directory: directory.join("log"),
        segment_bytes: SEGMENT_BYTES,
        quota_bytes: 64 << 30,
        context: Vec::new(),
        at_least: 0,
    };
    let (log, _) = Log::open(Arc::new(RealFileSystem), settings).unwrap();
    let entry = vec![7; 4 << 20];
    let mut lsn = 0;
    while log.usage().segments as u64 <= SEGMENTS {
        match log.reserve(entry.len() as u64) {
            Ok(room) => {
                lsn += 1;
                log.submit(lsn, entry.clone(), room, None);
            }
            Err(_) => drop(log.wait_beyond(log.durable(), Duration::from_millis(10))),
        }
    }
    assert!(log.wait_durable(lsn));
    log
}

/// As many files of the same bytes.
fn files(directory: &Path) {
    let part_of = vec![7; 4 << 20];
    for segment in 1..=SEGMENTS {
        let file = RealFileSystem.create(&directory.join(format!("old-{segment}"))).unwrap();
        for part in 0..SEGMENT_BYTES / part_of.len() as u64 {
            assert_eq!(file.write_at(&[IoSlice::new(&part_of)], part * part_of.len() as u64).unwrap(), part_of.len());
        }
        file.sync_data().unwrap();
    }
}
