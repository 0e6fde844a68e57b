//! Counts the persons whose records go abroad, for the laws that ask for it, and puts them on disk before anybody is told what
//! rests on it.
//!
//! A person is counted in memory, under a lock, while a batch is decided. Before the batch gets its place, all that was
//! counted by then is on disk, whoever counted it. So a crash can leave a person counted whose record went nowhere, and no
//! record gone whose person is not counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::domain::counting::{Claim, Counters, Counts, Day, News, Noticed, PersonKey, Reading, Tally, Whose};
use crate::domain::refusal::Reason;
use crate::durable::counting::{Found, SEGMENT_BYTES, key_entry, next_entry, put_in_groups};
use crate::storage::{Error, Log, Lsn, NoRoom, Room, Usage};

/// How long somebody waits for the disk before it looks again.
const BEHIND_MAX: Duration = Duration::from_millis(100);
/// Bytes that are written before it is worth while to write everything anew.
const TIDY_BYTES: u64 = 8 << 20;
/// What a person takes on disk, at most, when everything is written anew.
const PERSON_BYTES: u64 = 20;
/// Persons who do not count any more, from which on it is worth while to forget them.
const FORGET_PERSONS: usize = 10_000;
/// How long it takes until it is tried again to write everything anew.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The counters of a gateway.
pub struct Counting {
    state: Mutex<State>,
    log: Option<Log>,
    clock: Clock,
    /// How long the gateway had run before this start, in seconds.
    ran_before: u64,
    is_tidying: AtomicBool,
}

struct State {
    counts: Counts,
    /// The last position that was given out.
    last: Lsn,
    /// The bytes on disk since everything was written anew, what was written then included.
    bytes: u64,
    /// Whether the secret is on its way to the disk, or there.
    has_key: bool,
    /// Everything through this position was written once more, and is not let go of yet.
    needless: Option<Lsn>,
    /// Not before this time it is tried again to write everything anew.
    again_at: Duration,
}

impl Counting {
    /// Counts on from what was found.
    #[must_use]
    pub fn new(found: Found, clock: Clock) -> Self {
        let Found { log, counts, last, bytes, has_key, .. } = found;
        let ran_before = counts.ran();
        let state = Mutex::new(State { counts, last, bytes, has_key, needless: None, again_at: Duration::ZERO });
        Self { state, log: Some(log), clock, ran_before, is_tidying: AtomicBool::new(false) }
    }

    /// Counts nobody: no policy asks for it. What rests on a counter is refused.
    #[must_use]
    pub fn none(clock: Clock) -> Self {
        let counts = Counts::new(PersonKey([0; 16]), [0; 16]);
        let (last, bytes, has_key, needless, again_at) = (0, 0, false, None, Duration::ZERO);
        let state = Mutex::new(State { counts, last, bytes, has_key, needless, again_at });
        Self { state, log: None, clock, ran_before: 0, is_tidying: AtomicBool::new(false) }
    }

    /// The log that it writes to. `None`: it counts nobody.
    #[must_use]
    pub fn log(&self) -> Option<&Log> {
        self.log.as_ref()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, and the counts are told what the clocks show. The time, in microseconds since the Unix epoch.
    fn lock_now(&self) -> (MutexGuard<'_, State>, i64) {
        let mut state = self.lock();
        let (ran, wall) = (self.ran_before.saturating_add(self.clock.now().as_secs()), self.clock.wall());
        state.counts.see(Reading { ran, wall });
        (state, wall)
    }

    /// Decides about records that are decided together. Nobody else counts until it is dropped, once it has counted.
    #[must_use]
    pub fn begin(&self) -> Admission<'_> {
        let series = self.lock().counts.begin();
        self.begin_as(series)
    }

