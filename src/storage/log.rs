//! The log as its users see it: room, submission, what is durable.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing::error;

use super::frame::entry_cost;
use super::freeing;
use super::fs::FileSystem;
use super::recover::{Recovered, recover};
use super::room::Room;
use super::segment::{CONTEXT_BYTES_MAX, header_bytes};
use super::shared::{Inner, Limits, Pending, Shared, State, Then, Timed};
use super::table::Table;
use super::writer::Writer;
use super::{Damage, Error, Lsn, NoRoom, Recovery, SEGMENT_BYTES_RANGE, Settings};

/// A log that is open. Dropping it closes it.
pub struct Log {
    pub(super) shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Frees what was let go.
    freeing: Mutex<Option<JoinHandle<()>>>,
}

/// What a log takes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all segments, the spare included, and of those that were let go and are not free yet.
    pub bytes: u64,
    /// The most there may be.
    pub quota_bytes: u64,
    /// Segments.
    pub segments: usize,
    /// The oldest LSN that a segment is there for.
    pub oldest: Lsn,
    /// Syncs that made entries durable since the log was opened.
    pub commits: u64,
    /// The entries that they made durable.
    pub committed: u64,
}

impl Log {
    /// Opens the log in a directory, or makes an empty one, and starts its thread.
    ///
    /// # Errors
    /// When the directory cannot be used. Damage is not an error: it is in what was found. Nor is a full disk.
    pub fn open(fs: Arc<dyn FileSystem>, settings: Settings) -> Result<(Self, Recovery), Error> {
        let (log, writer, recovery) = Self::open_stepped(fs, settings, Limits::default())?;
        let path = log.shared.settings.directory.clone();
        let thread = thread::Builder::new().name("journal".into()).spawn(move || writer.run());
        *log.thread() = Some(thread.map_err(Error::io("start a thread for", &path))?);
        let shared = Arc::clone(&log.shared);
        let thread = thread::Builder::new().name("journal-freeing".into()).spawn(move || free(&shared));
        *lock(&log.freeing) = Some(thread.map_err(Error::io("start a thread for", path))?);
        log.shared.freeing.has_thread();
        Ok((log, recovery))
    }

    /// Opens a log whose writer the caller drives.
    pub(super) fn open_stepped(
        fs: Arc<dyn FileSystem>,
        settings: Settings,
        limits: Limits,
    ) -> Result<(Self, Writer, Recovery), Error> {
        settings.check()?;
        let Recovered { home, lock, recovery, segments, id, durable, unproven } = recover(&*fs, &settings)?;
        let table = Table::new(settings.directory.clone(), segments, recovery.damage.clone(), durable);
        let shared = Arc::new(Shared::new(fs, settings, home, table, limits, recovery.last.saturating_add(1)));
        let mut writer = Writer::new(Arc::clone(&shared), lock, limits, durable, id);
        writer.start(unproven)?;
        Ok((Self { shared, thread: Mutex::default(), freeing: Mutex::default() }, writer, recovery))
    }

    /// Room for one entry of at most this many bytes. To be had before the entry gets its LSN: the other way round, the
    /// entries after it may hold all the room while they wait for it, for ever.
    ///
    /// Whatever a producer can cause is written in such room, also an entry of a few bytes: else producers decide how
    /// much waits in memory while the disk is full.
    ///
    /// # Errors
    /// When there is none, before anything is written.
    pub fn reserve(&self, bytes: u64) -> Result<Room, NoRoom> {
        self.reserve_and_leave(bytes, self.shared.settings.control_bytes())
    }

    /// Room for an entry that the caller writes for itself, such as one that says that windows were closed. It may be
    /// in the space that [`Self::reserve`] leaves, so it can be had when the log is full for everybody else.
    ///
    /// That space is used up in the end. A caller that must not be refused has the room for its next entry before it
    /// needs it, and does without the entry while it has none.
    ///
    /// # Errors
    /// When there is none, before anything is written.
    pub fn reserve_control(&self, bytes: u64) -> Result<Room, NoRoom> {
        self.reserve_and_leave(bytes, 0)
    }

