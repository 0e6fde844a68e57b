//! Small messages that stand for much.

use bailiwick::ingress::proto::cloudevents::CloudEvent;
use bailiwick::ingress::proto::cloudevents::cloud_event::Data;
use bailiwick::ingress::proto::ingest::PublishRequest;
use bailiwick::ingress::proto::ingest::publish_request::Payload;

use super::gateway::{Limited, beside_a_good_producer, publish};
use super::payloads::{
    ROWS_MAX, arrow, columns_of_nulls, dictionary_of_one_long_word, empty_events, empty_rows, json_events, request,
    views_of_one_long_word,
};
use super::raw::{End, Raw};
use crate::common::records::cloud_events;

/// Sends the same request a few times, at once: nothing of it is taken, and the reason is said.
async fn is_refused(name: &str, payload: Payload) {
    let gateway = Limited::start("");
    let at_once = gateway.client().await;
    let attack = async {
        let sent = (0..4).map(|sender| {
            let mut client = at_once.clone();
            let request = request(&format!("attacker-{sender}"), payload.clone());
            async move { client.publish_once(request).await }
        });
        futures::future::join_all(sent).await
    };
    for answer in beside_a_good_producer(name, &gateway, attack).await {
        match answer {
            Ok(response) => {
                let response = response.into_inner();
                assert!(response.accepted == 0 && !response.refusals.is_empty(), "{name}: {} taken", response.accepted);
            }
            Err(status) => {
                let reason = super::gateway::reason(&status);
                assert!(!status.message().is_empty(), "{name}: no word on {reason}");
                eprintln!("{name}: {reason}: {}", status.message());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_arrow_dictionary_of_one_long_word() {
    is_refused("Arrow dictionary of one long word", arrow(&dictionary_of_one_long_word())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arrow_views_of_one_long_word() {
    is_refused("Arrow views of one long word", arrow(&views_of_one_long_word())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arrow_columns_without_values() {
    is_refused("ten thousand Arrow columns of nulls", columns_of_nulls(10_000)).await;
}

/// Sends empty CloudEvents a few times, at once.
async fn empty_events_are_refused(name: &str, bytes: usize) {
    let gateway = Limited::start("");
    let message = empty_events(bytes / 2);
    let connection = Raw::connect(&gateway).await;
    let attack = futures::future::join_all((0..4).map(|_| connection.publish_once(&message)));
    for end in beside_a_good_producer(name, &gateway, attack).await {
        let End::Status(code, text) = end else { panic!("{name}: cut off without a word") };
        assert!(code != "0" && !text.is_empty(), "{name}: {code} {text}");
        eprintln!("{name}: {code} {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_cloud_events_of_8_mib() {
    empty_events_are_refused("8 MiB of empty CloudEvents", (8 << 20) - 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_cloud_events_of_32_mib() {
    empty_events_are_refused("32 MiB of empty CloudEvents", 32 << 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cloud_events_with_many_attributes() {
    let attributes = (0..100_000).map(|number| (format!("a{number}"), Default::default())).collect();
    let event = CloudEvent { data: Some(Data::TextData("{}".into())), attributes, ..CloudEvent::default() };
    let payload = cloud_events(vec![event; 3]);
    is_refused("CloudEvents of 100,000 attributes", payload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_rows_at_the_limit() {
    is_refused("65,536 empty rows", empty_rows(ROWS_MAX)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_rows_far_above_the_limit() {
    is_refused("four million empty rows", empty_rows(4 << 20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_is_nested_deeply() {
    let deep = format!("{{\"note\":{}", "[".repeat(7 << 20));
    is_refused("JSON of seven million brackets", json_events([deep])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_of_many_keys() {
    let keys: Vec<String> = (0..300_000).map(|key| format!("\"undeclared-{key}\":1")).collect();
    is_refused("JSON of 300,000 undeclared keys", json_events([format!("{{{}}}", keys.join(","))])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn protobuf_of_many_unknown_fields() {
    // A row whose only fields are groups within groups, which a reader has to follow.
    let groups = [0x0b].repeat(4 << 20);
    is_refused("a row of four million nested groups", Payload::Rows(groups.into())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_as_long_as_a_message() {
    let gateway = Limited::start("");
    let request =
        PublishRequest { stream: "s".repeat(8 << 20), producer: "p".repeat(8 << 20), ..request("", empty_rows(1)) };
    let client = gateway.client().await;
    let attack = async {
        let sent = (0..8).map(|_| {
            let (mut client, request) = (client.clone(), request.clone());
            async move { client.publish_once(request).await.unwrap_err() }
        });
        futures::future::join_all(sent).await
    };
    for status in beside_a_good_producer("names of 8 MiB", &gateway, attack).await {
        assert!(status.message().len() < 1000, "what is refused is sent back");
    }
    assert!(publish(&gateway, super::payloads::empty_request("late")).await.is_ok());
}
