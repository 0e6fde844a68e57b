//! Datasets: declared aggregations, the only thing that can leave. A dataset's group keys have closed
//! domains, so its cells can be numbered before the first record comes.

use std::collections::BTreeSet;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;

use super::name::{DatasetName, StreamName};
use super::privacy::Privacy;
use super::stream::ValueRange;
use super::window::Grid;

mod kept;
#[cfg(test)]
pub(crate) mod samples;
mod shape;
mod shared;
mod words;

pub use kept::KeptShape;
pub use shape::Shape;
pub use shared::{Member, View};
pub use words::{Integers, Positions};

/// A declared aggregation of one stream.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Its name.
    pub name: DatasetName,
    /// The stream it aggregates.
    pub stream: StreamName,
    /// The field that names the contributor, the person or thing that k counts.
    pub contributor: String,
    /// How far apart windows begin. So long is each of them, where they do not overlap.
    pub window: Duration,
    /// For how long a window goes on after the next one has begun. Zero: it ends where the next one begins.
    pub overlap: Duration,
    /// How long a window is kept open for records that come out of order.
    pub grace: Duration,
    /// How many windows may be open, from the oldest that holds records to the newest.
    pub open_max: u64,
    /// The least number of distinct contributors of a released cell.
    pub min_contributors: usize,
    /// How many records of one contributor count, at most. `None`: all of them.
    pub bounds: Option<Bounds>,
    /// Whether it is asked how much of a cell any single producer brought: then all its contributors are kept.
    pub keeps_all: bool,
    /// For how many windows a cell with too few of them waits for more; then it is dropped.
    pub max_defer: u64,
    /// Which keys are given up for cells that fail, one after the other, by their positions among the keys: then cells that
    /// differ in nothing else are one remainder.
    pub roll_up: Vec<usize>,
    /// Whether a cell that says what it said last is not told again.
    pub only_on_change: bool,
    /// Whether a release says of each cell how many contributors it has at least.
    pub tells_contributors: bool,
    /// The dataset of the same stream whose rows it adds up, where it is a coarser one of that.
    pub coarser_than: Option<DatasetName>,
    /// The keys that records are grouped by.
    pub keys: Vec<GroupKey>,
    /// What is computed for each cell.
    pub metrics: Vec<Metric>,
    /// The noise that every number gets before it leaves. `None`: none.
    pub privacy: Option<Privacy>,
    /// The datasets that are released of it, where several share their cells. None: it is itself.
    pub members: Vec<Member>,
}

impl Dataset {
    /// The length of a window.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.window.saturating_add(self.overlap)
    }

    /// Whether its windows overlap, so that a record is in several of them.
    #[must_use]
    pub fn overlaps(&self) -> bool {
        !self.overlap.is_zero()
    }

    /// Where its windows lie.
    #[must_use]
    pub fn grid(&self) -> Grid {
        Grid::new(self.window, self.overlap)
    }

    /// The metrics that are null in a cell unless k holds for them too, each with its field: a record may be without a
    /// value there.
    pub fn optional_metrics(&self) -> impl Iterator<Item = (&str, &str)> {
        self.metrics.iter().filter_map(|metric| {
            let source = metric.function.source().filter(|source| source.may_be_missing)?;
            Some((metric.name.as_str(), source.field.as_str()))
        })
    }

    /// The fields of those metrics.
    #[must_use]
    pub fn optional_fields(&self) -> BTreeSet<&str> {
        self.optional_metrics().map(|(_, field)| field).collect()
    }

    /// The names of the keys that are given up for cells that fail, in their order.
    #[must_use]
    pub fn rolled_up(&self) -> Vec<&str> {
        self.roll_up.iter().filter_map(|key| self.keys.get(*key)).map(|key| key.name.as_str()).collect()
    }
}

/// How many records of one contributor count, at most. Which ones is drawn by lot; the others are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// So many in each cell of a window.
    pub records_per_cell: u32,
    /// In so many cells of a window. `None`: in any number of them.
    pub cells_per_window: Option<u32>,
}

impl Bounds {
    /// In how many cells of a window a contributor counts: in no more than one may have [`RECORDS_KEPT_MAX`] records of.
    #[must_use]
    pub fn most_cells(self) -> u32 {
        let kept = (RECORDS_KEPT_MAX / self.records_per_cell.max(1)).max(1);
        self.cells_per_window.map_or(kept, |cells| cells.min(kept))
    }

