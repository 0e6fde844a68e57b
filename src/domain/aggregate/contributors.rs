//! Sets of contributors.

use super::Cells;
use super::brought::{Brought, Each, Kept, Origin, People, Person, Producer};
use super::hashed::{Change, Contributor, Set, set_bytes};
use crate::domain::dataset::Dataset;

/// So many contributors are enough for every rule: a set that has them is no longer kept.
///
/// The policies' loader takes no greater `min_contributors`, and no rule asks for more than whether there are that many. A
/// rule that needs more than that (an exact count, bounds of what one contributor adds) needs sets that are kept. The
/// number is part of the cells' version in checkpoints: with another number the version is another.
pub const ENOUGH: usize = 1_000;

/// So many are never reached: of a dataset that asks for more than whether there are enough, no set ends.
pub(super) const NEVER_ENOUGH: usize = usize::MAX / 4;

/// Distinct contributors: a set of them, or that there are enough.
///
/// What it is depends only on who was added by whom, not on the order or on how it was merged: a set below the number that is
/// enough, `Enough` from there on; once it is known of somebody who brought it, a set with producers.
#[derive(Debug, Clone)]
pub(super) enum Contributors {
    Few(Set),
    /// Who brought them was not kept.
    Enough,
    /// Each with its producer.
    Brought(Box<Brought>),
    /// There are enough, whichever producer's are left out.
    Settled,
}

impl Default for Contributors {
    fn default() -> Self {
        Self::Few(Set::default())
    }
}

impl Contributors {
    /// Adds one; `enough` of them are. Whether anything changed.
    #[inline]
    pub(super) fn insert(&mut self, contributor: Contributor, producer: Producer, enough: usize) -> bool {
        if producer != Producer::UNKNOWN {
            return self.insert_brought(contributor, producer, enough);
        }
        match self {
            Self::Few(set) => {
                let is_new = set.insert(contributor);
                if is_new && set.len() >= enough {
                    *self = Self::Enough;
                }
                is_new
            }
            Self::Enough | Self::Settled => false,
            Self::Brought(_) => self.insert_brought(contributor, producer, enough),
        }
    }

    fn insert_brought(&mut self, contributor: Contributor, producer: Producer, enough: usize) -> bool {
        let Some(brought) = self.with_producers(enough) else { return false };
        let has_changed = brought.insert(contributor.into(), producer, enough);
        if has_changed {
            self.settle();
        }
        has_changed
    }

    /// From now on it is kept who brought them. `None`: there are enough already.
    #[inline]
    fn with_producers(&mut self, enough: usize) -> Option<&mut Brought> {
        if matches!(self, Self::Few(_) | Self::Enough) {
            self.begin_producers(enough);
        }
        if let Self::Brought(brought) = self { Some(brought.as_mut()) } else { None }
    }

    /// Of those that are there it is not known who brought them.
    #[cold]
    fn begin_producers(&mut self, enough: usize) {
        let mut brought = Brought::default();
        match self {
            Self::Few(set) => {
                for contributor in set.iter() {
                    brought.insert((*contributor).into(), Producer::UNKNOWN, enough);
                }
            }
            _ => brought.are_enough(),
        }
        *self = Self::Brought(Box::new(brought));
    }

    /// Of a set with producers.
    pub(super) fn of(brought: Brought) -> Self {
        let mut contributors = Self::Brought(Box::new(brought));
        contributors.settle();
        contributors
    }

    fn settle(&mut self) {
        if matches!(self, Self::Brought(brought) if brought.is_settled()) {
            *self = Self::Settled;
        }
    }

    /// The same, with how many bytes it takes.
    #[inline]
    pub(super) fn add(&mut self, origin: Origin, enough: usize) -> Change {
        let before = self.bytes();
        let is_new = self.insert(origin.contributor, origin.producer, enough);
        if is_new { Change { before, after: self.bytes() } } else { Change::default() }
    }

    /// Whether somebody is among them, so that nothing changes when the same is added again without who brought it.
    #[inline]
    pub(super) fn hold(&self, contributor: Contributor) -> bool {
        match self {
            Self::Few(set) => set.contains(&contributor),
            Self::Enough | Self::Settled => true,
            Self::Brought(_) => false,
        }
    }

    /// Adds those of another part of the cell.
    pub(super) fn merge(&mut self, other: Self, enough: usize) {
        match (&mut *self, other) {
            (Self::Settled, _) | (Self::Enough, Self::Few(_) | Self::Enough) => {}
            (_, Self::Settled) => *self = Self::Settled,
            (Self::Few(_), Self::Enough) => *self = Self::Enough,
            (Self::Few(mine), Self::Few(mut theirs)) => {
                if mine.len() < theirs.len() {
                    std::mem::swap(mine, &mut theirs);
                }
                // One by one: `extend` makes room for all of them, also for those that are there already.
                for contributor in theirs {
                    self.insert(contributor, Producer::UNKNOWN, enough);
                }
            }
            (_, mut theirs) => {
                theirs.with_producers(enough);
                if let (Some(mine), Self::Brought(theirs)) = (self.with_producers(enough), theirs) {
                    mine.merge(*theirs, enough);
                }
                self.settle();
            }
        }
    }

    /// How many are kept.
    pub(super) fn known(&self) -> usize {
        match self {
            Self::Few(set) => set.len(),
            Self::Enough | Self::Settled => 0,
            Self::Brought(brought) => brought.known(),
        }
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Brought(brought) => brought.bytes(),
            _ => set_bytes(self.known()),
        }
    }
}

/// Of whom a number of contributors is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// All of them.
    All,
    /// Those who were brought by anybody else than this producer. Of whom it is not known who brought him, does not count.
    AllBut(Producer),
}

