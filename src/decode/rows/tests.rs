//! The decoder against a slow, obvious reading of the same bytes with prost's primitives.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef};
use proptest::prelude::*;
use prost::encoding::{decode_varint, encode_varint};

use crate::domain::refusal::Reason;
use crate::domain::stream::{FieldType, Undeclared};

use super::super::test_stream;
use super::{Arc, BYTES, Columns, Counted, FIXED32, FIXED64, Plan, VARINT, fill, open, timestamp, wire_of};
use crate::decode::Limits;

/// Numbers whose tags have one, two and three bytes; the order of declaration is not the order of numbers.
const FIELDS: [(u32, FieldType); 10] = [
    (1, FieldType::Timestamp),
    (2, FieldType::String),
    (3, FieldType::Float64),
    (4, FieldType::Float64),
    (15, FieldType::Bool),
    (16, FieldType::Int64),
    (2_046, FieldType::Float64),
    (2_047, FieldType::Float64),
    (2_048, FieldType::Float32),
    (7, FieldType::String),
];

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Bits(u64),
    Text(String),
}

/// What should become of one record.
#[derive(Debug, Default)]
struct Expected {
    values: [Option<Value>; FIELDS.len()],
    refusal: Option<(Reason, Option<String>)>,
    dropped: u32,
}

impl Expected {
    fn of(record: &[u8], undeclared: Undeclared) -> Self {
        let mut expected = Self::default();
        if expected.read(record, undeclared).is_none() {
            expected.refuse(Reason::MalformedRecord, None);
        }
        expected
    }

    fn refuse(&mut self, reason: Reason, field: Option<String>) {
        self.refusal.get_or_insert((reason, field));
    }

    fn read(&mut self, mut rest: &[u8], undeclared: Undeclared) -> Option<()> {
        while !rest.is_empty() {
            let key = decode_varint(&mut rest).ok()?;
            let number = u32::try_from(key >> 3).ok().filter(|number| *number > 0)?;
            let wire = (key & 7) as u8;
            let known = FIELDS.iter().position(|(known, _)| *known == number);
            // What is wrong with the field comes before what is wrong with its value.
            match known.map(|position| FIELDS[position].1) {
                None if undeclared == Undeclared::Drop => self.dropped += 1,
                None => self.refuse(Reason::UndeclaredField, Some(number.to_string())),
                Some(FieldType::Timestamp) if wire == BYTES => {}
                Some(field_type) if wire == wire_of(field_type) => {}
                Some(_) => self.refuse(Reason::WrongType, Some(format!("f{number}"))),
            }
            let length = match wire {
                VARINT => 0,
                FIXED64 => 8,
                FIXED32 => 4,
                BYTES => usize::try_from(decode_varint(&mut rest).ok()?).ok()?,
                _ => return None,
            };
            let varint = if wire == VARINT { decode_varint(&mut rest).ok()? } else { 0 };
            let payload = rest.get(..length)?;
            rest = &rest[length..];
            let value = match known.map(|position| FIELDS[position].1) {
                Some(FieldType::Float64) if wire == FIXED64 => {
                    Value::Bits(u64::from_le_bytes(payload.try_into().ok()?))
                }
                Some(FieldType::Float32) if wire == FIXED32 => {
                    Value::Bits(u32::from_le_bytes(payload.try_into().ok()?).into())
                }
                Some(FieldType::Bool) if wire == VARINT => Value::Bits((varint != 0).into()),
                Some(FieldType::Int64 | FieldType::Timestamp) if wire == VARINT => Value::Bits(varint),
                Some(FieldType::Timestamp) if wire == BYTES => Value::Bits(timestamp(payload)?.cast_unsigned()),
                Some(FieldType::String) if wire == BYTES => match String::from_utf8(payload.to_vec()) {
                    Ok(text) => Value::Text(text),
                    Err(_) => {
                        self.refuse(Reason::WrongType, Some(format!("f{number}")));
                        continue;
                    }
                },
                _ => continue,
            };
            self.values[known?] = Some(value);
        }
        Some(())
    }
}

fn found(column: &ArrayRef, field_type: FieldType, row: usize) -> Option<Value> {
    column.is_valid(row).then(|| match field_type {
        FieldType::Float64 => Value::Bits(column.as_primitive::<Float64Type>().value(row).to_bits()),
        FieldType::Float32 => Value::Bits(column.as_primitive::<Float32Type>().value(row).to_bits().into()),
        FieldType::Int64 => Value::Bits(column.as_primitive::<Int64Type>().value(row).cast_unsigned()),
        FieldType::Timestamp => {
            Value::Bits(column.as_primitive::<TimestampMicrosecondType>().value(row).cast_unsigned())
        }
        FieldType::Bool => Value::Bits(column.as_boolean().value(row).into()),
        FieldType::String => Value::Text(column.as_string::<i32>().value(row).to_owned()),
    })
}

fn encode(number: u32, wire: u8, value: u64, text: &[u8], out: &mut Vec<u8>) {
    encode_varint(u64::from(number << 3 | u32::from(wire)), out);
    match wire {
        FIXED64 => out.extend(value.to_le_bytes()),
        FIXED32 => out.extend((value as u32).to_le_bytes()),
        BYTES => {
            encode_varint(text.len() as u64, out);
            out.extend(text);
        }
        // A group's tag has no value.
        3.. => {}
        _ => encode_varint(value, out),
    }
}

