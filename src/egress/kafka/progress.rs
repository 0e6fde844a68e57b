//! What the broker has, as it says itself: each transaction writes a record of the entries that it commits. A record is
//! never taken back, so whoever reads them, whenever, learns which entries are there; nobody moves anything backwards.
//!
//! A record's key is `GATEWAY/DESTINATION#N`. `N` is the number of the transaction, modulo [`RING`]: of a compacted
//! topic that keeps the records of the last [`RING`] transactions.
//!
//! Version 4 is what this program writes:
//! `{"version":4,"transaction":12,"sent":[[LSN,"MARK"],...],"part":[LSN,"CUT",DONE,OF]}`. `MARK` tells the entry from
//! others that have its position ([`Mark`]); `part` is there when the last entry was committed in part: the first `DONE`
//! of its `OF` messages, and `CUT` tells these from others that it could be cut into. Version 3 has `MARK` there, too: as
//! many messages were taken for the same. Version 2 has, as `MARK`, the beginning of the id of the entry's last release. Version 1 had the
//! key `GATEWAY/DESTINATION` and `{"version":1,"position":LSN,"sent":[[LSN,"ID"],...]}` with the last 64 entries.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use crate::storage::Lsn;

use super::heard::Heard;
use super::mark::{Mark, Said};
use super::topic::{self, Asker, PROGRESS};
use super::{Error, Outbox, SLICE, STALLED_AFTER, Settings, Watch, close, create};

/// The partition of the progress topic that all records are in, however many there are: the place of the records
/// does not change with the number of partitions.
pub(super) const PARTITION: i32 = 0;
/// The version that is written.
const VERSION: u32 = 4;
/// How many transactions' records a compacted topic keeps.
const RING: u64 = 65_536;
/// How long reading may take. Above the transactions' timeout, since what another gateway has open in the topic hides
/// what comes after it.
const READ_WITHIN: Duration = Duration::from_secs(75);
/// How many records from the end are read first, and then, if they do not reach back to what waits here.
const TAILS: [i64; 3] = [1_000, 100_000, i64::MAX];

/// An entry of the outbox that was committed: its position and its mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sent(Lsn, String);

/// An entry of which the first messages were committed: so many of so many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part(Lsn, String, usize, usize);

/// What one transaction committed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    /// From 1 on; version 1 has none.
    #[serde(default)]
    transaction: u64,
    sent: Vec<Sent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    part: Option<Part>,
}

impl Record {
    pub(super) fn new(transaction: u64) -> Self {
        Self { version: VERSION, transaction, sent: Vec::new(), part: None }
    }

    /// A whole entry is in it.
    pub(super) fn entry(&mut self, lsn: Lsn, mark: &str) {
        self.sent.push(Sent(lsn, mark.to_owned()));
    }

    /// The first `done` messages of an entry are committed, with those of transactions before.
    pub(super) fn part(&mut self, lsn: Lsn, cut: &str, done: usize, of: usize) {
        self.part = Some(Part(lsn, cut.to_owned(), done, of));
    }

    /// The record's key, when `prefix` is the destination's.
    pub(super) fn key(&self, prefix: &str) -> String {
        format!("{prefix}#{}", self.transaction % RING)
    }

    /// As it is written.
    pub(super) fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    fn from_json(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(bytes).ok().filter(|record| matches!(record.version, 1..=VERSION))
    }

    /// What its marks stand for.
    fn said(&self) -> fn(String) -> Said {
        if self.version < 3 { Said::Last } else { Said::All }
    }

    /// What that of its part stands for.
    fn said_of_part(&self) -> fn(String) -> Said {
        if self.version < 4 { self.said() } else { Said::Cut }
    }
}

