//! `bailiwick health`: asks a gateway how it is, for containers and scripts.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use http::{Request, StatusCode, header};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::app::http::exchange;
use crate::config;
use crate::identity::trust;

use super::{Failure, diagnostics};

/// What to ask, and whom.
pub struct Options {
    /// The configuration whose `[http]` says where the gateway is.
    pub config: PathBuf,
    /// Or its address.
    pub at: Option<String>,
    /// Whether it must be able to take records, too.
    pub ready: bool,
}

/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(5);
/// The longest answer that is read.
const BYTES_MAX: usize = 1 << 20;

/// Asks a gateway for its health. What it said.
///
/// # Errors
/// [`Failure::Found`] when it is not well, another one when it cannot be asked.
pub async fn health(options: Options) -> Result<String, Failure> {
    let (address, is_plaintext) = match options.at {
        Some(at) => (at, true),
        None => of_config(&options.config)?,
    };
    let path = if options.ready { "/readyz" } else { "/healthz" };
    let asked = tokio::time::timeout(WITHIN, ask(&address, is_plaintext, path)).await;
    let asked = asked.unwrap_or_else(|_| Err(anyhow!("no answer within {} s", WITHIN.as_secs())));
    let (code, mut says) = asked.with_context(|| format!("the gateway at {address} does not tell its health"))?;
    if code == StatusCode::OK {
        return Ok(says);
    }
    if is_plaintext
        && let Ok(Ok((StatusCode::OK, status))) = tokio::time::timeout(WITHIN, ask(&address, true, "/status")).await
    {
        says.push_str(&wrong(&status));
    }
    Err(Failure::Found(says))
}

/// Where the gateway of a configuration tells its health, and whether in plain text.
fn of_config(path: &Path) -> Result<(String, bool), Failure> {
    let (http, problems) = config::http(path).map_err(|error| Failure::Other(error.into()))?;
    diagnostics::print(&problems);
    let Some(http) = http else {
        if !problems.is_empty() {
            return Err(Failure::Config);
        }
        let help = "add it (`listen = \"127.0.0.1:7401\"`), or name the address with --at";
        return Err(Failure::Other(anyhow!("{} has no [http]: {help}", path.display())));
    };
    Ok((here(http.listen).to_string(), http.is_plaintext))
}

/// An address of this machine that a listener on `address` is reached at.
fn here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The answer to a request for a path.
async fn ask(address: &str, is_plaintext: bool, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let stream = TcpStream::connect(address).await?;
    let request = Request::get(path).header(header::HOST, address).body(String::new())?;
    if is_plaintext {
        exchange(stream, request, BYTES_MAX).await
    } else {
        exchange(trust::to_own(stream).await?, request, BYTES_MAX).await
    }
}

/// What `/status` says is not well, and what to do.
fn wrong(status: &str) -> String {
    let status: Value = serde_json::from_str(status).unwrap_or_default();
    let mut text = String::new();
    for check in status.get("checks").and_then(Value::as_array).into_iter().flatten() {
        let of = |key: &str| check.get(key).and_then(Value::as_str).unwrap_or_default();
        if of("state") != "well" {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}, {}: {}. To do: {}", of("check"), of("state"), of("says"), of("do"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        let here = |text: &str| here(text.parse().unwrap()).to_string();
        assert_eq!(here("0.0.0.0:7401"), "127.0.0.1:7401");
        assert_eq!(here("[::]:7401"), "[::1]:7401");
        assert_eq!(here("192.0.2.7:1"), "192.0.2.7:1");
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_do() {
        let status = r#"{"checks": [{"check": "a", "state": "well", "says": "x", "do": ""},
            {"check": "journal", "state": "not ready", "says": "the disk is full", "do": "make room"}]}"#;
        assert_eq!(wrong(status), "journal, not ready: the disk is full. To do: make room\n");
        assert_eq!(wrong("no JSON"), "");
    }
}
