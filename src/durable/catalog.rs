//! The catalog: what streams were declared as when a segment of the journal was begun. It is the context of the segment.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_ipc::convert::try_schema_from_ipc_buffer;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, Field, Schema, SchemaRef};

use crate::domain::binary::{Reader, Writer};
use crate::domain::stream::Stream;

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

    /// The same as the message that it is.
    pub(super) fn message(&self, stream: &str) -> Option<Vec<u8>> {
        self.schemas.get(stream).cloned()
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

/// The schema of a stream's records in the journal: its fields, then the model's outputs.
pub(super) fn recorded(stream: &Stream, outputs: Vec<Field>) -> SchemaRef {
    let fields = stream.schema.fields().iter().map(|field| Field::clone(field));
    Arc::new(Schema::new(fields.chain(outputs).collect::<Vec<_>>()))
}
