//! The ledger as the gateway writes it: what waits, what may leave, and whether it can be written.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::appending::{Book, CLOSED};
use super::entry::{BYTES_MAX, Degraded, Entry, Known, RELEASES_MAX, What};
use super::files::Files;
use super::note::Signer;
use super::opening::{self, Noted, Settings, Unsettled};
use crate::domain::binary::hex;
use crate::domain::name::{DatasetName, DestinationName};
use crate::domain::policy::{Digest, Released};
use crate::domain::time::rfc3339;
use crate::storage::{FileSystem, Log, Lsn, Pace};

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

/// What is to be said of a closing of windows besides its releases.
pub struct Closed {
    /// Where it stands in the outbox.
    pub outbox: Lsn,
    /// What is to be said, with this position in it: [`What::Withheld`], [`What::Override`], [`What::Refused`]. The same
    /// each time.
    pub notes: Vec<What>,
}

/// The clocks of a gateway.
pub struct Clocks {
    /// A wall clock, in microseconds since the Unix epoch.
    pub wall: Box<dyn Fn() -> i64 + Send + Sync>,
    /// A monotonic clock.
    pub now: Box<dyn Fn() -> Duration + Send + Sync>,
}

/// Whether a destination has confirmed what the outbox holds of a dataset at a position.
pub type Confirmed = Box<dyn Fn(&DestinationName, &DatasetName, Lsn) -> bool + Send + Sync>;

/// What the outbox was at the start.
pub struct Outbox {
    /// The last position that it gave out.
    pub last: Lsn,
    /// What was confirmed.
    pub confirmed: Confirmed,
}

/// A ledger that a gateway writes. What is written while it cannot be waits in memory, but for intents and what closings
/// say: those are refused. What an intent stands for does not leave, and closings wait in the outbox.
pub struct Ledger {
    settings: Settings,
    fs: Arc<dyn FileSystem>,
    clocks: Clocks,
    outbox: Outbox,
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
    /// Releases that are said to be given up, and that is not known to be on disk: in the same way.
    given_up: BTreeMap<(String, String), Lsn>,
    /// How far the ledger is with what closings say.
    noted: Noted,
    /// Why the last group was refused; `None` if it was not.
    refused: Option<Arc<str>>,
    /// What is damaged of what is in tiles.
    damage: Option<Arc<str>>,
    /// Whether its log gets on.
    pace: Pace,
}

/// Why the ledger cannot be written before it was looked at.
const NOT_OPEN: &str = "it is being verified";
/// So many notes wait at most. What a release needs is not among them.
const NOTES_MAX: usize = 4_096;
/// How long an intent waits for the disk before it is said that it waits.
const PATIENCE: Duration = Duration::from_secs(1);
/// When nothing became durable for so long although something waits, the disk hangs.
const HANGS_AFTER: Duration = Duration::from_secs(3);
/// How often it is looked whether a ledger is verified.
const GLANCE: Duration = Duration::from_millis(5);
/// One wait for the disk.
const SLICE: Duration = Duration::from_millis(50);

impl Ledger {
    /// A ledger that is opened by the first [`Self::tend`].
    #[must_use]
    pub fn new(settings: Settings, fs: Arc<dyn FileSystem>, clocks: Clocks, outbox: Outbox) -> Self {
        let inner = Inner {
            book: Err(NOT_OPEN.into()),
            notes: VecDeque::new(),
            missed: 0,
            intended: BTreeMap::new(),
            given_up: BTreeMap::new(),
            noted: Noted::default(),
            refused: None,
            damage: None,
            pace: Pace::default(),
        };
        Self { settings, fs, clocks, outbox, state: Mutex::new(inner) }
    }

