//! Columns of a batch → columns of the stream, and what that takes, worked out beforehand.

use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType, TimestampNanosecondType};
use arrow_array::{Array, ArrayRef, LargeStringArray, RecordBatch, StringArray, StringViewArray, new_null_array};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field as Column, TimeUnit};

use crate::domain::refusal::{Reason, Refusal};
use crate::domain::stream::{Field, FieldType, Stream};

use super::super::Undecodable;
use super::spelled;

/// A batch whose columns become the stream's.
pub(super) struct Converter<'b> {
    stream: &'b Stream,
    /// For each field its column.
    columns: &'b [Option<usize>],
    batch: &'b RecordBatch,
}

/// Checks that the values of a column keep their meaning as those of a field.
pub(super) fn check(column: &Column, field: &Field) -> Result<(), Undecodable> {
    let (from, to) = (column.data_type(), field.field_type);
    if to == FieldType::Timestamp && names_no_zone(from) {
        return Err(zone_missing(field, from));
    }
    if keeps_meaning(from, to) || spelled::is_read(from, to) { Ok(()) } else { Err(wrong(field, from)) }
}

/// Whether the values of a column are times of a calendar: which points in time they are, only a zone says.
fn names_no_zone(from: &DataType) -> bool {
    match from {
        DataType::Dictionary(_, values) => names_no_zone(values),
        from => matches!(from, DataType::Timestamp(_, None) | DataType::Date32 | DataType::Date64),
    }
}

fn zone_missing(field: &Field, found: &DataType) -> Undecodable {
    let name = &field.name;
    Undecodable {
        reason: Reason::WrongType,
        field: Some(name.as_str().into()),
        message: format!(
            "column `{name}` is {found}, which names no time zone; give the column its zone, such as UTC \
             (in pyarrow: `timestamp('us', tz='UTC')`)"
        ),
    }
}

fn wrong(field: &Field, found: &DataType) -> Undecodable {
    let (name, to) = (&field.name, field.field_type);
    // A nested type may be as long as the schema.
    let found: String = found.to_string().chars().take(64).collect();
    Undecodable {
        reason: Reason::WrongType,
        field: Some(name.as_str().into()),
        message: format!("column `{name}` is {found}, and a {to} is declared"),
    }
}

fn keeps_meaning(from: &DataType, to: FieldType) -> bool {
    if let DataType::Dictionary(_, values) = from {
        return keeps_meaning(values, to);
    }
    // A column of nothing but nulls.
    if *from == DataType::Null {
        return true;
    }
    match to {
        FieldType::Bool => matches!(from, DataType::Boolean),
        FieldType::Int64 => from.is_integer(),
        FieldType::Float32 => {
            matches!(from, DataType::Float16 | DataType::Float32 | DataType::Float64) || from.is_integer()
        }
        FieldType::Float64 => from.is_floating() || from.is_integer(),
        FieldType::String => matches!(from, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
        FieldType::Timestamp => matches!(from, DataType::Timestamp(_, Some(_))),
    }
}

impl<'b> Converter<'b> {
    pub(super) fn new(stream: &'b Stream, columns: &'b [Option<usize>], batch: &'b RecordBatch) -> Self {
        Self { stream, columns, batch }
    }

    fn columns(&self) -> impl Iterator<Item = (&'b Field, Option<&'b ArrayRef>)> {
        let batch = self.batch;
        let columns = self.columns.iter().map(|column| column.and_then(|column| batch.columns().get(column)));
        self.stream.fields.iter().zip(columns)
    }

    /// The memory that the columns take which are made anew. What is taken as it is counts if `as_it_is` does not hold:
    /// then it is copied later.
    pub(super) fn bytes(&self, as_it_is: bool) -> usize {
        let rows = self.batch.num_rows();
        let column = |(field, column): (&Field, Option<&ArrayRef>)| {
            let Some(column) = column else { return width(field) * (rows + 1) };
            if as_it_is && is_own(column.data_type(), field.field_type) {
                return 0;
            }
            let texts = if field.field_type == FieldType::String {
                Texts::of(column).map(|texts| texts.bytes(field))
            } else {
                None
            };
            let spelled = if spelled::is_read(column.data_type(), field.field_type) { spelled::ROW_BYTES } else { 0 };
            (width(field) + spelled) * (rows + 1) + rows / 8 + texts.unwrap_or(0)
        };
        self.columns().map(column).sum()
    }

    /// Makes the stream's columns. `first` is the position of the first record in its request.
    pub(super) fn convert(&self, first: usize, refusals: &mut Vec<Refusal>) -> Result<RecordBatch, Undecodable> {
        let mut columns = Vec::with_capacity(self.stream.fields.len());
        for (field, column) in self.columns() {
            columns.push(match column {
                None => new_null_array(&field.field_type.arrow(), self.batch.num_rows()),
                Some(column) => convert(column, field, first, refusals)?,
            });
        }
        RecordBatch::try_new(Arc::clone(&self.stream.schema), columns)
            .map_err(|_| Undecodable::malformed("the columns do not fit the stream"))
    }
}

/// What a value of a field takes, without a text's own bytes.
fn width(field: &Field) -> usize {
    match field.field_type {
        FieldType::Bool => 1,
        FieldType::Float32 | FieldType::String => 4,
        FieldType::Int64 | FieldType::Float64 | FieldType::Timestamp => 8,
    }
}

/// Whether a column can be taken as it is. Of a timestamp the zone is only how it is shown, but it has to be named.
pub(super) fn is_own(from: &DataType, to: FieldType) -> bool {
    match to {
        FieldType::Timestamp => matches!(from, DataType::Timestamp(TimeUnit::Microsecond, Some(_))),
        to => *from == to.arrow(),
    }
}

fn convert(
    column: &ArrayRef,
    field: &Field,
    first: usize,
    refusals: &mut Vec<Refusal>,
) -> Result<ArrayRef, Undecodable> {
    let target = field.field_type.arrow();
    if is_own(column.data_type(), field.field_type) {
        return Ok(match column.as_primitive_opt::<TimestampMicrosecondType>() {
            Some(times) => Arc::new(times.clone().with_timezone_opt::<Arc<str>>(None)),
            None => Arc::clone(column),
        });
    }
    let mut refuse = |row: usize, reason, hint| {
        let index = u32::try_from(first + row).unwrap_or(u32::MAX);
        refusals.push(Refusal { field: Some(field.name.as_str().into()), hint, ..Refusal::new(index, reason) });
    };
    if field.field_type == FieldType::String
        && let Some(texts) = Texts::of(column)
    {
        return Ok(texts.collect(field, |row| refuse(row, Reason::TooLong, None)));
    }
    let read = spelled::read(column, field.field_type).map_err(|_| wrong(field, column.data_type()))?;
    if let Some(spelled::Read { column, wrong }) = read {
        wrong.into_iter().for_each(|(row, hint)| refuse(row as usize, Reason::WrongType, hint));
        return Ok(column);
    }
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let cast = |to: &DataType| cast_with_options(column, to, &options).map_err(|_| wrong(field, column.data_type()));
    // A cast would cut nanoseconds off towards 1970.
    let cast = if is_in_nanoseconds(column.data_type()) {
        let values = cast(&DataType::Timestamp(TimeUnit::Nanosecond, None))?;
        let values = values.as_primitive::<TimestampNanosecondType>();
        Arc::new(values.unary::<_, TimestampMicrosecondType>(|time| time.div_euclid(1_000)))
    } else {
        cast(&target)?
    };
    if cast.logical_null_count() > column.logical_null_count() {
        let nulls = column.logical_nulls();
        for row in 0..cast.len() {
            if cast.is_null(row) && nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
                refuse(row, Reason::WrongType, None);
            }
        }
    }
    Ok(cast)
}

