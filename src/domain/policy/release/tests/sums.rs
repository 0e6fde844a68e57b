//! Sums: nobody can estimate what another one adds, and no sum is about few, nor two of them together. By brute force, over
//! everybody's values.

use std::cell::Cell;

use super::nobody::{Record, outlet, records, released, released_as, runner, with_more_sums};
use super::*;
use crate::planted::for_tests::plant;

use arrow_array::types::Float64Type;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

/// The range of the summed fields.
const ENDS: [f64; 2] = [0.0, 4.0];

type Value = fn(&Record) -> Option<f64>;
/// The sums, and what they are of.
const SUMMED: [(&str, Value); 2] = [("sum", |record| record.value), ("level_sum", |record| Some(record.level))];

fn to(least: usize, not_empty: bool, percent: u32) -> Outlet {
    let outlet = outlet("a", least, least, not_empty);
    Outlet { parts: PartRule { percent, ..outlet.parts }, ..outlet }
}

/// How many sums left of a window, of which each must say little about everybody.
fn sums_say_little(records: &[Record], outlet: &Outlet) -> Result<usize, TestCaseError> {
    let outcome = released_as(&with_more_sums(), records, &[], &[], std::slice::from_ref(outlet));
    let mut left = 0;
    for released in &outcome.released {
        let column = |name: &str| released.cells().column_by_name(name).unwrap();
        for row in 0..released.cells().num_rows() {
            let leaves = |name: &str| column(name).is_valid(row);
            let group_of = usize::from(column("group").as_string::<i32>().value(row) == "other");
            let of_group: Vec<&Record> = records.iter().filter(|record| record.group == group_of).collect();
            for (name, value) in SUMMED {
                if leaves(name) {
                    left += 1;
                    let sum: f64 = of_group.iter().filter_map(|record| value(record)).sum();
                    prop_assert_eq!(column(name).as_primitive::<Float64Type>().value(row), sum);
                    for end in ENDS {
                        says_little(&of_group, value, end, outlet)?;
                    }
                }
            }
            if leaves("variance") {
                left += 1;
                for end in ENDS {
                    squares_say_little(&of_group, end, outlet)?;
                }
            }
            let summed: Vec<Value> =
                SUMMED.into_iter().filter(|(name, _)| leaves(name)).map(|(_, value)| value).collect();
            prop_assert!(!few_are_off(&of_group, &summed, outlet.parts.least), "few are off what most have");
        }
    }
    Ok(left)
}

/// What each person adds to a sum, in portions of what each value is.
fn portions(records: &[&Record], portion: impl Fn(&Record) -> f64) -> BTreeMap<Option<usize>, f64> {
    let mut of: BTreeMap<Option<usize>, f64> = BTreeMap::new();
    for record in records {
        *of.entry(record.person).or_default() += portion(record);
    }
    of
}

/// Of what people add to a total, nobody knows much of what another one does.
fn no_estimate_is_good(of: &BTreeMap<Option<usize>, f64>, percent: u32) -> Result<(), TestCaseError> {
    let total: f64 = of.values().sum();
    for (knows, own) in of {
        for (target, portion) in of.iter().filter(|(target, _)| *target != knows) {
            // What is left of the total is the most that the target adds.
            let too_high = total - own - portion;
            let least = portion * f64::from(percent) / 100.0;
            prop_assert!(too_high >= least - 1e-9, "{:?} knows {:?} within {}", knows, target, too_high);
        }
    }
    Ok(())
}

fn says_little(records: &[&Record], value: Value, end: f64, outlet: &Outlet) -> Result<(), TestCaseError> {
    let of = portions(records, |record| value(record).map_or(0.0, |value| (value - end).abs()));
    let off = of.values().filter(|portion| **portion > 0.0).count();
    let are_enough = off >= outlet.parts.least || off == 0 && !outlet.parts.not_empty;
    prop_assert!(are_enough, "{} are off {}", off, end);
    no_estimate_is_good(&of, outlet.parts.percent)
}

fn squares_say_little(records: &[&Record], end: f64, outlet: &Outlet) -> Result<(), TestCaseError> {
    let of = portions(records, |record| record.value.map_or(0.0, |value| (value - end) * (value - end)));
    no_estimate_is_good(&of, outlet.parts.percent)
}

/// Whether sums that leave, with how many values they are of, can be added with weights so that what comes out is 0 for more
/// than half of the people and not for all, and is about fewer than `least`: all who may be those few are tried.
fn few_are_off(records: &[&Record], summed: &[Value], least: usize) -> bool {
    let mut rows: BTreeMap<Option<usize>, Vec<i64>> = BTreeMap::new();
    for record in records {
        let row = rows.entry(record.person).or_insert_with(|| vec![0; 2 * summed.len()]);
        for (column, value) in summed.iter().enumerate() {
            row[2 * column] += i64::from(value(record).is_some());
            row[2 * column + 1] += value(record).unwrap_or(0.0) as i64;
        }
    }
    let rows: Vec<Vec<i64>> = rows.into_values().filter(|row| row.iter().any(|number| *number != 0)).collect();
    let all = rank(rows.clone());
    (0..1_u32 << rows.len()).any(|off| {
        let few = off.count_ones() as usize;
        let on = rows.iter().enumerate().filter(|(row, _)| off >> row & 1 == 0).map(|(_, row)| row.clone());
        few < least && 2 * few < rows.len() && rank(on.collect()) < all
    })
}

fn greatest_divisor(one: i64, other: i64) -> i64 {
    if other == 0 { one } else { greatest_divisor(other, one % other) }
}

/// How many rows of whole numbers are independent.
fn rank(mut rows: Vec<Vec<i64>>) -> usize {
    let Some(column) = (0..rows.first().map_or(0, Vec::len)).find(|column| rows.iter().any(|row| row[*column] != 0))
    else {
        return 0;
    };
    let first = rows.iter().position(|row| row[column] != 0).unwrap_or(0);
    let first = rows.swap_remove(first);
    for row in &mut rows {
        let factor = row[column];
        row.iter_mut().zip(&first).for_each(|(number, other)| *number = *number * first[column] - other * factor);
        let divisor = row.iter().fold(0, |divisor, number| greatest_divisor(divisor, number.abs())).max(1);
        row.iter_mut().for_each(|number| *number /= divisor);
    }
    1 + rank(rows)
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
    for bug in ["sums-of-one", "sums-of-few", "sums-off-most", "squares-of-one"] {
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
