//! Cells against a slow, obvious reference, whatever the split and the order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::{Float32Array, Float64Array, Int64Array, StringArray};
use proptest::prelude::*;

use super::brought::Kept;
use super::*;
use crate::domain::binary::{Reader, Writer};
use crate::domain::dataset::samples::plain;
use crate::domain::dataset::{GroupKey, KeyDomain, Measure, Metric, Source};
use crate::domain::stream::ValueRange;

mod bounds;
mod golden;
mod saved;

const WORDS: [&str; 3] = ["a", "b", "rare"];

#[derive(Debug, Clone)]
struct Record {
    person: Option<String>,
    group: usize,
    /// Optional, and not always finite.
    value: Option<f64>,
    /// Optional.
    label: Option<i64>,
    /// Required, but a model may fail to give it.
    score: f32,
    /// Who sent it; 0: that is not kept.
    sent_by: u8,
}

fn record() -> impl Strategy<Value = Record> {
    let finite = -2_000.0..2_000.0_f64;
    let value = prop_oneof![6 => finite, 1 => Just(f64::NAN), 1 => Just(f64::INFINITY), 1 => Just(f64::NEG_INFINITY)];
    let score = prop::option::weighted(0.99, 0.0..1.0_f32).prop_map(|score| score.unwrap_or(f32::NAN));
    let label = prop::option::weighted(0.7, 0..3_i64);
    let person = prop::option::weighted(0.95, "[a-h]");
    (person, 0..3_usize, prop::option::weighted(0.7, value), label, score, 0..4_u8).prop_map(
        |(person, group, value, label, score, sent_by)| Record { person, group, value, label, score, sent_by },
    )
}

/// Some people have a value in all of their records and some in none, so that k may hold for both.
fn records() -> impl Strategy<Value = Vec<Record>> {
    let (tidy, with_producers) = (any::<bool>(), any::<bool>());
    (prop::collection::vec(record(), 0..80), tidy, with_producers).prop_map(|(mut records, tidy, with_producers)| {
        records.iter_mut().filter(|_| !with_producers).for_each(|record| record.sent_by = 0);
        if tidy {
            for record in &mut records {
                let without = record.person.as_deref().is_some_and(|person| person < "d");
                record.value =
                    if without { None } else { Some(record.value.filter(|value| value.is_finite()).unwrap_or(1.0)) };
                record.label = if without { None } else { Some(record.label.unwrap_or(1)) };
            }
        }
        records
    })
}

fn source(field: &str, column: usize, may_be_missing: bool) -> Source {
    Source { column, field: field.into(), may_be_missing }
}

fn dataset() -> Dataset {
    let of_value = || source("value", 2, true);
    let measure = Measure { source: of_value(), range: ValueRange { low: -1_000.0, high: 1_000.0 } };
    let score = Measure { source: source("score", 4, false), range: ValueRange { low: 0.0, high: 1.0 } };
    let metric = |name: &str, function| Metric { name: name.into(), function, digits: None };
    let equals = KeyDomain::Integers(vec![1].into());
    Dataset {
        contributor: "person".into(),
        min_contributors: 5,
        keys: vec![GroupKey { name: "group".into(), column: 1, domain: KeyDomain::text(vec!["a".into(), "b".into()]) }],
        metrics: vec![
            metric("n", Function::Count),
            metric("sum", Function::Sum(measure.clone())),
            metric("mean", Function::Mean(measure.clone())),
            metric("variance", Function::Variance(measure)),
            metric("histogram", Function::Histogram { source: of_value(), edges: vec![-100.0, 0.0, 100.0] }),
            metric("share", Function::Fraction { source: source("label", 3, true), equals }),
            metric("score", Function::Sum(score)),
        ],
        ..plain()
    }
}

fn columns(records: &[Record]) -> Vec<ArrayRef> {
    vec![
        Arc::new(StringArray::from_iter(records.iter().map(|record| record.person.clone()))),
        Arc::new(StringArray::from_iter_values(records.iter().map(|record| WORDS[record.group]))),
        Arc::new(Float64Array::from_iter(records.iter().map(|record| record.value))),
        Arc::new(Int64Array::from_iter(records.iter().map(|record| record.label))),
        Arc::new(Float32Array::from_iter_values(records.iter().map(|record| record.score))),
    ]
}

