//! Whom the counters of laws have counted, on disk: a log of its own, `counters/`.
//!
//! Its entries may be read in any order and more than once: see [`Counts::merge`]. So it is made smaller by writing all that
//! is known once more and releasing what stands before.
//!
//! ```text
//! entry    version 3 (1 byte), kind (1 byte)
//! kind 1   the secret under which persons are hashed (16 bytes)
//! kind 2   groups, until the end: the counter's rule id and where to (each a length as varint, and text), the day since
//!          1970 (4 bytes), whether there were persons who are not listed (1 byte), how many are (varint), each 16 bytes
//! kind 3   the day through which counts were lost (4 bytes)
//! kind 4   how counts are kept, until the end: the counter's rule id and where to, the period (1 byte: 1 calendar year,
//!          2 twelve months, 3 ever), how far the law's time is ahead of UTC in seconds (4 bytes), how often that was changed
//!          (varint), whether the count goes on (1 byte: 0) or not (1), and if not, its last day since 1970 (4 bytes)
//! kind 5   what the clocks showed, until the end: how long the gateway had run in seconds (8 bytes), the time in
//!          microseconds since 1970 (8 bytes)
//! kind 6   the latest time that holds, and the latest that was shown (each 1 byte whether there is one, 8 bytes)
//! ```
//!
//! Version 1 had kinds 1 to 3. Kind 4 of version 2 ended with the law's time.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::domain::binary::{Reader as Bytes, Writer};
use crate::domain::counting::{About, Counts, Day, Kept, Known, Name, News, Period, Person, PersonKey, Reading};
use crate::storage::{self, FileSystem, Log, Lsn, Reader, Settings, Slots, Stored};

/// The version of the entries.
pub const VERSION: u8 = 3;
/// The oldest version of entries that is read.
const VERSION_MIN: u8 = 1;
const KEY: u8 = 1;
const PERSONS: u8 = 2;
const LOST: u8 = 3;
const ABOUT: u8 = 4;
const SEEN: u8 = 5;
const KNOWN: u8 = 6;

const PERIODS: [(u8, Period); 3] = [(1, Period::CalendarYear), (2, Period::TwelveMonths), (3, Period::Ever)];

/// The log's directory in that of the journal.
pub const DIRECTORY: &str = "counters";
/// The file beside it that says that there is such a log: it must not be missing any more.
pub const BEGUN: &str = "counters.begun";

/// The most news of one entry.
const TOGETHER_MAX: usize = 1_000;

/// Space on disk of a segment, in bytes.
pub const SEGMENT_BYTES: u64 = 4 << 20;
/// Space on disk of all segments, in bytes.
const QUOTA_BYTES: u64 = 512 << 20;

/// Why what was counted cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log cannot be opened.
    #[error("cannot open the log of the counters")]
    Log(#[from] storage::Error),
    /// The log cannot be read.
    #[error("cannot read the log of the counters")]
    Read(#[from] storage::ReadError),
    /// An entry is not one that this version writes.
    #[error(
        "entry {0} of the log of the counters is of no known kind: a newer version of bailiwick wrote it. Run that \
         version, or restore the backup of before the upgrade"
    )]
    Unreadable(Lsn),
}

/// What was found on disk.
pub struct Found {
    /// The log.
    pub log: Log,
    /// What it holds.
    pub counts: Counts,
    /// The last position that was given out.
    pub last: Lsn,
    /// The bytes of its entries.
    pub bytes: u64,
    /// Whether it holds the secret. Otherwise that is to be written before anything else.
    pub has_key: bool,
    /// How many places of it are damaged, so that counts were lost. A secret that is missing is one.
    pub damaged: usize,
}

/// What is drawn for a log that is opened. It is not to be drawn twice.
#[derive(Clone, Copy)]
pub struct Chance {
    /// The secret of a log that begins.
    pub key: [u8; 16],
    /// What records without a contributor are told apart by.
    pub nobody: [u8; 16],
}

