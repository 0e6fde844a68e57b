//! Counters of laws: a real gateway that is killed at the limit, peers that records are sent to, and what is said of it.

use std::collections::BTreeSet;
use std::fs;

use bailiwick::ingress::proto::ingest::PublishResponse;
use serde_json::{Value, json};

use super::deployment::{Deployment, POLICY, Process, REGIME};
use crate::common::http::{check as check_of, get};
use crate::common::process::{run, text};
use crate::common::{changed, free_port, records, until};

/// The law lets records of few persons be abroad.
const ABROAD: &str = r#"
[[transfers]]
id    = "few"
form  = "identifiable"
to    = ["any"]
basis = "few persons in a year"
needs = ["data.few"]

[[transfers]]
id    = "promised"
form  = "identifiable"
to    = ["any"]
basis = "promised"
needs = ["dest.promised"]

[counters."data.few"]
per    = "recipient"
period = "calendar-year"
zone   = "+08:00"
below  = 100
except = ["DE"]
"#;

const COUNTED: &str = r#"
[[counted]]
regime    = "aa"
condition = "data.few"
gateway   = "g-1"
share     = 12
already   = 2
by        = "counsel@acme.example"
ref       = "COUNT-1"
"#;

/// Two gateways abroad that serve the law.
const PEERS: &str = r#"
[[peers]]
id       = "fr-1"
country  = "FR"
endpoint = "http://127.0.0.1:1"
serves   = ["aa"]

[[peers]]
id       = "us-1"
country  = "US"
endpoint = "http://127.0.0.1:2"
serves   = ["aa"]
"#;

/// A gateway in Ireland that serves the law of Germany.
fn abroad() -> Deployment {
    let deployment = Deployment::new();
    deployment.edit("gateway.toml", "country  = \"DE\"", "country  = \"IE\"");
    deployment.write(REGIME, deployment.read(REGIME) + ABROAD);
    deployment.write(POLICY, deployment.read(POLICY) + COUNTED);
    deployment
}

fn visit(person: Option<u32>) -> Value {
    let person = person.map(|person| format!("person-{person}"));
    json!({ "at": records::now().to_string(), "person": person, "country": "DE", "amount": 1.0 })
}

async fn send(gateway: &Process, persons: impl IntoIterator<Item = u32>) -> PublishResponse {
    let visits = persons.into_iter().map(|person| visit(Some(person)));
    let request = records::request("visits", "p", records::json_events(visits));
    records::publish(gateway.endpoint(), request).await.unwrap()
}

