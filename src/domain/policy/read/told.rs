//! Whether it is told how many contributors a cell has: `contributors`, of a dataset and of a release profile.

use super::words::choice_if;
use crate::domain::document::keys::{Key, Kind};
use crate::domain::document::{Place, Problems, Spot, Table};
use crate::domain::policy::Profile;

const WORDS: [(&str, bool); 2] = [("never", false), ("bucket", true)];
const NAMES: [&str; 2] = [WORDS[0].0, WORDS[1].0];

pub(super) const OF_DATASET: Key = Key::new(
    "contributors",
    Kind::Word(&NAMES),
    "Whether a release says how many contributors each cell has at least, as the largest of a few steps (bucket). \
     Default: never.",
);

pub(super) const OF_PROFILE: Key = Key::new(
    "contributors",
    Kind::Word(&NAMES),
    "Whether it may be told how many contributors a cell has at least: never, or if a dataset asks for it (bucket). \
     Default: bucket.",
);

/// Whether a dataset asks for it.
pub(super) fn asks(table: &Table<'_>) -> bool {
    choice_if(table, OF_DATASET.name, &WORDS).unwrap_or(false)
}

/// Whether a profile forbids it.
pub(super) fn forbids(table: &Table<'_>) -> bool {
    choice_if(table, OF_PROFILE.name, &WORDS) == Some(false)
}

/// A dataset with noise cannot ask for it.
pub(super) fn check_privacy(place: &Place, problems: &Problems) {
    let message =
        "with differential privacy every number has noise, and `contributors = \"bucket\"` would tell one without";
    problems.error_help(place, message, "remove `contributors`, or `privacy`");
}

/// A dataset cannot ask for what the profile that it names forbids.
pub(super) fn check_profile(named: &Spot<String>, profile: &Profile, problems: &Problems) {
    if profile.never_tells_contributors {
        let message = format!(
            "the dataset asks for `contributors = \"bucket\"`, and release profile `{}` says never",
            named.value
        );
        problems.error_help(&named.place, message, "remove `contributors` of the dataset, or name another profile");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::domain::document::{Problems, changed_first};
    use crate::domain::policy::explain::tests::STREAM;
    use crate::domain::policy::fixture::tests::{SET, source};
    use crate::domain::policy::read;

    /// What is wrong with the sample when its dataset says this too, beside these tables.
    fn wrong(dataset: &str, metric: &str, tables: &str) -> Vec<String> {
        let problems = Problems::default();
        let stream = changed_first(STREAM, "group_by", &format!("{dataset}\ngroup_by"));
        let stream = changed_first(&stream, "name = \"visits\"", &format!("name = \"{metric}\""));
        let tables = format!("schema = \"bailiwick.policy/1\"\n{tables}");
        let texts = SET.iter().copied().chain([stream.as_str(), tables.as_str()]);
        let files: Vec<Arc<_>> = texts.map(|text| source("set.toml", text)).collect();
        read(&files, &problems);
        problems.into_vec().into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn where_it_cannot_be_told_how_many_contributors_there_are_is_said() {
        let bucket = "contributors = \"bucket\"";
        assert_eq!(wrong(bucket, "visits", ""), [""; 0]);
        assert_eq!(wrong("contributors = \"never\"", "contributors_at_least", ""), [""; 0]);
        assert_eq!(wrong("contributors = \"exact\"", "visits", ""), ["`exact` cannot be used here"]);
        let taken = "a release already has a column `Contributors_at_least`";
        assert_eq!(wrong(bucket, "Contributors_at_least", ""), [taken]);
        let never = "[release.quiet]\ncontributors = \"never\"\n";
        let refused = "the dataset asks for `contributors = \"bucket\"`, and release profile `quiet` says never";
        assert_eq!(wrong(&format!("{bucket}\nrelease = \"quiet\""), "visits", never), [refused]);
        assert_eq!(wrong("release = \"quiet\"", "visits", never), [""; 0]);
        let noise = "privacy = { mechanism = \"discrete_laplace\", rho_per_window = 0.01, rho_per_day = 0.1 }";
        let bounds = "[release.noise]\nrecords_per_contributor = 2\ncells_per_contributor = 1\n";
        let refused =
            "with differential privacy every number has noise, and `contributors = \"bucket\"` would tell one without";
        assert_eq!(wrong(&format!("{bucket}\nrelease = \"noise\"\n{noise}"), "visits", bounds), [refused]);
    }
}
