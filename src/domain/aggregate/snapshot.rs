//! Cells as they were at one moment, written down bit by bit while records go on being folded into them.
//!
//! A checkpoint wants the cells as they were at a position of the journal. To write them all at once would hold up
//! every answer meanwhile. So the owner writes a few at a time, and a cell that is about to change is written before.

use super::checkpoint::{Columns, Saved};
use super::{Cells, Foldable, Rows};
use crate::planted::planted;

/// What is written of the cells so far.
pub(super) struct Snapshot {
    columns: Columns,
    /// The slots of the cells that there were, or the places of the contributors, each with whether it is written.
    is_written: Vec<bool>,
    /// All slots or places before this one are written.
    next: usize,
}

impl Snapshot {
    /// Writes a slot's cell or a contributor, unless it is written, or was not there.
    #[inline]
    fn write(&mut self, cells: &Cells, slot: usize) {
        if let Some(is_written) = self.is_written.get_mut(slot).filter(|is_written| !**is_written) {
            *is_written = true;
            self.columns.add(cells, slot);
        }
    }

    /// Writes cells until so many bytes are written, and takes what it wrote off. Whether all are written.
    fn write_some(&mut self, cells: &Cells, bytes: &mut usize) -> bool {
        while self.next < self.is_written.len() && *bytes > 0 {
            let before = self.columns.len();
            self.write(cells, self.next);
            self.next += 1;
            *bytes = bytes.saturating_sub(self.columns.len() - before);
        }
        self.next == self.is_written.len()
    }
}

impl Cells {
    /// From now on the cells as they are at this moment are kept, until [`Self::take_saved`].
    pub fn save(&mut self) {
        let (columns, is_written) = (Columns::of(self), vec![false; self.units()]);
        self.snapshot = Some(Box::new(Snapshot { columns, is_written, next: 0 }));
    }

    /// Writes about so many bytes of what is kept, and takes what it wrote off. Whether all is written, or nothing is kept.
    pub fn save_some(&mut self, bytes: &mut usize) -> bool {
        let Some(mut snapshot) = self.snapshot.take() else { return true };
        let is_whole = snapshot.write_some(self, bytes);
        self.snapshot = Some(snapshot);
        is_whole
    }

    /// The cells as they were when they were to be kept. `None`: nothing is kept.
    pub fn take_saved(&mut self) -> Option<Saved> {
        let mut snapshot = self.snapshot.take()?;
        (snapshot.next..self.units()).for_each(|slot| snapshot.write(self, slot));
        Some(snapshot.columns.finish())
    }

    /// Writes the cells that these records will change, or what is kept of their contributors.
    pub(super) fn save_before_change(&mut self, records: &Foldable<'_>, rows: &Rows<'_>) {
        let Some(mut snapshot) = self.snapshot.take() else { return };
        if !planted("save-after-change") {
            rows.each(records.cells.len(), |row| {
                let at = match &self.sample {
                    Some(sample) => records.contributors.get(row).and_then(|of| sample.position(*of)),
                    None => records.cells.get(row).and_then(|number| self.slots.get(*number)),
                };
                if let Some(at) = at {
                    snapshot.write(self, at);
                }
            });
        }
        self.snapshot = Some(snapshot);
    }
}
