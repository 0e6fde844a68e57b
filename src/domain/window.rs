//! Event-time windows of one stream, and when a window may close.
//!
//! Windows are tumbling, on the UTC grid: window `n` of size `s` is `[n*s, (n+1)*s)` microseconds since the
//! Unix epoch. A window closes when the [watermark](super::watermark) has passed its end by the dataset's grace. What
//! comes later is counted in the oldest window that is still open; a closed window is never opened again.

use std::time::Duration;

/// The number of the window that holds an event time.
#[must_use]
pub fn window_of(event_time: i64, size: Duration) -> i64 {
    event_time.div_euclid(micros(size).max(1))
}

/// The first event time of a window.
#[must_use]
pub fn window_start(window: i64, size: Duration) -> i64 {
    window.saturating_mul(micros(size))
}

/// A duration in microseconds.
#[must_use]
pub fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The windows of one dataset that have closed. A time says which ones, not a window's number: numbers mean other windows
/// when the size is changed.
#[derive(Debug)]
pub struct Closing {
    size: Duration,
    grace: Duration,
    /// Windows that began before this time have closed. `None` until one has.
    before: Option<i64>,
}

impl Closing {
    /// No window has closed yet.
    #[must_use]
    pub fn new(size: Duration, grace: Duration) -> Self {
        Self { size, grace, before: None }
    }

    /// Windows that began before this time, in microseconds since the Unix epoch, have closed. `None` until one has.
    #[must_use]
    pub fn before(&self) -> Option<i64> {
        self.before
    }

    /// What had closed before a crash.
    pub fn restore(&mut self, before: Option<i64>) {
        self.before = self.before.max(before);
    }

    /// The same, of a time when window numbers were kept: those with a lesser number than this.
    pub fn restore_window(&mut self, window: Option<i64>) {
        self.restore(window.map(|window| window_start(window, self.size)));
    }

    /// Closes what the watermark has passed. Returns the start of the oldest window still open, if it moved.
    pub fn advance(&mut self, watermark: i64) -> Option<i64> {
        let open = window_of(watermark.saturating_sub(micros(self.grace)), self.size);
        let before = window_start(open, self.size);
        if self.before.is_some_and(|known| before <= known) {
            return None;
        }
        self.before = Some(before);
        Some(before)
    }
}

/// The first window that begins at or after a time. [`i64::MIN`] when there is no time.
#[must_use]
pub fn first_window(time: Option<i64>, size: Duration) -> i64 {
    time.map_or(i64::MIN, |time| {
        let window = window_of(time, size);
        if window_start(window, size) < time { window.saturating_add(1) } else { window }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const fn event(seconds: i64) -> i64 {
        seconds * 1_000_000
    }

    #[test]
    fn a_window_closes_when_the_grace_is_over() {
        let mut closing = Closing::new(seconds(60), seconds(10));
        assert_eq!(closing.advance(event(69)), Some(0));
        assert_eq!(closing.advance(event(69)), None);
        assert_eq!(closing.advance(event(70)), Some(event(60)));
        assert_eq!(closing.before(), Some(event(60)));
    }

    #[test]
    fn what_has_closed_stays_closed_under_another_size() {
        let mut closing = Closing::new(seconds(60), seconds(0));
        closing.advance(event(190));
        for (size, first, starts) in [(60, 3, 180), (300, 1, 300), (10, 18, 180), (7, 26, 182)] {
            assert_eq!(first_window(closing.before(), seconds(size)), first);
            assert_eq!(window_start(first, seconds(size)), event(starts));
        }
        assert_eq!(first_window(None, seconds(60)), i64::MIN);
        let mut restored = Closing::new(seconds(60), seconds(0));
        restored.restore_window(Some(3));
        assert_eq!(restored.before(), closing.before());
    }

    #[test]
    fn without_a_grace_a_window_closes_at_its_end() {
        let mut closing = Closing::new(seconds(60), Duration::ZERO);
        assert_eq!(closing.advance(event(60) - 1), Some(0));
        assert_eq!(closing.advance(event(60)), Some(event(60)));
    }

    #[test]
    fn windows_lie_on_the_grid_before_the_epoch_too() {
        assert_eq!(window_of(-1, seconds(60)), -1);
        assert_eq!(window_start(-1, seconds(60)), event(-60));
    }
}
