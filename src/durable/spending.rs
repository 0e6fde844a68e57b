//! What is spent of the budgets of differential privacy, on disk: a log of its own, `privacy/`.
//!
//! A charge is on disk before noise is drawn for it: only [`Book::charge`] makes the [`Charged`] that a release with noise
//! takes. A window is charged once. If the gateway crashes between the charge and the outbox, what the charge was for is not
//! released: to draw noise again would tell twice what was paid for once.
//!
//! Entries may be read in any order and more than once: see [`Spending`]. So the log is made smaller by writing all that is
//! known once more and releasing what stands before.
//!
//! ```text
//! entry    version 1 (1 byte), kind (1 byte)
//! kind 1   a charge: stream, contributor, dataset (each a length as varint, and text), when the window began (8 bytes), its
//!          part (8 bytes), rho in billionths (8 bytes)
//! kind 2   the day since 1970 (4 bytes) through which nothing is left, because what was spent is not known
//! kind 3   the log begins
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::domain::binary::{Reader, Writer};
use crate::domain::name::{DatasetName, StreamName};
use crate::domain::privacy::{Answer, Charge, Charged, Day, Rho, Spending, WindowKey};
use crate::planted::planted;
use crate::storage::{self, FileSystem, Log, Lsn, NoRoom, Settings, State};

/// The directory of the log, in that of the journal.
pub const DIRECTORY: &str = "privacy";

/// The version of the entries.
pub const VERSION: u8 = 1;
const CHARGE: u8 = 1;
const UNKNOWN: u8 = 2;
const BEGIN: u8 = 3;

/// Space on disk of a segment, in bytes.
const SEGMENT_BYTES: u64 = 1 << 20;
/// Space on disk of all segments, in bytes.
const QUOTA_BYTES: u64 = 256 << 20;
/// Bytes that are written before everything is written anew.
const TIDY_BYTES: u64 = 4 << 20;
/// What a charge takes, roughly.
const CHARGE_BYTES: u64 = 64;
/// How long the log is given before it is asked for room again.
const PAUSE: Duration = Duration::from_millis(100);

/// Why what was spent cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log cannot be opened, or made smaller.
    #[error("cannot open the log of the budgets of privacy")]
    Log(#[from] storage::Error),
    /// The log cannot be read.
    #[error("cannot read the log of the budgets of privacy")]
    Read(#[from] storage::ReadError),
    /// An entry is not one that this version writes.
    #[error("entry {0} of the log of the budgets of privacy is of no known kind; was it written by a newer version?")]
    Unreadable(Lsn),
    /// Nothing can be written.
    #[error("the log of the budgets of privacy ended")]
    Ended,
    /// Nothing can be written now.
    #[error("the log of the budgets of privacy cannot be written: {0}")]
    Unwritable(String),
}

/// What came of a charge.
#[derive(Debug)]
pub enum Outcome {
    /// It is on disk: noise may be drawn.
    Charged(Charged),
    /// There is not enough left.
    Spent,
    /// The window was charged before.
    Before,
}

/// What a log that is not there means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// The gateway begins: nothing was spent.
    New,
    /// The gateway has run before, so something may have been spent, and it is not known what.
    Unknown,
}

/// The budgets and their log.
pub struct Book {
    log: Arc<Log>,
    spending: Spending,
    /// The last position that was given out.
    last: Lsn,
    /// Bytes that were written since everything was, with those of everything.
    bytes: u64,
    /// Places of the log that are damaged.
    damaged: usize,
    /// Whether it is not known what was spent through today.
    is_unknown: bool,
    /// Whether what is known must be written before anything is charged: its beginning may not be on disk.
    is_to_tidy: bool,
}

