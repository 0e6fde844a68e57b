//! `gateway.toml`: where things are. What is allowed stands in the policies it names.
//!
//! Reading collects every problem of every file; [`load`] gives a [`Config`] only when none is an error.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::adapters::{file, kafka};
use crate::domain::document::{self, Place, Problem, Problems, Source};
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::policy::{self, Permission, PolicySet};
use crate::domain::refusal::Peer;
use crate::durable::seal::Keys;
use crate::intake::Limits;
use crate::pipeline::CheckpointsDue;

mod keys;
mod read;

/// A checked configuration.
pub struct Config {
    /// The gateway's id.
    pub id: String,
    /// The country it is in.
    pub country: Jurisdiction,
    /// The regimes whose records it keeps.
    pub serves: Vec<String>,
    /// The address it listens on. Loopback.
    pub listen: SocketAddr,
    /// The most connections at a time.
    pub connections_max: usize,
    /// Limits of requests.
    pub limits: Limits,
    /// How many worker threads score and fold.
    pub workers: usize,
    /// The most records scored in one run of a model.
    pub scored_together_max: usize,
    /// ONNX Runtime's library, when the configuration names it.
    pub onnxruntime: Option<PathBuf>,
    /// The file of each model.
    pub models: BTreeMap<String, PathBuf>,
    /// The destinations.
    pub destinations: BTreeMap<String, Destination>,
    /// The other gateways.
    pub peers: Vec<Arc<Peer>>,
    /// How long a stop may take.
    pub stop_within: Duration,
    /// What a stop does with windows that are open.
    pub on_stop: OnStop,
    /// Where and how the journal is kept.
    pub journal: Journal,
    /// What is allowed.
    pub policy: PolicySet,
}

/// What a stop does with windows that are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStop {
    /// They are gone on with after the next start.
    Keep,
    /// They are released as they are.
    Release,
}

