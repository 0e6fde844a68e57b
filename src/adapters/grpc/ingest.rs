//! `Ingest.Publish` and `Ingest.PublishOnce`.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int64Type};
use arrow_schema::DataType;
use futures::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::domain::outcome::{Outcome, Run, Taken};
use crate::domain::producer::{Mark, Number};
use crate::domain::refusal::Reason;
use crate::intake::{Intake, Origin, Placed, Records};
use crate::telemetry::{StreamCounts, Telemetry};

use super::decode::{self, Decoded};
use super::proto::ingest::ingest_server::Ingest;
use super::proto::ingest::publish_request::Payload;
use super::proto::ingest::{self as wire, PublishRequest, PublishResponse};
use super::status::{self, Rejection};

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
        let address = request.remote_addr().map(|address| address.ip());
        tokio::spawn(read(Arc::clone(&self.intake), request.into_inner(), address, pending));
        let intake = Arc::clone(&self.intake);
        let responses = ReceiverStream::new(waiting).then(move |pending: Result<Pending, Status>| {
            let intake = Arc::clone(&intake);
            async move { Ok(pending?.response(&intake).await) }
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn publish_once(&self, request: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        let address = request.remote_addr().map(|address| address.ip());
        let request = request.into_inner();
        let mut call = Call { address, ..Call::default() };
        let pending = call.take(&self.intake, request).await;
        let (response, rejection) = pending.answer(&self.intake).await;
        rejection.map_or(Ok(Response::new(response)), |rejection| Err(rejection.status()))
    }
}

async fn read(
    intake: Arc<Intake>,
    mut requests: Streaming<PublishRequest>,
    address: Option<IpAddr>,
    pending: mpsc::Sender<Result<Pending, Status>>,
) {
    let mut call = Call { address, ..Call::default() };
    loop {
        // Room for the response first, then the request: nothing is read that cannot be answered, and nothing while
        // the bytes in work are at their limit.
        let Ok(slot) = pending.reserve().await else { return };
        let budget = intake.room(1).await;
        let request = requests.next().await;
        drop(budget);
        match request {
            Some(Ok(request)) => slot.send(Ok(call.take(&intake, request).await)),
            Some(Err(error)) => return slot.send(Err(error)),
            None => return,
        }
    }
}

/// What the requests of one call have said so far.
#[derive(Default)]
struct Call {
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
}

impl Call {
    async fn take(&mut self, intake: &Intake, request: PublishRequest) -> Pending {
        let (sequence, want_scores) = (request.sequence, request.want_scores);
        let bytes = payload_bytes(request.payload.as_ref());
        let budget = intake.room(bytes).await;
        self.introduce(&request);
        Telemetry::add(&intake.telemetry().of(&self.stream).bytes_in, bytes);
        let number = (sequence != 0).then(|| intake.number(&self.producer, self.epoch, sequence));
        let placed = self.decide(intake, request, number, (bytes, budget)).await;
        let (placed, rejection) = match placed {
            Err(rejection) if number.is_some() && !rejection.reason.keeps_number() => {
                let stream = intake.stream(&self.stream).ok().map(|served| &*served.stream);
                let spent = intake.spend(stream, self.origin(number), rejection.refused()).await;
                (spent.map(|spent| (spent, Vec::new())).map_err(Rejection::from), Some(rejection))
            }
            placed => (placed, None),
        };
        let counts = Arc::clone(intake.telemetry().of(&self.stream));
        Pending { counts, sequence, want_scores, placed, rejection }
    }

    fn origin(&self, number: Option<Number>) -> Origin<'_> {
        Origin { producer: &self.producer, address: self.address, number }
    }

    fn introduce(&mut self, request: &PublishRequest) {
        if !request.stream.is_empty() && request.stream != self.stream {
            self.stream.clone_from(&request.stream);
            self.introduced = false;
        }
        if !request.producer.is_empty() && request.producer != self.producer {
            self.producer.clone_from(&request.producer);
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
        (bytes, budget): (usize, Option<OwnedSemaphorePermit>),
    ) -> Result<(Placed, Vec<String>), Rejection> {
        if self.producer.is_empty() || self.producer.len() > 256 {
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
            let heard = intake.heard(&served.stream, from, promise(request.complete_through)).await?;
            self.introduced = true;
            return Ok((heard, Vec::new()));
        };
        if !self.introduced {
            intake.heard(&served.stream, Origin { number: None, ..from }, None).await?;
            self.introduced = true;
        }
        let rows_max = limits.batch_rows_max;
        let Decoded { candidate, dropped } = match payload {
            Payload::Rows(bytes) => decode::rows::decode(&served.stream, &bytes, rows_max)?,
            Payload::ArrowIpc(bytes) => decode::arrow::decode(&mut self.arrow, &served.stream, bytes, rows_max)?,
            Payload::CloudEvents(batch) => decode::cloud_events::decode(&served.stream, &batch, rows_max)?,
        };
        Telemetry::add(&served.counts.dropped_values, dropped as usize);
        let promised = promise(request.complete_through);
        let wants_outputs = request.want_scores;
        let records = Records { candidate, dropped_values: dropped, promised, wants_outputs };
        Ok((intake.take(served, from, records, budget).await?, served.outputs.clone()))
    }
}

fn promise(complete_through: i64) -> Option<i64> {
    (complete_through != 0).then_some(complete_through)
}

fn payload_bytes(payload: Option<&Payload>) -> usize {
    match payload {
        None => 0,
        Some(Payload::Rows(bytes) | Payload::ArrowIpc(bytes)) => bytes.len(),
        Some(Payload::CloudEvents(batch)) => prost::Message::encoded_len(batch),
    }
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
