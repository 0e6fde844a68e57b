//! Counters: how many distinct persons' records went abroad in the period that a law counts in. A count is exact or too
//! high, never too low.
//!
//! It is a pure state machine: who asks to go where, and when, goes in; whether there is room comes out, with what must be
//! on disk before anybody is told. What is on disk may be read again in any order and more than once, and leads to the same
//! counts: of each person only the last day counts.

use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use foldhash::fast::RandomState;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use siphasher::sip128::{Hasher128, SipHasher24};

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

    fn hash(&self, of: &str, bytes: &[u8]) -> Person {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(&(of.len() as u64).to_le_bytes());
        hasher.write(of.as_bytes());
        hasher.write(bytes);
        Person(hasher.finish128().as_bytes())
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

/// One count, as the policies have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Its names.
    pub name: Arc<Name>,
    /// Its period.
    pub period: Period,
    /// How far the law's time is ahead of UTC, in seconds.
    pub ahead_seconds: i32,
    /// The most persons that may be counted in a period.
    pub most: u64,
}

impl Tally {
    /// The day in the law's time, at a time in microseconds since the Unix epoch.
    #[must_use]
    pub fn day(&self, wall: i64) -> Day {
        let seconds = wall.div_euclid(1_000_000).saturating_add(i64::from(self.ahead_seconds));
        Day::try_from(seconds.div_euclid(DAY_SECONDS)).unwrap_or(Day::MAX)
    }
}

/// What one law's counters say of records that go to one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Those that count whoever goes there, by whichever row.
    pub counted: Vec<Arc<Tally>>,
    /// The ways in which the law lets them go: one is enough, and of one all must have room. One that is empty needs none.
    pub ways: Vec<Vec<Arc<Tally>>>,
}

/// Who counts persons.
pub trait Counters {
    /// Counts a person whose record goes somewhere, if every law that has a say still lets it go. Whether it may go.
    fn admit(&self, claims: &[Claim], person: &dyn Fn(&PersonKey) -> Option<Person>) -> bool;
}

/// Nobody is counted and every counter has room. For looking at what would be decided: nothing may come in or leave by it.
#[derive(Debug, Clone, Copy, Default)]
pub struct NotCounted;

impl Counters for NotCounted {
    fn admit(&self, _: &[Claim], _: &dyn Fn(&PersonKey) -> Option<Person>) -> bool {
        true
    }
}

/// Something that must be on disk before anybody is told what rests on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A record of a person went somewhere on a day.
    Went(Arc<Name>, Day, Person),
    /// So did those of persons that are not listed: there are more than the counter keeps apart.
    Unlisted(Arc<Name>, Day),
    /// What was counted before this day was lost: no counter has room until its period has left the day behind.
    Lost(Day),
}

/// Who went where, and on which day last.
pub struct Counts {
    key: PersonKey,
    /// Drawn anew with every start: what records without a contributor are told apart by.
    chance: PersonKey,
    nameless: u64,
    seen: HashMap<Arc<Name>, Seen, RandomState>,
    lost: Option<Day>,
    news: Vec<News>,
}

/// Who went to one place.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// The latest day that was seen. It never goes back.
    today: Option<Day>,
    /// The first day that counts.
    first_day: Option<Day>,
    /// The last day of each person.
    last: HashMap<Person, Day, RandomState>,
    /// The last day of anybody who is not listed.
    unlisted: Option<Day>,
}

impl Seen {
    /// The day has come. A day that was seen before changes nothing, so a clock that is turned back frees no place.
    fn turn(&mut self, tally: &Tally, wall: i64) {
        let day = self.today.map_or(tally.day(wall), |today| today.max(tally.day(wall)));
        self.today = Some(day);
        let first_day = tally.period.first_day(day);
        if self.first_day != Some(first_day) {
            self.first_day = Some(first_day);
            self.last.retain(|_, last| *last >= first_day);
            self.unlisted = self.unlisted.filter(|last| *last >= first_day);
        }
    }

    /// The first day that counts at a time in microseconds since the Unix epoch.
    fn first_day_at(&self, tally: &Tally, wall: i64) -> Day {
        tally.period.first_day(self.today.map_or(tally.day(wall), |today| today.max(tally.day(wall))))
    }

    /// Whether some are not counted one by one who may have gone in the period.
    fn is_open_ended(&self, lost: Option<Day>) -> bool {
        self.unlisted.is_some() || lost.is_some_and(|lost| self.first_day.is_none_or(|first_day| lost >= first_day))
    }
}

impl Counts {
    /// Nobody is counted yet. `chance` is not to be drawn twice.
    #[must_use]
    pub fn new(key: PersonKey, chance: [u8; 16]) -> Self {
        let chance = PersonKey(chance);
        Self { key, chance, nameless: 0, seen: HashMap::default(), lost: None, news: Vec::new() }
    }

    /// The secret under which persons are hashed.
    #[must_use]
    pub fn key(&self) -> PersonKey {
        self.key
    }

    /// Counts a person whose record goes somewhere, if every law that has a say still lets it go, at a time in microseconds
    /// since the Unix epoch. Who is `None` is somebody else each time. Whether it may go.
    pub fn admit(&mut self, claims: &[Claim], person: Option<Person>, wall: i64) -> bool {
        let person = person.unwrap_or_else(|| self.somebody());
        for tally in claims.iter().flat_map(|claim| &claim.counted) {
            self.seen.entry(Arc::clone(&tally.name)).or_default().turn(tally, wall);
        }
        let may_go = |claim: &Claim| claim.ways.iter().any(|way| way.iter().all(|tally| self.has_room(tally, &person)));
        if !claims.iter().all(may_go) {
            return false;
        }
        claims.iter().flat_map(|claim| &claim.counted).for_each(|tally| self.count(tally, person));
        true
    }

