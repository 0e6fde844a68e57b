//! A dataset that tells only what has changed, over kills, stops and reloads.

use std::time::Duration;

use bailiwick::app::App;
use bailiwick::clock::Clock;
use bailiwick::engine::sequencer::CheckpointsDue;
use serde_json::Value;

use crate::common::PATIENCE;
use crate::common::process::{run, text};

use super::deployment::{Deployment, POLICY, Producer, visits};

fn deployment() -> Deployment {
    let deployment = Deployment::new();
    deployment.edit(POLICY, "min_contributors = 5\n", "min_contributors = 5\nonly_on_change = true\n");
    deployment.set_k(5);
    deployment
}

/// What a destination was told, in order: the minute, the country, how the cell changes what it has, how many records.
fn told(deployment: &Deployment, destination: &str) -> Vec<(u64, String, String, Option<u64>)> {
    let cells = deployment.released(destination).into_iter().map(|line| {
        let text = |column: &str| line[column].as_str().unwrap().to_owned();
        let minute = text("window_start")[14..16].parse().unwrap();
        (minute, text("country"), text("change"), line["visits"].as_u64())
    });
    let mut cells: Vec<_> = cells.collect();
    cells.sort();
    cells
}

fn told_of<'c>(
    cells: impl IntoIterator<Item = (u64, &'c str, &'c str, u64)>,
) -> Vec<(u64, String, String, Option<u64>)> {
    let cells = cells.into_iter().map(|(minute, country, change, visits)| {
        (minute, country.to_owned(), change.to_owned(), (change != "gone").then_some(visits))
    });
    cells.collect()
}

