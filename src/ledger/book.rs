//! The ledger as the gateway writes it: entries become durable in groups, in a log, and go from there into tiles.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::entry::{BYTES_MAX, Entry, Known, RELEASES_MAX, What};
use super::files::Files;
use super::group::Group;
use super::note::Signer;
use super::opening::{self, Opened, Settings, Unsettled};
use super::publisher::Publisher;
use super::tree::{Frontier, leaf};
use crate::domain::policy::{Digest, Released};
use crate::domain::time::rfc3339;
use crate::storage::{FileSystem, Log, Lsn, State};

/// Why nothing may leave now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nothing leaves before the ledger says so, and the ledger cannot be written: {0}")]
pub struct Unwritable(Arc<str>);

/// A release that is about to leave.
pub struct Intent<'r> {
    /// The release.
    pub released: &'r Released,
    /// Where it stands in the outbox.
    pub outbox: Lsn,
    /// Its cells as JSON lines, for the commitment.
    pub lines: &'r [u8],
}

/// Whether a destination has confirmed what the outbox holds of a dataset at a position, as its cursor said at the start.
pub type Confirmed = Box<dyn Fn(&str, &str, Lsn) -> bool + Send + Sync>;

/// A wall clock, in microseconds since the Unix epoch.
pub type Wall = Box<dyn Fn() -> i64 + Send + Sync>;

/// A ledger that a gateway writes. What is written while it cannot be waits in memory, but an intent: that is refused, and
/// what it stands for does not leave.
pub struct Ledger {
    settings: Settings,
    fs: Arc<dyn FileSystem>,
    wall: Wall,
    confirmed: Confirmed,
    state: Mutex<Inner>,
}

struct Inner {
    book: Result<Book, Arc<str>>,
    /// Entries that go with the next group.
    notes: VecDeque<Entry>,
    /// Notes for which there was no place.
    missed: u64,
    /// The intents of this process, by destination and release, with their position in the log.
    intended: BTreeMap<(String, String), Lsn>,
    /// Why the last group was refused; `None` if it was not.
    refused: Option<Arc<str>>,
}

/// An open ledger.
struct Book {
    log: Arc<Log>,
    signer: Signer,
    frontier: Frontier,
    last: Lsn,
    /// Entries that are not given to the publisher, oldest first.
    unpublished: Vec<Vec<u8>>,
    /// The newest signed checkpoint.
    checkpoint: String,
    publisher: Option<Publisher>,
}

/// Why the ledger cannot be written before it was looked at.
const NOT_OPEN: &str = "it is being verified";
/// Why it cannot be written at the end.
const CLOSED: &str = "the gateway stops";
/// So many notes wait at most. What a release needs is not among them.
const NOTES_MAX: usize = 4_096;
/// How long an intent waits for the disk before it is said that it waits.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is looked whether a ledger is verified.
const GLANCE: Duration = Duration::from_millis(5);
/// One wait for the disk.
const SLICE: Duration = Duration::from_millis(50);

impl Ledger {
    /// A ledger that is opened by the first [`Self::tend`].
    #[must_use]
    pub fn new(settings: Settings, fs: Arc<dyn FileSystem>, wall: Wall, confirmed: Confirmed) -> Self {
        let inner = Inner {
            book: Err(NOT_OPEN.into()),
            notes: VecDeque::new(),
            missed: 0,
            intended: BTreeMap::new(),
            refused: None,
        };
        Self { settings, fs, wall, confirmed, state: Mutex::new(inner) }
    }

    /// Adds an entry that nothing waits for. It becomes durable with the next group, or soon.
    pub fn note(&self, what: What) {
        let entry = Entry::new((self.wall)(), what);
        let mut inner = self.inner();
        if inner.notes.len() >= NOTES_MAX && !matches!(entry.what, What::Sent { .. }) {
            inner.missed += 1;
        } else {
            inner.notes.push_back(entry);
        }
    }

