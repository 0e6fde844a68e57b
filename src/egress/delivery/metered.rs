//! A destination's budget, and what waits for it in the outbox: more important releases that wait behind the next one, and
//! since when each has waited.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::clock::Moment;
use crate::domain::name::{DatasetName, DestinationName};
use crate::domain::policy::{Reduction, Released};
use crate::durable::outbox;
use crate::egress::budget::{Asked, Budget, Decision, Forms, Level, Parcel, Payment, Settings, Whole};
use crate::storage::{self, Lsn, ReadError, Reader};

/// So many entries are looked at ahead. Those behind them are found later.
const AHEAD_MAX: usize = 65_536;

/// A budget, and what waits for it.
pub(super) struct Metered {
    budget: Budget,
    ahead: Ahead,
}

/// When it is decided, and what may go to the destination then.
pub(super) struct Now<'a> {
    /// A monotonic time.
    pub(super) at: Duration,
    pub(super) allowed: &'a BTreeSet<DatasetName>,
}

/// The bytes of an entry, in each form that it may leave in.
#[derive(Clone, Copy)]
pub(super) struct Sizes<'s> {
    pub(super) whole: u64,
    pub(super) smaller: &'s [u64],
    /// Whether the first of the smaller forms leaves only what has changed.
    pub(super) tells_changes: bool,
}

/// Entries that wait, in the order of the outbox.
struct Ahead {
    destination: DestinationName,
    reader: Reader,
    waiting: VecDeque<Found>,
    /// By dataset, of several that leave together by the most important.
    counts: BTreeMap<DatasetName, u64>,
    /// What an entry of a dataset took last.
    sizes: BTreeMap<DatasetName, u64>,
}

struct Found {
    lsn: Lsn,
    dataset: DatasetName,
    at: Duration,
}

impl Metered {
    /// Of a destination. `reader` begins behind its cursor.
    pub(super) fn new(budget: Budget, destination: &DestinationName, reader: Reader) -> Self {
        let ahead = Ahead {
            destination: destination.clone(),
            reader,
            waiting: VecDeque::new(),
            counts: BTreeMap::new(),
            sizes: BTreeMap::new(),
        };
        Self { budget, ahead }
    }

    /// What becomes of an entry of these datasets that takes so many bytes. It is as important as the most important of them.
    ///
    /// # Errors
    /// When the outbox cannot be read.
    pub(super) fn decide(
        &mut self,
        lsn: Lsn,
        datasets: &[&DatasetName],
        sizes: Sizes<'_>,
        now: &Now<'_>,
    ) -> Result<Decision, ReadError> {
        let (is_widened, now) = (self.is_widened(lsn, datasets, now.allowed), now.at);
        let settings = self.budget.settings();
        self.ahead.read(settings, now)?;
        self.ahead.pass(lsn);
        let Sizes { whole: bytes, smaller, tells_changes } = sizes;
        let dataset = most_important(settings, datasets.iter().copied());
        self.ahead.sizes.extend(dataset.map(|dataset| (dataset.clone(), bytes)));
        let rank = dataset.map_or(settings.first.len(), |dataset| settings.rank(dataset));
        let is_before = |other: &DatasetName| settings.rank(other) < rank;
        let (ahead, waited) = (self.ahead.bytes_of(is_before, bytes), self.ahead.waited(lsn, now));
        let parcel = Parcel { lsn, of: None };
        Ok(self.budget.decide(Asked { parcel, bytes, is_widened, smaller, tells_changes, ahead, waited }, now))
    }

    /// Whether others add up all that an entry has of these datasets, and may go there.
    fn is_widened(&self, lsn: Lsn, datasets: &[&DatasetName], allowed: &BTreeSet<DatasetName>) -> bool {
        let may_go = |dataset: &&DatasetName| self.widened().get(*dataset).is_some_and(|wider| allowed.contains(wider));
        self.budget.is_widened(lsn, datasets.iter().copied()) && datasets.iter().all(may_go)
    }

    /// The forms that an entry may leave in when the bytes do not suffice for the whole. None if it was paid for. What is on its
    /// way is confirmed before it leaves, where there is no room for more.
    pub(super) fn smaller(&self, lsn: Lsn, releases: &[Released]) -> Vec<Reduction> {
        let parcel = Parcel { lsn, of: None };
        self.budget.smaller(Whole { first: lsn, parcel, releases, confirmed: lsn.saturating_sub(1) })
    }

    /// Whether releases may leave as what has changed.
    pub(super) fn tells_changes(&self) -> bool {
        self.budget.settings().tells_changes()
    }

