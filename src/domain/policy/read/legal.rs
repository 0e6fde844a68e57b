//! Classes, regions and regimes: the legal data.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;

use crate::domain::document::keys::{Key, Kind, Shape, names};
use crate::domain::document::{NameOrTable, Problems, Spot, Table, hint, hint_of};
use crate::domain::fact::Fact;
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::name;
use crate::domain::policy::Dated;
use crate::domain::policy::form::Form;
use crate::domain::policy::regime::{Class, Classes, Localisation, Misroute, Regime, Region, Scope, Term, Transfer};
use crate::domain::policy::scope::REGIMES_MAX;

use super::codes::{self, CODES, code};
use super::deployment::condition;
use super::profiles::{self, RELEASE};
use super::{Declared, NAMES, SOURCES, insert};

/// A class whose parents are names.
pub(super) struct DeclaredClass {
    parents: Vec<Spot<String>>,
    special: bool,
}

/// A regime whose regions are names.
pub(super) struct DeclaredRegime {
    id: Spot<String>,
    name: String,
    applies: Vec<(Spot<String>, Names)>,
    classes: Names,
    localisation: Localisation,
    misroute: Misroute,
    min_contributors: usize,
    release: Option<Spot<String>>,
    transfers: Vec<DeclaredTransfer>,
    as_of: Date,
    review_by: Date,
}

struct DeclaredTransfer {
    id: Spot<String>,
    form: Form,
    to: Names,
    except: Names,
    basis: String,
    term: Term,
}

type Names = Vec<Spot<String>>;

/// The least number of contributors under a regime that keeps data in place, where its file does not say.
const MIN_CONTRIBUTORS_STRICT: usize = 20;

/// In `to`: every place.
const ANY: &str = "any";

pub(in crate::domain::policy) const CLASSES: Shape = Shape {
    name: "bailiwick.classes/1",
    about: "Data classes: what kinds of data there are.",
    keys: &[
        Key::required("schema", Kind::Word(&["bailiwick.classes/1"]), "What this file is."),
        Key::new("classes", Kind::Named(&Kind::Table(&CLASS)), "The classes, by name."),
    ],
};

const CLASS: Shape = Shape {
    name: "classes.NAME",
    about: "A data class.",
    keys: &[
        Key::required("about", Kind::Text, "What data of this class is."),
        Key::new("parents", NAMES, "The classes that this one is a part of: a regime that names one covers it."),
        Key::new(
            "special",
            Kind::Bool,
            "Whether it is a special category: cells of at least 20 contributors. Default: false.",
        ),
    ],
};

pub(in crate::domain::policy) const REGIONS: Shape = Shape {
    name: "bailiwick.regions/1",
    about: "Regions: named lists of countries and subdivisions.",
    keys: &[
        Key::required("schema", Kind::Word(&["bailiwick.regions/1"]), "What this file is."),
        Key::new("regions", Kind::Named(&Kind::Table(&REGION)), "The regions, by name."),
        Key::new(
            "codes",
            Kind::Table(&CODES),
            "What ISO 3166-2 has come to list, and lists no more, since this version of bailiwick was made.",
        ),
        Key::new(
            "disputed",
            Kind::Named(&NAMES),
            "The claimants of disputed codes: evidence of the code counts for each of them as well.",
        ),
    ],
};

const REGION: Shape = Shape {
    name: "regions.NAME",
    about: "A region.",
    keys: &[
        AS_OF,
        REVIEW_BY,
        SOURCES,
        Key::required(
            "codes",
            Kind::List(&Kind::OneOf(&[Kind::Text, Kind::Table(&REGION_CODE)])),
            "ISO 3166-1 alpha-2 and ISO 3166-2 codes.",
        ),
    ],
};

const REGION_CODE: Shape = Shape {
    name: "regions.NAME.codes",
    about: "A code of a region, with its terms.",
    keys: &[
        Key::required("code", Kind::Text, "The ISO 3166 code."),
        UNTIL,
        NEEDS,
        Key::new("source", Kind::Text, "Where it says so."),
    ],
};

