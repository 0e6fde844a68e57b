//! What is counted while a load runs, and what it comes to.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::commands::send::Kind;

use super::wire::Answer;
use crate::monitor::process::Usage;

/// What is counted while the load runs.
pub(super) struct Tally {
    /// Measured messages that were sent, without a rate.
    pub(super) begun: u64,
    /// All answers, warm-up included: whether the gateway gets on.
    pub(super) answers: u64,
    latencies: Histogram<u64>,
    messages: u64,
    records: u64,
    accepted: u64,
    refused: BTreeMap<String, u64>,
    unanswered: u64,
    /// When the last measured answer came.
    last: Duration,
}

/// What a load came to, without the warm-up.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Messages that were answered.
    pub messages: u64,
    /// Records that were answered.
    pub records: u64,
    /// Records that were taken in.
    pub accepted: u64,
    /// Records that were refused, by the reason's name.
    pub refused: BTreeMap<String, u64>,
    /// Messages that were due and not answered when the gateway was given up.
    pub unanswered: u64,
    /// From the end of the warm-up to the last answer.
    pub took: Duration,
    /// How long the answers took. Of what was not answered: until it was given up.
    pub latencies: Latencies,
    /// What the gateway's process used, if it was asked for.
    pub process: Option<Used>,
    /// Why the load ended early.
    pub failure: Option<String>,
}

/// How long answers took.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

/// What the gateway's process used while it was measured.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    /// CPU time, of all its threads.
    pub cpu: Duration,
    /// Bytes of memory that it held at the end.
    pub memory: u64,
    /// The most that it held since it was started.
    pub memory_max: u64,
}

/// More than an hour, in nanoseconds.
const LATENCY_MAX: u64 = 1 << 42;

impl Tally {
    /// Nothing yet.
    ///
    /// # Errors
    /// When a histogram cannot be that exact, which no machine causes.
    pub(super) fn new() -> anyhow::Result<Self> {
        // Nanoseconds, told apart to 0.1 %.
        let latencies = Histogram::new_with_max(LATENCY_MAX, 3)?;
        Ok(Self {
            begun: 0,
            answers: 0,
            latencies,
            messages: 0,
            records: 0,
            accepted: 0,
            refused: BTreeMap::new(),
            unanswered: 0,
            last: Duration::ZERO,
        })
    }

    /// Counts an answer about so many records.
    pub(super) fn answered(
        &mut self,
        is_measured: bool,
        now: Duration,
        latency: Duration,
        answer: &Answer,
        records: u32,
    ) {
        self.answers += 1;
        if !is_measured {
            return;
        }
        self.messages += 1;
        self.records += u64::from(records);
        self.accepted += u64::from(answer.accepted);
        for refusal in &answer.refusals {
            *self.refused.entry(Kind::of(refusal).reason).or_default() += u64::from(refusal.count.max(1));
        }
        self.latencies.saturating_record(nanos(latency));
        self.last = self.last.max(now);
    }

    /// Counts a message that was due so long ago and has no answer.
    pub(super) fn unanswered(&mut self, latency: Duration) {
        self.unanswered += 1;
        self.latencies.saturating_record(nanos(latency));
    }

