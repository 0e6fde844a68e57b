//! What has been shown of a recipient and of the deployment, and what holds by it on a day.

use jiff::civil::Date;

use crate::domain::proof::Conditions;

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

/// What holds on a day towards one recipient.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'s> {
    /// The day.
    pub day: Date,
    /// What becomes of regimes past their review.
    pub on_expired: OnExpired,
    /// Shown of the deployment.
    pub deployment: &'s Conditions,
    /// Shown of the recipient.
    pub recipient: &'s Conditions,
}

impl Shown<'_> {
    /// How long terms hold, if they hold today.
    #[must_use]
    pub fn lasting(&self, until: Option<Date>, needs: &[String]) -> Option<Lasting> {
        let mut lasting = Lasting(until);
        for need in needs {
            let evidence = self.recipient.get(need).or_else(|| self.deployment.get(need))?;
            lasting = lasting.and(Lasting(evidence.until));
        }
        (Lasting(Some(self.day)) <= lasting).then_some(lasting)
    }

    /// How long a row of a form holds whose facts must be looked at again by a day.
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
