//! One producer's call to one gateway, which outlives connections: requests are numbered, those that were
//! not answered are sent again after the connection is lost, and the gateway counts each once.

use std::collections::VecDeque;
use std::error::Error as _;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic_types::RpcStatusExt;

use crate::clock::Clock;
use crate::ingress::grpc::client::Dialer;
use crate::ingress::proto::ingest::{PublishRequest, PublishResponse};

use super::totals::{Kind, Waiting, reason_name};
use super::{Batch, Options, SharedTotals, Stopped};

/// Why a gateway is waited for that is connected.
const NOT_YET: &str = "it has not answered yet";
/// How many requests are sent ahead of their responses.
pub(super) const AHEAD: usize = 8;

/// An answer that takes longer is noted.
const LATE: Duration = Duration::from_millis(500);
/// An attempt to connect has this long, however little patience is left.
const ATTEMPT: Duration = Duration::from_secs(3);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A gateway that another one names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Elsewhere {
    /// Its id.
    pub(super) gateway: String,
    /// Its address.
    pub(super) endpoint: String,
    /// The identity to know it by. Empty: none is named.
    pub(super) identity: String,
}

/// One producer's requests to one gateway.
pub(super) struct Line {
    dialer: Dialer,
    endpoint: String,
    /// By which identity another gateway said to know this one. `None`: the user names it.
    named: Option<String>,
    /// What introduces the producer.
    hello: PublishRequest,
    /// How long a gateway may be away.
    patience: Duration,
    /// Where a wait is noted.
    totals: SharedTotals,
    call: Option<Call>,
    unanswered: VecDeque<Sent>,
    /// The last sequence that was sent.
    sequence: u64,
    /// Everything through this sequence was durable when the line was opened.
    durable_through: u64,
    /// Whether a gateway has answered there.
    is_met: bool,
}

struct Call {
    requests: mpsc::Sender<PublishRequest>,
    responses: Streaming<PublishResponse>,
}

struct Sent {
    request: PublishRequest,
    batch: Option<Batch>,
}

/// An answer.
pub(super) struct Answer {
    pub(super) sequence: u64,
    /// The records that it is about. A request without records has none.
    pub(super) batch: Option<Batch>,
    /// Whether it was on disk before this line was opened.
    pub(super) was_durable: bool,
    /// What became of them; or why the request was refused as a whole.
    pub(super) came: Result<PublishResponse, Kind>,
}

/// Why a call cannot go on.
enum Broken {
    /// Another call may.
    Lost(anyhow::Error),
    /// None will.
    Stopped(Stopped),
}

impl Line {
    /// Introduces the producer to a gateway.
    ///
    /// # Errors
    /// When nobody answers there, or the producer is not wanted.
    pub(super) async fn open(options: &Options, totals: &SharedTotals) -> Result<Self, Stopped> {
        Self::begin(&options.endpoint, None, options, totals).await
    }

    /// The same to a gateway that another one names.
    ///
    /// # Errors
    /// When nobody answers there, it is somebody else, or the producer is not wanted.
    pub(super) async fn follow(gateway: &Elsewhere, options: &Options, totals: &SharedTotals) -> Result<Self, Stopped> {
        Self::begin(&gateway.endpoint, Some(gateway.identity.clone()), options, totals).await
    }

    async fn begin(
        endpoint: &str,
        named: Option<String>,
        options: &Options,
        totals: &SharedTotals,
    ) -> Result<Self, Stopped> {
        let hello = PublishRequest {
            stream: options.stream.clone(),
            producer: options.producer.clone(),
            epoch: options.epoch,
            ..PublishRequest::default()
        };
        let mut line = Self {
            dialer: options.dialer.clone(),
            endpoint: endpoint.to_owned(),
            named,
            hello,
            patience: options.patience,
            totals: Arc::clone(totals),
            call: None,
            unanswered: VecDeque::new(),
            sequence: 0,
            durable_through: 0,
            is_met: false,
        };
        let within = line.patience.max(ATTEMPT);
        let introduced = line.attempt(within, line.waiting_for(NOT_YET.to_owned(), Clock::start(), within)).await;
        line.waited(introduced.is_ok());
        let introduced = match introduced {
            Ok(introduced) => introduced,
            // It is a gateway, and takes nothing in now: it is waited for, as it is later.
            Err(Broken::Lost(error)) if line.is_met => {
                line.reconnect(error).await.map_err(|stopped| match stopped {
                    Stopped::Gateway(error) => Stopped::NotBegun(error),
                    other => other,
                })?
            }
            Err(Broken::Lost(error)) => return Err(Stopped::NotBegun(error)),
            Err(Broken::Stopped(stopped)) => return Err(stopped),
        };
        line.durable_through = introduced.durable_through;
        Ok(line)
    }

