//! Who has a value off the ends of the summed columns of a cell, and who brought it.
//!
//! For each end of each column that is a set of contributors with their producers, as [`brought`](super::brought) has it:
//! each contributor; or who was brought by others, where one producer brought nearly all of many; or that there are enough.
//! Most contributors are in all of these sets. So all of them share one table, in which a record is looked up once.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use super::brought::{Kept, Person, Producer, most_alone};
use super::contributors::Contributors;
use super::hashed::{PassThrough, table_bytes};

/// The sets of all ends.
#[derive(Debug, Clone)]
pub(super) struct OffEnds {
    /// The row of each contributor who is in a set.
    at: HashMap<Person, u32, BuildHasherDefault<PassThrough>>,
    /// Row by row, for each end who brought the contributor. [`Producer::UNKNOWN`]: it is not in that set.
    by: Vec<Producer>,
    ends: Vec<End>,
    /// Whether there may be rows of those who are in no set any more.
    has_empty_rows: bool,
}

/// The set of one end, without who is in it.
#[derive(Debug, Clone, Copy, Default)]
struct End {
    keeps: Keeps,
    /// How many are in it.
    known: usize,
    /// The producer that brought most of them alone, when that was looked up.
    lead: Producer,
    /// How many of them others brought. While these are not enough, there are not enough without whoever brought most.
    beside_lead: usize,
}

/// Who is in a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Keeps {
    /// Everybody.
    #[default]
    Each,
    /// This producer brought enough and more: who was also brought by others, or by them alone.
    Led(Producer),
    /// Nobody: there are enough, whichever producer is left out.
    Settled,
}

impl End {
    /// Whether nothing that a producer brings changes the set.
    fn is_over(&self, producer: Producer) -> bool {
        match self.keeps {
            Keeps::Each => false,
            Keeps::Led(by) => by == producer,
            Keeps::Settled => true,
        }
    }

    fn is_beside(&self, producer: Producer) -> bool {
        producer != Producer::UNKNOWN && producer != self.lead
    }

    /// Whether the set may say enough with less: then [`OffEnds::end`] is due.
    fn is_full(&self, enough: usize) -> bool {
        self.beside_lead >= enough || self.keeps == Keeps::Each && self.known >= 2 * enough
    }
}

impl OffEnds {
    /// Nobody yet, of so many ends.
    pub(super) fn new(ends: usize) -> Self {
        Self { at: HashMap::default(), by: Vec::new(), ends: vec![End::default(); ends], has_empty_rows: false }
    }

    /// Adds a contributor whom a known producer brought to the set of an end. `row`: where it is, if that was looked up;
    /// that holds until [`OffEnds::end`]. Whether that is due.
    #[inline]
    pub(super) fn add(
        &mut self,
        row: &mut Option<u32>,
        person: Person,
        producer: Producer,
        end: usize,
        enough: usize,
    ) -> bool {
        let width = self.ends.len();
        let Some(of_end) = self.ends.get_mut(end).filter(|end| !end.is_over(producer)) else { return false };
        let row = *row.get_or_insert_with(|| {
            *self.at.entry(person).or_insert_with(|| {
                let row = self.by.len() / width;
                self.by.resize(self.by.len() + width, Producer::UNKNOWN);
                row as u32
            })
        });
        let Some(by) = self.by.get_mut(row as usize * width + end) else { return false };
        let before = *by;
        *by = if of_end.keeps == Keeps::Each { before.and(producer) } else { Producer::SEVERAL };
        if *by == before {
            return false;
        }
        of_end.known += usize::from(before == Producer::UNKNOWN);
        of_end.beside_lead += usize::from(of_end.is_beside(*by));
        of_end.beside_lead -= usize::from(of_end.is_beside(before));
        of_end.is_full(enough)
    }

    /// Keeps less where what is kept says enough.
    pub(super) fn end(&mut self, enough: usize) {
        for end in 0..self.ends.len() {
            if self.of(end).is_full(enough) && self.of(end).keeps == Keeps::Each {
                self.look_up_lead(end);
            }
            let of_end = self.of(end);
            if of_end.is_full(enough) {
                // If others did not bring enough, all but fewer than enough are those that one producer brought alone.
                self.keep(end, if of_end.beside_lead >= enough { Keeps::Settled } else { Keeps::Led(of_end.lead) });
            }
        }
        if self.has_empty_rows {
            self.drop_empty_rows();
        }
    }

    fn of(&self, end: usize) -> End {
        self.ends.get(end).copied().unwrap_or_default()
    }

    /// Finds whoever brought most alone.
    fn look_up_lead(&mut self, end: usize) {
        let (lead, _) = most_alone(self.people(end).map(|(_, producer)| producer));
        let found = End { lead, ..self.of(end) };
        let beside_lead = self.people(end).filter(|(_, producer)| found.is_beside(*producer)).count();
        if let Some(of_end) = self.ends.get_mut(end) {
            *of_end = End { beside_lead, ..found };
        }
    }

