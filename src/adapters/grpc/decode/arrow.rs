//! Arrow: IPC stream bytes, or record batches as Flight delivers them.
//!
//! Columns are found by name. A column of the declared type is taken as it is, without a copy; another one
//! is cast where no value changes its meaning (narrower numbers, dictionaries, other string layouts, other
//! units of time), or read value by value (`spelled`).

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow_buffer::Buffer;
use arrow_cast::{CastOptions, cast_with_options};
use arrow_ipc::reader::StreamDecoder;
use arrow_schema::DataType;
use arrow_select::concat::concat_batches;
use bytes::Bytes;

use crate::domain::batch::Candidate;
use crate::domain::refusal::{Reason, Refusal};
use crate::domain::stream::{FieldType, Stream, Undeclared};

use super::{Decoded, Undecodable};

mod direct;
mod spelled;

pub use direct::Layout;

/// Decodes IPC stream bytes. `layout` is what is kept between requests of the same call.
///
/// # Errors
/// When they are no Arrow stream, hold too many records, or a column as a whole cannot be taken.
pub fn decode(
    layout: &mut Layout,
    stream: &Arc<Stream>,
    payload: Bytes,
    rows_max: usize,
) -> Result<Decoded, Undecodable> {
    // Arrow's reader panics on some malformed offsets and lengths. It holds no state of ours, and a layout
    // is replaced as a whole.
    let read = AssertUnwindSafe(|| match direct::read(layout, stream, &payload, rows_max) {
        Some(columns) => Ok((columns, Vec::new(), 0)),
        None => columns_of(stream, &read(payload, rows_max)?),
    });
    let (columns, refusals, dropped) = panic::catch_unwind(read).unwrap_or_else(|_| Err(malformed()))?;
    Ok(Decoded { candidate: Candidate::new(Arc::clone(stream), columns, refusals), dropped })
}

pub(in crate::adapters::grpc) fn malformed() -> Undecodable {
    Undecodable::malformed("the payload is not an Arrow IPC stream")
}

fn read(payload: Bytes, rows_max: usize) -> Result<RecordBatch, Undecodable> {
    let malformed = |_| malformed();
    let mut decoder = StreamDecoder::new();
    let mut rest = Buffer::from(payload);
    let mut batches = Vec::new();
    let mut rows = 0;
    while !rest.is_empty() {
        let Some(batch) = decoder.decode(&mut rest).map_err(malformed)? else { continue };
        rows += batch.num_rows();
        if rows > rows_max {
            return Err(Undecodable::too_many_rows(rows_max));
        }
        batches.push(batch);
    }
    decoder.finish().map_err(malformed)?;
    let Some(schema) = decoder.schema() else {
        return Err(Undecodable::malformed("the payload holds no Arrow schema"));
    };
    match batches.len() {
        1 => Ok(batches.swap_remove(0)),
        _ => concat_batches(&schema, &batches).map_err(malformed),
    }
}

/// Takes a record batch of any schema.
///
/// # Errors
/// When a column as a whole cannot be taken: it is not declared, or its type cannot become the declared one.
pub fn from_batch(stream: &Arc<Stream>, batch: &RecordBatch) -> Result<Decoded, Undecodable> {
    let (columns, refusals, dropped) = columns_of(stream, batch)?;
    Ok(Decoded { candidate: Candidate::new(Arc::clone(stream), columns, refusals), dropped })
}

/// The stream's columns, the refused records and how many values were dropped.
fn columns_of(stream: &Stream, batch: &RecordBatch) -> Result<(RecordBatch, Vec<Refusal>, u32), Undecodable> {
    let rows = batch.num_rows();
    let mut dropped = 0;
    for field in batch.schema_ref().fields() {
        if stream.position(field.name()).is_some() {
            continue;
        }
        match stream.undeclared {
            Undeclared::Drop => dropped += rows,
            Undeclared::Refuse => {
                let name: String = field.name().chars().take(64).collect();
                let message = format!("column `{name}` is not declared");
                return Err(Undecodable { reason: Reason::UndeclaredField, field: Some(name.into()), message });
            }
        }
    }
    let mut refusals = Vec::new();
    let mut columns = Vec::with_capacity(stream.fields.len());
    for field in &stream.fields {
        let column = match batch.column_by_name(&field.name) {
            None => new_null_array(&field.field_type.arrow(), rows),
            Some(column) => {
                let name: Arc<str> = field.name.as_str().into();
                convert(column, field.field_type, &name, &mut refusals)?
            }
        };
        columns.push(column);
    }
    // A record has one refusal: the first field's at fault. They stand in the order of the records.
    refusals.sort_by_key(|refusal| refusal.index);
    refusals.dedup_by_key(|refusal| refusal.index);
    let columns = RecordBatch::try_new(Arc::clone(&stream.schema), columns)
        .map_err(|_| Undecodable::malformed("the columns do not fit the stream"))?;
    Ok((columns, refusals, u32::try_from(dropped).unwrap_or(u32::MAX)))
}

fn convert(
    column: &ArrayRef,
    to: FieldType,
    name: &Arc<str>,
    refusals: &mut Vec<Refusal>,
) -> Result<ArrayRef, Undecodable> {
    let target = to.arrow();
    if *column.data_type() == target {
        return Ok(Arc::clone(column));
    }
    // The time zone is only how a timestamp is shown.
    if let DataType::Timestamp(arrow_schema::TimeUnit::Microsecond, Some(_)) = column.data_type()
        && to == FieldType::Timestamp
    {
        let values = column.as_primitive::<arrow_array::types::TimestampMicrosecondType>();
        return Ok(Arc::new(values.clone().with_timezone_opt::<Arc<str>>(None)));
    }
    let wrong = || Undecodable {
        reason: Reason::WrongType,
        field: Some(Arc::clone(name)),
        message: format!("column `{name}` is {}, and a {to} is declared", column.data_type()),
    };
    if let Some(spelled::Read { column, wrong }) = spelled::read(column, to).map_err(|_| wrong())? {
        let refuse =
            |(index, hint)| Refusal { field: Some(Arc::clone(name)), hint, ..Refusal::new(index, Reason::WrongType) };
        refusals.extend(wrong.into_iter().map(refuse));
        return Ok(column);
    }
    if !keeps_meaning(column.data_type(), to) {
        return Err(wrong());
    }
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let cast = cast_with_options(column, &target, &options).map_err(|_| wrong())?;
    if cast.logical_null_count() > column.logical_null_count() {
        for row in 0..cast.len() {
            if cast.is_null(row) && column.is_valid(row) {
                let index = u32::try_from(row).unwrap_or(u32::MAX);
                refusals.push(Refusal { field: Some(Arc::clone(name)), ..Refusal::new(index, Reason::WrongType) });
            }
        }
    }
    Ok(cast)
}

fn keeps_meaning(from: &DataType, to: FieldType) -> bool {
    if let DataType::Dictionary(_, values) = from {
        return keeps_meaning(values, to);
    }
    match to {
        FieldType::Bool => matches!(from, DataType::Boolean),
        FieldType::Int64 => from.is_integer(),
        FieldType::Float32 => {
            matches!(from, DataType::Float16 | DataType::Float32 | DataType::Float64) || from.is_integer()
        }
        FieldType::Float64 => from.is_floating() || from.is_integer(),
        FieldType::String => matches!(from, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
        FieldType::Timestamp => matches!(from, DataType::Timestamp(..) | DataType::Date64 | DataType::Date32),
    }
}

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod tests;
