//! `bailiwick check`: everything that is wrong, and what may leave.

use std::fmt::Write as _;
use std::path::Path;

use crate::app;
use crate::config::{Config, Mode, today};
use crate::domain::policy::Permission;

use super::table::table;
use super::{Failure, load};

/// Checks the configuration, the policies and the models. The report for stdout.
///
/// # Errors
/// [`Failure::Config`] when the files are wrong, another one when a model cannot be used.
pub fn check(path: &Path) -> Result<String, Failure> {
    let config = load(path)?;
    app::check_models(&config)?;
    app::check_journal(&config)?;
    Ok(report(&config))
}

fn report(config: &Config) -> String {
    let (policy, here, today) = (&config.policy, &config.here, today());
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
    for row in policy.egress(&here.serves, today) {
        let outlets = policy.outlets(&row.dataset, &here.serves, today);
        let outlet = outlets.iter().find(|outlet| outlet.destination == row.destination);
        let k = outlet.map_or("-".to_owned(), |outlet| match &outlet.by_override {
            Some(relaxed) => format!("{} ({relaxed})", outlet.min_contributors),
            None => outlet.min_contributors.to_string(),
        });
        let (allowed, until, rule) = match row.permission {
            Permission::Allowed { rules, until, .. } => ("yes", until, rules.join(", ")),
            Permission::NotAllowed(country) => ("no", None, format!("no row of {} permits {country}", row.regime)),
            Permission::TooStrong => ("no", None, "`max_form` of the destination".to_owned()),
        };
        let countries: Vec<String> = row.countries.iter().map(ToString::to_string).collect();
        let until = until.map_or("-".to_owned(), |until| until.to_string());
        rows.push([row.dataset, row.destination, countries.join(" "), row.regime, allowed.to_owned(), k, until, rule]);
    }
    report.push_str(&table(&rows));
    for dataset in policy.streams.values().flat_map(|plan| &plan.datasets) {
        let optional: Vec<String> =
            dataset.optional_metrics().map(|(metric, field)| format!("`{metric}` (of `{field}`)")).collect();
        if !optional.is_empty() {
            let (name, optional) = (&dataset.name, optional.join(", "));
            let _ = writeln!(
                report,
                "\nk holds for each of these metrics of {name} too: {optional}. A record may be without the field, so in a \
                 cell they are null unless at least k contributors have a value, and none or at least k are without one."
            );
        }
    }
    if !policy.overrides.is_empty() {
        let _ = writeln!(report, "\noverrides:\n");
        for relaxed in &policy.overrides {
            let (id, approved) = (&relaxed.id.value, relaxed.approved.iter().cloned().collect::<Vec<_>>().join(", "));
            let ended = if relaxed.until < today { ", ended" } else { "" };
            let _ = writeln!(
                report,
                "  {id}: k = {} for {} at {}, approved by {approved}, until {}{ended}",
                relaxed.min_contributors, relaxed.dataset, relaxed.destination, relaxed.until
            );
        }
    }
    let _ = writeln!(report, "\nnothing else leaves.");
    if config.mode == Mode::DryRun {
        let _ = writeln!(report, "\nmode dry-run: not even this leaves.");
    }
    report
}
