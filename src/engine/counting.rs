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
use crate::domain::counting::{Claim, Counters, Counts, News, Person, PersonKey, Tally};
use crate::domain::refusal::Reason;
use crate::durable::counting::{Found, key_entry, next_entry};
use crate::storage::{Error, Log, Lsn, NoRoom, Room};

/// How long somebody waits for the disk before it looks again.
const BEHIND_MAX: Duration = Duration::from_millis(100);
/// Bytes that are written before it is worth while to write everything anew.
const TIDY_BYTES: u64 = 8 << 20;
/// What a person takes on disk, at most, when everything is written anew.
const PERSON_BYTES: u64 = 20;

/// The counters of a gateway.
pub struct Counting {
    state: Mutex<State>,
    log: Option<Log>,
    clock: Clock,
    is_tidying: AtomicBool,
}

struct State {
    counts: Counts,
    /// The last position that was given out.
    last: Lsn,
    /// Bytes that were written since everything was.
    bytes: u64,
}

impl Counting {
    /// Counts on from what was found.
    #[must_use]
    pub fn new(found: Found, clock: Clock) -> Self {
        let Found { log, counts, last, bytes, .. } = found;
        let state = Mutex::new(State { counts, last, bytes });
        Self { state, log: Some(log), clock, is_tidying: AtomicBool::new(false) }
    }

    /// Counts nobody: no policy asks for it. What rests on a counter is refused.
    #[must_use]
    pub fn none(clock: Clock) -> Self {
        let counts = Counts::new(PersonKey([0; 16]), [0; 16]);
        let state = Mutex::new(State { counts, last: 0, bytes: 0 });
        Self { state, log: None, clock, is_tidying: AtomicBool::new(false) }
    }

    /// The log that it writes to. `None`: it counts nobody.
    #[must_use]
    pub fn log(&self) -> Option<&Log> {
        self.log.as_ref()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        while let Some((entry, news)) = next_entry(state.counts.news()) {
            let room = log.reserve(entry.len() as u64)?;
            state.counts.written(news);
            state.write(log, entry, room);
        }
        Ok(state.last)
    }

    /// Whether more is on disk than is worth while.
    #[must_use]
    pub fn is_untidy(&self) -> bool {
        let state = self.lock();
        self.log.is_some() && state.bytes > TIDY_BYTES.max(state.counts.listed() as u64 * PERSON_BYTES * 3)
    }

    /// Writes everything anew, and lets go of what stands before. Waits for the disk; nobody counts any slower meanwhile. Does
    /// nothing while another thread does it.
    ///
    /// # Errors
    /// When what is not needed any more cannot be let go of. It can be tried again.
    pub fn tidy(&self) -> Result<(), Error> {
        let Some(log) = &self.log else { return Ok(()) };
        if self.is_tidying.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let tidied = self.write_anew(log);
        self.is_tidying.store(false, Ordering::Release);
        tidied
    }

    fn write_anew(&self, log: &Log) -> Result<(), Error> {
        let (key, all, before) = {
            let mut state = self.lock();
            state.bytes = 0;
            (state.counts.key(), state.counts.all(), state.last)
        };
        let mut rest: &[News] = &all;
        let mut entry = Some((key_entry(key), 0));
        while let Some((bytes, news)) = entry {
            let room = loop {
                match log.reserve(bytes.len() as u64) {
                    Ok(room) => break room,
                    Err(NoRoom::Behind) => drop(log.wait_beyond(log.durable(), BEHIND_MAX)),
                    // Nothing is let go of, and it is tried again when more was written.
                    Err(_) => return Ok(()),
                }
            };
            self.lock().write(log, bytes, room);
            rest = rest.get(news..).unwrap_or_default();
            entry = next_entry(rest);
        }
        let last = self.lock().last;
        if log.wait_durable(last) { log.release(before) } else { Ok(()) }
    }

    /// How much of a count is used, in percent. 100: it has no room for anybody else.
    #[must_use]
    pub fn used(&self, tally: &Tally) -> u64 {
        self.lock().counts.used(tally, self.clock.wall())
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

/// Waits until a log is durable through a position, for a while.
async fn is_durable(log: &Log, through: Lsn) {
    let (told, is_durable) = oneshot::channel();
    log.when_durable(through, Box::new(move || told.send(()).unwrap_or(())));
    // Room may also be given back without a commit.
    let _ = tokio::time::timeout(BEHIND_MAX, is_durable).await;
}

impl Counters for Counting {
    fn admit(&self, claims: &[Claim], person: &dyn Fn(&PersonKey) -> Option<Person>) -> bool {
        if self.log.is_none() {
            return false;
        }
        let mut state = self.lock();
        let person = person(&state.counts.key());
        state.counts.admit(claims, person, self.clock.wall())
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

    use tempfile::TempDir;

    use super::*;
    use crate::domain::counting::{Name, Period};
    use crate::durable::counting::open;
    use crate::storage::RealFileSystem;

    const MOST: u64 = 300;

    fn begin(directory: &Path, chance: u8) -> Counting {
        let clock = Clock::start();
        let found = open(Arc::new(RealFileSystem), directory.to_owned(), ([7; 16], [chance; 16]), clock.wall());
        let counting = Counting::new(found.unwrap(), clock);
        counting.tidy().unwrap();
        counting
    }

    fn claims() -> [Claim; 1] {
        let name = Arc::new(Name { counter: "law/counters/data.few".into(), to: "all".into() });
        let tally = Arc::new(Tally { name, period: Period::Ever, ahead_seconds: 0, most: MOST });
        [Claim { counted: vec![Arc::clone(&tally)], ways: vec![vec![tally]] }]
    }

    fn person(number: u32) -> Person {
        let mut person = [0; 16];
        person[..4].copy_from_slice(&number.to_le_bytes());
        Person(person)
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
                    let admitted: Vec<u32> =
                        numbers.filter(|number| counting.admit(&claims(), &|_| Some(person(*number)))).collect();
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
            let goes = |number: u32| counting.admit(&claims(), &|_| Some(person(number)));
            assert!(went.iter().all(|number| goes(*number)), "who was told so is known again");
            assert!((0..500).filter(|number| went.binary_search(number).is_err()).all(|number| !goes(number)));
        }
    }

    #[test]
    fn where_nobody_is_counted_nothing_rests_on_a_counter() {
        assert!(!Counting::none(Clock::start()).admit(&claims(), &|_| Some(person(1))));
    }
}
