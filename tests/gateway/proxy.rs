//! A proxy between clients and a broker that knows two requests of Kafka's protocol: messages, and the end of a
//! transaction.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use crate::common::PATIENCE;

/// The API keys in a request's header.
const PRODUCE: [u8; 2] = [0, 0];
const END_TXN: [u8; 2] = [0, 26];

/// What happens to an EndTxn request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The broker gets it; the connection is cut instead of the answer.
    AnswerLost,
    /// The connection is cut before the broker gets it.
    RequestLost,
    /// The broker gets it; nothing comes back any more, and the connection stays.
    Silence,
    /// The connection is cut, and the client sends it again. The broker gets the first one when it has the first message
    /// of the next transaction.
    Late,
}

#[derive(Default)]
struct Shared {
    upstream: OnceLock<String>,
    /// What happens to the next one with `every - 1` unharmed ones before it; the last is the next.
    faults: Mutex<Vec<Fault>>,
    every: AtomicUsize,
    ended: AtomicUsize,
    late: Mutex<Option<Held>>,
    /// Bytes per second that are passed on to the broker; 0: all.
    rate: AtomicU64,
}

/// A request that the broker did not get yet.
struct Held {
    request: Vec<u8>,
    to_broker: TcpStream,
    answers: Arc<Answers>,
    /// The client has sent it again.
    is_repeated: bool,
}

pub(crate) struct Proxy {
    pub(crate) address: String,
    shared: Arc<Shared>,
}

impl Proxy {
    pub(crate) fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Some(upstream) = accepting.upstream.get() else { continue };
                // While the broker is away the client sees a connection that ends.
                if let Ok(upstream) = TcpStream::connect(upstream) {
                    pass_on(client, upstream, &accepting);
                }
            }
        });
        Self { address, shared }
    }

    pub(crate) fn pass_to(&self, address: &str) {
        self.shared.upstream.set(address.to_owned()).unwrap();
    }

    /// From now on every so-manieth EndTxn meets one of the faults, in this order.
    pub(crate) fn inject(&self, every: usize, faults: &[Fault]) {
        *self.shared.faults.lock().unwrap() = faults.iter().rev().copied().collect();
        self.shared.every.store(every, Ordering::SeqCst);
    }

    /// How many faults have not happened yet.
    pub(crate) fn left(&self) -> usize {
        self.shared.faults.lock().unwrap().len()
    }

    /// From now on the broker gets no more than this many bytes per second of each connection.
    pub(crate) fn slow(&self, rate: u64) {
        self.shared.rate.store(rate, Ordering::SeqCst);
    }
}

impl Shared {
    fn fault(&self) -> Option<Fault> {
        let every = self.every.load(Ordering::SeqCst);
        let number = self.ended.fetch_add(1, Ordering::SeqCst) + 1;
        if every > 0 && number.is_multiple_of(every) { self.faults.lock().unwrap().pop() } else { None }
    }

    /// Passes an EndTxn on, unless a fault happens to it. Whether the connection goes on.
    fn end_of_transaction(&self, request: &[u8], connection: &Connection) -> bool {
        if let Some(held) = self.late.lock().unwrap().as_mut() {
            held.is_repeated = true;
            return connection.pass(request);
        }
        match self.fault() {
            Some(Fault::AnswerLost) => connection.cut.store(true, Ordering::SeqCst),
            Some(Fault::RequestLost) => {
                connection.end();
                return false;
            }
            Some(Fault::Silence) => connection.silent.store(true, Ordering::SeqCst),
            Some(Fault::Late) => {
                connection.silent.store(true, Ordering::SeqCst);
                let to_broker = connection.broker.try_clone().unwrap();
                let answers = Arc::clone(&connection.answers);
                let held = Held { request: request.to_vec(), to_broker, answers, is_repeated: false };
                *self.late.lock().unwrap() = Some(held);
                let _ = connection.client.shutdown(Shutdown::Both);
                return false;
            }
            None => {}
        }
        connection.pass(request)
    }

    /// Passes messages on. After the first ones of the next transaction comes the end that is late.
    fn messages(&self, request: &[u8], connection: &Connection) -> bool {
        let mut late = self.late.lock().unwrap();
        let passed = connection.pass(request);
        if let Some(mut held) = late.take_if(|held| held.is_repeated) {
            // Requests of different connections are in no order: the broker answers one before it gets the other.
            connection.answers.wait_for(request);
            let _ = held.to_broker.write_all(&held.request);
            held.answers.wait_for(&held.request);
        }
        passed
    }
}

