//! Planes by brute force: whoever may be off is tried, in whole numbers.

use proptest::prelude::*;

use super::*;
use crate::domain::aggregate::brought::Producer;
use crate::domain::aggregate::points::{BroughtAlone, without_low_bits};
use crate::domain::aggregate::portions::Portion;

const COLUMNS: usize = 3;
/// The range of each column.
const STEPS: u64 = 4;

/// Stands for nobody who is known.
const UNKNOWN: u16 = 9;

/// A contributor's values of each column, each so many steps above the lower end, and who alone brought it: 0 if several did.
type Person = ([Vec<u64>; COLUMNS], u16);

/// People of which some are like each other: a column is often what another one is, or always the same.
fn people() -> impl Strategy<Value = Vec<Person>> {
    let value = || prop_oneof![4 => Just(1_u64), 3 => 0..=STEPS];
    let record = ([value(), value(), value()], prop::option::weighted(0.2, 0..COLUMNS), 0..10_u8);
    let person = (prop::collection::vec(record, 1..3), 0..3_u16);
    let person = person.prop_map(|(records, producer)| {
        let mut columns: [Vec<u64>; COLUMNS] = Default::default();
        for ([one, other, third], missing, odd) in records {
            let other = if odd < 6 { one } else { other };
            let third = if odd < 8 { (one + other).min(STEPS) } else { third };
            for (column, value) in [one, other, third].into_iter().enumerate() {
                if missing.is_none_or(|missing| missing != column || odd < 5) {
                    columns[column].push(value);
                }
            }
        }
        (columns, producer)
    });
    prop::collection::vec(person, 0..13)
}

fn points(people: &[Person], with_producers: bool) -> Points {
    let key = |person: usize| (person as u64 + 1) << 16;
    let portion = |values: &Vec<u64>| Portion {
        above: values.iter().sum(),
        below: values.iter().map(|value| STEPS - value).sum(),
    };
    let portions: Vec<[Portion; COLUMNS]> =
        people.iter().map(|(columns, _)| [0, 1, 2].map(|column| portion(&columns[column]))).collect();
    let of = |(_, producer): &Person| match *producer {
        0 => Producer::SEVERAL,
        UNKNOWN => Producer::UNKNOWN,
        number => Producer::of_number(number),
    };
    let brought: BroughtAlone =
        people.iter().enumerate().map(|(person, of_person)| (without_low_bits(key(person)), of(of_person))).collect();
    let each = portions.iter().enumerate().map(|(person, portions)| (key(person), portions.as_slice()));
    Points::new(each, &[STEPS as f64; COLUMNS], with_producers.then_some(&brought))
}

/// How many rows are independent, exactly.
fn rank(mut rows: Vec<Vec<i128>>) -> usize {
    let mut rank = 0;
    for column in 0..rows.first().map_or(0, Vec::len) {
        let Some(found) = (rank..rows.len()).find(|row| rows[*row][column] != 0) else { continue };
        rows.swap(rank, found);
        let on = rows[rank].clone();
        for row in &mut rows[rank + 1..] {
            let (mine, theirs) = (on[column], row[column]);
            row.iter_mut().zip(&on).for_each(|(number, other)| *number = *number * mine - other * theirs);
        }
        rank += 1;
    }
    rank
}

