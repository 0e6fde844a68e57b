//! Arrow Flight `DoPut`: a stock Arrow client sends a table. The descriptor's path is the stream, the producer
//! and, if the table is to be safe to send again, an epoch: then the call's batches are numbered 1, 2, 3, ... in
//! it. Each record batch is answered by one `PutResult` whose metadata is JSON.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use arrow_buffer::Buffer;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use arrow_ipc::MessageHeader;
use futures::stream::Peekable;
use futures::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use crate::domain::outcome::{Outcome, Run};
use crate::domain::producer::Number;
use crate::domain::refusal::{Hint, Reason};
use crate::engine::budget::{self, Charge, REQUEST_BYTES};
use crate::engine::inbox::Inbox;
use crate::engine::intake::Intake;
use crate::engine::request::{self, Answer, Caller, Content, Origin, Served};
use crate::identity::Identity;
use crate::logging::panics::expected;
use crate::telemetry::Telemetry;

use super::speaker::{Allowed, Named, Speaker};
use super::status::{self, Rejection};
use crate::decode::arrow::{self, Meter, Opened, Reader};
use crate::decode::{self, Undecodable};

pub(super) struct Service {
    pub(super) intake: Arc<Intake>,
    pub(super) inbox: Arc<Inbox>,
}

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn only_put<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("this gateway takes records in by DoPut and gives none out"))
}

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = Boxed<HandshakeResponse>;
    type ListFlightsStream = Boxed<FlightInfo>;
    type DoGetStream = Boxed<FlightData>;
    type DoPutStream = Boxed<PutResult>;
    type DoExchangeStream = Boxed<FlightData>;
    type DoActionStream = Boxed<arrow_flight::Result>;
    type ListActionsStream = Boxed<ActionType>;

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let address = request.remote_addr().map(|address| address.ip());
        let held = status::held(&self.intake, request.extensions());
        let speaker = Speaker::of(request.extensions())?;
        let mut data = request.into_inner().peekable();
        let descriptor = match Pin::new(&mut data).peek().await {
            Some(Ok(first)) => first.flight_descriptor.clone(),
            Some(Err(error)) => return Err(error.clone()),
            None => return Err(Status::invalid_argument("the call holds no schema")),
        };
        let path = descriptor.map(|descriptor| descriptor.path).unwrap_or_default();
        let Introduction { stream, named, epoch } = introduction(path).map_err(|rejection| rejection.status())?;
        let identity = speaker.identity().map(Identity::text);
        let mut asked = Asked { speaker, stream, named, allowed: Allowed::default() };
        let named = asked.named(&self.intake).map_err(|rejection| rejection.status())?;
        let Some(origin) = named.origin(address, identity) else {
            return Err(Rejection::new(Reason::ProducerMissing, "name the producer, in at most 256 bytes").status());
        };
        let served = self.intake.stream(&asked.stream).cloned();
        let served = served.map_err(|reason| Rejection::new(reason, "no such stream is declared here").status())?;
        let (origin, (sender, answers)) = (Arc::new(origin), mpsc::unbounded_channel());
        let number = epoch.map(|epoch| Number { epoch, sequence: 1 });
        let mut put = Put {
            intake: Arc::clone(&self.intake),
            inbox: Arc::clone(&self.inbox),
            held,
            kept: Charge::default(),
            asked,
            data,
            served,
            origin,
            number: None,
            caller: Arc::new(Waits(sender)),
            answers,
            reader: None,
            batch_bytes: 0,
            refused: None,
        };
        put.ask(Content::Nothing, Charge::default()).await.map_err(|rejection| rejection.status())?;
        put.number = number;
        let results =
            stream::try_unfold(put, |mut put| async move { Ok(put.next().await?.map(|result| (result, put))) });
        Ok(Response::new(Box::pin(results)))
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        only_put()
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        only_put()
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        only_put()
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        only_put()
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        only_put()
    }

    async fn do_get(&self, _: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        only_put()
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        only_put()
    }

    async fn do_action(&self, _: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        only_put()
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        only_put()
    }
}

/// What a descriptor's path says.
struct Introduction {
    stream: String,
    /// The producer; empty: the policy gives the name.
    named: String,
    epoch: Option<u64>,
}

fn introduction(path: Vec<String>) -> Result<Introduction, Rejection> {
    let invalid = |message| Rejection::new(Reason::ProducerMissing, message);
    let mut path = path.into_iter();
    let (Some(stream), named, epoch, None) = (path.next(), path.next(), path.next(), path.next()) else {
        return Err(invalid("the descriptor's path must be the stream, the producer and perhaps an epoch"));
    };
    let named = named.unwrap_or_default();
    let epoch = epoch.map(|epoch| epoch.parse::<u64>().ok().filter(|epoch| *epoch > 0));
    match epoch {
        Some(None) => {
            Err(invalid("the third part of the descriptor's path, the epoch, must be a whole number above 0"))
        }
        epoch => Ok(Introduction { stream, named, epoch: epoch.flatten() }),
    }
}

