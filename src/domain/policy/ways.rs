//! All ways in which a law lets data go somewhere, whatever is shown: for those who read the law, not for decisions.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;

use super::form::{Form, Lasting};
use super::regime::{Regime, Term};
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::proof::ConditionId;

/// One way for data to go to a place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// The id of the row, within its regime.
    pub row: String,
    /// The conditions that must be shown, all of them.
    pub needs: BTreeSet<ConditionId>,
    /// The first day, where there is one.
    pub from: Option<Date>,
    /// The last day, where there is one. The regime's own review is not in it.
    pub until: Option<Date>,
}

/// The ways of each form, the strongest form first.
pub type Ways = Vec<(Form, Vec<Way>)>;

/// Places that a law treats alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alike {
    /// The places.
    pub places: BTreeSet<Jurisdiction>,
    /// How data may go there.
    pub ways: Ways,
}

impl Way {
    /// Whether whoever may use another way may use this one too, at any time.
    fn is_as_wide_as(&self, other: &Self) -> bool {
        self.needs.is_subset(&other.needs)
            && self.from.unwrap_or(Date::MIN) <= other.from.unwrap_or(Date::MIN)
            && Lasting(self.until) >= Lasting(other.until)
    }
}

impl Regime {
    /// The ways in which a form may go to a place on a day or later. Those that ask for more than another one are left out.
    #[must_use]
    pub fn ways(&self, form: Form, place: Jurisdiction, day: Date) -> Vec<Way> {
        let anywhere = Term::default();
        let mut ways = BTreeSet::new();
        for row in self.transfers.iter().filter(|row| row.form >= form && !row.except.may_hold(place)) {
            let terms: Vec<&Term> = match &row.to {
                None => vec![&anywhere],
                Some(region) => region.terms_of(place).collect(),
            };
            ways.extend(terms.into_iter().map(|term| Way {
                row: row.id.clone(),
                needs: row.term.needs.iter().chain(&term.needs).cloned().collect(),
                from: row.term.from.max(term.from),
                until: Lasting(row.term.until).and(Lasting(term.until)).0,
            }));
        }
        ways.retain(|way| {
            Lasting(Some(day)) <= Lasting(way.until) && Lasting(way.from.or(Some(Date::MIN))) <= Lasting(way.until)
        });
        let all: Vec<Way> = ways.into_iter().collect();
        // Of ways that are as wide as each other the first stays.
        let is_needless = |(at, way): (usize, &Way)| {
            let others = all.iter().enumerate().filter(|(other, _)| *other != at);
            others
                .into_iter()
                .any(|(other, wider)| wider.is_as_wide_as(way) && (other < at || !way.is_as_wide_as(wider)))
        };
        all.iter().enumerate().filter(|each| !is_needless(*each)).map(|(_, way)| way.clone()).collect()
    }

