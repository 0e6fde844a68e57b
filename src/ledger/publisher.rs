//! From the log into tiles: static files that anybody can copy, and a signed checkpoint that covers them.
//!
//! The order: bundles and tiles, then the checkpoint, then the gateway's own copy of it. After a crash in between, the
//! same files are written again. Files that are not whole are removed when two checkpoints have been written since, so
//! that whoever reads has the time of one.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::files::{CHECKPOINT, Files};
use super::tile::{Part, Tiles};
use crate::storage::Error;

pub(super) struct Publisher {
    files: Files,
    seen: PathBuf,
    tiles: Tiles,
    /// Whole files that are not written yet.
    whole: Vec<Part>,
    /// The newest checkpoint, which covers all that was taken.
    checkpoint: String,
    is_behind: bool,
    /// The folders that are there for good.
    folders: BTreeSet<PathBuf>,
    /// The edges of the last two checkpoints.
    edges: [Vec<PathBuf>; 2],
}

impl Publisher {
    /// One that goes on where the tiles are.
    pub(super) fn new(files: Files, seen: PathBuf, tiles: Tiles) -> Self {
        let edge = tiles.edge().into_iter().map(|part| part.path).collect();
        let (whole, checkpoint) = (Vec::new(), String::new());
        Self {
            files,
            seen,
            tiles,
            whole,
            checkpoint,
            is_behind: false,
            folders: BTreeSet::new(),
            edges: [Vec::new(), edge],
        }
    }

    /// Takes entries, and the checkpoint that covers them.
    pub(super) fn take(&mut self, entries: Vec<Vec<u8>>, checkpoint: &str) {
        self.is_behind |= !entries.is_empty();
        self.whole.extend(entries.iter().flat_map(|entry| self.tiles.push(entry)));
        checkpoint.clone_into(&mut self.checkpoint);
    }

    /// Writes what was taken. Whether there was anything.
    pub(super) fn publish(&mut self) -> Result<bool, Error> {
        if !self.is_behind {
            return Ok(false);
        }
        let edge = self.tiles.edge();
        for part in self.whole.iter().chain(&edge) {
            self.files.write(part, &mut self.folders)?;
        }
        let checkpoint = Part { path: CHECKPOINT.into(), bytes: self.checkpoint.clone().into_bytes() };
        self.files.write(&checkpoint, &mut self.folders)?;
        self.files.write_beside(&self.seen, &self.checkpoint)?;
        self.whole.clear();
        self.is_behind = false;
        let edge: Vec<PathBuf> = edge.into_iter().map(|part| part.path).collect();
        let [before, last] = std::mem::take(&mut self.edges);
        for path in before.iter().filter(|path| !last.contains(path) && !edge.contains(path)) {
            self.files.remove(path);
            if let Some(folder) = path.parent()
                && !last.iter().chain(&edge).any(|path| path.starts_with(folder))
            {
                self.files.remove_folder(folder, &mut self.folders);
            }
        }
        self.edges = [last, edge];
        Ok(true)
    }
}