impl OnStop {
    /// Every choice with its name in the configuration.
    pub const NAMES: [(&'static str, Self); 2] = [("keep", Self::Keep), ("release", Self::Release)];
}

/// Where and how the journal is kept.
#[derive(Clone)]
pub struct Journal {
    /// The directory of journal, checkpoints, outbox and cursors.
    pub directory: PathBuf,
    /// The size of a segment.
    pub segment_bytes: u64,
    /// The most bytes of the journal, and of the outbox.
    pub quota_bytes: u64,
    /// When a checkpoint is due.
    pub checkpoints: CheckpointsDue,
    /// The keys of regimes; none: what the journal holds is not sealed.
    pub keys: Arc<Keys>,
}

/// Where a destination is.
#[derive(Debug, Clone)]
pub enum Destination {
    /// A directory.
    File(file::Settings),
    /// A Kafka topic.
    Kafka(kafka::Settings),
}

/// What came of reading.
pub struct Loaded {
    /// The configuration, when no problem is an error.
    pub config: Option<Config>,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
}

/// Why a file cannot be read at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {source}")]
pub struct Unreadable {
    path: PathBuf,
    source: io::Error,
}

/// Reads `gateway.toml` and the policies it names.
///
/// # Errors
/// When `gateway.toml` itself cannot be read.
pub fn load(path: &Path) -> Result<Loaded, Unreadable> {
    let problems = Problems::default();
    let main = source(path)?;
    let base = path.parent().unwrap_or(Path::new("")).to_owned();
    let declared = document::read(&main, &problems, |table| read::read(table, &base));
    let Some(declared) = declared else {
        return Ok(Loaded { config: None, problems: problems.into_vec() });
    };
    let mut files = Vec::new();
    for policy in &declared.policies {
        match policy_files(&base.join(&policy.value)) {
            Ok(found) if found.is_empty() => {
                problems.error(&policy.place, format!("`{}` holds no .toml file", policy.value));
            }
            Ok(found) => files.extend(found),
            Err(error) => problems.error(&policy.place, error.to_string()),
        }
    }
    let policy = policy::read(&files, &problems);
    let today = TimeZone::UTC.to_datetime(Timestamp::now()).date();
    check(&declared, &policy, today, &problems);
    let config = declared.finish(policy).filter(|_| !problems.any_error());
    Ok(Loaded { config, problems: problems.into_vec() })
}

fn source(path: &Path) -> Result<Arc<Source>, Unreadable> {
    let text = fs::read_to_string(path).map_err(|source| Unreadable { path: path.to_owned(), source })?;
    Ok(Arc::new(Source { path: path.display().to_string(), text }))
}

/// A file, or every `.toml` file of a directory and those below it, in the order of their names.
fn policy_files(path: &Path) -> Result<Vec<Arc<Source>>, Unreadable> {
    if !path.is_dir() {
        return Ok(vec![source(path)?]);
    }
    let unreadable = |source| Unreadable { path: path.to_owned(), source };
    let entries = fs::read_dir(path).map_err(unreadable)?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>().map_err(unreadable)?;
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() || path.extension().is_some_and(|extension| extension == "toml") {
            files.extend(policy_files(&path)?);
        }
    }
    Ok(files)
}

/// The checks that need both sides: where things are, and what is allowed.
fn check(declared: &read::Declared, policy: &PolicySet, today: Date, problems: &Problems) {
    let known: Vec<&str> = policy.regimes.keys().map(String::as_str).collect();
    for regime in declared.serves.iter().chain(declared.peers.iter().flat_map(|peer| &peer.serves)) {
        if !policy.regimes.contains_key(&regime.value) {
            let message = format!("there is no regime `{}`", regime.value);
            problems.error_help(&regime.place, message, document::hint(&regime.value, &known));
        }
    }
    if let Some(keys) = &declared.keys {
        keys.check(&declared.serves, &known, problems);
    }
    let serves: Vec<String> = declared.serves.iter().map(|regime| regime.value.clone()).collect();
    for row in policy.egress(&serves) {
        if row.permission == Permission::NotAllowed {
            let message = format!(
                "regime `{}` lets no released cell of `{}` go to {} (destination `{}`)",
                row.regime, row.dataset, row.country, row.destination
            );
            problems.error_help(
                &row.place,
                message,
                "remove the dataset from `accepts`, or send it to a destination elsewhere",
            );
        }
    }
    for regime in policy.regimes.values().filter(|regime| serves.contains(&regime.id) && regime.review_by < today) {
        if let Some(place) = declared.serves.iter().find(|served| served.value == regime.id).map(|served| &served.place)
        {
            let message = format!("the facts of regime `{}` were to be reviewed by {}", regime.id, regime.review_by);
            problems.warn(place, message, "check them against the sources and set `as_of` and `review_by`");
        }
    }
    for plan in policy.streams.values() {
        if let Some(model) = &plan.model
            && !declared.models.contains_key(&model.name)
        {
            let message = format!("`models` has no file for model `{}` of stream `{}`", model.name, plan.stream.name);
            problems.error(&declared.place, message);
        }
        for dataset in &plan.datasets {
            let accepted = policy
                .destinations
                .values()
                .any(|destination| destination.accepts.iter().any(|(name, _)| *name == dataset.name));
            if !accepted {
                let message = format!("no destination accepts dataset `{}`", dataset.name);
                problems.warn(&declared.place, message, "name it in a destination's `accepts`, or remove it");
            }
        }
    }
    pair(
        &policy.destinations.iter().map(|(name, destination)| (name.as_str(), &destination.place)).collect(),
        declared,
        problems,
    );
}

/// Every destination is declared twice: the policy says what may go there, the configuration where it is.
fn pair(in_policy: &BTreeMap<&str, &Place>, declared: &read::Declared, problems: &Problems) {
    for (name, place) in in_policy {
        if !declared.destinations.contains_key(*name) {
            problems.error(
                place,
                format!("destination `{name}` has no [destinations.{name}] in {}", declared.place.file.path),
            );
        }
    }
    for (name, destination) in &declared.destinations {
        if !in_policy.contains_key(name.as_str()) {
            problems.error(&destination.place, format!("no policy declares destination `{name}`"));
        }
    }
}
