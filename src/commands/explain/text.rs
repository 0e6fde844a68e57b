//! Explanations for people.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::domain::counting::{Name, Tally};
use crate::domain::fact::Kind;
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::knowledge::Reading;
use crate::domain::policy::{
    Applies, Denied, Explained, Explanation, Flow, OfFact, OnCounters, Permission, Piece, Ruling, Spoken,
    Told as OfFactTold, Verdict,
};
use crate::domain::refusal::Reason;

use super::Told;

pub(super) fn render(told: &Told<'_>) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let (here, policy) = (&told.version.here, told.version.digest());
    let serves = here.serves.join(", ");
    let _ = writeln!(text, "gateway in {}, keeps records under {serves}; policy {policy}", here.country);
    if let Some(lsn) = told.entry {
        let _ = writeln!(text, "entry {lsn} of the journal: {}", told.notes.join("\n  "));
    }
    match &told.asked {
        Some((identity, Ok(Spoken { producer, rule, .. }))) => {
            let _ = writeln!(text, "{identity} may write this as `{producer}`, by rule {rule}");
        }
        Some((identity, Err(Denied { rule, why }))) => {
            let _ = writeln!(
                text,
                "{identity} may not write this, by rule {rule}: {why}\nwhat follows would be decided if it might"
            );
        }
        None => {}
    }
    for explanation in &told.explanations {
        let _ = writeln!(text, "\nrecord {}", explanation.index);
        record(&mut text, explanation, told);
    }
    text
}

fn record(text: &mut String, explanation: &Explanation, told: &Told<'_>) {
    let ruling = match &explanation.outcome {
        Explained::NotAsked(refusal) => {
            let field = refusal.field.as_ref().map(|field| format!(", field `{field}`")).unwrap_or_default();
            let _ = writeln!(text, "  refused: {}{field}; the policies were not asked", refusal.reason.name());
            if let Some(hint) = refusal.hint {
                let _ = writeln!(text, "    {}", hint.advice());
            }
            return;
        }
        Explained::Ruled(ruling) => ruling,
    };
    text.push_str("  facts\n");
    for fact in explanation.facts.iter().filter(|fact| fact.told != OfFactTold::Untested) {
        of_fact(text, fact);
    }
    let untested = explanation.facts.iter().filter(|fact| fact.told == OfFactTold::Untested);
    let untested: Vec<&str> = untested.map(|fact| fact.fact.name()).collect();
    if !untested.is_empty() {
        let _ = writeln!(text, "    declared not to be tested: {}", untested.join(", "));
    }
    text.push_str("  regimes that apply\n");
    if explanation.regimes.is_empty() {
        text.push_str("    none\n");
    }
    for applies in &explanation.regimes {
        regime(text, applies);
    }
    verdict(text, ruling);
    if let Some(on) = &ruling.counters {
        counters(text, on);
    }
    if ruling.verdict == Verdict::Refuse(Reason::MayNotBeHere)
        && let Some(regimes) = told.served_by_no_peer(explanation)
    {
        let _ = writeln!(text, "    no peer serves all of its regimes: {}", regimes.join(", "));
    }
    if matches!(ruling.verdict, Verdict::Keep(_)) {
        text.push_str("  cells it is counted in\n");
        if told.flows.is_empty() {
            text.push_str("    no destination accepts a dataset of its stream\n");
        }
        for flow in &told.flows {
            cells(text, flow);
        }
    }
}

fn of_fact(text: &mut String, of_fact: &OfFact) {
    let name = of_fact.fact.name();
    let told = match &of_fact.told {
        OfFactTold::Known(known) => codes(known.iter()),
        OfFactTold::Unreadable => "unknown: evidence cannot be read".to_owned(),
        OfFactTold::Unknown => "unknown: no evidence is strong enough".to_owned(),
        OfFactTold::Contradiction => "contradiction: two strong pieces of evidence have nothing in common".to_owned(),
        OfFactTold::Untested => "declared not to be tested".to_owned(),
    };
    let _ = writeln!(text, "    {name}: {told}");
    for piece in &of_fact.pieces {
        let says = match &piece.reading {
            Reading::Absent => "says nothing".to_owned(),
            Reading::Unreadable => "cannot be read".to_owned(),
            Reading::Codes(said) => codes(said.iter()),
        };
        let trusted = if piece.trusted { "" } else { ", not trusted: it only adds" };
        let _ = writeln!(text, "      {}, strength {}{trusted}: {says}", evidence(piece), piece.strength);
    }
}

