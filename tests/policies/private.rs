//! Differential privacy of a running gateway: noise is paid for from the budget of a day, and is not drawn again, whatever is
//! killed.

use std::fs;

use serde_json::Value;

use super::deployment::{Deployment, POLICY, Producer, visits};
use crate::common::http::{check, get};
use crate::common::ledger::{entries, of_kind};
use crate::common::process::{run, text};
use crate::common::{free_port, until};

/// A day has enough for two windows. The noise of contributors and of records has a standard deviation of 7.1.
const PRIVACY: &str = r#"
[release.private]
records_per_contributor = 1
cells_per_contributor   = 1

[datasets.by_country.privacy]
mechanism      = "discrete_gaussian"
rho_per_window = 0.03
rho_per_day    = 0.06
"#;

fn deployment() -> Deployment {
    let deployment = Deployment::new();
    deployment.edit(POLICY, "group_by  ", "release = \"private\"\ngroup_by  ");
    deployment.add(POLICY, PRIVACY);
    deployment.set_k(5);
    deployment
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_leave_with_noise_until_the_budget_of_their_day_is_spent() {
    let deployment = deployment();
    let mut before: Vec<Value> = Vec::new();
    for minute in 1..=2 {
        let process = deployment.spawn();
        let mut producer = Producer::connect(process.endpoint(), "p").await;
        producer.sequence = u64::from(minute - 1);
        // Three persons are too few, whatever the noise: their cell is as good as never seen.
        producer.send(&[visits(minute, 400, "DE"), visits(minute, 3, "FR")].concat()).await;
        producer.close_before(minute + 1).await;
        let released = deployment.until_released(minute as usize).await;
        assert_eq!(released[..before.len()], before, "what was released is released again in other words");
        before = released;
        process.kill();
    }
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    producer.sequence = 2;
    producer.send(&visits(3, 400, "DE")).await;
    producer.close_before(4).await;
    process.stop();
    assert_eq!(deployment.released("desk"), before);
    assert_eq!(deployment.released("hub"), before, "all destinations have the same noise");
    for (_, country, visits) in deployment.counts("desk") {
        assert_eq!(country, "DE");
        // Nine standard deviations.
        assert!((visits - 400).abs() < 64, "{visits}");
    }
    let said = entries(&deployment.path("journal/ledger"));
    let budgets: Vec<(String, u64)> = of_kind(&said, "privacy")
        .iter()
        .map(|entry| (entry["outcome"].as_str().unwrap().to_owned(), entry["rho_billionths"].as_u64().unwrap()))
        .collect();
    let noised = || ("noised".to_owned(), 30_000_000);
    assert_eq!(budgets, [noised(), noised(), ("spent".to_owned(), 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_says_which_windows_a_days_budget_pays_for_and_draws_no_noise() {
    let deployment = deployment();
    let gateway = deployment.start().await;
    let mut producer = gateway.producer("p").await;
    for minute in 1..=3 {
        producer.send(&[visits(minute, 400, "DE"), visits(minute, 3, "FR")].concat()).await;
        producer.close_before(minute + 1).await;
    }
    let telemetry = gateway.app.telemetry().clone();
    gateway.stop().await;
    assert_eq!(telemetry.total_of_datasets(|counts| &counts.windows_noised), 2);
    assert_eq!(telemetry.total_of_datasets(|counts| &counts.windows_without_budget), 1);
    let replayed = |change: &dyn Fn(&Deployment)| {
        let other = deployment.copy();
        change(&other);
        let against = other.path("policies").display().to_string();
        let arguments = ["replay", "-c", "gateway.toml", "--against", &against, "--journal", "journal"];
        let replayed = run(deployment.root(), &arguments);
        assert!(replayed.status.success(), "{}", text(&replayed.stderr));
        text(&replayed.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let note = "by_country: windows leave with noise, which is not drawn here: which of the cells leave is not known";
    let says = |report: &str, lines: &[&str]| {
        for line in lines {
            assert!(report.contains(&format!("by_country {line}")), "{line}: {report}");
        }
        assert!(report.contains(note), "{report}");
    };
    // All four cells of the domain get noise.
    let report = replayed(&|other| other.edit(POLICY, "rho_per_day    = 0.06", "rho_per_day    = 0.09"));
    says(
        &report,
        &[
            "windows that leave with noise 2 3",
            "cells that get noise in them 8 12",
            "windows without budget 1 0",
            "2026-01-05T12:03:00Z no budget with noise - - - -",
        ],
    );
    let (_, leaving) = report.split_once("cells that would leave").unwrap();
    assert!(!leaving.contains("by_country released") && !leaving.contains("withheld:"), "{report}");
    assert!(report.contains("windows of which not the same would leave: 1"), "{report}");
    let report = replayed(&|other| {
        let (before, privacy) = (other.read(POLICY), "[datasets.by_country.privacy]");
        other.write(POLICY, before.split(privacy).next().unwrap());
    });
    says(
        &report,
        &[
            "windows that leave with noise 2 -",
            "windows without budget 1 -",
            "released - 3",
            "withheld: too few contributors - 3",
            "2026-01-05T12:01:00Z with noise 1 - 1 - 0",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_the_budgets_is_watched_as_the_others_are() {
    let deployment = deployment();
    let address = format!("127.0.0.1:{}", free_port());
    deployment.add("gateway.toml", &format!("\n[http]\nlisten = \"{address}\"\n"));
    let process = deployment.spawn();
    let state = || check(&address, "privacy")["state"].as_str().unwrap().to_owned();
    assert_eq!(state(), "well");
    let metrics = get(&address, "/metrics").1;
    assert!(metrics.contains("bailiwick_log_state{log=\"privacy\",state=\"healthy\"} 1"), "{metrics}");
    let (here, elsewhere) = (deployment.path("journal/privacy"), deployment.path("journal/elsewhere"));
    fs::rename(&here, &elsewhere).unwrap();
    until(|| (state() == "warning").then_some(()));
    let said = check(&address, "privacy");
    assert!(said["says"].as_str().unwrap().starts_with("the budgets of privacy cannot be written: "), "{said}");
    // What has no noise goes on.
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    producer.send(&visits(1, 2, "DE")).await;
    fs::rename(&elsewhere, &here).unwrap();
    until(|| (state() == "well").then_some(()));
    fs::remove_dir_all(&here).unwrap();
    let code = until(|| process.ended()).code();
    assert_eq!(code, Some(70));
    process.wait_for("files of the log `privacy` were removed while it ran", 1);
}

/// All is gone but the file that says that a gateway ran here.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_logs_were_emptied_is_not_a_new_one() {
    let deployment = deployment();
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    producer.send(&visits(1, 400, "DE")).await;
    producer.close_before(2).await;
    deployment.until_released(1).await;
    process.kill();
    for directory in ["log", "outbox", "privacy", "checkpoints"] {
        fs::remove_dir_all(deployment.path("journal").join(directory)).unwrap();
    }
    let process = deployment.spawn();
    process.wait_for("it is not known what was spent of the budgets of privacy", 1);
    process.kill();
}

/// A bit of a charge flips.
#[tokio::test(flavor = "multi_thread")]
async fn verify_names_the_file_of_the_budgets_that_is_damaged() {
    let deployment = deployment();
    let process = deployment.spawn();
    let mut producer = Producer::connect(process.endpoint(), "p").await;
    producer.send(&visits(1, 400, "DE")).await;
    producer.close_before(2).await;
    deployment.until_released(1).await;
    process.stop();
    let verify = |arguments: &[&str]| run(deployment.root(), &[&["journal", "verify", "journal"], arguments].concat());
    let sound = verify(&[]);
    assert!(sound.status.success() && text(&sound.stdout).contains("budgets of privacy: 1 charges"), "{sound:?}");
    let name = b"by_country";
    let files = fs::read_dir(deployment.path("journal/privacy")).unwrap().map(|entry| entry.unwrap().path());
    let at = |bytes: &[u8]| bytes.windows(name.len()).position(|bytes| bytes == name);
    let charged = files.filter_map(|file| Some((at(&fs::read(&file).unwrap())?, file)));
    let (at, file) = charged.collect::<Vec<_>>().pop().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes[at] ^= 1;
    fs::write(&file, bytes).unwrap();
    let damaged = verify(&[]);
    let said = text(&damaged.stdout);
    let file = file.file_name().unwrap().to_str().unwrap();
    assert_eq!(damaged.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("DAMAGE in {file}, bytes ")), "{said}");
    let json: Value = serde_json::from_slice(&verify(&["--json"]).stdout).unwrap();
    assert_eq!((&json["is_sound"], json["privacy"]["log"]["damage"].as_array().unwrap().len()), (&false.into(), 1));
    // A start says the same.
    let words = "nothing is left of the days through today";
    assert!(said.contains(words), "{said}");
    let process = deployment.spawn();
    process.wait_for(words, 1);
    process.kill();
    // What begins the log is gone with its files.
    fs::remove_dir_all(deployment.path("journal/privacy")).unwrap();
    fs::create_dir(deployment.path("journal/privacy")).unwrap();
    let emptied = verify(&[]);
    let said = text(&emptied.stdout);
    assert!(emptied.status.code() == Some(1) && said.contains("DAMAGE `privacy` holds no segment; "), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn privacy_is_declared_at_the_start_and_forgets_nothing() {
    let deployment = deployment();
    let gateway = deployment.start().await;
    gateway.producer("p").await.send(&visits(1, 400, "DE")).await;
    deployment.edit(POLICY, "rho_per_window = 0.03", "rho_per_window = 0.02");
    let refused = gateway.reload().await.unwrap_err();
    assert!(refused.contains("declared otherwise than at the start: dataset `by_country` (its privacy"), "{refused}");
    gateway.stop().await;
}

#[test]
fn what_cannot_have_noise_is_refused_with_the_reason() {
    let refused = |from: &str, to: &str| {
        let deployment = deployment();
        deployment.edit(POLICY, from, to);
        deployment.errors()
    };
    let said = |from: &str, to: &str, expected: &str| {
        let problems = refused(from, to);
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected}: {problems:?}");
    };
    assert_eq!(deployment().errors(), [""; 0]);
    said(
        "cells_per_contributor   = 1",
        "",
        "noise hides one contributor only if it is known how much one adds at most",
    );
    said("fn = \"sum\"", "fn = \"variance\"", "`amount` is a variance, and squares get no noise");
    said("fn = \"sum\"", "fn = \"mean\"", "`amount` is a mean of `amount`, which a record may be without");
    said("size = \"PT1M\"", "size = \"PT7M\"", "the budget is one of each day (UTC)");
    said("rho_per_day    = 0.06", "rho_per_day = 0.02", "`rho_per_window` is 0.03, and a day has 0.02");
    said("rho_per_day    = 0.06", "rho_per_day = 0.6", "this is 0.6, and `rho_per_day` is from 0.000001 to 0.5");
    said("discrete_gaussian", "gaussian", "`gaussian` cannot be used here");
    // A profile can ask for noise, and a law's too.
    let deployment = Deployment::new();
    deployment.add(POLICY, "\n[release.private]\nrho_per_day = 0.1\n");
    deployment.edit("policies/aa.toml", "min_contributors", "release = \"private\"\nmin_contributors");
    let problems = deployment.errors();
    assert!(
        problems.iter().all(|problem| problem.contains("its release profile asks for differential privacy")),
        "{problems:?}"
    );
    assert_eq!(problems.len(), 2, "{problems:?}");
}
