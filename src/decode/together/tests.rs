//! Whatever requests are decoded together, each is as if it had been decoded alone.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_ipc::writer::StreamWriter;
use arrow_select::concat::concat_batches;
use bytes::Bytes;
use proptest::prelude::*;

use super::{Share, Together};
use crate::decode::{Limits, Opened, Payload, Undecodable, arrow, test_stream};
use crate::domain::batch::Candidate;
use crate::domain::stream::{FieldType, Stream, Undeclared};

fn stream() -> Arc<Stream> {
    test_stream(&[(1, FieldType::Int64), (2, FieldType::String), (3, FieldType::Float64)], Undeclared::Drop)
}

/// One record: what its fields hold, whether it has an undeclared field, whether it is malformed.
type Record = (Option<i64>, Option<String>, Option<f64>, bool, bool);

fn record() -> impl Strategy<Value = Record> {
    let text = prop::option::of("[a-z]{0,5}");
    let number = prop::option::of((-100..100_i16).prop_map(f64::from));
    (prop::option::of(0..i64::MAX), text, number, any::<bool>(), prop::bool::weighted(0.1))
}

fn varint(mut value: u64, to: &mut Vec<u8>) {
    while value > 0x7f {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn row((integer, text, number, is_more, is_malformed): &Record) -> Vec<u8> {
    let mut row = Vec::new();
    if let Some(integer) = integer {
        row.push(1 << 3);
        varint(integer.cast_unsigned(), &mut row);
    }
    if let Some(text) = text {
        row.extend([2 << 3 | 2, text.len() as u8]);
        row.extend(text.as_bytes());
    }
    if let Some(number) = number {
        row.push(3 << 3 | 1);
        row.extend(number.to_le_bytes());
    }
    if *is_more {
        row.extend([9 << 3, 1]);
    }
    if *is_malformed {
        // A group that does not end.
        row.push(3 << 3 | 3);
    }
    row
}

fn rows(records: &[Record]) -> Payload {
    let mut payload = Vec::new();
    for record in records {
        let row = row(record);
        payload.push(0x0a);
        varint(row.len() as u64, &mut payload);
        payload.extend(row);
    }
    Payload::Rows(payload.into())
}

fn events(records: &[Record]) -> Payload {
    let mut payload = Vec::new();
    for (integer, text, number, ..) in records {
        let record = serde_json::json!({ "f1": integer, "f2": text, "f3": number }).to_string();
        let mut event = vec![7 << 3 | 2];
        varint(record.len() as u64, &mut event);
        event.extend(record.as_bytes());
        payload.push(0x0a);
        varint(event.len() as u64, &mut payload);
        payload.extend(event);
    }
    Payload::CloudEvents(payload.into())
}

fn arrow_stream(records: &[Record]) -> Payload {
    let columns: [(_, ArrayRef); 3] = [
        ("f3", Arc::new(records.iter().map(|(_, _, number, ..)| *number).collect::<Float64Array>())),
        ("f1", Arc::new(records.iter().map(|(integer, ..)| *integer).collect::<Int64Array>())),
        ("f2", Arc::new(records.iter().map(|(_, text, ..)| text.as_deref()).collect::<StringArray>())),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    Payload::ArrowIpc(writer.into_inner().unwrap().into())
}

fn open(payload: Payload) -> Result<Opened, Undecodable> {
    Opened::new(&mut arrow::Layout::default(), &stream(), payload, Limits::NONE)
}

/// The columns, and who is refused for what.
fn told(candidate: Candidate) -> (RecordBatch, Vec<(u32, String)>) {
    let (columns, mut refusals) = candidate.into_parts();
    refusals.sort_by_key(|refusal| refusal.index);
    let refusals = refusals.iter().map(|refusal| (refusal.index, format!("{:?} {:?}", refusal.reason, refusal.field)));
    (columns, refusals.collect())
}

proptest! {
    #[test]
    fn each_is_as_if_it_were_alone(
        requests in prop::collection::vec((0..3_u8, prop::collection::vec(record(), 0..5)), 0..8),
    ) {
        let payloads = requests.iter().map(|(kind, records)| match kind {
            0 => rows(records),
            1 => events(records),
            _ => arrow_stream(records),
        });
        let opened: Vec<Opened> = payloads.map(|payload| open(payload).unwrap()).collect();
        let Together { candidate, shares } = Together::decode(&stream(), &opened);
        let (columns, refusals) = told(candidate);
        let (mut parts, mut expected, mut before) = (Vec::new(), Vec::new(), 0);
        for (opened, share) in opened.iter().zip(&shares) {
            let alone = opened.decode().unwrap();
            let rows = alone.candidate.rows();
            prop_assert_eq!(share, &Ok(Share { rows, dropped: alone.dropped }));
            let (columns, refusals) = told(alone.candidate);
            parts.push(columns);
            expected.extend(refusals.into_iter().map(|(index, why)| (index + before, why)));
            before += rows as u32;
        }
        prop_assert_eq!(shares.len(), requests.len());
        prop_assert_eq!(refusals, expected);
        prop_assert_eq!(columns, concat_batches(&stream().schema, &parts).unwrap());
    }
}

#[test]
fn an_arrow_request_that_has_to_be_cast_is_not_copied_alone() {
    let numbers: ArrayRef = Arc::new((0..100).map(Some).collect::<Int64Array>());
    let batch = RecordBatch::try_from_iter([("f1", Arc::clone(&numbers)), ("undeclared", numbers)]).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    let opened = open(Payload::ArrowIpc(writer.into_inner().unwrap().into())).unwrap();
    let address = |candidate: Candidate| candidate.into_parts().0.column(0).to_data().buffers()[0].as_ptr();
    let alone = opened.decode().unwrap().candidate;
    assert_eq!(address(alone), address(Together::decode(&stream(), [&opened]).candidate));
}

#[test]
fn what_cannot_be_decoded_brings_nothing_and_leaves_the_others_alone() {
    let good = || open(rows(&[(Some(1), None, None, false, false)])).unwrap();
    let columns: [(_, ArrayRef); 1] = [("f1", Arc::new(StringArray::from(vec!["x"])))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    let bytes: Bytes = writer.into_inner().unwrap().into();
    let Ok(bad) = open(Payload::ArrowIpc(bytes)) else { return };
    let together = Together::decode(&stream(), [&good(), &bad, &good()]);
    let rows: Vec<usize> = together.shares.iter().map(|share| share.as_ref().map_or(0, |share| share.rows)).collect();
    assert_eq!(together.candidate.rows(), rows.iter().sum::<usize>());
    assert_eq!((rows[0], rows[2]), (1, 1));
}