fn fold(cells: &mut Cells, dataset: &Dataset, records: &[Record], rows: &Rows<'_>) {
    let columns = columns(records);
    let contributors = ContributorKey([7; 16]).hash(&columns[0]);
    let producers: Vec<Producer> = records.iter().map(producer).collect();
    let foldable = Foldable::new(dataset, &columns, &contributors).brought_by(&producers);
    cells.fold(dataset, &foldable, rows);
}

fn producer(record: &Record) -> Producer {
    match record.sent_by {
        0 => Producer::UNKNOWN,
        name => ContributorKey([7; 16]).producer(&name.to_string()),
    }
}

/// What leaves of a slot's cell when each part needs so many contributors.
fn values(cells: &Cells, dataset: &Dataset, slot: usize, least: usize) -> Vec<Value> {
    let plan =
        cells.plan(dataset, slot, PartRule { least, not_empty: false, percent: 0, beyond_one: false, beside: 0 }, None);
    let measured = |at: usize| cells.measured(dataset, at, slot, &plan);
    let value = |at, metric: &Metric| measured(at).map_or(Value::Null, |measured| measured.value(&metric.function));
    dataset.metrics.iter().enumerate().map(|(at, metric)| value(at, metric)).collect()
}

/// The cells of at least `least` contributors: others do not leave.
type Results = BTreeMap<String, Vec<Value>>;

fn results(cells: &Cells, dataset: &Dataset, least: usize) -> Results {
    let slots = cells.in_order().into_iter().filter(|&slot| cells.has(slot, least, false)).map(|slot| {
        let label = dataset.keys[0].domain.label(cells.key_positions(dataset, slot)[0]);
        (label, values(cells, dataset, slot, least))
    });
    slots.collect()
}

/// Whether what is computed from the records for which `has` holds may leave: whoever subtracts it from what is known of
/// all records learns of nobody, or of at least `least`.
fn may_leave(records: &[&Record], least: usize, has: impl Fn(&Record) -> bool) -> bool {
    let people = |wanted: bool| -> usize {
        let records = records.iter().filter(|record| has(record) == wanted);
        records.map(|record| record.person.as_ref()).collect::<BTreeSet<_>>().len()
    };
    people(true) >= least && (people(false) == 0 || people(false) >= least)
}

/// What the cells should be, the slow and obvious way.
fn reference(records: &[Record], least: usize) -> Results {
    let mut groups: BTreeMap<String, Vec<&Record>> = BTreeMap::new();
    for record in records {
        let label = if record.group < 2 { WORDS[record.group] } else { "other" };
        groups.entry(label.to_owned()).or_default().push(record);
    }
    let cells = groups.into_iter().map(|(label, records)| (label, cell(&records, least)));
    let cells = cells.filter(|(_, (contributors, _))| *contributors >= least);
    cells.map(|(label, (_, values))| (label, values)).collect()
}

/// Whether a cell has so many people when all records of any one sender are taken away, and those of unknown senders too.
fn has_beyond_one(records: &[Record], label: &str, least: usize) -> bool {
    (0..4).all(|without| {
        let others = records.iter().filter(|record| {
            let is_in = if record.group < 2 { WORDS[record.group] == label } else { label == "other" };
            is_in && record.sent_by != 0 && record.sent_by != without
        });
        others.map(|record| &record.person).collect::<BTreeSet<_>>().len() >= least
    })
}

fn cell(records: &[&Record], least: usize) -> (usize, Vec<Value>) {
    let people: BTreeSet<Option<&String>> = records.iter().map(|record| record.person.as_ref()).collect();
    let values: Vec<f64> = records.iter().filter_map(|record| record.value).filter(|value| value.is_finite()).collect();
    let values: Vec<f64> = values.into_iter().map(|value| value.clamp(-1_000.0, 1_000.0)).collect();
    let value_leaves = may_leave(records, least, |record| record.value.is_some_and(f64::is_finite));
    let of_values = |value: Value| if value_leaves { value } else { Value::Null };
    let n = values.len() as f64;
    let sum: f64 = values.iter().sum();
    let variance = values.iter().map(|value| (value - sum / n).powi(2)).sum::<f64>() / n;
    let below = values.iter().filter(|value| **value < 0.0).count() as u64;
    let labels: Vec<i64> = records.iter().filter_map(|record| record.label).collect();
    let share = labels.iter().filter(|label| **label == 1).count() as f64 / labels.len() as f64;
    let label_leaves = may_leave(records, least, |record| record.label.is_some());
    let scores: Vec<f64> = records.iter().map(|record| f64::from(record.score)).collect();
    let has_every_score = scores.iter().all(|score| score.is_finite());
    let metrics = vec![
        Value::Count(records.len() as u64),
        of_values(Value::Number(sum)),
        of_values(Value::Number(sum / n)),
        of_values(Value::Number(variance)),
        of_values(Value::Counts(vec![Some(below), Some(values.len() as u64 - below)])),
        if label_leaves { Value::Number(share) } else { Value::Null },
        if has_every_score { Value::Number(scores.iter().sum()) } else { Value::Null },
    ];
    (people.len(), metrics)
}

