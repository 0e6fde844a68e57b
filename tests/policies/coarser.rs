//! A dataset that adds up the rows of a finer one: to another destination, over kills, in the ledger, the counts and `check`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::changed;
use crate::common::ledger::{entries, of_kind};
use crate::common::process::{run, text};

use super::deployment::{Deployment, POLICY, Producer, visits};

pub(super) const TOTALS: &str = r#"
[datasets.totals]
stream           = "visits"
coarser_than     = "by_country"
window           = { size = "PT1M", grace = "PT1S" }
min_contributors = 5
metrics          = [{ name = "of_all", fn = "count" }]
"#;

fn deployment() -> Deployment {
    with_sums(Deployment::new(), TOTALS)
}

/// The desk has the finer dataset, the hub has the sums.
pub(super) fn with_sums(deployment: Deployment, totals: &str) -> Deployment {
    deployment.edit(POLICY, "[destinations.desk]", &format!("{totals}\n[destinations.desk]"));
    let hub = "country = \"US\"\naccepts = [\"by_country\"]";
    deployment.edit(POLICY, hub, &changed(hub, "by_country", "totals"));
    deployment.set_k(5);
    deployment
}

/// The minute and the columns of each row that a destination has.
fn rows(deployment: &Deployment, destination: &str, columns: &[&str]) -> Vec<Value> {
    let row = |line: &Value| {
        let minute = json!(line["window_start"].as_str().unwrap()[14..16]);
        Value::Array([minute].into_iter().chain(columns.iter().map(|column| line[column].clone())).collect())
    };
    let mut rows: Vec<Value> = deployment.released(destination).iter().map(row).collect();
    rows.sort_by_key(ToString::to_string);
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_of_what_leaves_go_to_another_destination_once_over_kills() {
    let deployment = deployment();
    let minute = |minute, [de, fr]: [usize; 2]| [visits(minute, de, "DE"), visits(minute, fr, "FR")].concat();
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    producer.send(&minute(1, [12, 7])).await;
    process.kill();
    // The open window comes from the journal, and so does the closing.
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    producer.sequence = 1;
    producer.close_before(2).await;
    producer.send(&minute(2, [4, 5])).await;
    process.kill();
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.sequence = 2;
    // Nobody is enough.
    producer.send(&minute(3, [4, 4])).await;
    producer.close_before(4).await;
    let have_left = || deployment.released("desk").len() == 3 && deployment.released("hub").len() == 2;
    gateway.until("both have left", |_| have_left()).await;
    gateway.stop().await;
    assert_eq!(
        rows(&deployment, "desk", &["country", "visits"]),
        [json!(["01", "DE", 12]), json!(["01", "FR", 7]), json!(["02", "FR", 5])]
    );
    assert_eq!(
        rows(&deployment, "hub", &["dataset", "of_all"]),
        [json!(["01", "totals", 19]), json!(["02", "totals", 5])]
    );
    assert!(deployment.released("hub").iter().all(|line| line.get("country").is_none()));
    let entries = entries(&deployment.path("journal/ledger"));
    let cells = |destination: &str| -> Vec<Value> {
        // What is sent again after a kill is said again.
        let mut releases = BTreeSet::new();
        let intents = of_kind(&entries, "intent").into_iter().filter(|intent| intent["destination"] == destination);
        let intents = intents.filter(|intent| releases.insert(intent["release"].to_string()));
        intents.map(|intent| json!([intent["dataset"], intent["cells"]])).collect()
    };
    assert_eq!(cells("desk"), [json!(["by_country", 2]), json!(["by_country", 1])]);
    assert_eq!(cells("hub"), [json!(["totals", 1]), json!(["totals", 1])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn its_rows_are_counted_as_its_own_and_what_it_adds_up_is_not_changed_while_the_gateway_runs() {
    let deployment = deployment();
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.send(&[visits(1, 6, "DE"), visits(1, 7, "FR")].concat()).await;
    producer.close_before(2).await;
    let released = |app: &bailiwick::app::App| app.telemetry().total_of_datasets(|counts| &counts.cells_released);
    // Two cells and one sum.
    gateway.until("the closing is counted", |app| released(app) == 3).await;
    deployment.edit(POLICY, "coarser_than     = \"by_country\"\n", "");
    deployment.edit(
        POLICY,
        "[datasets.totals]\n",
        "[datasets.totals]\ngroup_by = [{ field = \"country\", domain = [\"DE\", \"FR\", \"IN\"] }]\n",
    );
    let refused = gateway.reload().await.unwrap_err();
    assert!(refused.contains("coarser_than was by_country, is nothing"), "{refused}");
    gateway.stop().await;
}

#[test]
fn check_says_what_it_adds_up() {
    let deployment = deployment();
    let checked = run(deployment.root(), &["check", "-c", "gateway.toml"]);
    let said = text(&checked.stdout);
    assert!(checked.status.success(), "{said}{}", text(&checked.stderr));
    assert!(said.contains("its rows are sums of the rows of by_country"), "{said}");
    let checked = run(deployment.root(), &["check", "--json"]);
    let said: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let datasets = said["datasets"].as_array().unwrap().iter();
    let finer: Vec<Value> = datasets.map(|dataset| json!([dataset["dataset"], dataset["coarser_than"]])).collect();
    assert!(
        finer.contains(&json!(["totals", "by_country"])) && finer.contains(&json!(["by_country", null])),
        "{finer:?}"
    );
}
