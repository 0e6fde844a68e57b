//! The answers of one call: each goes out in its request's turn, whenever it comes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use arrow_array::ArrayRef;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int64Type};
use arrow_schema::DataType;
use futures::Stream;
use tonic::Status;

use crate::domain::outcome::{Outcome, Run, Taken};
use crate::domain::producer::Mark;
use crate::engine::budget::{self, Charge, REQUEST_BYTES};
use crate::engine::intake::Served;
use crate::engine::request::{Answer, Caller, Outputs};
use crate::ingress::proto::ingest::{self as wire, PublishResponse};
use crate::telemetry::StreamCounts;

use super::status::{self, Rejection};

/// What a refusal takes until it is sent.
pub(super) const REFUSAL_BYTES: usize = 64;
/// What a score takes, worked out and written into the answer.
pub(super) const SCORE_BYTES: usize = 8;

/// The answers of a call.
pub(super) struct Replies {
    held: Arc<budget::Call>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The ticket of the first request that is not answered.
    first: u64,
    turns: VecDeque<Turn>,
    /// Waits for an answer to go out.
    outgoing: Option<Waker>,
    /// Waits for a turn to become free.
    incoming: Option<Waker>,
    /// No request comes any more; `Err`: the call ends with this.
    ended: Option<Result<(), Status>>,
    /// Nobody waits for answers any more.
    is_gone: bool,
}

/// A request's turn.
enum Turn {
    Waits(Asked),
    Answered(Box<Reply>),
}

/// What is kept of a request until its answer goes out.
pub(super) struct Asked {
    pub(super) counts: Arc<StreamCounts>,
    pub(super) served: Option<Arc<Served>>,
    pub(super) sequence: u64,
    /// Why it was refused as a whole, before its number was spent.
    pub(super) rejection: Option<Rejection>,
    /// What it is charged until its answer is sent.
    pub(super) charge: Charge,
}

/// An answer in its turn.
pub(super) struct Reply {
    pub(super) response: PublishResponse,
    /// Why the request was refused as a whole.
    pub(super) rejection: Option<Rejection>,
    charge: Charge,
}

