//! `policy test`: the cases that stand beside policies.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::common::process::{copy_of, run, text};
use crate::common::{self, changed};
use crate::{CONFIG, policies};

const CASES: &str = r#"schema = "bailiwick.test/1"

[[cases]]
name    = "residents of the Union"
source  = "GDPR Art. 3"
facts   = { "subject.residence" = ["FR"] }
regimes = ["eu-gdpr"]

[[cases]]
name    = "cells may go anywhere"
source  = "GDPR Recital 26"
regime  = "eu-gdpr"
form    = "identifiable"
to      = "CH"
allowed = true
rule    = "eu-gdpr/transfers/adequacy"

[[cases]]
name    = "a Russian citizen's record in Germany"
source  = "152-FZ Art. 18(5)"
facts   = { "subject.residence" = ["DE"] }
gateway = { country = "DE", serves = ["eu-gdpr"] }
verdict = "keep"
"#;

#[test]
fn tests_beside_the_policies_are_run() {
    let root = TempDir::new().unwrap();
    policies(root.path(), "policies", |_, text| text);
    let test = |arguments: &[&str]| {
        let tested = run(root.path(), &[&["policy", "test"], arguments].concat());
        (tested.status.code(), text(&tested.stdout), text(&tested.stderr))
    };
    let (code, _, errors) = test(&[]);
    assert_eq!((code, errors.contains("there is no test in policies")), (Some(1), true), "{errors}");
    let file = root.path().join("policies/regimes/eu-gdpr.test.toml");
    fs::write(&file, CASES).unwrap();
    let (code, report, errors) = test(&[]);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{report}");
    assert!(report.contains("policies/regimes/eu-gdpr.test.toml: 3 passed, 0 failed\n\n1 files: 3 passed"), "{report}");
    fs::write(root.path().join("gateway.toml"), "[gateway]\npolicies = [\"policies\"]\n").unwrap();
    assert_eq!(test(&["-c", "gateway.toml"]).1, report);

    fs::write(&file, changed(&changed(CASES, "\"CH\"", "\"KP\""), "\"keep\"", "\"quarantine\"")).unwrap();
    let (code, report, errors) = test(&["policies"]);
    assert_eq!(code, Some(1));
    assert!(report.contains("eu-gdpr.test.toml: 1 passed, 2 failed"), "{report}");
    for line in [
        "error: cells may go anywhere: expected true, found false: no row permits it of eu-gdpr",
        "--> policies/regimes/eu-gdpr.test.toml:15:11",
        "expected quarantine, found keep, by eu-gdpr",
    ] {
        assert!(errors.contains(line), "{line}\n{errors}");
    }

    fs::write(&file, changed(CASES, "regimes =", "regmes =")).unwrap();
    let (code, report, errors) = test(&[]);
    assert_eq!((code, report.as_str()), (Some(64), ""));
    assert!(errors.contains("unknown key `regmes`") && errors.contains("did you mean `regimes`?"), "{errors}");
    fs::write(root.path().join("policies/policy.toml"), "schema = 1").unwrap();
    assert_eq!(test(&[]).0, Some(64));
    // What an unreadable file may declare is not said to be missing.
    let (code, report, errors) = test(&["nowhere"]);
    assert_eq!((code, report.as_str()), (Some(64), ""));
    assert!(errors.contains("cannot read `nowhere`") && !errors.contains("there are no classes"), "{errors}");
    assert_eq!(errors.matches("error:").count(), 1, "{errors}");
}

/// One case that passes.
const CASE: &str = r#"schema = "bailiwick.test/1"

[[cases]]
name    = "people met in the Union"
source  = "GDPR Art. 3"
facts   = { "collection.place" = ["DE"] }
regimes = ["eu-gdpr"]
"#;

