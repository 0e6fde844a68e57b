//! A worker: takes what has arrived as one batch, judges it, writes it into the journal, folds it into the open windows,
//! and answers when the journal says that it is on disk.
//!
//! A batch that fails is taken apart: each of its requests is then taken alone, so that none is refused for another's
//! fault.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::ready;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::clock::{Clock, Moment};
use crate::decode::Together;
use crate::domain::aggregate::Reserved;
use crate::domain::counting::NotCounted;
use crate::domain::event_time::TimeBounds;
use crate::domain::evidence::Sender;
use crate::domain::name::StreamName;
use crate::domain::outcome::{Outcome, Refusals, Refused};
use crate::domain::policy::Resident;
use crate::domain::producer::Mark;
use crate::domain::refusal::Reason;
use crate::domain::tally::Tally;
use crate::durable::entry::{BatchWriter, Entry, Sent};
use crate::storage::{Lsn, NoRoom, Room, Then};
use crate::telemetry::{Telemetry, Times};

use super::inbox::Inbox;
use super::intake::Intake;
use super::judge::{Case, Judged, NotJudged};
use super::open_windows::OpenWindowsRoom;
use super::order::Order;
use super::request::{Answer, Answers, Boxed, Content, Outputs, Request, Served, Unaccepted};
use super::scores::Scores;
use super::sequencer::{Batch, Located, Placing, Sequencer, Taken, Unplaced};
use super::supervision::Supervisor;
use super::windows::{OfRequest, Origins, Windows};

/// What a worker has for itself, and what it shares.
pub(super) struct Worker {
    pub(super) intake: Arc<Intake>,
    pub(super) sequencer: Arc<Sequencer>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) scores: Scores,
    pub(super) windows: Windows,
    pub(super) writers: BTreeMap<StreamName, BatchWriter>,
    pub(super) open_windows: Arc<OpenWindowsRoom>,
    pub(super) supervisor: Supervisor,
    /// The most records of one batch.
    pub(super) rows_max: usize,
    /// Whether entries are sealed under the keys of regimes.
    pub(super) seals: bool,
    pub(super) orders: UnboundedReceiver<Order>,
    pub(super) waiting: Waiting,
    /// Nothing comes any more.
    pub(super) is_finished: bool,
}

/// Answers that wait until the journal is on disk through a position.
pub(super) struct Waiting {
    /// With the times that the answers are measured from.
    answers: BTreeMap<Lsn, Vec<(Answers, Since)>>,
    is_durable: UnboundedSender<Lsn>,
    durable: UnboundedReceiver<Lsn>,
    clock: Clock,
    times: Arc<Times>,
}

/// When the oldest request of a batch arrived, and when the batch got its place.
#[derive(Debug, Clone, Copy)]
struct Since {
    arrived: Duration,
    placed: Duration,
}

impl Waiting {
    pub(super) fn new(clock: Clock, times: Arc<Times>) -> Self {
        let (is_durable, durable) = unbounded_channel();
        Self { answers: BTreeMap::new(), is_durable, durable, clock, times }
    }

    /// Called when the journal is on disk through a position.
    fn when_durable(&self, lsn: Lsn) -> Then {
        let is_durable = self.is_durable.clone();
        // The worker may be gone; its thread has told the supervisor.
        Box::new(move || is_durable.send(lsn).unwrap_or(()))
    }

    fn push(&mut self, lsn: Lsn, answers: Answers, since: Since) {
        self.answers.entry(lsn).or_default().push((answers, since));
    }

    fn tell(&mut self, durable: Lsn) {
        let now = self.clock.now();
        while let Some(first) = self.answers.first_entry().filter(|first| *first.key() <= durable) {
            for (answers, Since { arrived, placed }) in first.remove() {
                self.times.journal.add(now.saturating_sub(placed), 1);
                self.times.answer.add(now.saturating_sub(arrived), answers.len());
                answers.tell();
            }
        }
    }
}

