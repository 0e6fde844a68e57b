//! What can be told of each destination: what waits for it, for how long, and why it does not take it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::name::DestinationName;
use crate::durable::outbox;
use crate::egress::budget::Level;
use crate::storage::{Log, Lsn, ReadError, Reader};

use super::aside::Place;
use super::cursor::Cursor;

/// The most times that are remembered per destination. With more of them, neighbours become one.
const MARKS_MAX: usize = 1_024;

/// How one destination's deliveries go. The thread that delivers writes it.
#[derive(Debug, Default)]
pub(super) struct Status {
    /// Releases that were confirmed since the start.
    delivered: AtomicU64,
    /// It answered since the last failure. With nothing to send that ends the trouble.
    answered: AtomicBool,
    trouble: Mutex<Option<Trouble>>,
    /// Nothing may go to it, so it is not reached.
    closed: AtomicBool,
    /// Releases that were shed since the start, and those since the last one that left.
    shed: AtomicU64,
    shed_in_a_row: AtomicU64,
    /// Releases that were left out since the start, because others add up their rows.
    widened: AtomicU64,
    /// Releases that were shed since the start, because no policy let them go any more.
    denied: AtomicU64,
    /// Releases that left something out since the start, and the cells that they left out.
    degraded: AtomicU64,
    left_out: AtomicU64,
    /// Releases that left as what had changed since the start.
    on_change: AtomicU64,
    /// How full the budget is, if there is one, and whether releases wait for more.
    budget: Mutex<Option<(Level, bool)>>,
}

/// How the budget of a destination stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budgeted {
    /// The bytes that are left.
    pub left: u64,
    /// Whether releases wait for more.
    pub is_short: bool,
    /// Releases that were shed since the start.
    pub shed: u64,
    /// Those that were shed since the last one that left.
    pub shed_in_a_row: u64,
    /// Releases that were left out since the start, because others add up their rows.
    pub widened: u64,
    /// Releases that left something out since the start.
    pub degraded: u64,
    /// The cells that those left out.
    pub left_out: u64,
    /// Releases that left as what had changed since the start: their receiver can make the whole.
    pub on_change: u64,
}

/// Why a destination does not take releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Since when, as a monotonic time.
    pub since: Duration,
    /// The error, newest.
    pub error: String,
}

impl Status {
    /// A delivery failed, or takes too long.
    pub(super) fn failed(&self, now: Duration, error: String) {
        let mut trouble = self.trouble();
        let since = trouble.as_ref().map_or(now, |trouble| trouble.since);
        *trouble = Some(Trouble { since, error });
        self.answered.store(false, Ordering::Release);
    }

    /// The destination answers as it should. Whether it takes releases is seen when it takes one.
    pub(super) fn answers(&self) {
        self.answered.store(true, Ordering::Release);
    }

    /// Whether it is not reached because nothing may go to it. What was wrong with it before is of no account then.
    pub(super) fn closed(&self, is_closed: bool) {
        self.closed.store(is_closed, Ordering::Relaxed);
        if is_closed {
            *self.trouble() = None;
        }
    }

