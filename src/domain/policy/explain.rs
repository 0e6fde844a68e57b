//! Explanations, as data: why a record was kept, sent elsewhere or refused. They hold codes, declared names and the ids
//! of rules, and nothing else of a record.

use std::collections::{BTreeMap, BTreeSet};

use arrow_schema::ArrowError;
use jiff::civil::Date;

use crate::domain::batch::Candidate;
use crate::domain::document::Spot;
use crate::domain::evidence::Senders;
use crate::domain::evidence::{Evidence, Sender, Source};
use crate::domain::fact::{Fact, Finding, Item, Kind, find};
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::knowledge::Reading;
use crate::domain::name::{DatasetName, DestinationName};
use crate::domain::refusal::{Reason, Refusal};
use crate::domain::stream::Stream;

use super::decide::Rules;
use super::{Outlet, Permission, PolicySet, Ruling, StreamPlan, Version};

/// Why a record is decided as it is.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The record's position in its batch.
    pub index: u32,
    /// What became of it.
    pub outcome: Explained,
    /// The facts that have evidence, or are declared not to be tested. None where the policies were not asked.
    pub facts: Vec<OfFact>,
    /// The regimes that apply: by the facts that are known, or by the gateway's country.
    pub regimes: Vec<Applies>,
}

/// What became of a record.
#[derive(Debug, Clone)]
pub enum Explained {
    /// It was refused before the policies were asked: it cannot be read, or is not what the stream declares.
    NotAsked(Refusal),
    /// What the policies make of it.
    Ruled(Ruling),
}

/// The evidence of a fact, and what it comes to.
#[derive(Debug, Clone)]
pub struct OfFact {
    /// The fact.
    pub fact: Fact,
    /// The evidence, in the order of the declaration.
    pub pieces: Vec<Piece>,
    /// What it comes to.
    pub told: Told,
}

/// One piece of evidence.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Its kind.
    pub kind: Kind,
    /// The fields or the registry it was read from, by name.
    pub source: Option<String>,
    /// What it is worth.
    pub strength: u8,
    /// Whether the producer is trusted with it.
    pub trusted: bool,
    /// What it says.
    pub reading: Reading,
}

/// What is made of a fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It is one of these; all of them count.
    Known(BTreeSet<Jurisdiction>),
    /// A piece of evidence cannot be read, so it is unknown whatever the others say.
    Unreadable,
    /// Nothing that is strong enough says.
    Unknown,
    /// Two strong pieces have no candidate in common.
    Contradiction,
    /// The stream declares that it is not tested.
    Untested,
}

/// A regime that applies to a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applies {
    /// Its id.
    pub regime: String,
    /// The rules by which it does.
    pub rules: BTreeSet<String>,
    /// Whether a fact of the record brings it in; if not, only the gateway's country does.
    pub by_facts: bool,
    /// Whether this gateway serves it.
    pub is_served: bool,
}

/// A dataset and a destination that accepts it.
#[derive(Debug, Clone)]
pub struct Flow {
    /// The dataset.
    pub dataset: DatasetName,
    /// The destination.
    pub destination: DestinationName,
    /// The countries of the destination, of its operator, and onward.
    pub countries: Vec<Jurisdiction>,
    /// What each served regime says that covers the stream.
    pub answers: Vec<(String, Permission)>,
    /// How cells go there, if they may.
    pub outlet: Option<Outlet>,
}

impl Version {
    /// Explains every record of a batch, in their order.
    ///
    /// # Errors
    /// When Arrow cannot filter the columns, which no valid batch causes.
    pub fn explain(&self, candidate: &Candidate, from: Sender<'_>) -> Result<Vec<Explanation>, ArrowError> {
        let (_, refusals) = candidate.clone().split()?;
        let mut refusals: BTreeMap<u32, Refusal> =
            refusals.into_iter().map(|refusal| (refusal.index, refusal)).collect();
        let name = &candidate.stream().name;
        let all = (0..candidate.rows()).filter_map(|row| u32::try_from(row).ok());
        let not_asked = |index, refusal| Explanation {
            index,
            outcome: Explained::NotAsked(refusal),
            facts: Vec::new(),
            regimes: Vec::new(),
        };
        let (Some(rules), Some(plan)) = (self.rules(name), self.policy.streams.get(name)) else {
            let unknown = |index| not_asked(index, Refusal::new(index, Reason::UnknownStream));
            return Ok(all.map(unknown).collect());
        };
        let senders = Senders::one(from, candidate.rows());
        let gathered = self.knowledge.gather(&rules.evidence, candidate.columns(), &senders);
        let trusted = self.trusted(rules, from);
        let of_combinations: Vec<Explanation> =
            gathered.combinations.iter().map(|readings| self.combination(rules, plan, readings, &trusted)).collect();
        let explained = all.zip(&gathered.of_record).filter_map(|(index, &combination)| {
            Some(match refusals.remove(&index) {
                Some(refusal) => not_asked(index, refusal),
                None => Explanation { index, ..of_combinations.get(combination as usize)?.clone() },
            })
        });
        Ok(explained.collect())
    }

