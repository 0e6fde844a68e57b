//! Longer windows, whose rows are the sums of rows that have left: they leave when they end.

use std::collections::BTreeSet;

use super::Collector;
use crate::domain::binary::Writer;
use crate::domain::dataset::Dataset;
use crate::domain::name::DatasetName;
use crate::domain::policy::{Ended, Longer, Released, release_longer};
use crate::domain::time::rfc3339;
use crate::domain::window::{first_window, window_start};
use crate::durable::outbox::Closing;

impl Collector {
    /// The windows of a closing were released, which closed those that began before a time. `None`: it only released parts of
    /// windows. Its rows are added up. What was added up of longer windows that end with it leaves with it.
    pub(super) fn longer_windows(
        &self,
        dataset: &DatasetName,
        before: Option<i64>,
        longer: &mut Longer,
        closing: &mut Closing,
    ) {
        let Some(counted) = self.collecting.rules.datasets.get(dataset).filter(|_| !self.collecting.rules.is_dry_run)
        else {
            return;
        };
        longer.add(&closing.longer);
        let before = before.map(|before| window_start(first_window(Some(before), counted.window), counted.window));
        let part = if before.is_some() { 0 } else { closing.closed_at };
        for ended in longer.end(counted, before, &mut closing.longer) {
            closing.releases.extend(self.sums(counted, &ended, part));
        }
    }

    /// What may leave of a longer window that has ended.
    fn sums(&self, counted: &Dataset, ended: &Ended, part: u64) -> Vec<Released> {
        let (in_force, outlets) = self.collecting.rules.versions.outlets(counted, &BTreeSet::new());
        let (outlets, dataset, window_start) =
            (outlets.unwrap_or_default(), ended.dataset(), rfc3339(ended.start(counted)));
        self.shadowed(dataset, &outlets);
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
        if !ended.was_asked_enough(counted, &outlets) {
            tracing::warn!(
                %dataset,
                window_start,
                "the policies ask something else of cells than when rows of this window left: their sums do not leave"
            );
        }
        let telemetry = &self.telemetry;
        match released.is_empty() {
            true => telemetry.add_of_dataset(dataset, |counts| &counts.cells_withheld, ended.rows()),
            false => telemetry.add_of_dataset(dataset, |counts| &counts.cells_released, ended.rows()),
        }
        released
    }

    /// Puts what was added up into the checkpoint that is under way.
    pub(super) fn save_longer(&mut self) {
        let Some(gathering) = &mut self.checkpoint else { return };
        for (dataset, longer) in self.collecting.longer.iter().filter(|(_, longer)| !longer.is_empty()) {
            let mut writer = Writer::default();
            longer.all().encode(&mut writer);
            gathering.checkpoint.longer.push((dataset.to_string(), writer.finish()));
        }
    }
}
