//! Datasets for tests: a plain one, and one with every kind of key and metric, which the golden files in `tests/golden` are of.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};

use super::{Dataset, Function, GroupKey, KeyDomain, Measure, Metric, Source};
use crate::domain::stream::ValueRange;

/// A dataset that asks for nothing: it counts the records of a window of a minute. Tests say what they want otherwise.
pub(crate) fn plain() -> Dataset {
    Dataset {
        name: "d".parse().unwrap(),
        stream: "s".parse().unwrap(),
        contributor: "who".into(),
        window: Duration::from_secs(60),
        overlap: Duration::ZERO,
        grace: Duration::ZERO,
        open_max: super::OPEN_MAX,
        min_contributors: 10,
        bounds: None,
        keeps_all: false,
        max_defer: 0,
        roll_up: Vec::new(),
        only_on_change: false,
        coarser_than: None,
        tells_contributors: false,
        keys: Vec::new(),
        metrics: vec![Metric { name: "n".into(), function: Function::Count, digits: None }],
        privacy: None,
        members: Vec::new(),
    }
}

/// Of a stream whose columns are `person`, `country`, `level`, `flag`, `amount`, `x` (optional) and `label`.
pub(in crate::domain) fn every_kind() -> Dataset {
    let source = |field: &str, column, may_be_missing| Source { column, field: field.into(), may_be_missing };
    let amount = Measure { source: source("amount", 4, false), range: ValueRange { low: -10.0, high: 30.0 } };
    let x = Measure { source: source("x", 5, true), range: ValueRange { low: 0.0, high: 1.5e9 } };
    let metric = |name: &str, function| Metric { name: name.into(), function, digits: None };
    let key = |name: &str, column, domain| GroupKey { name: name.into(), column, domain };
    let words = |words: &[&str]| KeyDomain::text(words.iter().map(|word| (*word).to_owned()).collect());
    let histogram =
        Function::Histogram { source: source("amount", 4, false), edges: vec![-10.0, 0.0, 1e21, f64::INFINITY] };
    let share = Function::Fraction { source: source("label", 6, false), equals: KeyDomain::Integers(vec![1].into()) };
    let share_of_de = Function::Fraction { source: source("country", 1, false), equals: words(&["DE"]) };
    Dataset {
        name: "golden".parse().unwrap(),
        stream: "payments".parse().unwrap(),
        contributor: "person".into(),
        window: Duration::from_millis(90_500),
        min_contributors: 5,
        keys: vec![
            key("country", 1, words(&["DE", "F\"R\u{e9}"])),
            key("level", 2, KeyDomain::Integers(vec![-1, 2].into())),
            key("flag", 3, KeyDomain::Bool),
            key("amount", 4, KeyDomain::Edges(vec![-10.0, 0.5, 30.0])),
        ],
        metrics: vec![
            metric("n", Function::Count),
            metric("amount_sum", Function::Sum(amount.clone())),
            metric("amount_mean", Function::Mean(amount)),
            metric("x_variance", Function::Variance(x.clone())),
            metric("x_sum", Function::Sum(x)),
            metric("histogram", histogram),
            metric("share", share),
            metric("share_of_de", share_of_de),
        ],
        ..plain()
    }
}

/// 60 records of that stream.
pub(in crate::domain) fn columns() -> Vec<ArrayRef> {
    let rows = 0..60_i32;
    let number = |row: i32| f64::from(row);
    vec![
        Arc::new(StringArray::from_iter_values(rows.clone().map(|row| format!("p{}", row % 13)))),
        Arc::new(StringArray::from_iter_values(rows.clone().map(|row| match row % 3 {
            0 => "DE",
            1 => "F\"R\u{e9}",
            _ => "ZZ",
        }))),
        Arc::new(Int64Array::from_iter_values(rows.clone().map(|row| i64::from(row % 4 - 1)))),
        Arc::new(BooleanArray::from_iter(rows.clone().map(|row| Some(row % 2 == 0)))),
        Arc::new(Float64Array::from_iter_values(rows.clone().map(|row| number(row) * 0.7 - 10.0))),
        Arc::new(Float64Array::from_iter(rows.clone().map(|row| (row % 3 != 0).then_some(number(row) * 1.1)))),
        Arc::new(Int64Array::from_iter_values(rows.map(|row| i64::from(row % 2)))),
    ]
}
