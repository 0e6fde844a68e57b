//! How far a destination is, as the broker has it: one record per destination in a compacted topic, written in the
//! transaction that holds the releases, so that it says exactly what was committed.

use std::collections::VecDeque;
use std::time::Duration;

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use crate::domain::producer::Lsn;

use super::heard::Heard;
use super::topic::{self, Need, PROGRESS};
use super::{Error, Lookup, SLICE, Settings, Watch, close};

/// The partition of the progress topic that all records are in, however many there are: the place of the newest
/// record does not change with the number of partitions.
pub(super) const PARTITION: i32 = 0;
/// How many of the last entries a record names.
const REMEMBERED: usize = 64;
/// As many letters of a release's id tell it from others.
const ID_LETTERS: usize = 16;
/// How long reading may take. Above the transactions' timeout, since what other gateways have open in the topic hides
/// what comes after it.
const READ_WITHIN: Duration = Duration::from_secs(75);
/// How long one question to the broker may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How many records from the end are read first, and then, if ours is not among them: the topic holds all that were
/// written since its last compaction.
const TAILS: [i64; 3] = [1_000, 100_000, i64::MAX];

/// An entry of the outbox that was committed: its position, and the beginning of its last release's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sent(Lsn, String);

/// What a record holds: the entries that were committed last, the newest last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    sent: VecDeque<Sent>,
}

impl Progress {
    /// With one more entry.
    pub(super) fn and(&self, lsn: Lsn, release: &str) -> Self {
        let mut sent = self.sent.clone();
        sent.push_back(Sent(lsn, short(release)));
        while sent.len() > REMEMBERED {
            sent.pop_front();
        }
        Self { sent }
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::json!({ "version": 1, "position": self.position(), "sent": self.sent }).to_string()
    }

    fn from_json(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// The last entry's position.
    pub(super) fn position(&self) -> Lsn {
        self.sent.back().map_or(0, |sent| sent.0)
    }

    /// Without what is beyond a position.
    pub(super) fn through(mut self, lsn: Lsn) -> Self {
        self.sent.retain(|sent| sent.0 <= lsn);
        self
    }

    /// The position of this outbox through which everything was committed.
    ///
    /// A position alone would not do. After the journal was lost or put back from a copy, or when a gateway that was
    /// replaced comes back, the outbox may hold something else at it, and that would be passed over. So the entry
    /// must also hold the same release; the newest one that does counts.
    pub(super) fn agreed(&self, cursor: Lsn, outbox: Lookup<'_>) -> Result<Lsn, Error> {
        for Sent(lsn, release) in self.sent.iter().rev() {
            if *lsn <= cursor {
                return Ok(cursor);
            }
            let found = outbox(*lsn).map_err(Error::Outbox)?;
            if found.is_some_and(|entry| entry.lsn == *lsn && entry.release.is_some_and(|id| short(&id) == *release)) {
                return Ok(*lsn);
            }
        }
        // Entries before the first one were confirmed and removed.
        let first = outbox(0).map_err(Error::Outbox)?;
        if first.is_some_and(|entry| entry.lsn <= self.position()) {
            tracing::error!(
                position = self.position(),
                cursor,
                "the progress that the broker holds is not that of this outbox (was the journal put back or removed, \
                 or do two gateways have this id?): all that waits is sent, so a release may come twice, with the \
                 same `ce_id`"
            );
        }
        Ok(cursor)
    }
}

fn short(release: &str) -> String {
    release.chars().take(ID_LETTERS).collect()
}

/// Reads clients for the topic: what is there, and what is committed.
pub(super) struct Reader {
    all: BaseConsumer<Heard>,
    committed: BaseConsumer<Heard>,
    heard: Heard,
    brokers: String,
}

impl Reader {
    /// Makes the clients. No group is joined and nothing is committed under its name.
    pub(super) fn new(settings: &Settings, group: &str, heard: &Heard) -> Result<Self, KafkaError> {
        let client = |isolation: &str| {
            let mut config = settings.client();
            config.set("group.id", group).set("isolation.level", isolation).set("enable.auto.commit", "false");
            config.set("enable.partition.eof", "true").set("auto.offset.reset", "earliest");
            config.set("allow.auto.create.topics", "false");
            config.create_with_context::<_, BaseConsumer<Heard>>(heard.clone())
        };
        let (all, committed) = (client("read_uncommitted")?, client("read_committed")?);
        Ok(Self { all, committed, heard: heard.clone(), brokers: settings.brokers.clone() })
    }

    /// That a topic can be used.
    pub(super) fn check(&self, topic: &str, need: Need, watch: Watch<'_>) -> Result<(), Error> {
        let serve = || {
            let _ = self.all.poll(Duration::ZERO);
        };
        topic::check(self.all.client(), &serve, (&self.heard, &self.brokers), (topic, need), watch)
    }

