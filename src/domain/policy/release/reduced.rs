//! A release that leaves smaller than it is, because the budget of its destination does not suffice for the whole.
//!
//! What is left is made of the rows of the release, which may leave anyway, and of nothing else. Whoever has the whole can
//! make it. So it tells nothing that the whole does not tell, and no rule of release is asked again.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{ArrayRef, RecordBatch, StringArray, UInt32Array};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use arrow_select::take::take_record_batch;
use sha2::{Digest as _, Sha256};

use super::RELEASE_COLUMNS;
use crate::domain::binary::{Reader, Writer, hex};
use crate::domain::dataset::{CHANGE, WINDOWS};
use crate::domain::policy::{PolicySet, Reduced, Released};

mod added;

pub use added::{ALL, Adding, RollUp};

/// The column of a smaller release that says by which steps it was made so. It stands behind [`RELEASE_COLUMNS`]. A release
/// that leaves whole does not have it.
pub const DEGRADED: &str = "degraded";

/// The name of the step that adds rows up.
pub const ROLL_UP: &str = "roll_up";
/// The name of the step that leaves only the largest rows.
pub const TOP: &str = "top";

/// Beside the versions of ids of whole releases.
const ID_VERSION: u8 = 128;
/// How a step is written on disk.
const TAG_TOP: u8 = 1;
const TAG_ROLL_UP: u8 = 2;

/// How a release is made smaller: steps, one after the other. Without any it stays whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reduction(pub Vec<Step>);

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Rows are added up.
    RollUp(RollUp),
    /// Only the largest rows stay.
    Top(Top),
}

/// So many rows stay: those with the largest values of a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    /// How many.
    pub rows: u32,
    /// By which metric.
    pub by: By,
}

/// The metric that says how large a row is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// In all datasets the one of this name.
    Metric(String),
    /// One for each dataset. Releases of others stay whole.
    Each(BTreeMap<String, String>),
}

impl By {
    /// The metric of a dataset.
    #[must_use]
    pub fn of(&self, dataset: &str) -> Option<&str> {
        match self {
            Self::Metric(metric) => Some(metric),
            Self::Each(metrics) => metrics.get(dataset).map(String::as_str),
        }
    }
}

impl Step {
    /// Its name, as the configuration has it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::RollUp(_) => ROLL_UP,
            Self::Top(_) => TOP,
        }
    }

    /// The cells that stay of a release of a dataset; `None` if the step changes nothing.
    fn apply(&self, dataset: &str, cells: &RecordBatch) -> Result<Option<RecordBatch>, ArrowError> {
        match self {
            Self::RollUp(roll_up) => roll_up.apply(dataset, cells),
            Self::Top(top) => top.apply(dataset, cells),
        }
    }

    /// What of it matters to a release of a dataset, as a part of an id.
    fn hash(&self, dataset: &str, writer: &mut Writer) {
        writer.text(self.name());
        match self {
            Self::RollUp(roll_up) => roll_up.hash(dataset, writer),
            Self::Top(Top { rows, by }) => {
                writer.u32(*rows).text(by.of(dataset).unwrap_or_default());
            }
        }
    }

    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::RollUp(roll_up) => roll_up.encode(writer.u8(TAG_ROLL_UP)),
            Self::Top(Top { rows, by }) => {
                writer.u8(TAG_TOP).u32(*rows);
                match by {
                    By::Metric(metric) => {
                        writer.u8(0).text(metric);
                    }
                    By::Each(metrics) => {
                        writer.u8(1).count(metrics.len());
                        metrics.iter().for_each(|(dataset, metric)| {
                            writer.text(dataset).text(metric);
                        });
                    }
                }
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        match reader.u8()? {
            TAG_ROLL_UP => return RollUp::decode(reader).map(Self::RollUp),
            TAG_TOP => {}
            _ => return None,
        }
        let rows = reader.u32()?;
        let by = match reader.u8()? {
            0 => By::Metric(reader.text()?.to_owned()),
            1 => {
                let each = 0..reader.count(2)?;
                By::Each(
                    each.map(|_| Some((reader.text()?.to_owned(), reader.text()?.to_owned())))
                        .collect::<Option<_>>()?,
                )
            }
            _ => return None,
        };
        Some(Self::Top(Top { rows, by }))
    }
}

impl Top {
    /// The rows with the largest values stay, in their order. Of equal ones the first stay; those without a value are the
    /// smallest.
    fn apply(&self, dataset: &str, cells: &RecordBatch) -> Result<Option<RecordBatch>, ArrowError> {
        let most = self.rows as usize;
        let metric = self.by.of(dataset).filter(|name| !RELEASE_COLUMNS.contains(name) && *name != WINDOWS);
        let column = metric.and_then(|name| cells.column_by_name(name));
        let Some(values) = column.and_then(sizes).filter(|values| values.len() > most) else { return Ok(None) };
        let mut order: Vec<(Option<i64>, u32)> = values.into_iter().zip(0..).collect();
        order.sort_by(|(one, at), (other, of_other)| other.cmp(one).then(at.cmp(of_other)));
        let mut stay: Vec<u32> = order.into_iter().take(most).map(|(_, at)| at).collect();
        stay.sort_unstable();
        take_record_batch(cells, &UInt32Array::from(stay)).map(Some)
    }
}

