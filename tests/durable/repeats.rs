//! A repeated number is answered as it was answered the first time: at once, after a stop, after a crash.

use std::path::Path;
use std::time::Duration;

use bailiwick::app::App;
use bailiwick::config::{Config, OnStop};
use bailiwick::domain::outcomes::REMEMBERED;
use bailiwick::ingress::grpc::client;
use bailiwick::ingress::proto::ingest::publish_request::Payload;
use bailiwick::ingress::proto::ingest::{PublishRequest, PublishResponse, Refusal};
use prost::Message;
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic_types::StatusExt;

use crate::common::folder::Folder;
use crate::common::{self, gateway, records};

const ROWS_MAX: usize = 20;

/// What a producer is told of a request.
#[derive(Debug, Clone, PartialEq)]
enum Told {
    Taken { accepted: u32, dropped: u32, refusals: Vec<Refusal> },
    Refused { reason: String, field: String },
}

struct Gateway {
    app: App,
}

impl Gateway {
    async fn start(journal: &Path, released: &Path, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = common::example("delivery-eta/gateway.toml", released);
        config.journal.directory = journal.to_owned();
        config.on_stop = OnStop::Keep;
        // None is made while the journal is copied.
        config.journal.checkpoints.every = Duration::from_secs(3_600);
        config.limits.batch_rows_max = ROWS_MAX;
        change(&mut config);
        Self { app: gateway::start(config).await.unwrap() }
    }

    /// The answer, and whether it says that the number was taken before.
    async fn publish(&self, request: PublishRequest) -> (Told, bool) {
        let response = records::publish_in_a_call(&gateway::endpoint(&self.app), request).await;
        let duplicate = response.duplicate;
        (told(response), duplicate)
    }
}

fn told(response: PublishResponse) -> Told {
    let Some(error) = response.error else {
        let PublishResponse { accepted, dropped_values: dropped, refusals, .. } = response;
        return Told::Taken { accepted, dropped, refusals };
    };
    let info = error.get_error_info_of_details();
    Told::Refused { reason: info.0, field: info.1 }
}

trait Details {
    fn get_error_info_of_details(&self) -> (String, String);
}

impl Details for tonic_types::pb::Status {
    fn get_error_info_of_details(&self) -> (String, String) {
        let bytes = Message::encode_to_vec(self);
        let status = tonic::Status::with_details(tonic::Code::Unknown, "", bytes.into());
        let details = status.get_error_details();
        let field = details.bad_request().and_then(|bad| bad.field_violations.first().map(|first| first.field.clone()));
        (details.error_info().map(|info| info.reason.clone()).unwrap_or_default(), field.unwrap_or_default())
    }
}

fn record(person: usize) -> Value {
    json!({
        "event_time": "2013-11-01T12:00:00Z", "recipient": format!("r-{person}"), "country": "DE", "carrier": "UA",
        "origin": "EWR", "distance": 100.0, "dep_delay": 3, "hour": 12, "weekday": 4
    })
}

fn with(person: usize, key: &str, value: Value) -> Value {
    let mut record = record(person);
    record[key] = value;
    record
}

fn request(sequence: u64, records: impl IntoIterator<Item = Value>) -> PublishRequest {
    let payload = records::json_events(records);
    PublishRequest { payload: Some(payload), ..numbered(sequence) }
}

fn numbered(sequence: u64) -> PublishRequest {
    PublishRequest { epoch: 1, sequence, want_scores: true, ..records::introduction("deliveries", "van-1") }
}

/// One request of each kind of outcome.
fn requests() -> Vec<PublishRequest> {
    let mixed = [
        record(0),
        with(1, "country", json!("ZZ")),
        with(2, "distance", json!("far")),
        with(3, "distance", json!("farther")),
        with(4, "event_time", json!("2113-11-01T12:00:00Z")),
        with(5, "event_time", json!("1913-11-01T12:00:00Z")),
        with(6, "undeclared", json!("dropped")),
        record(7),
    ];
    vec![
        request(1, (0..10).map(record)),
        request(2, mixed),
        PublishRequest { payload: Some(Payload::ArrowIpc(vec![1, 2, 3].into())), ..numbered(3) },
        request(4, (0..ROWS_MAX + 1).map(record)),
        request(5, [with(0, "country", json!("ZZ"))]),
        request(6, []),
        PublishRequest { stream: "nobodys".into(), ..request(7, [record(0)]) },
    ]
}

