//! The counts of a gateway.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::seen::{Counted, Seen};
use super::times::{Reading, Times};
use super::{Claim, DAY_SECONDS, Day, Name, News, Person, PersonKey, Tally, Whose};

/// Who went where, and on which day last.
pub struct Counts {
    key: PersonKey,
    /// Drawn anew with every start: what records without a contributor are told apart by.
    chance: PersonKey,
    series: u64,
    times: Times,
    seen: HashMap<Arc<Name>, Seen, RandomState>,
    /// The counts that the policies ask for.
    asked: HashSet<Arc<Name>, RandomState>,
    lost: Option<Day>,
    news: Vec<News>,
}

/// What there is to say when policies ask for counts, of those that there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Noticed {
    /// Those who were counted under a name that no policy has any more count under this name, too.
    CountedOn {
        /// The old name.
        from: Arc<Name>,
        /// The new one.
        to: Arc<Name>,
    },
    /// Persons were counted under a name that no policy has any more, and nothing like it.
    Unasked(Arc<Name>),
    /// The law's file has another period or another zone. Who was counted before counts as of today; who was forgotten before
    /// does not.
    KeptOtherwise(Arc<Name>),
}

impl Counts {
    /// Nobody is counted yet. `chance` is not to be drawn twice.
    #[must_use]
    pub fn new(key: PersonKey, chance: [u8; 16]) -> Self {
        let (times, seen, asked) = (Times::default(), HashMap::default(), HashSet::default());
        Self { key, chance: PersonKey(chance), series: 0, times, seen, asked, lost: None, news: Vec::new() }
    }

    /// The secret under which persons are hashed.
    #[must_use]
    pub fn key(&self) -> PersonKey {
        self.key
    }

    /// How long the gateway had run when the clock was noted last, in seconds.
    #[must_use]
    pub fn ran(&self) -> u64 {
        self.times.ran()
    }

    /// The clocks show this. To be said before anything else is asked, after a start too.
    pub fn see(&mut self, reading: Reading) {
        self.news.extend(self.times.see(reading).map(News::Seen));
    }

    /// A number for records that are decided together: those of them without a contributor are told apart by it.
    pub fn begin(&mut self) -> u64 {
        self.series += 1;
        self.series
    }

    /// Counts a person whose record goes somewhere, if every law that has a say still lets it go. A record without a contributor
    /// is somebody of their own, the same one each time that it is asked about under one number. Whether it may go.
    pub fn admit(&mut self, claims: &[Claim], whose: Whose<'_>, series: u64) -> bool {
        let known = self.times.known();
        for tally in claims.iter().flat_map(|claim| &claim.counted) {
            match self.seen.get_mut(&*tally.name) {
                Some(seen) => seen.turn(tally.about, known),
                None => self.seen.entry(Arc::clone(&tally.name)).or_default().turn(tally.about, known),
            }
        }
        let person = self.person(whose, series);
        let room = |tally: &Arc<Tally>| {
            let seen = self.seen.get(&*tally.name);
            seen.is_some_and(|seen| seen.has_room(tally.most, &person, self.lost))
        };
        if !claims.iter().all(|claim| may_go(claim, room)) {
            return false;
        }
        for claim in claims {
            for tally in &claim.counted {
                self.count(tally, claim.tells_apart.then_some(person));
            }
        }
        true
    }

    /// Whether [`Self::admit`] would let a record go, where this was asked. Counts nobody.
    #[must_use]
    pub fn would_admit(&self, claims: &[Claim], whose: Whose<'_>) -> bool {
        // Who is somebody else each time is in no count.
        let person = self.person(whose, 0);
        let (known, nobody) = (self.times.known(), Seen::default());
        let room = |tally: &Arc<Tally>| {
            self.seen.get(&*tally.name).unwrap_or(&nobody).would_have_room(tally, &person, known, self.lost)
        };
        claims.iter().all(|claim| may_go(claim, room))
    }

    fn person(&self, whose: Whose<'_>, series: u64) -> Person {
        whose.person(&self.key).unwrap_or_else(|| self.chance.somebody(series, whose.row))
    }