fn close(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => (left - right).abs() <= 1e-9 * (1.0 + right.abs()),
        _ => left == right,
    }
}

/// Whether a histogram leaves with ranges merged, or a fraction does not: which of them may is for
/// `policy::release::tests` to say.
fn is_less(found: &Value, all: &Value) -> bool {
    match (found, all) {
        (Value::Counts(found), Value::Counts(all)) => {
            let sum = |counts: &[Option<u64>]| counts.iter().flatten().sum::<u64>();
            found.len() == all.len() && found[0].is_some() && sum(found) == sum(all)
        }
        (Value::Null, Value::Number(share)) => (0.0..=1.0).contains(share),
        _ => false,
    }
}

/// The cells, written and read again; every cut of the bytes is noticed.
fn through_a_checkpoint(cells: &Cells, dataset: &Dataset) -> Cells {
    let mut writer = Writer::default();
    cells.encode(&mut writer);
    let bytes = writer.finish();
    for end in 0..bytes.len() {
        assert!(Cells::decode_up_to(dataset, cells.enough, &mut Reader::new(&bytes[..end])).is_none());
    }
    Cells::decode_up_to(dataset, cells.enough, &mut Reader::new(&bytes)).unwrap()
}

/// What the cells say that their sets take, counted anew.
fn counted_anew(cells: &Cells) -> usize {
    (0..cells.len()).map(|slot| cells.bytes_of_sets(slot)).sum()
}

/// Who is in a set, in order; none when it is enough.
fn sorted(contributors: &Contributors) -> Option<Vec<Contributor>> {
    match contributors {
        Contributors::Few(set) => Some(set.iter().copied().collect::<BTreeSet<_>>().into_iter().collect()),
        Contributors::Brought(brought) => match &brought.kept {
            Kept::Each(each) => {
                let all =
                    each.by.iter().map(|(person, by)| Contributor::from(*person) | Contributor::from(by.number()));
                Some(all.collect::<BTreeSet<_>>().into_iter().collect())
            }
            Kept::Led { by, others } => {
                let all = others.iter().map(|person| Contributor::from(*person) | Contributor::from(by.number()));
                Some(all.collect::<BTreeSet<_>>().into_iter().collect())
            }
            Kept::Settled => None,
        },
        Contributors::Enough | Contributors::Settled => None,
    }
}

/// Who is off each end, in order.
fn off_ends(known: &producer_sums::Known, summed: usize) -> Vec<String> {
    let of_end = |end: usize| {
        let people: BTreeSet<_> = known.off_ends.people(end).collect();
        format!("{:?} {people:?}", known.off_ends.keeps(end))
    };
    (0..2 * summed).map(of_end).collect()
}

/// Who is in a cell, in order, as far as sets are kept.
fn everybody(cells: &Cells, slot: usize) -> BTreeSet<Contributor> {
    cells.sets_of(slot).filter_map(sorted).flatten().collect()
}

/// All that cells hold, cell by cell in the order of their numbers, with the sets in order.
fn canonical(cells: &Cells) -> Vec<String> {
    let of_slot = |slot: usize| {
        let parted = cells.parted[slot].in_order().map(|combinations| {
            let combinations = combinations.into_iter();
            combinations.map(|(number, kept)| (number, kept.records, sorted(&kept.contributors))).collect::<Vec<_>>()
        });
        let metrics = cells.metrics.iter().map(|state| match state {
            State::Count | State::Parts | State::Same(_) => String::new(),
            State::Moments(all) => format!("{} {} {:?}", all[slot].values, all[slot].sum, all[slot].squares.parts()),
        });
        let metrics: Vec<_> = metrics.collect();
        let (number, records, all) = (cells.numbers[slot], cells.records[slot], sorted(&cells.contributors[slot]));
        let portions = match &cells.portions[slot] {
            Portions::Each { at, portions } => {
                let of = |place: u32| portions[place as usize..][..cells.summed].to_vec();
                format!("{:?}", at.iter().map(|(key, known)| (*key, of(known.place))).collect::<BTreeMap<_, _>>())
            }
            shared_or_unknown => format!("{shared_or_unknown:?}"),
        };
        let of_producers = cells.producer_sums[slot]
            .0
            .as_ref()
            .map(|known| (known.is_coarse, known.totals.clone(), off_ends(known, cells.summed)));
        format!("{number} {records} {all:?} {parted:?} {metrics:?} {portions} {of_producers:?}")
    };
    cells.in_order().into_iter().map(of_slot).collect()
}