    /// Makes sure that the ledger says on disk that releases are about to leave. In one process each of them is said once.
    ///
    /// # Errors
    /// When it cannot be said now. Then they must not leave; whoever asks again is told when it can.
    pub fn intend(&self, intents: &[Intent<'_>]) -> Result<(), Unwritable> {
        self.wait_until_verified();
        let (log, lsn) = {
            let mut inner = self.inner();
            let inner = &mut *inner;
            let book = inner.book.as_mut().map_err(|why| Unwritable(Arc::clone(why)))?;
            let key =
                |intent: &Intent<'_>| (intent.released.destination().to_string(), intent.released.id().to_owned());
            let is_new = |intent: &&Intent<'_>| !inner.intended.contains_key(&key(intent));
            let at = (self.wall)();
            let new: Vec<&Intent<'_>> = intents.iter().filter(is_new).collect();
            if !new.is_empty() {
                let entries = new.iter().map(|intent| Entry::new(at, intent.what(&book.signer))).collect();
                let appended = book.append(&mut inner.notes, &mut inner.missed, at, entries);
                inner.refused = appended.as_ref().err().cloned();
                let lsn = appended.map_err(Unwritable)?;
                inner.intended.extend(new.iter().map(|intent| (key(intent), lsn)));
            }
            let lsn = intents.iter().filter_map(|intent| inner.intended.get(&key(intent))).max();
            (Arc::clone(&book.log), lsn.copied().unwrap_or(0))
        };
        let mut waited = Duration::ZERO;
        while log.wait_beyond(lsn.saturating_sub(1), SLICE) < lsn {
            waited += SLICE;
            if waited >= PATIENCE {
                return Err(Unwritable(trouble(&log).unwrap_or_else(|| "the disk is slow".into())));
            }
        }
        Ok(())
    }

    /// At a start it is verified first. A short ledger is in a moment, so that nothing is said of it.
    fn wait_until_verified(&self) {
        let mut waited = Duration::ZERO;
        while waited < PATIENCE && self.inner().book.as_ref().err().is_some_and(|why| **why == *NOT_OPEN) {
            std::thread::sleep(GLANCE);
            waited += GLANCE;
        }
    }

    /// Says that a destination has confirmed releases, which took so many bytes together.
    pub fn sent(&self, destination: &str, releases: &[String], bytes: u64) {
        for (part, releases) in releases.chunks(RELEASES_MAX).enumerate() {
            let bytes = if part == 0 { bytes } else { 0 };
            self.note(What::Sent { destination: destination.to_owned(), releases: releases.to_vec(), bytes });
        }
        let mut inner = self.inner();
        for release in releases {
            inner.intended.remove(&(destination.to_owned(), release.clone()));
        }
    }

    /// Why it cannot be written now; `None` if it can.
    #[must_use]
    pub fn trouble(&self) -> Option<Arc<str>> {
        let inner = self.inner();
        match &inner.book {
            Err(why) => Some(Arc::clone(why)),
            Ok(book) => trouble(&book.log).or_else(|| inner.refused.clone()),
        }
    }

    /// Whether the thread of its log has panicked.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.inner().book.as_ref().is_ok_and(|book| book.log.is_broken())
    }

    /// Opens it if it is not open: verifies it whole, and goes on at its end.
    ///
    /// # Errors
    /// Why it cannot be opened; it can be tried again.
    pub fn open(&self) -> Result<(), Arc<str>> {
        match &self.inner().book {
            Ok(_) => return Ok(()),
            Err(why) if **why == *CLOSED => return Err(Arc::clone(why)),
            Err(_) => {}
        }
        // Not under the lock: it takes as long as the ledger is long.
        let opened = opening::open(&self.fs, &self.settings);
        let mut inner = self.inner();
        match opened {
            Ok(opened) => {
                let at = (self.wall)();
                for unsettled in &opened.unsettled {
                    inner.notes.push_front(Entry::new(at, self.settle(unsettled)));
                }
                inner.book =
                    Ok(Book::new(opened, Files::new(Arc::clone(&self.fs), &self.settings.directory), &self.settings));
                Ok(())
            }
            Err(error) => {
                let why: Arc<str> = format!("{error:#}").into();
                inner.book = Err(Arc::clone(&why));
                Err(why)
            }
        }
    }

    fn settle(&self, unsettled: &Unsettled) -> What {
        let Unsettled { release, destination, dataset, outbox, intent } = unsettled;
        let is_confirmed = (self.confirmed)(destination, dataset, *outbox);
        What::Unsettled {
            release: release.clone(),
            destination: destination.clone(),
            intent: *intent,
            known: if is_confirmed { Known::Confirmed } else { Known::Nothing },
        }
    }

    /// Writes the notes that wait, without waiting for the disk.
    pub fn flush(&self) {
        let at = (self.wall)();
        let mut inner = self.inner();
        let inner = &mut *inner;
        let is_refused = inner.refused.is_some();
        if let Ok(book) = &mut inner.book
            && (!inner.notes.is_empty() || is_refused)
        {
            inner.refused = book.append(&mut inner.notes, &mut inner.missed, at, Vec::new()).err();
        }
    }

