//! Mergeable cells: exact counts, exact sums and exact sets of contributors.
//!
//! Sums are kept as integers: a value is moved into its declared range `[low, high]`, scaled by a power of
//! two such that the range fills 61 bits, rounded once and added up in 128 bits. Addition of integers is
//! associative, so a cell is the same to the last bit whatever the order of the records, the size of the
//! batches or the number of workers; the rounding of one value is at most 2^-61 of its range, below that
//! of a 64-bit float sum. Squares are kept the same way.
//!
//! Contributors are kept as 128-bit SipHash-1-3 values under a secret key: the count of distinct
//! ones is exact but for collisions of probability below 2^-80 per billion contributors, and no
//! identifier is held.

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::dataset::{Dataset, Function, Measure, bucket};
use super::policy::Digest;

mod checkpoint;

pub use checkpoint::as_version_1;

/// The secret under which contributors are hashed.
#[derive(Clone, Copy)]
pub struct ContributorKey(pub [u8; 16]);

/// A contributor, hashed.
pub type Contributor = u128;

impl ContributorKey {
    /// Hashes the contributor of every record. All records without one are one contributor.
    #[must_use]
    pub fn hash(&self, column: &ArrayRef) -> Vec<Contributor> {
        let hasher = SipHasher13::new_with_key(&self.0);
        let hash = |bytes: &[u8]| {
            let mut hasher = hasher;
            hasher.write(bytes);
            hasher.finish128().as_u128()
        };
        let nobody = hash(&[]);
        let rows = 0..column.len();
        let or_nobody = |row: usize, contributor: &dyn Fn() -> Contributor| {
            if column.is_valid(row) { contributor() } else { nobody }
        };
        match column.data_type() {
            DataType::Utf8 => {
                let values = column.as_string::<i32>();
                rows.map(|row| or_nobody(row, &|| hash(values.value(row).as_bytes()))).collect()
            }
            DataType::Int64 => {
                let values = column.as_primitive::<Int64Type>();
                rows.map(|row| or_nobody(row, &|| hash(&values.value(row).to_le_bytes()))).collect()
            }
            // The loader takes no contributor of another type.
            _ => rows.map(|_| nobody).collect(),
        }
    }
}

/// Passes a hash through: contributors are hashed already.
#[derive(Default)]
pub struct PassThrough(u64);

impl Hasher for PassThrough {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_u128(&mut self, contributor: u128) {
        self.0 = contributor as u64;
    }
}

type Contributors = HashSet<Contributor, BuildHasherDefault<PassThrough>>;

/// The open cells of one window of one dataset.
#[derive(Default)]
pub struct Cells {
    /// The slot of each cell number; slots are given out as cells appear.
    slots: Vec<u32>,
    /// The cell number of each slot.
    numbers: Vec<u32>,
    records: Vec<u64>,
    contributors: Vec<Contributors>,
    metrics: Vec<State>,
    /// The policies that the records were decided under.
    policies: BTreeSet<Digest>,
}

const NO_SLOT: u32 = u32::MAX;

/// What one metric keeps, per slot.
enum State {
    /// The count of records is kept for all cells.
    Count,
    Moments(Vec<Moments>),
    Histogram {
        buckets: usize,
        counts: Vec<u64>,
    },
    Matches(Vec<u64>),
    /// What the metric at this position keeps, which is of the same values.
    Same(usize),
}

#[derive(Clone, Copy, Default)]
struct Moments {
    values: u64,
    sum: i128,
    squares: i128,
}

/// The records of a batch that go into one window.
pub enum Rows<'r> {
    /// All of them.
    All,
    /// These positions.
    Some(&'r [u32]),
}

impl Rows<'_> {
    fn each(&self, total: usize, mut visit: impl FnMut(usize)) {
        match self {
            Self::All => (0..total).for_each(visit),
            Self::Some(rows) => rows.iter().for_each(|&row| visit(row as usize)),
        }
    }
}

