//! Counters: how many distinct persons' records went abroad in the period that a law counts in. A count is exact or too
//! high, never too low.
//!
//! It is a pure state machine: who asks to go where, and when, goes in; whether there is room comes out, with what must be
//! on disk before anybody is told. What is on disk may be read again in any order and more than once, and leads to the same
//! counts: of each person only the last day counts.
//!
//! A person counts as of the latest day that the clock has ever shown, and goes on counting until a day on which they would
//! not any more has been seen to hold: see [`Times`]. So a clock that is turned back frees no place, and one that runs ahead
//! forgets nobody.

mod counts;
mod seen;
mod times;

use std::hash::Hasher;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use siphasher::sip128::{Hasher128, SipHasher24};

use super::name::StreamName;

pub use counts::{Counts, Noticed};
pub use times::{HOLDS_AFTER_SECONDS, Known, Reading};

/// A day, counted from 1 January 1970.
pub type Day = i32;

/// The most persons that the counters of a gateway may be asked to keep apart, in all. Each takes some 20 to 50 bytes of
/// memory.
pub const PERSONS_MAX: u64 = 4_194_304;

const DAY_SECONDS: i64 = 24 * 60 * 60;

/// A person: a keyed hash of the contributor and the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Person(pub [u8; 16]);

/// The secret under which persons are hashed. It lies with their hashes, and lives as long as they do.
#[derive(Clone, Copy)]
pub struct PersonKey(pub [u8; 16]);

impl PersonKey {
    /// The contributor of a record. `None`: the record names none. The same name in two streams may be two persons, so it is.
    #[must_use]
    pub fn person(&self, stream: &str, contributors: &ArrayRef, row: usize) -> Option<Person> {
        if row >= contributors.len() || contributors.is_null(row) {
            return None;
        }
        match contributors.data_type() {
            DataType::Utf8 => {
                let name = contributors.as_string::<i32>().value(row);
                (!name.is_empty()).then(|| self.hash(stream, name.as_bytes()))
            }
            DataType::Int64 => {
                Some(self.hash(stream, &contributors.as_primitive::<Int64Type>().value(row).to_le_bytes()))
            }
            // The loader takes no contributor of another type.
            _ => None,
        }
    }

    /// Somebody who is named by a number and a position alone.
    fn somebody(&self, series: u64, row: usize) -> Person {
        self.hash("", &[series.to_le_bytes(), (row as u64).to_le_bytes()].concat())
    }

    fn hash(&self, of: &str, bytes: &[u8]) -> Person {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(&(of.len() as u64).to_le_bytes());
        hasher.write(of.as_bytes());
        hasher.write(bytes);
        Person(hasher.finish128().as_bytes())
    }
}

/// Whose record it is that goes somewhere.
#[derive(Debug, Clone, Copy)]
pub struct Whose<'r> {
    /// Its stream.
    pub stream: &'r StreamName,
    /// The contributors of its batch.
    pub contributors: Option<&'r ArrayRef>,
    /// Its position in the batch.
    pub row: usize,
}

impl Whose<'_> {
    /// The contributor. `None`: the record names none.
    #[must_use]
    pub fn person(&self, key: &PersonKey) -> Option<Person> {
        key.person(self.stream, self.contributors?, self.row)
    }
}

/// In which period distinct persons are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Period {
    /// From 1 January on.
    CalendarYear,
    /// Twelve months back from today, by day. The same day of last year still counts.
    TwelveMonths,
    /// Ever since the counter began.
    Ever,
}

impl Period {
    /// Every period with its name in the policy language.
    pub const NAMES: [(&'static str, Self); 3] =
        [("calendar-year", Self::CalendarYear), ("twelve-months", Self::TwelveMonths), ("ever", Self::Ever)];

    /// The first day that counts on a day.
    #[must_use]
    pub fn first_day(self, today: Day) -> Day {
        // Without a first day everything counts. So it does where a day is no date, centuries from now.
        self.first_date(today).map_or(Day::MIN, |first| day_of(first).unwrap_or(Day::MIN))
    }

    fn first_date(self, today: Day) -> Option<Date> {
        let today = date_of(today)?;
        match self {
            Self::CalendarYear => Date::new(today.year(), 1, 1).ok(),
            Self::TwelveMonths => today.checked_sub(1.year()).ok(),
            Self::Ever => None,
        }
    }
}

/// How a count is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct About {
    /// Its period.
    pub period: Period,
    /// How far the law's time is ahead of UTC, in seconds.
    pub ahead_seconds: i32,
}

impl About {
    /// The day in the law's time, at a time in microseconds since the Unix epoch.
    #[must_use]
    pub fn day(self, wall: i64) -> Day {
        let seconds = wall.div_euclid(1_000_000).saturating_add(i64::from(self.ahead_seconds));
        Day::try_from(seconds.div_euclid(DAY_SECONDS)).unwrap_or(Day::MAX)
    }

