//! Revocation lists: what is looked at when one is read. TLS finds a list by its issuer, and a list that nobody has signed
//! would turn clients away one by one, each with a reason that does not name the list.

use rustls::pki_types::{AlgorithmIdentifier, CertificateRevocationListDer};
use x509_parser::asn1_rs::Any;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use super::authorities::Authority;
use super::set::provider;

/// What a list says of itself.
pub(super) struct List {
    pub(super) der: CertificateRevocationListDer<'static>,
    /// Who issued it, for people.
    pub(super) issuer: String,
    /// Its issuer's name, as certificates spell it.
    name: Vec<u8>,
    /// When it was made, in seconds since the Unix epoch.
    pub(super) made: i64,
    /// When it is to be replaced. `None`: it does not say.
    pub(super) next: Option<i64>,
}

/// Whether a list is its issuer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signed {
    /// One of the authorities has signed it.
    Yes,
    /// An authority has its issuer's name, and has not signed it.
    No,
    /// None has that name.
    ByAnother,
}

impl List {
    /// Reads one. `None`: it cannot be read.
    pub(super) fn read(der: CertificateRevocationListDer<'static>) -> Option<Self> {
        let (issuer, name, made, next) = {
            let (_, parsed) = CertificateRevocationList::from_der(der.as_ref()).ok()?;
            let next = parsed.next_update().map(|next| next.timestamp());
            (parsed.issuer().to_string(), parsed.issuer().as_raw().to_vec(), parsed.last_update().timestamp(), next)
        };
        Some(Self { der, issuer, name, made, next })
    }

    /// Whether one of the authorities has issued it.
    pub(super) fn issued_by(&self, authority: &Authority) -> bool {
        authority.is_named(&self.name)
    }

    /// Whether it is its issuer's.
    pub(super) fn signed(&self, authorities: &[Authority]) -> Signed {
        let mut signed = Signed::ByAnother;
        for authority in authorities.iter().filter(|authority| self.issued_by(authority)) {
            let key = authority.public_key();
            if key.is_some_and(|key| is_signed(self.der.as_ref(), &key).unwrap_or(false)) {
                return Signed::Yes;
            }
            signed = Signed::No;
        }
        signed
    }
}

/// Whether a list was signed with a key, which is the contents of a SubjectPublicKeyInfo. `None`: one of them is not what it
/// should be.
fn is_signed(list: &[u8], key: &[u8]) -> Option<bool> {
    // CertificateList ::= SEQUENCE { tbsCertList SEQUENCE, signatureAlgorithm SEQUENCE, signature BIT STRING }
    let (_, list) = Any::from_der(list).ok()?;
    let (after, _) = Any::from_der(list.data).ok()?;
    let signed = list.data.get(..list.data.len() - after.len())?;
    let (after, algorithm) = Any::from_der(after).ok()?;
    let (_, signature) = Any::from_der(after).ok()?;
    let (after, key_algorithm) = Any::from_der(key).ok()?;
    let (_, key) = Any::from_der(after).ok()?;
    // The first byte of a BIT STRING says how many bits of the last are not used: none here.
    let (signature, key) = (signature.data.strip_prefix(&[0])?, key.data.strip_prefix(&[0])?);
    let is_of = |known: AlgorithmIdentifier, of: &Any<'_>| known.as_ref() == of.data;
    let all = provider().signature_verification_algorithms.all;
    let mut fitting = all.iter().filter(|known| {
        is_of(known.signature_alg_id(), &algorithm) && is_of(known.public_key_alg_id(), &key_algorithm)
    });
    Some(fitting.any(|known| known.verify_signature(key, signed, signature).is_ok()))
}
