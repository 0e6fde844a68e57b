//! What a witness remembers: of each ledger, the last checkpoint that it cosigned. It is a file of the ledger in the witness's
//! directory, and it is kept in memory too, so that a directory that goes away while the witness runs is noticed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{anyhow, bail};
use sha2::{Digest as _, Sha256};

use super::super::cosignature::Witness;
use super::super::note::{Checkpoint, NoteError, Verifier};
use crate::domain::binary::hex;
use crate::storage::{self, Error, FileSystem, Lock, create_directories, read_file, write_file_durably};

/// The largest file with a checkpoint.
pub(super) const NOTE_BYTES_MAX: usize = 16 << 10;
/// What the file of a ledger holds of which nothing was cosigned yet.
const NOTHING: &str = "bailiwick witness 1: nothing is cosigned yet\n";

/// The memory of a witness. No other process uses its directory meanwhile.
pub struct Memory {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    /// What is durable, by file. A ledger whose file could not be used at the start is not here.
    known: BTreeMap<PathBuf, Option<Checkpoint>>,
    _lock: Box<dyn Lock>,
}

/// What a file says.
enum Said {
    /// There is none.
    Missing,
    /// That nothing was cosigned.
    Nothing,
    /// What was cosigned, as a note and as what it says.
    Cosigned(String, Checkpoint),
}

impl Memory {
    /// That in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// When the directory cannot be made, or another process uses it.
    pub fn open(fs: Arc<dyn FileSystem>, directory: &Path) -> anyhow::Result<Self> {
        create_directories(&*fs, directory)?;
        let Some(lock) = storage::hold(&*fs, directory)? else { bail!("{} is gone", directory.display()) };
        Ok(Self { fs, directory: directory.to_owned(), known: BTreeMap::new(), _lock: lock })
    }

    /// Begins to remember a ledger, or goes on to. What it remembers of it is durable then, under the name of today.
    ///
    /// # Errors
    /// When that cannot be used or written.
    pub(super) fn begin(&mut self, ledger: &Verifier, witness: &Witness) -> anyhow::Result<()> {
        let path = self.path(ledger);
        let (text, checkpoint) = match self.read(ledger, witness)? {
            Said::Cosigned(text, checkpoint) => (text, Some(checkpoint)),
            Said::Missing | Said::Nothing => (NOTHING.to_owned(), None),
        };
        write_file_durably(&*self.fs, &path, text.as_bytes())?;
        self.known.insert(path, checkpoint);
        Ok(())
    }

    /// The last checkpoint that was cosigned of a ledger; `None`: none was.
    ///
    /// # Errors
    /// When the file cannot be used, or says less than is known to be cosigned.
    pub(super) fn last(&self, ledger: &Verifier, witness: &Witness) -> anyhow::Result<Option<Checkpoint>> {
        let path = self.path(ledger);
        let known = self.known.get(&path).and_then(Option::as_ref);
        let last = match self.read(ledger, witness)? {
            Said::Missing => None,
            Said::Nothing => Some(None),
            Said::Cosigned(_, checkpoint) => Some(Some(checkpoint)),
        };
        match (last, known) {
            (Some(last), None) => Ok(last),
            (Some(Some(last)), Some(known)) if last.size > known.size || last == *known => Ok(Some(last)),
            // To go on from it would be to cosign a second history.
            _ => bail!(
                "{} is gone, or says less of `{}` than this witness has cosigned: put the directory back as it was",
                path.display(),
                ledger.name()
            ),
        }
    }

    /// Whether a checkpoint is the last that was cosigned, and that is durable.
    pub(super) fn has(&self, ledger: &Verifier, checkpoint: &Checkpoint) -> bool {
        self.known.get(&self.path(ledger)).and_then(Option::as_ref) == Some(checkpoint)
    }

    /// Remembers a checkpoint, durably. `text` is its note, with the witness's own line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn remember(&mut self, ledger: &Verifier, checkpoint: Checkpoint, text: &str) -> Result<(), Error> {
        let path = self.path(ledger);
        write_file_durably(&*self.fs, &path, text.as_bytes())?;
        self.known.insert(path, Some(checkpoint));
        Ok(())
    }

    /// The file of a ledger. A name may hold slashes, so the file has a hash: that of the name and the key, since a ledger
    /// that follows a retired one has the same name.
    fn path(&self, ledger: &Verifier) -> PathBuf {
        self.file(&ledger.to_string())
    }

    fn file(&self, of: &str) -> PathBuf {
        self.directory.join(hex(&Sha256::digest(of)))
    }

    fn read(&self, ledger: &Verifier, witness: &Witness) -> anyhow::Result<Said> {
        let found = self.read_at(&self.path(ledger), ledger, witness)?;
        if !matches!(found, Said::Missing) {
            return Ok(found);
        }
        // Earlier, the file was named by the ledger's name alone.
        self.read_at(&self.file(ledger.name()), ledger, witness)
    }

    fn read_at(&self, path: &Path, ledger: &Verifier, witness: &Witness) -> anyhow::Result<Said> {
        let Some(bytes) = read_file(&*self.fs, path, NOTE_BYTES_MAX as u64)? else { return Ok(Said::Missing) };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if text == NOTHING {
            return Ok(Said::Nothing);
        }
        let is_cosigned = witness.cosigned(&text).is_some();
        match ledger.open(&text) {
            Ok(checkpoint) if is_cosigned => Ok(Said::Cosigned(text, checkpoint)),
            // It is of a ledger of the same name with another key.
            Err(NoteError::NotSigned(_)) if is_cosigned && *path == self.file(ledger.name()) => Ok(Said::Missing),
            // To begin anew would be to cosign a second history.
            _ => Err(anyhow!(
                "{} is not a checkpoint of `{}` that this witness cosigned: put it back from a copy",
                path.display(),
                ledger.name()
            )),
        }
    }
}
