//! What came of a send: counts, why records were not taken in, and where the first of them stands.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::Clock;
use crate::commands::json::add;
use crate::domain::printable;
use crate::ingress::proto::ingest::{Hint, Reason, Refusal};

/// Totals that grow while records are sent.
pub type SharedTotals = Arc<Mutex<Totals>>;

/// What came of a send so far.
#[derive(Debug, Default, Clone)]
pub struct Totals {
    /// Records read from the inputs, malformed ones included.
    pub read: u64,
    /// Records taken in, by whichever gateway.
    pub accepted: u64,
    /// Records that an interrupted send had made durable already.
    pub durable_before: u64,
    /// Records that were refused, by what for.
    pub refused: BTreeMap<Kind, Tally>,
    /// What is no record, by what is wrong.
    pub malformed: BTreeMap<String, Tally>,
    /// Records that belong to a gateway that does not answer, by gateway.
    pub unreachable: BTreeMap<String, Tally>,
    /// Records that an interrupted send was answered, and nobody remembers how.
    pub unknown: Tally,
    /// Records that were sent on, by gateway.
    pub redirected: BTreeMap<String, u64>,
    /// Values of undeclared fields that were dropped.
    pub dropped_values: u64,
    /// Bytes of payload sent.
    pub bytes: u64,
    /// What is being waited for.
    pub(super) waiting: Option<Waiting>,
    /// Who was waited for last, and in vain.
    pub(super) given_up: Option<String>,
    /// What is to be said and was not yet.
    pub(super) notices: Vec<String>,
}

/// Why a record was refused.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// The reason's name.
    pub reason: String,
    /// The field at fault, or nothing.
    pub field: String,
    /// The ids of the rules that determined it.
    pub rules: Vec<String>,
    /// What to change, or nothing.
    pub hint: String,
}

/// How many records, and where the first of them stands.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// The first.
    pub first: Option<Place>,
}

/// Where a record stands. The order is that of the inputs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The number of its batch.
    pub batch: u64,
    /// The line in its input, from 1.
    pub line: u64,
    /// The input.
    pub name: Arc<str>,
}

/// Somebody who does not answer now.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) whom: String,
    pub(super) why: String,
    pub(super) since: Clock,
    /// For how long at most; `None`: as long as it is connected.
    pub(super) patience: Option<Duration>,
}

/// How many kinds of refusals are told apart: names of undeclared fields are the producer's, and may be many.
const KINDS_MAX: usize = 1000;

impl Tally {
    /// Adds records, of which the first stands at a place.
    pub(super) fn add(&mut self, count: u64, first: Option<Place>) {
        self.count += count;
        self.first = match (self.first.take(), first) {
            (Some(known), Some(other)) => Some(known.min(other)),
            (known, other) => known.or(other),
        };
    }

    fn text(&self) -> String {
        let first = self.first.as_ref().map(|first| format!("; the first at {}:{}", first.name, first.line));
        format!("{}{}", self.count, first.unwrap_or_default())
    }

    fn json(&self, mut members: Value) -> Value {
        let first = self.first.as_ref().map(|first| format!("{}:{}", first.name, first.line));
        add(&mut members, "count", self.count);
        add(&mut members, "first", first);
        members
    }
}

impl Kind {
    /// What a refusal says.
    pub(in crate::commands) fn of(refusal: &Refusal) -> Self {
        let hint = Hint::try_from(refusal.hint).unwrap_or_default();
        let hint = if hint == Hint::Unspecified { "" } else { hint.as_str_name() };
        Self {
            reason: reason_name(Reason::try_from(refusal.reason).unwrap_or_default().as_str_name()),
            field: refusal.field.clone(),
            rules: refusal.rules.clone(),
            hint: hint.trim_start_matches("HINT_").to_ascii_lowercase(),
        }
    }

    fn text(&self) -> String {
        let Self { reason, field, rules, hint } = self;
        let mut text = reason.clone();
        // Writing to a string does not fail.
        if !field.is_empty() {
            let _ = write!(text, ", field `{field}`");
        }
        if !rules.is_empty() {
            let _ = write!(text, ", by {}", rules.join(", "));
        }
        if !hint.is_empty() {
            let _ = write!(text, " ({hint})");
        }
        text
    }
}

/// A reason of the wire as metrics and pages name it.
pub(in crate::commands) fn reason_name(on_wire: &str) -> String {
    on_wire.trim_start_matches("REASON_").to_ascii_lowercase()
}

