//! Whether the counters of a gateway can be what the deployment says of them.

use jiff::civil::Date;

use crate::domain::counting::PERSONS_MAX;
use crate::domain::document::{Problems, Spot};
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::name::GatewayId;
use crate::domain::policy::{Conditions, Counted, Per, PolicySet, Regime};

use super::read::Declared;

/// The counters of this gateway fit into its memory, and are not used up by what they cannot stop.
pub(super) fn check(
    declared: &Declared,
    (id, country): (&Spot<String>, Jurisdiction),
    own: &Conditions,
    (policy, today): (&PolicySet, Date),
    problems: &Problems,
) {
    check_memory((id, declared.peers.len() as u64), policy, problems);
    let peers: Vec<(&str, Jurisdiction, Conditions)> = declared
        .peers
        .iter()
        .map(|peer| (peer.id.value.as_str(), peer.country, conditions(&peer.conditions)))
        .collect();
    let peers = peers.iter().map(|(id, country, conditions)| (*id, *country, conditions));
    let places: Vec<_> = [(id.value.as_str(), country, own)].into_iter().chain(peers).collect();
    for (regime_id, counted) in policy.counted.get(id.value.as_str()).into_iter().flatten() {
        let Some(regime) = policy.regimes.get(regime_id) else { continue };
        for counted in counted {
            check_one((id, counted, regime), &places, (policy, today), problems);
        }
    }
}

pub(super) fn conditions(declared: &[(Spot<String>, crate::domain::proof::Proof)]) -> Conditions {
    declared.iter().map(|(name, proof)| (name.value.clone(), proof.clone())).collect()
}

/// Each counter may have to keep apart as many persons as its share, for the gateway itself and for every peer.
fn check_memory((id, peers): (&Spot<String>, u64), policy: &PolicySet, problems: &Problems) {
    let counted = policy.counted.get(id.value.as_str()).into_iter().flat_map(|regimes| regimes.values().flatten());
    let persons = counted.map(|counted| match counted.counter.per {
        Per::All => counted.share,
        Per::Country | Per::Recipient => counted.share.saturating_mul(peers.saturating_add(1)),
    });
    let persons = persons.fold(0, u64::saturating_add);
    if persons > PERSONS_MAX {
        let message = format!("the counters of gateway `{}` may have to keep {persons} persons apart", id.value);
        let help = format!("a gateway keeps at most {PERSONS_MAX} apart: make the shares in [[counted]] smaller");
        problems.error_help(&id.place, message, help);
    }
}

/// What uses a counter up although the counter does not let it go.
fn check_one(
    (id, counted, regime): (&Spot<String>, &Counted, &Regime),
    places: &[(&str, Jurisdiction, &Conditions)],
    (policy, today): (&PolicySet, Date),
    problems: &Problems,
) {
    let Ok(keeps) = GatewayId::new(&id.value) else { return };
    let counter = &counted.counter;
    let rule = regime.counter_rule(counter);
    let covered = policy.streams.values().filter(|plan| regime.covers_class(&policy.classes, &plan.classes));
    for plan in covered {
        let stream = plan.stream.name.as_str();
        let past: Vec<(&str, String)> = places
            .iter()
            .flat_map(|place| {
                let rows = policy.rows_past((&keeps, today), (regime, counter), stream, *place);
                rows.into_iter().map(move |row| (place.0, row))
            })
            .collect();
        let by = || past.iter().map(|(to, row)| format!("{row} to {to}")).collect::<Vec<_>>().join(", ");
        if !plan.contributor_is_person {
            let uses_it_up = if past.is_empty() {
                String::new()
            } else {
                format!("; those that go by {} leave it without room for anybody", by())
            };
            let message = format!(
                "`{rule}` lets no record of stream `{stream}` go: its contributors may be several persons{uses_it_up}"
            );
            let help = "if each contributor is one person, say `contributor_is_person = true` in the stream; otherwise vouch \
                        for the condition in [[shown]]";
            problems.warn(&plan.place, message, help);
            continue;
        }
        let others = policy.counted.iter().filter(|(other, _)| **other != keeps);
        // Parts of a law have one limit.
        let is_of_law = |id: &String| policy.regimes.get(id).is_some_and(|other| other.law == regime.law);
        let is_shared = others
            .flat_map(|(_, regimes)| regimes.iter().filter(|(id, _)| is_of_law(id)))
            .flat_map(|(_, counted)| counted)
            .any(|other| other.counter.condition == counter.condition);
        if is_shared && !past.is_empty() {
            let message = format!(
                "records of stream `{stream}` go by {} too, which `{rule}` counts and does not stop: they may take gateway `{}` \
                 beyond its share of {}, and the other gateways do not know",
                by(),
                id.value,
                counted.share
            );
            let help = "give this gateway a share that its other rows cannot exceed, or let one gateway alone keep the counter";
            problems.warn(&id.place, message, help);
        }
    }
}
