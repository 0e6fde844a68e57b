//! Budgets of bytes: what they do not suffice for waits, or is shed and said to be, also over restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bailiwick::app::App;
use bailiwick::config::{Config, Destination, Http};
use bailiwick::domain::policy::{By, Changes, Reduction, RollUp, Step, Top};
use bailiwick::egress::budget;
use bailiwick::egress::kafka;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::folder::{HOURLY, card_fraud_with};
use crate::common::gateway::{endpoint, example, start};
use crate::common::http::{check, get};
use crate::common::ledger::{entries, of_kind};
use crate::common::process::{copy_of, run, text};
use crate::common::{self, PATIENCE, changed, until};

use super::broker::Broker;
use super::sent::send_payments;

/// Two hours of ten-minute windows, of some 7 KB each as JSON lines.
pub(super) const WINDOWS: u64 = 12;
pub(super) const DESTINATION: &str = "fraud_desk";
const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn budget(bytes: u64, per: Duration, sheds_after: Option<Duration>) -> budget::Settings {
    let (widened, smaller, first) = (BTreeMap::new(), Vec::new(), Vec::new());
    budget::Settings { bytes, per, widened, smaller, sheds_after, first }
}

/// A gateway that goes on with a journal.
pub(super) async fn gateway(broker: &Broker, topic: &str, journal: &TempDir, budget: budget::Settings) -> App {
    gateway_with(broker, topic, journal, budget, PATIENCE).await
}

async fn gateway_with(
    broker: &Broker,
    topic: &str,
    journal: &TempDir,
    budget: budget::Settings,
    stop_within: Duration,
) -> App {
    gateway_of("card-fraud/gateway.toml", broker, topic, journal, budget, stop_within).await
}

/// The gateway of a configuration, in the examples or with its whole path.
async fn gateway_of(
    name: &str,
    broker: &Broker,
    topic: &str,
    journal: &TempDir,
    budget: budget::Settings,
    stop_within: Duration,
) -> App {
    let mut config = configured(name, broker, topic, journal);
    config.stop_within = stop_within;
    config.budgets.insert(DESTINATION.parse().unwrap(), budget);
    start(config).await.unwrap()
}

/// The configuration of a gateway that releases to a topic, and has its journal there.
pub(super) fn configured(name: &str, broker: &Broker, topic: &str, journal: &TempDir) -> Config {
    let mut config: Config = example(name, journal.path());
    let settings = kafka::Settings { progress_topic: Some(format!("{topic}-progress")), ..broker.settings(topic) };
    config.journal.directory = journal.path().to_owned();
    config.http = Some(Http { listen: "127.0.0.1:0".parse().unwrap(), is_plaintext: true });
    config.destinations.insert(DESTINATION.parse().unwrap(), Destination::Kafka(settings));
    config
}

pub(super) async fn send(gateway: &App) {
    send_payments(endpoint(gateway)).await;
}

/// What `/status` says of the budget and of what waits, once that is so.
pub(super) fn told(gateway: &App, wanted: impl Fn(&Value) -> bool) -> Value {
    let address = address(gateway);
    until(|| {
        let (_, status) = get(&address, "/status");
        let status: Value = serde_json::from_str(&status).unwrap();
        let of_destination = status["about"]["destinations"][0].clone();
        wanted(&of_destination).then_some(of_destination)
    })
}

