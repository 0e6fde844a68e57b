//! Which parts of a cell may leave, and which of them only together.
//!
//! The ways are gone through in order. One by presence, or by a value, leaves or is withheld. The ranges of a histogram are
//! merged until each has enough contributors and all that leaves is [safe](super::safe).

use super::parted::{Combination, Parted};
use super::rule::PartRule;
use super::safe::{Asked, Atom, Gathered, is_safe};
use super::ways::{By, Way, parts_of, ways};
use super::work::Work;
use crate::domain::dataset::Dataset;
use crate::planted::planted;

/// What may leave of the parts of one cell.
#[derive(Debug, Clone)]
pub(in crate::domain) struct Plan {
    /// Of each way the group that each part leaves in; the part without a value has one of its own. `None`: withheld.
    groups: Vec<Option<Vec<usize>>>,
    /// Of each summed column whether what is computed from its sums leaves.
    sums: Vec<bool>,
    /// Of each whether what is computed from its squares leaves too.
    squares: Vec<bool>,
}

impl Plan {
    /// That of a cell. `finer` is the plan for the same cell under a rule that is not stricter: whoever has what leaves
    /// under both must not learn more than by that one, so every group is made of whole groups of it.
    pub(super) fn of(dataset: &Dataset, parted: &Parted, rule: PartRule, enough: usize, finer: Option<&Self>) -> Self {
        let ways = ways(dataset);
        let Some(combinations) = parted.in_order() else {
            return Self { groups: vec![None; ways.len()], sums: Vec::new(), squares: Vec::new() };
        };
        Planning::new(dataset, &ways, &combinations, rule, enough).plan(finer)
    }

    /// With whether the sums and the squares of each summed column leave.
    pub(super) fn with_sums(self, sums: Vec<bool>, squares: Vec<bool>) -> Self {
        Self { sums, squares, ..self }
    }

    /// Whether what is computed from the sums of a column leaves.
    pub(super) fn sum_leaves(&self, column: usize) -> bool {
        self.sums.get(column) == Some(&true)
    }

    /// Whether what is computed from the squares of a column leaves.
    pub(super) fn squares_leave(&self, column: usize) -> bool {
        self.sum_leaves(column) && self.squares.get(column) == Some(&true)
    }

    /// The groups of a way's parts; `None`: it is withheld.
    pub(super) fn groups(&self, way: usize) -> Option<&[usize]> {
        self.groups.get(way)?.as_deref()
    }
}

struct Planning<'p> {
    dataset: &'p Dataset,
    ways: &'p [Way<'p>],
    atoms: Vec<Atom<'p>>,
    /// The part of each way that each atom is in.
    parts: Vec<Vec<usize>>,
    /// The positions of the atoms in each part of each way.
    atoms_of: Vec<Vec<Vec<usize>>>,
    rule: PartRule,
    enough: usize,
    work: Work,
}

impl<'p> Planning<'p> {
    fn new(
        dataset: &'p Dataset,
        ways: &'p [Way<'p>],
        combinations: &[(u64, &'p Combination)],
        rule: PartRule,
        enough: usize,
    ) -> Self {
        let mut parts = vec![Vec::with_capacity(combinations.len()); ways.len()];
        let mut atoms_of: Vec<Vec<Vec<usize>>> = ways.iter().map(|way| vec![Vec::new(); way.parts()]).collect();
        for (at, (number, _)) in combinations.iter().enumerate() {
            for ((parts, atoms_of), part) in parts.iter_mut().zip(&mut atoms_of).zip(parts_of(ways, *number)) {
                parts.push(part);
                if let Some(atoms) = atoms_of.get_mut(part) {
                    atoms.push(at);
                }
            }
        }
        let work =
            Work::for_cell(combinations.len(), combinations.iter().map(|(_, kept)| kept.contributors.known()).sum());
        let atoms = combinations.iter();
        let atoms = atoms.map(|(_, kept)| Atom { records: kept.records, contributors: &kept.contributors });
        Self { dataset, ways, atoms: atoms.collect(), parts, atoms_of, rule, enough, work }
    }

    /// The plan, under a finer one.
    fn plan(&self, finer: Option<&Plan>) -> Plan {
        let mut groups: Vec<Option<Vec<usize>>> = Vec::new();
        for (position, way) in self.ways.iter().enumerate() {
            let from = match finer {
                None => Some((0..way.parts()).collect()),
                Some(finer) => finer.groups.get(position).cloned().flatten(),
            };
            let group = from.and_then(|from| self.group(position, from, &groups));
            groups.push(group);
        }
        Plan { groups, sums: Vec::new(), squares: Vec::new() }
    }

    fn asked(&self, least: usize) -> Asked<'_> {
        let beyond_one = self.rule.beyond_one && !planted("parts-of-one-producer");
        Asked { least, beyond_one, enough: self.enough, work: &self.work }
    }

