//! Cells that wait for the next windows of their key, over kills, a stop and a reload.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use bailiwick::app::App;
use bailiwick::clock::Clock;
use serde_json::{Value, json};

use crate::common::PATIENCE;
use crate::common::ledger::{entries, of_kind};
use crate::common::process::{run, text};

use super::deployment::{Deployment, Gateway, POLICY, Producer, visit, visits};

fn deployment() -> Deployment {
    let deployment = Deployment::new();
    deployment.edit(POLICY, "min_contributors = 5\n", "min_contributors = 5\nmax_defer = 2\n");
    deployment.set_k(5);
    deployment
}

/// Records of some persons of Germany in a minute.
fn of(minute: u32, persons: std::ops::Range<usize>) -> Vec<Value> {
    persons.map(|person| visit(minute, &format!("DE-{person}"), "DE")).collect()
}

/// What the desk has: when the window began, how many windows the cell covers, the country, how many records.
fn cells(deployment: &Deployment) -> Vec<(u64, u64, String, u64)> {
    let cells = deployment.released("desk").into_iter().map(|line| {
        let minute = line["window_start"].as_str().unwrap()[14..16].parse().unwrap();
        let country = line["country"].as_str().unwrap().to_owned();
        (minute, line["windows"].as_u64().unwrap(), country, line["visits"].as_u64().unwrap())
    });
    let mut cells: Vec<_> = cells.collect();
    cells.sort();
    cells
}

/// How many cells have begun to wait, were dropped after that, and were withheld.
fn counts(app: &App) -> [u64; 3] {
    let counts = app.telemetry();
    [
        counts.total_of_datasets(|counts| &counts.cells_deferred),
        counts.total_of_datasets(|counts| &counts.cells_deferred_dropped),
        counts.total_of_datasets(|counts| &counts.cells_withheld),
    ]
}

