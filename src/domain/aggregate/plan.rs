//! Which parts of a cell may leave, and which of them only together.
//!
//! The ways are gone through in order. One by presence, or by a value, leaves or is withheld. The ranges of a histogram are
//! merged until each has enough contributors and all that leaves is [safe](super::safe).

use super::parted::{Combination, Parted};
use super::safe::{Atom, is_safe, reach};
use super::ways::{By, Way, parts_of, ways};
use crate::domain::dataset::Dataset;
use crate::planted::planted;

/// When a part of a cell may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartRule {
    /// It has at least so many distinct contributors.
    pub least: usize,
    /// Or none at all, unless that says too much: whom nothing of a special category is said of is named by it too.
    pub not_empty: bool,
}

impl PartRule {
    /// The stricter of each of the two rules' values.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        Self { least: self.least.max(other.least), not_empty: self.not_empty || other.not_empty }
    }
}

/// What may leave of the parts of one cell.
#[derive(Debug, Clone)]
pub(in crate::domain) struct Plan {
    /// Of each way the group that each part leaves in; the part without a value has one of its own. `None`: withheld.
    groups: Vec<Option<Vec<usize>>>,
}

impl Plan {
    /// That of a cell. `finer` is the plan for the same cell under a rule that is not stricter: whoever has what leaves
    /// under both must not learn more than by that one, so every group is made of whole groups of it.
    pub(super) fn of(dataset: &Dataset, parted: &Parted, rule: PartRule, enough: usize, finer: Option<&Self>) -> Self {
        let ways = ways(dataset);
        let Some(combinations) = parted.in_order() else { return Self { groups: vec![None; ways.len()] } };
        let planning = Planning::new(&ways, &combinations, rule, enough);
        let mut groups: Vec<Option<Vec<usize>>> = Vec::new();
        for (position, way) in ways.iter().enumerate() {
            let from = match finer {
                None => Some((0..way.parts()).collect()),
                Some(finer) => finer.groups.get(position).cloned().flatten(),
            };
            let group = from.and_then(|from| planning.group(position, from, &groups));
            groups.push(group);
        }
        Self { groups }
    }

    /// The groups of a way's parts; `None`: it is withheld.
    pub(super) fn groups(&self, way: usize) -> Option<&[usize]> {
        self.groups.get(way)?.as_deref()
    }
}

struct Planning<'p> {
    ways: &'p [Way<'p>],
    /// The part of each way that each atom is in.
    parts: Vec<Vec<usize>>,
    atoms: Vec<Atom<'p>>,
    rule: PartRule,
    enough: usize,
}

impl<'p> Planning<'p> {
    fn new(ways: &'p [Way<'p>], combinations: &[(u64, &'p Combination)], rule: PartRule, enough: usize) -> Self {
        let mut parts = vec![Vec::with_capacity(combinations.len()); ways.len()];
        for (number, _) in combinations {
            for (parts, part) in parts.iter_mut().zip(parts_of(ways, *number)) {
                parts.push(part);
            }
        }
        let atoms = combinations.iter();
        let atoms = atoms.map(|(_, kept)| Atom { records: kept.records, contributors: &kept.contributors });
        Self { ways, parts, atoms: atoms.collect(), rule, enough }
    }

    /// The atoms of a way whose group is the given one.
    fn of_group(&self, way: usize, groups: &[usize], group: usize) -> impl Iterator<Item = &Atom<'p>> {
        let parts = self.parts.get(way).map(Vec::as_slice).unwrap_or_default();
        let atoms = parts.iter().zip(&self.atoms);
        atoms.filter(move |(part, _)| groups.get(**part) == Some(&group)).map(|(_, atom)| atom)
    }

    /// Whether some records may leave as a number of their own.
    fn may_leave(&self, way: usize, groups: &[usize], group: usize) -> bool {
        let is_empty = self.of_group(way, groups, group).next().is_none();
        if is_empty {
            !self.rule.not_empty
        } else {
            reach(self.of_group(way, groups, group), self.rule.least, self.enough)
        }
    }

    /// The groups that the parts of a way leave in, when those of the ways before it are these.
    fn group(&self, position: usize, from: Vec<usize>, before: &[Option<Vec<usize>>]) -> Option<Vec<usize>> {
        let way = self.ways.get(position)?;
        let without = *from.last()?;
        if way.by == By::Presence {
            let with = *from.first()?;
            if planted("nulls-by-subtraction") {
                return Some(from);
            }
            let holds = reach(self.of_group(position, &from, with), self.rule.least, self.enough)
                && self.may_leave(position, &from, without);
            return (holds && self.is_safe_with(position, &from, before)).then_some(from);
        }
        // Who has a value at all must be safe to tell; of a field that every record has, none may be without.
        let presence =
            self.ways.iter().position(|other| other.by == By::Presence && other.source.column == way.source.column);
        match presence {
            Some(presence) => drop(before.get(presence)?.as_ref()?),
            None if self.of_group(position, &from, without).next().is_some() => return None,
            None => {}
        }
        if matches!(way.by, By::Value(_)) {
            let both = from.iter().take(way.parts_with_value()).all(|group| self.may_leave(position, &from, *group));
            return (both && self.is_safe_with(position, &from, before)).then_some(from);
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
        let ranges = groups.len().saturating_sub(1);
        let without = groups.last().copied().unwrap_or(0);
        let mut merged: Vec<Vec<usize>> = Vec::new();
        let mut open = Vec::new();
        let suffices = |parts: &[usize]| {
            let mut own = vec![usize::MAX; groups.len()];
            for part in parts {
                if let Some(own) = own.get_mut(*part) {
                    *own = 0;
                }
            }
            let atoms = || self.of_group(way, &own, 0);
            match atoms().next() {
                None => !self.rule.not_empty,
                Some(_) => reach(atoms(), least, self.enough),
            }
        };
        for part in 0..ranges {
            open.push(part);
            // A group of the finer plan stays whole.
            let is_whole = part + 1 == ranges || groups.get(part) != groups.get(part + 1);
            if is_whole && suffices(&open) {
                merged.push(std::mem::take(&mut open));
            }
        }
        while !open.is_empty() && !suffices(&open) {
            let Some(mut below) = merged.pop() else { break };
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

    /// Whether a way's groups may leave together with those of the ways before it.
    fn is_safe_with(&self, position: usize, groups: &[usize], before: &[Option<Vec<usize>>]) -> bool {
        let of_atoms = |way: usize, groups: &[usize]| -> Vec<usize> {
            let parts = self.parts.get(way).map(Vec::as_slice).unwrap_or_default();
            parts.iter().filter_map(|part| groups.get(*part).copied()).collect()
        };
        let leaving = before.iter().enumerate().filter_map(|(way, groups)| Some(of_atoms(way, groups.as_deref()?)));
        let partitions = leaving.chain([of_atoms(position, groups)]).collect();
        is_safe(partitions, &self.atoms, self.rule.least, self.enough)
    }
}
