//! Release: which cells of a closed window may leave, and the columns they leave as.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::builder::{Int64Builder, ListBuilder};
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use sha2::{Digest as _, Sha256};

use crate::domain::aggregate::{Cells, Value};
use crate::domain::binary::Writer;
use crate::domain::dataset::Dataset;
use crate::domain::window::{micros, window_start};

use super::Digest;
use super::egress::Outlet;
use super::permit::Released;

/// A closed window of a dataset.
pub struct ClosedWindow<'w> {
    /// The gateway's id.
    pub gateway: &'w str,
    /// The dataset.
    pub dataset: &'w Dataset,
    /// The window's number.
    pub window: i64,
    /// Which part of the window this is: 0 for a window that the watermark closed, another number for what
    /// was in it when it was flushed. Parts of a window share no record.
    pub part: u64,
    /// Its cells.
    pub cells: Cells,
}

/// What came of a closed window.
pub struct Outcome {
    /// At most one release per destination; none when no cell may leave.
    pub released: Vec<Released>,
    /// Cells that may leave.
    pub cells_released: usize,
    /// Cells that go nowhere: too few contributors.
    pub cells_withheld: usize,
}

/// Releases the cells of a window that hold enough contributors for each outlet: a cell below the number of one may go
/// to another. A cell counts as released when it goes anywhere.
///
/// # Errors
/// When Arrow cannot assemble the columns, which no valid dataset causes.
pub fn release(closed: &ClosedWindow<'_>, outlets: &[Outlet], policy: Digest) -> Result<Outcome, ArrowError> {
    let in_order = closed.cells.in_order();
    let mut outcome = Outcome { released: Vec::new(), cells_released: 0, cells_withheld: in_order.len() };
    let numbers: BTreeSet<usize> = outlets.iter().map(|outlet| outlet.min_contributors).collect();
    for least in numbers {
        let enough = in_order.iter().filter(|(_, contributors)| *contributors >= least);
        let slots: Vec<usize> = enough.map(|(slot, _)| *slot).collect();
        if slots.is_empty() {
            continue;
        }
        let outlets = outlets.iter().filter(|outlet| outlet.min_contributors == least);
        outcome.cells_released = outcome.cells_released.max(slots.len());
        outcome.released.extend(released(closed, &slots, outlets, policy)?);
    }
    outcome.cells_withheld -= outcome.cells_released;
    Ok(outcome)
}

fn released<'o>(
    closed: &ClosedWindow<'_>,
    slots: &[usize],
    outlets: impl Iterator<Item = &'o Outlet>,
    policy: Digest,
) -> Result<Vec<Released>, ArrowError> {
    let dataset = closed.dataset;
    let start = window_start(closed.window, dataset.window);
    let end = start.saturating_add(micros(dataset.window));
    let id = release_id(closed, slots, (start, end), policy);
    let columns = columns(closed, slots, &id, (start, end), policy)?;
    let released = outlets.map(|outlet| Released {
        id: id.clone(),
        destination: outlet.destination.clone(),
        dataset: dataset.name.clone(),
        gateway: closed.gateway.to_owned(),
        window_start: start,
        window_end: end,
        policy,
        cells: columns.clone(),
    });
    Ok(released.collect())
}

/// Version 1 hashed texts of Rust's.
const RELEASE_ID_VERSION: u8 = 2;

/// The first 128 bits of SHA-256 over gateway, dataset, window, part, policy and the cells: the same records
/// give the same id, and whatever differs has another one.
fn release_id(closed: &ClosedWindow<'_>, slots: &[usize], (start, end): (i64, i64), policy: Digest) -> String {
    let (dataset, cells) = (closed.dataset, &closed.cells);
    let mut writer = Writer::default();
    writer.u8(RELEASE_ID_VERSION).text(closed.gateway).text(&dataset.name);
    writer.i64(start).i64(end).u64(closed.part).raw(policy.bytes());
    for name in dataset.keys.iter().map(|key| &key.name).chain(dataset.metrics.iter().map(|metric| &metric.name)) {
        writer.text(name);
    }
    writer.count(slots.len());
    for &slot in slots {
        for (key, position) in dataset.keys.iter().zip(cells.key_positions(dataset, slot)) {
            writer.text(&key.domain.label(position));
        }
        for metric in 0..dataset.metrics.len() {
            hashed(&cells.value(dataset, metric, slot), &mut writer);
        }
    }
    Sha256::digest(writer.finish()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Adds a value to what a release's id is made of.
fn hashed(value: &Value, writer: &mut Writer) {
    match value {
        Value::Number(None) => {
            writer.u8(0);
        }
        Value::Count(count) => {
            writer.u8(1).u64(*count);
        }
        Value::Number(Some(number)) => {
            writer.u8(2).f64(*number);
        }
        Value::Counts(counts) => {
            writer.u8(3).count(counts.len());
            counts.iter().for_each(|count| {
                writer.u64(*count);
            });
        }
    }
}

fn columns(
    closed: &ClosedWindow<'_>,
    slots: &[usize],
    id: &str,
    (start, end): (i64, i64),
    policy: Digest,
) -> Result<RecordBatch, ArrowError> {
    let (dataset, cells) = (closed.dataset, &closed.cells);
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    let mut add = |name: &str, column: ArrayRef| {
        fields.push(Field::new(
            name,
            column.data_type().clone(),
            column.null_count() > 0 || nullable(column.data_type()),
        ));
        columns.push(column);
    };
    let rows = slots.len();
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values((0..rows).map(|_| text))) };
    let time =
        |time: i64| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from_value(time, rows).with_timezone("UTC")) };
    add("release", text(id));
    add("gateway", text(closed.gateway));
    add("dataset", text(&dataset.name));
    add("policy", text(&policy.to_string()));
    add("window_start", time(start));
    add("window_end", time(end));
    let positions: Vec<Vec<usize>> = slots.iter().map(|&slot| cells.key_positions(dataset, slot)).collect();
    for (index, key) in dataset.keys.iter().enumerate() {
        let labels = positions.iter().map(|positions| key.domain.label(positions[index]));
        add(&key.name, Arc::new(StringArray::from_iter_values(labels)));
    }
    for (index, metric) in dataset.metrics.iter().enumerate() {
        let values: Vec<Value> = slots.iter().map(|&slot| cells.value(dataset, index, slot)).collect();
        add(&metric.name, metric_column(&values));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn nullable(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float64)
}

fn metric_column(values: &[Value]) -> ArrayRef {
    let count = |count: &u64| i64::try_from(*count).unwrap_or(i64::MAX);
    match values.first() {
        Some(Value::Counts(_)) => {
            let mut lists =
                ListBuilder::new(Int64Builder::new()).with_field(Field::new_list_field(DataType::Int64, false));
            for value in values {
                if let Value::Counts(counts) = value {
                    lists.values().append_slice(&counts.iter().map(count).collect::<Vec<_>>());
                }
                lists.append(true);
            }
            Arc::new(lists.finish())
        }
        Some(Value::Number(_)) => {
            let number = |value: &Value| if let Value::Number(number) = value { *number } else { None };
            Arc::new(values.iter().map(number).collect::<Float64Array>())
        }
        _ => {
            let number = |value: &Value| if let Value::Count(records) = value { count(records) } else { 0 };
            Arc::new(Int64Array::from_iter_values(values.iter().map(number)))
        }
    }
}
