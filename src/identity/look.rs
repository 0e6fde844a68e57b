//! Why a server cannot be spoken to over TLS, found out by a connection of our own. A library that made the first one may
//! say the same sentence for every cause.

use std::fmt;
use std::io::{self, Read as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConnection, Stream};

use super::certificate::{Described, describe};
use super::expiry::Expiry;
use super::part::Which;
use super::trust::{self, Files};

/// How long connecting, and each read and write, may take.
const WITHIN: Duration = Duration::from_secs(2);
/// With TLS 1.3 a server says only after the handshake what it thinks of the client's certificate.
const AFTERWARDS: Duration = Duration::from_millis(500);

/// Why a server cannot be spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A file of ours cannot be used, and why.
    Files(String),
    /// Nobody can be connected to, and what the system says.
    Unreachable(String),
    /// What answers does not speak TLS.
    NoTls,
    /// No authority that we believe has signed its certificate.
    UnknownAuthority,
    /// Its certificate is for other hosts.
    OtherHost {
        /// The host that was asked for.
        asked: String,
        /// Those that the certificate is for.
        presented: Vec<String>,
    },
    /// Its certificate has ended.
    Ended,
    /// Its certificate does not hold yet.
    NotYet,
    /// It wants a certificate of ours, and there is none.
    WantsCertificate,
    /// It does not take our certificate, which ended at this time; `None`: which is in date.
    RefusesCertificate(Option<String>),
    /// Something else, as the library says it.
    Other(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(why) => f.write_str(why),
            Self::Unreachable(why) => write!(f, "cannot be connected to: {why}"),
            Self::NoTls => f.write_str("does not speak TLS on this port"),
            Self::UnknownAuthority => f.write_str("shows a certificate that no authority in `ca` has signed"),
            Self::OtherHost { asked, presented } => {
                write!(f, "shows a certificate that is not for `{asked}`, but for {}", presented.join(", "))
            }
            Self::Ended => f.write_str("shows a certificate that has ended"),
            Self::NotYet => f.write_str("shows a certificate that does not hold yet"),
            Self::WantsCertificate => f.write_str("wants a certificate of ours"),
            Self::RefusesCertificate(None) => f.write_str("does not take our certificate"),
            Self::RefusesCertificate(Some(until)) => {
                write!(f, "does not take our certificate, which ended at {until}")
            }
            Self::Other(said) => write!(f, "cannot be spoken to over TLS: {said}"),
        }
    }
}

impl Fault {
    /// What to do.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::Files(_) => "Correct the file; it is read again",
            Self::Unreachable(_) => "Look at the address and the network",
            Self::NoTls => "Name the port that speaks TLS, or remove [tls]",
            Self::UnknownAuthority => "Add the authority that signed it to the file of `ca`",
            Self::OtherHost { .. } => {
                "Use a name that it is for, here and where the server names itself, or have a certificate issued for \
                 this name"
            }
            Self::Ended => "Have a new one issued for the server",
            Self::NotYet => "Look at the clocks of this machine and of the one that issued it",
            Self::WantsCertificate => "Add `certificate` and `key` to [tls]",
            Self::RefusesCertificate(None) => {
                "Have it issued by an authority that the server believes, for clients (clientAuth)"
            }
            Self::RefusesCertificate(Some(_)) => "Put a new one in its place",
            Self::Other(_) => "Look at what the server logs",
        }
    }
}

/// Connects to a server and says what is wrong, as of a moment in seconds since the Unix epoch. `None`: nothing that
/// shows in a handshake. It may take several seconds.
#[must_use]
pub fn look(host: &str, port: u16, files: &Files, now: i64) -> Option<Fault> {
    let client = match trust::client(files) {
        Ok(client) => client,
        Err(error) => return Some(Fault::Files(format!("{error:#}"))),
    };
    let mut client = Arc::unwrap_or_clone(client);
    client.alpn_protocols.clear();
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let connection = ClientConnection::new(Arc::new(client), name).ok()?;
    match handshake(host, port, connection) {
        Ok(()) => None,
        Err(Failed::Before(error)) => Some(before(&error, host, files, now)),
        // A server that ends the connection here, whatever it says, has looked at what we showed.
        Err(Failed::After) => Some(refused(files, now)),
    }
}

/// When a connection failed.
enum Failed {
    /// In the handshake.
    Before(io::Error),
    /// Right after it.
    After,
}

fn handshake(host: &str, port: u16, mut connection: ClientConnection) -> Result<(), Failed> {
    let mut stream = connect(host, port).map_err(Failed::Before)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).map_err(Failed::Before)?;
    }
    stream.set_read_timeout(Some(AFTERWARDS)).map_err(Failed::Before)?;
    match Stream::new(&mut connection, &mut stream).read(&mut [0]) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Err(Failed::After)
        }
        Ok(0) => Err(Failed::After),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, WITHIN) {
            Ok(stream) => {
                stream.set_read_timeout(Some(WITHIN))?;
                stream.set_write_timeout(Some(WITHIN))?;
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn before(error: &io::Error, host: &str, files: &Files, now: i64) -> Fault {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Fault::NoTls,
            _ => Fault::Unreachable(error.to_string()),
        };
    };
    match tls {
        rustls::Error::InvalidMessage(_) => Fault::NoTls,
        rustls::Error::AlertReceived(_) => refused(files, now),
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::UnknownIssuer => Fault::UnknownAuthority,
            CertificateError::NotValidForName => Fault::OtherHost { asked: host.to_owned(), presented: Vec::new() },
            CertificateError::NotValidForNameContext { presented, .. } => {
                Fault::OtherHost { asked: host.to_owned(), presented: presented.clone() }
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Fault::Ended,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Fault::NotYet,
            other => Fault::Other(other.to_string()),
        },
        other => Fault::Other(other.to_string()),
    }
}

/// The server ended it, for what we showed or did not show.
fn refused(files: &Files, now: i64) -> Fault {
    let Some((certificate, _)) = &files.shown else { return Fault::WantsCertificate };
    Fault::RefusesCertificate(ended(certificate, now))
}

/// When the first certificate of a file ends, if it can be read. `what` is what it is, for people.
#[must_use]
pub fn end(certificate: &Path, what: &str) -> Option<Expiry> {
    let Described { from, until, .. } = describe(trust::certificates(certificate).ok()?.first()?)?;
    Some(Expiry { which: Which::Certificate, what: what.to_owned(), from, until })
}

/// When the first certificate of a file ended, if it did.
#[must_use]
pub fn ended(certificate: &Path, now: i64) -> Option<String> {
    let until = end(certificate, "").filter(|end| end.left(now) < 0)?.until;
    Some(Timestamp::from_second(until).map(|until| until.to_string()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_said_with_what_to_do() {
        let faults = [
            Fault::Files("`a` is no PEM".into()),
            Fault::Unreachable("refused".into()),
            Fault::NoTls,
            Fault::UnknownAuthority,
            Fault::OtherHost { asked: "a".into(), presented: vec!["b".into(), "c".into()] },
            Fault::Ended,
            Fault::NotYet,
            Fault::WantsCertificate,
            Fault::RefusesCertificate(None),
            Fault::RefusesCertificate(Some("2026-01-01T00:00:00Z".into())),
            Fault::Other("odd".into()),
        ];
        let said: std::collections::BTreeSet<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), faults.len());
        assert!(faults.iter().all(|fault| !fault.help().is_empty()));
        assert!(said.contains("shows a certificate that is not for `a`, but for b, c"), "{said:?}");
    }
}
