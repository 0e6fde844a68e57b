//! The one bound on the memory that requests make the process hold.
//!
//! What is held is charged before it is held, and until the answer has been sent. There are four pots, each with a part
//! of the budget, and a rule that keeps them from waiting for each other: **whoever waits for a pot holds nothing of that
//! pot or of a later one**, and whoever holds something lets go of it without waiting for an earlier pot.
//!
//! | pot | what is charged | part | until |
//! | --- | --- | --- | --- |
//! | small messages | twice the length that a message says it has, while it arrives | 1/16 | it is decoded |
//! | large messages | the same, above 1/256 of the budget | 1/4 | it is decoded |
//! | kept | the dictionaries of a Flight call; never waited for | 1/16 | the call ends |
//! | work | decoded records, and then their answer | 5/8 | the records are on disk, the answer is sent |
//!
//! An identity gets at most a part of each pot, over all its connections, and a call at most a part of that. A client that
//! stops sending or reading stops only itself. A connection that has proved no identity is one by itself. A message that
//! stops arriving is given up by its call, a connection that takes no answers while others wait is cut ([`Line::is_stuck`]).

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use foldhash::fast::RandomState;
use tokio::sync::Notify;

mod pot;

use pot::Pot;

/// What every request takes beside its records: names, numbers, its place in the queues, its answer.
pub const REQUEST_BYTES: usize = 1 << 10;

/// The most calls at a time, of all connections: each takes some kilobytes before it says anything.
const CALLS_MAX: usize = 16_384;

/// What has to fit at least.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// The bytes of all pots.
    pub bytes: usize,
    /// The longest message.
    pub message_max: usize,
    /// The most that the records of one request take.
    pub decoded_max: usize,
}

/// The budget of a gateway.
#[derive(Debug)]
pub struct Budget {
    small: Arc<Pot>,
    large: Arc<Pot>,
    kept: Arc<Pot>,
    work: Arc<Pot>,
    /// The longest message that goes into the small pot.
    small_max: usize,
    /// The most of these pots that an identity holds.
    small_share: usize,
    large_share: usize,
    work_share: usize,
    /// The shares of the identities that are here.
    shares: Mutex<HashMap<String, Weak<Share>, RandomState>>,
    calls: Arc<Pot>,
    /// How many wait.
    waiting: AtomicUsize,
}

/// A number of bytes as pots count them.
fn size(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl Budget {
    /// A budget in which the longest message and the largest request fit, even if it is made larger by that.
    #[must_use]
    pub fn new(needs: Needs) -> Self {
        let Needs { bytes, message_max, decoded_max } = needs;
        let (small, small_max) = (bytes / 16, bytes / 256);
        let small_share = (small / 4).max(while_arriving(small_max));
        let large_share = (bytes / 8).max(while_arriving(message_max));
        let work_share = (bytes / 16 * 5).max(decoded_max + REQUEST_BYTES);
        Self {
            small: Pot::new(small.max(small_share)),
            large: Pot::new((bytes / 4).max(2 * large_share)),
            kept: Pot::new((bytes / 16).max(message_max)),
            work: Pot::new((bytes / 8 * 5).max(work_share)),
            small_max,
            small_share,
            large_share,
            work_share,
            shares: Mutex::default(),
            calls: Pot::new(CALLS_MAX),
            waiting: AtomicUsize::new(0),
        }
    }

    /// A connection.
    #[must_use]
    pub fn line(self: &Arc<Self>) -> Arc<Line> {
        Arc::new(Line {
            budget: Arc::clone(self),
            large: Pot::new(1),
            share: self.new_share(),
            unsent: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            cut: Notify::new(),
        })
    }

    fn new_share(&self) -> Arc<Share> {
        let [small, large, work] = [self.small_share, self.large_share, self.work_share].map(Pot::new);
        Arc::new(Share { small, large, work })
    }

    /// The share of an identity: one for all its connections.
    #[must_use]
    pub fn share_of(&self, identity: &str) -> Arc<Share> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(identity).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = self.new_share();
        shares.insert(identity.to_owned(), Arc::downgrade(&share));
        share
    }

    /// Whether anybody waits for it.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        self.waiting() > 0
    }

    /// How many wait for it.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// What a message is charged while it arrives: itself, and a copy of it that is made when it is put together or aligned.
