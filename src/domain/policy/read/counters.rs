//! Counters: the limits of a law that can be counted, and what a deployment says of those that its gateways keep.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::domain::counting::Period;
use crate::domain::document::keys::{Key, Kind, Shape, names};
use crate::domain::document::{Problems, Spot, Table, hint_of};
use crate::domain::name::{self, GatewayId};
use crate::domain::policy::counter::{Counted, CountedAt, Counter, Per};
use crate::domain::policy::regime::{Classes, Regime};
use crate::domain::proof::{ConditionId, Proof};

use super::conditions::{BY_WHOM, REF, UNTIL, condition, ends, read_proof};
use super::regions::region;
use super::terms::{SOURCE, read_source};
use super::words::choice;
use super::{Declared, NAMES, Names};

/// A counter whose places are names.
#[derive(Clone)]
pub(super) struct DeclaredCounter {
    condition: Spot<String>,
    id: ConditionId,
    per: Per,
    period: Period,
    ahead_seconds: i32,
    below: u64,
    except: Names,
    source: String,
}

/// What is said of a counter that a gateway keeps.
pub(super) struct DeclaredCounted {
    regime: Spot<String>,
    condition: Spot<String>,
    gateway: Spot<String>,
    share: Spot<u64>,
    already: u64,
    proof: Proof,
}

pub(super) const COUNTER: Shape = Shape {
    name: "counters.CONDITION",
    about: "A limit that can be counted: below so many distinct persons in a period, the condition is met.",
    keys: &[
        Key::required(
            "per",
            Kind::Word(&names(&Per::NAMES)),
            "Whose records are counted together: those that go to where.",
        ),
        Key::required("period", Kind::Word(&names(&Period::NAMES)), "In which period."),
        Key::required(
            "zone",
            Kind::Text,
            "The law's time, as it is ahead of UTC: `+08:00`. It says when a day begins.",
        ),
        Key::required("below", Kind::Count, "The condition is met below so many persons."),
        Key::new("except", NAMES, "Regions and codes where nobody is counted, such as the law's own country."),
        SOURCE,
    ],
};

pub(super) const COUNTED: Shape = Shape {
    name: "counted",
    about: "A counter of a law that a gateway keeps, and what it cannot know by itself.",
    keys: &[
        Key::required("regime", Kind::Text, "The regime, by its id."),
        Key::required("condition", Kind::Text, "The condition that the counter shows."),
        Key::required("gateway", Kind::Text, "The gateway that counts, by its id."),
        Key::required(
            "share",
            Kind::Count,
            "How many persons of the law's limit are this gateway's. Those of all gateways together stay below the limit.",
        ),
        Key::required(
            "already",
            Kind::Count,
            "How many of these were counted elsewhere in the period, or before this gateway counted.",
        ),
        BY_WHOM,
        REF,
        UNTIL,
    ],
};

/// The counters of a regime.
pub(super) fn read_counters(table: &Table<'_>, needed: &BTreeSet<&ConditionId>) -> Vec<DeclaredCounter> {
    let counters = table.named("counters").into_iter().filter_map(|(condition_name, table)| {
        let id = condition(&condition_name, table.problems());
        if id.as_ref().is_none_or(|id| !needed.contains(id)) {
            let message = format!("no transfer of this regime needs `{}`", condition_name.value);
            let help = hint_of(&condition_name.value, needed.iter().map(|id| id.as_str()));
            table.problems().error_help(&condition_name.place, message, help);
        }
        let per = choice(&table, "per", &Per::NAMES);
        let period = choice(&table, "period", &Period::NAMES);
        let zone = table.need::<String>("zone").and_then(|zone| read_zone(&zone, table.problems()));
        let below = table.need::<u64>("below");
        let except = table.or::<Names>("except", Vec::new());
        let source = read_source(&table);
        table.done();
        let (id, per, period, ahead_seconds, below) = (id?, per?, period?, zone?, below?.value);
        Some(DeclaredCounter { condition: condition_name, id, per, period, ahead_seconds, below, except, source })
    });
    counters.collect()
}

impl DeclaredCounter {
    /// The condition that it shows.
    pub(super) fn condition(&self) -> &ConditionId {
        &self.id
    }

    /// Its condition, and the paragraph that it rests on.
    pub(super) fn sourced(&self) -> (&Spot<String>, &str) {
        (&self.condition, &self.source)
    }

    pub(super) fn resolve(&self, declared: &Declared, problems: &Problems) -> Counter {
        Counter {
            condition: self.id.clone(),
            per: self.per,
            period: self.period,
            ahead_seconds: self.ahead_seconds,
            below: self.below,
            except: region(&self.except, declared, problems).codes.into_keys().collect(),
            source: self.source.clone(),
        }
    }
}

