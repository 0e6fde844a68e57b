//! Some of the cells of a window, by their numbers.

use super::Cells;
use super::state::State;

impl Cells {
    /// The number of a slot's cell.
    pub(in crate::domain) fn number(&self, slot: usize) -> u32 {
        self.numbers[slot]
    }

    /// The numbers of the cells.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.numbers.iter().copied()
    }

    /// Whether there is a cell of a number.
    #[must_use]
    pub fn has_number(&self, number: u32) -> bool {
        self.slots.get(number).is_some()
    }

    /// A copy of the cells whose numbers are wanted. It counts among what the open windows hold if these do.
    #[must_use]
    pub fn some(&self, is_wanted: impl Fn(u32) -> bool) -> Self {
        let slots: Vec<usize> = (0..self.numbers.len()).filter(|slot| is_wanted(self.numbers[*slot])).collect();
        let mut some = Self {
            slots: self.slots.none(),
            numbers: of(&slots, &self.numbers),
            records: of(&slots, &self.records),
            contributors: of(&slots, &self.contributors),
            metrics: self.metrics.iter().map(|state| state.some(&slots)).collect(),
            parted: of(&slots, &self.parted),
            is_parted: self.is_parted,
            portions: of(&slots, &self.portions),
            producer_sums: of(&slots, &self.producer_sums),
            summed: self.summed,
            policies: self.policies.clone(),
            cell_bytes: self.cell_bytes,
            set_bytes: slots.iter().map(|slot| self.bytes_of_sets(*slot)).sum(),
            enough: self.enough,
            // Where records are bounded, cells do not wait: the loader refuses both together.
            sample: None,
            bounds: self.bounds,
            drawn: None,
            charge: self.charge.beside(0),
            snapshot: None,
        };
        for (slot, number) in some.numbers.iter().enumerate() {
            some.slots.insert(*number, slot);
        }
        some.charge.set(some.bytes(), some.len());
        some
    }
}

impl State {
    /// The same of some of the cells.
    fn some(&self, slots: &[usize]) -> Self {
        match self {
            Self::Count => Self::Count,
            Self::Parts => Self::Parts,
            Self::Same(first) => Self::Same(*first),
            Self::Moments(moments) => Self::Moments(of(slots, moments)),
        }
    }
}

/// What a column holds at some slots. A column that nothing is kept in is empty.
fn of<T: Clone>(slots: &[usize], column: &[T]) -> Vec<T> {
    slots.iter().filter_map(|slot| column.get(*slot).cloned()).collect()
}
