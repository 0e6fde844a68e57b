//! Lints: what can be used, and somebody should look at.

use jiff::civil::Date;

use crate::domain::document::Problems;
use crate::domain::evidence::{Evidence, Source};
use crate::domain::fact::Fact;

use super::regime::Regime;
use super::{PolicySet, StreamPlan};

/// Warns of what is past its day, of evidence that nobody supplies, and of rules that can never apply, as seen by a
/// gateway that serves these regimes.
pub fn lint(policy: &PolicySet, serves: &[String], day: Date, problems: &Problems) {
    for reviewed in policy.reviews.iter().filter(|reviewed| reviewed.day.value < day) {
        let message = format!("the facts of {} were to be reviewed by {}", reviewed.what, reviewed.day.value);
        problems.warn(&reviewed.day.place, message, "check them against the sources and set `as_of` and `review_by`");
    }
    for ended in policy.ends.iter().filter(|ended| ended.day.value < day) {
        let message = format!("{} ended on {}", ended.what, ended.day.value);
        problems.warn(&ended.day.place, message, "it permits nothing any more; renew it, or remove it");
    }
    for plan in policy.streams.values() {
        lint_evidence(policy, plan, problems);
        lint_scopes(policy, plan, serves, problems);
    }
}

/// Evidence that no record can have.
fn lint_evidence(policy: &PolicySet, plan: &StreamPlan, problems: &Problems) {
    for evidence in &plan.evidence {
        let fact = evidence.fact;
        let missing = match &evidence.source {
            Source::Producer => !policy.producers.values().any(|producer| producer.facts.contains_key(&fact)),
            _ => false,
        };
        if missing {
            let message = format!("no producer has `{}` in its `facts`", fact.name());
            problems.warn(&plan.place, message, "declare it in [producers.*], or remove the evidence");
        }
        let min_strength = policy.facts.min_strength;
        let kinds = |evidence: &&Evidence| evidence.fact == fact;
        let alone = plan
            .evidence
            .iter()
            .filter(kinds)
            .all(|other| other.strength < min_strength && other.source.kind() == evidence.source.kind());
        if alone {
            let message =
                format!("the evidence of `{}` is weaker than {min_strength} and of one kind only", fact.name());
            problems.warn(&plan.place, message, "every record of the stream is refused; add evidence of another kind");
        }
    }
}

/// Regimes that are served and that nothing can bring a record of the stream under.
fn lint_scopes(policy: &PolicySet, plan: &StreamPlan, serves: &[String], problems: &Problems) {
    let served = policy.regimes.values().filter(|regime| serves.contains(&regime.id));
    let can_apply = |regime: &Regime| {
        regime.applies.iter().any(|scope| {
            scope.fact == Fact::GatewayCountry || plan.evidence.iter().any(|evidence| evidence.fact == scope.fact)
        })
    };
    for regime in served.filter(|regime| regime.covers_class(&policy.classes, &plan.classes) && !can_apply(regime)) {
        let facts: Vec<&str> = regime.applies.iter().map(|scope| scope.fact.name()).collect();
        let message =
            format!("regime `{}` can never apply to `{}`: it tests {}", regime.id, plan.stream.name, facts.join(", "));
        problems.warn(&plan.place, message, "give one of these facts evidence");
    }
}
