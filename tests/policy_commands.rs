//! `explain`, `replay` and `policy` as a user meets them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod common;

mod policy_commands {
    mod cases;
    mod explain;
    mod laws;
    mod replay;
}

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::process::BINARY;

const CONFIG: &str = "examples/card-fraud/gateway.toml";

/// Runs the binary with an input.
fn run_with(directory: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(BINARY)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that fails before it reads closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// A payment of a card that shows up nowhere else.
fn payment(country: &str) -> String {
    let numbers: Vec<String> = (1..=28).map(|v| format!("\"v{v}\": 0.5")).collect();
    let numbers = numbers.join(", ");
    format!(
        "{{\"event_time\": \"2026-11-24T10:00:00Z\", \"card\": \"card-77-secret\", \"country\": \"{country}\", \
         \"channel\": \"web\", \"elapsed\": 1, {numbers}, \"amount\": 12.5}}"
    )
}

/// A folder of the example's policies and the shipped ones, with a change.
fn policies(directory: &Path, name: &str, change: impl Fn(&str, String) -> String) {
    let to = directory.join(name);
    fs::create_dir_all(to.join("regimes")).unwrap();
    let root = common::root();
    for from in ["policies", "policies/regimes", "examples/card-fraud/policies"] {
        for entry in fs::read_dir(root.join(from)).unwrap() {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_str().unwrap();
            if !path.is_dir() && !file.ends_with(".test.toml") {
                let below = if from.ends_with("regimes") { "regimes" } else { "" };
                let changed = change(file, fs::read_to_string(&path).unwrap());
                fs::write(to.join(below).join(file), changed).unwrap();
            }
        }
    }
}
