//! How many bytes may leave for a destination: a bucket that fills evenly. Releases, or files of them, are paid from
//! it. It is on disk before anything leaves, so a crash can lose bytes of the budget and never gives any back. If a
//! crash makes the gateway write the same file again, that file is not paid for again.
//!
//! ```text
//! magic    "bwbudget"
//! version  u32
//! left     u64: bytes that were left
//! at       i64: when, in microseconds since the Unix epoch
//! paid     u64: the last position of the outbox that was paid for; the greatest number after a start without a budget
//! shed     u64: the last position that is not to be sent
//! of       text: the dataset whose file that is; empty where releases leave one by one
//! file     u8: whether a file was paid for; then of the last one: its last position (u64), its dataset (text), and a hash
//!          of it (16 bytes)
//! ```
//!
//! Version 1 ends before `of`. Files of several datasets may end at one position: the dataset says which one is meant.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::binary::{Reader, Writer};
use crate::domain::table::Fingerprint;
use crate::storage::{self, FileSystem, Lsn, Slots, Stored};

const MAGIC: [u8; 8] = *b"bwbudget";
/// The version that this program writes.
const VERSION: u32 = 2;
/// No position: nothing was shed.
const NONE: (Lsn, String) = (0, String::new());

/// What may leave for a destination, and what becomes of a release that it does not suffice for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The most bytes that the bucket holds. It is full at first.
    pub bytes: u64,
    /// In this time as many bytes come into it.
    pub per: Duration,
    /// After so long a release that waits for bytes is shed. `None`: it waits for as long as it takes.
    pub sheds_after: Option<Duration>,
    /// The datasets that come first, the most important one at the beginning. All others come after them.
    pub first: Vec<String>,
}

impl Settings {
    /// How important a dataset is: 0 is the most.
    #[must_use]
    pub fn rank(&self, dataset: &str) -> usize {
        self.first.iter().position(|first| first == dataset).unwrap_or(self.first.len())
    }
}

/// Why a budget cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] storage::Error),
    /// A later version of the program wrote it.
    #[error(
        "the budget of destination `{destination}` has version {version}; this program reads versions up to {VERSION}. \
         Run the program that wrote it"
    )]
    Newer {
        /// The destination.
        destination: String,
        /// The version.
        version: u32,
    },
}

/// A moment, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// A monotonic time.
    pub now: Duration,
    /// The wall clock, in microseconds since the Unix epoch.
    pub wall: i64,
}

/// An entry of the outbox that is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'a> {
    /// Its position; of a file that of its last release.
    pub lsn: Lsn,
    /// The dataset whose file it is; empty where releases leave one by one.
    pub of: &'a str,
    /// The bytes that it takes.
    pub bytes: u64,
    /// The bytes that more important ones take that wait behind it, by estimate.
    pub ahead: u64,
    /// How long it has waited.
    pub waited: Duration,
}

/// What becomes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is paid for, then sent.
    Send,
    /// There are too few bytes now.
    Wait,
    /// It is not sent at all.
    Shed,
    /// It takes more bytes than there can ever be.
    TooLarge,
}

/// How full a bucket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// What was left at a monotonic time.
    left: u64,
    since: Duration,
    bytes: u64,
    per: Duration,
}

impl Level {
    /// The bytes that are left at a monotonic time.
    #[must_use]
    pub fn left(&self, now: Duration) -> u64 {
        self.left_after(now.saturating_sub(self.since))
    }

    /// What was left, and what came since; never more than the bucket holds.
    fn left_after(&self, elapsed: Duration) -> u64 {
        let came = u128::from(self.bytes) * elapsed.as_micros() / self.per.as_micros().max(1);
        self.left.saturating_add(u64::try_from(came).unwrap_or(u64::MAX)).min(self.bytes)
    }
}

