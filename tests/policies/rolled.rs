//! Cells that are rolled up into remainders, over kills, a stop and a reload.

use std::ops::Range;

use bailiwick::app::App;
use serde_json::{Value, json};

use crate::common::process::{run, text};

use super::deployment::{Deployment, POLICY, Producer, at};

/// A gateway whose cells have a city too, which is given up first.
fn deployment(roll_up: &str, max_defer: u64) -> Deployment {
    let deployment = Deployment::new();
    let country = r#"country = { type = "string", class = "personal" }"#;
    deployment.edit(POLICY, country, &format!("{country}\ncity = {{ type = \"string\", class = \"personal\" }}"));
    let domain = r#"domain = ["DE", "FR", "IN"] }"#;
    deployment.edit(POLICY, domain, &format!("{domain}, {{ field = \"city\", domain = [\"a\", \"b\", \"c\"] }}"));
    let least = "min_contributors = 5\n";
    deployment.edit(POLICY, least, &format!("{least}max_defer = {max_defer}\nroll_up = [{roll_up}]\n"));
    deployment.set_k(5);
    deployment
}

/// Records of some persons in a city in a minute.
fn of(minute: u32, country: &str, city: &str, persons: Range<usize>) -> Vec<Value> {
    let record = |person| {
        let person = format!("{country}-{person}");
        json!({ "at": at(minute, 30), "person": person, "country": country, "city": city, "amount": 1.0 })
    };
    persons.map(record).collect()
}

/// What a destination has: minute, how many windows, country, city, how many records.
fn rows(deployment: &Deployment, destination: &str) -> Vec<(u32, Option<u64>, String, String, u64)> {
    let rows = deployment.released(destination).into_iter().map(|line| {
        let minute = line["window_start"].as_str().unwrap()[14..16].parse().unwrap();
        let [country, city] = ["country", "city"].map(|key| line[key].as_str().unwrap().to_owned());
        (minute, line["windows"].as_u64(), country, city, line["visits"].as_u64().unwrap())
    });
    let mut rows: Vec<_> = rows.collect();
    rows.sort();
    rows
}

fn row(minute: u32, windows: Option<u64>, keys: [&str; 2], visits: u64) -> (u32, Option<u64>, String, String, u64) {
    (minute, windows, keys[0].to_owned(), keys[1].to_owned(), visits)
}

/// In minute 1 a city of Germany leaves by itself and three leave together; two of France are too few for anything.
fn first_minute() -> Vec<Value> {
    let of_germany =
        [of(1, "DE", "a", 0..6), of(1, "DE", "b", 6..8), of(1, "DE", "c", 7..10), of(1, "DE", "x", 10..11)];
    [of_germany.concat(), of(1, "FR", "a", 0..2), of(1, "FR", "b", 1..3)].concat()
}

