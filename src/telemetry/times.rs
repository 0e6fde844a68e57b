//! How long the steps of a batch take, counted by each worker for itself, and the syncs of each log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::histogram::Counted;
use super::steps::Shown;
use super::{Declaration, Histogram, Samples, Steps, declared};
use crate::domain::name::StreamName;

/// One worker's times. Nobody else writes them.
#[derive(Debug, Default)]
pub struct Times {
    /// Of a batch: how long the oldest of its requests has waited for the worker when it is taken.
    pub wait: Histogram,
    /// Of a batch: decoded, checked, decided, scored.
    pub judge: Histogram,
    /// Of a batch: written, given its place in the order of everything, counted in the open windows. With the wait for room
    /// in the journal.
    pub place: Histogram,
    /// Of a batch, from its place until the journal is on disk.
    pub journal: Histogram,
    /// Of a request, from when the oldest one of its batch arrived at the worker until it is answered.
    pub answer: Histogram,
    /// Of a run of the model of a stream.
    models: BTreeMap<StreamName, Histogram>,
}

impl Times {
    fn new<'s>(streams: impl Iterator<Item = &'s StreamName>) -> Self {
        Self { models: streams.map(|name| (name.clone(), Histogram::default())).collect(), ..Self::default() }
    }

    /// Those of a run of the model of a stream, if it is declared.
    #[must_use]
    pub fn model(&self, stream: &str) -> Option<&Histogram> {
        self.models.get(stream)
    }
}

/// Those of all workers.
#[derive(Debug, Default)]
pub(super) struct AllTimes {
    workers: Vec<Arc<Times>>,
    /// Of syncs that made entries of a log durable.
    logs: [Arc<Histogram>; LOGS.len()],
    /// What was shown last, by metric and label.
    shown: Mutex<BTreeMap<(&'static str, String), Series>>,
}

/// What was shown last of a histogram.
#[derive(Debug, Default)]
struct Series {
    last: Counted,
    /// Of each bucket with those before it.
    buckets: BTreeMap<usize, Shown>,
}

/// The logs whose syncs are metrics.
const LOGS: [&str; 4] = ["journal", "outbox", "counters", "privacy"];

/// Finds a histogram among a worker's.
type Find<'f> = &'f dyn Fn(&Times) -> Option<&Histogram>;

impl AllTimes {
    pub(super) fn new<'s>(workers: usize, streams: impl Iterator<Item = &'s StreamName> + Clone) -> Self {
        let workers = (0..workers).map(|_| Arc::new(Times::new(streams.clone()))).collect();
        Self { workers, ..Self::default() }
    }

    /// Those of the syncs of a log.
    pub(super) fn of_log(&self, log: &str) -> Arc<Histogram> {
        let found = LOGS.iter().zip(&self.logs).find(|(name, _)| **name == log);
        found.map(|(_, histogram)| Arc::clone(histogram)).unwrap_or_default()
    }

    /// Those of one worker, by its number.
    pub(super) fn of(&self, worker: usize) -> Arc<Times> {
        self.workers.get(worker).cloned().unwrap_or_default()
    }

    /// All of them, in steps.
    pub(super) fn sample(&self, samples: &mut Samples, steps: Steps, of_streams: &[(&str, Steps)]) {
        // What goes up with each batch goes by the same steps: others would tell more together.
        let commits = steps.apart(declared::LOG_COMMITS.name);
        let steps = steps.apart("batches");
        let stages: [(&str, Find<'_>); 4] = [
            ("wait", &|times| Some(&times.wait)),
            ("judge", &|times| Some(&times.judge)),
            ("place", &|times| Some(&times.place)),
            ("journal", &|times| Some(&times.journal)),
        ];
        for (stage, find) in stages {
            samples.histogram(
                declared::BATCH_STAGE,
                &[stage],
                self.of_workers(declared::BATCH_STAGE, stage, find, steps),
            );
        }
        let answers = self.of_workers(declared::ANSWER, "", &|times| Some(&times.answer), steps);
        samples.histogram(declared::ANSWER, &[], answers);
        for (stream, steps) in of_streams {
            let steps = steps.apart("batches");
            let runs = self.of_workers(declared::MODEL_RUN, stream, &|times| times.model(stream), steps);
            samples.histogram(declared::MODEL_RUN, &[stream], runs);
        }
        for (log, histogram) in LOGS.iter().zip(&self.logs) {
            let syncs = self.shown(declared::LOG_SYNC, log, [&**histogram].into_iter(), commits.apart(log));
            samples.histogram(declared::LOG_SYNC, &[log], syncs);
        }
    }

    /// The sum of all workers.
    fn of_workers(&self, metric: Declaration, label: &str, find: Find<'_>, steps: Steps) -> Counted {
        self.shown(metric, label, self.workers.iter().filter_map(|times| find(times)), steps)
    }

    /// What is shown changes only with the shown count: else the seconds would tell of each one.
    fn shown<'h>(
        &self,
        metric: Declaration,
        label: &str,
        histograms: impl Iterator<Item = &'h Histogram>,
        steps: Steps,
    ) -> Counted {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let Series { last, buckets } = shown.entry((metric.name, label.to_owned())).or_default();
        let counted = Histogram::sum(histograms, |bucket, count| buckets.entry(bucket).or_default().of(steps, count));
        if last.count != counted.count || last.buckets.is_empty() {
            *last = counted;
        }
        last.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn workers_are_added_up_and_one_more_is_not_told_of() {
        let streams = [StreamName::new("a").unwrap()];
        let all = AllTimes::new(2, streams.iter());
        let add = |worker: usize, times: usize| {
            let of = all.of(worker);
            of.wait.add(Duration::from_millis(2), times);
            of.judge.add(Duration::from_millis(1), times);
            of.model("a").unwrap().add(Duration::from_millis(3), times);
        };
        let text = || {
            let mut samples = Samples::default();
            all.sample(&mut samples, Steps::new(10, 3), &[("a", Steps::new(10, 3))]);
            samples.text()
        };
        all.of_log("journal").add(Duration::from_millis(4), 40);
        add(0, 30);
        add(1, 10);
        let before = text();
        for stage in ["wait", "judge"] {
            let counted = format!("bailiwick_batch_stage_seconds_count{{stage=\"{stage}\"}} 40\n");
            assert!(before.contains(&counted), "{before}");
        }
        assert!(before.contains("bailiwick_model_run_seconds_count{stream=\"a\"} 40\n"), "{before}");
        assert!(before.contains("bailiwick_answer_seconds_count 0\n"), "{before}");
        assert!(before.contains("bailiwick_log_sync_seconds_bucket{le=\"0.005\",log=\"journal\"} 40\n"), "{before}");
        add(1, 1);
        assert_eq!(text(), before);
        add(1, 20);
        assert_ne!(text(), before);
    }
}
