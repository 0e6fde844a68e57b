//! Numbered requests: sent again, left out, fenced, skipped.

use bailiwick::ingress::proto::ingest::publish_request::Payload;
use bailiwick::ingress::proto::ingest::{PublishRequest, PublishResponse};
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::common::{TestGateway, records};

/// A request with so many deliveries of distinct recipients.
pub(super) fn request(epoch: u64, sequence: u64, count: usize) -> PublishRequest {
    let record = |person: usize| {
        json!({
            "event_time": "2013-11-01T12:00:00Z", "recipient": format!("r-{person}"), "country": "DE", "carrier": "UA",
            "origin": "EWR", "distance": 100.0, "dep_delay": 3, "hour": 12, "weekday": 4
        })
    };
    let payload = records::json_events((0..count).map(record));
    PublishRequest { payload: (count > 0).then_some(payload), ..introduction(epoch, sequence) }
}

pub(super) fn introduction(epoch: u64, sequence: u64) -> PublishRequest {
    PublishRequest { epoch, sequence, want_scores: true, ..records::introduction("deliveries", "van-1") }
}

pub(super) async fn publish(gateway: &TestGateway, request: PublishRequest) -> Result<PublishResponse, Status> {
    gateway.publish(request).await
}

/// The reason and the metadata of a refusal.
pub(super) fn refusal(status: &Status) -> (String, Vec<(String, String)>) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    (info.reason.clone(), info.metadata.clone().into_iter().collect())
}

pub(super) fn counted(lines: &[serde_json::Value]) -> i64 {
    lines.iter().map(|line| line["deliveries"].as_i64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_sent_again_is_answered_alike_and_counted_once() {
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    let first = publish(&gateway, request(3, 1, 10)).await.unwrap();
    assert_eq!((first.accepted, first.duplicate, first.epoch, first.durable_through), (10, false, 3, 1));
    let again = publish(&gateway, request(3, 1, 10)).await.unwrap();
    assert_eq!((again.accepted, again.duplicate, again.epoch, again.durable_through), (10, true, 3, 1));
    assert_eq!(again.outputs, first.outputs, "the scores");
    assert!(!again.outputs.is_empty());
    assert_eq!(counted(&gateway.stop().await), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_number_is_counted_as_often_as_it_is_sent() {
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    for _ in 0..2 {
        assert!(!publish(&gateway, request(0, 0, 10)).await.unwrap().duplicate);
    }
    assert_eq!(counted(&gateway.stop().await), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_refused_with_the_expected_number_and_an_old_epoch_is_fenced() {
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    publish(&gateway, request(3, 1, 10)).await.unwrap();
    let gap = publish(&gateway, request(3, 3, 10)).await.unwrap_err();
    assert_eq!(gap.code(), Code::FailedPrecondition);
    assert_eq!(refusal(&gap), ("REASON_SEQUENCE_GAP".into(), vec![("expected".into(), "2".into())]));
    let begun = publish(&gateway, introduction(4, 0)).await.unwrap();
    assert_eq!((begun.epoch, begun.durable_through), (4, 0));
    let fenced = publish(&gateway, request(3, 2, 10)).await.unwrap_err();
    assert_eq!(refusal(&fenced), ("REASON_EPOCH_FENCED".into(), vec![("epoch".into(), "4".into())]));
    assert!(publish(&gateway, introduction(3, 0)).await.is_err(), "an introduction is fenced too");
    assert_eq!(publish(&gateway, request(4, 1, 10)).await.unwrap().durable_through, 1);
    assert_eq!(counted(&gateway.stop().await), 20);
}

/// Two processes speak under one name, and only one of them names its epochs. The other must not get into its series: what it
/// sends again would count twice, and what the first one sends next would be taken for a repeat.
#[tokio::test(flavor = "multi_thread")]
async fn who_names_no_epoch_is_fenced_by_any_that_begins() {
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    assert_eq!(publish(&gateway, request(0, 1, 10)).await.unwrap().durable_through, 1);
    assert!(publish(&gateway, request(0, 1, 10)).await.unwrap().duplicate);
    assert_eq!(publish(&gateway, introduction(5, 0)).await.unwrap().epoch, 5);
    let fenced = publish(&gateway, request(0, 1, 10)).await.unwrap_err();
    assert_eq!(refusal(&fenced), ("REASON_EPOCH_FENCED".into(), vec![("epoch".into(), "5".into())]));
    let its_own = publish(&gateway, request(5, 1, 10)).await.unwrap();
    assert_eq!((its_own.accepted, its_own.duplicate, its_own.durable_through), (10, false, 1));
    assert_eq!(counted(&gateway.stop().await), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_refused_as_a_whole_has_spent_its_number() {
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    let malformed = PublishRequest { payload: Some(Payload::ArrowIpc(vec![1, 2, 3].into())), ..introduction(1, 1) };
    let refused = publish(&gateway, malformed).await.unwrap_err();
    assert_eq!(refusal(&refused).0, "REASON_MALFORMED");
    assert_eq!(publish(&gateway, request(1, 2, 10)).await.unwrap().durable_through, 2);
    assert_eq!(counted(&gateway.stop().await), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_may_be_left_out_only_when_the_producer_says_so() {
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    assert!(publish(&gateway, request(1, 41, 10)).await.is_err());
    assert_eq!(publish(&gateway, introduction(1, 40)).await.unwrap().durable_through, 40);
    assert_eq!(publish(&gateway, request(1, 41, 10)).await.unwrap().durable_through, 41);
    assert_eq!(counted(&gateway.stop().await), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pipelined_after_a_gap_is_refused_too_and_nothing_is_acked_out_of_order() {
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    let requests = [request(1, 1, 5), request(1, 3, 5), request(1, 4, 5), request(1, 2, 5), request(1, 3, 5)];
    let mut responses = gateway.client().await.publish(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let mut answers = Vec::new();
    while let Some(response) = responses.message().await.unwrap() {
        answers.push((response.sequence, response.error.is_none(), response.durable_through));
    }
    assert_eq!(answers, [(1, true, 1), (3, false, 0), (4, false, 0), (2, true, 2), (3, true, 3)]);
    gateway.stop().await;
}
