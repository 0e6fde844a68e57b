//! Release: which cells of a closed window may leave, and the columns they leave as.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::builder::{Int64Builder, ListBuilder};
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use sha2::{Digest as _, Sha256};

use crate::domain::aggregate::{Cells, Value};
use crate::domain::binary::Writer;
use crate::domain::dataset::{Dataset, Function, KeyDomain};
use crate::domain::name::GatewayId;
use crate::domain::window::{micros, window_start};

use super::Digest;
use super::egress::Outlet;
use super::permit::Released;

/// A closed window of a dataset.
pub struct ClosedWindow<'w> {
    /// The gateway's id.
    pub gateway: &'w GatewayId,
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
/// to another. A cell counts as released when it goes anywhere. A metric of a field that a record may be without is null
/// unless the number holds for it too: those with a value are as many, and those without one are none or as many.
///
/// # Errors
/// When Arrow cannot assemble the columns, which no valid dataset causes.
pub fn release(closed: &ClosedWindow<'_>, outlets: &[Outlet], policy: Digest) -> Result<Outcome, ArrowError> {
    let in_order = closed.cells.in_order();
    let mut outcome = Outcome { released: Vec::new(), cells_released: 0, cells_withheld: in_order.len() };
    let numbers: BTreeSet<usize> = outlets.iter().map(|outlet| outlet.min_contributors).collect();
    for least in numbers {
        let slots: Vec<usize> = in_order.iter().copied().filter(|&slot| closed.cells.has(slot, least)).collect();
        if slots.is_empty() {
            continue;
        }
        let outlets = outlets.iter().filter(|outlet| outlet.min_contributors == least);
        outcome.cells_released = outcome.cells_released.max(slots.len());
        outcome.released.extend(Leaving::new(closed, &slots, least, policy).released(outlets)?);
    }
    outcome.cells_withheld -= outcome.cells_released;
    Ok(outcome)
}

/// The cells of a window that may leave to outlets of one number of contributors.
struct Leaving<'l> {
    closed: &'l ClosedWindow<'l>,
    slots: &'l [usize],
    /// The number of contributors.
    least: usize,
    start: i64,
    end: i64,
    policy: Digest,
}

/// Version 1 hashed texts of Rust's.
const RELEASE_ID_VERSION: u8 = 2;

impl<'l> Leaving<'l> {
    fn new(closed: &'l ClosedWindow<'l>, slots: &'l [usize], least: usize, policy: Digest) -> Self {
        let start = window_start(closed.window, closed.dataset.window);
        let end = start.saturating_add(micros(closed.dataset.window));
        Self { closed, slots, least, start, end, policy }
    }

    fn released<'o>(&self, outlets: impl Iterator<Item = &'o Outlet>) -> Result<Vec<Released>, ArrowError> {
        let id = self.id();
        let columns = self.columns(&id)?;
        let released = outlets.map(|outlet| Released {
            id: id.clone(),
            destination: outlet.destination.clone(),
            dataset: self.closed.dataset.name.clone(),
            gateway: self.closed.gateway.clone(),
            window_start: self.start,
            window_end: self.end,
            policy: self.policy,
            cells: columns.clone(),
        });
        Ok(released.collect())
    }

    /// The value of a metric of a slot, null when k does not hold for it.
    fn value(&self, metric: usize, slot: usize) -> Value {
        self.closed.cells.value(self.closed.dataset, metric, slot, self.least)
    }

    /// The first 128 bits of SHA-256 over gateway, dataset, window, part, policy and the cells: the same records
    /// give the same id, and whatever differs has another one.
    fn id(&self) -> String {
        let (dataset, cells) = (self.closed.dataset, &self.closed.cells);
        let mut writer = Writer::default();
        writer.u8(RELEASE_ID_VERSION).text(self.closed.gateway).text(&dataset.name);
        writer.i64(self.start).i64(self.end).u64(self.closed.part).raw(self.policy.bytes());
        for name in dataset.keys.iter().map(|key| &key.name).chain(dataset.metrics.iter().map(|metric| &metric.name)) {
            writer.text(name);
        }
        writer.count(self.slots.len());
        for &slot in self.slots {
            for (key, position) in dataset.keys.iter().zip(cells.key_positions(dataset, slot)) {
                writer.text(&key.domain.label(position));
            }
            for metric in 0..dataset.metrics.len() {
                hashed(&self.value(metric, slot), &mut writer);
            }
        }
        Sha256::digest(writer.finish()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    #[expect(clippy::indexing_slicing, reason = "a cell has a position for each key")]
    fn columns(&self, id: &str) -> Result<RecordBatch, ArrowError> {
        let (dataset, cells) = (self.closed.dataset, &self.closed.cells);
        let (gateway, policy, start, end) = (self.closed.gateway, self.policy, self.start, self.end);
        let head = Head { id, gateway, dataset, policy, start, end };
        let positions: Vec<Vec<usize>> = self.slots.iter().map(|&slot| cells.key_positions(dataset, slot)).collect();
        let labels = |index: usize, domain: &KeyDomain| {
            positions.iter().map(|positions| domain.label(positions[index])).collect::<Vec<_>>()
        };
        let values = |metric| self.slots.iter().map(|&slot| self.value(metric, slot)).collect::<Vec<_>>();
        assemble(&head, self.slots.len(), labels, values)
    }
}

/// What a release says of each of its cells.
pub(super) struct Head<'h> {
    pub(super) id: &'h str,
    pub(super) gateway: &'h str,
    pub(super) dataset: &'h Dataset,
    pub(super) policy: Digest,
    pub(super) start: i64,
    pub(super) end: i64,
}

