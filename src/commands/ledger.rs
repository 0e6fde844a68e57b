//! `bailiwick ledger`: what the ledger says, and whether it is what was signed. Reads only, also beside a gateway that runs,
//! and needs neither a configuration nor a secret; but for `salt`, which needs the key, and `retire`, which renames.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use serde_json::json;
use zeroize::Zeroizing;

use crate::domain::binary::hex;
use crate::domain::name::DestinationName;
use crate::domain::printable;
use crate::files;
use crate::ledger::audit::{Audit, Visit, audit};
use crate::ledger::entry::{Entry, What};
use crate::ledger::note::{Checkpoint, Signer, Verifier};
use crate::ledger::proof::Nodes;
use crate::ledger::tile::{Part, Tiles};
use crate::ledger::{CHECKPOINT, Files, VERIFIER, WITNESSED};
use crate::storage::RealFileSystem;

use super::Failure;

mod retire;
mod verify;
mod witness;
mod words;

use verify::{Counts, Wanting};
use words::words;

/// What `bailiwick ledger` is told.
#[derive(Debug, clap::Subcommand)]
pub enum Task {
    /// Verify a whole ledger, and exit with 1 if anything in it is not as it was signed.
    ///
    /// This names the first bad entry. To find a ledger that was rewritten or cut as a whole, give the checkpoints that
    /// you kept, and the public key that you were given.
    Verify {
        /// The ledger.
        #[command(flatten)]
        ledger: Named,
        /// A checkpoint that you kept: a copy of the file `checkpoint`. Give this option once for each.
        #[arg(long = "checkpoint", value_name = "FILE")]
        checkpoints: Vec<PathBuf>,
        /// The public key of a witness that must have cosigned, or its file. Give this option once for each.
        #[arg(long = "witness", value_name = "KEY|FILE")]
        witnesses: Vec<String>,
        /// How many of these witnesses must have cosigned. One key counts once [default: all]
        #[arg(long, value_name = "N", requires = "witnesses")]
        at_least: Option<usize>,
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the entries in words, after verifying the ledger.
    Show {
        /// The ledger.
        #[command(flatten)]
        ledger: Named,
        /// Only entries of this kind, such as `intent` or `sent`. Give this option once for each.
        #[arg(long = "kind", value_name = "KIND")]
        kinds: Vec<String>,
        /// Only entries about this release.
        #[arg(long, value_name = "ID")]
        release: Option<String>,
        /// Only entries from this number on. The first is 0.
        #[arg(long, value_name = "N", default_value_t = 0)]
        from: u64,
        /// Only entries before this number.
        #[arg(long, value_name = "N", default_value_t = u64::MAX)]
        to: u64,
        /// Print them as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the proof that the ledger said before a release left that it would, as a C2SP tlog-proof.
    ///
    /// The proof holds the entry, its place, and a signed checkpoint. It shows none of the other entries. With `--since`
    /// instead of a release, print the proof that the ledger only grew since a checkpoint that you kept, as a request of a
    /// C2SP tlog-witness.
    Prove {
        /// The release's id.
        #[arg(value_name = "RELEASE", required_unless_present = "since", conflicts_with = "since")]
        release: Option<String>,
        /// The ledger.
        #[command(flatten)]
        ledger: Named,
        /// The destination, if the release went to several.
        #[arg(long, value_name = "NAME")]
        destination: Option<String>,
        /// Prove the entry that says that the release was sent.
        #[arg(long)]
        sent: bool,
        /// A checkpoint that you kept.
        #[arg(long, value_name = "FILE")]
        since: Option<PathBuf>,
    },
    /// Write a verified copy of a ledger as plain static files (C2SP tlog-tiles) into a directory.
    Export {
        /// The directory. It must be empty or not be there.
        #[arg(value_name = "TO")]
        to: PathBuf,
        /// The ledger.
        #[command(flatten)]
        ledger: Named,
    },
    /// Cosign the checkpoints of ledgers for gateways that ask, until SIGTERM or SIGINT (C2SP tlog-witness).
    ///
    /// A witness remembers the last checkpoint of each ledger that it cosigned, and cosigns another one only with the proof
    /// that the ledger grew from it. So a ledger that was cut or rewritten, or a second one of the same name, gets no
    /// cosignature. Let somebody run it who does not run the gateway.
    Witness(witness::Options),
    /// Set aside a ledger that cannot continue, so that the next start begins a new one.
    ///
    /// The gateway must be stopped. Nothing is deleted: the ledger, its key and what the gateway remembers of it get other
    /// names. Put back what was changed from a copy instead, if you can.
    Retire {
        /// The configuration of the gateway.
        #[arg(short, long, value_name = "FILE", default_value = "gateway.toml")]
        config: PathBuf,
    },
    /// Print the salt that opens the commitment to a release. This needs the ledger's secret key.
    Salt {
        /// The release's id.
        #[arg(value_name = "RELEASE")]
        release: String,
        /// The destination.
        #[arg(long, value_name = "NAME")]
        destination: String,
        /// The file of the secret key.
        #[arg(long, value_name = "FILE", default_value = "journal/ledger.key")]
        secret: PathBuf,
    },
}

/// A ledger, and the key that it is verified with.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Named {
    /// The directory of the ledger, or of a copy of it.
    #[arg(short, long, value_name = "DIR", default_value = "journal/ledger")]
    pub directory: PathBuf,
    /// The public key that you were given, or its file [default: the file `verifier` in the directory]
    #[arg(long, value_name = "KEY|FILE")]
    pub key: Option<String>,
}

/// Does what it is told. The report for stdout.
///
/// # Errors
/// When the ledger cannot be read, or is not as it was signed.
pub async fn ledger(task: Task) -> Result<String, Failure> {
    match task {
        Task::Verify { ledger, checkpoints, witnesses, at_least, json } => {
            let witnesses = verify::distinct(&witnesses)?;
            let at_least = at_least.unwrap_or(witnesses.len());
            verify::verify(&ledger, &checkpoints, &Wanting { witnesses, at_least }, json)
        }
        Task::Witness(options) => Ok(witness::witness(options).await?),
        Task::Show { ledger, kinds, release, from, to, json } => {
            show(&ledger, &Shown { kinds, release, numbers: from..to }, json)
        }
        Task::Prove { release, ledger, destination, sent, since } => match (release, since) {
            (Some(release), _) => prove(&ledger, &Wanted { release, destination, sent }),
            (None, Some(since)) => prove_growth(&ledger, &since),
            (None, None) => Err(anyhow::anyhow!("name a release, or a checkpoint with `--since`").into()),
        },
        Task::Export { to, ledger } => export(&ledger, &to),
        Task::Retire { config } => retire::retire(&config),
        Task::Salt { release, destination, secret } => Ok(salt(&release, &destination, &secret)?),
    }
}

/// A ledger that can be read.
pub(super) struct Opened<'n> {
    named: &'n Named,
    files: Files,
    verifier: Verifier,
}

