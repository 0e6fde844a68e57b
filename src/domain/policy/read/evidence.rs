//! A stream's evidence: where its records say which facts.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::codes::Codes;
use crate::domain::document::keys::{Key, Kind, Shape};
use crate::domain::document::{Problems, Spot, Table, hint, hint_of};
use crate::domain::evidence::{Evidence, Source};
use crate::domain::fact::Fact;
use crate::domain::policy::RegistryShape;
use crate::domain::stream::{FieldType, Stream};

use super::NAMES;
use super::deployment::{candidates, fact, strength};
use super::streams::find;

/// Evidence whose fields and registries are names.
pub(super) struct DeclaredEvidence {
    items: Vec<DeclaredItem>,
    untested: Vec<Spot<Fact>>,
}

struct DeclaredItem {
    fact: Spot<Fact>,
    source: DeclaredSource,
    strength: u8,
    trusted_from: Option<BTreeSet<String>>,
}

enum DeclaredSource {
    Named(Sort, Spot<String>),
    Position(Spot<String>, Spot<String>, f64),
    Registry { name: Spot<String>, by: Spot<String> },
    Ready(Source),
}

#[derive(Clone, Copy)]
enum Sort {
    Field,
    Phone,
    Iban,
}

/// One piece of evidence: exactly one source, and what goes with it.
pub(super) const EVIDENCE: Shape = Shape {
    name: "streams.NAME.facts",
    about: "A piece of evidence: exactly one of field, phone, iban, position, registry, producer, geoip and always.",
    keys: &[
        Key::new("field", Kind::Text, "The field that holds an ISO 3166 code, or the name of a system."),
        Key::new("phone", Kind::Text, "The field that holds a telephone number."),
        Key::new("iban", Kind::Text, "The field that holds an IBAN."),
        Key::new("position", NAMES, "The fields that hold latitude and longitude, in degrees."),
        Key::new("radius_m", Kind::Number, "With `position`: how exact it is, in metres."),
        Key::new("registry", Kind::Text, "The registry that the key is looked up in."),
        Key::new("by", Kind::Text, "With `registry`: the field that holds the key, or `producer`."),
        Key::new("producer", Kind::Bool, "True: what `[producers.NAME] facts` says of the producer."),
        Key::new("geoip", Kind::Bool, "True: where the peer's address is, by the databases of [geoip]."),
        Key::new("always", NAMES, "Codes that hold for every record, or names of systems."),
        Key::required("strength", Kind::Count, "How strong it is, 0 to 100."),
        Key::new("trusted_from", NAMES, "The roles of producers that it is trusted from. Default: all producers."),
    ],
};

const RADIUS_MAX_M: f64 = 100_000.0;
const SOURCES: [&str; 8] = ["field", "phone", "iban", "position", "registry", "producer", "geoip", "always"];

/// The word for the key of a registry that is the producer's name.
const BY_PRODUCER: &str = "producer";

/// A database of network addresses says little of where somebody is (four open ones agree on 90 % of the addresses).
const GEOIP_STRENGTH_MAX: u8 = 30;

pub(super) fn read(stream: &Table<'_>, codes: &Codes) -> DeclaredEvidence {
    let problems = stream.problems();
    let mut items = Vec::new();
    if let Some(facts) = stream.need::<Table<'_>>("facts") {
        for name in facts.value.names() {
            let Some(listed) = facts.value.get::<Vec<Spot<Table<'_>>>>(&name) else { continue };
            let Some(fact) = fact(&Spot { value: name, place: listed.place.clone() }, problems) else { continue };
            if listed.value.is_empty() {
                problems.error_help(
                    &listed.place,
                    format!("`{}` has no evidence", fact.name()),
                    "name it in `untested` if no law needs it here",
                );
            }
            for table in listed.value {
                let fact = Spot { value: fact, place: table.place };
                items.extend(read_item(fact, &table.value, codes));
                table.value.done();
            }
        }
        facts.value.done();
    }
    let untested = stream.or::<Vec<Spot<String>>>("untested", Vec::new());
    let untested = untested.iter().filter_map(|name| {
        let value = fact(name, problems)?;
        Some(Spot { value, place: name.place.clone() })
    });
    DeclaredEvidence { items, untested: untested.collect() }
}

