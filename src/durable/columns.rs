//! Records as one Arrow IPC record-batch message, in the types that a stream's fields and a model's outputs have. Any
//! reader of Arrow reads it; it is written here because Arrow's own writer builds a description of every column anew
//! for every batch, which took as long as half of the scoring.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType};
use arrow_buffer::bit_util::ceil;
use arrow_buffer::{BooleanBuffer, Buffer};
use arrow_ipc::{FieldNode, MessageBuilder, MessageHeader, MetadataVersion, RecordBatchBuilder};
use arrow_schema::{ArrowError, DataType, Schema, TimeUnit};
use flatbuffers::FlatBufferBuilder;

/// Writes messages.
#[derive(Default)]
pub(super) struct Columns {
    head: FlatBufferBuilder<'static>,
    nodes: Vec<FieldNode>,
    buffers: Vec<arrow_ipc::Buffer>,
}

/// The bytes of a buffer.
enum Part<'c> {
    Bytes(&'c [u8]),
    Copied(Buffer),
}

impl Part<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Copied(buffer) => buffer,
        }
    }
}

impl Columns {
    /// Adds the message of columns of a schema, each of so many rows.
    pub(super) fn write(
        &mut self,
        schema: &Schema,
        columns: &[ArrayRef],
        rows: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), ArrowError> {
        self.nodes.clear();
        let mut parts = Vec::with_capacity(3 * columns.len());
        if columns.len() != schema.fields().len() {
            return Err(ArrowError::SchemaError(format!("{} columns, not those declared", columns.len())));
        }
        for (column, field) in columns.iter().zip(schema.fields()) {
            let nulls = column.null_count();
            let is_declared = column.data_type() == field.data_type() && (nulls == 0 || field.is_nullable());
            if !is_declared || column.len() != rows {
                return Err(ArrowError::SchemaError(format!("column `{}` is not as it is declared", field.name())));
            }
            self.nodes.push(FieldNode::new(length(rows), length(nulls)));
            let validity = column.nulls().filter(|_| nulls > 0);
            parts.push(validity.map_or(Part::Bytes(&[]), |validity| bits(validity.inner())));
            values(column, &mut parts)?;
        }
        self.buffers.clear();
        let mut body = 0;
        for part in &parts {
            let bytes = part.bytes().len();
            self.buffers.push(arrow_ipc::Buffer::new(length(body), length(bytes)));
            body += padded(bytes);
        }
        self.message(rows, body, out);
        for part in &parts {
            let bytes = part.bytes();
            out.extend_from_slice(bytes);
            pad(padded(bytes.len()) - bytes.len(), out);
        }
        Ok(())
    }

    /// What stands before the body.
    fn message(&mut self, rows: usize, body: usize, out: &mut Vec<u8>) {
        let head = &mut self.head;
        head.reset();
        let nodes = head.create_vector(&self.nodes);
        let buffers = head.create_vector(&self.buffers);
        let mut batch = RecordBatchBuilder::new(head);
        batch.add_length(length(rows));
        batch.add_nodes(nodes);
        batch.add_buffers(buffers);
        let batch = batch.finish().as_union_value();
        let mut message = MessageBuilder::new(head);
        message.add_version(MetadataVersion::V5);
        message.add_header_type(MessageHeader::RecordBatch);
        message.add_bodyLength(length(body));
        message.add_header(batch);
        let message = message.finish();
        head.finish(message, None);
        let head = head.finished_data();
        out.extend_from_slice(&CONTINUATION);
        out.extend_from_slice(&u32::try_from(padded(head.len())).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(head);
        pad(padded(head.len()) - head.len(), out);
    }
}

fn values<'c>(column: &'c ArrayRef, parts: &mut Vec<Part<'c>>) -> Result<(), ArrowError> {
    match column.data_type() {
        DataType::Float64 => parts.push(numbers::<Float64Type>(column)),
        DataType::Float32 => parts.push(numbers::<Float32Type>(column)),
        DataType::Int64 => parts.push(numbers::<Int64Type>(column)),
        DataType::Timestamp(TimeUnit::Microsecond, None) => parts.push(numbers::<TimestampMicrosecondType>(column)),
        DataType::Boolean => parts.push(bits(column.as_boolean().values())),
        DataType::Utf8 => {
            let column = column.as_string::<i32>();
            let offsets = column.value_offsets();
            let (first, last) = (*offsets.first().unwrap_or(&0), *offsets.last().unwrap_or(&0));
            parts.push(if first == 0 {
                Part::Bytes(column.offsets().inner().inner().as_slice())
            } else {
                Part::Copied(offsets.iter().map(|offset| offset - first).collect())
            });
            let text = usize::try_from(first).ok().zip(usize::try_from(last).ok());
            let text = text.and_then(|(first, last)| column.value_data().get(first..last));
            parts.push(Part::Bytes(text.unwrap_or_default()));
        }
        other => return Err(ArrowError::SchemaError(format!("a column of type {other}"))),
    }
    Ok(())
}

