//! What left is what the ledger says, and others can verify it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use bailiwick::ingress::proto::ingest::PublishRequest;
use bailiwick::ledger::note::Signer;
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic_health::pb::health_check_response::ServingStatus;

use super::moved::{health_of, until};
use super::numbers::{counted, publish, request};
use super::operations::send_payments;
use crate::common::ledger::{entries, of_kind};
use crate::common::process::{Process, copy_of, run, text};
use crate::common::{self, TestGateway, gateway, records};

/// The part of the health service that says whether releases may leave.
const EGRESS: &str = "bailiwick.egress";

/// Runs `bailiwick ledger` on a ledger.
pub(super) fn ledger(directory: &Path, task: &[&str]) -> Output {
    let directory = directory.display().to_string();
    run(Path::new("."), &[&["ledger"], task, &["--directory", &directory]].concat())
}

/// What it prints, which must be a success.
#[track_caller]
pub(super) fn printed(directory: &Path, task: &[&str]) -> String {
    let output = ledger(directory, task);
    assert!(output.status.success(), "{task:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// The releases that a ledger has intents for.
pub(super) fn intended(entries: &[Value]) -> BTreeSet<String> {
    of_kind(entries, "intent").iter().map(|entry| entry["release"].as_str().unwrap().to_owned()).collect()
}

/// The releases of lines.
fn released(lines: &[Value]) -> BTreeSet<String> {
    lines.iter().map(|line| line["release"].as_str().unwrap().to_owned()).collect()
}

/// Runs the verifier that is not the gateway's. What it prints.
#[track_caller]
pub(super) fn verified_by_python(task: &[&str]) -> String {
    let output = python(task);
    assert!(output.status.success(), "{task:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

pub(super) fn python(task: &[&str]) -> Output {
    let script = common::root().join("tests/python/ledger.py");
    Command::new(common::python()).arg(script).args(task).output().unwrap()
}

pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}

pub(super) fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_says_what_left_and_an_outsider_can_verify_it() {
    let gateway = TestGateway::start("card-fraud/gateway.toml").await;
    send_payments(gateway.endpoint(), true).await;
    let TestGateway { app, released: out, journal } = gateway;
    app.stop().await;
    let (directory, lines) = (journal.path().join("ledger"), common::lines(out.path()));
    let entries = entries(&directory);
    // Each release was said before it left, and that it was sent, and how many bytes it took.
    assert!(lines.len() > 50);
    assert_eq!(intended(&entries), released(&lines));
    let sent = of_kind(&entries, "sent");
    let ids = sent.iter().flat_map(|entry| entry["releases"].as_array().unwrap());
    assert_eq!(ids.map(|id| id.as_str().unwrap().to_owned()).collect::<BTreeSet<_>>(), released(&lines));
    let bytes: u64 = sent.iter().map(|entry| entry["bytes"].as_u64().unwrap()).sum();
    assert_eq!(bytes, files(out.path()).iter().map(|file| fs::metadata(file).unwrap().len()).sum::<u64>());
    let kinds: Vec<&str> = entries.iter().map(|entry| entry["kind"].as_str().unwrap()).collect();
    assert_eq!((kinds[0], kinds[1], kinds.last()), ("start", "policy", Some(&"stop")));
    assert!(of_kind(&entries, "unsettled").is_empty());
    // A copy as plain files, for somebody who has only the key.
    let (copy, key) = (TempDir::new().unwrap(), fs::read_to_string(directory.join("verifier")).unwrap());
    let exported = copy.path().join("exported");
    let report = ledger(&directory, &["export", &shown(&exported)]);
    assert!(report.status.success(), "{}", text(&report.stderr));
    let read = verified_by_python(&["ledger", &shown(&exported), &key]);
    assert_eq!(read.lines().count(), entries.len());
    assert!(!ledger(&directory, &["export", &shown(&exported)]).status.success(), "it is not empty");
    // A copy is a ledger, too.
    assert_eq!(printed(&exported, &["show", "--key", &key]), printed(&directory, &["show"]));
    // The proof of one release, and what it commits to.
    let release = lines[lines.len() / 2]["release"].as_str().unwrap();
    let proof = copy.path().join("release.tlog-proof");
    fs::write(&proof, printed(&directory, &["prove", release])).unwrap();
    let entry: Value = serde_json::from_str(&verified_by_python(&["proof", &shown(&proof), &key])).unwrap();
    assert_eq!((entry["kind"].as_str(), entry["release"].as_str()), (Some("intent"), Some(release)));
    let other = fs::read_to_string(&proof).unwrap().replacen("index ", "index 1", 1);
    fs::write(&proof, other).unwrap();
    assert!(!python(&["proof", &shown(&proof), &key]).status.success());
    let secret = shown(&journal.path().join("ledger.key"));
    let salt = run(Path::new("."), &["ledger", "salt", release, "--destination", "fraud_desk", "--secret", &secret]);
    let salt = text(&salt.stdout).trim().to_owned();
    let all: String = files(out.path()).iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let own: String = all.split_inclusive('\n').filter(|line| line.contains(release)).collect();
    let cells = copy.path().join("cells.jsonl");
    fs::write(&cells, &own).unwrap();
    let commitment = entry["commitment"].as_str().unwrap();
    verified_by_python(&["opens", &salt, commitment, &shown(&cells)]);
    fs::write(&cells, own.replacen(':', ": ", 1)).unwrap();
    assert!(!python(&["opens", &salt, commitment, &shown(&cells)]).status.success());
    assert!(!ledger(&directory, &["prove", "0000"]).status.success());
    // It only grew since a checkpoint that somebody kept.
    let kept = copy.path().join("kept");
    fs::copy(directory.join("checkpoint"), &kept).unwrap();
    let mut config = common::example("card-fraud/gateway.toml", out.path());
    config.journal.directory = journal.path().to_owned();
    gateway::start(config).await.unwrap().stop().await;
    let growth = copy.path().join("growth");
    fs::write(&growth, printed(&directory, &["prove", "--since", &shown(&kept)])).unwrap();
    let size = verified_by_python(&["growth", &shown(&growth), &key, &shown(&kept)]);
    assert_eq!(
        size.trim().parse::<usize>().unwrap(),
        entries.len() + 4,
        "another start, its policies, what it worked, a stop"
    );
    let report = printed(&directory, &["verify", "--checkpoint", &shown(&kept)]);
    assert!(report.contains("all is as it was signed"), "{report}");
}

/// A gateway whose ledger cannot be written: where its log belongs, and where it is.
async fn without_its_ledger() -> (TestGateway, PathBuf, PathBuf) {
    // Its stop takes all of the time that it has.
    let gateway =
        TestGateway::start_with("delivery-eta/gateway.toml", |config| config.stop_within = Duration::from_secs(10))
            .await;
    until(ServingStatus::Serving, || health_of(&gateway, EGRESS)).await;
    let (log, elsewhere) = (gateway.journal.path().join("ledger/log"), gateway.journal.path().join("elsewhere"));
    fs::rename(&log, &elsewhere).unwrap();
    until(ServingStatus::NotServing, || health_of(&gateway, EGRESS)).await;
    (gateway, log, elsewhere)
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_ledger_is_away_nothing_leaves_and_all_else_goes_on() {
    let (gateway, log, elsewhere) = without_its_ledger().await;
    publish(&gateway, request(3, 1, 10)).await.unwrap();
    assert_eq!(health_of(&gateway, "").await, ServingStatus::Serving);
    let TestGateway { app, released, journal } = gateway;
    let left = app.stop().await.left;
    assert!(left.iter().any(|left| left.releases > 0), "{left:?}");
    let why = left[0].trouble.as_ref().map(|trouble| trouble.error.clone()).unwrap_or_default();
    assert!(why.contains("nothing leaves before the ledger says so"), "{why}");
    assert_eq!(common::lines(released.path()), Vec::<Value>::new());
    fs::rename(&elsewhere, &log).unwrap();
    let mut config = common::example("delivery-eta/gateway.toml", released.path());
    config.journal.directory = journal.path().to_owned();
    assert_eq!(gateway::start(config).await.unwrap().stop().await.left, []);
    assert_eq!(counted(&common::lines(released.path())), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_was_changed_stops_what_leaves_until_it_is_put_right() {
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    publish(&gateway, request(3, 1, 10)).await.unwrap();
    let TestGateway { app, released, journal } = gateway;
    app.stop().await;
    assert_eq!(counted(&common::lines(released.path())), 10);
    let directory = journal.path().join("ledger");
    let intent = of_kind(&entries(&directory), "intent")[0]["entry"].as_u64().unwrap();
    let bundle = files(&directory.join("tile/entries")).remove(0);
    let good = fs::read(&bundle).unwrap();
    let mut bad = good.clone();
    let cells = good.windows(8).position(|bytes| bytes == b"\"cells\":").unwrap();
    bad[cells + 5] = b'z';
    fs::write(&bundle, bad).unwrap();
    let verified = ledger(&directory, &["verify"]);
    assert_eq!(verified.status.code(), Some(1));
    let report = text(&verified.stdout);
    assert!(report.contains(&format!("BAD entry {intent}: it is not the one that was signed")), "{report}");
    let verified: Value = serde_json::from_slice(&ledger(&directory, &["verify", "--json"]).stdout).unwrap();
    assert_eq!((verified["is_sound"].as_bool(), verified["bad"][0]["entry"].as_u64()), (Some(false), Some(intent)));
    let mut config = common::example("delivery-eta/gateway.toml", released.path());
    config.journal.directory = journal.path().to_owned();
    let app = gateway::start(config).await.unwrap();
    let again = TestGateway { app, released, journal };
    publish(&again, request(4, 1, 10)).await.unwrap();
    assert_eq!(health_of(&again, EGRESS).await, ServingStatus::NotServing);
    fs::write(&bundle, &good).unwrap();
    until(ServingStatus::Serving, || health_of(&again, EGRESS)).await;
    // Its journal stays.
    again.app.stop().await;
    printed(&directory, &["verify"]);
}

/// One recipient in each of 24 cells: too few for each of them.
fn alone() -> PublishRequest {
    let cells = ["9E", "AA", "B6", "DL", "EV", "MQ", "US", "WN"].into_iter().flat_map(|carrier| {
        ["EWR", "JFK", "LGA"].map(|origin| {
            json!({
                "event_time": "2013-11-01T12:00:00Z", "recipient": "r-1", "country": "DE", "carrier": carrier,
                "origin": origin, "distance": 100.0, "dep_delay": 3, "hour": 12, "weekday": 4
            })
        })
    });
    PublishRequest { payload: Some(records::json_events(cells)), ..request(3, 2, 0) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_withheld_while_the_ledger_was_away_is_said_after_a_restart_and_once() {
    let (gateway, log, elsewhere) = without_its_ledger().await;
    publish(&gateway, request(3, 1, 10)).await.unwrap();
    publish(&gateway, alone()).await.unwrap();
    let TestGateway { app, released, journal } = gateway;
    app.stop().await;
    fs::rename(&elsewhere, &log).unwrap();
    for _ in 0..2 {
        let mut config = common::example("delivery-eta/gateway.toml", released.path());
        config.journal.directory = journal.path().to_owned();
        gateway::start(config).await.unwrap().stop().await;
        let said = entries(&journal.path().join("ledger"));
        let said: Vec<_> = of_kind(&said, "withheld").iter().map(|entry| entry["at_least"].as_u64()).collect();
        assert_eq!(said, [Some(10)]);
    }
    assert_eq!(counted(&common::lines(released.path())), 10);
}

#[test]
fn a_ledger_that_cannot_be_gone_on_with_is_retired_and_a_new_one_begins() {
    let (folder, _) = copy_of("card-fraud");
    let retire = || run(folder.root(), &["ledger", "retire", "-c", "examples/card-fraud/gateway.toml"]);
    let nothing = retire();
    assert!(text(&nothing.stderr).contains("there is no ledger"), "{}", text(&nothing.stderr));
    let journal = folder.path("examples/card-fraud/journal");
    for (name, bytes) in [("ledger/verifier", "v"), ("ledger.key", "k"), ("ledger-seen", "s")] {
        folder.write(&format!("examples/card-fraud/journal/{name}"), bytes);
    }
    // A key that cannot be used must not keep anybody from retiring its ledger.
    let retired = retire();
    assert!(retired.status.success(), "{}", text(&retired.stderr));
    assert!(text(&retired.stdout).contains("ledger.retired-1"), "{}", text(&retired.stdout));
    let read = |name: &str| fs::read_to_string(journal.join(name)).unwrap();
    assert_eq!(
        read("ledger.retired-1/verifier") + &read("ledger.key.retired-1") + &read("ledger-seen.retired-1"),
        "vks"
    );
    assert!(!journal.join("ledger").exists() && !journal.join("ledger.key").exists());
    // What comes later gets another number.
    folder.write("examples/card-fraud/journal/ledger.key", "k2");
    assert!(retire().status.success());
    assert_eq!(read("ledger.key.retired-2"), "k2");
}

#[test]
fn where_there_is_no_ledger_nothing_is_as_it_was_signed() {
    let folder = TempDir::new().unwrap();
    let key = Signer::generate("bailiwick/g-1").unwrap().verifier().to_string();
    let (gone, bare, to) = (folder.path().join("gone"), folder.path().join("bare"), shown(&folder.path().join("to")));
    fs::create_dir(&bare).unwrap();
    fs::write(bare.join("verifier"), &key).unwrap();
    let tasks: [&[&str]; 6] = [
        &["ledger", "verify"],
        &["ledger", "verify", "--json"],
        &["ledger", "show"],
        &["ledger", "prove", "0000"],
        &["ledger", "export", &to],
        &["report"],
    ];
    for task in tasks {
        for directory in [&gone, &bare] {
            let of = ["-d", &shown(directory), "--key", &key];
            let output = run(Path::new("."), &[task, &of].concat());
            let (said, error) = (text(&output.stdout), text(&output.stderr));
            assert_eq!((output.status.code(), said.as_str()), (Some(1), ""), "{task:?}: {error}");
            assert!(error.contains("no ledger in"), "{task:?}: {error}");
        }
    }
    assert!(text(&ledger(&bare, &["verify"]).stderr).contains("no ledger in"), "with its own key");
}

#[test]
fn a_key_that_everybody_can_read_is_an_error() {
    let (folder, _) = copy_of("card-fraud");
    let check = || run(folder.root(), &["check", "-c", "examples/card-fraud/gateway.toml"]);
    assert!(check().status.success(), "{}", text(&check().stderr));
    let key = "examples/card-fraud/journal/ledger.key";
    folder.write(key, "PRIVATE+KEY+bailiwick/eu-fra-1+00000000+AA==\n");
    let set = |mode| fs::set_permissions(folder.path(key), fs::Permissions::from_mode(mode)).unwrap();
    set(0o644);
    let readable = check();
    assert_eq!(readable.status.code(), Some(64));
    assert!(text(&readable.stderr).contains("has mode 0644: everybody on this machine can read it"));
    set(0o600);
    let damaged = check();
    let said = text(&damaged.stderr);
    assert!(damaged.status.success() && said.contains("cannot be used: it is no key of a signed note"), "{said}");
    assert!(said.contains("--> examples/card-fraud/journal/ledger.key:1:1"), "{said}");
    assert!(said.contains("put it back from a copy") && said.contains("bailiwick ledger retire"), "{said}");
}

#[test]
fn without_a_key_that_can_be_used_the_gateway_serves_and_says_what_to_do() {
    let (folder, _) = copy_of("card-fraud");
    let example = folder.path("examples/card-fraud");
    let key = example.join("journal/ledger.key");
    Process::start(&example).stop();
    let good = fs::read(&key).unwrap();
    for (bytes, says) in [(None, "is missing"), (Some(&b"\xff"[..]), "cannot be read"), (Some(b""), "cannot be used")] {
        match bytes {
            None => fs::remove_file(&key).unwrap(),
            Some(bytes) => fs::write(&key, bytes).unwrap(),
        }
        fs::metadata(&key).is_ok().then(|| fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap());
        let checked = run(folder.root(), &["check", "-c", "examples/card-fraud/gateway.toml"]);
        let said = text(&checked.stderr);
        let lost = if bytes.is_none() { "is missing" } else { "cannot be used" };
        assert!(checked.status.success() && said.contains(&format!("journal/ledger.key {lost}")), "{said}");
        assert!(said.contains("nothing leaves without it") && said.contains("bailiwick ledger retire"), "{said}");
        let gateway = Process::start(&example);
        let line = gateway.wait_for("the ledger cannot be written: nothing leaves", 1);
        assert!(line.contains(says) && line.contains("journal/ledger.key"), "{line}");
        assert!(line.contains("put it back from a copy") && line.contains("bailiwick ledger retire"), "{line}");
        fs::write(&key, &good).unwrap();
        gateway.wait_for("the ledger can be written", 1);
        gateway.stop();
    }
}
