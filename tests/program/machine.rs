//! What other programs read: JSON, completions, man pages, the version.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::common::process::{copy_of, run, text};
use crate::common::{changed, is_of_the_day};

#[test]
fn check_tells_machines_what_it_tells_people() {
    let (directory, _) = copy_of("card-fraud");
    let arguments = ["check", "-c", "examples/card-fraud/gateway.toml", "--json"];
    let checked = run(directory.root(), &arguments);
    assert_eq!((checked.status.code(), text(&checked.stderr).as_str()), (Some(0), ""));
    let report: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!((&report["gateway"], &report["mode"]), (&"eu-fra-1".into(), &"enforce".into()));
    assert_eq!(report["streams"][0]["stream"], "payments");
    let egress = &report["egress"][0];
    assert_eq!((&egress["destination"], &egress["is_allowed"]), (&"fraud_desk".into(), &true.into()));
    assert_eq!((&egress["countries"][0], &egress["min_contributors"]), (&"IE".into(), &10.into()));
    let problems = report["problems"].as_array().unwrap().iter();
    let problems: Vec<_> = problems.filter(|problem| !is_of_the_day(problem["message"].as_str().unwrap())).collect();
    assert!(problems.is_empty(), "{problems:?}");
    let people = text(&run(directory.root(), &arguments[..3]).stdout);
    assert!(people.contains(report["policy"].as_str().unwrap()), "{people}");
    assert!(people.contains(egress["rules"][0].as_str().unwrap()), "{people}");
}

#[test]
fn problems_are_told_to_machines_with_the_same_exit_code() {
    let (directory, _) = copy_of("card-fraud");
    let file = directory.root().join("examples/card-fraud/gateway.toml");
    let config = fs::read_to_string(&file).unwrap();
    fs::write(&file, changed(&config, "grpc =", "grcp =")).unwrap();
    let checked = run(directory.root(), &["check", "-c", "examples/card-fraud/gateway.toml", "--json"]);
    assert_eq!((checked.status.code(), text(&checked.stderr).as_str()), (Some(64), ""));
    let report: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let line = config.lines().position(|line| line.starts_with("grpc =")).unwrap() + 1;
    let problem = &report["problems"][0];
    assert_eq!((&problem["line"], &problem["key"]), (&line.into(), &"listen.grcp".into()));
    assert_eq!((&problem["message"], &problem["severity"]), (&"unknown key `grcp`".into(), &"error".into()));
    assert!(problem["help"].as_str().unwrap().contains("`grpc`"), "{report}");
}

#[test]
fn the_version_names_commit_formats_and_libraries() {
    let root = crate::common::root();
    let long = text(&run(&root, &["--version"]).stdout);
    let lines: Vec<&str> = long.lines().collect();
    let [first, formats, runtime, kafka] = lines.as_slice() else { panic!("{long}") };
    assert!(first.starts_with(concat!("bailiwick ", env!("CARGO_PKG_VERSION"), " (commit ")), "{long}");
    assert!(
        formats.starts_with("formats: journal and outbox ")
            && formats.contains(", checkpoint ")
            && formats.contains(", cursor "),
        "{long}"
    );
    assert!(runtime.contains("libonnxruntime"), "{long}");
    let library = kafka.strip_prefix("librdkafka: ").unwrap();
    assert!(library.split('.').count() >= 3, "{long}");
    assert_eq!(text(&run(&root, &["-V"]).stdout), format!("{first}\n"));
}

#[test]
fn every_command_has_completions_and_a_page() {
    let root = crate::common::root();
    let help = text(&run(&root, &["--help"]).stdout);
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\nOptions:").next().unwrap();
    let commands: BTreeSet<&str> = commands
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty() && *name != "help")
        .collect();
    for code in ["  0   done", "  64  the configuration", "  70  run", "  75  run"] {
        assert!(help.contains(code), "{help}");
    }
    assert!(commands.contains("run") && commands.contains("journal"), "{commands:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let completions = run(&root, &["completions", shell]);
        assert!(completions.status.success(), "{shell}");
        let completions = text(&completions.stdout);
        assert!(commands.iter().all(|command| completions.contains(command)), "{shell}");
    }
    let pages = tempfile::TempDir::new().unwrap();
    let written = run(&root, &["man", &pages.path().display().to_string()]);
    assert!(written.status.success(), "{}", text(&written.stderr));
    for command in commands {
        let page = pages.path().join(format!("bailiwick-{command}.1"));
        assert!(fs::read_to_string(&page).unwrap().contains(".SH NAME"), "{}", page.display());
    }
    assert!(pages.path().join("bailiwick-journal-verify.1").exists());
    let page = text(&run(&root, &["man"]).stdout);
    assert!(page.contains(".TH bailiwick 1") && page.contains("Exit codes"), "{page}");
}