    /// The last committed record of a key. To be called when no transaction of the key's producer is open.
    pub(super) fn read(&self, topic: &str, key: &str, watch: Watch<'_>) -> Result<Progress, Error> {
        let deadline = (watch.now)() + READ_WITHIN;
        let go_on = || {
            if (watch.stops)() {
                return Err(Error::Stopped);
            }
            let left = (watch.now)() < deadline;
            left.then_some(()).ok_or(Error::TimedOut("reading the progress topic to its end", READ_WITHIN))
        };
        let asking = "asking for the end of the progress topic";
        let (low, end) = self
            .all
            .fetch_watermarks(topic, PARTITION, ANSWER_WITHIN)
            .map_err(|error| self.heard.explain(error, &self.brokers, asking))?;
        // For `read_committed` the topic ends where the first open transaction begins, be it another gateway's: our
        // record may lie beyond.
        while self.committed.fetch_watermarks(topic, PARTITION, ANSWER_WITHIN)?.1 < end {
            go_on()?;
            std::thread::sleep(Duration::from_millis(50));
        }
        for tail in TAILS {
            let from = low.max(end.saturating_sub(tail));
            let found = self.read_from(topic, key, from, &go_on)?;
            if let Some(found) = found {
                return Ok(found);
            }
            if from == low {
                break;
            }
        }
        Ok(Progress::default())
    }

    fn read_from(
        &self,
        topic: &str,
        key: &str,
        from: i64,
        go_on: &dyn Fn() -> Result<(), Error>,
    ) -> Result<Option<Progress>, Error> {
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_offset(topic, PARTITION, Offset::Offset(from))?;
        self.committed.assign(&partitions)?;
        let mut found = None;
        loop {
            match self.committed.poll(SLICE) {
                Some(Ok(message)) if message.key() == Some(key.as_bytes()) => {
                    // One that cannot be read is another version's: better to send again than to lose.
                    found = message.payload().and_then(Progress::from_json);
                    if found.is_none() {
                        tracing::error!(
                            topic,
                            offset = message.offset(),
                            "a progress record cannot be read; what waits is sent again. Check who writes to the \
                             progress topic"
                        );
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(found),
                Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                    return Err(topic::not_allowed(topic, PROGRESS));
                }
                Some(Err(error)) => {
                    go_on().map_err(|_| self.heard.explain(error.clone(), &self.brokers, "reading the progress"))?;
                    tracing::debug!(%error, topic, "reading goes on");
                }
                Some(Ok(_)) | None => go_on()?,
            }
        }
    }

    /// Closes the clients.
    pub(super) fn close(self) {
        close(self);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Waiting;
    use super::*;

    /// The outbox that holds, at these positions, releases of these ids.
    fn agreed(progress: &Progress, cursor: Lsn, outbox: &[(Lsn, &str)]) -> Lsn {
        let lookup = |from| {
            let entry = outbox.iter().find(|(lsn, _)| *lsn >= from);
            Ok(entry.map(|(lsn, release)| Waiting { lsn: *lsn, release: Some((*release).to_owned()) }))
        };
        progress.agreed(cursor, &lookup).unwrap_or(Lsn::MAX)
    }

    fn progress(sent: &[(Lsn, &str)]) -> Progress {
        sent.iter().fold(Progress::default(), |progress, (lsn, release)| progress.and(*lsn, release))
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let written = progress(&[(3, "0123456789abcdef0123456789abcdef"), (9, "ff")]);
        assert_eq!(Progress::from_json(written.to_json().as_bytes()), Some(written.clone()));
        assert_eq!((written.position(), written.sent.len()), (9, 2));
        assert_eq!(Progress::from_json(b"12"), None);
        let long = (1..=1_000).fold(Progress::default(), |progress, lsn| progress.and(lsn, "a"));
        assert_eq!((long.position(), long.sent.len()), (1_000, REMEMBERED));
        assert!(long.to_json().len() < 4_096);
    }

    #[test]
    fn the_broker_may_be_ahead_of_the_cursor() {
        let sent = progress(&[(3, "c"), (4, "d"), (5, "e")]);
        assert_eq!(agreed(&sent, 2, &[(3, "c"), (4, "d"), (5, "e"), (6, "f")]), 5);
        assert_eq!(agreed(&sent, 0, &[(5, "e"), (6, "f")]), 5, "the cursor is lost");
        assert_eq!(agreed(&sent, 7, &[(8, "h")]), 7, "the progress is lost in part");
        assert_eq!(agreed(&Progress::default(), 2, &[(3, "c")]), 2);
    }

    #[test]
    fn another_outbox_is_not_passed_over() {
        let sent = progress(&[(3, "c"), (4, "d"), (5, "e")]);
        assert_eq!(agreed(&sent, 0, &[]), 0, "a new journal");
        assert_eq!(agreed(&sent, 0, &[(1, "x"), (2, "y"), (3, "z")]), 0, "a new journal");
        assert_eq!(agreed(&sent, 0, &[(1, "a"), (2, "b"), (3, "c"), (4, "y"), (5, "z")]), 3, "a copy that went on");
        assert_eq!(agreed(&sent, 2, &[(3, "c"), (4, "d")]), 4, "one that was replaced comes back");
        assert_eq!(agreed(&sent, 0, &[(8, "h")]), 0, "everything before was confirmed");
    }

    #[test]
    fn what_is_not_agreed_is_forgotten() {
        assert_eq!(progress(&[(3, "c"), (4, "d")]).through(3), progress(&[(3, "c")]));
    }
}