/// Waits until both destinations have so many cells.
async fn until_told(deployment: &Deployment, cells: usize) {
    let began = Clock::start();
    while deployment.released("desk").len() < cells || deployment.released("hub").len() < cells {
        assert!(began.now() < PATIENCE, "{cells} cells: {:?}", told(deployment, "desk"));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn unchanged(app: &App) -> u64 {
    app.telemetry().total_of_datasets(|counts| &counts.cells_unchanged)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_change_is_not_told_and_what_is_gone_is_over_kills_and_stops() {
    let deployment = deployment();
    let mut expected = vec![(1, "DE", "all", 6), (1, "FR", "all", 7)];
    for (sequence, minute) in [(0, 1), (1, 2)] {
        let process = deployment.spawn();
        let mut producer = Producer::connect(process.endpoint(), "p").await;
        producer.sequence = sequence;
        // In minute 2 there is one more of Germany.
        producer.send(&[visits(minute, 5 + minute as usize, "DE"), visits(minute, 7, "FR")].concat()).await;
        producer.close_before(minute + 1).await;
        until_told(&deployment, 1 + minute as usize).await;
        process.kill();
    }
    expected.push((2, "DE", "set", 7));
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.sequence = 2;
    producer.send(&[visits(3, 7, "DE"), visits(3, 7, "FR")].concat()).await;
    producer.close_before(4).await;
    gateway.until("two cells are as they were", |app| unchanged(app) == 2).await;
    gateway.stop().await;

    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.sequence = 3;
    // Too few of France: to the desk it is as if there were none.
    producer.send(&[visits(4, 7, "DE"), visits(4, 4, "FR")].concat()).await;
    producer.close_before(5).await;
    until_told(&deployment, 4).await;
    expected.push((4, "FR", "gone", 0));
    // Nobody in minute 5: both closings come at once.
    producer.send(&[visits(6, 7, "DE"), visits(6, 7, "FR")].concat()).await;
    producer.close_before(7).await;
    until_told(&deployment, 7).await;
    expected.extend([(5, "DE", "gone", 0), (6, "DE", "set", 7), (6, "FR", "set", 7)]);
    assert_eq!(told(&deployment, "desk"), told_of(expected.clone()));
    assert_eq!(told(&deployment, "hub"), told_of(expected));
    gateway.stop().await;
}

/// Where cells wait, the outbox has an entry of each closing, also of one that told nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_change_before_a_kill_is_not_gone_after_it() {
    let deployment = deployment();
    deployment.edit(POLICY, "only_on_change = true\n", "only_on_change = true\nmax_defer = 1\n");
    deployment.add_calls();
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    // The first cell covers the window before, too. Minute 3 tells nothing.
    for minute in [1, 2, 3] {
        producer.send(&visits(minute, 6, "DE")).await;
        producer.close_before(minute + 1).await;
    }
    // Closings come one after the other. Once this one has left, the outbox has what came before it.
    let mut calls = Producer::of_stream("calls", process.endpoint(), "q").await;
    calls.send(&visits(1, 6, "FR")).await;
    calls.close_before(2).await;
    let began = Clock::start();
    while deployment.released("desk").len() < 3 {
        assert!(began.now() < PATIENCE, "nothing leaves");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    process.kill();
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    producer.sequence = 3;
    producer.send(&visits(4, 7, "DE")).await;
    producer.close_before(5).await;
    process.stop();
    assert_eq!(told(&deployment, "hub"), told_of([(1, "DE", "all", 6), (2, "DE", "set", 6), (4, "DE", "set", 7)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_windows_are_told_whole_and_a_new_destination_is_told_all() {
    let deployment = deployment();
    let without = ("country = \"US\"\naccepts = [\"by_country\"]", "country = \"US\"\naccepts = []");
    deployment.edit(POLICY, without.0, without.1);
    let policies = "policies = [\"policies\"]\n";
    deployment.edit("gateway.toml", policies, &format!("{policies}on_stop = \"release\"\n"));
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.send(&visits(1, 6, "DE")).await;
    producer.close_before(2).await;
    gateway.until("the desk has it", |_| told(&deployment, "desk").len() == 1).await;
    producer.send(&visits(2, 6, "DE")).await;
    gateway.stop().await;
    let mut expected = vec![(1, "DE", "all", 6), (2, "DE", "set", 6)];
    assert_eq!(told(&deployment, "desk"), told_of(expected.clone()));

    // The rest of the window says the same again, and is not the same.
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    producer.sequence = 2;
    producer.send(&visits(2, 6, "DE")).await;
    deployment.edit(POLICY, without.1, without.0);
    gateway.reload().await.unwrap();
    producer.close_before(3).await;
    gateway.until("the desk has the rest", |_| told(&deployment, "desk").len() == 3).await;
    expected.push((2, "DE", "set", 6));
    assert_eq!(told(&deployment, "desk"), told_of(expected.clone()));
    // The window of before the reload was decided under policies that let nothing go to the hub.
    assert_eq!(told(&deployment, "hub"), []);
    producer.send(&visits(3, 6, "DE")).await;
    producer.close_before(4).await;
    gateway.until("the hub has it", |_| told(&deployment, "hub").len() == 1).await;
    assert_eq!(told(&deployment, "hub"), told_of([(3, "DE", "all", 6)]));
    gateway.stop().await;
    assert_eq!(told(&deployment, "desk"), told_of(expected), "to the desk nothing has changed");
}

/// What was told is in the outbox as a whole. It is not written again for a few closings that change nothing, however many
/// checkpoints there are.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_does_not_change_is_not_written_at_each_checkpoint() {
    let deployment = deployment();
    // Each window has something to say: that no cell of it waits.
    deployment.edit(POLICY, "only_on_change = true\n", "only_on_change = true\nmax_defer = 1\n");
    let numbers: Vec<String> = (1..60).map(|number| number.to_string()).collect();
    let group_by = format!("group_by = [{{ field = \"amount\", edges = [{}] }}]", numbers.join(", "));
    let country = "group_by         = [{ field = \"country\", domain = [\"DE\", \"FR\", \"IN\"] }]";
    deployment.edit(POLICY, country, &group_by);
    deployment.edit(POLICY, ", { name = \"amount\", fn = \"sum\", field = \"amount\" }", "");
    let at_each = CheckpointsDue { bytes: 1, bytes_max: 1, every: Duration::ZERO };
    let gateway = deployment.start_with(|config| config.journal.checkpoints = at_each).await;
    let mut producer = gateway.producer("p").await;
    let closings = 12;
    for minute in 1..=closings {
        let of_amount = |amount: u32| {
            let amounts = visits(minute, 5, "DE").into_iter();
            amounts.map(move |mut visit| {
                visit["amount"] = (f64::from(amount) + 0.5).into();
                visit
            })
        };
        producer.send(&(0..58).flat_map(of_amount).collect::<Vec<_>>()).await;
        producer.close_before(minute + 1).await;
        // The first window may cover the one before it, so the cells of the second say something else.
        gateway.until("they are as they were", |app| unchanged(app) == u64::from(58 * minute.saturating_sub(2))).await;
    }
    gateway.stop().await;
    assert_eq!(deployment.released("desk").len(), 2 * 58);
    let found = run(deployment.root(), &["journal", "inspect", "journal", "--json"]);
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    let written = found["outbox"]["log"]["last"].as_u64().unwrap() - u64::from(closings);
    // At first, after the second window told much, and once after ten small closings.
    assert!((1..=3).contains(&written), "{written} times, {found}");
}

#[test]
fn replay_counts_cells_whether_they_have_changed_or_not() {
    let deployment = deployment();
    let lines = (0..12).map(|person| {
        format!(
            "{{\"at\": \"2013-11-01T12:00:00Z\", \"person\": \"p{person}\", \"country\": \"DE\", \"amount\": 1.0}}\n"
        )
    });
    deployment.write("records.jsonl", lines.collect::<String>());
    // What is compared with tells everything.
    for (name, policy) in [("same", "true"), ("all", "false")] {
        for file in ["classes.toml", "policy.toml", "aa.toml", "bb.toml"] {
            let text = deployment.read(&format!("policies/{file}"));
            let change = format!("only_on_change = {policy}");
            deployment.write(&format!("{name}/{file}"), text.replace("only_on_change = true", &change));
        }
        let records = ["-s", "visits", "-p", "p", "records.jsonl"];
        let replayed = run(deployment.root(), &[&["replay", "--against", name], &records[..]].concat());
        let (said, error) = (text(&replayed.stdout), text(&replayed.stderr));
        assert!(replayed.status.success(), "{said}{error}");
        let words: Vec<&str> = said.split_whitespace().collect();
        assert!(words.join(" ").contains("by_country released 1 1"), "{said}");
        assert!(said.contains("windows of which not the same would leave: 0"), "{said}");
    }
}

#[test]
fn check_explains_it_and_says_where_it_cannot_be() {
    let deployment = deployment();
    let said = text(&run(deployment.root(), &["check"]).stdout);
    assert!(said.contains("only what has changed is told"), "{said}");
    let told: Value = serde_json::from_str(&text(&run(deployment.root(), &["check", "--json"]).stdout)).unwrap();
    assert_eq!(told["datasets"][0]["only_on_change"], true);
    let refused = |says: &str| {
        let said = text(&run(deployment.root(), &["check"]).stderr);
        assert!(said.contains(says), "{said}");
    };
    deployment.edit(POLICY, r#"name = "visits""#, r#"name = "change""#);
    refused("a release already has a column `change`");
    deployment.edit(POLICY, r#"name = "change""#, r#"name = "visits""#);
    deployment.edit(POLICY, "only_on_change = true", "only_on_change = true\nroll_up = [\"country\"]");
    refused("a remainder (`roll_up`) is of other cells in each window");
    deployment.edit(POLICY, "\nroll_up = [\"country\"]", "");
    let gateway = deployment.read("gateway.toml");
    let hub = "kind = \"kafka\"\nbrokers = \"127.0.0.1:9\"\ntopic = \"t\"\n\n[destinations.hub.budget]\nbytes = 10000\nper = \"PT1H\"\n";
    deployment.edit(
        "gateway.toml",
        "kind         = \"file\"\ndirectory    = \"released/hub\"\nrotate_after = \"PT0S\"\n",
        &format!("{hub}when_short = [\"shed\"]\n"),
    );
    let unheard = "of a release that is shed, or of rows that are left out, destination `hub` would never hear";
    refused(unheard);
    let top = "when_short = [\"top\", \"defer\"]\ntop = { rows = 1, by = \"visits\" }\n";
    deployment.edit("gateway.toml", "when_short = [\"shed\"]\n", top);
    refused(unheard);
    let step = "when_short = [\"on_change\", \"defer\"]\n";
    deployment.edit("gateway.toml", top, step);
    refused(unheard);
    deployment.edit(POLICY, "only_on_change = true", "");
    let told: Value = serde_json::from_str(&text(&run(deployment.root(), &["check", "--json"]).stdout)).unwrap();
    assert_eq!(told["budgets"][0]["when_short"], serde_json::json!(["on_change", "defer"]));
    deployment.edit(POLICY, r#"{ name = "amount""#, r#"{ name = "Since""#);
    refused("`by_country` has a column `Since`");
    deployment.edit(POLICY, r#"{ name = "Since""#, r#"{ name = "amount""#);
    deployment.edit("gateway.toml", step, top);
    deployment.edit(POLICY, r#"{ name = "amount""#, r#"{ name = "degraded""#);
    refused("`by_country` has a column `degraded`");
    deployment.edit(POLICY, r#"{ name = "degraded""#, r#"{ name = "amount""#);
    deployment.edit("gateway.toml", top, "when_short = [\"roll_up\", \"defer\"]\nroll_up = [\"country\"]\n");
    deployment.edit(POLICY, r#"domain = ["DE", "FR", "IN"]"#, r#"domain = ["DE", "FR", "all"]"#);
    refused("`country` of `by_country` has the value `all`");
    deployment.edit(POLICY, r#"domain = ["DE", "FR", "all"]"#, r#"domain = ["DE", "FR", "IN"]"#);
    deployment.edit(POLICY, "min_contributors = 5\n", "min_contributors = 5\nonly_on_change = true\n");
    deployment.write("gateway.toml", gateway);
    deployment.edit(
        POLICY,
        "metrics  ",
        "privacy = { mechanism = \"discrete_laplace\", rho_per_window = 0.01, rho_per_day = 0.1 }\nmetrics  ",
    );
    refused("each release has noise of its own");
}
