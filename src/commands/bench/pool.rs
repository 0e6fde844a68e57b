//! Messages that are encoded before the clock starts. Only their event times are missing: they are those of sending.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow_ipc::writer::StreamWriter;
use bytes::{BufMut, Bytes};
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::commands::records;
use crate::commands::send::{Input, Records};
use crate::domain::stream::{Field, FieldType, Stream};
use crate::files;

use super::Payload;

/// Messages that are sent over and over.
pub struct Pool {
    payload: Payload,
    messages: Vec<Message>,
    records_per_message: usize,
}

/// A payload without its event times.
pub(super) struct Message {
    bytes: Bytes,
    /// Where an event time belongs, in ascending order. Each takes [`TIME_BYTES`].
    times: Vec<usize>,
}

/// What an event time takes: as a varint too, from 1987 to 4253.
const TIME_BYTES: usize = 8;
/// The most records that are kept of the files: encoded, tens of megabytes.
const RECORDS_MAX: usize = 1 << 17;
/// Records that are read at a time.
const READ: usize = 4_096;

/// The records of files as the stream's columns; and how many were left out, because they cannot be read as such. Files
/// are read until there are enough: some 130,000 records.
///
/// # Errors
/// When a file cannot be read, or holds nothing that the stream takes.
pub fn read(stream: &Arc<Stream>, files: &[PathBuf]) -> anyhow::Result<(RecordBatch, usize)> {
    let (mut kept, mut count, mut skipped) = (Vec::new(), 0, 0);
    for file in files {
        files::regular(file)?;
        let input = Input::new(file.clone(), None);
        let mut batches = input.batches(READ)?;
        while let Some(batch) = batches.next()?.filter(|_| count < RECORDS_MAX) {
            let columns = encodable(stream, &batch.records).with_context(|| input.name())?;
            skipped += batch.malformed.len() + batch.records.len() - columns.num_rows();
            count += columns.num_rows();
            kept.push(columns);
        }
    }
    if count == 0 {
        bail!("the files hold no record that stream `{}` could take", stream.name);
    }
    Ok((arrow_select::concat::concat_batches(&stream.schema, &kept)?, skipped))
}

/// Records as the stream's columns, without those that cannot be read.
///
/// # Errors
/// When none of them can be.
fn encodable(stream: &Arc<Stream>, read: &Records) -> anyhow::Result<RecordBatch> {
    let decoded = records::decode(stream, read)?;
    let (columns, refused) = decoded.map_err(|undecodable| anyhow!(undecodable.message))?.into_columns();
    let is_kept: BooleanArray = refused.iter().map(|refused| Some(!refused)).collect();
    Ok(arrow_select::filter::filter_record_batch(&columns, &is_kept)?)
}

impl Pool {
    /// Encodes messages of so many records each: as many as it takes to hold every record once. The last one goes on
    /// with the first records.
    ///
    /// # Errors
    /// When there is no record, or Arrow cannot write them.
    pub fn new(
        stream: &Stream,
        columns: &RecordBatch,
        records_per_message: usize,
        payload: Payload,
    ) -> anyhow::Result<Self> {
        let all = u32::try_from(columns.num_rows())?;
        if all == 0 {
            bail!("there is no record to send");
        }
        let mut rows = (0..all).cycle();
        let messages = (0..columns.num_rows().div_ceil(records_per_message)).map(|_| {
            let rows: UInt32Array = rows.by_ref().take(records_per_message).collect();
            let records = arrow_select::take::take_record_batch(columns, &rows)?;
            match payload {
                Payload::Rows => Message::rows(stream, &records),
                Payload::Arrow => Message::arrow(stream, &records),
            }
        });
        Ok(Self { payload, messages: messages.collect::<anyhow::Result<_>>()?, records_per_message })
    }

    /// How many records a message has.
    #[must_use]
    pub fn records_per_message(&self) -> usize {
        self.records_per_message
    }

    /// How the messages hold their records.
    pub(super) fn payload(&self) -> Payload {
        self.payload
    }

    /// The mean length of a payload, in bytes.
    pub(super) fn mean_bytes(&self) -> usize {
        let bytes: usize = self.messages.iter().map(Message::len).sum();
        bytes / self.messages.len().max(1)
    }

    /// The message with this number, counted from the first that is sent.
    pub(super) fn message(&self, number: u64) -> Option<&Message> {
        self.messages.get((number % self.messages.len().max(1) as u64) as usize)
    }

    /// An event time as the payloads hold it, in microseconds since the Unix epoch.
    pub(super) fn time(&self, micros: i64) -> [u8; TIME_BYTES] {
        match self.payload {
            Payload::Rows => long_varint(micros),
            Payload::Arrow => micros.to_le_bytes(),
        }
    }
}

