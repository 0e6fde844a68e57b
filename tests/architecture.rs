//! The arrows of `ARCHITECTURE.md`: which module may import which.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

/// A module and those of the crate's modules it may import.
const ALLOWED: &[(&str, &[&str])] = &[
    ("domain", &["domain"]),
    ("clock", &[]),
    ("files", &[]),
    ("planted", &[]),
    ("telemetry", &["domain"]),
    ("logging", &["domain"]),
    ("storage", &["planted", "storage"]),
    ("scoring", &["domain", "files"]),
    ("knowledge", &["domain", "files"]),
    ("durable", &["domain", "storage", "planted"]),
    ("engine", &["clock", "domain", "telemetry", "durable", "planted", "scoring", "storage", "engine"]),
    ("ingress/decode", &["domain", "logging", "engine::intake", "decode", "ingress::proto"]),
    (
        "ingress/grpc",
        &["domain", "telemetry", "logging", "engine::budget", "engine::intake", "decode", "ingress::proto"],
    ),
    ("egress/encode", &["domain"]),
    ("egress/file", &["domain", "storage", "egress::encode"]),
    ("egress/kafka", &["domain", "egress::encode"]),
    (
        "egress/delivery",
        &[
            "domain",
            "telemetry",
            "durable",
            "planted",
            "storage",
            "engine::supervision",
            "egress::file",
            "egress::kafka",
        ],
    ),
    (
        "config",
        &[
            "clock",
            "config",
            "domain",
            "durable::seal",
            "files",
            "storage",
            "egress::encode",
            "egress::file",
            "egress::kafka",
            "engine::intake",
            "engine::pipeline",
        ],
    ),
];

/// Crates that do IO, async or wire formats: not in the domain. An address is a number: no IO.
const OUTSIDE: &[&str] =
    &["tokio", "tonic", "prost", "ort", "rdkafka", "std::fs", "std::net", "std::thread", "Instant::now"];

fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        files.extend(sources(&entry.unwrap().path()));
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files
}

fn module_files(module: &str) -> Vec<PathBuf> {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(module);
    let mut files = Vec::new();
    for path in [base.clone(), base.with_extension("rs")] {
        if path.exists() {
            files.extend(sources(&path));
        }
    }
    assert!(!files.is_empty(), "no files of module {module}");
    files
}

#[test]
fn modules_import_only_what_the_architecture_allows() {
    for (module, allowed) in ALLOWED {
        for file in module_files(module) {
            for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
                let code = line.split("//").next().unwrap();
                let code = code.replace("pub(in crate::", "");
                for (position, _) in code.match_indices("crate::") {
                    let import = &code[position + "crate::".len()..];
                    // `use crate::egress::{file, kafka}` names several at once.
                    let braces = import.split_once("::{").map(|(from, names)| (from, names.trim_end_matches("};")));
                    let names = braces.map_or_else(
                        || vec![import.to_owned()],
                        |(from, names)| names.split(", ").map(|name| format!("{from}::{name}")).collect(),
                    );
                    for name in names {
                        let is_allowed = allowed.iter().any(|allowed| {
                            name.strip_prefix(allowed)
                                .is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric()))
                        });
                        assert!(is_allowed, "{}:{}: {module} may not import {name}", file.display(), number + 1);
                    }
                }
            }
        }
    }
}

#[test]
fn the_domain_does_no_io() {
    for file in module_files("domain") {
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap().replace("std::net::IpAddr", "");
            for name in OUTSIDE {
                let is_whole =
                    |at: usize| !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_');
                let is_path = code.match_indices(&format!("{name}::")).any(|(at, _)| is_whole(at));
                assert!(
                    !is_path && !code.contains(&format!("use {name}")),
                    "{}:{}: {name}",
                    file.display(),
                    number + 1
                );
            }
        }
    }
}

#[test]
fn releases_are_made_by_the_policy_and_read_back_by_the_outbox_only() {
    for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let calls = fs::read_to_string(&file).unwrap().contains("Released::from_outbox(");
        assert_eq!(calls, file.ends_with("src/durable/outbox.rs"), "{}", file.display());
    }
}

/// Whoever sends records may look at them; what takes them in has to have them decided.
#[test]
fn columns_of_undecided_records_are_for_the_producers_side_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in sources(&src).into_iter().filter(|file| !file.starts_with(src.join("commands/bench"))) {
        let code = fs::read_to_string(&file).unwrap();
        assert!(!code.contains(".into_columns()"), "{}", file.display());
    }
}

#[test]
fn no_file_is_longer_than_one_sitting() {
    for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 600, "{} has {lines} lines", file.display());
    }
}
