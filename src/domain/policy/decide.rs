//! Decide: evidence → facts → the regimes that apply → what becomes of each record.
//!
//! A batch's distinct combinations of evidence are decided, and a record is as its combination. What a set of regimes
//! leads to is worked out once and kept.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use arrow_schema::ArrowError;
use foldhash::fast::RandomState;
use jiff::civil::Date;

use crate::domain::batch::Candidate;
use crate::domain::counting::{Counters, Whose};
use crate::domain::evidence::{Evidence, Gathered, Knowledge, Sender, Senders};
use crate::domain::fact::{Fact, Item, Settled, settle};
use crate::domain::knowledge::Reading;
use crate::domain::name::{DatasetName, GatewayId, StreamName};
use crate::domain::peer::Peer;
use crate::domain::refusal::{Reason, Refusal};

use super::claims::Claims;
use super::conditions::{ByCounter, Shown};
use super::form::Form;
use super::permit::{Foreign, Quarantined, Resident};
use super::regime::{Misroute, Regime, RegimeSet};
use super::ruling::{Here, Holder, Ruling, Verdict};
use super::scope::{Mask, Scopes, mask_of, regimes_of};
use super::treat::Treatments;
use super::{Digest, PolicySet, StreamPlan, Unknown};

/// A set of policies as it holds at one gateway on one day, with what is known beside the records. A batch is decided
/// under exactly one.
pub struct Version {
    /// The policies.
    pub policy: Arc<PolicySet>,
    /// The gateway.
    pub here: Arc<Here>,
    /// What is known.
    pub knowledge: Knowledge,
    /// The day.
    pub day: Date,
    streams: BTreeMap<StreamName, Rules>,
    /// The streams of which it matters who brings their contributors.
    asking_for_producers: BTreeSet<StreamName>,
}

/// The rules for one stream's records.
pub(super) struct Rules {
    pub(super) evidence: Vec<Evidence>,
    scopes: Arc<Scopes>,
    standing: Standing,
    treatments: Treatments,
    rulings: RwLock<HashMap<Mask, Ruling, RandomState>>,
}

/// How a gateway stands to records of some classes, of whichever stream.
pub(super) struct Standing {
    /// The regimes that cover the records' classes.
    covering: Mask,
    /// Those that apply because the gateway is where it is.
    here: Mask,
    serves: Mask,
    refusing: Mask,
    quarantining: Mask,
    /// What counters say of records that stay.
    claims: Claims,
    peers: Vec<PeerRules>,
}

struct PeerRules {
    peer: Arc<Peer>,
    serves: Mask,
    /// The regimes that apply because it is where it is.
    there: Mask,
    /// The regimes that let records go there, some of them while their counters have room.
    permitting: Mask,
    /// What counters say of records that go there.
    claims: Claims,
}

/// The most sets of regimes whose rulings are kept: a producer can claim many.
const RULINGS_MAX: usize = 4_096;

impl Version {
    /// What the policies come to at a gateway on a day.
    #[must_use]
    pub fn compile(policy: Arc<PolicySet>, here: Arc<Here>, knowledge: Knowledge, day: Date) -> Self {
        let scopes = Arc::new(Scopes::compile(&policy.regimes, day));
        let streams = policy.streams.iter();
        let streams = streams.map(|(name, plan)| (name.clone(), Rules::new(&policy, plan, &here, &scopes, day)));
        let streams = streams.collect();
        let asks = |dataset: &DatasetName| {
            let limits = policy.limits(dataset, &here.serves, day);
            limits.is_some_and(|limits| limits.producers.value > 1 || limits.beside.is_some())
        };
        let asking_for_producers = policy.stream_of.iter().filter(|(dataset, _)| asks(dataset));
        let asking_for_producers = asking_for_producers.map(|(_, stream)| stream.clone()).collect();
        Self { streams, asking_for_producers, policy, here, knowledge, day }
    }

    /// The same on another day.
    #[must_use]
    pub fn on(&self, day: Date) -> Self {
        Self::compile(Arc::clone(&self.policy), Arc::clone(&self.here), self.knowledge.clone(), day)
    }

