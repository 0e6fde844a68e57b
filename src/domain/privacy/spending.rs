//! What has been spent of the budgets of privacy: a pure state machine, which may be told the same thing twice.
//!
//! A budget is for the contributors of one stream, for one day (UTC) of event time. All datasets of the stream spend it, under
//! whatever name and whichever regimes govern them, so that a new name or another regime is no new budget.

use std::collections::BTreeMap;

use super::Rho;
use crate::domain::name::{DatasetName, StreamName};

/// A day, counted since 1970, UTC.
pub type Day = i32;

/// Microseconds of a day.
const MICROS: i64 = 86_400_000_000;

/// The day of a time in microseconds since the Unix epoch.
#[must_use]
pub fn day_of(time: i64) -> Day {
    Day::try_from(time.div_euclid(MICROS)).unwrap_or(Day::MAX)
}

/// So many days are known apart of a stream's contributors, back from the last one that something was spent of. Of a day before
/// them nothing is left.
const DAYS: Day = 62;

/// What is released once: a window of a dataset, or what was in it when it was flushed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WindowKey {
    /// The dataset.
    pub dataset: DatasetName,
    /// When the window began, in microseconds since the Unix epoch.
    pub start: i64,
    /// Which part of the window it is.
    pub part: u64,
}

/// What a release costs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Charge {
    /// The stream of the contributors.
    pub stream: StreamName,
    /// The field that names them.
    pub contributor: String,
    /// Of which window.
    pub window: WindowKey,
    /// How much.
    pub rho: Rho,
}

impl Charge {
    fn day(&self) -> Day {
        day_of(self.window.start)
    }
}

/// That a charge is on disk: what noise may be drawn for, once. There is no other way to a number with noise.
#[derive(Debug)]
pub struct Charged(Rho);

impl Charged {
    /// Only for who has put it on disk: `durable::spending`.
    #[must_use]
    pub fn charge_is_on_disk(charge: &Charge) -> Self {
        Self(charge.rho)
    }

    /// How much.
    #[must_use]
    pub fn rho(&self) -> Rho {
        self.0
    }
}

/// What is said to a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// There is enough left.
    Affordable,
    /// There is not.
    Spent,
    /// This window was charged before. What noise was drawn then, if any, is not drawn again.
    Before,
}

/// What has been spent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spending {
    /// By stream, contributor and day.
    charged: BTreeMap<(StreamName, String, Day), BTreeMap<WindowKey, Rho>>,
    /// Of the days through this one nothing is left: what was spent of them is not known.
    unknown_through: Option<Day>,
}

impl Spending {
    /// Whether a charge can be made, when a day has so much.
    #[must_use]
    pub fn ask(&self, charge: &Charge, per_day: Rho) -> Answer {
        let account = self.account(charge);
        if account.is_some_and(|windows| windows.contains_key(&charge.window)) {
            return Answer::Before;
        }
        let last = self.last_of(&charge.stream, &charge.contributor);
        let through = self.unknown_through.max(last.map(|last| last.saturating_sub(DAYS)));
        if through.is_some_and(|through| charge.day() <= through) {
            return Answer::Spent;
        }
        let spent = account.into_iter().flat_map(BTreeMap::values).fold(Rho::default(), |sum, rho| sum.and(*rho));
        if spent.and(charge.rho) <= per_day { Answer::Affordable } else { Answer::Spent }
    }

    fn account(&self, charge: &Charge) -> Option<&BTreeMap<WindowKey, Rho>> {
        self.charged.get(&(charge.stream.clone(), charge.contributor.clone(), charge.day()))
    }

    /// What is spent of a stream's contributors on a day.
    #[must_use]
    pub fn spent(&self, stream: &StreamName, contributor: &str, day: Day) -> Rho {
        let windows = self.charged.get(&(stream.clone(), contributor.to_owned(), day));
        windows.into_iter().flat_map(BTreeMap::values).fold(Rho::default(), |sum, rho| sum.and(*rho))
    }

    /// A charge was made. The same one twice counts once, and of two amounts the greater.
    pub fn charge(&mut self, charge: Charge) {
        let day = charge.day();
        let Charge { stream, contributor, window, rho } = charge;
        let last = self.last_of(&stream, &contributor).map_or(day, |last| last.max(day));
        let forgotten = (stream.clone(), contributor.clone(), Day::MIN)
            ..=(stream.clone(), contributor.clone(), last.saturating_sub(DAYS));
        let spent = self.charged.entry((stream, contributor, day)).or_default().entry(window).or_default();
        *spent = rho.max(*spent);
        let forgotten: Vec<_> = self.charged.range(forgotten).map(|(account, _)| account.clone()).collect();
        for account in forgotten {
            self.charged.remove(&account);
        }
    }

    /// The last day that something was spent of, of a stream's contributors.
    fn last_of(&self, stream: &StreamName, contributor: &str) -> Option<Day> {
        let of = |day| (stream.clone(), contributor.to_owned(), day);
        self.charged.range(of(Day::MIN)..=of(Day::MAX)).next_back().map(|((.., day), _)| *day)
    }

