//! `Ingest.Publish` and `Ingest.PublishOnce`, from their messages to the inbox and back, without a framework in between:
//! what a message of one record costs here is most of what it costs at all.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use hyper::body::Incoming;
use prost::Message as _;
use tonic::Status;

use crate::decode::{Opened, Payload, arrow};
use crate::domain::name;
use crate::domain::producer::{Number, ProducerName};
use crate::domain::refusal::Reason;
use crate::engine::budget::{self, Charge, REQUEST_BYTES};
use crate::engine::inbox::Inbox;
use crate::engine::intake::Intake;
use crate::engine::request::{self, Answer, Caller, Content, Origin, Served};
use crate::identity::Identity;
use crate::ingress::proto::ingest::PublishRequest;
use crate::ingress::proto::ingest::publish_request::Payload as Wire;
use crate::telemetry::Telemetry;

use super::answers::Answers;
use super::messages::{Message, Messages};
use super::replies::{Asked, Outgoing, REFUSAL_BYTES, Refusing, Replies, SCORE_BYTES};
use super::speaker::{Allowed, Speaker};
use super::status::Rejection;

/// The service, as the connections of one worker use it.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) intake: Arc<Intake>,
    pub(super) inbox: Arc<Inbox>,
}

/// How many requests of one call are worked on at a time.
const PIPELINED_MAX: usize = 64;
/// So many bytes may stand beside a payload in its message.
const BESIDE_PAYLOAD_MAX: usize = 1 << 10;

/// A method of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Many requests, each answered by a response.
    Publish,
    /// One request.
    PublishOnce,
}

impl Method {
    /// The method of a path.
    pub(super) fn of(path: &str) -> Option<Self> {
        match path.strip_prefix("/bailiwick.v1.Ingest/")? {
            "Publish" => Some(Self::Publish),
            "PublishOnce" => Some(Self::PublishOnce),
            _ => None,
        }
    }
}

impl Service {
    /// Serves a call.
    pub(super) fn call(
        &self,
        method: Method,
        headers: &HeaderMap,
        address: Option<IpAddr>,
        speaker: Arc<Speaker>,
        messages: Messages<Incoming>,
        held: Arc<budget::Call>,
    ) -> Response<Answers> {
        if let Some(encoding) = headers.get("grpc-encoding").filter(|encoding| *encoding != "identity") {
            let encoding: String = encoding.to_str().unwrap_or("an unknown encoding").chars().take(32).collect();
            let message =
                format!("messages are compressed with `{encoding}`, which is not read here; send them as they are");
            let mut response = Status::unimplemented(message).into_http();
            response.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
            return response.map(|body| Answers::of_service(body, held));
        }
        let refusing = match method {
            Method::Publish => Refusing::Request,
            Method::PublishOnce => Refusing::Call,
        };
        let call = Call::new(self, address, speaker, held, refusing);
        let replies = Arc::clone(&call.replies);
        // Reading and answering are separate: a producer may send without reading, up to PIPELINED_MAX.
        match method {
            Method::Publish => drop(tokio::spawn(read(messages, call))),
            Method::PublishOnce => drop(tokio::spawn(read_once(messages, call))),
        }
        let mut response = Response::new(Answers::Ingest(Outgoing::new(replies)));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        response
    }
}

async fn read(mut messages: Messages<Incoming>, mut call: Call) {
    // Should this end otherwise than below, the call must not be left open.
    let _ends = Ends(Arc::clone(&call.replies));
    // Room for the answer first, then the request: nothing is read that cannot be answered.
    while call.replies.room(PIPELINED_MAX).await {
        let next = messages.next().await.map(|message| message.and_then(request));
        // Asked when the request is there: it may come long after the one before.
        if let Err(ended) = call.speaker.goes_on(&call.intake) {
            return call.replies.end(Err(ended));
        }
        match next {
            Some(Ok((request, arrived))) => {
                if let Err(ended) = call.take(request, arrived).await {
                    return call.replies.end(Err(ended));
                }
            }
            Some(Err(status)) => return call.replies.end(Err(status)),
            None => return call.replies.end(Ok(())),
        }
    }
}

async fn read_once(mut messages: Messages<Incoming>, mut call: Call) {
    let _ends = Ends(Arc::clone(&call.replies));
    let first = messages.next().await.unwrap_or_else(|| Err(Status::invalid_argument("the call has no request")));
    let first = first.and_then(request);
    match call.speaker.goes_on(&call.intake).and(first) {
        Ok((request, arrived)) => {
            // Why the call ends is in the answer, too.
            let _ = call.take(request, arrived).await;
            call.replies.end(Ok(()));
        }
        Err(status) => call.replies.end(Err(status)),
    }
}

