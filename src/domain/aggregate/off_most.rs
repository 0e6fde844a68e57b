//! The rule that sums are not about few who are not like most others.
//!
//! If all but one contributor have the same value, the sum less that value times the count is about this one. If two fields
//! are the same for all but one, so is the difference of their sums. Both are one thing: numbers that leave are added with
//! weights, and what comes out is 0 for most contributors. As [points](super::points) these contributors lie on one plane
//! through the origin, and the weights say which.
//!
//! So for each plane that more than half of the contributors lie on, as many as a part of a cell needs must be off it, or
//! nobody. That a plane goes through fewer than half is nothing that most have: whoever knows its weights knows these
//! contributors' values. Who has no value in any of the columns is no contributor to them; who has none in one of them is
//! as one who adds 0.
//!
//! **The search**: contributors that can be parted into k groups, each of which spans all dimensions, are safe, since any
//! plane misses somebody in each group. Otherwise each contributor is tried as one who is on the plane, and as one of the
//! few who are off it, the farthest first. That finds each plane. What takes too much [work](super::work) is not safe.
//!
//! In general such a search has no short way: it is the least distance of a code. Here it mostly ends soon. For values that
//! differ, looking at k contributors for each dimension is enough to make the groups, and a producer takes away no more of
//! them than it has contributors in. Where there are no such groups, few may be off.
//!
//! Values are the same if they differ by less than [`SAME`] of how far they are apart. What floats and rounding are off by
//! is carried along. Where it is more than that, values that differ by less may be the same; where it is more than
//! [`CLEAR`], only groups show that they are safe.

use super::points::{Point, Points};
use super::rule::PartRule;
use super::work::Work;
use crate::planted::planted;

/// Numbers that are smaller than this are 0, where the largest of a column is 1.
const SAME: f64 = 1.0 / (1 << 20) as f64;
/// A group spans a dimension only by numbers that are so many times larger: its other members may be off a little, too.
const CLEAR: f64 = 64.0 * SAME;
/// How much the difference of two mean values is off at most, where the range of the column is 1: values are rounded up to
/// 2^-39 of it.
const ROUNDED: f64 = 1.0 / (1_u64 << 38) as f64;

/// Of columns whose sums may leave one by one, which may leave together: each that is safe with those before it.
pub(super) fn together(points: &Points, columns: &[bool], rule: PartRule) -> Vec<bool> {
    let asked: Vec<usize> =
        columns.iter().enumerate().filter(|(_, leaves)| **leaves).map(|(column, _)| column).collect();
    // All that is asked of a cell shares its work.
    let work = || Work::for_sums(points.len() * 2 * asked.len(), asked.len() + 1);
    let is_safe = |columns: &[usize]| {
        let work = work();
        let alike = alike(points, columns);
        // Beside a column that has many more values, the numbers of another one are small. So each is judged with its like, too.
        is_safe(points, columns, rule, &work)
            && (alike.len() == 1 || alike.iter().all(|columns| is_safe(points, columns, rule, &work)))
    };
    if asked.is_empty() || is_safe(&asked) || planted("sums-off-most") {
        return columns.to_vec();
    }
    let mut leave = Vec::new();
    for column in asked.iter().copied() {
        leave.push(column);
        if !is_safe(&leave) {
            leave.pop();
        }
    }
    (0..columns.len()).map(|column| leave.contains(&column)).collect()
}

/// Columns apart by how many values of them everybody has.
fn alike(points: &Points, columns: &[usize]) -> Vec<Vec<usize>> {
    let counts = |column: usize| -> Vec<f64> {
        points.all().map(|point| point.own.get(column).map_or(0.0, |own| own.values)).collect()
    };
    let mut alike: Vec<(Vec<f64>, Vec<usize>)> = Vec::new();
    for column in columns.iter().copied() {
        let counts = counts(column);
        match alike.iter_mut().find(|(known, _)| *known == counts) {
            Some((_, columns)) => columns.push(column),
            None => alike.push((counts, vec![column])),
        }
    }
    alike.into_iter().map(|(_, columns)| columns).collect()
}