/// The budget of one destination.
pub struct Budget {
    settings: Settings,
    slots: Slots,
    level: Level,
    paid: Lsn,
    shed: (Lsn, String),
    file: Option<(Lsn, String, Fingerprint)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    left: u64,
    at: i64,
    paid: Lsn,
    shed: (Lsn, String),
    file: Option<(Lsn, String, Fingerprint)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Decoded {
    Kept(Kept),
    Newer(u32),
    Unreadable,
}

impl Kept {
    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.raw(&MAGIC).u32(VERSION).u64(self.left).i64(self.at).u64(self.paid).u64(self.shed.0);
        writer.text(&self.shed.1).u8(self.file.is_some().into());
        if let Some((lsn, of, file)) = &self.file {
            writer.u64(*lsn).text(of).raw(file.bytes());
        }
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Decoded {
        let mut reader = Reader::new(bytes.strip_prefix(&MAGIC).unwrap_or_default());
        match reader.u32() {
            Some(version @ 1..=VERSION) => Self::fields(version, reader).map_or(Decoded::Unreadable, Decoded::Kept),
            Some(version) if version > VERSION => Decoded::Newer(version),
            Some(_) | None => Decoded::Unreadable,
        }
    }

    fn fields(version: u32, mut reader: Reader<'_>) -> Option<Self> {
        let (left, at, paid, shed) = (reader.u64()?, reader.i64()?, reader.u64()?, reader.u64()?);
        let (of, file) = match version {
            1 => (String::new(), None),
            _ => (
                reader.text()?.to_owned(),
                match reader.u8()? {
                    0 => None,
                    1 => Some((reader.u64()?, reader.text()?.to_owned(), Fingerprint::from_bytes(reader.array()?))),
                    _ => return None,
                },
            ),
        };
        reader.is_empty().then_some(Self { left, at, paid, shed: (shed, of), file })
    }
}

impl Budget {
    /// Opens the budget of a destination, below a directory. `last` is the end of the outbox: what it holds by now may have
    /// been sent before there was a budget, and is not shed.
    ///
    /// # Errors
    /// When it cannot be read, or a later version of the program wrote it.
    pub fn open(
        fs: &Arc<dyn FileSystem>,
        directory: &Path,
        destination: &str,
        settings: Settings,
        last: Lsn,
        at: Moment,
    ) -> Result<Self, Error> {
        storage::create_directories(&**fs, directory)?;
        let (slots, stored) = Slots::open(Arc::clone(fs), &directory.join(destination))?;
        let decoded = match stored {
            Stored::Missing => {
                Decoded::Kept(Kept { left: settings.bytes, at: at.wall, paid: last, shed: NONE, file: None })
            }
            Stored::Value(bytes) => Kept::decode(&bytes),
            Stored::Damaged => Decoded::Unreadable,
        };
        let kept = match decoded {
            Decoded::Kept(kept) => kept,
            Decoded::Newer(version) => return Err(Error::Newer { destination: destination.to_owned(), version }),
            Decoded::Unreadable => {
                tracing::error!(destination, "the budget is damaged and begins empty. Check the disk");
                Kept { left: 0, at: at.wall, paid: last, shed: NONE, file: None }
            }
        };
        // A clock that was set back fills nothing; one that was set forward fills it once.
        let elapsed = Duration::from_micros(u64::try_from(at.wall.saturating_sub(kept.at)).unwrap_or(0));
        let level = Level { left: kept.left, since: at.now, bytes: settings.bytes, per: settings.per };
        let level = Level { left: level.left_after(elapsed), ..level };
        // Positions beyond the end are those of another outbox.
        let (paid, shed) = (kept.paid.min(last), if kept.shed.0 > last { NONE } else { kept.shed });
        let file = kept.file.filter(|(lsn, ..)| *lsn <= last);
        Ok(Self { settings, slots, level, paid, shed, file })
    }