    /// The digest of the policies.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.policy.digest
    }

    /// Whether it matters for what leaves who brings the contributors of a stream.
    #[must_use]
    pub fn asks_for_producers(&self, stream: &StreamName) -> bool {
        self.asking_for_producers.contains(stream)
    }

    pub(super) fn rules(&self, stream: &str) -> Option<&Rules> {
        self.streams.get(stream)
    }

    /// Decides every record of a checked batch that one sender sent.
    ///
    /// # Errors
    /// When Arrow cannot filter the columns, which no valid batch causes.
    pub fn decide(
        &self,
        candidate: Candidate,
        from: Sender<'_>,
        counters: &mut dyn Counters,
    ) -> Result<Decided, ArrowError> {
        let from = Senders::one(from, candidate.rows());
        self.decide_shared(candidate, &from, counters)
    }

    /// Decides every record of a checked batch. Each is as it would be if its sender had sent it alone. Persons whose records
    /// go abroad are counted by the laws that ask for it.
    ///
    /// # Errors
    /// When Arrow cannot filter the columns, which no valid batch causes.
    pub fn decide_shared(
        &self,
        mut candidate: Candidate,
        from: &Senders<'_>,
        counters: &mut dyn Counters,
    ) -> Result<Decided, ArrowError> {
        let stream = Arc::clone(candidate.stream());
        let Some(rules) = self.rules(&stream.name) else {
            // Nobody declared what may be done with them.
            for index in (0..candidate.rows()).filter_map(|row| u32::try_from(row).ok()) {
                candidate.refuse(Refusal::new(index, Reason::UnknownStream));
            }
            let (_, refusals) = candidate.split()?;
            return Ok(Decided {
                resident: None,
                foreign: Vec::new(),
                quarantined: None,
                refusals,
                is_of_one_kind: true,
                is_counted: false,
            });
        };
        let (of_record, rulings) = self.rulings(rules, &candidate, from);
        let mut regimes = RegimeSet::default();
        let (mut is_of_one_kind, mut is_counted) = (true, false);
        let contributors = candidate.columns().columns().get(stream.contributor).cloned();
        let mut settled = vec![false; rulings.len()];
        let mut foreign: BTreeMap<GatewayId, Foreign> = BTreeMap::new();
        let mut held = Vec::new();
        for row in 0..candidate.rows() {
            let combination = of_record.get(row).map_or(usize::MAX, |&combination| combination as usize);
            if settled.get(combination).is_some_and(|&is_settled| is_settled) || candidate.is_refused(row) {
                continue;
            }
            let index = u32::try_from(row).unwrap_or(u32::MAX);
            let Some(ruling) = rulings.get(combination) else {
                // Every record has one; whatever is wrong, it is not kept for it.
                candidate.refuse(Refusal::new(index, Reason::UnknownJurisdiction));
                continue;
            };
            is_counted |= ruling.counters.is_some();
            let whose = Whose { stream: &stream.name, contributors: contributors.as_ref(), row };
            let is_whoever = ruling.counters.is_none();
            let ruling = ruling.of_person(counters, whose);
            let refusal = match &ruling.verdict {
                Verdict::Keep(of_combination) => {
                    is_of_one_kind &= regimes.is_empty() || *regimes == **of_combination;
                    unite(&mut regimes, of_combination);
                    if let Some(is_settled) = settled.get_mut(combination) {
                        *is_settled = is_whoever;
                    }
                    continue;
                }
                Verdict::Refuse(reason) => Refusal::new(index, *reason),
                Verdict::Quarantine => {
                    held.push(index);
                    Refusal::new(index, Reason::Quarantined)
                }
                Verdict::Redirect(peer) => {
                    let there = foreign.entry(peer.id.clone());
                    let there = there.or_insert_with(|| Foreign { rows: Vec::new(), route: Arc::clone(peer) });
                    there.rows.push(index);
                    Refusal { route: Some(Arc::clone(peer)), ..Refusal::new(index, Reason::BelongsElsewhere) }
                }
            };
            // One that no rule determined has none, as it is read from the journal.
            let rules = (!ruling.rules.is_empty()).then(|| Arc::clone(&ruling.rules));
            candidate.refuse(Refusal { rules, ..refusal });
        }
        let quarantined = (!held.is_empty()).then(|| candidate.some(&held)).transpose()?;
        let quarantined = quarantined.map(|candidate| Quarantined::new(candidate, held));
        let (batch, refusals) = candidate.split()?;
        let pseudonyms = self.knowledge.pseudonyms.as_deref();
        let batch = if rules.treatments.is_empty() {
            batch
        } else {
            batch.with_columns(|columns| rules.treatments.apply(columns, stream.event_time, pseudonyms))?
        };
        let resident = (batch.rows() > 0).then_some(Resident { batch, policy: self.digest(), regimes });
        Ok(Decided {
            resident,
            foreign: foreign.into_values().collect(),
            quarantined,
            refusals,
            is_of_one_kind,
            is_counted,
        })
    }

    /// The combination of evidence of each record of a batch, and the ruling on each combination.
    pub(super) fn rulings(&self, rules: &Rules, candidate: &Candidate, from: &Senders<'_>) -> (Vec<u32>, Vec<Ruling>) {
        let Gathered { mut of_record, combinations } =
            self.knowledge.gather(&rules.evidence, candidate.columns(), from);
        let ruling = |readings: &[Reading], trusted: &[bool]| {
            rules.ruling(&self.policy, self.findings(rules, readings, trusted))
        };
        let (trust_of_run, trusts) = self.trusts(rules, from);
        if let [trusted] = trusts.as_slice() {
            let rulings = combinations.iter().map(|readings| ruling(readings, trusted));
            return (of_record, rulings.collect());
        }
        // The same evidence counts otherwise when another sender says so.
        let mut numbers: HashMap<(u32, u32), u32, RandomState> = HashMap::default();
        let mut rulings = Vec::new();
        for (combination, trust) in of_record.iter_mut().zip(from.of_records(&trust_of_run)) {
            *combination = *numbers.entry((*combination, trust)).or_insert_with(|| {
                let readings = combinations.get(*combination as usize).map(Vec::as_slice).unwrap_or_default();
                let trusted = trusts.get(trust as usize).map(Vec::as_slice).unwrap_or_default();
                rulings.push(ruling(readings, trusted));
                u32::try_from(rulings.len() - 1).unwrap_or(u32::MAX)
            });
        }
        (of_record, rulings)
    }

    /// With which pieces of evidence the senders of a batch are trusted: each such set once, and for each run of
    /// records the number of its set.
    fn trusts(&self, rules: &Rules, from: &Senders<'_>) -> (Vec<u32>, Vec<Vec<bool>>) {
        if rules.evidence.iter().all(|evidence| evidence.trusted_from.is_none()) {
            return (Vec::new(), vec![vec![true; rules.evidence.len()]]);
        }
        let mut trusts: Vec<Vec<bool>> = Vec::new();
        let of_run = from.runs().iter().map(|(sender, _)| {
            let trusted = self.trusted(rules, *sender);
            let known = trusts.iter().position(|known| *known == trusted);
            let number = known.unwrap_or_else(|| {
                trusts.push(trusted);
                trusts.len() - 1
            });
            u32::try_from(number).unwrap_or(u32::MAX)
        });
        (of_run.collect(), trusts)
    }

    /// Which of a stream's pieces of evidence a producer is trusted with.
    pub(super) fn trusted(&self, rules: &Rules, from: Sender<'_>) -> Vec<bool> {
        let roles = self.knowledge.producers.get(from.producer).map(|producer| &producer.roles);
        let is_trusted = |evidence: &Evidence| match &evidence.trusted_from {
            None => true,
            Some(from) => roles.is_some_and(|roles| !from.is_disjoint(roles)),
        };
        rules.evidence.iter().map(is_trusted).collect()
    }

    /// The regimes that the facts bring in, or the fact that cannot be told.
    pub(super) fn findings(&self, rules: &Rules, readings: &[Reading], trusted: &[bool]) -> Result<ByFacts, Untold> {
        let mut by_facts = ByFacts::default();
        let mut items = Vec::new();
        for fact in Fact::OF_RECORDS {
            let of_fact =
                || rules.evidence.iter().zip(readings).zip(trusted).filter(|((item, _), _)| item.fact == fact);
            if of_fact().next().is_none() {
                continue;
            }
            items.clear();
            for ((evidence, reading), &trusted) in of_fact() {
                match reading {
                    Reading::Absent => {}
                    Reading::Unreadable => return Err(Untold { fact, contradiction: false }),
                    Reading::Codes(candidates) => items.push(Item {
                        candidates: Arc::clone(candidates),
                        strength: evidence.strength,
                        kind: evidence.source.kind(),
                        trusted,
                    }),
                }
            }
            let settled = settle(&items, self.policy.facts.min_strength, |candidate, is_trusted| {
                let mask = rules.scopes.mask(fact, candidate);
                by_facts.all |= mask;
                by_facts.trusted |= if is_trusted { mask } else { 0 };
            });
            match settled {
                Settled::Known => {}
                Settled::Unknown => return Err(Untold { fact, contradiction: false }),
                Settled::Contradiction => return Err(Untold { fact, contradiction: true }),
            }
        }
        Ok(by_facts)
    }
}

