//! Batches: records of one stream in columns, and the checks that every record must pass.
//!
//! A decoder makes a [`Candidate`]: columns of the declared types, and the records it could not read.
//! [`Candidate::check`] adds what the declaration forbids. Neither type can be printed or serialised:
//! what leaves this process leaves through the policy module.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow_schema::ArrowError;
use arrow_select::concat::concat_batches;
use arrow_select::filter::filter_record_batch;
use arrow_select::take::take_record_batch;

use super::event_time::TimeBounds;
use super::refusal::{Reason, Refusal};
use super::stream::{Field, FieldType, Stream};

/// Decoded records of one stream that are not yet known to be taken.
#[derive(Clone)]
pub struct Candidate {
    stream: Arc<Stream>,
    columns: RecordBatch,
    refused: Refused,
}

/// Which records are refused.
#[derive(Clone)]
struct Refused {
    /// One per record: whether it is refused.
    marks: Vec<bool>,
    refusals: Vec<Refusal>,
}

impl Refused {
    /// Whether a record is refused already.
    fn is_refused(&self, row: usize) -> bool {
        self.marks.get(row).is_none_or(|&mark| mark)
    }

    /// Refuses a record, unless it is refused already: the first reason stands.
    fn refuse(&mut self, refusal: Refusal) {
        if let Some(mark) = self.marks.get_mut(refusal.index as usize)
            && !*mark
        {
            *mark = true;
            self.refusals.push(refusal);
        }
    }

    /// Refuses every record that is to be refused for a field.
    fn refuse_where(&mut self, field: &Field, reason: Reason, is_refused: impl Fn(usize) -> bool) {
        let name: Arc<str> = field.name.as_str().into();
        for row in (0..self.marks.len()).filter(|row| is_refused(*row)) {
            let index = u32::try_from(row).unwrap_or(u32::MAX);
            self.refuse(Refusal { field: Some(Arc::clone(&name)), ..Refusal::new(index, reason) });
        }
    }
}

impl Candidate {
    /// Records as a decoder read them. `columns` has the stream's schema; `refusals` are the records that
    /// could not be read, whose values are of no account.
    #[must_use]
    pub fn new(stream: Arc<Stream>, columns: RecordBatch, refusals: Vec<Refusal>) -> Self {
        let mut marks = vec![false; columns.num_rows()];
        for refusal in &refusals {
            if let Some(mark) = marks.get_mut(refusal.index as usize) {
                *mark = true;
            }
        }
        Self { stream, columns, refused: Refused { marks, refusals } }
    }

    /// No records.
    #[must_use]
    pub fn none(stream: &Arc<Stream>) -> Self {
        Self::new(Arc::clone(stream), RecordBatch::new_empty(Arc::clone(&stream.schema)), Vec::new())
    }

    /// Records of the same stream, one part after the other.
    ///
    /// # Errors
    /// When the texts of a column are too long to be one column.
    pub fn concat(stream: &Arc<Stream>, parts: Vec<Self>) -> Result<Self, ArrowError> {
        let columns = concat_batches(&stream.schema, parts.iter().map(|part| &part.columns))?;
        let mut refused = Refused { marks: Vec::with_capacity(columns.num_rows()), refusals: Vec::new() };
        for Self { refused: part, .. } in parts {
            let before = u32::try_from(refused.marks.len()).unwrap_or(u32::MAX);
            let moved = |refusal: Refusal| Refusal { index: refusal.index.saturating_add(before), ..refusal };
            refused.refusals.extend(part.refusals.into_iter().map(moved));
            refused.marks.extend(part.marks);
        }
        Ok(Self { stream: Arc::clone(stream), columns, refused })
    }