impl Book {
    /// Opens the log in a directory, or begins it. What is damaged, or missing although the gateway ran before, is taken as
    /// spent, through `today` at least.
    ///
    /// # Errors
    /// When it cannot be opened, read or written.
    pub fn open(fs: Arc<dyn FileSystem>, directory: PathBuf, beginning: Beginning, today: Day) -> Result<Self, Error> {
        let (segment_bytes, quota_bytes) = (SEGMENT_BYTES, QUOTA_BYTES);
        let settings = Settings { directory, segment_bytes, quota_bytes, context: Vec::new(), at_least: 0 };
        let (log, recovery) = Log::open(fs, settings)?;
        let Held { mut spending, bytes, begins } = read(&mut log.reader(0))?;
        // Not only what opening found: reading passes over what is damaged, too. What begins a log is its oldest entry.
        let is_new = recovery.last == 0 && beginning == Beginning::New;
        let damaged = log.damage().len();
        let is_unknown = damaged > 0 || !begins && !is_new;
        if is_unknown {
            spending.forget(spending.last_day().map_or(today, |last| last.max(today)));
        }
        let log = Arc::new(log);
        let mut book = Self { log, spending, last: recovery.last, bytes, damaged, is_unknown, is_to_tidy: true };
        match book.tidy() {
            // The disk is full, as a rule. A start must not wait for it: what frees it comes later.
            Err(Error::Unwritable(error)) => {
                tracing::error!(
                    error,
                    "no window with differential privacy leaves until its budget can be written: check the disk"
                );
            }
            tidied => tidied?,
        }
        Ok(book)
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// How many places of the log were damaged when it was opened.
    #[must_use]
    pub fn damaged(&self) -> usize {
        self.damaged
    }

    /// Whether it was not known, when it was opened, what was spent through today.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.is_unknown
    }

    /// What is spent.
    #[must_use]
    pub fn spending(&self) -> &Spending {
        &self.spending
    }

    /// Charges for a window, when a day has so much. What is charged is on disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written, now or for ever. Nothing may be drawn then, and the window is charged all the same.
    pub fn charge(&mut self, charge: Charge, per_day: Rho) -> Result<Outcome, Error> {
        match self.spending.ask(&charge, per_day) {
            Answer::Spent => return Ok(Outcome::Spent),
            Answer::Before if planted("noise-anew") => {
                return Ok(Outcome::Charged(Charged::charge_is_on_disk(&charge)));
            }
            Answer::Before => return Ok(Outcome::Before),
            Answer::Affordable => {}
        }
        let charged = Charged::charge_is_on_disk(&charge);
        let entry = encode_charge(&charge);
        // In memory it is spent from now on, whatever becomes of the entry.
        self.spending.charge(charge);
        if planted("charge-after") {
            // It is written when all is written anew.
            return Ok(Outcome::Charged(charged));
        }
        if self.is_to_tidy {
            // This charge is among what is known.
            self.tidy()?;
            return Ok(Outcome::Charged(charged));
        }
        self.write(entry, Log::reserve)?;
        self.wait()?;
        if self.bytes > TIDY_BYTES.max(2 * self.spending.charges().count() as u64 * CHARGE_BYTES)
            && let Err(error) = self.tidy()
        {
            // The charge is on disk. What is known is there as well, among what stands before.
            tracing::warn!(%error, "the log of the budgets of privacy could not be made smaller: check the disk");
            self.is_to_tidy = false;
        }
        Ok(Outcome::Charged(charged))
    }

    /// Waits until everything is on disk, or cannot be.
    fn wait(&self) -> Result<(), Error> {
        while self.log.wait_beyond(self.last.saturating_sub(1), PAUSE) < self.last {
            match self.log.state() {
                State::Healthy | State::Full => {}
                State::Failing { message } => return Err(Error::Unwritable(message)),
                State::Closed | State::Broken => return Err(Error::Ended),
            }
        }
        Ok(())
    }

    /// Writes an entry, if there is room.
    fn write(&mut self, entry: Vec<u8>, reserve: fn(&Log, u64) -> Result<storage::Room, NoRoom>) -> Result<(), Error> {
        let room = loop {
            match reserve(&self.log, entry.len() as u64) {
                Ok(room) => break room,
                Err(NoRoom::Closed) => return Err(Error::Ended),
                // The disk is behind: that ends.
                Err(NoRoom::Behind) => thread::sleep(PAUSE),
                // Whoever waited here would hold up all windows, and what frees the disk.
                Err(error) => return Err(Error::Unwritable(error.to_string())),
            }
        };
        self.bytes += entry.len() as u64;
        self.last += 1;
        self.log.submit(self.last, entry, room, None);
        Ok(())
    }

