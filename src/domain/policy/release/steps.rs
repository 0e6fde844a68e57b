//! How many contributors a cell has at least: what is told of it, where a dataset tells it. Never the number itself, but
//! the largest step of a few that it reaches: k, and then those of [`STEPS`].
//!
//! A step tells two things: that there are so many, and that there are fewer than the next one. Beside the number of records
//! both could say something of each contributor. So a step above k is asked for only where neither can:
//!
//! - **Twice as many records** ([`RECORDS_TIMES`]). Twenty records of at least twenty contributors are one of each.
//! - **Twice as many contributors as any rule asks for** ([`APART_TIMES`]), of a cell or of a part. With k = 19, fewer than
//!   20 contributors would be 19, and each of them in every part of the cell.
//! - **Room below the bounds**, where the records of one contributor are bounded: at most half of the records that so many
//!   contributors can have. With three each, 57 records of fewer than 20 contributors would be three of each.
//! - **Nobody can take records off.** Where k must hold without the records of any single producer, or no producer may have
//!   brought too large a share, none is asked for: the producer knows how many records are not its own, and the gateway does
//!   not.
//! - **Not finer than counts.** Where counts are rounded, a step is a multiple of the base, and a base above k at least. Whether
//!   there are enough records for it, and not too many, is asked of all numbers of records that would be rounded to the same: so
//!   a step tells nothing of how much was rounded.
//! - **Never of a remainder.** It leaves only if it has at most so many contributors, and everybody can work out how many
//!   ([`super::rolled`]). A step near that would be the number itself.
//!
//! Which steps are asked for depends on the rules and on the number of records, so that a step is not asked for tells
//! nothing. All destinations have the same steps above their own k. So whoever has what several were told knows of no
//! cell more than that its contributors are from one step to the next: the next one is at least twice as many.

use std::collections::BTreeSet;

use crate::domain::aggregate::{Cells, ENOUGH, PartRule};
use crate::domain::dataset::{Bounds, Dataset};
use crate::domain::policy::egress::Outlet;
use crate::domain::rounding::Rounding;

/// The steps above k. Each is twice the one before at least. A cell does not keep more contributors apart than the last.
const STEPS: [usize; 6] = [20, 50, 100, 200, 500, ENOUGH];

/// A step is asked for if there are so many records for each of its contributors.
const RECORDS_TIMES: usize = 2;

/// A step is so many times what any rule asks for.
const APART_TIMES: usize = 2;

/// The steps above what rules ask for at most: `least` contributors of a cell, or of a part. Where counts are rounded, they are
/// no finer than counts.
pub fn steps_above(least: usize, rounding: Rounding) -> impl Iterator<Item = usize> {
    let base = usize::try_from(rounding.base()).unwrap_or(usize::MAX);
    let apart = least.saturating_mul(APART_TIMES).max(least.saturating_add(base));
    STEPS.into_iter().filter(move |step| *step >= apart && step.is_multiple_of(base))
}

/// What is told of the contributors of a window's cells.
pub(super) struct Steps {
    /// The steps above k. `None`: nothing is told.
    above: Option<Vec<usize>>,
    bounds: Option<Bounds>,
    rounding: Rounding,
}

impl Steps {
    /// Of what is counted for datasets, for outlets of these rules. If one outlet of those that ask forbids it, nothing is
    /// told to any.
    pub(super) fn of<'o>(
        counted: &Dataset,
        outlets: impl IntoIterator<Item = &'o Outlet>,
        rules: &BTreeSet<(PartRule, usize)>,
        rounding: Rounding,
    ) -> Self {
        let asking: BTreeSet<&str> =
            counted.released_as().filter(|one| one.tells_contributors).map(|one| one.name.as_str()).collect();
        let asks = |outlet: &&Outlet| !counted.is_shared() || asking.contains(outlet.dataset.as_str());
        let is_told = !asking.is_empty() && outlets.into_iter().filter(asks).all(|outlet| outlet.tells_contributors);
        let least = rules.iter().map(|(parts, least)| parts.least.max(*least)).max().unwrap_or(ENOUGH);
        let may_be_hostile = rules.iter().any(|(parts, _)| parts.beyond_one || parts.beside > 0);
        let above = || if may_be_hostile { Vec::new() } else { steps_above(least, rounding).collect() };
        Self { above: is_told.then(above), bounds: counted.bounds, rounding }
    }

    /// To which multiples the counts of the window are rounded.
    pub(super) fn rounding(&self) -> Rounding {
        self.rounding
    }

    /// What is told of a cell that has k contributors. `None`: nothing.
    pub(super) fn told(&self, k: usize, cells: &Cells, slot: usize) -> Option<u64> {
        let reached = |step: usize| cells.has(slot, step, false);
        self.reached(k, cells.records_of(slot), reached).map(|step| step as u64)
    }

    /// What is told of a remainder that has k contributors. `None`: nothing.
    pub(super) fn told_of_remainder(&self, k: usize) -> Option<u64> {
        self.above.as_ref().map(|_| k as u64)
    }

    /// The largest step that is asked for of so many records and is reached; k is.
    fn reached(&self, k: usize, records: u64, is_reached: impl Fn(usize) -> bool) -> Option<usize> {
        let asked = self.above.as_ref()?.iter().copied().filter(|step| self.is_asked(*step, records));
        Some(asked.take_while(|step| is_reached(*step)).last().unwrap_or(k))
    }

    fn is_asked(&self, step: usize, records: u64) -> bool {
        let (step, times) = (step as u64, RECORDS_TIMES as u64);
        // All numbers of records that leave as this one does.
        let rounded = self.rounding.nearest(records);
        let (least, most) = (self.rounding.least_of(rounded), self.rounding.most_of(rounded));
        let has_room = |bounds: Bounds| most.saturating_mul(times) <= u64::from(bounds.records_per_cell) * step;
        least >= step * times && self.bounds.is_none_or(has_room)
    }
}

#[cfg(test)]
mod tests;
