//! Releases as bytes: JSON lines, plain or compressed; columns as Arrow IPC, Parquet or protobuf. Takes nothing but
//! [`Released`]; of a [`Widest`], which holds nothing of a record, it tells the size.
//!
//! JSON lines: one object per cell, with the release's columns, the group keys and the metrics as flat
//! keys in that order; times in RFC 3339, a metric without a value is null, a histogram an array. Columns have the same
//! names and the same order, in files (`columns`) and in messages (`message`).

use std::io;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, DataType};
use serde_json::{Map, Number, Value};

use crate::domain::policy::{Reduced, Released, Widest};

mod columns;
mod message;
mod proto;

/// How releases are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON lines.
    JsonLines,
    /// JSON lines, compressed by zstd.
    JsonLinesZstd,
    /// Arrow IPC: in files the file format with buffers that are compressed by zstd; in messages the stream format, which
    /// is compressed as a whole.
    Arrow,
    /// Parquet, for files.
    Parquet,
    /// Protobuf, for messages.
    Protobuf,
}

impl Format {
    /// Every format with its name in the configuration.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("jsonl", Self::JsonLines),
        ("jsonl-zstd", Self::JsonLinesZstd),
        ("arrow", Self::Arrow),
        ("parquet", Self::Parquet),
        ("protobuf", Self::Protobuf),
    ];

    /// Whether files may have it.
    #[must_use]
    pub fn is_for_files(self) -> bool {
        self != Self::Protobuf
    }

    /// Whether messages may have it.
    #[must_use]
    pub fn is_for_messages(self) -> bool {
        self != Self::Parquet
    }

    /// The extension of a file of releases.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::JsonLines => "jsonl",
            Self::JsonLinesZstd => "jsonl.zst",
            Self::Arrow => "arrow",
            Self::Parquet => "parquet",
            Self::Protobuf => "pb",
        }
    }

    /// The extension of a file that holds what a message would have held.
    #[must_use]
    pub fn message_extension(self) -> &'static str {
        match self {
            Self::Arrow => "arrows.zst",
            other => other.extension(),
        }
    }

    /// What is said of a message beside its value.
    #[must_use]
    pub fn content(self) -> Content {
        let (media_type, is_compressed, schema) = match self {
            Self::JsonLines => ("application/x-ndjson", false, "urn:bailiwick:cells:jsonl:1"),
            Self::JsonLinesZstd => ("application/x-ndjson", true, "urn:bailiwick:cells:jsonl:1"),
            Self::Arrow => ("application/vnd.apache.arrow.stream", true, "urn:bailiwick:cells:arrow:3"),
            Self::Parquet => ("application/vnd.apache.parquet", false, "urn:bailiwick:cells:parquet:1"),
            Self::Protobuf => ("application/protobuf", false, "urn:bailiwick:cells:protobuf:1"),
        };
        Content { media_type, encoding: is_compressed.then_some("zstd"), schema }
    }
}

/// What is said of a message beside its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// The media type, when it is decompressed.
    pub media_type: &'static str,
    /// How it is compressed, by the names of HTTP.
    pub encoding: Option<&'static str>,
    /// Which columns there are and how they are laid out, with the version of that, as a URI.
    pub schema: &'static str,
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
    /// Files have no such format. The configuration refuses it.
    #[error("protobuf is for messages")]
    NotForFiles,
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
    let of_smaller = released.made_smaller().map_or(&[][..], Reduced::columns);
    slices.map(|cells| message(&cells, format, of_smaller)).collect()
}

/// The bytes of a message of one cell, at most.
///
/// # Errors
/// When the columns cannot be written.
pub fn widest(widest: &Widest, format: Format) -> Result<usize, Error> {
    let cells = widest.cells();
    Ok(match format {
        // What is as wide can be compressed less well.
        Format::JsonLinesZstd => zstd::compress_bound(json_lines(cells).len()),
        Format::Arrow => zstd::compress_bound(message::arrow(cells, &[])?.len()),
        Format::JsonLines | Format::Parquet | Format::Protobuf => message(cells, format, &[])?.len(),
    })
}

/// A message of cells, which have these columns because their release was made smaller.
fn message(cells: &RecordBatch, format: Format, of_smaller: &[&'static str]) -> Result<Vec<u8>, Error> {
    match format {
        Format::Arrow => Ok(compressed(&message::arrow(cells, of_smaller)?)?),
        Format::Protobuf => Ok(message::protobuf(cells, of_smaller)?),
        Format::JsonLines | Format::JsonLinesZstd | Format::Parquet => written(std::slice::from_ref(cells), format),
    }
}

/// A file with all cells of releases of one dataset, which have the same columns. Of whole releases beside smaller ones,
/// the columns that those have besides are null.
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
        Format::JsonLinesZstd => Ok(compressed(&lines())?),
        Format::Arrow => Ok(columns::arrow(cells)?),
        Format::Parquet => columns::parquet(cells),
        Format::Protobuf => Err(Error::NotForFiles),
    }
}

/// How hard zstd tries. Cells are few and leave once: bytes count more than time.
const ZSTD_LEVEL: i32 = 19;
/// More bytes than that take seconds at that level.
const ZSTD_BYTES: usize = 1 << 20;
/// How hard it tries then.
const ZSTD_LEVEL_OF_MANY: i32 = 9;

fn compressed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    zstd::bulk::compress(bytes, if bytes.len() > ZSTD_BYTES { ZSTD_LEVEL_OF_MANY } else { ZSTD_LEVEL })
}

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