    fn combination(&self, rules: &Rules, plan: &StreamPlan, readings: &[Reading], trusted: &[bool]) -> Explanation {
        let pieces = || rules.evidence.iter().zip(readings).zip(trusted);
        let mut facts = Vec::new();
        for fact in Fact::OF_RECORDS {
            let of_fact = pieces().filter(|((evidence, _), _)| evidence.fact == fact);
            let of_fact = of_fact.map(|((evidence, reading), &trusted)| Piece {
                kind: evidence.source.kind(),
                source: source(evidence, &plan.stream),
                strength: evidence.strength,
                trusted,
                reading: reading.clone(),
            });
            let pieces: Vec<Piece> = of_fact.collect();
            let told = match pieces.as_slice() {
                [] if plan.untested.contains(&fact) => Told::Untested,
                [] => continue,
                pieces => told(pieces, self.policy.facts.min_strength),
            };
            facts.push(OfFact { fact, pieces, told });
        }
        let regimes = self.applying(plan, &facts);
        let outcome = Explained::Ruled(rules.ruling(&self.policy, self.findings(rules, readings, trusted)));
        Explanation { index: 0, outcome, facts, regimes }
    }

    /// The regimes that apply, by the regimes' own tests: not by the compiled ones, which decide.
    fn applying(&self, plan: &StreamPlan, facts: &[OfFact]) -> Vec<Applies> {
        let known = || {
            facts.iter().flat_map(|of_fact| {
                let codes = if let Told::Known(codes) = &of_fact.told { Some(codes) } else { None };
                codes.into_iter().flatten().map(|&code| (of_fact.fact, code))
            })
        };
        let policy = &self.policy;
        let covering = policy.regimes.values().filter(|regime| regime.covers_class(&policy.classes, &plan.classes));
        let applying = covering.filter_map(|regime| {
            let mut rules: BTreeSet<String> =
                known().flat_map(|(fact, code)| regime.met(fact, code, self.day)).collect();
            let by_facts = !rules.is_empty();
            rules.extend(regime.met(Fact::GatewayCountry, self.here.country, self.day));
            let is_served = self.here.serves.contains(&regime.id);
            (!rules.is_empty()).then(|| Applies { regime: regime.id.clone(), rules, by_facts, is_served })
        });
        applying.collect()
    }
}

/// The names of what a piece of evidence is read from.
fn source(evidence: &Evidence, stream: &Stream) -> Option<String> {
    let fields = evidence.source.fields();
    let names = fields.iter().filter_map(|&field| stream.fields.get(field)).map(|field| field.name.as_str());
    let names = names.collect::<Vec<_>>().join(", ");
    match &evidence.source {
        Source::Registry { name, by: Some(_) } => Some(format!("{name} by {names}")),
        Source::Registry { name, by: None } => Some(format!("{name} by the producer's name")),
        _ => (!names.is_empty()).then_some(names),
    }
}

fn told(pieces: &[Piece], min_strength: u8) -> Told {
    let mut items = Vec::new();
    for piece in pieces {
        match &piece.reading {
            Reading::Absent => {}
            Reading::Unreadable => return Told::Unreadable,
            Reading::Codes(candidates) => {
                let (strength, kind, trusted) = (piece.strength, piece.kind, piece.trusted);
                items.push(Item { candidates: candidates.clone(), strength, kind, trusted });
            }
        }
    }
    match find(&items, min_strength) {
        Finding::Known(codes) => Told::Known(codes),
        Finding::Unknown => Told::Unknown,
        Finding::Contradiction => Told::Contradiction,
    }
}

