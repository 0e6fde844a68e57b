//! Longer windows, whose rows are the sums of rows that have left: they leave when they end.

use std::collections::BTreeSet;

use super::Collector;
use crate::domain::aggregate::Cells;
use crate::domain::dataset::Dataset;
use crate::domain::name::DatasetName;
use crate::domain::policy::{Digest, Ended, Outcome, Released, release_longer};
use crate::domain::time::rfc3339;
use crate::domain::window::{first_window, window_start};
use crate::durable::outbox::Closing;
use crate::storage::{Log, Lsn};

impl Collector {
    /// Adds the rows that leave of a window which began at a time.
    pub(super) fn add_to_longer(
        (counted, start): (&Dataset, i64),
        (cells, in_force): (&Cells, Digest),
        outcome: &mut Outcome,
        closing: &mut Closing,
    ) {
        if let Some(longer) = &mut closing.longer {
            let policies: BTreeSet<Digest> = cells.policies().iter().copied().chain([in_force]).collect();
            longer.add(counted, start, std::mem::take(&mut outcome.longer), &policies);
        }
    }

    /// The windows of a closing were released, which closed those that began before a time. `None`: it only released parts of
    /// windows. What was added up of longer windows that end with it leaves with it. If nothing is added and none ends, the
    /// closing does not say what is added up.
    pub(super) fn longer_windows(&self, dataset: &DatasetName, before: Option<i64>, closing: &mut Closing) {
        let (Some(mut longer), Some(counted)) = (closing.longer.take(), self.collecting.rules.datasets.get(dataset))
        else {
            return;
        };
        if self.collecting.rules.is_dry_run {
            return;
        }
        let before = before.map(|before| window_start(first_window(Some(before), counted.window), counted.window));
        let part = if before.is_some() { 0 } else { closing.closed_at };
        for ended in longer.ended(counted, before) {
            closing.releases.extend(self.sums(counted, &ended, part));
        }
        closing.longer = Some(longer).filter(|longer| self.collecting.longer.get(dataset) != Some(longer));
    }

    /// What may leave of a longer window that has ended.
    fn sums(&self, counted: &Dataset, ended: &Ended, part: u64) -> Vec<Released> {
        let versions = &self.collecting.rules.versions;
        let (in_force, now) = versions.outlets(counted, &BTreeSet::new());
        let (_, outlets) = versions.outlets(counted, ended.policies());
        let (dataset, window_start) = (ended.dataset(), rfc3339(ended.start(counted)));
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
        if !ended.was_asked_enough(counted, &now.unwrap_or_default()) {
            tracing::warn!(
                %dataset,
                window_start,
                "the policies ask more of cells than they did when rows of this window left; their sums do not leave"
            );
            return Vec::new();
        }
        let released = release_longer((&self.collecting.rules.gateway, counted), ended, part, &outlets, in_force);
        let released = released.unwrap_or_else(|error| {
            tracing::error!(
                %error,
                %dataset,
                window_start,
                "a longer window could not be released: a fault in bailiwick; please report this line"
            );
            Vec::new()
        });
        if !released.is_empty() {
            self.telemetry.add_of_dataset(dataset, |counts| &counts.cells_released, ended.rows());
        }
        released
    }

    /// A closing is in the outbox, with so many bytes. If it says what is added up, that is so now.
    pub(super) fn has_added_up(&mut self, dataset: &DatasetName, closing: &mut Closing, bytes: u64) {
        if let Some(longer) = closing.longer.take() {
            match longer.is_empty() {
                true => self.wholes.ends(dataset),
                false => self.wholes.put(dataset.to_string(), self.collecting.outbox_last, bytes),
            }
            self.collecting.longer.insert(dataset.clone(), longer);
        }
    }

    /// The outbox is full, and all through a position is to be let go. What is added up is put behind it. Where there is no room
    /// for that, less is let go: through which position is said.
    pub(super) fn keep_added_up(&mut self, through: Lsn) -> Lsn {
        let datasets: Vec<DatasetName> = self.collecting.longer.keys().cloned().collect();
        let kept = datasets.into_iter().filter_map(|dataset| {
            let longer = self.adds_up(&dataset)?.clone();
            let at = self.wholes.position(&dataset).unwrap_or(0);
            let is_put = at > through || self.put_whole(&dataset, (None, Some(longer)), Log::reserve_control).is_ok();
            (!is_put).then(|| at.saturating_sub(1))
        });
        kept.min().map_or(through, |first| through.min(first))
    }
}
