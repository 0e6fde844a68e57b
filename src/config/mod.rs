//! `gateway.toml`: where things are. What is allowed stands in the policies it names.
//!
//! Reading collects every problem of every file; [`load`] gives a [`Config`] only when none is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::clock::wall_clock;
use crate::domain::document::Source as File;
use crate::domain::document::keys::Shape;
use crate::domain::document::{self, Place, Problem, Problems, Severity, Spot};
use crate::domain::evidence::Source;
use crate::domain::name::{DestinationName, GatewayId};
use crate::domain::policy::{self, Conditions, Here, Permission, PolicySet, Widest};
use crate::durable::seal::Keys;
use crate::egress::{budget, file, kafka};
use crate::engine::intake::Limits;
use crate::engine::sequencer::CheckpointsDue;
use crate::identity::{self, Which};

mod brokers;
mod budgets;
mod collide;
mod counted;
mod destinations;
mod files;
mod fixed;
mod here;
mod keys;
mod ledger;
mod monitor;
mod prices;
mod read;
mod shapes;
mod tls;
mod word;

#[cfg(test)]
mod tests;

pub use fixed::Fixed;
pub use ledger::{Ledger, Witnessing};
pub use monitor::Http;
pub use prices::Prices;
pub use tls::Connections;

/// A checked configuration.
pub struct Config {
    /// The gateway's id.
    pub id: GatewayId,
    /// Where it stands: its country, the regimes whose records it keeps, its peers.
    pub here: Arc<Here>,
    /// What has been shown of it as a recipient of records.
    pub conditions: Conditions,
    /// Whether anything leaves.
    pub mode: Mode,
    /// The address it listens on. Without `tls`, loopback.
    pub listen: SocketAddr,
    /// Where it tells how it does. `None`: nowhere.
    pub http: Option<Http>,
    /// How connections prove who they are. `None`: plain text, which proves nothing.
    pub tls: Option<identity::Files>,
    /// What connections with TLS may have.
    pub tls_connections: Connections,
    /// The most connections at a time.
    pub connections_max: usize,
    /// Limits of requests.
    pub limits: Limits,
    /// How many worker threads score and fold.
    pub workers: usize,
    /// The most records of several requests that share a batch, and a run of the model.
    pub scored_together_max: usize,
    /// How long a run of a model may take.
    pub scoring_deadline: Duration,
    /// ONNX Runtime's library, when the configuration names it.
    pub onnxruntime: Option<PathBuf>,
    /// The file of each model.
    pub models: BTreeMap<String, PathBuf>,
    /// The destinations.
    pub destinations: BTreeMap<DestinationName, Destination>,
    /// How many bytes may leave for destinations that have a bound.
    pub budgets: BTreeMap<DestinationName, budget::Settings>,
    /// The destinations for which a release is shed that may not go there any more when it is its turn. For others it waits.
    pub sheds_denied: BTreeSet<DestinationName>,
    /// What bytes cost that leave.
    pub prices: Prices,
    /// How long a stop may take.
    pub stop_within: Duration,
    /// What a stop does with windows that are open.
    pub on_stop: OnStop,
    /// Where and how the journal is kept.
    pub journal: Journal,
    /// Where the ledger is, as it is declared; [`Ledger::settings`] completes it.
    pub ledger: Ledger,
    /// The file of each registry.
    pub registries: BTreeMap<String, PathBuf>,
    /// Databases of network addresses.
    pub geoip: Option<GeoIp>,
    /// How often the log sums up what has happened.
    pub log_every: Duration,
    /// The policy files.
    pub policy_files: Vec<Arc<File>>,
    /// What is allowed.
    pub policy: Arc<PolicySet>,
    /// What is tried in its shadow.
    pub shadow: Option<Arc<PolicySet>>,
    /// Where it says so, for problems with what it names.
    pub places: Places,
}

/// Where `gateway.toml` names the files that are read beside it.
#[derive(Debug, Clone)]
pub struct Places {
    /// `[gateway]`.
    pub gateway: Place,
    /// ONNX Runtime's library, when it is named.
    pub onnxruntime: Option<Place>,
    /// The file of each model.
    pub models: BTreeMap<String, Place>,
    /// The file of each registry.
    pub registries: BTreeMap<String, Place>,
    /// Databases of network addresses.
    pub geoip: Option<Place>,
    /// The files of `[tls]`.
    pub tls: BTreeMap<Which, Place>,
    /// The files of Kafka destinations, by the destination's name.
    pub destinations: BTreeMap<(String, kafka::Which), Place>,
    /// The ledger's key, or what it would stand in.
    pub ledger: Place,
}

