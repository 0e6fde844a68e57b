//! What stays: windows, producers' names, entries of the journal.

use std::collections::BTreeMap;

use bailiwick::ingress::proto::ingest::PublishRequest;

use super::gateway::{Limited, beside_a_good_producer, publish, reason_of};
use super::payloads::{empty_request, json_events, now, record, record_at, request};

const MINUTE: i64 = 60_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn records_in_windows_far_apart() {
    let gateway = Limited::start("");
    // Before anybody else: the stream has no watermark that would refuse what is too old.
    let attack = async {
        let mut refused = 0;
        for block in 0..40_i64 {
            let at = |record: i64| now() - (block * 250 + record) * MINUTE;
            let records: Vec<_> = (0..250).map(|record| record_at(&format!("p-{record}"), at(record))).collect();
            match publish(&gateway, request(&format!("far-{block}"), json_events(&records))).await {
                Ok(response) => refused += response.refusals.len(),
                Err(_) => refused += 250,
            }
        }
        refused
    };
    let refused = attack.await;
    assert!(refused > 0, "10,000 windows are open");
    beside_a_good_producer("records in 10,000 windows", &gateway, async {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contributors_in_one_window_without_end() {
    let gateway = Limited::start("\n[limits]\nopen_windows_bytes_max = 4194304\n");
    // A cell keeps no more of them apart than any rule asks for.
    for block in 0..100 {
        let people: Vec<_> = (0..1_000).map(|person| record(&format!("p-{block}-{person}"))).collect();
        let response = publish(&gateway, request("crowd", json_events(&people))).await.unwrap();
        assert_eq!(response.accepted, 1_000);
    }
    // So many at once could add more than all open windows may hold, whatever closes.
    let people: Vec<_> = (0..20_000).map(|person| record(&format!("p-{person}"))).collect();
    let refused = publish(&gateway, request("crowd", json_events(&people))).await.unwrap_err();
    assert_eq!(refused, "REASON_TOO_LARGE");
    assert!(gateway.log().contains("send fewer in a request"), "{}", gateway.log());
    gateway.is_within_its_limit();
}

#[tokio::test(flavor = "multi_thread")]
async fn contributors_in_many_windows() {
    let gateway = Limited::start("\n[limits]\nopen_windows_bytes_max = 2097152\n");
    let begin = now();
    // Nothing closes before this producer has come on.
    publish(&gateway, request("slow", json_events(&[record_at("p", begin - 400 * MINUTE)]))).await.unwrap();
    let block = |block: u64| {
        let at = begin - i64::try_from(block).unwrap() * MINUTE;
        let people: Vec<_> = (0..900).map(|person| record_at(&format!("p-{block}-{person}"), at)).collect();
        PublishRequest { epoch: 1, sequence: block + 1, ..request("crowd", json_events(&people)) }
    };
    let mut taken = 0;
    let refused = loop {
        // Who is silent for half a minute holds nothing back any more.
        publish(&gateway, empty_request("slow")).await.unwrap();
        match publish(&gateway, block(taken)).await {
            Ok(response) => assert_eq!(response.accepted, 900),
            Err(reason) => break reason,
        }
        taken += 1;
        assert!(taken < 400, "360,000 contributors fit into 2 MiB");
    };
    assert_eq!(refused, "REASON_WINDOWS_FULL");
    // 71 bytes for a contributor who adds to a sum, and what the batch that does not fit may take.
    assert!(taken > 10, "only {taken} windows of 900 contributors fit into 2 MiB");
    // The number was not spent: the same request is taken in when the windows have closed, as the producer promises.
    let promise = PublishRequest { complete_through: now() + 30 * MINUTE, ..empty_request("crowd") };
    let fits = async {
        loop {
            publish(&gateway, PublishRequest { producer: "slow".into(), ..promise.clone() }).await.unwrap();
            publish(&gateway, promise.clone()).await.unwrap();
            match publish(&gateway, block(taken)).await {
                Ok(response) => break response,
                Err(reason) => assert_eq!(reason, "REASON_WINDOWS_FULL"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let response = tokio::time::timeout(crate::common::PATIENCE, fits).await.expect("windows close");
    assert!(!response.duplicate && response.error.is_none());
    gateway.is_within_its_limit();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_producers_that_are_invented() {
    let gateway = Limited::start("");
    let mut client = gateway.client().await;
    let attack = async {
        let requests = (0..100_000).map(|number| empty_request(&format!("{number:0>200}")));
        outcomes(&mut client, requests).await
    };
    let outcomes = beside_a_good_producer("100,000 invented names", &gateway, attack).await;
    eprintln!("{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_records_while_the_journal_is_full() {
    // No checkpoint comes, so nothing of the journal is let go.
    let gateway = Limited::start(
        "
[limits]
batch_bytes_max = 65536

[journal]
segment_bytes = 1048576
quota_bytes = 4194304
checkpoint_bytes = 1000000000
checkpoint_every = \"PT1H\"
",
    );
    let full = request("filler", json_events((0..100).map(|person| record(&format!("p-{person}")))));
    let refused = loop {
        if let Err(reason) = publish(&gateway, full.clone()).await {
            break reason;
        }
    };
    assert_eq!(refused, "REASON_OVERLOADED");
    let before = gateway.peak();
    let mut client = gateway.client().await;
    for attempt in 0..3 {
        let requests = (0..50_000).map(move |number| PublishRequest {
            // Numbered and not; with a promise and without one.
            sequence: number % 2 * (attempt * 50_000 + number + 1),
            ..empty_request(if number % 2 == 0 { "one" } else { "two" })
        });
        let outcomes = outcomes(&mut client, requests).await;
        assert!(outcomes["REASON_OVERLOADED"] > 40_000, "{outcomes:?}");
    }
    gateway.is_within_its_limit();
    let grown = gateway.peak().saturating_sub(before);
    eprintln!("150,000 requests without records on a full journal: {} KiB more", grown >> 10);
    assert!(grown < 64 << 20, "{} MiB", grown >> 20);
}

type Client = bailiwick::ingress::proto::ingest::ingest_client::IngestClient<tonic::transport::Channel>;

/// Sends requests on one call. How many were taken, and how many refused for what.
async fn outcomes(
    client: &mut Client,
    requests: impl Iterator<Item = PublishRequest> + Send + 'static,
) -> BTreeMap<String, usize> {
    let mut responses = client.publish(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let mut outcomes = BTreeMap::new();
    while let Some(response) = responses.message().await.unwrap() {
        let outcome = response.error.as_ref().map_or_else(|| "taken".to_owned(), reason_of);
        *outcomes.entry(outcome).or_default() += 1;
    }
    outcomes
}
