//! The catalog: what streams and datasets were declared as when a segment of the journal was begun. It is the context of
//! the segment.
//!
//! Version 1, until 0.1: how many streams, then each with its schema. It begins with a small number, so version 2 begins
//! with the largest one, then the version; then the streams, each with its schema and its datasets with their shapes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_ipc::convert::try_schema_from_ipc_buffer;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, Field, Schema, SchemaRef};

use crate::domain::binary::{Reader, Writer};
use crate::domain::dataset::{Dataset, Shape};
use crate::domain::name::{DatasetName, StreamName};
use crate::domain::stream::Stream;

/// What stands where version 1 has the number of streams.
const VERSIONED: u64 = u64::MAX;
/// The version of the format.
pub const VERSION: u32 = 2;

/// What all streams and datasets were declared as.
#[derive(Debug, Default, PartialEq)]
pub struct Catalog {
    streams: BTreeMap<StreamName, Declared>,
}

/// What a stream was declared as.
#[derive(Debug, PartialEq)]
struct Declared {
    /// An Arrow IPC schema message: the stream's fields, then the model's outputs.
    schema: Vec<u8>,
    /// The datasets with their shapes. None in version 1.
    datasets: Vec<(DatasetName, Shape)>,
}

impl Catalog {
    /// Streams with their models' outputs and their datasets.
    ///
    /// # Errors
    /// When Arrow cannot write a schema, which no valid stream causes.
    pub fn new<'s>(
        streams: impl Iterator<Item = (&'s Stream, Vec<Field>, &'s [Arc<Dataset>])>,
    ) -> Result<Self, ArrowError> {
        let mut catalog = Self::default();
        for (stream, outputs, datasets) in streams {
            let writer = StreamWriter::try_new(Vec::new(), &recorded(stream, outputs))?;
            let schema = writer.get_ref().clone();
            let datasets = datasets.iter().map(|dataset| (dataset.name.clone(), dataset.shape())).collect();
            catalog.streams.insert(stream.name.clone(), Declared { schema, datasets });
        }
        Ok(catalog)
    }

    /// The schema of a stream's records.
    #[must_use]
    pub fn schema(&self, stream: &StreamName) -> Option<SchemaRef> {
        try_schema_from_ipc_buffer(&self.streams.get(stream)?.schema).ok().map(Arc::new)
    }

    /// The same as the message that it is.
    pub(super) fn message(&self, stream: &StreamName) -> Option<Vec<u8>> {
        self.streams.get(stream).map(|declared| declared.schema.clone())
    }

    /// The datasets of a stream, with their shapes.
    pub(super) fn datasets(&self, stream: &StreamName) -> &[(DatasetName, Shape)] {
        self.streams.get(stream).map_or(&[], |declared| &declared.datasets)
    }

    /// The names of the datasets that shared their cells under the name of this one, its own among them. None: it had cells
    /// of its own.
    pub(super) fn sharing(&self, dataset: &DatasetName) -> Vec<&DatasetName> {
        let datasets = self.streams.values().flat_map(|declared| &declared.datasets);
        let shapes = datasets.filter(|(name, _)| *name == *dataset).map(|(_, shape)| shape);
        shapes.flat_map(Shape::sharing).collect()
    }

    /// The catalog as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u64(VERSIONED).u32(VERSION).count(self.streams.len());
        for (stream, Declared { schema, datasets }) in &self.streams {
            writer.text(stream).bytes(schema).count(datasets.len());
            for (dataset, shape) in datasets {
                writer.text(dataset);
                shape.encode(&mut writer);
            }
        }
        writer.finish()
    }

    /// Reads a catalog.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let is_versioned = Reader::new(bytes).u64()? == VERSIONED;
        if is_versioned && (reader.u64()?, reader.u32()?) != (VERSIONED, VERSION) {
            return None;
        }
        let mut streams = BTreeMap::new();
        for _ in 0..reader.count(16)? {
            let stream = StreamName::read(&mut reader)?;
            let (schema, mut datasets) = (reader.bytes()?.to_vec(), Vec::new());
            if is_versioned {
                for _ in 0..reader.count(9)? {
                    datasets.push((DatasetName::read(&mut reader)?, Shape::decode(&mut reader)?));
                }
            }
            streams.insert(stream, Declared { schema, datasets });
        }
        reader.is_empty().then_some(Self { streams })
    }
}

/// The schema of a stream's records in the journal: its fields, then the model's outputs.
pub(super) fn recorded(stream: &Stream, outputs: Vec<Field>) -> SchemaRef {
    let fields = stream.schema.fields().iter().map(|field| Field::clone(field));
    Arc::new(Schema::new(fields.chain(outputs).collect::<Vec<_>>()))
}
