//! Windows that overlap, of a running gateway: what they hold, what they cost, near midnight, over kills, and what is refused.

use bailiwick::app::App;
use serde_json::{Value, json};

use super::deployment::{Deployment, POLICY, Producer, visit, visits};
use crate::common::changed;
use crate::common::ledger::{entries, of_kind};
use crate::common::process::{run, text};

/// A day has enough for 16 windows. The noise of contributors and of records has a standard deviation of 5.8.
const PRIVACY: &str = r#"
[release.private]
records_per_contributor = 1
cells_per_contributor   = 1

[datasets.by_country.privacy]
mechanism      = "discrete_gaussian"
rho_per_window = 0.03
rho_per_day    = 0.5
"#;

const TUMBLING: &str = r#"{ size = "PT1M", grace = "PT1S" }"#;
const SLIDING: &str = r#"{ size = "PT3M", every = "PT1M", grace = "PT1S" }"#;

/// Windows of three minutes, one of which begins each minute.
fn deployment() -> Deployment {
    let deployment = Deployment::new();
    deployment.edit(POLICY, "group_by  ", "release = \"private\"\ngroup_by  ");
    deployment.edit(POLICY, TUMBLING, SLIDING);
    deployment.add(POLICY, PRIVACY);
    deployment.set_k(5);
    deployment
}

/// Of each line: when its window begins and ends, and how many hundreds of visits it says, as noise leaves no more.
fn told(released: &[Value]) -> Vec<(String, String, i64)> {
    let time = |line: &Value, of: &str| line[of].as_str().unwrap()[..16].to_owned();
    let hundreds = |line: &Value| {
        let visits = line["visits"].as_i64().unwrap();
        let hundreds = (visits + 50).div_euclid(100);
        assert!((visits - 100 * hundreds).abs() < 45, "{visits}");
        hundreds
    };
    let each = released.iter().map(|line| (time(line, "window_start"), time(line, "window_end"), hundreds(line)));
    let mut each: Vec<_> = each.collect();
    each.sort();
    each
}

fn expected(windows: &[(&str, &str, i64)]) -> Vec<(String, String, i64)> {
    windows.iter().map(|(start, end, hundreds)| ((*start).to_owned(), (*end).to_owned(), *hundreds)).collect()
}

