//! The codes that a set of policies knows: those of ISO 3166 that the program lists, and the newer ones that the policies
//! bring.

use std::collections::BTreeSet;

use super::jurisdiction::Jurisdiction;

/// Codes that the program does not list, and those that ISO 3166 lists no more.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Codes {
    added: BTreeSet<Jurisdiction>,
    /// As they are written: one that means a country is not that country's code.
    retired: BTreeSet<String>,
}

impl Codes {
    /// Parses a code that the program lists, or that was added. A retired code is one still: devices go on sending it.
    #[must_use]
    pub fn parse(&self, code: &str) -> Option<Jurisdiction> {
        let added = || Jurisdiction::subdivision(code).filter(|code| self.added.contains(code));
        Jurisdiction::parse(code).or_else(added)
    }

    /// Whether ISO 3166 lists a code no more.
    #[must_use]
    pub fn is_retired(&self, code: &str) -> bool {
        self.retired.contains(code)
    }

    /// Adds a subdivision. `false`: it was added before.
    pub fn add(&mut self, code: Jurisdiction) -> bool {
        self.added.insert(code)
    }

    /// Retires a code. `false`: it was retired before.
    pub fn retire(&mut self, code: &str) -> bool {
        self.retired.insert(code.to_owned())
    }
}
