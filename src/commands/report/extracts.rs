//! What laws on records ask for, as far as the ledger and the configuration know it: GDPR Art. 30(1), and 28 CFR 202.1101.
//! Each extract says what has to be added by hand.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use serde_json::{Value, json};

use super::account::Account;
use crate::config::{Config, Destination};
use crate::domain::policy::{Grounds, Regime, StreamPlan, Treatment, Use, Vouching};

/// The regimes whose controllers keep a record by Art. 30 of the GDPR, or of that of the United Kingdom.
const ARTICLE_30: [&str; 2] = ["eu-gdpr", "uk-gdpr"];
/// The regimes that are 28 CFR Part 202.
const PART_202: [&str; 2] = ["us-dsp", "us-dsp-gov"];

/// What Art. 30(1) asks for and nothing here knows.
const ARTICLE_30_TO_ADD: [&str; 5] = [
    "(a) The controller, joint controllers, the representative and the data protection officer, with how they are reached.",
    "(b) The purposes: the policies declare none.",
    "(c) The categories of persons in words: the record names the field that tells them apart.",
    "(d), (e) Recipients that are not destinations of this gateway, and whether each country is a third country on the day.",
    "(f) How long recipients keep the cells, and how long whoever runs the gateway keeps its logs and copies of its disk.",
];

/// What 28 CFR 202.1101 asks for and nothing here knows.
const PART_202_TO_ADD: [&str; 6] = [
    "Whether what left is a transaction that the rule covers. Whether a cell of k persons still relates to an individual \
     (202.249) is not settled; the shipped reading takes it as yes.",
    "(b)(1), (2), (3), (11) The data compliance program, the security requirements, the audits and the yearly certifications.",
    "(b)(4)(i) The volumes as the rule counts them: persons or devices over 12 months (202.205). The ledger knows cells and \
     bytes, and no persons.",
    "(b)(4)(ii), (iii) The parties, who owns them, and what the data is used for.",
    "(b)(7) to (10) Agreements, licenses, advisory opinions, and what came with them.",
    "202.1104 A rejected offer of data brokerage is to be reported within 14 days. The gateway refuses records; whether an \
     offer stands behind them it does not know.",
];

/// The extracts, for the regimes that govern what this gateway holds. `None` for an extract: no such regime does.
pub(super) fn extracts(config: &Config, account: &Account, day: Date) -> Value {
    let policy = &config.policy;
    let of = |ids: &[&str]| {
        let plans = policy.streams.values().filter_map(|plan| {
            let regimes = policy.governing(plan, &config.here.serves, day);
            let regimes: Vec<&Regime> = regimes.filter(|regime| ids.contains(&regime.id.as_str())).collect();
            (!regimes.is_empty()).then_some((plan, regimes))
        });
        Governed::of(plans.collect())
    };
    let grounds = policy.grounds(&config.here, &config.id, &config.conditions, day);
    let flows = Flows { config, account, day, grounds: &grounds };
    json!({
        "gdpr_article_30": of(&ARTICLE_30).map(|governed| article_30(config, &governed, &flows)),
        "us_28_cfr_202": of(&PART_202).map(|governed| part_202(&governed, &flows)),
    })
}

/// The streams that some regimes govern.
struct Governed<'c> {
    plans: Vec<&'c StreamPlan>,
    regimes: BTreeMap<&'c str, &'c Regime>,
}

impl<'c> Governed<'c> {
    fn of(plans: Vec<(&'c StreamPlan, Vec<&'c Regime>)>) -> Option<Self> {
        let regimes =
            plans.iter().flat_map(|(_, regimes)| regimes).map(|regime| (regime.id.as_str(), *regime)).collect();
        let plans: Vec<&StreamPlan> = plans.into_iter().map(|(plan, _)| plan).collect();
        (!plans.is_empty()).then_some(Self { plans, regimes })
    }

    /// The regimes, and how sure their readings are.
    fn json(&self) -> Value {
        let regimes = self.regimes.values().map(|regime| {
            json!({
                "regime": regime.id, "name": regime.name, "confidence": regime.notes.confidence,
                "uncertain": regime.notes.uncertain, "as_of": regime.as_of.to_string(),
                "review_by": regime.review_by.to_string(), "notice": regime.notes.notice,
            })
        });
        regimes.collect()
    }
}

