//! What is on disk at the start: opened, read, and put together with what is declared now.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use arrow_schema::{DataType, Field};
use rustix::process::{getegid, geteuid};

use crate::config::{Config, Mode};
use crate::domain::aggregate::{Cells, ContributorKey, OpenBytes};
use crate::domain::dataset::KeptShape;
use crate::domain::deferral::Deferral;
use crate::domain::gateway::Gateway;
use crate::domain::model::OutputKind;
use crate::domain::name::{DatasetName, StreamName};
use crate::domain::policy::{Longer, StreamPlan};
use crate::domain::table::Tables;
use crate::domain::window::first_window;
use crate::durable::checkpoint::{Checkpoint, Checkpoints};
use crate::durable::counting;
use crate::durable::entry::Catalog;
use crate::durable::outbox::{self, Held};
use crate::durable::policies::Archive;
use crate::durable::recovery::{self, Closed, Present, Replay, Restored, Scanned};
use crate::durable::spending;
use crate::egress::budget;
use crate::egress::delivery::{self, Confirmed, Cursor, Cursors};
use crate::engine::noising::Noising;
use crate::engine::pipeline::{Before, Collecting, ReleaseRules, Setup};
use crate::engine::versions::Versions;
use crate::planted::planted;
use crate::scoring::Scorer;
use crate::storage::{self, FileSystem, Log, Lsn, RealFileSystem, Recovery};
use crate::telemetry::Steps;

use super::losses::{self, Damaged, Loss};

/// Everything that outlives the process.
pub(super) struct State {
    pub(super) journal: Arc<Log>,
    pub(super) outbox: Arc<Log>,
    pub(super) archive: Archive,
    pub(super) cursors: Cursors,
    pub(super) damaged: [Damaged; 2],
    pub(super) gateway: Gateway,
    pub(super) before: Found,
    pub(super) collecting: FoundReleases,
    /// The last position that the outbox gave out.
    pub(super) outbox_last: Lsn,
    /// Whether nothing was ever taken in.
    pub(super) is_new: bool,
}

/// What is to be counted on.
pub(super) struct Found {
    present: Vec<Present>,
    key: ContributorKey,
    before: Before,
}

/// What the outbox and the checkpoints hold.
pub(super) struct FoundReleases {
    held: Held,
    deferred: BTreeMap<DatasetName, Deferral>,
    longer: BTreeMap<DatasetName, Longer>,
    outbox_last: Lsn,
    checkpoints: Checkpoints,
    key: ContributorKey,
    shapes: Vec<(DatasetName, KeptShape)>,
}

impl State {
    pub(super) fn open(config: &Config, now: Duration) -> anyhow::Result<Self> {
        Self::open_all(config, now).map_err(|error| advised(error, &config.journal.directory))
    }