    /// So many releases were confirmed, or turned out to be there already.
    pub(super) fn delivered(&self, releases: usize) {
        self.settled(releases);
        if releases > 0 {
            self.shed_in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// So many releases do not wait any more.
    fn settled(&self, releases: usize) {
        self.delivered.fetch_add(releases as u64, Ordering::Relaxed);
        if releases > 0 {
            *self.trouble() = None;
        }
    }

    /// So many releases were left out, because others add up their rows.
    pub(super) fn widened(&self, releases: usize) {
        self.settled(releases);
        self.widened.fetch_add(releases as u64, Ordering::Relaxed);
    }

    /// So many releases were not sent, because the budget does not suffice, and never will be. Whether they are the first
    /// ones since one left.
    pub(super) fn shed(&self, releases: usize) -> bool {
        self.settled(releases);
        self.shed.fetch_add(releases as u64, Ordering::Relaxed);
        self.shed_in_a_row.fetch_add(releases as u64, Ordering::Relaxed) == 0
    }

    /// So many releases were shed, because no policy lets them go any more.
    pub(super) fn denied(&self, releases: usize) {
        self.settled(releases);
        self.denied.fetch_add(releases as u64, Ordering::Relaxed);
    }

    /// A release leaves that was made smaller. With what has changed alone, its receiver can make the whole; otherwise so many
    /// cells are left out.
    pub(super) fn made_smaller(&self, has_all: bool, cells: u64) {
        if has_all {
            self.on_change.fetch_add(1, Ordering::Relaxed);
        } else {
            self.degraded.fetch_add(1, Ordering::Relaxed);
            self.left_out.fetch_add(cells, Ordering::Relaxed);
        }
    }

    /// How full the budget is, and whether releases wait for more.
    pub(super) fn budgeted(&self, level: Level, is_short: bool) {
        *self.budget.lock().unwrap_or_else(PoisonError::into_inner) = Some((level, is_short));
    }

    fn budget(&self, now: Duration) -> Option<Budgeted> {
        let (level, is_short) = (*self.budget.lock().unwrap_or_else(PoisonError::into_inner))?;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Some(Budgeted {
            left: level.left(now),
            is_short,
            shed: count(&self.shed),
            shed_in_a_row: count(&self.shed_in_a_row),
            widened: count(&self.widened),
            degraded: count(&self.degraded),
            left_out: count(&self.left_out),
            on_change: count(&self.on_change),
        })
    }

    fn trouble(&self) -> MutexGuard<'_, Option<Trouble>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What waits for one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// The destination's name.
    pub destination: DestinationName,
    /// How many releases wait.
    pub releases: u64,
    /// How long the oldest of them has waited in this process. Zero when none waits.
    pub oldest: Duration,
    /// Why they wait, when something is wrong.
    pub trouble: Option<Trouble>,
    /// Whether the destination is not reached, because no policy in force lets anything go to it. What waits for it, waits.
    pub is_closed: bool,
    /// How many cells are set aside, which it cannot take. Files in the journal's directory hold them.
    pub set_aside: u64,
    /// Releases that were given up since the start, because no policy lets them go there any more.
    pub denied: u64,
    /// How its budget stands, if it has one.
    pub budget: Option<Budgeted>,
}

impl Backlog {
    /// How many releases wait because the budget does not suffice.
    #[must_use]
    pub fn deferred(&self) -> u64 {
        self.budget.filter(|budget| budget.is_short).map_or(0, |_| self.releases)
    }
}

/// How every destination's deliveries go, and what waits in the outbox.
pub struct Board {
    statuses: BTreeMap<DestinationName, Arc<Status>>,
    aside: Place,
    counted: Mutex<Counted>,
    /// What was found last.
    latest: Mutex<Vec<Backlog>>,
}

/// What the outbox held so far.
struct Counted {
    reader: Reader,
    destinations: BTreeMap<DestinationName, Releases>,
}

/// The releases of one destination.
struct Releases {
    /// What was confirmed before the start.
    start: Cursor,
    /// How many there were since the start, confirmed or not.
    found: u64,
    /// When how many had been found, oldest first, as far as they are not confirmed.
    marks: VecDeque<(u64, Duration)>,
}

impl Board {
    /// Of destinations whose cursors, and budgets if they have some, stand as they do at the start, at a monotonic time.
    pub(super) fn new(
        outbox: &Log,
        aside: Place,
        destinations: &[(DestinationName, Cursor, Option<Level>)],
        now: Duration,
    ) -> Self {
        let from = destinations.iter().map(|(_, cursor, _)| cursor.through).min().map_or(Lsn::MAX, |first| first + 1);
        let releases = |cursor: &Cursor| Releases { start: cursor.clone(), found: 0, marks: VecDeque::new() };
        let counted = Counted {
            reader: outbox.reader(from),
            destinations: destinations.iter().map(|(name, cursor, _)| (name.clone(), releases(cursor))).collect(),
        };
        let status = |level: &Option<Level>| {
            let status = Status::default();
            level.iter().for_each(|level| status.budgeted(*level, false));
            Arc::new(status)
        };
        let statuses: BTreeMap<_, _> =
            destinations.iter().map(|(name, _, level)| (name.clone(), status(level))).collect();
        let none = |(name, status): (&DestinationName, &Arc<Status>)| {
            let (destination, oldest, trouble) = (name.clone(), Duration::ZERO, None);
            let (set_aside, budget) = (aside.count(name), status.budget(now));
            Backlog { destination, releases: 0, oldest, trouble, is_closed: false, denied: 0, set_aside, budget }
        };
        let latest = statuses.iter().map(none).collect();
        Self { statuses, aside, counted: Mutex::new(counted), latest: Mutex::new(latest) }
    }

    /// Where the thread of a destination says how it goes.
    pub(super) fn status(&self, destination: &DestinationName) -> Arc<Status> {
        self.statuses.get(destination).map(Arc::clone).unwrap_or_default()
    }

    /// What waits for each destination at a monotonic time.
    ///
    /// # Errors
    /// When the outbox cannot be read.
    pub fn look(&self, now: Duration) -> Result<Vec<Backlog>, ReadError> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.read(now)?;
        let statuses = self.statuses.iter();
        let backlogs = statuses.filter_map(|(name, status)| {
            let waiting = counted.destinations.get_mut(name)?;
            let delivered = status.delivered.load(Ordering::Relaxed);
            let (releases, oldest) = waiting.beyond(delivered, now);
            if releases == 0 && status.answered.load(Ordering::Acquire) {
                *status.trouble() = None;
            }
            let (destination, set_aside) = (name.clone(), self.aside.count(name));
            let (trouble, budget) = (status.trouble().clone(), status.budget(now));
            let is_closed = status.closed.load(Ordering::Relaxed);
            let denied = status.denied.load(Ordering::Relaxed);
            Some(Backlog { destination, releases, oldest, trouble, is_closed, denied, set_aside, budget })
        });
        let backlogs: Vec<Backlog> = backlogs.collect();
        backlogs.clone_into(&mut self.latest.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(backlogs)
    }

    /// What was found at the last look, which is made every half second. It reads nothing.
    #[must_use]
    pub fn latest(&self) -> Vec<Backlog> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The destinations that releases wait for.
    #[must_use]
    pub fn left(&self, now: Duration) -> Vec<Backlog> {
        match self.look(now) {
            Ok(backlogs) => backlogs.into_iter().filter(|backlog| backlog.releases > 0).collect(),
            Err(error) => {
                tracing::error!(
                    error = format!("{:#}", anyhow::Error::from(error)),
                    "the outbox cannot be read: check the disk"
                );
                Vec::new()
            }
        }
    }
}

impl Counted {
    fn read(&mut self, now: Duration) -> Result<(), ReadError> {
        while let Some(entry) = self.reader.next()? {
            let Some(addressed) = outbox::addressed(&entry.payload) else { continue };
            for release in addressed {
                if let Some(releases) = self.destinations.get_mut(&release.destination)
                    && !releases.start.has(&release.dataset, entry.lsn)
                {
                    releases.found += 1;
                }
            }
        }
        self.destinations.values_mut().for_each(|releases| releases.mark(now));
        Ok(())
    }
}

impl Releases {
    fn mark(&mut self, now: Duration) {
        if self.marks.back().is_none_or(|(found, _)| *found < self.found) && self.found > 0 {
            self.marks.push_back((self.found, now));
        }
        if self.marks.len() > MARKS_MAX {
            // Of two marks in a row the earlier time stays, for all that both stand for.
            let marks: Vec<_> = self.marks.drain(..).collect();
            self.marks = marks.chunks(2).filter_map(|pair| Some((pair.last()?.0, pair.first()?.1))).collect();
        }
    }

    /// How many wait beyond those that were delivered, and for how long.
    fn beyond(&mut self, delivered: u64, now: Duration) -> (u64, Duration) {
        while self.marks.front().is_some_and(|(found, _)| *found <= delivered) {
            self.marks.pop_front();
        }
        let oldest = self.marks.front().map_or(Duration::ZERO, |(_, since)| now.saturating_sub(*since));
        (self.found.saturating_sub(delivered), oldest)
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::clock::Moment;
    use crate::domain::policy::Reduction;
    use crate::egress::budget::{self, Budget, Leaving, Parcel, Payment};
    use crate::storage::{FileSystem, RealFileSystem, SEGMENT_BYTES, Settings};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_budget_is_told_before_anybody_looks() {
        let directory = TempDir::new().unwrap();
        let fs: Arc<dyn FileSystem> = Arc::new(RealFileSystem);
        let (segment_bytes, quota_bytes, context) = (SEGMENT_BYTES, 8 * SEGMENT_BYTES, Vec::new());
        let of_outbox = directory.path().join("outbox");
        let settings = Settings { directory: of_outbox, segment_bytes, quota_bytes, context, at_least: 0 };
        let (outbox, _) = Log::open(Arc::clone(&fs), settings).unwrap();
        let of_budget = || {
            let (widened, smaller, first) = (BTreeMap::new(), Vec::new(), Vec::new());
            budget::Settings { bytes: 900, per: SECOND * 90, widened, smaller, sheds_after: None, first }
        };
        let at = |seconds: u32| Moment { now: SECOND * seconds, wall: i64::from(seconds) * 1_000_000 };
        let open = |at| {
            Budget::open(&fs, &directory.path().join("budgets"), &"hub".parse().unwrap(), of_budget(), 0, at).unwrap()
        };
        let left = |level, at: Moment| {
            let aside = Place { fs: Arc::clone(&fs), directory: directory.path().join("aside") };
            let destinations = [("hub", Some(level)), ("desk", None)];
            let destinations = destinations.map(|(name, level)| (name.parse().unwrap(), Cursor::default(), level));
            let backlogs = Board::new(&outbox, aside, &destinations, at.now).latest();
            backlogs
                .into_iter()
                .map(|told| (told.destination, told.budget.map(|budget| budget.left)))
                .collect::<Vec<_>>()
        };
        let of = |bytes| vec![("desk".parse().unwrap(), None), ("hub".parse().unwrap(), Some(bytes))];
        let mut budget = open(at(1));
        assert_eq!(left(budget.level(), at(1)), of(900));
        let (parcel, form, leaving) = (Parcel { lsn: 1, of: None }, Reduction::default(), Leaving::default());
        budget.pay(Payment { parcel, form: &form, bytes: 700, confirmed: 0, leaving }, at(1)).unwrap();
        // After a restart it has what is on disk, and what has come since.
        assert_eq!(left(open(at(2)).level(), at(5)), of(240));
        outbox.close();
    }

    fn releases() -> Releases {
        Releases { start: Cursor::default(), found: 0, marks: VecDeque::new() }
    }

    #[test]
    fn the_oldest_is_the_first_that_was_not_delivered() {
        let mut waiting = releases();
        waiting.mark(SECOND);
        assert_eq!(waiting.beyond(0, SECOND * 9), (0, Duration::ZERO));
        for (found, at) in [(2, 10), (2, 11), (5, 12)] {
            waiting.found = found;
            waiting.mark(SECOND * at);
        }
        assert_eq!(waiting.beyond(1, SECOND * 20), (4, SECOND * 10));
        assert_eq!(waiting.beyond(2, SECOND * 20), (3, SECOND * 8));
        assert_eq!(waiting.beyond(5, SECOND * 20), (0, Duration::ZERO));
    }

    #[test]
    fn a_long_outage_is_remembered_by_few_marks_and_its_beginning() {
        let mut waiting = releases();
        for at in 0..100_000 {
            waiting.found += 1;
            waiting.mark(SECOND * at);
            assert!(waiting.marks.len() <= MARKS_MAX);
        }
        assert_eq!(waiting.beyond(0, SECOND * 100_000), (100_000, SECOND * 100_000));
        let (left, oldest) = waiting.beyond(99_999, SECOND * 100_000);
        assert!(left == 1 && oldest <= SECOND * 200, "{oldest:?}");
    }

    #[test]
    fn trouble_lasts_from_its_first_error_until_something_is_delivered() {
        let status = Status::default();
        status.failed(SECOND, "one".to_owned());
        status.failed(SECOND * 3, "two".to_owned());
        assert_eq!(*status.trouble(), Some(Trouble { since: SECOND, error: "two".to_owned() }));
        status.delivered(0);
        assert!(status.trouble().is_some());
        status.delivered(1);
        assert_eq!(*status.trouble(), None);
    }
}
