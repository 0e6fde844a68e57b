//! Datasets of one stream share their cells, unless they have noise: whether they can, and what is counted for them.

use std::sync::Arc;

use super::super::StreamPlan;
use crate::domain::aggregate::{COMBINATIONS_MAX, combinations};
use crate::domain::dataset::{Bounds, Dataset};
use crate::domain::document::{Place, Problems};
use crate::planted::planted;

/// Whether a dataset can share its cells with the first one of its stream. If not, adds a problem that says why. If
/// they part the records otherwise, the problem has an example of what they would tell of somebody.
pub(super) fn can_share(first: &Dataset, dataset: &Dataset, place: &Place, problems: &Problems) -> bool {
    let (stream, one, other) = (&dataset.stream, &first.name, &dataset.name);
    if first.only_on_change || dataset.only_on_change {
        let message =
            format!("dataset `{other}` shares its cells with `{one}`, so neither can tell only what has changed");
        problems.error_help(
            place,
            message,
            "remove `only_on_change`, make one dataset of them, or give one of them noise (`privacy`)",
        );
        return false;
    }
    if planted("partitions-let-through") || planted("overlaps-let-through") {
        return true;
    }
    let differ = first.parted_otherwise(dataset);
    let Some(what) = differ.first() else { return true };
    let (says, tells) = match *what {
        "group_by" => ("40 visits of a group", "39 of them in one of its groups"),
        "window.size" => ("40 visits from 10:00 to 10:10", "39 of them from 10:00 to 10:05"),
        "roll_up" => {
            ("40 visits in a remainder", "39 of them in cells that leave by themselves or in another remainder")
        }
        "max_defer" => ("40 visits in two windows together", "39 of them in the first one"),
        _ => ("40 visits, a late one among them", "39, as the late one is in its next window"),
    };
    if dataset.coarser_than.is_some() {
        let message =
            format!("dataset `{other}` cannot add up the rows of `{one}`: not the same `{}`", differ.join("`, `"));
        problems.error_help(
            place,
            message,
            format!(
                "a coarser dataset has some of the keys of `group_by`, with the same domains or edges. With all keys, its \
                 `window.size` is several times as long. The rest of `window` and `max_defer` are the same. Copy them from \
                 [datasets.{one}]"
            ),
        );
        return false;
    }
    let message = format!(
        "dataset `{other}` parts the records of stream `{stream}` otherwise than `{one}`: not the same `{}`",
        differ.join("`, `")
    );
    let help = format!(
        "whoever has both can subtract: `{one}` says {says}; `{other}` says {tells}, and withholds the rest, which is too small; \
         40 - 39 = 1 is told all the same. Give both the same `group_by`, `roll_up`, `window` and `max_defer`, make one dataset of them, \
         let the one with fewer keys or longer windows add up the rows of the other one (`coarser_than`), or give one of them \
         noise (`privacy`)"
    );
    problems.error_help(place, message, help);
    false
}

