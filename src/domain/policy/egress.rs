//! The egress table: which dataset may go to which destination, under which regime, by which rule.

use std::sync::Arc;

use jiff::civil::Date;

use super::regime::Form;
use super::{PolicySet, Regime, StreamPlan};
use crate::domain::dataset::Dataset;
use crate::domain::document::Place;

/// One line of the egress table.
#[derive(Debug, Clone)]
pub struct EgressRow {
    /// The dataset.
    pub dataset: String,
    /// The destination.
    pub destination: String,
    /// The destination's country.
    pub country: String,
    /// The regime.
    pub regime: String,
    /// What it says.
    pub permission: Permission,
    /// The least number of contributors of a cell under this regime.
    pub min_contributors: usize,
    /// When the regime's facts must be looked at again.
    pub review_by: Date,
    /// Where the destination is said to accept the dataset.
    pub place: Place,
}

/// What a regime says to an outflow of released cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permission {
    /// It may leave, on this basis.
    Allowed(String),
    /// No row lets it leave.
    NotAllowed,
}

impl PolicySet {
    /// The egress table of a gateway that serves these regimes. Only records of regimes it serves are kept,
    /// so only those are asked.
    #[must_use]
    pub fn egress(&self, serves: &[String]) -> Vec<EgressRow> {
        let mut rows = Vec::new();
        for (name, destination) in &self.destinations {
            for (dataset, place) in &destination.accepts {
                let Some((plan, declared)) = self.dataset(dataset) else { continue };
                for regime in self.governing(plan, serves) {
                    let row = regime.permits(Form::Statistical, destination.country);
                    rows.push(EgressRow {
                        dataset: dataset.clone(),
                        destination: name.clone(),
                        country: destination.country.to_string(),
                        regime: regime.id.clone(),
                        permission: row.map_or(Permission::NotAllowed, |row| Permission::Allowed(row.basis.clone())),
                        min_contributors: declared.min_contributors.max(regime.min_contributors),
                        review_by: regime.review_by,
                        place: place.clone(),
                    });
                }
            }
        }
        rows
    }

    /// The regimes of a gateway that may cover a stream's records.
    pub fn governing<'p>(&'p self, plan: &'p StreamPlan, serves: &'p [String]) -> impl Iterator<Item = &'p Regime> {
        let covering = self.regimes.values().filter(|regime| regime.covers_class(&self.classes, &plan.classes));
        covering.filter(|regime| serves.contains(&regime.id))
    }

    /// The destinations that every governing regime lets a dataset go to. A dataset that no regime governs
    /// may go nowhere.
    #[must_use]
    pub fn destinations_of(&self, dataset: &str, serves: &[String]) -> Vec<String> {
        let rows = self.egress(serves);
        let allowed = self.destinations.keys().filter(|destination| {
            let mut asked =
                rows.iter().filter(|row| row.dataset == dataset && row.destination == **destination).peekable();
            asked.peek().is_some() && asked.all(|row| row.permission != Permission::NotAllowed)
        });
        allowed.cloned().collect()
    }

    /// A dataset under the strictest `min_contributors` of the regimes that govern it and of its own.
    #[must_use]
    pub fn governed(&self, dataset: &Arc<Dataset>, serves: &[String]) -> Arc<Dataset> {
        let Some(plan) = self.streams.get(&dataset.stream) else { return Arc::clone(dataset) };
        let strictest = self.governing(plan, serves).map(|regime| regime.min_contributors).max().unwrap_or(0);
        Arc::new(Dataset { min_contributors: dataset.min_contributors.max(strictest), ..dataset.as_ref().clone() })
    }

    fn dataset(&self, name: &str) -> Option<(&StreamPlan, &Dataset)> {
        self.streams.values().find_map(|plan| {
            let dataset = plan.datasets.iter().find(|dataset| dataset.name == name)?;
            Some((plan, dataset.as_ref()))
        })
    }
}