    /// The same for records that may be decided before they are taken in, again and again: under one number, in the same order.
    pub(super) fn begin_as(&self, series: u64) -> Admission<'_> {
        Admission { counting: self, at: None, series, until: i64::MAX }
    }

    /// A number for [`Self::begin_as`].
    pub(super) fn series(&self) -> u64 {
        self.lock().counts.begin()
    }

    /// Says what would be decided. Counts nobody.
    #[must_use]
    pub fn look(&self) -> Look<'_> {
        Look { counting: self, state: None }
    }

    /// The policies ask for these counts from now on. What there is to say of it.
    pub fn ask(&self, tallies: &[Tally]) -> Vec<Noticed> {
        let (mut state, _) = self.lock_now();
        state.counts.ask(tallies)
    }

    /// Time has passed: what the clocks show is noted, on its way to the disk.
    pub fn tick(&self) {
        let Some(log) = &self.log else { return };
        let (state, _) = self.lock_now();
        let is_news = !state.counts.news().is_empty();
        drop(state);
        if is_news {
            // Where there is no room now there may be at the next tick, and nobody waits for it.
            let _ = self.submit(log);
        }
    }

    /// Whether what was counted still holds: no law's day has ended since the decision.
    #[must_use]
    pub(super) fn is_still(&self, until: i64) -> bool {
        self.clock.wall() < until
    }

    /// Returns when all that is counted by now is on disk.
    ///
    /// # Errors
    /// Why it cannot be put there now.
    pub(super) async fn durable(&self) -> Result<(), Reason> {
        let Some(log) = &self.log else { return Err(Reason::Internal) };
        let through = loop {
            match self.submit(log) {
                Ok(last) => break last,
                Err(NoRoom::Behind) => is_durable(log, log.durable() + 1).await,
                Err(NoRoom::Full | NoRoom::TooLarge { .. }) => return Err(Reason::Overloaded),
                Err(NoRoom::Failing { .. } | NoRoom::NumbersExhausted) => return Err(Reason::JournalFailing),
                Err(NoRoom::Closed) => return Err(Reason::Stopping),
            }
        };
        while log.durable() < through {
            is_durable(log, through).await;
            if log.durable() < through && log.is_failing() {
                return Err(Reason::JournalFailing);
            }
        }
        Ok(())
    }

    /// Submits what is counted and not submitted yet. The position through which all is then.
    fn submit(&self, log: &Log) -> Result<Lsn, NoRoom> {
        let mut state = self.lock();
        if state.counts.news().is_empty() {
            return Ok(state.last);
        }
        if !leaves_room_for_all(log.usage(), state.counts.listed()) {
            return Err(NoRoom::Full);
        }
        if !state.has_key {
            // The secret is on disk before anybody is counted under it.
            let entry = key_entry(state.counts.key());
            let room = log.reserve(entry.len() as u64)?;
            state.has_key = true;
            state.write(log, entry, room);
        }
        while let Some((entry, news)) = next_entry(state.counts.news()) {
            let room = log.reserve(entry.len() as u64)?;
            state.counts.written(news);
            state.write(log, entry, room);
        }
        Ok(state.last)
    }

    /// Whether nobody else can be counted for lack of space.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.log.as_ref().is_some_and(|log| {
            log.reserve(0).is_err_and(|why| why == NoRoom::Full)
                || !leaves_room_for_all(log.usage(), self.lock().counts.listed())
        })
    }

    /// Whether it is worth while to write everything anew: more is on disk than need be, or old entries are still
    /// there.
    #[must_use]
    pub fn is_untidy(&self) -> bool {
        let Some(log) = &self.log else { return false };
        let state = self.lock();
        let listed = state.counts.listed();
        let is_untidy = state.needless.is_some()
            || state.counts.forgettable() >= FORGET_PERSONS
            || state.bytes > TIDY_BYTES.max(listed as u64 * PERSON_BYTES * 3)
            || !leaves_room_for_all(log.usage(), listed);
        is_untidy && self.clock.now() >= state.again_at
    }

    /// Writes everything anew, and lets go of what stands before. Waits for the disk; nobody counts any slower meanwhile. Does
    /// nothing while another thread does it. Where there is no room to write all, everything stays, and it is tried again.
    ///
    /// # Errors
    /// When what is not needed any more cannot be let go of. It can be tried again.
    pub fn tidy(&self) -> Result<(), Error> {
        let Some(log) = &self.log else { return Ok(()) };
        if self.is_tidying.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        // First what an earlier attempt has left: there may be no room before.
        let tidied = self.let_go(log).and_then(|()| match self.write_anew(log) {
            Ok(()) => self.let_go(log).map(|()| true),
            Err(_) => Ok(false),
        });
        if !matches!(tidied, Ok(true)) {
            self.lock().again_at = self.clock.now() + AGAIN_AFTER;
        }
        self.is_tidying.store(false, Ordering::Release);
        tidied.map(drop)
    }

    /// Lets go of what was written once more.
    fn let_go(&self, log: &Log) -> Result<(), Error> {
        let needless = self.lock().needless;
        if let Some(through) = needless {
            log.let_go(through)?;
            self.lock().needless = None;
        }
        Ok(())
    }

    /// Writes everything once more. When this returns without an error, all of it is on disk.
    fn write_anew(&self, log: &Log) -> Result<(), NoRoom> {
        let (key, mut all, before, bytes_before) = {
            let (mut state, _) = self.lock_now();
            state.counts.forget();
            (state.counts.key(), state.counts.all(), state.last, state.bytes)
        };
        put_in_groups(&mut all);
        let mut rest: &[News] = &all;
        let mut entry = Some((key_entry(key), 0));
        while let Some((bytes, news)) = entry {
            let room = loop {
                // In the space that is left when nobody else is counted any more: this makes room.
                match log.reserve_control(bytes.len() as u64) {
                    Ok(room) => break room,
                    Err(NoRoom::Behind) => drop(log.wait_beyond(log.durable(), BEHIND_MAX)),
                    Err(why) => return Err(why),
                }
            };
            let mut state = self.lock();
            state.has_key = true;
            state.write(log, bytes, room);
            drop(state);
            rest = rest.get(news..).unwrap_or_default();
            entry = next_entry(rest);
        }
        let last = self.lock().last;
        if !log.wait_durable(last) {
            return Err(NoRoom::Closed);
        }
        let mut state = self.lock();
        state.bytes = state.bytes.saturating_sub(bytes_before);
        state.needless = Some(before);
        Ok(())
    }

    /// How much of a count is used, in percent. 100: it has no room for anybody else.
    #[must_use]
    pub fn used(&self, tally: &Tally) -> u64 {
        self.lock_now().0.counts.used(tally)
    }

    /// The day before which what was counted was lost, while it keeps a count without room.
    #[must_use]
    pub fn lost(&self, tally: &Tally) -> Option<Day> {
        self.lock_now().0.counts.lost(tally)
    }

    /// Writes what was submitted, and ends.
    pub fn close(&self) {
        if let Some(log) = &self.log {
            log.close();
        }
    }
}

