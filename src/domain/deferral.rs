//! Deferral: cells that had too few contributors to leave wait for the next windows of the same key, and leave together
//! with them, or are dropped.
//!
//! What waits is kept apart by window. When a window closes, each of its cells is joined by what waits of the same key;
//! together they leave, or each goes on waiting for as many windows as the dataset declares. So a record is in one
//! released cell at most, and in that one with all other records of its key since the key's last release.
//!
//! **What a cell says of it.** A released cell says how many windows it covers: all since the last release of its key, at
//! most as many as are waited for, and its own. That number is made of nothing but what left before. It is the same
//! whether anything was in the earlier windows or not, so it does not tell who was, where a cell of few was withheld.
//! A cell that left in a remainder waits no longer, and what its key covers later does not tell of that.
//!
//! **Where it ends.** What waits was decided under the policies that are in force, and nothing else: another version of
//! them, a destination that is taken away, and a flush end the waiting. Then all is dropped. What a cell covers may then
//! be more than what it has records of: a number that a dropped record moves would tell of it.
//!
//! After a crash the same cells come from the journal again. What was decided about them is not decided again, because
//! policies and days may be others: it is read from the outbox ([`Decided`]). Only that all cells of a closing wait may be
//! decided again, if nothing came after it: nobody has heard of it. What else the outbox does not know is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::aggregate::{Cells, OpenBytes};
use super::binary::{Reader, Writer};
use super::dataset::Dataset;
use super::digest::Digest;
use crate::planted::planted;

/// The most windows that a cell may wait for.
pub const DEFER_MAX: u64 = 100;

/// What waits of the windows of one dataset.
pub struct Deferral {
    /// For how many windows a cell waits.
    max: u64,
    /// For how many it waits from the next window on whose closing is decided.
    declared: u64,
    /// The policies that all of it was decided under. `None`: nothing waits.
    under: Option<Digest>,
    /// The first window whose cells may wait: earlier ones were released as they were.
    from: i64,
    /// The first window that a released cell may cover. No record moves it: a window that waits for nobody does not show.
    since: i64,
    /// All windows before this one have closed.
    next: i64,
    /// The last window that each cell number left with, as far as that tells what the next one covers.
    left: BTreeMap<u32, i64>,
    /// The cells that wait, by their window.
    waiting: BTreeMap<i64, Cells>,
}

/// What was decided about the cells of a closed window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// The window's number.
    pub window: i64,
    /// The policies under which its cells may wait. `None`: they may not.
    pub under: Option<Digest>,
    /// The numbers of the cells that left by themselves, to any destination.
    pub left: BTreeSet<u32>,
    /// Those of the cells that left in a remainder.
    pub rolled_up: BTreeSet<u32>,
}

/// The cells that leave with a window, by number.
#[derive(Debug, Clone, Copy)]
pub struct Gone<'g> {
    /// By themselves.
    pub left: &'g BTreeSet<u32>,
    /// In a remainder.
    pub rolled_up: &'g BTreeSet<u32>,
}

/// A window's cells, joined by what waited for them.
pub struct Joined {
    /// The cells, to be released.
    pub cells: Cells,
    /// Those that were joined, without what joined them.
    pub own: Cells,
}

/// Cells of one window that waited, and do not leave any more.
pub struct Dropped {
    /// The window's number.
    pub window: i64,
    /// The cells.
    pub cells: Cells,
}

impl Deferral {
    /// Nothing waits yet, of a dataset whose cells may wait for so many windows. What was in windows before this one is not
    /// known any more; [`i64::MIN`]: there was none.
    #[must_use]
    pub fn new(max: u64, from: i64) -> Self {
        let (declared, left, waiting) = (max, BTreeMap::new(), BTreeMap::new());
        Self { max, declared, under: None, from, since: from, next: from, left, waiting }
    }

    /// From now on what waits counts among what all open windows hold.
    #[must_use]
    pub fn counted_in(mut self, open: &Arc<OpenBytes>) -> Self {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting = waiting.into_iter().map(|(window, cells)| (window, cells.counted_in(open))).collect();
        self
    }

    /// A window closes about which nothing is decided yet. From now on cells wait for as many windows as is declared.
    /// If that is another number than before, [`Self::close`] drops what waits.
    pub fn as_declared(&mut self) {
        self.wait_for(self.declared);
    }

    fn wait_for(&mut self, max: u64) {
        if self.max != max {
            (self.max, self.under) = (max, None);
        }
    }

    /// A window closes. Its cells may wait if all of them were decided under these policies, which are in force, and may go
    /// somewhere under them. What does not wait for it any more.
    pub fn close(&mut self, window: i64, under: Option<Digest>) -> Vec<Dropped> {
        let before = std::mem::replace(&mut self.under, under);
        if under.is_some() && under == before {
            return self.drop_before(self.oldest(window));
        }
        // `since` stays: it would tell that the window had a record.
        self.drop_all()
    }