impl PolicySet {
    /// Every dataset with every destination that accepts it, as a gateway that serves these regimes has them on a day.
    #[must_use]
    pub fn flows(&self, serves: &[String], day: Date) -> Vec<Flow> {
        let mut rows = self.egress(serves, day);
        let mut flows = Vec::new();
        for (name, destination) in &self.destinations {
            for Spot { value: dataset, .. } in &destination.accepts {
                let is_of_flow = |row: &mut super::EgressRow| row.dataset == *dataset && row.destination == *name;
                let answers = rows.extract_if(.., is_of_flow).map(|row| (row.regime, row.permission)).collect();
                let mut outlets = self.outlets(dataset, serves, day).into_iter();
                flows.push(Flow {
                    dataset: dataset.clone(),
                    destination: name.clone(),
                    countries: destination.countries.clone(),
                    answers,
                    outlet: outlets.find(|outlet| outlet.destination == *name),
                });
            }
        }
        flows
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};

    use super::super::fixture::tests::{SET, set};
    use super::super::{Here, Verdict};
    use super::*;
    use crate::domain::counting::NotCounted;
    use crate::domain::evidence::Knowledge;
    use crate::domain::peer::Peer;

    /// A stream of two pieces of evidence, the second one trusted of the registry office only.
    pub(in crate::domain::policy) const STREAM: &str = r#"
schema = "bailiwick.policy/1"
[producers.office]
roles = ["office"]
[streams.visits]
event_time   = "at"
contributor  = "who"
untested     = ["source.system"]
undeclared   = "refuse"
[streams.visits.facts]
"subject.residence" = [
  { field = "home", strength = 90 },
  { field = "papers", strength = 90, trusted_from = ["office"] },
]
[streams.visits.fields]
at     = { type = "timestamp", class = "health" }
who    = { type = "string", class = "health" }
home   = { type = "string", class = "personal" }
papers = { type = "string", class = "personal", required = false }
[datasets.visits_by_home]
stream           = "visits"
window           = { size = "PT5M", grace = "PT30S" }
min_contributors = 10
group_by = [{ field = "home", domain = ["DE", "FR"] }]
metrics  = [{ name = "visits", fn = "count" }]
[destinations.desk]
country = "FR"
accepts = ["visits_by_home"]
[destinations.far]
country = "KP"
accepts = ["visits_by_home"]
"#;

    pub(in crate::domain::policy) fn version(texts: &[&str]) -> Version {
        let policy = Arc::new(set(texts));
        let us = Peer {
            id: "br".parse().unwrap(),
            endpoint: "http://127.0.0.1:1".to_owned(),
            identity: None,
            country: Jurisdiction::parse("BR").unwrap(),
            serves: vec!["br-law".to_owned()],
            conditions: BTreeMap::new(),
        };
        let here = Here {
            country: Jurisdiction::parse("DE").unwrap(),
            serves: vec!["union-law".to_owned()],
            peers: vec![Arc::new(us)],
            own: None,
        };
        let (producers, disputed) = (Arc::clone(&policy.producers), Arc::clone(&policy.disputed));
        let codes = Arc::clone(&policy.codes);
        let knowledge = Knowledge { producers, disputed, codes, ..Knowledge::default() };
        Version::compile(policy, Arc::new(here), knowledge, Date::constant(2026, 2, 1))
    }