    fn open_all(config: &Config, now: Duration) -> anyhow::Result<Self> {
        let directory = &config.journal.directory;
        let in_directory = || format!("journal in {}", directory.display());
        let begins = ["begun", "log", "outbox"].into_iter().all(|part| !directory.join(part).exists());
        private(directory).with_context(in_directory)?;
        let fs: Arc<dyn FileSystem> = Arc::new(RealFileSystem);
        let (checkpoints, checkpoint) =
            Checkpoints::open(Arc::clone(&fs), directory.join("checkpoints")).with_context(in_directory)?;
        let present: Vec<Present> = config.policy.streams.values().map(present).collect();
        let archive = Archive::open(Arc::clone(&fs), directory.join("policies")).with_context(in_directory)?;
        let catalog = catalog(config, &present)?;
        let cursors =
            Cursors::open(&fs, &directory.join("cursors"), config.destinations.keys()).with_context(in_directory)?;
        let emptied = |log| Loss::of_emptied(&*fs, directory, log).with_context(in_directory);
        let (no_log, no_outbox) = (emptied("log")?, emptied("outbox")?);
        let has_run = no_log.is_some() || no_outbox.is_some();
        let (outbox, found_outbox) = open_log(config, &directory.join("outbox"), Vec::new(), cursors.reached())?;
        // What was counted or released was on disk: no number of those may be given out again.
        let counted = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.lsn);
        let mut held = outbox::held(&outbox, counted, tables(&present)).with_context(in_directory)?;
        let (cursors_directory, to) = (directory.join("cursors"), held.releases.keys());
        let losses = Loss::of_outbox(&*fs, &cursors_directory, &found_outbox.damage, found_outbox.first, to);
        let mut losses = losses.with_context(in_directory)?;
        losses.extend(no_outbox);
        if !losses.is_empty() {
            held.tables.values_mut().for_each(Tables::forget);
        }
        let of_outbox = alarm("outbox", &losses);
        check_destinations(config, &|| Ok(outbox.reader(0)), &*fs)?;
        let at_least = held.closed.values().map(|last| last.closed_at).max().unwrap_or(0).max(counted);
        // Before the log is opened, which writes: a start that is refused leaves everything as it was.
        examine(config)?;
        let (journal, found) = open_log(config, &directory.join("log"), catalog, at_least)?;
        if begins {
            tracing::info!(
                directory = %directory.display(),
                "there was no journal here: a new one begins, and so does a new ledger if it is kept in there. If this gateway \
                 ran before, stop it, and put back what was moved, or correct `directory` of [journal]"
            );
        }
        losses::have_begun(&*fs, directory).with_context(in_directory)?;
        let mut losses = Loss::of_journal(&found.damage, found.first, counted);
        losses.extend(no_log);
        let of_journal = alarm("journal", &losses);
        let mut gateway = Gateway::with_limits(
            config.policy.streams.values().map(|plan| (&plan.stream, plan.counted.as_slice())),
            config.limits.producers,
            config.limits.remembered,
        );
        for (name, k) in super::all_greatest_k(config) {
            gateway.begin_in_steps(&name, Steps::new(k, 0).size());
        }
        let (key, Restored { windows, deferred, longer }) = restored(checkpoint.as_ref(), &mut gateway, &present, now)?;
        let closed_before = gateway.datasets().filter_map(|name| Some((name.clone(), gateway.closed_before(name)?)));
        let closed_before: BTreeMap<_, _> = closed_before.collect();
        let deferred = deferrals(deferred, &present, &closed_before, &held);
        let longer = added_up(longer, &present, &mut held);
        have_closed(&mut held.tables, &present, &closed_before);
        let from = counted + 1;
        let Scanned { closed, refused, closed_as } =
            recovery::scan(journal.reader(from), from, &mut gateway, &present, now).with_context(in_directory)?;
        held.renamed(&closed_as);
        let replay = Replay::new(&journal, from, found.last, &present, Arc::clone(&config.journal.keys));
        report(&found, from, &windows, &closed);
        let shapes = present
            .iter()
            .flat_map(|present| &present.datasets)
            .map(|dataset| (dataset.name.clone(), KeptShape::Shape(dataset.shape())));
        let shapes = shapes.collect();
        let before = Before { closed_before, windows, replay, closed, refused, last: found.last };
        Ok(Self {
            journal: Arc::new(journal),
            outbox: Arc::new(outbox),
            archive,
            cursors,
            damaged: [of_journal, of_outbox],
            gateway,
            before: Found { present, key, before },
            outbox_last: found_outbox.last,
            is_new: found.last == 0 && !has_run,
            collecting: FoundReleases {
                held,
                deferred,
                longer,
                outbox_last: found_outbox.last,
                checkpoints,
                key,
                shapes,
            },
        })
    }
}

impl Found {
    pub(super) fn setup(
        self,
        scorers: Vec<BTreeMap<StreamName, Scorer>>,
        config: &Config,
        open: Arc<OpenBytes>,
    ) -> Setup {
        Setup {
            scorers,
            present: self.present,
            key: self.key,
            keys: Arc::clone(&config.journal.keys),
            rows_max: config.scored_together_max,
            open,
            before: self.before,
            checkpoints: config.journal.checkpoints,
        }
    }
}

impl FoundReleases {
    pub(super) fn collecting(
        self,
        config: &Config,
        versions: &Arc<Versions>,
        noising: &Arc<Noising>,
        outbox: Arc<Log>,
        confirmed: Confirmed,
        open: &Arc<OpenBytes>,
    ) -> Collecting {
        let datasets = config.policy.streams.values().flat_map(|plan| &plan.counted);
        let rules = ReleaseRules {
            gateway: config.id.clone(),
            versions: Arc::clone(versions),
            datasets: datasets.map(|dataset| (dataset.name.clone(), Arc::clone(dataset))).collect(),
            is_dry_run: config.mode == Mode::DryRun,
        };
        Collecting {
            rules,
            outbox,
            released: self.held.closed,
            decided: self.held.decided,
            begun_anew: self.held.begun_anew,
            tables: self.held.tables,
            longer: self.longer,
            deferred: self.deferred.into_iter().map(|(name, deferral)| (name, deferral.counted_in(open))).collect(),
            outbox_last: self.outbox_last,
            confirmed: Box::new(move || confirmed.through()),
            checkpoints: self.checkpoints,
            noising: Arc::clone(noising),
            key: self.key,
            shapes: self.shapes,
        }
    }
}