const AS_OF: Key = Key::required("as_of", Kind::Date, "The day on which the facts were checked.");
const REVIEW_BY: Key = Key::required("review_by", Kind::Date, "The day by which they must be checked again.");
const UNTIL: Key = Key::new("until", Kind::Date, "The last day on which it holds.");
const NEEDS: Key = Key::new("needs", NAMES, "The conditions that must be shown, all of them.");

pub(in crate::domain::policy) const REGIME: Shape = Shape {
    name: "bailiwick.regime/1",
    about: "A regime: one law.",
    keys: &[
        Key::required("schema", Kind::Word(&["bailiwick.regime/1"]), "What this file is."),
        Key::required("id", Kind::Text, "The regime's id. Gateways name it in `serves`."),
        Key::required("name", Kind::Text, "The law's name."),
        Key::required("notice", Kind::Text, "What a reader of the file must know of it."),
        AS_OF,
        REVIEW_BY,
        Key::required("confidence", Kind::Word(&names(&CONFIDENCE)), "How sure the reading is."),
        SOURCES,
        Key::required("classes", NAMES, "The data classes that it covers, with their descendants."),
        Key::required("localisation", Kind::Word(&names(&Localisation::NAMES)), "How strictly it keeps data in place."),
        Key::required(
            "misroute",
            Kind::Word(&names(&Misroute::NAMES)),
            "What becomes of a record at a gateway that does not serve the regime.",
        ),
        Key::new(
            "min_contributors",
            Kind::Count,
            "The fewest contributors of a cell, from 5 to 1000. Default: 20 where `localisation` is first-store or \
             strict, else 10.",
        ),
        RELEASE,
        Key::new("records", NAMES, "The names of record-keeping duties."),
        Key::new("applies", Kind::List(&Kind::Table(&APPLIES)), "When it applies: any one is enough."),
        Key::new(
            "transfers",
            Kind::List(&Kind::Table(&TRANSFER)),
            "What may go where. What no row permits is forbidden.",
        ),
    ],
};

const CONFIDENCE: [(&str, ()); 3] = [("high", ()), ("medium", ()), ("low", ())];

const APPLIES: Shape = Shape {
    name: "applies",
    about: "A fact, and where it brings a record under the regime.",
    keys: &[
        Key::required("fact", Kind::Word(&names(&Fact::NAMES)), "The fact that is tested."),
        Key::required("in", NAMES, "Regions and codes; of `source.system`: names of systems."),
    ],
};

const TRANSFER: Shape = Shape {
    name: "transfers",
    about: "A row that lets a form of data go to places.",
    keys: &[
        Key::required("id", Kind::Text, "The row's id within the regime."),
        Key::required("form", Kind::Word(&names(&Form::NAMES)), "The strongest form that may go."),
        Key::required("to", NAMES, "Regions and codes, or `any`."),
        Key::new("except", NAMES, "Regions and codes that it does not hold for, whatever `to` says."),
        Key::required("basis", Kind::Text, "The legal basis."),
        NEEDS,
        UNTIL,
    ],
};

pub(super) fn read_classes(table: &Table<'_>, declared: &mut Declared) {
    for (name, table) in table.named("classes") {
        table.need::<String>("about");
        let parents = table.or::<Names>("parents", Vec::new());
        let special = table.or("special", false);
        insert(&mut declared.classes, name, DeclaredClass { parents, special }, table.problems());
        table.done();
    }
}

