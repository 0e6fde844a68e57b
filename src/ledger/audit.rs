//! Verification: from the entries up to the signed checkpoint, without trusting anything between.

use std::fmt;
use std::path::Path;

use super::entry::{Entry, Unreadable};
use super::files::{CHECKPOINT, Files};
use super::group::Group;
use super::note::{Checkpoint, Verifier};
use super::tile::{Part, Tiles, WIDTH, bundle_path, entries, tile_path};
use super::tree::{Frontier, Hash, leaf};
use crate::storage::{Error, Lsn};

mod salvage;

pub(super) use salvage::salvage;

/// Something that is not as it was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bad {
    /// The first entry that is concerned; `None` if no entry is, or it cannot be told which.
    pub entry: Option<u64>,
    /// What is wrong, as a sentence without its end.
    pub what: String,
}

impl fmt::Display for Bad {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.entry {
            Some(entry) => write!(formatter, "entry {entry}: {}", self.what),
            None => formatter.write_str(&self.what),
        }
    }
}

/// What an audit came to.
#[derive(Debug, Default)]
pub struct Audit {
    /// How many entries there are.
    pub entries: u64,
    /// How many of them are in tiles.
    pub published: u64,
    /// The newest signed checkpoint; `None` if there is none.
    pub checkpoint: Option<String>,
    /// What is wrong, the first entry first.
    pub bad: Vec<Bad>,
    /// How often an entry has an earlier time than the one before it.
    pub clock_went_back: u64,
    /// Entries of a later version, which say nothing to this program.
    pub newer: u64,
    pub(super) frontier: Frontier,
    /// The tiles of the entries that are published.
    pub(super) tiles: Tiles,
    /// The entries that are not in tiles.
    pub(super) unpublished: Vec<Vec<u8>>,
    /// The last position of the log before the tiles.
    pub(super) last: Lsn,
}

/// Hears of each entry with its number, its bytes, and what it says if that can be read.
pub type Visit<'v> = &'v mut dyn FnMut(u64, &[u8], Option<&Entry>);

/// Reads a whole ledger and checks it against its checkpoint, the log before the tiles, and checkpoints that somebody kept.
///
/// # Errors
/// When a file is there and the system does not let it be read. What is wrong with the ledger is in the [`Audit`].
pub fn audit(files: &Files, verifier: &Verifier, kept: &[Checkpoint], visit: Visit<'_>) -> Result<Audit, Error> {
    let mut auditor = Auditor { files, kept, visit, audit: Audit::default(), time: String::new(), malformed: None };
    let checkpoint = match files.text(CHECKPOINT)? {
        None => None,
        Some(note) => match verifier.open(&note) {
            Ok(checkpoint) => Some((note, checkpoint)),
            Err(error) => {
                auditor.bad(None, format!("the file `{CHECKPOINT}` cannot be used: {error}"));
                return Ok(auditor.audit);
            }
        },
    };
    auditor.check_kept();
    if let Some((note, checkpoint)) = checkpoint {
        auditor.audit.checkpoint = Some(note);
        auditor.published(&checkpoint)?;
    }
    if auditor.audit.bad.is_empty() {
        auditor.unpublished(verifier)?;
    }
    Ok(auditor.finish())
}

struct Auditor<'a> {
    files: &'a Files,
    kept: &'a [Checkpoint],
    visit: Visit<'a>,
    audit: Audit,
    time: String,
    /// The first entry that was signed and is none.
    malformed: Option<u64>,
}

/// The hashes that the tiles say there are, level by level, as far as they are there.
#[derive(Default)]
struct Stored {
    /// The tree by the hashes of the entries.
    leaves: Frontier,
    /// The tree by the hashes of whole bundles, and of the entries of the last.
    bundles: Frontier,
    /// The first entry whose hash is another one.
    first_leaf: Option<u64>,
    /// The first bundle whose hash is another one.
    first_bundle: Option<u64>,
    /// The first tile that is missing or holds something else.
    first_tile: Option<String>,
}