proptest! {
    #[test]
    fn cells_are_what_the_reference_says(
        records in records(),
        least in 1..7_usize,
        more in prop::sample::select(vec![0, 1, 2, 1_000]),
        batches in 1..5_usize,
    ) {
        let dataset = dataset();
        let open = Arc::new(OpenBytes::new(usize::MAX));
        let mut cells = Cells::up_to(&dataset, least + more).counted_in(&open);
        for batch in records.chunks(records.len().div_ceil(batches).max(1)) {
            let before = cells.bytes();
            fold(&mut cells, &dataset, batch, &Rows::All);
            prop_assert!(cells.bytes() <= before + most_added(&dataset, batch.len(), 1, true));
            prop_assert_eq!((open.held(), open.cells()), (cells.bytes(), cells.len()));
        }
        let (found, expected) = (results(&cells, &dataset, least), reference(&records, least));
        prop_assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (label, values) in &expected {
            for (found, expected) in found[label].iter().zip(values) {
                prop_assert!(close(found, expected) || is_less(found, expected), "{label} {found:?} {expected:?}");
            }
            // What is not parted leaves as it is.
            prop_assert!(found[label][..4].iter().zip(values).all(|(found, expected)| close(found, expected)));
        }
        for slot in cells.in_order() {
            let label = dataset.keys[0].domain.label(cells.key_positions(&dataset, slot)[0]);
            prop_assert_eq!(cells.has(slot, least, true), has_beyond_one(&records, &label, least), "{}", label);
        }
        prop_assert_eq!(cells.set_bytes, counted_anew(&cells));
    }

    #[test]
    fn cells_are_the_same_to_the_last_bit_whatever_the_split_and_the_order(
        records in records(),
        split in any::<prop::sample::Index>(),
        least in 1..7_usize,
        more in prop::sample::select(vec![0, 1, 2, 1_000]),
        is_saved in any::<bool>(),
    ) {
        prop_assume!(!records.is_empty());
        let dataset = dataset();
        let enough = least + more;
        let mut whole = Cells::up_to(&dataset, enough);
        fold(&mut whole, &dataset, &records, &Rows::All);
        let mut reversed = records.clone();
        reversed.reverse();
        let (left, right) = reversed.split_at(split.index(reversed.len()));
        let (right, last) = right.split_at(right.len() / 2);
        let (mut one, mut two) = (Cells::up_to(&dataset, enough), Cells::up_to(&dataset, enough));
        fold(&mut one, &dataset, left, &Rows::All);
        fold(&mut two, &dataset, right, &Rows::All);
        let kept = |cells: &Cells| if is_saved { through_a_checkpoint(cells, &dataset) } else { cells.some(|_| true) };
        let mut one = kept(&one);
        one.merge(kept(&two));
        // What is known of contributors before they are merged holds after it.
        fold(&mut one, &dataset, last, &Rows::All);
        prop_assert_eq!(results(&whole, &dataset, least), results(&one, &dataset, least));
        prop_assert_eq!(one.set_bytes, counted_anew(&one));
        prop_assert_eq!(one.bytes(), whole.bytes());
        prop_assert_eq!(canonical(&one), canonical(&whole));
    }

    #[test]
    fn parts_come_to_the_same_to_the_last_bit_whatever_is_merged_first(
        records in records(),
        parts in prop::collection::vec(0..4_usize, 80),
        order in Just(vec![0, 1, 2, 3]).prop_shuffle(),
        enough in prop::sample::select(vec![1, 2, 3, 5, 1_000]),
    ) {
        let dataset = dataset();
        let mut whole = Cells::up_to(&dataset, enough);
        fold(&mut whole, &dataset, &records, &Rows::All);
        let part = |part: usize| {
            let rows: Vec<u32> = (0..records.len() as u32).filter(|row| parts[*row as usize] == part).collect();
            let mut cells = Cells::up_to(&dataset, enough);
            fold(&mut cells, &dataset, &records, &Rows::Some(&rows));
            cells
        };
        let merged = |mut left: Cells, right: Cells| { left.merge(right); left };
        let [a, b, c, d] = [order[0], order[1], order[2], order[3]];
        let one_by_one = merged(merged(merged(part(a), part(b)), part(c)), part(d));
        let backwards = merged(part(a), merged(part(b), merged(part(c), part(d))));
        let in_pairs = merged(merged(part(c), part(d)), merged(part(b), part(a)));
        for cells in [one_by_one, backwards, in_pairs] {
            prop_assert_eq!(canonical(&cells), canonical(&whole));
            prop_assert_eq!((cells.bytes(), cells.set_bytes), (whole.bytes(), counted_anew(&cells)));
        }
    }

    #[test]
    fn rows_that_are_picked_count_like_a_batch_of_their_own(
        records in records(),
        picked in prop::collection::vec(any::<bool>(), 80),
        least in 1..7_usize,
    ) {
        let dataset = dataset();
        let rows: Vec<u32> = (0..records.len() as u32).filter(|row| picked[*row as usize]).collect();
        let own: Vec<Record> = rows.iter().map(|row| records[*row as usize].clone()).collect();
        let (mut some, mut all) = (Cells::new(&dataset), Cells::new(&dataset));
        fold(&mut some, &dataset, &records, &Rows::Some(&rows));
        fold(&mut all, &dataset, &own, &Rows::All);
        prop_assert_eq!(results(&some, &dataset, least), results(&all, &dataset, least));
    }

    #[test]
    fn rounding_is_that_of_the_standard_library(value in any::<f64>(), near in -9e15..9e15_f64, half in -1_000..1_000_i32) {
        for value in [value, near, near / 1e9, f64::from(half) / 2.0] {
            prop_assert_eq!(moments::rounded(value), value.round_ties_even() as i64, "{}", value);
        }
    }
}

