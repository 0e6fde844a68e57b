//! Whether a client's certificate is to be believed, and why not.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme};

use crate::domain::connection::Turned;

use super::Scheme;

/// HTTP/2, as a handshake names it.
pub(super) const HTTP2: &[u8] = b"h2";
/// HTTP/1.1, as a handshake names it.
pub(super) const HTTP1: &[u8] = b"http/1.1";

/// Verifies the chain as the protocol asks for it, and that the certificate names somebody.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) chain: Arc<dyn ClientCertVerifier>,
    pub(super) scheme: Scheme,
}

/// The certificate names nobody.
#[derive(Debug, thiserror::Error)]
#[error("the certificate names nobody: {}", .0.name())]
struct Nobody(Turned);

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
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
        self.chain.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
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
