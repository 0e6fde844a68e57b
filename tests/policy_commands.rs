//! `explain`, `replay` and `policy` as a user meets them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use bailiwick::domain::document::{Place, Problems, Source, Spot};
use bailiwick::domain::policy::PolicySet;
use serde_json::Value;
use tempfile::TempDir;

use common::changed;
use common::process::{BINARY, Process, copy_of, run, text};

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

fn explain(directory: &Path, more: &[&str], input: &str) -> Output {
    run_with(directory, &[&["explain", "-c", CONFIG, "-s", "payments", "-p", "till-7"], more].concat(), input)
}

#[test]
fn a_record_is_explained() {
    let (directory, _) = copy_of("card-fraud");
    let input = ["DE", "US-CA", "AQ", "QQ"].map(payment).join("\n");
    let explained = explain(directory.root(), &[], &input);
    assert!(explained.status.success(), "{}", text(&explained.stderr));
    let told = text(&explained.stdout);
    for line in [
        "subject.residence: DE",
        "field `country`, strength 90: DE",
        "eu-gdpr, served here, by eu-gdpr/applies/gateway.country, eu-gdpr/applies/subject.residence",
        "kept, under eu-gdpr",
        "payments_by_country to fraud_desk (IE): those of at least 10 contributors",
        "us-dsp, not served here, by us-dsp/applies/subject.residence",
        "belongs elsewhere: to us-iad-1 in US, http://127.0.0.1:7401, by us-dsp/misroute",
        "refused: no_regime",
        "subject.residence: unknown: evidence cannot be read",
        "refused: unknown_jurisdiction, by facts/subject.residence/unknown",
    ] {
        assert!(told.contains(line), "{line}\n{told}");
    }
    assert!(!told.contains("secret") && !told.contains("12.5") && !told.contains("QQ"), "{told}");

    let explained = explain(directory.root(), &["--json", "-"], &input);
    let told: Vec<Value> = text(&explained.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let verdicts: Vec<&str> = told.iter().map(|record| record["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["keep", "redirect", "refuse", "refuse"]);
    assert_eq!(told[0]["cells"][0]["answers"][0]["rules"][0], "eu-gdpr/transfers/statistics");
    assert_eq!(told[1]["route"]["id"], "us-iad-1");
    assert_eq!((&told[2]["record"], &told[2]["reason"]), (&2.into(), &"no_regime".into()));
    let evidence = &told[0]["facts"].as_array().unwrap().iter().find(|fact| fact["finding"] == "known").unwrap();
    assert_eq!(evidence["evidence"][0]["source"], "country");
}

#[test]
fn what_cannot_be_explained_is_said() {
    let (directory, _) = copy_of("card-fraud");
    let input = format!("{{\"card\": \n[1, \"secret\"]\n{}", changed(&payment("DE"), "\"elapsed\"", "\"elapst\""));
    let explained = explain(directory.root(), &[], &input);
    assert!(explained.status.success());
    let told = text(&explained.stdout);
    assert_eq!(told.matches("refused: malformed_record; the policies were not asked").count(), 2, "{told}");
    assert!(told.contains("refused: undeclared_field, field `elapst`; the policies were not asked"), "{told}");
    assert!(!told.contains("secret"), "{told}");
    let explained = explain(directory.root(), &["--json"], &changed(&payment("DE"), "2026-", "2199-"));
    let told: Value = serde_json::from_str(&text(&explained.stdout)).unwrap();
    assert_eq!((&told["reason"], &told["policies_asked"]), (&"event_time_in_future".into(), &false.into()));

    // What to change is said where it can be told.
    let naive = changed(&payment("DE"), "T10:00:00Z", "T10:00:00");
    let told = text(&explain(directory.root(), &[], &naive).stdout);
    assert!(
        told.contains("field `event_time`; the policies were not asked\n    the time names no zone; add `Z`"),
        "{told}"
    );
    let told: Value = serde_json::from_str(&text(&explain(directory.root(), &["--json"], &naive).stdout)).unwrap();
    assert_eq!(told["hint"], "time_zone_missing");
    assert!(told["advice"].as_str().unwrap().contains("add `Z`"), "{told}");

    fs::write(directory.root().join("array.json"), format!("[{}]", payment("DE"))).unwrap();
    fs::write(directory.root().join("endless.json"), vec![b' '; 9 << 20]).unwrap();
    let failing = [
        (vec!["-s", "payment"], "there is no stream `payment`; declared: payments"),
        (vec!["-s", "payments"], "there is no record in stdin"),
        (vec!["-s", "payments", "nowhere.jsonl"], "cannot read `nowhere.jsonl`"),
        (vec!["-s", "payments", "/dev/zero"], "`/dev/zero` is a character device; name a regular file"),
        (
            vec!["-s", "payments", "array.json"],
            "array.json is a JSON array; give one JSON object per line: `jq -c '.[]' FILE`",
        ),
        (vec!["-s", "payments", "endless.json"], "endless.json:1 is longer than 8388608 bytes"),
        (vec!["--lsn", "1"], "entry 1 of the journal holds no records: it is not there"),
    ];
    for (arguments, message) in failing {
        let explained = run_with(directory.root(), &[&["explain", "-c", CONFIG], &arguments[..]].concat(), "");
        assert_eq!(explained.status.code(), Some(1), "{arguments:?}");
        assert!(text(&explained.stderr).contains(message), "{}", text(&explained.stderr));
    }
    for arguments in [&["explain"][..], &["explain", "-s", "payments", "--row", "1"], &["replay", "-c", CONFIG]] {
        assert_eq!(run(directory.root(), arguments).status.code(), Some(2));
    }
}

#[test]
fn a_sealed_journal_is_explained_and_replayed_while_its_key_is_there() {
    let (directory, port) = copy_of("card-fraud");
    let (config, key) = (directory.root().join(CONFIG), directory.root().join("examples/card-fraud/eu.key"));
    let unsealed = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{unsealed}\n[journal.keys]\neu-gdpr = \"eu.key\"\n")).unwrap();
    fs::write(&key, [7; 32]).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let gateway = Process::start_with(directory.root(), &["run", "-c", CONFIG]);
    let endpoint = format!("http://127.0.0.1:{port}");
    let send = ["send", "--to", &endpoint, "-s", "payments", "-p", "till-7", "--no-follow", "--allow-refused"];
    let sent = run_with(directory.root(), &send, &["DE", "FR", "US"].map(payment).join("\n"));
    assert!(sent.status.success(), "{}", text(&sent.stderr));

    // Beside the gateway that runs.
    let inspected = text(&run(directory.root(), &["journal", "inspect", "examples/card-fraud/journal"]).stdout);
    assert!(inspected.contains("producer till-7: 2 records"), "{inspected}");
    let found = (1..10).find_map(|lsn| {
        let lsn = lsn.to_string();
        let explained = run(directory.root(), &["explain", "-c", CONFIG, "--lsn", &lsn]);
        explained.status.success().then(|| (lsn, text(&explained.stdout)))
    });
    let (lsn, told) = found.expect("no entry holds the records");
    assert!(told.contains(&format!("entry {lsn} of the journal: 2 records of `payments` by `till-7`")), "{told}");
    assert!(told.contains("subject.residence: DE") && told.contains("subject.residence: FR"), "{told}");
    let explained = run(directory.root(), &["explain", "-c", CONFIG, "--lsn", &lsn, "--row", "1", "--json"]);
    let told: Value = serde_json::from_str(&text(&explained.stdout)).unwrap();
    assert_eq!((&told["record"], &told["verdict"]), (&1.into(), &"keep".into()));
    let explained = run(directory.root(), &["explain", "-c", CONFIG, "--lsn", &lsn, "--row", "2"]);
    assert!(text(&explained.stderr).contains("the entry has 2 records; the first is --row 0"));
    let explained = run(directory.root(), &["explain", "-c", CONFIG, "--lsn", "1000000"]);
    assert!(text(&explained.stderr).contains("entry 1000000 of the journal holds no records"));

    let against = ["replay", "-c", CONFIG, "--journal", "examples/card-fraud/journal", "--against", "policies"];
    let replayed = run(directory.root(), &[&against[..], &["--against", "examples/card-fraud/policies"]].concat());
    assert!(replayed.status.success(), "{}", text(&replayed.stderr));
    assert!(text(&replayed.stdout).contains("of them kept             2 "), "{}", text(&replayed.stdout));
    gateway.kill();

    fs::write(&config, unsealed).unwrap();
    let explained = run(directory.root(), &["explain", "-c", CONFIG, "--lsn", &lsn]);
    let erased = "erased: there is no key of eu-gdpr";
    assert!(text(&explained.stderr).contains(&format!("the records of entry {lsn} are {erased}")));
    let replayed =
        text(&run(directory.root(), &[&against[..], &["--against", "examples/card-fraud/policies"]].concat()).stdout);
    assert!(replayed.starts_with("0 records") && replayed.contains(&format!("2 records: not compared, {erased}")));
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

#[test]
fn other_policies_are_compared_over_the_same_records() {
    let (directory, _) = copy_of("card-fraud");
    let root = directory.root();
    policies(root, "same", |_, text| text + "\n# Nothing else.\n");
    policies(root, "other", |file, text| match file {
        "uk-gdpr.toml" => changed(&text, "in     = [\"uk\"]", "in     = [\"uk\", \"IE\"]"),
        "policy.toml" => changed(&text, "country = \"IE\"", "country = \"IE\"\nmax_form = \"dp\""),
        "eu-gdpr.toml" => changed(&text, "\"eea_territories\"]", "\"eea_territories\", \"RU\"]"),
        "ru-152fz.toml" => changed(&text, "fact   = \"subject.residence\"", "fact   = \"subject.citizenship\""),
        _ => text,
    });
    let replay = |more: &[&str]| {
        let replayed = run(root, &[&["replay", "-c", CONFIG, "--against"], more].concat());
        (replayed.status.code(), text(&replayed.stdout), text(&replayed.stderr))
    };
    let files = ["-s", "payments", "-p", "till-7", "examples/card-fraud/data.csv.gz"];
    let (code, report, errors) = replay(&[&["same", "--fail-on-difference"], &files[..]].concat());
    assert_eq!(code, Some(0), "{report}{errors}");
    for line in [
        "16,716 records under policy",
        "unchanged                16,716",
        "of them kept            8,417",
        "  the same\n",
    ] {
        assert!(squeezed(&report).contains(&squeezed(line)), "{line}\n{report}");
    }
    let (code, report, _) = replay(&[&["other"], &files[..]].concat());
    assert_eq!(code, Some(0), "{report}");
    // People in Russia come under the one law now and no longer under their own, the Irish under another as well.
    for line in [
        "newly allowed 241 ",
        "newly denied 823 ",
        "ru-152fz/misroute 241 (",
        "uk-gdpr/misroute - 823 (",
        "payments_by_country fraud_desk newly denied 10 - `max_form` of the destination",
    ] {
        assert!(squeezed(&report).contains(line), "{line}\n{report}");
    }
    assert_eq!(replay(&[&["other", "--fail-on-difference"], &files[..]].concat()).0, Some(1));

    fs::write(root.join("few.jsonl"), [payment("DE"), "none".to_owned(), payment("JP")].join("\n")).unwrap();
    let (_, report, _) = replay(&["same", "-s", "payments", "few.jsonl"]);
    assert!(
        squeezed(&report).contains("of them kept 1 ") && squeezed(&report).contains("of them not as declared 1 "),
        "{report}"
    );
    let (code, _, errors) = replay(&["same", "-s", "calls", "few.jsonl"]);
    assert_eq!((code, errors.contains("there is no stream `calls`; declared: payments")), (Some(1), true), "{errors}");
    let (code, _, errors) = replay(&["nowhere"]);
    assert_eq!((code, errors.contains("cannot read") && errors.contains("nowhere")), (Some(64), true), "{errors}");
    fs::write(root.join("same/policy.toml"), "schema = \"bailiwick.policy/1\"\nstream = 1\n").unwrap();
    let (code, _, errors) = replay(&["same"]);
    assert_eq!((code, errors.contains("did you mean `streams`?")), (Some(64), true), "{errors}");
}

/// A profile that asks for more, and one that bounds what one contributor adds, over the records of the example.
#[test]
fn what_a_changed_profile_would_have_released_is_shown() {
    let (directory, _) = copy_of("card-fraud");
    let root = directory.root();
    let with = |name: &str, profile: &str| {
        policies(root, name, |file, text| match file {
            "policy.toml" => {
                let named = changed(&text, "min_contributors = 10\ngroup_by", "release = \"mine\"\ngroup_by");
                format!("{named}\n[release.mine]\n{profile}\n")
            }
            _ => text,
        });
    };
    with("same", "min_contributors = 10");
    with("stricter", "min_contributors = 30");
    with("shared", "max_producer_share = 0.5");
    with("bounded", "records_per_contributor = 1\ncells_per_contributor = 1");
    // A second dataset of the same cells that asks for more.
    policies(root, "joined", |file, text| match file {
        "policy.toml" => {
            let (_, first) = text.split_once("[datasets.payments_by_country]\n").unwrap();
            let (first, _) = first.split_once("metrics = [").unwrap();
            let second = changed(first, "min_contributors = 10", "min_contributors = 30");
            let metrics = "metrics = [{ name = \"total\", fn = \"sum\", field = \"amount\" }]";
            let accepted =
                changed(&text, "accepts = [\"payments_by_country\"", "accepts = [\"payments_by_country\", \"more\"");
            format!("{accepted}\n[datasets.more]\n{second}{metrics}\n")
        }
        _ => text,
    });
    let replay = |against: &str| {
        let arguments =
            ["replay", "-c", CONFIG, "--against", against, "--fail-on-difference", "-s", "payments", "-p", "till-7"];
        let replayed = run(root, &[&arguments[..], &["examples/card-fraud/data.csv.gz"]].concat());
        (replayed.status.code(), squeezed(&text(&replayed.stdout)))
    };
    // The numbers before and after behind some words.
    let numbers_of = |dataset: &str, report: &str, words: &str| -> Option<[usize; 2]> {
        let (_, rest) = report.split_once(&format!("{dataset} {words} "))?;
        let mut numbers = rest.split(' ').map(|number| number.replace(',', "").parse().unwrap());
        Some([numbers.next().unwrap(), numbers.next().unwrap()])
    };
    let numbers = |report: &str, words: &str| numbers_of("payments_by_country", report, words);
    const FEW: &str = "withheld: too few contributors";
    let few = ["replay", "-c", CONFIG, "--against", "same", "-s", "payments", "--windows-bytes-max", "100000"];
    let refused = run(root, &[&few[..], &["examples/card-fraud/data.csv.gz"]].concat());
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("take more memory than 97.66 KiB, which `--windows-bytes-max` allows"), "{said}");
    let (code, report) = replay("same");
    let ([released, after], [few, few_after]) = (numbers(&report, "released").unwrap(), numbers(&report, FEW).unwrap());
    assert_eq!((code, after, few_after), (Some(0), released, few), "{report}");
    assert!(released > 100 && report.contains("windows of which not the same would leave: 0"), "{report}");
    assert!(report.contains("payments_by_country: metrics of the model's outputs are left out below"), "{report}");

    let (code, report) = replay("stricter");
    let (released_now, few_now) = (numbers(&report, "released").unwrap(), numbers(&report, FEW).unwrap());
    assert!(code == Some(1) && released_now[0] == released && released_now[1] < released, "{report}");
    assert_eq!((few_now[0], released_now[1] + few_now[1]), (few, released + few), "{report}");
    assert!(!report.contains("windows of which not the same would leave: 0"), "{report}");
    let rule = "payments_by_country min_contributors 10 30 dataset payments_by_country, by release profile mine";
    assert!(report.contains(rule), "{report}");

    // Both are judged as the stricter one.
    let (_, report) = replay("joined");
    assert_eq!((numbers(&report, "released"), numbers(&report, FEW)), (Some(released_now), Some(few_now)), "{report}");
    assert_eq!(numbers_of("more", &report, "released"), Some([0, released_now[1]]), "{report}");
    assert_eq!(numbers_of("more", &report, FEW), Some([0, few_now[1]]), "{report}");

    // All of it is of one producer.
    let (_, report) = replay("shared");
    assert_eq!(numbers(&report, "released"), Some([released, 0]), "{report}");
    assert_eq!(numbers(&report, "withheld: too large a share of one producer"), Some([0, released]), "{report}");

    let (code, report) = replay("bounded");
    assert!(code == Some(1) && numbers(&report, "released").unwrap()[1] < released, "{report}");
}

/// With single spaces: columns are as wide as their cells.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

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
    assert!(errors.contains("there is no class `personal`"), "{errors}");
    let advice = "there are no classes and no regions among these files; say where they are with --policies PATH";
    assert!(errors.contains(advice), "{errors}");
    let alone = run(root, &["policy", "test", "--json", "mine"]);
    let report: Value = serde_json::from_slice(&alone.stdout).unwrap();
    assert_eq!((alone.status.code(), text(&alone.stderr).as_str()), (Some(64), ""));
    assert_eq!(report["missing_schemas"], serde_json::json!(["bailiwick.classes/1", "bailiwick.regions/1"]));
    assert!(report["problems"].as_array().unwrap().iter().any(|problem| {
        problem["file"] == "mine/eu-gdpr.toml" && problem["line"].as_u64() > Some(1) && problem["severity"] == "error"
    }));
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

const BEGIN: &str = "<!-- made -->\n";
const END: &str = "<!-- end -->\n";

/// The shipped policies, read by the library.
fn shipped() -> PolicySet {
    let path = common::root().join("policies").display().to_string();
    let file = Arc::new(Source::new("(test)", path.clone()));
    let place = Place { file, span: 0..path.len(), key: String::new() };
    let problems = Problems::default();
    let files = bailiwick::config::policies(&[Spot { value: path, place }], &problems).unwrap();
    let policy = bailiwick::domain::policy::read(&files, &problems);
    assert!(!problems.any_error(), "{:?}", problems.into_vec());
    policy
}

#[test]
fn the_page_of_the_laws_is_what_their_files_say() {
    let path = common::root().join("docs/laws.md");
    let page = fs::read_to_string(&path).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (_, tail) = rest.split_once(END).unwrap();
    let made = format!("{head}{BEGIN}{}{END}{tail}", bailiwick::commands::policy::tables(&shipped()));
    if std::env::var_os("BAILIWICK_WRITE").is_some() {
        fs::write(&path, &made).unwrap();
    }
    assert!(made == fs::read_to_string(&path).unwrap(), "docs/laws.md is old: it says how to write it again");
}

/// Every rule of a shipped law names its paragraph, and every law says what is certain or what is not.
#[test]
fn every_shipped_rule_names_what_it_rests_on() {
    for law in shipped().regimes.values() {
        for scope in &law.applies {
            assert!(!scope.source.is_empty(), "{}: the test of {}", law.id, scope.fact.name());
        }
        let entries = law.applies.iter().map(|scope| &scope.within).chain(law.transfers.iter().flat_map(|row| &row.to));
        for (code, term) in entries
            .flat_map(|region| &region.codes)
            .flat_map(|(code, terms)| terms.iter().map(move |term| (code, term)))
        {
            let is_of_region = term.review_by.is_some();
            assert!(!is_of_region || !term.source.is_empty(), "{}: {code}", law.id);
        }
        for row in &law.transfers {
            assert!(!row.term.source.is_empty(), "{}: {}", law.id, row.id);
        }
        assert!(!law.notes.certain.is_empty() || !law.notes.uncertain.is_empty(), "{}", law.id);
    }
}

#[test]
fn a_law_is_printed_as_it_is_read_with_a_place_to_mark_each_rule() {
    let root = common::root();
    let policy = shipped();
    for id in ["eu-gdpr", "au-mhr", "ng-cbn-payments"] {
        let law = &policy.regimes[id];
        let printed = run(&root, &["policy", "law", id]);
        assert!(printed.status.success(), "{}", text(&printed.stderr));
        let printed = text(&printed.stdout);
        assert!(printed.starts_with(&format!("{id}: {}\n", law.name)), "{printed}");
        let words = printed.split_whitespace().collect::<Vec<_>>().join(" ");
        for row in &law.transfers {
            let source = format!("Source: {}.", row.term.source.split_whitespace().collect::<Vec<_>>().join(" "));
            let row = format!("{}: {}.", law.rule(row), row.basis);
            assert!(words.contains(&row) && words.contains(&source), "{row} {source}\n{printed}");
        }
        for scope in &law.applies {
            assert!(words.contains(&format!("{id}/applies/{}: ", scope.fact.name())), "{printed}");
        }
        assert_eq!(printed.matches("[ ] read rightly").count(), law.applies.len() + law.transfers.len());
        assert!(printed.lines().all(|line| line.chars().count() <= 102), "{printed}");
    }
    let system = text(&run(&root, &["policy", "law", "au-mhr"]).stdout);
    assert!(system.contains("the record comes from the system au-my-health-record"), "{system}");
    let from = text(&run(&root, &["policy", "law", "ng-cbn-payments"]).stdout);
    assert!(from.contains("The law begins on 2026-12-31."), "{from}");
    let unknown = run(&root, &["policy", "law", "eu-gdrp"]);
    assert!(!unknown.status.success());
    let said = text(&unknown.stderr);
    assert!(said.contains("there is no regime `eu-gdrp`; did you mean `eu-gdpr`?"), "{said}");
}

#[test]
fn the_matrix_says_which_form_may_go_where_under_which_conditions() {
    let root = common::root();
    let printed = |arguments: &[&str]| {
        let printed = run(&root, &[&["policy", "matrix"], arguments].concat());
        assert!(printed.status.success(), "{}", text(&printed.stderr));
        text(&printed.stdout)
    };
    let gdpr = ["eu-gdpr", "--to", "DE", "--to", "CN"];
    let table: Vec<Vec<String>> = printed(&gdpr)
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect())
        .collect();
    let has = |cells: &[&str]| table.iter().any(|row| row.iter().map(String::as_str).eq(cells.iter().copied()));
    assert!(has(&["DE", "identifiable", "none", "-", "inside-eea"]), "{table:?}");
    assert!(has(&["identifiable", "dest.scc + dest.tia", "-", "clauses"]), "{table:?}");
    assert!(has(&["statistical", "data.anonymity_assessed", "-", "statistics"]), "{table:?}");
    // What records may do, cells may do: it stands there once.
    assert!(!has(&["statistical", "dest.scc + dest.tia", "-", "clauses"]), "{table:?}");
    let csv = printed(&[&gdpr[..], &["--format", "csv"]].concat());
    assert!(csv.starts_with("law,applies_to,to,form,allowed,conditions,from,until,row,source\n"), "{csv}");
    assert!(csv.contains(",CN,statistical,yes,data.anonymity_assessed,,,statistics,"), "{csv}");
    let none = printed(&["us-dsp-gov", "--to", "CN", "--format", "csv"]);
    assert!(none.contains(",CN,identifiable,no,,,,,"), "{none}");
    let counted = printed(&["us-dsp", "--to", "CN"]);
    assert!(counted.contains("data.us_dsp_below_bulk (vouched for, or counted: below 100)"), "{counted}");
    let page = printed(&[&gdpr[..], &["--format", "html"]].concat());
    assert_eq!(page.matches("<tr><td>").count(), csv.lines().count() - 1);
    // All laws, and those of one place.
    let laws = |arguments: &[&str]| -> BTreeSet<String> {
        printed(arguments).lines().skip(1).map(|line| line.split(',').next().unwrap().to_owned()).collect()
    };
    let all = laws(&["--format", "csv"]);
    assert_eq!(all, shipped().regimes.keys().cloned().collect());
    let of_nigeria = laws(&["--from", "NG", "--format", "csv"]);
    assert_eq!(of_nigeria, ["ng-cbn-payments", "ng-ndpa", "ng-sovereign"].map(str::to_owned).into());
    let unknown = run(&root, &["policy", "matrix", "--to", "XX"]);
    assert!(text(&unknown.stderr).contains("`XX` is not an ISO 3166-1 alpha-2 or ISO 3166-2 code"));
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

#[test]
fn a_record_that_no_peer_serves_whole_is_told_so() {
    let (directory, _) = copy_of("card-fraud");
    let input = payment("BR");
    let told = text(&explain(directory.root(), &[], &input).stdout);
    assert!(
        told.contains("  refused: may_not_be_here") && told.contains("    no peer serves all of its regimes: br-lgpd"),
        "{told}"
    );
    let told: Value = serde_json::from_slice(&explain(directory.root(), &["--json"], &input).stdout).unwrap();
    let regimes: Vec<&str> =
        told["regimes"].as_array().unwrap().iter().map(|regime| regime["id"].as_str().unwrap()).collect();
    let unserved = told["served_by_no_peer"].as_array().unwrap();
    assert!(
        !unserved.is_empty() && unserved.iter().all(|regime| regimes.contains(&regime.as_str().unwrap())),
        "{told}"
    );
}
