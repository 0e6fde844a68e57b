//! The tree as static files, as C2SP's `tlog-tiles` lays them out: bundles of 256 entries, and tiles of 256 hashes on each
//! eighth level of the tree.

use std::path::{Path, PathBuf};

use super::entry::BYTES_MAX;
use super::tree::{Hash, leaf, perfect};

/// Entries in a whole bundle, and hashes in a whole tile.
pub const WIDTH: usize = 256;

/// Where a tile of hashes stands: `tile/LEVEL/NUMBER`, with `.p/WIDTH` if it is not whole.
#[must_use]
pub fn tile_path(level: usize, number: u64, width: usize) -> PathBuf {
    path(&level.to_string(), number, width)
}

/// Where a bundle of entries stands.
#[must_use]
pub fn bundle_path(number: u64, width: usize) -> PathBuf {
    path("entries", number, width)
}

fn path(kind: &str, number: u64, width: usize) -> PathBuf {
    let mut path = Path::new("tile").join(kind);
    let mut groups = vec![format!("{:03}", number % 1_000)];
    let mut rest = number / 1_000;
    while rest > 0 {
        groups.push(format!("x{:03}", rest % 1_000));
        rest /= 1_000;
    }
    if width < WIDTH
        && let Some(last) = groups.first_mut()
    {
        last.push_str(".p");
    }
    path.extend(groups.iter().rev());
    if width < WIDTH { path.join(width.to_string()) } else { path }
}

/// Entries as the bytes of a bundle: each has its length before it, in two bytes, the greater first.
#[must_use]
pub fn bundle<'e>(entries: impl IntoIterator<Item = &'e [u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        let length = u16::try_from(entry.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(entry.get(..usize::from(length)).unwrap_or_default());
    }
    bytes
}

/// The entries at the beginning of a bundle, as far as they can be read.
pub fn entries(bundle: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bundle;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (entry, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        rest = after;
        Some(entry)
    })
}

/// A file of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Where it stands in the ledger's directory.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The files that are not whole yet, as the tree grows.
#[derive(Debug, Clone, Default)]
pub struct Tiles {
    /// How many entries there are.
    size: u64,
    bundle: Vec<u8>,
    levels: Vec<Level>,
}

#[derive(Debug, Clone, Default)]
struct Level {
    /// The number of the tile.
    number: u64,
    hashes: Vec<Hash>,
}

impl Level {
    fn bytes(&self) -> Vec<u8> {
        self.hashes.concat()
    }
}

impl Tiles {
    /// Adds an entry of at most [`BYTES_MAX`] bytes. The files that are whole by it.
    pub fn push(&mut self, entry: &[u8]) -> Vec<Part> {
        debug_assert!(entry.len() <= BYTES_MAX);
        let mut whole = Vec::new();
        self.bundle.extend_from_slice(&bundle([entry]));
        let number = self.size / WIDTH as u64;
        self.size += 1;
        if self.size.is_multiple_of(WIDTH as u64) {
            whole.push(Part { path: bundle_path(number, WIDTH), bytes: std::mem::take(&mut self.bundle) });
        }
        whole.extend(self.push_hash(leaf(entry)));
        whole
    }

    /// Passes over a whole bundle, by the hashes of its entries. Its files are there.
    pub(super) fn pass(&mut self, hashes: &[Hash]) {
        debug_assert!(hashes.len() == WIDTH && self.bundle.is_empty());
        self.size += hashes.len() as u64;
        for hash in hashes {
            let _ = self.push_hash(*hash);
        }
    }

    /// Adds the hash of an entry. The tiles that are whole by it.
    fn push_hash(&mut self, mut hash: Hash) -> Vec<Part> {
        let mut whole = Vec::new();
        for depth in 0.. {
            if self.levels.len() == depth {
                self.levels.push(Level::default());
            }
            let Some(level) = self.levels.get_mut(depth) else { break };
            level.hashes.push(hash);
            if level.hashes.len() < WIDTH {
                break;
            }
            whole.push(Part { path: tile_path(depth, level.number, WIDTH), bytes: level.bytes() });
            hash = perfect(&level.hashes);
            *level = Level { number: level.number + 1, hashes: Vec::new() };
        }
        whole
    }

    /// The files at the right edge, which are not whole.
    #[must_use]
    pub fn edge(&self) -> Vec<Part> {
        let mut edge = Vec::new();
        let width = usize::try_from(self.size % WIDTH as u64).unwrap_or(0);
        if width > 0 {
            let path = bundle_path(self.size / WIDTH as u64, width);
            edge.push(Part { path, bytes: self.bundle.clone() });
        }
        for (depth, level) in self.levels.iter().enumerate().filter(|(_, level)| !level.hashes.is_empty()) {
            let path = tile_path(depth, level.number, level.hashes.len());
            edge.push(Part { path, bytes: level.bytes() });
        }
        edge
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::tree::Frontier;
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        let shown = |path: PathBuf| path.display().to_string();
        assert_eq!(shown(tile_path(0, 1_234_067, WIDTH)), "tile/0/x001/x234/067");
        assert_eq!(shown(tile_path(2, 7, 3)), "tile/2/007.p/3");
        assert_eq!(shown(bundle_path(1_000, 255)), "tile/entries/x001/000.p/255");
        assert_eq!(shown(bundle_path(999, WIDTH)), "tile/entries/999");
    }

    #[test]
    fn bundles_are_read_as_they_are_written() {
        let all: [&[u8]; 3] = [b"one", b"", b"three"];
        let bytes = bundle(all);
        assert_eq!(bytes, b"\0\x03one\0\0\0\x05three");
        assert_eq!(entries(&bytes).collect::<Vec<_>>(), all);
        assert_eq!(entries(&bytes[..bytes.len() - 1]).count(), 2);
    }

    #[test]
    fn the_tiles_hold_the_tree() {
        let (mut tiles, mut frontier, mut files) = (Tiles::default(), Frontier::default(), BTreeMap::new());
        let size = 256 * 256 + 256 * 3 + 5;
        for number in 0..size as u32 {
            let entry = number.to_le_bytes();
            frontier.push(leaf(&entry));
            files.extend(tiles.push(&entry).into_iter().map(|part| (part.path, part.bytes)));
        }
        files.extend(tiles.edge().into_iter().map(|part| (part.path, part.bytes)));
        let hashes =
            |path: PathBuf| -> Vec<Hash> { files[&path].chunks(32).map(|hash| hash.try_into().unwrap()).collect() };
        // From the top: one hash of 65,536 entries, three of 256, five entries.
        let mut from_tiles = Frontier::default();
        hashes(tile_path(2, 0, 1)).into_iter().for_each(|hash| from_tiles.push_tree(16, hash));
        hashes(tile_path(1, 1, 3)).into_iter().for_each(|hash| from_tiles.push_tree(8, hash));
        hashes(tile_path(0, 259, 5)).into_iter().for_each(|hash| from_tiles.push(hash));
        assert_eq!(from_tiles, frontier);
        assert_eq!(entries(&files[&bundle_path(259, 5)]).count(), 5);
        assert_eq!(files.len(), 260 * 2 + 2 + 1);
    }
}
