//! The messages of a call as they arrive: each is charged when its length is there, and given on when it is whole.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use tokio::time::{Sleep, sleep};
use tonic::Status;

use crate::engine::budget::{Call, Charge};

use super::frames::Coming;

/// What is before each message: whether it is compressed, and its length.
pub(super) const HEADER_BYTES: usize = 5;
/// In each of these times a message that has begun must go on by [`PROGRESS_BYTES`], or become whole; but see [`TIMES_MAX`].
pub(super) const PROGRESS_WITHIN: Duration = Duration::from_secs(15);
const PROGRESS_BYTES: usize = 64 << 10;
/// HTTP/2 gives a frame on when it is whole, and frames of several calls take turns. So a message may stand still for so many
/// of these times in a row while its connection goes on by as much.
const TIMES_MAX: usize = 3;
/// A smaller message is copied, so that it does not keep the buffer that it came in, which may have 256 KiB.
const SMALL_BYTES: usize = 32 << 10;
/// How long and how much is read on of a call that has been answered already. A stream that is reset instead lets the
/// frames that are on their way count as errors of the connection, which HTTP/2 ends when there are many.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);
const DRAIN_BYTES: usize = 64 << 20;

/// The messages of a call.
pub(super) struct Messages<B: Body<Data = Bytes> + Send + Unpin + 'static> {
    /// `None`: nothing comes any more.
    body: Option<B>,
    call: Arc<Call>,
    message_max: usize,
    state: State,
    /// What came and is not looked at yet.
    came: Bytes,
    stalled: Stalled,
}

/// A whole message.
pub(super) struct Message {
    /// Whether it is compressed, and its length.
    pub(super) header: [u8; HEADER_BYTES],
    /// What it says.
    pub(super) bytes: Bytes,
    pub(super) charge: Charge,
}

enum State {
    Header { bytes: [u8; HEADER_BYTES], length: usize },
    Charging { header: [u8; HEADER_BYTES], charge: Pin<Box<dyn Future<Output = Charge> + Send>> },
    Message { header: [u8; HEADER_BYTES], came: BytesMut, charge: Charge },
    Ended,
}

const BETWEEN: State = State::Header { bytes: [0; HEADER_BYTES], length: 0 };

/// Notices that a message does not go on.
struct Stalled {
    coming: Arc<Coming>,
    timer: Option<Pin<Box<Sleep>>>,
    /// What came of the message since the timer was set.
    came: usize,
    /// What had come on the connection when it was set.
    before: u64,
    /// How many times in a row its connection went on, and it did not.
    times: usize,
    /// Whether there was a message between the messages meanwhile.
    is_over: bool,
}

impl Stalled {
    /// Whether the message that is being waited for does not go on.
    fn poll(&mut self, context: &mut Context<'_>) -> bool {
        let timer = self.timer.get_or_insert_with(|| {
            self.before = self.coming.all();
            Box::pin(sleep(PROGRESS_WITHIN))
        });
        while timer.as_mut().poll(context).is_ready() {
            let of_connection = self.coming.all().saturating_sub(self.before);
            if self.is_over || self.came >= PROGRESS_BYTES {
                self.times = 0;
            } else if of_connection >= PROGRESS_BYTES as u64 && self.times < TIMES_MAX {
                self.times += 1;
            } else {
                return true;
            }
            (self.came, self.is_over, self.before) = (0, false, self.coming.all());
            timer.set(sleep(PROGRESS_WITHIN));
        }
        false
    }
}

