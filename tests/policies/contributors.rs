//! A dataset that tells how many contributors its cells have at least: over a kill, in files of several formats, and what
//! `check` says of it.

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use bailiwick::app::App;
use serde_json::Value;

use crate::common::process::{run, text};

use super::deployment::{Deployment, POLICY, Producer, REGIME, visits};

const COLUMN: &str = "contributors_at_least";

/// A gateway of two workers; the hub has another format.
fn deployment(format: &str) -> Deployment {
    let deployment = Deployment::new();
    deployment.edit(POLICY, "min_contributors = 5\n", "min_contributors = 5\ncontributors = \"bucket\"\n");
    deployment.edit("gateway.toml", "workers = 1", "workers = 2");
    let hub = "directory    = \"released/hub\"\n";
    deployment.edit("gateway.toml", hub, &format!("{hub}format = \"{format}\"\n"));
    deployment.set_k(5);
    deployment
}

/// So many records of each of so many people.
fn sent(people: usize, each: usize, country: &str) -> Vec<Value> {
    (0..each).flat_map(|_| visits(1, people, country)).collect()
}

/// What the desk was told, in JSON lines.
fn at_desk(deployment: &Deployment) -> Vec<(String, i64, Option<i64>)> {
    let lines = deployment.released("desk").into_iter().map(|line| {
        let at_least = line.as_object().unwrap().get(COLUMN).expect("the column is there").as_i64();
        (line["country"].as_str().unwrap().to_owned(), line["visits"].as_i64().unwrap(), at_least)
    });
    let mut lines: Vec<_> = lines.collect();
    lines.sort();
    lines
}

/// What the hub was told: how many records, and the column.
fn at_hub(deployment: &Deployment) -> Vec<(i64, Option<i64>)> {
    let mut told = Vec::new();
    for batch in deployment.columns_at_hub() {
        let of = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
        told.extend(of("visits").iter().map(Option::unwrap).zip(of(COLUMN).iter()));
    }
    told.sort_unstable();
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_says_how_many_contributors_a_cell_has_at_least_over_a_kill() {
    for format in ["arrow", "parquet"] {
        let deployment = deployment(format);
        let process = deployment.spawn();
        // Two producers, each on a worker of its own, send records of the same people of Germany.
        for name in ["p", "q"] {
            let mut producer = Producer::connect(process.endpoint(), name).await;
            producer.send(&sent(30, 1, "DE")).await;
        }
        let mut producer = Producer::connect(process.endpoint(), "p").await;
        producer.sequence = 1;
        producer.send(&sent(21, 1, "FR")).await;
        process.kill();
        let gateway = deployment.start().await;
        for (name, sequence) in [("p", 2), ("q", 1)] {
            let mut producer = gateway.producer(name).await;
            producer.sequence = sequence;
            producer.close_before(2).await;
        }
        let has_all = |_: &App| at_desk(&deployment).len() == 2 && at_hub(&deployment).len() == 2;
        gateway.until("both have all", has_all).await;
        // Of 21 people who sent 21 records it is told that they are 5 or more.
        let expected = [("DE".to_owned(), 60, Some(20)), ("FR".to_owned(), 21, Some(5))];
        assert_eq!(at_desk(&deployment), expected);
        assert_eq!(at_hub(&deployment), [(21, Some(5)), (60, Some(20))]);
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_law_forbids_at_a_reload_is_null_from_the_open_window_on() {
    let deployment = deployment("jsonl");
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.send(&sent(30, 2, "DE")).await;
    let profile = "\n[release.quiet]\ncontributors = \"never\"\n";
    deployment.write(POLICY, deployment.read(POLICY) + profile);
    deployment.edit(REGIME, "min_contributors", "release = \"quiet\"\nmin_contributors");
    gateway.reload().await.unwrap();
    producer.close_before(2).await;
    gateway.until("the desk has it", |_| !at_desk(&deployment).is_empty()).await;
    assert_eq!(at_desk(&deployment), [("DE".to_owned(), 60, None)]);
    deployment.edit(POLICY, "contributors = \"bucket\"", "contributors = \"never\"");
    let refused = gateway.reload().await.unwrap_err();
    assert!(refused.contains("contributors was bucket, is never"), "{refused}");
    gateway.stop().await;
}

#[test]
fn check_says_which_steps_there_are_and_who_forbids_them() {
    let deployment = deployment("jsonl");
    let said = || text(&run(deployment.root(), &["check"]).stdout);
    let machine = || -> Value {
        let told: Value = serde_json::from_str(&text(&run(deployment.root(), &["check", "--json"]).stdout)).unwrap();
        told["datasets"][0]["contributors"].clone()
    };
    let steps = "`contributors_at_least` is at least 5; the steps above are 20, 50, 100, 200, 500, 1000";
    assert!(said().contains(steps), "{}", said());
    assert_eq!(machine(), serde_json::json!({ "value": "bucket", "by": "dataset by_country" }));
    let profile = "\n[release.quiet]\ncontributors = \"never\"\n";
    deployment.write(POLICY, deployment.read(POLICY) + profile);
    deployment.edit(REGIME, "min_contributors", "release = \"quiet\"\nmin_contributors");
    let forbidden = "`contributors_at_least` is null: regime aa, by release profile quiet says never";
    assert!(said().contains(forbidden), "{}", said());
    assert_eq!(machine(), serde_json::json!({ "value": "never", "by": "regime aa, by release profile quiet" }));
}
