//! The files that Kafka destinations name: looked at with everything else that is declared.

use crate::clock::wall_clock;
use crate::config::{Config, Destination};
use crate::domain::document::Problems;
use crate::egress::kafka::check;

/// What is wrong with the files, or will be.
pub(super) fn check(config: &Config, problems: &Problems) {
    let now = wall_clock().as_second();
    for (name, destination) in &config.destinations {
        let Destination::Kafka(settings) = destination else { continue };
        let Some((unusable, is_usable)) = check::files(settings, now) else { continue };
        let place = config.places.destinations.get(&(name.to_string(), unusable.which));
        let place = place.unwrap_or(&config.places.gateway);
        if is_usable {
            problems.warn(place, unusable.message, unusable.help);
        } else {
            problems.error_help(place, unusable.message, unusable.help);
        }
    }
}
