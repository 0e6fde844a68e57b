//! What all open windows of a gateway hold, and the most that they may.
//!
//! Bytes are estimated from what is held, never below what is allocated for it: hash tables and lists are counted as if
//! they had just doubled. So a batch adds at most what [`most_added`] says of it, and that is reserved before the batch
//! is taken in: what is held stays within the limit. A set that ends because there are enough in it gives its bytes back.
//! A checkpoint, or the journal at a start, needs no check: what was counted within the limit fits again. Parts of a closed
//! window count until they are released.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::brought::FIRST_BROUGHT;
use super::hashed::FIRST_CONTRIBUTOR;
use super::parted::{FIRST_COMBINATION, Parted};
use super::portions::{Portions, first_portion};
use super::producer_sums::{ProducerSums, first_producer_sums};
use super::sample::first_kept;
use super::state::State;
use super::ways::{Way, ways};
use crate::domain::dataset::Dataset;

/// A window without cells: its lists' heads, the table of a small domain, the digests of policies.
const WINDOW: usize = 1_024;
/// A cell without its metrics: its number, its slot in a map or table, its count of records, the head of its set.
const CELL: usize = 32 + 2 * (size_of::<u32>() + size_of::<u64>() + 4 * size_of::<usize>());

/// A plan without its groups: its place in a tree.
const PLAN: usize = 128;

/// Bytes of the cells of a window, without their sets.
pub(super) fn cells_bytes(cells: usize, each: usize) -> usize {
    WINDOW + cells * each
}

/// Bytes of a cell of a dataset, without its sets. `is_parted`: its records are kept by their combinations too.
pub(super) fn cell_bytes(metrics: &[State], is_parted: bool) -> usize {
    let parted = if is_parted { size_of::<Parted>() } else { 0 };
    let portions = if State::summed(metrics) > 0 { size_of::<Portions>() + size_of::<ProducerSums>() } else { 0 };
    CELL + 2 * (metrics.iter().map(State::bytes_of_a_cell).sum::<usize>() + parted + portions)
}

/// The most bytes that records can add to the open windows of a dataset: all of them in cells of their own, as far as
/// there can be so many in as many windows, and by contributors of their own. Where windows overlap, a record counts in each
/// that it is in. `with_producers`: who brought them is kept.
#[must_use]
pub fn most_added(dataset: &Dataset, records: usize, windows: usize, with_producers: bool) -> usize {
    let records = records.saturating_mul(dataset.grid().windows_of_a_record());
    let windows = windows.min(records);
    let cells = dataset.keys.iter().map(|key| key.domain.size()).fold(windows, usize::saturating_mul).min(records);
    let is_parted = !ways(dataset).is_empty();
    let metrics = State::of(dataset);
    let (cell, summed) = (cell_bytes(&metrics, is_parted), State::summed(&metrics));
    if dataset.bounds.is_some() {
        return (windows * WINDOW).saturating_add(records.saturating_mul(first_kept(summed)));
    }
    let of_parts = if is_parted { FIRST_COMBINATION } else { 0 };
    let of_portions = if summed > 0 { first_portion(summed) } else { 0 };
    let of_producers = match (with_producers, summed) {
        (false, _) => 0,
        (true, 0) => FIRST_BROUGHT,
        (true, _) => FIRST_BROUGHT + first_producer_sums(summed),
    };
    let of_record = FIRST_CONTRIBUTOR + of_parts + of_portions + of_producers;
    windows * WINDOW + cells.saturating_mul(cell).saturating_add(records * of_record)
}