/// How far a zone is ahead of UTC, in seconds.
fn read_zone(zone: &Spot<String>, problems: &Problems) -> Option<i32> {
    let ahead = |text: &str| {
        let (sign, text) = match text.split_at_checked(1)? {
            ("+", rest) => (1, rest),
            ("-", rest) => (-1, rest),
            _ => return None,
        };
        let (hours, minutes) = text.split_once(':')?;
        let is_two_digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        if !is_two_digits(hours) || !is_two_digits(minutes) {
            return None;
        }
        let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
        (hours <= 14 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60)
    };
    let ahead = ahead(&zone.value);
    if ahead.is_none() {
        let message = format!("`{}` does not say how far the zone is ahead of UTC", zone.value);
        problems.error_help(&zone.place, message, "write it like +08:00 or -05:00");
    }
    ahead
}

pub(super) fn read_counted(table: &Table<'_>, declared: &mut Declared) {
    for table in table.array("counted") {
        let [regime, condition, gateway] = ["regime", "condition", "gateway"].map(|key| table.need::<String>(key));
        let (share, already) = (table.need::<u64>("share"), table.need::<u64>("already"));
        let by = table.need::<String>("by");
        let proof = read_proof(&table, by);
        table.done();
        if let Some(gateway) = &gateway {
            name::check("gateway", gateway, table.problems());
            declared.shown_of.push(("gateway", gateway.clone()));
        }
        let (Some(regime), Some(condition), Some(gateway)) = (regime, condition, gateway) else { continue };
        let (Some(share), Some(already), Some(proof)) = (share, already, proof) else { continue };
        ends(&condition, &proof, None, declared);
        declared.counted.push(DeclaredCounted { regime, condition, gateway, share, already: already.value, proof });
    }
}

/// The counters that each gateway keeps.
pub(super) fn resolve_counted(
    declared: &Declared,
    regimes: &BTreeMap<String, Regime>,
    classes: &Classes,
    problems: &Problems,
) -> CountedAt {
    let mut counted_at = CountedAt::new();
    // A part whose limit is another number has a limit of its own.
    let mut shares: BTreeMap<(&str, &str, u64), Shares<'_>> = BTreeMap::new();
    for counted in &declared.counted {
        let Some((regime, counter)) = counter_of(counted, regimes, problems) else { continue };
        let (condition, share) = (&counted.condition, &counted.share);
        let below = counter.below;
        let of_law = shares.entry((&regime.law, &condition.value, below)).or_default();
        let nested = regimes.get(&regime.law).is_some_and(|law| classes_lie_in(classes, regime, law));
        of_law.add(&counted.gateway.value, regime, nested, share.value);
        let of_all = of_law.sum();
        if of_all >= below {
            let parts = if of_law.regimes.len() > 1 { " and its parts" } else { "" };
            let of = if parts.is_empty() { &regime.id } else { &regime.law };
            let message = format!("the shares of `{}` of `{of}`{parts} come to {of_all}", condition.value);
            let help =
                format!("the law's limit is below {below} persons: together they may be {}", below.saturating_sub(1));
            problems.error_help(&share.place, message, help);
        }
        let Ok(gateway) = GatewayId::new(&counted.gateway.value) else { continue };
        let here = counted_at.entry(gateway).or_default().entry(counted.regime.value.clone()).or_default();
        if here.iter().any(|other: &Counted| *other.counter.condition == *condition.value) {
            let message = format!(
                "what gateway `{}` counts of `{}` of `{}` is said twice",
                counted.gateway.value, condition.value, counted.regime.value
            );
            problems.error(&condition.place, message);
        }
        let (share, already, proof) = (share.value, counted.already, counted.proof.clone());
        here.push(Counted { counter, share, already, proof });
        here.sort_by(|left, right| left.counter.condition.cmp(&right.counter.condition));
    }
    counted_at
}

/// The shares of one limit of a law, over all its parts and all gateways.
#[derive(Default)]
struct Shares<'d> {
    of_gateways: BTreeMap<&'d str, OfGateway>,
    regimes: BTreeSet<&'d str>,
}

/// The shares of one gateway.
#[derive(Default)]
struct OfGateway {
    /// Of the file's own regime.
    whole: u64,
    /// Of parts whose records are all under the file's own regime, too.
    nested: u64,
    /// Of other parts.
    beside: u64,
}

impl<'d> Shares<'d> {
    fn add(&mut self, gateway: &'d str, regime: &'d Regime, nested: bool, share: u64) {
        self.regimes.insert(&regime.id);
        let here = self.of_gateways.entry(gateway).or_default();
        let sum = match (regime.id == regime.law, nested) {
            (true, _) => &mut here.whole,
            (false, true) => &mut here.nested,
            (false, false) => &mut here.beside,
        };
        *sum = sum.saturating_add(share);
    }

    /// How many persons all gateways may let go. Those whom a nested part counts, the file's own regime counts as well.
    fn sum(&self) -> u64 {
        let of_gateway = |here: &OfGateway| here.whole.max(here.nested).saturating_add(here.beside);
        self.of_gateways.values().map(of_gateway).fold(0, u64::saturating_add)
    }
}

