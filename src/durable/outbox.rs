//! The outbox: releases that are on disk before their first byte is sent, and stay there until every
//! destination has confirmed them.
//!
//! It is a log of its own. One entry holds all releases of one closing of a dataset's windows, for all
//! destinations, so that a closing is in it as a whole or not at all. If datasets share their cells, the entry
//! holds the releases of all of them, and has the name of the first. The entry names the closing's position
//! in the journal, so that a closing that is replayed is not released twice.

use std::collections::{BTreeMap, BTreeSet};

use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::ArrowError;

use crate::domain::binary::{Reader, Writer};
use crate::domain::dataset::WINDOWS;
use crate::domain::deferral::Decided;
use crate::domain::name::{DatasetName, DestinationName, GatewayId, StreamName};
use crate::domain::policy::{Addition, Digest, Released, ReleasedParts};
use crate::domain::privacy::{Paid, Rho};
use crate::domain::table::{Tables, Tellings};
use crate::domain::tally::Told;
use crate::storage::{self, Log, Lsn};

/// Why the outbox cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An entry is not one that this version writes.
    #[error("entry {0} of the outbox cannot be read")]
    Unreadable(Lsn),
    /// The cells could not be encoded.
    #[error("cannot encode a release")]
    Encode(#[from] ArrowError),
    /// The log could not be read.
    #[error("cannot read the outbox")]
    Log(#[from] storage::ReadError),
}

/// What the ledger is to say of a closing besides its releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Cells of a window were withheld.
    Withheld {
        /// When the window began, in microseconds since the Unix epoch.
        window_start: i64,
        /// At least so many, coarsely: what the ledger says of it.
        at_least: u64,
    },
    /// An override let cells go.
    Override {
        /// Its id.
        id: String,
        /// Where they go.
        destination: DestinationName,
        /// When the window began, in microseconds since the Unix epoch.
        window_start: i64,
    },
    /// Records were refused.
    Refused {
        /// Their stream.
        stream: StreamName,
        /// The windows that began before this time are closed, in microseconds since the Unix epoch. `None`: they are
        /// released as they are.
        before: Option<i64>,
        /// How many, and for what.
        told: Told,
    },
    /// What a window with differential privacy cost.
    Privacy {
        /// When the window began, in microseconds since the Unix epoch.
        window_start: i64,
        /// What came of it.
        outcome: Paid,
        /// What it cost.
        rho: Rho,
    },
}

/// The version of the notes at the end of an entry. Version 2 added refused records. Version 3 added, behind the notes,
/// what was decided about cells that may wait. Version 4 added budgets of privacy. Version 5 added, to what was
/// decided, the cells that left in a remainder. Version 6 added, behind that, what destinations were told. Version 7 added,
/// behind that, what earlier closings decided. Version 8 added, behind that, what a closing does to longer windows. Entries from
/// before version 1 end with the releases.
const NOTES_VERSION: u8 = 8;
/// The first version that says what destinations were told.
const FIRST_WITH_TOLD: u8 = 6;
/// The first version that says what earlier closings decided.
const FIRST_WITH_EARLIER: u8 = 7;
/// The first version that says what is done to longer windows.
const FIRST_WITH_LONGER: u8 = 8;
const WITHHELD: u8 = 1;
const OVERRIDE: u8 = 2;
const REFUSED: u8 = 3;
const PRIVACY: u8 = 4;
const OUTCOMES: [Paid; 3] = [Paid::Noised, Paid::Spent, Paid::Lost];

/// What one closing lets go, and what the ledger says of it.
pub struct Closing {
    /// Where the journal says that the windows were closed.
    pub closed_at: Lsn,
    /// The dataset's name; of datasets that share their cells, that of the first.
    pub dataset: DatasetName,
    /// The releases, for all destinations.
    pub releases: Vec<Released>,
    /// What the ledger is to say.
    pub notes: Vec<Note>,
    /// What was decided about the cells of each window, of a dataset whose cells may wait: after a crash it is not decided
    /// again, unless nobody has heard of it ([`Closing::only_decides`]).
    pub decided: Vec<Decided>,
    /// What destinations were told with it, of a dataset that tells only what has changed. Without releases, and with all
    /// that they were told: it is so at this point of the outbox.
    pub told: Option<Tellings>,
    /// Of closings of the dataset before this one that have no entry, what was decided at their positions in the journal. An
    /// entry of their own would tell, by the positions of others, that there was a record of which nothing left.
    pub decided_before: Vec<(Lsn, Vec<Decided>)>,
    /// What it does to longer windows.
    pub longer: Addition,
}

