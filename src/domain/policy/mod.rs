//! What is allowed: TOML → [`PolicySet`]; which records may stay ([`decide`]); what may leave ([`release`]).
//!
//! Only this module makes the permission types ([`Resident`], [`Foreign`], [`Released`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::civil::Date;

use super::codes::Codes;
use super::dataset::Dataset;
use super::document::{Place, Spot};
use super::evidence::Evidence;
use super::fact::Fact;
use super::jurisdiction::Jurisdiction;
use super::model::Model;
use super::name::{DatasetName, DestinationName, GatewayId, StreamName};
use super::producers::Producers;
use super::stream::Stream;

mod access;
mod ahead;
mod claims;
mod conditions;
mod counter;
mod decide;
mod diff;
mod egress;
mod explain;
mod fixture;
mod form;
mod grounds;
mod limits;
mod lint;
mod noise;
mod permit;
mod profile;
mod read;
mod regime;
mod release;
mod ruling;
mod scope;
mod treat;
mod ways;
mod widest;

pub use access::{Access, DEFAULT, Denied, Granted, Naming, Right, Rule, Spoken};
pub use ahead::Ahead;
pub use conditions::{AtHand, ByCounter, Ground, OnExpired, Recipient, Shown};
pub use counter::{Counted, CountedAt, CountedHere, Counter, Per};
pub use decide::{Decided, Version};
pub use diff::{Count, Counting, Difference, FlowChange, Judged, RuleChange, Tally, bytes_of};
pub use egress::{EgressRow, Outlet, Permission, strictest};
pub use explain::{Applies, Explained, Explanation, Flow, OfFact, Piece, Told};
pub use fixture::{Case, Failed, newest_as_of, read_cases};
pub use form::{Form, Lasting};
pub use grounds::{ByCount, Grounds, Use, Vouching};
pub use limits::{Asked, Limits};
pub use lint::lint;
pub use noise::{Counted as NoisedCount, Noised, noised};
pub use permit::{Foreign, Quarantined, Reduced, Released, ReleasedParts, Resident};
pub use profile::Profile;
pub use read::{PROOF, SHAPES, conditions_of_recipient, read, read_kept};
pub use regime::{
    Class, Classes, Localisation, Misroute, Notes, Permit, Regime, RegimeSet, Region, Scope, Term, Transfer,
};
#[cfg(test)]
pub(crate) use release::receiver;
pub use release::{
    ALL, Added, Adding, Addition, By, Changes, ClosedWindow, DEGRADED, Ended, LastTold, Longer, NotNoised, ON_CHANGE,
    Outcome, RELEASE_COLUMNS, ROLL_UP, Reduction, RollUp, SINCE, Step, TOP, Top, Withheld, asked_for, release,
    release_changes, release_longer, release_noised, steps_above,
};
pub use ruling::{Here, Holder, OnCounters, Own, Ruling, Verdict};
pub use treat::{Treatment, Treatments};
pub use ways::{Alike, Way, Ways};
pub use widest::Widest;

pub use super::digest::Digest;
pub use super::proof::{About, ConditionId, Conditions, Proof, Vouched, Vouches};

/// Everything the policy files declare, checked.
#[derive(Debug)]
pub struct PolicySet {
    /// The digest of the files.
    pub digest: Digest,
    /// The data classes.
    pub classes: Classes,
    /// The regimes, by id.
    pub regimes: BTreeMap<String, Regime>,
    /// Codes that several states claim, with the claimants.
    pub disputed: Arc<BTreeMap<Jurisdiction, Vec<Jurisdiction>>>,
    /// The codes that there are.
    pub codes: Arc<Codes>,
    /// How evidence is weighed.
    pub facts: FactRules,
    /// How long records are held in quarantine.
    pub hold: Duration,
    /// What becomes of a regime past its review.
    pub on_expired: OnExpired,
    /// What somebody vouches for, of a stream, a dataset, a destination, a gateway or the whole deployment.
    pub vouches: Vouches,
    /// The counters that each gateway keeps, and what somebody says of them.
    pub counted: CountedAt,
    /// The producers, by name.
    pub producers: Arc<Producers>,
    /// Who may do what, and under which names identities speak.
    pub access: Access,
    /// The registries, by name.
    pub registries: BTreeMap<String, RegistryShape>,
    /// The streams, by name, each with what is done with its records.
    pub streams: BTreeMap<StreamName, StreamPlan>,
    /// The stream of each dataset.
    pub stream_of: BTreeMap<DatasetName, StreamName>,
    /// The release profile of each dataset that names one.
    pub release_of: BTreeMap<DatasetName, Profile>,
    /// The destinations, by name.
    pub destinations: BTreeMap<DestinationName, Destination>,
    /// The relaxations.
    pub overrides: Vec<Override>,
    /// The gateways that something is shown of. Only the configuration knows which gateways there are.
    pub shown_of_gateways: Vec<Spot<String>>,
    /// The conditions that a transfer or a region needs.
    pub needed: BTreeSet<ConditionId>,
    /// What must be looked at again, and by when.
    pub reviews: Vec<Dated>,
    /// What begins, and on which day.
    pub begins: Vec<Dated>,
    /// What ends, and on which day.
    pub ends: Vec<Dated>,
}

/// Something that depends on the day.
#[derive(Debug, Clone)]
pub struct Dated {
    /// What.
    pub what: String,
    /// The day, and where it is written.
    pub day: Spot<Date>,
}

/// Policies that were in force, with where the gateway stood then.
pub type Known = BTreeMap<Digest, (Arc<PolicySet>, Arc<Here>)>;

