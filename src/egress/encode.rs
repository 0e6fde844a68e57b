//! Releases as bytes: JSON lines, plain or compressed; columns as Arrow IPC or Parquet. Takes nothing but [`Released`]; of a
//! [`Widest`], which holds nothing of a record, it tells the size.
//!
//! JSON lines: one object per cell, with the release's columns, the group keys and the metrics as flat
//! keys in that order; times in RFC 3339, a metric without a value is null, a histogram an array. Columns have the same
//! names and the same order (`columns`).

use std::io;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType};
use serde_json::{Map, Number, Value};

use crate::domain::policy::{Released, Widest};

mod columns;

/// How releases are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON lines.
    JsonLines,
    /// JSON lines, compressed by zstd.
    JsonLinesZstd,
    /// Arrow IPC: the file format in files, compressed by zstd; the stream format in messages.
    Arrow,
    /// Parquet.
    Parquet,
}

impl Format {
    /// Every format with its name in the configuration.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("jsonl", Self::JsonLines),
        ("jsonl-zstd", Self::JsonLinesZstd),
        ("arrow", Self::Arrow),
        ("parquet", Self::Parquet),
    ];

    /// The file name's extension.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::JsonLines => "jsonl",
            Self::JsonLinesZstd => "jsonl.zst",
            Self::Arrow => "arrow",
            Self::Parquet => "parquet",
        }
    }

    /// Whether messages may have it, and not only files. What sends messages compresses them itself.
    #[must_use]
    pub fn is_for_messages(self) -> bool {
        matches!(self, Self::JsonLines | Self::Arrow)
    }

    /// The media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::JsonLines => "application/x-ndjson",
            Self::JsonLinesZstd => "application/zstd",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// Why cells could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The columns cannot be written.
    #[error("cannot write the columns")]
    Columns(#[from] ArrowError),
    /// They cannot be written as Parquet.
    #[error("cannot write the columns as Parquet")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// They cannot be compressed.
    #[error("cannot compress the cells")]
    Compress(#[from] io::Error),
}

/// The cells of a release as so many messages or fewer, in order, with as many cells in each but the last.
///
/// # Errors
/// When the columns cannot be written.
pub fn parts(released: &Released, format: Format, parts: usize) -> Result<Vec<Vec<u8>>, Error> {
    let cells = released.cells();
    let rows = cells.num_rows();
    let each = rows.div_ceil(parts.max(1)).max(1);
    let slices = (0..rows).step_by(each).map(|from| cells.slice(from, each.min(rows - from)));
    slices.map(|cells| message(&cells, format)).collect()
}

/// The bytes of a message of one cell, at most.
///
/// # Errors
/// When the columns cannot be written.
pub fn widest(widest: &Widest, format: Format) -> Result<usize, Error> {
    message(widest.cells(), format).map(|message| message.len())
}

fn message(cells: &RecordBatch, format: Format) -> Result<Vec<u8>, Error> {
    match format {
        Format::Arrow => {
            let mut writer = StreamWriter::try_new(Vec::new(), &cells.schema())?;
            writer.write(cells)?;
            Ok(writer.into_inner()?)
        }
        Format::JsonLines | Format::JsonLinesZstd | Format::Parquet => written(std::slice::from_ref(cells), format),
    }
}

/// A file with all cells of releases of one dataset, which have the same columns.
///
/// # Errors
/// When the columns cannot be written.
pub fn file(releases: &[Released], format: Format) -> Result<Vec<u8>, Error> {
    let cells: Vec<RecordBatch> = releases.iter().map(|released| released.cells().clone()).collect();
    written(&cells, format)
}

fn written(cells: &[RecordBatch], format: Format) -> Result<Vec<u8>, Error> {
    let lines = || cells.iter().flat_map(json_lines).collect::<Vec<u8>>();
    match format {
        Format::JsonLines => Ok(lines()),
        Format::JsonLinesZstd => Ok(zstd::bulk::compress(&lines(), ZSTD_LEVEL)?),
        Format::Arrow => Ok(columns::arrow(cells)?),
        Format::Parquet => columns::parquet(cells),
    }
}

/// How hard zstd tries. Cells are few and leave once: bytes count more than time.
const ZSTD_LEVEL: i32 = 19;

fn json_lines(cells: &RecordBatch) -> Vec<u8> {
    let schema = cells.schema();
    let mut lines = Vec::new();
    for row in 0..cells.num_rows() {
        let columns = schema.fields().iter().zip(cells.columns());
        let line: Map<String, Value> =
            columns.map(|(field, column)| (field.name().clone(), json(column, row))).collect();
        lines.extend_from_slice(Value::Object(line).to_string().as_bytes());
        lines.push(b'\n');
    }
    lines
}

fn json(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::Float64 => Number::from_f64(column.as_primitive::<Float64Type>().value(row)).into(),
        DataType::Timestamp(..) => rfc3339(column.as_primitive::<TimestampMicrosecondType>().value(row)).into(),
        DataType::List(_) => {
            let values = column.as_list::<i32>().value(row);
            (0..values.len()).map(|index| json(&values, index)).collect()
        }
        _ => Value::Null,
    }
}

pub use crate::domain::time::rfc3339;

#[cfg(test)]
mod tests;