fn address(gateway: &App) -> String {
    gateway.monitor_address().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_budget_does_not_suffice_for_waits_over_restarts_and_leaves_once_it_does() {
    let Some(broker) = Broker::own(Vec::new()) else { return };
    let (topic, journal) = ("deferred", TempDir::new().unwrap());
    broker.create_topics(topic);
    let bytes = 20_000;
    let first = gateway(&broker, topic, &journal, budget(bytes, DAY, None)).await;
    send(&first).await;
    let is_short = |told: &Value| told["budget"]["deferred_releases"].as_u64().is_some_and(|deferred| deferred > 0);
    tokio::task::block_in_place(|| told(&first, is_short));
    let warns = || (check(&address(&first), "budgets")["state"] == "warning").then_some(());
    let (_, metrics) = tokio::task::block_in_place(|| {
        until(warns);
        get(&address(&first), "/metrics")
    });
    for name in [
        "budget_left_bytes",
        "deferred_releases",
        "releases_shed_total",
        "releases_degraded_total",
        "cells_left_out_total",
        "releases_on_change_total",
    ] {
        assert!(metrics.contains(&format!("bailiwick_{name}{{destination=\"{DESTINATION}\"}}")), "{name}\n{metrics}");
    }
    // A stop does not wait for bytes, and a restart gives none.
    let telemetry = Arc::clone(first.telemetry());
    let left: Vec<u64> = first.stop().await.left.iter().map(|backlog| backlog.releases).collect();
    let (deferred, sent) = (left.first().copied().unwrap(), telemetry.bytes_out());
    assert!((1..WINDOWS).contains(&deferred) && (1..=bytes).contains(&sent), "{deferred}, {sent} bytes");
    let second = gateway(&broker, topic, &journal, budget(bytes, DAY, None)).await;
    let is_as_before = |told: &Value| is_short(told) && told["waiting_releases"].as_u64() == Some(deferred);
    tokio::task::block_in_place(|| told(&second, is_as_before));
    assert_eq!(second.telemetry().bytes_out(), 0);
    second.stop().await;
    assert_eq!(broker.ids(topic).len() as u64, WINDOWS - deferred);
    let third = gateway(&broker, topic, &journal, budget(1_000_000, Duration::from_secs(1), None)).await;
    tokio::task::block_in_place(|| told(&third, |told| told["waiting_releases"] == 0));
    assert_eq!(third.stop().await.left, []);
    let ids = broker.ids(topic);
    assert_eq!((ids.len() as u64, ids.iter().collect::<BTreeSet<_>>().len() as u64), (WINDOWS, WINDOWS));
    assert_eq!(of_kind(&entries(&journal.path().join("ledger")), "shed"), Vec::<&Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shed_never_leaves_and_the_ledger_and_the_report_say_so() {
    let Some(broker) = Broker::own(Vec::new()) else { return };
    let (topic, journal) = ("shed", TempDir::new().unwrap());
    broker.create_topics(topic);
    let bytes = 20_000;
    let first = gateway(&broker, topic, &journal, budget(bytes, DAY, Some(Duration::ZERO))).await;
    send(&first).await;
    let ledger = journal.path().join("ledger");
    // The last window, too, has left or was shed.
    let is_said = || {
        let said = entries(&ledger);
        let releases = of_kind(&said, "intent").len() + of_kind(&said, "shed").len();
        (releases as u64 >= WINDOWS).then_some(())
    };
    tokio::task::block_in_place(|| {
        until(is_said);
        told(&first, |told| told["waiting_releases"] == 0)
    });
    let telemetry = Arc::clone(first.telemetry());
    assert_eq!(first.stop().await.left, []);
    assert!((1..=bytes).contains(&telemetry.bytes_out()));
    let sent: BTreeSet<String> = broker.ids(topic).into_iter().collect();
    let entries = entries(&ledger);
    let of_ledger = of_kind(&entries, "shed");
    let shed = WINDOWS - sent.len() as u64;
    let ids: BTreeSet<&str> = of_ledger.iter().map(|entry| entry["release"].as_str().unwrap()).collect();
    assert_eq!((of_ledger.len() as u64, ids.len() as u64), (shed, shed));
    assert!(ids.iter().all(|id| !sent.contains(*id)), "shed and sent");
    assert_eq!(of_kind(&entries, "intent").len(), sent.len(), "nothing is about to leave that is shed");
    let ledger = ledger.display().to_string();
    let report = run(&common::root(), &["report", "--json", "-d", &ledger]);
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(
        (&report["shed"][0]["releases"], &report["shed"][0]["destination"]),
        (&shed.into(), &DESTINATION.into())
    );
    // With all the bytes that it could want, what was shed stays so.
    let second =
        gateway(&broker, topic, &journal, budget(1_000_000, Duration::from_secs(1), Some(Duration::ZERO))).await;
    tokio::task::block_in_place(|| told(&second, |told| told["waiting_releases"] == 0));
    assert_eq!(second.stop().await.left, []);
    assert_eq!(broker.ids(topic).len(), sent.len());
}

/// All rows are added up over the channels, or the largest leaves.
fn smaller() -> Vec<Reduction> {
    let roll_up = Step::RollUp(RollUp { keys: vec!["channel".to_owned()], datasets: Default::default() });
    let top = Step::Top(Top { rows: 1, by: By::Metric("payments".to_owned()) });
    vec![Reduction(vec![roll_up.clone()]), Reduction(vec![roll_up, top])]
}

/// The releases of a topic: id, how it was made smaller, cells.
pub(super) fn read(broker: &Broker, topic: &str) -> Vec<(String, Option<String>, Vec<Value>)> {
    let header = |message: &Value, name: &str| message["headers"][name].as_str().map(str::to_owned);
    let messages = broker.read(topic, "all").into_iter().map(|message| {
        let id = header(&message, "ce_id").unwrap();
        (id, header(&message, "ce_bailiwickdegraded"), message["cells"].as_array().unwrap().clone())
    });
    messages.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_bytes_do_not_suffice_for_leaves_smaller_and_only_then_is_shed() {
    let Some(broker) = Broker::own(Vec::new()) else { return };
    // Enough for the whole of some, then for some that are added up; enough for nothing but the largest row.
    leaves_smaller(&broker, "smaller", 20_000, &[None, Some("roll_up")]).await;
    leaves_smaller(&broker, "smallest", 1_800, &[Some("roll_up,top")]).await;
}

/// How releases leave that the budget does not suffice for: in all of these forms.
async fn leaves_smaller(broker: &Broker, topic: &str, bytes: u64, forms: &[Option<&str>]) {
    let journal = TempDir::new().unwrap();
    broker.create_topics(topic);
    let settings = budget::Settings { smaller: smaller(), ..budget(bytes, DAY, Some(Duration::ZERO)) };
    let first = gateway(broker, topic, &journal, settings).await;
    send(&first).await;
    let ledger = journal.path().join("ledger");
    let is_said = || {
        let said = entries(&ledger);
        let intents = of_kind(&said, "intent");
        let smaller = intents.iter().filter(|intent| !intent["degraded"].is_null()).count();
        ((intents.len() + of_kind(&said, "shed").len()) as u64 >= WINDOWS).then_some(smaller)
    };
    let told = tokio::task::block_in_place(|| {
        let smaller = until(is_said);
        // `/status` may say what was so half a second ago.
        told(&first, |told| told["waiting_releases"] == 0 && told["budget"]["degraded_releases"] == smaller)
    });
    let telemetry = Arc::clone(first.telemetry());
    assert_eq!(first.stop().await.left, []);
    assert!((1..=bytes).contains(&telemetry.bytes_out()));
    let (sent, said) = (read(broker, topic), entries(&ledger));
    let intents = of_kind(&said, "intent");
    assert_eq!((intents.len(), sent.len() + of_kind(&said, "shed").len()), (sent.len(), WINDOWS as usize));
    let (mut out, mut steps) = (0, BTreeSet::new());
    for (id, degraded, cells) in &sent {
        let intent = intents.iter().find(|intent| intent["release"] == **id).unwrap();
        assert_eq!(intent["cells"], cells.len());
        assert!(cells.iter().all(|cell| cell["degraded"].as_str() == degraded.as_deref() && cell["release"] == **id));
        steps.insert(degraded.clone());
        let Some(degraded) = degraded else { continue };
        let whole = &intent["degraded"];
        assert_eq!(
            whole["steps"].as_array().unwrap().iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
            *degraded
        );
        assert!(cells.iter().all(|cell| cell["channel"] == "all") && (cells.len() == 1 || degraded == "roll_up"));
        out += whole["cells"].as_u64().unwrap() - cells.len() as u64;
    }
    assert!(forms.iter().all(|form| steps.contains(&form.map(str::to_owned))), "{steps:?}");
    let smaller = sent.iter().filter(|(_, degraded, _)| degraded.is_some()).count();
    assert_eq!(
        (&told["budget"]["degraded_releases"], &told["budget"]["cells_left_out"]),
        (&smaller.into(), &out.into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_paid_for_smaller_and_did_not_leave_leaves_so_whatever_the_budget_is_then() {
    let Some(broker) = Broker::own(Vec::new()) else { return };
    let (topic, journal) = ("kept-form", TempDir::new().unwrap());
    broker.create_topics(topic);
    // The whole of a release never fits. Smaller ones leave until the bytes are short. Then the broker dies, and another one is
    // paid for once there are enough bytes again.
    let settings = budget::Settings { smaller: smaller(), ..budget(4_096, Duration::from_secs(10), None) };
    let first = gateway_with(&broker, topic, &journal, settings, Duration::from_secs(1)).await;
    send(&first).await;
    let degraded = |told: &Value| told["budget"]["degraded_releases"].as_u64();
    let is_short = |told: &Value| degraded(told) > Some(0) && told["budget"]["deferred_releases"].as_u64() > Some(0);
    tokio::task::block_in_place(|| {
        told(&first, is_short);
        broker.control("kill");
        // Something is on its way then.
        told(&first, |told| !told["error"].is_null())
    });
    first.stop().await;
    broker.control("start");
    let said = entries(&journal.path().join("ledger"));
    let before: Vec<String> =
        of_kind(&said, "intent").iter().map(|entry| entry["release"].as_str().unwrap().to_owned()).collect();
    assert!(!before.is_empty());
    let second = gateway(&broker, topic, &journal, budget(10_000_000, Duration::from_secs(1), None)).await;
    tokio::task::block_in_place(|| told(&second, |told| told["waiting_releases"] == 0));
    assert_eq!(second.stop().await.left, []);
    let mut sent = read(&broker, topic);
    if broker.has_lost_a_mark() {
        // Then one may come twice, in the form that it had.
        sent = sent
            .iter()
            .enumerate()
            .filter(|(at, release)| !sent[..*at].contains(release))
            .map(|(_, release)| release.clone())
            .collect();
    }
    let ids: BTreeSet<&String> = sent.iter().map(|(id, ..)| id).collect();
    assert_eq!((sent.len() as u64, ids.len() as u64), (WINDOWS, WINDOWS), "each in one form, once");
    let smaller: Vec<&String> = sent.iter().filter(|(_, degraded, _)| degraded.is_some()).map(|(id, ..)| id).collect();
    assert_eq!(smaller, before.iter().collect::<Vec<_>>());
}

/// A dataset that shares the cells of the example's, to the same destination.
const SECOND: &str = r#"
[datasets.counts]
stream           = "payments"
window           = { size = "PT10M", grace = "PT1M" }
min_contributors = 10
group_by = [
  { field = "country", domain = ["DE", "ES", "FR", "IE", "IN", "NL", "US", "US-CA"] },
  { field = "channel", domain = ["atm", "moto", "pos", "web"] },
]
metrics = [{ name = "payments", fn = "count" }]

[[shown]]
conditions = ["data.anonymity_assessed"]
for        = { dataset = "counts" }
by         = "the test"
ref        = "the test"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn datasets_that_share_their_cells_leave_wait_and_are_shed_together() {
    let Some(broker) = Broker::own(Vec::new()) else { return };
    let folder = card_fraud_with("counts", SECOND);
    let name = folder.path("examples/card-fraud/gateway.toml").display().to_string();
    let bytes = 30_000;
    for (topic, sheds_after) in [("both-wait", None), ("both-shed", Some(Duration::ZERO))] {
        let journal = TempDir::new().unwrap();
        broker.create_topics(topic);
        let run = |budget| gateway_of(&name, &broker, topic, &journal, budget, PATIENCE);
        let first = run(budget(bytes, DAY, sheds_after)).await;
        send(&first).await;
        let ledger = journal.path().join("ledger");
        let told = tokio::task::block_in_place(|| match sheds_after {
            None => told(&first, |told| told["budget"]["deferred_releases"].as_u64() > Some(0)),
            Some(_) => {
                let all = || {
                    let said = entries(&ledger);
                    let releases = of_kind(&said, "intent").len() + of_kind(&said, "shed").len();
                    (releases as u64 >= 2 * WINDOWS).then_some(())
                };
                until(all);
                told(&first, |told| told["waiting_releases"] == 0)
            }
        });
        let telemetry = Arc::clone(first.telemetry());
        first.stop().await;
        assert!((1..=bytes).contains(&telemetry.bytes_out()), "{told}");
        let mut windows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (_, _, cells) in read(&broker, topic) {
            let of = |name: &str| cells[0][name].as_str().unwrap().to_owned();
            assert!(windows.entry(of("window_start")).or_default().insert(of("dataset")), "twice in {topic}");
        }
        assert!((1..WINDOWS).contains(&(windows.len() as u64)), "{topic}: {windows:?}");
        assert!(windows.values().all(|datasets| datasets.len() == 2), "{topic}: {windows:?}");
        let said = entries(&ledger);
        let shed = of_kind(&said, "shed");
        let left_out = if sheds_after.is_some() { 2 * (WINDOWS - windows.len() as u64) } else { 0 };
        assert_eq!(shed.len() as u64, left_out, "{topic}");
        // With more bytes, what waited leaves, and what was shed does not.
        let second = run(budget(1_000_000, Duration::from_secs(1), sheds_after)).await;
        tokio::task::block_in_place(|| self::told(&second, |told| told["waiting_releases"] == 0));
        assert_eq!(second.stop().await.left, []);
        let wanted = if sheds_after.is_some() { windows.len() as u64 } else { WINDOWS };
        assert_eq!(broker.ids(topic).len() as u64, 2 * wanted, "{topic}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_bytes_do_not_suffice_for_leaves_as_what_has_changed() {
    let Some(broker) = Broker::own(Vec::new()) else { return };
    // One digit is told: many numbers stay as they are.
    let few = changed(SECOND, "fn = \"count\" }", "fn = \"count\", digits = 1 }");
    let folder = card_fraud_with("counts", &few);
    let name = folder.path("examples/card-fraud/gateway.toml").display().to_string();
    let mut tables: BTreeMap<[String; 2], BTreeMap<String, Value>> = BTreeMap::new();
    let mut changes = BTreeSet::new();
    for bytes in [1_000_000, 34_000, 42_000] {
        let (topic, journal) = (format!("changes-{bytes}"), TempDir::new().unwrap());
        broker.create_topics(&topic);
        let smaller = vec![Reduction::on_change(Changes::default())];
        let settings = budget::Settings { smaller, ..budget(bytes, DAY, Some(Duration::ZERO)) };
        let gateway = gateway_of(&name, &broker, &topic, &journal, settings, PATIENCE).await;
        send(&gateway).await;
        tokio::task::block_in_place(|| {
            let ledger = journal.path().join("ledger");
            until(|| {
                let said = entries(&ledger);
                let all = of_kind(&said, "intent").len() + of_kind(&said, "shed").len();
                (all as u64 >= 2 * WINDOWS).then_some(())
            });
        });
        assert_eq!(gateway.stop().await.left, []);
        let mut told: BTreeMap<String, (String, BTreeMap<String, Value>)> = BTreeMap::new();
        for (id, degraded, cells) in read(&broker, &topic) {
            let [window, dataset] =
                ["window_start", "dataset"].map(|column| cells[0][column].as_str().unwrap().to_owned());
            let (release, table) = told.entry(dataset.clone()).or_default();
            match degraded.as_deref() {
                None => table.clear(),
                Some("on_change") => assert!(cells.iter().all(|cell| cell["since"] == **release), "{cells:?}"),
                Some(other) => panic!("{other}"),
            }
            changes.extend(degraded.map(|_| dataset.clone()));
            for cell in cells {
                let keys = format!("{}{}", cell["country"], cell["channel"]);
                match cell["change"].as_str() {
                    Some("gone") => drop(table.remove(&keys).unwrap()),
                    _ => drop(table.insert(keys, cell["payments"].clone())),
                }
            }
            *release = id;
            // The first run told all of them whole.
            assert_eq!(tables.entry([window, dataset]).or_insert_with(|| table.clone()), table);
        }
        assert_eq!(tables.len() as u64, 2 * WINDOWS);
        assert!(bytes < 1_000_000 || changes.is_empty(), "the bytes suffice");
    }
    assert!(!changes.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_bytes_do_not_suffice_for_is_left_out_where_longer_windows_have_it() {
    let Some(broker) = Broker::own(Vec::new()) else { return };
    let folder = card_fraud_with("hourly", HOURLY);
    let name = folder.path("examples/card-fraud/gateway.toml").display().to_string();
    let widened =
        [("payments_by_country", "hourly")].map(|(dataset, wider)| (dataset.parse().unwrap(), wider.parse().unwrap()));
    let widened = BTreeMap::from(widened);
    let mut hours = Vec::new();
    // All leave; only the first four windows or so do.
    for (topic, bytes) in [("all-hours", 10_000_000), ("few-bytes", 30_000)] {
        let journal = TempDir::new().unwrap();
        broker.create_topics(topic);
        let settings = |bytes, per| budget::Settings { widened: widened.clone(), ..budget(bytes, per, None) };
        let first = gateway_of(&name, &broker, topic, &journal, settings(bytes, DAY), PATIENCE).await;
        send(&first).await;
        let ledger = journal.path().join("ledger");
        let has_decided = |said: &[Value]| {
            let of_finer = |kind| of_kind(said, kind).into_iter().filter(|said| said["dataset"] != "hourly").count();
            of_finer("intent") as u64 >= WINDOWS || (of_finer("intent") > 0 && of_finer("shed") > 0)
        };
        tokio::task::block_in_place(|| {
            until(|| has_decided(&entries(&ledger)).then_some(()));
            let left_out = |told: &Value| told["budget"]["widened_releases"].as_u64() > Some(0);
            told(&first, |told| (topic == "all-hours" && told["waiting_releases"] == 0) || left_out(told))
        });
        first.stop().await;
        let enough = settings(10_000_000, Duration::from_secs(1));
        let second = gateway_of(&name, &broker, topic, &journal, enough, PATIENCE).await;
        let told = tokio::task::block_in_place(|| told(&second, |told| told["waiting_releases"] == 0));
        assert_eq!((second.stop().await.left, &told["budget"]["shed_releases"]), (Vec::new(), &0.into()));
        let said = entries(&ledger);
        let shed = of_kind(&said, "shed");
        assert!(
            shed.iter()
                .all(|shed| (&shed["dataset"], &shed["widened"]) == (&"payments_by_country".into(), &"hourly".into()))
        );
        let sent = read(&broker, topic);
        let of = |wanted: &str| -> Vec<(String, u64)> {
            let of_dataset = sent.iter().filter(|(.., cells)| cells[0]["dataset"] == wanted);
            let sum = |cells: &[Value]| cells.iter().filter_map(|cell| cell["payments"].as_u64()).sum();
            of_dataset.map(|(id, _, cells)| (id.clone(), sum(cells))).collect()
        };
        let (finer, mut hourly) = (of("payments_by_country"), of("hourly"));
        hourly.sort();
        assert_eq!((finer.len() + shed.len(), hourly.len()), (WINDOWS as usize, 2), "{topic}");
        assert_eq!(shed.is_empty(), topic == "all-hours");
        if shed.is_empty() {
            let sum = |of: &[(String, u64)]| of.iter().map(|(_, payments)| payments).sum::<u64>();
            assert_eq!(sum(&finer), sum(&hourly));
        }
        hours.push(hourly);
    }
    assert_eq!(hours[0], hours[1], "they are the same, whatever of the finer ones left");
}

#[test]
fn check_explains_a_budget_and_says_what_is_wrong_with_one() {
    let (folder, _) = copy_of("card-fraud");
    let name = "examples/card-fraud/gateway.toml";
    folder.edit(
        name,
        "kind         = \"file\"\ndirectory    = \"released\"",
        "kind = \"kafka\"\nbrokers = \"127.0.0.1:1\"\ntopic = \"t\"",
    );
    folder.edit(name, "rotate_after = \"PT1S\"", "");
    let without = folder.read(name);
    let checked = |budget: &str| {
        folder.write(name, without.clone() + "\n[destinations.fraud_desk.budget]\n" + budget);
        let output = run(folder.root(), &["check", "-c", name]);
        (text(&output.stdout), text(&output.stderr))
    };
    let both = "when_short = [\"defer\", \"shed\"]\nmax_age = \"PT1H\"\npriorities = [\"payments_by_country\"]\n";
    let (said, wrong) = checked(&format!("bytes = 10485760\nper = \"P1D\"\n{both}"));
    assert_eq!(wrong, "");
    for part in [
        "bytes to fraud_desk:\n  at most 10485760 at once, and as many again, evenly, in 24h\n",
        "waits up to 1h, then it is shed; those after it wait with it\n  shed last: payments_by_country; before them",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let steps = "when_short = [\"roll_up\", \"top\", \"shed\"]\nroll_up = [\"channel\", \"country\"]\n";
    let top = "top = { rows = 20, by = \"payments\" }";
    let (said, wrong) = checked(&format!("bytes = 10485760\nper = \"P1D\"\n{steps}{top}"));
    assert_eq!(wrong, "");
    for part in [
        "a release that they do not suffice for is added up over channel\n  one that they do not suffice for is added up over \
         channel and country\n  one that they do not suffice for leaves as its 20 largest rows, by `payments`\n",
        "  one that they do not suffice for is shed\n",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let steps = changed(steps, "[\"roll_up\"", "[\"on_change\", \"roll_up\"");
    let (said, wrong) = checked(&format!("bytes = 10485760\nper = \"P1D\"\n{steps}{top}"));
    assert_eq!(wrong, "");
    for part in [
        "a release that they do not suffice for leaves as the rows that have changed, if it is known what was told last; for that \
         the last release of each dataset stays in memory: about ",
        " KiB, if all their cells are there\n  another one that they do not suffice for is added up over channel\n",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let steps = "when_short = [\"roll_up\", \"top\", \"shed\"]\nroll_up = [\"channel\", \"country\"]\n";
    let sound = "bytes = 4096\nper = \"PT1S\"\n";
    let two = "when_short = [\"top\", \"defer\"]\n";
    let by = |by: &str| format!("{two}top = {{ rows = 20, by = {by} }}");
    for (more, expected) in [
        (by("\"amount_sum\""), ""),
        (by("{ payments_by_country = \"payments\" }"), ""),
        (by("{ payments_by_county = \"payments\" }"), "destination `fraud_desk` does not accept `payments_by_county`"),
        (by("{}"), "`by` of `top` says nothing of `payments_by_country`"),
        (by("\"payment\""), "`payments_by_country` has no metric `payment`"),
        (by("\"amount_mean\""), "`amount_mean` of `payments_by_country` is neither a count nor a sum"),
        (format!("{two}top = {{ rows = 0, by = \"payments\" }}"), "`rows` is 0, and must be from 1 to"),
        (two.to_owned(), "`top` is missing"),
        (top.to_owned(), "`top` is no step of `when_short`"),
        ("roll_up = [\"channel\"]".to_owned(), "`roll_up` is no step of `when_short`"),
        ("when_short = [\"roll_up\", \"shed\"]".to_owned(), "`roll_up` is missing"),
        (
            "when_short = [\"top\", \"roll_up\", \"shed\"]".to_owned(),
            "\"widen\", \"roll_up\" and \"top\" may stand before",
        ),
        ("when_short = [\"top\"]".to_owned(), "`[\"shed\"]` or `[\"defer\", \"shed\"]`, in this order"),
        (
            changed(&changed(steps, "\"top\", ", ""), "country", "county"),
            "that destination `fraud_desk` accepts has a key `county`",
        ),
        (changed(&changed(steps, "\"top\", ", ""), "country", "channel"), "`channel` stands twice"),
    ] {
        let (_, said) = checked(&format!("{sound}{more}"));
        assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{more}\n{said}");
    }
    for (more, expected) in [
        ("", ""),
        ("when_short = [\"shed\"]", ""),
        ("when_short = [\"shed\", \"defer\"]", "`[\"shed\"]` or `[\"defer\", \"shed\"]`, in this order"),
        ("when_short = [\"on_change\", \"shed\"]", ""),
        ("when_short = [\"on_change\"]", "\"on_change\", \"widen\", \"roll_up\" and \"top\" may stand before them"),
        ("when_short = [\"widen\", \"on_change\", \"defer\"]", "may stand before them, in this order"),
        ("when_short = [\"widen\", \"shed\"]", "needs \"defer\" behind it"),
        ("when_short = [\"widen\"]", "\"widen\", \"roll_up\" and \"top\" may stand before them"),
        (
            "when_short = [\"widen\", \"defer\"]",
            "destination `fraud_desk` accepts none that adds up the rows of another one",
        ),
        ("when_short = [\"defer\", \"shed\"]", "`max_age` is missing"),
        ("max_age = \"PT1H\"", "`max_age` needs `when_short` with both steps"),
        ("priorities = [\"payments_by_country\"]", "`priorities` say what is shed last, and nothing is shed here"),
        (&changed(both, "country", "county"), "destination `fraud_desk` does not accept `payments_by_county`"),
        ("when_short = [\"shed\"]\npriorities = [\"a\", \"a\"]", "`a` stands twice"),
    ] {
        let (_, said) = checked(&format!("{sound}{more}"));
        assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{more}\n{said}");
    }
    let with_hours = card_fraud_with("hourly", HOURLY);
    let widen = "when_short = [\"widen\", \"defer\"]\npriorities = [\"hourly\"]\n";
    with_hours.write(name, format!("{without}\n[destinations.fraud_desk.budget]\n{sound}{widen}"));
    let output = run(with_hours.root(), &["check", "-c", name]);
    let said = text(&output.stdout);
    let part = "  one of payments_by_country that they do not suffice for is left out: hourly adds up its rows\n  another one that \
                they do not suffice for waits, and those after it wait with it\n  these come first: hourly; then all others\n";
    assert!(said.contains(part), "{said}\n{}", text(&output.stderr));
    assert!(checked("bytes = 4095\nper = \"PT1S\"").1.contains("`bytes` is 4095, and must be at least 4096"));
    assert!(checked("bytes = 4096\nper = \"PT0.5S\"").1.contains("`per` must be at least one second"));
}
