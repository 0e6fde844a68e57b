//! The `file` destination: whole files only. Releases wait in memory until a file is due, by size or by
//! age; then it is written under a temporary name, synced, renamed, and the directory is synced. A
//! reader never sees a half-written file.
//!
//! A file is named after its first release, so a file that is written again, after a crash, takes the place
//! of itself.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::name::DatasetName;
use crate::domain::policy::{Reduction, Released};
use crate::domain::table::Fingerprint;
use crate::egress::encode::{self, Format};
use crate::storage::{self, FileSystem, Lsn, create_directories, write_shared_file_durably};

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
    /// The files' mode, whatever the process's umask.
    pub mode: u32,
    /// The files' group; `None`: as the system makes it.
    pub group: Option<u32>,
}

/// The mode of files where nothing else is asked for: their owner writes, their group reads.
pub const MODE: u32 = 0o640;

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("cannot write a file of releases")]
    Io(#[from] storage::Error),
    /// The columns could not be encoded.
    #[error("cannot encode a release")]
    Encode(#[from] encode::Error),
}

/// A file that is not written yet.
#[derive(Clone)]
pub struct Made {
    /// Its dataset.
    pub dataset: DatasetName,
    /// Where it will be.
    path: PathBuf,
    /// What it holds.
    pub bytes: Vec<u8>,
    /// The releases in it, as they leave.
    pub releases: Vec<Released>,
    /// In which form they do.
    pub form: Reduction,
    /// A hash of where it will be and what it holds: the very same file has the very same one.
    pub content: Fingerprint,
}

/// The destination.
pub struct Sink {
    settings: Settings,
    fs: Arc<dyn FileSystem>,
    /// By dataset.
    waiting: BTreeMap<DatasetName, Waiting>,
}

/// Releases of a dataset that wait, in order: those that the next file holds, and those behind it.
struct Waiting {
    releases: Vec<Released>,
    /// Where each of them stands.
    stand: Vec<Lsn>,
    /// What is held back for a file behind the next one.
    later: Vec<(Lsn, Released)>,
    bytes: usize,
    since: Duration,
}

impl Waiting {
    fn new(since: Duration) -> Self {
        Self { releases: Vec::new(), stand: Vec::new(), later: Vec::new(), bytes: 0, since }
    }

    fn take(&mut self, lsn: Lsn, released: Released) {
        if !self.later.is_empty() {
            self.later.push((lsn, released));
            return;
        }
        self.bytes += released.cells().get_array_memory_size();
        self.stand.push(lsn);
        self.releases.push(released);
    }

    /// Holds back the later half, in whole entries of the outbox. Whether there was more than one entry.
    fn halve(&mut self) -> bool {
        let middle = self.stand.len() / 2;
        let Some(entry) = self.stand.get(middle).copied() else { return false };
        let before = self.stand.partition_point(|lsn| *lsn < entry);
        let from = if before > 0 { before } else { self.stand.partition_point(|lsn| *lsn <= entry) };
        if from == self.stand.len() {
            return false;
        }
        let back: Vec<_> = self.stand.drain(from..).zip(self.releases.drain(from..)).collect();
        let bytes: usize = back.iter().map(|(_, released)| released.cells().get_array_memory_size()).sum();
        self.bytes -= bytes;
        self.later.splice(0..0, back);
        true
    }
}

impl Sink {
    /// A destination that has written nothing yet.
    #[must_use]
    pub fn new(settings: Settings, fs: Arc<dyn FileSystem>) -> Self {
        Self { settings, fs, waiting: BTreeMap::new() }
    }

    /// Takes a release that stands in the outbox at `lsn`, at a monotonic time.
    pub fn take(&mut self, lsn: Lsn, released: Released, now: Duration) {
        let waiting = self.waiting.entry(released.dataset().clone()).or_insert_with(|| Waiting::new(now));
        waiting.take(lsn, released);
    }

    /// Holds back the later half of what a dataset's file would hold, in whole entries of the outbox: it waits for the file
    /// behind it. Whether there was more than one entry.
    pub fn halve(&mut self, dataset: &DatasetName) -> bool {
        self.waiting.get_mut(dataset).is_some_and(Waiting::halve)
    }

    /// Whether the cells of a release have other columns than those of its dataset that wait: they were declared otherwise.
    /// One file has the same columns in all its cells.
    #[must_use]
    pub fn differs(&self, released: &Released) -> bool {
        let waiting = self.waiting(released.dataset()).first();
        waiting.is_some_and(|waiting| waiting.cells().schema() != released.cells().schema())
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether a dataset's file is due because of its size.
    #[must_use]
    pub fn is_large(&self, dataset: &DatasetName) -> bool {
        self.waiting.get(dataset).is_some_and(|waiting| waiting.bytes >= self.settings.rotate_bytes)
    }

    /// The datasets whose files are due, or all.
    #[must_use]
    pub fn due(&self, now: Duration, all: bool) -> Vec<DatasetName> {
        let is_due = |waiting: &Waiting| now.saturating_sub(waiting.since) >= self.settings.rotate_after;
        let due = self.waiting.iter().filter(|(dataset, waiting)| all || is_due(waiting) || self.is_large(dataset));
        due.map(|(dataset, _)| dataset.clone()).collect()
    }

    /// A dataset's releases that the next file holds, in order.
    #[must_use]
    pub fn waiting(&self, dataset: &DatasetName) -> &[Released] {
        self.waiting.get(dataset).map_or(&[], |waiting| &waiting.releases)
    }

    /// The first position of the releases that a dataset's next file holds.
    #[must_use]
    pub fn first(&self, dataset: &DatasetName) -> Option<Lsn> {
        self.waiting.get(dataset)?.stand.first().copied()
    }

    /// The last position of the releases that a dataset's next file holds.
    #[must_use]
    pub fn last(&self, dataset: &DatasetName) -> Option<Lsn> {
        self.waiting.get(dataset)?.stand.last().copied()
    }

    /// The first position of all releases that wait.
    #[must_use]
    pub fn first_waiting(&self) -> Option<Lsn> {
        self.waiting.values().filter_map(|waiting| waiting.stand.first().copied()).min()
    }

    /// The datasets whose releases wait, and how many of each.
    pub fn each_waiting(&self) -> impl Iterator<Item = (&DatasetName, usize)> {
        self.waiting.iter().map(|(dataset, waiting)| (dataset, waiting.releases.len() + waiting.later.len()))
    }

    /// Makes a dataset's file of what waits, in a form. Nothing is written yet.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn make(&self, dataset: &DatasetName, form: &Reduction) -> Result<Option<Made>, Error> {
        let releases = form.applied(self.waiting(dataset)).map_err(encode::Error::from)?;
        let Some(first) = releases.first() else { return Ok(None) };
        let bytes = encode::file(&releases, self.settings.format)?;
        let path = self.settings.directory.join(dataset.as_str()).join(name(first, self.settings.format));
        let content = Fingerprint::of(&[path.as_os_str().as_bytes(), &[0], &bytes].concat());
        Ok(Some(Made { dataset: dataset.clone(), path, releases, form: form.clone(), bytes, content }))
    }

    /// Writes a file. Its releases do not wait any more. If it cannot be written, they wait on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn put(&mut self, made: &Made) -> Result<(), Error> {
        create_directories(&*self.fs, &self.settings.directory.join(made.dataset.as_str()))?;
        let Settings { mode, group, .. } = self.settings;
        write_shared_file_durably(&*self.fs, &made.path, &made.bytes, mode, group)?;
        self.pass_over(&made.dataset);
        Ok(())
    }

    /// The releases that a dataset's next file holds do not wait any more. What was held back comes next.
    pub fn pass_over(&mut self, dataset: &DatasetName) {
        let Some(Waiting { later, since, .. }) = self.waiting.remove(dataset) else { return };
        let mut next = Waiting::new(since);
        later.into_iter().for_each(|(lsn, released)| next.take(lsn, released));
        if !next.releases.is_empty() {
            self.waiting.insert(dataset.clone(), next);
        }
    }
}

/// The name of a file: its first window's start and its first release's id, so that it is unique, sorts by
/// time, and the same releases make the same name.
fn name(first: &Released, format: Format) -> String {
    let start = encode::rfc3339(first.window_start()).replace([':', '-'], "");
    format!("{start}-{}.{}", first.id(), format.extension())
}
