//! Remainders: cells that may leave to nobody are merged, for each key that the dataset gives up, one key after the
//! other. Each remainder is judged like a cell.
//!
//! **All that leaves is apart.** A remainder is made of all cells that have its other keys and leave to nobody; after
//! the first key, of all such remainders. So of all that a window releases, to whatever destination, a record is in one
//! row at most.
//!
//! **What a remainder tells.** A remainder of one cell is the cell, and fails as it did. So a remainder that leaves
//! tells that at least two of the cells that are not there hold somebody. If only two could, it would tell that of
//! both. So it leaves only if at least three could ([`HIDDEN_MIN`]). How many could depends only on what left.
//! Each of them has fewer than k contributors, as everybody knows. If they have nearly as many together as so many cells
//! can have, each of them holds somebody. So a remainder leaves only if any one of them could be empty.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::aggregate::{Cells, Charge, PartRule, Plan};
use crate::domain::dataset::Dataset;
use crate::domain::rounding::Rounding;
use crate::planted::planted;

use super::steps::Steps;

/// What is asked of a cell: of its parts, and how many contributors.
pub(super) type Rule = (PartRule, usize);

/// A remainder leaves only if at least so many cells did not leave that it could be made of; after the first key, so
/// many remainders.
pub(in crate::domain::policy) const HIDDEN_MIN: usize = 3;

/// A row of a release.
#[derive(Clone, Copy)]
pub(super) struct Row<'l> {
    /// The cells, or the remainders, of which it is one.
    pub(super) cells: &'l Cells,
    pub(super) slot: usize,
    /// What may leave of its parts.
    pub(super) plan: &'l Plan,
    /// The keys that were given up for it, by their positions.
    pub(super) given_up: &'l [usize],
    /// How many contributors it has at least, where that is told.
    pub(super) contributors: Option<u64>,
    /// To which multiples its counts are rounded.
    pub(super) rounding: Rounding,
}

/// What may leave of a window: its cells, and the remainders of those that may not leave.
pub(super) struct Levels<'l> {
    dataset: &'l Dataset,
    cells: &'l Cells,
    judged: Judged,
    /// One after the other, each with one more key given up.
    remainders: Vec<Remainders>,
}

struct Remainders {
    cells: Cells,
    judged: Judged,
}

/// What may leave under each rule, from the least strict on.
#[derive(Default)]
struct Judged {
    leaves: Vec<Leaves>,
    /// The numbers of what leaves under any.
    left: BTreeSet<u32>,
}

struct Leaves {
    rule: Rule,
    /// In the order of the cells' numbers.
    slots: Vec<usize>,
    /// What may leave of the parts of each.
    plans: BTreeMap<usize, Plan>,
    _room: Charge,
}

impl Judged {
    /// Of the cells that may leave at all, by their slots.
    fn of(dataset: &Dataset, cells: &Cells, rules: &BTreeSet<Rule>, may_leave: impl Fn(usize) -> bool) -> Self {
        let in_order: Vec<usize> = cells.in_order().into_iter().filter(|slot| may_leave(*slot)).collect();
        let mut judged = Self::default();
        for &(parts, least) in rules {
            let beyond_one = parts.beyond_one && !planted("cells-of-one-producer");
            let beside = if planted("cells-mostly-of-one") { 0 } else { parts.beside };
            let has_enough = |slot: &usize| cells.has(*slot, least, beyond_one) && cells.has_beside(*slot, beside);
            let slots: Vec<usize> = in_order.iter().copied().filter(has_enough).collect();
            if slots.is_empty() {
                continue;
            }
            let room = cells.room_for_plans(dataset);
            let plan = |slot: &usize| {
                let finer = judged.leaves.iter().rev().find_map(|leaves| leaves.plans.get(slot));
                let finer = finer.filter(|_| !planted("plans-apart"));
                (*slot, cells.plan(dataset, *slot, parts, finer))
            };
            let plans = slots.iter().map(plan).collect();
            judged.left.extend(slots.iter().map(|slot| cells.number(*slot)));
            judged.leaves.push(Leaves { rule: (parts, least), slots, plans, _room: room });
        }
        judged
    }

    /// Whether a cell leaves to nobody, and may be in a remainder.
    fn fails(&self, cells: &Cells, number: u32) -> bool {
        if planted("remainder-of-all") {
            return true;
        }
        if planted("remainder-of-each-destination") {
            let strictest = self.leaves.last();
            return !strictest.is_some_and(|leaves| leaves.slots.iter().any(|slot| cells.number(*slot) == number));
        }
        !self.left.contains(&number)
    }
}

