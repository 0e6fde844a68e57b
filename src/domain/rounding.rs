//! To which multiples counts are rounded before they leave, where a release profile asks for it.
//!
//! A count becomes the nearest multiple of a base, and of two that are as near the greater one. Nothing is drawn: the same count
//! always becomes the same number, in a replay too.
//!
//! Whoever asks for a base asks for multiples of it. So two who ask for 4 and for 6 get multiples of both, which are those of
//! their least common multiple, 12. A multiple of 6 that is no multiple of 4 would not be what the one asked for.

use std::fmt;

/// To which multiples counts are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rounding(u64);

impl Rounding {
    /// Counts leave as they are.
    pub const NONE: Self = Self(1);
    /// The smallest base that changes anything.
    pub const LEAST: u64 = 2;
    /// The largest base that policies may come to: with a larger one, most cells would say 0.
    pub const MOST: u64 = 1_000;

    /// Rounding to multiples of a base. `None`: the base is too small or too large.
    #[must_use]
    pub fn to_multiples_of(base: usize) -> Option<Self> {
        let base = u64::try_from(base).ok()?;
        (Self::LEAST..=Self::MOST).contains(&base).then_some(Self(base))
    }

    /// The base; 1 if counts leave as they are.
    #[must_use]
    pub fn base(self) -> u64 {
        self.0
    }

    /// Whether what is rounded in this way is a multiple of what another way asks for.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.0.is_multiple_of(other.0)
    }

    /// Whether the base is larger than policies may come to.
    #[must_use]
    pub fn is_too_large(self) -> bool {
        self.0 > Self::MOST
    }

    /// The rounding that gives each of two what it asks for: to multiples of the least common multiple. One that is larger than
    /// any count makes 0 of all of them, which is a multiple of everything.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        let (mut divisor, mut rest) = (self.0, other.0);
        while rest > 0 {
            (divisor, rest) = (rest, divisor % rest);
        }
        Self((self.0 / divisor).saturating_mul(other.0))
    }

    /// That of several. Of none, counts leave as they are.
    pub fn of_all(all: impl IntoIterator<Item = Self>) -> Self {
        all.into_iter().fold(Self::NONE, Self::with)
    }

    /// A count as it leaves: the nearest multiple, and of two the greater one.
    #[must_use]
    pub fn nearest(self, count: u64) -> u64 {
        let (base, rest) = (self.0, count % self.0);
        let below = count - rest;
        if rest > 0 && rest >= base - rest { below.checked_add(base).unwrap_or(below) } else { below }
    }

    /// The least count that leaves as this multiple.
    #[must_use]
    pub fn least_of(self, multiple: u64) -> u64 {
        multiple.saturating_sub(self.0 / 2)
    }

    /// The greatest count that leaves as this multiple.
    #[must_use]
    pub fn most_of(self, multiple: u64) -> u64 {
        multiple.saturating_add(self.0 - self.0 / 2 - 1)
    }
}

impl Default for Rounding {
    fn default() -> Self {
        Self::NONE
    }
}

impl fmt::Display for Rounding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn base() -> impl Strategy<Value = u64> {
        prop_oneof![3 => 1..30_u64, 1 => 1..=Rounding::MOST]
    }

    /// The slow way: of all multiples the nearest, the greater of two.
    fn reference(base: u64, count: u64) -> u64 {
        let multiples = (0..).map(|times| times * base).take_while(|multiple| *multiple <= count + 1_000);
        multiples.min_by_key(|multiple| (multiple.abs_diff(count), u64::MAX - multiple)).unwrap()
    }

    proptest! {
        #[test]
        fn a_count_becomes_the_nearest_multiple(base in base(), count in 0..5_000_u64) {
            let rounding = Rounding(base);
            let multiple = rounding.nearest(count);
            prop_assert_eq!(multiple, reference(base, count));
            prop_assert_eq!(rounding.nearest(multiple), multiple);
            // All counts that become this multiple, and no others.
            let ends = (rounding.least_of(multiple), rounding.most_of(multiple));
            prop_assert!(ends.0 <= count && count <= ends.1);
            prop_assert_eq!((rounding.nearest(ends.0), rounding.nearest(ends.1)), (multiple, multiple));
            prop_assert!(ends.0 == 0 || rounding.nearest(ends.0 - 1) < multiple);
            prop_assert!(rounding.nearest(ends.1 + 1) > multiple);
        }

        #[test]
        fn two_together_give_each_what_it_asks_for_and_no_more(one in base(), other in base()) {
            let slow = (1..).find(|base| base % one == 0 && base % other == 0).unwrap();
            let (one, other) = (Rounding(one), Rounding(other));
            let both = one.with(other);
            prop_assert_eq!((both, both.is_too_large()), (Rounding(slow), slow > Rounding::MOST));
            prop_assert_eq!(both, other.with(one));
            prop_assert!(both.covers(one) && both.covers(other) && both.with(one) == both);
        }
    }

    #[test]
    fn a_base_is_from_2_to_1000_and_no_count_is_too_large() {
        let is_one = |base| Rounding::to_multiples_of(base).is_some();
        assert_eq!([0, 1, 2, 1_000, 1_001, usize::MAX].map(is_one), [false, false, true, true, false, false]);
        assert_eq!(Rounding::of_all([]), Rounding::NONE);
        assert_eq!(Rounding::of_all([4, 6, 9].map(Rounding)), Rounding(36));
        assert_eq!(Rounding::of_all([7, 11, 13].map(Rounding)), Rounding(1_001));
        // 24 primes: more than any number has room for.
        let primes = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89];
        assert_eq!(Rounding::of_all(primes.map(Rounding)).nearest(1_000_000_000_000), 0);
        let largest = Rounding(1_000).nearest(u64::MAX);
        assert!(largest.is_multiple_of(1_000) && u64::MAX - largest < 1_000);
        assert_eq!([2, 3, 7, 8, 12].map(|count| Rounding(5).nearest(count)), [0, 5, 5, 10, 10]);
        assert_eq!([1, 2, 5, 6].map(|count| Rounding(4).nearest(count)), [0, 4, 4, 8], "halves go up");
    }
}
