//! Cells as columns of a file, all of it together. What is the same in many cells (the release's columns, labels of keys) is
//! written once: Arrow by dictionaries that hold nothing but what the cells do, Parquet by itself.
//!
//! Version 1 of Arrow files, before, had a batch for each release, texts as texts, and no compression. They say nothing of
//! their version; those of version 2 have it in the schema's metadata.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, new_null_array};
use arrow_cast::cast;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use arrow_ipc::{CompressionType, MetadataVersion};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use arrow_select::concat::concat_batches;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::{Error, ZSTD_LEVEL};
use crate::domain::policy::{DEGRADED, RELEASE_COLUMNS};

/// The key of the version in a schema's metadata.
pub(super) const VERSION_KEY: &str = "bailiwick.cells";
/// The version of the columns in Arrow files.
const ARROW_VERSION: &str = "2";
/// The version of the columns in Parquet files.
const PARQUET_VERSION: &str = "1";
/// Who wrote a Parquet file. Not which version of the program: the same cells give the same bytes.
const CREATED_BY: &str = "bailiwick";

/// Buffers begin at multiples of so many bytes: as few as the format allows, because they are short.
pub(super) const ALIGNMENT: usize = 8;

/// An Arrow IPC file of cells that have the same columns.
pub(super) fn arrow(cells: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let Some(cells) = together(cells)? else { return Ok(Vec::new()) };
    let cells = shared(&cells, HashMap::from([(VERSION_KEY.to_owned(), ARROW_VERSION.to_owned())]))?;
    let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)?;
    let options = options.try_with_compression(Some(CompressionType::ZSTD))?;
    let mut writer = FileWriter::try_new_with_options(Vec::new(), &cells.schema(), options)?;
    writer.write(&cells)?;
    writer.into_inner()
}

/// A Parquet file of cells that have the same columns.
pub(super) fn parquet(cells: &[RecordBatch]) -> Result<Vec<u8>, Error> {
    let Some(cells) = together(cells)? else { return Ok(Vec::new()) };
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        // They help who reads a part of large files. These are small, and read as a whole.
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_created_by(CREATED_BY.to_owned())
        .set_key_value_metadata(Some(vec![KeyValue::new(VERSION_KEY.to_owned(), PARQUET_VERSION.to_owned())]))
        .build();
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), cells.schema(), options)?;
    writer.write(&cells)?;
    Ok(writer.into_inner()?)
}

/// All cells. Those of whole releases have no text in the columns that say how others were made smaller.
fn together(cells: &[RecordBatch]) -> Result<Option<RecordBatch>, ArrowError> {
    let Some(first) = cells.first() else { return Ok(None) };
    let smaller = cells.iter().find(|cells| is_smaller(cells)).filter(|_| !cells.iter().all(is_smaller));
    let Some(smaller) = smaller else { return concat_batches(&first.schema(), cells).map(Some) };
    let padded = cells.iter().map(|cells| {
        let null = || new_null_array(&DataType::Utf8, cells.num_rows());
        let column = |field: &Arc<Field>| cells.column_by_name(field.name()).cloned().unwrap_or_else(null);
        RecordBatch::try_new(smaller.schema(), smaller.schema_ref().fields().iter().map(column).collect())
    });
    concat_batches(&smaller.schema(), &padded.collect::<Result<Vec<_>, _>>()?).map(Some)
}

/// Whether cells have the column that says how their release was made smaller.
fn is_smaller(cells: &RecordBatch) -> bool {
    cells.schema_ref().fields().get(RELEASE_COLUMNS.len()).is_some_and(|field| field.name() == DEGRADED)
}

/// The same columns, with texts as dictionaries, and with what the schema's metadata says.
pub(super) fn shared(cells: &RecordBatch, metadata: HashMap<String, String>) -> Result<RecordBatch, ArrowError> {
    let (schema, mut fields, mut columns) = (cells.schema(), Vec::new(), Vec::<ArrayRef>::new());
    for (field, column) in schema.fields().iter().zip(cells.columns()) {
        if field.data_type() == &DataType::Utf8 {
            let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
            columns.push(cast(column, &dictionary)?);
            fields.push(Arc::new(Field::new(field.name(), dictionary, field.is_nullable())));
        } else {
            columns.push(Arc::clone(column));
            fields.push(Arc::clone(field));
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields).with_metadata(metadata)), columns)
}
