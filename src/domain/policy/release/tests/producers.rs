//! Nobody is singled out by a producer either, that takes its own records off what left: the exact search, for each
//! producer. Sums, by brute force, for each producer. Each bug that is planted is found.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use arrow_array::cast::AsArray;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::nobody::{Record, outlet, pooled_for, records, released_of, runner};
use super::*;
use crate::planted::for_tests::plant;

const SENDERS: usize = 3;

/// An outlet for which no single producer's word is enough.
fn to(least: usize, of_parts: usize, not_empty: bool, percent: u32) -> Outlet {
    let outlet = outlet("a", least, of_parts, not_empty);
    Outlet { parts: PartRule { percent, beyond_one: true, ..outlet.parts }, ..outlet }
}

fn outlets() -> impl Strategy<Value = Outlet> {
    let (percent, beside) = (prop::sample::select(vec![1, 10, 60]), prop::sample::select(vec![0, 300, 500, 667]));
    (2..4_usize, 0..2_usize, any::<bool>(), percent, beside).prop_map(|(least, more, not_empty, percent, beside)| {
        let outlet = to(least, least + more, not_empty, percent);
        Outlet { parts: PartRule { beside, ..outlet.parts }, ..outlet }
    })
}

/// Records, each with its sender. Some send much, and some people have one sender.
fn sent() -> impl Strategy<Value = (Vec<Record>, Vec<usize>)> {
    let senders = prop::collection::vec(prop_oneof![1 => Just(0), 2 => 0..SENDERS], 80);
    (records(), records(), senders, any::<bool>()).prop_map(|(one, other, mut senders, by_person)| {
        let records: Vec<Record> = one.into_iter().chain(other).collect();
        senders.truncate(records.len());
        for (record, sender) in records.iter().zip(&mut senders) {
            if let (true, Some(person @ 4..)) = (by_person, record.person) {
                *sender = person % SENDERS;
            }
        }
        (records, senders)
    })
}

/// How many numbers beside counts left, none of which may be about few for any sender.
fn nobody_by_a_sender(records: &[Record], senders: &[usize], outlet: &Outlet) -> Result<usize, TestCaseError> {
    let outcome = released_of(records, senders, std::slice::from_ref(outlet));
    let least = outlet.parts.least.min(outlet.min_contributors);
    for without in 0..SENDERS {
        let pool = pooled_for(records, &outcome, |record| senders[record] != without)?;
        let found = pool.singled_out(least);
        prop_assert!(found.is_none(), "{:?} can be worked out by {}", found, without);
        sums_say_little(records, senders, without, outlet, &outcome)?;
    }
    for released in &outcome.released {
        for row in 0..released.cells().num_rows() {
            let group = usize::from(column(released, "group").as_string::<i32>().value(row) == "other");
            let all: BTreeSet<_> =
                records.iter().filter(|record| record.group == group).map(|record| record.person).collect();
            for without in 0..SENDERS {
                let others =
                    records.iter().zip(senders).filter(|(record, sender)| record.group == group && **sender != without);
                let others: BTreeSet<_> = others.map(|(record, _)| record.person).collect();
                prop_assert!(others.len() >= outlet.min_contributors, "{} beside {}", others.len(), without);
                let wanted = all.len() as u32 * outlet.parts.beside;
                prop_assert!(others.len() as u32 * 1_000 >= wanted, "{} of {}", others.len(), all.len());
            }
        }
    }
    let told = outcome.released.iter().flat_map(|released| {
        ["sum", "share", "values", "levels"].map(|name| {
            let column = column(released, name);
            column.len() - column.null_count()
        })
    });
    Ok(told.sum())
}

fn column<'r>(released: &'r Released, name: &str) -> &'r ArrayRef {
    released.cells().column_by_name(name).unwrap()
}