/// Whether every record that a regime covers, the other one covers too.
fn classes_lie_in(classes: &Classes, regime: &Regime, other: &Regime) -> bool {
    let is_covered = |class: &String| other.classes.iter().any(|covered| classes.covers(covered, class));
    regime.classes.iter().all(is_covered)
}

fn counter_of<'r>(
    counted: &DeclaredCounted,
    regimes: &'r BTreeMap<String, Regime>,
    problems: &Problems,
) -> Option<(&'r Regime, Arc<Counter>)> {
    let DeclaredCounted { regime: named, condition, .. } = counted;
    let Some(regime) = regimes.get(&named.value) else {
        let message = format!("there is no regime `{}`", named.value);
        problems.error_help(&named.place, message, hint_of(&named.value, regimes.keys().map(String::as_str)));
        return None;
    };
    let counter = regime.counters.iter().find(|counter| *counter.condition == *condition.value);
    if counter.is_none() {
        let known = regime.counters.iter().map(|counter| counter.condition.as_str());
        let message = format!("regime `{}` has no counter of `{}`", named.value, condition.value);
        problems.error_help(&condition.place, message, hint_of(&condition.value, known));
    }
    Some((regime, Arc::clone(counter?)))
}

#[cfg(test)]
mod tests {
    use crate::domain::document::{Problems, changed_first};
    use crate::domain::policy::fixture::tests::{SET, source};

    /// What the sample's first law has besides: a limit, and two parts. Whatever is under the first part is under the law.
    const LIMITED: &str = r#"
[[transfers]]
id    = "few"
form  = "identifiable"
to    = ["any"]
basis = "few persons"
needs = ["data.few"]
[counters."data.few"]
per    = "all"
period = "ever"
zone   = "+00:00"
below  = 100
[[parts]]
id      = "union-law-health"
name    = "Union law, health"
classes = ["health"]
[[parts]]
id      = "union-law-machines"
name    = "Union law, machines"
classes = ["machine"]
"#;

    /// The errors where gateways keep counters: the part of the law, the gateway, the share.
    fn errors(law: &str, counted: &[(&str, &str, u64)]) -> Vec<String> {
        let [regions, classes, union, br] = SET;
        let union = format!("{union}{law}");
        let counted = counted.iter().map(|(part, gateway, share)| {
            format!(
                "[[counted]]\nregime = \"union-law{part}\"\ncondition = \"data.few\"\ngateway = \"{gateway}\"\n\
                 share = {share}\nalready = 0\nby = \"counsel\"\nref = \"C-1\"\n"
            )
        });
        let policy = format!("schema = \"bailiwick.policy/1\"\n{}", counted.collect::<String>());
        let problems = Problems::default();
        let files = [regions, classes, &union, br, &policy].map(|text| source("set.toml", text));
        super::super::read(&files, &problems);
        problems.into_vec().into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn shares_add_up_over_gateways_and_over_the_parts_of_a_law() {
        let (law, health, machines) = ("", "-health", "-machines");
        let none = [""; 0];
        let sum = |of: &str, sum| [format!("the shares of `data.few` of `{of}` come to {sum}")];
        assert_eq!(errors(LIMITED, &[(law, "a", 60), (law, "b", 39)]), none);
        assert_eq!(errors(LIMITED, &[(law, "a", 60), (law, "b", 40)]), sum("union-law", 100));
        assert_eq!(errors(LIMITED, &[(health, "a", 60), (health, "b", 40)]), sum("union-law-health", 100));
        let parts = "union-law` and its parts";
        assert_eq!(errors(LIMITED, &[(law, "a", 60), (health, "b", 39)]), none);
        assert_eq!(errors(LIMITED, &[(law, "a", 60), (health, "b", 40)]).len(), 1);
        assert_eq!(
            errors(LIMITED, &[(health, "b", 40), (machines, "a", 60)]),
            [format!("the shares of `data.few` of `{parts} come to 100")]
        );
        // Those whom the part counts at a gateway, the law counts there too; not those of machines.
        assert_eq!(errors(LIMITED, &[(law, "a", 60), (health, "a", 60)]), none);
        assert_eq!(errors(LIMITED, &[(law, "a", 60), (health, "a", 70), (law, "b", 30)]).len(), 1);
        assert_eq!(errors(LIMITED, &[(law, "a", 60), (machines, "a", 40)]).len(), 1);
        // A limit of its own.
        let own = changed_first(
            LIMITED,
            "classes = [\"health\"]\n",
            "classes = [\"health\"]\n[parts.counters.\"data.few\"]\nper = \"all\"\nperiod = \"ever\"\nzone = \"+00:00\"\n\
             below = 10\n",
        );
        assert_eq!(errors(&own, &[(law, "a", 60), (health, "b", 9), (law, "b", 30)]), none);
        assert_eq!(errors(&own, &[(health, "b", 9), (health, "a", 1)]), sum("union-law-health", 10));
    }
}