impl<B> Messages<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    pub(super) fn new(body: B, call: Arc<Call>, coming: Arc<Coming>, message_max: usize) -> Self {
        let stalled = Stalled { coming, timer: None, came: 0, before: 0, times: 0, is_over: false };
        Self { body: Some(body), call, message_max, state: BETWEEN, came: Bytes::new(), stalled }
    }

    /// The next message; `None` after the last.
    pub(super) async fn next(&mut self) -> Option<Result<Message, Status>> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Message, Status>>> {
        loop {
            match self.advance(context) {
                Poll::Ready(Ok(message)) => return Poll::Ready(Some(Ok(message))),
                Poll::Ready(Err(status)) => return self.fail(status),
                // It waits for room, which is not the sender's fault.
                Poll::Pending if matches!(self.state, State::Charging { .. }) => return Poll::Pending,
                Poll::Pending => {}
            }
            if matches!(self.state, State::Ended) {
                return Poll::Ready(None);
            }
            let is_between = self.is_between();
            let Some(body) = &mut self.body else { return Poll::Ready(None) };
            match Pin::new(body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers say nothing here.
                    if let Ok(data) = frame.into_data() {
                        self.stalled.came += data.len();
                        self.came = data;
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.body = None;
                    return self.fail(Status::from_error(Box::new(error)));
                }
                Poll::Ready(None) => {
                    self.body = None;
                    if is_between {
                        return Poll::Ready(None);
                    }
                    return self.fail(Status::invalid_argument("the call ends within a message"));
                }
                Poll::Pending => {
                    if !is_between && self.stalled.poll(context) {
                        let message = format!("a message has not come on for {} s", PROGRESS_WITHIN.as_secs());
                        return self.fail(Status::deadline_exceeded(message));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Takes from what came. `Ready`: a message is whole, or something is wrong.
    fn advance(&mut self, context: &mut Context<'_>) -> Poll<Result<Message, Status>> {
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
                    let Some(charge) = self.call.try_arrive(length) else {
                        let charge = Box::pin(Arc::clone(&self.call).arrive(length));
                        self.state = State::Charging { header, charge };
                        continue;
                    };
                    // Most messages are whole at once.
                    if self.came.len() >= length {
                        let bytes = self.came.split_to(length);
                        let bytes = if length < SMALL_BYTES { Bytes::copy_from_slice(&bytes) } else { bytes };
                        self.state = BETWEEN;
                        self.stalled.is_over = true;
                        return Poll::Ready(Ok(Message { header, bytes, charge }));
                    }
                    self.state = State::Message { header, came: BytesMut::with_capacity(length), charge };
                }
                State::Charging { header, charge } => {
                    let charge = ready!(charge.as_mut().poll(context));
                    let header = *header;
                    // The wait was not the sender's.
                    self.stalled.is_over = true;
                    self.state = State::Message { header, came: BytesMut::with_capacity(length_of(header)), charge };
                }
                State::Message { header, came, charge } => {
                    let left = length_of(*header) - came.len();
                    came.extend_from_slice(&self.came.split_to(self.came.len().min(left)));
                    if came.len() < length_of(*header) {
                        return Poll::Pending;
                    }
                    let (header, bytes, charge) = (*header, came.split().freeze(), std::mem::take(charge));
                    self.state = BETWEEN;
                    self.stalled.is_over = true;
                    return Poll::Ready(Ok(Message { header, bytes, charge }));
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

    fn fail(&mut self, status: Status) -> Poll<Option<Result<Message, Status>>> {
        self.state = State::Ended;
        Poll::Ready(Some(Err(status)))
    }

    /// Whether nothing has come of the next message.
    pub(super) fn is_between(&self) -> bool {
        matches!(self.state, State::Header { length: 0, .. })
    }

    /// Whether it is known that nothing comes any more.
    pub(super) fn is_at_end(&self) -> bool {
        self.came.is_empty() && self.is_between() && self.body.as_ref().is_none_or(Body::is_end_stream)
    }
}

fn length_of([_, length @ ..]: [u8; HEADER_BYTES]) -> usize {
    usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX)
}

impl<B: Body<Data = Bytes> + Send + Unpin + 'static> Drop for Messages<B> {
    /// The call was answered before it was at its end: what comes of it is read on for a while, and dropped.
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
