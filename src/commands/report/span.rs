//! The span of time that a report is of.

use jiff::Timestamp;

/// From a time to another one, which is not in it any more. `None`: there is no end on that side.
#[derive(Clone, Copy, Default)]
pub(super) struct Span {
    pub(super) from: Option<Timestamp>,
    pub(super) to: Option<Timestamp>,
}

impl Span {
    pub(super) fn holds(&self, time: Timestamp) -> bool {
        self.from.is_none_or(|from| time >= from) && self.to.is_none_or(|to| time < to)
    }

    /// How much of what lasted from a time to another is in it, from 0 to 1. What did not last is in it, or not.
    pub(super) fn share(&self, since: Timestamp, until: Timestamp) -> f64 {
        if since >= until {
            return if self.holds(since) { 1.0 } else { 0.0 };
        }
        let (begin, end) = (self.from.map_or(since, |from| from.max(since)), self.to.map_or(until, |to| to.min(until)));
        let micros =
            |from: Timestamp, to: Timestamp| to.as_microsecond().saturating_sub(from.as_microsecond()).max(0) as f64;
        micros(begin, end) / micros(since, until).max(1.0)
    }
}
