//! What a plan takes, and what it says when that is too much. Whom it protects is for `policy::release::tests` to say.

use super::*;
use crate::domain::aggregate::Producer;
use crate::domain::dataset::{Function, KeyDomain, Metric, Source, samples};

const ENOUGH: usize = 1_000;
const RULE: PartRule = PartRule { least: 10, not_empty: false, percent: 0, beyond_one: false, beside: 0 };

/// Of a histogram of so many ranges, another one of as many, and a fraction, all of fields that every record has.
fn dataset(ranges: usize) -> Dataset {
    let source = |column| Source { column, field: format!("field {column}"), may_be_missing: false };
    let edges: Vec<f64> = (0..=ranges).map(|edge| edge as f64).collect();
    let histogram = |column| Function::Histogram { source: source(column), edges: edges.clone() };
    let share = Function::Fraction { source: source(2), equals: KeyDomain::Integers(vec![1].into()) };
    let metric = |function| Metric { name: "m".into(), function, digits: None };
    Dataset { metrics: vec![metric(histogram(0)), metric(histogram(1)), metric(share)], ..samples::every_kind() }
}

/// Numbers that are the same in each run.
fn below(tape: &mut u64, end: usize) -> usize {
    *tape = tape.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*tape >> 33) as usize % end
}

/// Combinations of the parts that `parts` says, each with a record of the contributor that comes with them.
fn kept(ways: &[Way<'_>], records: impl Iterator<Item = ([usize; 3], usize)>) -> Vec<(u64, Combination)> {
    let mut kept = std::collections::BTreeMap::<u64, Combination>::new();
    for (parts, contributor) in records {
        let mut stride = 1;
        let mut number = 0;
        for (way, part) in ways.iter().zip(parts) {
            number += stride * part as u64;
            stride *= way.parts() as u64;
        }
        let combination = kept.entry(number).or_default();
        combination.records += 1;
        let contributor = (contributor as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        combination.contributors.insert(contributor, Producer::UNKNOWN, ENOUGH);
    }
    kept.into_iter().collect()
}

fn in_order(kept: &[(u64, Combination)]) -> Vec<(u64, &Combination)> {
    kept.iter().map(|(number, combination)| (*number, combination)).collect()
}

/// How many numbers a way's groups leave as.
fn told(plan: &Plan, way: usize) -> usize {
    let groups = plan.groups(way).unwrap_or_default();
    let of_values = groups.len().saturating_sub(1);
    groups.iter().take(of_values).enumerate().filter(|(part, group)| part == *group).count()
}

#[test]
fn without_work_all_ranges_are_one_and_a_fraction_is_withheld() {
    let dataset = dataset(20);
    let ways = ways(&dataset);
    let records = (0..4_000).map(|record| ([record % 20, record / 20 % 20, record / 400 % 2], record % 101));
    let kept = kept(&ways, records);
    let mut planning = Planning::new(&dataset, &ways, &in_order(&kept), RULE, ENOUGH);
    let plan = planning.plan(None);
    assert_eq!([0, 1, 2].map(|way| told(&plan, way)), [20, 20, 2]);
    planning.work = Work::of(0);
    let plan = planning.plan(None);
    assert_eq!([0, 1, 2].map(|way| told(&plan, way)), [1, 1, 0]);
}

#[test]
fn what_is_usual_takes_a_third_of_the_work_at_most() {
    let mut tape = 1;
    for (ranges, people, records) in [(5, 20, 20), (5, 200, 1_000), (20, 300, 3_000), (100, 2_000, 20_000)] {
        let dataset = dataset(ranges);
        let ways = ways(&dataset);
        let records = (0..records).map(|_| {
            let (one, other) = (below(&mut tape, ranges), below(&mut tape, ranges));
            let goes_with = if other % 2 == 0 { one } else { other };
            ([one, goes_with, usize::from(other % 3 == 0)], below(&mut tape, people))
        });
        let kept = kept(&ways, records);
        let planning = Planning::new(&dataset, &ways, &in_order(&kept), RULE, ENOUGH);
        let given = planning.work.left();
        let plan = planning.plan(None);
        assert!(planning.work.left() > given / 3 * 2, "{} of {given} are left", planning.work.left());
        assert_eq!(told(&plan, 2), if people > 20 { 2 } else { 0 });
    }
}

/// Each range has ten people, whose ranges of the other histogram are nobody else's of this one: to find out what can be
/// told of two ranges takes as many looks as there are pairs of them.
#[test]
fn a_cell_that_would_take_too_much_is_merged() {
    let dataset = dataset(1_000);
    let ways = ways(&dataset);
    let mut tape = 1;
    let records = (0..10_000).map(|record| ([record / 10, below(&mut tape, 1_000), record % 2], record));
    let kept = kept(&ways, records);
    let planning = Planning::new(&dataset, &ways, &in_order(&kept), RULE, ENOUGH);
    let plan = planning.plan(None);
    assert!(planning.work.is_over());
    assert_eq!([0, 1, 2].map(|way| told(&plan, way)), [1_000, 1, 0]);
}
