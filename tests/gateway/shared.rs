//! Requests that share batches: each is answered as if it had come alone, and the same cells are released. This is for the
//! arithmetic of a real model, whose scores must be the same to the bit; [`super::crowd`] has more kinds of requests.

use std::time::Duration;

use bailiwick::ingress::proto::cloudevents::cloud_event::Data;
use bailiwick::ingress::proto::cloudevents::{CloudEvent, CloudEventBatch};
use bailiwick::ingress::proto::ingest::output::Values;
use bailiwick::ingress::proto::ingest::publish_request::Payload;
use bailiwick::ingress::proto::ingest::{PublishRequest, PublishResponse};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use prost::Message;
use serde_json::{Map, Value, json};
use tonic::Status;
use tonic_types::StatusExt;

use crate::common::TestGateway;
use crate::common::records::introduction;

const GATEWAY: &str = "card-fraud/gateway.toml";
/// 2013-09-02T17:00:00Z.
const BEGIN: i64 = 1_378_141_200_000_000;
/// Two windows, none of which closes before the gateway is stopped: one producer has come no further than the first.
const SPAN: i64 = 1_100_000_000;
const PRODUCERS: usize = 24;
const REQUESTS: usize = 30;

/// What a producer sends, in order.
#[derive(Debug, Clone)]
enum Sent {
    Records(Vec<Value>),
    /// What is no payload at all.
    Malformed,
    /// The request before, again.
    Again,
    /// The producer is there.
    Nothing,
}

fn record() -> impl Strategy<Value = Value> {
    let country = prop_oneof![
        8 => Just("DE"), 4 => Just("FR"), 1 => Just("US"), 1 => Just("ZZ"), 1 => Just("IN"), 1 => Just("")
    ];
    let time = prop_oneof![
        20 => (0..SPAN).prop_map(|after| json!(BEGIN + after)), 1 => Just(json!(BEGIN * 1_000)), 1 => Just(json!("soon"))
    ];
    let amount =
        prop_oneof![20 => (0..100_000_u32).prop_map(|cents| json!(f64::from(cents) / 100.0)), 1 => Just(json!(true))];
    (time, 0..60_u32, country, prop::bool::ANY, amount, prop::array::uniform4(-3.0..3.0_f64)).prop_map(
        |(time, card, country, is_web, amount, values)| {
            let mut record: Map<String, Value> =
                (1..=28).map(|at: usize| (format!("v{at}"), json!(values[at % values.len()]))).collect();
            record.extend([
                ("event_time".to_owned(), time),
                ("card".to_owned(), json!(format!("card-{card}"))),
                ("country".to_owned(), json!(country)),
                ("channel".to_owned(), json!(if is_web { "web" } else { "pos" })),
                ("elapsed".to_owned(), json!(1.0)),
                ("amount".to_owned(), amount),
            ]);
            Value::Object(record)
        },
    )
}

fn sent() -> impl Strategy<Value = Sent> {
    prop_oneof![
        16 => record().prop_map(|record| Sent::Records(vec![record])),
        3 => prop::collection::vec(record(), 2..6).prop_map(Sent::Records),
        1 => Just(Sent::Malformed),
        1 => Just(Sent::Again),
        1 => Just(Sent::Nothing),
    ]
}

/// The requests of a producer, numbered.
fn requests(producer: usize, sent: &[Sent]) -> Vec<PublishRequest> {
    let mut requests: Vec<PublishRequest> = Vec::new();
    let mut sequence = 0;
    for sent in sent {
        let payload = match sent {
            Sent::Again => {
                requests.extend(requests.last().cloned());
                continue;
            }
            Sent::Records(records) => {
                let event = |record: &Value| CloudEvent {
                    data: Some(Data::TextData(record.to_string())),
                    ..CloudEvent::default()
                };
                let events = CloudEventBatch { events: records.iter().map(event).collect() };
                Some(Payload::CloudEvents(events.encode_to_vec().into()))
            }
            Sent::Malformed => Some(Payload::ArrowIpc(vec![1, 2, 3].into())),
            Sent::Nothing => None,
        };
        // Every third producer does not number its requests.
        sequence += u64::from(payload.is_some());
        requests.push(PublishRequest {
            stream: "payments".into(),
            producer: format!("till-{producer}"),
            epoch: 7 * u64::from(!producer.is_multiple_of(3)),
            sequence: sequence * u64::from(!producer.is_multiple_of(3)),
            want_scores: true,
            payload,
            ..PublishRequest::default()
        });
    }
    requests
}

/// A producer that holds the watermark back.
fn holder() -> PublishRequest {
    let record = json!({
        "event_time": BEGIN, "card": "card-0", "country": "DE", "channel": "web", "elapsed": 1.0, "amount": 1.0
    });
    let mut record = record.as_object().unwrap().clone();
    record.extend((1..=28).map(|at| (format!("v{at}"), json!(0.0))));
    let request = requests(0, &[Sent::Records(vec![Value::Object(record)])]).swap_remove(0);
    PublishRequest { producer: "holder".into(), ..request }
}

