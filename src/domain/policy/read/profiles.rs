//! Release profiles: `[release.NAME]`, and the names of those who use them.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use crate::domain::aggregate::ENOUGH;
use crate::domain::dataset::Bounds;
use crate::domain::document::keys::{Key, Kind, Shape};
use crate::domain::document::{Problems, Spot, Table, hint_of};
use crate::domain::name;
use crate::domain::policy::Profile;

use super::privacy::rho;
use super::{Declared, insert, rounding, told};

pub(super) const PROFILE: Shape = Shape {
    name: "release.NAME",
    about: "A release profile: what must be true of cells before they leave. Of several, the strictest of each value.",
    keys: &[
        Key::new("min_contributors", Kind::Count, "The fewest contributors of a cell, from 5 to 1000."),
        Key::new(
            "min_part",
            Kind::Count,
            "The fewest contributors of a part of a cell, from 3 to 1000. Default: as many as of a cell.",
        ),
        Key::new(
            "p_percent",
            Kind::Count,
            "What all but the two largest contributors add to a sum, at least, in percent of what the largest one adds: from 1 \
             to 100. Default: 10.",
        ),
        Key::new(
            "min_producers",
            Kind::Count,
            "2: there are as many contributors when the records of any one producer are taken away. 1: they may all be of one. \
             Default: 2 where a `[permissions]` rule lets producers write the stream and nobody vouches for them.",
        ),
        Key::new(
            "max_producer_share",
            Kind::Number,
            "The largest share of a cell's contributors that any one producer alone may have brought, and of what is added to a \
             sum: above 0 and below 1, to three decimals. Default: any.",
        ),
        told::OF_PROFILE,
        rounding::OF_PROFILE,
        Key::new(
            "records_per_contributor",
            Kind::Count,
            "How many records of one contributor count in a cell of a window, at most, from 1 to 1000: others are left out by \
             lot. Default: all count.",
        ),
        Key::new(
            "cells_per_contributor",
            Kind::Count,
            "In how many cells of a window the records of one contributor count, at most, from 1 to 1000. It needs \
             `records_per_contributor`. Default: in any number.",
        ),
        Key::new(
            "rho_per_day",
            Kind::Number,
            "Cells leave only with differential privacy, and of one contributor a day's releases tell no more than this: rho of \
             zCDP, from 0.000001 to 0.5. Default: no noise is asked for.",
        ),
        Key::new("min_window", Kind::Duration, "The shortest window that may leave."),
    ],
};

/// In a regime or a dataset: the profile that it names.
pub(super) const RELEASE: Key = Key::new("release", Kind::Text, "The release profile that holds for it.");

/// The default of `min_contributors`. CMS suppresses cells of 1 to 10 in US Medicare data
/// (<https://resdac.org/articles/cms-cell-size-suppression-policy>).
pub(super) const MIN_CONTRIBUTORS: usize = 10;
/// Below this no aggregate is taken for one.
const MIN_CONTRIBUTORS_LEAST: usize = 5;
/// Of more than this a cell does not tell whether it has them: [`ENOUGH`].
const MIN_CONTRIBUTORS_MOST: usize = ENOUGH;

/// Bounds of more than this would keep as much as none.
const BOUND_MOST: usize = 1_000;

/// Below this no part is taken for more than single persons.
const MIN_PART_LEAST: usize = 3;

/// Reads the profiles of a file.
pub(super) fn read(table: &Table<'_>, declared: &mut Declared) {
    for (name, table) in table.named("release") {
        let problems = table.problems();
        name::check("release profile", &name, problems);
        let min_contributors = table.get::<usize>("min_contributors").filter(|least| check_least(least, problems));
        let min_part = table.get::<usize>("min_part").filter(|least| check_part(least, problems));
        let percent = table.get::<usize>("p_percent").filter(|percent| check_percent(percent, problems));
        let min_producers = table.get::<usize>("min_producers").filter(|least| check_producers(least, problems));
        let share = table.get::<f64>("max_producer_share");
        let bounds = bounds(&table);
        let rho_per_day = table.get::<f64>("rho_per_day").and_then(|stated| rho(&stated, "rho_per_day", problems));
        let min_window = table.get::<SignedDuration>("min_window");
        let profile = Profile {
            name: name.value.clone(),
            min_contributors: min_contributors.map(|least| least.value),
            min_part: min_part.map(|least| least.value),
            percent: percent.and_then(|percent| u32::try_from(percent.value).ok()),
            min_producers: min_producers.map(|least| least.value),
            beside: share.and_then(|share| beside(&share, problems)),
            bounds,
            never_tells_contributors: told::forbids(&table),
            rounding: rounding::read(&table),
            rho_per_day,
            min_window: min_window.map(|window| window.value.unsigned_abs()),
        };
        insert(&mut declared.profiles, name, profile, problems);
        table.done();
    }
}

