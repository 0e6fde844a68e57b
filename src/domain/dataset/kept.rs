//! The shape of a dataset as a checkpoint keeps it, also as an older version kept it.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Dataset, Function, KeyDomain, Measure, Shape};
use crate::domain::binary::{Reader, Writer};

/// How a dataset counted when a checkpoint was written.
#[derive(Debug, Clone, PartialEq)]
pub enum KeptShape {
    /// Its shape.
    Shape(Shape),
    /// What checkpoints up to version 2 hold: a text that can only be compared.
    Text(String),
}

const TEXT: u8 = 0;
const SHAPE: u8 = 1;

impl KeptShape {
    /// Adds it to a checkpoint.
    pub fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Text(text) => {
                writer.u8(TEXT).text(text);
            }
            Self::Shape(shape) => {
                writer.u8(SHAPE);
                shape.encode(writer);
            }
        }
    }

    /// Reads it from a checkpoint. `None`: it is none, or one of a newer version.
    pub fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        match reader.u8()? {
            TEXT => reader.text().map(|text| Self::Text(text.to_owned())),
            SHAPE => Shape::decode(reader).map(Self::Shape),
            _ => None,
        }
    }

    /// How far apart windows begin. `None`: it does not say.
    #[must_use]
    pub fn window(&self) -> Option<Duration> {
        match self {
            Self::Shape(shape) => Some(shape.window()).filter(|window| !window.is_zero()),
            Self::Text(_) => None,
        }
    }

    /// What changed since, each in a few words for a person. Empty when windows can be counted on.
    #[must_use]
    pub fn differences(&self, now: &Dataset) -> Vec<String> {
        match self {
            Self::Shape(then) => then.differences(&now.shape()),
            Self::Text(then) if now.bounds.is_none() && !now.overlaps() && *then == text_of_version_2(now) => {
                Vec::new()
            }
            Self::Text(_) => {
                let what = "its stream, contributor, window, keys or metrics, or the position of a field that it uses";
                vec![format!("it was declared otherwise under an older version of bailiwick ({what})")]
            }
        }
    }
}

/// The shape of a dataset as checkpoints up to version 2 hold it. It must not change: `tests/golden/checkpoint-2-shape.txt`.
fn text_of_version_2(dataset: &Dataset) -> String {
    let mut text = format!("stream {}, window {:?}", dataset.stream, dataset.window);
    // Writing to a string does not fail.
    for key in &dataset.keys {
        let _ = write!(text, "; key {} of column {}: {}", key.name, key.column, domain(&key.domain));
    }
    for metric in &dataset.metrics {
        let _ = write!(text, "; metric {}: ", metric.name);
        let _ = match &metric.function {
            Function::Count => write!(text, "Count"),
            Function::Sum(of) => write!(text, "Sum({})", measure(of)),
            Function::Mean(of) => write!(text, "Mean({})", measure(of)),
            Function::Variance(of) => write!(text, "Variance({})", measure(of)),
            Function::Histogram { source, edges } => {
                write!(text, "Histogram {{ column: {}, edges: {edges:?} }}", source.column)
            }
            Function::Fraction { source, equals } => {
                write!(text, "fraction of {}, {}", source.column, domain(equals))
            }
        };
    }
    let _ = write!(text, "; contributor {}", dataset.contributor);
    text
}

fn measure(measure: &Measure) -> String {
    let Measure { source, range } = measure;
    let (column, low, high) = (source.column, range.low, range.high);
    format!("Measure {{ column: {column}, range: ValueRange {{ low: {low:?}, high: {high:?} }} }}")
}

fn domain(domain: &KeyDomain) -> String {
    match domain {
        KeyDomain::Text { words, .. } => format!("{words:?}"),
        KeyDomain::Integers(numbers) => format!("Integers({:?})", numbers.all()),
        KeyDomain::Bool => "Bool".to_owned(),
        KeyDomain::Edges(edges) => format!("Edges({edges:?})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::dataset::samples;

    #[test]
    fn the_text_of_version_2_is_what_that_version_wrote() {
        let golden = include_str!("../../../tests/golden/checkpoint-2-shape.txt");
        assert_eq!(text_of_version_2(&samples::every_kind()), golden);
    }

    #[test]
    fn what_a_checkpoint_keeps_is_read_again() {
        let dataset = samples::every_kind();
        for kept in [KeptShape::Shape(dataset.shape()), KeptShape::Text(text_of_version_2(&dataset))] {
            let mut writer = Writer::default();
            kept.encode(&mut writer);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            assert_eq!(KeptShape::decode(&mut reader), Some(kept));
            assert!(reader.is_empty());
        }
        assert_eq!(KeptShape::decode(&mut Reader::new(&[SHAPE + 1])), None);
    }

    #[test]
    fn a_text_of_version_2_is_compared_and_a_change_is_said() {
        let mut dataset = samples::every_kind();
        let kept = KeptShape::Text(text_of_version_2(&dataset));
        assert_eq!(kept.differences(&dataset), Vec::<String>::new());
        dataset.keys.pop();
        assert_eq!(kept.differences(&dataset).len(), 1);
    }
}
