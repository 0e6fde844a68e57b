//! Whether numbers that left can be combined so that they are the number of few contributors: an exact search, written
//! without a look at the code that releases.
//!
//! A number that left is a row: the records that it was computed from. The combinations of numbers are the row space of
//! these rows over the rational numbers. If a vector of zeros and ones is in it, the number of those records can be worked
//! out. [`Pool::singled_out`] finds one of fewer than k contributors, if there is one. Records that are in the same rows
//! cannot be told apart, and stand for each other.

use std::collections::{BTreeMap, BTreeSet};

/// Everything that left, and who the records are of.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    /// The contributor of each record.
    contributors: Vec<String>,
    rows: BTreeSet<BTreeSet<usize>>,
}

/// An exact fraction, in lowest terms, with a denominator above zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fraction(i128, i128);

impl Fraction {
    fn new(numerator: i128, denominator: i128) -> Self {
        let (mut a, mut b) = (numerator.unsigned_abs(), denominator.unsigned_abs());
        while b > 0 {
            (a, b) = (b, a % b);
        }
        let divisor = a.max(1) as i128 * denominator.signum();
        Self(numerator / divisor, denominator / divisor)
    }

    fn minus_times(self, factor: Self, other: Self) -> Self {
        let product = Self::new(factor.0 * other.0, factor.1 * other.1);
        Self::new(self.0 * product.1 - product.0 * self.1, self.1 * product.1)
    }

    fn over(self, other: Self) -> Self {
        Self::new(self.0 * other.1, self.1 * other.0)
    }
}

impl Pool {
    /// Of records of these contributors; who is nobody is one of them.
    pub(crate) fn new(contributors: impl IntoIterator<Item = Option<String>>) -> Self {
        let names = contributors.into_iter().map(|name| name.map_or("nobody".to_owned(), |name| format!("is {name}")));
        Self { contributors: names.collect(), rows: BTreeSet::new() }
    }

    /// A number left that is computed from these records.
    pub(crate) fn left(&mut self, records: impl IntoIterator<Item = usize>) {
        self.rows.insert(records.into_iter().collect());
    }

    /// Records of fewer than k contributors, but of one, whose number can be worked out.
    pub(crate) fn singled_out(&self, k: usize) -> Option<BTreeSet<usize>> {
        self.blocks().into_iter().find_map(|rows| self.in_block(&rows, k))
    }

    /// The rows, apart where they have no record in common, also by way of others: what can be worked out can be worked
    /// out in one of these blocks, since a vector of zeros and ones has zeros and ones in each.
    fn blocks(&self) -> Vec<Vec<&BTreeSet<usize>>> {
        let mut blocks: Vec<(BTreeSet<usize>, Vec<&BTreeSet<usize>>)> = Vec::new();
        for row in &self.rows {
            let (touched, mut others): (Vec<_>, Vec<_>) =
                blocks.into_iter().partition(|(records, _)| !records.is_disjoint(row));
            let mut block = (row.clone(), vec![row]);
            for (records, rows) in touched {
                block.0.extend(records);
                block.1.extend(rows);
            }
            others.push(block);
            blocks = others;
        }
        blocks.into_iter().map(|(_, rows)| rows).collect()
    }

    fn in_block(&self, rows: &[&BTreeSet<usize>], k: usize) -> Option<BTreeSet<usize>> {
        // Records that are in the same rows are one column.
        let mut columns: BTreeMap<Vec<bool>, Vec<usize>> = BTreeMap::new();
        for record in 0..self.contributors.len() {
            let signature: Vec<bool> = rows.iter().map(|row| row.contains(&record)).collect();
            if signature.contains(&true) {
                columns.entry(signature).or_default().push(record);
            }
        }
        let (signatures, columns): (Vec<Vec<bool>>, Vec<Vec<usize>>) = columns.into_iter().unzip();
        let number = |is_in: bool| Fraction::new(is_in.into(), 1);
        let matrix = (0..rows.len()).map(|row| signatures.iter().map(|signature| number(signature[row])).collect());
        let (basis, pivots) = reduced(matrix.collect());
        // A vector of the row space is the sum of the basis' rows, each as often as the vector has it at the row's pivot.
        let mut chosen = vec![false; pivots.len()];
        self.search(&basis, &pivots, &columns, k, 0, &mut chosen)
    }

    /// Tries both for every pivot, one after the other.
    fn search(
        &self,
        basis: &[Vec<Fraction>],
        pivots: &[usize],
        columns: &[Vec<usize>],
        k: usize,
        at: usize,
        chosen: &mut Vec<bool>,
    ) -> Option<BTreeSet<usize>> {
        if at < pivots.len() {
            for choice in [false, true] {
                chosen[at] = choice;
                // What is chosen already has too many contributors: no more is of fewer.
                let so_far = (0..=at).filter(|row| chosen[*row]).map(|row| pivots[row]);
                if choice && self.contributors_of(so_far, columns).len() >= k {
                    continue;
                }
                if let Some(found) = self.search(basis, pivots, columns, k, at + 1, chosen) {
                    return Some(found);
                }
            }
            chosen[at] = false;
            return None;
        }
        let minus_one = Fraction::new(-1, 1);
        let sum = |column: usize| {
            let rows = basis.iter().zip(chosen.iter()).filter(|(_, chosen)| **chosen);
            rows.fold(Fraction::new(0, 1), |sum, (row, _)| sum.minus_times(minus_one, row[column]))
        };
        let vector: Vec<Fraction> = (0..columns.len()).map(sum).collect();
        let (zero, one) = (Fraction::new(0, 1), Fraction::new(1, 1));
        if vector.iter().any(|entry| *entry != zero && *entry != one) {
            return None;
        }
        let support = || (0..columns.len()).filter(|column| vector[*column] == one);
        let contributors = self.contributors_of(support(), columns);
        let is_small = !contributors.is_empty() && contributors.len() < k;
        is_small.then(|| support().flat_map(|column| columns[column].iter().copied()).collect())
    }