#[test]
fn policies_that_others_need_are_named_and_missed() {
    let (directory, _) = copy_of("card-fraud");
    let root = directory.root();
    fs::create_dir(root.join("mine")).unwrap();
    fs::copy(common::root().join("policies/regimes/eu-gdpr.toml"), root.join("mine/eu-gdpr.toml")).unwrap();
    fs::write(root.join("mine/eu-gdpr.test.toml"), CASE).unwrap();
    let alone = run(root, &["policy", "test", "mine"]);
    assert_eq!(alone.status.code(), Some(64));
    let errors = text(&alone.stderr);
    let advice = "there are no classes and no regions among these files; say where they are with --policies PATH";
    assert_eq!(errors, format!("bailiwick: {advice}\n"));
    let replayed = run(root, &["replay", "-c", CONFIG, "--against", "mine"]);
    let advice = changed(advice, "--policies PATH", "--against PATH");
    assert_eq!((replayed.status.code(), text(&replayed.stderr)), (Some(64), format!("bailiwick: {advice}\n")));
    let alone = run(root, &["policy", "test", "--json", "mine"]);
    let report: Value = serde_json::from_slice(&alone.stdout).unwrap();
    assert_eq!((alone.status.code(), text(&alone.stderr).as_str()), (Some(64), ""));
    assert_eq!(report["missing_schemas"], serde_json::json!(["bailiwick.classes/1", "bailiwick.regions/1"]));
    assert!(report["problems"].as_array().unwrap().iter().any(|problem| {
        problem["file"] == "mine/eu-gdpr.toml" && problem["line"].as_u64() > Some(1) && problem["severity"] == "error"
    }));
    // Who cannot read a file does not know that there are no classes in it.
    fs::write(root.join("mine/classes.toml"), "schema = \"bailiwick.classes/1\"\nclasses = [").unwrap();
    let broken = text(&run(root, &["policy", "test", "mine"]).stderr);
    assert!(broken.contains("mine/classes.toml:2") && !broken.contains("among these files"), "{broken}");
    fs::remove_file(root.join("mine/classes.toml")).unwrap();
    // Not the whole shipped set: it holds the same regime, which would be declared twice.
    let beside = ["--policies", "policies/classes.toml", "--policies", "policies/regions.toml"];
    let beside = run(root, &[&["policy", "test", "mine"], &beside[..]].concat());
    assert!(beside.status.success(), "{}", text(&beside.stderr));
    assert!(text(&beside.stdout).contains("1 files: "), "{}", text(&beside.stdout));
    // A file that stands in both is read once, and only the tests of what is tested are run.
    let one = ["policy", "test", "policies/regimes/eu-gdpr.test.toml", "--policies", "policies"];
    let one = text(&run(root, &one).stdout);
    assert!(one.starts_with("policies/regimes/eu-gdpr.test.toml: ") && one.contains("1 files: "), "{one}");
}

#[test]
fn the_shipped_laws_are_as_a_second_reader_reads_them() {
    let folder = common::root().join("tests/policies/expectations");
    let files = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path().display().to_string());
    let files: Vec<String> = files.filter(|file| file.ends_with(".test.toml")).collect();
    let files = files.iter().map(String::as_str);
    let arguments: Vec<&str> =
        ["policy", "test", "--json"].into_iter().chain(files).chain(["--policies", "policies"]).collect();
    let tested = run(&common::root(), &arguments);
    let report: Value = serde_json::from_slice(&tested.stdout).unwrap();
    let count = |what: &str| report[what].as_u64().unwrap();
    assert_eq!(count("failed"), 0, "{}", report["files"]);
    assert!(count("passed") >= 1_203, "{}: cases are missing", count("passed"));
}

#[test]
fn failed_cases_are_told_to_machines() {
    let (directory, _) = copy_of("card-fraud");
    let root = directory.root();
    fs::remove_file(root.join("policies")).unwrap();
    policies(root, "policies", |_, text| text);
    let passes = changed(CASE, "people met", "more people met");
    let cases = format!("{}\n{}", changed(CASE, "[\"eu-gdpr\"]", "[\"us-dsp\"]"), changed(&passes, "schema = ", "# "));
    fs::write(root.join("policies/eu-gdpr.test.toml"), cases).unwrap();
    let tested = run(root, &["policy", "test", "--json"]);
    assert_eq!((tested.status.code(), text(&tested.stderr).as_str()), (Some(1), ""));
    let report: Value = serde_json::from_slice(&tested.stdout).unwrap();
    assert_eq!((&report["failed"], &report["passed"]), (&1.into(), &1.into()), "{report}");
    let failure = &report["files"][0]["failures"][0];
    assert!(failure["line"].as_u64() > Some(1) && failure["expected"].as_str().unwrap().contains("us-dsp"), "{report}");
    assert!(failure["case"].is_string() && failure["found"].is_string(), "{report}");
}