/// Opens the log in a journal's directory, or begins it. `wall`: microseconds since the Unix epoch.
///
/// # Errors
/// When it cannot be opened or read. Damage is no error, nor is a log that is gone: then no counter has room until its period is
/// over.
pub fn open(fs: Arc<dyn FileSystem>, journal: &Path, chance: Chance, wall: i64) -> Result<Found, Error> {
    let (segment_bytes, quota_bytes) = (SEGMENT_BYTES, QUOTA_BYTES);
    let at_least = at_least(&*fs, journal)?;
    let directory = journal.join(DIRECTORY);
    let settings = Settings { directory, segment_bytes, quota_bytes, context: Vec::new(), at_least };
    let (log, recovery) = Log::open(fs, settings)?;
    let Held { key, news, bytes } = read(&mut log.reader(0))?;
    let mut counts = Counts::new(key.unwrap_or(PersonKey(chance.key)), chance.nobody);
    news.iter().for_each(|news| counts.merge(news));
    let ran = counts.ran();
    counts.see(Reading { ran, wall });
    // The secret is written before anybody is counted. Without it nobody is known again, and what was before it may be gone too.
    let has_key = key.is_some();
    let is_keyless = !has_key && !news.is_empty();
    // Not only what opening found: reading passes over what is damaged, too.
    let damaged = log.damage().len() + usize::from(is_keyless);
    if damaged > 0 {
        counts.lose();
    }
    Ok(Found { log, counts, last: recovery.last, bytes, has_key, damaged })
}

/// The log has what it needs on disk: from now on it is noticed if it is gone.
///
/// # Errors
/// When that cannot be written.
pub fn begun(fs: Arc<dyn FileSystem>, journal: &Path) -> Result<(), Error> {
    let (mut slots, stored) = Slots::open(fs, &journal.join(BEGUN))?;
    if !matches!(stored, Stored::Value(_)) {
        slots.write(&[VERSION])?;
    }
    Ok(())
}

/// The position that a log has at least: it has begun, or nobody knows.
///
/// # Errors
/// When the file that says so cannot be read.
pub fn at_least(fs: &dyn FileSystem, journal: &Path) -> Result<Lsn, storage::Error> {
    // A file that is damaged was there.
    Ok(u64::from(Slots::peek(fs, &journal.join(BEGUN))? != Stored::Missing))
}

/// What the log in a journal's directory holds, and whether the secret is missing of persons that are there. Reads only, also
/// beside a gateway that runs.
///
/// # Errors
/// When it cannot be read.
pub fn look(fs: Arc<dyn FileSystem>, journal: &Path) -> Result<(Counts, bool), Error> {
    let Held { key, news, .. } = read(&mut storage::entries(fs, &journal.join(DIRECTORY))?)?;
    let mut counts = Counts::new(key.unwrap_or(PersonKey([0; 16])), [0; 16]);
    news.iter().for_each(|news| counts.merge(news));
    Ok((counts, key.is_none() && !news.is_empty()))
}

/// What the entries hold.
struct Held {
    key: Option<PersonKey>,
    news: Vec<News>,
    bytes: u64,
}

fn read(reader: &mut Reader) -> Result<Held, Error> {
    let mut held = Held { key: None, news: Vec::new(), bytes: 0 };
    while let Some(entry) = reader.next()? {
        held.bytes += entry.payload.len() as u64;
        match decode(&entry.payload).ok_or(Error::Unreadable(entry.lsn))? {
            // Those who were counted under an earlier one are not known again under a later one: they would count twice,
            // and never too little.
            Decoded::Key(found) => held.key = Some(found),
            Decoded::News(news) => held.news.extend(news),
        }
    }
    Ok(held)
}

enum Decoded {
    Key(PersonKey),
    News(Vec<News>),
}

/// The entry of a secret.
#[must_use]
pub fn key_entry(key: PersonKey) -> Vec<u8> {
    let mut writer = Writer::with_capacity(2 + key.0.len());
    writer.u8(VERSION).u8(KEY).raw(&key.0);
    writer.finish()
}

