//! The types that a TOML value can be read as.

use std::cell::{Cell, RefCell};

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use toml::Spanned;
use toml::de::DeValue;

use super::hints::COMPARED_BYTES_MAX;
use super::keys::Kind;
use super::{Place, Problems, Spot, Table};
use crate::domain::time::{self, parse_duration};

/// A type that a TOML value can be read as.
pub trait FromValue<'d>: Sized {
    /// Reads the value, or reports why it cannot be read.
    fn from_value(found: Found<'d, '_>) -> Option<Self>;
}

/// A value of a file, with what is declared of it and where it stands.
#[derive(Clone, Copy)]
pub struct Found<'d, 'p> {
    pub(super) value: &'d Spanned<DeValue<'d>>,
    pub(super) kind: &'static Kind,
    pub(super) place: &'p Place,
    pub(super) problems: &'d Problems,
}

impl<'d> Found<'d, '_> {
    fn value(&self) -> &'d DeValue<'d> {
        self.value.get_ref()
    }

    /// Reports a value of another type.
    fn wrong<T>(&self, expected: &str) -> Option<T> {
        self.problems.error(self.place, format!("expected {expected}, found {}", self.value().type_str()));
        None
    }

    /// The same of a value that has to be spelled in some way. It is quoted, if it is short.
    fn misspelled<T>(&self, expected: &str) -> Option<T> {
        let quoted = match self.value() {
            DeValue::String(text) => format!("\"{text}\""),
            DeValue::Float(number) => number.as_str().to_owned(),
            other => other.type_str().to_owned(),
        };
        let found = if quoted.len() > COMPARED_BYTES_MAX { self.value().type_str() } else { &quoted };
        self.problems.error(self.place, format!("expected {expected}, found {found}"));
        None
    }
}

impl<'d> FromValue<'d> for String {
    fn from_value(found: Found<'d, '_>) -> Option<Self> {
        found.value().as_str().map(Self::from).or_else(|| found.wrong("a string"))
    }
}

impl<'d> FromValue<'d> for bool {
    fn from_value(found: Found<'d, '_>) -> Option<Self> {
        found.value().as_bool().or_else(|| found.wrong("true or false"))
    }
}

impl<'d> FromValue<'d> for i64 {
    fn from_value(found: Found<'d, '_>) -> Option<Self> {
        let integer = found.value().as_integer();
        let number = integer.and_then(|integer| Self::from_str_radix(integer.as_str(), integer.radix()).ok());
        number.or_else(|| found.wrong("a whole number of at most 64 bits"))
    }
}

impl<'d> FromValue<'d> for usize {
    fn from_value(found: Found<'d, '_>) -> Option<Self> {
        let number = i64::from_value(found)?;
        Self::try_from(number).ok().or_else(|| found.wrong("a number of zero or more"))
    }
}

impl<'d> FromValue<'d> for u64 {
    fn from_value(found: Found<'d, '_>) -> Option<Self> {
        usize::from_value(found).map(|number| number as Self)
    }
}

impl<'d> FromValue<'d> for f64 {
    fn from_value(found: Found<'d, '_>) -> Option<Self> {
        let text = match found.value() {
            DeValue::Float(float) => Some(float.as_str()),
            DeValue::Integer(integer) if integer.radix() == 10 => Some(integer.as_str()),
            _ => None,
        };
        let number = text.and_then(|text| text.parse::<Self>().ok()).filter(|number| number.is_finite());
        number.or_else(|| found.misspelled("a finite number"))
    }
}

impl<'d> FromValue<'d> for Date {
    fn from_value(found: Found<'d, '_>) -> Option<Self> {
        let date = found.value().as_datetime().filter(|datetime| datetime.time.is_none());
        let date = date.and_then(|datetime| datetime.date);
        let date =
            date.and_then(|date| Self::new(i16::try_from(date.year).ok()?, date.month as i8, date.day as i8).ok());
        date.or_else(|| found.misspelled("a date like 2026-11-23"))
    }
}

impl<'d> FromValue<'d> for Timestamp {
    fn from_value(found: Found<'d, '_>) -> Option<Self> {
        let text = match found.value() {
            DeValue::String(text) => text.to_string(),
            DeValue::Datetime(datetime) => datetime.to_string(),
            _ => String::new(),
        };
        let micros = time::parse(&text).ok();
        let time = micros.and_then(|micros| Self::from_microsecond(micros).ok());
        time.or_else(|| found.misspelled("a time with its zone, like \"2026-11-23T12:00:00Z\""))
    }
}

impl<'d> FromValue<'d> for SignedDuration {
    fn from_value(found: Found<'d, '_>) -> Option<Self> {
        let duration = found.value().as_str().and_then(parse_duration);
        duration.or_else(|| found.misspelled("a duration like \"PT30S\", \"PT10M\" or \"P1D\""))
    }
}

impl<'d> FromValue<'d> for Table<'d> {
    fn from_value(found: Found<'d, '_>) -> Option<Self> {
        let Some(entries) = found.value().as_table() else { return found.wrong("a table") };
        let Found { kind, place, problems, .. } = found;
        let (kind, shape) = (Cell::new(kind), Cell::new(kind.shape()));
        Some(Self { entries, place: place.clone(), kind, shape, used: RefCell::default(), problems })
    }
}

impl<'d, T: FromValue<'d>> FromValue<'d> for Vec<Spot<T>> {
    fn from_value(found: Found<'d, '_>) -> Option<Self> {
        let Some(array) = found.value().as_array() else { return found.wrong("an array") };
        let mut items = Self::with_capacity(array.len());
        for (index, value) in array.iter().enumerate() {
            let key = format!("{}[{index}]", found.place.key);
            let place = Place { span: value.span(), key, ..found.place.clone() };
            let item = Found { value, kind: found.kind.of_item(), place: &place, problems: found.problems };
            if let Some(value) = T::from_value(item) {
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
    fn from_value(found: Found<'d, '_>) -> Option<Self> {
        match found.value() {
            DeValue::String(name) => Some(Self::Name(name.to_string())),
            DeValue::Table(_) => Table::from_value(found).map(Self::Table),
            _ => found.wrong("a name or a table"),
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
    fn from_value(found: Found<'d, '_>) -> Option<Self> {
        match found.value() {
            DeValue::String(text) => Some(Self::Text(text.to_string())),
            DeValue::Integer(_) => i64::from_value(found).map(Self::Integer),
            _ => found.wrong("text or a whole number"),
        }
    }
}
