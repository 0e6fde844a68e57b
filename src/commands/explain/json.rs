//! Explanations for machines: a JSON object per line and record.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::commands::json::add;
use crate::domain::counting::Tally;
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::knowledge::Reading;
use crate::domain::policy::{
    Applies, Denied, Explained, Explanation, Flow, OfFact, Permission, Piece, Spoken, Told as OfFactTold, Verdict,
};
use crate::domain::refusal::{Hint, Reason};

use super::Told;

pub(super) fn render(told: &Told<'_>) -> String {
    let lines = told.explanations.iter().map(|explanation| format!("{}\n", record(explanation, told)));
    lines.collect()
}

fn record(explanation: &Explanation, told: &Told<'_>) -> Value {
    let mut value = json!({ "record": explanation.index });
    if let Some(lsn) = told.entry {
        add(&mut value, "lsn", json!(lsn));
        add(&mut value, "notes", json!(told.notes));
    }
    if let Some((identity, asked)) = &told.asked {
        let permission = match asked {
            Ok(Spoken { producer, rule, .. }) => {
                json!({ "is_allowed": true, "rule": &**rule, "producer": &**producer })
            }
            Err(Denied { rule, why }) => json!({ "is_allowed": false, "rule": &**rule, "why": why }),
        };
        add(&mut value, "identity", json!(identity));
        add(&mut value, "permission", permission);
    }
    add(&mut value, "policy", json!(told.version.digest().to_string()));
    let ruling = match &explanation.outcome {
        Explained::NotAsked(refusal) => {
            add(&mut value, "verdict", json!("refuse"));
            add(&mut value, "reason", json!(refusal.reason.name()));
            add(&mut value, "field", json!(refusal.field.as_deref()));
            add(&mut value, "hint", json!(refusal.hint.map(Hint::name)));
            add(&mut value, "advice", json!(refusal.hint.map(Hint::advice)));
            add(&mut value, "policies_asked", json!(false));
            return value;
        }
        Explained::Ruled(ruling) => ruling,
    };
    let (verdict, reason, route) = match &ruling.verdict {
        Verdict::Keep(_) => ("keep", None, None),
        Verdict::Redirect(peer) => ("redirect", None, Some(peer)),
        Verdict::Quarantine => ("quarantine", None, None),
        Verdict::Refuse(reason) => ("refuse", Some(reason.name()), None),
    };
    let route =
        route.map(|peer| json!({ "id": peer.id.as_str(), "country": code(&peer.country), "endpoint": peer.endpoint }));
    add(&mut value, "verdict", json!(verdict));
    add(&mut value, "reason", json!(reason));
    add(&mut value, "route", json!(route));
    add(&mut value, "rules", json!(ruling.rules.as_ref()));
    if let Some(on) = &ruling.counters {
        let ways = on.claims.iter().map(|claim| claim.ways.iter().map(|way| way.iter().map(tally).collect::<Value>()));
        let ways = ways.map(Iterator::collect::<Value>).collect::<Value>();
        let counted = on.claims.iter().flat_map(|claim| &claim.counted).map(tally).collect::<Value>();
        add(&mut value, "counters", json!({ "counted_by": counted, "room_in_one_of_each": ways }));
    }
    if matches!(ruling.verdict, Verdict::Refuse(Reason::MayNotBeHere)) {
        add(&mut value, "served_by_no_peer", json!(told.served_by_no_peer(explanation)));
    }
    add(&mut value, "policies_asked", json!(true));
    add(&mut value, "facts", explanation.facts.iter().map(of_fact).collect::<Value>());
    add(&mut value, "regimes", explanation.regimes.iter().map(regime).collect::<Value>());
    if verdict == "keep" {
        add(&mut value, "cells", told.flows.iter().map(cells).collect::<Value>());
    }
    value
}

fn tally(tally: &Arc<Tally>) -> Value {
    json!({ "counter": tally.name.counter, "to": tally.name.to, "persons_max": tally.most })
}

fn code(code: &Jurisdiction) -> String {
    code.to_string()
}

fn codes<'c>(codes: impl Iterator<Item = &'c Jurisdiction>) -> Vec<String> {
    codes.map(code).collect()
}

fn of_fact(of_fact: &OfFact) -> Value {
    let (finding, known) = match &of_fact.told {
        OfFactTold::Known(known) => ("known", codes(known.iter())),
        OfFactTold::Unreadable => ("unreadable", Vec::new()),
        OfFactTold::Unknown => ("unknown", Vec::new()),
        OfFactTold::Contradiction => ("contradiction", Vec::new()),
        OfFactTold::Untested => ("untested", Vec::new()),
    };
    let evidence: Vec<Value> = of_fact.pieces.iter().map(piece).collect();
    json!({ "fact": of_fact.fact.name(), "finding": finding, "codes": known, "evidence": evidence })
}

fn piece(piece: &Piece) -> Value {
    let (says, said) = match &piece.reading {
        Reading::Absent => ("nothing", Vec::new()),
        Reading::Unreadable => ("unreadable", Vec::new()),
        Reading::Codes(said) => ("codes", codes(said.iter())),
    };
    json!({
        "kind": piece.kind.name(),
        "source": piece.source,
        "strength": piece.strength,
        "trusted": piece.trusted,
        "says": says,
        "codes": said,
    })
}

fn regime(applies: &Applies) -> Value {
    json!({
        "id": applies.regime,
        "rules": applies.rules,
        "by_facts": applies.by_facts,
        "served": applies.is_served,
    })
}

fn cells(flow: &Flow) -> Value {
    let answers = flow.answers.iter().map(|(regime, permission)| match permission {
        Permission::Allowed { rules, until, .. } => {
            let until = until.map(|until| until.to_string());
            json!({ "regime": regime, "allowed": true, "rules": rules, "until": until })
        }
        Permission::NotAllowed(country) => json!({ "regime": regime, "allowed": false, "country": code(country) }),
        Permission::TooStrong => json!({ "regime": regime, "allowed": false, "max_form": true }),
        Permission::NeedsNoise => json!({ "regime": regime, "allowed": false, "rho_per_day": true }),
        Permission::WindowTooShort(_) => json!({ "regime": regime, "allowed": false, "min_window": true }),
    });
    json!({
        "dataset": flow.dataset.as_str(),
        "destination": flow.destination.as_str(),
        "countries": codes(flow.countries.iter()),
        "allowed": flow.outlet.is_some(),
        "min_contributors": flow.outlet.as_ref().map(|outlet| outlet.min_contributors),
        "override": flow.outlet.as_ref().and_then(|outlet| outlet.by_override.as_ref()),
        "answers": answers.collect::<Vec<_>>(),
    })
}
