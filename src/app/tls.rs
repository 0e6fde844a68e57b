//! The files of `[tls]`: checked with everything else that is declared, and read for the listener.

use std::sync::Arc;

use anyhow::bail;
use jiff::Timestamp;

use crate::clock::wall_clock;
use crate::config::Config;
use crate::domain::document::Problems;
use crate::files::Fingerprint;
use crate::identity::{Acceptor, Files, Remark, Set, Severity};
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
    if config.policy.access.rules.is_empty() {
        let help = "add [permissions.RULE] to the policy, with `identities` and the streams that they may `write`";
        problems.warn(&config.places.gateway, "no policy has [permissions], so with [tls] nobody may write", help);
    }
}

/// What connections are accepted by, and the files that it was made of. Read again when one of them is replaced.
pub(super) struct Rotation {
    acceptor: Arc<Acceptor>,
    files: Files,
    /// As they were read.
    read: Prints,
    /// As they were when they could not be used.
    failed: Option<Prints>,
    /// How often it was said that the end of the certificate is near.
    warned: usize,
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

impl Rotation {
    /// Reads the set that a gateway begins with.
    pub(super) fn begin(files: &Files) -> anyhow::Result<Self> {
        let read = prints(files);
        let acceptor = Arc::new(Acceptor::new(load(files)?));
        Ok(Self { acceptor, files: files.clone(), read, failed: None, warned: 0 })
    }

    /// Says that the end of the gateway's certificate is near: once at each of a few times before it.
    fn warn(&mut self) {
        let set = self.acceptor.set();
        let left = set.until() - wall_clock().as_second();
        let life = set.until() - set.from();
        let near = WARNINGS.iter().filter(|(before, part)| left <= *(before.min(&(life / part)))).count();
        if near > self.warned {
            self.warned = near;
            let until = Timestamp::from_second(set.until()).map(|until| until.to_string()).unwrap_or_default();
            tracing::warn!(target: OPERATOR, until, "the gateway's certificate is near its end: put a new one in its place");
        }
    }

    /// What connections are accepted by.
    pub(super) fn acceptor(&self) -> &Arc<Acceptor> {
        &self.acceptor
    }

    /// Reads the set again if a file was replaced. It comes into force as a whole or not at all. What could not be used is
    /// tried again when it changes, or when somebody asks for it.
    pub(super) fn refresh(&mut self, is_asked: bool, outcomes: &Outcomes) {
        self.warn();
        let now = prints(&self.files);
        if now == self.read || !is_asked && Some(&now) == self.failed.as_ref() {
            return;
        }
        match load(&self.files) {
            // It was replaced while it was read.
            Ok(_) if prints(&self.files) != now => {}
            Ok(set) => {
                let until = Timestamp::from_second(set.until()).map(|until| until.to_string()).unwrap_or_default();
                self.acceptor.replace(set);
                outcomes.tls(true);
                (self.read, self.failed, self.warned) = (now, None, 0);
                tracing::info!(target: OPERATOR, until, "the files of [tls] are read again and in force for new connections");
            }
            Err(error) => {
                self.failed = Some(now);
                outcomes.tls(false);
                tracing::error!(
                    target: OPERATOR,
                    error = format!("{error:#}"),
                    "the files of [tls] were replaced and cannot be used together; the last good ones stay. Correct them; \
                     they are read again when they change"
                );
            }
        }
    }
}

/// The set of files, if it can be used. Warnings go to the log.
fn load(files: &Files) -> anyhow::Result<Set> {
    let (set, remarks) = Set::load(files, wall_clock().as_second());
    for Remark { message, help, .. } in remarks.iter().filter(|remark| remark.severity == Severity::Warning) {
        tracing::warn!(help, "{message}");
    }
    let Some(set) = set else {
        let errors: Vec<&str> = remarks
            .iter()
            .filter(|remark| remark.severity == Severity::Error)
            .map(|remark| remark.message.as_str())
            .collect();
        bail!("{}", errors.join("; "));
    };
    Ok(set)
}