    /// Joins a window's cells, which has just closed, with what waits for them.
    #[must_use]
    pub fn join(&self, window: i64, mut cells: Cells) -> Joined {
        let waits = |number: u32| self.waits_for(window).any(|waiting| waiting.has_number(number));
        let numbers: BTreeSet<u32> = cells.numbers().filter(|number| waits(*number)).collect();
        let own = cells.some(|number| numbers.contains(&number));
        for waiting in self.waits_for(window) {
            cells.merge(waiting.some(|number| numbers.contains(&number)));
        }
        Joined { cells, own }
    }

    /// How many windows a cell covers that leaves with a window.
    #[must_use]
    pub fn covers(&self, window: i64, number: u32) -> u64 {
        if planted("deferred-covers-one") {
            return 1;
        }
        let after_left = self.left.get(&number).map_or(i64::MIN, |left| left.saturating_add(1));
        let mut first = self.since.max(after_left).max(self.oldest(window)).min(window);
        if planted("deferred-tells-of-empty") {
            first = self.waiting.keys().next().copied().unwrap_or(window).min(window);
        }
        window.abs_diff(first).saturating_add(1)
    }

    /// The most windows that anything covers which leaves with a window. A remainder says this: another number could tell
    /// which cells are in it.
    #[must_use]
    pub fn covers_at_most(&self, window: i64) -> u64 {
        let first = self.since.max(self.oldest(window)).min(window);
        window.abs_diff(first).saturating_add(1)
    }

    /// It was decided which of the cells leave, by themselves or in a remainder. The others wait, if they may. Returns
    /// how many begin to wait. What a cell covers later depends only on when it last left by itself: nobody has seen
    /// that it was in a remainder.
    pub fn settle(&mut self, window: i64, joined: &Joined, gone: Gone<'_>) -> usize {
        let Gone { left, rolled_up } = gone;
        let goes = |number: u32| left.contains(&number) || rolled_up.contains(&number) && !planted("rolled-up-waits");
        if !planted("deferred-also-alone") {
            for cells in self.waiting.values_mut() {
                if cells.numbers().any(goes) {
                    *cells = cells.some(|number| !goes(number));
                }
            }
            self.waiting.retain(|_, cells| !cells.is_empty());
        }
        if !planted("deferred-forgets-left") {
            self.left.extend(left.iter().map(|number| (*number, window)));
        }
        if planted("rolled-up-tells") {
            self.left.extend(rolled_up.iter().map(|number| (*number, window)));
        }
        // What left is known for as long as any of both numbers asks for.
        let oldest = window.saturating_add(1).saturating_sub_unsigned(self.max.max(self.declared));
        self.left.retain(|_, left| *left >= oldest);
        if !self.takes(window) {
            return 0;
        }
        let is_own = |number: u32| joined.own.has_number(number);
        let mut wait = joined.cells.some(|number| !goes(number) && !is_own(number));
        wait.merge(joined.own.some(|number| !goes(number)));
        let waits = wait.len();
        if waits > 0 {
            self.waiting.insert(window, wait);
        }
        waits
    }

    /// Something of the windows before this one left when cells did not wait: what leaves later does not cover them.
    /// Everybody has seen that. That a window comes from the journal again does not say it: this would tell that the window
    /// had a record.
    pub fn left_before(&mut self, window: i64) {
        self.since = self.since.max(window);
    }

    /// What was decided before about a window's cells, which come from the journal again. `None`: nothing was, since cells
    /// did not wait then, or it is lost. `max` is for how many windows cells waited then, if that is known.
    pub fn again(&mut self, window: i64, cells: Cells, decided: Option<&Decided>, max: Option<u64>) {
        if let Some(max) = max {
            self.wait_for(max);
        }
        let none = BTreeSet::new();
        let (left, rolled_up) = decided.map_or((&none, &none), |decided| (&decided.left, &decided.rolled_up));
        self.close(window, decided.and_then(|decided| decided.under));
        let left = if planted("deferred-twice-after-restart") { &none } else { left };
        let joined = Joined { own: cells.some(|_| false), cells };
        self.settle(window, &joined, Gone { left, rolled_up });
    }

    /// All windows before this one have closed. What does not wait any more.
    pub fn closed_before(&mut self, window: i64) -> Vec<Dropped> {
        self.next = self.next.max(window);
        self.drop_before(self.oldest(window))
    }

    /// What was decided about the windows that have closed is not known any more. Nothing waits, and what leaves later covers none
    /// of them: that depends on no record.
    pub fn forget(&mut self) {
        self.since = self.since.max(self.next);
        self.drop_all();
    }

    /// Windows were released as they are, the last of them this one; `None`: there was none. Nothing waits any more.
    pub fn flushed(&mut self, last: Option<i64>) -> Vec<Dropped> {
        let after_last = last.map_or(i64::MIN, |last| last.saturating_add(1));
        self.since = self.since.max(self.next);
        self.from = self.from.max(self.next).max(after_last);
        self.drop_all()
    }

