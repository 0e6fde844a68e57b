//! One JSON object → one row. Values are read straight into columns, without a tree in between.
//!
//! A number is read by its digits as they stand, not by way of a double, and a text by its declared type
//! ([`super::spelling`]). A key that stands twice in an object refuses the record: which of the two would hold is not
//! said anywhere.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::domain::refusal::Reason;

use super::columns::Columns;

/// The byte order mark, which some writers put before a text.
const MARK: &str = "\u{feff}";

/// Reads one object. An error refuses the record and leaves the others alone.
pub(super) fn row(columns: &mut Columns<'_>, text: &[u8]) {
    if read(columns, text).is_none() {
        columns.refuse(Reason::MalformedRecord, None);
    }
    columns.end_row();
}

fn read(columns: &mut Columns<'_>, text: &[u8]) -> Option<()> {
    let text = std::str::from_utf8(text).ok()?;
    let mut json = serde_json::Deserializer::from_str(text.strip_prefix(MARK).unwrap_or(text));
    Object(columns).deserialize(&mut json).and_then(|()| json.end()).ok()
}

struct Object<'c, 's>(&'c mut Columns<'s>);

impl<'de> DeserializeSeed<'de> for Object<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(columns) = self;
        let mut undeclared = HashSet::new();
        // Writers keep the order of the members: the next one is most often the field declared next.
        let mut next = 0;
        while let Some(Key(key)) = map.next_key()? {
            let is_next = columns.stream.fields.get(next).is_some_and(|field| field.name == key);
            if let Some(field) = is_next.then_some(next).or_else(|| columns.stream.position(&key)) {
                next = field + 1;
                if !columns.name(field) {
                    columns.refuse(Reason::MalformedRecord, Some(key.as_ref().into()));
                }
                value(columns, field, map.next_value::<&RawValue>()?.get())?;
            } else {
                columns.undeclared(|| key.clone().into_owned());
                map.next_value::<Unambiguous>()?;
                if !undeclared.insert(key) {
                    return Err(de::Error::custom("a key stands twice"));
                }
            }
        }
        Ok(())
    }
}

#[derive(serde::Deserialize, PartialEq, Eq, Hash)]
struct Key<'k>(#[serde(borrow)] Cow<'k, str>);

/// Puts a value as it stands into a field. JSON's grammar was checked, but for what a string's escapes come to.
fn value<E: de::Error>(columns: &mut Columns<'_>, field: usize, text: &str) -> Result<(), E> {
    match text.as_bytes() {
        // Null is the same as a field left out.
        [b'n', ..] => {}
        [b't', ..] => columns.put_bool(field, true),
        [b'f', ..] => columns.put_bool(field, false),
        [b'{' | b'[', ..] => columns.wrong_type(field),
        [b'"', plain @ .., b'"'] if !plain.contains(&b'\\') => {
            columns.put_text(field, text.get(1..text.len() - 1).unwrap_or_default());
        }
        [b'"', ..] => {
            let text: String = serde_json::from_str(text).map_err(E::custom)?;
            columns.put_text(field, &text);
        }
        _ => columns.put_number(field, text),
    }
    Ok(())
}

/// Any value in which no object has a key twice. Nothing of it is kept.
struct Unambiguous;

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unambiguous {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<Key<'de>>()? {
            if !keys.insert(key) {
                return Err(de::Error::custom("a key stands twice"));
            }
            map.next_value::<Self>()?;
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self, A::Error> {
        while sequence.next_element::<Self>()?.is_some() {}
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
