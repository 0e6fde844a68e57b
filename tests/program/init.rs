//! `bailiwick init`: from nothing to a released file.

use std::fs;

use bailiwick::clock::Clock;
use tempfile::TempDir;

use crate::common::folder::Folder;
use crate::common::process::{Process, run, text};
use crate::common::{changed, free_port, lines};

#[test]
fn what_init_writes_is_checked_runs_and_releases() {
    let root = Folder::new();
    let written = run(root.root(), &["init", "mine"]);
    assert!(written.status.success(), "{}", text(&written.stderr));
    root.let_laws_hold("mine/policies/policy.toml");
    let checked = run(root.root(), &["check", "-c", "mine/gateway.toml"]);
    assert_eq!((checked.status.code(), text(&checked.stderr).as_str()), (Some(0), ""));
    assert!(text(&checked.stdout).contains("events_by_country  files"), "{}", text(&checked.stdout));
    let again = run(root.root(), &["init", "mine"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("mine is not empty"), "{}", text(&again.stderr));

    let directory = root.path("mine");
    let (port, http) = (free_port(), free_port());
    let config = fs::read_to_string(directory.join("gateway.toml")).unwrap();
    let config = changed(&config, ":7400", &format!(":{port}"));
    fs::write(directory.join("gateway.toml"), changed(&config, ":7401", &format!(":{http}"))).unwrap();
    let now = jiff::Timestamp::from_microsecond(Clock::start().wall()).unwrap();
    let record = |user: usize| {
        format!(
            "{{\"at\": \"{now}\", \"user\": \"user-{user}\", \"country\": \"FR\", \"kind\": \"view\", \"value\": {user}}}\n"
        )
    };
    fs::write(root.path("records.jsonl"), (0..12).map(record).collect::<String>()).unwrap();
    let gateway = Process::start(&directory);
    let ready = run(&directory, &["health", "--ready"]);
    assert_eq!((ready.status.code(), text(&ready.stdout).as_str()), (Some(0), "ready\n"), "{}", text(&ready.stderr));
    let endpoint = format!("http://127.0.0.1:{port}");
    let send = ["send", "-s", "events", "-p", "web", "--complete", "--to", &endpoint, "records.jsonl"];
    let sent = run(root.root(), &send);
    assert!(text(&sent.stdout).contains("12 accepted"), "{}{}", text(&sent.stdout), text(&sent.stderr));
    // The promise closes windows up to now; the one that now lies in closes with the stop.
    gateway.stop();
    let left = run(root.root(), &["journal", "inspect", "mine/journal"]);
    assert!(left.status.success(), "{}", text(&left.stderr));
    let config = fs::read_to_string(directory.join("gateway.toml")).unwrap();
    fs::write(
        directory.join("gateway.toml"),
        changed(&config, "[listen]", "on_stop = \"release\"\nstop_within = \"PT60S\"\n\n[listen]"),
    )
    .unwrap();
    Process::start(&directory).stop();
    let cells = lines(&directory.join("released"));
    let [cell] = cells.as_slice() else { panic!("{cells:?}") };
    assert_eq!((&cell["country"], &cell["events"], &cell["value_mean"]), (&"FR".into(), &12.into(), &5.5.into()));
}

#[test]
fn what_init_ships_are_the_policies_of_the_project() {
    let root = TempDir::new().unwrap();
    assert!(run(root.path(), &["init", "."]).status.success());
    let shipped = root.path().join("policies/shipped");
    let tested = crate::common::root().join("policies");
    for below in ["", "regimes"] {
        let mut files = 0;
        for entry in fs::read_dir(tested.join(below)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_file() && !name.ends_with(".test.toml") {
                assert_eq!(fs::read(shipped.join(below).join(&name)).unwrap(), fs::read(&path).unwrap(), "{name}");
                files += 1;
            }
        }
        assert_eq!(
            fs::read_dir(shipped.join(below)).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_file()).count(),
            files
        );
    }
}
