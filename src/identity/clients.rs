//! Whether a client's certificate is to be believed, and why not.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme};

use crate::domain::connection::Turned;

use super::authorities::Authorities;
use super::set::provider;
use super::{Identity, Scheme};

/// HTTP/2, as a handshake names it.
pub(super) const HTTP2: &[u8] = b"h2";
/// HTTP/1.1, as a handshake names it.
pub(super) const HTTP1: &[u8] = b"http/1.1";

/// Verifies the chain as the protocol asks for it, by the authorities that hold now, and that the certificate names
/// somebody.
#[derive(Debug)]
pub(super) struct Clients {
    authorities: Arc<Authorities>,
    /// Whether clients may come without a certificate.
    may_be_nobody: bool,
    scheme: Scheme,
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Clients {
    /// What verifies by these authorities.
    pub(super) fn new(authorities: Arc<Authorities>, scheme: Scheme, may_be_nobody: bool) -> Self {
        let hints = authorities.hints();
        Self { authorities, may_be_nobody, scheme, hints, algorithms: provider().signature_verification_algorithms }
    }

    /// Who shows a chain that was verified. It is believed until the certificate ends, or the authority that signed it.
    ///
    /// # Errors
    /// Why it names nobody.
    pub(super) fn identity(&self, shown: &[CertificateDer<'_>]) -> Result<Identity, Turned> {
        let identity = self.scheme.identity(shown.first().ok_or(Turned::NoCertificate)?)?;
        let end = self.authorities.end(shown).unwrap_or(i64::MAX);
        Ok(Identity { until: identity.until.min(end), ..identity })
    }
}

/// The certificate names nobody.
#[derive(Debug, thiserror::Error)]
#[error("the certificate names nobody: {}", .0.name())]
struct Nobody(Turned);

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        !self.may_be_nobody
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let now_seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let chain = self.authorities.chain(now_seconds).ok_or(CertificateError::UnknownIssuer)?;
        let verified = chain.verify_client_cert(end_entity, intermediates, now)?;
        match self.scheme.identity(end_entity) {
            Ok(_) => Ok(verified),
            Err(turned) => Err(CertificateError::Other(OtherError(Arc::new(Nobody(turned)))).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Why a certificate is not believed.
pub(super) fn of_certificate(error: &CertificateError) -> Turned {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Turned::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Turned::NotYetValid,
        CertificateError::Revoked => Turned::Revoked,
        CertificateError::UnknownIssuer => Turned::UnknownAuthority,
        CertificateError::UnknownRevocationStatus
        | CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => Turned::RevocationUnknown,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Turned::WrongUsage,
        CertificateError::Other(OtherError(other)) => {
            other.downcast_ref::<Nobody>().map_or(Turned::BadCertificate, |Nobody(turned)| *turned)
        }
        _ => Turned::BadCertificate,
    }
}
