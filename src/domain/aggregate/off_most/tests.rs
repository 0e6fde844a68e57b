//! Planes by brute force: whoever may be off is tried, in whole numbers.

use proptest::prelude::*;

use super::*;
use crate::domain::aggregate::brought::Producer;
use crate::domain::aggregate::points::{BroughtAlone, without_low_bits};
use crate::domain::aggregate::portions::Portion;

const COLUMNS: usize = 3;
/// The range of each column.
const STEPS: u64 = 4;

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
    let of = |(_, producer): &Person| match producer {
        0 => Producer::SEVERAL,
        number => Producer::of_number(*number),
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
        let rule = PartRule { least, not_empty: false, percent: 10, beyond_one, beside: 0 };
        let points = points(&people, beyond_one);
        let safe = points.whichever_producer(rule, |points| is_safe(points, &columns, least));
        prop_assert_eq!(safe, brute_force(&people, &columns, least, beyond_one));
    }
}

#[test]
fn of_columns_that_are_the_same_for_all_but_one_only_the_first_leaves() {
    let rule = PartRule { least: 3, not_empty: false, percent: 10, beyond_one: false, beside: 0 };
    let of = |person: u64, less: u64| {
        let value = 1 + person % 4;
        ([vec![value], vec![value - less], vec![person / 4 % 5]], 0)
    };
    let all_but =
        |others: u64| -> Vec<Person> { (0..20).map(|person| of(person, u64::from(person < others))).collect() };
    for (others, leave) in [(0, [true; 3]), (1, [true, false, true]), (2, [true, false, true]), (3, [true; 3])] {
        assert_eq!(together(&points(&all_but(others), false), &[true; 3], rule), leave, "{others}");
        assert_eq!(together(&points(&all_but(others), false), &[false, true, true], rule), [false, true, true]);
    }
}

#[test]
fn a_search_that_would_take_too_much_finds_that_it_is_not_safe() {
    let people: Vec<Person> =
        (0..12).map(|person| ([vec![person % 5], vec![person % 3], vec![person % 2]], 0)).collect();
    let points = points(&people, false);
    let rule = PartRule { least: 4, not_empty: false, percent: 10, beyond_one: false, beside: 0 };
    let finds = |left: u64| {
        points.whichever_producer(rule, |points| {
            let matrix = Matrix::of(points, &[0, 1, 2]);
            let all: Vec<usize> = (0..matrix.rows()).collect();
            let rank = matrix.rank(&all);
            Search { work: Work::of(left) }.finds(&matrix, all, &[], rank, 4)
        })
    };
    assert!(!finds(1 << 20));
    assert!(finds(0) && finds(200));
}

/// Half of the people have the same value, and the others what nobody else has, in columns that are nearly alike.
#[test]
fn values_that_are_very_near_are_not_the_same() {
    let near: Vec<Portion> = (0..40_u64)
        .map(|person| (1 << 39) + if person % 2 == 0 { 0 } else { person * 1_000 })
        .map(|above| Portion { above, below: (1 << 40) - above })
        .collect();
    let each = near.iter().enumerate().map(|(person, portion)| (person as u64, std::slice::from_ref(portion)));
    let points = Points::new(each, &[(1_u64 << 40) as f64], None);
    let safe = |least| {
        let rule = PartRule { least, not_empty: false, percent: 10, beyond_one: false, beside: 0 };
        points.whichever_producer(rule, |points| is_safe(points, &[0], least))
    };
    assert!(safe(20));
}
