//! `exactly_once`, and what it is without it, with a real Kafka: gateways that crash, are replaced and come back,
//! brokers that crash, and transactions of which nobody knows how they ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use super::broker::Broker;
use super::budgets::read;
use super::process::{Deployment, Gateway, Held, number};
use super::proxy::{Fault, Proxy};
use crate::common::ledger::{entries, of_kind};
use crate::common::{self, PATIENCE, changed, until};

/// What the gateway says when it knows how far the destination is.
const GOING_ON: &str = "going on in kafka";
const EXACTLY_ONCE: &str = "exactly_once = true";

/// Every release is in the topic; once, unless the broker forgot how a transaction ended.
fn each_exactly_once(broker: &Broker, topic: &str, expected: &BTreeSet<String>) {
    let ids = broker.ids(topic);
    let distinct: BTreeSet<String> = ids.iter().cloned().collect();
    assert!(expected.len() > 100, "{} releases", expected.len());
    assert_eq!(expected.difference(&distinct).count(), 0, "releases are lost");
    assert_eq!(distinct.difference(expected).count(), 0, "releases that the files do not have");
    assert!(ids.len() == distinct.len() || broker.has_lost_a_mark(), "releases came twice");
}

/// The position that the broker had when the gateway went on, and that of the cursor.
fn position_and_cursor(gateway: &Gateway) -> (u64, u64) {
    let line = gateway.wait_for(GOING_ON, 1);
    (number(&line, "position"), number(&line, "cursor"))
}

#[test]
fn a_gateway_that_crashes_delivers_each_release_once() {
    let Some(broker) = Broker::shared() else { return };
    let topic = format!("crashes-{}", std::process::id());
    broker.create_topics(&topic);
    let deployment = Deployment::new(&broker.address, &topic, EXACTLY_ONCE);
    let mut gateway = deployment.start();
    let mut sending = deployment.send_slowly();
    let mut old = None;
    gateway.wait_for(GOING_ON, 1);
    for deliveries in [1, 0, 2, 3, 1] {
        let mut cursor = deployment.cursor_now();
        for _ in 0..deliveries {
            cursor = deployment.cursor_after(cursor);
        }
        gateway.kill();
        old = old.or(cursor);
        // What is sent meanwhile would leave in one transaction.
        let _held = Held::of(&sending);
        gateway = deployment.start();
        gateway.wait_for(GOING_ON, 1);
    }
    assert!(sending.wait().unwrap().success());
    deployment.cursor_after(old.clone());
    gateway.kill();
    fs::write(deployment.cursor(), old.as_ref().unwrap()).unwrap();
    gateway = deployment.start();
    let (position, cursor) = position_and_cursor(&gateway);
    assert!(cursor < position, "the old cursor {cursor} is not behind the broker's {position}");
    deployment.cursor_after(old);
    gateway.kill();
    fs::remove_file(deployment.cursor()).unwrap();
    gateway = deployment.start();
    let (position, cursor) = position_and_cursor(&gateway);
    assert_eq!((cursor, position > 0), (0, true), "the cursor is lost, and the broker knows better");
    let log = gateway.stop();
    assert!(!log.iter().any(|line| line.contains("not that of this outbox")), "{}", log.join("\n"));
    let released = deployment.released();
    each_exactly_once(&broker, &topic, &released);
    // A gateway that never crashed releases the same. It lost its journal and counts from one again: what stands at the
    // very position that it had is known to the broker and does not come again, so the number says nothing.
    deployment.forget();
    deliver(&deployment);
    let ids: BTreeSet<String> = broker.ids(&topic).into_iter().collect();
    assert_eq!(ids, released, "the same records make the same releases");
}

/// Sends everything, and stops the gateway when it is delivered.
/// A broker that crashes can leave it open, and its coordinator then knows nothing of it.
#[test]
fn a_transaction_that_nobody_ends_is_ended_by_the_next_producer() {
    let Some(broker) = Broker::own(vec!["transaction.partition.verification.enable=false".to_owned()]) else { return };
    let topic = "open";
    broker.create_topics(topic);
    let hang = Command::new(common::python())
        .arg(common::root().join("tests/python/hang.py"))
        .args([&broker.address, "open-progress", "bailiwick/open/fraud_desk"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&hang.stdout), "0 1\n", "{}", String::from_utf8_lossy(&hang.stderr));
    let settings = format!("{EXACTLY_ONCE}\nprogress_topic = \"open-progress\"");
    let deployment = Deployment::new(&broker.address, topic, &settings);
    deliver(&deployment);
    each_exactly_once(&broker, topic, &deployment.released());
}

fn deliver(deployment: &Deployment) {
    let gateway = deployment.start();
    gateway.wait_for(GOING_ON, 1);
    assert!(deployment.send().wait().unwrap().success());
    gateway.stop();
}

