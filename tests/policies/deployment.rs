//! A folder with a small gateway's configuration, policies and journal; the gateway in this process or as its own; and a
//! producer.

use std::fs::{self, File};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow_array::RecordBatch;
use bailiwick::app::App;
use bailiwick::clock::Clock;
use bailiwick::config::Config;
use bailiwick::ingress::grpc::client;
use bailiwick::ingress::proto::ingest::ingest_client::IngestClient;
use bailiwick::ingress::proto::ingest::{PublishRequest, PublishResponse};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::common::folder::Folder;
use crate::common::laws::CLASSES;
use crate::common::{PATIENCE, changed, gateway, records};

pub(crate) use crate::common::laws::regime;
pub(crate) use crate::common::process::Process;

const GATEWAY: &str = r#"
[gateway]
stop_within = "PT60S"
id       = "g-1"
country  = "DE"
serves   = ["aa"]
policies = ["policies"]

[listen]
grpc = "127.0.0.1:0"

[scoring]
workers = 1

[journal]
directory = "journal"

[destinations.desk]
kind         = "file"
directory    = "released/desk"
rotate_after = "PT0S"

[destinations.hub]
kind         = "file"
directory    = "released/hub"
rotate_after = "PT0S"
"#;

const DEPLOYMENT: &str = r#"
schema = "bailiwick.policy/1"

[streams.visits]
event_time  = "at"
idle_after  = "PT1H"
history_from = "2013-01-01T00:00:00Z"
contributor = "person"
contributor_is_person = true

[streams.visits.facts]
"subject.residence" = [{ field = "country", strength = 90 }]

[streams.visits.fields]
at      = { type = "timestamp", class = "personal" }
person  = { type = "string", class = "personal" }
country = { type = "string", class = "personal" }
amount  = { type = "float64", class = "operational", range = [0, 1000], required = false }

[datasets.by_country]
stream           = "visits"
window           = { size = "PT1M", grace = "PT1S" }
min_contributors = 5
group_by         = [{ field = "country", domain = ["DE", "FR", "IN"] }]
metrics          = [{ name = "visits", fn = "count" }, { name = "amount", fn = "sum", field = "amount" }]

[destinations.desk]
country = "IE"
accepts = ["by_country"]

[destinations.hub]
country = "US"
accepts = ["by_country"]
"#;

/// The policy file of the deployment.
pub(crate) const POLICY: &str = "policies/policy.toml";
/// The file of the regime that is served.
pub(crate) const REGIME: &str = "policies/aa.toml";

/// A gateway's folder.
pub(crate) struct Deployment(Folder);

impl Deref for Deployment {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.0
    }
}

/// All files in and below a folder, which may not be there.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let all = entries.map(|entry| entry.unwrap().path());
    all.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