/// The columns of a release of so many cells: `labels` gives those of a key, `values` those of a metric.
pub(super) fn assemble(
    head: &Head<'_>,
    rows: usize,
    labels: impl Fn(usize, &KeyDomain) -> Vec<String>,
    values: impl Fn(usize) -> Vec<Value>,
) -> Result<RecordBatch, ArrowError> {
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    let mut add = |name: &str, is_nullable: bool, column: ArrayRef| {
        fields.push(Field::new(name, column.data_type().clone(), is_nullable));
        columns.push(column);
    };
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values((0..rows).map(|_| text))) };
    let time =
        |time: i64| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from_value(time, rows).with_timezone("UTC")) };
    add("release", false, text(head.id));
    add("gateway", false, text(head.gateway));
    add("dataset", false, text(&head.dataset.name));
    add("policy", false, text(&head.policy.to_string()));
    add("window_start", false, time(head.start));
    add("window_end", false, time(head.end));
    for (index, key) in head.dataset.keys.iter().enumerate() {
        add(&key.name, false, Arc::new(StringArray::from_iter_values(labels(index, &key.domain))));
    }
    for (index, metric) in head.dataset.metrics.iter().enumerate() {
        let is_nullable = !matches!(metric.function, Function::Count);
        add(&metric.name, is_nullable, metric_column(&metric.function, &values(index)));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// Adds a value to what a release's id is made of.
fn hashed(value: &Value, writer: &mut Writer) {
    match value {
        Value::Null => {
            writer.u8(0);
        }
        Value::Count(count) => {
            writer.u8(1).u64(*count);
        }
        Value::Number(number) => {
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

fn metric_column(function: &Function, values: &[Value]) -> ArrayRef {
    let count = |count: &u64| i64::try_from(*count).unwrap_or(i64::MAX);
    match function {
        Function::Count => Arc::new(Int64Array::from_iter_values(values.iter().map(|value| match value {
            Value::Count(records) => count(records),
            Value::Null | Value::Number(_) | Value::Counts(_) => 0,
        }))),
        Function::Histogram { .. } => {
            let mut lists =
                ListBuilder::new(Int64Builder::new()).with_field(Field::new_list_field(DataType::Int64, false));
            for value in values {
                if let Value::Counts(counts) = value {
                    lists.values().append_slice(&counts.iter().map(count).collect::<Vec<_>>());
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

#[cfg(test)]
mod tests {
    use arrow_array::Array;
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;

    use super::*;
    use crate::domain::aggregate::{ContributorKey, Foldable, Rows, cell_numbers};
    use crate::domain::dataset::{Metric, samples};
    use crate::domain::policy::Widest;

    /// The sample without keys, so in one cell, with a histogram of `x` too. Of `x` every third record has no value.
    fn dataset() -> Dataset {
        let mut dataset = samples::every_kind();
        dataset.keys.clear();
        if let Some(source) = dataset.metrics[4].function.source().cloned() {
            let function = Function::Histogram { source, edges: vec![0.0, 10.0, 100.0] };
            dataset.metrics.push(Metric { name: "x_histogram".into(), function });
        }
        dataset
    }

    /// What leaves of some of the records.
    fn leaves(dataset: &Dataset, rows: &Rows<'_>, outlets: &[Outlet]) -> Outcome {
        let columns = samples::columns();
        let contributors = ContributorKey([7; 16]).hash(&columns[0]);
        let numbers = cell_numbers(dataset, &columns, samples::RECORDS);
        let mut cells = Cells::new(dataset);
        let records = Foldable { columns: &columns, contributors: &contributors, cells: &numbers };
        cells.fold(dataset, &records, rows);
        let gateway = "eu".parse().unwrap();
        let closed = ClosedWindow { gateway: &gateway, dataset, window: 2, part: 0, cells };
        release(&closed, outlets, Digest::from_bytes([5; 32])).unwrap()
    }

    fn to(destination: &str, min_contributors: usize) -> Outlet {
        Outlet { destination: destination.parse().unwrap(), min_contributors, by_override: None }
    }

    #[test]
    fn a_cell_leaves_to_outlets_that_want_no_more_contributors_than_it_has() {
        let outcome = leaves(&dataset(), &Rows::All, &[to("a", 13), to("b", 14)]);
        assert_eq!((outcome.cells_released, outcome.cells_withheld), (1, 0));
        assert_eq!(outcome.released.iter().map(Released::destination).collect::<Vec<_>>(), ["a"]);
        let outcome = leaves(&dataset(), &Rows::All, &[to("b", 14)]);
        assert_eq!((outcome.cells_released, outcome.cells_withheld, outcome.released.len()), (0, 1, 0));
    }

    #[test]
    fn a_metric_is_null_where_k_does_not_hold_for_it_and_its_column_has_the_same_type() {
        let dataset = dataset();
        // All have a value of `x` in some record, and all have none in another. Then in one record only.
        let one_without: Vec<u32> = (0..60).filter(|row| *row == 0 || row % 3 != 0).collect();
        let all = leaves(&dataset, &Rows::All, &[to("a", 13)]);
        let few = leaves(&dataset, &Rows::Some(&one_without), &[to("a", 13)]);
        let (all, few) = (all.released[0].cells(), few.released[0].cells());
        assert_eq!(all.schema(), few.schema());
        for metric in &dataset.metrics {
            let column = |cells: &RecordBatch| cells.column_by_name(&metric.name).unwrap().clone();
            assert!(column(all).is_valid(0), "{}", metric.name);
            assert_eq!(column(few).is_null(0), metric.name.starts_with("x_"), "{}", metric.name);
            let schema = all.schema();
            let is_nullable = schema.field_with_name(&metric.name).unwrap().is_nullable();
            assert_eq!(is_nullable, metric.name != "n", "{}", metric.name);
        }
        assert_eq!(few.column_by_name("n").unwrap().as_primitive::<Int64Type>().value(0), 41);
    }

    #[test]
    fn outlets_of_other_numbers_have_nulls_and_ids_of_their_own() {
        let five_without: Vec<u32> = (0..60).filter(|row| *row < 15 || row % 3 != 0).collect();
        let outcome = leaves(&dataset(), &Rows::Some(&five_without), &[to("a", 5), to("b", 6), to("c", 5)]);
        let [a, c, b] = outcome.released.as_slice() else { panic!("one for each outlet") };
        assert!(a.cells().column_by_name("x_sum").unwrap().is_valid(0));
        assert!(b.cells().column_by_name("x_sum").unwrap().is_null(0));
        assert_eq!((a.id(), &**a.destination(), &**c.destination()), (c.id(), "a", "c"));
        assert_ne!(a.id(), b.id());
    }

    #[test]
    fn the_id_of_version_2_stays_what_it_is() {
        let outcome = leaves(&samples::every_kind(), &Rows::All, &[to("a", 3)]);
        assert_eq!(outcome.released[0].id(), include_str!("../../../tests/golden/release-id-2.txt").trim());
    }

    /// Written as JSON or as Arrow, no cell is larger than the widest.
    #[test]
    fn no_cell_is_larger_than_the_widest() {
        let dataset = samples::every_kind();
        let outcome = leaves(&dataset, &Rows::All, &[to("a", 3)]);
        let released = &outcome.released[0];
        let widest = Widest::of(&dataset, released.gateway()).unwrap();
        assert_eq!(widest.cells().schema(), released.cells().schema());
        for (wide, column) in widest.cells().columns().iter().zip(released.cells().columns()) {
            if let (Some(wide), Some(texts)) = (wide.as_string_opt::<i32>(), column.as_string_opt::<i32>()) {
                let longest = texts.iter().flatten().map(|text| format!("{text:?}").len() - 2).max();
                assert!(longest <= Some(wide.value(0).len()), "{texts:?}");
            }
        }
    }
}
