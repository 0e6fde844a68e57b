//! Producers' series of requests: what was taken already, what comes next, who was superseded.
//!
//! A producer numbers its requests 1, 2, 3, ... in an epoch. One high-water mark per producer says what was taken: a
//! request at or below it was, the next one is expected, one above that leaves a gap. A greater epoch begins anew and
//! fences the lesser ones. Beside the mark stands what the last requests came to, for repeats of them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::addresses::{Addresses, Network};
use super::binary::{Reader, Writer};
use super::identities::Identities;
use super::newcomers::Newcomers;
use super::outcome::Outcome;
use super::outcomes::{Outcomes, Packed};
use super::recency::{Id, Recency, Values};
use super::window::micros;

mod name;

pub use name::{NoProducerName, ProducerName, Series, speaker_of};

/// How a producer numbers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number {
    /// The series. 0 where the producer names none: any epoch that it begins is greater.
    pub epoch: u64,
    /// The request's number in it, from 1.
    pub sequence: u64,
}

impl Number {
    /// What it says of a request with records, of a producer that is so far. `None`: the producer is not known.
    ///
    /// # Errors
    /// When the request cannot be taken.
    pub fn after(self, mark: Option<Mark>) -> Result<Position, OutOfOrder> {
        let mark = self.in_epoch(mark)?;
        let expected = mark.sequence.saturating_add(1);
        match self.sequence {
            sequence if sequence <= mark.sequence => Ok(Position::Taken),
            sequence if sequence == expected => Ok(Position::Next),
            _ => Err(OutOfOrder::Gap { expected }),
        }
    }

    /// What it says of a request that declares that nothing comes under the numbers up to it. Such a request begins a
    /// greater epoch even with the number 0.
    ///
    /// # Errors
    /// When the request cannot be taken.
    pub fn skipping_after(self, mark: Option<Mark>) -> Result<Position, OutOfOrder> {
        let is_known = mark.unwrap_or_default().epoch == self.epoch;
        let mark = self.in_epoch(mark)?;
        Ok(if is_known && self.sequence <= mark.sequence { Position::Taken } else { Position::Next })
    }

    fn in_epoch(self, mark: Option<Mark>) -> Result<Mark, OutOfOrder> {
        match mark {
            None => Ok(Mark::default()),
            Some(mark) if self.epoch < mark.epoch => Err(OutOfOrder::Fenced { epoch: mark.epoch }),
            Some(mark) if self.epoch > mark.epoch => Ok(Mark { epoch: self.epoch, ..Mark::default() }),
            Some(mark) => Ok(mark),
        }
    }
}

/// Why a request cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutOfOrder {
    /// Requests are missing before it.
    Gap {
        /// The sequence that comes next.
        expected: u64,
    },
    /// The producer has begun a greater epoch.
    Fenced {
        /// That epoch.
        epoch: u64,
    },
    /// There is no room for another producer.
    TooMany(TooMany),
}

/// A limit on the number of producers that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// Of those that are active on the stream.
    #[error("{max} producers are active on this stream, as many as may be (`limits.producers_active_max`)")]
    Active {
        /// The limit.
        max: usize,
    },
    /// Of those that are active on the stream from one address.
    #[error(
        "{max} producers are active on this stream from your network address, as many as may be \
         (`limits.producers_per_address_max`)"
    )]
    ActiveOfAddress {
        /// The limit.
        max: usize,
    },
    /// Of those that are active on the stream from one identity.
    #[error(
        "{max} producers are active on this stream from your identity, as many as may be \
         (`limits.producers_per_identity_max`)"
    )]
    ActiveOfIdentity {
        /// The limit.
        max: usize,
    },
    /// Of those whose numbers are remembered.
    #[error(
        "the numbers of {max} producers are remembered, as many as may be (`limits.producers_remembered_max`); send \
         without numbers, or under a name that is known"
    )]
    Remembered {
        /// The limit.
        max: usize,
    },
    /// Of those from one address whose numbers are remembered.
    #[error(
        "the numbers of {max} producers from your network address are remembered, as many as may be \
         (`limits.producers_per_address_max`); send without numbers, or under a name that is known"
    )]
    RememberedOfAddress {
        /// The limit.
        max: usize,
    },
    /// Of those from one identity whose numbers are remembered.
    #[error(
        "the numbers of {max} producers from your identity are remembered, as many as may be \
         (`limits.producers_per_identity_max`); send without numbers, or under a name that is known"
    )]
    RememberedOfIdentity {
        /// The limit.
        max: usize,
    },
}

