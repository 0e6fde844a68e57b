//! Who went to one place: the persons of one count, and how many of them count today.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;

use super::times::Known;
use super::{About, Day, Kept, Period, Person, Tally};

/// Who went to one place, and on which day last.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// How the count is kept. `None`: it was written before that was.
    kept: Option<Kept>,
    /// The latest day that anybody went on. It never goes back.
    latest: Option<Day>,
    /// The last day of each person, also of those who do not count any more and are not forgotten yet.
    last: HashMap<Person, Day, RandomState>,
    /// How many persons have which last day.
    days: BTreeMap<Day, u64>,
    /// The last day of anybody who is not listed.
    pub(super) unlisted: Option<Day>,
    window: Window,
}

/// Which days count at a time, and how many persons do.
#[derive(Debug, Clone, Copy)]
struct Window {
    /// What it was worked out for: how the count is kept, the day that holds, and today.
    of: Option<(About, Option<Day>, Day)>,
    /// The first day that counts.
    first_day: Day,
    /// The persons that count.
    counted: u64,
    /// The first day of the period by the latest day that the clock has shown.
    newest_first_day: Day,
    /// The persons that count by that.
    newest: u64,
    /// Who went last before this day is noted again when they go.
    noted_from: Day,
}

impl Default for Window {
    fn default() -> Self {
        let (first_day, newest_first_day, noted_from) = (Day::MIN, Day::MIN, Day::MIN);
        Self { of: None, first_day, counted: 0, newest_first_day, newest: 0, noted_from }
    }
}

/// How a person was counted.
pub(super) enum Counted {
    /// It was known already.
    Known,
    /// They went on this day.
    On(Day),
    /// They are not listed.
    Unlisted(Day),
}

impl Seen {
    /// How the count is kept.
    pub(super) fn kept(&self) -> Option<Kept> {
        self.kept
    }

    pub(super) fn about(&self) -> Option<About> {
        self.kept.map(|kept| kept.about)
    }

    /// Whether the count goes on, and is kept like this.
    pub(super) fn goes_on_as(&self, about: About) -> bool {
        self.kept.is_some_and(|kept| kept.about == about && kept.stopped.is_none())
    }

    /// From now on the count is kept like this, and goes on.
    pub(super) fn keep(&mut self, about: About) -> Kept {
        self.change(about, None)
    }

    /// No policy asks for the count any more: nobody is counted after today. `None`: that is known.
    pub(super) fn stop(&mut self, known: Known) -> Option<Kept> {
        if self.kept.is_some_and(|kept| kept.stopped.is_some()) {
            return None;
        }
        // Where it is not known how it was kept, every day counts.
        let about = self.about().unwrap_or(About { period: Period::Ever, ahead_seconds: 0 });
        let today = self.today(about, known);
        Some(self.change(about, Some(today)))
    }

    fn change(&mut self, about: About, stopped: Option<Day>) -> Kept {
        let revision = self.kept.map_or(0, |kept| kept.revision).saturating_add(1);
        *self.kept.insert(Kept { revision, about, stopped })
    }

    /// Takes in what an entry says of how the count is kept: the latest one holds. Entries of before version 3 do not say
    /// which is later: of these, the one that keeps persons longest holds.
    pub(super) fn merge_kept(&mut self, kept: Kept) {
        self.kept = self.kept.max(Some(kept));
    }

    /// The last day on which anybody can have been counted, as days of another count. `None`: it goes on.
    pub(super) fn stopped(&self, other: About) -> Option<Day> {
        let Kept { about, stopped, .. } = self.kept?;
        // Where the law's time is further ahead, the next day may have begun.
        stopped.map(|day| day.saturating_add(Day::from(other.ahead_seconds > about.ahead_seconds)))
    }

    /// The day has come, as far as is known of the time. Works nothing out while it stays the same.
    pub(super) fn turn(&mut self, about: About, known: Known) {
        let held = known.held.map(|held| about.day(held));
        let today = self.today(about, known);
        if self.window.of == Some((about, held, today)) {
            return;
        }
        let first_day = first_day(about, held);
        let newest_first_day = about.period.first_day(today);
        // Where places come free all at once or never, any day of the period will do.
        let noted_from = if about.period == Period::TwelveMonths { today } else { newest_first_day };
        self.window = Window {
            of: Some((about, held, today)),
            first_day,
            counted: self.counted_from(first_day),
            newest_first_day,
            newest: self.counted_from(newest_first_day),
            noted_from,
        };
    }

    /// The latest day, in the law's time.
    pub(super) fn today(&self, about: About, known: Known) -> Day {
        self.latest.max(known.latest.map(|latest| about.day(latest))).unwrap_or(Day::MIN)
    }

    fn counted_from(&self, first_day: Day) -> u64 {
        self.days.range(first_day..).map(|(_, persons)| persons).sum()
    }

    /// Whether there is room for a person. The day has come, see [`Self::turn`].
    pub(super) fn has_room(&self, most: u64, person: &Person, lost: Option<Day>) -> bool {
        // Who is counted goes on only while the limit holds: beyond it, what the law says of few persons is true of nobody.
        let is_counted = self.last.get(person).is_some_and(|last| *last >= self.window.first_day);
        let others = self.window.counted.saturating_sub(u64::from(is_counted));
        !self.is_open_ended(self.window.first_day, lost) && others < most
    }