/// What the broker has beyond the cursor.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Two gateways that had one id can have had different releases at one position. Each with the first transaction that
    /// committed it.
    entries: BTreeMap<Lsn, BTreeMap<Said, u64>>,
    parts: BTreeMap<Lsn, BTreeMap<Said, (usize, usize)>>,
    /// The least position of each transaction whose record was read.
    least: BTreeMap<u64, Lsn>,
    /// The oldest transaction whose record was read, and the newest.
    first: Option<u64>,
    last: u64,
    /// There was a record of version 1, so there were transactions that nothing tells of.
    is_after_version_1: bool,
    /// Everything through this position is there although no record that was read says so.
    through: Lsn,
}

impl Known {
    fn add(&mut self, record: Record, cursor: Lsn) {
        let (said, said_of_part, transaction) = (record.said(), record.said_of_part(), record.transaction);
        if record.version == 1 {
            self.is_after_version_1 = true;
        } else {
            self.first = Some(self.first.map_or(transaction, |first| first.min(transaction)));
            self.last = self.last.max(transaction);
        }
        if let Some(least) = record.sent.iter().map(|sent| sent.0).min() {
            let known = self.least.entry(transaction).or_insert(least);
            *known = least.min(*known);
        }
        for Sent(lsn, mark) in record.sent.into_iter().filter(|sent| sent.0 > cursor) {
            let known = self.entries.entry(lsn).or_default().entry(said(mark)).or_insert(transaction);
            *known = transaction.min(*known);
        }
        if let Some(Part(lsn, mark, done, of)) = record.part.filter(|part| part.0 > cursor) {
            let known = self.parts.entry(lsn).or_default().entry(said_of_part(mark)).or_insert((done, of));
            *known = (done.max(known.0), of);
        }
    }

    /// The number of the next transaction.
    pub(super) fn next_transaction(&self) -> u64 {
        self.last + 1
    }

    /// Whether the broker has an entry.
    pub(super) fn has(&self, lsn: Lsn, mark: &Mark) -> bool {
        lsn <= self.through || self.told(lsn, mark).is_some()
    }

    /// The transaction that committed an entry, if a record that was read says so.
    fn told(&self, lsn: Lsn, mark: &Mark) -> Option<u64> {
        let told = self.entries.get(&lsn)?.iter().filter(|(said, _)| mark.is(said));
        told.map(|(_, transaction)| *transaction).min()
    }

    /// How many of an entry's messages the broker has, if it has some of them and they were cut alike.
    pub(super) fn part_of(&self, lsn: Lsn, mark: &Mark, cut: &str, of: usize) -> usize {
        let parts = self.parts.get(&lsn).into_iter().flatten();
        let is_cut_so = |said: &Said| matches!(said, Said::Cut(known) if known == cut) || mark.is(said);
        let alike = parts.filter(|(said, part)| is_cut_so(said) && part.1 == of);
        alike.map(|(_, part)| part.0).max().unwrap_or(0)
    }

    /// The last position that the broker tells of, at least the cursor.
    pub(super) fn position(&self, cursor: Lsn) -> Lsn {
        self.newest().max(self.through).max(cursor)
    }

    /// Forgets what lies before a position.
    pub(super) fn forget(&mut self, through: Lsn) {
        if self.entries.first_key_value().is_some_and(|(lsn, _)| *lsn <= through) {
            self.entries = self.entries.split_off(&(through + 1));
        }
        self.parts.retain(|lsn, _| *lsn > through);
    }

    fn newest(&self) -> Lsn {
        self.entries.last_key_value().map_or(0, |(lsn, _)| *lsn)
    }

    /// Whether the records of all transactions were read.
    fn is_complete(&self) -> bool {
        !self.is_after_version_1 && (self.last == 0 || self.first == Some(1))
    }

    /// Whether older records cannot tell more about what waits.
    fn is_enough(&self, outbox: Outbox<'_>) -> Result<bool, Error> {
        if self.is_complete() {
            return Ok(true);
        }
        let mut waiting = outbox();
        while let Some(entry) = waiting().map_err(Error::Outbox)? {
            if let Some(mark) = &entry.mark {
                return Ok(entry.lsn > self.newest() || self.told(entry.lsn, mark).is_some());
            }
        }
        Ok(true)
    }

