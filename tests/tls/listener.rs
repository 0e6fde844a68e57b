//! A listener that nobody can sit on: floods, and more connections than one may have.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bailiwick::app::App;
use bailiwick::clock::Clock;
use bailiwick::identity::trust;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::attacks::CUT_WITHIN;
use super::tokens::{Issuer, with_tokens};
use crate::common::PATIENCE;
use crate::common::certs::{Authority, Issued, deployment, dialer, files, till};
use crate::common::folder::Folder;
use crate::common::records::introduction;

const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

async fn raw(folder: &Folder, address: SocketAddr, issued: &Issued) -> TlsStream<TcpStream> {
    let client = trust::client(&files(folder, "raw", Some(issued))).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::clone(&client)).connect(name, stream).await.unwrap()
}

fn counted(app: &App, reason: &str) -> u64 {
    app.telemetry().turned_away.each().find(|(name, _)| *name == reason).unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_frames_that_carry_nothing_is_cut_within_a_second() {
    let authority = Authority::new("root");
    let folder = deployment(&authority);
    let app = folder.start_app(|_| {}).await.unwrap();
    let issued = authority.client(&till("7"), |_| {});
    let good = dialer(&folder, "good", Some(&authority.client(&till("8"), |_| {})));
    let endpoint = format!("https://localhost:{}", app.address().port());
    let mut good = good.connect(&endpoint).await.unwrap();
    let floods: [(&str, &[u8]); 5] = [
        ("ping", &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("settings", &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0xff, 0xff]),
        ("window update", &[0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ("priority", &[0, 0, 5, 2, 0, 0, 0, 0, 1, 0, 0, 0, 3, 1]),
        ("unknown", &[0, 0, 0, 0xee, 0, 0, 0, 0, 0]),
    ];
    for (position, (what, frame)) in floods.into_iter().enumerate() {
        let (mut reading, mut writing) = tokio::io::split(raw(&folder, app.address(), &issued).await);
        writing.write_all(HELLO).await.unwrap();
        let reading = tokio::spawn(async move {
            let mut bytes = [0; 4_096];
            while reading.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
        });
        let began = Clock::start();
        let many = frame.repeat(500);
        // Some floods break other rules as well, and end for that; none goes on.
        while writing.write_all(&many).await.is_ok() && writing.flush().await.is_ok() && !reading.is_finished() {
            assert!(began.now() < PATIENCE, "{what} goes on");
        }
        assert!(began.now() < CUT_WITHIN, "{what} took {:?}", began.now());
        while counted(&app, "flood") <= position as u64 {
            assert!(began.now() < PATIENCE, "{what} is not counted");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        good.publish_once(introduction("events", "")).await.unwrap();
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_has_so_many_connections_and_others_have_theirs() {
    let authority = Authority::new("root");
    let folder = deployment(&authority);
    folder.edit("gateway.toml", "trust_domain =", "connections_per_identity_max = 2\ntrust_domain =");
    let app = folder.start_app(|_| {}).await.unwrap();
    let issued = authority.client(&till("7"), |_| {});
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut connection = raw(&folder, app.address(), &issued).await;
        connection.write_all(HELLO).await.unwrap();
        connection.read_exact(&mut [0; 9]).await.unwrap();
        open.push(connection);
    }
    let mut third = raw(&folder, app.address(), &issued).await;
    let _ = third.write_all(HELLO).await;
    assert!(third.read_exact(&mut [0; 9]).await.is_err());
    let began = Clock::start();
    while counted(&app, "too_many_of_identity") < 1 {
        assert!(began.now() < PATIENCE, "it is not counted");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let other = dialer(&folder, "other", Some(&authority.client(&till("8"), |_| {})));
    let endpoint = format!("https://localhost:{}", app.address().port());
    other.connect(&endpoint).await.unwrap().publish_once(introduction("events", "")).await.unwrap();
    // A place that becomes free is given again.
    drop(open.pop());
    let began = Clock::start();
    loop {
        let mut again = raw(&folder, app.address(), &issued).await;
        let _ = again.write_all(HELLO).await;
        if again.read_exact(&mut [0; 9]).await.is_ok() {
            break;
        }
        assert!(began.now() < PATIENCE);
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_of_one_address_keep_nobody_else_out() {
    let authority = Authority::new("root");
    let folder = deployment(&authority);
    folder.edit("gateway.toml", "trust_domain =", "handshakes_per_address_max = 8\ntrust_domain =");
    in_some_try(async || silent_ones_keep_nobody_else_out(&folder, &authority).await).await;
}

/// Whether it was seen before the time of the silent ones was over.
async fn silent_ones_keep_nobody_else_out(folder: &Folder, authority: &Authority) -> bool {
    let app = folder.start_app(|config| config.connections_max = 32).await.unwrap();
    let address = app.address();
    let began = Clock::start();
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    // Of so many at once some end for those that come after them.
    let turned_away = || counted(&app, "too_many_of_address") + counted(&app, "too_many");
    while turned_away() < 92 {
        if began.now() >= BEGIN_WITHIN {
            app.stop().await;
            return false;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // Somebody from elsewhere, while the eight wait for their deadline.
    let from = TcpSocket::new_v4().unwrap();
    from.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let stream = from.connect(address).await.unwrap();
    let issued = authority.client(&till("7"), |_| {});
    let client = trust::client(&files(folder, "raw", Some(&issued))).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = TlsConnector::from(client).connect(name, stream).await.unwrap();
    connection.write_all(HELLO).await.unwrap();
    connection.read_exact(&mut [0; 9]).await.unwrap();
    let too_slow = counted(&app, "too_slow");
    if began.now() >= BEGIN_WITHIN {
        app.stop().await;
        return false;
    }
    assert_eq!(too_slow, 0);
    // More than 92 were turned away at once where more had come before the first of them was.
    while turned_away() + counted(&app, "too_slow") < 100 {
        assert!(began.now() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(turned_away() < 100);
    app.stop().await;
    true
}

/// How long a connection may take to begin. What is seen later says nothing of those that were to be there meanwhile.
const BEGIN_WITHIN: Duration = Duration::from_secs(5);

/// Tries until something was seen in time, on a machine that is busy.
async fn in_some_try(is_seen: impl AsyncFn() -> bool) {
    for _ in 0..20 {
        if is_seen().await {
            return;
        }
    }
    panic!("this machine is too slow to see anything in {BEGIN_WITHIN:?}");
}

/// A connection from an address.
async fn connected(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Of places for those that have proved nothing there are sixteen at least.
const PLACES: usize = 16;

/// Takes all places of those that have proved nothing, from four addresses. `begin` does with each what makes the gateway
/// answer, and nothing more. Then somebody from elsewhere gets in at once, not when the time of one is over. Whether it
/// was seen before that time was over.
async fn stalled_ones_keep_nobody_out(
    folder: &Folder,
    authority: &Authority,
    begin: impl AsyncFn(TcpStream) -> Box<dyn std::any::Any + Send>,
) -> bool {
    let app = folder.start_app(|config| config.connections_max = 32).await.unwrap();
    let began = Clock::start();
    let mut stalled = Vec::new();
    for number in 0..PLACES {
        let from = format!("127.0.0.{}", 2 + number % 4);
        stalled.push(begin(connected(&from, app.address()).await).await);
    }
    let good = dialer(folder, "good", Some(&authority.client(&till("7"), |_| {})));
    let endpoint = format!("https://localhost:{}", app.address().port());
    good.connect(&endpoint).await.unwrap().publish_once(introduction("events", "")).await.unwrap();
    let counts = (counted(&app, "too_slow"), counted(&app, "too_many"));
    if began.now() >= BEGIN_WITHIN {
        app.stop().await;
        return false;
    }
    assert_eq!(counts, (0, 1));
    // However many more come from the four, the next one gets in as well.
    for number in 0..4 * PLACES {
        stalled.push(Box::new(connected(&format!("127.0.0.{}", 2 + number % 4), app.address()).await));
    }
    good.connect(&endpoint).await.unwrap().publish_once(introduction("events", "")).await.unwrap();
    let too_slow = counted(&app, "too_slow");
    let is_seen = began.now() < BEGIN_WITHIN;
    assert!(too_slow == 0 || !is_seen, "{too_slow}");
    drop(stalled);
    app.stop().await;
    is_seen
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_begin_and_stall_keep_nobody_out() {
    let authority = Authority::new("root");
    let folder = deployment(&authority);
    let client = trust::client(&files(&folder, "stalls", None)).unwrap();
    let begin = async |mut stream: TcpStream| {
        let mut hello = Vec::new();
        let name = ServerName::try_from("localhost").unwrap();
        ClientConnection::new(Arc::clone(&client), name).unwrap().write_tls(&mut hello).unwrap();
        stream.write_all(&hello).await.unwrap();
        stream.read_exact(&mut [0; 5]).await.unwrap();
        Box::new(stream) as Box<dyn std::any::Any + Send>
    };
    in_some_try(async || stalled_ones_keep_nobody_out(&folder, &authority, &begin).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_bring_no_token_keep_nobody_out() {
    let authority = Authority::new("root");
    let folder = with_tokens(&authority, &Issuer::new());
    let client = trust::client(&files(&folder, "stalls", None)).unwrap();
    let begin = async |stream: TcpStream| {
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::clone(&client)).connect(name, stream).await.unwrap();
        stream.write_all(HELLO).await.unwrap();
        stream.read_exact(&mut [0; 9]).await.unwrap();
        Box::new(stream) as Box<dyn std::any::Any + Send>
    };
    in_some_try(async || stalled_ones_keep_nobody_out(&folder, &authority, &begin).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_begins_so_many_handshakes_in_a_second_and_others_begin_theirs() {
    let authority = Authority::new("root");
    let folder = deployment(&authority);
    folder.edit("gateway.toml", "trust_domain =", "handshakes_per_second_per_address_max = 3\ntrust_domain =");
    let app = folder.start_app(|_| {}).await.unwrap();
    let issued = authority.client(&till("7"), |_| {});
    let client = trust::client(&files(&folder, "raw", Some(&issued))).unwrap();
    let handshake = async |from: &str| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        let stream = socket.connect(app.address()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::clone(&client)).connect(name, stream).await.is_ok()
    };
    let began = Clock::start();
    while counted(&app, "too_many_of_address") < 5 {
        handshake("127.0.0.1").await;
        assert!(began.now() < PATIENCE, "there is no limit");
    }
    assert!(handshake("127.0.0.2").await, "another address is held back");
    // Those that wait a little get in.
    while !handshake("127.0.0.1").await {
        assert!(began.now() < PATIENCE, "nobody of the address gets in any more");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_calls_gives_its_place_up_and_one_with_a_call_does_not() {
    let authority = Authority::new("root");
    let folder = deployment(&authority);
    folder.edit(
        "gateway.toml",
        "trust_domain =",
        "connection_idle_max = \"PT1S\"\nconnections_per_identity_max = 1\ntrust_domain =",
    );
    let app = folder.start_app(|_| {}).await.unwrap();
    let endpoint = format!("https://localhost:{}", app.address().port());
    let busy = dialer(&folder, "busy", Some(&authority.client(&till("8"), |_| {})));
    let mut busy = busy.connect(&endpoint).await.unwrap();
    let (requests, outgoing) = tokio::sync::mpsc::channel(1);
    requests.send(introduction("events", "")).await.unwrap();
    let mut answers = busy.publish(tokio_stream::wrappers::ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap();
    let idle = dialer(&folder, "idle", Some(&authority.client(&till("7"), |_| {})));
    let trying = Clock::start();
    // One that says nothing for a second after it has connected is idle, too.
    let (began, first) = loop {
        let began = Clock::start();
        if let Ok(mut first) = idle.connect(&endpoint).await
            && first.publish_once(introduction("events", "")).await.is_ok()
        {
            break (began, first);
        }
        assert!(trying.now() < PATIENCE, "it does not get in");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    // Its identity has one place, which comes free.
    loop {
        if let Ok(mut second) = idle.connect(&endpoint).await
            && second.publish_once(introduction("events", "")).await.is_ok()
        {
            break;
        }
        assert!(began.now() < PATIENCE, "the place is not given up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(began.now().as_millis() >= 900, "{:?}", began.now());
    requests.send(introduction("events", "")).await.unwrap();
    answers.message().await.unwrap().unwrap();
    drop((requests, first));
    app.stop().await;
}
