//! The other side: what `send` and `bench` show of themselves, and what they believe of a gateway.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::files;

use super::certificate::{Described, describe};
use super::clients::{HTTP1, HTTP2};
use super::pem::fault_of;
use super::set::provider;

/// Where what a client needs is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The authorities that sign the certificates of gateways.
    pub ca: PathBuf,
    /// The client's certificate, and its key.
    pub shown: Option<(PathBuf, PathBuf)>,
}

/// The largest file.
const BYTES_MAX: u64 = 1 << 20;

/// What a client's connections are made with: the gateway is verified, and the host that was asked for is in its
/// certificate.
///
/// # Errors
/// When a file cannot be used; which, and why.
pub fn client(files: &Files) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots
            .add(certificate)
            .with_context(|| format!("`{}` holds a certificate that cannot be used", files.ca.display()))?;
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut client = match &files.shown {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let bytes = zeroize::Zeroizing::new(read(key)?);
            let der = PrivateKeyDer::from_pem_slice(&bytes)
                .map_err(|error| anyhow!("`{}` holds no private key in PEM: {}", key.display(), fault_of(&error)))?;
            builder.with_client_auth_cert(chain, der).with_context(|| {
                format!("`{}` and `{}` are no certificate and its key", certificate.display(), key.display())
            })?
        }
    };
    client.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(Arc::new(client))
}

/// Whether a gateway's certificate, which was verified, is that of an identity: its one URI, or one of its DNS names.
#[must_use]
pub fn is_of(shown: &[CertificateDer<'_>], identity: &str) -> bool {
    let Some(Described { uris, hosts, .. }) = shown.first().and_then(describe) else { return false };
    match uris.as_slice() {
        [uri] if uri == identity => true,
        _ => hosts.iter().any(|host| host == identity),
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    Ok(files::read(path, BYTES_MAX)?.0)
}

/// The token of a file.
///
/// # Errors
/// When the file cannot be read, or holds no text.
pub fn token(path: &Path) -> anyhow::Result<String> {
    let bytes = read(path)?;
    let token = std::str::from_utf8(&bytes).unwrap_or_default().trim();
    if token.is_empty() {
        bail!("`{}` holds no token: one line, as the issuer gave it", path.display());
    }
    Ok(token.to_owned())
}

/// The certificates of a PEM file.
///
/// # Errors
/// When there are none.
pub fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let bytes = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let certificates = certificates.map_err(|error| anyhow!("`{}` is no PEM: {}", path.display(), fault_of(&error)))?;
    if certificates.is_empty() {
        bail!("`{}` holds no certificate in PEM (-----BEGIN CERTIFICATE-----)", path.display());
    }
    Ok(certificates)
}

/// The certificates that whoever listens at `HOST:PORT` shows. Nothing is verified, and nothing is said to it.
///
/// # Errors
/// When nobody answers there, or not with TLS.
pub async fn shown_by(address: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let (host, _) = address.rsplit_once(':').context("name a host and a port, as in localhost:7400")?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Looks))
        .with_no_client_auth();
    client.alpn_protocols = vec![HTTP2.to_vec()];
    let looking = async {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        TlsConnector::from(Arc::new(client)).connect(name, stream).await
    };
    let stream = tokio::time::timeout(LOOK_WITHIN, looking).await.context("no answer within 5 s")??;
    let (_, connection) = stream.get_ref();
    Ok(connection.peer_certificates().unwrap_or_default().iter().map(|shown| shown.clone().into_owned()).collect())
}

/// A connection to a gateway on this machine, which is asked whether it is well. What it shows is not verified, so nothing
/// is said to it: without TLS, too, any program of this machine could answer in its place.
///
/// # Errors
/// When it is not on this machine, or does not speak TLS.
pub async fn to_own(stream: TcpStream) -> anyhow::Result<TlsStream<TcpStream>> {
    let (here, there) = (stream.local_addr()?, stream.peer_addr()?);
    if here.ip() != there.ip() {
        bail!("{there} is another machine: ask it with a client that verifies it, such as curl");
    }
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Looks))
        .with_no_client_auth();
    client.alpn_protocols = vec![HTTP1.to_vec()];
    let name = ServerName::from(there.ip());
    Ok(TlsConnector::from(Arc::new(client)).connect(name, stream).await?)
}

/// How long a look may take.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// Takes any certificate, to be looked at and not to be trusted.
#[derive(Debug)]
struct Looks;

impl ServerCertVerifier for Looks {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