#[test]
fn other_releases_of_a_new_journal_do_not_pass_for_those_that_had_their_positions() {
    let Some(broker) = Broker::shared() else { return };
    let topic = format!("forgotten-{}", std::process::id());
    broker.create_topics(&topic);
    let deployment = Deployment::new(&broker.address, &topic, EXACTLY_ONCE);
    deliver(&deployment);
    let before = deployment.released();
    each_exactly_once(&broker, &topic, &before);
    // It counts from one again. Another policy gives every release another id.
    deployment.forget();
    deployment.edit("policies/policy.toml", "min_contributors = 5", "min_contributors = 6");
    deliver(&deployment);
    let released = deployment.released();
    assert!(released.len() > before.len() + 100, "{} and then {}", before.len(), released.len());
    each_exactly_once(&broker, &topic, &released);
}

#[test]
fn a_gateway_that_was_replaced_comes_back_and_doubles_nothing() {
    let proxy = Proxy::open();
    let advertised = format!("advertised.listeners=PLAINTEXT://{}", proxy.address);
    let Some(broker) = Broker::own(vec![advertised]) else { return };
    proxy.pass_to(&broker.address);
    broker.create_topics("zombie");
    let deployment = Deployment::new(&proxy.address, "zombie", EXACTLY_ONCE);
    let zombie = deployment.start();
    zombie.wait_for(GOING_ON, 1);
    // So slow that it has releases left when it is stopped, also where it takes long to send them.
    proxy.slow(RATE / 20);
    assert!(deployment.send().wait().unwrap().success());
    zombie.signal("STOP");
    let copy = deployment.copy();
    proxy.slow(0);
    let successor = copy.start();
    // It has its epoch by then. Its cursor would not tell: it passes entries without releases before that.
    successor.wait_for(GOING_ON, 1);
    // Both deliver now, and fence each other.
    zombie.signal("CONT");
    zombie.wait_for("fenced", 1);
    zombie.wait_for(GOING_ON, 2);
    successor.stop();
    zombie.stop();
    each_exactly_once(&broker, "zombie", &deployment.released());
}

#[test]
fn an_end_of_a_transaction_that_nobody_knows_of_doubles_and_loses_nothing() {
    let proxy = Proxy::open();
    let advertised = format!("advertised.listeners=PLAINTEXT://{}", proxy.address);
    let Some(broker) = Broker::own(vec![advertised]) else { return };
    proxy.pass_to(&broker.address);
    let topic = "faults";
    broker.create_topics(topic);
    let deployment = Deployment::new(&proxy.address, topic, EXACTLY_ONCE);
    let gateway = deployment.start();
    gateway.wait_for(GOING_ON, 1);
    let (answer, request) = (Fault::AnswerLost, Fault::RequestLost);
    let faults = [answer, request, answer, answer, Fault::Silence, request, answer];
    proxy.inject(2, &faults);
    let mut sending = deployment.send_slowly();
    // While one transaction waits for its answer: the broker comes back with everything that it had.
    until(|| Some(()).filter(|()| proxy.left() <= 3));
    broker.control("kill");
    // What is sent meanwhile would leave in few transactions afterwards, with too few ends for the faults.
    let held = Held::of(&sending);
    let before = gateway.lines(GOING_ON).len();
    broker.control("start");
    gateway.wait_for(GOING_ON, before + 1);
    drop(held);
    assert!(sending.wait().unwrap().success());
    gateway.stop();
    assert_eq!(proxy.left(), 0, "faults that did not happen");
    each_exactly_once(&broker, topic, &deployment.released());
}

/// A release takes some 5 KB as a whole, and comes every two seconds or so.
const FEW_BYTES: &str = "exactly_once = true

