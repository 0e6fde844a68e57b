//! Where the parts of a ledger stand in its directory, and how they are read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::BYTES_MAX;
use super::tile::{Part, WIDTH};
use crate::storage::{self, Damage, Error, FileSystem, Reader};

/// The signed checkpoint that the tiles belong to.
pub const CHECKPOINT: &str = "checkpoint";
/// The public key.
pub const VERIFIER: &str = "verifier";
/// What is durable and not in tiles yet.
pub(super) const LOG: &str = "log";
/// Checkpoints that witnesses have cosigned, by the ids of their keys.
pub const WITNESSED: &str = "witness";

/// The largest file of a tree: a bundle of the longest entries.
const FILE_BYTES_MAX: u64 = (WIDTH * (BYTES_MAX + 2)) as u64;
/// The largest note.
const NOTE_BYTES_MAX: u64 = 16 << 10;

/// A ledger's directory.
#[derive(Clone)]
pub struct Files {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
}

impl Files {
    /// Those of a directory.
    #[must_use]
    pub fn new(fs: Arc<dyn FileSystem>, directory: &Path) -> Self {
        Self { fs, directory: directory.to_owned() }
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A small text of the directory, such as [`CHECKPOINT`]; `None` if there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn text(&self, name: &str) -> Result<Option<String>, Error> {
        let bytes = storage::read_file(&*self.fs, &self.directory.join(name), NOTE_BYTES_MAX)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The newest checkpoint that a witness has cosigned, by the id of its key; `None`: there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn cosigned(&self, witness: &str) -> Result<Option<String>, Error> {
        self.text(&format!("{WITNESSED}/{witness}"))
    }

    /// Keeps a checkpoint that a witness has cosigned, durably.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_cosigned(&self, witness: &str, note: &str) -> Result<(), Error> {
        let folder = self.directory.join(WITNESSED);
        storage::create_directories_below(&*self.fs, &self.directory, &folder)?;
        storage::write_file_durably(&*self.fs, &folder.join(witness), note.as_bytes())
    }

    /// Writes a public key, durably.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_verifier(&self, key: &str) -> Result<(), Error> {
        storage::write_file_durably(&*self.fs, &self.directory.join(VERIFIER), format!("{key}\n").as_bytes())
    }

    /// A tile or bundle that had `width` parts at least; `None` if there is none. One that is whole by now stands for one
    /// that is not.
    pub(super) fn tile(&self, path: &Path, width: usize) -> Result<Option<Vec<u8>>, Error> {
        let found = self.read(path)?;
        if found.is_some() || width == WIDTH {
            return Ok(found);
        }
        let whole = path.parent().and_then(|folder| Some(folder.with_file_name(folder.file_stem()?)));
        whole.map_or(Ok(None), |whole| self.read(&whole))
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, Error> {
        storage::read_file(&*self.fs, &self.directory.join(path), FILE_BYTES_MAX)
    }

    /// Writes a file of the tree, durably. `folders` are those that are known to be there for good.
    pub(super) fn write(&self, part: &Part, folders: &mut BTreeSet<PathBuf>) -> Result<(), Error> {
        let path = self.directory.join(&part.path);
        if let Some(folder) = path.parent()
            && !folders.contains(folder)
        {
            storage::create_directories_below(&*self.fs, &self.directory, folder)?;
            folders.insert(folder.to_owned());
        }
        let written = storage::write_file_durably(&*self.fs, &path, &part.bytes);
        if written.is_err() {
            // It may be that a folder was removed.
            folders.clear();
        }
        written
    }

    /// Writes a text that stands elsewhere, durably.
    pub(super) fn write_beside(&self, path: &Path, text: &str) -> Result<(), Error> {
        storage::write_file_durably(&*self.fs, path, text.as_bytes())
    }

    /// Removes a file that nothing needs any more. That it cannot be removed harms nothing.
    pub(super) fn remove(&self, path: &Path) {
        let _ = self.fs.remove(&self.directory.join(path));
    }

    /// Removes a folder of the tree that nothing stands in any more. That it cannot be removed harms nothing.
    pub(super) fn remove_folder(&self, folder: &Path, folders: &mut BTreeSet<PathBuf>) {
        let folder = self.directory.join(folder);
        if self.fs.remove_dir(&folder).is_ok() {
            folders.remove(&folder);
        }
    }

    /// What the log before the tiles holds, and what of it is damaged.
    pub(super) fn log(&self) -> Result<(Reader, Vec<Damage>), Error> {
        let log = self.directory.join(LOG);
        let damage = storage::inspect(&*self.fs, &log, 0)?.damage;
        Ok((storage::entries(Arc::clone(&self.fs), &log)?, damage))
    }

    /// Whether there is anything of a ledger: what somebody signed, or a log that should hold it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_there(&self) -> Result<bool, Error> {
        if self.text(CHECKPOINT)?.is_some() {
            return Ok(true);
        }
        let (mut log, damage) = self.log()?;
        Ok(!damage.is_empty() || log.next().is_ok_and(|first| first.is_some()))
    }
}
