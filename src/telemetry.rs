//! Every count of a running gateway, declared once: here the log's summaries, `demo` and whatever else shows counts
//! read names and meanings. Counts and names only: no content of a record.
//!
//! Labels come from fixed sets: the streams that are declared at the start, and [`Reason`]. Nothing that a producer says
//! becomes a label.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::connection::Turned;
use crate::domain::name::StreamName;
use crate::domain::refusal::{Reason, Refusal};

pub use shadow::Shadow;
pub use summary::Summaries;

mod shadow;
mod summary;

/// Declares a struct of counts, and the list of its declarations.
macro_rules! counts {
    (
        $(#[$about:meta])* pub struct $name:ident { $($(#[doc = $help:literal])+ $count:ident,)+ }
        $($(#[doc = $other_help:literal])+ $other:ident: $type:ty,)*
    ) => {
        $(#[$about])*
        #[derive(Debug, Default)]
        pub struct $name {
            $($(#[doc = $help])+ pub $count: AtomicU64,)+
            $($(#[doc = $other_help])+ pub $other: $type,)*
        }

        impl $name {
            /// Every count with its declaration. All only grow.
            pub fn each(&self) -> impl Iterator<Item = (Declaration, u64)> {
                [$((Declaration { name: stringify!($count), help: concat!($($help),+) }, read(&self.$count)),)+]
                    .into_iter()
            }
        }
    };
}

/// What a count is called, and what it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declaration {
    /// The name: snake case, without a unit's or a program's prefix.
    pub name: &'static str,
    /// What is counted, in one sentence.
    pub help: &'static str,
}

counts! {
    /// What is counted of each stream.
    pub struct StreamCounts {
        /// Bytes of payload received.
        bytes_in,
        /// Records received, whatever became of them.
        records_in,
        /// Records taken in.
        accepted,
        /// Records taken in after their window had closed; they count in the oldest open window.
        late,
        /// Requests that were durable already.
        duplicates,
        /// Records scored by a model.
        scored,
        /// Values of undeclared fields that were dropped.
        dropped_values,
        /// Cells that left.
        cells_released,
        /// Cells with too few contributors.
        cells_withheld,
        /// Releases put into the outbox, one for each window and destination.
        releases,
        /// Releases that a dry run did not make.
        dry_releases,
    }
    /// Records that were refused, by reason; a request that was refused as a whole counts once, or as often as it had
    /// records when they were known.
    refused: Refused,
}

counts! {
    /// What is counted of the gateway as a whole.
    pub struct GatewayCounts {
        /// Bytes that destinations took.
        bytes_out,
        /// Records that the journal held at the start under a key that was not there any more.
        erased,
        /// Records put into quarantine.
        quarantined,
        /// Records that were taken in from quarantine when more was known.
        quarantine_released,
        /// Records that were discarded from quarantine.
        quarantine_expired,
    }
}

/// A count for each reason.
#[derive(Debug, Default)]
pub struct Refused([AtomicU64; Reason::ALL.len()]);

impl Refused {
    /// Counts records refused for one reason.
    pub fn add(&self, reason: Reason, records: usize) {
        let position = Reason::ALL.iter().position(|(known, _)| *known == reason);
        if let Some(counter) = position.and_then(|position| self.0.get(position)) {
            Telemetry::add(counter, records);
        }
    }

    /// Every reason's name and count.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Reason::ALL.iter().zip(&self.0).map(|((_, name), counter)| (*name, read(counter)))
    }
}

/// A count for each reason why connections are turned away before there is a request.
#[derive(Debug, Default)]
pub struct TurnedAway([AtomicU64; Turned::ALL.len()]);

impl TurnedAway {
    /// Counts a connection.
    pub fn add(&self, why: Turned) {
        let position = Turned::ALL.iter().position(|(known, _)| *known == why);
        if let Some(counter) = position.and_then(|position| self.0.get(position)) {
            Telemetry::add(counter, 1);
        }
    }

    /// Every reason's name and count.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Turned::ALL.iter().zip(&self.0).map(|((_, name), counter)| (*name, read(counter)))
    }
}

impl StreamCounts {
    /// Counts refused records by reason.
    pub fn refused(&self, refusals: &[Refusal]) {
        for refusal in refusals {
            self.refused.add(refusal.reason, 1);
        }
    }
}

/// The counts since start.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// Of the gateway as a whole.
    pub gateway: GatewayCounts,
    /// Connections that were turned away.
    pub turned_away: TurnedAway,
    /// What the policies in the shadow would do otherwise.
    pub shadow: Shadow,
    streams: BTreeMap<StreamName, Arc<StreamCounts>>,
    /// Requests for a stream that is not declared, or that name none.
    undeclared: Arc<StreamCounts>,
}

impl Telemetry {
    /// Counts of nothing yet, for these streams.
    #[must_use]
    pub fn new<'n>(streams: impl IntoIterator<Item = &'n StreamName>) -> Self {
        let streams = streams.into_iter().map(|name| (name.clone(), Arc::default()));
        Self { streams: streams.collect(), ..Self::default() }
    }

    /// The counts of a stream. Those of all streams that are not declared are one.
    #[must_use]
    pub fn of(&self, stream: &str) -> &Arc<StreamCounts> {
        self.streams.get(stream).unwrap_or(&self.undeclared)
    }

    /// The counts of every stream by its name; `None` stands for streams that are not declared.
    pub fn streams(&self) -> impl Iterator<Item = (Option<&str>, &Arc<StreamCounts>)> {
        let declared = self.streams.iter().map(|(name, counts)| (Some(name.as_str()), counts));
        declared.chain([(None, &self.undeclared)])
    }

    /// A count, over all streams.
    #[must_use]
    pub fn total(&self, count: impl Fn(&StreamCounts) -> &AtomicU64) -> u64 {
        self.streams().map(|(_, counts)| read(count(counts))).sum()
    }

    /// The refusals so far over all streams, by reason, without those that never happened.
    #[must_use]
    pub fn refusals(&self) -> Vec<(&'static str, u64)> {
        let of = |position: usize| self.streams().filter_map(move |(_, counts)| counts.refused.0.get(position));
        let sums = Reason::ALL.iter().enumerate();
        let sums = sums.map(|(position, (_, name))| (*name, of(position).map(read).sum()));
        sums.filter(|(_, count)| *count > 0).collect()
    }

    /// Adds to a count.
    pub fn add(counter: &AtomicU64, amount: usize) {
        counter.fetch_add(amount as u64, Ordering::Relaxed);
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_count_apart_and_names_from_outside_make_no_label() {
        let telemetry = Telemetry::new(&["a", "b"].map(|name| StreamName::new(name).unwrap()));
        Telemetry::add(&telemetry.of("a").accepted, 3);
        Telemetry::add(&telemetry.of("b").accepted, 4);
        telemetry.of("invented").refused.add(Reason::UnknownStream, 1);
        telemetry.of("invented, too").refused.add(Reason::UnknownStream, 1);
        telemetry.of("b").refused(&[Refusal::new(0, Reason::TooLong), Refusal::new(5, Reason::TooLong)]);
        let names: Vec<_> = telemetry.streams().map(|(name, _)| name).collect();
        assert_eq!(names, [Some("a"), Some("b"), None]);
        assert_eq!((read(&telemetry.of("a").accepted), telemetry.total(|counts| &counts.accepted)), (3, 7));
        assert_eq!(telemetry.refusals(), [("unknown_stream", 2), ("too_long", 2)]);
    }

    #[test]
    fn every_count_is_declared_once_with_what_it_counts() {
        let counts = StreamCounts::default();
        Telemetry::add(&counts.late, 2);
        let declared: BTreeMap<&str, (&str, u64)> =
            counts.each().map(|(declared, count)| (declared.name, (declared.help.trim(), count))).collect();
        assert_eq!(declared.len(), counts.each().count());
        assert_eq!(declared["records_in"], ("Records received, whatever became of them.", 0));
        assert_eq!(declared["late"].1, 2);
        assert!(declared.values().all(|(help, _)| help.ends_with('.')), "{declared:?}");
    }
}
