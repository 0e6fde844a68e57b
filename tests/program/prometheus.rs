//! A real Prometheus: what it makes of a running gateway, of the alert rules and of the dashboard.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::common::certs::{Authority, Issued, deployment, files, moment, put};
use crate::common::folder::Folder;
use crate::common::http::{encoded, get};
use crate::common::process::{Process, run, text};
use crate::common::records::now;
use crate::common::{free_port, root, until};

/// Prometheus' programs, which `scripts/setup tests` fetches; none where Debian's packages are not to be had.
fn programs() -> Option<PathBuf> {
    let found = std::env::var_os("BAILIWICK_TEST_PROMETHEUS").map(PathBuf::from);
    if found.is_none() {
        eprintln!("SKIPPED: no Prometheus (BAILIWICK_TEST_PROMETHEUS)");
    }
    found
}

#[test]
fn the_alert_rules_are_valid_and_fire_when_they_should() {
    let Some(programs) = programs() else { return };
    for arguments in [["check", "rules", "deploy/alerts.yml"], ["test", "rules", "deploy/alerts.test.yml"]] {
        let done = Command::new(programs.join("promtool")).args(arguments).current_dir(root()).output().unwrap();
        assert!(done.status.success(), "{}{}", text(&done.stdout), text(&done.stderr));
    }
}

/// A Prometheus that scrapes one gateway each second; ended when it is dropped.
struct Prometheus {
    child: Child,
    address: String,
}