impl State {
    fn write(&mut self, log: &Log, entry: Vec<u8>, room: Room) {
        self.last += 1;
        self.bytes += entry.len() as u64;
        log.submit(self.last, entry, room, None);
    }
}

/// Whether there is still space to write everything anew. Whoever counts may not take it: else a full log stays full.
fn leaves_room_for_all(usage: Usage, listed: usize) -> bool {
    // A segment that is not full yet, and one that is claimed ahead.
    let all_bytes = listed as u64 * PERSON_BYTES + 2 * SEGMENT_BYTES;
    usage.bytes.saturating_add(all_bytes) <= usage.quota_bytes
}

/// Waits until a log is durable through a position, for a while.
async fn is_durable(log: &Log, through: Lsn) {
    let (told, is_durable) = oneshot::channel();
    log.when_durable(through, Box::new(move || told.send(()).unwrap_or(())));
    // Room may also be given back without a commit.
    let _ = tokio::time::timeout(BEHIND_MAX, is_durable).await;
}

/// The counters while records are decided that are decided together.
pub struct Admission<'c> {
    counting: &'c Counting,
    /// The counts, and the time by which they are asked: from the first time on that they are.
    at: Option<(MutexGuard<'c, State>, i64)>,
    series: u64,
    until: i64,
}

impl Admission<'_> {
    /// Until when what was counted holds, in microseconds since the Unix epoch: then a day ends for a law that counted. What has
    /// no place by then is to be decided again.
    #[must_use]
    pub fn until(&self) -> i64 {
        self.until
    }
}

impl Counters for Admission<'_> {
    fn admit(&mut self, claims: &[Claim], whose: Whose<'_>) -> bool {
        let counting = self.counting;
        if counting.log.is_none() {
            return false;
        }
        let (state, wall) = self.at.get_or_insert_with(|| counting.lock_now());
        let may_go = state.counts.admit(claims, whose, self.series);
        if may_go {
            let abouts = claims.iter().flat_map(|claim| &claim.counted).map(|tally| tally.about);
            let ends = abouts.map(|about| about.end_of(about.day(*wall)));
            self.until = ends.fold(self.until, i64::min);
        }
        may_go
    }
}

