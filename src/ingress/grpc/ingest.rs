//! `Ingest.Publish` and `Ingest.PublishOnce`.

use std::net::IpAddr;
use std::sync::Arc;

use futures::StreamExt;
use tonic::{Request, Response, Status, Streaming};

use crate::decode::{Opened, Payload, arrow};
use crate::domain::producer::Number;
use crate::domain::refusal::Reason;
use crate::engine::budget::{self, Charge, REQUEST_BYTES};
use crate::engine::inbox::Inbox;
use crate::engine::intake::{Intake, Served};
use crate::engine::request::{self, Answer, Caller, Content, Origin};
use crate::ingress::proto::ingest::ingest_server::Ingest;
use crate::ingress::proto::ingest::{PublishRequest, PublishResponse};
use crate::telemetry::Telemetry;

use super::replies::{Asked, Outgoing, REFUSAL_BYTES, Replies, Reply, SCORE_BYTES};
use super::status::{self, Rejection};

/// The service, as the connections of one worker use it.
pub(super) struct Service {
    pub(super) intake: Arc<Intake>,
    pub(super) inbox: Arc<Inbox>,
}

/// How many requests of one call are worked on at a time.
const PIPELINED_MAX: usize = 64;
/// The longest name of a stream or a producer that is kept.
const NAME_BYTES_MAX: usize = 256;

#[tonic::async_trait]
impl Ingest for Service {
    type PublishStream = Outgoing;

    async fn publish(&self, request: Request<Streaming<PublishRequest>>) -> Result<Response<Outgoing>, Status> {
        let call = Call::of(self, &request);
        let replies = Arc::clone(&call.replies);
        // Reading and answering are separate: a producer may send without reading, up to PIPELINED_MAX.
        tokio::spawn(read(request.into_inner(), call));
        Ok(Response::new(Outgoing(replies)))
    }

    async fn publish_once(&self, request: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        let mut call = Call::of(self, &request);
        call.take(request.into_inner()).await;
        call.replies.end(Ok(()));
        let reply = std::future::poll_fn(|context| call.replies.poll(context)).await;
        let Some(reply) = reply else { return Err(Status::internal("the request has no answer")) };
        let Reply { response, rejection, .. } = reply?;
        rejection.map_or(Ok(Response::new(response)), |rejection| Err(rejection.status()))
    }
}

async fn read(mut requests: Streaming<PublishRequest>, mut call: Call) {
    // Should this end otherwise than below, the call must not be left open.
    let _ends = Ends(Arc::clone(&call.replies));
    // Room for the answer first, then the request: nothing is read that cannot be answered.
    while call.replies.room(PIPELINED_MAX).await {
        match requests.next().await {
            Some(Ok(request)) => call.take(request).await,
            Some(Err(error)) => return call.replies.end(Err(error)),
            None => return call.replies.end(Ok(())),
        }
    }
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
    stream: String,
    served: Option<Arc<Served>>,
    origin: Arc<Origin>,
    epoch: u64,
    arrow: arrow::Layout,
}

impl Call {
    fn of<R>(service: &Service, request: &Request<R>) -> Self {
        let held = status::held(&service.intake, request.extensions());
        let address: Option<IpAddr> = request.remote_addr().map(|address| address.ip());
        Self {
            intake: Arc::clone(&service.intake),
            inbox: Arc::clone(&service.inbox),
            replies: Arc::new(Replies::new(Arc::clone(&held))),
            held,
            stream: String::new(),
            served: None,
            origin: Arc::new(Origin { producer: String::new(), address }),
            epoch: 0,
            arrow: arrow::Layout::default(),
        }
    }

    /// Takes a request's turn, and passes it on.
    async fn take(&mut self, request: PublishRequest) {
        // Held until the records are charged.
        let arrived = self.held.take_arrived();
        self.introduce(&request);
        let PublishRequest { sequence, want_scores, complete_through, payload, .. } = request;
        let payload = payload.map(Payload::from);
        let counts = match &self.served {
            Some(served) => Arc::clone(&served.counts),
            None => Arc::clone(self.intake.telemetry().of("")),
        };
        Telemetry::add(&counts.bytes_in, payload.as_ref().map_or(0, Payload::len));
        let number = Number { epoch: self.epoch, sequence };
        let opened = self.open(payload).await;
        drop(arrived);
        let (content, charge, of_records, rejection) = match opened {
            Ok((content, charge, of_records)) => (content, charge, of_records, None),
            Err(rejection) => {
                // Nothing is kept but what says so.
                let charge = self.held.work(REQUEST_BYTES).await;
                (Content::Refused(rejection.refused()), charge, Charge::default(), Some(rejection))
            }
        };
        // A request without records may begin an epoch.
        let begins = matches!(content, Content::Nothing) && self.epoch != 0;
        let number = (sequence != 0 || begins).then_some(number);
        let stays = rejection.as_ref().map(|rejection| rejection.reason).filter(|reason| reason.keeps_number());
        let served = self.served.clone();
        let ticket = self.replies.ask(Asked { counts, served: served.clone(), sequence, rejection, charge });
        if let Some(reason) = stays {
            return self.replies.answer(ticket, Answer::unaccepted(reason.into()));
        }
        let caller: Arc<dyn Caller> = self.replies.clone();
        let reply = request::Reply::new(caller, ticket);
        let mut request = request::Request::new(served, Arc::clone(&self.origin), number, content, reply);
        request.promised = self.intake.promise(complete_through);
        request.wants_outputs = want_scores;
        request.charge = of_records;
        self.inbox.push(Box::new(request));
    }

    fn introduce(&mut self, request: &PublishRequest) {
        if !request.stream.is_empty() && request.stream != self.stream {
            self.stream = kept(&request.stream);
            self.served = self.intake.stream(&self.stream).ok().cloned();
        }
        if !request.producer.is_empty() && request.producer != self.origin.producer {
            let producer = kept(&request.producer);
            self.origin = Arc::new(Origin { producer, address: self.origin.address });
            self.epoch = 0;
        }
        if request.epoch != 0 {
            self.epoch = request.epoch;
        }
    }

    /// What a request brings, what its answer is charged, and what its records are: that part is given back when they are
    /// on disk, the answer's when it is sent.
    async fn open(&mut self, payload: Option<Payload>) -> Result<(Content, Charge, Charge), Rejection> {
        if self.origin.producer.is_empty() {
            return Err(Rejection::new(
                Reason::ProducerMissing,
                "name the producer in the first request, in at most 256 bytes",
            ));
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

/// A name, unless it is longer than any that is taken.
fn kept(name: &str) -> String {
    if name.len() > NAME_BYTES_MAX { String::new() } else { name.to_owned() }
}
