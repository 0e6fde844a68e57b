//! Sums and sums of squares as integers, and what is made of them.
//!
//! A value is moved into its declared range and scaled by the power of two that makes the range fill 61 bits. That is
//! exact; then it is rounded once, to the nearest integer `q`. Everything after that is exact up to the last step:
//! integers are added, and the variance is made of `n * sum(q^2) - sum(q)^2`, which no rounding has touched.
//!
//! With `u` for 2^-62 of the power of two at or above the largest magnitude of the range, and `n` values:
//!
//! - a value is off by at most `u`; values of at least 1/256 of the largest magnitude by nothing, since a float has
//!   only 53 bits;
//! - the sum is off by at most `n * u` and one rounding (2^-53 of itself), the mean by `u` and two roundings;
//! - the standard deviation is off by at most `u`, and then the variance by four roundings (2^-51 of itself).

use super::portions::Portion;
use super::wide::{Squares, U256};
use crate::domain::binary::{Reader, Writer};
use crate::domain::dataset::Measure;

/// Bits that a value's range is scaled to. Sums of 2^66 values fit into 128 bits, sums of 2^64 squares into 192.
const SUM_BITS: i32 = 61;

/// The values of one column in one cell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::domain) struct Moments {
    pub(super) values: u64,
    pub(super) sum: i128,
    pub(super) squares: Squares,
}

/// Bits of how far a value is from an end of its range.
const END_BITS: u32 = 40;

/// What turns values into integers.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    factor: f64,
}

impl Measure {
    /// The least power of two at or above the largest magnitude of the range.
    fn exponent(&self) -> i32 {
        let largest = self.range.low.abs().max(self.range.high.abs());
        let (exponent, rest) = (largest.to_bits() >> 52, largest.to_bits() << 12);
        // 1,023 stands for the power 0.
        i32::try_from(exponent).unwrap_or(0) - 1_023 + i32::from(rest != 0)
    }

    /// How its values become integers.
    pub(super) fn scale(&self) -> Scale {
        Scale { low: self.range.low, high: self.range.high, factor: 2_f64.powi(SUM_BITS - self.exponent()) }
    }
}

impl Scale {
    /// How much one step of the integers is.
    pub(super) fn step(self) -> f64 {
        self.factor.recip()
    }

    /// The integer that a finite value becomes.
    pub(super) fn integer(self, value: f64) -> i64 {
        rounded(value.clamp(self.low, self.high) * self.factor)
    }
}

/// Both ends of a range as integers, and the steps that portions are counted in: 2^-40 of the range, or what the integers can
/// tell. They are rounded up: a value that is not at an end is at least one step from it.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    low: i64,
    high: i64,
    shift: u32,
}

impl Scale {
    /// The ends of the range.
    pub(super) fn ends(self) -> Ends {
        let (low, high) = (self.integer(self.low), self.integer(self.high));
        let bits = u64::BITS - high.abs_diff(low).leading_zeros();
        Ends { low, high, shift: bits.saturating_sub(END_BITS) }
    }
}

impl Ends {
    /// How many steps the range is.
    pub(super) fn steps(self) -> f64 {
        self.high.abs_diff(self.low) as f64 / (1_u64 << self.shift) as f64
    }

    /// What a value adds, as the integer that it became: it lies between the ends, which may be as far apart as a `u64` says.
    pub(super) fn portion(self, integer: i64) -> Portion {
        let steps = |distance: i64| (distance.cast_unsigned() + (1 << self.shift) - 1) >> self.shift;
        Portion { above: steps(integer.wrapping_sub(self.low)), below: steps(self.high.wrapping_sub(integer)) }
    }
}

/// The nearest integer, the even one of two: what `round_ties_even` gives, which without SSE 4.1 is a call.
pub(super) fn rounded(value: f64) -> i64 {
    // From here on floats are whole numbers, so what is added and taken away again rounds.
    const WHOLE: f64 = (1_u64 << 52) as f64;
    let whole = WHOLE.copysign(value);
    let near = (value + whole) - whole;
    (if value.abs() < WHOLE { near } else { value }) as i64
}

