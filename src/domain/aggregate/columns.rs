//! Columns of records, added to what metrics keep.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;

use super::Rows;
use super::portions::Portion;
use crate::domain::dataset::{KeyDomain, Measure};

/// Calls `visit` with every record that has a finite value, as its position among these rows, and the value.
fn each_value(column: &ArrayRef, rows: &Rows<'_>, mut visit: impl FnMut(usize, f64)) {
    macro_rules! visit_column {
        ($type:ty, $convert:expr) => {{
            let values = column.as_primitive::<$type>();
            let numbers = values.values();
            let mut next = 0;
            let valid = values.null_count() == 0;
            rows.each(numbers.len(), |row| {
                let at = next;
                next += 1;
                if valid || values.is_valid(row) {
                    let value: f64 = $convert(numbers[row]);
                    if value.is_finite() {
                        visit(at, value);
                    }
                }
            });
        }};
    }
    match column.data_type() {
        DataType::Float32 => visit_column!(Float32Type, f64::from),
        DataType::Float64 => visit_column!(Float64Type, |value| value),
        DataType::Int64 => visit_column!(Int64Type, |value| value as f64),
        DataType::Timestamp(..) => visit_column!(TimestampMicrosecondType, |value| value as f64),
        _ => {}
    }
}

/// Calls `visit` with every record that has a value to be summed, as its position among these rows, the integer that the
/// value becomes, and what it adds to its contributor's portion.
pub(super) fn each_summed(
    measure: &Measure,
    column: &ArrayRef,
    rows: &Rows<'_>,
    mut visit: impl FnMut(usize, i64, Portion),
) {
    let scale = measure.scale();
    let ends = scale.ends();
    each_value(column, rows, |at, value| {
        let integer = scale.integer(value);
        visit(at, integer, ends.portion(integer));
    });
}

/// Calls `visit` with the position of every record and its value, if it has one: one that is there, and is finite.
fn each_row(column: &ArrayRef, mut visit: impl FnMut(usize, Option<f64>)) {
    macro_rules! visit_column {
        ($type:ty, $convert:expr) => {{
            let values = column.as_primitive::<$type>();
            for (row, value) in values.values().iter().enumerate() {
                let value: f64 = $convert(*value);
                visit(row, (values.is_valid(row) && value.is_finite()).then_some(value));
            }
        }};
    }
    match column.data_type() {
        DataType::Float32 => visit_column!(Float32Type, f64::from),
        DataType::Float64 => visit_column!(Float64Type, |value| value),
        DataType::Int64 => visit_column!(Int64Type, |value| value as f64),
        DataType::Timestamp(..) => visit_column!(TimestampMicrosecondType, |value| value as f64),
        _ => (0..column.len()).for_each(|row| visit(row, column.is_valid(row).then_some(0.0))),
    }
}

/// Adds to the combination of every record whether it has a value: 0, or 1 times the stride if not.
pub(super) fn add_presence(column: &ArrayRef, stride: u64, combinations: &mut [u64]) {
    each_row(column, |row, value| combinations[row] += stride * u64::from(value.is_none()));
}

/// Up to so many edges it takes less to compare a value with each than to search.
const FEW_EDGES: usize = 16;

/// Adds to the combination of every record the range that its value lies in; a value outside lies in the nearest one.
pub(super) fn add_ranges(edges: &[f64], column: &ArrayRef, stride: u64, combinations: &mut [u64]) {
    let Some(none) = edges.len().checked_sub(1) else { return };
    // The first and the last edge say nothing: what is beyond them lies in the range beside them.
    let between = edges.get(1..none).unwrap_or_default();
    let range = |value: f64| match between.len() {
        0..=FEW_EDGES => between.iter().map(|&edge| usize::from(edge <= value)).sum(),
        _ => between.partition_point(|&edge| edge <= value),
    };
    each_row(column, |row, value| combinations[row] += stride * value.map_or(none, range) as u64);
}

/// Adds to the combination of every record whether it has the one value of a domain: 0 if it is that, 1 if it is another
/// one, 2 if there is none.
pub(super) fn add_shares(equals: &KeyDomain, column: &ArrayRef, stride: u64, combinations: &mut [u64]) {
    let mut positions = vec![0; column.len()];
    equals.add_positions(column, 1, &mut positions);
    for (row, position) in positions.into_iter().enumerate() {
        let part = if column.is_null(row) { 2 } else { u64::from(position.min(1)) };
        combinations[row] += stride * part;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Float32Array, Float64Array, Int64Array};
    use proptest::prelude::*;

    use super::*;
    use crate::domain::dataset::bucket;

    /// The range of a value, by a search between the edges.
    fn slow(edges: &[f64], value: Option<f64>) -> u64 {
        let (first, last) = (edges[0], edges[edges.len() - 1]);
        let range = value.filter(|value| value.is_finite()).and_then(|value| bucket(edges, value.clamp(first, last)));
        range.unwrap_or(edges.len() - 1) as u64
    }

    proptest! {
        #[test]
        fn a_value_lies_in_the_range_that_a_search_finds(
            mut edges in prop::collection::vec(prop_oneof![(-9..9_i32).prop_map(f64::from), any::<f32>().prop_map(f64::from)], 1..40),
            values in prop::collection::vec(prop::option::weighted(0.9, any::<f64>()), 0..9),
            whole in prop::collection::vec(-9..9_i64, 0..9),
        ) {
            edges.retain(|edge| !edge.is_nan());
            prop_assume!(!edges.is_empty());
            edges.sort_by(f64::total_cmp);
            edges.dedup();
            // Each edge is a value too, and so are those that no range holds.
            let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0];
            let values: Vec<_> = values.into_iter().chain(edges.iter().chain(&special).map(|edge| Some(*edge))).collect();
            let narrow: Vec<_> = values.iter().map(|value| value.map(|value| value as f32)).collect();
            let columns: [(ArrayRef, Vec<Option<f64>>); 3] = [
                (Arc::new(Float64Array::from(values.clone())), values),
                (Arc::new(Float32Array::from(narrow.clone())), narrow.iter().map(|value| value.map(f64::from)).collect()),
                (Arc::new(Int64Array::from(whole.clone())), whole.iter().map(|value| Some(*value as f64)).collect()),
            ];
            for (column, values) in columns {
                let mut found = vec![5; values.len()];
                add_ranges(&edges, &column, 3, &mut found);
                let expected: Vec<u64> = values.iter().map(|value| 5 + 3 * slow(&edges, *value)).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
