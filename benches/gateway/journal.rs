//! The journal's group commit beside a bare loop that writes and syncs the same bytes in commits of the same sizes.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bailiwick::storage::{
    Access, Directory, File, FileSystem, Kind, Lock, Log, RealFileSystem, SEGMENT_BYTES, Settings,
};
use tempfile::TempDir;

use super::process::{file_system, forget_pages};
use super::{at, figure, median};

const THREADS: u64 = 2;
/// Entries of each thread that are not durable yet, at saturation: together what one producer of the end-to-end
/// benchmark has.
const IN_FLIGHT: usize = 8;
/// Entries of one run at saturation: about 100 MiB.
const ENTRIES: u64 = 1_500;
const ROUNDS: usize = 10;
/// Entries one at a time.
const SINGLE: u64 = 1_000;
/// One at a time, log and bare loop take turns of so many.
const TURN: u64 = 100;

/// The operating system's files, and what was synced.
struct Counting {
    commits: Arc<Mutex<Vec<u64>>>,
}

struct Counted {
    file: Arc<dyn File>,
    unsynced: AtomicU64,
    commits: Arc<Mutex<Vec<u64>>>,
}

impl Counting {
    fn count(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(Counted { file, unsynced: AtomicU64::new(0), commits: Arc::clone(&self.commits) })
    }
}

impl Counted {
    fn synced(&self) {
        match self.unsynced.swap(0, Ordering::Relaxed) {
            0 => {}
            bytes => self.commits.lock().unwrap().push(bytes),
        }
    }
}

