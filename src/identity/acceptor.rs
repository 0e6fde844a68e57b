//! The gateway's side of a handshake: whoever comes through it has proved who it is.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use crate::domain::connection::Turned;

use super::clients::{HTTP2, of_certificate};
use super::{Identity, Set};

/// What every connection is accepted by. The set that it works with can be replaced; connections that are open stay.
pub struct Acceptor {
    set: RwLock<Arc<Set>>,
}

/// A connection that came through the handshake.
pub struct Accepted<S> {
    /// What is said on it.
    pub stream: TlsStream<S>,
    /// Who speaks. `None`: its calls have to say so, by a token each.
    pub identity: Option<Identity>,
}

impl Acceptor {
    /// One that begins with a set.
    #[must_use]
    pub fn new(set: Set) -> Self {
        Self { set: RwLock::new(Arc::new(set)) }
    }

    /// The set in force.
    #[must_use]
    pub fn set(&self) -> Arc<Set> {
        Arc::clone(&self.set.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another set in force, for connections that come from now on.
    pub fn replace(&self, set: Set) {
        *self.set.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
    }

    /// Does the handshake. When the client has said hello, and before that costs anything, `turn` is waited for.
    ///
    /// # Errors
    /// Why the client is turned away; `None` when it went by itself.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        turn: impl Future<Output = Result<(), Turned>>,
    ) -> Result<Accepted<S>, Option<Turned>> {
        let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await;
        let hello = hello.map_err(|error| turned(&error))?;
        turn.await.map_err(Some)?;
        let set = self.set();
        let stream = hello.into_stream(Arc::clone(&set.server)).await.map_err(|error| turned(&error))?;
        let (_, connection) = stream.get_ref();
        if connection.alpn_protocol() != Some(HTTP2) {
            return Err(Some(Turned::NoHttp2));
        }
        let identity = set.identity_of(&stream)?;
        if identity.is_none() && set.tokens.is_none() {
            return Err(Some(Turned::NoCertificate));
        }
        Ok(Accepted { stream, identity })
    }

    /// Does the handshake on the port of health and metrics. Who shows no certificate comes in too: a word about health is
    /// for everybody, and more is asked for by a token.
    ///
    /// # Errors
    /// Why the client is turned away; `None` when it went by itself.
    pub async fn accept_to_monitor<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> Result<Accepted<S>, Option<Turned>> {
        let set = self.set();
        let stream =
            TlsAcceptor::from(Arc::clone(&set.monitor)).accept(stream).await.map_err(|error| turned(&error))?;
        let identity = set.identity_of(&stream)?;
        Ok(Accepted { stream, identity })
    }
}

impl Set {
    /// Who the certificate belongs to that was shown in a handshake, if one was.
    fn identity_of<S>(&self, stream: &TlsStream<S>) -> Result<Option<Identity>, Option<Turned>> {
        let (_, connection) = stream.get_ref();
        connection.peer_certificates().map(|shown| self.clients.identity(shown).map_err(Some)).transpose()
    }

    /// Who a token belongs to, as of a moment in seconds since the Unix epoch.
    ///
    /// # Errors
    /// Why it is not to be believed.
    pub fn check_token(&self, token: &str, now: i64) -> Result<Identity, Turned> {
        self.tokens.as_ref().ok_or(Turned::NoCertificate)?.check(token, now)
    }
}

/// Why a handshake failed. `None`: the client went away.
fn turned(error: &io::Error) -> Option<Turned> {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>())?;
    Some(match error {
        rustls::Error::NoCertificatesPresented => Turned::NoCertificate,
        rustls::Error::NoApplicationProtocol => Turned::NoHttp2,
        rustls::Error::AlertReceived(_) => Turned::ByClient,
        rustls::Error::InvalidCertificate(error) => of_certificate(error),
        rustls::Error::PeerIncompatible(_)
        | rustls::Error::InvalidMessage(_)
        | rustls::Error::InappropriateMessage { .. }
        | rustls::Error::InappropriateHandshakeMessage { .. } => Turned::NotTls,
        _ => Turned::BadCertificate,
    })
}
