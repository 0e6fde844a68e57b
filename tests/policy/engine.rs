//! The engine, asked in the reference's words.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use bailiwick::domain::batch::Candidate;
use bailiwick::domain::counting::NotCounted;
use bailiwick::domain::document::{Problem, Problems, Severity, Source};
use bailiwick::domain::evidence::{self, Knowledge, read_code};
use bailiwick::domain::fact::Fact;
use bailiwick::domain::jurisdiction::Jurisdiction;
use bailiwick::domain::knowledge::{self, Addresses, Places, Reading};
use bailiwick::domain::peer::Peer;
use bailiwick::domain::policy::{self, Conditions, Decided, Here, PolicySet, Proof, Version};
use bailiwick::domain::refusal::Reason;
use jiff::civil::Date;

use super::generate::Case;
use super::reference::{self, Gateway, Policy, Record, Says, Sender, Shown, Verdict};
use super::render::{self, STREAM};

fn says(reading: Reading) -> Says {
    match reading {
        Reading::Absent => Says::Nothing,
        Reading::Unreadable => Says::Error,
        Reading::Codes(codes) => Says::OneOf(codes.iter().map(ToString::to_string).collect()),
    }
}

/// What numbers and accounts say is taken from where it is tested by itself.
pub(super) fn phone(text: Option<&str>) -> Says {
    text.filter(|text| !text.is_empty()).map_or(Says::Nothing, |text| says(knowledge::phone(text)))
}

pub(super) fn iban(text: Option<&str>) -> Says {
    text.filter(|text| !text.is_empty()).map_or(Says::Nothing, |text| says(knowledge::iban(text)))
}

fn reading(says: Says) -> Reading {
    match says {
        Says::Nothing => Reading::Absent,
        Says::Error => Reading::Unreadable,
        Says::OneOf(codes) => {
            let codes: BTreeSet<Jurisdiction> = codes.iter().map(|code| Jurisdiction::parse(code).unwrap()).collect();
            Reading::Codes(codes.into_iter().collect())
        }
    }
}

struct World;

impl Places for World {
    fn around(&self, latitude: f64, longitude: f64, _: f64) -> Reading {
        reading(reference::place_of(latitude, longitude))
    }
}

impl Addresses for World {
    fn locate(&self, address: IpAddr) -> Reading {
        let IpAddr::V4(address) = address else { panic!("the tests' addresses are of version 4") };
        reading(reference::country_of_address(address.octets()[3]))
    }
}

pub(super) fn sources(files: impl IntoIterator<Item = (String, String)>) -> Vec<Arc<Source>> {
    files.into_iter().map(|(path, text)| Arc::new(Source::new(path, text))).collect()
}

pub(super) fn read_files(files: &[render::File]) -> (PolicySet, Vec<Problem>) {
    let problems = Problems::default();
    let set = policy::read(&sources(files.iter().map(|file| (file.name.clone(), file.text()))), &problems);
    (set, problems.into_vec())
}

pub(super) fn errors(problems: &[Problem]) -> Vec<String> {
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
    errors.map(|problem| format!("{}: {}", problem.place, problem.message)).collect()
}

pub(super) fn read(policy: &Policy) -> Arc<PolicySet> {
    let (set, problems) = read_files(&render::files(policy));
    assert_eq!(errors(&problems), Vec::<String>::new());
    Arc::new(set)
}

pub(super) fn day(day: &str) -> Date {
    day.parse().unwrap()
}

fn conditions(shown: &[Shown]) -> Conditions {
    let evidence =
        |shown: &Shown| Proof { by: None, reference: "REF".to_owned(), until: shown.until.as_deref().map(day) };
    shown.iter().map(|shown| (shown.name.parse().unwrap(), evidence(shown))).collect()
}

pub(super) fn code(code: &str) -> Jurisdiction {
    Jurisdiction::parse(code).unwrap()
}

pub(super) fn here(gateway: &Gateway) -> Arc<Here> {
    let peers = gateway.peers.iter().map(|peer| {
        Arc::new(Peer {
            id: peer.id.parse().unwrap(),
            endpoint: "http://127.0.0.1:7401".to_owned(),
            identity: None,
            country: code(&peer.country),
            serves: peer.serves.clone(),
            conditions: conditions(&peer.conditions),
        })
    });
    let peers = peers.collect();
    Arc::new(Here { country: code(&gateway.country), serves: gateway.serves.clone(), peers, own: None })
}