impl Contributors {
    /// Adds some of them to people. `None`: they are as many as any rule asks for.
    pub(super) fn gather(&self, of: Of, people: &mut People) -> Option<()> {
        match (self, of) {
            (Self::Settled, _) | (Self::Enough, Of::All) => return None,
            (Self::Few(set), Of::All) => people.extend(set.iter().map(|contributor| Person::from(*contributor))),
            (Self::Few(_) | Self::Enough, Of::AllBut(_)) => {}
            (Self::Brought(brought), of) => match (&brought.kept, of) {
                (Kept::Settled, _) => return None,
                (_, Of::All) if brought.is_enough => return None,
                (Kept::Each(each), Of::All) => people.extend(each.by.keys()),
                (Kept::Each(each), Of::AllBut(producer)) => people.extend(each.without(producer)),
                (Kept::Led { by, others }, Of::AllBut(producer)) if *by == producer => people.extend(others),
                (Kept::Led { .. }, _) => return None,
            },
        }
        Some(())
    }

    /// The producers that alone brought some of them, each with how many at most: without any other producer they are all
    /// there.
    pub(super) fn alone(&self) -> impl Iterator<Item = (Producer, usize)> {
        let (each, led) = match self {
            Self::Brought(brought) => match &brought.kept {
                Kept::Each(each) => (Some(each), None),
                Kept::Led { by, .. } => (None, Some((*by, usize::MAX))),
                Kept::Settled => (None, None),
            },
            _ => (None, None),
        };
        let of_each = each.into_iter().flat_map(|each| each.by.values().filter(|by| by.is_one()).map(|by| (*by, 1)));
        of_each.chain(led)
    }
}

/// Distinct contributors of several sets together, until there are as many as are asked for.
#[derive(Debug)]
pub(super) struct Together {
    /// How many are asked for. `None`: so many cannot be told.
    least: Option<usize>,
    seen: Seen,
}

#[derive(Debug)]
enum Seen {
    /// These, and not enough.
    People(People),
    /// These, and not enough without any single producer.
    Brought(Brought),
    /// Enough.
    Enough,
}

impl Together {
    /// None yet. At least `least` are asked for, `beyond_one`: without any single producer. More than `enough` cannot be
    /// told.
    pub(super) fn new(least: usize, beyond_one: bool, enough: usize) -> Self {
        let seen = match (least, beyond_one) {
            (0, _) => Seen::Enough,
            (_, false) => Seen::People(People::default()),
            (_, true) => Seen::Brought(Brought::default()),
        };
        Self { least: (least <= enough).then_some(least), seen }
    }

    /// Adds those of a set.
    pub(super) fn add(&mut self, set: &Contributors) {
        let Some(least) = self.least else { return };
        let suffice = match (&mut self.seen, set) {
            (Seen::Enough, _) => return,
            (Seen::People(seen), Contributors::Few(set)) => set.iter().any(|contributor| {
                seen.insert((*contributor).into());
                seen.len() >= least
            }),
            (Seen::People(seen), set) => set.gather(Of::All, seen).is_none() || seen.len() >= least,
            (Seen::Brought(seen), Contributors::Brought(set)) => {
                seen.add(set, least);
                seen.is_settled()
            }
            (Seen::Brought(_), set) => matches!(set, Contributors::Settled),
        };
        if suffice {
            self.seen = Seen::Enough;
        }
    }

    /// Whether there are as many as are asked for. If more are asked for than can be told, there are not.
    pub(super) fn suffice(&self) -> bool {
        self.least.is_some() && matches!(self.seen, Seen::Enough)
    }
}

/// Whether there are so many distinct contributors in these sets together, `beyond_one`: without any single producer. More
/// than `enough` cannot be told: then there are not.
pub(super) fn at_least<'c>(
    sets: impl IntoIterator<Item = &'c Contributors>,
    least: usize,
    beyond_one: bool,
    enough: usize,
) -> bool {
    let mut together = Together::new(least, beyond_one, enough);
    let mut sets = sets.into_iter();
    while !together.suffice() {
        let Some(set) = sets.next() else { return false };
        together.add(set);
    }
    true
}

/// How many contributors of a cell of a dataset are enough.
pub(super) fn enough_of(dataset: &Dataset) -> usize {
    if dataset.keeps_all { NEVER_ENOUGH } else { ENOUGH }
}

impl Cells {
    /// How many records a slot's cell has.
    pub(in crate::domain) fn records_of(&self, slot: usize) -> u64 {
        self.records.get(slot).copied().unwrap_or(0)
    }

    /// Whether of a thousand contributors of a slot's cell at least so many are brought by others than any single producer.
    /// Where it is not known who brought them, or all of them: no.
    pub(in crate::domain) fn has_beside(&self, slot: usize, beside: u32) -> bool {
        beside == 0 || are_beside(self.sets_of(slot), beside)
    }
}

/// Whether of a thousand distinct contributors of these sets together at least so many are brought by others than any single
/// producer. Of whom it is not known who brought him, any producer may have. If some are not kept: no.
fn are_beside<'c>(sets: impl IntoIterator<Item = &'c Contributors>, beside: u32) -> bool {
    let mut all = Each::default();
    for set in sets {
        match set {
            Contributors::Few(set) => set.iter().for_each(|contributor| {
                all.insert((*contributor).into(), Producer::UNKNOWN);
            }),
            Contributors::Brought(brought) => {
                let (Kept::Each(each), false) = (&brought.kept, brought.is_enough) else { return false };
                each.by.iter().for_each(|(person, producer)| {
                    all.insert(*person, *producer);
                });
            }
            Contributors::Enough | Contributors::Settled => return false,
        }
    }
    let most = all.most_alone() as u128;
    let count = all.by.len() as u128;
    (count - most) * 1_000 >= count * u128::from(beside)
}
