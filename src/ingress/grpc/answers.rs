//! The body of a response: what its frames hold stays charged until HTTP/2 has sent them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use tonic::Status;

use crate::engine::budget::{Call, Unsent};
use crate::engine::intake::Intake;

use super::replies::Outgoing;
use super::speaker::Speaker;

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
        /// Whether it may go on.
        guard: Guard,
    },
}

/// Whether a service of tonic's may go on answering. It is asked before each message.
pub(super) enum Guard {
    /// The service asks for itself, or there is nothing to ask.
    Open,
    /// A call of somebody to a path.
    Asks {
        speaker: Arc<Speaker>,
        /// What knows what they may do.
        intake: Arc<Intake>,
        path: String,
    },
    /// The call has ended.
    Ended,
}

impl Guard {
    fn check(&self) -> Result<(), Status> {
        let Self::Asks { speaker, intake, path } = self else { return Ok(()) };
        speaker.goes_on(intake)?;
        speaker.may_call(intake, path).map_err(|denied| denied.status())
    }
}

impl Answers {
    pub(super) fn of_service(body: tonic::body::Body, call: Arc<Call>) -> Self {
        Self::guarded(body, call, Guard::Open)
    }

    /// What a service answers for as long as its caller may hear it.
    pub(super) fn guarded(body: tonic::body::Body, call: Arc<Call>, guard: Guard) -> Self {
        Self::Service { body, call, guard }
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
        let (body, call, guard) = match &mut *self {
            Self::Ingest(outgoing) => return Pin::new(outgoing).poll_frame(context),
            Self::Service { guard: Guard::Ended, .. } => return Poll::Ready(None),
            Self::Service { body, call, guard } => (body, call, guard),
        };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if matches!(&frame, Some(Ok(frame)) if frame.is_data())
            && let Err(ended) = guard.check()
        {
            *guard = Guard::Ended;
            let mut trailers = HeaderMap::new();
            ended.add_header(&mut trailers)?;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        Poll::Ready(frame.map(|frame| {
            let charged = |bytes| Bytes::from_owner(Charged { bytes, _unsent: call.unsent(call.take_answered()) });
            Ok(frame?.map_data(charged))
        }))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Ingest(outgoing) => outgoing.is_end_stream(),
            Self::Service { guard: Guard::Ended, .. } => true,
            Self::Service { body, .. } => body.is_end_stream(),
        }
    }
}