/// What the broker has answered on one connection. It answers in order.
#[derive(Default)]
struct Answers {
    state: Mutex<Answered>,
    changed: Condvar,
}

#[derive(Default)]
struct Answered {
    /// The number of the last request that was answered.
    last: Option<i32>,
    has_ended: bool,
}

impl Answers {
    fn change(&self, change: impl FnOnce(&mut Answered)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    /// Waits until the broker has answered a request, or has ended the connection.
    fn wait_for(&self, request: &[u8]) {
        let number = number(&request[8..]);
        let waits = |answered: &mut Answered| !answered.has_ended && answered.last.is_none_or(|last| last < number);
        let state = self.state.lock().unwrap();
        let waited = self.changed.wait_timeout_while(state, PATIENCE, waits).unwrap().1;
        assert!(!waited.timed_out(), "the broker does not answer request {number}");
    }
}

/// The number that bytes begin with.
fn number(bytes: &[u8]) -> i32 {
    i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Both ends of a connection.
struct Connection {
    client: TcpStream,
    broker: TcpStream,
    answers: Arc<Answers>,
    cut: Arc<AtomicBool>,
    silent: Arc<AtomicBool>,
}

impl Connection {
    /// Whether the broker gets it. If not, the client sees a connection that ends.
    fn pass(&self, request: &[u8]) -> bool {
        let passed = (&self.broker).write_all(request).is_ok();
        if !passed {
            self.end();
        }
        passed
    }

    fn end(&self) {
        let _ = (self.client.shutdown(Shutdown::Both), self.broker.shutdown(Shutdown::Both));
    }
}

fn pass_on(client: TcpStream, upstream: TcpStream, shared: &Arc<Shared>) {
    let (cut, silent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
    let (mut from_broker, mut to_client) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
    let (cuts, silences) = (Arc::clone(&cut), Arc::clone(&silent));
    let answers = Arc::<Answers>::default();
    let hears = Arc::clone(&answers);
    thread::spawn(move || {
        while let Some(answer) = answer(&mut from_broker) {
            let is_silent = silences.load(Ordering::SeqCst);
            if !is_silent && (cuts.load(Ordering::SeqCst) || to_client.write_all(&answer).is_err()) {
                break;
            }
            hears.change(|answered| answered.last = Some(number(&answer[4..])));
        }
        hears.change(|answered| answered.has_ended = true);
        let _ = (from_broker.shutdown(Shutdown::Both), to_client.shutdown(Shutdown::Both));
    });
    let (mut from_client, shared) = (client.try_clone().unwrap(), Arc::clone(shared));
    let connection = Connection { client, broker: upstream, answers, cut, silent };
    thread::spawn(move || {
        while let Some(request) = request(&mut from_client, &shared.rate) {
            let goes_on = match [request[4], request[5]] {
                END_TXN => shared.end_of_transaction(&request, &connection),
                PRODUCE => shared.messages(&request, &connection),
                _ => connection.pass(&request),
            };
            if !goes_on {
                // What is to happen to the connection has happened.
                return;
            }
        }
        connection.end();
    });
}

/// One answer with its length before it.
fn answer(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 4];
    from.read_exact(&mut bytes).ok()?;
    bytes.resize(4 + usize::try_from(number(&bytes)).ok()?, 0);
    from.read_exact(&mut bytes[4..]).ok()?;
    (bytes.len() >= 8).then_some(bytes)
}

/// One request with its length before it.
fn request(from: &mut TcpStream, rate: &AtomicU64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 4];
    from.read_exact(&mut bytes).ok()?;
    let length = usize::try_from(number(&bytes)).ok()?;
    bytes.resize(4 + length, 0);
    for chunk in bytes[4..].chunks_mut(1_024) {
        from.read_exact(chunk).ok()?;
        let rate = rate.load(Ordering::SeqCst);
        if rate > 0 {
            thread::sleep(Duration::from_secs_f64(chunk.len() as f64 / rate as f64));
        }
    }
    (length >= 2).then_some(bytes)
}