impl Deployment {
    /// Waits until the desk has so many lines: these.
    pub(crate) async fn until_released(&self, lines: usize) -> Vec<Value> {
        let began = Clock::start();
        loop {
            let released = self.released("desk");
            if released.len() >= lines {
                return released;
            }
            assert!(began.now() < PATIENCE, "{lines} lines, and there are {}", released.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the hub's files of columns hold, Arrow or Parquet. A file that is being written has another name.
    pub(crate) fn columns_at_hub(&self) -> Vec<RecordBatch> {
        let all = files(&self.path("released/hub")).into_iter().flat_map(|path| {
            let open = || File::open(&path).unwrap();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("parquet") => {
                    let reader = ParquetRecordBatchReaderBuilder::try_new(open()).unwrap().build().unwrap();
                    reader.map(Result::unwrap).collect::<Vec<_>>()
                }
                Some("arrow") => {
                    arrow_ipc::reader::FileReader::try_new(open(), None).unwrap().map(Result::unwrap).collect()
                }
                _ => Vec::new(),
            }
        });
        all.collect()
    }

    pub(crate) fn new() -> Self {
        Self(Folder::holding([
            ("gateway.toml", GATEWAY),
            ("policies/classes.toml", CLASSES),
            (POLICY, DEPLOYMENT),
            (REGIME, &regime("aa", r#""DE", "FR""#, "DE", "redirect")),
            ("policies/bb.toml", &regime("bb", r#""IN""#, "IN", "refuse")),
        ]))
    }

    /// The same folder again, without what a gateway has written.
    pub(crate) fn copy(&self) -> Self {
        let copy = self.0.copy();
        copy.remove("journal");
        copy.remove("released");
        Self(copy)
    }

    /// The same folder again, with what a gateway has left in it.
    pub(crate) fn as_left(&self) -> Self {
        Self(self.0.copy())
    }

    /// The number of contributors that the regime asks for.
    pub(crate) fn set_k(&self, k: usize) {
        let text = self.read(REGIME);
        let line = text.lines().find(|line| line.starts_with("min_contributors")).unwrap();
        self.edit(REGIME, line, &format!("min_contributors = {k}"));
    }

    /// Adds a second stream, `calls`, as the first one is, with a dataset that the desk accepts.
    pub(crate) fn add_calls(&self) {
        let policy = self.read(POLICY);
        let (from, through) = (policy.find("[streams.visits]").unwrap(), policy.find("[destinations.desk]").unwrap());
        let calls = changed(&policy[from..through], "streams.visits", "streams.calls");
        let calls = changed(&calls, "by_country", "calls_by_country");
        let calls = changed(&calls, "= \"visits\"\nwindow", "= \"calls\"\nwindow");
        self.write(POLICY, policy.clone() + &calls);
        let desk = "[destinations.desk]\ncountry = \"IE\"\naccepts = [";
        self.edit(POLICY, desk, &format!("{desk}\"calls_by_country\", "));
    }

    /// The digest of the policies as they are now.
    pub(crate) fn digest(&self) -> String {
        self.config().policy.digest.to_string()
    }

    pub(crate) async fn start(&self) -> Gateway {
        self.start_with(|_| {}).await
    }

    pub(crate) async fn start_with(&self, change: impl FnOnce(&mut Config)) -> Gateway {
        Gateway { app: self.start_app(change).await.unwrap(), file: self.path("gateway.toml") }
    }

    /// Why it does not start.
    pub(crate) async fn start_error(&self) -> String {
        format!("{:#}", self.start_app(|_| {}).await.err().unwrap())
    }

    /// The lines that a destination has.
    pub(crate) fn released(&self, destination: &str) -> Vec<Value> {
        self.lines(&format!("released/{destination}"))
    }

    /// The released counts of a destination: minute, country, visits.
    pub(crate) fn counts(&self, destination: &str) -> Vec<(u32, String, i64)> {
        let lines = self.released(destination);
        let mut counts: Vec<_> = lines
            .iter()
            .map(|line| {
                let minute = line["window_start"].as_str().unwrap()[14..16].parse().unwrap();
                (minute, line["country"].as_str().unwrap().to_owned(), line["visits"].as_i64().unwrap())
            })
            .collect();
        counts.sort();
        counts
    }
}

/// A gateway in this process.
pub(crate) struct Gateway {
    pub(crate) app: App,
    file: PathBuf,
}

impl Gateway {
    /// Reloads; the digest that is in force then, or why not and what to do.
    pub(crate) async fn reload(&self) -> Result<String, String> {
        let reloaded = self.app.reload(&self.file).await;
        reloaded
            .map(|reloaded| reloaded.policy.to_string())
            .map_err(|refused| format!("{refused}: {}", refused.advice()))
    }

    pub(crate) async fn producer(&self, name: &str) -> Producer {
        Producer::connect(&gateway::endpoint(&self.app), name).await
    }

    pub(crate) async fn stop(self) {
        self.app.stop().await;
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&App) -> bool) {
        let began = Clock::start();
        while !holds(&self.app) {
            assert!(began.now() < PATIENCE, "{what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A producer, which numbers its requests.
pub(crate) struct Producer {
    client: IngestClient<Channel>,
    stream: &'static str,
    name: String,
    pub(crate) sequence: u64,
}

/// An event time: a minute and a second of one hour.
pub(crate) fn at(minute: u32, second: u32) -> String {
    format!("2026-01-05T12:{minute:02}:{second:02}Z")
}

/// A record.
pub(crate) fn visit(minute: u32, person: &str, country: &str) -> Value {
    json!({ "at": at(minute, 30), "person": person, "country": country, "amount": 1.0 })
}

/// Records of so many persons in a minute.
pub(crate) fn visits(minute: u32, persons: usize, country: &str) -> Vec<Value> {
    (0..persons).map(|person| visit(minute, &format!("{country}-{person}"), country)).collect()
}

impl Producer {
    pub(crate) async fn connect(endpoint: &str, name: &str) -> Self {
        Self::of_stream("visits", endpoint, name).await
    }

    pub(crate) async fn of_stream(stream: &'static str, endpoint: &str, name: &str) -> Self {
        Self { client: client::connect(endpoint).await.unwrap(), stream, name: name.to_owned(), sequence: 0 }
    }

    pub(crate) async fn publish(&mut self, records: &[Value]) -> PublishResponse {
        self.sequence += 1;
        self.publish_as(self.sequence, records).await
    }

    pub(crate) async fn publish_as(&mut self, sequence: u64, records: &[Value]) -> PublishResponse {
        self.try_publish_as(sequence, records).await.unwrap()
    }

    pub(crate) async fn try_publish_as(&mut self, sequence: u64, records: &[Value]) -> Result<PublishResponse, Status> {
        let payload = Some(records::json_events(records));
        let request = PublishRequest { payload, sequence, ..self.request() };
        self.client.publish_once(request).await.map(Response::into_inner)
    }

    /// All of these are taken.
    pub(crate) async fn send(&mut self, records: &[Value]) {
        let response = self.publish(records).await;
        assert_eq!((response.accepted as usize, response.refusals), (records.len(), Vec::new()));
    }

    /// Nothing comes any more from before a minute: the windows before it close.
    pub(crate) async fn close_before(&mut self, minute: u32) {
        let time: jiff::Timestamp = at(minute, 1).parse().unwrap();
        let request = PublishRequest { complete_through: time.as_microsecond(), ..self.request() };
        self.client.publish_once(request).await.unwrap();
    }

    fn request(&self) -> PublishRequest {
        PublishRequest { epoch: 1, ..records::introduction(self.stream, &self.name) }
    }
}

/// The reasons and rules of the refusals, record by record.
pub(crate) fn refusals(response: &PublishResponse) -> Vec<(u32, &'static str, Vec<String>)> {
    let each = response.refusals.iter().flat_map(|refusal| (0..refusal.count).map(move |offset| (offset, refusal)));
    each.map(|(offset, refusal)| (refusal.index + offset, refusal.reason().as_str_name(), refusal.rules.clone()))
        .collect()
}
