//! Release profiles: what a policy can ask of cells before they leave, under a name.

use std::time::Duration;

use crate::domain::dataset::Bounds;
use crate::domain::privacy::Rho;
use crate::domain::rounding::Rounding;

/// A release profile: `[release.NAME]`. What it does not say, it does not ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// Its name; empty for none.
    pub name: String,
    /// The least number of contributors of a cell.
    pub min_contributors: Option<usize>,
    /// The least number of contributors of a part of a cell.
    pub min_part: Option<usize>,
    /// What all but the two largest contributors must add to a sum, in percent of what the largest one adds.
    pub percent: Option<u32>,
    /// 2: as many contributors without the records of any single producer. 1: one producer is enough.
    pub min_producers: Option<usize>,
    /// Of a thousand contributors of a cell at least so many are brought by others than any single producer.
    pub beside: Option<u32>,
    /// How many records of one contributor count, at most.
    pub bounds: Option<Bounds>,
    /// It is not told how many contributors a cell has, not even at least.
    pub never_tells_contributors: bool,
    /// Every count leaves as a multiple of this base.
    pub rounding: Option<Rounding>,
    /// Cells have noise, and a day's releases tell no more than this of one contributor.
    pub rho_per_day: Option<Rho>,
    /// The shortest window.
    pub min_window: Option<Duration>,
}
