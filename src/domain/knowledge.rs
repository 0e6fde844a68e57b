//! What is known outside: places, telephone numbers, bank accounts, network addresses, registries. The traits are
//! implemented in the `knowledge` module.
//!
//! Whatever is not certain gives every code that it may be: one candidate too many only brings one more law.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::fact::Fact;
use super::jurisdiction::Jurisdiction;

mod iban;
mod phone;

pub use super::jurisdiction::Candidates;
pub use iban::iban;
pub use phone::phone;

/// What a value says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// Nothing.
    Absent,
    /// It is not what it should be.
    Unreadable,
    /// One of these. Equal answers of one source are mostly the same `Arc`.
    Codes(Candidates),
}

/// Places on the earth.
pub trait Places: Send + Sync {
    /// Every country, or part of one, that a circle touches. Absent at sea; unreadable where there is no such circle.
    fn around(&self, latitude: f64, longitude: f64, radius_m: f64) -> Reading;
}

/// Network addresses.
pub trait Addresses: Send + Sync {
    /// Where an address is.
    fn locate(&self, address: IpAddr) -> Reading;
}

/// What is known of keys: devices, accounts, producers.
#[derive(Clone, Default)]
pub struct Registry {
    facts: Vec<Fact>,
    /// The number of what is known of each key.
    keys: HashMap<Box<str>, u32, RandomState>,
    /// What is known of keys, one reading per fact.
    known: Vec<Box<[Reading]>>,
    numbers: HashMap<Vec<Vec<Jurisdiction>>, u32, RandomState>,
    candidates: HashMap<Vec<Jurisdiction>, Candidates, RandomState>,
}

impl Registry {
    /// A registry of these facts that knows no key.
    #[must_use]
    pub fn new(facts: Vec<Fact>) -> Self {
        Self { facts, ..Self::default() }
    }

    /// Adds a key with the codes of each fact, none where nothing is known. Whether the key is new; one that is not
    /// keeps what it has.
    pub fn insert(&mut self, key: &str, mut codes: Vec<Vec<Jurisdiction>>) -> bool {
        if self.keys.contains_key(key) {
            return false;
        }
        for codes in &mut codes {
            codes.sort_unstable();
            codes.dedup();
        }
        let number = match self.numbers.get(&codes) {
            Some(number) => *number,
            None => {
                let number = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
                let readings = codes.iter().map(|codes| Self::reading(&mut self.candidates, codes)).collect();
                self.known.push(readings);
                self.numbers.insert(codes, number);
                number
            }
        };
        self.keys.insert(key.into(), number);
        true
    }

    fn reading(known: &mut HashMap<Vec<Jurisdiction>, Candidates, RandomState>, codes: &[Jurisdiction]) -> Reading {
        if codes.is_empty() {
            return Reading::Absent;
        }
        if let Some(candidates) = known.get(codes) {
            return Reading::Codes(Arc::clone(candidates));
        }
        let candidates: Candidates = codes.into();
        known.insert(codes.to_vec(), Arc::clone(&candidates));
        Reading::Codes(candidates)
    }

    /// What is known of a key. A key that is not there: absent.
    #[must_use]
    pub fn get(&self, key: &str, fact: Fact) -> Reading {
        self.of(fact).get(key).clone()
    }

    /// What is known of one fact.
    #[must_use]
    pub fn of(&self, fact: Fact) -> OfFact<'_> {
        OfFact { registry: self, column: self.facts.iter().position(|known| *known == fact) }
    }

    /// How many keys it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether it knows no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// What a registry knows of one fact.
pub struct OfFact<'r> {
    registry: &'r Registry,
    column: Option<usize>,
}

impl<'r> OfFact<'r> {
    /// What is known of a key. A key that is not there: absent.
    #[must_use]
    pub fn get(&self, key: &str) -> &'r Reading {
        let known = self.registry.keys.get(key).and_then(|&number| self.registry.known.get(number as usize));
        known.zip(self.column).and_then(|(known, column)| known.get(column)).unwrap_or(&Reading::Absent)
    }
}

/// Keys are not shown: they name devices and people.
impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("facts", &self.facts).field("keys", &self.len()).finish_non_exhaustive()
    }
}

/// Codes of a constant list, as candidates.
fn candidates<'c>(codes: impl IntoIterator<Item = &'c str>) -> Candidates {
    let mut codes: Vec<Jurisdiction> = codes.into_iter().filter_map(Jurisdiction::parse).collect();
    codes.sort_unstable();
    codes.dedup();
    codes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(codes: &[&str]) -> Vec<Jurisdiction> {
        codes.iter().map(|code| Jurisdiction::parse(code).unwrap()).collect()
    }

    #[test]
    fn a_registry_says_what_it_was_told() {
        let mut registry = Registry::new(vec![Fact::CollectionPlace, Fact::SubjectResidence]);
        assert!(registry.insert("one", vec![codes(&["FR", "DE", "FR"]), vec![]]));
        assert!(registry.insert("two", vec![codes(&["DE", "FR"]), codes(&["US-CA"])]));
        assert!(!registry.insert("one", vec![vec![], vec![]]));
        assert_eq!(registry.len(), 2);
        let of = |key, fact| registry.get(key, fact);
        let Reading::Codes(one) = of("one", Fact::CollectionPlace) else { panic!() };
        let Reading::Codes(two) = of("two", Fact::CollectionPlace) else { panic!() };
        assert_eq!(one.to_vec(), codes(&["DE", "FR"]));
        assert!(Arc::ptr_eq(&one, &two));
        assert_eq!(of("one", Fact::SubjectResidence), Reading::Absent);
        assert_eq!(of("two", Fact::SubjectResidence), Reading::Codes(codes(&["US-CA"]).into()));
        assert_eq!(of("two", Fact::SourceSystem), Reading::Absent);
        assert_eq!(of("three", Fact::CollectionPlace), Reading::Absent);
    }

    #[test]
    fn a_registry_does_not_show_its_keys() {
        let mut registry = Registry::new(vec![Fact::CollectionPlace]);
        registry.insert("+491701234567", vec![codes(&["DE"])]);
        assert!(!format!("{registry:?}").contains("170"));
    }
}
