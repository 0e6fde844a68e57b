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
use crate::domain::name::DatasetName;
use crate::domain::policy::{PolicySet, Reduced, Released};

mod added;
mod changed;

pub use added::{ALL, Adding, RollUp};
#[cfg(test)]
pub(crate) use changed::receiver;
pub use changed::{Changes, LastTold, ON_CHANGE, SINCE};

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
const TAG_ON_CHANGE: u8 = 3;

/// How a release is made smaller: steps, one after the other. Without any it stays whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reduction(pub Vec<Step>);

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Only what has changed stays. It stands alone, and is for releases that leave together ([`Reduction::applied`]).
    OnChange(Changes),
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
    Each(BTreeMap<DatasetName, String>),
}

impl By {
    /// The metric of a dataset.
    #[must_use]
    pub fn of(&self, dataset: &DatasetName) -> Option<&str> {
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
            Self::OnChange(_) => ON_CHANGE,
            Self::RollUp(_) => ROLL_UP,
            Self::Top(_) => TOP,
        }
    }

    /// The cells that stay of a release of a dataset; `None` if the step changes nothing.
    fn apply(&self, dataset: &DatasetName, cells: &RecordBatch) -> Result<Option<RecordBatch>, ArrowError> {
        match self {
            Self::OnChange(_) => Ok(None),
            Self::RollUp(roll_up) => roll_up.apply(dataset, cells),
            Self::Top(top) => top.apply(dataset, cells),
        }
    }

    /// What of it matters to a release of a dataset, as a part of an id.
    fn hash(&self, dataset: &DatasetName, writer: &mut Writer) {
        writer.text(self.name());
        match self {
            Self::OnChange(_) => {}
            Self::RollUp(roll_up) => roll_up.hash(dataset, writer),
            Self::Top(Top { rows, by }) => {
                writer.u32(*rows).text(by.of(dataset).unwrap_or_default());
            }
        }
    }

    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::OnChange(changes) => changes.encode(writer.u8(TAG_ON_CHANGE)),
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
            TAG_ON_CHANGE => return Changes::decode(reader).map(Self::OnChange),
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
                    each.map(|_| Some((DatasetName::read(reader)?, reader.text()?.to_owned())))
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
    fn apply(&self, dataset: &DatasetName, cells: &RecordBatch) -> Result<Option<RecordBatch>, ArrowError> {
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
            Step::OnChange(_) | Step::Top(_) => step.clone(),
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

    /// Only what has changed leaves.
    #[must_use]
    pub fn on_change(changes: Changes) -> Self {
        Self(vec![Step::OnChange(changes)])
    }

    /// What has changed, if only that leaves.
    #[must_use]
    pub fn changes(&self) -> Option<&Changes> {
        if let [Step::OnChange(changes)] = self.0.as_slice() { Some(changes) } else { None }
    }

    /// Releases that leave together in this form, in order. Of each dataset they are all that leave after what its receiver was
    /// told last.
    ///
    /// # Errors
    /// When Arrow cannot assemble the columns, which no valid release causes.
    pub fn applied(&self, releases: &[Released]) -> Result<Vec<Released>, ArrowError> {
        match self.changes() {
            Some(changes) => changes.applied(releases),
            None => releases.iter().map(|released| released.reduced(self)).collect(),
        }
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

impl Reduced {
    /// The columns that say so, the same in all cells.
    #[must_use]
    pub fn columns(&self) -> &'static [&'static str] {
        if self.since.is_some() { &[DEGRADED, SINCE] } else { &[DEGRADED] }
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
        let id = id_of(self, &id.finish());
        let reduced = Reduced { steps, whole: self.id.clone(), cells: self.cells.num_rows() as u64, since: None };
        let cells = said(&cells, &id, &[Named { name: DEGRADED, text: &reduced.text() }])?;
        Ok(Self { id, cells, reduced: Some(reduced), ..self.clone() })
    }
}

/// The id of a release in a smaller form, which is described so.
fn id_of(whole: &Released, form: &[u8]) -> String {
    let mut writer = Writer::default();
    writer.u8(ID_VERSION).text(&whole.id).raw(form);
    let id: [u8; 32] = Sha256::digest(writer.finish()).into();
    hex(&id).chars().take(whole.id.len().max(32)).collect()
}

/// A column that says the same of all cells.
struct Named<'n> {
    name: &'n str,
    text: &'n str,
}

/// The cells with another id, and with what is said of how they were made fewer.
fn said(cells: &RecordBatch, id: &str, named: &[Named<'_>]) -> Result<RecordBatch, ArrowError> {
    let rows = cells.num_rows();
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values((0..rows).map(|_| text))) };
    let schema = cells.schema();
    let of_release = |name: &str| RELEASE_COLUMNS.contains(&name);
    let behind = schema.fields().iter().rposition(|field| of_release(field.name())).map_or(0, |last| last + 1);
    let is_id = |field: &Field| RELEASE_COLUMNS.first() == Some(&field.name().as_str());
    let columns = schema.fields().iter().zip(cells.columns());
    let with_id =
        columns.map(|(field, column)| (Arc::clone(field), if is_id(field) { text(id) } else { Arc::clone(column) }));
    let mut columns: Vec<(Arc<Field>, ArrayRef)> = with_id.collect();
    let more = named.iter().map(|of_all| (Arc::new(Field::new(of_all.name, DataType::Utf8, true)), text(of_all.text)));
    columns.splice(behind..behind, more);
    let (fields, columns): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

#[cfg(test)]
mod tests;
