//! What `check` says of a dataset with differential privacy: how much noise its numbers get, and what a day has.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::domain::dataset::Dataset;
use crate::domain::policy::{Limits, NoisedCount, noised};
use crate::domain::privacy::Privacy;

/// The delta that an epsilon is said for.
const DELTA: f64 = 1e-9;

/// A list of numbers, and its noise.
struct Loudness {
    /// What it is: `contributors`, `records`, or the name of a metric.
    of: String,
    /// The standard deviation of the noise.
    sigma: f64,
}

/// The lists of a dataset, the contributors first.
fn loudness(dataset: &Dataset, privacy: &Privacy) -> Vec<Loudness> {
    let name = |metric: usize| dataset.metrics.get(metric).map_or_else(String::new, |metric| metric.name.clone());
    let lists = noised(dataset, privacy, privacy.per_window);
    let of = |counted: &NoisedCount<'_>| match counted {
        NoisedCount::Contributors => "contributors".to_owned(),
        NoisedCount::Records => "records".to_owned(),
        NoisedCount::Sum { measure, .. } => format!("the sum of {}", measure.source.field),
        NoisedCount::Ranges { metric } => format!("each range of {}", name(*metric)),
    };
    lists.iter().map(|list| Loudness { of: of(&list.counted), sigma: list.spread.sigma() * list.step() }).collect()
}

/// How many contributors with noise a cell needs to leave.
fn least(dataset: &Dataset, privacy: &Privacy, k: usize) -> Option<f64> {
    let lists = noised(dataset, privacy, privacy.per_window);
    lists.first().map(|contributors| (k as f64 + contributors.spread.margin()).ceil())
}

/// A paragraph for people, in place of what is said of cells without noise.
pub(super) fn explained(dataset: &Dataset, limits: &Limits, privacy: &Privacy) -> String {
    let mut text = String::new();
    let (k, by) = (limits.contributors.value, &limits.contributors.by);
    let mechanism = privacy.mechanism.name();
    // Writing to a string does not fail.
    let _ =
        writeln!(text, "  every number gets noise ({mechanism}) before it leaves, also those that decide what leaves");
    let windows = dataset.grid().windows_of_a_day();
    let affordable = privacy.per_day.billionths() / privacy.per_window.billionths().max(1);
    let day_by = limits.rho_per_day.as_ref().map_or("", |asked| asked.by.as_str());
    let _ = writeln!(
        text,
        "  of one contributor a window tells a rho of {}, and a day at most {}: {day_by}",
        privacy.per_window, privacy.per_day
    );
    let _ = writeln!(
        text,
        "  that is an epsilon of {:.2} a day at a delta of {DELTA:e}; it pays for {affordable} of a day's {windows} windows",
        privacy.per_day.epsilon(DELTA)
    );
    if dataset.overlaps() {
        let _ = writeln!(
            text,
            "  a window of {} begins every {}, so a record counts in up to {} of them; those that would go on after midnight (UTC) \
             are not formed",
            said(dataset.length()),
            said(dataset.window),
            dataset.grid().windows_of_a_record()
        );
    }
    if let Some(least) = least(dataset, privacy, k) {
        let _ = writeln!(
            text,
            "  a cell leaves if it has {least} contributors with noise: {k} ({by}), and a margin that one in 10^9 cells of fewer \
             passes"
        );
    }
    for Loudness { of, sigma } in loudness(dataset, privacy) {
        let _ = writeln!(text, "  noise of {of}: a standard deviation of {sigma:.4}");
    }
    text.push_str(
        "  `p_percent`, `min_part`, `min_producers` and `max_producer_share` are not asked: what they hide is less than the noise\n",
    );
    text
}

/// A duration as policies write it.
fn said(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or_default()
}

/// The same for machines. Null: there is no noise.
pub(super) fn for_machines(dataset: &Dataset, limits: &Limits) -> Value {
    let Some(privacy) = &limits.privacy else { return Value::Null };
    let noise = loudness(dataset, privacy);
    json!({
        "mechanism": privacy.mechanism.name(),
        "rho_per_window": privacy.per_window.value(),
        "rho_per_day": { "value": privacy.per_day.value(), "by": limits.rho_per_day.as_ref().map(|asked| &asked.by) },
        "windows_per_day": dataset.grid().windows_of_a_day(),
        "every": dataset.overlaps().then(|| said(dataset.window).to_string()),
        "least": least(dataset, privacy, limits.contributors.value),
        "noise": noise.iter().map(|loud| json!({ "of": loud.of, "sigma": loud.sigma })).collect::<Value>(),
    })
}
