//! Gives back the space of files that have no name any more, in small steps.
//!
//! A file system frees a file in one transaction of its journal, and no sync gets through meanwhile: 14 ms for a
//! segment of 64 MiB on the disk that was measured. So a segment that is let go loses its name first, durably, and then
//! its bytes, from the end on, with pauses in between, unless somebody waits for space. Until they are free, they count
//! in the quota. Nobody finds such a file again: when the process ends or the power fails, the file system frees the
//! rest.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::warn;

use super::fs::File;

/// Files that have no name any more, and whose space is not free yet.
pub(super) struct Freeing {
    step_bytes: u64,
    inner: Mutex<Inner>,
    /// A file came, or it is over.
    work: Condvar,
}

#[derive(Default)]
struct Inner {
    files: VecDeque<Leaving>,
    /// There is a thread. Without one, whoever lets go of a file frees it.
    has_thread: bool,
    is_over: bool,
}

/// A file without a name.
struct Leaving {
    file: Arc<dyn File>,
    /// Bytes that are left of it.
    bytes: u64,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There was nothing to free.
    Nothing,
    /// A part of a file is free.
    Part,
    /// A file is free.
    Whole,
}

impl Freeing {
    /// None yet.
    pub(super) fn new(step_bytes: u64) -> Self {
        Self { step_bytes: step_bytes.max(1), inner: Mutex::default(), work: Condvar::new() }
    }

    /// Frees a file, which has no name any more, also after a crash. Without a thread it is free when this returns.
    pub(super) fn add(&self, file: Arc<dyn File>, bytes: u64) {
        let mut inner = self.inner();
        if inner.is_over {
            return;
        }
        inner.files.push_back(Leaving { file, bytes });
        let has_thread = inner.has_thread;
        drop(inner);
        if has_thread {
            self.work.notify_one();
        } else {
            while self.step() != Step::Nothing {}
        }
    }

    /// Bytes that are not free yet.
    pub(super) fn bytes(&self) -> u64 {
        self.inner().files.iter().map(|leaving| leaving.bytes).sum()
    }

    /// From now on a thread frees what comes.
    pub(super) fn has_thread(&self) {
        self.inner().has_thread = true;
    }

    /// The thread ends. What is not free yet is freed by the file system, all at once.
    pub(super) fn end(&self) {
        let mut inner = self.inner();
        inner.is_over = true;
        let files = std::mem::take(&mut inner.files);
        drop(inner);
        drop(files);
        self.work.notify_all();
    }

    /// Frees the next part. One at a time calls it.
    pub(super) fn step(&self) -> Step {
        let (file, left) = match self.inner().files.front() {
            Some(Leaving { file, bytes }) => {
                (Arc::clone(file), bytes.saturating_sub(1) / self.step_bytes * self.step_bytes)
            }
            None => return Step::Nothing,
        };
        let shortened = file.shorten(left);
        if let Err(error) = &shortened {
            warn!(%error, "a segment of the log that was let go cannot be freed in steps; it is freed at once. That may \
                  hold up a commit; nothing is to be done");
        }
        let mut inner = self.inner();
        if left > 0 && shortened.is_ok() {
            if let Some(leaving) = inner.files.front_mut() {
                leaving.bytes = left;
            }
            return Step::Part;
        }
        let done = inner.files.pop_front();
        drop(inner);
        // Closing it is what frees what is left.
        drop((done, file));
        Step::Whole
    }

    /// How long to wait before the next step; `None`: it is over. Waits as long as there is nothing to do.
    pub(super) fn pause(&self) -> Option<Duration> {
        let is_idle = |inner: &mut Inner| inner.files.is_empty() && !inner.is_over;
        let inner = self.work.wait_while(self.inner(), is_idle).unwrap_or_else(PoisonError::into_inner);
        // The more wait, the less can be spared for pauses.
        let waiting = u32::try_from(inner.files.len()).unwrap_or(u32::MAX).max(1);
        (!inner.is_over).then(|| PAUSE / waiting)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is freed at once. The file system measured takes 0.2 ms for it.
pub(super) const STEP_BYTES: u64 = 1 << 20;
/// Between two steps, while one file waits: 64 MiB are free in 0.2 s.
const PAUSE: Duration = Duration::from_millis(2);
