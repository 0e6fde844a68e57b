//! A socket that moves from one thread to another. On its way it belongs to no runtime: else the thread that it comes from
//! would go on hearing of it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

pub(super) enum Socket {
    /// On the thread that serves it.
    Here(TcpStream),
    /// On its way.
    Away(std::net::TcpStream),
    /// It failed on its way.
    Lost,
}

impl Socket {
    /// Takes it off its thread.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        *self = match std::mem::replace(self, Self::Lost) {
            Self::Here(stream) => Self::Away(stream.into_std()?),
            other => other,
        };
        Ok(())
    }

    /// Puts it on the runtime that this is called on.
    pub(super) fn arrive(&mut self) -> io::Result<()> {
        *self = match std::mem::replace(self, Self::Lost) {
            Self::Away(stream) => Self::Here(TcpStream::from_std(stream)?),
            other => other,
        };
        Ok(())
    }

    /// The socket, where it is served.
    pub(super) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Here(stream) => Some(stream),
            _ => None,
        }
    }

    fn served<T>(
        self: Pin<&mut Self>,
        then: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match self.get_mut() {
            Self::Here(stream) => then(Pin::new(stream)),
            _ => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.served(|stream| stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.served(|stream| stream.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.served(|stream| stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.served(|stream| stream.poll_shutdown(context))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.served(|stream| stream.poll_write_vectored(context, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp().is_some_and(TcpStream::is_write_vectored)
    }
}
