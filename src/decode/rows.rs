//! Protobuf rows: the bytes are walked straight into columns, without a message struct in between.
//!
//! The payload is a message whose field 1 is repeated, one embedded message a record. In a record the
//! field numbers are the declared fields'; on the wire a bool or an int64 is a varint, a float32 is 4
//! bytes, a float64 8 bytes, a string length-delimited, and a timestamp either an int64 of microseconds or
//! a `google.protobuf.Timestamp`.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::refusal::Reason;
use crate::domain::stream::{FieldType, Stream};
use crate::domain::time;

use super::columns::Columns;
use super::counted::Counted;
use super::wire::{BYTES, FIXED32, FIXED64, VARINT, array, bytes, skip, tag, varint};
use super::{Limits, Undecodable};

/// Counts the records of a payload.
///
/// # Errors
/// When the outer message is malformed or holds too many records.
pub fn open(stream: &Arc<Stream>, payload: Bytes, limits: Limits) -> Result<Counted, Undecodable> {
    Counted::new(stream, payload, limits, "the payload is not a protobuf message of rows", |rest| {
        record(rest).map(|(record, after)| (Some(record), after))
    })
}

/// Adds the records to columns. A malformed one is refused alone.
pub(super) fn fill(counted: &Counted, columns: &mut Columns<'_>, plan: &Plan) {
    let mut rest = counted.payload.as_ref();
    while let Some((record, after)) = record(rest) {
        row(columns, plan, record);
        rest = after;
    }
}

/// What is to be expected where in a record.
pub(super) struct Plan {
    fields: Vec<Expected>,
}

/// A declared field, and the tag that it most often has on the wire.
struct Expected {
    number: u32,
    field_type: FieldType,
    /// The first two bytes of the tag, little endian; what is not of the tag is masked out.
    tag: u16,
    mask: u16,
    tag_bytes: usize,
    /// How many fields from this one on are doubles whose tags take as many bytes.
    doubles: usize,
}

impl Plan {
    pub(super) fn new(stream: &Stream) -> Self {
        let fields = stream.fields.iter().map(|field| {
            let (number, field_type) = (field.number, field.field_type);
            let tag = number << 3 | u32::from(wire_of(field_type));
            // A tag of more than two bytes, of numbers above 2,047, is read the general way: none matches.
            let (tag, mask, tag_bytes) = match tag {
                0..0x80 => (tag as u16, 0xff, 1),
                0x80..0x4000 => ((tag & 0x7f | 0x80 | tag >> 7 << 8) as u16, 0xffff, 2),
                _ => (1, 0, 0),
            };
            Expected { number, field_type, tag, mask, tag_bytes, doubles: 0 }
        });
        let mut fields: Vec<Expected> = fields.collect();
        let (mut doubles, mut tag_bytes) = (0, 0);
        for field in fields.iter_mut().rev() {
            doubles = match field.field_type {
                FieldType::Float64 if field.tag_bytes == tag_bytes => doubles + 1,
                FieldType::Float64 => 1,
                _ => 0,
            };
            tag_bytes = field.tag_bytes;
            field.doubles = doubles;
        }
        Self { fields }
    }
}

/// How values of a type are most often written.
fn wire_of(field_type: FieldType) -> u8 {
    match field_type {
        FieldType::Float64 => FIXED64,
        FieldType::Float32 => FIXED32,
        FieldType::Bool | FieldType::Int64 | FieldType::Timestamp => VARINT,
        FieldType::String => BYTES,
    }
}

/// Walks one record. An error refuses it and leaves the others alone.
pub(super) fn row(columns: &mut Columns<'_>, plan: &Plan, record: &[u8]) {
    let (next, rest) = in_order(columns, plan, record);
    if rest.is_empty() && next == plan.fields.len() {
        columns.end_whole_row();
        return;
    }
    columns.put_until(next);
    if walk(columns, plan, next, rest).is_none() {
        columns.refuse(Reason::MalformedRecord, None);
    }
    columns.end_row();
}

/// Takes fields as long as they come one after the other as they were declared, which is how most encoders write most
/// records. The field and the bytes at which that ends.
fn in_order<'r>(columns: &mut Columns<'_>, plan: &Plan, record: &'r [u8]) -> (usize, &'r [u8]) {
    let (mut next, mut rest) = (0, record);
    while let Some(field) = plan.fields.get(next) {
        let run = plan.fields.get(next..next + field.doubles).unwrap_or_default();
        let taken = match field.tag_bytes {
            1 => take_doubles::<9>(columns, next, run, rest),
            2 => take_doubles::<10>(columns, next, run, rest),
            _ => 0,
        };
        let after = match taken {
            0 => field.take_next(columns, next, rest),
            taken => rest.get(taken * (field.tag_bytes + 8)..),
        };
        let Some(after) = after else { return (next, rest) };
        (next, rest) = (next + taken.max(1), after);
    }
    (next, rest)
}

/// Takes doubles as long as they come one after the other as they were declared, each with its tag in `N` bytes. How many
/// there were.
fn take_doubles<const N: usize>(columns: &mut Columns<'_>, position: usize, run: &[Expected], rest: &[u8]) -> usize {
    let mut taken = 0;
    for (field, value) in run.iter().zip(rest.as_chunks::<N>().0) {
        let (Some(tag), Some(bits)) = (value.first_chunk(), value.last_chunk()) else { break };
        if u16::from_le_bytes(*tag) & field.mask != field.tag {
            break;
        }
        columns.put_next(position + taken, u64::from_le_bytes(*bits));
        taken += 1;
    }
    taken
}