/// What a refusal takes until it is sent.
const REFUSAL_BYTES: usize = 64;

/// A call of `DoPut`.
struct Put {
    intake: Arc<Intake>,
    inbox: Arc<Inbox>,
    /// What the call holds of the budget, and what its dictionaries do.
    held: Arc<budget::Call>,
    kept: Charge,
    asked: Asked,
    data: Peekable<Streaming<FlightData>>,
    served: Arc<Served>,
    origin: Arc<Origin>,
    /// The number of the next batch.
    number: Option<Number>,
    /// Whom the worker answers, and where the answers come.
    caller: Arc<dyn Caller>,
    answers: mpsc::UnboundedReceiver<Answer>,
    /// What the messages so far have said; `None` before the schema.
    reader: Option<Reader>,
    /// The bytes of the newest batch, as they came.
    batch_bytes: usize,
    /// Why the first batch of those that were refused was: the call ends with it.
    refused: Option<Status>,
}

/// Who puts, and as whom.
struct Asked {
    speaker: Arc<Speaker>,
    stream: String,
    /// The producer that the call names.
    named: String,
    allowed: Allowed,
}

impl Asked {
    /// Whom the call counts for, if the policies allow that now.
    fn named(&mut self, intake: &Intake) -> Result<Named<'_>, Rejection> {
        self.speaker.named(intake, &mut self.allowed, &self.stream, &self.named)
    }
}

/// Waits for the answer to one request at a time.
struct Waits(mpsc::UnboundedSender<Answer>);

impl Caller for Waits {
    fn answer(&self, _: u64, answer: Answer) {
        let _ = self.0.send(answer);
    }
}

impl Put {
    /// The answer to the next batch. A batch that is refused by its own fault is answered, and the call goes on.
    async fn next(&mut self) -> Result<Option<PutResult>, Status> {
        while let Some(data) = self.data.next().await {
            // Held until the message is charged, or refused.
            let arrived = self.held.take_arrived();
            self.asked.speaker.goes_on(&self.intake)?;
            self.still_allowed().map_err(|rejection| rejection.status())?;
            let Some(opened) = self.open(data?).map_err(|rejection| rejection.status())? else { continue };
            let answer = match opened {
                Ok(_) if self.intake.is_stopping() => Err(Reason::Stopping.into()),
                Ok(opened) => {
                    let charge = self.held.work(opened.bytes() + REQUEST_BYTES).await;
                    drop(arrived);
                    self.put(opened, charge).await
                }
                Err(rejection) => self.spend(rejection).await,
            };
            // Without a place its number is not spent, and what comes after it would leave it out.
            let answer = answer.map_err(|rejection: Rejection| rejection.status())?;
            let answer = answer.unwrap_or_else(|rejection| {
                self.refused.get_or_insert_with(|| rejection.status());
                refused(&rejection)
            });
            self.number = self.number.map(|Number { epoch, sequence }| Number { epoch, sequence: sequence + 1 });
            return Ok(Some(PutResult { app_metadata: answer.to_string().into() }));
        }
        self.refused.take().map_or(Ok(None), Err)
    }

    /// Whether the policies still allow what the call began as.
    fn still_allowed(&mut self) -> Result<(), Rejection> {
        if self.asked.named(&self.intake)?.is(&self.origin) {
            return Ok(());
        }
        let message =
            "the policies name the producer of this identity otherwise now: put the rest in a call of its own";
        Err(Rejection::new(Reason::PermissionDenied, message))
    }

    /// Passes a request on and waits for its answer.
    async fn ask(&mut self, content: Content, charge: Charge) -> Result<Answer, Rejection> {
        let (served, reply) = (Some(Arc::clone(&self.served)), request::Reply::new(Arc::clone(&self.caller), 0));
        let mut request = request::Request::new(served, Arc::clone(&self.origin), self.number, content, reply);
        request.payload_bytes = self.batch_bytes;
        request.charge = charge;
        self.inbox.push(Box::new(request));
        let answer = self.answers.recv().await.ok_or(Reason::Internal)?;
        match answer.told {
            Err(why) => Err(why.into()),
            Ok(_) => Ok(answer),
        }
    }

    /// Reads a message; a record batch comes out. The outer error ends the call: what comes after it could not be read.
    fn open(&mut self, data: FlightData) -> Result<Option<Result<Opened, Rejection>>, Rejection> {
        if data.data_header.is_empty() {
            return Ok(None);
        }
        // Arrow's reader panics on some malformed lengths.
        expected(AssertUnwindSafe(|| self.read(data))).unwrap_or_else(|_| Err(arrow::malformed().into()))
    }

