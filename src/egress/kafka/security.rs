//! How brokers are spoken to: TLS, and who we say that we are. Secrets are in files alone. A client gets what they hold
//! when it is made; nothing else keeps it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::ClientConfig;
use rdkafka::client::OAuthToken;
use zeroize::Zeroizing;

use crate::clock::wall_clock;
use crate::files::{self, Fingerprint};
use crate::identity::trust;

/// How brokers are spoken to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Security {
    /// Whom to believe, and what to show. `None`: plain text.
    pub tls: Option<trust::Files>,
    /// Who we are. `None`: nobody, or whom the certificate names.
    pub sasl: Option<Sasl>,
    /// Without `tls`, whether a secret may be sent in plain text to brokers on loopback.
    pub may_be_plain: bool,
}

/// Who we are, and how it is proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sasl {
    /// A user with a password.
    Password {
        /// How the password is shown.
        mechanism: Mechanism,
        /// The user.
        user: String,
        /// The file of the password.
        file: PathBuf,
    },
    /// Whoever the token says.
    Token {
        /// The file of the token.
        file: PathBuf,
    },
}

/// A mechanism of SASL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// The password itself.
    Plain,
    /// A proof of the password.
    ScramSha256,
    /// A proof of the password.
    ScramSha512,
    /// A bearer token.
    OauthBearer,
}

impl Mechanism {
    /// Every mechanism with its name, which is that of the protocol too.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("PLAIN", Self::Plain),
        ("SCRAM-SHA-256", Self::ScramSha256),
        ("SCRAM-SHA-512", Self::ScramSha512),
        ("OAUTHBEARER", Self::OauthBearer),
    ];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, mechanism)| *mechanism == self).map_or("", |(name, _)| name)
    }
}

/// A file that a destination names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    /// The authorities of brokers.
    Ca,
    /// Our certificate.
    Certificate,
    /// Its key.
    Key,
    /// The password or the token.
    Secret,
}

/// A file that cannot be used as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}. {help}")]
pub struct Unusable {
    /// Which one.
    pub which: Which,
    /// What is wrong, with the file's name and nothing of its contents.
    pub message: String,
    /// What to do.
    pub help: String,
}

/// The largest file of certificates or of a key, and the largest secret.
const PEM_BYTES_MAX: u64 = 1 << 20;
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// A token is taken from its file again after four fifths of this time, or of what is left of its own.
const TOKEN_FOR_MS: i64 = 15_000;

/// The settings of librdkafka that are ours, by how they begin.
pub(super) const PREFIXES: [&str; 6] = ["security.", "ssl.", "ssl_", "sasl.", "enable.ssl.", "enable.sasl."];

