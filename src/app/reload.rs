//! Reload: another version of the policies, whole or not at all, while the gateway runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::SignedDuration;

use crate::config::{self, Config, Fixed};
use crate::domain::dataset::Dataset;
use crate::domain::document::{Problem, Severity};
use crate::domain::name::{DatasetName, GatewayId, StreamName};
use crate::domain::policy::{Digest, PolicySet, StreamPlan, Version};
use crate::durable::policies::Archive;
use crate::engine::counting::Counting;
use crate::engine::pipeline::Pipeline;
use crate::engine::versions::Versions;
use crate::ledger::Ledger;
use crate::ledger::entry::{Outcome, Reread, What};
use crate::telemetry::Telemetry;

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
    #[error("declared otherwise than at the start: {}", .0.join(", "))]
    NeedsRestart(Vec<String>),
    /// A file beside the policies cannot be used, or the policies cannot be kept.
    #[error("{0:#}")]
    Other(anyhow::Error),
}

impl Refused {
    /// What to do then.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::NeedsRestart(_) => "restart the gateway: what has changed is read at a start only",
            Self::Unreadable(_) | Self::Problems(_) => {
                "run `bailiwick check`, correct the file that it names, then send SIGHUP again"
            }
            Self::Other(_) => "put right what is named here, then send SIGHUP again",
        }
    }
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
    /// What is not as it was.
    pub changed: Changed,
}

/// What a reload put in force that was not. What registries and databases hold is of no account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// Nothing.
    Nothing,
    /// Only the policies in shadow. `None`: there are none any more.
    Shadow(Option<Digest>),
    /// The policies are the same. What `gateway.toml` says beside them is not.
    Beside,
    /// The policies.
    Policies,
}

/// The parts of the gateway that a reload changes, or that hear of it.
pub(super) struct Reaches {
    pub(super) archive: Archive,
    pub(super) counting: Arc<Counting>,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) versions: Arc<Versions>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) telemetry: Arc<Telemetry>,
}

/// What a reload works with.
pub(super) struct Reloader {
    reaches: Reaches,
    at_start: Arc<PolicySet>,
    fixed: Fixed,
    gateway: GatewayId,
    /// One reload at a time.
    in_force: tokio::sync::Mutex<InForce>,
}

struct InForce {
    files: knowledge::Files,
    says: Says,
}

/// What a configuration says that a reload puts in force. It is only ever compared.
struct Says {
    policy: Digest,
    shadow: Option<Digest>,
    beside: String,
}

impl Says {
    fn of(config: &Config) -> Self {
        let Config { policy, here, registries, geoip, .. } = config;
        let shadow = config.shadow.as_ref().map(|shadow| shadow.digest);
        Self { policy: policy.digest, shadow, beside: format!("{here:?} {registries:?} {geoip:?}") }
    }

    fn changed(&self, before: &Self) -> Changed {
        if self.policy != before.policy {
            Changed::Policies
        } else if self.beside != before.beside {
            Changed::Beside
        } else if self.shadow != before.shadow {
            Changed::Shadow(self.shadow)
        } else {
            Changed::Nothing
        }
    }
}

