//! The body of a response: what its frames hold stays charged until HTTP/2 has sent them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use tonic::Status;

use crate::engine::budget::{Call, Unsent};

use super::replies::Outgoing;

/// The body of a response.
pub(super) enum Answers {
    /// Of the ingest service.
    Ingest(Outgoing),
    /// Of a service of tonic's.
    Service {
        /// What it answers.
        body: tonic::body::Body,
        /// What its call holds.
        call: Arc<Call>,
    },
}

impl Answers {
    pub(super) fn of_service(body: tonic::body::Body, call: Arc<Call>) -> Self {
        Self::Service { body, call }
    }
}

/// Bytes of a frame, with what they are charged.
struct Charged {
    bytes: Bytes,
    _unsent: Unsent,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Body for Answers {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let (body, call) = match &mut *self {
            Self::Ingest(outgoing) => return Pin::new(outgoing).poll_frame(context),
            Self::Service { body, call } => (body, call),
        };
        let frame = ready!(Pin::new(body).poll_frame(context));
        Poll::Ready(frame.map(|frame| {
            let charged = |bytes| Bytes::from_owner(Charged { bytes, _unsent: call.unsent(call.take_answered()) });
            Ok(frame?.map_data(charged))
        }))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Ingest(outgoing) => outgoing.is_end_stream(),
            Self::Service { body, .. } => body.is_end_stream(),
        }
    }
}