/// Sets what is counted for the datasets of a stream: once for all that share their cells, by the strictest bounds of any, and
/// for each that has noise by itself.
pub(super) fn join(plan: &mut StreamPlan, place_of: impl Fn(&Dataset) -> Option<Place>, problems: &Problems) {
    let (noised, mut exact): (Vec<_>, Vec<_>) = plan.datasets.iter().cloned().partition(|one| one.privacy.is_some());
    if exact.len() > 1 {
        let bounds = exact.iter().filter_map(|dataset| dataset.bounds).reduce(Bounds::stricter);
        let keeps_all = exact.iter().any(|dataset| dataset.keeps_all);
        for dataset in &mut exact {
            *dataset = Arc::new(Dataset { bounds, keeps_all, ..Dataset::clone(dataset) });
        }
    }
    let is_let_through = planted("partitions-let-through") || planted("overlaps-let-through");
    let together = if is_let_through { 1 } else { exact.len().max(1) };
    let counted = exact.chunks(together).filter_map(Dataset::counted_for);
    plan.counted = counted.chain(noised.iter().cloned()).collect();
    let last = exact.last().cloned();
    plan.datasets = exact.into_iter().chain(noised).collect();
    plan.datasets.sort_by(|one, other| one.name.cmp(&other.name));
    // What is too much in one alone was said of it.
    if let (Some(counted), Some(last)) = (plan.counted.first(), last)
        && counted.is_shared()
        && plan.datasets.iter().all(|dataset| combinations(dataset) <= COMBINATIONS_MAX)
        && combinations(counted) > COMBINATIONS_MAX
        && let Some(place) = place_of(&last)
    {
        let stream = &plan.stream.name;
        let message = format!(
            "the histograms and fractions of all datasets of stream `{stream}` part a cell's records into more than 2^64 \
             combinations"
        );
        problems.error_help(&place, message, "use fewer of them, or fewer ranges");
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::document::{Problem, Source, changed, changed_first};
    use crate::domain::policy::explain::tests::STREAM;
    use crate::domain::policy::fixture::tests::{SET, source};
    use crate::domain::policy::{PolicySet, read};
    use crate::domain::privacy::Rho;

    /// The sample with a second dataset over its stream, and what is said of it.
    pub(in super::super) fn with(second: &str) -> (PolicySet, Vec<Problem>) {
        let problems = Problems::default();
        let stream = changed(STREAM, "accepts = [\"visits_by_home\"]", "accepts = [\"visits_by_home\", \"more\"]");
        let second = format!("schema = \"bailiwick.policy/1\"\n[datasets.more]\nstream = \"visits\"\n{second}");
        let texts = SET.iter().copied().chain([stream.as_str(), second.as_str()]);
        let files: Vec<Arc<Source>> = texts.map(|text| source("set.toml", text)).collect();
        let set = read(&files, &problems);
        (set, problems.into_vec())
    }

    pub(in super::super) const ALIKE: &str = r#"
window   = { size = "PT5M", grace = "PT30S" }
min_contributors = 30
group_by = [{ field = "home", domain = ["DE", "FR"] }]
metrics  = [
  { name = "visits", fn = "count" },
  { name = "with_papers", fn = "fraction", field = "papers", equals = "FR" },
]
"#;

    #[test]
    fn datasets_that_part_the_records_alike_are_counted_once_by_the_strictest_rule_of_any() {
        let (set, problems) = with(ALIKE);
        assert!(problems.is_empty(), "{:?}", problems.first().map(|problem| &problem.message));
        let plan = &set.streams["visits"];
        let [counted] = plan.counted.as_slice() else { panic!("counted once") };
        let names: Vec<&str> = plan.datasets.iter().map(|dataset| dataset.name.as_str()).collect();
        assert_eq!((names, counted.name.as_str(), counted.metrics.len()), (vec!["more", "visits_by_home"], "more", 2));
        let (serves, day) = (["union-law".to_owned()], jiff::civil::Date::constant(2026, 1, 2));
        for dataset in plan.datasets.iter().map(|dataset| &dataset.name) {
            let limits = set.limits(dataset, &serves, day).unwrap();
            assert_eq!((limits.contributors.value, limits.contributors.by.as_str()), (30, "dataset more"));
            let outlets = set.outlets(dataset, &serves, day);
            let told: Vec<_> = outlets.iter().map(|outlet| (&outlet.dataset, outlet.min_contributors)).collect();
            assert_eq!(told, [(dataset, 30)]);
        }
    }

    #[test]
    fn one_that_parts_them_otherwise_is_refused_with_an_example_of_what_it_would_tell() {
        for (from, to, what, example) in [
            ("\"DE\", \"FR\"", "\"DE\"", "group_by", "39 of them in one of its groups"),
            ("\"PT5M\"", "\"PT10M\"", "window.size", "from 10:00 to 10:05"),
            ("PT30S", "PT1M", "window.grace", "a late one"),
            ("min_con", "max_defer = 2\nmin_con", "max_defer", "in two windows together"),
        ] {
            let (set, problems) = with(&changed_first(ALIKE, from, to));
            let [problem] = problems.as_slice() else { panic!("{what}: {} problems", problems.len()) };
            assert!(problem.message.ends_with(&format!("not the same `{what}`")), "{}", problem.message);
            let help = problem.help.clone().unwrap();
            assert!(help.contains(example) && help.contains("40 - 39 = 1"), "{help}");
            assert_eq!(set.streams["visits"].datasets.len(), 1);
        }
    }

    #[test]
    fn neither_of_two_that_share_their_cells_tells_only_what_has_changed() {
        let (_, problems) = with(&format!("only_on_change = true\n{ALIKE}"));
        let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
        assert!(messages.iter().any(|said| said.contains("neither can tell only what has changed")), "{messages:?}");
    }

    #[test]
    fn one_with_noise_has_cells_of_its_own_whatever_they_are() {
        let private = r#"
[release.private]
min_contributors = 40
records_per_contributor = 1
cells_per_contributor = 1
[datasets.more.privacy]
mechanism = "discrete_laplace"
rho_per_window = 0.01
rho_per_day = 0.1
"#;
        let count = "  { name = \"with_papers\", fn = \"fraction\", field = \"papers\", equals = \"FR\" },\n";
        let alone = changed_first(&changed_first(ALIKE, count, ""), "PT5M", "PT1H");
        let (set, problems) = with(&format!("release = \"private\"\n{alone}{private}"));
        assert!(problems.is_empty(), "{:?}", problems.first().map(|problem| &problem.message));
        let plan = &set.streams["visits"];
        let counted: Vec<_> = plan.counted.iter().map(|counted| (&*counted.name, counted.is_shared())).collect();
        assert_eq!(counted, [("visits_by_home", false), ("more", false)]);
        let names: Vec<&str> = plan.datasets.iter().map(|dataset| dataset.name.as_str()).collect();
        assert_eq!(names, ["more", "visits_by_home"]);
        let (serves, day) = (["union-law".to_owned()], jiff::civil::Date::constant(2026, 1, 2));
        let limits = |dataset: &str| {
            let limits = set.limits(&dataset.parse().unwrap(), &serves, day).unwrap();
            (limits.contributors.value, limits.records.map(|records| records.value), limits.privacy.is_some())
        };
        assert_eq!(limits("more"), (40, Some(1), true));
        assert_eq!(limits("visits_by_home"), (10, None, false));
        // One with a larger budget is no new budget.
        let larger =
            "[datasets.most.privacy]\nmechanism = \"discrete_laplace\"\nrho_per_window = 0.3\nrho_per_day = 0.5\n";
        let most = format!("[datasets.most]\nstream = \"visits\"\nrelease = \"private\"\n{alone}{larger}");
        let (set, problems) = with(&format!("release = \"private\"\n{alone}{private}{most}"));
        assert!(problems.is_empty(), "{:?}", problems.first().map(|problem| &problem.message));
        let per_day =
            |dataset: &str| set.limits(&dataset.parse().unwrap(), &serves, day).unwrap().privacy.unwrap().per_day;
        assert_eq!((per_day("most"), per_day("more")), (Rho::of(0.1).unwrap(), Rho::of(0.1).unwrap()));
    }

    #[test]
    fn one_that_shares_its_cells_has_no_override() {
        let relaxed = r#"
[[overrides]]
id = "few"
relaxes = "min_contributors"
value = 8
scope = { dataset = "visits_by_home", destination = "desk" }
reason = "a pilot"
approved = ["a", "b"]
until = 2026-12-31
"#;
        let (_, problems) = with(&format!("{ALIKE}{relaxed}"));
        let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
        assert!(messages.iter().any(|said| said.contains("shares its cells with `more`")), "{messages:?}");
    }
}
