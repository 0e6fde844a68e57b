//! What a destination was told last of each cell of a dataset, so that only what has changed is told.
//!
//! **What it knows.** For each cell that was told and is not gone, it has a hash of the values as they left: rounded,
//! with nulls where something was withheld. It compares nothing else. So what is told depends only on what the
//! destination would be given without a table. A cell that does not leave is gone, whether it is empty, too small or
//! may not go there.
//!
//! **What is never unchanged**: a cell that covers several windows, a cell of a part of a window, and the cell that
//! comes after one of these. If a part of a window was told, the rest of the window is told whole.
//!
//! **Where it is kept.** What a closing tells stands with its releases in the outbox ([`Tellings`]). So a table is what
//! the entries of the outbox say, one after the other, beginning with one that tells all. If there is none, the table
//! is not known, and the next release tells all. That happens after the journal was removed or damaged, and after the
//! dataset began to count otherwise.
//!
//! A table holds no more cells than the dataset's keys give (at most 65,536).

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use super::binary::{Reader, Writer};
use super::dataset::Dataset;
use super::name::DestinationName;

/// A hash of what a cell said, or of how a dataset counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// One that was kept.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut first = [0; 16];
        first.iter_mut().zip(Sha256::digest(bytes)).for_each(|(to, from)| *to = from);
        Self(first)
    }
}

/// How a row of a release changes the table of its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// The release tells the whole table: what is not in it is gone.
    All,
    /// The cell is new, or its values are.
    Set,
    /// The cell was told before, and is not there any more.
    Gone,
}

impl Change {
    /// How it is written in a release.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Set => "set",
            Self::Gone => "gone",
        }
    }
}

/// What one destination was told last.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Table {
    /// All windows through this one are told whole, because parts of them were told.
    whole_through: i64,
    /// The cells that were told, by number. `None`: whatever values come next, they are told.
    cells: BTreeMap<u32, Option<Fingerprint>>,
}

/// What all destinations were told last of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    counted_as: Fingerprint,
    /// The first window that has not closed, as far as it is known.
    next: i64,
    /// The tables that are known.
    of: BTreeMap<DestinationName, Table>,
}

/// The cells of a window that a destination is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telling {
    /// The destination.
    pub destination: DestinationName,
    /// It tells the whole table: what is not in it is gone.
    pub all: bool,
    /// The last window of which parts were told.
    pub whole_through: Option<i64>,
    /// The cells that are told, by number.
    pub set: Vec<(u32, Option<Fingerprint>)>,
    /// Those that are gone.
    pub gone: Vec<u32>,
}

/// What a closing tells, for the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tellings {
    /// How the dataset counts.
    pub counted_as: Fingerprint,
    /// The first window that has not closed then.
    pub next: i64,
    /// What it tells, in order.
    pub of: Vec<Telling>,
}

/// What a cell says now.
#[derive(Debug, Clone, Copy)]
pub struct Said {
    /// Its number.
    pub number: u32,
    /// Its values.
    pub values: Fingerprint,
    /// How many windows it covers.
    pub windows: u64,
}

impl Tables {
    /// Nothing is known of what was told of a dataset.
    #[must_use]
    pub fn new(dataset: &Dataset) -> Self {
        Self { counted_as: counted_as(dataset), next: i64::MIN, of: BTreeMap::new() }
    }

    /// What a destination is told of a window, or of a part of one (0: it is whole), which says this. It is empty when nothing
    /// has changed.
    #[must_use]
    pub fn telling(&self, destination: &DestinationName, window: i64, part: u64, said: &[Said]) -> Telling {
        let known = self.of.get(destination);
        let is_part = part != 0;
        let is_whole = is_part || known.is_none_or(|table| window <= table.whole_through);
        let told = |number: u32| known.and_then(|table| table.cells.get(&number));
        let differs = |said: &&Said| is_whole || said.windows > 1 || told(said.number) != Some(&Some(said.values));
        let kept = |said: &Said| (said.number, Some(said.values).filter(|_| !is_part && said.windows == 1));
        let set: Vec<_> = said.iter().filter(differs).map(kept).collect();
        let numbers: BTreeSet<u32> = said.iter().map(|said| said.number).collect();
        // A part of a window says nothing of what is not in it.
        let of_table = known.filter(|_| !is_part).into_iter().flat_map(|table| table.cells.keys());
        let gone: Vec<u32> = of_table.filter(|number| !numbers.contains(number)).copied().collect();
        let whole_through = (is_part && !set.is_empty()).then_some(window);
        Telling { destination: destination.clone(), all: known.is_none(), whole_through, set, gone }
    }

