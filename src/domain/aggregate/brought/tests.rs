//! Sets with producers against a slow, obvious reference, whatever the order and the split.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::contributors::{Contributors, Of, at_least};
use super::*;

/// Who was brought, and by whom; 0: it is not known.
type Pair = (u32, u16);

const PRODUCERS: u16 = 4;

fn contributor(person: u32) -> Contributor {
    (u128::from(person) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}

fn set(pairs: &[Pair], enough: usize) -> Contributors {
    let mut set = Contributors::default();
    for (person, producer) in pairs {
        set.insert(contributor(*person), Producer(*producer), enough);
    }
    set
}

/// Pairs of which most may be of one producer, and some of nobody who is known.
fn pairs() -> impl Strategy<Value = Vec<Pair>> {
    let producer = prop_oneof![3 => Just(1), 3 => 1..=PRODUCERS, 1 => Just(0)];
    prop::collection::vec((0..40_u32, producer), 0..60)
}

/// How many people there are, without those whom only a producer brought, or nobody who is known.
fn count(pairs: &[Pair], but: Option<u16>) -> usize {
    let counts = |(_, by): &&Pair| but.is_none_or(|but| *by != but && *by != 0);
    pairs.iter().filter(counts).map(|(person, _)| person).collect::<BTreeSet<_>>().len()
}

fn beyond_one(pairs: &[Pair]) -> usize {
    (0..=PRODUCERS).map(|producer| count(pairs, Some(producer))).min().unwrap()
}

/// All that a set holds, in order.
fn canonical(set: &Contributors) -> String {
    match set {
        Contributors::Few(set) => format!("{:?}", set.iter().copied().map(Person::from).collect::<BTreeSet<_>>()),
        Contributors::Enough => "enough".to_owned(),
        Contributors::Settled => "settled".to_owned(),
        Contributors::Brought(brought) => match &brought.kept {
            Kept::Settled => unreachable!("a settled set says so"),
            Kept::Each(each) => {
                let by: std::collections::BTreeMap<_, _> = each.by.iter().collect();
                format!("{} {by:?}", brought.is_enough)
            }
            Kept::Led { by, others } => format!("{by:?} {:?}", others.iter().collect::<BTreeSet<_>>()),
        },
    }
}

proptest! {
    #[test]
    fn sets_say_what_the_reference_says(pairs in pairs(), enough in 1..12_usize, of in prop::collection::vec(0..3_usize, 60)) {
        let sets: Vec<Contributors> = (0..3).map(|wanted| {
            let own = pairs.iter().zip(&of).filter(|(_, of)| **of == wanted).map(|(pair, _)| *pair);
            set(&own.collect::<Vec<_>>(), enough)
        }).collect();
        let whole = set(&pairs, enough);
        for least in 1..=enough {
            let (all, beyond) = (count(&pairs, None) >= least, beyond_one(&pairs) >= least);
            prop_assert_eq!(at_least([&whole], least, false, enough), all);
            prop_assert_eq!(at_least([&whole], least, true, enough), beyond);
            prop_assert_eq!(at_least(&sets, least, false, enough), all);
            prop_assert_eq!(at_least(&sets, least, true, enough), beyond);
        }
        prop_assert!(!at_least([&whole], enough + 1, true, enough));
        for producer in 0..=PRODUCERS {
            let (mut people, expected) = (People::default(), count(&pairs, Some(producer)));
            match whole.gather(Of::AllBut(Producer(producer)), &mut people) {
                Some(()) => prop_assert_eq!(people.len(), expected),
                None => prop_assert!(expected >= enough),
            }
        }
        prop_assert!(whole.known() < 2 * enough);
    }

    #[test]
    fn a_set_is_the_same_whatever_the_order_and_the_split(
        pairs in pairs(),
        enough in 1..12_usize,
        split in any::<prop::sample::Index>(),
    ) {
        let whole = set(&pairs, enough);
        let mut reversed = pairs.clone();
        reversed.reverse();
        let at = split.index(pairs.len() + 1);
        let (one, other) = reversed.split_at(at);
        let mut merged = set(one, enough);
        merged.merge(set(other, enough), enough);
        let mut backwards = set(other, enough);
        backwards.merge(set(one, enough), enough);
        for same in [&set(&reversed, enough), &merged, &backwards] {
            prop_assert_eq!(canonical(same), canonical(&whole));
            prop_assert_eq!(same.bytes(), whole.bytes());
        }
    }
}

/// However many contributors one producer invents, it does not fill the memory, and its word alone counts for nothing.
#[test]
fn one_producer_that_brings_many_takes_little_memory() {
    let mut all = set(&(0..10_000).map(|person| (person, 1)).collect::<Vec<_>>(), 1_000);
    assert!(all.bytes() < 200, "{}", all.bytes());
    assert!(at_least([&all], 1_000, false, 1_000) && !at_least([&all], 1, true, 1_000));
    all.merge(set(&(0..9).map(|person| (person, 2)).collect::<Vec<_>>(), 1_000), 1_000);
    assert!(at_least([&all], 9, true, 1_000) && !at_least([&all], 10, true, 1_000));
}

#[test]
fn a_contributor_keeps_112_bits_and_names_are_hashed_under_the_key() {
    let all = u128::MAX - 0xABCD;
    assert_eq!(Contributor::from(Person::from(all)), all & !0xFFFF);
    let (one, other) = (ContributorKey([1; 16]), ContributorKey([2; 16]));
    assert_eq!(one.producer("till-7"), one.producer("till-7"));
    assert_ne!(one.producer("till-7"), one.producer("till-8"));
    assert_ne!(one.producer("till-7"), other.producer("till-7"));
    assert!(["", "till-7", "a via b"].iter().all(|name| one.producer(name).is_one()));
}
