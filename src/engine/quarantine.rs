//! Quarantine: records that may not be taken in yet, in memory and nowhere else. For some laws a quarantine on disk
//! would itself be a recording abroad.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::domain::policy::{Quarantined, Version};

use super::request::Origin;

/// The records that are held.
#[derive(Default)]
pub struct Quarantine {
    inner: Mutex<Inner>,
    bytes_max: usize,
}

#[derive(Default)]
struct Inner {
    held: VecDeque<(u64, Held)>,
    /// What is held, and what was taken out and is not settled yet.
    bytes: usize,
    last: u64,
}

/// Records of one batch.
pub struct Held {
    /// The records.
    pub records: Quarantined,
    /// Who sent them, and from where.
    pub origin: Arc<Origin>,
    /// Whether their request has its place. Before that it may come again, and they with it.
    pub is_placed: bool,
    /// The number under which persons are counted for them, see [`Counts::admit`].
    ///
    /// [`Counts::admit`]: crate::domain::counting::Counts::admit
    pub series: u64,
    /// When they are discarded, by the monotonic clock.
    pub until: Duration,
    /// The version that left them in doubt.
    pub under: Arc<Version>,
}

impl Quarantine {
    /// Holds at most so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { inner: Mutex::default(), bytes_max }
    }

    /// Holds records, under a number of their own. `None` when there is no room.
    #[must_use]
    pub fn hold(&self, held: Held) -> Option<u64> {
        let mut inner = self.lock();
        let bytes = inner.bytes.saturating_add(held.records.bytes());
        if bytes > self.bytes_max {
            return None;
        }
        inner.bytes = bytes;
        inner.last += 1;
        let number = inner.last;
        inner.held.push_back((number, held));
        Some(number)
    }

    /// The request of what is held under a number has its place.
    pub fn placed(&self, number: u64) {
        if let Some((_, held)) = self.lock().held.iter_mut().find(|(known, _)| *known == number) {
            held.is_placed = true;
        }
    }

    /// Lets go of what is held under a number, if it still is: its request was refused as a whole.
    pub fn forget(&self, number: u64) {
        self.lock().discard(|known, _| known == number);
    }

    /// Discards what has been held long enough. How many records that were.
    pub fn expire(&self, now: Duration) -> usize {
        self.lock().discard(|_, held| held.until <= now)
    }

    /// Whether anything was left in doubt by a version that is not in force any more.
    #[must_use]
    pub fn is_stale(&self, current: &Arc<Version>) -> bool {
        self.lock().held.iter().any(|(_, held)| held.is_placed && !Arc::ptr_eq(&held.under, current))
    }

    /// Takes records out that another version than this left in doubt. Their room stays theirs until they are settled.
    #[must_use]
    pub fn take(&self, current: &Arc<Version>) -> Option<Held> {
        let mut inner = self.lock();
        let position = inner.held.iter().position(|(_, held)| held.is_placed && !Arc::ptr_eq(&held.under, current))?;
        inner.held.remove(position).map(|(_, held)| held)
    }

    /// What became of records that were taken out: what is still held of them, if anything is.
    pub fn settle(&self, bytes_before: usize, held: Option<Held>) {
        let mut inner = self.lock();
        inner.bytes = inner.bytes.saturating_sub(bytes_before);
        if let Some(held) = held {
            inner.bytes += held.records.bytes();
            inner.last += 1;
            let number = inner.last;
            inner.held.push_back((number, held));
        }
    }

    /// How many records are held.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.lock().held.iter().map(|(_, held)| held.records.rows()).sum()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Lets go of some. How many records that were.
    fn discard(&mut self, mut is_over: impl FnMut(u64, &Held) -> bool) -> usize {
        let (mut rows, mut bytes) = (0, 0);
        self.held.retain(|(number, held)| {
            let over = is_over(*number, held);
            if over {
                rows += held.records.rows();
                bytes += held.records.bytes();
            }
            !over
        });
        self.bytes = self.bytes.saturating_sub(bytes);
        rows
    }
}
