//! Regimes: one law's rules, as dated data.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::civil::Date;

use crate::domain::fact::Fact;
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::proof::ConditionId;

use super::conditions::Shown;
use super::counter::Counter;
use super::form::{Form, Lasting};
use super::profile::Profile;

/// The ids of the regimes that apply to the same records.
pub type RegimeSet = Arc<BTreeSet<String>>;

/// A named, dated set of jurisdictions.
#[derive(Debug, Clone, Default)]
pub struct Region {
    /// The names that it was put together from: of regions, of codes, of systems.
    pub names: Vec<String>,
    /// Each code with the terms under which it belongs; any one is enough.
    pub codes: BTreeMap<Jurisdiction, Vec<Term>>,
}

/// Under which terms a code belongs to a region.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Term {
    /// The first day, UTC.
    pub from: Option<Date>,
    /// The last day, UTC.
    pub until: Option<Date>,
    /// Conditions, all of which must be shown.
    pub needs: Vec<ConditionId>,
    /// When the region's facts must be looked at again.
    pub review_by: Option<Date>,
    /// The paragraph that it rests on; empty where none is named.
    pub source: Arc<str>,
}

impl Region {
    /// A region of codes without terms.
    #[must_use]
    pub fn of(codes: impl IntoIterator<Item = Jurisdiction>) -> Self {
        Self { names: Vec::new(), codes: codes.into_iter().map(|code| (code, vec![Term::default()])).collect() }
    }

    /// Whether a candidate may lie in the region, whatever the terms: it or its country is listed, or it is a country of
    /// which a part is listed. For the scope of a regime, where one too many only tightens.
    #[must_use]
    pub fn may_hold(&self, candidate: Jurisdiction) -> bool {
        self.codes.contains_key(&candidate)
            || self.codes.contains_key(&candidate.country())
            || self.codes.keys().any(|code| code.country() == candidate)
    }

    /// The terms under which the whole of a place lies in the region today, if it does. Of several terms, they are the
    /// ones that hold longest.
    fn terms(&self, place: Jurisdiction, form: Form, shown: &Shown<'_>) -> Option<(Lasting, &Term)> {
        let lasting = self.terms_of(place).filter_map(|term| {
            let review = term.review_by.map_or(Lasting(None), |review_by| shown.until_review(form, review_by));
            Some((shown.lasting(term.from, term.until, &term.needs)?.and(review), term))
        });
        let lasting = lasting.filter(|(lasting, _)| Lasting(Some(shown.day)) <= *lasting);
        lasting.max_by(|(left, term), (right, other)| left.cmp(right).then(other.needs.len().cmp(&term.needs.len())))
    }

    /// The terms under which the whole of a place belongs to the region.
    pub fn terms_of(&self, place: Jurisdiction) -> impl Iterator<Item = &Term> {
        // A country is its own country: its terms come once.
        let listed = BTreeSet::from([place, place.country()]);
        listed.into_iter().filter_map(|code| self.codes.get(&code)).flatten()
    }

    /// Adds another region's codes.
    pub fn extend(&mut self, other: &Self) {
        for (code, terms) in &other.codes {
            self.codes.entry(*code).or_default().extend(terms.iter().cloned());
        }
    }
}

/// One data class.
#[derive(Debug, Clone, Default)]
pub struct Class {
    /// The classes it belongs to.
    pub parents: Vec<String>,
    /// Whether it is a special category, whose cells need more contributors.
    pub special: bool,
}

/// Data classes: a class covers itself and its descendants.
#[derive(Debug, Clone, Default)]
pub struct Classes(pub BTreeMap<String, Class>);

impl Classes {
    /// Whether `class` is `ancestor` or descends from it.
    #[must_use]
    pub fn covers(&self, ancestor: &str, class: &str) -> bool {
        self.with_ancestors(class).contains(ancestor)
    }

    /// Whether one of these classes is a special category, or descends from one.
    #[must_use]
    pub fn any_special(&self, classes: &BTreeSet<String>) -> bool {
        let special = |class: &&str| self.0.get(*class).is_some_and(|class| class.special);
        classes.iter().any(|class| self.with_ancestors(class).iter().any(special))
    }

