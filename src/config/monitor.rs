//! `[http]`: where the gateway tells how it does.

use std::net::SocketAddr;

use crate::domain::document::{Spot, Table};

use super::tls::{DeclaredListen, DeclaredTls};

const DEFAULT_LISTEN: &str = "127.0.0.1:7401";

/// Where the gateway tells how it does: health and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http {
    /// The address.
    pub listen: SocketAddr,
    /// Whether it speaks plain text, to anybody on this machine. Otherwise TLS, as the main port does.
    pub is_plaintext: bool,
}

/// Reads the table, and whether it goes with the main port.
pub(super) fn read(table: &Table<'_>, main: &DeclaredListen, tls: &DeclaredTls) -> Option<Http> {
    let said = table.get::<Table<'_>>("http")?;
    let (place, said) = (said.place, said.value);
    let plaintext = said.get::<bool>("plaintext");
    let address = match said.get::<String>("listen") {
        Some(text) => {
            let address = text.value.parse().ok();
            if address.is_none() {
                let message = format!("`{}` is not an address such as {DEFAULT_LISTEN}", text.value);
                table.problems().error(&text.place, message);
            }
            address.map(|value| Spot { value, place: text.place })
        }
        None => DEFAULT_LISTEN.parse().ok().map(|value| Spot { value, place: place.clone() }),
    };
    said.done();
    let Spot { value: listen, place: at }: Spot<SocketAddr> = address?;
    let is_loopback = listen.ip().is_loopback();
    let is_plaintext = plaintext.as_ref().map_or(is_loopback, |plaintext| plaintext.value);
    if is_plaintext && !is_loopback {
        table.problems().error_help(
            plaintext.as_ref().map_or(&at, |plaintext| &plaintext.place),
            "[http] speaks plain text on loopback only: metrics are for whom a rule lets read them",
            format!("remove `plaintext`, so that it speaks TLS as the main port does, or listen on {DEFAULT_LISTEN}"),
        );
    }
    if !is_plaintext && !tls.is_declared {
        table.problems().error_help(
            &at,
            "[http] needs [tls] here, and there is none",
            format!("add [tls] (`bailiwick certs` makes certificates to try it), or listen on {DEFAULT_LISTEN}"),
        );
    }
    if listen.port() != 0 && main.address == Some(listen) {
        table.problems().error_help(
            &at,
            format!("[http] and [listen] both name {listen}"),
            "give each a port of its own",
        );
    }
    Some(Http { listen, is_plaintext })
}
