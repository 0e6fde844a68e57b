//! What destinations were told last. Of a dataset that tells only what has changed, the collector releases the cells
//! that say something else, and keeps in the outbox what it told.

use std::collections::BTreeSet;

use arrow_schema::ArrowError;

use super::{Collector, Window};
use crate::domain::aggregate::Cells;
use crate::domain::name::{DatasetName, DestinationName};
use crate::domain::policy::{ClosedWindow, Digest, Outcome, Outlet, release_changes};
use crate::domain::table::{Tables, Telling};
use crate::domain::window::first_window;
use crate::durable::outbox::Closing;
use crate::storage::Lsn;

impl Collector {
    /// Releases, of the cells of a window that may leave, those that have changed.
    pub(super) fn changes(
        &self,
        closed: &ClosedWindow<'_>,
        (policy, outlets): (Digest, &[Outlet]),
        tables: &Tables,
    ) -> Result<Outcome, ArrowError> {
        // Those that may have cells by the policies in force hear of each window, whatever policies its records were decided
        // under: that a cell is gone says nothing of records.
        let (_, receivers) = self.collecting.rules.versions.outlets(closed.dataset, &BTreeSet::new());
        let receivers = receivers.unwrap_or_default().into_iter().map(|outlet| outlet.destination);
        let receivers: BTreeSet<DestinationName> = receivers.collect();
        release_changes(closed, outlets, policy, (tables, &receivers))
    }

    /// What a window tells. It goes into the closing with the releases, so that it is known again after a crash.
    pub(super) fn told(window: &Window<'_>, told: Vec<Telling>, tables: &mut Tables, closing: &mut Closing) {
        tables.at(window.window);
        told.iter().for_each(|telling| tables.tell(telling));
        if !told.is_empty() {
            closing.told.get_or_insert_with(|| tables.tellings(Vec::new())).of.extend(told);
        }
    }

    /// Windows without records close, before one with records or at the end of a closing. What was told is gone with
    /// the first of them.
    pub(super) fn without_records(
        &self,
        dataset: &DatasetName,
        before: i64,
        tables: &mut Option<Tables>,
        closing: &mut Closing,
    ) {
        let Some(window) = tables.as_ref().and_then(|tables| tables.gap(before)) else { return };
        let Some(declared) = self.collecting.rules.datasets.get(dataset) else { return };
        let of_window = Window { dataset, window, part: 0 };
        let (policy, _) = self.collecting.rules.versions.outlets(declared, &BTreeSet::new());
        let nothing = self.closed_window(&of_window, Cells::new(declared).bounded(declared), declared, None);
        self.leave(&of_window, &nothing, (policy, &[]), tables, closing);
    }

    /// All windows of a closing were released. It closed the windows that began before a time. `None`: it only released
    /// parts of windows.
    pub(super) fn all_told(
        &self,
        dataset: &DatasetName,
        before: Option<i64>,
        tables: &mut Option<Tables>,
        closing: &mut Closing,
    ) {
        let Some(declared) = self.collecting.rules.datasets.get(dataset) else { return };
        if before.is_some() {
            let next = first_window(before, declared.window);
            self.without_records(dataset, next, tables, closing);
            if let Some(tables) = tables {
                tables.closed_before(next);
            }
        }
        if let Some(tables) = tables {
            closing.told = closing.told.take().map(|told| tables.tellings(told.of));
        }
    }

    /// A closing could not be put out: what it told is not known.
    pub(super) fn forget_told(&mut self, dataset: &DatasetName) {
        if let Some(tables) = self.collecting.tables.get_mut(dataset) {
            tables.forget();
        }
    }

    /// The outbox has a newer closing of a dataset.
    pub(super) fn has_put_out(&mut self, dataset: &DatasetName, lsn: Lsn) {
        if self.collecting.tables.contains_key(dataset) {
            self.collecting.released.insert(dataset.into(), lsn);
        }
    }

    /// Puts the whole tables of all destinations into the outbox, because it deletes what it holds from before a
    /// checkpoint. If there is no room for a table, destinations may be told all again after the next start.
    pub(super) fn keep_told(&mut self) {
        let tables = self.collecting.tables.iter();
        let wholes = tables.filter_map(|(dataset, tables)| Some((String::from(dataset), tables.whole()?)));
        for (dataset, told) in wholes.collect::<Vec<_>>() {
            let closed_at = self.collecting.released.get(&dataset).copied().unwrap_or(0);
            let Ok(entry) = (Closing { closed_at, dataset, told: Some(told), ..Closing::default() }).encode() else {
                continue;
            };
            let outbox = &self.collecting.outbox;
            match outbox.reserve(entry.len() as u64) {
                Ok(room) => {
                    self.collecting.outbox_last += 1;
                    outbox.submit(self.collecting.outbox_last, entry, room, None);
                    let _ = outbox.wait_durable(self.collecting.outbox_last);
                }
                Err(error) => tracing::debug!(%error, "no room in the outbox for what destinations were told"),
            }
        }
    }
}