    fn reserve_and_leave(&self, bytes: u64, left_bytes: u64) -> Result<Room, NoRoom> {
        let cost = entry_cost(bytes);
        let bytes_max = self.shared.settings.entry_bytes_max();
        if bytes > bytes_max {
            return Err(NoRoom::TooLarge { bytes, bytes_max });
        }
        let mut inner = self.shared.inner();
        match &inner.state {
            State::Closed => return Err(NoRoom::Closed),
            State::Failing { message } => return Err(NoRoom::Failing { message: message.clone() }),
            State::Broken => return Err(NoRoom::Failing { message: BROKEN.into() }),
            State::Healthy | State::Full => {}
        }
        let is_full = inner.state == State::Full;
        if !inner.promises.fits(cost.saturating_add(left_bytes)) {
            return Err(if is_full { NoRoom::Full } else { NoRoom::Behind });
        }
        if inner.promises.count() >= PROMISES_MAX {
            return Err(NoRoom::Behind);
        }
        // The last number is never given out, so the one after an LSN is always a number.
        if inner.promises.count() >= Lsn::MAX - 1 - self.durable() {
            return Err(NoRoom::NumbersExhausted);
        }
        inner.promises.promise(cost);
        drop(inner);
        Ok(Room::new(Arc::clone(&self.shared), bytes))
    }

    /// Takes an entry. Entries may come in any order and are written in that of their LSNs: each LSN after
    /// [`Recovery::last`] must come, once. `then` runs when it is durable; if the log ends before, it is dropped.
    ///
    /// # Panics
    /// When the entry is larger than its room or the LSN was submitted before.
    pub fn submit(&self, lsn: Lsn, payload: Vec<u8>, room: Room, then: Option<Then>) {
        assert!(payload.len() as u64 <= room.bytes(), "an entry is no larger than its room");
        let mut inner = self.shared.inner();
        if inner.state.is_over() {
            // Not under the lock: it may hold the last reference to the log.
            drop(inner);
            drop(then);
            return;
        }
        assert!(lsn >= inner.next && !inner.queue.contains_key(&lsn), "each LSN is submitted once");
        let pending = Pending { lsn, payload, cost: room.spend(), then };
        inner.queue.insert(lsn, pending);
        inner.submitted = inner.submitted.max(lsn);
        if lsn == inner.next {
            self.shared.work.notify_one();
        }
    }

    /// Whether entries cannot be written now.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        matches!(self.shared.inner().state, State::Failing { .. } | State::Closed | State::Broken)
    }

    /// Whether its thread has panicked. It does not recover.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.shared.inner().state == State::Broken
    }

    /// Whether the file that is written was removed. Nobody can put it back, so the log does not recover.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.shared.is_removed.load(Ordering::Relaxed)
    }

    /// Runs something when everything through an LSN is durable: at once, on this thread, if it is already. If the log
    /// ends before, it is dropped.
    pub fn when_durable(&self, lsn: Lsn, then: Then) {
        let mut inner = self.shared.inner();
        if self.durable() < lsn {
            if inner.state.is_over() {
                drop(inner);
                drop(then);
            } else {
                inner.waiters.entry(lsn).or_default().push(then);
            }
            return;
        }
        drop(inner);
        then();
    }

    /// Everything through this LSN is durable.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        self.shared.table.durable()
    }

    /// Whether something was submitted that is not durable.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        let submitted = self.shared.inner().submitted;
        self.durable() < submitted
    }

    /// Waits until everything through an LSN is durable; `false` if the log ended before.
    #[must_use]
    pub fn wait_durable(&self, lsn: Lsn) -> bool {
        let mut inner = self.shared.inner();
        while self.durable() < lsn && !inner.state.is_over() {
            inner = self.shared.moved.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        self.durable() >= lsn
    }

    /// Waits until more than an LSN is durable, or the log is closed, but no longer than this. What is durable then.
    #[must_use]
    pub fn wait_beyond(&self, lsn: Lsn, timeout: Duration) -> Lsn {
        let is_waiting = |inner: &mut Inner| self.durable() <= lsn && !inner.state.is_over();
        let waited = self.shared.moved.wait_timeout_while(self.shared.inner(), timeout, is_waiting);
        drop(waited);
        self.durable()
    }

    /// How the log is doing.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.inner().state.clone()
    }

    /// What the log takes up.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let spare = self.shared.inner().promises.spare.map_or(0, |_| self.shared.settings.segment_bytes);
        let leaving = self.shared.freeing.bytes();
        let segments = self.shared.table.segments();
        Usage {
            bytes: spare + leaving + segments.iter().map(|segment| segment.bytes).sum::<u64>(),
            quota_bytes: self.shared.settings.quota_bytes,
            segments: segments.len(),
            commits: self.shared.commits.load(Ordering::Relaxed),
            committed: self.shared.committed.load(Ordering::Relaxed),
            oldest: segments.first().map_or(self.durable() + 1, |segment| segment.name.first),
        }
    }

    /// From now on somebody hears how long each sync takes that makes entries durable.
    pub fn time_syncs(&self, timed: Timed) {
        // Whoever came first goes on hearing.
        let _ = self.shared.syncs.set(timed);
    }

    /// The damage that is known: found when the log was opened, or by a reader since.
    #[must_use]
    pub fn damage(&self) -> Vec<Damage> {
        self.shared.table.damage()
    }

    /// Writes and syncs what was submitted without gaps, and ends the thread. Nothing is taken any more.
    pub fn close(&self) {
        self.shared.inner().is_closing = true;
        self.shared.work.notify_one();
        self.shared.freeing.end();
        if let Some(thread) = lock(&self.freeing).take()
            && thread.thread().id() != thread::current().id()
            && thread.join().is_err()
        {
            error!(
                "the thread that frees the log's segments has panicked: start the gateway again, and report this line"
            );
        }
        let Some(thread) = self.thread().take() else { return };
        // A callback may hold the last reference to the log; it cannot wait for its own thread.
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            error!("the log's thread has panicked: start the gateway again, and report this line");
        }
    }

    fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        lock(&self.thread)
    }
}

