//! What `check` says of what holds for the cells of a dataset, by whose word, and what is merged or withheld inside them.

use std::fmt::Write as _;
use std::sync::Arc;

use jiff::SignedDuration;
use serde::Serialize;
use serde_json::{Value, json};

use super::noise;
use crate::domain::aggregate::cells_of;
use crate::domain::dataset::{CONTRIBUTORS, Dataset, Function, REST};
use crate::domain::policy::{Asked, Limits, steps_above};
use crate::domain::rounding::Rounding;

/// What is remembered of a cell that was told, with what holds it.
const BYTES_REMEMBERED: usize = 48;

/// What a row that is added up of longer windows takes in memory, beside its metrics.
const ROW_BYTES: usize = 96;
/// What one of those takes, with few parts.
const METRIC_BYTES: usize = 80;

/// A paragraph for people. `others`: the datasets that it shares its cells with, of those of its stream.
pub(super) fn explained(dataset: &Dataset, others: &[&str], of_stream: &[Arc<Dataset>], limits: &Limits) -> String {
    let mut text = String::new();
    let (contributors, part) = (&limits.contributors, &limits.part);
    // Writing to a string does not fail.
    let _ = writeln!(text, "\ncells of {}:", dataset.name);
    if !others.is_empty() {
        let _ = writeln!(
            text,
            "  the same cells as those of {}: all their numbers are judged together, by the strictest rule of any",
            others.join(", ")
        );
    }
    if let Some(finer) = &dataset.coarser_than {
        let times = times_as_long(dataset, of_stream);
        if times > 1 {
            let _ = writeln!(
                text,
                "  each of its windows is {times} windows of {finer}: its rows leave when the last one closes, unless more is asked of \
                 cells then"
            );
            let rows = cells_of(dataset);
            let _ = writeln!(
                text,
                "  while one is open, up to {rows} rows are added up, beside `open_windows_bytes_max`: some {} KiB at most",
                rows.saturating_mul(ROW_BYTES + METRIC_BYTES * dataset.metrics.len()).div_ceil(1_024)
            );
        }
        let _ = writeln!(
            text,
            "  its rows are sums of the rows of {finer}, and all of this holds there, in each row: what does not leave there is in \
             no sum, and a key that is given up there is `{REST}` here, too"
        );
    }
    if let Some(privacy) = &limits.privacy {
        text.push_str(&noise::explained(dataset, limits, privacy));
        text.push_str(&rounded(dataset, limits));
        text.push_str(&bounds(limits));
        return text;
    }
    let _ = writeln!(text, "  at least {} contributors in a cell: {}", contributors.value, contributors.by);
    let producers = &limits.producers;
    let _ = match producers.value {
        1 => writeln!(text, "  one producer may bring all of them, and could invent them: {}", producers.by),
        _ => writeln!(text, "  and as many beside those of any one producer, in each part too: {}", producers.by),
    };
    if let Some(share) = limits.producer_share() {
        let _ = writeln!(
            text,
            "  no producer alone brings more than {} % of the contributors, or of what is added to a sum: {}",
            share.value * 100.0,
            share.by
        );
    }
    text.push_str(&bounds(limits));
    text.push_str(&told(dataset, limits));
    text.push_str(&rounded(dataset, limits));
    let given_up = dataset.rolled_up();
    if !given_up.is_empty() {
        let _ = writeln!(
            text,
            "  cells with fewer leave together, with `{REST}` for {}, if all this holds for them, and three of them or more \
             are not there",
            given_up.join(", then for ")
        );
    }
    if dataset.max_defer > 0 {
        let _ = writeln!(
            text,
            "  a cell with fewer waits for the next {}, {} in all, and leaves with one of them or is dropped",
            windows(dataset.max_defer),
            waits(dataset)
        );
    }
    if dataset.only_on_change {
        let cells = cells_of(dataset);
        let _ = writeln!(
            text,
            "  only what has changed is told: cells with other values than last, and those that are gone; of {cells} cells at \
             most, some {} bytes are remembered for each destination",
            cells * BYTES_REMEMBERED
        );
    }
    if let Some(window) = &limits.window {
        let shortest = SignedDuration::try_from(window.value).unwrap_or_default();
        let _ = writeln!(text, "  windows of at least {shortest}: {}", window.by);
    }
    let parted = Parted::of(dataset);
    if parted.is_empty() && parted.sums.is_empty() {
        return text;
    }
    let _ = writeln!(text, "  at least {} in each part of a cell: {}", part.value, part.by);
    let or_none = if limits.not_empty {
        let _ = writeln!(text, "  no part may be empty: a class is special");
        ""
    } else {
        " or nobody"
    };
    let Parted { histograms, fractions, optional, sums } = parted;
    if !sums.is_empty() {
        let percent = &limits.percent;
        let _ = writeln!(
            text,
            "  sums: all but the two largest contributors add at least {} % of what the largest adds: {}",
            percent.value, percent.by
        );
        let sums = sums.join(", ");
        let _ = writeln!(
            text,
            "  null unless that is so, and for each end of the field's range as many{or_none} have values that are not at \
             that end: {sums}"
        );
    }
    if !histograms.is_empty() {
        let _ = writeln!(text, "  ranges are merged until each has as many{or_none}: {}", histograms.join(", "));
    }
    if !fractions.is_empty() {
        let fractions = fractions.join(", ");
        let _ =
            writeln!(text, "  null unless as many{or_none} have the value, and as many{or_none} another: {fractions}");
    }
    if !optional.is_empty() {
        let optional = optional.join(", ");
        let _ = writeln!(text, "  null unless as many have a value, and as many{or_none} have no value: {optional}");
    }
    text
}

