//! `bailiwick check`: everything that is wrong, and what may leave.

use std::fmt::Write as _;
use std::path::Path;

use crate::app;
use crate::config::Config;
use crate::domain::policy::Permission;

use super::{Failure, load};

/// Checks the configuration, the policies and the models. The report for stdout.
///
/// # Errors
/// [`Failure::Config`] when the files are wrong, another one when a model cannot be used.
pub fn check(path: &Path) -> Result<String, Failure> {
    let config = load(path)?;
    app::check_models(&config)?;
    Ok(report(&config))
}

fn report(config: &Config) -> String {
    let policy = &config.policy;
    let mut report = String::new();
    let serves = config.serves.join(", ");
    // Writing to a string does not fail.
    let _ = writeln!(
        report,
        "gateway {} in {}: keeps records under {serves}; policy {}\n",
        config.id, config.country, policy.digest
    );
    for plan in policy.streams.values() {
        let model = plan.model.as_ref().map_or("no model", |model| &model.name);
        let _ = writeln!(report, "stream {}: {} fields, {model}", plan.stream.name, plan.stream.fields.len());
    }
    let _ = writeln!(report, "\nwhat may leave, as cells of at least k contributors:\n");
    let header = ["dataset", "destination", "country", "regime", "allowed", "k", "review by", "by which rule"];
    let mut rows = vec![header.map(str::to_owned)];
    for row in policy.egress(&config.serves) {
        let (allowed, rule) = match row.permission {
            Permission::Allowed(basis) => ("yes", basis),
            Permission::NotAllowed => ("no", "no row of the regime permits it".to_owned()),
        };
        rows.push([
            row.dataset,
            row.destination,
            row.country,
            row.regime,
            allowed.to_owned(),
            row.min_contributors.to_string(),
            row.review_by.to_string(),
            rule,
        ]);
    }
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let _ = writeln!(report, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    let _ = writeln!(report, "\nnothing else leaves.");
    report
}