/// The rules of sums, of the records that a sender does not know.
fn sums_say_little(
    records: &[Record],
    senders: &[usize],
    without: usize,
    outlet: &Outlet,
    outcome: &Outcome,
) -> Result<(), TestCaseError> {
    for released in &outcome.released {
        for row in (0..released.cells().num_rows()).filter(|row| column(released, "sum").is_valid(*row)) {
            let group = usize::from(column(released, "group").as_string::<i32>().value(row) == "other");
            for end in [0.0, 4.0] {
                let (mut of, mut of_all) = (BTreeMap::<Option<usize>, f64>::new(), 0.0);
                for (record, sender) in records.iter().zip(senders) {
                    if let (true, Some(value)) = (record.group == group, record.value) {
                        of_all += (value - end).abs();
                        if *sender != without {
                            *of.entry(record.person).or_default() += (value - end).abs();
                        }
                    }
                }
                let off = of.values().filter(|portion| **portion > 0.0).count();
                let is_nobody = of_all == 0.0 && !outlet.parts.not_empty;
                prop_assert!(off >= outlet.parts.least || is_nobody, "{} are off {} beside {}", off, end, without);
                let total: f64 = of.values().sum();
                let by_others = total * 1_000.0 >= of_all * f64::from(outlet.parts.beside) - 1e-9;
                prop_assert!(by_others, "{} of {} beside {}", total, of_all, without);
                for (knows, own) in &of {
                    for (target, portion) in of.iter().filter(|(target, _)| *target != knows) {
                        let least = portion * f64::from(outlet.parts.percent) / 100.0;
                        prop_assert!(total - own - portion >= least - 1e-9, "{:?} knows {:?}", knows, target);
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn no_producer_singles_out_fewer_than_k_by_taking_its_records_off() {
    let told = Cell::new(0);
    let holds = runner(500).run(&(sent(), outlets()), |((records, senders), outlet)| {
        told.set(told.get() + nobody_by_a_sender(&records, &senders, &outlet)?);
        Ok(())
    });
    holds.unwrap();
    assert!(told.get() >= 300, "too little leaves for the test to show anything: {}", told.get());
}

#[test]
fn every_planted_bug_of_producers_is_found() {
    let bugs = ["cells-of-one-producer", "parts-of-one-producer", "sums-of-one-producer"];
    for bug in bugs.into_iter().chain(["cells-mostly-of-one", "sums-mostly-of-one"]) {
        let _planted = plant(bug);
        let found = runner(5_000).run(&(sent(), outlets()), |((records, senders), outlet)| {
            nobody_by_a_sender(&records, &senders, &outlet).map(drop)
        });
        assert!(found.is_err(), "`{bug}` is planted, and nobody noticed");
    }
}

/// The n-1 attack: nine invented contributors around one real person, whom another producer brought.
#[test]
fn a_producer_that_invents_contributors_around_one_person_learns_nothing() {
    let record = |person| Record { person: Some(person), group: 0, value: Some(3.0), label: Some(1), level: 1.5 };
    let leaves = |invented: usize, real: usize, beyond_one: bool| {
        let records: Vec<Record> = (0..invented + real).map(record).collect();
        let senders: Vec<usize> = (0..invented + real).map(|at| usize::from(at >= invented)).collect();
        let to = to(10, 10, false, 10);
        let outlet = Outlet { parts: PartRule { beyond_one, ..to.parts }, ..to };
        released_of(&records, &senders, &[outlet]).cells_released == 1
    };
    assert!(leaves(9, 1, false), "without the rule the attack works");
    assert!(!leaves(9, 1, true) && !leaves(1_000, 1, true) && !leaves(1_000, 9, true) && !leaves(5_000, 9, true));
    assert!(leaves(10, 10, true) && leaves(5_000, 10, true) && leaves(5_000, 5_000, true));
    assert!(!leaves(20, 0, true), "what one producer alone says is its word alone");
}

/// Thirty people have the same value but one. Invented ones with other values hide that, and can be taken off again.
#[test]
fn a_producer_that_invents_contributors_does_not_hide_what_most_have() {
    let leaves = |invented: usize, beyond_one: bool| {
        let records = (0..invented + 30).map(|person| {
            let value = if person < invented {
                [1.0, 2.0, 3.0][person % 3]
            } else {
                f64::from(1 + u8::from(person == invented))
            };
            Record { person: Some(person), group: 0, value: Some(value), label: Some(1), level: 1.5 }
        });
        let senders: Vec<usize> = (0..invented + 30).map(|at| usize::from(at >= invented) * (1 + at % 2)).collect();
        let to = to(10, 10, false, 10);
        let outlet = Outlet { parts: PartRule { beyond_one, ..to.parts }, ..to };
        let outcome = released_of(&records.collect::<Vec<_>>(), &senders, &[outlet]);
        column(&outcome.released[0], "sum").is_valid(0)
    };
    assert!(!leaves(0, false) && !leaves(0, true));
    assert!(leaves(30, false), "without the rule the attack works");
    assert!(!leaves(30, true) && !leaves(60, true));
}

/// The same attack with 15 of 25 contributors invented: k holds without them, so the cell leaves unless no producer may have
/// so large a share. Of 20 the half is no more than the half.
#[test]
fn a_producer_that_invents_most_of_the_contributors_does_not_get_the_cell() {
    let record = |person| Record { person: Some(person), group: 0, value: Some(3.0), label: Some(1), level: 1.5 };
    let leaves = |invented: usize, real: usize, share: u32| {
        let records: Vec<Record> = (0..invented + real).map(record).collect();
        let senders: Vec<usize> = (0..invented + real).map(|at| if at < invented { 0 } else { 1 + at % 2 }).collect();
        let to = to(4, 4, false, 10);
        let outlet = Outlet { parts: PartRule { beside: 1_000 - share, ..to.parts }, ..to };
        let outcome = released_of(&records, &senders, &[outlet]);
        // Who else brings the contributors and the sums stands for nothing.
        assert!(outcome.released.iter().all(|released| column(released, "sum").is_valid(0)));
        outcome.cells_released == 1
    };
    assert!(leaves(15, 10, 1_000), "without the rule the attack works");
    assert!(!leaves(15, 10, 500) && leaves(15, 10, 600) && !leaves(15, 10, 599));
    assert!(leaves(10, 10, 500) && !leaves(11, 10, 500));
    // However many there are: no set ends.
    assert!(!leaves(3_000, 2_000, 500) && leaves(2_000, 3_000, 500));
}

/// Whom nobody knows who brought, anybody may have brought.
#[test]
fn where_it_is_not_known_who_brought_contributors_one_may_have_brought_most() {
    let record = |person| Record { person: Some(person), group: 0, value: Some(3.0), label: Some(1), level: 1.5 };
    let records: Vec<Record> = (0..30).map(record).collect();
    let plain = outlet("a", 10, 10, false);
    let asking = Outlet { parts: PartRule { beside: 1, ..plain.parts }, ..plain.clone() };
    assert_eq!(released_of(&records, &[], &[asking]).cells_released, 0);
    assert_eq!(released_of(&records, &[], &[plain]).cells_released, 1);
}

/// In a window that was counted without producers nothing leaves under the rule, and nothing is lost to others.
#[test]
fn where_it_is_not_known_who_brought_contributors_they_count_for_nobody() {
    let record = |person| Record { person: Some(person), group: 0, value: Some(3.0), label: Some(1), level: 1.5 };
    let records: Vec<Record> = (0..30).map(record).collect();
    let (strict, plain) = (to(10, 10, false, 10), outlet("a", 10, 10, false));
    assert_eq!(released_of(&records, &[], &[strict]).cells_released, 0);
    assert_eq!(released_of(&records, &[], &[plain]).cells_released, 1);
}