/// Visits of other persons than those of `visits`.
fn of_others(minute: u32, from: usize, persons: usize) -> Vec<Value> {
    (from..from + persons).map(|person| visit(minute, &format!("other-{person}"), "DE")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_in_all_windows_that_hold_it_and_each_of_them_is_paid_for() {
    let deployment = deployment();
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    producer.send(&visits(30, 400, "DE")).await;
    // 200 of them come again: each counts once in a window.
    producer.send(&[of_others(31, 0, 600), visits(31, 200, "DE")].concat()).await;
    // A window that is paid for when the gateway is killed may be lost: the first one has closed, and leaves before. What is open
    // is in the journal alone.
    deployment.until_released(1).await;
    process.kill();
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    producer.sequence = 2;
    producer.close_before(35).await;
    let first = deployment.until_released(4).await;
    let windows = [
        ("2026-01-05T12:28", "2026-01-05T12:31", 4),
        ("2026-01-05T12:29", "2026-01-05T12:32", 10),
        ("2026-01-05T12:30", "2026-01-05T12:33", 10),
        ("2026-01-05T12:31", "2026-01-05T12:34", 8),
    ];
    assert_eq!(told(&first), expected(&windows));

    // The first open window is that from 12:33. What is late by all of its windows goes there; what is late by one of them goes
    // into the others.
    producer.send(&[of_others(30, 1_000, 500), of_others(34, 2_000, 300)].concat()).await;
    process.kill();
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    producer.sequence = 3;
    producer.close_before(38).await;
    let both = deployment.until_released(6).await;
    assert_eq!(both[..4], first, "what was released is released again in other words");
    let later = [("2026-01-05T12:33", "2026-01-05T12:36", 8), ("2026-01-05T12:34", "2026-01-05T12:37", 3)];
    assert_eq!(told(&both[4..]), expected(&later));
    process.stop();
    assert_eq!(deployment.released("hub"), both, "all destinations have the same noise");
    let said = entries(&deployment.path("journal/ledger"));
    let said = of_kind(&said, "privacy");
    let paid = said.iter().map(|entry| {
        (entry["window_start"].as_str().unwrap()[11..16].to_owned(), entry["rho_billionths"].as_u64().unwrap())
    });
    let starts = ["12:28", "12:29", "12:30", "12:31", "12:33", "12:34"];
    assert_eq!(paid.collect::<Vec<_>>(), starts.map(|start| (start.to_owned(), 30_000_000)));
}

/// A window lies in one day, because its budget does.
#[tokio::test(flavor = "multi_thread")]
async fn no_window_goes_over_midnight() {
    let deployment = deployment();
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    let at = |time: &str, from: usize, persons: usize| -> Vec<Value> {
        let visit = |person| json!({ "at": time, "person": format!("p-{person}"), "country": "DE", "amount": 1.0 });
        (from..from + persons).map(visit).collect()
    };
    producer.send(&at("2026-01-05T23:58:30Z", 0, 200)).await;
    producer.send(&at("2026-01-05T23:59:30Z", 1_000, 300)).await;
    producer.send(&at("2026-01-06T00:00:30Z", 2_000, 400)).await;
    // One person closes them, and is in no cell that leaves.
    producer.send(&at("2026-01-06T00:05:30Z", 9_000, 1)).await;
    let released = deployment.until_released(3).await;
    let windows = [
        ("2026-01-05T23:56", "2026-01-05T23:59", 2),
        ("2026-01-05T23:57", "2026-01-06T00:00", 5),
        ("2026-01-06T00:00", "2026-01-06T00:03", 4),
    ];
    assert_eq!(told(&released), expected(&windows));
    gateway.stop().await;
    let said = entries(&deployment.path("journal/ledger"));
    let said = of_kind(&said, "privacy");
    let days = said.iter().map(|entry| entry["window_start"].as_str().unwrap()[..10].to_owned());
    assert_eq!(days.collect::<Vec<_>>(), ["2026-01-05", "2026-01-05", "2026-01-06"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_every_needs_a_restart_without_open_windows() {
    let deployment = deployment();
    let gateway = deployment.start().await;
    gateway.producer("p").await.send(&visits(1, 40, "DE")).await;
    let longer = changed(SLIDING, "PT1M", "PT90S");
    let apart = changed(SLIDING, "every = \"PT1M\", ", "");
    deployment.edit(POLICY, SLIDING, &longer);
    let refused = gateway.reload().await.unwrap_err();
    assert!(refused.contains("window was PT3M every PT1M, is PT3M every PT1M30S"), "{refused}");
    gateway.stop().await;
    let refused = deployment.start_error().await;
    assert!(refused.contains("window was PT3M every PT1M, is PT3M every PT1M30S"), "{refused}");
    deployment.edit(POLICY, &longer, &apart);
    let refused = deployment.start_error().await;
    assert!(refused.contains("window was PT3M every PT1M, is PT3M"), "{refused}");
    deployment.edit(POLICY, &apart, SLIDING);
    deployment.start().await.stop().await;
}

#[test]
fn windows_that_cannot_overlap_are_refused_with_the_reason() {
    let refused = |window: &str| {
        let deployment = deployment();
        deployment.edit(POLICY, SLIDING, window);
        deployment.errors()
    };
    let said = |window: &str, expected: &str| {
        let problems = refused(window);
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected}: {problems:?}");
    };
    assert_eq!(refused(SLIDING), [""; 0]);
    // One after the other.
    assert_eq!(refused(r#"{ size = "PT3M", every = "PT3M" }"#), [""; 0]);
    said(r#"{ size = "PT3M", every = "PT2M" }"#, "`size` is 3m, which is not a whole multiple of `every`, 2m");
    said(r#"{ size = "PT3M", every = "PT6M" }"#, "`size` is 3m, which is not a whole multiple of `every`, 6m");
    said(r#"{ size = "PT3M", every = "PT0S" }"#, "`every` must be at least one second");
    said(r#"{ size = "PT5M", every = "PT4S" }"#, "each record would be in 75 windows, and 64 are the most");
    said(r#"{ size = "PT3M", every = "PT1M", open_max = 2 }"#, "`open_max` is 2, and 5 windows are open at once");
    said(r#"{ size = "PT24H", every = "PT1H" }"#, "of a window of a day there is only one");
    said(r#"{ size = "PT7H", every = "PT1H" }"#, "the budget is one of each day (UTC)");
    // The step is what a profile's least window is held against.
    let deployment = deployment();
    deployment.edit(POLICY, "[release.private]", "[release.private]\nmin_window = \"PT2M\"");
    let problems = deployment.errors();
    let expected = "the windows begin every 1m, and release profile `private` asks for 2m";
    assert!(problems.len() == 1 && problems[0].contains(expected), "{problems:?}");
}

#[test]
fn without_noise_windows_do_not_overlap() {
    let deployment = Deployment::new();
    deployment.edit(POLICY, TUMBLING, SLIDING);
    let problems = deployment.errors();
    let expected = "windows that overlap need noise: without it whoever has two of them can subtract";
    assert!(problems.len() == 1 && problems[0].contains(expected), "{problems:?}");
}

#[test]
fn check_counts_the_windows_that_a_day_has() {
    let deployment = deployment();
    let checked = run(deployment.root(), &["check"]);
    let said = text(&checked.stdout);
    assert!(said.contains("it pays for 16 of a day's 1438 windows"), "{said}{}", text(&checked.stderr));
    assert!(said.contains("a window of PT3M begins every PT1M, so a record counts in up to 3 of them"), "{said}");
    let json: Value = serde_json::from_slice(&run(deployment.root(), &["check", "--json"]).stdout).unwrap();
    let privacy = &json["datasets"][0]["privacy"];
    assert_eq!((&privacy["windows_per_day"], &privacy["every"]), (&json!(1_438), &json!("PT1M")), "{privacy}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_counts_the_same_windows() {
    let deployment = deployment();
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.send(&[visits(30, 40, "DE"), visits(31, 40, "FR")].concat()).await;
    gateway.stop().await;
    // The same laws, and windows that follow one another: only the one from 12:30 is in both.
    let other = deployment.copy();
    other.edit(POLICY, "every = \"PT1M\", ", "");
    let against = other.path("policies").display().to_string();
    let replayed =
        run(deployment.root(), &["replay", "-c", "gateway.toml", "--against", &against, "--journal", "journal"]);
    let report = text(&replayed.stdout);
    let said = report.split_whitespace().collect::<Vec<_>>().join(" ");
    // DE is in the windows from 12:28, 12:29 and 12:30, FR in those from 12:29, 12:30 and 12:31.
    for line in ["windows that leave with noise 4 1", "cells that get noise in them 16 4"] {
        assert!(said.contains(&format!("by_country {line}")), "{line}: {report}{}", text(&replayed.stderr));
    }
    assert!(said.contains("windows of which not the same would leave: 3"), "{report}");
    for window in ["28", "29", "31"] {
        let row = format!("by_country 2026-01-05T12:{window}:00Z with noise 0 - 0 - 0");
        assert!(said.contains(&row), "{window}: {report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_forms_the_same_windows() {
    let deployment = deployment();
    deployment.edit("gateway.toml", "id       = \"g-1\"", "id = \"g-1\"\nmode = \"dry-run\"");
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.send(&visits(30, 400, "DE")).await;
    producer.close_before(35).await;
    let releases = |app: &App| app.telemetry().total_of_datasets(|counts| &counts.dry_releases);
    // Those from 12:28, 12:29 and 12:30, for two destinations.
    gateway.until("the windows are closed", |app| releases(app) >= 6).await;
    let telemetry = gateway.app.telemetry().clone();
    gateway.stop().await;
    assert_eq!(telemetry.total_of_datasets(|counts| &counts.dry_releases), 6);
    assert_eq!(telemetry.total_of_datasets(|counts| &counts.windows_noised), 3);
    assert_eq!(deployment.released("desk"), [Value::Null; 0]);
}

/// What is open is released as it is, and each window is paid for. What comes later is another part of the same windows.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_releases_pays_for_all_open_windows() {
    let deployment = deployment();
    deployment.edit("gateway.toml", "id       = \"g-1\"", "id = \"g-1\"\non_stop = \"release\"");
    let gateway = deployment.start().await;
    gateway.producer("p").await.send(&visits(30, 400, "DE")).await;
    gateway.stop().await;
    let windows = [
        ("2026-01-05T12:28", "2026-01-05T12:31", 4),
        ("2026-01-05T12:29", "2026-01-05T12:32", 4),
        ("2026-01-05T12:30", "2026-01-05T12:33", 4),
    ];
    assert_eq!(told(&deployment.released("desk")), expected(&windows));
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.sequence = 1;
    producer.send(&of_others(32, 0, 600)).await;
    gateway.stop().await;
    let later = [
        ("2026-01-05T12:30", "2026-01-05T12:33", 6),
        ("2026-01-05T12:31", "2026-01-05T12:34", 6),
        ("2026-01-05T12:32", "2026-01-05T12:35", 6),
    ];
    assert_eq!(told(&deployment.released("desk")[3..]), expected(&later));
    let said = entries(&deployment.path("journal/ledger"));
    assert_eq!(of_kind(&said, "privacy").len(), 6);
}
