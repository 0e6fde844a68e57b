//! What a gateway shows of itself and what it believes of clients: a certificate and its key, authorities, revocation
//! lists. Read together, checked together, used together or not at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, InconsistentKeys, RootCertStore, ServerConfig};
use zeroize::Zeroizing;

use crate::files;

use super::authorities::{Authorities, Authority};
use super::certificate::{Described, describe};
use super::clients::{Clients, HTTP1, HTTP2};
use super::crypto::provider;
use super::expiry::{Expiry, span};
use super::lists::{List, Signed};
use super::part::Which;
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
    /// From when on it is not wrong any more, in seconds since the Unix epoch: a time that has not begun yet. `None`: it
    /// does not pass by itself.
    pub passes_at: Option<i64>,
}

/// A set that can be used.
pub struct Set {
    pub(super) server: Arc<ServerConfig>,
    /// For the port of health and metrics: HTTP/1.1, and a certificate only from who has one.
    pub(super) monitor: Arc<ServerConfig>,
    pub(super) clients: Arc<Clients>,
    pub(super) tokens: Option<Tokens>,
    /// What of it ends; the gateway's certificate is the first.
    ends: Vec<Expiry>,
}

/// The largest file. A bundle of the world's public authorities has a fifth of it.
const BYTES_MAX: u64 = 1 << 20;
/// Collects what is wrong.
struct Remarks<'f> {
    files: &'f Files,
    now: i64,
    found: Vec<Remark>,
    ends: Vec<Expiry>,
}

impl Set {
    /// Reads a set and checks all of it, as of a moment in seconds since the Unix epoch. What is wrong or will be; the set,
    /// if nothing is an error.
    #[must_use]
    pub fn load(files: &Files, now: i64) -> (Option<Self>, Vec<Remark>) {
        let mut remarks = Remarks { files, now, found: Vec::new(), ends: Vec::new() };
        let shown = remarks.certificate();
        let key = remarks.key();
        let shown = shown.zip(key).and_then(|(shown, key)| remarks.matching(shown, key));
        let authorities = remarks.authorities();
        let lists = remarks.lists(authorities.as_deref().unwrap_or_default());
        let tokens = remarks.tokens();
        let parts = shown.zip(authorities).zip(lists);
        let parts = parts.and_then(|((shown, authorities), lists)| remarks.servers(shown, authorities, lists));
        let is_sound = remarks.found.iter().all(|remark| remark.severity == Severity::Warning);
        let Remarks { found, ends, .. } = remarks;
        let set = parts.map(|(server, monitor, clients)| Self { server, monitor, clients, tokens, ends });
        (set.filter(|_| is_sound), found)
    }

