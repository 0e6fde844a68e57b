//! Portions against everybody's values: the rules by brute force, and that sharing is never more lenient.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const COLUMNS: usize = 2;
const RULE: PartRule = PartRule { least: 5, not_empty: false, percent: 10, beyond_one: false, beside: 0 };

/// A value of a person, in two columns: how far it is above the lower end and below the upper one.
#[derive(Debug, Clone)]
struct Added {
    person: u64,
    portions: [Portion; COLUMNS],
}

/// Values of people, of whom some have much more than others.
fn added(people: u64, values: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Added>> {
    let value = prop_oneof![4 => Just(0_u64), 4 => 1..20_u64, 1 => 1..2_000_u64];
    let portion = move || (value.clone(), 0..3_u64).prop_map(|(above, below)| Portion { above, below });
    let one = (0..people, portion(), portion());
    let one = one.prop_map(|(person, one, other)| Added { person: key_of(person), portions: [one, other] });
    prop::collection::vec(one, values)
}

/// As a hash would be.
fn key_of(person: u64) -> Key {
    (person + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

fn kept(added: &[Added], enough: usize) -> Portions {
    let mut kept = Portions::default();
    let mut bytes = 0;
    for one in added {
        let (place, change) = kept.place(one.person, COLUMNS);
        bytes += change.after - change.before;
        for (column, portion) in one.portions.into_iter().enumerate() {
            kept.add(place, COLUMNS, column, portion);
        }
    }
    assert_eq!(bytes, kept.bytes(COLUMNS));
    let change = kept.end(COLUMNS, enough);
    assert!(change.after <= change.before, "sharing takes less: {change:?}");
    assert_eq!(bytes + change.after - change.before, kept.bytes(COLUMNS));
    kept
}

/// What is kept, whatever the order that it came in.
fn canonical(portions: &Portions) -> String {
    match portions {
        Portions::Each { at, portions } => {
            let of = |place: u32| &portions[place as usize..][..COLUMNS];
            format!("{:?}", at.iter().map(|(key, known)| (*key, of(known.place))).collect::<BTreeMap<_, _>>())
        }
        shared => format!("{shared:?}"),
    }
}

/// Both rules, for every two people: one who knows the own portion, and one whom that one wants to know of.
fn brute_force(added: &[Added], column: usize, rule: PartRule) -> bool {
    let ends: [fn(&Portion) -> u64; 2] = [|portion| portion.above, |portion| portion.below];
    ends.into_iter().all(|end| {
        let mut of: BTreeMap<u64, u64> = BTreeMap::new();
        for one in added {
            *of.entry(one.person).or_default() += end(&one.portions[column]);
        }
        let total: u64 = of.values().sum();
        if total == 0 {
            return !rule.not_empty;
        }
        let is_safe = |knows: u64, target: u64| {
            knows == target || {
                let others = total - of[&knows] - of[&target];
                others * 100 >= of[&target] * u64::from(rule.percent)
            }
        };
        let pairs = of.keys().all(|knows| of.keys().all(|target| is_safe(*knows, *target)));
        // One alone is known by the total.
        pairs && of.len() > 1 && of.values().filter(|portion| **portion > 0).count() >= rule.least
    })
}

proptest! {
    #[test]
    fn a_sum_leaves_if_no_contributor_can_estimate_another_and_enough_are_off_the_end(
        added in added(9, 0..40),
        least in 2..6_usize,
        percent in prop::sample::select(vec![1, 10, 50, 100]),
        not_empty in any::<bool>(),
    ) {
        let rule = PartRule { least, not_empty, percent, beyond_one: false, beside: 0 };
        let kept = kept(&added, 1_000);
        for column in 0..COLUMNS {
            prop_assert_eq!(kept.hold(COLUMNS, column, rule), brute_force(&added, column, rule));
        }
        let no_rule = PartRule { percent: 0, ..rule };
        prop_assert!(kept.hold(COLUMNS, 0, no_rule));
    }

    #[test]
    fn whatever_is_merged_first_the_same_is_kept_and_sharing_is_never_more_lenient(
        added in added(400, 0..600),
        split in any::<prop::sample::Index>(),
        enough in prop::sample::select(vec![128, 200, 300]),
        percent in prop::sample::select(vec![1, 10, 100]),
    ) {
        prop_assume!(!added.is_empty());
        let whole = kept(&added, enough);
        let (left, right) = added.split_at(split.index(added.len()));
        for (one, other) in [(left, right), (right, left)] {
            let mut merged = kept(one, enough);
            merged.merge(kept(other, enough), COLUMNS, enough);
            prop_assert_eq!(canonical(&merged), canonical(&whole));
            prop_assert_eq!(merged.bytes(COLUMNS), whole.bytes(COLUMNS));
        }
        let (rule, apart) = (PartRule { percent, ..RULE }, kept(&added, usize::MAX));
        for column in 0..COLUMNS {
            prop_assert!(!whole.hold(COLUMNS, column, rule) || apart.hold(COLUMNS, column, rule));
        }
    }
}

fn of_people(above: impl IntoIterator<Item = u64>) -> Vec<Added> {
    let people = above.into_iter().enumerate();
    people
        .map(|(person, above)| Added {
            person: key_of(person as u64),
            portions: [Portion { above, below: 1 }; COLUMNS],
        })
        .collect()
}

#[test]
fn of_many_alike_a_sum_leaves_and_of_one_who_dominates_them_it_does_not() {
    let many = of_people((0..2_000).map(|_| 10));
    let shared = kept(&many, 1_000);
    assert!(matches!(shared, Portions::Shared(_)));
    assert!(shared.hold(COLUMNS, 0, RULE));
    // With a thousand, all but some hundred have a mark of their own.
    assert!(kept(&of_people((0..1_000).map(|_| 10)), 1_000).hold(COLUMNS, 0, PartRule { least: 850, ..RULE }));
    let dominated = of_people((0..2_000).map(|person| if person == 7 { 10_000_000 } else { 10 }));
    assert!(!kept(&dominated, 1_000).hold(COLUMNS, 0, RULE));
    let of_three = of_people((0..2_000).map(|person| u64::from(person < 3)));
    assert!(!kept(&of_three, 1_000).hold(COLUMNS, 0, RULE));
}

#[test]
fn a_total_that_its_integer_cannot_hold_does_not_leave() {
    let most = of_people((0..20).map(|_| u64::MAX));
    assert!(!kept(&most, 1_000).hold(COLUMNS, 0, RULE));
    let mut twice = kept(&most, 1_000);
    twice.merge(kept(&most, 1_000), COLUMNS, 1_000);
    assert!(!twice.hold(COLUMNS, 0, RULE));
}

#[test]
fn what_an_older_version_did_not_keep_is_not_kept_later() {
    let mut unknown = Portions::Unknown;
    unknown.merge(kept(&of_people([1; 20]), 1_000), COLUMNS, 1_000);
    assert!(!unknown.hold(COLUMNS, 0, RULE));
    let mut known = kept(&of_people([1; 20]), 1_000);
    assert!(known.hold(COLUMNS, 0, RULE));
    known.merge(unknown, COLUMNS, 1_000);
    assert!(!known.hold(COLUMNS, 0, RULE));
}
