//! Columns of records, added to what metrics keep.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;

use super::Rows;
use super::portions::Portion;
use crate::domain::dataset::{KeyDomain, Measure, bucket};

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

/// Adds to the combination of every record the range that its value lies in; a value outside lies in the nearest one.
pub(super) fn add_ranges(edges: &[f64], column: &ArrayRef, stride: u64, combinations: &mut [u64]) {
    let (Some(&first), Some(&last)) = (edges.first(), edges.last()) else { return };
    let none = edges.len() - 1;
    each_row(column, |row, value| {
        let range = value.and_then(|value| bucket(edges, value.clamp(first, last))).unwrap_or(none);
        combinations[row] += stride * range as u64;
    });
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