/// What is told of how many contributors a cell has.
fn told(dataset: &Dataset, limits: &Limits) -> String {
    let (told, k) = (&limits.told, limits.contributors.value);
    if !dataset.tells_contributors {
        return String::new();
    }
    if !told.value {
        return format!("  `{CONTRIBUTORS}` is null: {} says never\n", told.by);
    }
    if dataset.coarser_than.is_some() {
        return format!(
            "  `{CONTRIBUTORS}` is never more than {k}: somebody can be in several of the rows ({})\n",
            told.by
        );
    }
    let of_producers = (limits.producers.value > 1).then_some(&limits.producers.by);
    if let Some(by) = of_producers.or(limits.beside.as_ref().map(|beside| &beside.by)) {
        return format!(
            "  `{CONTRIBUTORS}` is never more than {k}: a producer could take its own records off ({by})\n"
        );
    }
    let rounding = limits.rounding.as_ref().map_or(Rounding::NONE, |rounding| rounding.value);
    let above =
        steps_above(k.max(limits.part.value), rounding).map(|step| step.to_string()).collect::<Vec<_>>().join(", ");
    let above =
        if above.is_empty() { "no step is above it".to_owned() } else { format!("the steps above are {above}") };
    format!("  `{CONTRIBUTORS}` is at least {k}; {above}, each with at least twice as many records: {}\n", told.by)
}

