//! The one lock that orders things.
//!
//! Under it a shared batch gets its position in the journal, after all of its requests were found to be their producers'
//! next ones; then the watermark moves, and what it closes gets the next positions and goes to every worker. So what a
//! worker is ordered to do is in the order of the journal, and "before the window closed" means the same to every worker
//! and to a replay.
//!
//! A batch is scored and written before it comes here, so that nothing can fail once it has a position.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::Sender;
use foldhash::fast::RandomState;
use tokio::sync::mpsc::UnboundedSender;

use crate::clock::Moment;
use crate::domain::event_time::TimeBounds;
use crate::domain::gateway::{Effect, Gateway, HowFar};
use crate::domain::name::{DatasetName, StreamName};
use crate::domain::newcomers;
use crate::domain::outcome::Outcome;
use crate::domain::outcomes::Packed;
use crate::domain::producer::{Came, Mark, Number, OutOfOrder, Position, Producers, TooMany};
use crate::domain::tally::{Tally, Told};
use crate::domain::watermark::Heard;
use crate::durable::entry::{Before, Entry};
use crate::planted::planted;
use crate::storage::{Log, Lsn, Room, Then};

use super::closings::ClosingRooms;
use super::order::{Order, Report};
use super::progress::Progress;
use super::request::{Boxed, Content, Origin, Unaccepted};

/// When a checkpoint is due: whichever comes first, if anything happened. One that took long puts off the next one, so that
/// checkpoints take at most a 33rd of the time of one core.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointsDue {
    /// Bytes of the journal since the last one.
    pub bytes: u64,
    /// So many bytes are never put off.
    pub bytes_max: u64,
    /// Time since the last one.
    pub every: Duration,
}

/// One part in so many of the time of one core.
const CHECKPOINTS_SHARE: u32 = 33;
/// So many windows of a dataset close under one hold of the lock, at most. The others close with the next request, or tick.
const CLOSINGS_AT_ONCE: usize = 256;

/// The journal, and the order in which it is filled.
pub(super) struct Sequencer {
    pub(super) journal: Arc<Log>,
    state: Mutex<State>,
    /// Of the windows, as of the last tick.
    progress: Progress,
    workers: Vec<UnboundedSender<Order>>,
    reports: Sender<Report>,
    checkpoints: CheckpointsDue,
    is_checkpointing: AtomicBool,
}

/// What stands under the lock.
struct State {
    gateway: Gateway,
    /// The last position that was given out.
    last: Lsn,
    checkpoint: LastCheckpoint,
    /// Room in the journal for the closings to come.
    closing_rooms: ClosingRooms,
}

#[derive(Clone, Copy)]
struct LastCheckpoint {
    lsn: Lsn,
    at: Duration,
    /// Bytes given to the journal since.
    bytes: u64,
    /// How long the last whole one was worked on.
    took: Duration,
}

/// What a request's number says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Located {
    /// It comes next, under this number if it has one.
    Next(Option<Number>),
    /// A request with its number was taken before.
    Taken(Taken),
    /// A request with this number is taken in the same batch: what it comes to is not known yet. What its producer sent
    /// after it waits with it.
    Twice,
    /// It cannot be taken.
    Not(Unaccepted),
}

/// What is known of a request that was taken before. It is looked up with the number: a greater epoch that begins after that
/// would forget it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Taken {
    /// What it came to, as far as it is remembered.
    pub(super) outcome: Option<Packed>,
    /// How far its producer is.
    pub(super) mark: Mark,
}

/// A request to be placed.
pub(super) struct Placing<'r> {
    pub(super) origin: &'r Origin,
    /// The number under which it was found to come next.
    pub(super) number: Option<Number>,
    /// It has no records, and leaves numbers out.
    pub(super) skips: bool,
    /// What may be kept of what it comes to.
    pub(super) outcome: &'r Outcome,
    /// The newest event time that it brought or promised.
    pub(super) newest: Option<i64>,
}