/// How evidence is weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FactRules {
    /// Weaker evidence needs corroboration.
    pub min_strength: u8,
    /// What becomes of a record of which a fact cannot be told.
    pub unknown: Unknown,
}

impl Default for FactRules {
    fn default() -> Self {
        Self { min_strength: 60, unknown: Unknown::Refuse }
    }
}

/// What becomes of a record of which a fact cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// It is refused.
    Refuse,
    /// It is held in memory.
    Quarantine,
}

/// How a registry's file is read.
#[derive(Debug, Clone)]
pub struct RegistryShape {
    /// The column of the key.
    pub key: String,
    /// The facts, each with its column.
    pub facts: BTreeMap<Fact, String>,
    /// Where it is declared.
    pub place: Place,
}

/// A stream and what is done with its records.
#[derive(Debug)]
pub struct StreamPlan {
    /// The declaration.
    pub stream: Arc<Stream>,
    /// Whether each contributor is one person. Otherwise a counter cannot tell how many persons' records went.
    pub contributor_is_person: bool,
    /// Where the facts are looked for.
    pub evidence: Vec<Evidence>,
    /// The facts that are declared not to be tested.
    pub untested: BTreeSet<Fact>,
    /// In which form fields are kept.
    pub treatments: Treatments,
    /// The model that scores the records.
    pub model: Option<Model>,
    /// Where the hash of the model's file stands.
    pub model_place: Option<Place>,
    /// The datasets over the stream, as they are declared, in the order of their names. Those without noise part its records
    /// alike: two partitions of the same records could be subtracted from each other.
    pub datasets: Vec<Arc<Dataset>>,
    /// What is counted for them: [`Dataset::counted_for`] those without noise, and each that has noise.
    pub counted: Vec<Arc<Dataset>>,
    /// The data class of a record: the join of those of all its fields and of the model's outputs.
    pub classes: BTreeSet<String>,
    /// Where the stream is declared.
    pub place: Place,
}

/// A destination, as the law sees it.
#[derive(Debug, Clone)]
pub struct Destination {
    /// The countries it is in, that its operator is in, and that it promised to send on to only.
    pub countries: Vec<Jurisdiction>,
    /// The datasets it may be sent, each with the place that says so.
    pub accepts: Vec<Spot<DatasetName>>,
    /// The strongest form it is sent, whatever the regimes would allow.
    pub max_form: Form,
    /// What has been shown of it.
    pub conditions: Conditions,
    /// Where it is declared.
    pub place: Place,
}

/// The one way to relax anything: fewer contributors for one dataset at one destination, for a time, approved by two
/// people.
#[derive(Debug, Clone)]
pub struct Override {
    /// Its id.
    pub id: Spot<String>,
    /// The least number of contributors instead.
    pub min_contributors: usize,
    /// The dataset.
    pub dataset: Spot<DatasetName>,
    /// The destination.
    pub destination: Spot<DestinationName>,
    /// Who approved it. At least two.
    pub approved: BTreeSet<String>,
    /// The last day.
    pub until: Date,
}

impl StreamPlan {
    /// The datasets that share their cells with a dataset, itself among them. One with noise has its own.
    pub fn sharing<'p>(&'p self, dataset: &'p Dataset) -> impl Iterator<Item = &'p Arc<Dataset>> {
        let shares = |other: &&Arc<Dataset>| {
            other.name == dataset.name || (other.privacy.is_none() && dataset.privacy.is_none())
        };
        self.datasets.iter().filter(shares)
    }
}

impl PolicySet {
    /// What holds on a day for what is at hand, towards a recipient of which these conditions have been shown.
    #[must_use]
    pub fn shown<'s>(&'s self, at_hand: AtHand<'s>, recipient: &'s Conditions, day: Date) -> Shown<'s> {
        let vouched = Some((&self.vouches, at_hand));
        Shown { day, on_expired: self.on_expired, recipient, vouched, counters: ByCounter::default() }
    }

    /// Whether a count of the contributors of a stream is one of persons. A stream that is not declared has none.
    #[must_use]
    pub fn tells_persons_apart(&self, stream: Option<&StreamName>) -> bool {
        stream.and_then(|stream| self.streams.get(stream)).is_none_or(|plan| plan.contributor_is_person)
    }

    /// What holds on a day for the records of a stream at a gateway.
    #[must_use]
    pub fn shown_of_records<'s>(&'s self, stream: Option<&'s StreamName>, holder: Holder<'s>, day: Date) -> Shown<'s> {
        let at_hand = AtHand { stream, dataset: None, to: Recipient::Gateway(holder.id) };
        self.shown(at_hand, holder.conditions, day)
    }

    /// The same for identifiable records whose persons a gateway counts, `keeps`. Its counters show nothing of a stream whose
    /// contributors may be several persons.
    #[must_use]
    pub fn shown_and_counted<'s>(
        &'s self,
        stream: Option<&'s StreamName>,
        holder: Holder<'s>,
        keeps: &GatewayId,
        day: Date,
    ) -> Shown<'s> {
        let counted = self.counted.get(keeps).filter(|_| self.tells_persons_apart(stream));
        Shown { counters: ByCounter::of(counted), ..self.shown_of_records(stream, holder, day) }
    }

    /// A dataset and the plan of its stream.
    #[must_use]
    pub fn dataset(&self, name: &str) -> Option<(&StreamPlan, &Arc<Dataset>)> {
        let plan = self.streams.get(self.stream_of.get(name)?)?;
        Some((plan, plan.datasets.iter().find(|dataset| dataset.name == name)?))
    }
}