    /// The stream.
    #[must_use]
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// How many records there are, refused ones included.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.columns.num_rows()
    }

    /// The columns, and the records that are refused.
    #[cfg(test)]
    pub(crate) fn into_parts(self) -> (RecordBatch, Vec<Refusal>) {
        (self.columns, self.refused.refusals)
    }

    /// The columns, and of each record whether it is refused. For a producer's side, which sends its own records and takes
    /// none in; `tests/architecture.rs` lets nobody else call it.
    #[must_use]
    pub fn into_columns(self) -> (RecordBatch, Vec<bool>) {
        (self.columns, self.refused.marks)
    }

    pub(super) fn columns(&self) -> &RecordBatch {
        &self.columns
    }

    /// Whether a record is refused already.
    pub(super) fn is_refused(&self, row: usize) -> bool {
        self.refused.is_refused(row)
    }

    /// Refuses a record, unless it is refused already: the first reason stands.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.refused.refuse(refusal);
    }

    /// How many bytes the columns hold.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.columns.get_array_memory_size()
    }

    /// A copy of some records, none of them refused.
    ///
    /// # Errors
    /// When Arrow cannot take the rows, which no valid batch causes.
    pub(super) fn some(&self, rows: &[u32]) -> Result<Self, ArrowError> {
        let columns = take_record_batch(&self.columns, &UInt32Array::from(rows.to_vec()))?;
        Ok(Self::new(Arc::clone(&self.stream), columns, Vec::new()))
    }

    /// Refuses every record that the declaration forbids: missing required fields, NaN and infinities,
    /// over-long text, event times that are not taken.
    pub fn check(&mut self, times: &TimeBounds) {
        let rows = u32::try_from(self.rows()).unwrap_or(u32::MAX);
        self.check_shared(times, std::slice::from_ref(&(0..rows)));
    }

    /// The same for records of many requests, each of which has some in a row: each request is checked as if it had come
    /// alone.
    pub fn check_shared(&mut self, times: &TimeBounds, requests: &[Range<u32>]) {
        let Self { stream, columns, refused } = self;
        for (field, column) in stream.fields.iter().zip(columns.columns()) {
            if field.required && column.null_count() > 0 {
                refused.refuse_where(field, Reason::MissingField, |row| column.is_null(row));
            }
            match field.field_type {
                FieldType::Float32 if !field.allow_non_finite => {
                    let values = column.as_primitive::<Float32Type>();
                    if !values.values().iter().fold(true, |finite, value| finite & value.is_finite()) {
                        refused.refuse_where(field, Reason::NotFinite, |row| {
                            values.is_valid(row) && !values.value(row).is_finite()
                        });
                    }
                }
                FieldType::Float64 if !field.allow_non_finite => {
                    let values = column.as_primitive::<Float64Type>();
                    if !values.values().iter().fold(true, |finite, value| finite & value.is_finite()) {
                        refused.refuse_where(field, Reason::NotFinite, |row| {
                            values.is_valid(row) && !values.value(row).is_finite()
                        });
                    }
                }
                FieldType::String => {
                    let values = column.as_string::<i32>();
                    let longest = values.offsets().lengths().max().unwrap_or(0);
                    if longest > field.bytes_max {
                        refused.refuse_where(field, Reason::TooLong, |row| {
                            values.is_valid(row) && values.value(row).len() > field.bytes_max
                        });
                    }
                }
                _ => {}
            }
        }
        self.check_times(times, requests);
    }

    /// Every record in the order of the request: each may open a window.
    fn check_times(&mut self, times: &TimeBounds, requests: &[Range<u32>]) {
        let Self { stream, columns, refused } = self;
        let values = columns.column(stream.event_time).as_primitive::<TimestampMicrosecondType>();
        let ends = |(oldest, newest): (i64, i64), &time: &i64| (oldest.min(time), newest.max(time));
        let (oldest, newest) = values.values().iter().fold((i64::MAX, i64::MIN), ends);
        if values.is_empty() || times.take_all(oldest, newest) {
            return;
        }
        let field: Option<Arc<str>> = stream.fields.get(stream.event_time).map(|field| field.name.as_str().into());
        for request in requests {
            let mut times = times.clone();
            for index in request.clone() {
                let row = usize::try_from(index).unwrap_or(usize::MAX);
                if refused.is_refused(row) || values.is_null(row) {
                    continue;
                }
                if let Err((reason, hint)) = times.take(values.value(row)) {
                    refused.refuse(Refusal { field: field.clone(), hint, ..Refusal::new(index, reason) });
                }
            }
        }
    }

    /// The records that are not refused, and the refusals in the order of the records.
    ///
    /// # Errors
    /// When Arrow cannot filter the columns, which no valid batch causes.
    pub(super) fn split(self) -> Result<(Batch, Vec<Refusal>), ArrowError> {
        let Self { stream, columns, refused: Refused { marks, mut refusals } } = self;
        if refusals.is_empty() {
            return Ok((Batch::new(stream, columns), refusals));
        }
        refusals.sort_by_key(|refusal| refusal.index);
        let keep: BooleanArray = marks.into_iter().map(|mark| Some(!mark)).collect();
        let columns = filter_record_batch(&columns, &keep)?;
        Ok((Batch::new(stream, columns), refusals))
    }
}

