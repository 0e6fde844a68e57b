//! What is asked of the cells of a dataset before they leave. Several may ask for it; the strictest of them decides.

use std::sync::Arc;
use std::time::Duration;

use jiff::civil::Date;

use super::{PolicySet, Profile, Regime, StreamPlan};
use crate::domain::dataset::Dataset;
use crate::domain::name::DatasetName;
use crate::domain::privacy::{Privacy, Rho};
use crate::domain::proof::Vouched;
use crate::domain::rounding::Rounding;

/// A value, and who asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked<T> {
    /// The value.
    pub value: T,
    /// Who asks for it, such as `regime eu-gdpr` or `dataset visits, by release profile strict`.
    pub by: String,
}

/// What must be true of a dataset's cells before they leave: of each value the strictest that anyone asks for. Datasets that
/// share their cells have the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The least number of contributors of a cell.
    pub contributors: Asked<usize>,
    /// The least number of contributors of a part of a cell.
    pub part: Asked<usize>,
    /// What all but the two largest contributors must add to a sum, in percent of what the largest one adds.
    pub percent: Asked<u32>,
    /// 2: the contributors are as many when the records of any single producer are taken away. 1: they need not be.
    pub producers: Asked<usize>,
    /// Of a thousand contributors of a cell at least so many are brought by others than any single producer. `None`: nobody
    /// asks for it.
    pub beside: Option<Asked<u32>>,
    /// Whether it is told how many contributors a cell has at least. The dataset asks for it, and anyone can forbid it.
    pub told: Asked<bool>,
    /// To which multiples counts are rounded. `None`: they are not.
    pub rounding: Option<Asked<Rounding>>,
    /// How many records of one contributor count in a cell, at most. `None`: all of them.
    pub records: Option<Asked<u32>>,
    /// In how many cells of a window. `None`: in any number.
    pub cells: Option<Asked<u32>>,
    /// The noise that numbers get. `None`: none.
    pub privacy: Option<Privacy>,
    /// What all releases of a day may tell of one contributor. `None`: nobody asks for noise.
    pub rho_per_day: Option<Asked<Rho>>,
    /// The shortest window. `None`: nobody asks for one.
    pub window: Option<Asked<Duration>>,
    /// Whether no part may be empty, because a class is special.
    pub not_empty: bool,
}

impl Limits {
    /// The largest share that one producer may bring of a cell's contributors. `None`: any.
    #[must_use]
    pub fn producer_share(&self) -> Option<Asked<f64>> {
        let share = |beside: u32| f64::from(1_000_u32.saturating_sub(beside)) / 1_000.0;
        self.beside.as_ref().map(|beside| Asked { value: share(beside.value), by: beside.by.clone() })
    }
}

/// The least number of contributors of records of a special category
/// (a common choice: Google Ads Data Hub asks 20 with noise; no law names a number).
const MIN_CONTRIBUTORS_SPECIAL: usize = 20;

/// The percent of the p%-rule for whoever names none. Statistical offices use 10 to 15 (Handbook on Statistical
/// Disclosure Control, 4.2.2).
const PERCENT: u32 = 10;

/// How policies stand to those in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// They are.
    InForce,
    /// They were, and records of open windows were decided under them. They ask for what they say; what holds where nobody
    /// says anything is asked by those in force.
    Before,
}

/// Who asks policies, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking<'a> {
    /// The regimes that the gateway serves.
    pub(super) serves: &'a [String],
    /// The day.
    pub(super) day: Date,
    /// How the policies stand to those in force.
    pub(super) standing: Standing,
}

/// The condition that somebody shows of a stream or a dataset whose producers invent no contributors.
pub(super) const TRUSTED_PRODUCERS: &str = "origin.trusted_producers";

/// Someone who has a say: what is asked for without a profile, and with it.
struct Party<'p> {
    name: String,
    min_contributors: usize,
    profile: Option<&'p Profile>,
}

impl<'p> Party<'p> {
    fn regime(regime: &'p Regime) -> Self {
        Self {
            name: format!("regime {}", regime.id),
            min_contributors: regime.min_contributors,
            profile: Some(&regime.release),
        }
    }

    fn asked<T>(&self, value: T, by_profile: bool) -> Asked<T> {
        let profile = self.profile.filter(|profile| by_profile && !profile.name.is_empty());
        let by = match profile {
            Some(profile) => format!("{}, by release profile {}", self.name, profile.name),
            None => self.name.clone(),
        };
        Asked { value, by }
    }

