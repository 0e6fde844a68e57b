//! Requests straight from the pool into the buffer that is sent; of an answer only what is counted.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Buf;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use tonic::Status;
use tonic::codec::{self, DecodeBuf, EncodeBuf};

use crate::ingress::proto::ingest::{PublishRequest, Refusal};

use super::{Payload, Pool};

/// A request.
pub(super) struct Outgoing {
    /// All of it but the payload.
    pub(super) head: PublishRequest,
    /// The number of the pool's message, and its event time in microseconds since the Unix epoch; `None`: no payload.
    pub(super) message: Option<(u64, i64)>,
}

/// A `PublishResponse` without the model's outputs, which are skipped.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Answer {
    #[prost(uint32, tag = "2")]
    pub(super) accepted: u32,
    #[prost(message, repeated, tag = "3")]
    pub(super) refusals: Vec<Refusal>,
    #[prost(message, optional, tag = "5")]
    pub(super) error: Option<tonic_types::pb::Status>,
}

/// Encodes requests and decodes answers.
pub(super) struct Codec(pub(super) Arc<Pool>);

pub(super) struct Encoder(Arc<Pool>);

pub(super) struct Decoder(PhantomData<Answer>);

impl codec::Codec for Codec {
    type Encode = Outgoing;
    type Decode = Answer;
    type Encoder = Encoder;
    type Decoder = Decoder;

    fn encoder(&mut self) -> Encoder {
        Encoder(Arc::clone(&self.0))
    }

    fn decoder(&mut self) -> Decoder {
        Decoder(PhantomData)
    }
}

impl codec::Encoder for Encoder {
    type Item = Outgoing;
    type Error = Status;

    fn encode(&mut self, request: Outgoing, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let failed = |error: prost::EncodeError| Status::internal(error.to_string());
        let message = request.message.and_then(|(number, time)| Some((self.0.message(number)?, time)));
        let Some((message, time)) = message else { return request.head.encode(out).map_err(failed) };
        let length = message.len();
        out.reserve(request.head.encoded_len() + 1 + encoded_len_varint(length as u64) + length);
        request.head.encode(out).map_err(failed)?;
        encode_key(field(self.0.payload()), WireType::LengthDelimited, out);
        encode_varint(length as u64, out);
        message.write(self.0.time(time), out);
        Ok(())
    }
}

/// The field of `PublishRequest` that holds a payload.
fn field(payload: Payload) -> u32 {
    match payload {
        Payload::Rows => 4,
        Payload::Arrow => 5,
    }
}

impl codec::Decoder for Decoder {
    type Item = Answer;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Answer>, Status> {
        let bytes = bytes.copy_to_bytes(bytes.remaining());
        Answer::decode(bytes).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::proto::ingest::{Floats, Output, PublishResponse, output};

    #[test]
    fn an_answer_is_what_the_gateway_says_without_the_outputs() {
        let refusals = vec![Refusal { index: 3, count: 2, field: "f".into(), ..Refusal::default() }];
        let values = Some(output::Values::Scores(Floats { values: vec![0.5; 300] }));
        let response = PublishResponse {
            sequence: 9,
            accepted: 300,
            refusals: refusals.clone(),
            outputs: vec![Output { field: "score".into(), values }],
            ..PublishResponse::default()
        };
        let answer = Answer::decode(&*response.encode_to_vec()).unwrap();
        assert_eq!(answer, Answer { accepted: 300, refusals, error: None });
    }
}
