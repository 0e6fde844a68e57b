//! The messages of an Arrow stream, read one after the other: the schema, dictionaries, record batches.
//!
//! Every length and offset is checked before Arrow's reader sees the message. Columns that are not declared are not
//! read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::{RecordBatchDecoder, read_dictionary};
use arrow_ipc::{CompressionType, Endianness, Message, MessageHeader, MetadataVersion, root_as_message_with_opts};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use flatbuffers::VerifierOptions;

use crate::domain::refusal::Reason;
use crate::domain::stream::{Stream, Undeclared};

use super::super::{Limits, Undecodable};
use super::{convert, malformed};

/// The longest schema that is read.
const SCHEMA_BYTES_MAX: usize = 1 << 20;
/// What a column of a batch takes beside its values.
const COLUMN_BYTES: usize = 192;

/// Bounds of the metadata of a message. Its tables may point to the same table or text many times over, so that a short
/// one stands for much.
fn bounds() -> VerifierOptions {
    VerifierOptions { max_depth: 64, max_tables: 65_536, max_apparent_size: 8 << 20, ..VerifierOptions::default() }
}

/// The metadata of a message.
///
/// # Errors
/// When it is none, or stands for more than a schema or a batch may.
pub(crate) fn message(metadata: &[u8]) -> Result<Message<'_>, Undecodable> {
    root_as_message_with_opts(&bounds(), metadata).map_err(|_| malformed())
}

/// What may still be held beside the bytes of the messages.
#[derive(Debug)]
pub(crate) struct Meter {
    left: usize,
    all: usize,
}

impl Meter {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { left: bytes, all: bytes }
    }

    fn take(&mut self, bytes: usize) -> Result<(), Undecodable> {
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => return Err(Undecodable::too_large(self.all - self.left + bytes, self.all)),
        }
        Ok(())
    }
}

/// What the messages of one Arrow stream have said so far.
pub(crate) struct Reader {
    schema: SchemaRef,
    columns: Vec<Option<usize>>,
    /// The positions in the schema of the columns that are declared.
    pub(super) read: Vec<usize>,
    undeclared: usize,
    /// The dictionaries of columns that are read.
    ids: BTreeSet<i64>,
    dictionaries: HashMap<i64, ArrayRef>,
    /// What each dictionary holds.
    held: BTreeMap<i64, usize>,
}

impl Reader {
    /// Reads the schema's message.
    ///
    /// # Errors
    /// When it is none, names a column twice or one that is not declared, or a column's type cannot become the declared
    /// one.
    pub(crate) fn new(stream: &Stream, metadata: &[u8]) -> Result<Self, Undecodable> {
        if metadata.len() > SCHEMA_BYTES_MAX {
            return Err(Undecodable::malformed(format!("the Arrow schema has more than {SCHEMA_BYTES_MAX} bytes")));
        }
        let schema = message(metadata)?.header_as_schema().ok_or_else(malformed)?;
        if schema.endianness() != Endianness::Little {
            return Err(Undecodable::malformed("the Arrow data is big-endian; send it little-endian"));
        }
        Self::of(stream, try_fb_to_schema(schema).map_err(|_| malformed())?)
    }

    pub(super) fn of(stream: &Stream, schema: Schema) -> Result<Self, Undecodable> {
        let mut columns = vec![None; stream.fields.len()];
        let (mut read, mut ids, mut undeclared) = (Vec::new(), BTreeSet::new(), 0);
        let mut names = BTreeSet::new();
        for (position, column) in schema.fields().iter().enumerate() {
            if !names.insert(column.name()) {
                return Err(refused(Reason::Malformed, column, "stands twice in the schema"));
            }
            let Some(field) = stream.position(column.name()) else {
                if stream.undeclared == Undeclared::Refuse {
                    return Err(refused(Reason::UndeclaredField, column, "is not declared"));
                }
                undeclared += 1;
                continue;
            };
            if let Some(declared) = stream.fields.get(field) {
                convert::check(column, declared)?;
            }
            if let Some(place) = columns.get_mut(field) {
                *place = Some(read.len());
            }
            read.push(position);
            if matches!(column.data_type(), DataType::Dictionary(..)) {
                #[expect(deprecated, reason = "the one way to the id that the wire has")]
                ids.extend(column.dict_id());
            }
        }
        let schema = Arc::new(schema);
        Ok(Self { schema, columns, read, undeclared, ids, dictionaries: HashMap::new(), held: BTreeMap::new() })
    }

    /// For each field of the stream its column in a batch that was read.
    pub(crate) fn columns(&self) -> &[Option<usize>] {
        &self.columns
    }

    /// How many columns are not declared.
    pub(crate) fn undeclared(&self) -> usize {
        self.undeclared
    }