/// What went where, or may go there.
struct Flows<'c> {
    config: &'c Config,
    account: &'c Account,
    day: Date,
    grounds: &'c [Grounds],
}

impl Flows<'_> {
    /// The flows of a stream's datasets: those that are allowed today, and those that left in the time of the report, with
    /// the rows and conditions of some regimes.
    fn of(&self, plan: &StreamPlan, regimes: &BTreeMap<&str, &Regime>) -> Vec<Value> {
        let datasets: BTreeSet<&str> = plan.datasets.iter().map(|dataset| dataset.name.as_str()).collect();
        let (policy, serves) = (&self.config.policy, &self.config.here.serves);
        let allowed = plan.datasets.iter().flat_map(|dataset| {
            let outlets = policy.outlets(&dataset.name, serves, self.day).into_iter();
            outlets.map(|outlet| (outlet.destination.to_string(), outlet.dataset.to_string()))
        });
        let left = self.account.flows.keys().filter(|(_, dataset)| datasets.contains(dataset.as_str())).cloned();
        let all: BTreeSet<(String, String)> = allowed.chain(left).collect();
        all.into_iter().map(|(destination, dataset)| self.flow(&destination, &dataset, plan, regimes)).collect()
    }

    fn flow(&self, destination: &str, dataset: &str, plan: &StreamPlan, regimes: &BTreeMap<&str, &Regime>) -> Value {
        let declared = self.config.policy.destinations.iter().find(|(name, _)| name.as_str() == destination);
        let countries = declared.map(|(_, declared)| &declared.countries).into_iter().flatten();
        let method = self.config.destinations.iter().find(|(name, _)| name.as_str() == destination);
        let method = method.map(|(_, destination)| match destination {
            Destination::File(_) => "files in a directory of this machine".to_owned(),
            Destination::Kafka(settings) => {
                let how = if settings.security.tls.is_some() { "over TLS" } else { "in plain text" };
                format!("messages to Kafka topic {}, {how}", settings.topic)
            }
        });
        let left = self.account.flows.get(&(destination.to_owned(), dataset.to_owned()));
        let safeguards = self.grounds.iter().filter(|grounds| {
            let is_of_flow = matches!(&grounds.used_for, Use::Cells(of, to) if of == dataset && to == destination);
            is_of_flow && regimes.keys().any(|regime| grounds.rule.split('/').next() == Some(*regime))
        });
        json!({
            "stream": plan.stream.name.as_str(),
            "dataset": dataset,
            "destination": destination,
            "countries": countries.map(ToString::to_string).collect::<Vec<_>>(),
            "method": method,
            "form": form(plan, dataset),
            "classes": plan.classes,
            "releases": left.map_or(0, |flow| flow.releases),
            "cells": left.map_or(0, |flow| flow.cells),
            "first_window_start": left.and_then(|flow| flow.windows.as_ref()).map(|(first, _)| first),
            "last_window_end": left.and_then(|flow| flow.windows.as_ref()).map(|(_, last)| last),
            "safeguards": safeguards.map(safeguard).collect::<Value>(),
        })
    }
}

/// A row that a flow rests on, its conditions, and who vouches for them.
fn safeguard(Grounds { rule, until, conditions, .. }: &Grounds) -> Value {
    let conditions = conditions.iter().map(|Vouching { condition, proof, .. }| {
        let until = proof.until.map(|until| until.to_string());
        json!({ "condition": condition.as_str(), "by": proof.by, "ref": proof.reference, "until": until })
    });
    json!({ "rule": rule, "until": until.map(|until| until.to_string()), "conditions": conditions.collect::<Value>() })
}

fn article_30(config: &Config, governed: &Governed<'_>, flows: &Flows<'_>) -> Value {
    let classes = &config.policy.classes;
    let activities = governed.plans.iter().map(|plan| {
        let fields = plan.stream.fields.iter().enumerate().map(|(position, field)| {
            let special = classes.any_special(&[field.class.clone()].into());
            json!({
                "field": field.name, "class": field.class, "special": special,
                "kept": kept(plan.treatments.of(position)),
            })
        });
        let contributor = plan.stream.fields.get(plan.stream.contributor).map(|field| &field.name);
        json!({
            "stream": plan.stream.name.as_str(),
            "purposes": Value::Null,
            "persons": contributor,
            "data": fields.collect::<Value>(),
            "scored_by": plan.model.as_ref().map(|model| &model.name),
            "recipients": flows.of(plan, &governed.regimes),
        })
    });
    json!({
        "regimes": governed.json(),
        "gateway": config.id.as_str(),
        "country": config.here.country.to_string(),
        "activities": activities.collect::<Value>(),
        "retention": retention(config, governed),
        "security": security(config),
        "to_be_added": ARTICLE_30_TO_ADD,
    })
}