/// Checked records of one stream.
#[derive(Clone)]
pub struct Batch {
    stream: Arc<Stream>,
    columns: RecordBatch,
    /// What [`Self::event_time_range`] says, once it was asked.
    event_time_range: OnceLock<Option<(i64, i64)>>,
}

impl Batch {
    fn new(stream: Arc<Stream>, columns: RecordBatch) -> Self {
        Self { stream, columns, event_time_range: OnceLock::new() }
    }

    /// Records that were checked before they were stored, in the order of the stream's fields.
    ///
    /// # Errors
    /// When the columns are not the stream's.
    pub fn restored(stream: Arc<Stream>, columns: Vec<ArrayRef>) -> Result<Self, ArrowError> {
        let columns = RecordBatch::try_new(Arc::clone(&stream.schema), columns)?;
        Ok(Self::new(stream, columns))
    }

    /// The records that a mask keeps, which has one mark per record.
    ///
    /// # Errors
    /// When Arrow cannot filter the columns, which no valid batch causes.
    pub(super) fn keep(self, mask: &BooleanArray) -> Result<Self, ArrowError> {
        let columns = filter_record_batch(&self.columns, mask)?;
        Ok(Self::new(self.stream, columns))
    }

    /// Some records in a row, without a copy.
    #[must_use]
    pub(super) fn slice(&self, first: usize, rows: usize) -> Self {
        Self::new(Arc::clone(&self.stream), self.columns.slice(first, rows))
    }

    /// The stream.
    #[must_use]
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// How many records there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.columns.num_rows()
    }

    /// The records with other columns of the same types and lengths.
    ///
    /// # Errors
    /// When they are not.
    pub(super) fn with_columns(self, change: impl FnOnce(&mut [ArrayRef])) -> Result<Self, ArrowError> {
        let mut columns = self.columns.columns().to_vec();
        change(&mut columns);
        Self::restored(self.stream, columns)
    }

    /// The columns, in the order of the stream's fields.
    #[must_use]
    pub fn columns(&self) -> &[ArrayRef] {
        self.columns.columns()
    }

    /// The oldest and the newest event time; `None` without records. Each dataset asks for them, so they are kept.
    #[must_use]
    pub fn event_time_range(&self) -> Option<(i64, i64)> {
        *self.event_time_range.get_or_init(|| {
            let each = self.event_times().iter().map(|&time| (time, time));
            each.reduce(|(oldest, newest), (time, _)| (oldest.min(time), newest.max(time)))
        })
    }

    /// The event times, in microseconds since the Unix epoch. A checked batch has no null among them.
    #[must_use]
    pub fn event_times(&self) -> &[i64] {
        self.columns.column(self.stream.event_time).as_primitive::<TimestampMicrosecondType>().values()
    }
}
