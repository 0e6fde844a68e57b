//! The columns that releases leave as.

use std::sync::Arc;

use arrow_array::builder::{Int64Builder, ListBuilder};
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_schema::{ArrowError, DataType, Field, Schema};

use crate::domain::aggregate::Value;
use crate::domain::dataset::{CHANGE, CONTRIBUTORS, Dataset, Function, KeyDomain, WINDOWS};
use crate::domain::policy::Digest;
use crate::domain::table::Change;

/// The columns that every release has: what is the same in all its cells. Keys and metrics come after them, and before those
/// [`WINDOWS`] where cells wait, and [`CHANGE`] where only what has changed is told. Where it is told how many contributors
/// there are at least, [`CONTRIBUTORS`] stands between keys and metrics.
pub const RELEASE_COLUMNS: [&str; 6] = ["release", "gateway", "dataset", "policy", "window_start", "window_end"];

/// What a release says of each of its cells.
pub(in crate::domain::policy) struct Head<'h> {
    pub(in crate::domain::policy) id: &'h str,
    pub(in crate::domain::policy) gateway: &'h str,
    pub(in crate::domain::policy) dataset: &'h Dataset,
    pub(in crate::domain::policy) policy: Digest,
    pub(in crate::domain::policy) start: i64,
    pub(in crate::domain::policy) end: i64,
}

/// What stands in the rows of a release beside keys and metrics, one value for each row, where it is told.
pub(in crate::domain::policy) struct Beside<'b> {
    /// How many windows it covers.
    pub(in crate::domain::policy) windows: &'b [u64],
    /// How it changes what was told before.
    pub(in crate::domain::policy) changes: &'b [Change],
    /// How many contributors it has at least.
    pub(in crate::domain::policy) contributors: &'b [Value],
}

/// The columns of a release: `labels` gives those of a key, `values` those of a metric.
pub(in crate::domain::policy) fn assemble(
    head: &Head<'_>,
    Beside { windows, changes, contributors }: Beside<'_>,
    labels: impl Fn(usize, &KeyDomain) -> Vec<String>,
    values: impl Fn(usize) -> Vec<Value>,
) -> Result<RecordBatch, ArrowError> {
    let rows = windows.len();
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    let mut add = |name: &str, is_nullable: bool, column: ArrayRef| {
        fields.push(Field::new(name, column.data_type().clone(), is_nullable));
        columns.push(column);
    };
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values((0..rows).map(|_| text))) };
    let time =
        |time: i64| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from_value(time, rows).with_timezone("UTC")) };
    let [release, gateway, dataset, policy, start, end] = RELEASE_COLUMNS;
    add(release, false, text(head.id));
    add(gateway, false, text(head.gateway));
    add(dataset, false, text(&head.dataset.name));
    add(policy, false, text(&head.policy.to_string()));
    add(start, false, time(head.start));
    add(end, false, time(head.end));
    if head.dataset.max_defer > 0 {
        let windows = windows.iter().map(|windows| i64::try_from(*windows).unwrap_or(i64::MAX));
        add(WINDOWS, false, Arc::new(Int64Array::from_iter_values(windows)));
    }
    if head.dataset.only_on_change {
        add(CHANGE, false, Arc::new(StringArray::from_iter_values(changes.iter().map(|change| change.name()))));
    }
    for (index, key) in head.dataset.keys.iter().enumerate() {
        add(&key.name, false, Arc::new(StringArray::from_iter_values(labels(index, &key.domain))));
    }
    if head.dataset.tells_contributors {
        add(CONTRIBUTORS, true, metric_column(&Function::Count, contributors, true));
    }
    for (index, metric) in head.dataset.metrics.iter().enumerate() {
        // Of a cell that is gone, all are null.
        let is_nullable = head.dataset.only_on_change || !matches!(metric.function, Function::Count);
        add(&metric.name, is_nullable, metric_column(&metric.function, &values(index), is_nullable));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn metric_column(function: &Function, values: &[Value], is_nullable: bool) -> ArrayRef {
    let count = |count: &u64| i64::try_from(*count).unwrap_or(i64::MAX);
    match function {
        Function::Count => {
            let counts = values.iter().map(|value| match value {
                Value::Count(records) => Some(count(records)),
                Value::Null | Value::Number(_) | Value::Counts(_) => (!is_nullable).then_some(0),
            });
            Arc::new(counts.collect::<Int64Array>())
        }
        Function::Histogram { .. } => {
            let mut lists =
                ListBuilder::new(Int64Builder::new()).with_field(Field::new_list_field(DataType::Int64, true));
            for value in values {
                if let Value::Counts(counts) = value {
                    counts.iter().for_each(|of_range| lists.values().append_option(of_range.as_ref().map(count)));
                }
                lists.append(matches!(value, Value::Counts(_)));
            }
            Arc::new(lists.finish())
        }
        Function::Sum(_) | Function::Mean(_) | Function::Variance(_) | Function::Fraction { .. } => {
            let number = |value: &Value| if let Value::Number(number) = value { Some(*number) } else { None };
            Arc::new(values.iter().map(number).collect::<Float64Array>())
        }
    }
}
