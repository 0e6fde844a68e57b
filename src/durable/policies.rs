//! The policies that were in force, as files of their own, `policies/DIGEST.json`: records in open windows may have been
//! decided under them, and a person may want them back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::binary::hex;
use crate::domain::document::{Problems, Source};
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::policy::{self, Digest, Here, Known};
use crate::storage::{Error, FileSystem, create_directories, read_file, write_file_durably};

/// The largest file that is read.
const BYTES_MAX: u64 = 1 << 30;

/// What is kept of a version.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Every regime that was ever served under it.
    serves: BTreeSet<String>,
    files: Vec<KeptFile>,
}

#[derive(Serialize, Deserialize)]
struct KeptFile {
    path: String,
    text: String,
}

/// The policies that were in force, in a directory.
pub struct Archive {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
}

impl Archive {
    /// The archive in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn open(fs: Arc<dyn FileSystem>, directory: PathBuf) -> Result<Self, Error> {
        create_directories(&*fs, &directory)?;
        Ok(Self { fs, directory })
    }

    /// The archive in a directory, to be read only: nothing is made if it is not there.
    #[must_use]
    pub fn beside(fs: Arc<dyn FileSystem>, directory: PathBuf) -> Self {
        Self { fs, directory }
    }

    /// Keeps a version. Returns when it is on disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(&self, digest: Digest, files: &[Arc<Source>], here: &Here) -> Result<(), Error> {
        let path = self.directory.join(name(digest));
        let before = self.read(&path)?.map(|kept| kept.serves).unwrap_or_default();
        let serves = before.into_iter().chain(here.serves.iter().cloned()).collect();
        let files = files.iter().map(|file| KeptFile { path: file.path.clone(), text: file.text.clone() });
        let kept = Kept { serves, files: files.collect() };
        // Strings in lists: there is nothing in them that could fail.
        let bytes = serde_json::to_vec(&kept).unwrap_or_default();
        write_file_durably(&*self.fs, &path, &bytes)
    }

    /// Every version that is kept, with the regimes that were served under it. What cannot be read is said in the log: what
    /// was decided under it does not leave.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn all(&self, country: Jurisdiction) -> Result<Known, Error> {
        let unlisted = |source| Error::Io { doing: "list", path: self.directory.clone(), source };
        let names = self.fs.list(&self.directory).map_err(unlisted)?;
        let mut all = Known::new();
        for (name, _) in names {
            if !name.ends_with(".json") {
                continue;
            }
            let path = self.directory.join(&name);
            let kept = match self.read(&path) {
                Ok(Some(kept)) => kept,
                Ok(None) => continue,
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    tracing::error!(
                        error = format!("{error:#}"),
                        "policies that were in force cannot be read: windows that they decided are not released. \
                         Check the file's rights and the disk"
                    );
                    continue;
                }
            };
            let files: Vec<Arc<Source>> =
                kept.files.into_iter().map(|file| Arc::new(Source::new(file.path, file.text))).collect();
            let problems = Problems::default();
            let policy = policy::read_kept(&files, &problems);
            if problems.any_error() {
                tracing::error!(file = %path.display(), "policies that were in force are not policies of this \
                 version: windows that they decided are not released. Go on with the version that wrote them until \
                 its windows are closed");
                continue;
            }
            let here = Here { country, serves: kept.serves.into_iter().collect(), peers: Vec::new(), own: None };
            all.insert(policy.digest, (Arc::new(policy), Arc::new(here)));
        }
        Ok(all)
    }

    fn read(&self, path: &Path) -> Result<Option<Kept>, Error> {
        let Some(bytes) = read_file(&*self.fs, path, BYTES_MAX)? else { return Ok(None) };
        let kept = serde_json::from_slice(&bytes);
        kept.map(Some).map_err(|error| Error::Io { doing: "read", path: path.to_owned(), source: error.into() })
    }
}

fn name(digest: Digest) -> String {
    format!("{}.json", hex(digest.bytes()))
}