    fn count(&mut self, tally: &Tally, person: Option<Person>) {
        let Some(seen) = self.seen.get_mut(&*tally.name) else { return };
        // How it is kept is on disk with the first who is counted.
        if seen.kept().is_none_or(|kept| kept.stopped.is_some()) {
            self.news.push(News::Kept(Arc::clone(&tally.name), seen.keep(tally.about)));
        }
        let counted = match person {
            Some(person) => seen.count(tally.most, person),
            None => seen.count_unlisted(),
        };
        let name = || Arc::clone(&tally.name);
        self.news.extend(match (counted, person) {
            (Counted::Known, _) | (Counted::On(_), None) => None,
            (Counted::On(day), Some(person)) => Some(News::Went(name(), day, person)),
            (Counted::Unlisted(day), _) => Some(News::Unlisted(name(), day)),
        });
    }

    /// The policies ask for these counts from now on. Who was counted under a name that none of them has counts under every name
    /// that has the regime or the condition in common: a law's file or a gateway may only be called otherwise.
    pub fn ask(&mut self, tallies: &[Tally]) -> Vec<Noticed> {
        self.asked = tallies.iter().map(|tally| Arc::clone(&tally.name)).collect();
        let mut noticed = Vec::new();
        for tally in tallies {
            let seen = self.seen.entry(Arc::clone(&tally.name)).or_default();
            if seen.about().is_some_and(|about| about != tally.about) {
                let (day, persons) = seen.put_all_today(tally.about, self.times.known());
                let went = persons.into_iter().map(|person| News::Went(Arc::clone(&tally.name), day, person));
                self.news.extend(went);
                self.news.extend(seen.unlisted.map(|day| News::Unlisted(Arc::clone(&tally.name), day)));
                noticed.push(Noticed::KeptOtherwise(Arc::clone(&tally.name)));
            }
            if !seen.goes_on_as(tally.about) {
                self.news.push(News::Kept(Arc::clone(&tally.name), seen.keep(tally.about)));
            }
        }
        let known = self.times.known();
        let unasked = self.seen.iter().filter(|(name, seen)| !self.asked.contains(*name) && !seen.is_empty(known));
        let mut unasked: Vec<Arc<Name>> = unasked.map(|(name, _)| Arc::clone(name)).collect();
        unasked.sort_unstable();
        for from in unasked {
            if let Some(kept) = self.seen.get_mut(&*from).and_then(|seen| seen.stop(known)) {
                self.news.push(News::Kept(Arc::clone(&from), kept));
            }
            let mut akin = tallies.iter().filter(|tally| tally.name.is_akin(&from)).peekable();
            if akin.peek().is_none() {
                noticed.push(Noticed::Unasked(Arc::clone(&from)));
            }
            for tally in akin {
                self.count_on(&from, tally);
                noticed.push(Noticed::CountedOn { from: Arc::clone(&from), to: Arc::clone(&tally.name) });
            }
        }
        noticed
    }

    /// Those who were counted under a name count in another count, too.
    fn count_on(&mut self, from: &Arc<Name>, tally: &Tally) {
        let Some(old) = self.seen.remove(from) else { return };
        let new = self.seen.entry(Arc::clone(&tally.name)).or_default();
        // Where the days mean something else, nobody knows on which of them a person went last: on the last that there was. That
        // is the same one at each start, so that it is over some day.
        let last = old.stopped(tally.about).filter(|_| old.about() != Some(tally.about));
        for (person, day) in old.persons() {
            let day = last.unwrap_or(day);
            if new.put(person, day) {
                self.news.push(News::Went(Arc::clone(&tally.name), day, person));
            }
        }
        if let Some(day) = old.unlisted.map(|day| last.unwrap_or(day))
            && new.unlisted < Some(day)
        {
            new.put_unlisted(day);
            self.news.push(News::Unlisted(Arc::clone(&tally.name), day));
        }
        self.seen.insert(Arc::clone(from), old);
    }

