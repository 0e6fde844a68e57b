//! The watermark of one stream: the least event time that any active producer may still be expected to send.
//!
//! A producer is **active** from the first word of it until it has been silent for longer than `idle_after`; then it
//! is **idle**. What comes from it after that begins anew. While producers are active, the watermark is the least of
//! their newest event times; one that is there and has not sent yet holds it where it is. When all are idle, the
//! watermark goes on with the clock, so that the last windows close too: it is the furthest of what each idle producer
//! had come to, plus the time for which it has been silent.
//!
//! Costs: a word of a producer takes O(log n) of the active ones, the watermark itself amortised O(1). An idle producer
//! takes no memory. All that is remembered of idle ones is the furthest of their lines, because all lines move at the
//! same pace: the one that is ahead stays ahead.
//!
//! Times come in as arguments. Event time is the records', in microseconds; `now` is monotonic.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::addresses::{Addresses, Network};
use super::binary::{Reader, Writer};
use super::identities::Identities;
use super::newcomers::Newcomers;
use super::producer::TooMany;
use super::recency::{Id, Recency, Values};

/// How many producers may be active on one stream. A name costs memory until its producer is idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveMax {
    /// In all.
    pub in_all: usize,
    /// From one network address; of IPv6 from one network of 64 bits.
    pub per_address: usize,
    /// Of one proved identity.
    pub per_identity: usize,
}

impl Default for ActiveMax {
    fn default() -> Self {
        Self { in_all: 1_000_000, per_address: 100_000, per_identity: 100_000 }
    }
}

/// Who was heard.
#[derive(Debug, Clone, Copy)]
pub struct Heard<'h> {
    /// The producer's name.
    pub producer: &'h str,
    /// Where it is, if that is known.
    pub address: Option<IpAddr>,
    /// The identity of whoever speaks as it, if that was proved.
    pub identity: Option<&'h str>,
    /// The event time that it has come to, by a record or a promise, in microseconds since the Unix epoch.
    pub event_time: Option<i64>,
}

/// How far the producers of a stream have come.
#[derive(Debug)]
pub struct Watermark {
    /// Nanoseconds.
    idle_after: i64,
    max: ActiveMax,
    /// The active ones, in the order in which they were heard.
    active: Recency<Progress>,
    /// The event times of those that have sent.
    times: BTreeSet<(i64, Id)>,
    /// How many are active from an address.
    addresses: Addresses,
    /// How many of an identity are active.
    identities: Identities,
    /// Of the idle producers: the furthest event time minus the time when it was heard last, in nanoseconds.
    line: Option<i128>,
    /// Never goes back.
    reached: Option<i64>,
    /// The latest time that came in.
    now: i64,
}

#[derive(Debug, Clone)]
struct Progress {
    /// The newest event time seen or promised. `None`: the producer is there and has not sent yet.
    newest: Option<i64>,
    /// When it was heard last, in nanoseconds. Negative: before this process began.
    heard: i64,
    address: Option<Network>,
    identity: Option<Arc<str>>,
}

impl Watermark {
    /// A watermark that no producer has moved.
    #[must_use]
    pub fn new(idle_after: Duration, max: ActiveMax) -> Self {
        Self {
            idle_after: nanos(idle_after),
            max,
            active: Recency::default(),
            times: BTreeSet::new(),
            addresses: Addresses::default(),
            identities: Identities::default(),
            line: None,
            reached: None,
            now: 0,
        }
    }

    /// Whether there is room for a producer beside newcomers that are taken in before it: it is active or among them, or
    /// one more may be. Says whether it is a newcomer itself.
    ///
    /// # Errors
    /// Which limit is reached.
    pub fn admit(&mut self, heard: Heard<'_>, now: Duration, before: &Newcomers<'_>) -> Result<bool, TooMany> {
        let Heard { producer, address, identity, .. } = heard;
        self.pass(now);
        if self.active.find(producer).is_some() || before.contains(producer) {
            return Ok(false);
        }
        let from_address =
            address.map(Network::of).map_or(0, |network| self.addresses.count(network) + before.from(network));
        if self.active.len() + before.count() >= self.max.in_all {
            return Err(TooMany::Active { max: self.max.in_all });
        }
        if from_address >= self.max.per_address {
            return Err(TooMany::ActiveOfAddress { max: self.max.per_address });
        }
        let of_identity = identity.map_or(0, |identity| self.identities.count(identity) + before.of(identity));
        if of_identity >= self.max.per_identity {
            return Err(TooMany::ActiveOfIdentity { max: self.max.per_identity });
        }
        Ok(true)
    }

    /// A producer was heard, and perhaps has come to an event time.
    pub fn observe(&mut self, heard: Heard<'_>, now: Duration) {
        self.pass(now);
        let at = self.now;
        let Some(id) = self.active.find(heard.producer) else {
            return self.begin(heard, at);
        };
        self.active.touch(id);
        let Some(progress) = self.active.get_mut(id) else { return };
        progress.heard = at;
        let before = progress.newest;
        progress.newest = before.max(heard.event_time);
        if let (false, Some(newest)) = (progress.newest == before, progress.newest) {
            if let Some(before) = before {
                self.times.remove(&(before, id));
            }
            self.times.insert((newest, id));
        }
    }