    /// How far the gateway had the producer's requests on disk when the line was opened.
    pub(super) fn durable_through(&self) -> u64 {
        self.durable_through
    }

    /// How many requests wait for their answers.
    pub(super) fn waiting(&self) -> usize {
        self.unanswered.len()
    }

    /// The first sequence that is not answered.
    pub(super) fn first_unanswered(&self) -> Option<u64> {
        self.unanswered.front().map(|sent| sent.request.sequence)
    }

    /// Sends records under a sequence above the last; nothing comes under those between. The bytes sent.
    pub(super) async fn send(&mut self, sequence: u64, batch: Batch) -> Result<usize, Stopped> {
        if sequence > self.sequence + 1 {
            self.skip_to(sequence - 1).await?;
        }
        self.sequence = sequence;
        let payload = batch.records.payload().map_err(Stopped::Input)?;
        let request = PublishRequest { sequence, payload: Some(payload), ..PublishRequest::default() };
        let bytes = prost::Message::encoded_len(&request);
        self.transmit(Sent { request, batch: Some(batch) }).await?;
        Ok(bytes)
    }

    /// Says that nothing comes under the sequences up to this one.
    pub(super) async fn skip_to(&mut self, sequence: u64) -> Result<(), Stopped> {
        self.sequence = sequence;
        let request = PublishRequest { sequence, ..PublishRequest::default() };
        self.transmit(Sent { request, batch: None }).await
    }

    /// Promises that no earlier event time will come.
    pub(super) async fn promise(&mut self, complete_through: i64) -> Result<(), Stopped> {
        let request = PublishRequest { complete_through, ..PublishRequest::default() };
        self.transmit(Sent { request, batch: None }).await
    }

    async fn transmit(&mut self, sent: Sent) -> Result<(), Stopped> {
        let request = sent.request.clone();
        self.unanswered.push_back(sent);
        let is_sent = match &self.call {
            Some(call) => call.requests.send(request).await.is_ok(),
            None => false,
        };
        if !is_sent {
            self.reconnect(anyhow!("the gateway ended the call")).await?;
        }
        Ok(())
    }

    /// Takes the next answer, whatever it takes.
    pub(super) async fn answer(&mut self) -> Result<Answer, Stopped> {
        loop {
            match self.patiently().await {
                Ok(came) => {
                    let sent = self.unanswered.pop_front().context("a response without a request");
                    let Sent { request, batch } = sent.map_err(Stopped::Gateway)?;
                    let sequence = request.sequence;
                    return Ok(Answer { sequence, batch, was_durable: sequence <= self.durable_through, came });
                }
                Err(Broken::Lost(error)) => {
                    self.reconnect(error).await?;
                }
                Err(Broken::Stopped(stopped)) => return Err(stopped),
            }
        }
    }

    /// Takes a response. That it is late is noted.
    async fn patiently(&mut self) -> Result<Result<PublishResponse, Kind>, Broken> {
        let since = Clock::start();
        let waiting = Waiting {
            whom: self.endpoint.clone(),
            why: "it is connected and has not answered yet".to_owned(),
            since,
            patience: None,
        };
        let totals = Arc::clone(&self.totals);
        let note = |waiting| totals.lock().unwrap_or_else(PoisonError::into_inner).waiting = waiting;
        let mut response = std::pin::pin!(self.response());
        tokio::select! {
            response = &mut response => return response,
            () = tokio::time::sleep(LATE) => note(Some(waiting)),
        }
        let response = response.await;
        note(None);
        response
    }

    /// What the end of a call by a status means.
    fn broken(&self, status: tonic::Status) -> Broken {
        if matches!(status.code(), tonic::Code::PermissionDenied | tonic::Code::Unauthenticated) {
            let error = anyhow!("the gateway at {} says: {}", self.endpoint, status.message());
            return Broken::Stopped(Stopped::Unwanted(error));
        }
        Broken::Lost(self.lost(&status))
    }