impl Security {
    /// Puts into the settings of a client what it needs, with what the files hold now.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub(super) fn put(&self, config: &mut ClientConfig) -> Result<(), Unusable> {
        config.set("security.protocol", self.protocol());
        if let Some(tls) = &self.tls {
            config.set("enable.ssl.certificate.verification", "true");
            config.set("ssl.endpoint.identification.algorithm", "https");
            config.set("ssl.ca.pem", &*pem(Which::Ca, &tls.ca)?);
            if let Some((certificate, key)) = &tls.shown {
                config.set("ssl.certificate.pem", &*pem(Which::Certificate, certificate)?);
                config.set("ssl.key.pem", &*pem(Which::Key, key)?);
            }
            matching(tls)?;
        }
        match &self.sasl {
            None => {}
            Some(Sasl::Password { mechanism, user, file }) => {
                config.set("sasl.mechanism", mechanism.name());
                config.set("sasl.username", user).set("sasl.password", &*password(file)?);
            }
            Some(Sasl::Token { file }) => {
                // The client asks for it by itself: `Heard`. What is wrong is said now.
                read_token(file)?;
                config.set("sasl.mechanism", Mechanism::OauthBearer.name());
            }
        }
        Ok(())
    }

    /// The file of the certificate that brokers are shown, if there is one.
    #[must_use]
    pub fn certificate(&self) -> Option<&Path> {
        self.tls.as_ref()?.shown.as_ref().map(|(certificate, _)| certificate.as_path())
    }

    fn protocol(&self) -> &'static str {
        match (&self.tls, &self.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        }
    }

    /// Whether a client asks for its token again and again.
    pub(super) fn has_token(&self) -> bool {
        matches!(self.sasl, Some(Sasl::Token { .. }))
    }

    /// The token as it is now.
    ///
    /// # Errors
    /// When there is none that can be shown.
    pub(super) fn token(&self) -> Result<OAuthToken, Unusable> {
        let Some(Sasl::Token { file }) = &self.sasl else { return Err(no_token("no `token_file` is set")) };
        let token = read_token(file)?;
        let (now, end) = (wall_clock().as_millisecond(), token.until_ms.unwrap_or(i64::MAX));
        Ok(OAuthToken {
            token: token.text.to_string(),
            // Nothing is sent of it.
            principal_name: "bailiwick".to_owned(),
            lifetime_ms: end.min(now.saturating_add(TOKEN_FOR_MS)),
        })
    }

    /// The files that a client keeps what they held of. The token is not among them.
    fn kept(&self) -> impl Iterator<Item = &PathBuf> {
        let shown = self.tls.iter().flat_map(|tls| &tls.shown).flat_map(|(certificate, key)| [certificate, key]);
        let password = self.sasl.iter().filter_map(|sasl| match sasl {
            Sasl::Password { file, .. } => Some(file),
            Sasl::Token { .. } => None,
        });
        self.tls.iter().map(|tls| &tls.ca).chain(shown).chain(password)
    }

    fn prints(&self) -> Vec<Option<Fingerprint>> {
        self.kept().map(|path| Fingerprint::of(path).ok()).collect()
    }
}

fn unusable(which: Which, message: String, help: &str) -> Unusable {
    Unusable { which, message, help: help.to_owned() }
}

fn failed(which: Which, error: files::Error, help: &str) -> Unusable {
    let help = error.help().unwrap_or_else(|| help.to_owned());
    Unusable { which, message: format!("{:#}", anyhow::Error::from(error)), help }
}

fn text(which: Which, bytes: Zeroizing<Vec<u8>>, path: &Path) -> Result<Zeroizing<String>, Unusable> {
    match std::str::from_utf8(&bytes) {
        Ok(text) if !text.contains('\0') => Ok(Zeroizing::new(text.to_owned())),
        _ => Err(unusable(which, format!("`{}` holds no text", path.display()), "Write it again, as text")),
    }
}

fn pem(which: Which, path: &Path) -> Result<Zeroizing<String>, Unusable> {
    let read = match which {
        Which::Key => files::read_secret(path, PEM_BYTES_MAX).map(|(bytes, _)| bytes),
        _ => files::read(path, PEM_BYTES_MAX).map(|(bytes, _)| Zeroizing::new(bytes)),
    };
    let bytes = read.map_err(|error| failed(which, error, "Name a file in PEM that the gateway may read"))?;
    text(which, bytes, path)
}

/// Looks at the certificates and the key as something else than OpenSSL, which says little of what is wrong.
fn matching(tls: &trust::Files) -> Result<(), Unusable> {
    let Err(error) = trust::client(tls) else { return Ok(()) };
    let message = format!("{error:#}");
    let named = |path: &Path| message.contains(&format!("`{}`", path.display()));
    let which = match &tls.shown {
        _ if named(&tls.ca) => Which::Ca,
        Some((_, key)) if named(key) => Which::Key,
        _ => Which::Certificate,
    };
    Err(unusable(which, message, "Write it again in PEM, the key without a passphrase"))
}

