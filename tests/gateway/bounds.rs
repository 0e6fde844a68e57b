//! What one client sends, or does not send, or does not read, stops nobody else.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use arrow_flight::FlightData;
use arrow_flight::flight_service_client::FlightServiceClient;
use bailiwick::clock::Clock;
use bailiwick::ingress::grpc::client;
use bailiwick::ingress::proto::ingest::ingest_client::IngestClient;
use bailiwick::ingress::proto::ingest::publish_request::Payload;
use bailiwick::ingress::proto::ingest::{PublishRequest, Reason};
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_types::StatusExt;

use crate::common::TestGateway;
use crate::common::process::{PATIENCE, Process, copy_of};

const STREAM: &str = "deliveries";

/// So many rows without a field: they are refused one by one.
fn rows(count: usize) -> PublishRequest {
    PublishRequest {
        stream: STREAM.into(),
        producer: "test".into(),
        payload: Some(Payload::Rows([0x0a, 0].repeat(count).into())),
        ..Default::default()
    }
}

/// Sends on a connection of its own, and waits for the answer.
async fn is_answered(gateway: &TestGateway) {
    let answer = timeout(PATIENCE, async { gateway.client().await.publish_once(rows(3)).await });
    let answer = answer.await.expect("a good client is answered").unwrap().into_inner();
    assert_eq!(answer.accepted, 0);
}

/// HTTP/2 by hand: what no client library does.
struct Raw(TcpStream);

