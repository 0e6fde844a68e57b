//! The way in: a decoded batch is checked, decided and, as far as it may stay, given to the workers. The
//! one place that every transport calls, so that all of them answer alike.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow_array::ArrayRef;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::domain::batch::Candidate;
use crate::domain::policy::{Digest, VerdictTable, decide};
use crate::domain::refusal::{Reason, Refusal};
use crate::domain::stream::Stream;
use crate::pipeline::{Answer, Pipeline};
use crate::telemetry::Telemetry;

/// The clocks of the shell: the monotonic one counts from start.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the shell's one reading of the monotonic clock")]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// The monotonic time since start.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The wall clock, in microseconds since the Unix epoch.
    #[must_use]
    pub fn wall(&self) -> i64 {
        Timestamp::now().as_microsecond()
    }
}

/// A stream that is served.
pub struct Served {
    /// The declaration.
    pub stream: Arc<Stream>,
    /// The verdict on every jurisdiction.
    pub verdicts: VerdictTable,
    /// The names of the fields that the model's outputs become.
    pub outputs: Vec<String>,
}

/// Limits of one request and of all.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most records of a request.
    pub batch_rows_max: usize,
    /// The most bytes of a request.
    pub batch_bytes_max: usize,
    /// The most bytes of requests that are being worked on.
    pub in_flight_bytes_max: usize,
}

/// The way in.
pub struct Intake {
    streams: BTreeMap<String, Served>,
    policy: Digest,
    pipeline: Arc<Pipeline>,
    limits: Limits,
    budget: Arc<Semaphore>,
    clock: Clock,
    stopping: AtomicBool,
    telemetry: Arc<Telemetry>,
}

/// A batch that was taken in as far as it may be.
pub struct Taken {
    /// The records that were refused.
    pub refusals: Vec<Refusal>,
    /// How many were taken in.
    pub accepted: usize,
    pending: Option<oneshot::Receiver<Answer>>,
}

impl Intake {
    /// The way into a pipeline.
    #[must_use]
    pub fn new(
        streams: BTreeMap<String, Served>,
        policy: Digest,
        pipeline: Arc<Pipeline>,
        limits: Limits,
        clock: Clock,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        let permits = limits.in_flight_bytes_max.min(Semaphore::MAX_PERMITS);
        let (budget, stopping) = (Arc::new(Semaphore::new(permits)), AtomicBool::new(false));
        Self { streams, policy, pipeline, limits, budget, clock, stopping, telemetry }
    }

    /// A served stream.
    ///
    /// # Errors
    /// [`Reason::UnknownStream`].
    pub fn stream(&self, name: &str) -> Result<&Served, Reason> {
        self.streams.get(name).ok_or(Reason::UnknownStream)
    }

    /// The names of the served streams.
    pub fn stream_names(&self) -> impl Iterator<Item = &str> {
        self.streams.keys().map(String::as_str)
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The counts.
    #[must_use]
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// Waits for room for a request of so many bytes.
    pub async fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let permits = bytes.clamp(1, self.limits.in_flight_bytes_max.max(1));
        Arc::clone(&self.budget).acquire_many_owned(u32::try_from(permits).unwrap_or(u32::MAX)).await.ok()
    }

    /// From now on everything is refused with [`Reason::Stopping`].
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Whether the gateway is being stopped.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// A producer opened a stream, or promises to have come to an event time.
    pub fn heard(&self, stream: &Stream, producer: &str, complete_through: Option<i64>) {
        let now = self.clock.now();
        let latest = self.pipeline.time_bounds(&stream.name, now, self.clock.wall()).latest;
        self.pipeline.heard(&stream.name, producer, complete_through.map(|promised| promised.min(latest)), now);
    }

    /// Checks and decides a batch, and gives what may stay to the workers.
    ///
    /// # Errors
    /// When the request is refused as a whole.
    pub fn take(&self, served: &Served, producer: &str, mut candidate: Candidate) -> Result<Taken, Reason> {
        if self.is_stopping() {
            return Err(Reason::Stopping);
        }
        let now = self.clock.now();
        Telemetry::add(&self.telemetry.records_in, candidate.rows());
        candidate.check(self.pipeline.time_bounds(&served.stream.name, now, self.clock.wall()));
        let decided = decide(candidate, &served.verdicts, self.policy).map_err(|error| {
            tracing::error!(%error, "a batch could not be decided");
            Reason::Malformed
        })?;
        self.telemetry.refused(&decided.refusals);
        let accepted = decided.resident.as_ref().map_or(0, |resident| resident.batch().rows());
        let pending = decided.resident.map(|resident| self.pipeline.accept(resident, producer, now));
        Ok(Taken { refusals: decided.refusals, accepted, pending })
    }

    /// Waits until the records are scored and counted. The model's outputs.
    ///
    /// # Errors
    /// When the batch could not be scored; then nothing of it was taken in.
    pub async fn finish(&self, taken: &mut Taken) -> Result<Vec<ArrayRef>, Reason> {
        let Some(pending) = taken.pending.take() else { return Ok(Vec::new()) };
        let answer = pending.await.unwrap_or(Err(Reason::Stopping));
        match &answer {
            Ok(_) => Telemetry::add(&self.telemetry.accepted, taken.accepted),
            Err(reason) => self.telemetry.refused_as(*reason, taken.accepted),
        }
        answer
    }
}
