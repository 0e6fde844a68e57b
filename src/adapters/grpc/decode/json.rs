//! One JSON object → one row. Values are read straight into columns, without a tree in between.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::domain::refusal::Reason;
use crate::domain::stream::FieldType;

use super::columns::Columns;

/// Reads one object. An error refuses the record and leaves the others alone.
pub(super) fn row(columns: &mut Columns<'_>, text: &[u8]) {
    let mut json = serde_json::Deserializer::from_slice(text);
    let read = Object(columns).deserialize(&mut json).and_then(|()| json.end());
    if read.is_err() {
        columns.refuse(Reason::MalformedRecord, None);
    }
    columns.end_row();
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
        // Writers keep the order of the members: the next one is most often the field declared next.
        let mut next = 0;
        while let Some(Key(key)) = map.next_key()? {
            let is_next = self.0.stream.fields.get(next).is_some_and(|field| field.name == key);
            if let Some(field) = is_next.then_some(next).or_else(|| self.0.stream.position(&key)) {
                next = field + 1;
                map.next_value_seed(Value { columns: self.0, field })?;
            } else {
                self.0.undeclared(|| key.into_owned());
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[derive(serde::Deserialize)]
struct Key<'k>(#[serde(borrow)] Cow<'k, str>);

struct Value<'c, 's> {
    columns: &'c mut Columns<'s>,
    field: usize,
}

impl Value<'_, '_> {
    fn field_type(&self) -> Option<FieldType> {
        self.columns.stream.fields.get(self.field).map(|field| field.field_type)
    }

    fn put_number(self, number: f64) {
        match self.field_type() {
            Some(FieldType::Float64) => self.columns.put_f64(self.field, number),
            Some(FieldType::Float32) => self.columns.put_f32(self.field, number as f32),
            _ => self.columns.wrong_type(self.field),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        self.columns.put_bool(self.field, value);
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        match self.field_type() {
            Some(FieldType::Int64 | FieldType::Timestamp) => self.columns.put_int(self.field, value),
            _ => self.put_number(value as f64),
        }
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => {
                self.put_number(value as f64);
                Ok(())
            }
        }
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.put_number(value);
        Ok(())
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        match self.field_type() {
            Some(FieldType::Timestamp) => self.columns.put_time(self.field, value),
            _ => self.columns.put_str(self.field, value),
        }
        Ok(())
    }

    /// Null is the same as a field left out.
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        self.columns.wrong_type(self.field);
        Ok(())
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        self.columns.wrong_type(self.field);
        Ok(())
    }
}