/// How a batch ended.
enum Attempt {
    /// Each of its requests is answered, or will be when the journal has it.
    Done,
    /// These are to be taken again, together: others were quicker, or a day is over.
    Again(Vec<Boxed>, Lost),
    /// These are to be taken again, each alone, as if they had just come.
    Apart(Vec<Boxed>),
}

/// What others took between the look at a batch and its place, or was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// The windows near to theirs.
    Windows,
    /// The numbers that came next, or the place of a request in the same batch.
    Place,
    /// The day in which persons were counted for them.
    Day,
}

impl Lost {
    /// Why a request is given up that has lost time after time. Its number is not spent.
    fn given_up(self) -> Unaccepted {
        match self {
            Self::Windows => Unaccepted::Refused(Reason::TooManyWindows),
            Self::Place | Self::Day => Unaccepted::Outrun,
        }
    }
}

/// While a batch is on its way to the disk, the next one waits for this many records: fewer would not be on disk any
/// sooner, and a batch of one costs as much as one of twenty.
const ROWS_BESIDE_SYNC: usize = 64;
/// The longest such wait, for a disk that does not answer.
const BESIDE_SYNC_MAX: Duration = Duration::from_millis(10);
/// How long a request waits for the disk before it looks again.
const BEHIND_MAX: Duration = Duration::from_millis(100);
/// How often a batch is judged again because others opened windows or took numbers meanwhile. Then it is taken apart.
const AGAIN_MAX: usize = 2;

impl Worker {
    /// Works until the end is ordered.
    pub(super) async fn run(mut self) {
        while !self.is_finished {
            let rows_min = if self.waiting.answers.is_empty() { 1 } else { ROWS_BESIDE_SYNC.min(self.rows_max) };
            tokio::select! {
                biased;
                Some(order) = self.orders.recv() => self.is_finished |= self.windows.obey(order),
                Some(lsn) = self.waiting.durable.recv() => self.waiting.tell(lsn),
                () = self.inbox.holds(rows_min) => self.take_next().await,
                () = tokio::time::sleep(BESIDE_SYNC_MAX), if rows_min > 1 => {
                    if self.inbox.waiting() > 0 {
                        self.take_next().await;
                    }
                }
                () = ready(()), if self.windows.is_saving() => self.save_some().await,
            }
        }
        while self.inbox.waiting() > 0 {
            let stopping = |request: Boxed| request.reply.answer(Answer::unaccepted(Reason::Stopping.into()));
            self.inbox.take(usize::MAX).into_iter().for_each(stopping);
        }
    }

    /// Takes the next batch in.
    async fn take_next(&mut self) {
        // Whatever else this turn of the reactor brings shares it.
        tokio::task::yield_now().await;
        let requests = self.inbox.take(self.rows_max);
        // The first one has waited longest.
        if let Some(first) = requests.first() {
            self.waiting.times.wait.add(self.intake.clock.now().saturating_sub(first.arrived), 1);
        }
        self.take_in(requests).await;
        self.windows.save_some();
    }

    /// Goes on with a checkpoint while there is nothing else to do.
    async fn save_some(&mut self) {
        self.windows.save_some();
        tokio::task::yield_now().await;
    }

    /// Takes requests of one stream in.
    async fn take_in(&mut self, requests: Vec<Boxed>) {
        let mut twice = Vec::new();
        let mut waiting = vec![(requests, 0)];
        while let Some((requests, times)) = waiting.pop() {
            match self.attempt(requests, &mut twice).await {
                Attempt::Done if waiting.is_empty() => {}
                // Others have waited meanwhile, and answers may be due.
                Attempt::Done => {
                    while let Ok(lsn) = self.waiting.durable.try_recv() {
                        self.waiting.tell(lsn);
                    }
                    tokio::task::yield_now().await;
                }
                Attempt::Again(requests, _) if times < AGAIN_MAX => waiting.push((requests, times + 1)),
                Attempt::Again(requests, lost) if requests.len() == 1 => refuse(requests, lost.given_up()),
                Attempt::Again(requests, _) | Attempt::Apart(requests) => {
                    waiting.extend(requests.into_iter().rev().map(|request| (vec![request], 0)));
                }
            }
        }
        self.inbox.put_back(twice);
    }

