//! The keys that a dataset gives up for cells that may not leave by themselves.

use crate::domain::dataset::{GroupKey, KeyDomain, REST};
use crate::domain::document::keys::{Key, Kind};
use crate::domain::document::{Problems, Spot, hint};
use crate::domain::policy::release::HIDDEN_MIN;

pub(super) const ROLL_UP: Key = Key::new(
    "roll_up",
    Kind::List(&Kind::Text),
    "The keys that are given up, one after the other, for cells with too few contributors: they leave as a remainder.",
);

/// Their positions among the keys.
pub(super) fn resolve(declared: &[Spot<String>], keys: &[GroupKey], problems: &Problems) -> Vec<usize> {
    let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
    let mut positions = Vec::new();
    for Spot { value: name, place } in declared {
        let found = keys.iter().enumerate().find(|(_, key)| key.name == *name);
        let Some((position, key)) = found else {
            problems.error_help(place, format!("`{name}` is not in `group_by`"), hint(name, &names));
            continue;
        };
        if positions.contains(&position) {
            problems.error(place, format!("`{name}` is in `roll_up` twice"));
            continue;
        }
        // A truth value that cannot be missing is never `other`.
        let size = if matches!(key.domain, KeyDomain::Bool) { 2 } else { key.domain.size() };
        if size < HIDDEN_MIN {
            let message = format!(
                "`{name}` has {size} values, with `other`: a remainder of so few cells would tell of each that somebody is \
                 in it, and never leaves"
            );
            problems.error_help(place, message, "leave it out of `roll_up`, or give the key more values");
        }
        if let KeyDomain::Text { words, .. } = &key.domain
            && words.iter().any(|word| word == REST)
        {
            let message = format!("`{REST}` stands for a key that was given up, and the domain of `{name}` has it");
            problems.error_help(
                place,
                message,
                format!("leave `{name}` out of `roll_up`, or name the value otherwise"),
            );
        }
        positions.push(position);
    }
    positions
}