/// Whether a start can go on with what is on disk. Changes nothing, and the gateway may be running.
pub(super) fn check(config: &Config) -> anyhow::Result<()> {
    examine(config)?;
    let directory = &config.journal.directory;
    let outbox = directory.join("outbox");
    if !outbox.exists() {
        return Ok(());
    }
    let fs: Arc<dyn FileSystem> = Arc::new(RealFileSystem);
    let entries = || storage::entries(Arc::clone(&fs), &outbox);
    check_destinations(config, &entries, &*fs).map_err(|error| advised(error, directory))
}

/// Whether what is declared can go on with what the journal holds. Changes nothing.
fn examine(config: &Config) -> anyhow::Result<()> {
    let directory = &config.journal.directory;
    let present: Vec<Present> = config.policy.streams.values().map(present).collect();
    catalog(config, &present)?;
    if !directory.join("log").exists() {
        return Ok(());
    }
    let fs: Arc<dyn FileSystem> = Arc::new(RealFileSystem);
    let examined = recovery::examine(&fs, directory, &present);
    let examined = examined.with_context(|| format!("journal in {}", directory.display()));
    examined.map_err(|error| advised(error, directory))
}

/// What the gateway keeps in its journal's directory cannot be read or written at a start.
#[derive(Debug, thiserror::Error)]
pub enum Unopened {
    /// The system refused, or something else stands there.
    #[error(
        "cannot start with what is in the journal's directory. Put back what was moved, removed or replaced, make room if the \
         disk is full, or repair it; then start it again"
    )]
    Refused,
    /// The system denies it to the gateway. What to do, in full.
    #[error("{0}")]
    Denied(String),
    /// Another process uses it.
    #[error(
        "cannot start while another process uses the journal's directory: a gateway, or a command such as `bailiwick journal \
         repair`. Stop that one, or wait for its end. Two gateways need a directory each"
    )]
    InUse,
    /// Another version of the program wrote it.
    #[error("cannot start with what another version of bailiwick wrote into the journal's directory")]
    OtherVersion,
}

/// An error of the journal's directory, with what to do, and what to type where the system denies it to the gateway.
pub(super) fn advised(error: anyhow::Error, directory: &Path) -> anyhow::Error {
    let is_denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    if error.chain().any(|cause| cause.downcast_ref().is_some_and(is_denied)) {
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        return error.context(Unopened::Denied(to_type(directory, fs::metadata(directory).is_ok(), user, group)));
    }
    match error.chain().find_map(unopened) {
        Some(unopened) => error.context(unopened),
        None => error,
    }
}

/// What a cause of an error says of the journal's directory, if it is of that.
fn unopened(cause: &(dyn Error + 'static)) -> Option<Unopened> {
    let of_storage = match (cause.downcast_ref(), cause.downcast_ref()) {
        (Some(delivery::Error::Io(error)), _) | (_, Some(budget::Error::Io(error))) => Some(error),
        _ => cause.downcast_ref(),
    };
    let is_other_version = matches!(cause.downcast_ref(), Some(delivery::Error::Newer { .. }))
        || matches!(cause.downcast_ref(), Some(budget::Error::Newer { .. }))
        || matches!(cause.downcast_ref(), Some(counting::Error::Unreadable(_)))
        || matches!(cause.downcast_ref(), Some(spending::Error::Unreadable(_)))
        || matches!(cause.downcast_ref(), Some(recovery::Error::Unreadable(_) | recovery::Error::Checkpoint(_)));
    match of_storage {
        Some(storage::Error::InTheWay { .. }) => Some(Unopened::Refused),
        Some(storage::Error::Locked { .. }) => Some(Unopened::InUse),
        Some(storage::Error::Newer { .. } | storage::Error::UnknownVersion { .. }) => Some(Unopened::OtherVersion),
        _ if is_other_version => Some(Unopened::OtherVersion),
        _ => cause.is::<io::Error>().then_some(Unopened::Refused),
    }
}

/// What lets a user and a group use a directory.
fn to_type(directory: &Path, is_there: bool, user: u32, group: u32) -> String {
    let path = format!("'{}'", directory.display().to_string().replace('\'', r"'\''"));
    let (what, command) = if is_there {
        ("use all of", format!("sudo chown -R {user}:{group} {path}"))
    } else {
        ("make", format!("sudo install -d -o {user} -g {group} -m 700 {path}"))
    };
    format!(
        "the gateway runs as user {user}, group {group}, and may not {what} {}: type `{command}` (of a volume of a \
         container: for the folder of the host that stands for it)",
        directory.display()
    )
}

/// What streams and datasets are declared as, for the head of every segment.
fn catalog(config: &Config, present: &[Present]) -> anyhow::Result<Vec<u8>> {
    let declared = present.iter().map(|present| (&*present.stream, present.outputs.clone(), &*present.datasets));
    let catalog = Catalog::new(declared)?.encode();
    let (bytes, segment_bytes) = (catalog.len() as u64, config.journal.segment_bytes);
    // A segment must hold it and as much again.
    let least = 2 * bytes + 4_096;
    if segment_bytes < least {
        bail!(
            "`segment_bytes` of [journal] is {segment_bytes}, and the declarations at the head of every segment take \
             {bytes} bytes: set it to at least {least}"
        );
    }
    Ok(catalog)
}

/// Makes the directory for its owner only: records are in it.
fn private(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mode = fs::metadata(directory)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let mode = format!("{mode:o}");
        let directory = directory.display();
        tracing::warn!(%directory, mode, "others may read the journal's directory; 700 is better: chmod 700 it");
    }
    Ok(())
}

