//! Differential privacy of datasets: what is declared of it, how much noise that means, and what it has cost.
//!
//! What a release tells of one contributor is measured by rho of zero-concentrated differential privacy (zCDP; Bun and Steinke,
//! "Concentrated Differential Privacy: Simplifications, Extensions, and Lower Bounds", 2016). It adds up: the rho of two
//! releases is the sum of both (Lemma 1.7). Noise is added to whole numbers, so that no float gives it away:
//!
//! - discrete Gaussian noise of scale s: rho = d^2 / (2 s^2), where d is the L2 distance (Canonne, Kamath and Steinke, "The
//!   Discrete Gaussian for Differential Privacy", 2020, Theorem 14);
//! - discrete Laplace noise of scale s is d/s-differentially private, where d is the L1 distance; what is e-differentially
//!   private has rho = e^2 / 2 (Bun and Steinke, Proposition 1.4).
//!
//! The distance is between what is counted with one contributor and without. [`Sensitivity`] says how it follows from the
//! bounds of a dataset.

use std::fmt;

mod spending;

#[cfg(test)]
pub(crate) use spending::tests as tests_of_spending;

pub use spending::{Answer, Charge, Charged, Day, Spending, WindowKey, day_of};

/// What something tells of one contributor at most: rho of zCDP, in billionths. Whole numbers, so that a budget is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Rho(u64);

/// What stands for a rho of 1.
const ONE: f64 = 1e9;

impl Rho {
    /// The least that anything may be given. With less, the noise would not fit into the numbers.
    pub const LEAST: f64 = 1e-6;
    /// The most. From here on the noise hides hardly more than half of what one contributor may add.
    pub const MOST: f64 = 0.5;

    /// Of a number between [`Rho::LEAST`] and [`Rho::MOST`], rounded down.
    #[must_use]
    pub fn of(rho: f64) -> Option<Self> {
        // 0.01 is 9,999,999.99... billionths as a float.
        (Self::LEAST..=Self::MOST).contains(&rho).then(|| Self((rho * ONE + 1e-3).floor() as u64))
    }

    /// Of so many billionths.
    #[must_use]
    pub fn from_billionths(billionths: u64) -> Self {
        Self(billionths)
    }

    /// How many billionths it is.
    #[must_use]
    pub fn billionths(self) -> u64 {
        self.0
    }

    /// The number.
    #[must_use]
    pub fn value(self) -> f64 {
        self.0 as f64 / ONE
    }

    /// Of both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// One of so many equal shares.
    #[must_use]
    pub fn share(self, shares: usize) -> f64 {
        self.value() / shares.max(1) as f64
    }

    /// The epsilon that goes with a delta (Bun and Steinke, Proposition 1.3).
    #[must_use]
    pub fn epsilon(self, delta: f64) -> f64 {
        self.value() + 2.0 * (self.value() * delta.recip().ln()).sqrt()
    }
}

impl fmt::Display for Rho {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(to)
    }
}

/// Which noise is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// From the discrete Gaussian distribution.
    DiscreteGaussian,
    /// From the discrete Laplace distribution.
    DiscreteLaplace,
}

impl Mechanism {
    /// Every mechanism with its name in the policy language.
    pub const NAMES: [(&'static str, Self); 2] =
        [("discrete_gaussian", Self::DiscreteGaussian), ("discrete_laplace", Self::DiscreteLaplace)];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, mechanism)| *mechanism == self).map_or("", |(name, _)| name)
    }
}

/// What a dataset declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Privacy {
    /// Which noise is added.
    pub mechanism: Mechanism,
    /// What one release may tell of a contributor.
    pub per_window: Rho,
    /// What all releases of the windows of one day (UTC) may.
    pub per_day: Rho,
}

impl Privacy {
    /// The stricter of each of two values.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        let (per_window, per_day) = (self.per_window.min(other.per_window), self.per_day.min(other.per_day));
        Self { mechanism: self.mechanism, per_window, per_day }
    }
}

/// How far one contributor can change a list of numbers: each of at most so many cells by at most so much, in all of the
/// cell's numbers together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sensitivity {
    /// By how much of one cell.
    pub each: u64,
    /// Of how many cells.
    pub cells: u32,
}

/// The chance that a cell of fewer than k contributors leaves: see [`Spread::margin`].
pub const BELOW_K: f64 = 1e-9;

/// How much noise a list of numbers gets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Which noise.
    pub mechanism: Mechanism,
    /// How far one contributor changes the numbers.
    pub sensitivity: Sensitivity,
    /// What they may tell of one.
    pub rho: f64,
}

