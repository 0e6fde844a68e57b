//! The clocks: the only place that reads them.

use std::time::{Duration, Instant};

use jiff::Timestamp;

mod moment;

pub use moment::Moment;

/// The clocks of the shell: the monotonic one counts from start.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "where the monotonic clock begins for the shell")]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// The monotonic time since start.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the shell's one reading of the monotonic clock")]
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The wall clock, in microseconds since the Unix epoch.
    #[must_use]
    pub fn wall(&self) -> i64 {
        wall_clock().as_microsecond()
    }

    /// Both.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment { now: self.now(), wall: self.wall() }
    }
}

/// What the process took of all cores since it began.
#[must_use]
pub fn cpu_time() -> Duration {
    cpu(rustix::time::ClockId::ProcessCPUTime)
}

/// What this thread took of a core since it began.
#[must_use]
pub fn thread_cpu_time() -> Duration {
    cpu(rustix::time::ClockId::ThreadCPUTime)
}

fn cpu(clock: rustix::time::ClockId) -> Duration {
    let time = rustix::time::clock_gettime(clock);
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}

/// The wall clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the shell's one reading of the wall clock")]
pub fn wall_clock() -> Timestamp {
    Timestamp::now()
}
