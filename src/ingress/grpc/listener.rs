//! The accept loop: a cap on connections, a time within which a connection must begin to speak HTTP/2, and patience when
//! the system has no file descriptors left.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Limits of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most connections at a time; more wait in the system's backlog.
    pub connections_max: usize,
}

/// A bound listener.
pub struct Listener {
    socket: TcpListener,
    slots: Arc<Semaphore>,
}

/// File descriptors that connections must leave: for the journal, checkpoints, files, models and brokers.
const RESERVED: u64 = 128;
/// How long a connection may take until its preface and its settings are there.
const PREFACE_WITHIN: Duration = Duration::from_secs(5);

impl Listener {
    /// Binds an address. Raises the limit of file descriptors if it has to, and takes fewer connections if that is not
    /// enough.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn bind(address: SocketAddr, limits: Limits) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let connections_max = with_reserve(limits.connections_max);
        Ok(Self { socket, slots: Arc::new(Semaphore::new(connections_max)) })
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next connection. An error of `accept` is waited out.
    pub(super) async fn accept(&self) -> Option<Accepted> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok()?;
        let mut pause = PAUSE_MIN;
        loop {
            match self.socket.accept().await {
                Ok((stream, _)) => {
                    // Without it small responses wait for the peer's delayed acknowledgement.
                    let _ = stream.set_nodelay(true);
                    match stream.into_std() {
                        Ok(stream) => return Some(Accepted { stream, slot }),
                        // It has failed already.
                        Err(_) => continue,
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted: if files ran out, raise the limit \
                     of open files (ulimit -n)");
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }
}

const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// As many connections as may be open beside what else needs file descriptors.
fn with_reserve(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let needed = u64::try_from(wanted).unwrap_or(u64::MAX).saturating_add(RESERVED);
    let Some(mut soft) = limit.current else { return wanted };
    if soft < needed {
        let raised = limit.maximum.map_or(needed, |hard| hard.min(needed)).max(soft);
        if setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum }).is_ok() {
            soft = raised;
        }
    }
    let connections = connections(wanted, soft);
    if connections < wanted {
        tracing::warn!(
            connections,
            descriptors = soft,
            "the limit of file descriptors leaves room for fewer connections than `listen.connections_max`; raise it \
             (`ulimit -n`, LimitNOFILE), or lower `connections_max`"
        );
    }
    connections
}

/// How many of the wanted connections fit under a limit of file descriptors.
fn connections(wanted: usize, descriptors: u64) -> usize {
    // Of few descriptors half are left.
    let room = descriptors.saturating_sub(RESERVED.min(descriptors.div_ceil(2)));
    usize::try_from(room).unwrap_or(usize::MAX).clamp(1, wanted.max(1))
}

/// An accepted connection that is not dealt to a thread yet.
pub(super) struct Accepted {
    stream: std::net::TcpStream,
    slot: OwnedSemaphorePermit,
}

impl Accepted {
    /// The connection on the runtime that this is called on.
    pub(super) fn here(self) -> io::Result<Connection> {
        let stream = TcpStream::from_std(self.stream)?;
        Ok(Connection { stream, preface: Some(Preface::new()), _slot: self.slot })
    }
}

/// A connection; gives its slot back when it ends.
pub(super) struct Connection {
    stream: TcpStream,
    /// `None` when it has come.
    preface: Option<Preface>,
    _slot: OwnedSemaphorePermit,
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

    fn new() -> Self {
        Self { came: 0, length: [0; 3], deadline: Box::pin(sleep(PREFACE_WITHIN)) }
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
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(preface) = &mut this.preface else { return Pin::new(&mut this.stream).poll_read(context, buffer) };
        let before = buffer.filled().len();
        match Pin::new(&mut this.stream).poll_read(context, buffer) {
            Poll::Ready(result) => {
                if preface.take(buffer.filled().get(before..).unwrap_or_default()) {
                    this.preface = None;
                }
                Poll::Ready(result)
            }
            Poll::Pending => {
                ready!(preface.deadline.as_mut().poll(context));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_preface_is_there_when_the_settings_are_however_it_is_cut() {
        let whole = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &[0, 0, 6, 4, 0, 0, 0, 0, 0], &[0; 6]].concat();
        for cut in 0..whole.len() {
            let mut preface = Preface::new();
            assert!(!preface.take(&whole[..cut]), "{cut}");
            assert!(preface.take(&whole[cut..]), "{cut}");
        }
    }

    #[test]
    fn connections_leave_descriptors_for_everything_else() {
        let cases = [(1_024, 1_024, 896), (1_024, 1_152, 1_024), (16, 1_024, 16), (1_024, 64, 32), (1_024, 0, 1)];
        for (wanted, descriptors, expected) in cases {
            assert_eq!(connections(wanted, descriptors), expected, "{wanted} of {descriptors}");
        }
    }
}