    fn contributors(&self) -> Asked<usize> {
        let by_profile = self.profile.and_then(|profile| profile.min_contributors);
        match by_profile.filter(|least| *least > self.min_contributors) {
            Some(least) => self.asked(least, true),
            None => self.asked(self.min_contributors, false),
        }
    }

    /// Whoever says nothing about parts asks for as many contributors of a part as of a cell.
    fn part(&self) -> Asked<usize> {
        match self.profile.and_then(|profile| profile.min_part) {
            Some(least) => self.asked(least, true),
            None => self.contributors(),
        }
    }

    fn percent(&self) -> Asked<u32> {
        match self.profile.and_then(|profile| profile.percent) {
            Some(percent) => self.asked(percent, true),
            None => self.asked(PERCENT, false),
        }
    }

    fn producers(&self) -> Option<Asked<usize>> {
        self.profile?.min_producers.map(|least| self.asked(least, true))
    }

    fn beside(&self) -> Option<Asked<u32>> {
        self.profile?.beside.map(|beside| self.asked(beside, true))
    }

    /// Whether it forbids that it is told how many contributors a cell has at least.
    fn forbids_telling(&self) -> Option<Asked<bool>> {
        let forbids = self.profile?.never_tells_contributors;
        forbids.then(|| self.asked(false, true))
    }

    fn rounding(&self) -> Option<Asked<Rounding>> {
        self.profile?.rounding.map(|rounding| self.asked(rounding, true))
    }

    fn records(&self) -> Option<Asked<u32>> {
        self.profile?.bounds.map(|bounds| self.asked(bounds.records_per_cell, true))
    }

    fn cells(&self) -> Option<Asked<u32>> {
        self.profile?.bounds?.cells_per_window.map(|cells| self.asked(cells, true))
    }

    fn rho_per_day(&self) -> Option<Asked<Rho>> {
        self.profile?.rho_per_day.map(|rho| self.asked(rho, true))
    }

    fn window(&self) -> Option<Asked<Duration>> {
        self.profile?.min_window.map(|window| self.asked(window, true))
    }
}

/// The strictest, of equals the first.
fn strictest<T: PartialOrd>(asked: impl Iterator<Item = Asked<T>>) -> Option<Asked<T>> {
    asked.reduce(|strictest, next| if next.value > strictest.value { next } else { strictest })
}

/// The least, of equals the first.
fn least<T: PartialOrd>(asked: impl Iterator<Item = Asked<T>>) -> Option<Asked<T>> {
    asked.reduce(|least, next| if next.value < least.value { next } else { least })
}

/// The rounding that gives everyone what they ask for: one alone if it covers the others, else by the word of all who are needed.
/// `Err`: its base is too large, and who asks for what.
fn together(asked: impl Iterator<Item = Asked<Rounding>>) -> Result<Option<Asked<Rounding>>, Vec<Asked<Rounding>>> {
    let mut needed: Vec<Asked<Rounding>> = Vec::new();
    for next in asked {
        if !needed.iter().any(|known| known.value.covers(next.value)) {
            needed.retain(|known| !next.value.covers(known.value));
            needed.push(next);
        }
    }
    let value = Rounding::of_all(needed.iter().map(|asked| asked.value));
    match needed.as_slice() {
        _ if value.is_too_large() => Err(needed),
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        several => {
            let each = several.iter().map(|asked| format!("{} ({})", asked.by, asked.value));
            Ok(Some(Asked { value, by: each.collect::<Vec<_>>().join(" and ") }))
        }
    }
}

impl PolicySet {
    /// What must be true of a dataset's cells on a day, at a gateway that serves these regimes. `None`: there is no such
    /// dataset, or no regime governs it, and nothing of it leaves.
    #[must_use]
    pub fn limits(&self, dataset: &DatasetName, serves: &[String], day: Date) -> Option<Limits> {
        self.limits_asked(dataset, Asking { serves, day, standing: Standing::InForce })
    }

