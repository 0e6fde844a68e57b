//! A dataset with longer windows, which adds up the rows of a finer one: over kills, checkpoints, a full outbox, reloads and
//! stops, and in `check`.

use std::collections::BTreeSet;
use std::time::Duration;

use bailiwick::engine::sequencer::CheckpointsDue;
use serde_json::{Value, json};

use crate::common::ledger::{entries, of_kind};
use crate::common::process::{run, text};
use crate::common::{changed, gateway, until};

use super::coarser::{self, TOTALS};
use super::deployment::{Deployment, POLICY, Producer, visits};
use super::full_outbox::{FULL, JOURNAL};

/// The desk has the finer dataset, the hub has the sums of so long.
pub(super) fn deployment(size: &str) -> Deployment {
    with_sums(Deployment::new(), size)
}

fn with_sums(deployment: Deployment, size: &str) -> Deployment {
    coarser::with_sums(deployment, &changed(TOTALS, "PT1M", size))
}

/// Of each sum that the hub has: the minutes in which its window begins and ends, and the count.
pub(super) fn sums(deployment: &Deployment) -> Vec<Value> {
    let minute = |line: &Value, of: &str| line[of].as_str().unwrap()[14..16].parse::<u32>().unwrap();
    let sums = deployment.released("hub").into_iter().filter(|line| line["dataset"] == "totals");
    let sums = sums.map(|line| json!([minute(&line, "window_start"), minute(&line, "window_end"), line["of_all"]]));
    let mut sums: Vec<Value> = sums.collect();
    sums.sort_by_key(ToString::to_string);
    sums
}

