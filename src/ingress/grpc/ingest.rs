//! `Ingest.Publish` and `Ingest.PublishOnce`.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int64Type};
use arrow_schema::DataType;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::domain::outcome::{Outcome, Run, Taken};
use crate::domain::producer::{Mark, Number};
use crate::domain::refusal::Reason;
use crate::engine::budget::{self, Charge, REQUEST_BYTES};
use crate::engine::intake::{Intake, Origin, Placed, Records};
use crate::telemetry::{StreamCounts, Telemetry};

use super::status::{self, Rejection};
use crate::ingress::decode::{self, Decoded, Opened, payload_bytes};
use crate::ingress::proto::ingest::ingest_server::Ingest;
use crate::ingress::proto::ingest::{self as wire, PublishRequest, PublishResponse};

/// The service.
pub(super) struct Service {
    pub(super) intake: Arc<Intake>,
}

/// How many requests of one call are worked on at a time.
const PIPELINED_MAX: usize = 64;

type Responses = Pin<Box<dyn Stream<Item = Result<PublishResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Ingest for Service {
    type PublishStream = Responses;

    async fn publish(&self, request: Request<Streaming<PublishRequest>>) -> Result<Response<Responses>, Status> {
        let (pending, waiting) = mpsc::channel(PIPELINED_MAX);
        // Reading and answering are separate: a producer may send without reading, up to PIPELINED_MAX.
        let call = Call::of(&self.intake, &request);
        let held = Arc::clone(&call.held);
        tokio::spawn(read(Arc::clone(&self.intake), request.into_inner(), call, pending));
        let intake = Arc::clone(&self.intake);
        let responses = ReceiverStream::new(waiting).then(move |pending: Result<Box<Pending>, Status>| {
            let (intake, held) = (Arc::clone(&intake), Arc::clone(&held));
            async move {
                let mut pending = pending?;
                let charge = std::mem::take(&mut pending.charge);
                let response = pending.response(&intake).await;
                held.put_answered(charge_of(charge, &response));
                Ok(response)
            }
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn publish_once(&self, request: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        let mut call = Call::of(&self.intake, &request);
        let mut pending = call.take(&self.intake, request.into_inner()).await;
        let charge = std::mem::take(&mut pending.charge);
        let (response, rejection) = pending.answer(&self.intake).await;
        call.held.put_answered(charge_of(charge, &response));
        rejection.map_or(Ok(Response::new(response)), |rejection| Err(rejection.status()))
    }
}

async fn read(
    intake: Arc<Intake>,
    mut requests: Streaming<PublishRequest>,
    mut call: Call,
    pending: mpsc::Sender<Result<Box<Pending>, Status>>,
) {
    loop {
        // Room for the response first, then the request: nothing is read that cannot be answered.
        let Ok(slot) = pending.reserve().await else { return };
        match requests.next().await {
            Some(Ok(request)) => slot.send(Ok(Box::new(call.take(&intake, request).await))),
            Some(Err(error)) => return slot.send(Err(error)),
            None => return,
        }
    }
}

/// What the requests of one call have said so far.
struct Call {
    /// What it holds of the budget.
    held: Arc<budget::Call>,
    stream: String,
    producer: String,
    address: Option<IpAddr>,
    epoch: u64,
    introduced: bool,
    arrow: decode::arrow::Layout,
}

/// A request that was taken in and is not answered yet.
struct Pending {
    counts: Arc<StreamCounts>,
    sequence: u64,
    want_scores: bool,
    /// The request's place, and the names of its model's outputs.
    placed: Result<(Placed, Vec<String>), Rejection>,
    /// Why it was refused as a whole, where that spent its number: it is answered when the number is spent on disk.
    rejection: Option<Rejection>,
    /// What it is charged until its answer is sent.
    charge: Charge,
}

/// What a refusal takes until it is sent.
const REFUSAL_BYTES: usize = 64;
/// What a score takes, worked out and written into the answer.
const SCORE_BYTES: usize = 8;
/// The longest name of a stream or a producer that is kept.
const NAME_BYTES_MAX: usize = 256;

impl Call {
    fn of<R>(intake: &Intake, request: &Request<R>) -> Self {
        Self {
            held: status::held(intake, request.extensions()),
            stream: String::new(),
            producer: String::new(),
            address: request.remote_addr().map(|address| address.ip()),
            epoch: 0,
            introduced: false,
            arrow: decode::arrow::Layout::default(),
        }
    }

    async fn take(&mut self, intake: &Intake, request: PublishRequest) -> Pending {
        let (sequence, want_scores) = (request.sequence, request.want_scores);
        let bytes = payload_bytes(request.payload.as_ref());
        // Held until the payload is decoded, or refused.
        let arrived = self.held.take_arrived();
        let mut charge = Charge::default();
        self.introduce(&request);
        Telemetry::add(&intake.telemetry().of(&self.stream).bytes_in, bytes);
        let number = (sequence != 0).then(|| intake.number(&self.producer, self.epoch, sequence));
        let placed = self.decide(intake, request, number, (bytes, &mut charge)).await;
        drop(arrived);
        if placed.is_err() {
            // Nothing is kept but what says so.
            drop(std::mem::take(&mut charge));
            charge = self.held.work(REQUEST_BYTES).await;
        }
        let (placed, rejection) = match placed {
            Err(rejection) if number.is_some() && !rejection.reason.keeps_number() => {
                let stream = intake.stream(&self.stream).ok().map(|served| &*served.stream);
                let spent = intake.spend(stream, self.origin(number), rejection.refused()).await;
                (spent.map(|spent| (spent, Vec::new())).map_err(Rejection::from), Some(rejection))
            }
            placed => (placed, None),
        };
        let counts = Arc::clone(intake.telemetry().of(&self.stream));
        Pending { counts, sequence, want_scores, placed, rejection, charge }
    }

    fn origin(&self, number: Option<Number>) -> Origin<'_> {
        Origin { producer: &self.producer, address: self.address, number }
    }

    fn introduce(&mut self, request: &PublishRequest) {
        if !request.stream.is_empty() && request.stream != self.stream {
            self.stream = kept(&request.stream);
            self.introduced = false;
        }
        if !request.producer.is_empty() && request.producer != self.producer {
            self.producer = kept(&request.producer);
            self.epoch = 0;
            self.introduced = false;
        }
        if request.epoch != 0 {
            self.epoch = request.epoch;
        }
    }

    async fn decide(
        &mut self,
        intake: &Intake,
        request: PublishRequest,
        number: Option<Number>,
        (bytes, charge): (usize, &mut Charge),
    ) -> Result<(Placed, Vec<String>), Rejection> {
        if self.producer.is_empty() {
            return Err(Rejection::new(
                Reason::ProducerMissing,
                "name the producer in the first request, in at most 256 bytes",
            ));
        }
        let served = intake.stream(&self.stream).map_err(|reason| {
            let known: Vec<&str> = intake.stream_names().collect();
            Rejection::new(reason, format!("no such stream is declared here; declared: {}", known.join(", ")))
        })?;
        let limits = intake.limits();
        if bytes > limits.batch_bytes_max {
            let message = format!("{bytes} bytes in one request; the limit is {}", limits.batch_bytes_max);
            return Err(Rejection::new(Reason::TooLarge, message));
        }
        let from = Origin { producer: &self.producer, address: self.address, number };
        let Some(payload) = request.payload else {
            let begun = (self.epoch != 0).then_some(Number { epoch: self.epoch, sequence: 0 });
            let from = Origin { number: number.or(begun), ..from };
            *charge = self.held.work(REQUEST_BYTES).await;
            let heard = intake.heard(&served.stream, from, promise(request.complete_through)).await?;
            self.introduced = true;
            return Ok((heard, Vec::new()));
        };
        if !self.introduced {
            intake.heard(&served.stream, Origin { number: None, ..from }, None).await?;
            self.introduced = true;
        }
        let opened = Opened::new(&mut self.arrow, &served.stream, payload, limits.into())?;
        // The records' part is given back when they are on disk, the answer's when it is sent.
        let answer_bytes = opened.rows() * served.outputs.len() * SCORE_BYTES + REQUEST_BYTES;
        *charge = self.held.work(opened.bytes() + answer_bytes).await;
        let of_records = charge.split_off(opened.bytes().saturating_sub(opened.rows() * REFUSAL_BYTES));
        let Decoded { candidate, dropped } = opened.decode()?;
        Telemetry::add(&served.counts.dropped_values, dropped as usize);
        let promised = promise(request.complete_through);
        let wants_outputs = request.want_scores;
        let records = Records { candidate, dropped_values: dropped, promised, wants_outputs };
        Ok((intake.take(served, from, records, Some(of_records)).await?, served.outputs.clone()))
    }
}

/// A name, unless it is longer than any that is taken.
fn kept(name: &str) -> String {
    if name.len() > NAME_BYTES_MAX { String::new() } else { name.to_owned() }
}

/// What a response takes of what its request was charged.
fn charge_of(mut charge: Charge, response: &PublishResponse) -> Charge {
    let scores = response.accepted as usize * response.outputs.len() * SCORE_BYTES;
    charge.shrink_to(response.refusals.len() * REFUSAL_BYTES + scores + REQUEST_BYTES);
    charge
}

fn promise(complete_through: i64) -> Option<i64> {
    (complete_through != 0).then_some(complete_through)
}

impl Pending {
    async fn response(self, intake: &Intake) -> PublishResponse {
        let (mut response, rejection) = self.answer(intake).await;
        response.error = rejection.map(|rejection| rejection.message());
        response
    }

    async fn answer(self, intake: &Intake) -> (PublishResponse, Option<Rejection>) {
        let mut response = PublishResponse { sequence: self.sequence, ..Default::default() };
        let (placed, names) = match self.placed {
            Ok(placed) => placed,
            Err(rejection) => {
                self.counts.refused.add(rejection.reason, 1);
                return (response, Some(rejection));
            }
        };
        let (mark, is_duplicate) = (placed.mark(), placed.is_duplicate());
        let answer = intake.finish(placed).await;
        response.duplicate = is_duplicate;
        match answer.outcome {
            Outcome::Taken(taken) => {
                taken_into(&mut response, &taken, mark);
                if self.want_scores {
                    let outputs = names.into_iter().zip(&answer.outputs);
                    response.outputs = outputs.map(|(field, column)| output(field, column)).collect();
                }
                (response, None)
            }
            Outcome::Refused(refused) => {
                if !is_duplicate {
                    self.counts.refused.add(refused.reason, 1);
                }
                // The first time the message says more than is remembered.
                let first = self.rejection.filter(|rejection| !is_duplicate && rejection.reason == refused.reason);
                (response, Some(first.unwrap_or_else(|| Rejection::repeated(refused, is_duplicate))))
            }
        }
    }
}

fn taken_into(response: &mut PublishResponse, taken: &Taken, mark: Mark) {
    response.epoch = mark.epoch;
    response.durable_through = mark.sequence;
    response.accepted = taken.accepted;
    response.dropped_values = taken.dropped_values;
    response.refusals = taken.refusals.runs().iter().map(refusal).collect();
}

fn refusal(run: &Run) -> wire::Refusal {
    let why = &run.why;
    let route = why.route.as_ref();
    wire::Refusal {
        index: run.first,
        count: run.count,
        reason: status::wire(why.reason).into(),
        retryable: why.retryable(),
        field: why.field.as_deref().unwrap_or_default().to_owned(),
        route: route.map(|route| wire::Route { gateway: route.gateway.clone(), endpoint: route.endpoint.clone() }),
        rules: why.rules.as_deref().unwrap_or_default().to_vec(),
        hint: status::wire_hint(why.hint).into(),
    }
}

fn output(field: String, column: &ArrayRef) -> wire::Output {
    use wire::output::Values;
    let values = match column.data_type() {
        DataType::Int64 => {
            let values = column.as_primitive::<Int64Type>().values().to_vec();
            Values::Labels(wire::Integers { values })
        }
        _ => {
            let values = column.as_primitive::<Float32Type>().values().to_vec();
            Values::Scores(wire::Floats { values })
        }
    };
    wire::Output { field, values: Some(values) }
}
