//! An outbox that is full of what was delivered: closings since the last checkpoint keep it full, and while a release waits for
//! room, no checkpoint is written.

use std::collections::BTreeSet;

use serde_json::json;

use super::deployment::{Deployment, POLICY, Producer, visits};
use crate::common::http::check;
use crate::common::until;

/// Closings of a few minutes fill the outbox. Nothing but the outbox is full, and no checkpoint comes.
pub(super) const JOURNAL: &str = r#"
directory        = "journal"
segment_bytes    = 16384
quota_bytes      = 65536
checkpoint_bytes = 1000000000
checkpoint_every = "PT1H"
"#;

/// Together more than a segment.
const CELLS: u32 = 100;

/// What a gateway says when a release finds no room.
pub(super) const FULL: &str = "a release waits for room in the outbox";

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
    for more in ["", "max_defer = 10\n"] {
        let deployment = Deployment::new();
        deployment.edit("gateway.toml", "directory = \"journal\"\n", JOURNAL);
        deployment.edit("gateway.toml", "[scoring]", "[limits]\nbatch_bytes_max = 4096\n\n[scoring]");
        deployment.edit(POLICY, "min_contributors = 5\n", &format!("min_contributors = 5\n{more}"));
        deployment.set_k(5);
        deployment.add_calls();
        let mut minute = 0;
        // After the first life the outbox is full at the start.
        for life in 0..3 {
            let process = deployment.spawn();
            let mut producer = Producer::connect(process.endpoint(), "p").await;
            producer.sequence = minute.into();
            // What closes seldom does not keep the rest.
            let mut seldom = Producer::of_stream("calls", process.endpoint(), "q").await;
            seldom.sequence = life;
            seldom.send(&visits(minute + 1, 6, "DE")).await;
            seldom.close_before(minute + 2).await;
            // It is killed when it has just begun anew.
            while process.lines(FULL).is_empty() {
                minute += 1;
                let (many, few) = if minute % 5 == 0 { ("FR", "DE") } else { ("DE", "FR") };
                producer.send(&[visits(minute, 6, many), visits(minute, 2, few)].concat()).await;
                producer.close_before(minute + 1).await;
                let all: BTreeSet<u32> = (1..=minute).collect();
                tokio::task::block_in_place(|| until(|| (minutes(&deployment) == all).then_some(())));
            }
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
        // Where cells wait, each says how many windows it covers: since its key left last, or since what was dropped. Before the
        // first ones there may have been others.
        let late = deployment.released("hub").into_iter().skip(10);
        assert!(
            late.map(|line| line["windows"].as_u64()).all(|covers| covers <= Some(5)),
            "{:?}",
            deployment.released("hub")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_no_segment_holds_is_told_and_leaves_once_segments_are_larger() {
    let deployment = Deployment::new();
    deployment.edit("gateway.toml", "directory = \"journal\"\n", JOURNAL);
    deployment.edit("gateway.toml", "[scoring]", "[limits]\nbatch_bytes_max = 4096\n\n[scoring]");
    deployment.add("gateway.toml", "\n[http]\nlisten = \"127.0.0.1:0\"\n");
    deployment.set_k(5);
    // A hundred cells, of some 200 bytes each.
    let edges: Vec<String> = (0..=CELLS).map(|edge| edge.to_string()).collect();
    let key = "{ field = \"country\", domain = [\"DE\", \"FR\", \"IN\"] }";
    let more = format!("{key}, {{ field = \"amount\", edges = [{}] }}", edges.join(", "));
    deployment.edit(POLICY, key, &more);
    deployment.edit(POLICY, ", { name = \"amount\", fn = \"sum\", field = \"amount\" }", "");
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    for cell in 0..CELLS {
        let of_cell = visits(1, 5, "DE").into_iter().map(|mut record| {
            record["amount"] = json!(f64::from(cell) + 0.5);
            record
        });
        producer.send(&of_cell.collect::<Vec<_>>()).await;
    }
    producer.close_before(2).await;
    let line = process.wait_for("health and metrics are told", 1);
    let address = line.split("http=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let told = || Some(check(&address, "closings")).filter(|told| told["state"] != "well");
    let told = tokio::task::block_in_place(|| until(told));
    assert_eq!(told["state"], "warning", "{told}");
    assert!(told["do"].as_str().unwrap().contains("segment_bytes"), "{told}");
    assert!(deployment.released("hub").is_empty());
    process.kill();
    deployment.edit(
        "gateway.toml",
        "segment_bytes    = 16384\nquota_bytes      = 65536",
        "segment_bytes    = 1048576\nquota_bytes      = 8388608",
    );
    let gateway = deployment.start().await;
    gateway.until("it has left", |_| deployment.released("hub").len() == CELLS as usize).await;
    let address = gateway.app.monitor_address().unwrap().to_string();
    assert_eq!(tokio::task::block_in_place(|| check(&address, "closings"))["state"], "well");
    gateway.stop().await;
}
