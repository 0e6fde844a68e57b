//! What each contributor of a cell adds to its sums, for the rules that no sum says much about one of them.
//!
//! Of each summed column and contributor two totals are kept: how far the values are *above* the range's lower end, and how
//! far *below* its upper end. In both terms nothing is below zero, and whoever knows the sum and how many values there
//! are knows the total of both. [`AtEnd::holds`] has the rules:
//!
//! - **p%**: the second largest contributor knows the total less the own portion, and so what the largest one adds at most.
//!   What all others add must be at least p percent of the largest portion, so that this is no good estimate.
//! - **k off the end**: if only few have values that are not at the end, the sum is about these few: the sum of a field
//!   that is 0 or 1 is a count. So there are at least as many of them as a part of a cell needs, or none.
//!
//! When a cell has as many contributors as are enough for every rule, they are no longer kept apart: those whose hashes
//! have the same few bits share a portion. The portion of each is at most what it is together with others, and a mark
//! for each who is off the end shows at most as many as there are. So the rules may then be too careful, never too lenient.
//! What is kept depends only on who added what, not on the order or on how it was merged.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use super::hashed::{Change, Contributor, PassThrough, set_bytes};
use super::parted::Sets;
use super::rule::PartRule;
use crate::planted::planted;

/// How many portions many contributors share. This and [`WORDS`] are part of the cells' version in checkpoints.
pub(super) const SHARED: usize = 64;
/// Marks of contributors, in words of 64 bits. Of 1,000 contributors some 890 have a mark of their own.
pub(super) const WORDS: usize = 64;
/// Fewer contributors than these are kept apart, whatever is enough: it takes less memory.
const KEPT_APART: usize = 128;

/// A contributor, by half of the hash. That two have the same one is as good as impossible, and would only make a rule
/// stricter.
pub(super) type Key = u64;

/// The key of a contributor.
pub(super) fn key(contributor: Contributor) -> Key {
    contributor as Key
}

/// Where the portions of a contributor are, until [`Portions::end`]: at this place of the list while contributors are kept
/// apart, and then where its key says.
pub(super) type Place = u64;

/// What is known of a contributor that is kept apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// Where its portions begin in the list.
    pub(super) place: u32,
    /// The sets of the cell that it is in. This is not part of what a cell is: it saves a look-up.
    is_in: Sets,
}

/// What one contributor, or several, add to the sum of one column, in steps of the range: see
/// [`Ends`](super::moments::Ends). A total that is too large for its integer stays at the largest one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Portion {
    /// How far its values are above the lower end.
    pub(super) above: u64,
    /// How far they are below the upper end.
    pub(super) below: u64,
}

impl Portion {
    pub(super) fn add(&mut self, other: Self) {
        self.above = self.above.saturating_add(other.above);
        self.below = self.below.saturating_add(other.below);
    }
}

/// What a portion is, seen from the lower and from the upper end.
pub(super) const ENDS: [fn(&Portion) -> u64; 2] = [|portion| portion.above, |portion| portion.below];

/// The portions of a cell's contributors, of each summed column.
#[derive(Debug, Clone)]
pub(super) enum Portions {
    /// Of each contributor. The portions of one are beside each other, one for each column.
    Each { at: HashMap<Key, Known, BuildHasherDefault<PassThrough>>, portions: Vec<Portion> },
    /// There are enough contributors.
    Shared(Box<Shared>),
    /// They were not kept: an older version began the window.
    Unknown,
}

/// Portions of many contributors.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shared {
    /// [`SHARED`] times one for each column.
    pub(super) portions: Vec<Portion>,
    /// For each column, [`WORDS`] of marks of who has a value above the lower end, and as many for below the upper end.
    pub(super) marks: Vec<u64>,
}

impl Shared {
    pub(super) fn new(columns: usize) -> Self {
        Self { portions: vec![Portion::default(); SHARED * columns], marks: vec![0; 2 * WORDS * columns] }
    }

    fn add(&mut self, key: Key, columns: usize, column: usize, portion: Portion) {
        let place = key as usize % SHARED * columns + column;
        if let Some(shared) = self.portions.get_mut(place) {
            shared.add(portion);
        }
        // Other bits than those that say with whom a portion is shared.
        let bit = (key >> 32) as usize % (64 * WORDS);
        for (end, portion) in [portion.above, portion.below].into_iter().enumerate() {
            if let Some(word) = self.marks.get_mut((2 * column + end) * WORDS + bit / 64) {
                *word |= u64::from(portion > 0) << (bit % 64);
            }
        }
    }

