//! Event times that cannot be meant, and limits on what event times and names may cost.

use bailiwick::ingress::proto::ingest::{Hint, PublishRequest, PublishResponse, Reason};
use serde_json::{Value, json};
use tonic_types::StatusExt;

use crate::common::{TestGateway, records};

const GATEWAY: &str = "delivery-eta/gateway.toml";
/// 2013-11-01T00:00:00Z.
const NOVEMBER: i64 = 1_383_264_000_000_000;
const HOUR: i64 = 3_600_000_000;

fn delivery(event_time: impl Into<Value>, country: &str) -> String {
    json!({
        "event_time": event_time.into(), "recipient": "r-1", "country": country, "carrier": "UA", "origin": "EWR",
        "distance": 100.0, "dep_delay": 3, "hour": 12, "weekday": 4
    })
    .to_string()
}

fn request(producer: &str, records: &[String]) -> PublishRequest {
    records::request("deliveries", producer, records::json_events(records))
}

async fn publish(gateway: &TestGateway, request: PublishRequest) -> PublishResponse {
    gateway.publish(request).await.unwrap()
}

fn said(response: &PublishResponse) -> Vec<(Reason, Hint, bool)> {
    response.refusals.iter().map(|refusal| (refusal.reason(), refusal.hint(), refusal.retryable)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_in_another_unit_is_refused_with_the_unit() {
    let gateway = TestGateway::start(GATEWAY).await;
    let time = NOVEMBER + HOUR;
    let records = [time, time / 1_000, time / 1_000_000, time * 1_000, -(1 << 62)].map(|time| delivery(time, "DE"));
    let response = publish(&gateway, request("p", &records)).await;
    assert_eq!(response.accepted, 1);
    assert_eq!(
        said(&response),
        [
            (Reason::EventTimeTooOld, Hint::LooksLikeMilliseconds, false),
            (Reason::EventTimeTooOld, Hint::LooksLikeSeconds, false),
            (Reason::EventTimeInFuture, Hint::LooksLikeNanoseconds, false),
            (Reason::EventTimeTooOld, Hint::Unspecified, false),
        ]
    );
    gateway.stop().await;
}

/// The oldest event time that is not refused as too old, found by records of an unknown country: none is taken in.
async fn probed(gateway: &TestGateway) -> i64 {
    let (mut refused, mut taken) = (NOVEMBER - 1000 * HOUR, NOVEMBER + 1000 * HOUR);
    while taken - refused > 1 {
        let middle = i64::midpoint(refused, taken);
        let response = publish(gateway, request("prober", &[delivery(middle, "ZZ")])).await;
        match response.refusals[0].reason() {
            Reason::EventTimeTooOld => refused = middle,
            Reason::UnknownJurisdiction => taken = middle,
            other => panic!("{other:?}"),
        }
    }
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn probing_shows_which_windows_have_closed_and_no_more_of_other_producers() {
    for newest in [NOVEMBER + 24 * HOUR + HOUR / 4, NOVEMBER + 31 * HOUR + 123_456] {
        let gateway = TestGateway::start(GATEWAY).await;
        let promise = PublishRequest { payload: None, complete_through: i64::MAX, ..request("prober", &[]) };
        publish(&gateway, request("other", &[delivery(newest, "DE")])).await;
        publish(&gateway, promise).await;
        // One hour, `late_max`, before the second of November, which is open.
        assert_eq!(probed(&gateway).await, NOVEMBER + 23 * HOUR);
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_too_far_from_the_open_windows_is_refused_until_they_close() {
    let gateway = TestGateway::start(GATEWAY).await;
    // Windows of a day; 4,096 of them are 11 years.
    let far = NOVEMBER + 4_096 * 24 * HOUR;
    // It has come no further, so no window closes.
    publish(&gateway, request("other", &[delivery(NOVEMBER, "DE")])).await;
    let response = publish(&gateway, request("p", &[delivery(NOVEMBER, "DE"), delivery(far, "DE")])).await;
    assert_eq!(response.accepted, 1);
    assert_eq!(said(&response), [(Reason::TooManyWindows, Hint::Unspecified, true)]);
    let near = far - 24 * HOUR;
    assert_eq!(publish(&gateway, request("p", &[delivery(near, "DE")])).await.accepted, 1);
    let response =
        publish(&gateway, request("p", &[delivery(NOVEMBER - 1, "DE"), delivery(near, "DE"), delivery(far, "DE")]))
            .await;
    assert_eq!(said(&response), [(Reason::TooManyWindows, Hint::Unspecified, true); 2], "now at both ends");
    for producer in ["other", "p"] {
        let promise = PublishRequest { payload: None, complete_through: near + 48 * HOUR, ..request(producer, &[]) };
        publish(&gateway, promise).await;
    }
    assert_eq!(publish(&gateway, request("p", &[delivery(far + 24 * HOUR, "DE")])).await.accepted, 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_producers_than_may_be_active_are_refused_and_the_limit_is_named() {
    let gateway = TestGateway::start_with(GATEWAY, |config| config.limits.producers.per_address = 2).await;
    let record = [delivery(NOVEMBER, "DE")];
    for producer in ["a", "b", "a"] {
        assert_eq!(publish(&gateway, request(producer, &record)).await.accepted, 1);
    }
    let status = gateway.client().await.publish_once(request("c", &record)).await.unwrap_err();
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "REASON_TOO_MANY_PRODUCERS");
    assert!(status.message().contains("limits.producers_per_address_max"), "{}", status.message());
    assert!(status.get_error_details().retry_info().is_some());
    gateway.stop().await;
}