/// Columns of scored records, with what folding needs of them computed once.
pub struct Foldable<'b> {
    /// The stream's fields, then the model's outputs.
    pub columns: &'b [ArrayRef],
    /// The hashed contributor of each record.
    pub contributors: &'b [Contributor],
    /// The cell number of each record, by [`cell_numbers`].
    pub cells: &'b [u32],
}

/// The number of the cell that each record of a batch belongs to.
#[must_use]
pub fn cell_numbers(dataset: &Dataset, columns: &[ArrayRef], rows: usize) -> Vec<u32> {
    let mut numbers = vec![0; rows];
    let mut stride = 1;
    for key in &dataset.keys {
        if let Some(column) = columns.get(key.column) {
            key.domain.add_positions(column, stride, &mut numbers);
        }
        stride *= u32::try_from(key.domain.size()).unwrap_or(1);
    }
    numbers
}

impl Cells {
    /// No cells yet.
    #[must_use]
    pub fn new(dataset: &Dataset) -> Self {
        let total = dataset.keys.iter().map(|key| key.domain.size()).product();
        let metrics = dataset.metrics.iter().enumerate().map(|(position, metric)| match &metric.function {
            Function::Count => State::Count,
            Function::Sum(measure) | Function::Mean(measure) | Function::Variance(measure) => {
                let first = dataset.metrics.iter().position(|other| other.function.measure() == Some(measure));
                first.filter(|first| *first < position).map_or(State::Moments(Vec::new()), State::Same)
            }
            Function::Histogram { edges, .. } => {
                State::Histogram { buckets: edges.len().saturating_sub(1), counts: Vec::new() }
            }
            Function::Fraction { .. } => State::Matches(Vec::new()),
        });
        Self { slots: vec![NO_SLOT; total], metrics: metrics.collect(), ..Self::default() }
    }

    /// Adds records.
    pub fn fold(&mut self, dataset: &Dataset, records: &Foldable<'_>, rows: &Rows<'_>) {
        let total = records.cells.len();
        let mut slots = Vec::with_capacity(total);
        rows.each(total, |row| {
            let (Some(&number), Some(&contributor)) = (records.cells.get(row), records.contributors.get(row)) else {
                return;
            };
            let slot = self.slot(number);
            slots.push(slot as u32);
            self.records[slot] += 1;
            self.contributors[slot].insert(contributor);
        });
        for (metric, state) in dataset.metrics.iter().zip(&mut self.metrics) {
            let column = |position: usize| records.columns.get(position);
            match (&metric.function, state) {
                (
                    Function::Sum(measure) | Function::Mean(measure) | Function::Variance(measure),
                    State::Moments(moments),
                ) => {
                    if let Some(column) = column(measure.source.column) {
                        fold_moments(measure, column, rows, &slots, moments);
                    }
                }
                (Function::Histogram { source, edges }, State::Histogram { buckets, counts }) => {
                    if let Some(column) = column(source.column) {
                        fold_histogram(edges, *buckets, column, rows, &slots, counts);
                    }
                }
                (Function::Fraction { source, equals }, State::Matches(matches)) => {
                    if let Some(column) = column(source.column) {
                        let mut positions = vec![0; total];
                        equals.add_positions(column, 1, &mut positions);
                        let mut at = slots.iter();
                        rows.each(total, |row| {
                            if let Some(&slot) = at.next() {
                                matches[slot as usize] += u64::from(positions[row] == 0);
                            }
                        });
                    }
                }
                _ => {}
            }
        }
    }

    /// Some of the records were decided under this policy.
    pub fn decided_under(&mut self, policy: Digest) {
        self.policies.insert(policy);
    }

    /// The policies that the records were decided under.
    #[must_use]
    pub fn policies(&self) -> &BTreeSet<Digest> {
        &self.policies
    }