fn present(plan: &StreamPlan) -> Present {
    let outputs = plan.model.iter().flat_map(|model| &model.outputs).map(|output| {
        let data_type = match output.kind {
            OutputKind::Score => DataType::Float32,
            OutputKind::Label => DataType::Int64,
        };
        Field::new(&output.field, data_type, true)
    });
    Present { stream: Arc::clone(&plan.stream), outputs: outputs.collect(), datasets: plan.counted.clone() }
}

fn open_log(config: &Config, directory: &Path, context: Vec<u8>, at_least: Lsn) -> anyhow::Result<(Log, Recovery)> {
    let settings = storage::Settings {
        directory: directory.to_owned(),
        segment_bytes: config.journal.segment_bytes,
        quota_bytes: config.journal.quota_bytes,
        context,
        at_least,
    };
    Log::open(Arc::new(RealFileSystem), settings).with_context(|| format!("journal in {}", directory.display()))
}

/// Says what was lost: a person has to know. How much it is, for the ledger.
fn alarm(log: &'static str, losses: &[Loss]) -> Damaged {
    for loss in losses {
        tracing::error!(
            log,
            "{loss}. Put back what was removed, or stop the gateway and run `bailiwick journal verify`, then `repair`"
        );
    }
    Damaged { of: log, places: losses.len() }
}

type Windows = BTreeMap<DatasetName, BTreeMap<i64, Cells>>;

fn restored(
    checkpoint: Option<&Checkpoint>,
    gateway: &mut Gateway,
    present: &[Present],
    now: Duration,
) -> anyhow::Result<(ContributorKey, Restored)> {
    match checkpoint {
        Some(checkpoint) => {
            let mut restored = recovery::restore(checkpoint, gateway, present, now)?;
            if planted("forget-open-windows") {
                restored.windows.clear();
            }
            Ok((checkpoint.key, restored))
        }
        None => {
            let mut key = [0; 16];
            getrandom::fill(&mut key).context("the system gives no random numbers")?;
            Ok((ContributorKey(key), Restored::default()))
        }
    }
}

/// What waits of each dataset whose cells wait, or may have waited before this start. Where the checkpoint does not say,
/// nothing is known of the windows that had closed by then. What left after that without having waited is in the outbox.
fn deferrals(
    restored: BTreeMap<DatasetName, Deferral>,
    present: &[Present],
    closed_before: &BTreeMap<DatasetName, i64>,
    held: &Held,
) -> BTreeMap<DatasetName, Deferral> {
    let mut deferred = restored;
    let datasets = present.iter().flat_map(|present| &present.datasets);
    for dataset in datasets.filter(|dataset| dataset.max_defer > 0 || held.waited.contains(&dataset.name)) {
        let from = first_window(closed_before.get(&dataset.name).copied(), dataset.window);
        let new = || Deferral::new(dataset.max_defer, from);
        let deferral = deferred.entry(dataset.name.clone()).or_insert_with(new);
        let ends = dataset.released_as().filter_map(|released| held.left_alone.get(&released.name)).max();
        if ends.is_some() {
            deferral.left_before(first_window(ends.copied(), dataset.window));
        }
    }
    deferred
}

/// What was told is not known yet of each dataset that tells only what has changed.
fn tables(present: &[Present]) -> BTreeMap<DatasetName, Tables> {
    let datasets = present.iter().flat_map(|present| &present.datasets).filter(|dataset| dataset.only_on_change);
    datasets.map(|dataset| (dataset.name.clone(), Tables::new(dataset))).collect()
}

