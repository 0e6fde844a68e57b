//! Records of which contradicting things are known: in memory, and nowhere else, until more is known or time is up.

use std::sync::atomic::Ordering::Relaxed;

use serde_json::Value;

use super::deployment::{Deployment, POLICY, refusals, visit, visits};
use crate::common::ledger::{entries, of_kind};

const CANARY: &str = "canary-7f3a";
const RULE: &str = "facts/subject.residence/contradiction";

/// The country that a record says, and the one that a registry has of its person; both are believed.
fn deployment() -> Deployment {
    let deployment = Deployment::new();
    deployment.edit(
        POLICY,
        "[{ field = \"country\", strength = 90 }]",
        "[{ field = \"country\", strength = 90 }, { registry = \"people\", by = \"person\", strength = 90 }]",
    );
    deployment.add(
        POLICY,
        "\n[registries.people]\nkey = \"person\"\nfacts = { \"subject.residence\" = \"home\" }\n\
         [quarantine]\nhold = \"PT1H\"\n",
    );
    deployment.add("gateway.toml", "\n[registries]\npeople = \"people.csv\"\n");
    know(&deployment, "FR");
    deployment
}

fn know(deployment: &Deployment, country: &str) {
    deployment.write("people.csv", format!("person,home\n{CANARY},{country}\n{CANARY}-2,{country}\n"));
}

