//! What a deployment rests on: the rows of the laws, the conditions of these rows, and who vouches for the conditions.

use std::collections::BTreeSet;

use jiff::civil::Date;

use super::conditions::{AtHand, Recipient, Shown};
use super::{Conditions, Counted, Form, Here, Holder, PolicySet, Proof, Regime, StreamPlan};
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::name::{DatasetName, DestinationName, GatewayId, StreamName};
use crate::domain::proof::{About, ConditionId};

/// What a deployment does that a law must permit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// Cells of a dataset go to a destination.
    Cells(DatasetName, DestinationName),
    /// Records of a stream are held at a gateway: this one, or a peer to which producers are sent.
    Records(StreamName, GatewayId),
}

/// A row that something rests on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grounds {
    /// What rests on it.
    pub used_for: Use,
    /// The row's rule id.
    pub rule: String,
    /// The last day on which the row permits it, where there is one.
    pub until: Option<Date>,
    /// The conditions that the row rests on there. Empty: nobody has to show anything.
    pub conditions: Vec<Vouching>,
}

/// A condition, and who vouches for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vouching {
    /// The condition.
    pub condition: ConditionId,
    /// Of what it is shown. `None`: of the recipient.
    pub of: Option<About>,
    /// The proof.
    pub proof: Proof,
    /// The counter that shows it while it has room. `None`: somebody vouches for it.
    pub counted: Option<ByCount>,
}

/// A counter that shows a condition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByCount {
    /// How many persons of the law's limit are the gateway's.
    pub share: u64,
    /// How many of these were counted elsewhere, or before.
    pub already: u64,
    /// The law's limit.
    pub below: u64,
}

impl PolicySet {
    /// Every row that a gateway rests on today: for cells that may leave it, for records that it holds, and for records
    /// whose producers it sends to a peer. `id` and `own`: the gateway, and what has been shown of it.
    #[must_use]
    pub fn grounds(&self, here: &Here, id: &GatewayId, own: &Conditions, day: Date) -> Vec<Grounds> {
        let mut grounds = BTreeSet::new();
        for row in self.egress(&here.serves, day).into_iter().filter(|row| row.permission.is_allowed()) {
            let Some(regime) = self.regimes.get(&row.regime) else { continue };
            let Some((plan, dataset)) = self.dataset(&row.dataset) else { continue };
            let Some(destination) = self.destinations.get(&row.destination) else { continue };
            let form = Form::of_cells(dataset);
            let to = Recipient::Destination(&row.destination);
            let at_hand = AtHand { stream: Some(&plan.stream.name), dataset: Some(&row.dataset), to };
            let shown = self.shown(at_hand, &destination.conditions, day);
            let used_for = Use::Cells(row.dataset.clone(), row.destination.clone());
            let of_countries =
                row.countries.iter().filter_map(|&country| of_row(regime, form, country, &shown, &used_for));
            grounds.extend(of_countries);
        }
        let mut held = |plan: &StreamPlan, holder: Holder<'_>, serves: &[String]| {
            let name = &plan.stream.name;
            let shown = self.shown_and_counted(Some(name), holder, id, day);
            let used_for = Use::Records(name.clone(), holder.id.clone());
            let of_regimes = self.governing(plan, serves, day);
            grounds.extend(
                of_regimes.filter_map(|regime| of_row(regime, Form::Identifiable, holder.country, &shown, &used_for)),
            );
        };
        for plan in self.streams.values() {
            held(plan, Holder { id, country: here.country, conditions: own }, &here.serves);
            for peer in &here.peers {
                held(plan, Holder::from(&**peer), &peer.serves);
            }
        }
        grounds.into_iter().collect()
    }
}

/// The row of a regime that permits a form at a place, and what it rests on.
fn of_row(regime: &Regime, form: Form, place: Jurisdiction, shown: &Shown<'_>, used_for: &Use) -> Option<Grounds> {
    let permit = regime.permits(form, place, shown)?;
    let shown = shown.asked(&regime.id, place);
    let conditions = permit.needs.iter().filter_map(|condition| {
        let ground = shown.ground(condition)?;
        let (condition, of) = ((*condition).clone(), ground.of.cloned());
        let counted = ground.counted.map(|counted| {
            let Counted { counter, share, already, .. } = counted;
            ByCount { share: *share, already: *already, below: counter.below }
        });
        Some(Vouching { condition, of, proof: ground.proof.clone(), counted })
    });
    let conditions = conditions.collect();
    Some(Grounds { used_for: used_for.clone(), rule: regime.rule(permit.row), until: permit.lasting.0, conditions })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::document::changed;
    use crate::domain::policy::explain::tests::{STREAM, version};
    use crate::domain::policy::fixture::tests::SET;

    const SHOWN: &str = r#"
schema = "bailiwick.policy/1"
[[shown]]
conditions = ["data.clean", "data.old"]
for   = { stream = "visits" }
by    = "counsel"
ref   = "C-1"
until = 2026-06-30
[[shown]]
conditions = ["data.clean"]
for   = { dataset = "visits_by_home", destination = "desk" }
by    = "dpo"
ref   = "C-2"
until = 2026-09-30
[[shown]]
conditions = ["data.clean"]
for   = { dataset = "visits_by_home", destination = "far" }
by    = "nobody"
ref   = "C-3"
"#;

    /// The grounds of the sample on a day, as lines.
    fn grounds(day: Date) -> Vec<String> {
        let [regions, classes, union, br] = SET;
        let basis = "basis = \"nobody is in it\"";
        let statistics = changed(union, basis, &format!("{basis}\nneeds = [\"data.clean\"]"));
        let statistics = changed(&statistics, "basis = \"inside\"", "basis = \"inside\"\nneeds = [\"data.old\"]");
        let version = version(&[regions, classes, &statistics, br, STREAM, SHOWN]);
        let own = Conditions::new();
        let grounds = version.policy.grounds(&version.here, &"eu".parse().unwrap(), &own, day);
        let line = |grounds: &Grounds| {
            let conditions = grounds.conditions.iter().map(|vouching| {
                let of = vouching.of.as_ref().map(ToString::to_string).unwrap_or_default();
                format!(" {} of {of} by {}", vouching.condition, vouching.proof.by.as_deref().unwrap_or_default())
            });
            let conditions: String = conditions.collect();
            format!("{:?}: {} until {:?}{conditions}", grounds.used_for, grounds.rule, grounds.until)
        };
        grounds.iter().map(line).collect()
    }

    /// A row that lasts longest, and of what shows a condition that which is good for longest.
    #[test]
    fn rows_in_use_are_told_with_their_conditions_and_who_vouches_for_them() {
        let cells = |rule: &str| format!("Cells(\"visits_by_home\", \"desk\"): union-law/transfers/{rule} until");
        let at = "Records(\"visits\", \"br\"): br-law/transfers/at-home until Some(2027-01-01)";
        let here = "Records(\"visits\", \"eu\"): union-law/transfers/inside until Some(2026-06-30)";
        assert_eq!(
            grounds(Date::constant(2026, 6, 30)),
            [
                format!(
                    "{} Some(2026-09-30) data.clean of dataset visits_by_home, destination desk by dpo",
                    cells("statistics")
                ),
                at.to_owned(),
                format!("{here} data.old of stream visits by counsel"),
            ]
        );
        // What has ended shows nothing.
        assert_eq!(grounds(Date::constant(2026, 7, 1)).len(), 2);
        assert_eq!(grounds(Date::constant(2026, 10, 1)), [at]);
    }
}
