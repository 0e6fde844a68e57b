//! The entries of the journal, as bytes.
//!
//! An entry is its kind (one byte) and its parts in the order of the variants below, written with
//! [`domain::binary`](crate::domain::binary). A batch ends with one Arrow IPC record-batch message: the stream's columns, then the
//! model's outputs. Its schema is not repeated: it stands in the [`Catalog`], which is the context of the
//! segment that holds the entry.
//!
//! With keys, that message is sealed ([`seal`](super::seal)): the regimes' ids stand at the end of the head, then
//! the nonce, what was the message, and the tag.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::convert::try_schema_from_ipc_buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};

use crate::domain::binary::{Reader, Writer};
use crate::domain::policy::{RegimeSet, Resident};
use crate::domain::producer::Number;
use crate::domain::stream::Stream;

use super::columns::Columns;
use super::seal::{ADDED_BYTES, Keys, Sealed, Sealer};

const BATCH: u8 = 1;
const HEARD: u8 = 2;
const SPENT: u8 = 3;
const CLOSED: u8 = 4;
const FLUSHED: u8 = 5;
/// A batch whose columns are sealed.
const SEALED: u8 = 6;

/// One entry.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry<'e> {
    /// Records that were accepted.
    Batch(Accepted<'e>),
    /// A producer was heard on a stream, and perhaps came to an event time.
    Heard {
        /// The stream's name.
        stream: &'e str,
        /// The producer's name.
        producer: &'e str,
        /// Microseconds since the Unix epoch.
        event_time: Option<i64>,
    },
    /// A request brought nothing to be counted, and its number is spent.
    Spent {
        /// The producer's name.
        producer: &'e str,
        /// The request's number.
        number: Option<Number>,
    },
    /// The windows of a dataset before `open` were closed.
    Closed {
        /// The dataset's name.
        dataset: &'e str,
        /// The oldest window that stayed open.
        open: i64,
        /// The watermark that closed them.
        watermark: i64,
    },
    /// All open windows of a dataset were released as they were.
    Flushed {
        /// The dataset's name.
        dataset: &'e str,
    },
}

/// What stands before the records of a batch.
#[derive(Debug, PartialEq, Eq)]
pub struct Accepted<'e> {
    /// Who sent them.
    pub producer: &'e str,
    /// Their request's number.
    pub number: Option<Number>,
    /// The wall clock when they were accepted, in microseconds since the Unix epoch.
    pub at: i64,
    /// Their stream's name.
    pub stream: &'e str,
    /// How many there are.
    pub rows: u32,
    /// The newest event time.
    pub newest: Option<i64>,
    /// The digest of the policy they were decided under.
    pub policy: [u8; 32],
    /// The regimes under whose keys the columns are sealed; none: they are not.
    pub regimes: RegimeSet,
    columns: &'e [u8],
}

/// Why the columns of a batch cannot be read.
#[derive(Debug)]
pub enum Unread {
    /// They are erased.
    Sealed(Sealed),
    /// They are not what the catalog says.
    Arrow(ArrowError),
}

impl From<ArrowError> for Unread {
    fn from(error: ArrowError) -> Self {
        Self::Arrow(error)
    }
}

impl Entry<'_> {
    /// The entry as bytes; a batch is written by a [`BatchWriter`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        match self {
            Self::Batch(accepted) => accepted.encode(&mut writer),
            Self::Heard { stream, producer, event_time } => {
                writer.u8(HEARD).text(stream).text(producer).option(*event_time);
            }
            Self::Spent { producer, number: spent } => {
                writer.u8(SPENT).text(producer);
                number(&mut writer, *spent);
            }
            Self::Closed { dataset, open, watermark } => {
                writer.u8(CLOSED).text(dataset).i64(*open).i64(*watermark);
            }
            Self::Flushed { dataset } => {
                writer.u8(FLUSHED).text(dataset);
            }
        }
        writer.finish()
    }

    /// Reads an entry. `None`: it is none that this version writes.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Entry<'_>> {
        let mut reader = Reader::new(bytes);
        Some(match reader.u8()? {
            kind @ (BATCH | SEALED) => Entry::Batch(Accepted {
                producer: reader.text()?,
                number: read_number(&mut reader)?,
                at: reader.i64()?,
                stream: reader.text()?,
                rows: reader.u32()?,
                newest: reader.option()?,
                policy: reader.array()?,
                regimes: if kind == SEALED { read_regimes(&mut reader)? } else { RegimeSet::default() },
                columns: reader.rest(),
            }),
            HEARD => Entry::Heard { stream: reader.text()?, producer: reader.text()?, event_time: reader.option()? },
            SPENT => Entry::Spent { producer: reader.text()?, number: read_number(&mut reader)? },
            CLOSED => Entry::Closed { dataset: reader.text()?, open: reader.i64()?, watermark: reader.i64()? },
            FLUSHED => Entry::Flushed { dataset: reader.text()? },
            _ => return None,
        })
    }
}

