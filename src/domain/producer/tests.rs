use std::collections::BTreeSet;
use std::sync::Arc;

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
    producers.take("a", number(1, 1), 10, None, Came::default());
    assert_eq!(producers.locate("a", number(1, 1)), Ok(Position::Taken));
    assert_eq!(producers.locate("a", number(1, 3)), Err(OutOfOrder::Gap { expected: 2 }));
    assert_eq!(producers.locate("b", number(1, 2)), Err(OutOfOrder::Gap { expected: 1 }), "another producer");
}

#[test]
fn a_greater_epoch_begins_anew_and_fences_the_lesser_one() {
    let mut producers = Producers::default();
    producers.take("a", number(5, 7), 10, None, Came::default());
    assert_eq!(producers.locate("a", number(6, 1)), Ok(Position::Next));
    assert_eq!(producers.locate("a", number(6, 8)), Err(OutOfOrder::Gap { expected: 1 }));
    producers.take("a", number(6, 1), 11, None, Came::default());
    assert_eq!(producers.locate("a", number(5, 8)), Err(OutOfOrder::Fenced { epoch: 6 }));
    assert_eq!(number(5, 9).skipping_after(producers.known("a")), Err(OutOfOrder::Fenced { epoch: 6 }));
}

#[test]
fn a_skip_may_leave_numbers_out() {
    let mut producers = Producers::default();
    assert_eq!(number(1, 40).skipping_after(producers.known("a")), Ok(Position::Next));
    producers.take("a", number(1, 40), 1, None, Came::default());
    assert_eq!(number(1, 40).skipping_after(producers.known("a")), Ok(Position::Taken));
    assert_eq!(number(2, 0).skipping_after(producers.known("a")), Ok(Position::Next), "begins the epoch");
    assert_eq!(producers.locate("a", number(1, 41)), Ok(Position::Next));
}

#[test]
fn sequences_near_the_end_do_not_wrap() {
    let mut producers = Producers::default();
    producers.take("a", number(u64::MAX, u64::MAX - 1), 1, None, Came::default());
    assert_eq!(producers.locate("a", number(u64::MAX, u64::MAX)), Ok(Position::Next));
    producers.take("a", number(u64::MAX, u64::MAX), 2, None, Came::default());
    assert_eq!(producers.locate("a", number(u64::MAX, u64::MAX)), Ok(Position::Taken));
}

#[test]
fn a_repeat_is_told_what_the_request_came_to_the_first_time() {
    let mut producers = Producers::default();
    let (refused, taken) = (Outcome::refused(Reason::TooLarge), Outcome::nothing());
    producers.take("a", number(1, 1), 1, Some(&refused), Came::default());
    producers.take("a", number(1, 2), 2, Some(&taken), Came::default());
    producers.correct("a", number(1, 2), &Outcome::refused(Reason::ModelFailed));
    producers.take("a", number(1, 5), 3, Some(&taken), Came::default());
    let of = |producers: &Producers, producer: &str, number| producers.outcome(producer, number)?.outcome();
    let outcome = |sequence| of(&producers, "a", number(1, sequence));
    assert_eq!(outcome(1), Some(refused));
    assert_eq!(outcome(2), Some(Outcome::refused(Reason::ModelFailed)));
    assert_eq!((outcome(3), outcome(5)), (Some(Outcome::nothing()), Some(taken)), "3 was left out by a skip");
    assert_eq!(producers.outcome("a", number(2, 1)), None, "another epoch");
    producers.take("a", number(2, 0), 4, Some(&Outcome::nothing()), Came::default());
    assert_eq!(producers.outcome("a", number(1, 1)), None, "an epoch that is over");
}

#[test]
fn outcomes_of_all_producers_together_are_bounded() {
    let mut producers = Producers::default();
    let field: Arc<str> = "x".repeat(200_000).into();
    let outcome = Outcome::Refused(Refused { reason: Reason::TooLarge, field: Some(field) });
    for lsn in 0..400 {
        producers.take(&format!("p{lsn}"), number(1, 1), lsn, Some(&outcome), Came::default());
        assert!(producers.outcomes_bytes <= OUTCOMES_BYTES_MAX);
    }
    assert_eq!(producers.outcome("p399", number(1, 1)).and_then(|known| known.outcome()), Some(outcome));
    let kept = (0..400).filter(|lsn| producers.outcome(&format!("p{lsn}"), number(1, 1)).is_some()).count();
    assert!(kept > 50, "{kept}");
}

const DAY: i64 = 24 * 60 * 60 * 1_000_000;

/// A numbered request of a producer comes on a day.
fn come(producers: &mut Producers, producer: &str, from: &str, day: i64) -> Result<(), TooMany> {
    come_of(producers, producer, (from, None), day)
}