impl Message {
    fn rows(stream: &Stream, records: &RecordBatch) -> anyhow::Result<Self> {
        let (mut bytes, mut times) = (Vec::new(), Vec::new());
        for row in 0..records.num_rows() {
            let mut encoded = Vec::new();
            let mut time = None;
            for (position, (field, column)) in stream.fields.iter().zip(records.columns()).enumerate() {
                if position == stream.event_time {
                    encode_key(field.number, WireType::Varint, &mut encoded);
                    time = Some(encoded.len());
                    encoded.put_bytes(0, TIME_BYTES);
                } else if column.is_valid(row) {
                    encode_value(field, column, row, &mut encoded);
                }
            }
            encode_key(1, WireType::LengthDelimited, &mut bytes);
            encode_varint(encoded.len() as u64, &mut bytes);
            times.extend(time.map(|time| bytes.len() + time));
            bytes.extend(encoded);
        }
        Ok(Self { bytes: bytes.into(), times })
    }

    fn arrow(stream: &Stream, records: &RecordBatch) -> anyhow::Result<Self> {
        // Times that stand nowhere else, and are found in what Arrow wrote.
        let marks: Vec<i64> = (0..records.num_rows() as i64).map(|row| MARK + row).collect();
        let pattern: Vec<u8> = marks.iter().flat_map(|mark| mark.to_le_bytes()).collect();
        let mut columns = records.columns().to_vec();
        let times = columns.get_mut(stream.event_time).context("a stream has event times")?;
        *times = Arc::new(TimestampMicrosecondArray::from(marks));
        let records = with_zones(stream, columns)?;
        let mut writer = StreamWriter::try_new(Vec::new(), &records.schema())?;
        writer.write(&records)?;
        let bytes = writer.into_inner()?;
        // Buffers are aligned to what they hold.
        let place = bytes.chunks_exact(TIME_BYTES).position(|chunk| pattern.starts_with(chunk));
        let place = place.context("Arrow wrote the event times elsewhere")? * TIME_BYTES;
        if !bytes.get(place..).unwrap_or_default().starts_with(&pattern) {
            bail!("Arrow wrote the event times elsewhere");
        }
        let times = (place..place + pattern.len()).step_by(TIME_BYTES).collect();
        Ok(Self { bytes: bytes.into(), times })
    }

    /// The bytes of the payload.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Writes the payload, with one event time for all of its records.
    pub(super) fn write(&self, time: [u8; TIME_BYTES], out: &mut impl BufMut) {
        let part = |range: Range<usize>| self.bytes.get(range).unwrap_or_default();
        let mut from = 0;
        for &place in &self.times {
            out.put_slice(part(from..place));
            out.put_slice(&time);
            from = place + TIME_BYTES;
        }
        out.put_slice(part(from..self.bytes.len()));
    }
}

/// The stream's columns as they are sent: times name their zone.
fn with_zones(stream: &Stream, columns: Vec<ArrayRef>) -> anyhow::Result<RecordBatch> {
    let columns = columns.into_iter().map(|column| match column.as_primitive_opt::<TimestampMicrosecondType>() {
        Some(times) => Arc::new(times.clone().with_timezone("UTC")) as ArrayRef,
        None => column,
    });
    let named = stream.fields.iter().map(|field| &field.name).zip(columns);
    Ok(RecordBatch::try_from_iter_with_nullable(named.map(|(name, column)| (name, column, true)))?)
}

/// An event time that no clock shows: in the year 210000.
const MARK: i64 = 0x5bd1_e995_7a3c_0000;

/// A number as a varint of eight bytes, which it has from 2^49 on.
fn long_varint(number: i64) -> [u8; TIME_BYTES] {
    let mut bytes = [0; TIME_BYTES];
    let mut rest = number.cast_unsigned();
    for byte in &mut bytes {
        *byte = (rest & 0x7f) as u8 | 0x80;
        rest >>= 7;
    }
    let [.., last] = &mut bytes;
    *last &= 0x7f;
    bytes
}