    pub(in crate::domain::policy) fn visits(version: &Version, records: &[(&str, &str)]) -> Candidate {
        let stream = Arc::clone(&version.policy.streams["visits"].stream);
        let texts = |text: &dyn Fn(&(&str, &str)) -> String| -> ArrayRef {
            Arc::new(
                records
                    .iter()
                    .map(|record| Some(text(record)).filter(|text| !text.is_empty()))
                    .collect::<StringArray>(),
            )
        };
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0; records.len()]));
        let columns = vec![
            times,
            texts(&|_| "p".to_owned()),
            texts(&|(home, _)| (*home).to_owned()),
            texts(&|(_, papers)| (*papers).to_owned()),
        ];
        let columns = RecordBatch::try_new(Arc::clone(&stream.schema), columns).unwrap();
        Candidate::new(stream, columns, vec![Refusal::new(1, Reason::MalformedRecord)])
    }

    const RECORDS: [(&str, &str); 8] =
        [("DE", ""), ("DE", ""), ("BR", ""), ("JP", ""), ("Q", ""), ("", ""), ("DE", "BR"), ("UA-43", "FR")];

    #[test]
    fn an_explanation_ends_in_what_is_decided() {
        let version = version(&[&SET[..], &[STREAM]].concat());
        for producer in ["office", "anybody"] {
            let from = Sender { producer, address: None };
            let candidate = visits(&version, &RECORDS);
            let explained = version.explain(&candidate, from).unwrap();
            let decided = version.decide(candidate, from, &mut NotCounted).unwrap();
            for (index, explanation) in (0..).zip(&explained) {
                assert_eq!(explanation.index, index);
                let refusal = decided.refusals.iter().find(|refusal| refusal.index == index);
                let reason = refusal.map(|refusal| refusal.reason);
                let told = match &explanation.outcome {
                    Explained::NotAsked(refusal) => Some(refusal.reason),
                    Explained::Ruled(Ruling { verdict: Verdict::Keep(regimes), .. }) => {
                        // The regimes' own tests, and the compiled ones.
                        let applying = explanation.regimes.iter().map(|applies| applies.regime.clone());
                        assert_eq!(**regimes, applying.collect::<BTreeSet<_>>());
                        None
                    }
                    Explained::Ruled(Ruling { verdict: Verdict::Quarantine, .. }) => Some(Reason::Quarantined),
                    Explained::Ruled(Ruling { verdict: Verdict::Redirect(_), .. }) => Some(Reason::BelongsElsewhere),
                    Explained::Ruled(Ruling { verdict: Verdict::Refuse(reason), .. }) => Some(*reason),
                };
                assert_eq!(told, reason, "{producer} {index}");
            }
        }
    }

    #[test]
    fn evidence_findings_and_rules_are_told() {
        let version = version(&[&SET[..], &[STREAM]].concat());
        let told = |producer| {
            let from = Sender { producer, address: None };
            version.explain(&visits(&version, &RECORDS), from).unwrap()
        };
        let codes = |codes: &[&str]| Told::Known(codes.iter().map(|code| Jurisdiction::parse(code).unwrap()).collect());
        let findings = |told: &[Explanation]| -> Vec<Option<Told>> {
            told.iter().map(|told| told.facts.first().map(|fact| fact.told.clone())).collect()
        };
        let trusted = told("office");
        let (unknown, unreadable) = (Some(Told::Unknown), Some(Told::Unreadable));
        assert_eq!(
            findings(&trusted),
            [
                Some(codes(&["DE"])),
                None,
                Some(codes(&["BR"])),
                Some(codes(&["JP"])),
                unreadable,
                unknown,
                Some(Told::Contradiction),
                Some(codes(&["FR", "UA", "UA-43"]))
            ]
        );
        let untrusted = told("anybody");
        assert_eq!(findings(&untrusted)[6], Some(codes(&["BR", "DE"])));
        let pieces = &untrusted[6].facts[0].pieces;
        let shown: Vec<_> =
            pieces.iter().map(|piece| (piece.source.as_deref(), piece.strength, piece.trusted)).collect();
        assert_eq!(shown, [(Some("home"), 90, true), (Some("papers"), 90, false)]);
        assert_eq!(trusted[0].facts[1].told, Told::Untested);
        let applies: Vec<_> = untrusted[6]
            .regimes
            .iter()
            .map(|applies| (applies.regime.as_str(), applies.by_facts, applies.is_served, applies.rules.len()))
            .collect();
        assert_eq!(applies, [("br-law", true, false, 1), ("union-law", true, true, 2)]);
        let by_country = &trusted[3].regimes[0];
        assert!(!by_country.by_facts && by_country.rules.contains("union-law/applies/gateway.country"));
    }

    #[test]
    fn cells_go_where_every_served_regime_lets_them() {
        let version = version(&[&SET[..], &[STREAM]].concat());
        let flows = version.policy.flows(&version.here.serves, version.day);
        let flows: Vec<_> = flows.iter().map(|flow| (flow.destination.as_str(), flow.outlet.is_some())).collect();
        assert_eq!(flows, [("desk", true), ("far", false)]);
        let both = ["union-law".to_owned(), "br-law".to_owned()];
        let flows = version.policy.flows(&both, version.day);
        assert!(flows.iter().all(|flow| flow.outlet.is_none() && flow.answers.len() == 2));
        assert!(version.policy.flows(&[], version.day).iter().all(|flow| flow.answers.is_empty()));
    }

    #[test]
    fn a_stream_that_is_not_declared_is_not_asked_about() {
        let declared = version(&[&SET[..], &[STREAM]].concat());
        let told = version(&SET).explain(&visits(&declared, &RECORDS), Sender::default()).unwrap();
        let is_unknown = |told: &Explanation| matches!(&told.outcome, Explained::NotAsked(refusal) if refusal.reason == Reason::UnknownStream);
        assert!(told.len() == RECORDS.len() && told.iter().all(is_unknown));
    }
}