/// What is told of a request that does not depend on what else there was.
#[derive(Debug, PartialEq)]
struct Told {
    accepted: u32,
    is_duplicate: bool,
    refusals: Vec<(u32, u32, i32, String)>,
    /// The bits of the scores.
    scores: Vec<u32>,
    error: Option<String>,
}

fn told(response: &PublishResponse) -> Told {
    let scores = response.outputs.iter().flat_map(|output| match &output.values {
        Some(Values::Scores(scores)) => scores.values.iter().map(|score| score.to_bits()).collect(),
        _ => Vec::new(),
    });
    let refusals = response.refusals.iter();
    let refusals = refusals.map(|refusal| (refusal.index, refusal.count, refusal.reason, refusal.field.clone()));
    Told {
        accepted: response.accepted,
        is_duplicate: response.duplicate,
        refusals: refusals.collect(),
        scores: scores.collect(),
        error: response.error.as_ref().map(|error| error.message.clone()),
    }
}

fn failed(status: &Status) -> Told {
    let is_duplicate = status.message().contains("came before");
    assert!(status.get_error_details().error_info().is_some());
    let error = Some(status.message().to_owned());
    Told { accepted: 0, is_duplicate, refusals: Vec::new(), scores: Vec::new(), error }
}

fn plain(mut told: Told) -> Told {
    // A call in which a request fails has no other answer.
    told.is_duplicate &= told.error.is_none();
    told
}

/// Every request by itself: the next is sent when the one before is answered.
async fn alone(all: &[Vec<PublishRequest>]) -> (Vec<Vec<Told>>, Vec<Value>) {
    let gateway = TestGateway::start_with(GATEWAY, |config| config.workers = 1).await;
    let mut client = gateway.client().await;
    client.publish_once(holder()).await.unwrap();
    let mut answers: Vec<Vec<Told>> = all.iter().map(|_| Vec::new()).collect();
    for turn in 0..all.iter().map(Vec::len).max().unwrap_or(0) {
        // Who is silent for half a minute holds nothing back any more.
        client.publish_once(introduction("payments", "holder")).await.unwrap();
        for (requests, answers) in all.iter().zip(&mut answers) {
            let Some(request) = requests.get(turn) else { continue };
            answers.push(plain(match client.publish_once(request.clone()).await {
                Ok(response) => told(response.get_ref()),
                Err(status) => failed(&status),
            }));
        }
    }
    (answers, cells(gateway.stop().await))
}

/// All requests at once, each producer's in a call of its own.
async fn together(all: &[Vec<PublishRequest>], workers: usize) -> (Vec<Vec<Told>>, Vec<Value>) {
    let gateway = TestGateway::start_with(GATEWAY, |config| config.workers = workers).await;
    let mut client = gateway.client().await;
    client.publish_once(holder()).await.unwrap();
    // Who is silent for half a minute holds nothing back any more.
    let holding = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            client.publish_once(introduction("payments", "holder")).await.unwrap();
        }
    });
    let mut calls = Vec::new();
    for requests in all {
        let (mut client, requests) = (gateway.client().await, requests.clone());
        calls.push(tokio::spawn(async move {
            let expected = requests.len();
            let mut responses = client.publish(futures::stream::iter(requests)).await.unwrap().into_inner();
            let mut answers = Vec::new();
            while let Some(response) = responses.message().await.unwrap() {
                answers.push(plain(told(&response)));
            }
            assert_eq!(answers.len(), expected);
            answers
        }));
    }
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    holding.abort();
    (answers, cells(gateway.stop().await))
}

/// The released cells, in an order of their own.
fn cells(mut released: Vec<Value>) -> Vec<Value> {
    for cell in &mut released {
        // A flush is named by its position in the journal.
        cell.as_object_mut().unwrap().remove("release");
    }
    released.sort_by_key(Value::to_string);
    released
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_answered_as_if_it_had_come_alone_and_the_same_cells_leave() {
    let mut runner = TestRunner::default();
    for workers in [1, 2, 1] {
        let sent = prop::collection::vec(prop::collection::vec(sent(), REQUESTS), PRODUCERS);
        let sent = sent.new_tree(&mut runner).unwrap().current();
        let all: Vec<Vec<PublishRequest>> =
            sent.iter().enumerate().map(|(producer, sent)| requests(producer, sent)).collect();
        let (expected, cells) = alone(&all).await;
        let (answers, shared_cells) = together(&all, workers).await;
        for ((expected, answers), sent) in expected.iter().zip(&answers).zip(&sent) {
            for (position, (expected, answer)) in expected.iter().zip(answers).enumerate() {
                assert_eq!(expected, answer, "request {position} of {sent:#?}");
            }
        }
        assert!(!cells.is_empty(), "nothing left");
        assert_eq!(cells, shared_cells);
    }
}
