//! Locate and decide: where each record belongs.
//!
//! What can be decided before a record comes is decided at load: a table gives, for each stream and each
//! code of ISO 3166, whether its records are kept, redirected or refused. A batch looks each distinct
//! code up once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_schema::ArrowError;

use crate::domain::batch::Candidate;
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::refusal::{Peer, Reason, Refusal};
use crate::domain::stream::Stream;

use super::permit::{Foreign, Resident};
use super::regime::{Misroute, Regime, RegimeSet};
use super::{Digest, PolicySet};

/// What becomes of the records of one jurisdiction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This gateway serves every regime that applies: these.
    Keep(RegimeSet),
    /// Another gateway does, and the regimes let the producer be told.
    Redirect(Arc<Peer>),
    /// Neither.
    Refuse(Reason),
}

/// The verdicts of one stream.
#[derive(Debug)]
pub struct VerdictTable {
    by_code: HashMap<u64, Verdict>,
    unknown: Verdict,
}

impl VerdictTable {
    /// Decides every code of ISO 3166 for a stream.
    #[must_use]
    pub fn compile(policy: &PolicySet, stream: &Stream, serves: &[String], peers: &[Arc<Peer>]) -> Self {
        // Few sets, many codes: equal sets are one.
        let mut sets: BTreeSet<RegimeSet> = BTreeSet::new();
        let by_code = Jurisdiction::all().map(|jurisdiction| {
            let mut verdict = decide_one(&policy.applicable(stream, jurisdiction), serves, peers);
            if let Verdict::Keep(regimes) = &mut verdict {
                match sets.get(regimes) {
                    Some(known) => *regimes = Arc::clone(known),
                    None => drop(sets.insert(Arc::clone(regimes))),
                }
            }
            (jurisdiction.packed(), verdict)
        });
        let mut by_code: HashMap<u64, Verdict> = by_code.collect();
        by_code.remove(&Jurisdiction::UNKNOWN.packed());
        Self { by_code, unknown: Verdict::Refuse(Reason::UnknownJurisdiction) }
    }

    /// The verdict on a code's bytes.
    #[must_use]
    pub fn verdict(&self, packed: Option<u64>) -> &Verdict {
        packed.and_then(|packed| self.by_code.get(&packed)).unwrap_or(&self.unknown)
    }
}

/// The verdict on records under these regimes. The strictest `misroute` of those that are not served here
/// holds; a route must serve all of them.
#[must_use]
pub fn decide_one(applicable: &[&Regime], serves: &[String], peers: &[Arc<Peer>]) -> Verdict {
    if applicable.is_empty() {
        return Verdict::Refuse(Reason::NoRegime);
    }
    let not_served: Vec<&&Regime> = applicable.iter().filter(|regime| !serves.contains(&regime.id)).collect();
    if not_served.is_empty() {
        return Verdict::Keep(Arc::new(applicable.iter().map(|regime| regime.id.clone()).collect()));
    }
    if not_served.iter().any(|regime| regime.misroute == Misroute::Refuse) {
        return Verdict::Refuse(Reason::MayNotBeHere);
    }
    let route = peers.iter().find(|peer| applicable.iter().all(|regime| peer.serves.contains(&regime.id)));
    route.map_or(Verdict::Refuse(Reason::MayNotBeHere), |peer| Verdict::Redirect(Arc::clone(peer)))
}

/// A batch, decided.
pub struct Decided {
    /// What may stay. `None` when nothing may.
    pub resident: Option<Resident>,
    /// What belongs elsewhere, by gateway.
    pub foreign: Vec<Foreign>,
    /// Every record that does not stay, in the order of the records.
    pub refusals: Vec<Refusal>,
}

/// Decides every record of a checked batch.
///
/// # Errors
/// When Arrow cannot filter the columns, which no valid batch causes.
pub fn decide(mut candidate: Candidate, table: &VerdictTable, policy: Digest) -> Result<Decided, ArrowError> {
    let stream = Arc::clone(candidate.stream());
    let default = stream.evidence.default.map(Jurisdiction::packed);
    let mut foreign: BTreeMap<String, Foreign> = BTreeMap::new();
    let mut regimes = RegimeSet::default();
    if let Some(position) = stream.evidence.field {
        let column = Arc::clone(candidate.columns().column(position));
        let codes = column.as_string::<i32>();
        // Records of one batch come from few places: the last verdicts are kept by code.
        let mut known: Vec<Known<'_>> = Vec::new();
        let mut last = 0;
        for row in 0..codes.len() {
            let packed = if codes.is_valid(row) && !codes.value(row).is_empty() {
                Jurisdiction::pack(codes.value(row).as_bytes())
            } else {
                default
            };
            if known.get(last).is_none_or(|known| known.code != packed) {
                last = known.iter().position(|known| known.code == packed).unwrap_or_else(|| {
                    known.push(Known { code: packed, verdict: table.verdict(packed), is_settled: false });
                    known.len() - 1
                });
            }
            if let Some(known) = known.get_mut(last)
                && !known.is_settled
            {
                match known.verdict {
                    // A record that the checks refused does not stay, so its regimes are of no account.
                    Verdict::Keep(of_code) if !candidate.is_refused(row) => {
                        unite(&mut regimes, of_code);
                        known.is_settled = true;
                    }
                    verdict => put_aside(&mut candidate, row, verdict, &mut foreign),
                }
            }
        }
    } else {
        match table.verdict(default) {
            Verdict::Keep(of_all) => regimes = Arc::clone(of_all),
            verdict => {
                for row in 0..candidate.columns().num_rows() {
                    put_aside(&mut candidate, row, verdict, &mut foreign);
                }
            }
        }
    }
    let (batch, refusals) = candidate.split()?;
    let resident = (batch.rows() > 0).then_some(Resident { batch, policy, regimes });
    Ok(Decided { resident, foreign: foreign.into_values().collect(), refusals })
}

/// A code of the batch.
struct Known<'t> {
    code: Option<u64>,
    verdict: &'t Verdict,
    /// Its records stay, and their regimes are in the batch's.
    is_settled: bool,
}

fn unite(regimes: &mut RegimeSet, more: &RegimeSet) {
    if regimes.is_empty() {
        *regimes = Arc::clone(more);
    } else if !more.is_subset(regimes) {
        Arc::make_mut(regimes).extend(more.iter().cloned());
    }
}

fn put_aside(candidate: &mut Candidate, row: usize, verdict: &Verdict, foreign: &mut BTreeMap<String, Foreign>) {
    if candidate.is_refused(row) {
        return;
    }
    let index = u32::try_from(row).unwrap_or(u32::MAX);
    let refusal = match verdict {
        Verdict::Keep(_) => return,
        Verdict::Refuse(reason) => Refusal::new(index, *reason),
        Verdict::Redirect(peer) => {
            let there =
                foreign.entry(peer.id.clone()).or_insert_with(|| Foreign { rows: Vec::new(), route: Arc::clone(peer) });
            there.rows.push(index);
            Refusal { route: Some(Arc::clone(peer)), ..Refusal::new(index, Reason::BelongsElsewhere) }
        }
    };
    candidate.refuse(refusal);
}
