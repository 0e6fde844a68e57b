//! Two datasets over one stream, to a destination each: counted once, judged together, released apart, over kills, a restart
//! and other declarations; and one with noise beside one without.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::changed;
use crate::common::ledger::{entries, of_kind};
use crate::common::process::{run, text};

use super::deployment::{Deployment, POLICY, Producer, at, visits};

/// The second dataset.
const SIZES: &str = r#"
[datasets.sizes]
stream           = "visits"
window           = { size = "PT1M", grace = "PT1S" }
min_contributors = 5
group_by         = [{ field = "country", domain = ["DE", "FR", "IN"] }]
metrics          = [
  { name = "of_sizes", fn = "histogram", field = "amount", edges = [0, 10, 20, 1000] },
  { name = "total", fn = "sum", field = "amount", digits = 1 },
]
"#;

/// The desk has one dataset, the hub has the other one.
fn deployment() -> Deployment {
    let deployment = Deployment::new();
    add_sizes(&deployment);
    deployment.set_k(5);
    deployment
}

fn add_sizes(deployment: &Deployment) {
    deployment.edit(POLICY, "[destinations.desk]", &format!("{SIZES}\n[destinations.desk]"));
    let hub = "country = \"US\"\naccepts = [\"by_country\"]";
    deployment.edit(POLICY, hub, &changed(hub, "by_country", "sizes"));
}

/// Records of so many persons of a country in a minute, each with an amount.
fn of(minute: u32, persons: usize, country: &str, amount: impl Fn(usize) -> f64) -> Vec<Value> {
    let record = |person: usize| json!({ "at": at(minute, 30), "person": format!("{country}-{person}"), "country": country, "amount": amount(person) });
    (0..persons).map(record).collect()
}

/// What a destination has, without what says where it is from.
fn told(deployment: &Deployment, destination: &str) -> Vec<Value> {
    let mut lines = deployment.released(destination);
    for line in &mut lines {
        for column in ["release", "gateway", "policy", "window_end"] {
            assert!(line.as_object_mut().unwrap().remove(column).is_some(), "{column}");
        }
    }
    lines.sort_by_key(ToString::to_string);
    lines
}

/// The releases that the ledger says were about to leave: their datasets and destinations.
fn intents(deployment: &Deployment) -> Vec<(String, String)> {
    let entries = entries(&deployment.path("journal/ledger"));
    // What is sent again after a kill is said again.
    let mut said = BTreeSet::new();
    let intents = of_kind(&entries, "intent").into_iter();
    let intents =
        intents.filter(|intent| said.insert([&intent["destination"], &intent["release"]].map(Value::to_string)));
    let intents = intents.map(|intent| {
        let [dataset, destination] = ["dataset", "destination"].map(|name| intent[name].as_str().unwrap().to_owned());
        (dataset, destination)
    });
    let mut intents: Vec<_> = intents.collect();
    intents.sort();
    intents
}