/// Whether a text is UTF-8. Most are ASCII, of which eight bytes are looked at in one step; characters are looked at one by
/// one.
fn is_utf8(text: &[u8]) -> bool {
    text.is_ascii() || str::from_utf8(text).is_ok()
}

/// Walks the rest of a record, in which anything may come.
fn walk(columns: &mut Columns<'_>, plan: &Plan, mut next: usize, mut rest: &[u8]) -> Option<()> {
    while !rest.is_empty() {
        if let Some(field) = plan.fields.get(next)
            && let Some(after) = field.after_tag(rest, 0)
        {
            rest = value(columns, next, field.field_type, after)?;
            next += 1;
        } else {
            (next, rest) = field_anywhere(columns, plan, next, rest)?;
        }
    }
    Some(())
}

impl Expected {
    /// What comes after the tag of this field as it most often is, but for these bits of its wire type; `None` if another
    /// tag comes.
    fn after_tag<'r>(&self, rest: &'r [u8], other: u8) -> Option<&'r [u8]> {
        let first = rest.first_chunk().map(|&first| u16::from_le_bytes(first) & self.mask)?;
        if first == self.tag | u16::from(other) { rest.get(self.tag_bytes..) } else { None }
    }

    /// Puts the value of this field if it comes next, as values of its type most often are written. Doubles were taken
    /// before.
    fn take_next<'r>(&self, columns: &mut Columns<'_>, position: usize, rest: &'r [u8]) -> Option<&'r [u8]> {
        let after = self.after_tag(rest, 0);
        let (bits, rest) = match self.field_type {
            FieldType::Float64 => return None,
            FieldType::Float32 => {
                let (bits, rest) = array(after?)?;
                (u32::from_le_bytes(bits).into(), rest)
            }
            FieldType::Int64 => varint(after?)?,
            FieldType::Bool => {
                let (value, rest) = varint(after?)?;
                (u64::from(value != 0), rest)
            }
            FieldType::Timestamp => match after {
                Some(after) => varint(after)?,
                None => {
                    let (message, rest) = bytes(self.after_tag(rest, BYTES ^ VARINT)?)?;
                    (timestamp(message)?.cast_unsigned(), rest)
                }
            },
            FieldType::String => {
                let (text, rest) = bytes(after?)?;
                if !is_utf8(text) {
                    return None;
                }
                columns.put_next_text(position, text);
                return Some(rest);
            }
        };
        columns.put_next(position, bits);
        Some(rest)
    }
}

/// A field out of order, undeclared, or written as it seldom is. The field that is expected after it.
#[cold]
fn field_anywhere<'r>(
    columns: &mut Columns<'_>,
    plan: &Plan,
    next: usize,
    rest: &'r [u8],
) -> Option<(usize, &'r [u8])> {
    let ((number, wire), rest) = tag(rest)?;
    let Some(position) = plan.fields.iter().position(|field| field.number == number) else {
        columns.undeclared(|| number.to_string());
        return Some((next, skip((number, wire), rest)?));
    };
    let field_type = plan.fields.get(position)?.field_type;
    let rest = if wire == wire_of(field_type) {
        value(columns, position, field_type, rest)?
    } else if (field_type, wire) == (FieldType::Timestamp, BYTES) {
        let (message, rest) = bytes(rest)?;
        columns.put(position, timestamp(message)?.cast_unsigned());
        rest
    } else {
        columns.wrong_type(position);
        skip((number, wire), rest)?
    };
    Some((position + 1, rest))
}

/// Puts a value that is written as values of its type most often are. What comes after it.
fn value<'r>(columns: &mut Columns<'_>, position: usize, field_type: FieldType, rest: &'r [u8]) -> Option<&'r [u8]> {
    match field_type {
        FieldType::Float64 => {
            let (bits, rest) = array(rest)?;
            columns.put(position, u64::from_le_bytes(bits));
            Some(rest)
        }
        FieldType::Float32 => {
            let (bits, rest) = array(rest)?;
            columns.put(position, u32::from_le_bytes(bits).into());
            Some(rest)
        }
        FieldType::Int64 | FieldType::Timestamp => {
            let (value, rest) = varint(rest)?;
            columns.put(position, value);
            Some(rest)
        }
        FieldType::Bool => {
            let (value, rest) = varint(rest)?;
            columns.put(position, u64::from(value != 0));
            Some(rest)
        }
        FieldType::String => {
            let (text, rest) = bytes(rest)?;
            match std::str::from_utf8(text) {
                Ok(text) => columns.put_str(position, text),
                Err(_) => columns.wrong_type(position),
            }
            Some(rest)
        }
    }
}

/// A `google.protobuf.Timestamp` in microseconds.
fn timestamp(message: &[u8]) -> Option<i64> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut rest = message;
    while !rest.is_empty() {
        let (tag, after) = tag(rest)?;
        rest = after;
        match tag {
            (1, VARINT) => (seconds, rest) = varint(rest)?,
            (2, VARINT) => (nanos, rest) = varint(rest)?,
            other => rest = skip(other, rest)?,
        }
    }
    time::from_seconds(seconds.cast_signed(), nanos.cast_signed())
}

/// One record of the outer message, and what comes after it.
fn record(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    match tag(rest)? {
        ((1, BYTES), rest) => bytes(rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
