//! Arrow: IPC stream bytes, or the messages that Flight delivers.
//!
//! Columns are found by name. A column of the declared type is taken as it is, without a copy; another one
//! is cast where no value changes its meaning (narrower numbers, dictionaries, other string layouts, other
//! units of time), or read value by value (`spelled`). A timestamp needs its time zone, as in every payload. What a cast
//! takes is worked out before it is done: a dictionary's one long word may stand in every record, and of a short
//! request become gigabytes.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::MessageHeader;
use bytes::Bytes;

use crate::domain::batch::Candidate;
use crate::domain::refusal::Refusal;
use crate::domain::stream::Stream;
use crate::logging::panics::expected;

use super::columns::ROW_BYTES;
use super::{Decoded, Limits, Undecodable};

mod convert;
mod direct;
mod reader;
mod spelled;

pub(super) use direct::Direct;
pub use direct::Layout;
pub(crate) use reader::{Meter, Reader, message};

use convert::Converter;

/// Record batches that were read and not cast.
pub struct Opened {
    pub(super) stream: Arc<Stream>,
    batches: Batches,
    rows: usize,
    bytes: usize,
}

enum Batches {
    /// One batch of the stream's columns.
    Direct(Direct),
    Any {
        /// For each field its column.
        columns: Vec<Option<usize>>,
        /// How many columns are not declared.
        undeclared: usize,
        batches: Vec<RecordBatch>,
    },
}

/// Reads IPC stream bytes. `layout` is what is kept between requests of the same call. Nothing is cast, and what is held
/// beside the payload is at most as much again.
///
/// # Errors
/// When they are no Arrow stream, a column as a whole cannot be taken, or they are above the limits.
pub fn open(layout: &mut Layout, stream: &Arc<Stream>, payload: Bytes, limits: Limits) -> Result<Opened, Undecodable> {
    // Arrow's reader panics on some malformed offsets and lengths. It holds no state of ours, and a layout is replaced as
    // a whole.
    let read = AssertUnwindSafe(|| read(layout, stream, payload, limits));
    expected(read).unwrap_or_else(|_| Err(malformed()))
}

fn read(layout: &mut Layout, stream: &Arc<Stream>, payload: Bytes, limits: Limits) -> Result<Opened, Undecodable> {
    let opened = match direct::read(layout, stream, &payload, limits.rows_max) {
        Some(direct) if direct.bytes() <= limits.bytes_max => {
            let (rows, bytes) = (direct.rows(), direct.bytes());
            Opened { stream: Arc::clone(stream), rows, bytes, batches: Batches::Direct(direct) }
        }
        _ => read_any(stream, payload, limits)?,
    };
    limits.check(opened.bytes)?;
    Ok(opened)
}

fn read_any(stream: &Arc<Stream>, payload: Bytes, limits: Limits) -> Result<Opened, Undecodable> {
    // The bytes of a request are not aligned: one copy of them all is, and takes their place.
    let mut rest = Buffer::from_slice_ref(&payload);
    drop(payload);
    let mut meter = Meter::new(rest.len() + OVERHEAD_BYTES);
    let (mut reader, mut batches, mut rows) = (None, Vec::new(), 0);
    let payload = rest.len();
    while let Some(metadata) = direct::next_metadata(&mut rest).ok_or_else(malformed)? {
        let message = message(&metadata)?;
        let body = usize::try_from(message.bodyLength()).ok().and_then(|length| direct::take(&mut rest, length));
        let body = body.ok_or_else(malformed)?;
        match message.header_type() {
            MessageHeader::Schema if reader.is_none() && body.is_empty() => {
                reader = Some(Reader::new(stream, &metadata)?);
            }
            MessageHeader::NONE => {}
            _ => {
                let reader =
                    reader.as_mut().ok_or_else(|| Undecodable::malformed("the payload holds no Arrow schema"))?;
                if let Some(batch) = reader.read(&message, &body, limits.rows_max - rows, limits, &mut meter)? {
                    rows += batch.num_rows();
                    if batch.num_rows() > 0 {
                        batches.push(batch);
                    }
                }
            }
        }
    }
    let reader = reader.ok_or_else(|| Undecodable::malformed("the payload holds no Arrow schema"))?;
    let bytes = payload + bytes_of(stream, &reader, &batches);
    let (columns, undeclared) = (reader.columns().to_vec(), reader.undeclared());
    Ok(Opened { stream: Arc::clone(stream), batches: Batches::Any { columns, undeclared, batches }, rows, bytes })
}