/// A record of a person in cell `a`.
fn of(person: usize, value: Option<f64>) -> Record {
    Record { person: Some(format!("p{person}")), group: 0, value, label: Some(1), score: 0.5, sent_by: 0 }
}

/// What leaves of cell `a` for k = 10.
fn leaves(records: &[Record]) -> Vec<Value> {
    let dataset = dataset();
    let mut cells = Cells::new(&dataset);
    fold(&mut cells, &dataset, records, &Rows::All);
    results(&cells, &dataset, 10)["a"].clone()
}

#[test]
fn one_person_with_a_value_among_ten_is_not_told() {
    let only_one: Vec<Record> = (0..10).map(|person| of(person, (person == 3).then_some(42.0))).collect();
    let nobody: Vec<Record> = (0..10).map(|person| of(person, None)).collect();
    assert_eq!(leaves(&only_one), leaves(&nobody));
    assert_eq!(leaves(&only_one)[..5], [Value::Count(10), Value::Null, Value::Null, Value::Null, Value::Null]);
    // Where NaN and infinities are taken they are no values either.
    let not_finite: Vec<Record> =
        (0..10).map(|person| of(person, Some(if person == 3 { 42.0 } else { f64::INFINITY }))).collect();
    assert_eq!(leaves(&not_finite), leaves(&nobody));
}

#[test]
fn one_person_without_a_value_cannot_be_told_by_subtraction() {
    let all: Vec<Record> = (0..11).map(|person| of(person, Some(1.0))).collect();
    assert_eq!(leaves(&all)[1], Value::Number(11.0));
    let but_one: Vec<Record> = (0..11).map(|person| of(person, (person != 3).then_some(1.0))).collect();
    assert_eq!(leaves(&but_one)[1], Value::Null);
    // Also when that person has other records with a value.
    let both_kinds: Vec<Record> = all.iter().cloned().chain([of(3, None)]).collect();
    assert_eq!(leaves(&both_kinds)[1], Value::Null);
    let ten_and_ten: Vec<Record> = (0..20).map(|person| of(person, (person < 10).then_some(1.0))).collect();
    assert_eq!(leaves(&ten_and_ten)[1], Value::Number(10.0));
}

