//! What legal data says of itself: how long it holds, under which conditions, by which paragraph, and when it must be
//! looked at again.

use jiff::civil::Date;

use crate::domain::document::Table;
use crate::domain::document::keys::{Key, Kind};
use crate::domain::policy::Dated;
use crate::domain::policy::regime::Term;
use crate::domain::proof::ConditionId;

use super::conditions::condition;
use super::{Declared, NAMES, Names};

pub(super) const AS_OF: Key = Key::required("as_of", Kind::Date, "The day on which the facts were checked.");
pub(super) const REVIEW_BY: Key =
    Key::required("review_by", Kind::Date, "The day by which they must be checked again.");
pub(super) const FROM: Key =
    Key::new("from", Kind::Date, "The first day on which it holds, UTC. Before, it is as if it were not there.");
pub(super) const UNTIL: Key = Key::new("until", Kind::Date, "The last day on which it holds, UTC.");
pub(super) const SOURCE: Key = Key::new(
    "source",
    Kind::Text,
    "The paragraph that it rests on. Where one rule of a regime names one, all of them must.",
);
pub(super) const NEEDS: Key = Key::new("needs", NAMES, "The conditions that must be shown, all of them.");

/// `from`, `until`, `needs` and `source`.
pub(super) fn read_term(table: &Table<'_>, what: &str, declared: &mut Declared) -> Term {
    let from = read_from(table, what, declared);
    let until = table.get::<Date>("until").map(|until| {
        let day = until.value;
        if from.is_some_and(|from| day < from) {
            table.problems().error(&until.place, "`until` is before `from`");
        }
        declared.ends.push(Dated { what: what.to_owned(), day: until });
        day
    });
    let mut needs: Vec<ConditionId> = Vec::new();
    for need in table.or::<Names>("needs", Vec::new()) {
        let Some(need) = condition(&need, table.problems()) else { continue };
        needs.push(need.clone());
        declared.needed.insert(need);
    }
    Term { from, until, needs, review_by: None, source: read_source(table).into() }
}

/// The first day of something.
pub(super) fn read_from(table: &Table<'_>, what: &str, declared: &mut Declared) -> Option<Date> {
    let from = table.get::<Date>("from")?;
    let day = from.value;
    declared.begins.push(Dated { what: what.to_owned(), day: from });
    Some(day)
}

/// The paragraph that a rule rests on; empty where it names none.
pub(super) fn read_source(table: &Table<'_>) -> String {
    let Some(source) = table.get::<String>("source") else { return String::new() };
    if source.value.trim().is_empty() {
        table.problems().error(&source.place, "`source` is empty: name the paragraph, or leave the key out");
    }
    source.value
}

/// What every dated file must say of itself: when its facts were checked, and by when they must be again.
pub(super) fn read_review(table: &Table<'_>, what: String, declared: &mut Declared) -> Option<(Date, Date)> {
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
