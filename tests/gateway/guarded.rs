//! A broker that asks who speaks: with TLS, with certificates of clients, with users and their passwords or tokens.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, Weak};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, SanType};
use serde_json::json;

use crate::common;
use crate::common::certs::{Authority, Issued, moment, only_for_owner};
use crate::common::folder::Folder;
use crate::common::records::now;

use super::broker::Broker;

/// The password of everybody, at first.
pub(crate) const PASSWORD: &str = "correct-horse-battery";
/// The users of SCRAM: one whose password stays, and one whose password changes.
const USERS: [&str; 2] = ["alice", "bob"];

/// A broker, and what it takes to be let in.
pub(crate) struct Guarded {
    pub(crate) broker: Broker,
    /// Who signed its certificates and takes part in deciding whose clients are let in.
    pub(crate) authority: Authority,
    ports: Vec<(&'static str, u16)>,
    /// Its certificates.
    _files: Folder,
}

/// Its listeners with their protocols.
const LISTENERS: [(&str, &str); 7] = [
    ("PLAINTEXT", "PLAINTEXT"),
    ("TLS", "SSL"),
    ("MUTUAL", "SSL"),
    ("ELSEWHERE", "SSL"),
    ("ENDED", "SSL"),
    ("USERS", "SASL_SSL"),
    ("OPEN", "SASL_PLAINTEXT"),
];

impl Guarded {
    /// One that tests which run at the same time share. `None`, loudly, when there is no Kafka.
    pub(crate) fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Guarded>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap();
        if let Some(running) = shared.upgrade() {
            return Some(running);
        }
        let broker = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&broker);
        Some(broker)
    }

    fn start() -> Option<Self> {
        let (files, authority) = (Folder::new(), Authority::new("brokers"));
        let put = |name: &str, issued: &Issued| {
            files.write(name, format!("{}{}", issued.key, issued.certificate));
            files.path(name)
        };
        let sound = put("broker.pem", &authority.gateway(|_| {}));
        let elsewhere = put(
            "elsewhere.pem",
            &authority.gateway(|certificate| {
                certificate.subject_alt_names = vec![SanType::DnsName("kafka.example".try_into().unwrap())];
            }),
        );
        let ended = put(
            "ended.pem",
            &authority.gateway(|certificate| {
                (certificate.not_before, certificate.not_after) = (moment(-7_200), moment(-3_600));
            }),
        );
        files.write("ca.pem", authority.pem());
        let ports: Vec<u16> = (0..=LISTENERS.len()).map(|_| common::free_port()).collect();
        let named: Vec<(&str, u16)> = LISTENERS.iter().zip(&ports).map(|((name, _), port)| (*name, *port)).collect();
        let mut properties = properties(&named, ports[LISTENERS.len()]);
        for (listener, keystore) in
            [("tls", &sound), ("mutual", &sound), ("users", &sound), ("elsewhere", &elsewhere), ("ended", &ended)]
        {
            let of = |name: &str, value: &str| format!("listener.name.{listener}.ssl.{name}={value}");
            properties.extend([
                of("keystore.type", "PEM"),
                of("keystore.location", &keystore.display().to_string()),
                of("truststore.type", "PEM"),
                of("truststore.location", &files.path("ca.pem").display().to_string()),
            ]);
        }
        let broker = Broker::own(properties)?;
        let guarded = Self { broker, authority, ports: named, _files: files };
        USERS.iter().for_each(|user| guarded.set_password(user, PASSWORD));
        Some(guarded)
    }

    /// The address of a listener.
    pub(crate) fn at(&self, listener: &str) -> String {
        let (_, port) = self.ports.iter().find(|(name, _)| *name == listener).unwrap();
        format!("127.0.0.1:{port}")
    }

    /// Changes a user's password for SCRAM.
    pub(crate) fn set_password(&self, user: &str, password: &str) {
        let output = Command::new(common::python())
            .arg(common::root().join("tests/python/scram.py"))
            .args([&self.broker.address, user, password])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// A certificate of a client, as an authority issues it, then changed.
    pub(crate) fn client(authority: &Authority, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        authority.client("spiffe://corp.example/gateways/1", change)
    }
}

/// The properties of the broker's listeners but for their certificates.
fn properties(ports: &[(&str, u16)], controller: u16) -> Vec<String> {
    let urls: Vec<String> = ports.iter().map(|(name, port)| format!("{name}://127.0.0.1:{port}")).collect();
    let protocols: Vec<String> = LISTENERS.iter().map(|(name, protocol)| format!("{name}:{protocol}")).collect();
    let module = "org.apache.kafka.common.security";
    let user = format!("user_alice=\"{PASSWORD}\"");
    vec![
        ports[0].1.to_string(),
        format!("advertised.listeners={}", urls.join(",")),
        format!("listeners={},CONTROLLER://127.0.0.1:{controller}", urls.join(",")),
        format!("listener.security.protocol.map={},CONTROLLER:PLAINTEXT", protocols.join(",")),
        format!("controller.quorum.voters=1@127.0.0.1:{controller}"),
        "listener.name.mutual.ssl.client.auth=required".to_owned(),
        "listener.name.users.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER".to_owned(),
        "listener.name.open.sasl.enabled.mechanisms=PLAIN".to_owned(),
        format!("listener.name.users.plain.sasl.jaas.config={module}.plain.PlainLoginModule required {user};"),
        format!("listener.name.open.plain.sasl.jaas.config={module}.plain.PlainLoginModule required {user};"),
        format!("listener.name.users.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;"),
        format!("listener.name.users.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule required;"),
        // Without more it takes tokens that nobody has signed, and looks at their times.
        format!(
            "listener.name.users.oauthbearer.sasl.jaas.config={module}.oauthbearer.OAuthBearerLoginModule required \
             unsecuredLoginStringClaim_sub=\"broker\";"
        ),
        // A connection ends with the token that it was opened with, unless another one is shown on it.
        "listener.name.users.oauthbearer.connections.max.reauth.ms=600000".to_owned(),
    ]
}

/// A token of `alice`'s that ends in so many seconds.
pub(crate) fn token(seconds: i64) -> String {
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let now = now().as_second();
    format!(
        "{}.{}.",
        part(json!({ "alg": "none" })),
        part(json!({ "sub": "alice", "iat": now - 60, "exp": now + seconds }))
    )
}

/// Writes a file that only its owner can read.
pub(crate) fn secret(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&new, text).unwrap();
    only_for_owner(&new);
    fs::rename(&new, path).unwrap();
}
