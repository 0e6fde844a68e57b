//! Egress: which dataset may go to which destination, under which regime, by which rule, until when.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::civil::Date;

use super::conditions::{AtHand, Recipient};
use super::form::{Form, Lasting};
use super::limits::{Asking, Standing};
use super::{Destination, PolicySet, Regime, StreamPlan};
use crate::domain::aggregate::PartRule;
use crate::domain::dataset::Dataset;
use crate::domain::document::{Place, Spot};
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::name::{DatasetName, DestinationName};
use crate::domain::privacy::Privacy;
use crate::domain::rounding::Rounding;

/// One line of the egress table.
#[derive(Debug, Clone)]
pub struct EgressRow {
    /// The dataset.
    pub dataset: DatasetName,
    /// The destination.
    pub destination: DestinationName,
    /// The countries of the destination, of its operator, and onward.
    pub countries: Vec<Jurisdiction>,
    /// The regime.
    pub regime: String,
    /// What it says.
    pub permission: Permission,
    /// Where the destination is said to accept the dataset.
    pub place: Place,
}

/// What a regime says to an outflow of released cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permission {
    /// It may leave.
    Allowed {
        /// The rules that let it go, one per country, each once.
        rules: Vec<String>,
        /// On which basis.
        basis: Vec<String>,
        /// The last day, where there is one.
        until: Option<Date>,
    },
    /// No row lets it go to this country.
    NotAllowed(Jurisdiction),
    /// The destination takes only a weaker form.
    TooStrong,
    /// Its release profile asks for windows of at least this length.
    WindowTooShort(Duration),
    /// Its release profile asks for differential privacy.
    NeedsNoise,
}

impl Permission {
    /// Whether it may leave.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }
}

/// A destination that a dataset may go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlet {
    /// The dataset.
    pub dataset: DatasetName,
    /// The destination's name.
    pub destination: DestinationName,
    /// The least number of contributors of a cell.
    pub min_contributors: usize,
    /// When a part of a cell may leave.
    pub parts: PartRule,
    /// The noise that every number gets. `None`: none.
    pub privacy: Option<Privacy>,
    /// Whether it is told how many contributors each cell has at least.
    pub tells_contributors: bool,
    /// To which multiples counts are rounded.
    pub rounding: Rounding,
    /// The override that lowered the number.
    pub by_override: Option<String>,
}

impl Outlet {
    /// What decides about a cell and its parts, the least strict rule about parts first.
    pub(super) fn rule(&self) -> (PartRule, usize) {
        (self.parts, self.min_contributors)
    }
}

impl PolicySet {
    /// The egress table of a gateway that serves these regimes, on a day. Only records of regimes it serves are kept,
    /// so only those are asked.
    #[must_use]
    pub fn egress(&self, serves: &[String], day: Date) -> Vec<EgressRow> {
        let mut rows = Vec::new();
        for (name, destination) in &self.destinations {
            for Spot { value: dataset, place } in &destination.accepts {
                let Some((plan, declared)) = self.dataset(dataset) else { continue };
                for regime in self.governing(plan, serves, day) {
                    rows.push(EgressRow {
                        dataset: declared.name.clone(),
                        destination: name.clone(),
                        countries: destination.countries.clone(),
                        regime: regime.id.clone(),
                        permission: self.permission(regime, name, destination, declared, day),
                        place: place.clone(),
                    });
                }
            }
        }
        rows
    }

    /// What a regime says to released cells at a destination: it must let them go to every country of it.
    fn permission(
        &self,
        regime: &Regime,
        name: &DestinationName,
        destination: &Destination,
        dataset: &Dataset,
        day: Date,
    ) -> Permission {
        let form = Form::of_cells(dataset);
        if destination.max_form < form {
            return Permission::TooStrong;
        }
        if regime.release.rho_per_day.is_some() && dataset.privacy.is_none() {
            return Permission::NeedsNoise;
        }
        if let Some(shortest) = regime.release.min_window.filter(|shortest| *shortest > dataset.window) {
            return Permission::WindowTooShort(shortest);
        }
        let at_hand =
            AtHand { stream: Some(&dataset.stream), dataset: Some(&dataset.name), to: Recipient::Destination(name) };
        let shown = self.shown(at_hand, &destination.conditions, day);
        let (mut rules, mut basis) = (Vec::new(), Vec::new());
        let mut lasting = Lasting(None);
        for &country in &destination.countries {
            let Some(permit) = regime.permits(form, country, &shown) else {
                return Permission::NotAllowed(country);
            };
            let rule = regime.rule(permit.row);
            if !rules.contains(&rule) {
                rules.push(rule);
                basis.push(permit.row.basis.clone());
            }
            lasting = lasting.and(permit.lasting);
        }
        Permission::Allowed { rules, basis, until: lasting.0 }
    }

