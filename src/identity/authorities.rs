//! The authorities of clients, each for as long as it holds. TLS itself does not look at the dates of what it trusts.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{DistinguishedName, RootCertStore};

use super::certificate::{Described, describe, parse};
use super::crypto::provider;

#[derive(Debug, Clone)]
pub(super) struct Authority {
    certificate: CertificateDer<'static>,
    pub(super) described: Described,
    /// Its name, as certificates that it signs spell it.
    name: Vec<u8>,
}

/// All of them, with the revocation lists.
pub(super) struct Authorities {
    all: Vec<Authority>,
    lists: Vec<CertificateRevocationListDer<'static>>,
    /// What verifies now.
    believed: Mutex<Believed>,
}

/// What verifies from one moment to another. Between them no authority begins and none ends.
#[derive(Clone)]
struct Believed {
    /// The first second.
    from: i64,
    /// The first second after.
    until: i64,
    /// `None`: no authority holds.
    chain: Option<Arc<dyn ClientCertVerifier>>,
}

impl Authority {
    /// Reads one. `None`: it cannot be used.
    pub(super) fn read(certificate: CertificateDer<'static>) -> Option<Self> {
        let described = describe(&certificate)?;
        let name = parse(&certificate)?.subject().as_raw().to_vec();
        RootCertStore::empty().add(certificate.clone()).ok()?;
        Some(Self { certificate, described, name })
    }

    /// Whether it holds at a moment, in seconds since the Unix epoch.
    pub(super) fn holds(&self, now: i64) -> bool {
        (self.described.from..=self.described.until).contains(&now)
    }

    /// Whether it has this name.
    pub(super) fn is_named(&self, name: &[u8]) -> bool {
        self.name == name
    }

    /// Its public key: the contents of a SubjectPublicKeyInfo.
    pub(super) fn public_key(&self) -> Option<Vec<u8>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).ok()?;
        roots.roots.first().map(|root| root.subject_public_key_info.as_ref().to_vec())
    }
}

impl Authorities {
    /// What verifies with these authorities and lists, from a moment on.
    ///
    /// # Errors
    /// When nothing can be verified with them, although one of them holds.
    pub(super) fn new(
        all: Vec<Authority>,
        lists: Vec<CertificateRevocationListDer<'static>>,
        now: i64,
    ) -> Result<Self, VerifierBuilderError> {
        let believed = Mutex::new(Believed { from: now, until: now, chain: None });
        let authorities = Self { all, lists, believed };
        let begins = authorities.at(now)?;
        *authorities.believed.lock().unwrap_or_else(PoisonError::into_inner) = begins;
        Ok(authorities)
    }

    /// What verifies at a moment. `None`: no authority holds then.
    pub(super) fn chain(&self, now: i64) -> Option<Arc<dyn ClientCertVerifier>> {
        let mut believed = self.believed.lock().unwrap_or_else(PoisonError::into_inner);
        if !(believed.from..believed.until).contains(&now) {
            // With the same lists it could be built before.
            *believed = self.at(now).unwrap_or(Believed { from: now, until: now, chain: None });
        }
        believed.chain.clone()
    }

    fn at(&self, now: i64) -> Result<Believed, VerifierBuilderError> {
        let moments = self.all.iter().flat_map(|one| [one.described.from, one.described.until.saturating_add(1)]);
        let until = moments.filter(|moment| *moment > now).min().unwrap_or(i64::MAX);
        let mut roots = RootCertStore::empty();
        for authority in self.all.iter().filter(|authority| authority.holds(now)) {
            // It could be added when it was read.
            let _ = roots.add(authority.certificate.clone());
        }
        if roots.is_empty() {
            return Ok(Believed { from: now, until, chain: None });
        }
        let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        if !self.lists.is_empty() {
            verifier = verifier.with_crls(self.lists.iter().cloned()).enforce_revocation_expiration();
        }
        Ok(Believed { from: now, until, chain: Some(verifier.build()?) })
    }

    /// Their names, as clients are told them.
    pub(super) fn hints(&self) -> Vec<DistinguishedName> {
        self.all.iter().map(|authority| DistinguishedName::from(authority.name.clone())).collect()
    }

    /// When the authority of a chain ends, in seconds since the Unix epoch: the last of those that any of its certificates
    /// names as its signer. `None`: none does.
    pub(super) fn end(&self, shown: &[CertificateDer<'_>]) -> Option<i64> {
        let signers = shown.iter().filter_map(|certificate| Some(parse(certificate)?.issuer().as_raw().to_vec()));
        let signers: Vec<Vec<u8>> = signers.collect();
        let named = self.all.iter().filter(|authority| signers.iter().any(|signer| authority.is_named(signer)));
        named.map(|authority| authority.described.until).max()
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({})", self.all.len())
    }
}