/// How many of a thousand are beside the largest share.
fn beside(share: &Spot<f64>, problems: &Problems) -> Option<u32> {
    let thousandths = (share.value * 1_000.0).round();
    let is_one = (1.0..=999.0).contains(&thousandths) && (thousandths / 1_000.0 - share.value).abs() < 1e-9;
    if !is_one {
        let message =
            format!("this is {}, and `max_producer_share` is above 0 and below 1, to three decimals", share.value);
        problems.error_help(&share.place, message, "use 0.5, or leave it out");
    }
    is_one.then_some(1_000 - thousandths as u32)
}

/// How many records of one contributor count. In how many cells is not bounded alone: then any number would be kept.
fn bounds(table: &Table<'_>) -> Option<Bounds> {
    let most = |key: &str| {
        let most = table.get::<usize>(key)?;
        let is_one = (1..=BOUND_MOST).contains(&most.value);
        if !is_one {
            let message = format!("this is {}, and `{key}` is from 1 to {BOUND_MOST}", most.value);
            table.problems().error_help(&most.place, message, "use a smaller number, or leave it out");
        }
        u32::try_from(most.value).ok().filter(|_| is_one).map(|value| Spot { value, place: most.place })
    };
    let (records, cells) = (most("records_per_contributor"), most("cells_per_contributor"));
    if let (None, Some(cells)) = (&records, &cells)
        && table.get::<usize>("records_per_contributor").is_none()
    {
        let message = "`cells_per_contributor` needs `records_per_contributor`";
        table.problems().error_help(
            &cells.place,
            message,
            "say how many records of one contributor count in each cell",
        );
    }
    Some(Bounds { records_per_cell: records?.value, cells_per_window: cells.map(|cells| cells.value) })
}

/// `min_contributors`, or its default; less than five is an error, and so is more than a cell can tell.
pub(super) fn min_contributors(table: &Table<'_>, default: usize) -> Option<usize> {
    let Some(least) = table.get::<usize>("min_contributors") else { return Some(default) };
    // Reading goes on after an error, so that what else is wrong is reported too.
    Some(if check_least(&least, table.problems()) { least.value } else { default })
}

/// Reports a number of contributors that is too small for anything, or greater than a cell can tell.
pub(super) fn check_least(least: &Spot<usize>, problems: &Problems) -> bool {
    if least.value > MIN_CONTRIBUTORS_MOST {
        let message = format!(
            "this is {}, and of more than {MIN_CONTRIBUTORS_MOST} contributors a cell does not tell whether it has them",
            least.value
        );
        problems.error_help(&least.place, message, format!("use {MIN_CONTRIBUTORS_MOST} or fewer"));
        return false;
    }
    if least.value >= MIN_CONTRIBUTORS_LEAST {
        return true;
    }
    let message = format!(
        "this is {}, and a cell of fewer than {MIN_CONTRIBUTORS_LEAST} contributors gives people away",
        least.value
    );
    problems.error_help(&least.place, message, format!("use {MIN_CONTRIBUTORS} or more"));
    false
}

fn check_part(least: &Spot<usize>, problems: &Problems) -> bool {
    if least.value < MIN_PART_LEAST {
        let message = format!(
            "this is {}, and a part of fewer than {MIN_PART_LEAST} contributors gives people away",
            least.value
        );
        problems.error_help(&least.place, message, format!("use {MIN_PART_LEAST} or more, or leave it out"));
        return false;
    }
    // More than a cell can tell is too many for a part too.
    least.value <= ENOUGH || check_least(least, problems)
}

fn check_percent(percent: &Spot<usize>, problems: &Problems) -> bool {
    let is_one = (1..=100).contains(&percent.value);
    if !is_one {
        let message = format!("this is {}, and `p_percent` is from 1 to 100", percent.value);
        problems.error_help(&percent.place, message, "use 10, or leave it out");
    }
    is_one
}

fn check_producers(least: &Spot<usize>, problems: &Problems) -> bool {
    let is_one = matches!(least.value, 1 | 2);
    if !is_one {
        let message = format!("this is {}, and `min_producers` is 1 or 2", least.value);
        let help = "use 2: then nothing that leaves rests on the word of one producer";
        problems.error_help(&least.place, message, help);
    }
    is_one
}

