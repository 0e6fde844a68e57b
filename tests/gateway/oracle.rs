//! The released files are what pandas and onnxruntime say, whatever the payload, the batch size, the order
//! within the grace and the number of workers; and every score is onnxruntime's.

use std::process::Command;

use bailiwick::commands::proto;
use serde_json::Value;

use crate::common::{self, TestGateway};

struct Run {
    example: &'static str,
    stream: &'static str,
    region: &'static str,
    kind: &'static str,
    batch: usize,
    workers: usize,
    shuffle_seconds: u32,
}

async fn run(script: &'static str, arguments: Vec<String>) -> Value {
    let output = tokio::task::spawn_blocking(move || {
        Command::new(common::python())
            .arg(common::root().join("tests/python").join(script))
            .args(arguments)
            .output()
            .unwrap()
    });
    let output = output.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

async fn agrees(case: Run) {
    let config = format!("{}/gateway.toml", case.example);
    let gateway = TestGateway::start_with(&config, |config| config.workers = case.workers).await;
    let directory = common::root().join("examples").join(case.example);
    let scratch = tempfile::TempDir::new().unwrap();
    let rows_proto = scratch.path().join("stream.proto");
    std::fs::write(&rows_proto, proto::proto(&directory.join("gateway.toml"), case.stream).unwrap()).unwrap();
    let text = |path: &std::path::Path| path.display().to_string();
    let arguments = vec![
        gateway.app.address().to_string(),
        text(&directory),
        text(&common::root().join("proto")),
        text(&rows_proto),
        case.kind.to_owned(),
        case.batch.to_string(),
        case.shuffle_seconds.to_string(),
    ];
    let sent = run("client.py", arguments).await;
    assert_eq!(sent["accepted"].as_u64().unwrap() + sent["refused"].as_u64().unwrap(), sent["sent"].as_u64().unwrap());
    let released = gateway.released.path().to_owned();
    let TestGateway { app, released: guard, journal: _journal } = gateway;
    app.stop().await;
    let cells = run("oracle.py", vec![text(&directory), text(&released), case.region.to_owned()]).await;
    assert_eq!(cells["records"], sent["accepted"]);
    drop(guard);
}

#[tokio::test(flavor = "multi_thread")]
async fn card_fraud_as_protobuf_rows() {
    agrees(Run {
        example: "card-fraud",
        stream: "payments",
        region: "eea",
        kind: "rows",
        batch: 100,
        workers: 2,
        shuffle_seconds: 50,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn card_fraud_as_arrow() {
    agrees(Run {
        example: "card-fraud",
        stream: "payments",
        region: "eea",
        kind: "arrow",
        batch: 777,
        workers: 3,
        shuffle_seconds: 0,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_as_cloud_events() {
    let (example, stream, region, kind) = ("predictive-maintenance", "readings", "eea", "cloud-events");
    agrees(Run { example, stream, region, kind, batch: 64, workers: 2, shuffle_seconds: 20 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_as_flight() {
    let (example, stream, region, kind) = ("predictive-maintenance", "readings", "eea", "flight");
    agrees(Run { example, stream, region, kind, batch: 1_000, workers: 1, shuffle_seconds: 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delivery_as_arrow_in_large_batches() {
    let (example, stream, region, kind) = ("delivery-eta", "deliveries", "eea", "arrow");
    agrees(Run { example, stream, region, kind, batch: 8_192, workers: 2, shuffle_seconds: 600 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delivery_as_protobuf_rows_one_worker() {
    let (example, stream, region, kind) = ("delivery-eta", "deliveries", "eea", "rows");
    agrees(Run { example, stream, region, kind, batch: 33, workers: 1, shuffle_seconds: 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generic_client_finds_its_way_by_reflection() {
    let gateway = TestGateway::start("card-fraud/gateway.toml").await;
    run("reflect.py", vec![gateway.app.address().to_string()]).await;
    gateway.stop().await;
}
