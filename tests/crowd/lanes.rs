//! Requests on their way: several calls on several connections, each with the requests of many producers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bailiwick::ingress::proto::ingest::ingest_client::IngestClient;
use bailiwick::ingress::proto::ingest::{PublishRequest, PublishResponse};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use super::told::Told;

/// A request: its producer, and the position of the step.
pub type At = (usize, usize);

/// How requests are sent.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    /// In a call of each.
    Once,
    /// In one call, so many at a time that are not answered.
    Call(usize),
}

/// What is sent one after the other.
#[derive(Debug)]
pub struct Lane {
    pub client: IngestClient<Channel>,
    pub way: Way,
    pub requests: Vec<(At, PublishRequest)>,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    pub at: At,
    pub told: Told,
    /// Whether it says that it comes again. A call of one request that fails does not say it.
    pub is_repeat: Option<bool>,
    /// The sequence that the answer names; the series, and through which sequence it is on disk.
    pub sequence: Option<u64>,
    pub mark: Option<(u64, u64)>,
}

impl Answer {
    fn of(at: At, response: &PublishResponse) -> Self {
        let mark = response.error.is_none().then_some((response.epoch, response.durable_through));
        let (is_repeat, sequence) = (Some(response.duplicate), Some(response.sequence));
        Self { at, told: Told::of(response), is_repeat, sequence, mark }
    }
}

impl Lane {
    /// Sends all, and counts the answers. Those that came, in the order of the requests, and what ended the call early
    /// although the gateway was not killed.
    pub async fn send(
        self,
        answered: Arc<watch::Sender<usize>>,
        is_killed: Arc<AtomicBool>,
    ) -> (Vec<Answer>, Option<Status>) {
        let (way, total) = (self.way, self.requests.len());
        let (answers, mut failed) = match way {
            Way::Once => self.send_once(&answered).await,
            Way::Call(depth) => self.send_in_a_call(depth, &answered).await,
        };
        if failed.is_none() && answers.len() < total {
            failed = Some(Status::unknown("the call ended before its last answer"));
        }
        if failed.is_some() {
            // Nobody waits for those that do not come.
            answered.send_modify(|answered| *answered += total - answers.len());
        }
        (answers, failed.filter(|_| !is_killed.load(Ordering::SeqCst)))
    }

    async fn send_once(mut self, answered: &watch::Sender<usize>) -> (Vec<Answer>, Option<Status>) {
        let mut answers = Vec::new();
        for (at, request) in self.requests {
            let answer = match self.client.publish_once(request).await {
                Ok(response) => Answer::of(at, response.get_ref()),
                Err(status) => {
                    let told = Told::failed(&status);
                    // Not by the gateway: it is gone.
                    if !told.error.as_ref().is_some_and(|(reason, _)| reason.starts_with("REASON_")) {
                        return (answers, Some(status));
                    }
                    Answer { at, told, is_repeat: None, sequence: None, mark: None }
                }
            };
            answers.push(answer);
            answered.send_modify(|answered| *answered += 1);
        }
        (answers, None)
    }

    async fn send_in_a_call(
        mut self,
        depth: usize,
        answered: &watch::Sender<usize>,
    ) -> (Vec<Answer>, Option<Status>) {
        let ats: Vec<At> = self.requests.iter().map(|(at, _)| *at).collect();
        let mut left = self.requests.into_iter().map(|(_, request)| request);
        let (sender, receiver) = mpsc::unbounded_channel();
        left.by_ref().take(depth).for_each(|request| sender.send(request).unwrap());
        let mut sender = Some(sender).filter(|_| left.len() > 0);
        let mut answers = Vec::new();
        let mut responses = match self.client.publish(UnboundedReceiverStream::new(receiver)).await {
            Ok(responses) => responses.into_inner(),
            Err(status) => return (answers, Some(status)),
        };
        loop {
            match responses.message().await {
                Ok(Some(response)) => {
                    answers.push(Answer::of(ats[answers.len()], &response));
                    answered.send_modify(|answered| *answered += 1);
                    match (left.next(), &sender) {
                        // The call may be over.
                        (Some(request), Some(sender)) => sender.send(request).unwrap_or(()),
                        _ => sender = None,
                    }
                }
                Ok(None) => return (answers, None),
                Err(status) => return (answers, Some(status)),
            }
        }
    }
}