    fn contributors_of(&self, of: impl Iterator<Item = usize>, columns: &[Vec<usize>]) -> BTreeSet<&str> {
        of.flat_map(|column| &columns[column]).map(|record| self.contributors[*record].as_str()).collect()
    }
}

/// The reduced row echelon form, without its zero rows, and the pivot of each row.
fn reduced(mut matrix: Vec<Vec<Fraction>>) -> (Vec<Vec<Fraction>>, Vec<usize>) {
    let (mut pivots, mut rank) = (Vec::new(), 0);
    for column in 0..matrix.first().map_or(0, Vec::len) {
        let Some(found) = (rank..matrix.len()).find(|row| matrix[*row][column].0 != 0) else { continue };
        matrix.swap(rank, found);
        let pivot = matrix[rank][column];
        let scaled: Vec<Fraction> = matrix[rank].iter().map(|entry| entry.over(pivot)).collect();
        for (row, entries) in matrix.iter_mut().enumerate().filter(|(row, _)| *row != rank) {
            let factor = entries[column];
            debug_assert_ne!(row, rank);
            for (entry, other) in entries.iter_mut().zip(&scaled) {
                *entry = entry.minus_times(factor, *other);
            }
        }
        matrix[rank] = scaled;
        pivots.push(column);
        rank += 1;
    }
    matrix.truncate(rank);
    (matrix, pivots)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records of people of their own.
    fn pool(records: usize, rows: &[&[usize]]) -> Pool {
        let mut pool = Pool::new((0..records).map(|record| Some(record.to_string())));
        rows.iter().for_each(|row| pool.left(row.iter().copied()));
        pool
    }

    #[test]
    fn a_difference_is_found() {
        assert_eq!(pool(5, &[&[0, 1, 2, 3, 4], &[0, 1, 2, 3]]).singled_out(2), Some([4].into()));
        assert_eq!(pool(6, &[&[0, 1, 2, 3, 4, 5], &[0, 1, 2]]).singled_out(3), None);
        assert!(pool(6, &[&[0, 1, 2, 3, 4, 5], &[0, 1, 2]]).singled_out(4).is_some());
        // All three together are twice all records: half of it is no vector of zeros and ones of fewer.
        assert_eq!(pool(3, &[&[0, 1], &[1, 2]]).singled_out(2), None);
        // With a third one, each record is found: (ab + bc - ac) / 2 = b.
        assert_eq!(pool(3, &[&[0, 1], &[1, 2], &[0, 2]]).singled_out(2).map(|found| found.len()), Some(1));
    }

    /// The measured example of hopping windows, and of two margins with one cell of a table.
    #[test]
    fn windows_that_overlap_and_margins_that_cross_are_found() {
        let hopping = pool(6, &[&[0, 1, 2], &[1, 2, 3], &[2, 3, 4], &[3, 4, 5], &[0, 1], &[4, 5]]);
        assert!(hopping.singled_out(2).is_some());
        let margins: &[&[usize]] = &[&[0, 1, 2, 3], &[4, 5], &[0, 1, 4], &[2, 3, 5]];
        assert_eq!(pool(6, margins).singled_out(2), None);
        let and_a_cell: Vec<&[usize]> = margins.iter().copied().chain([&[0, 1][..]]).collect();
        assert!(pool(6, &and_a_cell).singled_out(2).is_some());
    }

    #[test]
    fn k_counts_people_and_nobody_is_one() {
        let mut pool = Pool::new([None, None, None, Some("a".to_owned()), Some("a".to_owned())]);
        pool.left(0..5);
        assert_eq!(pool.singled_out(2), None);
        pool.left(0..3);
        assert_eq!(pool.singled_out(2).map(|found| found.len() > 1), Some(true));
    }

    #[test]
    fn what_is_found_is_what_trying_every_set_finds() {
        // Every pair of rows over four records, against every set: is it a combination, by rank?
        let sets: Vec<BTreeSet<usize>> =
            (1..16_u32).map(|bits| (0..4).filter(|record| bits >> record & 1 == 1).collect()).collect();
        let rank = |rows: &[&BTreeSet<usize>]| {
            let number = |is_in: bool| Fraction::new(is_in.into(), 1);
            reduced(rows.iter().map(|row| (0..4).map(|record| number(row.contains(&record))).collect()).collect())
                .1
                .len()
        };
        for one in &sets {
            for other in &sets {
                let mut pool = Pool::new((0..4).map(|record| Some(record.to_string())));
                pool.left(one.iter().copied());
                pool.left(other.iter().copied());
                for k in 1..5 {
                    let small = sets.iter().filter(|set| set.len() < k);
                    let expected = small.filter(|set| rank(&[one, other, set]) == rank(&[one, other])).count() > 0;
                    assert_eq!(pool.singled_out(k).is_some(), expected, "{one:?} {other:?} {k}");
                }
            }
        }
    }
}