impl Moments {
    /// Adds a value, as an integer.
    pub(super) fn add(&mut self, integer: i64) {
        self.values += 1;
        self.sum += i128::from(integer);
        self.squares.add_square_of(integer);
    }

    /// Adds those of another part.
    pub(super) fn merge(&mut self, other: &Self) {
        self.values += other.values;
        self.sum += other.sum;
        self.squares.add(other.squares);
    }

    /// The same sum as one of another number of values, as far as so many values in the range can have it. There is no variance
    /// of it.
    pub(super) fn as_of(&self, measure: &Measure, number: impl Fn(u64) -> u64) -> Self {
        let (values, scale) = (number(self.values), measure.scale());
        let all_at = |end: f64| i128::from(scale.integer(end)) * i128::from(values);
        let sum = self.sum.clamp(all_at(scale.low), all_at(scale.high));
        Self { values, sum, squares: Squares::default() }
    }

    pub(super) fn sum(&self, measure: &Measure) -> Option<f64> {
        (self.values > 0).then(|| self.sum as f64 / measure.scale().factor)
    }

    pub(super) fn mean(&self, measure: &Measure) -> Option<f64> {
        // The quotient of floats may be beside the range by the last bit.
        let (low, high) = (measure.scale().low, measure.scale().high);
        self.sum(measure).map(|sum| (sum / self.values as f64).clamp(low, high))
    }

    pub(super) fn variance(&self, measure: &Measure) -> Option<f64> {
        let (values, factor) = ((self.values > 0).then_some(self.values as f64)?, measure.scale().factor);
        // Below zero only with squares that version 1 has rounded.
        let exact = self.squares.times(self.values).minus(U256::square_of(self.sum.unsigned_abs()));
        Some(exact.map_or(0.0, U256::to_f64) / values / values / factor / factor)
    }

    /// The sum of the squares of how far the values are off each end of the range, where 1 is the whole range.
    pub(super) fn squares_off_ends(&self, measure: &Measure) -> Option<[f64; 2]> {
        let (values, mean, variance) = (self.values as f64, self.mean(measure)?, self.variance(measure)?);
        let whole = measure.range.high - measure.range.low;
        let of_end = |end: f64| values * (variance + (mean - end) * (mean - end)) / (whole * whole);
        (whole > 0.0).then(|| [of_end(measure.range.low), of_end(measure.range.high)])
    }

    /// Adds them to bytes under construction.
    pub(super) fn encode(&self, writer: &mut Writer) {
        let (low, high) = self.squares.parts();
        writer.u64(self.values).i128(self.sum).u128(low).u64(high);
    }

    /// Reads what [`Moments::encode`] wrote.
    pub(super) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let (values, sum) = (reader.u64()?, reader.i128()?);
        Some(Self { values, sum, squares: Squares::new(reader.u128()?, reader.u64()?) })
    }

    /// Of what version 1 kept, with the error that it had: squares were scaled to 61 bits like values and rounded one by
    /// one, and the exponent was worked out with a logarithm, which a range just above a power of two rounds down.
    pub(super) fn of_version_1(measure: &Measure, values: u64, sum: i128, squares: i128) -> Option<Self> {
        let largest = measure.range.low.abs().max(measure.range.high.abs());
        let exponent_then = if largest > 0.0 { largest.log2().ceil() as i32 } else { 0 };
        let shift = u32::try_from(measure.exponent() - exponent_then).ok().filter(|shift| *shift <= 1)?;
        let squares = u128::try_from(squares).ok()?;
        let to_left = SUM_BITS.unsigned_abs() - 2 * shift;
        let high = u64::try_from(squares >> (128 - to_left)).ok()?;
        Some(Self { values, sum: sum >> shift, squares: Squares::new(squares << to_left, high) })
    }
}

#[cfg(test)]
mod tests;
