//! A gateway of an example in this process, and a producer's client to it.

#![allow(dead_code, unreachable_pub, reason = "each test crate uses its part")]

pub mod process;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bailiwick::app::{self, App};
use bailiwick::config::{self, Config, Destination, OnStop};
use bailiwick::ingress::grpc::client;
use bailiwick::ingress::proto::ingest::ingest_client::IngestClient;
use bailiwick::telemetry::Telemetry;
use tempfile::TempDir;
use tonic::transport::Channel;

/// The root of the project.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A running gateway whose files go to a temporary directory.
pub struct TestGateway {
    pub app: App,
    pub released: TempDir,
    pub journal: TempDir,
}

/// The configuration of an example, on a free port, with its files in `released`.
pub fn example(name: &str, released: &Path) -> Config {
    let loaded = config::load(&root().join("examples").join(name)).unwrap();
    let messages: Vec<String> =
        loaded.problems.iter().map(|problem| format!("{}: {}", problem.place, problem.message)).collect();
    assert_eq!(messages, Vec::<String>::new());
    let mut config = loaded.config.unwrap();
    config.listen.set_port(0);
    for destination in config.destinations.values_mut() {
        if let Destination::File(settings) = destination {
            settings.directory = released.to_owned();
        }
    }
    config
}

impl TestGateway {
    /// Starts an example's gateway: `card-fraud/gateway.toml`, say.
    pub async fn start(name: &str) -> Self {
        Self::start_with(name, |_| {}).await
    }

    /// Starts one with a changed configuration.
    pub async fn start_with(name: &str, change: impl FnOnce(&mut Config)) -> Self {
        let (released, journal) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let mut config = example(name, released.path());
        config.journal.directory = journal.path().to_owned();
        config.on_stop = OnStop::Release;
        change(&mut config);
        let listener = app::bind(&config).await.unwrap();
        Self { app: App::start(config, listener).await.unwrap(), released, journal }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.app.address())
    }

    pub async fn client(&self) -> IngestClient<Channel> {
        client::connect(&self.endpoint()).await.unwrap()
    }

    pub fn telemetry(&self) -> Arc<Telemetry> {
        Arc::clone(self.app.telemetry())
    }

    /// Stops the gateway and returns the lines of all released JSON-lines files.
    pub async fn stop(self) -> Vec<serde_json::Value> {
        self.app.stop().await;
        lines(self.released.path())
    }
}

/// The lines of all JSON-lines files below a directory.
pub fn lines(directory: &Path) -> Vec<serde_json::Value> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(directory) else { return found };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            found.extend(lines(&path));
        } else if path.extension().is_some_and(|extension| extension == "jsonl") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.extend(text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()));
        }
    }
    found
}

/// The Python with the test packages, which `scripts/setup tests` makes.
pub fn python() -> PathBuf {
    std::env::var_os("BAILIWICK_TEST_PYTHON")
        .map(PathBuf::from)
        .expect("BAILIWICK_TEST_PYTHON: run the tests with `make test`")
}