/// Encodes a value, which must not be null.
fn encode_value(field: &Field, column: &ArrayRef, row: usize, out: &mut Vec<u8>) {
    let mut key = |wire| encode_key(field.number, wire, out);
    match field.field_type {
        FieldType::Bool => {
            key(WireType::Varint);
            encode_varint(u64::from(column.as_boolean().value(row)), out);
        }
        FieldType::Int64 => {
            key(WireType::Varint);
            encode_varint(column.as_primitive::<Int64Type>().value(row).cast_unsigned(), out);
        }
        FieldType::Timestamp => {
            key(WireType::Varint);
            encode_varint(column.as_primitive::<TimestampMicrosecondType>().value(row).cast_unsigned(), out);
        }
        FieldType::Float32 => {
            key(WireType::ThirtyTwoBit);
            out.put_f32_le(column.as_primitive::<Float32Type>().value(row));
        }
        FieldType::Float64 => {
            key(WireType::SixtyFourBit);
            out.put_f64_le(column.as_primitive::<Float64Type>().value(row));
        }
        FieldType::String => {
            let text = column.as_string::<i32>().value(row);
            key(WireType::LengthDelimited);
            encode_varint(text.len() as u64, out);
            out.put_slice(text.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arrow_array::{Float32Array, Float64Array, Int64Array, StringArray};

    use super::*;
    use crate::decode::{self, Opened};
    use crate::domain::stream::Undeclared;
    use crate::ingress::proto::ingest::publish_request;

    const NOW: i64 = 1_764_000_000_000_000;

    fn stream() -> Arc<Stream> {
        let types = FieldType::NAMES.iter().map(|(_, field_type)| *field_type);
        let fields: Vec<Field> = (1..)
            .zip(types)
            .map(|(number, field_type)| Field {
                name: format!("f{number}"),
                field_type,
                number: number * 7,
                class: "c".into(),
                required: field_type == FieldType::Timestamp,
                allow_non_finite: true,
                bytes_max: 64,
                range: None,
            })
            .collect();
        Arc::new(Stream {
            name: "s".parse().unwrap(),
            event_time: 5,
            contributor: 4,
            undeclared: Undeclared::Refuse,
            model: None,
            future_max: Duration::ZERO,
            late_max: Duration::ZERO,
            history_from: None,
            idle_after: Duration::ZERO,
            schema: Stream::schema_of(&fields),
            fields,
        })
    }

    fn columns(stream: &Stream, times: [i64; 3]) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
            Arc::new(Int64Array::from(vec![Some(-1), None, Some(i64::MAX)])),
            Arc::new(Float32Array::from(vec![Some(1.5), None, Some(f32::NAN)])),
            Arc::new(Float64Array::from(vec![Some(-2.5), Some(0.0), None])),
            Arc::new(StringArray::from(vec![Some(""), Some("é"), None])),
            Arc::new(TimestampMicrosecondArray::from(times.to_vec())),
        ];
        RecordBatch::try_new(Arc::clone(&stream.schema), columns).unwrap()
    }

    fn decoded(stream: &Arc<Stream>, pool: &Pool, number: u64) -> RecordBatch {
        let message = pool.message(number).unwrap();
        let mut bytes = Vec::new();
        message.write(pool.time(NOW), &mut bytes);
        assert_eq!(bytes.len(), message.len());
        let payload = match pool.payload {
            Payload::Rows => publish_request::Payload::Rows(bytes.into()),
            Payload::Arrow => publish_request::Payload::ArrowIpc(bytes.into()),
        };
        let opened = Opened::new(&mut decode::arrow::Layout::default(), stream, payload.into(), decode::Limits::NONE);
        let (columns, refused) = opened.ok().unwrap().decode().ok().unwrap().candidate.into_columns();
        assert!(refused.iter().all(|refused| !refused));
        columns
    }

    #[test]
    fn the_gateway_reads_what_was_encoded_at_the_time_of_sending() {
        let stream = stream();
        let (sent, expected) = (columns(&stream, [1, 2, 3]), columns(&stream, [NOW; 3]));
        for payload in [Payload::Rows, Payload::Arrow] {
            let pool = Pool::new(&stream, &sent, 2, payload).unwrap();
            assert_eq!(pool.messages.len(), 2);
            // NaN is not itself, so texts are compared.
            let shown = |records: &RecordBatch| format!("{records:?}");
            assert_eq!(shown(&decoded(&stream, &pool, 0)), shown(&expected.slice(0, 2)), "{payload:?}");
            let around = arrow_select::take::take_record_batch(&expected, &UInt32Array::from(vec![2, 0])).unwrap();
            assert_eq!(shown(&decoded(&stream, &pool, 3)), shown(&around), "{payload:?}");
        }
    }

    #[test]
    fn a_message_may_be_longer_than_the_files() {
        let stream = stream();
        let pool = Pool::new(&stream, &columns(&stream, [1, 2, 3]), 7, Payload::Rows).unwrap();
        assert_eq!((pool.messages.len(), decoded(&stream, &pool, 0).num_rows()), (1, 7));
    }

    #[test]
    fn records_that_cannot_be_read_are_left_out() {
        let stream = stream();
        let lines = vec!["{\"f6\": 1, \"f2\": 7}".to_owned(), "nonsense".to_owned()];
        let columns = encodable(&stream, &Records::Lines(lines)).unwrap();
        assert_eq!(columns.num_rows(), 1);
        let none = Pool::new(&stream, &columns.slice(0, 0), 1, Payload::Rows).err().unwrap();
        assert_eq!(none.to_string(), "there is no record to send");
    }
}
