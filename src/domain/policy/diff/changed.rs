//! What changes of the rules that cells of a dataset must keep before they leave.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::super::{Asked, Limits, Version};
use crate::domain::dataset::Dataset;
use crate::domain::name::DatasetName;

/// A rule of a dataset that is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleChange {
    /// The dataset.
    pub dataset: DatasetName,
    /// What it is, as the policies call it.
    pub rule: &'static str,
    /// What it was; `-`: nothing was asked for.
    pub before: String,
    /// What it is; `-`: nothing is asked for.
    pub after: String,
    /// Who asks for it, or asked for it before if nobody does any more.
    pub by: String,
}

/// The rules of all datasets that something of may leave under both versions, as far as they differ.
pub(super) fn rule_changes(before: &Version, after: &Version) -> Vec<RuleChange> {
    let datasets = before.policy.streams.values().flat_map(|plan| &plan.datasets);
    let datasets: BTreeSet<&DatasetName> = datasets.map(|dataset| &dataset.name).collect();
    let changes = datasets.into_iter().flat_map(|name| {
        let rules = |version: &Version| {
            let (_, dataset) = version.policy.dataset(name)?;
            let limits = version.policy.limits(name, &version.here.serves, version.day)?;
            Some(rules(dataset, &limits))
        };
        let pairs = rules(before).into_iter().flatten().zip(rules(after).into_iter().flatten());
        let differ = pairs.filter(|((_, was), (_, is))| shown(was) != shown(is));
        differ.map(|((rule, was), (_, is))| RuleChange {
            dataset: name.clone(),
            rule,
            before: shown(&was),
            after: shown(&is),
            by: is.or(was).map(|asked| asked.by).unwrap_or_default(),
        })
    });
    changes.collect()
}

fn shown(rule: &Option<Asked<String>>) -> String {
    rule.as_ref().map_or_else(|| "-".to_owned(), |asked| asked.value.clone())
}

fn of<T: ToString>(asked: &Asked<T>) -> Option<Asked<String>> {
    Some(Asked { value: asked.value.to_string(), by: asked.by.clone() })
}

/// All rules of a dataset, always in this order.
fn rules(dataset: &Dataset, limits: &Limits) -> [(&'static str, Option<Asked<String>>); 17] {
    let Limits {
        contributors,
        part,
        percent,
        producers,
        told,
        rounding,
        records,
        cells,
        privacy,
        rho_per_day,
        window,
        ..
    } = limits;
    let own = |value: String| Some(Asked { value, by: format!("dataset {}", dataset.name) });
    let shortest = |asked: &Asked<std::time::Duration>| {
        of(&Asked { value: SignedDuration::try_from(asked.value).unwrap_or_default(), by: asked.by.clone() })
    };
    let word = if told.value { "bucket" } else { "never" };
    let told = Asked { value: word.to_owned(), by: told.by.clone() };
    let special = own("no".to_owned()).filter(|_| limits.not_empty);
    [
        ("min_contributors", of(contributors)),
        ("min_part", of(part)),
        ("parts may be empty", special),
        ("p_percent", of(percent)),
        ("min_producers", of(producers)),
        ("max_producer_share", limits.producer_share().as_ref().and_then(of)),
        ("contributors", Some(told).filter(|_| dataset.tells_contributors)),
        ("round_counts_to", rounding.as_ref().and_then(of)),
        ("records_per_contributor", records.as_ref().and_then(of)),
        ("cells_per_contributor", cells.as_ref().and_then(of)),
        ("min_window", window.as_ref().and_then(shortest)),
        ("max_defer", own(dataset.max_defer.to_string()).filter(|_| dataset.max_defer > 0)),
        ("roll_up", own(dataset.rolled_up().join(", ")).filter(|_| !dataset.roll_up.is_empty())),
        ("coarser_than", dataset.coarser_than.as_ref().and_then(|finer| own(finer.to_string()))),
        ("mechanism", privacy.and_then(|privacy| own(privacy.mechanism.name().to_owned()))),
        ("rho_per_window", privacy.and_then(|privacy| own(privacy.per_window.to_string()))),
        ("rho_per_day", rho_per_day.as_ref().and_then(of)),
    ]
}
