//! Streams: named, declared kinds of record. The declaration is all that the decoders, the checks, the
//! model and the datasets know of a record.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow_schema::{DataType, Schema, SchemaRef, TimeUnit};

use super::name::StreamName;

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// True or false.
    Bool,
    /// A 64-bit signed integer.
    Int64,
    /// A 32-bit float.
    Float32,
    /// A 64-bit float.
    Float64,
    /// UTF-8 text.
    String,
    /// A point in time, in microseconds since the Unix epoch, UTC.
    Timestamp,
}

impl FieldType {
    /// Every type with its name in the policy language.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("bool", Self::Bool),
        ("int64", Self::Int64),
        ("float32", Self::Float32),
        ("float64", Self::Float64),
        ("string", Self::String),
        ("timestamp", Self::Timestamp),
    ];

    /// The Arrow type of the column.
    #[must_use]
    pub fn arrow(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int64 => DataType::Int64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::String => DataType::Utf8,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        }
    }

    /// Whether values are numbers that can be summed and scored.
    #[must_use]
    pub fn is_numeric(self) -> bool {
        matches!(self, Self::Int64 | Self::Float32 | Self::Float64)
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, field_type)| field_type == self);
        f.write_str(name.map_or("?", |(name, _)| name))
    }
}

/// Where a numeric value lies; what is outside is moved to the nearer end before it enters an aggregate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ValueRange {
    /// The smallest value.
    pub low: f64,
    /// The largest value.
    pub high: f64,
}

/// One declared field.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its name: the Arrow column's, the JSON key's and the protobuf field's.
    pub name: String,
    /// Its type.
    pub field_type: FieldType,
    /// Its protobuf field number.
    pub number: u32,
    /// Its data class, by name.
    pub class: String,
    /// Whether a record without it is refused.
    pub required: bool,
    /// Whether NaN and the infinities are taken.
    pub allow_non_finite: bool,
    /// The longest text taken, in bytes.
    pub bytes_max: usize,
    /// Where its values lie.
    pub range: Option<ValueRange>,
}

/// What becomes of a field that is not declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undeclared {
    /// The record is refused, and the refusal names the field.
    Refuse,
    /// The value is dropped and counted.
    Drop,
}

/// A declared stream.
#[derive(Debug, PartialEq)]
pub struct Stream {
    /// Its name.
    pub name: StreamName,
    /// Its fields; a column of a batch has the position of its field.
    pub fields: Vec<Field>,
    /// The field that carries the event time.
    pub event_time: usize,
    /// The field that names the contributor, the person or thing that k counts.
    pub contributor: usize,
    /// What becomes of an undeclared field.
    pub undeclared: Undeclared,
    /// The model that scores its records.
    pub model: Option<String>,
    /// How far ahead of the clock an event time may be.
    pub future_max: Duration,
    /// How far behind an event time may be: behind the clock, and before the oldest open window.
    pub late_max: Duration,
    /// The stream replays history from this time on, in microseconds since the Unix epoch: then no event time is too
    /// far behind the clock.
    pub history_from: Option<i64>,
    /// After how long without a record a producer no longer holds the watermark back.
    pub idle_after: Duration,
    /// The Arrow schema of a batch.
    pub schema: SchemaRef,
}

impl Stream {
    /// The Arrow schema of a batch of these fields. Every column may hold nulls: whether a field is
    /// required is decided record by record.
    #[must_use]
    pub fn schema_of(fields: &[Field]) -> SchemaRef {
        let columns = fields.iter().map(|field| arrow_schema::Field::new(&field.name, field.field_type.arrow(), true));
        Arc::new(Schema::new(columns.collect::<Vec<_>>()))
    }

    /// The position of a field.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }
}
