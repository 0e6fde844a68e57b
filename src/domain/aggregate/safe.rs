//! Whether numbers that are computed from parts of the same records can be combined so that they single somebody out.
//!
//! Take what leaves as sets of records: the parts of each way, and all of them. Whoever has the numbers can add and
//! subtract them, and multiply them by any number. What comes out counts each record with a weight, which is a sum of one
//! function for each way of the record's part: `x = u1(part1) + u2(part2) + ...`. It is about the records where `x` is
//! not 0, and no weight may be so chosen that these are few: the rule is that every such `x` but 0 has at least `least`
//! contributors where it is not 0. That holds for counts of some of the records (weights 0 and 1), and also for the
//! difference of two numbers, which counts some records once and others minus once.
//!
//! Take two parts `i` and `j` of a way, and a *rest*: a part of each *other* way. Where `u(i)` and `u(j)` differ, `x`
//! differs by as much between the records of `i` and of `j` that have the same rest. So for each rest that both parts
//! have, `x` is not 0 on all of these records of `i`, or on all of those of `j`. Which of both may be another choice for
//! each rest. [`tell_apart_many`] bounds from below how many contributors that are, whatever is chosen. If they are
//! enough, then no `x` of fewer tells `i` from `j`, and for the rest of the search they count as one part. When no way is
//! left with more than one part, only all records are left; when one way is left, its parts must have enough. Otherwise
//! the answer is no: it may be more careful than need be, and never less.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;

use super::brought::{People, Person, Producer};
use super::contributors::{Contributors, Of, Together, at_least};
use super::hashed::PassThrough;
use super::work::Work;
use crate::planted::planted;

/// Some of the records of a cell: those of one combination of parts.
pub(super) struct Atom<'c> {
    pub(super) records: u64,
    pub(super) contributors: &'c Contributors,
}

/// What is asked of the records that a number is about.
#[derive(Clone, Copy)]
pub(super) struct Asked<'w> {
    /// At least so many contributors.
    pub(super) least: usize,
    /// Without the records of any single producer too.
    pub(super) beyond_one: bool,
    /// More than so many cannot be told: then there are not so many.
    pub(super) enough: usize,
    /// What finding out may take.
    pub(super) work: &'w Work,
}

impl Asked<'_> {
    /// Gathers atoms from none on.
    pub(super) fn gather(self) -> Gathered {
        Gathered { atoms: 0, records: 0, contributors: Together::new(self.least, self.beyond_one, self.enough) }
    }
}

/// Atoms that are taken together, one after the other.
pub(super) struct Gathered {
    atoms: usize,
    records: u64,
    contributors: Together,
}

impl Gathered {
    /// Takes an atom in.
    pub(super) fn add(&mut self, atom: &Atom<'_>, asked: Asked<'_>) {
        self.atoms += 1;
        self.records += atom.records;
        // One that is not looked at has no contributors as far as anybody knows.
        if asked.work.take(1 + if self.contributors.suffice() { 0 } else { atom.contributors.known() }) {
            self.contributors.add(atom.contributors);
        }
    }

    /// Whether there is no record.
    pub(super) fn is_empty(&self) -> bool {
        self.atoms == 0
    }

    /// Whether these have as many contributors as are asked for.
    pub(super) fn suffice(&self, asked: Asked<'_>) -> bool {
        if planted("k-in-records") {
            return self.records >= asked.least as u64;
        }
        self.contributors.suffice()
    }
}