    /// The same as these policies stand.
    pub(super) fn limits_asked(&self, dataset: &DatasetName, asking: Asking<'_>) -> Option<Limits> {
        let (plan, dataset) = self.dataset(dataset)?;
        self.governing(plan, asking.serves, asking.day).next()?;
        let parties = self.parties(plan, dataset, asking);
        let bounding = self.bounding(plan, dataset);
        let own = Asked { value: dataset.tells_contributors, by: format!("dataset {}", dataset.name) };
        let mut forbidding = parties.iter().filter_map(Party::forbids_telling).filter(|_| own.value);
        // All datasets with noise of a stream pay from one budget: the least that any of them asks for.
        let noised = || plan.datasets.iter().filter(|one| dataset.privacy.is_some() && one.privacy.is_some());
        let own_rho = noised().filter_map(|one| {
            one.privacy.map(|privacy| Asked { value: privacy.per_day, by: format!("dataset {}", one.name) })
        });
        let of_profiles: Vec<Party<'_>> = noised().map(|one| self.own(one)).collect();
        let rho_per_day = least(own_rho.chain(of_profiles.iter().chain(&parties).filter_map(Party::rho_per_day)));
        Some(Limits {
            contributors: strictest(parties.iter().map(Party::contributors))?,
            part: strictest(parties.iter().map(Party::part))?,
            percent: strictest(parties.iter().map(Party::percent))?,
            producers: self.producers_asked_for(&parties, plan, dataset, asking)?,
            beside: strictest(parties.iter().filter_map(Party::beside)),
            told: forbidding.next().unwrap_or(own),
            rounding: together(parties.iter().filter_map(Party::rounding)).ok()?,
            records: least(bounding.iter().filter_map(Party::records)),
            cells: least(bounding.iter().filter_map(Party::cells)),
            privacy: dataset.privacy.map(|privacy| match &rho_per_day {
                Some(Asked { value, .. }) => Privacy {
                    per_window: privacy.per_window.min(*value),
                    per_day: privacy.per_day.min(*value),
                    ..privacy
                },
                None => privacy,
            }),
            rho_per_day,
            window: strictest(parties.iter().filter_map(Party::window)),
            not_empty: self.classes.any_special(&plan.classes),
        })
    }

