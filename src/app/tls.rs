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
    warned: Warned,
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

type Prints = Vec<Option<Fingerprint>>;

/// The files as they are now. Links are followed: a folder that is replaced as Kubernetes does it counts.
fn prints(files: &Files) -> Prints {
    files.paths().map(|path| Fingerprint::of(path).ok()).collect()
}

/// A second since the Unix epoch, for people.
pub(super) fn time(second: i64) -> String {
    Timestamp::from_second(second).map(|time| time.to_string()).unwrap_or_default()
}

/// How often it was said of each thing that its end is near.
#[derive(Default)]
pub(super) struct Warned(BTreeMap<(Which, String), (i64, usize)>);

impl Warned {
    /// Whether it is to be said now: once at each of a few times before the end, and again of what replaces it.
    pub(super) fn is_due(&mut self, expiry: &Expiry, now: i64) -> bool {
        let Expiry { which, what, until, .. } = expiry;
        let warned = self.0.entry((*which, what.clone())).or_default();
        if warned.0 != *until {
            *warned = (*until, 0);
        }
        let is_due = expiry.stage(now) > warned.1;
        warned.1 = warned.1.max(expiry.stage(now));
        is_due
    }
}

impl Rotation {
    /// Reads the set that a gateway begins with.
    pub(super) fn begin(files: &Files) -> anyhow::Result<Self> {
        let read = prints(files);
        let acceptor = Arc::new(Acceptor::new(load(files)?));
        Ok(Self { acceptor, files: files.clone(), read, failed: None, warned: Warned::default() })
    }

    /// What connections are accepted by.
    pub(super) fn acceptor(&self) -> &Arc<Acceptor> {
        &self.acceptor
    }

    /// Says that the end of a part is near: once at each of a few times before it.
    fn warn(&mut self) {
        let (set, now) = (self.acceptor.set(), wall_clock().as_second());
        for expiry in set.ends() {
            if self.warned.is_due(expiry, now) {
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
                (self.read, self.failed) = (now, None);
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
