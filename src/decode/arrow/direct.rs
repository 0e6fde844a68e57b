//! The request that producers send again and again, read without Arrow's reader: the schema message of the
//! request before, whose columns are the stream's fields, and one record batch. The values of many such requests are copied
//! from their payloads straight into columns that they share.
//!
//! Whatever is not just that is left to Arrow's reader, which decides what is wrong with it.

use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow_buffer::bit_util::get_bit;
use arrow_buffer::{ArrowNativeType, BooleanBufferBuilder, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::{Endianness, FieldNode};
use arrow_schema::ArrowError;
use bytes::Bytes;
use foldhash::quality::RandomState;

use crate::domain::stream::{Field, FieldType, Stream};

use super::super::columns;
use super::convert::is_own;
use super::reader::message as message_of;

/// A batch whose buffers were found and checked.
pub(crate) struct Direct {
    payload: Bytes,
    /// In the order of the fields.
    parts: Vec<Part>,
    rows: usize,
    bytes: usize,
}

/// Where the values of a column lie in the payload.
struct Part {
    field: usize,
    /// A bit for each value that there is. `None`: all are there.
    validity: Option<Range<usize>>,
    /// The values; of a column of strings the offsets of its texts.
    values: Range<usize>,
    texts: Range<usize>,
}

/// What the schema message of the last request was, and what it says. Kept from one request of a call to the
/// next.
#[derive(Default)]
pub struct Layout {
    known: Option<Known>,
    hasher: RandomState,
}

struct Known {
    stream: Arc<Stream>,
    /// The hash of the message, and its length. The message itself would take memory that no budget counts; who makes
    /// another one with the same hash spoils only what he sends himself.
    message: (u64, usize),
    columns: Vec<Column>,
}

/// A column of a batch.
#[derive(Clone, Copy)]
struct Column {
    field: usize,
    field_type: FieldType,
    nullable: bool,
}

/// The longest schema message that is read here.
const SCHEMA_BYTES_MAX: usize = 64 * 1024;
const CONTINUATION: [u8; 4] = [0xff; 4];
const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// Finds the buffers of a batch. `None`: Arrow's reader has to look at the payload.
pub(super) fn read(layout: &mut Layout, stream: &Arc<Stream>, payload: &Bytes, rows_max: usize) -> Option<Direct> {
    let (schema, rest) = metadata(payload)?;
    let columns = layout.columns(stream, schema)?;
    let (message, rest) = metadata(rest)?;
    let message = message_of(message).ok()?;
    let (body, rest) = rest.split_at_checked(usize::try_from(message.bodyLength()).ok()?)?;
    let batch = message.header_as_record_batch()?;
    let rows = usize::try_from(batch.length()).ok()?;
    let (nodes, buffers) = (batch.nodes()?, batch.buffers()?);
    let is_plain = batch.compression().is_none() && batch.variadicBufferCounts().is_none_or(|counts| counts.is_empty());
    let is_last = rest.is_empty() || rest == END;
    // A value takes a bit at least.
    let is_possible = rows <= rows_max && rows / 8 <= payload.len();
    if !is_plain || !is_last || !is_possible || nodes.len() != columns.len() {
        return None;
    }
    let start = payload.len() - rest.len() - body.len();
    let mut reader = Reader { payload, start, length: body.len(), left: body.len(), buffers: buffers.iter(), rows };
    let parts = columns.iter().zip(nodes).map(|(column, node)| reader.column(*column, node));
    let mut parts = parts.collect::<Option<Vec<Part>>>()?;
    parts.sort_unstable_by_key(|part| part.field);
    if reader.buffers.next().is_some() {
        return None;
    }
    let bytes = columns::bytes(stream, rows, payload.len());
    Some(Direct { payload: payload.clone(), parts, rows, bytes })
}

impl Direct {
    /// How many records there are.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The most memory that the records take in columns.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The columns of the records of some requests of the same stream.
    ///
    /// # Errors
    /// When the texts of a column are longer together than one column may be.
    pub(crate) fn columns(stream: &Stream, requests: &[&Self]) -> Result<RecordBatch, ArrowError> {
        let rows = requests.iter().map(|request| request.rows).sum();
        let parts =
            |position: usize| requests.iter().filter_map(move |request| Some((*request, request.parts.get(position)?)));
        // The values of 64 bits are one block, column after column.
        let is_wide = |field: &&Field| is_wide(field.field_type);
        let mut cells = Vec::with_capacity(rows * stream.fields.iter().filter(is_wide).count());
        for (position, _) in stream.fields.iter().enumerate().filter(|(_, field)| is_wide(field)) {
            for (request, part) in parts(position) {
                cells.extend(
                    request.bytes_at(&part.values).as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)),
                );
            }
        }
        let (cells, mut next) = (Buffer::from_vec(cells), 0);
        let columns = stream.fields.iter().enumerate().map(|(position, field)| {
            let first = next;
            next += if is_wide(&field) { rows } else { 0 };
            column(field.field_type, parts(position), &cells, first, rows)
        });
        RecordBatch::try_new(Arc::clone(&stream.schema), columns.collect::<Result<_, _>>()?)
    }

    fn bytes_at(&self, range: &Range<usize>) -> &[u8] {
        self.payload.get(range.clone()).unwrap_or_default()
    }
}

