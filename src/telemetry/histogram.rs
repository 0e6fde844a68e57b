//! How often something took how long: counted by many threads, read at a scrape.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper ends of the buckets, in seconds: three in each decade, from 10 µs on.
const ENDS: [f64; 19] =
    [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// Counts durations.
#[derive(Debug, Default)]
pub struct Histogram {
    /// The last one is for what took longer than every end.
    buckets: [AtomicU64; ENDS.len() + 1],
    nanos: AtomicU64,
}

/// What was counted, as it is shown.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counted {
    /// Upper end of each bucket in seconds, and how many are in it.
    pub buckets: Vec<(f64, u64)>,
    /// How many there are.
    pub count: u64,
    /// Seconds in all.
    pub sum: f64,
}

impl Histogram {
    /// Something took so long, as often as this.
    pub fn add(&self, took: Duration, times: usize) {
        let seconds = took.as_secs_f64();
        let bucket = ENDS.partition_point(|end| *end < seconds);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(times as u64, Ordering::Relaxed);
        }
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).saturating_mul(times as u64);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What several have counted together: `shown` is how a count is shown that is in a bucket and those before it.
    pub(super) fn sum<'h>(
        histograms: impl Iterator<Item = &'h Self>,
        mut shown: impl FnMut(usize, u64) -> u64,
    ) -> Counted {
        let (mut counts, mut nanos) = ([0; ENDS.len() + 1], 0);
        for histogram in histograms {
            counts.iter_mut().zip(&histogram.buckets).for_each(|(sum, count)| *sum += count.load(Ordering::Relaxed));
            nanos += histogram.nanos.load(Ordering::Relaxed);
        }
        let (mut so_far, mut before) = (0, 0);
        let mut buckets = Vec::with_capacity(counts.len());
        for (bucket, (end, count)) in ENDS.iter().copied().chain([f64::MAX]).zip(counts).enumerate() {
            so_far += count;
            let shown = shown(bucket, so_far).max(before);
            buckets.push((end, shown - before));
            before = shown;
        }
        Counted { buckets, count: before, sum: if before == 0 { 0.0 } else { nanos as f64 / 1e9 } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_where_they_belong() {
        let histogram = Histogram::default();
        histogram.add(Duration::from_micros(10), 2);
        histogram.add(Duration::from_micros(11), 1);
        histogram.add(Duration::from_secs(100), 4);
        let counted = Histogram::sum([&histogram].into_iter(), |_, count| count);
        let full: Vec<(f64, u64)> = counted.buckets.iter().copied().filter(|(_, count)| *count > 0).collect();
        assert_eq!(full, [(1e-5, 2), (2e-5, 1), (f64::MAX, 4)]);
        assert_eq!(counted.count, 7);
        assert!((counted.sum - 400.000_031).abs() < 1e-9, "{}", counted.sum);
    }
}