    /// Compares what was read with what waits.
    ///
    /// A position alone would not do. After the journal was lost or put back from a copy, or when a gateway that was
    /// replaced comes back, the outbox may hold something else at it, and that would be passed over.
    ///
    /// Where the records do not reach back far enough, the first entry that they know proves those before it: the
    /// outbox that it was sent from began as this one does. It proves only what lies before everything that the records
    /// name up to its transaction: anything later would have a record of its own.
    fn settle(&mut self, outbox: Outbox<'_>) -> Result<(), Error> {
        let least = std::mem::take(&mut self.least);
        let (newest, mut waiting, mut missing) = (self.newest(), outbox(), Vec::new());
        while let Some(entry) = waiting().map_err(Error::Outbox)? {
            if entry.lsn > newest {
                break;
            }
            let Some(mark) = entry.mark else { continue };
            if let Some(transaction) = self.told(entry.lsn, &mark) {
                if !self.is_complete() {
                    let sent = least.range(..=transaction).map(|(_, lsn)| *lsn).min();
                    self.through = sent.unwrap_or(entry.lsn).saturating_sub(1);
                    missing.retain(|lsn| *lsn > self.through);
                }
                break;
            }
            missing.push(entry.lsn);
        }
        if !missing.is_empty() {
            tracing::error!(
                newest,
                missing = missing.len(),
                "the progress that the broker holds is not that of this outbox (was the journal put back or removed, \
                 or do two gateways have this id?): all that waits is sent, so a release may come twice, with the \
                 same `ce_id`"
            );
        }
        Ok(())
    }
}

/// Reads the records.
pub(super) struct Reader<'r> {
    asker: &'r Asker,
    committed: BaseConsumer<Heard>,
    heard: &'r Heard,
    settings: &'r Settings,
}

impl<'r> Reader<'r> {
    /// No group is joined and nothing is committed under its name.
    pub(super) fn new(settings: &'r Settings, group: &str, heard: &'r Heard, asker: &'r Asker) -> Result<Self, Error> {
        let mut config = settings.client()?;
        config.set("group.id", group).set("isolation.level", "read_committed").set("enable.auto.commit", "false");
        config.set("enable.partition.eof", "true").set("auto.offset.reset", "earliest");
        config.set("allow.auto.create.topics", "false");
        let committed: BaseConsumer<Heard> = create(&config, heard)?;
        // For its token, if it has one.
        let _ = committed.poll(Duration::ZERO);
        Ok(Self { asker, committed, heard, settings })
    }

