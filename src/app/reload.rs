//! Reload: another version of the policies, whole or not at all, while the gateway runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{self, Config, Mode};
use crate::domain::document::Problem;
use crate::domain::policy::{Digest, PolicySet, StreamPlan, Version};
use crate::durable::policies::Archive;
use crate::versions::Versions;

use super::knowledge;

/// Why the policies that were read are not put in force.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The configuration cannot be read.
    #[error(transparent)]
    Unreadable(#[from] config::Unreadable),
    /// There are errors in it, or in the policies.
    #[error("there are errors in the files: {}", first(.0))]
    Problems(Vec<Problem>),
    /// What has changed needs a restart.
    #[error("{0} is declared otherwise than at the start; restart the gateway for that")]
    NeedsRestart(String),
    /// A file beside the policies cannot be used, or the policies cannot be kept.
    #[error("{0:#}")]
    Other(anyhow::Error),
}

fn first(problems: &[Problem]) -> String {
    use crate::domain::document::Severity;
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
    let count = errors.clone().count();
    let first = errors.map(|problem| format!("{}: {}", problem.place, problem.message)).next().unwrap_or_default();
    if count > 1 { format!("{first} (and {} more; `bailiwick check` shows all)", count - 1) } else { first }
}

/// What a reload works with.
pub(super) struct Reloader {
    archive: Archive,
    versions: Arc<Versions>,
    at_start: Arc<PolicySet>,
    mode: Mode,
    destinations: Vec<String>,
    serves: Vec<String>,
    /// One reload at a time.
    files: tokio::sync::Mutex<knowledge::Files>,
}

impl Reloader {
    pub(super) fn new(config: &Config, archive: Archive, versions: Arc<Versions>, files: knowledge::Files) -> Self {
        Self {
            archive,
            versions,
            at_start: Arc::clone(&config.policy),
            mode: config.mode,
            destinations: config.destinations.keys().cloned().collect(),
            serves: config.here.serves.clone(),
            files: tokio::sync::Mutex::new(files),
        }
    }

    /// Reads the configuration and the policies, and puts the policies in force.
    pub(super) async fn reload(&self, path: &Path) -> Result<Digest, Refused> {
        let mut files = self.files.lock().await;
        let path: PathBuf = path.to_owned();
        let loaded = tokio::task::spawn_blocking(move || config::load(&path)).await;
        let loaded = loaded.map_err(|error| Refused::Other(error.into()))??;
        let Some(config) = loaded.config else { return Err(Refused::Problems(loaded.problems)) };
        self.same_shape(&config)?;
        let before = self.versions.current();
        let load = || knowledge::Files::load(&config, Some(&before.knowledge));
        let (read, known) = tokio::task::block_in_place(load).map_err(Refused::Other)?;
        let digest = config.policy.digest;
        tokio::task::block_in_place(|| self.archive.keep(digest, &config.policy_files, &config.here))
            .map_err(|error| Refused::Other(anyhow::Error::from(error).context("the policies cannot be kept")))?;
        let (current, shadow) = known.compile(&config);
        self.versions.replace(current, shadow);
        *files = read;
        Ok(digest)
    }

    /// Reads registries and databases again where a file was replaced.
    pub(super) async fn refresh(&self) {
        let mut files = self.files.lock().await;
        let (current, shadow) = self.versions.both();
        let policies = (&*current.policy, shadow.as_ref().map(|shadow| &*shadow.policy));
        match tokio::task::block_in_place(|| files.refresh(policies, &current.knowledge)) {
            Ok(None) => {}
            Ok(Some(known)) => {
                let again = |version: &Version, known| {
                    Version::compile(Arc::clone(&version.policy), Arc::clone(&version.here), known, version.day)
                };
                let shadow = shadow.zip(known.in_shadow).map(|(shadow, known)| again(&shadow, known));
                self.versions.replace(again(&current, known.in_force), shadow);
                tracing::info!("registries and databases are read again");
            }
            Err(error) => tracing::error!(
                error = format!("{error:#}"),
                "a registry or database that was replaced cannot be used; the last good one stays. Correct the \
                 file; it is read again when it changes"
            ),
        }
    }

    /// What the pipeline was built for has not changed.
    fn same_shape(&self, config: &Config) -> Result<(), Refused> {
        let changed = |what: &str| Err(Refused::NeedsRestart(what.to_owned()));
        if config.here.serves != self.serves {
            return changed("`serves`");
        }
        if config.mode != self.mode {
            return changed("`mode`");
        }
        if let Some(name) = in_one(config.destinations.keys(), self.destinations.iter()) {
            return changed(&format!("destination `{name}`"));
        }
        let (new, old) = (&config.policy.streams, &self.at_start.streams);
        if let Some(name) = in_one(new.keys(), old.keys()) {
            return changed(&format!("stream `{name}`"));
        }
        match new.values().zip(old.values()).find(|(new, old)| !same_stream(new, old)) {
            Some((plan, _)) => changed(&format!("stream `{}`", plan.stream.name)),
            None => Ok(()),
        }
    }
}

/// A name that only one of two lists has.
fn in_one<'n>(new: impl Iterator<Item = &'n String>, old: impl Iterator<Item = &'n String>) -> Option<&'n String> {
    let (new, old): (BTreeSet<_>, BTreeSet<_>) = (new.collect(), old.collect());
    new.symmetric_difference(&old).next().copied()
}

/// Whether records of two declarations are decoded, scored and counted alike.
fn same_stream(new: &StreamPlan, old: &StreamPlan) -> bool {
    let shapes = |plan: &StreamPlan| -> Vec<_> {
        plan.datasets.iter().map(|dataset| (dataset.name.clone(), dataset.shape(), dataset.grace)).collect()
    };
    new.stream == old.stream && new.model == old.model && shapes(new) == shapes(old)
}