/// What a message says, and what it is charged.
fn request(message: Message) -> Result<(PublishRequest, Charge), Status> {
    let Message { header: [compressed, ..], bytes, charge } = message;
    if compressed != 0 {
        return Err(Status::internal("a message is compressed, and the call does not say how"));
    }
    let length = bytes.len();
    let malformed = |_| Status::invalid_argument("a message is no PublishRequest");
    let mut request = PublishRequest::decode(bytes).map_err(malformed)?;
    if let Some(Wire::Rows(payload) | Wire::ArrowIpc(payload) | Wire::CloudEvents(payload)) = &mut request.payload {
        // It is a part of the message, and would keep the whole of it, of which only the payload is charged.
        if payload.len() * 2 + BESIDE_PAYLOAD_MAX < length {
            *payload = Bytes::copy_from_slice(payload);
        }
    }
    Ok((request, charge))
}

/// Ends a call that nobody else has ended.
struct Ends(Arc<Replies>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.end(Err(Status::internal("the call was given up by a fault in the gateway")));
    }
}

/// What the requests of one call have said so far.
struct Call {
    intake: Arc<Intake>,
    inbox: Arc<Inbox>,
    replies: Arc<Replies>,
    /// What it holds of the budget.
    held: Arc<budget::Call>,
    speaker: Arc<Speaker>,
    stream: String,
    served: Option<Arc<Served>>,
    /// The producer that the requests name. `None`: its name is too long.
    named: Option<String>,
    allowed: Allowed,
    address: Option<IpAddr>,
    /// Whom the requests count for. `None`: for nobody, so none is taken.
    origin: Option<Arc<Origin>>,
    epoch: u64,
    arrow: arrow::Layout,
}

impl Call {
    fn new(
        service: &Service,
        address: Option<IpAddr>,
        speaker: Arc<Speaker>,
        held: Arc<budget::Call>,
        refusing: Refusing,
    ) -> Self {
        Self {
            intake: Arc::clone(&service.intake),
            inbox: Arc::clone(&service.inbox),
            replies: Arc::new(Replies::new(Arc::clone(&held), refusing).knowing(Arc::clone(&service.intake))),
            held,
            speaker,
            stream: String::new(),
            served: None,
            named: Some(String::new()),
            allowed: Allowed::default(),
            address,
            origin: None,
            epoch: 0,
            arrow: arrow::Layout::default(),
        }
    }

    /// Takes a request's turn, and passes it on. What its message is charged is held until the records are charged. `Err`:
    /// the call ends with this, after the answers.
    async fn take(&mut self, request: PublishRequest, arrived: Charge) -> Result<(), Status> {
        let introduced = self.introduce(&request);
        let PublishRequest { sequence, want_scores, complete_through, payload, .. } = request;
        let payload = payload.map(Payload::from);
        let counts = match &self.served {
            Some(served) => Arc::clone(&served.counts),
            None => Arc::clone(self.intake.telemetry().of("")),
        };
        Telemetry::add(&counts.requests_in, 1);
        let payload_bytes = payload.as_ref().map_or(0, Payload::len);
        Telemetry::add(&counts.bytes_in, payload_bytes);
        let number = Number { epoch: self.epoch, sequence };
        let opened = match introduced {
            Ok(()) => self.open(payload).await,
            Err(rejection) => Err(rejection),
        };
        drop(arrived);
        let (content, charge, of_records, rejection) = match opened {
            Ok((content, charge, of_records)) => (content, charge, of_records, None),
            Err(rejection) => {
                // Nothing is kept but what says so.
                let charge = self.held.work(REQUEST_BYTES).await;
                (Content::Refused(rejection.refused()), charge, Charge::default(), Some(Box::new(rejection)))
            }
        };
        // A request without records may begin an epoch.
        let begins = matches!(content, Content::Nothing) && self.epoch != 0;
        let number = (sequence != 0 || begins).then_some(number);
        let stays = rejection.as_ref().map(|rejection| rejection.reason).filter(|reason| reason.keeps_number());
        let denied = rejection.as_ref().filter(|rejection| rejection.reason == Reason::PermissionDenied);
        let ended = denied.map_or(Ok(()), |denied| Err(denied.status()));
        let served = self.served.clone();
        let ticket = self.replies.ask(Asked { counts, served: served.clone(), sequence, rejection, charge });
        let (Some(origin), None) = (&self.origin, stays) else {
            let reason = stays.unwrap_or(Reason::ProducerMissing);
            self.replies.answer(ticket, Answer::unaccepted(reason.into()));
            return ended;
        };
        let caller: Arc<dyn Caller> = self.replies.clone();
        let reply = request::Reply::new(caller, ticket);
        let mut request = request::Request::new(served, Arc::clone(origin), number, content, reply);
        request.payload_bytes = payload_bytes;
        request.promised = self.intake.promise(complete_through);
        request.wants_outputs = want_scores;
        request.charge = of_records;
        self.inbox.push(Box::new(request));
        Ok(())
    }

