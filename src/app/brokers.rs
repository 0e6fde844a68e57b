//! The files that Kafka destinations name: looked at with everything else that is declared, and their certificates now and
//! then while a gateway runs.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::clock::wall_clock;
use crate::config::{Config, Destination};
use crate::domain::document::Problems;
use crate::egress::kafka::check;
use crate::identity::{Expiry, look};
use crate::logging::OPERATOR;

use super::tls::{Warned, time};

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

/// The certificates that the gateway shows to brokers.
pub(super) struct Certificates {
    /// What each is, for people, and its file.
    shown: Vec<(String, PathBuf)>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    ends: Vec<Expiry>,
    warned: Warned,
}

impl Certificates {
    /// Those of a configuration, as they are now.
    pub(super) fn new(config: &Config) -> Self {
        let shown = config.destinations.iter().filter_map(|(name, destination)| {
            let Destination::Kafka(settings) = destination else { return None };
            let certificate = settings.security.certificate()?;
            Some((format!("the certificate that destination `{name}` shows to Kafka"), certificate.to_owned()))
        });
        let certificates = Self { shown: shown.collect(), seen: Mutex::default() };
        certificates.look();
        certificates
    }

    /// Reads them again, and says in the log whose end is near: once at each of a few times before it.
    pub(super) fn look(&self) {
        // One that cannot be read keeps nobody from working: the destination says so when it needs it.
        let ends: Vec<Expiry> = self.shown.iter().filter_map(|(what, file)| look::end(file, what)).collect();
        let now = wall_clock().as_second();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for expiry in &ends {
            if seen.warned.is_due(expiry, now) {
                let (what, until) = (&expiry.what, time(expiry.until));
                tracing::warn!(
                    target: OPERATOR,
                    what,
                    until,
                    "a certificate for Kafka is near its end, or over: put a new one and its key in its place"
                );
            }
        }
        seen.ends = ends;
    }

    /// When each ends.
    pub(super) fn ends(&self) -> Vec<Expiry> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).ends.clone()
    }
}
