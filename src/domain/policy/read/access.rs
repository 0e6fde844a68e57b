//! `[permissions]`, and the identities of `[producers]`.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::domain::document::keys::{Key, Kind, Shape, names};
use crate::domain::document::{Problems, Spot, Table, hint, hint_of};
use crate::domain::name::{self, StreamName};
use crate::domain::pattern::Pattern;
use crate::domain::policy::access::{Access, DEFAULT, Naming, Right, Rule};

const NAMES: Kind = Kind::List(&Kind::Text);

pub(super) const PERMISSION: Shape = Shape {
    name: "permissions.RULE",
    about: "What some identities may do. What no rule allows is denied.",
    keys: &[
        Key::required("identities", NAMES, "Whom it is for: identities, or patterns with `*` as the last segment."),
        Key::new("write", NAMES, "The streams they may write."),
        Key::new("as", NAMES, "The producers they may speak as besides their own name, or patterns as in till-*."),
        Key::new("read", Kind::List(&Kind::Word(&names(&Right::NAMES))), "What they may read."),
    ],
};

/// What is declared of access, before names of streams are looked up.
#[derive(Default)]
pub(super) struct Declared {
    rules: Vec<(Rule, Vec<Spot<String>>)>,
    names: Vec<Naming>,
}

/// Reads the rules of a file.
pub(super) fn read(table: &Table<'_>, declared: &mut Declared) {
    for (id, table) in table.named("permissions") {
        let problems = table.problems();
        name::check("rule", &id, problems);
        if id.value == DEFAULT {
            problems.error(&id.place, format!("`{DEFAULT}` is what holds where no rule does; choose another name"));
        }
        if declared.rules.iter().any(|(rule, _)| *rule.id == *id.value) {
            problems.error(&id.place, format!("rule `{}` is declared twice", id.value));
        }
        let identities = table.need::<Vec<Spot<String>>>("identities");
        let identities = patterns(identities.map(|list| list.value), Pattern::of_identities, problems);
        let write = table.or::<Vec<Spot<String>>>("write", Vec::new());
        let speaks_as = table.get::<Vec<Spot<String>>>("as");
        if let Some(names) = speaks_as.as_ref().filter(|_| write.is_empty()) {
            problems.warn(&names.place, "`as` allows nothing without `write`", "name the streams in `write`");
        }
        let speaks_as = patterns(speaks_as.map(|list| list.value), Pattern::of_names, problems);
        let read = table.or::<Vec<Spot<String>>>("read", Vec::new());
        let read: BTreeSet<Right> = read.iter().filter_map(|name| right(name, problems)).collect();
        table.done();
        // What is no name is no declared stream either, and is reported as such.
        let streams = write.iter().filter_map(|stream| StreamName::new(&stream.value).ok()).collect();
        let rule = Rule { id: Arc::from(id.value), identities, write: streams, speaks_as, read, place: id.place };
        declared.rules.push((rule, write));
    }
}

fn right(name: &Spot<String>, problems: &Problems) -> Option<Right> {
    let known = Right::NAMES.iter().find(|(known, _)| *known == name.value);
    if known.is_none() {
        let message = format!("`{}` cannot be read here", name.value);
        problems.error_help(&name.place, message, hint(&name.value, &names(&Right::NAMES)));
    }
    known.map(|(_, right)| *right)
}

fn patterns(
    texts: Option<Vec<Spot<String>>>,
    parse: fn(&str) -> Result<Pattern, &'static str>,
    problems: &Problems,
) -> Vec<Pattern> {
    let read = texts.into_iter().flatten().filter_map(|text| {
        let parsed = parse(&text.value);
        parsed.map_err(|help| problems.error_help(&text.place, format!("`{}` cannot be used", text.value), help)).ok()
    });
    read.collect()
}

/// Reads the identities that speak under a producer's name.
pub(super) fn read_names(producer: &Spot<String>, table: &Table<'_>, declared: &mut Declared) {
    let problems = table.problems();
    let Some(identities) = table.get::<Vec<Spot<String>>>("identities") else { return };
    let named = Pattern::of_names(&producer.value).map_err(|help| {
        problems.error_help(&producer.place, format!("`{}` cannot be used", producer.value), help);
    });
    let Ok(named) = named else { return };
    for text in identities.value {
        let place = text.place.clone();
        let Some(identity) = patterns(Some(vec![text]), Pattern::of_identities, problems).pop() else { continue };
        if identity.is_open() != named.is_open() {
            let help = "what stands for the star of the identity stands for that of the name: both have one, or none";
            problems.error_help(&place, format!("`{identity}` cannot speak as `{named}`"), help);
            continue;
        }
        declared.names.push(Naming { identity, producer: named.clone(), place });
    }
}

/// What is declared, when the names in it lead to something, and no name to two producers.
pub(super) fn resolve(declared: &Declared, streams: &BTreeSet<&str>, problems: &Problems) -> Access {
    for stream in declared.rules.iter().flat_map(|(_, write)| write) {
        if !streams.contains(stream.value.as_str()) {
            let help = hint_of(&stream.value, streams.iter().copied());
            problems.error_help(&stream.place, format!("there is no stream `{}`", stream.value), help);
        }
    }
    for (position, naming) in declared.names.iter().enumerate() {
        let before = declared.names.get(..position).unwrap_or_default();
        if let Some(same) = before.iter().find(|before| before.identity == naming.identity) {
            let message = format!("`{}` already speaks as `{}`", naming.identity, same.producer);
            problems.error_help(
                &naming.place,
                message,
                "an identity has one name; let it use others in [permissions] `as`",
            );
        }
        // Identities that stand beside each other under one name are meant to be one producer.
        let is_meant = |other: &Naming| other.producer == naming.producer && !naming.producer.is_open();
        let takes = |other: &&Naming| other.producer.meets(&naming.producer) && !is_meant(other);
        if let Some(other) = before.iter().find(takes) {
            let (name, others) = (&naming.producer, &other.producer);
            let message =
                format!("`{name}` (of `{}`) and `{others}` (of `{}`) may be one name", naming.identity, other.identity);
            let help = "one could take over the other's series of requests: choose names that no other pattern matches";
            problems.error_help(&naming.place, message, help);
        }
    }
    Access {
        rules: declared.rules.iter().map(|(rule, _)| Arc::new(rule.clone())).collect(),
        names: declared.names.clone(),
    }
}
