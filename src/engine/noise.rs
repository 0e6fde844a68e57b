//! Noise, drawn by OpenDP: <https://opendp.org>.
//!
//! Its samplers are exact: the noise is whole, and computed from random bits by rational numbers, without floats. OpenDP
//! takes the bits from the random numbers of the crate `rand` (ChaCha20, under a seed of the system's). Its option to take
//! OpenSSL's would bind every other part of the program to one old version of OpenSSL.

use opendp::core::{Measure, Measurement};
use opendp::domains::{AtomDomain, VectorDomain};
use opendp::error::Error;
use opendp::measurements::{make_gaussian, make_laplace};
use opendp::measures::{MaxDivergence, ZeroConcentratedDivergence};
use opendp::metrics::{L1Distance, L2Distance};

use crate::domain::privacy::{Mechanism, NoNoise, Noise, Spread};
use crate::planted::planted;

/// OpenDP's mechanisms.
#[derive(Debug, Default)]
pub struct OpenDp;

/// OpenDP looks at integers of this kind.
type Numbers = VectorDomain<AtomDomain<i64>>;

impl Noise for OpenDp {
    fn added(&mut self, numbers: Vec<i64>, spread: &Spread) -> Result<Vec<i64>, NoNoise> {
        let drawn = match spread.mechanism {
            Mechanism::DiscreteGaussian => gaussian(&numbers, spread),
            Mechanism::DiscreteLaplace => laplace(&numbers, spread),
        };
        drawn.map_err(|error| NoNoise(format!("{:?}", error.variant)))
    }
}

fn domain() -> Numbers {
    VectorDomain::new(AtomDomain::default())
}

fn gaussian(numbers: &Vec<i64>, spread: &Spread) -> Result<Vec<i64>, Error> {
    let make =
        |scale| make_gaussian::<_, _, ZeroConcentratedDivergence>(domain(), L2Distance::<f64>::default(), scale, None);
    enough(spread, spread.rho, make, |measurement| measurement.map(&spread.distance()))?.invoke(numbers)
}

fn laplace(numbers: &Vec<i64>, spread: &Spread) -> Result<Vec<i64>, Error> {
    let make = |scale| make_laplace::<_, _, MaxDivergence>(domain(), L1Distance::<f64>::default(), scale, None);
    let epsilon = (2.0 * spread.rho).sqrt();
    enough(spread, epsilon, make, |measurement| measurement.map(&spread.distance()))?.invoke(numbers)
}

/// The mechanism with a scale that OpenDP says tells no more than `most`. It rounds up what is not exact, so the scale
/// becomes a little larger until it agrees.
fn enough<MI, MO>(
    spread: &Spread,
    most: f64,
    make: impl Fn(f64) -> Result<Measurement<Numbers, MI, MO, Vec<i64>>, Error>,
    tells: impl Fn(&Measurement<Numbers, MI, MO, Vec<i64>>) -> Result<f64, Error>,
) -> Result<Measurement<Numbers, MI, MO, Vec<i64>>, Error>
where
    MI: opendp::core::Metric,
    MO: Measure,
    (Numbers, MI): opendp::core::MetricSpace,
{
    let mut scale = spread.scale();
    if planted("noise-halved") {
        return make(scale / 2.0);
    }
    loop {
        let measurement = make(scale)?;
        if tells(&measurement)? <= most {
            return Ok(measurement);
        }
        scale *= 1.0 + 1e-9;
    }
}
