//! Counters of laws that ask how many persons' data goes abroad, and what a deployment says of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::domain::counting::Period;
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::name::GatewayId;
use crate::domain::proof::{ConditionId, Proof};

/// Whose records are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Per {
    /// All, wherever they go.
    All,
    /// Those that go to the same country.
    Country,
    /// Those that go to the same recipient: to one gateway.
    Recipient,
}

impl Per {
    /// Every choice with its name in the policy language.
    pub const NAMES: [(&'static str, Self); 3] =
        [("all", Self::All), ("country", Self::Country), ("recipient", Self::Recipient)];
}

/// A limit of a law: below how many distinct persons in a period a condition is met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// The condition that it shows.
    pub condition: ConditionId,
    /// Whose records are counted together.
    pub per: Per,
    /// In which period.
    pub period: Period,
    /// How far the law's time is ahead of UTC, in seconds.
    pub ahead_seconds: i32,
    /// The condition is met below so many persons.
    pub below: u64,
    /// Where nobody is counted, such as inside the law's country. A country stands for its parts.
    pub except: BTreeSet<Jurisdiction>,
    /// The paragraph that it rests on; empty where none is named.
    pub source: String,
}

impl Counter {
    /// Whether persons are counted whose records go to a place. There alone the counter shows its condition.
    #[must_use]
    pub fn counts_at(&self, place: Jurisdiction) -> bool {
        !self.except.contains(&place) && !self.except.contains(&place.country())
    }
}

/// A counter that a gateway keeps, and what it cannot know by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// The counter.
    pub counter: Arc<Counter>,
    /// How many persons of the law's limit are this gateway's.
    pub share: u64,
    /// How many of these were counted elsewhere, or before it counted.
    pub already: u64,
    /// Who says so.
    pub proof: Proof,
}

/// The counters that one gateway keeps, by regime.
pub type CountedHere = BTreeMap<String, Vec<Counted>>;

/// The counters that each gateway keeps.
pub type CountedAt = BTreeMap<GatewayId, CountedHere>;
