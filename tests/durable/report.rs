//! The report for the person who answers for what leaves.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::ledger::entries;
use super::operations::send_payments;
use crate::common::process::{run, text};
use crate::common::{self, TestGateway};

/// Runs `bailiwick report` on a ledger. What it prints, which must be a success.
#[track_caller]
fn printed(ledger: &Path, arguments: &[&str]) -> String {
    let ledger = ledger.display().to_string();
    let output = run(Path::new("."), &[&["report", "-d", &ledger], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn report(ledger: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&printed(ledger, &[&["--json"], arguments].concat())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_says_what_left_and_nothing_of_a_ledger_that_is_not_sound() {
    let gateway = TestGateway::start("card-fraud/gateway.toml").await;
    send_payments(gateway.endpoint(), true).await;
    let TestGateway { app, released, journal } = gateway;
    app.stop().await;
    let ledger = journal.path().join("ledger");
    let lines = common::lines(released.path());
    let files = walk(released.path());
    let bytes: u64 = files.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    let releases: BTreeSet<&str> = lines.iter().map(|line| line["release"].as_str().unwrap()).collect();
    // It agrees with what the destination has.
    let config = common::root().join("examples/card-fraud/gateway.toml").display().to_string();
    let whole = report(&ledger, &["--bytes-in", "20160000", "--price-per-gib", "2", "-c", &config]);
    let [flow] = whole["left"].as_array().unwrap().as_slice() else { panic!("{whole}") };
    assert_eq!(
        (flow["destination"].as_str(), flow["dataset"].as_str()),
        (Some("fraud_desk"), Some("payments_by_country"))
    );
    assert_eq!(flow["releases"].as_u64(), Some(releases.len() as u64));
    assert_eq!((flow["confirmed"].as_u64(), flow["may_have_left"].as_u64()), (flow["releases"].as_u64(), Some(0)));
    assert_eq!(flow["cells"].as_u64(), Some(lines.len() as u64));
    let starts = lines.iter().map(|line| line["window_start"].as_str().unwrap());
    assert_eq!(flow["first_window_start"].as_str(), starts.min());
    assert_eq!(whole["bytes"]["fraud_desk"].as_u64(), Some(bytes));
    assert_eq!(whole["cost"]["ratio"].as_f64(), Some(20_160_000.0 / bytes as f64));
    let saved = (20_160_000.0 - bytes as f64) / f64::from(1 << 30) * 2.0;
    assert_eq!((whole["cost"]["saved"].as_f64(), whole["cost"]["currency"].as_str()), (Some(saved), Some("EUR")));
    assert!(whole["rules"]["egress"].as_array().unwrap().iter().any(|row| row["is_allowed"] == true), "{whole}");
    assert_eq!(whole["entries"].as_u64(), Some(entries(&ledger).len() as u64));
    assert!(whole["runs"][0]["stopped"].is_string() && whole["policies"][0]["policy"] == flow["policies"][0]);
    // Another span of time holds nothing.
    let nothing = report(&ledger, &["--to", "2026-01-01"]);
    assert_eq!((nothing["entries"].as_u64(), nothing["left"].as_array().map(Vec::len)), (Some(0), Some(0)));
    let at = run(Path::new("."), &["report", "--from", "2026-11-02", "--to", "2026-11-01"]);
    assert!(text(&at.stderr).contains("`--from` must be before `--to`"), "{}", text(&at.stderr));
    // The page has the same numbers.
    let page = printed(&ledger, &["--bytes-in", "20160000", "--price-per-gib", "2", "-c", &config]);
    for part in [
        "<h2>What left, and to where</h2>",
        "<td>payments_by_country</td>",
        &format!("<td class=\"n\">{}</td>", lines.len()),
        &format!("20160000 bytes came in, {bytes} left, "),
        "<h2>What this does not prove</h2>",
        whole["key"].as_str().unwrap(),
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    // It says nothing of a ledger that was changed.
    let bundle = walk(&ledger.join("tile/entries")).remove(0);
    let mut changed = fs::read(&bundle).unwrap();
    let cells = changed.windows(8).position(|bytes| bytes == b"\"cells\":").unwrap() + 8;
    changed[cells] = if changed[cells] == b'9' { b'8' } else { b'9' };
    fs::write(&bundle, changed).unwrap();
    let refused = run(Path::new("."), &["report", "-d", &ledger.display().to_string()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stdout).contains("BAD entry") && !text(&refused.stdout).contains("<html"));
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
