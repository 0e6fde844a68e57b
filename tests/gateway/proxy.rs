//! A proxy between clients and a broker that knows one request of Kafka's protocol: the end of a transaction.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

/// The API key of EndTxn in a request's header.
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
}

#[derive(Default)]
struct Shared {
    upstream: OnceLock<String>,
    /// What happens to the next one with `every - 1` unharmed ones before it; the last is the next.
    faults: Mutex<Vec<Fault>>,
    every: AtomicUsize,
    ended: AtomicUsize,
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
}

impl Shared {
    fn fault(&self) -> Option<Fault> {
        let every = self.every.load(Ordering::SeqCst);
        let number = self.ended.fetch_add(1, Ordering::SeqCst) + 1;
        if every > 0 && number.is_multiple_of(every) { self.faults.lock().unwrap().pop() } else { None }
    }
}

fn pass_on(client: TcpStream, upstream: TcpStream, shared: &Arc<Shared>) {
    let (cut, silent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
    let (mut from_broker, mut to_client) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
    let (cuts, silences) = (Arc::clone(&cut), Arc::clone(&silent));
    thread::spawn(move || {
        let mut bytes = [0; 65_536];
        while let Ok(read @ 1..) = from_broker.read(&mut bytes) {
            if silences.load(Ordering::SeqCst) {
                continue;
            }
            if cuts.load(Ordering::SeqCst) || to_client.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        let _ = (from_broker.shutdown(Shutdown::Both), to_client.shutdown(Shutdown::Both));
    });
    let (mut from_client, mut to_broker, shared) = (client, upstream, Arc::clone(shared));
    thread::spawn(move || {
        while let Some(request) = request(&mut from_client) {
            if request[4..6] == END_TXN {
                match shared.fault() {
                    Some(Fault::AnswerLost) => cut.store(true, Ordering::SeqCst),
                    Some(Fault::RequestLost) => break,
                    Some(Fault::Silence) => silent.store(true, Ordering::SeqCst),
                    None => {}
                }
            }
            if to_broker.write_all(&request).is_err() {
                break;
            }
        }
        let _ = (from_client.shutdown(Shutdown::Both), to_broker.shutdown(Shutdown::Both));
    });
}

/// One request with its length before it.
fn request(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 4];
    from.read_exact(&mut bytes).ok()?;
    let length = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    bytes.resize(4 + length, 0);
    from.read_exact(&mut bytes[4..]).ok()?;
    (length >= 2).then_some(bytes)
}
