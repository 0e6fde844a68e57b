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

/// Tests that stand beside the policies are none.
pub(super) const TESTS: &str = ".test.toml";

/// The policy files that are named; a directory stands for every `.toml` file in and below it that is no test.
pub(super) fn read(named: &[Spot<String>], base: &Path, problems: &Problems) -> Vec<Arc<Source>> {
    let mut files = Vec::new();
    for policy in named {
        let before = files.len();
        let path = base.join(&policy.value);
        match find(&path, &path, 0, &mut files) {
            Ok(()) if files.len() == before => {
                problems.error(&policy.place, format!("`{}` holds no .toml file", policy.value));
            }
            Ok(()) => {}
            Err(error) => problems.error(&policy.place, format!("{:#}", anyhow::Error::from(error))),
        }
    }
    files
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
fn find(path: &Path, shown: &Path, depth: usize, files: &mut Vec<Arc<Source>>) -> Result<(), Unreadable> {
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
        if path.is_dir() || name.ends_with(".toml") && !name.ends_with(TESTS) {
            find(&path, &shown.join(name), depth + 1, files)?;
        }
    }
    Ok(())
}
