//! Contributors, each with who brought it: for the rule that k must hold whichever producer's records are taken away.
//!
//! A producer can invent contributors. Whoever invents all but one of a cell knows what the last one adds. So a part of a
//! cell may have to hold enough contributors *without* any single producer: those that are left when all of its records
//! are taken away. Of each contributor it is enough to know its only producer, or that there were several.
//!
//! A set is settled when it has as many contributors as any rule asks for, whichever producer is left out. If one producer
//! brought nearly all of a large set, those that it brought alone are forgotten too: without any other producer there are
//! enough, and without itself there are only the others. So a set keeps fewer than twice as many as are enough. What it
//! is depends only on who brought whom, not on the order or on how it was merged.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use siphasher::sip128::{Hasher128, SipHasher13};

use super::hashed::{Contributor, ContributorKey, PassThrough, set_bytes};

/// A producer, by 16 bits of a hash of its name. They take the place of 16 bits of the contributor's, so an entry takes no
/// more memory. Two producers that have the same bits, of 65,534, count as one, which makes the rule stricter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Producer(u16);

impl Producer {
    /// It is not known who brought a record.
    pub const UNKNOWN: Self = Self(0);
    /// More than one did.
    pub(super) const SEVERAL: Self = Self(u16::MAX);

    /// Whoever brought something that one and another one brought. What somebody unknown brought may be of either.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::UNKNOWN, one) | (one, Self::UNKNOWN) => one,
            (one, other) if one == other => one,
            _ => Self::SEVERAL,
        }
    }

    /// Whether this is one producer who is known.
    pub(super) fn is_one(self) -> bool {
        self != Self::UNKNOWN && self != Self::SEVERAL
    }

    /// As a number, for a checkpoint.
    pub(super) fn number(self) -> u16 {
        self.0
    }

    /// Of a number in a checkpoint.
    pub(super) fn of_number(number: u16) -> Self {
        Self(number)
    }
}

impl ContributorKey {
    /// Hashes the name of a producer.
    #[must_use]
    pub fn producer(&self, name: &str) -> Producer {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write(b"producer ");
        hasher.write(name.as_bytes());
        let names = u64::from(u16::MAX) - 1;
        Producer((hasher.finish128().h1 % names) as u16 + 1)
    }
}

/// A contributor, by 112 bits of its hash: with its producer it takes as much as a whole one without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Person([u16; 7]);

impl From<Contributor> for Person {
    fn from(contributor: Contributor) -> Self {
        Self([1, 2, 3, 4, 5, 6, 7].map(|word| (contributor >> (16 * word)) as u16))
    }
}

impl From<Person> for Contributor {
    fn from(person: Person) -> Self {
        person.0.iter().rev().fold(0, |all, word| all << 16 | Self::from(*word)) << 16
    }
}

impl Hash for Person {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [first, second, third, fourth, ..] = self.0.map(u64::from);
        state.write_u64(first | second << 16 | third << 32 | fourth << 48);
    }
}

/// Who a record is of, and who brought it.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    pub(super) contributor: Contributor,
    pub(super) producer: Producer,
}

/// Contributors, each with its producer.
pub(super) type ByProducer = HashMap<Person, Producer, BuildHasherDefault<PassThrough>>;

/// Contributors, each once.
pub(super) type People = std::collections::HashSet<Person, BuildHasherDefault<PassThrough>>;

/// Contributors and who brought them, as long as that is kept.
#[derive(Debug, Clone)]
pub(super) struct Brought {
    /// Whether there are enough, whoever brought them. Then those of whom it is not known who brought them have served.
    pub(super) is_enough: bool,
    pub(super) kept: Kept,
}

/// What is kept of them.
#[derive(Debug, Clone)]
pub(super) enum Kept {
    /// Each one.
    Each(Each),
    /// One producer brought enough and more. Who was also brought by others, or by them alone.
    Led { by: Producer, others: People },
    /// There are enough, whichever producer is left out.
    Settled,
}

/// Each contributor with its producer.
#[derive(Debug, Clone)]
pub(super) struct Each {
    pub(super) by: ByProducer,
    /// The producer that brought most of them alone, when that was looked up.
    lead: Producer,
    /// How many there are, less those that it is not known of or that only `lead` brought. While these are not enough,
    /// there are not enough without whoever brought most.
    beside_lead: usize,
}

impl Default for Each {
    fn default() -> Self {
        Self { by: ByProducer::default(), lead: Producer::UNKNOWN, beside_lead: 0 }
    }
}

impl Default for Brought {
    fn default() -> Self {
        Self { is_enough: false, kept: Kept::Each(Each::default()) }
    }
}

impl Each {
    fn is_beside(&self, producer: Producer) -> bool {
        producer != Producer::UNKNOWN && producer != self.lead
    }

    /// Adds one. Whether anything changed.
    pub(super) fn insert(&mut self, person: Person, producer: Producer) -> bool {
        let (before, after) = match self.by.entry(person) {
            Entry::Vacant(place) => (Producer::UNKNOWN, *place.insert(producer)),
            Entry::Occupied(mut known) => {
                let before = *known.get();
                let after = before.and(producer);
                if after == before {
                    return false;
                }
                known.insert(after);
                (before, after)
            }
        };
        self.beside_lead += usize::from(self.is_beside(after));
        self.beside_lead -= usize::from(self.is_beside(before));
        true
    }

