//! Names that are chosen in a configuration. Many of them become parts of file names, topics, protobuf messages or
//! columns, so all are of one closed alphabet.

use super::document::{Problems, Spot};

/// The longest name, in bytes.
pub const BYTES_MAX: usize = 64;

/// Whether a name begins with a letter or digit and holds nothing but those, `_`, `-` and `.`.
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.len() <= BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// Reports what is no name of such a thing: `dataset`, `stream`.
pub fn check(what: &str, name: &Spot<String>, problems: &Problems) {
    if !is_name(&name.value) {
        let help = format!(
            "a name begins with a letter or digit and holds letters, digits, `_`, `-` and `.`, at most {BYTES_MAX} in all"
        );
        problems.error_help(&name.place, format!("`{}` is no {what} name", name.value), help);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_a_closed_alphabet() {
        for name in ["a", "eu-fra-1", "OVR-7", "0", "a.b_c", &"a".repeat(64)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "..", "../x", "a/b", "-a", "_a", ".a", "a b", "ä", "a\n", "a\0", "a\\b", &"a".repeat(65)]
        {
            assert!(!is_name(name), "{name}");
        }
    }
}