impl Auditor<'_> {
    fn bad(&mut self, entry: Option<u64>, what: impl Into<String>) {
        self.audit.bad.push(Bad { entry, what: what.into() });
    }

    /// Adds an entry. The tiles that are whole by it.
    fn push(&mut self, entry: &[u8]) {
        let number = self.audit.entries;
        self.audit.frontier.push(leaf(entry));
        self.audit.entries += 1;
        let read = Entry::decode(entry);
        match &read {
            Ok(read) => {
                self.audit.clock_went_back += u64::from(read.time < self.time);
                self.time.clone_from(&read.time);
            }
            Err(Unreadable::Newer(_)) => self.audit.newer += 1,
            Err(Unreadable::Malformed) => self.malformed = self.malformed.or(Some(number)),
        }
        (self.visit)(number, entry, read.as_ref().ok());
        self.check_kept();
    }

    fn check_kept(&mut self) {
        let size = self.audit.entries;
        if self.kept.iter().all(|kept| kept.size != size) {
            return;
        }
        let root = self.audit.frontier.root();
        if self.kept.iter().any(|kept| kept.size == size && kept.root != root) {
            let what = format!(
                "the first {size} entries are not those that a checkpoint was signed for which somebody kept: the \
                 ledger was rewritten, or there are two of one name"
            );
            self.bad(None, what);
        }
    }

    /// The entries in tiles.
    fn published(&mut self, checkpoint: &Checkpoint) -> Result<(), Error> {
        let mut stored = Stored::default();
        while self.audit.entries < checkpoint.size {
            let first = self.audit.entries;
            let width = usize::try_from(checkpoint.size - first).unwrap_or(WIDTH).min(WIDTH);
            let path = bundle_path(first / WIDTH as u64, width);
            let Some(bundle) = self.files.tile(&path, width)? else {
                self.bad(Some(first), format!("its file `{}` is missing", path.display()));
                return Ok(());
            };
            let (mut parts, mut hashes) = (Vec::new(), Vec::new());
            for entry in entries(&bundle).take(width) {
                self.push(entry);
                hashes.push(leaf(entry));
                parts.extend(self.audit.tiles.push(entry));
            }
            if hashes.len() < width {
                let as_in_tile = self.as_in_tile(first / WIDTH as u64, width, &hashes)?;
                let what =
                    format!("it is not the one that was signed, or is missing: `{}` was changed", path.display());
                self.bad(Some(first + as_in_tile as u64), what);
                return Ok(());
            }
            self.compare(&parts, &mut stored)?;
        }
        // The larger trees first: that is their order in the whole.
        let edge: Vec<Part> = self.audit.tiles.edge().into_iter().rev().collect();
        self.compare(&edge, &mut stored)?;
        self.audit.published = checkpoint.size;
        if self.audit.frontier.root() != checkpoint.root {
            let (entry, what) = stored.blame(checkpoint);
            self.audit.bad.insert(0, Bad { entry, what });
        } else if let Some(tile) = stored.first_tile {
            self.bad(
                None,
                format!("`{tile}` is missing, or is not that of the entries, which are as they were signed"),
            );
        }
        Ok(())
    }

    /// How many of a bundle's hashes are as its tile has them, from the first on.
    fn as_in_tile(&self, number: u64, width: usize, hashes: &[Hash]) -> Result<usize, Error> {
        let tile = self.files.tile(&tile_path(0, number, width), width)?.unwrap_or_default();
        let stored = tile.as_chunks::<32>().0;
        Ok(hashes.iter().zip(stored).take_while(|(ours, stored)| ours == stored).count())
    }

    /// Compares tiles with those that are there.
    fn compare(&self, parts: &[Part], stored: &mut Stored) -> Result<(), Error> {
        for part in parts {
            let Some((level, number)) = level_and_number(&part.path) else { continue };
            let width = part.bytes.len() / size_of::<Hash>();
            let found = self.files.tile(&part.path, width)?.unwrap_or_default();
            let found = found.get(..part.bytes.len()).unwrap_or(&found);
            if found != part.bytes && stored.first_tile.is_none() {
                stored.first_tile = Some(part.path.display().to_string());
            }
            let hashes = found.as_chunks::<32>().0;
            let is_other = |(ours, found): (&[u8; 32], &[u8; 32])| ours != found;
            let other = part.bytes.as_chunks::<32>().0.iter().zip(hashes).position(is_other);
            let other = other.map(|at| number * WIDTH as u64 + at as u64);
            match level {
                0 => {
                    stored.first_leaf = stored.first_leaf.or(other);
                    hashes.iter().for_each(|hash| stored.leaves.push(*hash));
                    if width < WIDTH {
                        hashes.iter().for_each(|hash| stored.bundles.push(*hash));
                    }
                }
                1 => {
                    stored.first_bundle = stored.first_bundle.or(other);
                    hashes.iter().for_each(|hash| stored.bundles.push_tree(8, *hash));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The entries in the log before the tiles.
    fn unpublished(&mut self, verifier: &Verifier) -> Result<(), Error> {
        let (mut log, damage) = self.files.log()?;
        let mut first_needed = None;
        while let Some(entry) =
            log.next().map_err(|error| Error::Io { doing: "read", path: error.path, source: error.source })?
        {
            self.audit.last = entry.lsn;
            let size = self.audit.entries;
            let Some(group) = Group::decode(&entry.payload) else {
                self.bad(Some(size), format!("position {} of the log before the tiles cannot be read", entry.lsn));
                return Ok(());
            };
            if group.end() <= size {
                continue;
            }
            first_needed = first_needed.or(Some(entry.lsn));
            if group.first > size {
                self.bad(
                    Some(size),
                    format!("it is missing: the log before the tiles goes on with entry {}", group.first),
                );
                return Ok(());
            }
            for written in group.entries.iter().skip(usize::try_from(size - group.first).unwrap_or(usize::MAX)) {
                self.push(written);
                self.audit.unpublished.push(written.clone());
            }
            let is_signed = match verifier.open(&group.checkpoint) {
                Ok(signed) => (signed.size, signed.root) == (self.audit.entries, self.audit.frontier.root()),
                Err(_) => false,
            };
            if !is_signed {
                let what =
                    format!("it, or one of those through {}, is not the one that was signed", self.audit.entries - 1);
                self.bad(Some(size), what);
                return Ok(());
            }
            self.audit.checkpoint = Some(group.checkpoint);
        }
        // Damage before what is needed is of no account: its entries are in tiles.
        let is_needed = |lsn: Lsn| first_needed.is_none_or(|first| lsn >= first);
        if let Some(damage) = damage.iter().find(|damage| is_needed(damage.lsns.1)) {
            let (first, last) = damage.lsns;
            let what = format!("the log before the tiles is damaged: positions {first} to {last} cannot be read");
            self.bad(Some(self.audit.entries), what);
        }
        Ok(())
    }

    fn finish(mut self) -> Audit {
        if let Some(entry) = self.malformed
            && self.audit.bad.is_empty()
        {
            self.bad(Some(entry), "it was signed, and is no entry that any version wrote");
        }
        let size = self.audit.entries;
        if let Some(kept) = self.kept.iter().map(|kept| kept.size).max().filter(|kept| *kept > size) {
            let what =
                format!("the ledger ends before it: a checkpoint that somebody kept was signed for {kept} entries");
            self.bad(Some(size), what);
        }
        self.audit
    }
}

impl Stored {
    /// Which entry is not the one that was signed, by the tiles that are as they were signed.
    fn blame(&self, checkpoint: &Checkpoint) -> (Option<u64>, String) {
        let is_signed = |tree: &Frontier| (tree.size(), tree.root()) == (checkpoint.size, checkpoint.root);
        if let Some(entry) = self.first_leaf.filter(|_| is_signed(&self.leaves)) {
            return (Some(entry), "it is not the one that was signed".to_owned());
        }
        if let Some(bundle) = self.first_bundle.filter(|_| is_signed(&self.bundles)) {
            let first = bundle * WIDTH as u64;
            let last = first + WIDTH as u64 - 1;
            return (Some(first), format!("it, or one of those through {last}, is not the one that was signed"));
        }
        let what = format!("the {} entries are not those that the checkpoint was signed for", checkpoint.size);
        match self.first_leaf {
            Some(entry) => (Some(entry), format!("{what}; this is the first that its tile does not have")),
            None => (None, what),
        }
    }
}

/// The level and the number of a tile of hashes.
fn level_and_number(path: &Path) -> Option<(u64, u64)> {
    let mut parts = path.iter().skip(1).map(|part| part.to_string_lossy().into_owned());
    let level = parts.next()?.parse().ok()?;
    let mut number = 0;
    for part in parts {
        let (group, is_last) = match part.strip_suffix(".p") {
            Some(group) => (group.to_owned(), true),
            None => (part, false),
        };
        number = number * 1_000 + group.trim_start_matches('x').parse::<u64>().ok()?;
        if is_last {
            break;
        }
    }
    Some((level, number))
}
