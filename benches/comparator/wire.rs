//! Messages as the bytes that they are, and the few fields of them that are read and written.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Takes messages as they are.
pub(super) struct RawCodec;

/// Writes messages as they are.
pub(super) struct Raw;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(bytes.copy_to_bytes(bytes.remaining())))
    }
}

/// What the wire says that comes next.
pub(super) enum Value<'m> {
    Varint(u64),
    Double(f64),
    Bytes(&'m [u8]),
}

/// The fields of a message, in the order of the wire. The bytes are trusted.
pub(super) struct Fields<'m>(pub(super) &'m [u8]);

impl<'m> Iterator for Fields<'m> {
    type Item = (u64, Value<'m>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let tag = self.varint();
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()),
            1 => Value::Double(f64::from_le_bytes(self.take(8).try_into().unwrap())),
            2 => {
                let length = self.varint() as usize;
                Value::Bytes(self.take(length))
            }
            other => panic!("wire type {other}"),
        };
        Some((tag >> 3, value))
    }
}

impl<'m> Fields<'m> {
    fn take(&mut self, length: usize) -> &'m [u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn varint(&mut self) -> u64 {
        let (mut value, mut shift) = (0, 0);
        for (position, byte) in self.0.iter().enumerate() {
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                self.0 = &self.0[position + 1..];
                return value;
            }
        }
        panic!("a varint without an end");
    }
}

/// The field that the model fills.
const OUTPUT: &[u8] = b"fraud_score";

/// A `PublishResponse`: everything was taken in, and these are the scores, if they were asked for.
pub(super) fn answer(sequence: u64, records: usize, scores: &[f32]) -> Bytes {
    let mut out = BytesMut::with_capacity(64 + scores.len() * 4);
    varint(8, &mut out);
    varint(sequence, &mut out);
    varint(16, &mut out);
    varint(records as u64, &mut out);
    if !scores.is_empty() {
        let floats = scores.len() * 4;
        let inner = 1 + varint_length(floats) + floats;
        let output = 2 + OUTPUT.len() + 1 + varint_length(inner) + inner;
        for (tag, length) in [(0x22, output), (0x0a, OUTPUT.len())] {
            varint(tag, &mut out);
            varint(length as u64, &mut out);
        }
        out.put_slice(OUTPUT);
        for (tag, length) in [(0x12, inner), (0x0a, floats)] {
            varint(tag, &mut out);
            varint(length as u64, &mut out);
        }
        scores.iter().for_each(|score| out.put_f32_le(*score));
    }
    out.freeze()
}

fn varint(mut value: u64, out: &mut BytesMut) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn varint_length(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}