/// The totals so far.
#[must_use]
pub fn snapshot(totals: &SharedTotals) -> Totals {
    totals.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

impl Totals {
    /// Counts refused records.
    pub(super) fn refuse(&mut self, mut kind: Kind, count: u64, first: Option<Place>) {
        if self.refused.len() >= KINDS_MAX && !self.refused.contains_key(&kind) {
            kind = Kind { reason: kind.reason, ..Kind::default() };
        }
        self.refused.entry(kind).or_default().add(count, first);
    }

    /// How many records were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.values().map(|tally| tally.count).sum()
    }

    /// How many records were refused for each reason, or could not be sent on.
    #[must_use]
    pub fn refused_by_reason(&self) -> BTreeMap<String, u64> {
        let mut by_reason: BTreeMap<String, u64> = BTreeMap::new();
        for (kind, tally) in &self.refused {
            *by_reason.entry(kind.reason.clone()).or_default() += tally.count;
        }
        for (gateway, tally) in &self.unreachable {
            by_reason.insert(format!("belongs_elsewhere, unreachable: {gateway}"), tally.count);
        }
        by_reason
    }

    /// Whether every record that was read is known to be taken in; refused ones may be allowed.
    pub(super) fn all_taken_in(&self, allow_refused: bool) -> bool {
        let none_refused = self.refused.is_empty() && self.malformed.is_empty();
        (none_refused || allow_refused) && self.unreachable.is_empty() && self.unknown.count == 0
    }

    /// The totals for people.
    pub(super) fn text(&self) -> String {
        let Self { read, accepted, bytes, .. } = self;
        let mut lines = vec![format!("{read} records read, {accepted} accepted, {bytes} bytes sent")];
        if self.durable_before > 0 {
            lines.push(format!("durable already: {}", self.durable_before));
        }
        lines.extend(self.redirected.iter().map(|(gateway, count)| format!("sent on to {gateway}: {count}")));
        lines.extend(self.refused.iter().map(|(kind, tally)| format!("refused, {}: {}", kind.text(), tally.text())));
        lines.extend(self.malformed.iter().map(|(what, tally)| format!("no record, {what}: {}", tally.text())));
        let unreachable = self.unreachable.iter();
        lines.extend(
            unreachable.map(|(gateway, tally)| format!("not sent, {gateway} is unreachable: {}", tally.text())),
        );
        if self.unknown.count > 0 {
            lines.push(format!("answered before, outcome not known: {}", self.unknown.text()));
        }
        if self.dropped_values > 0 {
            lines.push(format!("values of undeclared fields that were dropped: {}", self.dropped_values));
        }
        let lines: Vec<String> = lines.iter().map(|line| printable::line(line).into_owned()).collect();
        lines.join("\n  ") + "\n"
    }

    /// The totals for programs.
    pub(super) fn json(&self) -> Value {
        let refused = self.refused.iter().map(|(Kind { reason, field, rules, hint }, tally)| {
            let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            tally.json(json!({"reason": reason, "field": given(field), "rules": rules, "hint": given(hint)}))
        });
        let malformed = self.malformed.iter().map(|(what, tally)| tally.json(json!({ "what": what })));
        let unreachable = self.unreachable.iter().map(|(gateway, tally)| tally.json(json!({ "gateway": gateway })));
        json!({
            "read": self.read,
            "accepted": self.accepted,
            "durable_before": self.durable_before,
            "refused": refused.collect::<Vec<_>>(),
            "malformed": malformed.collect::<Vec<_>>(),
            "unreachable": unreachable.collect::<Vec<_>>(),
            "outcome_not_known": self.unknown.json(json!({})),
            "sent_on": self.redirected,
            "dropped_values": self.dropped_values,
            "bytes": self.bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(batch: u64, line: u64) -> Option<Place> {
        Some(Place { batch, line, name: "a.csv".into() })
    }

    fn kind(reason: &str, field: &str) -> Kind {
        Kind { reason: reason.to_owned(), field: field.to_owned(), ..Kind::default() }
    }

    #[test]
    fn refusals_are_told_by_what_for_and_where_the_first_stands() {
        let mut totals = Totals { read: 9, accepted: 3, ..Totals::default() };
        totals.refuse(kind("wrong_type", "n"), 1, place(2, 17));
        totals.refuse(kind("wrong_type", "n"), 2, place(1, 4));
        totals.refuse(kind("wrong_type", "x"), 1, place(3, 30));
        let rules = vec!["eu-gdpr/misroute".to_owned()];
        totals.refuse(Kind { rules, ..kind("may_not_be_here", "") }, 1, place(1, 2));
        totals.refuse(Kind { hint: "time_zone_missing".to_owned(), ..kind("wrong_type", "at") }, 1, place(1, 9));
        assert_eq!(
            totals.text(),
            "9 records read, 3 accepted, 0 bytes sent\n  \
             refused, may_not_be_here, by eu-gdpr/misroute: 1; the first at a.csv:2\n  \
             refused, wrong_type, field `at` (time_zone_missing): 1; the first at a.csv:9\n  \
             refused, wrong_type, field `n`: 3; the first at a.csv:4\n  \
             refused, wrong_type, field `x`: 1; the first at a.csv:30\n"
        );
        assert_eq!(totals.refused_by_reason()["wrong_type"], 5);
        assert_eq!(totals.json()["refused"][2]["first"], "a.csv:4");
    }

    #[test]
    fn names_cannot_forge_a_line_and_are_bounded() {
        let mut totals = Totals::default();
        totals.refuse(kind("undeclared_field", "a\n\u{1b}[2Jb"), 1, None);
        assert!(totals.text().ends_with("field `a\\n\\u{1b}[2Jb`: 1\n"), "{}", totals.text());
        for field in 0..3000 {
            totals.refuse(kind("undeclared_field", &field.to_string()), 1, None);
        }
        assert!(totals.refused.len() <= KINDS_MAX + 1);
        assert_eq!(totals.refused(), 3001);
    }

    #[test]
    fn only_what_was_refused_can_be_allowed() {
        let mut totals = Totals::default();
        assert!(totals.all_taken_in(false));
        totals.refuse(kind("wrong_type", "n"), 1, None);
        assert!(!totals.all_taken_in(false) && totals.all_taken_in(true));
        let mut unknown = totals.clone();
        unknown.unknown.add(1, None);
        assert!(!unknown.all_taken_in(true));
        totals.unreachable.entry("us".to_owned()).or_default().add(1, None);
        assert!(!totals.all_taken_in(true));
    }
}
