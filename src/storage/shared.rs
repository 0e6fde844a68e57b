//! What the log, its writer, its readers and rooms have in common.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::freeing::{Freeing, STEP_BYTES};
use super::fs::{Directory, FileSystem};
use super::promises::Promises;
use super::table::Table;
use super::{Error, Lsn, Settings};

/// What is run when an entry is durable. It runs on the writer's thread, so it must be quick.
pub type Then = Box<dyn FnOnce() + Send>;

/// How much is done at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// A commit stops before it grows beyond this, unless it is one entry.
    pub(super) commit_bytes: u64,
    /// A frame likewise. What a flipped bit can spoil, and what a reader must hold at once.
    pub(super) frame_bytes: u64,
    /// Of a segment that was let go so much is freed at once.
    pub(super) freed_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { commit_bytes: 4 << 20, frame_bytes: 256 << 10, freed_bytes: STEP_BYTES }
    }
}

/// How a log is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Entries are taken and written.
    Healthy,
    /// No further segment can be made, for lack of space as a rule. What is left of the current one is given out.
    Full,
    /// The disk refuses. Nothing is taken; what was taken is kept in memory and tried again.
    Failing {
        /// What the system said last.
        message: String,
    },
    /// It was closed.
    Closed,
    /// Its thread has panicked. Nothing is taken or written any more: the process must be started again.
    Broken,
}

impl State {
    /// The names of all.
    pub const NAMES: [&'static str; 5] = ["healthy", "full", "failing", "closed", "broken"];

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        let [healthy, full, failing, closed, broken] = Self::NAMES;
        match self {
            Self::Healthy => healthy,
            Self::Full => full,
            Self::Failing { .. } => failing,
            Self::Closed => closed,
            Self::Broken => broken,
        }
    }

    /// Whether nothing will be written any more.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Closed | Self::Broken)
    }
}

/// Hears how long something takes.
pub struct Timed {
    /// A monotonic clock.
    pub now: Box<dyn Fn() -> Duration + Send + Sync>,
    /// It took so long.
    pub took: Box<dyn Fn(Duration) + Send + Sync>,
}

/// What the log, its writer, its readers and rooms share.
pub(super) struct Shared {
    pub(super) fs: Arc<dyn FileSystem>,
    pub(super) settings: Settings,
    /// The directory that was opened.
    home: Box<dyn Directory>,
    pub(super) table: Arc<Table>,
    inner: Mutex<Inner>,
    letting_go: Mutex<()>,
    pub(super) freeing: Freeing,
    /// Syncs that made entries durable, and how many entries, since the log was opened.
    pub(super) commits: AtomicU64,
    pub(super) committed: AtomicU64,
    /// Hears how long each sync takes, if anybody wants to know.
    pub(super) syncs: OnceLock<Timed>,
    /// The file that is written was removed.
    pub(super) is_removed: AtomicBool,
    /// Something for the writer to do.
    pub(super) work: Condvar,
    /// More is durable, or the log is closed.
    pub(super) moved: Condvar,
}

pub(super) struct Inner {
    /// Submitted and not yet taken by the writer.
    pub(super) queue: BTreeMap<Lsn, Pending>,
    /// What the writer takes next.
    pub(super) next: Lsn,
    /// The greatest LSN that was submitted by this process, or was there before.
    pub(super) submitted: Lsn,
    pub(super) promises: Promises,
    pub(super) waiters: BTreeMap<Lsn, Vec<Then>>,
    pub(super) state: State,
    pub(super) is_closing: bool,
    /// Space was freed: worth trying again.
    pub(super) is_retry_due: bool,
}

/// An entry that is not durable yet.
pub(super) struct Pending {
    pub(super) lsn: Lsn,
    pub(super) payload: Vec<u8>,
    /// What was promised for it.
    pub(super) cost: u64,
    pub(super) then: Option<Then>,
}

impl Shared {
    pub(super) fn new(
        fs: Arc<dyn FileSystem>,
        settings: Settings,
        home: Box<dyn Directory>,
        table: Table,
        limits: Limits,
        next: Lsn,
    ) -> Self {
        let inner = Inner {
            queue: BTreeMap::new(),
            next,
            submitted: next.saturating_sub(1),
            promises: Promises::default(),
            waiters: BTreeMap::new(),
            state: State::Healthy,
            is_closing: false,
            is_retry_due: false,
        };
        Self {
            fs,
            settings,
            home,
            table: Arc::new(table),
            inner: Mutex::new(inner),
            letting_go: Mutex::new(()),
            freeing: Freeing::new(limits.freed_bytes),
            commits: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            syncs: OnceLock::new(),
            is_removed: AtomicBool::new(false),
            work: Condvar::new(),
            moved: Condvar::new(),
        }
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There may be space for another segment.
    pub(super) fn space_came_back(&self) {
        self.inner().is_retry_due = true;
        self.work.notify_one();
    }

    /// Held by whoever lets go of segments.
    pub(super) fn letting_go(&self) -> MutexGuard<'_, ()> {
        self.letting_go.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.settings.directory
    }

    /// Makes sure that the directory's name leads to the directory that was opened, and not to nothing or another.
    pub(super) fn check_home(&self) -> Result<(), Error> {
        match self.home.is_at(self.directory()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::Gone { path: self.directory().to_owned() }),
            Err(source) => Err(Error::Io { doing: "look up", path: self.directory().to_owned(), source }),
        }
    }

    /// Sets the state, and says whether it is another one now. Once it is over it stays so.
    pub(super) fn set_state(&self, state: State) -> bool {
        let mut inner = self.inner();
        let changes = inner.state != state && !inner.state.is_over();
        if changes {
            inner.state = state;
        }
        changes
    }
}
