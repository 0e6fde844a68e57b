//! `bailiwick replay` beside gateways that had the same records: what it says would leave is what left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;

use serde_json::{Value, json};

use super::deployment::{Deployment, POLICY, Producer, at, visits};
use crate::common::process::{run, text};

/// Where the journals of all lives of a gateway are kept.
const ALL: &str = "all";
const WAITS: &str = "max_defer = 2\n";

/// Cells of a country and a city, which wait. Cities are given up where that is said.
fn deployment(is_rolled_up: bool) -> Deployment {
    let deployment = Deployment::new();
    let country = r#"country = { type = "string", class = "personal" }"#;
    deployment.edit(POLICY, country, &format!("{country}\ncity = {{ type = \"string\", class = \"personal\" }}"));
    let domain = r#"domain = ["DE", "FR", "IN"] }"#;
    deployment.edit(POLICY, domain, &format!("{domain}, {{ field = \"city\", domain = [\"a\", \"b\", \"c\"] }}"));
    let least = "min_contributors = 5\n";
    let roll_up = if is_rolled_up { "roll_up = [\"city\"]\n" } else { "" };
    deployment.edit(POLICY, least, &format!("{least}{WAITS}{roll_up}"));
    deployment.set_k(5);
    deployment
}

/// The same without waiting.
fn without_waiting(deployment: &Deployment) -> Deployment {
    let other = deployment.copy();
    other.edit(POLICY, WAITS, "");
    other
}

/// Numbers that are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// What comes in a minute: few of each city, or nobody. Some belong to a minute before, if that is asked for.
fn sent_in(minute: u32, are_some_late: bool, numbers: &mut Numbers) -> Vec<Value> {
    let mut sent = Vec::new();
    for (country, city) in ["DE", "FR"].into_iter().flat_map(|country| ["a", "b", "c", "x"].map(|city| (country, city)))
    {
        for _ in 0..numbers.below(5) {
            let person = format!("{country}-{}", numbers.below(9));
            let late = if are_some_late && numbers.below(4) == 0 { 2 } else { 0 };
            let at = at(minute.saturating_sub(late), 30);
            sent.push(json!({ "at": at, "person": person, "country": country, "city": city, "amount": 1.0 }));
        }
    }
    sent
}

/// What left of a gateway: rows by minute, how many cells began to wait, how many did in vain, and how many were withheld.
#[derive(Debug, Default)]
struct Left {
    rows: BTreeMap<String, u64>,
    waited: u64,
    in_vain: u64,
    withheld: u64,
}

/// A gateway that takes all of this, minute by minute, in several lives.
async fn lived(deployment: &Deployment, lives: &[Range<u32>], sent: &BTreeMap<u32, Vec<Value>>) -> Left {
    let mut left = Left::default();
    let mut sequence = 0;
    for minutes in lives {
        let gateway = deployment.start().await;
        let mut producer: Producer = gateway.producer("p").await;
        producer.sequence = sequence;
        for minute in minutes.clone() {
            producer.send(&sent[&minute]).await;
            // Windows of several minutes close together.
            if minute % 3 != 0 || minute + 1 == minutes.end {
                producer.close_before(minute).await;
            }
        }
        sequence = producer.sequence;
        let telemetry = gateway.app.telemetry().clone();
        gateway.stop().await;
        // The next life lets go of what is in a checkpoint.
        for segment in fs::read_dir(deployment.path("journal/log")).unwrap().map(|segment| segment.unwrap()) {
            deployment
                .write(&format!("{ALL}/log/{}", segment.file_name().display()), fs::read(segment.path()).unwrap());
        }
        left.waited += telemetry.total_of_datasets(|counts| &counts.cells_deferred);
        left.in_vain += telemetry.total_of_datasets(|counts| &counts.cells_deferred_dropped);
        left.withheld += telemetry.total_of_datasets(|counts| &counts.cells_withheld);
    }
    for line in deployment.released("desk") {
        *left.rows.entry(line["window_start"].as_str().unwrap()[..16].to_owned()).or_default() += 1;
    }
    left
}

