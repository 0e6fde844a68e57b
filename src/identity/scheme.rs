//! How a certificate says whose it is: by one SPIFFE URI, or by one DNS name, in one trust domain.

use crate::domain::connection::Turned;

/// Which name of a certificate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The one URI, `spiffe://TRUST-DOMAIN/PATH`.
    Spiffe,
    /// The one DNS name, below the trust domain.
    Dns,
}

impl Kind {
    /// Every choice with its name in the configuration.
    pub const NAMES: [(&'static str, Self); 2] = [("spiffe", Self::Spiffe), ("dns", Self::Dns)];
}

/// How certificates name who they belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheme {
    kind: Kind,
    trust_domain: String,
}

/// The longest SPIFFE ID, and the longest name of a trust domain.
const SPIFFE_BYTES_MAX: usize = 2_048;
const DOMAIN_BYTES_MAX: usize = 255;
const SCHEME: &str = "spiffe://";

impl Scheme {
    /// A scheme, unless no trust domain is spelled like this one.
    #[must_use]
    pub fn new(kind: Kind, trust_domain: &str) -> Option<Self> {
        let is_domain = match kind {
            Kind::Spiffe => is_trust_domain(trust_domain),
            Kind::Dns => is_host(trust_domain),
        };
        is_domain.then(|| Self { kind, trust_domain: trust_domain.to_owned() })
    }

    /// Which name of a certificate counts.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The domain that all identities belong to.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The identity among the names of a certificate.
    pub(super) fn name<'n>(&self, names: &[&'n str]) -> Result<&'n str, Turned> {
        let name = match names {
            [] => return Err(Turned::NoIdentity),
            [name] => *name,
            _ => return Err(Turned::SeveralIdentities),
        };
        let is_of_domain = match self.kind {
            Kind::Spiffe => {
                let (domain, path) = parts(name).ok_or(Turned::MalformedIdentity)?;
                if path.is_empty() {
                    // A trust domain itself: an authority, not somebody.
                    return Err(Turned::MalformedIdentity);
                }
                domain == self.trust_domain
            }
            Kind::Dns => {
                if !is_host(name) {
                    return Err(Turned::MalformedIdentity);
                }
                name.strip_suffix(&self.trust_domain).is_some_and(|rest| rest.ends_with('.'))
            }
        };
        if is_of_domain { Ok(name) } else { Err(Turned::OtherTrustDomain) }
    }
}

/// Whether a text can be the identity of a certificate: a SPIFFE ID, or a DNS name.
#[must_use]
pub fn is_identity(text: &str) -> bool {
    parts(text).is_some_and(|(_, path)| !path.is_empty()) || is_host(text)
}

/// The trust domain and the path of a SPIFFE ID, which may be empty.
fn parts(id: &str) -> Option<(&str, &str)> {
    let rest = id.strip_prefix(SCHEME).filter(|_| id.len() <= SPIFFE_BYTES_MAX)?;
    let (domain, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    let is_segment = |segment: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(is_allowed)
    };
    let is_path = path.is_empty() || path.strip_prefix('/').is_some_and(|path| path.split('/').all(is_segment));
    (is_trust_domain(domain) && is_path).then_some((domain, path))
}

fn is_trust_domain(domain: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    !domain.is_empty() && domain.len() <= DOMAIN_BYTES_MAX && domain.bytes().all(is_allowed)
}

/// A DNS name in small letters, without a wildcard and without a dot at its end.
fn is_host(name: &str) -> bool {
    let is_label = |label: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len())
            && label.bytes().all(is_allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spiffe_id_of_the_trust_domain_is_an_identity() {
        let scheme = Scheme::new(Kind::Spiffe, "corp.example").unwrap();
        for good in ["spiffe://corp.example/tills/7", "spiffe://corp.example/a", "spiffe://corp.example/A_b-c.d/..e"] {
            assert_eq!(scheme.name(&[good]), Ok(good));
        }
        for bad in [
            "",
            "corp.example/tills",
            "https://corp.example/tills",
            "SPIFFE://corp.example/tills",
            "spiffe://corp.example",
            "spiffe://corp.example/",
            "spiffe://corp.example/tills/",
            "spiffe://corp.example//tills",
            "spiffe://corp.example/./tills",
            "spiffe://corp.example/../tills",
            "spiffe://corp.example/*",
            "spiffe://corp.example/tills/%37",
            "spiffe://corp.example/tills?x",
            "spiffe://corp.example/tills#x",
            "spiffe://corp.example:443/tills",
            "spiffe://user@corp.example/tills",
            "spiffe://Corp.example/tills",
            "spiffe:///tills",
            "spiffe://corp.example/t\u{e4}tig",
            "spiffe://corp.example/a\0b",
            &format!("spiffe://corp.example/{}", "a".repeat(2_048)),
        ] {
            assert_eq!(scheme.name(&[bad]), Err(Turned::MalformedIdentity), "{bad}");
        }
        for other in ["spiffe://other.example/tills", "spiffe://sub.corp.example/tills", "spiffe://corp.example.org/a"]
        {
            assert_eq!(scheme.name(&[other]), Err(Turned::OtherTrustDomain), "{other}");
        }
        assert_eq!(scheme.name(&[]), Err(Turned::NoIdentity));
        let same = "spiffe://corp.example/a";
        assert_eq!(scheme.name(&[same, same]), Err(Turned::SeveralIdentities));
    }

    #[test]
    fn one_dns_name_below_the_domain_is_an_identity() {
        let scheme = Scheme::new(Kind::Dns, "corp.example").unwrap();
        assert_eq!(scheme.name(&["till-7.corp.example"]), Ok("till-7.corp.example"));
        for bad in
            ["*.corp.example", "till_.*.corp.example", "Till.corp.example", "till.corp.example.", "", "a..corp.example"]
        {
            assert_eq!(scheme.name(&[bad]), Err(Turned::MalformedIdentity), "{bad}");
        }
        for other in ["corp.example", "xcorp.example", "till.other.example"] {
            assert_eq!(scheme.name(&[other]), Err(Turned::OtherTrustDomain), "{other}");
        }
    }

    #[test]
    fn a_trust_domain_is_spelled_in_small_letters() {
        assert!(Scheme::new(Kind::Spiffe, "Corp").is_none());
        assert!(Scheme::new(Kind::Spiffe, "").is_none());
        assert!(Scheme::new(Kind::Spiffe, "spiffe://corp").is_none());
        assert!(Scheme::new(Kind::Dns, "*.corp.example").is_none());
    }
}