/// Whether the sums of some columns, with how many values they are of, are about so many contributors at least whatever
/// most have in common; if the rule asks for that, without those that any single producer brought alone.
fn is_safe(points: &Points, columns: &[usize], rule: PartRule, work: &Work) -> bool {
    let search = Search { work };
    let all: Vec<&Point> = points.all().filter(|point| has_values(point, columns)).collect();
    let Some((matrix, rank)) = search.matrix(&all, columns) else { return false };
    let groups = search.groups(&matrix, (0..all.len()).collect(), rank, usize::MAX);
    points.left_out(rule).into_iter().all(|left_out| {
        let is_left = |point: &&Point| !left_out.has(point);
        let is_whole = |group: &&Vec<usize>| group.iter().filter_map(|row| all.get(*row)).all(is_left);
        if groups.iter().filter(is_whole).count() >= rule.least {
            return true;
        }
        let left: Vec<&Point> = all.iter().copied().filter(is_left).collect();
        let most_off = rule.least.saturating_sub(1).min(left.len().saturating_sub(1) / 2);
        most_off == 0
            || search
                .matrix(&left, columns)
                .is_some_and(|(matrix, rank)| !search.finds(&matrix, (0..left.len()).collect(), &[], rank, most_off))
    })
}

fn has_values(point: &Point, columns: &[usize]) -> bool {
    columns.iter().any(|column| point.own.get(*column).is_some_and(|own| own.values > 0.0))
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
    /// Of contributors that have a value in any of the columns. Which plane a point is on does not depend on how far it is
    /// out, nor on what one value of a column is called 0 and which distance 1: so numbers are made comparable.
    fn of(points: &[&Point], columns: &[usize]) -> Self {
        let own = |point: &Point, column: usize| point.own.get(column).copied().unwrap_or_default();
        let most = |point: &Point| columns.iter().map(|column| own(point, *column).values).fold(0.0, f64::max);
        let mut kept: Vec<Vec<f64>> = Vec::with_capacity(2 * columns.len());
        let (mut above, mut error) = (Vec::with_capacity(columns.len()), SAME / 1024.0);
        for column in columns {
            let counts = points.iter().map(|point| own(point, *column).values / most(point));
            let largest = counts.clone().fold(0.0, f64::max);
            let counts: Vec<f64> = counts.map(|count| if largest > 0.0 { count / largest } else { 0.0 }).collect();
            let means = points.iter().map(|point| own(point, *column)).filter(|own| own.values > 0.0);
            let means = means.map(|own| own.off_ends[0] / own.values);
            let low = means.clone().fold(f64::INFINITY, f64::min);
            let apart = means.fold(f64::NEG_INFINITY, f64::max) - low;
            if apart > ROUNDED {
                error = error.max(ROUNDED / apart);
                let of = |(point, count): (&&Point, &f64)| {
                    let own = own(point, *column);
                    if own.values > 0.0 { (own.off_ends[0] / own.values - low) / apart * count } else { 0.0 }
                };
                above.push(points.iter().zip(&counts).map(of).collect());
            }
            // Where everybody has as many values as in another column, that says nothing new.
            if !kept.contains(&counts) {
                kept.push(counts);
            }
        }
        kept.append(&mut above);
        let numbers = (0..points.len()).flat_map(|row| kept.iter().filter_map(move |column| column.get(row).copied()));
        Self { width: kept.len().max(1), numbers: numbers.collect(), error }
    }

    fn row(&self, row: usize) -> &[f64] {
        self.numbers.get(row * self.width..(row + 1) * self.width).unwrap_or_default()
    }

    fn is_off(&self, row: usize) -> bool {
        size(self.row(row)) > self.error.max(SAME)
    }

    /// The one of some rows that is farthest off.
    fn farthest(&self, rows: impl Iterator<Item = usize>) -> Option<usize> {
        let sizes = rows.map(|row| (row, size(self.row(row))));
        sizes.reduce(|one, other| if other.1 > one.1 { other } else { one }).map(|(row, _)| row)
    }

    /// One row more is on the plane. None that may be on it is larger.
    fn put_on(&mut self, on: usize) {
        let on = self.row(on).to_vec();
        let pivot = pivot(&on);
        self.numbers.chunks_exact_mut(self.width).for_each(|row| {
            clear(row, &on, pivot);
        });
        // A factor of at most 1 is off by twice the error at most, and so is what it takes off.
        self.error *= 4.0;
    }

    fn with_on(&self, on: usize) -> Self {
        let mut with = Self { numbers: self.numbers.clone(), ..*self };
        with.put_on(on);
        with
    }

    /// How many dimensions the rows span, or more: what a search may take for larger than [`SAME`] is one, though it may be an
    /// error.
    fn rank(mut self) -> usize {
        let rows = self.numbers.len() / self.width;
        for rank in 0..self.width {
            match self.farthest(0..rows).filter(|row| size(self.row(*row)) > SAME / 16.0) {
                Some(row) => self.put_on(row),
                None => return rank,
            }
        }
        self.width
    }
}

