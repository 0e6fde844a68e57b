//! What is allowed: TOML → [`PolicySet`]; which records may stay ([`decide`]); what may leave ([`release`]).
//!
//! Only this module makes the permission types ([`Resident`], [`Foreign`], [`Released`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::dataset::Dataset;
use super::document::Place;
use super::jurisdiction::Jurisdiction;
use super::model::Model;
use super::stream::Stream;

mod decide;
mod egress;
mod permit;
mod read;
mod regime;
mod release;

pub use decide::{Decided, Verdict, VerdictTable, decide, decide_one};
pub use egress::{EgressRow, Permission};
pub use permit::{Foreign, Released, ReleasedParts, Resident};
pub use read::read;
pub use regime::{Classes, Form, Misroute, Regime, RegimeSet, Region, Transfer};
pub use release::{ClosedWindow, Outcome, release};

/// The SHA-256 over the SHA-256 of each policy file, ascending: the order and the names of the files are of no account. Stamped on every release.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// A digest that was stored.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Everything the policy files declare, checked.
#[derive(Debug)]
pub struct PolicySet {
    /// The digest of the files.
    pub digest: Digest,
    /// The data classes.
    pub classes: Classes,
    /// The regimes, by id.
    pub regimes: BTreeMap<String, Regime>,
    /// The streams, by name, each with what is done with its records.
    pub streams: BTreeMap<String, StreamPlan>,
    /// The destinations, by name.
    pub destinations: BTreeMap<String, Destination>,
}

/// A stream and what is done with its records.
#[derive(Debug)]
pub struct StreamPlan {
    /// The declaration.
    pub stream: Arc<Stream>,
    /// The model that scores the records.
    pub model: Option<Model>,
    /// The datasets over the stream. At most one, until datasets that share a partition are implemented:
    /// two partitions of the same records could be subtracted from each other.
    pub datasets: Vec<Arc<Dataset>>,
    /// The data classes of a record: those of all its fields and of the model's outputs.
    pub classes: BTreeSet<String>,
}

/// A destination, as the law sees it.
#[derive(Debug)]
pub struct Destination {
    /// The country it is in.
    pub country: Jurisdiction,
    /// The datasets it may be sent, each with the place that says so.
    pub accepts: Vec<(String, Place)>,
    /// Where it is declared.
    pub place: Place,
}

impl PolicySet {
    /// The regimes that cover a stream's records of a jurisdiction.
    #[must_use]
    pub fn applicable(&self, stream: &Stream, jurisdiction: Jurisdiction) -> Vec<&Regime> {
        let Some(plan) = self.streams.get(&stream.name) else { return Vec::new() };
        let covers = |regime: &&Regime| {
            regime.applies_in.covers(jurisdiction) && regime.covers_class(&self.classes, &plan.classes)
        };
        self.regimes.values().filter(covers).collect()
    }
}
