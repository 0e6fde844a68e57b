//! The records of a batch in an entry of the journal: written with their scores, read again by a replay.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_schema::{ArrowError, DataType, Field, SchemaRef};

use crate::domain::binary::Writer;
use crate::domain::name::StreamName;
use crate::domain::policy::{RegimeSet, Resident};
use crate::domain::stream::Stream;

use super::catalog::{Catalog, recorded};
use super::columns;
use super::entry::{Accepted, Head, Layout, Sent, Unread};
use super::seal::{ADDED_BYTES, Keys, Sealer};

/// Reads the records of one stream's batches.
pub struct BatchReader {
    schema: SchemaRef,
    /// For entries whose columns are an Arrow IPC message.
    decoder: StreamDecoder,
}

impl BatchReader {
    /// A reader of a stream's batches, as it was declared when they were written.
    ///
    /// # Errors
    /// When the catalog has no such stream.
    pub fn new(catalog: &Catalog, stream: &StreamName) -> Result<Self, ArrowError> {
        let none = || ArrowError::SchemaError(format!("no schema of stream `{stream}`"));
        let (schema, message) = catalog.schema(stream).zip(catalog.message(stream)).ok_or_else(none)?;
        let mut decoder = StreamDecoder::new();
        match decoder.decode(&mut Buffer::from(message))? {
            None => Ok(Self { schema, decoder }),
            Some(_) => Err(ArrowError::SchemaError("records in place of a schema".to_owned())),
        }
    }

    /// The columns: the stream's fields and the model's outputs.
    ///
    /// # Errors
    /// When they are sealed and do not open, or the bytes are no records of the schema.
    pub fn columns(&mut self, accepted: &Accepted<'_>, sealer: &mut Sealer) -> Result<RecordBatch, Unread> {
        let bytes = accepted.columns(sealer).map_err(Unread::Sealed)?;
        let rows = accepted.rows() as usize;
        if accepted.layout == Layout::Packed {
            return Ok(columns::read(&self.schema, rows, &bytes)?);
        }
        match self.decoder.decode(&mut Buffer::from(bytes.into_owned()))? {
            Some(batch) if batch.num_rows() == rows => Ok(batch),
            _ => Err(ArrowError::IpcError("the records are not whole".to_owned()).into()),
        }
    }
}

/// Writes the batches of one stream.
pub struct BatchWriter {
    schema: SchemaRef,
    sealer: Sealer,
}

impl BatchWriter {
    /// A writer of a stream's batches, which seals them if there are keys.
    #[must_use]
    pub fn new(stream: &Stream, outputs: Vec<Field>, keys: Arc<Keys>) -> Self {
        Self { schema: recorded(stream, outputs), sealer: Sealer::new(keys) }
    }

    /// An entry with the records of requests, in the order of the requests, and their scores.
    ///
    /// # Errors
    /// When the scores are not the declared ones, or the records cannot be sealed.
    pub fn encode(
        &mut self,
        resident: &Resident,
        outputs: &[ArrayRef],
        requests: &[Sent<'_>],
        at: i64,
    ) -> Result<Vec<u8>, ArrowError> {
        let batch = resident.batch();
        let columns: Vec<&ArrayRef> = batch.columns().iter().chain(outputs).collect();
        let head = requests.iter().map(Sent::bytes).sum::<usize>();
        let bound = size_bound(resident, outputs.len()).saturating_add(head as u64);
        let mut entry = Writer::with_capacity(usize::try_from(bound).unwrap_or(0));
        let regimes = if self.sealer.seals() { Arc::clone(resident.regimes()) } else { RegimeSet::default() };
        let head = Head { at, stream: batch.stream().name.clone(), policy: *resident.policy().bytes(), regimes };
        head.encode(Layout::Packed, requests, &mut entry);
        let head_bytes = entry.len();
        if self.sealer.seals() {
            entry.raw(&Sealer::make_room());
        }
        let mut entry = entry.finish();
        columns::write(&self.schema, &columns, batch.rows(), &mut entry)?;
        if self.sealer.seals() {
            let sealed = self.sealer.seal(resident.regimes(), head_bytes, &mut entry);
            sealed.map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
        }
        Ok(entry)
    }
}

/// At least the bytes that an entry with these records and so many outputs of a model takes, without its requests
/// ([`Sent::bytes`]).
#[must_use]
pub fn size_bound(resident: &Resident, outputs: usize) -> u64 {
    let batch = resident.batch();
    let rows = batch.rows();
    // What says which values there are, and that there are some that are not.
    let column_extra = rows / 8 + 2;
    let columns = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Utf8 => {
            let offsets = column.as_string::<i32>().value_offsets();
            let text = offsets.last().unwrap_or(&0) - offsets.first().unwrap_or(&0);
            usize::try_from(text).unwrap_or(0) + rows * 4 + column_extra
        }
        _ => rows * 8 + column_extra,
    });
    let outputs = outputs * (rows * 8 + column_extra);
    let regimes = resident.regimes().iter().map(|regime| regime.len() + 8).sum::<usize>() + ADDED_BYTES;
    (columns.sum::<usize>() + outputs + regimes + batch.stream().name.len() + 128) as u64
}
