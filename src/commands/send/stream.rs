//! A pipelined call of `Publish`, and those that records are sent on by.

use std::collections::{BTreeMap, VecDeque};
use std::sync::PoisonError;

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::adapters::grpc::client;
use crate::adapters::grpc::proto::ingest::{PublishRequest, PublishResponse, Reason, Refusal};

use super::{Input, Options, Records, SharedTotals, Totals};

/// How many requests are sent ahead of their responses.
const AHEAD: usize = 8;

/// How records are counted that belong to a gateway which does not answer.
const UNREACHABLE: &str = "belongs_elsewhere, unreachable:";

/// One call to one gateway.
struct Line {
    requests: mpsc::Sender<PublishRequest>,
    responses: Streaming<PublishResponse>,
    unanswered: VecDeque<Records>,
    sequence: u64,
}

/// Sends all records of the inputs, follows routes if asked to, and waits for every answer.
///
/// # Errors
/// When an input cannot be read or a gateway goes away.
pub async fn publish(inputs: Vec<Input>, options: &Options, totals: &SharedTotals) -> anyhow::Result<()> {
    let mut home = Line::open(&options.endpoint, options).await?;
    let mut routes = BTreeMap::new();
    for input in inputs {
        for records in input.open(options.batch, &options.text)? {
            let records = records?;
            update(totals, |totals| totals.read += records.len() as u64);
            home.send(records, totals).await?;
            while home.unanswered.len() >= AHEAD {
                home.answer(options, totals, Some(&mut routes)).await?;
            }
        }
    }
    while !home.unanswered.is_empty() {
        home.answer(options, totals, Some(&mut routes)).await?;
    }
    for line in routes.values_mut() {
        while !line.unanswered.is_empty() {
            line.answer(options, totals, None).await?;
        }
    }
    if options.complete {
        home.complete().await?;
        for line in routes.values_mut() {
            line.complete().await?;
        }
    }
    Ok(())
}

fn update(totals: &SharedTotals, change: impl FnOnce(&mut Totals)) {
    change(&mut totals.lock().unwrap_or_else(PoisonError::into_inner));
}

impl Line {
    async fn open(endpoint: &str, options: &Options) -> anyhow::Result<Self> {
        let mut client =
            client::connect(endpoint).await.with_context(|| format!("no gateway answers at {endpoint}"))?;
        let (requests, outgoing) = mpsc::channel(AHEAD);
        let hello = PublishRequest {
            stream: options.stream.clone(),
            producer: options.producer.clone(),
            ..PublishRequest::default()
        };
        requests.send(hello).await?;
        let responses = client.publish(ReceiverStream::new(outgoing)).await?.into_inner();
        let mut line = Self { requests, responses, unanswered: VecDeque::new(), sequence: 0 };
        line.response().await?;
        Ok(line)
    }

    async fn send(&mut self, records: Records, totals: &SharedTotals) -> anyhow::Result<()> {
        self.sequence += 1;
        let payload = records.payload()?;
        let request = PublishRequest { sequence: self.sequence, payload: Some(payload), ..PublishRequest::default() };
        update(totals, |totals| totals.bytes += prost::Message::encoded_len(&request) as u64);
        self.unanswered.push_back(records);
        self.requests.send(request).await.map_err(|_| anyhow!("the gateway ended the call"))
    }

    async fn response(&mut self) -> anyhow::Result<PublishResponse> {
        let response = self.responses.message().await?.ok_or_else(|| anyhow!("the gateway ended the call"))?;
        match &response.error {
            None => Ok(response),
            Some(error) => Err(anyhow!("request {} was refused: {}", response.sequence, error.message)),
        }
    }

    /// Takes one response. Records that belong elsewhere are sent on by `routes`; what is refused there is
    /// refused for good.
    async fn answer(
        &mut self,
        options: &Options,
        totals: &SharedTotals,
        routes: Option<&mut BTreeMap<String, Self>>,
    ) -> anyhow::Result<()> {
        let response = self.response().await?;
        let records = self.unanswered.pop_front().context("a response without a request")?;
        update(totals, |totals| totals.accepted += u64::from(response.accepted));
        let mut elsewhere: BTreeMap<(String, String), Vec<u32>> = BTreeMap::new();
        for refusal in response.refusals {
            match (&refusal.route, routes.is_some() && options.follow) {
                (Some(route), true) => {
                    let key = (route.endpoint.clone(), route.gateway.clone());
                    elsewhere.entry(key).or_default().push(refusal.index);
                }
                _ => update(totals, |totals| *totals.refused.entry(reason(&refusal)).or_default() += 1),
            }
        }
        let Some(routes) = routes else { return Ok(()) };
        for ((endpoint, gateway), positions) in elsewhere {
            let count = positions.len() as u64;
            if !routes.contains_key(&endpoint) {
                match Self::open(&endpoint, options).await {
                    Ok(line) => routes.insert(endpoint.clone(), line),
                    Err(error) => {
                        tracing::warn!(
                            error = format!("{error:#}"),
                            gateway,
                            count,
                            "records that belong elsewhere were not sent on"
                        );
                        update(totals, |totals| {
                            *totals.refused.entry(format!("{UNREACHABLE} {gateway}")).or_default() += count
                        });
                        continue;
                    }
                };
            }
            let Some(line) = routes.get_mut(&endpoint) else { continue };
            update(totals, |totals| *totals.redirected.entry(gateway).or_default() += count);
            line.send(records.select(&positions)?, totals).await?;
            while line.unanswered.len() >= AHEAD {
                Box::pin(line.answer(options, totals, None)).await?;
            }
        }
        Ok(())
    }

    /// Promises that nothing earlier than now will come.
    async fn complete(&mut self) -> anyhow::Result<()> {
        let complete_through = Timestamp::now().as_microsecond();
        let promise = PublishRequest { complete_through, ..PublishRequest::default() };
        self.requests.send(promise).await.map_err(|_| anyhow!("the gateway ended the call"))?;
        self.response().await.map(|_| ())
    }
}

fn reason(refusal: &Refusal) -> String {
    let reason = Reason::try_from(refusal.reason).unwrap_or_default();
    reason.as_str_name().trim_start_matches("REASON_").to_ascii_lowercase()
}
