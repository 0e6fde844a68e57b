//! Payloads → columns. Row-shaped input becomes columns here and nowhere else.

use std::sync::Arc;
#[cfg(test)]
use std::time::Duration;

use crate::domain::batch::Candidate;
use crate::domain::refusal::Reason;
#[cfg(test)]
use crate::domain::stream::{Field, FieldType, Stream, Undeclared};

pub mod arrow;
pub mod cloud_events;
mod columns;
mod json;
pub mod rows;
mod spelling;

/// A decoded payload.
pub struct Decoded {
    /// The records.
    pub candidate: Candidate,
    /// Values of undeclared fields that were dropped.
    pub dropped: u32,
}

/// Why a payload as a whole cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecodable {
    /// The reason.
    pub reason: Reason,
    /// The field at fault, where there is one.
    pub field: Option<Arc<str>>,
    /// What is wrong, without contents.
    pub message: String,
}

impl Undecodable {
    /// A malformed payload.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self { reason: Reason::Malformed, field: None, message: message.into() }
    }

    /// More records than the limit.
    #[must_use]
    pub fn too_many_rows(limit: usize) -> Self {
        let message = format!("more than {limit} records in one request; send smaller batches");
        Self { reason: Reason::TooManyRows, field: None, message }
    }
}

/// A stream of fields `f1`, `f2`, ..., by number and type.
#[cfg(test)]
fn test_stream(fields: &[(u32, FieldType)], undeclared: Undeclared) -> Arc<Stream> {
    let fields = fields.iter().map(|&(number, field_type)| Field {
        name: format!("f{number}"),
        field_type,
        number,
        class: "c".into(),
        required: false,
        allow_non_finite: true,
        bytes_max: 64,
        range: None,
    });
    let fields: Vec<Field> = fields.collect();
    Arc::new(Stream {
        name: "s".into(),
        event_time: 0,
        contributor: 1,
        undeclared,
        model: None,
        future_max: Duration::ZERO,
        late_max: Duration::ZERO,
        idle_after: Duration::ZERO,
        schema: Stream::schema_of(&fields),
        fields,
    })
}