const fn while_arriving(bytes: usize) -> usize {
    bytes.saturating_mul(2).saturating_add(REQUEST_BYTES)
}

/// The part of the budget that an identity has.
#[derive(Debug)]
pub struct Share {
    small: Arc<Pot>,
    large: Arc<Pot>,
    work: Arc<Pot>,
}

/// The calls of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallsOfLine {
    /// How many are open.
    pub open: usize,
    /// How many have begun.
    pub begun: u64,
}

/// A connection, as it takes from the budget.
#[derive(Debug)]
pub struct Line {
    budget: Arc<Budget>,
    /// One large message at a time.
    large: Arc<Pot>,
    /// What it takes from while nobody has proved an identity on it.
    share: Arc<Share>,
    /// Parts of answers that were given to HTTP/2 and are not sent.
    unsent: AtomicUsize,
    /// How many were sent.
    sent: AtomicUsize,
    /// Calls that are open, and those that have begun.
    open: AtomicUsize,
    begun: AtomicU64,
    cut: Notify,
}

impl Line {
    /// A call of this connection, which nobody has proved to be his.
    #[must_use]
    pub fn call(self: &Arc<Self>) -> Arc<Call> {
        self.call_of(&self.share)
    }

    /// A call of this connection, of an identity.
    #[must_use]
    pub fn call_of(self: &Arc<Self>, share: &Arc<Share>) -> Arc<Call> {
        let own = Pot::new(self.budget.work_share / 4);
        let rooms = Arc::new(Rooms { own, share: Arc::clone(share), line: Arc::clone(self) });
        self.open.fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        let place = self.budget.calls.try_take(1).then(|| Charge::new(&rooms, Step::Begin, [1, 0, 0]));
        Arc::new(Call { rooms, place, arrived: Mutex::default(), answered: Mutex::default() })
    }

    /// How many calls it has and had.
    #[must_use]
    pub fn calls(&self) -> CallsOfLine {
        CallsOfLine { open: self.open.load(Ordering::Relaxed), begun: self.begun.load(Ordering::Relaxed) }
    }

    /// Whether it has taken no part of an answer since `sent_before`, although some are there for it. How many it has
    /// taken by now.
    #[must_use]
    pub fn is_stuck(&self, sent_before: usize) -> (bool, usize) {
        let sent = self.sent.load(Ordering::Relaxed);
        (self.unsent.load(Ordering::Relaxed) > 0 && sent == sent_before, sent)
    }

    /// Ends the connection.
    pub fn cut(&self) {
        self.cut.notify_one();
    }

    /// Comes when the connection is to end.
    pub async fn is_cut(&self) {
        self.cut.notified().await;
    }
}

/// A call: what has arrived for it, and what is to be sent.
#[derive(Debug)]
pub struct Call {
    rooms: Arc<Rooms>,
    /// `None`: there are too many calls.
    place: Option<Charge>,
    /// The charges of messages that are whole, and that the service has not taken yet.
    arrived: Mutex<VecDeque<Charge>>,
    /// The charges of answers that the service has given, and that are not in a frame yet.
    answered: Mutex<Vec<Charge>>,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.rooms.line.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The pots that a call takes from.
#[derive(Debug)]
struct Rooms {
    /// Of this call alone.
    own: Arc<Pot>,
    share: Arc<Share>,
    line: Arc<Line>,
}

/// What is charged of a call, and so from which pots.
#[derive(Debug, Clone, Copy)]
enum Step {
    Begin,
    Small,
    Large,
    Keep,
    Work,
}

impl Rooms {
    /// The pots of a step, in the order in which they are taken from.
    fn pots(&self, step: Step) -> [Option<&Arc<Pot>>; 3] {
        let (share, line, budget) = (&self.share, &self.line, &self.line.budget);
        match step {
            Step::Begin => [Some(&budget.calls), None, None],
            Step::Small => [Some(&share.small), Some(&budget.small), None],
            Step::Large => [Some(&line.large), Some(&share.large), Some(&budget.large)],
            Step::Keep => [Some(&budget.kept), None, None],
            Step::Work => [Some(&self.own), Some(&share.work), Some(&budget.work)],
        }
    }

