//! What `replay` says of other policies over the same records.

use std::fs;

use crate::common::changed;
use crate::common::process::{copy_of, run, text};
use crate::{CONFIG, payment, policies};

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
    let (code, report, errors) = replay(&["same", "--journal", "nowhere"]);
    assert_eq!((code, report.as_str()), (Some(1), ""), "{errors}");
    assert!(errors.contains("no journal in nowhere"), "{errors}");
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
    with("rounded", "round_counts_to = 5");
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

    // As many cells leave, with the same numbers but for the variances, which are withheld.
    let (code, report) = replay("rounded");
    assert_eq!((code, numbers(&report, "released")), (Some(1), Some([released, released])), "{report}");
    let [before, nulls] = numbers(&report, "nulls of amount_variance").unwrap();
    assert!(before < nulls && nulls == released, "{report}");
    for line in [
        "payments_by_country round_counts_to - 5 dataset payments_by_country, by release profile mine",
        "payments_by_country fraud_desk rounding tightened 10 10 ",
    ] {
        assert!(report.contains(line), "{line}\n{report}");
    }

    let (code, report) = replay("bounded");
    assert!(code == Some(1) && numbers(&report, "released").unwrap()[1] < released, "{report}");
}

/// With single spaces: columns are as wide as their cells.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