    async fn attempt(&mut self, requests: Vec<Boxed>, twice: &mut Vec<Boxed>) -> Attempt {
        let cannot = if self.is_finished { Some(Reason::Stopping) } else { None };
        if let Some(reason) = cannot.or_else(|| self.supervisor.failure().map(|_| Reason::Internal)) {
            refuse(requests, reason);
            return Attempt::Done;
        }
        let at = self.intake.clock.moment();
        let served = requests.first().and_then(|request| request.served.clone());
        let stream = served.as_ref().map(|served| &served.stream.name);
        let (located, bounds) = self.sequencer.locate(stream, &requests, at);
        let mut going = Vec::with_capacity(requests.len());
        for (request, located) in requests.into_iter().zip(located) {
            going.extend(self.go(request, located, twice));
        }
        if going.is_empty() {
            return Attempt::Done;
        }
        let judged = match &served {
            None => Ok(Judged::refused(&going)),
            Some(served) => {
                let case = Case { served, requests: &going, bounds, now: at.now, seals: self.seals };
                let (intake, scores) = (&self.intake, &mut self.scores);
                let judged = catch_unwind(AssertUnwindSafe(|| case.judge(intake, scores)));
                judged.unwrap_or(Err(NotJudged::Failed(Reason::Internal)))
            }
        };
        match judged {
            Ok(judged) => self.write(going, judged, served.as_deref(), at, twice).await,
            Err(NotJudged::Together) => Attempt::Apart(going),
            Err(NotJudged::Failed(reason)) => Self::failed(going, reason),
        }
    }

    /// A request that goes on; any other one is seen to.
    fn go(&mut self, mut request: Boxed, located: Located, twice: &mut Vec<Boxed>) -> Option<Boxed> {
        match located {
            Located::Next(number) => {
                if let (None, Content::Refused(refused)) = (number, &request.content) {
                    let outcome = Outcome::Refused(refused.clone());
                    request.reply.answer(Answer::of(outcome, Mark::default()));
                    return None;
                }
                request.located = number;
                return Some(request);
            }
            Located::Taken(taken) => self.repeat(request, taken),
            Located::Twice => twice.push(request),
            Located::Not(why) => request.reply.answer(Answer::unaccepted(why)),
        }
        None
    }

    /// A batch failed. One that is shared is taken apart; a request alone is refused, and its number spent by that unless
    /// the reason will pass. It is spent like that of any other refused request, which cannot fail again.
    fn failed(mut requests: Vec<Boxed>, reason: Reason) -> Attempt {
        let is_shared = requests.len() > 1;
        let [request] = requests.as_mut_slice() else {
            if is_shared && !reason.keeps_number() || reason == Reason::WindowsFull {
                return Attempt::Apart(requests);
            }
            refuse(requests, reason);
            return Attempt::Done;
        };
        if reason.keeps_number() || matches!(request.content, Content::Refused(_) | Content::Nothing) {
            refuse(requests, reason);
            return Attempt::Done;
        }
        request.content = Content::Refused(Refused { reason, field: None });
        Attempt::Apart(requests)
    }

