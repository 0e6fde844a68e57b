//! How many bytes may be on their way to the broker at a time.
//!
//! Too many, and on a slow line the broker's answer comes after librdkafka gave up on it, again and again. Too few, and
//! a fast line waits for answers. So it is as many as the line was seen to carry in [`TARGET`].

use std::time::Duration;

/// The time that the bytes on their way should take.
const TARGET: Duration = Duration::from_secs(2);
/// At first: a line of 30 kB/s carries that in nine seconds.
const START: usize = 256 << 10;
/// The least and the most.
const RANGE: (usize, usize) = (16 << 10, 16 << 20);

/// How many bytes may be on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window(usize);

impl Default for Window {
    fn default() -> Self {
        Self(START)
    }
}

impl Window {
    pub(super) fn bytes(self) -> usize {
        self.0
    }

    /// So many bytes, all that were on their way, took so long until the broker had confirmed them.
    pub(super) fn took(&mut self, bytes: usize, time: Duration) {
        let in_target = bytes as f64 * TARGET.as_secs_f64() / time.as_secs_f64().max(1e-4);
        // Few bytes say how long an answer takes, and nothing about how many the line carries.
        let is_telling = bytes >= self.0 / 2 || in_target < self.0 as f64 / 8.0;
        if is_telling {
            let (least, most) = ((self.0 / 4).max(RANGE.0), self.0.saturating_mul(2).min(RANGE.1));
            self.0 = (in_target as usize).clamp(least.min(most), most);
        }
    }

    /// Whether it gets no smaller.
    pub(super) fn is_least(self) -> bool {
        self.0 <= RANGE.0
    }

    /// They did not arrive.
    pub(super) fn failed(&mut self) {
        self.0 = (self.0 / 2).max(RANGE.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The window after so many full rounds on a line of so many bytes per second.
    fn settled(rate: f64, rounds: usize) -> usize {
        let mut window = Window::default();
        for _ in 0..rounds {
            let bytes = window.bytes();
            window.took(bytes, Duration::from_secs_f64(0.001 + bytes as f64 / rate));
        }
        window.bytes()
    }

    #[test]
    fn it_becomes_what_the_line_carries_in_the_target_time() {
        for rate in [30e3, 200e3, 2e6] {
            let carried = rate * TARGET.as_secs_f64();
            let window = settled(rate, 20) as f64;
            assert!((0.9 * carried..=1.01 * carried).contains(&window), "{rate}: {window}");
        }
        assert_eq!((settled(1e9, 20), settled(1e3, 20)), (RANGE.1, RANGE.0));
    }

    #[test]
    fn few_bytes_say_nothing_unless_they_were_slow() {
        let mut window = Window::default();
        window.took(500, Duration::from_millis(30));
        assert_eq!(window.bytes(), START);
        window.took(START / 4, Duration::from_secs(30));
        assert!(window.bytes() < START);
        window.failed();
        assert!(window.bytes() >= RANGE.0 && !window.is_least());
        (0..10).for_each(|_| window.failed());
        assert!(window.bytes() == RANGE.0 && window.is_least());
    }
}