/// A batch to be placed, and what there is for it.
pub(super) struct Batch<'b> {
    /// Its stream's name. `None`: it is not declared.
    pub(super) stream: Option<&'b StreamName>,
    pub(super) requests: &'b [Placing<'b>],
    /// The records of the requests that were refused.
    pub(super) refused: &'b Tally,
    /// The oldest and the newest event time of its records.
    pub(super) event_times: Option<(i64, i64)>,
    pub(super) entry: Vec<u8>,
    pub(super) room: Room,
    pub(super) at: Moment,
}

/// Why a batch was not placed. Nothing of it was.
#[derive(Debug)]
pub(super) enum Unplaced {
    /// These of its requests cannot be taken, by their positions in it.
    Requests(Vec<(usize, Located)>),
    /// Others opened windows so far away meanwhile that its own cannot be opened.
    Windows,
}

impl Sequencer {
    pub(super) fn new(
        journal: Arc<Log>,
        gateway: Gateway,
        last: Lsn,
        workers: Vec<UnboundedSender<Order>>,
        reports: Sender<Report>,
        checkpoints: CheckpointsDue,
    ) -> Self {
        let checkpoint = LastCheckpoint { lsn: last, at: Duration::ZERO, bytes: 0, took: Duration::ZERO };
        let closing_rooms = ClosingRooms::new(gateway.datasets());
        let progress = Progress::of(&gateway);
        let state = Mutex::new(State { gateway, last, checkpoint, closing_rooms });
        Self { journal, state, progress, workers, reports, checkpoints, is_checkpointing: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the numbers and the producers of requests say of them if they are taken in this order, and the event times that
    /// their stream takes.
    pub(super) fn locate(
        &self,
        stream: Option<&StreamName>,
        requests: &[Boxed],
        at: Moment,
    ) -> (Vec<Located>, TimeBounds) {
        let mut state = self.lock();
        let mut ahead = Ahead::new(&state.gateway);
        let located = requests.iter().map(|request| {
            let skips = matches!(request.content, Content::Nothing);
            ahead.locate(&request.origin.series, request.number, skips)
        });
        let mut located: Vec<Located> = located.collect();
        let mut newcomers = Newcomers::default();
        for (request, located) in requests.iter().zip(&mut located) {
            let Located::Next(number) = *located else { continue };
            // One that was refused as a whole and has no number needs no place.
            if number.is_none() && matches!(request.content, Content::Refused(_)) {
                continue;
            }
            let origin = &request.origin;
            let may = |producers: &mut Producers, came, before: &_| producers.may_admit(&origin.series, came, before);
            if let Err(limit) = newcomers.admit(&mut state.gateway, may, stream, origin, number, at) {
                *located = Located::Not(OutOfOrder::TooMany(limit).into());
            }
        }
        (located, stream.map_or(TimeBounds::NONE, |stream| state.gateway.time_bounds(stream, at.wall)))
    }

    /// Gives a batch its position and submits its entry. `earlier` is called when everything that comes before it was
    /// ordered and nothing that comes after it; what `then` gives is done when the entry is on disk. Its position, and how
    /// far the producer of each request is then.
    ///
    /// # Errors
    /// When a request cannot be taken. Then none is.
    pub(super) fn place(
        &self,
        batch: Batch<'_>,
        earlier: impl FnOnce(),
        then: impl FnOnce(Lsn) -> Then,
    ) -> Result<(Lsn, Vec<Mark>), Unplaced> {
        let Batch { stream, requests, refused, event_times, entry, room, at } = batch;
        let mut state = self.lock();
        state.admit(stream, requests, at)?;
        if let (Some(stream), Some((oldest, newest))) = (stream, event_times)
            && !state.gateway.open_windows(stream, oldest, newest)
        {
            return Err(Unplaced::Windows);
        }
        earlier();
        let lsn = state.next(room.bytes());
        let marks = requests.iter().map(|request| state.take(stream, request, lsn, at)).collect();
        self.journal.submit(lsn, entry, room, Some(then(lsn)));
        if let Some(stream) = stream {
            state.gateway.refused(stream, refused);
            self.advance(&mut state, Some(stream), at.now);
        }
        self.checkpoint_if_due(&mut state, at.now);
        Ok((lsn, marks))
    }

    /// How far the windows of each dataset had come at the last tick: see [`Gateway::windows`]. This takes no lock.
    pub(super) fn windows(&self) -> Vec<HowFar> {
        self.progress.told()
    }

    /// Time has passed.
    pub(super) fn tick(&self, now: Duration) {
        let mut state = self.lock();
        self.advance(&mut state, None, now);
        self.checkpoint_if_due(&mut state, now);
        self.progress.has_come_to(&state.gateway);
    }

    /// A window is open since before the start.
    pub(super) fn restore_windows<'w>(&self, windows: impl Iterator<Item = (&'w DatasetName, i64)>) {
        let gateway = &mut self.lock().gateway;
        windows.for_each(|(dataset, window)| gateway.restore_window(dataset, window));
    }

