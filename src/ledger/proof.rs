//! What shows others that an entry is in a ledger, and that a ledger only grew.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::files::Files;
use super::note::base64;
use super::tile::{WIDTH, tile_path};
use super::tree::{self, Hash, leaf, perfect};
use super::witness::Request;
use crate::storage::Error;

/// The hashes that proofs are made of: of every whole bundle, and of the entries of some.
#[derive(Debug, Default)]
pub struct Nodes {
    bundles: Vec<Hash>,
    /// The entries' hashes of the bundle that is not whole.
    last: Vec<Hash>,
    /// Those of bundles that are needed.
    kept: BTreeMap<u64, Vec<Hash>>,
    /// The bundles that are needed.
    needed: Vec<u64>,
}

impl Nodes {
    /// Adds an entry.
    pub fn push(&mut self, entry: &[u8]) {
        self.last.push(leaf(entry));
        if self.last.len() == WIDTH {
            let number = self.bundles.len() as u64;
            self.bundles.push(perfect(&self.last));
            let hashes = std::mem::take(&mut self.last);
            if self.needed.contains(&number) {
                self.kept.insert(number, hashes);
            }
        }
    }

    /// Keeps what a proof about an entry needs. To be called before the entry's bundle is whole.
    pub fn keep(&mut self, entry: u64) {
        self.needed.push(entry / WIDTH as u64);
    }

    fn tree(&self, level: u32, index: u64) -> Option<Hash> {
        let first = index.checked_shl(level)?;
        let bundle = first / WIDTH as u64;
        if level >= 8 {
            let from = usize::try_from(bundle).ok()?;
            return self.bundles.get(from..from.checked_add(1 << (level - 8))?).map(perfect);
        }
        let hashes = self.kept.get(&bundle).or((bundle == self.bundles.len() as u64).then_some(&self.last))?;
        let from = usize::try_from(first % WIDTH as u64).ok()?;
        hashes.get(from..from + (1 << level)).map(perfect)
    }

    /// The proof that an entry is in the ledger, as C2SP's `tlog-proof` has it, with the entry as its extra data.
    #[must_use]
    pub fn inclusion(&self, index: u64, entry: &[u8], size: u64, checkpoint: &str) -> Option<String> {
        let hashes = tree::inclusion(index, size, &|level, index| self.tree(level, index))?;
        let mut proof = format!("c2sp.org/tlog-proof@v1\nextra {}\nindex {index}\n", base64(entry));
        hashes.iter().for_each(|hash| proof.push_str(&(base64(hash) + "\n")));
        Some(format!("{proof}\n{checkpoint}"))
    }

    /// The proof that a ledger of `old` entries only grew, as a request of C2SP's `tlog-witness` has it.
    #[must_use]
    pub fn consistency(&self, old: u64, new: u64, checkpoint: &str) -> Option<String> {
        let proof = tree::consistency(old, new, &|level, index| self.tree(level, index))?;
        Some(Request { old, proof, checkpoint: checkpoint.to_owned() }.encode())
    }
}

/// The hashes that show that a published ledger of `new` entries only grew since it had `old` of them, from its tiles. `None`:
/// a tile is missing, perhaps because the ledger was published again.
///
/// # Errors
/// When a tile cannot be read.
pub fn growth(files: &Files, old: u64, new: u64) -> Result<Option<Vec<Hash>>, Error> {
    let failed = RefCell::new(None);
    let trees = |level, index| {
        stored(files, new, level, index).unwrap_or_else(|error| {
            *failed.borrow_mut() = Some(error);
            None
        })
    };
    let proof = tree::consistency(old, new, &trees);
    failed.into_inner().map_or(Ok(proof), Err)
}

/// The root of a perfect tree, from the tiles of a ledger of `size` entries.
fn stored(files: &Files, size: u64, level: u32, index: u64) -> Result<Option<Hash>, Error> {
    let (depth, within) = (level / 8, level % 8);
    let width = WIDTH as u64;
    let first = index << within;
    let (number, from) = (first / width, usize::try_from(first % width).unwrap_or(0));
    let hashes = size.checked_shr(8 * depth).unwrap_or(0).saturating_sub(number * width).min(width);
    let (depth, hashes) = (usize::try_from(depth).unwrap_or(0), usize::try_from(hashes).unwrap_or(0));
    let tile = files.tile(&tile_path(depth, number, hashes), hashes)?.unwrap_or_default();
    Ok(tile.as_chunks::<32>().0.get(from..from + (1 << within)).map(perfect))
}
