//! Segments that were let go are freed in steps; nobody takes what is missing in them for damage.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::fs::sim::Sim;
use super::super::fs::{Access, Directory, File, FileSystem, Kind, Lock};
use super::super::shared::Limits;
use super::super::writer::Writer;
use super::super::{Log, RealFileSystem, entries, inspect};
use super::reference::settings;
use super::world::payload;

const ENTRIES: u64 = 40;

/// A simulated file system on which something happens when a segment was just opened for reading.
#[derive(Default)]
struct Meddling {
    sim: Sim,
    then: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl FileSystem for Meddling {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.sim.create(path)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let opened = self.sim.open(path, access);
        let is_segment = path.extension().is_some_and(|extension| extension == "segment");
        let then = if is_segment && access == Access::Read { self.then.lock().unwrap().take() } else { None };
        if let Some(then) = then {
            then();
        }
        opened
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.sim.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.sim.remove(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.sim.remove_dir(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.sim.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.sim.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(String, Kind)>> {
        self.sim.list(path)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<Kind>> {
        self.sim.kind(path)
    }

    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn Directory>> {
        self.sim.open_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.sim.lock(path)
    }

    fn random(&self) -> u32 {
        self.sim.random()
    }
}

/// A log of some segments, which the test drives. Segments that were let go are freed when the test says so.
fn log(fs: Arc<dyn FileSystem>) -> (Log, Writer) {
    let limits = Limits { commit_bytes: 1_500, frame_bytes: 300, freed_bytes: 512 };
    let (log, mut writer, _) = Log::open_stepped(fs, settings(0), limits).unwrap();
    for lsn in 1..=ENTRIES {
        let payload = payload(lsn, 0, 200);
        let room = loop {
            match log.reserve(payload.len() as u64) {
                Ok(room) => break room,
                Err(_) => drop(writer.step()),
            }
        };
        log.submit(lsn, payload, room, None);
    }
    while log.durable() < ENTRIES {
        writer.step();
    }
    assert!(log.usage().segments > 4);
    log.shared.freeing.has_thread();
    (log, writer)
}

/// When a segment is opened next, all but the last are let go, and so many bytes of them freed.
fn let_go_when_opened(fs: &Meddling, log: &Arc<Log>, freed: u64) {
    let log = Arc::clone(log);
    *fs.then.lock().unwrap() = Some(Box::new(move || {
        log.let_go(ENTRIES).unwrap();
        let all = log.shared.freeing.bytes();
        while log.shared.freeing.bytes() > 0 && all - log.shared.freeing.bytes() < freed {
            log.shared.freeing.step();
        }
    }));
}

/// How many bytes are freed when it is looked: none, some of the oldest segment, it, all.
const FREED: [u64; 4] = [0, 512, 1_024, 1 << 20];

#[test]
fn a_reader_that_has_just_opened_a_segment_that_is_let_go_finds_no_damage() {
    for freed in FREED {
        let fs = Arc::new(Meddling::default());
        let (log, _writer) = log(Arc::clone(&fs) as _);
        let log = Arc::new(log);
        let mut reader = log.reader(1);
        let_go_when_opened(&fs, &log, freed);
        let (mut read, mut last) = (0, 0);
        while let Some(entry) = reader.next().unwrap() {
            assert!(entry.lsn > last && entry.payload == payload(entry.lsn, 0, 200));
            (read, last) = (read + 1, entry.lsn);
        }
        assert_eq!(last, ENTRIES);
        assert!(read < ENTRIES && log.damage().is_empty(), "{freed} {:?}", log.damage());
    }
}

#[test]
fn another_process_that_has_just_opened_a_segment_that_is_let_go_finds_no_damage() {
    let directory = settings(0).directory;
    for freed in FREED {
        let fs = Arc::new(Meddling::default());
        let (log, _writer) = log(Arc::clone(&fs) as _);
        let log = Arc::new(log);
        let mut reader = entries(Arc::clone(&fs) as _, &directory).unwrap();
        let_go_when_opened(&fs, &log, freed);
        // It says that the next segment is not there.
        while let Ok(Some(entry)) = reader.next() {
            assert!(entry.payload == payload(entry.lsn, 0, 200));
        }
        assert!(reader.damage().is_empty(), "{freed} {:?}", reader.damage());
    }
    for freed in FREED {
        let fs = Arc::new(Meddling::default());
        let (log, _writer) = log(Arc::clone(&fs) as _);
        let log = Arc::new(log);
        let_go_when_opened(&fs, &log, freed);
        let report = inspect(&*fs, &directory, 0).unwrap();
        assert!(report.is_sound(), "{freed} {:?}", report.damage);
        assert_eq!(report.last, ENTRIES);
    }
}

#[test]
fn a_segment_loses_its_name_first_and_then_its_bytes_step_by_step() {
    let sim = Sim::default();
    let (log, _writer) = log(Arc::new(sim.clone()));
    let before = (log.usage(), sim.files(&settings(0).directory).len());
    log.let_go(ENTRIES).unwrap();
    // Until their bytes are free they count.
    let after = log.usage();
    assert!(after.segments < before.0.segments && sim.files(&settings(0).directory).len() < before.1);
    let (mut bytes, mut steps) = (after.bytes, 0);
    while log.shared.freeing.bytes() > 0 {
        log.shared.freeing.step();
        assert!(log.usage().bytes < bytes && bytes - log.usage().bytes <= 512);
        (bytes, steps) = (log.usage().bytes, steps + 1);
    }
    assert!(steps >= 2 * (before.0.segments - after.segments), "{steps}");
}

#[test]
fn a_file_that_has_a_name_is_not_shortened() {
    let sim = Sim::default();
    let path = Path::new("/segment");
    sim.put(path, &[1; 2_000]);
    let file = sim.open(path, Access::Write).unwrap();
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| file.shorten(0))).is_err());
}

#[test]
fn the_thread_frees_what_was_let_go_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let settings = super::super::Settings { directory: directory.path().join("log"), ..settings(0) };
    let (log, _) = Log::open(Arc::new(RealFileSystem), settings).unwrap();
    for lsn in 1..=ENTRIES {
        let room = loop {
            match log.reserve(200) {
                Ok(room) => break room,
                Err(_) => drop(log.wait_beyond(log.durable(), Duration::from_millis(10))),
            }
        };
        log.submit(lsn, payload(lsn, 0, 200), room, None);
    }
    assert!(log.wait_durable(ENTRIES));
    log.let_go(ENTRIES).unwrap();
    let pauses = (0..100_000).take_while(|_| {
        std::thread::sleep(Duration::from_millis(1));
        log.shared.freeing.bytes() > 0
    });
    assert!(pauses.count() < 100_000, "{} bytes are not free", log.shared.freeing.bytes());
    log.close();
    // Nobody frees it in steps any more.
    let file = RealFileSystem.create(&directory.path().join("later")).unwrap();
    log.shared.freeing.add(file, 10);
    assert_eq!(log.shared.freeing.bytes(), 0);
}
