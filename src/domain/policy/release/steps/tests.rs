use proptest::prelude::*;

use super::*;

fn steps(least: usize, records_of_one: Option<u32>) -> Steps {
    rounded(least, records_of_one, Rounding::NONE)
}

/// The same where counts are rounded.
fn rounded(least: usize, records_of_one: Option<u32>, rounding: Rounding) -> Steps {
    let bounds = records_of_one.map(|records_per_cell| Bounds { records_per_cell, cells_per_window: None });
    Steps { above: Some(steps_above(least, rounding).collect()), bounds, rounding }
}

/// What is told of so many contributors with so many records.
fn told(steps: &Steps, k: usize, records: usize, contributors: usize) -> usize {
    steps.reached(k, records as u64, |step| contributors >= step).unwrap()
}

/// The slow way: all steps from the highest down, each with all that is asked of it.
fn reference(k: usize, part: usize, records_of_one: Option<u32>, records: usize, contributors: usize) -> usize {
    let reaches = |step: &usize| reference_reaches(*step, (k, part, records_of_one), records) && contributors >= *step;
    [1_000, 500, 200, 100, 50, 20].into_iter().find(reaches).unwrap_or(k)
}

/// Whether a step is asked for of so many records.
fn reference_reaches(step: usize, (k, part, records_of_one): (usize, usize, Option<u32>), records: usize) -> bool {
    let is_apart = step >= k + k && step >= part + part;
    let has_records = records >= step + step;
    let has_room = records_of_one.is_none_or(|most| records + records <= most as usize * step);
    is_apart && has_records && has_room
}

/// k, what a part needs, how many records of one contributor count.
fn rules() -> impl Strategy<Value = (usize, usize, Option<u32>)> {
    let few = || prop_oneof![4 => 5..60_usize, 1 => 5..=1_000_usize];
    let part = prop_oneof![2 => Just(None), 1 => (3..60_usize).prop_map(Some), 1 => (3..=1_000_usize).prop_map(Some)];
    let bound = prop_oneof![2 => Just(None), 2 => (1..12_u32).prop_map(Some), 1 => (1..=1_000_u32).prop_map(Some)];
    (few(), part, bound).prop_map(|(k, part, bound)| (k, part.unwrap_or(k), bound))
}

/// How many contributors there can be of so many records, as everybody knows.
fn possible(k: usize, records_of_one: Option<u32>, records: usize) -> std::ops::RangeInclusive<usize> {
    let least = records_of_one.map_or(1, |most| records.div_ceil(most as usize));
    k.max(least)..=records
}

/// Numbers of records, most of them near one that decides about a step.
fn near_a_step() -> impl Strategy<Value = u64> {
    let near = (prop::sample::select(STEPS.to_vec()), 0..60_u64);
    let near = near.prop_map(|(step, more)| (2 * step as u64 + more).saturating_sub(30).max(5));
    prop_oneof![3 => near, 1 => 5..4_000_u64]
}

