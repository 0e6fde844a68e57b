//! A gateway with little memory, and a good producer.

use std::fs;
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bailiwick::clock::Clock;
use bailiwick::ingress::grpc::client;
use bailiwick::ingress::proto::ingest::ingest_client::IngestClient;
use bailiwick::ingress::proto::ingest::{PublishRequest, PublishResponse};
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::{RpcStatusExt, StatusExt};

use super::payloads::{json_events, record, request};
use crate::common::process::{BINARY, PATIENCE};

/// What the process may have. The bound is on data: heap, stacks, private mappings.
pub(super) const LIMIT_BYTES: u64 = 512 << 20;

const GATEWAY: &str = r#"
[gateway]
id       = "g-1"
country  = "DE"
serves   = ["aa"]
policies = ["policies"]

[listen]
grpc = "127.0.0.1:0"

[scoring]
workers = 2

[journal]
directory = "journal"

[destinations.desk]
kind      = "file"
directory = "released"
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

const POLICY: &str = r#"
schema = "bailiwick.policy/1"

[streams.visits]
event_time  = "at"
contributor = "person"

[streams.visits.facts]
"subject.residence" = [{ field = "country", strength = 90 }]

[streams.visits.fields]
at      = { type = "timestamp", class = "personal" }
person  = { type = "string", class = "personal" }
country = { type = "string", class = "personal" }
amount  = { type = "float64", class = "operational", range = [0, 1000], required = false }
number  = { type = "int64", class = "operational", range = [0, 100], required = false }
note    = { type = "string", class = "operational", required = false }

[datasets.by_country]
stream           = "visits"
window           = { size = "PT1M", grace = "PT1S" }
min_contributors = 10
group_by         = [{ field = "country", domain = ["DE", "FR", "IN"] }, { field = "note", domain = [WORDS] }]
metrics          = [{ name = "visits", fn = "count" }, { name = "amount", fn = "sum", field = "amount" }]

[destinations.desk]
country = "DE"
accepts = ["by_country"]
"#;

const REGIME: &str = r#"
schema           = "bailiwick.regime/1"
id               = "aa"
name             = "The law aa"
notice           = "An example for counsel to confirm, not legal advice."
as_of            = 2026-11-01
review_by        = 2099-01-01
confidence       = "high"
sources          = ["invented for a test"]
classes          = ["personal"]
localisation     = "none"
misroute         = "refuse"
min_contributors = 10

[[applies]]
fact = "subject.residence"
in   = ["DE", "FR", "IN"]

[[transfers]]
id    = "home"
form  = "identifiable"
to    = ["DE"]
basis = "at home"

[[transfers]]
id    = "statistics"
form  = "statistical"
to    = ["any"]
basis = "no person"
"#;

/// A gateway as a process of its own, with little memory. It is killed when it is dropped.
pub(super) struct Limited {
    child: Mutex<Child>,
    address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    _root: TempDir,
    /// One attack at a time: they are large, and what the good producer waits is measured.
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

impl Limited {
    /// Starts it with further lines of configuration.
    pub(super) fn start(more: &str) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let root = TempDir::new().unwrap();
        let words: Vec<String> = (0..15_000).map(|word| format!("\"w{word}\"")).collect();
        fs::create_dir(root.path().join("policies")).unwrap();
        let write = |path: &str, text: &str| fs::write(root.path().join(path), text).unwrap();
        write("policies/policy.toml", &POLICY.replace("WORDS", &words.join(", ")));
        write("policies/classes.toml", CLASSES);
        write("policies/aa.toml", REGIME);
        // A table that is there already is continued, not written twice.
        let mut config = GATEWAY.to_owned();
        for section in more.split("\n[").filter(|section| !section.trim().is_empty()) {
            let section = section.trim_start().trim_start_matches('[');
            let (name, lines) = section.split_once(']').unwrap();
            let head = format!("[{name}]\n");
            if config.contains(&head) {
                config = config.replace(&head, &format!("{head}{}\n", lines.trim()));
            } else {
                config.push_str(&format!("\n{head}{}\n", lines.trim()));
            }
        }
        write("gateway.toml", &config);
        Self::run(root, alone)
    }

