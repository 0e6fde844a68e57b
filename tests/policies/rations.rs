//! Budgets of bytes of file destinations: what they do not suffice for waits, or is shed; a file that is written again is
//! not paid for again.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use bailiwick::config::{Config, Http};
use bailiwick::egress::budget::Settings;
use serde_json::Value;

use super::deployment::{Deployment, Gateway, visits};
use crate::common::http::get;
use crate::common::ledger::{entries, of_kind};
use crate::common::process::{run, text};
use crate::common::{PATIENCE, until};

const DAY: Duration = Duration::from_secs(86_400);

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
        let budget = Settings { bytes, per: DAY, sheds_after, first: Vec::new() };
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
async fn a_file_is_paid_for_before_it_is_there_and_once() {
    let deployment = Deployment::new();
    deployment.set_k(5);
    // It cannot be written: its folder is a file.
    deployment.write("released/hub/by_country", "in the way");
    // A stop does not wait for a file that cannot be written.
    let start = || start_with(&deployment, (10_000, None), Duration::from_secs(1));
    let gateway = start().await;
    send(&gateway, &deployment, 1..2).await;
    let hub = told(&gateway, |hub| !hub["error"].is_null());
    let (paid, slack) = (10_000 - budget(&hub, "left_bytes"), 30);
    assert!(paid > 200, "{hub}");
    gateway.stop().await;
    for _ in 0..2 {
        let gateway = start().await;
        let hub = told(&gateway, |hub| !hub["error"].is_null());
        let again = 10_000 - budget(&hub, "left_bytes");
        assert!(again <= paid && again + slack > paid, "paid {paid}, then {again}");
        gateway.stop().await;
    }
    fs::remove_file(deployment.path("released/hub/by_country")).unwrap();
    let gateway = start().await;
    gateway.until("it is written", |_| deployment.released("hub").len() == 1).await;
    let written = bytes(&deployment);
    let is_paid = |left: u64| left + written <= 10_000 + slack && left + written + slack > 10_000;
    told(&gateway, |hub| hub["error"].is_null() && is_paid(budget(hub, "left_bytes")));
    gateway.stop().await;
    // What is on disk says the same, and if it is damaged.
    let verify = || run(deployment.root(), &["journal", "verify", "journal", "--json"]);
    let found = verify();
    let said: Value = serde_json::from_slice(&found.stdout).unwrap();
    let of_hub = &said["budgets"]["destinations"][0];
    assert!(found.status.success() && of_hub["destination"] == "hub", "{said}");
    assert!(is_paid(of_hub["left_bytes"].as_u64().unwrap()), "{said}");
    deployment.write("journal/budgets/hub", "nothing that is known");
    let found = verify();
    let said = text(&found.stdout);
    assert!(
        found.status.code() == Some(1) && said.contains("the budget of destination hub is damaged: it begins empty"),
        "{said}"
    );
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
