//! Event-time windows of one stream, and when a window may close.
//!
//! Windows begin on the UTC grid: window `n` begins at `n*h` microseconds since the Unix epoch, where `h` is the step.
//! Most follow one another: each ends where the next one begins. Others overlap: each is several steps long, and a record
//! is in several of them. See [`Grid`]. A window closes when the [watermark](super::watermark) has passed its end by the
//! dataset's grace. A record of which all windows have closed is counted in the oldest one that is still open; a closed
//! window is never opened again.

use std::ops::RangeInclusive;
use std::time::Duration;

/// The number of the last window that begins at or before an event time. It holds that time, where windows do not overlap.
#[must_use]
pub fn window_of(event_time: i64, step: Duration) -> i64 {
    event_time.div_euclid(micros(step).max(1))
}

/// The first event time of a window.
#[must_use]
pub fn window_start(window: i64, step: Duration) -> i64 {
    window.saturating_mul(micros(step))
}

/// A duration in microseconds.
#[must_use]
pub fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// Where the windows of a dataset lie, and which of them a record is in.
///
/// Windows that overlap are of one day (UTC) each, because a budget of privacy is of one day. So those that would go on
/// after midnight do not exist: no record goes into them. The step and the length of the others divide a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Microseconds from the beginning of a window to that of the next one.
    step: i64,
    /// How many steps a window is long.
    steps: i64,
}

impl Grid {
    /// Windows that begin so far apart, and go on for so long after the next one has begun.
    #[must_use]
    pub fn new(step: Duration, overlap: Duration) -> Self {
        let step = micros(step).max(1);
        Self { step, steps: (micros(overlap) / step).saturating_add(1) }
    }

    /// The numbers of the windows that a record goes into by its event time: of those that hold it, the ones that are not
    /// older than `first`, the oldest that may take records. Where all are older, it is the first one from there on that
    /// exists. There is always one. A later time never has an older first window, or an older last one.
    #[must_use]
    pub fn windows(self, event_time: i64, first: i64) -> RangeInclusive<i64> {
        let (oldest, newest) = self.holding(event_time);
        if newest >= first {
            return oldest.max(first)..=newest;
        }
        let next = self.existing(first);
        next..=next
    }

    /// Whether all windows of an event time have closed, where `first` is the oldest window that may take records.
    #[must_use]
    pub fn is_late(self, event_time: i64, first: i64) -> bool {
        self.holding(event_time).1 < first
    }

    /// When the first window begins that exists, of those that begin at or after a time.
    #[must_use]
    pub fn begins_after(self, time: i64) -> i64 {
        self.begins(self.existing(self.first_from(time)))
    }

    /// When a window begins.
    #[must_use]
    pub fn begins(self, window: i64) -> i64 {
        window.saturating_mul(self.step)
    }

    /// In how many windows a record is at most.
    #[must_use]
    pub fn windows_of_a_record(self) -> usize {
        let windows = u64::try_from(self.steps).unwrap_or(u64::MAX);
        let most = if self.overlaps() { windows.min(self.windows_of_a_day()) } else { windows };
        usize::try_from(most).unwrap_or(usize::MAX).max(1)
    }

    /// How many windows of a day there are.
    #[must_use]
    pub fn windows_of_a_day(self) -> u64 {
        let windows = self.steps_of_a_day() - if self.overlaps() { self.steps - 1 } else { 0 };
        u64::try_from(windows).unwrap_or(0)
    }

    /// The number of the first window that begins at or after a time, whether it exists or not.
    #[must_use]
    pub fn first_from(self, time: i64) -> i64 {
        let window = time.div_euclid(self.step);
        if time.rem_euclid(self.step) > 0 { window.saturating_add(1) } else { window }
    }

    fn overlaps(self) -> bool {
        self.steps > 1
    }

    fn steps_of_a_day(self) -> i64 {
        DAY / self.step
    }

    /// The oldest and the newest window that hold an event time.
    fn holding(self, event_time: i64) -> (i64, i64) {
        let at = event_time.div_euclid(self.step);
        if !self.overlaps() {
            return (at, at);
        }
        let of_day = at.rem_euclid(self.steps_of_a_day().max(1));
        let midnight = at.saturating_sub(of_day);
        let oldest = (of_day - self.steps).saturating_add(1).max(0);
        (midnight.saturating_add(oldest), midnight.saturating_add(of_day.min(self.last_of_day())))
    }

    /// The first window from one on that exists.
    fn existing(self, window: i64) -> i64 {
        if !self.overlaps() {
            return window;
        }
        let of_day = window.rem_euclid(self.steps_of_a_day().max(1));
        if of_day <= self.last_of_day() {
            return window;
        }
        window.saturating_add(self.steps_of_a_day() - of_day)
    }