impl Named {
    pub(super) fn open(&self) -> anyhow::Result<Opened<'_>> {
        let files = Files::new(Arc::new(RealFileSystem), &self.directory);
        let directory = self.directory.display();
        let key = match &self.key {
            Some(key) => text_of(key)?,
            None => {
                let missing = || format!("no ledger in {directory}: there is no file `{VERIFIER}`");
                files.text(VERIFIER)?.with_context(missing)?
            }
        };
        // Of a ledger that is gone, not one entry could be wrong.
        if !files.is_there()? {
            bail!("no ledger in {directory}: there is neither a file `{CHECKPOINT}` nor an entry before the tiles");
        }
        let verifier = Verifier::parse(&key).context("the public key cannot be used")?;
        Ok(Opened { named: self, files, verifier })
    }
}

/// A key, or that in a file.
fn text_of(key: &str) -> anyhow::Result<String> {
    if Path::new(key).is_file() {
        return text(Path::new(key));
    }
    Ok(key.to_owned())
}

/// The largest file that is named: a key, a checkpoint. Each has a few lines.
const NAMED_BYTES_MAX: u64 = 1 << 16;

/// The text of a file that is named.
fn text(path: &Path) -> anyhow::Result<String> {
    let (bytes, _) = files::read(path, NAMED_BYTES_MAX)?;
    String::from_utf8(bytes).map_err(|_| anyhow!("`{}` is not UTF-8 text", path.display()))
}

/// How often a ledger is read again that moved on meanwhile.
const ATTEMPTS: usize = 5;

