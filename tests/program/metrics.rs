//! Health and metrics as their users see them: the page, the port, `bailiwick health`.

use std::fs;

use bailiwick::telemetry::declared;
use serde_json::Value;

use crate::common::folder::Folder;
use crate::common::http::{check, get};
use crate::common::process::{Process, copy_of, run, text};
use crate::common::{changed, until};

const BEGIN: &str = "<!-- made -->\n";
const END: &str = "<!-- end -->\n";

#[test]
fn the_page_has_the_declared_metrics() {
    let path = crate::common::root().join("docs/metrics.md");
    let page = fs::read_to_string(&path).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (_, tail) = rest.split_once(END).unwrap();
    let made = format!("{head}{BEGIN}{}{END}{tail}", declared::tables());
    if std::env::var_os("BAILIWICK_WRITE").is_some() {
        fs::write(&path, &made).unwrap();
    }
    assert!(made == fs::read_to_string(&path).unwrap(), "docs/metrics.md is old: it says how to write it again");
}

/// An example's gateway that tells its health on a port that the system chose; where.
fn told() -> (Folder, Process, String) {
    let (folder, _) = copy_of("card-fraud");
    let config = folder.path("examples/card-fraud/gateway.toml");
    let port = crate::common::free_port();
    let said = fs::read_to_string(&config).unwrap() + &format!("\n[http]\nlisten = \"127.0.0.1:{port}\"\n");
    fs::write(&config, said).unwrap();
    let gateway = Process::start_with(folder.root(), &["run", "-c", "examples/card-fraud/gateway.toml"]);
    (folder, gateway, format!("127.0.0.1:{port}"))
}

#[test]
fn health_is_an_exit_code() {
    let (folder, gateway, address) = told();
    let asked = |arguments: &[&str]| {
        let asked = run(folder.root(), &[&["health"], arguments].concat());
        (asked.status.code(), text(&asked.stdout), text(&asked.stderr))
    };
    let of_config = ["-c", "examples/card-fraud/gateway.toml"];
    let well = |word: &str| (Some(0), format!("{word}\n"), String::new());
    assert_eq!(asked(&of_config), well("ok"));
    assert_eq!(asked(&["--ready", "--at", &address]), well("ready"));
    // Whatever else is wrong with the file: somebody edits it.
    let config = folder.read("examples/card-fraud/gateway.toml");
    folder.write("examples/card-fraud/gateway.toml", config.clone() + "\n[journals]\n");
    assert_eq!(asked(&[&["--ready"], &of_config[..]].concat()), well("ready"));
    // A journal whose directory is gone takes nothing.
    let (journal, elsewhere) = (folder.path("examples/card-fraud/journal/log"), folder.path("elsewhere"));
    fs::rename(&journal, &elsewhere).unwrap();
    gateway.wait_for("the log cannot be written", 1);
    // What was found a moment ago is told again.
    let out = until(|| Some(asked(&["--ready", "--at", &address])).filter(|(code, _, _)| *code == Some(1))).1;
    assert!(out.starts_with("not ready\njournal, not ready: the journal cannot be written: "), "{out}");
    assert!(out.contains("To do: check the disk, and put the journal's directory back"), "{out}");
    // It is alive all the same: a start would not help.
    assert_eq!(asked(&["--at", &address]), well("ok"));
    fs::rename(&elsewhere, &journal).unwrap();
    gateway.wait_for("the log can be written again", 1);
    until(|| Some(()).filter(|()| asked(&["--ready", "--at", &address]) == well("ready")));
    folder.write("examples/card-fraud/gateway.toml", changed(&config, "[http]", "[log]\nevery = \"PT60S\"\n[more]"));
    let (code, _, error) = asked(&of_config);
    assert!(code == Some(1) && error.contains("has no [http]: add it"), "{error}");
    gateway.stop();
    let (code, _, error) = asked(&["--at", &address]);
    assert!(code == Some(1) && error.contains("does not tell its health"), "{error}");
}