    /// How many contributors at least are off an end of a column.
    fn off_end(&self, column: usize, end: usize) -> usize {
        let words = self.marks.iter().skip((2 * column + end) * WORDS).take(WORDS);
        words.map(|word| word.count_ones() as usize).sum()
    }
}

impl Default for Portions {
    fn default() -> Self {
        Self::Each { at: HashMap::default(), portions: Vec::new() }
    }
}

/// Bytes of a contributor's portion of one column, as if the list had just doubled.
const EACH_PORTION: usize = 2 * size_of::<Portion>();

/// Bytes of the portions of so many contributors.
fn each_bytes(contributors: usize, columns: usize) -> usize {
    if contributors == 0 { 0 } else { set_bytes(contributors) + (contributors + 1) * columns * EACH_PORTION }
}

/// The most bytes that one more contributor of a cell adds, with so many summed columns.
pub(super) fn first_portion(columns: usize) -> usize {
    each_bytes(1, columns)
}

impl Portions {
    /// Where the portions of a contributor are, with room for them: for [`Portions::add`].
    #[inline]
    pub(super) fn place(&mut self, key: Key, columns: usize) -> (Place, Change) {
        let (place, change, _) = self.find(key, columns);
        (place, change)
    }

    /// The same, and the sets of the cell that the contributor is known to be in.
    #[inline]
    pub(super) fn find(&mut self, key: Key, columns: usize) -> (Place, Change, Sets) {
        let Self::Each { at, portions } = self else { return (key, Change::default(), Sets::NONE) };
        if let Some(known) = at.get(&key) {
            return (Place::from(known.place), Change::default(), known.is_in);
        }
        let (before, place) = (at.len(), portions.len() as u32);
        at.insert(key, Known { place, is_in: Sets::NONE });
        portions.resize(portions.len() + columns, Portion::default());
        let change = Change { before: each_bytes(before, columns), after: each_bytes(before + 1, columns) };
        (Place::from(place), change, Sets::NONE)
    }

    /// A contributor is known to be in a set from now on.
    pub(super) fn joins(&mut self, key: Key, set: Sets) {
        if let Self::Each { at, .. } = self
            && let Some(known) = at.get_mut(&key)
        {
            known.is_in = known.is_in.and(set);
        }
    }

    /// Adds a value of a contributor to the portion of a column.
    #[inline]
    pub(super) fn add(&mut self, place: Place, columns: usize, column: usize, portion: Portion) {
        match self {
            Self::Each { portions, .. } => {
                if let Some(own) = portions.get_mut(place as usize + column) {
                    own.add(portion);
                }
            }
            Self::Shared(shared) => shared.add(place, columns, column, portion),
            Self::Unknown => {}
        }
    }

    /// Whether there are enough contributors, and each is still kept apart: then [`Portions::end`] is due.
    pub(super) fn are_full(&self, enough: usize) -> bool {
        matches!(self, Self::Each { at, .. } if at.len() >= enough.max(KEPT_APART))
    }

    /// No longer keeps contributors apart if there are enough of them.
    pub(super) fn end(&mut self, columns: usize, enough: usize) -> Change {
        if !self.are_full(enough) {
            return Change::default();
        }
        let before = self.bytes(columns);
        self.share(columns);
        Change { before, after: self.bytes(columns) }
    }

    fn share(&mut self, columns: usize) {
        let Self::Each { at, portions } = self else { return };
        let mut shared = Shared::new(columns);
        for (key, Known { place, .. }) in at.iter() {
            let own = portions.iter().skip(*place as usize).take(columns);
            for (column, portion) in own.enumerate() {
                shared.add(*key, columns, column, *portion);
            }
        }
        *self = Self::Shared(Box::new(shared));
    }