    /// Writes a judged batch into the journal and folds it.
    async fn write(
        &mut self,
        requests: Vec<Boxed>,
        mut judged: Judged,
        served: Option<&Served>,
        at: Moment,
        twice: &mut Vec<Boxed>,
    ) -> Attempt {
        let judged_at = self.intake.clock.now();
        self.waiting.times.judge.add(judged_at.saturating_sub(at.now), 1);
        let stream = served.map(|served| &served.stream.name);
        let kept: Vec<Cow<'_, Outcome>> =
            judged.requests.iter().map(|request| kept(&request.outcome, served)).collect();
        let newest = newest(&requests, &judged, at.wall);
        let sent = requests.iter().zip(&judged.requests).zip(kept.iter().zip(&newest));
        let sent = sent.map(|((request, came), (kept, newest))| Sent {
            producer: &request.origin.series,
            number: request.located,
            rows: u32::try_from(came.rows.len()).unwrap_or(u32::MAX),
            newest: *newest,
            outcome: Some(Cow::Borrowed(kept)),
        });
        let sent: Vec<Sent<'_>> = sent.collect();
        let entry = match &judged.resident {
            None => Some(Entry::Requests { at: at.wall, stream: stream.cloned(), requests: sent }.encode()),
            Some(resident) => self.encode(resident, &judged, &sent, at.wall),
        };
        let Some(entry) = entry else {
            judged.let_go(&self.intake);
            return Self::failed(requests, Reason::Internal);
        };
        let keeps_producers = stream.is_some_and(|stream| self.intake.versions.asks_for_producers(stream));
        let (room, reserved) = match self.room(&judged, keeps_producers, entry.len() as u64).await {
            Ok(room) => room,
            Err(reason) => {
                judged.let_go(&self.intake);
                return Self::failed(requests, reason);
            }
        };
        // Their records go on a day on which nobody was counted for them.
        if judged.counted_until.is_some_and(|until| !self.intake.counting.is_still(until)) {
            judged.let_go(&self.intake);
            return Attempt::Again(requests, Lost::Day);
        }
        let placing = requests.iter().zip(kept.iter().zip(&newest)).map(|(request, (outcome, newest))| Placing {
            origin: &request.origin,
            number: request.located,
            skips: matches!(request.content, Content::Nothing),
            outcome,
            newest: *newest,
        });
        let placing: Vec<Placing<'_>> = placing.collect();
        let event_times = judged.resident.as_ref().and_then(|resident| resident.batch().event_time_range());
        let refused = Tally::of(kept.iter().map(Cow::as_ref));
        let batch = Batch { stream, requests: &placing, refused: &refused, event_times, entry, room, at };
        let (orders, mut earlier) = (&mut self.orders, Vec::new());
        let drain = || earlier.extend(std::iter::from_fn(|| orders.try_recv().ok()));
        let placed = self.sequencer.place(batch, drain, |lsn| self.waiting.when_durable(lsn));
        for order in earlier {
            self.is_finished |= self.windows.obey(order);
        }
        let (lsn, marks) = match placed {
            Ok(placed) => placed,
            Err(Unplaced::Windows) => {
                judged.let_go(&self.intake);
                return Attempt::Again(requests, Lost::Windows);
            }
            Err(Unplaced::Requests(not)) => {
                judged.let_go(&self.intake);
                let mut not: BTreeMap<usize, Located> = not.into_iter().collect();
                let mut going = Vec::with_capacity(requests.len());
                for (position, request) in requests.into_iter().enumerate() {
                    match not.remove(&position) {
                        // It comes next under another number now: that is found out again.
                        None | Some(Located::Next(_)) => going.push(request),
                        Some(located) => going.extend(self.go(request, located, twice)),
                    }
                }
                return if going.is_empty() { Attempt::Done } else { Attempt::Again(going, Lost::Place) };
            }
        };
        if let Some(served) = served {
            judged.count(&self.intake, served, &requests);
        }
        if let Some(resident) = &judged.resident {
            // A panic in here leaves windows that are not to be trusted: it ends this worker, and so the gateway.
            let origins = Origins { lsn, requests: &senders(&requests, &judged), keeps_producers };
            let late = self.windows.fold(resident.batch(), &judged.outputs, resident.policy(), origins);
            drop(reserved);
            Telemetry::add(&self.intake.telemetry.of(&resident.batch().stream().name).late, late);
        }
        let placed = self.intake.clock.now();
        self.waiting.times.place.add(placed.saturating_sub(judged_at), 1);
        let arrived = requests.iter().map(|request| request.arrived).min().unwrap_or(at.now);
        self.waiting.push(lsn, answers(served, requests, judged, marks), Since { arrived, placed });
        Attempt::Done
    }

