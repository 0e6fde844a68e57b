//! The whole job with nothing to spare, to hold the gateway against: what such a job costs on this machine when nothing
//! is done that need not be.
//!
//! It serves `bailiwick.v1.Ingest/Publish` with protobuf rows of the card-fraud example, on one thread from the socket to
//! the cells. Messages stay bytes ([`wire`]). What one turn of the reactor brings is one batch, from however many calls
//! and connections it came ([`batch`]): rows are walked into one matrix, the model runs once per 1,024 of them, exact sums
//! go into a hash map of cells, and the sets of contributors stop at twenty. A thread of its own writes the messages and
//! syncs, many at a time ([`disk`]); answers with scores leave after that.
//!
//! What it leaves out: policies (a cell's key is all that is looked up), numbers and what they came to, refusals, event
//! time and windows, several streams, recovery. It trusts its input.

mod batch;
mod disk;
mod wire;

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::path::Path;
use std::pin::Pin;
use std::sync::mpsc::Sender;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::server::{NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use batch::Batches;
use disk::Commit;
use wire::RawCodec;

/// Set in the process that is the comparator: which [`Mode`].
pub(super) const COMPARATOR: &str = "BAILIWICK_BENCH_COMPARATOR";
/// Where it writes.
pub(super) const DIRECTORY: &str = "BAILIWICK_BENCH_COMPARATOR_DIRECTORY";

/// Answers of a call that wait to be sent, at most.
const ANSWERS_MAX: usize = 4_096;

/// How much of the job is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Messages are answered and not looked at.
    Echo,
    /// All but writing.
    Memory,
    /// All of it.
    Disk,
}

impl Mode {
    const NAMES: [(&'static str, Self); 3] = [("echo", Self::Echo), ("memory", Self::Memory), ("disk", Self::Disk)];

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, mode)| *mode == self).unwrap().0
    }

    fn of(name: &str) -> Self {
        Self::NAMES.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no mode `{name}`")).1
    }
}

/// Where the answers of a call go.
type Answers = mpsc::Sender<Result<Bytes, Status>>;

/// A message that is not answered yet.
struct Arrived {
    message: Bytes,
    answers: Answers,
}

thread_local! {
    /// What the reactor's turn brings. The only thread that serves is the one that has it.
    static INBOX: RefCell<Vec<Arrived>> = const { RefCell::new(Vec::new()) };
}
static ARRIVED: Notify = Notify::const_new();

/// The comparator's process. It says where it serves as the gateway does.
pub(super) fn serve(mode: &str) {
    let mode = Mode::of(mode);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if mode != Mode::Echo {
            let disk = (mode == Mode::Disk).then(|| disk::start(Path::new(&std::env::var_os(DIRECTORY).unwrap())));
            tokio::spawn(turns(Batches::new(), disk));
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        eprintln!("serving address={}", listener.local_addr().unwrap());
        let connections = TcpListenerStream::new(listener).inspect(|connection| {
            connection.as_ref().unwrap().set_nodelay(true).unwrap();
        });
        tonic::transport::Server::builder()
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20)
            .max_frame_size(256 << 10)
            .add_service(Service(mode))
            .serve_with_incoming(connections)
            .await
            .unwrap();
    });
}

/// Works off what each turn of the reactor brought.
async fn turns(mut batches: Batches, disk: Option<Sender<Commit>>) {
    loop {
        ARRIVED.notified().await;
        // Whatever else is ready comes first.
        tokio::task::yield_now().await;
        let commit = batches.work(INBOX.take());
        match &disk {
            Some(disk) => disk.send(commit).unwrap(),
            None => commit.answer(),
        }
    }
}

#[derive(Clone)]
struct Service(Mode);

impl NamedService for Service {
    const NAME: &'static str = "bailiwick.v1.Ingest";
}

impl<B> tower_service::Service<http::Request<B>> for Service
where
    B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(RawCodec).apply_max_message_size_config(Some(64 << 20), None);
            Ok(grpc.streaming(service, request).await)
        })
    }
}

impl StreamingService<Bytes> for Service {
    type Response = Bytes;
    type ResponseStream = ReceiverStream<Result<Bytes, Status>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let (answers, waiting) = mpsc::channel(ANSWERS_MAX);
        tokio::spawn(read(self.0, request.into_inner(), answers));
        ready(Ok(Response::new(ReceiverStream::new(waiting))))
    }
}

async fn read(mode: Mode, mut messages: Streaming<Bytes>, answers: Answers) {
    while let Some(Ok(message)) = messages.next().await {
        if mode == Mode::Echo {
            // A call that has ended takes no answers.
            let _ = answers.try_send(Ok(Bytes::new()));
            continue;
        }
        let answers = answers.clone();
        INBOX.with_borrow_mut(|inbox| inbox.push(Arrived { message, answers }));
        ARRIVED.notify_one();
    }
}
