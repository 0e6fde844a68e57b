//! The budget of a file destination: what becomes of a file that is due. A file is paid for as a whole, after it is
//! made and before it gets its name. If the same file is made again after a crash, it is not paid for again.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Moment;
use crate::domain::name::DatasetName;
use crate::domain::policy::Reduction;
use crate::egress::budget::{Asked, Budget, Decision, Forms, Leaving, Level, Parcel, Payment, Whole};
use crate::egress::file::{Made, Sink};
use crate::storage::{self, Lsn};

use super::metered::Now;

/// A budget, and what is known of the files that are to come.
pub(super) struct Rationed {
    budget: Budget,
    /// What the last file of a dataset took, and how many releases it had.
    sizes: BTreeMap<DatasetName, (u64, u64)>,
    /// The file that the bytes do not suffice for: its last position and its dataset; and since when.
    short: Option<(Lsn, DatasetName, Duration)>,
}

impl Rationed {
    pub(super) fn new(budget: Budget) -> Self {
        Self { budget, sizes: BTreeMap::new(), short: None }
    }

    /// Puts datasets whose files are due in order, the most important one first.
    pub(super) fn sort(&self, due: &mut [DatasetName]) {
        due.sort_by_key(|dataset| self.budget.settings().rank(dataset));
    }

    /// The forms that a dataset's file of all that waits of it may have when the bytes do not suffice for the whole. None if it
    /// was paid for. Everything through a position of the outbox is confirmed.
    pub(super) fn smaller(&self, of: &DatasetName, sink: &Sink, confirmed: Lsn) -> Vec<Reduction> {
        let (Some(first), Some(last)) = (sink.first(of), sink.last(of)) else { return Vec::new() };
        let parcel = Parcel { lsn: last, of: Some(of) };
        self.budget.smaller(Whole { first, parcel, releases: sink.waiting(of), confirmed })
    }

    /// Whether a dataset's file whose last release stands there in the outbox was paid for, or may be from before the budget.
    pub(super) fn is_paid(&self, of: &DatasetName, last: Lsn) -> bool {
        self.budget.is_paid(Parcel { lsn: last, of: Some(of) })
    }

    /// Whether releases may leave as what has changed.
    pub(super) fn tells_changes(&self) -> bool {
        self.budget.settings().tells_changes()
    }

    /// A file that may have been paid for is given up.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn forget(&mut self, made: &Made, at: Moment) -> Result<(), storage::Error> {
        self.budget.forget(std::iter::once(&made.dataset), at)
    }

    /// In which forms files leave that were paid for.
    pub(super) fn forms(&self) -> &Forms {
        self.budget.forms()
    }

    /// What becomes of a file, whose last release stands in the outbox at `last`, and which takes so many bytes in its smaller
    /// forms.
    pub(super) fn decide(&mut self, made: &Made, smaller: &[Made], last: Lsn, sink: &Sink, now: &Now<'_>) -> Decision {
        let Now { at: now, allowed } = *now;
        if self.budget.has_paid_for(made.content) {
            return Decision::Send(0);
        }
        let (bytes, releases) = (made.bytes.len() as u64, made.releases.len() as u64);
        self.sizes.insert(made.dataset.clone(), (bytes, releases));
        let of = &made.dataset;
        let short = self.short.as_ref().filter(|(at, dataset, _)| (*at, dataset) == (last, of));
        let since = short.map_or(now, |(.., since)| *since);
        let (ahead, waited) = (self.ahead(made, sink), now.saturating_sub(since));
        let tells_changes = smaller.first().is_some_and(|made| made.form.changes().is_some());
        let smaller: Vec<u64> = smaller.iter().map(|made| made.bytes.len() as u64).collect();
        let may_go = self.widened().get(of).is_some_and(|wider| allowed.contains(wider));
        let is_widened = may_go && self.budget.is_widened(sink.first(of).unwrap_or(last), std::iter::once(of));
        let parcel = Parcel { lsn: last, of: Some(of) };
        let asked = Asked { parcel, bytes, is_widened, smaller: &smaller, tells_changes, ahead, waited };
        let decision = self.budget.decide(asked, now);
        self.short = (decision == Decision::Wait).then(|| (last, of.clone(), since));
        decision
    }

    /// The bytes of files of more important datasets that wait, by what their last one took for each release.
    fn ahead(&self, made: &Made, sink: &Sink) -> u64 {
        let rank = |dataset: &DatasetName| self.budget.settings().rank(dataset);
        let own = (made.bytes.len() as u64, made.releases.len() as u64);
        let before = sink.each_waiting().filter(|(dataset, _)| rank(dataset) < rank(&made.dataset));
        let bytes = before.map(|(dataset, waiting)| {
            let (bytes, releases) = self.sizes.get(dataset).copied().unwrap_or(own);
            bytes.saturating_mul(waiting as u64).div_ceil(releases.max(1))
        });
        bytes.fold(0, u64::saturating_add)
    }

    /// Pays for a file, durably, unless that was done before. Everything through a position of the outbox is confirmed.
    ///
    /// # Errors
    /// When the file system refuses. Then the file may not be written.
    pub(super) fn pay(
        &mut self,
        made: &Made,
        sink: &Sink,
        last: Lsn,
        confirmed: Lsn,
        at: Moment,
    ) -> Result<(), storage::Error> {
        if self.budget.has_paid_for(made.content) {
            return Ok(());
        }
        let parcel = Parcel { lsn: last, of: Some(&made.dataset) };
        let (form, bytes) = (&made.form, made.bytes.len() as u64);
        let leaving = Leaving { whole: sink.waiting(&made.dataset), left: &made.releases };
        self.budget.pay_for(made.content, Payment { parcel, form, bytes, confirmed, leaving }, at)?;
        // The next one is taken to be as large as what leaves of this one.
        self.sizes.insert(made.dataset.clone(), (bytes, made.releases.len() as u64));
        Ok(())
    }

    /// Decides for good that a file is not written, durably.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn shed(&mut self, made: &Made, last: Lsn, at: Moment) -> Result<(), storage::Error> {
        self.budget.shed(Parcel { lsn: last, of: Some(&made.dataset) }, at)
    }

    /// How full the budget is.
    pub(super) fn level(&self) -> Level {
        self.budget.level()
    }

    /// The datasets whose files are left out because others add up their rows, and which those are.
    pub(super) fn widened(&self) -> &BTreeMap<DatasetName, DatasetName> {
        &self.budget.settings().widened
    }

    /// The bytes that the budget holds at most.
    pub(super) fn most(&self) -> u64 {
        self.budget.settings().bytes
    }
}
