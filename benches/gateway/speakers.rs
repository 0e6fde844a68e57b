//! What it costs to know who speaks: handshakes beside those of a bare acceptor of tokio-rustls, and what a request is
//! charged for being asked whether it may be written.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bailiwick::config;
use bailiwick::identity::trust;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::process::{RUN, Server, changed, pinned};
use super::{BATCH, figure, median, per_record};

/// Set in the process that is the bare acceptor: where its certificates are.
pub(super) const BARE: &str = "BAILIWICK_BENCH_BARE_ACCEPTOR";
const HANDSHAKES: usize = 2_000;
const AT_ONCE: usize = 8;
const ROUNDS: usize = 3;
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The server runs on this core. The load has the other ones.
const SERVER: usize = 0;

/// Runs them.
pub(super) fn run() {
    let deployment = Deployment::new(NO_LIMITS);
    handshakes(&deployment);
    authorisation(&deployment);
}

/// A gateway with TLS that lets everything in, and a producer's certificate.
pub(super) struct Deployment(TempDir);

/// Whoever comes is let in, as fast as it comes.
pub(super) const NO_LIMITS: &str = "connections_per_identity_max = 100000\nhandshakes_per_address_max = 100000\n\
                                    handshakes_per_second_per_address_max = 100000000\n\
                                    handshakes_per_second_max = 100000000\n";

impl Deployment {
    /// With lines of `[tls]`.
    pub(super) fn new(limits: &str) -> Self {
        let this = Self(TempDir::new().unwrap());
        this.bailiwick(&["init", "."]);
        for arguments in
            [&["certs", "ca", "tls"][..], &["certs", "gateway", "tls", "g"], &["certs", "producer", "tls", "p"]]
        {
            this.bailiwick(arguments);
        }
        let config = fs::read_to_string(this.path("gateway.toml")).unwrap();
        let config = changed(&config, "127.0.0.1:7400", "127.0.0.1:0");
        let config: Vec<&str> = config.lines().filter(|line| !line.starts_with("plaintext")).collect();
        let tls = format!(
            "[tls]\ncertificate = \"tls/g.pem\"\nkey = \"tls/g.key\"\nclient_ca = \"tls/ca.pem\"\n\
             trust_domain = \"bailiwick.test\"\n{limits}\n[scoring]\nworkers = 1\n"
        );
        fs::write(this.path("gateway.toml"), format!("{}\n{tls}", config.join("\n"))).unwrap();
        let policy = fs::read_to_string(this.path("policies/policy.toml")).unwrap();
        let rule = "[permissions.p]\nidentities = [\"spiffe://bailiwick.test/producers/*\"]\nwrite = [\"events\"]\n\
                    [producers.\"*\"]\nidentities = [\"spiffe://bailiwick.test/producers/*\"]\n";
        fs::write(this.path("policies/policy.toml"), format!("{policy}\n{rule}")).unwrap();
        this
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    pub(super) fn bailiwick(&self, arguments: &[&str]) {
        let output = Command::new(env!("CARGO_BIN_EXE_bailiwick")).args(arguments).current_dir(self.0.path()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub(super) fn gateway(&self) -> Server {
        let config = self.path("gateway.toml");
        Server::start(pinned(SERVER, env!("CARGO_BIN_EXE_bailiwick")).args(RUN).arg(config))
    }

    fn bare(&self) -> Server {
        Server::start(pinned(SERVER, std::env::current_exe().unwrap()).env(BARE, self.path("tls")))
    }
}

/// The process that is a bare acceptor: a handshake, the settings of HTTP/2, and no more.
pub(super) fn bare(directory: &Path) {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    trust::certificates(&directory.join("ca.pem")).unwrap().into_iter().for_each(|root| roots.add(root).unwrap());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let chain = trust::certificates(&directory.join("g.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join("g.key")).unwrap();
    let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut server = server.with_client_cert_verifier(clients).with_single_cert(chain, key).unwrap();
    server.alpn_protocols = vec![b"h2".to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        eprintln!("serving address={}", listener.local_addr().unwrap());
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                stream.set_nodelay(true).unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let _ = stream.read_exact(&mut [0; HELLO.len()]).await;
                let _ = stream.write_all(&HELLO[24..]).await;
                let _ = stream.read(&mut [0; 64]).await;
            });
        }
    });
}

/// What a handshake costs.
struct Cost {
    /// CPU time of the server, in microseconds.
    cpu: f64,
    /// That of its thread of handshakes.
    of_thread: f64,
    /// Handshakes in a second.
    rate: f64,
}

/// Handshakes with certificates on both sides, each with the first frames of HTTP/2, as fast as one core does them.
fn handshakes(deployment: &Deployment) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let measure = |server: Server| {
        let (cpu, of_thread, start) = (server.cpu(), server.cpu_of_threads("handshakes"), Instant::now());
        runtime.block_on(load(deployment, server.endpoint()));
        let [cpu, of_thread] = [server.cpu() - cpu, server.cpu_of_threads("handshakes") - of_thread]
            .map(|time| time.as_micros() as f64 / HANDSHAKES as f64);
        Cost { cpu, of_thread, rate: HANDSHAKES as f64 / start.elapsed().as_secs_f64() }
    };
    let (mut gateway, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        gateway.push(measure(deployment.gateway()));
        bare.push(measure(deployment.bare()));
    }
    let [ours, bare] = [gateway, bare].map(|all| {
        let middle = |value: fn(&Cost) -> f64| median(all.iter().map(value));
        Cost { cpu: middle(|one| one.cpu), of_thread: middle(|one| one.of_thread), rate: middle(|one| one.rate) }
    });
    let of_thread = ours.of_thread;
    figure("handshake: gateway, its thread of handshakes: CPU", of_thread, "us", Some(of_thread / bare.cpu));
    figure("handshake and connection of HTTP/2: gateway: CPU", ours.cpu, "us", Some(ours.cpu / bare.cpu));
    figure("handshake: bare tokio-rustls: CPU", bare.cpu, "us", None);
    figure("handshakes: gateway", ours.rate, "per second", Some(ours.rate / bare.rate));
    figure("handshakes: bare tokio-rustls", bare.rate, "per second", None);
}

