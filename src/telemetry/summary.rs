//! What happened, as log lines: one for each stream and interval, and one for each stream at the stop. Counts are shown as
//! metrics are: those of what may be in a cell in steps.

use std::collections::BTreeMap;

use super::steps::AllShown;
use super::{Counter, DatasetCounts, Steps, StreamCounts, Telemetry, UNDECLARED, as_shown};

/// After so many intervals in which nothing happened, that is said. So a log that says nothing for longer is of a gateway
/// that does not run.
const QUIET_MAX: u32 = 10;

/// The counts as they were at the last summary.
#[derive(Debug, Default)]
pub struct Summaries {
    before: BTreeMap<Option<String>, Counted>,
    turned_away: BTreeMap<&'static str, u64>,
    quiet: u32,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Counted {
    counts: BTreeMap<&'static str, u64>,
    refused: BTreeMap<&'static str, u64>,
}

impl Counted {
    fn now(shown: &AllShown, stream: Option<&str>, counts: &StreamCounts) -> Self {
        let mut all: BTreeMap<&'static str, u64> = BTreeMap::new();
        let mut add = |counted: Counter, whose: &str, steps: Steps| {
            *all.entry(counted.0).or_default() += as_shown(shown, counted, whose, steps);
        };
        let (steps, cell_steps, stream) = (counts.steps.now(), counts.cell_steps.now(), stream.unwrap_or(UNDECLARED));
        let refused = counts.refused.shown(shown, stream, steps).collect();
        counts.each().for_each(|counted| add(counted, stream, steps));
        for (dataset, counts) in &counts.datasets {
            counts.each().for_each(|counted| add(counted, dataset, cell_steps));
        }
        // A stream without a dataset has the counts of one, too.
        DatasetCounts::default().each().for_each(|(name, ..)| _ = all.entry(name).or_default());
        Self { counts: all, refused }
    }

    fn since(&self, before: &Self) -> Self {
        let minus = |now: &BTreeMap<&'static str, u64>, before: &BTreeMap<&'static str, u64>| {
            let before = |name: &str| before.get(name).copied().unwrap_or(0);
            now.iter().map(|(name, count)| (*name, count.saturating_sub(before(name)))).collect()
        };
        Self { counts: minus(&self.counts, &before.counts), refused: minus(&self.refused, &before.refused) }
    }

    fn is_nothing(&self) -> bool {
        self.counts.values().chain(self.refused.values()).all(|count| *count == 0)
    }

    fn of(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// The counts that are not among these, without those of nothing.
    fn others(&self, said: &[&str]) -> String {
        list(self.counts.iter().filter(|(name, _)| !said.contains(name)))
    }
}

fn list<'a>(counts: impl Iterator<Item = (&'a &'static str, &'a u64)>) -> String {
    let counts = counts.filter(|(_, count)| **count > 0).map(|(name, count)| format!("{name} {count}"));
    format!("[{}]", counts.collect::<Vec<_>>().join(", "))
}

/// The counts that every summary has.
const ALWAYS: [&str; 6] = ["records_in", "accepted", "late", "releases", "cells_released", "cells_withheld"];

impl Summaries {
    /// Logs what has happened since the last summary: a line for each stream of which anything has.
    pub fn interval(&mut self, telemetry: &Telemetry) {
        let mut is_quiet = true;
        for (stream, counts) in telemetry.streams() {
            let now = Counted::now(&telemetry.shown, stream, counts);
            let before = self.before.insert(stream.map(str::to_owned), now.clone()).unwrap_or_default();
            let counted = now.since(&before);
            if !counted.is_nothing() {
                is_quiet = false;
                say(stream, &counted, "counted since the last summary");
            }
        }
        let now: BTreeMap<&'static str, u64> = telemetry.turned_away.each().collect();
        let before = std::mem::replace(&mut self.turned_away, now.clone());
        let new: BTreeMap<&'static str, u64> =
            now.into_iter().map(|(why, count)| (why, count - before.get(why).copied().unwrap_or(0))).collect();
        if new.values().any(|count| *count > 0) {
            is_quiet = false;
            tracing::info!(turned_away = %list(new.iter()), "connections that were turned away since the last summary");
        }
        self.quiet = if is_quiet { self.quiet + 1 } else { 0 };
        if self.quiet == QUIET_MAX {
            self.quiet = 0;
            tracing::info!(intervals = QUIET_MAX, "nothing came in and nothing left");
        }
    }

    /// Logs what has happened since the start: a line for each declared stream, also of one that was quiet.
    pub fn end(telemetry: &Telemetry) {
        for (stream, counts) in telemetry.streams() {
            let counted = Counted::now(&telemetry.shown, stream, counts);
            if stream.is_some() || !counted.is_nothing() {
                say(stream, &counted, "counted since the start");
            }
        }
    }
}

fn say(stream: Option<&str>, counted: &Counted, message: &str) {
    let stream = stream.unwrap_or(UNDECLARED);
    let [records_in, accepted, late, releases, released, withheld] = ALWAYS.map(|name| counted.of(name));
    let (refused, others) = (list(counted.refused.iter()), counted.others(&ALWAYS));
    tracing::info!(
        %stream,
        records_in,
        accepted,
        %refused,
        late,
        releases,
        cells_released = released,
        cells_withheld = withheld,
        %others,
        "{message}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::refusal::Reason;
    use crate::telemetry::Growing;

    fn now(counts: &StreamCounts) -> Counted {
        Counted::now(&AllShown::default(), Some("s"), counts)
    }

    #[test]
    fn the_log_tells_of_records_as_metrics_do() {
        let counts = StreamCounts { steps: Growing::new(Steps::new(10, 5)), ..StreamCounts::default() };
        let mut before = now(&counts);
        for records in 1..=60 {
            for count in [&counts.records_in, &counts.accepted, &counts.scored] {
                Telemetry::add(count, 1);
            }
            counts.refused.add(Reason::TooLong, 1);
            counts.refused.add(Reason::Quarantined, 1);
            let now = now(&counts);
            let in_steps = ["records_in", "accepted", "scored"].map(|name| (now.of(name), before.of(name)));
            for (now, before) in
                in_steps.into_iter().chain([(now.refused["quarantined"], before.refused["quarantined"])])
            {
                assert!(now.is_multiple_of(20) && now.abs_diff(records) < 20 && now >= before, "{now} of {records}");
            }
            assert_eq!(now.of("accepted"), now.of("scored"), "each tells no more than the other");
            assert_eq!(now.refused["too_long"], records);
            before = now;
        }
    }

    #[test]
    fn an_interval_is_what_came_since_the_one_before() {
        let counts = StreamCounts::default();
        Telemetry::add(&counts.accepted, 5);
        counts.refused.add(Reason::TooLong, 2);
        let first = now(&counts);
        Telemetry::add(&counts.accepted, 3);
        counts.refused.add(Reason::Malformed, 4);
        let second = now(&counts).since(&first);
        assert_eq!((second.of("accepted"), second.of("late")), (3, 0));
        assert_eq!(list(second.refused.iter()), "[malformed 4]");
        assert!(now(&counts).since(&now(&counts)).is_nothing());
        for name in ALWAYS {
            assert!(first.counts.contains_key(name), "{name}");
        }
    }
}
