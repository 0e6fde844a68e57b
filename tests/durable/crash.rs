//! The binary is killed, and what it releases is what it would have released.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use bailiwick::clock::Clock;
use serde_json::Value;

use super::ledger::intended;
use crate::common::folder::Folder;
use crate::common::ledger::{entries, of_kind};
use crate::common::process::{BINARY, Process, copy_of, run, text};
use crate::common::{self, PATIENCE, changed};

const SERVE: [&str; 3] = ["run", "-c", "examples/card-fraud/gateway.toml"];

fn send(directory: &Path, port: u16, more: &[&str]) -> Vec<String> {
    let endpoint = format!("http://127.0.0.1:{port}");
    let arguments = ["send", "--stream", "payments", "--producer", "till-7", "--no-follow", "--allow-refused", "--to"];
    let mut arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    arguments.push(endpoint);
    arguments.extend(more.iter().map(ToString::to_string));
    arguments.push(directory.join("examples/card-fraud/data.csv.gz").display().to_string());
    arguments
}

/// The released lines, each once: byte for byte what left.
fn released(directory: &Path) -> BTreeSet<String> {
    let lines = lines(&directory.join("examples/card-fraud/released"));
    let count = lines.len();
    let distinct: BTreeSet<String> = lines.into_iter().collect();
    assert_eq!(distinct.len(), count, "a line came twice");
    distinct
}

fn lines(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let files = entries.map(|entry| entry.unwrap().path());
    files
        .flat_map(|path| {
            if path.is_dir() {
                return lines(&path);
            }
            fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
        })
        .collect()
}

/// Whatever left was said in the ledger before, and the ledger is as it was signed.
fn said_before_it_left(directory: &Path) {
    let lines = common::lines(&directory.join("examples/card-fraud/released"));
    let ids: BTreeSet<String> = lines.iter().map(|line| line["release"].as_str().unwrap().to_owned()).collect();
    let ledger = directory.join("examples/card-fraud/journal/ledger");
    if ledger.join("verifier").exists() {
        let intended = intended(&entries(&ledger));
        assert!(ids.is_subset(&intended), "without an intent: {:?}", ids.difference(&intended).collect::<Vec<_>>());
    } else {
        assert_eq!(ids, BTreeSet::new());
    }
}

/// The refused records that the ledger says, by reason, rules and gateway.
fn refused(directory: &Path) -> BTreeMap<String, u64> {
    let mut refused = BTreeMap::new();
    for entry in of_kind(&entries(&directory.join("examples/card-fraud/journal/ledger")), "refused") {
        let cause = format!("{} {} {}", entry["reason"], entry["rules"], entry["to"]);
        *refused.entry(cause).or_default() += entry["records"].as_u64().unwrap();
    }
    refused
}

/// The example, whose dataset has these lines, too.
fn example(more: &str) -> (Folder, u16) {
    let (directory, port) = copy_of("card-fraud");
    // The policies of the copy are a link to those of the example.
    let policies = directory.path("examples/card-fraud/policies");
    let text = fs::read_to_string(policies.join("policy.toml")).unwrap();
    fs::remove_file(&policies).unwrap();
    let least = "min_contributors = 10\n";
    let text = changed(&text, least, &format!("{least}{more}"));
    directory.write("examples/card-fraud/policies/policy.toml", text);
    (directory, port)
}

