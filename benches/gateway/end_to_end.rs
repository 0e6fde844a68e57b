//! The gateway as a process of its own, over loopback, with one worker; beside it a tonic server that takes
//! the same bytes and does nothing with them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bailiwick::adapters::grpc::client;
use bailiwick::adapters::grpc::proto::ingest::ingest_server::{Ingest, IngestServer};
use bailiwick::adapters::grpc::proto::ingest::publish_request::Payload;
use bailiwick::adapters::grpc::proto::ingest::{PublishRequest, PublishResponse};
use futures::{Stream, StreamExt};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::records::{Prepared, example};
use super::{BATCH, figure};

/// Set in the process that is the bare echo.
pub(super) const ECHO: &str = "BAILIWICK_BENCH_ECHO";

/// Requests that are sent ahead of their responses.
const AHEAD: usize = 16;
const REQUESTS: usize = 8_000;

struct Echo;

#[tonic::async_trait]
impl Ingest for Echo {
    type PublishStream = Pin<Box<dyn Stream<Item = Result<PublishResponse, Status>> + Send>>;

    async fn publish(
        &self,
        request: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Self::PublishStream>, Status> {
        let responses = request.into_inner().map(|request| {
            request.map(|request| PublishResponse { sequence: request.sequence, ..PublishResponse::default() })
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn publish_once(&self, _: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        Ok(Response::new(PublishResponse::default()))
    }
}

/// The bare echo's process.
pub(super) fn echo() {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        eprintln!("serving address={}", listener.local_addr().unwrap());
        // The gateway's settings; without the first one responses wait for the client's acknowledgements.
        let connections = TcpListenerStream::new(listener).inspect(|connection| {
            connection.as_ref().unwrap().set_nodelay(true).unwrap();
        });
        tonic::transport::Server::builder()
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .max_frame_size(64 << 10)
            .add_service(IngestServer::new(Echo).max_decoding_message_size(64 << 20))
            .serve_with_incoming(connections)
            .await
            .unwrap();
    });
}

/// A server's process.
struct Server {
    child: Child,
    endpoint: String,
}

impl Server {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = log.find_map(|line| line.ok().filter(|line| line.contains("address="))).expect("the server ended");
        let address = line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        std::thread::spawn(move || log.for_each(drop));
        Self { child, endpoint: format!("http://{address}") }
    }

    /// CPU time used so far.
    fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        // utime and stime, in ticks of 10 ms (USER_HZ is 100 on Linux).
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    /// The most memory it held, in MiB.
    fn memory(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1_024.0
    }

    /// Stops it as an operator would: open windows are released.
    fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success(), "the gateway failed");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Load {
    cpu: f64,
    rate: f64,
    latencies: Vec<Duration>,
}

async fn load(server: &Server, payloads: &[Payload]) -> Load {
    let mut client = client::connect(&server.endpoint).await.unwrap();
    let (requests, outgoing) = mpsc::channel(AHEAD);
    let first = PublishRequest { stream: "payments".into(), producer: "bench".into(), ..PublishRequest::default() };
    requests.send(first).await.unwrap();
    let mut responses = client.publish(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    responses.message().await.unwrap().unwrap();
    let (mut sent, mut latencies) = (Vec::with_capacity(REQUESTS), Vec::with_capacity(REQUESTS));
    let (cpu, start) = (server.cpu(), Instant::now());
    while latencies.len() < REQUESTS {
        if sent.len() < REQUESTS && sent.len() - latencies.len() < AHEAD {
            let payload = Some(payloads[sent.len() % payloads.len()].clone());
            sent.push(Instant::now());
            requests.send(PublishRequest { payload, want_scores: true, ..PublishRequest::default() }).await.unwrap();
            continue;
        }
        let response = responses.message().await.unwrap().unwrap();
        assert!(response.error.is_none() && response.refusals.is_empty(), "a request was refused");
        latencies.push(sent[latencies.len()].elapsed());
    }
    let records = (REQUESTS * BATCH) as f64;
    latencies.sort();
    let rate = records / start.elapsed().as_secs_f64();
    Load { cpu: (server.cpu() - cpu).as_nanos() as f64 / records, rate, latencies }
}

fn payload_bytes(payload: &Payload) -> usize {
    match payload {
        Payload::Rows(bytes) | Payload::ArrowIpc(bytes) => bytes.len(),
        Payload::CloudEvents(_) => 0,
    }
}

/// The bytes of all files under a directory, which is removed.
fn take_released(directory: &Path) -> u64 {
    fn bytes(directory: &Path) -> u64 {
        let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
        let sizes = entries.map(|entry| match entry.metadata().unwrap() {
            metadata if metadata.is_dir() => bytes(&entry.path()),
            metadata => metadata.len(),
        });
        sizes.sum()
    }
    let bytes = bytes(directory);
    assert!(bytes > 0, "nothing was released");
    fs::remove_dir_all(directory).unwrap();
    bytes
}

/// Runs the gateway and the echo under each payload kind.
pub(super) fn run(records: &Prepared, bare_score: f64) {
    let directory = TempDir::new().unwrap();
    let config = fs::read_to_string(example().join("gateway.toml")).unwrap();
    let absolute = |path: &str| example().join(path).display().to_string();
    let config = config
        .replace(
            "\"../../policies\", \"policies\"",
            &format!("\"{}\", \"{}\"", absolute("../../policies"), absolute("policies")),
        )
        .replace("\"model.onnx\"", &format!("\"{}\"", absolute("model.onnx")))
        .replace("127.0.0.1:7400", "127.0.0.1:0");
    fs::write(directory.path().join("gateway.toml"), format!("{config}\n[scoring]\nworkers = 1\n")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let arrow: Vec<Payload> = records.arrow.iter().map(|bytes| Payload::ArrowIpc(bytes.clone())).collect();
    let rows: Vec<Payload> = records.rows.iter().map(|bytes| Payload::Rows(bytes.clone())).collect();
    for (kind, payloads) in [("arrow", arrow), ("protobuf rows", rows)] {
        let echo = Server::start(Command::new(std::env::current_exe().unwrap()).env(ECHO, "1"));
        let bare = runtime.block_on(load(&echo, &payloads));
        drop(echo);
        let mut command = Command::new(env!("CARGO_BIN_EXE_bailiwick"));
        let gateway = Server::start(command.arg("run").arg("-c").arg(directory.path().join("gateway.toml")));
        let whole = runtime.block_on(load(&gateway, &payloads));
        let memory = gateway.memory();
        gateway.stop();
        let bytes_out = take_released(&directory.path().join("released"));
        let name = |what: &str| format!("end to end, {kind}: {what}");
        figure(&name("gateway CPU"), whole.cpu, "ns/record", Some(whole.cpu / (bare.cpu + bare_score)));
        figure(&name("bare tonic echo CPU"), bare.cpu, "ns/record", None);
        figure(&name("throughput"), whole.rate, "records/s", Some(whole.rate / bare.rate));
        for (percentile, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            let at = |load: &Load| load.latencies[((load.latencies.len() - 1) as f64 * share) as usize].as_secs_f64();
            figure(&name(&format!("ack latency {percentile}")), at(&whole) * 1e6, "us", Some(at(&whole) / at(&bare)));
        }
        figure(&name("memory, at most"), memory, "MiB", None);
        let bytes_in: usize = payloads.iter().cycle().take(REQUESTS).map(payload_bytes).sum();
        figure(&name("bytes out per byte in"), bytes_out as f64 / bytes_in as f64, "bytes/byte", None);
    }
}
