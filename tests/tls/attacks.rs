//! Attacks on HTTP/2 behind TLS, each against a gateway that runs as a process: the attacker is cut, memory stays, and a good
//! producer's requests go on. `failure-modes` of HTTP/2: floods of frames, resets in every form, headers without an end,
//! headers that stand for much, calls without an end.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bailiwick::clock::Clock;
use bailiwick::identity::trust;
use bailiwick::ingress::grpc::client::Dialer;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::common::PATIENCE;
use crate::common::certs::{Authority, Issued, deployment, dialer, files, till};
use crate::common::folder::Folder;
use crate::common::process::Process;
use crate::common::records::introduction;

const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// What all attacks together may add to the gateway's memory.
const GROWTH_MAX: u64 = 32 << 20;
/// An attacker is cut within a second; a machine that is busy gets more.
pub(super) const CUT_WITHIN: Duration = Duration::from_secs(60);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const UNKNOWN: u8 = 0xee;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The headers of a call of `Publish`, without any compression that has to be remembered.
fn headers(more: &[(u8, &str)]) -> Vec<u8> {
    // :method POST, :scheme https.
    let mut block = vec![0x83, 0x87];
    // A literal that is not indexed: the name's place in the table, which may take two bytes, and the value.
    let mut literal = |name: u8, value: &str| {
        match name {
            0..15 => block.push(name),
            _ => block.extend([0x0f, name - 15]),
        }
        block.push(u8::try_from(value.len()).unwrap());
        block.extend(value.bytes());
    };
    literal(4, "/bailiwick.v1.Ingest/Publish");
    literal(1, "localhost");
    literal(31, "application/grpc");
    more.iter().for_each(|(name, value)| literal(*name, value));
    block.extend(b"\x00\x02te\x08trailers");
    block
}

fn call(stream: u32, flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &headers(&[]))
}

/// An attack: what is sent before, and what is sent again and again, for a stream that nobody has used.
struct Attack {
    name: &'static str,
    before: Vec<u8>,
    again: fn(u32) -> Vec<u8>,
}

fn attacks() -> Vec<Attack> {
    let attack = |name, again: fn(u32) -> Vec<u8>| Attack { name, before: Vec::new(), again };
    // In the table of the server after this: one header of nearly 4 KiB, at place 62.
    let large = {
        let value = [b'x'; 4_000];
        let mut block = headers(&[]);
        block.extend(b"\x40\x01a\x7f");
        // 4,000 as 127 and the rest in groups of seven bits.
        let rest = 4_000 - 127;
        block.extend([(rest & 0x7f | 0x80) as u8, (rest >> 7) as u8]);
        block.extend(value);
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
    };
    vec![
        attack("PING", |_| frame(PING, 0, 0, &[7; 8])),
        attack("SETTINGS", |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff])),
        attack("WINDOW_UPDATE", |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        attack("PRIORITY", |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1])),
        attack("unknown frames", |_| frame(UNKNOWN, 0, 0, &[])),
        Attack {
            name: "RST_STREAM of one call",
            before: call(1, 0),
            again: |_| frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]),
        },
        Attack { name: "empty DATA", before: call(1, 0), again: |_| frame(DATA, 0, 1, &[]) },
        attack("rapid reset", |stream| [call(stream, 0), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()),
        attack("resets that the server makes: a window beyond its end", |stream| {
            [call(stream, 0), frame(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff])].concat()
        }),
        attack("resets that the server makes: a window by nothing", |stream| {
            [call(stream, 0), frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
        }),
        attack("resets that the server makes: more than the length", |stream| {
            let headers = frame(HEADERS, END_HEADERS, stream, &headers(&[(28, "1")]));
            [headers, frame(DATA, 0, stream, &[0; 8])].concat()
        }),
        attack("resets that the server makes: data after the end", |stream| {
            [call(stream, END_STREAM), frame(DATA, 0, stream, &[0; 8])].concat()
        }),
        attack("calls without an end", |stream| call(stream, 0)),
        Attack {
            name: "headers without an end",
            before: frame(HEADERS, 0, 1, &headers(&[])),
            again: |_| frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b"),
        },
        Attack {
            name: "headers that stand for much",
            before: large,
            // The header at place 62, four hundred times.
            again: |stream| frame(HEADERS, END_HEADERS, stream, &[headers(&[]), vec![0x80 | 62; 400]].concat()),
        },
    ]
}

