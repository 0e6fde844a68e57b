//! The files of `[tls]`: checked with everything else that is declared, and read for the listener.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::clock::wall_clock;
use crate::config::{Config, Connections};
use crate::domain::document::Problems;
use crate::files::Fingerprint;
use crate::identity::{Acceptor, Expiry, Files, Remark, Set, Severity, Which};
use crate::ingress::grpc::{Entrance, Handshakes};
use crate::logging::OPERATOR;

use super::outcomes::Outcomes;

/// What is wrong with the files, or soon will be.
pub(super) fn check(config: &Config, problems: &Problems) {
    let Some(files) = &config.tls else { return };
    let (_, remarks) = Set::load(files, wall_clock().as_second());
    for remark in remarks {
        let place = config.places.tls.get(&remark.which).unwrap_or(&config.places.gateway);
        match remark.severity {
            Severity::Error => problems.error_help(place, remark.message, remark.help),
            Severity::Warning => problems.warn(place, remark.message, remark.help),
        }
    }
}

/// Whether the policies let anybody in.
pub(super) fn check_rules(config: &Config, problems: &Problems) {
    if config.tls.is_some() && config.policy.access.rules.is_empty() {
        let help = "add [permissions.RULE] to the policy, with `identities` and the streams that they may `write`";
        problems.warn(&config.places.gateway, "no policy has [permissions], so with [tls] nobody may write", help);
    }
}

/// What the listener lets connections in by.
pub(super) fn entrance(rotation: &Rotation, limits: Connections) -> Entrance {
    Entrance {
        acceptor: Arc::clone(&rotation.acceptor),
        connections_per_identity_max: limits.per_identity_max,
        handshakes: Handshakes {
            per_address_max: limits.handshakes_per_address_max,
            per_second_of_address_max: limits.handshakes_per_second_of_address_max,
            per_second_max: limits.handshakes_per_second_max,
        },
        connection_age_max: limits.age_max,
        connection_idle_max: limits.idle_max,
    }
}

/// What connections are accepted by, and the files that it was made of. Read again when one of them is replaced.
pub(super) struct Rotation {
    acceptor: Arc<Acceptor>,
    files: Files,
    /// As they were read.
    read: Prints,
    /// Those that could not be used.
    failed: Option<Failed>,
    /// How often it was said of each part that its end is near.
    warned: BTreeMap<(Which, String), usize>,
}

/// Files that could not be used.
struct Failed {
    prints: Prints,
    /// When they are tried again, in seconds since the Unix epoch. `None`: when they change.
    again_at: Option<i64>,
}

/// Why a set cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}", .errors.join("; "))]
struct Unusable {
    errors: Vec<String>,
    /// From when on it can, if only dates are in the way.
    again_at: Option<i64>,
}

/// A day, in seconds.
const DAY: i64 = 86_400;
/// How long before its end a certificate is reported, and the part of its life if that is less.
const WARNINGS: [(i64, i64); 4] = [(30 * DAY, 3), (7 * DAY, 12), (DAY, 48), (0, i64::MAX)];

type Prints = Vec<Option<Fingerprint>>;

/// The files as they are now. Links are followed: a folder that is replaced as Kubernetes does it counts.
fn prints(files: &Files) -> Prints {
    files.paths().map(|path| Fingerprint::of(path).ok()).collect()
}

/// How many of the warnings are due for something that ends.
fn due(Expiry { from, until, .. }: &Expiry, now: i64) -> usize {
    let (left, life) = (until - now, until - from);
    WARNINGS.iter().filter(|(before, part)| left <= *(before.min(&(life / part)))).count()
}

fn time(second: i64) -> String {
    Timestamp::from_second(second).map(|time| time.to_string()).unwrap_or_default()
}

impl Rotation {
    /// Reads the set that a gateway begins with.
    pub(super) fn begin(files: &Files) -> anyhow::Result<Self> {
        let read = prints(files);
        let acceptor = Arc::new(Acceptor::new(load(files)?));
        Ok(Self { acceptor, files: files.clone(), read, failed: None, warned: BTreeMap::new() })
    }

    /// What connections are accepted by.
    pub(super) fn acceptor(&self) -> &Arc<Acceptor> {
        &self.acceptor
    }