    /// What it comes to after a warm-up.
    pub(super) fn measured(&self, warm_up: Duration, process: Option<Used>, failure: Option<String>) -> Measured {
        Measured {
            messages: self.messages,
            records: self.records,
            accepted: self.accepted,
            refused: self.refused.clone(),
            unanswered: self.unanswered,
            took: self.last.saturating_sub(warm_up),
            latencies: Latencies(self.latencies.clone()),
            process,
            failure,
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Used {
    /// What was used between two looks.
    pub(super) fn between(before: Usage, after: Usage) -> Self {
        let Usage { cpu, memory, memory_max } = after;
        Self { cpu: cpu.saturating_sub(before.cpu), memory, memory_max }
    }
}

impl Measured {
    /// Answered records per second.
    #[must_use]
    pub fn records_per_second(&self) -> f64 {
        self.records as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Answered messages per second.
    #[must_use]
    pub fn messages_per_second(&self) -> f64 {
        self.messages as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Records that were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.values().sum()
    }

    /// Nanoseconds of CPU time of the gateway's process per answered record.
    #[must_use]
    pub fn cpu_per_record(&self) -> Option<f64> {
        let used = self.process?;
        (self.records > 0).then(|| used.cpu.as_nanos() as f64 / self.records as f64)
    }
}

impl Latencies {
    /// The latency that a share of the answers did not exceed: 0.99 gives the p99.
    #[must_use]
    pub fn at(&self, share: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(share))
    }

    /// The longest.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }

    /// The mean.
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.0.mean() as u64)
    }

    /// Latencies that occurred, in ascending order, each with how often it did.
    pub(super) fn occurred(&self) -> impl Iterator<Item = (Duration, u64)> {
        self.0.iter_recorded().map(|step| (Duration::from_nanos(step.value_iterated_to()), step.count_at_value()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::proto::ingest::{Reason, Refusal};

    const MILLI: Duration = Duration::from_millis(1);

    fn answer(accepted: u32, refused: u32) -> Answer {
        let refusal = Refusal { reason: Reason::BelongsElsewhere.into(), count: refused, ..Refusal::default() };
        let refusals = if refused > 0 { vec![refusal] } else { Vec::new() };
        Answer { accepted, refusals, error: None }
    }

    #[test]
    fn what_is_measured_is_what_came_after_the_warm_up() {
        let mut tally = Tally::new().unwrap();
        tally.answered(false, MILLI * 500, MILLI * 400, &answer(10, 0), 10);
        for millis in 1..=100 {
            tally.answered(true, MILLI * (1_000 + millis * 10), MILLI * millis, &answer(7, 3), 10);
        }
        let measured = tally.measured(MILLI * 1_000, None, None);
        assert_eq!((measured.messages, measured.records, measured.accepted), (100, 1_000, 700));
        assert_eq!(measured.refused, [("belongs_elsewhere".to_owned(), 300)].into());
        assert_eq!((measured.took, measured.records_per_second()), (MILLI * 1_000, 1_000.0));
        assert_eq!(tally.answers, 101);
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_values_to_a_thousandth() {
        let mut tally = Tally::new().unwrap();
        let mut values: Vec<Duration> =
            (1..=10_000_u32).map(|n| Duration::from_micros(u64::from(n) * 37 % 10_007)).collect();
        for value in &values {
            tally.answered(true, *value, *value, &answer(1, 0), 1);
        }
        values.sort();
        let latencies = tally.measured(Duration::ZERO, None, None).latencies;
        for share in [0.5, 0.9, 0.99, 0.999] {
            let exact = values[(share * 10_000.0) as usize - 1].as_secs_f64();
            let error = (latencies.at(share).as_secs_f64() / exact - 1.0).abs();
            assert!(error < 0.001, "{share}: {error}");
        }
        let close = |found: Duration, exact: Duration| (found.as_secs_f64() / exact.as_secs_f64() - 1.0).abs() < 0.001;
        assert!(close(latencies.max(), *values.last().unwrap()));
        assert!(close(latencies.mean(), values.iter().sum::<Duration>() / 10_000));
        assert_eq!(latencies.occurred().map(|(_, count)| count).sum::<u64>(), 10_000);
    }

    #[test]
    fn what_is_not_answered_is_not_forgiven() {
        let mut tally = Tally::new().unwrap();
        tally.answered(true, MILLI, MILLI, &answer(1, 0), 1);
        (0..99).for_each(|_| tally.unanswered(MILLI * 30_000));
        let measured = tally.measured(Duration::ZERO, None, Some("gone".to_owned()));
        assert_eq!((measured.messages, measured.unanswered), (1, 99));
        assert!(measured.latencies.at(0.5) >= MILLI * 29_900);
    }
}
