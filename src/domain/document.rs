//! TOML text as values that know where they stand, and problems that point there.
//!
//! Both kinds of files (`gateway.toml` and the policies) are read through [`Table`]: every key that is
//! not asked for is an error, a value of the wrong type is an error, and reading goes on after an error,
//! so that all problems of all files are reported at once. This module does no IO and prints nothing.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use toml::de::DeTable;

use super::printable;

mod hints;
pub mod keys;
mod values;

pub use hints::{hint, hint_of};
use keys::{Kind, Shape};
pub use values::{Found, FromValue, NameOrTable, Word};

/// A file's path, as it is to be shown, and its text.
#[derive(Debug)]
pub struct Source {
    /// The path as the user gave it.
    pub path: String,
    /// The whole text.
    pub text: String,
    /// Where each line begins, once it was asked for.
    lines: OnceLock<Vec<usize>>,
}

impl Source {
    /// A file of this path and text.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into(), lines: OnceLock::new() }
    }

    fn lines(&self) -> &[usize] {
        self.lines.get_or_init(|| {
            let ends = self.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
            std::iter::once(0).chain(ends).collect()
        })
    }

    /// The line that a byte of the text stands on, counted from 1.
    #[must_use]
    pub fn line_at(&self, byte: usize) -> usize {
        self.lines().partition_point(|begin| *begin <= byte)
    }

    /// The whole lines that bytes of the text stand on: the number of the first, and their own bytes.
    #[must_use]
    pub fn lines_around(&self, span: &Range<usize>) -> (usize, Range<usize>) {
        let first = self.line_at(span.start);
        let last = self.line_at(span.end.max(span.start));
        let begin = self.lines().get(first.saturating_sub(1)).copied().unwrap_or(0);
        let end = self.lines().get(last).copied().unwrap_or(self.text.len());
        (first, begin..end)
    }
}

/// Where a value stands.
#[derive(Debug, Clone)]
pub struct Place {
    /// The file.
    pub file: Arc<Source>,
    /// Bytes of the file's text.
    pub span: Range<usize>,
    /// The dotted key, as in `streams.payments.fields.amount`.
    pub key: String,
}

impl Place {
    /// A file as a whole.
    #[must_use]
    pub fn of_file(path: &str) -> Self {
        Self { file: Arc::new(Source::new(path, "")), span: 0..0, key: String::new() }
    }

    /// The line, counted from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.file.line_at(self.span.start)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A file as a whole has no key.
        let colon = if self.key.is_empty() { "" } else { ": " };
        write!(f, "{}:{}{colon}{}", self.file.path, self.line(), self.key)
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct Spot<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub place: Place,
}

/// Something wrong with a file.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Whether the file can still be used.
    pub severity: Severity,
    /// What is at fault.
    pub place: Place,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    /// An error of a file that cannot be read at all.
    #[must_use]
    pub fn of_file(path: &str, message: String) -> Self {
        Self { severity: Severity::Error, place: Place::of_file(path), message, help: None }
    }
}

/// Whether a problem stops the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, but somebody should look.
    Warning,
}

/// All problems found so far, in the order they were found.
#[derive(Debug, Default)]
pub struct Problems {
    found: RefCell<Vec<Problem>>,
    /// The keys that were asked for: the table's shape, the key, whether it must be there.
    #[cfg(test)]
    pub(crate) asked: RefCell<BTreeSet<(&'static str, String, bool)>>,
}

impl Problems {
    /// Adds an error.
    pub fn error(&self, place: &Place, message: impl Into<String>) {
        self.push(Severity::Error, place, message.into(), None);
    }

    /// Adds an error and what to do about it.
    pub fn error_help(&self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        self.push(Severity::Error, place, message.into(), Some(help.into()));
    }

    /// Adds a warning and what to do about it.
    pub fn warn(&self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        self.push(Severity::Warning, place, message.into(), Some(help.into()));
    }

    fn push(&self, severity: Severity, place: &Place, message: String, help: Option<String>) {
        let place = place.clone();
        let (message, help) = (shown(&message), help.as_deref().map(shown));
        self.found.borrow_mut().push(Problem { severity, place, message, help });
    }

    /// Whether there is at least one error.
    #[must_use]
    pub fn any_error(&self) -> bool {
        self.found.borrow().iter().any(|problem| problem.severity == Severity::Error)
    }

    /// The problems.
    #[must_use]
    pub fn into_vec(self) -> Vec<Problem> {
        self.found.into_inner()
    }
}

/// Parses a file and hands its top table to `read`, then reports what `read` did not ask for.
/// `None` when the text is not TOML at all; the problem says where.
pub fn read<T>(file: &Arc<Source>, problems: &Problems, read: impl FnOnce(&Table<'_>) -> T) -> Option<T> {
    let (document, errors) = DeTable::parse_recoverable(&file.text);
    for error in &errors {
        let place = Place { file: Arc::clone(file), span: error.span().unwrap_or(0..0), key: "(syntax)".into() };
        problems.error(&place, error.message().trim().to_owned());
    }
    if !errors.is_empty() {
        return None;
    }
    let place = Place { file: Arc::clone(file), span: 0..0, key: String::new() };
    let (entries, kind) = (document.get_ref(), Cell::new(&Kind::Any));
    let table = Table { entries, place, kind, shape: Cell::new(None), used: RefCell::default(), problems };
    let value = read(&table);
    table.done();
    Some(value)
}

/// A table of a file, read key by key.
pub struct Table<'d> {
    entries: &'d DeTable<'d>,
    /// Where the table stands.
    pub place: Place,
    kind: Cell<&'static Kind>,
    shape: Cell<Option<&'static Shape>>,
    used: RefCell<BTreeSet<String>>,
    problems: &'d Problems,
}

impl<'d> Table<'d> {
    /// Says what the top table of a file is. The tables in it have their shapes from this one.
    pub fn is_a(&self, shape: &'static Shape) {
        self.shape.set(Some(shape));
    }

