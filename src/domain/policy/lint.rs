//! Lints: what can be used, and somebody should look at.

use std::collections::BTreeMap;

use jiff::civil::Date;

use crate::domain::document::Problems;
use crate::domain::evidence::{Evidence, Source};
use crate::domain::fact::Fact;

use super::access::{Access, Right};
use super::regime::Regime;
use super::{Dated, PolicySet, StreamPlan};

/// Warns of dates that have passed, evidence that nobody supplies, rules that never apply, and permissions that should not be
/// together. `serves`: the gateway's regimes.
pub fn lint(policy: &PolicySet, serves: &[String], day: Date, problems: &Problems) {
    lint_reviews(policy, day, problems);
    for ended in policy.ends.iter().filter(|ended| ended.day.value < day) {
        let message = format!("{} ended on {}", ended.what, ended.day.value);
        problems.warn(&ended.day.place, message, "it no longer permits anything; renew it or remove it");
    }
    lint_access(&policy.access, problems);
    for plan in policy.streams.values() {
        lint_evidence(policy, plan, problems);
        lint_scopes(policy, plan, serves, problems);
    }
}

/// Reviews that are overdue. Many are due on one day, and one warning names all of them.
fn lint_reviews(policy: &PolicySet, day: Date, problems: &Problems) {
    let mut overdue: BTreeMap<Date, Vec<&Dated>> = BTreeMap::new();
    for reviewed in policy.reviews.iter().filter(|reviewed| reviewed.day.value < day) {
        overdue.entry(reviewed.day.value).or_default().push(reviewed);
    }
    for (due, reviews) in overdue {
        let [first, ..] = reviews.as_slice() else { continue };
        let what: Vec<&str> = reviews.iter().map(|reviewed| reviewed.what.as_str()).collect();
        let message = match what.as_slice() {
            [one] => format!("the facts of {one} were to be reviewed by {due}"),
            all => format!(
                "the facts of {} regimes and regions were to be reviewed by {due}: {}",
                all.len(),
                all.join(", ")
            ),
        };
        problems.warn(&first.day.place, message, "check them against the sources and set `as_of` and `review_by`");
    }
}

