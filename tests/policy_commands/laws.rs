//! `policy law`, `policy matrix` and docs/laws.md: what the shipped laws say.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use bailiwick::domain::document::{Place, Problems, Source, Spot};
use bailiwick::domain::policy::PolicySet;

use crate::common;
use crate::common::process::{run, text};

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