    /// Closes windows whose time has come, of one stream or of all, one after the other. They close only while each dataset has
    /// room in the journal to say so; without it they close later, and so do those that are too many to close at once.
    fn advance(&self, state: &mut State, stream: Option<&StreamName>, now: Duration) {
        for _ in 0..CLOSINGS_AT_ONCE {
            if !self.close_next(state, stream, now) {
                return;
            }
        }
    }

    /// Closes the next window of each dataset whose time has come. Whether there was one.
    fn close_next(&self, state: &mut State, stream: Option<&StreamName>, now: Duration) -> bool {
        if !state.closing_rooms.fill(&self.journal) {
            return false;
        }
        let mut effects = Vec::new();
        match stream {
            Some(stream) => state.gateway.advance(stream, now, &mut effects),
            None => state.gateway.tick(now, &mut effects),
        }
        let closes = !effects.is_empty();
        for Effect::Close { dataset, before, watermark, refused } in effects {
            // Each dataset is there once at most, and has room.
            let Some(room) = state.closing_rooms.take(&self.journal, &dataset) else { continue };
            let bytes = Entry::Closed { dataset: dataset.clone(), before: Before::Time(before), watermark }.encode();
            let lsn = state.next(bytes.len() as u64);
            self.journal.submit(lsn, bytes, room, None);
            self.tell(lsn, Some(before), refused);
            self.order(&Order::Close { lsn, dataset, before: Some(before) });
        }
        closes
    }

    /// Tells the collector of refused records, before it hears of the closing that they are told with.
    fn tell(&self, lsn: Lsn, before: Option<i64>, refused: Vec<Told>) {
        if !refused.is_empty() {
            let _ = self.reports.send(Report::Refused { lsn, before, refused });
        }
    }

    fn order(&self, order: &Order) {
        for worker in &self.workers {
            // A worker that is gone has told the supervisor.
            let _ = worker.send(order.clone());
        }
    }

    fn checkpoint_if_due(&self, state: &mut State, now: Duration) {
        let last = &state.checkpoint;
        let CheckpointsDue { bytes, bytes_max, every } = self.checkpoints;
        let since = now.saturating_sub(last.at);
        let is_wanted = last.bytes >= bytes || (state.last > last.lsn && since >= every);
        let is_cheap = since >= last.took.saturating_mul(CHECKPOINTS_SHARE) || last.bytes >= bytes_max;
        let is_due = is_wanted && is_cheap;
        if is_due && !self.is_checkpointing.load(Ordering::Acquire) {
            state.checkpoint.at = now;
            self.checkpoint(state);
        }
    }

    /// Refused records of streams are told in steps of so many from the next checkpoint on.
    pub(super) fn tell_in_steps(&self, steps: &[(StreamName, u64)]) {
        let mut state = self.lock();
        steps.iter().for_each(|(stream, step)| state.gateway.tell_in_steps(stream, *step));
    }