/// The regimes that facts bring in.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ByFacts {
    pub(super) all: Mask,
    /// Those that trusted evidence alone brings in.
    trusted: Mask,
}

/// A fact that cannot be told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Untold {
    fact: Fact,
    contradiction: bool,
}

impl Rules {
    fn new(policy: &PolicySet, plan: &StreamPlan, here: &Here, scopes: &Arc<Scopes>, day: Date) -> Self {
        Self {
            evidence: plan.evidence.clone(),
            scopes: Arc::clone(scopes),
            standing: Standing::new(policy, &plan.classes, here, scopes, day, Some(&plan.stream.name)),
            treatments: plan.treatments.clone(),
            rulings: RwLock::default(),
        }
    }

    pub(super) fn ruling(&self, policy: &PolicySet, facts: Result<ByFacts, Untold>) -> Ruling {
        let by_facts = match facts {
            // A claim that is not trusted adds regimes to others. It is not what lets a record in.
            Ok(ByFacts { trusted, .. }) if trusted & self.standing.covering == 0 => {
                return no_regime();
            }
            Ok(ByFacts { all, .. }) => all & self.standing.covering,
            Err(Untold { fact, contradiction }) => return untold(policy, fact, contradiction),
        };
        let known = self.rulings.read().unwrap_or_else(PoisonError::into_inner).get(&by_facts).cloned();
        known.unwrap_or_else(|| {
            let ruling = self.standing.rule(policy, by_facts);
            let mut rulings = self.rulings.write().unwrap_or_else(PoisonError::into_inner);
            if rulings.len() < RULINGS_MAX {
                rulings.insert(by_facts, ruling.clone());
            }
            ruling
        })
    }
}