/// Whether no plane that more than half of the people are on leaves few off, for whoever takes none off or those of any
/// one producer.
fn brute_force(people: &[Person], columns: &[usize], least: usize, with_producers: bool) -> bool {
    let without: Vec<u16> = if with_producers { vec![0, 1, 2] } else { vec![0] };
    without.into_iter().all(|without| {
        let rows: Vec<Vec<i128>> = people
            .iter()
            .filter(|(_, producer)| without == 0 || *producer != without)
            .map(|(of, _)| {
                let values = columns.iter().map(|column| of[*column].len() as i128);
                values.chain(columns.iter().map(|column| of[*column].iter().sum::<u64>() as i128)).collect()
            })
            .filter(|row: &Vec<i128>| row.iter().any(|number| *number != 0))
            .collect();
        let all = rank(rows.clone());
        (0..1_u32 << rows.len()).all(|off| {
            let few = off.count_ones() as usize;
            let on = rows.iter().enumerate().filter(|(row, _)| off >> row & 1 == 0).map(|(_, row)| row.clone());
            few >= least || 2 * few >= rows.len() || rank(on.collect()) == all
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn the_search_finds_what_trying_everybody_finds(
        people in people(),
        least in 1..6_usize,
        columns in prop::sample::subsequence(vec![0, 1, 2], 1..=COLUMNS),
        beyond_one in any::<bool>(),
    ) {
        let rule = PartRule { beyond_one, ..rule(least) };
        let safe = is_safe(&points(&people, beyond_one), &columns, rule, &work());
        prop_assert_eq!(safe, brute_force(&people, &columns, least, beyond_one));
    }
}

fn rule(least: usize) -> PartRule {
    PartRule { least, not_empty: false, percent: 10, beyond_one: false, beside: 0 }
}

fn work() -> Work {
    Work::for_sums(1_000, 1)
}

#[test]
fn of_columns_that_are_the_same_for_all_but_one_only_the_first_leaves() {
    let of = |person: u64, less: u64| {
        let value = 1 + person % 4;
        ([vec![value], vec![value - less], vec![person / 4 % 5]], 0)
    };
    let all_but =
        |others: u64| -> Vec<Person> { (0..20).map(|person| of(person, u64::from(person < others))).collect() };
    for (others, leave) in [(0, [true; 3]), (1, [true, false, true]), (2, [true, false, true]), (3, [true; 3])] {
        assert_eq!(together(&points(&all_but(others), false), &[true; 3], rule(3)), leave, "{others}");
        let two = [false, true, true];
        assert_eq!(together(&points(&all_but(others), false), &two, rule(3)), two);
    }
}

#[test]
fn a_search_that_would_take_too_much_finds_that_it_is_not_safe() {
    let people: Vec<Person> =
        (0..12).map(|person| ([vec![person % 5], vec![person % 3], vec![person % 2]], 0)).collect();
    let is_safe = |steps| is_safe(&points(&people, false), &[0, 1, 2], rule(5), &Work::of(steps));
    assert!(is_safe(1 << 20));
    assert!(!is_safe(0) && !is_safe(500) && !is_safe(1_000));
}

/// Of people with one value of each column, in parts of the range, all of whom are apart.
fn of_means<const N: usize>(means: &[[f64; N]]) -> Points {
    const WHOLE: f64 = (1_u64 << 40) as f64;
    let portion =
        |mean: f64| Portion { above: (mean * WHOLE).ceil() as u64, below: ((1.0 - mean) * WHOLE).ceil() as u64 };
    let portions: Vec<[Portion; N]> = means.iter().map(|means| means.map(portion)).collect();
    let each = portions.iter().enumerate().map(|(person, portions)| (person as u64, portions.as_slice()));
    Points::new(each, &[WHOLE; N], None)
}

/// Numbers from 0 to 1 that are the same in each run.
fn number(tape: &mut u64) -> f64 {
    *tape = tape.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*tape >> 12) as f64 / (1_u64 << 52) as f64
}

/// What is nearly the same spans next to nothing. Groups that it is in span no more: the one who is far off is found.
#[test]
fn what_is_small_does_not_hide_who_is_off() {
    for noise in [0.0, 1e-12, 1e-10, 1e-9, 1e-8, 1e-7] {
        let means: Vec<[f64; 2]> = (0..40)
            .map(|person| {
                let gross = if person == 17 { 0.9 } else { 0.5 };
                [gross, gross - noise * f64::from(person % 2)]
            })
            .collect();
        for least in [2, 5, 10] {
            assert_eq!(together(&of_means(&means), &[true; 2], rule(least)), [false, false], "{noise} {least}");
        }
    }
    // Six amounts, a tax on the first of them in cents, and a fee that is another one for one of them.
    for range in [40_000.0, 100_000.0] {
        let mut tape = 7;
        let means: Vec<[f64; 8]> = (0..200)
            .map(|person| {
                let mut of = [0.0; 8].map(|_: f64| number(&mut tape));
                of[6] = (of[0] * 0.2 * range * 100.0).round() / 100.0 / range;
                of[7] = if person == 17 { 0.7 } else { 0.3 };
                of
            })
            .collect();
        // Whether the tax leaves depends on how much a cent is.
        let leaves = together(&of_means(&means), &[true; 8], rule(10));
        assert_eq!((&leaves[..6], leaves[7]), (&[true; 6][..], false), "{range}");
    }
}

/// What is known badly, since its range is far too wide, does not hide who is off in other columns.
#[test]
fn a_narrow_column_beside_others_does_not_hide_who_is_off() {
    for spread in [16.0, 1_024.0, 65_536.0, (1_u64 << 26) as f64, (1_u64 << 33) as f64] {
        let means: Vec<[f64; 3]> = (0..40_u32)
            .map(|person| {
                let a = f64::from(person * 7 % 40) / 64.0;
                let narrow = 0.25 + f64::from(person * 11 % 40) * spread / 40.0 / (1_u64 << 40) as f64;
                [a, a + if person == 17 { 0.25 } else { 0.0 }, narrow]
            })
            .collect();
        let leave = together(&of_means(&means), &[true; 3], rule(10));
        assert_eq!(leave[..2], [true, false], "{spread}");
    }
}

/// Just below and above what counts as the same.
#[test]
fn dimensions_at_the_threshold_do_not_hide_who_is_off() {
    for noise in [1e-7, 3e-7, 6e-7, 1e-6, 2e-6] {
        let means = [
            [0.0, noise, 0.0, 0.0],
            [0.25, 0.125, 0.375, 0.375],
            [0.5, 0.25, 0.375, 0.775],
            [0.75, 0.375 + noise, 0.5, 0.5],
            [1.0, 0.5, 0.375, 0.375],
        ];
        assert_ne!(together(&of_means(&means), &[true; 4], rule(2))[2..], [true, true], "{noise}");
    }
}

/// A sum of columns that is one for all but one is found whatever else leaves, and what has no such sum leaves.
#[test]
fn sums_of_columns_are_found_among_many_columns() {
    fn check<const N: usize>() {
        let means = |off: f64| -> Vec<[f64; N]> {
            let mut tape = 3;
            let of = |person| {
                let mut of = [0.0; N].map(|_: f64| number(&mut tape) / 4.0);
                of[N - 1] = of[0] + of[(N - 1) / 2] * 0.5 + if person == 17 { off } else { 0.0 };
                of
            };
            (0..150).map(of).collect()
        };
        let mut without = [true; N];
        without[N - 1] = false;
        for off in [0.3, 1e-2, 1e-3, 1e-4] {
            assert_eq!(together(&of_means(&means(off)), &[true; N], rule(10)), without, "{N} columns, {off}");
        }
        assert_eq!(together(&of_means(&means(0.0)), &[true; N], rule(10)), [true; N], "{N} columns");
    }
    check::<2>();
    check::<3>();
    check::<5>();
    check::<8>();
}

/// One column has few values beside another one that has many.
#[test]
fn how_many_values_another_column_has_does_not_matter() {
    let whole = (1_u64 << 40) as f64;
    for many in [1_u64, 1_000, 100_000] {
        let portions: Vec<[Portion; 2]> = (0..40_u64)
            .map(|person| {
                let above = (whole * if person == 17 { 0.5 + 1e-4 } else { 0.5 }) as u64;
                let one = Portion { above, below: (1 << 40) - above };
                let of = (1 << 39) + person * 7_919_000_000 % (1 << 38);
                let many = if person % 13 == 0 { 1 } else { many / 2 + person % 2 * many / 2 }.max(1);
                [one, Portion { above: many * of, below: many * ((1 << 40) - of) }]
            })
            .collect();
        let each = portions.iter().enumerate().map(|(person, portions)| (person as u64, portions.as_slice()));
        let points = Points::new(each, &[whole; 2], None);
        assert!(!together(&points, &[true; 2], rule(10))[0], "{many}");
    }
}

#[test]
fn more_contributors_than_are_told_apart_share_points() {
    let means = |others: usize| -> Vec<[f64; 1]> {
        let of = |person: usize| if person < others { [0.25 + person as f64 / 1e4] } else { [0.5] };
        (0..3_000).map(of).collect()
    };
    let leaves = |others, least| together(&of_means(&means(others)), &[true], rule(least)) == [true];
    assert!(!leaves(1, 10) && !leaves(9, 10) && leaves(0, 10) && leaves(40, 10) && leaves(2_900, 10));
}

/// Of whom it is not known who brought them, a producer may have.
#[test]
fn whom_nobody_is_known_to_have_brought_hide_nobody() {
    let person = |person: u64| match person {
        0..30 => ([vec![person % 5], vec![], vec![]], UNKNOWN),
        _ => ([vec![1 + u64::from(person == 40)], vec![], vec![]], 0),
    };
    let points = points(&(0..42).map(person).collect::<Vec<Person>>(), true);
    let safe = |beyond_one| is_safe(&points, &[0], PartRule { beyond_one, ..rule(5) }, &work());
    assert!(safe(false) && !safe(true));
}