impl Opened<'_> {
    /// Verifies the ledger. `begin` makes what hears of the entries, anew when a gateway went on while the ledger was read.
    fn audit<T>(
        &self,
        kept: &[Checkpoint],
        begin: impl Fn() -> T,
        hear: impl Fn(&mut T, u64, &[u8], Option<&Entry>),
    ) -> anyhow::Result<(Audit, T)> {
        let mut attempts = 0;
        loop {
            let (before, mut heard) = (self.files.text(CHECKPOINT)?, begin());
            let visit: Visit<'_> = &mut |number, bytes, entry| hear(&mut heard, number, bytes, entry);
            let found = audit(&self.files, &self.verifier, kept, visit)?;
            attempts += 1;
            if found.bad.is_empty() || attempts == ATTEMPTS || self.files.text(CHECKPOINT)? == before {
                return Ok((found, heard));
            }
        }
    }

    /// The public key.
    pub(super) fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// The same, of a ledger that has to be as it was signed.
    pub(super) fn sound<T>(
        &self,
        kept: &[Checkpoint],
        begin: impl Fn() -> T,
        hear: impl Fn(&mut T, u64, &[u8], Option<&Entry>),
    ) -> Result<(Audit, T), Failure> {
        let (found, heard) = self.audit(kept, begin, hear)?;
        if found.bad.is_empty() {
            Ok((found, heard))
        } else {
            Err(Failure::Found(verify::in_words(self, &found, &Counts::default(), &[])))
        }
    }

    fn kept(&self, path: &Path) -> anyhow::Result<Checkpoint> {
        let note = text(path)?;
        self.verifier.open(&note).with_context(|| format!("{} cannot be used", path.display()))
    }
}

/// Which entries are shown.
struct Shown {
    kinds: Vec<String>,
    release: Option<String>,
    numbers: std::ops::Range<u64>,
}

impl Shown {
    fn has(&self, number: u64, entry: &Entry) -> bool {
        let is_of_kind = self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == entry.what.kind());
        let is_of_release = self.release.as_ref().is_none_or(|release| is_about(&entry.what, release, None));
        self.numbers.contains(&number) && is_of_kind && is_of_release
    }
}

fn is_about(what: &What, id: &str, to: Option<&str>) -> bool {
    match what {
        What::Intent { release, destination, .. }
        | What::Unsettled { release, destination, .. }
        | What::Shed { release, destination, .. }
        | What::Denied { release, destination, .. } => release == id && to.is_none_or(|to| to == destination),
        What::Sent { releases, destination, .. } => {
            releases.iter().any(|release| release == id) && to.is_none_or(|to| to == destination)
        }
        _ => false,
    }
}

fn show(named: &Named, shown: &Shown, json: bool) -> Result<String, Failure> {
    let opened = named.open()?;
    let (_, entries) = opened.sound(&[], Vec::new, |entries, number, _, entry| {
        entries.extend(entry.filter(|entry| shown.has(number, entry)).map(|entry| (number, entry.clone())));
    })?;
    if json {
        let entries = entries.iter().map(|(number, entry)| {
            let mut value = serde_json::to_value(entry).unwrap_or_default();
            super::json::add(&mut value, "entry", *number);
            value
        });
        return Ok(super::json::print(
            &json!({ "name": opened.verifier.name(), "entries": entries.collect::<Vec<_>>() }),
        ));
    }
    let mut text = String::new();
    for (number, entry) in &entries {
        let _ = writeln!(text, "{number} {} {}: {}", entry.time, entry.what.kind(), words(&entry.what));
    }
    Ok(text)
}

/// What is to be proved.
struct Wanted {
    release: String,
    destination: Option<String>,
    sent: bool,
}

impl Wanted {
    fn is(&self, what: &What) -> bool {
        let is_of_kind =
            if self.sent { matches!(what, What::Sent { .. }) } else { matches!(what, What::Intent { .. }) };
        is_of_kind && is_about(what, &self.release, self.destination.as_deref())
    }
}

/// The hashes of a ledger, and the entries that are asked for.
#[derive(Default)]
struct Found {
    nodes: Nodes,
    wanted: Vec<(u64, Vec<u8>, String)>,
}

