//! What destinations were told last. Of a dataset that tells only what has changed, the collector releases the cells
//! that say something else, and keeps in the outbox what it told.

use std::collections::{BTreeMap, BTreeSet};

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
    /// What destinations were told of a dataset, for a closing. A dry run has its own: what it would have told, after what was
    /// told before it.
    pub(super) fn take_tables(&mut self, dataset: &DatasetName) -> Option<Tables> {
        let told = &mut self.collecting.tables;
        if self.collecting.rules.is_dry_run {
            return self.dry_tables.remove(dataset).or_else(|| told.get(dataset).cloned());
        }
        told.remove(dataset)
    }

    /// Keeps them after a closing, of windows that began before a time.
    pub(super) fn put_tables(&mut self, dataset: &DatasetName, tables: Option<Tables>, before: Option<i64>) {
        let is_dry_run = self.collecting.rules.is_dry_run;
        let kept = if is_dry_run { &mut self.dry_tables } else { &mut self.collecting.tables };
        kept.extend(tables.map(|tables| (dataset.clone(), tables)));
        if is_dry_run {
            self.has_closed(dataset, before);
        }
    }

    /// Releases, of the cells of a window that may leave, those that have changed.
    pub(super) fn changes(
        &self,
        closed: &ClosedWindow<'_>,
        policy: Digest,
        outlets: &[Outlet],
        tables: &Tables,
    ) -> Result<Outcome, ArrowError> {
        // Those that may have cells by the policies in force hear of each window, whatever policies its records were decided
        // under: that a cell is gone says nothing of records.
        let (_, receivers) = self.collecting.rules.versions.outlets(closed.dataset, &BTreeSet::new());
        let receivers = receivers.unwrap_or_default().into_iter().map(|outlet| outlet.destination);
        let receivers: BTreeSet<DestinationName> = receivers.collect();
        release_changes(closed, outlets, policy, tables, &receivers)
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
        self.leave(&of_window, &nothing, policy, &[], tables, closing);
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
        self.wholes.at.remove(dataset);
    }

    /// Puts into the outbox what destinations were told, as a whole, where it is not there yet or is about to be let go.
    /// Where there is no room for it, destinations may be told again after the next start.
    pub(super) fn keep_told(&mut self) {
        let needless = (self.collecting.confirmed)().min(self.outbox_at_checkpoint);
        let tables = self.collecting.tables.iter().filter(|(dataset, _)| self.wholes.is_due(dataset, needless));
        let due = tables.filter_map(|(dataset, tables)| Some((dataset.clone(), tables.whole()?)));
        for (dataset, told) in due.collect::<Vec<_>>() {
            let closed_at = self.collecting.released.get(&dataset).map_or(0, |last| last.closed_at);
            let closing = Closing { told: Some(told), ..Closing::new(dataset.clone(), closed_at) };
            let Ok(entry) = closing.encode() else { continue };
            let bytes = entry.len() as u64;
            match self.collecting.outbox.reserve(bytes) {
                Ok(room) => {
                    // The one of before is needed until this one is on disk.
                    if self.append(entry, room) {
                        self.wholes.put(dataset, self.collecting.outbox_last, bytes);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "no room in the outbox for what destinations were told");
                    self.wholes.at.remove(&dataset);
                }
            }
        }
    }
}

/// Where the outbox has what destinations were told, as a whole. A start needs the last one of each dataset, and what closings
/// told after it. Where it finds none, it does not know what was told, whatever closings say.
///
/// One is put there again when it keeps the outbox from letting go of what stands behind it. That costs as much as the table is
/// large, however little has changed. So it waits until closings behind it take as many bytes: then tables are at most half of
/// what is written.
#[derive(Debug, Default)]
pub(super) struct Wholes {
    /// The last one of each dataset, unless it may be let go.
    at: BTreeMap<DatasetName, Whole>,
    /// The bytes of all closings since the start.
    closed: u64,
}

/// What destinations were told of a dataset, in the outbox.
#[derive(Debug)]
struct Whole {
    at: Lsn,
    bytes: u64,
    /// The bytes of all closings before it, since the start.
    after: u64,
}

impl Wholes {
    /// Whether a dataset's is to be put into the outbox, of which nobody else needs what is there through a position.
    fn is_due(&self, dataset: &DatasetName, needless: Lsn) -> bool {
        let is_in_the_way = |whole: &Whole| whole.at <= needless && self.closed - whole.after >= whole.bytes;
        self.at.get(dataset).is_none_or(is_in_the_way)
    }

    /// A dataset's is there now, and takes so many bytes.
    fn put(&mut self, dataset: DatasetName, at: Lsn, bytes: u64) {
        self.at.insert(dataset, Whole { at, bytes, after: self.closed });
    }

    /// A closing of so many bytes was put into the outbox.
    pub(super) fn closed(&mut self, bytes: u64) {
        self.closed += bytes;
    }

    /// How much of what nobody else needs may be let go, so that all of these stay.
    pub(super) fn spare(&self, needless: Lsn) -> Lsn {
        let first = self.at.values().map(|whole| whole.at).min();
        first.map_or(needless, |first| needless.min(first.saturating_sub(1)))
    }

    /// Everything through a position is let go. What was there is put into the outbox again at the next checkpoint.
    pub(super) fn give_up(&mut self, through: Lsn) {
        self.at.retain(|_, whole| whole.at > through);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a() -> DatasetName {
        "a".parse().unwrap()
    }

    fn b() -> DatasetName {
        "b".parse().unwrap()
    }

    #[test]
    fn what_was_told_is_put_into_the_outbox_when_it_would_be_let_go_and_stays_until_then() {
        let mut wholes = Wholes::default();
        wholes.closed(4_000);
        assert!(wholes.is_due(&a(), 0), "the outbox has none");
        assert_eq!(wholes.spare(4), 4);
        wholes.put(a(), 5, 100);
        wholes.put(b(), 6, 100);
        assert!(!wholes.is_due(&a(), 6), "nothing was closed after it");
        wholes.closed(100);
        assert!(!wholes.is_due(&a(), 4), "a destination is away");
        assert!(wholes.is_due(&a(), 5) && !wholes.is_due(&b(), 5));
        assert_eq!((wholes.spare(3), wholes.spare(5), wholes.spare(9)), (3, 4, 4));
        wholes.put(a(), 10, 100);
        assert_eq!(wholes.spare(9), 5);
        wholes.give_up(9);
        assert_eq!((wholes.spare(9), wholes.spare(12)), (9, 9));
        assert!(wholes.is_due(&b(), 0) && !wholes.is_due(&a(), 9));
    }

    #[test]
    fn what_does_not_change_takes_no_more_bytes_than_the_closings_of_others() {
        let mut wholes = Wholes::default();
        let (mut last, mut closed, mut written) = (0, 0, 0);
        // At each checkpoint nobody needs what stood in the outbox at the one before, and one closing has come since.
        for checkpoint in 0..1_000 {
            let needless = last;
            if checkpoint > 0 {
                (last, closed) = (last + 1, closed + 90);
                wholes.closed(90);
            }
            if wholes.is_due(&a(), needless) {
                (last, written) = (last + 1, written + 5_000);
                wholes.put(a(), last, 5_000);
            }
        }
        assert!(written <= 5_000 + closed && written > closed / 2, "{written} bytes beside {closed}");
        assert!(!wholes.is_due(&a(), last), "little was closed since");
    }
}
