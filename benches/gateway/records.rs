//! The example's records that the EU gateway keeps, as one batch of each payload kind.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_ipc::writer::StreamWriter;
use bailiwick::ingress::proto::cloudevents::cloud_event::Data;
use bailiwick::ingress::proto::cloudevents::{CloudEvent, CloudEventBatch};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use prost::Message;

/// 2013-09-02T17:00:00Z: all records lie in one window, so that any number of requests can be sent.
const WINDOW: i64 = 1_378_141_200_000_000;

/// The payloads of many requests.
pub(super) struct Prepared {
    pub(super) arrow: Vec<Bytes>,
    pub(super) rows: Vec<Bytes>,
    pub(super) events: Vec<Bytes>,
}

pub(super) fn example() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/card-fraud")
}

impl Prepared {
    /// Payloads of so many records each.
    pub(super) fn load(records: usize) -> Self {
        let mut csv = csv::Reader::from_reader(MultiGzDecoder::new(File::open(example().join("data.csv.gz")).unwrap()));
        let header: Vec<String> = csv.headers().unwrap().iter().map(str::to_owned).collect();
        let kept: Vec<csv::StringRecord> = csv
            .records()
            .map(Result::unwrap)
            .filter(|record| ["DE", "FR", "NL", "ES", "IE"].contains(&&record[2]))
            .collect();
        let batches: Vec<&[csv::StringRecord]> = kept.chunks_exact(records).collect();
        Self {
            arrow: batches.iter().map(|batch| arrow(&header, batch)).collect(),
            rows: batches.iter().map(|batch| rows(batch)).collect(),
            events: batches.iter().map(|batch| events(&header, batch)).collect(),
        }
    }
}

fn arrow(header: &[String], batch: &[csv::StringRecord]) -> Bytes {
    let columns = header.iter().enumerate().map(|(position, name)| {
        let cells = batch.iter().map(|record| &record[position]);
        let column: ArrayRef = match position {
            0 => {
                let times = (0..).map(|row| WINDOW + row).take(batch.len());
                Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
            }
            1..=3 => Arc::new(StringArray::from_iter_values(cells)),
            _ => Arc::new(Float64Array::from_iter_values(cells.map(|cell| cell.parse::<f64>().unwrap()))),
        };
        (name, column)
    });
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap().into()
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn rows(batch: &[csv::StringRecord]) -> Bytes {
    let mut payload = Vec::new();
    for (record, row) in batch.iter().zip(0..) {
        let mut message = Vec::new();
        for (position, cell) in record.iter().enumerate() {
            let number = position as u64 + 1;
            match position {
                0 => {
                    varint(number << 3, &mut message);
                    varint((WINDOW + row).cast_unsigned(), &mut message);
                }
                1..=3 => {
                    varint(number << 3 | 2, &mut message);
                    varint(cell.len() as u64, &mut message);
                    message.extend_from_slice(cell.as_bytes());
                }
                _ => {
                    varint(number << 3 | 1, &mut message);
                    message.extend_from_slice(&cell.parse::<f64>().unwrap().to_le_bytes());
                }
            }
        }
        varint(1 << 3 | 2, &mut payload);
        varint(message.len() as u64, &mut payload);
        payload.extend(message);
    }
    payload.into()
}

fn events(header: &[String], batch: &[csv::StringRecord]) -> Bytes {
    let events = batch.iter().zip(0..).map(|(record, row)| {
        let members = header.iter().zip(record).enumerate().map(|(position, (name, cell))| match position {
            0 => format!("\"{name}\":{}", WINDOW + row),
            1..=3 => format!("\"{name}\":\"{cell}\""),
            _ => format!("\"{name}\":{cell}"),
        });
        let text = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
        CloudEvent { data: Some(Data::TextData(text)), ..CloudEvent::default() }
    });
    CloudEventBatch { events: events.collect() }.encode_to_vec().into()
}
