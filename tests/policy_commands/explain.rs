//! What `explain` says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::common::changed;
use crate::common::process::{Process, copy_of, run, text};
use crate::{CONFIG, payment, run_with};

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
        (vec!["--lsn", "1"], "no journal in examples/card-fraud/journal: there is no directory `log`"),
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
