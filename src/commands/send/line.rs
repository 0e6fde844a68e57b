//! One producer's call to one gateway, which outlives connections: requests are numbered, those that were
//! not answered are sent again after the connection is lost, and the gateway counts each once.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic_types::RpcStatusExt;

use crate::adapters::grpc::client;
use crate::adapters::grpc::proto::ingest::{PublishRequest, PublishResponse, Reason};
use crate::intake::Clock;

use super::{Options, Records};

/// How many requests are sent ahead of their responses.
pub(super) const AHEAD: usize = 8;

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// One producer's requests to one gateway.
pub(super) struct Line {
    endpoint: String,
    /// What introduces the producer.
    hello: PublishRequest,
    /// How long a gateway may be away.
    patience: Duration,
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
    records: Option<Records>,
}

/// An answer, with the records that it is about. A request without records has none.
pub(super) struct Answer {
    pub(super) response: PublishResponse,
    pub(super) sequence: u64,
    pub(super) records: Option<Records>,
}

/// Why a call cannot go on.
enum Broken {
    /// Another call may.
    Lost(anyhow::Error),
    /// None will.
    Refused(anyhow::Error),
}

impl Line {
    /// Introduces the producer to a gateway.
    pub(super) async fn open(endpoint: &str, options: &Options) -> anyhow::Result<Self> {
        let hello = PublishRequest {
            stream: options.stream.clone(),
            producer: options.producer.clone(),
            epoch: options.epoch,
            ..PublishRequest::default()
        };
        let mut line = Self {
            endpoint: endpoint.to_owned(),
            hello,
            patience: options.patience,
            call: None,
            unanswered: VecDeque::new(),
            sequence: 0,
            durable_through: 0,
        };
        match line.connect().await {
            Ok(introduced) => line.durable_through = introduced.durable_through,
            Err(Broken::Lost(error) | Broken::Refused(error)) => return Err(error),
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

    /// Sends records under a sequence above the last; nothing comes under those between. The bytes sent.
    pub(super) async fn send(&mut self, sequence: u64, records: Records) -> anyhow::Result<usize> {
        if sequence > self.sequence + 1 {
            self.skip_to(sequence - 1).await?;
        }
        self.sequence = sequence;
        let request = PublishRequest { sequence, payload: Some(records.payload()?), ..PublishRequest::default() };
        let bytes = prost::Message::encoded_len(&request);
        self.transmit(Sent { request, records: Some(records) }).await?;
        Ok(bytes)
    }

    /// Says that nothing comes under the sequences up to this one.
    pub(super) async fn skip_to(&mut self, sequence: u64) -> anyhow::Result<()> {
        self.sequence = sequence;
        let request = PublishRequest { sequence, ..PublishRequest::default() };
        self.transmit(Sent { request, records: None }).await
    }

    /// Promises that no earlier event time will come.
    pub(super) async fn promise(&mut self, complete_through: i64) -> anyhow::Result<()> {
        let request = PublishRequest { complete_through, ..PublishRequest::default() };
        self.transmit(Sent { request, records: None }).await
    }

    async fn transmit(&mut self, sent: Sent) -> anyhow::Result<()> {
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
    pub(super) async fn answer(&mut self) -> anyhow::Result<Answer> {
        loop {
            let broken = match self.response().await {
                Ok(response) => {
                    let sent = self.unanswered.pop_front().context("a response without a request")?;
                    return Ok(Answer { response, sequence: sent.request.sequence, records: sent.records });
                }
                Err(broken) => broken,
            };
            match broken {
                Broken::Lost(error) => self.reconnect(error).await?,
                Broken::Refused(error) => return Err(error),
            }
        }
    }

    async fn response(&mut self) -> Result<PublishResponse, Broken> {
        let ended = || Broken::Lost(anyhow!("the gateway ended the call"));
        let call = self.call.as_mut().ok_or_else(ended)?;
        let response = call.responses.message().await.map_err(|status| Broken::Lost(status.into()))?;
        let response = response.ok_or_else(ended)?;
        let Some(status) = &response.error else { return Ok(response) };
        let error = anyhow!("request {} was refused: {}", response.sequence, status.message);
        let info = status.get_details_error_info();
        let reason = info.and_then(|info| Reason::from_str_name(&info.reason)).unwrap_or_default();
        // A gap comes after a request that was not taken: all of them are sent again.
        Err(match reason {
            Reason::Overloaded
            | Reason::WindowsFull
            | Reason::Stopping
            | Reason::JournalFailing
            | Reason::SequenceGap => Broken::Lost(error),
            _ => Broken::Refused(error),
        })
    }

    /// Connects anew and sends again what was not answered, for as long as the gateway may be away.
    async fn reconnect(&mut self, why: anyhow::Error) -> anyhow::Result<()> {
        let clock = Clock::start();
        let mut pause = PAUSE_MIN;
        let mut last = why;
        while clock.now() < self.patience {
            self.call = None;
            tracing::info!(endpoint = self.endpoint, error = format!("{last:#}"), "connecting again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            match self.connect().await {
                Ok(_) if self.resend().await => return Ok(()),
                Ok(_) => last = anyhow!("the gateway ended the call"),
                Err(Broken::Lost(error)) => last = error,
                Err(Broken::Refused(error)) => return Err(error),
            }
        }
        Err(last.context(format!("the gateway at {} was away for {} s", self.endpoint, self.patience.as_secs())))
    }

    async fn connect(&mut self) -> Result<PublishResponse, Broken> {
        let lost = |error: anyhow::Error| Broken::Lost(error);
        let connected = client::connect(&self.endpoint).await;
        let mut client = connected.with_context(|| format!("no gateway answers at {}", self.endpoint)).map_err(lost)?;
        let (requests, outgoing) = mpsc::channel(AHEAD * 2);
        requests.send(self.hello.clone()).await.map_err(|error| lost(error.into()))?;
        let responses = client.publish(ReceiverStream::new(outgoing)).await.map_err(|status| lost(status.into()))?;
        self.call = Some(Call { requests, responses: responses.into_inner() });
        self.response().await
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

    /// Waits until everything is answered, of which nothing is to be looked at.
    pub(super) async fn settle(&mut self) -> anyhow::Result<()> {
        while self.waiting() > 0 {
            if self.answer().await?.records.is_some() {
                bail!("records were not looked at");
            }
        }
        Ok(())
    }
}
