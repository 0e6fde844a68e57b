//! Conditions: what a transfer needs to be shown, and what shows it.

use std::collections::BTreeMap;

use jiff::civil::Date;

/// What has been shown, by the names of the conditions.
pub type Conditions = BTreeMap<String, Proof>;

/// What shows that a condition is met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Where it can be looked up: a contract's number, a file's name.
    pub reference: String,
    /// The last day it is good for.
    pub until: Option<Date>,
}