    fn encode(&mut self, resident: &Resident, judged: &Judged, sent: &[Sent<'_>], wall: i64) -> Option<Vec<u8>> {
        let writer = self.writers.get_mut(&resident.batch().stream().name)?;
        match writer.encode(resident, &judged.outputs, sent, wall) {
            Ok(entry) => Some(entry),
            Err(error) => {
                tracing::error!(%error, "a batch could not be written; it is refused. A fault in bailiwick: please \
                 report this line");
                None
            }
        }
    }

    /// Room for an entry in the journal, and for its records in the open windows, when the persons that were counted for it
    /// are on disk. Waits while the disk is behind and while others are being counted, and does meanwhile what is ordered.
    async fn room(
        &mut self,
        judged: &Judged,
        with_producers: bool,
        bytes: u64,
    ) -> Result<(Room, Option<Reserved>), Reason> {
        let (sequencer, open_windows) = (Arc::clone(&self.sequencer), Arc::clone(&self.open_windows));
        let (resident, counting) = (judged.resident.as_ref(), Arc::clone(&self.intake.counting));
        let found = async move {
            if judged.counted_until.is_some() {
                counting.durable().await?;
            }
            // In this order: what is reserved of the windows keeps others from theirs, and the disk may hang.
            let room = room_for(&sequencer, bytes).await?;
            let reserved = match resident {
                Some(resident) => Some(open_windows.reserve(resident.batch(), with_producers).await?),
                None => None,
            };
            Ok((room, reserved))
        };
        let mut found = pin!(found);
        loop {
            tokio::select! {
                biased;
                found = &mut found => return found,
                Some(order) = self.orders.recv() => {
                    self.is_finished |= self.windows.obey(order);
                    if self.is_finished {
                        return Err(Reason::Stopping);
                    }
                }
                Some(lsn) = self.waiting.durable.recv() => self.waiting.tell(lsn),
            }
        }
    }

    /// Answers a request whose number was taken before, as it was answered then, when that is on disk.
    fn repeat(&mut self, request: Boxed, taken: Taken) {
        // Only now, one at a time: many requests may ask for one that takes much.
        let (outcome, mark) = (taken.outcome.and_then(|packed| packed.outcome()), taken.mark);
        let outcome = match (outcome.unwrap_or_else(|| Outcome::refused(Reason::OutcomeUnknown)), &request.content) {
            (Outcome::Taken(taken), Content::Records(opened))
                if taken.accepted.saturating_add(taken.refusals.records()) as usize == opened.rows() =>
            {
                Outcome::Taken(taken)
            }
            (Outcome::Taken(_), _) => Outcome::refused(Reason::NumberReused),
            (refused @ Outcome::Refused(_), _) => refused,
        };
        let outputs = if request.wants_outputs { self.outputs_again(&request, &outcome) } else { None };
        let answer = Answer { is_duplicate: true, outputs: outputs.unwrap_or_default(), ..Answer::of(outcome, mark) };
        let mut answers = Answers::new(request.served.as_deref(), 1);
        let Request { reply, charge, arrived, .. } = *request;
        answers.push(reply, charge, answer);
        self.waiting.push(mark.lsn, answers, Since { arrived, placed: self.intake.clock.now() });
        self.sequencer.journal.when_durable(mark.lsn, self.waiting.when_durable(mark.lsn));
    }

    /// The model's outputs of records that were counted before. None, when not the very same ones would be taken in now.
    fn outputs_again(&mut self, request: &Request, outcome: &Outcome) -> Option<Outputs> {
        let (Outcome::Taken(taken), Content::Records(opened), Some(served)) =
            (outcome, &request.content, &request.served)
        else {
            return None;
        };
        if served.outputs.is_empty() {
            return None;
        }
        let again = || {
            let Together { mut candidate, .. } = Together::decode(&served.stream, [opened]);
            candidate.check(&TimeBounds::ANY);
            let from = Sender { producer: &request.origin.producer, address: request.origin.address };
            let decided = self.intake.versions.current().decide(candidate, from, &mut NotCounted).ok()?;
            let are_the_same = Refusals::of(&decided.refusals).are_the_records_of(&taken.refusals);
            let resident = decided.resident.filter(|_| are_the_same)?;
            let rows = 0..resident.batch().rows();
            let scored = self.scores.score(&resident, std::slice::from_ref(&rows));
            let is_usable = scored.unusable.is_empty() && scored.failed.is_empty();
            is_usable.then(|| Outputs { columns: scored.columns.into(), rows })
        };
        catch_unwind(AssertUnwindSafe(again)).ok().flatten()
    }
}

async fn room_for(sequencer: &Sequencer, bytes: u64) -> Result<Room, Reason> {
    let journal = &sequencer.journal;
    loop {
        match journal.reserve(bytes) {
            Ok(room) => return Ok(room),
            Err(NoRoom::Behind) => {
                let (moved, has_moved) = oneshot::channel();
                journal.when_durable(journal.durable() + 1, Box::new(move || moved.send(()).unwrap_or(())));
                // Room may also be given back without a commit.
                let _ = tokio::time::timeout(BEHIND_MAX, has_moved).await;
            }
            Err(NoRoom::Full) => return Err(Reason::Overloaded),
            Err(NoRoom::Failing { .. } | NoRoom::NumbersExhausted) => return Err(Reason::JournalFailing),
            Err(NoRoom::TooLarge { .. }) => return Err(Reason::TooLarge),
            Err(NoRoom::Closed) => return Err(Reason::Stopping),
        }
    }
}

/// None of these is taken.
fn refuse(requests: Vec<Boxed>, why: impl Into<Unaccepted>) {
    let why = why.into();
    for request in requests {
        request.reply.answer(Answer::unaccepted(why));
    }
}

/// Who sent what is taken in of each request, as its entry in the journal says.
fn senders<'r>(requests: &'r [Boxed], judged: &Judged) -> Vec<OfRequest<'r>> {
    let sent = requests.iter().zip(&judged.requests).map(|(request, came)| OfRequest {
        series: &request.origin.series,
        number: request.located,
        rows: came.rows.len(),
    });
    sent.collect()
}

