//! Whether numbers that are computed from parts of the same records can be combined so that they single somebody out.
//!
//! Take what leaves as sets of records: the parts of each way, and all of them. Whoever has the numbers can add and
//! subtract them. A combination that is the number of *some* of the records, each once, is a function of the records
//! that is 0 or 1 everywhere and a sum of one function for each way, which depends on the record's part only:
//! `x = u1(part1) + u2(part2) + ...`. The rule is that every such `x` but 0 has at least `least` contributors.
//!
//! Take two parts `i` and `j` of a way, and the records of each whose parts of all *other* ways both parts have too. Where
//! `u(i)` and `u(j)` differ, they differ by one, so `x` is 1 on all of those records of `i`, or on all of those of `j`.
//! If both have enough contributors, `x` has. So for the rest of the search `i` and `j` count as one part. When no way is
//! left with more than one part, only all records are left; when one way is left, its parts must have enough. Otherwise
//! the answer is no: it may be more careful than need be, and never less.

use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasherDefault;

use super::contributors::{Contributors, PassThrough};
use crate::planted::planted;

/// Some of the records of a cell: those of one combination of parts.
pub(super) struct Atom<'c> {
    pub(super) records: u64,
    pub(super) contributors: &'c Contributors,
}

/// How many steps a search may take before the answer is no.
const STEPS_MAX: usize = 1_000_000;

/// Whether these have at least so many contributors together.
pub(super) fn reach<'a, 'c: 'a>(atoms: impl IntoIterator<Item = &'a Atom<'c>>, least: usize, enough: usize) -> bool {
    if planted("k-in-records") {
        return atoms.into_iter().map(|atom| atom.records).sum::<u64>() >= least as u64;
    }
    at_least(atoms.into_iter().map(|atom| atom.contributors), least, enough)
}

/// Whether there are so many distinct contributors in these sets together. More than `enough` cannot be told: then there
/// are not.
pub(super) fn at_least<'c>(sets: impl IntoIterator<Item = &'c Contributors>, least: usize, enough: usize) -> bool {
    if least > enough {
        return false;
    }
    let mut seen: HashSet<u128, BuildHasherDefault<PassThrough>> = HashSet::default();
    for set in sets {
        match set {
            Contributors::Enough => return true,
            Contributors::Few(set) => {
                for contributor in set {
                    seen.insert(*contributor);
                    if seen.len() >= least {
                        return true;
                    }
                }
            }
        }
    }
    seen.len() >= least
}

/// Whether no combination of the numbers of these partitions is a number of fewer than `least` contributors. A partition
/// is the part of each atom.
pub(super) fn is_safe(mut partitions: Vec<Vec<usize>>, atoms: &[Atom<'_>], least: usize, enough: usize) -> bool {
    if planted("parts-alone") {
        return true;
    }
    let mut steps = 0;
    loop {
        forget_coarser(&mut partitions);
        match partitions.as_slice() {
            [] => return true,
            [only] => return by_part(only, atoms).values().all(|part| reach(part.iter().copied(), least, enough)),
            _ => {}
        }
        let found: Vec<Option<Vec<usize>>> =
            (0..partitions.len()).map(|way| joined(&partitions, way, atoms, least, enough, &mut steps)).collect();
        if found.iter().all(Option::is_none) || steps > STEPS_MAX {
            return false;
        }
        for (partition, joined) in partitions.iter_mut().zip(found) {
            if let Some(joined) = joined {
                *partition = joined;
            }
        }
    }
}

/// The atoms of each part.
fn by_part<'a, 'c>(partition: &[usize], atoms: &'a [Atom<'c>]) -> BTreeMap<usize, Vec<&'a Atom<'c>>> {
    let mut parts: BTreeMap<usize, Vec<&Atom<'_>>> = BTreeMap::new();
    for (part, atom) in partition.iter().zip(atoms) {
        parts.entry(*part).or_default().push(atom);
    }
    parts
}

/// Drops the partitions that say nothing which another one does not say.
fn forget_coarser(partitions: &mut Vec<Vec<usize>>) {
    let mut way = 0;
    while way < partitions.len() {
        let is_said = |coarse: &[usize]| {
            let first = coarse.first();
            let of_one_part = coarse.iter().all(|part| Some(part) == first);
            let others = partitions.iter().enumerate().filter(|(other, _)| *other != way);
            of_one_part || others.map(|(_, fine)| fine).any(|fine| is_union_of_parts(coarse, fine))
        };
        if partitions.get(way).is_some_and(|partition| is_said(partition)) {
            partitions.remove(way);
        } else {
            way += 1;
        }
    }
}

/// Whether each part of the coarse partition is made of whole parts of the fine one.
fn is_union_of_parts(coarse: &[usize], fine: &[usize]) -> bool {
    let mut part_of: BTreeMap<usize, usize> = BTreeMap::new();
    coarse.iter().zip(fine).all(|(coarse, fine)| part_of.entry(*fine).or_insert(*coarse) == coarse)
}

/// The partition of one way with the parts taken together between which no small combination can tell. `None`: no two.
fn joined(
    partitions: &[Vec<usize>],
    way: usize,
    atoms: &[Atom<'_>],
    least: usize,
    enough: usize,
    steps: &mut usize,
) -> Option<Vec<usize>> {
    let partition = partitions.get(way)?;
    // The atoms of each part, by their parts of all other ways.
    let mut parts: BTreeMap<usize, BTreeMap<Vec<usize>, Vec<&Atom<'_>>>> = BTreeMap::new();
    for (at, (part, atom)) in partition.iter().zip(atoms).enumerate() {
        let others = partitions.iter().enumerate().filter(|(other, _)| *other != way);
        let rest = others.filter_map(|(_, partition)| partition.get(at).copied()).collect();
        parts.entry(*part).or_default().entry(rest).or_default().push(atom);
    }
    let mut root: BTreeMap<usize, usize> = parts.keys().map(|part| (*part, *part)).collect();
    let numbers: Vec<usize> = parts.keys().copied().collect();
    let mut any = false;
    // Neighbours first: most are joined so, and then the others are passed over.
    for distance in 1..numbers.len() {
        for (one, other) in numbers.iter().zip(numbers.iter().skip(distance)) {
            let (Some(root_of_one), Some(root_of_other)) = (root.get(one).copied(), root.get(other).copied()) else {
                continue;
            };
            let (Some(ones), Some(others)) = (parts.get(one), parts.get(other)) else { continue };
            *steps += 1 + ones.len();
            if root_of_one == root_of_other || *steps > STEPS_MAX {
                continue;
            }
            let shared = |mine: &BTreeMap<Vec<usize>, Vec<&Atom<'_>>>,
                          theirs: &BTreeMap<Vec<usize>, Vec<&Atom<'_>>>| {
                let atoms = mine.iter().filter(|(rest, _)| theirs.contains_key(*rest)).flat_map(|(_, atoms)| atoms);
                reach(atoms.copied(), least, enough)
            };
            if shared(ones, others) && shared(others, ones) {
                any = true;
                root.values_mut().filter(|root| **root == root_of_other).for_each(|root| *root = root_of_one);
            }
        }
    }
    any.then(|| partition.iter().map(|part| root.get(part).copied().unwrap_or(*part)).collect())
}
