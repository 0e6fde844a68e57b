//! The port: who may connect, for how long, and the thread that all of it runs on.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::engine::supervision::{Supervisor, give_way_to_records};
use crate::identity::Acceptor;
use crate::planted::planted;

use super::answer::{Answers, Client};
use super::looking::Looking;
use super::observed::Observed;
use super::places::Places;

/// The running port. It ends when this is dropped.
pub struct Server {
    address: SocketAddr,
    answers: Arc<Answers>,
    /// Nothing is sent: the thread sees that this is gone.
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// How long a handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// How long the head of a request may take, the wait for the next one included.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// After this a connection is brought to its end, and cut when it takes longer than [`GRACE`].
const AGE_MAX: Duration = Duration::from_secs(300);
const GRACE: Duration = Duration::from_secs(10);
/// The most bytes and lines of the head of a request.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// How long no connection is accepted when the system refuses one: files ran out, most likely.
const PAUSE: Duration = Duration::from_millis(200);

impl Server {
    /// Listens, and answers on a thread of its own, which `supervisor` hears of. Without an `acceptor` it speaks plain text.
    ///
    /// # Errors
    /// When the system refuses the address or the thread.
    pub fn start(
        listen: SocketAddr,
        acceptor: Option<Arc<Acceptor>>,
        clock: Clock,
        supervisor: &Supervisor,
    ) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let answers = Arc::new(Answers::new(acceptor, clock, Looking::start(supervisor)?));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _on_its_runtime = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let (end, ended) = oneshot::channel();
        let of_thread = Arc::clone(&answers);
        let thread = supervisor.spawn("http", move || {
            give_way_to_records();
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, &of_thread) => {}
                    _ = ended => {}
                }
            });
        })?;
        Ok(Self { address, answers, end: Some(end), thread: Some(thread) })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on there is something to tell. Before, it is starting.
    pub fn observe(&self, observed: Arc<dyn Observed>) {
        self.answers.observe(observed);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // One that panicked has told the supervisor.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, answers: &Arc<Answers>) {
    let places = Arc::new(Places::default());
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                #[expect(clippy::panic, reason = "shows that the port does not end in silence")]
                if planted("panic-in-http") {
                    panic!("planted");
                }
                let Some(place) = places.enter(address.ip(), answers.now()) else {
                    answers.turned_away();
                    continue;
                };
                let answers = Arc::clone(answers);
                tokio::spawn(async move {
                    let told = place.told_to_end();
                    tokio::select! {
                        () = enter(stream, Client { address, identity: None, place }, &answers) => {}
                        () = told => answers.turned_away(),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the port of health and metrics could not be accepted: if files \
                 ran out, raise the limit of open files (ulimit -n)");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn enter(stream: TcpStream, client: Client, answers: &Arc<Answers>) {
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = answers.acceptor() else { return serve(stream, client, answers).await };
    match tokio::time::timeout(HANDSHAKE_WITHIN, acceptor.accept_to_monitor(stream)).await {
        Ok(Ok(accepted)) => {
            serve(accepted.stream, Client { identity: accepted.identity, ..client }, answers).await;
        }
        Ok(Err(Some(why))) => {
            tracing::warn!(
                address = %client.address,
                reason = why.name(),
                "a connection to the port of health and metrics was turned away: \
                            docs/security.md explains the reason"
            );
        }
        // It went by itself, or took too long.
        Ok(Err(None)) | Err(_) => {}
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, client: Client, answers: &Arc<Answers>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    let answers = Arc::clone(answers);
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answers.to(&request, &client);
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let mut served = pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::time::timeout(AGE_MAX, served.as_mut()).await;
    if ended.is_err() {
        served.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(GRACE, served).await;
    }
}
