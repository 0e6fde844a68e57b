//! Tests beside the policies: facts and what the law makes of them, worked out by a person from the law. They are run
//! against the regimes alone; no stream, no record and no evidence is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::civil::Date;

use crate::domain::codes::Codes;
use crate::domain::document::{self, Place, Problems, Source, Spot, Table, hint};
use crate::domain::fact::Fact;
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::name::GatewayId;
use crate::domain::peer::Peer;

use super::decide::Standing;
use super::scope::{Mask, Scopes, mask_of, regimes_of};
use super::{ByCounter, ConditionId, Conditions, Form, Here, PolicySet, Proof, Regime, Shown, Verdict};

const SCHEMA: &str = "bailiwick.test/1";
const VERDICTS: [&str; 4] = ["keep", "redirect", "quarantine", "refuse"];

/// One case of a file of tests.
#[derive(Debug)]
pub struct Case {
    /// What it is called.
    pub name: Spot<String>,
    /// The candidates of each fact. `None`: one regime is asked.
    facts: Option<Facts>,
    classes: BTreeSet<String>,
    at: Option<Date>,
    regimes: Option<Spot<BTreeSet<String>>>,
    transfer: Option<Asked>,
    gateway: Option<Routed>,
}

type Facts = BTreeMap<Fact, BTreeSet<Jurisdiction>>;

/// Whether data may go somewhere.
#[derive(Debug)]
struct Asked {
    /// The one regime that is asked; `None`: all that apply by the facts.
    regime: Option<String>,
    form: Form,
    to: Jurisdiction,
    shown: Conditions,
    /// How many persons were counted before the record, by the condition that a counter shows.
    counted: BTreeMap<String, u64>,
    allowed: Spot<bool>,
    rule: Option<Spot<String>>,
}

/// What a gateway does with a record.
#[derive(Debug)]
struct Routed {
    here: Here,
    verdict: Spot<String>,
    route: Option<Spot<String>>,
}

/// What came out otherwise than a case expects.
#[derive(Debug, Clone)]
pub struct Failed {
    /// Where the expectation stands.
    pub place: Place,
    /// What was expected.
    pub expected: String,
    /// What came out.
    pub found: String,
}

/// The newest day on which facts of a set of policies were checked: that on which a case without `at` is run.
#[must_use]
pub fn newest_as_of(files: &[Arc<Source>]) -> Option<Date> {
    // What is wrong with them was said when the policies were read.
    let unsaid = Problems::default();
    let mut newest = None;
    for file in files {
        document::read(file, &unsaid, |table| {
            let dated = table.named("regions").into_iter().filter_map(|(_, region)| region.get::<Date>("as_of"));
            newest = newest.max(dated.chain(table.get("as_of")).map(|day| day.value).max());
        });
    }
    newest
}

/// Reads the cases of a file. They are to be run only if `problems` holds no error.
pub fn read_cases(file: &Arc<Source>, policy: &PolicySet, problems: &Problems) -> Vec<Case> {
    let read = document::read(file, problems, |table| {
        if let Some(schema) = table.need::<String>("schema")
            && schema.value != SCHEMA
        {
            problems.error_help(&schema.place, format!("unknown schema `{}`", schema.value), hint("", &[SCHEMA]));
        }
        let cases = table.array("cases");
        if cases.is_empty() {
            problems.error(&table.place, "there is no case in this file");
        }
        let mut names = BTreeSet::new();
        let cases = cases.iter().filter_map(|table| {
            let case = read_case(table, policy);
            table.done();
            let case = case?;
            if !names.insert(case.name.value.clone()) {
                problems.error(&case.name.place, format!("a case is called `{}` already", case.name.value));
            }
            Some(case)
        });
        cases.collect()
    });
    read.unwrap_or_default()
}