struct World {
    folder: Folder,
    gateway: Process,
    bad: Issued,
    good: Issued,
}

impl World {
    fn new(limit: &str, more: &str) -> Self {
        let authority = Authority::new("root");
        let folder = deployment(&authority);
        folder.edit("gateway.toml", "trust_domain =", &format!("{more}\ntrust_domain ="));
        let gateway = Process::start_under(folder.root(), limit, &["run", "-c", "gateway.toml"]);
        let [bad, good] = ["bad", "good"].map(|name| authority.client(&till(name), |_| {}));
        Self { folder, gateway, bad, good }
    }

    fn status(&self, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.gateway.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{text}"));
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }

    /// The most memory that it had, in bytes.
    fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn dialer(&self) -> Dialer {
        dialer(&self.folder, "good", Some(&self.good))
    }

    /// A connection through TLS on which nothing was said.
    async fn attacker(&self) -> TlsStream<TcpStream> {
        let client = trust::client(&files(&self.folder, "bad", Some(&self.bad))).unwrap();
        let stream = TcpStream::connect(self.gateway.address()).await.unwrap();
        TlsConnector::from(client).connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
    }
}

/// A good producer, which sends one request after the other.
struct Good {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<Duration>>,
}

impl Good {
    fn start(world: &World) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, dialer) = (Arc::clone(&stop), world.dialer());
        let endpoint = format!("https://localhost:{}", world.gateway.address().port());
        let task = tokio::spawn(async move {
            let (clock, mut latencies) = (Clock::start(), Vec::new());
            // Beside an attack it may take more than one try to get in.
            let mut client = loop {
                match dialer.connect(&endpoint).await {
                    Ok(client) => break client,
                    Err(error) => assert!(clock.now() < PATIENCE, "it does not get in: {error:?}"),
                }
            };
            while latencies.len() < 20 || !stopped.load(Ordering::Relaxed) {
                let began = clock.now();
                let answer = client.publish_once(introduction("events", ""));
                tokio::time::timeout(PATIENCE, answer).await.expect("it is not answered").expect("it is refused");
                latencies.push(clock.now() - began);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            latencies.sort();
            latencies
        });
        Self { stop, task }
    }

    /// How many requests were answered, and how long 99 of 100 took at most.
    async fn stop(self) -> (usize, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let latencies = self.task.await.unwrap();
        (latencies.len(), latencies[latencies.len() * 99 / 100])
    }
}

/// Reads until the connection ends.
fn read_away(mut reading: ReadHalf<TlsStream<TcpStream>>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut bytes = [0; 16 << 10];
        while reading.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
    })
}

