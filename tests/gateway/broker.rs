//! A Kafka broker for tests, and what a consumer reads of it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex, Weak};

use bailiwick::egress::encode::Format;
use bailiwick::egress::kafka;
use futures::executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::OwnedMutexGuard;

use crate::common;

/// A broker of our own in a temporary directory, or the one that `BAILIWICK_TEST_KAFKA` names.
pub(crate) struct Broker {
    pub(crate) address: String,
    own: Option<Own>,
    /// One broker at a time: on two cores a second one takes the time that the faults of the first are about.
    _turn: Option<OwnedMutexGuard<()>>,
}

static TURN: LazyLock<Arc<tokio::sync::Mutex<()>>> = LazyLock::new(Arc::default);

struct Own {
    launcher: PathBuf,
    directory: TempDir,
    properties: Vec<String>,
}

impl Broker {
    /// One that tests which run at the same time share. `None`, loudly, when there is no Kafka.
    pub(crate) fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Broker>> = Mutex::new(Weak::new());
        if let Ok(address) = std::env::var("BAILIWICK_TEST_KAFKA") {
            return Some(Arc::new(Self { address, own: None, _turn: None }));
        }
        let mut shared = SHARED.lock().unwrap();
        if let Some(running) = shared.upgrade() {
            return Some(running);
        }
        let broker = Arc::new(Self::own(Vec::new())?);
        *shared = Arc::downgrade(&broker);
        Some(broker)
    }

    /// One of our own, with these properties. `None`, loudly, when there is no Kafka.
    pub(crate) fn own(properties: Vec<String>) -> Option<Self> {
        let Some(home) = std::env::var_os("KAFKA_HOME") else {
            eprintln!("SKIPPED: KAFKA_HOME is not set (nor BAILIWICK_TEST_KAFKA), so nothing was tested with Kafka");
            return None;
        };
        let launcher = PathBuf::from(home).join("bin/kafka");
        let properties = on_kept_ports(properties);
        let own = Own { launcher, directory: TempDir::new().unwrap(), properties };
        let turn = block_on(Arc::clone(&TURN).lock_owned());
        let mut broker = Self { address: String::new(), own: Some(own), _turn: Some(turn) };
        broker.address = broker.control("start");
        Some(broker)
    }

    /// What a gateway is told of a topic: JSON lines, and nothing special.
    pub(crate) fn settings(&self, topic: &str) -> kafka::Settings {
        kafka::Settings {
            brokers: self.address.clone(),
            topic: topic.to_owned(),
            format: Format::JsonLines,
            progress_topic: None,
            security: Default::default(),
            options: Default::default(),
        }
    }

    /// `start`, `stop` or `kill`, unless it is not ours.
    pub(crate) fn control(&self, command: &str) -> String {
        let Some(own) = &self.own else { return self.address.clone() };
        let mut launch = Command::new(&own.launcher);
        launch.arg(command).arg(own.directory.path());
        if command == "start" {
            launch.args(&own.properties);
        }
        let output = launch.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Whether it forgot, when it started again, to mark the end of a transaction in the partitions: then a release may come twice.
    pub(crate) fn has_lost_a_mark(&self) -> bool {
        let Some(own) = &self.own else { return false };
        let logs =
            ["server.log", "server.log.previous"].map(|name| std::fs::read_to_string(own.directory.path().join(name)));
        logs.into_iter().flatten().any(|log| log.contains("likely deleted already and hence can be skipped"))
    }

    /// A topic, a compacted one for the progress, and that of the gateway that is called as the topic is.
    pub(crate) fn create_topics(&self, topic: &str) {
        self.create_topics_with(topic, &[]);
    }

    /// As [`Self::create_topics`], with settings of the topic.
    pub(crate) fn create_topics_with(&self, topic: &str, settings: &[(&str, &str)]) {
        let progress = [format!("{topic}-progress"), format!("{topic}-progress-{topic}")];
        let releases = NewTopic::new(topic, 2, TopicReplication::Fixed(1));
        let releases = settings.iter().fold(releases, |topic, (name, value)| topic.set(name, value));
        let compacted = progress
            .iter()
            .map(|name| NewTopic::new(name, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact"));
        let topics: Vec<NewTopic<'_>> = std::iter::once(releases).chain(compacted).collect();
        for created in block_on(self.admin().create_topics(&topics, &AdminOptions::new())).unwrap() {
            created.unwrap();
        }
    }

    /// Changes a setting of a topic.
    pub(crate) fn set(&self, topic: &str, name: &str, value: &str) {
        let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
        for changed in block_on(self.admin().alter_configs([&change], &AdminOptions::new())).unwrap() {
            changed.unwrap();
        }
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.address).create().unwrap()
    }

    /// The committed messages of a topic: so many, or `all`.
    pub(crate) fn read(&self, topic: &str, count: &str) -> Vec<Value> {
        let output = Command::new(common::python())
            .arg(common::root().join("tests/python/consume.py"))
            .args([&self.address, topic, count])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The ids of a topic's committed releases, in order.
    pub(crate) fn ids(&self, topic: &str) -> Vec<String> {
        let id = |message: &Value| message["headers"]["ce_id"].as_str().unwrap().to_owned();
        self.read(topic, "all").iter().map(id).collect()
    }
}

/// The properties of a broker with ports that stay its own while it is down, unless they begin with a port.
fn on_kept_ports(properties: Vec<String>) -> Vec<String> {
    if properties.first().is_some_and(|first| first.parse::<u16>().is_ok()) {
        return properties;
    }
    let [port, controller] = [(); 2].map(|()| common::free_port());
    let kept = [
        port.to_string(),
        format!("listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}"),
        format!("controller.quorum.voters=1@127.0.0.1:{controller}"),
    ];
    kept.into_iter().chain(properties).collect()
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(own) = &self.own {
            let _ = Command::new(&own.launcher).arg("stop").arg(own.directory.path()).output();
        }
    }
}
