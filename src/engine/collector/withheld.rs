//! What the ledger hears of cells that go nowhere.

use super::Collector;
use crate::domain::dataset::Dataset;
use crate::domain::name::DatasetName;
use crate::domain::policy::{Outcome, Outlet};
use crate::domain::tally::Told;
use crate::durable::outbox::{Closing, Note};
use crate::ledger::entry::coarse;

/// Cells that go nowhere, of so many of which nothing is told, with those that have no records.
#[derive(Clone, Copy)]
pub(super) struct Withheld {
    pub(super) cells: usize,
    pub(super) of: usize,
}

/// What is told of refused records with a closing.
pub(super) struct Refused {
    /// The windows that are closed began before this time.
    pub(super) before: Option<i64>,
    pub(super) told: Vec<Told>,
}

impl Withheld {
    /// Those of a window that was released.
    pub(super) fn of(outcome: &Outcome, dataset: &Dataset) -> Self {
        let cells = outcome.cells_withheld;
        let domain = dataset.keys.iter().fold(1_usize, |all, key| all.saturating_mul(key.domain.size()));
        // Which cells without records a remainder is of is not looked at: then those are counted that are known.
        let of = if outcome.remainders > 0 { cells } else { domain.saturating_sub(outcome.left.len()) };
        Self { cells, of }
    }
}

impl Collector {
    /// Cells of a window of a dataset go nowhere. What the ledger is to say of it goes into the closing.
    pub(super) fn withheld(
        &self,
        dataset: &DatasetName,
        window: i64,
        withheld: Withheld,
        outlets: &[Outlet],
        closing: &mut Closing,
    ) {
        if self.collecting.rules.is_dry_run {
            return;
        }
        let declared = self.collecting.rules.datasets.get(dataset);
        let k = outlets.iter().map(|outlet| outlet.min_contributors).max();
        let k = k.or_else(|| declared.map(|declared| declared.min_contributors)).unwrap_or(usize::MAX);
        self.count(dataset, |counts| &counts.cells_withheld, withheld.cells);
        let window_start = self.start_of(dataset, window);
        let said = coarse(withheld.cells, withheld.of, k);
        closing.notes.extend(said.map(|at_least| Note::Withheld { window_start, at_least }));
    }
}
