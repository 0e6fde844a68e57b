//! A folder with a small gateway's configuration, policies and journal; the gateway in this process or as its own; and a
//! producer.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use bailiwick::app::{self, App};
use bailiwick::clock::Clock;
use bailiwick::config::{self, Config};
use bailiwick::domain::document::Severity;
use bailiwick::ingress::grpc::client;
use bailiwick::ingress::proto::cloudevents::cloud_event::Data;
use bailiwick::ingress::proto::cloudevents::{CloudEvent, CloudEventBatch};
use bailiwick::ingress::proto::ingest::ingest_client::IngestClient;
use bailiwick::ingress::proto::ingest::publish_request::Payload;
use bailiwick::ingress::proto::ingest::{PublishRequest, PublishResponse};
use prost::Message;
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::common;
use crate::common::process::{Logged, PATIENCE};

const GATEWAY: &str = r#"
[gateway]
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

const CLASSES: &str = r#"
schema = "bailiwick.classes/1"

[classes.operational]
about   = "no person"
parents = []

[classes.personal]
about   = "a person"
parents = []
"#;

const DEPLOYMENT: &str = r#"
schema = "bailiwick.policy/1"

[streams.visits]
event_time  = "at"
history_from = "2013-01-01T00:00:00Z"
contributor = "person"

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

/// A regime over residents of a few countries, whose records stay in one.
pub(crate) fn regime(id: &str, residents: &str, home: &str, misroute: &str) -> String {
    format!(
        r#"schema           = "bailiwick.regime/1"
id               = "{id}"
name             = "The law {id}"
notice           = "An example for counsel to confirm, not legal advice."
as_of            = 2026-11-01
review_by        = 2099-01-01
confidence       = "high"
sources          = ["invented for a test"]
classes          = ["personal"]
localisation     = "none"
misroute         = "{misroute}"
min_contributors = 10

[[applies]]
fact = "subject.residence"
in   = [{residents}]

[[transfers]]
id    = "home"
form  = "identifiable"
to    = ["{home}"]
basis = "at home"

[[transfers]]
id    = "statistics"
form  = "statistical"
to    = ["any"]
basis = "no person"
"#
    )
}

/// A gateway's folder.
pub(crate) struct Deployment {
    root: TempDir,
}

