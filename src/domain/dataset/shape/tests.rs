//! Shapes as bytes, and what is said of a change.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::domain::dataset::{GroupKey, Metric as DatasetMetric, samples};

fn bytes(shape: &Shape) -> Vec<u8> {
    let mut writer = Writer::default();
    shape.encode(&mut writer);
    writer.finish()
}

#[test]
fn a_shape_is_read_as_it_was_written_and_a_cut_is_noticed() {
    let shape = samples::every_kind().shape();
    let bytes = bytes(&shape);
    let mut reader = Reader::new(&bytes);
    assert_eq!(Shape::decode(&mut reader), Some(shape));
    assert!(reader.is_empty());
    for end in 0..bytes.len() {
        assert_eq!(Shape::decode(&mut Reader::new(&bytes[..end])), None, "{end} bytes");
    }
}

#[test]
fn the_bytes_of_version_1_stay_what_they_are() {
    let golden = include_bytes!("../../../../tests/golden/shape-1.bin");
    assert_eq!(bytes(&samples::every_kind().shape()), golden);
}

#[test]
fn the_bytes_of_version_2_stay_what_they_are() {
    let golden = include_bytes!("../../../../tests/golden/shape-2.bin");
    let bounds = Bounds { records_per_cell: 3, cells_per_window: Some(2) };
    let shape = Dataset { bounds: Some(bounds), ..samples::every_kind() }.shape();
    assert_eq!(bytes(&shape), golden);
    assert_eq!(Shape::decode(&mut Reader::new(golden)), Some(shape));
    let of_any_cells = Bounds { cells_per_window: None, ..bounds };
    let shape = Dataset { bounds: Some(of_any_cells), ..samples::every_kind() }.shape();
    assert_eq!(Shape::decode(&mut Reader::new(&bytes(&shape))), Some(shape));
}

/// The sample, and a dataset that shares its cells.
fn shared(bounds: Option<Bounds>) -> Dataset {
    let one = Dataset { bounds, ..samples::every_kind() };
    let metrics = vec![DatasetMetric { name: "mean".into(), ..one.metrics[2].clone() }, one.metrics[0].clone()];
    let other = Dataset { name: "more".parse().unwrap(), metrics, ..one.clone() };
    Dataset::clone(&Dataset::counted_for(&[one.into(), other.into()]).unwrap())
}

#[test]
fn the_bytes_of_version_3_stay_what_they_are() {
    let golden = include_bytes!("../../../../tests/golden/shape-3.bin");
    let shape = shared(None).shape();
    assert_eq!(bytes(&shape), golden);
    assert_eq!(Shape::decode(&mut Reader::new(golden)), Some(shape));
    for end in 0..golden.len() {
        assert_eq!(Shape::decode(&mut Reader::new(&golden[..end])), None, "{end} bytes");
    }
    let bounded = shared(Some(Bounds { records_per_cell: 3, cells_per_window: None })).shape();
    assert_eq!(Shape::decode(&mut Reader::new(&bytes(&bounded))), Some(bounded));
}

/// The sample, and a coarser dataset that adds up its rows over all but one key.
fn coarser() -> Dataset {
    let one = samples::every_kind();
    let coarser_than = Some(one.name.clone());
    let other = Dataset { name: "more".parse().unwrap(), coarser_than, keys: one.keys[1..2].to_vec(), ..one.clone() };
    Dataset::clone(&Dataset::counted_for(&[one.into(), other.into()]).unwrap())
}

/// The sample, and one that adds up its rows over windows that are twice as long.
fn longer() -> Dataset {
    let one = samples::every_kind();
    let (coarser_than, window) = (Some(one.name.clone()), one.window * 2);
    let other = Dataset { name: "more".parse().unwrap(), coarser_than, window, ..one.clone() };
    Dataset::clone(&Dataset::counted_for(&[one.into(), other.into()]).unwrap())
}

#[test]
fn the_bytes_of_version_5_stay_what_they_are() {
    let golden = include_bytes!("../../../../tests/golden/shape-5.bin");
    let shape = longer().shape();
    assert_eq!(bytes(&shape), golden);
    assert_eq!(Shape::decode(&mut Reader::new(golden)), Some(shape.clone()));
    for end in 0..golden.len() {
        assert_eq!(Shape::decode(&mut Reader::new(&golden[..end])), None, "{end} bytes");
    }
    let both = Dataset::counted_for(&[
        samples::every_kind().into(),
        Arc::clone(&coarser().members[1].dataset),
        Dataset { name: "most".parse().unwrap(), ..Dataset::clone(&longer().members[1].dataset) }.into(),
    ]);
    let both = both.unwrap().shape();
    assert_eq!(Shape::decode(&mut Reader::new(&bytes(&both))), Some(both));
    let mut one_more = longer();
    let longest = Dataset { window: one_more.window * 3, ..Dataset::clone(&one_more.members[1].dataset) };
    one_more.members[1].dataset = longest.into();
    let said = ["dataset `more`: window was PT3M1S, is PT4M31.5S"];
    assert_eq!(shape.differences(&one_more.shape()), said);
}

