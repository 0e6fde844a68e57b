//! Facts, regimes and verdicts: what a record costs, whatever the number of regimes and of registered devices; and how
//! long the shipped policies take to load.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use bailiwick::clock::Clock;
use bailiwick::config::today;
use bailiwick::domain::batch::Candidate;
use bailiwick::domain::counting::NotCounted;
use bailiwick::domain::document::{Problems, Source};
use bailiwick::domain::evidence::{Knowledge, Sender};
use bailiwick::domain::fact::Fact;
use bailiwick::domain::jurisdiction::Jurisdiction;
use bailiwick::domain::knowledge::Registry;
use bailiwick::domain::name::GatewayId;
use bailiwick::domain::policy::{self, Conditions, Here, Own, PolicySet, Version};
use bailiwick::durable::counting;
use bailiwick::engine::counting::Counting;
use bailiwick::storage::RealFileSystem;

use super::{figure, per_record};

const ROWS: usize = 1_024;
const COMBINATIONS: usize = 50;

/// Runs them.
pub(super) fn run() {
    let mut first = None;
    for regimes in [5, 50] {
        let decide = decide(regimes, 10);
        figure(
            &format!("locate and decide, 50 combinations, {regimes} regimes"),
            decide,
            "ns/record",
            first.map(|first| decide / first),
        );
        first.get_or_insert(decide);
    }
    let devices = decide(5, 10_000);
    figure("locate and decide, 10,000 registered devices", devices, "ns/record", first.map(|first| devices / first));
    counted();
    load();
}

/// What a decision costs that a counter has a say in, beside one that none has: of persons who were counted before, and of
/// each one for the first time. The log is on a disk; a sync costs what `journal` measures, and is not in here.
fn counted() {
    let (bare, known) = (decide_counted(false, 10_000), decide_counted(true, 10_000));
    figure("decide, no counter", bare, "ns/record", None);
    figure("decide, a counter, persons counted before", known, "ns/record", Some(known / bare));
    // Nobody comes twice: more persons than are measured.
    let new = decide_counted(true, usize::MAX);
    figure("decide, a counter, each person for the first time", new, "ns/record", Some(new / bare));
}

/// Nanoseconds per record of batches of so many persons in turn, under a law of which a counter lets them go or a row that asks
/// for nothing.
fn decide_counted(is_counted: bool, persons: usize) -> f64 {
    let needs = if is_counted { "needs = [\"data.few\"]" } else { "" };
    let mut policies = String::from(STREAM);
    let mut regime = format!("{}{FEW}{needs}\n", regime("law", "subject.residence", "\"DE\""));
    if is_counted {
        policies.push_str(COUNTED);
        regime.push_str(COUNTER);
    }
    let files = [source("classes", CLASSES.to_owned()), source("regime", regime), source("policy", policies)];
    let policy = Arc::new(read(&files));
    let country = Jurisdiction::parse("IE").unwrap();
    let id: GatewayId = "ie-1".parse().unwrap();
    let own = Some(Own { id, conditions: Conditions::new() });
    let here = Here { country, serves: vec!["law".to_owned()], peers: Vec::new(), own };
    let stream = Arc::clone(&policy.streams["visits"].stream);
    let version = Version::compile(policy, Arc::new(here), Knowledge::default(), today());
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::start();
    let found = counting::open(
        Arc::new(RealFileSystem),
        directory.path(),
        counting::Chance { key: [1; 16], nobody: [2; 16] },
        clock.wall(),
    )
    .unwrap();
    let counters = Counting::new(found, clock);
    let next = Cell::new(0_usize);
    let batch = || {
        let first = next.get();
        next.set((first + ROWS) % persons);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMicrosecondArray::from(vec![0; ROWS])),
            Arc::new((first..first + ROWS).map(|person| Some((person % persons) as i64)).collect::<Int64Array>()),
            Arc::new((0..ROWS).map(|_| Some("DE")).collect::<StringArray>()),
        ];
        let columns = RecordBatch::try_new(Arc::clone(&stream.schema), columns).unwrap();
        Candidate::new(Arc::clone(&stream), columns, Vec::new())
    };
    let decide = || {
        let decided = version.decide(batch(), Sender::default(), &mut counters.begin()).unwrap();
        counters.tick();
        decided
    };
    assert_eq!(decide().resident.unwrap().batch().rows(), ROWS);
    // Those who come again were all counted before.
    (0..persons.min(100_000) / ROWS).for_each(|_| drop(black_box(decide())));
    per_record(ROWS, || drop(black_box(decide()))) - per_record(ROWS, || drop(black_box(batch())))
}

const STREAM: &str = r#"
schema = "bailiwick.policy/1"
[streams.visits]
event_time = "at"
contributor = "person"
contributor_is_person = true
[streams.visits.facts]
"subject.residence" = [{ field = "country", strength = 90 }]
[streams.visits.fields]
at = { type = "timestamp", class = "personal" }
person = { type = "int64", class = "personal" }
country = { type = "string", class = "personal" }
"#;

const COUNTED: &str = r#"
[[counted]]
regime = "law"
condition = "data.few"
gateway = "ie-1"
share = 4_000_000
already = 0
by = "counsel@acme.example"
ref = "COUNT-1"
"#;

