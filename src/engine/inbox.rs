//! What has arrived for a worker and waits for it. What comes while one batch is worked on, or written to the disk, is the
//! next one: no timer decides when a batch is full.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use tokio::sync::Notify;

use crate::clock::Clock;

use super::request::{Boxed, Content, Request};

/// The requests that wait for one worker, in the order in which they came.
pub struct Inbox {
    clock: Clock,
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Boxed>,
    /// The records of all of them.
    rows: usize,
    /// The worker is to be woken when there are so many.
    wanted: usize,
}

impl Waiting {
    fn pop(&mut self) -> Option<Boxed> {
        let request = self.requests.pop_front()?;
        self.rows -= size_of(&request).0;
        Some(request)
    }

    fn put_back(&mut self, request: Boxed) {
        self.rows += size_of(&request).0;
        self.requests.push_front(request);
    }
}

/// The most bytes of decoded records in a batch, unless it is one request.
const BYTES_MAX: usize = 16 << 20;
/// So many requests of other streams are passed over to find some for a batch.
const PASSED_MAX: usize = 4_096;

impl Inbox {
    /// Nothing waits.
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, waiting: Mutex::default(), arrived: Notify::default() }
    }

    /// A request has arrived.
    pub fn push(&self, mut request: Boxed) {
        request.arrived = self.clock.now();
        let mut waiting = self.lock();
        waiting.rows += size_of(&request).0;
        waiting.requests.push_back(request);
        let is_enough = waiting.rows >= waiting.wanted;
        drop(waiting);
        if is_enough {
            self.arrived.notify_one();
        }
    }

    /// Comes when so many records are waiting, of requests that have none one each.
    pub(super) async fn holds(&self, rows: usize) {
        loop {
            {
                let mut waiting = self.lock();
                waiting.wanted = rows;
                if waiting.rows >= rows {
                    return;
                }
            }
            self.arrived.notified().await;
        }
    }

    /// Puts requests back before all others, in the order in which they came. They keep the time at which they arrived.
    pub(super) fn put_back(&self, mut requests: Vec<Boxed>) {
        // A batch that is tried again may leave out an earlier one after a later one.
        requests.sort_by_key(|request| (request.arrived, request.reply.ticket()));
        let mut waiting = self.lock();
        requests.into_iter().rev().for_each(|request| waiting.put_back(request));
    }

    /// Takes requests of one stream that may share a batch of so many records at most. A request that is larger is
    /// alone. No request overtakes another one of its caller.
    pub(super) fn take(&self, rows_max: usize) -> Vec<Boxed> {
        let mut waiting = self.lock();
        let (mut taken, mut left): (Vec<Boxed>, VecDeque<Boxed>) = (Vec::new(), VecDeque::new());
        let mut callers_left: HashSet<usize, RandomState> = HashSet::default();
        let (mut rows, mut bytes) = (0, 0);
        while let Some(next) = waiting.pop() {
            let (more_rows, more_bytes) = size_of(&next);
            if let Some(first) = taken.first() {
                let caller = next.reply.caller();
                if callers_left.contains(&caller) || !is_of_stream_of(first, &next) {
                    callers_left.insert(caller);
                    left.push_back(next);
                    if left.len() == PASSED_MAX {
                        break;
                    }
                    continue;
                }
                if is_alone(&next) || rows + more_rows > rows_max || bytes + more_bytes > BYTES_MAX {
                    waiting.put_back(next);
                    break;
                }
            }
            let is_last = is_alone(&next);
            (rows, bytes) = (rows + more_rows, bytes + more_bytes);
            taken.push(next);
            if is_last {
                break;
            }
        }
        while let Some(next) = left.pop_back() {
            waiting.put_back(next);
        }
        taken
    }

    /// How many requests wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().requests.len()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many records and bytes of a batch a request takes. One without records takes its line in the table.
fn size_of(request: &Request) -> (usize, usize) {
    match &request.content {
        Content::Records(opened) => (opened.rows().max(1), opened.bytes()),
        Content::Decided(resident, _) => (resident.batch().rows().max(1), 0),
        Content::Nothing | Content::Refused(_) => (1, 0),
    }
}

