//! Where the cells of a window are kept: the slot of each cell number.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// The slot of each cell number that has appeared. Memory follows the cells that there are, not the size of the domain:
/// a table of all numbers comes only when the cells are many enough to pay for it.
#[derive(Debug)]
pub(super) struct Slots {
    /// How many cell numbers there are.
    total: usize,
    found: Found,
}

#[derive(Debug)]
enum Found {
    Few(HashMap<u32, u32, RandomState>),
    /// One for each number.
    Table(Vec<u32>),
}

const NO_SLOT: u32 = u32::MAX;
/// A domain of so many cells has a table from the start.
const SMALL: usize = 64;
/// A table comes when every so manieth number has a cell: it then takes 32 bytes a cell, and the map takes up to 20.
const SHARE: usize = 8;

impl Slots {
    /// No cell yet, of so many that there may be.
    pub(super) fn new(total: usize) -> Self {
        let found = if total <= SMALL { Found::Table(vec![NO_SLOT; total]) } else { Found::Few(HashMap::default()) };
        Self { total, found }
    }

    /// No cell yet, of as many as there may be here.
    pub(super) fn none(&self) -> Self {
        Self::new(self.total)
    }

    /// The slot of a cell number, if it has one.
    #[inline]
    pub(super) fn get(&self, number: u32) -> Option<usize> {
        let slot = match &self.found {
            Found::Table(table) => table.get(number as usize).copied().filter(|slot| *slot != NO_SLOT),
            Found::Few(map) => map.get(&number).copied(),
        };
        slot.map(|slot| slot as usize)
    }

    /// Whether there can be a cell of a number.
    pub(super) fn can_be(&self, number: u32) -> bool {
        (number as usize) < self.total
    }

    /// Gives a cell number its slot. A number that cannot be is passed over.
    pub(super) fn insert(&mut self, number: u32, slot: usize) {
        let slot = u32::try_from(slot).unwrap_or(NO_SLOT);
        match &mut self.found {
            Found::Table(table) => {
                if let Some(place) = table.get_mut(number as usize) {
                    *place = slot;
                }
            }
            Found::Few(map) => {
                map.insert(number, slot);
                if map.len() * SHARE >= self.total {
                    let mut table = vec![NO_SLOT; self.total];
                    for (&number, &slot) in &*map {
                        if let Some(place) = table.get_mut(number as usize) {
                            *place = slot;
                        }
                    }
                    self.found = Found::Table(table);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_the_slot_that_it_was_given_before_and_after_the_table_comes() {
        for total in [1_usize, SMALL, SMALL + 1, 1_000, 65_536] {
            let mut slots = Slots::new(total);
            let numbers: Vec<u32> = (0..total as u32).map(|number| (number * 7_919) % total as u32).collect();
            let mut seen = std::collections::BTreeSet::new();
            for number in numbers.into_iter().filter(|number| seen.insert(*number)).collect::<Vec<_>>() {
                assert_eq!(slots.get(number), None);
                slots.insert(number, number as usize / 2);
                assert_eq!(slots.get(number), Some(number as usize / 2));
            }
            assert!(seen.iter().all(|number| slots.get(*number) == Some(*number as usize / 2)));
            assert_eq!(slots.get(total as u32), None);
            assert!(slots.can_be(total as u32 - 1) && !slots.can_be(total as u32));
        }
    }

    #[test]
    fn a_cell_or_two_of_many_take_little_memory() {
        let mut slots = Slots::new(65_536);
        slots.insert(65_535, 0);
        slots.insert(0, 1);
        assert!(matches!(&slots.found, Found::Few(map) if map.capacity() < 8));
        (0..65_536).for_each(|number| slots.insert(number, number as usize));
        assert!(matches!(slots.found, Found::Table(_)));
    }
}