/// Whether the values of a type take 64 bits.
fn is_wide(field_type: FieldType) -> bool {
    matches!(field_type, FieldType::Float64 | FieldType::Int64 | FieldType::Timestamp)
}

/// A column of these parts. `cells`: values of 64 bits, and where those of the column begin.
fn column<'p>(
    field_type: FieldType,
    parts: impl Iterator<Item = (&'p Direct, &'p Part)> + Clone,
    cells: &Buffer,
    first: usize,
    rows: usize,
) -> Result<ArrayRef, ArrowError> {
    let nulls = nulls(parts.clone(), rows);
    Ok(match field_type {
        FieldType::Float64 => Arc::new(Float64Array::new(ScalarBuffer::new(cells.clone(), first, rows), nulls)),
        FieldType::Int64 => Arc::new(Int64Array::new(ScalarBuffer::new(cells.clone(), first, rows), nulls)),
        FieldType::Timestamp => {
            Arc::new(TimestampMicrosecondArray::new(ScalarBuffer::new(cells.clone(), first, rows), nulls))
        }
        FieldType::Float32 => {
            let mut numbers = Vec::with_capacity(rows);
            for (request, part) in parts {
                let values = request.bytes_at(&part.values).as_chunks().0;
                numbers.extend(values.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            }
            Arc::new(Float32Array::new(numbers.into(), nulls))
        }
        FieldType::Bool => {
            let mut bits = BooleanBufferBuilder::new(rows);
            for (request, part) in parts {
                bits.append_packed_range(0..request.rows, request.bytes_at(&part.values));
            }
            Arc::new(BooleanArray::new(bits.finish(), nulls))
        }
        FieldType::String => {
            let (mut ends, mut texts) = (Vec::with_capacity(rows + 1), Vec::new());
            ends.push(0);
            for (request, part) in parts {
                let mut offsets = offsets(request.bytes_at(&part.values));
                let (before, first) = (texts.len(), offsets.next().unwrap_or(0).as_usize());
                let mut last = first;
                ends.extend(offsets.map(|offset| {
                    last = offset.as_usize();
                    // No column is that long: checked below.
                    i32::try_from(before + (last - first)).unwrap_or(i32::MAX)
                }));
                texts.extend_from_slice(request.bytes_at(&part.texts).get(first..last).unwrap_or_default());
            }
            if i32::try_from(texts.len()).is_err() {
                return Err(ArrowError::OffsetOverflowError(texts.len()));
            }
            let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
            Arc::new(StringArray::try_new(offsets, Buffer::from_vec(texts), nulls)?)
        }
    })
}

/// What says which values there are; `None` if all are.
fn nulls<'p>(parts: impl Iterator<Item = (&'p Direct, &'p Part)> + Clone, rows: usize) -> Option<NullBuffer> {
    if parts.clone().all(|(_, part)| part.validity.is_none()) {
        return None;
    }
    let mut bits = BooleanBufferBuilder::new(rows);
    for (request, part) in parts {
        match &part.validity {
            Some(validity) => bits.append_packed_range(0..request.rows, request.bytes_at(validity)),
            None => bits.append_n(request.rows, true),
        }
    }
    Some(NullBuffer::new(bits.finish()))
}

/// The offsets of the texts of a column.
fn offsets(values: &[u8]) -> impl DoubleEndedIterator<Item = i32> {
    values.as_chunks().0.iter().map(|offset| i32::from_le_bytes(*offset))
}

/// Takes the metadata of the next message of a stream off its bytes. The inner `None`: the stream is at its end.
pub(super) fn next_metadata(rest: &mut Buffer) -> Option<Option<Buffer>> {
    if rest.is_empty() {
        return Some(None);
    }
    // Before version 0.15 there was no mark before the length.
    let prefix = if rest.starts_with(&CONTINUATION) { CONTINUATION.len() } else { 0 };
    let length: [u8; 4] = rest.get(prefix..prefix + 4)?.try_into().ok()?;
    let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
    rest.advance(prefix + 4);
    if length == 0 {
        return rest.is_empty().then_some(None);
    }
    take(rest, length).map(Some)
}

/// Takes so many bytes off others.
pub(super) fn take(rest: &mut Buffer, length: usize) -> Option<Buffer> {
    if length > rest.len() {
        return None;
    }
    let taken = rest.slice_with_length(0, length);
    rest.advance(length);
    Some(taken)
}

