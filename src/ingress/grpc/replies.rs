//! The answers of one call: each goes out in its request's turn, whenever it comes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use tonic::Status;

use crate::domain::outcome::Outcome;
use crate::engine::budget::{self, Charge, REQUEST_BYTES, Unsent};
use crate::engine::intake::Intake;
use crate::engine::request::{Answer, Caller, Served};
use crate::telemetry::StreamCounts;

use super::response;
use super::status::Rejection;

/// What a refusal takes until it is sent.
pub(super) const REFUSAL_BYTES: usize = 64;
/// What a score takes, worked out and written into the answer.
pub(super) const SCORE_BYTES: usize = 8;

/// How a request is answered that was refused as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusing {
    /// By a response that says so: the call goes on.
    Request,
    /// By the status of its call, which is of one request.
    Call,
}

/// The answers of a call.
pub(super) struct Replies {
    held: Arc<budget::Call>,
    /// What knows who the gateways of routes are.
    intake: Option<Arc<Intake>>,
    refusing: Refusing,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The ticket of the first request that is not answered, or whose turn has not come.
    first: u64,
    turns: VecDeque<Turn>,
    ready: Ready,
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
    Answered(Ready),
}

/// Answers as they go out, with what they are charged.
#[derive(Default)]
struct Ready {
    bytes: Vec<u8>,
    charges: Vec<Charge>,
}

/// What is kept of a request until its answer goes out.
pub(super) struct Asked {
    pub(super) counts: Arc<StreamCounts>,
    pub(super) served: Option<Arc<Served>>,
    pub(super) sequence: u64,
    /// Why it was refused as a whole, before its number was spent.
    pub(super) rejection: Option<Box<Rejection>>,
    /// What it is charged until its answer is sent.
    pub(super) charge: Charge,
}

impl Replies {
    pub(super) fn new(held: Arc<budget::Call>, refusing: Refusing) -> Self {
        Self { held, intake: None, refusing, inner: Mutex::default() }
    }

