//! Random policies, gateways and records over a small world. Everything is built from a tape of numbers, so that
//! proptest can make a failing case smaller: zeros give the plainest choices.

use std::collections::BTreeSet;
use std::fmt;

use proptest::prelude::*;

use super::reference::{
    Applies, Class, Destination, Entry, Evidence, FACTS, FORMS, Field, Gateway, Model, Override, Peer, Policy,
    Producer, Record, Regime, Region, Registry, Sender, Shown, Source, Stream, Transfer, Vouch,
};
use super::render;

/// Codes of places that policies name.
const NAMED: [&str; 18] = [
    "DE", "FR", "US", "US-CA", "CA", "CA-QC", "PR", "HK", "CN", "UA-43", "UA", "RU", "JE", "GB", "US-PR", "CN-HK",
    "RE", "US-NY",
];
/// What records say.
const SAID: [Option<&str>; 26] = [
    Some("DE"),
    Some("FR"),
    Some("US"),
    Some("US-CA"),
    Some("CA"),
    Some("CA-QC"),
    Some("PR"),
    Some("HK"),
    Some("CN"),
    Some("UA-43"),
    Some("UA"),
    Some("RU"),
    Some("JE"),
    Some("GB"),
    Some("US-PR"),
    Some("CN-HK"),
    Some("DE"),
    Some("DE"),
    Some("FR"),
    None,
    Some(""),
    Some("ZZ"),
    Some("XX"),
    Some("de"),
    Some("DEUTSCHLAND"),
    Some("BR"),
];
const SYSTEMS: [&str; 3] = ["ehr", "crm", "EHR"];
const DAYS: [&str; 6] = ["2026-11-01", "2026-11-23", "2026-12-31", "2027-01-01", "2027-01-02", "2028-06-30"];
pub(super) const CONDITIONS: [&str; 5] = ["dest.scc", "dest.dpf", "controller.filed", "approval.cac", "data.clean"];
const ROLES: [&str; 2] = ["crm", "edge"];
const PHONES: [Option<&str>; 7] = [
    Some("+491701234567"),
    None,
    Some("+79161234567"),
    Some("+12125550123"),
    Some("+33612345678"),
    Some("nonsense"),
    Some(""),
];
const IBANS: [Option<&str>; 5] = [
    Some("DE89370400440532013000"),
    None,
    Some("FR1420041010050500013M02606"),
    Some("DE00370400440532013000"),
    Some(""),
];
/// Fields that are texts. `x` and `y` are left to the tests: no random evidence reads them.
pub(super) const TEXTS: [&str; 10] = ["who", "a", "b", "c", "x", "y", "phone", "iban", "device", "extra"];

pub(super) struct Tape {
    numbers: Vec<u16>,
    at: usize,
}

impl Tape {
    pub(super) fn below(&mut self, count: usize) -> usize {
        let number = self.numbers.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        usize::from(number) % count
    }

    pub(super) fn is(&mut self, percent: usize) -> bool {
        self.below(100) >= 100 - percent
    }

    pub(super) fn one<T: Clone>(&mut self, of: &[T]) -> T {
        let at = self.below(of.len());
        of[at].clone()
    }

    fn name(&mut self, of: &[&str]) -> String {
        self.one(of).to_owned()
    }

    /// So many different ones.
    fn some<T: Clone + PartialEq>(&mut self, of: &[T], least: usize, most: usize) -> Vec<T> {
        let count = least + self.below(most - least + 1);
        let mut chosen = Vec::new();
        for _ in 0..count {
            let one = self.one(of);
            if !chosen.contains(&one) {
                chosen.push(one);
            }
        }
        chosen
    }

    fn names(&mut self, of: &[&str], least: usize, most: usize) -> Vec<String> {
        self.some(of, least, most).into_iter().map(str::to_owned).collect()
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }

    fn day(&mut self) -> Option<String> {
        self.is(30).then(|| self.name(&DAYS))
    }

    /// A first and a last day, the one not after the other.
    fn days(&mut self) -> (Option<String>, Option<String>) {
        let (from, until) = (self.is(15).then(|| self.name(&DAYS)), self.day());
        let from = from.filter(|from| until.as_ref().is_none_or(|until| from <= until));
        (from, until)
    }
}

