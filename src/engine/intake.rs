//! The way in: a decoded batch is checked, decided and, as far as it may stay, given to the workers. The
//! one place that every transport calls, so that all of them answer alike.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::domain::batch::Candidate;
use crate::domain::event_time::TimeBounds;
use crate::domain::evidence::Sender;
use crate::domain::outcome::{Outcome, Refusals, Refused, Taken};
use crate::domain::policy::{Decided, Quarantined, Resident, Version};
use crate::domain::producer::{Came, Mark, Number, RememberedMax};
use crate::domain::refusal::{Reason, Refusal};
use crate::domain::stream::Stream;
use crate::domain::watermark::{ActiveMax, Heard};
use crate::engine::budget::{Budget, Charge, Needs, REQUEST_BYTES};
use crate::engine::pipeline::{Answer, Pipeline, Request, Ticket};
use crate::engine::quarantine::{Held, Quarantine};
use crate::engine::versions::Versions;
use crate::telemetry::{StreamCounts, Telemetry};
use arrow_array::ArrayRef;

pub use crate::engine::pipeline::Unaccepted;

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
    /// The most bytes of memory that all requests hold, from their first byte until their answer is sent.
    pub in_flight_bytes_max: usize,
    /// The most bytes that all open windows may hold.
    pub open_windows_bytes_max: usize,
    /// How many producers may be active on a stream.
    pub producers: ActiveMax,
    /// How many numbered producers are remembered.
    pub remembered: RememberedMax,
}

impl Limits {
    /// The most bytes of memory that the records of one request may take once they are decoded.
    #[must_use]
    pub fn decoded_bytes_max(&self) -> usize {
        let part = self.in_flight_bytes_max / 16 * 5;
        part.saturating_sub(REQUEST_BYTES).max(self.batch_bytes_max.saturating_mul(4))
    }

    /// The longest message that is read. A request over its limit is refused alone; only one far over it ends its call.
    #[must_use]
    pub fn message_bytes_max(&self) -> usize {
        self.batch_bytes_max.saturating_mul(2).saturating_add(FRAME_BYTES)
    }
}

/// Room for a request's frame around its payload: names, numbers, the tags.
const FRAME_BYTES: usize = 64 << 10;

/// The way in.
pub struct Intake {
    streams: BTreeMap<String, Served>,
    versions: Arc<Versions>,
    quarantine: Quarantine,
    pipeline: Arc<Pipeline>,
    limits: Limits,
    budget: Arc<Budget>,
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

/// The records of a request, and what else it says.
pub struct Records {
    /// The records as they were decoded.
    pub candidate: Candidate,
    /// Values of undeclared fields that were dropped.
    pub dropped_values: u32,
    /// The event time that the producer promises to have come to, in microseconds since the Unix epoch.
    pub promised: Option<i64>,
    /// Whether the answer is to hold the model's outputs.
    pub wants_outputs: bool,
}

impl<'f> Origin<'f> {
    /// What the watermark is told: who it is, and what event time the producer has come to.
    fn heard(&self, event_time: Option<i64>) -> Heard<'f> {
        Heard { producer: self.producer, address: self.address, event_time }
    }
}

/// A request that has its place. [`Intake::finish`] waits until it is on disk.
pub struct Placed {
    state: State,
    mark: Mark,
    counts: Arc<StreamCounts>,
    /// What was put into quarantine of it: the number it is held under, and how many records.
    held: Option<(u64, usize)>,
}

enum State {
    /// It waits for the disk.
    Waiting(Ticket),
    /// It was taken before, and is answered as it was then.
    Repeated(Answer),
}

impl Placed {
    fn waiting(ticket: Ticket, counts: &Arc<StreamCounts>) -> Self {
        Self { mark: ticket.mark, state: State::Waiting(ticket), counts: Arc::clone(counts), held: None }
    }