async fn load(deployment: &Deployment, endpoint: &str) {
    let shown = Some((deployment.path("tls/p.pem"), deployment.path("tls/p.key")));
    let client = trust::client(&trust::Files { ca: deployment.path("tls/ca.pem"), shown }).unwrap();
    let address = endpoint.trim_start_matches("http://");
    let left = AtomicUsize::new(HANDSHAKES);
    let one = async || {
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = TlsConnector::from(Arc::clone(&client)).connect(name, stream).await.unwrap();
            stream.write_all(HELLO).await.unwrap();
            stream.flush().await.unwrap();
            stream.read_exact(&mut [0; 9]).await.unwrap();
        }
    };
    futures::future::join_all((0..AT_ONCE).map(|_| one())).await;
}

/// What a call is asked once, and what that is for each record of a message. While the policies stay and the call goes on
/// with the same stream and producer, a message is asked less: two comparisons.
fn authorisation(deployment: &Deployment) {
    let config = config::load(&deployment.path("gateway.toml")).unwrap().config.unwrap();
    let access = &config.policy.access;
    let identity = "spiffe://bailiwick.test/producers/p";
    let looked_up = per_record(1_000, || {
        for _ in 0..1_000 {
            black_box(access.of(black_box(identity)).own());
        }
    });
    let granted = access.of(identity);
    let asked = per_record(1_000, || {
        for _ in 0..1_000 {
            black_box(granted.write(black_box("events"), black_box("")).is_ok());
        }
    });
    figure("what an identity may do, looked up once a connection", looked_up, "ns", None);
    figure("whether a stream may be written, asked once a call", asked, "ns", None);
    figure(&format!("the same, if each message of {BATCH} records asked it"), asked / BATCH as f64, "ns/record", None);
}
