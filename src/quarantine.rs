//! Quarantine: records that may not be taken in yet, in memory and nowhere else. For some laws a quarantine on disk
//! would itself be a recording abroad.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::domain::policy::{Quarantined, Version};

/// The records that are held.
#[derive(Default)]
pub struct Quarantine {
    held: Mutex<VecDeque<Held>>,
    bytes_max: usize,
}

/// Records of one batch.
pub struct Held {
    /// The records.
    pub records: Quarantined,
    /// The stream's name.
    pub stream: String,
    /// Who sent them.
    pub producer: String,
    /// From where.
    pub address: Option<IpAddr>,
    /// When they are discarded, by the monotonic clock.
    pub until: Duration,
    /// The version that left them in doubt.
    pub under: Arc<Version>,
}

impl Quarantine {
    /// Holds at most so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { held: Mutex::default(), bytes_max }
    }

    /// Holds records. `false` when there is no room.
    #[must_use]
    pub fn hold(&self, held: Held) -> bool {
        let mut all = self.lock();
        let bytes: usize = all.iter().map(|held| held.records.bytes()).sum();
        if bytes.saturating_add(held.records.bytes()) > self.bytes_max {
            return false;
        }
        all.push_back(held);
        true
    }

    /// Discards what has been held long enough. How many records that were.
    pub fn expire(&self, now: Duration) -> usize {
        let mut expired = 0;
        self.lock().retain(|held| {
            let keep = held.until > now;
            expired += if keep { 0 } else { held.records.rows() };
            keep
        });
        expired
    }

    /// Whether anything was left in doubt by a version that is not in force any more.
    #[must_use]
    pub fn is_stale(&self, current: &Arc<Version>) -> bool {
        self.lock().iter().any(|held| !Arc::ptr_eq(&held.under, current))
    }

    /// Takes everything out, to be decided again.
    #[must_use]
    pub fn take(&self) -> Vec<Held> {
        self.lock().drain(..).collect()
    }

    /// How many records are held.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.lock().iter().map(|held| held.records.rows()).sum()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