    /// How many at most any single producer brought alone: of whom it is not known, any may have.
    pub(super) fn most_alone(&self) -> usize {
        let unknown = self.by.values().filter(|producer| **producer == Producer::UNKNOWN).count();
        unknown + most_alone(self.by.values().copied()).1
    }

    /// Finds whoever brought most alone.
    fn look_up_lead(&mut self) {
        (self.lead, _) = most_alone(self.by.values().copied());
        self.beside_lead = self.by.values().filter(|producer| self.is_beside(**producer)).count();
    }

    /// Those who were brought by others than a producer.
    pub(super) fn without(&self, producer: Producer) -> People {
        let others = self.by.iter().filter(|(_, by)| **by != producer && **by != Producer::UNKNOWN);
        others.map(|(person, _)| *person).collect()
    }
}

/// The producer that brought most contributors alone, and how many, of those who brought each. None: not known who.
pub(super) fn most_alone(producers: impl Iterator<Item = Producer>) -> (Producer, usize) {
    let mut alone: HashMap<Producer, usize> = HashMap::new();
    for producer in producers.filter(|producer| producer.is_one()) {
        *alone.entry(producer).or_default() += 1;
    }
    alone.into_iter().max_by_key(|(producer, alone)| (*alone, *producer)).unwrap_or_default()
}

impl Brought {
    /// Adds a contributor; `enough` of them are. Whether anything changed.
    pub(super) fn insert(&mut self, person: Person, producer: Producer, enough: usize) -> bool {
        let each = match &mut self.kept {
            Kept::Settled => return false,
            Kept::Led { by, others } => {
                let is_new = producer != Producer::UNKNOWN && producer != *by && others.insert(person);
                if is_new && others.len() >= enough {
                    self.settle();
                }
                return is_new;
            }
            Kept::Each(each) => each,
        };
        if self.is_enough && producer == Producer::UNKNOWN || !each.insert(person, producer) {
            return false;
        }
        if !self.is_enough && each.by.len() >= enough {
            self.are_enough();
        }
        self.end(enough);
        true
    }

    /// There are enough contributors, whoever brought them.
    pub(super) fn are_enough(&mut self) {
        self.is_enough = true;
        if let Kept::Each(each) = &mut self.kept {
            each.by.retain(|_, producer| *producer != Producer::UNKNOWN);
            each.by.shrink_to_fit();
        }
    }

    fn settle(&mut self) {
        (self.is_enough, self.kept) = (true, Kept::Settled);
    }

    /// Keeps less when what is kept says enough.
    fn end(&mut self, enough: usize) {
        let Kept::Each(each) = &mut self.kept else { return };
        if each.beside_lead >= enough {
            each.look_up_lead();
            if each.beside_lead >= enough {
                return self.settle();
            }
        }
        // All but fewer than enough are those that one producer brought alone: so many of them that there are enough without
        // any other one.
        if self.is_enough && each.by.len() >= 2 * enough {
            let lead = each.lead;
            self.led_by(lead, enough);
        }
    }

    /// A producer brought enough.
    fn led_by(&mut self, producer: Producer, enough: usize) {
        self.is_enough = true;
        match &mut self.kept {
            Kept::Settled => {}
            Kept::Led { by, .. } if *by == producer => {}
            // Two did.
            Kept::Led { .. } => self.settle(),
            Kept::Each(each) => {
                let others = each.without(producer);
                if others.len() >= enough {
                    return self.settle();
                }
                self.kept = Kept::Led { by: producer, others };
            }
        }
    }

    /// Adds those of another set.
    pub(super) fn add(&mut self, other: &Self, enough: usize) {
        if other.is_enough && !self.is_enough {
            self.are_enough();
        }
        match &other.kept {
            Kept::Settled => self.settle(),
            Kept::Each(each) => {
                for (person, producer) in &each.by {
                    self.insert(*person, *producer, enough);
                }
            }
            Kept::Led { by, others } => {
                self.led_by(*by, enough);
                for person in others {
                    self.insert(*person, Producer::SEVERAL, enough);
                }
            }
        }
    }

    /// Adds those of another part of the cell.
    pub(super) fn merge(&mut self, mut other: Self, enough: usize) {
        if self.known() < other.known() {
            std::mem::swap(self, &mut other);
        }
        self.add(&other, enough);
    }

    /// How many are kept.
    pub(super) fn known(&self) -> usize {
        match &self.kept {
            Kept::Each(each) => each.by.len(),
            Kept::Led { others, .. } => others.len(),
            Kept::Settled => 0,
        }
    }

    /// Whether there are enough, whichever producer is left out.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.kept, Kept::Settled)
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + set_bytes(self.known())
    }
}

/// The most bytes that the first contributor of a set adds beside what it would add without a producer.
pub(super) const FIRST_BROUGHT: usize = size_of::<Brought>();

#[cfg(test)]
mod tests;
