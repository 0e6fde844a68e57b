//! Producers' series of requests: what was taken already, what comes next, who was superseded.
//!
//! A producer numbers its requests 1, 2, 3, ... in an epoch. One high-water mark per producer says what was taken: a
//! request at or below it was, the next one is expected, one above that leaves a gap. A greater epoch begins anew and
//! fences the lesser ones. Beside the mark stands what the last requests came to, for repeats of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::binary::{Reader, Writer};
use super::outcome::Outcome;
use super::outcomes::Outcomes;

/// A position in the journal.
pub type Lsn = u64;

/// How a producer numbers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number {
    /// The series.
    pub epoch: u64,
    /// The request's number in it, from 1.
    pub sequence: u64,
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
    /// There is no room for another producer's mark.
    TooMany,
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
    /// Where the journal holds it: what is durable through this position is durable through the sequence.
    pub lsn: Lsn,
}

/// The most producers that are remembered.
pub const PRODUCERS_MAX: usize = 1_000_000;

/// The most bytes that refusals take in the outcomes of all producers. When they would take more, those of the producers
/// with most are forgotten.
pub const OUTCOMES_BYTES_MAX: usize = 32 << 20;

/// The marks of all producers, and what their last requests came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Producers {
    known: BTreeMap<Arc<str>, Known>,
    /// What all outcomes take beyond the least.
    outcomes_bytes: usize,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Known {
    mark: Mark,
    outcomes: Outcomes,
}

impl Producers {
    /// How far a producer is; the start, when it is not known.
    #[must_use]
    pub fn mark(&self, producer: &str) -> Mark {
        self.known.get(producer).map(|known| known.mark).unwrap_or_default()
    }

    /// What a number says of a request with records.
    ///
    /// # Errors
    /// When the request cannot be taken.
    pub fn locate(&self, producer: &str, number: Number) -> Result<Position, OutOfOrder> {
        let mark = self.in_epoch(producer, number.epoch)?;
        let expected = mark.sequence.saturating_add(1);
        match number.sequence {
            sequence if sequence <= mark.sequence => Ok(Position::Taken),
            sequence if sequence == expected => Ok(Position::Next),
            _ => Err(OutOfOrder::Gap { expected }),
        }
    }

    /// What a number says of a request that declares that nothing comes under the numbers up to it. Such a
    /// request begins a greater epoch even with the number 0.
    ///
    /// # Errors
    /// When the request cannot be taken.
    pub fn locate_skip(&self, producer: &str, number: Number) -> Result<Position, OutOfOrder> {
        let mark = self.in_epoch(producer, number.epoch)?;
        let is_known = self.mark(producer).epoch == number.epoch;
        Ok(if is_known && number.sequence <= mark.sequence { Position::Taken } else { Position::Next })
    }

    fn in_epoch(&self, producer: &str, epoch: u64) -> Result<Mark, OutOfOrder> {
        match self.known.get(producer).map(|known| known.mark) {
            None if self.known.len() >= PRODUCERS_MAX => Err(OutOfOrder::TooMany),
            None => Ok(Mark::default()),
            Some(mark) if epoch < mark.epoch => Err(OutOfOrder::Fenced { epoch: mark.epoch }),
            Some(mark) if epoch > mark.epoch => Ok(Mark { epoch, ..Mark::default() }),
            Some(mark) => Ok(mark),
        }
    }