fn numbers<T: ArrowPrimitiveType>(column: &ArrayRef) -> Part<'_> {
    Part::Bytes(column.as_primitive::<T>().values().inner().as_slice())
}

fn bits(bits: &BooleanBuffer) -> Part<'_> {
    match bits.offset() % 8 {
        0 => Part::Bytes(bits.values().get(bits.offset() / 8..ceil(bits.offset() + bits.len(), 8)).unwrap_or_default()),
        _ => Part::Copied(bits.sliced()),
    }
}

fn length(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

const CONTINUATION: [u8; 4] = [0xff; 4];

/// Alignment in the file would be lost behind the entry's head, so the least that Arrow has will do.
const ALIGNMENT: usize = 8;

fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

fn pad(bytes: usize, out: &mut Vec<u8>) {
    out.extend_from_slice([0; ALIGNMENT].get(..bytes).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{
        BooleanArray, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    };
    use arrow_ipc::reader::StreamDecoder;
    use arrow_ipc::writer::StreamWriter;
    use proptest::prelude::*;

    use super::*;

    /// What Arrow's reader reads of a message of these columns.
    fn read_back(batch: &RecordBatch, writer: &mut Columns) -> RecordBatch {
        let schema = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap().get_ref().clone();
        let mut message = Vec::new();
        writer.write(&batch.schema(), batch.columns(), batch.num_rows(), &mut message).unwrap();
        assert_eq!(message.len() % ALIGNMENT, 0);
        let mut decoder = StreamDecoder::new();
        assert!(decoder.decode(&mut Buffer::from(schema)).unwrap().is_none());
        let mut message = Buffer::from(message);
        let read = decoder.decode(&mut message).unwrap().unwrap();
        assert!(message.is_empty());
        read
    }

    fn rows<T: std::fmt::Debug>(values: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<Option<T>>> {
        prop::collection::vec(prop::option::weighted(0.9, values), 40)
    }

    proptest! {
        #[test]
        fn arrow_reads_what_was_written_whole_and_sliced(
            floats in rows(any::<f64>().prop_filter("nan is not equal to itself", |value| !value.is_nan())),
            integers in rows(any::<i64>()),
            texts in rows(".{0,9}"),
            truths in rows(any::<bool>()),
            (from, length) in (0_usize..20, 0_usize..20),
        ) {
            let times: Vec<i64> = (0..).take(40).collect();
            let columns: [(_, ArrayRef); 7] = [
                ("f64", Arc::new(Float64Array::from(floats))),
                ("i64", Arc::new(Int64Array::from(integers))),
                ("text", Arc::new(StringArray::from(texts))),
                ("bool", Arc::new(BooleanArray::from(truths))),
                ("time", Arc::new(TimestampMicrosecondArray::from(times))),
                ("f32", Arc::new(Float32Array::from_iter_values((0_u8..40).map(f32::from)))),
                ("plain", Arc::new(StringArray::from_iter_values((0..40).map(|row| row.to_string())))),
            ];
            let batch = RecordBatch::try_from_iter(columns).unwrap();
            let mut writer = Columns::default();
            for batch in [batch.clone(), batch.slice(from, length), batch.slice(0, 0)] {
                prop_assert_eq!(read_back(&batch, &mut writer), batch);
            }
        }
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let schema = Schema::new(vec![arrow_schema::Field::new("a", DataType::Int64, false)]);
        let wrong: [ArrayRef; 4] = [
            Arc::new(Int64Array::from(vec![Some(1), None])),
            Arc::new(Int64Array::from(vec![1])),
            Arc::new(Float64Array::from(vec![1.0, 2.0])),
            Arc::new(StringArray::from(vec!["1", "2"])),
        ];
        for column in wrong {
            assert!(Columns::default().write(&schema, &[column], 2, &mut Vec::new()).is_err());
        }
        assert!(Columns::default().write(&schema, &[], 2, &mut Vec::new()).is_err());
    }
}
