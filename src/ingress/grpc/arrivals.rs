//! The body of a request to a service of tonic's.
//!
//! Tonic reserves the whole of a message as soon as it has read its length, and holds whatever came of it for as long as
//! the rest does not. So it sees none before it is whole.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::engine::budget::Call;

use super::frames::Coming;
use super::messages::{Message, Messages};

/// What is done with the charge of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Charged {
    /// The service takes it with the message.
    WithMessage,
    /// It is given back when the message is whole: the service knows nothing of it.
    UntilWhole,
}

/// The body of a request.
pub(super) struct Arrivals<B: Body<Data = Bytes> + Send + Unpin + 'static> {
    messages: Messages<B>,
    call: Arc<Call>,
    charged: Charged,
    /// What follows the header of a message that was given on.
    rest: Option<Bytes>,
}

impl<B> Arrivals<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    pub(super) fn new(body: B, call: Arc<Call>, coming: Arc<Coming>, charged: Charged, message_max: usize) -> Self {
        Self { messages: Messages::new(body, Arc::clone(&call), coming, message_max), call, charged, rest: None }
    }
}

impl<B> Body for Arrivals<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(rest) = self.rest.take() {
            return Poll::Ready(Some(Ok(Frame::data(rest))));
        }
        let message = ready!(self.messages.poll_next(context));
        Poll::Ready(message.map(|message| {
            let Message { header, bytes, charge } = message?;
            match self.charged {
                Charged::WithMessage => self.call.put_arrived(charge),
                Charged::UntilWhole => drop(charge),
            }
            self.rest = Some(bytes).filter(|bytes| !bytes.is_empty());
            Ok(Frame::data(Bytes::copy_from_slice(&header)))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.messages.is_at_end()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests;
