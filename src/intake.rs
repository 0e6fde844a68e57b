//! The way in: a decoded batch is checked, decided and, as far as it may stay, given to the workers. The
//! one place that every transport calls, so that all of them answer alike.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow_array::ArrayRef;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::batch::{Candidate, TimeBounds};
use crate::domain::evidence::Sender;
use crate::domain::policy::{Decided, Quarantined, Resident, Version};
use crate::domain::producer::{Mark, Number};
use crate::domain::refusal::{Reason, Refusal};
use crate::domain::stream::Stream;
use crate::pipeline::{Pipeline, Request, Ticket};
use crate::quarantine::{Held, Quarantine};
use crate::telemetry::{StreamCounts, Telemetry};
use crate::versions::Versions;

pub use crate::pipeline::Unaccepted;

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
        wall_clock().as_microsecond()
    }
}

/// The wall clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the shell's one reading of the wall clock")]
pub fn wall_clock() -> Timestamp {
    Timestamp::now()
}

/// A stream that is served.
pub struct Served {
    /// The declaration.
    pub stream: Arc<Stream>,
    /// The names of the fields that the model's outputs become.
    pub outputs: Vec<String>,
    /// What is counted of it.
    pub counts: Arc<StreamCounts>,
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
    versions: Arc<Versions>,
    quarantine: Quarantine,
    pipeline: Arc<Pipeline>,
    limits: Limits,
    budget: Arc<Semaphore>,
    clock: Clock,
    stopping: AtomicBool,
    /// The hour in which keys of pseudonyms were last forgotten.
    forgot: AtomicU64,
    telemetry: Arc<Telemetry>,
}

/// Who sends, and how the request is numbered.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'f> {
    /// The producer's name.
    pub producer: &'f str,
    /// Its network address, where it is known.
    pub address: Option<IpAddr>,
    /// The request's number; `None`: sent again, it is counted again.
    pub number: Option<Number>,
}

/// A request that was taken in as far as it may be.
pub struct Taken {
    /// The records that were refused.
    pub refusals: Vec<Refusal>,
    /// How many were taken in.
    pub accepted: usize,
    /// What was put into quarantine of it: the number it is held under, and how many records.
    held: Option<(u64, usize)>,
    counts: Arc<StreamCounts>,
    ticket: Ticket,
}

impl Taken {
    fn empty(ticket: Ticket, counts: &Arc<StreamCounts>) -> Self {
        let counts = Arc::clone(counts);
        Self { refusals: Vec::new(), accepted: 0, held: None, counts, ticket }
    }

    /// How far the producer is when the request is finished.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.ticket.mark
    }

    /// Whether the request was taken before.
    #[must_use]
    pub fn is_duplicate(&self) -> bool {
        self.ticket.duplicate
    }
}