/// A policy at a gateway on a day, and what is sent to it.
pub(super) struct Case {
    pub(super) policy: Policy,
    pub(super) gateway: Gateway,
    pub(super) day: String,
    pub(super) senders: Vec<Sender>,
    pub(super) records: Vec<Record>,
    /// What is left of the tape.
    pub(super) tape: std::cell::RefCell<Tape>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in render::files(&self.policy) {
            writeln!(f, "--- {}\n{}", file.name, file.text())?;
        }
        writeln!(f, "{:?}\non {}\n{:?}", self.gateway, self.day, self.senders)?;
        self.records.iter().try_for_each(|record| writeln!(f, "{record:?}"))
    }
}

pub(super) const RECORDS: usize = 24;

/// Policies per property: as many as `BAILIWICK_TEST_POLICIES` says. Without optimisation there is time for fewer.
pub(super) fn policies() -> u32 {
    let asked = std::env::var("BAILIWICK_TEST_POLICIES").ok().and_then(|asked| asked.parse().ok());
    asked.unwrap_or(if cfg!(debug_assertions) { 20 } else { 150 })
}

pub(super) fn many() -> ProptestConfig {
    ProptestConfig { cases: policies(), failure_persistence: None, ..ProptestConfig::default() }
}

pub(super) fn cases() -> impl Strategy<Value = Case> {
    prop::collection::vec(any::<u16>(), 1_600).prop_map(|numbers| {
        let mut tape = Tape { numbers, at: 0 };
        // The records first: what is made smaller in the policy does not change them.
        let records = (0..RECORDS).map(|_| record(&mut tape)).collect();
        let policy = policy(&mut tape);
        let gateway = gateway(&mut tape, &policy);
        let day = tape.name(&DAYS);
        let senders = vec![
            Sender { producer: "p0".to_owned(), address: Some(tape.below(6) as u8) },
            Sender { producer: tape.name(&["p1", "p2", "nobody"]), address: tape.is(50).then_some(0) },
        ];
        Case { policy, gateway, day, senders, records, tape: tape.into() }
    })
}

pub(super) fn record(tape: &mut Tape) -> Record {
    let mut record = Record::default();
    // Mostly of one mind, so that not all are contradictions.
    let usual = tape.one(&SAID);
    for field in TEXTS {
        let text = match field {
            "phone" => tape.one(&PHONES),
            "iban" => tape.one(&IBANS),
            "device" => tape.one(&[Some("d0"), Some("d1"), Some("d2"), Some("d3"), Some(""), None]),
            "who" | "extra" => Some("u1"),
            "c" if tape.is(50) => tape.one(&[Some("ehr"), Some("crm"), Some("EHR")]),
            _ if tape.is(60) => usual,
            _ => tape.one(&SAID),
        };
        record.texts.push((field.to_owned(), text.map(str::to_owned)));
    }
    let degrees = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 9.0];
    record.latitude = (!tape.is(10)).then(|| tape.one(&degrees));
    record.longitude = record.latitude.map(|_| 0.0);
    match tape.below(40) {
        37 => record.longitude = None,
        38 => record.latitude = Some(f64::NAN),
        39 => (record.latitude, record.longitude) = (None, Some(1.0)),
        _ => {}
    }
    record
}

