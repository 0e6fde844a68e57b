//! What a gateway shows of itself and what it believes of clients: a certificate and its key, authorities, revocation
//! lists. Read together, checked together, used together or not at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, InconsistentKeys, RootCertStore, ServerConfig};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};
use zeroize::Zeroizing;

use crate::files;

use super::certificate::{Described, describe};
use super::clients::{Clients, HTTP1, HTTP2};
use super::pem::fault_of;
use super::tokens::Tokens;
use super::{Expected, Scheme};

/// Where the parts of a set are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The gateway's certificate, then those of the authorities between it and the root.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// The authorities that sign the certificates of clients.
    pub client_ca: PathBuf,
    /// The authorities' revocation lists. None: nothing is looked up.
    pub revocation: Vec<PathBuf>,
    /// How certificates of clients name who they belong to.
    pub scheme: Scheme,
    /// How clients without a certificate prove who they are. `None`: every client needs one.
    pub tokens: Option<TokenFiles>,
}

/// Where the keys of tokens are, and what every token must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFiles {
    /// The file of public keys: a JWKS.
    pub jwks: PathBuf,
    /// What every token must be.
    pub expected: Expected,
}

/// A part of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    /// The certificate.
    Certificate,
    /// Its key.
    Key,
    /// The authorities of clients.
    ClientCa,
    /// A revocation list, by its place in the list of files.
    Revocation(usize),
    /// The keys of tokens.
    Jwks,
}

/// Whether a set can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but somebody should look.
    Warning,
}

/// Something that is wrong with a part of a set, or soon will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The part.
    pub which: Which,
    /// Whether the set can be used.
    pub severity: Severity,
    /// What is wrong, with the file's name.
    pub message: String,
    /// What to do.
    pub help: String,
}

/// A set that can be used.
pub struct Set {
    pub(super) server: Arc<ServerConfig>,
    /// For the port of health and metrics: HTTP/1.1, and a certificate only from who has one.
    pub(super) monitor: Arc<ServerConfig>,
    pub(super) scheme: Scheme,
    pub(super) tokens: Option<Tokens>,
    /// The first and the last second in which the gateway's certificate holds, since the Unix epoch.
    holds: (i64, i64),
}

/// The largest file. A bundle of the world's public authorities has a fifth of it.
const BYTES_MAX: u64 = 1 << 20;
/// A day, in seconds.
const DAY: i64 = 86_400;
/// So long before its end a certificate is reported: 30 days, or a third of its life if that is less.
const WARN_BEFORE: i64 = 30 * DAY;

/// Collects what is wrong.
struct Remarks<'f> {
    files: &'f Files,
    now: i64,
    found: Vec<Remark>,
}

impl Set {
    /// Reads a set and checks all of it, as of a moment in seconds since the Unix epoch. What is wrong or will be; the set,
    /// if nothing is an error.
    #[must_use]
    pub fn load(files: &Files, now: i64) -> (Option<Self>, Vec<Remark>) {
        let mut remarks = Remarks { files, now, found: Vec::new() };
        let shown = remarks.certificate();
        let key = remarks.key();
        let shown = shown.zip(key).and_then(|(shown, key)| remarks.matching(shown, key));
        let authorities = remarks.authorities();
        let lists = remarks.lists();
        let tokens = remarks.tokens();
        let set = shown.zip(authorities).zip(lists).and_then(|((shown, authorities), lists)| {
            let (server, monitor) = remarks.servers(shown.0, &Arc::new(authorities), &lists)?;
            Some(Self {
                server: Arc::new(server),
                monitor: Arc::new(monitor),
                scheme: files.scheme.clone(),
                tokens,
                holds: (shown.1.from, shown.1.until),
            })
        });
        let is_sound = remarks.found.iter().all(|remark| remark.severity == Severity::Warning);
        (set.filter(|_| is_sound), remarks.found)
    }

    /// The last second in which the gateway's certificate holds, since the Unix epoch.
    #[must_use]
    pub fn until(&self) -> i64 {
        self.holds.1
    }

    /// The first second in which the gateway's certificate holds, since the Unix epoch.
    #[must_use]
    pub fn from(&self) -> i64 {
        self.holds.0
    }
}

