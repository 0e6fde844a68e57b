//! Producers' series of requests: what was taken already, what comes next, who was superseded.
//!
//! A producer numbers its requests 1, 2, 3, ... in an epoch. One high-water mark per producer is all that is
//! kept: a request at or below it was taken, the next one is expected, one above that leaves a gap. A
//! greater epoch begins anew and fences the lesser ones.

use std::collections::BTreeMap;

use super::binary::{Reader, Writer};

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

/// The marks of all producers.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Producers {
    marks: BTreeMap<String, Mark>,
}

impl Producers {
    /// How far a producer is; the start, when it is not known.
    #[must_use]
    pub fn mark(&self, producer: &str) -> Mark {
        self.marks.get(producer).copied().unwrap_or_default()
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
        match self.marks.get(producer) {
            None if self.marks.len() >= PRODUCERS_MAX => Err(OutOfOrder::TooMany),
            None => Ok(Mark::default()),
            Some(mark) if epoch < mark.epoch => Err(OutOfOrder::Fenced { epoch: mark.epoch }),
            Some(mark) if epoch > mark.epoch => Ok(Mark { epoch, ..Mark::default() }),
            Some(mark) => Ok(*mark),
        }
    }

    /// A request was taken, and the journal holds it at this position.
    pub fn take(&mut self, producer: &str, number: Number, lsn: Lsn) {
        let mark = Mark { epoch: number.epoch, sequence: number.sequence, lsn };
        match self.marks.get_mut(producer) {
            Some(known) => *known = mark,
            None => {
                self.marks.insert(producer.to_owned(), mark);
            }
        }
    }

    /// Adds the marks to a checkpoint.
    pub fn encode(&self, writer: &mut Writer) {
        writer.count(self.marks.len());
        for (producer, mark) in &self.marks {
            writer.text(producer).u64(mark.epoch).u64(mark.sequence).u64(mark.lsn);
        }
    }

    /// Reads the marks of a checkpoint.
    pub fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let mut marks = BTreeMap::new();
        for _ in 0..reader.count(32)? {
            let producer = reader.text()?.to_owned();
            marks.insert(producer, Mark { epoch: reader.u64()?, sequence: reader.u64()?, lsn: reader.u64()? });
        }
        Some(Self { marks })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const fn number(epoch: u64, sequence: u64) -> Number {
        Number { epoch, sequence }
    }

    #[test]
    fn a_series_starts_at_one_and_leaves_nothing_out() {
        let mut producers = Producers::default();
        assert_eq!(producers.locate("a", number(1, 2)), Err(OutOfOrder::Gap { expected: 1 }));
        assert_eq!(producers.locate("a", number(1, 1)), Ok(Position::Next));
        producers.take("a", number(1, 1), 10);
        assert_eq!(producers.locate("a", number(1, 1)), Ok(Position::Taken));
        assert_eq!(producers.locate("a", number(1, 3)), Err(OutOfOrder::Gap { expected: 2 }));
        assert_eq!(producers.locate("b", number(1, 2)), Err(OutOfOrder::Gap { expected: 1 }), "another producer");
    }

    #[test]
    fn a_greater_epoch_begins_anew_and_fences_the_lesser_one() {
        let mut producers = Producers::default();
        producers.take("a", number(5, 7), 10);
        assert_eq!(producers.locate("a", number(6, 1)), Ok(Position::Next));
        assert_eq!(producers.locate("a", number(6, 8)), Err(OutOfOrder::Gap { expected: 1 }));
        producers.take("a", number(6, 1), 11);
        assert_eq!(producers.locate("a", number(5, 8)), Err(OutOfOrder::Fenced { epoch: 6 }));
        assert_eq!(producers.locate_skip("a", number(5, 9)), Err(OutOfOrder::Fenced { epoch: 6 }));
    }

    #[test]
    fn a_skip_may_leave_numbers_out() {
        let mut producers = Producers::default();
        assert_eq!(producers.locate_skip("a", number(1, 40)), Ok(Position::Next));
        producers.take("a", number(1, 40), 1);
        assert_eq!(producers.locate_skip("a", number(1, 40)), Ok(Position::Taken));
        assert_eq!(producers.locate_skip("a", number(2, 0)), Ok(Position::Next), "begins the epoch");
        assert_eq!(producers.locate("a", number(1, 41)), Ok(Position::Next));
    }

    #[test]
    fn sequences_near_the_end_do_not_wrap() {
        let mut producers = Producers::default();
        producers.take("a", number(u64::MAX, u64::MAX - 1), 1);
        assert_eq!(producers.locate("a", number(u64::MAX, u64::MAX)), Ok(Position::Next));
        producers.take("a", number(u64::MAX, u64::MAX), 2);
        assert_eq!(producers.locate("a", number(u64::MAX, u64::MAX)), Ok(Position::Taken));
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
                    producers.take(&name, number(epoch, sequence), lsn as u64);
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