/// What the headers of a few batches may take beside as many bytes as the payload has.
const OVERHEAD_BYTES: usize = 16 * 1024;

/// The memory that batches take when they are cast, and once more if they have to be put together.
fn bytes_of(stream: &Stream, reader: &Reader, batches: &[RecordBatch]) -> usize {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let mut bytes = rows * ROW_BYTES;
    for batch in batches {
        let converter = Converter::new(stream, reader.columns(), batch);
        bytes += converter.bytes(batches.len() == 1);
    }
    if batches.len() == 1 { bytes } else { bytes * 2 }
}

impl Opened {
    /// How many records there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The most memory that the records take once they are decoded.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What can be added to the columns of other requests.
    pub(super) fn parts(&self) -> Parts<'_> {
        match &self.batches {
            Batches::Direct(direct) => Parts::Direct(direct),
            Batches::Any { columns, undeclared, batches } => {
                Parts::Any(Any { stream: &self.stream, columns, batches, undeclared: *undeclared, rows: self.rows })
            }
        }
    }
}

/// How the records of a request become columns.
pub(super) enum Parts<'o> {
    /// Their values can be added to other columns.
    Direct(&'o Direct),
    /// They have columns of their own.
    Any(Any<'o>),
}

/// Record batches that have to be cast.
pub(super) struct Any<'o> {
    stream: &'o Arc<Stream>,
    columns: &'o [Option<usize>],
    batches: &'o [RecordBatch],
    undeclared: usize,
    rows: usize,
}

impl Any<'_> {
    /// Makes the stream's columns.
    ///
    /// # Errors
    /// When a column as a whole cannot be taken.
    pub(super) fn decode(&self) -> Result<Decoded, Undecodable> {
        let dropped = u32::try_from(self.undeclared.saturating_mul(self.rows)).unwrap_or(u32::MAX);
        let cast = || cast(self.stream, self.columns, self.batches);
        let (columns, refusals) = expected(AssertUnwindSafe(cast)).unwrap_or_else(|_| Err(malformed()))?;
        Ok(Decoded { candidate: Candidate::new(Arc::clone(self.stream), columns, refusals), dropped })
    }
}

type Cast = (RecordBatch, Vec<Refusal>);

fn cast(stream: &Arc<Stream>, columns: &[Option<usize>], batches: &[RecordBatch]) -> Result<Cast, Undecodable> {
    let mut refusals = Vec::new();
    let (mut done, mut rows) = (Vec::with_capacity(batches.len()), 0);
    for batch in batches {
        done.push(Converter::new(stream, columns, batch).convert(rows, &mut refusals)?);
        rows += batch.num_rows();
    }
    let columns = match done.len() {
        1 => done.swap_remove(0),
        _ => arrow_select::concat::concat_batches(&stream.schema, &done).map_err(|_| malformed())?,
    };
    // A record has one refusal: the first field's at fault. They stand in the order of the records.
    refusals.sort_by_key(|refusal| refusal.index);
    refusals.dedup_by_key(|refusal| refusal.index);
    Ok((columns, refusals))
}

/// A batch of Flight, read by its call's reader: the memory it takes when it is decoded, and how to do it.
///
/// # Errors
/// When that is above the limit.
pub(crate) fn opened(
    stream: &Arc<Stream>,
    reader: &Reader,
    batch: RecordBatch,
    bytes: usize,
    limits: Limits,
) -> Result<Opened, Undecodable> {
    let rows = batch.num_rows();
    let bytes = bytes + bytes_of(stream, reader, std::slice::from_ref(&batch));
    limits.check(bytes)?;
    let (columns, undeclared) = (reader.columns().to_vec(), reader.undeclared());
    let batches = Batches::Any { columns, undeclared, batches: vec![batch] };
    Ok(Opened { stream: Arc::clone(stream), batches, rows, bytes })
}

pub(crate) fn malformed() -> Undecodable {
    Undecodable::malformed("the payload is not an Arrow IPC stream")
}

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod tests;