/// How counts are rounded, and what becomes of what is computed from them.
fn rounded(dataset: &Dataset, limits: &Limits) -> String {
    let mut text = String::new();
    let Some(rounding) = &limits.rounding else { return text };
    let base = rounding.value.base();
    let _ = writeln!(text, "  every count is rounded to the nearest multiple of {base}, halves up: {}", rounding.by);
    if rounding.value.nearest(limits.contributors.value.min(limits.part.value) as u64) == 0 {
        let _ =
            writeln!(text, "  and is 0 if it is less than {}, also of a cell or part that leaves", base.div_ceil(2));
    }
    let named = |is_wanted: fn(&Function) -> bool| {
        let metrics = dataset.metrics.iter().filter(|metric| is_wanted(&metric.function));
        metrics.map(|metric| metric.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let means = named(|function| matches!(function, Function::Mean(_)));
    let fractions = named(|function| matches!(function, Function::Fraction { .. }));
    let variances = named(|function| matches!(function, Function::Variance(_)));
    let sums = named(|function| matches!(function, Function::Sum(_)));
    for (what, metrics) in [
        ("the sum by a rounded count; that count times the mean is the sum, which is not rounded", means),
        ("a rounded count by rounded counts", fractions),
        ("null, since a variance would tell the exact count", variances),
        ("not rounded, since a sum is no count; if its values are few or alike, it tells one", sums),
    ] {
        if !metrics.is_empty() {
            let _ = writeln!(text, "  {what}: {metrics}");
        }
    }
    text
}

/// How many records of one contributor count.
fn bounds(limits: &Limits) -> String {
    let mut text = String::new();
    if let Some(records) = &limits.records {
        let _ = writeln!(
            text,
            "  of one contributor at most {} records count in a cell of a window, drawn by lot: {}",
            records.value, records.by
        );
    }
    if let Some(cells) = &limits.cells {
        let _ = writeln!(text, "  and in at most {} cells of it, drawn by lot: {}", cells.value, cells.by);
    }
    text
}

/// How many windows of the finer dataset make one of this.
fn times_as_long(dataset: &Dataset, of_stream: &[Arc<Dataset>]) -> u128 {
    let finer = of_stream.iter().find(|other| Some(&other.name) == dataset.coarser_than.as_ref());
    finer.map_or(1, |finer| dataset.window.as_micros() / finer.window.as_micros().max(1))
}

fn windows(windows: u64) -> String {
    if windows == 1 { "window".to_owned() } else { format!("{windows} windows") }
}

/// How long a cell of a dataset waits at most, beside the windows' grace.
fn waits(dataset: &Dataset) -> SignedDuration {
    let window = SignedDuration::try_from(dataset.window).unwrap_or_default();
    window.saturating_mul(i32::try_from(dataset.max_defer).unwrap_or(i32::MAX))
}

/// The same for machines.
pub(super) fn for_machines(dataset: &Dataset, others: &[&str], of_stream: &[Arc<Dataset>], limits: &Limits) -> Value {
    let Parted { histograms, fractions, optional, sums } = Parted::of(dataset);
    let mut withheld = [fractions, optional].concat();
    withheld.extend(sums.iter().filter(|sum| !withheld.contains(sum)).copied().collect::<Vec<_>>());
    json!({
        "dataset": dataset.name.as_str(),
        "shares_cells_with": others,
        "adds_up_windows": u64::try_from(times_as_long(dataset, of_stream)).unwrap_or(u64::MAX),
        "coarser_than": dataset.coarser_than.as_ref().map(|finer| finer.as_str()),
        "min_contributors": asked(&limits.contributors),
        "min_part": asked(&limits.part),
        "p_percent": asked(&limits.percent),
        "min_producers": asked(&limits.producers),
        "max_producer_share": limits.producer_share().as_ref().map(asked),
        "contributors": {
            "value": if limits.told.value { "bucket" } else { "never" },
            "by": limits.told.by,
        },
        "round_counts_to": limits.rounding.as_ref().map(|rounding| json!({
            "value": rounding.value.base(),
            "by": rounding.by,
        })),
        "records_per_contributor": limits.records.as_ref().map(asked),
        "cells_per_contributor": limits.cells.as_ref().map(asked),
        "min_window": limits.window.as_ref().map(|window| json!({
            "value": SignedDuration::try_from(window.value).unwrap_or_default().to_string(),
            "by": window.by,
        })),
        "max_defer": { "windows": dataset.max_defer, "time": waits(dataset).to_string() },
        "roll_up": dataset.rolled_up(),
        "only_on_change": dataset.only_on_change,
        "privacy": noise::for_machines(dataset, limits),
        "parts_may_be_empty": !limits.not_empty,
        "merged": histograms,
        "withheld": withheld,
    })
}

fn asked<T: Serialize>(asked: &Asked<T>) -> Value {
    json!({ "value": asked.value, "by": asked.by })
}

/// The metrics that part the records of a cell, and those that are computed from sums.
struct Parted<'d> {
    histograms: Vec<&'d str>,
    fractions: Vec<&'d str>,
    /// Those of fields that a record may be without.
    optional: Vec<&'d str>,
    /// Those that are computed from sums.
    sums: Vec<&'d str>,
}

impl<'d> Parted<'d> {
    fn of(dataset: &'d Dataset) -> Self {
        let of = |wanted: fn(&Function) -> bool| {
            let metrics = dataset.metrics.iter().filter(|metric| wanted(&metric.function));
            metrics.map(|metric| metric.name.as_str()).collect()
        };
        Self {
            histograms: of(|function| matches!(function, Function::Histogram { .. })),
            fractions: of(|function| matches!(function, Function::Fraction { .. })),
            optional: dataset.optional_metrics().map(|(metric, _)| metric).collect(),
            sums: of(|function| function.measure().is_some()),
        }
    }

    fn is_empty(&self) -> bool {
        self.histograms.is_empty() && self.fractions.is_empty() && self.optional.is_empty()
    }
}