    /// The stricter of each of the two bounds' values.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        let cells = self.cells_per_window.into_iter().chain(other.cells_per_window).min();
        Self { records_per_cell: self.records_per_cell.min(other.records_per_cell), cells_per_window: cells }
    }
}

/// So many records of one contributor are kept of a window, at most: each new one is put in its place among them.
pub const RECORDS_KEPT_MAX: u32 = 4_096;

/// How many windows may be open, unless a dataset says otherwise.
pub const OPEN_MAX: u64 = 4_096;

/// In how many windows that overlap a record may be. It is counted in each of them.
pub const WINDOWS_OF_A_RECORD_MAX: u32 = 64;

/// The most cells a window of a dataset may have: the product of its keys' domains.
pub const CELLS_MAX: usize = 65_536;

/// A key that records are grouped by.
#[derive(Debug, Clone)]
pub struct GroupKey {
    /// Its name in the release.
    pub name: String,
    /// The column it is taken from.
    pub column: usize,
    /// Its closed domain.
    pub domain: KeyDomain,
}

/// The values a group key can take; every other value, and null, is `other`.
#[derive(Debug, Clone, PartialEq)]
pub enum KeyDomain {
    /// Declared words.
    Text {
        /// The words.
        words: Vec<String>,
        /// Their positions.
        positions: Positions,
    },
    /// Declared whole numbers.
    Integers(Integers),
    /// False, true.
    Bool,
    /// Ranges `[edge, next edge)`; the last one includes its upper edge.
    Edges(Vec<f64>),
}

/// The column of a release that says how many windows a cell covers, of a dataset whose cells wait.
pub const WINDOWS: &str = "windows";

/// The column of a release that says how a cell changes what was told before, of a dataset that tells only what has changed.
pub const CHANGE: &str = "change";

/// The column of a release that says how many contributors a cell has at least, of a dataset that tells it.
pub const CONTRIBUTORS: &str = "contributors_at_least";

/// How `other` is written in a release.
pub const OTHER: &str = "other";

/// How a key is written in a release that was given up for a remainder. No value of such a key is written so.
pub const REST: &str = "rest";

impl KeyDomain {
    /// A domain of words.
    #[must_use]
    pub fn text(words: Vec<String>) -> Self {
        let positions = Positions::of(&words);
        Self::Text { words, positions }
    }

    /// How many values there are, `other` included. It is the last one.
    #[must_use]
    pub fn size(&self) -> usize {
        let named = match self {
            Self::Text { words, .. } => words.len(),
            Self::Integers(numbers) => numbers.all().len(),
            Self::Bool => 2,
            Self::Edges(edges) => edges.len().saturating_sub(1),
        };
        named + 1
    }

    /// How a value is written in a release.
    #[must_use]
    pub fn label(&self, position: usize) -> String {
        let label = match self {
            Self::Text { words, .. } => words.get(position).cloned(),
            Self::Integers(numbers) => numbers.all().get(position).map(ToString::to_string),
            Self::Bool => ["false", "true"].get(position).map(ToString::to_string),
            Self::Edges(edges) => match edges.get(position..=position + 1) {
                Some([low, high]) => Some(format!("{low}..{high}")),
                _ => None,
            },
        };
        label.unwrap_or_else(|| OTHER.to_owned())
    }

    /// Adds `position * stride` to the cell number of every record.
    pub(super) fn add_positions(&self, column: &ArrayRef, stride: u32, cells: &mut [u32]) {
        let other = u32::try_from(self.size() - 1).unwrap_or(0);
        match (self, column.data_type()) {
            (Self::Text { positions, .. }, DataType::Utf8) => {
                let values = column.as_string::<i32>();
                add(cells, stride, |row| {
                    let word = values.is_valid(row).then(|| values.value(row));
                    word.and_then(|word| positions.get(word)).unwrap_or(other)
                });
            }
            (Self::Integers(numbers), DataType::Int64) => {
                let values = column.as_primitive::<Int64Type>();
                add(cells, stride, |row| {
                    let number = values.is_valid(row).then(|| values.value(row));
                    number.and_then(|number| numbers.get(number)).unwrap_or(other)
                });
            }
            (Self::Bool, DataType::Boolean) => {
                let values = column.as_boolean();
                add(cells, stride, |row| if values.is_null(row) { other } else { u32::from(values.value(row)) });
            }
            (Self::Edges(edges), _) => {
                let bucket = |value: f64| bucket(edges, value).map_or(other, |position| position as u32);
                match column.data_type() {
                    DataType::Float32 => {
                        let values = column.as_primitive::<Float32Type>();
                        add(cells, stride, |row| number(values, row, f64::from).map_or(other, bucket));
                    }
                    DataType::Float64 => {
                        let values = column.as_primitive::<Float64Type>();
                        add(cells, stride, |row| number(values, row, |value| value).map_or(other, bucket));
                    }
                    DataType::Int64 => {
                        let values = column.as_primitive::<Int64Type>();
                        add(cells, stride, |row| number(values, row, |value| value as f64).map_or(other, bucket));
                    }
                    _ => add(cells, stride, |_| other),
                }
            }
            // The loader pairs domains with columns of their type; a column that is not is all `other`.
            _ => add(cells, stride, |_| other),
        }
    }
}

