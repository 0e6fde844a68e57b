//! One call of `Publish`: what is sent, what is not answered yet, and when each of it was due.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::Stream;

use crate::clock::{Clock, wall_clock};
use crate::ingress::proto::ingest::PublishRequest;

use super::Plan;
use super::measured::Tally;
use super::wire::{Answer, Outgoing};

/// What all calls share.
pub(super) struct Shared {
    pub(super) plan: Plan,
    /// Records of a message.
    pub(super) records: u32,
    /// Starts with the load. With it the wall clock of that moment, in microseconds.
    begun: OnceLock<(Clock, i64)>,
    tally: Mutex<Tally>,
}

impl Shared {
    pub(super) fn new(plan: Plan, records: u32) -> anyhow::Result<Self> {
        Ok(Self { plan, records, begun: OnceLock::new(), tally: Mutex::new(Tally::new()?) })
    }

    /// Starts the clock.
    pub(super) fn begin(&self) {
        self.begun.get_or_init(|| (Clock::start(), wall_clock().as_microsecond()));
    }

    /// The time since the load began.
    pub(super) fn now(&self) -> Duration {
        self.begun.get().map_or(Duration::ZERO, |(clock, _)| clock.now())
    }

    fn wall(&self, now: Duration) -> i64 {
        let begun = self.begun.get().map_or(0, |(_, wall)| *wall);
        begun.saturating_add(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
    }

    /// What was counted.
    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call.
pub(super) struct Call {
    shared: Arc<Shared>,
    /// Which one it is, from 0.
    number: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_introduced: bool,
    is_running: bool,
    is_over: bool,
    /// At a rate: how many messages of this call are due.
    due: u64,
    /// How many messages were sent.
    sent: u64,
    /// When each message counts from that is not answered, in the order of sending.
    unanswered: VecDeque<Duration>,
    /// Wakes what sends.
    waker: Option<Waker>,
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Call {
    pub(super) fn new(shared: Arc<Shared>, number: usize) -> Self {
        Self { shared, number, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which one it is, from 0.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Whether everything was sent.
    pub(super) fn is_over(&self) -> bool {
        self.state().is_over
    }

    /// Begins to send: now, or when messages are due.
    pub(super) fn start(&self) {
        let mut state = self.state();
        state.is_running = true;
        state.wake();
    }

    /// Another message is due.
    pub(super) fn due(&self) {
        let mut state = self.state();
        state.due += 1;
        state.wake();
    }

    /// No further message becomes due; without a rate, none is sent any more.
    pub(super) fn finish(&self) {
        let mut state = self.state();
        state.is_over = true;
        state.wake();
    }

    /// Counts an answer. `false`: nothing was asked.
    pub(super) fn answered(&self, answer: &Answer) -> bool {
        let now = self.shared.now();
        let start = {
            let mut state = self.state();
            let Some(start) = state.unanswered.pop_front() else { return false };
            state.wake();
            start
        };
        let is_measured = self.shared.plan.schedule.is_measured(start);
        self.shared.tally().answered(is_measured, now, now.saturating_sub(start), answer, self.shared.records);
        true
    }

    /// Counts what was due and has no answer: it took at least until now.
    pub(super) fn give_up(&self) {
        let (now, plan) = (self.shared.now(), &self.shared.plan);
        let mut state = self.state();
        let unsent = (state.sent..state.due).filter_map(|nth| self.due_at(nth));
        let unanswered: Vec<Duration> = state.unanswered.drain(..).chain(unsent).collect();
        let mut tally = self.shared.tally();
        for start in unanswered.into_iter().filter(|start| plan.schedule.is_measured(*start)) {
            tally.unanswered(now.saturating_sub(start));
        }
    }

    /// When the nth message of this call is due: the calls take turns.
    fn due_at(&self, nth: u64) -> Option<Duration> {
        self.shared.plan.schedule.due(self.message(nth))
    }

    /// The number that the nth message of this call has among those of all calls.
    fn message(&self, nth: u64) -> u64 {
        nth * self.shared.plan.calls as u64 + self.number as u64
    }

    /// Takes the next message, if there is one to send.
    fn next(&self, state: &mut State) -> Option<Outgoing> {
        let plan = &self.shared.plan;
        if !state.is_running || state.unanswered.len() >= plan.in_flight {
            return None;
        }
        let now = self.shared.now();
        let start = if plan.schedule.rate.is_some() {
            if state.sent >= state.due {
                return None;
            }
            self.due_at(state.sent)?
        } else {
            self.closed_start(state, now)?
        };
        let nth = state.sent;
        state.sent += 1;
        state.unanswered.push_back(start);
        Some(Outgoing { head: self.head(nth), message: Some((self.message(nth), self.shared.wall(now))) })
    }

    /// Without a rate: now, if the load is not over.
    fn closed_start(&self, state: &mut State, now: Duration) -> Option<Duration> {
        let schedule = &self.shared.plan.schedule;
        let mut tally = self.shared.tally();
        if state.is_over || schedule.is_over(now, tally.begun) {
            state.is_over = true;
            return None;
        }
        tally.begun += u64::from(schedule.is_measured(now));
        Some(now)
    }

    /// The nth request without its payload. The producers of a call take turns.
    fn head(&self, nth: u64) -> PublishRequest {
        let Plan { calls, producers, epoch, scores, .. } = self.shared.plan;
        let own = ((producers - self.number - 1) / calls + 1) as u64;
        let mut head = PublishRequest { sequence: nth / own + 1, want_scores: scores, ..PublishRequest::default() };
        if own > 1 {
            head.producer = self.producer(nth % own);
            head.epoch = epoch;
        }
        head
    }

    fn producer(&self, nth: u64) -> String {
        format!("{}-{}", self.shared.plan.producer, self.message(nth))
    }

    /// The request that introduces the first producer.
    fn hello(&self) -> PublishRequest {
        let Plan { stream, epoch, .. } = &self.shared.plan;
        let (stream, producer) = (stream.clone(), self.producer(0));
        PublishRequest { stream, producer, epoch: *epoch, ..PublishRequest::default() }
    }
}

/// The requests of a call, as they come to be sent.
pub(super) struct Requests(pub(super) Arc<Call>);

impl Stream for Requests {
    type Item = Outgoing;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        let mut state = self.0.state();
        if !state.is_introduced {
            state.is_introduced = true;
            return Poll::Ready(Some(Outgoing { head: self.0.hello(), message: None }));
        }
        if let Some(request) = self.0.next(&mut state) {
            return Poll::Ready(Some(request));
        }
        if state.is_over && state.sent >= state.due {
            return Poll::Ready(None);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::{End, Schedule};
    use crate::ingress::grpc::client::Dialer;

    fn plan(calls: usize, producers: usize, rate: Option<f64>) -> Plan {
        Plan {
            dialer: Dialer::default(),
            endpoint: String::new(),
            stream: "t".to_owned(),
            producer: "p".to_owned(),
            epoch: 7,
            calls,
            connections: 1,
            producers,
            in_flight: 2,
            schedule: Schedule { rate, warm_up: Duration::ZERO, end: End::Messages(4) },
            scores: true,
            pid: None,
        }
    }

    fn call(plan: Plan, number: usize) -> Arc<Call> {
        let shared = Arc::new(Shared::new(plan, 1).unwrap());
        shared.begin();
        Arc::new(Call::new(shared, number))
    }

    fn polled(call: &Arc<Call>) -> Poll<Option<Outgoing>> {
        Pin::new(&mut Requests(Arc::clone(call))).poll_next(&mut Context::from_waker(Waker::noop()))
    }

    fn sent(call: &Arc<Call>) -> Option<PublishRequest> {
        match polled(call) {
            Poll::Ready(Some(outgoing)) => Some(outgoing.head),
            Poll::Ready(None) | Poll::Pending => None,
        }
    }

    #[test]
    fn a_call_sends_as_its_producers_in_turn_each_with_numbers_of_its_own() {
        // Producers 1, 4 and 7 of eight: p-0 to p-7.
        let call = call(plan(3, 8, None), 1);
        let hello = sent(&call).unwrap();
        assert_eq!((&*hello.stream, &*hello.producer, hello.epoch, hello.sequence), ("t", "p-1", 7, 0));
        let heads = (0..4).map(|nth| call.head(nth)).map(|head| (head.producer, head.epoch, head.sequence));
        let expected = [("p-1", 1), ("p-4", 1), ("p-7", 1), ("p-1", 2)].map(|(name, n)| (name.to_owned(), 7, n));
        assert_eq!(heads.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn only_so_many_are_in_flight_and_only_so_many_are_sent() {
        let call = call(plan(1, 1, None), 0);
        assert!(sent(&call).is_some() && polled(&call).is_pending(), "sent before the load began");
        call.start();
        let answer = Answer { accepted: 1, ..Answer::default() };
        let first = [sent(&call), sent(&call)].map(|head| head.unwrap());
        assert_eq!(first.map(|head| (head.sequence, head.producer)), [(1, String::new()), (2, String::new())]);
        assert!(polled(&call).is_pending());
        for sequence in [3, 4] {
            assert!(call.answered(&answer));
            assert_eq!(sent(&call).unwrap().sequence, sequence);
        }
        assert!(call.answered(&answer) && call.answered(&answer));
        assert!(matches!(polled(&call), Poll::Ready(None)));
        assert!(!call.answered(&answer), "an answer without a request");
    }

    #[test]
    fn at_a_rate_latencies_count_from_when_a_message_was_due() {
        let call = call(plan(1, 1, Some(1_000.0)), 0);
        assert!(sent(&call).is_some());
        call.start();
        assert!(polled(&call).is_pending(), "nothing is due yet");
        (0..4).for_each(|_| call.due());
        call.finish();
        assert!(sent(&call).is_some() && sent(&call).is_some() && polled(&call).is_pending());
        std::thread::sleep(Duration::from_millis(20));
        assert!(call.answered(&Answer::default()));
        // One is not answered, two were due and could not be sent.
        call.give_up();
        let measured = call.shared.tally().measured(Duration::ZERO, None, None);
        assert_eq!((measured.messages, measured.unanswered), (1, 3));
        assert!(measured.latencies.at(0.0) >= Duration::from_millis(16), "{:?}", measured.latencies);
    }
}