/// In minute 2 no country has enough.
fn second_minute() -> Vec<Value> {
    [of(2, "DE", "b", 0..3), of(2, "FR", "b", 0..3)].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn cells_that_fail_leave_together_and_once_whatever_is_killed() {
    let deployment = deployment(r#""city", "country""#, 0);
    for (sequence, sent) in [first_minute(), second_minute()].into_iter().enumerate() {
        let process = deployment.spawn();
        let mut producer = Producer::connect(process.endpoint(), "p").await;
        producer.sequence = sequence as u64;
        producer.send(&sent).await;
        producer.close_before(sequence as u32 + 2).await;
        process.kill();
    }
    let expected = [
        row(1, None, ["DE", "a"], 6),
        // Somebody was in two of the cities, with a record in each.
        row(1, None, ["DE", "rest"], 6),
        row(2, None, ["rest", "rest"], 6),
    ];
    for _ in 0..2 {
        let gateway = deployment.start().await;
        let has_all = || ["desk", "hub"].iter().all(|destination| rows(&deployment, destination).len() >= 3);
        gateway.until("both have all", |_| has_all()).await;
        gateway.stop().await;
        for destination in ["desk", "hub"] {
            assert_eq!(rows(&deployment, destination), expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_left_in_a_remainder_does_not_wait_after_a_kill() {
    let deployment = deployment(r#""city""#, 2);
    let minutes = [
        of(1, "DE", "b", 0..2),
        // Two waited, one more and two others: five leave as the rest of Germany.
        [of(2, "DE", "b", 2..3), of(2, "DE", "c", 3..5)].concat(),
        // Four of one city are too few: nobody of before is with them.
        of(3, "DE", "b", 5..9),
        of(4, "DE", "b", 9..10),
    ];
    for (sequence, sent) in minutes.into_iter().enumerate() {
        let process = deployment.spawn();
        let mut producer = Producer::connect(process.endpoint(), "p").await;
        producer.sequence = sequence as u64;
        producer.send(&sent).await;
        producer.close_before(sequence as u32 + 2).await;
        process.kill();
    }
    let gateway = deployment.start().await;
    gateway.until("both rows are there", |_| rows(&deployment, "desk").len() >= 2).await;
    gateway.stop().await;
    // What a cell covers tells nothing of the remainder that it was in.
    assert_eq!(rows(&deployment, "desk"), [row(2, Some(3), ["DE", "rest"], 5), row(4, Some(3), ["DE", "b"], 5)]);
}

/// How many cells and remainders left, how many remainders, and how many cells were withheld.
fn counts(app: &App) -> [u64; 3] {
    let counts = app.telemetry();
    [
        counts.total_of_datasets(|counts| &counts.cells_released),
        counts.total_of_datasets(|counts| &counts.remainders_released),
        counts.total_of_datasets(|counts| &counts.cells_withheld),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rolled_up_is_counted_and_other_keys_need_a_restart() {
    let deployment = deployment(r#""city", "country""#, 0);
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.send(&first_minute()).await;
    producer.close_before(2).await;
    gateway.until("the first minute is counted", |app| counts(app) == [2, 1, 2]).await;
    deployment.edit(POLICY, r#"roll_up = ["city", "country"]"#, r#"roll_up = ["city"]"#);
    let refused = gateway.reload().await.unwrap_err();
    assert!(refused.contains("roll_up was city, country, is city"), "{refused}");
    deployment.edit(POLICY, r#"roll_up = ["city"]"#, r#"roll_up = ["city", "country"]"#);
    producer.send(&second_minute()).await;
    producer.close_before(3).await;
    gateway.until("the second minute is counted", |app| counts(app) == [3, 2, 2]).await;
    gateway.stop().await;
}

#[test]
fn check_says_what_is_rolled_up_and_what_cannot_be() {
    let deployment = deployment(r#""city", "country""#, 0);
    let said = text(&run(deployment.root(), &["check"]).stdout);
    assert!(said.contains("cells with fewer leave together, with `rest` for city, then for country"), "{said}");
    let told: Value = serde_json::from_str(&text(&run(deployment.root(), &["check", "--json"]).stdout)).unwrap();
    assert_eq!(told["datasets"][0]["roll_up"], json!(["city", "country"]));
    let roll_up = r#"roll_up = ["city", "country"]"#;
    let refused = |from: &str, to: &str, why: &str| {
        deployment.edit(POLICY, from, to);
        let said = text(&run(deployment.root(), &["check"]).stderr);
        assert!(said.contains(why), "{said}");
        deployment.edit(POLICY, to, from);
    };
    refused(roll_up, r#"roll_up = ["city", "town"]"#, "`town` is not in `group_by`");
    refused(roll_up, r#"roll_up = ["city", "city"]"#, "`city` is in `roll_up` twice");
    refused(r#"["a", "b", "c"]"#, r#"["a"]"#, "`city` has 2 values, with `other`");
    refused(r#"["a", "b", "c"]"#, r#"["a", "b", "rest"]"#, "`rest` stands for a key that was given up");
    let noise =
        "\n[datasets.by_country.privacy]\nmechanism = \"discrete_laplace\"\nrho_per_window = 0.01\nrho_per_day = 0.1\n";
    deployment.write(POLICY, format!("{}{noise}", deployment.read(POLICY)));
    let said = text(&run(deployment.root(), &["check"]).stderr);
    assert!(said.contains("a cell with noise leaves or not by itself"), "{said}");
}
