//! Counts that leave as multiples of what a law and a dataset ask for: over kills and a reload, in files of several formats, and
//! what `check` says of it.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use bailiwick::app::App;
use serde_json::{Value, json};

use crate::common::process::{run, text};

use super::deployment::{Deployment, POLICY, Producer, REGIME, visits};

const METRICS: &str =
    "[{ name = \"visits\", fn = \"count\" }, { name = \"amount\", fn = \"sum\", field = \"amount\" }]";
const MORE: &str = r#"[
  { name = "visits", fn = "count" },
  { name = "amount", fn = "sum", field = "amount" },
  { name = "mean", fn = "mean", field = "amount" },
  { name = "spread", fn = "variance", field = "amount" },
  { name = "amounts", fn = "histogram", field = "amount", edges = [0, 25, 1000] },
]"#;

/// The law asks for multiples of 4, and the dataset for multiples of 6. The hub has another format.
fn deployment(format: &str) -> Deployment {
    let deployment = Deployment::new();
    let profiles = "\n[release.of_law]\nround_counts_to = 4\n[release.own]\nround_counts_to = 6\n";
    deployment.edit(POLICY, METRICS, MORE);
    deployment.add(POLICY, profiles);
    deployment.edit(POLICY, "min_contributors = 5\n", "min_contributors = 5\nrelease = \"own\"\n");
    deployment.edit(REGIME, "min_contributors", "release = \"of_law\"\nmin_contributors");
    let hub = "directory    = \"released/hub\"\n";
    deployment.edit("gateway.toml", hub, &format!("{hub}format = \"{format}\"\n"));
    deployment.set_k(5);
    deployment
}

/// A record of each of so many people, with amounts of 10, 11, 12 and so on.
fn sent(minute: u32, people: usize, country: &str) -> Vec<Value> {
    let mut records = visits(minute, people, country);
    for (record, amount) in records.iter_mut().zip(10..) {
        record["amount"] = json!(f64::from(amount));
    }
    records
}

/// What a cell says: visits, the sum, the mean, the histogram.
type Told = (i64, f64, f64, Vec<i64>);

fn at_desk(deployment: &Deployment) -> Vec<Told> {
    let lines = deployment.released("desk").into_iter().map(|line| {
        assert!(line.as_object().unwrap()["spread"].is_null());
        // In JSON a count has no point.
        let ranges = line["amounts"].as_array().unwrap().iter().map(|count| count.as_i64().unwrap()).collect();
        (line["visits"].as_i64().unwrap(), line["amount"].as_f64().unwrap(), line["mean"].as_f64().unwrap(), ranges)
    });
    let mut lines: Vec<Told> = lines.collect();
    lines.sort_by(|one, other| one.partial_cmp(other).unwrap());
    lines
}

fn at_hub(deployment: &Deployment) -> Vec<Told> {
    let mut told = Vec::new();
    for batch in deployment.columns_at_hub() {
        let column = |name: &str| batch.column_by_name(name).unwrap();
        let number = |name: &str, row: usize| column(name).as_primitive::<Float64Type>().value(row);
        for row in 0..batch.num_rows() {
            let ranges = column("amounts").as_list::<i32>().value(row);
            let ranges = ranges.as_primitive::<Int64Type>().iter().map(Option::unwrap).collect();
            let visits = column("visits").as_primitive::<Int64Type>().value(row);
            told.push((visits, number("amount", row), number("mean", row), ranges));
        }
    }
    told.sort_by(|one, other| one.partial_cmp(other).unwrap());
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn every_count_is_a_multiple_of_what_each_asks_for_in_every_format_over_a_kill() {
    for format in ["arrow", "parquet"] {
        let deployment = deployment(format);
        let process = deployment.spawn();
        let mut producer = Producer::connect(process.endpoint(), "p").await;
        producer.send(&[sent(1, 27, "DE"), sent(1, 34, "FR"), sent(1, 4, "FR")].concat()).await;
        process.kill();
        let gateway = deployment.start().await;
        let mut producer = gateway.producer("p").await;
        producer.sequence = 1;
        producer.close_before(2).await;
        let has_all = |_: &App| at_desk(&deployment).len() == 2 && at_hub(&deployment).len() == 2;
        gateway.until("both have all", has_all).await;
        gateway.stop().await;
        // DE: 27 records, which are 24; 15 of them below 25, which are 12, and 12. 10 to 36 come to 621.
        // FR: 38 records, which are 36; 19 of them below 25, which are 24, and 19. 10 to 43, and 10 to 13, come to 947.
        let expected = [(24, 621.0, 621.0 / 24.0, vec![12, 12]), (36, 947.0, 947.0 / 36.0, vec![24, 24])];
        assert_eq!(at_desk(&deployment), expected);
        assert_eq!(at_hub(&deployment), expected, "{format}");
    }
}

/// The window that a reload falls into gets what both versions ask for; the next one what the new one asks for.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_reload_an_open_window_gives_both_versions_what_they_ask_for() {
    let deployment = deployment("jsonl");
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.send(&sent(1, 25, "DE")).await;
    deployment.edit(POLICY, "round_counts_to = 4", "round_counts_to = 9");
    assert_eq!(gateway.reload().await, Ok(deployment.digest()));
    producer.send(&sent(2, 25, "DE")).await;
    producer.close_before(3).await;
    gateway.until("the desk has both", |_| at_desk(&deployment).len() == 2).await;
    // 25 to a multiple of 12 and 18, which is 36; then to one of 18.
    assert_eq!(deployment.counts("desk"), [(1, "DE".to_owned(), 36), (2, "DE".to_owned(), 18)]);
    deployment.edit(POLICY, "round_counts_to = 9", "round_counts_to = 997");
    let refused = gateway.reload().await.unwrap_err();
    assert!(refused.contains("regime aa, by release profile of_law for 997"), "{refused}");
    gateway.stop().await;
}

#[test]
fn check_says_to_what_counts_are_rounded_and_what_is_computed_from_them() {
    let deployment = deployment("jsonl");
    let said = text(&run(deployment.root(), &["check"]).stdout);
    let by = "dataset by_country, by release profile own (6) and regime aa, by release profile of_law (4)";
    for line in [
        &format!("  every count is rounded to the nearest multiple of 12, halves up: {by}\n"),
        "  and is 0 if it is less than 6, also of a cell or part that leaves\n",
        "  the sum by a rounded count; that count times the mean is the sum, which is not rounded: mean\n",
        "  null, since a variance would tell the exact count: spread\n",
        "  not rounded, since a sum is no count; if its values are few or alike, it tells one: amount\n",
    ] {
        assert!(said.contains(line), "{line}{said}");
    }
    let told: Value = serde_json::from_str(&text(&run(deployment.root(), &["check", "--json"]).stdout)).unwrap();
    assert_eq!(told["datasets"][0]["round_counts_to"], json!({ "value": 12, "by": by }));
}