impl<'l> Levels<'l> {
    /// Of the cells of a window, under the rules of all destinations.
    pub(super) fn of(dataset: &'l Dataset, cells: &'l Cells, rules: &BTreeSet<Rule>) -> Self {
        let judged = Judged::of(dataset, cells, rules, |_| true);
        let mut levels = Self { dataset, cells, judged, remainders: Vec::new() };
        if !rules.is_empty() {
            levels.roll_up(rules);
        }
        levels
    }

    fn roll_up(&mut self, rules: &BTreeSet<Rule>) {
        // What is not there has fewer contributors than the least strict asks for.
        let fewer = rules.iter().map(|(_, least)| least.saturating_sub(1)).min().unwrap_or(0);
        // What no remainder can be made of, because it left.
        let mut known = self.judged.left.clone();
        for &key in &self.dataset.roll_up {
            let (below, judged) = self.remainders.last().map_or((self.cells, &self.judged), Remainders::parts);
            let size = self.dataset.keys.get(key).map_or(0, |key| key.domain.size());
            let to = |number| without(self.dataset, key, number);
            let cells = below.merged(self.dataset, |number| judged.fails(below, number), to);
            let mut known_in: BTreeMap<u32, usize> = BTreeMap::new();
            for number in &known {
                *known_in.entry(to(*number)).or_default() += 1;
            }
            // Never of two cells ([`HIDDEN_MIN`]): one has fewer than k, and a remainder that leaves has k at least.
            let hides = |slot: usize| {
                let open = size.saturating_sub(known_in.get(&cells.number(slot)).copied().unwrap_or(0));
                let most = open.saturating_sub(1).saturating_mul(fewer);
                cells.has_at_most(slot, most) || planted("remainder-of-full-cells")
            };
            let judged = Judged::of(self.dataset, &cells, rules, hides);
            known = known_in.into_iter().filter(|(_, known)| *known == size).map(|(number, _)| number).collect();
            known.extend(&judged.left);
            self.remainders.push(Remainders { cells, judged });
        }
    }

    /// What leaves under a rule: cells, and then remainders.
    pub(super) fn rows(&self, rule: &Rule, steps: &Steps) -> Vec<Row<'_>> {
        let mut rows = Vec::new();
        let levels = std::iter::once((self.cells, &self.judged)).chain(self.remainders.iter().map(Remainders::parts));
        for (depth, (cells, judged)) in levels.enumerate() {
            let given_up = self.dataset.roll_up.get(..depth).unwrap_or_default();
            for leaves in judged.leaves.iter().filter(|leaves| leaves.rule == *rule) {
                rows.extend(leaves.slots.iter().filter_map(|&slot| {
                    let plan = leaves.plans.get(&slot)?;
                    let contributors = match depth {
                        0 => steps.told(rule.1, cells, slot),
                        _ => steps.told_of_remainder(rule.1),
                    };
                    Some(Row { cells, slot, plan, given_up, contributors, rounding: steps.rounding() })
                }));
            }
        }
        rows
    }

    /// The numbers of the cells that leave by themselves.
    pub(super) fn left(&self) -> &BTreeSet<u32> {
        &self.judged.left
    }

    /// The numbers of the cells that leave in a remainder.
    pub(super) fn rolled_up(&self) -> BTreeSet<u32> {
        let is_rolled_up = |cell: &u32| {
            let mut number = *cell;
            !self.judged.left.contains(cell)
                && self.dataset.roll_up.iter().zip(&self.remainders).any(|(key, remainders)| {
                    number = without(self.dataset, *key, number);
                    remainders.judged.left.contains(&number)
                })
        };
        self.cells.numbers().filter(is_rolled_up).collect()
    }

    /// How many remainders leave.
    pub(super) fn remainders(&self) -> usize {
        self.remainders.iter().map(|remainders| remainders.judged.left.len()).sum()
    }
}

impl Remainders {
    fn parts(&self) -> (&Cells, &Judged) {
        (&self.cells, &self.judged)
    }
}

/// The number of the cell that has the first value of a key, and else those of a cell: it stands for all cells that differ in
/// nothing but the key.
fn without(dataset: &Dataset, key: usize, number: u32) -> u32 {
    let sizes = || dataset.keys.iter().map(|key| u32::try_from(key.domain.size()).unwrap_or(1));
    let (stride, size) = (sizes().take(key).product::<u32>(), sizes().nth(key).unwrap_or(1));
    number - number / stride % size * stride
}