/// Puts news in an order in which they take few bytes: those of one kind, one count and one day stand together.
pub fn put_in_groups(news: &mut [News]) {
    fn group(news: &News) -> (u8, Option<(&Name, Day)>) {
        match news {
            News::Went(name, day, _) | News::Unlisted(name, day) => (PERSONS, Some((name, *day))),
            other => (kind(other), None),
        }
    }
    news.sort_unstable_by(|left, right| group(left).cmp(&group(right)));
}

fn kind(news: &News) -> u8 {
    match news {
        News::Went(..) | News::Unlisted(..) => PERSONS,
        News::Lost(_) => LOST,
        News::Kept(..) => ABOUT,
        News::Seen(_) => SEEN,
        News::Known(_) => KNOWN,
    }
}

/// The entry of the first of these news, and how many of them are in it. `None`: there are none.
#[must_use]
pub fn next_entry(news: &[News]) -> Option<(Vec<u8>, usize)> {
    let of = kind(news.first()?);
    let together_max = if matches!(of, LOST | KNOWN) { 1 } else { TOGETHER_MAX };
    let written = news.iter().take(together_max).take_while(|news| kind(news) == of).count();
    let together = news.get(..written)?;
    let mut writer = Writer::with_capacity(2 + written * 20);
    writer.u8(VERSION).u8(of);
    if of == PERSONS {
        groups(&mut writer, together);
        return Some((writer.finish(), written));
    }
    for news in together {
        match news {
            News::Went(..) | News::Unlisted(..) => {}
            News::Lost(day) => {
                writer.raw(&day.to_le_bytes());
            }
            News::Kept(name, kept) => {
                let About { period, ahead_seconds } = kept.about;
                let code = PERIODS.iter().find(|(_, known)| *known == period).map_or(0, |(code, _)| *code);
                writer.short_text(&name.counter).short_text(&name.to).u8(code).raw(&ahead_seconds.to_le_bytes());
                writer.varint(kept.revision).u8(kept.stopped.is_some().into());
                if let Some(day) = kept.stopped {
                    writer.raw(&day.to_le_bytes());
                }
            }
            News::Seen(Reading { ran, wall }) => {
                writer.u64(*ran).i64(*wall);
            }
            News::Known(Known { held, latest }) => {
                for time in [held, latest] {
                    writer.u8(time.is_some().into()).i64(time.unwrap_or(0));
                }
            }
        }
    }
    Some((writer.finish(), written))
}

/// Persons, those of one count and one day together.
fn groups(writer: &mut Writer, news: &[News]) {
    let mut groups: BTreeMap<(&Name, Day), (bool, Vec<Person>)> = BTreeMap::new();
    for news in news {
        match news {
            News::Went(name, day, person) => groups.entry((name, *day)).or_default().1.push(*person),
            News::Unlisted(name, day) => groups.entry((name, *day)).or_default().0 = true,
            News::Lost(_) | News::Kept(..) | News::Seen(_) | News::Known(_) => {}
        }
    }
    for ((name, day), (unlisted, persons)) in groups {
        writer.short_text(&name.counter).short_text(&name.to).raw(&day.to_le_bytes());
        writer.u8(unlisted.into()).varint(persons.len() as u64);
        for person in persons {
            writer.raw(&person.0);
        }
    }
}

fn decode(entry: &[u8]) -> Option<Decoded> {
    let mut reader = Bytes::new(entry);
    let version = reader.u8()?;
    if !(VERSION_MIN..=VERSION).contains(&version) {
        return None;
    }
    let kind = reader.u8()?;
    if kind == KEY {
        let key = reader.array()?;
        return reader.is_empty().then_some(Decoded::Key(PersonKey(key)));
    }
    let mut news = Vec::new();
    match kind {
        LOST => news.push(News::Lost(day(&mut reader)?)),
        KNOWN => news.push(News::Known(Known { held: time(&mut reader)?, latest: time(&mut reader)? })),
        PERSONS | ABOUT | SEEN => {
            while !reader.is_empty() {
                match kind {
                    PERSONS => group(&mut reader, &mut news)?,
                    ABOUT => news.push(kept(&mut reader, version)?),
                    _ => news.push(News::Seen(Reading { ran: reader.u64()?, wall: reader.i64()? })),
                }
            }
        }
        _ => return None,
    }
    reader.is_empty().then_some(Decoded::News(news))
}

