//! A gateway that is killed between deciding on the form of a release, paying for it and sending it.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use super::broker::Broker;
use super::process::Deployment;
use crate::common::ledger::{entries, of_kind};

/// So little that many releases do not leave whole, and some wait.
const BUDGET: &str = r#"exactly_once = true

[destinations.fraud_desk.budget]
bytes      = 4096
per        = "PT10S"
when_short = ["roll_up", "top", "defer"]
roll_up    = ["channel"]
top        = { rows = 1, by = "payments" }
"#;

/// What the gateway says when it knows how far the destination is.
const GOING_ON: &str = "going on in kafka";

#[test]
fn each_release_leaves_once_in_one_form_over_kills() {
    let Some(broker) = Broker::shared() else { return };
    let topic = format!("forms-{}", std::process::id());
    broker.create_topics(&topic);
    let deployment = Deployment::new(&broker.address, &topic, BUDGET);
    let mut gateway = deployment.start();
    let mut sending = deployment.send_slowly();
    let mut cursor = None;
    for kill in 0..12 {
        gateway.wait_for(GOING_ON, 1);
        // Something leaves in each life; the moments at which it ends lie anywhere between two payments.
        cursor = deployment.cursor_after(cursor);
        thread::sleep(Duration::from_millis(kill * 37 % 250));
        gateway.kill();
        gateway = deployment.start();
    }
    gateway.kill();
    deployment.change("bytes      = 4096", "bytes      = 10000000");
    gateway = deployment.start();
    assert!(sending.wait().unwrap().success());
    gateway.stop();
    let said = entries(&deployment.path("journal/ledger"));
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let of_desk = of_kind(&said, "intent").into_iter().filter(|intent| intent["destination"] == "fraud_desk");
    let whole = |intent: &serde_json::Value| match &intent["degraded"] {
        serde_json::Value::Null => text(&intent["release"]),
        degraded => text(&degraded["whole"]),
    };
    let wholes: BTreeMap<String, String> = of_desk.map(|intent| (text(&intent["release"]), whole(intent))).collect();
    let left = broker.ids(&topic);
    let left_whole: BTreeSet<String> = left.iter().map(|id| wholes[id].clone()).collect();
    assert_eq!(left.len(), left_whole.len(), "a release left twice");
    assert_eq!(left_whole, deployment.released(), "each leaves");
    let smaller = left.iter().filter(|id| wholes[*id] != **id).count();
    assert!(smaller > 10 && smaller + 10 < left.len(), "{smaller} of {} left smaller", left.len());
    // The ledger names one form of each, although it was decided on in one life and sent in another.
    let forms: BTreeSet<&String> = wholes.values().collect();
    assert_eq!(forms.len(), wholes.len(), "an intent in two forms");
}