/// The one provider of cryptography.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

impl Files {
    /// The file of a part.
    #[must_use]
    pub fn path(&self, which: Which) -> &Path {
        match which {
            Which::Certificate => &self.certificate,
            Which::Key => &self.key,
            Which::ClientCa => &self.client_ca,
            Which::Revocation(position) => self.revocation.get(position).unwrap_or(&self.client_ca),
            Which::Jwks => self.tokens.as_ref().map_or(&self.client_ca, |tokens| &tokens.jwks),
        }
    }

    /// Every file.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let jwks = self.tokens.as_ref().map(|tokens| &tokens.jwks);
        [&self.certificate, &self.key, &self.client_ca].into_iter().chain(&self.revocation).chain(jwks)
    }
}

impl Remarks<'_> {
    fn push(&mut self, which: Which, severity: Severity, message: impl std::fmt::Display, help: impl Into<String>) {
        let message = format!("`{}` {message}", self.files.path(which).display());
        self.found.push(Remark { which, severity, message, help: help.into() });
    }

    fn error(&mut self, which: Which, message: impl std::fmt::Display, help: impl Into<String>) {
        self.push(which, Severity::Error, message, help);
    }

    fn read(&mut self, which: Which) -> Option<Zeroizing<Vec<u8>>> {
        let path = self.files.path(which);
        let read = match which {
            Which::Key => files::read_secret(path, BYTES_MAX).map(|(bytes, _)| bytes),
            _ => files::read(path, BYTES_MAX).map(|(bytes, _)| Zeroizing::new(bytes)),
        };
        match read {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                let form = if which == Which::Jwks { "JSON" } else { "PEM (-----BEGIN ...)" };
                let help = error.help().unwrap_or_else(|| format!("name a file in {form} that the gateway may read"));
                let message = format!("{:#}", anyhow::Error::from(error));
                self.found.push(Remark { which, severity: Severity::Error, message, help });
                None
            }
        }
    }

    fn items<T: PemObject>(&mut self, which: Which, what: &str) -> Option<Vec<T>> {
        let bytes = self.read(which)?;
        match T::pem_slice_iter(&bytes).collect::<Result<Vec<T>, pem::Error>>() {
            Ok(items) if items.is_empty() => {
                self.error(which, format!("holds no {what}"), format!("a {what} is PEM: -----BEGIN ..."));
                None
            }
            Ok(items) => Some(items),
            Err(error) => {
                let message = format!("is no PEM: {}", fault_of(&error));
                self.error(which, message, format!("write the {what} again, as PEM"));
                None
            }
        }
    }

    /// The gateway's certificate with those above it.
    fn certificate(&mut self) -> Option<(Vec<CertificateDer<'static>>, Described)> {
        let which = Which::Certificate;
        let chain: Vec<CertificateDer<'static>> = self.items(which, "certificate")?;
        let Some(described) = chain.first().and_then(describe) else {
            self.error(which, "holds a certificate that cannot be read", "have it issued again");
            return None;
        };
        if described.is_authority {
            self.error(
                which,
                "begins with the certificate of an authority",
                "the gateway's own certificate stands first, then those that signed it",
            );
            return None;
        }
        if !described.is_for.0 {
            self.error(which, "is not for servers (extended key usage)", "have one issued for serverAuth");
        }
        self.dates(which, "the gateway's certificate", &described);
        if described.hosts.is_empty() && described.addresses.is_empty() {
            self.push(
                which,
                Severity::Warning,
                "names no host and no network address",
                "most clients verify the host that they connect to: have the certificate issued with its DNS name",
            );
        }
        self.chain(&chain, &described);
        Some((chain, described))
    }

    /// Whether each certificate is signed by the one after it.
    fn chain(&mut self, chain: &[CertificateDer<'static>], described: &Described) {
        let [leaf, between @ .., last] = chain else { return };
        let name = described.hosts.iter().chain(&described.addresses).next();
        let Some(name) = name.and_then(|name| ServerName::try_from(name.as_str()).ok()) else { return };
        let mut roots = RootCertStore::empty();
        let verifier = roots.add(last.clone()).ok().and_then(|()| {
            let builder = rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
            builder.build().ok()
        });
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(self.now).unwrap_or(0)));
        let verified = verifier.map(|verifier| {
            use rustls::client::danger::ServerCertVerifier as _;
            verifier.verify_server_cert(leaf, between, &name, &[], now)
        });
        // What is wrong with its dates was said.
        let is_date = |error: &rustls::Error| {
            let rustls::Error::InvalidCertificate(error) = error else { return false };
            matches!(
                error,
                CertificateError::Expired
                    | CertificateError::ExpiredContext { .. }
                    | CertificateError::NotValidYet
                    | CertificateError::NotValidYetContext { .. }
                    | CertificateError::InvalidPurpose
                    | CertificateError::InvalidPurposeContext { .. }
            )
        };
        if !matches!(&verified, Some(Ok(_))) && !matches!(&verified, Some(Err(error)) if is_date(error)) {
            self.error(
                Which::Certificate,
                "holds certificates that do not sign each other",
                "write the gateway's certificate first, then the one that signed it, and so on",
            );
        }
    }

    /// Reports a certificate that does not hold now, or soon will not.
    fn dates(&mut self, which: Which, what: &str, described: &Described) {
        let Described { from, until, .. } = *described;
        let left = until - self.now;
        if left < 0 {
            self.error(which, format!("holds {what}, which ended {}", ago(-left)), "have a new one issued");
        } else if from > self.now {
            let message =
                format!("holds {what}, which holds only in {}", ago(from - self.now).trim_end_matches(" ago"));
            self.error(which, message, "look at the clock of this machine, and of the one that issued it");
        } else if left < WARN_BEFORE.min((until - from) / 3) {
            let message = format!("holds {what}, which ends in {}", ago(left).trim_end_matches(" ago"));
            self.push(
                which,
                Severity::Warning,
                message,
                "have a new one issued and put it in place; the gateway reads it",
            );
        }
    }

    fn key(&mut self) -> Option<PrivateKeyDer<'static>> {
        let which = Which::Key;
        let bytes = self.read(which)?;
        match PrivateKeyDer::from_pem_slice(&bytes) {
            Ok(key) => Some(key),
            Err(pem::Error::NoItemsFound) => {
                let is_locked = bytes.windows(9).any(|part| part == b"ENCRYPTED");
                let help = match is_locked {
                    true => "it is encrypted: write it without a passphrase, for its owner only",
                    false => "a key is PEM: -----BEGIN PRIVATE KEY-----",
                };
                self.error(which, "holds no private key that can be read", help);
                None
            }
            Err(error) => {
                let message = format!("is no PEM: {}", fault_of(&error));
                self.error(which, message, "write the key again, as PEM");
                None
            }
        }
    }

    /// The certificate and its key, if they belong together.
    fn matching(
        &mut self,
        (chain, described): (Vec<CertificateDer<'static>>, Described),
        key: PrivateKeyDer<'static>,
    ) -> Option<(CertifiedKey, Described)> {
        match CertifiedKey::from_der(chain, key, &provider()) {
            Ok(certified) => Some((certified, described)),
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                let certificate = self.files.certificate.display().to_string();
                self.error(
                    Which::Key,
                    format!("is not the key of the certificate in `{certificate}`"),
                    "replace both together, with the pair that was issued",
                );
                None
            }
            Err(error) => {
                let help = "use a key of the kinds ECDSA (P-256, P-384, P-521), Ed25519 or RSA (2048 bits or more)";
                self.error(Which::Key, format!("cannot be used: {error}"), help);
                None
            }
        }
    }

    fn authorities(&mut self) -> Option<RootCertStore> {
        let which = Which::ClientCa;
        let certificates: Vec<CertificateDer<'static>> = self.items(which, "certificate")?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            let described = describe(&certificate);
            let is_added = roots.add(certificate).is_ok();
            let Some(described) = described.filter(|_| is_added) else {
                self.error(which, "holds a certificate that cannot be read", "remove it, or write it again");
                return None;
            };
            if !described.is_authority {
                let message = format!("holds a certificate that may sign no other ({})", described.subject);
                self.error(which, message, "name the authorities that sign the certificates of clients");
                return None;
            }
            self.dates(which, &format!("the authority {}", described.subject), &described);
        }
        Some(roots)
    }

    fn lists(&mut self) -> Option<Vec<CertificateRevocationListDer<'static>>> {
        let mut lists = Vec::new();
        for which in (0..self.files.revocation.len()).map(Which::Revocation) {
            let of_file: Vec<CertificateRevocationListDer<'static>> =
                self.items(which, "revocation list (X509 CRL)")?;
            for list in &of_file {
                let Ok((_, parsed)) = CertificateRevocationList::from_der(list.as_ref()) else {
                    self.error(which, "holds a revocation list that cannot be read", "fetch it again");
                    return None;
                };
                let next = parsed.next_update().map(|next| next.timestamp());
                if next.is_none_or(|next| next < self.now) {
                    let over = next.map_or("never says when it ends".to_owned(), |next| {
                        format!("was to be replaced {}", ago(self.now - next))
                    });
                    let message = format!("holds a revocation list of {} that {over}", parsed.issuer());
                    self.error(which, message, "fetch the new list; with an old one every client would be refused");
                    return None;
                }
            }
            lists.extend(of_file);
        }
        // The first list of an issuer is the one that counts: the newest, however they stand in the files.
        let made = |list: &CertificateRevocationListDer<'_>| {
            let parsed = CertificateRevocationList::from_der(list.as_ref()).ok();
            std::cmp::Reverse(parsed.map(|(_, parsed)| parsed.last_update().timestamp()))
        };
        lists.sort_by_cached_key(made);
        Some(lists)
    }

    /// What checks tokens, if any are taken. What is wrong with the file is said, and makes the whole set unusable.
    fn tokens(&mut self) -> Option<Tokens> {
        let files = self.files.tokens.as_ref()?;
        let bytes = self.read(Which::Jwks)?;
        let read = Tokens::read(&bytes, &files.expected);
        read.map_err(|why| self.error(Which::Jwks, why, "fetch the public keys (JWKS) of the tokens' issuer again"))
            .ok()
    }

    /// What the main port accepts with, and what the port of health and metrics does.
    fn servers(
        &mut self,
        shown: CertifiedKey,
        authorities: &Arc<RootCertStore>,
        lists: &[CertificateRevocationListDer<'static>],
    ) -> Option<(ServerConfig, ServerConfig)> {
        let shown: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(shown));
        let takes_tokens = self.files.tokens.is_some();
        let main = self.server(&shown, (authorities, lists), takes_tokens, HTTP2)?;
        // Whoever may only hear a word, whether the gateway is well, has no certificate.
        let monitor = self.server(&shown, (authorities, lists), true, HTTP1)?;
        Some((main, monitor))
    }

    fn server(
        &mut self,
        shown: &Arc<dyn ResolvesServerCert>,
        (authorities, lists): (&Arc<RootCertStore>, &[CertificateRevocationListDer<'static>]),
        may_be_nobody: bool,
        protocol: &[u8],
    ) -> Option<ServerConfig> {
        let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(authorities), provider());
        if !lists.is_empty() {
            verifier = verifier.with_crls(lists.to_vec()).enforce_revocation_expiration();
        }
        if may_be_nobody {
            verifier = verifier.allow_unauthenticated();
        }
        let chain = match verifier.build() {
            Ok(chain) => chain,
            Err(error) => {
                self.error(Which::ClientCa, format!("and its lists cannot be used: {error}"), "write them again");
                return None;
            }
        };
        let clients = Arc::new(Clients { chain, scheme: self.files.scheme.clone() });
        let server = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let server = server.map_err(|error| self.error(Which::Certificate, error, "this is a fault of the gateway"));
        let mut server = server.ok()?.with_client_cert_verifier(clients).with_cert_resolver(Arc::clone(shown));
        server.alpn_protocols = vec![protocol.to_vec()];
        // A session that is resumed would not be looked up in the lists again.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Some(server)
    }
}

/// A time that has passed, in the unit that fits.
fn ago(seconds: i64) -> String {
    let (count, unit) = match seconds {
        0..120 => (seconds, "seconds"),
        120..7_200 => (seconds / 60, "minutes"),
        7_200..172_800 => (seconds / 3_600, "hours"),
        _ => (seconds / DAY, "days"),
    };
    format!("{count} {unit} ago")
}