fn read_case(table: &Table<'_>, policy: &PolicySet) -> Option<Case> {
    let problems = table.problems();
    let name = table.need::<String>("name");
    if table.need::<String>("source").is_some_and(|source| source.value.trim().is_empty()) {
        problems.error(&table.place, "`source` is empty: say which legal statement the case tests");
    }
    let facts = table.get::<Table<'_>>("facts").map(|facts| read_facts(&facts.value, &policy.codes));
    let classes = match table.get::<Names>("classes") {
        None => ["personal".to_owned()].into(),
        Some(classes) => known(classes.value, &keys(&policy.classes.0), "class", problems),
    };
    let at = table.get::<Date>("at").map(|at| at.value);
    let regimes = table.get::<Names>("regimes").map(|regimes| {
        let value = known(regimes.value, &keys(&policy.regimes), "regime", problems);
        Spot { value, place: regimes.place }
    });
    let one = table.get::<String>("regime").map(|one| {
        known(vec![one.clone()], &keys(&policy.regimes), "regime", problems);
        one.value
    });
    let is_of_one = one.is_some();
    let transfer = read_asked(table, one, policy);
    let gateway = read_routed(table, policy);
    let place = name.as_ref().map_or(&table.place, |name| &name.place);
    match (&facts, is_of_one) {
        (Some(_), true) => problems.error(place, "a case asks either one `regime` or, with `facts`, all that apply"),
        (None, false) => problems.error(place, "a case needs `facts`, or the one `regime` that is asked"),
        (None, true) if regimes.is_some() || gateway.is_some() => {
            problems.error(place, "`regimes` and `verdict` need `facts`");
        }
        _ => {}
    }
    let expectations = ["regimes", "allowed", "verdict", "form", "to", "gateway"];
    if !table.names().iter().any(|key| expectations.contains(&key.as_str())) {
        problems.error_help(place, "this case expects nothing", "add `regimes`, `allowed` or `verdict`");
    }
    Some(Case { name: name?, facts, classes, at, regimes, transfer, gateway })
}

type Names = Vec<Spot<String>>;

fn keys<T>(map: &BTreeMap<String, T>) -> Vec<&str> {
    map.keys().map(String::as_str).collect()
}

/// Names, each of which must be one of those that there are.
fn known(names: Names, there_are: &[&str], what: &str, problems: &Problems) -> BTreeSet<String> {
    for name in names.iter().filter(|name| !there_are.contains(&name.value.as_str())) {
        problems.error_help(&name.place, format!("there is no {what} `{}`", name.value), hint(&name.value, there_are));
    }
    names.into_iter().map(|name| name.value).collect()
}

fn code(code: &Spot<String>, codes: &Codes, problems: &Problems) -> Option<Jurisdiction> {
    let known = codes.parse(&code.value).filter(|code| *code != Jurisdiction::UNKNOWN);
    if known.is_none() {
        problems.error(&code.place, format!("`{}` is not an ISO 3166-1 alpha-2 or ISO 3166-2 code", code.value));
    }
    known
}

fn need_code(table: &Table<'_>, key: &str, codes: &Codes) -> Option<Jurisdiction> {
    code(&table.need::<String>(key)?, codes, table.problems())
}

fn read_facts(table: &Table<'_>, codes: &Codes) -> Facts {
    let problems = table.problems();
    let names = Fact::OF_RECORDS.map(Fact::name);
    let mut facts = Facts::new();
    for name in table.names() {
        let Some(said) = table.get::<Names>(&name) else { continue };
        let Some(fact) = Fact::OF_RECORDS.into_iter().find(|fact| fact.name() == name) else {
            problems.error_help(&said.place, format!("there is no fact `{name}`"), hint(&name, &names));
            continue;
        };
        let candidates = said.value.iter().filter_map(|said| match fact {
            Fact::SourceSystem => Some(Jurisdiction::system(&said.value)),
            _ => code(said, codes, problems),
        });
        facts.insert(fact, candidates.collect());
    }
    facts
}

/// Conditions that are shown, for as long as one likes.
fn read_shown(table: &Table<'_>, policy: &PolicySet) -> Conditions {
    let names = table.or::<Names>("conditions", Vec::new());
    let needed: Vec<&str> = policy.needed.iter().map(ConditionId::as_str).collect();
    let names = known(names, &needed, "regime or region that needs", table.problems());
    names.iter().filter_map(|name| Some((ConditionId::new(name).ok()?, in_a_test()))).collect()
}

/// The proof of what a case shows.
fn in_a_test() -> Proof {
    Proof { by: None, reference: "a test".to_owned(), until: None }
}

/// How many persons were counted before the record, by counters of the regimes.
fn read_counts(table: &Table<'_>, policy: &PolicySet) -> BTreeMap<String, u64> {
    let counters = policy.regimes.values().flat_map(|regime| &regime.counters);
    let there_are: Vec<&str> = counters.map(|counter| counter.condition.as_str()).collect();
    let Some(Spot { value: given, .. }) = table.get::<Table<'_>>("counted") else { return BTreeMap::new() };
    let persons = given.names().into_iter().filter_map(|condition| {
        let persons = given.get::<u64>(&condition)?;
        let named = Spot { value: condition.clone(), place: persons.place };
        known(vec![named], &there_are, "counter of a regime that shows", table.problems());
        Some((condition, persons.value))
    });
    let persons = persons.collect();
    given.done();
    persons
}

