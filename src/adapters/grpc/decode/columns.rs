//! Columns under construction, filled one value at a time by the row-shaped decoders.
//!
//! A value may be put more than once into a row; the last one holds. What a row lacks is null.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};

use crate::domain::batch::Candidate;
use crate::domain::refusal::{Reason, Refusal};
use crate::domain::stream::{FieldType, Stream, Undeclared};

use super::{Decoded, Undecodable};

/// The columns of a stream, row by row.
pub(super) struct Columns<'s> {
    pub(super) stream: &'s Arc<Stream>,
    columns: Vec<Column>,
    row: usize,
    row_refused: bool,
    refusals: Vec<Refusal>,
    dropped: u32,
}

struct Column {
    values: Values,
    /// The rows without a value.
    missing: Vec<usize>,
}

enum Values {
    Bool(Vec<bool>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    String { ends: Vec<i32>, bytes: Vec<u8> },
    Timestamp(Vec<i64>),
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::Bool(values) => values.len(),
            Self::Int64(values) | Self::Timestamp(values) => values.len(),
            Self::Float32(values) => values.len(),
            Self::Float64(values) => values.len(),
            Self::String { ends, .. } => ends.len() - 1,
        }
    }

    fn push_default(&mut self) {
        match self {
            Self::Bool(values) => values.push(false),
            Self::Int64(values) | Self::Timestamp(values) => values.push(0),
            Self::Float32(values) => values.push(0.0),
            Self::Float64(values) => values.push(0.0),
            Self::String { ends, .. } => ends.push(ends.last().copied().unwrap_or(0)),
        }
    }
}

fn put<T>(values: &mut Vec<T>, row: usize, value: T) {
    match values.get_mut(row) {
        None => values.push(value),
        Some(before) => *before = value,
    }
}

impl<'s> Columns<'s> {
    pub(super) fn new(stream: &'s Arc<Stream>, rows: usize) -> Self {
        let columns = stream.fields.iter().map(|field| {
            let values = match field.field_type {
                FieldType::Bool => Values::Bool(Vec::with_capacity(rows)),
                FieldType::Int64 => Values::Int64(Vec::with_capacity(rows)),
                FieldType::Float32 => Values::Float32(Vec::with_capacity(rows)),
                FieldType::Float64 => Values::Float64(Vec::with_capacity(rows)),
                FieldType::Timestamp => Values::Timestamp(Vec::with_capacity(rows)),
                FieldType::String => {
                    let mut ends = Vec::with_capacity(rows + 1);
                    ends.push(0);
                    Values::String { ends, bytes: Vec::with_capacity(rows * 8) }
                }
            };
            Column { values, missing: Vec::new() }
        });
        Self { stream, columns: columns.collect(), row: 0, row_refused: false, refusals: Vec::new(), dropped: 0 }
    }

    pub(super) fn put_bool(&mut self, field: usize, value: bool) {
        if let Some(Column { values: Values::Bool(values), .. }) = self.columns.get_mut(field) {
            put(values, self.row, value);
        } else {
            self.wrong_type(field);
        }
    }

    /// An integer or a time.
    pub(super) fn put_int(&mut self, field: usize, value: i64) {
        match self.columns.get_mut(field).map(|column| &mut column.values) {
            Some(Values::Int64(values) | Values::Timestamp(values)) => put(values, self.row, value),
            _ => self.wrong_type(field),
        }
    }

    pub(super) fn put_f32(&mut self, field: usize, value: f32) {
        if let Some(Column { values: Values::Float32(values), .. }) = self.columns.get_mut(field) {
            put(values, self.row, value);
        } else {
            self.wrong_type(field);
        }
    }

    pub(super) fn put_f64(&mut self, field: usize, value: f64) {
        if let Some(Column { values: Values::Float64(values), .. }) = self.columns.get_mut(field) {
            put(values, self.row, value);
        } else {
            self.wrong_type(field);
        }
    }

    pub(super) fn put_str(&mut self, field: usize, value: &str) {
        let row = self.row;
        if let Some(Column { values: Values::String { ends, bytes }, .. }) = self.columns.get_mut(field) {
            // A text longer than any column can hold is refused before it comes here: requests are smaller.
            let start = ends.get(row).copied().unwrap_or(0);
            bytes.truncate(usize::try_from(start).unwrap_or(0));
            bytes.extend_from_slice(value.as_bytes());
            ends.truncate(row + 1);
            ends.push(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
        } else {
            self.wrong_type(field);
        }
    }

    pub(super) fn wrong_type(&mut self, field: usize) {
        let name = self.stream.fields.get(field).map(|field| field.name.as_str().into());
        self.refuse(Reason::WrongType, name);
    }

    /// A field that is not declared. `name` is what the producer calls it.
    pub(super) fn undeclared(&mut self, name: impl FnOnce() -> String) {
        match self.stream.undeclared {
            Undeclared::Drop => self.dropped += 1,
            Undeclared::Refuse => {
                let name: String = name().chars().take(64).collect();
                self.refuse(Reason::UndeclaredField, Some(name.into()));
            }
        }
    }

    /// Refuses the row; its first refusal stands.
    pub(super) fn refuse(&mut self, reason: Reason, field: Option<Arc<str>>) {
        if !self.row_refused {
            self.row_refused = true;
            let index = u32::try_from(self.row).unwrap_or(u32::MAX);
            self.refusals.push(Refusal { field, ..Refusal::new(index, reason) });
        }
    }

    pub(super) fn end_row(&mut self) {
        for column in &mut self.columns {
            if column.values.len() <= self.row {
                column.values.push_default();
                column.missing.push(self.row);
            }
        }
        self.row += 1;
        self.row_refused = false;
    }

    pub(super) fn finish(self) -> Result<Decoded, Undecodable> {
        let rows = self.row;
        let columns: Result<Vec<ArrayRef>, _> = self.columns.into_iter().map(|column| finish(column, rows)).collect();
        let columns = RecordBatch::try_new(Arc::clone(&self.stream.schema), columns?)
            .map_err(|_| Undecodable::malformed("the records do not fit the stream's columns"))?;
        let candidate = Candidate::new(Arc::clone(self.stream), columns, self.refusals);
        Ok(Decoded { candidate, dropped: self.dropped })
    }
}

fn finish(column: Column, rows: usize) -> Result<ArrayRef, Undecodable> {
    let nulls = (!column.missing.is_empty()).then(|| {
        let mut valid = vec![true; rows];
        for row in column.missing {
            if let Some(mark) = valid.get_mut(row) {
                *mark = false;
            }
        }
        NullBuffer::from(valid)
    });
    Ok(match column.values {
        Values::Bool(values) => Arc::new(BooleanArray::new(BooleanBuffer::from(values), nulls)),
        Values::Int64(values) => Arc::new(Int64Array::new(values.into(), nulls)),
        Values::Float32(values) => Arc::new(Float32Array::new(values.into(), nulls)),
        Values::Float64(values) => Arc::new(Float64Array::new(values.into(), nulls)),
        Values::Timestamp(values) => Arc::new(TimestampMicrosecondArray::new(values.into(), nulls)),
        Values::String { ends, bytes } => {
            let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
            let texts = StringArray::try_new(offsets, Buffer::from_vec(bytes), nulls);
            Arc::new(texts.map_err(|_| Undecodable::malformed("a text is not UTF-8"))?)
        }
    })
}
