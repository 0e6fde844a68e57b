//! Whether numbers that left can be combined so that what comes out is about few contributors: an exact search, written
//! without a look at the code that releases.
//!
//! A number that left is a row: the records that it was computed from. The combinations of numbers are the row space of
//! these rows over the rational numbers. Each vector of it can be worked out: it counts each record with a weight, which
//! may be below zero, as in the difference of two numbers. It is about the records whose weight is not 0.
//! [`Pool::singled_out`] finds one that is about fewer than k contributors, if there is one: for every choice of k - 1
//! contributors it looks whether the space has a vector that is 0 for everybody else. Records that are in the same rows
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

    /// The records of fewer than k contributors, but of one at least, that something which can be worked out is about.
    pub(crate) fn singled_out(&self, k: usize) -> Option<BTreeSet<usize>> {
        self.blocks().into_iter().find_map(|rows| self.in_block(&rows, k))
    }

    /// The rows, apart where they have no record in common, also by way of others. What can be worked out is about no more
    /// in one of these blocks than in all of them, since the part of a vector in a block is a vector of the block.
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
        let basis = reduced(matrix.collect());
        // The columns that each contributor has a record in; those of the most columns first, as they leave the least.
        let mut columns_of: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (column, records) in columns.iter().enumerate() {
            for record in records {
                columns_of.entry(&self.contributors[*record]).or_default().push(column);
            }
        }
        let mut columns_of: Vec<Vec<usize>> = columns_of.into_values().collect();
        columns_of.sort_by_key(|columns| usize::MAX - columns.len());
        let found = search(&basis, &columns_of, k.saturating_sub(1))?;
        let support = (0..columns.len()).filter(|column| found[*column].0 != 0);
        Some(support.flat_map(|column| columns[column].iter().copied()).collect())
    }
}

/// A vector other than 0 of the space of these rows that is 0 in all columns of all but so many of these contributors. Each
/// of them is tried as one of those, and as one of the others.
fn search(space: &[Vec<Fraction>], contributors: &[Vec<usize>], but: usize) -> Option<Vec<Fraction>> {
    let first = space.first()?;
    let Some((columns, others)) = contributors.split_first() else { return Some(first.clone()) };
    let without = columns.iter().fold(space.to_vec(), |space, column| zero_in(space, *column));
    search(&without, others, but).or_else(|| if but == 0 { None } else { search(space, others, but - 1) })
}

/// Those vectors of a space that are 0 in a column, by a basis of them.
fn zero_in(mut space: Vec<Vec<Fraction>>, column: usize) -> Vec<Vec<Fraction>> {
    let Some(at) = space.iter().position(|row| row[column].0 != 0) else { return space };
    let pivot = space.swap_remove(at);
    for row in &mut space {
        let factor = row[column].over(pivot[column]);
        for (entry, of_pivot) in row.iter_mut().zip(&pivot) {
            *entry = entry.minus_times(factor, *of_pivot);
        }
    }
    space
}

/// The reduced row echelon form, without its zero rows.
fn reduced(mut matrix: Vec<Vec<Fraction>>) -> Vec<Vec<Fraction>> {
    let mut rank = 0;
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
        rank += 1;
    }
    matrix.truncate(rank);
    matrix
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
    fn a_number_less_another_one_is_about_the_records_that_only_one_of_them_has() {
        // Of ten people, a is the first five and b the second to the sixth: a - b is about the first and the sixth.
        let both: &[&[usize]] = &[&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], &[0, 1, 2, 3, 4], &[1, 2, 3, 4, 5]];
        assert_eq!(pool(10, both).singled_out(3), Some([0, 5].into()));
        assert_eq!(pool(10, both).singled_out(2), None);
    }

    #[test]
    fn what_is_found_is_what_trying_every_weight_finds() {
        // Every three sets over four records. Of so few, whatever is about the fewest is one with weights of -1, 0 and 1.
        let set = |bits: u32| (0..4).filter(move |record: &usize| bits >> record & 1 == 1);
        let numbers = (1..16_u32).flat_map(|a| (a..16).flat_map(move |b| (b..16).map(move |c| [a, b, c])));
        for rows in numbers {
            let mut pool = Pool::new((0..4).map(|record| Some(record.to_string())));
            rows.iter().for_each(|row| pool.left(set(*row)));
            let weight = |weights: [i32; 3], record: u32| -> i32 {
                rows.iter().zip(weights).map(|(row, weight)| (row >> record & 1).cast_signed() * weight).sum()
            };
            let weights = (0..27_i32).map(|number| [number % 3 - 1, number / 3 % 3 - 1, number / 9 - 1]);
            let about = weights.map(|weights| (0..4).filter(|record| weight(weights, *record) != 0).count());
            let fewest = about.filter(|records| *records > 0).min().unwrap();
            for k in 1..6 {
                let found = pool.singled_out(k);
                assert_eq!(found.is_some(), fewest < k, "{rows:?} {k}");
                assert!(found.is_none_or(|found| (1..k).contains(&found.len())), "{rows:?} {k}");
            }
        }
    }
}
