//! What has been shown of a recipient, a stream or a dataset, and what holds on a day because of it.

use jiff::civil::Date;

use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::name::{DatasetName, DestinationName, GatewayId, StreamName};
use crate::domain::proof::{About, ConditionId, Conditions, Proof, Vouches};

use super::counter::{Counted, CountedHere};
use super::form::{Form, Lasting};

/// What becomes of a regime whose facts are past their review.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExpired {
    /// It permits nothing any more.
    DenyAll,
    /// It permits only what is not about identifiable persons.
    DenyIdentifiable,
    /// It holds as before, with a warning.
    Warn,
}

impl OnExpired {
    /// Every choice with its name in the policy language.
    pub const NAMES: [(&'static str, Self); 3] =
        [("deny-all", Self::DenyAll), ("deny-identifiable", Self::DenyIdentifiable), ("warn", Self::Warn)];
}

/// What is asked about: whose records or cells, and who gets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtHand<'h> {
    /// The stream. `None`: one that is not declared.
    pub stream: Option<&'h StreamName>,
    /// The dataset. `None`: records, not cells.
    pub dataset: Option<&'h DatasetName>,
    /// Who gets them.
    pub to: Recipient<'h>,
}

/// Who gets records or cells, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipient<'h> {
    /// A destination.
    Destination(&'h DestinationName),
    /// A gateway: this one or a peer.
    Gateway(&'h GatewayId),
}

/// Whether what names one thing, or none, is about what is here.
fn fits<T: PartialEq>(named: Option<&T>, here: Option<&T>) -> bool {
    named.is_none_or(|named| here == Some(named))
}

impl AtHand<'_> {
    /// Whether what is shown of something is shown of this.
    #[must_use]
    pub fn is_of(&self, about: &About) -> bool {
        let (destination, gateway) = match self.to {
            Recipient::Destination(name) => (Some(name), None),
            Recipient::Gateway(id) => (None, Some(id)),
        };
        fits(about.stream.as_ref(), self.stream)
            && fits(about.dataset.as_ref(), self.dataset)
            && fits(about.destination.as_ref(), destination)
            && fits(about.gateway.as_ref(), gateway)
    }
}

/// What holds on a day for what is at hand.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'s> {
    /// The day.
    pub day: Date,
    /// What becomes of regimes past their review.
    pub on_expired: OnExpired,
    /// Shown of the recipient.
    pub recipient: &'s Conditions,
    /// What somebody vouches for, and what is at hand. What is shown of something else does not count. `None`: the law
    /// is asked alone.
    pub vouched: Option<(&'s Vouches, AtHand<'s>)>,
    /// What counters show, each of which may yet be full.
    pub counters: ByCounter<'s>,
}

/// What the counters of a gateway show of identifiable records.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByCounter<'s> {
    all: Option<&'s CountedHere>,
    /// Those of the regime that is asked, and the place that it is asked about.
    asked: Option<(&'s [Counted], Jurisdiction)>,
}

impl<'s> ByCounter<'s> {
    /// What these counters show.
    #[must_use]
    pub fn of(counted: Option<&'s CountedHere>) -> Self {
        Self { all: counted, asked: None }
    }

    fn get(&self, condition: &str) -> Option<&'s Counted> {
        let (counted, place) = self.asked?;
        let shows = |counted: &&Counted| *counted.counter.condition == *condition && counted.counter.counts_at(place);
        counted.iter().find(shows)
    }
}

/// What shows a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ground<'s> {
    /// Of what. `None`: of the recipient.
    pub of: Option<&'s About>,
    /// The proof.
    pub proof: &'s Proof,
    /// The counter that shows it while it has room. `None`: somebody vouches for it.
    pub counted: Option<&'s Counted>,
}

impl<'s> Shown<'s> {
    /// The same when a regime is asked about a place.
    #[must_use]
    pub(super) fn asked(self, regime: &str, place: Jurisdiction) -> Self {
        let counted = self.counters.all.and_then(|all| all.get(regime));
        let asked = counted.map(|counted| (counted.as_slice(), place));
        Self { counters: ByCounter { asked, ..self.counters }, ..self }
    }