    fn with_ancestors<'c>(&'c self, class: &'c str) -> BTreeSet<&'c str> {
        let mut waiting = vec![class];
        let mut seen = BTreeSet::new();
        while let Some(class) = waiting.pop() {
            if seen.insert(class) {
                let parents = self.0.get(class).map(|class| class.parents.as_slice()).unwrap_or_default();
                waiting.extend(parents.iter().map(String::as_str));
            }
        }
        seen
    }
}

/// What a regime wants done with a record that is not served here, the mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Misroute {
    /// Tell the producer where it belongs.
    Redirect,
    /// Hold it in memory for a while.
    Quarantine,
    /// Refuse it, and name no place.
    Refuse,
}

impl Misroute {
    /// Every choice with its name in the policy language.
    pub const NAMES: [(&'static str, Self); 3] =
        [("redirect", Self::Redirect), ("quarantine", Self::Quarantine), ("refuse", Self::Refuse)];
}

/// How strictly a regime keeps data where it was collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Localisation {
    /// It does not.
    None,
    /// Data may leave under a mechanism.
    Conditional,
    /// A copy must stay.
    Mirror,
    /// The first recording must be local.
    FirstStore,
    /// Data may not leave or be processed abroad.
    Strict,
}

impl Localisation {
    /// Every choice with its name in the policy language.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("none", Self::None),
        ("conditional", Self::Conditional),
        ("mirror", Self::Mirror),
        ("first-store", Self::FirstStore),
        ("strict", Self::Strict),
    ];
}

/// One test of a fact that brings a record under a regime.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The fact.
    pub fact: Fact,
    /// What it must be.
    pub within: Region,
    /// The first day on which it counts, UTC.
    pub from: Option<Date>,
    /// The paragraph that it rests on; empty where none is named.
    pub source: String,
}

/// One permitted outflow. There is no row that forbids: what no row permits is forbidden.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// Its id within the regime.
    pub id: String,
    /// The strongest form that may leave.
    pub form: Form,
    /// Where to. `None`: anywhere.
    pub to: Option<Region>,
    /// Where not to, whatever `to` says.
    pub except: Region,
    /// Why, in the law's words.
    pub basis: String,
    /// The terms under which the row holds.
    pub term: Term,
}

/// What a file says of its reading of a law, for those who check it. Nothing is decided by it.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    /// What a reader must know of the file.
    pub notice: String,
    /// How sure the reading is: `high`, `medium`, `low`.
    pub confidence: String,
    /// Where it says so.
    pub sources: Vec<String>,
    /// The names of record-keeping duties.
    pub records: Vec<String>,
    /// What is certain; empty where the file does not say.
    pub certain: String,
    /// What is not certain, and how it was read; empty where the file does not say.
    pub uncertain: String,
    /// What was left out, and why; empty where the file does not say.
    pub left_out: String,
}

/// One law's rules.
#[derive(Debug, Clone)]
pub struct Regime {
    /// Its id.
    pub id: String,
    /// The id of the law that it is of: its own, or, of a part, that of its file.
    pub law: String,
    /// Its name.
    pub name: String,
    /// What its file says of the reading.
    pub notes: Notes,
    /// The first day of the law. `None`: it is old.
    pub from: Option<Date>,
    /// What brings a record under it; any one that counts on the day is enough.
    pub applies: Vec<Scope>,
    /// The data classes it covers, with their descendants.
    pub classes: Vec<String>,
    /// How strictly it keeps data in place.
    pub localisation: Localisation,
    /// What it wants done with a record that is not served here.
    pub misroute: Misroute,
    /// The least number of contributors of a released cell.
    pub min_contributors: usize,
    /// The release profile that it names.
    pub release: Profile,
    /// What may leave.
    pub transfers: Vec<Transfer>,
    /// The limits that can be counted.
    pub counters: Vec<Arc<Counter>>,
    /// When its facts were checked.
    pub as_of: Date,
    /// When they must be looked at again.
    pub review_by: Date,
}

/// A row that permits an outflow.
#[derive(Debug, Clone)]
pub struct Permit<'r> {
    /// The row.
    pub row: &'r Transfer,
    /// How long it does.
    pub lasting: Lasting,
    /// The conditions that it rests on, those of the place among them, each once.
    pub needs: Vec<&'r ConditionId>,
}

