//! Every count of a running gateway, declared once ([`declared`]): `/metrics`, the log's summaries and `demo` read names and
//! meanings here. Counts and names only: no content of a record.
//!
//! Labels come from fixed sets: the streams, datasets, destinations and peers that are declared at the start, and closed
//! lists of reasons. Nothing that a producer says becomes a label.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::connection::Turned;
use crate::domain::name::{DatasetName, DestinationName, GatewayId, StreamName};
use crate::domain::refusal::{Reason, Refusal};

pub use declared::Declaration;
use declared::{Kind, Unit};
pub use histogram::{Counted, Histogram};
pub use samples::Samples;
pub use shadow::Shadow;
use steps::AllShown;
pub use steps::{Chances, Growing, Steps};
pub use summary::Summaries;
use times::AllTimes;
pub use times::Times;

pub mod declared;
mod histogram;
mod samples;
mod shadow;
mod steps;
mod summary;
mod times;

/// Declares a struct of counts: each with its name in the log, and the metric that it is, if it is one.
macro_rules! counts {
    (
        $(#[$about:meta])* pub struct $name:ident { $($(#[doc = $help:literal])+ $count:ident: $metric:expr,)+ }
        $($(#[doc = $other_help:literal])+ $other:ident: $type:ty,)*
    ) => {
        $(#[$about])*
        #[derive(Debug, Default)]
        pub struct $name {
            $($(#[doc = $help])+ pub $count: AtomicU64,)+
            $($(#[doc = $other_help])+ pub $other: $type,)*
        }

        impl $name {
            /// Every count: its name in the log, the metric that it is, and how many there are. All only grow.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, Option<Declaration>, u64)> {
                [$((stringify!($count), $metric, read(&self.$count)),)+].into_iter()
            }
        }
    };
}

counts! {
    /// What is counted of each stream.
    pub struct StreamCounts {
        /// Bytes of payload received.
        bytes_in: Some(declared::PAYLOAD_IN),
        /// Requests received.
        requests_in: Some(declared::REQUESTS_IN),
        /// Records received. No metric: beside what was refused it would tell what was accepted, to the record.
        records_in: None,
        /// Records taken in.
        accepted: Some(declared::RECORDS_ACCEPTED),
        /// Bytes of payload of the records taken in: of a request, the share by their number. Those from quarantine have none.
        bytes_accepted: Some(declared::PAYLOAD_ACCEPTED),
        /// Records taken in after their window had closed; they count in the oldest open window.
        late: Some(declared::RECORDS_LATE),
        /// Requests that were durable already.
        duplicates: Some(declared::REQUESTS_REPEATED),
        /// Records scored by a model.
        scored: Some(declared::RECORDS_SCORED),
        /// Values of undeclared fields that were dropped.
        dropped_values: Some(declared::VALUES_DROPPED),
    }
    /// Records that were refused, by reason; a request that was refused as a whole counts once, or as often as it had
    /// records when they were known.
    refused: Refused,
    /// What is counted of the stream's datasets.
    datasets: BTreeMap<DatasetName, DatasetCounts>,
    /// How counts of records are shown outside.
    steps: Growing,
    /// The same of cells that did not leave.
    cell_steps: Growing,
}

counts! {
    /// What is counted of each dataset.
    pub struct DatasetCounts {
        /// Cells that left.
        cells_released: Some(declared::CELLS_RELEASED),
        /// Cells that were not told again, since they say what they said before.
        cells_unchanged: Some(declared::CELLS_UNCHANGED),
        /// Cells with too few contributors.
        cells_withheld: Some(declared::CELLS_WITHHELD),
        /// Cells that left in a remainder.
        remainders_released: Some(declared::REMAINDERS_RELEASED),
        /// Cells with too few contributors that began to wait for the next windows.
        cells_deferred: Some(declared::CELLS_DEFERRED),
        /// Cells that waited and were dropped.
        cells_deferred_dropped: Some(declared::CELLS_DEFERRED_DROPPED),
        /// Windows whose cells got noise.
        windows_noised: Some(declared::WINDOWS_NOISED),
        /// Windows that did not leave for lack of a budget.
        windows_without_budget: Some(declared::WINDOWS_WITHOUT_BUDGET),
        /// Releases put into the outbox, one for each window and destination.
        releases: Some(declared::RELEASES),
        /// Releases that a dry run did not make.
        dry_releases: Some(declared::RELEASES_DRY),
    }
}

counts! {
    /// What is counted of the gateway as a whole.
    pub struct GatewayCounts {
        /// Records that the journal held at the start under a key that was not there any more.
        erased: Some(declared::RECORDS_ERASED),
        /// Records put into quarantine.
        quarantined: Some(declared::RECORDS_QUARANTINED),
        /// Records that were taken in from quarantine when more was known.
        quarantine_taken_in: Some(declared::QUARANTINE_RELEASED),
        /// Records that were discarded from quarantine.
        quarantine_expired: Some(declared::QUARANTINE_EXPIRED),
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

    /// Every reason's name and count as it is shown outside: of records that were put into quarantine in steps, since they may
    /// be taken in later.
    fn shown(&self, shown: &AllShown, whose: &str, steps: Steps) -> impl Iterator<Item = (&'static str, u64)> {
        Reason::ALL.iter().zip(&self.0).map(move |((reason, name), counter)| match reason {
            Reason::Quarantined => (*name, as_shown(shown, (*name, None, read(counter)), whose, steps)),
            _ => (*name, read(counter)),
        })
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

/// The names that counts are kept by: those of the configuration at the start.
#[derive(Debug, Default)]
pub struct Names {
    /// The streams, each with its datasets and the greatest k of their cells.
    pub streams: BTreeMap<StreamName, (Vec<DatasetName>, usize)>,
    /// The destinations.
    pub destinations: Vec<DestinationName>,
    /// The peers.
    pub peers: Vec<GatewayId>,
    /// How many workers there are.
    pub workers: usize,
    /// Where the steps begin, in which counts of records are shown.
    pub chances: Chances,
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
    /// Connections of producers that are open now.
    pub connections: AtomicU64,
    /// The bytes of a closing's releases that do not fit into a segment of the outbox, so that nothing more leaves. 0: there
    /// are none.
    pub too_large_for_outbox: AtomicU64,
    streams: BTreeMap<StreamName, Arc<StreamCounts>>,
    /// Requests for a stream that is not declared, or that name none.
    undeclared: Arc<StreamCounts>,
    /// Bytes that each destination took.
    released: BTreeMap<DestinationName, AtomicU64>,
    /// Records that were sent to each peer, and to those that are not known by name.
    redirected: (BTreeMap<GatewayId, AtomicU64>, AtomicU64),
    /// How counts over all streams are shown outside.
    steps: Growing,
    /// Where steps begin.
    chances: Chances,
    /// What is shown of each count.
    shown: AllShown,
    times: AllTimes,
}

impl Telemetry {
    /// Counts of nothing yet, under these names.
    #[must_use]
    pub fn new(names: Names) -> Self {
        let Names { streams, destinations, peers, workers, chances } = names;
        let times = AllTimes::new(workers, streams.keys());
        let largest = streams.values().map(|(_, k)| *k).max().unwrap_or(0);
        let streams = streams.into_iter().map(|(name, (datasets, k))| {
            let datasets = datasets.into_iter().map(|dataset| (dataset, DatasetCounts::default())).collect();
            let steps = Growing::new(Steps::new(k, chances.of(&name)));
            let cell_steps = Growing::new(Steps::new(k, chances.of(&cells_of(&name))));
            (name, Arc::new(StreamCounts { datasets, steps, cell_steps, ..StreamCounts::default() }))
        });
        Self {
            streams: streams.collect(),
            released: destinations.into_iter().map(|name| (name, AtomicU64::default())).collect(),
            redirected: (peers.into_iter().map(|name| (name, AtomicU64::default())).collect(), AtomicU64::default()),
            steps: Growing::new(Steps::new(largest, chances.of(ALL_STREAMS))),
            chances,
            times,
            ..Self::default()
        }
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

    /// Adds to a count of a dataset.
    pub fn add_of_dataset(&self, dataset: &str, count: impl Fn(&DatasetCounts) -> &AtomicU64, amount: usize) {
        let counts = self.streams.values().find_map(|stream| stream.datasets.get(dataset));
        if let Some(counts) = counts {
            Self::add(count(counts), amount);
        }
    }

    /// A destination took so many bytes.
    pub fn released(&self, destination: &DestinationName, bytes: usize) {
        if let Some(counter) = self.released.get(destination) {
            Self::add(counter, bytes);
        }
    }

    /// Bytes that all destinations took.
    #[must_use]
    pub fn bytes_out(&self) -> u64 {
        self.released.values().map(read).sum()
    }

    /// Counts refused records by the peer that each belongs to.
    pub fn redirected(&self, refusals: &[Refusal]) {
        for route in refusals.iter().filter_map(|refusal| refusal.route.as_ref()) {
            Self::add(self.redirected.0.get(&*route.id).unwrap_or(&self.redirected.1), 1);
        }
    }

    /// A count, over all streams.
    #[must_use]
    pub fn total(&self, count: impl Fn(&StreamCounts) -> &AtomicU64) -> u64 {
        self.streams().map(|(_, counts)| read(count(counts))).sum()
    }

    /// A count, over all datasets.
    #[must_use]
    pub fn total_of_datasets(&self, count: impl Fn(&DatasetCounts) -> &AtomicU64) -> u64 {
        self.streams.values().flat_map(|stream| stream.datasets.values()).map(|counts| read(count(counts))).sum()
    }

    /// The refusals so far over all streams, by reason, without those that never happened.
    #[must_use]
    pub fn refusals(&self) -> Vec<(&'static str, u64)> {
        let of = |position: usize| self.streams().filter_map(move |(_, counts)| counts.refused.0.get(position));
        let sums = Reason::ALL.iter().enumerate();
        let sums = sums.map(|(position, (_, name))| (*name, of(position).map(read).sum()));
        sums.filter(|(_, count)| *count > 0).collect()
    }

    /// Every count as a metric: what may be in a cell in steps.
    pub fn sample(&self, samples: &mut Samples) {
        for (stream, counts) in self.streams() {
            let label = stream.unwrap_or(UNDECLARED);
            self.sample_all(samples, counts.each(), label, counts.steps.now());
            for (reason, count) in counts.refused.shown(&self.shown, label, counts.steps.now()) {
                samples.count(declared::RECORDS_REFUSED, &[label, reason], count);
            }
            let cell_steps = counts.cell_steps.now();
            for (dataset, counts) in &counts.datasets {
                self.sample_all(samples, counts.each(), dataset, cell_steps);
            }
        }
        self.sample_all(samples, self.gateway.each(), ALL_STREAMS, self.steps.now());
        for (destination, bytes) in &self.released {
            samples.count(declared::RELEASED, &[destination], read(bytes));
        }
        let peers = self.redirected.0.iter().map(|(peer, count)| (peer.as_str(), count));
        for (peer, count) in peers.chain([("(other)", &self.redirected.1)]) {
            samples.count(declared::RECORDS_REDIRECTED, &[peer], read(count));
        }
        samples.count(declared::CONNECTIONS, &[], read(&self.connections));
        for (reason, count) in self.turned_away.each() {
            samples.count(declared::TURNED_AWAY, &[reason], count);
        }
        let (allowed, denied) = (read(&self.shadow.newly_allowed), read(&self.shadow.newly_denied));
        for (declared, count) in [(declared::SHADOW_NEWLY_ALLOWED, allowed), (declared::SHADOW_NEWLY_DENIED, denied)] {
            samples.count(declared, &[], self.shown(declared, ALL_STREAMS, count));
        }
        let streams: Vec<(&str, Steps)> =
            self.streams.iter().map(|(stream, counts)| (stream.as_str(), counts.steps.now())).collect();
        self.times.sample(samples, self.steps.now(), &streams);
    }

    /// Counts that are metrics, as their declarations say that they are shown.
    fn sample_all(&self, samples: &mut Samples, counts: impl Iterator<Item = Counter>, whose: &str, steps: Steps) {
        let labels: &[&str] = if whose == ALL_STREAMS { &[] } else { &[whose] };
        for counter in counts {
            if let Some(declared) = counter.1 {
                samples.count(declared, labels, as_shown(&self.shown, counter, whose, steps));
            }
        }
    }

    /// A count over all streams, of a log or of a rule, as it is shown outside: in the steps for the greatest k. The same number
    /// is to be asked for under the same name.
    #[must_use]
    pub fn shown(&self, declared: Declaration, whose: &str, count: u64) -> u64 {
        as_shown(&self.shown, (declared.name, Some(declared), count), whose, self.steps.now())
    }

    /// A count of each stream that has it, as its metric shows it, unless that is 0.
    pub fn shown_by_stream(
        &self,
        declared: Declaration,
        count: impl Fn(&StreamCounts) -> &AtomicU64,
    ) -> impl Iterator<Item = (&StreamName, u64)> {
        let shown = move |stream: &StreamName, counts: &StreamCounts| {
            let counter = (declared.name, Some(declared), read(count(counts)));
            as_shown(&self.shown, counter, stream, counts.steps.now())
        };
        self.streams.iter().map(move |(stream, counts)| (stream, shown(stream, counts))).filter(|(_, shown)| *shown > 0)
    }

    /// Says in the log what the policies in the shadow would do otherwise.
    pub fn say_shadow(&self) {
        self.shadow.say(|declared, rule, count| self.shown(declared, rule, count));
    }

    /// Streams have these greatest k of their cells from now on: where one is greater than all before, steps grow. How large they
    /// are then.
    pub fn grow_steps(&self, greatest: &[(StreamName, usize)]) -> Vec<(StreamName, u64)> {
        let largest = greatest.iter().map(|(_, k)| *k).max().unwrap_or(0);
        self.steps.grow(largest, &self.chances, ALL_STREAMS);
        let sizes = greatest.iter().map(|(stream, k)| {
            let StreamCounts { steps, cell_steps, .. } = &**self.of(stream);
            steps.grow(*k, &self.chances, stream);
            cell_steps.grow(*k, &self.chances, &cells_of(stream));
            (stream.clone(), steps.now().size())
        });
        sizes.collect()
    }

    /// Where a worker, by its number, says how long its steps take.
    #[must_use]
    pub fn times(&self, worker: usize) -> Arc<Times> {
        self.times.of(worker)
    }

    /// Where a log says how long its syncs take.
    #[must_use]
    pub fn syncs(&self, log: &str) -> Arc<Histogram> {
        self.times.of_log(log)
    }

    /// Adds to a count.
    pub fn add(counter: &AtomicU64, amount: usize) {
        counter.fetch_add(amount as u64, Ordering::Relaxed);
    }
}

/// What the steps of counts over all streams are called. No stream has this name.
const ALL_STREAMS: &str = "";

/// What the steps of counts of a stream's cells are called. No stream has this name.
fn cells_of(stream: &StreamName) -> String {
    format!("cells of {stream}")
}

/// What all streams are called that are not declared.
const UNDECLARED: &str = "(not declared)";

/// A count: its name in the log, the metric that it is, and how many there are.
type Counter = (&'static str, Option<Declaration>, u64);

/// A count as it is shown outside: one of what may be in a cell in steps. What is no metric is such a one.
fn as_shown(shown: &AllShown, (name, declared, count): Counter, whose: &str, steps: Steps) -> u64 {
    let name = declared.map_or(name, |declared| declared.name);
    // What is scored is what is taken in: two ways to show it would tell more together.
    let begin = if declared == Some(declared::RECORDS_SCORED) { declared::RECORDS_ACCEPTED.name } else { name };
    let steps = steps.apart(begin).apart(whose);
    match declared.map(|declared| (declared.kind, declared.unit)) {
        Some((Kind::Steps, Unit::Bytes)) => shown.of(name, whose, steps.of_bytes(), count),
        None | Some((Kind::Steps, _)) => shown.of(name, whose, steps, count),
        Some(_) => count,
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn streams_count_apart_and_names_from_outside_make_no_label() {
        let names = ["a", "b"].map(|name| (StreamName::new(name).unwrap(), (Vec::new(), 10)));
        let telemetry = Telemetry::new(Names { streams: names.into(), ..Names::default() });
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

    /// The first count at which something is shown.
    fn first(steps: Steps) -> u64 {
        (1..).find(|count| steps.records(*count) > 0).unwrap()
    }

    #[test]
    fn where_the_steps_of_a_stream_begin_tells_nothing_of_those_of_another() {
        let mut of_others: BTreeMap<u64, [BTreeSet<u64>; 2]> = BTreeMap::new();
        for chance in 0..1_000_u128 {
            let names = ["a", "b"].map(|name| (StreamName::new(name).unwrap(), (Vec::new(), 15)));
            let chances = Chances(chance.to_le_bytes());
            let telemetry = Telemetry::new(Names { streams: names.into(), chances, ..Names::default() });
            let [b, all] = of_others.entry(first(telemetry.of("a").steps.now())).or_default();
            b.insert(first(telemetry.of("b").steps.now()));
            all.insert(first(telemetry.steps.now()));
        }
        // Of 30 each is there but for some, as chance has it.
        assert_eq!(of_others.len(), 30);
        let few = of_others.values().flatten().map(BTreeSet::len).min();
        assert!(few > Some(10), "{few:?}");
    }

    #[test]
    fn steps_of_all_counts_grow_with_k_and_none_goes_back() {
        let name = StreamName::new("a").unwrap();
        let streams = [(name.clone(), (Vec::new(), 10))].into();
        let telemetry = Telemetry::new(Names { streams, chances: Chances([7; 16]), ..Names::default() });
        let counters = || [&telemetry.of("a").accepted, &telemetry.gateway.quarantined, &telemetry.shadow.newly_denied];
        let (mut last, mut changes) = ([0; 4], [0; 4]);
        let mut look = |changes: &mut [u64; 4]| {
            let mut samples = Samples::default();
            telemetry.sample(&mut samples);
            let commits = telemetry.shown(declared::LOG_COMMITS, "journal", read(counters()[0]));
            let text = samples.text();
            let of = |series: &str| -> u64 {
                let line = text.lines().find_map(|line| line.strip_prefix(series)).unwrap();
                line.trim().parse().unwrap()
            };
            let now = [
                of("bailiwick_records_accepted_total{stream=\"a\"}"),
                of("bailiwick_records_quarantined_total "),
                of("bailiwick_shadow_newly_denied_total "),
                commits,
            ];
            for ((now, last), changes) in now.into_iter().zip(&mut last).zip(changes) {
                assert!(now >= *last, "{now} {last}");
                *changes += u64::from(now > *last);
                *last = now;
            }
        };
        let run = |records: u64, changes: &mut [u64; 4], look: &mut dyn FnMut(&mut [u64; 4])| {
            for _ in 0..records {
                counters().iter().for_each(|counter| Telemetry::add(counter, 1));
                look(changes);
            }
        };
        run(120, &mut changes, &mut look);
        assert_eq!(changes, [6; 4], "in steps of 20");
        assert_eq!(telemetry.grow_steps(&[(name.clone(), 25)]), [(name.clone(), 60)]);
        let mut at_once = [0; 4];
        look(&mut at_once);
        assert_eq!(at_once, [0; 4]);
        let mut changes = [0; 4];
        run(120, &mut changes, &mut look);
        assert_eq!(changes, [2; 4], "in steps of 60");
        assert_eq!(telemetry.grow_steps(&[(name.clone(), 5)]), [(name, 60)], "they do not shrink");
    }

    #[test]
    fn a_scrape_tells_no_small_count_and_has_every_series_from_the_start() {
        let stream = (StreamName::new("a").unwrap(), (vec![DatasetName::new("d").unwrap()], 10));
        let destinations = vec![DestinationName::new("desk").unwrap()];
        let telemetry = Telemetry::new(Names { streams: [stream].into(), destinations, ..Names::default() });
        let text = |telemetry: &Telemetry| {
            let mut samples = Samples::default();
            telemetry.sample(&mut samples);
            samples.text()
        };
        let before = text(&telemetry);
        for series in [
            "bailiwick_records_accepted_total{stream=\"a\"} 0",
            "bailiwick_records_refused_total{stream=\"a\",reason=\"too_long\"} 0",
            "bailiwick_records_refused_total{stream=\"(not declared)\",reason=\"unknown_stream\"} 0",
            "bailiwick_cells_withheld_total{dataset=\"d\"} 0",
            "bailiwick_released_bytes_total{destination=\"desk\"} 0",
            "bailiwick_records_redirected_total{peer=\"(other)\"} 0",
        ] {
            assert!(before.lines().any(|line| line == series), "{series}\n{before}");
        }
        let counts = telemetry.of("a");
        Telemetry::add(&counts.accepted, 9);
        Telemetry::add(&counts.records_in, 9);
        Telemetry::add(&counts.bytes_in, 9 * 300);
        telemetry.add_of_dataset("d", |counts| &counts.cells_withheld, 1);
        telemetry.add_of_dataset("d", |counts| &counts.cells_deferred, 1);
        assert_eq!(text(&telemetry), before);
        Telemetry::add(&counts.accepted, 11);
        telemetry.add_of_dataset("d", |counts| &counts.cells_withheld, 19);
        let after = text(&telemetry);
        assert!(after.contains("bailiwick_records_accepted_total{stream=\"a\"} 20\n"), "{after}");
        assert!(after.contains("bailiwick_cells_withheld_total{dataset=\"d\"} 20\n"), "{after}");
    }
}
