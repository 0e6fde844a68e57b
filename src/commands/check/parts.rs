//! What `check` says of the parts of a dataset's cells: what is merged and what is withheld.

use std::fmt::Write as _;

use crate::domain::dataset::{Dataset, Function};

/// A paragraph for a dataset whose metrics part the records of a cell; nothing for another one.
pub(super) fn explained(dataset: &Dataset) -> String {
    let of = |wanted: fn(&Function) -> bool| -> Vec<String> {
        let metrics = dataset.metrics.iter().filter(|metric| wanted(&metric.function));
        metrics.map(|metric| format!("`{}`", metric.name)).collect()
    };
    let histograms = of(|function| matches!(function, Function::Histogram { .. }));
    let fractions = of(|function| matches!(function, Function::Fraction { .. }));
    let optional: Vec<String> =
        dataset.optional_metrics().map(|(metric, field)| format!("`{metric}` (of `{field}`)")).collect();
    let mut text = String::new();
    if histograms.is_empty() && fractions.is_empty() && optional.is_empty() {
        return text;
    }
    // Writing to a string does not fail.
    let _ = writeln!(text, "\nk also holds inside the cells of {}:", dataset.name);
    if !histograms.is_empty() {
        let _ = writeln!(text, "  ranges with too few contributors are merged: {}", histograms.join(", "));
    }
    if !fractions.is_empty() {
        let _ = writeln!(
            text,
            "  null unless as many have the value, or none, and as many another one, or none: {}",
            fractions.join(", ")
        );
    }
    if !optional.is_empty() {
        let _ = writeln!(
            text,
            "  null unless at least k contributors have a value, and those without one are none or at least k: {}",
            optional.join(", ")
        );
    }
    text
}