/// What a number says of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// It comes next.
    Next,
    /// It was taken before.
    Taken,
}

/// How far a producer is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// Its series.
    pub epoch: u64,
    /// The greatest sequence that was taken.
    pub sequence: u64,
    /// The position of the journal that holds it: what is durable through it is durable through the sequence.
    pub lsn: u64,
}

/// How many numbered producers are remembered, and for how long at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RememberedMax {
    /// In all.
    pub in_all: usize,
    /// That came from one network address since the start; of IPv6 from one network of 64 bits.
    pub per_address: usize,
    /// That one proved identity spoke as since the start.
    pub per_identity: usize,
    /// A producer that was silent for longer is forgotten when a limit is reached, the one that was silent longest first.
    /// Its requests, sent again after that, would be counted again.
    pub forget_after: Duration,
}

impl Default for RememberedMax {
    fn default() -> Self {
        let forget_after = Duration::from_secs(30 * 24 * 60 * 60);
        Self { in_all: 1_000_000, per_address: 100_000, per_identity: 100_000, forget_after }
    }
}

/// When, from where and of whom a request came.
#[derive(Debug, Clone, Copy, Default)]
pub struct Came<'c> {
    /// The wall clock, in microseconds since the Unix epoch. `None`: it is not known; it counts as now when it is asked for.
    pub at: Option<i64>,
    /// The network address, if it is known.
    pub from: Option<IpAddr>,
    /// The identity of whoever sent it, if it was proved.
    pub of: Option<&'c str>,
}

/// The most bytes that refusals take in the outcomes of all producers. When they would take more, those of the producers
/// with most are forgotten.
pub const OUTCOMES_BYTES_MAX: usize = 32 << 20;

/// The marks of all producers, and what their last requests came to.
#[derive(Debug, Default, Clone)]
pub struct Producers {
    /// In the order of their last requests.
    known: Recency<Known>,
    max: RememberedMax,
    /// How many came from an address since the start.
    addresses: Addresses,
    /// How many an identity spoke as since the start.
    identities: Identities,
    /// What all outcomes take beyond the least.
    outcomes_bytes: usize,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Known {
    mark: Mark,
    outcomes: Outcomes,
    /// When its last request came.
    heard: When,
    /// Where its first request since the start came from.
    from: Option<Network>,
    /// The identity of its first request since the start.
    of: Option<Arc<str>>,
}

/// A time, as far as it is known, in microseconds since the Unix epoch. It takes eight bytes less than an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct When(i64);

impl When {
    /// A time that no clock shows.
    const UNKNOWN: i64 = i64::MIN;

    fn get(self) -> Option<i64> {
        (self.0 != Self::UNKNOWN).then_some(self.0)
    }
}

impl Default for When {
    fn default() -> Self {
        Self(Self::UNKNOWN)
    }
}

impl From<Option<i64>> for When {
    fn from(at: Option<i64>) -> Self {
        Self(at.unwrap_or(Self::UNKNOWN))
    }
}

impl Producers {
    /// No producer is known.
    #[must_use]
    pub fn new(max: RememberedMax) -> Self {
        Self { max, ..Self::default() }
    }

    /// Makes room for a producer beside newcomers that are taken in before it, if it is neither known nor among them. Says
    /// whether it is a newcomer itself. One that was silent for long may be forgotten for it.
    ///
    /// # Errors
    /// Which limit is reached.
    pub fn admit(&mut self, producer: &str, came: Came<'_>, before: &Newcomers<'_>) -> Result<bool, TooMany> {
        if self.known.find(producer).is_some() || before.contains(producer) {
            return Ok(false);
        }
        while let Some(limit) = self.reached(came, before) {
            if !self.forget_oldest(came, &limit) {
                return Err(limit);
            }
        }
        Ok(true)
    }

    /// Whether [`Self::admit`] may find room. Nobody is forgotten yet.
    ///
    /// # Errors
    /// Which limit is reached, and stays so.
    pub fn may_admit(&mut self, producer: &str, came: Came<'_>, before: &Newcomers<'_>) -> Result<bool, TooMany> {
        if self.known.find(producer).is_some() || before.contains(producer) {
            return Ok(false);
        }
        if let Some(limit) = self.reached(came, before)
            && self.forgettable(came, &limit).is_none()
        {
            return Err(limit);
        }
        Ok(true)
    }

