//! Bounds on how many records of one contributor count: the records that count are the same whatever was killed, replayed
//! or sent again, and however many workers there are.
//!
//! The amounts are powers of two above multiples of a greater one. So a cell's sum says which records count in it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::deployment::{Deployment, POLICY, Producer, at};

/// The sum of so many amounts is a whole number that a float holds.
const RECORDS: usize = 40;
/// What every amount is above, as many times as says of whom it is: where most had nearly the same, a sum would be null.
const BASE: u64 = 1 << RECORDS;
const PERSONS: usize = 6;

fn deployment() -> Deployment {
    let deployment = Deployment::new();
    deployment.edit(POLICY, "range = [0, 1000], required = false", &format!("range = [0, {}]", 8 * BASE));
    deployment.edit(POLICY, "group_by  ", "release = \"drawn\"\ngroup_by  ");
    deployment.add(POLICY, "\n[release.drawn]\nrecords_per_contributor = 2\n");
    deployment.set_k(5);
    deployment
}

/// A record: persons in turn, most of them in one country.
fn record(position: usize) -> Value {
    let country = if position % 5 == 4 { "FR" } else { "DE" };
    let amount = (BASE * (1 + position % PERSONS) as u64) as f64 + 2_f64.powi(position as i32);
    json!({ "at": at(1, 30), "person": person(position), "country": country, "amount": amount })
}

fn person(position: usize) -> String {
    format!("p-{}", position % PERSONS)
}

fn part(part: usize) -> Vec<Value> {
    (0..RECORDS).filter(|position| position % 4 == part).map(record).collect()
}

/// The records that count in the released cells, by country.
fn that_count(deployment: &Deployment) -> BTreeMap<String, Vec<usize>> {
    let lines = deployment.released("desk");
    let of = |line: &Value| {
        let above = line["amount"].as_f64().unwrap() as u64 % BASE;
        let records: Vec<usize> = (0..RECORDS).filter(|record| above >> record & 1 == 1).collect();
        assert_eq!(line["visits"], records.len(), "{line}");
        (line["country"].as_str().unwrap().to_owned(), records)
    };
    lines.iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_records_count_whatever_is_killed_replayed_or_sent_again() {
    let first = deployment();
    // The first checkpoint has the secret: until then a replay may draw anew, and nothing has left.
    first.spawn().stop();
    let process = first.spawn();
    let (mut p, mut q) =
        (Producer::connect(process.endpoint(), "p").await, Producer::connect(process.endpoint(), "q").await);
    p.send(&part(0)).await;
    q.send(&part(1)).await;
    process.kill();
    let (one, two) = (first.as_left(), first.as_left());

    // One goes on, and the other one takes the rest in another order, on two workers, and is killed again and again.
    let process = one.spawn();
    let (mut p, mut q) =
        (Producer::connect(process.endpoint(), "p").await, Producer::connect(process.endpoint(), "q").await);
    (p.sequence, q.sequence) = (1, 1);
    p.send(&part(2)).await;
    q.send(&part(3)).await;
    p.close_before(9).await;
    q.close_before(9).await;
    process.stop();

    two.edit("gateway.toml", "workers = 1", "workers = 2");
    let process = two.spawn();
    let mut q = Producer::connect(process.endpoint(), "q").await;
    q.sequence = 1;
    q.send(&part(3)).await;
    process.kill();
    let process = two.spawn();
    let (mut p, mut q) =
        (Producer::connect(process.endpoint(), "p").await, Producer::connect(process.endpoint(), "q").await);
    (p.sequence, q.sequence) = (1, 1);
    assert!(q.publish_as(2, &part(3)).await.duplicate);
    p.send(&part(2)).await;
    process.kill();
    let process = two.spawn();
    let (mut p, mut q) =
        (Producer::connect(process.endpoint(), "p").await, Producer::connect(process.endpoint(), "q").await);
    assert!(p.publish_as(2, &part(2)).await.duplicate);
    p.close_before(9).await;
    q.close_before(9).await;
    process.stop();

    let drawn = that_count(&one);
    assert_eq!(drawn, that_count(&two));
    assert_eq!(drawn.keys().map(String::as_str).collect::<Vec<_>>(), ["DE", "FR"]);
    for (country, records) in &drawn {
        let mut of: BTreeMap<String, usize> = BTreeMap::new();
        records.iter().for_each(|record| *of.entry(person(*record)).or_default() += 1);
        let mut sent: BTreeMap<String, usize> = BTreeMap::new();
        let own = (0..RECORDS).filter(|position| record(*position)["country"] == **country);
        own.for_each(|position| *sent.entry(person(position)).or_default() += 1);
        let expected: BTreeMap<String, usize> = sent.into_iter().map(|(person, sent)| (person, sent.min(2))).collect();
        assert_eq!(of, expected, "{country}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_are_part_of_how_a_dataset_counts() {
    let deployment = deployment();
    let gateway = deployment.start().await;
    gateway.producer("p").await.send(&part(0)).await;
    deployment.edit(POLICY, "records_per_contributor = 2", "records_per_contributor = 3");
    let refused = gateway.reload().await.unwrap_err();
    assert!(refused.contains("declared otherwise than at the start: dataset `by_country` (bounds"), "{refused}");
    gateway.stop().await;
    let refused = deployment.start_error().await;
    assert!(refused.contains("bounds of a contributor's records was 2 in a cell, is 3 in a cell"), "{refused}");
}

/// The strictest of each number that anyone asks for, whether the gateway serves the regime or not.
#[tokio::test(flavor = "multi_thread")]
async fn a_regime_can_make_bounds_stricter() {
    let deployment = deployment();
    let profile = "\n[release.of_law]\nrecords_per_contributor = 7\ncells_per_contributor = 1\n";
    deployment.add(POLICY, profile);
    deployment.edit("policies/bb.toml", "min_contributors", "release = \"of_law\"\nmin_contributors");
    let config = deployment.config();
    let (_, dataset) = config.policy.dataset("by_country").unwrap();
    let bounds = dataset.bounds.unwrap();
    assert_eq!((bounds.records_per_cell, bounds.cells_per_window), (2, Some(1)));
    let limits = config
        .policy
        .limits(&"by_country".parse().unwrap(), &config.here.serves, jiff::civil::date(2026, 11, 26))
        .unwrap();
    assert_eq!(limits.records.unwrap().by, "dataset by_country, by release profile drawn");
    assert_eq!(limits.cells.unwrap().by, "regime bb, by release profile of_law");
}
