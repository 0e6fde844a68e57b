//! Records as they stand in an entry: column after column, each as the schema in the catalog says.
//!
//! First a bit for each column, in bytes: whether it has nulls. Then for each column, if it has nulls, a bit for each
//! value that there is; then its values, little endian: 8 bytes of a `float64`, an `int64` or a timestamp, 4 of a
//! `float32`, a bit of a `bool`. A column of texts has the ends of the texts, 4 bytes each, and then the texts. Nothing is
//! aligned, and nothing says what the catalog says already: a description of 34 columns takes more than one record of
//! them.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, PrimitiveArray, RecordBatch, RecordBatchOptions, StringArray,
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Schema, SchemaRef, TimeUnit};

use crate::domain::binary::Reader;

/// Adds columns of a schema, each of so many rows.
///
/// # Errors
/// When they are not those of the schema.
pub(super) fn write(schema: &Schema, columns: &[&ArrayRef], rows: usize, out: &mut Vec<u8>) -> Result<(), ArrowError> {
    if columns.len() != schema.fields().len() {
        return Err(ArrowError::SchemaError(format!("{} columns, not those declared", columns.len())));
    }
    for (column, field) in columns.iter().zip(schema.fields()) {
        let is_declared = column.data_type() == field.data_type() && (column.null_count() == 0 || field.is_nullable());
        if !is_declared || column.len() != rows {
            return Err(ArrowError::SchemaError(format!("column `{}` is not as it is declared", field.name())));
        }
    }
    out.extend(columns.chunks(8).map(|columns| {
        let bits = columns.iter().enumerate().map(|(bit, column)| u8::from(column.null_count() > 0) << bit);
        bits.fold(0, |byte, bit| byte | bit)
    }));
    for column in columns {
        if let Some(nulls) = column.nulls().filter(|nulls| nulls.null_count() > 0) {
            bits(nulls.inner(), out);
        }
        values(column, out)?;
    }
    Ok(())
}

fn values(column: &ArrayRef, out: &mut Vec<u8>) -> Result<(), ArrowError> {
    match column.data_type() {
        DataType::Float64 => numbers::<Float64Type>(column, out),
        DataType::Float32 => numbers::<Float32Type>(column, out),
        DataType::Int64 => numbers::<Int64Type>(column, out),
        DataType::Timestamp(TimeUnit::Microsecond, None) => numbers::<TimestampMicrosecondType>(column, out),
        DataType::Boolean => bits(column.as_boolean().values(), out),
        DataType::Utf8 => {
            let column = column.as_string::<i32>();
            let (first, ends) = column.value_offsets().split_first().unwrap_or((&0, &[]));
            ends.iter().for_each(|end| out.extend_from_slice(&(end - first).to_le_bytes()));
            let last = ends.last().unwrap_or(first);
            let text = usize::try_from(*first).ok().zip(usize::try_from(*last).ok());
            let text = text.and_then(|(first, last)| column.value_data().get(first..last));
            out.extend_from_slice(text.unwrap_or_default());
        }
        other => return Err(ArrowError::SchemaError(format!("a column of type {other}"))),
    }
    Ok(())
}

/// The bytes of Arrow's buffers are those of the machine.
const _: () = assert!(cfg!(target_endian = "little"), "the journal is written as it is in memory");

fn numbers<T: ArrowPrimitiveType>(column: &ArrayRef, out: &mut Vec<u8>) {
    out.extend_from_slice(column.as_primitive::<T>().values().inner().as_slice());
}

fn bits(bits: &BooleanBuffer, out: &mut Vec<u8>) {
    // Cut to whole bytes, from the first bit on.
    let sliced = bits.sliced();
    out.extend_from_slice(sliced.get(..bits.len().div_ceil(8)).unwrap_or_default());
}