/// The same of an identity.
fn come_of(
    producers: &mut Producers,
    producer: &str,
    (from, of): (&str, Option<&str>),
    day: i64,
) -> Result<(), TooMany> {
    let came = Came { at: Some(day * DAY), from: Some(from.parse().unwrap()), of };
    producers.admit(producer, came, &Newcomers::default())?;
    let sequence = producers.mark(producer).sequence + 1;
    producers.take(producer, number(1, sequence), 1, None, came);
    Ok(())
}

#[test]
fn one_address_cannot_use_up_the_room_for_all() {
    let max = RememberedMax { in_all: 5, per_address: 3, ..RememberedMax::default() };
    let mut producers = Producers::new(max);
    for name in ["a", "b", "c", "a"] {
        assert_eq!(come(&mut producers, name, "192.0.2.1", 0), Ok(()));
    }
    let refused = come(&mut producers, "d", "192.0.2.1", 0).unwrap_err();
    assert_eq!(refused, TooMany::RememberedOfAddress { max: 3 });
    assert!(refused.to_string().contains("limits.producers_per_address_max"), "{refused}");
    assert_eq!(come(&mut producers, "d", "192.0.2.2", 0), Ok(()));
    assert_eq!(come(&mut producers, "e", "192.0.2.2", 0), Ok(()));
    assert_eq!(come(&mut producers, "f", "192.0.2.3", 0), Err(TooMany::Remembered { max: 5 }));
}

/// However many addresses it has; and who is forgotten gives the place back.
#[test]
fn one_identity_cannot_use_up_the_room_for_all() {
    let max = RememberedMax { in_all: 5, per_identity: 3, ..RememberedMax::default() };
    let mut producers = Producers::new(max);
    let mut from = 0..;
    let mut come = |producers: &mut Producers, producer: &str, of: Option<&str>, day: i64| {
        come_of(producers, producer, (&format!("192.0.2.{}", from.next().unwrap()), of), day)
    };
    let (office, till) = (Some("spiffe://corp/office"), Some("spiffe://corp/till"));
    for name in ["a", "b", "c", "a"] {
        assert_eq!(come(&mut producers, name, office, 0), Ok(()));
    }
    let refused = come(&mut producers, "d", office, 0).unwrap_err();
    assert_eq!(refused, TooMany::RememberedOfIdentity { max: 3 });
    assert!(refused.to_string().contains("limits.producers_per_identity_max"), "{refused}");
    assert_eq!(come(&mut producers, "d", till, 0), Ok(()));
    assert_eq!(come(&mut producers, "e", None, 0), Ok(()), "it has proved nothing");
    assert_eq!(come(&mut producers, "f", None, 0), Err(TooMany::Remembered { max: 5 }));
    // Nobody else is forgotten for it, however long they were silent.
    let mut producers = Producers::new(max);
    assert_eq!(come(&mut producers, "d", till, 0), Ok(()));
    for name in ["a", "b", "c"] {
        assert_eq!(come(&mut producers, name, office, 40), Ok(()));
    }
    assert_eq!(come(&mut producers, "x", office, 40), Err(TooMany::RememberedOfIdentity { max: 3 }));
    assert_eq!(producers.mark("d").sequence, 1);
    // What one batch brings counts at once.
    let mut producers = Producers::new(max);
    let came = |of| Came { at: Some(0), from: None, of };
    let mut before = Newcomers::default();
    for name in ["a", "b", "c"] {
        assert_eq!(producers.admit(name, came(office), &before), Ok(true));
        before.add(name, None, office);
    }
    assert_eq!(producers.admit("d", came(office), &before), Err(TooMany::RememberedOfIdentity { max: 3 }));
    assert_eq!(producers.admit("d", came(till), &before), Ok(true));
    // Since the start: a checkpoint does not say it, the next request does.
    for name in ["a", "b", "c"] {
        come(&mut producers, name, office, 0).unwrap();
    }
    let mut writer = Writer::default();
    producers.encode(&mut writer);
    let bytes = writer.finish();
    let mut restored = Producers::new(max);
    restored.decode(&mut Reader::new(&bytes)).unwrap();
    for name in ["a", "b", "c"] {
        assert_eq!(restored.identities.count("spiffe://corp/office"), name.as_bytes()[0] as usize - 97);
        come(&mut restored, name, office, 1).unwrap();
    }
    assert_eq!(come(&mut restored, "d", office, 1), Err(TooMany::RememberedOfIdentity { max: 3 }));
    assert_eq!(come(&mut restored, "d", office, 32), Ok(()), "30 days of silence are over");
    assert_eq!(restored.identities.count("spiffe://corp/office"), 3);
}