pub(super) fn read_regions(table: &Table<'_>, declared: &mut Declared) {
    for (name, table) in table.named("regions") {
        if name.value == ANY || declared.codes.parse(&name.value).is_some() {
            let message = format!("`{}` already means something else; give the region another name", name.value);
            table.problems().error(&name.place, message);
        }
        let review_by =
            read_review(&table, format!("region `{}`", name.value), declared).map(|(_, review_by)| review_by);
        if let Some(codes) = table.need::<Vec<Spot<NameOrTable<'_>>>>("codes") {
            let mut region = Region::default();
            for listed in codes.value {
                if let Some((code, term)) = read_code(listed, (&name.value, &table), declared) {
                    region.codes.entry(code).or_default().push(Term { review_by, ..term });
                }
            }
            insert(&mut declared.regions, name, region, table.problems());
        }
        table.done();
    }
    if let Some(section) = table.get::<Table<'_>>("codes") {
        codes::read(&section.value, &mut declared.codes_seen);
    }
    if let Some(disputed) = table.get::<Table<'_>>("disputed") {
        for name in disputed.value.names() {
            let Some(claimants) = disputed.value.get::<Names>(&name) else { continue };
            let place = claimants.place.clone();
            let name = Spot { value: name, place: place.clone() };
            let read = |name: &Spot<String>| code(name, &declared.codes, table.problems());
            let Some(disputed) = read(&name) else { continue };
            let claimants = claimants.value.iter().filter_map(read).collect();
            match declared.disputed.entry(disputed) {
                Entry::Vacant(entry) => {
                    entry.insert(claimants);
                }
                Entry::Occupied(_) => {
                    table.problems().error(&place, format!("the claimants of `{disputed}` are declared twice"));
                }
            }
        }
        disputed.value.done();
    }
}

