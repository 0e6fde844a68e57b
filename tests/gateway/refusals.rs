//! Every refusal names its record, its reason and its field, and nothing else is lost by it.

use bailiwick::ingress::proto::ingest::publish_request::Payload;
use bailiwick::ingress::proto::ingest::{Hint, PublishRequest, PublishResponse, Reason};
use serde_json::{Value, json};
use tonic_types::StatusExt;

use crate::common::{TestGateway, records};

fn delivery() -> Value {
    json!({
        "event_time": "2013-11-01T12:00:00Z", "recipient": "r-1", "country": "DE", "carrier": "UA", "origin": "EWR",
        "distance": 100.0, "dep_delay": 3, "hour": 12, "weekday": 4
    })
}

fn with(changes: Value) -> Value {
    let mut record = delivery();
    for (key, value) in changes.as_object().unwrap() {
        record[key] = value.clone();
    }
    record
}

fn request(stream: &str, records: &[String]) -> PublishRequest {
    PublishRequest { want_scores: true, ..records::request(stream, "test", records::json_events(records)) }
}

async fn publish(gateway: &TestGateway, stream: &str, records: &[Value]) -> PublishResponse {
    let records: Vec<String> = records.iter().map(Value::to_string).collect();
    gateway.publish(request(stream, &records)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_record_is_refused_and_the_others_are_taken() {
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    let cases = [
        (with(json!({ "recipient": null })), Reason::MissingField, "recipient"),
        (with(json!({ "distance": "far" })), Reason::WrongType, "distance"),
        (with(json!({ "hour": 1.5 })), Reason::WrongType, "hour"),
        (with(json!({ "recipient": "r".repeat(33) })), Reason::TooLong, "recipient"),
        (with(json!({ "event_time": "2999-01-01T00:00:00Z" })), Reason::EventTimeInFuture, "event_time"),
        (with(json!({ "country": "QQ" })), Reason::UnknownJurisdiction, ""),
        (with(json!({ "country": "ZZ" })), Reason::UnknownJurisdiction, ""),
        (with(json!({ "country": "CN" })), Reason::MayNotBeHere, ""),
        (with(json!({ "country": "RU" })), Reason::MayNotBeHere, ""),
        (with(json!({ "country": "JP" })), Reason::MayNotBeHere, ""),
        (with(json!({ "country": "ZA" })), Reason::NoRegime, ""),
        (with(json!({ "country": "HK" })), Reason::NoRegime, ""),
        (with(json!({ "country": "CN-HK" })), Reason::NoRegime, ""),
        (with(json!({ "country": "US-CA" })), Reason::BelongsElsewhere, ""),
        (json!([1, 2]), Reason::MalformedRecord, ""),
    ];
    for (bad, reason, field) in cases {
        let response = publish(&gateway, "deliveries", &[delivery(), bad, delivery()]).await;
        assert_eq!(response.accepted, 2, "{reason:?}");
        let [refusal] = response.refusals.as_slice() else { panic!("{reason:?}: {:?}", response.refusals) };
        assert_eq!((refusal.index, refusal.reason(), refusal.field.as_str()), (1, reason, field));
        assert_eq!(refusal.route.is_some(), reason == Reason::BelongsElsewhere);
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_without_a_zone_is_refused_with_what_to_add() {
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    let naive = with(json!({ "event_time": "2013-11-01T12:00:00" }));
    let nonsense = with(json!({ "event_time": "yesterday" }));
    let response = publish(&gateway, "deliveries", &[naive, nonsense, delivery()]).await;
    assert_eq!(response.accepted, 1);
    let said: Vec<_> = response.refusals.iter().map(|refusal| (refusal.reason(), refusal.hint())).collect();
    assert_eq!(said, [(Reason::WrongType, Hint::TimeZoneMissing), (Reason::WrongType, Hint::Unspecified)]);
    assert_eq!(response.refusals[0].field, "event_time");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nan_and_infinity_are_refused_where_the_field_does_not_allow_them() {
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    let row = |distance: f64| {
        let mut row = vec![0x08, 0x80, 0xa0, 0xb4, 0xa7, 0xaa, 0xe5, 0xba, 0x02];
        for (tag, text) in [(0x12, "r-1"), (0x1a, "DE"), (0x22, "UA"), (0x2a, "EWR")] {
            row.extend([tag, text.len() as u8]);
            row.extend(text.bytes());
        }
        for (tag, value) in [(0x31, distance), (0x39, 3.0)] {
            row.push(tag);
            row.extend(value.to_le_bytes());
        }
        row.extend([0x40, 12, 0x48, 3]);
        [vec![0x0a, row.len() as u8], row].concat()
    };
    let rows = [row(100.0), row(f64::NAN), row(f64::INFINITY), row(200.0)].concat();
    let request = PublishRequest { payload: Some(Payload::Rows(rows.into())), ..request("deliveries", &[]) };
    let response = gateway.client().await.publish_once(request).await.unwrap().into_inner();
    assert_eq!(response.accepted, 2);
    let refused = response.refusals.iter();
    let refused = refused.map(|refusal| (refusal.index, refusal.count, refusal.reason(), refusal.field.as_str()));
    assert_eq!(refused.collect::<Vec<_>>(), [(1, 2, Reason::NotFinite, "distance")]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undeclared_field_is_dropped_or_refused_by_name_as_declared() {
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    let response = publish(&gateway, "deliveries", &[with(json!({ "shoe_size": 43 }))]).await;
    assert_eq!((response.accepted, response.dropped_values), (1, 1));
    gateway.stop().await;
    let gateway = TestGateway::start("predictive-maintenance/gateway.toml").await;
    let response = publish(&gateway, "readings", &[json!({ "machine": "m-1", "shoe_size": 43 })]).await;
    assert_eq!(
        (response.refusals[0].reason(), response.refusals[0].field.as_str()),
        (Reason::UndeclaredField, "shoe_size")
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_refused_as_a_whole_says_why() {
    let gateway = TestGateway::start_with("delivery-eta/gateway.toml", |config| {
        config.limits.batch_rows_max = 3;
        config.limits.batch_bytes_max = 10_000;
    })
    .await;
    let mut client = gateway.client().await;
    let good = delivery().to_string();
    let malformed = |payload| PublishRequest { payload: Some(payload), ..request("deliveries", &[]) };
    let cases = [
        (request("nonsense", std::slice::from_ref(&good)), "REASON_UNKNOWN_STREAM"),
        (request("deliveries", &vec![good.clone(); 4]), "REASON_TOO_MANY_ROWS"),
        (request("deliveries", &["x".repeat(20_000)]), "REASON_TOO_LARGE"),
        (
            PublishRequest { producer: String::new(), ..request("deliveries", std::slice::from_ref(&good)) },
            "REASON_PRODUCER_MISSING",
        ),
        (malformed(Payload::Rows(vec![0x0a, 0xff].into())), "REASON_MALFORMED"),
        (malformed(Payload::ArrowIpc(vec![1, 2, 3].into())), "REASON_MALFORMED"),
    ];
    for (request, reason) in cases {
        let status = client.publish_once(request).await.unwrap_err();
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, "bailiwick"), "{status}");
    }
    let response = client.publish_once(request("deliveries", &[good])).await.unwrap().into_inner();
    assert_eq!(response.accepted, 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_on_after_a_request_that_was_refused() {
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    let good = delivery().to_string();
    let mut requests = vec![request("nonsense", std::slice::from_ref(&good)), request("deliveries", &[good])];
    for (request, sequence) in requests.iter_mut().zip(1..) {
        request.sequence = sequence;
    }
    let mut responses = gateway.client().await.publish(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let refused = responses.message().await.unwrap().unwrap();
    assert_eq!((refused.sequence, refused.accepted, refused.error.is_some()), (1, 0, true));
    let taken = responses.message().await.unwrap().unwrap();
    assert_eq!((taken.sequence, taken.accepted, taken.error), (2, 1, None));
    assert!(responses.message().await.unwrap().is_none());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_far_behind_the_watermark_is_refused_and_a_late_one_is_counted_in_the_open_window() {
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    let at = |time: &str, person: usize| with(json!({ "event_time": time, "recipient": format!("r-{person}") }));
    let first: Vec<Value> = (0..10).map(|person| at("2013-11-02T00:14:00Z", person)).collect();
    assert_eq!(publish(&gateway, "deliveries", &first).await.accepted, 10);
    // One second past the grace: the window of November 1st closes with nothing in it.
    publish(&gateway, "deliveries", &[at("2013-11-02T00:15:01Z", 10)]).await;
    let late = publish(&gateway, "deliveries", &[at("2013-11-01T23:59:00Z", 11), at("2013-11-01T20:00:00Z", 12)]).await;
    assert_eq!(late.accepted, 1);
    assert_eq!(gateway.telemetry().total(|counts| &counts.late), 1);
    assert_eq!(late.refusals[0].reason(), Reason::EventTimeTooOld);
    let lines = gateway.stop().await;
    let counts: Vec<_> = lines
        .iter()
        .map(|line| (line["window_start"].as_str().unwrap(), line["deliveries"].as_i64().unwrap()))
        .collect();
    assert_eq!(counts, [("2013-11-02T00:00:00Z", 12)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_of_fewer_than_k_contributors_does_not_leave_however_many_records_it_has() {
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    let people = |carrier: &str, count: usize| -> Vec<Value> {
        (0..count)
            .flat_map(|person| vec![with(json!({ "carrier": carrier, "recipient": format!("r-{person}") })); 20])
            .collect()
    };
    assert_eq!(publish(&gateway, "deliveries", &people("UA", 10)).await.accepted, 200);
    assert_eq!(publish(&gateway, "deliveries", &people("DL", 9)).await.accepted, 180);
    let lines = gateway.stop().await;
    let carriers: Vec<_> =
        lines.iter().map(|line| (line["carrier"].as_str().unwrap(), line["deliveries"].as_i64().unwrap())).collect();
    assert_eq!(carriers, [("UA", 200)]);
}
