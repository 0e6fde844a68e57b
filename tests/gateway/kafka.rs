//! Releases through a real Kafka, read with confluent-kafka.

use bailiwick::config::Destination;

use crate::common::TestGateway;

use super::broker::Broker;
use super::sent::send_payments;

#[tokio::test(flavor = "multi_thread")]
async fn releases_reach_kafka_once_even_when_the_broker_is_away_for_a_while() {
    let Some(broker) = Broker::own(Vec::new()) else { return };
    let topic = "releases";
    broker.create_topics(topic);
    let settings = broker.settings(topic);
    let gateway = TestGateway::start_with("card-fraud/gateway.toml", |config| {
        config.destinations.insert("fraud_desk".parse().unwrap(), Destination::Kafka(settings));
        config.stop_within = std::time::Duration::from_secs(120);
    })
    .await;
    broker.control("kill");
    send_payments(gateway.endpoint()).await;
    broker.control("start");
    gateway.stop().await;
    // Two hours of ten-minute windows.
    const WINDOWS: usize = 12;
    let messages = broker.read(topic, &WINDOWS.to_string());
    let mut ids = std::collections::BTreeSet::new();
    for message in &messages {
        let headers = &message["headers"];
        assert_eq!(message["key"], "payments_by_country");
        assert_eq!((&headers["ce_specversion"], &headers["ce_source"]), (&"1.0".into(), &"/bailiwick/eu-fra-1".into()));
        assert!(message["cells"].as_array().unwrap().iter().all(|cell| cell["release"] == headers["ce_id"]));
        assert!(ids.insert(headers["ce_id"].to_string()), "an id came twice");
    }
}
