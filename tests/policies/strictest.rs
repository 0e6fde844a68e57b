//! Policies that change while windows are open: the strictest of those that their records were decided under and the one in
//! force governs what leaves.

use std::fs;
use std::time::Duration;

use super::deployment::{Deployment, Gateway, POLICY, Process, Producer, REGIME, regime, visits};
use crate::common::changed;
use crate::common::process::{run, text};

const PERSONS: usize = 15;

fn minutes(deployment: &Deployment, destination: &str) -> Vec<u32> {
    deployment.counts(destination).into_iter().map(|(minute, ..)| minute).collect()
}

/// So many persons in a minute, the last one unless another is sent.
async fn fill(producer: &mut Producer, minute: u32) {
    producer.send(&visits(minute, PERSONS, "DE")).await;
}

async fn reload(gateway: &Gateway, deployment: &Deployment) {
    assert_eq!(gateway.reload().await, Ok(deployment.digest()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_greater_number_of_contributors_holds_for_a_window_whichever_came_first() {
    let deployment = Deployment::new();
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    fill(&mut producer, 1).await;
    deployment.set_k(20);
    reload(&gateway, &deployment).await;
    // Records under 10, closed under 20.
    fill(&mut producer, 2).await;
    producer.close_before(2).await;
    gateway
        .until("the window is withheld", |app| app.telemetry().total_of_datasets(|counts| &counts.cells_withheld) == 1)
        .await;
    deployment.set_k(10);
    reload(&gateway, &deployment).await;
    // Records under 20, and some more under 10; closed under 10.
    producer.send(&visits(2, PERSONS, "DE")).await;
    fill(&mut producer, 3).await;
    producer.close_before(9).await;
    gateway.stop().await;
    assert_eq!(deployment.counts("desk"), [(3, "DE".to_owned(), PERSONS as i64)]);
    assert_eq!(deployment.counts("hub"), [(3, "DE".to_owned(), PERSONS as i64)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_one_version_does_not_allow_gets_nothing_of_the_window() {
    let deployment = Deployment::new();
    let hub = "country = \"US\"\naccepts = [\"by_country\"]";
    let none = "country = \"US\"\naccepts = []";
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    // Allowed by the first version, not by the one in force when the window closes.
    fill(&mut producer, 1).await;
    deployment.edit(POLICY, hub, none);
    reload(&gateway, &deployment).await;
    fill(&mut producer, 2).await;
    producer.close_before(2).await;
    gateway
        .until("the window is released", |app| app.telemetry().total_of_datasets(|counts| &counts.releases) == 1)
        .await;
    // The other way round.
    deployment.edit(POLICY, none, hub);
    reload(&gateway, &deployment).await;
    fill(&mut producer, 3).await;
    producer.close_before(9).await;
    gateway.stop().await;
    assert_eq!(minutes(&deployment, "desk"), [1, 2, 3]);
    assert_eq!(minutes(&deployment, "hub"), [3]);
}

/// Stops a gateway in the given way while a window of records under `before` is open, and goes on under `after`.
async fn across(deployment: &Deployment, before: usize, after: usize, stop: fn(Process)) {
    deployment.set_k(before);
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    fill(&mut producer, 1).await;
    let sequence = producer.sequence;
    stop(process);
    deployment.set_k(after);
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    producer.sequence = sequence;
    fill(&mut producer, 2).await;
    producer.close_before(9).await;
    process.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn that_holds_across_a_restart_from_a_checkpoint_and_from_the_journal() {
    let with_checkpoint: fn(Process) = |process| drop(process.stop());
    for stop in [with_checkpoint, Process::kill] {
        for (before, after, left) in [(20, 10, vec![2]), (10, 20, vec![]), (10, 12, vec![1, 2])] {
            let deployment = Deployment::new();
            deployment.edit("gateway.toml", "[journal]\n", "[journal]\ncheckpoint_every = \"PT1H\"\n");
            across(&deployment, before, after, stop).await;
            assert_eq!(minutes(&deployment, "desk"), left, "{before}, then {after}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_regime_that_is_not_served_any_more_still_governs_what_was_decided_under_it() {
    for is_reloaded in [false, true] {
        let deployment = Deployment::new();
        let law = changed(&regime("cc", "\"DE\"", "DE", "redirect"), "min_contributors = 10", "min_contributors = 20");
        deployment.write("policies/cc.toml", law);
        deployment.edit("gateway.toml", "serves   = [\"aa\"]", "serves   = [\"aa\", \"cc\"]");
        let gateway = deployment.start().await;
        let mut producer = gateway.producer("p").await;
        fill(&mut producer, 1).await;
        gateway.stop().await;
        // The policies are the same ones, and so is their digest.
        deployment.edit("gateway.toml", "serves   = [\"aa\", \"cc\"]", "serves   = [\"aa\"]");
        let gateway = deployment.start().await;
        if is_reloaded {
            reload(&gateway, &deployment).await;
        }
        gateway.producer("p").await.close_before(9).await;
        gateway.stop().await;
        assert_eq!(minutes(&deployment, "desk"), Vec::<u32>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_records_that_were_decided_under_policies_that_are_lost_nothing_leaves() {
    let deployment = Deployment::new();
    let gateway = deployment.start_with(|config| config.journal.checkpoints.every = Duration::from_secs(3_600)).await;
    let mut producer = gateway.producer("p").await;
    fill(&mut producer, 1).await;
    let sequence = producer.sequence;
    gateway.stop().await;
    let kept: Vec<_> = fs::read_dir(deployment.path("journal/policies")).unwrap().map(|file| file.unwrap()).collect();
    assert_eq!(kept.len(), 1);
    let before = deployment.digest();
    fs::remove_file(kept[0].path()).unwrap();
    deployment.set_k(11);
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    producer.sequence = sequence;
    fill(&mut producer, 2).await;
    producer.close_before(9).await;
    let error = process.wait_for("policies that are lost", 1);
    assert!(error.contains("ERROR") && error.contains("by_country") && error.contains(&before), "{error}");
    process.stop();
    assert_eq!(minutes(&deployment, "desk"), [2]);
    assert_eq!(minutes(&deployment, "hub"), [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_override_that_is_in_date_lowers_the_number_for_its_dataset_and_destination_only() {
    let relaxed = |dataset: &str, destination: &str, until: &str| {
        format!(
            "\n[[overrides]]\nid = \"OVR-7\"\nrelaxes = \"min_contributors\"\nvalue = 5\n\
             scope = {{ dataset = \"{dataset}\", destination = \"{destination}\" }}\nreason = \"a test\"\n\
             approved = [\"dpo@acme.example\", \"ciso@acme.example\"]\nuntil = {until}\n"
        )
    };
    // Another stream with a dataset of its own.
    let other = r#"
[streams.calls]
event_time  = "at"
history_from = "2013-01-01T00:00:00Z"
contributor = "person"

[streams.calls.facts]
"subject.residence" = [{ field = "country", strength = 90 }]

[streams.calls.fields]
at      = { type = "timestamp", class = "personal" }
person  = { type = "string", class = "personal" }
country = { type = "string", class = "personal" }

[datasets.calls]
stream           = "calls"
window           = { size = "PT1M", grace = "PT1S" }
min_contributors = 5
group_by         = [{ field = "country", domain = ["DE"] }]
metrics          = [{ name = "calls", fn = "count" }]
"#;
    let cases = [
        (relaxed("by_country", "hub", "2099-01-01"), vec!["hub"]),
        (relaxed("by_country", "desk", "2099-01-01"), vec!["desk"]),
        (relaxed("calls", "hub", "2099-01-01"), vec![]),
        (relaxed("by_country", "hub", "2020-01-01"), vec![]),
        (String::new(), vec![]),
    ];
    for (more, expected) in cases {
        let deployment = Deployment::new();
        deployment.edit(POLICY, "accepts = [\"by_country\"]", "accepts = [\"by_country\", \"calls\"]");
        deployment.add(POLICY, &format!("{other}{more}"));
        let gateway = deployment.start().await;
        let mut producer = gateway.producer("p").await;
        producer.send(&visits(1, 7, "DE")).await;
        producer.close_before(9).await;
        gateway.stop().await;
        let left: Vec<_> =
            ["desk", "hub"].into_iter().filter(|destination| !deployment.counts(destination).is_empty()).collect();
        assert_eq!(left, expected, "{more}");
    }
    let deployment = Deployment::new();
    for (from, to) in [(", \"ciso@acme.example\"", ""), ("ciso@acme.example", "dpo@acme.example")] {
        let text = changed(&relaxed("by_country", "hub", "2099-01-01"), from, to);
        deployment.write("policies/overrides.toml", format!("schema = \"bailiwick.policy/1\"\n{text}"));
        let errors = deployment.errors();
        assert!(errors.iter().any(|error| error.contains("overrides.toml")), "{errors:?}");
    }
    deployment.write(
        "policies/overrides.toml",
        format!("schema = \"bailiwick.policy/1\"\n{}", relaxed("by_country", "hub", "2099-01-01")),
    );
    assert_eq!(deployment.errors(), Vec::<String>::new());
    assert!(deployment.read(REGIME).contains("min_contributors = 10"));
}

#[test]
fn check_says_when_a_sum_is_null() {
    let deployment = Deployment::new();
    let said = text(&run(deployment.root(), &["check"]).stdout);
    let null = "null unless that is so, and for each end of the field's range as many or nobody have values that are not at \
                that end: amount";
    assert!(said.contains(null), "{said}");
}
