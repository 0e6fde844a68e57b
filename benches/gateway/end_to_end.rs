//! The gateway as a process of its own, over loopback, with one worker, answering when the records are on disk;
//! beside it the same with the journal in memory, and a tonic server that takes the same bytes and does nothing
//! with them. The three alternate, each time with an empty journal; figures are medians.

use std::path::Path;
use std::pin::Pin;
use std::process::Command;

use bailiwick::ingress::proto::ingest::ingest_server::{Ingest, IngestServer};
use bailiwick::ingress::proto::ingest::publish_request::Payload;
use bailiwick::ingress::proto::ingest::{PublishRequest, PublishResponse};
use futures::{Stream, StreamExt};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

use super::process::{Deployment, Load, Server, bytes_under, file_system, load};
use super::records::Prepared;
use super::{figure, median};

/// Set in the process that is the bare echo.
pub(super) const ECHO: &str = "BAILIWICK_BENCH_ECHO";

/// Where a journal is not on a disk.
const IN_MEMORY: &str = "/dev/shm";
const ROUNDS: usize = 3;
const REQUESTS: usize = 5_000;

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
            .max_frame_size(96 << 10)
            .add_service(IngestServer::new(Echo).max_decoding_message_size(64 << 20))
            .serve_with_incoming(connections)
            .await
            .unwrap();
    });
}

/// One run of the gateway.
struct Run {
    load: Load,
    memory: f64,
    bytes_out: u64,
}

async fn gateway(parent: &Path, payloads: &[Payload]) -> Run {
    let deployment = Deployment::new(parent);
    let gateway = deployment.start();
    let load = load(&gateway, payloads, 1, REQUESTS).await;
    let memory = gateway.memory();
    gateway.stop();
    let bytes_out = bytes_under(&deployment.path("released"));
    assert!(bytes_out > 0, "nothing was released");
    Run { load, memory, bytes_out }
}

fn payload_bytes(payload: &Payload) -> usize {
    match payload {
        Payload::Rows(bytes) | Payload::ArrowIpc(bytes) | Payload::CloudEvents(bytes) => bytes.len(),
    }
}

type Percentile = fn(&Load) -> f64;

/// Runs the gateway and the echo under each payload kind.
pub(super) fn run(records: &Prepared, bare_score: f64) {
    let on_disk = std::env::temp_dir();
    let in_memory = Some(Path::new(IN_MEMORY)).filter(|path| path.is_dir());
    println!("# end to end: the journal is on {} ({}; TMPDIR chooses)", file_system(&on_disk), on_disk.display());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let arrow: Vec<Payload> = records.arrow.iter().map(|bytes| Payload::ArrowIpc(bytes.clone())).collect();
    let rows: Vec<Payload> = records.rows.iter().map(|bytes| Payload::Rows(bytes.clone())).collect();
    for (kind, payloads) in [("arrow", arrow), ("protobuf rows", rows)] {
        let (mut bare, mut memory, mut disk) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let echo = Server::start(Command::new(std::env::current_exe().unwrap()).env(ECHO, "1"));
            bare.push(runtime.block_on(load(&echo, &payloads, 1, REQUESTS)));
            drop(echo);
            memory.extend(in_memory.map(|parent| runtime.block_on(gateway(parent, &payloads)).load));
            disk.push(runtime.block_on(gateway(&on_disk, &payloads)));
        }
        let name = |what: &str| format!("end to end, {kind}: {what}");
        let of_bare = |value: fn(&Load) -> f64| median(bare.iter().map(value));
        let of_disk = |value: fn(&Load) -> f64| median(disk.iter().map(|run| value(&run.load)));
        let (cpu, rate) = (of_disk(|load| load.cpu), of_disk(|load| load.rate));
        figure(&name("gateway CPU"), cpu, "ns/record", Some(cpu / (of_bare(|load| load.cpu) + bare_score)));
        figure(&name("bare tonic echo CPU"), of_bare(|load| load.cpu), "ns/record", None);
        figure(&name("throughput"), rate, "records/s", Some(rate / of_bare(|load| load.rate)));
        if !memory.is_empty() {
            let rates: Vec<f64> = disk.iter().zip(&memory).map(|(disk, memory)| disk.load.rate / memory.rate).collect();
            let (cpu, rate) = (median(memory.iter().map(|load| load.cpu)), median(memory.iter().map(|load| load.rate)));
            figure(&name("gateway CPU, journal in memory"), cpu, "ns/record", None);
            figure(&name("throughput, journal in memory"), rate, "records/s", None);
            figure(&name("throughput on disk per that in memory"), median(rates), "1", None);
        }
        let percentiles: [(&str, Percentile); 3] = [
            ("p50", |load| load.latency(0.5)),
            ("p99", |load| load.latency(0.99)),
            ("p99.9", |load| load.latency(0.999)),
        ];
        for (percentile, latency) in percentiles {
            let (whole, bare) = (of_disk(latency), of_bare(latency));
            figure(&name(&format!("ack latency {percentile}")), whole, "us", Some(whole / bare));
        }
        figure(&name("memory, at most"), disk.iter().map(|run| run.memory).fold(0.0, f64::max), "MiB", None);
        let bytes_in: usize = payloads.iter().cycle().take(REQUESTS).map(payload_bytes).sum();
        let bytes_out = median(disk.iter().map(|run| run.bytes_out as f64));
        figure(&name("bytes out per byte in"), bytes_out / bytes_in as f64, "bytes/byte", None);
    }
}
