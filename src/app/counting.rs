//! The counters of laws: opened with everything else that is on disk.

use std::sync::Arc;

use anyhow::Context;

use crate::clock::{Clock, wall_clock};
use crate::config::Config;
use crate::domain::counting::{Name, Noticed, Reading, Tally, date_of};
use crate::durable::counting::{self, Chance};
use crate::engine::counting::Counting;
use crate::storage::RealFileSystem;

/// The counters that the policies ask a gateway to keep, with whom they have counted before.
pub(super) fn open(config: &Config, clock: Clock) -> anyhow::Result<Arc<Counting>> {
    let (journal, fs) = (&config.journal.directory, Arc::new(RealFileSystem));
    let directory = journal.join(counting::DIRECTORY);
    let is_asked = config.policy.counted.contains_key(&config.id);
    // What was counted goes on being kept: the policies may ask for it again.
    if !is_asked && !directory.exists() {
        return Ok(Arc::new(Counting::none(clock)));
    }
    let mut chance = Chance { key: [0; 16], nobody: [0; 16] };
    for random in [&mut chance.key, &mut chance.nobody] {
        getrandom::fill(random).context("the system gives no random numbers")?;
    }
    let in_directory = || format!("counters in {}", directory.display());
    let found = counting::open(fs.clone(), journal, chance, clock.wall()).with_context(in_directory)?;
    if found.damaged > 0 {
        tracing::error!(
            places = found.damaged,
            directory = %directory.display(),
            "what the counters of laws have counted is damaged or gone, so counts were lost: check the disk"
        );
    }
    if found.last == 0 {
        tracing::info!("persons are counted from now on; those who went before are what `already` of [[counted]] says");
    }
    let counting = Arc::new(Counting::new(found, clock));
    let tallies = config.policy.tallies(&config.here);
    ask(&counting, &tallies);
    counting.tidy().with_context(in_directory)?;
    // On a full disk nothing may have been written yet; then a start that finds nothing has lost nothing.
    if counting.log().is_some_and(|log| log.durable() > 0) {
        counting::begun(fs, journal).with_context(in_directory)?;
    }
    for (counter, day) in lost(&counting, tallies) {
        let directory = directory.display();
        tracing::error!(counter, %directory, "counts before {day} were lost; no room until the period is over; {LOST_HELP}");
    }
    Ok(counting)
}

/// The policies ask for these counts from now on. What is to be known of it is logged.
pub(super) fn ask(counting: &Counting, tallies: &[Tally]) {
    for noticed in counting.ask(tallies) {
        tracing::warn!("{}", says(&noticed));
    }
}

/// What there is to say of the counts on disk, should a gateway start with this configuration. Changes nothing.
///
/// # Errors
/// When they cannot be read.
pub(super) fn examine(config: &Config) -> anyhow::Result<Vec<String>> {
    let journal = &config.journal.directory;
    let directory = journal.join(counting::DIRECTORY);
    let fs = Arc::new(RealFileSystem);
    let in_directory = || format!("counters in {}", directory.display());
    let is_asked = config.policy.counted.contains_key(&config.id);
    let is_begun = counting::at_least(&*fs, journal).with_context(in_directory)? > 0;
    if !directory.exists() {
        let is_gone = is_asked && is_begun;
        return Ok(is_gone
            .then(|| format!("{} is gone, so counts were lost; {LOST_HELP}", directory.display()))
            .into_iter()
            .collect());
    }
    let (mut counts, _) = counting::look(fs, journal).with_context(in_directory)?;
    let now = Reading { ran: counts.ran(), wall: wall_clock().as_microsecond() };
    counts.see(now);
    Ok(counts.ask(&config.policy.tallies(&config.here)).iter().map(says).collect())
}

fn says(noticed: &Noticed) -> String {
    let named = |name: &Name| format!("{} to {}", name.counter, name.to);
    match noticed {
        Noticed::CountedOn { from, to } => format!(
            "persons were counted by {}, which no policy asks for any more; until their period is over they count in {}, too",
            named(from),
            named(to)
        ),
        Noticed::Unasked(name) => format!(
            "persons were counted by {}, which no policy asks for any more; if they count for another counter of [[counted]], \
             say in its `already` how many there are",
            named(name)
        ),
        Noticed::KeptOtherwise(name) => format!(
            "the period or the zone of {} is another one: who was counted before counts as of today; say in `already` of \
             [[counted]] how many others went in the new period",
            named(name)
        ),
    }
}

/// What their log is called, as `journal` is.
pub(super) const LOG: &str = "counters";

/// What helps where counts were lost.
pub(super) const LOST_HELP: &str = "no file that is put back helps. To have room again, stop the gateway, say in `already` \
    of [[counted]] how many persons went in the period, move the directory `counters` and the file `counters.begun` of the \
    journal away, and start the gateway";

/// The counts without room because counts were lost, each with the day before which they were.
pub(super) fn lost(counting: &Counting, tallies: impl IntoIterator<Item = Tally>) -> Vec<(String, String)> {
    let lost = tallies.into_iter().filter_map(|tally| {
        let day = counting.lost(&tally)?;
        let Name { counter, to } = &*tally.name;
        Some((format!("{counter} to {to}"), date_of(day).map_or_else(|| "today".to_owned(), |date| date.to_string())))
    });
    lost.collect()
}
