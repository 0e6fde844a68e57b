//! Conditions: what a transfer needs to be shown, what shows it, and of what it is shown.

use std::collections::BTreeMap;
use std::fmt;

use jiff::civil::Date;

use super::name::{DatasetName, DestinationName, GatewayId, StreamName};

/// What has been shown of a recipient, by the names of the conditions.
pub type Conditions = BTreeMap<String, Proof>;

/// What somebody vouches for, by the names of the conditions.
pub type Vouches = BTreeMap<String, Vec<Vouched>>;

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