    /// What was counted before was lost, as is found now.
    pub fn lose(&mut self) {
        // The day after is later than today anywhere on earth.
        let latest = self.times.known().latest.unwrap_or(0);
        let day = latest.div_euclid(1_000_000).div_euclid(DAY_SECONDS).saturating_add(1);
        let day = Day::try_from(day).unwrap_or(Day::MAX);
        self.merge(&News::Lost(day));
        self.news.push(News::Lost(day));
    }

    /// Takes in what was on disk, in whatever order.
    pub fn merge(&mut self, news: &News) {
        match news {
            News::Went(name, day, person) => {
                self.seen.entry(Arc::clone(name)).or_default().put(*person, *day);
            }
            News::Unlisted(name, day) => self.seen.entry(Arc::clone(name)).or_default().put_unlisted(*day),
            News::Lost(day) => self.lost = self.lost.max(Some(*day)),
            News::Kept(name, kept) => self.seen.entry(Arc::clone(name)).or_default().merge_kept(*kept),
            News::Seen(reading) => self.times.merge(*reading),
            News::Known(known) => self.times.merge_known(*known),
        }
    }

    /// What is to be put on disk, in the order in which it became known.
    #[must_use]
    pub fn news(&self) -> &[News] {
        &self.news
    }

    /// The first of the news are on their way to the disk.
    pub fn written(&mut self, news: usize) {
        self.news.drain(..news.min(self.news.len()));
    }

    /// Who does not count any more is forgotten, and so are counts that no policy asks for and in which nobody counts.
    pub fn forget(&mut self) {
        let (known, asked) = (self.times.known(), &self.asked);
        self.seen.retain(|name, seen| {
            seen.forget(known);
            asked.contains(name) || !seen.is_empty(known)
        });
    }

    /// All that is known, as news: what [`Self::merge`] takes in again. In no order.
    #[must_use]
    pub fn all(&self) -> Vec<News> {
        let mut all = Vec::with_capacity(self.listed() + 2);
        all.push(News::Known(self.times.known()));
        all.extend(self.times.waiting().map(News::Seen));
        for (name, seen) in &self.seen {
            all.extend(seen.kept().map(|kept| News::Kept(Arc::clone(name), kept)));
            all.extend(seen.persons().map(|(person, day)| News::Went(Arc::clone(name), day, person)));
            all.extend(seen.unlisted.map(|day| News::Unlisted(Arc::clone(name), day)));
        }
        all.extend(self.lost.map(News::Lost));
        all
    }

    /// How many persons are listed, in all.
    #[must_use]
    pub fn listed(&self) -> usize {
        self.seen.values().map(Seen::listed).sum()
    }

    /// How many persons are listed who do not count any more.
    #[must_use]
    pub fn forgettable(&self) -> usize {
        let known = self.times.known();
        self.seen.values().map(|seen| seen.forgettable(known)).sum()
    }

    /// The counts that there are, each with how many persons are listed, and whether there are others.
    #[must_use]
    pub fn counts(&self) -> Vec<(Arc<Name>, usize, bool)> {
        let counts = self.seen.iter();
        let mut counts: Vec<_> =
            counts.map(|(name, seen)| (Arc::clone(name), seen.listed(), seen.unlisted.is_some())).collect();
        counts.sort_unstable();
        counts
    }

    /// The day before which what was counted was lost, whoever still counts.
    #[must_use]
    pub fn lost_before(&self) -> Option<Day> {
        self.lost
    }

    /// How much of a count is used, in percent. 100: it has no room for anybody else.
    pub fn used(&mut self, tally: &Tally) -> u64 {
        let lost = self.lost;
        self.turned(tally).used(tally.most, lost)
    }

    /// The day before which what was counted was lost, while it keeps a count without room.
    pub fn lost(&mut self, tally: &Tally) -> Option<Day> {
        let lost = self.lost?;
        (lost >= self.turned(tally).counts_from()).then_some(lost)
    }

    fn turned(&mut self, tally: &Tally) -> &Seen {
        let seen = self.seen.entry(Arc::clone(&tally.name)).or_default();
        seen.turn(tally.about, self.times.known());
        seen
    }
}

fn may_go(claim: &Claim, room: impl Fn(&Arc<Tally>) -> bool) -> bool {
    claim.ways.iter().any(|way| way.iter().all(&room))
}
