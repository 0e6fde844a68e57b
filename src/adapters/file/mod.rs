//! The `file` destination: whole files only. Releases wait in memory until a file is due, by size or by
//! age; then it is written under a temporary name, synced, renamed, and the directory is synced. A
//! reader never sees a half-written file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use arrow_schema::ArrowError;

use crate::domain::policy::Released;
use crate::encode::{self, Format};

/// Where files go and when they are due.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory; one subdirectory per dataset is made in it.
    pub directory: PathBuf,
    /// The files' format.
    pub format: Format,
    /// A file is due when its cells take about this many bytes in memory.
    pub rotate_bytes: usize,
    /// A file is due when its oldest release has waited this long.
    pub rotate_after: Duration,
}

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("cannot write {path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The columns could not be encoded.
    #[error("cannot encode a release")]
    Encode(#[from] ArrowError),
}

/// The destination.
pub struct Sink {
    settings: Settings,
    waiting: BTreeMap<String, Waiting>,
}

struct Waiting {
    releases: Vec<Released>,
    bytes: usize,
    since: Duration,
}

impl Sink {
    /// A destination that has written nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, waiting: BTreeMap::new() }
    }

    /// Takes a release, at a monotonic time.
    pub fn take(&mut self, released: Released, now: Duration) {
        let waiting = self.waiting.entry(released.dataset().to_owned()).or_insert_with(|| Waiting {
            releases: Vec::new(),
            bytes: 0,
            since: now,
        });
        waiting.bytes += released.cells().get_array_memory_size();
        waiting.releases.push(released);
    }

    /// Writes the files that are due, or all. The bytes written. What cannot be written waits on.
    ///
    /// # Errors
    /// When a file cannot be written; the other files are.
    pub fn write_due(&mut self, now: Duration, all: bool) -> Result<usize, Error> {
        let mut written = 0;
        let mut result = Ok(());
        self.waiting.retain(|dataset, waiting| {
            let is_due = all
                || waiting.bytes >= self.settings.rotate_bytes
                || now.saturating_sub(waiting.since) >= self.settings.rotate_after;
            if !is_due {
                return true;
            }
            match write(&self.settings, dataset, &waiting.releases) {
                Ok(bytes) => {
                    written += bytes;
                    false
                }
                Err(error) => {
                    result = Err(error);
                    true
                }
            }
        });
        result.map(|()| written)
    }
}

/// The name of a file: its first window's start and its first release's id, so that it is unique, sorts by
/// time, and the same releases make the same name.
fn write(settings: &Settings, dataset: &str, releases: &[Released]) -> Result<usize, Error> {
    let Some(first) = releases.first() else { return Ok(0) };
    let directory = settings.directory.join(dataset);
    let start = encode::rfc3339(first.window_start()).replace([':', '-'], "");
    let name = format!("{start}-{}.{}", first.id(), settings.format.extension());
    let path = directory.join(&name);
    let temporary = directory.join(format!(".{name}.part"));
    let bytes = encode::file(releases, settings.format)?;
    let io = |source| Error::Io { path: path.clone(), source };
    fs::create_dir_all(&directory).map_err(io)?;
    let mut file = File::create(&temporary).map_err(io)?;
    file.write_all(&bytes).map_err(io)?;
    file.sync_all().map_err(io)?;
    fs::rename(&temporary, &path).map_err(io)?;
    File::open(&directory).and_then(|directory| directory.sync_all()).map_err(io)?;
    Ok(bytes.len())
}
