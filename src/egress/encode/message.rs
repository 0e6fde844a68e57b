//! The cells of a release as a message. What is the same in all of them stands once: in Arrow in the schema's metadata, in
//! protobuf in fields of the message. The keys and the metrics are columns.
//!
//! Version 1 of Arrow messages was all columns, without a version in the metadata, and not compressed. There is no
//! version 2: that is what files have.

use std::collections::HashMap;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_ipc::MetadataVersion;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_schema::{ArrowError, DataType};
use prost::Message;

use super::columns::{ALIGNMENT, VERSION_KEY, shared};
use super::proto::column::Values;
use super::proto::{Column, Histograms, Labels, Numbers, Release, Whole};
use super::{Value, json};
use crate::domain::policy::{DEGRADED, RELEASE_COLUMNS, SINCE};

/// The version of the columns in Arrow messages.
const ARROW_VERSION: &str = "3";

/// Arrow IPC in the stream format, which is not compressed yet.
pub(super) fn arrow(cells: &RecordBatch, of_smaller: &[&'static str]) -> Result<Vec<u8>, ArrowError> {
    let (same, columns) = parted(cells, of_smaller)?;
    let text = |column: &ArrayRef| match json(column, 0) {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let mut metadata: HashMap<String, String> =
        same.iter().map(|(name, column)| ((*name).to_owned(), text(column))).collect();
    metadata.insert(VERSION_KEY.to_owned(), ARROW_VERSION.to_owned());
    let columns = shared(&columns, metadata)?;
    let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)?;
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &columns.schema(), options)?;
    writer.write(&columns)?;
    writer.into_inner()
}

/// A `bailiwick.release.v1.Release`.
pub(super) fn protobuf(cells: &RecordBatch, of_smaller: &[&'static str]) -> Result<Vec<u8>, ArrowError> {
    let (same, columns) = parted(cells, of_smaller)?;
    let mut release = Release { cells: position(cells.num_rows())?, ..Release::default() };
    for (name, column) in same {
        let text = || column.as_string_opt::<i32>().map(|texts| texts.value(0).to_owned()).unwrap_or_default();
        let time = || column.as_primitive_opt::<TimestampMicrosecondType>().map_or(0, |times| times.value(0));
        match name {
            "release" => release.release = text(),
            "gateway" => release.gateway = text(),
            "dataset" => release.dataset = text(),
            "policy" => release.policy = text(),
            "window_start" => release.window_start = time(),
            "window_end" => release.window_end = time(),
            DEGRADED => release.degraded = text(),
            SINCE => release.since = text(),
            other => return Err(ArrowError::NotYetImplemented(format!("no field for `{other}`"))),
        }
    }
    for (field, column) in columns.schema().fields().iter().zip(columns.columns()) {
        let without = (0..column.len()).filter(|row| column.is_null(*row)).map(position).collect::<Result<_, _>>()?;
        release.columns.push(Column { name: field.name().clone(), values: Some(values(column)?), without });
    }
    Ok(release.encode_to_vec())
}

/// Columns of which all cells have the same, with their names.
type Same<'c> = Vec<(&'static str, &'c ArrayRef)>;

/// The columns of which all cells have the same, among them those of a smaller release, and those of keys and metrics.
fn parted<'c>(cells: &'c RecordBatch, of_smaller: &[&'static str]) -> Result<(Same<'c>, RecordBatch), ArrowError> {
    let names = RELEASE_COLUMNS.iter().chain(of_smaller).copied();
    let same: Same<'_> = names.filter_map(|name| Some((name, cells.column_by_name(name)?))).collect();
    let fields = cells.schema_ref().fields().iter().enumerate();
    let is_same = |name: &str| same.iter().any(|(of_release, _)| *of_release == name);
    let others: Vec<usize> = fields.filter(|(_, field)| !is_same(field.name())).map(|(at, _)| at).collect();
    Ok((same, cells.project(&others)?))
}

/// The values of a column, without those that are null.
fn values(column: &ArrayRef) -> Result<Values, ArrowError> {
    Ok(match column.data_type() {
        DataType::Utf8 => Values::Labels(labels(column)?),
        DataType::Int64 => {
            let values = column.as_primitive::<Int64Type>().iter().flatten().collect();
            Values::Whole(Whole { values })
        }
        DataType::Float64 => {
            let values = column.as_primitive::<Float64Type>().iter().flatten().collect();
            Values::Numbers(Numbers { values })
        }
        DataType::List(_) => Values::Histograms(histograms(column)?),
        other => return Err(ArrowError::NotYetImplemented(format!("no message for a column of {other}"))),
    })
}

fn labels(column: &ArrayRef) -> Result<Labels, ArrowError> {
    let (mut positions, mut labels) = (HashMap::new(), Labels::default());
    for text in column.as_string::<i32>().iter().flatten() {
        let next = position(positions.len())?;
        let of_cell = *positions.entry(text).or_insert(next);
        if of_cell == next {
            labels.labels.push(text.to_owned());
        }
        labels.of_cells.push(of_cell);
    }
    Ok(labels)
}

fn histograms(column: &ArrayRef) -> Result<Histograms, ArrowError> {
    let mut histograms = Histograms::default();
    let mut at = 0;
    for ranges in column.as_list::<i32>().iter().flatten() {
        histograms.ranges = position(ranges.len())?;
        for count in ranges.as_primitive::<Int64Type>() {
            match count {
                Some(count) => histograms.counts.push(count),
                None => histograms.without.push(position(at)?),
            }
            at += 1;
        }
    }
    Ok(histograms)
}

fn position(number: usize) -> Result<u32, ArrowError> {
    u32::try_from(number).map_err(|_| ArrowError::InvalidArgumentError("more cells than a message may have".to_owned()))
}