    /// The same without [`Self::turn`].
    pub(super) fn would_have_room(&self, tally: &Tally, person: &Person, known: Known, lost: Option<Day>) -> bool {
        let first_day = first_day(tally.about, known.held.map(|held| tally.about.day(held)));
        let is_counted = self.last.get(person).is_some_and(|last| *last >= first_day);
        let others = self.counted_from(first_day).saturating_sub(u64::from(is_counted));
        !self.is_open_ended(first_day, lost) && others < tally.most
    }

    /// Whether some are not counted one by one who may have gone in the period.
    fn is_open_ended(&self, first_day: Day, lost: Option<Day>) -> bool {
        self.unlisted.max(lost).is_some_and(|day| day >= first_day)
    }

    /// Counts a person. The day has come, see [`Self::turn`].
    pub(super) fn count(&mut self, most: u64, person: Person) -> Counted {
        let Window { of: Some((_, _, today)), noted_from, newest, first_day, .. } = self.window else {
            return Counted::Known;
        };
        let last = self.last.get(&person).copied();
        if last.is_some_and(|last| last >= noted_from) {
            return Counted::Known;
        }
        // Those of a new period are listed while the old one goes on counting.
        if newest >= most && last.is_none_or(|last| last < first_day) {
            return self.count_unlisted();
        }
        self.put(person, today);
        Counted::On(today)
    }

    /// Counts persons who are not told apart. The day has come, see [`Self::turn`].
    pub(super) fn count_unlisted(&mut self) -> Counted {
        let Some((_, _, today)) = self.window.of else { return Counted::Known };
        if self.unlisted >= Some(today) {
            return Counted::Known;
        }
        self.put_unlisted(today);
        Counted::Unlisted(today)
    }

    /// A person went on a day, if not on a later one. Whether that is new.
    pub(super) fn put(&mut self, person: Person, day: Day) -> bool {
        let before = self.last.get(&person).copied();
        if before.is_some_and(|before| before >= day) {
            return false;
        }
        self.last.insert(person, day);
        self.latest = self.latest.max(Some(day));
        *self.days.entry(day).or_default() += 1;
        if let Some(before) = before
            && let Some(persons) = self.days.get_mut(&before)
        {
            *persons -= 1;
            if *persons == 0 {
                self.days.remove(&before);
            }
        }
        for (first_day, counted) in
            [(self.window.first_day, &mut self.window.counted), (self.window.newest_first_day, &mut self.window.newest)]
        {
            let is_first = day >= first_day && before.is_none_or(|before| before < first_day);
            *counted += u64::from(is_first);
        }
        true
    }

    /// Somebody who is not listed went on a day.
    pub(super) fn put_unlisted(&mut self, day: Day) {
        self.unlisted = self.unlisted.max(Some(day));
        self.latest = self.latest.max(Some(day));
    }

    /// How many persons are listed, also of those who do not count any more.
    pub(super) fn listed(&self) -> usize {
        self.last.len()
    }

    /// The persons that are listed, each with its last day.
    pub(super) fn persons(&self) -> impl Iterator<Item = (Person, Day)> {
        self.last.iter().map(|(person, day)| (*person, *day))
    }

    /// Whether anybody counts, as far as is known of the time.
    pub(super) fn is_empty(&self, known: Known) -> bool {
        let first_day = self.first_day(known);
        self.counted_from(first_day) == 0 && self.unlisted.is_none_or(|day| day < first_day)
    }

    /// How many persons are listed who do not count any more.
    pub(super) fn forgettable(&self, known: Known) -> usize {
        let counted = usize::try_from(self.counted_from(self.first_day(known))).unwrap_or(usize::MAX);
        self.listed().saturating_sub(counted)
    }

    /// Who does not count any more is forgotten.
    pub(super) fn forget(&mut self, known: Known) {
        let first_day = self.first_day(known);
        if self.days.first_key_value().is_some_and(|(day, _)| *day < first_day) {
            self.days = self.days.split_off(&first_day);
            self.last.retain(|_, last| *last >= first_day);
            self.last.shrink_to_fit();
        }
        self.unlisted = self.unlisted.filter(|day| *day >= first_day);
    }

    /// The first day that counts. Of a count that was written before it was said how it is kept, every day does.
    fn first_day(&self, known: Known) -> Day {
        self.about().map_or(Day::MIN, |about| first_day(about, known.held.map(|held| about.day(held))))
    }

    /// Everybody went today: since when they did is not known.
    pub(super) fn put_all_today(&mut self, about: About, known: Known) -> (Day, Vec<Person>) {
        let today = self.today(about, known);
        let persons: Vec<Person> = self.persons().filter(|(_, day)| *day < today).map(|(person, _)| person).collect();
        for person in &persons {
            self.put(*person, today);
        }
        if self.unlisted.is_some() {
            self.put_unlisted(today);
        }
        (today, persons)
    }

    /// How much is used, in percent. 100: there is no room for anybody else. The day has come, see [`Self::turn`].
    pub(super) fn used(&self, most: u64, lost: Option<Day>) -> u64 {
        let counted = self.window.counted;
        if self.is_open_ended(self.window.first_day, lost) || counted >= most { 100 } else { counted * 100 / most }
    }

    /// The first day that counts. The day has come, see [`Self::turn`].
    pub(super) fn counts_from(&self) -> Day {
        self.window.first_day
    }
}

/// The first day that counts while this day holds.
fn first_day(about: About, held: Option<Day>) -> Day {
    // Everything counts until the clock is known to be right.
    held.map_or(Day::MIN, |held| about.period.first_day(held))
}
