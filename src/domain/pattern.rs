//! One text, or all texts that have something in the place of a star.

use std::fmt;

/// What identities begin with that a token says.
const TOKEN: &str = "token:";

/// A text with at most one star, which stands for one segment: at least one character, and no `/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern {
    before: Box<str>,
    /// What comes after the star. `None`: there is no star.
    after: Option<Box<str>>,
}

impl Pattern {
    /// A pattern of identities: the star is the whole of the last segment (`spiffe://corp.example/tills/*`, `token:*`) or of
    /// the first label (`*.tills.corp.example`).
    ///
    /// # Errors
    /// How it has to be.
    pub fn of_identities(text: &str) -> Result<Self, &'static str> {
        const HELP: &str = "write an identity, or one with `*` for its whole last segment (spiffe://corp.example/tills/*) \
                            or its whole first label (*.tills.corp.example)";
        let pattern = Self::of_names(text).map_err(|_| HELP)?;
        match &pattern.after {
            None => Ok(pattern),
            Some(after) if after.is_empty() && (pattern.before.ends_with('/') || &*pattern.before == TOKEN) => {
                Ok(pattern)
            }
            Some(after) if pattern.before.is_empty() && after.starts_with('.') && after.len() > 1 => Ok(pattern),
            Some(_) => Err(HELP),
        }
    }

    /// A pattern of names: the star is at the end (`till-*`), or at the beginning.
    ///
    /// # Errors
    /// How it has to be.
    pub fn of_names(text: &str) -> Result<Self, &'static str> {
        const HELP: &str = "write a name, or one with a single `*` at its end (till-*)";
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(HELP);
        }
        match text.split_once('*') {
            None => Ok(Self { before: text.into(), after: None }),
            Some((before, after)) if after.contains('*') || !before.is_empty() && !after.is_empty() => Err(HELP),
            Some((before, after)) => Ok(Self { before: before.into(), after: Some(after.into()) }),
        }
    }

    /// Whether it has a star.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.after.is_some()
    }

    /// What the star stands for in a text that is one of these; empty without a star.
    #[must_use]
    pub fn star<'t>(&self, text: &'t str) -> Option<&'t str> {
        let Some(after) = &self.after else { return (*self.before == *text).then_some("") };
        // Who issues tokens says what stands in them: nothing of a token may pass for a host or for somebody with a
        // certificate.
        if text.starts_with(TOKEN) != self.before.starts_with(TOKEN) {
            return None;
        }
        let star = text.strip_prefix(&*self.before)?.strip_suffix(&**after)?;
        // A label of a host is one segment too.
        let is_segment = !star.is_empty() && !star.contains('/') && (after.is_empty() || !star.contains('.'));
        is_segment.then_some(star)
    }

    /// Whether a text is one of these.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.star(text).is_some()
    }

    /// The text with this in the place of the star.
    #[must_use]
    pub fn with(&self, star: &str) -> String {
        match &self.after {
            None => self.before.to_string(),
            Some(after) => format!("{}{star}{after}", self.before),
        }
    }

    /// Whether there may be a text that both match.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        match (&self.after, &other.after) {
            (None, _) => other.matches(&self.before),
            (_, None) => self.matches(&other.before),
            (Some(after), Some(others)) => {
                let (before, other) = (&self.before, &other.before);
                (before.starts_with(&**other) || other.starts_with(&**before))
                    && (after.ends_with(&**others) || others.ends_with(&**after))
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with("*"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identities(text: &str) -> Pattern {
        Pattern::of_identities(text).unwrap()
    }

    #[test]
    fn a_star_is_one_segment() {
        let tills = identities("spiffe://corp.example/tills/*");
        assert_eq!(tills.star("spiffe://corp.example/tills/7"), Some("7"));
        for other in
            ["spiffe://corp.example/tills/", "spiffe://corp.example/tills/7/a", "spiffe://corp.example/till/7", ""]
        {
            assert_eq!(tills.star(other), None, "{other}");
        }
        let hosts = identities("*.tills.corp.example");
        assert_eq!(hosts.star("a.tills.corp.example"), Some("a"));
        assert_eq!(hosts.star("a.b.tills.corp.example"), None);
        for token in ["token:a.tills.corp.example", "token:eve@a.tills.corp.example"] {
            assert_eq!(hosts.star(token), None, "{token}");
        }
        let tokens = identities("token:*");
        assert_eq!(
            (tokens.star("token:a:b"), tokens.star("token:a/b"), tokens.star("token:")),
            (Some("a:b"), None, None)
        );
        let one = identities("spiffe://corp.example/office");
        assert_eq!(
            (one.star("spiffe://corp.example/office"), one.star("spiffe://corp.example/offices")),
            (Some(""), None)
        );
    }

    #[test]
    fn a_star_elsewhere_is_none() {
        for bad in ["*", "", "spiffe://corp.example/tills*", "spiffe://*/tills", "a/*/*", "*corp", "*.", "a\n"] {
            assert!(Pattern::of_identities(bad).is_err(), "{bad}");
        }
        for bad in ["", "a*b", "**", "a\0"] {
            assert!(Pattern::of_names(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_meet_when_a_text_may_match_both() {
        let meets = |a: &str, b: &str| {
            let (a, b) = (Pattern::of_names(a).unwrap(), Pattern::of_names(b).unwrap());
            assert_eq!(a.meets(&b), b.meets(&a));
            a.meets(&b)
        };
        assert!(meets("till-*", "till-7") && meets("till-*", "till-a*") && meets("*", "x") && meets("a", "a"));
        assert!(!meets("till-*", "tills") && !meets("a-*", "b-*") && !meets("a", "b") && !meets("till-*", "till-"));
    }
}