fn add(cells: &mut [u32], stride: u32, mut position: impl FnMut(usize) -> u32) {
    for (row, cell) in cells.iter_mut().enumerate() {
        *cell += position(row) * stride;
    }
}

fn number<T: arrow_array::ArrowPrimitiveType>(
    values: &arrow_array::PrimitiveArray<T>,
    row: usize,
    convert: impl Fn(T::Native) -> f64,
) -> Option<f64> {
    values.is_valid(row).then(|| convert(values.value(row)))
}

/// The position of the range that holds a value: `[edge, next edge)`, the last one with its upper edge.
/// `None` outside of all of them, and for NaN.
#[must_use]
pub fn bucket(edges: &[f64], value: f64) -> Option<usize> {
    let (first, last) = (*edges.first()?, *edges.last()?);
    if !(first <= value && value <= last) {
        return None;
    }
    let above = edges.partition_point(|&edge| edge <= value);
    Some(above.saturating_sub(1).min(edges.len().saturating_sub(2)))
}

/// One number computed for each cell.
#[derive(Debug, Clone)]
pub struct Metric {
    /// Its name in the release.
    pub name: String,
    /// What is computed.
    pub function: Function,
    /// To how many significant digits its values are rounded before they leave; `None`: not at all.
    pub digits: Option<u8>,
}

/// What a metric computes. Minimum, maximum, quantiles and distinct values give single contributors away
/// and do not exist here.
#[derive(Debug, Clone, PartialEq)]
pub enum Function {
    /// The number of records.
    Count,
    /// The sum of a column's values.
    Sum(Measure),
    /// Their mean.
    Mean(Measure),
    /// Their population variance.
    Variance(Measure),
    /// How many values lie in each range; a value outside counts in the nearest one.
    Histogram {
        /// The column.
        source: Source,
        /// The edges of the ranges, ascending.
        edges: Vec<f64>,
    },
    /// Of the records that have a value, the share of those whose value equals a declared one.
    Fraction {
        /// The column.
        source: Source,
        /// A domain of the one value looked for.
        equals: KeyDomain,
    },
}

impl Function {
    /// The numeric column whose values are summed.
    #[must_use]
    pub fn measure(&self) -> Option<&Measure> {
        match self {
            Self::Sum(measure) | Self::Mean(measure) | Self::Variance(measure) => Some(measure),
            Self::Count | Self::Histogram { .. } | Self::Fraction { .. } => None,
        }
    }

    /// Whether it is the variance of these values.
    #[must_use]
    pub fn is_variance_of(&self, values: &Measure) -> bool {
        matches!(self, Self::Variance(measure) if measure == values)
    }

    /// The column that it is computed from; a count is computed from none.
    #[must_use]
    pub fn source(&self) -> Option<&Source> {
        match self {
            Self::Count => None,
            Self::Sum(measure) | Self::Mean(measure) | Self::Variance(measure) => Some(&measure.source),
            Self::Histogram { source, .. } | Self::Fraction { source, .. } => Some(source),
        }
    }
}

/// A column that a metric is computed from.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Its position.
    pub column: usize,
    /// The name of its field.
    pub field: String,
    /// Whether a record may be taken in without a value here: null, or a number that is not finite.
    pub may_be_missing: bool,
}

/// A numeric column and where its values lie.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    /// The column.
    pub source: Source,
    /// Its range: values outside are moved to the nearer end.
    pub range: ValueRange,
}