    /// The gateway starts without a budget for a destination. What it sends now is not paid for. A budget that comes
    /// back does not shed it, and has what was left. Nothing is written if there was no budget, or if the disk says so
    /// already.
    ///
    /// # Errors
    /// When it cannot be read or written, or a later version of the program wrote it.
    pub fn suspend(fs: &Arc<dyn FileSystem>, directory: &Path, destination: &str) -> Result<(), Error> {
        let path = directory.join(destination);
        let Stored::Value(bytes) = Slots::peek(&**fs, &path)? else { return Ok(()) };
        match Kept::decode(&bytes) {
            Decoded::Newer(version) => Err(Error::Newer { destination: destination.to_owned(), version }),
            // It begins empty, with all paid for.
            Decoded::Unreadable => Ok(()),
            Decoded::Kept(Kept { paid: Lsn::MAX, shed: (0, _), .. }) => Ok(()),
            Decoded::Kept(kept) => {
                let (mut slots, _) = Slots::open(Arc::clone(fs), &path)?;
                Ok(slots.write(&Kept { paid: Lsn::MAX, shed: NONE, ..kept }.encode())?)
            }
        }
    }

    /// The bytes that the budget of a destination had left when it was written last, and when that was, in microseconds since
    /// the Unix epoch. `None`: it is damaged. Reads only, also beside a gateway that runs.
    ///
    /// # Errors
    /// When it cannot be read, or a later version of the program wrote it.
    pub fn peek(fs: &dyn FileSystem, directory: &Path, destination: &str) -> Result<Option<(u64, i64)>, Error> {
        let Stored::Value(bytes) = Slots::peek(fs, &directory.join(destination))? else { return Ok(None) };
        match Kept::decode(&bytes) {
            Decoded::Kept(Kept { left, at, .. }) => Ok(Some((left, at))),
            Decoded::Newer(version) => Err(Error::Newer { destination: destination.to_owned(), version }),
            Decoded::Unreadable => Ok(None),
        }
    }

    /// What it is.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How full it is, now and later, as long as nothing is paid.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// What becomes of an entry now. What was paid for before may have left, and is not shed any more.
    #[must_use]
    pub fn decide(&self, asked: Asked<'_>, now: Duration) -> Decision {
        let is_asked = |lsn: Lsn, of: &str| (lsn, of) == (asked.lsn, asked.of);
        if is_asked(self.shed.0, &self.shed.1) {
            return Decision::Shed;
        }
        let is_paid = asked.lsn <= self.paid || self.file.as_ref().is_some_and(|(lsn, of, _)| is_asked(*lsn, of));
        let sheds_after = self.settings.sheds_after.filter(|_| !is_paid);
        // Who waits for as long as it takes takes nothing from others: they come after it.
        let ahead = if sheds_after.is_some() { asked.ahead } else { 0 };
        let is_ever = asked.bytes <= self.settings.bytes;
        if asked.bytes == 0 || asked.bytes.saturating_add(ahead) <= self.level.left(now) {
            return Decision::Send;
        }
        match sheds_after {
            Some(after) if asked.waited >= after || !is_ever => Decision::Shed,
            _ if !is_ever => Decision::TooLarge,
            _ => Decision::Wait,
        }
    }

    /// Pays for an entry. When it returns, that is on disk, and the entry may be sent.
    ///
    /// # Errors
    /// When the file system refuses. Then nothing may be sent.
    pub fn pay(&mut self, lsn: Lsn, bytes: u64, at: Moment) -> Result<(), storage::Error> {
        let left = self.level.left(at.now).saturating_sub(bytes);
        self.keep(Kept { paid: self.paid.max(lsn), ..self.kept(left, at) }, at)
    }

    /// Whether this file was the last one that was paid for.
    #[must_use]
    pub fn has_paid_for(&self, file: Fingerprint) -> bool {
        self.file.as_ref().is_some_and(|(.., paid)| *paid == file)
    }

    /// Pays for a file of a dataset, whose last release stands in the outbox at `lsn`. When it returns, that is on disk, and
    /// the file may be written, as often as it takes: until another one is paid for, it is not paid for again.
    ///
    /// # Errors
    /// When the file system refuses. Then nothing may be written.
    pub fn pay_for(
        &mut self,
        (lsn, of): (Lsn, &str),
        file: Fingerprint,
        bytes: u64,
        at: Moment,
    ) -> Result<(), storage::Error> {
        let left = self.level.left(at.now).saturating_sub(bytes);
        self.keep(Kept { file: Some((lsn, of.to_owned(), file)), ..self.kept(left, at) }, at)
    }