fn read_asked(table: &Table<'_>, regime: Option<String>, policy: &PolicySet) -> Option<Asked> {
    let problems = table.problems();
    let keys = ["form", "to", "allowed"];
    let given = table.names();
    let is_given = |key: &&str| given.iter().any(|given| given == key);
    if !keys.iter().any(is_given) {
        for key in ["conditions", "counted", "rule"].iter().filter(|key| is_given(key)) {
            problems.error(&table.place, format!("`{key}` goes with `form`, `to` and `allowed`"));
        }
        // Asked for, so that they are not reported again, and known where another key is not.
        table.get::<Names>("conditions");
        table.get::<Table<'_>>("counted");
        for key in ["rule", "form", "to", "allowed"] {
            table.get::<String>(key);
        }
        return None;
    }
    let form = table.need::<String>("form");
    let names = Form::NAMES.map(|(name, _)| name);
    let form = form.and_then(|form| {
        let known = Form::NAMES.iter().find(|(name, _)| *name == form.value).map(|(_, known)| *known);
        if known.is_none() {
            problems.error_help(&form.place, format!("there is no form `{}`", form.value), hint(&form.value, &names));
        }
        known
    });
    let to = need_code(table, "to", &policy.codes);
    let (shown, counted) = (read_shown(table, policy), read_counts(table, policy));
    let allowed = table.need::<bool>("allowed");
    let rule = table.get::<String>("rule");
    if let (Some(rule), Some(Spot { value: false, .. })) = (&rule, &allowed) {
        problems.error(&rule.place, "no row forbids: `rule` goes with `allowed = true`");
    }
    if let Some(rule) = &rule {
        let rules: Vec<String> = policy
            .regimes
            .values()
            .flat_map(|regime| regime.transfers.iter().map(|row| regime.rule(row)))
            .filter(|known| known.split('/').next() == rule.value.split('/').next())
            .collect();
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        known(vec![rule.clone()], &rules, "rule", problems);
    }
    Some(Asked { regime, form: form?, to: to?, shown, counted, allowed: allowed?, rule })
}

fn read_routed(table: &Table<'_>, policy: &PolicySet) -> Option<Routed> {
    let problems = table.problems();
    let given = table.names();
    if !["gateway", "verdict", "route"].iter().any(|key| given.iter().any(|given| given == key)) {
        for key in ["gateway", "verdict", "route"] {
            table.get::<String>(key);
        }
        return None;
    }
    let regimes = keys(&policy.regimes);
    let verdict = table.need::<String>("verdict");
    if let Some(verdict) = &verdict {
        known(vec![verdict.clone()], &VERDICTS, "verdict", problems);
    }
    let route = table.get::<String>("route");
    let gateway = table.need::<Table<'_>>("gateway")?.value;
    let country = need_code(&gateway, "country", &policy.codes);
    let serves = gateway.need::<Names>("serves").map(|serves| known(serves.value, &regimes, "regime", problems));
    let peers = gateway.array("peers");
    let peers = peers.iter().filter_map(|table| {
        let (id, country) = (table.need::<String>("id"), need_code(table, "country", &policy.codes));
        let serves = table.need::<Names>("serves").map(|serves| known(serves.value, &regimes, "regime", problems));
        let conditions = read_shown(table, policy);
        table.done();
        let (id, serves) = (id?, serves?.into_iter().collect());
        crate::domain::name::check("gateway", &id, problems);
        let id = GatewayId::new(&id.value).ok()?;
        Some(Arc::new(Peer { id, endpoint: String::new(), identity: None, country: country?, serves, conditions }))
    });
    let peers: Vec<Arc<Peer>> = peers.collect();
    gateway.done();
    if let Some(route) = &route {
        let ids: Vec<&str> = peers.iter().map(|peer| peer.id.as_str()).collect();
        known(vec![route.clone()], &ids, "peer", problems);
        if verdict.as_ref().is_some_and(|verdict| verdict.value != "redirect") {
            problems.error(&route.place, "`route` goes with `verdict = \"redirect\"`");
        }
    }
    let here = Here { country: country?, serves: serves?.into_iter().collect(), peers, own: None };
    Some(Routed { here, verdict: verdict?, route })
}

