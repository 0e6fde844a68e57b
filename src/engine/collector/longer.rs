//! Longer windows, whose rows are the sums of rows that have left: they leave when they end.

use std::collections::BTreeMap;

use super::Collector;
use crate::domain::binary::Writer;
use crate::domain::dataset::Dataset;
use crate::domain::name::DatasetName;
use crate::domain::policy::{Addition, Ended, Longer, Released, release_longer};
use crate::domain::time::rfc3339;
use crate::domain::window::{first_window, window_start};
use crate::durable::outbox::Closing;
use crate::storage::Lsn;

impl Collector {
    /// Which part of their windows a closing releases: 0 is the rest of those that began before a time.
    pub(super) fn part(&self, before: Option<i64>, closed_at: Lsn) -> u64 {
        if before.is_some() { 0 } else { self.collecting.key.part(closed_at) }
    }

    /// The windows of a closing were released, which closed those that began before a time. `None`: it only released parts of
    /// windows. What was added up of longer windows that end with it leaves with it.
    pub(super) fn longer_windows(&self, dataset: &DatasetName, before: Option<i64>, closing: &mut Closing) {
        let Some(longer) = self.collecting.longer.get(dataset) else { return };
        let Some(counted) = self.collecting.rules.datasets.get(dataset) else { return };
        let before = before.map(|before| window_start(first_window(Some(before), counted.window), counted.window));
        let part = self.part(before, closing.closed_at);
        for ended in longer.ending(counted, before, &mut closing.longer) {
            // What a dry run closes is not released later, either.
            if !self.collecting.rules.is_dry_run {
                closing.releases.extend(self.sums(counted, &ended, part));
            }
        }
    }

    /// The outbox has a closing: what was added up is what it was before, and what the closing did.
    pub(super) fn has_added_up(&mut self, dataset: &DatasetName, closing: &Closing) {
        if let Some(longer) = self.collecting.longer.get_mut(dataset) {
            longer.add(&closing.longer);
        }
    }

    /// What may leave of a longer window that has ended.
    fn sums(&self, counted: &Dataset, ended: &Ended, part: u64) -> Vec<Released> {
        let (dataset, window_start) = (ended.dataset(), rfc3339(ended.start(counted)));
        let (in_force, outlets) = self.collecting.rules.versions.outlets(counted, ended.policies());
        let outlets = outlets.unwrap_or_else(|policy| {
            tracing::error!(
                %dataset,
                window_start,
                %policy,
                "rows left under policies that are lost; their sums do not leave. Keep the files in `policies` of the journal's \
                 directory"
            );
            Vec::new()
        });
        self.shadowed(dataset, &outlets);
        let released = release_longer(&self.collecting.rules.gateway, counted, ended, part, &outlets, in_force);
        let released = released.unwrap_or_else(|error| {
            tracing::error!(
                %error,
                %dataset,
                window_start,
                "a longer window could not be released: a fault in bailiwick; please report this line"
            );
            Vec::new()
        });
        if !ended.was_asked_enough(counted, &outlets) {
            tracing::warn!(
                %dataset,
                window_start,
                "the policies ask more of cells than they did when rows of this window left: their sums do not leave"
            );
        }
        let telemetry = &self.telemetry;
        match released.is_empty() {
            true => telemetry.add_of_dataset(dataset, |counts| &counts.cells_withheld, ended.rows()),
            false => telemetry.add_of_dataset(dataset, |counts| &counts.cells_released, ended.rows()),
        }
        released
    }

    /// A full outbox is to let go of what closings have added: behind that, it has what was added up. Where there is no room for
    /// it, it has that there is nothing, because it does not know any more which windows have ended. Whether one of both is there.
    pub(super) fn keep_added_up(&mut self) -> bool {
        let datasets: Vec<DatasetName> = self.collecting.longer.keys().cloned().collect();
        let are_kept = datasets.iter().all(|dataset| {
            let all = self.collecting.longer.get(dataset).map(Longer::all).unwrap_or_default();
            let is_nothing = all.added.is_empty();
            if self.put_again(dataset, all) {
                return true;
            }
            if !is_nothing {
                tracing::warn!(
                    %dataset,
                    "the outbox is full, without room for what was added up of longer windows. If a crash comes before the next \
                     checkpoint, their sums lack it"
                );
            }
            self.put_again(dataset, Addition { is_all: true, ..Addition::default() })
        });
        if are_kept {
            self.added_up_at = self.collecting.outbox_last;
        }
        are_kept
    }

    fn put_again(&mut self, dataset: &DatasetName, longer: Addition) -> bool {
        let closed_at = self.collecting.released.get(dataset).map_or(0, |last| last.closed_at);
        let closing = Closing { longer, ..Closing::new(dataset.clone(), closed_at) };
        let Ok(entry) = closing.encode() else { return false };
        let Ok(room) = self.collecting.outbox.reserve_control(entry.len() as u64) else { return false };
        self.append(entry, room)
    }
}

/// What was added up, for a checkpoint.
pub(super) fn saved(longer: &BTreeMap<DatasetName, Longer>) -> Vec<(DatasetName, Vec<u8>)> {
    let adds_up = longer.iter().filter(|(_, longer)| !longer.is_empty());
    let saved = adds_up.map(|(dataset, longer)| {
        let mut writer = Writer::default();
        longer.all().encode(&mut writer);
        (dataset.clone(), writer.finish())
    });
    saved.collect()
}
