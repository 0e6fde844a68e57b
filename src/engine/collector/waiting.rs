//! Cells that wait for the next windows: what the collector does with them at each closing, after a crash, and for
//! checkpoints.

use std::collections::{BTreeMap, BTreeSet};

use super::longer::saved;
use super::{Collector, Reported, Window, Withheld};
use crate::domain::aggregate::Cells;
use crate::domain::binary::Writer;
use crate::domain::deferral::{Decided, Deferral, Dropped, Gone, Joined};
use crate::domain::name::DatasetName;
use crate::domain::table::Tables;
use crate::domain::window::first_window;
use crate::durable::outbox::Closing;
use crate::storage::Lsn;

/// What was decided about cells at closings of which the outbox has nothing, by dataset and position. If a crash comes before
/// the next entry of the dataset, nobody has heard of it, and it is decided anew.
pub(super) type Quiet = BTreeMap<DatasetName, Vec<(Lsn, Vec<Decided>)>>;

impl Collector {
    /// A closing decided about cells that may wait, and nobody is to hear of it. Its dataset's next entry of the outbox says
    /// it.
    pub(super) fn decided_quietly(&mut self, dataset: DatasetName, closing: Closing) {
        self.quiet.entry(dataset).or_default().push((closing.closed_at, closing.decided));
    }

    /// No start goes back to a position of the journal before this one.
    pub(super) fn forget_quiet(&mut self, needed_after: Lsn) {
        self.quiet.retain(|_, closings| {
            closings.retain(|(closed_at, _)| *closed_at > needed_after);
            !closings.is_empty()
        });
    }

    /// Keeps what waits of a dataset, unless its cells do not wait any more.
    pub(super) fn put_back(&mut self, dataset: DatasetName, deferral: Deferral) {
        let waits = self.collecting.rules.datasets.get(&dataset).is_some_and(|declared| declared.max_defer > 0);
        if waits || !deferral.is_empty() {
            self.collecting.deferred.insert(dataset, deferral);
        }
    }

    /// What of a window's cells may leave together with what waited. The others wait, if they may.
    pub(super) fn waiting_cells(
        &self,
        window: &Window<'_>,
        cells: Cells,
        deferral: &mut Deferral,
        tables: &mut Option<Tables>,
        closing: &mut Closing,
    ) {
        let Some(declared) = self.collecting.rules.datasets.get(window.dataset) else { return };
        let (in_force, outlets) = self.outlets(window, declared, &cells);
        let is_of_one = cells.policies().iter().all(|policy| *policy == in_force);
        let may_wait = declared.max_defer > 0 && is_of_one && !outlets.is_empty();
        let mut under = may_wait.then_some(in_force);
        deferral.as_declared();
        self.dropped(window.dataset, deferral.close(window.window, under), closing);
        let Joined { cells, own } = deferral.join(window.window, cells.bounded(declared));
        let closed = self.closed_window(window, cells, declared, (declared.max_defer > 0).then_some(&*deferral));
        let outcome = self.leave(window, &closed, in_force, &outlets, tables, closing);
        let cells = closed.cells;
        let (left, rolled_up) = match outcome {
            Some(outcome) => {
                let gone = Gone { left: &outcome.left, rolled_up: &outcome.rolled_up };
                let waits = deferral.settle(window.window, &Joined { cells, own }, gone);
                if waits > 0 {
                    self.count(window.dataset, |counts| &counts.cells_deferred, waits);
                } else {
                    let withheld = Withheld::of(&outcome, declared);
                    self.withheld(window.dataset, window.window, withheld, &outlets, closing);
                }
                (outcome.left, outcome.rolled_up)
            }
            None => {
                under = None;
                self.dropped(window.dataset, deferral.close(window.window, None), closing);
                (BTreeSet::new(), BTreeSet::new())
            }
        };
        closing.decided.push(Decided { window: window.window, under, left, rolled_up });
    }

    /// Windows were closed, or flushed up to a last one: what does not wait any more.
    pub(super) fn passed(
        &self,
        dataset: &DatasetName,
        deferral: &mut Deferral,
        before: Option<i64>,
        last: Option<i64>,
        closing: &mut Closing,
    ) {
        let dropped = self.pass(dataset, deferral, before, last);
        self.dropped(dataset, dropped, closing);
    }

    fn pass(
        &self,
        dataset: &DatasetName,
        deferral: &mut Deferral,
        before: Option<i64>,
        last: Option<i64>,
    ) -> Vec<Dropped> {
        let Some(declared) = self.collecting.rules.datasets.get(dataset) else { return Vec::new() };
        match before {
            Some(before) => deferral.closed_before(first_window(Some(before), declared.window)),
            None => deferral.flushed(last),
        }
    }

    /// Cells that waited, and do not leave any more.
    fn dropped(&self, dataset: &DatasetName, dropped: Vec<Dropped>, closing: &mut Closing) {
        let Some(declared) = self.collecting.rules.datasets.get(dataset) else { return };
        for Dropped { window, cells } in dropped {
            let (_, outlets) = self.collecting.rules.versions.outlets(declared, cells.policies());
            self.count(dataset, |counts| &counts.cells_deferred_dropped, cells.len());
            let withheld = Withheld { cells: cells.len(), of: cells.len() };
            self.withheld(dataset, window, withheld, &outlets.unwrap_or_default(), closing);
        }
    }

    /// A closing that the outbox has comes from the journal again: its cells wait, or left, as was decided then.
    pub(super) fn defer_again(&mut self, lsn: Lsn, dataset: DatasetName, reported: Reported, mut deferral: Deferral) {
        let Reported { before, windows, .. } = reported;
        let decided = self.collecting.decided.remove(&lsn).unwrap_or_default();
        let last = windows.keys().next_back().copied();
        for (window, cells) in windows {
            let decided = decided.iter().find(|decided| decided.window == window);
            // Closings of before and after a start with another number may come again, one after the other.
            let under = decided.and_then(|decided| decided.under);
            let max = under.and_then(|under| self.collecting.rules.versions.max_defer(&dataset, under));
            deferral.again(window, cells, decided, max);
        }
        // It was counted and told then.
        drop(self.pass(&dataset, &mut deferral, before, last));
        if self.collecting.begun_anew.get(&dataset) == Some(&lsn) && !self.collecting.rules.is_dry_run {
            deferral.forget();
            tracing::warn!(%dataset, "the outbox was full and has begun anew, and a crash came before a checkpoint: cells of the \
             dataset that waited then are dropped, and nobody counted them");
        }
        // Also where nothing waits: a closing that comes later may have made cells wait.
        self.collecting.deferred.insert(dataset, deferral);
    }

    /// Puts what waits, and what was added up, into the checkpoint that is under way, if it is one of these and does not have it
    /// yet.
    pub(super) fn save_kept(&mut self, is_wanted: impl Fn(Lsn) -> bool) {
        let Some(gathering) = &mut self.checkpoint else { return };
        if gathering.has_kept || !is_wanted(gathering.checkpoint.lsn) {
            return;
        }
        gathering.has_kept = true;
        gathering.checkpoint.longer = saved(&self.collecting.longer);
        for (dataset, deferral) in &mut self.collecting.deferred {
            let mut writer = Writer::default();
            deferral.encode(&mut writer);
            gathering.checkpoint.deferred.push((dataset.clone(), writer.finish()));
        }
    }
}
