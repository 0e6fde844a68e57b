//! Cells against a slow, obvious reference, whatever the split and the order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{Float64Array, Int64Array, StringArray};
use proptest::prelude::*;

use super::*;
use crate::domain::binary::{Reader, Writer};
use crate::domain::dataset::{GroupKey, KeyDomain, Metric, Source};
use crate::domain::stream::ValueRange;

mod golden;

const WORDS: [&str; 3] = ["a", "b", "rare"];

#[derive(Debug, Clone)]
struct Record {
    person: Option<String>,
    group: usize,
    value: Option<f64>,
    label: i64,
}

fn record() -> impl Strategy<Value = Record> {
    let value = prop::option::weighted(0.9, -2_000.0..2_000.0_f64);
    let person = prop::option::weighted(0.9, "[a-f]");
    (person, 0..3_usize, value, 0..3_i64).prop_map(|(person, group, value, label)| Record {
        person,
        group,
        value,
        label,
    })
}

fn dataset() -> Dataset {
    let source = |field: &str, column| Source { column, field: field.into(), may_be_missing: false };
    let measure = Measure { source: source("value", 2), range: ValueRange { low: -1_000.0, high: 1_000.0 } };
    let metric = |name: &str, function| Metric { name: name.into(), function };
    Dataset {
        name: "d".into(),
        stream: "s".into(),
        contributor: "person".into(),
        window: Duration::from_secs(60),
        grace: Duration::ZERO,
        min_contributors: 5,
        keys: vec![GroupKey { name: "group".into(), column: 1, domain: KeyDomain::text(vec!["a".into(), "b".into()]) }],
        metrics: vec![
            metric("n", Function::Count),
            metric("sum", Function::Sum(measure.clone())),
            metric("mean", Function::Mean(measure.clone())),
            metric("variance", Function::Variance(measure)),
            metric("histogram", Function::Histogram { source: source("value", 2), edges: vec![-100.0, 0.0, 100.0] }),
            metric("share", Function::Fraction { source: source("label", 3), equals: KeyDomain::Integers(vec![1]) }),
        ],
    }
}

fn columns(records: &[Record]) -> Vec<ArrayRef> {
    vec![
        Arc::new(StringArray::from_iter(records.iter().map(|record| record.person.clone()))),
        Arc::new(StringArray::from_iter_values(records.iter().map(|record| WORDS[record.group]))),
        Arc::new(Float64Array::from_iter(records.iter().map(|record| record.value))),
        Arc::new(Int64Array::from_iter_values(records.iter().map(|record| record.label))),
    ]
}

fn fold(cells: &mut Cells, dataset: &Dataset, records: &[Record]) {
    let columns = columns(records);
    let contributors = ContributorKey([7; 16]).hash(&columns[0]);
    let numbers = cell_numbers(dataset, &columns, records.len());
    let foldable = Foldable { columns: &columns, contributors: &contributors, cells: &numbers };
    cells.fold(dataset, &foldable, &Rows::All);
}

type Results = BTreeMap<String, (usize, Vec<Value>)>;

fn results(cells: &Cells, dataset: &Dataset) -> Results {
    let slots = cells.in_order().into_iter().map(|(slot, contributors)| {
        let label = dataset.keys[0].domain.label(cells.key_positions(dataset, slot)[0]);
        let values = (0..dataset.metrics.len()).map(|metric| cells.value(dataset, metric, slot)).collect();
        (label, (contributors, values))
    });
    slots.collect()
}

/// What the cells should be, the slow and obvious way.
fn reference(records: &[Record]) -> BTreeMap<String, (usize, Vec<Value>)> {
    let mut groups: BTreeMap<String, Vec<&Record>> = BTreeMap::new();
    for record in records {
        let label = if record.group < 2 { WORDS[record.group] } else { "other" };
        groups.entry(label.to_owned()).or_default().push(record);
    }
    let results = groups.into_iter().map(|(label, records)| {
        let people: BTreeSet<Option<&String>> = records.iter().map(|record| record.person.as_ref()).collect();
        let values: Vec<f64> =
            records.iter().filter_map(|record| record.value).map(|value| value.clamp(-1_000.0, 1_000.0)).collect();
        let n = values.len() as f64;
        let some = |value: f64| (!values.is_empty()).then_some(value);
        let sum: f64 = values.iter().sum();
        let mean = sum / n;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n;
        let below = values.iter().filter(|value| **value < 0.0).count() as u64;
        let share = records.iter().filter(|record| record.label == 1).count() as f64 / records.len() as f64;
        let metrics = vec![
            Value::Count(records.len() as u64),
            Value::Number(some(sum)),
            Value::Number(some(mean)),
            Value::Number(some(variance)),
            Value::Counts(vec![below, values.len() as u64 - below]),
            Value::Number(Some(share)),
        ];
        (label, (people.len(), metrics))
    });
    results.collect()
}

fn close(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(Some(left)), Value::Number(Some(right))) => (left - right).abs() <= 1e-9 * (1.0 + right.abs()),
        _ => left == right,
    }
}

/// The cells, written and read again; every cut of the bytes is noticed.
fn through_a_checkpoint(cells: &Cells, dataset: &Dataset) -> Cells {
    let mut writer = Writer::default();
    cells.encode(&mut writer);
    let bytes = writer.finish();
    for end in 0..bytes.len() {
        assert!(Cells::decode(dataset, &mut Reader::new(&bytes[..end])).is_none());
    }
    Cells::decode(dataset, &mut Reader::new(&bytes)).unwrap()
}

proptest! {
    #[test]
    fn cells_are_what_the_reference_says(records in prop::collection::vec(record(), 0..60)) {
        let dataset = dataset();
        let mut cells = Cells::new(&dataset);
        fold(&mut cells, &dataset, &records);
        let (found, expected) = (results(&cells, &dataset), reference(&records));
        prop_assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (label, (contributors, values)) in &expected {
            prop_assert_eq!(found[label].0, *contributors);
            for (found, expected) in found[label].1.iter().zip(values) {
                prop_assert!(close(found, expected), "{} {:?} {:?}", label, found, expected);
            }
        }
    }

    #[test]
    fn cells_are_the_same_to_the_last_bit_whatever_the_split_and_the_order(
        records in prop::collection::vec(record(), 1..60),
        split in any::<prop::sample::Index>(),
    ) {
        let dataset = dataset();
        let mut whole = Cells::new(&dataset);
        fold(&mut whole, &dataset, &records);
        let mut reversed = records.clone();
        reversed.reverse();
        let (left, right) = reversed.split_at(split.index(reversed.len()));
        let (mut one, mut two) = (Cells::new(&dataset), Cells::new(&dataset));
        fold(&mut one, &dataset, left);
        fold(&mut two, &dataset, right);
        let mut one = through_a_checkpoint(&one, &dataset);
        one.merge(through_a_checkpoint(&two, &dataset));
        prop_assert_eq!(results(&whole, &dataset), results(&one, &dataset));
    }

    #[test]
    fn rounding_is_that_of_the_standard_library(value in any::<f64>(), near in -9e15..9e15_f64, half in -1_000..1_000_i32) {
        for value in [value, near, near / 1e9, f64::from(half) / 2.0] {
            prop_assert_eq!(rounded(value), value.round_ties_even() as i64, "{}", value);
        }
    }
}
