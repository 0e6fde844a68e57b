//! Whether a damaged ledger can continue: whether the tree that was signed last can be made from what is left.
//!
//! The hashes of the entries are enough for that. What was signed stays as it was signed, whatever became of the bytes of an
//! entry that is in tiles. Only of the last bundle, which is not whole, the entries' bytes are needed as well: they stand in
//! the files that are written next.

use std::path::Path;

use super::{Audit, Auditor, Visit};
use crate::ledger::files::{CHECKPOINT, Files};
use crate::ledger::note::{Checkpoint, Verifier};
use crate::ledger::tile::{WIDTH, bundle_path, entries, tile_path};
use crate::ledger::tree::{Hash, leaf, perfect};
use crate::storage::Error;

/// Makes the tree that was signed last from what is left, with the number of places that are damaged. `visit` hears of the
/// entries that are as they were signed. `None`: the tree cannot be made.
///
/// # Errors
/// When the checkpoint, or the log before the tiles, is there and the system does not let it be read.
pub(in crate::ledger) fn salvage(
    files: &Files,
    verifier: &Verifier,
    kept: &[Checkpoint],
    visit: Visit<'_>,
) -> Result<Option<(Audit, u64)>, Error> {
    let Some(note) = files.text(CHECKPOINT)? else { return Ok(None) };
    let Ok(checkpoint) = verifier.open(&note) else { return Ok(None) };
    let mut auditor = Auditor { files, kept, visit, audit: Audit::default(), time: String::new(), malformed: None };
    auditor.check_kept();
    let Some(lost) = auditor.by_hashes(checkpoint.size) else { return Ok(None) };
    if auditor.audit.frontier.root() != checkpoint.root {
        return Ok(None);
    }
    auditor.audit.published = checkpoint.size;
    auditor.audit.checkpoint = Some(note);
    auditor.unpublished(verifier)?;
    // An entry that was signed and says nothing is damage too, and none that anything depends on.
    let malformed = u64::from(auditor.malformed.take().is_some());
    let audit = auditor.finish();
    Ok(audit.bad.is_empty().then_some((audit, lost.saturating_add(malformed).max(1))))
}

impl Auditor<'_> {
    /// Adds the entries in tiles by their hashes. How many of them are lost; `None` if a hash is.
    fn by_hashes(&mut self, size: u64) -> Option<u64> {
        let mut lost = 0;
        while self.audit.entries < size {
            let first = self.audit.entries;
            let (number, width) = (first / WIDTH as u64, usize::try_from(size - first).unwrap_or(WIDTH).min(WIDTH));
            let bundle = self.readable(&bundle_path(number, width), width);
            let found: Vec<&[u8]> = entries(&bundle).take(width).collect();
            if width < WIDTH {
                if found.len() < width {
                    return None;
                }
                for entry in found {
                    self.push(entry);
                    let _ = self.audit.tiles.push(entry);
                }
                continue;
            }
            let own: Vec<Hash> = found.iter().map(|entry| leaf(entry)).collect();
            let hashes = self.signed(number, size, own)?;
            let mut found = found.into_iter();
            for hash in &hashes {
                match found.next().filter(|entry| leaf(entry) == *hash) {
                    Some(entry) => self.push(entry),
                    None => {
                        lost += 1;
                        self.audit.frontier.push(*hash);
                        self.audit.entries += 1;
                        self.check_kept();
                    }
                }
            }
            self.audit.tiles.pass(&hashes);
        }
        Some(lost)
    }

    /// The hashes of a whole bundle as they were signed, as far as can be told: those of its entries, or those in its tile.
    fn signed(&self, number: u64, size: u64, own: Vec<Hash>) -> Option<Vec<Hash>> {
        let tile = self.readable(&tile_path(0, number, WIDTH), WIDTH);
        let in_tile = tile.as_chunks::<32>().0;
        if own.len() == WIDTH && (own == in_tile || in_tile.len() != WIDTH) {
            return Some(own);
        }
        let (above, at) = (number / WIDTH as u64, usize::try_from(number % WIDTH as u64).ok()?);
        let width = usize::try_from(size / WIDTH as u64 - above * WIDTH as u64).unwrap_or(WIDTH).min(WIDTH);
        let above = self.readable(&tile_path(1, above, width), width);
        if own.len() == WIDTH && above.as_chunks::<32>().0.get(at) == Some(&perfect(&own)) {
            return Some(own);
        }
        (in_tile.len() == WIDTH).then(|| in_tile.to_vec())
    }

    /// The bytes of a tile or bundle, none if it is missing or cannot be read.
    fn readable(&self, path: &Path, width: usize) -> Vec<u8> {
        self.files.tile(path, width).ok().flatten().unwrap_or_default()
    }
}
