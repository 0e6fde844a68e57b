//! Sends records to their gateway, and those that belong elsewhere to the gateways that it names.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::clock::{Clock, wall_clock};
use crate::ingress::proto::ingest::{PublishResponse, Refusal};

use super::line::{AHEAD, Answer, Elsewhere, Line};
use super::totals::{Kind, Place};
use super::{Batch, Options, Ready, SharedTotals, Stopped, Totals};

/// Of how many of a producer's last requests a gateway remembers what they came to.
const REMEMBERED: u64 = 64;
/// How many requests the answers of other gateways may lag behind. The home's answer says where a record was sent on. So
/// every open answer must be within what the home remembers, also when another send resumes this one, and within what the
/// other gateway remembers. The other gets two requests for one of the home.
const LAG: u64 = 16;
/// After how long a gateway that did not answer is tried again.
const AWAY: Duration = Duration::from_secs(30);
/// How many batches are read ahead.
const READ_AHEAD: usize = 2;
/// A pipe that brings nothing for so long is mentioned.
const SILENT: Duration = Duration::from_secs(1);

/// Batches, and at last an error if there is one.
type Read = mpsc::Receiver<Result<Batch, Stopped>>;

/// The pipe that is being opened: its name.
#[derive(Clone, Default)]
struct Opening(Arc<Mutex<Option<String>>>);

impl Opening {
    fn set(&self, pipe: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pipe;
    }

    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Sends all records of the inputs, follows routes if asked to, and waits for every answer.
///
/// # Errors
/// When an input cannot be read or a gateway goes away for too long.
pub async fn publish(inputs: Vec<Ready>, options: &Options, totals: &SharedTotals) -> Result<(), Stopped> {
    Sending::open(options, totals).await?.run(inputs).await
}

/// A send in progress.
///
/// A batch has the same number whenever the same inputs are sent under the same epoch, here and, for the part
/// that belongs elsewhere, at every other gateway: sent again, nothing is lost and nothing counted twice.
pub(super) struct Sending<'s> {
    options: &'s Options,
    totals: &'s SharedTotals,
    home: Line,
    routes: BTreeMap<String, Line>,
    /// The gateways that did not answer, and when they are tried again.
    away: BTreeMap<String, Duration>,
    clock: Clock,
}

impl<'s> Sending<'s> {
    /// Introduces the producer to its gateway.
    pub(super) async fn open(options: &'s Options, totals: &'s SharedTotals) -> Result<Self, Stopped> {
        let home = Line::open(options, totals).await?;
        let (routes, away, clock) = (BTreeMap::new(), BTreeMap::new(), Clock::start());
        Ok(Self { options, totals, home, routes, away, clock })
    }

    /// Sends all records and waits for every answer.
    pub(super) async fn run(mut self, inputs: Vec<Ready>) -> Result<(), Stopped> {
        let opening = Opening::default();
        let mut batches = read(inputs, self.options.batch, opening.clone());
        let mut sequence = 0;
        let mut unread = None;
        while let Some(read) = self.next(&mut batches, &opening).await {
            match read {
                Ok(batch) => self.batch(&mut sequence, batch).await?,
                Err(error) => unread = Some(error),
            }
        }
        self.finish(unread.is_none()).await?;
        unread.map_or(Ok(()), Err)
    }