    /// Writes all that is known once more, and lets go of what stands before.
    fn tidy(&mut self) -> Result<(), Error> {
        let before = self.last;
        let unknown = self.spending.unknown_through().map(encode_unknown);
        let charges: Vec<Vec<u8>> = self.spending.charges().map(|charge| encode_charge(&charge)).collect();
        (self.bytes, self.is_to_tidy) = (0, true);
        for entry in [vec![VERSION, BEGIN]].into_iter().chain(unknown).chain(charges) {
            self.write(entry, Log::reserve_control)?;
        }
        self.wait()?;
        self.is_to_tidy = false;
        Ok(self.log.let_go(before)?)
    }
}

/// What the log in a journal's directory holds, and whether its beginning is missing of charges that are there. Reads only,
/// also beside a gateway that runs.
///
/// # Errors
/// When it cannot be read.
pub fn look(fs: Arc<dyn FileSystem>, journal: &Path) -> Result<(Spending, bool), Error> {
    let Held { spending, bytes, begins } = read(&mut storage::entries(fs, &journal.join(DIRECTORY))?)?;
    Ok((spending, bytes > 0 && !begins))
}

/// What the entries hold.
struct Held {
    spending: Spending,
    /// The bytes of all entries.
    bytes: u64,
    /// Whether one of them begins the log.
    begins: bool,
}

fn read(reader: &mut storage::Reader) -> Result<Held, Error> {
    let mut held = Held { spending: Spending::default(), bytes: 0, begins: false };
    while let Some(entry) = reader.next()? {
        held.bytes += entry.payload.len() as u64;
        match decode(&entry.payload).ok_or(Error::Unreadable(entry.lsn))? {
            Decoded::Charge(charge) => held.spending.charge(charge),
            Decoded::Unknown(day) => held.spending.forget(day),
            Decoded::Begin => held.begins = true,
        }
    }
    Ok(held)
}

enum Decoded {
    Charge(Charge),
    Unknown(Day),
    Begin,
}

fn encode_charge(charge: &Charge) -> Vec<u8> {
    let Charge { stream, contributor, window: WindowKey { dataset, start, part }, rho } = charge;
    let mut writer = Writer::default();
    writer.u8(VERSION).u8(CHARGE).short_text(stream).short_text(contributor).short_text(dataset);
    writer.i64(*start).u64(*part).u64(rho.billionths());
    writer.finish()
}

fn encode_unknown(through: Day) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.u8(VERSION).u8(UNKNOWN).raw(&through.to_le_bytes());
    writer.finish()
}

