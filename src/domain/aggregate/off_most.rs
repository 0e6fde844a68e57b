//! The rule that sums are not about few who are not like most others.
//!
//! If all but one contributor have the same value, the sum less that value times the count is about this one. If two fields
//! are the same for all but one, so is the difference of their sums. Both are one thing: numbers that leave are added with
//! weights, and what comes out is 0 for most contributors. As [points](super::points) these contributors lie on one plane
//! through the origin, and the weights say which.
//!
//! So for each plane that more than half of the contributors lie on, as many as a part of a cell needs must be off it, or
//! nobody. That a plane goes through fewer than half is nothing that most have: whoever knows its weights knows these
//! contributors' values.
//!
//! **The search** is exact. Contributors that can be parted into k groups each of which spans all dimensions are safe: any
//! plane misses somebody in each group. Otherwise each contributor is tried as one who is on the plane, and as one of the
//! few who are off it, the farthest first. What takes too much [work](super::work) is not safe.
//!
//! Floats are off by less than an error that is carried along. Who may be on a plane is taken to be on it.

use super::points::{Point, Points};
use super::rule::PartRule;
use super::work::Work;
use crate::planted::planted;

/// How much a coordinate is off at most: values are rounded to 2^-39 of their range, and both ends of it are.
const ERROR: f64 = 1.0 / (1_u64 << 37) as f64;

/// Of columns whose sums may leave one by one, which may leave together: each that is safe with those before it.
pub(super) fn together(points: &Points, columns: &[bool], rule: PartRule) -> Vec<bool> {
    let asked = || columns.iter().enumerate().filter(|(_, leaves)| **leaves).map(|(column, _)| column);
    let is_safe = |columns: &[usize]| points.whichever_producer(rule, |points| is_safe(points, columns, rule.least));
    let mut leave: Vec<usize> = asked().collect();
    if leave.is_empty() || is_safe(&leave) || planted("sums-off-most") {
        return columns.to_vec();
    }
    leave.clear();
    for column in asked() {
        leave.push(column);
        if !is_safe(&leave) {
            leave.pop();
        }
    }
    (0..columns.len()).map(|column| leave.contains(&column)).collect()
}

/// Whether the sums of some columns, with how many values they are of, are about so many contributors at least whatever
/// most have in common.
fn is_safe(points: &[&Point], columns: &[usize], least: usize) -> bool {
    let matrix = Matrix::of(points, columns);
    let all: Vec<usize> = (0..matrix.rows()).collect();
    let most_off = least.saturating_sub(1).min(all.len().saturating_sub(1) / 2);
    if most_off == 0 {
        return true;
    }
    let rank = matrix.rank(&all);
    let work = Work::for_sums(matrix.numbers.len());
    !Search { work }.finds(&matrix, all, &[], rank, most_off)
}

/// Contributors as rows of numbers, less what those who are on a plane span.
struct Matrix {
    width: usize,
    numbers: Vec<f64>,
    /// How much each number is off at most.
    error: f64,
}

fn size(row: &[f64]) -> f64 {
    row.iter().fold(0.0, |size: f64, number| size.max(number.abs()))
}

/// Where the largest number of a row is.
fn pivot(row: &[f64]) -> usize {
    let sizes = row.iter().map(|number| number.abs()).enumerate();
    sizes.reduce(|one, other| if other.1 > one.1 { other } else { one }).map_or(0, |(at, _)| at)
}

/// Takes off a row what makes it 0 at the pivot of another one. How much of it that was.
fn clear(row: &mut [f64], other: &[f64], pivot: usize) -> f64 {
    let number = |row: &[f64]| row.get(pivot).copied().unwrap_or(0.0);
    let factor = number(row) / number(other);
    row.iter_mut().zip(other).for_each(|(number, other)| *number -= factor * other);
    if let Some(cleared) = row.get_mut(pivot) {
        *cleared = 0.0;
    }
    factor.abs()
}