fn prove(named: &Named, wanted: &Wanted) -> Result<String, Failure> {
    let opened = named.open()?;
    let (audit, found) = opened.sound(&[], Found::default, |found, number, bytes, entry| {
        if let Some(entry) = entry.filter(|entry| wanted.is(&entry.what)) {
            let (What::Intent { destination, .. } | What::Sent { destination, .. }) = &entry.what else { return };
            found.nodes.keep(number);
            found.wanted.push((number, bytes.to_vec(), destination.clone()));
        }
        found.nodes.push(bytes);
    })?;
    let destinations: std::collections::BTreeSet<&str> = found.wanted.iter().map(|(_, _, to)| to.as_str()).collect();
    if destinations.len() > 1 {
        let names = destinations.into_iter().collect::<Vec<_>>().join("`, `");
        return Err(anyhow::anyhow!("the release went to `{names}`: name one with `--destination`").into());
    }
    // The first: it was there before the first byte left.
    let Some((index, entry, _)) = found.wanted.first() else {
        let what = if wanted.sent { "sent" } else { "about to leave" };
        let message = format!("the ledger does not say that release `{}` was {what}", wanted.release);
        return Err(anyhow::Error::msg(message).into());
    };
    let checkpoint = audit.checkpoint.unwrap_or_default();
    let proof = found.nodes.inclusion(*index, entry, audit.entries, &checkpoint);
    Ok(proof.context("the proof could not be made: a fault in bailiwick; please report this line")?)
}

fn prove_growth(named: &Named, since: &Path) -> Result<String, Failure> {
    let opened = named.open()?;
    let kept = opened.kept(since)?;
    let begin = || {
        let mut nodes = Nodes::default();
        nodes.keep(kept.size.saturating_sub(1));
        nodes.keep(kept.size);
        nodes
    };
    let (audit, nodes) = opened.sound(std::slice::from_ref(&kept), begin, |nodes, _, bytes, _| nodes.push(bytes))?;
    let checkpoint = audit.checkpoint.unwrap_or_default();
    let proof = nodes.consistency(kept.size, audit.entries, &checkpoint);
    Ok(proof.context("the proof could not be made: a fault in bailiwick; please report this line")?)
}

fn export(named: &Named, to: &Path) -> Result<String, Failure> {
    let opened = named.open()?;
    let is_used = fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some());
    if is_used {
        return Err(anyhow!("{} is not empty", to.display()).into());
    }
    // First everything is verified: nothing is exported of a ledger that is not as it was signed.
    let (audit, ()) = opened.sound(&[], || (), |(), _, _, _| ())?;
    let wanted = opened.verifier.open(&audit.checkpoint.clone().unwrap_or_default()).context("it has no entry")?;
    let begin = || (Tiles::default(), Ok(()));
    let (_, (tiles, written)) =
        opened.sound(std::slice::from_ref(&wanted), begin, |(tiles, written), number, bytes, _| {
            if number < wanted.size && written.is_ok() {
                *written = tiles.push(bytes).iter().try_for_each(|part| write(to, part));
            }
        })?;
    written?;
    tiles.edge().iter().try_for_each(|part| write(to, part))?;
    let key = format!("{}\n", opened.verifier);
    write(to, &Part { path: VERIFIER.into(), bytes: key.into_bytes() })?;
    write(to, &Part { path: CHECKPOINT.into(), bytes: audit.checkpoint.unwrap_or_default().into_bytes() })?;
    for cosigned in fs::read_dir(named.directory.join(WITNESSED)).into_iter().flatten() {
        let from = cosigned.with_context(|| format!("cannot read {}", named.directory.display()))?.path();
        let (bytes, _) = files::read(&from, NAMED_BYTES_MAX).map_err(anyhow::Error::from)?;
        write(to, &Part { path: Path::new(WITNESSED).join(from.file_name().unwrap_or_default()), bytes })?;
    }
    Ok(format!("{} entries of ledger `{}` are in {}\n", wanted.size, opened.verifier.name(), to.display()))
}

fn write(to: &Path, part: &Part) -> anyhow::Result<()> {
    let path = to.join(&part.path);
    let failed = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(failed)?;
    }
    fs::write(&path, &part.bytes).with_context(failed)
}

fn salt(release: &str, destination: &str, secret: &Path) -> anyhow::Result<String> {
    let named = || format!("`{}` is no destination's name", printable::line(destination));
    let destination = DestinationName::new(destination).with_context(named)?;
    let key = Zeroizing::new(text(secret)?);
    let Ok(signer) = Signer::parse(&key) else { bail!("{} is no secret key of a ledger", secret.display()) };
    Ok(format!("{}\n", hex(&signer.salt(release, &destination))))
}