impl FileSystem for Counting {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        RealFileSystem.create(path).map(|file| self.count(file))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        RealFileSystem.open(path, access).map(|file| self.count(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFileSystem.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealFileSystem.remove(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        RealFileSystem.remove_dir(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealFileSystem.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealFileSystem.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(String, Kind)>> {
        RealFileSystem.list(path)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<Kind>> {
        RealFileSystem.kind(path)
    }

    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn Directory>> {
        RealFileSystem.open_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        RealFileSystem.lock(path)
    }

    fn random(&self) -> u32 {
        RealFileSystem.random()
    }
}

impl File for Counted {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let written = self.file.write_at(slices, offset)?;
        self.unsynced.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()?;
        self.synced();
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()?;
        self.synced();
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.file.allocate(bytes)
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        self.file.is_at(path)
    }

    fn has_name(&self) -> io::Result<bool> {
        self.file.has_name()
    }

    fn shorten(&self, bytes: u64) -> io::Result<()> {
        self.file.shorten(bytes)
    }

    fn trim(&self) -> io::Result<()> {
        self.file.trim()
    }
}

fn open(directory: PathBuf) -> (Log, Arc<Mutex<Vec<u64>>>) {
    let commits = Arc::new(Mutex::new(Vec::new()));
    let settings =
        Settings { directory, segment_bytes: SEGMENT_BYTES, quota_bytes: 64 << 30, context: Vec::new(), at_least: 0 };
    let (log, _) = Log::open(Arc::new(Counting { commits: Arc::clone(&commits) }), settings).unwrap();
    commits.lock().unwrap().clear();
    (log, commits)
}

struct Saturated {
    took: Duration,
    latencies: Vec<Duration>,
    commits: Vec<u64>,
}

/// Some threads submit as fast as the log takes it.
fn saturate(directory: &Path, entry: &[u8]) -> Saturated {
    let (log, commits) = open(directory.join("saturated"));
    let next = AtomicU64::new(1);
    let submit = || {
        let (durable, acks) = mpsc::channel();
        let (mut in_flight, mut latencies) = (0, Vec::new());
        loop {
            while in_flight == IN_FLIGHT {
                latencies.push(acks.recv().unwrap());
                in_flight -= 1;
            }
            let room = loop {
                match log.reserve(entry.len() as u64) {
                    Ok(room) => break room,
                    Err(_) => drop(log.wait_beyond(log.durable(), Duration::from_millis(100))),
                }
            };
            let start = Instant::now();
            let lsn = next.fetch_add(1, Ordering::Relaxed);
            if lsn > ENTRIES {
                drop(room);
                drop(durable);
                latencies.extend(acks);
                return latencies;
            }
            let durable = durable.clone();
            let then = Box::new(move || durable.send(start.elapsed()).unwrap());
            log.submit(lsn, entry.to_vec(), room, Some(then));
            in_flight += 1;
        }
    };
    let start = Instant::now();
    let latencies = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(submit)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let took = start.elapsed();
    drop(log);
    forget_pages(&directory.join("saturated"));
    let commits = std::mem::take(&mut *commits.lock().unwrap());
    Saturated { took, latencies, commits }
}

/// A file whose space is claimed, as the log's are.
fn claimed(directory: &Path, bytes: u64) -> Arc<dyn File> {
    let file = RealFileSystem.create(&directory.join("bare")).unwrap();
    file.allocate(bytes).unwrap();
    file
}

/// Writes and syncs commits of these sizes.
fn bare(directory: &Path, entry: &[u8], commits: &[u64]) -> Duration {
    let file = claimed(directory, commits.iter().sum());
    let mut offset = 0;
    let start = Instant::now();
    for commit in commits {
        let end = offset + commit;
        while offset < end {
            let mut rest = usize::try_from(end - offset).unwrap();
            let slices = std::iter::from_fn(|| {
                let now = rest.min(entry.len());
                rest -= now;
                (now > 0).then(|| IoSlice::new(&entry[..now]))
            });
            let slices: Vec<_> = slices.take(1_024).collect();
            offset += file.write_at(&slices, offset).unwrap() as u64;
        }
        file.sync_data().unwrap();
    }
    let took = start.elapsed();
    forget_pages(directory);
    took
}

/// One entry at a time: the log's latencies, and those of the bare loop.
fn single(directory: &Path, entry: &[u8]) -> (Vec<Duration>, Vec<Duration>) {
    let (log, _) = open(directory.join("single"));
    let file = claimed(directory, SINGLE * entry.len() as u64);
    let (durable, acks) = mpsc::channel();
    let (mut of_log, mut of_bare) = (Vec::new(), Vec::new());
    for turn in 0..SINGLE / TURN {
        for index in turn * TURN..(turn + 1) * TURN {
            let start = Instant::now();
            assert_eq!(file.write_at(&[IoSlice::new(entry)], index * entry.len() as u64).unwrap(), entry.len());
            file.sync_data().unwrap();
            of_bare.push(start.elapsed());
        }
        for index in turn * TURN..(turn + 1) * TURN {
            let (payload, durable) = (entry.to_vec(), durable.clone());
            let start = Instant::now();
            let room = log.reserve(payload.len() as u64).unwrap();
            log.submit(index + 1, payload, room, Some(Box::new(move || durable.send(()).unwrap())));
            acks.recv().unwrap();
            of_log.push(start.elapsed());
        }
    }
    (of_log, of_bare)
}

const PERCENTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// Runs the log with an entry that the gateway writes for a batch.
pub(super) fn run(entry: &[u8]) {
    let directory = std::env::temp_dir();
    println!("# journal: on {} ({}; TMPDIR chooses)", file_system(&directory), directory.display());
    // Files are removed when all is done: what a file system does about that would be in the next run's figures.
    let directories: Vec<_> = (0..=ROUNDS).map(|_| TempDir::new().unwrap()).collect();
    let mut commits = saturate(directories[0].path(), entry).commits;
    let mut runs = Vec::new();
    for (directory, is_log_first) in directories.iter().skip(1).zip([true, false].into_iter().cycle()) {
        let directory = directory.path();
        let bare_before = (!is_log_first).then(|| bare(directory, entry, &commits));
        let log = saturate(directory, entry);
        let bare = bare_before.unwrap_or_else(|| bare(directory, entry, &log.commits));
        commits.clone_from(&log.commits);
        runs.push((log, bare));
    }
    let per_entry = |took: Duration| took.as_secs_f64() * 1e6 / ENTRIES as f64;
    let cost = median(runs.iter().map(|(log, bare)| log.took.as_secs_f64() / bare.as_secs_f64()));
    let took = median(runs.iter().map(|(log, _)| per_entry(log.took)));
    figure("journal, at saturation: time per entry", took, "us", Some(cost));
    let took = median(runs.iter().map(|(_, bare)| per_entry(*bare)));
    figure("journal, at saturation: bare write and fdatasync", took, "us", None);
    figure("journal: bytes of an entry", entry.len() as f64 / 1024.0, "KiB", None);
    let commits = runs.iter().flat_map(|(log, _)| &log.commits).map(|bytes| *bytes as f64 / 1024.0);
    figure("journal, at saturation: bytes of a commit", median(commits), "KiB", None);
    let (of_log, of_bare) = single(directories[0].path(), entry);
    for (percentile, share) in PERCENTILES {
        let (log, bare) = (at(&of_log, share), at(&of_bare, share));
        figure(&format!("journal, one at a time: ack latency {percentile}"), log, "us", Some(log / bare));
        figure(&format!("journal, one at a time: bare write and fdatasync {percentile}"), bare, "us", None);
    }
    let latencies: Vec<Duration> = runs.into_iter().flat_map(|(log, _)| log.latencies).collect();
    for (percentile, share) in PERCENTILES {
        let log = at(&latencies, share);
        let ratio = Some(log / at(&of_bare, share));
        figure(&format!("journal, at saturation: ack latency {percentile}"), log, "us", ratio);
    }
}
