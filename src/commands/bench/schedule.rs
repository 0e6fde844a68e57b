//! When messages are due, and when the load ends. All times count from the beginning of the load.

use std::time::Duration;

/// When messages are due, and when the load ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Messages per second of all calls together; `None`: a message is due when the answer of another one comes.
    pub rate: Option<f64>,
    /// For how long is sent before it is measured.
    pub warm_up: Duration,
    /// When enough is measured.
    pub end: End,
}

/// When enough is measured, counted from the end of the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// After a time.
    After(Duration),
    /// After so many messages.
    Messages(u64),
}

impl Schedule {
    /// When a message is due at a rate; the first one is 0.
    pub(super) fn due(&self, message: u64) -> Option<Duration> {
        let rate = self.rate?;
        Duration::try_from_secs_f64(message as f64 / rate).ok()
    }

    /// How many messages are due by a time, at a rate.
    pub(super) fn due_by(&self, now: Duration) -> u64 {
        let Some(rate) = self.rate else { return 0 };
        // A message that is due at this very moment is one of them.
        let due = (now.as_secs_f64() * rate) as u64 + 1;
        due.min(self.messages().unwrap_or(u64::MAX))
    }

    /// How many messages there are in all, at a rate.
    pub(super) fn messages(&self) -> Option<u64> {
        let rate = self.rate?;
        let within = |time: Duration| (time.as_secs_f64() * rate).ceil() as u64;
        Some(match self.end {
            End::After(length) => within(self.warm_up + length),
            End::Messages(count) => within(self.warm_up) + count,
        })
    }

    /// Whether a message that is sent as soon as it can be comes too late.
    pub(super) fn is_over(&self, now: Duration, measured: u64) -> bool {
        match self.end {
            End::After(length) => now >= self.warm_up + length,
            End::Messages(count) => measured >= count,
        }
    }

    /// Whether a message counts that was sent, or due, at a time.
    pub(super) fn is_measured(&self, start: Duration) -> bool {
        start >= self.warm_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn messages_are_due_evenly_and_counted_when_they_are() {
        let schedule = Schedule { rate: Some(4.0), warm_up: SECOND, end: End::After(SECOND) };
        assert_eq!(schedule.messages(), Some(8));
        let due: Vec<u128> = (0..4).map(|message| schedule.due(message).unwrap().as_millis()).collect();
        assert_eq!(due, [0, 250, 500, 750]);
        for (millis, count) in [(0, 1), (249, 1), (250, 2), (1_000, 5), (9_000, 8)] {
            assert_eq!(schedule.due_by(Duration::from_millis(millis)), count, "{millis}");
        }
        let measured = (0..8).filter(|&message| schedule.is_measured(schedule.due(message).unwrap()));
        assert_eq!(measured.count(), 4);
    }

    #[test]
    fn so_many_messages_are_measured_as_are_asked_for() {
        let schedule = Schedule { rate: Some(3.0), warm_up: Duration::from_millis(500), end: End::Messages(7) };
        let all = 0..schedule.messages().unwrap();
        assert_eq!(all.filter(|&message| schedule.is_measured(schedule.due(message).unwrap())).count(), 7);
    }

    #[test]
    fn without_a_rate_the_end_is_a_time_or_a_number() {
        let schedule = Schedule { rate: None, warm_up: SECOND, end: End::After(SECOND) };
        assert_eq!((schedule.due(0), schedule.messages(), schedule.due_by(SECOND)), (None, None, 0));
        assert!(!schedule.is_over(SECOND * 2 - Duration::from_nanos(1), 9) && schedule.is_over(SECOND * 2, 0));
        let schedule = Schedule { end: End::Messages(3), ..schedule };
        assert!(!schedule.is_over(SECOND * 60, 2) && schedule.is_over(Duration::ZERO, 3));
    }

    proptest::proptest! {
        /// A message is due no later than when it is counted as due, and the pacer that waits for it makes progress.
        #[test]
        fn what_is_due_is_counted(rate in 0.01..5e6_f64, message in 0..10_000_000_u64) {
            let schedule = Schedule { rate: Some(rate), warm_up: Duration::ZERO, end: End::Messages(u64::MAX >> 1) };
            let due = schedule.due(message).unwrap();
            proptest::prop_assert!(schedule.due_by(due + Duration::from_micros(1)) > message);
        }
    }
}
