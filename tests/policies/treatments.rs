//! Field treatments: what is dropped, coarsened or replaced by a pseudonym is not on the disk as it came.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::broker::Broker;
use super::deployment::{Deployment, POLICY, at, refusals};

fn deployment() -> Deployment {
    let deployment = Deployment::new();
    deployment.edit(
        POLICY,
        "[{ field = \"country\", strength = 90 }]",
        "[{ field = \"home\", strength = 90 }, { phone = \"phone\", strength = 40 }]",
    );
    let fields = r#"[streams.visits.fields]
home   = { type = "string", class = "personal", treatment = "drop" }
phone  = { type = "string", class = "personal", treatment = "drop", required = false }
note   = { type = "string", class = "personal", treatment = "drop", required = false }
device = { type = "string", class = "personal", treatment = "pseudonymise", scope = "day" }
age    = { type = "int64", class = "personal", treatment = "generalise", edges = [0, 18, 65] }
seen   = { type = "timestamp", class = "personal", treatment = "generalise", truncate = "PT1H" }
model  = { type = "string", class = "operational", treatment = "generalise", words = ["mk1", "mk2"] }
"#;
    deployment.edit(POLICY, "[streams.visits.fields]\n", fields);
    deployment.edit(
        POLICY,
        "group_by         = [{ field = \"country\", domain = [\"DE\", \"FR\", \"IN\"] }]",
        "group_by = [{ field = \"model\", domain = [\"mk1\", \"mk2\"] }]",
    );
    deployment.edit(
        POLICY,
        "{ name = \"visits\", fn = \"count\" }",
        "{ name = \"visits\", fn = \"count\" }, { name = \"ages\", fn = \"histogram\", field = \"age\", edges = [0, 18, 65, 200] }",
    );
    deployment
}

fn record(person: usize, canary: &str) -> Value {
    json!({
        "at": at(1, 30), "person": format!("p-{person}"), "country": "-", "amount": 2.0, "home": "DE",
        "phone": format!("+49 30 9018{person:02}{}", canary.len() % 10), "note": format!("note-{canary}-{person}"),
        "device": format!("device-{canary}-{person}"), "age": 33_333 + person, "seen": "2026-01-05T11:47:13.123456Z",
        "model": if person.is_multiple_of(2) { format!("model-{canary}") } else { "mk1".to_owned() },
    })
}

async fn run(deployment: &Deployment, canary: &str) -> BTreeSet<String> {
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    let records: Vec<Value> = (0..40).map(|person| record(person, canary)).collect();
    producer.send(&records).await;
    let mut elsewhere = record(1, canary);
    elsewhere["home"] = "IN".into();
    assert_eq!(refusals(&producer.publish(&[elsewhere]).await).len(), 1, "a dropped field is evidence");
    producer.close_before(9).await;
    gateway.stop().await;
    deployment.released("desk").iter().map(Value::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_or_coarsened_is_neither_in_the_journal_nor_in_the_releases() {
    let deployment = deployment();
    let lines = run(&deployment, "canary-one").await;
    assert_eq!(lines.len(), 2);
    for line in &lines {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["visits"], 20);
        assert_eq!(line["ages"].as_array().unwrap().iter().map(|count| count.as_i64().unwrap()).sum::<i64>(), 20);
        assert!(["mk1", "other"].contains(&line["model"].as_str().unwrap()), "{line}");
    }
    // What is kept is there as it came, so the others would be found.
    assert!(deployment.holds("journal/log", "p-39"));
    for directory in ["journal", "released"] {
        for gone in ["note-", "device-canary", "model-canary", "canary", "+49 30"] {
            assert!(!deployment.holds(directory, gone), "`{gone}` in {directory}");
        }
        for number in [33_333_i64, 33_340, 33_372] {
            assert!(!holds_number(&deployment, directory, number), "{number} in {directory}");
        }
        let seen: jiff::Timestamp = "2026-01-05T11:47:13.123456Z".parse().unwrap();
        assert!(!holds_number(&deployment, directory, seen.as_microsecond()), "{directory}");
    }
    let hour: jiff::Timestamp = "2026-01-05T11:00:00Z".parse().unwrap();
    assert!(holds_number(&deployment, "journal/log", hour.as_microsecond()), "the hour is kept");
    assert!(holds_number(&deployment, "journal/log", 65), "the bin is kept");
}

fn holds_number(deployment: &Deployment, directory: &str, number: i64) -> bool {
    deployment.holds(directory, number.to_le_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_differ_only_in_what_is_dropped_release_the_same_bytes() {
    let (one, two) = (deployment(), deployment());
    let first = run(&one, "canary-one").await;
    assert!(!first.is_empty());
    assert_eq!(run(&two, "canary-other").await, first);
    for destination in ["desk", "hub"] {
        assert_eq!(two.bytes(&format!("released/{destination}")), one.bytes(&format!("released/{destination}")));
    }
    assert_ne!(one.bytes("released/desk"), Vec::<u8>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_runs_that_differ_only_in_what_is_dropped_are_the_same() {
    let Some(broker) = Broker::own(Vec::new()) else { return };
    let mut told = Vec::new();
    for canary in ["canary-one", "canary-other"] {
        broker.create_topics(canary);
        let deployment = deployment();
        let file = "kind         = \"file\"\ndirectory    = \"released/hub\"\nrotate_after = \"PT0S\"\n";
        let kafka = format!("kind = \"kafka\"\nbrokers = \"{}\"\ntopic = \"{canary}\"\n", broker.address);
        deployment.edit("gateway.toml", file, &kafka);
        run(&deployment, canary).await;
        told.push(broker.read(canary, "all"));
    }
    assert!(!told[0].is_empty());
    // Each has key, headers and the bytes of its value.
    assert_eq!(told[0], told[1]);
    assert!(told[0].iter().all(|message| message["value"].as_str().is_some_and(|value| !value.is_empty())));
}
