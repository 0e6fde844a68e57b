//! The budgets of differential privacy: opened with everything else that is on disk.

use std::sync::Arc;

use anyhow::Context;

use crate::clock::Clock;
use crate::config::Config;
use crate::domain::privacy::day_of;
use crate::durable::spending::{Beginning, Book, DIRECTORY};
use crate::engine::noising::Noising;
use crate::storage::RealFileSystem;

/// What their log is called, as `journal` is.
pub(super) const LOG: &str = "privacy";

/// The budgets of the datasets with differential privacy. `is_new`: the gateway has never taken anything in. `closed_before`:
/// windows that began before this time have closed, so a clock that shows an earlier one is behind.
pub(super) fn open(config: &Config, clock: Clock, is_new: bool, closed_before: Option<i64>) -> anyhow::Result<Noising> {
    let directory = config.journal.directory.join(DIRECTORY);
    let mut datasets = config.policy.streams.values().flat_map(|plan| &plan.datasets);
    let is_asked = datasets.any(|dataset| dataset.privacy.is_some());
    // What was spent goes on being kept: the policies may ask for it again.
    if !is_asked && !directory.exists() {
        return Ok(Noising::new(None));
    }
    let beginning = if is_new { Beginning::New } else { Beginning::Unknown };
    let now = clock.wall();
    let today = day_of(closed_before.map_or(now, |closed| closed.max(now)));
    let book = Book::open(Arc::new(RealFileSystem), directory.clone(), beginning, today);
    let book = book.with_context(|| format!("budgets of privacy in {}", directory.display()))?;
    if book.damaged() > 0 {
        tracing::error!(
            places = book.damaged(),
            directory = %directory.display(),
            "what was spent of the budgets of privacy is damaged: nothing is left of the days through today. Check the disk"
        );
    }
    if book.is_unknown() {
        tracing::warn!(
            "it is not known what was spent of the budgets of privacy: nothing is left of the days through today (UTC), and \
             windows of them do not leave. That is so on the first day of a budget, too, of a gateway that ran before"
        );
    }
    if book.spending().unknown_through().is_some_and(|through| through > day_of(now)) {
        tracing::error!(
            directory = %directory.display(),
            "nothing is left of the budgets of privacy of days to come, because a clock or a window was ahead: if the clock \
             is right now, stop the gateway, move the directory away, and start it; then the budget of tomorrow is whole"
        );
    }
    Ok(Noising::new(Some(book)))
}