    fn somebody(&mut self) -> Person {
        self.nameless += 1;
        self.chance.hash("", &self.nameless.to_le_bytes())
    }

    fn has_room(&self, tally: &Tally, person: &Person) -> bool {
        self.seen.get(&*tally.name).is_some_and(|seen| {
            // Who is counted goes on only while the limit holds: beyond it, what the law says of few persons is true of nobody.
            let others = seen.last.len() as u64 - u64::from(seen.last.contains_key(person));
            !seen.is_open_ended(self.lost) && others < tally.most
        })
    }

    fn count(&mut self, tally: &Tally, person: Person) {
        let Some(seen) = self.seen.get_mut(&*tally.name) else { return };
        let Some(today) = seen.today else { return };
        let listed = seen.last.len() as u64;
        let news = match seen.last.get_mut(&person) {
            // Where places come free all at once or never, any day of the period will do.
            Some(last) if *last >= today || tally.period != Period::TwelveMonths => return,
            Some(last) => {
                *last = today;
                News::Went(Arc::clone(&tally.name), today, person)
            }
            None if listed < tally.most => {
                seen.last.insert(person, today);
                News::Went(Arc::clone(&tally.name), today, person)
            }
            None if seen.unlisted == Some(today) => return,
            None => {
                seen.unlisted = Some(today);
                News::Unlisted(Arc::clone(&tally.name), today)
            }
        };
        self.news.push(news);
    }

    /// What was counted before was lost, as is found at a time in microseconds since the Unix epoch.
    pub fn lose(&mut self, wall: i64) {
        // The day after is later than today anywhere on earth.
        let day = wall.div_euclid(1_000_000).div_euclid(DAY_SECONDS).saturating_add(1);
        let day = Day::try_from(day).unwrap_or(Day::MAX);
        self.merge(&News::Lost(day));
        self.news.push(News::Lost(day));
    }

    /// Takes in what was on disk, in whatever order.
    pub fn merge(&mut self, news: &News) {
        match news {
            News::Went(name, day, person) => {
                let seen = Self::seen_on(&mut self.seen, name, *day);
                let last = seen.last.entry(*person).or_insert(*day);
                *last = (*last).max(*day);
            }
            News::Unlisted(name, day) => {
                let seen = Self::seen_on(&mut self.seen, name, *day);
                seen.unlisted = seen.unlisted.max(Some(*day));
            }
            News::Lost(day) => self.lost = self.lost.max(Some(*day)),
        }
    }

    fn seen_on<'s>(all: &'s mut HashMap<Arc<Name>, Seen, RandomState>, name: &Arc<Name>, day: Day) -> &'s mut Seen {
        let seen = all.entry(Arc::clone(name)).or_default();
        seen.today = seen.today.max(Some(day));
        // Who is put back may be from before the period.
        seen.first_day = None;
        seen
    }

    /// What is not on disk yet, the oldest first.
    #[must_use]
    pub fn news(&self) -> &[News] {
        &self.news
    }

    /// So many of the news are on their way to the disk.
    pub fn written(&mut self, news: usize) {
        self.news.drain(..news.min(self.news.len()));
    }

    /// All that is known, as news, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<News> {
        let mut all = Vec::with_capacity(self.listed() + 1);
        for (name, seen) in &self.seen {
            all.extend(seen.last.iter().map(|(person, day)| News::Went(Arc::clone(name), *day, *person)));
            all.extend(seen.unlisted.map(|day| News::Unlisted(Arc::clone(name), day)));
        }
        all.extend(self.lost.map(News::Lost));
        all
    }

    /// How many persons are listed, in all.
    #[must_use]
    pub fn listed(&self) -> usize {
        self.seen.values().map(|seen| seen.last.len()).sum()
    }

    /// How much of a count is used at a time in microseconds since the Unix epoch, in percent. 100: it has no room for
    /// anybody else.
    #[must_use]
    pub fn used(&self, tally: &Tally, wall: i64) -> u64 {
        let nobody = Seen::default();
        let seen = self.seen.get(&*tally.name).unwrap_or(&nobody);
        let first_day = seen.first_day_at(tally, wall);
        let counts = |last: &Day| *last >= first_day;
        let listed = if seen.first_day == Some(first_day) {
            seen.last.len()
        } else {
            seen.last.values().filter(|last| counts(last)).count()
        };
        let is_open_ended = seen.unlisted.as_ref().is_some_and(counts) || self.lost(tally, wall).is_some();
        if is_open_ended || listed as u64 >= tally.most { 100 } else { listed as u64 * 100 / tally.most }
    }

    /// The day before which what was counted was lost, while it keeps a count without room at a time in microseconds since
    /// the Unix epoch.
    #[must_use]
    pub fn lost(&self, tally: &Tally, wall: i64) -> Option<Day> {
        let nobody = Seen::default();
        let first_day = self.seen.get(&*tally.name).unwrap_or(&nobody).first_day_at(tally, wall);
        self.lost.filter(|lost| *lost >= first_day)
    }
}

#[cfg(test)]
mod tests;
