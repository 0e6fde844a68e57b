//! What counters say of records that go to a gateway: which counters count their persons, and which must have room.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::civil::Date;

use crate::domain::counting::{About, Claim, Name, Tally};
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::name::{GatewayId, StreamName};
use crate::domain::proof::ConditionId;

use super::PolicySet;
use super::conditions::Shown;
use super::counter::{Counted, Counter, Per};
use super::form::Form;
use super::regime::Regime;
use super::ruling::{Here, Holder, OnCounters, Ruling};
use super::scope::{Mask, bits};

/// What the counters say of the records of one stream that go to one gateway, by regime.
#[derive(Debug, Default)]
pub(super) struct Claims(Vec<(Mask, Claim)>);

impl Claims {
    /// The claims of the counters that a gateway keeps, on records that go to a gateway: itself or a peer.
    pub(super) fn new(
        policy: &PolicySet,
        keeps: &GatewayId,
        stream: &StreamName,
        holder: Holder<'_>,
        day: Date,
    ) -> Self {
        let Some(counted) = policy.counted.get(keeps) else { return Self::default() };
        let shown = policy.shown_and_counted(Some(stream), holder, keeps, day);
        let of_regimes = policy.regimes.values().zip(bits()).filter_map(|(regime, bit)| {
            let counted = counted.get(&regime.id)?;
            let claim = regime.claim(counted, holder, &shown)?;
            Some((bit, Claim { tells_apart: policy.tells_persons_apart(Some(stream)), ..claim }))
        });
        Self(of_regimes.collect())
    }

    /// Those of some regimes.
    fn of(&self, regimes: Mask) -> Vec<Claim> {
        self.0.iter().filter(|(bit, _)| regimes & bit != 0).map(|(_, claim)| claim.clone()).collect()
    }

    /// A ruling on records of some regimes that holds while the counters have room. `otherwise`: the ruling on a record
    /// for which they have none.
    pub(super) fn on(&self, regimes: Mask, ruling: Ruling, otherwise: Ruling) -> Ruling {
        let claims = self.of(regimes);
        if claims.is_empty() {
            return ruling;
        }
        let rules = otherwise.rules.iter().cloned().chain(needed(&claims)).collect();
        let otherwise = Ruling { rules, ..otherwise };
        Ruling { counters: Some(Arc::new(OnCounters { claims, otherwise })), ..ruling }
    }
}

/// The counters without whose room a record may not go, each once.
pub(super) fn needed<'c>(claims: impl IntoIterator<Item = &'c Claim>) -> Vec<String> {
    let counted_only = claims.into_iter().filter(|claim| !claim.ways.iter().any(Vec::is_empty));
    let mut rules: Vec<String> =
        counted_only.flat_map(|claim| &claim.ways).flatten().map(|tally| tally.name.counter.clone()).collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

impl Regime {
    /// The rule id of a counter.
    #[must_use]
    pub fn counter_rule(&self, counter: &Counter) -> String {
        format!("{}/counters/{}", self.id, counter.condition)
    }

    /// What its counters say of identifiable records that go to a gateway. `None`: they count nobody there.
    fn claim(&self, counted: &[Counted], holder: Holder<'_>, shown: &Shown<'_>) -> Option<Claim> {
        let there = counted.iter().filter(|counted| counted.counter.counts_at(holder.country));
        let tallies: BTreeMap<&ConditionId, Arc<Tally>> =
            there.map(|counted| (&counted.counter.condition, Arc::new(self.tally(counted, holder)))).collect();
        if tallies.is_empty() {
            return None;
        }
        let ways = self.permitting(Form::Identifiable, holder.country, shown).filter_map(|permit| {
            let by_counter = permit.needs.iter().filter(|need| !shown.is_vouched(need));
            by_counter.map(|need| tallies.get(*need).cloned()).collect()
        });
        let ways = ways.collect();
        Some(Claim { counted: tallies.into_values().collect(), ways, tells_apart: true })
    }

    /// The rows by which identifiable records go to a place whatever one counter says of it. Their persons count all the same.
    /// None where the counter counts nobody.
    #[must_use]
    pub fn rows_past(&self, counter: &Counter, place: Jurisdiction, shown: &Shown<'_>) -> BTreeSet<String> {
        if !counter.counts_at(place) {
            return BTreeSet::new();
        }
        let rests = |need: &&ConditionId| **need == counter.condition && !shown.is_vouched(need);
        let past = self.permitting(Form::Identifiable, place, shown).filter(|permit| !permit.needs.iter().any(rests));
        past.map(|permit| self.rule(permit.row)).collect()
    }

    /// The count of records that go to a gateway.
    fn tally(&self, counted: &Counted, holder: Holder<'_>) -> Tally {
        let Counted { counter, share, already, .. } = counted;
        let to = match counter.per {
            Per::All => "all".to_owned(),
            Per::Country => holder.country.country().to_string(),
            Per::Recipient => holder.id.into(),
        };
        Tally {
            name: Arc::new(Name { counter: self.counter_rule(counter), to }),
            about: About { period: counter.period, ahead_seconds: counter.ahead_seconds },
            most: share.saturating_sub(*already),
        }
    }
}

impl PolicySet {
    /// Every count that a gateway keeps, by name: those of what it takes in, and of what it sends elsewhere.
    #[must_use]
    pub fn tallies(&self, here: &Here) -> Vec<Tally> {
        let Some(own) = &here.own else { return Vec::new() };
        let counted = self.counted.get(&own.id).into_iter().flatten();
        let holders = || {
            let peers = here.peers.iter().map(|peer| Holder::from(&**peer));
            here.own_holder().into_iter().chain(peers)
        };
        let tallies = counted.flat_map(|(regime, counted)| {
            let regime = self.regimes.get(regime);
            regime.into_iter().flat_map(move |regime| counted.iter().map(move |counted| (regime, counted)))
        });
        let tallies = tallies.flat_map(|(regime, counted)| {
            let there = holders().filter(|holder| counted.counter.counts_at(holder.country));
            there.map(|holder| regime.tally(counted, holder)).collect::<Vec<_>>()
        });
        let mut tallies: Vec<Tally> = tallies.collect();
        tallies.sort_by(|left, right| left.name.cmp(&right.name));
        tallies.dedup();
        tallies
    }
}