    /// Why a call ended that another one may go on with.
    fn lost(&self, status: &tonic::Status) -> anyhow::Error {
        let endpoint = &self.endpoint;
        let (mut http, mut io, mut cause) = (None, None, status.source());
        while let Some(error) = cause {
            http = http.or_else(|| error.downcast_ref::<hyper::Error>());
            io = io.or_else(|| error.downcast_ref::<std::io::Error>());
            cause = error.source();
        }
        let is_other = || match http {
            Some(_) => !self.is_met,
            None => status.code() == tonic::Code::Unimplemented,
        };
        match (http, io) {
            (Some(http), _) if http.is_timeout() => anyhow!("what listens at {endpoint} does not answer"),
            (_, Some(io)) => anyhow!("the connection to {endpoint} ended: {io}"),
            _ if is_other() => anyhow!("what answers at {endpoint} is not a gateway's gRPC port"),
            (Some(_), None) => anyhow!("the connection to {endpoint} ended"),
            (None, None) => anyhow!("the gateway at {endpoint} ended the call: {}", status.message()),
        }
    }

    async fn response(&mut self) -> Result<Result<PublishResponse, Kind>, Broken> {
        let ended = || Broken::Lost(anyhow!("the gateway ended the call"));
        let call = self.call.as_mut().ok_or_else(ended)?;
        let response = call.responses.message().await.map_err(|status| self.broken(status))?;
        let response = response.ok_or_else(ended)?;
        self.is_met = true;
        let Some(status) = &response.error else { return Ok(Ok(response)) };
        let info = status.get_details_error_info();
        let reason = info.map(|info| reason_name(&info.reason)).unwrap_or_default();
        let error = || anyhow!("the gateway at {} says: {}", self.endpoint, status.message);
        match reason.as_str() {
            // A gap comes after a request that was not taken: all of them are sent again.
            "overloaded" | "stopping" | "journal_failing" | "windows_full" | "sequence_gap" => {
                Err(Broken::Lost(error()))
            }
            "epoch_fenced" | "number_reused" => Err(Broken::Stopped(Stopped::Superseded(error()))),
            "unknown_stream" | "producer_missing" | "too_many_producers" | "permission_denied" => {
                Err(Broken::Stopped(Stopped::Unwanted(error())))
            }
            _ => {
                let violations = status.get_details_bad_request().map(|request| request.field_violations);
                let field = violations.and_then(|violations| violations.into_iter().next());
                let field = field.map(|violation| violation.field).unwrap_or_default();
                Ok(Err(Kind { reason, field, ..Kind::default() }))
            }
        }
    }

    /// Connects anew and sends again what was not answered, for as long as the gateway may be away.
    async fn reconnect(&mut self, why: anyhow::Error) -> Result<PublishResponse, Stopped> {
        let since = Clock::start();
        let mut pause = PAUSE_MIN;
        let mut last = why;
        let patience = self.patience;
        let result = loop {
            if since.now() >= patience {
                let whom = format!("the gateway at {} was away for {} s", self.endpoint, patience.as_secs());
                break Err(Stopped::Gateway(last.context(whom)));
            }
            self.call = None;
            self.note(Some(self.waiting_for(format!("{last:#}"), since, patience)));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            let waiting = self.waiting_for(NOT_YET.to_owned(), since, patience);
            match self.attempt(patience.saturating_sub(since.now()).max(ATTEMPT), waiting).await {
                Ok(introduced) if self.resend().await => break Ok(introduced),
                Ok(_) => last = anyhow!("the gateway ended the call"),
                Err(Broken::Lost(error)) => last = error,
                Err(Broken::Stopped(stopped)) => break Err(stopped),
            }
        };
        self.waited(result.is_ok());
        result
    }

    fn waiting_for(&self, why: String, since: Clock, patience: Duration) -> Waiting {
        Waiting { whom: self.endpoint.clone(), why, since, patience: Some(patience) }
    }

    /// A wait is over: the gateway answers, or is given up.
    fn waited(&self, is_there: bool) {
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        totals.waiting = None;
        totals.given_up = (!is_there).then(|| self.endpoint.clone());
    }

