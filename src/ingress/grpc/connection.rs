//! A connection that was let in: its bytes, in plain text or through TLS, and the time within which it must begin to speak
//! HTTP/2.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::domain::connection::Turned;

use super::frames::{Coming, Frames};
use super::places::Place;
use super::socket::Socket;
use super::speaker::Speaker;
use super::watch::Watch;

/// How long a connection may take until the handshake is done, and HTTP/2's preface and settings are there.
const BEGIN_WITHIN: Duration = Duration::from_secs(5);

/// When a connection must have begun, on the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Duration);

impl Deadline {
    /// That of a connection that has just arrived.
    pub(super) fn from(now: Duration) -> Self {
        Self(now + BEGIN_WITHIN)
    }

    /// How much time is left.
    pub(super) fn left(self, now: Duration) -> Duration {
        self.0.saturating_sub(now)
    }
}

/// What a connection's bytes go over.
pub(super) enum Wire {
    /// As they are.
    Plain(Socket),
    /// Encrypted.
    Tls(Box<TlsStream<Socket>>),
}

impl Wire {
    fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Puts it on the runtime that this is called on.
    pub(super) fn arrive(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.arrive(),
            Self::Tls(stream) => stream.get_mut().0.arrive(),
        }
    }
}

/// A connection; gives its place back when it ends.
pub(super) struct Connection {
    wire: Wire,
    address: SocketAddr,
    /// Where it is said that it is ended.
    watch: Arc<Watch>,
    /// Who speaks on it.
    speaker: Arc<Speaker>,
    /// `None` when it has come.
    preface: Option<Preface>,
    frames: Frames,
    _place: Arc<Place>,
}

impl Connection {
    /// One that came in, and must have begun by a deadline. This has to be called on the thread that serves it.
    pub(super) fn new(
        wire: Wire,
        address: SocketAddr,
        watch: Arc<Watch>,
        speaker: Arc<Speaker>,
        deadline: Deadline,
        place: Arc<Place>,
    ) -> Self {
        let now = watch.now();
        let preface = Some(Preface::new(deadline.left(now)));
        Self { wire, address, watch, speaker, preface, frames: Frames::new(now), _place: place }
    }

    /// How the parts of messages come on.
    pub(super) fn coming(&self) -> Arc<Coming> {
        self.frames.coming()
    }

    /// What was written gives the client room to answer it.
    fn sent(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.frames.sent(*bytes);
        }
        written
    }

    fn turn_away(&self, why: Turned) {
        self.watch.turn_away(why, self.address, Some(&self.speaker));
    }
}

/// What a client sends first: HTTP/2's preface and a frame with its settings. A connection that does not is ended; it
/// would keep its slot for ever, as nothing else asks it for a sign of life before that.
struct Preface {
    came: usize,
    /// The first bytes of the settings' frame, which say how long it is.
    length: [u8; 3],
    deadline: Pin<Box<Sleep>>,
}

impl Preface {
    /// `PRI * HTTP/2.0`, two line ends, `SM`, two line ends.
    const MAGIC_BYTES: usize = 24;
    const FRAME_HEADER_BYTES: usize = 9;

    /// It has to be there within this time.
    fn new(within: Duration) -> Self {
        Self { came: 0, length: [0; 3], deadline: Box::pin(sleep(within)) }
    }

    /// Takes what came. Whether all is there; whether it is what it has to be is looked at by HTTP/2.
    fn take(&mut self, bytes: &[u8]) -> bool {
        for (place, position) in self.length.iter_mut().zip(Self::MAGIC_BYTES..) {
            if let Some(byte) = position.checked_sub(self.came).and_then(|position| bytes.get(position)) {
                *place = *byte;
            }
        }
        self.came += bytes.len();
        let [high, middle, low] = self.length.map(usize::from);
        let length = high << 16 | middle << 8 | low;
        let header = Self::MAGIC_BYTES + Self::FRAME_HEADER_BYTES;
        self.came >= header && self.came >= header + length
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        let local_addr = self.wire.socket().tcp().and_then(|stream| stream.local_addr().ok());
        TcpConnectInfo { local_addr, remote_addr: Some(self.address) }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let Poll::Ready(result) = Pin::new(&mut this.wire).poll_read(context, buffer) else {
            let Some(preface) = &mut this.preface else { return Poll::Pending };
            ready!(preface.deadline.as_mut().poll(context));
            this.turn_away(Turned::TooSlow);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        };
        let came = buffer.filled().get(before..).unwrap_or_default();
        if this.preface.as_mut().is_some_and(|preface| preface.take(came)) {
            this.preface = None;
        }
        if this.frames.take(came, || this.watch.now()) {
            this.turn_away(Turned::Flood);
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.wire).poll_write(context, bytes);
        self.sent(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.wire).poll_write_vectored(context, bytes);
        self.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_preface_is_there_when_the_settings_are_however_it_is_cut() {
        let whole = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &[0, 0, 6, 4, 0, 0, 0, 0, 0], &[0; 6]].concat();
        for cut in 0..whole.len() {
            let mut preface = Preface::new(BEGIN_WITHIN);
            assert!(!preface.take(&whole[..cut]), "{cut}");
            assert!(preface.take(&whole[cut..]), "{cut}");
        }
    }
}