    fn update(&self, change: impl FnOnce(&mut Totals)) {
        change(&mut self.totals.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The next batch. That a pipe brings nothing is mentioned.
    async fn next(&self, batches: &mut Read, opening: &Opening) -> Option<Result<Batch, Stopped>> {
        if let Ok(read) = tokio::time::timeout(SILENT, batches.recv()).await {
            return read;
        }
        if let Some(pipe) = opening.take() {
            let notice = format!("waiting for {pipe}: it is a pipe, and nothing has come through it yet");
            self.update(|totals| totals.notices.push(notice));
        }
        batches.recv().await
    }

    async fn batch(&mut self, sequence: &mut u64, mut batch: Batch) -> Result<(), Stopped> {
        let malformed = std::mem::take(&mut batch.malformed);
        let name = Arc::clone(&batch.name);
        self.update(|totals| {
            totals.read += (batch.records.len() + malformed.len()) as u64;
            for found in malformed {
                let place = Place { batch: *sequence, line: found.line, name: Arc::clone(&name) };
                totals.malformed.entry(found.what).or_default().add(1, Some(place));
            }
        });
        if batch.records.is_empty() {
            return Ok(());
        }
        *sequence += 1;
        self.send(*sequence, batch).await
    }

    async fn send(&mut self, sequence: u64, batch: Batch) -> Result<(), Stopped> {
        if sequence + REMEMBERED <= self.home.durable_through() {
            // The interrupted send was answered, and saw that what was sent on is answered, too.
            let (count, place) = (batch.records.len() as u64, place(sequence, &batch, 0));
            self.update(|totals| totals.unknown.add(count, place));
            return Ok(());
        }
        let lagging: Vec<String> = self.routes.keys().cloned().collect();
        for endpoint in &lagging {
            self.catch_up(endpoint, sequence.saturating_sub(LAG)).await?;
        }
        let bytes = self.home.send(sequence, batch).await?;
        self.update(|totals| totals.bytes += bytes as u64);
        while self.home.waiting() >= AHEAD {
            self.take_home_answer().await?;
        }
        Ok(())
    }

    async fn finish(mut self, is_all: bool) -> Result<(), Stopped> {
        while self.home.waiting() > 0 {
            self.take_home_answer().await?;
        }
        let endpoints: Vec<String> = self.routes.keys().cloned().collect();
        for endpoint in &endpoints {
            self.take_route_answers(endpoint, 0).await?;
        }
        if self.options.complete && is_all {
            let now = wall_clock().as_microsecond();
            for line in [&mut self.home].into_iter().chain(self.routes.values_mut()) {
                line.promise(now).await?;
                line.settle().await?;
            }
        }
        Ok(())
    }

    /// Takes one answer. Records that belong elsewhere are sent on.
    async fn take_home_answer(&mut self) -> Result<(), Stopped> {
        let answer = self.home.answer().await?;
        let Some((sequence, batch, response)) = self.settle(answer) else { return Ok(()) };
        let mut elsewhere: BTreeMap<Elsewhere, Vec<u32>> = BTreeMap::new();
        for refusal in &response.refusals {
            match &refusal.route {
                Some(route) if self.options.follow => {
                    let [gateway, endpoint, identity] =
                        [&route.gateway, &route.endpoint, &route.identity].map(String::clone);
                    let gateway = Elsewhere { gateway, endpoint, identity };
                    elsewhere.entry(gateway).or_default().extend(run(refusal));
                }
                _ => self.refused(sequence, &batch, refusal),
            }
        }
        for (gateway, positions) in elsewhere {
            let batch = batch.select(&positions).map_err(Stopped::Input)?;
            self.send_on(sequence, gateway, batch).await?;
        }
        Ok(())
    }

    async fn send_on(&mut self, sequence: u64, to: Elsewhere, batch: Batch) -> Result<(), Stopped> {
        let count = batch.records.len() as u64;
        let is_there = self.reach(&to).await;
        let Elsewhere { gateway, endpoint, .. } = to;
        if !is_there {
            let place = place(sequence, &batch, 0);
            self.update(|totals| totals.unreachable.entry(gateway).or_default().add(count, place));
            return Ok(());
        }
        self.update(|totals| *totals.redirected.entry(gateway).or_default() += count);
        if let Some(line) = self.routes.get_mut(&endpoint) {
            let bytes = line.send(sequence, batch).await?;
            self.update(|totals| totals.bytes += bytes as u64);
        }
        self.take_route_answers(&endpoint, AHEAD - 1).await
    }

    /// Whether another gateway answers. One that does not is tried again after a while, and mentioned once.
    async fn reach(&mut self, to: &Elsewhere) -> bool {
        let Elsewhere { gateway, endpoint, .. } = to;
        if self.routes.contains_key(endpoint) {
            return true;
        }
        let known = self.away.get(endpoint).copied();
        if known.is_some_and(|until| self.clock.now() < until) {
            return false;
        }
        let opened = Line::follow(to, self.options, self.totals).await;
        let notice = match opened {
            Ok(line) => {
                self.routes.insert(endpoint.clone(), line);
                self.away.remove(endpoint);
                known.map(|_| format!("{gateway} answers now"))
            }
            Err(error) => {
                self.away.insert(endpoint.clone(), self.clock.now() + AWAY);
                let seconds = AWAY.as_secs();
                known.is_none().then(|| {
                    format!("{gateway} is unreachable, its records are not sent; trying every {seconds} s: {error}")
                })
            }
        };
        self.update(|totals| totals.notices.extend(notice));
        self.routes.contains_key(endpoint)
    }

    /// Waits for what another gateway was sent up to a sequence.
    async fn catch_up(&mut self, endpoint: &str, sequence: u64) -> Result<(), Stopped> {
        let lags = |line: &&mut Line| line.first_unanswered().is_some_and(|first| first <= sequence);
        while let Some(line) = self.routes.get_mut(endpoint).filter(lags) {
            let answer = line.answer().await?;
            self.take_route_answer(answer);
        }
        Ok(())
    }

    /// Takes answers of another gateway until no more than so many are missing.
    async fn take_route_answers(&mut self, endpoint: &str, missing: usize) -> Result<(), Stopped> {
        while let Some(line) = self.routes.get_mut(endpoint).filter(|line| line.waiting() > missing) {
            let answer = line.answer().await?;
            self.take_route_answer(answer);
        }
        Ok(())
    }

    /// What is refused elsewhere is refused for good.
    fn take_route_answer(&self, answer: Answer) {
        if let Some((sequence, batch, response)) = self.settle(answer) {
            response.refusals.iter().for_each(|refusal| self.refused(sequence, &batch, refusal));
        }
    }

    /// Counts what was taken in; what was refused as a whole is settled with that.
    fn settle(&self, Answer { sequence, batch, was_durable, came }: Answer) -> Option<(u64, Batch, PublishResponse)> {
        let batch = batch?;
        let (count, place) = (batch.records.len() as u64, place(sequence, &batch, 0));
        match came {
            Ok(response) => {
                self.update(|totals| {
                    totals.dropped_values += u64::from(response.dropped_values);
                    let accepted = u64::from(response.accepted);
                    match was_durable && response.duplicate {
                        true => totals.durable_before += accepted,
                        false => totals.accepted += accepted,
                    }
                });
                Some((sequence, batch, response))
            }
            Err(kind) => {
                self.update(|totals| match kind.reason.as_str() {
                    "outcome_unknown" => totals.unknown.add(count, place),
                    _ => totals.refuse(kind, count, place),
                });
                None
            }
        }
    }

    fn refused(&self, sequence: u64, batch: &Batch, refusal: &Refusal) {
        let (run, place) = (run(refusal), place(sequence, batch, refusal.index));
        self.update(|totals| totals.refuse(Kind::of(refusal), run.len() as u64, place));
    }
}

/// The positions of the records that a refusal is about.
fn run(refusal: &Refusal) -> Range<u32> {
    refusal.index..refusal.index.saturating_add(refusal.count.max(1))
}

fn place(sequence: u64, batch: &Batch, position: u32) -> Option<Place> {
    let line = batch.lines.get(position as usize)?;
    Some(Place { batch: sequence, line: *line, name: Arc::clone(&batch.name) })
}

/// Reads the inputs on a thread of their own: stdin may block, and the rest has to go on. An error is the last.
fn read(inputs: Vec<Ready>, size: usize, opening: Opening) -> Read {
    let (batches, read) = mpsc::channel(READ_AHEAD);
    tokio::task::spawn_blocking(move || {
        let result = inputs.into_iter().try_for_each(|Ready { input, sum }| {
            opening.set(input.is_pipe().then(|| input.name()));
            let opened = input.batches(size);
            opening.set(None);
            let mut left = opened.map_err(Stopped::Input)?;
            while let Some(batch) = left.next().map_err(Stopped::Input)? {
                // Nobody takes batches any more: the send has ended.
                if batches.blocking_send(Ok(batch)).is_err() {
                    return Ok(());
                }
            }
            match sum {
                Some((_, sum)) if sum != left.sum() => Err(Stopped::Changed(input.name())),
                _ => Ok(()),
            }
        });
        if let Err(error) = result {
            // As above.
            let _ = batches.blocking_send(Err(error));
        }
    });
    read
}