    fn reached(&self, came: Came<'_>, before: &Newcomers<'_>) -> Option<TooMany> {
        let RememberedMax { in_all, per_address, per_identity, .. } = self.max;
        let from_address =
            came.from.map(Network::of).map_or(0, |network| self.addresses.count(network) + before.from(network));
        let of_identity = came.of.map_or(0, |identity| self.identities.count(identity) + before.of(identity));
        if self.known.len() + before.count() >= in_all {
            return Some(TooMany::Remembered { max: in_all });
        }
        if from_address >= per_address {
            return Some(TooMany::RememberedOfAddress { max: per_address });
        }
        (of_identity >= per_identity).then_some(TooMany::RememberedOfIdentity { max: per_identity })
    }

    /// The producer that was silent longest, if that is long enough, and if there is room below a limit without it.
    fn forgettable(&mut self, came: Came<'_>, limit: &TooMany) -> Option<Id> {
        let wall = came.at?;
        let id = self.known.oldest().map(|(id, _)| id)?;
        let oldest = self.known.get_mut(id)?;
        // A time that is not known, or that the clock has not come to, counts as now.
        let heard = oldest.heard.get().unwrap_or(wall).min(wall);
        oldest.heard = When(heard);
        // Nobody is forgotten for the limit of others.
        let makes_room = match limit {
            TooMany::RememberedOfAddress { .. } => oldest.from.is_some() && oldest.from == came.from.map(Network::of),
            TooMany::RememberedOfIdentity { .. } => oldest.of.is_some() && oldest.of.as_deref() == came.of,
            _ => true,
        };
        (makes_room && wall.saturating_sub(heard) > micros(self.max.forget_after)).then_some(id)
    }

    /// Forgets [that one](Self::forgettable).
    fn forget_oldest(&mut self, came: Came<'_>, limit: &TooMany) -> bool {
        let Some(id) = self.forgettable(came, limit) else { return false };
        if let Some((_, forgotten)) = self.known.remove(id) {
            self.outcomes_bytes = self.outcomes_bytes.saturating_sub(forgotten.outcomes.extra_bytes());
            forgotten.from.into_iter().for_each(|address| self.addresses.remove(address));
            forgotten.of.into_iter().for_each(|identity| self.identities.remove(&identity));
        }
        if self.known.is_sparse() {
            self.known.compact();
            self.addresses.shrink();
            self.identities.shrink();
        }
        true
    }

    fn get(&self, producer: &str) -> Option<&Known> {
        self.known.get(self.known.find(producer)?)
    }

    fn get_mut(&mut self, producer: &str) -> Option<&mut Known> {
        self.known.get_mut(self.known.find(producer)?)
    }

    /// How far a producer is; the start, when it is not known.
    #[must_use]
    pub fn mark(&self, producer: &str) -> Mark {
        self.get(producer).map(|known| known.mark).unwrap_or_default()
    }

    /// How far a producer is, if it is known.
    #[must_use]
    pub fn known(&self, producer: &str) -> Option<Mark> {
        self.get(producer).map(|known| known.mark)
    }

    /// What a number says of a request with records.
    ///
    /// # Errors
    /// When the request cannot be taken.
    pub fn locate(&self, producer: &str, number: Number) -> Result<Position, OutOfOrder> {
        number.after(self.known(producer))
    }

    /// A request was taken, and the journal holds it at this position. Numbers that it leaves out came to nothing.
    /// Without an outcome it is not known what it came to.
    pub fn take(&mut self, producer: &str, number: Number, lsn: u64, outcome: Option<&Outcome>, came: Came<'_>) {
        let Number { epoch, sequence } = number;
        let mark = Mark { epoch, sequence, lsn };
        let from = came.from.map(Network::of);
        let id = match self.known.find(producer) {
            Some(id) => {
                self.known.touch(id);
                Some(id)
            }
            None => self.known.insert(producer, Known::default()),
        };
        let Some(known) = id.and_then(|id| self.known.get_mut(id)) else { return };
        known.heard = came.at.into();
        if let (None, Some(from)) = (known.from, from) {
            known.from = Some(from);
            self.addresses.add(from);
        }
        if let (None, Some(identity)) = (&known.of, came.of) {
            known.of = Some(self.identities.add(identity));
        }
        let before = known.outcomes.extra_bytes();
        if known.mark.epoch != epoch {
            known.outcomes.forget();
            known.mark = Mark { epoch, sequence: 0, lsn };
        }
        let next = known.mark.sequence.saturating_add(1);
        if let Some(outcome) = outcome.filter(|_| next <= sequence) {
            if next < sequence {
                known.outcomes.push(next, sequence - 1, &Outcome::nothing());
            }
            known.outcomes.push(sequence, sequence, outcome);
        }
        known.mark = mark;
        self.outcomes_bytes = self.outcomes_bytes.saturating_sub(before) + known.outcomes.extra_bytes();
        if self.outcomes_bytes > OUTCOMES_BYTES_MAX {
            self.forget_outcomes(producer);
        }
    }