/// The report of a replay, with single spaces.
fn replayed(deployment: &Deployment, against: &Deployment, records: &[&str]) -> String {
    let against = against.path("policies").display().to_string();
    let replayed =
        run(deployment.root(), &[&["replay", "-c", "gateway.toml", "--against", &against][..], records].concat());
    assert!(replayed.status.success(), "{}", text(&replayed.stderr));
    text(&replayed.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The numbers before and after behind some words. None there are 0.
fn numbers(report: &str, words: &str) -> [u64; 2] {
    let Some((_, rest)) = report.split_once(&format!("by_country {words} ")) else { return [0, 0] };
    let mut numbers = rest.split(' ').map(|number| number.replace(',', "").parse().unwrap());
    [numbers.next().unwrap(), numbers.next().unwrap()]
}

/// A report says what left of two gateways, all in all and of each window in which they differ.
fn says_what_left(report: &str, was: &Left, is: &Left) {
    let both = |of: fn(&Left) -> u64| [of(was), of(is)];
    let sum =
        |words: &[&str]| words.iter().map(|words| numbers(report, words)).fold([0, 0], |[a, b], [c, d]| [a + c, b + d]);
    let (later, in_vain, at_end) =
        ("waited, left with later ones", "withheld: waited in vain", "wait when the records end");
    assert_eq!(sum(&["released"]), both(|left| left.rows.values().sum()), "{report}");
    assert_eq!(sum(&[later, in_vain, at_end]), both(|left| left.waited), "{report}");
    assert_eq!(sum(&[in_vain]), both(|left| left.in_vain), "{report}");
    assert_eq!(sum(&["withheld: too few contributors", in_vain]), both(|left| left.withheld), "{report}");
    assert!(numbers(report, later)[0] > 0 && numbers(report, in_vain)[0] > 0, "{report}");
    let minutes: BTreeSet<&String> = was.rows.keys().chain(is.rows.keys()).collect();
    let mut differ = 0;
    for minute in minutes {
        let rows = |left: &Left| left.rows.get(minute).copied().unwrap_or(0);
        let window = format!("{minute}:00Z");
        if report.contains(&window) {
            assert_eq!(numbers(report, &window), [rows(was), rows(is)], "{minute}: {report}");
            differ += 1;
        } else {
            assert_eq!(rows(was), rows(is), "{minute}: {report}");
        }
    }
    assert!(differ > 3, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cells_that_wait_leave_as_they_left_of_a_gateway() {
    for is_rolled_up in [false, true] {
        let mut random = Numbers(7);
        let sent: BTreeMap<u32, Vec<Value>> =
            (1..16).map(|minute| (minute, sent_in(minute, false, &mut random))).chain([(16, Vec::new())]).collect();
        let waits = deployment(is_rolled_up);
        waits.edit("gateway.toml", "id       = \"g-1\"", "id = \"g-1\"\non_stop = \"keep\"");
        let alone = without_waiting(&waits);
        let (was, is) = (lived(&waits, &[1..9, 9..17], &sent).await, lived(&alone, &[1..9, 9..17], &sent).await);
        let lines: Vec<String> = sent.values().flatten().map(Value::to_string).collect();
        waits.write("visits.jsonl", lines.join("\n"));
        for records in [&["--journal", ALL][..], &["-s", "visits", "visits.jsonl"]] {
            let report = replayed(&waits, &alone, records);
            says_what_left(&report, &was, &is);
            // What is rolled up waits seldom: none does at this end.
            assert_eq!(numbers(&report, "wait when the records end")[0] > 0, !is_rolled_up, "{report}");
            // Beside itself.
            assert!(replayed(&waits, &waits, records).contains("not the same would leave: 0"));
        }
    }
}

/// Each stop releases the open windows as they are, and ends the waiting.
#[tokio::test(flavor = "multi_thread")]
async fn stops_that_release_end_the_waiting_in_a_replay_too() {
    for is_rolled_up in [false, true] {
        let mut random = Numbers(11);
        let sent: BTreeMap<u32, Vec<Value>> =
            (1..16).map(|minute| (minute, sent_in(minute, true, &mut random))).collect();
        let waits = deployment(is_rolled_up);
        waits.edit("gateway.toml", "id       = \"g-1\"", "id = \"g-1\"\non_stop = \"release\"");
        let alone = without_waiting(&waits);
        let lives = [1..5, 5..10, 10..16];
        let (was, is) = (lived(&waits, &lives, &sent).await, lived(&alone, &lives, &sent).await);
        let report = replayed(&waits, &alone, &["--journal", ALL]);
        says_what_left(&report, &was, &is);
        assert_eq!(numbers(&report, "wait when the records end"), [0, 0], "{report}");
    }
}

#[test]
fn a_policy_that_lets_cells_wait_is_seen_to_release_more() {
    let (alone, waits) = (Deployment::new(), Deployment::new());
    alone.set_k(10);
    waits.set_k(10);
    waits.edit(POLICY, "min_contributors = 5\n", "min_contributors = 5\nmax_defer = 3\n");
    let sent = (1..=4).flat_map(|minute| {
        let new = visits(minute, 5 * minute as usize, "DE");
        new.into_iter().skip(5 * (minute as usize - 1))
    });
    alone.write("visits.jsonl", sent.map(|visit| visit.to_string()).collect::<Vec<_>>().join("\n"));
    let report = replayed(&alone, &waits, &["-s", "visits", "visits.jsonl"]);
    for (words, expected) in [
        ("released", [0, 2]),
        ("withheld: too few contributors", [4, 0]),
        ("waited, left with later ones", [0, 2]),
        ("2026-01-05T12:02:00Z", [0, 1]),
    ] {
        assert_eq!(numbers(&report, words), expected, "{words}: {report}");
    }
    assert!(report.contains("windows of which not the same would leave: 4"), "{report}");
}