    fn read(&mut self, data: FlightData) -> Result<Option<Result<Opened, Rejection>>, Rejection> {
        let served = Arc::clone(&self.served);
        let limits = self.intake.limits();
        let message = arrow::message(&data.data_header)?;
        let Some(reader) = &mut self.reader else {
            if message.header_type() != MessageHeader::Schema {
                return Err(Undecodable::malformed("the first message of the call is no schema").into());
            }
            self.reader = Some(Reader::new(&served.stream, &data.data_header)?);
            return Ok(None);
        };
        let bytes = data.data_body.len();
        let is_batch = message.header_type() == MessageHeader::RecordBatch;
        self.batch_bytes = bytes;
        Telemetry::add(&served.counts.bytes_in, bytes);
        Telemetry::add(&served.counts.requests_in, usize::from(is_batch));
        let limit = limits.batch_bytes_max;
        if bytes > limit {
            let message = format!("{bytes} bytes in one message; the limit is {limit}");
            let rejection = Rejection::new(Reason::TooLarge, message);
            return if is_batch { Ok(Some(Err(rejection))) } else { Err(rejection) };
        }
        let decode = decode::Limits::from(limits);
        let mut meter = Meter::new(bytes + limit);
        let body = Buffer::from_slice_ref(&data.data_body);
        let read = reader.read(&message, &body, decode.rows_max, decode, &mut meter);
        if !is_batch {
            read?;
            let held = reader.dictionary_bytes();
            if held > limit {
                let message = format!("{held} bytes in the dictionaries of one call; the limit is {limit}");
                return Err(Rejection::new(Reason::TooLarge, message));
            }
            self.kept = Charge::default();
            self.kept = self.held.keep(held).ok_or_else(|| {
                Rejection::new(
                    Reason::Overloaded,
                    "there is no room for the call's dictionaries now; put it again later",
                )
            })?;
            return Ok(None);
        }
        let opened = read.and_then(|batch| {
            let batch = batch.ok_or_else(arrow::malformed)?;
            arrow::opened(&served.stream, reader, batch, bytes, decode)
        });
        Ok(Some(opened.map_err(Rejection::from)))
    }

    /// The outer error: it has no place, and its number is not spent. The inner one: it was refused in its place.
    async fn put(&mut self, opened: Opened, mut charge: Charge) -> Result<Result<Value, Rejection>, Rejection> {
        // What the answer takes stays charged until it is sent.
        let of_records = charge.split_off(opened.bytes().saturating_sub(opened.rows() * REFUSAL_BYTES));
        Telemetry::add(&self.served.counts.records_in, opened.rows());
        let answer = self.ask(Content::Records(decode::Opened::Arrow(opened)), of_records).await?;
        let Answer { told, is_duplicate, message, .. } = answer;
        let taken = match told.map_err(Rejection::from)? {
            Outcome::Taken(taken) => taken,
            Outcome::Refused(refused) => {
                if !is_duplicate {
                    self.served.counts.refused.add(refused.reason, 1);
                }
                let rejection = Rejection::repeated(refused, is_duplicate);
                return Ok(Err(message.into_iter().fold(rejection, Rejection::saying)));
            }
        };
        let refusals: Vec<Value> = taken.refusals.runs().iter().map(|run| refusal(run, &self.intake)).collect();
        charge.shrink_to(REQUEST_BYTES + refusals.len() * REFUSAL_BYTES);
        self.held.put_answered(charge);
        Ok(Ok(json!({
            "accepted": taken.accepted,
            "refusals": refusals,
            "dropped_values": taken.dropped_values,
            "duplicate": is_duplicate,
        })))
    }

    /// Spends the number of a batch that was refused before it had a place. The outer error: the number is not spent.
    async fn spend(&mut self, rejection: Rejection) -> Result<Result<Value, Rejection>, Rejection> {
        if rejection.reason.keeps_number() {
            return Err(rejection);
        }
        let Answer { told, is_duplicate, .. } =
            self.ask(Content::Refused(rejection.refused()), Charge::default()).await?;
        if !is_duplicate {
            self.served.counts.refused.add(rejection.reason, 1);
        }
        // The first time the message says more than is remembered.
        let refused = match told {
            Ok(Outcome::Refused(refused)) if is_duplicate || refused.reason != rejection.reason => Some(refused),
            _ => None,
        };
        Ok(Err(refused.map_or(rejection, |refused| Rejection::repeated(refused, is_duplicate))))
    }
}

/// The answer to a batch that was refused as a whole.
fn refused(rejection: &Rejection) -> Value {
    json!({
        "accepted": 0,
        "refusals": [],
        "dropped_values": 0,
        "duplicate": false,
        "error": {
            "reason": rejection.reason.name(),
            "message": rejection.text(),
            "field": rejection.field(),
            "retryable": rejection.reason.retryable(),
        },
    })
}

fn refusal(Run { first, count, why }: &Run, intake: &Intake) -> Value {
    let route = why.route.as_ref().map(
        |to| json!({ "gateway": to.gateway.as_str(), "endpoint": to.endpoint, "identity": intake.identity_of(to) }),
    );
    json!({
        "index": first,
        "count": count,
        "reason": why.reason.name(),
        "retryable": why.retryable(),
        "field": why.field.as_deref(),
        "hint": why.hint.map(Hint::name),
        "rules": why.rules.as_deref().unwrap_or_default(),
        "route": route,
    })
}
