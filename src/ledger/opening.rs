//! How a ledger is opened: the key, the whole verification, then the log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};

use super::audit::{Audit, audit, salvage};
use super::entry::{Entry, What};
use super::files::{Files, LOG, VERIFIER};
use super::note::{Checkpoint, Signer};
use crate::storage::{
    self, FileSystem, Log, Lsn, create_directories, create_directories_below, read_file, write_file_durably,
};

/// The size of a segment of the log before the tiles.
const SEGMENT_BYTES: u64 = 8 << 20;
/// The most bytes of that log. It is emptied into tiles every few seconds.
const QUOTA_BYTES: u64 = 64 << 20;
/// The largest file with a key or a note.
const TEXT_BYTES_MAX: u64 = 16 << 10;

/// What to do when the key is missing, damaged, or another one.
pub const KEY_LOST: &str = "put it back from a copy. If there is none, stop the gateway and run `bailiwick ledger retire`: a new \
                            ledger begins, and the old one is kept";

/// What to do when the checkpoint that the gateway remembers is damaged, or another ledger's.
const SEEN_LOST: &str = "put it back from a copy. If there is none, only others know whether the ledger was cut: compare it with \
                         what they kept (`bailiwick ledger verify --checkpoint FILE`). If it is whole, move this file away: the \
                         ledger goes on, and the gateway remembers it again";

/// Where a ledger is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its directory.
    pub directory: PathBuf,
    /// The file of the secret key. It is made if there is none.
    pub key: PathBuf,
    /// The name that a key is made for, and that an existing key must have.
    pub origin: String,
    /// Where the gateway keeps the newest published checkpoint for itself, to notice a ledger that is another one.
    pub seen: PathBuf,
}

/// An intent of an earlier process that nothing followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unsettled {
    pub(super) release: String,
    pub(super) destination: String,
    pub(super) dataset: String,
    pub(super) outbox: u64,
    pub(super) intent: u64,
}

/// How far a ledger is with what closings say: how much it says of the last one that it says anything of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Noted {
    /// Where the closing stands in the outbox.
    pub(super) outbox: Lsn,
    pub(super) notes: usize,
}

impl Noted {
    /// It says one more thing of the closing at a position.
    pub(super) fn hear(&mut self, outbox: Lsn) {
        let before = if self.outbox == outbox { self.notes } else { 0 };
        *self = Self { outbox, notes: before + 1 };
    }
}

/// Damage that does not stop the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damaged {
    /// How many entries, or tiles if no entry is.
    pub(super) places: u64,
    /// The first of it, and what to do.
    pub(super) what: String,
}

/// A ledger that was opened.
pub(super) struct Opened {
    pub(super) log: Log,
    /// The last position of the log.
    pub(super) last: Lsn,
    pub(super) signer: Signer,
    pub(super) audit: Audit,
    pub(super) unsettled: Vec<Unsettled>,
    pub(super) noted: Noted,
    /// The SHA-256 of each model that the last start named; `None`: nothing was started.
    pub(super) models: Option<BTreeMap<String, String>>,
    pub(super) damage: Option<Damaged>,
}

/// Verifies a ledger whole and opens it. A ledger that is not as it was signed is left as it is.
pub(super) fn open(fs: &Arc<dyn FileSystem>, settings: &Settings) -> anyhow::Result<Opened> {
    let files = Files::new(Arc::clone(fs), &settings.directory);
    let lost =
        |why: String| anyhow!("what the gateway remembers of it, `{}`, {why}: {SEEN_LOST}", settings.seen.display());
    let seen = text(&**fs, &settings.seen).map_err(|error| lost(format!("cannot be read ({error:#})")))?;
    let signer = signer(&**fs, &files, settings, seen.is_some())?;
    let kept = seen.map(|note| signer.verifier().open(&note)).transpose();
    let kept = kept.map_err(|error| lost(format!("is not of the ledger that the key signs ({error})")))?;
    let kept: Vec<Checkpoint> = kept.into_iter().collect();
    let (found, heard, damage) = verified(&files, &signer, &kept)?;
    let (log, last) = open_log(fs, settings, &found)?;
    let Heard { open, noted, models } = heard;
    let mut unsettled: Vec<Unsettled> = open.into_values().collect();
    unsettled.sort_by_key(|unsettled| std::cmp::Reverse(unsettled.intent));
    Ok(Opened { log, last, signer, audit: found, unsettled, noted, models, damage })
}

/// What a start learns from the ledger's entries.
#[derive(Default)]
struct Heard {
    /// Intents that nothing followed, by destination and release.
    open: BTreeMap<(String, String), Unsettled>,
    noted: Noted,
    models: Option<BTreeMap<String, String>>,
}

impl Heard {
    fn hear(&mut self, number: u64, what: &What) {
        match what {
            What::Intent { release, destination, dataset, outbox, .. } => {
                let unsettled = Unsettled {
                    release: release.clone(),
                    destination: destination.clone(),
                    dataset: dataset.clone(),
                    outbox: *outbox,
                    intent: number,
                };
                self.open.insert((destination.clone(), release.clone()), unsettled);
            }
            What::Sent { releases, destination, .. } => {
                for release in releases {
                    self.open.remove(&(destination.clone(), release.clone()));
                }
            }
            What::Unsettled { release, destination, .. } | What::Denied { release, destination, .. } => {
                self.open.remove(&(destination.clone(), release.clone()));
            }
            What::Start { models, .. } => self.models = Some(models.clone()),
            What::Withheld { outbox: Some(outbox), .. }
            | What::Override { outbox: Some(outbox), .. }
            | What::Refused { outbox, .. }
            | What::Privacy { outbox, .. } => {
                self.noted.hear(*outbox);
            }
            _ => {}
        }
    }
}

