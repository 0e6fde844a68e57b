//! Reload: another version of the policies, whole or not at all, while the gateway runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{self, Config, Fixed};
use crate::domain::dataset::Dataset;
use crate::domain::document::{Problem, Severity};
use crate::domain::name::{GatewayId, StreamName};
use crate::domain::policy::{Digest, PolicySet, StreamPlan, Version};
use crate::durable::policies::Archive;
use crate::engine::counting::Counting;
use crate::engine::pipeline::Pipeline;
use crate::engine::versions::Versions;
use crate::ledger::Ledger;
use crate::ledger::entry::{Outcome, Reread, What};

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
    #[error("declared otherwise than at the start: {}; restart the gateway for that", .0.join(", "))]
    NeedsRestart(Vec<String>),
    /// A file beside the policies cannot be used, or the policies cannot be kept.
    #[error("{0:#}")]
    Other(anyhow::Error),
}

fn first(problems: &[Problem]) -> String {
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
    let count = errors.clone().count();
    let first = errors.map(|problem| format!("{}: {}", problem.place, problem.message)).next().unwrap_or_default();
    if count > 1 { format!("{first} (and {} more; `bailiwick check` shows all)", count - 1) } else { first }
}

/// What came of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reloaded {
    /// The policies in force.
    pub policy: Digest,
    /// Whether anything is not as it was. What registries and databases hold is of no account.
    pub is_new: bool,
}

/// What a reload works with.
pub(super) struct Reloader {
    archive: Archive,
    counting: Arc<Counting>,
    pipeline: Arc<Pipeline>,
    versions: Arc<Versions>,
    at_start: Arc<PolicySet>,
    fixed: Fixed,
    ledger: Arc<Ledger>,
    gateway: GatewayId,
    /// One reload at a time.
    in_force: tokio::sync::Mutex<InForce>,
}

struct InForce {
    files: knowledge::Files,
    says: String,
}

/// What a configuration says that a reload puts in force. It is only ever compared.
fn says(config: &Config) -> String {
    let shadow = config.shadow.as_ref().map(|shadow| shadow.digest);
    let Config { policy, here, registries, geoip, .. } = config;
    format!("{} {shadow:?} {here:?} {registries:?} {geoip:?}", policy.digest)
}

impl Reloader {
    pub(super) fn new(
        config: &Config,
        archive: Archive,
        counting: Arc<Counting>,
        pipeline: Arc<Pipeline>,
        versions: Arc<Versions>,
        files: knowledge::Files,
        ledger: Arc<Ledger>,
    ) -> Self {
        Self {
            ledger,
            gateway: config.id.clone(),
            archive,
            counting,
            pipeline,
            versions,
            at_start: Arc::clone(&config.policy),
            fixed: Fixed::of(config),
            in_force: tokio::sync::Mutex::new(InForce { files, says: says(config) }),
        }
    }

    /// The gateway's id.
    pub(super) fn gateway(&self) -> &GatewayId {
        &self.gateway
    }

    /// Reads the configuration and the policies, and puts the policies in force.
    pub(super) async fn reload(&self, path: &Path) -> Result<Reloaded, Refused> {
        let mut in_force = self.in_force.lock().await;
        let path: PathBuf = path.to_owned();
        let loaded = tokio::task::spawn_blocking(move || super::load_policies(&path)).await;
        let loaded = loaded.map_err(|error| Refused::Other(error.into()))??;
        let Some(config) = loaded.config else { return Err(Refused::Problems(loaded.problems)) };
        self.same_shape(&config)?;
        for warning in &loaded.problems {
            let Problem { place, message, help, .. } = warning;
            tracing::warn!(%place, help = help.as_deref().unwrap_or_default(), "{message}");
        }
        let before = self.versions.current();
        let load = || knowledge::Files::load(&config, Some(&before.knowledge));
        let (read, known) = tokio::task::block_in_place(load).map_err(Refused::Other)?;
        let digest = config.policy.digest;
        tokio::task::block_in_place(|| self.archive.keep(digest, &config.policy_files, &config.here))
            .map_err(|error| Refused::Other(anyhow::Error::from(error).context("the policies cannot be kept")))?;
        let (current, shadow) = known.compile(&config);
        // Before anything is decided by them.
        super::counting::ask(&self.counting, &config.policy.tallies(&config.here));
        self.versions.replace(current, shadow);
        self.pipeline.tell_in_steps(&super::refusal_steps(&config));
        super::ledger::in_force(&self.ledger, digest, true);
        let is_new = in_force.says != says(&config);
        *in_force = InForce { files: read, says: says(&config) };
        Ok(Reloaded { policy: digest, is_new })
    }

    /// Reads registries and databases again where a file was replaced.
    pub(super) async fn refresh(&self) {
        let files = &mut self.in_force.lock().await.files;
        let (current, shadow) = self.versions.both();
        let of_shadow = shadow.as_ref().map(|shadow| &*shadow.policy);
        let refresh = || files.refresh(&current.policy, of_shadow, &current.knowledge);
        match tokio::task::block_in_place(refresh) {
            Ok(None) => {}
            Ok(Some(known)) => {
                let again = |version: &Version, known| {
                    Version::compile(Arc::clone(&version.policy), Arc::clone(&version.here), known, version.day)
                };
                let shadow = shadow.zip(known.in_shadow).map(|(shadow, known)| again(&shadow, known));
                self.versions.replace(again(&current, known.in_force), shadow);
                self.ledger.note(What::Reload { of: Reread::Registries, outcome: Outcome::Changed });
                tracing::info!("registries and databases are read again");
            }
            Err(error) => {
                self.ledger.note(What::Reload { of: Reread::Registries, outcome: Outcome::Refused });
                tracing::error!(
                    error = format!("{error:#}"),
                    "a registry or database that was replaced cannot be used; the last good one stays. Correct the \
                     file; it is read again when it changes"
                );
            }
        }
    }

    /// What the gateway was built for has not changed.
    fn same_shape(&self, config: &Config) -> Result<(), Refused> {
        let mut changed = self.fixed.changed(&Fixed::of(config));
        let (new, old) = (&config.policy.streams, &self.at_start.streams);
        let names: BTreeSet<&StreamName> = new.keys().chain(old.keys()).collect();
        for name in names {
            let is_same = new.get(name).zip(old.get(name)).is_some_and(|(new, old)| same_stream(new, old));
            if !is_same {
                changed.push(format!("stream `{name}`, its model or its dataset"));
            }
        }
        if config.policy.counted.contains_key(&config.id) && self.counting.log().is_none() {
            changed.push("[[counted]], where nothing was counted".to_owned());
        }
        if changed.is_empty() { Ok(()) } else { Err(Refused::NeedsRestart(changed)) }
    }
}

/// Whether records of two declarations are decoded, scored and counted alike.
fn same_stream(new: &StreamPlan, old: &StreamPlan) -> bool {
    let shapes = |plan: &StreamPlan| -> Vec<_> {
        let datasets = plan.datasets.iter();
        let declared = |dataset: &Dataset| {
            (dataset.name.clone(), dataset.shape(), dataset.grace, (dataset.keeps_all, dataset.max_defer))
        };
        datasets.map(|dataset| declared(dataset)).collect()
    };
    new.stream == old.stream && new.model == old.model && shapes(new) == shapes(old)
}