pub(super) fn policy(tape: &mut Tape) -> Policy {
    let classes = classes(tape);
    let class_names: Vec<String> = classes.iter().map(|class| class.name.clone()).collect();
    let regions: Vec<Region> = (0..1 + tape.below(3)).map(|number| region(tape, number)).collect();
    let mut disputed = Vec::new();
    if tape.is(60) {
        disputed.push(("UA-43".to_owned(), vec!["UA".to_owned(), "RU".to_owned()]));
    }
    if tape.is(15) {
        disputed.push((tape.name(&["PR", "CN-HK", "CA-QC"]), tape.names(&NAMED, 1, 2)));
    }
    let count = 1 + tape.below(6) * (1 + tape.below(2));
    let regimes: Vec<Regime> =
        (0..count).map(|number| regime(tape, &format!("law-{number}"), &regions, &class_names)).collect();
    let producers = producers(tape);
    let registries = registries(tape);
    let stream = stream(tape, &class_names);
    let destinations: Vec<Destination> = (0..1 + tape.below(3)).map(|number| destination(tape, number)).collect();
    let overrides = (0..tape.below(3)).map(|number| Override {
        id: format!("OVR-{number}"),
        value: 5 + tape.below(20),
        dataset: render::DATASET.to_owned(),
        destination: tape.one(&destinations).name,
        until: tape.name(&DAYS),
    });
    let overrides = overrides.collect();
    let mut policy = Policy {
        classes,
        regions,
        disputed,
        regimes,
        min_strength: tape.one(&[60, 60, 40, 75]),
        unknown: tape.name(&["refuse", "refuse", "quarantine"]),
        on_expired: tape.name(&["deny-identifiable", "deny-identifiable", "deny-all", "warn"]),
        vouches: vouches(tape),
        producers,
        registries,
        stream,
        k: tape.one(&[10, 5, 12, 25]),
        destinations,
        overrides,
    };
    only_needed(&mut policy);
    policy
}

/// The conditions that something needs.
pub(super) fn needed(policy: &Policy) -> BTreeSet<String> {
    let of_rows = policy.regimes.iter().flat_map(|regime| &regime.transfers).flat_map(|row| &row.needs);
    let of_regions = policy.regions.iter().flat_map(|region| &region.entries).flat_map(|entry| &entry.needs);
    of_rows.chain(of_regions).cloned().collect()
}

/// What nothing needs may not be shown.
pub(super) fn only_needed(policy: &mut Policy) {
    let needed = needed(policy);
    policy.vouches.retain(|vouch| needed.contains(&vouch.name));
    for destination in &mut policy.destinations {
        destination.conditions.retain(|shown| needed.contains(&shown.name));
    }
}

fn shown(tape: &mut Tape, names: &[&str]) -> Vec<Shown> {
    let mut shown = Vec::new();
    for name in names {
        if tape.is(60) {
            shown.push(Shown { name: (*name).to_owned(), until: tape.day() });
        }
    }
    shown
}

/// Of what something can be shown: this stream, the other one, and what there always is.
const OF: [&[(&str, &str)]; 12] = [
    &[],
    &[("destination", "hub0")],
    &[("gateway", "peer0")],
    &[("stream", render::STREAM)],
    &[("dataset", render::DATASET)],
    &[("stream", render::OTHER[0])],
    &[("dataset", render::OTHER[1])],
    &[("stream", render::STREAM), ("destination", "hub0")],
    &[("stream", render::STREAM), ("gateway", "peer1")],
    &[("dataset", render::DATASET), ("destination", "hub0")],
    &[("stream", render::OTHER[0]), ("destination", "hub0")],
    &[("stream", render::OTHER[0]), ("gateway", "peer0")],
];

fn vouches(tape: &mut Tape) -> Vec<Vouch> {
    let mut vouches = Vec::new();
    for (name, may_be_of) in [("controller.filed", &OF[..]), ("approval.cac", &OF[1..]), ("data.clean", &OF[3..])] {
        for of in tape.some(may_be_of, 0, 2) {
            let of = of.iter().map(|(what, name)| (*what, (*name).to_owned())).collect();
            vouches.push(Vouch { name: name.to_owned(), of, until: tape.day() });
        }
    }
    vouches
}

fn classes(tape: &mut Tape) -> Vec<Class> {
    let mut classes: Vec<Class> = Vec::new();
    for name in ["personal", "machine", "health", "genome", "odd"] {
        let known: Vec<String> = classes.iter().map(|class| class.name.clone()).collect();
        let parents = if known.is_empty() { Vec::new() } else { tape.some(&known, 0, 2) };
        classes.push(Class { name: name.to_owned(), parents, special: tape.is(15) });
    }
    classes
}

fn region(tape: &mut Tape, number: usize) -> Region {
    let review_by = tape.name(&["2028-12-31", "2026-11-23", "2027-01-01", "2028-06-30"]);
    let entries = (0..1 + tape.below(5)).map(|_| {
        let (from, until) = tape.days();
        Entry {
            code: tape.name(&NAMED),
            from,
            until,
            needs: if tape.is(20) { tape.names(&CONDITIONS, 1, 2) } else { Vec::new() },
            review_by: review_by.clone(),
        }
    });
    Region { name: format!("region{number}"), entries: entries.collect() }
}