impl Standing {
    /// How a gateway stands on a day to records of these classes. Without a stream nothing counts that somebody vouches for:
    /// the law is asked alone.
    pub(super) fn new(
        policy: &PolicySet,
        classes: &BTreeSet<String>,
        here: &Here,
        scopes: &Scopes,
        day: Date,
        stream: Option<&StreamName>,
    ) -> Self {
        let regimes = &policy.regimes;
        let covering = |regime: &Regime| regime.is_in_force(day) && regime.covers_class(&policy.classes, classes);
        let covering = mask_of(regimes, covering);
        let in_country = |country| scopes.mask(Fact::GatewayCountry, country) & covering;
        let keeps = stream.and(here.own.as_ref());
        let claims = |holder: Holder<'_>| {
            let kept = keeps.zip(stream);
            kept.map_or_else(Claims::default, |(own, stream)| Claims::new(policy, &own.id, stream, holder, day))
        };
        let peers = here.peers.iter().map(|peer| PeerRules {
            peer: Arc::clone(peer),
            serves: mask_of(regimes, |regime| peer.serves.contains(&regime.id)),
            there: in_country(peer.country),
            permitting: mask_of(regimes, |regime| {
                let shown = match (stream, keeps) {
                    (Some(stream), Some(own)) => {
                        policy.shown_and_counted(Some(stream), Holder::from(&**peer), &own.id, day)
                    }
                    (Some(stream), None) => policy.shown_of_records(Some(stream), Holder::from(&**peer), day),
                    (None, _) => Shown {
                        day,
                        on_expired: policy.on_expired,
                        recipient: &peer.conditions,
                        vouched: None,
                        counters: ByCounter::default(),
                    },
                };
                regime.permits(Form::Identifiable, peer.country, &shown).is_some()
            }),
            claims: claims(Holder::from(&**peer)),
        });
        Self {
            covering,
            here: in_country(here.country),
            serves: mask_of(regimes, |regime| here.serves.contains(&regime.id)),
            refusing: mask_of(regimes, |regime| regime.misroute == Misroute::Refuse),
            quarantining: mask_of(regimes, |regime| regime.misroute == Misroute::Quarantine),
            claims: here.own_holder().map_or_else(Claims::default, claims),
            peers: peers.collect(),
        }
    }

    /// What becomes of records that the facts bring under these regimes. Of the regimes that are not served here the
    /// strictest `misroute` holds; a route must serve every regime that applies to the records or would there, and every
    /// one that applies to them must let them go there.
    pub(super) fn rule(&self, policy: &PolicySet, by_facts: Mask) -> Ruling {
        let ids = |mask: Mask| regimes_of(&policy.regimes, mask).map(|regime| regime.id.clone());
        let applicable = by_facts | self.here;
        let not_served = applicable & !self.serves;
        let misrouted = |mask: Mask| ids(mask).map(|id| format!("{id}/misroute")).collect();
        if by_facts == 0 {
            return no_regime();
        }
        if not_served == 0 {
            let kept = Verdict::Keep(Arc::new(ids(applicable).collect()));
            let kept = Ruling::new(kept, ids(applicable).collect());
            return self.claims.on(applicable, kept, Ruling::new(Verdict::Refuse(Reason::MayNotBeHere), Arc::new([])));
        }
        for (strict, verdict) in
            [(self.refusing, Verdict::Refuse(Reason::MayNotBeHere)), (self.quarantining, Verdict::Quarantine)]
        {
            if not_served & strict != 0 {
                return Ruling::new(verdict, misrouted(not_served & strict));
            }
        }
        let fits = |peer: &&PeerRules| (by_facts | peer.there) & !peer.serves == 0 && by_facts & !peer.permitting == 0;
        let refused = Ruling::new(Verdict::Refuse(Reason::MayNotBeHere), misrouted(not_served));
        // The first one that fits. The others are for those for whom its counters have no room.
        self.peers.iter().filter(fits).rev().fold(refused, |otherwise, peer| {
            let redirected = Ruling::new(Verdict::Redirect(Arc::clone(&peer.peer)), misrouted(not_served));
            peer.claims.on(by_facts, redirected, otherwise)
        })
    }
}

