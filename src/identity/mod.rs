//! Who is speaking: certificates of clients, what the gateway shows of itself, and the one type that says whom a
//! connection, or a call with a token, belongs to.
//!
//! [`Identity`] has no constructor outside this module. Whoever has one got it from a handshake or a token that was verified.

use std::fmt;
use std::sync::Arc;

mod acceptor;
mod authorities;
mod certificate;
mod clients;
mod crypto;
mod expiry;
mod lists;
pub mod look;
mod part;
mod pem;
mod scheme;
mod set;
mod tokens;
pub mod trust;

pub use acceptor::{Accepted, Acceptor};
pub use certificate::{Described, describe};
pub use expiry::Expiry;
pub use part::Which;
pub use scheme::{Kind, Scheme, is_identity};
pub use set::{Files, Remark, Set, Severity, TokenFiles};
pub use tokens::Expected;

/// Who has proved to be at the other end of a connection. Only this module makes it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    text: Arc<str>,
    /// When what proves it ends, in seconds since the Unix epoch.
    until: i64,
}

impl Identity {
    /// As it is spelled in policies: `spiffe://corp.example/tills/7`, or a DNS name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The same, shared.
    #[must_use]
    pub fn text(&self) -> Arc<str> {
        Arc::clone(&self.text)
    }

    /// When what proves it ends, in seconds since the Unix epoch.
    #[must_use]
    pub fn until(&self) -> i64 {
        self.until
    }

    /// Somebody who was verified.
    fn proved(text: &str, until: i64) -> Self {
        Self { text: Arc::from(text), until }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.text)
    }
}
