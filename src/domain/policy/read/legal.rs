//! Classes, regions and regimes: the legal data.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;

use crate::domain::document::{Problems, Spot, Table, hint};
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::policy::regime::{Classes, Form, Misroute, Regime, Region, Transfer};

use super::{Declared, code, insert};

/// A class and its parents, by name.
pub(super) type DeclaredClass = Spot<Vec<Spot<String>>>;

/// A regime whose regions are names.
pub(super) struct DeclaredRegime {
    id: Spot<String>,
    name: String,
    applies_in: Vec<Spot<String>>,
    classes: Vec<Spot<String>>,
    misroute: Misroute,
    min_contributors: usize,
    transfers: Vec<DeclaredTransfer>,
    review_by: Date,
}

struct DeclaredTransfer {
    form: Form,
    to: Vec<Spot<String>>,
    except: Vec<Spot<String>>,
    basis: String,
    needs: Vec<String>,
}

type Names = Vec<Spot<String>>;

pub(super) fn read_classes(table: &Table<'_>, declared: &mut Declared) {
    for (name, table) in table.named("classes") {
        table.need::<String>("about");
        let parents = table.or::<Names>("parents", Vec::new());
        insert(&mut declared.classes, name, parents, table.problems());
        table.done();
    }
}

pub(super) fn read_regions(table: &Table<'_>, declared: &mut Declared) {
    for (name, table) in table.named("regions") {
        read_review(&table);
        if let Some(codes) = table.need::<Names>("codes") {
            let codes = codes.value.iter().filter_map(|name| code(name, table.problems())).collect();
            insert(&mut declared.regions, name, Region { codes }, table.problems());
        }
        table.done();
    }
}

/// What every dated file must say of itself.
fn read_review(table: &Table<'_>) -> Option<Date> {
    let as_of = table.need::<Date>("as_of");
    let review_by = table.need::<Date>("review_by");
    if table.need::<Names>("sources").is_some_and(|sources| sources.value.is_empty()) {
        table.problems().error(&table.place, "`sources` is empty; a legal fact needs its source");
    }
    let (as_of, review_by) = (as_of?, review_by?);
    if review_by.value < as_of.value {
        table.problems().error(&review_by.place, "`review_by` is before `as_of`");
    }
    Some(review_by.value)
}

pub(super) fn read_regime(table: &Table<'_>, declared: &mut Declared) {
    let id = table.need::<String>("id");
    let name = table.need::<String>("name");
    table.need::<String>("notice");
    choice(table, "confidence", &[("high", ()), ("medium", ()), ("low", ())]);
    let localisations = ["none", "conditional", "mirror", "first-store", "strict"].map(|name| (name, ()));
    choice(table, "localisation", &localisations);
    let review_by = read_review(table);
    let applies_in = table.need::<Names>("applies_in");
    let classes = table.need::<Names>("classes");
    let misroute = choice(table, "misroute", &[("redirect", Misroute::Redirect), ("refuse", Misroute::Refuse)]);
    let min_contributors = super::datasets::min_contributors(table);
    let transfers = table.array("transfers").iter().filter_map(read_transfer).collect();
    let all = (id, name, review_by, applies_in, classes, misroute, min_contributors);
    let (Some(id), Some(name), Some(review_by), Some(applies_in), Some(classes), Some(misroute), Some(min)) = all
    else {
        return;
    };
    if declared.regimes.iter().any(|regime| regime.id.value == id.value) {
        table.problems().error(&id.place, format!("regime `{}` is declared twice", id.value));
        return;
    }
    declared.regimes.push(DeclaredRegime {
        id,
        name: name.value,
        applies_in: applies_in.value,
        classes: classes.value,
        misroute,
        min_contributors: min,
        transfers,
        review_by,
    });
}

