//! The body of a response: what its frames hold stays charged until HTTP/2 has sent them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::engine::budget::{Call, Unsent};

/// The body of a response.
pub(super) struct Answers {
    body: tonic::body::Body,
    call: Arc<Call>,
}

impl Answers {
    pub(super) fn new(body: tonic::body::Body, call: Arc<Call>) -> Self {
        Self { body, call }
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
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(frame.map(|frame| {
            Ok(frame?.map_data(|bytes| Bytes::from_owner(Charged { bytes, _unsent: self.call.unsent() })))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
