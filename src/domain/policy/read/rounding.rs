//! Rounding: `round_counts_to` of a release profile, and whether those of all who have a say go together.

use super::super::PolicySet;
use crate::domain::document::keys::{Key, Kind};
use crate::domain::document::{Place, Problems, Table};
use crate::domain::rounding::Rounding;

pub(super) const OF_PROFILE: Key = Key::new(
    "round_counts_to",
    Kind::Count,
    "Every count leaves as the nearest multiple of this base, from 2 to 1000, and of two the greater one. Of several bases the \
     least common multiple holds. Default: counts are exact.",
);

/// What a profile says.
pub(super) fn read(profile: &Table<'_>) -> Option<Rounding> {
    let stated = profile.get::<usize>(OF_PROFILE.name)?;
    let rounding = Rounding::to_multiples_of(stated.value);
    if rounding.is_none() {
        let message = format!(
            "this is {}, and `{}` is from {} to {}",
            stated.value,
            OF_PROFILE.name,
            Rounding::LEAST,
            Rounding::MOST
        );
        profile.problems().error_help(&stated.place, message, "use 5 or 10, or leave it out");
    }
    rounding
}

/// Reports datasets of which nobody could be given what they ask for. Every regime counts that covers the stream, whatever the
/// day and wherever it is served, so that no day and no reload brings a dataset to that. Datasets that share their cells are
/// rounded alike, and one of them is named.
pub(super) fn check<'p>(set: &PolicySet, place_of: impl Fn(&str) -> Option<&'p Place>, problems: &Problems) {
    for plan in set.streams.values() {
        let first_of_all = plan
            .datasets
            .iter()
            .filter(|dataset| plan.sharing(dataset).next().is_some_and(|first| first.name == dataset.name));
        for dataset in first_of_all {
            let (Err(asked), Some(place)) = (set.widest_rounding(plan, dataset), place_of(&dataset.name)) else {
                continue;
            };
            let each: Vec<String> = asked.iter().map(|asked| format!("{} for {}", asked.by, asked.value)).collect();
            let message = format!(
                "the counts of dataset `{}` would have to be multiples of all that is asked for, and the least such number is \
                 above {}: {}",
                dataset.name,
                Rounding::MOST,
                each.join(", ")
            );
            let help =
                format!("let each `{}` be a multiple of the next smaller one, as of 5, 10 and 50", OF_PROFILE.name);
            problems.error_help(place, message, help);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::domain::document::{Problems, changed_first};
    use crate::domain::policy::explain::tests::STREAM;
    use crate::domain::policy::fixture::tests::{SET, source};
    use crate::domain::policy::read;

    /// What is wrong with the sample, with the help, when its dataset and its regimes name profiles with these lines.
    fn wrong(of_dataset: &str, of_union: &str, of_br: &str) -> Vec<(String, String)> {
        let problems = Problems::default();
        let [regions, classes, union, br] = SET;
        let named = |text: &str, before: &str, name: &str| {
            changed_first(text, before, &format!("release = \"{name}\"\n{before}"))
        };
        let profiles = format!(
            "schema = \"bailiwick.policy/1\"\n[release.own]\n{of_dataset}\n[release.union]\n{of_union}\n[release.br]\n{of_br}"
        );
        let stream = named(STREAM, "group_by", "own");
        let (union, br) = (named(union, "[[applies]]", "union"), named(br, "[[applies]]", "br"));
        let texts = [regions, classes, &union, &br, &stream, &profiles];
        let files: Vec<Arc<_>> = texts.into_iter().map(|text| source("set.toml", text)).collect();
        read(&files, &problems);
        let said = |problem: crate::domain::document::Problem| (problem.message, problem.help.unwrap_or_default());
        problems.into_vec().into_iter().map(said).collect()
    }

    #[test]
    fn what_is_no_base_is_said() {
        for base in [2, 5, 1_000] {
            assert_eq!(wrong(&format!("round_counts_to = {base}"), "", ""), []);
        }
        for base in [0, 1, 1_001] {
            let message = format!("this is {base}, and `round_counts_to` is from 2 to 1000");
            let help = "use 5 or 10, or leave it out".to_owned();
            assert_eq!(wrong(&format!("round_counts_to = {base}"), "", ""), [(message, help)]);
        }
        for value in ["-5", "5.0", "\"5\"", "true", "[5]", "99999999999999999999"] {
            let wrong = wrong(&format!("round_counts_to = {value}"), "", "");
            assert_eq!(wrong.len(), 1, "{value}: {wrong:?}");
        }
        assert_eq!(wrong("round_count_to = 5", "", "")[0].0, "unknown key `round_count_to`");
    }

    #[test]
    fn what_cannot_go_together_is_said_of_all_who_ask_and_of_no_others() {
        let of = |own: usize, union: usize, br: usize| {
            let [own, union, br] = [own, union, br].map(|base| match base {
                1 => String::new(),
                base => format!("round_counts_to = {base}"),
            });
            wrong(&own, &union, &br)
        };
        for fine in [(1, 1, 1), (1_000, 500, 8), (4, 6, 9), (1, 25, 40)] {
            assert_eq!(of(fine.0, fine.1, fine.2), [], "{fine:?}");
        }
        let message = "the counts of dataset `visits_by_home` would have to be multiples of all that is asked for, and the least \
                       such number is above 1000: dataset visits_by_home, by release profile own for 7, regime union-law, by release \
                       profile union for 999";
        let help = "let each `round_counts_to` be a multiple of the next smaller one, as of 5, 10 and 50";
        assert_eq!(of(7, 999, 3), [(message.to_owned(), help.to_owned())]);
    }
}