/// Attacks until the connection is cut. How long that took.
async fn cut(
    attack: &Attack,
    (reading, mut writing): (ReadHalf<TlsStream<TcpStream>>, WriteHalf<TlsStream<TcpStream>>),
) -> Duration {
    let reading = read_away(reading);
    let clock = Clock::start();
    let _ = writing.write_all(&[HELLO, &attack.before].concat()).await;
    let mut stream = 3;
    while !reading.is_finished() {
        let mut frames = Vec::new();
        for _ in 0..200 {
            frames.extend((attack.again)(stream));
            stream += 2;
        }
        let sending = async { writing.write_all(&frames).await.is_ok() && writing.flush().await.is_ok() };
        // Whoever is not read any more is not cut yet.
        if tokio::time::timeout(Duration::from_millis(100), sending).await == Ok(false) {
            break;
        }
        assert!(clock.now() < PATIENCE, "{} goes on", attack.name);
    }
    clock.now()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attack_is_cut_and_costs_neither_memory_nor_good_producers() {
    let world = World::new(":", "");
    let (_, alone) = Good::start(&world).stop().await;
    let before = world.peak();
    for attack in attacks() {
        let good = Good::start(&world);
        let took = cut(&attack, tokio::io::split(world.attacker().await)).await;
        let (answered, beside) = good.stop().await;
        eprintln!("{}: cut after {took:?}; good: {answered} requests, p99 {beside:?} ({alone:?} alone)", attack.name);
        assert!(took < CUT_WITHIN, "{} took {took:?}", attack.name);
    }
    let growth = world.peak().saturating_sub(before);
    eprintln!("memory grew by {} KiB", growth >> 10);
    assert!(growth < GROWTH_MAX, "memory grew by {} KiB", growth >> 10);
    assert!(!world.gateway.log().iter().any(|line| line.contains("panic")), "{:?}", world.gateway.log());
    world.gateway.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_in_time_whatever_clients_hold_open() {
    let world = World::new(":", "");
    let mut held = Vec::new();
    // Nothing; half a hello of TLS; TLS without HTTP/2; a call without an end; and one that drips.
    held.push(Box::new(TcpStream::connect(world.gateway.address()).await.unwrap()) as Box<dyn Send>);
    let mut half = TcpStream::connect(world.gateway.address()).await.unwrap();
    half.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
    held.push(Box::new(half));
    held.push(Box::new(world.attacker().await));
    for message in [&b""[..], b"\0\0\0\x10\0"] {
        let mut open = world.attacker().await;
        open.write_all(&[HELLO, &call(1, 0), &frame(DATA, 0, 1, message)].concat()).await.unwrap();
        open.flush().await.unwrap();
        open.read_exact(&mut [0; 9]).await.unwrap();
        held.push(Box::new(open));
    }
    let clock = Clock::start();
    let (code, log) = tokio::task::spawn_blocking(|| world.gateway.terminate()).await.unwrap();
    // `stop_within` is ten seconds.
    assert!(code == Some(0) && clock.now() < Duration::from_secs(10) + PATIENCE, "{:?}: {log:?}", clock.now());
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_drips_ends_and_disturbs_nobody() {
    let world = World::new(":", "");
    let mut dripping = world.attacker().await;
    // A message of a megabyte, of which a byte comes now and then.
    let head = frame(DATA, 0, 1, &[0, 0, 0x10, 0, 0]);
    dripping.write_all(&[HELLO, &call(1, 0), &head].concat()).await.unwrap();
    let (reading, mut writing) = tokio::io::split(dripping);
    let answered = read_until_trailers(reading);
    let (good, clock) = (Good::start(&world), Clock::start());
    while !answered.is_finished() {
        let _ = writing.write_all(&frame(DATA, 0, 1, b"x")).await;
        let _ = writing.flush().await;
        assert!(clock.now() < PATIENCE, "it goes on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (answered, _) = good.stop().await;
    assert!(answered >= 20);
    world.gateway.stop();
}

/// Comes when the call's answer begins, or the connection ends.
fn read_until_trailers(mut reading: ReadHalf<TlsStream<TcpStream>>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut came = Vec::new();
        let mut bytes = [0; 4_096];
        while let Ok(count @ 1..) = reading.read(&mut bytes).await {
            came.extend_from_slice(&bytes[..count]);
            let mut rest = &came[..];
            let mut ended = false;
            while let [high, middle, low, kind, flags, _, _, _, _, after @ ..] = rest {
                let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
                let Some(next) = after.get(length..) else { break };
                ended |= *kind == RST_STREAM || *kind == HEADERS && flags & END_STREAM != 0;
                rest = next;
            }
            if ended {
                return;
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_handshakes_leaves_good_producers_their_time() {
    // All that come are begun: the storm is limited by the thread of handshakes alone.
    let limits = "handshakes_per_second_per_address_max = 100000\nhandshakes_per_second_max = 100000";
    let world = World::new(":", limits);
    let (_, alone) = Good::start(&world).stop().await;
    let client = trust::client(&files(&world.folder, "bad", Some(&world.bad))).unwrap();
    let (good, is_over, begun) = (Good::start(&world), Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut storm = Vec::new();
    for _ in 0..16 {
        let (client, is_over, begun) = (Arc::clone(&client), Arc::clone(&is_over), Arc::clone(&begun));
        let address = world.gateway.address();
        storm.push(tokio::spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                let Ok(stream) = TcpStream::connect(address).await else { continue };
                let name = ServerName::try_from("localhost").unwrap();
                begun.fetch_add(1, Ordering::Relaxed);
                let _ = TlsConnector::from(Arc::clone(&client)).connect(name, stream).await;
            }
        }));
    }
    let clock = Clock::start();
    while begun.load(Ordering::Relaxed) < 300 {
        assert!(clock.now() < PATIENCE, "{} handshakes", begun.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (answered, beside) = good.stop().await;
    eprintln!(
        "{} handshakes in {:?}; good: {answered} requests, p99 {beside:?} ({alone:?} alone)",
        begun.load(Ordering::Relaxed),
        clock.now()
    );
    is_over.store(true, Ordering::Relaxed);
    futures::future::join_all(storm).await;
    assert!(answered >= 20);
    world.gateway.stop();
}

/// As many connections as descriptors, of which most say nothing.
const SILENT: u32 = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_silent_connections_keep_nobody_out() {
    let world = World::new(":", "");
    let endpoint = format!("https://localhost:{}", world.gateway.address().port());
    let (_, alone) = Good::start(&world).stop().await;
    let before = world.peak();
    let good = Good::start(&world);
    let address = world.gateway.address();
    // From two hundred addresses: no limit for one of them ends it.
    let mut silent = Vec::new();
    for number in 0..SILENT {
        silent.push(tokio::spawn(silent_from([127, 0, 1 + (number % 200) as u8, 2], address)));
    }
    // Whoever comes now gets in, at the first try or soon.
    let clock = Clock::start();
    loop {
        if let Ok(mut client) = world.dialer().connect(&endpoint).await
            && client.publish_once(introduction("events", "")).await.is_ok()
        {
            break;
        }
        assert!(clock.now() < PATIENCE, "nobody gets in");
    }
    let entered = clock.now();
    let mut open = Vec::new();
    for connecting in silent {
        open.extend(connecting.await.unwrap());
    }
    let (answered, beside) = good.stop().await;
    let growth = world.peak().saturating_sub(before);
    eprintln!(
        "{} silent connections came: somebody got in after {entered:?}; good: {answered} requests, p99 {beside:?} \
         ({alone:?} alone); memory grew by {} KiB",
        open.len(),
        growth >> 10
    );
    assert!(open.len() > SILENT as usize / 2, "{}", open.len());
    assert!(growth < GROWTH_MAX, "memory grew by {} KiB", growth >> 10);
    drop(open);
    world.gateway.stop();
}

/// A connection from an address that says nothing. `None`: the system has no more.
async fn silent_from(from: [u8; 4], to: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.bind(SocketAddr::from((from, 0))).ok()?;
    tokio::time::timeout(Duration::from_secs(20), socket.connect(to)).await.ok()?.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_descriptors_goes_on_and_takes_connections_when_there_are_some() {
    // So few that the limit of connections does not keep the gateway from its end: it is asked for more than there are.
    let world = World::new("ulimit -n 96", "");
    let endpoint = format!("https://localhost:{}", world.gateway.address().port());
    world.gateway.wait_for("leaves room for fewer connections", 1);
    let good = Good::start(&world);
    let address = world.gateway.address();
    let mut open = Vec::new();
    for number in 0..200 {
        open.extend(silent_from([127, 0, 1 + (number % 100) as u8, 3], address).await);
    }
    let used = || fs::read_dir(format!("/proc/{}/fd", world.gateway.id())).map_or(0, Iterator::count);
    assert!(used() <= 96, "{}", used());
    let (answered, _) = good.stop().await;
    assert!(answered >= 20);
    // It does not spin: it takes less than half of one processor.
    let ticks = || {
        let text = fs::read_to_string(format!("/proc/{}/stat", world.gateway.id())).unwrap();
        let (_, rest) = text.rsplit_once(") ").unwrap();
        let fields: Vec<u64> = rest.split(' ').skip(11).take(2).map(|field| field.parse().unwrap()).collect();
        fields.iter().sum::<u64>()
    };
    // What it took is asked within what has passed.
    let clock = Clock::start();
    let before = ticks();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (spent, passed) = (ticks() - before, clock.now());
    assert!(Duration::from_millis(10 * spent) < passed.mul_f64(0.6), "{spent} hundredths of a second in {passed:?}");
    drop(open);
    let clock = Clock::start();
    while world.dialer().connect(&endpoint).await.is_err() {
        assert!(clock.now() < PATIENCE, "it takes no connection any more");
    }
    world.gateway.stop();
}
