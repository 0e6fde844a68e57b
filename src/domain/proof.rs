//! Conditions: what a transfer needs to be shown, what shows it, and of what it is shown.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use jiff::civil::Date;

use super::name::{DatasetName, DestinationName, GatewayId, StreamName};

/// What has been shown of a recipient, by condition.
pub type Conditions = BTreeMap<ConditionId, Proof>;

/// What somebody vouches for, by condition.
pub type Vouches = BTreeMap<ConditionId, Vec<Vouched>>;

/// The id of a condition, such as `data.clean`. It is made by [`ConditionId::new`] only, and is compared and looked up as its
/// text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConditionId(Arc<str>);

/// A text that is no condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a condition begins with one of {}", PREFIXES.join(", "))]
pub struct NoCondition;

/// A condition begins with what it is about.
const PREFIXES: [&str; 5] = ["dest.", "controller.", "data.", "origin.", "approval."];

impl ConditionId {
    /// The condition of this id.
    ///
    /// # Errors
    /// When no condition can have it.
    pub fn new(text: &str) -> Result<Self, NoCondition> {
        let names_something = |prefix: &&str| text.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty());
        if PREFIXES.iter().any(names_something) { Ok(Self(text.into())) } else { Err(NoCondition) }
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ConditionId {
    type Err = NoCondition;

    fn from_str(text: &str) -> Result<Self, NoCondition> {
        Self::new(text)
    }
}

impl Deref for ConditionId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ConditionId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConditionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ConditionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What shows that a condition is met.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Proof {
    /// Who says so. `None`: it is not said.
    pub by: Option<String>,
    /// Where it can be looked up: a contract's number, a file's name.
    pub reference: String,
    /// The last day it is good for.
    pub until: Option<Date>,
}

/// A condition that is shown of something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vouched {
    /// Of what. It says nothing of anything else.
    pub of: About,
    /// What shows it.
    pub proof: Proof,
}

/// What a condition is shown of: whatever fits all that is named here. What names nothing is shown of the whole deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct About {
    /// The records of a stream, and the cells that are made of them.
    pub stream: Option<StreamName>,
    /// The cells of a dataset.
    pub dataset: Option<DatasetName>,
    /// What goes to a destination.
    pub destination: Option<DestinationName>,
    /// What is held at a gateway: this one or a peer.
    pub gateway: Option<GatewayId>,
}

impl About {
    /// Whether it names nothing, so that it is the whole deployment.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [
            self.stream.as_ref().map(|name| format!("stream {name}")),
            self.dataset.as_ref().map(|name| format!("dataset {name}")),
            self.destination.as_ref().map(|name| format!("destination {name}")),
            self.gateway.as_ref().map(|name| format!("gateway {name}")),
        ];
        let named: Vec<String> = named.into_iter().flatten().collect();
        f.write_str(if named.is_empty() { "the whole deployment" } else { "" })?;
        f.write_str(&named.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_says_what_it_is_about_and_names_something() {
        for id in ["dest.listed", "controller.a", "data.few", "origin.trusted_producers", "approval.b"] {
            assert_eq!(ConditionId::new(id).unwrap().as_str(), id);
        }
        for text in ["", "dest", "dest.", "data.", "law.a", "Dest.a", " dest.a"] {
            assert_eq!(ConditionId::new(text), Err(NoCondition), "{text}");
        }
    }
}
