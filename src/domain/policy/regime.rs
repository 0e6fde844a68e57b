//! Regimes: one law's rules, as dated data.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::civil::Date;

use crate::domain::jurisdiction::Jurisdiction;

/// The ids of the regimes that apply to the same records.
pub type RegimeSet = Arc<BTreeSet<String>>;

/// A named, dated set of jurisdictions.
#[derive(Debug, Clone)]
pub struct Region {
    /// Its codes. A country covers its subdivisions.
    pub codes: BTreeSet<Jurisdiction>,
}

impl Region {
    /// Whether a jurisdiction, or the country it lies in, is in the region.
    #[must_use]
    pub fn covers(&self, jurisdiction: Jurisdiction) -> bool {
        self.codes.contains(&jurisdiction) || self.codes.contains(&jurisdiction.country())
    }
}

/// Data classes: a class covers itself and its descendants.
#[derive(Debug, Clone, Default)]
pub struct Classes {
    /// Every class with its parents.
    pub parents: BTreeMap<String, Vec<String>>,
}

impl Classes {
    /// Whether `class` is `ancestor` or descends from it.
    #[must_use]
    pub fn covers(&self, ancestor: &str, class: &str) -> bool {
        let mut waiting = vec![class];
        let mut seen = BTreeSet::new();
        while let Some(class) = waiting.pop() {
            if class == ancestor {
                return true;
            }
            if seen.insert(class) {
                waiting.extend(self.parents.get(class).into_iter().flatten().map(String::as_str));
            }
        }
        false
    }
}

/// What a regime wants done with a record that is not served here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Misroute {
    /// Tell the producer where it belongs.
    Redirect,
    /// Refuse it, and name no place.
    Refuse,
}

/// In which form data leaves; a weaker one is allowed wherever a stronger one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// Cells that passed the release rules.
    Statistical,
    /// Records under a pseudonym.
    Pseudonymised,
    /// Records.
    Identifiable,
}

impl Form {
    /// Every form with its name in the policy language.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("statistical", Self::Statistical),
        ("pseudonymised", Self::Pseudonymised),
        ("identifiable", Self::Identifiable),
    ];
}

/// One permitted outflow. There is no row that forbids: what no row permits is forbidden.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// The strongest form that may leave.
    pub form: Form,
    /// Where to. `None`: anywhere.
    pub to: Option<Region>,
    /// Where not to, whatever `to` says.
    pub except: Region,
    /// Why, in the law's words.
    pub basis: String,
    /// Conditions that must be shown to hold. Until evidence of conditions is implemented, a row with any
    /// is never satisfied.
    pub needs: Vec<String>,
}

/// One law's rules.
#[derive(Debug, Clone)]
pub struct Regime {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The jurisdictions whose records it covers.
    pub applies_in: Region,
    /// The data classes it covers, with their descendants.
    pub classes: Vec<String>,
    /// What it wants done with a record that is not served here.
    pub misroute: Misroute,
    /// The least number of contributors of a released cell.
    pub min_contributors: usize,
    /// What may leave.
    pub transfers: Vec<Transfer>,
    /// When the facts must be looked at again.
    pub review_by: Date,
}

impl Regime {
    /// Whether the regime covers a jurisdiction's records of any of these classes.
    #[must_use]
    pub fn covers_class(&self, classes: &Classes, of_record: &BTreeSet<String>) -> bool {
        of_record.iter().any(|class| self.classes.iter().any(|covered| classes.covers(covered, class)))
    }

    /// The row that lets a form go to a country, if there is one.
    #[must_use]
    pub fn permits(&self, form: Form, country: Jurisdiction) -> Option<&Transfer> {
        self.transfers.iter().find(|row| {
            row.form >= form
                && row.needs.is_empty()
                && row.to.as_ref().is_none_or(|region| region.covers(country))
                && !row.except.covers(country)
        })
    }
}
