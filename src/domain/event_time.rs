//! Which event times a stream takes.
//!
//! - **Plausible** is what lies between a floor and a ceiling. The ceiling is the clock plus `future_max`. The floor is
//!   `history_from`, if the stream replays history; otherwise the clock minus `late_max`.
//! - **Late** is what lies before the oldest open window of any of the stream's datasets by more than `late_max`. So it is
//!   judged by which windows have closed, and a refusal tells nothing else of other producers.
//! - **Too far** is what would open a window when [as many are open as may be](super::span).

use super::refusal::{Hint, Reason};
use super::span::WindowSpan;
use super::stream::Stream;
use super::window::micros;

/// The event times that a stream takes at a moment, in microseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeBounds {
    /// The oldest that is plausible.
    floor: i64,
    /// The oldest that is taken.
    earliest: i64,
    /// The newest.
    latest: i64,
    /// The windows of everything that is counted of the stream: a record goes into windows of each.
    windows: Vec<WindowSpan>,
}

/// Why an event time is not taken, and what has most likely to be changed.
pub type Untimely = (Reason, Option<Hint>);

impl TimeBounds {
    /// Every time is taken.
    pub const ANY: Self = Self::between(i64::MIN, i64::MAX);
    /// No time is taken.
    pub const NONE: Self = Self::between(i64::MAX, i64::MIN);

    /// What lies between two times, both included.
    #[must_use]
    pub const fn between(earliest: i64, latest: i64) -> Self {
        Self { floor: earliest, earliest, latest, windows: Vec::new() }
    }

    /// What is plausible for a stream, given the wall clock in microseconds since the Unix epoch.
    #[must_use]
    pub fn plausible(stream: &Stream, wall: i64) -> Self {
        let floor = stream.history_from.unwrap_or_else(|| wall.saturating_sub(micros(stream.late_max)));
        Self::between(floor, wall.saturating_add(micros(stream.future_max)))
    }

    /// What is earlier is late.
    #[must_use]
    pub fn not_before(self, earliest: i64) -> Self {
        Self { earliest: self.earliest.max(earliest), ..self }
    }

    /// What opens no window that is too far away, of these too.
    #[must_use]
    pub fn within(mut self, windows: WindowSpan) -> Self {
        self.windows.push(windows);
        self
    }

    /// Whether everything between two times is taken.
    #[must_use]
    pub fn take_all(&self, oldest: i64, newest: i64) -> bool {
        self.earliest <= oldest
            && newest <= self.latest
            && self.windows.iter().all(|span| span.has_room(oldest, newest))
    }

    /// Whether a time is taken after those that were taken by calls before; its window is open from then on.
    ///
    /// # Errors
    /// Why it is not.
    pub fn take(&mut self, time: i64) -> Result<(), Untimely> {
        if time > self.latest {
            return Err((Reason::EventTimeInFuture, self.hint(time)));
        }
        if time < self.earliest {
            return Err((Reason::EventTimeTooOld, self.hint(time)));
        }
        let is_near = WindowSpan::open_in_all(self.windows.iter_mut(), time, time);
        if is_near { Ok(()) } else { Err((Reason::TooManyWindows, None)) }
    }

    /// What the time would be in another unit: only of what is not plausible as it is.
    fn hint(&self, time: i64) -> Option<Hint> {
        let is_plausible = |time: i64| (self.floor..=self.latest).contains(&time);
        if is_plausible(time) {
            return None;
        }
        let read = [
            (time.checked_mul(1_000), Hint::LooksLikeMilliseconds),
            (time.checked_mul(1_000_000), Hint::LooksLikeSeconds),
            (Some(time.div_euclid(1_000)), Hint::LooksLikeNanoseconds),
        ];
        read.into_iter().find(|(time, _)| time.is_some_and(is_plausible)).map(|(_, hint)| hint)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::window::Grid;

    /// 2026-11-25T12:00:00Z.
    const NOW: i64 = 1_795_608_000_000_000;
    const HOUR: i64 = 3_600_000_000;

    fn bounds() -> TimeBounds {
        TimeBounds::between(NOW - HOUR, NOW + HOUR)
    }

    #[test]
    fn a_time_in_another_unit_is_refused_with_the_unit() {
        let hint = |time: i64| bounds().take(time).unwrap_err();
        assert_eq!(hint(NOW / 1_000), (Reason::EventTimeTooOld, Some(Hint::LooksLikeMilliseconds)));
        assert_eq!(hint(NOW / 1_000_000), (Reason::EventTimeTooOld, Some(Hint::LooksLikeSeconds)));
        assert_eq!(hint(NOW * 1_000), (Reason::EventTimeInFuture, Some(Hint::LooksLikeNanoseconds)));
        assert_eq!(hint(-(1 << 62)), (Reason::EventTimeTooOld, None));
        assert_eq!(hint(0), (Reason::EventTimeTooOld, None));
        assert_eq!(bounds().take(NOW), Ok(()));
    }

    #[test]
    fn what_is_late_and_plausible_has_no_hint() {
        let mut bounds = bounds().not_before(NOW);
        assert_eq!(bounds.take(NOW - 1), Err((Reason::EventTimeTooOld, None)));
        assert_eq!(bounds.take(NOW / 1_000), Err((Reason::EventTimeTooOld, Some(Hint::LooksLikeMilliseconds))));
    }

    #[test]
    fn what_is_taken_has_a_window_of_each_size() {
        let span = |seconds, max| WindowSpan::new(Grid::new(Duration::from_secs(seconds), Duration::ZERO), max);
        let mut bounds = bounds().within(span(600, 10)).within(span(60, 10));
        assert_eq!(bounds.take(NOW), Ok(()));
        assert_eq!(bounds.take(NOW + HOUR / 4), Err((Reason::TooManyWindows, None)), "ten of a minute are less");
        assert!(!bounds.take_all(NOW, NOW + HOUR / 4));
        assert!(bounds.take_all(NOW, NOW + HOUR / 10));
        assert_eq!(bounds.take(NOW + HOUR / 10), Ok(()));
    }

    #[test]
    fn what_is_taken_opens_its_window() {
        let mut bounds = bounds().within(WindowSpan::new(Grid::new(Duration::from_secs(60), Duration::ZERO), 10));
        assert_eq!(bounds.take(NOW), Ok(()));
        assert_eq!(bounds.take(NOW + HOUR / 2), Err((Reason::TooManyWindows, None)));
        assert_eq!(bounds.take(NOW - HOUR / 10), Ok(()));
        assert_eq!(bounds.take(NOW + HOUR / 10), Err((Reason::TooManyWindows, None)));
    }

    proptest! {
        /// Taking all at once is taking each.
        #[test]
        fn all_are_taken_if_each_is(times in prop::collection::vec(-30_i64..30, 1..10), max in 1_u64..10) {
            let bounds = TimeBounds::between(-20, 20).not_before(-15).within(WindowSpan::new(Grid::new(Duration::from_micros(5), Duration::ZERO), max));
            let (oldest, newest) = (*times.iter().min().unwrap(), *times.iter().max().unwrap());
            let mut one_by_one = bounds.clone();
            let each = times.iter().all(|time| one_by_one.take(*time).is_ok());
            prop_assert_eq!(bounds.take_all(oldest, newest), each);
        }
    }
}
