//! Whom the counters of laws have counted, on disk: a log of its own, `counters/`.
//!
//! Its entries may be read in any order and more than once: see [`Counts::merge`]. So it is made smaller by writing all that
//! is known once more and releasing what stands before.
//!
//! ```text
//! entry    version 1 (1 byte), kind (1 byte)
//! kind 1   the secret under which persons are hashed (16 bytes)
//! kind 2   groups, until the end: the counter's rule id and where to (each a length as varint, and text), the day since
//!          1970 (4 bytes), whether there were persons who are not listed (1 byte), how many are (varint), each 16 bytes
//! kind 3   the day through which counts were lost (4 bytes)
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::domain::binary::{Reader, Writer};
use crate::domain::counting::{Counts, Day, Name, News, Person, PersonKey};
use crate::storage::{self, FileSystem, Log, Lsn, Settings};

/// The version of the entries.
pub const VERSION: u8 = 1;
const KEY: u8 = 1;
const PERSONS: u8 = 2;
const LOST: u8 = 3;

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

/// Opens the log in a directory, or begins it. `chance` is the secret of a log that begins, and what records without a
/// contributor are told apart by; it is not to be drawn twice. `wall`: microseconds since the Unix epoch.
///
/// # Errors
/// When it cannot be opened or read. Damage is no error: then no counter has room until its period is over.
pub fn open(
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    chance: ([u8; 16], [u8; 16]),
    wall: i64,
) -> Result<Found, Error> {
    let (segment_bytes, quota_bytes) = (SEGMENT_BYTES, QUOTA_BYTES);
    let settings = Settings { directory, segment_bytes, quota_bytes, context: Vec::new(), at_least: 0 };
    let (log, recovery) = Log::open(fs, settings)?;
    let (key, news, bytes) = read(&log)?;
    let mut counts = Counts::new(key.unwrap_or(PersonKey(chance.0)), chance.1);
    news.iter().for_each(|news| counts.merge(news));
    // The secret is written before anybody is counted. Without it nobody is known again, and what was before it may be gone too.
    let has_key = key.is_some();
    let is_keyless = !has_key && !news.is_empty();
    // Not only what opening found: reading passes over what is damaged, too.
    let damaged = log.damage().len() + usize::from(is_keyless);
    if damaged > 0 {
        counts.lose(wall);
    }
    Ok(Found { log, counts, last: recovery.last, bytes, has_key, damaged })
}