fn codes_and_regions(tape: &mut Tape, regions: &[Region], most: usize) -> Vec<String> {
    let mut names = tape.names(&NAMED, 0, most);
    if names.is_empty() || tape.is(30) {
        names.push(tape.one(regions).name);
    }
    names
}

pub(super) fn regime(tape: &mut Tape, id: &str, regions: &[Region], classes: &[String]) -> Regime {
    let mut applies = Vec::new();
    for _ in 0..1 + tape.below(3) {
        let fact = tape.one(&[
            "collection.place",
            "subject.residence",
            "subject.citizenship",
            "controller.establishment",
            "source.system",
            "collection.place",
            "subject.residence",
            "gateway.country",
        ]);
        let within = match fact {
            "source.system" => tape.names(&SYSTEMS, 1, 2),
            _ => codes_and_regions(tape, regions, 4),
        };
        let from = tape.is(10).then(|| tape.name(&DAYS));
        applies.push(Applies { fact: fact.to_owned(), within, from });
    }
    let transfers = (0..tape.below(5)).map(|number| {
        let (from, until) = tape.days();
        Transfer {
            id: format!("row-{number}"),
            form: tape.name(&["identifiable", "statistical", "pseudonymised", "identifiable", "dp"]),
            to: if tape.is(25) { vec!["any".to_owned()] } else { codes_and_regions(tape, regions, 5) },
            except: if tape.is(25) { codes_and_regions(tape, regions, 2) } else { Vec::new() },
            needs: if tape.is(40) { tape.names(&CONDITIONS, 1, 2) } else { Vec::new() },
            from,
            until,
        }
    });
    let mut transfers: Vec<Transfer> = transfers.collect();
    // Without one in a while, no record would be let go to another gateway.
    if let Some(row) = transfers.first_mut().filter(|_| tape.is(50)) {
        (row.form, row.to) = ("identifiable".to_owned(), vec!["any".to_owned()]);
        (row.needs, row.from) = (Vec::new(), None);
    }
    Regime {
        id: id.to_owned(),
        from: tape.is(15).then(|| tape.name(&DAYS)),
        review_by: tape.name(&["2028-06-30", "2026-11-23", "2027-01-01", "2028-12-31"]),
        classes: tape.some(classes, 1, 3),
        localisation: tape.name(&["conditional", "none", "mirror", "first-store", "strict"]),
        misroute: tape.name(&["redirect", "redirect", "quarantine", "refuse"]),
        min_contributors: tape.is(30).then(|| 5 + tape.below(20)),
        applies,
        transfers,
    }
}

fn codes_of(tape: &mut Tape, fact: &str, most: usize) -> Vec<String> {
    if fact == "source.system" { tape.names(&SYSTEMS, 1, 1) } else { tape.names(&NAMED, 1, most) }
}

fn producers(tape: &mut Tape) -> Vec<Producer> {
    let producers = (0..3).map(|number| {
        let mut facts = Vec::new();
        for fact in FACTS {
            if tape.is(70) {
                facts.push((fact.to_owned(), codes_of(tape, fact, 2)));
            }
        }
        // The last one has every role, so that each is somebody's.
        let roles = if number == 2 { ROLES.map(str::to_owned).to_vec() } else { tape.names(&ROLES, 0, 1) };
        Producer { name: format!("p{number}"), roles, facts }
    });
    producers.collect()
}

fn registries(tape: &mut Tape) -> Vec<Registry> {
    let facts: Vec<String> = FACTS.map(str::to_owned).to_vec();
    let rows = ["d0", "d1", "d2", "p0", "p1"].map(|key| {
        let of_key = facts.iter().map(|fact| if tape.is(20) { Vec::new() } else { codes_of(tape, fact, 2) });
        (key.to_owned(), of_key.collect())
    });
    vec![Registry { name: "devices".to_owned(), facts, rows: rows.to_vec() }]
}

