//! `[destinations.NAME.budget]`: how many bytes may leave, and what becomes of a release that they do not suffice for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::SignedDuration;

use crate::domain::document::{Place, Problems, Spot, Table, hint};
use crate::domain::policy::PolicySet;
use crate::egress::budget::Settings;

/// What `when_short` may name, in the order in which it is tried.
pub(super) const STEPS: [&str; 2] = ["defer", "shed"];

/// The fewest bytes: a message with one cell takes some hundred.
const BYTES_LEAST: u64 = 4_096;
/// A bucket that fills sooner is none.
const PER_LEAST: SignedDuration = SignedDuration::from_secs(1);

/// What is declared of a budget.
pub(super) struct Declared {
    pub(super) settings: Settings,
    /// Where it stands.
    place: Place,
    /// Where the datasets are named that come first.
    first: Vec<Spot<String>>,
}

/// Reads that of a destination.
pub(super) fn read(destination: &Table<'_>) -> Option<Declared> {
    let spot = destination.get::<Table<'_>>("budget")?;
    let (table, problems) = (&spot.value, destination.problems());
    let bytes = table.need::<u64>("bytes");
    if let Some(bytes) = bytes.as_ref().filter(|bytes| bytes.value < BYTES_LEAST) {
        problems.error(&bytes.place, format!("`bytes` is {}, and must be at least {BYTES_LEAST}", bytes.value));
    }
    let per = table.need::<SignedDuration>("per");
    if let Some(per) = per.as_ref().filter(|per| per.value < PER_LEAST) {
        problems.error(&per.place, "`per` must be at least one second");
    }
    let sheds_after = read_steps(table, problems);
    let first = table.get::<Vec<Spot<String>>>("priorities");
    table.done();
    let sheds_after = sheds_after?;
    if let Some(first) = first.as_ref().filter(|_| sheds_after.is_none()) {
        problems.error_help(
            &first.place,
            "`priorities` say what is shed last, and nothing is shed here",
            "add \"shed\" to `when_short`, or remove this line",
        );
    }
    let first = first.map(|first| first.value).unwrap_or_default();
    let mut seen = BTreeSet::new();
    for dataset in &first {
        if !seen.insert(&dataset.value) {
            problems.error(&dataset.place, format!("`{}` stands twice", dataset.value));
        }
    }
    let names = first.iter().map(|dataset| dataset.value.clone()).collect();
    let settings = Settings { bytes: bytes?.value, per: per?.value.unsigned_abs(), sheds_after, first: names };
    Some(Declared { settings, place: spot.place.clone(), first })
}

/// After how long a release is shed; `None` when it never is.
fn read_steps(table: &Table<'_>, problems: &Problems) -> Option<Option<Duration>> {
    let steps = table.get::<Vec<Spot<String>>>("when_short");
    let max_age = table.get::<SignedDuration>("max_age");
    let unknown = steps.iter().flat_map(|steps| &steps.value).find(|step| !STEPS.contains(&step.value.as_str()));
    if let Some(step) = unknown {
        let message = format!("`when_short` cannot have `{}`", step.value);
        problems.error_help(&step.place, message, hint(&step.value, &STEPS));
        return None;
    }
    let named: Vec<&str> = match &steps {
        Some(steps) => steps.value.iter().map(|step| step.value.as_str()).collect(),
        None => vec!["defer"],
    };
    let (sheds_after, takes_age) = match named.as_slice() {
        ["defer"] => (None, false),
        ["shed"] => (Some(Duration::ZERO), false),
        ["defer", "shed"] => (max_age.as_ref().map(|age| age.value.unsigned_abs()), true),
        _ => {
            let message = "`when_short` is `[\"defer\"]`, `[\"shed\"]` or `[\"defer\", \"shed\"]`, in this order";
            problems.error(steps.as_ref().map_or(&table.place, |steps| &steps.place), message);
            return None;
        }
    };
    match max_age {
        Some(max_age) if !takes_age => {
            let help = "set `when_short = [\"defer\", \"shed\"]`, or remove this line";
            problems.error_help(&max_age.place, "`max_age` needs `when_short` with both steps", help);
        }
        None if takes_age => {
            let help = "say how long a release may wait for bytes, as in `max_age = \"PT1H\"`";
            problems.error_help(&table.place, "`max_age` is missing", help);
        }
        _ => {}
    }
    Some(sheds_after)
}

/// What comes first at a destination must be able to go there. What tells only what has changed is not shed: what is told
/// after it would be taken for all that has.
pub(super) fn check(budgets: &BTreeMap<String, Declared>, policy: &PolicySet, problems: &Problems) {
    for (name, declared) in budgets {
        let Some(destination) = policy.destinations.get(name.as_str()) else { continue };
        let accepted: Vec<&str> = destination.accepts.iter().map(|accepted| accepted.value.as_str()).collect();
        for dataset in declared.first.iter().filter(|dataset| !accepted.contains(&dataset.value.as_str())) {
            let message = format!("destination `{name}` does not accept `{}`", dataset.value);
            problems.error_help(&dataset.place, message, hint(&dataset.value, &accepted));
        }
        let tells_changes = |name: &&str| policy.dataset(name).is_some_and(|(_, dataset)| dataset.only_on_change);
        let sheds = declared.settings.sheds_after.is_some();
        for dataset in accepted.iter().copied().filter(|_| sheds).filter(tells_changes) {
            problems.error_help(
                &declared.place,
                format!(
                    "`{dataset}` tells only what has changed (`only_on_change`): of a release that is shed, destination \
                     `{name}` would never hear"
                ),
                "set `when_short = [\"defer\"]`, or remove `only_on_change` of the dataset",
            );
        }
    }
}
