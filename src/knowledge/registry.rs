//! Registries: a CSV file with a header, or a JSON array of objects (`*.json`), read into a [`Registry`].
//!
//! What is wrong is said with the line and the column's name, never with what stands there: keys name devices and people.
//! A file that is wrong anywhere is not loaded at all. A CSV file has to end with the end of a line: otherwise `US-CA`
//! that was cut off after `US` would look complete.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::domain::codes::Codes;
use crate::domain::fact::Fact;
use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::knowledge::Registry;
use crate::domain::quotes::{self, Misquoted};
use crate::files::{self, Fingerprint};

mod json;
#[cfg(test)]
mod tests;

/// The largest file, in bytes.
pub const BYTES_MAX: u64 = 256 << 20;
/// The most entries.
pub const ENTRIES_MAX: usize = 5_000_000;
/// The longest key, in bytes.
pub const KEY_MAX: usize = 1_024;

/// Which columns a registry is made of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Columns {
    /// The column of the keys.
    pub key: String,
    /// The columns that say facts.
    pub facts: BTreeMap<Fact, String>,
    /// The codes that there are.
    pub codes: Arc<Codes>,
}

/// Why a registry was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file was not read.
    #[error(transparent)]
    File(#[from] files::Error),
    /// Something is wrong in the file.
    #[error("registry `{}`, line {line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        problem: Problem,
    },
}

/// What is wrong in a registry's file. Columns are named, contents are not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Problem {
    #[error("there is no column `{0}`; correct the file's header or the registry's declaration")]
    NoColumn(String),
    #[error("the column `{0}` is there twice; rename one")]
    ColumnTwice(String),
    #[error("the header is missing; the first line has to name the columns")]
    NoHeader,
    #[error("there are more or fewer values than columns; the file may be cut off, or a quote may be missing")]
    Width,
    #[error("the file does not end with the end of a line; it may be cut off, or add one")]
    CutOff,
    #[error("this is not UTF-8 text; convert the file")]
    NotText,
    #[error("column `{0}` has a control character; remove it")]
    Control(String),
    #[error("column `{0}` has no key; give every entry one")]
    NoKey(String),
    #[error("column `{0}` has a key of more than {KEY_MAX} bytes; shorten it")]
    LongKey(String),
    #[error("column `{0}` has a key that stood in an earlier line; keep one of the two")]
    KeyTwice(String),
    #[error(
        "column `{0}` has what is no ISO 3166-1 alpha-2 or ISO 3166-2 code; correct it, or leave it empty if it is not known"
    )]
    NoCode(String),
    #[error("column `{0}` has what is neither a text nor null; write it as a text")]
    NotAText(String),
    #[error("this is not a JSON array of objects; the file may be cut off")]
    NotJson,
    #[error("there are more than {0} entries, which is the most that is read; divide the registry")]
    TooMany(usize),
    #[error("it cannot be read as CSV")]
    NotCsv,
    #[error("{0}")]
    Misquoted(Misquoted),
}

/// Loads a registry.
///
/// # Errors
/// When the file cannot be read, or anything in it is wrong.
pub fn load(path: &Path, columns: &Columns) -> Result<(Registry, Fingerprint), Error> {
    let (bytes, fingerprint) = files::read(path, BYTES_MAX)?;
    let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let mut builder = Builder::new(columns, ENTRIES_MAX);
    let read = if is_json { json::read(&bytes, &mut builder) } else { read_csv(&bytes, &mut builder) };
    match read {
        Ok(()) => Ok((builder.registry, fingerprint)),
        Err((line, problem)) => Err(Error::Line { path: path.to_owned(), line, problem }),
    }
}

/// A registry that is being read.
struct Builder<'c> {
    columns: &'c Columns,
    /// The columns that are looked at: the key's, and the facts' in their order.
    names: Vec<&'c str>,
    facts: Vec<Fact>,
    entries_max: usize,
    registry: Registry,
}

impl<'c> Builder<'c> {
    fn new(columns: &'c Columns, entries_max: usize) -> Self {
        let facts: Vec<Fact> = columns.facts.keys().copied().collect();
        let names = std::iter::once(&columns.key).chain(columns.facts.values()).map(String::as_str).collect();
        Self { columns, names, registry: Registry::new(facts.clone()), facts, entries_max }
    }

