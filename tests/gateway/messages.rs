//! Messages of every format, through a real Kafka, read by pyarrow and protobuf: the same cells in fewer bytes.

use std::process::Command;

use bailiwick::config::Destination;
use bailiwick::egress::encode::Format;
use bailiwick::egress::kafka;

use crate::common::process::text;
use crate::common::{self, PATIENCE, TestGateway};

use super::broker::Broker;
use super::sent::send_payments;

/// Two hours of ten-minute windows.
const WINDOWS: usize = 12;

/// Sends the example's releases to a topic, and says how many bytes that took as the gateway counts them.
async fn sent_as(format: Format, broker: &Broker, topic: &str) -> u64 {
    let settings = kafka::Settings {
        format,
        // In transactions, too, messages have every format.
        progress_topic: (format == Format::Arrow).then(|| format!("{topic}-progress")),
        ..broker.settings(topic)
    };
    let gateway = TestGateway::start_with("card-fraud/gateway.toml", |config| {
        config.destinations.insert("fraud_desk".parse().unwrap(), Destination::Kafka(settings));
        config.stop_within = PATIENCE;
    })
    .await;
    send_payments(gateway.endpoint()).await;
    let telemetry = gateway.telemetry();
    gateway.stop().await;
    telemetry.bytes_out()
}

#[tokio::test(flavor = "multi_thread")]
async fn pyarrow_and_protobuf_read_the_same_cells_from_messages_of_every_format() {
    let Some(broker) = Broker::own(Vec::new()) else { return };
    let (mut topics, mut counted) = (Vec::new(), Vec::new());
    for (name, format) in Format::NAMES.into_iter().filter(|(_, format)| format.is_for_messages()) {
        let topic = format!("as-{name}");
        broker.create_topics(&topic);
        counted.push((name, sent_as(format, &broker, &topic).await));
        topics.push(topic);
    }
    let read = Command::new(common::python())
        .arg(common::root().join("tests/python/read_messages.py"))
        .arg(&broker.address)
        .arg(common::root().join("proto"))
        .arg(WINDOWS.to_string())
        .args(topics)
        .output()
        .unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    println!("{}with keys and headers: {counted:?}", text(&read.stdout));
}
