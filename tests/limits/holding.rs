//! Clients that begin and do not go on, send and do not read.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use bailiwick::ingress::proto::ingest::PublishRequest;
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use tonic::Code;

use super::gateway::{Limited, beside_a_good_producer, publish, reason};
use super::payloads::{ROWS_MAX, empty_request, empty_rows, json_events, record, request};
use super::raw::{Raw, head};
use crate::common::PATIENCE;

/// A gRPC message, framed.
fn framed(request: &PublishRequest) -> Bytes {
    let bytes = request.encode_to_vec();
    let mut framed = BytesMut::from(&*head(bytes.len()));
    framed.put_slice(&bytes);
    framed.freeze()
}

/// How long an attacker pushes before it is content with what it holds.
const PUSHING: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_lack_their_last_byte() {
    let gateway = Limited::start("");
    let connection = Raw::connect(&gateway).await;
    let attack = async {
        let bytes = 32 << 20;
        let pushed = (0..80).map(|_| async {
            let mut call = connection.call("Publish").await?;
            let whole = call.push(head(bytes)).await && call.push(vec![0; bytes - 1].into()).await;
            whole.then_some(call)
        });
        // Those that are held back are left alone after a while.
        let _ = tokio::time::timeout(PUSHING, futures::future::join_all(pushed)).await;
    };
    beside_a_good_producer("80 messages without their last byte", &gateway, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_lack_their_last_byte_on_many_connections() {
    let gateway = Limited::start("");
    let mut connections = Vec::new();
    for _ in 0..40 {
        connections.push(Raw::connect(&gateway).await);
    }
    let attack = async {
        let bytes = 16 << 20;
        let pushed = connections.iter().map(|connection| async {
            let mut call = connection.call("PublishOnce").await?;
            let whole = call.push(head(bytes)).await && call.push(vec![0; bytes - 1].into()).await;
            whole.then_some(call)
        });
        let _ = tokio::time::timeout(PUSHING, futures::future::join_all(pushed)).await;
    };
    beside_a_good_producer("40 connections without their last byte", &gateway, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_never_read() {
    let gateway = Limited::start("");
    let connection = Raw::connect(&gateway).await;
    let attack = async {
        let message = framed(&request("mute", empty_rows(ROWS_MAX)));
        let pushed = (0..8).map(|_| async {
            let mut call = connection.call("Publish").await?;
            for _ in 0..60 {
                if !call.push(message.clone()).await {
                    break;
                }
            }
            Some(call)
        });
        let _ = tokio::time::timeout(PUSHING, futures::future::join_all(pushed)).await;
    };
    beside_a_good_producer("eight calls that never read", &gateway, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_that_say_nothing() {
    let gateway = Limited::start("");
    let mut connections = Vec::new();
    for _ in 0..50 {
        connections.push(Raw::connect(&gateway).await);
    }
    let attack = async {
        let opened = connections.iter().map(|connection| async {
            let mut calls = Vec::new();
            for _ in 0..200 {
                match tokio::time::timeout(Duration::from_millis(500), connection.call("Publish")).await {
                    Ok(Some(call)) => calls.push(call),
                    _ => break,
                }
            }
            calls
        });
        futures::future::join_all(opened).await.iter().map(Vec::len).sum::<usize>()
    };
    let opened = beside_a_good_producer("10,000 silent streams", &gateway, attack).await;
    assert!(opened > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_come_one_by_one() {
    let gateway = Limited::start("");
    let connection = Raw::connect(&gateway).await;
    let message = framed(&request("slow", json_events(&[record("p")])));
    let attack = async {
        let dripped = (0..50).map(|_| async {
            let mut call = connection.call("PublishOnce").await.unwrap();
            for byte in message.iter() {
                if !call.push(Bytes::copy_from_slice(&[*byte])).await {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            call.send.send_data(Bytes::new(), true).unwrap();
            call.end().await
        });
        futures::future::join_all(dripped).await
    };
    for end in beside_a_good_producer("50 messages byte by byte", &gateway, attack).await {
        assert_eq!(end, super::raw::End::Status("0".into(), String::new()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_that_never_comes() {
    let gateway = Limited::start("");
    let connection = Raw::connect(&gateway).await;
    let attack = async {
        let mut ends = Vec::new();
        for _ in 0..20 {
            let mut call = connection.call("PublishOnce").await.unwrap();
            call.push(head(u32::MAX as usize)).await;
            ends.push(call.end().await);
        }
        ends
    };
    for end in beside_a_good_producer("messages of 4 GiB", &gateway, attack).await {
        let super::raw::End::Status(_, message) = end else { continue };
        assert!(!message.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_say_nothing_give_their_places_up() {
    let gateway = Limited::start("\n[listen]\nconnections_max = 16\n");
    let mut silent: Vec<TcpStream> = (0..16).map(|_| TcpStream::connect(gateway.address()).unwrap()).collect();
    silent.iter_mut().step_by(2).for_each(|socket| socket.write_all(b"PRI * HTTP/2.0\r\n").unwrap());
    let good = publish(&gateway, request("good", json_events(&[record("p")])));
    let answer = tokio::time::timeout(PATIENCE, good).await.expect("nobody else gets in");
    assert_eq!(answer.unwrap().accepted, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_larger_than_the_budget_stops_nobody() {
    let more = "\n[limits]\nbatch_bytes_max = 100000\nin_flight_bytes_max = 1600000\n";
    let gateway = Limited::start(more);
    let mut idle = gateway.client().await;
    let (keep, requests) = tokio::sync::mpsc::channel::<PublishRequest>(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let idle = tokio::spawn(async move { idle.publish(requests).await.map(|_| ()) });
    let attack = async { publish(&gateway, request("large", empty_rows(150_000))).await.unwrap_err() };
    let refused = beside_a_good_producer("a request larger than the budget", &gateway, attack).await;
    assert!(["REASON_TOO_LARGE", "OutOfRange", "ResourceExhausted"].contains(&refused.as_str()), "{refused}");
    drop(keep);
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_given_up_at_once() {
    let gateway = Limited::start("");
    let connection = Raw::connect(&gateway).await;
    let attack = async {
        let mut given_up = 0;
        for number in 0..2000 {
            let Some(mut call) = connection.call("PublishOnce").await else { break };
            call.push(framed(&empty_request(&format!("p-{}", number % 10)))).await;
            call.send.send_reset(h2::Reason::CANCEL);
            given_up += 1;
        }
        given_up
    };
    let given_up = beside_a_good_producer("2,000 calls given up", &gateway, attack).await;
    assert!(given_up > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_above_the_encoded_limit_is_refused_with_the_limit() {
    let gateway = Limited::start("");
    let error = gateway.client().await.publish_once(request("large", empty_rows(40 << 20))).await.unwrap_err();
    assert!(matches!(error.code(), Code::OutOfRange | Code::ResourceExhausted), "{}", reason(&error));
    assert!(!error.message().is_empty());
}
