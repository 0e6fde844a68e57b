//! Columns under construction, filled one value at a time by the row-shaped decoders.
//!
//! A value may be put more than once into a row; the last one holds, as protobuf has it. What a row lacks is null.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};

use crate::domain::batch::Candidate;
use crate::domain::refusal::{Hint, Reason, Refusal};
use crate::domain::stream::{FieldType, Stream, Undeclared};

use super::Undecodable;
use super::spelling::{self, Unspelled};

/// The columns of a stream, row by row.
pub(super) struct Columns<'s> {
    pub(super) stream: &'s Arc<Stream>,
    /// The bits of every value that is no text, column after column. A column begins `stride` cells after
    /// the one before it.
    cells: Vec<u64>,
    stride: usize,
    /// The texts of each field, empty where it holds none.
    texts: Vec<Texts>,
    /// For each field the number of rows up to its newest value.
    seen: Vec<usize>,
    /// For each field the number of rows up to the newest that names it, with a value or null.
    named: Vec<usize>,
    /// For each field the rows without a value, a bit each; empty while there is none.
    missing: Vec<Vec<u64>>,
    rows_max: usize,
    row: usize,
    row_refused: bool,
    refusals: Vec<Refusal>,
    dropped: u32,
}

struct Texts {
    ends: Vec<i32>,
    bytes: Vec<u8>,
}

/// Cells of a cache line.
const LINE: usize = 8;
/// What is reserved for a text before any is there.
const TEXT_BYTES: usize = 8;
/// What a record takes beside its columns: its mark, and its refusal.
pub(super) const ROW_BYTES: usize = 64;

/// A row is written across all columns. An odd number of lines between them keeps the lines of a row from falling into
/// the same few sets of the cache.
fn stride(rows: usize) -> usize {
    (rows.div_ceil(LINE) | 1) * LINE
}

/// The most memory that so many rows out of a payload of so many bytes take in columns.
pub(super) fn bytes(stream: &Stream, rows: usize, payload: usize) -> usize {
    let fields = stream.fields.iter().map(|field| match field.field_type {
        FieldType::String => size_of::<i32>() + TEXT_BYTES,
        FieldType::Float32 => size_of::<f32>(),
        FieldType::Bool | FieldType::Int64 | FieldType::Float64 | FieldType::Timestamp => 0,
    });
    let row = fields.sum::<usize>() + ROW_BYTES;
    let cells = stream.fields.len() * stride(rows);
    // Two bits a cell say what is missing and what is true.
    rows * row + cells * size_of::<u64>() + cells / 4 + payload
}

impl<'s> Columns<'s> {
    /// Columns for at most so many rows.
    pub(super) fn new(stream: &'s Arc<Stream>, rows: usize) -> Self {
        let fields = stream.fields.len();
        let stride = stride(rows);
        let texts = stream.fields.iter().map(|field| {
            if field.field_type != FieldType::String {
                return Texts { ends: Vec::new(), bytes: Vec::new() };
            }
            let mut ends = Vec::with_capacity(rows + 1);
            ends.push(0);
            Texts { ends, bytes: Vec::with_capacity(rows * TEXT_BYTES) }
        });
        Self {
            stream,
            cells: vec![0; fields * stride],
            stride,
            texts: texts.collect(),
            seen: vec![0; fields],
            named: Vec::new(),
            missing: vec![Vec::new(); fields],
            rows_max: rows,
            row: 0,
            row_refused: false,
            refusals: Vec::new(),
            dropped: 0,
        }
    }

    /// Puts a value into a row that has none for this field or those after it. Before anything else is done with the row,
    /// [`Self::put_until`] must say how far it came, or [`Self::end_whole_row`] that it came to the end.
    pub(super) fn put_next(&mut self, field: usize, bits: u64) {
        if let Some(cell) = self.cells.get_mut(field * self.stride + self.row) {
            *cell = bits;
        }
    }

