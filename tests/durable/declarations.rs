//! What has closed stays closed, and what was counted is counted on only as it was declared: whatever is declared after a
//! stop or a crash.

use bailiwick::config::OnStop;
use jiff::SignedDuration;
use serde_json::Value;

use crate::common::gateway;
use crate::common::process::{run, text};

use super::deployment::{Deployment, complete, now, publish, visits};

const NOW: SignedDuration = SignedDuration::ZERO;
const WINDOW: &str = r#"size = "PT1M""#;
const DOMAIN: &str = r#"domain = ["DE", "FR", "IN"]"#;

#[tokio::test(flavor = "multi_thread")]
async fn another_size_of_windows_after_a_stop_neither_loses_nor_repeats() {
    for size in ["PT5M", "PT20S", "PT7S"] {
        let deployment = Deployment::new();
        let app = deployment.start().await.unwrap();
        assert_eq!(publish(&app, visits((1, 1), 20, SignedDuration::from_mins(5))).await.accepted, 20);
        complete(&app, &deployment, 1).await;
        app.stop().await;
        deployment.replace(WINDOW, &format!("size = \"{size}\""));
        let app = deployment.start().await.unwrap();
        assert_eq!(publish(&app, visits((1, 2), 20, NOW)).await.accepted, 20);
        app.stop().await;
        assert_eq!(deployment.counted(), 40, "windows of {size}");
        let released = deployment.released();
        let starts: Vec<&str> = released.iter().map(|line| line["window_start"].as_str().unwrap()).collect();
        let year = |start: &str| start[..4].parse::<i16>().unwrap();
        let now = now().to_string();
        assert!(starts.iter().all(|start| (year(start) - year(&now)).abs() <= 1), "{starts:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_no_other_declaration_is_counted_on() {
    let deployment = Deployment::new();
    let app = deployment.start().await.unwrap();
    publish(&app, visits((1, 1), 20, SignedDuration::from_mins(3))).await;
    complete(&app, &deployment, 1).await;
    // The window was released, and no checkpoint has it yet.
    let crash = deployment.crashed();
    let changes = [
        (WINDOW, r#"size = "PT30S""#, "window"),
        (DOMAIN, r#"domain = ["DE", "FR"]"#, "country"),
        (r#"fn = "count""#, r#"fn = "mean", field = "amount""#, "visits"),
        ("[datasets.by_country]", "[datasets.by_land]", "not declared any more"),
    ];
    for (from, to, what) in changes {
        let crashed = crash.crashed();
        crashed.replace(from, to);
        if to.contains("by_land") {
            crashed.replace(r#"accepts = ["by_country"]"#, r#"accepts = ["by_land"]"#);
        }
        // Twice: a start that is refused must not make the next one believe otherwise.
        for _ in 0..2 {
            let error = match crashed.start().await {
                Ok(_) => panic!("{to}: started"),
                Err(error) => format!("{error:#}"),
            };
            let checked = bailiwick::app::check_journal(&crashed.config()).unwrap_err();
            assert_eq!(format!("{checked:#}"), error, "`check` says the same");
            let checked = run(crashed.root(), &["check", "--json"]);
            assert_eq!(checked.status.code(), Some(1), "{}", text(&checked.stderr));
            let report: Value = serde_json::from_slice(&checked.stdout).unwrap();
            let problem = report["problems"].as_array().unwrap().last().unwrap();
            assert_eq!((&problem["key"], &problem["severity"]), (&"journal".into(), &"error".into()));
            let said = |message: &str| message.split_once("journal: ").unwrap().1.to_owned();
            assert_eq!(said(problem["message"].as_str().unwrap()), said(&error));
            assert!(error.contains("by_country") && error.contains(what) && error.contains("on_stop"), "{error}");
        }
    }
    let crashed = crash.crashed();
    crashed.start().await.unwrap().stop().await;
    assert_eq!(crashed.counted(), 20, "released once");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_windows_are_told_as_times() {
    let deployment = Deployment::new();
    let mut config = deployment.config();
    config.on_stop = OnStop::Keep;
    config.listen.set_port(0);
    let app = gateway::start(config).await.unwrap();
    publish(&app, visits((1, 1), 20, NOW)).await;
    app.stop().await;
    let inspected = text(&run(deployment.root(), &["journal", "inspect"]).stdout);
    assert!(inspected.contains("dataset by_country: one open window, which began 20"), "{inspected}");
    let inspected = run(deployment.root(), &["journal", "inspect", "--json"]);
    let report: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    let open = &report["checkpoint"]["open_windows"][0];
    assert_eq!((&open["dataset"], open["starts"].as_array().unwrap().len()), (&"by_country".into(), 1));
    assert!(open["starts"][0].as_str().unwrap().ends_with(":00Z"), "{open}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_nothing_uses_may_be_added_also_after_a_crash() {
    let deployment = Deployment::new();
    let app = deployment.start().await.unwrap();
    publish(&app, visits((1, 1), 20, NOW)).await;
    let crashed = deployment.crashed();
    // Before the others, so that every column has another position.
    let at = r#"at      = { type = "timestamp", class = "personal" }"#;
    crashed.replace(at, &format!("added = {{ type = \"int64\", class = \"operational\", required = false }}\n{at}"));
    let again = crashed.start().await.unwrap();
    assert_eq!(publish(&again, visits((1, 2), 20, NOW)).await.accepted, 20);
    again.stop().await;
    assert_eq!(crashed.counted(), 40);
    // And once more: what was written under both declarations is read.
    let restarted = crashed.start().await.unwrap();
    restarted.stop().await;
    assert_eq!(crashed.counted(), 40);
    app.stop().await;
}