async fn repeats_are_told(gateway: &Gateway, first: &[Told]) {
    for (request, first) in requests().into_iter().zip(first) {
        let sequence = request.sequence;
        assert_eq!(gateway.publish(request).await, (first.clone(), true), "request {sequence}");
    }
    // What was refused and comes again corrected is refused again: its number is spent.
    assert_eq!(gateway.publish(request(3, [record(0)])).await, (first[2].clone(), true));
    // Other records under a number that was taken are not said to be there.
    let reused = Told::Refused { reason: "REASON_NUMBER_REUSED".into(), field: String::new() };
    assert_eq!(gateway.publish(request(1, (0..9).map(record))).await, (reused.clone(), true));
    let malformed = PublishRequest { payload: Some(Payload::ArrowIpc(vec![1, 2, 3].into())), ..numbered(1) };
    assert_eq!(gateway.publish(malformed).await, (reused, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_answered_as_the_first_time_at_once_and_after_a_crash_and_after_a_stop() {
    let (journal, released) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let gateway = Gateway::start(journal.path(), released.path(), |_| {}).await;
    let mut first = Vec::new();
    for request in requests() {
        let (told, duplicate) = gateway.publish(request).await;
        assert!(!duplicate);
        first.push(told);
    }
    assert!(matches!(&first[0], Told::Taken { accepted: 10, refusals, .. } if refusals.is_empty()));
    assert!(
        matches!(&first[1], Told::Taken { accepted: 3, dropped: 1, refusals } if refusals.len() == 4),
        "{:?}",
        first[1]
    );
    assert!(matches!(&first[2], Told::Refused { reason, .. } if reason == "REASON_MALFORMED"));
    assert!(matches!(&first[3], Told::Refused { reason, .. } if reason == "REASON_TOO_MANY_ROWS"));
    assert!(matches!(&first[4], Told::Taken { accepted: 0, refusals, .. } if refusals.len() == 1));
    assert!(matches!(&first[6], Told::Refused { reason, .. } if reason == "REASON_UNKNOWN_STREAM"));
    repeats_are_told(&gateway, &first).await;

    // As a crash would leave it: everything that was acknowledged is in it.
    let crashed = Folder::copy_of(journal.path());
    let after_crash = Gateway::start(crashed.root(), released.path(), |_| {}).await;
    repeats_are_told(&after_crash, &first).await;
    after_crash.app.stop().await;

    gateway.app.stop().await;
    let after_stop = Gateway::start(journal.path(), released.path(), |_| {}).await;
    repeats_are_told(&after_stop, &first).await;
    // Numbering goes on.
    let (next, duplicate) = after_stop.publish(request(8, (0..10).map(record))).await;
    assert!(matches!(next, Told::Taken { accepted: 10, .. }) && !duplicate);
    after_stop.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_that_is_too_old_is_told_that_nothing_is_known() {
    let (journal, released) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let gateway = Gateway::start(journal.path(), released.path(), |_| {}).await;
    // Alternating, so that no two in a row came to the same.
    let nth = |sequence: u64| request(sequence, (0..1 + sequence as usize % 2).map(record));
    let mut client = client::connect(&gateway::endpoint(&gateway.app)).await.unwrap();
    let last = REMEMBERED + 6;
    let mut responses = client.publish(tokio_stream::iter((1..=last).map(nth))).await.unwrap().into_inner();
    while let Some(response) = responses.message().await.unwrap() {
        assert_eq!(response.error, None);
    }
    let unknown = Told::Refused { reason: "REASON_OUTCOME_UNKNOWN".into(), field: String::new() };
    assert_eq!(gateway.publish(nth(6)).await, (unknown, true));
    let (told, duplicate) = gateway.publish(nth(7)).await;
    assert!(matches!(told, Told::Taken { accepted: 2, .. }) && duplicate, "{told:?}");
    gateway.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_come_with_a_repeat_only_when_the_same_records_would_be_taken_in() {
    let (journal, released) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let gateway = Gateway::start(journal.path(), released.path(), |_| {}).await;
    let mut client = client::connect(&gateway::endpoint(&gateway.app)).await.unwrap();
    let sent = request(1, [record(0), with(1, "country", json!("ZZ")), record(2)]);
    let first = client.publish_once(sent.clone()).await.unwrap().into_inner();
    let again = client.publish_once(sent).await.unwrap().into_inner();
    assert!(!first.outputs.is_empty());
    assert_eq!((first.outputs, first.refusals), (again.outputs, again.refusals));
    // As many records, but another one is refused now: the outputs would be of other records.
    let other = request(1, [record(0), record(1), with(2, "country", json!("ZZ"))]);
    let other = client.publish_once(other).await.unwrap().into_inner();
    assert_eq!((other.accepted, other.duplicate, other.outputs), (2, true, Vec::new()));
    gateway.app.stop().await;
}