    /// Takes from the pots of a step, if there is room in all of them. What is larger than a pot has all of it to itself.
    fn try_charge(self: &Arc<Self>, step: Step, bytes: u32) -> Option<Charge> {
        let mut charge = Charge::new(self, step, [0; 3]);
        let held = charge.0.as_mut()?;
        for (pot, held) in self.pots(step).into_iter().zip(&mut held.bytes) {
            let Some(pot) = pot else { break };
            let bytes = bytes.min(pot.all());
            if !pot.try_take(bytes) {
                return None;
            }
            *held = bytes;
        }
        Some(charge)
    }

    async fn charge(self: &Arc<Self>, step: Step, bytes: u32) -> Charge {
        let mut charge = Charge::new(self, step, [0; 3]);
        let Some(held) = charge.0.as_mut() else { return charge };
        for (pot, held) in self.pots(step).into_iter().zip(&mut held.bytes) {
            let Some(pot) = pot else { break };
            let bytes = bytes.min(pot.all());
            if !pot.try_take(bytes) {
                let _waiting = Waiting::new(&self.line.budget.waiting);
                pot.take(bytes).await;
            }
            *held = bytes;
        }
        charge
    }
}

/// Bytes that are held; given back when it is dropped.
#[derive(Debug, Default)]
pub struct Charge(Option<Held>);

#[derive(Debug)]
struct Held {
    rooms: Arc<Rooms>,
    step: Step,
    /// Of each pot of the step.
    bytes: [u32; 3],
}

impl Drop for Held {
    fn drop(&mut self) {
        for (pot, bytes) in self.rooms.pots(self.step).into_iter().zip(self.bytes) {
            if let Some(pot) = pot.filter(|_| bytes > 0) {
                pot.give(bytes);
            }
        }
    }
}

/// A part of a charge that is smaller is not given back before the rest: most requests are of one record, and each part
/// costs as much time as its record.
const PART_BYTES_MIN: usize = 4 << 10;

impl Charge {
    fn new(rooms: &Arc<Rooms>, step: Step, bytes: [u32; 3]) -> Self {
        Self(Some(Held { rooms: Arc::clone(rooms), step, bytes }))
    }

    /// Takes a part of it off, unless it is too small a part.
    #[must_use]
    pub fn split_off(&mut self, bytes: usize) -> Self {
        self.split(bytes, |held| size(bytes).min(held))
    }

    /// Gives back what is above so many bytes, unless that is too small a part.
    pub fn shrink_to(&mut self, bytes: usize) {
        let above = |held: u32| held.saturating_sub(size(bytes));
        let most = self.0.as_ref().map_or(0, |held| held.bytes.into_iter().map(above).max().unwrap_or(0));
        drop(self.split(most as usize, above));
    }

    /// Takes off a part of the bytes that it holds of each pot.
    fn split(&mut self, bytes: usize, part: impl Fn(u32) -> u32) -> Self {
        let Some(held) = self.0.as_mut().filter(|_| bytes >= PART_BYTES_MIN) else { return Self::default() };
        let parts = held.bytes.map(&part);
        for (held, part) in held.bytes.iter_mut().zip(parts) {
            *held -= part;
        }
        Self::new(&held.rooms, held.step, parts)
    }
}

impl Call {
    /// Whether it is one too many.
    #[must_use]
    pub fn is_too_many(&self) -> bool {
        self.place.is_none()
    }

    /// Charges a message that begins to arrive, if it can be charged at once.
    #[must_use]
    pub fn try_arrive(&self, bytes: usize) -> Option<Charge> {
        self.rooms.try_charge(self.arriving(bytes), size(while_arriving(bytes)))
    }

