//! A disk that does not answer: what was asked of it neither succeeds nor fails.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use super::{Disk, Sim};

/// For as long as it is there, a sync of a file does not return.
pub(crate) struct Hanging(Sim);

impl Sim {
    /// From now on a sync of a file does not return.
    pub(crate) fn hang(&self) -> Hanging {
        self.disk().hangs = true;
        Hanging(self.clone())
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.disk().hangs = false;
    }
}

/// Returns when the disk answers.
pub(super) fn pass(disk: &Mutex<Disk>) {
    while disk.lock().unwrap().hangs {
        thread::sleep(Duration::from_millis(1));
    }
}
