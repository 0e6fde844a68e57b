//! Budgets of bytes of file destinations: what they do not suffice for waits, or is shed; a file that is written again is
//! not paid for again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use bailiwick::clock::Clock;
use bailiwick::config::{Config, Destination, Http};
use bailiwick::domain::policy::{By, Changes, Reduction, RollUp, Step, Top};
use bailiwick::egress::budget::Settings;
use serde_json::{Value, json};

use super::deployment::{Deployment, Gateway, POLICY, Producer, REGIME, visits};
use super::longer;
use crate::common::http::get;
use crate::common::ledger::{entries, of_kind};
use crate::common::process::{run, text};
use crate::common::{PATIENCE, changed, gateway, until};

const DAY: Duration = Duration::from_secs(86_400);
const SECOND: Duration = Duration::from_secs(1);

/// With a budget of the hub that hardly fills.
async fn start(deployment: &Deployment, bytes: u64, sheds_after: Option<Duration>) -> Gateway {
    start_with(deployment, (bytes, sheds_after), PATIENCE).await
}

async fn start_with(
    deployment: &Deployment,
    (bytes, sheds_after): (u64, Option<Duration>),
    stop_within: Duration,
) -> Gateway {
    let change = |config: &mut Config| {
        config.stop_within = stop_within;
        config.http = Some(Http { listen: "127.0.0.1:0".parse().unwrap(), is_plaintext: true });
        let (widened, smaller, first) = (BTreeMap::new(), Vec::new(), Vec::new());
        let budget = Settings { bytes, per: DAY, widened, smaller, sheds_after, first };
        config.budgets.insert("hub".parse().unwrap(), budget);
    };
    deployment.start_with(change).await
}

/// What `/status` says of the hub, once that is so.
fn told(gateway: &Gateway, wanted: impl Fn(&Value) -> bool) -> Value {
    let address = gateway.app.monitor_address().unwrap().to_string();
    until(|| {
        let status: Value = serde_json::from_str(&get(&address, "/status").1).unwrap();
        let destinations = status["about"]["destinations"].as_array().unwrap().clone();
        let hub = destinations.into_iter().find(|one| one["destination"] == "hub").unwrap();
        assert!(hub["budget"].is_object(), "{hub}");
        Some(hub).filter(|hub| wanted(hub))
    })
}

/// Windows of six persons each, from one minute to another, each of which is a file of its own.
async fn send(gateway: &Gateway, deployment: &Deployment, minutes: std::ops::Range<u32>) {
    let mut producer = gateway.producer("p").await;
    for minute in minutes {
        producer.sequence = u64::from(minute) - 1;
        producer.send(&visits(minute, 6, "DE")).await;
        producer.close_before(minute + 1).await;
        gateway.until("the desk has it", |_| deployment.released("desk").len() == minute as usize).await;
    }
}

