//! A gateway with little memory, and a good producer.

use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bailiwick::clock::Clock;
use bailiwick::ingress::grpc::client;
use bailiwick::ingress::proto::ingest::ingest_client::IngestClient;
use bailiwick::ingress::proto::ingest::{PublishRequest, PublishResponse};
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::{RpcStatusExt, StatusExt};

use super::payloads::{json_events, record, request};
use crate::common::folder::Folder;
use crate::common::laws::{CLASSES, regime};
use crate::common::process::Process;
use crate::common::{PATIENCE, changed, records};

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

/// A gateway as a process of its own, with little memory. It is killed when it is dropped.
pub(super) struct Limited {
    process: Process,
    _folder: Folder,
    /// One attack at a time: they are large, and what the good producer waits is measured.
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

impl Limited {
    /// Starts it with further lines of configuration.
    pub(super) fn start(more: &str) -> Self {
        Self::start_under(":", more)
    }

    /// The same after another command of the shell.
    pub(super) fn start_under(also: &str, more: &str) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let words: Vec<String> = (0..15_000).map(|word| format!("\"w{word}\"")).collect();
        let folder = Folder::holding([
            ("gateway.toml", with(GATEWAY, more).as_str()),
            ("policies/policy.toml", &changed(POLICY, "WORDS", &words.join(", "))),
            ("policies/classes.toml", CLASSES),
            ("policies/aa.toml", &regime("aa", r#""DE", "FR", "IN""#, "DE", "refuse")),
        ]);
        let limit = format!("ulimit -d {}; {also}", LIMIT_BYTES >> 10);
        let process = Process::start_under(folder.root(), &limit, &["run", "-c", "gateway.toml"]);
        Self { process, _folder: folder, _alone: alone }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.process.address()
    }

    pub(super) async fn client(&self) -> IngestClient<Channel> {
        client::connect(self.process.endpoint()).await.unwrap()
    }

    /// A number of `/proc/PID/status`, in KiB.
    fn status(&self, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|number| number.parse().ok());
        number.unwrap_or_else(|| panic!("the gateway is dead:\n{}", self.log()))
    }

    /// The most memory that it ever had, in bytes.
    pub(super) fn peak(&self) -> u64 {
        self.status("VmHWM:") << 10
    }

    /// How many file descriptors it has in use.
    pub(super) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.id())).map_or(0, Iterator::count)
    }

    pub(super) fn log(&self) -> String {
        self.process.log().join("\n")
    }

    /// It lives, and never had more than it may have.
    pub(super) fn is_within_its_limit(&self) {
        if let Some(status) = self.process.ended() {
            panic!("the gateway is dead, {status}:\n{}", self.log());
        }
        let peak = self.peak();
        assert!(peak < LIMIT_BYTES, "{} MiB", peak >> 20);
        assert!(!self.log().contains("panic"), "{}", self.log());
    }
}

/// A configuration with more tables. One that is there already is continued, not written twice.
fn with(config: &str, more: &str) -> String {
    let mut config = config.to_owned();
    for section in more.split("\n[").filter(|section| !section.trim().is_empty()) {
        let section = section.trim_start().trim_start_matches('[');
        let (name, lines) = section.split_once(']').unwrap();
        let head = format!("[{name}]\n");
        if config.contains(&head) {
            config = changed(&config, &head, &format!("{head}{}\n", lines.trim()));
        } else {
            config.push_str(&format!("\n{head}{}\n", lines.trim()));
        }
    }
    config
}

/// Runs an attack while a good producer sends beside it. What the attack came to.
pub(super) async fn beside_a_good_producer<T>(name: &str, gateway: &Limited, attack: impl Future<Output = T>) -> T {
    let alone = Good::start(gateway).stop_after(Duration::from_secs(1)).await;
    let good = Good::start(gateway);
    let outcome = tokio::time::timeout(ATTACK_WITHIN, attack).await;
    let beside = good.stop_after(Duration::from_millis(200)).await;
    let (alone, beside) = (Latencies(alone), Latencies(beside));
    let ratio = beside.at(99).as_secs_f64() / alone.at(99).as_secs_f64();
    eprintln!(
        "{name}: peak {} MiB; a good producer alone: {alone}; beside the attack: {beside}; {ratio:.1} times the p99",
        gateway.peak() >> 20
    );
    gateway.is_within_its_limit();
    let Ok(outcome) = outcome else { panic!("the attack is still going on") };
    assert!(beside.at(99) < alone.at(99) * 20 + GOOD_P99, "the good producer stands still: {beside}");
    outcome
}

/// The longest that any request of a good producer waits, whatever comes beside it. Without an attack it takes
/// milliseconds, and a second on a machine that is busy.
const GOOD_WITHIN: Duration = PATIENCE;
/// What is granted to 99 of 100 requests, beside twenty times what they take without an attack: less than the ten
/// seconds after which the gateway ends what does not go on.
const GOOD_P99: Duration = Duration::from_secs(8);
/// An attack comes to its end, and takes seconds where nothing else is done.
const ATTACK_WITHIN: Duration = Duration::from_secs(900);

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
        let (address, stopped) = (gateway.address(), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let mut client = client::connect(&format!("http://{address}")).await.unwrap();
            let mut latencies = Vec::new();
            let clock = Clock::start();
            while latencies.is_empty() || !stopped.load(Ordering::Relaxed) {
                let records: Vec<_> = (0..20).map(|person| record(&format!("good-{person}"))).collect();
                let request = request("good", json_events(&records));
                let began = clock.now();
                let answer = tokio::time::timeout(GOOD_WITHIN, taken(&mut client, request)).await;
                let answer = answer.expect("the good producer is not answered");
                assert_eq!(answer.accepted, 20, "the good producer's records are refused");
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

/// Sends a request, and again as often as the journal has no room for it: whoever fills the journal makes others wait.
async fn taken(client: &mut IngestClient<Channel>, request: PublishRequest) -> PublishResponse {
    loop {
        match client.publish_once(request.clone()).await {
            Ok(answer) => return answer.into_inner(),
            Err(refused) => assert_eq!(reason(&refused), "REASON_OVERLOADED", "the good producer: {refused}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
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
    records::publish(gateway.process.endpoint(), request).await.map_err(|status| reason(&status))
}
