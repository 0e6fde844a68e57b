//! What `check` says of what becomes law soon.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::domain::policy::Ahead;

/// A paragraph for people.
pub(super) fn explained(ahead: &[Ahead], serves: &[String]) -> String {
    let mut text = String::new();
    if ahead.is_empty() {
        return text;
    }
    // Writing to a string does not fail.
    let _ = writeln!(text, "\nwhat becomes law within 90 days (days are UTC):\n");
    for Ahead { day, begins, regimes, stops } in ahead {
        for begins in begins {
            let _ = writeln!(text, "  {day}: {begins}");
        }
        for regime in regimes {
            let _ = match serves.contains(regime) {
                true => writeln!(text, "    this gateway serves {regime}, and keeps its records"),
                false => writeln!(
                    text,
                    "    this gateway does not serve {regime}, and keeps none of its records from then on"
                ),
            };
        }
        for row in stops {
            let (dataset, destination, regime) = (&row.dataset, &row.destination, &row.regime);
            let _ = writeln!(text, "    {dataset} may no longer go to {destination}: {regime} does not let it");
        }
    }
    text
}

/// The same for machines.
pub(super) fn for_machines(Ahead { day, begins, regimes, stops }: &Ahead) -> Value {
    let stops = stops.iter().map(|row| {
        json!({
            "dataset": row.dataset.as_str(),
            "destination": row.destination.as_str(),
            "regime": row.regime,
        })
    });
    json!({ "day": day.to_string(), "begins": begins, "regimes": regimes, "stops": stops.collect::<Value>() })
}