    /// What a request that was taken came to. `None`: that is not remembered.
    #[must_use]
    pub fn outcome(&self, producer: &str, number: Number) -> Option<Packed> {
        let known = self.get(producer).filter(|known| known.mark.epoch == number.epoch)?;
        known.outcomes.of(number.sequence)
    }

    /// A request came to something else than was said when it was taken.
    pub fn correct(&mut self, producer: &str, number: Number, outcome: &Outcome) {
        let known = self.get_mut(producer).filter(|known| known.mark.epoch == number.epoch);
        let Some(known) = known else { return };
        let before = known.outcomes.extra_bytes();
        known.outcomes.correct(number.sequence, outcome);
        let after = known.outcomes.extra_bytes();
        self.outcomes_bytes = self.outcomes_bytes.saturating_sub(before) + after;
    }

    /// Forgets the outcomes of the producers that take most, until half of the room is free, but not those of `but`.
    fn forget_outcomes(&mut self, but: &str) {
        let mut sizes: Vec<usize> = self.known.iter().map(|(.., known)| known.outcomes.extra_bytes()).collect();
        sizes.sort_unstable_by(|one, other| other.cmp(one));
        let mut left = self.outcomes_bytes;
        let least = sizes.into_iter().take_while(|size| {
            let is_over = left > OUTCOMES_BYTES_MAX / 2;
            left = left.saturating_sub(*size);
            is_over
        });
        let least = least.last().unwrap_or(0).max(1);
        let large =
            self.known.iter().filter(|(_, producer, known)| known.outcomes.extra_bytes() >= least && *producer != but);
        for id in large.map(|(id, ..)| id).collect::<Vec<_>>() {
            if let Some(known) = self.known.get_mut(id) {
                known.outcomes.forget();
            }
        }
        self.outcomes_bytes = self.known.iter().map(|(.., known)| known.outcomes.extra_bytes()).sum();
    }

    /// Adds the marks and the outcomes to a checkpoint.
    pub fn encode(&self, writer: &mut Writer) {
        encode(&self.known.values(), writer);
    }

    /// What [`Self::encode`] would write now, to be written later, by another thread.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.known.values())
    }

    /// Reads what [`Self::encode`] wrote. They stand in the order of their last requests.
    pub fn decode(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        self.read(reader, |reader| Some((reader.option()?, Outcomes::decode(reader)?)))
    }

    /// Reads the marks of a checkpoint of version 3, which does not say when a producer was heard.
    pub fn decode_v3(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        self.read(reader, |reader| Some((None, Outcomes::decode(reader)?)))
    }

    /// Reads the marks of a checkpoint of version 2, which holds no outcomes either.
    pub fn decode_v2(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        self.read(reader, |_| Some((None, Outcomes::default())))
    }

    fn read(
        &mut self,
        reader: &mut Reader<'_>,
        mut rest: impl FnMut(&mut Reader<'_>) -> Option<(Option<i64>, Outcomes)>,
    ) -> Option<()> {
        for _ in 0..reader.count(32)? {
            let producer = reader.text()?;
            let mark = Mark { epoch: reader.u64()?, sequence: reader.u64()?, lsn: reader.u64()? };
            let (heard, outcomes) = rest(reader)?;
            self.outcomes_bytes += outcomes.extra_bytes();
            self.known.insert(producer, Known { mark, outcomes, heard: heard.into(), from: None, of: None })?;
        }
        Some(())
    }
}

/// The producers as they were at some time. It is taken in a moment, whatever their number: it shares with them what
/// does not change.
#[derive(Debug)]
pub struct Snapshot(Values<Known>);

impl Snapshot {
    /// As [`Producers::encode`].
    pub fn encode(&self, writer: &mut Writer) {
        encode(&self.0, writer);
    }
}

fn encode(known: &Values<Known>, writer: &mut Writer) {
    writer.count(known.len());
    for (_, producer, Known { mark, outcomes, heard, .. }) in known.iter() {
        writer.text(producer).u64(mark.epoch).u64(mark.sequence).u64(mark.lsn).option(heard.get());
        outcomes.encode(writer);
    }
}

#[cfg(test)]
mod tests;