/// What is added up of longer windows, of all datasets whose cells are counted for one: what the checkpoint says, and then
/// what the closings since then did.
fn added_up(
    restored: BTreeMap<DatasetName, Longer>,
    present: &[Present],
    held: &mut Held,
) -> BTreeMap<DatasetName, Longer> {
    let mut longer = restored;
    let datasets = present.iter().flat_map(|present| &present.datasets);
    for dataset in datasets.filter(|dataset| dataset.has_longer()) {
        let longer = longer.entry(dataset.name.clone()).or_default();
        if held.lacks_additions {
            // A window of which it is not known whether it ended would leave again.
            *longer = Longer::default();
            tracing::warn!(
                dataset = %dataset.name,
                "entries of the outbox are missing: what was added up of longer windows until then is missing in their sums"
            );
        }
        held.longer.remove(&dataset.name).iter().flatten().for_each(|addition| longer.add(addition));
    }
    longer
}

/// Windows before these times have closed, whether the outbox says so or not: not each closing tells something.
fn have_closed(
    tables: &mut BTreeMap<DatasetName, Tables>,
    present: &[Present],
    closed_before: &BTreeMap<DatasetName, i64>,
) {
    for dataset in present.iter().flat_map(|present| &present.datasets) {
        if let (Some(tables), Some(before)) = (tables.get_mut(&dataset.name), closed_before.get(&dataset.name)) {
            tables.closed_before(first_window(Some(*before), dataset.window));
        }
    }
}

/// Releases of a destination that is not declared any more would wait for ever. What its cursor has confirmed is not
/// needed: such a destination may be renamed or removed.
fn check_destinations(
    config: &Config,
    outbox: &dyn Fn() -> Result<storage::Reader, storage::Error>,
    fs: &dyn FileSystem,
) -> anyhow::Result<()> {
    let cursors = config.journal.directory.join("cursors");
    let all = outbox::all_destinations(outbox()?)?;
    for destination in all.iter().filter(|name| !config.destinations.contains_key(*name)) {
        let cursor = Cursor::peek(fs, &cursors, destination)?;
        let waiting = outbox::waiting(outbox()?, destination, &|dataset, lsn| cursor.has(dataset, lsn))?;
        if !waiting.is_empty() {
            let each = waiting.iter().map(|(dataset, releases)| format!("{releases} of dataset `{dataset}`"));
            let each = each.collect::<Vec<_>>().join(", ");
            bail!(
                "releases wait in the outbox for destination `{destination}`, which is not declared: {each}. \
                 Declare it until they are sent, or set `accepts = []` \
                 and `when_denied = \"shed\"` for it to give them up"
            );
        }
    }
    Ok(())
}

fn report(found: &Recovery, from: Lsn, windows: &Windows, closed: &[Closed]) {
    let (windows, closed) = (windows.values().map(BTreeMap::len).sum::<usize>(), closed.len());
    let (last, torn_bytes) = (found.last, found.torn_bytes);
    tracing::info!(windows, closed, torn_bytes, "going on from the journal");
    // How many entries there are tells how many requests came. Metrics tell that in steps.
    tracing::debug!(from, last, "positions of the journal that are counted again");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_denied_comes_with_what_to_type() {
        let directory = Path::new("/srv/o'hare/eu 1");
        let denied = || anyhow::Error::from(io::Error::from(io::ErrorKind::PermissionDenied)).context("journal");
        let said = |is_there| to_type(directory, is_there, 65_532, 65_533);
        assert!(said(true).contains(r"`sudo chown -R 65532:65533 '/srv/o'\''hare/eu 1'`"), "{}", said(true));
        let command = r"`sudo install -d -o 65532 -g 65533 -m 700 '/srv/o'\''hare/eu 1'`";
        assert!(said(false).contains(command), "{}", said(false));
        assert!(advised(denied(), directory).is::<Unopened>(), "the exit code says so, too");
        let advised = |error| format!("{:#}", advised(error, Path::new("/nowhere/journal")));
        assert!(advised(denied()).contains("may not make /nowhere/journal: type `sudo install -d"));
        assert!(advised(denied()).ends_with(": journal: permission denied"), "{}", advised(denied()));
        let full = advised(io::Error::from(io::ErrorKind::StorageFull).into());
        assert!(full.starts_with(&Unopened::Refused.to_string()) && full.ends_with(": no storage space"), "{full}");
        assert_eq!(advised(anyhow::anyhow!("declared otherwise")), "declared otherwise");
    }
}