/// Identities that write records and read metrics. Counts are shown in steps; whoever adds records of his own until one
/// changes learns where a step begins.
fn lint_access(access: &Access, problems: &Problems) {
    for reads in access.rules.iter().filter(|rule| rule.read.contains(&Right::Metrics)) {
        let both = access.rules.iter().filter(|rule| !rule.write.is_empty()).find_map(|writes| {
            let pairs = reads.identities.iter().flat_map(|one| writes.identities.iter().map(move |other| (one, other)));
            let (one, other) = pairs.into_iter().find(|(one, other)| one.meets(other))?;
            Some((writes, if one.is_open() { other } else { one }))
        });
        if let Some((writes, identity)) = both {
            let (reads_id, writes_id) = (&reads.id, &writes.id);
            problems.warn(
                &reads.place,
                format!("`{identity}` may read metrics (rule `{reads_id}`) and write records (rule `{writes_id}`)"),
                "with records of its own it can learn from the metrics how many others a cell has: let other identities read them",
            );
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::document::{Source as File, changed};

    const POLICY: &str = r#"
schema = "bailiwick.policy/1"
[[shown]]
conditions = ["approval.counsel"]
for   = { stream = "events" }
by    = "counsel"
ref   = "C-1"
until = 2026-06-30
[streams.events]
event_time  = "at"
contributor = "person"
untested    = ["subject.citizenship"]
[streams.events.facts]
"subject.residence" = [{ phone = "phone", strength = 40 }]
"collection.place"  = [{ producer = true, strength = 90 }]
[streams.events.fields]
at     = { type = "timestamp", class = "personal" }
person = { type = "string", class = "personal" }
phone  = { type = "string", class = "personal" }
"#;

    const REGIME: &str = r#"
schema       = "bailiwick.regime/1"
id           = "law"
name         = "law"
notice       = "n"
as_of        = 2026-01-01
review_by    = 2026-12-31
confidence   = "high"
sources      = ["s"]
classes      = ["personal"]
localisation = "none"
misroute     = "redirect"
[[applies]]
fact = "subject.citizenship"
in   = ["DE"]
[[transfers]]
id    = "counsel"
form  = "statistical"
to    = ["any"]
basis = "b"
needs = ["approval.counsel"]
until = 2026-09-30
"#;

    fn lints(policy: &str, day: Date) -> Vec<String> {
        let classes = "schema = \"bailiwick.classes/1\"\n[classes.personal]\nabout = \"a\"\n";
        let files = [("classes.toml", classes), ("law.toml", REGIME), ("policy.toml", policy)];
        let files = files.map(|(path, text)| Arc::new(File::new(path, text)));
        let problems = Problems::default();
        let policy = crate::domain::policy::read(&files, &problems);
        lint(&policy, &["law".to_owned()], day, &problems);
        let problems = problems.into_vec();
        problems
            .iter()
            .map(|problem| format!("{}:{}: {}", problem.place.file.path, problem.place.line(), problem.message))
            .collect()
    }

    #[test]
    fn what_no_record_can_have_and_what_can_never_apply_is_said() {
        let found = lints(POLICY, Date::constant(2026, 6, 30));
        assert_eq!(
            found,
            [
                "policy.toml:9: the evidence of `subject.residence` is weaker than 60 and of one kind only",
                "policy.toml:9: no producer has `collection.place` in its `facts`",
                "policy.toml:9: regime `law` can never apply to `events`: it tests subject.citizenship",
            ]
        );
        let fields = "[streams.events.fields]";
        let citizenship = "\"subject.citizenship\" = [{ phone = \"phone\", strength = 60 }]\n";
        let changes = [
            ("strength = 40", "strength = 60"),
            ("producer = true", "always = [\"DE\"]"),
            ("untested    = [\"subject.citizenship\"]\n", ""),
            (fields, &format!("{citizenship}{fields}")),
        ];
        let better = changes.iter().fold(POLICY.to_owned(), |text, (from, to)| changed(&text, from, to));
        assert_eq!(lints(&better, Date::constant(2026, 6, 30)), Vec::<String>::new());
    }

    #[test]
    fn reviews_that_were_due_on_one_day_are_one_warning() {
        let region = |name: &str, due: &str| {
            let dates = format!("as_of = 2026-01-01\nreview_by = {due}\n");
            format!("[regions.{name}]\n{dates}sources = [\"s\"]\ncodes = [\"DE\"]\n")
        };
        let regions =
            [("a", "2026-08-31"), ("b", "2026-12-31"), ("c", "2026-08-31")].map(|(name, due)| region(name, due));
        let text = format!("schema = \"bailiwick.regions/1\"\n{}", regions.concat());
        let said = |day| {
            let (problems, files) = (Problems::default(), [Arc::new(File::new("regions.toml", text.as_str()))]);
            let policy = crate::domain::policy::read(&files, &problems);
            lint(&policy, &[], day, &problems);
            let problems = problems.into_vec();
            problems.iter().map(|problem| format!("{}: {}", problem.place.line(), problem.message)).collect::<Vec<_>>()
        };
        assert_eq!(said(Date::constant(2026, 8, 31)), Vec::<String>::new());
        let two = "4: the facts of 2 regimes and regions were to be reviewed by 2026-08-31: region `a`, region `c`";
        assert_eq!(said(Date::constant(2026, 9, 1)), [two]);
        let one = "9: the facts of region `b` were to be reviewed by 2026-12-31";
        assert_eq!(said(Date::constant(2027, 1, 1)), [two, one]);
    }

    #[test]
    fn who_writes_and_reads_metrics_is_said() {
        let access = |read: &str| {
            let rules = "[permissions.all]\nidentities = [\"spiffe://c.example/tills/*\"]\nwrite = [\"events\"]\n";
            let reads = format!("[permissions.watch]\nidentities = [{read}]\nread = [\"metrics\"]\n");
            let found = lints(&format!("{POLICY}{rules}{reads}"), Date::constant(2026, 6, 30));
            found.into_iter().filter(|lint| lint.contains("metrics")).collect::<Vec<_>>()
        };
        assert_eq!(access("\"spiffe://c.example/prometheus\", \"spiffe://c.example/watch/*\""), Vec::<String>::new());
        let said = "may read metrics (rule `watch`) and write records (rule `all`)";
        for (read, who) in [("tills/7", "tills/7"), ("tills/*", "tills/*")] {
            let found = access(&format!("\"spiffe://c.example/prometheus\", \"spiffe://c.example/{read}\""));
            assert!(found.len() == 1 && found[0].ends_with(&format!("`spiffe://c.example/{who}` {said}")), "{found:?}");
        }
    }

    #[test]
    fn what_has_ended_or_is_to_be_reviewed_is_said_from_the_day_after() {
        let about_time =
            |day| lints(POLICY, day).into_iter().filter(|lint| lint.contains(" 2026-")).collect::<Vec<_>>();
        assert_eq!(about_time(Date::constant(2026, 6, 30)), Vec::<String>::new());
        assert_eq!(
            about_time(Date::constant(2026, 7, 1)),
            ["policy.toml:4: what shows `approval.counsel` of stream events ended on 2026-06-30"]
        );
        assert_eq!(
            about_time(Date::constant(2027, 1, 1)),
            [
                "law.toml:7: the facts of regime `law` were to be reviewed by 2026-12-31",
                "law.toml:22: transfer `counsel` of regime `law` ended on 2026-09-30",
                "policy.toml:4: what shows `approval.counsel` of stream events ended on 2026-06-30",
            ]
        );
    }
}
