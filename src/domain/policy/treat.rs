//! Field treatments: in which form a field's values are kept, scored and counted. They are applied to what stays,
//! before anything else sees it. Evidence is read from a field before its treatment.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, StringArray, new_null_array};

use crate::domain::dataset::OTHER;
use crate::domain::pseudonym::{Pseudonyms, Span};
use crate::domain::stream::FieldType;

/// What is done with a field's values.
#[derive(Debug, Clone, PartialEq)]
pub enum Treatment {
    /// They are removed: nothing behind the decision sees them.
    Drop,
    /// A number becomes the lower edge of its bin: the first edge below all edges, the last one from it on. NaN becomes
    /// null.
    Edges(Vec<f64>),
    /// A time becomes the last multiple of so many microseconds since the Unix epoch.
    Truncate(i64),
    /// A text that is not one of these becomes `other`.
    Words(BTreeSet<String>),
    /// A text becomes a pseudonym.
    Pseudonymise(Span),
}

/// The treatments of a stream's fields, by position. A field without one is kept as it is.
#[derive(Debug, Clone, Default)]
pub struct Treatments(pub Vec<(usize, Treatment)>);

impl Treatments {
    /// A field's treatment, if it has one.
    #[must_use]
    pub fn of(&self, field: usize) -> Option<&Treatment> {
        self.0.iter().find(|(position, _)| *position == field).map(|(_, treatment)| treatment)
    }

    /// Whether every field is kept as it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether nothing of a field's own values is kept.
    #[must_use]
    pub fn hides(&self, field: usize) -> bool {
        matches!(self.of(field), Some(Treatment::Drop | Treatment::Pseudonymise(_)))
    }

    /// The columns as they are kept.
    pub(super) fn apply(&self, columns: &mut [ArrayRef], event_time: usize, pseudonyms: Option<&Pseudonyms>) {
        let times = columns.get(event_time).map(Arc::clone);
        for (position, treatment) in &self.0 {
            let Some(column) = columns.get_mut(*position) else { continue };
            *column = match (treatment, pseudonyms, &times) {
                (Treatment::Pseudonymise(span), Some(pseudonyms), Some(times)) => {
                    to_pseudonyms(column, times, *span, pseudonyms)
                }
                _ => treatment.apply(column),
            };
        }
    }
}

impl Treatment {
    /// Whether the treatment can be given to a field of a type.
    #[must_use]
    pub fn fits(&self, field_type: FieldType) -> bool {
        match self {
            Self::Drop => true,
            Self::Edges(_) => field_type.is_numeric(),
            Self::Truncate(_) => field_type == FieldType::Timestamp,
            Self::Words(_) | Self::Pseudonymise(_) => field_type == FieldType::String,
        }
    }

    /// A column, treated. It keeps its type. Without keys there are no pseudonyms, and nothing is left.
    #[must_use]
    pub fn apply(&self, column: &ArrayRef) -> ArrayRef {
        match self {
            Self::Drop | Self::Pseudonymise(_) => new_null_array(column.data_type(), column.len()),
            Self::Edges(edges) => to_edges(column, edges),
            Self::Truncate(size) => {
                let times = column.as_primitive::<TimestampMicrosecondType>();
                Arc::new(times.unary::<_, TimestampMicrosecondType>(|time| time - time.rem_euclid(*size)))
            }
            Self::Words(words) => {
                let texts = column.as_string::<i32>().iter();
                let treated = texts.map(|text| text.map(|text| if words.contains(text) { text } else { OTHER }));
                Arc::new(treated.collect::<StringArray>())
            }
        }
    }
}

fn to_pseudonyms(column: &ArrayRef, times: &ArrayRef, span: Span, pseudonyms: &Pseudonyms) -> ArrayRef {
    let times = times.as_primitive::<TimestampMicrosecondType>().values();
    let texts = column.as_string::<i32>().iter().zip(times);
    let treated = texts.map(|(text, time)| text.map(|text| pseudonyms.of(text, span, *time)));
    Arc::new(treated.collect::<StringArray>())
}

/// The lower edge of the bin of a number.
fn bin(value: f64, edges: &[f64]) -> Option<f64> {
    if value.is_nan() {
        return None;
    }
    let above = edges.partition_point(|edge| *edge <= value);
    edges.get(above.saturating_sub(1)).copied()
}