    /// Adds the cells of another part of the same window.
    pub fn merge(&mut self, other: Self) {
        self.policies.extend(other.policies.iter().copied());
        for (from, number) in other.numbers.iter().enumerate() {
            let slot = self.slot(*number);
            self.records[slot] += other.records[from];
            for (mine, theirs) in self.metrics.iter_mut().zip(&other.metrics) {
                match (mine, theirs) {
                    (State::Moments(mine), State::Moments(theirs)) => {
                        mine[slot].values += theirs[from].values;
                        mine[slot].sum += theirs[from].sum;
                        mine[slot].squares += theirs[from].squares;
                    }
                    (State::Histogram { buckets, counts: mine }, State::Histogram { counts: theirs, .. }) => {
                        for bucket in 0..*buckets {
                            mine[slot * *buckets + bucket] += theirs[from * *buckets + bucket];
                        }
                    }
                    (State::Matches(mine), State::Matches(theirs)) => mine[slot] += theirs[from],
                    _ => {}
                }
            }
        }
        for (from, contributors) in other.contributors.into_iter().enumerate() {
            let slot = self.slot(other.numbers[from]);
            let mine = &mut self.contributors[slot];
            if mine.is_empty() {
                *mine = contributors;
            } else {
                mine.extend(contributors);
            }
        }
    }

    /// How many cells hold a record.
    #[must_use]
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether no cell holds a record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The slots, in the order of their cell numbers, with the count of distinct contributors of each.
    pub(super) fn in_order(&self) -> Vec<(usize, usize)> {
        let mut slots: Vec<usize> = (0..self.numbers.len()).collect();
        slots.sort_by_key(|&slot| self.numbers[slot]);
        slots.into_iter().map(|slot| (slot, self.contributors[slot].len())).collect()
    }

    /// The positions of a slot's cell in the domains of the dataset's keys.
    pub(super) fn key_positions(&self, dataset: &Dataset, slot: usize) -> Vec<usize> {
        let mut number = self.numbers[slot] as usize;
        let positions = dataset.keys.iter().map(|key| {
            let size = key.domain.size();
            let position = number % size;
            number /= size;
            position
        });
        positions.collect()
    }

    /// The value of a metric of a slot.
    pub(super) fn value(&self, dataset: &Dataset, metric: usize, slot: usize) -> Value {
        let records = self.records[slot];
        let state = match &self.metrics[metric] {
            State::Same(first) => &self.metrics[*first],
            state => state,
        };
        match (&dataset.metrics[metric].function, state) {
            (Function::Sum(measure), State::Moments(moments)) => Value::Number(moments[slot].sum(measure)),
            (Function::Mean(measure), State::Moments(moments)) => Value::Number(moments[slot].mean(measure)),
            (Function::Variance(measure), State::Moments(moments)) => Value::Number(moments[slot].variance(measure)),
            (Function::Histogram { .. }, State::Histogram { buckets, counts }) => {
                Value::Counts(counts[slot * buckets..(slot + 1) * buckets].to_vec())
            }
            (Function::Fraction { .. }, State::Matches(matches)) => {
                Value::Number(Some(matches[slot] as f64 / records as f64))
            }
            _ => Value::Count(records),
        }
    }

    fn slot(&mut self, number: u32) -> usize {
        let slot = self.slots[number as usize];
        if slot != NO_SLOT {
            return slot as usize;
        }
        let slot = self.numbers.len();
        self.slots[number as usize] = slot as u32;
        self.numbers.push(number);
        self.records.push(0);
        self.contributors.push(Contributors::default());
        for state in &mut self.metrics {
            match state {
                State::Count | State::Same(_) => {}
                State::Moments(moments) => moments.push(Moments::default()),
                State::Histogram { buckets, counts } => counts.resize(counts.len() + *buckets, 0),
                State::Matches(matches) => matches.push(0),
            }
        }
        slot
    }
}

/// The value of one metric of one cell.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A count of records.
    Count(u64),
    /// A number; `None` when no record of the cell had a value.
    Number(Option<f64>),
    /// The counts of a histogram.
    Counts(Vec<u64>),
}

