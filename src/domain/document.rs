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

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::printable;
use super::time::{self, parse_duration};

pub mod keys;

use keys::{Kind, Shape};

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
        let file = Arc::new(Source::new(path, ""));
        let place = Place { file, span: 0..0, key: String::new() };
        Self { severity: Severity::Error, place, message, help: None }
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
        let value = T::from_value(value, self.kind_of(key), &place, self.problems)?;
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
            if let Some(table) = Table::from_value(value, kind, &place, self.problems) {
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

/// Names that are longer are not compared, nor values quoted. No more names are compared than this: it takes long.
const COMPARED_BYTES_MAX: usize = 64;
const COMPARED_MAX: usize = 500;
/// The most names that are listed.
const LISTED_MAX: usize = 40;
/// Names of a greater distance are not alike.
const DISTANCE_MAX: usize = 2;

/// "did you mean", or what there is to choose from.
#[must_use]
pub fn hint(name: &str, known: &[&str]) -> String {
    hint_of(name, known.iter().copied())
}

/// The same for names that are not in a list: no more of them are looked at than are compared.
#[must_use]
pub fn hint_of<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let mut names = known.into_iter();
    let known: Vec<&str> = names.by_ref().take(COMPARED_MAX).collect();
    let length = name.chars().count();
    let is_near = |known: &&&str| {
        name.len().max(known.len()) <= COMPARED_BYTES_MAX && known.chars().count().abs_diff(length) <= DISTANCE_MAX
    };
    let near = known.iter().filter(is_near).map(|known| (strsim::damerau_levenshtein(name, known), known)).min();
    match near {
        Some((distance, known)) if distance <= DISTANCE_MAX && distance < name.len() => {
            format!("did you mean `{known}`?")
        }
        _ if known.is_empty() => "there is nothing to choose from".to_owned(),
        _ => {
            let listed = known.get(..LISTED_MAX).unwrap_or(&known).join(", ");
            let more = if known.len() > LISTED_MAX || names.next().is_some() { ", ..." } else { "" };
            format!("known here: {listed}{more}")
        }
    }
}

/// A type that a TOML value can be read as.
pub trait FromValue<'d>: Sized {
    /// Reads the value, or reports why it cannot be read.
    fn from_value(
        value: &'d Spanned<DeValue<'d>>,
        kind: &'static Kind,
        place: &Place,
        problems: &'d Problems,
    ) -> Option<Self>;
}

fn wrong<T>(value: &Spanned<DeValue<'_>>, expected: &str, place: &Place, problems: &Problems) -> Option<T> {
    problems.error(place, format!("expected {expected}, found {}", value.get_ref().type_str()));
    None
}

/// The same of a value that has to be spelled in some way. It is quoted, if it is short.
fn misspelled<T>(value: &Spanned<DeValue<'_>>, expected: &str, place: &Place, problems: &Problems) -> Option<T> {
    let quoted = match value.get_ref() {
        DeValue::String(text) => format!("\"{text}\""),
        DeValue::Float(number) => number.as_str().to_owned(),
        other => other.type_str().to_owned(),
    };
    let found = if quoted.len() > COMPARED_BYTES_MAX { value.get_ref().type_str() } else { &quoted };
    problems.error(place, format!("expected {expected}, found {found}"));
    None
}

impl<'d> FromValue<'d> for String {
    fn from_value(
        value: &'d Spanned<DeValue<'d>>,
        _kind: &'static Kind,
        place: &Place,
        problems: &'d Problems,
    ) -> Option<Self> {
        value.get_ref().as_str().map(Self::from).or_else(|| wrong(value, "a string", place, problems))
    }
}

impl<'d> FromValue<'d> for bool {
    fn from_value(
        value: &'d Spanned<DeValue<'d>>,
        _kind: &'static Kind,
        place: &Place,
        problems: &'d Problems,
    ) -> Option<Self> {
        value.get_ref().as_bool().or_else(|| wrong(value, "true or false", place, problems))
    }
}

impl<'d> FromValue<'d> for i64 {
    fn from_value(
        value: &'d Spanned<DeValue<'d>>,
        _kind: &'static Kind,
        place: &Place,
        problems: &'d Problems,
    ) -> Option<Self> {
        let integer = value.get_ref().as_integer();
        let number = integer.and_then(|integer| Self::from_str_radix(integer.as_str(), integer.radix()).ok());
        number.or_else(|| wrong(value, "a whole number of at most 64 bits", place, problems))
    }
}

impl<'d> FromValue<'d> for usize {
    fn from_value(
        value: &'d Spanned<DeValue<'d>>,
        _kind: &'static Kind,
        place: &Place,
        problems: &'d Problems,
    ) -> Option<Self> {
        let number = i64::from_value(value, &Kind::Whole, place, problems)?;
        Self::try_from(number).ok().or_else(|| wrong(value, "a number of zero or more", place, problems))
    }
}

