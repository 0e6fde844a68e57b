//! What the outbox holds, what the ledger says left, what the gateway counts, and what the kernel says was sent are the same,
//! but for what a protocol adds.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bailiwick::config::Destination;
use bailiwick::durable::outbox::Closing;
use bailiwick::egress::kafka;
use bailiwick::storage::{self, RealFileSystem};

use crate::common::ledger::{entries, of_kind};
use crate::common::{self, TestGateway};

use super::broker::Broker;
use super::sent::send_payments;

/// The ledger counts a message with its key and headers, the most that their lengths can take, and 256 bytes for what is around
/// it: by at most so much it counts more than a message takes.
const OF_MESSAGE: u64 = 400;
/// What a connection takes besides: versions, metadata, the producer's id.
const OF_CONNECTION: u64 = 4 << 10;

/// What the kernel says of this process's connections to an address: how many, and the bytes that the other side has
/// acknowledged.
fn acknowledged(address: &str) -> (u64, u64) {
    let output = Command::new("ss").args(["-tinpH", "dst", address]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let own = format!("pid={},", std::process::id());
    let (mut connections, mut bytes, mut is_own) = (0, 0, false);
    for line in text.lines() {
        if !line.starts_with(char::is_whitespace) {
            is_own = line.contains(&own);
            connections += u64::from(is_own);
        }
        let acknowledged = line.split_whitespace().find_map(|word| word.strip_prefix("bytes_acked:"));
        bytes += acknowledged.filter(|_| is_own).map_or(0, |bytes| bytes.parse::<u64>().unwrap());
    }
    (connections, bytes)
}

/// The releases of an outbox, and the bytes of their messages.
fn in_outbox(directory: &Path, sink: &kafka::Sink) -> (u64, u64) {
    let mut entries = storage::entries(Arc::new(RealFileSystem), directory).unwrap();
    let (mut releases, mut bytes) = (0, 0);
    while let Some(entry) = entries.next().unwrap() {
        let closing = Closing::decode(&entry.payload).unwrap();
        releases += closing.releases.len() as u64;
        bytes += sink.takes(entry.lsn, &closing.releases).unwrap().bytes;
    }
    (releases, bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outbox_the_ledger_the_counts_and_the_kernel_agree_about_what_was_sent() {
    let Some(broker) = Broker::own(Vec::new()) else { return };
    let topic = "counted";
    broker.create_topics(topic);
    let settings = kafka::Settings {
        // The ledger counts messages as they are before Kafka compresses them.
        options: [("compression.type".to_owned(), "none".to_owned())].into(),
        ..broker.settings(topic)
    };
    let (gateway, destination) = ("g".parse().unwrap(), "fraud_desk".parse().unwrap());
    let sink = kafka::Sink::new(settings.clone(), &kafka::Sender { gateway, destination });
    let gateway = TestGateway::start_with("card-fraud/gateway.toml", |config| {
        config.destinations.insert("fraud_desk".parse().unwrap(), Destination::Kafka(settings));
    })
    .await;
    send_payments(gateway.endpoint()).await;
    let ledger = gateway.journal.path().join("ledger");
    let sent = || {
        let said = entries(&ledger);
        let sent = of_kind(&said, "sent");
        let releases: usize = sent.iter().map(|entry| entry["releases"].as_array().unwrap().len()).sum();
        (releases == of_kind(&said, "intent").len() && releases >= 12)
            .then(|| (releases as u64, sent.iter().map(|entry| entry["bytes"].as_u64().unwrap()).sum::<u64>()))
    };
    let (releases, said) = tokio::task::block_in_place(|| common::until(sent));
    let (connections, kernel) = acknowledged(&broker.address);
    let telemetry = gateway.telemetry();
    assert_eq!(in_outbox(&gateway.journal.path().join("outbox"), &sink), (releases, said), "the outbox and the ledger");
    gateway.stop().await;
    // They are counted a moment after the ledger has said so.
    let counted = telemetry.bytes_out();
    assert_eq!(said, counted, "the ledger and the metric");
    assert!(connections > 0 && said > 50_000, "{connections} connections, {said} bytes");
    let (least, most) = (said - releases * OF_MESSAGE, said + connections * OF_CONNECTION);
    assert!(
        (least..=most).contains(&kernel),
        "the kernel sent {kernel} bytes, the ledger says {said}: {least} to {most}"
    );
}