fn fact(name: &str) -> Fact {
    Fact::NAMES.iter().find(|(known, _)| *known == name).unwrap().1
}

pub(super) fn knowledge(policy: &Policy, set: &PolicySet) -> Knowledge {
    let registries = policy.registries.iter().map(|registry| {
        let facts: Vec<Fact> = registry.facts.iter().map(|name| fact(name)).collect();
        let mut read = knowledge::Registry::new(facts.clone());
        for (key, columns) in &registry.rows {
            let codes = columns.iter().zip(&facts).map(|(codes, &fact)| {
                let mut all = Vec::new();
                for code in codes {
                    let Reading::Codes(codes) = read_code(&set.codes, fact, code) else { panic!("{code}") };
                    all.extend(codes.iter().copied());
                }
                all
            });
            assert!(read.insert(key, codes.collect()));
        }
        (registry.name.clone(), Arc::new(read))
    });
    Knowledge {
        producers: Arc::clone(&set.producers),
        registries: registries.collect(),
        places: Some(Arc::new(World)),
        addresses: Some(Arc::new(World)),
        disputed: Arc::clone(&set.disputed),
        codes: Arc::clone(&set.codes),
        pseudonyms: None,
    }
}

pub(super) fn version(policy: &Policy, set: &Arc<PolicySet>, gateway: &Gateway, on: &str) -> Version {
    Version::compile(Arc::clone(set), here(gateway), knowledge(policy, set), day(on))
}

pub(super) fn version_of(case: &Case) -> Version {
    version(&case.policy, &read(&case.policy), &case.gateway, &case.day)
}

/// The records in columns. `row` numbers them.
pub(super) fn batch(version: &Version, records: &[Record]) -> Candidate {
    let stream = &version.policy.streams[STREAM].stream;
    let columns = stream.fields.iter().map(|field| -> ArrayRef {
        match field.name.as_str() {
            "time" => Arc::new(
                TimestampMicrosecondArray::from(vec![0; records.len()]).with_data_type(field.field_type.arrow()),
            ),
            "row" => Arc::new(Int64Array::from_iter_values(0..records.len() as i64)),
            "lat" => Arc::new(records.iter().map(|record| record.latitude).collect::<Float64Array>()),
            "lon" => Arc::new(records.iter().map(|record| record.longitude).collect::<Float64Array>()),
            "n0" | "n1" | "gone" => Arc::new(Float64Array::from(vec![0.5; records.len()])),
            name => Arc::new(records.iter().map(|record| record.text(name)).collect::<StringArray>()),
        }
    });
    let columns = RecordBatch::try_new(Arc::clone(&stream.schema), columns.collect()).unwrap();
    Candidate::new(Arc::clone(stream), columns, Vec::new())
}

pub(super) fn decide(version: &Version, records: &[Record], sender: &Sender) -> Decided {
    decide_batch(version, batch(version, records), sender)
}

pub(super) fn decide_batch(version: &Version, batch: Candidate, sender: &Sender) -> Decided {
    let address = sender.address.map(|last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)));
    version.decide(batch, evidence::Sender { producer: &sender.producer, address }, &mut NotCounted).unwrap()
}

/// The verdict on each record of a batch. What is kept is said to be kept under the regimes of the whole batch.
pub(super) fn verdicts(decided: &Decided, records: usize) -> Vec<Verdict> {
    let regimes = decided.resident.as_ref().map(|resident| (**resident.regimes()).clone()).unwrap_or_default();
    let mut verdicts = vec![Verdict::Keep(regimes); records];
    for refusal in &decided.refusals {
        verdicts[refusal.index as usize] = match (&refusal.route, refusal.reason) {
            (Some(peer), Reason::BelongsElsewhere) => Verdict::Redirect(peer.id.to_string()),
            (None, Reason::Quarantined) => Verdict::Quarantine,
            (None, reason) => Verdict::Refuse(reason.name()),
            (Some(_), reason) => panic!("a route with {}", reason.name()),
        };
    }
    verdicts
}

pub(super) fn verdict(version: &Version, record: &Record, sender: &Sender) -> Verdict {
    verdicts(&decide(version, std::slice::from_ref(record), sender), 1).remove(0)
}
