//! Columns of another kind than the declared one, where every value says by itself whether it is one of the declared type:
//! texts, by the spellings of every other payload ([`crate::decode::spelling`]), and numbers that are
//! whole or near enough. A value that is none refuses its record, not the request.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float16Type, Float32Type, Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{ArrowError, DataType};
use arrow_select::take::take;

use crate::decode::columns;
use crate::decode::spelling::{self, Unspelled};
use crate::domain::refusal::Hint;
use crate::domain::stream::FieldType;

/// A column of the declared type, and the positions of the values that are none of it.
pub(super) struct Read {
    pub(super) column: ArrayRef,
    pub(super) wrong: Vec<(u32, Option<Hint>)>,
}

/// What a value takes beside itself while it is read: its bits, and its place among those that are missing and wrong.
pub(super) const ROW_BYTES: usize = 40;
/// A longer text spells no number and no time, and is not looked at: views let one long text stand in every record.
const SPELLED_BYTES_MAX: usize = 1_024;

/// Whether columns of a type are read so.
pub(super) fn is_read(from: &DataType, to: FieldType) -> bool {
    match (from, to) {
        (DataType::Dictionary(_, words), _) => is_read(words, to),
        (_, FieldType::String) => false,
        (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, _) => true,
        (from, FieldType::Timestamp) if from.is_integer() => true,
        (DataType::Float16 | DataType::Float32 | DataType::Float64, FieldType::Int64 | FieldType::Timestamp) => true,
        (DataType::Float64, FieldType::Float32) => true,
        _ => false,
    }
}

/// Reads a column value by value. `None`: its type is not read so.
///
/// # Errors
/// When Arrow cannot take the values of a dictionary apart.
pub(super) fn read(column: &ArrayRef, to: FieldType) -> Result<Option<Read>, ArrowError> {
    let none = Unspelled(None);
    let spelled = move |text: &str| if text.len() <= SPELLED_BYTES_MAX { spelling::bits(text, to) } else { Err(none) };
    let bits: Box<dyn Fn(usize) -> Result<u64, Unspelled>> = match (column.data_type(), to) {
        (DataType::Dictionary(..), _) => return dictionary(column, to),
        (_, FieldType::String) => return Ok(None),
        (DataType::Utf8, _) => {
            let texts = column.as_string::<i32>();
            Box::new(move |row| spelled(texts.value(row)))
        }
        (DataType::LargeUtf8, _) => {
            let texts = column.as_string::<i64>();
            Box::new(move |row| spelled(texts.value(row)))
        }
        (DataType::Utf8View, _) => {
            let texts = column.as_string_view();
            Box::new(move |row| spelled(texts.value(row)))
        }
        (from, FieldType::Timestamp) if from.is_integer() => {
            let safe = CastOptions { safe: true, ..CastOptions::default() };
            let micros = cast_with_options(column, &DataType::Int64, &safe)?;
            let micros = micros.as_primitive::<Int64Type>().clone();
            Box::new(move |row| micros.is_valid(row).then(|| micros.value(row).cast_unsigned()).ok_or(none))
        }
        (DataType::Float16, FieldType::Int64 | FieldType::Timestamp) => {
            let values = column.as_primitive::<Float16Type>();
            Box::new(move |row| spelling::whole(values.value(row).to_f64()).map(i64::cast_unsigned).ok_or(none))
        }
        (DataType::Float32, FieldType::Int64 | FieldType::Timestamp) => {
            let values = column.as_primitive::<Float32Type>();
            Box::new(move |row| spelling::whole(values.value(row).into()).map(i64::cast_unsigned).ok_or(none))
        }
        (DataType::Float64, FieldType::Int64 | FieldType::Timestamp) => {
            let values = column.as_primitive::<Float64Type>();
            Box::new(move |row| spelling::whole(values.value(row)).map(i64::cast_unsigned).ok_or(none))
        }
        (DataType::Float64, FieldType::Float32) => {
            let values = column.as_primitive::<Float64Type>();
            Box::new(move |row| spelling::single(values.value(row)).map(|value| value.to_bits().into()).ok_or(none))
        }
        _ => return Ok(None),
    };
    let nulls = column.logical_nulls();
    let (mut missing, mut wrong) = (Vec::new(), Vec::new());
    let cells = (0..column.len()).map(|row| {
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            missing.push(row);
            return 0;
        }
        bits(row).unwrap_or_else(|Unspelled(hint)| {
            missing.push(row);
            wrong.push((u32::try_from(row).unwrap_or(u32::MAX), hint));
            0
        })
    });
    let cells: Vec<u64> = cells.collect();
    Ok(columns::of_bits(to, cells, &missing).map(|column| Read { column, wrong }))
}

/// Each word is read once, however often it stands in the column.
fn dictionary(column: &ArrayRef, to: FieldType) -> Result<Option<Read>, ArrowError> {
    let Some(dictionary) = column.as_any_dictionary_opt() else { return Ok(None) };
    let Some(words) = read(dictionary.values(), to)? else { return Ok(None) };
    let keys = dictionary.keys();
    let column = take(&words.column, keys, None)?;
    let mut wrong = Vec::new();
    if !words.wrong.is_empty() {
        for (row, key) in (0..).zip(dictionary.normalized_keys()) {
            let found = words.wrong.binary_search_by_key(&key, |(word, _)| *word as usize).ok();
            let found = found.filter(|_| keys.is_valid(row as usize)).and_then(|found| words.wrong.get(found));
            wrong.extend(found.map(|(_, hint)| (row, *hint)));
        }
    }
    Ok(Some(Read { column, wrong }))
}
