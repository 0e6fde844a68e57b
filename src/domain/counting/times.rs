//! Which time has surely come. A clock may run ahead, and who was counted may not be forgotten for it.
//!
//! A time that the clock has shown **holds** when the machine has run for 48 hours since by its monotonic clock, over however
//! many starts, and the clock has shown no earlier time meanwhile.

use std::collections::VecDeque;

/// How long the machine must run on after a time, in seconds.
pub const HOLDS_AFTER_SECONDS: u64 = 48 * 60 * 60;
/// The clock is noted when another quarter of an hour begins: a day does so at one of them wherever on earth it begins.
const STEP_MICROS: i64 = 15 * 60 * 1_000_000;

/// What the clocks showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reading {
    /// How long the gateway has run by then, over all its starts, in seconds of the monotonic clock.
    pub ran: u64,
    /// The time, in microseconds since the Unix epoch.
    pub wall: i64,
}

/// What is known of the time, in microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// The latest time that holds. `None`: none has been seen to hold yet.
    pub held: Option<i64>,
    /// The latest time that the clock has ever shown.
    pub latest: Option<i64>,
}

/// The times that were seen.
#[derive(Debug, Default)]
pub(super) struct Times {
    known: Known,
    /// What may yet hold: what was noted later is a later time, too.
    waiting: VecDeque<Reading>,
    /// What was read from the disk and is not put in order yet.
    unsettled: Vec<Reading>,
}

impl Times {
    /// What is known. What was read from the disk is taken in by the next [`Times::see`].
    pub(super) fn known(&self) -> Known {
        self.known
    }

    /// How long the gateway had run when the clock was noted last.
    pub(super) fn ran(&self) -> u64 {
        self.unsettled.iter().chain(&self.waiting).map(|reading| reading.ran).max().unwrap_or(0)
    }

    /// The clocks show this. What is to be noted of it.
    pub(super) fn see(&mut self, reading: Reading) -> Option<Reading> {
        self.settle();
        self.known.latest = self.known.latest.max(Some(reading.wall));
        let is_noted = self.waiting.back().is_some_and(|last| {
            last.wall <= reading.wall && last.wall.div_euclid(STEP_MICROS) == reading.wall.div_euclid(STEP_MICROS)
        });
        if is_noted {
            return None;
        }
        self.take(reading);
        Some(reading)
    }

    /// Takes in what was noted before.
    pub(super) fn merge(&mut self, reading: Reading) {
        self.unsettled.push(reading);
    }

    /// Takes in what was known before.
    pub(super) fn merge_known(&mut self, known: Known) {
        self.known.held = self.known.held.max(known.held);
        self.known.latest = self.known.latest.max(known.latest);
    }

    /// What was noted and may yet hold.
    pub(super) fn waiting(&self) -> impl Iterator<Item = Reading> {
        self.waiting.iter().copied()
    }

    fn settle(&mut self) {
        if self.unsettled.is_empty() {
            return;
        }
        let mut all = std::mem::take(&mut self.unsettled);
        all.extend(self.waiting.drain(..));
        // Of two that were noted at once the earlier time is the later word: it is the one that holds less.
        all.sort_unstable_by_key(|reading| (reading.ran, std::cmp::Reverse(reading.wall)));
        all.dedup();
        for reading in all {
            self.known.latest = self.known.latest.max(Some(reading.wall));
            self.take(reading);
        }
    }

    fn take(&mut self, reading: Reading) {
        // What the clock has gone back behind has not held.
        while self.waiting.back().is_some_and(|last| last.wall > reading.wall) {
            self.waiting.pop_back();
        }
        self.waiting.push_back(reading);
        while let Some(first) = self.waiting.front()
            && reading.ran.saturating_sub(first.ran) >= HOLDS_AFTER_SECONDS
        {
            self.known.held = self.known.held.max(Some(first.wall));
            self.waiting.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 60 * 60 * 1_000_000;

    fn at(ran_hours: u64, wall_hours: i64) -> Reading {
        Reading { ran: ran_hours * 3_600, wall: wall_hours * HOUR }
    }

    fn held(times: &Times) -> Option<i64> {
        times.known().held.map(|held| held / HOUR)
    }

    #[test]
    fn a_time_holds_when_the_machine_has_run_on_for_two_days() {
        let mut times = Times::default();
        for hour in 0..48 {
            assert!(times.see(at(hour, 1_000 + hour.cast_signed())).is_some());
            assert_eq!(held(&times), None);
        }
        times.see(at(48, 1_048));
        assert_eq!(held(&times), Some(1_000));
        // A month passes by the clock alone.
        times.see(at(49, 1_800));
        assert_eq!(held(&times), Some(1_001));
        times.see(at(90, 1_841));
        assert_eq!(held(&times), Some(1_042));
        times.see(at(97, 1_848));
        assert_eq!(held(&times), Some(1_800), "it has run on for two days since");
    }

    #[test]
    fn a_time_that_the_clock_goes_back_behind_does_not_hold() {
        let mut times = Times::default();
        times.see(at(0, 1_000));
        times.see(at(1, 9_000));
        assert!(times.see(at(30, 1_030)).is_some(), "that it went back is noted at once");
        times.see(at(60, 1_060));
        assert_eq!((held(&times), times.known().latest), (Some(1_000), Some(9_000 * HOUR)));
        times.see(at(80, 1_080));
        assert_eq!(held(&times), Some(1_030));
    }

    #[test]
    fn what_was_noted_holds_alike_in_whatever_order_it_is_read() {
        let noted = [at(0, 1_000), at(1, 9_000), at(2, 1_002), at(50, 9_500), at(51, 9_501)];
        let mut orders = vec![noted.to_vec(), noted.iter().rev().copied().collect()];
        orders.push([&noted[2..], &noted[..3], &noted[1..4]].concat());
        for order in orders {
            let mut times = Times::default();
            order.into_iter().for_each(|reading| times.merge(reading));
            assert_eq!(times.ran(), 51 * 3_600);
            assert!(times.see(at(51, 9_501)).is_none(), "it is noted already");
            assert_eq!(held(&times), Some(1_002), "9000 has not");
        }
    }

    #[test]
    fn the_clock_is_noted_when_a_quarter_of_an_hour_begins() {
        let mut times = Times::default();
        let minute = |minute: i64| Reading { ran: 7, wall: minute * 60 * 1_000_000 };
        let noted: Vec<bool> = [3, 14, 15, 29, 31].map(|at| times.see(minute(at)).is_some()).to_vec();
        assert_eq!(noted, [true, false, true, false, true]);
    }
}
