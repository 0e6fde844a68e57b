//! Data classes.

use std::collections::BTreeMap;

use crate::domain::document::keys::{Key, Kind, Shape};
use crate::domain::document::{Problems, Spot, Table, hint_of};
use crate::domain::policy::regime::{Class, Classes};

use super::{Declared, NAMES, Names, insert};

/// A class whose parents are names.
pub(super) struct DeclaredClass {
    parents: Vec<Spot<String>>,
    special: bool,
}

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

pub(super) fn read_classes(table: &Table<'_>, declared: &mut Declared) {
    for (name, table) in table.named("classes") {
        table.need::<String>("about");
        let parents = table.or::<Names>("parents", Vec::new());
        let special = table.or("special", false);
        insert(&mut declared.classes, name, DeclaredClass { parents, special }, table.problems());
        table.done();
    }
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
