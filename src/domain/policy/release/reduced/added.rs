//! Rows of a release that are added up: keys are given up, and rows that differ in nothing else become one.
//!
//! This is no remainder: a remainder holds records of cells that may not leave by themselves, and a rule of release let it
//! go. Here released numbers are added, and anybody who has them can add them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::builder::{Int64Builder, ListBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow_schema::{ArrowError, DataType, Field};
use arrow_select::take::take;

use crate::domain::aggregate::{Value, plus};
use crate::domain::binary::{Reader, Writer};
use crate::domain::dataset::{CONTRIBUTORS, Dataset, Function, WINDOWS};
use crate::domain::name::DatasetName;
use crate::domain::policy::PolicySet;

use super::RELEASE_COLUMNS;

/// How a key is written that was given up to add rows up. No value of such a key is written so.
pub const ALL: &str = "all";

/// Rows are added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollUp {
    /// The keys that are given up.
    pub keys: Vec<String>,
    /// How the metrics of each dataset are added. Releases of other datasets stay as they are.
    pub datasets: BTreeMap<DatasetName, BTreeMap<String, Adding>>,
}

/// How the numbers of a metric become one. A metric of fractions, means or variances without that is null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adding {
    /// The count that each number is weighted by; `None`: they are added.
    pub weight: Option<String>,
    /// To how many significant digits the result is rounded.
    pub digits: Option<u8>,
}

impl RollUp {
    /// The same, with how the metrics of all datasets are added that policies declare.
    #[must_use]
    pub fn of(&self, policy: &PolicySet) -> Self {
        let datasets = policy.streams.values().flat_map(|plan| &plan.datasets);
        let datasets = datasets.map(|dataset| (dataset.name.clone(), adding(dataset)));
        Self { keys: self.keys.clone(), datasets: datasets.collect() }
    }

    /// What of it matters to a release of a dataset, as a part of an id.
    pub(super) fn hash(&self, dataset: &DatasetName, writer: &mut Writer) {
        self.keys.iter().for_each(|key| {
            writer.text(key);
        });
        for (metric, Adding { weight, digits }) in self.datasets.get(dataset).into_iter().flatten() {
            writer.text(metric).text(weight.as_deref().unwrap_or_default()).u8(digits.unwrap_or(0));
        }
    }