    /// The atoms in a part of a way.
    fn atoms_of(&self, way: usize, part: usize) -> impl Iterator<Item = &Atom<'p>> {
        let positions = self.atoms_of.get(way).and_then(|parts| parts.get(part));
        positions.into_iter().flatten().filter_map(|at| self.atoms.get(*at))
    }

    /// The atoms of a way whose group is the given one.
    fn of_group(&self, way: usize, groups: &[usize], group: usize, asked: Asked<'_>) -> Gathered {
        let mut gathered = asked.gather();
        for (part, _) in groups.iter().enumerate().filter(|(_, of_part)| **of_part == group) {
            self.atoms_of(way, part).for_each(|atom| gathered.add(atom, asked));
        }
        gathered
    }

    /// Whether some records may leave as a number of their own.
    fn may_leave(&self, records: &Gathered, asked: Asked<'_>) -> bool {
        if records.is_empty() { !self.rule.not_empty } else { records.suffice(asked) }
    }

    /// The groups that the parts of a way leave in, when those of the ways before it are these.
    fn group(&self, position: usize, from: Vec<usize>, before: &[Option<Vec<usize>>]) -> Option<Vec<usize>> {
        let way = self.ways.get(position)?;
        let asked = self.asked(self.rule.least);
        let of_group = |group| self.of_group(position, &from, group, asked);
        let without = of_group(*from.last()?);
        if way.by == By::Presence {
            if planted("nulls-by-subtraction") {
                return Some(from);
            }
            let holds = of_group(*from.first()?).suffice(asked) && self.may_leave(&without, asked);
            return (holds && self.is_safe_with(position, &from, before)).then_some(from);
        }
        // Who has a value at all must be safe to tell; of a field that every record has, none may be without.
        let presence =
            self.ways.iter().position(|other| other.by == By::Presence && other.source.column == way.source.column);
        match presence {
            Some(presence) => drop(before.get(presence)?.as_ref()?),
            None if !without.is_empty() => return None,
            None => {}
        }
        if matches!(way.by, By::Value(_)) {
            let mut both = from.iter().take(way.parts_with_value());
            let both_leave = both.all(|group| self.may_leave(&of_group(*group), asked));
            return (both_leave && self.is_safe_with(position, &from, before)).then_some(from);
        }
        if planted("bins-free") {
            return Some(from);
        }
        let mut least = self.rule.least;
        loop {
            let merged = self.merged(position, &from, least);
            let is_one = merged.iter().take(way.parts_with_value()).all(|group| Some(group) == merged.first());
            // Of one range only the number of values leaves, which is known.
            if is_one || self.is_safe_with(position, &merged, before) {
                return Some(merged);
            }
            least = least.saturating_mul(2);
        }
    }

    /// The ranges of a histogram, from the lowest up: one with too few contributors takes in those above it until there are
    /// enough. What is left over at the top joins what is below it.
    fn merged(&self, way: usize, groups: &[usize], least: usize) -> Vec<usize> {
        let asked = self.asked(least);
        let ranges = groups.len().saturating_sub(1);
        let without = groups.last().copied().unwrap_or(0);
        let mut merged: Vec<Vec<usize>> = Vec::new();
        let (mut open, mut records) = (Vec::new(), asked.gather());
        for part in 0..ranges {
            open.push(part);
            self.atoms_of(way, part).for_each(|atom| records.add(atom, asked));
            // A group of the finer plan stays whole.
            let is_whole = part + 1 == ranges || groups.get(part) != groups.get(part + 1);
            if is_whole && self.may_leave(&records, asked) {
                merged.push(std::mem::take(&mut open));
                records = asked.gather();
            }
        }
        while !open.is_empty() && !self.may_leave(&records, asked) {
            let Some(mut below) = merged.pop() else { break };
            below.iter().flat_map(|part| self.atoms_of(way, *part)).for_each(|atom| records.add(atom, asked));
            below.append(&mut open);
            open = below;
        }
        if !open.is_empty() {
            merged.push(open);
        }
        let mut group_of = vec![without.max(ranges); groups.len()];
        for parts in merged {
            let first = parts.first().copied().unwrap_or(0);
            for part in parts {
                if let Some(group) = group_of.get_mut(part) {
                    *group = first;
                }
            }
        }
        group_of
    }

    /// Whether no dataset has metrics of both ways. It is never asked: whoever has one dataset may have the others.
    fn are_judged_apart(&self, one: usize, other: usize) -> bool {
        let has = |dataset: &Dataset, way: usize| {
            let way = self.ways.get(way);
            let is_it = |known: &Way<'_>| way.is_some_and(|way| way.by == known.by && way.source == known.source);
            ways(dataset).iter().any(is_it)
        };
        planted("datasets-judged-apart")
            && !self.dataset.released_as().any(|dataset| has(dataset, one) && has(dataset, other))
    }

    /// Whether a way's groups may leave together with those of the ways before it.
    fn is_safe_with(&self, position: usize, groups: &[usize], before: &[Option<Vec<usize>>]) -> bool {
        let of_atoms = |way: usize, groups: &[usize]| -> Vec<usize> {
            let parts = self.parts.get(way).map(Vec::as_slice).unwrap_or_default();
            parts.iter().filter_map(|part| groups.get(*part).copied()).collect()
        };
        let before = before.iter().enumerate().filter(|(way, _)| !self.are_judged_apart(*way, position));
        let leaving = before.filter_map(|(way, groups)| Some(of_atoms(way, groups.as_deref()?)));
        let partitions = leaving.chain([of_atoms(position, groups)]).collect();
        is_safe(partitions, &self.atoms, self.asked(self.rule.least))
    }
}

#[cfg(test)]
mod tests;