#[test]
fn a_reload_that_is_refused_is_told_until_one_is_not() {
    let (folder, gateway, address) = told();
    let policies = || check(&address, "policies");
    assert_eq!(policies()["state"], "well");
    let config = folder.read("examples/card-fraud/gateway.toml");
    folder.write("examples/card-fraud/gateway.toml", config.clone() + "\n[journals]\n");
    assert!(gateway.reload().contains("were not replaced"));
    let found = until(|| Some(policies()).filter(|check| check["state"] == "warning"));
    assert!(found["says"].as_str().unwrap().contains("unknown key `journals`"), "{found}");
    assert!(found["do"].as_str().unwrap().contains("bailiwick check"), "{found}");
    folder.write("examples/card-fraud/gateway.toml", config);
    assert!(gateway.reload().contains("policies are in force"));
    until(|| Some(()).filter(|()| policies()["state"] == "well"));
    let (_, metrics) = get(&address, "/metrics");
    for line in [
        "bailiwick_policy_reloads_total{outcome=\"refused\"} 1",
        "bailiwick_policy_reloads_total{outcome=\"unchanged\"} 1",
        "bailiwick_policy_stale 0.0",
        "bailiwick_ready 1.0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    gateway.stop();
}

#[test]
fn cells_that_are_set_aside_are_told_until_they_are_removed() {
    let (folder, gateway, address) = told();
    assert_eq!(check(&address, "set_aside")["state"], "well");
    folder.write("examples/card-fraud/journal/aside/fraud_desk/a-1-1.jsonl", "{}");
    let found = until(|| Some(check(&address, "set_aside")).filter(|check| check["state"] == "warning"));
    assert!(found["says"].as_str().unwrap().ends_with("a message may be: 1 of `fraud_desk`"), "{found}");
    // Both are looked at one after the other.
    until(|| {
        let (_, status) = get(&address, "/status");
        let status: Value = serde_json::from_str(&status).unwrap();
        let destinations = status["about"]["destinations"].as_array().unwrap();
        let cells = destinations.iter().map(|one| one["cells_set_aside"].as_u64().unwrap()).sum::<u64>();
        (cells == 1).then_some(())
    });
    until(|| {
        let (_, metrics) = get(&address, "/metrics");
        Some(()).filter(|()| metrics.contains("bailiwick_cells_set_aside{destination=\"fraud_desk\"} 1.0\n"))
    });
    fs::remove_file(folder.path("examples/card-fraud/journal/aside/fraud_desk/a-1-1.jsonl")).unwrap();
    until(|| Some(()).filter(|()| check(&address, "set_aside")["state"] == "well"));
    gateway.stop();
}

#[test]
fn every_declared_metric_is_scraped_and_no_other() {
    let (folder, gateway, address) = told();
    let (_, metrics) = get(&address, "/metrics");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    for declared in declared::ALL {
        // Those of TLS are there with TLS: tests/tls/monitor.rs. Those of counters with counters: tests/policies/counters.rs.
        // Those of budgets with budgets: tests/gateway/budgets.rs.
        let elsewhere = [
            "bailiwick_certificate",
            "bailiwick_counter",
            "bailiwick_budget_left",
            "bailiwick_deferred",
            "bailiwick_releases_shed",
            "bailiwick_releases_widened",
            "bailiwick_releases_degraded",
            "bailiwick_cells_left_out",
            "bailiwick_releases_on_change",
        ];
        if elsewhere.iter().any(|with| declared.name.starts_with(with)) {
            continue;
        }
        let name = declared.full_name();
        let is_there = |line: &str| line.starts_with(&name) && !line.starts_with('#');
        assert!(metrics.lines().any(is_there), "{name}\n{metrics}");
        for label in declared.labels {
            let has_label = |line: &str| is_there(line) && line.contains(&format!("{label}=\""));
            assert!(metrics.lines().any(has_label), "{name} has no {label}\n{metrics}");
        }
    }
    assert_eq!(get(&address, "/metrics?x=y").0, 200);
    assert_eq!((get(&address, "/").0, get(&address, "/metrics/").0), (404, 404));
    drop(folder);
    gateway.kill();
}
