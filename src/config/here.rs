//! Whether the gateway may be where it is, and what is shown of it and its peers.

use jiff::civil::Date;

use crate::domain::document::{Problems, Spot, hint};
use crate::domain::name::{GatewayId, StreamName};
use crate::domain::policy::{ConditionId, Form, Holder, OnExpired, PolicySet, Regime, Shown};

use super::counted;
use super::read::{Declared, shown};

const ELSEWHERE: &str = "serve it from a gateway where it does, or show the conditions: `dest.*` in [gateway.conditions], \
                         the others in [[shown]] of the policies, or by a counter in [[counted]], which counts a stream \
                         with `contributor_is_person = true`";
/// It did, until the day of a review.
const OVERDUE: &str = "a review is overdue, as a warning says: check the law and its regions against the sources, and set \
                       `as_of` and `review_by`; to try things out, say `on_expired = \"warn\"` in [review] of a policy";

/// A gateway may hold the records of each stream under the regimes it serves, and what is shown of it and its peers is
/// needed somewhere.
pub(super) fn check(declared: &Declared, policy: &PolicySet, today: Date, problems: &Problems) {
    let peers = || declared.peers.iter();
    for (name, _) in declared.conditions.iter().chain(peers().flat_map(|peer| &peer.conditions)) {
        check_needed(name, policy, problems);
    }
    let Some((id, country)) = declared.id.as_ref().zip(declared.country.as_ref()) else { return };
    for named in &policy.shown_of_gateways {
        if named.value != id.value && peers().all(|peer| peer.id.value != named.value) {
            let message = format!("no gateway is called `{}` here: what is shown of it counts for nobody", named.value);
            problems.warn(&named.place, message, "write this gateway's id, or that of one of its [[peers]]");
        }
    }
    // An id that is no name is reported where it is read.
    let Ok(own) = GatewayId::new(&id.value) else { return };
    let conditions = shown(&declared.conditions);
    let holder = Holder { id: &own, country: country.value, conditions: &conditions };
    counted::check(declared, holder, &id.place, policy, today, problems);
    for served in &declared.serves {
        let Some(regime) = policy.regimes.get(&served.value) else { continue };
        // A law that does not hold yet is looked at on its first day.
        let day = regime.begins().map_or(today, |begins| begins.max(today));
        for stream in streams(policy, regime) {
            let shown = policy.shown_and_counted(stream, holder, holder.id, day);
            if regime.permits(Form::Identifiable, country.value, &shown).is_none() {
                let of_stream = stream.map_or_else(String::new, |stream| format!(" of stream `{stream}`"));
                let message =
                    format!("regime `{}` lets no identifiable record{of_stream} be in {}", regime.id, country.value);
                let reviewed = Shown { on_expired: OnExpired::Warn, ..shown };
                let is_overdue = regime.permits(Form::Identifiable, country.value, &reviewed).is_some();
                let help = if is_overdue { OVERDUE } else { ELSEWHERE };
                problems.error_help(&served.place, message, help);
            }
        }
    }
}

/// The streams whose records a regime covers. Where there is none, the regime is asked about one that is not declared, of
/// which nothing is shown.
fn streams<'p>(policy: &'p PolicySet, regime: &Regime) -> Vec<Option<&'p StreamName>> {
    let covered = policy.streams.values().filter(|plan| regime.covers_class(&policy.classes, &plan.classes));
    let covered: Vec<_> = covered.map(|plan| Some(&plan.stream.name)).collect();
    if covered.is_empty() { vec![None] } else { covered }
}

fn check_needed(name: &Spot<String>, policy: &PolicySet, problems: &Problems) {
    if !policy.needed.contains(name.value.as_str()) {
        let needed: Vec<&str> = policy.needed.iter().map(ConditionId::as_str).collect();
        let message = format!("no regime and no region needs `{}`", name.value);
        problems.error_help(&name.place, message, hint(&name.value, &needed));
    }
}
