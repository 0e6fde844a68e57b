//! Coarser datasets, and those with longer windows: whether one can add up the rows of another one.

use super::super::StreamPlan;
use crate::domain::dataset::Dataset;
use crate::domain::document::keys::{Key, Kind};
use crate::domain::document::{Place, Problems, Spot, hint};

pub(super) const COARSER_THAN: Key = Key::new(
    "coarser_than",
    Kind::Text,
    "The finer dataset of the same stream: this one adds up the rows that leave of it, over the keys that it does not have, and \
     over the windows in its own longer ones.",
);

/// What a dataset declares that adds up the rows of another one.
pub(super) struct Declared<'d> {
    /// The other one.
    pub(super) finer: &'d Spot<String>,
    /// The stream that the other one is declared of, if it is declared at all.
    pub(super) stream_of_finer: Option<&'d str>,
    /// Where it gives up a key itself.
    pub(super) gives_up: Option<&'d Place>,
}

/// Checks a dataset that adds up the rows of another one. Whether it can.
pub(super) fn check(declared: &Declared<'_>, dataset: &Dataset, plan: &StreamPlan, problems: &Problems) -> bool {
    let Declared { finer, stream_of_finer, gives_up } = *declared;
    let (name, stream) = (&finer.value, &dataset.stream);
    let wrong = |message: String, help: String| {
        problems.error_help(&finer.place, message, help);
        false
    };
    let Some(found) = plan.datasets.iter().find(|other| other.name == name.as_str()) else {
        if stream_of_finer.is_some_and(|of| of == stream.as_str() && *name != *dataset.name) {
            // It was refused, and why was said.
            return false;
        }
        let others = plan.datasets.iter().filter(|other| other.coarser_than.is_none());
        let names: Vec<&str> = others.map(|other| other.name.as_str()).collect();
        return wrong(format!("stream `{stream}` has no finer dataset `{name}`"), hint(name, &names));
    };
    if let Some(finest) = &found.coarser_than {
        return wrong(
            format!("`{name}` adds up the rows of `{finest}` itself"),
            format!("say coarser_than = \"{finest}\": all coarser datasets of a stream name the finest one"),
        );
    }
    if found.privacy.is_some() || dataset.privacy.is_some() {
        return wrong(
            "with differential privacy a dataset has cells of its own, with any keys".to_owned(),
            "remove `coarser_than`, or `privacy` in both datasets".to_owned(),
        );
    }
    if found.window < dataset.window && found.max_defer > 0 {
        return wrong(
            format!("the cells of `{name}` wait (`max_defer`), so a row of it can be of windows before a longer one"),
            "remove `max_defer` in both datasets, or give both the same `window.size`".to_owned(),
        );
    }
    if let Some(place) = gives_up {
        problems.error_help(
            place,
            format!("`{name}` says which keys are given up for cells that fail: its remainders are added up, too"),
            format!("remove `roll_up` here, and say it in [datasets.{name}]"),
        );
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::shared::tests::{ALIKE, with};
    use crate::domain::document::changed_first;

    /// A dataset that has no keys.
    fn coarser(finer: &str) -> String {
        let keys = "group_by = [{ field = \"home\", domain = [\"DE\", \"FR\"] }]\n";
        format!("coarser_than = \"{finer}\"\n{}", changed_first(ALIKE, keys, ""))
    }

    const PRIVACY: &str =
        "[datasets.more.privacy]\nmechanism = \"discrete_laplace\"\nrho_per_window = 0.01\nrho_per_day = 0.1\n";

    #[test]
    fn one_with_fewer_keys_is_counted_with_the_finer_one() {
        let (set, problems) = with(&coarser("visits_by_home"));
        assert!(problems.is_empty(), "{:?}", problems.first().map(|problem| &problem.message));
        let [counted] = set.streams["visits"].counted.as_slice() else { panic!("counted once") };
        let views: Vec<_> = counted.views().into_iter().map(|view| (view.dataset.name.as_str(), view.keys)).collect();
        // The finer one comes first, whatever their names are.
        assert_eq!(views, [("visits_by_home", vec![0]), ("more", vec![])]);
    }

    #[test]
    fn one_with_windows_of_several_is_counted_with_the_finer_one_whatever_its_keys_are() {
        let all_keys = format!("coarser_than = \"visits_by_home\"\n{ALIKE}");
        for second in [coarser("visits_by_home"), all_keys] {
            let (set, problems) = with(&changed_first(&second, "PT5M", "PT1H"));
            assert!(problems.is_empty(), "{:?}", problems.first().map(|problem| &problem.message));
            let [counted] = set.streams["visits"].counted.as_slice() else { panic!("counted once") };
            let longer: Vec<bool> = counted.views().into_iter().map(|view| view.is_longer(counted)).collect();
            assert_eq!((longer, counted.window.as_secs()), (vec![false, true], 300));
        }
    }

    #[test]
    fn one_that_cannot_add_up_is_refused() {
        let same_keys = format!("coarser_than = \"visits_by_home\"\n{ALIKE}");
        let other = |from: &str, to: &str| changed_first(&coarser("visits_by_home"), from, to);
        for (second, said) in [
            (coarser("visits_by_hom"), "stream `visits` has no finer dataset `visits_by_hom`"),
            (coarser("more"), "stream `visits` has no finer dataset `more`"),
            (same_keys, "dataset `more` cannot add up the rows of `visits_by_home`: not the same `group_by`"),
            (
                other("PT5M", "PT7M"),
                "dataset `more` cannot add up the rows of `visits_by_home`: not the same `window.size`",
            ),
            (
                other("PT5M", "PT1M"),
                "dataset `more` cannot add up the rows of `visits_by_home`: not the same `window.size`",
            ),
            (
                changed_first(&other("PT30S", "PT1M"), "PT5M", "PT10M"),
                "dataset `more` cannot add up the rows of `visits_by_home`: not the same `window.grace`",
            ),
            (
                format!("{}{PRIVACY}", coarser("visits_by_home")),
                "with differential privacy a dataset has cells of its own, with any keys",
            ),
        ] {
            let (set, problems) = with(&second);
            let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
            assert!(messages.iter().any(|message| message.contains(said)), "{said}: {messages:?}");
            assert!(set.streams["visits"].datasets.iter().all(|dataset| dataset.name != "more"), "{said}");
        }
    }
}
