//! What becomes law soon: rules that are dark until their first day.

use std::collections::BTreeSet;

use jiff::ToSpan as _;
use jiff::civil::Date;

use super::{EgressRow, PolicySet, Regime};

/// How far ahead one looks, in days.
const DAYS: i64 = 90;

/// A day on which something becomes law.
#[derive(Debug, Clone)]
pub struct Ahead {
    /// The day, UTC.
    pub day: Date,
    /// What begins, in the order of its text.
    pub begins: BTreeSet<String>,
    /// The regimes that can apply to records of a stream from that day on and could not before.
    pub regimes: BTreeSet<String>,
    /// What may leave on the day before and no longer on this one.
    pub stops: Vec<EgressRow>,
}

impl PolicySet {
    /// The days within 90 days after today on which something becomes law, and what each of them changes for a gateway that
    /// serves these regimes.
    #[must_use]
    pub fn ahead(&self, serves: &[String], today: Date) -> Vec<Ahead> {
        let last = today.checked_add(DAYS.days()).unwrap_or(Date::MAX);
        let soon = |day: &Date| today < *day && *day <= last;
        let days: BTreeSet<Date> = self.begins.iter().map(|dated| dated.day.value).filter(soon).collect();
        let of_day = |day: Date| Ahead {
            day,
            begins: self.begins.iter().filter(|dated| dated.day.value == day).map(|dated| dated.what.clone()).collect(),
            regimes: self.beginning(day),
            stops: self.stops(serves, day),
        };
        days.into_iter().map(of_day).collect()
    }

    /// The regimes that begin on a day and cover a stream.
    fn beginning(&self, day: Date) -> BTreeSet<String> {
        let covers = |law: &&Regime| self.streams.values().any(|plan| law.covers_class(&self.classes, &plan.classes));
        let beginning = self.regimes.values().filter(|law| law.begins() == Some(day));
        beginning.filter(covers).map(|law| law.id.clone()).collect()
    }

    /// What a regime begins to stop on a day. The day before it let this go, or had no say.
    fn stops(&self, serves: &[String], day: Date) -> Vec<EgressRow> {
        let before = self.egress(serves, day.yesterday().unwrap_or(day));
        let is_same = |row: &EgressRow, other: &EgressRow| {
            (&row.dataset, &row.destination, &row.regime) == (&other.dataset, &other.destination, &other.regime)
        };
        let was_denied =
            |row: &EgressRow| before.iter().any(|other| is_same(row, other) && !other.permission.is_allowed());
        let rows = self.egress(serves, day).into_iter();
        rows.filter(|row| !row.permission.is_allowed() && !was_denied(row)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::counting::NotCounted;
    use crate::domain::document::changed;
    use crate::domain::policy::PolicySet;
    use crate::domain::policy::explain::tests::{STREAM, version, visits};
    use crate::domain::policy::fixture::tests::{SET, set};

    fn day(day: &str) -> Date {
        day.parse().unwrap()
    }

    /// The sample's laws, of which that of Brazil begins on a day, and a row of that of the union on another.
    fn texts() -> [String; 5] {
        let [regions, classes, union, br] = SET.map(str::to_owned);
        let br = changed(&br, "as_of", "from = 2026-04-01\nas_of");
        let union = changed(&union, "basis = \"nobody is in it\"", "basis = \"nobody is in it\"\nfrom = 2026-03-01");
        [regions, classes, union, br, STREAM.to_owned()]
    }

    fn laws() -> PolicySet {
        set(&texts().each_ref().map(String::as_str))
    }

    #[test]
    fn what_begins_is_told_ninety_days_ahead_with_what_it_changes() {
        let laws = laws();
        let days = |serves: &[&str], today: &str| {
            let serves: Vec<String> = serves.iter().map(|&law| law.to_owned()).collect();
            let line = |ahead: &Ahead| {
                let stops: Vec<&str> = ahead.stops.iter().map(|row| row.destination.as_str()).collect();
                format!("{} {:?} {:?} {stops:?}", ahead.day, ahead.begins, ahead.regimes)
            };
            laws.ahead(&serves, day(today)).iter().map(line).collect::<Vec<_>>()
        };
        let row = "2026-03-01 {\"transfer `statistics` of regime `union-law`\"} {} []";
        let law = |stops: &str| format!("2026-04-01 {{\"regime `br-law`\"}} {{\"br-law\"}} {stops}");
        assert_eq!(days(&["union-law"], "2026-01-01"), [row.to_owned(), law("[]")]);
        // It lets nothing go to where the other one lets it go.
        assert_eq!(days(&["union-law", "br-law"], "2026-01-01"), [row.to_owned(), law("[\"desk\", \"far\"]")]);
        assert_eq!(days(&["union-law"], "2025-12-31"), [row.to_owned()]);
        assert_eq!(days(&["union-law"], "2025-11-30"), [""; 0]);
        // What has begun is not ahead.
        assert_eq!(days(&["union-law"], "2026-03-01"), [law("[]")]);
        assert_eq!(days(&["union-law"], "2026-04-01"), [""; 0]);
    }

    /// On the day before, on the day, and on the day after.
    #[test]
    fn a_rule_is_dark_before_its_first_day() {
        let texts = texts();
        let version = version(&texts.each_ref().map(String::as_str));
        let refusal = |on: &str| {
            let version = version.on(day(on));
            let from = crate::domain::evidence::Sender { producer: "p", address: None };
            let decided = version.decide(visits(&version, &[("BR", "")]), from, &mut NotCounted).unwrap();
            decided.refusals[0].reason.name()
        };
        // The gateway serves the law of the union, and Brazil's refuses what is met elsewhere.
        assert_eq!(refusal("2026-03-31"), "no_regime");
        assert_eq!(refusal("2026-04-01"), "may_not_be_here");
        assert_eq!(refusal("2026-04-02"), "may_not_be_here");
        let outlets = |serves: &[&str], on: &str| {
            let serves: Vec<String> = serves.iter().map(|&law| law.to_owned()).collect();
            let outlets = version.policy.outlets(&"visits_by_home".parse().unwrap(), &serves, day(on)).into_iter();
            outlets.map(|outlet| format!("{} {}", outlet.destination, outlet.min_contributors)).collect::<Vec<_>>()
        };
        // Without the row for statistics, what lets records go inside lets cells go there.
        assert_eq!(outlets(&["union-law"], "2026-02-28"), ["desk 10"]);
        assert_eq!(outlets(&["union-law"], "2026-03-01"), ["desk 10"]);
        // A law that is dark asks for nothing, not even for its number of contributors.
        assert_eq!(outlets(&["union-law", "br-law"], "2026-03-31"), ["desk 10"]);
        assert_eq!(outlets(&["union-law", "br-law"], "2026-04-01"), [""; 0]);
        assert_eq!(outlets(&["br-law"], "2026-03-31"), [""; 0]);
    }

    #[test]
    fn a_rule_does_not_end_before_it_begins() {
        let [regions, classes, union, ..] = SET;
        let law = changed(union, "basis = \"inside\"", "basis = \"inside\"\nfrom = 2026-03-01\nuntil = 2026-02-28");
        let problems = crate::domain::document::Problems::default();
        let files =
            [regions, classes, &law].map(|text| crate::domain::policy::fixture::tests::source("set.toml", text));
        super::super::read(&files, &problems);
        let said: Vec<String> = problems.into_vec().into_iter().map(|problem| problem.message).collect();
        assert_eq!(said, ["`until` is before `from`"]);
    }
}
