//! The policy files: found and read, within limits. What is read may be anything.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::domain::document::{Problems, Source, Spot};
use crate::files;

use super::Unreadable;

/// The largest configuration or policy file.
const BYTES_MAX: u64 = 1 << 20;
/// The most policy files, and the deepest directory of them.
pub(super) const FILES_MAX: usize = 1_000;
pub(super) const DEPTH_MAX: usize = 8;
/// The most bytes of all policy files together.
pub(super) const ALL_BYTES_MAX: usize = 32 << 20;
/// The most entries of directories that are looked at for one path: links can make a few directories look like many.
pub(super) const ENTRIES_MAX: usize = 20_000;

/// Which files of a directory are meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
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

/// What was found below one path.
#[derive(Default)]
struct Found {
    files: Vec<Arc<Source>>,
    /// The bytes of the files, those found before included.
    bytes: usize,
    /// The entries of directories that were looked at.
    entries: usize,
}

/// The policy files that are named; a directory stands for every `.toml` file in and below it that is no test. `None`: one
/// cannot be read, and what it declares would only be said to be missing.
pub(super) fn read(named: &[Spot<String>], base: &Path, problems: &Problems) -> Option<Vec<Arc<Source>>> {
    let (mut found, mut is_whole) = (Found::default(), true);
    for policy in named {
        let before = found.files.len();
        found.entries = 0;
        let path = base.join(&policy.value);
        match find(Which::Policies, &path, &path, 0, &mut found) {
            Ok(()) if found.files.len() == before => {
                is_whole = false;
                problems.error(&policy.place, format!("`{}` holds no .toml file", policy.value));
            }
            Ok(()) => {}
            Err(error) => {
                is_whole = false;
                problems.error(&policy.place, format!("{:#}", anyhow::Error::from(error)));
            }
        }
    }
    is_whole.then_some(found.files)
}

/// The tests that stand beside policies: a file that is one, or every one in and below a directory.
pub(super) fn tests(path: &Path) -> Result<Vec<Arc<Source>>, Unreadable> {
    let mut found = Found::default();
    let is_test = || Which::of(&path.to_string_lossy()) == Some(Which::Tests);
    if path.is_dir() || is_test() {
        find(Which::Tests, path, path, 0, &mut found)?;
    }
    Ok(found.files)
}

/// A file's text.
pub(super) fn source(path: &Path) -> Result<Arc<Source>, Unreadable> {
    source_of(path, path)
}

/// The text of a file, which is called `shown`.
fn source_of(path: &Path, shown: &Path) -> Result<Arc<Source>, Unreadable> {
    let (bytes, _) = files::read(path, BYTES_MAX)?;
    let text = String::from_utf8(bytes).map_err(|_| Unreadable::NotText(shown.to_owned()))?;
    Ok(Arc::new(Source::new(shown.display().to_string(), text)))
}

/// Reads what is at `path`, which is called `shown`.
fn find(which: Which, path: &Path, shown: &Path, depth: usize, found: &mut Found) -> Result<(), Unreadable> {
    if !path.is_dir() {
        if found.files.len() == FILES_MAX {
            return Err(Unreadable::TooMany(shown.to_owned()));
        }
        let source = source_of(path, shown)?;
        found.bytes += source.text.len();
        if found.bytes > ALL_BYTES_MAX {
            return Err(Unreadable::TooLarge(shown.to_owned()));
        }
        found.files.push(source);
        return Ok(());
    }
    if depth == DEPTH_MAX {
        return Err(Unreadable::TooDeep(shown.to_owned()));
    }
    let unreadable = |source| Unreadable::Directory { path: shown.to_owned(), source };
    // A link is followed once: turned to another directory meanwhile, it does not mix the two.
    let directory = path.canonicalize().map_err(unreadable)?;
    let entries = fs::read_dir(&directory).map_err(unreadable)?;
    let mut paths = Vec::new();
    for entry in entries {
        found.entries += 1;
        if found.entries > ENTRIES_MAX {
            return Err(Unreadable::TooManyEntries(shown.to_owned()));
        }
        paths.push(entry.map_err(unreadable)?.path());
    }
    paths.sort();
    for path in paths {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // Mounted directories hold what they show also under hidden names.
        let is_hidden = name.starts_with('.');
        if !is_hidden && (path.is_dir() || Which::of(&name) == Some(which)) {
            find(which, &path, &shown.join(name), depth + 1, found)?;
        }
    }
    Ok(())
}