impl Replies {
    pub(super) fn new(held: Arc<budget::Call>) -> Self {
        Self { held, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until fewer than so many requests wait for their answers. Whether anybody still waits for answers.
    pub(super) async fn room(&self, max: usize) -> bool {
        std::future::poll_fn(|context| {
            let mut inner = self.lock();
            if inner.is_gone || inner.turns.len() < max {
                return Poll::Ready(!inner.is_gone);
            }
            inner.incoming = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// A request takes its turn. Its ticket.
    pub(super) fn ask(&self, asked: Asked) -> u64 {
        let mut inner = self.lock();
        inner.turns.push_back(Turn::Waits(asked));
        inner.first + inner.turns.len() as u64 - 1
    }

    /// No request comes any more. The first time counts.
    pub(super) fn end(&self, ended: Result<(), Status>) {
        let outgoing = {
            let mut inner = self.lock();
            inner.ended.get_or_insert(ended);
            inner.outgoing.take()
        };
        outgoing.into_iter().for_each(Waker::wake);
    }

    /// The next answer; `None` after the last.
    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Result<Reply, Status>>> {
        let (reply, incoming) = {
            let mut inner = self.lock();
            if !matches!(inner.turns.front(), Some(Turn::Answered(_))) {
                if inner.turns.is_empty() && inner.ended.is_some() {
                    let ended = inner.ended.replace(Ok(()));
                    return Poll::Ready(ended.and_then(Result::err).map(Err));
                }
                match &mut inner.outgoing {
                    Some(waker) => waker.clone_from(context.waker()),
                    none => *none = Some(context.waker().clone()),
                }
                return Poll::Pending;
            }
            inner.first += 1;
            (inner.turns.pop_front(), inner.incoming.take())
        };
        incoming.into_iter().for_each(Waker::wake);
        let Some(Turn::Answered(mut reply)) = reply else { return Poll::Pending };
        self.held.put_answered(std::mem::take(&mut reply.charge));
        Poll::Ready(Some(Ok(*reply)))
    }

    /// Nobody waits for answers any more.
    fn go(&self) {
        let incoming = {
            let mut inner = self.lock();
            inner.is_gone = true;
            inner.incoming.take()
        };
        incoming.into_iter().for_each(Waker::wake);
    }
}

impl Caller for Replies {
    fn answer(&self, ticket: u64, answer: Answer) {
        let outgoing = {
            let mut inner = self.lock();
            let Some(position) = ticket.checked_sub(inner.first).and_then(|position| usize::try_from(position).ok())
            else {
                return;
            };
            let Some(turn) = inner.turns.get_mut(position) else { return };
            if let Turn::Waits(asked) = turn {
                let reply = asked.reply(answer);
                *turn = Turn::Answered(Box::new(reply));
            }
            if position == 0 { inner.outgoing.take() } else { None }
        };
        outgoing.into_iter().for_each(Waker::wake);
    }
}

impl Asked {
    fn reply(&mut self, answer: Answer) -> Reply {
        let Answer { told, mark, is_duplicate, outputs, message } = answer;
        let mut response = PublishResponse { sequence: self.sequence, duplicate: is_duplicate, ..Default::default() };
        let rejection = match told {
            Ok(Outcome::Taken(taken)) => {
                taken_into(&mut response, &taken, mark);
                if let Some(served) = &self.served {
                    response.outputs = outputs_of(served, &outputs);
                }
                None
            }
            Ok(Outcome::Refused(refused)) => {
                // The first time the message says more than is remembered.
                let first =
                    self.rejection.take().filter(|rejection| !is_duplicate && rejection.reason == refused.reason);
                let rejection = first.unwrap_or_else(|| Rejection::repeated(refused, is_duplicate));
                Some(message.into_iter().fold(rejection, Rejection::saying))
            }
            Err(why) => {
                let why = Rejection::from(why);
                Some(self.rejection.take().filter(|rejection| rejection.reason == why.reason).unwrap_or(why))
            }
        };
        if let Some(rejection) = rejection.as_ref().filter(|_| !is_duplicate) {
            self.counts.refused.add(rejection.reason, 1);
        }
        let mut charge = std::mem::take(&mut self.charge);
        let scores = response.accepted as usize * response.outputs.len() * SCORE_BYTES;
        charge.shrink_to(response.refusals.len() * REFUSAL_BYTES + scores + REQUEST_BYTES);
        Reply { response, rejection, charge }
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

fn outputs_of(served: &Served, outputs: &Outputs) -> Vec<wire::Output> {
    let columns = outputs.columns.iter().map(|column| output(column, outputs));
    served.outputs.iter().zip(columns).map(|(field, values)| wire::Output { field: field.clone(), values }).collect()
}

fn output(column: &ArrayRef, Outputs { rows, .. }: &Outputs) -> Option<wire::output::Values> {
    use wire::output::Values;
    Some(match column.data_type() {
        DataType::Int64 => {
            let values = column.as_primitive::<Int64Type>().values().get(rows.clone())?.to_vec();
            Values::Labels(wire::Integers { values })
        }
        _ => {
            let values = column.as_primitive::<Float32Type>().values().get(rows.clone())?.to_vec();
            Values::Scores(wire::Floats { values })
        }
    })
}

/// The answers of a call as they go out.
pub(super) struct Outgoing(pub(super) Arc<Replies>);

impl Stream for Outgoing {
    type Item = Result<PublishResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll(context).map(|reply| {
            let reply = reply?.map(|Reply { mut response, rejection, .. }| {
                response.error = rejection.map(|rejection| rejection.message());
                response
            });
            Some(reply)
        })
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.0.go();
    }
}
