//! `bailiwick check`: everything that is wrong, and what may leave.

use std::fmt::Write as _;
use std::path::Path;

use jiff::civil::Date;
use serde_json::{Value, json};

use crate::app;
use crate::config::{Config, Destination, Mode, today};
use crate::domain::dataset::Dataset;
use crate::domain::document::{Place, Problem, Severity};
use crate::domain::name::DestinationName;
use crate::domain::policy::{EgressRow, Outlet, Override, Permission, PolicySet, Rule, StreamPlan};
use crate::domain::printable;

use super::table::table;
use super::{Failure, diagnostics, json as machine};

mod ahead;
mod budgets;
mod grounds;
mod limits;
mod noise;

/// Checks the configuration, the policies and the models. The report for stdout, as one JSON object if it is for a
/// machine.
///
/// # Errors
/// [`Failure::Config`] or [`Failure::Unusable`] when the files are wrong, another one when a model cannot be used.
pub fn check(path: &Path, is_json: bool) -> Result<String, Failure> {
    let loaded = super::loaded(path, app::load(path));
    if !is_json {
        diagnostics::print(&loaded.problems);
    }
    let Some(config) = loaded.config else {
        return Err(match is_json {
            true => Failure::Unusable(machine::print(&json!({ "problems": machine::problems(&loaded.problems) }))),
            false => Failure::Config,
        });
    };
    let (today, journal) = (today(), app::check_journal(&config).and_then(|()| app::check_counters(&config)));
    let noticed = |said: Vec<String>| -> Vec<Problem> {
        said.into_iter().map(|message| of_journal(&config, Severity::Warning, &message)).collect()
    };
    match (is_json, journal) {
        (false, Ok(said)) => {
            diagnostics::print(&noticed(said));
            Ok(for_people(&config, today))
        }
        (false, Err(error)) => Err(error.into()),
        (true, Ok(said)) => {
            let problems: Vec<Problem> = loaded.problems.into_iter().chain(noticed(said)).collect();
            Ok(machine::print(&for_machines(&config, today, &problems)))
        }
        (true, Err(error)) => {
            let problem = of_journal(&config, Severity::Error, &format!("{error:#}"));
            let problems: Vec<Problem> = loaded.problems.into_iter().chain([problem]).collect();
            Err(Failure::Found(machine::print(&for_machines(&config, today, &problems))))
        }
    }
}

/// What is wrong with the journal, as a problem of the file that names it.
fn of_journal(config: &Config, severity: Severity, message: &str) -> Problem {
    let place = Place { key: "journal".to_owned(), ..config.places.gateway.clone() };
    Problem { severity, place, message: printable::lines(message).into_owned(), help: None }
}

/// What may leave, and how.
struct Egress {
    row: EgressRow,
    outlet: Option<Outlet>,
}

fn egress(policy: &PolicySet, serves: &[String], today: Date) -> Vec<Egress> {
    let rows = policy.egress(serves, today).into_iter().map(|row| {
        let outlet = policy.outlet(&row.dataset, &row.destination, serves, today);
        Egress { row, outlet }
    });
    rows.collect()
}