impl Closing {
    /// One that says nothing yet.
    #[must_use]
    pub fn new(dataset: DatasetName, closed_at: Lsn) -> Self {
        Self {
            closed_at,
            dataset,
            releases: Vec::new(),
            notes: Vec::new(),
            decided: Vec::new(),
            told: None,
            decided_before: Vec::new(),
            longer: Addition::default(),
        }
    }

    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let has_none = self.told.is_none() && self.longer.is_empty();
        self.releases.is_empty() && self.notes.is_empty() && self.decided.is_empty() && has_none
    }

    /// Whether nobody hears of it, though something was decided: every cell waits. That a cell leaves and says what it said
    /// before is told by silence.
    #[must_use]
    pub fn only_decides(&self) -> bool {
        let says = !self.releases.is_empty() || !self.notes.is_empty() || self.told.is_some();
        let leaves = |decided: &Decided| !decided.left.is_empty() || !decided.rolled_up.is_empty();
        !says && self.longer.is_empty() && !self.decided.is_empty() && !self.decided.iter().any(leaves)
    }

    /// The closing as an entry's bytes.
    ///
    /// # Errors
    /// When Arrow cannot write the cells, which no valid release causes.
    pub fn encode(&self) -> Result<Vec<u8>, ArrowError> {
        let mut writer = Writer::default();
        writer.u64(self.closed_at).text(&self.dataset).count(self.releases.len());
        for released in &self.releases {
            let cells = released.cells();
            let mut bytes = StreamWriter::try_new(Vec::new(), &cells.schema())?;
            bytes.write(cells)?;
            writer.text(released.id()).text(released.destination()).text(released.dataset()).text(released.gateway());
            writer.i64(released.window_start()).i64(released.window_end()).raw(released.policy().bytes());
            writer.bytes(&bytes.into_inner()?);
        }
        self.encode_notes(&mut writer);
        Ok(writer.finish())
    }

    /// Reads an entry.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (closed_at, dataset) = (reader.u64()?, DatasetName::read(&mut reader)?);
        let mut releases = Vec::new();
        for _ in 0..reader.count(1)? {
            let id = reader.text()?.to_owned();
            let destination = DestinationName::read(&mut reader)?;
            let dataset = DatasetName::read(&mut reader)?;
            let gateway = GatewayId::read(&mut reader)?;
            let (window_start, window_end) = (reader.i64()?, reader.i64()?);
            let policy = Digest::from_bytes(reader.array()?);
            let cells = StreamReader::try_new(reader.bytes()?, None).ok()?.next()?.ok()?;
            let parts = ReleasedParts { id, destination, dataset, gateway, window_start, window_end, policy, cells };
            releases.push(Released::from_outbox(parts));
        }
        let Noted { notes, decided, told, decided_before, longer } = decode_notes(&mut reader)?;
        let closing = Self { closed_at, dataset, releases, notes, decided, told, decided_before, longer };
        reader.is_empty().then_some(closing)
    }

    fn encode_notes(&self, writer: &mut Writer) {
        writer.u8(NOTES_VERSION).count(self.notes.len());
        for note in &self.notes {
            match note {
                Note::Withheld { window_start, at_least } => {
                    writer.u8(WITHHELD).i64(*window_start).u64(*at_least);
                }
                Note::Override { id, destination, window_start } => {
                    writer.u8(OVERRIDE).text(id).text(destination).i64(*window_start);
                }
                Note::Refused { stream, before, told } => {
                    writer.u8(REFUSED).text(stream).option(*before);
                    told.encode(writer);
                }
                Note::Privacy { window_start, outcome, rho } => {
                    let outcome = OUTCOMES.iter().zip(0..).find(|(known, _)| *known == outcome).map_or(0, |(_, at)| at);
                    writer.u8(PRIVACY).i64(*window_start).u8(outcome).u64(rho.billionths());
                }
            }
        }
        encode_decided(&self.decided, writer);
        writer.u8(self.told.is_some().into());
        if let Some(told) = &self.told {
            told.encode(writer);
        }
        writer.count(self.decided_before.len());
        for (closed_at, decided) in &self.decided_before {
            writer.u64(*closed_at);
            encode_decided(decided, writer);
        }
        self.longer.encode(writer);
    }
}

fn encode_decided(decided: &[Decided], writer: &mut Writer) {
    writer.count(decided.len());
    decided.iter().for_each(|decided| decided.encode(writer));
}

fn decode_decided(reader: &mut Reader<'_>, has_rolled_up: bool) -> Option<Vec<Decided>> {
    (0..reader.count(8 + 1 + 8)?).map(|_| Decided::decode(reader, has_rolled_up)).collect()
}