proptest! {
    #[test]
    fn what_is_told_is_what_the_slow_way_says(
        (k, part, bound) in rules(),
        records in 5..4_000_usize,
        contributors in 1..1_500_usize,
    ) {
        let contributors = contributors.clamp(k, records.max(k));
        let fast = told(&steps(k.max(part), bound), k, records, contributors);
        prop_assert_eq!(fast, reference(k, part, bound, records, contributors));
        prop_assert!(fast == k || fast <= contributors);
    }

    /// The slow way asks for a step of each number of records that leaves as this one does.
    #[test]
    fn where_counts_are_rounded_a_step_is_no_finer_and_tells_nothing_of_how_much_they_were(
        (k, part, bound) in rules(),
        base in prop_oneof![Just(2_usize), Just(5), Just(10), Just(20), Just(50), 2..=1_000_usize],
        records in near_a_step(),
        contributors in 1..1_500_usize,
    ) {
        let rounding = Rounding::to_multiples_of(base).unwrap();
        let contributors = contributors.clamp(k, (records as usize).max(k));
        let steps = rounded(k.max(part), bound, rounding);
        let fast = told(&steps, k, records as usize, contributors);
        let alike: Vec<usize> = (records.saturating_sub(1_000)..=records + 1_000)
            .filter(|other| rounding.nearest(*other) == rounding.nearest(records))
            .map(|other| other as usize)
            .collect();
        let of_each = |step: usize| {
            alike.iter().all(|records| reference_reaches(step, (k, part, bound), *records))
        };
        let is_coarse = |step: usize| step.is_multiple_of(base) && step >= k.max(part) + base;
        let reached = [1_000, 500, 200, 100, 50, 20].into_iter().find(|step| {
            is_coarse(*step) && of_each(*step) && contributors >= *step
        });
        prop_assert_eq!(fast, reached.unwrap_or(k));
    }

    /// Beside the number of records, and the rules, which everybody knows. Who learns anything at all of how many contributors
    /// there are, learns that they are from some number to twice it, and neither end says anything of each of them.
    #[test]
    fn what_is_told_says_nothing_of_each_contributor(
        (k, part, bound) in rules(),
        records in 5..4_000_usize,
    ) {
        let steps = steps(k.max(part), bound);
        let possible = possible(k, bound, records);
        for step in [k].into_iter().chain(STEPS) {
            let mut told = possible.clone().filter(|contributors| told(&steps, k, records, *contributors) == step);
            let Some(fewest) = told.next() else { continue };
            let most = told.next_back().unwrap_or(fewest);
            prop_assert_eq!(fewest, step.max(*possible.start()), "the step is the fewest");
            // That there are so many: one could still have half of all records, or all that count of one.
            let of_one = |others: usize| (records - others).min(bound.map_or(records, |most| most as usize));
            let (before, now) = (of_one(possible.start() - 1), of_one(fewest - 1));
            prop_assert!(now == before || now * 2 > records, "{} to {}: at most {}, not {}", fewest, most, now, before);
            // That there are no more: one could still have a single record.
            let least_of_one = |others: usize| bound.map_or(1, |most| records.saturating_sub(most as usize * others).max(1));
            prop_assert_eq!(least_of_one(most - 1), least_of_one(possible.end() - 1), "{} to {}", fewest, most);
            // And one could still be in no part of those that left.
            let in_parts = most.min(*possible.end()) >= part.saturating_mul(2) - 1;
            prop_assert!(most == *possible.end() || in_parts, "{} to {}, {} in a part", fewest, most, part);
        }
    }
}

#[test]
fn what_would_say_something_of_each_contributor_is_not_told() {
    let of = |least, bound, k, records, contributors| told(&steps(least, bound), k, records, contributors);
    // One record of each.
    assert_eq!((of(10, None, 10, 20, 20), of(10, None, 10, 39, 20), of(10, None, 10, 40, 20)), (10, 10, 20));
    // With k = 19 the step of 20 would say that 19 are 19; and with 15 of a part, that nearly all are in each.
    assert_eq!((of(19, None, 19, 900, 19), of(19, None, 19, 900, 49), of(19, None, 19, 900, 50)), (19, 19, 50));
    assert_eq!((of(15, None, 10, 900, 49), of(10, None, 10, 900, 49)), (10, 20));
    // Three records of each, of three that count.
    assert_eq!((of(10, Some(3), 10, 57, 20), of(10, Some(6), 10, 57, 20)), (10, 20));
    assert_eq!(
        (of(10, None, 10, 2_000, 999), of(10, None, 10, 2_000, 1_000), of(600, None, 600, 5_000, 1_000)),
        (500, 1_000, 600)
    );
}

/// With a base of 10, 40 is what 35 to 44 leave as. Were the step of 20 told of 40 and not of 39, it would tell them apart.
#[test]
fn a_step_does_not_tell_where_a_rounded_count_was() {
    let of = |base, records, contributors| {
        told(&rounded(5, None, Rounding::to_multiples_of(base).unwrap()), 5, records, contributors)
    };
    assert_eq!([39, 40, 44, 45].map(|records| of(10, records, 25)), [5, 5, 5, 20]);
    // 50 is no multiple of 20; and with a base of 20 there is none below 25.
    assert_eq!((of(20, 900, 60), of(20, 900, 100)), (5, 100));
}

#[test]
fn each_step_is_at_least_twice_the_one_before() {
    for least in 3..=1_000 {
        let all: Vec<usize> = [least].into_iter().chain(steps_above(least, Rounding::NONE)).collect();
        assert!(all.windows(2).all(|two| two[1] >= 2 * two[0]), "{all:?}");
    }
    assert_eq!(steps_above(10, Rounding::NONE).collect::<Vec<_>>(), STEPS);
    assert_eq!(steps_above(501, Rounding::NONE).count(), 0);
}
