//! A record that belongs elsewhere is redirected, and a producer that follows finds the right gateway.

use std::sync::Arc;

use bailiwick::commands::send::{Input, Options, SharedTotals, epoch_now, publish, snapshot};
use bailiwick::domain::peer::Peer;
use bailiwick::ingress::grpc::client::Dialer;

use crate::common::{self, TestGateway};

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_follows_routes_loses_nothing_and_is_counted_once() {
    let us = TestGateway::start("demo/us.toml").await;
    let endpoint = us.endpoint();
    let eu = TestGateway::start_with("demo/eu.toml", |config| {
        let peers = &mut Arc::make_mut(&mut config.here).peers;
        peers.retain(|peer| peer.id == "us-iad-1");
        for peer in peers {
            *peer = Arc::new(Peer { endpoint: endpoint.clone(), ..Peer::clone(peer) });
        }
    })
    .await;
    let totals = SharedTotals::default();
    let options = Options {
        dialer: Dialer::default(),
        endpoint: eu.endpoint(),
        stream: "payments".into(),
        producer: "till-7".into(),
        follow: true,
        batch: 300,
        complete: true,
        epoch: epoch_now(),
        patience: std::time::Duration::from_secs(60),
    };
    let data = common::root().join("examples/card-fraud/data.csv.gz");
    publish(vec![Input::new(data, None).into()], &options, &totals).await.unwrap();
    let totals = snapshot(&totals);
    assert_eq!(totals.redirected.get("us-iad-1"), Some(&3_676), "US and US-CA");
    assert_eq!(totals.read, totals.accepted + totals.refused_by_reason().values().sum::<u64>());
    assert_eq!(
        totals.refused_by_reason().get("may_not_be_here"),
        Some(&(803 + 325 + 337 + 176 + 2_629 + 241)),
        "GB, CH, BR, CN, IN, RU"
    );
    let countries = |lines: &[serde_json::Value]| {
        lines.iter().map(|line| line["country"].as_str().unwrap().to_owned()).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(countries(&eu.stop().await), ["DE", "ES", "FR", "IE", "NL"].map(String::from).into());
    assert_eq!(countries(&us.stop().await), ["US", "US-CA"].map(String::from).into());
}