/// Bytes of the plan of a cell: the group of each part.
pub(super) fn plan_bytes(ways: &[Way<'_>]) -> usize {
    PLAN + ways.iter().map(|way| size_of::<Option<Vec<usize>>>() + way.parts() * size_of::<usize>()).sum::<usize>()
}

/// The most bytes that planning a cell takes meanwhile.
pub(super) fn planning_bytes(ways: &[Way<'_>], parted: &Parted) -> usize {
    // Its atoms by their parts of each way, twice, and by their rests, in trees; beside that two parts' sets, three times.
    let of_atom = 512 + 64 * ways.len();
    let of_ways: usize = ways.iter().map(|way| 64 * way.parts()).sum();
    of_ways + parted.counts().count() * of_atom + 3 * parted.bytes()
}

/// What all open windows of a gateway hold. Shared by everyone who holds some.
#[derive(Debug)]
pub struct OpenBytes {
    max: usize,
    held: AtomicUsize,
    cells: AtomicUsize,
    reserved: AtomicUsize,
}

/// Why there is no room for records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The windows hold too much: there is room when some have closed.
    Held,
    /// What is being counted may need what is left. There is room soon.
    Reserved,
}

impl OpenBytes {
    /// Nothing yet, and at most so many bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, held: AtomicUsize::new(0), cells: AtomicUsize::new(0), reserved: AtomicUsize::new(0) }
    }

    /// The limit.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max
    }

    /// Bytes that are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Cells that are held. One counts once for each worker that has records of it.
    #[must_use]
    pub fn cells(&self) -> usize {
        self.cells.load(Ordering::Relaxed)
    }

    /// Room for what records can add at most, until they are counted.
    ///
    /// # Errors
    /// When there is none.
    pub fn reserve(self: &Arc<Self>, most: usize) -> Result<Reserved, Full> {
        // Reserved first: two that reserve at once see each other.
        let reserved = self.reserved.fetch_add(most, Ordering::SeqCst).saturating_add(most);
        let reservation = Reserved { open: Arc::clone(self), bytes: most };
        let held = self.held.load(Ordering::SeqCst);
        if held.saturating_add(most) > self.max {
            return Err(Full::Held);
        }
        if held.saturating_add(reserved) > self.max {
            return Err(Full::Reserved);
        }
        Ok(reservation)
    }
}

fn change(count: &AtomicUsize, before: usize, after: usize) {
    if after >= before {
        count.fetch_add(after - before, Ordering::SeqCst);
    } else {
        count.fetch_sub(before - after, Ordering::SeqCst);
    }
}

/// Room in the open windows, given back when it is dropped.
#[derive(Debug)]
pub struct Reserved {
    open: Arc<OpenBytes>,
    bytes: usize,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.open.reserved.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

/// What one window holds of [`OpenBytes`], until it is dropped.
#[derive(Debug, Default)]
pub(in crate::domain) struct Charge {
    open: Option<Arc<OpenBytes>>,
    bytes: usize,
    cells: usize,
}

impl Charge {
    /// From now on it counts.
    pub(super) fn to(&mut self, open: &Arc<OpenBytes>, bytes: usize, cells: usize) {
        *self = Self { open: Some(Arc::clone(open)), bytes: 0, cells: 0 };
        self.set(bytes, cells);
    }

    /// As many bytes more, for as long as the result is kept.
    pub(super) fn beside(&self, bytes: usize) -> Self {
        let mut beside = Self::default();
        if let Some(open) = &self.open {
            beside.to(open, bytes, 0);
        }
        beside
    }

    /// It holds so many bytes now, and so many cells.
    pub(super) fn set(&mut self, bytes: usize, cells: usize) {
        if let Some(open) = &self.open {
            change(&open.held, self.bytes, bytes);
            if cells != self.cells {
                change(&open.cells, self.cells, cells);
            }
            (self.bytes, self.cells) = (bytes, cells);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_for_what_is_held_and_what_is_reserved() {
        let open = Arc::new(OpenBytes::new(100));
        let mut charge = Charge::default();
        charge.set(1_000, 9);
        assert_eq!(open.held(), 0);
        charge.to(&open, 60, 3);
        assert_eq!(open.reserve(41).err(), Some(Full::Held));
        let first = open.reserve(30).unwrap();
        assert_eq!(open.reserve(20).err(), Some(Full::Reserved));
        drop(first);
        let all = open.reserve(40).unwrap();
        charge.set(70, 4);
        assert_eq!(open.cells(), 4);
        drop(all);
        assert_eq!(open.reserve(31).err(), Some(Full::Held));
        drop(charge);
        assert_eq!((open.held(), open.cells()), (0, 0));
        assert!(open.reserve(100).is_ok());
        assert_eq!(open.reserve(101).err(), Some(Full::Held));
    }
}