#[tokio::test(flavor = "multi_thread")]
async fn two_datasets_leave_once_each_over_kills_and_a_restart() {
    let deployment = deployment();
    let amount = |person: usize| if person < 8 { 1.0 } else { 15.0 };
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    producer.send(&of(1, 12, "DE", amount)).await;
    process.kill();
    // The open window comes from the journal.
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    producer.sequence = 1;
    producer.send(&of(1, 16, "DE", amount)[12..]).await;
    producer.send(&of(1, 4, "FR", amount)).await;
    producer.close_before(2).await;
    process.kill();
    // The closing comes from the journal; what the outbox has of it, or a destination, does not leave again.
    let gateway = deployment.start().await;
    gateway.until("both have left", |_| told(&deployment, "desk").len() + told(&deployment, "hub").len() > 1).await;
    let mut producer = gateway.producer("p").await;
    producer.sequence = 3;
    producer.send(&of(2, 6, "DE", amount)).await;
    producer.close_before(3).await;
    gateway.until("the next has left", |_| told(&deployment, "desk").len() + told(&deployment, "hub").len() > 3).await;
    gateway.stop().await;
    let (one, two) = ("2026-01-05T12:01:00Z", "2026-01-05T12:02:00Z");
    assert_eq!(
        told(&deployment, "desk"),
        [(one, 16, 128.0), (two, 6, 6.0)].map(|(window, visits, amount)| json!({
            "dataset": "by_country", "window_start": window, "country": "DE", "visits": visits, "amount": amount,
        }))
    );
    assert_eq!(
        told(&deployment, "hub"),
        [(one, json!([8, 8, 0]), 100.0), (two, json!([6, 0, 0]), 6.0)].map(|(window, sizes, total)| json!({
            "dataset": "sizes", "window_start": window, "country": "DE", "of_sizes": sizes, "total": total,
        }))
    );
    let [desk, hub] = [("by_country", "desk"), ("sizes", "hub")].map(|(of, to)| (of.to_owned(), to.to_owned()));
    assert_eq!(intents(&deployment), [desk.clone(), desk, hub.clone(), hub]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_that_is_too_small_for_one_leaves_in_none_and_all_are_counted() {
    let deployment = deployment();
    deployment.edit(POLICY, &SIZES[1..], &changed(&SIZES[1..], "min_contributors = 5", "min_contributors = 8"));
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.send(&[visits(1, 7, "DE"), visits(1, 8, "FR")].concat()).await;
    producer.close_before(2).await;
    let counts = |app: &bailiwick::app::App| {
        let counts = app.telemetry();
        [
            counts.total_of_datasets(|counts| &counts.cells_released),
            counts.total_of_datasets(|counts| &counts.cells_withheld),
            counts.total_of_datasets(|counts| &counts.releases),
        ]
    };
    // One released and one withheld of each.
    gateway.until("the closing is counted", |app| counts(app) == [2, 2, 2]).await;
    let has_one = |destination: &str| deployment.released(destination).len() == 1;
    gateway.until("both have left", |_| has_one("desk") && has_one("hub")).await;
    gateway.stop().await;
    for destination in ["desk", "hub"] {
        let lines = deployment.released(destination);
        assert_eq!(lines.iter().map(|line| line["country"].clone()).collect::<Vec<_>>(), ["FR"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_that_joins_another_waits_until_its_windows_have_been_released() {
    let deployment = Deployment::new();
    deployment.set_k(5);
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.send(&visits(1, 6, "DE")).await;
    add_sizes(&deployment);
    let refused = gateway.reload().await.unwrap_err();
    assert!(refused.contains("dataset `sizes` (it was added)"), "{refused}");
    gateway.stop().await;
    let refused = deployment.start_error().await;
    assert!(refused.contains("these datasets share its cells now, and none did: `by_country`, `sizes`"), "{refused}");
    deployment.edit("gateway.toml", "[gateway]\n", "[gateway]\non_stop = \"release\"\n");
    let both = deployment.read(POLICY);
    deployment.edit(POLICY, SIZES, "");
    deployment.edit(POLICY, "accepts = [\"sizes\"]", "accepts = [\"by_country\"]");
    deployment.start().await.stop().await;
    assert_eq!(deployment.counts("desk"), [(1, "DE".to_owned(), 6)]);
    // Now it can join. Nothing that was counted before is counted again.
    deployment.write(POLICY, both);
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.sequence = 1;
    producer.send(&visits(2, 6, "DE")).await;
    gateway.stop().await;
    assert_eq!(deployment.counts("desk"), [(1, "DE".to_owned(), 6), (2, "DE".to_owned(), 6)]);
    let of_sizes = |line: &Value| line["dataset"] == "sizes";
    assert_eq!(deployment.released("hub").iter().filter(|line| of_sizes(line)).count(), 1);
}

/// What the journal says of windows that closed is said under the name of the first dataset, which is removed then.
#[tokio::test(flavor = "multi_thread")]
async fn windows_that_closed_stay_closed_when_the_first_of_the_datasets_is_removed_after_a_crash() {
    let deployment = deployment();
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.send(&visits(1, 6, "DE")).await;
    producer.close_before(2).await;
    gateway.until("the first window has left", |_| deployment.released("hub").len() == 1).await;
    gateway.stop().await;
    // Without records: after them, a dataset cannot be removed.
    let process = deployment.spawn();
    Producer::connect(process.endpoint(), "p").await.close_before(5).await;
    // What is answered stands in the journal, and the closing before it.
    Producer::connect(process.endpoint(), "q").await.close_before(6).await;
    process.kill();
    let policy = deployment.read(POLICY);
    let (first, rest) = policy.split_once("[datasets.by_country]").unwrap();
    let (_, rest) = rest.split_once("[datasets.sizes]").unwrap();
    // Windows close later now: only the journal says that those before minute 5 have closed.
    let rest = changed(rest, "grace = \"PT1S\"", "grace = \"PT10M\"");
    let rest = changed(&rest, "\"by_country\"", "\"sizes\"");
    deployment.write(POLICY, format!("{first}[datasets.sizes]{rest}"));
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.sequence = 1;
    producer.send(&visits(3, 7, "DE")).await;
    producer.close_before(20).await;
    gateway.producer("q").await.close_before(20).await;
    gateway.until("what came late has left", |_| deployment.released("hub").len() == 2).await;
    gateway.stop().await;
    let windows: Vec<_> = deployment.released("hub").into_iter().map(|line| line["window_start"].clone()).collect();
    assert_eq!(windows, ["2026-01-05T12:01:00Z", "2026-01-05T12:05:00Z"]);
}

/// Adds a line to both datasets.
fn add_to_both(deployment: &Deployment, line: &str) {
    let least = "min_contributors = 5\n";
    let policy = deployment.read(POLICY);
    assert_eq!(policy.matches(least).count(), 2);
    deployment.write(POLICY, changed(&policy, least, &format!("{least}{line}\n")));
}

/// What each life of a gateway is sent, and the minute that it closes. It is killed then.
async fn live_and_be_killed(deployment: &Deployment, lives: impl IntoIterator<Item = Vec<Value>>) {
    for (sequence, records) in lives.into_iter().enumerate() {
        let process = deployment.spawn();
        let mut producer = Producer::connect(process.endpoint(), "p").await;
        producer.sequence = sequence as u64;
        producer.send(&records).await;
        producer.close_before(sequence as u32 + 2).await;
        process.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cells_that_fail_leave_in_one_remainder_of_each_of_two_datasets_over_kills() {
    let deployment = deployment();
    let country = r#"country = { type = "string", class = "personal" }"#;
    deployment.edit(POLICY, country, &format!("{country}\ncity = {{ type = \"string\", class = \"personal\" }}"));
    let keys = r#"[{ field = "country", domain = ["DE", "FR", "IN"] }"#;
    let policy = deployment.read(POLICY);
    assert_eq!(policy.matches(keys).count(), 2);
    let city = "{ field = \"city\", domain = [\"a\", \"b\", \"c\"] }";
    deployment.write(POLICY, changed(&policy, keys, &format!("{keys}, {city}")));
    add_to_both(&deployment, "roll_up = [\"city\"]");
    let in_cities = |minute: u32, cities: &[(&str, usize)]| -> Vec<Value> {
        let of_city = |(city, persons): &(&str, usize)| {
            let mut records = of(minute, *persons, "DE", |_| 1.0);
            for record in &mut records {
                let person = format!("{city}-{}", record["person"].as_str().unwrap());
                (record["city"], record["person"]) = (json!(city), json!(person));
            }
            records
        };
        cities.iter().flat_map(of_city).collect()
    };
    // One city leaves by itself, the others together. Then they are too few together, too.
    let lives =
        [in_cities(1, &[("a", 6), ("b", 3), ("c", 2), ("d", 1)]), in_cities(2, &[("a", 6), ("b", 2), ("c", 1)])];
    live_and_be_killed(&deployment, lives).await;
    for _ in 0..2 {
        let gateway = deployment.start().await;
        let have_left = || ["desk", "hub"].iter().all(|to| deployment.released(to).len() >= 3);
        gateway.until("both have all", |_| have_left()).await;
        gateway.stop().await;
    }
    let rows = |to: &str, of_row: &dyn Fn(&Value) -> Value| -> Vec<Value> {
        let row = |line: &Value| json!([line["window_start"].as_str().unwrap()[14..16], line["city"], of_row(line)]);
        let mut rows: Vec<_> = told(&deployment, to).iter().map(row).collect();
        rows.sort_by_key(ToString::to_string);
        rows
    };
    let expected = |left: [Value; 3]| -> Vec<Value> {
        [("01", "a"), ("01", "rest"), ("02", "a")]
            .iter()
            .zip(left)
            .map(|((minute, city), of)| json!([minute, city, of]))
            .collect()
    };
    assert_eq!(rows("desk", &|line| line["visits"].clone()), expected([6, 6, 6].map(Value::from)));
    let sizes = expected([6, 6, 6].map(|persons| json!([persons, 0, 0])));
    assert_eq!(rows("hub", &|line| line["of_sizes"].clone()), sizes);
}

#[tokio::test(flavor = "multi_thread")]
async fn cells_wait_once_for_two_datasets_and_leave_in_both_over_kills() {
    let deployment = deployment();
    add_to_both(&deployment, "max_defer = 2");
    let some =
        |minute: u32, persons: std::ops::Range<usize>| of(minute, persons.end, "DE", |_| 15.0).split_off(persons.start);
    // Three and two are five; then four wait in vain.
    live_and_be_killed(&deployment, [some(1, 0..3), some(2, 3..5), some(3, 0..4)]).await;
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.sequence = 3;
    let counts = |app: &bailiwick::app::App| {
        let counts = app.telemetry();
        [
            counts.total_of_datasets(|counts| &counts.cells_deferred_dropped),
            counts.total_of_datasets(|counts| &counts.cells_withheld),
        ]
    };
    producer.close_before(6).await;
    // The one cell is counted for each of both.
    gateway.until("the four are dropped", |app| counts(app) == [2, 2]).await;
    producer.send(&some(6, 0..5)).await;
    producer.close_before(7).await;
    let have_left = || ["desk", "hub"].iter().all(|to| deployment.released(to).len() == 2);
    gateway.until("both have both", |_| have_left()).await;
    gateway.stop().await;
    let rows = |to: &str, of_row: &dyn Fn(&Value) -> Value| -> Vec<Value> {
        let row = |line: &Value| json!([line["window_start"].as_str().unwrap()[14..16], line["windows"], of_row(line)]);
        told(&deployment, to).iter().map(row).collect()
    };
    assert_eq!(rows("desk", &|line| line["visits"].clone()), [json!(["02", 3, 5]), json!(["06", 3, 5])]);
    assert_eq!(
        rows("hub", &|line| line["of_sizes"].clone()),
        [json!(["02", 3, [0, 5, 0]]), json!(["06", 3, [0, 5, 0]])]
    );
}

/// A dataset with noise, of other windows.
const NOISED: &str = r#"
[release.private]
records_per_contributor = 1
cells_per_contributor   = 1

[datasets.by_two]
stream           = "visits"
window           = { size = "PT2M", grace = "PT1S" }
release          = "private"
min_contributors = 5
group_by         = [{ field = "country", domain = ["DE", "FR", "IN"] }]
metrics          = [{ name = "visits", fn = "count" }]

[datasets.by_two.privacy]
mechanism      = "discrete_gaussian"
rho_per_window = 0.03
rho_per_day    = 0.06
"#;

#[tokio::test(flavor = "multi_thread")]
async fn one_with_noise_has_windows_of_its_own_beside_one_without_over_kills() {
    let deployment = Deployment::new();
    deployment.add(POLICY, NOISED);
    let hub = "country = \"US\"\naccepts = [\"by_country\"]";
    deployment.edit(POLICY, hub, &changed(hub, "by_country", "by_two"));
    deployment.set_k(5);
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    producer.send(&visits(2, 400, "DE")).await;
    process.kill();
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    producer.sequence = 1;
    // The same persons once more: with noise, one record of each counts.
    producer.send(&visits(3, 400, "DE")).await;
    producer.close_before(3).await;
    process.kill();
    let gateway = deployment.start().await;
    gateway.until("a window of a minute has left", |_| deployment.counts("desk").len() == 1).await;
    assert_eq!(deployment.counts("hub"), [], "the window of two minutes is open");
    let mut producer = gateway.producer("p").await;
    producer.close_before(4).await;
    let have_left = || deployment.counts("desk").len() == 2 && deployment.counts("hub").len() == 1;
    gateway.until("all windows have left", |_| have_left()).await;
    gateway.stop().await;
    deployment.start().await.stop().await;
    assert_eq!(deployment.counts("desk"), [(2, "DE".to_owned(), 400), (3, "DE".to_owned(), 400)]);
    let noised = deployment.counts("hub");
    let [(2, country, visits)] = noised.as_slice() else { panic!("{noised:?}") };
    // Nine standard deviations.
    assert!(country == "DE" && (visits - 400).abs() < 64, "{visits}");
    let said = entries(&deployment.path("journal/ledger"));
    let paid: Vec<_> = of_kind(&said, "privacy").iter().map(|entry| entry["outcome"].clone()).collect();
    assert_eq!(paid, ["noised"]);
}

#[test]
fn check_says_which_datasets_share_their_cells() {
    let deployment = deployment();
    let said = text(&run(deployment.root(), &["check"]).stdout);
    assert!(said.contains("the same cells as those of sizes: all their numbers are judged together"), "{said}");
    let told: Value = serde_json::from_str(&text(&run(deployment.root(), &["check", "--json"]).stdout)).unwrap();
    assert_eq!(told["datasets"][0]["shares_cells_with"], json!(["sizes"]));
    assert_eq!(told["datasets"][1]["shares_cells_with"], json!(["by_country"]));
    let sizes = &SIZES[1..];
    let longer = changed(sizes, "PT1M", "PT2M");
    deployment.edit(POLICY, sizes, &longer);
    let said = text(&run(deployment.root(), &["check"]).stderr);
    assert!(said.contains("parts the records of stream `visits` otherwise than `by_country`"), "{said}");
    assert!(said.contains("40 - 39 = 1 is told all the same"), "{said}");
    let roll_up = changed(sizes, "min_contributors = 5", "min_contributors = 5\nroll_up = [\"country\"]");
    deployment.edit(POLICY, &longer, &roll_up);
    let said = text(&run(deployment.root(), &["check"]).stderr);
    let otherwise =
        "dataset `sizes` parts the records of stream `visits` otherwise than `by_country`: not the same `roll_up`";
    assert!(said.contains(otherwise), "{said}");
    assert!(said.contains("`by_country` says 40 visits in a remainder"), "{said}");
    deployment.edit(
        POLICY,
        "min_contributors = 5\ngroup_by",
        "min_contributors = 5\nroll_up = [\"country\"]\ngroup_by",
    );
    assert_eq!(deployment.errors(), [""; 0]);
}
