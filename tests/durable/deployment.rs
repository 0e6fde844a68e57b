//! A small deployment of one stream, in a folder of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bailiwick::app::{self, App};
use bailiwick::clock::Clock;
use bailiwick::config::{self, Config, OnStop};
use bailiwick::ingress::grpc::client;
use bailiwick::ingress::proto::cloudevents::cloud_event::Data;
use bailiwick::ingress::proto::cloudevents::{CloudEvent, CloudEventBatch};
use bailiwick::ingress::proto::ingest::publish_request::Payload;
use bailiwick::ingress::proto::ingest::{PublishRequest, PublishResponse};
use jiff::{SignedDuration, Timestamp};
use prost::Message;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common;

pub(crate) struct Deployment {
    pub(crate) root: TempDir,
}

impl Deployment {
    /// What an earlier version left behind, without its journal.
    pub(crate) fn new() -> Self {
        let deployment = Self::golden("plain");
        fs::remove_dir_all(deployment.path("journal")).unwrap();
        deployment
    }

    /// What an earlier version left behind.
    pub(crate) fn golden(name: &str) -> Self {
        let root = TempDir::new().unwrap();
        copy(&common::root().join("tests/golden/journal-0.1").join(name), root.path());
        let key = root.path().join("aa.key");
        if key.exists() {
            fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
        }
        Self { root }
    }

    /// The folder as a crash would leave it: what was acknowledged is on disk.
    pub(crate) fn crashed(&self) -> Self {
        let root = TempDir::new().unwrap();
        copy(self.root.path(), root.path());
        Self { root }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Changes the policy. What is to be replaced must be there.
    pub(crate) fn replace(&self, from: &str, to: &str) {
        let path = self.path("policies/policy.toml");
        let before = fs::read_to_string(&path).unwrap();
        assert!(before.contains(from), "{from} is not in the policy");
        fs::write(path, before.replace(from, to)).unwrap();
    }

    pub(crate) fn config(&self) -> Config {
        let loaded = config::load(&self.path("gateway.toml")).unwrap();
        let problems: Vec<String> = loaded.problems.iter().map(|problem| problem.message.clone()).collect();
        let mut config = loaded.config.unwrap_or_else(|| panic!("{problems:?}"));
        config.listen.set_port(0);
        config.on_stop = OnStop::Release;
        config
    }

    pub(crate) async fn start(&self) -> anyhow::Result<App> {
        let config = self.config();
        let listener = app::bind(&config).await?;
        App::start(config, listener).await
    }

    /// The lines that went to one of the destinations.
    pub(crate) fn released(&self) -> Vec<Value> {
        common::lines(&self.path("released/desk"))
    }

    /// How many records were counted in what went to one of the destinations.
    pub(crate) fn counted(&self) -> i64 {
        self.released().iter().map(|line| line["visits"].as_i64().unwrap()).sum()
    }
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_microsecond(Clock::start().wall()).unwrap()
}

/// A request with visits of so many people, some time ago.
pub(crate) fn visits((epoch, sequence): (u64, u64), people: usize, ago: SignedDuration) -> PublishRequest {
    let at = now() - ago;
    let event = |person: usize| {
        let record = json!({ "at": at.to_string(), "person": format!("p-{person}"), "country": "DE", "amount": 1.0 });
        CloudEvent { data: Some(Data::TextData(record.to_string())), ..Default::default() }
    };
    let payload =
        Payload::CloudEvents(CloudEventBatch { events: (0..people).map(event).collect() }.encode_to_vec().into());
    PublishRequest {
        stream: "visits".into(),
        producer: "till-1".into(),
        epoch,
        sequence,
        payload: Some(payload),
        ..Default::default()
    }
}

pub(crate) async fn publish(app: &App, request: PublishRequest) -> PublishResponse {
    let mut client = client::connect(&format!("http://{}", app.address())).await.unwrap();
    let requests = tokio_stream::iter([request]);
    client.publish(requests).await.unwrap().into_inner().message().await.unwrap().unwrap()
}

/// Promises that nothing earlier than now comes, and waits until so many windows are released.
pub(crate) async fn complete(app: &App, deployment: &Deployment, lines: usize) {
    let complete_through = now().as_microsecond();
    let promise =
        PublishRequest { stream: "visits".into(), producer: "till-1".into(), complete_through, ..Default::default() };
    assert_eq!(publish(app, promise).await.error, None);
    let released = async {
        while deployment.released().len() < lines {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(common::process::PATIENCE, released).await.expect("the window is released");
}
