//! What people do to a log's directory while it runs, on the operating system's files; and a writer that panics.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::super::fs::sim::Sim;
use super::super::{Log, Lsn, NoRoom, RealFileSystem, Settings, State, entries, inspect};
use super::reference;
use super::world::{Action, What, World, payload};

fn open(directory: &Path) -> Log {
    let settings = Settings {
        directory: directory.to_owned(),
        segment_bytes: 64 << 10,
        quota_bytes: 64 << 20,
        context: Vec::new(),
        at_least: 0,
    };
    Log::open(Arc::new(RealFileSystem), settings).unwrap().0
}

fn append(log: &Log, lsn: Lsn) {
    let room = log.reserve(100).unwrap();
    log.submit(lsn, payload(lsn, 1, 100), room, None);
}

/// What the log says is wrong, as soon as it does.
fn failure(log: &Log) -> String {
    loop {
        match log.state() {
            State::Failing { message } => return message,
            State::Closed | State::Broken => panic!("it has ended"),
            State::Healthy | State::Full => thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn newest_segment(directory: &Path) -> PathBuf {
    let segments = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    segments.filter(|path| path.extension().is_some_and(|extension| extension == "segment")).max().unwrap()
}

fn found(directory: &Path) -> Vec<Lsn> {
    let mut reader = entries(Arc::new(RealFileSystem), directory).unwrap();
    std::iter::from_fn(|| reader.next().unwrap()).map(|entry| entry.lsn).collect()
}

/// Takes something away and submits an entry: it is not reported, the log says what is gone, and takes nothing.
fn is_refused(log: &Log, directory: &Path, take_away: impl FnOnce()) {
    append(log, 1);
    assert!(log.wait_durable(1));
    let room = log.reserve(100).unwrap();
    take_away();
    log.submit(2, payload(2, 1, 100), room, None);
    let message = failure(log);
    // An idle log may look first, and then it names the directory.
    assert!(message.starts_with(&directory.display().to_string()), "{message}");
    assert!(message.contains(" is not there any more, or is another one"), "{message}");
    assert!(message.contains("bailiwick journal verify"), "{message}");
    assert_eq!(log.durable(), 1);
    assert_eq!(log.reserve(1).map(drop), Err(NoRoom::Failing { message }));
    assert!(log.is_failing());
}

/// It is put back: the entry is reported now, and found under its name.
fn goes_on(log: &Log, directory: &Path) {
    assert!(log.wait_durable(2));
    while log.state() != State::Healthy {
        thread::sleep(Duration::from_millis(1));
    }
    append(log, 3);
    assert!(log.wait_durable(3));
    log.close();
    assert_eq!(found(directory), [1, 2, 3]);
    assert!(inspect(&RealFileSystem, directory, 0).unwrap().is_sound());
}

#[test]
fn a_directory_that_is_moved_away_and_back() {
    let root = tempfile::tempdir().unwrap();
    let (directory, elsewhere) = (root.path().join("log"), root.path().join("elsewhere"));
    let log = open(&directory);
    is_refused(&log, &directory, || fs::rename(&directory, &elsewhere).unwrap());
    fs::rename(&elsewhere, &directory).unwrap();
    goes_on(&log, &directory);
}

#[test]
fn a_directory_that_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("log");
    let log = open(&directory);
    is_refused(&log, &directory, || fs::remove_dir_all(&directory).unwrap());
    // One that is made anew is not the one that was removed, and nothing is written into it.
    fs::create_dir(&directory).unwrap();
    thread::sleep(Duration::from_millis(300));
    assert_eq!((log.durable(), fs::read_dir(&directory).unwrap().count()), (1, 0));
    log.close();
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
}

#[test]
fn a_directory_above_it_that_is_a_link_to_another_place() {
    let root = tempfile::tempdir().unwrap();
    let (here, there, link) = (root.path().join("here"), root.path().join("there"), root.path().join("link"));
    fs::create_dir(&here).unwrap();
    fs::create_dir_all(there.join("log")).unwrap();
    symlink(&here, &link).unwrap();
    let directory = link.join("log");
    let log = open(&directory);
    let turn = |to: &Path| {
        fs::remove_file(&link).unwrap();
        symlink(to, &link).unwrap();
    };
    is_refused(&log, &directory, || turn(&there));
    turn(&here);
    goes_on(&log, &directory);
    assert_eq!(fs::read_dir(there.join("log")).unwrap().count(), 0);
}

#[test]
fn a_segment_that_is_removed_or_replaced_by_a_copy() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("log");
    let log = open(&directory);
    let (segment, aside) = (newest_segment(&directory), root.path().join("aside"));
    is_refused(&log, &directory, || {
        fs::rename(&segment, &aside).unwrap();
        fs::copy(&aside, &segment).unwrap();
    });
    fs::rename(&aside, &segment).unwrap();
    goes_on(&log, &directory);
}

#[test]
fn what_is_gone_is_noticed_while_nothing_is_written() {
    let root = tempfile::tempdir().unwrap();
    let (directory, elsewhere) = (root.path().join("log"), root.path().join("elsewhere"));
    let log = open(&directory);
    let oldest = newest_segment(&directory);
    while newest_segment(&directory) == oldest {
        append(&log, log.durable() + 1);
        assert!(log.wait_durable(log.durable() + 1));
    }
    for (path, to) in [(&directory, elsewhere), (&oldest, root.path().join("aside"))] {
        fs::rename(path, &to).unwrap();
        let message = failure(&log);
        assert!(message.starts_with(&format!("{} is not there any more", path.display())), "{message}");
        fs::rename(&to, path).unwrap();
        while log.state() != State::Healthy {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn a_segment_that_somebody_took_is_not_let_go_and_can_be_put_back() {
    let mut world = World::new();
    let actions = [
        Action::ReserveControl(1),
        Action::Reopen,
        Action::PowerLoss(0),
        Action::TakeAway(What::Older(1)),
        Action::LetGo(4),
        Action::PowerLoss(0),
    ];
    actions.iter().for_each(|action| world.act(action));
    world.settle();
}

#[test]
fn a_writer_that_panics_is_said_to_have_and_nobody_waits_for_it() {
    let sim = Sim::default();
    let (log, _) = Log::open(Arc::new(sim.clone()), reference::settings(0)).unwrap();
    let (answer, answered) = mpsc::channel::<()>();
    let waiting = answer.clone();
    log.when_durable(2, Box::new(move || waiting.send(()).unwrap()));
    let room = log.reserve(10).unwrap();
    let spare_room = log.reserve(10).unwrap();
    sim.panic_next();
    let submitted = answer.clone();
    log.submit(1, vec![1], room, Some(Box::new(move || submitted.send(()).unwrap())));
    // It returns although nothing came, and `then` is dropped, never run.
    assert!(!log.wait_durable(1));
    assert_eq!((log.state(), log.durable(), log.is_broken(), log.is_failing()), (State::Broken, 0, true, true));
    assert!(matches!(log.reserve(1).map(drop), Err(NoRoom::Failing { .. })));
    assert!(matches!(log.reserve_control(1).map(drop), Err(NoRoom::Failing { .. })));
    let late = answer.clone();
    log.submit(2, vec![1], spare_room, Some(Box::new(move || late.send(()).unwrap())));
    log.when_durable(1, Box::new(move || answer.send(()).unwrap()));
    assert!(answered.recv().is_err(), "reported durable after the writer was gone");
    log.close();
    assert_eq!(log.state(), State::Broken);
}