    /// Brings the tiles and the checkpoint up to what is durable.
    ///
    /// # Errors
    /// When a file cannot be written. What is durable stays so; it is tried again.
    pub fn publish(&self) -> Result<(), crate::storage::Error> {
        let (mut publisher, log, lsn) = {
            let mut inner = self.inner();
            let Ok(book) = &mut inner.book else { return Ok(()) };
            if log_is_behind(book) {
                return Ok(());
            }
            let Some(mut publisher) = book.publisher.take() else { return Ok(()) };
            publisher.take(std::mem::take(&mut book.unpublished), &book.checkpoint);
            (publisher, Arc::clone(&book.log), book.last)
        };
        let published = publisher.publish();
        if let Ok(book) = &mut self.inner().book {
            book.publisher = Some(publisher);
        }
        if published? {
            log.release(lsn)?;
        }
        Ok(())
    }

    /// Writes what waits, publishes it, and closes the ledger.
    pub fn close(&self) {
        self.flush();
        let log = self.inner().book.as_ref().ok().map(|book| (Arc::clone(&book.log), book.last));
        if let Some((log, last)) = &log
            && log.wait_beyond(last.saturating_sub(1), PATIENCE) >= *last
            && let Err(error) = self.publish()
        {
            tracing::warn!(%error, "the ledger's tiles could not be written; the next start writes them");
        }
        self.inner().book = Err(CLOSED.into());
        if let Some((log, _)) = log {
            log.close();
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether not all of the book is durable yet. What is published must be: else a crash would take from the log what the
/// checkpoint covers.
fn log_is_behind(book: &Book) -> bool {
    book.log.durable() < book.last
}

fn trouble(log: &Log) -> Option<Arc<str>> {
    match log.state() {
        State::Healthy => None,
        State::Full => Some("its disk is full, or its log is: free some space".into()),
        State::Failing { message } => Some(message.into()),
        State::Closed => Some(CLOSED.into()),
        State::Broken => Some("its thread has panicked; start the gateway again".into()),
    }
}

impl Intent<'_> {
    fn what(&self, signer: &Signer) -> What {
        let released = self.released;
        let salt = signer.salt(released.id(), released.destination());
        let commitment: [u8; 32] = Sha256::new().chain_update(salt).chain_update(self.lines).finalize().into();
        What::Intent {
            release: released.id().to_owned(),
            destination: released.destination().to_string(),
            dataset: released.dataset().to_string(),
            window_start: rfc3339(released.window_start()),
            window_end: rfc3339(released.window_end()),
            policy: in_full(&released.policy()),
            cells: released.cells().num_rows() as u64,
            commitment: hex(&commitment),
            outbox: self.outbox,
        }
    }
}

/// Bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A digest of policies in full. Elsewhere its beginning is enough.
#[must_use]
pub fn in_full(policy: &Digest) -> String {
    hex(policy.bytes())
}

impl Book {
    fn new(opened: Opened, files: Files, settings: &Settings) -> Self {
        let Opened { log, last, signer, audit, .. } = opened;
        let publisher = Publisher::new(files, settings.seen.clone(), audit.tiles);
        let checkpoint = audit.checkpoint.unwrap_or_else(|| signer.sign(0, Frontier::default().root()));
        Self {
            log: Arc::new(log),
            signer,
            frontier: audit.frontier,
            last,
            unpublished: audit.unpublished,
            checkpoint,
            publisher: Some(publisher),
        }
    }

    /// Gives the log the notes that wait and other entries, as one group. Its position.
    fn append(
        &mut self,
        notes: &mut VecDeque<Entry>,
        missed: &mut u64,
        at: i64,
        entries: Vec<Entry>,
    ) -> Result<Lsn, Arc<str>> {
        let missing = (*missed > 0).then(|| Entry::new(at, What::Missed { entries: *missed }));
        let all = notes.iter().chain(&missing).chain(&entries).map(Entry::encode);
        let mut bytes = Vec::new();
        for entry in all {
            if entry.len() > BYTES_MAX {
                return Err("an entry is too long: a fault in bailiwick; please report this line".into());
            }
            bytes.push(entry);
        }
        if bytes.is_empty() {
            return Ok(self.last);
        }
        let mut frontier = self.frontier.clone();
        bytes.iter().for_each(|entry| frontier.push(leaf(entry)));
        let checkpoint = self.signer.sign(frontier.size(), frontier.root());
        let group = Group { first: self.frontier.size(), entries: bytes, checkpoint };
        let payload = group.encode();
        let room = self
            .log
            .reserve(payload.len() as u64)
            .map_err(|error| trouble(&self.log).unwrap_or_else(|| error.to_string().into()))?;
        self.last += 1;
        self.log.submit(self.last, payload, room, None);
        self.frontier = frontier;
        self.checkpoint = group.checkpoint;
        self.unpublished.extend(group.entries);
        notes.clear();
        *missed = 0;
        Ok(self.last)
    }
}
