//! Keys whose value is one of a few words.

use crate::domain::document::{Table, hint};

/// The value of a key that must be one of a few words.
pub(super) fn word<T: Copy>(table: &Table<'_>, key: &str, choices: &[(&str, T)]) -> Option<T> {
    let name = table.get::<String>(key)?;
    let known = choices.iter().find(|(known, _)| *known == name.value);
    if known.is_none() {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let message = format!("`{key}` cannot be `{}`", name.value);
        table.problems().error_help(&name.place, message, hint(&name.value, &names));
    }
    known.map(|(_, choice)| *choice)
}