fn name(reader: &mut Bytes<'_>) -> Option<Arc<Name>> {
    Some(Arc::new(Name { counter: reader.short_text()?.to_owned(), to: reader.short_text()?.to_owned() }))
}

fn kept(reader: &mut Bytes<'_>, version: u8) -> Option<News> {
    let (name, code) = (name(reader)?, reader.u8()?);
    let period = PERIODS.iter().find(|(known, _)| *known == code).map(|(_, period)| *period)?;
    let about = About { period, ahead_seconds: reader.array().map(i32::from_le_bytes)? };
    // Before, words had no order, and no count had an end.
    let (mut revision, mut stopped) = (0, None);
    if version > 2 {
        revision = reader.varint()?;
        if reader.u8()? != 0 {
            stopped = Some(day(reader)?);
        }
    }
    Some(News::Kept(name, Kept { revision, about, stopped }))
}

fn time(reader: &mut Bytes<'_>) -> Option<Option<i64>> {
    let (is_known, time) = (reader.u8()? != 0, reader.i64()?);
    Some(is_known.then_some(time))
}

fn group(reader: &mut Bytes<'_>, news: &mut Vec<News>) -> Option<()> {
    let (name, day) = (name(reader)?, day(reader)?);
    if reader.u8()? != 0 {
        news.push(News::Unlisted(Arc::clone(&name), day));
    }
    for _ in 0..reader.varint()? {
        let person = Person(reader.array()?);
        news.push(News::Went(Arc::clone(&name), day, person));
    }
    Some(())
}