fn read(log: &Log) -> Result<(Option<PersonKey>, Vec<News>, u64), Error> {
    let (mut key, mut all, mut bytes) = (None, Vec::new(), 0);
    let mut reader = log.reader(0);
    while let Some(entry) = reader.next()? {
        bytes += entry.payload.len() as u64;
        match decode(&entry.payload).ok_or(Error::Unreadable(entry.lsn))? {
            // Those who were counted under an earlier one are not known again under a later one: they would count twice,
            // and never too little.
            Decoded::Key(found) => key = Some(found),
            Decoded::News(news) => all.extend(news),
        }
    }
    Ok((key, all, bytes))
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

/// Puts news in an order in which they take few bytes: those of one count and one day stand together.
pub fn put_in_groups(news: &mut [News]) {
    fn group(news: &News) -> Option<(&Name, Day)> {
        match news {
            News::Went(name, day, _) | News::Unlisted(name, day) => Some((name, *day)),
            News::Lost(_) => None,
        }
    }
    news.sort_unstable_by(|left, right| group(left).cmp(&group(right)));
}

/// The entry of the first of these news, and how many of them are in it. `None`: there are none.
#[must_use]
pub fn next_entry(news: &[News]) -> Option<(Vec<u8>, usize)> {
    if let Some(News::Lost(day)) = news.first() {
        let mut writer = Writer::default();
        writer.u8(VERSION).u8(LOST).raw(&day.to_le_bytes());
        return Some((writer.finish(), 1));
    }
    let together = news.iter().take(TOGETHER_MAX).take_while(|news| !matches!(news, News::Lost(_)));
    let mut groups: BTreeMap<(&Name, Day), (bool, Vec<Person>)> = BTreeMap::new();
    let mut written = 0;
    for news in together {
        written += 1;
        match news {
            News::Went(name, day, person) => groups.entry((name, *day)).or_default().1.push(*person),
            News::Unlisted(name, day) => groups.entry((name, *day)).or_default().0 = true,
            News::Lost(_) => {}
        }
    }
    if written == 0 {
        return None;
    }
    let mut writer = Writer::with_capacity(2 + groups.len() * 64 + written * 16);
    writer.u8(VERSION).u8(PERSONS);
    for ((name, day), (unlisted, persons)) in groups {
        writer.short_text(&name.counter).short_text(&name.to).raw(&day.to_le_bytes());
        writer.u8(unlisted.into()).varint(persons.len() as u64);
        for person in persons {
            writer.raw(&person.0);
        }
    }
    Some((writer.finish(), written))
}

fn decode(entry: &[u8]) -> Option<Decoded> {
    let mut reader = Reader::new(entry);
    if reader.u8()? != VERSION {
        return None;
    }
    match reader.u8()? {
        KEY => {
            let key = reader.array()?;
            reader.is_empty().then_some(Decoded::Key(PersonKey(key)))
        }
        PERSONS => {
            let mut news = Vec::new();
            while !reader.is_empty() {
                group(&mut reader, &mut news)?;
            }
            Some(Decoded::News(news))
        }
        LOST => {
            let day = day(&mut reader)?;
            reader.is_empty().then(|| Decoded::News(vec![News::Lost(day)]))
        }
        _ => None,
    }
}

fn group(reader: &mut Reader<'_>, news: &mut Vec<News>) -> Option<()> {
    let name = Name { counter: reader.short_text()?.to_owned(), to: reader.short_text()?.to_owned() };
    let (name, day) = (Arc::new(name), day(reader)?);
    if reader.u8()? != 0 {
        news.push(News::Unlisted(Arc::clone(&name), day));
    }
    for _ in 0..reader.varint()? {
        let person = Person(reader.array()?);
        news.push(News::Went(Arc::clone(&name), day, person));
    }
    Some(())
}

fn day(reader: &mut Reader<'_>) -> Option<Day> {
    reader.array().map(Day::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::domain::counting::{Claim, Period, Tally};
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

    fn entries(key: PersonKey, news: &[News]) -> Vec<Vec<u8>> {
        let (mut entries, mut rest) = (vec![key_entry(key)], news);
        while let Some((entry, written)) = next_entry(rest) {
            entries.push(entry);
            rest = &rest[written..];
        }
        entries
    }

    /// Entries of version 1 are written like this, and every later version reads them.
    #[test]
    fn entries_are_those_of_the_golden_file() {
        let golden = include_str!("../../tests/golden/counting-1.hex");
        let written: Vec<String> = entries(PersonKey([9; 16]), &all_news()).iter().map(|entry| hex(entry)).collect();
        assert_eq!(written, golden.lines().collect::<Vec<_>>());
        let mut read = Vec::new();
        for line in golden.lines() {
            match decode(&unhex(line)).unwrap() {
                Decoded::Key(key) => assert_eq!(key.0, [9; 16]),
                Decoded::News(news) => read.extend(news),
            }
        }
        let sorted = |mut news: Vec<News>| {
            news.sort_by_key(|news| format!("{news:?}"));
            news
        };
        assert_eq!(sorted(read), sorted(all_news()));
    }

    #[test]
    fn an_entry_that_is_cut_or_of_another_version_is_not_read() {
        for entry in entries(PersonKey([9; 16]), &all_news()) {
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
        assert!(!found.has_key && found.damaged == 1);
        assert!(matches!(found.counts.news(), [News::Lost(_)]));
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
        assert!(found.damaged > 0 && matches!(found.counts.news(), [News::Lost(_)]));
    }

    fn open_sim(sim: &Sim, chance: u8) -> Found {
        open(Arc::new(sim.clone()), "/counters".into(), ([chance; 16], [chance; 16]), WALL).unwrap()
    }

    /// The secret, the persons and the day outlive a crash, and a person is known again.
    #[test]
    fn what_was_counted_is_found_again_after_a_crash() {
        let (sim, tally) = (
            Sim::default(),
            Tally {
                name: name("law/counters/data.few", "all"),
                period: Period::CalendarYear,
                ahead_seconds: 0,
                most: 1,
            },
        );
        let tally = Arc::new(tally);
        let claims = [Claim { counted: vec![Arc::clone(&tally)], ways: vec![vec![tally]] }];
        let who = |key: PersonKey, name: &str| {
            let names: arrow_array::ArrayRef = Arc::new(arrow_array::StringArray::from(vec![name]));
            key.person("visits", &names, 0)
        };
        let Found { log, mut counts, .. } = open_sim(&sim, 1);
        let ann = who(counts.key(), "ann");
        assert!(counts.admit(&claims, ann, WALL));
        put(&log, entries(counts.key(), counts.news()));
        drop(log);
        sim.power_loss(|| false);
        let Found { log, mut counts, last, damaged, .. } = open_sim(&sim, 2);
        assert_eq!((last, damaged), (2, 0));
        assert!(who(counts.key(), "ann") == ann);
        assert!(counts.admit(&claims, ann, WALL));
        assert!(!counts.admit(&claims, who(counts.key(), "bob"), WALL));
        drop(log);
    }
}
