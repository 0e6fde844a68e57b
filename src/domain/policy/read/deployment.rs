//! What a deployment says of itself: how evidence is weighed, its producers and registries, where cells may go, and the relaxations.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::SignedDuration;
use jiff::civil::Date;

use crate::domain::codes::Codes;
use crate::domain::document::keys::{Key, Kind, Shape, names};
use crate::domain::document::{Place, Problems, Spot, Table, hint};
use crate::domain::evidence::read_code;
use crate::domain::fact::Fact;
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::knowledge::{Candidates, Reading};
use crate::domain::name;
use crate::domain::policy::conditions::OnExpired;
use crate::domain::policy::form::Form;
use crate::domain::policy::{Dated, Destination, FactRules, Override, RegistryShape, Unknown};
use crate::domain::producers::Producer;
use crate::domain::proof::{ConditionId, Conditions};

use super::Declared;
use super::codes::code;
use super::conditions::{self, PROOF};
use super::counters;
use super::words::{choice_or, chosen};
use super::{NAMES, name_of};

/// How long records are held in quarantine, where the policy does not say.
const HOLD: SignedDuration = SignedDuration::from_mins(10);

const UNKNOWN: [(&str, Unknown); 2] = [("refuse", Unknown::Refuse), ("quarantine", Unknown::Quarantine)];

pub(super) const FACTS: Shape = Shape {
    name: "facts",
    about: "How evidence is weighed.",
    keys: &[
        Key::new(
            "min_strength",
            Kind::Count,
            "The strength from which one piece of evidence is enough alone, 0 to 100. Default: 60.",
        ),
        Key::new(
            "unknown",
            Kind::Word(&names(&UNKNOWN)),
            "What becomes of a record with an unknown fact. Default: refuse.",
        ),
    ],
};

pub(super) const QUARANTINE: Shape = Shape {
    name: "quarantine",
    about: "Records that are held in memory.",
    keys: &[Key::new("hold", Kind::Duration, "How long a record is held. Default: PT10M.")],
};

pub(super) const REVIEW: Shape = Shape {
    name: "review",
    about: "What becomes of facts that are past their review.",
    keys: &[Key::new(
        "on_expired",
        Kind::Word(&names(&OnExpired::NAMES)),
        "Which rows are off. Default: deny-identifiable.",
    )],
};

/// The facts that need evidence, by name. The gateway's country, which needs none, is the last of all.
const FACT_NAMES: [&str; Fact::OF_RECORDS.len()] = {
    let [names @ .., _] = names(&Fact::NAMES);
    names
};

/// A table whose keys are facts that need evidence.
pub(super) const fn by_fact(kind: &'static Kind) -> Kind {
    Kind::Words(&FACT_NAMES, kind)
}

pub(super) const PRODUCER: Shape = Shape {
    name: "producers.NAME",
    about: "What the operator vouches for about a producer.",
    keys: &[
        Key::new(
            "identities",
            NAMES,
            "The identities that speak under this name. A star in them stands for that of the name.",
        ),
        Key::new("roles", NAMES, "Its roles: evidence can be trusted from these only."),
        Key::new("facts", by_fact(&NAMES), "What is known of every record that it sends."),
    ],
};

pub(super) const REGISTRY: Shape = Shape {
    name: "registries.NAME",
    about: "The columns of a registry.",
    keys: &[
        Key::required("key", Kind::Text, "The column of the key."),
        Key::required("facts", by_fact(&Kind::Text), "The column of each fact."),
    ],
};

pub(super) const DESTINATION: Shape = Shape {
    name: "destinations.NAME (policy)",
    about: "What may go to a destination.",
    keys: &[
        Key::required("country", Kind::Text, "The ISO 3166 code of the place where it is."),
        Key::new("operator_country", Kind::Text, "The country that can compel its operator to disclose."),
        Key::new("onward", NAMES, "The only countries that it has promised to send on to."),
        Key::required("accepts", NAMES, "The datasets that it is given."),
        Key::new(
            "max_form",
            Kind::Word(&names(&Form::NAMES)),
            "The strongest form that it is given. Default: statistical.",
        ),
        Key::new("conditions", Kind::Named(&Kind::Table(&PROOF)), "What has been shown of it, by condition."),
    ],
};