/// The metadata of a message, and what comes after it.
fn metadata(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.strip_prefix(&CONTINUATION)?.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

impl Layout {
    fn columns(&mut self, stream: &Arc<Stream>, message: &[u8]) -> Option<&[Column]> {
        if message.len() > SCHEMA_BYTES_MAX {
            return None;
        }
        let hashed = (self.hasher.hash_one(message), message.len());
        let is_same = |known: &Known| Arc::ptr_eq(&known.stream, stream) && known.message == hashed;
        if !self.known.as_ref().is_some_and(is_same) {
            let columns = learn(stream, message)?;
            self.known = Some(Known { stream: Arc::clone(stream), message: hashed, columns });
        }
        self.known.as_ref().map(|known| known.columns.as_slice())
    }
}

/// The columns of a schema that has the stream's fields, all of them, of their types, in any order.
fn learn(stream: &Stream, message: &[u8]) -> Option<Vec<Column>> {
    let message = message_of(message).ok()?;
    let schema = message.header_as_schema()?;
    if message.bodyLength() != 0 || schema.endianness() != Endianness::Little {
        return None;
    }
    let schema = try_fb_to_schema(schema).ok()?;
    let mut columns: Vec<Column> = Vec::with_capacity(stream.fields.len());
    for column in schema.fields() {
        let field = stream.position(column.name())?;
        let field_type = stream.fields.get(field)?.field_type;
        if !is_own(column.data_type(), field_type) || columns.iter().any(|other| other.field == field) {
            return None;
        }
        columns.push(Column { field, field_type, nullable: column.is_nullable() });
    }
    (columns.len() == stream.fields.len()).then_some(columns)
}

/// Finds the buffers of a batch, column after column.
struct Reader<'p, I> {
    payload: &'p [u8],
    /// Where the body lies in the payload.
    start: usize,
    length: usize,
    /// How many bytes of it have not been taken: no two buffers are the same bytes.
    left: usize,
    buffers: I,
    rows: usize,
}

impl<'b, I: Iterator<Item = &'b arrow_ipc::Buffer>> Reader<'_, I> {
    fn column(&mut self, column: Column, node: &FieldNode) -> Option<Part> {
        if usize::try_from(node.length()).ok()? != self.rows {
            return None;
        }
        let Column { field, field_type, nullable } = column;
        let validity = self.validity(node, nullable)?;
        let rows = self.rows;
        let (values, texts) = match field_type {
            FieldType::Float64 | FieldType::Int64 | FieldType::Timestamp => (self.values(rows * 8, 8)?, 0..0),
            FieldType::Float32 => (self.values(rows * 4, 4)?, 0..0),
            FieldType::Bool => (self.values(rows.div_ceil(8), 1)?, 0..0),
            FieldType::String => {
                let values = self.values((rows + 1) * 4, 4)?;
                let texts = self.range()?;
                self.are_texts(&values, &texts).then_some((values, texts))?
            }
        };
        Some(Part { field, validity, values, texts })
    }

    /// The column's validity. The outer `None`: it is not as its node says.
    fn validity(&mut self, node: &FieldNode, nullable: bool) -> Option<Option<Range<usize>>> {
        if node.null_count() == 0 {
            self.range()?;
            return Some(None);
        }
        let validity = self.values(self.rows.div_ceil(8), 1)?;
        let bits = self.payload.get(validity.clone())?;
        let nulls = (0..self.rows).filter(|row| !get_bit(bits, *row)).count();
        (nullable && i64::try_from(nulls).ok()? == node.null_count()).then_some(Some(validity))
    }

    /// Whether the offsets rise, and cut the texts between their characters.
    fn are_texts(&self, values: &Range<usize>, texts: &Range<usize>) -> bool {
        let (Some(values), Some(texts)) = (self.payload.get(values.clone()), self.payload.get(texts.clone())) else {
            return false;
        };
        let ends = || offsets(values).map(|offset| usize::try_from(offset).ok());
        let (Some(Some(first)), Some(Some(last))) = (ends().next(), ends().next_back()) else { return false };
        let Some(Ok(used)) = texts.get(first..last).map(str::from_utf8) else { return false };
        let is_cut_well = |end: usize| end.checked_sub(first).is_some_and(|end| used.is_char_boundary(end));
        offsets(values).is_sorted() && (used.is_ascii() || ends().flatten().all(is_cut_well))
    }

    /// The next buffer, of which so many bytes are used. It must lie in the body as Arrow aligns it, and hold whole values.
    fn values(&mut self, used: usize, alignment: usize) -> Option<Range<usize>> {
        let Range { start, end } = self.range()?;
        let is_aligned = [start - self.start, end - start].iter().all(|bytes| bytes.is_multiple_of(alignment));
        (is_aligned && end - start >= used).then(|| start..start + used)
    }

    /// Where the next buffer lies in the payload.
    fn range(&mut self) -> Option<Range<usize>> {
        let buffer = self.buffers.next()?;
        let (offset, length) = (usize::try_from(buffer.offset()).ok()?, usize::try_from(buffer.length()).ok()?);
        self.left = self.left.checked_sub(length)?;
        let end = offset.checked_add(length).filter(|end| *end <= self.length)?;
        Some(self.start + offset..self.start + end)
    }
}
