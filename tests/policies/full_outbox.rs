//! An outbox that is full of what was delivered: closings since the last checkpoint keep it full, and while a release waits for
//! room, no checkpoint is written.

use std::collections::BTreeSet;

use super::deployment::{Deployment, POLICY, Producer, visits};
use crate::common::until;

/// Closings of a few minutes fill the outbox. Nothing but the outbox is full, and no checkpoint comes.
const JOURNAL: &str = r#"
directory        = "journal"
segment_bytes    = 16384
quota_bytes      = 65536
checkpoint_bytes = 1000000000
checkpoint_every = "PT1H"
"#;

/// What a gateway says when a release finds no room.
const FULL: &str = "a release waits for room in the outbox";

/// The stream and its dataset again, under other names.
fn calls(policy: &str) -> String {
    let (from, through) = (policy.find("[streams.visits]").unwrap(), policy.find("[destinations.desk]").unwrap());
    let calls =
        policy[from..through].replace("streams.visits", "streams.calls").replace("by_country", "calls_by_country");
    calls.replace("stream           = \"visits\"", "stream           = \"calls\"")
}

/// The windows that the hub has something of, each once.
fn minutes(deployment: &Deployment) -> BTreeSet<u32> {
    let counts = deployment.counts("hub");
    let minutes: BTreeSet<u32> = counts.iter().map(|(minute, ..)| *minute).collect();
    assert_eq!(minutes.len(), counts.len(), "a window left twice: {counts:?}");
    minutes
}

/// Also where cells wait for the next windows, and a start then needs to know what was decided about them.
#[tokio::test(flavor = "multi_thread")]
async fn it_makes_room_and_nothing_leaves_twice_after_a_kill() {
    for more in ["", "max_defer = 2\n"] {
        let deployment = Deployment::new();
        deployment.edit("gateway.toml", "directory = \"journal\"\n", JOURNAL);
        deployment.edit("gateway.toml", "[scoring]", "[limits]\nbatch_bytes_max = 4096\n\n[scoring]");
        deployment.edit(POLICY, "min_contributors = 5\n", &format!("min_contributors = 5\n{more}"));
        deployment.set_k(5);
        let policy = deployment.read(POLICY);
        deployment.write(POLICY, policy.clone() + &calls(&policy));
        deployment.edit(
            POLICY,
            "[destinations.desk]\ncountry = \"IE\"\naccepts = [",
            "[destinations.desk]\ncountry = \"IE\"\naccepts = [\"calls_by_country\", ",
        );
        let mut minute = 0;
        // After the first life the outbox is full at the start.
        for (life, through) in [(0, 25), (1, 40), (2, 55)] {
            let process = deployment.spawn();
            let mut producer = Producer::connect(process.endpoint(), "p").await;
            producer.sequence = minute.into();
            // What closes seldom does not keep the rest.
            let mut seldom = Producer::of_stream("calls", process.endpoint(), "q").await;
            seldom.sequence = life;
            seldom.send(&visits(minute + 1, 6, "DE")).await;
            seldom.close_before(minute + 2).await;
            while minute < through {
                minute += 1;
                // The cell of France never has enough contributors. Where cells wait, it waits.
                producer.send(&[visits(minute, 6, "DE"), visits(minute, 2, "FR")].concat()).await;
                producer.close_before(minute + 1).await;
            }
            let all: BTreeSet<u32> = (1..=minute).collect();
            tokio::task::block_in_place(|| until(|| (minutes(&deployment) == all).then_some(())));
            process.wait_for(FULL, 1);
            process.kill();
        }
        let process = deployment.spawn();
        let mut producer = Producer::connect(process.endpoint(), "p").await;
        producer.sequence = minute.into();
        // What waits is known again, or was dropped. It left with nothing.
        producer.send(&visits(minute + 1, 3, "FR")).await;
        producer.close_before(minute + 2).await;
        process.stop();
        assert_eq!(minutes(&deployment), (1..=minute).collect());
    }
}
