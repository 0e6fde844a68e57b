//! Rulings: what becomes of a record, by which rules, and which counters must have room for it; and where the gateway stands
//! that rules.

use std::sync::Arc;

use crate::domain::counting::{Claim, Counters, Whose};
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::name::GatewayId;
use crate::domain::peer::Peer;
use crate::domain::proof::Conditions;
use crate::domain::refusal::Reason;

use super::regime::RegimeSet;

/// What becomes of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This gateway serves every regime that applies: these.
    Keep(RegimeSet),
    /// Another gateway does, and the regimes let the producer be told.
    Redirect(Arc<Peer>),
    /// Held in memory for a while, in case that more becomes known.
    Quarantine,
    /// None of these.
    Refuse(Reason),
}

/// A verdict and the ids of every rule that determined it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruling {
    /// The verdict.
    pub verdict: Verdict,
    /// The rules.
    pub rules: Arc<[String]>,
    /// The counters that must have room for the person. `None`: whoever it is.
    pub counters: Option<Arc<OnCounters>>,
}

/// What a ruling rests on besides its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnCounters {
    /// What counters say of the record.
    pub claims: Vec<Claim>,
    /// What becomes of a record for which they have no room.
    pub otherwise: Ruling,
}

impl Ruling {
    /// Whatever the person.
    pub(super) fn new(verdict: Verdict, rules: Arc<[String]>) -> Self {
        Self { verdict, rules, counters: None }
    }

    /// What becomes of the record of a person: this, or what the counters leave of it.
    pub(super) fn of_person(&self, counters: &mut dyn Counters, whose: Whose<'_>) -> &Self {
        let mut ruling = self;
        while let Some(on) = &ruling.counters {
            if counters.admit(&on.claims, whose) {
                break;
            }
            ruling = &on.otherwise;
        }
        ruling
    }
}

/// Where a gateway stands: what the law sees of it.
#[derive(Debug, Clone)]
pub struct Here {
    /// The country it is in.
    pub country: Jurisdiction,
    /// The regimes whose records it keeps.
    pub serves: Vec<String>,
    /// The other gateways.
    pub peers: Vec<Arc<Peer>>,
    /// The gateway as one that is sent records, and counts whose. `None`: the law is asked alone, and nobody is counted.
    pub own: Option<Own>,
}

impl Here {
    /// The gateway itself, where it is one that is sent records.
    #[must_use]
    pub fn own_holder(&self) -> Option<Holder<'_>> {
        let own = self.own.as_ref()?;
        Some(Holder { id: &own.id, country: self.country, conditions: &own.conditions })
    }
}

/// A gateway at which records are held, or would be: this one or a peer.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'h> {
    /// Its id.
    pub id: &'h GatewayId,
    /// The country it is in.
    pub country: Jurisdiction,
    /// What has been shown of it.
    pub conditions: &'h Conditions,
}

impl<'h> From<&'h Peer> for Holder<'h> {
    fn from(peer: &'h Peer) -> Self {
        Self { id: &peer.id, country: peer.country, conditions: &peer.conditions }
    }
}

/// A gateway as one that is sent records.
#[derive(Debug, Clone)]
pub struct Own {
    /// Its id.
    pub id: GatewayId,
    /// What has been shown of it.
    pub conditions: Conditions,
}
