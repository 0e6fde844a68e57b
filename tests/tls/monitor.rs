//! The port of health and metrics on a hostile network: a word to anybody, the rest to whom a rule lets read it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bailiwick::app::App;
use bailiwick::clock::Clock;
use bailiwick::identity::trust;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::common::certs::{Authority, Issued, deployment, files, moment, till};
use crate::common::folder::Folder;
use crate::common::{PATIENCE, changed};

const PROMETHEUS: &str = "spiffe://corp.example/prometheus";

struct World {
    authority: Authority,
    folder: Folder,
    app: App,
}

impl World {
    async fn new() -> Self {
        let authority = Authority::new("root");
        let folder = deployment(&authority);
        folder.edit("gateway.toml", "\nlisten = ", "\nplaintext = false\nlisten = ");
        let app = folder.start_app(|_| {}).await.unwrap();
        Self { authority, folder, app }
    }

    fn address(&self) -> SocketAddr {
        self.app.monitor_address().unwrap()
    }

    fn of(&self, identity: &str) -> Issued {
        self.authority.client(identity, |_| {})
    }

    /// A connection on which nothing was said yet.
    fn connect(&self, shown: Option<&Issued>) -> StreamOwned<ClientConnection, TcpStream> {
        let files = files(&self.folder, "watcher", shown);
        let mut client = Arc::unwrap_or_clone(trust::client(&files).unwrap());
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(client), name).unwrap();
        StreamOwned::new(connection, TcpStream::connect(self.address()).unwrap())
    }

    /// The code and the body that a client gets, or `None` when the handshake fails.
    fn get(&self, shown: Option<&Issued>, path: &str) -> Option<(u16, String)> {
        let mut stream = self.connect(shown);
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = Vec::new();
        // An end without a word is as good as one with it.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_is_for_everybody_and_the_rest_for_whom_a_rule_lets() {
    let world = World::new().await;
    let word = |text: &str| Some((200, format!("{text}\n")));
    let (watcher, till) = (world.of(PROMETHEUS), world.of(&till("7")));
    for shown in [None, Some(&watcher), Some(&till)] {
        assert_eq!(world.get(shown, "/healthz"), word("ok"));
        assert_eq!(world.get(shown, "/readyz"), word("ready"));
    }
    for path in ["/status", "/metrics"] {
        let code = |shown| world.get(shown, path).unwrap().0;
        assert_eq!((code(Some(&watcher)), code(Some(&till)), code(None)), (200, 403, 401), "{path}");
    }
    let (_, denied) = world.get(Some(&till), "/metrics").unwrap();
    assert!(denied.contains("(rule `tills`)") && denied.contains("read = [\"metrics\"]"), "{denied}");
    let (_, metrics) = world.get(Some(&watcher), "/metrics").unwrap();
    assert!(metrics.contains("\nbailiwick_certificate_not_after_timestamp_seconds "), "{metrics}");
    // Whoever may read may not write, and a certificate that is not believed is worse than none.
    let other = Authority::new("other").client(PROMETHEUS, |_| {});
    assert_eq!(world.get(Some(&other), "/healthz"), None);
    world.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_counts_to_its_end_on_a_connection_that_stays() {
    let world = World::new().await;
    // The code of an answer, or `None` when the connection has ended.
    let code = |stream: &mut StreamOwned<ClientConnection, TcpStream>| {
        write!(stream, "GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n").ok()?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            answer.push(byte[0]);
        }
        let head = String::from_utf8(answer).unwrap();
        let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
        stream.read_exact(&mut vec![0; length]).ok()?;
        Some(head.split(' ').nth(1).unwrap().parse::<u16>().unwrap())
    };
    // The first of these lives that is long enough to come in by.
    let come_in = |life: i64| {
        let short = world.authority.client(PROMETHEUS, |parameters| parameters.not_after = moment(life));
        let mut stream = world.connect(Some(&short));
        (code(&mut stream) == Some(200)).then_some(stream)
    };
    let stream = std::cell::RefCell::new([4, 20, 120].into_iter().find_map(come_in).expect("it does not come in"));
    let last = crate::common::until(|| {
        let code = code(&mut stream.borrow_mut()).expect("the connection has ended");
        (code != 200).then_some(code)
    });
    assert_eq!(last, 401);
    world.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_leaves_the_gateway_and_the_port_alive() {
    let world = World::new().await;
    let address = world.address();
    let began = Clock::start();
    loop {
        // More than there are places: of those that wait for nothing, the oldest end for the next.
        let mut held: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(address).unwrap()).collect();
        held.iter_mut().for_each(|stream| {
            let _ = stream.write_all(&[0x16, 0x03]);
        });
        // A handshake that does not come to its end gives its place back.
        let well = || world.get(None, "/readyz").is_some_and(|(code, _)| code == 200);
        crate::common::until(|| Some(()).filter(|()| well()));
        for stream in &mut held {
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let _ = stream.read(&mut [0; 16]);
        }
        let (_, metrics) = world.get(Some(&world.of(PROMETHEUS)), "/metrics").unwrap();
        let turned =
            metrics.lines().find(|line| line.starts_with("bailiwick_http_connections_turned_away_total ")).unwrap();
        if turned.split(' ').nth(1).unwrap().parse::<u64>().unwrap() >= 48 {
            break;
        }
        // On a busy machine some were over before the next came.
        assert!(began.now() < PATIENCE, "{turned}");
    }
    world.app.stop().await;
}

#[test]
fn elsewhere_than_on_loopback_it_needs_tls() {
    let folder = Folder::new();
    bailiwick::commands::init::init(folder.root()).map_err(|_| "init").unwrap();
    folder.let_laws_hold("policies/policy.toml");
    let (before, after) = ("listen = \"127.0.0.1:7401\"", folder.read("gateway.toml"));
    let errors = |http: &str| {
        folder.write("gateway.toml", changed(&after, before, http));
        folder.errors()
    };
    assert_eq!(errors(""), Vec::<String>::new());
    for (http, error) in [
        ("listen = \"0.0.0.0:7401\"", "[http] needs [tls] here, and there is none"),
        ("plaintext = false", "[http] needs [tls] here, and there is none"),
        ("listen = \"0.0.0.0:7401\"\nplaintext = true", "[http] speaks plain text on loopback only"),
        ("listen = \"127.0.0.1:7400\"", "[http] and [listen] both name 127.0.0.1:7400"),
        ("listen = \"here\"", "`here` is not an address such as 127.0.0.1:7401"),
    ] {
        let found = errors(http);
        assert!(found.len() == 1 && found[0].contains(error), "{http}: {found:?}");
    }
}