impl Intake {
    /// The way into a pipeline.
    #[must_use]
    pub fn new(
        streams: BTreeMap<String, Served>,
        versions: Arc<Versions>,
        pipeline: Arc<Pipeline>,
        limits: Limits,
        clock: Clock,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        let permits = limits.in_flight_bytes_max.min(Semaphore::MAX_PERMITS);
        let (budget, stopping) = (Arc::new(Semaphore::new(permits)), AtomicBool::new(false));
        let quarantine = Quarantine::new(limits.in_flight_bytes_max);
        Self {
            streams,
            versions,
            quarantine,
            pipeline,
            limits,
            budget,
            clock,
            stopping,
            forgot: AtomicU64::new(0),
            telemetry,
        }
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

    /// A request's number. Without an epoch the producer's series here goes on.
    #[must_use]
    pub fn number(&self, producer: &str, epoch: u64, sequence: u64) -> Number {
        let epoch = if epoch == 0 { self.pipeline.mark(producer).epoch } else { epoch };
        Number { epoch, sequence }
    }

    /// A producer is there, and perhaps promises to have come to an event time. With a number, its series is begun
    /// or gone on with, and nothing comes under the numbers up to it.
    ///
    /// # Errors
    /// When the journal cannot be written, or the number is of an epoch that is over.
    pub fn heard(&self, stream: &Stream, from: Origin<'_>, complete_through: Option<i64>) -> Result<Taken, Unaccepted> {
        let now = self.clock.now();
        let latest = self.pipeline.time_bounds(&stream.name, now, self.clock.wall()).latest;
        let event_time = complete_through.map(|promised| promised.min(latest));
        if let Some(number) = from.number {
            drop(self.pipeline.skip(from.producer, number)?);
        }
        self.pipeline
            .heard(&stream.name, from.producer, event_time, now)
            .map(|ticket| Taken::empty(ticket, self.telemetry.of(&stream.name)))
    }

    /// A request was refused as a whole, and its number is spent by it.
    ///
    /// # Errors
    /// When it is not the producer's next one.
    pub fn spend(&self, from: Origin<'_>) -> Result<Taken, Unaccepted> {
        self.pipeline.spend(from.producer, from.number).map(|ticket| Taken::empty(ticket, self.telemetry.of("")))
    }

    /// Checks and decides a batch, and gives what may stay to the workers. `budget` is what it holds of the bytes in
    /// work, by [`Intake::room`].
    ///
    /// # Errors
    /// When the request is refused as a whole.
    pub async fn take(
        &self,
        served: &Served,
        from: Origin<'_>,
        mut candidate: Candidate,
        budget: Option<OwnedSemaphorePermit>,
    ) -> Result<Taken, Unaccepted> {
        if self.is_stopping() {
            return Err(Unaccepted::NoRoom(Reason::Stopping));
        }
        let (now, wall) = (self.clock.now(), self.clock.wall());
        Telemetry::add(&served.counts.records_in, candidate.rows());
        let times = if self.pipeline.was_taken(from.producer, from.number) {
            TimeBounds { earliest: i64::MIN, latest: i64::MAX }
        } else {
            self.pipeline.time_bounds(&served.stream.name, now, wall)
        };
        candidate.check(times);
        let sender = Sender { producer: from.producer, address: from.address };
        let shadow = self.versions.shadow().map(|shadow| (shadow, candidate.clone()));
        let (mut decided, under) = self.decide(candidate, sender)?;
        let accepted = decided.resident.as_ref().map_or(0, |resident| resident.batch().rows());
        let ticket = match decided.resident.take() {
            None => self.pipeline.spend(from.producer, from.number)?,
            Some(resident) => {
                let room = self.pipeline.room(&resident, from.producer).await?;
                let request = Request { producer: from.producer, number: from.number, resident, room, budget };
                self.pipeline.accept(request, self.clock.now(), wall)?
            }
        };
        let mut held = None;
        // What was sent before was held and counted before.
        if !ticket.duplicate {
            held = self.hold((&mut decided, under), from, now);
            served.counts.refused(&decided.refusals);
            if let Some((shadow, candidate)) = shadow {
                self.compare(&shadow, candidate, sender, &decided.refusals);
            }
        }
        let counts = Arc::clone(&served.counts);
        Ok(Taken { refusals: decided.refusals, accepted, held, counts, ticket })
    }

    /// Decides a batch under the version in force.
    fn decide(&self, candidate: Candidate, from: Sender<'_>) -> Result<(Decided, Arc<Version>), Unaccepted> {
        let current = self.versions.current();
        let decided = current.decide(candidate, from).map_err(|error| {
            tracing::error!(%error, "a batch could not be decided");
            Unaccepted::NoRoom(Reason::Malformed)
        })?;
        Ok((decided, current))
    }

    /// Counts what the version in the shadow would decide otherwise.
    fn compare(&self, shadow: &Version, candidate: Candidate, from: Sender<'_>, refusals: &[Refusal]) {
        match shadow.decide(candidate, from) {
            Ok(other) => self.telemetry.shadow.compared(refusals, &other.refusals),
            Err(error) => tracing::error!(%error, "a batch could not be decided in the shadow"),
        }
    }

    /// Puts what was quarantined aside, and says under which number. What there is no room for is refused.
    fn hold(
        &self,
        (decided, under): (&mut Decided, Arc<Version>),
        from: Origin<'_>,
        now: Duration,
    ) -> Option<(u64, usize)> {
        let records = decided.quarantined.take()?;
        let (rows, until) = (records.rows(), now + under.policy.hold);
        let held = Held { records, producer: from.producer.to_owned(), address: from.address, until, under };
        let number = self.quarantine.hold(held);
        if number.is_some() {
            Telemetry::add(&self.telemetry.gateway.quarantined, rows);
        } else {
            for refusal in decided.refusals.iter_mut().filter(|refusal| refusal.reason == Reason::Quarantined) {
                refusal.reason = Reason::Overloaded;
            }
        }
        number.map(|number| (number, rows))
    }

    /// Once an hour the keys of pseudonyms that are not used any more are forgotten.
    fn forget(&self, now: Duration, wall: i64) {
        let hour = now.as_secs() / 3_600;
        if self.forgot.swap(hour, Ordering::Relaxed) != hour
            && let Some(pseudonyms) = &self.versions.current().knowledge.pseudonyms
        {
            pseudonyms.forget(wall);
        }
    }

    /// Time has passed: discards what has been in quarantine long enough. Whether [`Intake::reconsider`] is due: a record
    /// may have been put aside just after another version came into force.
    pub fn tick(&self) -> bool {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        self.forget(now, wall);
        let expired = self.quarantine.expire(now);
        if expired > 0 {
            Telemetry::add(&self.telemetry.gateway.quarantine_expired, expired);
            tracing::warn!(records = expired, "records were in quarantine long enough and are discarded");
        }
        !self.is_stopping() && self.quarantine.is_stale(&self.versions.current())
    }

    /// More may be known now: decides again what other versions left in quarantine. What may stay is taken in, what is
    /// still in doubt goes on waiting, everything else is discarded. What cannot be taken in now waits for the next time.
    pub async fn reconsider(&self) {
        while let Some(held) = self.quarantine.take(&self.versions.current()) {
            let (rows, bytes, now) = (held.records.rows(), held.records.bytes(), self.clock.now());
            let from = Sender { producer: &held.producer, address: held.address };
            let Ok((decided, under)) = self.decide(held.records.clone().again(), from) else {
                self.quarantine.settle(bytes, None);
                Telemetry::add(&self.telemetry.gateway.quarantine_expired, rows);
                continue;
            };
            let taken = match decided.resident {
                None => 0,
                Some(resident) => match self.release(resident, &held.producer, now).await {
                    Some(taken) => taken,
                    None => return self.quarantine.settle(bytes, Some(held)),
                },
            };
            let waiting = decided.quarantined.as_ref().map_or(0, Quarantined::rows);
            let again = decided.quarantined.map(|records| Held { records, under, ..held });
            self.quarantine.settle(bytes, again);
            Telemetry::add(&self.telemetry.gateway.quarantine_released, taken);
            Telemetry::add(&self.telemetry.gateway.quarantine_expired, rows - waiting - taken);
        }
    }

    /// Takes records out of quarantine in. How many; `None` when that cannot be done now.
    async fn release(&self, resident: Resident, producer: &str, now: Duration) -> Option<usize> {
        let (rows, stream) = (resident.batch().rows(), resident.batch().stream().name.clone());
        let Ok(room) = self.pipeline.room(&resident, producer).await else { return None };
        let request = Request { producer, number: None, resident, room, budget: None };
        let ticket = self.pipeline.accept(request, now, self.clock.wall()).ok()?;
        matches!(ticket.answer.await, Ok(Ok(_))).then(|| {
            Telemetry::add(&self.telemetry.of(&stream).accepted, rows);
            rows
        })
    }

    /// How many records are in quarantine.
    #[must_use]
    pub fn in_quarantine(&self) -> usize {
        self.quarantine.rows()
    }

    /// Waits until the request is on disk, its records scored and counted. The model's outputs.
    ///
    /// # Errors
    /// When the batch could not be scored; then nothing of it was taken in.
    pub async fn finish(&self, taken: &mut Taken) -> Result<Vec<ArrayRef>, Reason> {
        let answer = (&mut taken.ticket.answer).await.unwrap_or(Err(Reason::Stopping));
        match &answer {
            _ if taken.is_duplicate() => Telemetry::add(&taken.counts.duplicates, 1),
            Ok(_) => Telemetry::add(&taken.counts.accepted, taken.accepted),
            Err(reason) => {
                taken.counts.refused.add(*reason, taken.accepted);
                // The request is refused as a whole, and may come again.
                if let Some((number, rows)) = taken.held.take() {
                    self.quarantine.forget(number);
                    self.telemetry.gateway.quarantined.fetch_sub(rows as u64, Ordering::Relaxed);
                }
            }
        }
        answer
    }
}