    /// When a day of the law's time is over, in microseconds since the Unix epoch.
    #[must_use]
    pub fn end_of(self, day: Day) -> i64 {
        let seconds = (i64::from(day) + 1) * DAY_SECONDS - i64::from(self.ahead_seconds);
        seconds.saturating_mul(1_000_000)
    }
}

/// How a count is kept, and whether it goes on. Of several that are known of one count, the greatest is the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kept {
    /// How often that was changed. A later one has a greater number. 0: an entry of before version 3.
    pub revision: u64,
    /// How it is kept.
    pub about: About,
    /// The last day on which anybody can have been counted, in the law's time, because no policy asks for the count any
    /// more. `None`: it goes on.
    pub stopped: Option<Day>,
}

/// The date of a day. `None`: it is centuries from now.
#[must_use]
pub fn date_of(day: Day) -> Option<Date> {
    let midnight = Timestamp::from_second(i64::from(day) * DAY_SECONDS).ok()?;
    Some(TimeZone::UTC.to_datetime(midnight).date())
}

fn day_of(date: Date) -> Option<Day> {
    let midnight = TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?;
    Day::try_from(midnight.as_second().div_euclid(DAY_SECONDS)).ok()
}

/// The names that a count goes by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// The counter's rule id.
    pub counter: String,
    /// Where the persons' records go: a country, a gateway, or everywhere that is counted.
    pub to: String,
}

impl Name {
    /// Whether both counters are of one regime, or show the same condition.
    fn is_akin(&self, other: &Self) -> bool {
        let parts = |name: &Self| {
            let (regime, condition) = name.counter.split_once("/counters/")?;
            Some((regime.to_owned(), condition.to_owned()))
        };
        match (parts(self), parts(other)) {
            (Some((regime, condition)), Some((other_regime, other_condition))) => {
                regime == other_regime || condition == other_condition
            }
            _ => self.counter == other.counter,
        }
    }
}

/// One count, as the policies have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Its names.
    pub name: Arc<Name>,
    /// How it is kept.
    pub about: About,
    /// The most persons that may be counted in a period.
    pub most: u64,
}

/// What one law's counters say of records that go to one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Those that count whoever goes there, by whichever row.
    pub counted: Vec<Arc<Tally>>,
    /// The ways in which the law lets them go: one is enough, and of one all must have room. One that is empty needs none.
    pub ways: Vec<Vec<Arc<Tally>>>,
    /// Whether a contributor is one person. Otherwise there is no telling how many went.
    pub tells_apart: bool,
}

/// Who counts persons.
pub trait Counters {
    /// Counts the person whose record goes somewhere, if every law that has a say still lets it go. Whether it may go.
    fn admit(&mut self, claims: &[Claim], whose: Whose<'_>) -> bool;
}

/// Nobody is counted and every counter has room. For looking at what would be decided: nothing may come in or leave by it.
#[derive(Debug, Clone, Copy, Default)]
pub struct NotCounted;

impl Counters for NotCounted {
    fn admit(&mut self, _: &[Claim], _: Whose<'_>) -> bool {
        true
    }
}

/// Something that must be on disk before anybody is told what rests on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A record of a person went somewhere on a day.
    Went(Arc<Name>, Day, Person),
    /// So did those of persons that are not listed: there are more than the counter keeps apart, or they cannot be told apart.
    Unlisted(Arc<Name>, Day),
    /// What was counted before this day was lost: no counter has room until its period has left the day behind.
    Lost(Day),
    /// How a count is kept.
    Kept(Arc<Name>, Kept),
    /// What the clocks showed.
    Seen(Reading),
    /// What is known of the time.
    Known(Known),
}

#[cfg(test)]
mod tests;