#[test]
fn a_mark_is_forgotten_only_when_there_is_no_room_and_its_producer_was_silent_for_long() {
    let mut producers = Producers::new(RememberedMax { in_all: 2, ..RememberedMax::default() });
    come(&mut producers, "a", "192.0.2.1", 0).unwrap();
    come(&mut producers, "b", "192.0.2.1", 1).unwrap();
    come(&mut producers, "a", "192.0.2.1", 1000).unwrap();
    assert_eq!(producers.mark("b").sequence, 1, "there was room");
    assert_eq!(come(&mut producers, "c", "192.0.2.1", 31), Err(TooMany::Remembered { max: 2 }), "30 days, not more");
    assert_eq!(come(&mut producers, "c", "192.0.2.1", 32), Ok(()));
    assert_eq!((producers.mark("a").sequence, producers.mark("b")), (2, Mark::default()), "the oldest went");
    assert_eq!(come(&mut producers, "d", "192.0.2.1", 33), Err(TooMany::Remembered { max: 2 }));
    assert_eq!(come(&mut producers, "d", "192.0.2.1", 64), Ok(()), "a time that is yet to come counted as day 33");
}

#[test]
fn when_a_producer_was_heard_outlives_a_restart() {
    let mut producers = Producers::default();
    come(&mut producers, "b", "192.0.2.1", 0).unwrap();
    come(&mut producers, "a", "192.0.2.1", 10).unwrap();
    let mut writer = Writer::default();
    producers.encode(&mut writer);
    let bytes = writer.finish();
    let mut restored = Producers::new(RememberedMax { in_all: 2, ..RememberedMax::default() });
    restored.decode(&mut Reader::new(&bytes)).unwrap();
    assert_eq!(come(&mut restored, "c", "192.0.2.1", 31), Ok(()));
    assert_eq!((restored.mark("a").sequence, restored.mark("b").sequence), (1, 0));
}

#[test]
fn a_checkpoint_of_version_3_is_read_and_everybody_counts_as_heard_when_it_is_asked_for() {
    let mut writer = Writer::default();
    writer.count(2);
    for name in ["a", "b"] {
        writer.text(name).u64(1).u64(7).u64(9);
        Outcomes::default().encode(&mut writer);
    }
    let bytes = writer.finish();
    let mut producers = Producers::new(RememberedMax { in_all: 2, ..RememberedMax::default() });
    producers.decode_v3(&mut Reader::new(&bytes)).unwrap();
    assert_eq!(producers.mark("b"), Mark { epoch: 1, sequence: 7, lsn: 9 });
    assert_eq!(come(&mut producers, "c", "192.0.2.1", 100), Err(TooMany::Remembered { max: 2 }));
    assert_eq!(come(&mut producers, "c", "192.0.2.1", 131), Ok(()));
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
                producers.take(&name, number(epoch, sequence), lsn as u64, None, Came::default());
                taken.insert((producer, epoch, sequence));
            }
        }
        let mut writer = Writer::default();
        producers.encode(&mut writer);
        let bytes = writer.finish();
        let mut restored = Producers::default();
        prop_assert_eq!(restored.decode(&mut Reader::new(&bytes)), Some(()));
        prop_assert_eq!(restored.known, producers.known);
    }
}

#[test]
fn a_snapshot_says_what_was_when_it_was_taken() {
    let written = |producers: &Producers| {
        let mut writer = Writer::default();
        producers.encode(&mut writer);
        writer.finish()
    };
    let mut producers = Producers::default();
    let mut snapshots = Vec::new();
    for lsn in 1..2_000_u64 {
        let name = (lsn % 700).to_string();
        let outcome = if lsn % 5 == 0 { Outcome::refused(Reason::TooLarge) } else { Outcome::nothing() };
        let sequence = producers.mark(&name).sequence + 1;
        producers.take(&name, number(1, sequence), lsn, Some(&outcome), Came::default());
        producers.correct(&name, number(1, sequence), &Outcome::refused(Reason::ModelFailed));
        if lsn % 100 == 0 {
            snapshots.push((producers.snapshot(), written(&producers)));
        }
    }
    for (snapshot, expected) in snapshots {
        let mut writer = Writer::default();
        snapshot.encode(&mut writer);
        assert_eq!(writer.finish(), expected);
    }
}

#[test]
fn a_producer_takes_at_most_200_bytes() {
    // By sizes, as mimalloc rounds them. Beside it: 8 of its links, 40 of a name of 20, at most 20 in the table. One run of
    // outcomes is in it.
    assert_eq!(size_of::<Option<(Arc<str>, Known)>>(), 104);
}