    /// The value of a key, if it is there and of the right type.
    pub fn get<T: FromValue<'d>>(&self, key: &str) -> Option<Spot<T>> {
        self.note(key, false);
        self.value(key)
    }

    fn value<T: FromValue<'d>>(&self, key: &str) -> Option<Spot<T>> {
        self.used.borrow_mut().insert(key.to_owned());
        let (name, value) = self.entries.get_key_value(key)?;
        let place = self.at(name.get_ref(), value.span());
        let found = Found { value, kind: self.kind_of(key), place: &place, problems: self.problems };
        let value = T::from_value(found)?;
        Some(Spot { value, place })
    }

    fn kind_of(&self, key: &str) -> &'static Kind {
        match self.shape.get() {
            Some(shape) => shape.kind_of(key),
            None => self.kind.get().of_key(key),
        }
    }

    /// What is asked of a table that has a shape, for the test that compares it with what is declared.
    #[cfg(test)]
    fn note(&self, key: &str, is_needed: bool) {
        if let Some(shape) = self.shape.get() {
            self.problems.asked.borrow_mut().insert((shape.name, key.to_owned(), is_needed));
        }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "only the test takes note")]
    fn note(&self, _key: &str, _is_needed: bool) {}

    /// The value of a key that must be there.
    pub fn need<T: FromValue<'d>>(&self, key: &str) -> Option<Spot<T>> {
        self.note(key, true);
        if !self.entries.contains_key(key) {
            self.used.borrow_mut().insert(key.to_owned());
            self.problems.error(&self.place, format!("`{key}` is missing"));
            return None;
        }
        self.value(key)
    }

    /// A key's value, or a default when the key is not there.
    pub fn or<T: FromValue<'d>>(&self, key: &str, default: T) -> T {
        self.get(key).map_or(default, |spot| spot.value)
    }

    /// Every entry of this table, in the order of the file, each of which must be a table.
    pub fn each(&self) -> Vec<(Spot<String>, Table<'d>)> {
        let mut tables = Vec::new();
        for (name, value) in self.entries {
            self.used.borrow_mut().insert(name.get_ref().to_string());
            let place = self.at(name.get_ref(), name.span());
            let kind = self.kind_of(name.get_ref());
            let found = Found { value, kind, place: &place, problems: self.problems };
            if let Some(table) = Table::from_value(found) {
                tables.push((Spot { value: name.get_ref().to_string(), place }, table));
            }
        }
        tables
    }

    /// The names of all entries, in the order of the file.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.entries.iter().map(|(name, _)| name.get_ref().to_string()).collect()
    }

    /// The tables below a key: `[key.name]` for every name.
    pub fn named(&self, key: &str) -> Vec<(Spot<String>, Table<'d>)> {
        let Some(tables) = self.get::<Table<'d>>(key) else { return Vec::new() };
        tables.value.each()
    }

    /// The tables of an array: `[[key]]`, or inline.
    pub fn array(&self, key: &str) -> Vec<Table<'d>> {
        let tables = self.get::<Vec<Spot<Table<'d>>>>(key);
        tables.map_or_else(Vec::new, |spot| spot.value.into_iter().map(|table| table.value).collect())
    }

    /// Reports every key that nobody asked for.
    pub fn done(&self) {
        let used = self.used.borrow();
        let declared = self.shape.get().into_iter().flat_map(|shape| shape.keys).map(|key| key.name);
        let known: BTreeSet<&str> = used.iter().map(String::as_str).chain(declared).collect();
        let listed: Vec<&str> = known.iter().copied().collect();
        for (name, value) in self.entries {
            let name = name.get_ref();
            if known.contains(name.as_ref()) {
                continue;
            }
            let place = self.at(name, value.span());
            self.problems.error_help(&place, format!("unknown key `{name}`"), hint(name, &listed));
        }
    }

    /// Where problems of this table go.
    #[must_use]
    pub fn problems(&self) -> &'d Problems {
        self.problems
    }

    fn at(&self, name: &str, span: Range<usize>) -> Place {
        let key = if self.place.key.is_empty() { name.to_owned() } else { format!("{}.{name}", self.place.key) };
        Place { file: Arc::clone(&self.place.file), span, key }
    }
}

/// The longest message.
const SHOWN_MAX: usize = 800;

/// A text that may quote what a file says: what cannot be seen, or would move the cursor, is escaped, and of what is
/// long there is the beginning.
fn shown(text: &str) -> String {
    match text.char_indices().find(|(position, _)| *position > SHOWN_MAX) {
        Some((end, _)) => format!("{}…", printable::lines(text.get(..end).unwrap_or_default())),
        None => printable::lines(text).into_owned(),
    }
}

/// A text with other words in it, for tests. What is to be replaced must be there: else a test would go on with what it did
/// not ask for.
#[cfg(test)]
#[track_caller]
pub(crate) fn changed(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no `{from}` in\n{text}");
    text.replace(from, to)
}

/// The same of the first place where the words are.
#[cfg(test)]
#[track_caller]
pub(crate) fn changed_first(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no `{from}` in\n{text}");
    text.replacen(from, to, 1)
}