/// A code of a region: alone, or in a table with its terms.
fn read_code(
    listed: Spot<NameOrTable<'_>>,
    (region, place): (&str, &Table<'_>),
    declared: &mut Declared,
) -> Option<(Jurisdiction, Term)> {
    match listed.value {
        NameOrTable::Name(value) => {
            Some((code(&Spot { value, place: listed.place }, &declared.codes, place.problems())?, Term::default()))
        }
        NameOrTable::Table(table) => {
            let name = table.need::<String>("code");
            let what = format!("`{}` in region `{region}`", name.as_ref().map_or("", |name| &name.value));
            let term = read_term(&table, &what, declared);
            table.or("source", String::new());
            table.done();
            Some((code(&name?, &declared.codes, table.problems())?, term))
        }
    }
}

/// `until` and `needs`.
fn read_term(table: &Table<'_>, what: &str, declared: &mut Declared) -> Term {
    let until = table.get::<Date>("until").map(|until| {
        let day = until.value;
        declared.ends.push(Dated { what: what.to_owned(), day: until });
        day
    });
    let mut needs: Vec<String> = Vec::new();
    for need in table.or::<Names>("needs", Vec::new()) {
        condition(&need, table.problems());
        needs.push(need.value.clone());
        declared.needed.insert(need.value);
    }
    Term { until, needs, review_by: None }
}

/// What every dated file must say of itself: when its facts were checked, and by when they must be again.
fn read_review(table: &Table<'_>, what: String, declared: &mut Declared) -> Option<(Date, Date)> {
    let as_of = table.need::<Date>("as_of");
    let review_by = table.need::<Date>("review_by");
    if table.need::<Names>("sources").is_some_and(|sources| sources.value.is_empty()) {
        table.problems().error(&table.place, "`sources` is empty; a legal fact needs its source");
    }
    let (as_of, review_by) = (as_of?, review_by?);
    if review_by.value < as_of.value {
        table.problems().error(&review_by.place, "`review_by` is before `as_of`");
    }
    let day = review_by.value;
    declared.reviews.push(Dated { what, day: review_by });
    Some((as_of.value, day))
}

pub(super) fn read_regime(table: &Table<'_>, declared: &mut Declared) {
    let id = table.need::<String>("id");
    if let Some(id) = &id {
        name::check("regime", id, table.problems());
    }
    let name = table.need::<String>("name");
    table.need::<String>("notice");
    choice(table, "confidence", &CONFIDENCE);
    table.or::<Names>("records", Vec::new());
    let localisation = choice(table, "localisation", &Localisation::NAMES);
    let what = format!("regime `{}`", id.as_ref().map_or("", |id| &id.value));
    let review = read_review(table, what, declared);
    let applies = table.array("applies").iter().filter_map(read_scope).collect::<Vec<_>>();
    if applies.is_empty() {
        table.problems().error(&table.place, "a regime needs `[[applies]]`: without one it never applies");
    }
    let classes = table.need::<Names>("classes");
    let misroute = choice(table, "misroute", &Misroute::NAMES);
    let strict = localisation.is_some_and(|localisation| localisation >= Localisation::FirstStore);
    let least = if strict { MIN_CONTRIBUTORS_STRICT } else { profiles::MIN_CONTRIBUTORS };
    let min_contributors = profiles::min_contributors(table, least);
    let release = table.get::<String>("release");
    let transfers = table.array("transfers");
    let of_regime = id.as_ref().map_or("", |id| &id.value);
    let transfers = transfers.iter().filter_map(|row| read_transfer(row, of_regime, declared)).collect();
    let all = (id, name, review, localisation, classes, misroute, min_contributors);
    let (Some(id), Some(name), Some(review), Some(localisation), Some(classes), Some(misroute), Some(min)) = all else {
        return;
    };
    if declared.regimes.iter().any(|regime| regime.id.value == id.value) {
        table.problems().error(&id.place, format!("regime `{}` is declared twice", id.value));
        return;
    }
    if declared.regimes.len() == REGIMES_MAX {
        table.problems().error(&id.place, format!("there are more than {REGIMES_MAX} regimes"));
        return;
    }
    declared.regimes.push(DeclaredRegime {
        id,
        name: name.value,
        applies,
        classes: classes.value,
        localisation,
        misroute,
        min_contributors: min,
        release,
        transfers,
        as_of: review.0,
        review_by: review.1,
    });
}

fn read_scope(table: &Table<'_>) -> Option<(Spot<String>, Names)> {
    let fact = table.need::<String>("fact");
    let within = table.need::<Names>("in");
    table.done();
    Some((fact?, within?.value))
}

fn read_transfer(table: &Table<'_>, regime: &str, declared: &mut Declared) -> Option<DeclaredTransfer> {
    let id = table.need::<String>("id");
    let form = choice(table, "form", &Form::NAMES);
    let to = table.need::<Names>("to");
    let except = table.or::<Names>("except", Vec::new());
    let basis = table.need::<String>("basis");
    let what = format!("transfer `{}` of regime `{regime}`", id.as_ref().map_or("", |id| &id.value));
    let term = read_term(table, &what, declared);
    table.done();
    Some(DeclaredTransfer { id: id?, form: form?, to: to?.value, except, basis: basis?.value, term })
}

/// The value of a key that must be one of a few words.
pub(super) fn choice<T: Copy>(table: &Table<'_>, key: &str, choices: &[(&str, T)]) -> Option<T> {
    chosen(&table.need::<String>(key)?, choices, table.problems())
}

/// The value of a key that may be left out.
pub(super) fn choice_or<T: Copy>(table: &Table<'_>, key: &str, choices: &[(&str, T)], default: T) -> T {
    choice_if(table, key, choices).unwrap_or(default)
}

/// The value of a key, if it is there and one of a few words.
pub(super) fn choice_if<T: Copy>(table: &Table<'_>, key: &str, choices: &[(&str, T)]) -> Option<T> {
    table.get::<String>(key).and_then(|word| chosen(&word, choices, table.problems()))
}

/// What a word stands for.
pub(super) fn chosen<T: Copy>(word: &Spot<String>, choices: &[(&str, T)], problems: &Problems) -> Option<T> {
    let chosen = choices.iter().find(|(name, _)| *name == word.value);
    if chosen.is_none() {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        problems.error_help(&word.place, format!("`{}` cannot be used here", word.value), hint(&word.value, &names));
    }
    chosen.map(|(_, value)| *value)
}

pub(super) fn resolve_classes(declared: &Declared, problems: &Problems) -> Classes {
    let known = || declared.classes.keys().map(String::as_str);
    let mut resolved = BTreeMap::new();
    for (name, class) in &declared.classes {
        for parent in &class.value.parents {
            if !declared.classes.contains_key(&parent.value) {
                let message = format!("there is no class `{}`", parent.value);
                problems.error_help(&parent.place, message, hint_of(&parent.value, known()));
            }
        }
        let parents = class.value.parents.iter().map(|parent| parent.value.clone()).collect();
        resolved.insert(name.clone(), Class { parents, special: class.value.special });
    }
    for name in endless(&resolved) {
        if let Some(class) = declared.classes.get(name) {
            problems.error(&class.place, format!("class `{name}` is its own ancestor, or one of its ancestors is"));
        }
    }
    Classes(resolved)
}

/// The classes whose ancestors have no end, by name: what is left when those without parents are taken away, over and
/// over.
fn endless(classes: &BTreeMap<String, Class>) -> Vec<&str> {
    let known = |class: &Class| class.parents.iter().filter(|parent| classes.contains_key(*parent)).count();
    let mut parents: BTreeMap<&str, usize> =
        classes.iter().map(|(name, class)| (name.as_str(), known(class))).collect();
    let mut children: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, class) in classes {
        class.parents.iter().for_each(|parent| children.entry(parent).or_default().push(name));
    }
    let mut ending: Vec<&str> = parents.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
    while let Some(name) = ending.pop() {
        parents.remove(name);
        for child in children.get(name).into_iter().flatten() {
            if let Some(count) = parents.get_mut(child) {
                *count -= 1;
                if *count == 0 {
                    ending.push(child);
                }
            }
        }
    }
    parents.into_keys().collect()
}

