//! A gateway in this process.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bailiwick::app::{self, App};
use bailiwick::clock::Clock;
use bailiwick::config::{self, Config, Destination, OnStop};
use bailiwick::ingress::grpc::client;
use bailiwick::ingress::proto::ingest::ingest_client::IngestClient;
use bailiwick::ingress::proto::ingest::{PublishRequest, PublishResponse};
use bailiwick::telemetry::Telemetry;
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::Channel;

use super::{PATIENCE, records};

/// A running gateway of an example whose files go to temporary directories.
pub struct TestGateway {
    pub app: App,
    pub released: TempDir,
    pub journal: TempDir,
}

/// The configuration of a file. It must be without a problem, even a warning, but for those that a day has passed.
pub fn sound(file: &Path) -> Config {
    let loaded = config::load(file).unwrap();
    let problems = loaded.problems.iter().filter(|problem| !super::is_of_the_day(&problem.message));
    let messages: Vec<String> = problems.map(|problem| format!("{}: {}", problem.place, problem.message)).collect();
    assert_eq!(messages, Vec::<String>::new());
    loaded.config.unwrap()
}

/// The configuration of an example, on a free port, with its files in `released`.
pub fn example(name: &str, released: &Path) -> Config {
    let mut config = sound(&super::root().join("examples").join(name));
    // What a test looks at after a stop has left by then, also on a slow machine.
    config.stop_within = Duration::from_secs(60);
    config.listen.set_port(0);
    if let Some(http) = &mut config.http {
        http.listen.set_port(0);
    }
    for destination in config.destinations.values_mut() {
        if let Destination::File(settings) = destination {
            settings.directory = released.to_owned();
        }
    }
    config
}

/// Starts a gateway, or says why it does not start. One that had its journal and was not given time to stop has closed it by
/// then.
pub async fn start(config: Config) -> anyhow::Result<App> {
    let began = Clock::start();
    for log in ["ledger/log", "log", "outbox", "counters", "privacy"] {
        let lock = config.journal.directory.join(log).join("lock");
        while let Ok(file) = File::open(&lock)
            && matches!(file.try_lock(), Err(TryLockError::WouldBlock))
        {
            assert!(began.now() < PATIENCE, "{} is not given up", lock.display());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    start_at_once(config).await
}

/// The same, also if another one has the journal.
pub async fn start_at_once(config: Config) -> anyhow::Result<App> {
    let listener = app::bind(&config).await?;
    App::start(config, listener).await
}

/// Where a gateway is reached.
pub fn endpoint(app: &App) -> String {
    format!("http://{}", app.address())
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
        Self { app: start(config).await.unwrap(), released, journal }
    }

    pub fn endpoint(&self) -> String {
        endpoint(&self.app)
    }

    pub async fn client(&self) -> IngestClient<Channel> {
        client::connect(&self.endpoint()).await.unwrap()
    }

    /// Sends one request on a connection of its own.
    pub async fn publish(&self, request: PublishRequest) -> Result<PublishResponse, Status> {
        records::publish(&self.endpoint(), request).await
    }

    pub fn telemetry(&self) -> Arc<Telemetry> {
        Arc::clone(self.app.telemetry())
    }

    /// Stops the gateway and returns the lines of all released JSON-lines files.
    pub async fn stop(self) -> Vec<serde_json::Value> {
        self.app.stop().await;
        super::lines(self.released.path())
    }
}