/// Reads columns of a schema, each of so many rows, and nothing more.
///
/// # Errors
/// When the bytes are none.
pub(super) fn read(schema: &SchemaRef, rows: usize, bytes: &[u8]) -> Result<RecordBatch, ArrowError> {
    let mut reader = Reader::new(bytes);
    let fields = schema.fields();
    let with_nulls = reader.raw(fields.len().div_ceil(8)).ok_or_else(cut)?;
    let mut columns = Vec::with_capacity(fields.len());
    for (position, field) in fields.iter().enumerate() {
        let has_nulls = with_nulls.get(position / 8).is_some_and(|byte| byte >> (position % 8) & 1 == 1);
        let nulls = if has_nulls { Some(NullBuffer::new(read_bits(&mut reader, rows)?)) } else { None };
        columns.push(read_values(field.data_type(), rows, nulls, &mut reader)?);
    }
    if !reader.rest().is_empty() {
        return Err(ArrowError::IpcError("there is more than the records".to_owned()));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

fn read_values(
    data_type: &DataType,
    rows: usize,
    nulls: Option<NullBuffer>,
    reader: &mut Reader<'_>,
) -> Result<ArrayRef, ArrowError> {
    Ok(match data_type {
        DataType::Float64 => read_numbers::<Float64Type, 8>(rows, f64::from_le_bytes, nulls, reader)?,
        DataType::Float32 => read_numbers::<Float32Type, 4>(rows, f32::from_le_bytes, nulls, reader)?,
        DataType::Int64 => read_numbers::<Int64Type, 8>(rows, i64::from_le_bytes, nulls, reader)?,
        DataType::Timestamp(TimeUnit::Microsecond, None) => {
            read_numbers::<TimestampMicrosecondType, 8>(rows, i64::from_le_bytes, nulls, reader)?
        }
        DataType::Boolean => Arc::new(BooleanArray::new(read_bits(reader, rows)?, nulls)),
        DataType::Utf8 => {
            let ends = chunks(rows, reader)?;
            let mut offsets = Vec::with_capacity(ends.len() + 1);
            offsets.push(0);
            offsets.extend(ends.iter().map(|end| i32::from_le_bytes(*end)));
            if !offsets.is_sorted() {
                return Err(ArrowError::IpcError("the texts do not follow each other".to_owned()));
            }
            let length = offsets.last().and_then(|last| usize::try_from(*last).ok()).unwrap_or(0);
            let text = Buffer::from(reader.raw(length).ok_or_else(cut)?);
            Arc::new(StringArray::try_new(OffsetBuffer::new(ScalarBuffer::from(offsets)), text, nulls)?)
        }
        other => return Err(ArrowError::SchemaError(format!("a column of type {other}"))),
    })
}

fn read_numbers<T: ArrowPrimitiveType, const N: usize>(
    rows: usize,
    number: impl Fn([u8; N]) -> T::Native,
    nulls: Option<NullBuffer>,
    reader: &mut Reader<'_>,
) -> Result<ArrayRef, ArrowError> {
    let numbers: Vec<T::Native> = chunks(rows, reader)?.iter().map(|bytes| number(*bytes)).collect();
    Ok(Arc::new(PrimitiveArray::<T>::try_new(ScalarBuffer::from(numbers), nulls)?))
}

fn chunks<'r, const N: usize>(rows: usize, reader: &mut Reader<'r>) -> Result<&'r [[u8; N]], ArrowError> {
    let bytes = rows.checked_mul(N).and_then(|bytes| reader.raw(bytes)).ok_or_else(cut)?;
    Ok(bytes.as_chunks().0)
}

fn read_bits(reader: &mut Reader<'_>, rows: usize) -> Result<BooleanBuffer, ArrowError> {
    let bytes = reader.raw(rows.div_ceil(8)).ok_or_else(cut)?;
    Ok(BooleanBuffer::new(Buffer::from(bytes), 0, rows))
}

fn cut() -> ArrowError {
    ArrowError::IpcError("the records are not whole".to_owned())
}

#[cfg(test)]
mod tests {
    use arrow_array::{Float32Array, Float64Array, Int64Array, TimestampMicrosecondArray};
    use proptest::prelude::*;

    use super::*;
    use crate::domain::binary;