fn read_item(fact: Spot<Fact>, table: &Table<'_>, known: &Codes) -> Option<DeclaredItem> {
    let problems = table.problems();
    let given: Vec<&str> =
        SOURCES.into_iter().filter(|source| table.names().iter().any(|name| name == source)).collect();
    let strength = table.need::<usize>("strength").and_then(|_| strength(table, "strength"));
    let trusted_from = table.get::<Vec<Spot<String>>>("trusted_from");
    let [source] = given.as_slice() else {
        let message = "evidence comes from exactly one source";
        problems.error_help(&table.place, message, format!("give one of {}", SOURCES.join(", ")));
        return None;
    };
    let named = |key: &str, kind| Some(DeclaredSource::Named(kind, table.need::<String>(key)?));
    let source = match *source {
        "field" => named("field", Sort::Field),
        "phone" => named("phone", Sort::Phone),
        "iban" => named("iban", Sort::Iban),
        "position" => read_position(table),
        "registry" => {
            let (name, by) = (table.need::<String>("registry"), table.need::<String>("by"));
            Some(DeclaredSource::Registry { name: name?, by: by? })
        }
        "producer" => Some(DeclaredSource::Ready(yes(table, "producer", Source::Producer)?)),
        "geoip" => {
            if strength.is_some_and(|strength| strength > GEOIP_STRENGTH_MAX) {
                let message = format!("`geoip` is weak evidence: its strength is at most {GEOIP_STRENGTH_MAX}");
                problems.error(&table.place, message);
            }
            Some(DeclaredSource::Ready(yes(table, "geoip", Source::GeoIp)?))
        }
        _ => {
            let codes = table.need::<Vec<Spot<String>>>("always")?;
            Some(DeclaredSource::Ready(Source::Always(candidates(fact.value, &codes, known, problems)?)))
        }
    };
    if fact.value == Fact::SourceSystem
        && matches!(source, Some(DeclaredSource::Named(Sort::Phone | Sort::Iban, _) | DeclaredSource::Position(..)))
    {
        problems.error(
            &table.place,
            "a source system is a name: its evidence is a field, a registry, the producer or `always`",
        );
    }
    let roles = trusted_from.map(|roles| roles.value.into_iter().map(|role| role.value).collect());
    Some(DeclaredItem { fact, source: source?, strength: strength?, trusted_from: roles })
}

/// A source that is named by `true`.
fn yes(table: &Table<'_>, key: &str, source: Source) -> Option<Source> {
    let is_named = table.need::<bool>(key)?;
    if !is_named.value {
        table.problems().error(&is_named.place, format!("leave `{key}` out if it is not evidence"));
    }
    Some(source)
}

fn read_position(table: &Table<'_>) -> Option<DeclaredSource> {
    let radius = table.need::<f64>("radius_m");
    let fields = table.need::<Vec<Spot<String>>>("position")?;
    let radius = radius?;
    if !(0.0..=RADIUS_MAX_M).contains(&radius.value) {
        table.problems().error(&radius.place, format!("`radius_m` must be a number of metres up to {RADIUS_MAX_M}"));
    }
    match <[Spot<String>; 2]>::try_from(fields.value) {
        Ok([latitude, longitude]) => Some(DeclaredSource::Position(latitude, longitude, radius.value)),
        Err(_) => {
            table.problems().error(&fields.place, "a position must be two fields, the latitude and the longitude");
            None
        }
    }
}

impl DeclaredEvidence {
    /// The evidence, in the order of the facts, with its fields and registries found.
    pub(super) fn resolve(
        &self,
        stream: &Stream,
        registries: &BTreeMap<String, RegistryShape>,
        roles: &BTreeSet<&str>,
        problems: &Problems,
    ) -> Vec<Evidence> {
        let mut evidence = Vec::new();
        for item in &self.items {
            let place = &item.fact.place;
            for role in item.trusted_from.iter().flatten() {
                if !roles.contains(role.as_str()) {
                    let known: Vec<&str> = roles.iter().copied().collect();
                    problems.error_help(place, format!("no producer has the role `{role}`"), hint(role, &known));
                }
            }
            let source = item.source.resolve(item.fact.value, stream, registries, problems);
            evidence.extend(source.map(|source| Evidence {
                fact: item.fact.value,
                source,
                strength: item.strength,
                trusted_from: item.trusted_from.clone(),
            }));
        }
        for untested in &self.untested {
            if self.items.iter().any(|item| item.fact.value == untested.value) {
                let message = format!("`{}` has evidence and cannot be untested", untested.value.name());
                problems.error(&untested.place, message);
            }
        }
        evidence
    }

    /// The facts that are declared not to be tested.
    pub(super) fn untested(&self) -> BTreeSet<Fact> {
        self.untested.iter().map(|fact| fact.value).collect()
    }
}

impl DeclaredSource {
    fn resolve(
        &self,
        fact: Fact,
        stream: &Stream,
        registries: &BTreeMap<String, RegistryShape>,
        problems: &Problems,
    ) -> Option<Source> {
        let text = |name| find(name, &stream.fields, &[FieldType::String], "evidence", problems);
        let number =
            |name| find(name, &stream.fields, &[FieldType::Float32, FieldType::Float64], "a position", problems);
        match self {
            Self::Ready(source) => Some(source.clone()),
            Self::Named(Sort::Field, name) => text(name).map(Source::Field),
            Self::Named(Sort::Phone, name) => text(name).map(Source::Phone),
            Self::Named(Sort::Iban, name) => text(name).map(Source::Iban),
            Self::Position(latitude, longitude, radius_m) => {
                let (latitude, longitude) = (number(latitude), number(longitude));
                Some(Source::Position { latitude: latitude?, longitude: longitude?, radius_m: *radius_m })
            }
            Self::Registry { name, by } => {
                let Some(shape) = registries.get(&name.value) else {
                    let known = || registries.keys().map(String::as_str);
                    let message = format!("there is no registry `{}`", name.value);
                    problems.error_help(&name.place, message, hint_of(&name.value, known()));
                    return None;
                };
                if !shape.facts.contains_key(&fact) {
                    let message = format!("registry `{}` says nothing about `{}`", name.value, fact.name());
                    problems.error(&name.place, message);
                }
                let by = if by.value == BY_PRODUCER { None } else { Some(text(by)?) };
                Some(Source::Registry { name: name.value.clone(), by })
            }
        }
    }
}
