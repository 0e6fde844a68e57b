//! Coarser datasets: what leaves of a window is added up over keys that they do not have.
//!
//! A row of a coarser dataset is the sum of all rows of the finer one that agree in its keys, cells and remainders. Whoever
//! has those can add them. So it tells nothing that they do not tell, and no rule of release is asked again: what is in no
//! cell that leaves is in no sum. A number that one of the rows does not tell, the sum does not tell.
//!
//! What is asked of the numbers of each row holds for the sum of several, because no two have a record in common. With the
//! contributors of one row alone there are k, also without the records of any one producer. By the p%-rule, each row has
//! `X - x1 - x2 >= p * x1` of its own two largest contributors. Added up, the left is at most what others than any two have of
//! the sum, and the right is at least `p` times what any one has. What a producer adds to a sum is at most its share, too.
//!
//! One contributor can be in several rows. So a producer's share of the distinct contributors can be larger than in any row,
//! and one contributor can have more records than the bounds of a cell allow. Neither tells more than the rows do.

use std::collections::BTreeMap;

use super::rolled::Row;
use crate::domain::aggregate::{Measured, positions_of};
use crate::domain::dataset::Dataset;
use crate::planted::planted;

/// The positions of the keys that rows have in common which become one, the last key first: then they stand in the order of
/// the cells' numbers, in which the first key counts least. One that was given up comes last.
pub(super) type Agree = Vec<u32>;

/// The rows that become one, for each row of a dataset with these of the keys that are counted by. It tells of each that it has
/// so many contributors.
pub(super) fn added_up<'l>(
    counted: &Dataset,
    rows: &[Row<'l>],
    keys: &[usize],
    contributors: Option<u64>,
) -> BTreeMap<Agree, Vec<Row<'l>>> {
    let mut sums: BTreeMap<Agree, Vec<Row<'l>>> = BTreeMap::new();
    for row in rows {
        let positions = positions_of(counted, row.cells.number(row.slot) as usize);
        let of = |key: &usize| positions.get(*key).copied().filter(|_| !row.given_up.contains(key));
        let agree =
            keys.iter().rev().map(|key| of(key).and_then(|position| position.try_into().ok()).unwrap_or(GIVEN_UP));
        sums.entry(agree.collect()).or_default().push(Row { contributors, ..*row });
    }
    sums
}

/// Stands for a key that was given up.
pub(super) const GIVEN_UP: u32 = u32::MAX;

/// What a metric of rows comes to that are added up. `None`: it may not leave of one of them. Counts are rounded in each row, not
/// in the sum alone: the exact sum beside the rows would tell how much they were rounded.
pub(super) fn measured(counted: &Dataset, metric: usize, rows: &[Row<'_>]) -> Option<Measured> {
    let one = rows.first().filter(|_| planted("sums-by-one-plan"));
    let function = &counted.metrics.get(metric)?.function;
    let of = |row: &Row<'_>| {
        let exact = row.cells.measured(counted, metric, row.slot, one.unwrap_or(row).plan)?;
        if planted("sums-of-exact-counts") { Some(exact) } else { exact.rounded(function, row.rounding) }
    };
    rows.iter().map(of).reduce(|sum, row| sum?.plus(row?)).flatten()
}