    /// Whether somebody vouches for a condition, so that it is met whatever a counter says.
    #[must_use]
    pub(super) fn is_vouched(&self, condition: &str) -> bool {
        self.vouched_ground(condition).is_some()
    }

    /// What shows a condition today. Of several proofs, it is the one that lasts longest. A counter shows a condition
    /// only where nobody vouches for it.
    #[must_use]
    pub fn ground(&self, condition: &str) -> Option<Ground<'s>> {
        self.vouched_ground(condition).or_else(|| {
            let counted = self.counters.get(condition)?;
            let ground = Ground { of: None, proof: &counted.proof, counted: Some(counted) };
            self.is_on(None, ground.proof.until).then_some(ground)
        })
    }

    fn vouched_ground(&self, condition: &str) -> Option<Ground<'s>> {
        let of_recipient = self.recipient.get(condition).map(|proof| Ground { of: None, proof, counted: None });
        let vouched = self.vouched.and_then(|(vouches, at_hand)| Some((vouches.get(condition)?, at_hand)));
        let vouched = vouched.into_iter().flat_map(|(vouches, at_hand)| {
            let of_this = vouches.iter().filter(move |vouched| at_hand.is_of(&vouched.of));
            of_this.map(|vouched| Ground { of: Some(&vouched.of), proof: &vouched.proof, counted: None })
        });
        let good = of_recipient.into_iter().chain(vouched).filter(|ground| self.is_on(None, ground.proof.until));
        good.max_by_key(|ground| Lasting(ground.proof.until))
    }

    /// How long terms hold, if they hold today: from a day, until a day, and while conditions are shown.
    #[must_use]
    pub fn lasting(&self, from: Option<Date>, until: Option<Date>, needs: &[ConditionId]) -> Option<Lasting> {
        let mut lasting = Lasting(until);
        for need in needs {
            lasting = lasting.and(Lasting(self.ground(need)?.proof.until));
        }
        self.is_on(from, lasting.0).then_some(lasting)
    }

    fn is_on(&self, from: Option<Date>, until: Option<Date>) -> bool {
        from.is_none_or(|from| from <= self.day) && Lasting(Some(self.day)) <= Lasting(until)
    }

    /// How long a row of a form holds, if its facts must be looked at again by a day.
    #[must_use]
    pub fn until_review(&self, form: Form, review_by: Date) -> Lasting {
        let ends = match self.on_expired {
            OnExpired::DenyAll => true,
            OnExpired::DenyIdentifiable => form > Form::Statistical,
            OnExpired::Warn => false,
        };
        Lasting(ends.then_some(review_by))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(stream: &str, dataset: &str, destination: &str, gateway: &str) -> About {
        About {
            stream: stream.parse().ok(),
            dataset: dataset.parse().ok(),
            destination: destination.parse().ok(),
            gateway: gateway.parse().ok(),
        }
    }

    #[test]
    fn what_is_shown_of_one_thing_is_shown_of_nothing_else() {
        let (hr, heads) = ("hr".parse().unwrap(), "heads".parse().unwrap());
        let (cloud, us) = ("cloud".parse().unwrap(), "us-1".parse().unwrap());
        let cells = AtHand { stream: Some(&hr), dataset: Some(&heads), to: Recipient::Destination(&cloud) };
        let records = AtHand { stream: Some(&hr), dataset: None, to: Recipient::Gateway(&us) };
        for (of, of_cells, of_records) in [
            (about("", "", "", ""), true, true),
            (about("hr", "", "", ""), true, true),
            (about("customers", "", "", ""), false, false),
            // Cells are not records: who found cells anonymous said nothing of the records.
            (about("", "heads", "", ""), true, false),
            (about("", "sales", "", ""), false, false),
            (about("", "", "cloud", ""), true, false),
            (about("", "", "cellar", ""), false, false),
            (about("", "", "", "us-1"), false, true),
            (about("", "", "", "us-2"), false, false),
            (about("hr", "", "cloud", ""), true, false),
            (about("hr", "", "cellar", ""), false, false),
            (about("customers", "", "cloud", ""), false, false),
        ] {
            assert_eq!((cells.is_of(&of), records.is_of(&of)), (of_cells, of_records), "{of}");
        }
    }
}
