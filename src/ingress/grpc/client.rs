//! The producer's side of `Ingest`, as `bailiwick send` and `bailiwick bench` use it.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

use crate::identity::trust;
use crate::ingress::proto::ingest::ingest_client::IngestClient;

/// The largest response taken: scores of the largest batch.
const RESPONSE_BYTES_MAX: usize = 64 << 20;

/// How often a gateway is asked whether it is there, and how long it may take to say so. One that is frozen, or a network
/// that swallows everything, ends the connection then.
const ALIVE: Duration = Duration::from_secs(5);

/// Connects to a gateway in plain text.
///
/// # Errors
/// When the endpoint is no URI or nobody answers.
pub async fn connect(endpoint: &str) -> Result<IngestClient<Channel>, Unreached> {
    Dialer::default().connect(endpoint).await
}

/// Why a gateway was not reached.
#[derive(Debug, thiserror::Error)]
pub enum Unreached {
    /// Nobody answers there, or the connection fails.
    #[error("no gateway answers at {0}")]
    Transport(String, #[source] tonic::transport::Error),
    /// It is no address.
    #[error("`{0}` is no address of a gateway: write http://HOST:PORT, or https://HOST:PORT for TLS")]
    NoAddress(String),
    /// It does not say whether the connection is in plain text.
    #[error("`{0}` does not say how to connect: write http://{0} for plain text, or https://{0} for TLS")]
    NoScheme(String),
    /// The gateway speaks TLS, and nothing is given to verify it with.
    #[error("`{0}` speaks TLS: give --ca FILE, the authority that signs the gateway's certificate")]
    NoAuthority(String),
    /// The file of the token cannot be read.
    #[error("{0:#}")]
    Token(anyhow::Error),
    /// The file of the token holds none.
    #[error("`{0}` holds no token: one line, as the issuer gave it")]
    NoToken(String),
    /// A token would be sent to a gateway that nobody has vouched for.
    #[error("the token is not sent to `{0}`: the gateway that names it does not say by which identity to know it")]
    NotVouchedFor(String),
    /// Certificates are given for a connection that shows and verifies none.
    #[error("`{0}` is plain text, on which nobody is verified: write https://, or leave --ca out")]
    PlainText(String),
}

/// Connects to gateways: in plain text, or with what verifies them and proves who connects.
#[derive(Clone, Default)]
pub struct Dialer {
    tls: Option<Arc<ClientConfig>>,
    token: Option<PathBuf>,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls.is_some() { "Dialer(tls)" } else { "Dialer(plain)" })
    }
}

impl Dialer {
    /// One that verifies gateways, and shows them what the configuration holds.
    #[must_use]
    pub fn verifying(tls: Arc<ClientConfig>) -> Self {
        Self { tls: Some(tls), token: None }
    }

    /// The same, with the token of a file on each call. The file is read for each, as it may be replaced.
    #[must_use]
    pub fn with_token(self, file: PathBuf) -> Self {
        Self { token: Some(file), ..self }
    }

    /// A call that says who makes it.
    ///
    /// # Errors
    /// When the file of the token cannot be read, or holds none.
    pub fn call<T>(&self, message: T) -> Result<Request<T>, Unreached> {
        let mut request = Request::new(message);
        let Some(path) = &self.token else { return Ok(request) };
        let token = trust::token(path).map_err(Unreached::Token)?;
        let value = format!("Bearer {token}").parse();
        let value = value.map_err(|_| Unreached::NoToken(path.display().to_string()))?;
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }

    /// Connects to a gateway that the user names.
    ///
    /// # Errors
    /// When the endpoint is no URI, nobody answers, or the gateway is not who it should be.
    pub async fn connect(&self, endpoint: &str) -> Result<IngestClient<Channel>, Unreached> {
        Ok(taking_all(self.channel(endpoint).await?))
    }

    /// Connects to a gateway that another one names: by the identity that it names, beside its host. A token goes there only
    /// if it names one.
    ///
    /// # Errors
    /// When the endpoint is no URI, nobody answers, or the gateway is not who it should be.
    pub async fn follow(&self, endpoint: &str, identity: &str) -> Result<IngestClient<Channel>, Unreached> {
        let identity = (!identity.is_empty()).then(|| identity.to_owned());
        if identity.is_none() && self.token.is_some() {
            return Err(Unreached::NotVouchedFor(endpoint.to_owned()));
        }
        Ok(taking_all(self.reach(endpoint, identity).await?))
    }

    /// A connection to a gateway that the user names.
    ///
    /// # Errors
    /// When the endpoint is no URI, nobody answers, or the gateway is not who it should be.
    pub async fn channel(&self, endpoint: &str) -> Result<Channel, Unreached> {
        self.reach(endpoint, None).await
    }

    async fn reach(&self, endpoint: &str, identity: Option<String>) -> Result<Channel, Unreached> {
        let to = Endpoint::from_shared(endpoint.to_owned()).map_err(|_| Unreached::NoAddress(endpoint.to_owned()))?;
        let failed = |error| Unreached::Transport(endpoint.to_owned(), error);
        let to = to.connect_timeout(Duration::from_secs(5)).tcp_nodelay(true);
        let to = to.http2_keep_alive_interval(ALIVE).keep_alive_timeout(ALIVE).keep_alive_while_idle(true);
        let is_tls = match to.uri().scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) => return Err(Unreached::NoAddress(endpoint.to_owned())),
            None => return Err(Unreached::NoScheme(endpoint.to_owned())),
        };
        match (is_tls, &self.tls) {
            (false, None) if identity.is_none() => to.connect().await.map_err(failed),
            (true, Some(tls)) => {
                let secured = Secured { tls: Arc::clone(tls), identity };
                to.connect_with_connector(secured).await.map_err(failed)
            }
            (true, None) => Err(Unreached::NoAuthority(endpoint.to_owned())),
            (false, _) => Err(Unreached::PlainText(endpoint.to_owned())),
        }
    }
}

/// The largest answer is taken.
fn taking_all(channel: Channel) -> IngestClient<Channel> {
    IngestClient::new(channel).max_decoding_message_size(RESPONSE_BYTES_MAX)
}

/// Opens connections with TLS.
struct Secured {
    tls: Arc<ClientConfig>,
    /// Whose certificate the gateway has to show. `None`: any that holds its host.
    identity: Option<String>,
}

type Opened = Result<TokioIo<TlsStream<TcpStream>>, std::io::Error>;

impl Service<Uri> for Secured {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Opened> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (tls, identity) = (TlsConnector::from(Arc::clone(&self.tls)), self.identity.clone());
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
            let stream = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(host).map_err(std::io::Error::other)?;
            let stream = tls.connect(name, stream).await?;
            // Before anything is said to it.
            let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
            if let Some(identity) = identity.filter(|identity| !trust::is_of(shown, identity)) {
                let error = format!("the gateway at {uri} does not prove to be {identity}, as the redirect names it");
                return Err(std::io::Error::other(error));
            }
            Ok(TokioIo::new(stream))
        })
    }
}