    /// Something was told.
    pub fn tell(&mut self, telling: &Telling) {
        let Telling { destination, all, whole_through, set, gone } = telling;
        if *all {
            let cells = BTreeMap::new();
            self.of.insert(destination.clone(), Table { whole_through: i64::MIN, cells });
        }
        // If the table is not known, a change does not make it known.
        let Some(table) = self.of.get_mut(destination) else { return };
        table.whole_through = table.whole_through.max(whole_through.unwrap_or(i64::MIN));
        table.cells.extend(set.iter().copied());
        gone.iter().for_each(|number| {
            table.cells.remove(number);
        });
    }

    /// Nothing is known any more: the next release tells all.
    pub fn forget(&mut self) {
        self.of.clear();
    }

    /// The first window without records of those that close before this one, if there are cells that are gone with it.
    #[must_use]
    pub fn gap(&self, before: i64) -> Option<i64> {
        let has_cells = self.of.values().any(|table| !table.cells.is_empty());
        (has_cells && self.next > i64::MIN && self.next < before).then_some(self.next)
    }

    /// A window closes, or a part of it is released.
    pub fn at(&mut self, window: i64) {
        if self.next == i64::MIN {
            self.next = window;
        }
    }

    /// All windows before this one have closed.
    pub fn closed_before(&mut self, window: i64) {
        self.next = self.next.max(window);
    }

    /// Takes in what the outbox says that a closing told. `None`: the closing had releases and does not say what they
    /// told, so the tables of their destinations are not known any more.
    pub fn heard<'d>(&mut self, told: Option<&Tellings>, releases: impl Iterator<Item = &'d DestinationName>) {
        let told = told.filter(|told| told.counted_as == self.counted_as);
        let Some(told) = told else {
            releases.for_each(|destination| {
                self.of.remove(destination);
            });
            return;
        };
        told.of.iter().for_each(|telling| self.tell(telling));
        self.closed_before(told.next);
    }

    /// What a closing tells, as the outbox holds it.
    #[must_use]
    pub fn tellings(&self, of: Vec<Telling>) -> Tellings {
        Tellings { counted_as: self.counted_as, next: self.next, of }
    }

    /// All that is known, as the outbox holds it; `None`: nothing is.
    #[must_use]
    pub fn whole(&self) -> Option<Tellings> {
        let whole = |(destination, table): (&DestinationName, &Table)| Telling {
            destination: destination.clone(),
            all: true,
            whole_through: (table.whole_through > i64::MIN).then_some(table.whole_through),
            set: table.cells.iter().map(|(number, values)| (*number, *values)).collect(),
            gone: Vec::new(),
        };
        (!self.of.is_empty()).then(|| self.tellings(self.of.iter().map(whole).collect()))
    }
}

impl Telling {
    /// Whether nothing is told.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.gone.is_empty()
    }
}

impl Tellings {
    /// Adds it to an entry of the outbox.
    pub fn encode(&self, writer: &mut Writer) {
        writer.raw(&self.counted_as.0).i64(self.next).count(self.of.len());
        for Telling { destination, all, whole_through, set, gone } in &self.of {
            writer.text(destination).u8((*all).into()).option(*whole_through);
            writer.count(set.len());
            for (number, values) in set {
                writer.u32(*number).u8(values.is_some().into());
                if let Some(Fingerprint(values)) = values {
                    writer.raw(values);
                }
            }
            writer.count(gone.len());
            gone.iter().for_each(|number| {
                writer.u32(*number);
            });
        }
    }

    /// Reads it from one.
    pub fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let (counted_as, next) = (Fingerprint::from_bytes(reader.array()?), reader.i64()?);
        let mut of = Vec::new();
        for _ in 0..reader.count(8)? {
            let destination = DestinationName::new(reader.text()?).ok()?;
            let (all, whole_through) = (flag(reader)?, reader.option()?);
            let mut set = Vec::new();
            for _ in 0..reader.count(4 + 1)? {
                let number = reader.u32()?;
                let values = if flag(reader)? { Some(Fingerprint::from_bytes(reader.array()?)) } else { None };
                set.push((number, values));
            }
            let gone = (0..reader.count(4)?).map(|_| reader.u32()).collect::<Option<_>>()?;
            of.push(Telling { destination, all, whole_through, set, gone });
        }
        Some(Self { counted_as, next, of })
    }
}

fn flag(reader: &mut Reader<'_>) -> Option<bool> {
    match reader.u8()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// A hash of how a dataset counts. If it counts otherwise, its cells have other numbers or other values.
fn counted_as(dataset: &Dataset) -> Fingerprint {
    let mut writer = Writer::default();
    dataset.shape().encode(&mut writer);
    Fingerprint::of(&writer.finish())
}

#[cfg(test)]
mod tests;