    /// How many cells wait, of each window by itself.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.values().map(Cells::len).sum()
    }

    /// Whether there is nothing to be kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds it to a checkpoint. It begins with its version, 1. What comes from the journal after a checkpoint is
    /// decided by what is declared when the checkpoint is made. So from now on, what is declared holds.
    pub fn encode(&mut self, writer: &mut Writer) {
        self.as_declared();
        writer.u8(VERSION).u64(self.max).i64(self.from).i64(self.since).i64(self.next);
        encode_digest(self.under, writer);
        writer.count(self.left.len());
        for (number, window) in &self.left {
            writer.u32(*number).i64(*window);
        }
        writer.count(self.waiting.len());
        for (window, cells) in &self.waiting {
            let mut bytes = Writer::default();
            cells.encode(&mut bytes);
            writer.i64(*window).bytes(&bytes.finish());
        }
    }

    /// Reads it for a dataset of the very same shape. If its cells wait for another number of windows now, that holds from
    /// [`Self::as_declared`] on: what was decided before was decided by the number of before. `None`: it is none.
    pub fn decode(dataset: &Dataset, reader: &mut Reader<'_>) -> Option<Self> {
        let (mut deferral, windows) = Self::decode_head(reader)?;
        for _ in 0..windows {
            let (window, cells) = (reader.i64()?, reader.bytes()?);
            deferral.waiting.insert(window, Cells::decode(dataset, &mut Reader::new(cells))?);
        }
        if deferral.max != dataset.max_defer {
            deferral.declared = dataset.max_defer;
            deferral.since = deferral.since.max(deferral.next);
        }
        Some(deferral)
    }

    /// Whether anything waits in what [`Self::encode`] wrote. `None`: it did not.
    #[must_use]
    pub fn waits_in(bytes: &[u8]) -> Option<bool> {
        Self::decode_head(&mut Reader::new(bytes)).map(|(_, windows)| windows > 0)
    }

    /// All but the cells, and of how many windows there are some.
    fn decode_head(reader: &mut Reader<'_>) -> Option<(Self, usize)> {
        if reader.u8()? != VERSION {
            return None;
        }
        let (max, from, since) = (reader.u64()?, reader.i64()?, reader.i64()?);
        let (next, under) = (reader.i64()?, decode_digest(reader)?);
        let mut deferral = Self { since, next, under, ..Self::new(max, from) };
        for _ in 0..reader.count(4 + 8)? {
            deferral.left.insert(reader.u32()?, reader.i64()?);
        }
        Some((deferral, reader.count(8 + 8)?))
    }

    /// Whether cells of a window may wait.
    fn takes(&self, window: i64) -> bool {
        self.max > 0 && self.under.is_some() && window >= self.from
    }

    /// The oldest window whose cells wait for this one.
    fn oldest(&self, window: i64) -> i64 {
        window.saturating_sub_unsigned(self.max)
    }

    /// What waits for a window. A cell covers all that it is joined with.
    fn waits_for(&self, window: i64) -> impl Iterator<Item = &Cells> {
        let takes = self.takes(window);
        self.waiting.range(self.since.min(window)..window).filter(move |_| takes).map(|(_, cells)| cells)
    }

    fn drop_before(&mut self, window: i64) -> Vec<Dropped> {
        let rest = self.waiting.split_off(&window);
        dropped(std::mem::replace(&mut self.waiting, rest))
    }

    fn drop_all(&mut self) -> Vec<Dropped> {
        dropped(std::mem::take(&mut self.waiting))
    }
}

fn dropped(waiting: BTreeMap<i64, Cells>) -> Vec<Dropped> {
    waiting.into_iter().map(|(window, cells)| Dropped { window, cells }).collect()
}

const VERSION: u8 = 1;

fn encode_digest(digest: Option<Digest>, writer: &mut Writer) {
    writer.u8(digest.is_some().into());
    if let Some(digest) = digest {
        writer.raw(digest.bytes());
    }
}

fn decode_digest(reader: &mut Reader<'_>) -> Option<Option<Digest>> {
    match reader.u8()? {
        0 => Some(None),
        1 => Some(Some(Digest::from_bytes(reader.array()?))),
        _ => None,
    }
}

impl Decided {
    /// Adds it to an entry of the outbox.
    pub fn encode(&self, writer: &mut Writer) {
        writer.i64(self.window);
        encode_digest(self.under, writer);
        for numbers in [&self.left, &self.rolled_up] {
            writer.count(numbers.len());
            numbers.iter().for_each(|number| {
                writer.u32(*number);
            });
        }
    }

    /// Reads it from one. Entries of before say nothing of remainders.
    pub fn decode(reader: &mut Reader<'_>, has_rolled_up: bool) -> Option<Self> {
        let (window, under) = (reader.i64()?, decode_digest(reader)?);
        let numbers =
            |reader: &mut Reader<'_>| (0..reader.count(4)?).map(|_| reader.u32()).collect::<Option<BTreeSet<u32>>>();
        let left = numbers(reader)?;
        let rolled_up = if has_rolled_up { numbers(reader)? } else { BTreeSet::new() };
        Some(Self { window, under, left, rolled_up })
    }
}

#[cfg(test)]
mod tests;