    /// The last window of a day that does not go on after midnight, counted from the first.
    fn last_of_day(self) -> i64 {
        (self.steps_of_a_day() - self.steps).max(0)
    }
}

/// The windows of one dataset that have closed. A time says which ones, not a window's number: numbers mean other windows
/// when the size is changed.
#[derive(Debug)]
pub struct Closing {
    step: Duration,
    /// How long after the next window has begun one closes, seen from the watermark.
    grace: Duration,
    /// Windows that began before this time have closed. `None` until one has.
    before: Option<i64>,
}

impl Closing {
    /// No window has closed yet. They begin so far apart, go on for so long after the next one has begun, and stay open for
    /// so long after their end.
    #[must_use]
    pub fn new(step: Duration, overlap: Duration, grace: Duration) -> Self {
        Self { step, grace: overlap.saturating_add(grace), before: None }
    }

    /// Windows that began before this time, in microseconds since the Unix epoch, have closed. `None` until one has.
    #[must_use]
    pub fn before(&self) -> Option<i64> {
        self.before
    }

    /// What had closed before a crash.
    pub fn restore(&mut self, before: Option<i64>) {
        before.into_iter().for_each(|before| self.close(before));
    }

    /// The same, of a time when window numbers were kept: those with a lesser number than this.
    pub fn restore_window(&mut self, window: Option<i64>) {
        self.restore(window.map(|window| window_start(window, self.step)));
    }

    /// Before which time windows began that the watermark has passed, with their grace. `None`: all of them have closed.
    #[must_use]
    pub fn passed_by(&self, watermark: i64) -> Option<i64> {
        let open = window_of(watermark.saturating_sub(micros(self.grace)), self.step);
        let before = window_start(open, self.step);
        self.before.is_none_or(|known| before > known).then_some(before)
    }

    /// The windows that began before this time close.
    pub fn close(&mut self, before: i64) {
        self.before = self.before.max(Some(before));
    }
}