    fn checkpoint(&self, state: &mut State) {
        state.checkpoint = LastCheckpoint { lsn: state.last, bytes: 0, ..state.checkpoint };
        self.is_checkpointing.store(true, Ordering::Release);
        // Written down by the collector: a million producers are not written under the lock.
        let gateway = state.gateway.snapshot();
        let _ = self.reports.send(Report::State { lsn: state.last, gateway });
        self.order(&Order::Checkpoint { lsn: state.last });
    }

    /// A checkpoint is written, or given up, after so much work.
    pub(super) fn checkpoint_is_done(&self, took: Duration) {
        self.lock().checkpoint.took = took;
        self.is_checkpointing.store(false, Ordering::Release);
    }

    /// Orders a last checkpoint and the end; with `flush`, the windows that are still open are released before it as they
    /// are. Nothing may be placed after it.
    pub(super) fn finish(&self, flush: bool) {
        let mut state = self.lock();
        if flush {
            let datasets: Vec<DatasetName> = state.gateway.datasets().cloned().collect();
            for dataset in datasets {
                let Some(room) = state.closing_rooms.take(&self.journal, &dataset) else {
                    tracing::warn!(
                        %dataset,
                        "there is no room in the journal to release the open windows; they stay open until the next \
                         start. Raise `quota_bytes`"
                    );
                    continue;
                };
                let bytes = Entry::Flushed { dataset: dataset.clone() }.encode();
                let lsn = state.next(bytes.len() as u64);
                self.journal.submit(lsn, bytes, room, None);
                let refused = state.gateway.tell_refused(&dataset);
                self.tell(lsn, None, refused);
                self.order(&Order::Close { lsn, dataset, before: None });
            }
        }
        self.checkpoint(&mut state);
        self.order(&Order::Finish);
    }
}

impl State {
    /// Gives out the next position, for an entry of so many bytes.
    fn next(&mut self, bytes: u64) -> Lsn {
        self.last += 1;
        self.checkpoint.bytes += bytes;
        self.last
    }

    /// Makes sure that all requests can be taken in this order.
    fn admit(&mut self, stream: Option<&StreamName>, requests: &[Placing<'_>], at: Moment) -> Result<(), Unplaced> {
        let mut ahead = Ahead::new(&self.gateway);
        let located =
            requests.iter().map(|request| match ahead.locate(&request.origin.series, request.number, request.skips) {
                Located::Next(number) if number == request.number => None,
                located => Some(located),
            });
        let located: Vec<Option<Located>> = located.collect();
        let (mut not, mut newcomers) = (Vec::new(), Newcomers::default());
        for (position, (request, located)) in requests.iter().zip(located).enumerate() {
            if let Some(located) = located {
                not.push((position, located));
                continue;
            }
            let Placing { origin, number, .. } = *request;
            let must = |producers: &mut Producers, came, before: &_| producers.admit(&origin.series, came, before);
            if let Err(limit) = newcomers.admit(&mut self.gateway, must, stream, origin, number, at) {
                not.push((position, Located::Not(OutOfOrder::TooMany(limit).into())));
            }
        }
        if not.is_empty() { Ok(()) } else { Err(Unplaced::Requests(not)) }
    }

    /// A request is taken. How far its producer is.
    fn take(&mut self, stream: Option<&StreamName>, request: &Placing<'_>, lsn: Lsn, at: Moment) -> Mark {
        let Placing { origin, number, outcome, newest, .. } = *request;
        let (producer, address) = (&origin.series, origin.address);
        let identity = origin.identity.as_deref();
        if let Some(stream) = stream {
            self.gateway.hear(stream, Heard { producer, address, identity, event_time: newest }, at.now);
        }
        match number {
            Some(number) => {
                let came = Came { at: Some(at.wall), from: address, of: identity };
                self.gateway.producers.take(producer, number, lsn, Some(outcome), came);
                Mark { epoch: number.epoch, sequence: number.sequence, lsn }
            }
            // What comes after it is told is on disk with it.
            None => Mark { lsn, ..self.gateway.producers.mark(producer) },
        }
    }
}

/// The producers that the requests of a batch bring anew.
#[derive(Default)]
struct Newcomers<'r> {
    /// With numbers, which are remembered.
    numbered: newcomers::Newcomers<'r>,
    /// On its stream.
    active: newcomers::Newcomers<'r>,
}