[destinations.fraud_desk.budget]
bytes      = 8192
per        = \"PT8S\"
when_short = [\"on_change\", \"defer\"]";

/// Windows of four minutes. From one to the next, little changes but which rows there are.
fn with_few_changes(deployment: Deployment) -> Deployment {
    let deployment = deployment.with_large_windows();
    let policy = changed(&deployment.read("policies/policy.toml"), "size = \"PT10M\"", "size = \"PT4M\"");
    let policy = changed(&policy, "min_contributors = 10", "min_contributors = 5");
    let elapsed = "elapsed      = { type = \"float64\", class = \"financial\"";
    let policy = changed(&policy, elapsed, &format!("{elapsed}, range = [0, 200000]"));
    let (before, metrics) = policy.split_once("{ name = \"payments\", fn = \"count\" },").unwrap();
    let (_, behind) = metrics.split_once("\n]").unwrap();
    let few = "{ name = \"elapsed\", fn = \"mean\", field = \"elapsed\", digits = 1 },\n]";
    deployment.write("policies/policy.toml", format!("{before}{few}{behind}"));
    deployment
}

/// By country and channel.
type Table = BTreeMap<String, Value>;

fn keys(cell: &Value) -> String {
    format!("{} {}", cell["country"], cell["channel"])
}

/// The table of each window, by a receiver that follows what a topic tells and has nothing but that.
fn followed(broker: &Broker, topic: &str) -> BTreeMap<String, Table> {
    let (mut release, mut table, mut told) = (String::new(), Table::new(), BTreeMap::new());
    for (id, degraded, cells) in read(broker, topic) {
        match degraded.as_deref() {
            None => table.clear(),
            Some("on_change") => assert!(cells.iter().all(|cell| cell["since"] == *release), "{release}: {cells:?}"),
            Some(other) => panic!("{other}"),
        }
        for cell in &cells {
            match cell["change"].as_str() {
                Some("gone") => assert!(table.remove(&keys(cell)).is_some() && cell["elapsed"].is_null()),
                _ => drop(table.insert(keys(cell), cell["elapsed"].clone())),
            }
        }
        let window = cells[0]["window_start"].as_str().unwrap().to_owned();
        assert!(told.insert(window, table.clone()).is_none(), "a window came twice");
        release = id;
    }
    told
}

/// Where in the outbox those stand that left, or were about to, as what had changed.
fn changes(deployment: &Deployment) -> Vec<u64> {
    let said = entries(&deployment.path("journal/ledger"));
    let is_one = |intent: &&&Value| intent["degraded"]["steps"][0] == "on_change";
    of_kind(&said, "intent").iter().filter(is_one).map(|intent| intent["outbox"].as_u64().unwrap()).collect()
}

#[test]
fn who_follows_what_has_changed_has_each_window_whole_and_once_whatever_is_killed_around_a_commit() {
    let proxy = Proxy::open();
    let advertised = format!("advertised.listeners=PLAINTEXT://{}", proxy.address);
    let Some(broker) = Broker::own(vec![advertised]) else { return };
    proxy.pass_to(&broker.address);
    let topic = "followed";
    broker.create_topics(topic);
    let deployment = with_few_changes(Deployment::new(&proxy.address, topic, FEW_BYTES));
    let mut gateway = deployment.start();
    gateway.wait_for(GOING_ON, 1);
    let mut sending = deployment.send_slowly();
    // How often it was killed when the broker had committed one and had not said so, and when it did not know of it yet.
    let (mut committed, mut open) = (0, 0);
    while committed < 2 || open < 2 {
        // Bytes are short: the next one leaves so, too, most likely.
        let before = changes(&deployment).len();
        until(|| (changes(&deployment).len() > before).then_some(()));
        let (found, fault) = match committed <= open {
            true => (&mut committed, Fault::AnswerLost),
            false => (&mut open, Fault::RequestLost),
        };
        // What it tries again until it is killed meets the same.
        proxy.inject(1, &[fault; 99]);
        until(|| (proxy.left() < 99).then_some(()));
        gateway.kill();
        proxy.inject(1, &[]);
        let changes = changes(&deployment);
        gateway = deployment.start();
        let (position, cursor) = position_and_cursor(&gateway);
        let is_one = |at: &u64| match fault {
            Fault::AnswerLost => cursor < *at && *at <= position,
            _ => position.max(cursor) < *at,
        };
        *found += u32::from(changes.iter().any(is_one));
    }
    assert!(sending.wait().unwrap().success());
    // With enough bytes a stop waits for all.
    gateway.kill();
    deployment.change("bytes      = 8192", "bytes      = 1000000");
    gateway = deployment.start();
    gateway.wait_for(GOING_ON, 1);
    gateway.stop();
    let mut whole: BTreeMap<String, Table> = BTreeMap::new();
    for cell in deployment.cells().into_values().flatten() {
        let window = cell["window_start"].as_str().unwrap().to_owned();
        whole.entry(window).or_default().insert(keys(&cell), cell["elapsed"].clone());
    }
    assert!(whole.len() > 20, "{}", whole.len());
    assert_eq!(followed(&broker, topic), whole);
}

#[test]
fn an_end_of_a_transaction_that_comes_late_ends_no_other() {
    let proxy = Proxy::open();
    let advertised = format!("advertised.listeners=PLAINTEXT://{}", proxy.address);
    let Some(broker) = Broker::own(vec![advertised]) else { return };
    proxy.pass_to(&broker.address);
    let topic = "late";
    broker.create_topics(topic);
    let deployment = Deployment::new(&proxy.address, topic, EXACTLY_ONCE);
    let gateway = deployment.start();
    gateway.wait_for(GOING_ON, 1);
    proxy.inject(2, &[Fault::Late; 4]);
    assert!(deployment.send_slowly().wait().unwrap().success());
    let log = gateway.stop();
    assert_eq!(proxy.left(), 0, "faults that did not happen");
    let noticed = log.iter().filter(|line| line.contains("the end of a transaction was sent again")).count();
    each_exactly_once(&broker, topic, &deployment.released());
    assert!(noticed >= 4, "{noticed} were noticed:\n{}", log.join("\n"));
}

#[test]
fn a_restart_is_not_held_up_by_others_that_go_on_writing_progress_to_the_same_topic() {
    let Some(broker) = Broker::shared() else { return };
    let topic = format!("shared-{}", std::process::id());
    broker.create_topics(&topic);
    let progress = format!("{topic}-progress");
    let deployment =
        Deployment::new(&broker.address, &topic, &format!("exactly_once = true\nprogress_topic = \"{progress}\""));
    let gateway = deployment.start();
    gateway.wait_for(GOING_ON, 1);
    assert!(deployment.send().wait().unwrap().success());
    gateway.stop();
    fs::remove_file(deployment.cursor()).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| write_progress_until(&stop, &broker.address, &progress));
        let _stop = StopWhenDropped(&stop);
        let gateway = deployment.start();
        let (position, _) = position_and_cursor(&gateway);
        assert!(position > 0, "what it wrote before is read");
        gateway.stop();
    });
    each_exactly_once(&broker, &topic, &deployment.released());
}