/// The sample with windows that begin every 90.5 seconds, and are twice as long.
fn overlapping(bounds: Option<Bounds>) -> Shape {
    let one = samples::every_kind();
    Dataset { bounds, overlap: one.window, ..one }.shape()
}

#[test]
fn the_bytes_of_version_6_stay_what_they_are() {
    let golden = include_bytes!("../../../../tests/golden/shape-6.bin");
    let shape = overlapping(Some(Bounds { records_per_cell: 3, cells_per_window: Some(2) }));
    assert_eq!(bytes(&shape), golden);
    assert_eq!(Shape::decode(&mut Reader::new(golden)), Some(shape));
    for end in 0..golden.len() {
        assert_eq!(Shape::decode(&mut Reader::new(&golden[..end])), None, "{end} bytes");
    }
    let unbounded = overlapping(None);
    assert_eq!(Shape::decode(&mut Reader::new(&bytes(&unbounded))), Some(unbounded));
}

#[test]
fn windows_that_begin_to_overlap_are_another_window() {
    let (apart, overlapping) = (samples::every_kind().shape(), overlapping(None));
    assert_eq!(apart.differences(&overlapping), ["window was PT1M30.5S, is PT3M1S every PT1M30.5S"]);
    assert_eq!(overlapping.differences(&apart), ["window was PT3M1S every PT1M30.5S, is PT1M30.5S"]);
    let twice = Dataset { window: samples::every_kind().window * 2, ..samples::every_kind() }.shape();
    assert_eq!(twice.differences(&overlapping), ["window was PT3M1S, is PT3M1S every PT1M30.5S"]);
}

#[test]
fn the_bytes_of_version_4_stay_what_they_are() {
    let golden = include_bytes!("../../../../tests/golden/shape-4.bin");
    let shape = coarser().shape();
    assert_eq!(bytes(&shape), golden);
    assert_eq!(Shape::decode(&mut Reader::new(golden)), Some(shape));
    for end in 0..golden.len() {
        assert_eq!(Shape::decode(&mut Reader::new(&golden[..end])), None, "{end} bytes");
    }
}

#[test]
fn a_dataset_that_becomes_a_coarser_one_is_said() {
    let mut finer = coarser();
    let all = (0..finer.keys.len()).collect();
    finer.members[1].keys = all;
    let said = ["dataset `more`: it has other keys, so its rows are added up otherwise"];
    assert_eq!(finer.shape().differences(&coarser().shape()), said);
    assert_eq!(coarser().shape().differences(&finer.shape()), said);
    assert_eq!(coarser().shape().differences(&coarser().shape()), [""; 0]);
}

#[test]
fn datasets_that_begin_to_share_cells_or_end_it_or_have_other_metrics_are_said() {
    let (alone, both) = (samples::every_kind().shape(), shared(None).shape());
    assert_eq!(both.differences(&both), [""; 0]);
    assert_eq!(alone.differences(&both), ["these datasets share its cells now, and none did: `golden`, `more`"]);
    assert_eq!(both.differences(&alone), ["these datasets shared its cells, and none does now: `golden`, `more`"]);
    let mut other = shared(None);
    other.members[1].metrics.swap(0, 1);
    let said = ["dataset `more`: it has other metrics, or other names for them"];
    assert_eq!(both.differences(&other.shape()), said);
}

#[test]
fn a_newer_version_is_not_read() {
    let mut bytes = bytes(&samples::every_kind().shape());
    bytes[0] = OVERLAPPING + 1;
    assert_eq!(Shape::decode(&mut Reader::new(&bytes)), None);
}

#[test]
fn where_a_column_stands_changes_nothing() {
    let mut moved = samples::every_kind();
    for key in &mut moved.keys {
        key.column += 3;
    }
    for metric in &mut moved.metrics {
        match &mut metric.function {
            Function::Count => {}
            Function::Sum(measure) | Function::Mean(measure) | Function::Variance(measure) => {
                measure.source.column += 3
            }
            Function::Histogram { source, .. } | Function::Fraction { source, .. } => source.column += 3,
        }
    }
    assert_eq!(moved.shape(), samples::every_kind().shape());
    assert_eq!(bytes(&moved.shape()), bytes(&samples::every_kind().shape()));
}

#[test]
fn grace_and_k_are_no_part_of_a_shape() {
    let mut dataset = samples::every_kind();
    dataset.grace += Duration::from_secs(1);
    dataset.min_contributors += 1;
    assert_eq!(dataset.shape(), samples::every_kind().shape());
}

/// What is said when the sample becomes something else.
fn said(change: impl FnOnce(&mut Dataset)) -> Vec<String> {
    let (then, mut now) = (samples::every_kind(), samples::every_kind());
    change(&mut now);
    let said = then.shape().differences(&now.shape());
    assert_eq!(said.is_empty(), then.shape() == now.shape());
    said
}