/// The rules by which records were refused.
fn refused(response: &PublishResponse) -> BTreeSet<String> {
    response.refusals.iter().flat_map(|refusal| refusal.rules.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_killed_at_the_limit_lets_nobody_over_it() {
    let deployment = abroad();
    let gateway = deployment.spawn();
    // Of the share of 12, two went before it counted.
    let response = send(&gateway, [1, 2, 3, 1, 2, 3]).await;
    assert_eq!((response.accepted, response.refusals.len()), (6, 0));
    gateway.kill();
    let gateway = deployment.spawn();
    let response = send(&gateway, 2..=9).await;
    assert_eq!(response.accepted, 8);
    // One of these is the last.
    let response = send(&gateway, 9..=12).await;
    assert_eq!(response.accepted, 2, "9, who was counted, and 10");
    assert_eq!(refused(&response), BTreeSet::from(["aa/counters/data.few".to_owned()]));
    gateway.kill();
    let gateway = deployment.spawn();
    assert_eq!(send(&gateway, 11..=14).await.accepted, 0);
    assert_eq!(send(&gateway, 1..=10).await.accepted, 10);
    gateway.stop();
    // A greater share makes room, and what is vouched for needs none.
    deployment.edit(POLICY, "share     = 12", "share     = 13");
    let gateway = deployment.spawn();
    assert_eq!(send(&gateway, 11..=14).await.accepted, 1);
    deployment.edit("gateway.toml", "policies = [\"policies\"]", VOUCHED);
    gateway.reload();
    assert_eq!(send(&gateway, 11..=40).await.accepted, 30);
    // They count all the same, whichever row let them go.
    deployment.edit("gateway.toml", VOUCHED, "policies = [\"policies\"]");
    deployment.edit(POLICY, "share     = 13", "share     = 32");
    gateway.reload();
    assert_eq!(send(&gateway, 41..=44).await.accepted, 0);
    gateway.stop();
}

const VOUCHED: &str = "policies = [\"policies\"]\n[gateway.conditions]\n\"dest.promised\" = { ref = \"P-1\" }";

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_counts_for_its_peer_and_the_next_peer_gets_those_for_whom_there_is_no_room() {
    let deployment = abroad();
    deployment.edit("gateway.toml", "serves   = [\"aa\"]", "serves   = [\"bb\"]");
    deployment.edit("gateway.toml", "country  = \"IE\"", "country  = \"IN\"");
    deployment.write("gateway.toml", deployment.read("gateway.toml") + PEERS);
    deployment.edit(POLICY, "share     = 12", "share     = 5");
    let gateway = deployment.spawn();
    let response = send(&gateway, 1..=8).await;
    let to = |response: &PublishResponse| -> Vec<String> {
        let routes = response.refusals.iter().flat_map(|refusal| {
            let gateway = refusal.route.as_ref().map(|route| route.gateway.clone()).unwrap_or_default();
            std::iter::repeat_n(gateway, refusal.count.max(1) as usize)
        });
        routes.collect()
    };
    let expected: Vec<&str> = [["fr-1"; 3].as_slice(), &["us-1"; 3], &[""; 2]].concat();
    assert_eq!(to(&response), expected);
    gateway.kill();
    let gateway = deployment.spawn();
    assert_eq!(to(&send(&gateway, [9, 2, 5]).await), ["", "fr-1", "us-1"]);
    gateway.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn records_without_a_contributor_are_somebody_else_each_time() {
    let deployment = abroad();
    deployment.write(
        POLICY,
        changed(
            &deployment.read(POLICY),
            "person  = { type = \"string\", class = \"personal\" }",
            "person  = { type = \"string\", class = \"personal\", required = false }",
        ),
    );
    for accepted in [6, 4] {
        let gateway = deployment.spawn();
        let request = records::request("visits", "p", records::json_events((0..6).map(|_| visit(None))));
        assert_eq!(records::publish(gateway.endpoint(), request).await.unwrap().accepted, accepted);
        gateway.kill();
    }
}

/// Changes a byte of the oldest person's entry in the log of the counters.
fn damage(deployment: &Deployment) {
    let name = b"aa/counters/data.few";
    let files = fs::read_dir(deployment.path("journal/counters")).unwrap().map(|file| file.unwrap().path());
    let mut segments: Vec<_> =
        files.filter(|file| file.extension().is_some_and(|extension| extension == "segment")).collect();
    segments.sort();
    let found = segments.iter().find_map(|segment| {
        let bytes = fs::read(segment).unwrap();
        let at = bytes.windows(name.len()).position(|found| found == name)?;
        Some((segment, bytes, at))
    });
    let (segment, mut bytes, at) = found.unwrap();
    bytes[at] ^= 1;
    fs::write(segment, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_that_were_lost_are_told_at_every_start_and_leave_no_room() {
    let deployment = abroad();
    let address = format!("127.0.0.1:{}", free_port());
    let config = deployment.read("gateway.toml") + &format!("\n[http]\nlisten = \"{address}\"\n");
    deployment.write("gateway.toml", config);
    let gateway = deployment.spawn();
    for person in 1..=3 {
        assert_eq!(send(&gateway, [person]).await.accepted, 1);
    }
    gateway.stop();
    damage(&deployment);
    for _ in 0..2 {
        let gateway = deployment.spawn();
        gateway.wait_for("were lost; no room until the period is over", 1);
        assert_eq!(send(&gateway, 1..=3).await.accepted, 0);
        let check = check_of(&address, "counters");
        assert_eq!(check["state"], "warning");
        assert!(check["says"].as_str().unwrap().contains("were lost; no room until the period is over"), "{check}");
        assert!(check["do"].as_str().unwrap().contains("`already`"), "{check}");
        gateway.stop();
    }
}

/// Says a warning of `check`.
fn warned(deployment: &Deployment, of: &str) -> bool {
    let said = text(&run(deployment.root(), &["check", "-c", "gateway.toml"]).stderr);
    said.contains(of)
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_that_are_gone_are_lost_until_the_operator_begins_anew() {
    let deployment = abroad();
    let gateway = deployment.spawn();
    assert_eq!(send(&gateway, 1..=3).await.accepted, 3);
    gateway.stop();
    let verify = || run(deployment.root(), &["journal", "verify", "journal"]);
    assert!(verify().status.success());
    assert!(text(&verify().stdout).contains("aa/counters/data.few to g-1: 3 persons"), "{}", text(&verify().stdout));
    damage(&deployment);
    let damaged = verify();
    assert!(!damaged.status.success());
    assert!(text(&damaged.stdout).contains("counts were lost"), "{}", text(&damaged.stdout));
    fs::remove_dir_all(deployment.path("journal/counters")).unwrap();
    assert!(!verify().status.success());
    assert!(warned(&deployment, "is gone, so counts were lost"));
    for _ in 0..2 {
        let gateway = deployment.spawn();
        gateway.wait_for("were lost; no room until the period is over", 1);
        assert_eq!(send(&gateway, 1..=3).await.accepted, 0);
        gateway.stop();
    }
    fs::remove_dir_all(deployment.path("journal/counters")).unwrap();
    fs::remove_file(deployment.path("journal/counters.begun")).unwrap();
    let gateway = deployment.spawn();
    assert_eq!(send(&gateway, 1..=3).await.accepted, 3);
    gateway.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_name_of_a_count_does_not_begin_it_anew() {
    let deployment = abroad();
    let gateway = deployment.spawn();
    assert_eq!(send(&gateway, 1..=8).await.accepted, 8);
    deployment.edit(REGIME, "per    = \"recipient\"", "per    = \"all\"");
    assert!(warned(&deployment, "until their period is over they count in aa/counters/data.few to all, too"));
    // Now by a reload, then by a start.
    gateway.reload();
    gateway.wait_for("count in aa/counters/data.few to all, too", 1);
    assert_eq!(send(&gateway, 5..=9).await.accepted, 5);
    gateway.kill();
    deployment.edit(REGIME, "per    = \"all\"", "per    = \"country\"");
    let gateway = deployment.spawn();
    assert_eq!(send(&gateway, 10..=12).await.accepted, 1, "the tenth");
    assert_eq!(send(&gateway, 1..=10).await.accepted, 10);
    gateway.stop();
}

/// Where a contributor may be several persons, a counter shows nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_counter_counts_persons_and_no_devices() {
    let deployment = abroad();
    deployment.edit(POLICY, "contributor_is_person = true\n", "");
    let errors = deployment.errors();
    let said = "lets no identifiable record of stream `visits` be in IE";
    assert!(errors.iter().any(|error| error.contains(said)), "{errors:?}");
    deployment.edit("gateway.toml", "policies = [\"policies\"]", VOUCHED);
    assert!(warned(&deployment, "those that go by aa/transfers/promised to g-1 leave it without room for anybody"));
    let gateway = deployment.spawn();
    assert_eq!(send(&gateway, [1]).await.accepted, 1);
    gateway.stop();
    // From now on it is said, and one went of whom nobody knows how many they are.
    deployment.edit(POLICY, "contributor = \"person\"", "contributor = \"person\"\ncontributor_is_person = true");
    deployment.edit("gateway.toml", VOUCHED, "policies = [\"policies\"]");
    let gateway = deployment.spawn();
    assert_eq!(send(&gateway, [1]).await.accepted, 0);
    gateway.stop();
}

/// What is counted is asked of the counts that there are, and nobody is counted twice for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_knows_how_full_a_counter_is() {
    let deployment = abroad();
    for file in ["policies/classes.toml", POLICY, REGIME, "policies/bb.toml"] {
        deployment.write(&changed(file, "policies/", "shadow/"), deployment.read(file));
    }
    deployment.edit("shadow/policy.toml", "share     = 12", "share     = 7");
    deployment.add("gateway.toml", "\n[shadow]\npolicies = [\"shadow\"]\n");
    let gateway = deployment.start().await;
    let shadow = &gateway.app.telemetry().clone().shadow;
    let mut producer = gateway.producer("p").await;
    for (persons, denied) in [(5, 0), (6, 6)] {
        let records: Vec<Value> = (1..=persons).map(|person| visit(Some(person))).collect();
        assert_eq!(producer.publish(&records).await.accepted, persons);
        assert_eq!(shadow.newly_denied.load(std::sync::atomic::Ordering::Relaxed), denied);
    }
    gateway.stop().await;
}

#[test]
fn check_warns_of_shares_that_other_rows_can_exceed() {
    let deployment = abroad();
    let other = changed(COUNTED, "g-1", "g-2");
    deployment.write(POLICY, deployment.read(POLICY) + &other);
    let said = "they may take gateway `g-1` beyond its share of 12";
    assert!(!warned(&deployment, said));
    deployment.edit("gateway.toml", "policies = [\"policies\"]", VOUCHED);
    assert!(warned(&deployment, said));
    deployment.write(POLICY, changed(&deployment.read(POLICY), &other, ""));
    assert!(!warned(&deployment, said), "one gateway keeps it alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_explain_and_the_law_say_what_is_counted() {
    let deployment = abroad();
    let said = |arguments: &[&str]| text(&run(deployment.root(), arguments).stdout);
    let check = said(&["check", "-c", "gateway.toml"]);
    assert!(check.contains("a counter: of the law's below 100, this gateway's 12, of which 2 are taken"), "{check}");
    let law = said(&["policy", "law", "-c", "gateway.toml", "aa"]);
    assert!(law.contains("data.few is met below 100 distinct persons since 1 January"), "{law}");
    let address = format!("127.0.0.1:{}", free_port());
    deployment.add("gateway.toml", &format!("\n[http]\nlisten = \"{address}\"\n"));
    let gateway = deployment.spawn();
    assert_eq!(check_of(&address, "counters")["state"], "well");
    send(&gateway, 1..=9).await;
    let found = until(|| Some(check_of(&address, "counters")).filter(|check| check["state"] == "warning"));
    assert_eq!(found["says"], "aa/counters/data.few to g-1 is 90 % used");
    let used = "bailiwick_counter_used{counter=\"aa/counters/data.few\",to=\"g-1\"} 0.9";
    until(|| Some(()).filter(|()| get(&address, "/metrics").1.lines().any(|line| line == used)));
    send(&gateway, [10]).await;
    until(|| Some(()).filter(|()| check_of(&address, "counters")["says"] == "aa/counters/data.few to g-1 is full"));
    gateway.stop();
    // Without it the condition is not shown.
    let without = changed(&deployment.read(POLICY), COUNTED, "");
    deployment.write(POLICY, without);
    let errors = deployment.errors();
    assert!(
        errors.iter().any(|error| error.contains("lets no identifiable record of stream `visits` be in IE")),
        "{errors:?}"
    );
}
