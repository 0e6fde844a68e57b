//! What is sent: good records, and small messages that stand for much.

use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, DictionaryArray, Float64Array, Int32Array, RecordBatch, StringArray, StringViewArray,
    TimestampMicrosecondArray,
};
use arrow_buffer::Buffer;
use arrow_ipc::writer::StreamWriter;
use bailiwick::clock::Clock;
use bailiwick::ingress::proto::ingest::PublishRequest;
use bailiwick::ingress::proto::ingest::publish_request::Payload;
use prost::Message;
use serde_json::{Value, json};

use crate::common::records;
pub(super) use crate::common::records::json_events;

/// The most records of a request, by default.
pub(super) const ROWS_MAX: usize = 65_536;

pub(super) fn now() -> i64 {
    Clock::start().wall()
}

/// A good record.
pub(super) fn record(person: &str) -> Value {
    record_at(person, now())
}

/// A good record of an event time.
pub(super) fn record_at(person: &str, at: i64) -> Value {
    let at = jiff::Timestamp::from_microsecond(at).unwrap().to_string();
    json!({ "at": at, "person": person, "country": "DE", "amount": 1.5, "number": 7 })
}

pub(super) fn request(producer: &str, payload: Payload) -> PublishRequest {
    records::request("visits", producer, payload)
}

/// A request without records.
pub(super) fn empty_request(producer: &str) -> PublishRequest {
    records::introduction("visits", producer)
}

/// An encoded request with so many events without anything in them: two bytes each. A client that has them as messages
/// needs gigabytes itself.
pub(super) fn empty_events(events: usize) -> Vec<u8> {
    let mut message = empty_request("attacker").encode_to_vec();
    prost::encoding::encode_key(6, prost::encoding::WireType::LengthDelimited, &mut message);
    prost::encoding::encode_varint(2 * events as u64, &mut message);
    message.extend([0x0a, 0x00].repeat(events));
    message
}

/// So many protobuf rows without anything in them: two bytes each.
pub(super) fn empty_rows(rows: usize) -> Payload {
    Payload::Rows([0x0a, 0x00].repeat(rows).into())
}

fn ipc(columns: Vec<(&str, ArrayRef)>) -> Payload {
    Payload::ArrowIpc(batch_bytes(&batch(columns)).into())
}

fn batch_bytes(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

/// Columns of many records whose texts are given.
fn columns(rows: usize, person: ArrayRef, note: ArrayRef) -> Vec<(&'static str, ArrayRef)> {
    vec![
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![now(); rows]).with_timezone("UTC"))),
        ("person", person),
        ("country", Arc::new(dictionary(rows, "DE"))),
        ("amount", Arc::new(Float64Array::from(vec![1.0; rows]))),
        ("note", note),
    ]
}

/// One word, and as many references to it as there are records.
fn dictionary(rows: usize, word: &str) -> DictionaryArray<Int32Type> {
    DictionaryArray::new(Int32Array::from(vec![0; rows]), Arc::new(StringArray::from(vec![word])))
}

/// One long word of a dictionary in every record of two columns: gigabytes, when it is written out.
pub(super) fn dictionary_of_one_long_word() -> RecordBatch {
    let word = "x".repeat(32_760);
    batch(columns(ROWS_MAX, Arc::new(dictionary(ROWS_MAX, &word)), Arc::new(dictionary(ROWS_MAX, &word))))
}

/// The same as string views into one buffer.
pub(super) fn views_of_one_long_word() -> RecordBatch {
    let word = "x".repeat(32_760);
    let mut view = [0_u8; 16];
    view[..4].copy_from_slice(&32_760_u32.to_le_bytes());
    view[4..8].copy_from_slice(&word.as_bytes()[..4]);
    let views = vec![u128::from_le_bytes(view); ROWS_MAX];
    let column = StringViewArray::try_new(views.into(), vec![Buffer::from(word.as_bytes())], None).unwrap();
    batch(columns(ROWS_MAX, Arc::new(column.clone()), Arc::new(column)))
}

pub(super) fn arrow(batch: &RecordBatch) -> Payload {
    Payload::ArrowIpc(batch_bytes(batch).into())
}

/// Columns of no value at all: a record costs nothing to send.
pub(super) fn columns_of_nulls(columns: usize) -> Payload {
    let null: ArrayRef = Arc::new(arrow_array::NullArray::new(ROWS_MAX));
    let names: Vec<String> = (0..columns).map(|column| format!("c{column}")).collect();
    ipc(names.iter().map(|name| (name.as_str(), Arc::clone(&null))).collect())
}
