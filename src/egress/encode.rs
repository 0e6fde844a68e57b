//! Releases as bytes: JSON lines, or an Arrow IPC stream. Takes nothing but [`Released`]; of a [`Widest`], which holds
//! nothing of a record, it tells the size.
//!
//! JSON lines: one object per cell, with the release's columns, the group keys and the metrics as flat
//! keys in that order; times in RFC 3339, a metric without a value is null, a histogram an array.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_ipc::writer::{FileWriter, StreamWriter};
use arrow_schema::{ArrowError, DataType};
use serde_json::{Map, Number, Value};

use crate::domain::policy::{Released, Widest};

/// How releases are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON lines.
    JsonLines,
    /// Arrow IPC: the file format in files, the stream format in messages.
    Arrow,
}

impl Format {
    /// Every format with its name in the configuration.
    pub const NAMES: [(&'static str, Self); 2] = [("jsonl", Self::JsonLines), ("arrow", Self::Arrow)];

    /// The file name's extension.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::JsonLines => "jsonl",
            Self::Arrow => "arrow",
        }
    }

    /// The media type of a message.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::JsonLines => "application/x-ndjson",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// The cells of a release as so many messages or fewer, in order, with as many cells in each but the last.
///
/// # Errors
/// When Arrow cannot write the columns.
pub fn parts(released: &Released, format: Format, parts: usize) -> Result<Vec<Vec<u8>>, ArrowError> {
    let cells = released.cells();
    let rows = cells.num_rows();
    let each = rows.div_ceil(parts.max(1)).max(1);
    let slices = (0..rows).step_by(each).map(|from| cells.slice(from, each.min(rows - from)));
    slices.map(|cells| message(&cells, format)).collect()
}

/// The bytes of a message of one cell, at most.
///
/// # Errors
/// When Arrow cannot write the columns.
pub fn widest(widest: &Widest, format: Format) -> Result<usize, ArrowError> {
    message(widest.cells(), format).map(|message| message.len())
}

fn message(cells: &RecordBatch, format: Format) -> Result<Vec<u8>, ArrowError> {
    match format {
        Format::JsonLines => Ok(json_lines(cells)),
        Format::Arrow => {
            let mut writer = StreamWriter::try_new(Vec::new(), &cells.schema())?;
            writer.write(cells)?;
            writer.into_inner()
        }
    }
}

/// A file with all cells of releases of one dataset, which have the same columns.
///
/// # Errors
/// When Arrow cannot write the columns.
pub fn file(releases: &[Released], format: Format) -> Result<Vec<u8>, ArrowError> {
    match (format, releases.first()) {
        (Format::JsonLines, _) => Ok(releases.iter().flat_map(|released| json_lines(released.cells())).collect()),
        (Format::Arrow, None) => Ok(Vec::new()),
        (Format::Arrow, Some(first)) => {
            let mut writer = FileWriter::try_new(Vec::new(), &first.cells().schema())?;
            releases.iter().try_for_each(|released| writer.write(released.cells()))?;
            writer.into_inner()
        }
    }
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