    /// What of it ends, and when: the gateway's certificate first, then those between it and the root, the authorities of
    /// clients, the revocation lists.
    #[must_use]
    pub fn ends(&self) -> &[Expiry] {
        &self.ends
    }
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
        self.found.push(Remark { which, severity, message, help: help.into(), passes_at: None });
    }

    fn warn(&mut self, which: Which, message: impl std::fmt::Display, help: impl Into<String>) {
        self.push(which, Severity::Warning, message, help);
    }

    /// An error that passes by itself at a moment.
    fn early(&mut self, which: Which, message: impl std::fmt::Display, passes_at: i64) {
        self.error(which, message, "look at the clock of this machine, and of the one that issued it");
        if let Some(remark) = self.found.last_mut() {
            remark.passes_at = Some(passes_at);
        }
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
                self.found.push(Remark { which, severity: Severity::Error, message, help, passes_at: None });
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
    fn certificate(&mut self) -> Option<Vec<CertificateDer<'static>>> {
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
        for certificate in chain.get(1..).unwrap_or_default() {
            let Some(Described { subject, from, until, .. }) = describe(certificate) else {
                self.error(which, "holds a certificate that cannot be read", "have it issued again");
                return None;
            };
            let what = format!("the certificate of {subject}");
            if (from..=until).contains(&self.now) {
                self.near(which, &what, from, until);
            } else {
                let help =
                    "clients may turn the gateway away for it: have its certificate issued again, with those above it";
                self.warn(which, format!("holds {what}, which does not hold now"), help);
            }
        }
        if described.hosts.is_empty() && described.addresses.is_empty() {
            self.warn(
                which,
                "names no host and no network address",
                "most clients verify the host that they connect to: have the certificate issued with its DNS name",
            );
        }
        self.chain(&chain, &described);
        Some(chain)
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

    /// Reports a certificate of the gateway that does not hold now, or soon will not.
    fn dates(&mut self, which: Which, what: &str, described: &Described) {
        let Described { from, until, .. } = *described;
        let left = until - self.now;
        if left < 0 {
            self.error(which, format!("holds {what}, which ended {} ago", span(-left)), "have a new one issued");
        } else if from > self.now {
            self.early(which, format!("holds {what}, which holds only in {}", span(from - self.now)), from);
        } else {
            self.near(which, what, from, until);
        }
    }

    /// Remembers when something ends that holds now, and reports it if that is soon.
    fn near(&mut self, which: Which, what: &str, from: i64, until: i64) {
        let expiry = Expiry { which, what: what.to_owned(), from, until };
        if expiry.is_near(self.now) {
            let message = format!("holds {what}, which {}", expiry.when(self.now));
            self.warn(which, message, "have a new one issued and put it in place; the gateway reads it");
        }
        self.ends.push(expiry);
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
    fn matching(&mut self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Option<CertifiedKey> {
        match CertifiedKey::from_der(chain, key, &provider()) {
            Ok(certified) => Some(certified),
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

    /// The authorities of clients. One that does not hold now is kept, and believed when it holds; one that has ended is of
    /// no use, which is said.
    fn authorities(&mut self) -> Option<Vec<Authority>> {
        let which = Which::ClientCa;
        let certificates: Vec<CertificateDer<'static>> = self.items(which, "certificate")?;
        let mut authorities = Vec::new();
        for certificate in certificates {
            let Some(authority) = Authority::read(certificate) else {
                self.error(which, "holds a certificate that cannot be read", "remove it, or write it again");
                return None;
            };
            let Described { subject, is_authority, from, until, .. } = &authority.described;
            if !is_authority {
                let message = format!("holds a certificate that may sign no other ({subject})");
                self.error(which, message, "name the authorities that sign the certificates of clients");
                return None;
            }
            let what = format!("the authority {subject}");
            if *until < self.now {
                let message = format!("holds {what}, which ended {} ago: it is left out", span(self.now - until));
                self.warn(which, message, "remove it; whoever has a certificate of it needs a new one");
            } else if *from > self.now {
                let message =
                    format!("holds {what}, which holds only in {}: it is left out until then", span(from - self.now));
                self.warn(which, message, "look at the clock of this machine, and of the one that issued it");
            } else {
                self.near(which, &what, *from, *until);
            }
            authorities.push(authority);
        }
        if !authorities.iter().any(|authority| authority.holds(self.now)) {
            let begins = authorities.iter().map(|authority| authority.described.from).filter(|from| *from > self.now);
            match begins.min() {
                Some(begins) => self.early(which, "holds no authority that holds yet", begins),
                None => self.error(which, "holds no authority that has not ended", "name those that sign now"),
            }
            return None;
        }
        Some(authorities)
    }

    /// The revocation lists, the newest first: of several lists of an issuer, TLS looks at the first.
    fn lists(&mut self, authorities: &[Authority]) -> Option<Vec<CertificateRevocationListDer<'static>>> {
        let mut lists = Vec::new();
        for which in (0..self.files.revocation.len()).map(Which::Revocation) {
            for der in self.items(which, "revocation list (X509 CRL)")? {
                let Some(list) = List::read(der) else {
                    self.error(which, "holds a revocation list that cannot be read", "fetch it again");
                    return None;
                };
                self.list(which, &list, authorities)?;
                lists.push(list);
            }
        }
        if !lists.is_empty() {
            let is_covered = |authority: &&Authority| lists.iter().any(|list| list.issued_by(authority));
            let uncovered = authorities.iter().filter(|authority| authority.holds(self.now) && !is_covered(authority));
            let uncovered: Vec<String> = uncovered.map(|authority| authority.described.subject.clone()).collect();
            for subject in uncovered {
                let message = format!("has no list of the authority {subject}, so every client of it is turned away");
                self.warn(Which::Revocation(0), message, "name the authority's list, too");
            }
        }
        lists.sort_by_key(|list| std::cmp::Reverse(list.made));
        Some(lists.into_iter().map(|list| list.der).collect())
    }

    /// Checks a list. `None`: it cannot be used.
    fn list(&mut self, which: Which, list: &List, authorities: &[Authority]) -> Option<()> {
        let List { issuer, made, next, .. } = list;
        let Some(next) = next.filter(|next| *next >= self.now) else {
            let over = next.map_or("never says when it ends".to_owned(), |next| {
                format!("was to be replaced {} ago", span(self.now - next))
            });
            let message = format!("holds a revocation list of {issuer} that {over}");
            self.error(which, message, "fetch the new list; with an old one every client would be refused");
            return None;
        };
        if *made > self.now {
            let message = format!("holds a revocation list of {issuer} that is made only in {}", span(made - self.now));
            self.early(which, message, *made);
            return None;
        }
        match list.signed(authorities) {
            Signed::Yes => {}
            Signed::No => {
                let message = format!("holds a revocation list of {issuer} whose signature is not that authority's");
                self.error(which, message, "fetch it again, from the authority that `client_ca` holds");
                return None;
            }
            Signed::ByAnother => {
                let message = format!("holds a revocation list of {issuer}, which `client_ca` does not hold");
                let help = "it counts only for an authority in between that clients show; for others, remove it";
                self.warn(which, message, help);
            }
        }
        self.ends.push(Expiry { which, what: format!("the revocation list of {issuer}"), from: *made, until: next });
        Some(())
    }

    /// What checks tokens, if any are taken. What is wrong with the file is said, and makes the whole set unusable.
    fn tokens(&mut self) -> Option<Tokens> {
        let files = self.files.tokens.as_ref()?;
        let bytes = self.read(Which::Jwks)?;
        let read = Tokens::read(&bytes, &files.expected);
        read.map_err(|why| self.error(Which::Jwks, why, "fetch the public keys (JWKS) of the tokens' issuer again"))
            .ok()
    }

    /// What the main port accepts with, and what the port of health and metrics does; and what verifies clients.
    fn servers(
        &mut self,
        shown: CertifiedKey,
        authorities: Vec<Authority>,
        lists: Vec<CertificateRevocationListDer<'static>>,
    ) -> Option<(Arc<ServerConfig>, Arc<ServerConfig>, Arc<Clients>)> {
        let authorities = match Authorities::new(authorities, lists, self.now) {
            Ok(authorities) => Arc::new(authorities),
            Err(error) => {
                self.error(Which::ClientCa, format!("and its lists cannot be used: {error}"), "write them again");
                return None;
            }
        };
        let scheme = &self.files.scheme;
        let clients = |may_be_nobody| Arc::new(Clients::new(Arc::clone(&authorities), scheme.clone(), may_be_nobody));
        // Whoever may only hear a word, whether the gateway is well, has no certificate.
        let (main, monitored) = (clients(self.files.tokens.is_some()), clients(true));
        let shown: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(shown));
        let server = self.server(&shown, Arc::clone(&main), HTTP2)?;
        let monitor = self.server(&shown, monitored, HTTP1)?;
        Some((Arc::new(server), Arc::new(monitor), main))
    }

    fn server(
        &mut self,
        shown: &Arc<dyn ResolvesServerCert>,
        clients: Arc<Clients>,
        protocol: &[u8],
    ) -> Option<ServerConfig> {
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
