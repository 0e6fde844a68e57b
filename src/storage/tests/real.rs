//! On the operating system's file system, with the writer's own thread.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use super::super::{
    Error, Log, Lsn, NoRoom, RealFileSystem, Recovery, Room, Settings, Slots, State, Stored, Timed, inspect, repair,
};
use super::world::payload;

fn settings(directory: &Path) -> Settings {
    Settings {
        directory: directory.join("not/yet/there"),
        segment_bytes: 64 << 10,
        quota_bytes: 64 << 20,
        context: b"the schema".to_vec(),
        at_least: 0,
    }
}

fn open(settings: &Settings) -> Result<(Log, Recovery), Error> {
    Log::open(Arc::new(RealFileSystem), settings.clone())
}

fn content(lsn: Lsn) -> Vec<u8> {
    payload(lsn, 3, 1 + lsn as usize * 37 % 9000)
}

/// Waits for room, as a producer would.
fn room(log: &Log, bytes: u64) -> Room {
    loop {
        match log.reserve(bytes) {
            Ok(room) => return room,
            Err(NoRoom::Behind) => drop(log.wait_beyond(log.durable(), Duration::from_millis(5))),
            Err(refusal) => panic!("{refusal}"),
        }
    }
}

fn append(log: &Log, lsn: Lsn) {
    log.submit(lsn, content(lsn), room(log, content(lsn).len() as u64), None);
}

fn segments(settings: &Settings) -> Vec<PathBuf> {
    let entries = fs::read_dir(&settings.directory).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "segment")).collect();
    paths.sort();
    paths
}

#[test]
fn what_was_written_is_there_after_a_close_and_after_none() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let mut last = 0;
    for round in 0..4 {
        let (log, recovery) = open(&settings).unwrap();
        assert_eq!((recovery.last, recovery.entries, recovery.damage.len()), (last, last, 0));
        for lsn in last + 1..=last + 100 {
            append(&log, lsn);
        }
        last += 100;
        assert!(log.wait_durable(last));
        if round % 2 == 0 {
            log.close();
            assert_eq!(log.state(), State::Closed);
            assert_eq!(log.reserve(1).map(drop), Err(NoRoom::Closed));
            assert!(!log.wait_durable(last + 1));
        }
    }
    let (log, _) = open(&settings).unwrap();
    let mut reader = log.reader(0);
    for lsn in 1..=last {
        let entry = reader.next().unwrap().unwrap();
        assert_eq!((entry.lsn, entry.payload, &*entry.context), (lsn, content(lsn), b"the schema".as_slice()));
    }
    assert_eq!(reader.next().unwrap(), None);
}

#[test]
fn threads_submit_in_any_order_while_a_reader_follows() {
    const LAST: Lsn = 4000;
    let directory = tempfile::tempdir().unwrap();
    // All threads' rooms fit at once, so that none holds some and waits for others.
    let settings = Settings { segment_bytes: 256 << 10, ..settings(directory.path()) };
    let (log, _) = open(&settings).unwrap();
    let log = Arc::new(log);
    let (next, seen) = (AtomicU64::new(1), Arc::new(Mutex::new(Vec::new())));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    // Room first, then numbers; these are taken together and submitted backwards.
                    let rooms: Vec<_> = (0..4).map(|_| room(&log, 9000)).collect();
                    let first = next.fetch_add(4, Ordering::Relaxed);
                    if first > LAST {
                        break;
                    }
                    for (back, room) in rooms.into_iter().enumerate() {
                        let lsn = first + 3 - back as u64;
                        let (seen, weak) = (Arc::clone(&seen), Arc::downgrade(&log));
                        let then = move || {
                            assert!(weak.upgrade().is_none_or(|log| log.durable() >= lsn));
                            seen.lock().unwrap().push(lsn);
                        };
                        log.submit(lsn, content(lsn), room, Some(Box::new(then)));
                    }
                }
            });
        }
        let mut reader = log.reader(0);
        for lsn in 1..=LAST {
            let entry = loop {
                match reader.next().unwrap() {
                    Some(entry) => break entry,
                    None => drop(log.wait_beyond(lsn - 1, Duration::from_secs(10))),
                }
            };
            assert_eq!((entry.lsn, entry.payload), (lsn, content(lsn)));
            if lsn % 500 == 0 {
                log.let_go(lsn - 400).unwrap();
            }
        }
    });
    log.close();
    assert_eq!(*seen.lock().unwrap(), (1..=LAST).collect::<Vec<_>>());
    assert!(log.usage().oldest > 3000 && log.damage().is_empty());
}

#[test]
fn a_second_process_is_refused_until_the_first_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let (log, _) = open(&settings).unwrap();
    let Err(error) = open(&settings).map(drop) else { panic!("opened twice") };
    assert!(matches!(error, Error::Locked { .. }));
    assert!(error.to_string().ends_with("not/yet/there is in use by another process"));
    assert!(matches!(repair(&RealFileSystem, &settings.directory), Err(Error::Locked { .. })));
    assert!(inspect(&RealFileSystem, &settings.directory, 0).unwrap().is_sound());
    log.close();
    open(&settings).unwrap();
}

