//! Sums, means and variances against exact rational arithmetic.

use num_bigint::{BigInt, BigUint};
use proptest::prelude::*;

use super::*;
use crate::domain::dataset::Source;
use crate::domain::stream::ValueRange;

/// All numbers here are integers of 2^-1000.
const UNIT: i32 = 1_000;

fn measure(low: f64, high: f64) -> Measure {
    Measure { source: Source { column: 0, field: "x".into(), may_be_missing: false }, range: ValueRange { low, high } }
}

fn moments(measure: &Measure, values: &[f64]) -> Moments {
    let mut moments = Moments::default();
    values.iter().for_each(|value| moments.add(measure.scale().integer(*value)));
    moments
}

/// 2^exponent.
fn power_of_two(exponent: i32) -> BigInt {
    BigInt::from(1) << u32::try_from(exponent).unwrap()
}

/// A float as an integer of 2^-unit.
fn exact(value: f64, unit: i32) -> BigInt {
    let exponent = i32::try_from(value.abs().to_bits() >> 52).unwrap() - 1_075;
    let mantissa = (value.to_bits() & ((1 << 52) - 1)) | (1 << 52);
    if value == 0.0 {
        return BigInt::from(0);
    }
    let magnitude = BigInt::from(mantissa) * power_of_two(exponent + unit);
    if value < 0.0 { -magnitude } else { magnitude }
}

/// The sum; the variance times the square of how many there are.
fn reference(values: &[f64]) -> (BigInt, BigInt) {
    let values: Vec<BigInt> = values.iter().map(|value| exact(*value, UNIT)).collect();
    let (n, sum) = (values.len(), values.iter().sum::<BigInt>());
    let squares: BigInt = values.iter().map(|value| value * value).sum();
    (sum.clone(), squares * n - &sum * &sum)
}

fn magnitude(value: &BigInt) -> BigUint {
    value.magnitude().clone()
}

/// A range, and values of which some lie outside of it.
fn values() -> impl Strategy<Value = (Measure, Vec<f64>)> {
    let edge = (-1.0..1.0_f64, -60..60_i32).prop_map(|(mantissa, exponent)| mantissa * 2_f64.powi(exponent));
    let range =
        (edge.clone(), edge).prop_filter("a range", |(one, other)| one != other && one.abs().max(other.abs()) > 1e-100);
    (range, prop::collection::vec(-0.1..1.1_f64, 1..40), 0..3_u8).prop_map(|((one, other), at, spread)| {
        let (low, high) = (one.min(other), one.max(other));
        // All over the range, close together in it, or far from zero and close together.
        let narrow = match spread {
            0 => 1.0,
            1 => 1e-6,
            _ => 1e-12,
        };
        (measure(low, high), at.into_iter().map(|at| low + (high - low) * (0.5 + (at - 0.5) * narrow)).collect())
    })
}

proptest! {
    #[test]
    fn sums_means_and_variances_are_within_the_bounds_that_are_stated((measure, values) in values()) {
        let moved: Vec<f64> = values.iter().map(|value| value.clamp(measure.range.low, measure.range.high)).collect();
        let (sum, variance) = reference(&moved);
        let (n, u) = (values.len(), magnitude(&power_of_two(measure.exponent() - 62 + UNIT)));
        let within = |found: BigInt, expected: &BigInt, by: BigUint, roundings: u32| {
            // The sum that is rounded is off already, so a little of that is rounded too.
            let bound = &by + (by.clone() >> 50_u8) + (magnitude(expected) >> roundings) + 1_u8;
            let off = magnitude(&(found - expected));
            prop_assert!(off <= bound, "off by {off}, and {bound} is allowed");
            Ok(())
        };
        let found = moments(&measure, &values);
        within(exact(found.sum(&measure).unwrap(), UNIT), &sum, &u * n, 53)?;
        within(exact(found.mean(&measure).unwrap(), UNIT) * n, &sum, &u * n, 52)?;
        // A deviation `s` that is off by `u` makes the variance off by `2 * s * u + u^2`.
        let deviation = magnitude(&variance).sqrt() + 1_u8;
        let by = (deviation * 2_u8 + &u * n) * &u * n;
        within(exact(found.variance(&measure).unwrap(), 2 * UNIT) * n * n, &variance, by, 51)?;
    }

    #[test]
    fn of_values_that_become_integers_exactly_the_variance_is_only_rounded(
        steps in prop::collection::vec(0..4_096_i32, 1..40),
        offset in 0..1_000_000_i32,
    ) {
        let measure = measure(0.0, 2_147_483_648.0);
        let values: Vec<f64> = steps.iter().map(|step| 1.7e9 + f64::from(offset) + f64::from(*step)).collect();
        let (_, variance) = reference(&values);
        let found = moments(&measure, &values).variance(&measure).unwrap();
        let off = magnitude(&(exact(found, 2 * UNIT) * values.len() * values.len() - &variance));
        prop_assert!(off <= magnitude(&variance) >> 51_u8);
    }
}

#[test]
fn twenty_values_far_from_zero_have_the_variance_that_they_have() {
    let measure = measure(0.0, 2e9);
    let values: Vec<f64> = (0..20).map(|index| if index % 2 == 0 { 1.7e9 } else { 1.7e9 + 20.0 }).collect();
    assert_eq!(moments(&measure, &values).variance(&measure), Some(100.0));
    assert_eq!(moments(&measure, &[1.7e9; 20]).variance(&measure), Some(0.0));
    assert_eq!(moments(&measure, &[]).variance(&measure), None);
}

#[test]
fn the_exponent_is_that_of_the_next_power_of_two_for_every_range_that_is_taken() {
    for (high, exponent) in [(1.0, 0), (1.000_000_000_000_000_2, 1), (4.0, 2), (4.000_000_000_000_001, 3), (0.3, -1)] {
        assert_eq!(measure(0.0, high).exponent(), exponent, "{high}");
        assert_eq!(measure(-high, 0.0).exponent(), exponent, "{high}");
    }
    for largest in [1e-100, 1e100] {
        let measure = measure(-largest, largest);
        let found = moments(&measure, &[-largest, largest]);
        assert_eq!(found.sum(&measure), Some(0.0));
        let variance = found.variance(&measure).unwrap();
        assert!((variance / (largest * largest) - 1.0).abs() < 1e-15, "{variance}");
    }
}

#[test]
fn what_version_1_kept_is_gone_on_with() {
    for high in [30.0, 4.000_000_000_000_001] {
        let measure = measure(0.0, high);
        let values = [0.7, 1.4, 3.9];
        // As version 1 counted.
        let exponent = high.log2().ceil() as i32;
        let (scale, square_scale) = (2_f64.powi(61 - exponent), 2_f64.powi(61 - 2 * exponent));
        let sum = values.iter().map(|value| i128::from(rounded(value * scale))).sum();
        let squares = values.iter().map(|value| i128::from(rounded(value * value * square_scale))).sum();
        let old = Moments::of_version_1(&measure, 3, sum, squares).unwrap();
        let new = moments(&measure, &values);
        assert!((old.sum - new.sum).abs() <= 2);
        for (old, new) in [(old.mean(&measure), new.mean(&measure)), (old.variance(&measure), new.variance(&measure))] {
            assert!((old.unwrap() / new.unwrap() - 1.0).abs() < 1e-14, "{old:?} {new:?}");
        }
        assert_eq!(Moments::of_version_1(&measure, 3, sum, -1), None);
    }
}