/// The bytes of all files of the hub.
fn bytes(deployment: &Deployment) -> u64 {
    let files = fs::read_dir(deployment.path("released/hub/by_country")).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

fn files(deployment: &Deployment) -> usize {
    fs::read_dir(deployment.path("released/hub/by_country")).unwrap().count()
}

fn budget(hub: &Value, key: &str) -> u64 {
    hub["budget"][key].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_the_bytes_do_not_suffice_for_wait_and_leave_once_after_a_restart() {
    let deployment = Deployment::new();
    deployment.set_k(5);
    let gateway = start(&deployment, 1_000, None).await;
    send(&gateway, &deployment, 1..7).await;
    let hub = told(&gateway, |hub| hub["budget"]["deferred_releases"].as_u64() > Some(0));
    let waiting = gateway.app.stop().await.left;
    let left: Vec<(&str, u64)> = waiting.iter().map(|one| (one.destination.as_str(), one.releases)).collect();
    assert_eq!(left, [("hub", 6 - deployment.released("hub").len() as u64)], "{hub}");
    assert!((1..6).contains(&deployment.released("hub").len()) && bytes(&deployment) <= 1_001, "{hub}");
    let gateway = start(&deployment, 100_000, None).await;
    // What was left goes on: a bucket that is larger now is not full.
    let hub = told(&gateway, |_| true);
    assert!(budget(&hub, "left_bytes") < 1_000, "{hub}");
    gateway.stop().await;
    deployment.remove("journal/budgets");
    let gateway = start(&deployment, 100_000, None).await;
    gateway.until("all are there", |_| deployment.released("hub").len() == 6).await;
    gateway.stop().await;
    let releases: BTreeSet<String> = deployment.released("hub").iter().map(ToString::to_string).collect();
    assert_eq!(releases.len(), 6, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_together_leaves_in_files_that_the_budget_can_have() {
    let deployment = Deployment::new();
    deployment.set_k(5);
    let start = async |bytes| {
        let change = |config: &mut Config| {
            let (widened, smaller, first) = (BTreeMap::new(), Vec::new(), Vec::new());
            let budget = Settings { bytes, per: DAY, widened, smaller, sheds_after: None, first };
            config.budgets.insert("hub".parse().unwrap(), budget);
            let Some(Destination::File(hub)) = config.destinations.get_mut("hub") else {
                panic!("the hub is a folder")
            };
            // All that is there at a stop would be one file.
            hub.rotate_after = DAY;
        };
        deployment.start_with(change).await
    };
    let gateway = start(1_000).await;
    send(&gateway, &deployment, 1..11).await;
    gateway.stop().await;
    let (some, files) = (deployment.released("hub").len(), files(&deployment));
    assert!((2..10).contains(&some) && files == 1 && bytes(&deployment) <= 1_000, "{some} in {files} files");
    // What is left is not lost, and does not come twice, whatever the budget is then.
    deployment.remove("journal/budgets");
    let gateway = start(1_500).await;
    gateway.stop().await;
    assert!((some + 2..10).contains(&deployment.released("hub").len()) && bytes(&deployment) <= 2_500);
    deployment.remove("journal/budgets");
    start(100_000).await.stop().await;
    let releases: BTreeSet<String> = deployment.released("hub").iter().map(ToString::to_string).collect();
    assert_eq!((deployment.released("hub").len(), releases.len()), (10, 10), "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_more_important_comes_between_two_files_of_what_waits_together() {
    let deployment = Deployment::new();
    deployment.set_k(5);
    deployment.add_calls();
    let hub = "[destinations.hub]\ncountry = \"US\"\naccepts = [";
    deployment.edit(POLICY, hub, &format!("{hub}\"calls_by_country\", "));
    let start = async |per| {
        let change = |config: &mut Config| {
            config.http = Some(Http { listen: "127.0.0.1:0".parse().unwrap(), is_plaintext: true });
            let (widened, smaller, first) = (BTreeMap::new(), Vec::new(), vec!["calls_by_country".parse().unwrap()]);
            let budget = Settings { bytes: 1_000, per, widened, smaller, sheds_after: None, first };
            config.budgets.insert("hub".parse().unwrap(), budget);
        };
        deployment.start_with(change).await
    };
    let gateway = start(DAY).await;
    send(&gateway, &deployment, 1..21).await;
    gateway.stop().await;
    assert!(deployment.released("hub").len() < 10, "the rest is larger than the bucket");
    // There are enough bytes now. The first of several files cannot be written: its folder is a file.
    let (folder, aside) = (deployment.path("released/hub/by_country"), deployment.path("aside"));
    fs::rename(&folder, &aside).unwrap();
    fs::write(&folder, "in the way").unwrap();
    let gateway = start(SECOND).await;
    told(&gateway, |hub| !hub["error"].is_null());
    let mut calls = Producer::of_stream("calls", &gateway::endpoint(&gateway.app), "q").await;
    calls.send(&visits(1, 6, "DE")).await;
    calls.close_before(2).await;
    gateway.until("the desk has it", |_| deployment.released("desk").len() == 21).await;
    fs::remove_file(&folder).unwrap();
    fs::rename(&aside, &folder).unwrap();
    gateway.until("all is there", |_| deployment.released("hub").len() == 21).await;
    gateway.stop().await;
    let said = entries(&deployment.path("journal/ledger"));
    let mut datasets: Vec<&Value> = of_kind(&said, "intent")
        .into_iter()
        .filter(|entry| entry["destination"] == "hub")
        .map(|entry| &entry["dataset"])
        .collect();
    datasets.dedup();
    assert_eq!(datasets, ["by_country", "calls_by_country", "by_country"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_paid_for_before_it_is_there_and_once() {
    let deployment = Deployment::new();
    deployment.set_k(5);
    // It cannot be written: its folder is a file.
    deployment.write("released/hub/by_country", "in the way");
    // A stop does not wait for a file that cannot be written.
    let start = || start_with(&deployment, (10_000, None), Duration::from_secs(1));
    let clock = Clock::start();
    let gateway = start().await;
    send(&gateway, &deployment, 1..2).await;
    let hub = told(&gateway, |hub| !hub["error"].is_null());
    let paid = 10_000 - budget(&hub, "left_bytes");
    // What came into the bucket meanwhile.
    let slack = || 10 + clock.now().as_secs() * 10_000 / 86_400;
    assert!(paid > 200, "{hub}");
    gateway.stop().await;
    for _ in 0..2 {
        let gateway = start().await;
        let hub = told(&gateway, |hub| !hub["error"].is_null());
        let again = 10_000 - budget(&hub, "left_bytes");
        assert!(again <= paid && again + slack() > paid, "paid {paid}, then {again}");
        gateway.stop().await;
    }
    fs::remove_file(deployment.path("released/hub/by_country")).unwrap();
    let gateway = start().await;
    gateway.until("it is written", |_| deployment.released("hub").len() == 1).await;
    let written = bytes(&deployment);
    let is_paid = |left: u64| left + written <= 10_000 + slack() && left + written + slack() > 10_000;
    told(&gateway, |hub| hub["error"].is_null() && is_paid(budget(hub, "left_bytes")));
    gateway.stop().await;
    // What is on disk says the same, and if it is damaged.
    let verify = || run(deployment.root(), &["journal", "verify", "journal", "--json"]);
    let found = verify();
    let said: Value = serde_json::from_slice(&found.stdout).unwrap();
    let of_hub = &said["budgets"]["destinations"][0];
    assert!(found.status.success() && of_hub["destination"] == "hub", "{said}");
    assert!(is_paid(of_hub["left_bytes"].as_u64().unwrap()), "{said}");
    let mut half = fs::read(deployment.path("journal/budgets/hub")).unwrap();
    half.resize(68 << 10, 0);
    half.extend(b"what is left of the other slot");
    for damaged in [half, b"nothing that is known".to_vec()] {
        fs::write(deployment.path("journal/budgets/hub"), damaged).unwrap();
        let found = verify();
        let said = text(&found.stdout);
        assert!(
            found.status.code() == Some(1)
                && said.contains("the budget of destination hub is damaged: it begins empty"),
            "{said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_shed_never_leave_and_the_ledger_says_so() {
    let deployment = Deployment::new();
    deployment.set_k(5);
    let gateway = start(&deployment, 1_000, Some(Duration::ZERO)).await;
    send(&gateway, &deployment, 1..7).await;
    let all_went = |hub: &Value| deployment.released("hub").len() as u64 + budget(hub, "shed_releases") == 6;
    let hub = told(&gateway, |hub| hub["waiting_releases"] == 0 && all_went(hub));
    let shed = budget(&hub, "shed_releases");
    let status: Value =
        serde_json::from_str(&get(&gateway.app.monitor_address().unwrap().to_string(), "/status").1).unwrap();
    let check = status["checks"].as_array().unwrap().iter().find(|check| check["check"] == "budgets").unwrap();
    assert!(check["state"] == "warning" && check["says"].as_str().unwrap().contains("were shed: "), "{check}");
    assert_eq!(gateway.app.stop().await.left, []);
    let released = deployment.released("hub").len() as u64;
    assert!(released > 0 && shed > 0 && released + shed == 6, "{hub}");
    assert!(bytes(&deployment) <= 1_001);
    let said = entries(&deployment.path("journal/ledger"));
    assert_eq!(of_kind(&said, "shed").len() as u64, shed);
    // With enough bytes, what was shed does not leave either.
    deployment.remove("journal/budgets");
    let gateway = start(&deployment, 100_000, Some(Duration::ZERO)).await;
    send(&gateway, &deployment, 7..8).await;
    told(&gateway, |hub| hub["waiting_releases"] == 0);
    gateway.until("the last one is there", |_| deployment.released("hub").len() as u64 == released + 1).await;
    gateway.stop().await;
}

/// The largest row leaves, or all rows are added up.
fn smaller(keys: &[&str], rows: u32) -> Vec<Reduction> {
    let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
    let roll_up = Step::RollUp(RollUp { keys: keys.clone(), datasets: Default::default() });
    let top = Step::Top(Top { rows, by: By::Metric("visits".to_owned()) });
    vec![Reduction(vec![if keys.is_empty() { top } else { roll_up }])]
}

/// With a budget of the hub, or without one.
async fn start_smaller(deployment: &Deployment, budget: Option<(u64, Duration, Vec<Reduction>)>) -> Gateway {
    let change = |config: &mut Config| {
        // A stop does not wait for a file that cannot be written.
        config.stop_within = Duration::from_secs(1);
        config.http = Some(Http { listen: "127.0.0.1:0".parse().unwrap(), is_plaintext: true });
        let settings = |(bytes, per, smaller)| {
            let (widened, first) = (BTreeMap::new(), Vec::new());
            Settings { bytes, per, widened, smaller, sheds_after: None, first }
        };
        config.budgets.extend(budget.map(settings).map(|settings| ("hub".parse().unwrap(), settings)));
    };
    deployment.start_with(change).await
}

/// Windows of seven persons in one country and six in another one, from one minute to another.
async fn send_two(gateway: &Gateway, deployment: &Deployment, minutes: std::ops::Range<u32>) {
    let mut producer = gateway.producer("p").await;
    for minute in minutes {
        producer.sequence = u64::from(minute) - 1;
        producer.send(&[visits(minute, 7, "FR"), visits(minute, 6, "DE")].concat()).await;
        producer.close_before(minute + 1).await;
        gateway.until("the desk has it", |_| deployment.released("desk").len() == 2 * minute as usize).await;
    }
}

/// What the hub was given: minute, country, visits, and how it was made smaller.
fn given(deployment: &Deployment) -> Vec<(String, String, i64, Value)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let lines = deployment.released("hub").into_iter().map(|line| {
        let minute = text(&line["window_start"])[14..16].to_owned();
        (minute, text(&line["country"]), line["visits"].as_i64().unwrap(), line["degraded"].clone())
    });
    let mut given: Vec<_> = lines.collect();
    given.sort_by_key(|(minute, country, ..)| (minute.clone(), country.clone()));
    given
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_the_bytes_do_not_suffice_for_leave_smaller_and_the_ledger_says_so() {
    for (keys, country, visits, step, out) in
        [(&[][..], "FR", 7, "top", 1), (&["country"][..], "all", 13, "roll_up", 1)]
    {
        let deployment = Deployment::new();
        deployment.set_k(5);
        let gateway = start_smaller(&deployment, Some((800, DAY, smaller(keys, 1)))).await;
        send_two(&gateway, &deployment, 1..4).await;
        // The first leaves whole, then the bytes suffice for a smaller one, then for none.
        let hub = told(&gateway, |hub| hub["waiting_releases"] == 1 && budget(hub, "deferred_releases") == 1);
        assert_eq!((budget(&hub, "degraded_releases"), budget(&hub, "cells_left_out")), (1, out), "{hub}");
        let (_, metrics) = get(&gateway.app.monitor_address().unwrap().to_string(), "/metrics");
        for name in ["releases_degraded", "cells_left_out"] {
            assert!(metrics.contains(&format!("bailiwick_{name}_total{{destination=\"hub\"}} 1")), "{metrics}");
        }
        gateway.stop().await;
        let of =
            |minute: &str, country: &str, visits, degraded| (minute.to_owned(), country.to_owned(), visits, degraded);
        let expected =
            [of("01", "DE", 6, Value::Null), of("01", "FR", 7, Value::Null), of("02", country, visits, step.into())];
        assert_eq!(given(&deployment), expected);
        assert!(bytes(&deployment) <= 801);
        let ledger = deployment.path("journal/ledger");
        let said = entries(&ledger);
        let intents = of_kind(&said, "intent");
        let is_of_desk = |entry: &&Value| entry["destination"] == "desk";
        let (desk, hub): (Vec<&Value>, Vec<&Value>) = intents.into_iter().partition(is_of_desk);
        let [whole, small] = hub.as_slice() else { panic!("{hub:?}") };
        assert!(whole["degraded"].is_null() && desk.iter().all(|entry| entry["degraded"].is_null()));
        let of_whole = desk.iter().find(|entry| entry["window_start"] == small["window_start"]).unwrap();
        let expected = serde_json::json!({ "steps": [step], "whole": of_whole["release"], "cells": 2 });
        assert_eq!((&small["degraded"], &small["cells"]), (&expected, &1.into()));
        let file = deployment.released("hub").into_iter().find(|line| line["degraded"] == step).unwrap();
        assert_eq!(file["release"], small["release"], "it has an id of its own");
        assert_ne!(file["release"], of_whole["release"]);
        let report = run(&deployment.path("."), &["report", "--json", "-d", &ledger.display().to_string()]);
        let report: Value = serde_json::from_slice(&report.stdout).unwrap();
        let left = report["left"].as_array().unwrap().iter().find(|left| left["destination"] == "hub").unwrap();
        assert_eq!((&left["degraded"], &left["cells_left_out"], &left["cells"]), (&1.into(), &1.into(), &3.into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_paid_for_smaller_leaves_so_after_a_crash_whatever_the_budget_is_then() {
    let forms = [None, Some((100_000, SECOND, Vec::new())), Some((100_000, SECOND, smaller(&["country"], 1)))];
    for later in forms {
        let deployment = Deployment::new();
        deployment.set_k(5);
        // It cannot be written: its folder is a file.
        deployment.write("released/hub/by_country", "in the way");
        let gateway = start_smaller(&deployment, Some((400, DAY, smaller(&[], 1)))).await;
        send_two(&gateway, &deployment, 1..2).await;
        let hub = told(&gateway, |hub| !hub["error"].is_null());
        assert_eq!(budget(&hub, "degraded_releases"), 1, "{hub}");
        gateway.stop().await;
        fs::remove_file(deployment.path("released/hub/by_country")).unwrap();
        let gateway = start_smaller(&deployment, later.clone()).await;
        gateway.until("it is there", |_| deployment.released("hub").len() == 1).await;
        send_two(&gateway, &deployment, 2..3).await;
        gateway.until("the next one is whole", |_| deployment.released("hub").len() == 3).await;
        gateway.stop().await;
        let of =
            |minute: &str, country: &str, visits, degraded| (minute.to_owned(), country.to_owned(), visits, degraded);
        let expected =
            [of("01", "FR", 7, "top".into()), of("02", "DE", 6, Value::Null), of("02", "FR", 7, Value::Null)];
        assert_eq!(given(&deployment), expected, "{later:?}");
        let said = entries(&deployment.path("journal/ledger"));
        let intents = of_kind(&said, "intent");
        let of_hub = intents.iter().filter(|entry| entry["destination"] == "hub");
        let ids: BTreeSet<String> = of_hub.map(|entry| entry["release"].to_string()).collect();
        assert_eq!(ids.len(), 2, "each in one form");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_rows_a_longer_window_has_is_left_out_and_the_longer_one_has_them() {
    let deployment = longer::deployment("PT3M");
    deployment.edit(POLICY, "accepts = [\"totals\"]", "accepts = [\"by_country\", \"totals\"]");
    let budget =
        "[destinations.hub.budget]\nbytes = 4096\nper = \"P1D\"\nwhen_short = [\"widen\", \"defer\"]\n\n[scoring]";
    deployment.edit("gateway.toml", "[scoring]", budget);
    let start = async |bytes, per| {
        let change = |config: &mut Config| {
            config.http = Some(Http { listen: "127.0.0.1:0".parse().unwrap(), is_plaintext: true });
            let budget = config.budgets.get_mut("hub").unwrap();
            let widened =
                [("by_country", "totals")].map(|(dataset, wider)| (dataset.parse().unwrap(), wider.parse().unwrap()));
            assert_eq!(budget.widened, BTreeMap::from(widened));
            (budget.bytes, budget.per) = (bytes, per);
        };
        deployment.start_with(change).await
    };
    let gateway = start(1_000, DAY).await;
    send(&gateway, &deployment, 1..9).await;
    let hub = told(&gateway, |hub| self::budget(hub, "widened_releases") > 0);
    assert_eq!(self::budget(&hub, "shed_releases"), 0);
    gateway.stop().await;
    // What was left out does not leave later. Its sums do, with what was not.
    let gateway = start(100_000, SECOND).await;
    told(&gateway, |hub| hub["waiting_releases"] == 0);
    gateway.stop().await;
    let said = entries(&deployment.path("journal/ledger"));
    let shed = of_kind(&said, "shed");
    assert!(!shed.is_empty());
    assert!(shed.iter().all(|shed| shed["widened"] == "totals" && shed["dataset"] == "by_country"), "{shed:?}");
    let finer = deployment.released("hub").into_iter().filter(|line| line["dataset"] == "by_country").count();
    assert_eq!(finer + shed.len(), 8);
    assert_eq!(longer::sums(&deployment), [json!([0, 3, 12]), json!([3, 6, 18]), json!([6, 9, 18])]);
    // Whoever reloads policies so that the sums go there no more is told that the budget counts on them.
    deployment.edit(POLICY, "accepts = [\"by_country\", \"totals\"]", "accepts = [\"by_country\"]");
    let output = run(deployment.root(), &["check", "-c", "gateway.toml"]);
    assert!(text(&output.stderr).contains("\"widen\" needs a dataset with longer windows"), "{}", text(&output.stderr));
}

/// By country.
type Table = BTreeMap<String, i64>;

/// What a destination's releases say, in their order: the minute, and the table that a receiver has then. It puts the rows of
/// a release that says `on_change` into the table that it has.
fn followed(deployment: &Deployment, destination: &str) -> Vec<(String, Table)> {
    let (mut release, mut followed) = (Value::Null, Vec::<(String, Table)>::new());
    for line in deployment.released(destination) {
        let minute = line["window_start"].as_str().unwrap()[14..16].to_owned();
        if line["release"] != release {
            let before = followed.last().map(|(_, table)| table.clone()).unwrap_or_default();
            let is_change = line["degraded"] == "on_change";
            assert!(is_change || line["degraded"].is_null());
            assert!(!is_change || line["since"] == release, "{line}");
            followed.push((minute, if is_change { before } else { Table::new() }));
        }
        release = line["release"].clone();
        let (table, country) = (&mut followed.last_mut().unwrap().1, line["country"].as_str().unwrap().to_owned());
        match line["change"].as_str() {
            Some("gone") => assert!(table.remove(&country).is_some() && line["visits"].is_null()),
            _ => drop(table.insert(country, line["visits"].as_i64().unwrap())),
        }
    }
    followed
}

#[tokio::test(flavor = "multi_thread")]
async fn files_leave_as_what_has_changed_since_what_was_told_last_over_restarts_and_crashes() {
    let deployment = Deployment::new();
    deployment.set_k(5);
    let countries = ["DE", "FR", "AT", "BE"];
    deployment.edit(REGIME, "\"DE\"", "\"AT\", \"BE\", \"DE\"");
    deployment.edit(POLICY, "domain = [\"DE\"", "domain = [\"AT\", \"BE\", \"DE\"");
    let start = async |bytes: Option<u64>| {
        let forms = vec![Reduction::on_change(Changes::default())];
        start_smaller(&deployment, bytes.map(|bytes| (bytes, SECOND, forms))).await
    };
    let rows = std::cell::Cell::new(0);
    let send = async |gateway: &Gateway, minute: u32, persons: [usize; 4]| {
        let mut producer = gateway.producer("p").await;
        producer.sequence = u64::from(minute) - 1;
        let records = countries.iter().zip(persons).flat_map(|(country, persons)| visits(minute, persons, country));
        producer.send(&records.collect::<Vec<_>>()).await;
        producer.close_before(minute + 1).await;
        rows.set(rows.get() + persons.iter().filter(|persons| **persons > 0).count());
        gateway.until("the desk has it", |_| deployment.released("desk").len() == rows.get()).await;
    };
    // So many windows have left, so many of them since the start as what had changed. Nothing is left out.
    let until_left = |gateway: &Gateway, windows: usize, on_change: u64| {
        let is_so = |hub: &Value| {
            let of_budget = ["on_change_releases", "degraded_releases", "cells_left_out"].map(|name| budget(hub, name));
            hub["waiting_releases"] == 0 && of_budget == [on_change, 0, 0]
        };
        told(gateway, |hub| is_so(hub) && followed(&deployment, "hub").len() == windows);
    };
    // The whole of a window leaves. Later, the bytes suffice for no more than a row.
    let (enough, few) = (Some(5_000), Some(450));
    let gateway = start(enough).await;
    send(&gateway, 1, [6, 7, 6, 6]).await;
    until_left(&gateway, 1, 0);
    gateway.stop().await;
    let gateway = start(few).await;
    send(&gateway, 2, [6, 7, 6, 6]).await;
    send(&gateway, 3, [6, 8, 6, 6]).await;
    until_left(&gateway, 3, 2);
    let (_, metrics) = get(&gateway.app.monitor_address().unwrap().to_string(), "/metrics");
    for (name, value) in [("releases_on_change", 2), ("releases_degraded", 0), ("cells_left_out", 0)] {
        assert!(metrics.contains(&format!("bailiwick_{name}_total{{destination=\"hub\"}} {value}")), "{metrics}");
    }
    gateway.stop().await;
    let gateway = start(few).await;
    send(&gateway, 4, [6, 0, 6, 6]).await;
    send(&gateway, 5, [6, 7, 6, 6]).await;
    until_left(&gateway, 5, 2);
    gateway.stop().await;
    // A file is paid for and cannot be written. It leaves in that form without a budget, too.
    let (folder, aside) = (deployment.path("released/hub/by_country"), deployment.path("aside"));
    fs::rename(&folder, &aside).unwrap();
    fs::write(&folder, "in the way").unwrap();
    let gateway = start(few).await;
    send(&gateway, 6, [6, 9, 6, 6]).await;
    told(&gateway, |hub| !hub["error"].is_null() && budget(hub, "on_change_releases") == 1);
    gateway.stop().await;
    fs::remove_file(&folder).unwrap();
    fs::rename(&aside, &folder).unwrap();
    let gateway = start(None).await;
    gateway.until("it is there", |_| followed(&deployment, "hub").len() == 6).await;
    send(&gateway, 7, [6, 9, 6, 7]).await;
    gateway.until("the next one is whole", |_| followed(&deployment, "hub").len() == 7).await;
    gateway.stop().await;
    // What left without a budget is not known to the next one: until a whole one leaves, nothing is told as a change.
    let gateway = start(few).await;
    send(&gateway, 8, [6, 9, 6, 7]).await;
    let hub = told(&gateway, |hub| !hub["error"].is_null());
    assert_eq!((hub["waiting_releases"].as_u64(), budget(&hub, "on_change_releases")), (Some(1), 0), "{hub}");
    gateway.stop().await;
    let gateway = start(enough).await;
    until_left(&gateway, 8, 0);
    gateway.stop().await;
    let all = followed(&deployment, "hub");
    assert_eq!(all, followed(&deployment, "desk"));
    let changes = deployment.released("hub").into_iter().filter(|line| line["degraded"] == "on_change");
    let changes: Vec<Value> = changes.map(|line| json!([line["change"], line["country"], line["visits"]])).collect();
    // Where nothing has changed, the first row is told again.
    let expected = [
        json!(["set", "AT", 6]),
        json!(["set", "FR", 8]),
        json!(["gone", "FR", null]),
        json!(["set", "FR", 7]),
        json!(["set", "FR", 9]),
    ];
    assert_eq!(changes, expected);
    let ledger = deployment.path("journal/ledger").display().to_string();
    let report = run(&deployment.path("."), &["report", "--json", "-d", &ledger]);
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    let left = report["left"].as_array().unwrap().iter().find(|left| left["destination"] == "hub").unwrap();
    let counts = ["releases", "on_change", "degraded", "cells_left_out"].map(|name| left[name].as_u64().unwrap());
    assert_eq!(counts, [8, 5, 0, 0]);
    let page = text(&run(&deployment.path("."), &["report", "-d", &ledger]).stdout);
    let cells = left["cells"].as_u64().unwrap();
    let numbers = [8, 0, cells, 5, 0, 0].map(|number| format!("<td class=\"n\">{number}</td>")).concat();
    let row = format!("<td>hub</td><td>by_country</td>{numbers}");
    assert!(page.contains(&row), "{row}\n{page}");
    let shown = text(&run(&deployment.path("."), &["ledger", "show", "-d", &ledger]).stdout);
    // One of them was about to leave more than once.
    let all = "by on_change, for lack of bytes; its receiver can make all of it";
    let intents = shown.lines().filter(|line| line.contains(all));
    let ids: BTreeSet<&str> =
        intents.filter_map(|line| line.split_once("intent: release ")?.1.split_whitespace().next()).collect();
    assert_eq!(ids.len(), 5, "{shown}");
}

#[test]
fn a_destination_with_more_datasets_than_its_budget_keeps_is_an_error() {
    let deployment = Deployment::new();
    let policy = deployment.read(POLICY);
    let (from, through) = (policy.find("[datasets.by_country]").unwrap(), policy.find("[destinations.desk]").unwrap());
    let names: Vec<String> = (0..160).map(|at| format!("visits_of_a_department_with_a_long_name_{at:04}")).collect();
    let all: String = names.iter().map(|name| changed(&policy[from..through], "by_country", name)).collect();
    deployment.add(POLICY, &all);
    let hub = "country = \"US\"\naccepts = [\"by_country\"";
    deployment.edit(POLICY, hub, &format!("{hub}, \"{}\"", names.join("\", \"")));
    let many = |errors: Vec<String>| errors.iter().any(|error| error.contains("`hub` accepts so many datasets"));
    assert!(!many(deployment.errors()));
    deployment.add("gateway.toml", "\n[destinations.hub.budget]\nbytes = 10000\nper = \"P1D\"\n");
    assert!(many(deployment.errors()), "{:?}", deployment.errors());
}