impl Scope {
    /// Whether it counts on a day.
    #[must_use]
    pub fn is_in_force(&self, day: Date) -> bool {
        self.from.is_none_or(|from| from <= day)
    }
}

impl Regime {
    /// Whether the regime covers records of any of these classes.
    #[must_use]
    pub fn covers_class(&self, classes: &Classes, of_record: &BTreeSet<String>) -> bool {
        of_record.iter().any(|class| self.classes.iter().any(|covered| classes.covers(covered, class)))
    }

    /// Whether it can apply on a day: one of its scope tests counts by then. Before, it is dark.
    #[must_use]
    pub fn is_in_force(&self, day: Date) -> bool {
        self.applies.iter().any(|scope| scope.is_in_force(day))
    }

    /// The first day on which it can apply. `None`: it always could.
    #[must_use]
    pub fn begins(&self) -> Option<Date> {
        self.applies.iter().map(|scope| scope.from).min().flatten()
    }

    /// The rule ids of the tests that a fact of this value meets on a day.
    pub fn met(&self, fact: Fact, candidate: Jurisdiction, day: Date) -> impl Iterator<Item = String> {
        let tests = self.applies.iter().filter(move |scope| scope.fact == fact && scope.is_in_force(day));
        let met = tests.filter(move |scope| scope.within.may_hold(candidate));
        met.map(|scope| format!("{}/applies/{}", self.id, scope.fact.name()))
    }

    /// A row's rule id.
    #[must_use]
    pub fn rule(&self, row: &Transfer) -> String {
        format!("{}/transfers/{}", self.id, row.id)
    }

    /// The row that lets a form go to a place today, if there is one. Of several rows, it is the one that holds
    /// longest; then the one of the weakest form; then the first by id.
    #[must_use]
    pub fn permits(&self, form: Form, place: Jurisdiction, shown: &Shown<'_>) -> Option<Permit<'_>> {
        self.permitting(form, place, shown).max_by(|left, right| {
            let weaker = right.row.form.cmp(&left.row.form);
            left.lasting.cmp(&right.lasting).then(weaker).then_with(|| right.row.id.cmp(&left.row.id))
        })
    }

    /// Every row that lets a form go to a place today.
    pub(super) fn permitting(
        &self,
        form: Form,
        place: Jurisdiction,
        shown: &Shown<'_>,
    ) -> impl Iterator<Item = Permit<'_>> {
        let shown = shown.asked(&self.id, place);
        let rows = self.transfers.iter().filter(move |row| row.form >= form && !row.except.may_hold(place));
        rows.filter_map(move |row| {
            let (there, of_place): (_, &[ConditionId]) = match &row.to {
                None => (Lasting(None), &[]),
                Some(region) => region.terms(place, row.form, &shown).map(|(lasting, term)| (lasting, &*term.needs))?,
            };
            let review = shown.until_review(row.form, self.review_by);
            let here = shown.lasting(row.term.from, row.term.until, &row.term.needs)?;
            let lasting = there.and(here).and(review);
            let needs: BTreeSet<&ConditionId> = row.term.needs.iter().chain(of_place).collect();
            let needs = needs.into_iter().collect();
            (Lasting(Some(shown.day)) <= lasting).then_some(Permit { row, lasting, needs })
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A regime that applies by one fact and permits nothing.
    pub(in crate::domain::policy) fn regime(
        id: &str,
        fact: Fact,
        codes: impl IntoIterator<Item = Jurisdiction>,
    ) -> Regime {
        Regime {
            id: id.to_owned(),
            law: id.to_owned(),
            name: id.to_owned(),
            notes: Notes::default(),
            from: None,
            applies: vec![Scope { fact, within: Region::of(codes), from: None, source: String::new() }],
            classes: vec!["personal".to_owned()],
            localisation: Localisation::Conditional,
            misroute: Misroute::Redirect,
            min_contributors: 10,
            release: Profile::default(),
            transfers: Vec::new(),
            counters: Vec::new(),
            as_of: Date::constant(2026, 1, 1),
            review_by: Date::constant(2027, 1, 1),
        }
    }
}