/// Waits until the desk has so many rows.
fn until_left(deployment: &Deployment, rows: usize) {
    tokio::task::block_in_place(|| until(|| (deployment.released("desk").len() == rows).then_some(())));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_of_several_windows_leave_as_one_over_kills_and_when_the_last_of_them_is_empty() {
    let deployment = deployment("PT3M");
    let minute = |minute, [de, fr]: [usize; 2]| [visits(minute, de, "DE"), visits(minute, fr, "FR")].concat();
    let mut sequence = 0;
    for (window, persons, rows) in [(0, [12, 7], 2), (1, [4, 5], 3)] {
        let process = deployment.spawn();
        let mut producer = Producer::connect(process.endpoint(), "p").await;
        producer.sequence = sequence;
        producer.send(&minute(window, persons)).await;
        sequence = producer.sequence;
        producer.close_before(window + 1).await;
        until_left(&deployment, rows);
        process.kill();
    }
    assert!(deployment.released("hub").is_empty(), "the longer window is open");
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.sequence = sequence;
    // Four are too few, and nobody comes in the third minute.
    producer.close_before(3).await;
    gateway.until("the sum has left", |_| deployment.released("hub").len() == 1).await;
    producer.send(&minute(3, [6, 0])).await;
    producer.close_before(4).await;
    gateway.until("the next window has left", |_| deployment.released("desk").len() == 4).await;
    gateway.stop().await;
    assert_eq!(sums(&deployment), [json!([0, 3, 24])]);
    // A stop that releases what is open releases what was added up. What comes later is told by itself.
    deployment.edit("gateway.toml", "[listen]", "on_stop = \"release\"\n\n[listen]");
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.sequence = sequence + 1;
    producer.send(&minute(4, [0, 8])).await;
    gateway.stop().await;
    assert_eq!(sums(&deployment), [json!([0, 3, 24]), json!([3, 6, 14])]);
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.sequence = sequence + 2;
    producer.send(&minute(5, [0, 9])).await;
    producer.close_before(6).await;
    gateway.until("the rest has left", |_| deployment.released("hub").len() == 3).await;
    gateway.stop().await;
    assert_eq!(sums(&deployment), [json!([0, 3, 24]), json!([3, 6, 14]), json!([3, 6, 9])]);
    let entries = entries(&deployment.path("journal/ledger"));
    let intents = of_kind(&entries, "intent").into_iter().filter(|intent| intent["destination"] == "hub");
    let intents: Vec<Value> = intents.map(|intent| json!([intent["dataset"], intent["cells"]])).collect();
    assert_eq!(intents, vec![json!(["totals", 1]); 3]);
}

/// What a closing adds is in the outbox with it. The outbox lets go of that at checkpoints, which have what was added up.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_added_up_outlasts_the_entries_of_the_outbox_that_it_came_with() {
    let deployment = Deployment::new();
    deployment.add_calls();
    let deployment = with_sums(deployment, "PT30M");
    // A destination that is sent nothing says only now and then that it needs nothing.
    deployment.edit(POLICY, "accepts = [\"totals\"]", "accepts = [\"totals\", \"calls_by_country\"]");
    deployment.edit("gateway.toml", "directory = \"journal\"\n", "directory = \"journal\"\nsegment_bytes = 16384\n");
    deployment.edit("gateway.toml", "[scoring]", "[limits]\nbatch_bytes_max = 4096\n\n[scoring]");
    let at_each = CheckpointsDue { bytes: 1, bytes_max: 1, every: Duration::ZERO };
    let names = |directory: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(deployment.path(directory)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let mut rows = 0;
    for (life, calls) in [(0, 1..13), (1, 13..25)] {
        let gateway = deployment.start_with(|config| config.journal.checkpoints = at_each).await;
        let mut producer = gateway.producer("p").await;
        if life == 0 {
            producer.send(&visits(0, 6, "DE")).await;
            producer.close_before(1).await;
            rows += 1;
        }
        let first = names("journal/outbox").into_iter().find(|name| name.ends_with(".segment"));
        let mut others = Producer::of_stream("calls", &gateway::endpoint(&gateway.app), "q").await;
        for minute in calls {
            let checkpoints = names("journal/checkpoints");
            others.sequence = u64::from(minute) - 1;
            others.send(&visits(minute, 6, "DE")).await;
            others.close_before(minute + 1).await;
            rows += 1;
            let have_left = || deployment.released("desk").len() == rows && names("journal/checkpoints") != checkpoints;
            gateway.until("the calls have left, and there is a checkpoint", |_| have_left()).await;
        }
        gateway.stop().await;
        assert!(first.is_some_and(|first| !names("journal/outbox").contains(&first)), "the first segment is gone");
    }
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.sequence = 1;
    producer.send(&visits(29, 7, "DE")).await;
    producer.close_before(30).await;
    gateway.until("the sum has left", |_| sums(&deployment).len() == 1).await;
    gateway.stop().await;
    assert_eq!(sums(&deployment), [json!([0, 30, 13])]);
}

/// Closings of other datasets fill it, or those whose rows are added up: then one of them waits for room meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_outbox_begins_anew_with_what_is_added_up() {
    // Who fills it, and how many requests it has sent before the first minute.
    for (filler, name, before) in [("calls", "q", 0), ("visits", "p", 1)] {
        let deployment = Deployment::new();
        deployment.add_calls();
        let deployment = with_sums(deployment, "PT1H");
        deployment.edit(POLICY, "accepts = [\"totals\"]", "accepts = [\"totals\", \"calls_by_country\"]");
        deployment.edit("gateway.toml", "directory = \"journal\"\n", JOURNAL);
        deployment.edit("gateway.toml", "[scoring]", "[limits]\nbatch_bytes_max = 4096\n\n[scoring]");
        deployment.edit("gateway.toml", "[listen]", "on_stop = \"release\"\n\n[listen]");
        let (mut minute, mut rows) = (1, 0);
        for life in 0..2 {
            let process = deployment.spawn();
            if life == 0 {
                let mut producer = Producer::connect(process.endpoint(), "p").await;
                producer.send(&visits(0, 6, "FR")).await;
                producer.close_before(1).await;
                rows += 1;
            }
            let mut others = Producer::of_stream(filler, process.endpoint(), name).await;
            while process.lines(FULL).is_empty() {
                others.sequence = before + u64::from(minute) - 1;
                others.send(&visits(minute, 6, "FR")).await;
                minute += 1;
                others.close_before(minute).await;
                rows += 1;
                until_left(&deployment, rows);
            }
            process.kill();
        }
        assert!(sums(&deployment).is_empty());
        deployment.spawn().stop();
        let minutes = if filler == "visits" { minute } else { 1 };
        assert_eq!(sums(&deployment), [json!([0, 0, 6 * minutes])], "{filler}");
    }
}