    /// How far the producer is when the request is finished.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// Whether a request with this number was taken before.
    #[must_use]
    pub fn is_duplicate(&self) -> bool {
        matches!(self.state, State::Repeated(_))
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
        let needs = Needs {
            bytes: limits.in_flight_bytes_max,
            message_max: limits.message_bytes_max(),
            decoded_max: limits.decoded_bytes_max(),
        };
        let (budget, stopping) = (Arc::new(Budget::new(needs)), AtomicBool::new(false));
        let quarantine = Quarantine::new(limits.in_flight_bytes_max / 2);
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

    /// The bound on the memory that requests hold.
    #[must_use]
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
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
    /// When the journal has no room, or the number is of an epoch that is over.
    pub async fn heard(
        &self,
        stream: &Stream,
        from: Origin<'_>,
        complete_through: Option<i64>,
    ) -> Result<Placed, Unaccepted> {
        let now = self.clock.now();
        let event_time = self.promise(complete_through);
        if let Some(number) = from.number {
            self.pipeline.skip(from.producer, number, self.came(from)).await?;
        }
        let ticket = self.pipeline.heard(&stream.name, from.heard(event_time), now).await?;
        Ok(Placed::waiting(ticket, self.telemetry.of(&stream.name)))
    }

    fn came(&self, from: Origin<'_>) -> Came {
        Came { at: Some(self.clock.wall()), from: from.address }
    }

    /// An event time that a producer promises to have come to, as far as it can be believed: nobody knows what is to come.
    fn promise(&self, complete_through: Option<i64>) -> Option<i64> {
        complete_through.map(|promised| promised.min(self.clock.wall()))
    }

    /// A request was refused as a whole. Its number is spent by it, and a repeat is told the same.
    ///
    /// # Errors
    /// When it is not the producer's next one, or the journal has no room.
    pub async fn spend(
        &self,
        stream: Option<&Stream>,
        from: Origin<'_>,
        refused: Refused,
    ) -> Result<Placed, Unaccepted> {
        let counts = self.telemetry.of(stream.map_or("", |stream| &stream.name));
        let outcome = Outcome::Refused(refused);
        match self.pipeline.spend(from.producer, from.number, self.came(from), outcome, stream).await {
            Err(Unaccepted::Repeated) => {
                Ok(self.repeated(counts, from, None, |_| Outcome::refused(Reason::NumberReused)).await)
            }
            spent => spent.map(|ticket| Placed::waiting(ticket, counts)),
        }
    }

    /// Checks and decides a batch, and gives what may stay to the workers. `budget` is what its records are
    /// charged.
    ///
    /// # Errors
    /// When the request is refused as a whole.
    pub async fn take(
        &self,
        served: &Served,
        from: Origin<'_>,
        records: Records,
        budget: Option<Charge>,
    ) -> Result<Placed, Unaccepted> {
        if self.is_stopping() {
            return Err(Unaccepted::Refused(Reason::Stopping));
        }
        Telemetry::add(&served.counts.records_in, records.candidate.rows());
        if self.pipeline.was_taken(from.producer, from.number) {
            return self.repeat(served, from, records).await;
        }
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let Records { mut candidate, dropped_values, promised, .. } = records;
        let promised = self.promise(promised);
        candidate.check(self.pipeline.time_bounds(&served.stream.name, wall));
        let sender = Sender { producer: from.producer, address: from.address };
        let shadow = self.versions.shadow().map(|shadow| (shadow, candidate.clone()));
        let (mut decided, under) = self.decide(candidate, sender)?;
        let held = self.hold(&mut decided, under, from, now);
        let accepted = decided.resident.as_ref().map_or(0, |resident| resident.batch().rows());
        let accepted = u32::try_from(accepted).unwrap_or(u32::MAX);
        let taken = Taken { accepted, dropped_values, refusals: Refusals::of(&decided.refusals) };
        let resident = decided.resident.take();
        match self.place(served, from, (resident, taken, promised), (budget, now, wall)).await {
            Ok(ticket) => {
                served.counts.refused(&decided.refusals);
                if let Some((shadow, candidate)) = shadow {
                    self.compare(&shadow, candidate, sender, &decided.refusals);
                }
                Ok(Placed { held, ..Placed::waiting(ticket, &served.counts) })
            }
            Err(unaccepted) => {
                self.let_go(held);
                Err(unaccepted)
            }
        }
    }

    async fn place(
        &self,
        served: &Served,
        from: Origin<'_>,
        (resident, taken, promised): (Option<Resident>, Taken, Option<i64>),
        (budget, now, wall): (Option<Charge>, Duration, i64),
    ) -> Result<Ticket, Unaccepted> {
        let Some(resident) = resident else {
            if promised.is_some() {
                self.pipeline.heard(&served.stream.name, from.heard(promised), now).await?;
            }
            let (came, stream) = (self.came(from), Some(&*served.stream));
            return self.pipeline.spend(from.producer, from.number, came, Outcome::Taken(taken), stream).await;
        };
        let room = self.pipeline.room(&resident, from.producer, &taken).await?;
        let Origin { producer, address, number } = from;
        self.pipeline.accept(Request { producer, address, number, resident, taken, promised, room, budget }, now, wall)
    }

    /// Answers a request whose number was taken before, as it was answered then.
    async fn repeat(&self, served: &Served, from: Origin<'_>, records: Records) -> Result<Placed, Unaccepted> {
        let rows = u32::try_from(records.candidate.rows()).unwrap_or(u32::MAX);
        let is_the_same = |taken: &Taken| taken.accepted.saturating_add(taken.refusals.records()) == rows;
        let told = |taken: Taken| {
            if is_the_same(&taken) { Outcome::Taken(taken) } else { Outcome::refused(Reason::NumberReused) }
        };
        let again = records.wants_outputs.then_some((served, records.candidate));
        Ok(self.repeated(&served.counts, from, again, told).await)
    }

    /// The answer to a repeat. `told` says what is told of records that were taken.
    async fn repeated(
        &self,
        counts: &Arc<StreamCounts>,
        from: Origin<'_>,
        again: Option<(&Served, Candidate)>,
        told: impl FnOnce(Taken) -> Outcome,
    ) -> Placed {
        let number = from.number.unwrap_or(Number { epoch: 0, sequence: 0 });
        let (outcome, mark) = self.pipeline.outcome(from.producer, number).await;
        let outcome = match outcome {
            Outcome::Taken(taken) => told(taken),
            refused @ Outcome::Refused(_) => refused,
        };
        let mut outputs = Vec::new();
        if let (Outcome::Taken(taken), Some((served, candidate))) = (&outcome, again)
            && !served.outputs.is_empty()
        {
            outputs = self.outputs_again(taken, from, candidate).await;
        }
        Placed { state: State::Repeated(Answer { outcome, outputs }), mark, counts: Arc::clone(counts), held: None }
    }

    /// The model's outputs of records that were counted before. None, when not the very same ones would be taken in now.
    async fn outputs_again(&self, taken: &Taken, from: Origin<'_>, mut candidate: Candidate) -> Vec<ArrayRef> {
        candidate.check(TimeBounds::ANY);
        let sender = Sender { producer: from.producer, address: from.address };
        let Ok((decided, _)) = self.decide(candidate, sender) else { return Vec::new() };
        match decided.resident {
            Some(resident) if Refusals::of(&decided.refusals).are_the_records_of(&taken.refusals) => {
                self.pipeline.score(resident).await.unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    /// Decides a batch under the version in force.
    fn decide(&self, candidate: Candidate, from: Sender<'_>) -> Result<(Decided, Arc<Version>), Unaccepted> {
        let current = self.versions.current();
        let decided = current.decide(candidate, from).map_err(|error| {
            tracing::error!(%error, "a batch could not be decided; it is refused. A fault in bailiwick: please \
             report this line");
            Unaccepted::Refused(Reason::Internal)
        })?;
        Ok((decided, current))
    }

    /// Counts what the version in the shadow would decide otherwise.
    fn compare(&self, shadow: &Version, candidate: Candidate, from: Sender<'_>, refusals: &[Refusal]) {
        match shadow.decide(candidate, from) {
            Ok(other) => self.telemetry.shadow.compared(refusals, &other.refusals),
            Err(error) => {
                tracing::error!(%error, "a batch could not be decided in the shadow; it is not compared. A fault in \
                 bailiwick: please report this line")
            }
        }
    }

    /// Puts what was quarantined aside, and says under which number. What there is no room for is refused.
    fn hold(
        &self,
        decided: &mut Decided,
        under: Arc<Version>,
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

    /// The request is refused as a whole, and may come again: what was put aside of it is let go of.
    fn let_go(&self, held: Option<(u64, usize)>) {
        if let Some((number, rows)) = held {
            self.quarantine.forget(number);
            self.telemetry.gateway.quarantined.fetch_sub(rows as u64, Ordering::Relaxed);
        }
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
            tracing::warn!(
                records = expired,
                "records were in quarantine long enough and are discarded: complete the evidence of their stream, \
                 or lengthen `quarantine.hold`"
            );
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
                Some(resident) => match self.release(resident, from, now).await {
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
    async fn release(&self, resident: Resident, from: Sender<'_>, now: Duration) -> Option<usize> {
        let Sender { producer, address } = from;
        let stream = resident.batch().stream().name.clone();
        let accepted = u32::try_from(resident.batch().rows()).unwrap_or(u32::MAX);
        let taken = Taken { accepted, ..Taken::default() };
        let room = self.pipeline.room(&resident, producer, &taken).await.ok()?;
        let request = Request { producer, address, number: None, resident, taken, promised: None, room, budget: None };
        let ticket = self.pipeline.accept(request, now, self.clock.wall()).ok()?;
        let Outcome::Taken(taken) = ticket.answer.await.ok()?.outcome else { return None };
        Telemetry::add(&self.telemetry.of(&stream).accepted, taken.accepted as usize);
        Some(taken.accepted as usize)
    }

    /// How many records are in quarantine.
    #[must_use]
    pub fn in_quarantine(&self) -> usize {
        self.quarantine.rows()
    }

    /// Waits until the request is on disk, its records scored and counted. What it came to, with the model's outputs.
    pub async fn finish(&self, placed: Placed) -> Answer {
        let ticket = match placed.state {
            State::Repeated(answer) => {
                Telemetry::add(&placed.counts.duplicates, 1);
                return answer;
            }
            State::Waiting(ticket) => ticket,
        };
        // The journal was closed before the entry was on disk.
        let closed = || Answer::without_outputs(Outcome::refused(Reason::Stopping));
        let answer = ticket.answer.await.unwrap_or_else(|_| closed());
        match &answer.outcome {
            Outcome::Taken(taken) => Telemetry::add(&placed.counts.accepted, taken.accepted as usize),
            Outcome::Refused(_) => self.let_go(placed.held),
        }
        answer
    }
}
