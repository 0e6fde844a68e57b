//! The request that producers send again and again, read without Arrow's reader: the schema message of the
//! request before, whose columns are the stream's fields, and one record batch.
//!
//! Whatever is not just that is left to Arrow's reader, which decides what is wrong with it.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::{Endianness, FieldNode};

use crate::domain::stream::{FieldType, Stream};

use super::convert::is_own;
use super::reader::message as message_of;

/// What the schema message of the last request was, and what it says. Kept from one request of a call to the
/// next.
#[derive(Default)]
pub struct Layout(Option<Known>);

struct Known {
    stream: Arc<Stream>,
    message: Vec<u8>,
    /// `None` if batches of this schema are not read here.
    columns: Option<Vec<Column>>,
}

/// A column of a batch.
#[derive(Clone, Copy)]
struct Column {
    field: usize,
    field_type: FieldType,
    nullable: bool,
}

/// The longest schema message that is kept for a call.
const SCHEMA_BYTES_MAX: usize = 64 * 1024;
const CONTINUATION: [u8; 4] = [0xff; 4];
const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// The columns in the order of the stream's fields. `None`: Arrow's reader has to look at it.
pub(super) fn read(layout: &mut Layout, stream: &Arc<Stream>, payload: &[u8], rows_max: usize) -> Option<RecordBatch> {
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
    if !is_plain || !is_last || rows > rows_max || nodes.len() != columns.len() {
        return None;
    }
    // The bytes of a request are not aligned: one copy of them all is.
    let body = Buffer::from_slice_ref(body);
    let mut reader = Reader { left: body.len(), body, buffers: buffers.iter(), rows };
    let mut by_field: Vec<Option<ArrayRef>> = vec![None; columns.len()];
    for (column, node) in columns.iter().zip(nodes) {
        *by_field.get_mut(column.field)? = Some(reader.column(*column, node)?);
    }
    if reader.buffers.next().is_some() {
        return None;
    }
    RecordBatch::try_new(Arc::clone(&stream.schema), by_field.into_iter().collect::<Option<_>>()?).ok()
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
        let is_same = |known: &Known| Arc::ptr_eq(&known.stream, stream) && known.message == message;
        if !self.0.as_ref().is_some_and(is_same) {
            let columns = learn(stream, message);
            self.0 = Some(Known { stream: Arc::clone(stream), message: message.to_vec(), columns });
        }
        self.0.as_ref()?.columns.as_deref()
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

/// Takes the buffers of a batch, column after column.
struct Reader<I> {
    body: Buffer,
    /// How many bytes of it have not been taken: no two buffers are the same bytes.
    left: usize,
    buffers: I,
    rows: usize,
}

impl<'b, I: Iterator<Item = &'b arrow_ipc::Buffer>> Reader<I> {
    fn column(&mut self, column: Column, node: &FieldNode) -> Option<ArrayRef> {
        if usize::try_from(node.length()).ok()? != self.rows {
            return None;
        }
        let nulls = self.nulls(node, column.nullable)?;
        Some(match column.field_type {
            FieldType::Float64 => Arc::new(Float64Array::new(self.values(self.rows)?, nulls)),
            FieldType::Float32 => Arc::new(Float32Array::new(self.values(self.rows)?, nulls)),
            FieldType::Int64 => Arc::new(Int64Array::new(self.values(self.rows)?, nulls)),
            FieldType::Timestamp => Arc::new(TimestampMicrosecondArray::new(self.values(self.rows)?, nulls)),
            FieldType::Bool => Arc::new(BooleanArray::new(self.bits()?, nulls)),
            FieldType::String => {
                let offsets: ScalarBuffer<i32> = self.values(self.rows + 1)?;
                if offsets.first().is_none_or(|first| *first < 0) || !offsets.is_sorted() {
                    return None;
                }
                let bytes = self.buffer()?;
                Arc::new(StringArray::try_new(OffsetBuffer::new(offsets), bytes, nulls).ok()?)
            }
        })
    }

    /// The column's validity. The outer `None`: it is not as its node says.
    fn nulls(&mut self, node: &FieldNode, nullable: bool) -> Option<Option<NullBuffer>> {
        if node.null_count() == 0 {
            self.range()?;
            return Some(None);
        }
        let nulls = NullBuffer::new(self.bits()?);
        (nullable && i64::try_from(nulls.null_count()).ok()? == node.null_count()).then_some(Some(nulls))
    }

    fn bits(&mut self) -> Option<BooleanBuffer> {
        let bits = self.buffer()?;
        (bits.len() >= self.rows.div_ceil(8)).then(|| BooleanBuffer::new(bits, 0, self.rows))
    }

    fn values<T: ArrowNativeType>(&mut self, length: usize) -> Option<ScalarBuffer<T>> {
        let values = self.buffer()?;
        let is_aligned = values.as_ptr().align_offset(align_of::<T>()) == 0;
        let is_whole = values.len() % size_of::<T>() == 0 && values.len() / size_of::<T>() >= length;
        (is_aligned && is_whole).then(|| ScalarBuffer::new(values, 0, length))
    }

    fn buffer(&mut self) -> Option<Buffer> {
        let (offset, length) = self.range()?;
        Some(self.body.slice_with_length(offset, length))
    }

    /// Where the next buffer lies in the body.
    fn range(&mut self) -> Option<(usize, usize)> {
        let buffer = self.buffers.next()?;
        let (offset, length) = (usize::try_from(buffer.offset()).ok()?, usize::try_from(buffer.length()).ok()?);
        self.left = self.left.checked_sub(length)?;
        (offset.checked_add(length)? <= self.body.len()).then_some((offset, length))
    }
}