pub(super) const OVERRIDE: Shape = Shape {
    name: "overrides",
    about: "Fewer contributors for one dataset at one destination, until a day.",
    keys: &[
        Key::required("id", Kind::Text, "Its id."),
        Key::required("relaxes", Kind::Word(&["min_contributors"]), "What it relaxes."),
        Key::required("value", Kind::Count, "The fewest contributors of a cell, from 5 to 1000."),
        Key::required("scope", Kind::Table(&SCOPE), "For which dataset, and where."),
        Key::required("reason", Kind::Text, "Why."),
        Key::required("approved", NAMES, "Who has approved it: at least two people."),
        Key::required("until", Kind::Date, "The last day on which it holds."),
    ],
};

const SCOPE: Shape = Shape {
    name: "overrides.scope",
    about: "Where an override holds.",
    keys: &[
        Key::required("dataset", Kind::Text, "The dataset."),
        Key::required("destination", Kind::Text, "The destination."),
    ],
};

/// What holds for a whole set. Several files may have it, if they say the same.
#[derive(Default)]
pub(super) struct Once {
    pub(super) facts: Option<Spot<FactRules>>,
    pub(super) hold: Option<Spot<Duration>>,
    pub(super) on_expired: Option<Spot<OnExpired>>,
}

impl Once {
    pub(super) fn hold(&self) -> Duration {
        self.hold.as_ref().map_or(HOLD.unsigned_abs(), |hold| hold.value)
    }

    pub(super) fn on_expired(&self) -> OnExpired {
        self.on_expired.as_ref().map_or(OnExpired::DenyIdentifiable, |chosen| chosen.value)
    }
}

pub(super) fn read(table: &Table<'_>, declared: &mut Declared) {
    if let Some(facts) = table.get::<Table<'_>>("facts") {
        let default = FactRules::default();
        let rules = FactRules {
            min_strength: strength(&facts.value, "min_strength").unwrap_or(default.min_strength),
            unknown: choice_or(&facts.value, "unknown", &UNKNOWN, default.unknown),
        };
        facts.value.done();
        once(&mut declared.once.facts, Spot { value: rules, place: facts.place }, table.problems());
    }
    if let Some(quarantine) = table.get::<Table<'_>>("quarantine") {
        let value = quarantine.value.or("hold", HOLD).unsigned_abs();
        quarantine.value.done();
        once(&mut declared.once.hold, Spot { value, place: quarantine.place }, table.problems());
    }
    if let Some(review) = table.get::<Table<'_>>("review") {
        let value = choice_or(&review.value, "on_expired", &OnExpired::NAMES, OnExpired::DenyIdentifiable);
        review.value.done();
        once(&mut declared.once.on_expired, Spot { value, place: review.place }, table.problems());
    }
    conditions::read_vouched(table, declared);
    counters::read_counted(table, declared);
    for (name, table) in table.named("producers") {
        let producer = read_producer(&table, &declared.codes);
        super::access::read_names(&name, &table, &mut declared.access);
        if !declared.producers.insert(&name.value, producer) {
            table.problems().error(&name.place, format!("producer `{}` is declared twice", name.value));
        }
        table.done();
    }
    for (name, table) in table.named("registries") {
        name::check("registry", &name, table.problems());
        if let Some(shape) = read_registry(&name, &table)
            && declared.registries.insert(name.value.clone(), shape).is_some()
        {
            table.problems().error(&name.place, format!("registry `{}` is declared twice", name.value));
        }
        table.done();
    }
    for (name, table) in table.named("destinations") {
        name::check("destination", &name, table.problems());
        if let Some(destination) = read_destination(&name, &table, declared)
            && declared.destinations.insert(name.value.clone(), destination).is_some()
        {
            table.problems().error(&name.place, format!("destination `{}` is declared twice", name.value));
        }
        table.done();
    }
    for table in table.array("overrides") {
        if let Some(relaxed) = read_override(&table) {
            let (what, place) = (format!("override `{}`", relaxed.id.value), relaxed.id.place.clone());
            declared.ends.push(Dated { what, day: Spot { value: relaxed.until, place } });
            declared.overrides.push(relaxed);
        }
        table.done();
    }
}

/// Takes what holds for the whole set. A file that says something else than another one is wrong.
fn once<T: PartialEq>(into: &mut Option<Spot<T>>, value: Spot<T>, problems: &Problems) {
    match into {
        Some(first) if first.value == value.value => {}
        Some(first) => {
            let message = format!("this is declared otherwise at {}", first.place);
            problems.error_help(
                &value.place,
                message,
                "it holds for the whole set: all files that have it say the same",
            );
        }
        None => *into = Some(value),
    }
}