    /// Releases that may have been paid for did not leave as they were to.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn forget(&mut self, releases: &[Released], at: Moment) -> Result<(), storage::Error> {
        self.budget.forget(releases.iter().map(Released::dataset), at)
    }

    /// Any release may be given up.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn forget_all(&mut self, at: Moment) -> Result<(), storage::Error> {
        self.budget.forget_all(at)
    }

    /// In which forms entries leave that were paid for.
    pub(super) fn forms(&self) -> &Forms {
        self.budget.forms()
    }

    /// Whether no further entry may leave smaller before others are confirmed.
    pub(super) fn holds_many(&self) -> bool {
        self.budget.holds_many()
    }

    /// Pays for an entry of these datasets, durably.
    ///
    /// # Errors
    /// When the file system refuses. Then nothing may be sent.
    pub(super) fn pay(
        &mut self,
        datasets: &[&DatasetName],
        payment: Payment<'_>,
        at: Moment,
    ) -> Result<(), storage::Error> {
        self.budget.pay(payment, at)?;
        // The next one is taken to be as large as what leaves of this one.
        let dataset = most_important(self.budget.settings(), datasets.iter().copied());
        self.ahead.sizes.extend(dataset.map(|dataset| (dataset.clone(), payment.bytes)));
        Ok(())
    }

    /// Decides for good that an entry is not sent, durably.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn shed(&mut self, lsn: Lsn, at: Moment) -> Result<(), storage::Error> {
        self.budget.shed(Parcel { lsn, of: None }, at)
    }

    /// How full the budget is.
    pub(super) fn level(&self) -> Level {
        self.budget.level()
    }

    /// The datasets whose releases are left out because others add up their rows, and which those are.
    pub(super) fn widened(&self) -> &BTreeMap<DatasetName, DatasetName> {
        &self.budget.settings().widened
    }

    /// The bytes that the budget holds at most.
    pub(super) fn most(&self) -> u64 {
        self.budget.settings().bytes
    }
}

/// The most important of datasets, of equals the first.
fn most_important<'d>(settings: &Settings, datasets: impl Iterator<Item = &'d DatasetName>) -> Option<&'d DatasetName> {
    datasets.min_by_key(|dataset| settings.rank(dataset))
}

impl Ahead {
    /// Looks at what came to the outbox.
    fn read(&mut self, settings: &Settings, now: Duration) -> Result<(), ReadError> {
        while self.waiting.len() < AHEAD_MAX
            && let Some(entry) = self.reader.next()?
        {
            let Some(addressed) = outbox::addressed(&entry.payload) else { continue };
            let for_it = addressed.iter().filter(|release| release.destination == self.destination);
            if let Some(dataset) = most_important(settings, for_it.map(|release| &release.dataset)) {
                *self.counts.entry(dataset.clone()).or_default() += 1;
                self.waiting.push_back(Found { lsn: entry.lsn, dataset: dataset.clone(), at: now });
            }
        }
        Ok(())
    }

    /// What lies before a position waits no more.
    fn pass(&mut self, lsn: Lsn) {
        while let Some(found) = self.waiting.pop_front_if(|found| found.lsn < lsn) {
            if let Some(count) = self.counts.get_mut(&found.dataset) {
                *count -= 1;
            }
        }
    }

    /// How long an entry has waited, which is the next. After a failure, one that is sent again has begun anew.
    fn waited(&self, lsn: Lsn, now: Duration) -> Duration {
        let found = self.waiting.front().filter(|found| found.lsn == lsn);
        found.map_or(Duration::ZERO, |found| now.saturating_sub(found.at))
    }

    /// The bytes of what waits of datasets. One that was never sent is taken to be as large as the next entry.
    fn bytes_of(&self, wanted: impl Fn(&DatasetName) -> bool, next: u64) -> u64 {
        let counts = self.counts.iter().filter(|(dataset, _)| wanted(dataset));
        counts.map(|(dataset, count)| count.saturating_mul(self.sizes.get(dataset).copied().unwrap_or(next))).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tempfile::TempDir;

    use super::*;
    use crate::domain::binary::Writer;
    use crate::egress::budget::{self, Leaving};
    use crate::storage::{FileSystem, Log, RealFileSystem, SEGMENT_BYTES, Settings};

    const SECOND: Duration = Duration::from_secs(1);

    /// An entry of the outbox with a release of a dataset for a destination, as far as it is looked at.
    fn entry(dataset: &str, destination: &str) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u64(1).text(dataset).count(1).text("id").text(destination).text(dataset).text("gateway");
        writer.i64(0).i64(1).raw(&[0; 32]).bytes(&[]);
        writer.finish()
    }