impl Raw {
    async fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        Self(stream)
    }

    async fn frame(&mut self, kind: u8, flags: u8, call: u32, payload: &[u8]) {
        let length = (payload.len() as u32).to_be_bytes();
        let header = [&length[1..], &[kind, flags], &call.to_be_bytes()].concat();
        // A gateway may cut a connection that pays no heed to its windows: that is an answer, too.
        let _ = self.0.write_all(&[&header, payload].concat()).await;
    }

    /// Begins a call of `Publish`: its headers, as literals.
    async fn call(&mut self, call: u32) {
        let mut block = Vec::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/bailiwick.v1.Ingest/Publish"),
            (":authority", "gateway"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ] {
            block.push(0);
            for text in [name, value] {
                block.push(text.len() as u8);
                block.extend(text.as_bytes());
            }
        }
        self.frame(1, 4, call, &block).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_and_half_a_preface_give_their_slots_back() {
    let gateway = TestGateway::start_with("delivery-eta/gateway.toml", |config| config.connections_max = 4).await;
    let mut silent = Vec::new();
    for half in
        [b"".as_slice(), b"PRI * HTT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0"]
    {
        let mut connection = TcpStream::connect(gateway.app.address()).await.unwrap();
        connection.write_all(half).await.unwrap();
        silent.push(connection);
    }
    is_answered(&gateway).await;
    for mut connection in silent {
        let mut rest = Vec::new();
        // The gateway may have said its own settings before it gave up.
        timeout(PATIENCE, connection.read_to_end(&mut rest)).await.expect("it is closed").unwrap_or_default();
    }
    gateway.stop().await;
}

/// 80 calls of one connection, each with all of a large message but its end: others are answered meanwhile, and the calls
/// end.
#[tokio::test(flavor = "multi_thread")]
async fn messages_whose_end_does_not_come_stop_nobody() {
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    let mut raw = Raw::connect(gateway.app.address()).await;
    let length = 16_u32 << 20;
    for call in (0..80).map(|call| call * 2 + 1) {
        raw.call(call).await;
        raw.frame(0, 0, call, &[&[0], length.to_be_bytes().as_slice(), &[0; 40_000]].concat()).await;
    }
    for _ in 0..20 {
        is_answered(&gateway).await;
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_its_answers_stops_nobody() {
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    let channel = Endpoint::from_shared(gateway.endpoint()).unwrap().connect().await.unwrap();
    let mut unread = Vec::new();
    for _ in 0..8 {
        let requests = stream::iter((0..60).map(|_| rows(65_536))).chain(stream::pending());
        unread.push(IngestClient::new(channel.clone()).publish(requests).await.unwrap());
    }
    for _ in 0..20 {
        is_answered(&gateway).await;
    }
    drop(unread);
    gateway.stop().await;
}

/// Limits that the loader would refuse: a request is larger than all that may be in work, and nobody is stuck for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_budget_below_one_request_does_not_stop_the_intake() {
    let gateway = TestGateway::start_with("delivery-eta/gateway.toml", |config| {
        config.limits.batch_bytes_max = 20_000;
        config.limits.in_flight_bytes_max = 20_000;
    })
    .await;
    let idle = gateway.client().await.publish(stream::pending()).await.unwrap();
    let status = gateway.client().await.publish_once(rows(10_001)).await.unwrap_err();
    let info = status.get_error_details().error_info().unwrap().clone();
    assert_eq!(info.reason, Reason::TooLarge.as_str_name());
    is_answered(&gateway).await;
    drop(idle);
    gateway.stop().await;
}

async fn put(channel: Channel, messages: usize) -> tonic::Status {
    let data = FlightData { data_body: Bytes::from_static(&[0; 10_000]), ..Default::default() };
    let data = stream::iter(vec![data; messages]);
    FlightServiceClient::new(channel).do_put(data).await.unwrap_err()
}

/// A proxy's connection: hundreds of calls that are refused while they still send, and a good one beside them.
#[tokio::test(flavor = "multi_thread")]
async fn refused_calls_do_not_end_the_connection_that_they_share() {
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    let channel = Endpoint::from_shared(gateway.endpoint()).unwrap().connect().await.unwrap();
    let (requests, mut sent) = tokio::sync::mpsc::channel(1);
    let requests_of_call = stream::poll_fn(move |context| sent.poll_recv(context));
    let mut good = IngestClient::new(channel.clone()).publish(requests_of_call).await.unwrap().into_inner();
    for _ in 0..300 {
        assert_eq!(put(channel.clone(), 50).await.code(), Code::InvalidArgument);
    }
    requests.send(rows(1)).await.unwrap();
    let answer = timeout(PATIENCE, good.message()).await.expect("it is answered").unwrap();
    assert!(answer.is_some());
    // A stop waits for an open call.
    drop((requests, good));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_messages_are_refused_by_the_name_of_their_encoding() {
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    for encoding in ["gzip", "zstd"] {
        let mut request = Request::new(rows(1));
        request.metadata_mut().insert("grpc-encoding", encoding.parse().unwrap());
        let status = gateway.client().await.publish_once(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().contains(encoding), "{}", status.message());
    }
    gateway.stop().await;
}

/// 300 connections at 200 file descriptors: what has happened still goes into a checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn connections_leave_file_descriptors_for_checkpoints() {
    let (folder, port) = copy_of("card-fraud");
    let directory = folder.path("examples/card-fraud");
    let config = "examples/card-fraud/gateway.toml";
    folder.edit(config, "[journal]\n", "[journal]\ncheckpoint_every = \"PT1S\"\n");
    let gateway = Process::start_under(&directory, "ulimit -n 200", &["run", "-c", "gateway.toml"]);
    let mut client = client::connect(&format!("http://127.0.0.1:{port}")).await.unwrap();
    let mut connections = Vec::new();
    for _ in 0..300 {
        connections.push(Raw::connect(([127, 0, 0, 1], port).into()).await);
    }
    let checkpoints = || {
        let files = fs::read_dir(directory.join("journal/checkpoints")).unwrap();
        files.map(|file| file.unwrap().file_name()).collect::<BTreeSet<_>>()
    };
    let before = checkpoints();
    for _ in 0..3 {
        let request = PublishRequest { stream: "payments".into(), producer: "test".into(), ..Default::default() };
        client.publish_once(request).await.unwrap();
    }
    let began = Clock::start();
    while checkpoints() == before {
        assert!(began.now() < PATIENCE, "no checkpoint in\n{}", gateway.log().join("\n"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(gateway.lines("fewer connections").len(), 1);
    assert_eq!(gateway.lines("checkpoint").len(), 0, "{}", gateway.log().join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_stops_within_a_message_is_told_so() {
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    let mut raw = Raw::connect(gateway.app.address()).await;
    raw.call(1).await;
    raw.frame(0, 0, 1, &[0, 0, 0, 1, 0, 7, 7, 7]).await;
    // Trailers of the call are the only headers that come after its first ones.
    let mut came = Vec::new();
    let is_told = async {
        let mut buffer = [0; 4_096];
        while !came.windows(9).any(|frame| frame[3] == 1 && frame[4] & 1 == 1 && frame[8] == 1) {
            let length = raw.0.read(&mut buffer).await.unwrap();
            assert!(length > 0, "the connection ended");
            came.extend_from_slice(&buffer[..length]);
        }
    };
    timeout(PATIENCE, is_told).await.expect("the call ends");
    gateway.stop().await;
}