/// What leaves, and what is refused.
fn without_a_crash(more: &str) -> (BTreeSet<String>, BTreeMap<String, u64>) {
    let (directory, port) = example(more);
    let gateway = Process::start_with(directory.root(), &SERVE);
    let arguments = send(directory.root(), port, &["--complete"]);
    let sent = run(directory.root(), &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(sent.status.success(), "{}", text(&sent.stderr));
    gateway.stop();
    (released(directory.root()), refused(directory.root()))
}

#[test]
fn a_gateway_that_is_killed_again_and_again_releases_the_same_bytes_while_a_producer_goes_on() {
    killed_again_and_again("", &without_a_crash(""));
}

#[test]
fn a_gateway_that_tells_only_what_has_changed_tells_the_same_bytes_too() {
    let more = "only_on_change = true\nmax_defer = 1\n";
    let expected = without_a_crash(more);
    let changes = |change: &str| {
        let is_one = |line: &&String| serde_json::from_str::<Value>(line).unwrap()["change"] == change;
        expected.0.iter().filter(is_one).count()
    };
    let counts = ["all", "set", "gone"].map(changes);
    assert!(counts[0] > 0 && counts[1] > 10 && counts[2] > 10, "{counts:?}");
    killed_again_and_again(more, &expected);
}

#[test]
fn a_gateway_whose_cells_wait_releases_the_same_bytes_too() {
    let expected = without_a_crash("max_defer = 3\n");
    let cells = |(released, _): &(BTreeSet<String>, BTreeMap<String, u64>)| -> BTreeSet<String> {
        let cell = |line: &String| {
            let mut cell: Value = serde_json::from_str(line).unwrap();
            let of_release = ["release", "policy", "windows"];
            cell.as_object_mut().unwrap().retain(|column, _| !of_release.contains(&column.as_str()));
            cell.to_string()
        };
        released.iter().map(cell).collect()
    };
    let (waited, alone) = (cells(&expected), cells(&without_a_crash("")));
    assert!(waited.difference(&alone).count() > 10, "too few cells wait for this to show anything");
    killed_again_and_again("max_defer = 3\n", &expected);
}

fn killed_again_and_again(more: &str, expected: &(BTreeSet<String>, BTreeMap<String, u64>)) {
    let mut kills = 0;
    // A test that is held up kills less often before all is sent.
    for _ in 0..10 {
        kills += kills_of_a_send(more, expected);
        if kills > 5 {
            return;
        }
    }
    panic!("{kills} kills");
}

/// How often a gateway is killed while a producer sends everything to it.
fn kills_of_a_send(more: &str, (expected, not_taken): &(BTreeSet<String>, BTreeMap<String, u64>)) -> usize {
    assert!(not_taken.len() > 1, "{not_taken:?}");
    let (directory, port) = example(more);
    let mut gateway = Process::start_with(directory.root(), &SERVE);
    let mut producer = Command::new(BINARY)
        .args(send(directory.root(), port, &["--complete", "--batch", "20"]))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut kills = 0;
    let journal = directory.root().join("examples/card-fraud/journal/log");
    let size = || -> u64 {
        let entries = fs::read_dir(&journal).into_iter().flatten();
        entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|metadata| metadata.len()).sum()
    };
    while producer.try_wait().unwrap().is_none() {
        // Killed whenever it has written some more: the moment within its work is chance.
        let (before, began) = (size(), Clock::start());
        while size() < before + 40_000 && producer.try_wait().unwrap().is_none() {
            assert!(began.now() < PATIENCE, "the producer neither goes on nor ends");
            std::thread::yield_now();
        }
        gateway.kill();
        kills += 1;
        said_before_it_left(directory.root());
        gateway = Process::start_with(directory.root(), &SERVE);
    }
    let output = producer.wait_with_output().unwrap();
    assert!(output.status.success());
    let summary = text(&output.stdout);
    assert!(summary.starts_with("16716 records read"), "{summary}");
    gateway.stop();
    assert_eq!(released(directory.root()), *expected, "after {kills} kills");
    assert_eq!(refused(directory.root()), *not_taken, "after {kills} kills");
    said_before_it_left(directory.root());
    kills
}

#[test]
fn a_stop_keeps_open_windows_and_what_is_sent_again_is_not_counted_again() {
    let (expected, _) = without_a_crash("");
    let (directory, port) = example("");
    let mut token = None;
    for round in 0..3 {
        let gateway = Process::start_with(directory.root(), &SERVE);
        // Without `--complete` the last windows stay open.
        let more: &[&str] = if round == 2 { &["--complete"] } else { &[] };
        let resume: Vec<&str> = token.iter().flat_map(|token: &String| ["--resume", token.as_str()]).collect();
        let arguments = send(directory.root(), port, &[more, &resume].concat());
        let sent = run(directory.root(), &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(sent.status.success(), "{}", text(&sent.stderr));
        let summary = text(&sent.stdout);
        assert_eq!(summary.contains("durable already: 8417"), round > 0, "{summary}");
        token = Some(summary.split_once("resume token ").unwrap().1.trim().to_owned());
        gateway.stop();
    }
    assert_eq!(released(directory.root()), expected);
}