    /// From now on less is kept of an end. Empty rows stay until [`OffEnds::end`].
    fn keep(&mut self, end: usize, keeps: Keeps) {
        let keeps = match (self.of(end).keeps, keeps) {
            (Keeps::Settled, _) | (_, Keeps::Each) => return,
            (Keeps::Led(by), Keeps::Led(other)) if by == other => return,
            // Two brought enough.
            (Keeps::Led(_), Keeps::Led(_)) => Keeps::Settled,
            (_, keeps) => keeps,
        };
        let mut known = 0;
        for by in self.by.iter_mut().skip(end).step_by(self.ends.len()) {
            *by = match keeps {
                Keeps::Led(lead) if *by != lead && *by != Producer::UNKNOWN => Producer::SEVERAL,
                _ => Producer::UNKNOWN,
            };
            known += usize::from(*by != Producer::UNKNOWN);
        }
        let lead = if let Keeps::Led(lead) = keeps { lead } else { Producer::UNKNOWN };
        if let Some(of_end) = self.ends.get_mut(end) {
            *of_end = End { keeps, known, lead, beside_lead: known };
        }
        self.has_empty_rows = true;
    }

    /// Lets the rows go of those who are in no set any more.
    fn drop_empty_rows(&mut self) {
        let width = self.ends.len();
        let (rows, mut by) = (std::mem::take(&mut self.by), Vec::new());
        self.at.retain(|_, row| {
            let own = rows.get(*row as usize * width..(*row as usize + 1) * width).unwrap_or_default();
            *row = (by.len() / width) as u32;
            let is_in_a_set = own.iter().any(|by| *by != Producer::UNKNOWN);
            if is_in_a_set {
                by.extend_from_slice(own);
            }
            is_in_a_set
        });
        self.at.shrink_to_fit();
        (self.by, self.has_empty_rows) = (by, false);
    }

    /// Adds those of another part of the cell.
    pub(super) fn merge(&mut self, mut other: Self, enough: usize) {
        if self.at.len() < other.at.len() {
            std::mem::swap(self, &mut other);
        }
        for end in 0..other.ends.len() {
            self.keep(end, other.keeps(end));
        }
        let width = other.ends.len();
        for (person, row) in &other.at {
            let mut mine = None;
            let own = other.by.iter().skip(*row as usize * width).take(width);
            for (end, producer) in own.enumerate().filter(|(_, producer)| **producer != Producer::UNKNOWN) {
                self.add(&mut mine, *person, *producer, end, enough);
            }
        }
        self.end(enough);
    }

    /// The set of an end, as it was read. Of whom it is not known who brought him, any producer may have: he is of no
    /// account here.
    pub(super) fn put(&mut self, end: usize, set: &Contributors, enough: usize) {
        match set {
            Contributors::Few(_) | Contributors::Enough => {}
            Contributors::Settled => self.keep(end, Keeps::Settled),
            Contributors::Brought(brought) => match &brought.kept {
                Kept::Settled => self.keep(end, Keeps::Settled),
                Kept::Led { by, others } => {
                    self.keep(end, Keeps::Led(*by));
                    for person in others {
                        self.add(&mut None, *person, Producer::SEVERAL, end, enough);
                    }
                }
                Kept::Each(each) => {
                    for (person, by) in each.by.iter().filter(|(_, by)| **by != Producer::UNKNOWN) {
                        self.add(&mut None, *person, *by, end, enough);
                    }
                }
            },
        }
    }

    /// Who is in the set of an end.
    pub(super) fn keeps(&self, end: usize) -> Keeps {
        self.of(end).keeps
    }

    /// How many are.
    pub(super) fn known(&self, end: usize) -> usize {
        self.of(end).known
    }

    /// Those who are, each with its producer.
    pub(super) fn people(&self, end: usize) -> impl Iterator<Item = (Person, Producer)> {
        let by =
            move |row: u32| self.by.get(row as usize * self.ends.len() + end).copied().unwrap_or(Producer::UNKNOWN);
        let all = self.at.iter().map(move |(person, row)| (*person, by(*row)));
        all.filter(|(_, producer)| *producer != Producer::UNKNOWN)
    }

    /// Whether everybody is kept who is off any end.
    pub(super) fn keep_each(&self) -> bool {
        self.ends.iter().all(|end| end.keeps == Keeps::Each)
    }

    /// Those who are in any of the sets, each with its producer.
    pub(super) fn everybody(&self) -> impl Iterator<Item = (Person, Producer)> {
        self.at.iter().map(|(person, row)| {
            let own = self.by.iter().skip(*row as usize * self.ends.len()).take(self.ends.len());
            (*person, own.fold(Producer::UNKNOWN, |all, by| all.and(*by)))
        })
    }

    /// Whether so many contributors are off an end without those of any single producer. More than `enough` cannot be told:
    /// then there are not.
    pub(super) fn has_beyond_one(&self, end: usize, least: usize, enough: usize) -> bool {
        least <= enough
            && match self.of(end) {
                End { keeps: Keeps::Settled, .. } => true,
                End { keeps: Keeps::Led(_), known, .. } => known >= least,
                End { keeps: Keeps::Each, known, .. } => {
                    known - most_alone(self.people(end).map(|(_, producer)| producer)).1 >= least
                }
            }
    }

    /// How many contributors are in any of the sets.
    pub(super) fn rows(&self) -> usize {
        self.at.len()
    }
}

/// Bytes of so many contributors who are off any of so many ends, as if the list of rows had just doubled.
pub(super) fn off_ends_bytes(ends: usize, rows: usize) -> usize {
    let rows_bytes = 2 * rows * ends * size_of::<Producer>();
    ends * size_of::<End>() + table_bytes(rows, size_of::<(Person, u32)>()) + rows_bytes
}

#[cfg(test)]
mod tests;