/// Another gateway that commits again and again.
fn write_progress_until(stop: &AtomicBool, brokers: &str, topic: &str) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("transactional.id", "bailiwick/another/gateway")
        .set("linger.ms", "0")
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    while !stop.load(Ordering::SeqCst) {
        producer.begin_transaction().unwrap();
        producer.send(BaseRecord::to(topic).key("another/gateway#1").payload("{}").partition(0)).unwrap();
        producer.commit_transaction(PATIENCE).unwrap();
    }
}

/// So that a failed test does not wait for ever.
struct StopWhenDropped<'s>(&'s AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Bytes per second of the slow line.
const RATE: u64 = 6_000;

#[test]
fn on_a_slow_line_what_one_closing_releases_is_delivered() {
    let proxy = Proxy::open();
    let advertised = format!("advertised.listeners=PLAINTEXT://{}", proxy.address);
    let Some(broker) = Broker::own(vec![advertised]) else { return };
    proxy.pass_to(&broker.address);
    broker.create_topics("slow");
    // All windows in one closing: more than such a line carries in 20 s.
    let settings = "exactly_once = true\n[destinations.fraud_desk.options]\n\"compression.type\" = \"none\"";
    let deployment = Deployment::new(&proxy.address, "slow", settings);
    deployment.change("stop_within = \"PT60S\"", "stop_within = \"PT200S\"");
    let gateway = deployment.start();
    gateway.wait_for(GOING_ON, 1);
    proxy.slow(RATE);
    assert!(deployment.send_in_batches_of(10_000).wait().unwrap().success());
    let log = gateway.stop();
    let expected = deployment.released();
    let bytes: usize = deployment.cells().values().flatten().map(|cell| cell.to_string().len()).sum();
    assert!(bytes as u64 > 20 * RATE, "{bytes} bytes are carried in less than 20 s");
    each_exactly_once(&broker, "slow", &expected);
    assert!(!log.iter().any(|line| line.contains("not done within")), "{}", log.join("\n"));
}

#[test]
fn without_exactly_once_a_release_may_come_again_under_its_id() {
    let Some(broker) = Broker::shared() else { return };
    let topic = format!("at-least-once-{}", std::process::id());
    broker.create_topics(&topic);
    let deployment = Deployment::new(&broker.address, &topic, "");
    let gateway = deployment.start();
    assert!(deployment.send().wait().unwrap().success());
    gateway.stop();
    let once = deployment.released();
    each_exactly_once(&broker, &topic, &once);
    fs::remove_file(deployment.cursor()).unwrap();
    deployment.start().stop();
    let ids = broker.ids(&topic);
    assert!(ids.len() > once.len(), "nothing was sent again");
    assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), once);
}

#[test]
fn a_missing_progress_topic_is_named_until_it_is_there() {
    let Some(broker) = Broker::shared() else { return };
    let (topic, other) = (format!("missing-{}", std::process::id()), format!("late-{}", std::process::id()));
    broker.create_topics(&topic);
    let settings = format!("exactly_once = true\nprogress_topic = \"{other}-progress\"");
    let deployment = Deployment::new(&broker.address, &topic, &settings);
    let gateway = deployment.start();
    let line = gateway.wait_for("there is no topic", 1);
    assert!(line.contains(&format!("`{other}-progress`")) && line.contains("cleanup.policy=compact"), "{line}");
    assert!(deployment.send().wait().unwrap().success());
    broker.create_topics(&other);
    gateway.stop();
    each_exactly_once(&broker, &topic, &deployment.released());
}
