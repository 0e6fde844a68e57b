//! The counters of laws: opened with everything else that is on disk.

use std::sync::Arc;

use anyhow::Context;

use crate::clock::Clock;
use crate::config::Config;
use crate::domain::counting::{Name, Tally, date_of};
use crate::durable::counting;
use crate::engine::counting::Counting;
use crate::storage::RealFileSystem;

/// The counters that the policies ask a gateway to keep, with whom they have counted before.
pub(super) fn open(config: &Config, clock: Clock) -> anyhow::Result<Arc<Counting>> {
    let directory = config.journal.directory.join("counters");
    let is_asked = config.policy.counted.contains_key(&config.id);
    // What was counted goes on being kept: the policies may ask for it again.
    if !is_asked && !directory.exists() {
        return Ok(Arc::new(Counting::none(clock)));
    }
    let (mut key, mut chance) = ([0; 16], [0; 16]);
    for random in [&mut key, &mut chance] {
        getrandom::fill(random).context("the system gives no random numbers")?;
    }
    let found = counting::open(Arc::new(RealFileSystem), directory.clone(), (key, chance), clock.wall());
    let found = found.with_context(|| format!("counters in {}", directory.display()))?;
    if found.damaged > 0 {
        tracing::error!(
            places = found.damaged,
            directory = %directory.display(),
            "what the counters of laws have counted is damaged, so counts were lost: check the disk"
        );
    }
    if found.last == 0 {
        tracing::info!("persons are counted from now on; those who went before are what `already` of [[counted]] says");
    }
    let counting = Arc::new(Counting::new(found, clock));
    counting.tidy().with_context(|| format!("counters in {}", directory.display()))?;
    for (counter, day) in lost(&counting, config.policy.tallies(&config.here)) {
        let directory = directory.display();
        tracing::error!(counter, %directory, "counts before {day} were lost; no room until the period is over; {LOST_HELP}");
    }
    Ok(counting)
}

/// What their log is called, as `journal` is.
pub(super) const LOG: &str = "counters";

/// What helps where counts were lost.
pub(super) const LOST_HELP: &str = "no file that is put back helps. To have room again, stop the gateway, say in `already` \
    of [[counted]] how many persons went in the period, move the directory `counters` of the journal away, and start the \
    gateway";

/// The counts without room because counts were lost, each with the day before which they were.
pub(super) fn lost(counting: &Counting, tallies: impl IntoIterator<Item = Tally>) -> Vec<(String, String)> {
    let lost = tallies.into_iter().filter_map(|tally| {
        let day = counting.lost(&tally)?;
        let Name { counter, to } = &*tally.name;
        Some((format!("{counter} to {to}"), date_of(day).map_or_else(|| "today".to_owned(), |date| date.to_string())))
    });
    lost.collect()
}