    /// An outbox, and a budget of 900 bytes that hardly fills, in which alarms come first.
    fn metered(directory: &TempDir) -> (Log, Metered) {
        let fs: Arc<dyn FileSystem> = Arc::new(RealFileSystem);
        let (segment_bytes, quota_bytes) = (SEGMENT_BYTES, 8 * SEGMENT_BYTES);
        let (context, of_outbox) = (Vec::new(), directory.path().join("outbox"));
        let settings = Settings { directory: of_outbox, segment_bytes, quota_bytes, context, at_least: 0 };
        let (outbox, _) = Log::open(Arc::clone(&fs), settings).unwrap();
        let settings = budget::Settings {
            bytes: 900,
            per: SECOND * 1_000_000,
            widened: BTreeMap::new(),
            smaller: Vec::new(),
            sheds_after: Some(SECOND * 10),
            first: vec!["alarms".parse().unwrap()],
        };
        let at = Moment { now: Duration::ZERO, wall: 0 };
        let budget =
            Budget::open(&fs, &directory.path().join("budgets"), &"hub".parse().unwrap(), settings, 0, at).unwrap();
        let metered = Metered::new(budget, &"hub".parse().unwrap(), outbox.reader(1));
        (outbox, metered)
    }

    /// A time at which nothing else matters.
    fn at(at: Duration) -> Now<'static> {
        static NOTHING: BTreeSet<DatasetName> = BTreeSet::new();
        Now { at, allowed: &NOTHING }
    }

    /// What becomes of an entry of a dataset.
    fn decided(metered: &mut Metered, lsn: Lsn, dataset: &str, whole: u64, smaller: &[u64], now: Duration) -> Decision {
        metered
            .decide(lsn, &[&dataset.parse().unwrap()], Sizes { whole, smaller, tells_changes: false }, &at(now))
            .unwrap()
    }

    /// An entry of a dataset is paid for.
    fn pay(metered: &mut Metered, lsn: Lsn, dataset: &str, bytes: u64, now: Duration) {
        let (parcel, form, leaving) = (Parcel { lsn, of: None }, Reduction::default(), Leaving::default());
        let payment = Payment { parcel, form: &form, bytes, confirmed: 0, leaving };
        metered.pay(&[&dataset.parse().unwrap()], payment, Moment { now, wall: 0 }).unwrap();
    }

    fn put(outbox: &Log, lsn: Lsn, dataset: &str, destination: &str) {
        let entry = entry(dataset, destination);
        outbox.submit(lsn, entry.clone(), outbox.reserve(entry.len() as u64).unwrap(), None);
        assert!(outbox.wait_durable(lsn));
    }

    #[test]
    fn what_is_more_important_is_taken_to_be_as_large_as_what_left_last() {
        let directory = TempDir::new().unwrap();
        let (outbox, mut metered) = metered(&directory);
        put(&outbox, 1, "alarms", "hub");
        // Its whole never fits. It leaves smaller.
        assert_eq!(decided(&mut metered, 1, "alarms", 5_000, &[100], SECOND), Decision::Send(1));
        pay(&mut metered, 1, "alarms", 100, SECOND);
        put(&outbox, 2, "payments", "hub");
        put(&outbox, 3, "alarms", "hub");
        assert_eq!(decided(&mut metered, 2, "payments", 700, &[], SECOND), Decision::Send(0));
        assert_eq!(decided(&mut metered, 2, "payments", 701, &[], SECOND), Decision::Wait);
        outbox.close();
    }

    #[test]
    fn what_is_more_important_and_waits_behind_comes_first_and_each_waits_from_when_it_came() {
        let directory = TempDir::new().unwrap();
        let (outbox, mut metered) = metered(&directory);
        let put = |lsn, dataset, destination| put(&outbox, lsn, dataset, destination);
        put(1, "payments", "hub");
        assert_eq!(decided(&mut metered, 1, "payments", 500, &[], SECOND), Decision::Send(0));
        put(2, "alarms", "hub");
        put(3, "alarms", "desk");
        put(4, "payments", "hub");
        // The alarm for the hub is taken to be as large.
        assert_eq!(decided(&mut metered, 1, "payments", 500, &[], SECOND * 3), Decision::Wait);
        assert_eq!(decided(&mut metered, 1, "payments", 450, &[], SECOND * 10), Decision::Send(0));
        assert_eq!(decided(&mut metered, 1, "payments", 500, &[], SECOND * 11), Decision::Shed);
        assert_eq!(decided(&mut metered, 2, "alarms", 450, &[], SECOND * 11), Decision::Send(0));
        pay(&mut metered, 2, "alarms", 450, SECOND * 11);
        // No alarm is behind it any more, and it came later than the first.
        assert_eq!(decided(&mut metered, 4, "payments", 451, &[], SECOND * 12), Decision::Wait);
        assert_eq!(decided(&mut metered, 4, "payments", 450, &[], SECOND * 12), Decision::Send(0));
        assert_eq!(decided(&mut metered, 4, "payments", 451, &[], SECOND * 13), Decision::Shed);
        outbox.close();
    }
}