    /// Adds those of another part of the cell.
    pub(super) fn merge(&mut self, mut other: Self, columns: usize, enough: usize) {
        if matches!(self, Self::Unknown) || matches!(other, Self::Unknown) {
            *self = Self::Unknown;
            return;
        }
        if matches!(self, Self::Shared(_)) || matches!(other, Self::Shared(_)) {
            self.share(columns);
            other.share(columns);
        }
        match (&mut *self, other) {
            (Self::Shared(mine), Self::Shared(theirs)) => {
                mine.portions.iter_mut().zip(theirs.portions).for_each(|(mine, theirs)| mine.add(theirs));
                mine.marks.iter_mut().zip(theirs.marks).for_each(|(mine, theirs)| *mine |= theirs);
            }
            (mine, Self::Each { at, portions }) => {
                for (key, theirs) in at {
                    let (place, _) = mine.place(key, columns);
                    let own = portions.iter().skip(theirs.place as usize).take(columns);
                    for (column, portion) in own.enumerate() {
                        mine.add(place, columns, column, *portion);
                    }
                }
                mine.end(columns, enough);
            }
            _ => {}
        }
    }

    /// Whether the sum of a column may leave.
    #[cfg(test)]
    pub(super) fn hold(&self, columns: usize, column: usize, rule: PartRule) -> bool {
        rule.percent == 0 || self.at_ends(columns, column).is_some_and(|ends| ends.iter().all(|end| end.holds(rule)))
    }

    /// The portions at the lower and at the upper end of a column. `None`: they were not kept.
    pub(super) fn at_ends(&self, columns: usize, column: usize) -> Option<[AtEnd; 2]> {
        let (portions, shared) = match self {
            Self::Each { portions, .. } => (portions, None),
            Self::Shared(shared) => (&shared.portions, Some(shared)),
            Self::Unknown => return None,
        };
        Some([0, 1].map(|end| {
            let of = ENDS[end];
            let portions = portions.iter().skip(column).step_by(columns.max(1)).map(of);
            AtEnd::of(portions, shared.map(|shared| shared.off_end(column, end)))
        }))
    }

    /// The portions of each contributor, or of all who share one, in all columns. None, if they were not kept.
    pub(super) fn by_contributor(&self, columns: usize) -> Box<dyn Iterator<Item = (Key, &[Portion])> + '_> {
        match self {
            Self::Each { at, portions } => Box::new(at.iter().filter_map(move |(key, known)| {
                let place = known.place as usize;
                Some((*key, portions.get(place..place + columns)?))
            })),
            Self::Shared(shared) => Box::new((0..).zip(shared.portions.chunks_exact(columns.max(1)))),
            Self::Unknown => Box::new(std::iter::empty()),
        }
    }

    /// How many contributors are told apart, at most.
    pub(super) fn contributors(&self) -> usize {
        match self {
            Self::Each { at, .. } => at.len(),
            Self::Shared(_) => SHARED,
            Self::Unknown => 0,
        }
    }

    /// Whether contributors share portions.
    pub(super) fn are_shared(&self) -> bool {
        matches!(self, Self::Shared(_))
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self, columns: usize) -> usize {
        match self {
            Self::Each { at, .. } => each_bytes(at.len(), columns),
            Self::Shared(shared) => size_of::<Shared>() + size_of_val(&*shared.portions) + size_of_val(&*shared.marks),
            Self::Unknown => 0,
        }
    }
}

/// What contributors add to a sum, seen from one end of the range.
#[derive(Debug, Clone, Copy)]
pub(super) struct AtEnd {
    pub(super) total: u128,
    /// The largest portion.
    pub(super) largest: u64,
    /// The next one.
    pub(super) second: u64,
    /// How many contributors at least have one at all.
    off_end: usize,
}

impl AtEnd {
    /// Of these portions. `off_end`: how many contributors at least have one, where they share portions.
    fn of(portions: impl Iterator<Item = u64>, off_end: Option<usize>) -> Self {
        let (mut total, mut largest, mut second, mut has_one) = (0_u128, 0, 0, 0);
        for portion in portions {
            total += u128::from(portion);
            has_one += usize::from(portion > 0);
            if portion > largest {
                (largest, second) = (portion, largest);
            } else if portion > second {
                second = portion;
            }
        }
        Self { total, largest, second, off_end: off_end.unwrap_or(has_one) }
    }

    /// Whether both rules hold.
    pub(super) fn holds(self, rule: PartRule) -> bool {
        let Self { total, largest, second, off_end } = self;
        if largest == 0 {
            return !rule.not_empty;
        }
        let others = total - u128::from(largest) - u128::from(second);
        // A total that reached the end of its integer may be greater.
        let by_percent = largest < u64::MAX && others * 100 >= u128::from(largest) * u128::from(rule.percent);
        let are_enough = off_end >= rule.least;
        (are_enough || planted("sums-of-few")) && (by_percent || planted("sums-of-one"))
    }
}

#[cfg(test)]
mod tests;