    fn note(&self, waiting: Option<Waiting>) {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner).waiting = waiting;
    }

    /// Connects, within a time. That it takes long is noted.
    async fn attempt(&mut self, within: Duration, waiting: Waiting) -> Result<PublishResponse, Broken> {
        let (totals, endpoint) = (Arc::clone(&self.totals), self.endpoint.clone());
        let connected = async {
            let mut connected = std::pin::pin!(self.connect());
            tokio::select! {
                connected = &mut connected => return connected,
                () = tokio::time::sleep(LATE) => {
                    totals.lock().unwrap_or_else(PoisonError::into_inner).waiting = Some(waiting);
                }
            }
            connected.await
        };
        let late = || anyhow!("what listens at {endpoint} has not answered for {} s", within.as_secs());
        tokio::time::timeout(within, connected).await.unwrap_or_else(|_| Err(Broken::Lost(late())))
    }

    async fn connect(&mut self) -> Result<PublishResponse, Broken> {
        let lost = |error: anyhow::Error| Broken::Lost(error);
        let connected = match &self.named {
            None => self.dialer.connect(&self.endpoint).await,
            Some(identity) => self.dialer.follow(&self.endpoint, identity).await,
        };
        let mut client = connected.map_err(|error| lost(error.into()))?;
        let (requests, outgoing) = mpsc::channel(AHEAD * 2);
        requests.send(self.hello.clone()).await.map_err(|error| lost(error.into()))?;
        let call = self.dialer.call(ReceiverStream::new(outgoing)).map_err(|error| lost(error.into()))?;
        let responses = client.publish(call).await.map_err(|status| self.broken(status))?;
        self.call = Some(Call { requests, responses: responses.into_inner() });
        let introduced = self.response().await?;
        introduced.map_err(|Kind { reason, .. }| {
            let error = anyhow!("the gateway at {} refuses this producer: {reason}", self.endpoint);
            Broken::Stopped(Stopped::Unwanted(error))
        })
    }

    async fn resend(&self) -> bool {
        let Some(call) = &self.call else { return false };
        for sent in &self.unanswered {
            if call.requests.send(sent.request.clone()).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Waits until everything is answered that holds no records.
    pub(super) async fn settle(&mut self) -> Result<(), Stopped> {
        while self.waiting() > 0 {
            let answer = self.answer().await?;
            if let Err(kind) = answer.came {
                let error = anyhow!("the gateway at {} refused a promise: {}", self.endpoint, kind.reason);
                return Err(Stopped::Gateway(error));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Why no line is opened to a listener that says something and then nothing, and what was waited for.
    async fn refused(says: &'static [u8]) -> (String, Option<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut connection, _)) = listener.accept().await {
                let _ = connection.read(&mut [0; 64]).await;
                let _ = connection.write_all(says).await;
                open.push(connection);
            }
        });
        let totals = SharedTotals::default();
        let (options, watched) = (Options::of_a_test(&endpoint), Arc::clone(&totals));
        let noted = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let waiting = watched.lock().unwrap().waiting.clone();
                if let Some(Waiting { why, patience, .. }) = waiting {
                    return format!("{why}, {patience:?}");
                }
            }
        });
        let Err(Stopped::NotBegun(error)) = Line::open(&options, &totals).await else { panic!("it is begun") };
        serving.abort();
        let noted = noted.is_finished().then_some(noted);
        let noted = match noted {
            Some(noted) => Some(noted.await.unwrap()),
            None => None,
        };
        assert!(totals.lock().unwrap().waiting.is_none());
        assert_eq!(totals.lock().unwrap().given_up.as_ref(), Some(&endpoint));
        (format!("{error:#}").replace(&endpoint, "URI"), noted)
    }

    #[tokio::test]
    async fn what_is_no_gateway_is_said_in_words() {
        let (said, _) = refused(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        assert_eq!(said, "what answers at URI is not a gateway's gRPC port");
    }

    #[tokio::test]
    async fn a_listener_that_never_answers_is_waited_for_as_long_as_is_said() {
        // Who looks may be held up until it is over.
        for _ in 0..20 {
            let (said, noted) = refused(b"").await;
            assert_eq!(said, "what listens at URI has not answered for 3 s");
            if let Some(noted) = noted {
                assert_eq!(noted, "it has not answered yet, Some(3s)");
                return;
            }
        }
        panic!("what is waited for is never noted");
    }

    #[tokio::test]
    async fn an_address_without_its_scheme_is_refused_with_both() {
        for (endpoint, wanted) in [
            ("127.0.0.1:7400", "write http://127.0.0.1:7400 for plain text, or https://127.0.0.1:7400 for TLS"),
            ("ftp://127.0.0.1:7400", "is no address of a gateway"),
            ("http://", "is no address of a gateway"),
            ("https://127.0.0.1:7400", "speaks TLS: give --ca FILE"),
        ] {
            let opened = Line::open(&Options::of_a_test(endpoint), &SharedTotals::default()).await;
            let Err(Stopped::NotBegun(error)) = opened else { panic!("{endpoint} is begun") };
            let said = format!("{error:#}");
            assert!(said.contains(wanted) && !said.contains("no gateway answers"), "{said}");
        }
    }
}
