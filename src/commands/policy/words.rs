//! A law's words as sentences, for `policy law` and `policy matrix`.

use std::collections::BTreeSet;

use jiff::civil::Date;

use crate::domain::counting::Period;
use crate::domain::fact::Fact;
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::policy::{ConditionId, Form, Localisation, Misroute, OnExpired, Per, Regime};

/// What a scope test says of a record, before the places.
pub(super) fn fact(fact: Fact) -> &'static str {
    match fact {
        Fact::CollectionPlace => "the record was collected in",
        Fact::SubjectResidence => "the person lives in",
        Fact::SubjectCitizenship => "the person is a citizen of",
        Fact::ControllerEstablishment => "the controller is established in",
        Fact::SourceSystem => "the record comes from the system",
        Fact::GatewayCountry => "the record is processed in",
    }
}

/// What goes in a form.
pub(super) fn form(form: Form) -> &'static str {
    match form {
        Form::Identifiable => "records",
        Form::Pseudonymised => "records under a pseudonym",
        Form::Statistical => "cells of enough contributors",
        Form::Dp => "cells with noise (differential privacy)",
    }
}

/// The word of the policy language.
pub(super) fn name(form: Form) -> &'static str {
    Form::NAMES.iter().find(|(_, known)| *known == form).map_or("", |(name, _)| name)
}

/// How strictly data are kept in place.
pub(super) fn localisation(localisation: Localisation) -> &'static str {
    match localisation {
        Localisation::None => "The law does not keep data in place.",
        Localisation::Conditional => "Data may leave under a mechanism.",
        Localisation::Mirror => "A copy of the data must stay.",
        Localisation::FirstStore => "The first recording of the data must be local.",
        Localisation::Strict => "Data may not leave, nor be processed abroad.",
    }
}

/// What becomes of a record that is not served.
pub(super) fn misroute(misroute: Misroute) -> &'static str {
    match misroute {
        Misroute::Redirect => {
            "refuses the record, and tells the producer which gateway serves it, if the law lets it go there."
        }
        Misroute::Quarantine => {
            "holds the record in memory for a while, and discards it if nothing more becomes known."
        }
        Misroute::Refuse => "refuses the record, and names no other place.",
    }
}

/// What becomes of a law that nobody has looked at again.
pub(super) fn on_expired(on_expired: OnExpired) -> &'static str {
    match on_expired {
        OnExpired::DenyAll => "no row permits anything",
        OnExpired::DenyIdentifiable => "no row permits records any more, whether or not under a pseudonym",
        OnExpired::Warn => "all rows hold as before, with a warning",
    }
}

/// Codes, one after the other.
pub(super) fn codes<'c>(codes: impl IntoIterator<Item = &'c Jurisdiction>) -> String {
    codes.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Conditions of a law, all of which must be shown, with the limits of those that can be counted.
pub(super) fn needs(needs: &BTreeSet<ConditionId>, law: &Regime) -> String {
    let shown = |need: &ConditionId| match law.counters.iter().find(|counter| counter.condition == *need) {
        Some(counter) => format!("{need} (vouched for, or counted: below {})", counter.below),
        None => need.to_string(),
    };
    needs.iter().map(shown).collect::<Vec<_>>().join(" + ")
}

/// Whose records a counter counts together.
pub(super) fn per(per: Per) -> &'static str {
    match per {
        Per::All => "of whom it counts records, wherever they go",
        Per::Country => "of whom it counts records that go to the same country",
        Per::Recipient => "of whom it counts records that go to the same recipient",
    }
}

/// In which period a counter counts.
pub(super) fn period(period: Period) -> &'static str {
    match period {
        Period::CalendarYear => "since 1 January",
        Period::TwelveMonths => "in the last twelve months",
        Period::Ever => "ever",
    }
}

/// A time that is ahead of UTC, or behind it.
pub(super) fn zone(ahead_seconds: i32) -> String {
    let (sign, minutes) = (if ahead_seconds < 0 { '-' } else { '+' }, ahead_seconds.unsigned_abs() / 60);
    format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

/// When something holds, where it does not always.
pub(super) fn days(from: Option<Date>, until: Option<Date>) -> String {
    match (from, until) {
        (Some(from), Some(until)) => format!("from {from} until {until}"),
        (Some(from), None) => format!("from {from}"),
        (None, Some(until)) => format!("until {until}"),
        (None, None) => String::new(),
    }
}
