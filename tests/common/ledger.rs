//! What a ledger says, by the program's own command.

use std::path::Path;

use serde_json::Value;

use super::process::{run, text};

/// The entries of a ledger, which must be as it was signed.
#[track_caller]
pub fn entries(directory: &Path) -> Vec<Value> {
    let output = run(Path::new("."), &["ledger", "show", "--json", "-d", &directory.display().to_string()]);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    shown["entries"].as_array().unwrap().clone()
}

/// Those of a kind.
pub fn of_kind<'e>(entries: &'e [Value], kind: &str) -> Vec<&'e Value> {
    entries.iter().filter(|entry| entry["kind"] == kind).collect()
}
