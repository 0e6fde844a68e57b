//! The JSON Schemas: what is shipped is valid by them, and what the reader refuses for its keys and types is not.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::common::process::{copy_of, run, text};

/// What the validator of PyPI's jsonschema says of TOML texts: the number of errors of each.
fn errors(schema: &str, texts: &[String]) -> Vec<u64> {
    let mut validator = Command::new(crate::common::python())
        .arg(crate::common::root().join("tests/python/validate.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let task = json!({ "schema": serde_json::from_str::<Value>(schema).unwrap(), "texts": texts });
    validator.stdin.take().unwrap().write_all(task.to_string().as_bytes()).unwrap();
    let output = validator.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn schema(of: &str) -> String {
    let printed = run(&crate::common::root(), &["schema", of]);
    assert!(printed.status.success(), "{}", text(&printed.stderr));
    text(&printed.stdout)
}

fn toml_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.display().to_string();
        if path.is_dir() {
            toml_files(&path, found);
        } else if name.ends_with(".toml") && !name.ends_with(".test.toml") {
            found.push(path);
        }
    }
}

#[test]
fn every_shipped_file_is_valid() {
    let root = crate::common::root();
    let mut files = Vec::new();
    for directory in ["policies", "examples", "src/commands/init"] {
        toml_files(&root.join(directory), &mut files);
    }
    let is_policy = |text: &String| text.lines().any(|line| line.starts_with("schema"));
    let texts: Vec<String> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let (policies, gateways): (Vec<String>, Vec<String>) = texts.into_iter().partition(is_policy);
    assert!(policies.len() > 25 && gateways.len() >= 7, "{} {}", policies.len(), gateways.len());
    assert_eq!(errors(&schema("policy"), &policies), vec![0; policies.len()]);
    assert_eq!(errors(&schema("gateway"), &gateways), vec![0; gateways.len()]);
}

#[test]
fn what_the_reader_refuses_is_not_valid() {
    let (directory, _) = copy_of("card-fraud");
    let example = directory.root().join("examples/card-fraud");
    let gateway = fs::read_to_string(example.join("gateway.toml")).unwrap();
    let policy = fs::read_to_string(example.join("policies/policy.toml")).unwrap();
    let changed = |of: &str, changes: &[(&str, &str)]| -> Vec<String> {
        let change = |(good, bad): &(&str, &str)| {
            assert!(of.contains(good), "{good}");
            of.replacen(good, bad, 1)
        };
        changes.iter().map(change).collect()
    };
    let gateways = changed(
        &gateway,
        &[
            ("grpc", "grcp"),
            ("\"eu-fra-1\"", "7"),
            ("serves   = [\"eu-gdpr\"]", "serves = \"eu-gdpr\""),
            ("id       = \"eu-fra-1\"", ""),
            ("\"PT1S\"", "\"one second\""),
            ("[journal]", "[journal]\nquota_bytes = -1"),
            ("[gateway]", "[gateway]\nmode = \"perhaps\""),
        ],
    );
    let policies = changed(
        &policy,
        &[
            ("bailiwick.policy/1", "bailiwick.policy/9"),
            ("undeclared   = \"refuse\"", "undeclared = \"keep\""),
            ("contributor  = \"card\"", ""),
            ("type = \"timestamp\"", "type = \"date\""),
            ("range = [0, 30000]", "range = \"all\""),
            ("min_contributors = 10", "min_contributors = \"10\""),
            ("fn = \"count\"", "nf = \"count\""),
        ],
    );
    let (all, none) = (vec![true; 7], vec![false; 7]);
    let broken = |errors: Vec<u64>| -> Vec<bool> { errors.into_iter().map(|errors| errors > 0).collect() };
    assert_eq!(broken(errors(&schema("gateway"), &gateways)), all);
    assert_eq!(broken(errors(&schema("policy"), &policies)), all);
    assert_eq!(broken(errors(&schema("gateway"), &vec![gateway.clone(); 7])), none);
    // The reader refuses them, too.
    fs::remove_file(example.join("policies")).unwrap();
    fs::create_dir(example.join("policies")).unwrap();
    for (file, texts) in [("gateway.toml", &gateways), ("policies/policy.toml", &policies)] {
        fs::write(example.join("gateway.toml"), &gateway).unwrap();
        fs::write(example.join("policies/policy.toml"), &policy).unwrap();
        assert_eq!(run(&example, &["check"]).status.code(), Some(0));
        for text in texts {
            fs::write(example.join(file), text).unwrap();
            assert_eq!(run(&example, &["check"]).status.code(), Some(64), "{text}");
        }
    }
}
