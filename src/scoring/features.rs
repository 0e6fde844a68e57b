//! Columns → the row-major matrix that a model takes.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, Float64Array};
use arrow_schema::DataType;

use crate::domain::model::{Encoding, Feature, ModelInput};
use crate::domain::policy::Resident;

/// A number of a matrix.
pub(super) trait Cell: Copy {
    fn of_f32(value: f32) -> Self;
    fn of_f64(value: f64) -> Self;
    fn of_i64(value: i64) -> Self;
}

impl Cell for f32 {
    fn of_f32(value: f32) -> Self {
        value
    }
    fn of_f64(value: f64) -> Self {
        value as Self
    }
    fn of_i64(value: i64) -> Self {
        value as Self
    }
}

impl Cell for f64 {
    fn of_f32(value: f32) -> Self {
        value.into()
    }
    fn of_f64(value: f64) -> Self {
        value
    }
    fn of_i64(value: i64) -> Self {
        value as Self
    }
}

impl Cell for i64 {
    fn of_f32(value: f32) -> Self {
        value as Self
    }
    fn of_f64(value: f64) -> Self {
        value as Self
    }
    fn of_i64(value: i64) -> Self {
        value
    }
}

/// Fills a matrix with the batches' records, one after the other: every cell of it.
pub(super) fn fill<T: Cell>(matrix: &mut [T], input: &ModelInput, batches: &[&Resident]) {
    let width = input.width();
    let mut rest = matrix;
    for resident in batches {
        let batch = resident.batch();
        let (part, after) = rest.split_at_mut(batch.rows() * width);
        fill_part(part, width, &input.features, batch.columns());
        rest = after;
    }
}

/// Fills the rows of one batch. The matrix is written row after row and read column after column: four
/// columns of doubles at a time are turned over in registers, other features go one by one.
fn fill_part<T: Cell>(part: &mut [T], width: usize, features: &[Feature], columns: &[ArrayRef]) {
    let mut offset = 0;
    let mut rest = features;
    while let Some((feature, after)) = rest.split_first() {
        let four = rest.first_chunk().and_then(|four| doubles(four, columns));
        if let Some(four) = four {
            fill_four(part, width, offset, four.map(|column| column.values().as_ref()), T::of_f64);
            for (column, offset) in four.iter().zip(offset..) {
                fill_nulls(part, width, offset, *column);
            }
            (offset, rest) = (offset + 4, rest.get(4..).unwrap_or_default());
        } else {
            fill_feature(part, width, offset, columns.get(feature.column), &feature.encoding);
            (offset, rest) = (offset + feature.width(), after);
        }
    }
}

/// The columns of four features, if all are doubles that are taken as they are.
fn doubles<'c>(features: &[Feature; 4], columns: &'c [ArrayRef]) -> Option<[&'c Float64Array; 4]> {
    let double = |feature: &Feature| match feature.encoding {
        Encoding::Number => columns.get(feature.column)?.as_primitive_opt::<Float64Type>(),
        Encoding::Index(_) | Encoding::OneHot(_) => None,
    };
    let [first, second, third, fourth] = features;
    Some([double(first)?, double(second)?, double(third)?, double(fourth)?])
}

fn fill_four<N: Copy, T: Copy>(part: &mut [T], width: usize, offset: usize, columns: [&[N]; 4], of: impl Fn(N) -> T) {
    let [(first, rest_0), (second, rest_1), (third, rest_2), (fourth, rest_3)] =
        columns.map(|column| column.as_chunks::<4>());
    let mut blocks = part.chunks_exact_mut(4 * width);
    for ((((a, b), c), d), block) in first.iter().zip(second).zip(third).zip(fourth).zip(&mut blocks) {
        let (a, b, c, d) = (a.map(&of), b.map(&of), c.map(&of), d.map(&of));
        let turned =
            [[a[0], b[0], c[0], d[0]], [a[1], b[1], c[1], d[1]], [a[2], b[2], c[2], d[2]], [a[3], b[3], c[3], d[3]]];
        for (row, values) in turned.into_iter().enumerate() {
            if let Some(cells) = block.get_mut(row * width + offset..).and_then(<[T]>::first_chunk_mut) {
                *cells = values;
            }
        }
    }
    let last = blocks.into_remainder();
    for (column, offset) in [rest_0, rest_1, rest_2, rest_3].into_iter().zip(offset..) {
        last.iter_mut().skip(offset).step_by(width).zip(column).for_each(|(cell, &value)| *cell = of(value));
    }
}

fn fill_nulls<T: Cell>(part: &mut [T], width: usize, offset: usize, column: &dyn Array) {
    if column.null_count() > 0 {
        let cells = part.iter_mut().skip(offset).step_by(width).enumerate();
        cells.filter(|(row, _)| column.is_null(*row)).for_each(|(_, cell)| *cell = T::of_f64(f64::NAN));
    }
}

fn fill_feature<T: Cell>(part: &mut [T], width: usize, offset: usize, column: Option<&ArrayRef>, encoding: &Encoding) {
    let cells = part.iter_mut().skip(offset).step_by(width);
    let column_type = column.map(|column| (column, column.data_type()));
    match (encoding, column_type) {
        (Encoding::Number, Some((column, DataType::Float32))) => {
            let values = column.as_primitive::<Float32Type>();
            cells.zip(values.values()).for_each(|(cell, value)| *cell = T::of_f32(*value));
            fill_nulls(part, width, offset, column);
        }
        (Encoding::Number, Some((column, DataType::Float64))) => {
            let values = column.as_primitive::<Float64Type>();
            cells.zip(values.values()).for_each(|(cell, value)| *cell = T::of_f64(*value));
            fill_nulls(part, width, offset, column);
        }
        (Encoding::Number, Some((column, DataType::Int64))) => {
            let values = column.as_primitive::<Int64Type>();
            cells.zip(values.values()).for_each(|(cell, value)| *cell = T::of_i64(*value));
            fill_nulls(part, width, offset, column);
        }
        (Encoding::Number, Some((column, DataType::Boolean))) => {
            let values = column.as_boolean().values();
            cells.zip(values).for_each(|(cell, value)| *cell = T::of_i64(value.into()));
            fill_nulls(part, width, offset, column);
        }
        (Encoding::Index(words), Some((column, DataType::Utf8))) => {
            cells.zip(column.as_string::<i32>()).for_each(|(cell, word)| {
                let position = position(words, word).and_then(|position| i64::try_from(position).ok());
                *cell = T::of_i64(position.unwrap_or(-1));
            });
        }
        (Encoding::OneHot(words), Some((column, DataType::Utf8))) => {
            for (row, word) in part.chunks_exact_mut(width).zip(column.as_string::<i32>()) {
                let Some(cells) = row.get_mut(offset..offset + words.len()) else { continue };
                cells.fill(T::of_i64(0));
                if let Some(cell) = position(words, word).and_then(|position| cells.get_mut(position)) {
                    *cell = T::of_i64(1);
                }
            }
        }
        // The loader pairs encodings with columns of their type.
        (Encoding::Number | Encoding::Index(_), _) => cells.for_each(|cell| *cell = T::of_f64(f64::NAN)),
        (Encoding::OneHot(words), _) => {
            let rows = part.chunks_exact_mut(width).filter_map(|row| row.get_mut(offset..offset + words.len()));
            rows.for_each(|cells| cells.fill(T::of_i64(0)));
        }
    }
}

fn position(words: &[String], word: Option<&str>) -> Option<usize> {
    words.iter().position(|known| Some(known.as_str()) == word)
}

#[cfg(test)]
mod tests;
