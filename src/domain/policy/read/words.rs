//! Keys whose value is one of a few words.

use crate::domain::document::{Problems, Spot, Table, hint};

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