    pub(super) fn encode(&self, writer: &mut Writer) {
        writer.count(self.keys.len());
        self.keys.iter().for_each(|key| {
            writer.text(key);
        });
        writer.count(self.datasets.len());
        for (dataset, metrics) in &self.datasets {
            writer.text(dataset).count(metrics.len());
            for (metric, Adding { weight, digits }) in metrics {
                writer.text(metric).text(weight.as_deref().unwrap_or_default()).u8(digits.unwrap_or(0));
            }
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let keys = 0..reader.count(8)?;
        let keys = keys.map(|_| reader.text().map(str::to_owned)).collect::<Option<_>>()?;
        let mut datasets = BTreeMap::new();
        for _ in 0..reader.count(16)? {
            let (dataset, mut metrics) = (DatasetName::read(reader)?, BTreeMap::new());
            for _ in 0..reader.count(17)? {
                let (metric, weight, digits) = (reader.text()?.to_owned(), reader.text()?, reader.u8()?);
                let weight = Some(weight.to_owned()).filter(|weight| !weight.is_empty());
                metrics.insert(metric, Adding { weight, digits: Some(digits).filter(|digits| *digits > 0) });
            }
            datasets.insert(dataset, metrics);
        }
        Some(Self { keys, datasets })
    }

    /// The rows, added up; `None` if no two of them differ in nothing but the keys that are given up. They stay in the order
    /// of the first row of each.
    pub(super) fn apply(&self, dataset: &DatasetName, cells: &RecordBatch) -> Result<Option<RecordBatch>, ArrowError> {
        let Some(metrics) = self.datasets.get(dataset) else { return Ok(None) };
        let schema = cells.schema();
        let columns = || schema.fields().iter().map(|field| &**field).zip(cells.columns());
        let rows: Vec<Vec<&str>> =
            columns().filter(|(field, _)| self.tells_apart(field)).map(|(_, column)| texts(column)).collect();
        let windows =
            columns().find(|(field, _)| is_windows(field)).map(|(_, column)| column.as_primitive::<Int64Type>());
        let mut groups = Groups::default();
        for row in 0..cells.num_rows() {
            let labels = rows.iter().filter_map(|column| column.get(row).copied()).collect();
            groups.add((labels, windows.map(|windows| windows.value(row))), row);
        }
        if groups.rows.len() == cells.num_rows() || !columns().any(|(field, _)| self.is_given_up(field)) {
            return Ok(None);
        }
        let firsts = groups.rows.iter().filter_map(|rows| u32::try_from(*rows.first()?).ok());
        let firsts: UInt32Array = firsts.collect();
        let added = columns().map(|(field, column)| {
            let adding = metrics.get(field.name());
            let column: ArrayRef = match field.data_type() {
                _ if self.is_given_up(field) => Arc::new(StringArray::from(vec![ALL; groups.rows.len()])),
                _ if RELEASE_COLUMNS.contains(&field.name().as_str()) || is_windows(field) => {
                    take(column, &firsts, None)?
                }
                DataType::Int64 if field.name() == CONTRIBUTORS => at_least(column, &groups),
                DataType::Int64 => counts(column, &groups, adding),
                DataType::Float64 => numbers(column, &groups, adding, cells),
                DataType::List(_) => histograms(column, &groups),
                _ => take(column, &firsts, None)?,
            };
            Ok(column)
        });
        let added = added.collect::<Result<Vec<ArrayRef>, ArrowError>>()?;
        RecordBatch::try_new(schema, added).map(Some)
    }

    /// Whether a column is a key that is given up.
    fn is_given_up(&self, field: &Field) -> bool {
        is_key(field) && self.keys.contains(field.name())
    }

    /// Whether a column is a key that is not.
    fn tells_apart(&self, field: &Field) -> bool {
        is_key(field) && !self.keys.contains(field.name())
    }
}

/// How the metrics of a dataset are added. A mean, and a fraction, is weighted by the number of records, where each record has
/// a value. Counts are not rounded to digits again: a profile may ask for multiples of a base, also later, and sums of multiples
/// are multiples.
fn adding(dataset: &Dataset) -> BTreeMap<String, Adding> {
    let count = dataset.metrics.iter().find(|metric| matches!(metric.function, Function::Count));
    let weight = |may_be_missing: bool| count.filter(|_| !may_be_missing).map(|count| Some(count.name.clone()));
    let metrics = dataset.metrics.iter().filter_map(|metric| {
        let weight = match &metric.function {
            Function::Count | Function::Sum(_) | Function::Histogram { .. } => None,
            Function::Mean(measure) => weight(measure.source.may_be_missing)?,
            Function::Fraction { source, .. } => weight(source.may_be_missing)?,
            Function::Variance(_) => return None,
        };
        let is_count = matches!(metric.function, Function::Count);
        Some((metric.name.clone(), Adding { weight, digits: metric.digits.filter(|_| !is_count) }))
    });
    metrics.collect()
}

/// Whether a column is a key of the dataset.
fn is_key(field: &Field) -> bool {
    *field.data_type() == DataType::Utf8 && !RELEASE_COLUMNS.contains(&field.name().as_str())
}

/// Whether a column says how many windows a cell covers. Cells that cover others are not added.
fn is_windows(field: &Field) -> bool {
    *field.data_type() == DataType::Int64 && field.name() == WINDOWS
}

fn texts(column: &ArrayRef) -> Vec<&str> {
    column.as_string::<i32>().iter().map(Option::unwrap_or_default).collect()
}

/// What tells rows apart: the keys that stay, and how many windows they cover.
type Apart<'c> = (Vec<&'c str>, Option<i64>);

/// Rows that become one, in the order of the first of each.
#[derive(Default)]
struct Groups<'c> {
    rows: Vec<Vec<usize>>,
    positions: BTreeMap<Apart<'c>, usize>,
}