    /// Hears what a request says of itself, and whether the speaker may say it.
    fn introduce(&mut self, request: &PublishRequest) -> Result<(), Rejection> {
        if !request.stream.is_empty() && request.stream != self.stream {
            self.stream = kept(&request.stream);
            self.served = self.intake.stream(&self.stream).ok().cloned();
        }
        if !request.producer.is_empty() && self.named.as_ref() != Some(&request.producer) {
            self.named = (request.producer.len() <= ProducerName::BYTES_MAX).then(|| request.producer.clone());
        }
        let named = self.named.as_deref().ok_or_else(producer_missing);
        let named = named.and_then(|named| self.speaker.named(&self.intake, &mut self.allowed, &self.stream, named));
        if let (Ok(named), Some(origin)) = (&named, &self.origin)
            && named.is(origin)
        {
            if request.epoch != 0 {
                self.epoch = request.epoch;
            }
            return Ok(());
        }
        self.epoch = request.epoch;
        let (origin, introduced) = match named {
            Ok(named) => (named.origin(self.address, self.speaker.identity().map(Identity::text)), Ok(())),
            Err(rejection) => (None, Err(rejection)),
        };
        self.origin = origin.map(Arc::new);
        introduced
    }

    /// What a request brings, what its answer is charged, and what its records are: that part is given back when they are
    /// on disk, the answer's when it is sent.
    async fn open(&mut self, payload: Option<Payload>) -> Result<(Content, Charge, Charge), Rejection> {
        if self.origin.is_none() {
            return Err(producer_missing());
        }
        let Some(served) = &self.served else {
            let known: Vec<&str> = self.intake.stream_names().collect();
            let message = format!("no such stream is declared here; declared: {}", known.join(", "));
            return Err(Rejection::new(Reason::UnknownStream, message));
        };
        let limits = self.intake.limits();
        let Some(payload) = payload else {
            return Ok((Content::Nothing, self.held.work(REQUEST_BYTES).await, Charge::default()));
        };
        let bytes = payload.len();
        if bytes > limits.batch_bytes_max {
            let message = format!("{bytes} bytes in one request; the limit is {}", limits.batch_bytes_max);
            return Err(Rejection::new(Reason::TooLarge, message));
        }
        if self.intake.is_stopping() {
            return Err(Reason::Stopping.into());
        }
        let opened = Opened::new(&mut self.arrow, &served.stream, payload, limits.into())?;
        Telemetry::add(&served.counts.records_in, opened.rows());
        let answer_bytes = opened.rows() * served.outputs.len() * SCORE_BYTES + REQUEST_BYTES;
        let mut charge = self.held.work(opened.bytes() + answer_bytes).await;
        let of_records = charge.split_off(opened.bytes().saturating_sub(opened.rows() * REFUSAL_BYTES));
        Ok((Content::Records(opened), charge, of_records))
    }
}

fn producer_missing() -> Rejection {
    Rejection::new(Reason::ProducerMissing, "name the producer in the first request, in at most 256 bytes")
}

/// A name, unless it is longer than any that is taken.
fn kept(name: &str) -> String {
    if name.len() > name::BYTES_MAX { String::new() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(request: &PublishRequest, beside: usize) -> (std::ops::Range<*const u8>, PublishRequest) {
        let mut bytes = request.encode_to_vec();
        // Field 15, which nobody declared.
        bytes.extend([15 << 3 | 2]);
        prost::encoding::encode_varint(beside as u64, &mut bytes);
        bytes.extend(vec![0; beside]);
        let bytes = Bytes::from(bytes);
        let place = bytes.as_ptr_range();
        let message = Message { header: [0; 5], bytes, charge: Charge::default() };
        (place, super::request(message).unwrap().0)
    }

    #[test]
    fn a_small_payload_does_not_keep_a_large_message() {
        let request = PublishRequest { payload: Some(Wire::Rows(Bytes::from(vec![7; 3_000]))), ..Default::default() };
        for (beside, keeps) in [(0, true), (1_000, true), (1 << 20, false)] {
            let (place, read) = received(&request, beside);
            let Some(Wire::Rows(payload)) = &read.payload else { panic!("no payload") };
            assert_eq!(place.contains(&payload.as_ptr()), keeps, "{beside}");
            assert_eq!(read, request);
        }
    }
}
