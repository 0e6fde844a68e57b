//! Policies that are tried: nothing leaves, or only the differences are counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bailiwick::durable::outbox::held;
use bailiwick::egress::delivery::Cursor;
use bailiwick::ingress::proto::ingest::PublishResponse;
use bailiwick::storage::{Log, RealFileSystem, SEGMENT_BYTES, Settings};
use serde_json::json;

use super::deployment::{Deployment, Gateway, POLICY, REGIME, at, regime, visit, visits};
use crate::common::changed;

/// Some of everything: what is kept, redirected, refused, unknown, broken; cells of enough contributors and of too few.
async fn feed(gateway: &Gateway) -> Vec<PublishResponse> {
    let mut producer = gateway.producer("p").await;
    let mut responses = Vec::new();
    for minute in [1, 2, 3] {
        let mut records = visits(minute, 12, "DE");
        records.extend(visits(minute, 4, "FR"));
        records.extend([visit(minute, "i", "IN"), visit(minute, "z", "ZA"), visit(minute, "q", "QQ")]);
        records.push(json!({ "at": at(minute, 2), "country": "DE" }));
        responses.push(producer.publish(&records).await);
    }
    producer.close_before(9).await;
    gateway
        .until("the windows are closed", |app| {
            let telemetry = app.telemetry();
            telemetry.total_of_datasets(|counts| &counts.releases)
                + telemetry.total_of_datasets(|counts| &counts.dry_releases)
                >= 6
        })
        .await;
    responses
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_decides_and_counts_alike_and_not_one_byte_leaves() {
    let deployment = Deployment::new();
    let gateway = deployment.start().await;
    let enforced = feed(&gateway).await;
    let telemetry = gateway.app.telemetry().clone();
    gateway.stop().await;
    assert_eq!(deployment.counts("desk").len(), 3);
    let deployment = deployment.copy();
    deployment.edit("gateway.toml", "id       = \"g-1\"", "id = \"g-1\"\nmode = \"dry-run\"");
    let gateway = deployment.start().await;
    assert_eq!(feed(&gateway).await, enforced);
    let dry = gateway.app.telemetry().clone();
    gateway.stop().await;
    assert_eq!(dry.refusals(), telemetry.refusals());
    assert_eq!(dry.total(|counts| &counts.records_in), telemetry.total(|counts| &counts.records_in));
    assert_eq!(dry.total(|counts| &counts.accepted), telemetry.total(|counts| &counts.accepted));
    // One release each of three windows to two destinations.
    assert_eq!(
        (
            telemetry.total_of_datasets(|counts| &counts.dry_releases),
            dry.total_of_datasets(|counts| &counts.dry_releases)
        ),
        (0, 6)
    );
    assert_eq!(
        (
            dry.total_of_datasets(|counts| &counts.releases),
            dry.total_of_datasets(|counts| &counts.cells_released),
            dry.bytes_out()
        ),
        (0, 0, 0)
    );
    assert!(!deployment.holds("released", "by_country"));
    // It names what was closed, and holds no release, which names the gateway.
    assert!(!deployment.holds("journal/outbox", "g-1"));
    // What nobody waits for is passed over, so that the outbox can let go of it.
    for destination in ["desk", "hub"] {
        let cursor = Cursor::peek(&RealFileSystem, &deployment.path("journal/cursors"), destination).unwrap();
        assert!(cursor.has(&"by_country".parse().unwrap(), 1), "{destination}");
    }
    // What a dry run has closed does not leave later either.
    deployment.edit("gateway.toml", "mode = \"dry-run\"", "");
    let gateway = deployment.start().await;
    gateway.stop().await;
    assert_eq!(deployment.counts("desk"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_in_the_shadow_change_nothing_and_their_differences_are_counted() {
    let plain = Deployment::new();
    let gateway = plain.start().await;
    let without = feed(&gateway).await;
    gateway.stop().await;
    let deployment = plain.copy();
    // In the shadow residents of FR are under no law, those of ZA are, and the hub gets nothing.
    for file in ["policies/classes.toml", POLICY, REGIME, "policies/bb.toml"] {
        deployment.write(&changed(file, "policies/", "shadow/"), deployment.read(file));
    }
    deployment.write("shadow/aa.toml", regime("aa", "\"DE\", \"ZA\"", "DE", "redirect"));
    deployment.edit(
        "shadow/policy.toml",
        "country = \"US\"\naccepts = [\"by_country\"]",
        "country = \"US\"\naccepts = []",
    );
    deployment.add("gateway.toml", "\n[shadow]\npolicies = [\"shadow\"]\n");
    let gateway = deployment.start().await;
    assert_eq!(feed(&gateway).await, without);
    let shadow = &gateway.app.telemetry().clone().shadow;
    assert_eq!((shadow.newly_allowed.load(Relaxed), shadow.newly_denied.load(Relaxed)), (3, 12));
    assert_eq!(shadow.by_outlet(), [(("by_country".to_owned(), "hub".to_owned()), (0, 3))].into());
    // Without the shadow nothing more is counted.
    deployment.edit("gateway.toml", "[shadow]\npolicies = [\"shadow\"]\n", "");
    gateway.reload().await.unwrap();
    let mut producer = gateway.producer("p").await;
    producer.sequence = 3;
    producer.send(&visits(10, 3, "FR")).await;
    assert_eq!(shadow.newly_denied.load(Relaxed), 12);
    gateway.stop().await;
    for destination in ["desk", "hub"] {
        assert_eq!(deployment.released(destination), plain.released(destination));
    }
    assert!(!deployment.holds("journal/policies", "ZA"), "policies that were never in force are not kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn differences_are_counted_by_the_rules_that_made_them() {
    let deployment = Deployment::new();
    for file in ["policies/classes.toml", POLICY, REGIME, "policies/bb.toml"] {
        deployment.write(&changed(file, "policies/", "shadow/"), deployment.read(file));
    }
    // In force, records of IN are refused; in the shadow, those of FR.
    deployment.write("shadow/aa.toml", regime("aa", "\"DE\", \"IN\"", "DE", "redirect"));
    deployment.write("shadow/bb.toml", regime("bb", "\"FR\"", "IN", "refuse"));
    deployment.add("gateway.toml", "\n[shadow]\npolicies = [\"shadow\"]\n");
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    let mut records = visits(1, 3, "DE");
    records.extend(visits(1, 2, "IN"));
    records.extend(visits(1, 5, "FR"));
    assert_eq!(producer.publish(&records).await.accepted, 8);
    let shadow = &gateway.app.telemetry().clone().shadow;
    assert_eq!((shadow.newly_allowed.load(Relaxed), shadow.newly_denied.load(Relaxed)), (2, 5));
    assert_eq!(shadow.by_rule(), [("bb/misroute".to_owned(), (2, 5))].into());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shadow_knows_what_is_known() {
    let deployment = Deployment::new();
    deployment.edit(
        POLICY,
        "[{ field = \"country\", strength = 90 }]",
        "[{ registry = \"people\", by = \"person\", strength = 90 }]",
    );
    deployment.add(POLICY, "\n[registries.people]\nkey = \"person\"\nfacts = { \"subject.residence\" = \"home\" }\n");
    deployment.add("gateway.toml", "\n[registries]\npeople = \"people.csv\"\n[shadow]\npolicies = [\"policies\"]\n");
    deployment.write("people.csv", "person,home\n");
    let gateway = deployment.start().await;
    deployment.write("people.csv", "person,home\nDE-0,DE\n");
    gateway.app.refresh().await;
    gateway.producer("p").await.send(&visits(1, 1, "DE")).await;
    let shadow = &gateway.app.telemetry().clone().shadow;
    assert_eq!((shadow.newly_allowed.load(Relaxed), shadow.newly_denied.load(Relaxed)), (0, 0));
    gateway.stop().await;
}

/// Of a dataset that tells only what has changed, the first of several equal windows would be told.
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_only_what_would_have_changed() {
    let enforced = Deployment::new();
    enforced.set_k(5);
    enforced.edit(POLICY, "min_contributors = 5\n", "min_contributors = 5\nonly_on_change = true\n");
    let dry = enforced.copy();
    dry.edit("gateway.toml", "id       = \"g-1\"", "id = \"g-1\"\nmode = \"dry-run\"");
    for deployment in [enforced, dry] {
        let gateway = deployment.start().await;
        let mut producer = gateway.producer("p").await;
        for (minute, persons) in [(1, 6), (2, 6), (3, 6), (4, 7)] {
            producer.send(&visits(minute, persons, "DE")).await;
            producer.close_before(minute + 1).await;
        }
        let telemetry = gateway.app.telemetry().clone();
        let releases = || {
            telemetry.total_of_datasets(|counts| &counts.releases)
                + telemetry.total_of_datasets(|counts| &counts.dry_releases)
        };
        // Two windows, each to two destinations.
        gateway.until("the windows are closed", |_| releases() >= 4).await;
        gateway.stop().await;
        assert_eq!(releases(), 4);
    }
}

/// A closing without records says nothing. An entry that says nothing is how an outbox begins anew that was full.
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_remembers_no_closing_without_records() {
    let deployment = Deployment::new();
    deployment.set_k(5);
    deployment.edit(POLICY, "min_contributors = 5\n", "min_contributors = 5\nmax_defer = 2\n");
    deployment.edit("gateway.toml", "id       = \"g-1\"", "id = \"g-1\"\nmode = \"dry-run\"");
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.close_before(2).await;
    producer.send(&visits(3, 6, "DE")).await;
    producer.close_before(4).await;
    let dry = gateway.app.telemetry().clone();
    gateway.until("the window is closed", |_| dry.total_of_datasets(|counts| &counts.dry_releases) == 2).await;
    producer.close_before(9).await;
    gateway.stop().await;
    let (segment_bytes, quota_bytes) = (SEGMENT_BYTES, 64 * SEGMENT_BYTES);
    let directory = deployment.path("journal/outbox");
    let settings = Settings { directory, segment_bytes, quota_bytes, context: Vec::new(), at_least: 0 };
    let (outbox, _) = Log::open(Arc::new(RealFileSystem), settings).unwrap();
    let held = held(&outbox, 0, BTreeMap::new()).unwrap();
    assert_eq!((held.closed.len(), held.begun_anew), (1, BTreeMap::new()));
    outbox.close();
}