impl Case {
    /// Runs the case on its day, or on this one. What came out otherwise than expected; nothing when it passed. Only the
    /// conditions that the case shows are shown: not those of the deployment.
    #[must_use]
    pub fn run(&self, policy: &PolicySet, day: Date) -> Vec<Failed> {
        let day = self.at.unwrap_or(day);
        let by_facts = self.by_facts(policy, day);
        let ids: BTreeSet<String> = regimes_of(&policy.regimes, by_facts).map(|regime| regime.id.clone()).collect();
        let mut failed = Vec::new();
        let mut expect = |place: &Place, expected: String, found: String| {
            if expected != found {
                failed.push(Failed { place: place.clone(), expected, found });
            }
        };
        if let Some(regimes) = &self.regimes {
            expect(&regimes.place, list(&regimes.value), list(&ids));
        }
        if let Some(asked) = &self.transfer {
            let of_regime = |regime: &&Regime| asked.regime.as_ref().is_none_or(|asked| *asked == regime.id);
            let by = if asked.regime.is_some() { Mask::MAX } else { by_facts };
            let regimes: Vec<&Regime> = regimes_of(&policy.regimes, by).filter(of_regime).collect();
            asked.run(&regimes, policy, day, &mut expect);
        }
        if let Some(routed) = &self.gateway {
            let scopes = Scopes::compile(&policy.regimes, day);
            let standing = Standing::new(policy, &self.classes, &routed.here, &scopes, day, None);
            let ruling = standing.rule(policy, by_facts);
            let why = if ruling.rules.is_empty() { "no rule".to_owned() } else { ruling.rules.join(", ") };
            let (verdict, route) = match &ruling.verdict {
                Verdict::Keep(_) => ("keep", None),
                Verdict::Redirect(peer) => ("redirect", Some(peer.id.as_str())),
                Verdict::Quarantine => ("quarantine", None),
                Verdict::Refuse(_) => ("refuse", None),
            };
            let found = if verdict == routed.verdict.value {
                verdict.to_owned()
            } else {
                match &ruling.verdict {
                    Verdict::Redirect(peer) => format!("redirect to `{}`, by {why}", peer.id),
                    Verdict::Refuse(reason) => format!("refuse ({}), by {why}", reason.name()),
                    _ => format!("{verdict}, by {why}"),
                }
            };
            expect(&routed.verdict.place, routed.verdict.value.clone(), found);
            if let (Some(expected), Some(found)) = (&routed.route, route) {
                expect(&expected.place, expected.value.clone(), found.to_owned());
            }
        }
        failed
    }

    /// The regimes that apply by the facts on a day.
    fn by_facts(&self, policy: &PolicySet, day: Date) -> Mask {
        let candidates: Vec<(Fact, Jurisdiction)> = self
            .facts
            .iter()
            .flatten()
            .flat_map(|(fact, codes)| codes.iter().map(|code| (*fact, *code)))
            .flat_map(|(fact, code)| {
                let claimants = policy.disputed.get(&code).into_iter().flatten().copied();
                claimants.chain([code]).map(move |code| (fact, code))
            })
            .collect();
        mask_of(&policy.regimes, |regime| {
            regime.covers_class(&policy.classes, &self.classes)
                && candidates.iter().any(|(fact, code)| regime.met(*fact, *code, day).next().is_some())
        })
    }
}

impl Asked {
    /// What is shown to a regime: the conditions of the case, and those whose counters have room for one more person.
    fn shown_by(&self, regime: &Regime) -> Conditions {
        let mut shown = self.shown.clone();
        // Cells count nobody, and a counter shows nothing for them.
        let counters = regime.counters.iter().filter(|_| self.form == Form::Identifiable);
        for counter in counters.filter(|counter| counter.counts_at(self.to)) {
            let has_room = |persons: &u64| persons.saturating_add(1) < counter.below;
            if self.counted.get(&*counter.condition).is_some_and(has_room) {
                shown.entry(counter.condition.clone()).or_insert_with(in_a_test);
            }
        }
        shown
    }

    fn run(&self, regimes: &[&Regime], policy: &PolicySet, day: Date, expect: &mut impl FnMut(&Place, String, String)) {
        let mut rules: Vec<String> = Vec::new();
        let mut silent = BTreeSet::new();
        for regime in regimes {
            let (recipient, counters) = (self.shown_by(regime), ByCounter::default());
            let shown = Shown { day, on_expired: policy.on_expired, recipient: &recipient, vouched: None, counters };
            match regime.permits(self.form, self.to, &shown) {
                Some(permit) => rules.push(regime.rule(permit.row)),
                None => {
                    silent.insert(regime.id.clone());
                }
            }
        }
        let is_allowed = silent.is_empty() && !regimes.is_empty();
        let found = match (is_allowed, self.allowed.value) {
            (true, true) | (false, false) => self.allowed.value.to_string(),
            (true, false) => format!("true, by {}", rules.join(", ")),
            (false, true) if regimes.is_empty() => "false: no regime applies by the facts".to_owned(),
            (false, true) => format!("false: no row permits it of {}", list(&silent)),
        };
        expect(&self.allowed.place, self.allowed.value.to_string(), found);
        if let Some(rule) = &self.rule
            && is_allowed
        {
            let found = if rules.contains(&rule.value) { rule.value.clone() } else { rules.join(", ") };
            expect(&rule.place, rule.value.clone(), found);
        }
    }
}

fn list(names: &BTreeSet<String>) -> String {
    if names.is_empty() { "none".to_owned() } else { names.iter().cloned().collect::<Vec<_>>().join(", ") }
}

#[cfg(test)]
pub(super) mod tests;