/// What is done to a record that was in order.
#[derive(Debug, Clone)]
enum Spoiling {
    Drop(prop::sample::Index),
    Repeat(prop::sample::Index, u64, Vec<u8>),
    Swap(prop::sample::Index, prop::sample::Index),
    Rewire(prop::sample::Index, u8),
    Renumber(prop::sample::Index, u32),
}

fn spoiling() -> impl Strategy<Value = Spoiling> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        at().prop_map(Spoiling::Drop),
        (at(), any::<u64>(), text()).prop_map(|(at, value, text)| Spoiling::Repeat(at, value, text)),
        (at(), at()).prop_map(|(one, other)| Spoiling::Swap(one, other)),
        (at(), 0..7_u8).prop_map(|(at, wire)| Spoiling::Rewire(at, wire)),
        (at(), 1..3_000_u32).prop_map(|(at, number)| Spoiling::Renumber(at, number)),
    ]
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        5 => "[a-zäß€]{0,9}".prop_map(String::into_bytes),
        // Also a google.protobuf.Timestamp.
        1 => (0..4_000_000_000_u64, 0..1_000_000_000_u64).prop_map(|(seconds, nanos)| {
            let mut message = Vec::new();
            encode(1, VARINT, seconds, &[], &mut message);
            encode(2, VARINT, nanos, &[], &mut message);
            message
        }),
        1 => prop::collection::vec(any::<u8>(), 0..9),
        // Longer than what is looked at in one step, and spoiled where that ends.
        1 => ("[a-z]{0,40}", any::<u8>()).prop_map(|(text, last)| [text.as_bytes(), &[last]].concat()),
    ]
}

fn record() -> impl Strategy<Value = Vec<u8>> {
    let values = prop::collection::vec((any::<u64>(), text()), FIELDS.len());
    let spoilings = prop::collection::vec(spoiling(), 0..4);
    (values, spoilings, prop::option::weighted(0.1, any::<prop::sample::Index>())).prop_map(
        |(values, spoilings, cut)| {
            let mut fields: Vec<(u32, u8, u64, Vec<u8>)> = FIELDS
                .iter()
                .zip(values)
                .map(|(&(number, field_type), (value, text))| (number, wire_of(field_type), value, text))
                .collect();
            for spoiling in spoilings {
                let length = fields.len().max(1);
                match spoiling {
                    Spoiling::Drop(at) => drop(fields.drain(at.index(length)..).next()),
                    Spoiling::Repeat(at, value, text) => {
                        let (number, wire, ..) =
                            fields.get(at.index(length)).cloned().unwrap_or((3, FIXED64, 0, Vec::new()));
                        fields.push((number, wire, value, text));
                    }
                    Spoiling::Swap(one, other) if !fields.is_empty() => {
                        fields.swap(one.index(length), other.index(length))
                    }
                    Spoiling::Rewire(at, wire) if !fields.is_empty() => fields[at.index(length)].1 = wire,
                    Spoiling::Renumber(at, number) if !fields.is_empty() => fields[at.index(length)].0 = number,
                    _ => {}
                }
            }
            let mut record = Vec::new();
            for (number, wire, value, text) in fields {
                encode(number, wire, value, &text, &mut record);
            }
            record.truncate(cut.map_or(record.len(), |cut| cut.index(record.len() + 1)));
            record
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    #[test]
    fn rows_are_what_the_reference_says(records in prop::collection::vec(record(), 0..20), drops in any::<bool>()) {
        let undeclared = if drops { Undeclared::Drop } else { Undeclared::Refuse };
        let stream = test_stream(&FIELDS, undeclared);
        let mut payload = Vec::new();
        for record in &records {
            encode(1, BYTES, 0, record, &mut payload);
        }
        let counted = Counted { stream: Arc::clone(&stream), payload: payload.into(), rows: records.len() };
        let mut columns = Columns::new(&stream, records.len());
        fill(&counted, &mut columns, &Plan::new(&stream));
        let (batch, refusals, dropped) = columns.into_parts().unwrap();
        prop_assert_eq!(batch.num_rows(), records.len());
        let expected: Vec<Expected> = records.iter().map(|record| Expected::of(record, undeclared)).collect();
        prop_assert_eq!(dropped, expected.iter().map(|expected| expected.dropped).sum::<u32>());
        let mut refusals = refusals.into_iter();
        for (row, expected) in expected.into_iter().enumerate() {
            if let Some((reason, field)) = expected.refusal {
                let refusal = refusals.next().unwrap();
                prop_assert_eq!(refusal.index as usize, row);
                prop_assert_eq!((refusal.reason, refusal.field.as_deref()), (reason, field.as_deref()));
                continue;
            }
            for (position, (column, value)) in batch.columns().iter().zip(expected.values).enumerate() {
                prop_assert_eq!(found(column, FIELDS[position].1, row), value, "row {} field {}", row, position);
            }
        }
        prop_assert!(refusals.next().is_none());
    }

    #[test]
    fn a_payload_that_is_cut_anywhere_is_refused_or_shorter(
        records in prop::collection::vec(record(), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let stream = test_stream(&FIELDS, Undeclared::Drop);
        let mut payload = Vec::new();
        let mut ends = vec![0];
        for record in &records {
            encode(1, BYTES, 0, record, &mut payload);
            ends.push(payload.len());
        }
        payload.truncate(cut.index(payload.len()));
        let rows = ends.iter().position(|end| *end == payload.len());
        let limits = Limits { rows_max: records.len(), bytes_max: usize::MAX };
        let opened = open(&stream, payload.into(), limits).ok().map(crate::decode::Opened::Rows);
        let found = opened.map(|opened| opened.decode().unwrap().candidate.rows());
        prop_assert_eq!(found, rows);
    }
}
