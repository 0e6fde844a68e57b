//! Releases through a real Kafka, read with confluent-kafka.

use std::path::PathBuf;
use std::process::Command;

use bailiwick::adapters::kafka;
use bailiwick::commands::send::{Input, Options, SharedTotals, epoch_now, publish};
use bailiwick::config::Destination;
use bailiwick::encode::Format;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{self, TestGateway};

/// A broker of our own in a temporary directory, or the one that `BAILIWICK_TEST_KAFKA` names.
struct Broker {
    address: String,
    own: Option<(PathBuf, TempDir)>,
}

impl Broker {
    /// `None`, loudly, when there is no Kafka.
    fn start() -> Option<Self> {
        if let Ok(address) = std::env::var("BAILIWICK_TEST_KAFKA") {
            return Some(Self { address, own: None });
        }
        let Some(home) = std::env::var_os("KAFKA_HOME") else {
            eprintln!("SKIPPED: neither KAFKA_HOME nor BAILIWICK_TEST_KAFKA is set, so nothing was tested with Kafka");
            return None;
        };
        let launcher = PathBuf::from(home).join("bin/kafka");
        let directory = TempDir::new().unwrap();
        let mut broker = Self { address: String::new(), own: Some((launcher, directory)) };
        broker.address = broker.control("start");
        Some(broker)
    }

    fn control(&self, command: &str) -> String {
        let Some((launcher, directory)) = &self.own else { return self.address.clone() };
        let output = Command::new(launcher).arg(command).arg(directory.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn create_topic(&self, topic: &str) {
        let Some((launcher, _)) = &self.own else { return };
        let output = Command::new(launcher)
            .args(["topics", "--bootstrap-server", &self.address, "--create", "--topic", topic])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some((launcher, directory)) = &self.own {
            let _ = Command::new(launcher).arg("stop").arg(directory.path()).output();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn releases_reach_kafka_once_even_when_the_broker_is_away_for_a_while() {
    let Some(broker) = Broker::start() else { return };
    let topic = "releases";
    broker.create_topic(topic);
    let settings = kafka::Settings {
        brokers: broker.address.clone(),
        topic: topic.into(),
        format: Format::JsonLines,
        progress_topic: None,
        options: Default::default(),
    };
    let gateway = TestGateway::start_with("card-fraud/gateway.toml", |config| {
        config.destinations.insert("fraud_desk".into(), Destination::Kafka(settings));
        config.stop_within = std::time::Duration::from_secs(120);
    })
    .await;
    broker.control("kill");
    let options = Options {
        endpoint: gateway.endpoint(),
        stream: "payments".into(),
        producer: "till-7".into(),
        follow: false,
        batch: 500,
        text: Vec::new(),
        complete: true,
        epoch: epoch_now(),
        patience: std::time::Duration::from_secs(60),
    };
    let data = common::root().join("examples/card-fraud/data.csv.gz");
    publish(vec![Input::File(data)], &options, &SharedTotals::default()).await.unwrap();
    broker.control("start");
    gateway.stop().await;
    // Two hours of ten-minute windows.
    const WINDOWS: usize = 12;
    let output = Command::new(common::python())
        .arg(common::root().join("tests/python/consume.py"))
        .args([&broker.address, topic, &WINDOWS.to_string()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut ids = std::collections::BTreeSet::new();
    for message in &messages {
        let headers = &message["headers"];
        assert_eq!(message["key"], "payments_by_country");
        assert_eq!((&headers["ce_specversion"], &headers["ce_source"]), (&"1.0".into(), &"/bailiwick/eu-fra-1".into()));
        assert!(message["cells"].as_array().unwrap().iter().all(|cell| cell["release"] == headers["ce_id"]));
        assert!(ids.insert(headers["ce_id"].to_string()), "an id came twice");
    }
}