    fn rows<T: std::fmt::Debug>(values: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<Option<T>>> {
        prop::collection::vec(prop::option::weighted(0.9, values), 40)
    }

    fn borrowed(columns: &[ArrayRef]) -> Vec<&ArrayRef> {
        columns.iter().collect()
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_whole_and_sliced_and_nothing_else(
            floats in rows(any::<f64>().prop_filter("nan is not equal to itself", |value| !value.is_nan())),
            integers in rows(any::<i64>()),
            texts in rows(".{0,9}"),
            truths in rows(any::<bool>()),
            (from, length) in (0_usize..20, 0_usize..20),
            spoiled in any::<(prop::sample::Index, u8)>(),
        ) {
            let times: Vec<i64> = (0..).take(40).collect();
            let columns: [(_, ArrayRef); 9] = [
                ("f64", Arc::new(Float64Array::from(floats))),
                ("i64", Arc::new(Int64Array::from(integers))),
                ("text", Arc::new(StringArray::from(texts))),
                ("bool", Arc::new(BooleanArray::from(truths))),
                ("time", Arc::new(TimestampMicrosecondArray::from(times))),
                ("f32", Arc::new(Float32Array::from_iter_values((0_u8..40).map(f32::from)))),
                ("plain", Arc::new(StringArray::from_iter_values((0..40).map(|row| row.to_string())))),
                ("true", Arc::new(BooleanArray::from(vec![true; 40]))),
                ("more", Arc::new(Int64Array::from_iter((0..40).map(|row| (row % 3 > 0).then_some(row))))),
            ];
            let columns = columns.map(|(name, column)| (name, column, true));
            let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
            for batch in [batch.clone(), batch.slice(from, length), batch.slice(0, 0)] {
                let mut bytes = Vec::new();
                write(&batch.schema(), &borrowed(batch.columns()), batch.num_rows(), &mut bytes).unwrap();
                prop_assert_eq!(&read(&batch.schema(), batch.num_rows(), &bytes).unwrap(), &batch);
                prop_assert!(read(&batch.schema(), batch.num_rows(), &bytes[..bytes.len() - 1]).is_err());
                prop_assert!(read(&batch.schema(), batch.num_rows() + 8, &bytes).is_err());
                bytes.push(0);
                prop_assert!(read(&batch.schema(), batch.num_rows(), &bytes).is_err());
                bytes.pop();
                // Spoiled bytes are other values, or an error: an entry has a checksum against them.
                let at = spoiled.0.index(bytes.len());
                bytes[at] = spoiled.1;
                let _ = read(&batch.schema(), batch.num_rows(), &bytes);
            }
        }
    }

    /// What this version writes, byte for byte: another layout needs another kind of entry.
    #[test]
    fn columns_are_written_as_they_always_were() {
        let columns: [(_, ArrayRef, _); 6] = [
            ("f64", Arc::new(Float64Array::from(vec![Some(0.5), None, Some(-2.0)])), true),
            ("i64", Arc::new(Int64Array::from(vec![1, -1, 300])), true),
            ("text", Arc::new(StringArray::from(vec![Some("ab"), Some(""), None])), true),
            ("bool", Arc::new(BooleanArray::from(vec![true, false, true])), true),
            ("time", Arc::new(TimestampMicrosecondArray::from(vec![0, 1, 1 << 40])), true),
            ("f32", Arc::new(Float32Array::from(vec![1.0, 2.0, 0.25])), true),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        let mut bytes = Vec::new();
        write(&batch.schema(), &borrowed(batch.columns()), 3, &mut bytes).unwrap();
        let hex = binary::hex(&bytes);
        assert_eq!(hex, include_str!("../../tests/golden/columns-1.hex").trim());
    }

    #[test]
    fn a_record_takes_few_bytes_beside_its_values() {
        let column = || -> (&str, ArrayRef) { ("x", Arc::new(Float64Array::from(vec![1.0]))) };
        let fields: Vec<_> = (0..34).map(|_| column()).collect();
        let schema = Schema::new(
            fields
                .iter()
                .map(|(_, column)| arrow_schema::Field::new("x", column.data_type().clone(), false))
                .collect::<Vec<_>>(),
        );
        let columns: Vec<ArrayRef> = fields.into_iter().map(|(_, column)| column).collect();
        let mut bytes = Vec::new();
        write(&schema, &borrowed(&columns), 1, &mut bytes).unwrap();
        assert_eq!(bytes.len(), 34 * 8 + 5);
    }

    #[test]
    fn columns_that_are_not_declared_are_not_written() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        let strict = Schema::new(vec![arrow_schema::Field::new("x", DataType::Int64, false)]);
        let other = Schema::new(vec![arrow_schema::Field::new("x", DataType::Float64, true)]);
        for (schema, columns, rows) in [(&strict, 1, 2), (&other, 1, 2), (&strict, 0, 2), (&strict, 2, 2)] {
            let columns = vec![&numbers; columns];
            assert!(write(schema, &columns, rows, &mut Vec::new()).is_err());
        }
    }
}