    /// Like [`Self::put_next`], for a field of strings. The text is UTF-8: one that is not would spoil the whole column.
    pub(super) fn put_next_text(&mut self, field: usize, text: &[u8]) {
        if let Some(Texts { ends, bytes }) = self.texts.get_mut(field) {
            bytes.extend_from_slice(text);
            ends.push(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
        }
    }

    /// The row has values for all fields before this one.
    pub(super) fn put_until(&mut self, field: usize) {
        self.seen.iter_mut().take(field).for_each(|seen| *seen = self.row + 1);
    }

    /// The row has a value for every field.
    pub(super) fn end_whole_row(&mut self) {
        self.row += 1;
    }

    /// The bits of a value of the field's own type: a float's, an integer's, 0 or 1.
    pub(super) fn put(&mut self, field: usize, bits: u64) {
        if let (Some(cell), Some(seen)) = (self.cells.get_mut(field * self.stride + self.row), self.seen.get_mut(field))
        {
            *cell = bits;
            *seen = self.row + 1;
        }
    }

    pub(super) fn put_bool(&mut self, field: usize, value: bool) {
        if self.stream.fields.get(field).is_some_and(|field| field.field_type == FieldType::Bool) {
            self.put(field, value.into());
        } else {
            self.wrong_type(field);
        }
    }

    /// A number as it is spelled. A string is not spelled by one.
    pub(super) fn put_number(&mut self, field: usize, spelled: &str) {
        let field_type = self.stream.fields.get(field).map(|field| field.field_type);
        // Numbers are no truth values, only texts are read as such.
        let field_type = field_type.filter(|field_type| *field_type != FieldType::Bool);
        match field_type.map(|field_type| spelling::bits(spelled, field_type)) {
            Some(Ok(bits)) => self.put(field, bits),
            Some(Err(Unspelled(hint))) => self.unspelled(field, hint),
            None => self.wrong_type(field),
        }
    }

    /// A text: the value of a string, and of another type the value that it spells.
    pub(super) fn put_text(&mut self, field: usize, text: &str) {
        match self.stream.fields.get(field).map(|field| field.field_type) {
            Some(FieldType::String) | None => self.put_str(field, text),
            Some(field_type) => match spelling::bits(text, field_type) {
                Ok(bits) => self.put(field, bits),
                Err(Unspelled(hint)) => self.unspelled(field, hint),
            },
        }
    }

    pub(super) fn put_str(&mut self, field: usize, value: &str) {
        let row = self.row;
        let is_text = self.stream.fields.get(field).is_some_and(|field| field.field_type == FieldType::String);
        if let (true, Some(Texts { ends, bytes }), Some(seen)) =
            (is_text, self.texts.get_mut(field), self.seen.get_mut(field))
        {
            // A text longer than any column can hold is refused before it comes here: requests are smaller.
            if *seen > row {
                ends.truncate(row + 1);
                bytes.truncate(ends.last().map_or(0, |&start| usize::try_from(start).unwrap_or(0)));
            }
            bytes.extend_from_slice(value.as_bytes());
            ends.push(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
            *seen = row + 1;
        } else {
            self.wrong_type(field);
        }
    }

    pub(super) fn wrong_type(&mut self, field: usize) {
        self.unspelled(field, None);
    }

    fn unspelled(&mut self, field: usize, hint: Option<Hint>) {
        let field = self.stream.fields.get(field).map(|field| field.name.as_str().into());
        self.refuse_as(Refusal { field, hint, ..Refusal::new(0, Reason::WrongType) });
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

    /// Notes that the row names a field. `false`: it has named it before.
    pub(super) fn name(&mut self, field: usize) -> bool {
        if self.named.is_empty() {
            self.named = vec![0; self.stream.fields.len()];
        }
        let row = self.row + 1;
        self.named.get_mut(field).is_some_and(|named| std::mem::replace(named, row) != row)
    }

    /// Refuses the row; its first refusal stands.
    pub(super) fn refuse(&mut self, reason: Reason, field: Option<Arc<str>>) {
        self.refuse_as(Refusal { field, ..Refusal::new(0, reason) });
    }

    fn refuse_as(&mut self, refusal: Refusal) {
        if !self.row_refused {
            self.row_refused = true;
            let index = u32::try_from(self.row).unwrap_or(u32::MAX);
            self.refusals.push(Refusal { index, ..refusal });
        }
    }

    pub(super) fn end_row(&mut self) {
        let row = self.row;
        self.row += 1;
        self.row_refused = false;
        if self.seen.iter().fold(true, |all, &seen| all & (seen > row)) {
            return;
        }
        for ((seen, missing), texts) in self.seen.iter().zip(&mut self.missing).zip(&mut self.texts) {
            if *seen <= row {
                if missing.is_empty() {
                    *missing = vec![0; self.rows_max.div_ceil(64)];
                }
                mark(missing, row);
                if let Some(&end) = texts.ends.last() {
                    texts.ends.push(end);
                }
            }
        }
    }

    /// Values of undeclared fields that were dropped so far.
    pub(super) fn dropped(&self) -> u32 {
        self.dropped
    }

    pub(super) fn finish(self) -> Result<Candidate, Undecodable> {
        let stream = Arc::clone(self.stream);
        let (columns, refusals, _) = self.into_parts()?;
        Ok(Candidate::new(stream, columns, refusals))
    }

    /// The columns, the refused records and how many values were dropped.
    pub(super) fn into_parts(self) -> Result<(RecordBatch, Vec<Refusal>, u32), Undecodable> {
        let (rows, stride) = (self.row, self.stride);
        let cells = Buffer::from_vec(self.cells);
        let parts = self.stream.fields.iter().zip(self.texts).zip(self.missing).enumerate();
        let columns = parts.map(|(position, ((field, texts), missing))| {
            let cells = ScalarBuffer::new(cells.clone(), position * stride, rows);
            column(field.field_type, cells, texts, &missing)
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let columns = RecordBatch::try_new(Arc::clone(&self.stream.schema), columns)
            .map_err(|_| Undecodable::malformed("the records do not fit the stream's columns"))?;
        Ok((columns, self.refusals, self.dropped))
    }
}

fn mark(bits: &mut [u64], row: usize) {
    if let Some(bits) = bits.get_mut(row / 64) {
        *bits |= 1 << (row % 64);
    }
}

/// A column of values by their bits, as [`Columns::put`] takes them. `None`: strings have none.
pub(super) fn of_bits(field_type: FieldType, cells: Vec<u64>, missing: &[usize]) -> Option<ArrayRef> {
    let rows = cells.len();
    let cells = ScalarBuffer::new(Buffer::from_vec(cells), 0, rows);
    let no_texts = Texts { ends: Vec::new(), bytes: Vec::new() };
    let is_of_bits = field_type != FieldType::String;
    let mut bits = if missing.is_empty() { Vec::new() } else { vec![0; rows.div_ceil(64)] };
    missing.iter().for_each(|&row| mark(&mut bits, row));
    is_of_bits.then(|| column(field_type, cells, no_texts, &bits).ok()).flatten()
}

fn column(
    field_type: FieldType,
    cells: ScalarBuffer<u64>,
    texts: Texts,
    missing: &[u64],
) -> Result<ArrayRef, Undecodable> {
    let rows = cells.len();
    let nulls = (!missing.is_empty()).then(|| {
        let is_missing = |row: usize| missing.get(row / 64).is_some_and(|bits| bits >> (row % 64) & 1 != 0);
        NullBuffer::new(BooleanBuffer::collect_bool(rows, |row| !is_missing(row)))
    });
    Ok(match field_type {
        // The bits are the values.
        FieldType::Float64 => Arc::new(Float64Array::new(cells.into_inner().into(), nulls)),
        FieldType::Int64 => Arc::new(Int64Array::new(cells.into_inner().into(), nulls)),
        FieldType::Timestamp => Arc::new(TimestampMicrosecondArray::new(cells.into_inner().into(), nulls)),
        FieldType::Float32 => {
            let values: Vec<f32> = cells.iter().map(|&bits| f32::from_bits(bits as u32)).collect();
            Arc::new(Float32Array::new(values.into(), nulls))
        }
        FieldType::Bool => {
            let values = BooleanBuffer::collect_bool(rows, |row| cells.get(row).is_some_and(|&bits| bits != 0));
            Arc::new(BooleanArray::new(values, nulls))
        }
        FieldType::String => {
            let offsets = OffsetBuffer::new(ScalarBuffer::from(texts.ends));
            let texts = StringArray::try_new(offsets, Buffer::from_vec(texts.bytes), nulls);
            Arc::new(texts.map_err(|_| Undecodable::malformed("a text is not UTF-8"))?)
        }
    })
}