    /// Adds an entry that nothing waits for. It becomes durable with the next group, or soon.
    pub fn note(&self, what: What) {
        let entry = fitting((self.clocks.wall)(), what);
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
            let key =
                |intent: &Intent<'_>| (intent.released.destination().to_string(), intent.released.id().to_owned());
            let book = inner.book()?;
            let (log, at) = (Arc::clone(&book.log), (self.clocks.wall)());
            let said = |intent: &Intent<'_>| Entry::new(at, intent.what(&book.signer));
            let new: Vec<_> = intents.iter().filter(|intent| !inner.intended.contains_key(&key(intent))).collect();
            let entries: Vec<_> = new.iter().map(|intent| said(intent)).collect();
            let (written, lsn) = inner.write(at, &entries);
            // One that was to be given up, and is about to leave after all, can be given up again.
            for intent in new.iter().take(written) {
                inner.given_up.remove(&key(intent));
                inner.intended.insert(key(intent), lsn);
            }
            if let Some(why) = inner.refused.as_ref().filter(|_| written < entries.len()) {
                return Err(Unwritable(Arc::clone(why)));
            }
            let lsn = intents.iter().filter_map(|intent| inner.intended.get(&key(intent))).max();
            (log, lsn.copied().unwrap_or(0))
        };
        self.wait(&log, lsn)
    }

    /// Makes sure that the ledger says on disk what closings say, in the order of the outbox. Each of it is said once, also
    /// when it is asked for again after a crash.
    ///
    /// # Errors
    /// When it cannot be said now. It is to be asked for again.
    pub fn closed(&self, closings: &[Closed]) -> Result<(), Unwritable> {
        self.wait_until_verified();
        let (log, lsn) = {
            let mut inner = self.inner();
            let log = Arc::clone(&inner.book()?.log);
            let (at, noted) = ((self.clocks.wall)(), inner.noted);
            let new = closings.iter().flat_map(|closing| {
                let done = match closing.outbox.cmp(&noted.outbox) {
                    Ordering::Less => closing.notes.len(),
                    Ordering::Equal => noted.notes,
                    Ordering::Greater => 0,
                };
                closing.notes.iter().skip(done).map(|note| (closing.outbox, fitting(at, note.clone())))
            });
            let (positions, entries): (Vec<Lsn>, Vec<Entry>) = new.unzip();
            let (written, lsn) = inner.write(at, &entries);
            positions.iter().take(written).for_each(|outbox| inner.noted.hear(*outbox));
            if let Some(why) = inner.refused.as_ref().filter(|_| written < entries.len()) {
                return Err(Unwritable(Arc::clone(why)));
            }
            (log, lsn)
        };
        self.wait(&log, lsn)
    }

    /// Makes sure that the ledger says on disk that releases are not sent, because a budget does not suffice; and which
    /// datasets add up the rows of which, if that is why.
    ///
    /// # Errors
    /// When it cannot be said now. Then they wait.
    pub fn shed(
        &self,
        releases: &[Released],
        outbox: Lsn,
        widened: Option<&BTreeMap<DatasetName, DatasetName>>,
    ) -> Result<(), Unwritable> {
        self.say_of(releases, |released| What::Shed {
            release: released.id().to_owned(),
            destination: released.destination().to_string(),
            dataset: released.dataset().to_string(),
            window_start: rfc3339(released.window_start()),
            window_end: rfc3339(released.window_end()),
            cells: released.cells().num_rows() as u64,
            outbox,
            widened: widened.and_then(|widened| widened.get(released.dataset())).map(String::from),
        })
    }

    /// Makes sure that the ledger says on disk that releases are not sent, because no policy in force lets them go any more.
    ///
    /// # Errors
    /// When it cannot be said now. Then they wait.
    pub fn denied(&self, releases: &[Released], outbox: Lsn) -> Result<(), Unwritable> {
        // An intent that stands before is over.
        for released in releases {
            let key = (released.destination().to_string(), released.id().to_owned());
            self.inner().intended.remove(&key);
        }
        self.say_of(releases, |released| What::Denied {
            release: released.id().to_owned(),
            destination: released.destination().to_string(),
            dataset: released.dataset().to_string(),
            window_start: rfc3339(released.window_start()),
            window_end: rfc3339(released.window_end()),
            cells: released.cells().num_rows() as u64,
            outbox,
        })
    }

    /// Makes sure that the ledger says of releases that they are given up, on disk. What it says already, and what is not on disk
    /// yet, is not said again.
    fn say_of(&self, releases: &[Released], what: impl Fn(&Released) -> What) -> Result<(), Unwritable> {
        self.wait_until_verified();
        let key = |released: &Released| (released.destination().to_string(), released.id().to_owned());
        let (log, lsn) = {
            let mut inner = self.inner();
            let (log, at) = (Arc::clone(&inner.book()?.log), (self.clocks.wall)());
            let new: Vec<_> = releases.iter().filter(|released| !inner.given_up.contains_key(&key(released))).collect();
            let entries: Vec<Entry> = new.iter().map(|released| fitting(at, what(released))).collect();
            let (written, lsn) = inner.write(at, &entries);
            inner.given_up.extend(new.iter().take(written).map(|released| (key(released), lsn)));
            if let Some(why) = inner.refused.as_ref().filter(|_| written < entries.len()) {
                return Err(Unwritable(Arc::clone(why)));
            }
            let lsn = releases.iter().filter_map(|released| inner.given_up.get(&key(released))).max();
            (log, lsn.copied().unwrap_or(0))
        };
        self.wait(&log, lsn)?;
        let mut inner = self.inner();
        for released in releases {
            inner.given_up.remove(&key(released));
        }
        Ok(())
    }

    /// Waits until the log is durable through a position.
    fn wait(&self, log: &Log, lsn: Lsn) -> Result<(), Unwritable> {
        let mut waited = Duration::ZERO;
        while log.wait_beyond(lsn.saturating_sub(1), SLICE) < lsn {
            waited += SLICE;
            if waited >= PATIENCE {
                return Err(Unwritable(self.trouble().unwrap_or_else(|| "the disk is slow".into())));
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
    pub fn sent(&self, destination: &DestinationName, releases: &[String], bytes: u64) {
        for (part, releases) in releases.chunks(RELEASES_MAX).enumerate() {
            let bytes = if part == 0 { bytes } else { 0 };
            self.note(What::Sent { destination: destination.into(), releases: releases.to_vec(), bytes });
        }
        let mut inner = self.inner();
        for release in releases {
            inner.intended.remove(&(destination.into(), release.clone()));
        }
    }

    /// Why it cannot be written now; `None` if it can.
    #[must_use]
    pub fn trouble(&self) -> Option<Arc<str>> {
        let now = (self.clocks.now)();
        let mut inner = self.inner();
        let inner = &mut *inner;
        match &inner.book {
            Err(why) => Some(Arc::clone(why)),
            Ok(book) => {
                let hangs = inner.pace.look(&book.log, now);
                let is_hanging = || {
                    (hangs >= HANGS_AFTER).then(|| {
                        format!("its disk hangs: a write to it has been under way for {} s", hangs.as_secs()).into()
                    })
                };
                book.trouble().or_else(is_hanging).or_else(|| inner.refused.clone())
            }
        }
    }

    /// What of it is damaged although it goes on; `None`: nothing that is known.
    #[must_use]
    pub fn damage(&self) -> Option<Arc<str>> {
        self.inner().damage.clone()
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
        if let Err(why) = &inner.book
            && **why == *CLOSED
        {
            // It was closed meanwhile, and stays so.
            let why = Arc::clone(why);
            drop(inner);
            drop(opened);
            return Err(why);
        }
        match opened {
            Ok(opened) => {
                let at = (self.clocks.wall)();
                inner.say_models(at, opened.models.as_ref());
                for unsettled in &opened.unsettled {
                    inner.notes.push_front(Entry::new(at, self.settle(unsettled)));
                }
                if let Some(damage) = &opened.damage {
                    inner
                        .notes
                        .push_front(Entry::new(at, What::Damage { of: "ledger".to_owned(), places: damage.places }));
                    inner.damage = Some(damage.what.as_str().into());
                }
                // The positions of another outbox say nothing of this one: the journal's directory was begun anew.
                inner.noted = Some(opened.noted).filter(|noted| noted.outbox <= self.outbox.last).unwrap_or_default();
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
        // What is no name was never the name of anything that could confirm it.
        let names = DestinationName::new(destination).ok().zip(DatasetName::new(dataset).ok());
        let is_confirmed = names.is_some_and(|(to, dataset)| (self.outbox.confirmed)(&to, &dataset, *outbox));
        What::Unsettled {
            release: release.clone(),
            destination: destination.clone(),
            intent: *intent,
            known: if is_confirmed { Known::Confirmed } else { Known::Nothing },
        }
    }

    /// Writes the notes that wait, without waiting for the disk.
    pub fn flush(&self) {
        let at = (self.clocks.wall)();
        let mut inner = self.inner();
        if inner.book.is_ok() {
            inner.write(at, &[]);
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
            if book.is_behind() {
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
            log.let_go(lsn)?;
        }
        Ok(())
    }

    /// Writes what waits, publishes it, and closes the ledger. One that is being opened is waited for, for a moment: what a
    /// short run has to say is not lost.
    pub fn close(&self) {
        self.wait_until_verified();
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

impl Inner {
    fn book(&self) -> Result<&Book, Unwritable> {
        self.book.as_ref().map_err(|why| Unwritable(Arc::clone(why)))
    }

    /// Says after the start which models are others than `before`, if there was anything before.
    fn say_models(&mut self, at: i64, before: Option<&BTreeMap<String, String>>) {
        let start = self.notes.iter().position(|note| matches!(note.what, What::Start { .. }));
        let (Some(before), Some(start)) = (before, start) else { return };
        let Some(What::Start { models: now, .. }) = self.notes.get(start).map(|note| &note.what) else { return };
        let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
        let of = |models: &BTreeMap<String, String>, name: &String| models.get(name).cloned();
        let changed = names.into_iter().map(|name| (name.clone(), of(before, name), of(now, name)));
        let changed = changed.filter(|(_, before, now)| before != now);
        let changed: Vec<_> = changed.map(|(model, before, now)| What::Model { model, before, now }).collect();
        for (place, what) in (start + 1..).zip(changed) {
            self.notes.insert(place, Entry::new(at, what));
        }
    }

    /// Gives the log the notes that wait, then entries. How many of these it took, and the position that they are durable
    /// at.
    fn write(&mut self, at: i64, entries: &[Entry]) -> (usize, Lsn) {
        let Ok(book) = &mut self.book else { return (0, 0) };
        if self.missed > 0 && self.notes.len() <= NOTES_MAX {
            self.notes.push_back(Entry::new(at, What::Missed { entries: self.missed }));
            self.missed = 0;
        }
        let notes = self.notes.len();
        let (taken, refused) = book.append(self.notes.iter().chain(entries));
        self.notes.drain(..notes.min(taken));
        self.refused = refused;
        (taken.saturating_sub(notes), book.last)
    }
}

/// An entry that the ledger takes. One that is too long, which no configuration should come to, is counted instead.
fn fitting(at: i64, what: What) -> Entry {
    let kind = what.kind();
    let entry = Entry::new(at, what);
    if entry.encode().len() <= BYTES_MAX {
        return entry;
    }
    tracing::error!(
        kind,
        "an entry of the ledger is too long and is only counted: a fault in bailiwick; please report this line"
    );
    Entry::new(at, What::Missed { entries: 1 })
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
            degraded: released.made_smaller().map(|reduced| Degraded {
                steps: reduced.steps.iter().map(|step| (*step).to_owned()).collect(),
                whole: reduced.whole.clone(),
                cells: reduced.cells,
            }),
        }
    }
}

/// A digest of policies in full. Elsewhere its beginning is enough.
#[must_use]
pub fn in_full(policy: &Digest) -> String {
    hex(policy.bytes())
}