    /// The watermark. `None` while no producer has sent, or an active one has not sent yet and none has before.
    pub fn at(&mut self, now: Duration) -> Option<i64> {
        self.pass(now);
        let come_to = if self.active.is_empty() {
            self.line.map(|line| floor_micros(line + i128::from(self.now)))
        } else if self.times.len() == self.active.len() {
            self.times.first().map(|(time, _)| *time)
        } else {
            None
        };
        self.reached = self.reached.max(come_to);
        self.reached
    }

    /// How many producers are active.
    #[must_use]
    pub fn active(&self) -> usize {
        self.active.len()
    }

    fn begin(&mut self, heard: Heard<'_>, at: i64) {
        let Heard { producer, address, identity, event_time: newest } = heard;
        let address = address.map(Network::of);
        let progress = Progress { newest, heard: at, address, identity: None };
        let Some(id) = self.active.insert(producer, progress) else { return };
        if let (Some(progress), Some(identity)) = (self.active.get_mut(id), identity) {
            progress.identity = Some(self.identities.add(identity));
        }
        if let Some(newest) = newest {
            self.times.insert((newest, id));
        }
        if let Some(address) = address {
            self.addresses.add(address);
        }
    }

    /// Time has passed: who has been silent for too long is idle.
    fn pass(&mut self, now: Duration) {
        self.now = self.now.max(nanos(now));
        while let Some((id, oldest)) = self.active.oldest()
            && self.now.saturating_sub(oldest.heard) > self.idle_after
        {
            self.end(id);
        }
        if self.active.is_sparse() {
            self.active.compact();
            self.times = self.active.iter().filter_map(|(id, _, progress)| Some((progress.newest?, id))).collect();
            self.addresses.shrink();
            self.identities.shrink();
        }
    }

    fn end(&mut self, id: Id) {
        let Some((_, Progress { newest, heard, address, identity })) = self.active.remove(id) else { return };
        if let Some(newest) = newest {
            self.times.remove(&(newest, id));
            self.line = self.line.max(Some(i128::from(newest) * 1_000 - i128::from(heard)));
        }
        address.into_iter().for_each(|address| self.addresses.remove(address));
        identity.into_iter().for_each(|identity| self.identities.remove(&identity));
    }
}

impl Watermark {
    /// A watermark that a closed window shows to have been reached, before a crash.
    pub fn restore(&mut self, reached: i64) {
        self.reached = self.reached.max(Some(reached));
    }

    /// Adds the state to a checkpoint: the watermark, where the idle producers' line is, and for each active producer
    /// what it has come to and for how long it has been silent. Clocks do not outlive the process; intervals do.
    pub fn encode(&self, writer: &mut Writer) {
        self.snapshot().encode(writer);
    }

    /// What [`Self::encode`] would write now, to be written later, by another thread. It is taken in a moment, whatever
    /// the number of producers.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { active: self.active.values(), line: self.line, reached: self.reached, now: self.now }
    }

    /// Reads the state from a checkpoint into a new watermark. A producer goes on being silent where it was: one that
    /// is gone becomes idle in time, however often the gateway is started.
    pub fn decode(&mut self, reader: &mut Reader<'_>, now: Duration) -> Option<()> {
        self.now = nanos(now);
        self.reached = reader.option()?;
        let has_line = reader.u8()? != 0;
        self.line = Some(reader.i128()? - i128::from(self.now)).filter(|_| has_line);
        let mut earlier = i64::MIN;
        for _ in 0..reader.count(25)? {
            let (producer, event_time) = (reader.text()?, reader.option()?);
            let silent = i64::try_from(reader.u64()?).unwrap_or(i64::MAX);
            earlier = earlier.max(self.now.saturating_sub(silent));
            self.begin(Heard { producer, address: None, identity: None, event_time }, earlier);
        }
        Some(())
    }

    /// Reads the state from a checkpoint of version 3 or less, which does not say when a producer was heard: each counts as
    /// heard `now`.
    pub fn decode_v3(&mut self, reader: &mut Reader<'_>, now: Duration) -> Option<()> {
        self.now = nanos(now);
        self.reached = reader.option()?;
        for _ in 0..reader.count(17)? {
            let (producer, event_time) = (reader.text()?, reader.option()?);
            self.begin(Heard { producer, address: None, identity: None, event_time }, self.now);
        }
        Some(())
    }
}

/// A watermark as it was at some time.
#[derive(Debug)]
pub struct Snapshot {
    active: Values<Progress>,
    line: Option<i128>,
    reached: Option<i64>,
    now: i64,
}

impl Snapshot {
    /// As [`Watermark::encode`].
    pub fn encode(&self, writer: &mut Writer) {
        let line = self.line.map(|line| line + i128::from(self.now));
        writer.option(self.reached).u8(line.is_some().into()).i128(line.unwrap_or(0)).count(self.active.len());
        for (_, producer, progress) in self.active.iter() {
            let silent = self.now.saturating_sub(progress.heard).max(0);
            writer.text(producer).option(progress.newest).u64(silent.cast_unsigned());
        }
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn floor_micros(nanos: i128) -> i64 {
    i64::try_from(nanos.div_euclid(1_000)).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests;