/// The first window that begins at or after a time. [`i64::MIN`] when there is no time.
#[must_use]
pub fn first_window(time: Option<i64>, step: Duration) -> i64 {
    time.map_or(i64::MIN, |time| Grid::new(step, Duration::ZERO).first_from(time))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The windows that a record goes into, found the slow way: each window is looked at, whether it exists, whether it is still
    /// open, and whether it holds the event time. `step` and `length` in microseconds.
    pub(crate) fn by_definition(event_time: i64, step: i64, length: i64, is_open: impl Fn(i64) -> bool) -> Vec<i64> {
        let exists = |window: &i64| {
            let (first, last) = (window * step, window * step + length - 1);
            length == step || first.div_euclid(DAY) == last.div_euclid(DAY)
        };
        let holds = |window: &i64| (window * step..window * step + length).contains(&event_time);
        let near = event_time / step;
        let around = near - 70..near + 70;
        let holding: Vec<i64> = around.filter(|window| exists(window) && holds(window) && is_open(*window)).collect();
        if !holding.is_empty() {
            return holding;
        }
        (near - 70..).find(|window| exists(window) && is_open(*window)).into_iter().collect()
    }

    /// Steps and lengths in seconds, such that a day is a multiple of both.
    pub(crate) fn steps_and_lengths() -> impl Strategy<Value = (i64, i64)> {
        let lengths = [2_i64, 60, 180, 600, 3_600, 6 * 3_600, 12 * 3_600, 24 * 3_600];
        (prop::sample::select(lengths.to_vec()), prop::sample::select(vec![1_i64, 2, 3, 4, 6, 10, 60, 64]))
            .prop_filter("whole seconds", |(length, times)| length % times == 0)
            .prop_map(|(length, times)| (length / times, length))
    }

    fn grid(step: i64, length: i64) -> Grid {
        Grid::new(Duration::from_secs(step.unsigned_abs()), Duration::from_secs((length - step).unsigned_abs()))
    }

    proptest! {
        #[test]
        fn a_record_is_in_the_windows_that_hold_it_and_are_open(
            (step, length) in steps_and_lengths(),
            day in -2_i64..3,
            from_midnight in prop_oneof![-8_000_i64..8_000, -90_000_i64..90_000],
            micros in prop_oneof![Just(0_i64), Just(-1), 0..1_000_000_i64],
            open_from in prop_oneof![Just(-70_i64), -70..70_i64],
        ) {
            let time = day * DAY + event(from_midnight) + micros;
            let first = time.div_euclid(event(step)) + open_from;
            let windows: Vec<i64> = grid(step, length).windows(time, first).collect();
            let expected = by_definition(time, event(step), event(length), |window| window >= first);
            prop_assert_eq!(&windows, &expected);
            let is_held = expected.first().is_some_and(|first| first * event(step) <= time);
            prop_assert_eq!(grid(step, length).is_late(time, first), !is_held);
            let later = grid(step, length).windows(time + event(step) / 3, first);
            prop_assert!(windows[0] <= *later.start() && windows[windows.len() - 1] <= *later.end());
        }

        #[test]
        fn a_window_closes_when_its_end_and_its_grace_are_over(
            (step, length) in steps_and_lengths(), grace in 0_u64..5_000, watermark in -200_000_i64..200_000,
        ) {
            let overlap = Duration::from_secs((length - step).unsigned_abs());
            let closing = Closing::new(seconds(step.unsigned_abs()), overlap, seconds(grace));
            let before = closing.passed_by(event(watermark)).unwrap();
            prop_assert_eq!(before % event(step), 0);
            let ends = |start: i64| start + event(length) + event(grace.cast_signed());
            prop_assert!(ends(before) > event(watermark), "the oldest open one");
            prop_assert!(ends(before - event(step)) <= event(watermark), "the last closed one");
        }
    }

    #[test]
    fn the_windows_of_a_day_are_those_that_do_not_go_on_after_midnight() {
        for (step, length, windows) in [(600, 3_600, 139), (3_600, 3_600, 24), (43_200, 86_400, 1), (21_600, 43_200, 3)]
        {
            let grid = grid(step, length);
            assert_eq!(grid.windows_of_a_day(), windows);
            let all = (0..86_400 / step).flat_map(|at| grid.windows(event(at * step), i64::MIN));
            assert_eq!(all.collect::<std::collections::BTreeSet<_>>().len() as u64, windows);
        }
        // 23:55 is in the window from 23:00 alone, and 12:00 in six.
        let grid = grid(600, 3_600);
        assert_eq!(grid.windows(event(86_400 - 300), i64::MIN), 138..=138);
        assert_eq!(grid.windows(event(43_200), i64::MIN), 67..=72);
        // All windows of it have closed: it goes into the first of the next day, as those between do not exist.
        assert_eq!(grid.windows(event(86_400 - 300), 139), 144..=144);
        assert_eq!(grid.windows_of_a_record(), 6);
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        for grid in [grid(600, 3_600), grid(1, 64), grid(3_600, 3_600), grid(100_000, 300_000)] {
            for time in [i64::MIN, 0, i64::MAX] {
                for first in [i64::MIN, 0, i64::MAX] {
                    assert!(!grid.windows(time, first).is_empty(), "{grid:?} {time} {first}");
                }
            }
        }
    }

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const fn event(seconds: i64) -> i64 {
        seconds * 1_000_000
    }

    #[test]
    fn a_window_closes_when_the_grace_is_over() {
        let mut closing = Closing::new(seconds(60), Duration::ZERO, seconds(10));
        assert_eq!(closing.passed_by(event(69)), Some(0));
        closing.close(0);
        assert_eq!(closing.passed_by(event(69)), None);
        assert_eq!(closing.passed_by(event(70)), Some(event(60)));
    }

    #[test]
    fn what_has_closed_stays_closed_under_another_size() {
        let mut closing = Closing::new(seconds(60), Duration::ZERO, seconds(0));
        closing.close(closing.passed_by(event(190)).unwrap());
        for (size, first, starts) in [(60, 3, 180), (300, 1, 300), (10, 18, 180), (7, 26, 182)] {
            assert_eq!(first_window(closing.before(), seconds(size)), first);
            assert_eq!(window_start(first, seconds(size)), event(starts));
        }
        assert_eq!(first_window(None, seconds(60)), i64::MIN);
        let mut restored = Closing::new(seconds(60), Duration::ZERO, seconds(0));
        restored.restore_window(Some(3));
        assert_eq!(restored.before(), closing.before());
    }

    #[test]
    fn without_a_grace_a_window_closes_at_its_end() {
        let closing = Closing::new(seconds(60), Duration::ZERO, Duration::ZERO);
        assert_eq!(closing.passed_by(event(60) - 1), Some(0));
        assert_eq!(closing.passed_by(event(60)), Some(event(60)));
    }

    #[test]
    fn windows_lie_on_the_grid_before_the_epoch_too() {
        assert_eq!(window_of(-1, seconds(60)), -1);
        assert_eq!(window_start(-1, seconds(60)), event(-60));
    }
}
