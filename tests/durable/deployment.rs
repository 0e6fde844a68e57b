//! A small deployment of one stream, in a folder of its own.

use std::fs;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use bailiwick::app::App;
use bailiwick::config::{Config, OnStop};
use bailiwick::ingress::proto::ingest::{PublishRequest, PublishResponse};
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::common::folder::Folder;
use crate::common::{self, PATIENCE, gateway, records};

pub(crate) use crate::common::records::now;

pub(crate) struct Deployment(Folder);

impl Deref for Deployment {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.0
    }
}

impl Deployment {
    /// What an earlier version left behind, without its journal.
    pub(crate) fn new() -> Self {
        let deployment = Self::golden("journal-0.1/plain");
        fs::remove_dir_all(deployment.path("journal")).unwrap();
        deployment
    }

    /// What an earlier version left behind.
    pub(crate) fn golden(name: &str) -> Self {
        let folder = Folder::copy_of(&common::root().join("tests/golden").join(name));
        let key = folder.path("aa.key");
        if key.exists() {
            fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
        }
        Self(folder)
    }

    /// The folder as a crash would leave it: what was acknowledged is on disk.
    pub(crate) fn crashed(&self) -> Self {
        Self(self.copy())
    }

    /// Changes the policy. What is to be replaced must be there.
    #[track_caller]
    pub(crate) fn replace(&self, from: &str, to: &str) {
        self.edit("policies/policy.toml", from, to);
    }

    pub(crate) async fn start(&self) -> anyhow::Result<App> {
        self.start_app(on_a_free_port).await
    }

    /// The lines that went to one of the destinations.
    pub(crate) fn released(&self) -> Vec<Value> {
        self.lines("released/desk")
    }

    /// How many records were counted in what went to one of the destinations.
    pub(crate) fn counted(&self) -> i64 {
        self.released().iter().map(|line| line["visits"].as_i64().unwrap()).sum()
    }
}

fn on_a_free_port(config: &mut Config) {
    config.listen.set_port(0);
    config.on_stop = OnStop::Release;
    config.stop_within = Duration::from_secs(60);
    // None while the journal is copied, nor before what is to be found without one.
    config.journal.checkpoints.every = Duration::from_secs(3_600);
}

/// A request with visits of so many people, some time ago.
pub(crate) fn visits((epoch, sequence): (u64, u64), people: usize, ago: SignedDuration) -> PublishRequest {
    let at = now() - ago;
    let record = |person: usize| json!({ "at": at.to_string(), "person": format!("p-{person}"), "country": "DE", "amount": 1.0 });
    let payload = records::json_events((0..people).map(record));
    PublishRequest { epoch, sequence, ..records::request("visits", "till-1", payload) }
}

pub(crate) async fn publish(app: &App, request: PublishRequest) -> PublishResponse {
    records::publish_in_a_call(&gateway::endpoint(app), request).await
}

/// Promises that nothing earlier than now comes, and waits until so many windows are released.
pub(crate) async fn complete(app: &App, deployment: &Deployment, lines: usize) {
    let complete_through = now().as_microsecond();
    let promise = PublishRequest { complete_through, ..records::introduction("visits", "till-1") };
    assert_eq!(publish(app, promise).await.error, None);
    let released = async {
        while deployment.released().len() < lines {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, released).await.expect("the window is released");
}
