//! What a certificate says.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

use crate::domain::connection::Turned;

use super::{Identity, Kind, Scheme};

impl Scheme {
    /// Whose certificate it is. Its signatures are not looked at here.
    ///
    /// # Errors
    /// Why it names nobody.
    pub(super) fn identity(&self, certificate: &CertificateDer<'_>) -> Result<Identity, Turned> {
        let certificate = parse(certificate).ok_or(Turned::BadCertificate)?;
        if certificate.is_ca() {
            return Err(Turned::WrongUsage);
        }
        let signs = certificate.key_usage().map_err(|_| Turned::BadCertificate)?;
        if signs.is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign()) {
            return Err(Turned::WrongUsage);
        }
        let names = names(&certificate, self.kind())?;
        let name = self.name(&names)?;
        Ok(Identity::proved(name, certificate.validity().not_after.timestamp()))
    }
}

impl Scheme {
    /// The name that a certificate holds, for people to look at. It proves nothing.
    ///
    /// # Errors
    /// Why it names nobody.
    pub fn named_by(&self, certificate: &CertificateDer<'_>) -> Result<String, Turned> {
        self.identity(certificate).map(|identity| identity.to_string())
    }
}

/// The whole of a certificate, without anything after it.
pub(super) fn parse<'c>(certificate: &'c CertificateDer<'_>) -> Option<X509Certificate<'c>> {
    X509Certificate::from_der(certificate.as_ref()).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, parsed)| parsed)
}

/// The names of one kind that a certificate holds, as often as it holds them.
fn names<'c>(certificate: &'c X509Certificate<'_>, kind: Kind) -> Result<Vec<&'c str>, Turned> {
    let mut names = Vec::new();
    for extension in certificate.extensions() {
        let ParsedExtension::SubjectAlternativeName(alternatives) = extension.parsed_extension() else { continue };
        for name in &alternatives.general_names {
            match (kind, name) {
                (Kind::Spiffe, GeneralName::URI(name)) | (Kind::Dns, GeneralName::DNSName(name)) => names.push(*name),
                (_, GeneralName::Invalid(..)) => return Err(Turned::BadCertificate),
                _ => {}
            }
        }
    }
    Ok(names)
}

/// What a certificate says, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Whose it is, as the issuer spelled it.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Its URIs.
    pub uris: Vec<String>,
    /// Its DNS names.
    pub hosts: Vec<String>,
    /// Its network addresses.
    pub addresses: Vec<String>,
    /// The first second in which it holds, since the Unix epoch.
    pub from: i64,
    /// The last second in which it holds, since the Unix epoch.
    pub until: i64,
    /// Whether it may sign certificates.
    pub is_authority: bool,
    /// Whether it is for servers, and for clients. Without a word about it, it is for both.
    pub is_for: (bool, bool),
}

/// Reads a certificate. `None`: it is none.
#[must_use]
pub fn describe(certificate: &CertificateDer<'_>) -> Option<Described> {
    let certificate = parse(certificate)?;
    let usage = certificate.extended_key_usage().ok()?;
    let is_for = usage.map_or((true, true), |usage| {
        let usage = usage.value;
        (usage.any || usage.server_auth, usage.any || usage.client_auth)
    });
    let (mut uris, mut hosts, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
    let alternatives = certificate.subject_alternative_name().ok()?;
    for name in alternatives.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::URI(uri) => uris.push((*uri).to_owned()),
            GeneralName::DNSName(host) => hosts.push((*host).to_owned()),
            GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
            _ => {}
        }
    }
    Some(Described {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        uris,
        hosts,
        addresses,
        from: certificate.validity().not_before.timestamp(),
        until: certificate.validity().not_after.timestamp(),
        is_authority: certificate.is_ca(),
        is_for,
    })
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| std::net::Ipv4Addr::from(bytes).to_string());
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| std::net::Ipv6Addr::from(bytes).to_string())).ok()
}
