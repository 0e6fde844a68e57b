//! More connections than there are file descriptors.

use std::time::Duration;

use bailiwick::clock::Clock;
use futures::StreamExt;

use super::gateway::{Limited, beside_a_good_producer, reason};
use super::payloads::{json_events, record, request};
use super::raw::Raw;
use crate::common::PATIENCE;

/// Of 1,024 descriptors 128 are left to everything else, and the tests' own clients need some.
const NEARLY_ALL: usize = 880;

/// As many connections as there may be leave enough for the journal, checkpoints and files: the journal gets room again
/// only by checkpoints, and takes several times what its quota is.
#[tokio::test(flavor = "multi_thread")]
async fn as_many_connections_as_descriptors_leave_room_for_checkpoints() {
    const QUOTA: usize = 4 << 20;
    let gateway = Limited::start_under(
        "ulimit -n 1024",
        &format!(
            "\n[journal]\nsegment_bytes = 1048576\nquota_bytes = {QUOTA}\ncheckpoint_bytes = 1048576\n\
             checkpoint_every = \"PT1S\"\n\n[limits]\nbatch_bytes_max = 262144\n"
        ),
    );
    let mut client = gateway.client().await;
    // With the good producer's they are nearly as many as there may be. One after the other: the system resets some of
    // so many at once.
    let connections: Vec<Raw> = futures::stream::iter(0..NEARLY_ALL).then(|_| Raw::connect(&gateway)).collect().await;
    let clock = Clock::start();
    while gateway.descriptors() < NEARLY_ALL {
        assert!(clock.now() < PATIENCE, "only {} descriptors are in use", gateway.descriptors());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let full = request("full", json_events((0..1_000).map(|person| record(&format!("person-{person:0>40}")))));
    let attack = async {
        let (mut taken, mut waited, mut too_many) = (0, 0, Vec::new());
        while taken < 4 * QUOTA {
            if too_many.is_empty() && taken > QUOTA {
                // They wait in the system's backlog, or for it.
                let connecting = || tokio::spawn(tokio::net::TcpStream::connect(gateway.address()));
                too_many.extend((NEARLY_ALL..1_024).map(|_| connecting()));
            }
            match client.publish_once(full.clone()).await {
                // More than its 40 bytes of the person is kept of each.
                Ok(answer) => taken += answer.into_inner().accepted as usize * 40,
                Err(refused) => {
                    assert_eq!(reason(&refused), "REASON_OVERLOADED", "{refused}");
                    waited += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        too_many.iter().for_each(tokio::task::JoinHandle::abort);
        waited
    };
    let waited = beside_a_good_producer("1,024 connections", &gateway, attack).await;
    eprintln!("{} descriptors are in use; {waited} times there was no room in the journal", gateway.descriptors());
    assert!(gateway.descriptors() >= NEARLY_ALL, "the connections are gone");
    assert!(!gateway.log().contains("could not be written"), "{}", gateway.log());
    drop(connections);
}