#[test]
fn every_change_is_said_in_plain_words() {
    assert_eq!(said(|_| {}), Vec::<String>::new());
    assert_eq!(said(|now| now.stream = "orders".parse().unwrap()), ["stream was `payments`, is `orders`"]);
    assert_eq!(said(|now| now.contributor = "card".into()), ["contributor was `person`, is `card`"]);
    let bounds = |records_per_cell, cells_per_window| Some(Bounds { records_per_cell, cells_per_window });
    assert_eq!(
        said(|now| now.bounds = bounds(3, None)),
        ["bounds of a contributor's records was none, is 3 in a cell"]
    );
    assert_eq!(
        said(|now| now.bounds = bounds(3, Some(2))),
        ["bounds of a contributor's records was none, is 3 in a cell, in 2 cells of a window"]
    );
    assert_eq!(said(|now| now.window = Duration::from_secs(300)), ["window was PT1M30.5S, is PT5M"]);
    assert_eq!(said(|now| drop(now.keys.remove(2))), ["key `flag` was removed"]);
    let key = GroupKey { name: "channel".into(), column: 9, domain: KeyDomain::Bool };
    assert_eq!(said(|now| now.keys.push(key)), ["key `channel` was added"]);
    assert_eq!(said(|now| now.keys.swap(0, 1)), ["the keys are in another order"]);
    let words = |words: &[&str]| KeyDomain::text(words.iter().map(|word| (*word).to_owned()).collect());
    assert_eq!(
        said(|now| now.keys[0].domain = words(&["DE", "IE"])),
        ["key `country`: `F\"R\u{e9}` was removed from its domain", "key `country`: `IE` was added to its domain"]
    );
    assert_eq!(
        said(|now| now.keys[0].domain = words(&["F\"R\u{e9}", "DE"])),
        ["key `country`: its domain is in another order"]
    );
    let many = words(&["DE", "F\"R\u{e9}", "a", "b", "c", "d", "e", "f", "g"]);
    assert_eq!(
        said(|now| now.keys[0].domain = many),
        ["key `country`: `a`, `b`, `c`, `d`, `e` and 2 more were added to its domain"]
    );
    let integers = KeyDomain::Integers(vec![-1, 2, 3].into());
    assert_eq!(said(|now| now.keys[1].domain = integers), ["key `level`: `3` was added to its domain"]);
    assert_eq!(said(|now| now.keys[3].domain = KeyDomain::Edges(vec![0.0, 1.0])), ["key `amount`: edges changed"]);
    assert_eq!(said(|now| now.keys[3].domain = KeyDomain::Bool), ["key `amount`: its domain is of another kind"]);
}

#[test]
fn every_change_of_a_metric_is_said_in_plain_words() {
    let source = |now: &mut Dataset, metric: usize, change: &dyn Fn(&mut Source)| match &mut now.metrics[metric]
        .function
    {
        Function::Count => {}
        Function::Sum(measure) | Function::Mean(measure) | Function::Variance(measure) => change(&mut measure.source),
        Function::Histogram { source, .. } | Function::Fraction { source, .. } => change(source),
    };
    assert_eq!(said(|now| drop(now.metrics.remove(0))), ["metric `n` was removed"]);
    let metric = DatasetMetric { name: "m".into(), function: Function::Count, digits: None };
    assert_eq!(said(|now| now.metrics.push(metric)), ["metric `m` was added"]);
    assert_eq!(said(|now| now.metrics.swap(1, 2)), ["the metrics are in another order"]);
    assert_eq!(
        said(|now| now.metrics[1].function = now.metrics[2].function.clone()),
        ["metric `amount_sum`: was a sum, is a mean"]
    );
    assert_eq!(
        said(|now| source(now, 1, &|source| source.field = "cost".into())),
        ["metric `amount_sum`: was of field `amount`, is of `cost`"]
    );
    assert_eq!(
        said(|now| source(now, 1, &|source| source.may_be_missing = true)),
        ["metric `amount_sum`: a record may be without a value of field `amount`"]
    );
    assert_eq!(
        said(|now| source(now, 3, &|source| source.may_be_missing = false)),
        ["metric `x_variance`: a record may no longer be without a value of field `x`"]
    );
    let range = |now: &mut Dataset| {
        if let Function::Sum(measure) = &mut now.metrics[1].function {
            measure.range.high = 60.0;
        }
    };
    assert_eq!(said(range), ["metric `amount_sum`: the field's range was [-10, 30], is [-10, 60]"]);
    let edges = |now: &mut Dataset| {
        if let Function::Histogram { edges, .. } = &mut now.metrics[5].function {
            edges.pop();
        }
    };
    assert_eq!(said(edges), ["metric `histogram`: edges changed"]);
    let equals = |now: &mut Dataset| {
        if let Function::Fraction { equals, .. } = &mut now.metrics[6].function {
            *equals = KeyDomain::Integers(vec![0].into());
        }
    };
    assert_eq!(said(equals), ["metric `share`: equals was `1`, is `0`"]);
}
