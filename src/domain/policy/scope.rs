//! The regimes' tests of facts, compiled: a candidate of a fact gives the set of regimes it brings in as one number,
//! whatever the number of regimes.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;
use jiff::civil::Date;

use crate::domain::fact::Fact;
use crate::domain::jurisdiction::Jurisdiction;

use super::regime::Regime;

/// A set of regimes: a bit for each, in the order of their ids.
pub(super) type Mask = u128;

/// The most regimes of a set of policies: the bits of a [`Mask`].
pub(super) const REGIMES_MAX: usize = Mask::BITS as usize;

/// Which regimes a candidate brings in.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    by_fact: [ByCode; Fact::NAMES.len()],
}

#[derive(Debug, Default)]
struct ByCode {
    /// Regimes that list the code.
    listed: HashMap<Jurisdiction, Mask, RandomState>,
    /// Regimes that list a part of the country.
    parts: HashMap<Jurisdiction, Mask, RandomState>,
}

impl Scopes {
    /// Compiles the tests that count on a day, of at most [`REGIMES_MAX`] regimes.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "there is one entry for each fact")]
    pub(super) fn compile(regimes: &BTreeMap<String, Regime>, day: Date) -> Self {
        let mut scopes = Self::default();
        for (regime, bit) in regimes.values().zip(bits()) {
            for scope in regime.applies.iter().filter(|scope| scope.is_in_force(day)) {
                let by_code = &mut scopes.by_fact[scope.fact as usize];
                for &code in scope.within.codes.keys() {
                    *by_code.listed.entry(code).or_default() |= bit;
                    if code.country() != code {
                        *by_code.parts.entry(code.country()).or_default() |= bit;
                    }
                }
            }
        }
        scopes
    }

    /// The regimes that a candidate of a fact brings in.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "there is one entry for each fact")]
    pub(super) fn mask(&self, fact: Fact, candidate: Jurisdiction) -> Mask {
        let by_code = &self.by_fact[fact as usize];
        let listed = |code| by_code.listed.get(&code).copied().unwrap_or_default();
        let country = candidate.country();
        if country == candidate {
            listed(candidate) | by_code.parts.get(&candidate).copied().unwrap_or_default()
        } else {
            listed(candidate) | listed(country)
        }
    }
}

/// The bit of each regime, in the order of their ids.
pub(super) fn bits() -> impl Iterator<Item = Mask> {
    (0..Mask::BITS).map(|bit| 1 << bit)
}

/// The set of the regimes that meet a test.
pub(super) fn mask_of(regimes: &BTreeMap<String, Regime>, is_in: impl Fn(&Regime) -> bool) -> Mask {
    regimes.values().zip(bits()).filter(|(regime, _)| is_in(regime)).fold(0, |mask, (_, bit)| mask | bit)
}

/// The regimes of a set.
pub(super) fn regimes_of(regimes: &BTreeMap<String, Regime>, mask: Mask) -> impl Iterator<Item = &Regime> {
    regimes.values().zip(bits()).filter(move |(_, bit)| mask & bit != 0).map(|(regime, _)| regime)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The compiled tests are the regimes' own.
        #[test]
        fn a_mask_holds_the_regimes_whose_tests_are_met(
            listed in proptest::collection::vec((proptest::collection::vec(0..CODES.len(), 0..4), 0..4_i8), 1..60),
            candidate in 0..CODES.len(),
        ) {
            let code = |at: usize| Jurisdiction::parse(CODES[at]).unwrap();
            let regimes: BTreeMap<String, Regime> = listed.iter().enumerate().map(|(number, (codes, from))| {
                let mut regime = crate::domain::policy::regime::tests::regime(
                    &format!("r{number:03}"), Fact::CollectionPlace, codes.iter().map(|&at| code(at)));
                regime.applies[0].from = (*from > 0).then(|| Date::constant(2026, 1, *from));
                (regime.id.clone(), regime)
            }).collect();
            let day = Date::constant(2026, 1, 2);
            let scopes = Scopes::compile(&regimes, day);
            let slow = mask_of(&regimes, |regime| regime.met(Fact::CollectionPlace, code(candidate), day).next().is_some());
            prop_assert_eq!(scopes.mask(Fact::CollectionPlace, code(candidate)), slow);
            prop_assert_eq!(scopes.mask(Fact::SubjectResidence, code(candidate)), 0);
        }
    }

    const CODES: [&str; 10] = ["DE", "FR", "CA", "CA-QC", "CA-ON", "US", "US-CA", "PR", "HK", "CN"];
}