/// The profile that a regime or a dataset names; an empty one where it names none.
pub(super) fn named(
    name: Option<&Spot<String>>,
    profiles: &BTreeMap<String, Spot<Profile>>,
    problems: &Problems,
) -> Profile {
    let Some(name) = name else { return Profile::default() };
    if let Some(profile) = profiles.get(&name.value) {
        return profile.value.clone();
    }
    let help = hint_of(&name.value, profiles.keys().map(String::as_str));
    problems.error_help(&name.place, format!("there is no release profile `{}`", name.value), help);
    Profile::default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::document::changed_first;
    use crate::domain::policy::explain::tests::STREAM;
    use crate::domain::policy::fixture::tests::{SET, source};
    use crate::domain::policy::read;

    /// What is wrong with the sample when it has this profile, and its dataset names a profile.
    fn wrong(profile: &str, named: &str) -> Vec<String> {
        let problems = Problems::default();
        let stream = changed_first(STREAM, "group_by", &format!("release = \"{named}\"\ngroup_by"));
        let profile = format!("schema = \"bailiwick.policy/1\"\n[release.strict]\n{profile}");
        let texts = SET.iter().copied().chain([stream.as_str(), profile.as_str()]);
        let files: Vec<Arc<_>> = texts.map(|text| source("set.toml", text)).collect();
        read(&files, &problems);
        problems.into_vec().into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn what_is_wrong_with_a_profile_is_said() {
        assert_eq!(wrong("min_contributors = 20\nmin_part = 3\nmin_window = \"PT5M\"", "strict"), [""; 0]);
        assert_eq!(wrong("records_per_contributor = 1000\ncells_per_contributor = 1", "strict"), [""; 0]);
        let message = "`cells_per_contributor` needs `records_per_contributor`";
        assert_eq!(wrong("cells_per_contributor = 1", "strict"), [message]);
        for (number, key) in
            [(0, "records_per_contributor"), (1001, "records_per_contributor"), (0, "cells_per_contributor")]
        {
            let other = if key.starts_with("cells") { "records_per_contributor = 1" } else { "" };
            let message = format!("this is {number}, and `{key}` is from 1 to 1000");
            assert_eq!(wrong(&format!("{key} = {number}\n{other}"), "strict"), [message]);
        }
        assert_eq!(wrong("max_producer_share = 0.333", "strict"), [""; 0]);
        for share in ["0", "1", "0.3333", "-0.5"] {
            let value: f64 = share.parse().unwrap();
            let message =
                format!("this is {value}, and `max_producer_share` is above 0 and below 1, to three decimals");
            assert_eq!(wrong(&format!("max_producer_share = {share}"), "strict"), [message]);
        }
        assert_eq!(wrong("min_part = 3", "strikt"), ["there is no release profile `strikt`"]);
        let few = "this is 2, and a part of fewer than 3 contributors gives people away";
        assert_eq!(wrong("min_part = 2", "strict"), [few]);
        let few = "this is 4, and a cell of fewer than 5 contributors gives people away";
        assert_eq!(wrong("min_contributors = 4", "strict"), [few]);
        assert_eq!(wrong("min_part = 1001", "strict").len(), 1);
        assert_eq!(wrong("p_percent = 0", "strict"), ["this is 0, and `p_percent` is from 1 to 100"]);
        assert_eq!(wrong("p_percent = 101", "strict"), ["this is 101, and `p_percent` is from 1 to 100"]);
        assert_eq!(wrong("p_percent = 100", "strict"), [""; 0]);
        assert_eq!(wrong("min_producers = 0", "strict"), ["this is 0, and `min_producers` is 1 or 2"]);
        assert_eq!(wrong("min_producers = 3", "strict"), ["this is 3, and `min_producers` is 1 or 2"]);
        assert_eq!(wrong("min_producers = 2", "strict"), [""; 0]);
        assert_eq!(wrong("contributors = \"never\"", "strict"), [""; 0]);
        assert_eq!(wrong("contributors = \"exact\"", "strict"), ["`exact` cannot be used here"]);
        assert_eq!(wrong("min_parts = 5", "strict"), ["unknown key `min_parts`"]);
        let [short] = &wrong("min_window = \"PT6M\"", "strict")[..] else { panic!("one problem") };
        assert!(short.starts_with("the windows are 5m long") && short.ends_with("`strict` asks for 6m"), "{short}");
    }
}
