//! The policy files: found and read, within limits. What is read may be anything.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::adapters::knowledge::files;
use crate::domain::document::{Problems, Source, Spot};

use super::Unreadable;

/// The largest configuration or policy file.
const BYTES_MAX: u64 = 1 << 20;
/// The most policy files, and the deepest directory of them.
pub(super) const FILES_MAX: usize = 1_000;
pub(super) const DEPTH_MAX: usize = 8;

/// Which files of a directory are meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// Policies.
    Policies,
    /// The tests that stand beside them.
    Tests,
}

impl Which {
    fn of(name: &str) -> Option<Self> {
        match name {
            name if name.ends_with(".test.toml") => Some(Self::Tests),
            name if name.ends_with(".toml") => Some(Self::Policies),
            _ => None,
        }
    }
}

/// The policy files that are named; a directory stands for every `.toml` file in and below it that is no test.
pub(super) fn read(named: &[Spot<String>], base: &Path, problems: &Problems) -> Vec<Arc<Source>> {
    let mut files = Vec::new();
    for policy in named {
        let before = files.len();
        let path = base.join(&policy.value);
        match find(Which::Policies, (&path, &path), 0, &mut files) {
            Ok(()) if files.len() == before => {
                problems.error(&policy.place, format!("`{}` holds no .toml file", policy.value));
            }
            Ok(()) => {}
            Err(error) => problems.error(&policy.place, format!("{:#}", anyhow::Error::from(error))),
        }
    }
    files
}

/// The tests that stand beside policies: a file that is one, or every one in and below a directory.
pub(super) fn tests(path: &Path) -> Result<Vec<Arc<Source>>, Unreadable> {
    let mut files = Vec::new();
    let is_test = || Which::of(&path.to_string_lossy()) == Some(Which::Tests);
    if path.is_dir() || is_test() {
        find(Which::Tests, (path, path), 0, &mut files)?;
    }
    Ok(files)
}

/// A file's text.
pub(super) fn source(path: &Path) -> Result<Arc<Source>, Unreadable> {
    source_of(path, path)
}

/// The text of a file, which is called `shown`.
fn source_of(path: &Path, shown: &Path) -> Result<Arc<Source>, Unreadable> {
    let (bytes, _) = files::read(path, BYTES_MAX)?;
    let text = String::from_utf8(bytes).map_err(|_| Unreadable::NotText(shown.to_owned()))?;
    Ok(Arc::new(Source { path: shown.display().to_string(), text }))
}

/// Reads what is at `path`, which is called `shown`.
fn find(
    which: Which,
    (path, shown): (&Path, &Path),
    depth: usize,
    files: &mut Vec<Arc<Source>>,
) -> Result<(), Unreadable> {
    if !path.is_dir() {
        if files.len() == FILES_MAX {
            return Err(Unreadable::TooMany(shown.to_owned()));
        }
        files.push(source_of(path, shown)?);
        return Ok(());
    }
    if depth == DEPTH_MAX {
        return Err(Unreadable::TooDeep(shown.to_owned()));
    }
    let unreadable = |source| Unreadable::Directory { path: shown.to_owned(), source };
    // A link is followed once: turned to another directory meanwhile, it does not mix the two.
    let directory = path.canonicalize().map_err(unreadable)?;
    let entries = fs::read_dir(&directory).map_err(unreadable)?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>().map_err(unreadable)?;
    paths.sort();
    for path in paths {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // Mounted directories hold what they show also under hidden names.
        let is_hidden = name.starts_with('.');
        if !is_hidden && (path.is_dir() || Which::of(&name) == Some(which)) {
            find(which, (&path, &shown.join(name)), depth + 1, files)?;
        }
    }
    Ok(())
}