fn read_transfer(table: &Table<'_>) -> Option<DeclaredTransfer> {
    let form = choice(table, "form", &Form::NAMES);
    let to = table.need::<Names>("to");
    let except = table.or::<Names>("except", Vec::new());
    let basis = table.need::<String>("basis");
    let needs = table.or::<Names>("needs", Vec::new());
    table.done();
    let needs = needs.into_iter().map(|need| need.value).collect();
    Some(DeclaredTransfer { form: form?, to: to?.value, except, basis: basis?.value, needs })
}

/// The value of a key that must be one of a few words.
pub(super) fn choice<T: Copy>(table: &Table<'_>, key: &str, choices: &[(&str, T)]) -> Option<T> {
    let word = table.need::<String>(key)?;
    let chosen = choices.iter().find(|(name, _)| *name == word.value);
    if chosen.is_none() {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        table.problems().error_help(
            &word.place,
            format!("`{}` cannot be used here", word.value),
            hint(&word.value, &names),
        );
    }
    chosen.map(|(_, value)| *value)
}

pub(super) fn resolve_classes(declared: &Declared, problems: &Problems) -> Classes {
    let known: Vec<&str> = declared.classes.keys().map(String::as_str).collect();
    let mut parents = BTreeMap::new();
    for (name, class) in &declared.classes {
        for parent in &class.value {
            if !declared.classes.contains_key(&parent.value) {
                problems.error_help(
                    &parent.place,
                    format!("there is no class `{}`", parent.value),
                    hint(&parent.value, &known),
                );
            }
        }
        let names: Vec<String> = class.value.iter().map(|parent| parent.value.clone()).collect();
        parents.insert(name.clone(), names);
    }
    let classes = Classes { parents };
    for (name, class) in &declared.classes {
        if class.value.iter().any(|parent| classes.covers(name, &parent.value)) {
            problems.error(&class.place, format!("class `{name}` is its own ancestor"));
        }
    }
    classes
}

/// Reports a class that is not declared.
pub(super) fn known_class(class: &Spot<String>, classes: &Classes, problems: &Problems) {
    if !classes.parents.contains_key(&class.value) {
        let known: Vec<&str> = classes.parents.keys().map(String::as_str).collect();
        problems.error_help(&class.place, format!("there is no class `{}`", class.value), hint(&class.value, &known));
    }
}

pub(super) fn resolve_regimes(declared: &Declared, classes: &Classes, problems: &Problems) -> BTreeMap<String, Regime> {
    let mut regimes = BTreeMap::new();
    for regime in &declared.regimes {
        regime.classes.iter().for_each(|class| known_class(class, classes, problems));
        let transfers = regime.transfers.iter().map(|row| {
            let anywhere = row.to.iter().any(|name| name.value == "any");
            Transfer {
                form: row.form,
                to: (!anywhere).then(|| region(&row.to, declared, problems)),
                except: region(&row.except, declared, problems),
                basis: row.basis.clone(),
                needs: row.needs.clone(),
            }
        });
        let resolved = Regime {
            id: regime.id.value.clone(),
            name: regime.name.clone(),
            applies_in: region(&regime.applies_in, declared, problems),
            classes: regime.classes.iter().map(|class| class.value.clone()).collect(),
            misroute: regime.misroute,
            min_contributors: regime.min_contributors,
            transfers: transfers.collect(),
            review_by: regime.review_by,
        };
        regimes.insert(regime.id.value.clone(), resolved);
    }
    regimes
}

/// The union of regions and codes.
fn region(names: &Names, declared: &Declared, problems: &Problems) -> Region {
    let mut codes = BTreeSet::new();
    for name in names {
        if let Some(region) = declared.regions.get(&name.value) {
            codes.extend(&region.value.codes);
        } else if let Some(code) = Jurisdiction::parse(&name.value).filter(|code| *code != Jurisdiction::UNKNOWN) {
            codes.insert(code);
        } else {
            let known: Vec<&str> = declared.regions.keys().map(String::as_str).collect();
            let message = format!("`{}` is neither a region nor an ISO 3166 code", name.value);
            problems.error_help(&name.place, message, hint(&name.value, &known));
        }
    }
    Region { codes }
}