impl Matrix {
    /// Of the contributors that have a value in any of the columns. How long a row is does not matter for who is on a
    /// plane: each is divided by how many values it has.
    fn of(points: &[&Point], columns: &[usize]) -> Self {
        let own = |point: &Point, column: &usize| point.own.get(*column).copied().unwrap_or_default();
        let mut rows: Vec<Vec<f64>> = Vec::with_capacity(points.len());
        for point in points {
            let values = columns.iter().map(|column| own(point, column).values);
            let most = values.clone().fold(0.0, f64::max);
            if most > 0.0 {
                let above = columns.iter().map(|column| own(point, column).off_ends[0]);
                rows.push(values.chain(above).map(|number| number / most).collect());
            }
        }
        // Where everybody has as many values in a column as in the first one, that says nothing new.
        let same = |column: usize| rows.iter().all(|row| row.get(column) == row.first());
        let kept: Vec<usize> =
            (0..2 * columns.len()).filter(|at| *at == 0 || *at >= columns.len() || !same(*at)).collect();
        let numbers = rows.iter().flat_map(|row| kept.iter().filter_map(|at| row.get(*at).copied())).collect();
        Self { width: kept.len().max(1), numbers, error: ERROR }
    }

    fn rows(&self) -> usize {
        self.numbers.len() / self.width
    }

    fn row(&self, row: usize) -> &[f64] {
        self.numbers.get(row * self.width..(row + 1) * self.width).unwrap_or_default()
    }

    fn is_off(&self, row: usize) -> bool {
        size(self.row(row)) > self.error
    }

    /// The one of some rows that is farthest off.
    fn farthest(&self, rows: &[usize]) -> Option<usize> {
        let sizes = rows.iter().map(|row| (*row, size(self.row(*row))));
        sizes.reduce(|one, other| if other.1 > one.1 { other } else { one }).map(|(row, _)| row)
    }

    /// With one row more that is on the plane. No other that counts is larger.
    fn with_on(&self, on: usize) -> Self {
        let on = self.row(on);
        let pivot = pivot(on);
        let mut numbers = self.numbers.clone();
        numbers.chunks_exact_mut(self.width).for_each(|row| {
            clear(row, on, pivot);
        });
        // A factor of at most 1 is off by twice the error at most, and so is what it takes off.
        Self { numbers, error: self.error * 4.0, ..*self }
    }

    /// How many dimensions the rows span.
    fn rank(&self, rows: &[usize]) -> usize {
        match self.farthest(rows).filter(|row| self.is_off(*row)) {
            Some(row) => 1 + self.with_on(row).rank(rows),
            None => 0,
        }
    }
}

struct Search {
    work: Work,
}

impl Search {
    /// Whether a plane holds what the rows are less, and all `open` rows but `most_off` at most, and leaves somebody off.
    /// `off` are those that are said to be. The rows span `rank` dimensions.
    fn finds(&self, matrix: &Matrix, mut open: Vec<usize>, off: &[usize], rank: usize, most_off: usize) -> bool {
        if !self.work.take(matrix.numbers.len()) {
            return true;
        }
        open.retain(|row| matrix.is_off(*row));
        let Some(farthest) = matrix.farthest(&open) else { return off.iter().any(|row| matrix.is_off(*row)) };
        if rank <= 1 {
            // The plane is full.
            return rank == 1 && open.len() <= most_off;
        }
        if self.has_groups(matrix, open.clone(), rank, most_off + 1) {
            return false;
        }
        open.retain(|row| *row != farthest);
        if self.finds(&matrix.with_on(farthest), open.clone(), off, rank - 1, most_off) {
            return true;
        }
        let off: Vec<usize> = off.iter().copied().chain([farthest]).collect();
        most_off > 0 && self.finds(matrix, open, &off, rank, most_off - 1)
    }

    /// Whether so many groups of these rows are found without a row in two of them, each of which spans so many dimensions.
    fn has_groups(&self, matrix: &Matrix, mut rows: Vec<usize>, rank: usize, groups: usize) -> bool {
        if rows.len() < rank * groups {
            return false;
        }
        for _ in 0..groups {
            let mut group: Vec<(Vec<f64>, usize, f64)> = Vec::with_capacity(rank);
            let mut rest = Vec::new();
            for row in rows {
                if group.len() == rank {
                    rest.push(row);
                    continue;
                }
                if !self.work.take(matrix.width * (group.len() + 1)) {
                    return false;
                }
                let (mut numbers, mut error) = (matrix.row(row).to_vec(), matrix.error);
                for (other, pivot, of_other) in &group {
                    error = 2.0 * (error + clear(&mut numbers, other, *pivot) * of_other);
                }
                if size(&numbers) > error {
                    let pivot = pivot(&numbers);
                    group.push((numbers, pivot, error));
                } else {
                    rest.push(row);
                }
            }
            if group.len() < rank {
                return false;
            }
            rows = rest;
        }
        true
    }
}

#[cfg(test)]
mod tests;
