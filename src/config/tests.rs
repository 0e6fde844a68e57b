//! The keys that the reader asks for are those that the shapes declare.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::*;
use crate::domain::document::keys::Kind;

/// What no shipped file and no page shows.
const GATEWAY: &str = r#"
[gateway]
id = "a"
country = "DE"
serves = []
policies = []
mode = "enforce"
stop_within = "PT1S"
on_stop = "keep"
conditions = { "dest.a" = { ref = "a", until = 2027-01-01 } }

[listen]
[http]
[tls]
[tls.tokens]
[ledger]
directory = "ledger"
key = "ledger.key"
origin = "example.com/ledger"
witness_every = "PT1M"

[ledger.witness.a]
key = "a"
url = "a"

[cost]
currency = "EUR"
price_per_gib = 0.09

[log]
[limits]
[journal]
[scoring]
[shadow]
[geoip]

[[peers]]
id = "b"

[destinations.file]
kind = "file"

[destinations.kafka]
kind = "kafka"
options = { a = "b" }

[destinations.kafka.budget]
[destinations.kafka.budget.top]
[destinations.kafka.tls]
[destinations.kafka.sasl]
mechanism = "PLAIN"
"#;

const POLICY: &str = r#"
schema = "bailiwick.policy/1"

[streams.a.facts]
"source.system" = [
  { position = ["a", "b"], radius_m = 1, strength = 1 }, { registry = "a", by = "a", strength = 1 },
  { field = "a", strength = 1 }, { phone = "a", strength = 1 }, { iban = "a", strength = 1 },
  { producer = true, strength = 1 }, { geoip = true, strength = 1 }, { always = ["a"], strength = 1 },
]

[[models.a.inputs]]
fields = [{ field = "a" }]

[producers.a]
identities = ["spiffe://a/a"]

[permissions.a]
identities = ["spiffe://a/a"]
"#;

type Asked = BTreeMap<(&'static str, String), BTreeSet<bool>>;

fn collect(asked: &mut Asked, problems: &Problems) {
    for (shape, key, is_needed) in problems.asked.borrow().iter() {
        asked.entry((shape, key.clone())).or_default().insert(*is_needed);
    }
}

/// Every key that is asked for, and whether as one that must be there.
fn asked() -> Asked {
    let mut asked = Asked::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = vec![POLICY.to_owned()];
    for directory in ["policies", "examples"] {
        let named = Spot { value: root.join(directory).display().to_string(), place: nowhere() };
        let problems = Problems::default();
        texts.extend(files::read(&[named], root, &problems).into_iter().flatten().map(|file| file.text.clone()));
        assert!(!problems.any_error());
    }
    let page = std::fs::read_to_string(root.join("docs/policy.md")).unwrap();
    let schema = "schema = \"bailiwick.policy/1\"\n";
    for block in page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        let begins = block.starts_with("schema") || block.starts_with("# gateway.toml");
        texts.push(if begins { block.to_owned() } else { format!("{schema}{block}") });
    }
    for text in texts {
        let problems = Problems::default();
        policy::read(&[Arc::new(File::new("a.toml", text))], &problems);
        collect(&mut asked, &problems);
    }
    let problems = Problems::default();
    let file = Arc::new(File::new("gateway.toml", GATEWAY));
    document::read(&file, &problems, |table| read::read(table, root));
    collect(&mut asked, &problems);
    asked
}

fn nowhere() -> Place {
    let file = Arc::new(File::new("", ""));
    Place { file, span: 0..0, key: String::new() }
}

/// Every shape that a shape leads to, by name.
fn shapes(shape: &'static Shape, all: &mut BTreeMap<&'static str, &'static Shape>) {
    fn of(kind: &'static Kind, all: &mut BTreeMap<&'static str, &'static Shape>) {
        match kind {
            Kind::Table(shape) => shapes(shape, all),
            Kind::List(kind) | Kind::Named(kind) | Kind::Words(_, kind) => of(kind, all),
            Kind::OneOf(kinds) => kinds.iter().for_each(|kind| of(kind, all)),
            _ => {}
        }
    }
    let known = all.insert(shape.name, shape);
    assert!(known.is_none_or(|known| std::ptr::eq(known.keys, shape.keys)), "two shapes are called `{}`", shape.name);
    shape.keys.iter().for_each(|key| of(&key.kind, all));
}

#[test]
fn the_keys_that_are_read_are_those_that_are_declared() {
    let asked = asked();
    let mut all = BTreeMap::new();
    shapes(SHAPE, &mut all);
    policy::SHAPES.into_iter().for_each(|shape| shapes(shape, &mut all));
    for (shape, key) in asked.keys() {
        let declared = all[shape].keys.iter().any(|declared| declared.name == key);
        assert!(declared, "`{key}` of `{shape}` is read and not declared: add it to the shape's keys");
    }
    for shape in all.values() {
        for key in shape.keys.iter().filter(|key| key.name != "schema") {
            let how = asked.get(&(shape.name, key.name.to_owned()));
            let how = how.unwrap_or_else(|| panic!("`{}` of `{}` is declared and never read", key.name, shape.name));
            assert!(!key.is_required || how.contains(&true), "`{}` of `{}` may be left out", key.name, shape.name);
            assert!(!key.about.is_empty() && !shape.about.is_empty());
        }
    }
}

/// What is said of a policy file with a stream, whose table has these keys besides.
fn said_of_stream(keys: &str) -> Vec<String> {
    let classes = "schema = \"bailiwick.classes/1\"\n[classes.personal]\nabout = \"people\"\n";
    let policy = format!(
        "schema = \"bailiwick.policy/1\"\n[streams.calls]\nevent_time = \"at\"\ncontributor = \"who\"\nuntested = \
         [\"subject.residence\"]\n{keys}\n[streams.calls.facts]\n[streams.calls.fields]\nat = {{ type = \"timestamp\", class = \
         \"personal\" }}\nwho = {{ type = \"string\", class = \"personal\" }}\n"
    );
    let problems = Problems::default();
    let files = [classes.to_owned(), policy].map(|text| Arc::new(File::new("a.toml", text)));
    let policy = policy::read(&files, &problems);
    check_history(&policy, "2026-11-26".parse().unwrap(), &problems);
    problems.into_vec().into_iter().map(|problem| problem.message).collect()
}

#[test]
fn a_history_that_begins_after_today_is_refused() {
    let said = said_of_stream("history_from = \"2050-01-01T00:00:00Z\"");
    assert_eq!(said, ["`history_from` of stream `calls` is 2050-01-01T00:00:00Z, which is after today, 2026-11-26"]);
    assert!(said_of_stream("history_from = \"2026-11-26T23:59:59Z\"").is_empty());
}

#[test]
fn a_value_that_is_spelled_wrongly_is_quoted_when_it_is_short() {
    let duration = "expected a duration like \"PT30S\", \"PT10M\" or \"P1D\", found";
    assert_eq!(said_of_stream("late_max = \"P1M\""), [format!("{duration} \"P1M\"")]);
    assert_eq!(said_of_stream("late_max = inf"), [format!("{duration} inf")]);
    assert_eq!(said_of_stream("late_max = 60"), [format!("{duration} integer")]);
    let long = "x".repeat(100);
    assert_eq!(said_of_stream(&format!("late_max = \"{long}\"")), [format!("{duration} string")]);
}

#[test]
fn a_place_without_a_key_is_a_file_and_a_line() {
    assert_eq!(nowhere().to_string(), ":1");
    assert_eq!(Place { key: "gateway.id".to_owned(), ..nowhere() }.to_string(), ":1: gateway.id");
}