/// Verifies a ledger. Reports damage to its tiles if the signed tree can still be made.
///
/// # Errors
/// When it cannot be read, or the tree that was signed last cannot be made. New entries would then be a second history under
/// one name.
fn verified(files: &Files, signer: &Signer, kept: &[Checkpoint]) -> anyhow::Result<(Audit, Heard, Option<Damaged>)> {
    let mut heard = Heard::default();
    let mut hear = |number: u64, _: &[u8], entry: Option<&Entry>| {
        if let Some(entry) = entry {
            heard.hear(number, &entry.what);
        }
    };
    let bad = match audit(files, signer.verifier(), kept, &mut hear) {
        Ok(found) => match found.bad.first() {
            None => return Ok((found, heard, None)),
            Some(bad) => format!("it is not as it was signed: {bad}"),
        },
        Err(error) => format!("it cannot be read: {:#}", anyhow::Error::from(error)),
    };
    let directory = files.directory().display();
    let mut heard = Heard::default();
    let mut hear = |number: u64, _: &[u8], entry: Option<&Entry>| {
        if let Some(entry) = entry {
            heard.hear(number, &entry.what);
        }
    };
    let salvaged = salvage(files, signer.verifier(), kept, &mut hear).context("it cannot be read")?;
    let Some((found, places)) = salvaged else {
        bail!(
            "{bad}. See `bailiwick ledger verify -d {directory}`, and put back what was \
             changed, from a copy of the ledger. If there is none, stop the gateway and run `bailiwick ledger retire`: a \
             new ledger begins, and the old one is kept"
        );
    };
    let what = format!(
        "{bad}. It goes on, because the hashes of all entries are as they were signed. Put back what was changed, from a \
         copy of the ledger; see `bailiwick ledger verify -d {directory}`"
    );
    tracing::error!(what, places, "the ledger is damaged");
    Ok((found, heard, Some(Damaged { places, what })))
}

fn open_log(fs: &Arc<dyn FileSystem>, settings: &Settings, found: &Audit) -> anyhow::Result<(Log, Lsn)> {
    let of_log = storage::Settings {
        directory: settings.directory.join(LOG),
        segment_bytes: SEGMENT_BYTES,
        quota_bytes: QUOTA_BYTES,
        context: Vec::new(),
        at_least: 0,
    };
    let (log, recovery) = Log::open(Arc::clone(fs), of_log).context("its log cannot be opened")?;
    // None: its entries are in tiles, and it goes on where it was.
    if found.last != 0 && recovery.last != found.last {
        bail!("its log was written while it was verified");
    }
    Ok((log, recovery.last))
}

/// The key: the one that is there, or a new one for a new ledger.
fn signer(fs: &dyn FileSystem, files: &Files, settings: &Settings, was_there: bool) -> anyhow::Result<Signer> {
    let path = &settings.key;
    let lost = |why: String| anyhow!("its key `{}` {why}: {KEY_LOST}", path.display());
    if let Some(key) = text(fs, path).map_err(|error| lost(format!("cannot be read ({error:#})")))? {
        let signer = Signer::parse(&key).map_err(|error| lost(format!("cannot be used ({error})")))?;
        let name = signer.verifier().name();
        if name != settings.origin {
            bail!("the key `{}` is for `{name}`, and the ledger's `origin` is `{}`", path.display(), settings.origin);
        }
        let verifier = signer.verifier().to_string();
        match files.text(VERIFIER).context("it cannot be read")? {
            Some(known) if known.trim() == verifier => {}
            Some(_) => return Err(lost("is not the one that it was begun with".to_owned())),
            None => begin(fs, settings, &verifier)?,
        }
        return Ok(signer);
    }
    if was_there || files.is_there().context("it cannot be read")? {
        return Err(lost("is missing".to_owned()));
    }
    let signer = Signer::generate(&settings.origin)?;
    make(fs, settings, storage::parent(path))?;
    write_file_durably(fs, path, signer.secret().as_bytes())?;
    begin(fs, settings, &signer.verifier().to_string())?;
    Ok(signer)
}

fn begin(fs: &dyn FileSystem, settings: &Settings, verifier: &str) -> anyhow::Result<()> {
    make(fs, settings, &settings.directory)?;
    write_file_durably(fs, &settings.directory.join(VERIFIER), format!("{verifier}\n").as_bytes())?;
    Ok(())
}

/// Makes a directory. What stands below the journal is not made where the journal is gone: a ledger is opened beside a gateway
/// that runs.
fn make(fs: &dyn FileSystem, settings: &Settings, directory: &Path) -> Result<(), storage::Error> {
    match settings.seen.parent().filter(|journal| directory.starts_with(journal)) {
        Some(journal) => create_directories_below(fs, journal, directory),
        None => create_directories(fs, directory),
    }
}

fn text(fs: &dyn FileSystem, path: &Path) -> anyhow::Result<Option<String>> {
    let bytes = read_file(fs, path, TEXT_BYTES_MAX)?;
    bytes.map(|bytes| String::from_utf8(bytes).with_context(|| format!("`{}` is no text", path.display()))).transpose()
}
