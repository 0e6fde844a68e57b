//! A request on its way: what it brings, and where its answer goes.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::ArrayRef;

use crate::decode::Opened;
use crate::domain::outcome::{Outcome, Refused};
use crate::domain::policy::Resident;
use crate::domain::producer::{Mark, Number, OutOfOrder, ProducerName, Series};
use crate::domain::refusal::Reason;
use crate::domain::stream::Stream;
use crate::telemetry::{StreamCounts, Telemetry};

use super::budget::Charge;

/// A stream that is served.
pub struct Served {
    /// The declaration.
    pub stream: Arc<Stream>,
    /// The names of the fields that the model's outputs become.
    pub outputs: Vec<String>,
    /// What is counted of it.
    pub counts: Arc<StreamCounts>,
}

/// A request that waits. It goes through many hands, and is large.
pub type Boxed = Box<Request>;

/// A request.
pub struct Request {
    /// Its stream. `None`: it is not declared here.
    pub served: Option<Arc<Served>>,
    /// Who sent it, and from where.
    pub origin: Arc<Origin>,
    /// Its number, as it was sent. `None`: sent again, it is counted again.
    pub number: Option<Number>,
    /// The number under which it comes next, when that was looked up.
    pub(super) located: Option<Number>,
    /// What it brings.
    pub content: Content,
    /// The bytes of its payload, as they came.
    pub payload_bytes: usize,
    /// The event time that the producer promises to have come to, in microseconds since the Unix epoch.
    pub promised: Option<i64>,
    /// Whether the answer is to hold the model's outputs.
    pub wants_outputs: bool,
    /// What its records take of the bytes in work; given back when they are on disk.
    pub charge: Charge,
    /// When it came into its worker's inbox, by the monotonic clock.
    pub(super) arrived: Duration,
    /// Where its answer goes.
    pub reply: Reply,
}

impl Request {
    /// A request as it came. Its number has epoch 0 if its producer names none.
    #[must_use]
    pub fn new(
        served: Option<Arc<Served>>,
        origin: Arc<Origin>,
        number: Option<Number>,
        content: Content,
        reply: Reply,
    ) -> Self {
        let (located, payload_bytes, promised, wants_outputs) = (None, 0, None, false);
        let (charge, arrived) = (Charge::default(), Duration::ZERO);
        Self {
            served,
            origin,
            number,
            located,
            content,
            payload_bytes,
            promised,
            wants_outputs,
            charge,
            arrived,
            reply,
        }
    }
}

/// Who sends, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The producer that it counts for.
    pub producer: ProducerName,
    /// The series that its number counts in.
    pub series: Series,
    /// Its network address, where it is known.
    pub address: Option<IpAddr>,
    /// The identity of whoever sends, where it was proved.
    pub identity: Option<Arc<str>>,
}

impl Origin {
    /// A producer that speaks for itself, and has proved nothing.
    #[must_use]
    pub fn of(producer: ProducerName, address: Option<IpAddr>) -> Self {
        Self { series: Series::own(&producer), producer, address, identity: None }
    }
}

/// What a request brings.
pub enum Content {
    /// Records, not decoded yet.
    Records(Opened),
    /// Records that were decided before, when more was known of them than when they came; and until when the persons hold that
    /// were counted for them, in microseconds since the Unix epoch, if any were asked about.
    Decided(Resident, Option<i64>),
    /// None: the producer is there. With a number, nothing comes under the numbers up to it.
    Nothing,
    /// It was refused as a whole before it came here. Its number is spent by that.
    Refused(Refused),
}

/// Why a request was not taken, so that it has no place among its producer's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unaccepted {
    /// It is not its producer's next one.
    OutOfOrder(OutOfOrder),
    /// It cannot be taken now, or at all.
    Refused(Reason),
    /// Others took its place, each time that it was tried.
    Outrun,
}

impl From<Reason> for Unaccepted {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
    }
}

impl From<OutOfOrder> for Unaccepted {
    fn from(out_of_order: OutOfOrder) -> Self {
        Self::OutOfOrder(out_of_order)
    }
}

/// What is told of a request.
pub struct Answer {
    /// What it came to. `Err`: it was not taken.
    pub told: Result<Outcome, Unaccepted>,
    /// How far its producer is.
    pub mark: Mark,
    /// Whether a request with its number was taken before.
    pub is_duplicate: bool,
    /// The model's outputs of the records that were taken in.
    pub outputs: Outputs,
    /// What the outcome does not say of why it was refused as a whole, without contents.
    pub message: Option<String>,
}