    /// Says that the end of a part is near: once at each of a few times before it. A revocation list lives for a short time
    /// and is replaced late; only its end is said.
    fn warn(&mut self) {
        let (set, now) = (self.acceptor.set(), wall_clock().as_second());
        for expiry in set.ends() {
            let due = match expiry.which {
                Which::Revocation(_) => usize::from(expiry.left(now) < 0),
                _ => due(expiry, now),
            };
            let warned = self.warned.entry((expiry.which, expiry.what.clone())).or_default();
            if due > *warned {
                *warned = due;
                let (what, until) = (&expiry.what, time(expiry.until));
                tracing::warn!(target: OPERATOR, what, until, "a part of [tls] is near its end, or over: put a new one in its place");
            }
        }
    }

    /// Reads the set again if a file was replaced. It comes into force as a whole or not at all. What could not be used is
    /// tried again when it changes, when its time comes, or when somebody asks for it; who asks is told what came of it.
    pub(super) fn refresh(&mut self, is_asked: bool, outcomes: &Outcomes) {
        self.warn();
        let now = prints(&self.files);
        if now == self.read {
            if self.failed.take().is_some() {
                outcomes.tls(true);
            }
            if is_asked {
                tracing::info!(target: OPERATOR, "the files of [tls] are those that are in force");
            }
            return;
        }
        let is_due = |failed: &Failed| failed.again_at.is_some_and(|at| wall_clock().as_second() >= at);
        if !is_asked && self.failed.as_ref().is_some_and(|failed| failed.prints == now && !is_due(failed)) {
            return;
        }
        match load(&self.files) {
            // It was replaced while it was read.
            Ok(_) if prints(&self.files) != now => {}
            Ok(set) => {
                let until = set.ends().first().map(|expiry| time(expiry.until)).unwrap_or_default();
                self.acceptor.replace(set);
                outcomes.tls(true);
                (self.read, self.failed, self.warned) = (now, None, BTreeMap::new());
                tracing::info!(target: OPERATOR, until, "the files of [tls] are read again and in force for new connections");
            }
            Err(unusable) => {
                outcomes.tls(false);
                let again = unusable.again_at.map_or_else(|| "when they change".to_owned(), time);
                tracing::error!(
                    target: OPERATOR,
                    error = %unusable,
                    again,
                    "the files of [tls] were replaced and cannot be used together; the last good ones stay. Correct them"
                );
                self.failed = Some(Failed { prints: now, again_at: unusable.again_at });
            }
        }
    }

    /// What of the set in force ends, and when.
    pub(super) fn ends(&self) -> Vec<Expiry> {
        self.acceptor.set().ends().to_vec()
    }
}

/// The set of files, if it can be used. Warnings go to the log.
fn load(files: &Files) -> Result<Set, Unusable> {
    let (set, remarks) = Set::load(files, wall_clock().as_second());
    for Remark { message, help, .. } in remarks.iter().filter(|remark| remark.severity == Severity::Warning) {
        tracing::warn!(help, "{message}");
    }
    set.ok_or_else(|| {
        let errors: Vec<&Remark> = remarks.iter().filter(|remark| remark.severity == Severity::Error).collect();
        let passes: Option<Vec<i64>> = errors.iter().map(|remark| remark.passes_at).collect();
        let errors = errors.iter().map(|remark| remark.message.clone()).collect();
        Unusable { errors, again_at: passes.and_then(|moments| moments.into_iter().max()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_said_at_a_few_times_before_it_and_sooner_for_what_lives_short() {
        let expiry = |life: i64| Expiry { which: Which::Certificate, what: String::new(), from: 0, until: life };
        let stages = |life: i64, left: &[i64]| -> Vec<usize> {
            left.iter().map(|left| due(&expiry(life), life - left)).collect()
        };
        assert_eq!(stages(365 * DAY, &[31 * DAY, 30 * DAY, 7 * DAY, DAY, 0, -1]), [0, 1, 2, 3, 4, 4]);
        assert_eq!(stages(3_600, &[1_201, 1_200, 300, 75, 0]), [0, 1, 2, 3, 4]);
    }
}
