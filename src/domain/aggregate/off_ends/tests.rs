//! The sets of all ends against a set of contributors for each.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::contributors::at_least;
use super::*;

const ENDS: usize = 4;

/// A record: its contributor, who brought it, and the ends that its values are off.
type Record = (u8, u16, [bool; ENDS]);

fn records() -> impl Strategy<Value = Vec<Record>> {
    // One producer brings most.
    let producer = prop_oneof![3 => Just(1_u16), 1 => 1..5_u16];
    prop::collection::vec((0..24_u8, producer, any::<[bool; ENDS]>()), 0..120)
}

fn person(number: u8) -> Person {
    (u128::from(number) << 16 | u128::from(number) << 64).into()
}

fn off_ends(records: &[Record], batch: usize, enough: usize) -> OffEnds {
    let mut all = OffEnds::new(ENDS);
    for records in records.chunks(batch) {
        let mut is_due = false;
        for (contributor, producer, is_off) in records {
            let mut row = None;
            for end in (0..ENDS).filter(|end| is_off[*end]) {
                is_due |= all.add(&mut row, person(*contributor), Producer::of_number(*producer), end, enough);
            }
        }
        if is_due {
            all.end(enough);
        }
    }
    all
}

/// The same, each set alone.
fn reference(records: &[Record], enough: usize) -> Vec<Contributors> {
    let mut all = vec![Contributors::default(); ENDS];
    for (contributor, producer, is_off) in records {
        for (set, _) in all.iter_mut().zip(is_off).filter(|(_, is_off)| **is_off) {
            set.insert(person(*contributor).into(), Producer::of_number(*producer), enough);
        }
    }
    all
}

fn found(all: &OffEnds, end: usize) -> (Keeps, BTreeSet<(Person, Producer)>) {
    let people: BTreeSet<_> = all.people(end).collect();
    assert_eq!(people.len(), all.known(end));
    (all.keeps(end), people)
}

fn expected(set: &Contributors) -> (Keeps, BTreeSet<(Person, Producer)>) {
    match set {
        Contributors::Few(set) if set.is_empty() => (Keeps::Each, BTreeSet::new()),
        Contributors::Settled => (Keeps::Settled, BTreeSet::new()),
        Contributors::Brought(brought) => match &brought.kept {
            Kept::Each(each) => (Keeps::Each, each.by.iter().map(|(person, by)| (*person, *by)).collect()),
            Kept::Led { by, others } => {
                (Keeps::Led(*by), others.iter().map(|person| (*person, Producer::SEVERAL)).collect())
            }
            Kept::Settled => (Keeps::Settled, BTreeSet::new()),
        },
        other => panic!("{other:?}"),
    }
}

fn check(all: &OffEnds, sets: &[Contributors], enough: usize) {
    for (end, set) in sets.iter().enumerate() {
        assert_eq!(found(all, end), expected(set), "end {end}");
        for least in 0..enough + 2 {
            let is_expected = at_least([set], least, true, enough);
            assert_eq!(all.has_beyond_one(end, least, enough), is_expected, "end {end}, {least} of {enough}");
        }
    }
    // Who is in no set takes no room.
    let everybody: BTreeSet<Person> = (0..ENDS).flat_map(|end| all.people(end)).map(|(person, _)| person).collect();
    assert_eq!((all.rows(), all.by.len()), (everybody.len(), everybody.len() * ENDS));
}

proptest! {
    #[test]
    fn all_sets_together_are_what_each_is_alone(
        records in records(),
        batch in 1..40_usize,
        enough in 1..9_usize,
    ) {
        check(&off_ends(&records, batch, enough), &reference(&records, enough), enough);
    }

    #[test]
    fn parts_come_to_the_same_whatever_the_split(
        records in records(),
        split in any::<prop::sample::Index>(),
        batch in 1..40_usize,
        enough in 1..9_usize,
    ) {
        let (one, two) = records.split_at(split.index(records.len().max(1)).min(records.len()));
        let mut all = off_ends(one, batch, enough);
        all.merge(off_ends(two, batch, enough), enough);
        check(&all, &reference(&records, enough), enough);
        let mut again = OffEnds::new(ENDS);
        for (end, set) in reference(&records, enough).iter().enumerate() {
            again.put(end, set, enough);
        }
        check(&again, &reference(&records, enough), enough);
    }

    #[test]
    fn the_bytes_are_never_below_those_of_the_table(people in 0..2_000_u128) {
        let mut all = OffEnds::new(ENDS);
        for number in 0..people {
            all.add(&mut None, (number << 16).into(), Producer::of_number(1), 0, usize::MAX / 4);
        }
        let places = (all.at.capacity() * 8).div_ceil(7).next_power_of_two();
        let table = if people == 0 { 0 } else { places.max(4) * (size_of::<(Person, u32)>() + 1) + 16 };
        let lists = all.by.capacity() * size_of::<Producer>() + ENDS * size_of::<End>();
        prop_assert!(off_ends_bytes(ENDS, all.rows()) >= table + lists, "{people}");
    }
}