    /// The same, which say of routes who the gateways there are.
    pub(super) fn knowing(self, intake: Arc<Intake>) -> Self {
        Self { intake: Some(intake), ..self }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until fewer than so many answers are still to be taken. Whether anybody still waits for answers.
    pub(super) async fn room(&self, max: usize) -> bool {
        std::future::poll_fn(|context| {
            let mut inner = self.lock();
            if inner.is_gone || inner.turns.len() + inner.ready.charges.len() < max {
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

    /// All answers whose turn has come; after the last of them how the call ends, once.
    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Result<Ready, Status>>> {
        let (ready, incoming) = {
            let mut inner = self.lock();
            if inner.ready.charges.is_empty() {
                if inner.turns.is_empty() && inner.ended.is_some() {
                    return Poll::Ready(inner.ended.clone().and_then(Result::err).map(Err));
                }
                match &mut inner.outgoing {
                    Some(waker) => waker.clone_from(context.waker()),
                    none => *none = Some(context.waker().clone()),
                }
                return Poll::Pending;
            }
            (std::mem::take(&mut inner.ready), inner.incoming.take())
        };
        incoming.into_iter().for_each(Waker::wake);
        Poll::Ready(Some(Ok(ready)))
    }

    /// Nobody waits for answers any more. What those that are there are charged is given back: the call's own reader may
    /// wait for it.
    fn go(&self) {
        let (incoming, dropped) = {
            let mut inner = self.lock();
            inner.is_gone = true;
            let mut dropped = vec![std::mem::take(&mut inner.ready)];
            for turn in &mut inner.turns {
                if let Turn::Answered(answer) = turn {
                    dropped.push(std::mem::take(answer));
                }
            }
            (inner.incoming.take(), dropped)
        };
        drop(dropped);
        incoming.into_iter().for_each(Waker::wake);
    }
}

impl Caller for Replies {
    fn answer(&self, ticket: u64, answer: Answer) {
        // Given back after the lock, when nobody waits for the answer any more.
        let mut early = Ready::default();
        let outgoing = {
            let mut guard = self.lock();
            let inner = &mut *guard;
            let Some(position) = ticket.checked_sub(inner.first).and_then(|position| usize::try_from(position).ok())
            else {
                return;
            };
            let Some(turn) = inner.turns.get_mut(position) else { return };
            let Turn::Waits(asked) = turn else { return };
            let goes_out = position == 0 && !inner.is_gone;
            let to = if goes_out { &mut inner.ready } else { &mut early };
            let refused = asked.answer_into(answer, to, self.refusing, self.intake.as_deref());
            if let Some(refused) = refused.filter(|_| !matches!(inner.ended, Some(Err(_)))) {
                inner.ended = Some(Err(refused.status()));
            }
            if position > 0 {
                *turn = Turn::Answered(if inner.is_gone { Ready::default() } else { std::mem::take(&mut early) });
                return;
            }
            loop {
                inner.turns.pop_front();
                inner.first += 1;
                let Some(Turn::Answered(next)) = inner.turns.front_mut() else { break };
                inner.ready.bytes.append(&mut next.bytes);
                inner.ready.charges.append(&mut next.charges);
            }
            inner.outgoing.take()
        };
        outgoing.into_iter().for_each(Waker::wake);
    }
}

impl Asked {
    /// Adds the answer to those that go out. It is given back if the call is to be refused by it.
    fn answer_into(
        &mut self,
        answer: Answer,
        to: &mut Ready,
        refusing: Refusing,
        intake: Option<&Intake>,
    ) -> Option<Rejection> {
        let Answer { told, mark, is_duplicate, outputs, message } = answer;
        let mut response = response::Response { sequence: self.sequence, is_duplicate, taken: None, rejection: None };
        match &told {
            Ok(Outcome::Taken(taken)) => {
                let outputs = self.served.as_deref().map(|served| (served, &outputs));
                response.taken = Some(response::Accepted { taken, mark, outputs, intake });
            }
            Ok(Outcome::Refused(refused)) => {
                // The first time the message says more than is remembered.
                let first =
                    self.rejection.take().filter(|rejection| !is_duplicate && rejection.reason == refused.reason);
                let rejection =
                    first.map_or_else(|| Rejection::repeated(refused.clone(), is_duplicate), |first| *first);
                response.rejection = Some(message.into_iter().fold(rejection, Rejection::saying));
            }
            Err(why) => {
                let why = Rejection::from(*why);
                let first = self.rejection.take().filter(|rejection| rejection.reason == why.reason);
                response.rejection = Some(first.map_or(why, |first| *first));
            }
        }
        if let Some(rejection) = response.rejection.as_ref().filter(|_| !is_duplicate) {
            self.counts.refused.add(rejection.reason, 1);
        }
        let mut charge = std::mem::take(&mut self.charge);
        if refusing == Refusing::Call && response.rejection.is_some() {
            return response.rejection;
        }
        let before = to.bytes.len();
        response.encode(&mut to.bytes);
        let refusals = response.refusals() * REFUSAL_BYTES;
        charge.shrink_to(to.bytes.len() - before + refusals + REQUEST_BYTES);
        to.charges.push(charge);
        None
    }
}

/// The body of a response: the answers of a call as they go out. What they are charged is given back when HTTP/2 has sent
/// them.
pub(super) struct Outgoing {
    replies: Arc<Replies>,
    has_ended: bool,
}

impl Outgoing {
    pub(super) fn new(replies: Arc<Replies>) -> Self {
        Self { replies, has_ended: false }
    }
}

/// Bytes of a frame, with what they are charged.
struct Charged {
    bytes: Vec<u8>,
    _unsent: Unsent,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let ended = match ready!(self.replies.poll(context)) {
            Some(Ok(Ready { bytes, charges })) => {
                let unsent = self.replies.held.unsent(charges);
                let bytes = Bytes::from_owner(Charged { bytes, _unsent: unsent });
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.has_ended = true;
        let mut trailers = HeaderMap::new();
        // A status that cannot be said in headers is one that says so.
        if let Err(status) = ended.add_header(&mut trailers) {
            status.add_header(&mut trailers)?;
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.replies.go();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::domain::refusal::Reason;
    use crate::engine::budget::{Budget, Needs};

    const MIB: usize = 1 << 20;
    /// What a call may hold.
    const SHARE: usize = 10 * MIB;

    fn call() -> Arc<budget::Call> {
        Arc::new(Budget::new(Needs { bytes: 128 * MIB, message_max: MIB, decoded_max: MIB })).line().call()
    }

    fn asked(held: &budget::Call, bytes: usize) -> Asked {
        let charge = held.work(bytes).now_or_never().unwrap();
        Asked { counts: Arc::default(), served: None, sequence: 1, rejection: None, charge }
    }

    fn refused() -> Answer {
        Answer::unaccepted(Reason::Stopping.into())
    }

    /// A producer that goes away while its call's reader waits for room that its own answers hold.
    #[test]
    fn what_answers_are_charged_comes_back_when_nobody_waits_for_them() {
        let held = call();
        let replies = Arc::new(Replies::new(Arc::clone(&held), Refusing::Request));
        let outgoing = Outgoing::new(Arc::clone(&replies));
        let tickets: Vec<u64> = (0..4).map(|_| replies.ask(asked(&held, SHARE / 4))).collect();
        // One whose turn has come, one that is early, and two that come when nobody waits any more.
        replies.answer(tickets[0], refused());
        replies.answer(tickets[2], refused());
        assert!(held.work(SHARE).now_or_never().is_none());
        drop(outgoing);
        replies.answer(tickets[3], refused());
        replies.answer(tickets[1], refused());
        assert!(held.work(SHARE).now_or_never().is_some(), "all is given back");
        assert!(!replies.room(1).now_or_never().unwrap(), "nothing more is read");
    }

    #[test]
    fn answers_go_out_in_the_order_of_their_requests_as_many_as_there_are() {
        let held = call();
        let replies = Arc::new(Replies::new(Arc::clone(&held), Refusing::Request));
        let mut outgoing = Outgoing::new(Arc::clone(&replies));
        let tickets: Vec<u64> =
            (0..3).map(|number| replies.ask(Asked { sequence: number + 1, ..asked(&held, REQUEST_BYTES) })).collect();
        let mut next =
            || futures::future::poll_fn(|context| Pin::new(&mut outgoing).poll_frame(context)).now_or_never();
        replies.answer(tickets[2], refused());
        replies.answer(tickets[1], refused());
        assert!(next().is_none(), "the first is not there");
        replies.answer(tickets[0], refused());
        replies.end(Ok(()));
        let frame = next().unwrap().unwrap().unwrap().into_data().unwrap();
        let mut rest = &frame[..];
        let mut sequences = Vec::new();
        while let Some((header, after)) = rest.split_first_chunk::<5>() {
            let length = u32::from_be_bytes(header[1..].try_into().unwrap()) as usize;
            let response: crate::ingress::proto::ingest::PublishResponse =
                prost::Message::decode(&after[..length]).unwrap();
            sequences.push(response.sequence);
            rest = &after[length..];
        }
        assert_eq!(sequences, [1, 2, 3]);
        let trailers = next().unwrap().unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        assert!(next().unwrap().is_none());
    }
}
