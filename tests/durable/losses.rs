//! What is damaged or missing on disk: `bailiwick journal verify` and a start say the same of it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::process::{Process, copy_of, run, text};

/// The files of a directory, in order.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// A bit flips in the middle.
fn spoil(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

/// A gateway that has taken records in, was stopped, and of which something is spoilt then: `verify` says so and exits
/// with 1, and the next start logs the same words.
fn both_say(words: &[&str], spoil: impl FnOnce(&Path)) {
    let (root, port) = copy_of("card-fraud");
    let folder = root.path("examples/card-fraud");
    let journal = folder.join("journal");
    let gateway = Process::start(&folder);
    let to = format!("http://127.0.0.1:{port}");
    // The example's other gateways have ports that somebody else may listen on.
    let send = ["send", "--to", &to, "--no-follow", "--stream", "payments", "--producer", "till-7\u{1b}[31m"];
    let sent = run(&folder, &[&send[..], &["data.csv.gz"]].concat());
    assert!(!text(&sent.stdout).is_empty() || !text(&sent.stderr).is_empty());
    gateway.stop();
    let verify = |arguments: &[&str]| run(&folder, &[&["journal", "verify", "journal"], arguments].concat());
    let sound = verify(&[]);
    assert!(sound.status.success(), "{}{}", text(&sound.stdout), text(&sound.stderr));
    assert!(text(&sound.stdout).contains("till-7\\u{1b}[31m"), "{}", text(&sound.stdout));
    assert!(text(&sound.stdout).contains("; epoch "), "{}", text(&sound.stdout));
    spoil(&journal);
    let damaged = verify(&[]);
    let (said, error) = (text(&damaged.stdout), text(&damaged.stderr));
    assert_eq!(damaged.status.code(), Some(1), "{said}{error}");
    let json = verify(&["--json"]);
    assert_eq!(json.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(report["is_sound"], false);
    let gateway = Process::start(&folder);
    for words in words {
        assert!(said.contains(words), "verify does not say `{words}`:\n{said}");
        assert!(report.to_string().contains(words), "the JSON does not say `{words}`:\n{report}");
        // Some parts begin beside those that serve.
        gateway.wait_for(words, 1);
    }
}

#[test]
fn a_journal_that_was_removed() {
    let words = ["entries are missing, 1 to ", "nothing is lost: the checkpoint has counted them"];
    both_say(&words, |journal| fs::remove_dir_all(journal.join("log")).unwrap());
}

#[test]
fn checkpoints_that_were_removed_with_the_first_segment() {
    // What is missing lies before the first segment that is left, so only a checkpoint could have it.
    let words = ["entries 1 to ", "are missing: there is no checkpoint, and the journal begins after them"];
    both_say(&words, |journal| {
        fs::remove_dir_all(journal.join("checkpoints")).unwrap();
        let log = journal.join("log");
        let last = files(&log).into_iter().filter(|file| file.extension().is_some_and(|end| end == "segment")).max();
        // A start begins another segment, at the first entry that is not there yet.
        let last = last.unwrap();
        let restarted = journal.parent().unwrap();
        drop(Process::start(restarted).stop());
        fs::remove_dir_all(journal.join("checkpoints")).unwrap();
        fs::remove_file(last).unwrap();
    });
}

#[test]
fn an_outbox_that_was_removed() {
    let words = ["entries are missing, 1 to ", "lost, unless they were sent"];
    both_say(&words, |journal| fs::remove_dir_all(journal.join("outbox")).unwrap());
}

#[test]
fn a_checkpoint_that_is_damaged() {
    both_say(&["is damaged; there is none before it: only what is still in the journal is counted"], |journal| {
        spoil(files(&journal.join("checkpoints")).last().unwrap());
    });
}

#[test]
fn a_cursor_that_is_damaged() {
    both_say(&["is damaged: what the outbox holds is sent again"], |journal| {
        for cursor in files(&journal.join("cursors")) {
            fs::write(cursor, "nothing that is known").unwrap();
        }
    });
}

#[test]
fn a_part_of_the_journals_directory_that_is_none_is_named_with_what_to_do() {
    let (root, _) = copy_of("card-fraud");
    let folder = root.path("examples/card-fraud");
    Process::start(&folder).stop();
    let start = |name: &str, says: &str| {
        let (place, elsewhere) = (folder.join("journal").join(name), folder.join("elsewhere"));
        let was_there = place.exists();
        if was_there {
            fs::rename(&place, &elsewhere).unwrap();
        }
        fs::write(&place, "").unwrap();
        let refused = run(&folder, &["run", "-c", "gateway.toml"]);
        let error = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(70), "{name}: {error}");
        let advice = "Put back what was moved, removed or replaced, make room if the disk is full, or repair it; then start it again";
        assert!(error.contains(advice) && error.contains(says), "{name}: {error}");
        fs::remove_file(&place).unwrap();
        if was_there {
            fs::rename(&elsewhere, &place).unwrap();
        }
    };
    for name in ["cursors", "checkpoints", "log", "outbox", "policies", "counters", "privacy", "budgets"] {
        start(name, &format!("journal/{name}"));
    }
    Process::start(&folder).stop();
}

#[test]
fn a_journal_that_is_in_use_or_of_another_version_ends_a_start_with_70() {
    let (root, _) = copy_of("card-fraud");
    let folder = root.path("examples/card-fraud");
    let start = |says: &[&str]| {
        let refused = run(&folder, &["run", "-c", "second.toml"]);
        let error = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(70), "{error}");
        assert!(says.iter().all(|says| error.contains(says)), "{error}");
    };
    let gateway = Process::start(&folder);
    let config = fs::read_to_string(folder.join("gateway.toml")).unwrap();
    let line = config.lines().find(|line| line.starts_with("grpc")).unwrap();
    fs::write(folder.join("second.toml"), config.replace(line, "grpc = \"127.0.0.1:0\"")).unwrap();
    start(&["is in use by another process", "Two gateways need a directory each"]);
    gateway.stop();
    let mut segments = files(&folder.join("journal/log"));
    segments.retain(|file| file.extension().is_some_and(|extension| extension == "segment"));
    let newest = segments.pop().unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    bytes[8..12].copy_from_slice(&99_u32.to_le_bytes());
    let sum = crc32c::crc32c(&bytes[..12]);
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    fs::write(newest, bytes).unwrap();
    start(&["has format version 99", "restore the backup", "what another version of bailiwick wrote"]);
}