/// What may be kept of what a request came to: nothing that only its producer knows.
fn kept<'o>(outcome: &'o Outcome, served: Option<&Served>) -> Cow<'o, Outcome> {
    served.map_or_else(|| outcome.with_fields(&|_| false), |served| outcome.declared(&served.stream))
}

/// The newest event time that each request brought or promised. A window does not close before its time has come, whatever
/// one producer sends or promises.
fn newest(requests: &[Boxed], judged: &Judged, wall: i64) -> Vec<Option<i64>> {
    let times = judged.resident.as_ref().map_or(&[][..], |resident| resident.batch().event_times());
    let each = requests.iter().zip(&judged.requests).map(|(request, came)| {
        let brought = times.get(came.rows.clone()).and_then(|times| times.iter().copied().max());
        // A request that was refused as a whole brought nothing of what it promises to be the last of.
        let promised = request.promised.filter(|_| matches!(came.outcome, Outcome::Taken(_)));
        brought.max(promised).map(|newest| newest.min(wall))
    });
    each.collect()
}

/// What is told of the requests of a batch.
fn answers(served: Option<&Served>, requests: Vec<Boxed>, judged: Judged, marks: Vec<Mark>) -> Answers {
    let mut answers = Answers::new(served, requests.len());
    let columns: Arc<[_]> = judged.outputs.into();
    for ((request, came), mark) in requests.into_iter().zip(judged.requests).zip(marks) {
        let outputs = if request.wants_outputs {
            Outputs { columns: Arc::clone(&columns), rows: came.rows }
        } else {
            Outputs::default()
        };
        let answer = Answer { outputs, message: came.message, ..Answer::of(came.outcome, mark) };
        let Request { reply, charge, payload_bytes, .. } = *request;
        if let Ok(outcome) = &answer.told {
            answers.brought(payload_bytes, outcome);
        }
        answers.push(reply, charge, answer);
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_lost_time_after_time_is_told_what_was_lost() {
        assert_eq!(Lost::Windows.given_up(), Unaccepted::Refused(Reason::TooManyWindows));
        assert_eq!(Lost::Place.given_up(), Unaccepted::Outrun);
    }
}