fn lock(thread: &Mutex<Option<JoinHandle<()>>>) -> MutexGuard<'_, Option<JoinHandle<()>>> {
    thread.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}

impl Settings {
    fn check(&self) -> Result<(), Error> {
        let invalid = |text: String| Err(Error::InvalidSettings(text));
        let Self { segment_bytes, quota_bytes, .. } = *self;
        if !SEGMENT_BYTES_RANGE.contains(&segment_bytes) {
            let (least, most) = (SEGMENT_BYTES_RANGE.start, SEGMENT_BYTES_RANGE.end - 1);
            return invalid(format!("segments of {segment_bytes} bytes; they take {least} to {most}"));
        }
        if quota_bytes / 2 < segment_bytes {
            return invalid(format!("a quota of {quota_bytes} bytes is less than two segments of {segment_bytes}"));
        }
        let context_bytes = self.context.len() as u64;
        if context_bytes > CONTEXT_BYTES_MAX || header_bytes(context_bytes, 0) > segment_bytes / 2 {
            return invalid(format!("a context of {context_bytes} bytes in segments of {segment_bytes}"));
        }
        Ok(())
    }

    /// Bytes for frames in a segment.
    pub(super) fn frames_bytes(&self) -> u64 {
        self.segment_bytes.saturating_sub(header_bytes(self.context.len() as u64, 0))
    }

    fn entry_bytes_max(&self) -> u64 {
        let frames_bytes = self.frames_bytes().saturating_sub(self.control_bytes());
        (frames_bytes.saturating_sub(entry_cost(0)) / 8 * 8).saturating_add(4)
    }

    /// Space that is left for control entries.
    fn control_bytes(&self) -> u64 {
        (self.segment_bytes / 16).min(CONTROL_BYTES)
    }
}

/// Space in a segment for control entries, in large segments.
const CONTROL_BYTES: u64 = 256 << 10;

/// The most entries that may have room and not be durable yet. Small ones take more memory while they wait than space
/// on the disk; this many take some 32 MiB.
const PROMISES_MAX: u64 = 64 << 10;

const BROKEN: &str = "its thread has ended by a fault; start the gateway again";

/// Frees what comes, until it is over.
fn free(shared: &Shared) {
    while let Some(pause) = shared.freeing.pause() {
        // Somebody may be waiting for the space.
        if shared.inner().state != State::Full {
            thread::sleep(pause);
        }
        if shared.freeing.step() == freeing::Step::Whole {
            shared.space_came_back();
        }
    }
}