#[test]
fn what_is_let_go_is_deleted_and_the_rest_stays() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let (log, _) = open(&settings).unwrap();
    for lsn in 1..=200 {
        append(&log, lsn);
    }
    assert!(log.wait_durable(200));
    let before = segments(&settings).len();
    assert!(before > 5);
    let mut behind = log.reader(0);
    assert_eq!(behind.next().unwrap().unwrap().lsn, 1);
    log.let_go(100).unwrap();
    let usage = log.usage();
    assert!(segments(&settings).len() < before && usage.oldest <= 101 && usage.oldest > 80);
    assert_eq!(log.reader(0).next().unwrap().unwrap().lsn, usage.oldest);
    // It may finish the file it has open, and then goes on where there is something.
    let mut last = 1;
    while let Some(entry) = behind.next().unwrap() {
        assert!(entry.lsn > last);
        last = entry.lsn;
    }
    assert_eq!((last, log.damage().len()), (200, 0));
    log.let_go(Lsn::MAX).unwrap();
    assert_eq!(segments(&settings).len(), 1);
    drop(log);
    assert_eq!(open(&settings).unwrap().1.last, 200);
}

#[test]
fn a_full_quota_refuses_and_letting_go_is_noticed_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { quota_bytes: 4 * (64 << 10), ..settings(directory.path()) };
    let (log, _) = open(&settings).unwrap();
    let (mut lsn, mut is_written) = (0, true);
    let refusal = loop {
        match log.reserve(5000) {
            Ok(room) => {
                lsn += 1;
                log.submit(lsn, vec![7; 5000], room, None);
                is_written = false;
            }
            Err(NoRoom::Behind) => drop(log.wait_beyond(log.durable(), Duration::from_millis(5))),
            // What is written may take less than the room that it was given: asked again when all of it is.
            Err(_) if !is_written => {
                assert!(log.wait_durable(lsn));
                is_written = true;
            }
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((refusal, log.state()), (NoRoom::Full, State::Full));
    assert!(log.wait_durable(lsn));
    let on_disk: u64 =
        fs::read_dir(&settings.directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512).sum();
    assert!(on_disk <= settings.quota_bytes, "{on_disk}");
    log.let_go(lsn).unwrap();
    while log.state() == State::Full {
        thread::yield_now();
    }
    drop(log.reserve(5000).unwrap());
}

#[test]
fn a_sealed_segment_takes_no_more_space_than_it_needs() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { segment_bytes: 1 << 20, ..settings(directory.path()) };
    for _ in 0..3 {
        let (log, recovery) = open(&settings).unwrap();
        append(&log, recovery.last + 1);
        assert!(log.wait_durable(recovery.last + 1));
    }
    for path in segments(&settings) {
        assert!(fs::metadata(path).unwrap().blocks() * 512 < 64 << 10);
    }
}

#[test]
fn what_is_in_the_way_is_named_and_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(directory.path());
    let outside = directory.path().join("outside");
    fs::write(&outside, b"not yours").unwrap();

    settings.directory = outside.clone();
    assert!(matches!(open(&settings).map(drop), Err(Error::InTheWay { .. })));
    settings.directory = outside.join("below");
    assert!(open(&settings).is_err());

    settings.directory = directory.path().join("linked segment");
    fs::create_dir(&settings.directory).unwrap();
    let name = "00000000000000000001-0000000100000001.segment";
    symlink(&outside, settings.directory.join(name)).unwrap();
    let Err(error) = open(&settings).map(drop) else { panic!("a symbolic link was opened") };
    assert!(error.to_string().ends_with("segment is not a regular file"), "{error}");

    settings.directory = directory.path().join("linked lock");
    fs::create_dir(&settings.directory).unwrap();
    symlink(&outside, settings.directory.join("lock")).unwrap();
    assert!(open(&settings).is_err());

    let cursor = directory.path().join("cursor");
    symlink(&outside, &cursor).unwrap();
    assert!(Slots::open(Arc::new(RealFileSystem), &cursor).is_err());
    assert_eq!(fs::read(&outside).unwrap(), b"not yours");
}

#[test]
fn the_writer_survives_a_callback_that_panics_and_one_that_drops_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let (log, _) = open(&settings).unwrap();
    log.submit(1, content(1), log.reserve(9000).unwrap(), Some(Box::new(|| panic!("a bug of the caller's"))));
    assert!(log.wait_durable(1));
    let (tx, rx) = mpsc::channel();
    let log = Arc::new(log);
    let held = Arc::clone(&log);
    log.when_durable(
        2,
        Box::new(move || {
            drop(held);
            tx.send(()).unwrap();
        }),
    );
    append(&log, 2);
    drop(log);
    rx.recv_timeout(Duration::from_secs(120)).unwrap();
}

#[test]
fn a_value_in_slots_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cursor");
    for number in 0..5_u8 {
        let (mut slots, stored) = Slots::open(Arc::new(RealFileSystem), &path).unwrap();
        assert_eq!(stored, if number == 0 { Stored::Missing } else { Stored::Value(vec![number - 1; 100]) });
        slots.write(&[77; 3]).unwrap();
        slots.write(&[number; 100]).unwrap();
    }
}

#[test]
fn somebody_hears_how_long_each_sync_takes() {
    let root = tempfile::tempdir().unwrap();
    let (log, _) = open(&settings(root.path())).unwrap();
    let (clock, (took, heard)) = (AtomicU64::new(0), mpsc::channel());
    let now = move || Duration::from_secs(clock.fetch_add(3, Ordering::Relaxed));
    let took = Mutex::new(took);
    log.time_syncs(Timed { now: Box::new(now), took: Box::new(move |time| took.lock().unwrap().send(time).unwrap()) });
    for lsn in 1..=3 {
        append(&log, lsn);
        assert!(log.wait_durable(lsn));
    }
    log.close();
    let heard: Vec<Duration> = heard.try_iter().collect();
    // The first entry may come with the beginning of its segment, which is synced as a whole.
    assert!((2..=3).contains(&heard.len()) && heard.iter().all(|took| took.as_secs() == 3), "{heard:?}");
}
