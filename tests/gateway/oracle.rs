//! The released files are what pandas and onnxruntime say, whatever the payload, the batch size, the order
//! within the grace and the number of workers; and every score is onnxruntime's.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use bailiwick::commands::proto;
use serde_json::{Value, json};

use crate::common::{self, TestGateway};

/// Every kind of payload; the CloudEvents ones by what the data of an event is.
const KINDS: [&str; 7] = ["rows", "arrow", "flight", "json-text", "json-binary", "protobuf-binary", "protobuf-any"];
/// Records per request; 0 is anything from one to hundreds in turn.
const BATCHES: [usize; 4] = [7, 256, 4_096, 0];
const WORKERS: [usize; 3] = [1, 2, 4];
/// How many of an example's records each combination of these is tried with.
const SOME: usize = 3_000;

/// How the records of one gateway come.
#[derive(Debug)]
struct Case {
    kind: &'static str,
    batch: usize,
    shuffle_seconds: u32,
    /// All of them, or the first.
    records: Option<usize>,
}

/// The outside producer and the oracle of an example.
pub(crate) struct Judge {
    pub(crate) example: &'static str,
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// What it judges now.
    case: String,
    _scratch: tempfile::TempDir,
}

impl Judge {
    pub(crate) fn of(example: &'static str, stream: &str) -> Self {
        let scratch = tempfile::TempDir::new().unwrap();
        let directory = common::root().join("examples").join(example);
        let rows_proto = scratch.path().join("stream.proto");
        std::fs::write(&rows_proto, proto::proto(&directory.join("gateway.toml"), stream).unwrap()).unwrap();
        let mut child = Command::new(common::python())
            .arg(common::root().join("tests/python/judge.py"))
            .args([&directory, &common::root().join("proto"), &rows_proto])
            .arg("eea")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (asks, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { example, child, asks, answers, case: String::new(), _scratch: scratch }
    }

    pub(crate) fn ask(&mut self, what: &Value) -> Value {
        writeln!(self.asks, "{what}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer)
            .unwrap_or_else(|_| panic!("{}, {}: {what} has no answer", self.example, self.case))
    }

    /// One gateway for each number of workers gets the same records and releases what the oracle expects.
    async fn agrees(&mut self, case: &Case, workers: &[usize]) {
        let Case { kind, batch, shuffle_seconds, records } = case;
        self.case = format!("{case:?}");
        self.ask(&json!({"prepare": kind, "batch": batch, "shuffle": shuffle_seconds, "records": records}));
        for &workers in workers {
            self.case = format!("{case:?}, {workers} workers");
            let config = format!("{}/gateway.toml", self.example);
            let gateway = TestGateway::start_with(&config, |config| config.workers = workers).await;
            let sent = self.ask(&json!({"send": gateway.app.address().to_string()}));
            let count = |name: &str| sent[name].as_u64().unwrap();
            assert_eq!(count("accepted") + count("refused"), count("sent"), "{}", self.case);
            let TestGateway { app, released, journal: _journal } = gateway;
            assert_eq!(app.stop().await.left, []);
            let told = self.ask(&json!({"compare": released.path(), "records": records}));
            assert_eq!(told["records"], sent["accepted"], "{}", self.case);
            assert!(told["cells"].as_u64().unwrap() > 20, "the example's data show nothing: {told}");
        }
    }

    /// Some of the records in every way.
    async fn agrees_whatever(&mut self, shuffle_seconds: u32) {
        for (kind, batch) in KINDS.iter().flat_map(|kind| BATCHES.map(|batch| (kind, batch))) {
            for shuffle_seconds in [0, shuffle_seconds] {
                self.agrees(&Case { kind, batch, shuffle_seconds, records: Some(SOME) }, &WORKERS).await;
            }
        }
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn card_fraud() {
    let mut judge = Judge::of("card-fraud", "payments");
    judge.agrees_whatever(50).await;
    judge.agrees(&Case { kind: "rows", batch: 100, shuffle_seconds: 50, records: None }, &[2]).await;
    judge.agrees(&Case { kind: "arrow", batch: 777, shuffle_seconds: 0, records: None }, &[3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn predictive_maintenance() {
    let mut judge = Judge::of("predictive-maintenance", "readings");
    judge.agrees_whatever(20).await;
    judge.agrees(&Case { kind: "json-text", batch: 64, shuffle_seconds: 20, records: None }, &[2]).await;
    judge.agrees(&Case { kind: "flight", batch: 1_000, shuffle_seconds: 0, records: None }, &[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delivery_eta() {
    let mut judge = Judge::of("delivery-eta", "deliveries");
    judge.agrees_whatever(600).await;
    judge.agrees(&Case { kind: "arrow", batch: 8_192, shuffle_seconds: 600, records: None }, &[2]).await;
    judge.agrees(&Case { kind: "rows", batch: 33, shuffle_seconds: 0, records: None }, &[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generic_client_finds_its_way_by_reflection() {
    let gateway = TestGateway::start("card-fraud/gateway.toml").await;
    let address = gateway.app.address().to_string();
    let script = common::root().join("tests/python/reflect.py");
    let output = Command::new(common::python()).arg(script).arg(address).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    gateway.stop().await;
}