/// Bits that a value's range is scaled to. Sums of 2^66 values fit into 128 bits.
const SUM_BITS: i32 = 61;

impl Measure {
    /// The power of two at or above the largest magnitude of the range.
    fn exponent(&self) -> i32 {
        let largest = self.range.low.abs().max(self.range.high.abs());
        if largest > 0.0 { largest.log2().ceil() as i32 } else { 0 }
    }

    fn scale(&self) -> f64 {
        2_f64.powi(SUM_BITS - self.exponent())
    }

    fn square_scale(&self) -> f64 {
        2_f64.powi(SUM_BITS - 2 * self.exponent())
    }
}

/// The nearest integer, the even one of two: what `round_ties_even` gives, which without SSE 4.1 is a call.
fn rounded(value: f64) -> i64 {
    // From here on floats are whole numbers, so what is added and taken away again rounds.
    const WHOLE: f64 = (1_u64 << 52) as f64;
    let whole = WHOLE.copysign(value);
    let near = (value + whole) - whole;
    (if value.abs() < WHOLE { near } else { value }) as i64
}

impl Moments {
    fn sum(&self, measure: &Measure) -> Option<f64> {
        (self.values > 0).then(|| self.sum as f64 / measure.scale())
    }

    fn mean(&self, measure: &Measure) -> Option<f64> {
        self.sum(measure).map(|sum| sum / self.values as f64)
    }

    fn variance(&self, measure: &Measure) -> Option<f64> {
        let mean = self.mean(measure)?;
        let mean_square = self.squares as f64 / measure.square_scale() / self.values as f64;
        Some((mean_square - mean * mean).max(0.0))
    }
}

/// Calls `visit` with the slot and the value of every record that has one.
fn each_value(column: &ArrayRef, rows: &Rows<'_>, slots: &[u32], mut visit: impl FnMut(usize, f64)) {
    macro_rules! visit_column {
        ($type:ty, $convert:expr) => {{
            let values = column.as_primitive::<$type>();
            let numbers = values.values();
            let mut at = slots.iter();
            let valid = values.null_count() == 0;
            rows.each(numbers.len(), |row| {
                if let Some(&slot) = at.next()
                    && (valid || values.is_valid(row))
                {
                    let value: f64 = $convert(numbers[row]);
                    if !value.is_nan() {
                        visit(slot as usize, value);
                    }
                }
            });
        }};
    }
    match column.data_type() {
        DataType::Float32 => visit_column!(Float32Type, f64::from),
        DataType::Float64 => visit_column!(Float64Type, |value| value),
        DataType::Int64 => visit_column!(Int64Type, |value| value as f64),
        DataType::Timestamp(..) => visit_column!(TimestampMicrosecondType, |value| value as f64),
        _ => {}
    }
}

fn fold_moments(measure: &Measure, column: &ArrayRef, rows: &Rows<'_>, slots: &[u32], moments: &mut [Moments]) {
    let (scale, square_scale, range) = (measure.scale(), measure.square_scale(), measure.range);
    each_value(column, rows, slots, |slot, value| {
        let value = value.clamp(range.low, range.high);
        let moments = &mut moments[slot];
        moments.values += 1;
        moments.sum += i128::from(rounded(value * scale));
        moments.squares += i128::from(rounded(value * value * square_scale));
    });
}

fn fold_histogram(
    edges: &[f64],
    buckets: usize,
    column: &ArrayRef,
    rows: &Rows<'_>,
    slots: &[u32],
    counts: &mut [u64],
) {
    let (Some(&first), Some(&last)) = (edges.first(), edges.last()) else { return };
    each_value(column, rows, slots, |slot, value| {
        if let Some(bucket) = bucket(edges, value.clamp(first, last)) {
            counts[slot * buckets + bucket] += 1;
        }
    });
}

#[cfg(test)]
mod tests;