    /// Decides for good that an entry, or a file of a dataset, is not sent ([`Asked`]). When it returns, that is on disk.
    ///
    /// # Errors
    /// When the file system refuses. It is to be asked for again.
    pub fn shed(&mut self, (lsn, of): (Lsn, &str), at: Moment) -> Result<(), storage::Error> {
        let left = self.level.left(at.now);
        self.keep(Kept { shed: (lsn, of.to_owned()), ..self.kept(left, at) }, at)
    }

    /// What is kept when so much is left and nothing else changes.
    fn kept(&self, left: u64, at: Moment) -> Kept {
        Kept { left, at: at.wall, paid: self.paid, shed: self.shed.clone(), file: self.file.clone() }
    }

    fn keep(&mut self, kept: Kept, at: Moment) -> Result<(), storage::Error> {
        self.slots.write(&kept.encode())?;
        self.level = Level { left: kept.left, since: at.now, ..self.level };
        (self.paid, self.shed, self.file) = (kept.paid, kept.shed, kept.file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::storage::RealFileSystem;

    const SECOND: Duration = Duration::from_secs(1);

    fn settings(sheds_after: Option<Duration>) -> Settings {
        Settings { bytes: 1_000, per: SECOND * 100, sheds_after, first: vec!["alarms".to_owned()] }
    }

    /// A moment so many seconds after the start, of both clocks.
    fn at(seconds: u32) -> Moment {
        Moment { now: SECOND * seconds, wall: i64::from(seconds) * 1_000_000 }
    }

    fn open(directory: &TempDir, settings: Settings, last: Lsn, at: Moment) -> Budget {
        let fs: Arc<dyn FileSystem> = Arc::new(RealFileSystem);
        Budget::open(&fs, directory.path(), "hub", settings, last, at).unwrap()
    }

    fn asked(lsn: Lsn, bytes: u64) -> Asked<'static> {
        Asked { lsn, of: "", bytes, ahead: 0, waited: Duration::ZERO }
    }

    #[test]
    fn it_is_full_at_first_and_fills_evenly_and_never_beyond() {
        let directory = TempDir::new().unwrap();
        let mut budget = open(&directory, settings(None), 0, at(0));
        assert_eq!(budget.decide(asked(1, 1_000), at(0).now), Decision::Send);
        budget.pay(1, 700, at(0)).unwrap();
        assert_eq!(
            (budget.level().left(at(0).now), budget.level().left(at(10).now), budget.level().left(at(999).now)),
            (300, 400, 1_000)
        );
        assert_eq!(budget.decide(asked(2, 400), at(9).now), Decision::Wait);
        assert_eq!(budget.decide(asked(2, 400), at(10).now), Decision::Send);
        assert_eq!(budget.decide(asked(2, 1_001), at(999).now), Decision::TooLarge);
        assert_eq!(budget.decide(asked(2, 0), at(0).now), Decision::Send);
    }

    #[test]
    fn what_was_paid_before_a_crash_stays_paid() {
        let directory = TempDir::new().unwrap();
        let mut spent = 0;
        // It dies after each payment, be it sent or not, and comes back after 5 s by the wall clock.
        for life in 0..200 {
            let start = Moment { now: Duration::ZERO, wall: i64::from(life) * 5_000_000 };
            let mut budget = open(&directory, settings(None), 1_000, start);
            while budget.decide(asked(1_001, 90), start.now) == Decision::Send {
                budget.pay(1_001, 90, start).unwrap();
                spent += 90;
            }
        }
        let allowed = 1_000 + 1_000 * 199 * 5 / 100;
        assert!(spent <= allowed && spent + 90 > allowed, "{spent} of {allowed}");
    }

    #[test]
    fn a_file_that_is_written_again_after_crashes_is_paid_for_once_and_another_one_is_paid_for() {
        let directory = TempDir::new().unwrap();
        let (file, other) = (Fingerprint::of(b"file"), Fingerprint::of(b"other"));
        for last in [0, 7, 7] {
            let mut budget = open(&directory, settings(None), last, at(0));
            if !budget.has_paid_for(file) {
                budget.pay_for((7, ""), file, 300, at(0)).unwrap();
            }
            assert_eq!(budget.level().left(at(0).now), 700);
        }
        let mut budget = open(&directory, settings(None), 7, at(0));
        assert!(!budget.has_paid_for(other));
        budget.pay_for((5, ""), other, 300, at(0)).unwrap();
        let budget = open(&directory, settings(Some(Duration::ZERO)), 7, at(0));
        assert_eq!((budget.has_paid_for(file), budget.level().left(at(0).now)), (false, 400));
        // It may have left, and is not shed. Others may be, whether they stand before it or after it.
        assert_eq!(
            [4, 5, 6].map(|lsn| budget.decide(asked(lsn, 500), at(0).now)),
            [Decision::Shed, Decision::Wait, Decision::Shed]
        );
    }

    #[test]
    fn files_of_datasets_that_end_at_one_position_are_decided_on_each_for_itself() {
        let directory = TempDir::new().unwrap();
        let sheds = settings(Some(Duration::ZERO));
        let mut budget = open(&directory, sheds.clone(), 0, at(0));
        let of = |of, bytes| Asked { of, ..asked(7, bytes) };
        budget.pay_for((7, "by_country"), Fingerprint::of(b"file"), 900, at(0)).unwrap();
        let decisions = |budget: &Budget| {
            [of("by_country", 500), of("sizes", 500), of("sizes", 1_001), of("sizes", 50)]
                .map(|asked| budget.decide(asked, at(0).now))
        };
        let paid = [Decision::Wait, Decision::Shed, Decision::Shed, Decision::Send];
        assert_eq!(decisions(&budget), paid);
        assert_eq!(decisions(&open(&directory, sheds.clone(), 7, at(0))), paid, "after a crash");
        budget.shed((7, "totals"), at(0)).unwrap();
        for budget in [budget, open(&directory, sheds, 7, at(0))] {
            assert_eq!(decisions(&budget), paid, "another one was shed");
            assert_eq!(budget.decide(of("totals", 50), at(0).now), Decision::Shed);
        }
    }

    #[test]
    fn a_clock_that_is_set_fills_it_once_at_most() {
        let directory = TempDir::new().unwrap();
        let mut budget = open(&directory, settings(None), 0, at(50));
        budget.pay(1, 800, at(50)).unwrap();
        let back = Moment { now: Duration::ZERO, wall: 0 };
        assert_eq!(open(&directory, settings(None), 1, back).level().left(Duration::ZERO), 200);
        let forward = Moment { now: Duration::ZERO, wall: i64::MAX };
        assert_eq!(open(&directory, settings(None), 1, forward).level().left(Duration::ZERO), 1_000);
        // A smaller one is not exceeded by what was left of a larger one.
        let smaller = Settings { bytes: 150, ..settings(None) };
        assert_eq!(open(&directory, smaller, 1, at(50)).level().left(Duration::ZERO), 150);
    }

    #[test]
    fn what_waited_too_long_is_shed_and_what_may_have_left_is_not() {
        let directory = TempDir::new().unwrap();
        let mut budget = open(&directory, settings(Some(SECOND * 20)), 0, at(0));
        budget.pay(1, 900, at(0)).unwrap();
        let waited = |lsn, seconds| Asked { waited: SECOND * seconds, ..asked(lsn, 500) };
        assert_eq!(budget.decide(waited(2, 19), at(19).now), Decision::Wait);
        assert_eq!(budget.decide(waited(2, 20), at(20).now), Decision::Shed);
        assert_eq!(budget.decide(waited(2, 40), at(40).now), Decision::Send, "there are enough again");
        assert_eq!(budget.decide(waited(1, 99), at(20).now), Decision::Wait, "it was paid for");
        assert_eq!(budget.decide(asked(2, 1_001), at(99).now), Decision::Shed, "there will never be enough");
        // The decision holds after a crash, when there are enough bytes.
        budget.shed((2, ""), at(20)).unwrap();
        let budget = open(&directory, settings(Some(SECOND * 20)), 5, at(900));
        assert_eq!(budget.decide(asked(2, 10), at(900).now), Decision::Shed);
        assert_eq!(budget.decide(asked(3, 10), at(900).now), Decision::Send);
        // The outbox was begun anew, and has another entry there.
        let budget = open(&directory, settings(Some(SECOND * 20)), 1, at(900));
        assert_eq!(budget.decide(asked(2, 10), at(900).now), Decision::Send);
    }

    #[test]
    fn what_left_while_there_was_no_budget_is_not_shed_when_it_is_back() {
        let directory = TempDir::new().unwrap();
        let fs: Arc<dyn FileSystem> = Arc::new(RealFileSystem);
        let suspend = || Budget::suspend(&fs, directory.path(), "hub");
        suspend().unwrap();
        assert!(!directory.path().join("hub").exists(), "there was none");
        let sheds = settings(Some(Duration::ZERO));
        let mut budget = open(&directory, sheds.clone(), 4, at(0));
        budget.pay(5, 900, at(0)).unwrap();
        budget.shed((6, ""), at(0)).unwrap();
        drop(budget);
        let decided = |lsn| open(&directory, sheds.clone(), 8, at(0)).decide(asked(lsn, 500), at(0).now);
        assert_eq!([5, 6, 7].map(decided), [Decision::Wait, Decision::Shed, Decision::Shed]);
        // It is taken out of the configuration: all through 8 may leave. Then it is back.
        suspend().unwrap();
        assert_eq!([5, 6, 7, 8, 9].map(decided)[..4], [Decision::Wait; 4]);
        assert_eq!(decided(9), Decision::Shed, "it came later");
        // Nothing is given back.
        assert_eq!(open(&directory, sheds.clone(), 8, at(0)).level().left(at(0).now), 100);
        let written = std::fs::read(directory.path().join("hub")).unwrap();
        suspend().unwrap();
        assert_eq!(std::fs::read(directory.path().join("hub")).unwrap(), written, "it is said once");
        std::fs::write(directory.path().join("hub"), "rubbish").unwrap();
        suspend().unwrap();
    }

    #[test]
    fn the_less_important_gives_way() {
        let directory = TempDir::new().unwrap();
        let mut budget = open(&directory, settings(Some(Duration::ZERO)), 0, at(0));
        budget.pay(1, 400, at(0)).unwrap();
        let behind = |ahead| Asked { ahead, ..asked(2, 500) };
        assert_eq!(budget.decide(behind(100), at(0).now), Decision::Send);
        assert_eq!(budget.decide(behind(101), at(0).now), Decision::Shed);
        assert_eq!((settings(None).rank("alarms"), settings(None).rank("payments")), (0, 1));
        // Where nothing is shed, those behind it would come no sooner.
        let budget = open(&directory, settings(None), 5, at(0));
        assert_eq!(budget.decide(behind(101), at(0).now), Decision::Send);
    }

    #[test]
    fn every_version_is_read_and_damage_begins_empty() {
        let kept = Kept { left: 7, at: 1_000_000, paid: 41, shed: (40, String::new()), file: None };
        let golden = include_bytes!("../../tests/golden/budget-1");
        assert_eq!(Kept::decode(golden), Decoded::Kept(kept.clone()));
        let file = Some((39, "by_country".to_owned(), Fingerprint::from_bytes([9; 16])));
        let kept = Kept { shed: (40, "sizes".to_owned()), file, ..kept };
        let golden = include_bytes!("../../tests/golden/budget-2");
        assert_eq!(kept.encode(), golden);
        assert_eq!(Kept::decode(golden), Decoded::Kept(kept));
        for end in 0..golden.len() {
            assert_eq!(Kept::decode(&golden[..end]), Decoded::Unreadable, "cut at {end}");
        }
        let mut newer = golden.to_vec();
        newer[8] = 3;
        assert_eq!(Kept::decode(&newer), Decoded::Newer(3));
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("hub"), "rubbish").unwrap();
        let budget = open(&directory, settings(Some(Duration::ZERO)), 9, at(0));
        assert_eq!((budget.level().left(at(0).now), budget.level().left(at(10).now)), (0, 100));
        assert_eq!(budget.decide(asked(9, 500), at(0).now), Decision::Wait, "it may have been paid for");
    }
}
