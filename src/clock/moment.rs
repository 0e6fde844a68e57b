//! A moment, for those who are told the time and read no clock.

use std::time::Duration;

/// What both clocks say at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The monotonic time since start.
    pub now: Duration,
    /// The wall clock, in microseconds since the Unix epoch.
    pub wall: i64,
}
