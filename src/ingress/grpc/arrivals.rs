//! The body of a request as it arrives: a message is charged when its length is there, and given on when it is whole.
//!
//! Tonic reserves the whole of a message as soon as it has read its length, and holds whatever came of it for as long as
//! the rest does not. So it sees none before it is whole.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;

use crate::engine::budget::{Call, Charge};

/// What is before each message: whether it is compressed, and its length.
const HEADER_BYTES: usize = 5;
/// In each of these times a message that has begun must go on by [`PROGRESS_BYTES`], or become whole.
const PROGRESS_WITHIN: Duration = Duration::from_secs(10);
const PROGRESS_BYTES: usize = 64 << 10;
/// A smaller part of a message is copied, so that it does not keep the buffer that it came in.
const SMALL_BYTES: usize = 1 << 10;
/// How long and how much is read on of a call that has been answered already. A stream that is reset instead lets the
/// frames that are on their way count as errors of the connection, which HTTP/2 ends when there are many.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);
const DRAIN_BYTES: usize = 64 << 20;

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
    body: Option<B>,
    call: Arc<Call>,
    charged: Charged,
    message_max: usize,
    state: State,
    /// What came and is not looked at yet.
    came: Bytes,
    /// What is given on.
    whole: VecDeque<Bytes>,
    stalled: Stalled,
}

enum State {
    Header { bytes: [u8; HEADER_BYTES], length: usize },
    Charging { header: [u8; HEADER_BYTES], charge: Pin<Box<dyn Future<Output = Charge> + Send>> },
    Message { parts: VecDeque<Bytes>, small: BytesMut, left: usize, charge: Charge },
    Ended,
}

const BETWEEN: State = State::Header { bytes: [0; HEADER_BYTES], length: 0 };

/// Notices that a message does not go on.
#[derive(Default)]
struct Stalled {
    timer: Option<Pin<Box<Sleep>>>,
    /// What came of the message since the timer was set.
    came: usize,
    /// Whether there was a message between the messages meanwhile.
    is_over: bool,
}

impl Stalled {
    /// Whether the message that is being waited for does not go on.
    fn poll(&mut self, context: &mut Context<'_>) -> bool {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(PROGRESS_WITHIN)));
        while timer.as_mut().poll(context).is_ready() {
            if !self.is_over && self.came < PROGRESS_BYTES {
                return true;
            }
            (self.came, self.is_over) = (0, false);
            timer.set(sleep(PROGRESS_WITHIN));
        }
        false
    }
}

impl<B: Body<Data = Bytes> + Send + Unpin + 'static> Arrivals<B> {
    pub(super) fn new(body: B, call: Arc<Call>, charged: Charged, message_max: usize) -> Self {
        let (came, whole, stalled) = (Bytes::new(), VecDeque::new(), Stalled::default());
        Self { body: Some(body), call, charged, message_max, state: BETWEEN, came, whole, stalled }
    }

    /// Takes from what came. `Ready`: something is whole, or wrong.
    fn advance(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        loop {
            match &mut self.state {
                State::Header { bytes, length } => {
                    let taken = self.came.split_to(self.came.len().min(HEADER_BYTES - *length));
                    if let Some(place) = bytes.get_mut(*length..*length + taken.len()) {
                        place.copy_from_slice(&taken);
                    }
                    *length += taken.len();
                    if *length < HEADER_BYTES {
                        return Poll::Pending;
                    }
                    let header = *bytes;
                    let length = self.announced(header)?;
                    self.state = match self.call.try_arrive(length) {
                        Some(charge) => message(header, length, charge),
                        None => State::Charging { header, charge: Box::pin(Arc::clone(&self.call).arrive(length)) },
                    };
                }
                State::Charging { header, charge } => {
                    let charge = ready!(charge.as_mut().poll(context));
                    let header = *header;
                    self.state = message(header, length_of(header), charge);
                }
                State::Message { parts, small, left, .. } => {
                    let part = self.came.split_to(self.came.len().min(*left));
                    *left -= part.len();
                    if part.len() < SMALL_BYTES {
                        small.extend_from_slice(&part);
                    } else {
                        if !small.is_empty() {
                            parts.push_back(small.split().freeze());
                        }
                        parts.push_back(part);
                    }
                    if *left > 0 {
                        return Poll::Pending;
                    }
                    if !small.is_empty() {
                        parts.push_back(small.split().freeze());
                    }
                    self.finish();
                    return Poll::Ready(Ok(()));
                }
                State::Ended => return Poll::Pending,
            }
        }
    }

    /// The length that a message says it has.
    fn announced(&self, header: [u8; HEADER_BYTES]) -> Result<usize, Status> {
        let length = length_of(header);
        if length > self.message_max {
            let limit = self.message_max;
            let message =
                format!("a message of {length} bytes; the longest that is read has {limit}: send smaller batches");
            return Err(Status::resource_exhausted(message));
        }
        Ok(length)
    }

    fn finish(&mut self) {
        self.stalled.is_over = true;
        if let State::Message { parts, charge, .. } = std::mem::replace(&mut self.state, BETWEEN) {
            self.whole.extend(parts);
            match self.charged {
                Charged::WithMessage => self.call.put_arrived(charge),
                Charged::UntilWhole => drop(charge),
            }
        }
    }

    fn fail(&mut self, status: Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.state = State::Ended;
        Poll::Ready(Some(Err(status)))
    }
}

fn message(header: [u8; HEADER_BYTES], left: usize, charge: Charge) -> State {
    State::Message { parts: VecDeque::new(), small: BytesMut::from(header.as_slice()), left, charge }
}

fn length_of([_, length @ ..]: [u8; HEADER_BYTES]) -> usize {
    usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX)
}

impl<B> Body for Arrivals<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some(part) = this.whole.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(part))));
            }
            if matches!(this.state, State::Ended) {
                return Poll::Ready(None);
            }
            match this.advance(context) {
                Poll::Ready(Ok(())) => continue,
                Poll::Ready(Err(status)) => return this.fail(status),
                // It waits for room, which is not the sender's fault.
                Poll::Pending if matches!(this.state, State::Charging { .. }) => return Poll::Pending,
                Poll::Pending => {}
            }
            let Some(body) = &mut this.body else { return Poll::Ready(None) };
            match Pin::new(body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        this.stalled.came += data.len();
                        this.came = data;
                    }
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                Poll::Ready(Some(Err(error))) => {
                    this.body = None;
                    return this.fail(Status::from_error(Box::new(error)));
                }
                Poll::Ready(None) => {
                    this.body = None;
                    if matches!(this.state, State::Header { length: 0, .. }) {
                        return Poll::Ready(None);
                    }
                    return this.fail(Status::invalid_argument("the call ends within a message"));
                }
                Poll::Pending => {
                    let is_within = !matches!(this.state, State::Header { length: 0, .. });
                    if is_within && this.stalled.poll(context) {
                        let message = format!("a message has not come on for {} s", PROGRESS_WITHIN.as_secs());
                        return this.fail(Status::deadline_exceeded(message));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.whole.is_empty()
            && self.came.is_empty()
            && matches!(self.state, State::Header { length: 0, .. })
            && self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl<B: Body<Data = Bytes> + Send + Unpin + 'static> Drop for Arrivals<B> {
    /// The service has answered before the call was at its end: what comes of it is read on for a while, and dropped.
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(DRAIN_WITHIN, drain(body)));
        }
    }
}

async fn drain<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    let mut left = DRAIN_BYTES;
    while let Some(Ok(frame)) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests;