/// What stands in an entry behind its releases.
#[derive(Debug, Default, PartialEq)]
struct Noted {
    notes: Vec<Note>,
    decided: Vec<Decided>,
    told: Option<Tellings>,
    decided_before: Vec<(Lsn, Vec<Decided>)>,
    longer: Addition,
}

/// Reads it. There is nothing where an entry ends with its releases.
fn decode_notes(reader: &mut Reader<'_>) -> Option<Noted> {
    let Noted { mut notes, mut decided, mut told, mut decided_before, mut longer } = Noted::default();
    if reader.is_empty() {
        return Some(Noted::default());
    }
    let version = reader.u8()?;
    if !(1..=NOTES_VERSION).contains(&version) {
        return None;
    }
    for _ in 0..reader.count(1)? {
        notes.push(match reader.u8()? {
            WITHHELD => Note::Withheld { window_start: reader.i64()?, at_least: reader.u64()? },
            OVERRIDE => Note::Override {
                id: reader.text()?.to_owned(),
                destination: DestinationName::read(reader)?,
                window_start: reader.i64()?,
            },
            REFUSED if version > 1 => Note::Refused {
                stream: StreamName::read(reader)?,
                before: reader.option()?,
                told: Told::decode(reader)?,
            },
            PRIVACY if version > 3 => Note::Privacy {
                window_start: reader.i64()?,
                outcome: *OUTCOMES.get(usize::from(reader.u8()?))?,
                rho: Rho::from_billionths(reader.u64()?),
            },
            _ => return None,
        });
    }
    if version > 2 {
        decided = decode_decided(reader, version > 4)?;
    }
    if version >= FIRST_WITH_TOLD {
        told = match reader.u8()? {
            0 => None,
            1 => Some(Tellings::decode(reader)?),
            _ => return None,
        };
    }
    if version >= FIRST_WITH_EARLIER {
        for _ in 0..reader.count(8 + 8)? {
            decided_before.push((reader.u64()?, decode_decided(reader, true)?));
        }
    }
    if version >= FIRST_WITH_LONGER {
        longer = Addition::decode(reader)?;
    }
    Some(Noted { notes, decided, told, decided_before, longer })
}

/// What a release is of, and for whom.
pub struct Addressed {
    /// The dataset.
    pub dataset: DatasetName,
    /// The destination.
    pub destination: DestinationName,
}

/// The dataset and the destination of each release of an entry. The cells are not read.
#[must_use]
pub fn addressed(bytes: &[u8]) -> Option<Vec<Addressed>> {
    let mut reader = Reader::new(bytes);
    let (_, _) = (reader.u64()?, reader.text()?);
    let mut addressed = Vec::new();
    for _ in 0..reader.count(1)? {
        let _ = reader.text()?;
        let destination = DestinationName::read(&mut reader)?;
        let dataset = DatasetName::read(&mut reader)?;
        let _ = reader.text()?;
        let (_, _, _) = (reader.i64()?, reader.i64()?, Digest::from_bytes(reader.array()?));
        let _ = reader.bytes()?;
        addressed.push(Addressed { dataset, destination });
    }
    Some(addressed)
}

/// The destinations of all releases that are held, those that are confirmed included.
///
/// # Errors
/// When an entry cannot be read.
pub fn all_destinations(mut entries: storage::Reader) -> Result<BTreeSet<DestinationName>, Error> {
    let mut all = BTreeSet::new();
    while let Some(entry) = entries.next()? {
        let addressed = addressed(&entry.payload).ok_or(Error::Unreadable(entry.lsn))?;
        all.extend(addressed.into_iter().map(|release| release.destination));
    }
    Ok(all)
}

/// How many releases wait for a destination, by dataset. `has` says whether it has confirmed a dataset's at a position.
///
/// # Errors
/// When an entry cannot be read.
pub fn waiting(
    mut entries: storage::Reader,
    destination: &DestinationName,
    has: &dyn Fn(&DatasetName, Lsn) -> bool,
) -> Result<BTreeMap<DatasetName, usize>, Error> {
    let mut waiting = BTreeMap::new();
    while let Some(entry) = entries.next()? {
        let addressed = addressed(&entry.payload).ok_or(Error::Unreadable(entry.lsn))?;
        for release in addressed.into_iter().filter(|release| release.destination == *destination) {
            if !has(&release.dataset, entry.lsn) {
                *waiting.entry(release.dataset).or_default() += 1;
            }
        }
    }
    Ok(waiting)
}