fn day(reader: &mut Bytes<'_>) -> Option<Day> {
    reader.array().map(Day::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::domain::counting::{Claim, Tally, Whose};
    use crate::storage::sim::Sim;

    /// 1 November 2026, noon UTC.
    const WALL: i64 = 1_793_534_400_000_000;

    fn name(counter: &str, to: &str) -> Arc<Name> {
        Arc::new(Name { counter: counter.to_owned(), to: to.to_owned() })
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    fn all_news() -> Vec<News> {
        let (one, other) =
            (name("cn-pipl/counters/data.cn_below_exempt_volume", "all"), name("us-dsp/counters/x", "us-1"));
        vec![
            News::Went(Arc::clone(&one), 20_758, Person([1; 16])),
            News::Went(Arc::clone(&other), 20_757, Person([2; 16])),
            News::Unlisted(Arc::clone(&one), 20_758),
            News::Went(one, 20_758, Person([3; 16])),
            News::Lost(20_759),
        ]
    }

    /// What version 2 knows besides.
    fn all_news_2() -> Vec<News> {
        let counter = name("law/counters/x", "all");
        let about = |period, ahead_seconds| Kept { revision: 0, about: About { period, ahead_seconds }, stopped: None };
        vec![
            News::Kept(Arc::clone(&counter), about(Period::CalendarYear, 28_800)),
            News::Kept(Arc::clone(&counter), about(Period::TwelveMonths, -18_000)),
            News::Kept(counter, about(Period::Ever, 0)),
            News::Seen(Reading { ran: 900, wall: WALL }),
            News::Seen(Reading { ran: 1_800, wall: WALL + 900_000_000 }),
            News::Known(Known { held: None, latest: Some(WALL) }),
            News::Known(Known { held: Some(WALL), latest: Some(WALL + 1) }),
        ]
    }

    /// And version 3.
    fn all_news_3() -> Vec<News> {
        let (goes_on, ended) = (name("law/counters/x", "all"), name("law/counters/y", "us-1"));
        let about = About { period: Period::TwelveMonths, ahead_seconds: 3_600 };
        vec![
            News::Kept(goes_on, Kept { revision: 300, about, stopped: None }),
            News::Kept(ended, Kept { revision: 2, about, stopped: Some(20_760) }),
        ]
    }

    fn entries(key: PersonKey, news: &[News]) -> Vec<Vec<u8>> {
        let (mut entries, mut rest) = (vec![key_entry(key)], news);
        while let Some((entry, written)) = next_entry(rest) {
            entries.push(entry);
            rest = &rest[written..];
        }
        entries
    }

    fn read_golden(golden: &str) -> Vec<News> {
        let mut read = Vec::new();
        for line in golden.lines() {
            match decode(&unhex(line)).unwrap() {
                Decoded::Key(key) => assert_eq!(key.0, [9; 16]),
                Decoded::News(news) => read.extend(news),
            }
        }
        sorted(read)
    }

    fn sorted(mut news: Vec<News>) -> Vec<News> {
        news.sort_by_key(|news| format!("{news:?}"));
        news
    }

    /// Entries of version 3 are written like this, and every later version reads them and those of versions 1 and 2.
    #[test]
    fn entries_are_those_of_the_golden_files() {
        let golden = include_str!("../../tests/golden/counting-3.hex");
        let news = [all_news(), all_news_2(), all_news_3()].concat();
        let written: Vec<String> = entries(PersonKey([9; 16]), &news).iter().map(|entry| hex(entry)).collect();
        assert_eq!(written, golden.lines().collect::<Vec<_>>());
        assert_eq!(read_golden(golden), sorted(news));
        let before = [all_news(), all_news_2()].concat();
        assert_eq!(read_golden(include_str!("../../tests/golden/counting-2.hex")), sorted(before));
        assert_eq!(read_golden(include_str!("../../tests/golden/counting-1.hex")), sorted(all_news()));
    }

    #[test]
    fn an_entry_that_is_cut_or_of_another_version_is_not_read() {
        for entry in entries(PersonKey([9; 16]), &[all_news(), all_news_2(), all_news_3()].concat()) {
            let whole = [vec![VERSION + 1], entry[1..].to_vec()].concat();
            assert!(decode(&whole).is_none());
            assert!(decode(&[entry.clone(), vec![0]].concat()).is_none(), "more than there is");
            // Groups may end anywhere between two of them.
            (1..entry.len()).for_each(|end| drop(decode(&entry[..end])));
            assert!(decode(&entry[..entry.len() - 1]).is_none());
        }
        assert!(decode(&[VERSION, 9]).is_none());
    }

    /// Persons of a year, in whatever order they come.
    #[test]
    fn what_is_written_anew_takes_few_bytes_for_each_person() {
        let names = ["cn-pipl/counters/data.cn_below_exempt_volume", "us-dsp/counters/x"].map(|id| name(id, "all"));
        let mut news: Vec<News> = (0..60_000_i32)
            .map(|at| {
                let mut person = [0; 16];
                person[..4].copy_from_slice(&at.to_le_bytes());
                News::Went(Arc::clone(&names[at as usize % 2]), 20_000 + at % 365, Person(person))
            })
            .collect();
        put_in_groups(&mut news);
        let bytes: usize = entries(PersonKey([9; 16]), &news).iter().map(Vec::len).sum();
        assert!(bytes < news.len() * 20, "{bytes}");
    }

    /// Puts the next entries on disk.
    fn put(log: &Log, entries: Vec<Vec<u8>>) {
        let last = log.durable() + entries.len() as u64;
        for (lsn, entry) in (log.durable() + 1..).zip(entries) {
            let room = log.reserve(entry.len() as u64).unwrap();
            log.submit(lsn, entry, room, None);
        }
        assert!(log.wait_durable(last));
    }

    #[test]
    fn persons_whose_secret_is_missing_are_lost() {
        let sim = Sim::default();
        let Found { log, has_key, damaged, .. } = open_sim(&sim, 1);
        assert!(!has_key && damaged == 0, "a log that begins has lost nothing");
        put(&log, entries(PersonKey([9; 16]), &all_news()[..1]).split_off(1));
        drop(log);
        let found = open_sim(&sim, 2);
        assert!(!found.has_key && found.damaged == 1 && is_lost(&found));
    }

    #[test]
    fn persons_of_a_damaged_entry_are_lost() {
        let sim = Sim::default();
        let Found { log, .. } = open_sim(&sim, 1);
        put(&log, entries(PersonKey([9; 16]), &all_news()[..1]));
        // What follows shows that it was on disk.
        put(&log, entries(PersonKey([9; 16]), &all_news()[1..2]));
        drop(log);
        let mut files = sim.files(Path::new("/counters")).into_iter();
        let file = files.find(|file| file.extension().is_some_and(|name| name == "segment")).unwrap();
        let bytes = sim.bytes(&file).unwrap();
        let person = bytes.windows(16).position(|bytes| bytes == [1; 16]).unwrap();
        sim.flip(&file, person, 0);
        let found = open_sim(&sim, 2);
        assert!(found.damaged > 0 && is_lost(&found));
    }

    fn open_sim(sim: &Sim, chance: u8) -> Found {
        open(Arc::new(sim.clone()), Path::new("/"), Chance { key: [chance; 16], nobody: [chance; 16] }, WALL).unwrap()
    }

    fn is_lost(found: &Found) -> bool {
        found.counts.news().iter().any(|news| matches!(news, News::Lost(_)))
    }

    /// A log that is gone, with its directory or without, is a loss as soon as there was one.
    #[test]
    fn a_log_that_is_gone_is_a_loss() {
        let sim = Sim::default();
        let fs = || Arc::new(sim.clone());
        let Found { log, .. } = open_sim(&sim, 1);
        put(&log, entries(PersonKey([9; 16]), &all_news()[..1]));
        drop(log);
        let found = open_sim(&sim, 2);
        assert!(found.damaged == 0 && found.has_key && !is_lost(&found));
        begun(fs(), Path::new("/")).unwrap();
        drop(found);
        assert!(!is_lost(&open_sim(&sim, 2)));
        for file in sim.files(Path::new("/counters")) {
            FileSystem::remove(&sim, &file).unwrap();
        }
        let found = open_sim(&sim, 3);
        assert!(found.damaged == 1 && is_lost(&found));
        assert_eq!(at_least(&*fs(), Path::new("/")).unwrap(), 1);
    }

    /// The secret, the persons and the day outlive a crash, and a person is known again.
    #[test]
    fn what_was_counted_is_found_again_after_a_crash() {
        let (sim, about) = (Sim::default(), About { period: Period::CalendarYear, ahead_seconds: 0 });
        let tally = Arc::new(Tally { name: name("law/counters/data.few", "all"), about, most: 1 });
        let claims = [Claim { counted: vec![Arc::clone(&tally)], ways: vec![vec![tally]], tells_apart: true }];
        let goes = |counts: &mut Counts, name: &str| {
            let names: arrow_array::ArrayRef = Arc::new(arrow_array::StringArray::from(vec![name]));
            counts.admit(&claims, Whose { stream: &"visits".parse().unwrap(), contributors: Some(&names), row: 0 }, 0)
        };
        let Found { log, mut counts, .. } = open_sim(&sim, 1);
        assert!(goes(&mut counts, "ann"));
        put(&log, entries(counts.key(), counts.news()));
        drop(log);
        sim.power_loss(|| false);
        let Found { log, mut counts, damaged, .. } = open_sim(&sim, 2);
        assert_eq!(damaged, 0);
        assert!(goes(&mut counts, "ann"));
        assert!(!goes(&mut counts, "bob"));
        drop(log);
    }
}