fn is_in_nanoseconds(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_in_nanoseconds(values),
        other => matches!(other, DataType::Timestamp(TimeUnit::Nanosecond, _)),
    }
}

/// The texts of a column of any layout.
enum Texts<'c> {
    Plain(Words<'c>),
    /// The position of each record's word, and the words.
    Dictionary(ArrayRef, Words<'c>),
}

enum Words<'c> {
    Utf8(&'c StringArray),
    Large(&'c LargeStringArray),
    View(&'c StringViewArray),
}

impl<'c> Words<'c> {
    fn of(column: &'c ArrayRef) -> Option<Self> {
        Some(match column.data_type() {
            DataType::Utf8 => Self::Utf8(column.as_string()),
            DataType::LargeUtf8 => Self::Large(column.as_string()),
            DataType::Utf8View => Self::View(column.as_string_view()),
            _ => return None,
        })
    }

    fn get(&self, row: usize) -> Option<&'c str> {
        match self {
            Self::Utf8(words) => (row < words.len() && words.is_valid(row)).then(|| words.value(row)),
            Self::Large(words) => (row < words.len() && words.is_valid(row)).then(|| words.value(row)),
            Self::View(words) => (row < words.len() && words.is_valid(row)).then(|| words.value(row)),
        }
    }
}

impl<'c> Texts<'c> {
    fn of(column: &'c ArrayRef) -> Option<Self> {
        let Some(dictionary) = column.as_any_dictionary_opt() else { return Words::of(column).map(Self::Plain) };
        let options = CastOptions { safe: true, ..CastOptions::default() };
        let keys = cast_with_options(dictionary.keys(), &DataType::Int64, &options).ok()?;
        Some(Self::Dictionary(keys, Words::of(dictionary.values())?))
    }

    fn rows(&self) -> usize {
        match self {
            Self::Plain(Words::Utf8(words)) => words.len(),
            Self::Plain(Words::Large(words)) => words.len(),
            Self::Plain(Words::View(words)) => words.len(),
            Self::Dictionary(keys, _) => keys.len(),
        }
    }

    fn get(&self, row: usize) -> Option<&'c str> {
        match self {
            Self::Plain(words) => words.get(row),
            Self::Dictionary(keys, words) => {
                let keys = keys.as_primitive_opt::<Int64Type>()?;
                let key = keys.is_valid(row).then(|| keys.value(row))?;
                words.get(usize::try_from(key).ok()?)
            }
        }
    }

    /// The bytes of the texts that are not longer than declared; the others are not copied.
    fn bytes(&self, field: &Field) -> usize {
        let lengths = (0..self.rows()).filter_map(|row| self.get(row)).map(str::len);
        lengths.filter(|length| *length <= field.bytes_max).sum()
    }

    /// The texts in the stream's layout. One that is longer than declared becomes null, and is refused.
    fn collect(&self, field: &Field, mut refuse: impl FnMut(usize)) -> ArrayRef {
        let mut texts = StringBuilder::with_capacity(self.rows(), self.bytes(field));
        for row in 0..self.rows() {
            match self.get(row) {
                Some(text) if text.len() > field.bytes_max => {
                    refuse(row);
                    texts.append_null();
                }
                text => texts.append_option(text),
            }
        }
        Arc::new(texts.finish())
    }
}