impl Accepted<'_> {
    fn encode(&self, writer: &mut Writer) {
        self.encode_head(writer);
        writer.raw(self.columns);
    }

    fn encode_head(&self, writer: &mut Writer) {
        writer.u8(if self.regimes.is_empty() { BATCH } else { SEALED }).text(self.producer);
        number(writer, self.number);
        writer.i64(self.at).text(self.stream).u32(self.rows).option(self.newest).raw(&self.policy);
        if !self.regimes.is_empty() {
            writer.count(self.regimes.len());
            for regime in self.regimes.iter() {
                writer.text(regime);
            }
        }
    }

    fn message(&self, sealer: &mut Sealer) -> Result<Buffer, Sealed> {
        if self.regimes.is_empty() {
            return Ok(Buffer::from(self.columns));
        }
        let mut head = Writer::default();
        self.encode_head(&mut head);
        sealer.open(&self.regimes, &head.finish(), self.columns).map(Buffer::from)
    }
}

fn number(writer: &mut Writer, number: Option<Number>) {
    let Number { epoch, sequence } = number.unwrap_or(Number { epoch: 0, sequence: 0 });
    writer.u8(number.is_some().into()).u64(epoch).u64(sequence);
}

fn read_regimes(reader: &mut Reader<'_>) -> Option<RegimeSet> {
    let mut regimes = BTreeSet::new();
    for _ in 0..reader.count(8)? {
        regimes.insert(reader.text()?.to_owned());
    }
    (!regimes.is_empty()).then(|| Arc::new(regimes))
}

#[expect(clippy::option_option, reason = "the outer one: the bytes are none; the inner one: the request has none")]
fn read_number(reader: &mut Reader<'_>) -> Option<Option<Number>> {
    let present = reader.u8()?;
    let number = Number { epoch: reader.u64()?, sequence: reader.u64()? };
    Some((present != 0).then_some(number))
}

/// The schemas of all streams, each as an Arrow IPC schema message.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    schemas: BTreeMap<String, Vec<u8>>,
}

impl Catalog {
    /// The schemas of streams and their models' outputs.
    ///
    /// # Errors
    /// When Arrow cannot write one, which no valid stream causes.
    pub fn new<'s>(streams: impl Iterator<Item = (&'s Stream, Vec<Field>)>) -> Result<Self, ArrowError> {
        let mut schemas = BTreeMap::new();
        for (stream, outputs) in streams {
            let schema = recorded(stream, outputs);
            let writer = StreamWriter::try_new(Vec::new(), &schema)?;
            schemas.insert(stream.name.clone(), writer.get_ref().clone());
        }
        Ok(Self { schemas })
    }

    /// The schema of a stream's records.
    #[must_use]
    pub fn schema(&self, stream: &str) -> Option<SchemaRef> {
        try_schema_from_ipc_buffer(self.schemas.get(stream)?).ok().map(Arc::new)
    }

    /// The catalog as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.count(self.schemas.len());
        for (stream, schema) in &self.schemas {
            writer.text(stream).bytes(schema);
        }
        writer.finish()
    }

    /// Reads a catalog.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let mut schemas = BTreeMap::new();
        for _ in 0..reader.count(16)? {
            let stream = reader.text()?.to_owned();
            schemas.insert(stream, reader.bytes()?.to_vec());
        }
        Some(Self { schemas })
    }
}

/// Reads the records of one stream's batches.
pub struct BatchReader {
    decoder: StreamDecoder,
}

impl BatchReader {
    /// A reader of a stream's batches, as it was declared when they were written.
    ///
    /// # Errors
    /// When the catalog has no such stream.
    pub fn new(catalog: &Catalog, stream: &str) -> Result<Self, ArrowError> {
        let schema = catalog.schemas.get(stream);
        let schema = schema.ok_or_else(|| ArrowError::SchemaError(format!("no schema of stream `{stream}`")))?;
        let mut decoder = StreamDecoder::new();
        match decoder.decode(&mut Buffer::from(schema.clone()))? {
            None => Ok(Self { decoder }),
            Some(_) => Err(ArrowError::SchemaError("records in place of a schema".to_owned())),
        }
    }

    /// The columns: the stream's fields and the model's outputs.
    ///
    /// # Errors
    /// When they are sealed and do not open, or the bytes are no record batch of the schema.
    pub fn columns(&mut self, accepted: &Accepted<'_>, sealer: &mut Sealer) -> Result<RecordBatch, Unread> {
        let mut message = accepted.message(sealer).map_err(Unread::Sealed)?;
        match self.decoder.decode(&mut message)? {
            Some(batch) if batch.num_rows() == accepted.rows as usize => Ok(batch),
            _ => Err(ArrowError::IpcError("the records are not whole".to_owned()).into()),
        }
    }
}

