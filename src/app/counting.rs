//! The counters of laws: opened with everything else that is on disk.

use std::sync::Arc;

use anyhow::Context;

use crate::clock::Clock;
use crate::config::Config;
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
            "what the counters of laws have counted is damaged; until their periods are over, nothing goes abroad by a counter. \
             Put back what was removed. Or stop the gateway, say in `already` of [[counted]] how many persons went in the \
             period, and move the directory away"
        );
    }
    if found.last == 0 {
        tracing::info!("persons are counted from now on; those who went before are what `already` of [[counted]] says");
    }
    let counting = Arc::new(Counting::new(found, clock));
    // The secret is on disk before anybody is counted under it.
    counting.tidy().with_context(|| format!("counters in {}", directory.display()))?;
    Ok(counting)
}
