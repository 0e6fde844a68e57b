//! How long a producer that was fenced waits: two gateways of the same id must not fight for ever.

use std::time::Duration;

use super::{Error, SLICE, Watch};

/// How long a producer that was fenced waits before it fences back, at first and at most.
const FENCED_WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// After this time without being fenced, that was an exception.
const FENCED_FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// When and how often this producer was fenced.
#[derive(Default)]
pub(super) struct Fenced {
    times: u32,
    last: Option<Duration>,
}

impl Fenced {
    pub(super) fn again(&mut self, now: Duration) {
        let forgotten = self.last.is_none_or(|last| now.saturating_sub(last) > FENCED_FORGOTTEN_AFTER);
        self.times = if forgotten { 1 } else { self.times.saturating_add(1) };
        self.last = Some(now);
    }

    /// How long to wait after the last time.
    fn pause(&self) -> Duration {
        let doubled = 1 << self.times.saturating_sub(1).min(16);
        (FENCED_WAIT.0 * doubled).min(FENCED_WAIT.1)
    }

    pub(super) fn wait(&self, watch: Watch<'_>) -> Result<(), Error> {
        let Some(last) = self.last else { return Ok(()) };
        while (watch.now)() < last + self.pause() {
            if (watch.stops)() {
                return Err(Error::Stopped);
            }
            std::thread::sleep(SLICE / 5);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_fenced_again_waits_longer() {
        let mut fenced = Fenced::default();
        let pauses: Vec<u64> = (0..9)
            .map(|at| {
                fenced.again(Duration::from_secs(at));
                fenced.pause().as_secs()
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        fenced.again(Duration::from_secs(8) + FENCED_FORGOTTEN_AFTER * 2);
        assert_eq!(fenced.pause(), FENCED_WAIT.0, "long ago");
    }
}
