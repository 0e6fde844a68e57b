//! Event-time windows of one stream: watermark, lateness, and when a window may close.
//!
//! Windows are tumbling, on the UTC grid: window `n` of size `s` is `[n*s, (n+1)*s)` microseconds since the
//! Unix epoch. The watermark is the least event time that any active producer may still be expected to
//! send; a window closes when the watermark has passed its end by the dataset's grace. What comes later
//! is counted in the oldest window that is still open; a closed window is never opened again.
//!
//! Time comes in as arguments. Two clocks are meant: event time is the records', `now` is monotonic.

use std::collections::BTreeMap;
use std::time::Duration;

use super::binary::{Reader, Writer};

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

/// How far each producer of a stream has come.
#[derive(Debug)]
pub struct Watermark {
    idle_after: Duration,
    producers: BTreeMap<String, Progress>,
    /// Never goes back.
    reached: Option<i64>,
}

#[derive(Debug)]
struct Progress {
    /// The newest event time seen or promised. `None`: the producer is there and has not sent yet.
    newest: Option<i64>,
    /// When it was heard last.
    heard: Duration,
}

impl Watermark {
    /// A watermark that no producer has moved.
    #[must_use]
    pub fn new(idle_after: Duration) -> Self {
        Self { idle_after, producers: BTreeMap::new(), reached: None }
    }

    /// A producer was heard, and perhaps has come to an event time.
    pub fn observe(&mut self, producer: &str, event_time: Option<i64>, now: Duration) {
        if let Some(progress) = self.producers.get_mut(producer) {
            progress.newest = progress.newest.max(event_time);
            progress.heard = now;
        } else {
            self.producers.insert(producer.to_owned(), Progress { newest: event_time, heard: now });
        }
    }

    /// The watermark. While a producer is active: the least event time of the active ones. A producer that
    /// has been silent for longer than `idle_after` is passed over; when all are, the watermark goes on with
    /// the clock from the newest event time, so that the last windows close too. `None` while no producer
    /// has sent, or an active one has not sent yet.
    pub fn at(&mut self, now: Duration) -> Option<i64> {
        let (mut active, mut idle): (Option<i64>, Option<i64>) = (None, None);
        for progress in self.producers.values() {
            let silent = now.saturating_sub(progress.heard);
            if silent > self.idle_after {
                idle = idle.max(progress.newest.map(|newest| newest.saturating_add(micros(silent))));
            } else if let Some(newest) = progress.newest {
                active = Some(active.map_or(newest, |least| least.min(newest)));
            } else {
                return self.reached;
            }
        }
        self.reached = self.reached.max(active.or(idle));
        self.producers.retain(|_, progress| now.saturating_sub(progress.heard) < FORGET_AFTER);
        self.reached
    }
}

impl Watermark {
    /// A watermark that a closed window shows to have been reached, before a crash.
    pub fn restore(&mut self, reached: i64) {
        self.reached = self.reached.max(Some(reached));
    }

    /// Adds the progress of all producers to a checkpoint. When each was heard is left out: clocks do not
    /// outlive the process.
    pub fn encode(&self, writer: &mut Writer) {
        writer.option(self.reached).count(self.producers.len());
        for (producer, progress) in &self.producers {
            writer.text(producer).option(progress.newest);
        }
    }

    /// Reads the progress from a checkpoint into a new watermark; every producer counts as heard `now`.
    pub fn decode(&mut self, reader: &mut Reader<'_>, now: Duration) -> Option<()> {
        self.reached = reader.option()?;
        for _ in 0..reader.count(17)? {
            let producer = reader.text()?.to_owned();
            self.producers.insert(producer, Progress { newest: reader.option()?, heard: now });
        }
        Some(())
    }
}

/// After how long without a word a producer is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

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
    fn the_slowest_producer_holds_the_watermark() {
        let mut watermark = Watermark::new(seconds(30));
        watermark.observe("a", Some(event(100)), seconds(0));
        watermark.observe("b", Some(event(40)), seconds(0));
        assert_eq!(watermark.at(seconds(1)), Some(event(40)));
        watermark.observe("b", Some(event(120)), seconds(2));
        assert_eq!(watermark.at(seconds(2)), Some(event(100)));
    }

    #[test]
    fn a_producer_that_has_not_sent_holds_the_watermark_until_it_is_idle() {
        let mut watermark = Watermark::new(seconds(30));
        watermark.observe("silent", None, seconds(0));
        watermark.observe("a", Some(event(100)), seconds(0));
        assert_eq!(watermark.at(seconds(30)), None);
        watermark.observe("a", Some(event(130)), seconds(31));
        assert_eq!(watermark.at(seconds(31)), Some(event(130)));
    }

    #[test]
    fn an_idle_producer_does_not_hold_an_active_one_back() {
        let mut watermark = Watermark::new(seconds(30));
        watermark.observe("gone", Some(event(10)), seconds(0));
        watermark.observe("a", Some(event(500)), seconds(31));
        assert_eq!(watermark.at(seconds(31)), Some(event(500)));
    }

    #[test]
    fn when_all_are_idle_the_watermark_goes_on_with_the_clock() {
        let mut watermark = Watermark::new(seconds(30));
        watermark.observe("a", Some(event(100)), seconds(0));
        assert_eq!(watermark.at(seconds(30)), Some(event(100)));
        assert_eq!(watermark.at(seconds(45)), Some(event(145)));
    }

    #[test]
    fn the_watermark_never_goes_back() {
        let mut watermark = Watermark::new(seconds(30));
        watermark.observe("a", Some(event(100)), seconds(0));
        assert_eq!(watermark.at(seconds(1)), Some(event(100)));
        watermark.observe("late joiner", Some(event(10)), seconds(2));
        assert_eq!(watermark.at(seconds(2)), Some(event(100)));
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
