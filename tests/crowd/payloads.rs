//! Records as payloads.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_ipc::writer::StreamWriter;
use bailiwick::ingress::proto::cloudevents::CloudEvent;
use bailiwick::ingress::proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use bailiwick::ingress::proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data};
use bailiwick::ingress::proto::ingest::publish_request::Payload;
use serde_json::{Value, json};

use crate::common::records::cloud_events;

use super::records::{Fault, MORE, Record};

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Rows,
    Arrow,
    JsonText,
    JsonBinary,
    RowsInEvents,
}

pub const KINDS: [Kind; 5] = [Kind::Rows, Kind::Arrow, Kind::JsonText, Kind::JsonBinary, Kind::RowsInEvents];

impl Kind {
    /// Whether it can say a record that is broken by itself.
    pub fn says(self, fault: Fault) -> bool {
        // A column more is one of all records.
        self != Self::Arrow || !matches!(fault, Fault::Malformed | Fault::Undeclared)
    }

    pub fn payload(self, records: &[Record]) -> Payload {
        let events = |event: fn(&Record) -> CloudEvent| cloud_events(records.iter().map(event).collect());
        match self {
            Self::Rows => Payload::Rows(records.iter().flat_map(|record| bytes(1, &row(record))).collect()),
            Self::Arrow => Payload::ArrowIpc(arrow(records, None).into()),
            Self::JsonText => events(|record| CloudEvent { data: Some(Data::TextData(text(record))), ..event() }),
            Self::JsonBinary => {
                events(|record| CloudEvent { data: Some(Data::BinaryData(text(record).into())), ..event() })
            }
            Self::RowsInEvents => events(|record| {
                let kind = CloudEventAttributeValue { attr: Some(Attr::CeString("application/protobuf".to_owned())) };
                CloudEvent {
                    attributes: [("datacontenttype".to_owned(), kind)].into(),
                    data: Some(Data::BinaryData(row(record).into())),
                    ..event()
                }
            }),
        }
    }
}

/// What cannot be read as any records.
pub fn garbage(at: usize) -> Payload {
    match at % 3 {
        0 => Payload::ArrowIpc(vec![1, 2, 3].into()),
        1 => Payload::Rows(vec![0x0a, 200, 1, 7].into()),
        _ => Payload::CloudEvents(vec![0x12, 200, 1, 7].into()),
    }
}

/// A request of Arrow with a column that is not declared.
pub fn with_a_column_more(records: &[Record]) -> Payload {
    Payload::ArrowIpc(arrow(records, Some(MORE)).into())
}

/// A record that is longer than a request may be.
pub fn padded(record: &Record, bytes: usize) -> Payload {
    let data = Data::TextData(text(record) + &" ".repeat(bytes));
    cloud_events(vec![CloudEvent { data: Some(data), ..event() }])
}

fn event() -> CloudEvent {
    CloudEvent::default()
}

fn text(record: &Record) -> String {
    let Record { at, who, country, kind, x, amount, fault } = record;
    let mut value =
        json!({ "at": at, "who": who, "country": country, "kind": kind, "x": x, "amount": amount });
    match fault {
        Fault::None => {}
        Fault::Missing => value["amount"] = Value::Null,
        Fault::WrongType => value["amount"] = json!(true),
        Fault::NotFinite => value["amount"] = json!("NaN"),
        Fault::Undeclared => value[MORE] = json!(1),
        Fault::Malformed => return value.to_string() + "}",
    }
    value.to_string()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 127 {
        bytes.push(value as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn double(field: u64, value: f64) -> Vec<u8> {
    [varint(field << 3 | 1), value.to_le_bytes().to_vec()].concat()
}

fn row(record: &Record) -> Vec<u8> {
    let Record { at, who, country, kind, x, amount, fault } = record;
    let amount = match fault {
        Fault::Missing => Vec::new(),
        Fault::WrongType => bytes(6, b"much"),
        Fault::NotFinite => double(6, f64::NAN),
        Fault::Undeclared => [double(6, *amount), double(9, 1.0)].concat(),
        // It ends in the number.
        Fault::Malformed => double(6, *amount)[..4].to_vec(),
        Fault::None => double(6, *amount),
    };
    let at = [varint(1 << 3), varint(at.cast_unsigned())].concat();
    let texts = [bytes(2, who.as_bytes()), bytes(3, country.as_bytes()), bytes(4, kind.as_bytes())].concat();
    [at, texts, double(5, *x), amount].concat()
}

/// In two record batches, where there are enough.
fn arrow(records: &[Record], more: Option<&str>) -> Vec<u8> {
    let has_texts = records.iter().any(|record| record.fault == Fault::WrongType);
    let batch = |records: &[Record]| {
        let texts = |text: fn(&Record) -> &str| -> ArrayRef {
            Arc::new(records.iter().map(|record| Some(text(record))).collect::<StringArray>())
        };
        let amount = |record: &Record| match record.fault {
            Fault::Missing => None,
            Fault::NotFinite => Some(f64::NAN),
            _ => Some(record.amount),
        };
        // The texts of a column are read by the declared type.
        let spelled = |record: &Record| match record.fault {
            Fault::WrongType => Some("much".to_owned()),
            _ => amount(record).map(|amount| amount.to_string()),
        };
        let amounts: ArrayRef = if has_texts {
            Arc::new(records.iter().map(spelled).collect::<StringArray>())
        } else {
            Arc::new(records.iter().map(amount).collect::<Float64Array>())
        };
        let at = records.iter().map(|record| Some(record.at)).collect::<TimestampMicrosecondArray>();
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            ("amount", amounts),
            ("at", Arc::new(at.with_timezone("UTC"))),
            ("country", texts(|record| record.country)),
            ("kind", texts(|record| record.kind)),
            ("who", texts(|record| &record.who)),
            ("x", Arc::new(records.iter().map(|record| Some(record.x)).collect::<Float64Array>())),
        ];
        columns.extend(more.map(|more| (more, texts(|record| record.kind))));
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
    };
    let mut writer = StreamWriter::try_new(Vec::new(), &batch(records).schema()).unwrap();
    let (first, second) = records.split_at(records.len() / 2);
    [first, second].iter().filter(|part| !part.is_empty()).for_each(|part| writer.write(&batch(part)).unwrap());
    writer.into_inner().unwrap()
}