fn is_alone(request: &Request) -> bool {
    matches!(request.content, Content::Decided(..))
}

fn is_of_stream_of(one: &Request, other: &Request) -> bool {
    match (&one.served, &other.served) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::producer::{Number, ProducerName};
    use crate::engine::request::{Answer, Caller, Origin, Reply, Served};
    use crate::telemetry::StreamCounts;

    struct Nobody;

    impl Caller for Nobody {
        fn answer(&self, _: u64, _: Answer) {}
    }

    fn served() -> Arc<Served> {
        let stream = crate::decode::test_stream(&[], crate::domain::stream::Undeclared::Drop);
        Arc::new(Served { stream, outputs: Vec::new(), counts: Arc::new(StreamCounts::default()) })
    }

    /// So many requests of one caller.
    fn holding(count: u64) -> Inbox {
        let caller: Arc<dyn Caller> = Arc::new(Nobody);
        let inbox = Inbox::new(Clock::start());
        for ticket in 0..count {
            let origin = Arc::new(Origin::of(ProducerName::new("p").unwrap(), None));
            let reply = Reply::new(Arc::clone(&caller), ticket);
            inbox.push(Box::new(Request::new(None, origin, None, Content::Nothing, reply)));
        }
        inbox
    }

    #[test]
    fn a_request_that_is_put_back_keeps_the_time_at_which_it_arrived() {
        let inbox = holding(2);
        let arrived = |requests: &[Boxed]| requests.iter().map(|request| request.arrived).collect::<Vec<_>>();
        let taken = inbox.take(2);
        let first = arrived(&taken);
        assert!(Duration::ZERO < first[0] && first[0] <= first[1], "{first:?}");
        inbox.put_back(taken);
        assert_eq!(arrived(&inbox.take(2)), first);
    }

    #[test]
    fn requests_that_are_put_back_in_another_order_stay_in_theirs() {
        let inbox = holding(3);
        let mut taken = inbox.take(3);
        // As if they had come at the same time.
        taken.iter_mut().for_each(|request| request.arrived = Duration::ZERO);
        taken.reverse();
        inbox.put_back(taken);
        let tickets: Vec<u64> = inbox.take(3).iter().map(|request| request.reply.ticket()).collect();
        assert_eq!(tickets, [0, 1, 2]);
    }

    proptest! {
        /// Whatever is taken is of one stream and within the limit, nothing overtakes another request of its caller, and
        /// all comes in the end.
        #[test]
        fn requests_of_a_caller_stay_in_order(
            arriving in prop::collection::vec((0..4_usize, 0..3_usize, any::<bool>()), 0..60),
            rows_max in 1..20_usize,
        ) {
            let callers: Vec<Arc<dyn Caller>> = (0..4).map(|_| Arc::new(Nobody) as _).collect();
            let streams = [Some(served()), Some(served()), None];
            let (inbox, mut pushed, mut came) = (Inbox::new(Clock::start()), BTreeMap::new(), BTreeMap::new());
            let mut take = || {
                let taken = inbox.take(rows_max);
                prop_assert!(taken.len() <= rows_max);
                prop_assert!(taken.iter().all(|request| is_of_stream_of(&taken[0], request)));
                for request in &taken {
                    came.entry(request.reply.caller()).or_insert_with(Vec::new).push(request.number.unwrap().sequence);
                }
                Ok(taken.len())
            };
            let mut left = arriving.len();
            for (at, (caller, stream, takes)) in (0..).zip(arriving) {
                let origin = Arc::new(Origin::of(ProducerName::new("p").unwrap(), None));
                let number = Number { epoch: 1, sequence: at };
                let reply = Reply::new(Arc::clone(&callers[caller]), at);
                pushed.entry(reply.caller()).or_insert_with(Vec::new).push(at);
                let request = Request::new(streams[stream].clone(), origin, Some(number), Content::Nothing, reply);
                inbox.push(Box::new(request));
                if takes {
                    left -= take()?;
                }
            }
            while left > 0 {
                let taken = take()?;
                prop_assert!(taken > 0, "{left} are left");
                left -= taken;
            }
            prop_assert_eq!(pushed, came);
        }
    }
}
