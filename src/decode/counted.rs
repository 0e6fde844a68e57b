//! Payloads of protobuf whose records were counted and are not decoded yet.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::stream::Stream;

use super::{Limits, Undecodable, columns};

/// A payload whose records were counted.
pub struct Counted {
    pub(super) stream: Arc<Stream>,
    pub(super) payload: Bytes,
    pub(super) rows: usize,
}

impl Counted {
    /// Counts the records of a payload. `next` gives what stands at the front, if it is a record, and what comes after it;
    /// `malformed` is said when it gives nothing.
    ///
    /// # Errors
    /// When the payload is malformed or holds too many records.
    pub(super) fn new(
        stream: &Arc<Stream>,
        payload: Bytes,
        limits: Limits,
        malformed: &str,
        next: impl Fn(&[u8]) -> Option<(Option<&[u8]>, &[u8])>,
    ) -> Result<Self, Undecodable> {
        let mut rows = 0;
        let mut rest = payload.as_ref();
        while !rest.is_empty() {
            let (record, after) = next(rest).ok_or_else(|| Undecodable::malformed(malformed))?;
            rest = after;
            rows += usize::from(record.is_some());
            if rows > limits.rows_max {
                return Err(Undecodable::too_many_rows(limits.rows_max));
            }
        }
        let counted = Self { stream: Arc::clone(stream), payload, rows };
        limits.check(counted.bytes())?;
        Ok(counted)
    }

    /// How many records there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The most memory that the records take once they are decoded.
    #[must_use]
    pub fn bytes(&self) -> usize {
        columns::bytes(&self.stream, self.rows, self.payload.len())
    }
}