impl Prometheus {
    /// Waits for half a second where the rules wait for minutes.
    fn start(programs: &std::path::Path, folder: &Folder, gateway: &str) -> Self {
        let rules = fs::read_to_string(root().join("deploy/alerts.yml")).unwrap();
        let rules: Vec<String> = rules
            .lines()
            .map(|line| match line.trim_start().strip_prefix("for: ") {
                Some(wait) => line.replace(wait, "500ms"),
                None => line.to_owned(),
            })
            .collect();
        folder.write("prometheus/alerts.yml", rules.join("\n"));
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 500ms }}\nrule_files: [alerts.yml]\n\
             scrape_configs: [{{ job_name: bailiwick, static_configs: [{{ targets: [\"{gateway}\"] }}] }}]\n"
        );
        folder.write("prometheus/prometheus.yml", config);
        let address = format!("127.0.0.1:{}", free_port());
        let child = Command::new(programs.join("prometheus"))
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=error"])
            .arg(format!("--web.listen-address={address}"))
            .current_dir(folder.path("prometheus"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let started = Self { child, address };
        until(|| std::net::TcpStream::connect(&started.address).ok());
        until(|| Some(()).filter(|()| get(&started.address, "/-/ready").0 == 200));
        started
    }

    fn query(&self, expression: &str) -> Vec<Value> {
        let (code, body) = get(&self.address, &format!("/api/v1/query?query={}", encoded(expression)));
        assert_eq!(code, 200, "{expression}: {body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        answer["data"]["result"].as_array().unwrap().clone()
    }

    /// The names of the alerts that fire.
    fn firing(&self) -> BTreeSet<String> {
        let (_, body) = get(&self.address, "/api/v1/alerts");
        let answer: Value = serde_json::from_str(&body).unwrap();
        let alerts = answer["data"]["alerts"].as_array().unwrap().clone();
        let firing = alerts.into_iter().filter(|alert| alert["state"] == "firing");
        firing.map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned()).collect()
    }

    fn fires(&self, alert: &str) {
        until(|| Some(()).filter(|()| self.firing().contains(alert)));
    }

    fn clears(&self, alert: &str) {
        until(|| Some(()).filter(|()| !self.firing().contains(alert)));
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The metrics that an expression reads.
fn metrics(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let is_metric = |word: &&str| word.starts_with("bailiwick_") || word.starts_with("process_") || *word == "up";
    words.filter(is_metric).map(str::to_owned).collect()
}

/// There is one producer, and what it brings alone must leave.
const TRUSTED: &str = r#"
[[shown]]
conditions = ["origin.trusted_producers"]
for        = { stream = "events" }
by         = "test"
ref        = "test"
"#;

fn send(folder: &Folder, port: u16, office: &Issued) {
    let event = now() - jiff::SignedDuration::from_mins(3);
    let record = |user: usize| {
        format!(
            "{{\"at\": \"{event}\", \"user\": \"u-{user}\", \"country\": \"FR\", \"kind\": \"view\", \"value\": 1}}\n"
        )
    };
    folder.write("events.jsonl", (0..12).map(record).collect::<String>());
    let _ = files(folder, "office", Some(office));
    let to = format!("https://localhost:{port}");
    let options = ["--ca", "tls/ca.pem", "--cert", "clients/office.pem", "--key", "clients/office.key"];
    let sent = run(
        folder.root(),
        &[&["send", "-s", "events", "--complete", "--to", &to], &options[..], &["events.jsonl"]].concat(),
    );
    assert!(text(&sent.stdout).contains("12 accepted"), "{}{}", text(&sent.stdout), text(&sent.stderr));
}

#[test]
fn every_panel_has_data_and_alerts_fire_with_their_fault_and_clear_after() {
    let Some(programs) = programs() else { return };
    let authority = Authority::new("root");
    let folder = deployment(&authority);
    folder.add("policies/policy.toml", TRUSTED);
    let (port, told) = (free_port(), format!("127.0.0.1:{}", free_port()));
    folder.edit("gateway.toml", "grpc = \"127.0.0.1:0\"", &format!("grpc = \"127.0.0.1:{port}\""));
    folder.edit("gateway.toml", "listen = \"127.0.0.1:0\"", &format!("listen = \"{told}\""));
    folder.edit("gateway.toml", "rotate_after = \"PT10S\"", "rotate_after = \"PT1S\"");
    let gateway = Process::start(folder.root());
    let prometheus = Prometheus::start(&programs, &folder, &told);
    let office = authority.client("spiffe://corp.example/office", |_| {});
    // A file stands where the destination's directory should be.
    let (released, kept) = (folder.path("released"), folder.path("kept"));
    let _ = fs::rename(&released, &kept);
    fs::write(&released, "").unwrap();
    send(&folder, port, &office);
    prometheus.fires("BailiwickDestinationDown");
    fs::remove_file(&released).unwrap();
    let _ = fs::rename(&kept, &released);
    prometheus.clears("BailiwickDestinationDown");

    // Its certificate holds for an hour.
    prometheus.fires("BailiwickCertificateEnds");
    let longer = authority.gateway(|parameters| parameters.not_after = moment(90 * 86_400));
    put(&folder, &longer);
    prometheus.clears("BailiwickCertificateEnds");

    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(root().join("deploy/grafana/bailiwick.json")).unwrap()).unwrap();
    let mut queries = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            let expression = expression.replace("$instance", ".*").replace("$__rate_interval", "30s");
            until(|| prometheus.query(&expression).first().cloned());
            queries += 1;
        }
    }
    assert!(queries > 30, "{queries}");
    let rules = fs::read_to_string(root().join("deploy/alerts.yml")).unwrap();
    for expression in rules.lines().filter_map(|line| line.trim_start().strip_prefix("expr: ")) {
        let read = metrics(expression);
        assert!(!read.is_empty(), "{expression}");
        for metric in read {
            // One scrape that took too long leaves all of them out.
            until(|| prometheus.query(&metric).first().cloned());
        }
    }

    let before = folder.read("gateway.toml");
    folder.add("gateway.toml", "\n[journals]\n");
    gateway.reload();
    prometheus.fires("BailiwickPolicyStale");
    folder.write("gateway.toml", &before);
    gateway.reload();
    prometheus.clears("BailiwickPolicyStale");

    // The journal's directory is gone, and comes back.
    let (log, elsewhere) = (folder.path("journal/log"), folder.path("elsewhere"));
    fs::rename(&log, &elsewhere).unwrap();
    prometheus.fires("BailiwickLogFailing");
    prometheus.fires("BailiwickNotReady");
    fs::rename(&elsewhere, &log).unwrap();
    prometheus.clears("BailiwickLogFailing");
    prometheus.clears("BailiwickNotReady");

    gateway.stop();

    // It answers nobody any more.
    prometheus.fires("BailiwickDown");
}