    /// Charges a message that begins to arrive. Waits for room; the call holds nothing else of a message.
    pub async fn arrive(self: Arc<Self>, bytes: usize) -> Charge {
        self.rooms.charge(self.arriving(bytes), size(while_arriving(bytes))).await
    }

    fn arriving(&self, bytes: usize) -> Step {
        if bytes <= self.rooms.line.budget.small_max { Step::Small } else { Step::Large }
    }

    /// A message is whole: its charge waits for the service that takes it.
    pub fn put_arrived(&self, charge: Charge) {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).push_back(charge);
    }

    /// The charge of the message that was taken. Messages are taken in the order in which they came.
    #[must_use]
    pub fn take_arrived(&self) -> Charge {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or_default()
    }

    /// Charges a request's records and its answer. Waits for room; one that is larger than a share is worked on alone.
    pub async fn work(&self, bytes: usize) -> Charge {
        match self.rooms.try_charge(Step::Work, size(bytes)) {
            Some(charge) => charge,
            None => self.rooms.charge(Step::Work, size(bytes)).await,
        }
    }

    /// Charges what a call keeps until its end. It replaces what the call kept before. `None`: there is no room.
    #[must_use]
    pub fn keep(&self, bytes: usize) -> Option<Charge> {
        let kept = &self.rooms.line.budget.kept;
        self.rooms.try_charge(Step::Keep, size(bytes)).filter(|_| size(bytes) <= kept.all())
    }

    /// An answer is given to the transport; the next frame of the call holds it.
    pub fn put_answered(&self, charge: Charge) {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).push(charge);
    }

    /// The charges of the answers that the next frame of the call holds.
    #[must_use]
    pub fn take_answered(&self) -> Vec<Charge> {
        std::mem::take(&mut *self.answered.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A frame that holds answers of these charges; they are given back when it has been sent.
    #[must_use]
    pub fn unsent(&self, charges: Vec<Charge>) -> Unsent {
        let line = &self.rooms.line;
        line.unsent.fetch_add(1, Ordering::Relaxed);
        Unsent { line: Arc::clone(line), _charges: charges }
    }
}

/// A frame that is not sent yet.
#[derive(Debug)]
pub struct Unsent {
    line: Arc<Line>,
    _charges: Vec<Charge>,
}

impl Drop for Unsent {
    fn drop(&mut self) {
        self.line.unsent.fetch_sub(1, Ordering::Relaxed);
        self.line.sent.fetch_add(1, Ordering::Relaxed);
    }
}

struct Waiting<'w>(&'w AtomicUsize);