    /// What is committed of a topic's records with a key. To be called when no transaction of the key's producer is open: the end
    /// of the topic at the call is then beyond all that it ever wrote, and what others write after it does not matter.
    ///
    /// If a transaction stays open for long, `nudge` is called, once.
    pub(super) fn read(
        &self,
        topic: &str,
        key: &str,
        cursor: Lsn,
        outbox: Outbox<'_>,
        watch: Watch<'_>,
        nudge: impl FnOnce(),
    ) -> Result<Known, Error> {
        let began = (watch.now)();
        let deadline = began + READ_WITHIN;
        let go_on = |doing: &'static str| {
            if (watch.stops)() {
                return Err(Error::Stopped);
            }
            let now = (watch.now)();
            if now.saturating_sub(began) > STALLED_AFTER {
                (watch.stalled)(Error::Slow(doing));
            }
            (now < deadline).then_some(()).ok_or(Error::TimedOut(doing, READ_WITHIN))
        };
        let (low, end) = self.asker.watermarks(topic, PARTITION, watch)?;
        // For `read_committed` the topic ends where the first open transaction begins, be it another gateway's: our
        // records may lie beyond.
        let mut nudge = Some(nudge);
        while self.stable_end(topic)? < end {
            go_on("waiting for an open transaction in the progress topic, which may be another gateway's")?;
            if let Some(nudge) = nudge.take_if(|_| (watch.now)().saturating_sub(began) > STALLED_AFTER) {
                nudge();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut known = Known::default();
        for tail in TAILS {
            let from = low.max(end.saturating_sub(tail));
            known = self.read_from(topic, key, from..end, cursor, &go_on)?;
            if from == low || known.is_enough(outbox)? {
                break;
            }
        }
        known.settle(outbox)?;
        Ok(known)
    }

    fn stable_end(&self, topic: &str) -> Result<i64, Error> {
        let asked = self.committed.fetch_watermarks(topic, PARTITION, SLICE * 10);
        asked.map(|(_, end)| end).map_err(|error| {
            self.heard.explain(error, &self.settings.brokers, "asking for the end of the progress topic")
        })
    }

    fn read_from(
        &self,
        topic: &str,
        key: &str,
        Range { start: from, end }: Range<i64>,
        cursor: Lsn,
        go_on: &dyn Fn(&'static str) -> Result<(), Error>,
    ) -> Result<Known, Error> {
        let doing = "reading the progress topic";
        let mut known = Known::default();
        if from >= end {
            return Ok(known);
        }
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_offset(topic, PARTITION, Offset::Offset(from))?;
        self.committed.assign(&partitions)?;
        loop {
            match self.committed.poll(SLICE) {
                Some(Ok(message)) => {
                    if message.offset() < end && is_ours(message.key().unwrap_or_default(), key) {
                        match message.payload().and_then(Record::from_json) {
                            Some(record) => known.add(record, cursor),
                            // Another version's. Better to send again than to lose.
                            None => {
                                tracing::error!(
                                    topic,
                                    offset = message.offset(),
                                    "a progress record cannot be read; what waits is sent again. Check who writes to the progress topic"
                                )
                            }
                        }
                    }
                    // What comes after the end is not ours. Others may go on writing for ever.
                    if message.offset() >= end - 1 {
                        return Ok(known);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(known),
                Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                    return Err(topic::not_allowed(topic, PROGRESS));
                }
                Some(Err(error)) => {
                    go_on(doing).map_err(|_| self.heard.explain(error.clone(), &self.settings.brokers, doing))?;
                    tracing::debug!(%error, topic, "reading goes on");
                }
                None => go_on(doing)?,
            }
        }
    }

    /// Closes the client.
    pub(super) fn close(self) {
        close(self.committed);
    }
}

/// Whether a record's key is one of a destination's.
fn is_ours(key: &[u8], prefix: &str) -> bool {
    key.strip_prefix(prefix.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"#"))
}

#[cfg(test)]
mod tests {
    use super::super::Waiting;
    use super::*;

    /// The mark of an entry with releases of these ids.
    fn mark(ids: &str) -> Mark {
        Mark::of_ids(&ids.split(' ').collect::<Vec<_>>()).unwrap()
    }

    /// The records of one entry per transaction, with the ids of its releases.
    fn records(from: u64, entries: &[(Lsn, &str)]) -> Vec<Record> {
        let numbered = entries.iter().zip(from..);
        let record = |((lsn, ids), transaction): (&(Lsn, &str), u64)| {
            let mut record = Record::new(transaction);
            record.entry(*lsn, mark(ids).text());
            record
        };
        numbered.map(record).collect()
    }

    /// The entries of an outbox that would be sent.
    fn sent<'a>(records: Vec<Record>, cursor: Lsn, outbox: &[(Lsn, &'a str)]) -> Vec<(Lsn, &'a str)> {
        let mut known = Known::default();
        records.into_iter().for_each(|record| known.add(record, cursor));
        let entries = || {
            let mut left = outbox.iter().filter(|(lsn, _)| *lsn > cursor);
            let next = move || Ok(left.next().map(|(lsn, ids)| Waiting { lsn: *lsn, mark: Some(mark(ids)) }));
            Box::new(next) as Box<dyn FnMut() -> _>
        };
        known.settle(&entries).unwrap();
        outbox.iter().filter(|(lsn, ids)| *lsn > cursor && !known.has(*lsn, &mark(ids))).copied().collect()
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_so_are_those_of_older_versions() {
        let mut record = Record::new(12);
        record.entry(3, mark("0123456789abcdef0123456789abcdef").text());
        record.part(4, &mark("a b").of_cut([b"one".as_slice(), b"two"].into_iter()), 2, 5);
        let golden = include_str!("../../../tests/golden/kafka-progress-4.json").trim_end();
        assert_eq!(record.to_json().unwrap(), golden);
        assert_eq!(Record::from_json(golden.as_bytes()), Some(record));
        let third = Record::from_json(include_bytes!("../../../tests/golden/kafka-progress-3.json")).unwrap();
        let part = Some(Part(4, mark("a b").text().to_owned(), 2, 5));
        let entries = vec![Sent(3, "0123456789abcdef".to_owned())];
        assert_eq!(third, Record { version: 3, transaction: 12, sent: entries, part });
        let second = Record::from_json(include_bytes!("../../../tests/golden/kafka-progress-2.json")).unwrap();
        let part = Some(Part(4, "ff".to_owned(), 2, 5));
        let entries = vec![Sent(3, "0123456789abcdef".to_owned())];
        assert_eq!(second, Record { version: 2, transaction: 12, sent: entries, part });
        let first = Record::from_json(include_bytes!("../../../tests/golden/kafka-progress-1.json")).unwrap();
        let entries = vec![Sent(3, "0123456789abcdef".to_owned()), Sent(9, "ff".to_owned())];
        assert_eq!(first, Record { version: 1, transaction: 0, sent: entries, part: None });
        assert_eq!(Record::from_json(b"12"), None);
        assert_eq!(Record::from_json(b"{\"version\":5,\"sent\":[]}"), None);
    }

    #[test]
    fn records_of_version_2_name_the_last_release() {
        let record = Record { version: 2, transaction: 1, sent: vec![Sent(3, "d".to_owned())], part: None };
        assert_eq!(sent(vec![record], 2, &[(3, "c d"), (4, "e")]), [(4, "e")]);
        let mut known = Known::default();
        known.add(Record { version: 2, transaction: 1, sent: vec![], part: Some(Part(3, "d".to_owned(), 2, 5)) }, 2);
        assert_eq!((known.part_of(3, &mark("c d"), "", 5), known.part_of(3, &mark("c x"), "", 5)), (2, 0));
    }

    #[test]
    fn the_broker_may_be_ahead_of_the_cursor() {
        let records = || records(1, &[(3, "c"), (4, "d"), (5, "e")]);
        let outbox = [(3, "c"), (4, "d"), (5, "e"), (6, "f")];
        assert_eq!(sent(records(), 2, &outbox), [(6, "f")]);
        assert_eq!(sent(records(), 0, &outbox[2..]), [(6, "f")], "the cursor is lost");
        assert_eq!(sent(records(), 7, &[(8, "h")]), [(8, "h")], "records are lost");
        assert_eq!(sent(Vec::new(), 2, &outbox), outbox);
    }

    #[test]
    fn another_outbox_is_not_passed_over() {
        let records = || records(1, &[(3, "c"), (4, "d"), (5, "e")]);
        let other = [(1, "x"), (2, "y"), (3, "z")];
        assert_eq!(sent(records(), 0, &other), other, "a new journal");
        let copy = [(3, "c"), (4, "y"), (5, "z")];
        assert_eq!(sent(records(), 2, &copy), [(4, "y"), (5, "z")], "a copy that went on");
        assert_eq!(sent(records(), 0, &[(8, "h")]), [(8, "h")], "everything before was confirmed");
    }

    #[test]
    fn an_entry_that_only_ends_as_another_did_is_not_passed_over() {
        let outbox = [(3, "a b"), (4, "x d"), (5, "e")];
        assert_eq!(sent(records(1, &[(3, "a b"), (4, "c d"), (5, "e")]), 2, &outbox), [(4, "x d")]);
        let mut known = Known::default();
        let mut record = Record { version: 3, ..Record::new(1) };
        record.part(4, mark("c d").text(), 2, 5);
        known.add(record, 2);
        assert_eq!((known.part_of(4, &mark("c d"), "", 5), known.part_of(4, &mark("x d"), "", 5)), (2, 0));
    }

    #[test]
    fn one_that_was_replaced_comes_back_and_sends_nothing_twice_however_much_its_successor_sent() {
        let ids: Vec<String> = (1..=10_000).map(|lsn| format!("id-{lsn}")).collect();
        let all: Vec<(Lsn, &str)> = (1..).zip(ids.iter().map(String::as_str)).collect();
        let mut written = records(1, &all);
        let its_own = [(15, "id-15"), (16, "mine"), (17, "mine too")];
        assert_eq!(sent(written.clone(), 5, &[&all[5..14], &its_own].concat()), its_own[1..]);
        // What it sends takes nothing away from what the successor knows when that comes back, even without a cursor.
        written.extend(records(10_001, &its_own[1..]));
        assert_eq!(sent(written.clone(), 0, &all), []);
        // Nor when the oldest records are gone.
        assert_eq!(sent(written.split_off(5_000), 0, &all), []);
    }

    #[test]
    fn where_the_records_do_not_reach_back_the_first_that_is_known_proves_those_before_it() {
        let late = || records(70_000, &[(9, "i"), (10, "j")]);
        let outbox = [(7, "g"), (8, "h"), (9, "i"), (10, "j"), (11, "k")];
        assert_eq!(sent(late(), 6, &outbox), [(11, "k")]);
        let other = [(7, "g"), (8, "h"), (9, "x")];
        assert_eq!(sent(late(), 6, &other), other);
        let copy = [(8, "h"), (9, "x"), (10, "j"), (11, "k")];
        assert_eq!(sent(late(), 6, &copy), [(9, "x"), (11, "k")], "of the ninth there would be a record");
        assert_eq!(sent(late(), 8, &copy), [(9, "x"), (11, "k")]);
        assert_eq!(sent(late(), 9, &copy), [(11, "k")]);
        let version_1 = Record { version: 1, transaction: 0, sent: vec![Sent(9, "i".to_owned())], part: None };
        assert_eq!(sent(vec![version_1], 6, &outbox), [(10, "j"), (11, "k")]);
    }

    #[test]
    fn of_an_entry_that_was_committed_in_part_the_rest_is_sent_if_it_is_cut_alike() {
        let mut known = Known::default();
        for (transaction, done) in [(1, 2), (2, 4)] {
            let mut record = Record::new(transaction);
            record.part(3, &mark("c").of_cut([b"1".as_slice(), b"2", b"3", b"45", b"6"].into_iter()), done, 5);
            known.add(record, 2);
        }
        let part_of = |ids, cut: [&[u8]; 5]| {
            let mark = mark(ids);
            known.part_of(3, &mark, &mark.of_cut(cut.into_iter()), cut.len())
        };
        assert_eq!(part_of("c", [b"1", b"2", b"3", b"45", b"6"]), 4);
        // As many messages, but the first has what two had: cells that were set aside have room now.
        assert_eq!(part_of("c", [b"12", b"3", b"4", b"5", b"6"]), 0);
        assert_eq!(part_of("x", [b"1", b"2", b"3", b"45", b"6"]), 0);
        assert!(!known.has(3, &mark("c")));
        known.forget(3);
        assert_eq!(known.part_of(3, &mark("c"), &mark("c").of_cut([b"1".as_slice(), b"2"].into_iter()), 5), 0);
    }

    #[test]
    fn keys_of_others_are_not_ours() {
        for (key, ours) in [("g/d", true), ("g/d#7", true), ("g/d2", false), ("g/d2#7", false), ("g", false)] {
            assert_eq!(is_ours(key.as_bytes(), "g/d"), ours, "{key}");
        }
        assert_eq!(Record::new(RING + 7).key("g/d"), "g/d#7");
    }
}
