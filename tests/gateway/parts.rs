//! Releases that are larger than a message may be.

use std::collections::BTreeMap;
use std::thread;

use serde_json::Value;

use crate::common::until;

use super::broker::Broker;
use super::process::Deployment;

const MODES: [&str; 2] = ["", "exactly_once = true"];

/// The cells of each release, put together from its parts in the order they came.
fn put_together(messages: &[Value]) -> BTreeMap<String, Vec<Value>> {
    let mut releases: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut parts: BTreeMap<String, usize> = BTreeMap::new();
    for message in messages {
        let header = |name: &str| message["headers"][name].as_str().map(str::to_owned);
        let id = header("ce_id").unwrap();
        let release = header("ce_bailiwickrelease").unwrap_or_else(|| id.clone());
        if let (Some(part), Some(of)) = (header("ce_bailiwickpart"), header("ce_bailiwickparts")) {
            assert_eq!(id, format!("{release}-{part}/{of}"));
            let before = parts.insert(release.clone(), part.parse().unwrap()).unwrap_or(0);
            assert_eq!(part.parse::<usize>().unwrap(), before + 1, "parts come once and in order");
        }
        releases.entry(release).or_default().extend(message["cells"].as_array().unwrap().iter().cloned());
    }
    releases
}

#[test]
fn a_release_that_is_too_large_for_the_topic_comes_in_parts_that_are_not() {
    let Some(broker) = Broker::shared() else { return };
    for (number, mode) in MODES.iter().enumerate() {
        let topic = format!("parts-{number}-{}", std::process::id());
        // A cell takes some 500 bytes, and the headers as many.
        broker.create_topics_with(&topic, &[("max.message.bytes", "2000")]);
        let deployment = Deployment::new(&broker.address, &topic, mode).with_large_windows();
        let gateway = deployment.start();
        assert!(deployment.send().wait().unwrap().success());
        gateway.stop();
        let messages = broker.read(&topic, "all");
        let expected = deployment.cells();
        assert!(messages.len() > expected.len(), "nothing came in parts");
        assert_eq!(put_together(&messages), expected, "mode {mode:?}");
    }
}

#[test]
fn a_cell_that_is_larger_than_a_message_is_set_aside_and_what_comes_after_it_goes_on() {
    let Some(broker) = Broker::shared() else { return };
    thread::scope(|scope| {
        for (number, mode) in MODES.iter().enumerate() {
            let broker = &broker;
            scope.spawn(move || sets_aside_and_goes_on(broker, number, mode));
        }
    });
}

fn sets_aside_and_goes_on(broker: &Broker, number: usize, mode: &str) {
    let topic = format!("cells-{number}-{}", std::process::id());
    broker.create_topics_with(&topic, &[("max.message.bytes", "700")]);
    let deployment = Deployment::new(&broker.address, &topic, mode);
    let gateway = deployment.start();
    let mut sending = deployment.send_slowly();
    let line = gateway.wait_for("is set aside", 1);
    for said in ["fraud_desk", "payments_by_country", "2013-09-02T", "limit=700", "the topic's `max.message.bytes`"] {
        assert!(line.contains(said), "{said}: {line}");
    }
    let set_aside = || {
        let mut aside: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for cell in deployment.lines("journal/aside/fraud_desk") {
            aside.entry(cell["release"].as_str().unwrap().to_owned()).or_default().push(cell);
        }
        aside
    };
    // One after the other, each with several cells.
    until(|| (set_aside().len() >= 2).then_some(()));
    gateway.stop();
    broker.set(&topic, "max.message.bytes", "100000");
    let gateway = deployment.start();
    gateway.wait_for("cells that the destination did not take are set aside", 1);
    assert!(sending.wait().unwrap().success());
    gateway.stop();
    let mut cells = put_together(&broker.read(&topic, "all"));
    assert!(!cells.is_empty(), "what comes after it goes on");
    let aside = set_aside();
    cells.extend(aside);
    assert_eq!(cells, deployment.cells(), "mode {mode:?}");
}