    /// The last day that something was spent of.
    #[must_use]
    pub fn last_day(&self) -> Option<Day> {
        self.charged.keys().map(|(_, _, day)| *day).max()
    }

    /// Of the days through this one nothing is left.
    pub fn forget(&mut self, through: Day) {
        self.unknown_through = self.unknown_through.max(Some(through));
        // What is known of later days stays.
        self.charged.retain(|(_, _, day), _| *day > through);
    }

    /// Through which day nothing is left, because what was spent is not known.
    #[must_use]
    pub fn unknown_through(&self) -> Option<Day> {
        self.unknown_through
    }

    /// All charges that are known.
    pub fn charges(&self) -> impl Iterator<Item = Charge> {
        self.charged.iter().flat_map(|((stream, contributor, _), windows)| {
            windows.iter().map(|(window, rho)| Charge {
                stream: stream.clone(),
                contributor: contributor.clone(),
                window: window.clone(),
                rho: *rho,
            })
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn charge(dataset: &str, start: i64, rho: u64) -> Charge {
        let window = WindowKey { dataset: dataset.parse().unwrap(), start, part: 0 };
        Charge {
            stream: "visits".parse().unwrap(),
            contributor: "person".into(),
            window,
            rho: Rho::from_billionths(rho),
        }
    }

    const HOUR: i64 = MICROS / 24;

    #[test]
    fn a_day_gives_no_more_than_it_has() {
        let (mut spending, per_day) = (Spending::default(), Rho::from_billionths(10));
        for hour in 0..3 {
            let charge = charge("one", hour * HOUR, 3);
            assert_eq!(spending.ask(&charge, per_day), Answer::Affordable, "{hour}");
            spending.charge(charge.clone());
            assert_eq!(spending.ask(&charge, per_day), Answer::Before, "{hour}");
        }
        assert_eq!(spending.spent(&"visits".parse().unwrap(), "person", 0), Rho::from_billionths(9));
        assert_eq!(spending.ask(&charge("one", 3 * HOUR, 3), per_day), Answer::Spent);
        assert_eq!(spending.ask(&charge("one", 3 * HOUR, 1), per_day), Answer::Affordable);
        // A new name of the dataset is no new budget. Another day, stream and contributor is.
        assert_eq!(spending.ask(&charge("other", 3 * HOUR, 3), per_day), Answer::Spent);
        assert_eq!(spending.ask(&charge("one", 24 * HOUR, 3), per_day), Answer::Affordable);
        assert_eq!(spending.ask(&charge("one", -1, 3), per_day), Answer::Affordable);
        let of_others = Charge { stream: "others".parse().unwrap(), ..charge("one", 3 * HOUR, 3) };
        assert_eq!(spending.ask(&of_others, per_day), Answer::Affordable);
        // A part of a window costs as much as a window.
        let part = WindowKey { part: 7, ..charge("one", 0, 3).window };
        assert_eq!(spending.ask(&Charge { window: part, ..charge("one", 0, 3) }, per_day), Answer::Spent);
    }

    #[test]
    fn what_is_told_twice_counts_once() {
        let mut once = Spending::default();
        [charge("one", 0, 3), charge("one", HOUR, 2)].into_iter().for_each(|charge| once.charge(charge));
        let mut again = Spending::default();
        once.charges().chain(once.charges()).for_each(|charge| again.charge(charge));
        assert_eq!(again, once);
        assert_eq!(once.charges().count(), 2);
    }

    #[test]
    fn of_days_that_are_not_known_nothing_is_left() {
        let (mut spending, per_day) = (Spending::default(), Rho::from_billionths(10));
        spending.charge(charge("one", 24 * HOUR, 3));
        spending.forget(0);
        assert_eq!(spending.ask(&charge("one", 23 * HOUR, 1), per_day), Answer::Spent);
        assert_eq!(spending.ask(&charge("one", 25 * HOUR, 1), per_day), Answer::Affordable);
        assert_eq!(spending.ask(&charge("one", 24 * HOUR, 1), per_day), Answer::Before);
        // Days go by: what is long ago is forgotten, and then spent. That is so of this stream, and of no other.
        let of_others = |hours| Charge { stream: "others".parse().unwrap(), ..charge("one", hours * HOUR, 1) };
        spending.charge(of_others(25));
        spending.charge(charge("one", MICROS * i64::from(DAYS + 2), 1));
        assert_eq!(spending.unknown_through(), Some(0));
        assert_eq!(spending.ask(&charge("one", 25 * HOUR, 1), per_day), Answer::Spent);
        assert_eq!(spending.ask(&charge("one", 3 * MICROS - 1, 1), per_day), Answer::Spent);
        assert_eq!(spending.ask(&charge("one", 3 * MICROS, 1), per_day), Answer::Affordable);
        assert_eq!(spending.ask(&of_others(26), per_day), Answer::Affordable);
        assert_eq!(spending.charges().count(), 2);
    }
}