/// The windows before a minute close, and what comes of it is counted.
async fn close(gateway: &Gateway, producer: &mut Producer, minute: u32, expected: [u64; 3]) {
    producer.close_before(minute).await;
    gateway.until("the closing is counted", |app| counts(app) == expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cells_wait_over_kills_and_stops_leave_once_or_are_dropped_once() {
    let deployment = deployment();
    let first = ("DE".to_owned(), 5);
    for (sequence, minute, persons) in [(0, 1, 0..3), (1, 2, 3..5)] {
        let process = deployment.spawn();
        let mut producer = Producer::connect(process.endpoint(), "p").await;
        producer.sequence = sequence;
        producer.send(&of(minute, persons)).await;
        producer.close_before(minute + 1).await;
        process.kill();
    }
    let gateway = deployment.start().await;
    gateway.until("three and two are one cell", |_| cells(&deployment).len() == 1).await;
    assert_eq!(cells(&deployment), [(2, 3, first.0.clone(), first.1)]);
    let mut producer = gateway.producer("p").await;
    producer.sequence = 2;
    producer.send(&of(3, 0..4)).await;
    let [waited, dropped, withheld] = counts(&gateway.app);
    assert_eq!((dropped, withheld), (0, 0));
    close(&gateway, &mut producer, 4, [waited + 1, 0, 0]).await;
    gateway.stop().await;

    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.sequence = 3;
    // One of the four, once more: four contributors are not five.
    producer.send(&of(5, 0..1)).await;
    // The cell of minute 3 has waited for minutes 4 and 5.
    close(&gateway, &mut producer, 6, [1, 1, 1]).await;
    producer.send(&of(6, 1..5)).await;
    producer.close_before(7).await;
    gateway.until("one and four are one cell", |_| cells(&deployment).len() == 2).await;
    assert_eq!(cells(&deployment), [(2, 3, first.0.clone(), first.1), (6, 3, first.0, 5)]);
    // A key that has left covers what came since.
    producer.send(&of(7, 0..6)).await;
    producer.close_before(8).await;
    gateway.until("six leave", |_| cells(&deployment).len() == 3).await;
    assert_eq!(cells(&deployment)[2], (7, 1, "DE".to_owned(), 6));
    assert_eq!(counts(&gateway.app), [1, 1, 1]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_policies_end_the_waiting_and_another_number_of_windows_needs_a_restart() {
    let deployment = deployment();
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.send(&of(1, 0..4)).await;
    close(&gateway, &mut producer, 2, [1, 0, 0]).await;
    deployment.edit(POLICY, "max_defer = 2", "max_defer = 3");
    let refused = gateway.reload().await.unwrap_err();
    assert!(refused.contains("max_defer was 2, is 3"), "{refused}");
    deployment.edit(POLICY, "max_defer = 3", "max_defer = 2");
    deployment.set_k(6);
    gateway.reload().await.unwrap();
    producer.send(&of(2, 4..9)).await;
    close(&gateway, &mut producer, 3, [2, 1, 1]).await;
    producer.send(&of(3, 9..10)).await;
    producer.close_before(4).await;
    gateway.until("five and one are one cell", |_| cells(&deployment).len() == 1).await;
    // It says the window of the dropped ones, too: any other number would tell of them.
    assert_eq!(cells(&deployment), [(3, 3, "DE".to_owned(), 6)]);
    gateway.stop().await;
}

/// A life of a gateway that is killed when the outbox has the closing of a minute: ten persons of France leave with it.
async fn live_and_be_killed(deployment: &Deployment, minute: u32, records: &[Value]) {
    let released = || deployment.released("desk").len();
    let (before, began) = (released(), Clock::start());
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    producer.sequence = u64::from(minute - 1);
    producer.send(&[records, &visits(minute, 10, "FR")].concat()).await;
    producer.close_before(minute + 1).await;
    while released() == before {
        assert!(began.now() < PATIENCE, "nothing leaves");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    process.kill();
}

/// A closing of which nothing leaves has no entry in the outbox. The entry of the next one says what was decided at it.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_since_a_closing_of_which_nothing_left_leaves_after_a_crash() {
    let deployment = deployment();
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    producer.send(&of(1, 0..3)).await;
    producer.close_before(2).await;
    process.kill();
    live_and_be_killed(&deployment, 2, &[]).await;
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.sequence = 2;
    producer.send(&of(3, 3..5)).await;
    producer.close_before(4).await;
    gateway.until("three and two are one cell", |_| cells(&deployment).len() == 2).await;
    assert_eq!(cells(&deployment)[1], (3, 3, "DE".to_owned(), 5));
    gateway.stop().await;
}

/// Positions in the outbox are in the ledger and in Kafka.
#[tokio::test(flavor = "multi_thread")]
async fn a_window_of_which_nothing_leaves_takes_no_position() {
    for has_record in [false, true] {
        let deployment = deployment();
        let gateway = deployment.start().await;
        let mut producer = gateway.producer("p").await;
        for minute in 1..4 {
            match minute {
                2 if has_record => producer.send(&of(2, 0..2)).await,
                2 => {}
                _ => producer.send(&visits(minute, 10, "FR")).await,
            }
            producer.close_before(minute + 1).await;
        }
        gateway.until("two windows leave", |_| cells(&deployment).len() == 2).await;
        gateway.stop().await;
        let said = entries(&deployment.path("journal/ledger"));
        let positions: BTreeSet<u64> =
            of_kind(&said, "intent").iter().map(|intent| intent["outbox"].as_u64().unwrap()).collect();
        assert_eq!(positions, [1, 2].into(), "has_record: {has_record}");
    }
}

/// What waited is dropped at the first closing after the start, and counted then, whatever came from the journal again before.
#[tokio::test(flavor = "multi_thread")]
async fn cells_that_another_number_of_windows_drops_after_a_crash_are_counted_once() {
    // What waits is in a checkpoint, or comes from the journal as a whole; then cells wait for longer, or not at all.
    for (has_checkpoint, then) in [(true, "max_defer = 3\n"), (true, ""), (false, "max_defer = 1\n"), (false, "")] {
        let deployment = deployment();
        live_and_be_killed(&deployment, 1, &of(1, 0..3)).await;
        if has_checkpoint {
            deployment.start().await.stop().await;
        }
        live_and_be_killed(&deployment, 2, &of(2, 0..3)).await;
        deployment.edit(POLICY, "max_defer = 2\n", then);
        let gateway = deployment.start().await;
        let mut producer = gateway.producer("p").await;
        producer.sequence = 2;
        producer.send(&visits(3, 10, "FR")).await;
        producer.close_before(4).await;
        gateway.until("the cells of minutes 1 and 2 are dropped", |app| counts(app)[1..] == [2, 2]).await;
        gateway.stop().await;
        let gateway = deployment.start().await;
        let mut producer = gateway.producer("p").await;
        producer.sequence = 3;
        producer.send(&[visits(4, 10, "FR"), of(4, 0..3)].concat()).await;
        producer.close_before(5).await;
        let said = [u64::from(then.is_empty()), u64::from(!then.is_empty())];
        gateway.until("no other cell is", |app| [counts(app)[2], counts(app)[0]] == said && counts(app)[1] == 0).await;
        gateway.stop().await;
    }
}

/// Windows closed before cells waited, and come from the journal again after a crash. What a cell covers then does not tell
/// whether the last of them had a record, which was withheld.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_cell_covers_after_a_crash_does_not_tell_of_a_window_that_closed_before_cells_waited() {
    for has_record in [false, true] {
        let deployment = Deployment::new();
        deployment.set_k(5);
        let process = deployment.spawn();
        // Both windows wait for this producer.
        let mut slow = Producer::connect(process.endpoint(), "q").await;
        slow.close_before(1).await;
        let mut producer = Producer::connect(process.endpoint(), "p").await;
        let withheld = if has_record { of(2, 0..1) } else { Vec::new() };
        producer.send(&[visits(1, 10, "FR"), withheld].concat()).await;
        // One closing for both windows.
        producer.close_before(3).await;
        slow.close_before(3).await;
        let began = Clock::start();
        while deployment.released("desk").is_empty() {
            assert!(began.now() < PATIENCE, "nothing leaves");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        process.kill();
        deployment.edit(POLICY, "min_contributors = 5\n", "min_contributors = 5\nmax_defer = 3\n");
        let gateway = deployment.start().await;
        let mut producer = gateway.producer("p").await;
        producer.sequence = 1;
        producer.send(&visits(3, 10, "FR")).await;
        producer.close_before(4).await;
        gateway.producer("q").await.close_before(4).await;
        gateway.until("the next window leaves", |_| deployment.released("desk").len() == 2).await;
        let windows: Vec<_> = deployment.released("desk").iter().map(|line| line["windows"].as_u64()).collect();
        // Minute 1 left when cells did not wait; minute 2 did not leave.
        assert_eq!(windows, [None, Some(2)], "has_record: {has_record}");
        gateway.stop().await;
    }
}

#[test]
fn check_says_for_how_long_cells_wait() {
    let deployment = deployment();
    let said = text(&run(deployment.root(), &["check"]).stdout);
    assert!(said.contains("waits for the next 2 windows, PT2M in all, and leaves with one of them"), "{said}");
    let told: Value = serde_json::from_str(&text(&run(deployment.root(), &["check", "--json"]).stdout)).unwrap();
    assert_eq!(told["datasets"][0]["max_defer"], json!({ "windows": 2, "time": "PT2M" }));
    deployment.edit(POLICY, "max_defer = 2", "max_defer = 101");
    let said = text(&run(deployment.root(), &["check"]).stderr);
    assert!(said.contains("`max_defer` is 101, and must be 0 to 100"), "{said}");
    deployment.edit(POLICY, "max_defer = 101", "max_defer = 2");
    deployment.edit(POLICY, r#"name = "visits""#, r#"name = "windows""#);
    let said = text(&run(deployment.root(), &["check"]).stderr);
    assert!(said.contains("a release already has a column `windows`"), "{said}");
}

/// A release from before cells waited, and one from after, are in files of their own: one file has one kind of columns.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_before_and_after_are_apart() {
    let deployment = Deployment::new();
    let directory = "directory    = \"released/desk\"\n";
    deployment.edit(
        "gateway.toml",
        &format!("{directory}rotate_after = \"PT0S\""),
        &format!("{directory}format = \"parquet\"\nrotate_after = \"PT1H\""),
    );
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    producer.send(&of(1, 0..20)).await;
    producer.close_before(2).await;
    let began = Clock::start();
    while deployment.released("hub").is_empty() {
        assert!(began.now() < PATIENCE, "nothing leaves");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    process.kill();
    deployment.edit(POLICY, "min_contributors = 5\n", "min_contributors = 5\nmax_defer = 2\n");
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.sequence = 1;
    producer.send(&of(2, 0..20)).await;
    producer.close_before(3).await;
    gateway.until("the second one leaves", |_| deployment.released("hub").len() == 2).await;
    gateway.stop().await;
    let files = fs::read_dir(deployment.path("released/desk/by_country")).unwrap();
    assert_eq!(files.count(), 2);
    assert_eq!(
        deployment.released("hub").iter().map(|line| line["windows"].as_u64()).collect::<Vec<_>>(),
        [None, Some(1)]
    );
}
