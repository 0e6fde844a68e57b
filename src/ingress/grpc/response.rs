//! A `PublishResponse` on the wire, written without building it: most requests are of one record, whose answer is short.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int64Type};
use arrow_schema::DataType;
use prost::Message;
use prost::encoding::{WireType, bool, encode_key, encode_varint, encoded_len_varint, message, uint32, uint64};

use crate::domain::outcome::{Run, Taken, Why};
use crate::domain::producer::Mark;
use crate::engine::intake::Intake;
use crate::engine::request::{Outputs, Served};
use crate::ingress::proto::ingest as wire;

use super::messages::HEADER_BYTES;
use super::status::{self, Rejection};

/// So many reasons of an answer's refusals are kept as they are written.
const KNOWN_MOST: usize = 8;

/// What is said of a request.
pub(super) struct Response<'a> {
    pub(super) sequence: u64,
    pub(super) is_duplicate: bool,
    /// What its records came to.
    pub(super) taken: Option<Accepted<'a>>,
    /// Why it was refused as a whole.
    pub(super) rejection: Option<Rejection>,
}

/// What the records of a request came to.
pub(super) struct Accepted<'a> {
    pub(super) taken: &'a Taken,
    pub(super) mark: Mark,
    pub(super) outputs: Option<(&'a Served, &'a Outputs)>,
    /// What knows who the gateways of routes are.
    pub(super) intake: Option<&'a Intake>,
}

impl Response<'_> {
    /// How many refusals it holds.
    pub(super) fn refusals(&self) -> usize {
        self.taken.as_ref().map_or(0, |accepted| accepted.taken.refusals.runs().len())
    }

    /// Writes it as a message of gRPC: not compressed, its length, its fields.
    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        let start = to.len();
        to.extend_from_slice(&[0; HEADER_BYTES]);
        self.fields(to);
        let length = u32::try_from(to.len() - start - HEADER_BYTES).unwrap_or(u32::MAX);
        if let Some(place) = to.get_mut(start + 1..start + HEADER_BYTES) {
            place.copy_from_slice(&length.to_be_bytes());
        }
    }

    fn fields(&self, to: &mut Vec<u8>) {
        number(1, self.sequence, to);
        if let Some(Accepted { taken, mark, outputs, intake }) = &self.taken {
            if taken.accepted != 0 {
                uint32::encode(2, &taken.accepted, to);
            }
            refusals(taken.refusals.runs(), *intake, to);
            if let Some((served, outputs)) = outputs {
                for (field, column) in served.outputs.iter().zip(outputs.columns.iter()) {
                    output(field, column, outputs, to);
                }
            }
            if taken.dropped_values != 0 {
                uint32::encode(6, &taken.dropped_values, to);
            }
            number(7, mark.epoch, to);
            number(8, mark.sequence, to);
        }
        if let Some(rejection) = &self.rejection {
            message::encode(5, &rejection.message(), to);
        }
        if self.is_duplicate {
            bool::encode(9, &true, to);
        }
    }
}

fn number(tag: u32, value: u64, to: &mut Vec<u8>) {
    if value != 0 {
        uint64::encode(tag, &value, to);
    }
}

/// `Refusal`s: the index, why, the count. Few reasons come in turns as a rule: the last ones are not written again, but copied.
fn refusals(runs: &[Run], intake: Option<&Intake>, to: &mut Vec<u8>) {
    let mut known: VecDeque<(&Arc<Why>, Vec<u8>)> = VecDeque::new();
    for run in runs {
        if let Some((_, why)) = known.iter().find(|(why, _)| Arc::ptr_eq(why, &run.why)) {
            refusal(run, why, to);
            continue;
        }
        let why = because(&run.why, intake).encode_to_vec();
        refusal(run, &why, to);
        known.truncate(KNOWN_MOST - 1);
        known.push_front((&run.why, why));
    }
}

fn refusal(Run { first, count, .. }: &Run, why: &[u8], to: &mut Vec<u8>) {
    let (first, count) = (u64::from(*first), u64::from(*count));
    let bytes = |number: u64| if number == 0 { 0 } else { 1 + encoded_len_varint(number) };
    begin(3, bytes(first) + why.len() + bytes(count), to);
    number(1, first, to);
    to.extend_from_slice(why);
    number(8, count, to);
}

/// A `Refusal` without its index and its count.
fn because(why: &Why, intake: Option<&Intake>) -> wire::Refusal {
    let route = why.route.as_ref().map(|route| wire::Route {
        gateway: route.gateway.to_string(),
        endpoint: route.endpoint.clone(),
        identity: intake.and_then(|intake| intake.identity_of(route)).unwrap_or_default(),
    });
    wire::Refusal {
        index: 0,
        count: 0,
        reason: status::wire(why.reason).into(),
        retryable: why.retryable(),
        field: why.field.as_deref().unwrap_or_default().to_owned(),
        route,
        rules: why.rules.as_deref().unwrap_or_default().to_vec(),
        hint: status::wire_hint(why.hint).into(),
    }
}

/// An `Output`: the field, then `Floats` or `Integers`, whose values are packed.
fn output(field: &str, column: &ArrayRef, Outputs { rows, .. }: &Outputs, to: &mut Vec<u8>) {
    let (tag, packed) = match column.data_type() {
        DataType::Int64 => {
            let values = column.as_primitive::<Int64Type>().values().get(rows.clone()).unwrap_or_default();
            (3, values.iter().map(|value| encoded_len_varint(value.cast_unsigned())).sum::<usize>())
        }
        _ => (2, rows.len() * size_of::<f32>()),
    };
    let values = if packed == 0 { 0 } else { delimited(packed) };
    begin(4, delimited(field.len()) + delimited(values), to);
    begin(1, field.len(), to);
    to.extend_from_slice(field.as_bytes());
    begin(tag, values, to);
    if packed == 0 {
        return;
    }
    begin(1, packed, to);
    match column.data_type() {
        DataType::Int64 => {
            let values = column.as_primitive::<Int64Type>().values().get(rows.clone()).unwrap_or_default();
            values.iter().for_each(|value| encode_varint(value.cast_unsigned(), to));
        }
        _ => {
            let values = column.as_primitive::<Float32Type>().values().get(rows.clone()).unwrap_or_default();
            values.iter().for_each(|value| to.extend_from_slice(&value.to_le_bytes()));
        }
    }
}

/// The bytes of a field of so many bytes, with its tag of one byte and its length.
fn delimited(bytes: usize) -> usize {
    1 + encoded_len_varint(bytes as u64) + bytes
}

fn begin(tag: u32, bytes: usize, to: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, to);
    encode_varint(bytes as u64, to);
}

#[cfg(test)]
mod tests;
