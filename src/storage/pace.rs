//! Whether a log gets on. A disk that hangs neither writes nor fails: the log's state stays as it was, and only the time
//! tells.

use std::time::Duration;

use super::{Log, Lsn};

/// Since when a log has something to write and nothing of it became durable, as far as somebody looked.
#[derive(Debug, Default)]
pub struct Pace {
    durable: Lsn,
    since: Option<Duration>,
}

impl Pace {
    /// Looks at the log, at a monotonic time. For how long nothing became durable although something waits; zero if nothing
    /// waits. It is seen from the first look on that finds something waiting.
    pub fn look(&mut self, log: &Log, now: Duration) -> Duration {
        let durable = log.durable();
        if !log.is_behind() {
            self.since = None;
        } else if self.durable != durable || self.since.is_none() {
            self.since = Some(now);
        }
        self.durable = durable;
        self.since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}