impl<'w> Waiting<'w> {
    fn new(waiting: &'w AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    const MIB: usize = 1 << 20;

    fn budget(bytes: usize) -> Arc<Budget> {
        Arc::new(Budget::new(Needs { bytes, message_max: 16 * MIB, decoded_max: 32 * MIB }))
    }

    fn free(budget: &Budget) -> [u32; 4] {
        [&budget.small, &budget.large, &budget.kept, &budget.work].map(|pot| pot.free())
    }

    #[test]
    fn whatever_the_limits_the_largest_request_fits() {
        for bytes in [0, 1, 4_096, MIB, 16 * MIB, 128 * MIB] {
            let budget = budget(bytes);
            let call = budget.line().call();
            let small = Arc::clone(&call).arrive(bytes / 256).now_or_never();
            let large = Arc::clone(&call).arrive(16 * MIB).now_or_never();
            let work = call.work(32 * MIB + REQUEST_BYTES).now_or_never();
            assert!(small.is_some() && large.is_some() && work.is_some(), "{bytes}");
        }
    }

    #[test]
    fn a_connection_that_sends_no_rests_and_reads_no_answers_leaves_room_for_others() {
        let budget = budget(128 * MIB);
        let line = budget.line();
        let mut held = Vec::new();
        for _ in 0..100 {
            let call = line.call();
            while let Some(charge) = Arc::clone(&call).arrive(300_000).now_or_never() {
                held.push(charge);
            }
            while let Some(charge) = call.work(100_000).now_or_never() {
                held.push(charge);
            }
        }
        let other = budget.line().call();
        assert!(Arc::clone(&other).arrive(300_000).now_or_never().is_some());
        assert!(other.work(32 * MIB).now_or_never().is_some());
        drop(held);
    }

    #[test]
    fn an_identity_with_many_connections_leaves_as_much_room_for_others_as_one_with_one() {
        let budget = budget(128 * MIB);
        let share = budget.share_of("greedy");
        assert!(Arc::ptr_eq(&share, &budget.share_of("greedy")));
        let mut held = Vec::new();
        let lines: Vec<Arc<Line>> = (0..64).map(|_| budget.line()).collect();
        for line in lines.iter().flat_map(|line| std::iter::repeat_n(line, 10)) {
            let call = line.call_of(&share);
            held.extend(Arc::clone(&call).arrive(MIB).now_or_never());
            while let Some(charge) = Arc::clone(&call).arrive(300_000).now_or_never() {
                held.push(charge);
            }
            while let Some(charge) = call.work(100_000).now_or_never() {
                held.push(charge);
            }
        }
        let other = budget.line().call_of(&budget.share_of("modest"));
        assert!(Arc::clone(&other).arrive(300_000).now_or_never().is_some());
        assert!(Arc::clone(&other).arrive(MIB).now_or_never().is_some());
        assert!(other.work(32 * MIB).now_or_never().is_some());
        drop((held, share));
        drop(budget.share_of("other"));
        assert_eq!(budget.shares.lock().unwrap().len(), 2, "nobody is remembered who is not here");
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_room_is_given_back() {
        let budget = budget(128 * MIB);
        let call = budget.line().call();
        let mut first = call.work(32 * MIB).await;
        let second = call.work(32 * MIB);
        let mut second = std::pin::pin!(second);
        assert!(second.as_mut().now_or_never().is_none());
        assert!(budget.is_waited_for());
        let answer = first.split_off(MIB);
        drop(first);
        assert!(second.as_mut().now_or_never().is_none(), "the answer is not sent");
        drop(answer);
        drop(second.await);
        assert!(!budget.is_waited_for());
    }

    #[test]
    fn a_line_is_stuck_when_nothing_of_what_is_there_is_taken() {
        let line = budget(MIB).line();
        let (is_stuck, sent) = line.is_stuck(0);
        assert!(!is_stuck, "there is nothing for it");
        let frame = line.call().unsent(Vec::new());
        let (is_stuck, sent) = line.is_stuck(sent);
        assert!(is_stuck);
        let other = line.call().unsent(Vec::new());
        drop(frame);
        let (is_stuck, _) = line.is_stuck(sent);
        assert!(!is_stuck, "one was taken");
        drop(other);
    }

    proptest! {
        /// However charges are taken, split, shrunk and dropped, all is given back in the end, and never more.
        #[test]
        fn all_is_given_back(steps in prop::collection::vec((0..6_u8, any::<prop::sample::Index>(), 0..2_000_000_usize), 1..60)) {
            let budget = budget(64 * MIB);
            let before = free(&budget);
            let lines = [budget.line(), budget.line()];
            let share = budget.share_of("both");
            let calls = [lines[0].call(), lines[0].call_of(&share), lines[1].call_of(&share)];
            let mut held: Vec<Charge> = Vec::new();
            for (step, at, bytes) in steps {
                let call = &calls[at.index(calls.len())];
                match step {
                    0 => held.extend(call.try_arrive(bytes)),
                    1 | 2 => held.extend(call.work(bytes).now_or_never()),
                    3 => held.extend(call.keep(bytes)),
                    _ if held.is_empty() => {}
                    4 => {
                        let at = at.index(held.len());
                        let part = held[at].split_off(bytes);
                        held.push(part);
                    }
                    _ => {
                        let at = at.index(held.len());
                        held[at].shrink_to(bytes / 2);
                        if bytes % 2 == 0 {
                            held.swap_remove(at);
                        }
                    }
                }
                prop_assert!(free(&budget).iter().zip(before).all(|(now, before)| *now <= before));
            }
            drop(held);
            prop_assert_eq!(free(&budget), before);
        }
    }
}