#[test]
fn memory_follows_the_cells_that_appear() {
    let mut dataset = dataset();
    let words: Vec<String> = (0..62_999).map(|word| word.to_string()).collect();
    dataset.keys[0].domain = KeyDomain::text(words);
    assert!(Cells::new(&dataset).bytes() < 1_100);
    let mut cells = Cells::new(&dataset);
    fold(&mut cells, &dataset, &[of(1, Some(1.0))], &Rows::All);
    assert!(cells.bytes() < 3_000, "{}", cells.bytes());
}

#[test]
fn room_for_plans_counts_for_as_long_as_it_is_kept() {
    let dataset = dataset();
    let open = Arc::new(OpenBytes::new(usize::MAX));
    let mut cells = Cells::new(&dataset).counted_in(&open);
    let records: Vec<Record> = (0..500).map(|person| of(person, Some(1.0))).collect();
    fold(&mut cells, &dataset, &records, &Rows::All);
    let held = open.held();
    let room = cells.room_for_plans(&dataset);
    // Two parts' sets are looked at together.
    assert!(open.held() > held + 2 * cells.parted[0].bytes(), "{} of {held}", open.held());
    drop(room);
    assert_eq!(open.held(), held);
}

#[test]
fn a_cell_that_has_as_many_as_any_rule_asks_for_holds_no_set_and_gives_its_bytes_back() {
    let dataset = dataset();
    let open = Arc::new(OpenBytes::new(usize::MAX));
    let mut cells = Cells::new(&dataset).counted_in(&open);
    let people = |people: std::ops::Range<usize>, value| people.map(|person| of(person, value)).collect::<Vec<_>>();
    fold(&mut cells, &dataset, &people(0..ENOUGH - 1, Some(1.0)), &Rows::All);
    assert!(open.held() > 30_000 && !cells.has(0, ENOUGH, false));
    fold(&mut cells, &dataset, &people(0..ENOUGH, Some(1.0)), &Rows::All);
    assert!(open.held() < 7_500 && cells.has(0, ENOUGH, false), "{}", open.held());
    // More than that is not known, so nothing leaves under a rule that asks for it.
    fold(&mut cells, &dataset, &people(0..2 * ENOUGH, Some(1.0)), &Rows::All);
    assert!(!cells.has(0, ENOUGH + 1, false));
    // Who has no value is counted from here on, and all the others have one.
    fold(&mut cells, &dataset, &people(0..4, None), &Rows::All);
    assert_eq!(values(&cells, &dataset, 0, 5)[1], Value::Null);
    fold(&mut cells, &dataset, &people(4..5, None), &Rows::All);
    assert_eq!(values(&cells, &dataset, 0, 5)[1], Value::Number((4 * ENOUGH - 1) as f64));
    fold(&mut cells, &dataset, &people(5..ENOUGH, None), &Rows::All);
    assert!(open.held() < 7_500, "{}", open.held());
    assert_eq!(values(&cells, &dataset, 0, ENOUGH)[1], Value::Number((4 * ENOUGH - 1) as f64));
}

#[test]
fn values_are_rounded_to_the_nearest_decimal_of_so_many_digits() {
    let number = |number: f64, digits| match Value::Number(number).rounded(digits) {
        Value::Number(rounded) => rounded,
        other => panic!("{other:?}"),
    };
    for (exact, digits, expected) in [
        (1.0 / 3.0, 4, 0.3333),
        (-2.0 / 3.0, 2, -0.67),
        (123_456.789, 4, 123_500.0),
        (0.000_123_456, 3, 0.000_123),
        (9.99, 2, 10.0),
        (1e300 / 7.0, 1, 1e299),
        (0.1 + 0.2, 15, 0.3),
        (5e-324, 4, 5e-324),
        (f64::MAX, 15, f64::MAX),
    ] {
        assert_eq!(number(exact, digits), expected, "{exact} to {digits}");
        assert_eq!(number(expected, digits), expected, "rounded twice");
    }
    assert!(number(-0.0, 3).is_sign_positive());
    let count = |count, digits| Value::Count(count).rounded(digits);
    for (exact, digits, expected) in
        [(0, 1, 0), (7, 1, 7), (14, 1, 10), (15, 1, 20), (99, 1, 100), (12_345, 3, 12_300), (12_345, 5, 12_345)]
    {
        assert_eq!(count(exact, digits), Value::Count(expected), "{exact} to {digits}");
    }
    assert_eq!(count(u64::MAX, 1), Value::Count(u64::MAX));
    let counts = Value::Counts(vec![Some(12_345), None]);
    assert_eq!(counts.clone().rounded(1), counts);
    assert_eq!(Value::Null.rounded(1), Value::Null);
}
