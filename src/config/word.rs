//! Keys whose value is one of a few words.

use crate::domain::document::{Spot, Table, hint};

/// The value of a key that must be one of a few words.
pub(super) fn word<T: Copy>(table: &Table<'_>, key: &str, choices: &[(&str, T)]) -> Option<T> {
    one_of(table, key, &table.get::<String>(key)?, choices)
}

/// The same, of a key that must be there.
pub(super) fn needed_word<T: Copy>(table: &Table<'_>, key: &str, choices: &[(&str, T)]) -> Option<T> {
    one_of(table, key, &table.need::<String>(key)?, choices)
}

fn one_of<T: Copy>(table: &Table<'_>, key: &str, name: &Spot<String>, choices: &[(&str, T)]) -> Option<T> {
    let known = choices.iter().find(|(known, _)| *known == name.value);
    if known.is_none() {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let message = format!("`{key}` cannot be `{}`", name.value);
        table.problems().error_help(&name.place, message, hint(&name.value, &names));
    }
    known.map(|(_, choice)| *choice)
}