struct Search<'w> {
    work: &'w Work,
}

impl Search<'_> {
    /// Contributors as a matrix, and how many dimensions they span at most. `None`: there is no work left for it.
    fn matrix(&self, points: &[&Point], columns: &[usize]) -> Option<(Matrix, usize)> {
        let matrix = Matrix::of(points, columns);
        let rank = Matrix { numbers: matrix.numbers.clone(), ..matrix }.rank();
        self.work.take(matrix.numbers.len() * (rank + 1)).then_some((matrix, rank))
    }

    /// Whether a plane holds what the rows are less, and all `open` rows but `most_off` at most, and leaves somebody off.
    /// `off` are those that are said to be. The rows span `rank` dimensions at most.
    fn finds(&self, matrix: &Matrix, mut open: Vec<usize>, off: &[usize], rank: usize, most_off: usize) -> bool {
        if !self.work.take(matrix.numbers.len()) {
            return true;
        }
        if matrix.error > CLEAR {
            // Whoever is off may look as if on the plane.
            return self.groups(matrix, open, rank, most_off + 1).len() <= most_off;
        }
        open.retain(|row| matrix.is_off(*row));
        let Some(farthest) = matrix.farthest(open.iter().copied()) else {
            return off.iter().any(|row| size(matrix.row(*row)) > SAME);
        };
        if rank <= 1 {
            // The plane is full.
            return rank == 1 && open.len() <= most_off;
        }
        if self.groups(matrix, open.clone(), rank, most_off + 1).len() > most_off {
            return false;
        }
        open.retain(|row| *row != farthest);
        if self.finds(&matrix.with_on(farthest), open.clone(), off, rank - 1, most_off) {
            return true;
        }
        let off: Vec<usize> = off.iter().copied().chain([farthest]).collect();
        most_off > 0 && self.finds(matrix, open, &off, rank, most_off - 1)
    }

    /// Groups of these rows without a row in two of them, each of which spans so many dimensions: `most` at most, and not all
    /// that there could be.
    fn groups(&self, matrix: &Matrix, mut rows: Vec<usize>, rank: usize, most: usize) -> Vec<Vec<usize>> {
        let mut groups = Vec::new();
        while rank > 0 && groups.len() < most && rows.len() >= rank {
            let (mut group, mut rest) = (Vec::with_capacity(rank), Vec::new());
            let mut spans: Vec<(Vec<f64>, usize, f64)> = Vec::with_capacity(rank);
            for row in rows {
                if group.len() == rank {
                    rest.push(row);
                    continue;
                }
                if !self.work.take(matrix.width * (group.len() + 1)) {
                    return groups;
                }
                let (mut numbers, mut error) = (matrix.row(row).to_vec(), matrix.error);
                for (other, pivot, of_other) in &spans {
                    error = 2.0 * (error + clear(&mut numbers, other, *pivot) * of_other);
                }
                if size(&numbers) > CLEAR.max(2.0 * error) {
                    let pivot = pivot(&numbers);
                    spans.push((numbers, pivot, error));
                    group.push(row);
                } else {
                    rest.push(row);
                }
            }
            if group.len() < rank {
                break;
            }
            groups.push(group);
            rows = rest;
        }
        groups
    }
}

#[cfg(test)]
mod tests;
