//! What `check` says of the budgets of destinations.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::config::Config;
use crate::domain::aggregate::cells_of;
use crate::domain::dataset::Function;
use crate::domain::name::{DatasetName, DestinationName};
use crate::domain::policy::{By, ON_CHANGE, RollUp, Step, Top};
use crate::egress::budget::Settings;

/// What a row of a release takes in memory, beside its keys and metrics: the columns that every release has.
const ROW_BYTES: usize = 96;
/// What a key takes, or a number.
const COLUMN_BYTES: usize = 16;

/// A paragraph for people.
pub(super) fn explained(config: &Config) -> String {
    let mut text = String::new();
    for (destination, budget) in &config.budgets {
        let Settings { bytes, per, widened, smaller, sheds_after, first } = budget;
        // Writing to a string does not fail.
        let _ = writeln!(text, "\nbytes to {destination}:");
        let _ = writeln!(text, "  at most {bytes} at once, and as many again, evenly, in {:#}", shown(*per));
        let mut what = "a release";
        if budget.tells_changes() {
            let _ = writeln!(
                text,
                "  {what} that they do not suffice for leaves as the rows that have changed, if it is known what was told last; for \
                 that the last release of each dataset stays in memory: about {} KiB, if all their cells are there",
                bytes_kept(config, destination).div_ceil(1_024)
            );
            what = "another one";
        }
        for (dataset, wider) in widened {
            let _ =
                writeln!(text, "  one of {dataset} that they do not suffice for is left out: {wider} adds up its rows");
            what = "another one";
        }
        for words in smaller.iter().filter_map(|form| step_in_words(form.0.last()?)) {
            let _ = writeln!(text, "  {what} that they do not suffice for {words}");
            what = "one";
        }
        let short = format!("  {what} that they do not suffice for");
        let _ = match sheds_after {
            None => writeln!(text, "{short} waits, and those after it wait with it"),
            Some(after) if after.is_zero() => writeln!(text, "{short} is shed"),
            Some(after) => {
                writeln!(text, "{short} waits up to {:#}, then it is shed; those after it wait with it", shown(*after))
            }
        };
        let named = first.join(", then ");
        let _ = match sheds_after {
            _ if first.is_empty() => Ok(()),
            Some(_) => writeln!(text, "  shed last: {named}; before them all others"),
            None => writeln!(text, "  these come first: {named}; then all others"),
        };
    }
    text
}

/// What the last releases of all datasets for a destination take in memory.
fn bytes_kept(config: &Config, destination: &DestinationName) -> usize {
    let accepts = config.policy.destinations.get(destination).into_iter().flat_map(|to| &to.accepts);
    let datasets = accepts.filter_map(|accepted| config.policy.dataset(&accepted.value));
    let bytes = datasets.map(|(_, dataset)| {
        let parts = dataset.metrics.iter().map(|metric| match &metric.function {
            Function::Histogram { edges, .. } => edges.len() + 2,
            _ => 1,
        });
        let columns = dataset.keys.len() + parts.sum::<usize>();
        cells_of(dataset).saturating_mul(ROW_BYTES + COLUMN_BYTES * columns)
    });
    bytes.fold(0, usize::saturating_add)
}

/// How a step makes a release smaller; `None`: that is said elsewhere.
fn step_in_words(step: &Step) -> Option<String> {
    Some(match step {
        Step::OnChange(_) => return None,
        Step::RollUp(RollUp { keys, .. }) => format!("is added up over {}", keys.join(" and ")),
        Step::Top(Top { rows, by }) => {
            let by = match by {
                By::Metric(metric) => format!("`{metric}`"),
                By::Each(metrics) => {
                    let each = metrics.iter().map(|(dataset, metric)| format!("`{metric}` of {dataset}"));
                    each.collect::<Vec<_>>().join(", ")
                }
            };
            format!("leaves as its {rows} largest rows, by {by}")
        }
    })
}

fn shown(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or_default()
}

/// The same for machines.
pub(super) fn for_machines(destination: &DestinationName, budget: &Settings) -> Value {
    let Settings { bytes, per, widened, smaller, sheds_after, first } = budget;
    let max_age = sheds_after.map(|after| shown(after).to_string());
    let steps = smaller.last().map_or(&[][..], |form| &form.0);
    let mut when_short: Vec<&str> = budget.tells_changes().then_some(ON_CHANGE).into_iter().collect();
    when_short.extend((!widened.is_empty()).then_some("widen"));
    when_short.extend(steps.iter().map(Step::name).filter(|name| *name != ON_CHANGE));
    when_short.extend(match sheds_after {
        None => &["defer"][..],
        Some(after) if after.is_zero() => &["shed"],
        Some(_) => &["defer", "shed"],
    });
    let (mut roll_up, mut top) = (None, None);
    for step in steps {
        match step {
            Step::OnChange(_) => {}
            Step::RollUp(RollUp { keys, .. }) => roll_up = Some(keys),
            Step::Top(Top { rows, by: By::Metric(metric) }) => top = Some(json!({ "rows": rows, "by": metric })),
            Step::Top(Top { rows, by: By::Each(metrics) }) => {
                let by = metrics.iter().map(|(dataset, metric)| (dataset.as_str(), metric));
                top = Some(json!({ "rows": rows, "by": by.collect::<BTreeMap<_, _>>() }));
            }
        }
    }
    let widened: BTreeMap<&str, &str> =
        widened.iter().map(|(dataset, wider)| (dataset.as_str(), wider.as_str())).collect();
    json!({
        "destination": destination.as_str(),
        "bytes": bytes,
        "per": shown(*per).to_string(),
        "when_short": when_short,
        "widened": widened,
        "roll_up": roll_up,
        "top": top,
        "max_age": max_age,
        "priorities": first.iter().map(DatasetName::as_str).collect::<Vec<_>>(),
    })
}
