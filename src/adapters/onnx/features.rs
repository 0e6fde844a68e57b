//! Columns → the row-major matrix that a model takes.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;

use crate::domain::model::{Encoding, ModelInput};
use crate::domain::policy::Resident;

use super::check::Element;

/// One input's matrix, kept between batches.
pub(super) struct InputBuffer {
    input: ModelInput,
    matrix: Matrix,
}

enum Matrix {
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Int64(Vec<i64>),
}

/// A number of a matrix.
trait Cell: Copy {
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

impl InputBuffer {
    pub(super) fn new(input: ModelInput, element: Element) -> Self {
        let matrix = match element {
            Element::Float32 => Matrix::Float32(Vec::new()),
            Element::Float64 => Matrix::Float64(Vec::new()),
            Element::Int64 => Matrix::Int64(Vec::new()),
        };
        Self { input, matrix }
    }

    pub(super) fn name(&self) -> &str {
        &self.input.name
    }

    pub(super) fn width(&self) -> usize {
        self.input.width()
    }

    pub(super) fn element(&self) -> Element {
        match self.matrix {
            Matrix::Float32(_) => Element::Float32,
            Matrix::Float64(_) => Element::Float64,
            Matrix::Int64(_) => Element::Int64,
        }
    }

    pub(super) fn float32(&self) -> &[f32] {
        if let Matrix::Float32(values) = &self.matrix { values } else { &[] }
    }

    pub(super) fn float64(&self) -> &[f64] {
        if let Matrix::Float64(values) = &self.matrix { values } else { &[] }
    }

    pub(super) fn int64(&self) -> &[i64] {
        if let Matrix::Int64(values) = &self.matrix { values } else { &[] }
    }

    /// Fills the matrix with the batches' records, one after the other.
    pub(super) fn fill(&mut self, batches: &[&Resident], rows: usize) {
        match &mut self.matrix {
            Matrix::Float32(values) => fill(values, &self.input, batches, rows),
            Matrix::Float64(values) => fill(values, &self.input, batches, rows),
            Matrix::Int64(values) => fill(values, &self.input, batches, rows),
        }
    }
}

fn fill<T: Cell>(matrix: &mut Vec<T>, input: &ModelInput, batches: &[&Resident], rows: usize) {
    let width = input.width();
    matrix.clear();
    matrix.resize(rows * width, T::of_i64(0));
    let mut rest = matrix.as_mut_slice();
    for resident in batches {
        let batch = resident.batch();
        let (part, after) = rest.split_at_mut(batch.rows() * width);
        let mut offset = 0;
        for feature in &input.features {
            if let Some(column) = batch.columns().get(feature.column) {
                fill_feature(part, width, offset, column, &feature.encoding);
            }
            offset += feature.width();
        }
        rest = after;
    }
}

fn fill_feature<T: Cell>(part: &mut [T], width: usize, offset: usize, column: &ArrayRef, encoding: &Encoding) {
    let cells = part.iter_mut().skip(offset).step_by(width);
    let null = T::of_f64(f64::NAN);
    match (encoding, column.data_type()) {
        (Encoding::Number, DataType::Float32) => {
            let values = column.as_primitive::<Float32Type>();
            cells.zip(values.values()).for_each(|(cell, value)| *cell = T::of_f32(*value));
        }
        (Encoding::Number, DataType::Float64) => {
            let values = column.as_primitive::<Float64Type>();
            cells.zip(values.values()).for_each(|(cell, value)| *cell = T::of_f64(*value));
        }
        (Encoding::Number, DataType::Int64) => {
            let values = column.as_primitive::<Int64Type>();
            cells.zip(values.values()).for_each(|(cell, value)| *cell = T::of_i64(*value));
        }
        (Encoding::Number, DataType::Boolean) => {
            let values = column.as_boolean().values();
            cells.zip(values).for_each(|(cell, value)| *cell = T::of_i64(value.into()));
        }
        (Encoding::Index(words), DataType::Utf8) => {
            let position = |word: Option<&str>| words.iter().position(|known| Some(known.as_str()) == word);
            let values = column.as_string::<i32>();
            cells.zip(values).for_each(|(cell, word)| {
                *cell = T::of_i64(position(word).and_then(|position| i64::try_from(position).ok()).unwrap_or(-1));
            });
            return;
        }
        (Encoding::OneHot(words), DataType::Utf8) => {
            let values = column.as_string::<i32>();
            for (row, word) in part.chunks_exact_mut(width).zip(values) {
                let position = words.iter().position(|known| Some(known.as_str()) == word);
                if let Some(cell) = position.and_then(|position| row.get_mut(offset + position)) {
                    *cell = T::of_i64(1);
                }
            }
            return;
        }
        // The loader pairs encodings with columns of their type.
        _ => return,
    }
    if column.null_count() > 0 {
        let cells = part.iter_mut().skip(offset).step_by(width);
        cells.enumerate().filter(|(row, _)| column.is_null(*row)).for_each(|(_, cell)| *cell = null);
    }
}
