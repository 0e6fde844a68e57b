//! One producer's call to one gateway, which outlives connections: requests are numbered, those that were
//! not answered are sent again after the connection is lost, and the gateway counts each once.

use std::collections::VecDeque;
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

/// How many requests are sent ahead of their responses.
pub(super) const AHEAD: usize = 8;

/// An answer that takes longer is noted.
const LATE: Duration = Duration::from_millis(500);
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
        };
        match line.connect().await {
            Ok(introduced) => line.durable_through = introduced.durable_through,
            Err(Broken::Lost(error)) => return Err(Stopped::NotBegun(error)),
            Err(Broken::Stopped(stopped)) => return Err(stopped),
        }
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
                Err(Broken::Lost(error)) => self.reconnect(error).await?,
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
        Broken::Lost(status.into())
    }

    async fn response(&mut self) -> Result<Result<PublishResponse, Kind>, Broken> {
        let ended = || Broken::Lost(anyhow!("the gateway ended the call"));
        let call = self.call.as_mut().ok_or_else(ended)?;
        let response = call.responses.message().await.map_err(|status| self.broken(status))?;
        let response = response.ok_or_else(ended)?;
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
    async fn reconnect(&mut self, why: anyhow::Error) -> Result<(), Stopped> {
        let since = Clock::start();
        let mut pause = PAUSE_MIN;
        let mut last = why;
        let result = loop {
            if since.now() >= self.patience {
                let whom = format!("the gateway at {} was away for {} s", self.endpoint, self.patience.as_secs());
                break Err(Stopped::Gateway(last.context(whom)));
            }
            self.call = None;
            self.note(Some(Waiting {
                whom: self.endpoint.clone(),
                why: format!("{last:#}"),
                since,
                patience: Some(self.patience),
            }));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            match self.connect().await {
                Ok(_) if self.resend().await => break Ok(()),
                Ok(_) => last = anyhow!("the gateway ended the call"),
                Err(Broken::Lost(error)) => last = error,
                Err(Broken::Stopped(stopped)) => break Err(stopped),
            }
        };
        self.note(None);
        result
    }

    fn note(&self, waiting: Option<Waiting>) {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner).waiting = waiting;
    }

    async fn connect(&mut self) -> Result<PublishResponse, Broken> {
        let lost = |error: anyhow::Error| Broken::Lost(error);
        let connected = match &self.named {
            None => self.dialer.connect(&self.endpoint).await,
            Some(identity) => self.dialer.follow(&self.endpoint, identity).await,
        };
        let mut client = connected.with_context(|| format!("no gateway answers at {}", self.endpoint)).map_err(lost)?;
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