impl Reloader {
    pub(super) fn new(config: &Config, reaches: Reaches, files: knowledge::Files) -> Self {
        Self {
            reaches,
            gateway: config.id.clone(),
            at_start: Arc::clone(&config.policy),
            fixed: Fixed::of(config),
            in_force: tokio::sync::Mutex::new(InForce { files, says: Says::of(config) }),
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
        let before = self.reaches.versions.current();
        let load = || knowledge::Files::load(&config, Some(&before.knowledge));
        let (read, known) = tokio::task::block_in_place(load).map_err(Refused::Other)?;
        let digest = config.policy.digest;
        tokio::task::block_in_place(|| self.reaches.archive.keep(digest, &config.policy_files, &config.here))
            .map_err(|error| Refused::Other(anyhow::Error::from(error).context("the policies cannot be kept")))?;
        let (current, shadow) = known.compile(&config);
        // Before anything is decided by them.
        super::counting::ask(&self.reaches.counting, &config.policy.tallies(&config.here));
        let steps = self.reaches.telemetry.grow_steps(&super::all_greatest_k(&config));
        self.reaches.versions.replace(current, shadow);
        self.reaches.pipeline.tell_in_steps(&steps);
        super::ledger::in_force(&self.reaches.ledger, digest, true);
        let says = Says::of(&config);
        let changed = says.changed(&in_force.says);
        *in_force = InForce { files: read, says };
        Ok(Reloaded { policy: digest, changed })
    }

    /// Reads registries and databases again where a file was replaced.
    pub(super) async fn refresh(&self) {
        let files = &mut self.in_force.lock().await.files;
        let (current, shadow) = self.reaches.versions.both();
        let of_shadow = shadow.as_ref().map(|shadow| &*shadow.policy);
        let refresh = || files.refresh(&current.policy, of_shadow, &current.knowledge);
        match tokio::task::block_in_place(refresh) {
            Ok(None) => {}
            Ok(Some(known)) => {
                let again = |version: &Version, known| {
                    Version::compile(Arc::clone(&version.policy), Arc::clone(&version.here), known, version.day)
                };
                let shadow = shadow.zip(known.in_shadow).map(|(shadow, known)| again(&shadow, known));
                self.reaches.versions.replace(again(&current, known.in_force), shadow);
                self.reaches.ledger.note(What::Reload { of: Reread::Registries, outcome: Outcome::Changed });
                tracing::info!("registries and databases are read again");
            }
            Err(error) => {
                self.reaches.ledger.note(What::Reload { of: Reread::Registries, outcome: Outcome::Refused });
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
            changed.extend(changes(name, old.get(name), new.get(name)));
        }
        if config.policy.counted.contains_key(&config.id) && self.reaches.counting.log().is_none() {
            changed.push("[[counted]], where nothing was counted".to_owned());
        }
        if changed.is_empty() { Ok(()) } else { Err(Refused::NeedsRestart(changed)) }
    }
}

/// What differs between two declarations of a stream, so that its records would not be decoded, scored and counted alike.
fn changes(name: &StreamName, old: Option<&StreamPlan>, new: Option<&StreamPlan>) -> Vec<String> {
    let (Some(old), Some(new)) = (old, new) else {
        return vec![format!("stream `{name}` was {}", if new.is_some() { "added" } else { "removed" })];
    };
    let mut changes = Vec::new();
    if new.stream != old.stream {
        changes.push(format!("the fields or limits of stream `{name}`"));
    }
    if new.model != old.model {
        changes.push(format!("the model of stream `{name}`"));
    }
    let named = |plan: &StreamPlan, name: &DatasetName| {
        plan.datasets.iter().find(|dataset| dataset.name == *name).map(Arc::clone)
    };
    let mut all: Vec<&DatasetName> = Vec::new();
    for dataset in old.datasets.iter().chain(&new.datasets) {
        if !all.contains(&&dataset.name) {
            all.push(&dataset.name);
        }
    }
    for dataset in all {
        let said = match (named(old, dataset), named(new, dataset)) {
            (Some(old), Some(new)) => {
                let mut said = old.shape().differences(&new.shape());
                if old.grace != new.grace {
                    let shown = |grace| SignedDuration::try_from(grace).unwrap_or_default();
                    said.push(format!("grace was {}, is {}", shown(old.grace), shown(new.grace)));
                }
                if old.open_max != new.open_max {
                    said.push(format!("open_max was {}, is {}", old.open_max, new.open_max));
                }
                let digits =
                    |dataset: &Dataset| -> Vec<_> { dataset.metrics.iter().map(|metric| metric.digits).collect() };
                if digits(&old) != digits(&new) {
                    said.push("digits of its metrics".to_owned());
                }
                if old.keeps_all != new.keeps_all {
                    said.push("what is kept of its windows".to_owned());
                }
                if old.privacy != new.privacy {
                    said.push("its privacy".to_owned());
                }
                if old.max_defer != new.max_defer {
                    said.push(format!("max_defer was {}, is {}", old.max_defer, new.max_defer));
                }
                if old.rolled_up() != new.rolled_up() {
                    let [was, is] = [&old, &new].map(|dataset| match dataset.rolled_up().as_slice() {
                        [] => "nothing".to_owned(),
                        keys => keys.join(", "),
                    });
                    said.push(format!("roll_up was {was}, is {is}"));
                }
                if old.coarser_than != new.coarser_than {
                    let [was, is] = [&old, &new].map(|dataset| match &dataset.coarser_than {
                        None => "nothing".to_owned(),
                        Some(finer) => finer.to_string(),
                    });
                    said.push(format!("coarser_than was {was}, is {is}"));
                }
                if old.only_on_change != new.only_on_change {
                    said.push(format!("only_on_change was {}, is {}", old.only_on_change, new.only_on_change));
                }
                if old.tells_contributors != new.tells_contributors {
                    let [was, is] =
                        [&old, &new].map(|dataset| if dataset.tells_contributors { "bucket" } else { "never" });
                    said.push(format!("contributors was {was}, is {is}"));
                }
                said
            }
            (None, _) => vec!["it was added".to_owned()],
            (_, None) => vec!["it was removed".to_owned()],
        };
        if !said.is_empty() {
            changes.push(format!("dataset `{dataset}` ({})", said.join("; ")));
        }
    }
    let order = |plan: &StreamPlan| plan.datasets.iter().map(|dataset| dataset.name.clone()).collect::<Vec<_>>();
    if changes.is_empty() && order(old) != order(new) {
        changes.push(format!("the order of the datasets of stream `{name}`"));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::document::{Problems, Source, changed};
    use crate::domain::policy;

    const FILES: [&str; 2] = [
        "schema = \"bailiwick.classes/1\"\n[classes.personal]\nabout = \"people\"\n",
        r#"
schema = "bailiwick.policy/1"
[streams.calls]
event_time  = "at"
contributor = "who"
untested    = ["subject.residence"]
[streams.calls.facts]
[streams.calls.fields]
at   = { type = "timestamp", class = "personal" }
who  = { type = "string", class = "personal" }
land = { type = "string", class = "personal" }
[datasets.counts]
stream           = "calls"
window           = { size = "PT1M", grace = "PT10S" }
min_contributors = 10
group_by         = [{ field = "land", domain = ["DE", "IN"] }]
metrics          = [{ name = "records", fn = "count" }]
"#,
    ];

    fn read(text: &str) -> PolicySet {
        let files = [FILES[0], text].map(|text| Arc::new(Source::new("a.toml", text)));
        policy::read(&files, &Problems::default())
    }

    #[test]
    fn what_changed_of_a_stream_is_said_with_what_it_was() {
        let (before, name) = (read(FILES[1]), "calls".parse().unwrap());
        let said = |from: &str, to: &str| {
            let (old, after) = (before.streams.get(&name), read(&changed(FILES[1], from, to)));
            assert!(old.is_some_and(|plan| plan.datasets.len() == 1), "the policy is not read");
            changes(&name, old, after.streams.get(&name))
        };
        assert!(said("PT1M", "PT1M").is_empty());
        assert_eq!(said("PT1M", "PT2M"), ["dataset `counts` (window was PT1M, is PT2M)"]);
        assert_eq!(said("PT10S", "PT20S"), ["dataset `counts` (grace was PT10S, is PT20S)"]);
        assert_eq!(
            said("group_by  ", "contributors = \"bucket\"\ngroup_by  "),
            ["dataset `counts` (contributors was never, is bucket)"]
        );
        assert_eq!(
            said("datasets.counts", "datasets.sums"),
            ["dataset `counts` (it was removed)", "dataset `sums` (it was added)"]
        );
        assert_eq!(said("untested", "late_max = \"PT2H\"\nuntested"), ["the fields or limits of stream `calls`"]);
        assert_eq!(changes(&name, before.streams.get(&name), None), ["stream `calls` was removed"]);
        assert_eq!(changes(&name, None, before.streams.get(&name)), ["stream `calls` was added"]);
    }
}