/// A whole number from 0 to 100.
pub(super) fn strength(table: &Table<'_>, key: &str) -> Option<u8> {
    let strength = table.get::<usize>(key)?;
    let read = u8::try_from(strength.value).ok().filter(|strength| *strength <= 100);
    if read.is_none() {
        table.problems().error(&strength.place, "a strength must be a whole number from 0 to 100");
    }
    read
}

fn read_producer(table: &Table<'_>, known: &Codes) -> Producer {
    let roles = table.or::<Vec<Spot<String>>>("roles", Vec::new()).into_iter().map(|role| role.value).collect();
    let mut facts = BTreeMap::new();
    if let Some(said) = table.get::<Table<'_>>("facts") {
        for name in said.value.names() {
            let Some(codes) = said.value.get::<Vec<Spot<String>>>(&name) else { continue };
            let Some(fact) = fact(&Spot { value: name, place: codes.place.clone() }, table.problems()) else {
                continue;
            };
            facts.extend(candidates(fact, &codes, known, table.problems()).map(|candidates| (fact, candidates)));
        }
        said.value.done();
    }
    Producer { roles, facts }
}

/// A fact that needs evidence.
pub(super) fn fact(name: &Spot<String>, problems: &Problems) -> Option<Fact> {
    chosen(name, &Fact::OF_RECORDS.map(|fact| (fact.name(), fact)), problems)
}

/// Codes, or names of systems, that the operator vouches for.
pub(super) fn candidates(
    fact: Fact,
    codes: &Spot<Vec<Spot<String>>>,
    known: &Codes,
    problems: &Problems,
) -> Option<Candidates> {
    let mut read: BTreeSet<Jurisdiction> = BTreeSet::new();
    for name in &codes.value {
        match read_code(known, fact, &name.value) {
            Reading::Codes(codes) => read.extend(codes.iter()),
            _ => problems.error(&name.place, format!("`{}` is not an ISO 3166 code", name.value)),
        }
    }
    if codes.value.is_empty() {
        problems.error(&codes.place, "this names no place");
    }
    (!read.is_empty()).then(|| read.into_iter().collect())
}

fn read_registry(name: &Spot<String>, table: &Table<'_>) -> Option<RegistryShape> {
    let key = table.need::<String>("key");
    let columns = table.need::<Table<'_>>("facts");
    let mut facts = BTreeMap::new();
    if let Some(columns) = &columns {
        for name in columns.value.names() {
            let Some(column) = columns.value.get::<String>(&name) else { continue };
            let fact = fact(&Spot { value: name, place: column.place.clone() }, table.problems());
            facts.extend(fact.map(|fact| (fact, column.value)));
        }
        columns.value.done();
    }
    Some(RegistryShape { key: key?.value, facts, place: name.place.clone() })
}

/// A destination as it is declared: see [`Destination`].
pub(super) struct DeclaredDestination {
    countries: Vec<Jurisdiction>,
    pub(super) accepts: Vec<Spot<String>>,
    max_form: Form,
    conditions: Conditions,
    place: Place,
}

impl DeclaredDestination {
    /// With the datasets that can be.
    pub(super) fn resolve(&self) -> Destination {
        Destination {
            countries: self.countries.clone(),
            accepts: self.accepts.iter().filter_map(name_of).collect(),
            max_form: self.max_form,
            conditions: self.conditions.clone(),
            place: self.place.clone(),
        }
    }
}

/// An override as it is declared: see [`Override`].
pub(super) struct DeclaredOverride {
    pub(super) id: Spot<String>,
    min_contributors: usize,
    pub(super) dataset: Spot<String>,
    pub(super) destination: Spot<String>,
    approved: BTreeSet<String>,
    until: Date,
}

impl DeclaredOverride {
    /// It, if its dataset and its destination can be.
    pub(super) fn resolve(&self) -> Option<Override> {
        Some(Override {
            id: self.id.clone(),
            min_contributors: self.min_contributors,
            dataset: name_of(&self.dataset)?,
            destination: name_of(&self.destination)?,
            approved: self.approved.clone(),
            until: self.until,
        })
    }
}

