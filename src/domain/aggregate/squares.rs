//! The rule that a variance does not say much about one contributor.
//!
//! Count, sum and variance together tell the sum of the squares of how far the values are off an end of the range. There a
//! contributor who is far above all others weighs more than in the sum. So the p%-rule of [portions](super::portions)
//! holds for squares too, at both ends: for every two contributors, what all others add must be at least p percent of what
//! the one of them adds.
//!
//! Squares are not kept for each contributor. But they have bounds: those of n values that add up to a come to a^2 / n at
//! least. They come to a^2 at most, to a if 1 is the whole range, and to what is left of all squares when all others add
//! the least that they can. The rule holds by these bounds. So it may be too careful, never too lenient.

use super::points::Point;
use super::rule::PartRule;
use crate::planted::planted;

/// Whether the squares of a column say little about each of the contributors. `total`: the squares of all values at each
/// end, where 1 is the square of the whole range.
pub(super) fn hold(points: &[&Point], column: usize, total: [f64; 2], rule: PartRule) -> bool {
    planted("squares-of-one")
        || [0, 1].into_iter().zip(total).all(|(end, total)| hold_at(points, column, end, total, rule))
}

fn hold_at(points: &[&Point], column: usize, end: usize, total: f64, rule: PartRule) -> bool {
    let own = points.iter().filter_map(|point| point.own.get(column)).filter(|own| own.values > 0.0);
    // What each adds: the least and the most.
    let bounds = own.filter_map(|own| {
        let off = own.off_ends.get(end)?;
        Some((off * off / own.values, (off * off).min(*off)))
    });
    let bounds: Vec<(f64, f64)> = bounds.collect();
    let least: f64 = bounds.iter().map(|(least, _)| least).sum();
    let (mut largest, mut second) = (0.0, 0.0);
    for (least, _) in &bounds {
        if *least > largest {
            (largest, second) = (*least, largest);
        } else if *least > second {
            second = *least;
        }
    }
    bounds.iter().all(|(own, most)| {
        let without = least - own;
        let most = most.min(total - without).max(*own);
        // Whoever wants to know knows what it adds itself. Of two that add the same, one is still there.
        let knows = if *own < largest { largest } else { second };
        (without - knows) * 100.0 >= most * f64::from(rule.percent)
    })
}
