//! What a metric of a cell comes to.

use super::moments::Moments;
use crate::domain::binary::{Reader, Writer};
use crate::domain::dataset::Function;
use crate::domain::rounding::Rounding;
use crate::planted::planted;

/// The value of one metric of one cell.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// None, or none that may leave.
    Null,
    /// A count of records.
    Count(u64),
    /// A finite number.
    Number(f64),
    /// The counts of a histogram. None: these records are counted in the range before.
    Counts(Vec<Option<u64>>),
}

impl Value {
    /// The value with at most so many significant digits: the nearest such decimal number. Counts of a histogram stay.
    #[must_use]
    pub fn rounded(self, digits: u8) -> Self {
        match self {
            Self::Count(count) => {
                let surplus = (count.checked_ilog10().unwrap_or(0) + 1).saturating_sub(digits.into());
                let step = 10_u64.saturating_pow(surplus);
                let (whole, rest) = (count / step, count % step);
                Self::Count((whole + u64::from(rest >= step.div_ceil(2).max(1) && step > 1)).saturating_mul(step))
            }
            Self::Number(number) => {
                let decimal = format!("{number:.*e}", usize::from(digits.saturating_sub(1)));
                // What would be larger than any float stays as it is. A zero has no sign.
                let rounded = decimal.parse().ok().filter(|rounded: &f64| rounded.is_finite());
                Self::Number(rounded.unwrap_or(number) + 0.0)
            }
            Self::Null | Self::Counts(_) => self,
        }
    }
}

impl Value {
    /// The value, with counts as multiples. Numbers stay.
    #[must_use]
    pub(in crate::domain) fn in_multiples(self, rounding: Rounding) -> Self {
        match self {
            Self::Count(count) => Self::Count(rounding.nearest(count)),
            Self::Counts(counts) => Self::Counts(in_multiples(counts, rounding)),
            Self::Null | Self::Number(_) => self,
        }
    }
}

fn in_multiples(counts: Vec<Option<u64>>, rounding: Rounding) -> Vec<Option<u64>> {
    counts.into_iter().map(|count| count.map(|count| rounding.nearest(count))).collect()
}

/// What a metric of one cell, or of several that have no record in common, comes to.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::domain) enum Measured {
    /// So many records.
    Records(u64),
    /// The values of a column.
    Moments(Moments),
    /// The records in each part that leaves. None: these are counted in the part before.
    Parts(Vec<Option<u64>>),
}

const NOTHING: u8 = 0;
const RECORDS: u8 = 1;
const MOMENTS: u8 = 2;
const PARTS: u8 = 3;

impl Measured {
    /// That of both together. `None`: they are of other metrics.
    pub(in crate::domain) fn plus(self, other: Self) -> Option<Self> {
        Some(match (self, other) {
            (Self::Records(one), Self::Records(other)) => Self::Records(one.saturating_add(other)),
            (Self::Moments(mut sum), Self::Moments(other)) => {
                sum.merge(&other);
                Self::Moments(sum)
            }
            (Self::Parts(one), Self::Parts(other)) => Self::Parts(plus(&one, &other)),
            _ => return None,
        })
    }

    /// The same as it may leave where counts are rounded, so that nothing that is computed from it undoes that. A count, and that
    /// of a part, is rounded. A mean is the sum by the rounded number of its values: the sum may leave beside it, and the sum by
    /// the exact mean would be the exact number. A sum is no count. `None`: a variance, since with sum and mean it tells how many
    /// values there are, and by a rounded number of them it would be none.
    pub(in crate::domain) fn rounded(self, function: &Function, rounding: Rounding) -> Option<Self> {
        if rounding == Rounding::NONE {
            return Some(self);
        }
        Some(match (function, self) {
            (_, Self::Records(records)) => Self::Records(rounding.nearest(records)),
            (_, Self::Parts(counts)) => Self::Parts(in_multiples(counts, rounding)),
            (Function::Mean(_), exact) if planted("means-of-exact-counts") => exact,
            (Function::Mean(measure), Self::Moments(moments)) => {
                Self::Moments(moments.as_of(measure, |values| rounding.nearest(values)))
            }
            (Function::Variance(_), Self::Moments(_)) => return None,
            (_, Self::Moments(moments)) => Self::Moments(moments),
        })
    }

    /// Adds what a metric comes to, or that it may not leave, to bytes under construction.
    pub(in crate::domain) fn encode(measured: Option<&Self>, writer: &mut Writer) {
        match measured {
            None => {
                writer.u8(NOTHING);
            }
            Some(Self::Records(records)) => {
                writer.u8(RECORDS).u64(*records);
            }
            Some(Self::Moments(moments)) => {
                writer.u8(MOMENTS);
                moments.encode(writer);
            }
            Some(Self::Parts(counts)) => {
                writer.u8(PARTS).count(counts.len());
                for count in counts {
                    writer.u8(count.is_some().into()).u64(count.unwrap_or(0));
                }
            }
        }
    }

    /// Reads what [`Measured::encode`] wrote.
    pub(in crate::domain) fn decode(reader: &mut Reader<'_>) -> Option<Option<Self>> {
        Some(match reader.u8()? {
            NOTHING => None,
            RECORDS => Some(Self::Records(reader.u64()?)),
            MOMENTS => Some(Self::Moments(Moments::decode(reader)?)),
            PARTS => {
                let count = |reader: &mut Reader<'_>| Some((reader.u8()? != 0, reader.u64()?));
                let counts = (0..reader.count(1 + 8)?).map(|_| count(reader)).collect::<Option<Vec<_>>>()?;
                Some(Self::Parts(counts.into_iter().map(|(is_told, count)| is_told.then_some(count)).collect()))
            }
            _ => return None,
        })
    }

    /// The value of the metric. Null when there is none.
    pub(in crate::domain) fn value(self, function: &Function) -> Value {
        let number =
            |number: Option<f64>| number.filter(|number| number.is_finite()).map_or(Value::Null, Value::Number);
        match (function, self) {
            (Function::Count, Self::Records(records)) => Value::Count(records),
            (Function::Sum(measure), Self::Moments(moments)) => number(moments.sum(measure)),
            (Function::Mean(measure), Self::Moments(moments)) => number(moments.mean(measure)),
            (Function::Variance(measure), Self::Moments(moments)) => number(moments.variance(measure)),
            (Function::Fraction { .. }, Self::Parts(counts)) => {
                let [matches, others] = [0, 1].map(|part| counts.get(part).copied().flatten().unwrap_or(0) as f64);
                number((matches + others > 0.0).then(|| matches / (matches + others)))
            }
            (Function::Histogram { .. }, Self::Parts(counts)) => Value::Counts(counts),
            _ => Value::Null,
        }
    }
}

/// The counts of two histograms together. A range that is counted in the one before it in one of them is so in the sum.
#[must_use]
pub fn plus(one: &[Option<u64>], other: &[Option<u64>]) -> Vec<Option<u64>> {
    let (mut sum, mut open) = (vec![None; one.len()], 0);
    for (range, counts) in one.iter().zip(other).enumerate() {
        if let (Some(_), Some(_)) = counts {
            open = range;
        }
        let counts = [counts.0, counts.1].into_iter().flatten();
        if let Some(into) = sum.get_mut(open) {
            *into = Some(counts.fold(into.unwrap_or(0), |sum: u64, count| sum.saturating_add(*count)));
        }
    }
    sum
}