fn decode(entry: &[u8]) -> Option<Decoded> {
    let mut reader = Reader::new(entry);
    if reader.u8()? != VERSION {
        return None;
    }
    let decoded = match reader.u8()? {
        CHARGE => {
            let (stream, contributor) = (StreamName::read_short(&mut reader)?, reader.short_text()?.to_owned());
            let dataset = DatasetName::read_short(&mut reader)?;
            let window = WindowKey { dataset, start: reader.i64()?, part: reader.u64()? };
            Decoded::Charge(Charge { stream, contributor, window, rho: Rho::from_billionths(reader.u64()?) })
        }
        UNKNOWN => Decoded::Unknown(Day::from_le_bytes(reader.array()?)),
        BEGIN => Decoded::Begin,
        _ => return None,
    };
    reader.is_empty().then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::privacy::tests_of_spending::charge;
    use crate::storage::sim::Sim;

    const TODAY: Day = 20_783;
    const DAY: i64 = 86_400_000_000;

    fn open(sim: &Sim, beginning: Beginning) -> Book {
        Book::open(Arc::new(sim.clone()), "/privacy".into(), beginning, TODAY).unwrap()
    }

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// Entries of version 1 are written like this, and every later version reads them.
    #[test]
    fn entries_are_those_of_the_golden_file() {
        let golden = include_str!("../../tests/golden/spending-1.hex");
        let entries =
            [vec![VERSION, BEGIN], encode_unknown(20_757), encode_charge(&charge("visits_by_home", -DAY, 10_000_000))];
        let written: Vec<String> =
            entries.iter().map(|entry| entry.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
        assert_eq!(written, golden.lines().collect::<Vec<_>>());
        let read: Vec<Decoded> = golden.lines().filter_map(|line| decode(&unhex(line))).collect();
        let [Decoded::Begin, Decoded::Unknown(20_757), Decoded::Charge(read)] = &read[..] else { panic!("three") };
        assert_eq!(*read, charge("visits_by_home", -DAY, 10_000_000));
        for entry in entries {
            for cut in 0..entry.len() {
                assert!(decode(&entry[..cut]).is_none());
            }
            assert!(decode(&[entry.clone(), vec![0]].concat()).is_none());
            assert!(decode(&[vec![VERSION + 1], entry[1..].to_vec()].concat()).is_none());
        }
        let charge = encode_charge(read);
        let no_name: Vec<u8> = charge.iter().map(|byte| if *byte == b'_' { b'/' } else { *byte }).collect();
        assert!(decode(&no_name).is_none());
    }

    #[test]
    fn what_is_charged_is_charged_after_a_power_loss_and_no_window_twice() {
        let (sim, per_day) = (Sim::default(), Rho::from_billionths(10));
        let today = i64::from(TODAY) * DAY;
        let mut book = open(&sim, Beginning::New);
        let Outcome::Charged(charged) = book.charge(charge("one", today, 6), per_day).unwrap() else {
            panic!("charged")
        };
        assert_eq!(charged.rho().billionths(), 6);
        drop(book);
        sim.power_loss(|| false);
        // Its first entry is there, so nothing is missing.
        let mut book = open(&sim, Beginning::Unknown);
        assert!(matches!(book.charge(charge("one", today, 6), per_day).unwrap(), Outcome::Before));
        assert!(matches!(book.charge(charge("one", today + 1, 6), per_day).unwrap(), Outcome::Spent));
        assert!(matches!(book.charge(charge("one", today + 1, 4), per_day).unwrap(), Outcome::Charged(_)));
    }

    #[test]
    fn what_is_missing_or_damaged_is_spent() {
        let per_day = Rho::from_billionths(10);
        let today = i64::from(TODAY) * DAY;
        let asked = |book: &mut Book| {
            [today, today + DAY]
                .map(|start| matches!(book.charge(charge("one", start, 1), per_day).unwrap(), Outcome::Charged(_)))
        };
        assert_eq!(asked(&mut open(&Sim::default(), Beginning::New)), [true, true]);
        // The journal has records, and the directory of the budgets was moved away.
        let sim = Sim::default();
        assert_eq!(asked(&mut open(&sim, Beginning::Unknown)), [false, true]);
        sim.kill();
        assert_eq!(asked(&mut open(&sim, Beginning::Unknown)), [false, false], "the second window was charged before");
        // An entry in the middle is damaged.
        let sim = Sim::default();
        let mut book = open(&sim, Beginning::New);
        for hour in 0..3 {
            let charged = book.charge(charge("damaged", today + hour, 1), per_day).unwrap();
            assert!(matches!(charged, Outcome::Charged(_)));
        }
        drop(book);
        let mut files = sim.files(Path::new("/privacy")).into_iter();
        let file = files.find(|file| file.extension().is_some_and(|name| name == "segment")).unwrap();
        let bytes = sim.bytes(&file).unwrap();
        let name = bytes.windows(7).position(|bytes| bytes == b"damaged").unwrap();
        sim.flip(&file, name, 0);
        let mut book = open(&sim, Beginning::New);
        assert!(book.damaged() > 0);
        assert_eq!(asked(&mut book), [false, true]);
    }

    #[test]
    fn the_log_is_made_smaller_and_forgets_nothing() {
        let sim = Sim::default();
        let mut book = open(&sim, Beginning::New);
        let per_day = Rho::from_billionths(u64::MAX);
        // Long names, so that a few charges fill a segment.
        let name = "n".repeat(40_000);
        for second in 0..12 {
            let charge = Charge { contributor: name.clone(), ..charge("one", second, 1) };
            let charged = book.charge(charge, per_day).unwrap();
            assert!(matches!(charged, Outcome::Charged(_)));
            book.tidy().unwrap();
        }
        let known = book.spending().clone();
        assert_eq!(known.charges().count(), 12);
        let oldest = book.log().usage().oldest;
        assert!(oldest > 1, "{oldest}");
        drop(book);
        sim.power_loss(|| false);
        assert_eq!(*open(&sim, Beginning::Unknown).spending(), known);
    }
}
