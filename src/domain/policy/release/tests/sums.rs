//! Sums: nobody can estimate what another one adds, and no sum is about few. By brute force, over everybody's values.

use std::cell::Cell;

use super::nobody::{Record, outlet, records, released, runner};
use super::*;
use crate::planted::for_tests::plant;

use arrow_array::types::Float64Type;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

/// The range of the summed field.
const ENDS: [f64; 2] = [0.0, 4.0];

fn to(least: usize, not_empty: bool, percent: u32) -> Outlet {
    let outlet = outlet("a", least, least, not_empty);
    Outlet { parts: PartRule { percent, ..outlet.parts }, ..outlet }
}

/// How many sums left of a window, of which each must say little about everybody.
fn sums_say_little(records: &[Record], outlet: &Outlet) -> Result<usize, TestCaseError> {
    let outcome = released(records, std::slice::from_ref(outlet));
    let mut left = 0;
    for released in &outcome.released {
        let column = |name: &str| released.cells().column_by_name(name).unwrap();
        for row in (0..released.cells().num_rows()).filter(|row| column("sum").is_valid(*row)) {
            left += 1;
            let group = usize::from(column("group").as_string::<i32>().value(row) == "other");
            let values = || records.iter().filter(|record| record.group == group && record.value.is_some());
            let sum: f64 = values().filter_map(|record| record.value).sum();
            prop_assert_eq!(column("sum").as_primitive::<Float64Type>().value(row), sum);
            for end in ENDS {
                let mut of: BTreeMap<Option<usize>, f64> = BTreeMap::new();
                for record in values() {
                    *of.entry(record.person).or_default() += record.value.map_or(0.0, |value| (value - end).abs());
                }
                let off = of.values().filter(|portion| **portion > 0.0).count();
                prop_assert!(
                    off >= outlet.parts.least || off == 0 && !outlet.parts.not_empty,
                    "{} are off {}",
                    off,
                    end
                );
                let total: f64 = of.values().sum();
                for (knows, own) in &of {
                    for (target, portion) in of.iter().filter(|(target, _)| *target != knows) {
                        // What is left of the total is the most that the target adds.
                        let too_high = total - own - portion;
                        let least = portion * f64::from(outlet.parts.percent) / 100.0;
                        prop_assert!(too_high >= least, "{:?} knows {:?} within {}", knows, target, too_high);
                    }
                }
            }
        }
    }
    Ok(left)
}

fn outlets() -> impl Strategy<Value = Outlet> {
    let percent = prop::sample::select(vec![1, 10, 60, 100]);
    (2..5_usize, any::<bool>(), percent).prop_map(|(least, not_empty, percent)| to(least, not_empty, percent))
}

#[test]
fn no_sum_that_leaves_says_much_about_one_contributor() {
    let left = Cell::new(0);
    let holds = runner(500).run(&(records(), outlets()), |(records, outlet)| {
        left.set(left.get() + sums_say_little(&records, &outlet)?);
        Ok(())
    });
    holds.unwrap();
    assert!(left.get() >= 40, "too little leaves for the test to show anything: {}", left.get());
}

#[test]
fn every_planted_bug_of_sums_is_found() {
    for bug in ["sums-of-one", "sums-of-few"] {
        let _planted = plant(bug);
        let found = runner(5_000).run(&(records(), outlets()), |(records, outlet)| {
            sums_say_little(&records, &outlet)?;
            Ok(())
        });
        assert!(found.is_err(), "`{bug}` is planted, and nobody noticed");
    }
}

/// A field that is 0 or 1 (moved to the ends of its range): its sum is the count of the fraction that is withheld.
#[test]
fn the_sum_of_a_field_of_two_values_leaves_when_its_fraction_would() {
    let leaves = |ones: usize, zeros: usize| {
        let values = std::iter::repeat_n(ENDS[1], ones).chain(std::iter::repeat_n(ENDS[0], zeros));
        let records = values.enumerate().map(|(person, value)| {
            let label = Some(i64::from(value > ENDS[0]));
            Record { person: Some(person), group: 0, value: Some(value), label, level: 0.5 }
        });
        let outcome = released(&records.collect::<Vec<_>>(), &[to(5, false, 10)]);
        let is_valid = |name: &str| outcome.released[0].cells().column_by_name(name).unwrap().is_valid(0);
        assert_eq!(is_valid("sum"), is_valid("share"), "{ones} of {zeros}");
        is_valid("sum")
    };
    assert!(leaves(5, 15) && leaves(20, 0) && leaves(0, 20));
    assert!(!leaves(1, 19) && !leaves(4, 16) && !leaves(19, 1));
}
