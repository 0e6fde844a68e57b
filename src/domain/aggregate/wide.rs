//! Integers as wide as an exact variance needs.

/// A sum of squares of 64-bit integers: 192 bits, so 2^64 of them fit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Squares {
    low: u128,
    high: u64,
}

impl Squares {
    /// Of its lower 128 bits and its upper 64.
    pub(super) fn new(low: u128, high: u64) -> Self {
        Self { low, high }
    }

    /// The lower 128 bits and the upper 64.
    pub(super) fn parts(self) -> (u128, u64) {
        (self.low, self.high)
    }

    /// Adds the square of an integer.
    pub(super) fn add_square_of(&mut self, value: i64) {
        let magnitude = u128::from(value.unsigned_abs());
        self.add(Self { low: magnitude * magnitude, high: 0 });
    }

    /// Adds another sum.
    pub(super) fn add(&mut self, other: Self) {
        let (low, carry) = self.low.overflowing_add(other.low);
        self.low = low;
        self.high = self.high.wrapping_add(other.high).wrapping_add(u64::from(carry));
    }

    /// This times a 64-bit integer.
    pub(super) fn times(self, factor: u64) -> U256 {
        let (first, second) = halves(self.low);
        U256::product(&[first, second, self.high], &[factor])
    }
}

/// An unsigned integer of 256 bits, the least significant 64 first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct U256([u64; 4]);

impl U256 {
    /// The square of a 128-bit integer.
    pub(super) fn square_of(value: u128) -> Self {
        let (low, high) = halves(value);
        Self::product(&[low, high], &[low, high])
    }

    /// The product of two integers of together at most four limbs, as it is done on paper.
    fn product(left: &[u64], right: &[u64]) -> Self {
        let mut limbs = [0; 4];
        for (shift, &one) in left.iter().enumerate() {
            let mut carry = 0;
            let places = limbs.iter_mut().skip(shift);
            for (place, other) in places.zip(right.iter().copied().chain([0])) {
                let sum = u128::from(one) * u128::from(other) + u128::from(*place) + u128::from(carry);
                (*place, carry) = halves(sum);
            }
        }
        Self(limbs)
    }

    /// This less another one; `None` when the other one is greater.
    pub(super) fn minus(self, other: Self) -> Option<Self> {
        let mut difference = [0; 4];
        let mut borrow = false;
        for (place, (left, right)) in difference.iter_mut().zip(self.0.into_iter().zip(other.0)) {
            let (without, first) = left.overflowing_sub(right);
            let (with, second) = without.overflowing_sub(u64::from(borrow));
            (*place, borrow) = (with, first || second);
        }
        (!borrow).then_some(Self(difference))
    }

    /// The nearest float, the even one of two.
    pub(super) fn to_f64(self) -> f64 {
        // The upper limb that is not zero, the one below it, whether anything is below that, and the upper one's exponent.
        let (top, next, is_more, exponent) = match self.0 {
            [first, 0, 0, 0] => (first, 0, false, 0),
            [first, second, 0, 0] => (second, first, false, 64),
            [first, second, third, 0] => (third, second, first != 0, 128),
            [first, second, third, fourth] => (fourth, third, second | first != 0, 192),
        };
        let shift = top.leading_zeros().min(63);
        let (rest, bits) = halves((u128::from(top) << 64 | u128::from(next)) << shift);
        // Of these 64 bits the lower 11 are rounded away; that there is more below breaks a tie.
        let bits = bits | u64::from(rest != 0 || is_more);
        bits as f64 * 2_f64.powi(exponent - shift.cast_signed())
    }
}

/// The lower and the upper half.
fn halves(value: u128) -> (u64, u64) {
    (value as u64, (value >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;
    use proptest::prelude::*;

    use super::*;

    fn big(limbs: &[u64]) -> BigUint {
        limbs.iter().rev().fold(BigUint::ZERO, |value, limb| (value << 64) + *limb)
    }

    /// Integers with many zeros and ones in them too.
    fn limb() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>(), Just(0), Just(u64::MAX), (0..64_u32).prop_map(|bit| 1 << bit)]
    }

    proptest! {
        #[test]
        fn products_differences_and_floats_are_those_of_a_library(
            (a, b, c, d) in (limb(), limb(), limb(), limb()),
            (e, f, g, h) in (limb(), limb(), limb(), limb()),
        ) {
            let wide = |low: u64, high: u64| u128::from(high) << 64 | u128::from(low);
            prop_assert_eq!(big(&Squares::new(wide(a, b), c).times(d).0), big(&[a, b, c]) * d);
            prop_assert_eq!(big(&U256::square_of(wide(a, b)).0), big(&[a, b]).pow(2));
            let (left, right) = ([a, b, c, d], [e, f, g, h]);
            let difference = U256(left).minus(U256(right)).map(|difference| big(&difference.0));
            prop_assert_eq!(difference, (big(&left) >= big(&right)).then(|| big(&left) - big(&right)));
            // A decimal text is read as the nearest float, whatever its length.
            for limbs in [left, [a, b, c, 0], [a, b, 0, 0], [a, 0, 0, 0], [0, 0, 0, d]] {
                let nearest: f64 = big(&limbs).to_string().parse().unwrap();
                prop_assert_eq!(U256(limbs).to_f64().to_bits(), nearest.to_bits());
            }
        }

        #[test]
        fn squares_are_added_without_loss(values in prop::collection::vec(any::<i64>(), 0..40), high in any::<u32>()) {
            let (mut one, mut two) = (Squares::new(u128::MAX - 3, u64::from(high)), Squares::default());
            let mut expected = (BigUint::from(high) << 128) + (u128::MAX - 3);
            for (index, value) in values.iter().enumerate() {
                if index % 2 == 0 { one.add_square_of(*value) } else { two.add_square_of(*value) }
                expected += BigUint::from(value.unsigned_abs()).pow(2);
            }
            one.add(two);
            prop_assert_eq!(big(&one.times(1).0), expected);
        }
    }
}