/// Reports a class that is not declared.
pub(super) fn known_class(class: &Spot<String>, classes: &Classes, problems: &Problems) {
    if !classes.0.contains_key(&class.value) {
        let known = || classes.0.keys().map(String::as_str);
        problems.error_help(
            &class.place,
            format!("there is no class `{}`", class.value),
            hint_of(&class.value, known()),
        );
    }
}

pub(super) fn resolve_regimes(declared: &Declared, classes: &Classes, problems: &Problems) -> BTreeMap<String, Regime> {
    let mut regimes = BTreeMap::new();
    for regime in &declared.regimes {
        regime.classes.iter().for_each(|class| known_class(class, classes, problems));
        let mut ids = BTreeSet::new();
        let transfers = regime.transfers.iter().map(|row| {
            if !ids.insert(&row.id.value) {
                let message = format!("regime `{}` already has a transfer `{}`", regime.id.value, row.id.value);
                problems.error(&row.id.place, message);
            }
            let (anywhere, named): (Names, Names) = row.to.iter().cloned().partition(|name| name.value == ANY);
            let to = region(&named, declared, problems);
            Transfer {
                id: row.id.value.clone(),
                form: row.form,
                to: anywhere.is_empty().then_some(to),
                except: region(&row.except, declared, problems),
                basis: row.basis.clone(),
                term: row.term.clone(),
            }
        });
        let transfers = transfers.collect();
        let resolved = Regime {
            id: regime.id.value.clone(),
            name: regime.name.clone(),
            applies: regime.applies.iter().filter_map(|scope| resolve_scope(scope, declared, problems)).collect(),
            classes: regime.classes.iter().map(|class| class.value.clone()).collect(),
            localisation: regime.localisation,
            misroute: regime.misroute,
            min_contributors: regime.min_contributors,
            release: profiles::named(regime.release.as_ref(), &declared.profiles, problems),
            transfers,
            as_of: regime.as_of,
            review_by: regime.review_by,
        };
        regimes.insert(regime.id.value.clone(), resolved);
    }
    regimes
}

fn resolve_scope((fact, within): &(Spot<String>, Names), declared: &Declared, problems: &Problems) -> Option<Scope> {
    let fact = chosen(fact, &Fact::NAMES, problems)?;
    let within = match fact {
        Fact::SourceSystem => Region::of(within.iter().map(|name| Jurisdiction::system(&name.value))),
        _ => region(within, declared, problems),
    };
    Some(Scope { fact, within })
}

/// The union of regions and codes.
fn region(names: &Names, declared: &Declared, problems: &Problems) -> Region {
    let mut union = Region::default();
    for name in names {
        if let Some(region) = declared.regions.get(&name.value) {
            union.extend(&region.value);
        } else if let Some(code) =
            codes::named(name, &declared.codes, problems).filter(|code| *code != Jurisdiction::UNKNOWN)
        {
            union.extend(&Region::of([code]));
        } else {
            let known = || declared.regions.keys().map(String::as_str);
            let message = format!("`{}` is neither a region nor an ISO 3166 code", name.value);
            problems.error_help(&name.place, message, hint_of(&name.value, known()));
        }
    }
    union
}
