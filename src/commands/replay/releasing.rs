//! What of the windows of one dataset would leave, in their order, as the gateway's collector lets them go: cells that may wait
//! are joined with those of the next windows.

use std::collections::BTreeMap;

use anyhow::Result;

use super::left::{AllLeft, Left, Waits};
use crate::domain::aggregate::Cells;
use crate::domain::dataset::Dataset;
use crate::domain::deferral::{Deferral, Dropped, Gone, Joined};
use crate::domain::digest::Digest;
use crate::domain::name::GatewayId;
use crate::domain::policy::{Addition, ClosedWindow, Longer, Outlet, release, release_longer};
use crate::domain::window::window_start;

/// A window, or what was in it when all open windows were released as they were. In the order in which they leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    /// How often that had happened before. What came later leaves by itself.
    pub(super) flushes: u64,
    /// The window's number.
    pub(super) window: i64,
}

/// The windows of one dataset.
pub(super) type Windows = BTreeMap<Part, Cells>;

/// Up to where the records go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Until {
    /// All windows before this one have closed.
    pub(super) open_from: i64,
    /// How often all open windows were released as they were.
    pub(super) flushes: u64,
}

/// What it takes to release windows of one dataset.
pub(super) struct Releasing<'r> {
    pub(super) gateway: &'r GatewayId,
    /// What was counted.
    pub(super) dataset: &'r Dataset,
    /// Where it may go.
    pub(super) outlets: &'r [Outlet],
    pub(super) policy: Digest,
}

impl Releasing<'_> {
    /// Adds what would leave of all windows, and of longer ones that add them up.
    pub(super) fn all(&self, windows: Windows, until: Until, left: &mut AllLeft) -> Result<()> {
        let mut deferral = Deferral::new(self.dataset.max_defer, i64::MIN);
        let (mut longer, mut last) = (Longer::default(), None::<Part>);
        for (part, cells) in windows {
            if let Some(last) = last.filter(|last| last.flushes < part.flushes) {
                self.in_vain(deferral.flushed(Some(last.window)), left);
            }
            let added = self.window(part.window, cells, &mut deferral, left)?;
            longer.add(&added);
            last = Some(part);
        }
        if let Some(last) = last {
            if last.flushes < until.flushes {
                self.in_vain(deferral.flushed(Some(last.window)), left);
            }
            let open_from = until.open_from.max(last.window.saturating_add(1));
            self.in_vain(deferral.closed_before(open_from), left);
        }
        self.dropped(deferral.flushed(None), |waits| &mut waits.at_end, left);
        self.longer(&longer, left)
    }

    /// Adds what would leave of one. What its rows add to longer windows.
    fn window(&self, window: i64, cells: Cells, deferral: &mut Deferral, left: &mut AllLeft) -> Result<Addition> {
        let Self { gateway, dataset, outlets, policy } = *self;
        let may_wait = dataset.max_defer > 0 && !outlets.is_empty();
        self.in_vain(deferral.close(window, may_wait.then_some(policy)), left);
        let Joined { cells, own } = deferral.join(window, cells.bounded(dataset));
        let closed =
            ClosedWindow { gateway, dataset, window, part: 0, cells, deferral: may_wait.then_some(&*deferral) };
        let mut outcome = release(&closed, outlets, policy)?;
        let joined = Joined { cells: closed.cells, own };
        let wait = deferral.settle(window, &joined, Gone { left: &outcome.left, rolled_up: &outcome.rolled_up });
        let start = window_start(window, dataset.window);
        for view in dataset.views().iter().filter(|view| !view.is_longer(dataset)) {
            let of_window = left.entry((view.dataset.name.clone(), start)).or_default();
            of_window.add(&Left::of(view.dataset, &outcome, wait));
        }
        Ok(Addition { added: std::mem::take(&mut outcome.longer), ..Addition::default() })
    }

    fn in_vain(&self, dropped: Vec<Dropped>, left: &mut AllLeft) {
        self.dropped(dropped, |waits| &mut waits.in_vain, left);
    }

    /// Cells that waited, and do not leave.
    fn dropped(&self, dropped: Vec<Dropped>, of: fn(&mut Waits) -> &mut usize, left: &mut AllLeft) {
        let views = self.dataset.views();
        for Dropped { window, cells } in dropped {
            let start = window_start(window, self.dataset.window);
            for view in views.iter().filter(|view| !view.is_longer(self.dataset)) {
                let of_window = left.entry((view.dataset.name.clone(), start)).or_default();
                *of(&mut of_window.waits) += cells.len();
            }
        }
    }

    /// Adds the sums of longer windows.
    fn longer(&self, longer: &Longer, left: &mut AllLeft) -> Result<()> {
        let Self { gateway, dataset, outlets, policy } = *self;
        for ended in longer.ending(dataset, None, &mut Addition::default()) {
            let released = release_longer(gateway, dataset, &ended, 0, outlets, policy)?;
            let Some(of) = dataset.released_as().find(|of| of.name == *ended.dataset()) else { continue };
            let released_rows = if released.is_empty() { 0 } else { ended.rows() };
            let sums = Left { released: released_rows, nulls: Left::nulls_of(of, &released), ..Left::default() };
            left.insert((of.name.clone(), ended.start(dataset)), sums);
        }
        Ok(())
    }
}