/// The schema of a stream's records in the journal: its fields, then the model's outputs.
fn recorded(stream: &Stream, outputs: Vec<Field>) -> SchemaRef {
    let fields = stream.schema.fields().iter().map(|field| Field::clone(field));
    Arc::new(Schema::new(fields.chain(outputs).collect::<Vec<_>>()))
}

/// Writes the batches of one stream.
pub struct BatchWriter {
    schema: SchemaRef,
    columns: Columns,
    sealer: Sealer,
}

impl BatchWriter {
    /// A writer of a stream's batches, which seals them if there are keys.
    #[must_use]
    pub fn new(stream: &Stream, outputs: Vec<Field>, keys: Arc<Keys>) -> Self {
        Self { schema: recorded(stream, outputs), columns: Columns::default(), sealer: Sealer::new(keys) }
    }

    /// An entry with records and their scores.
    ///
    /// # Errors
    /// When the scores are not the declared ones, or the records cannot be sealed.
    pub fn encode(
        &mut self,
        resident: &Resident,
        outputs: &[ArrayRef],
        (producer, number): (&str, Option<Number>),
        at: i64,
    ) -> Result<Vec<u8>, ArrowError> {
        let batch = resident.batch();
        let columns: Vec<ArrayRef> = batch.columns().iter().chain(outputs).cloned().collect();
        let mut entry = Writer::with_capacity(usize::try_from(size_bound(resident, producer)).unwrap_or(0));
        let accepted = Accepted {
            producer,
            number,
            at,
            stream: &batch.stream().name,
            rows: u32::try_from(batch.rows()).unwrap_or(u32::MAX),
            newest: batch.event_times().iter().copied().max(),
            policy: *resident.policy().bytes(),
            regimes: if self.sealer.seals() { Arc::clone(resident.regimes()) } else { RegimeSet::default() },
            columns: &[],
        };
        accepted.encode_head(&mut entry);
        let head_bytes = entry.len();
        if self.sealer.seals() {
            entry.raw(&Sealer::make_room());
        }
        let mut entry = entry.finish();
        self.columns.write(&self.schema, &columns, batch.rows(), &mut entry)?;
        if self.sealer.seals() {
            let sealed = self.sealer.seal(resident.regimes(), head_bytes, &mut entry);
            sealed.map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
        }
        Ok(entry)
    }
}

/// At least the bytes that an entry with these records takes, with up to eight outputs of a model.
#[must_use]
pub fn size_bound(resident: &Resident, producer: &str) -> u64 {
    let batch = resident.batch();
    let rows = batch.rows();
    // Alignment, the column's two nodes in the message's head, and its mark of nulls.
    let column_extra = 192 + rows / 8;
    let columns = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Utf8 => {
            let offsets = column.as_string::<i32>().value_offsets();
            let text = offsets.last().unwrap_or(&0) - offsets.first().unwrap_or(&0);
            usize::try_from(text).unwrap_or(0) + (rows + 1) * 4 + column_extra
        }
        _ => rows * 8 + column_extra,
    });
    let outputs = 8 * (rows * 8 + column_extra);
    let regimes = resident.regimes().iter().map(|regime| regime.len() + 8).sum::<usize>() + ADDED_BYTES;
    (columns.sum::<usize>() + outputs + regimes + producer.len() + batch.stream().name.len() + 512) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: Option<Number> = Some(Number { epoch: 7, sequence: 8 });

    #[test]
    fn entries_are_read_as_they_were_written() {
        let accepted = Accepted {
            producer: "till-7",
            number: NUMBER,
            at: 9,
            stream: "payments",
            rows: 3,
            newest: Some(-4),
            policy: [5; 32],
            regimes: RegimeSet::default(),
            columns: &[1, 2, 3],
        };
        let regimes = RegimeSet::new(["eu-gdpr", "uk-gdpr"].map(String::from).into());
        let entries = [
            Entry::Batch(Accepted { regimes, ..accepted }),
            Entry::Batch(accepted),
            Entry::Heard { stream: "payments", producer: "till-7", event_time: None },
            Entry::Spent { producer: "till-7", number: None },
            Entry::Spent { producer: "", number: NUMBER },
            Entry::Closed { dataset: "by_country", open: -1, watermark: i64::MIN },
            Entry::Flushed { dataset: "by_country" },
        ];
        for entry in entries {
            let bytes = entry.encode();
            assert_eq!(Entry::decode(&bytes).as_ref(), Some(&entry));
            for end in 0..bytes.len() {
                // A batch's columns reach to the end, so a cut among them is theirs to notice.
                assert!(Entry::decode(&bytes[..end]).is_none_or(|cut| matches!(cut, Entry::Batch(_)) && cut != entry));
            }
        }
        assert_eq!(Entry::decode(&[200]), None);
        assert_eq!(Entry::decode(&[]), None);
    }
}