    /// The regimes of a gateway that may cover a stream's records on a day.
    pub fn governing<'p>(
        &'p self,
        plan: &'p StreamPlan,
        serves: &'p [String],
        day: Date,
    ) -> impl Iterator<Item = &'p Regime> {
        let in_force = self.regimes.values().filter(move |regime| regime.is_in_force(day));
        let covering = in_force.filter(|regime| regime.covers_class(&self.classes, &plan.classes));
        covering.filter(|regime| serves.contains(&regime.id))
    }

    /// The destinations that every governing regime lets a dataset go to on a day, each with the strictest numbers of
    /// contributors of the dataset, the regimes, their profiles and the records' classes. A dataset that no regime governs may go
    /// nowhere.
    #[must_use]
    pub fn outlets(&self, dataset: &DatasetName, serves: &[String], day: Date) -> Vec<Outlet> {
        self.outlets_asked(dataset, Asking { serves, day, standing: Standing::InForce })
    }

    /// The same of policies that were in force before: they ask for what they say.
    #[must_use]
    pub fn outlets_before(&self, dataset: &DatasetName, serves: &[String], day: Date) -> Vec<Outlet> {
        self.outlets_asked(dataset, Asking { serves, day, standing: Standing::Before })
    }

    fn outlets_asked(&self, dataset: &DatasetName, asking: Asking<'_>) -> Vec<Outlet> {
        let accepting = self
            .destinations
            .iter()
            .filter(|(_, destination)| destination.accepts.iter().any(|accepted| accepted.value == *dataset));
        accepting.filter_map(|(name, _)| self.outlet_asked(dataset, name, asking)).collect()
    }

    /// The datasets that may go to a destination on a day.
    #[must_use]
    pub fn let_go_to(&self, destination: &DestinationName, serves: &[String], day: Date) -> BTreeSet<DatasetName> {
        let accepts = self.destinations.get(destination).into_iter().flat_map(|destination| &destination.accepts);
        let datasets = accepts.map(|accepted| &accepted.value);
        datasets.filter(|dataset| self.outlet(dataset, destination, serves, day).is_some()).cloned().collect()
    }

    /// As [`Self::outlets`], of one destination, which is known to accept the dataset.
    #[must_use]
    pub fn outlet(
        &self,
        dataset: &DatasetName,
        destination: &DestinationName,
        serves: &[String],
        day: Date,
    ) -> Option<Outlet> {
        self.outlet_asked(dataset, destination, Asking { serves, day, standing: Standing::InForce })
    }

    fn outlet_asked(&self, dataset: &DatasetName, destination: &DestinationName, asking: Asking<'_>) -> Option<Outlet> {
        let Asking { serves, day, .. } = asking;
        let (plan, declared) = self.dataset(dataset)?;
        let limits = self.limits_asked(dataset, asking)?;
        let least = limits.contributors.value;
        let (name, destination) = self.destinations.get_key_value(destination)?;
        let is_allowed = self
            .governing(plan, serves, day)
            .all(|regime| self.permission(regime, name, destination, declared, day).is_allowed());
        if !is_allowed {
            return None;
        }
        let relaxed = self
            .overrides
            .iter()
            .filter(|relaxed| relaxed.dataset.value == declared.name && relaxed.destination.value == *name)
            .filter(|relaxed| day <= relaxed.until);
        let relaxed = relaxed.min_by_key(|relaxed| (relaxed.min_contributors, &relaxed.id.value));
        let relaxed = relaxed.filter(|relaxed| relaxed.min_contributors < least);
        let min_contributors = relaxed.map_or(least, |relaxed| relaxed.min_contributors);
        let of_part = if relaxed.is_some() { limits.part.value.min(min_contributors) } else { limits.part.value };
        Some(Outlet {
            dataset: declared.name.clone(),
            destination: name.clone(),
            min_contributors,
            parts: PartRule {
                least: of_part,
                not_empty: limits.not_empty,
                percent: limits.percent.value,
                beyond_one: limits.producers.value > 1,
                beside: limits.beside.as_ref().map_or(0, |beside| beside.value),
            },
            privacy: limits.privacy,
            tells_contributors: limits.told.value,
            rounding: limits.rounding.map_or(Rounding::NONE, |asked| asked.value),
            by_override: relaxed.map(|relaxed| relaxed.id.value.clone()),
        })
    }
}

/// The stricter of several versions' outlets of one dataset: what all of them allow, with the greatest number of contributors.
#[must_use]
pub fn strictest(versions: impl IntoIterator<Item = Vec<Outlet>>) -> Vec<Outlet> {
    let stricter = |left: Vec<Outlet>, right: Vec<Outlet>| {
        let both = left.into_iter().filter_map(|outlet| {
            let other = right.iter().find(|other| other.destination == outlet.destination)?;
            let parts = outlet.parts.stricter(other.parts);
            // Where one of them asks for noise, there is noise.
            let privacy = outlet.privacy.into_iter().chain(other.privacy).reduce(Privacy::stricter);
            // Where one of them does not let it be told how many contributors there are, it is not told.
            let tells_contributors = outlet.tells_contributors && other.tells_contributors;
            // Each gets multiples of what it asks for, also where one policy could not ask for so much.
            let rounding = outlet.rounding.with(other.rounding);
            let stricter = if other.min_contributors > outlet.min_contributors { other.clone() } else { outlet };
            Some(Outlet { parts, privacy, tells_contributors, rounding, ..stricter })
        });
        both.collect()
    };
    versions.into_iter().reduce(stricter).unwrap_or_default()
}