fn evidence(piece: &Piece) -> String {
    match (&piece.source, piece.kind) {
        (Some(source), kind) => format!("{} `{source}`", kind.name()),
        (None, Kind::Always) => "the operator's word".to_owned(),
        (None, Kind::Producer) => "the producer's declaration".to_owned(),
        (None, Kind::GeoIp) => "the network address".to_owned(),
        (None, kind) => kind.name().to_owned(),
    }
}

fn codes<'c>(codes: impl Iterator<Item = &'c Jurisdiction>) -> String {
    codes.map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn regime(text: &mut String, applies: &Applies) {
    let by = applies.rules.iter().cloned().collect::<Vec<_>>().join(", ");
    let only = if applies.by_facts { "" } else { " (only because of the gateway's country)" };
    let served = if applies.is_served { "served here" } else { "not served here" };
    let _ = writeln!(text, "    {}, {served}, by {by}{only}", applies.regime);
}

fn verdict(text: &mut String, ruling: &Ruling) {
    let rules = if ruling.rules.is_empty() { String::new() } else { format!(", by {}", ruling.rules.join(", ")) };
    let _ = match &ruling.verdict {
        Verdict::Keep(regimes) => {
            let regimes: Vec<&str> = regimes.iter().map(String::as_str).collect();
            writeln!(text, "  kept, under {}", regimes.join(", "))
        }
        Verdict::Redirect(peer) => {
            writeln!(text, "  belongs elsewhere: to {} in {}, {}{rules}", peer.id, peer.country, peer.endpoint)
        }
        Verdict::Quarantine => writeln!(text, "  held in quarantine{rules}"),
        Verdict::Refuse(Reason::NoRegime) => {
            writeln!(text, "  refused: no_regime: no regime applies by the record's own facts")
        }
        Verdict::Refuse(reason) => writeln!(text, "  refused: {}{rules}", reason.name()),
    };
}

/// Who is counted by that, and what becomes of a person for whom there is no room.
fn counters(text: &mut String, on: &OnCounters) {
    let shown = |tally: &Arc<Tally>| {
        let Name { counter, to } = &*tally.name;
        format!("{counter} to {to} (at most {} persons)", tally.most)
    };
    for claim in &on.claims {
        let counted: Vec<String> = claim.counted.iter().map(shown).collect();
        let _ = writeln!(text, "    the person is counted by {}", counted.join(", "));
        if !claim.ways.iter().any(Vec::is_empty) {
            let ways =
                claim.ways.iter().map(|way| way.iter().map(|tally| tally.name.counter.as_str()).collect::<Vec<_>>());
            let ways: Vec<String> = ways.map(|way| way.join(" and ")).collect();
            let _ = writeln!(text, "    only while there is room in {}", ways.join(", or in "));
        }
    }
    text.push_str("    without room:\n");
    verdict(text, &on.otherwise);
    if let Some(on) = &on.otherwise.counters {
        counters(text, on);
    }
}

fn cells(text: &mut String, flow: &Flow) {
    let may = match &flow.outlet {
        Some(outlet) => {
            let relaxed = outlet.by_override.as_ref().map(|id| format!(", lowered by {id}")).unwrap_or_default();
            format!("those of at least {} contributors{relaxed}", outlet.min_contributors)
        }
        None => "none".to_owned(),
    };
    let _ = writeln!(text, "    {} to {} ({}): {may}", flow.dataset, flow.destination, codes(flow.countries.iter()));
    if flow.answers.is_empty() {
        text.push_str("      no served regime covers it\n");
    }
    for (regime, permission) in &flow.answers {
        let _ = match permission {
            Permission::Allowed { rules, until, .. } => {
                let until = until.map(|until| format!(", until {until}")).unwrap_or_default();
                writeln!(text, "      allowed by {}{until}", rules.join(", "))
            }
            Permission::NotAllowed(country) => writeln!(text, "      no row of {regime} permits {country}"),
            Permission::TooStrong => writeln!(text, "      `max_form` of the destination is weaker"),
            Permission::NeedsNoise => writeln!(text, "      `rho_per_day` of {regime} asks for differential privacy"),
            Permission::WindowTooShort(_) => {
                writeln!(text, "      `min_window` of {regime} is longer than the windows, or than their `every`")
            }
        };
    }
}