fn for_people(config: &Config, today: Date) -> String {
    let (policy, here) = (&config.policy, &config.here);
    let mut report = String::new();
    let serves = here.serves.join(", ");
    // Writing to a string does not fail.
    let _ = writeln!(
        report,
        "gateway {} in {}: keeps records under {serves}; policy {}\n",
        config.id, here.country, policy.digest
    );
    for plan in policy.streams.values() {
        let model = plan.model.as_ref().map_or("no model", |model| &model.name);
        let (name, fields, evidence) = (&plan.stream.name, plan.stream.fields.len(), plan.evidence.len());
        let _ = writeln!(report, "stream {name}: {fields} fields, {evidence} pieces of evidence, {model}");
    }
    let _ = writeln!(report, "\nwhat may leave today, {today}, as cells of at least k contributors:\n");
    let header = ["dataset", "destination", "countries", "regime", "allowed", "k", "until", "by which rule"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(egress(&config.policy, &config.here.serves, today).into_iter().map(line));
    report.push_str(&table(&rows));
    for plan in policy.streams.values() {
        for dataset in &plan.datasets {
            if let Some(limits) = policy.limits(&dataset.name, &here.serves, today) {
                report.push_str(&limits::explained(dataset, &others(plan, dataset), &plan.datasets, &limits));
            }
        }
    }
    report.push_str(&closed(config, today));
    report.push_str(&budgets::explained(config));
    report.push_str(&grounds::explained(&policy.grounds(here, &config.id, &config.conditions, today)));
    report.push_str(&ahead::explained(&policy.ahead(&here.serves, today), &here.serves));
    report.push_str(&access(config));
    if !policy.overrides.is_empty() {
        let _ = writeln!(report, "\noverrides:\n");
        for relaxed in &policy.overrides {
            let ended = if relaxed.until < today { ", ended" } else { "" };
            let _ = writeln!(
                report,
                "  {}: k = {} for {} at {}, approved by {}, until {}{ended}",
                relaxed.id.value,
                relaxed.min_contributors,
                relaxed.dataset.value,
                relaxed.destination.value,
                approved(relaxed).join(", "),
                relaxed.until
            );
        }
    }
    let _ = writeln!(report, "\nnothing else leaves.");
    if config.mode == Mode::DryRun {
        let _ = writeln!(report, "\nmode dry-run: not even this leaves.");
    }
    report
}

/// The datasets that a dataset shares its cells with.
fn others<'p>(plan: &'p StreamPlan, dataset: &'p Dataset) -> Vec<&'p str> {
    let others = plan.sharing(dataset).filter(|other| other.name != dataset.name);
    others.map(|other| other.name.as_str()).collect()
}

/// The Kafka destinations that nothing may go to on a day: they are not reached.
fn unreached(config: &Config, today: Date) -> Vec<&str> {
    let lets_any = |name: &DestinationName| !config.policy.let_go_to(name, &config.here.serves, today).is_empty();
    let of_kafka = config.destinations.iter().filter(|(_, declared)| matches!(declared, Destination::Kafka(_)));
    of_kafka.map(|(name, _)| name).filter(|name| !lets_any(name)).map(DestinationName::as_str).collect()
}

fn closed(config: &Config, today: Date) -> String {
    match unreached(config, today).as_slice() {
        [] => String::new(),
        names => format!(
            "\nneither resolved nor connected to, until a policy lets a dataset go there: {}\n",
            names.join(", ")
        ),
    }
}

/// Who may do what on the listener.
fn access(config: &Config) -> String {
    let access = &config.policy.access;
    let Some(tls) = &config.tls else {
        return match access.rules.is_empty() {
            true => String::new(),
            false => "\nthe listener speaks plain text on loopback: [permissions] is not asked\n".to_owned(),
        };
    };
    let domain = tls.scheme.trust_domain();
    let mut text = format!("\nwho may do what, with a certificate of {domain}; all else is denied:\n\n");
    let header = ["rule", "identities", "may write", "also as", "may read"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(access.rules.iter().map(|rule| {
        let Listed { identities, write, speaks_as, read } = Listed::of(rule);
        [rule.id.to_string(), identities.join(" "), write.join(" "), speaks_as.join(" "), read.join(" ")]
            .map(|cell| if cell.is_empty() { "-".to_owned() } else { cell })
    }));
    text.push_str(&table(&rows));
    if !access.names.is_empty() {
        text.push_str("\nidentities that speak under a name (others speak under their own):\n\n");
        let header = ["identity", "producer"].map(str::to_owned);
        let named = access.names.iter().map(|naming| [naming.identity.to_string(), naming.producer.to_string()]);
        text.push_str(&table(&[header].into_iter().chain(named).collect::<Vec<_>>()));
    }
    text
}

/// A rule, as texts.
struct Listed {
    identities: Vec<String>,
    write: Vec<String>,
    speaks_as: Vec<String>,
    read: Vec<String>,
}

impl Listed {
    fn of(rule: &Rule) -> Self {
        Self {
            identities: rule.identities.iter().map(ToString::to_string).collect(),
            write: rule.write.iter().map(String::from).collect(),
            speaks_as: rule.speaks_as.iter().map(ToString::to_string).collect(),
            read: rule.read.iter().map(|right| right.name().to_owned()).collect(),
        }
    }
}

fn line(Egress { row, outlet }: Egress) -> [String; 8] {
    let k = outlet.map_or("-".to_owned(), |outlet| match &outlet.by_override {
        Some(relaxed) => format!("{} ({relaxed})", outlet.min_contributors),
        None => outlet.min_contributors.to_string(),
    });
    let (allowed, until, rule) = match row.permission {
        Permission::Allowed { rules, until, .. } => ("yes", until, rules.join(", ")),
        Permission::NotAllowed(country) => ("no", None, format!("no row of {} permits {country}", row.regime)),
        Permission::TooStrong => ("no", None, "`max_form` of the destination".to_owned()),
        Permission::NeedsNoise => ("no", None, format!("`rho_per_day` of {}", row.regime)),
        Permission::WindowTooShort(_) => ("no", None, format!("`min_window` of {}", row.regime)),
    };
    let countries: Vec<String> = row.countries.iter().map(ToString::to_string).collect();
    let until = until.map_or("-".to_owned(), |until| until.to_string());
    [
        (&row.dataset).into(),
        (&row.destination).into(),
        countries.join(" "),
        row.regime,
        allowed.to_owned(),
        k,
        until,
        rule,
    ]
}

fn approved(relaxed: &Override) -> Vec<String> {
    relaxed.approved.iter().cloned().collect()
}

fn for_machines(config: &Config, today: Date, problems: &[Problem]) -> Value {
    let (policy, here) = (&config.policy, &config.here);
    let streams = policy.streams.values().map(|plan| {
        json!({
            "stream": plan.stream.name.as_str(),
            "fields": plan.stream.fields.len(),
            "evidence": plan.evidence.len(),
            "model": plan.model.as_ref().map(|model| &model.name),
        })
    });
    let datasets = policy.streams.values().flat_map(|plan| plan.datasets.iter().map(move |dataset| (plan, dataset)));
    let datasets = datasets.filter_map(|(plan, dataset)| {
        let limits = policy.limits(&dataset.name, &here.serves, today)?;
        Some(limits::for_machines(dataset, &others(plan, dataset), &plan.datasets, &limits))
    });
    let overrides = policy.overrides.iter().map(|relaxed| {
        json!({
            "id": relaxed.id.value,
            "dataset": relaxed.dataset.value.as_str(),
            "destination": relaxed.destination.value.as_str(),
            "min_contributors": relaxed.min_contributors,
            "approved": approved(relaxed),
            "until": relaxed.until.to_string(),
            "has_ended": relaxed.until < today,
        })
    });
    let grounds = policy.grounds(here, &config.id, &config.conditions, today);
    json!({
        "problems": machine::problems(problems),
        "gateway": config.id.as_str(),
        "country": here.country.to_string(),
        "serves": here.serves,
        "mode": Mode::NAMES.iter().find(|(_, mode)| *mode == config.mode).map(|(name, _)| name),
        "policy": policy.digest.to_string(),
        "day": today.to_string(),
        "streams": streams.collect::<Value>(),
        "egress": egress(&config.policy, &config.here.serves, today).iter().map(row).collect::<Value>(),
        "datasets": datasets.collect::<Value>(),
        "not_connected": unreached(config, today),
        "budgets": config.budgets.iter().map(|(to, budget)| budgets::for_machines(to, budget)).collect::<Value>(),
        "grounds": grounds.iter().map(grounds::for_machines).collect::<Value>(),
        "ahead": policy.ahead(&here.serves, today).iter().map(ahead::for_machines).collect::<Value>(),
        "overrides": overrides.collect::<Value>(),
        "tls": config.tls.is_some(),
        "permissions": policy.access.rules.iter().map(|rule| permission(rule)).collect::<Value>(),
        "names": policy.access.names.iter().map(|naming| json!({
            "identity": naming.identity.to_string(),
            "producer": naming.producer.to_string(),
        })).collect::<Value>(),
    })
}

/// What may leave by the rules of a day, as the JSON report has it.
pub(super) fn rows(policy: &PolicySet, serves: &[String], today: Date) -> Vec<Value> {
    egress(policy, serves, today).iter().map(row).collect()
}

fn permission(rule: &Rule) -> Value {
    let Listed { identities, write, speaks_as, read } = Listed::of(rule);
    json!({ "rule": &*rule.id, "identities": identities, "write": write, "as": speaks_as, "read": read })
}

fn row(Egress { row, outlet }: &Egress) -> Value {
    let (rules, until, denied_by) = match &row.permission {
        Permission::Allowed { rules, until, .. } => (rules.iter().map(ToString::to_string).collect(), *until, None),
        Permission::NotAllowed(country) => (Vec::new(), None, Some(format!("no rule permits {country}"))),
        Permission::TooStrong => (Vec::new(), None, Some("max_form".to_owned())),
        Permission::NeedsNoise => (Vec::new(), None, Some("rho_per_day".to_owned())),
        Permission::WindowTooShort(_) => (Vec::new(), None, Some("min_window".to_owned())),
    };
    json!({
        "dataset": row.dataset.as_str(),
        "destination": row.destination.as_str(),
        "countries": row.countries.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "regime": row.regime,
        "is_allowed": denied_by.is_none(),
        "rules": rules,
        "until": until.map(|until| until.to_string()),
        "denied_by": denied_by,
        "min_contributors": outlet.as_ref().map(|outlet| outlet.min_contributors),
        "override": outlet.as_ref().and_then(|outlet| outlet.by_override.as_ref().map(ToString::to_string)),
    })
}