impl Spread {
    /// The distance between the numbers with one contributor and without: L2 for Gaussian noise, L1 for Laplace noise.
    #[must_use]
    pub fn distance(&self) -> f64 {
        let Sensitivity { each, cells } = self.sensitivity;
        match self.mechanism {
            // A list in one cell is as far as its L1 distance at most.
            Mechanism::DiscreteGaussian => f64::from(cells).sqrt() * each as f64,
            Mechanism::DiscreteLaplace => f64::from(cells) * each as f64,
        }
    }

    /// The scale of the noise: the sigma of a Gaussian distribution, the b of a Laplace distribution.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.distance() / (2.0 * self.rho).sqrt()
    }

    /// The standard deviation of the noise. Of a discrete distribution it is not more than of the other one.
    #[must_use]
    pub fn sigma(&self) -> f64 {
        match self.mechanism {
            Mechanism::DiscreteGaussian => self.scale(),
            Mechanism::DiscreteLaplace => self.scale() * std::f64::consts::SQRT_2,
        }
    }

    /// So much noise or more is added to a number with a probability of at most [`BELOW_K`]. Of discrete Gaussian noise
    /// P(X >= t) <= exp(-t^2 / (2 s^2)), because it is subgaussian (the same paper); of discrete
    /// Laplace noise P(X >= t) <= exp(-t / s) for whole t.
    #[must_use]
    pub fn margin(&self) -> f64 {
        let surprise = -BELOW_K.ln();
        match self.mechanism {
            Mechanism::DiscreteGaussian => self.scale() * (2.0 * surprise).sqrt(),
            Mechanism::DiscreteLaplace => self.scale() * surprise,
        }
    }
}

/// What came of a window that is to have noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paid {
    /// Its cells got noise, and those with enough contributors leave.
    Noised,
    /// The budget of its day was spent: nothing left, and it cost nothing.
    Spent,
    /// It was charged, and then there was a crash or a fault: nothing left.
    Lost,
}

/// Why there is no noise.
#[derive(Debug, thiserror::Error)]
#[error("no noise could be drawn: {0}")]
pub struct NoNoise(pub String);

/// Where noise comes from.
pub trait Noise {
    /// The numbers with noise.
    ///
    /// # Errors
    /// When there is none. Then nothing may leave.
    fn added(&mut self, numbers: Vec<i64>, spread: &Spread) -> Result<Vec<i64>, NoNoise>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rho_is_exact_in_billionths_and_adds_up() {
        for (rho, billionths) in [(0.01, 10_000_000), (1e-6, 1_000), (0.5, 500_000_000), (0.1 + 0.2, 300_000_000)] {
            assert_eq!(Rho::of(rho).map(Rho::billionths), Some(billionths), "{rho}");
        }
        for wrong in [0.0, 9e-7, 0.500_001, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Rho::of(wrong), None, "{wrong}");
        }
        let tenth = Rho::of(0.1).unwrap();
        assert_eq!((0..24).fold(Rho::default(), |sum, _| sum.and(tenth)).billionths(), 2_400_000_000);
        assert_eq!(tenth.to_string(), "0.1");
        // By hand: 0.144 + 2 sqrt(0.144 * 20.723).
        assert!((Rho::of(0.144).unwrap().epsilon(1e-9) - 3.5989).abs() < 1e-3);
    }

    /// The formulas, the other way round.
    #[test]
    fn the_scale_gives_the_rho_that_was_asked_for() {
        for (each, cells, rho) in [(1, 1, 0.125), (3, 4, 0.01), (5_000_000, 65_536, 1e-6)] {
            let spread = |mechanism| Spread { mechanism, sensitivity: Sensitivity { each, cells }, rho };
            let gaussian = spread(Mechanism::DiscreteGaussian);
            let l2_squared = f64::from(cells) * (each as f64).powi(2);
            assert!((l2_squared / (2.0 * gaussian.scale().powi(2)) / rho - 1.0).abs() < 1e-12);
            let laplace = spread(Mechanism::DiscreteLaplace);
            let epsilon = f64::from(cells) * each as f64 / laplace.scale();
            assert!((epsilon.powi(2) / 2.0 / rho - 1.0).abs() < 1e-12);
            for spread in [gaussian, laplace] {
                assert!(spread.margin() > 6.0 * spread.sigma());
            }
        }
    }

    #[test]
    fn of_two_declarations_the_stricter_values_hold() {
        let privacy = |per_window, per_day| Privacy {
            mechanism: Mechanism::DiscreteGaussian,
            per_window: Rho::of(per_window).unwrap(),
            per_day: Rho::of(per_day).unwrap(),
        };
        assert_eq!(privacy(0.01, 0.2).stricter(privacy(0.02, 0.1)), privacy(0.01, 0.1));
    }
}