/// The row of a law that lets records of few persons go.
const FEW: &str = r#"
[[transfers]]
id = "few"
form = "identifiable"
to = ["any"]
basis = "few persons in a year"
"#;

const COUNTER: &str = r#"
[counters."data.few"]
per = "all"
period = "calendar-year"
zone = "+00:00"
below = 4_000_001
"#;

/// Nanoseconds per record of batches with 50 distinct combinations of a country and a registered device's place.
fn decide(regimes: usize, devices: usize) -> f64 {
    let policy = Arc::new(policy(regimes));
    let codes = ["DE", "FR", "IT", "ES", "NL"].map(|code| Jurisdiction::parse(code).unwrap());
    let mut registry = Registry::new(vec![Fact::CollectionPlace]);
    for device in 0..devices {
        registry.insert(&format!("device-{device:05}"), vec![vec![codes[device % 5]]]);
    }
    let knowledge =
        Knowledge { registries: [("devices".to_owned(), Arc::new(registry))].into(), ..Knowledge::default() };
    let serves = policy.regimes.keys().cloned().collect();
    let here = Here { country: codes[0], serves, peers: Vec::new(), own: None };
    let stream = Arc::clone(&policy.streams["events"].stream);
    let version = Version::compile(policy, Arc::new(here), knowledge, today());
    let countries = ["AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI"];
    // Neighbours differ: the worst case of what is remembered from record to record.
    let of = |row: usize| row * 7 % COMBINATIONS;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from(vec![0; ROWS])),
        Arc::new((0..ROWS).map(|row| Some(countries[of(row) % 10])).collect::<StringArray>()),
        Arc::new(
            (0..ROWS)
                .map(|row| Some(format!("device-{:05}", (of(row) / 10 + 5 * row) % devices)))
                .collect::<StringArray>(),
        ),
    ];
    let columns = RecordBatch::try_new(Arc::clone(&stream.schema), columns).unwrap();
    let batch = || Candidate::new(Arc::clone(&stream), columns.clone(), Vec::new());
    assert_eq!(
        version.decide(batch(), Sender::default(), &mut NotCounted).unwrap().resident.unwrap().batch().rows(),
        ROWS
    );
    let all =
        per_record(ROWS, || drop(black_box(version.decide(batch(), Sender::default(), &mut NotCounted).unwrap())));
    all - per_record(ROWS, || drop(black_box(batch())))
}

fn policy(regimes: usize) -> PolicySet {
    let text = r#"
schema = "bailiwick.policy/1"
[registries.devices]
key = "id"
facts = { "collection.place" = "country" }
[streams.events]
event_time = "at"
contributor = "device"
[streams.events.facts]
"subject.residence" = [{ field = "country", strength = 90 }]
"collection.place" = [{ registry = "devices", by = "device", strength = 90 }]
[streams.events.fields]
at = { type = "timestamp", class = "personal" }
country = { type = "string", class = "personal" }
device = { type = "string", class = "personal" }
"#;
    let mut files = vec![source("classes", CLASSES.to_owned()), source("policy", text.to_owned())];
    for number in 0..regimes {
        let fact = if number % 2 == 0 { "subject.residence" } else { "collection.place" };
        let countries = r#""AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "IT", "NL""#;
        files.push(source(&format!("regime-{number}"), regime(&format!("r{number}"), fact, countries)));
    }
    read(&files)
}

const CLASSES: &str = r#"
schema = "bailiwick.classes/1"
[classes.personal]
about = "persons"
"#;

/// A law over the records of which a fact is in one of some countries. It lets nothing go.
fn regime(id: &str, fact: &str, countries: &str) -> String {
    format!(
        r#"
schema = "bailiwick.regime/1"
id = "{id}"
name = "a law"
notice = "n"
as_of = 2026-01-01
review_by = 2099-01-01
confidence = "high"
sources = ["s"]
classes = ["personal"]
localisation = "none"
misroute = "redirect"
[[applies]]
fact = "{fact}"
in = [{countries}]
"#
    )
}

fn source(path: &str, text: String) -> Arc<Source> {
    Arc::new(Source::new(path, text))
}

fn read(files: &[Arc<Source>]) -> PolicySet {
    let problems = Problems::default();
    let policy = policy::read(files, &problems);
    assert!(!problems.any_error(), "{:?}", problems.into_vec());
    policy
}

/// Milliseconds from the text of all shipped policies to rules that decide.
fn load() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let mut files = Vec::new();
    for directory in [root.clone(), root.join("regimes")] {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.to_string_lossy().into_owned();
            if name.ends_with(".toml") && !name.ends_with(".test.toml") {
                files.push(source(&name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let compiled = || {
        let policy = Arc::new(read(&files));
        let country = Jurisdiction::parse("DE").unwrap();
        let here = Here { country, serves: vec!["eu-gdpr".to_owned()], peers: Vec::new(), own: None };
        Version::compile(policy, Arc::new(here), Knowledge::default(), today())
    };
    let nanoseconds = per_record(1, || drop(black_box(compiled())));
    figure(&format!("load of the {} shipped policy files", files.len()), nanoseconds / 1e6, "ms", None);
}