    /// Adds an entry: the texts of `names`.
    fn add<'t>(&mut self, texts: impl IntoIterator<Item = &'t str>) -> Result<(), Problem> {
        let mut texts = texts.into_iter();
        let column = || self.columns.key.clone();
        let key = texts.next().unwrap_or_default();
        if key.contains(char::is_control) {
            return Err(Problem::Control(column()));
        }
        if key.trim().is_empty() {
            return Err(Problem::NoKey(column()));
        }
        if key.len() > KEY_MAX {
            return Err(Problem::LongKey(column()));
        }
        let facts = self.facts.iter().zip(self.names.iter().skip(1)).zip(texts);
        let codes = facts
            .map(|((fact, column), text)| codes(&self.columns.codes, *fact, column, text))
            .collect::<Result<_, _>>()?;
        if !self.registry.insert(key, codes) {
            return Err(Problem::KeyTwice(column()));
        }
        if self.registry.len() > self.entries_max {
            return Err(Problem::TooMany(self.entries_max));
        }
        Ok(())
    }
}

/// The codes, or names, of a text. Those that are said to be unknown are left out.
fn codes(known: &Codes, fact: Fact, column: &str, text: &str) -> Result<Vec<Jurisdiction>, Problem> {
    if text.contains(char::is_control) {
        return Err(Problem::Control(column.to_owned()));
    }
    let code = |word: &str| match fact {
        Fact::SourceSystem => Ok(Jurisdiction::system(word)),
        _ => known.parse(word).ok_or_else(|| Problem::NoCode(column.to_owned())),
    };
    let is_known = |code: &Result<Jurisdiction, Problem>| *code != Ok(Jurisdiction::UNKNOWN);
    text.split(' ').filter(|word| !word.is_empty()).map(code).filter(is_known).collect()
}

fn read_csv(bytes: &[u8], builder: &mut Builder<'_>) -> Result<(), (u64, Problem)> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    // The position of a record is where it begins, and blank lines before it count to it.
    let line_at = |byte: u64| {
        let before = usize::try_from(byte).ok().and_then(|byte| bytes.get(..byte)).unwrap_or(bytes);
        let blank =
            bytes.get(before.len()..).unwrap_or_default().iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
        1 + before.iter().chain(blank).filter(|byte| **byte == b'\n').count() as u64
    };
    if bytes.is_empty() {
        return Err((1, Problem::NoHeader));
    }
    if bytes.last() != Some(&b'\n') {
        return Err((line_at(bytes.len() as u64), Problem::CutOff));
    }
    let mut reader = csv::ReaderBuilder::new().from_reader(bytes);
    let failed = |error: &csv::Error| {
        let line = line_at(error.position().map_or(0, csv::Position::byte));
        match error.kind() {
            csv::ErrorKind::Utf8 { .. } => (line, Problem::NotText),
            csv::ErrorKind::UnequalLengths { .. } => (line, Problem::Width),
            _ => (line, Problem::NotCsv),
        }
    };
    let quotes = |begin: usize, end: u64| {
        let row = usize::try_from(end).ok().and_then(|end| bytes.get(begin..end)).unwrap_or_default();
        quotes::check(row).map_err(|wrong| (line_at(begin as u64), Problem::Misquoted(wrong)))
    };
    reader.headers().map_err(|error| failed(&error))?;
    quotes(0, reader.position().byte())?;
    let header = reader.headers().map_err(|error| failed(&error))?;
    let mut places = Vec::new();
    for name in &builder.names {
        let mut found = header.iter().enumerate().filter(|(_, column)| column.trim() == *name);
        let place = found.next().ok_or_else(|| (1, Problem::NoColumn((*name).to_owned())))?;
        if found.next().is_some() {
            return Err((1, Problem::ColumnTwice((*name).to_owned())));
        }
        places.push(place.0);
    }
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| failed(&error))? {
        let begin = record.position().map_or(0, csv::Position::byte);
        quotes(usize::try_from(begin).unwrap_or_default(), reader.position().byte())?;
        let texts = places.iter().map(|&place| record.get(place).unwrap_or_default());
        if let Err(problem) = builder.add(texts) {
            return Err((line_at(begin), problem));
        }
    }
    Ok(())
}

/// Texts of an entry, by the builder's names.
type Texts<'t> = Vec<Option<Cow<'t, str>>>;