impl<'c> Groups<'c> {
    fn add(&mut self, apart: Apart<'c>, row: usize) {
        let at = *self.positions.entry(apart).or_insert(self.rows.len());
        match self.rows.get_mut(at) {
            Some(rows) => rows.push(row),
            None => self.rows.push(vec![row]),
        }
    }
}

fn rounded(value: Value, adding: Option<&Adding>) -> Value {
    match adding.and_then(|adding| adding.digits) {
        Some(digits) => value.rounded(digits),
        None => value,
    }
}

fn counts(column: &ArrayRef, groups: &Groups<'_>, adding: Option<&Adding>) -> ArrayRef {
    let values = column.as_primitive::<Int64Type>();
    let sums = groups.rows.iter().map(|rows| {
        let mut of_rows = rows.iter().map(|row| values.is_valid(*row).then(|| values.value(*row)));
        let sum = of_rows.try_fold(0_i64, |sum, value| value.map(|value| sum.saturating_add(value)))?;
        match rounded(Value::Count(u64::try_from(sum).ok()?), adding) {
            Value::Count(count) => i64::try_from(count).ok(),
            _ => None,
        }
    });
    Arc::new(sums.collect::<Int64Array>())
}

/// How many contributors there are at least: the largest of the rows, since somebody can be in several.
fn at_least(column: &ArrayRef, groups: &Groups<'_>) -> ArrayRef {
    let steps = column.as_primitive::<Int64Type>();
    let of_row = |row: &usize| steps.is_valid(*row).then(|| steps.value(*row));
    Arc::new(groups.rows.iter().map(|rows| rows.iter().filter_map(of_row).max()).collect::<Int64Array>())
}

fn numbers(column: &ArrayRef, groups: &Groups<'_>, adding: Option<&Adding>, cells: &RecordBatch) -> ArrayRef {
    let values = column.as_primitive::<Float64Type>();
    let weights = adding.and_then(|adding| adding.weight.as_ref()).map(|weight| cells.column_by_name(weight));
    let weights = weights.map(|column| column.and_then(|column| column.as_primitive_opt::<Int64Type>()));
    let sums = groups.rows.iter().map(|rows| {
        let adding = adding?;
        let mut of_rows = rows.iter().map(|row| values.is_valid(*row).then(|| (*row, values.value(*row))));
        let number = match weights {
            None => of_rows.try_fold(0.0, |sum, row| row.map(|(_, value)| sum + value))?,
            Some(weights) => {
                let weights = weights?;
                let weighted = of_rows.try_fold((0.0, 0.0), |(sum, all), row| {
                    let (row, value) = row.filter(|(row, _)| weights.is_valid(*row))?;
                    let weight = weights.value(row) as f64;
                    Some((sum + value * weight, all + weight))
                });
                weighted.filter(|(_, all)| *all > 0.0).map(|(sum, all)| sum / all)?
            }
        };
        match rounded(Value::Number(number), Some(adding)) {
            Value::Number(number) => Some(number),
            _ => None,
        }
    });
    Arc::new(sums.collect::<Float64Array>())
}

/// A range that leaves together with the one before it in one row does so in the sum: its other counts are added to that one.
fn histograms(column: &ArrayRef, groups: &Groups<'_>) -> ArrayRef {
    let lists = column.as_list::<i32>();
    let mut sums = ListBuilder::new(Int64Builder::new()).with_field(Field::new_list_field(DataType::Int64, true));
    for rows in &groups.rows {
        let of_row = |row: &usize| -> Option<Vec<Option<u64>>> {
            let list = lists.is_valid(*row).then(|| lists.value(*row))?;
            Some(list.as_primitive::<Int64Type>().iter().map(|count| count?.try_into().ok()).collect())
        };
        let sum = rows.iter().map(of_row).reduce(|sum, row| Some(plus(&sum?, &row?))).flatten();
        for count in sum.iter().flatten() {
            sums.values().append_option(count.map(|count| i64::try_from(count).unwrap_or(i64::MAX)));
        }
        sums.append(sum.is_some());
    }
    Arc::new(sums.finish())
}