impl Answer {
    /// It was not taken.
    #[must_use]
    pub fn unaccepted(why: Unaccepted) -> Self {
        Self { told: Err(why), ..Self::of(Outcome::nothing(), Mark::default()) }
    }

    /// What it came to, without outputs.
    #[must_use]
    pub fn of(outcome: Outcome, mark: Mark) -> Self {
        Self { told: Ok(outcome), mark, is_duplicate: false, outputs: Outputs::default(), message: None }
    }
}

/// The model's outputs of some of the records that were scored together.
#[derive(Clone, Default)]
pub struct Outputs {
    /// A column for each output. Empty: there are none, or they are not wanted.
    pub columns: Arc<[ArrayRef]>,
    /// The records.
    pub rows: Range<usize>,
}

/// Whoever sends requests and waits for their answers: a call, say.
pub trait Caller: Send + Sync {
    /// The answer to a request. Each is answered once.
    fn answer(&self, ticket: u64, answer: Answer);
}

/// Where the answer to one request goes. Dropped without one, the request is refused as [`Reason::Internal`].
pub struct Reply {
    caller: Option<Arc<dyn Caller>>,
    ticket: u64,
}

impl Reply {
    /// The answer goes to a caller, who knows the request by a ticket.
    #[must_use]
    pub fn new(caller: Arc<dyn Caller>, ticket: u64) -> Self {
        Self { caller: Some(caller), ticket }
    }

    /// Answers.
    pub fn answer(mut self, answer: Answer) {
        if let Some(caller) = self.caller.take() {
            caller.answer(self.ticket, answer);
        }
    }

    /// By what its caller knows the request: a later one by a greater ticket.
    pub(super) const fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Which caller it is of: equal for requests of the same, who wants them taken in their order.
    pub(super) fn caller(&self) -> usize {
        self.caller.as_ref().map_or(0, |caller| Arc::as_ptr(caller).addr())
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(caller) = self.caller.take() {
            caller.answer(self.ticket, Answer::unaccepted(Unaccepted::Refused(Reason::Internal)));
        }
    }
}

/// Answers that wait for the disk.
pub struct Answers {
    answers: Vec<(Reply, Answer)>,
    /// What the requests take of the bytes in work.
    charges: Vec<Charge>,
    /// Bytes of the payloads of accepted records.
    bytes_accepted: usize,
    /// Where their accepted records are counted.
    counts: Option<Arc<StreamCounts>>,
}

impl Answers {
    /// Answers to requests of one stream, if it is declared.
    pub(super) fn new(served: Option<&Served>, requests: usize) -> Self {
        Self {
            answers: Vec::with_capacity(requests),
            charges: Vec::with_capacity(requests),
            bytes_accepted: 0,
            counts: served.map(|served| Arc::clone(&served.counts)),
        }
    }

    /// One more.
    pub(super) fn push(&mut self, reply: Reply, charge: Charge, answer: Answer) {
        self.answers.push((reply, answer));
        self.charges.push(charge);
    }

    /// A request with so many bytes of payload came to an outcome for the first time. Its accepted records have their share, by
    /// their number.
    pub(super) fn brought(&mut self, payload_bytes: usize, outcome: &Outcome) {
        if let Outcome::Taken(taken) = outcome {
            let accepted = u64::from(taken.accepted);
            let rows = accepted + u64::from(taken.refusals.records());
            let share = payload_bytes as u64 * accepted / rows.max(1);
            self.bytes_accepted += usize::try_from(share).unwrap_or(payload_bytes);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.answers.len()
    }

    /// What they are about is on disk.
    pub(super) fn tell(mut self) {
        let (mut accepted, mut duplicates) = (0, 0);
        self.charges.clear();
        for (_, answer) in &self.answers {
            match &answer.told {
                _ if answer.is_duplicate => duplicates += 1,
                Ok(Outcome::Taken(taken)) => accepted += taken.accepted as usize,
                _ => {}
            }
        }
        // Whoever has an answer finds it counted.
        if let Some(counts) = &self.counts {
            Telemetry::add(&counts.accepted, accepted);
            Telemetry::add(&counts.bytes_accepted, self.bytes_accepted);
            Telemetry::add(&counts.duplicates, duplicates);
        }
        for (reply, answer) in self.answers.drain(..) {
            reply.answer(answer);
        }
    }
}

impl Drop for Answers {
    /// The journal was closed before they were on disk: nothing may be told of them.
    fn drop(&mut self) {
        for (reply, _) in self.answers.drain(..) {
            reply.answer(Answer::unaccepted(Unaccepted::Refused(Reason::Stopping)));
        }
    }
}