/// If it ended a longer window, that would leave again: so nothing is known any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_added_up_before_a_lost_entry_of_the_outbox_is_missing_and_that_is_said() {
    let deployment = Deployment::new();
    deployment.add_calls();
    let deployment = with_sums(deployment, "PT1H");
    deployment.edit("gateway.toml", "directory = \"journal\"\n", &changed(JOURNAL, "65536", "1048576"));
    deployment.edit("gateway.toml", "[scoring]", "[limits]\nbatch_bytes_max = 4096\n\n[scoring]");
    deployment.edit("gateway.toml", "[listen]", "on_stop = \"release\"\n\n[listen]");
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    let mut others = Producer::of_stream("calls", process.endpoint(), "q").await;
    producer.send(&visits(0, 6, "DE")).await;
    producer.close_before(1).await;
    for minute in 1..40 {
        others.send(&visits(minute, 6, "DE")).await;
        others.close_before(minute + 1).await;
        until_left(&deployment, minute as usize + 1);
    }
    producer.send(&visits(40, 7, "DE")).await;
    producer.close_before(41).await;
    until_left(&deployment, 41);
    process.kill();
    let entries = std::fs::read_dir(deployment.path("journal/outbox")).unwrap();
    let mut segments: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|of| of == "segment"));
    segments.sort();
    assert!(segments.len() >= 4, "{segments:?}");
    std::fs::remove_file(&segments[1]).unwrap();
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    producer.sequence = 2;
    producer.send(&visits(41, 8, "DE")).await;
    process.wait_for("what was added up of longer windows until then is missing", 1);
    process.stop();
    assert_eq!(sums(&deployment), [json!([0, 0, 15])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_do_not_leave_if_the_policies_ask_for_something_else_since_a_row_of_them_left() {
    let deployment = deployment("PT3M");
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    let asked = [[5, 7, 7], [7, 7, 6], [6, 6, 6], [6, 6, 5]];
    for (minute, k) in (0..).zip(asked.into_iter().flatten()) {
        deployment.set_k(k);
        gateway.reload().await.unwrap();
        producer.send(&visits(minute, 8, "DE")).await;
        producer.close_before(minute + 1).await;
        let rows = minute as usize + 1;
        gateway.until("the row has left", |_| deployment.released("desk").len() == rows).await;
    }
    gateway.until("the last sum has left", |_| sums(&deployment).len() == 1).await;
    gateway.stop().await;
    // All policies that rows left under say what is asked in the end. Only in the third window all rows were judged by that.
    assert_eq!(sums(&deployment), [json!([6, 9, 24])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_added_up_is_not_gone_on_with_by_another_declaration() {
    let deployment = deployment("PT3M");
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.send(&visits(0, 6, "DE")).await;
    producer.close_before(1).await;
    gateway.until("the row has left", |_| deployment.released("desk").len() == 1).await;
    gateway.stop().await;
    let policy = deployment.read(POLICY);
    for (from, to, said) in [
        ("of_all", "of_everyone", "it has other metrics, or other names for them"),
        ("PT3M", "PT2M", "window was PT3M, is PT2M"),
    ] {
        deployment.write(POLICY, changed(&policy, from, to));
        let refused = deployment.start_error().await;
        assert!(refused.contains(said) && refused.contains("on_stop"), "{refused}");
    }
    deployment.write(POLICY, policy.clone());
    deployment.edit("gateway.toml", "[listen]", "on_stop = \"release\"\n\n[listen]");
    deployment.start().await.stop().await;
    deployment.edit(POLICY, "of_all", "of_everyone");
    deployment.start().await.stop().await;
    assert_eq!(sums(&deployment), [json!([0, 3, 6])]);
}

#[test]
fn check_says_how_many_windows_it_adds_up_and_refuses_what_waits() {
    let deployment = deployment("PT1H");
    let checked = run(deployment.root(), &["check", "-c", "gateway.toml"]);
    let said = text(&checked.stdout);
    assert!(checked.status.success(), "{said}{}", text(&checked.stderr));
    assert!(said.contains("each of its windows is 60 windows of by_country"), "{said}");
    assert!(
        said.contains("while one is open, up to 1 rows are added up, beside `open_windows_bytes_max`: some 1 KiB"),
        "{said}"
    );
    let checked = run(deployment.root(), &["check", "--json"]);
    let said: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let datasets = said["datasets"].as_array().unwrap().iter();
    let times: Vec<Value> = datasets.map(|dataset| json!([dataset["dataset"], dataset["adds_up_windows"]])).collect();
    assert!(times.contains(&json!(["totals", 60])) && times.contains(&json!(["by_country", 1])), "{times:?}");
    deployment.edit(POLICY, "min_contributors = 5\n", "min_contributors = 5\nmax_defer = 2\n");
    let checked = run(deployment.root(), &["check", "-c", "gateway.toml"]);
    let said = text(&checked.stderr);
    assert!(said.contains("the cells of `by_country` wait (`max_defer`)"), "{said}");
}
