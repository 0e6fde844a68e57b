//! Regions: named lists of codes.

use std::collections::btree_map::Entry;
use std::sync::Arc;

use crate::domain::document::keys::{Key, Kind, Shape};
use crate::domain::document::{NameOrTable, Problems, Spot, Table, hint_of};
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::policy::regime::{Region, Term};

use super::codes::{self, CODES, code};
use super::terms::{AS_OF, FROM, NEEDS, REVIEW_BY, UNTIL, read_review, read_term};
use super::{Declared, NAMES, Names, SOURCES, insert};

/// In `to`: every place.
pub(super) const ANY: &str = "any";

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
        FROM,
        UNTIL,
        NEEDS,
        Key::new("source", Kind::Text, "Where it says so. Default: the region's `sources`."),
    ],
};

pub(super) fn read_regions(table: &Table<'_>, declared: &mut Declared) {
    for (name, table) in table.named("regions") {
        if name.value == ANY || declared.codes.parse(&name.value).is_some() {
            let message = format!("`{}` already means something else; give the region another name", name.value);
            table.problems().error(&name.place, message);
        }
        let review_by =
            read_review(&table, format!("region `{}`", name.value), declared).map(|(_, review_by)| review_by);
        if let Some(codes) = table.need::<Vec<Spot<NameOrTable<'_>>>>("codes") {
            let of_region: Vec<String> =
                table.or::<Names>("sources", Vec::new()).into_iter().map(|source| source.value).collect();
            let of_region: Arc<str> = of_region.join("; ").into();
            let mut region = Region::default();
            for listed in codes.value {
                if let Some((code, mut term)) = read_code(listed, &name.value, &table, declared) {
                    term.review_by = review_by;
                    if term.source.is_empty() {
                        term.source = Arc::clone(&of_region);
                    }
                    region.codes.entry(code).or_default().push(term);
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
    region: &str,
    place: &Table<'_>,
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
            table.done();
            Some((code(&name?, &declared.codes, table.problems())?, term))
        }
    }
}

/// The union of regions and codes.
pub(super) fn region(names: &Names, declared: &Declared, problems: &Problems) -> Region {
    let mut union = Region { names: names.iter().map(|name| name.value.clone()).collect(), ..Region::default() };
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