/// How large each row is by a metric, as numbers in the same order; `None` is a row without a value, and smaller than all
/// others. No sizes at all: the metric's values cannot be compared.
fn sizes(column: &ArrayRef) -> Option<Vec<Option<i64>>> {
    match column.data_type() {
        DataType::Int64 => Some(column.as_primitive::<Int64Type>().iter().collect()),
        DataType::Float64 => {
            let values = column.as_primitive::<Float64Type>().iter();
            Some(values.map(|value| value.filter(|value| !value.is_nan()).map(in_order)).collect())
        }
        _ => None,
    }
}

/// A whole number that is as large among those of other numbers as the number is among them.
fn in_order(number: f64) -> i64 {
    // Zero is zero, whatever its sign.
    let bits = (number + 0.0).to_bits().cast_signed();
    if bits < 0 { bits ^ i64::MAX } else { bits }
}

impl Reduction {
    /// The same, with how the metrics of datasets are added that policies declare.
    #[must_use]
    pub fn of(&self, policy: &PolicySet) -> Self {
        let steps = self.0.iter().map(|step| match step {
            Step::RollUp(roll_up) => Step::RollUp(roll_up.of(policy)),
            Step::Top(top) => Step::Top(top.clone()),
        });
        Self(steps.collect())
    }

    /// Whether a release stays as it is.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it adds rows up.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        self.0.iter().any(|step| matches!(step, Step::RollUp(_)))
    }

    /// Adds it to what is kept on disk.
    pub fn encode(&self, writer: &mut Writer) {
        writer.count(self.0.len());
        self.0.iter().for_each(|step| step.encode(writer));
    }

    /// Reads it.
    #[must_use]
    pub fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let steps = 0..reader.count(1)?;
        steps.map(|_| Step::decode(reader)).collect::<Option<_>>().map(Self)
    }
}

impl Released {
    /// The release, made smaller. Where no step leaves anything out, it stays as it is: whole. A release that tells only what
    /// has changed stays whole, because its receiver takes what is missing for unchanged.
    ///
    /// # Errors
    /// When Arrow cannot assemble the columns, which no valid release causes.
    pub fn reduced(&self, reduction: &Reduction) -> Result<Self, ArrowError> {
        let has = |name: &str| self.cells.column_by_name(name).is_some();
        if self.reduced.is_some() || has(DEGRADED) || has(CHANGE) {
            return Ok(self.clone());
        }
        let mut cells = self.cells.clone();
        let (mut steps, mut id) = (Vec::new(), Writer::default());
        id.u8(ID_VERSION).text(&self.id);
        for step in &reduction.0 {
            if let Some(left) = step.apply(&self.dataset, &cells)? {
                cells = left;
                steps.push(step.name());
                step.hash(&self.dataset, &mut id);
            }
        }
        if steps.is_empty() {
            return Ok(self.clone());
        }
        let id: [u8; 32] = Sha256::digest(id.finish()).into();
        let id: String = hex(&id).chars().take(self.id.len().max(32)).collect();
        let reduced = Reduced { steps, whole: self.id.clone(), cells: self.cells.num_rows() as u64 };
        let cells = said(&cells, &id, &reduced.text())?;
        Ok(Self { id, cells, reduced: Some(reduced), ..self.clone() })
    }
}

/// The cells with another id, and with the steps that made them fewer.
fn said(cells: &RecordBatch, id: &str, steps: &str) -> Result<RecordBatch, ArrowError> {
    let rows = cells.num_rows();
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values((0..rows).map(|_| text))) };
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    let schema = cells.schema();
    let of_release = |name: &str| RELEASE_COLUMNS.contains(&name);
    let behind = schema.fields().iter().rposition(|field| of_release(field.name())).map_or(0, |last| last + 1);
    let place = || (Arc::new(Field::new(DEGRADED, DataType::Utf8, true)), text(steps));
    for (at, (field, column)) in schema.fields().iter().zip(cells.columns()).enumerate() {
        if at == behind {
            let (field, column) = place();
            fields.push(field);
            columns.push(column);
        }
        fields.push(Arc::clone(field));
        columns.push(if RELEASE_COLUMNS.first() == Some(&field.name().as_str()) {
            text(id)
        } else {
            Arc::clone(column)
        });
    }
    if behind >= schema.fields().len() {
        let (field, column) = place();
        fields.push(field);
        columns.push(column);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

#[cfg(test)]
mod tests;
