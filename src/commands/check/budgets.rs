//! What `check` says of the budgets of destinations.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::config::Config;
use crate::domain::name::DestinationName;
use crate::egress::budget::Settings;

/// A paragraph for people.
pub(super) fn explained(config: &Config) -> String {
    let mut text = String::new();
    for (destination, budget) in &config.budgets {
        let Settings { bytes, per, sheds_after, first } = budget;
        // Writing to a string does not fail.
        let _ = writeln!(text, "\nbytes to {destination}:");
        let _ = writeln!(text, "  at most {bytes} at once, and as many again, evenly, in {:#}", shown(*per));
        let _ = match sheds_after {
            None => writeln!(text, "  a release that they do not suffice for waits, and those after it wait with it"),
            Some(after) if after.is_zero() => writeln!(text, "  a release that they do not suffice for is shed"),
            Some(after) => writeln!(
                text,
                "  a release that they do not suffice for waits up to {:#}, then it is shed; those after it wait with it",
                shown(*after)
            ),
        };
        if !first.is_empty() {
            let _ = writeln!(text, "  shed last: {}; before them all others", first.join(", then "));
        }
    }
    text
}

fn shown(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or_default()
}

/// The same for machines.
pub(super) fn for_machines((destination, budget): (&DestinationName, &Settings)) -> Value {
    let Settings { bytes, per, sheds_after, first } = budget;
    let max_age = sheds_after.map(|after| shown(after).to_string());
    let when_short = match sheds_after {
        None => vec!["defer"],
        Some(after) if after.is_zero() => vec!["shed"],
        Some(_) => vec!["defer", "shed"],
    };
    json!({
        "destination": destination.as_str(),
        "bytes": bytes,
        "per": shown(*per).to_string(),
        "when_short": when_short,
        "max_age": max_age,
        "priorities": first,
    })
}
