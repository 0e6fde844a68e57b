//! `[listen]` and `[tls]`: where the gateway listens, and who is let in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use jiff::SignedDuration;

use crate::domain::document::{Place, Spot, Table};
use crate::identity::{Expected, Files, Kind, Scheme, TokenFiles, Which};

use super::word::word;

const DEFAULT_LISTEN: &str = "127.0.0.1:7400";

#[derive(Default)]
pub(super) struct DeclaredTls {
    /// Whether the table is there, with or without errors in it.
    pub(super) is_declared: bool,
    pub(super) files: Option<Files>,
    /// Where each file is named.
    pub(super) places: BTreeMap<Which, Place>,
    pub(super) limits: Connections,
}

/// What a connection with TLS may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// The most connections of one identity at a time.
    pub per_identity_max: usize,
    /// The most handshakes in progress of one network address.
    pub handshakes_per_address_max: usize,
    /// The most handshakes that one network address may begin in a second.
    pub handshakes_per_second_of_address_max: usize,
    /// The most handshakes that begin in a second.
    pub handshakes_per_second_max: usize,
    /// After about this time a connection is brought to its end.
    pub age_max: Duration,
    /// After about this time without a call a connection is brought to its end.
    pub idle_max: Duration,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            per_identity_max: 64,
            handshakes_per_address_max: 64,
            handshakes_per_second_of_address_max: 100,
            handshakes_per_second_max: 500,
            age_max: AGE_MAX.unsigned_abs(),
            idle_max: IDLE_MAX.unsigned_abs(),
        }
    }
}

const AGE_MAX: SignedDuration = SignedDuration::from_hours(1);
const IDLE_MAX: SignedDuration = SignedDuration::from_mins(15);

pub(super) struct DeclaredListen {
    pub(super) address: Option<SocketAddr>,
    pub(super) connections_max: usize,
}

/// Whom the listener is for, as far as the file says it.
struct Said {
    address: Spot<SocketAddr>,
    plaintext: Option<Spot<bool>>,
    tls: Option<Place>,
}

/// Reads both tables, and whether they go together.
pub(super) fn read(table: &Table<'_>, base: &Path) -> (DeclaredListen, DeclaredTls) {
    let tls = table.get::<Table<'_>>("tls");
    let declared = tls.as_ref().map(|tls| read_tls(&tls.value, base)).unwrap_or_default();
    let tls = tls.map(|tls| tls.place);
    let mut listen = DeclaredListen { address: DEFAULT_LISTEN.parse().ok(), connections_max: 1_024 };
    let (mut plaintext, mut place) = (None, table.place.clone());
    if let Some(said) = table.get::<Table<'_>>("listen") {
        place = said.place;
        let said = said.value;
        listen.connections_max = said.or("connections_max", listen.connections_max);
        plaintext = said.get::<bool>("plaintext");
        if let Some(address) = said.get::<String>("grpc") {
            place = address.place.clone();
            listen.address = address.value.parse().ok();
            if listen.address.is_none() {
                let message = format!("`{}` is not an address such as {DEFAULT_LISTEN}", address.value);
                table.problems().error(&address.place, message);
            }
        }
        said.done();
    }
    if let Some(value) = listen.address {
        check(table, &Said { address: Spot { value, place }, plaintext, tls });
    }
    (listen, declared)
}

/// Plain text is for this machine alone, and never beside TLS.
fn check(table: &Table<'_>, Said { address, plaintext, tls }: &Said) {
    let is_loopback = address.value.ip().is_loopback();
    match (tls, plaintext) {
        (Some(_), Some(plaintext)) if plaintext.value => table.problems().error_help(
            &plaintext.place,
            "`plaintext` and [tls] are both there, and a listener speaks one of them",
            "remove one of the two",
        ),
        (None, _) if !is_loopback => table.problems().error_help(
            &address.place,
            "plain text is spoken on loopback only, because it proves nobody's name",
            format!("add [tls] (`bailiwick certs` makes certificates to try it), or listen on {DEFAULT_LISTEN}"),
        ),
        (None, Some(plaintext)) if !plaintext.value => table.problems().error_help(
            &plaintext.place,
            "`plaintext` is false, and there is no [tls]",
            "add [tls] (`bailiwick certs` makes certificates to try it)",
        ),
        _ => {}
    }
}

fn read_tls(table: &Table<'_>, base: &Path) -> DeclaredTls {
    let mut places = BTreeMap::new();
    let mut file = |which, name: Option<Spot<String>>| {
        let name = name?;
        places.insert(which, name.place);
        Some(base.join(name.value))
    };
    let certificate = file(Which::Certificate, table.need::<String>("certificate"));
    let key = file(Which::Key, table.need::<String>("key"));
    let client_ca = file(Which::ClientCa, table.need::<String>("client_ca"));
    let lists = table.or::<Vec<Spot<String>>>("revocation", Vec::new());
    let lists = lists.into_iter().enumerate();
    let revocation = lists.filter_map(|(position, list)| file(Which::Revocation(position), Some(list))).collect();
    let tokens = table.get::<Table<'_>>("tokens").and_then(|tokens| {
        let tokens = tokens.value;
        let jwks = file(Which::Jwks, tokens.need::<String>("jwks"));
        let [issuer, audience] = ["issuer", "audience"].map(|key| tokens.need::<String>(key).map(|text| text.value));
        let claim = tokens.or("claim", "sub".to_owned());
        tokens.done();
        Some(TokenFiles { jwks: jwks?, expected: Expected { issuer: issuer?, audience: audience?, claim } })
    });
    let scheme = read_scheme(table);
    let default = Connections::default();
    let limits = Connections {
        per_identity_max: table.or("connections_per_identity_max", default.per_identity_max).max(1),
        handshakes_per_address_max: table.or("handshakes_per_address_max", default.handshakes_per_address_max).max(1),
        handshakes_per_second_of_address_max: table
            .or("handshakes_per_second_per_address_max", default.handshakes_per_second_of_address_max)
            .max(1),
        handshakes_per_second_max: table.or("handshakes_per_second_max", default.handshakes_per_second_max).max(1),
        age_max: read_time(table, "connection_age_max", default.age_max),
        idle_max: read_time(table, "connection_idle_max", default.idle_max),
    };
    table.done();
    let files = certificate.zip(key).zip(client_ca).zip(scheme);
    let files = files.map(|(((certificate, key), client_ca), scheme)| Files {
        certificate,
        key,
        client_ca,
        revocation,
        scheme,
        tokens,
    });
    DeclaredTls { is_declared: true, files, places, limits }
}

fn read_time(table: &Table<'_>, key: &str, default: Duration) -> Duration {
    let Some(time) = table.get::<SignedDuration>(key) else { return default };
    if time.value < SignedDuration::from_secs(1) {
        let message = format!("`{key}` is less than a second");
        table.problems().error_help(&time.place, message, "write \"PT15M\", say");
    }
    time.value.unsigned_abs()
}

fn read_scheme(table: &Table<'_>) -> Option<Scheme> {
    let kind = word(table, "identity", &Kind::NAMES).unwrap_or(Kind::Spiffe);
    let domain = table.need::<String>("trust_domain")?;
    let scheme = Scheme::new(kind, &domain.value);
    if scheme.is_none() {
        let message = format!("`{}` is no trust domain", domain.value);
        let help = "write it as in \"corp.example\": small letters, digits, `.`, `-`, `_`, and no scheme before it";
        table.problems().error_help(&domain.place, message, help);
    }
    scheme
}