/// Databases of network addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeoIp {
    /// Their files.
    pub databases: Vec<PathBuf>,
    /// How many must say the same.
    pub agree: usize,
}

/// Whether anything leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// What the policies allow.
    Enforce,
    /// Nothing; what would is counted.
    DryRun,
}

impl Mode {
    /// Every choice with its name in the configuration.
    pub const NAMES: [(&'static str, Self); 2] = [("enforce", Self::Enforce), ("dry-run", Self::DryRun)];
}

/// What a stop does with windows that are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStop {
    /// They stay open, and the next start continues them.
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

/// Why a configuration or policy file cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The file.
    #[error(transparent)]
    File(#[from] crate::files::Error),
    /// Its bytes are no text.
    #[error("`{}` is not UTF-8 text", .0.display())]
    NotText(PathBuf),
    /// A directory.
    #[error("cannot read the directory `{}`: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// More files than anybody has policies.
    #[error("`{}` is one policy file too many; the limit is {}", .0.display(), files::FILES_MAX)]
    TooMany(PathBuf),
    /// More text than policies are.
    #[error("with `{}` the policy files have more than {} bytes together", .0.display(), files::ALL_BYTES_MAX)]
    TooLarge(PathBuf),
    /// More entries than policies have, perhaps by links.
    #[error("`{}`: more than {} entries of directories; name the policy files, or a directory of their own", .0.display(), files::ENTRIES_MAX)]
    TooManyEntries(PathBuf),
    /// A directory that leads to itself, perhaps.
    #[error("`{}` lies more than {} directories deep", .0.display(), files::DEPTH_MAX)]
    TooDeep(PathBuf),
}

/// Reads `gateway.toml` and the policies it names.
///
/// # Errors
/// When `gateway.toml` itself cannot be read.
pub fn load(path: &Path) -> Result<Loaded, Unreadable> {
    load_and(path, |_, _| ())
}

/// The same, and looks at what the configuration names: `also` is asked whenever everything that is needed was declared,
/// also with errors in it, so that all problems are reported at once.
///
/// # Errors
/// When `gateway.toml` itself cannot be read.
pub fn load_and(path: &Path, also: impl FnOnce(&Config, &Problems)) -> Result<Loaded, Unreadable> {
    let problems = Problems::default();
    let main = files::source(path)?;
    let base = path.parent().unwrap_or(Path::new("")).to_owned();
    let declared = document::read(&main, &problems, |table| read::read(table, &base));
    let Some(declared) = declared else {
        return Ok(Loaded { config: None, problems: problems.into_vec() });
    };
    collide::paths(&declared, &base, &problems);
    collide::peers(&declared, &problems);
    let files = files::read(&declared.policies, &base, &problems);
    let in_shadow = (!declared.shadow.is_empty()).then(|| files::read(&declared.shadow, &base, &problems));
    let (Some(files), None | Some(Some(_))) = (files, &in_shadow) else {
        return Ok(Loaded { config: None, problems: problems.into_vec() });
    };
    let policy = policy::read(&files, &problems);
    let today = today();
    check(&declared, &policy, today, &problems);
    let shadow = in_shadow.flatten().map(|files| policy::read(&files, &problems));
    check_knowledge(&declared, &policy, shadow.as_ref(), &problems);
    if let Some(shadow) = &shadow {
        check_shadow(&policy, shadow, &problems);
        check_served(&declared, shadow, &problems);
    }
    let config = declared.finish(files, policy, shadow);
    if let Some(config) = &config {
        also(config, &problems);
    }
    let config = config.filter(|_| !problems.any_error());
    Ok(Loaded { config, problems: problems.into_vec() })
}

/// `[http]` of a configuration, whatever else is in it: health is asked also while somebody edits the rest. The problems are
/// those of `[http]`, `[listen]` and `[tls]`.
///
/// # Errors
/// When the file cannot be read.
pub fn http(path: &Path) -> Result<(Option<Http>, Vec<Problem>), Unreadable> {
    let problems = Problems::default();
    let main = files::source(path)?;
    let base = path.parent().unwrap_or(Path::new("")).to_owned();
    let http = document::read(&main, &problems, |table| {
        table.is_a(SHAPE);
        let (listen, tls) = tls::read(table, &base);
        monitor::read(table, &listen, &tls)
    });
    let is_read = http.is_some();
    let is_of_port = |problem: &Problem| {
        let table = problem.place.key.split('.').next().unwrap_or_default();
        !is_read || ["http", "listen", "tls"].contains(&table)
    };
    let problems: Vec<Problem> = problems.into_vec().into_iter().filter(is_of_port).collect();
    let is_sound = problems.iter().all(|problem| problem.severity != Severity::Error);
    Ok((http.flatten().filter(|_| is_sound), problems))
}

/// The policy files of paths, found as those of `[gateway] policies` are. `None`: one cannot be read; the problems say which.
pub fn policies(named: &[Spot<String>], problems: &Problems) -> Option<Vec<Arc<File>>> {
    files::read(named, Path::new(""), problems)
}

/// The tests that stand beside policies: a file that is one, or every one in and below a directory.
///
/// # Errors
/// When one cannot be read.
pub fn tests(path: &Path) -> Result<Vec<Arc<File>>, Unreadable> {
    files::tests(path)
}

/// One file's text, within the limits of policy files.
///
/// # Errors
/// When it cannot be read.
pub fn source(path: &Path) -> Result<Arc<File>, Unreadable> {
    files::source(path)
}

/// What `gateway.toml` holds. [`policy::SHAPES`] says it of the policy files.
pub const SHAPE: &Shape = &shapes::GATEWAY_TOML;

/// The day, UTC.
#[must_use]
pub fn today() -> Date {
    TimeZone::UTC.to_datetime(wall_clock()).date()
}

/// The checks that need both sides: where things are, and what is allowed.
fn check(declared: &read::Declared, policy: &PolicySet, today: Date, problems: &Problems) {
    let known: Vec<&str> = policy.regimes.keys().map(String::as_str).collect();
    check_served(declared, policy, problems);
    if let Some(keys) = &declared.keys {
        keys.check(&declared.serves, &known, problems);
    }
    let serves: Vec<String> = declared.serves.iter().map(|regime| regime.value.clone()).collect();
    here::check(declared, policy, today, problems);
    policy::lint(policy, &serves, today, problems);
    for row in policy.egress(&serves, today) {
        let elsewhere = "remove the dataset from `accepts`, or send it to a destination elsewhere";
        let (why, help) = match row.permission {
            Permission::Allowed { .. } => continue,
            Permission::NotAllowed(country) => (format!("go to {country}"), elsewhere),
            Permission::TooStrong => ("go there: `max_form` is weaker".to_owned(), elsewhere),
            Permission::NeedsNoise => (
                "leave: its release profile asks for differential privacy".to_owned(),
                "give the dataset `privacy`, or remove it from `accepts`",
            ),
            Permission::WindowTooShort(shortest) => {
                let shortest = SignedDuration::try_from(shortest).unwrap_or_default();
                let why = format!("leave: its release profile asks for windows of at least {shortest:#}");
                (
                    why,
                    "make the dataset's `window.size` longer (if windows overlap, `every`), or remove it from `accepts`",
                )
            }
        };
        let (regime, dataset, destination) = (&row.regime, &row.dataset, &row.destination);
        let message =
            format!("regime `{regime}` lets no released cell of `{dataset}` {why} (destination `{destination}`)");
        problems.error_help(&row.place, message, help);
    }
    let accepted: BTreeSet<&str> = policy
        .destinations
        .values()
        .flat_map(|destination| &destination.accepts)
        .map(|accepted| accepted.value.as_str())
        .collect();
    for plan in policy.streams.values() {
        if let Some(model) = &plan.model
            && !declared.models.contains_key(&model.name)
        {
            let message = format!("`models` has no file for model `{}` of stream `{}`", model.name, plan.stream.name);
            problems.error(&declared.place, message);
        }
        for dataset in &plan.datasets {
            if !accepted.contains(dataset.name.as_str()) {
                let message = format!("no destination accepts dataset `{}`", dataset.name);
                problems.warn(&declared.place, message, "name it in a destination's `accepts`, or remove it");
            }
        }
    }
    check_history(policy, today, problems);
    check_messages(declared, policy, problems);
    budgets::check(&declared.budgets, policy, problems);
    destinations::check_sheds_denied(&declared.sheds_denied, policy, problems);
    pair(
        &policy.destinations.iter().map(|(name, destination)| (name.as_str(), &destination.place)).collect(),
        declared,
        problems,
    );
}

/// Every regime that is served, here or by a peer, is there.
fn check_served(declared: &read::Declared, policy: &PolicySet, problems: &Problems) {
    let known: Vec<&str> = policy.regimes.keys().map(String::as_str).collect();
    for regime in declared.serves.iter().chain(declared.peers.iter().flat_map(|peer| &peer.serves)) {
        if !policy.regimes.contains_key(&regime.value) {
            let message = format!("there is no regime `{}`", regime.value);
            problems.error_help(&regime.place, message, document::hint(&regime.value, &known));
        }
    }
}

/// The policies in the shadow are asked about the very same records.
fn check_shadow(policy: &PolicySet, shadow: &PolicySet, problems: &Problems) {
    for (name, plan) in &shadow.streams {
        if policy.streams.get(name).is_some_and(|live| live.stream != plan.stream) {
            let message = format!("in the shadow stream `{name}` has other fields, or other limits");
            problems.error_help(&plan.place, message, "only what is decided about the records may differ there");
        }
    }
}

/// What the policies use of what is known beside the records has a file, and every file is used.
fn check_knowledge(declared: &read::Declared, policy: &PolicySet, shadow: Option<&PolicySet>, problems: &Problems) {
    let both = || [Some(policy), shadow].into_iter().flatten();
    for (name, shape) in both().flat_map(|policy| &policy.registries) {
        if !declared.registries.contains_key(name) {
            let message = format!("registry `{name}` has no file in {}", declared.place.file.path);
            problems.error_help(&shape.place, message, format!("add [registries] {name} = \"FILE\" there"));
        }
    }
    let known: Vec<&str> = both().flat_map(|policy| policy.registries.keys()).map(String::as_str).collect();
    for (name, file) in &declared.registries {
        if !known.contains(&name.as_str()) {
            let message = format!("no policy declares registry `{name}`");
            problems.error_help(&file.place, message, document::hint(name, &known));
        }
    }
    for plan in both().flat_map(|policy| policy.streams.values()) {
        let uses = plan.evidence.iter().any(|evidence| matches!(evidence.source, Source::GeoIp));
        if uses && declared.geoip.is_none() {
            let message = format!("stream `{}` uses `geoip`, and no database is named", plan.stream.name);
            problems.warn(&plan.place, message, "name at least two in [geoip] databases of gateway.toml");
        }
    }
}

/// A stream whose history begins tomorrow takes no record until then.
fn check_history(policy: &PolicySet, today: Date, problems: &Problems) {
    for plan in policy.streams.values() {
        let begins = plan.stream.history_from.and_then(|from| Timestamp::from_microsecond(from).ok());
        if let Some(begins) = begins.filter(|begins| TimeZone::UTC.to_datetime(*begins).date() > today) {
            let message =
                format!("`history_from` of stream `{}` is {begins}, which is after today, {today}", plan.stream.name);
            problems.error_help(&plan.place, message, "write the earliest event time that records of the past have");
        }
    }
}

/// A release is cut between cells into messages that fit: a cell that does not fit would hold up its destination.
fn check_messages(declared: &read::Declared, policy: &PolicySet, problems: &Problems) {
    // An id that is no name is reported where it is read.
    let Some(Ok(id)) = declared.id.as_ref().map(|id| GatewayId::new(&id.value)) else { return };
    for (name, destination) in &declared.destinations {
        let Destination::Kafka(settings) = &destination.value else { continue };
        let accepts = policy.destinations.get(name.as_str()).into_iter().flat_map(|policy| &policy.accepts);
        for Spot { value: accepted, place } in accepts {
            let Some((_, dataset)) = policy.dataset(accepted) else { continue };
            let Ok(widest) = Widest::of(dataset, &id) else { continue };
            if let Some((bytes, limit)) = kafka::check::too_wide(settings, &widest) {
                let message = format!(
                    "a cell of `{accepted}` can take {bytes} bytes as a message of destination `{name}`, and \
                     `message.max.bytes` is {limit}"
                );
                let help = format!(
                    "set `\"message.max.bytes\" = \"{bytes}\"` in [destinations.{name}.options] and allow as much in the \
                     topic, or shorten the words of a `domain`, or the `edges` of a histogram"
                );
                problems.error_help(place, message, help);
            }
        }
    }
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