/// The last closing of a dataset that the outbox has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LastClosing {
    /// Where the journal says that the windows were closed.
    pub closed_at: Lsn,
    /// Where the outbox has it.
    pub at: Lsn,
}

/// What the outbox held when it was opened.
#[derive(Debug, Default)]
pub struct Held {
    /// The last closing of each dataset that is in it.
    pub closed: BTreeMap<DatasetName, LastClosing>,
    /// How many releases wait for each destination, those that it has confirmed included.
    pub releases: BTreeMap<DestinationName, usize>,
    /// What was decided about cells that may wait, by the closing's position in the journal.
    pub decided: BTreeMap<Lsn, Vec<Decided>>,
    /// The last closing of each dataset of which nothing is held but that it was: the outbox had begun anew. What was decided
    /// about cells before it is not known.
    pub begun_anew: BTreeMap<DatasetName, Lsn>,
    /// The datasets that it was decided about.
    pub waited: BTreeSet<DatasetName>,
    /// Where the last window ends of which something left while no cell of the dataset waited, after the same position.
    pub left_alone: BTreeMap<DatasetName, i64>,
    /// What was told of each dataset that tells only what has changed.
    pub tables: BTreeMap<DatasetName, Tables>,
    /// What closings of each dataset did to longer windows, in order, after the same position.
    pub longer: BTreeMap<DatasetName, Vec<Addition>>,
    /// What some did is not known, and neither is which windows ended: entries are missing after that position.
    pub lacks_additions: bool,
}

impl Held {
    /// The journal closed windows of datasets under other names, and so the outbox has them under those.
    pub fn renamed(&mut self, closed_as: &BTreeMap<DatasetName, BTreeSet<DatasetName>>) {
        for (dataset, names) in closed_as {
            let last = names.iter().filter_map(|name| self.closed.get(name)).max().copied();
            if let Some(last) = last {
                let closed = self.closed.entry(dataset.clone()).or_insert(last);
                *closed = last.max(*closed);
            }
        }
    }
}

/// Looks through the outbox. What was decided, and what was added up, is wanted of the closings after a position of the journal;
/// what destinations were told, of the datasets of these tables.
///
/// # Errors
/// When an entry cannot be read.
pub fn held(log: &Log, after: Lsn, tables: BTreeMap<DatasetName, Tables>) -> Result<Held, Error> {
    let mut held = Held { tables, ..Held::default() };
    let (mut reader, mut last) = (log.reader(0), None);
    while let Some(entry) = reader.next()? {
        let closing = Closing::decode(&entry.payload).ok_or(Error::Unreadable(entry.lsn))?;
        if last.replace(entry.lsn).is_some_and(|last| entry.lsn > last + 1) {
            // Nobody knows what the entries told that are missing, and what they added up.
            held.tables.values_mut().for_each(Tables::forget);
            if closing.closed_at > after {
                held.longer.clear();
                held.lacks_additions = true;
            }
        }
        // Entries are named as the first of the datasets that shared their cells then. Such a dataset told all.
        for released in closing.releases.iter().filter(|released| *released.dataset() != closing.dataset) {
            if let Some(tables) = held.tables.get_mut(released.dataset()) {
                tables.heard(None, std::iter::once(released.destination()));
            }
        }
        if let Some(tables) = held.tables.get_mut(&closing.dataset) {
            tables.heard(closing.told.as_ref(), closing.releases.iter().map(Released::destination));
        }
        held.closed.insert(closing.dataset.clone(), LastClosing { closed_at: closing.closed_at, at: entry.lsn });
        if closing.is_empty() {
            held.begun_anew.insert(closing.dataset.clone(), closing.closed_at);
        }
        if closing.closed_at > after {
            if !closing.longer.is_empty() {
                held.longer.entry(closing.dataset.clone()).or_default().push(closing.longer);
            }
            let alone = |released: &&Released| released.cells().schema().column_with_name(WINDOWS).is_none();
            for released in closing.releases.iter().filter(alone) {
                let ends = held.left_alone.entry(released.dataset().clone()).or_insert(i64::MIN);
                *ends = released.window_end().max(*ends);
            }
            let decided = closing.decided_before.into_iter().chain([(closing.closed_at, closing.decided)]);
            for (closed_at, decided) in decided.filter(|(at, decided)| *at > after && !decided.is_empty()) {
                held.waited.insert(closing.dataset.clone());
                held.decided.insert(closed_at, decided);
            }
        }
        for released in &closing.releases {
            *held.releases.entry(released.destination().clone()).or_default() += 1;
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests;