impl<'r> Newcomers<'r> {
    /// Looks whether there is room for the producer of a request, and if so, lets it take its places. `remembers` looks for
    /// one among those whose numbers are remembered.
    fn admit(
        &mut self,
        gateway: &mut Gateway,
        remembers: impl FnOnce(&mut Producers, Came<'r>, &newcomers::Newcomers<'r>) -> Result<bool, TooMany>,
        stream: Option<&StreamName>,
        origin: &'r Origin,
        number: Option<Number>,
        at: Moment,
    ) -> Result<(), TooMany> {
        let (producer, address, identity) = (&origin.series, origin.address, origin.identity.as_deref());
        let heard = Heard { producer, address, identity, event_time: None };
        let is_newly_active = match stream {
            Some(stream) => gateway.admit(stream, heard, at.now, &self.active)?,
            None => false,
        };
        let came = Came { at: Some(at.wall), from: address, of: identity };
        if number.is_some() && remembers(&mut gateway.producers, came, &self.numbered)? {
            self.numbered.add(producer, address, identity);
        }
        if is_newly_active {
            self.active.add(producer, address, identity);
        }
        Ok(())
    }
}

/// How far producers are when the requests of a batch that come before are taken.
struct Ahead<'g> {
    gateway: &'g Gateway,
    marks: HashMap<&'g str, Mark, RandomState>,
    /// Those of which a request waits for the next batch. Another one that overtook it could end its series.
    waiting: HashSet<&'g str, RandomState>,
}

impl<'g> Ahead<'g> {
    fn new(gateway: &'g Gateway) -> Self {
        Self { gateway, marks: HashMap::default(), waiting: HashSet::default() }
    }

    fn locate<'r: 'g>(&mut self, producer: &'r str, number: Option<Number>, skips: bool) -> Located {
        let Some(number) = number else { return Located::Next(None) };
        if self.waiting.contains(producer) {
            return Located::Twice;
        }
        let located = self.locate_next(producer, number, skips);
        if located == Located::Twice {
            self.waiting.insert(producer);
        }
        located
    }

    /// Of a producer of which no request waits.
    fn locate_next<'r: 'g>(&mut self, producer: &'r str, number: Number, skips: bool) -> Located {
        let producers = &self.gateway.producers;
        let ahead = self.marks.get(producer).copied();
        let after = |mark| if skips { number.skipping_after(mark) } else { number.after(mark) };
        match after(ahead.or_else(|| producers.known(producer))) {
            Ok(Position::Taken) if skips => Located::Next(None),
            Ok(Position::Taken) if !planted("no-dedup") => match producers.known(producer) {
                Some(mark) if number.after(Some(mark)) == Ok(Position::Taken) => {
                    Located::Taken(Taken { outcome: producers.outcome(producer, number), mark })
                }
                _ => Located::Twice,
            },
            Ok(_) => {
                let Number { epoch, sequence } = number;
                self.marks.insert(producer, Mark { epoch, sequence, lsn: 0 });
                Located::Next(Some(number))
            }
            // Without the requests before it, it could be taken: they may not come to have a place.
            Err(_) if ahead.is_some() && after(producers.known(producer)).is_ok() => Located::Twice,
            Err(out_of_order) => Located::Not(out_of_order.into()),
        }
    }
}

#[cfg(test)]
mod tests;
