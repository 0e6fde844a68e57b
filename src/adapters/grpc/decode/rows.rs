//! Protobuf rows: the bytes are walked straight into columns, without a message struct in between.
//!
//! The payload is a message whose field 1 is repeated, one embedded message a record. In a record the
//! field numbers are the declared fields'; on the wire a bool or an int64 is a varint, a float32 is 4
//! bytes, a float64 8 bytes, a string length-delimited, and a timestamp either an int64 of microseconds or
//! a `google.protobuf.Timestamp`.

use std::sync::Arc;

use crate::domain::refusal::Reason;
use crate::domain::stream::{FieldType, Stream};

use super::columns::Columns;
use super::{Decoded, Undecodable};

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

/// Decodes a payload.
///
/// # Errors
/// When the outer message is malformed or holds too many records. A malformed record is refused alone.
pub fn decode(stream: &Arc<Stream>, payload: &[u8], rows_max: usize) -> Result<Decoded, Undecodable> {
    let malformed = || Undecodable::malformed("the payload is not a protobuf message of rows");
    let mut rows = 0;
    let mut reader = Reader { rest: payload };
    while !reader.rest.is_empty() {
        let (number, wire) = reader.tag().ok_or_else(malformed)?;
        if (number, wire) == (1, BYTES) {
            reader.bytes().ok_or_else(malformed)?;
            rows += 1;
        } else {
            return Err(malformed());
        }
    }
    if rows > rows_max {
        return Err(Undecodable::too_many_rows(rows_max));
    }
    let mut columns = Columns::new(stream, rows);
    let mut reader = Reader { rest: payload };
    while !reader.rest.is_empty() {
        reader.tag();
        let record = reader.bytes().ok_or_else(malformed)?;
        row(&mut columns, record);
    }
    columns.finish()
}

/// Walks one record. An error refuses it and leaves the others alone.
pub(super) fn row(columns: &mut Columns<'_>, record: &[u8]) {
    if walk(columns, record).is_none() {
        columns.refuse(Reason::MalformedRecord, None);
    }
    columns.end_row();
}

fn walk(columns: &mut Columns<'_>, record: &[u8]) -> Option<()> {
    let stream = Arc::clone(columns.stream);
    let mut reader = Reader { rest: record };
    // Encoders write fields in ascending order: the next field is most often the one declared next.
    let mut next = 0;
    while !reader.rest.is_empty() {
        let (number, wire) = reader.tag()?;
        let position = if stream.fields.get(next).is_some_and(|field| field.number == number) {
            next
        } else if let Some(position) = stream.fields.iter().position(|field| field.number == number) {
            position
        } else {
            columns.undeclared(|| number.to_string());
            reader.skip(wire)?;
            continue;
        };
        next = position + 1;
        let field_type = stream.fields.get(position)?.field_type;
        match (field_type, wire) {
            (FieldType::Float64, FIXED64) => columns.put_f64(position, f64::from_le_bytes(reader.array()?)),
            (FieldType::Float32, FIXED32) => columns.put_f32(position, f32::from_le_bytes(reader.array()?)),
            (FieldType::Int64 | FieldType::Timestamp, VARINT) => {
                columns.put_int(position, reader.varint()?.cast_signed());
            }
            (FieldType::Bool, VARINT) => {
                let value = reader.varint()? != 0;
                columns.put_bool(position, value);
            }
            (FieldType::String, BYTES) => match std::str::from_utf8(reader.bytes()?) {
                Ok(text) => columns.put_str(position, text),
                Err(_) => columns.wrong_type(position),
            },
            (FieldType::Timestamp, BYTES) => {
                let micros = timestamp(reader.bytes()?)?;
                columns.put_int(position, micros);
            }
            _ => {
                columns.wrong_type(position);
                reader.skip(wire)?;
            }
        }
    }
    Some(())
}

/// A `google.protobuf.Timestamp` in microseconds.
fn timestamp(message: &[u8]) -> Option<i64> {
    let (mut seconds, mut nanos) = (0_i64, 0_i64);
    let mut reader = Reader { rest: message };
    while !reader.rest.is_empty() {
        match reader.tag()? {
            (1, VARINT) => seconds = reader.varint()?.cast_signed(),
            (2, VARINT) => nanos = reader.varint()?.cast_signed(),
            (_, wire) => reader.skip(wire)?,
        }
    }
    seconds.checked_mul(1_000_000)?.checked_add(nanos / 1_000)
}

struct Reader<'r> {
    rest: &'r [u8],
}

impl<'r> Reader<'r> {
    fn tag(&mut self) -> Option<(u32, u8)> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0)?;
        Some((number, (tag & 7) as u8))
    }

    fn varint(&mut self) -> Option<u64> {
        if let [first, rest @ ..] = self.rest
            && *first < 0x80
        {
            self.rest = rest;
            return Some(u64::from(*first));
        }
        let mut value = 0;
        for (index, &byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.rest = self.rest.get(index + 1..)?;
                // The tenth byte holds one bit.
                return (index < 9 || byte < 2).then_some(value);
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<&'r [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*bytes)
    }

    fn skip(&mut self, wire: u8) -> Option<()> {
        match wire {
            VARINT => self.varint().map(|_| ()),
            FIXED64 => self.array::<8>().map(|_| ()),
            BYTES => self.bytes().map(|_| ()),
            FIXED32 => self.array::<4>().map(|_| ()),
            // Groups are not part of proto3.
            _ => None,
        }
    }
}