    /// A request was taken, and the journal holds it at this position. Numbers that it leaves out came to nothing.
    /// Without an outcome it is not known what it came to.
    pub fn take(&mut self, producer: &str, number: Number, lsn: Lsn, outcome: Option<&Outcome>) {
        let Number { epoch, sequence } = number;
        let mark = Mark { epoch, sequence, lsn };
        if !self.known.contains_key(producer) {
            self.known.insert(producer.into(), Known::default());
        }
        let Some(known) = self.known.get_mut(producer) else { return };
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
    pub fn outcome(&self, producer: &str, number: Number) -> Option<Outcome> {
        let known = self.known.get(producer).filter(|known| known.mark.epoch == number.epoch)?;
        known.outcomes.of(number.sequence)
    }

    /// A request came to something else than was said when it was taken.
    pub fn correct(&mut self, producer: &str, number: Number, outcome: &Outcome) {
        let known = self.known.get_mut(producer).filter(|known| known.mark.epoch == number.epoch);
        let Some(known) = known else { return };
        let before = known.outcomes.extra_bytes();
        known.outcomes.correct(number.sequence, outcome);
        self.outcomes_bytes = self.outcomes_bytes.saturating_sub(before) + known.outcomes.extra_bytes();
    }

    /// Forgets the outcomes of the producers that take most, until half of the room is free, but not those of `but`.
    fn forget_outcomes(&mut self, but: &str) {
        let mut sizes: Vec<usize> = self.known.values().map(|known| known.outcomes.extra_bytes()).collect();
        sizes.sort_unstable_by(|one, other| other.cmp(one));
        let mut left = self.outcomes_bytes;
        let least = sizes.into_iter().take_while(|size| {
            let is_over = left > OUTCOMES_BYTES_MAX / 2;
            left = left.saturating_sub(*size);
            is_over
        });
        let least = least.last().unwrap_or(0).max(1);
        for (producer, known) in &mut self.known {
            if known.outcomes.extra_bytes() >= least && **producer != *but {
                known.outcomes.forget();
            }
        }
        self.outcomes_bytes = self.known.values().map(|known| known.outcomes.extra_bytes()).sum();
    }

    /// Adds the marks and the outcomes to a checkpoint.
    pub fn encode(&self, writer: &mut Writer) {
        writer.count(self.known.len());
        for (producer, Known { mark, outcomes }) in &self.known {
            writer.text(producer).u64(mark.epoch).u64(mark.sequence).u64(mark.lsn);
            outcomes.encode(writer);
        }
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        Self::read(reader, Outcomes::decode)
    }

    /// Reads the marks of a checkpoint of version 2, which holds no outcomes.
    pub fn decode_v2(reader: &mut Reader<'_>) -> Option<Self> {
        Self::read(reader, |_| Some(Outcomes::default()))
    }

    fn read(reader: &mut Reader<'_>, mut outcomes: impl FnMut(&mut Reader<'_>) -> Option<Outcomes>) -> Option<Self> {
        let mut producers = Self::default();
        for _ in 0..reader.count(32)? {
            let producer = reader.text()?.into();
            let mark = Mark { epoch: reader.u64()?, sequence: reader.u64()?, lsn: reader.u64()? };
            let known = Known { mark, outcomes: outcomes(reader)? };
            producers.outcomes_bytes += known.outcomes.extra_bytes();
            producers.known.insert(producer, known);
        }
        Some(producers)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::outcome::Refused;
    use crate::domain::refusal::Reason;

    const fn number(epoch: u64, sequence: u64) -> Number {
        Number { epoch, sequence }
    }

    #[test]
    fn a_series_starts_at_one_and_leaves_nothing_out() {
        let mut producers = Producers::default();
        assert_eq!(producers.locate("a", number(1, 2)), Err(OutOfOrder::Gap { expected: 1 }));
        assert_eq!(producers.locate("a", number(1, 1)), Ok(Position::Next));
        producers.take("a", number(1, 1), 10, None);
        assert_eq!(producers.locate("a", number(1, 1)), Ok(Position::Taken));
        assert_eq!(producers.locate("a", number(1, 3)), Err(OutOfOrder::Gap { expected: 2 }));
        assert_eq!(producers.locate("b", number(1, 2)), Err(OutOfOrder::Gap { expected: 1 }), "another producer");
    }

    #[test]
    fn a_greater_epoch_begins_anew_and_fences_the_lesser_one() {
        let mut producers = Producers::default();
        producers.take("a", number(5, 7), 10, None);
        assert_eq!(producers.locate("a", number(6, 1)), Ok(Position::Next));
        assert_eq!(producers.locate("a", number(6, 8)), Err(OutOfOrder::Gap { expected: 1 }));
        producers.take("a", number(6, 1), 11, None);
        assert_eq!(producers.locate("a", number(5, 8)), Err(OutOfOrder::Fenced { epoch: 6 }));
        assert_eq!(producers.locate_skip("a", number(5, 9)), Err(OutOfOrder::Fenced { epoch: 6 }));
    }

    #[test]
    fn a_skip_may_leave_numbers_out() {
        let mut producers = Producers::default();
        assert_eq!(producers.locate_skip("a", number(1, 40)), Ok(Position::Next));
        producers.take("a", number(1, 40), 1, None);
        assert_eq!(producers.locate_skip("a", number(1, 40)), Ok(Position::Taken));
        assert_eq!(producers.locate_skip("a", number(2, 0)), Ok(Position::Next), "begins the epoch");
        assert_eq!(producers.locate("a", number(1, 41)), Ok(Position::Next));
    }

    #[test]
    fn sequences_near_the_end_do_not_wrap() {
        let mut producers = Producers::default();
        producers.take("a", number(u64::MAX, u64::MAX - 1), 1, None);
        assert_eq!(producers.locate("a", number(u64::MAX, u64::MAX)), Ok(Position::Next));
        producers.take("a", number(u64::MAX, u64::MAX), 2, None);
        assert_eq!(producers.locate("a", number(u64::MAX, u64::MAX)), Ok(Position::Taken));
    }

    #[test]
    fn a_repeat_is_told_what_the_request_came_to_the_first_time() {
        let mut producers = Producers::default();
        let (refused, taken) = (Outcome::refused(Reason::TooLarge), Outcome::nothing());
        producers.take("a", number(1, 1), 1, Some(&refused));
        producers.take("a", number(1, 2), 2, Some(&taken));
        producers.correct("a", number(1, 2), &Outcome::refused(Reason::ModelFailed));
        producers.take("a", number(1, 5), 3, Some(&taken));
        let outcome = |sequence| producers.outcome("a", number(1, sequence));
        assert_eq!(outcome(1), Some(refused));
        assert_eq!(outcome(2), Some(Outcome::refused(Reason::ModelFailed)));
        assert_eq!((outcome(3), outcome(5)), (Some(Outcome::nothing()), Some(taken)), "3 was left out by a skip");
        assert_eq!(producers.outcome("a", number(2, 1)), None, "another epoch");
        producers.take("a", number(2, 0), 4, Some(&Outcome::nothing()));
        assert_eq!(producers.outcome("a", number(1, 1)), None, "an epoch that is over");
    }

    #[test]
    fn outcomes_of_all_producers_together_are_bounded() {
        let mut producers = Producers::default();
        let field: Arc<str> = "x".repeat(200_000).into();
        let outcome = Outcome::Refused(Refused { reason: Reason::TooLarge, field: Some(field) });
        for lsn in 0..400 {
            producers.take(&format!("p{lsn}"), number(1, 1), lsn, Some(&outcome));
            assert!(producers.outcomes_bytes <= OUTCOMES_BYTES_MAX);
        }
        assert_eq!(producers.outcome("p399", number(1, 1)), Some(outcome));
        let kept = (0..400).filter(|lsn| producers.outcome(&format!("p{lsn}"), number(1, 1)).is_some()).count();
        assert!(kept > 50, "{kept}");
    }

    proptest! {
        /// Against the obvious model: the set of everything taken. Whatever is sent again, reordered or left
        /// out, each number is taken once and in order.
        #[test]
        fn everything_is_taken_once_and_in_order(sends in prop::collection::vec((0_u8..2, 1_u64..4, 1_u64..6), 0..80)) {
            let mut producers = Producers::default();
            let mut taken: BTreeSet<(u8, u64, u64)> = BTreeSet::new();
            for (lsn, (producer, epoch, sequence)) in sends.into_iter().enumerate() {
                let name = producer.to_string();
                let newest = taken.iter().filter(|(of, ..)| *of == producer).map(|(_, epoch, _)| *epoch).max();
                let position = producers.locate(&name, number(epoch, sequence));
                let expected = if newest.is_some_and(|newest| epoch < newest) {
                    Err(OutOfOrder::Fenced { epoch: newest.unwrap() })
                } else if taken.contains(&(producer, epoch, sequence)) {
                    Ok(Position::Taken)
                } else if sequence == 1 || taken.contains(&(producer, epoch, sequence - 1)) {
                    Ok(Position::Next)
                } else {
                    let last = taken.iter().filter(|(of, in_epoch, _)| (*of, *in_epoch) == (producer, epoch)).count();
                    Err(OutOfOrder::Gap { expected: last as u64 + 1 })
                };
                prop_assert_eq!(position, expected);
                if position == Ok(Position::Next) {
                    producers.take(&name, number(epoch, sequence), lsn as u64, None);
                    taken.insert((producer, epoch, sequence));
                }
            }
            let mut writer = Writer::default();
            producers.encode(&mut writer);
            let bytes = writer.finish();
            prop_assert_eq!(Producers::decode(&mut Reader::new(&bytes)), Some(producers));
        }
    }
}