/// The counters for whoever only looks. Where nobody is counted, nobody was.
pub struct Look<'c> {
    counting: &'c Counting,
    state: Option<MutexGuard<'c, State>>,
}

impl Counters for Look<'_> {
    fn admit(&mut self, claims: &[Claim], whose: Whose<'_>) -> bool {
        let counting = self.counting;
        self.state.get_or_insert_with(|| counting.lock_now().0).counts.would_admit(claims, whose)
    }
}

/// Writes everything anew on a thread of its own, where that is due.
pub(super) fn tidy_if_due(counting: &Arc<Counting>) {
    if !counting.is_untidy() {
        return;
    }
    let counting = Arc::clone(counting);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = counting.tidy() {
            tracing::warn!(%error, "what the counters do not need any more is still on disk; it is tried again");
        }
    });
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::thread;

    use arrow_array::{ArrayRef, Int64Array};
    use tempfile::TempDir;

    use super::*;
    use crate::domain::counting::{About, Name, PERSONS_MAX, Period};
    use crate::durable::counting::{Chance, open};
    use crate::storage::RealFileSystem;
    use crate::storage::sim::Sim;

    const MOST: u64 = 300;

    fn begin(directory: &Path, chance: u8) -> Counting {
        let clock = Clock::start();
        let found =
            open(Arc::new(RealFileSystem), directory, Chance { key: [7; 16], nobody: [chance; 16] }, clock.wall());
        let counting = Counting::new(found.unwrap(), clock);
        counting.tidy().unwrap();
        counting
    }

    fn claims() -> [Claim; 1] {
        let name = Arc::new(Name { counter: "law/counters/data.few".into(), to: "all".into() });
        let about = About { period: Period::Ever, ahead_seconds: 0 };
        let tally = Arc::new(Tally { name, about, most: MOST });
        [Claim { counted: vec![Arc::clone(&tally)], ways: vec![vec![tally]], tells_apart: true }]
    }

    /// Whether the record of a person may go.
    fn goes(counting: &Counting, number: u32) -> bool {
        let contributors: ArrayRef = Arc::new(Int64Array::from(vec![i64::from(number)]));
        let stream = "visits".parse().unwrap();
        let whose = Whose { stream: &stream, contributors: Some(&contributors), row: 0 };
        counting.begin().admit(&claims(), whose)
    }

    /// Four workers at the limit, each with its own order of the same persons, while everything is written anew: exactly as
    /// many go as may, and all who were told so are found after a kill.
    #[test]
    fn workers_at_the_limit_let_exactly_as_many_go_as_may_and_forget_nobody() {
        let directory = TempDir::new().unwrap();
        let counting = Arc::new(begin(directory.path(), 1));
        let workers = (0..4_u32).map(|worker| {
            let counting = Arc::clone(&counting);
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let mut went = Vec::new();
                for batch in 0..20_u32 {
                    let numbers = (0..20_u32).map(|at| (worker * 100 + batch * 20 + at) % 400);
                    let admitted: Vec<u32> = numbers.filter(|number| goes(&counting, *number)).collect();
                    runtime.block_on(counting.durable()).unwrap();
                    went.extend(admitted);
                    if batch == 10 {
                        counting.tidy().unwrap();
                    }
                }
                went
            })
        });
        let workers: Vec<_> = workers.collect();
        let mut went: Vec<u32> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
        went.sort_unstable();
        went.dedup();
        assert_eq!(went.len() as u64, MOST);
        drop(counting);
        for chance in [2, 3] {
            let counting = begin(directory.path(), chance);
            let goes = |number: u32| goes(&counting, number);
            assert!(went.iter().all(|number| goes(*number)), "who was told so is known again");
            assert!((0..500).filter(|number| went.binary_search(number).is_err()).all(|number| !goes(number)));
        }
    }

    /// Entries of so many bytes until there is no room for another one. What is written takes less than the room that it was
    /// given, so this waits until all is written before it believes that.
    fn fill(counting: &Counting, log: &Log, bytes: usize) {
        let mut is_written = true;
        loop {
            match log.reserve_control(bytes as u64) {
                Ok(room) => {
                    counting.lock().write(log, vec![0; bytes], room);
                    is_written = false;
                }
                Err(NoRoom::Behind) => drop(log.wait_beyond(log.durable(), BEHIND_MAX)),
                Err(why) => {
                    assert_eq!(why, NoRoom::Full);
                    if is_written {
                        return;
                    }
                    let last = counting.lock().last;
                    assert!(log.wait_durable(last));
                    is_written = true;
                }
            }
        }
    }

    /// While the disk is full nobody else is counted, and that everything could not be written anew is not forgotten.
    #[test]
    fn a_full_disk_lets_go_of_nothing_and_is_tidied_when_there_is_space() {
        let (sim, clock) = (Sim::default(), Clock::start());
        let found = open(Arc::new(sim.clone()), Path::new("/"), Chance { key: [7; 16], nobody: [1; 16] }, clock.wall())
            .unwrap();
        let counting = Counting::new(found, clock);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let goes = |number: u32| goes(&counting, number);
        assert!(goes(1));
        runtime.block_on(counting.durable()).unwrap();
        let log = counting.log().unwrap();
        sim.limit(Some(0));
        for bytes in [64 << 10, 1 << 10, 1] {
            fill(&counting, log, bytes);
        }
        assert!(counting.is_full());
        assert!(goes(2), "it is counted in memory, and nothing may rest on it");
        assert_eq!(runtime.block_on(counting.durable()), Err(Reason::Overloaded));
        counting.lock().bytes = TIDY_BYTES + 1;
        assert!(counting.is_untidy());
        counting.tidy().unwrap();
        let state = counting.lock();
        assert!(state.bytes > TIDY_BYTES && state.needless.is_none(), "not all was written");
        drop(state);
        assert!(!counting.is_untidy(), "not again at once");
        sim.limit(None);
        while counting.is_full() {
            let _ = log.wait_beyond(log.durable(), BEHIND_MAX);
        }
        counting.lock().again_at = Duration::ZERO;
        assert!(counting.is_untidy());
        counting.tidy().unwrap();
        assert!(!counting.is_untidy());
        runtime.block_on(counting.durable()).unwrap();
    }

    /// Whoever counts leaves the space in which everything can be written anew.
    #[test]
    fn the_space_for_everything_is_not_taken_by_those_who_count() {
        let log = begin(TempDir::new().unwrap().path(), 1);
        let usage = log.log().unwrap().usage();
        let nearly = Usage { bytes: usage.quota_bytes - 2 * SEGMENT_BYTES - 1_000 * PERSON_BYTES, ..usage };
        assert!(leaves_room_for_all(nearly, 1_000));
        assert!(!leaves_room_for_all(nearly, 1_001));
        // All persons that may be counted take their space twice: before and after. While a period turns, there are twice as many.
        let at_turn = 2 * PERSONS_MAX;
        let twice = Usage { bytes: 2 * at_turn * PERSON_BYTES + 4 * SEGMENT_BYTES, ..usage };
        assert!(leaves_room_for_all(twice, at_turn as usize));
    }

    /// A batch that was decided again under the same number has not counted anybody twice, and what was counted holds until the day
    /// of the law is over.
    #[test]
    fn records_that_are_decided_again_count_once_and_until_their_day_is_over() {
        let directory = TempDir::new().unwrap();
        let counting = begin(directory.path(), 1);
        let stream = "visits".parse().unwrap();
        let whose = |row| Whose { stream: &stream, contributors: None, row };
        let series = counting.series();
        let before = counting.clock.wall();
        for _ in 0..3 {
            let mut counters = counting.begin_as(series);
            assert_eq!(counters.until(), i64::MAX, "nobody was asked about");
            assert!((0..3).all(|row| counters.admit(&claims(), whose(row))));
            let until = counters.until();
            drop(counters);
            let about = claims()[0].counted[0].about;
            let ends = [before, counting.clock.wall()].map(|wall| about.end_of(about.day(wall)));
            assert!(ends.contains(&until));
            assert!(counting.is_still(until) && !counting.is_still(before));
        }
        assert_eq!(counting.lock().counts.listed(), 3);
        assert!(counting.look().admit(&claims(), whose(9)));
        assert_eq!(counting.lock().counts.listed(), 3, "who only looks counts nobody");
    }

    #[test]
    fn where_nobody_is_counted_nothing_rests_on_a_counter() {
        assert!(!goes(&Counting::none(Clock::start()), 1));
    }
}
