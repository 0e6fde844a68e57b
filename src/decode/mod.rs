//! Payloads → columns. Row-shaped input becomes columns here and nowhere else.
//!
//! Every kind of payload is read in two steps. `open` looks at lengths and counts only, and says how much memory the
//! records take at most; what is above the limits is refused there. `decode` then makes the columns. In between the
//! caller takes that much from the budget.

use std::sync::Arc;
#[cfg(test)]
use std::time::Duration;

use bytes::Bytes;

use crate::domain::batch::Candidate;
use crate::domain::refusal::Reason;
use crate::domain::stream::Stream;
#[cfg(test)]
use crate::domain::stream::{Field, FieldType, Undeclared};

pub mod arrow;
pub mod cloud_events;
mod columns;
mod counted;
mod json;
pub mod rows;
mod spelling;
mod together;
mod wire;

pub use counted::Counted;
pub use together::{Share, Together};

/// What one request may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most records.
    pub rows_max: usize,
    /// The most bytes of memory that its records may take once they are decoded.
    pub bytes_max: usize,
}

impl Limits {
    /// No limits: for records that did not come over the network.
    pub const NONE: Self = Self { rows_max: usize::MAX, bytes_max: usize::MAX };

    fn check(self, bytes: usize) -> Result<(), Undecodable> {
        if bytes <= self.bytes_max { Ok(()) } else { Err(Undecodable::too_large(bytes, self.bytes_max)) }
    }
}

/// The bytes of a request's records, and how they are written.
#[derive(Debug, Clone)]
pub enum Payload {
    /// Protobuf rows.
    Rows(Bytes),
    /// An Arrow IPC stream.
    ArrowIpc(Bytes),
    /// A `CloudEventBatch`.
    CloudEvents(Bytes),
}

impl Payload {
    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Rows(bytes) | Self::ArrowIpc(bytes) | Self::CloudEvents(bytes) => bytes.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A payload that was looked at and is not decoded yet.
pub enum Opened {
    /// Protobuf rows.
    Rows(Counted),
    /// Arrow IPC.
    Arrow(arrow::Opened),
    /// CloudEvents.
    Events(Counted),
}

impl Opened {
    /// Looks at a payload. `layout` is what is kept between requests of the same call.
    ///
    /// # Errors
    /// When the payload is malformed, or above the limits.
    pub fn new(
        layout: &mut arrow::Layout,
        stream: &Arc<Stream>,
        payload: Payload,
        limits: Limits,
    ) -> Result<Self, Undecodable> {
        Ok(match payload {
            Payload::Rows(bytes) => Self::Rows(rows::open(stream, bytes, limits)?),
            Payload::ArrowIpc(bytes) => Self::Arrow(arrow::open(layout, stream, bytes, limits)?),
            Payload::CloudEvents(bytes) => Self::Events(cloud_events::open(stream, bytes, limits)?),
        })
    }

    /// How many records there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        match self {
            Self::Rows(counted) | Self::Events(counted) => counted.rows(),
            Self::Arrow(opened) => opened.rows(),
        }
    }

    /// The most memory that the records take once they are decoded.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Rows(counted) | Self::Events(counted) => counted.bytes(),
            Self::Arrow(opened) => opened.bytes(),
        }
    }

    /// Makes the columns.
    ///
    /// # Errors
    /// When a column as a whole cannot be taken.
    pub fn decode(&self) -> Result<Decoded, Undecodable> {
        let Together { candidate, mut shares } = Together::decode(self.stream(), [self]);
        let Share { dropped, .. } = shares.pop().unwrap_or_else(|| Ok(Share::default()))?;
        Ok(Decoded { candidate, dropped })
    }

    fn stream(&self) -> &Arc<Stream> {
        match self {
            Self::Rows(counted) | Self::Events(counted) => &counted.stream,
            Self::Arrow(opened) => &opened.stream,
        }
    }
}

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

    /// Records that take more memory than the limit.
    #[must_use]
    pub fn too_large(bytes: usize, limit: usize) -> Self {
        let message = format!(
            "the decoded records would take {bytes} bytes of memory; the limit is {limit}; send smaller batches"
        );
        Self { reason: Reason::TooLarge, field: None, message }
    }
}

/// A stream of fields `f1`, `f2`, ..., by number and type.
#[cfg(test)]
pub(crate) fn test_stream(fields: &[(u32, FieldType)], undeclared: Undeclared) -> Arc<Stream> {
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
        name: "s".parse().unwrap(),
        event_time: 0,
        contributor: 1,
        undeclared,
        model: None,
        future_max: Duration::ZERO,
        late_max: Duration::ZERO,
        history_from: None,
        idle_after: Duration::ZERO,
        schema: Stream::schema_of(&fields),
        fields,
    })
}