#[expect(clippy::cast_possible_truncation, reason = "edges are read as numbers of the field's own type")]
fn to_edges(column: &ArrayRef, edges: &[f64]) -> ArrayRef {
    if let Some(values) = column.as_primitive_opt::<Float64Type>() {
        return Arc::new(values.unary_opt::<_, Float64Type>(|value| bin(value, edges)));
    }
    if let Some(values) = column.as_primitive_opt::<Float32Type>() {
        return Arc::new(values.unary_opt::<_, Float32Type>(|value| Some(bin(f64::from(value), edges)? as f32)));
    }
    match column.as_primitive_opt::<Int64Type>() {
        Some(values) => {
            // Compared as whole numbers: not every i64 is a float.
            let edges: Vec<i64> = edges.iter().map(|edge| *edge as i64).collect();
            let lower = |value| edges.get(edges.partition_point(|edge| *edge <= value).saturating_sub(1)).copied();
            Arc::new(values.unary_opt::<_, Int64Type>(lower))
        }
        None => new_null_array(column.data_type(), column.len()),
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{Float64Array, Int64Array, TimestampMicrosecondArray};
    use proptest::prelude::*;

    use super::*;

    const EDGES: [f64; 4] = [-10.0, 0.0, 0.5, 100.0];

    fn floats(values: Vec<Option<f64>>) -> ArrayRef {
        Arc::new(Float64Array::from(values))
    }

    #[test]
    fn a_number_becomes_the_lower_edge_of_its_bin() {
        let treated = Treatment::Edges(EDGES.to_vec()).apply(&floats(vec![
            Some(-99.0),
            Some(-10.0),
            Some(-0.0),
            Some(0.49),
            Some(0.5),
            Some(1e300),
            Some(f64::INFINITY),
            Some(f64::NAN),
            None,
        ]));
        let wanted =
            vec![Some(-10.0), Some(-10.0), Some(0.0), Some(0.0), Some(0.5), Some(100.0), Some(100.0), None, None];
        assert_eq!(treated.as_ref(), floats(wanted).as_ref());
    }

    proptest! {
        #[test]
        fn generalised_numbers_are_of_a_finite_domain_in_order_and_stay_as_they_are(
            mut values in proptest::collection::vec(proptest::num::f64::ANY, 1..50),
        ) {
            values.sort_by(f64::total_cmp);
            let treatment = Treatment::Edges(EDGES.to_vec());
            let once = treatment.apply(&floats(values.iter().copied().map(Some).collect()));
            prop_assert!(treatment.apply(&once).as_ref() == once.as_ref());
            let once: Vec<Option<f64>> = once.as_primitive::<Float64Type>().iter().collect();
            for value in once.iter().flatten() {
                prop_assert!(EDGES.contains(value));
            }
            let numbers: Vec<f64> = once.into_iter().flatten().collect();
            prop_assert!(numbers.is_sorted());
        }

        #[test]
        fn whole_numbers_and_times_too(mut values in proptest::collection::vec(any::<i64>(), 1..50)) {
            values.sort_unstable();
            let column: ArrayRef = Arc::new(Int64Array::from(values.clone()));
            let treatment = Treatment::Edges(vec![0.0, 18.0, 65.0]);
            let once = treatment.apply(&column);
            prop_assert!(treatment.apply(&once).as_ref() == once.as_ref());
            let lower: Vec<i64> = once.as_primitive::<Int64Type>().values().to_vec();
            prop_assert!(lower.is_sorted() && lower.iter().all(|value| [0, 18, 65].contains(value)));

            let times: Vec<i64> = values.iter().map(|value| value / 2).collect();
            let column: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times.clone()));
            let treatment = Treatment::Truncate(3_600_000_000);
            let once = treatment.apply(&column);
            prop_assert!(treatment.apply(&once).as_ref() == once.as_ref());
            let truncated = once.as_primitive::<TimestampMicrosecondType>().values();
            prop_assert!(truncated.is_sorted());
            for (truncated, time) in truncated.iter().zip(times) {
                prop_assert!(truncated % 3_600_000_000 == 0 && *truncated <= time && time - truncated < 3_600_000_000);
            }
        }

        #[test]
        fn texts_become_one_of_the_words_or_other(texts in proptest::collection::vec(proptest::option::of("[a-c]{0,2}"), 1..20)) {
            let words: BTreeSet<String> = ["a", "bc"].map(str::to_owned).into();
            let treatment = Treatment::Words(words.clone());
            let column: ArrayRef = Arc::new(texts.iter().map(Option::as_deref).collect::<StringArray>());
            let once = treatment.apply(&column);
            prop_assert!(treatment.apply(&once).as_ref() == once.as_ref());
            for (treated, text) in once.as_string::<i32>().iter().zip(&texts) {
                match (treated, text) {
                    (None, None) => {}
                    (Some(treated), Some(text)) if words.contains(text) => prop_assert_eq!(treated, text),
                    (treated, _) => prop_assert_eq!(treated, Some(OTHER)),
                }
            }
        }

        #[test]
        fn of_a_dropped_field_nothing_is_left(values in proptest::collection::vec(any::<i64>(), 1..20)) {
            let column: ArrayRef = Arc::new(Int64Array::from(values.clone()));
            let dropped = Treatment::Drop.apply(&column);
            prop_assert_eq!(dropped.null_count(), values.len());
            prop_assert!(dropped.to_data().buffers().iter().all(|buffer| buffer.iter().all(|&byte| byte == 0)));
        }
    }
}