/// Whether no combination of the numbers of these partitions is about fewer contributors than are asked for. A partition
/// is the part of each atom.
pub(super) fn is_safe(mut partitions: Vec<Vec<usize>>, atoms: &[Atom<'_>], asked: Asked<'_>) -> bool {
    if planted("parts-alone") {
        return true;
    }
    loop {
        if !asked.work.take(partitions.len() * partitions.len() * atoms.len()) {
            return false;
        }
        forget_coarser(&mut partitions);
        match partitions.as_slice() {
            [] => return true,
            [only] => return parts_suffice(only, atoms, asked),
            _ => {}
        }
        let found: Vec<Option<Vec<usize>>> =
            (0..partitions.len()).map(|way| joined(&partitions, way, atoms, asked)).collect();
        if found.iter().all(Option::is_none) || asked.work.is_over() {
            return false;
        }
        for (partition, joined) in partitions.iter_mut().zip(found) {
            if let Some(joined) = joined {
                *partition = joined;
            }
        }
    }
}

/// Whether each part has enough contributors.
fn parts_suffice(partition: &[usize], atoms: &[Atom<'_>], asked: Asked<'_>) -> bool {
    let mut parts: BTreeMap<usize, Gathered> = BTreeMap::new();
    for (part, atom) in partition.iter().zip(atoms) {
        parts.entry(*part).or_insert_with(|| asked.gather()).add(atom, asked);
    }
    parts.values().all(|part| part.suffice(asked))
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

/// The atoms of a part by the numbers of their rests: their parts of all other ways.
/// Atoms of a part that have the same rest.
type Atoms<'a, 'c> = Vec<&'a Atom<'c>>;
type ByRest<'a, 'c> = BTreeMap<usize, Atoms<'a, 'c>>;

/// The partition of one way with the parts taken together that nothing about few tells apart. `None`: no two.
fn joined(partitions: &[Vec<usize>], way: usize, atoms: &[Atom<'_>], asked: Asked<'_>) -> Option<Vec<usize>> {
    let partition = partitions.get(way)?;
    let mut parts: BTreeMap<usize, ByRest<'_, '_>> = BTreeMap::new();
    let mut rests: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
    for (at, (part, atom)) in partition.iter().zip(atoms).enumerate() {
        let others = partitions.iter().enumerate().filter(|(other, _)| *other != way);
        let rest = others.filter_map(|(_, partition)| partition.get(at).copied()).collect();
        let next = rests.len();
        let rest = *rests.entry(rest).or_insert(next);
        parts.entry(*part).or_default().entry(rest).or_default().push(atom);
    }
    // The parts, each with the first one that it is taken together with.
    let mut joined: Vec<(usize, usize)> = parts.keys().map(|part| (*part, *part)).collect();
    let atoms_of: Vec<ByRest<'_, '_>> = parts.into_values().collect();
    let mut any = false;
    // Neighbours first: most are joined so, and then the others are passed over.
    for distance in 1..joined.len() {
        for (at, (ones, others)) in atoms_of.iter().zip(atoms_of.iter().skip(distance)).enumerate() {
            let (Some((_, one)), Some((_, other))) = (joined.get(at).copied(), joined.get(at + distance).copied())
            else {
                continue;
            };
            if !asked.work.take(1) {
                return None;
            }
            if one != other && tell_apart_many(ones, others, asked) {
                any = true;
                joined.iter_mut().filter(|(_, first)| *first == other).for_each(|(_, first)| *first = one);
            }
        }
    }
    let joined: BTreeMap<usize, usize> = joined.into_iter().collect();
    any.then(|| partition.iter().map(|part| joined.get(part).copied().unwrap_or(*part)).collect())
}

/// What a contributor counts for: a number that whatever is usual divides.
const WHOLE: u64 = 720_720;

/// Whether everything that tells two parts apart is about enough contributors.
///
/// What is asked for without any single producer's records is asked for each producer: the records that are left have the
/// same weights. A producer that alone brought no more than what is more than enough need not be left out to know.
fn tell_apart_many(ones: &ByRest<'_, '_>, others: &ByRest<'_, '_>, asked: Asked<'_>) -> bool {
    let Asked { least, beyond_one, enough, work } = asked;
    if least > enough || !work.take(ones.len()) {
        return false;
    }
    let shared: Vec<(&Atoms<'_, '_>, &Atoms<'_, '_>)> =
        ones.iter().filter_map(|(rest, ones)| Some((ones, others.get(rest)?))).collect();
    if planted("differences-free") {
        let reach = |atoms: &mut dyn Iterator<Item = &Atom<'_>>| {
            at_least(atoms.map(|atom| atom.contributors), least, beyond_one, enough)
        };
        return reach(&mut shared.iter().flat_map(|(ones, _)| ones.iter().copied()))
            && reach(&mut shared.iter().flat_map(|(_, others)| others.iter().copied()));
    }
    let wanted = least as u64 * WHOLE;
    if !beyond_one {
        return count_apart(&shared, Of::All, wanted, work).is_some_and(|count| count >= wanted);
    }
    let Some(of_known) = count_apart(&shared, Of::AllBut(Producer::UNKNOWN), u64::MAX, work) else { return false };
    let Some(spare) = of_known.checked_sub(wanted) else { return false };
    let mut alone: BTreeMap<Producer, u64> = BTreeMap::new();
    for atom in shared.iter().flat_map(|(ones, others)| ones.iter().chain(*others)) {
        if !work.take(atom.contributors.known()) {
            return false;
        }
        for (producer, most) in atom.contributors.alone() {
            let alone = alone.entry(producer).or_default();
            *alone = alone.saturating_add((most as u64).saturating_mul(WHOLE));
        }
    }
    alone.into_iter().filter(|(_, most)| *most > spare).all(|(producer, _)| {
        count_apart(&shared, Of::AllBut(producer), wanted, work).is_some_and(|count| count >= wanted)
    })
}

/// How many contributors at least everything is about that tells two parts apart, each counted as [`WHOLE`]; when it is as
/// many as are wanted, it may be more. `None`: no work is left.
///
/// For each rest that both have, it is about those of the one or about those of the other, by choice. Those of both are in
/// it whatever is chosen, and where one of the two has more than any rule asks for, the other one is chosen. Each of the
/// others counts with an equal share in each of its rests. Whatever is chosen, a contributor who is in it counts for
/// one at most; so what the lesser side of each rest counts for, added up, is no more than how many are in it.
fn count_apart(shared: &[(&Atoms<'_, '_>, &Atoms<'_, '_>)], of: Of, wanted: u64, work: &Work) -> Option<u64> {
    let mut counted = People::default();
    let mut by_choice = Vec::new();
    for (ones, others) in shared {
        if !work.take(ones.iter().chain(*others).map(|atom| 1 + atom.contributors.known()).sum()) {
            return None;
        }
        match (all_of(ones, of), all_of(others, of)) {
            (None, None) => return Some(u64::MAX),
            (None, Some(few)) | (Some(few), None) => counted.extend(few),
            (Some(ones), Some(others)) => {
                counted.extend(ones.intersection(&others));
                by_choice.push((ones, others));
            }
        }
        if counted.len() as u64 * WHOLE >= wanted {
            return Some(wanted);
        }
    }
    let is_open = |person: &&Person| !counted.contains(*person);
    let mut rests_of: HashMap<Person, u64, BuildHasherDefault<PassThrough>> = HashMap::default();
    for person in by_choice.iter().flat_map(|(ones, others)| ones.iter().chain(others)).filter(is_open) {
        *rests_of.entry(*person).or_default() += 1;
    }
    let shares = |side: &People| -> u64 {
        let rests = side.iter().filter(is_open).filter_map(|person| rests_of.get(person));
        rests.map(|rests| WHOLE / rests).sum()
    };
    let by_choice: u64 = by_choice.iter().map(|(ones, others)| shares(ones).min(shares(others))).sum();
    Some(counted.len() as u64 * WHOLE + by_choice)
}

/// The contributors of atoms that count. `None`: there are enough for every rule.
fn all_of(atoms: &[&Atom<'_>], of: Of) -> Option<People> {
    let mut all = People::default();
    atoms.iter().try_for_each(|atom| atom.contributors.gather(of, &mut all))?;
    Some(all)
}
