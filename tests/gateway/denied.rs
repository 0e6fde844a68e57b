//! A release that no policy lets go to its Kafka destination any more when it is its turn.

use std::collections::BTreeSet;
use std::time::Duration;

use tempfile::TempDir;

use super::broker::Broker;
use super::budgets::{DESTINATION, configured, read, send, told};
use crate::common::folder::{Folder, HOURLY, card_fraud_with};
use crate::common::gateway::start;
use crate::common::ledger::{entries, of_kind};

const POLICY: &str = "examples/card-fraud/policies/policy.toml";
const BOTH: &str = "accepts = [\"payments_by_country\", \"hourly\"]";

/// Which datasets a topic has.
fn datasets(broker: &Broker, topic: &str) -> BTreeSet<String> {
    let cells = read(broker, topic).into_iter().flat_map(|(.., cells)| cells);
    cells.map(|cell| cell["dataset"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn releases_of_a_dataset_that_may_not_go_there_any_more_wait_or_are_given_up() {
    let Some(broker) = Broker::own(Vec::new()) else { return };
    let folder: Folder = card_fraud_with("hourly", HOURLY);
    let name = folder.path("examples/card-fraud/gateway.toml").display().to_string();
    let (topic, journal) = ("denied", TempDir::new().unwrap());
    broker.create_topics(topic);
    broker.control("kill");
    let mut away = configured(&name, &broker, topic, &journal);
    away.stop_within = Duration::from_secs(1);
    let first = start(away).await.unwrap();
    send(&first).await;
    tokio::task::block_in_place(|| told(&first, |told| told["waiting_releases"].as_u64() >= Some(14)));
    first.stop().await;
    broker.control("start");
    // Each closing has a release of a dataset that may not go there any more: it waits, and what closed with it.
    folder.edit(POLICY, BOTH, "accepts = [\"hourly\"]");
    let other =
        "[destinations.nobody]\ncountry = \"IE\"\naccepts = [\"payments_by_country\"]\n\n[destinations.fraud_desk]";
    folder.edit(POLICY, "[destinations.fraud_desk]", other);
    folder
        .add("examples/card-fraud/gateway.toml", "\n[destinations.nobody]\nkind = \"file\"\ndirectory = \"nobody\"\n");
    let mut waits = configured(&name, &broker, topic, &journal);
    waits.stop_within = Duration::from_secs(1);
    let second = start(waits).await.unwrap();
    let why = "a release of `payments_by_country` waits, and what comes after it";
    tokio::task::block_in_place(|| told(&second, |told| told["error"].as_str().is_some_and(|said| said.contains(why))));
    assert!(!second.stop().await.left.is_empty());
    assert_eq!(datasets(&broker, topic), BTreeSet::new());
    let mut gives_up = configured(&name, &broker, topic, &journal);
    gives_up.sheds_denied.insert(DESTINATION.parse().unwrap());
    let third = start(gives_up).await.unwrap();
    let told = tokio::task::block_in_place(|| told(&third, |told| told["waiting_releases"] == 0));
    assert_eq!((third.stop().await.left, &told["denied_releases"]), (Vec::new(), &14.into()));
    let said = entries(&journal.path().join("ledger"));
    let denied = of_kind(&said, "denied");
    let of_hours = denied.iter().filter(|denied| denied["dataset"] == "hourly").count();
    assert_eq!((denied.len(), of_hours, of_kind(&said, "intent").len()), (14, 2, 0), "each once");
    // It stays so when a policy lets them go there again.
    folder.edit(POLICY, "accepts = [\"hourly\"]", BOTH);
    let fourth = start(configured(&name, &broker, topic, &journal)).await.unwrap();
    assert_eq!(fourth.stop().await.left, []);
    assert_eq!(datasets(&broker, topic), BTreeSet::new());
}