fn kept(treatment: Option<&Treatment>) -> &'static str {
    match treatment {
        None => "as it is",
        Some(Treatment::Drop) => "dropped before anything is kept",
        Some(Treatment::Pseudonymise(_)) => "as a pseudonym, whose key is in memory only",
        Some(Treatment::Edges(_) | Treatment::Truncate(_) | Treatment::Words(_)) => "generalised",
    }
}

/// In which form a dataset leaves.
fn form(plan: &StreamPlan, dataset: &str) -> &'static str {
    match plan.datasets.iter().find(|declared| declared.name == dataset) {
        Some(declared) if declared.privacy.is_some() => "cells with noise: differential privacy",
        _ => "statistical: cells of at least k contributors",
    }
}

/// How long records stay.
fn retention(config: &Config, governed: &Governed<'_>) -> Vec<String> {
    let mut says = vec![
        "Records are in the journal until their windows have closed and two checkpoints cover them; then their segments are \
         removed. `bailiwick journal inspect` says how old the oldest are."
            .to_owned(),
        format!("Records in quarantine are in memory, for at most {:?}.", config.policy.hold),
        "Releases are in the outbox until their destinations have confirmed them. The ledger holds no personal data and is \
         kept for good."
            .to_owned(),
    ];
    for dataset in governed.plans.iter().flat_map(|plan| &plan.datasets) {
        let (window, grace) = (dataset.length(), dataset.grace);
        let every = if dataset.overlaps() { format!(", begins every {:?}", dataset.window) } else { String::new() };
        says.push(format!(
            "A window of `{}` is {window:?} long{every} and closes {grace:?} after its end.",
            dataset.name
        ));
    }
    for counted in governed.plans.iter().flat_map(|plan| &plan.counted) {
        for view in counted.views().iter().filter(|view| view.is_longer(counted)) {
            says.push(format!(
                "Rows that were released of `{}` are added up for `{}`: the sums are in memory, in checkpoints and in the outbox \
                 until its window closes.",
                counted.name, view.dataset.name
            ));
        }
    }
    says
}

/// What protects the records, as it is configured.
fn security(config: &Config) -> Vec<String> {
    let mut says = Vec::new();
    says.push(match &config.tls {
        Some(_) => format!(
            "Producers connect with mutual TLS, and {} rules say who may write or read what; all else is denied.",
            config.policy.access.rules.len()
        ),
        None => "The listener speaks plain text on loopback: only processes of this machine reach it.".to_owned(),
    });
    says.push(if config.journal.keys.is_empty() {
        "The journal is not encrypted by the gateway.".to_owned()
    } else {
        "The journal is encrypted with keys of the regimes; without a key its records are erased.".to_owned()
    });
    says.push(
        "Records never leave; only cells do, of at least k contributors or with noise, after a signed ledger says so."
            .to_owned(),
    );
    says.push("No log, metric or error holds the content of a record.".to_owned());
    says
}

fn part_202(governed: &Governed<'_>, flows: &Flows<'_>) -> Value {
    let transactions = governed.plans.iter().flat_map(|plan| flows.of(plan, &governed.regimes));
    let is_by = |rule: &String| rule.split('/').next().is_some_and(|regime| governed.regimes.contains_key(regime));
    let refused = flows.account.refused.iter().filter(|(refused, _)| refused.rules.iter().any(is_by));
    let refused = refused.map(|(refused, records)| {
        json!({
            "stream": refused.stream, "reason": refused.reason, "rules": refused.rules, "to": refused.to,
            "records": records,
        })
    });
    json!({
        "regimes": governed.json(),
        "transactions": transactions.collect::<Value>(),
        "refused": refused.collect::<Value>(),
        "keep_for_years": 10,
        "to_be_added": PART_202_TO_ADD,
    })
}