    /// Places with the ways in which data may go there on a day or later, those together that the law treats alike. A part of
    /// a country is among them where it is named and treated otherwise than its country.
    #[must_use]
    pub fn alike(&self, places: &BTreeSet<Jurisdiction>, day: Date) -> Vec<Alike> {
        let of_place = |place| -> Ways {
            let forms = Form::NAMES.iter().rev();
            forms.map(|(_, form)| (*form, self.ways(*form, place, day))).collect()
        };
        let mut alike: BTreeMap<Ways, BTreeSet<Jurisdiction>> = BTreeMap::new();
        for &place in places {
            alike.entry(of_place(place)).or_default().insert(place);
        }
        let named = self.transfers.iter().flat_map(|row| {
            let to = row.to.iter().flat_map(|region| region.codes.keys());
            to.chain(row.except.codes.keys()).copied()
        });
        let named: BTreeSet<Jurisdiction> = named.collect();
        for part in named.into_iter().filter(|code| code.country() != *code && places.contains(&code.country())) {
            let ways = of_place(part);
            if ways != of_place(part.country()) {
                alike.entry(ways).or_default().insert(part);
            }
        }
        let alike = alike.into_iter().map(|(ways, places)| Alike { places, ways });
        let mut alike: Vec<Alike> = alike.collect();
        alike.sort_by_key(|alike| (alike.places.len(), alike.places.first().copied()));
        alike
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::policy::conditions::{ByCounter, OnExpired, Shown};
    use crate::domain::policy::fixture::tests::{SET, set};
    use crate::domain::policy::{Conditions, PolicySet, Proof};

    const NEEDS: [&str; 3] = ["dest.a", "dest.b", "dest.listed"];
    const DAYS: [&str; 4] = ["2026-01-31", "2026-02-01", "2026-06-30", "2026-07-01"];
    const PLACES: [&str; 6] = ["DE", "FR", "GB", "US", "US-CA", "KP"];

    fn law(rows: &[(usize, usize, usize, usize)]) -> PolicySet {
        let [regions, classes, union, br] = SET;
        let (head, _) = union.split_once("[[transfers]]").unwrap();
        let mut law = head.to_owned();
        for (number, (form, to, needs, days)) in rows.iter().enumerate() {
            let (form, to) = (Form::NAMES[form % 4].0, ["union", "any", "US-CA", "KP"][to % 4]);
            let needs: Vec<&str> =
                NEEDS.iter().enumerate().filter(|(at, _)| needs >> at & 1 == 1).map(|(_, name)| *name).collect();
            let days =
                ["", "from = 2026-02-01", "until = 2026-06-30", "from = 2026-02-01\nuntil = 2026-06-30"][days % 4];
            law += &format!(
                "[[transfers]]\nid = \"r{number}\"\nform = \"{form}\"\nto = [\"{to}\"]\nexcept = [\"FR\"]\nbasis = \"b\"\n\
                 needs = {needs:?}\n{days}\n"
            );
        }
        set(&[regions, classes, &law, br])
    }

    proptest! {
        /// What the engine permits is what one of the ways allows.
        #[test]
        fn the_ways_are_those_of_the_engine(
            rows in prop::collection::vec((0..4_usize, 0..4_usize, 0..8_usize, 0..4_usize), 0..6),
            shown in 0..8_usize,
        ) {
            let policy = law(&rows);
            let law = &policy.regimes["union-law"];
            let shown: Vec<&str> =
                NEEDS.iter().enumerate().filter(|(at, _)| shown >> at & 1 == 1).map(|(_, name)| *name).collect();
            let proof = |name: &&str| {
                (name.parse().unwrap(), Proof { by: None, reference: "r".to_owned(), until: None })
            };
            let recipient: Conditions = shown.iter().map(proof).collect();
            for (place, day) in PLACES.iter().flat_map(|place| DAYS.map(|day| (*place, day.parse::<Date>().unwrap()))) {
                let place = policy.codes.parse(place).unwrap();
                let (on_expired, counters) = (OnExpired::Warn, ByCounter::default());
                let at_once = Shown { day, on_expired, recipient: &recipient, vouched: None, counters };
                for (_, form) in Form::NAMES {
                    let ways = law.ways(form, place, DAYS[0].parse().unwrap());
                    let allowed = ways.iter().any(|way| {
                        way.needs.iter().all(|need| shown.contains(&need.as_str()))
                            && way.from.is_none_or(|from| from <= day)
                            && way.until.is_none_or(|until| day <= until)
                    });
                    prop_assert_eq!(law.permits(form, place, &at_once).is_some(), allowed, "{} {:?} {}", place, form, day);
                }
            }
        }
    }

    #[test]
    fn places_that_are_treated_alike_stand_together() {
        let policy = set(&SET);
        let code = |code: &&str| policy.codes.parse(code).unwrap();
        let places = ["DE", "FR", "GB", "US", "JP", "KP"].iter().map(code).collect();
        let law = &policy.regimes["union-law"];
        let alike = |day: &str| {
            let line = |alike: &Alike| alike.places.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            law.alike(&places, day.parse().unwrap()).iter().map(line).collect::<Vec<_>>()
        };
        assert_eq!(alike("2026-06-30"), ["GB", "JP", "KP", "US", "DE FR"]);
        assert_eq!(alike("2026-07-01"), ["KP", "US", "DE FR", "GB JP"]);
    }
}