impl<'d> FromValue<'d> for u64 {
    fn from_value(
        value: &'d Spanned<DeValue<'d>>,
        _kind: &'static Kind,
        place: &Place,
        problems: &'d Problems,
    ) -> Option<Self> {
        usize::from_value(value, &Kind::Count, place, problems).map(|number| number as Self)
    }
}

impl<'d> FromValue<'d> for f64 {
    fn from_value(
        value: &'d Spanned<DeValue<'d>>,
        _kind: &'static Kind,
        place: &Place,
        problems: &'d Problems,
    ) -> Option<Self> {
        let text = match value.get_ref() {
            DeValue::Float(float) => Some(float.as_str()),
            DeValue::Integer(integer) if integer.radix() == 10 => Some(integer.as_str()),
            _ => None,
        };
        let number = text.and_then(|text| text.parse::<Self>().ok()).filter(|number| number.is_finite());
        number.or_else(|| misspelled(value, "a finite number", place, problems))
    }
}

impl<'d> FromValue<'d> for Date {
    fn from_value(
        value: &'d Spanned<DeValue<'d>>,
        _kind: &'static Kind,
        place: &Place,
        problems: &'d Problems,
    ) -> Option<Self> {
        let date = value.get_ref().as_datetime().filter(|datetime| datetime.time.is_none());
        let date = date.and_then(|datetime| datetime.date);
        let date =
            date.and_then(|date| Self::new(i16::try_from(date.year).ok()?, date.month as i8, date.day as i8).ok());
        date.or_else(|| misspelled(value, "a date like 2026-11-23", place, problems))
    }
}

impl<'d> FromValue<'d> for Timestamp {
    fn from_value(
        value: &'d Spanned<DeValue<'d>>,
        _kind: &'static Kind,
        place: &Place,
        problems: &'d Problems,
    ) -> Option<Self> {
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Datetime(datetime) => datetime.to_string(),
            _ => String::new(),
        };
        let micros = time::parse(&text).ok();
        let time = micros.and_then(|micros| Self::from_microsecond(micros).ok());
        time.or_else(|| misspelled(value, "a time with its zone, like \"2026-11-23T12:00:00Z\"", place, problems))
    }
}

impl<'d> FromValue<'d> for SignedDuration {
    fn from_value(
        value: &'d Spanned<DeValue<'d>>,
        _kind: &'static Kind,
        place: &Place,
        problems: &'d Problems,
    ) -> Option<Self> {
        let text = value.get_ref().as_str();
        let duration = text.and_then(parse_duration);
        duration.or_else(|| misspelled(value, "a duration like \"PT30S\", \"PT10M\" or \"P1D\"", place, problems))
    }
}

impl<'d> FromValue<'d> for Table<'d> {
    fn from_value(
        value: &'d Spanned<DeValue<'d>>,
        kind: &'static Kind,
        place: &Place,
        problems: &'d Problems,
    ) -> Option<Self> {
        let Some(entries) = value.get_ref().as_table() else { return wrong(value, "a table", place, problems) };
        let (kind, shape) = (Cell::new(kind), Cell::new(kind.shape()));
        Some(Self { entries, place: place.clone(), kind, shape, used: RefCell::default(), problems })
    }
}

impl<'d, T: FromValue<'d>> FromValue<'d> for Vec<Spot<T>> {
    fn from_value(
        value: &'d Spanned<DeValue<'d>>,
        kind: &'static Kind,
        place: &Place,
        problems: &'d Problems,
    ) -> Option<Self> {
        let Some(array) = value.get_ref().as_array() else { return wrong(value, "an array", place, problems) };
        let mut items = Self::with_capacity(array.len());
        for (index, item) in array.iter().enumerate() {
            let place = Place { span: item.span(), key: format!("{}[{index}]", place.key), ..place.clone() };
            if let Some(value) = T::from_value(item, kind.of_item(), &place, problems) {
                items.push(Spot { value, place });
            }
        }
        Some(items)
    }
}

/// A field named alone, or a table that says more: `"amount"` or `{ field = "channel", ... }`.
pub enum NameOrTable<'d> {
    /// Only a name.
    Name(String),
    /// A table.
    Table(Table<'d>),
}

impl<'d> FromValue<'d> for NameOrTable<'d> {
    fn from_value(
        value: &'d Spanned<DeValue<'d>>,
        kind: &'static Kind,
        place: &Place,
        problems: &'d Problems,
    ) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(name) => Some(Self::Name(name.to_string())),
            DeValue::Table(_) => Table::from_value(value, kind, place, problems).map(Self::Table),
            _ => wrong(value, "a name or a table", place, problems),
        }
    }
}

/// One word of a domain of group keys: text or a whole number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
}

impl<'d> FromValue<'d> for Word {
    fn from_value(
        value: &'d Spanned<DeValue<'d>>,
        _kind: &'static Kind,
        place: &Place,
        problems: &'d Problems,
    ) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(text) => Some(Self::Text(text.to_string())),
            DeValue::Integer(_) => i64::from_value(value, &Kind::Whole, place, problems).map(Self::Integer),
            _ => wrong(value, "text or a whole number", place, problems),
        }
    }
}