/// The ruling on records that no regime claims by their own facts.
fn no_regime() -> Ruling {
    Ruling::new(Verdict::Refuse(Reason::NoRegime), Arc::new([]))
}

/// The ruling on records of which a fact cannot be told.
pub(super) fn untold(policy: &PolicySet, fact: Fact, contradiction: bool) -> Ruling {
    if contradiction {
        let rules = Arc::new([format!("facts/{}/contradiction", fact.name())]);
        return Ruling::new(Verdict::Quarantine, rules);
    }
    let verdict = match policy.facts.unknown {
        Unknown::Refuse => Verdict::Refuse(Reason::UnknownJurisdiction),
        Unknown::Quarantine => Verdict::Quarantine,
    };
    Ruling::new(verdict, Arc::new([format!("facts/{}/unknown", fact.name())]))
}

/// A batch, decided.
pub struct Decided {
    /// What may stay. `None` when nothing may.
    pub resident: Option<Resident>,
    /// What belongs elsewhere, by gateway.
    pub foreign: Vec<Foreign>,
    /// What is held in memory.
    pub quarantined: Option<Quarantined>,
    /// Every record that does not stay, in the order of the records.
    pub refusals: Vec<Refusal>,
    /// Whether the same regimes apply to every record that may stay.
    pub is_of_one_kind: bool,
    /// Whether persons were counted. Nobody may be told what was decided before that is on disk.
    pub is_counted: bool,
}

fn unite(regimes: &mut RegimeSet, more: &RegimeSet) {
    if regimes.is_empty() {
        *regimes = Arc::clone(more);
    } else if !Arc::ptr_eq(regimes, more) && !more.is_subset(regimes) {
        Arc::make_mut(regimes).extend(more.iter().cloned());
    }
}