fn password(path: &Path) -> Result<Zeroizing<String>, Unusable> {
    let which = Which::Secret;
    let help = "Name a file that the gateway may read, with the password in one line";
    let bytes = files::read_secret(path, SECRET_BYTES_MAX).map_err(|error| failed(which, error, help))?.0;
    let text = text(which, bytes, path)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.contains(['\n', '\r']) {
        let message = format!("`{}` does not hold one line of text, as a password does", path.display());
        return Err(unusable(which, message, "Write the password alone"));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// A token of a file.
struct Token {
    text: Zeroizing<String>,
    /// When it ends, if it says so, in milliseconds since the Unix epoch.
    until_ms: Option<i64>,
}

fn no_token(message: &str) -> Unusable {
    unusable(Which::Secret, message.to_owned(), "Write the token to the file as its issuer gave it, in one line")
}

fn read_token(path: &Path) -> Result<Token, Unusable> {
    let help = "Name a file that the gateway may read, with the token in one line";
    let bytes = files::read_secret(path, SECRET_BYTES_MAX).map_err(|error| failed(Which::Secret, error, help))?.0;
    let text = text(Which::Secret, bytes, path)?;
    let token = text.trim();
    // librdkafka shows a token with other bytes in what it says of it.
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(no_token(&format!("`{}` holds no token", path.display())));
    }
    let until = end_of(token);
    if until.is_some_and(|until| until <= wall_clock().as_second()) {
        let message = format!("the token in `{}` has ended", path.display());
        return Err(unusable(Which::Secret, message, "Put a new one in its place; it is read again"));
    }
    Ok(Token { text: Zeroizing::new(token.to_owned()), until_ms: until.map(|until| until.saturating_mul(1_000)) })
}

/// When a JWT says that it ends, in seconds since the Unix epoch. Nothing else of it is looked at: the broker does that.
fn end_of(token: &str) -> Option<i64> {
    #[derive(serde::Deserialize)]
    struct Claims {
        exp: f64,
    }
    let claims = token.split('.').nth(1)?;
    let claims = Zeroizing::new(URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?);
    serde_json::from_slice::<Claims>(&claims).ok().map(|claims| claims.exp as i64)
}

/// How often it is looked whether files were replaced.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Notices that files were replaced, so that clients are to be made anew.
#[derive(Default)]
pub(super) struct Replaced(RefCell<Seen>);

#[derive(Default)]
struct Seen {
    /// As they were before clients were made of them.
    used: Vec<Option<Fingerprint>>,
    /// As they were when they could not be used.
    failed: Option<Vec<Option<Fingerprint>>>,
    looked: Option<Duration>,
    is_due: bool,
}

impl Replaced {
    /// Clients are about to be made.
    pub(super) fn begin(&self, security: &Security) {
        *self.0.borrow_mut() = Seen { used: security.prints(), ..Seen::default() };
    }

    /// Whether files were replaced by others that can be used. With bad ones the clients that there are go on.
    pub(super) fn is_due(&self, security: &Security, now: Duration) -> bool {
        let mut seen = self.0.borrow_mut();
        if seen.is_due || seen.used.is_empty() {
            return seen.is_due;
        }
        if seen.looked.is_some_and(|looked| now.saturating_sub(looked) < LOOK_EVERY) {
            return false;
        }
        seen.looked = Some(now);
        let prints = security.prints();
        if prints == seen.used || Some(&prints) == seen.failed.as_ref() {
            return false;
        }
        match security.put(&mut ClientConfig::new()) {
            Ok(()) => seen.is_due = true,
            Err(unusable) => {
                tracing::error!(
                    error = %unusable,
                    "files of a Kafka destination's [tls] or [sasl] were replaced and cannot be used; what was read \
                     before stays until the connection ends"
                );
                seen.failed = Some(prints);
            }
        }
        seen.is_due
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use tempfile::TempDir;

    use super::*;

    fn secret(directory: &TempDir, text: impl AsRef<[u8]>) -> PathBuf {
        let (new, path) = (directory.path().join("new"), directory.path().join("secret"));
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&new, &path).unwrap();
        path
    }

    fn jwt(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_password_is_one_line() {
        let directory = TempDir::new().unwrap();
        for (held, read) in [("word", "word"), ("two words \n", "two words "), ("word\r\n", "word"), ("é", "é")] {
            assert_eq!(password(&secret(&directory, held)).unwrap().as_str(), read);
        }
        for held in ["", "\n", "hunter2\nhunter2", "hunter2\0", "hunter2\n\n"] {
            let error = password(&secret(&directory, held)).unwrap_err().to_string();
            assert!(error.contains("secret`") && !error.contains("hunter"), "{error}");
        }
        let error = password(&secret(&directory, [0xff, 0xfe])).unwrap_err();
        assert_eq!(error.which, Which::Secret);
        let path = secret(&directory, "hunter2");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        let error = password(&path).unwrap_err().to_string();
        assert!(error.contains("0604") && error.contains("chmod 600") && !error.contains("hunter"), "{error}");
    }

    #[test]
    fn a_token_is_shown_until_it_ends() {
        let directory = TempDir::new().unwrap();
        let security = |held: &str| {
            let file = secret(&directory, held);
            Security { sasl: Some(Sasl::Token { file }), ..Security::default() }.token()
        };
        let now = wall_clock().as_millisecond();
        let soon = now / 1_000 + 12;
        assert_eq!(security(&jwt(&format!("{{\"exp\":{soon}}}"))).unwrap().lifetime_ms, soon * 1_000);
        for long in [jwt("{\"exp\":99999999999}"), jwt("{}"), "opaque".to_owned(), jwt("{\"exp\":\"x\"}")] {
            let token = security(&format!("{long}\n")).unwrap();
            assert_eq!(token.token, long);
            let most = wall_clock().as_millisecond() + TOKEN_FOR_MS;
            assert!((now..=most).contains(&token.lifetime_ms), "{}", token.lifetime_ms);
        }
        let ended = jwt(&format!("{{\"exp\":{}.5}}", now / 1_000 - 5));
        for wrong in [ended.as_str(), "", "two words", "tok\u{e9}n"] {
            let error = security(wrong).err().unwrap().to_string();
            assert!(error.contains("secret`"), "{error}");
            assert!(wrong.is_empty() || !error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn files_that_are_replaced_are_due_once_they_can_be_used() {
        let directory = TempDir::new().unwrap();
        let file = secret(&directory, "one");
        let sasl = Sasl::Password { mechanism: Mechanism::Plain, user: "a".to_owned(), file };
        let security = Security { sasl: Some(sasl), ..Security::default() };
        let (replaced, second) = (Replaced::default(), Duration::from_secs);
        assert!(!replaced.is_due(&security, second(1)), "nothing was made of them");
        replaced.begin(&security);
        assert!(!replaced.is_due(&security, second(2)));
        secret(&directory, "");
        assert!(!replaced.is_due(&security, second(4)), "an empty one is no better");
        secret(&directory, "two");
        assert!(!replaced.is_due(&security, second(4)), "it is not looked at all the time");
        assert!(replaced.is_due(&security, second(6)));
        assert!(replaced.is_due(&security, second(6)), "until clients are made of it");
        replaced.begin(&security);
        assert!(!replaced.is_due(&security, second(8)));
    }

    #[test]
    fn what_is_put_into_settings_verifies_the_broker_and_its_name() {
        let directory = TempDir::new().unwrap();
        let mut config = ClientConfig::new();
        Security::default().put(&mut config).unwrap();
        assert_eq!(config.get("security.protocol"), Some("plaintext"));
        let issued = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let ca = directory.path().join("ca.pem");
        fs::write(&ca, issued.cert.pem()).unwrap();
        let file = secret(&directory, "hunter2\n");
        let sasl = Sasl::Password { mechanism: Mechanism::ScramSha512, user: "a".to_owned(), file };
        let tls = Some(trust::Files { ca: ca.clone(), shown: None });
        let security = Security { tls, sasl: Some(sasl), may_be_plain: false };
        security.put(&mut config).unwrap();
        for (name, value) in [
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", "a"),
            ("sasl.password", "hunter2"),
            ("enable.ssl.certificate.verification", "true"),
            ("ssl.endpoint.identification.algorithm", "https"),
        ] {
            assert_eq!(config.get(name), Some(value), "{name}");
        }
        assert!(!format!("{security:?}").contains("hunter2"));
        fs::write(&ca, "nothing").unwrap();
        assert_eq!(security.put(&mut config).unwrap_err().which, Which::Ca);
    }
}
