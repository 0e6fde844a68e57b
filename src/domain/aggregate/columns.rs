//! Columns of records, added to what metrics keep.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef};
use arrow_buffer::BooleanBuffer;
use arrow_schema::DataType;

use super::Rows;
use super::moments::Moments;
use super::state::Share;
use crate::domain::dataset::{KeyDomain, Measure, bucket};

/// Which records have a value: one that is there, and is finite. `None`: all.
pub(super) fn has_value(column: &ArrayRef) -> Option<BooleanBuffer> {
    let valid = |row: usize| column.is_valid(row);
    let has_value = match column.data_type() {
        DataType::Float32 => {
            let values = column.as_primitive::<Float32Type>().values();
            BooleanBuffer::collect_bool(column.len(), |row| valid(row) && values[row].is_finite())
        }
        DataType::Float64 => {
            let values = column.as_primitive::<Float64Type>().values();
            BooleanBuffer::collect_bool(column.len(), |row| valid(row) && values[row].is_finite())
        }
        _ => column.nulls()?.inner().clone(),
    };
    (has_value.count_set_bits() < column.len()).then_some(has_value)
}

/// Calls `visit` with the slot and the value of every record that has a finite one.
fn each_value(column: &ArrayRef, rows: &Rows<'_>, slots: &[u32], mut visit: impl FnMut(usize, f64)) {
    macro_rules! visit_column {
        ($type:ty, $convert:expr) => {{
            let values = column.as_primitive::<$type>();
            let numbers = values.values();
            let mut at = slots.iter();
            let valid = values.null_count() == 0;
            rows.each(numbers.len(), |row| {
                if let Some(&slot) = at.next()
                    && (valid || values.is_valid(row))
                {
                    let value: f64 = $convert(numbers[row]);
                    if value.is_finite() {
                        visit(slot as usize, value);
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

pub(super) fn fold_moments(
    measure: &Measure,
    column: &ArrayRef,
    rows: &Rows<'_>,
    slots: &[u32],
    moments: &mut [Moments],
) {
    let scale = measure.scale();
    each_value(column, rows, slots, |slot, value| moments[slot].add(scale.integer(value)));
}

pub(super) fn fold_histogram(
    edges: &[f64],
    buckets: usize,
    column: &ArrayRef,
    rows: &Rows<'_>,
    slots: &[u32],
    counts: &mut [u64],
) {
    let (Some(&first), Some(&last)) = (edges.first(), edges.last()) else { return };
    each_value(column, rows, slots, |slot, value| {
        if let Some(bucket) = bucket(edges, value.clamp(first, last)) {
            counts[slot * buckets + bucket] += 1;
        }
    });
}

pub(super) fn fold_shares(equals: &KeyDomain, column: &ArrayRef, rows: &Rows<'_>, slots: &[u32], shares: &mut [Share]) {
    let mut positions = vec![0; column.len()];
    equals.add_positions(column, 1, &mut positions);
    let mut at = slots.iter();
    rows.each(column.len(), |row| {
        if let Some(&slot) = at.next()
            && column.is_valid(row)
        {
            let share = &mut shares[slot as usize];
            share.values += 1;
            share.matches += u64::from(positions[row] == 0);
        }
    });
}