fn evidence(tape: &mut Tape, fact: &str) -> Evidence {
    let is_system = fact == "source.system";
    let source = match tape.below(if is_system { 6 } else { 12 }) {
        0 if is_system => Source::Field("c".to_owned()),
        0 | 1 => Source::Field(tape.name(&["a", "b", "c"])),
        2 => Source::Registry { name: "devices".to_owned(), by: "device".to_owned() },
        3 => Source::Registry { name: "devices".to_owned(), by: "producer".to_owned() },
        4 => Source::Producer,
        5 => Source::Always(codes_of(tape, fact, 2)),
        6 => Source::Position,
        7 => Source::GeoIp,
        8 => Source::Phone("phone".to_owned()),
        9 => Source::Iban("iban".to_owned()),
        _ => Source::Field(tape.name(&["a", "b"])),
    };
    let strength = match source {
        Source::GeoIp => tape.one(&[30, 20, 0]),
        _ => tape.one(&[90, 80, 60, 59, 40, 30, 100, 90]),
    };
    Evidence { fact: fact.to_owned(), source, strength, trusted_from: tape.is(30).then(|| tape.names(&ROLES, 1, 2)) }
}

fn stream(tape: &mut Tape, classes: &[String]) -> Stream {
    let mut all = Vec::new();
    let mut untested = Vec::new();
    for fact in FACTS {
        // The more facts have evidence, the fewer records are of a verdict that says anything.
        if fact == "collection.place" || tape.is(35) {
            (0..1 + tape.below(3)).for_each(|_| all.push(evidence(tape, fact)));
        } else {
            untested.push(fact.to_owned());
        }
    }
    let common = tape.some(classes, 1, 2);
    let mut field = |name: &str, kind: &'static str, drop: bool| Field {
        name: name.to_owned(),
        kind,
        class: tape.one(&common),
        drop,
    };
    let mut fields = vec![field("time", "timestamp", false)];
    for name in TEXTS {
        fields.push(field(name, "string", name == "extra"));
    }
    for name in ["lat", "lon", "n0", "n1", "gone"] {
        fields.push(field(name, "float64", name == "gone"));
    }
    fields.push(field("row", "int64", false));
    for field in &mut fields {
        field.drop |= ["a", "b", "device", "lat"].contains(&field.name.as_str()) && tape.is(25);
    }
    let model = tape.is(30).then(|| Model {
        inputs: tape.names(&["n0", "n1"], 1, 2),
        outputs: vec![("score".to_owned(), tape.is(50).then(|| tape.one(classes))), ("other".to_owned(), None)],
    });
    Stream { evidence: all, untested, fields, model }
}

fn destination(tape: &mut Tape, number: usize) -> Destination {
    Destination {
        name: format!("hub{number}"),
        country: tape.name(&NAMED),
        operator: tape.is(20).then(|| tape.name(&NAMED)),
        onward: if tape.is(20) { tape.names(&NAMED, 1, 2) } else { Vec::new() },
        accepts: if tape.is(5) { Vec::new() } else { vec![render::DATASET.to_owned()] },
        max_form: tape.is(20).then(|| tape.name(&FORMS)),
        conditions: shown(tape, &["dest.scc", "dest.dpf"]),
    }
}

fn gateway(tape: &mut Tape, policy: &Policy) -> Gateway {
    let ids: Vec<String> = policy.regimes.iter().map(|regime| regime.id.clone()).collect();
    let mostly = |tape: &mut Tape, percent: usize| -> Vec<String> {
        let mut serves = ids.clone();
        serves.retain(|_| !tape.is(percent));
        serves
    };
    let country = tape.name(&["DE", "FR", "US", "CA", "HK", "JE", "US-PR"]);
    let percent = tape.one(&[10, 30, 60]);
    let serves = mostly(tape, percent);
    let needed = needed(policy);
    let peers = (0..tape.below(4)).map(|number| {
        let mut conditions = shown(tape, &["dest.scc", "dest.dpf"]);
        conditions.retain(|shown| needed.contains(&shown.name));
        Peer { id: format!("peer{number}"), country: tape.name(&NAMED), serves: mostly(tape, 15), conditions }
    });
    Gateway { country, serves, peers: peers.collect() }
}
