//! Arrow Flight: what is refused is answered, the call goes on, and what it holds has a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::builder::StringDictionaryBuilder;
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightDescriptor, PutResult};
use futures::{StreamExt, stream};
use serde_json::Value;
use tonic::Code;
use tonic::transport::Endpoint;

use crate::common::TestGateway;

fn deliveries(rows: usize, recipient: ArrayRef) -> RecordBatch {
    let times = TimestampMicrosecondArray::from(vec![1_383_307_200_000_000; rows]);
    deliveries_at(Arc::new(times.with_timezone("UTC")), recipient)
}

fn deliveries_at(times: ArrayRef, recipient: ArrayRef) -> RecordBatch {
    let rows = times.len();
    let text = |text: &str| Arc::new(StringArray::from(vec![text; rows])) as ArrayRef;
    RecordBatch::try_from_iter(vec![
        ("event_time", times),
        ("recipient", recipient),
        ("country", text("DE")),
        ("carrier", text("UA")),
        ("origin", text("EWR")),
        ("distance", Arc::new(Float64Array::from(vec![100.0; rows]))),
        ("dep_delay", Arc::new(Float64Array::from(vec![3.0; rows]))),
        ("hour", Arc::new(Int64Array::from(vec![12; rows]))),
        ("weekday", Arc::new(Int64Array::from(vec![4; rows]))),
    ])
    .unwrap()
}

fn plain(rows: usize) -> RecordBatch {
    deliveries(rows, Arc::new(StringArray::from(vec!["r-1"; rows])))
}

/// Puts batches, and gives the answers and how the call ended.
async fn put(gateway: &TestGateway, path: &[&str], batches: Vec<RecordBatch>) -> (Vec<Value>, Option<tonic::Status>) {
    let channel = Endpoint::from_shared(gateway.endpoint()).unwrap().connect().await.unwrap();
    let descriptor = FlightDescriptor::new_path(path.iter().map(|part| (*part).to_owned()).collect());
    let data = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(descriptor))
        .with_max_flight_data_size(usize::MAX)
        .with_dictionary_handling(DictionaryHandling::Resend)
        .build(stream::iter(batches).map(Ok::<_, FlightError>))
        .map(Result::unwrap);
    let mut client = FlightServiceClient::new(channel);
    let mut results = match client.do_put(data).await {
        Ok(results) => results.into_inner(),
        Err(status) => return (Vec::new(), Some(status)),
    };
    let mut answers = Vec::new();
    loop {
        match results.message().await {
            Ok(Some(PutResult { app_metadata })) => answers.push(serde_json::from_slice(&app_metadata).unwrap()),
            Ok(None) => return (answers, None),
            Err(status) => return (answers, Some(status)),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_refused_is_answered_and_those_after_it_are_taken() {
    let gateway = TestGateway::start_with("delivery-eta/gateway.toml", |config| config.limits.batch_rows_max = 5).await;
    let batches = || vec![plain(4), plain(6), plain(3)];
    let (answers, status) = put(&gateway, &["deliveries", "test", "1"], batches()).await;
    let accepted: Vec<_> = answers.iter().map(|answer| answer["accepted"].as_u64().unwrap()).collect();
    assert_eq!(accepted, [4, 0, 3]);
    let reasons: Vec<_> = answers.iter().map(|answer| answer["error"]["reason"].as_str()).collect();
    assert_eq!(reasons, [None, Some("too_many_rows"), None]);
    let status = status.unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("more than 5 records"), "{}", status.message());
    // The bytes of the accepted batches count as such, and those of the refused one do not.
    let telemetry = gateway.telemetry();
    let bytes = || {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&telemetry.of("deliveries").bytes_in), of(&telemetry.of("deliveries").bytes_accepted))
    };
    let (bytes_in, bytes_accepted) = bytes();
    assert!(0 < bytes_accepted && bytes_accepted < bytes_in, "{bytes_accepted} of {bytes_in}");
    // The numbers went on: the same table again is counted once.
    let (answers, _) = put(&gateway, &["deliveries", "test", "1"], batches()).await;
    assert_eq!(bytes(), (2 * bytes_in, bytes_accepted));
    assert!(answers[0]["duplicate"] == true && answers[2]["duplicate"] == true, "{answers:?}");
    let lines = gateway.stop().await;
    assert_eq!(lines.len(), 0, "one contributor");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_another_schema_ends_the_call_with_what_is_wrong() {
    let gateway = TestGateway::start("predictive-maintenance/gateway.toml").await;
    let (answers, status) = put(&gateway, &["readings", "test"], vec![plain(1)]).await;
    let status = status.unwrap();
    assert_eq!((answers.len(), status.code()), (0, Code::InvalidArgument));
    assert!(status.message().contains("column `recipient` is not declared"), "{}", status.message());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_without_a_zone_end_the_call_with_what_to_add() {
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    let recipient = || Arc::new(StringArray::from(vec!["r-1"; 2])) as ArrayRef;
    let naive = deliveries_at(Arc::new(TimestampMicrosecondArray::from(vec![0; 2])), recipient());
    let (answers, status) = put(&gateway, &["deliveries", "test"], vec![naive]).await;
    let status = status.unwrap();
    assert_eq!((answers.len(), status.code()), (0, Code::InvalidArgument));
    let said = status.message();
    assert!(said.contains("`event_time`") && said.contains("tz='UTC'"), "{said}");
    gateway.stop().await;
}

/// Each batch brings a dictionary of its own; only what is needed now is held, and what one call holds has a bound.
#[tokio::test(flavor = "multi_thread")]
async fn the_dictionaries_of_a_call_have_a_bound() {
    let gateway =
        TestGateway::start_with("delivery-eta/gateway.toml", |config| config.limits.batch_bytes_max = 100_000).await;
    let batch = |words: usize, first: usize| {
        let mut dictionary = StringDictionaryBuilder::<Int32Type>::new();
        (first..first + words).for_each(|word| dictionary.append_value(format!("recipient-{word:012}")));
        deliveries(words, Arc::new(dictionary.finish()))
    };
    let batches = (0..20).map(|at| batch(500, at * 500)).collect();
    let (answers, status) = put(&gateway, &["deliveries", "test"], batches).await;
    assert!(status.is_none(), "{status:?}");
    assert_eq!(answers.iter().map(|answer| answer["accepted"].as_u64().unwrap()).sum::<u64>(), 10_000);
    let (answers, status) = put(&gateway, &["deliveries", "test"], vec![batch(10, 0), batch(10_000, 0)]).await;
    let status = status.unwrap();
    assert_eq!((answers.len(), status.code()), (1, Code::ResourceExhausted), "{status:?}");
    gateway.stop().await;
}
