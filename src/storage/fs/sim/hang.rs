//! A disk that does not answer: what was asked of it neither succeeds nor fails.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use super::{Disk, Sim};

impl Sim {
    /// From now on a sync of a file does not return, until this is called with `false`.
    pub(crate) fn hang(&self, hangs: bool) {
        self.disk().hangs = hangs;
    }
}

/// Returns when the disk answers.
pub(super) fn pass(disk: &Mutex<Disk>) {
    while disk.lock().unwrap().hangs {
        thread::sleep(Duration::from_millis(1));
    }
}