impl Deployment {
    pub(crate) fn new() -> Self {
        let deployment = Self { root: TempDir::new().unwrap() };
        deployment.write("gateway.toml", GATEWAY);
        deployment.write("policies/classes.toml", CLASSES);
        deployment.write(POLICY, DEPLOYMENT);
        deployment.write(REGIME, regime("aa", r#""DE", "FR""#, "DE", "redirect"));
        deployment.write("policies/bb.toml", regime("bb", r#""IN""#, "IN", "refuse"));
        deployment
    }

    /// The same folder again, without what a gateway has written.
    pub(crate) fn copy(&self) -> Self {
        let root = TempDir::new().unwrap();
        let copied = Command::new("cp").arg("-r").arg(self.root.path().join(".")).arg(root.path()).status().unwrap();
        assert!(copied.success());
        for made in ["journal", "released"] {
            let _ = fs::remove_dir_all(root.path().join(made));
        }
        Self { root }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Puts a file in the place of another, whole.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let (path, new) = (self.path(name), self.path("new"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&new, text).unwrap();
        fs::rename(&new, &path).unwrap();
    }

    /// Replaces words of a file, which must be there.
    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = self.read(name);
        assert!(text.contains(from), "no `{from}` in\n{text}");
        self.write(name, text.replace(from, to));
    }

    pub(crate) fn add(&self, name: &str, text: &str) {
        self.write(name, self.read(name) + text);
    }

    /// The number of contributors that the regime asks for.
    pub(crate) fn set_k(&self, k: usize) {
        let text = self.read(REGIME);
        let line = text.lines().find(|line| line.starts_with("min_contributors")).unwrap();
        self.edit(REGIME, line, &format!("min_contributors = {k}"));
    }

    /// What is wrong, with its places.
    pub(crate) fn errors(&self) -> Vec<String> {
        let problems = config::load(&self.path("gateway.toml")).unwrap().problems;
        let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
        errors.map(|problem| format!("{}: {}", problem.place, problem.message)).collect()
    }

    pub(crate) fn config(&self) -> Config {
        let loaded = config::load(&self.path("gateway.toml")).unwrap();
        let messages: Vec<String> =
            loaded.problems.iter().map(|problem| format!("{}: {}", problem.place, problem.message)).collect();
        loaded.config.unwrap_or_else(|| panic!("{messages:?}"))
    }

    /// The digest of the policies as they are now.
    pub(crate) fn digest(&self) -> String {
        self.config().policy.digest.to_string()
    }

    pub(crate) async fn start(&self) -> Gateway {
        self.start_with(|_| {}).await
    }

    pub(crate) async fn start_with(&self, change: impl FnOnce(&mut Config)) -> Gateway {
        let mut config = self.config();
        change(&mut config);
        let listener = app::bind(&config).await.unwrap();
        Gateway { app: App::start(config, listener).await.unwrap(), file: self.path("gateway.toml") }
    }

    /// Why it does not start.
    pub(crate) async fn start_error(&self) -> String {
        let config = self.config();
        let listener = app::bind(&config).await.unwrap();
        format!("{:#}", App::start(config, listener).await.err().unwrap())
    }

    pub(crate) fn spawn(&self) -> Process {
        Process::start(self.root.path())
    }

    /// The lines that a destination has.
    pub(crate) fn released(&self, destination: &str) -> Vec<Value> {
        common::lines(&self.path("released").join(destination))
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

    /// Whether any file below a directory holds these bytes.
    pub(crate) fn holds(&self, directory: &str, bytes: &str) -> bool {
        self.holds_bytes(directory, bytes.as_bytes())
    }

    pub(crate) fn holds_bytes(&self, directory: &str, bytes: &[u8]) -> bool {
        holds(&self.path(directory), bytes)
    }

    /// The bytes of all files that a destination has.
    pub(crate) fn bytes(&self, destination: &str) -> Vec<u8> {
        let mut files: Vec<Vec<u8>> = Vec::new();
        collect(&self.path("released").join(destination), &mut files);
        files.sort();
        files.concat()
    }
}

fn collect(path: &Path, files: &mut Vec<Vec<u8>>) {
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(fs::read(path).unwrap());
        }
    }
}

fn holds(path: &Path, words: &[u8]) -> bool {
    if path.is_dir() {
        return fs::read_dir(path).unwrap().any(|entry| holds(&entry.unwrap().path(), words));
    }
    let Ok(bytes) = fs::read(path) else { return false };
    bytes.windows(words.len()).any(|window| window == words)
}

/// A gateway in this process.
pub(crate) struct Gateway {
    pub(crate) app: App,
    file: PathBuf,
}

impl Gateway {
    /// Reloads; the digest that is in force then, or why not.
    pub(crate) async fn reload(&self) -> Result<String, String> {
        let reloaded = self.app.reload(&self.file).await;
        reloaded.map(|reloaded| reloaded.policy.to_string()).map_err(|refused| refused.to_string())
    }

    pub(crate) async fn producer(&self, name: &str) -> Producer {
        Producer::connect(&format!("http://{}", self.app.address()), name).await
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
        Self { client: client::connect(endpoint).await.unwrap(), name: name.to_owned(), sequence: 0 }
    }

    pub(crate) async fn publish(&mut self, records: &[Value]) -> PublishResponse {
        self.sequence += 1;
        self.publish_as(self.sequence, records).await
    }

    pub(crate) async fn publish_as(&mut self, sequence: u64, records: &[Value]) -> PublishResponse {
        self.try_publish_as(sequence, records).await.unwrap()
    }

    pub(crate) async fn try_publish_as(&mut self, sequence: u64, records: &[Value]) -> Result<PublishResponse, Status> {
        let events = records
            .iter()
            .map(|record| CloudEvent { data: Some(Data::TextData(record.to_string())), ..Default::default() });
        let payload = Payload::CloudEvents(CloudEventBatch { events: events.collect() }.encode_to_vec().into());
        let request = PublishRequest { payload: Some(payload), sequence, ..self.request() };
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
        PublishRequest { stream: "visits".into(), producer: self.name.clone(), epoch: 1, ..Default::default() }
    }
}

/// The reasons and rules of the refusals, record by record.
pub(crate) fn refusals(response: &PublishResponse) -> Vec<(u32, &'static str, Vec<String>)> {
    let each = response.refusals.iter().flat_map(|refusal| (0..refusal.count).map(move |offset| (offset, refusal)));
    each.map(|(offset, refusal)| (refusal.index + offset, refusal.reason().as_str_name(), refusal.rules.clone()))
        .collect()
}

/// A gateway as a process; killed when it is dropped.
pub(crate) struct Process {
    gateway: Logged,
    endpoint: String,
}

impl Deref for Process {
    type Target = Logged;

    fn deref(&self) -> &Logged {
        &self.gateway
    }
}

impl Process {
    fn start(directory: &Path) -> Self {
        let gateway = Logged::start(directory);
        let serving = gateway.wait_for("serving", 1);
        let (_, address) = serving.split_once("address=").unwrap();
        let endpoint = format!("http://{}", address.split(' ').next().unwrap());
        Self { gateway, endpoint }
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) async fn producer(&self, name: &str) -> Producer {
        Producer::connect(&self.endpoint, name).await
    }

    /// SIGHUP, and what came of it: the line that says so.
    pub(crate) fn reload(&self) -> String {
        let outcomes = || -> Vec<String> {
            let log = self.log();
            let is_outcome =
                |line: &&String| line.contains("policies are in force") || line.contains("policies were not replaced");
            log.iter().filter(is_outcome).cloned().collect()
        };
        let (before, began) = (outcomes().len(), Clock::start());
        self.signal("HUP");
        loop {
            if let Some(line) = outcomes().get(before) {
                return line.clone();
            }
            assert!(began.now() < PATIENCE, "nothing came of SIGHUP:\n{}", self.log().join("\n"));
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn kill(self) {
        self.gateway.kill();
    }

    pub(crate) fn stop(self) -> Vec<String> {
        self.gateway.stop()
    }
}
