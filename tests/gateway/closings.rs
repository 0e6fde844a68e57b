//! Windows that a producer has held open for long, and that close at once.

use std::collections::BTreeSet;
use std::time::Duration;

use bailiwick::ingress::proto::ingest::PublishRequest;
use tempfile::TempDir;
use tokio::task::block_in_place;

use crate::common::gateway::endpoint;
use crate::common::ledger::{entries, of_kind};
use crate::common::records::{introduction, publish};
use crate::common::until;

use super::broker::Broker;
use super::budgets::{WINDOWS, budget, gateway, send, told};

/// When the first payment of the example was made, and a time after the last one; in microseconds since the Unix epoch.
const BEGIN: i64 = 1_378_141_200_000_000;
const END: i64 = BEGIN + 24 * 3_600_000_000;

/// The bucket holds two windows, and all of them come to several times as much. None of them is smaller by what closes with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_suffices_for_each_window_lets_all_go_that_close_at_once() {
    let Some(broker) = Broker::own(Vec::new()) else { return };
    let (topic, journal) = ("at-once", TempDir::new().unwrap());
    broker.create_topics(topic);
    let gateway = gateway(&broker, topic, &journal, budget(20_000, Duration::from_secs(1), None)).await;
    let holder = |complete_through| PublishRequest { complete_through, ..introduction("payments", "holder") };
    publish(&endpoint(&gateway), holder(BEGIN)).await.unwrap();
    send(&gateway).await;
    assert_eq!(gateway.telemetry().bytes_out(), 0, "the holder may still send records of the first window");
    publish(&endpoint(&gateway), holder(END)).await.unwrap();
    let ledger = journal.path().join("ledger");
    // Entries of the ledger can say of several releases that they were sent.
    let all_are_about_to = || (of_kind(&entries(&ledger), "intent").len() as u64 == WINDOWS).then_some(());
    block_in_place(|| {
        until(all_are_about_to);
        told(&gateway, |told| told["waiting_releases"] == 0)
    });
    assert_eq!(gateway.stop().await.left, []);
    let ids = broker.ids(topic);
    assert_eq!((ids.len() as u64, ids.iter().collect::<BTreeSet<_>>().len() as u64), (WINDOWS, WINDOWS));
}