/// Ten whom nothing contradicts, and one more.
fn records() -> Vec<Value> {
    let mut records = visits(1, 10, "DE");
    records.insert(4, visit(1, CANARY, "DE"));
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contradiction_is_held_in_memory_and_counted_once_when_it_is_resolved() {
    for is_reloaded in [false, true] {
        let deployment = deployment();
        let gateway = deployment.start().await;
        let mut producer = gateway.producer("p").await;
        let response = producer.publish(&records()).await;
        assert_eq!(response.accepted, 10);
        assert_eq!(refusals(&response), [(4, "REASON_QUARANTINED", vec![RULE.to_owned()])]);
        assert!(!response.refusals[0].retryable);
        let telemetry = gateway.app.telemetry().clone();
        assert_eq!((telemetry.total(|counts| &counts.accepted), telemetry.gateway.quarantined.load(Relaxed)), (10, 1));
        assert!(deployment.holds("journal", "DE-9"), "what is kept is in the journal");
        assert!(!deployment.holds("journal", CANARY));
        // Nothing more is known.
        gateway.app.refresh().await;
        assert_eq!(telemetry.gateway.quarantine_taken_in.load(Relaxed), 0);
        know(&deployment, "DE");
        if is_reloaded {
            gateway.reload().await.unwrap();
        } else {
            gateway.app.refresh().await;
        }
        gateway.until("it is taken in", |app| app.telemetry().gateway.quarantine_taken_in.load(Relaxed) == 1).await;
        assert_eq!(telemetry.total(|counts| &counts.accepted), 11);
        assert!(deployment.holds("journal", CANARY));
        // There is nothing left to be released.
        gateway.reload().await.unwrap();
        producer.close_before(9).await;
        gateway.stop().await;
        assert_eq!(telemetry.gateway.quarantine_taken_in.load(Relaxed), 1);
        assert_eq!(deployment.counts("desk"), [(1, "DE".to_owned(), 11)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_sent_again_is_held_once() {
    let deployment = deployment();
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    for _ in 0..3 {
        let response = producer.publish_as(1, &records()).await;
        assert_eq!(refusals(&response).len(), 1);
    }
    // All of it.
    for _ in 0..3 {
        let response = producer.publish_as(2, &[visit(1, &format!("{CANARY}-2"), "DE")]).await;
        assert_eq!(refusals(&response), [(0, "REASON_QUARANTINED", vec![RULE.to_owned()])]);
    }
    // One that is not the producer's next is not held at all.
    let mut other = gateway.producer("other").await;
    other.publish_as(1, &visits(1, 1, "DE")).await;
    assert!(other.try_publish_as(9, &[visit(1, CANARY, "DE")]).await.is_err());
    know(&deployment, "DE");
    gateway.app.refresh().await;
    gateway.until("both are taken in", |app| app.telemetry().gateway.quarantine_taken_in.load(Relaxed) == 2).await;
    producer.close_before(9).await;
    other.close_before(9).await;
    let telemetry = gateway.app.telemetry().clone();
    gateway.stop().await;
    assert_eq!(
        (telemetry.gateway.quarantined.load(Relaxed), telemetry.gateway.quarantine_taken_in.load(Relaxed)),
        (2, 2)
    );
    assert_eq!(deployment.counts("desk"), [(1, "DE".to_owned(), 13)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_known_may_also_forbid_it() {
    let deployment = deployment();
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    let response = producer.publish(&[visit(1, CANARY, "IN"), visit(1, &format!("{CANARY}-2"), "DE")]).await;
    assert_eq!(refusals(&response).len(), 2);
    // The first one is under a law that wants it elsewhere; the second one is still in doubt.
    deployment.write("people.csv", format!("person,home\n{CANARY},IN\n{CANARY}-2,FR\n"));
    gateway.app.refresh().await;
    gateway.until("one is discarded", |app| app.telemetry().gateway.quarantine_expired.load(Relaxed) == 1).await;
    let telemetry = gateway.app.telemetry().clone();
    assert_eq!(telemetry.gateway.quarantine_taken_in.load(Relaxed), 0);
    know(&deployment, "DE");
    gateway.app.refresh().await;
    gateway.until("the other is taken in", |app| app.telemetry().gateway.quarantine_taken_in.load(Relaxed) == 1).await;
    assert_eq!(telemetry.gateway.quarantine_expired.load(Relaxed), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_time_it_is_discarded_and_counted() {
    let deployment = deployment();
    deployment.edit(POLICY, "hold = \"PT1H\"", "hold = \"PT0.5S\"");
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    assert_eq!(producer.publish(&records()).await.accepted, 10);
    gateway.until("the record is discarded", |app| app.telemetry().gateway.quarantine_expired.load(Relaxed) == 1).await;
    know(&deployment, "DE");
    gateway.app.refresh().await;
    producer.close_before(9).await;
    let telemetry = gateway.app.telemetry().clone();
    gateway.stop().await;
    assert_eq!(telemetry.gateway.quarantine_taken_in.load(Relaxed), 0);
    assert_eq!(deployment.counts("desk"), [(1, "DE".to_owned(), 10)]);
    assert!(!deployment.holds("journal", CANARY));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_no_room_for_is_refused_as_overloaded_and_may_come_again() {
    let deployment = deployment();
    let gateway = deployment
        .start_with(|config| {
            config.limits.batch_bytes_max = 20_000;
            config.limits.in_flight_bytes_max = 20_000;
        })
        .await;
    let mut producer = gateway.producer("p").await;
    let mut held = 0;
    let overloaded = loop {
        let response = producer.publish(&vec![visit(1, CANARY, "DE"); 50]).await;
        if response.refusals.iter().all(|refusal| refusal.reason().as_str_name() == "REASON_OVERLOADED") {
            break response;
        }
        assert!(response.refusals.iter().all(|refusal| refusal.reason().as_str_name() == "REASON_QUARANTINED"));
        held += 50;
        assert!(held < 10_000, "the room has an end");
    };
    assert!(held > 0);
    assert_eq!(refusals(&overloaded).len(), 50);
    assert!(overloaded.refusals.iter().all(|refusal| refusal.retryable));
    assert_eq!(gateway.app.telemetry().gateway.quarantined.load(Relaxed), held);
    // Others are not disturbed.
    producer.send(&visits(1, 10, "DE")).await;
    know(&deployment, "DE");
    gateway.app.refresh().await;
    gateway.until("all is taken in", |app| app.telemetry().gateway.quarantine_taken_in.load(Relaxed) == held).await;
    producer.send(&vec![visit(1, CANARY, "DE"); 50]).await;
    producer.close_before(9).await;
    gateway.stop().await;
    assert_eq!(deployment.counts("desk"), [(1, "DE".to_owned(), 10 + 50 + held as i64)]);
    // The ledger says so, in steps of twice k.
    let said = entries(&deployment.path("journal/ledger"));
    let sum = |key: &str| of_kind(&said, "quarantine").iter().map(|entry| entry[key].as_u64().unwrap()).sum::<u64>();
    for key in ["held", "released"] {
        let records = sum(key);
        assert!(records.is_multiple_of(20) && records.abs_diff(held) < 20, "{key}: {records} of {held}");
    }
    assert_eq!(sum("discarded"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_known_while_a_record_is_decided_is_not_missed() {
    let deployment = deployment();
    let gateway = deployment.start().await;
    for _ in 0..100 {
        know(&deployment, "FR");
        gateway.app.refresh().await;
        let mut producers = Vec::new();
        for name in ["a", "b", "c"] {
            let mut producer = gateway.producer(name).await;
            producers.push(tokio::spawn(async move {
                for _ in 0..5 {
                    producer.publish_as(0, &vec![visit(1, CANARY, "DE"); 200]).await;
                }
            }));
        }
        know(&deployment, "DE");
        gateway.app.refresh().await;
        for producer in producers {
            producer.await.unwrap();
        }
        gateway
            .until("nothing is in doubt any more", |app| {
                let telemetry = app.telemetry();
                telemetry.gateway.quarantine_taken_in.load(Relaxed) == telemetry.gateway.quarantined.load(Relaxed)
            })
            .await;
    }
    gateway.stop().await;
}
