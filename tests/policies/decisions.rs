//! What the ledger says of decisions besides releases: what was refused, and what was read again.

use serde_json::{Value, json};

use super::deployment::{Deployment, POLICY, REGIME, visits};
use crate::common::ledger::{entries, of_kind};

/// What the ledger says of a kind, without what each entry has.
fn said(deployment: &Deployment, kind: &str) -> Vec<Value> {
    let said = entries(&deployment.path("journal/ledger"));
    let said = of_kind(&said, kind).into_iter().cloned().map(|mut entry| {
        let entry_of = entry.as_object_mut().unwrap();
        for key in ["v", "time", "kind", "entry", "outbox"] {
            entry_of.shift_remove(key);
        }
        entry
    });
    said.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_records_are_said_in_steps_with_closings_and_none_is_forgotten_over_a_restart() {
    let deployment = Deployment::new();
    // The law asks for 10 contributors: the steps are of 20 records.
    for minute in 1..=3 {
        let gateway = deployment.start().await;
        let mut producer = gateway.producer("p").await;
        // By a rule, and by none.
        let records = [visits(minute, 15, "IN"), visits(minute, 15, "JP")].concat();
        let response = producer.publish_as(minute.into(), &records).await;
        assert_eq!(response.accepted, 0);
        // What is sent again is refused again, and counts once.
        producer.publish_as(minute.into(), &records).await;
        producer.close_before(minute + 1).await;
        gateway.stop().await;
    }
    let refused = |closed_before: &str, reason: &str, rules: &[&str]| {
        json!({
            "stream": "visits", "closed_before": closed_before, "reason": reason, "rules": rules, "records": 20
        })
    };
    let closings = ["2026-01-05T12:03:00Z", "2026-01-05T12:04:00Z"];
    let expected = closings
        .map(|before| [refused(before, "may_not_be_here", &["bb/misroute"]), refused(before, "no_regime", &[])]);
    assert_eq!(said(&deployment, "refused"), expected.concat(), "of 15, 30 and 45 records");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reload_is_said_with_what_came_of_it() {
    let deployment = Deployment::new();
    let gateway = deployment.start().await;
    gateway.reload().await.unwrap();
    deployment.set_k(12);
    let policy = gateway.reload().await.unwrap();
    deployment.write(POLICY, "no policy");
    gateway.reload().await.unwrap_err();
    gateway.stop().await;
    let outcomes = ["unchanged", "changed", "refused"].map(|outcome| json!({ "of": "policies", "outcome": outcome }));
    assert_eq!(said(&deployment, "reload"), outcomes);
    let in_force = said(&deployment, "policy");
    assert_eq!((in_force.len(), in_force[2]["reload"].as_bool()), (3, Some(true)));
    assert!(in_force[2]["policy"].as_str().unwrap().starts_with(&policy));
}

#[test]
fn a_reload_says_what_is_other_than_before_and_a_refused_one_what_helps() {
    let deployment = Deployment::new();
    let gateway = deployment.spawn();
    for file in ["policies/classes.toml", POLICY, REGIME, "policies/bb.toml"] {
        deployment.write(&file.replacen("policies/", "shadow/", 1), deployment.read(file));
    }
    let says = |words: &str| {
        let said = gateway.reload();
        assert!(said.contains(words), "{said}");
        said
    };
    says("nothing has changed; the same policies are in force");
    deployment.add("gateway.toml", "\n[shadow]\npolicies = [\"shadow\"]\n");
    let shadow = says("the same policies are in force, and others are in shadow");
    assert!(shadow.contains("shadow="), "{shadow}");
    deployment.edit("gateway.toml", "[shadow]\npolicies = [\"shadow\"]\n", "");
    says("the same policies are in force, and none are in shadow any more");
    deployment.set_k(12);
    says("other policies are in force");
    deployment.edit(POLICY, "size = \"PT1M\"", "size = \"PT2M\"");
    let restart = says("the last good ones stay: restart the gateway");
    assert!(restart.contains("window was PT1M, is PT2M") && !restart.contains("SIGHUP"), "{restart}");
    deployment.write(POLICY, "no policy");
    let correct = says("correct the file that it names, then send SIGHUP again");
    assert!(!correct.contains("restart"), "{correct}");
    gateway.stop();
}