    fn run(root: TempDir, alone: MutexGuard<'static, ()>) -> Self {
        let limit = format!("ulimit -d {}; exec \"$0\" \"$@\"", LIMIT_BYTES >> 10);
        let mut child = Command::new("sh")
            .args(["-c", &limit, BINARY, "run", "-c", "gateway.toml"])
            .env("NO_COLOR", "1")
            .current_dir(root.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut lines = Vec::new();
        let address = loop {
            let Some(line) = stderr.next() else { panic!("it does not start: {}", lines.join("\n")) };
            lines.push(line.unwrap());
            let last = lines.last().map(String::as_str).unwrap_or_default();
            let address = last.split_once("address=").filter(|_| last.contains("serving"));
            if let Some((_, rest)) = address {
                break rest.split(' ').next().unwrap().parse().unwrap();
            }
        };
        let log = Arc::new(Mutex::new(lines));
        let kept = Arc::clone(&log);
        thread::spawn(move || stderr.map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line)));
        Self { child: Mutex::new(child), address, log, _root: root, _alone: alone }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) async fn client(&self) -> IngestClient<Channel> {
        client::connect(&format!("http://{}", self.address)).await.unwrap()
    }

    /// A number of `/proc/PID/status`, in KiB.
    fn status(&self, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.lock().unwrap().id())).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|number| number.parse().ok());
        number.unwrap_or_else(|| panic!("the gateway is dead:\n{}", self.log()))
    }

    /// The most memory that it ever had, in bytes.
    pub(super) fn peak(&self) -> u64 {
        self.status("VmHWM:") << 10
    }

    pub(super) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// It lives, and never had more than it may have.
    pub(super) fn is_within_its_limit(&self) {
        let ended = self.child.lock().unwrap().try_wait().unwrap();
        if let Some(status) = ended {
            panic!("the gateway is dead, {status}:\n{}", self.log());
        }
        let peak = self.peak();
        assert!(peak < LIMIT_BYTES, "{} MiB", peak >> 20);
        assert!(!self.log().contains("panic"), "{}", self.log());
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Runs an attack while a good producer sends beside it. What the attack came to.
pub(super) async fn beside_a_good_producer<T>(name: &str, gateway: &Limited, attack: impl Future<Output = T>) -> T {
    let alone = Good::start(gateway).stop_after(Duration::from_secs(1)).await;
    let good = Good::start(gateway);
    let outcome = tokio::time::timeout(PATIENCE, attack).await;
    let beside = good.stop_after(Duration::from_millis(200)).await;
    let (alone, beside) = (Latencies(alone), Latencies(beside));
    eprintln!("{name}: peak {} MiB; a good producer alone: {alone}; beside the attack: {beside}", gateway.peak() >> 20);
    gateway.is_within_its_limit();
    let Ok(outcome) = outcome else { panic!("the attack is still going on") };
    assert!(beside.at(50) < alone.at(50) * 20 + Duration::from_secs(10), "the good producer stands still");
    outcome
}

/// Sorted times of answers.
struct Latencies(Vec<Duration>);

impl Latencies {
    fn at(&self, percent: usize) -> Duration {
        self.0[(self.0.len() * percent / 100).min(self.0.len() - 1)]
    }
}

impl std::fmt::Display for Latencies {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (count, median, slow) = (self.0.len(), self.at(50), self.at(99));
        write!(formatter, "{count} requests, p50 {median:?}, p99 {slow:?}")
    }
}

/// A producer that sends good records, one request after the other.
struct Good {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<Duration>>,
}

impl Good {
    fn start(gateway: &Limited) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (address, stopped) = (gateway.address, Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let mut client = client::connect(&format!("http://{address}")).await.unwrap();
            let mut latencies = Vec::new();
            let clock = Clock::start();
            while latencies.is_empty() || !stopped.load(Ordering::Relaxed) {
                let records: Vec<_> = (0..20).map(|person| record(&format!("good-{person}"))).collect();
                let request = request("good", json_events(&records));
                let began = clock.now();
                let answer = tokio::time::timeout(PATIENCE, client.publish_once(request)).await;
                let answer = answer.expect("the good producer is not answered").expect("the good producer is refused");
                assert_eq!(answer.into_inner().accepted, 20, "the good producer's records are refused");
                latencies.push(clock.now() - began);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            latencies.sort();
            latencies
        });
        Self { stop, task }
    }

    /// The times of its answers, sorted.
    async fn stop_after(self, time: Duration) -> Vec<Duration> {
        tokio::time::sleep(time).await;
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// The reason for which a request was refused as a whole.
pub(super) fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    details.error_info().map_or_else(|| format!("{:?}", status.code()), |info| info.reason.clone())
}

/// The same of an error within a response.
pub(super) fn reason_of(error: &tonic_types::Status) -> String {
    error.get_details_error_info().map_or_else(String::new, |info| info.reason)
}

/// Sends one request. What came of it: the response, or the reason.
pub(super) async fn publish(gateway: &Limited, request: PublishRequest) -> Result<PublishResponse, String> {
    let answer = gateway.client().await.publish_once(request).await;
    answer.map(tonic::Response::into_inner).map_err(|status| reason(&status))
}