    /// The bytes of memory that the dictionaries hold.
    pub(crate) fn dictionary_bytes(&self) -> usize {
        self.held.values().sum()
    }

    /// Reads a dictionary or a record batch.
    ///
    /// # Errors
    /// When it is malformed, compressed or above a limit.
    pub(crate) fn read(
        &mut self,
        message: &Message<'_>,
        body: &Buffer,
        rows_left: usize,
        limits: Limits,
        meter: &mut Meter,
    ) -> Result<Option<RecordBatch>, Undecodable> {
        match message.header_type() {
            MessageHeader::DictionaryBatch => self.dictionary(message, body, meter).map(|()| None),
            MessageHeader::RecordBatch => self.batch(message, body, rows_left, limits, meter).map(Some),
            _ => Err(malformed()),
        }
    }

    fn dictionary(&mut self, message: &Message<'_>, body: &Buffer, meter: &mut Meter) -> Result<(), Undecodable> {
        let dictionary = message.header_as_dictionary_batch().ok_or_else(malformed)?;
        let id = dictionary.id();
        if !self.ids.contains(&id) {
            return Ok(());
        }
        check(&dictionary.data().ok_or_else(malformed)?, body)?;
        let before = self.held.get(&id).copied().unwrap_or(0);
        // One that is added to is copied.
        let held = if dictionary.isDelta() { before + body.len() } else { body.len() };
        meter.take(COLUMN_BYTES + if dictionary.isDelta() { held } else { 0 })?;
        let version = known(message.version())?;
        read_dictionary(body, dictionary, &self.schema, &mut self.dictionaries, &version).map_err(|_| malformed())?;
        self.held.insert(id, held);
        Ok(())
    }

    fn batch(
        &self,
        message: &Message<'_>,
        body: &Buffer,
        rows_left: usize,
        limits: Limits,
        meter: &mut Meter,
    ) -> Result<RecordBatch, Undecodable> {
        let batch = message.header_as_record_batch().ok_or_else(malformed)?;
        let rows = usize::try_from(batch.length()).map_err(|_| malformed())?;
        if rows > rows_left {
            return Err(Undecodable::too_many_rows(limits.rows_max));
        }
        check(&batch, body)?;
        // One without a record is dropped.
        meter.take(if rows == 0 { 0 } else { COLUMN_BYTES * (1 + self.read.len()) })?;
        let version = known(message.version())?;
        let reader = RecordBatchDecoder::try_new(body, batch, Arc::clone(&self.schema), &self.dictionaries, &version);
        let batch = reader.and_then(|reader| reader.with_projection(Some(&self.read)).read_record_batch());
        let batch = batch.map_err(|_| malformed())?;
        // Views are aligned to 16 bytes, the messages of a stream to 8: they may have been copied.
        let views = batch.columns().iter().filter(|column| *column.data_type() == DataType::Utf8View);
        meter.take(views.map(|column| column.len() * size_of::<u128>()).sum())?;
        Ok(batch)
    }
}

fn known(version: MetadataVersion) -> Result<MetadataVersion, Undecodable> {
    if version < MetadataVersion::V4 {
        return Err(Undecodable::malformed("the Arrow data is of a version before 0.8"));
    }
    Ok(version)
}

fn refused(reason: Reason, column: &Field, what: &str) -> Undecodable {
    let name: String = column.name().chars().take(64).collect();
    let message = format!("column `{name}` {what}");
    Undecodable { reason, field: Some(name.into()), message }
}

/// Checks that a batch is not compressed, and that its buffers lie in its body and not upon each other: no more is read
/// of it than it has.
fn check(batch: &arrow_ipc::RecordBatch<'_>, body: &Buffer) -> Result<(), Undecodable> {
    if let Some(compression) = batch.compression() {
        let codec = match compression.codec() {
            CompressionType::LZ4_FRAME => "lz4",
            CompressionType::ZSTD => "zstd",
            _ => "an unknown method",
        };
        return Err(Undecodable::malformed(format!(
            "the Arrow buffers are compressed ({codec}), which is not read here; send them uncompressed"
        )));
    }
    let mut left = body.len();
    for buffer in batch.buffers().ok_or_else(malformed)? {
        let (offset, length) = (usize::try_from(buffer.offset()), usize::try_from(buffer.length()));
        let (Ok(offset), Ok(length)) = (offset, length) else { return Err(malformed()) };
        if offset.checked_add(length).is_none_or(|end| end > body.len()) {
            return Err(malformed());
        }
        left = left.checked_sub(length).ok_or_else(|| Undecodable::malformed("Arrow buffers lie upon each other"))?;
    }
    for node in batch.nodes().ok_or_else(malformed)? {
        if node.length() < 0 || node.length() > i64::from(i32::MAX) || node.null_count() > node.length() {
            return Err(malformed());
        }
    }
    Ok(())
}