fn read_destination(name: &Spot<String>, table: &Table<'_>, declared: &mut Declared) -> Option<DeclaredDestination> {
    let problems = table.problems();
    let country = table.need::<String>("country");
    let operator_country = table.get::<String>("operator_country");
    let onward = table.or::<Vec<Spot<String>>>("onward", Vec::new());
    let accepts = table.need::<Vec<Spot<String>>>("accepts");
    let max_form = choice_or(table, "max_form", &Form::NAMES, Form::Statistical);
    let mut shown = Conditions::new();
    for (name, evidence) in conditions::of_recipient(table) {
        conditions::ends(&name, &evidence, None, declared);
        shown.extend(ConditionId::new(&name.value).ok().map(|id| (id, evidence)));
        declared.shown.push(name);
    }
    let mut countries = Vec::new();
    for named in [Some(&country?), operator_country.as_ref()].into_iter().flatten().chain(&onward) {
        // A wrong code is reported; the destination stays known, so that references to it are not reported too.
        let code = code(named, &declared.codes, problems).unwrap_or(Jurisdiction::UNKNOWN);
        if !countries.contains(&code) {
            countries.push(code);
        }
    }
    let (accepts, place) = (accepts?.value, name.place.clone());
    Some(DeclaredDestination { countries, accepts, max_form, conditions: shown, place })
}

fn read_override(table: &Table<'_>) -> Option<DeclaredOverride> {
    let problems = table.problems();
    let id = table.need::<String>("id");
    if let Some(relaxes) = table.need::<String>("relaxes")
        && relaxes.value != "min_contributors"
    {
        let message = format!("`{}` cannot be relaxed", relaxes.value);
        problems.error_help(&relaxes.place, message, hint(&relaxes.value, &["min_contributors"]));
    }
    let value = table.need::<usize>("value");
    if let Some(value) = &value {
        super::profiles::check_least(value, problems);
    }
    let scope = table.need::<Table<'_>>("scope").map(|scope| scope.value);
    let dataset = scope.as_ref().and_then(|scope| scope.need::<String>("dataset"));
    let destination = scope.as_ref().and_then(|scope| scope.need::<String>("destination"));
    if let Some(scope) = &scope {
        scope.done();
    }
    if table.need::<String>("reason").is_some_and(|reason| reason.value.trim().is_empty()) {
        problems.error(&table.place, "`reason` is empty");
    }
    let approved = table.need::<Vec<Spot<String>>>("approved");
    let until = table.need::<Date>("until");
    let approved = approved?;
    let people: BTreeSet<String> = approved
        .value
        .iter()
        .map(|person| person.value.trim().to_lowercase())
        .filter(|person| !person.is_empty())
        .collect();
    if people.len() < 2 {
        problems.error(&approved.place, "an override must be approved by at least two different people");
    }
    Some(DeclaredOverride {
        id: id?,
        min_contributors: value?.value,
        dataset: dataset?,
        destination: destination?,
        approved: people,
        until: until?.value,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::document::Source;

    /// What is wrong with a set of two files.
    fn said(one: &str, other: &str) -> Vec<String> {
        let files = [("one.toml", one), ("other.toml", other)]
            .map(|(path, text)| Arc::new(Source::new(path, format!("schema = \"bailiwick.policy/1\"\n{text}\n"))));
        let problems = Problems::default();
        crate::domain::policy::read(&files, &problems);
        problems.into_vec().iter().map(|problem| format!("{}: {}", problem.place, problem.message)).collect()
    }

    #[test]
    fn what_holds_for_a_whole_set_is_the_same_in_all_its_files() {
        for (table, other) in [
            ("[review]\non_expired = \"warn\"", "[review]\non_expired = \"deny-all\""),
            // What is not said is the default.
            ("[review]\non_expired = \"warn\"", "[review]"),
            ("[quarantine]\nhold = \"PT1M\"", "[quarantine]\nhold = \"PT2M\""),
            ("[facts]\nmin_strength = 70", "[facts]\nmin_strength = 71"),
        ] {
            assert_eq!(said(table, ""), Vec::<String>::new());
            assert_eq!(said(table, table), Vec::<String>::new());
            for (first, second) in [(table, other), (other, table)] {
                let said = said(first, second);
                let [said] = said.as_slice() else { panic!("{said:?}") };
                let is_pointed_at = said.starts_with("other.toml:");
                assert!(is_pointed_at && said.contains("this is declared otherwise at one.toml:"), "{said}");
            }
        }
    }
}