    /// How many producers must bring the contributors. The default is for whoever does not say it.
    fn producers_asked_for(
        &self,
        parties: &[Party<'_>],
        plan: &StreamPlan,
        dataset: &Dataset,
        asking: Asking<'_>,
    ) -> Option<Asked<usize>> {
        let said = parties.iter().filter_map(Party::producers);
        let is_silent = parties.iter().any(|party| party.producers().is_none());
        let default = |dataset: &Arc<Dataset>| match asking.standing {
            Standing::InForce => self.producers_by_default(plan, dataset, asking.day),
            Standing::Before => Asked { value: 1, by: "the default of policies that were in force".to_owned() },
        };
        let defaults = plan.sharing(dataset).filter(|_| is_silent).map(default);
        strictest(said.chain(defaults))
    }

    /// Where producers prove who they are, anybody of them may be hostile, unless somebody vouches for them. Where they do not, a
    /// hostile one can have as many names as it likes, so to ask for two would show nothing.
    fn producers_by_default(&self, plan: &StreamPlan, dataset: &Dataset, day: Date) -> Asked<usize> {
        let stream = &plan.stream.name;
        if !self.access.rules.iter().any(|rule| rule.write.contains(stream.as_str())) {
            let by = format!("the default: no [permissions] rule for {stream}, so producers do not prove who they are");
            return Asked { value: 1, by };
        }
        let vouches = self.vouches.get(TRUSTED_PRODUCERS).into_iter().flatten();
        let is_of_this = |vouched: &&Vouched| {
            let of = &vouched.of;
            of.stream.as_ref().is_none_or(|name| name == stream)
                && of.dataset.as_ref().is_none_or(|name| *name == dataset.name)
                && vouched.proof.until.is_none_or(|until| day <= until)
        };
        match vouches.filter(is_of_this).max_by_key(|vouched| super::Lasting(vouched.proof.until)) {
            Some(Vouched { of, proof }) => {
                let who = proof.by.as_deref().unwrap_or("nobody");
                let until = proof.until.map(|until| format!(", until {until}")).unwrap_or_default();
                let by = format!("{who} vouches for the producers of {of} ({}){until}", proof.reference);
                Asked { value: 1, by }
            }
            None => Asked { value: 2, by: format!("the default: nobody vouches for the producers of {stream}") },
        }
    }

    /// Everyone who has a say about how many records of one contributor count: every regime that covers the records, on
    /// whatever day and wherever it is served. Windows outlast days, and what is counted at several places is compared.
    fn bounding<'p>(&'p self, plan: &'p StreamPlan, dataset: &'p Dataset) -> Vec<Party<'p>> {
        let covering = self.regimes.values().filter(|regime| regime.covers_class(&self.classes, &plan.classes));
        plan.sharing(dataset).map(|dataset| self.own(dataset)).chain(covering.map(Party::regime)).collect()
    }

    /// To which multiples the counts of a dataset may come to be rounded, on any day and wherever its regimes are served. `Err`:
    /// nothing can be a multiple of all that is asked for, and who asks for what.
    pub(super) fn widest_rounding(
        &self,
        plan: &StreamPlan,
        dataset: &Dataset,
    ) -> Result<Option<Asked<Rounding>>, Vec<Asked<Rounding>>> {
        together(self.bounding(plan, dataset).iter().filter_map(Party::rounding))
    }

    /// A dataset itself.
    fn own(&self, dataset: &Dataset) -> Party<'_> {
        Party {
            name: format!("dataset {}", dataset.name),
            min_contributors: dataset.min_contributors,
            profile: self.release_of.get(&dataset.name),
        }
    }

    /// Everyone who has a say about a dataset: each of those that share its cells speaks for all.
    fn parties<'p>(&'p self, plan: &'p StreamPlan, dataset: &'p Dataset, asking: Asking<'p>) -> Vec<Party<'p>> {
        let special = self.classes.any_special(&plan.classes).then(|| Party {
            name: "a special class".to_owned(),
            min_contributors: MIN_CONTRIBUTORS_SPECIAL,
            profile: None,
        });
        let own = plan.sharing(dataset).map(|dataset| self.own(dataset));
        let governing = self.governing(plan, asking.serves, asking.day).map(Party::regime);
        own.chain(governing).chain(special).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::document::changed_first;
    use crate::domain::policy::explain::tests::STREAM;
    use crate::domain::policy::fixture::tests::{SET, set};

    const PROFILES: &str = r#"
schema = "bailiwick.policy/1"
[release.std]
min_contributors = 12
min_part         = 4
p_percent        = 5
min_window       = "PT1M"
[release.strict]
min_contributors = 15
min_part         = 6
p_percent        = 20
"#;

    /// The limits of the sample's dataset when the regimes and the dataset name these profiles.
    fn limits(union_law: &str, br_law: &str, dataset: &str, serves: &[&str]) -> Option<Limits> {
        let named = |text: &str, before: &str, profile: &str| {
            let release = if profile.is_empty() { String::new() } else { format!("release = \"{profile}\"\n") };
            changed_first(text, before, &format!("{release}{before}"))
        };
        let regime = "[[applies]]";
        let [regions, classes, union, br] = SET;
        let texts = [
            regions.to_owned(),
            classes.to_owned(),
            named(union, regime, union_law),
            named(br, regime, br_law),
            named(STREAM, "group_by", dataset),
            PROFILES.to_owned(),
        ];
        let set = set(&texts.each_ref().map(String::as_str));
        let serves: Vec<String> = serves.iter().map(|&regime| regime.to_owned()).collect();
        set.limits(&"visits_by_home".parse().unwrap(), &serves, Date::constant(2026, 1, 2))
    }

    fn asked(value: usize, by: &str) -> Asked<usize> {
        Asked { value, by: by.to_owned() }
    }

    #[test]
    fn of_each_value_the_strictest_holds_and_says_whose_word_it_is() {
        let union = ["union-law"];
        let plain = limits("", "", "", &union).unwrap();
        assert_eq!(plain.contributors, asked(10, "dataset visits_by_home"));
        assert_eq!(
            (plain.part.clone(), plain.window.clone(), plain.not_empty),
            (asked(10, "dataset visits_by_home"), None, false)
        );
        let by_regime = limits("std", "", "", &union).unwrap();
        assert_eq!(by_regime.contributors, asked(12, "regime union-law, by release profile std"));
        // The dataset does not say what a part needs: so as many as a cell, by its word.
        assert_eq!(by_regime.part, asked(10, "dataset visits_by_home"));
        assert_eq!(by_regime.window.as_ref().unwrap().value, Duration::from_secs(60));
        let both = limits("std", "", "strict", &union).unwrap();
        assert_eq!(both.contributors, asked(15, "dataset visits_by_home, by release profile strict"));
        assert_eq!(both.part, asked(6, "dataset visits_by_home, by release profile strict"));
        let percent = |limits: &Limits| (limits.percent.value, limits.percent.by.clone());
        assert_eq!(percent(&plain), (10, "dataset visits_by_home".to_owned()));
        // The regime asks for 5, and the dataset for what holds if it says nothing.
        assert_eq!(percent(&by_regime), (10, "dataset visits_by_home".to_owned()));
        assert_eq!(percent(&both), (20, "dataset visits_by_home, by release profile strict".to_owned()));
        assert_eq!(limits("std", "", "std", &union).unwrap().percent.value, 5);
        // A regime more: its own number counts, and that it says nothing of parts.
        let three = limits("std", "", "strict", &["union-law", "br-law"]).unwrap();
        assert_eq!((three.contributors, three.part), (asked(20, "regime br-law"), asked(20, "regime br-law")));
        let three = limits("std", "std", "strict", &["union-law", "br-law"]).unwrap();
        assert_eq!((three.contributors.value, three.part.value), (20, 6));
        assert_eq!(limits("std", "std", "strict", &[]), None);
    }

    const WRITERS: &str = r#"
schema = "bailiwick.policy/1"
[permissions.tills]
identities = ["spiffe://corp.example/tills/*"]
write      = ["visits"]
"#;
    const TRUSTED: &str = r#"
[[shown]]
conditions = ["origin.trusted_producers"]
by    = "the operator"
ref   = "O-1"
until = 2026-01-02
"#;

    /// Two producers are asked for where they prove who they are, as long as nobody vouches for them, or where a profile says
    /// so. An override does not change it.
    #[test]
    fn by_default_no_proved_producer_is_believed_alone_unless_somebody_vouches_for_it() {
        let serves = ["union-law".to_owned()];
        let asked = |more: &str, day: Date| {
            let texts: Vec<&str> = SET.into_iter().chain([STREAM, more]).collect();
            let set = set(&texts);
            let limits = set.limits(&"visits_by_home".parse().unwrap(), &serves, day).unwrap();
            let outlet = set.outlets(&"visits_by_home".parse().unwrap(), &serves, day).remove(0);
            assert_eq!(outlet.parts.beyond_one, limits.producers.value == 2);
            let before = set.outlets_before(&"visits_by_home".parse().unwrap(), &serves, day).remove(0);
            (limits.producers, before.parts.beyond_one)
        };
        let (on, after) = (Date::constant(2026, 1, 2), Date::constant(2026, 1, 3));
        let (plain, _) = asked("schema = \"bailiwick.policy/1\"", on);
        assert_eq!((plain.value, plain.by.contains("do not prove who they are")), (1, true), "{}", plain.by);
        let (proved, was_asked_before) = asked(WRITERS, on);
        assert_eq!((proved.value, was_asked_before), (2, false));
        assert_eq!(proved.by, "the default: nobody vouches for the producers of visits");
        for of in ["stream = \"visits\"", "dataset = \"visits_by_home\""] {
            let trusted = changed_first(TRUSTED, "by ", &format!("for = {{ {of} }}\nby "));
            let more = format!("{WRITERS}{trusted}");
            let (vouched, _) = asked(&more, on);
            assert_eq!(vouched.value, 1);
            assert!(vouched.by.starts_with("the operator vouches for the producers of "), "{}", vouched.by);
            assert_eq!(asked(&more, after).0.value, 2, "what was shown has ended");
        }
        let said = |least: usize, dataset: &str| {
            let named = changed_first(STREAM, "group_by", "release = \"mine\"\ngroup_by");
            let profile = format!("{dataset}[release.mine]\nmin_producers = {least}\n");
            let texts: Vec<&str> = SET.into_iter().chain([named.as_str(), profile.as_str()]).collect();
            let set = set(&texts);
            let before = set.outlets_before(&"visits_by_home".parse().unwrap(), &serves, on).remove(0);
            (
                set.limits(&"visits_by_home".parse().unwrap(), &serves, on).unwrap().producers.value,
                before.parts.beyond_one,
            )
        };
        assert_eq!(said(2, "schema = \"bailiwick.policy/1\"\n"), (2, true));
        // The regime says nothing, so the default is asked for too.
        assert_eq!(said(1, WRITERS), (2, false));
        assert_eq!(said(1, "schema = \"bailiwick.policy/1\"\n"), (1, false));
    }

    /// The dataset asks; anyone else's profile can forbid it. What is not asked for is nobody's word but the dataset's.
    #[test]
    fn whether_it_is_told_how_many_contributors_there_are_is_asked_for_and_can_be_forbidden() {
        let limits = |asks: bool, regime: &str, serves: &[&str]| {
            let [regions, classes, union, br] = SET;
            let regime = format!("release = \"quiet\"\n{regime}");
            let (union, br) = (changed_first(union, "[[applies]]", &regime), br);
            let asks = if asks { "contributors = \"bucket\"\ngroup_by" } else { "group_by" };
            let stream = changed_first(STREAM, "group_by", asks);
            let profile = "schema = \"bailiwick.policy/1\"\n[release.quiet]\ncontributors = \"never\"\n";
            let set = set(&[regions, classes, &union, br, &stream, profile]);
            let serves: Vec<String> = serves.iter().map(|&regime| regime.to_owned()).collect();
            let on = Date::constant(2026, 1, 2);
            let told = set.limits(&"visits_by_home".parse().unwrap(), &serves, on).unwrap().told;
            for outlet in set.outlets(&"visits_by_home".parse().unwrap(), &serves, on) {
                assert_eq!(outlet.tells_contributors, told.value);
            }
            (told.value, told.by)
        };
        let own = "dataset visits_by_home".to_owned();
        let forbidden = "regime union-law, by release profile quiet".to_owned();
        assert_eq!(limits(true, "[[applies]]", &["br-law"]), (true, own.clone()));
        assert_eq!(limits(true, "[[applies]]", &["br-law", "union-law"]), (false, forbidden));
        assert_eq!(limits(false, "[[applies]]", &["br-law", "union-law"]), (false, own));
    }

    /// Who asks for 4 and who asks for 6 both get multiples of 12. Who asks for 3 then gets them anyway, and has no say.
    #[test]
    fn counts_are_rounded_to_multiples_of_what_each_asks_for_and_it_is_said_whose_word_that_is() {
        let limits = |own: usize, union: usize, br: usize, serves: &[&str]| {
            let [regions, classes, union_law, br_law] = SET;
            let named = |text: &str, before: &str, name: &str| {
                changed_first(text, before, &format!("release = \"{name}\"\n{before}"))
            };
            let mut profiles = "schema = \"bailiwick.policy/1\"\n".to_owned();
            for (name, base) in [("own", own), ("union", union), ("br", br)] {
                let asks = if base > 1 { format!("round_counts_to = {base}\n") } else { String::new() };
                profiles.push_str(&format!("[release.{name}]\n{asks}"));
            }
            let (union_law, br_law) = (named(union_law, "[[applies]]", "union"), named(br_law, "[[applies]]", "br"));
            let set = set(&[regions, classes, &union_law, &br_law, &named(STREAM, "group_by", "own"), &profiles]);
            let serves: Vec<String> = serves.iter().map(|&regime| regime.to_owned()).collect();
            let on = Date::constant(2026, 1, 2);
            let rounding = set.limits(&"visits_by_home".parse().unwrap(), &serves, on).unwrap().rounding;
            for outlet in set.outlets(&"visits_by_home".parse().unwrap(), &serves, on) {
                assert_eq!(outlet.rounding, rounding.as_ref().map_or(Rounding::NONE, |asked| asked.value));
            }
            rounding.map(|asked| (asked.value.base(), asked.by))
        };
        let (union, both) = (["union-law"], ["union-law", "br-law"]);
        let of = |what: &str, profile: &str| format!("{what}, by release profile {profile}");
        let (own, of_union, of_br) =
            (of("dataset visits_by_home", "own"), of("regime union-law", "union"), of("regime br-law", "br"));
        assert_eq!(limits(1, 1, 1, &both), None);
        assert_eq!(limits(5, 1, 1, &both), Some((5, own.clone())));
        assert_eq!(limits(5, 10, 1, &both), Some((10, of_union.clone())));
        assert_eq!(limits(10, 10, 5, &both), Some((10, own.clone())));
        assert_eq!(limits(4, 6, 10, &union), Some((12, format!("{own} (4) and {of_union} (6)"))));
        assert_eq!(limits(3, 4, 6, &both), Some((12, format!("{of_br} (6) and {of_union} (4)"))));
    }

    #[test]
    fn another_regime_or_profile_never_makes_it_less_strict() {
        let profiles = ["", "std", "strict"];
        for which in 0..27 {
            let [union_law, br_law, dataset] = [which % 3, which / 3 % 3, which / 9].map(|profile| profiles[profile]);
            let few = limits(union_law, br_law, dataset, &["union-law"]).unwrap();
            let more = limits(union_law, br_law, dataset, &["union-law", "br-law"]).unwrap();
            assert!(more.contributors.value >= few.contributors.value && more.part.value >= few.part.value);
            assert!(more.percent.value >= few.percent.value);
            assert!(more.window.map(|window| window.value) >= few.window.map(|window| window.value));
        }
    }
}
