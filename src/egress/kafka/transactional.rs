//! Exactly once: releases and a record of their entries are one transaction. What was committed, the broker says:
//! whenever an outcome is not clear, the producer is given up, a new one fences it, and the records are read before
//! anything is sent again.
//!
//! # An end that comes late
//!
//! The broker (before KIP-890) cannot tell the end of one transaction from the end of the next under the same epoch. A
//! request that was held up somewhere while librdkafka sent it again, and then arrives, would commit what the next
//! transaction has so far, without its record. So no transaction begins before it is known that the end of the one
//! before was sent once: librdkafka counts its requests. If it was sent again, the next one gets a new epoch.
//!
//! # A transaction that nobody ends
//!
//! A broker that crashes at a commit can forget to mark it in the partitions (Kafka 4.3: "partitions are likely deleted already
//! and hence can be skipped"). Its coordinator then knows of no open transaction, and the partitions have one, which everybody
//! waits for until somebody runs `kafka-transactions.sh abort`. The end of a later transaction of the same producer in the same
//! partition ends it. So a producer that has waited for long, and has its new epoch, begins one in the progress topic and aborts
//! it. What the lost mark was for is sent again, unless the cursor is beyond it. The next commit in a partition of the releases
//! makes visible what was there: so a release may come twice there. If that next transaction is aborted, what was there is gone,
//! although the broker had confirmed it: only the broker can mend that.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::domain::policy::Released;
use crate::storage::Lsn;

use super::fenced::Fenced;
use super::heard::Heard;
use super::limit::{self, Aside, Cut, Limit};
use super::mark::Mark;
use super::progress::{self, Known, Record};
use super::queue::{Item, Queue};
use super::security::{Replaced, Security};
use super::topic::{self, Asker, PROGRESS, RELEASES};
use super::window::Window;
use super::within::Within;
use super::{Confirmed, Error, Outbox, SLICE, Sender, Settings, Stall, Watch, close, create};

/// How long librdkafka waits for the answer to a request, unless it is said.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// The time between two looks at whether the messages of a transaction are all delivered.
const LOOK: Duration = Duration::from_millis(1);
/// How long the broker may take to give a producer its epoch: it ends first what an earlier one left open.
const EPOCH_WITHIN: Duration = Duration::from_secs(20);
/// How long it may take for a commit. After that nobody but the broker knows.
const COMMIT_WITHIN: Duration = Duration::from_secs(10);
/// How long each step of ending what nobody ends may take.
const NUDGE_WITHIN: Duration = Duration::from_secs(2);
/// How often librdkafka counts its requests, and how long that may take.
const COUNT_EVERY: Duration = Duration::from_millis(100);
const COUNT_WITHIN: Duration = Duration::from_secs(2);
/// The most entries of one transaction: its record names each.
const ENTRIES_MAX: usize = 256;

type Transactions = BaseProducer<Heard>;

pub(super) struct Transactional {
    settings: Settings,
    heard: Heard,
    progress_topic: String,
    /// `bailiwick/GATEWAY/DESTINATION`.
    id: String,
    /// `GATEWAY/DESTINATION`.
    key: String,
    /// `None`: `resume` is due.
    producer: Option<Transactions>,
    limit: Limit,
    /// The largest message that may be tried, when the broker refuses larger ones and does not tell its limit.
    learned: Option<usize>,
    known: Known,
    /// The number of the next transaction.
    next: u64,
    /// The ends of transactions that this producer was told to send.
    ends: i64,
    queue: Queue,
    window: Window,
    within: Within,
    fenced: Fenced,
    replaced: Replaced,
}

/// What a progress record says of an entry: its mark, that of the messages it is cut into, and how many these are.
#[derive(Default)]
pub(super) struct Said {
    mark: String,
    cut: String,
    of: usize,
}

/// A transaction to be sent.
struct Batch {
    messages: Vec<(Lsn, limit::Message)>,
    bytes: usize,
    record: Record,
}

impl Transactional {
    pub(super) fn new(settings: Settings, progress_topic: String, sender: &Sender) -> Self {
        let key = sender.name();
        let limit = settings.limit(None, None);
        Self {
            heard: Heard::new(&settings.security),
            settings,
            progress_topic,
            id: format!("bailiwick/{key}"),
            key,
            producer: None,
            limit,
            learned: None,
            known: Known::default(),
            next: 1,
            ends: 0,
            queue: Queue::default(),
            window: Window::default(),
            within: Within::default(),
            fenced: Fenced::default(),
            replaced: Replaced::default(),
        }
    }

    fn producer(&self) -> Result<Transactions, Error> {
        let millis = |duration: Duration| duration.as_millis().to_string();
        let mut config = self.settings.producer(self.limit)?;
        if !self.settings.options.contains_key("linger.ms") {
            // A transaction is whole when it is sent: there is nothing to wait for.
            config.set("linger.ms", "0");
        }
        if self.within.delivery() > ANSWER_WITHIN && !self.settings.options.contains_key("socket.timeout.ms") {
            config.set("socket.timeout.ms", millis(self.within.delivery()));
        }
        config
            .set("transactional.id", &self.id)
            .set("transaction.timeout.ms", millis(self.within.transaction()))
            .set("message.timeout.ms", millis(self.within.delivery()))
            .set("statistics.interval.ms", millis(COUNT_EVERY));
        let producer: Transactions = create(&config, &self.heard)?;
        // For its token, if it has one.
        producer.poll(Duration::ZERO);
        Ok(producer)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.producer.is_some()
    }

    pub(super) fn resume(&mut self, cursor: Lsn, outbox: Outbox<'_>, watch: Watch<'_>) -> Result<(), Error> {
        self.give_up();
        self.fenced.wait(watch)?;
        self.replaced.begin(&self.settings.security);
        let asker = Asker::new(&self.settings, &self.heard)?;
        let begun = self.begin(&asker, cursor, outbox, watch);
        close(asker);
        begun.map_err(|error| {
            self.give_up();
            if let Error::Step(_, cause) = &error
                && cause.rdkafka_error_code() == Some(RDKafkaErrorCode::InvalidTransactionTimeout)
            {
                self.within.refused();
            }
            self.named(error)
        })
    }

    fn begin(&mut self, asker: &Asker, cursor: Lsn, outbox: Outbox<'_>, watch: Watch<'_>) -> Result<(), Error> {
        let (topic, progress) = (self.settings.topic.as_str(), self.progress_topic.as_str());
        asker.check(topic, RELEASES, watch)?;
        asker.check(progress, PROGRESS, watch)?;
        let configs = asker.configs(&[topic, progress], watch);
        topic::warn_of_retention(progress, &configs);
        self.limit = self.settings.limit(self.settings.topic_bytes(&configs), self.learned);
        self.heard = self.heard.for_another();
        let producer = self.producer()?;
        let patience = Patience::new(&self.heard, &self.settings, &self.replaced, watch);
        // First this one has the id for itself, and what an earlier one left open is ended. Only then is what is
        // committed all that will be.
        patience.sliced("getting an epoch", EPOCH_WITHIN, &producer, |slice| producer.init_transactions(slice))?;
        let reader = progress::Reader::new(&self.settings, &self.id, &self.heard, asker)?;
        self.ends = 0;
        let nudge = || self.ends += i64::from(end_what_nobody_ends(&producer, progress, &self.key));
        let known = reader.read(progress, &self.key, cursor, outbox, watch, nudge);
        reader.close();
        self.known = known?;
        if self.ends > 0 {
            // What was counted before does not have that end.
            drain(&producer, &self.heard);
            self.heard.forget_ends();
        }
        self.next = self.known.next_transaction();
        let position = self.known.position(cursor);
        tracing::info!(id = self.id, position, cursor, transaction = self.next, "going on in kafka");
        self.producer = Some(producer);
        Ok(())
    }

    /// What a failure means, as far as it has a name.
    fn named(&self, error: Error) -> Error {
        let (doing, cause) = match error {
            Error::Step(doing, cause) => (doing, cause),
            Error::Client(cause) => ("working", cause),
            named => return named,
        };
        match cause.rdkafka_error_code() {
            Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed) => Error::NotAllowed {
                what: "the transactional id",
                name: self.id.clone(),
                operations: "Write and Describe",
            },
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => topic::not_allowed(&self.settings.topic, RELEASES),
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => {
                Error::NotAllowed { what: "the consumer group", name: self.id.clone(), operations: "Read" }
            }
            _ => self.heard.explain(cause, &self.settings.brokers, doing),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.queue.unsent_bytes() < self.window.bytes() && self.queue.items.len() < ENTRIES_MAX
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// The messages of an entry that the broker does not have yet, and what its progress record will say of it; `None` if the
    /// broker has it.
    pub(super) fn messages(&self, lsn: Lsn, releases: &[Released]) -> Result<Option<(Said, Cut)>, Error> {
        let mark = Mark::of(releases).filter(|mark| !self.known.has(lsn, mark));
        let Some(mark) = mark else { return Ok(None) };
        let mut cut = limit::cut_all(releases, self.settings.format, self.limit)?;
        let of = cut.messages.len();
        let of_cut = mark.of_cut(cut.messages.iter().map(|message| &*message.value));
        cut.messages.drain(..self.known.part_of(lsn, &mark, &of_cut, of).min(of));
        Ok(Some((Said { mark: mark.text().to_owned(), cut: of_cut, of }, cut)))
    }

    pub(super) fn take(&mut self, lsn: Lsn, releases: &[Released]) -> Result<Vec<Aside>, Error> {
        let (said, cut) = self.messages(lsn, releases)?.unwrap_or_default();
        let item = Item { of: said.of, mark: said.mark, cut: said.cut, ..Item::new(lsn, releases.len(), cut.messages) };
        self.queue.push(item);
        Ok(cut.aside)
    }

    pub(super) fn advance(&mut self, watch: Watch<'_>) -> Result<Option<Confirmed>, Error> {
        let Some(producer) = &self.producer else { return Err(Error::NoProducer) };
        if self.queue.unsent_bytes() == 0 {
            drain(producer, &self.heard);
            let finished = self.queue.finished();
            if finished.is_some() {
                return Ok(finished);
            }
        }
        // No transaction is open.
        if self.replaced.is_due(&self.settings.security, (watch.now)()) {
            return Err(Error::Replaced);
        }
        if self.queue.unsent_bytes() == 0 {
            return Ok(None);
        }
        self.sent_once(producer, watch)?;
        let batch = self.batch();
        match self.transaction(&batch, watch) {
            Ok(time) => {
                self.window.took(batch.bytes, time);
                self.within.took(time);
                self.next += 1;
                for (lsn, message) in &batch.messages {
                    self.queue.confirmed(*lsn, message.bytes);
                }
                let finished = self.queue.finished();
                if let Some(confirmed) = &finished {
                    self.known.forget(confirmed.through);
                }
                Ok(finished)
            }
            Err(error) => Err(self.failed(error, batch.messages.len(), watch)),
        }
    }

    /// As many messages as the line carries in a short time, in order.
    fn batch(&mut self) -> Batch {
        let mut batch = Batch { messages: Vec::new(), bytes: 0, record: Record::new(self.next) };
        loop {
            let room = if batch.messages.is_empty() { usize::MAX } else { self.window.bytes() };
            let Some((lsn, message)) = self.queue.next(room.saturating_sub(batch.bytes)) else { break };
            batch.bytes += message.bytes;
            batch.messages.push((lsn, message));
        }
        for item in self.queue.items.iter().filter(|item| item.unconfirmed > 0) {
            if item.unsent.is_empty() {
                batch.record.entry(item.lsn, &item.mark);
            } else {
                batch.record.part(item.lsn, &item.cut, item.of - item.unsent.len(), item.of);
            }
        }
        batch
    }

    /// One transaction, committed. How long the messages took.
    fn transaction(&mut self, batch: &Batch, watch: Watch<'_>) -> Result<Duration, Error> {
        let Some(producer) = &self.producer else { return Err(Error::NoProducer) };
        let sent = |error: KafkaError| Error::Step("sending", error);
        let value = batch.record.to_json().map_err(|error| Error::Progress(error.to_string()))?;
        producer.begin_transaction().map_err(|error| Error::Step("beginning a transaction", error))?;
        let _ = self.heard.reports();
        let began = (watch.now)();
        for (number, (_, message)) in batch.messages.iter().enumerate() {
            let record = BaseRecord::with_opaque_to(&self.settings.topic, number)
                .key(&message.key)
                .payload(&message.value)
                .headers(message.headers.clone());
            producer.send(record).map_err(|(error, _)| sent(error))?;
        }
        let (key, last) = (batch.record.key(&self.key), batch.messages.last().map_or(0, |(lsn, _)| *lsn));
        let position = last.to_string();
        let header = Header { key: "bailiwick_position", value: Some(&position) };
        let record = BaseRecord::with_opaque_to(&self.progress_topic, batch.messages.len())
            .partition(progress::PARTITION)
            .key(&key)
            .payload(&value)
            .headers(OwnedHeaders::new().insert(header));
        producer.send(record).map_err(|(error, _)| sent(error))?;
        let patience = Patience::new(&self.heard, &self.settings, &self.replaced, watch);
        patience.all_reported(producer, batch.messages.len() + 1, self.within.delivery())?;
        let took = (watch.now)().saturating_sub(began);
        self.ends += 1;
        patience.sliced("committing", COMMIT_WITHIN, producer, |slice| producer.commit_transaction(slice))?;
        // What was counted before is of no use. The client counts and hands on in one thread, so what it has counted
        // is there by now.
        drain(producer, &self.heard);
        self.heard.forget_ends();
        Ok(took)
    }

    /// Whether the end of the last transaction was sent once: if not, or if nobody knows, the producer is not used
    /// again.
    fn sent_once(&self, producer: &Transactions, watch: Watch<'_>) -> Result<(), Error> {
        if self.ends == 0 {
            return Ok(());
        }
        let deadline = (watch.now)() + COUNT_WITHIN;
        loop {
            match self.heard.ends() {
                Some(ends) if ends == self.ends => return Ok(()),
                Some(_) => return Err(Error::SentTwice),
                None if (watch.stops)() => return Err(Error::Stopped),
                None if (watch.now)() > deadline => return Err(Error::SentTwice),
                None => producer.poll(LOOK * 5),
            }
        }
    }

    /// After a failure nobody but the broker knows what was committed of so many messages: the producer is given up.
    fn failed(&mut self, error: Error, messages: usize, watch: Watch<'_>) -> Error {
        let fatal = self.producer.as_ref().and_then(|producer| producer.client().fatal_error()).map(|(code, _)| code);
        let cause = match &error {
            Error::Client(cause) | Error::Step(_, cause) => cause.rdkafka_error_code(),
            _ => None,
        };
        self.give_up();
        if let Error::Replaced = error {
            return error;
        }
        let codes = [cause, fatal];
        let is_fenced = codes.into_iter().flatten().any(|code| {
            matches!(
                code,
                RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch
            )
        });
        if is_fenced {
            self.fenced.again((watch.now)());
            return Error::Fenced(self.id.clone());
        }
        if cause == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
            self.learned = Some(self.limit.halved());
            return Error::SizeRefused { bytes: self.limit.bytes, topic: self.settings.topic.clone() };
        }
        let is_least = messages == 1 || self.window.is_least();
        self.window.failed();
        if cause == Some(RDKafkaErrorCode::MessageTimedOut) || matches!(error, Error::TimedOut("sending", _)) {
            self.within.failed(is_least);
        }
        self.named(error)
    }

    /// Forgets what is on its way.
    pub(super) fn give_up(&mut self) {
        if let Some(producer) = self.producer.take() {
            close(producer);
        }
        self.queue.clear();
    }
}

/// Aborts a transaction with a message in the progress topic, which nobody reads: with it ends whatever a former producer with
/// the same id left open there. Whether its end was sent.
fn end_what_nobody_ends(producer: &Transactions, topic: &str, key: &str) -> bool {
    let ended = (|| {
        producer.begin_transaction()?;
        let record = BaseRecord::with_opaque_to(topic, 0).partition(progress::PARTITION).key(key).payload("");
        let sent = producer.send(record).map_err(|(error, _)| error);
        sent.and_then(|()| producer.flush(NUDGE_WITHIN))
    })();
    let aborted = producer.abort_transaction(NUDGE_WITHIN);
    match ended.and(aborted) {
        Ok(()) => {
            tracing::warn!(
                topic,
                "a transaction stays open in the progress topic. If it was one of this gateway's, it is ended now, and a release \
                 may come twice, with the same `ce_id`"
            );
            true
        }
        Err(error) => {
            tracing::debug!(%error, topic, "a transaction could not be aborted");
            false
        }
    }
}

/// Hears everything that the client has to say by now.
fn drain(producer: &Transactions, heard: &Heard) {
    loop {
        // Without a wait it says one thing at a time.
        let calls = heard.calls();
        producer.poll(Duration::ZERO);
        if heard.calls() == calls {
            return;
        }
    }
}

/// Waits, and says why when it takes long.
struct Patience<'p> {
    heard: &'p Heard,
    brokers: &'p str,
    security: &'p Security,
    replaced: &'p Replaced,
    watch: Watch<'p>,
    stall: std::cell::RefCell<Stall>,
}

impl<'p> Patience<'p> {
    fn new(heard: &'p Heard, settings: &'p Settings, replaced: &'p Replaced, watch: Watch<'p>) -> Self {
        let mut stall = Stall::default();
        stall.progress((watch.now)(), heard.errors());
        let Settings { brokers, security, .. } = settings;
        Self { heard, brokers, security, replaced, watch, stall: stall.into() }
    }

    /// Waits until so many messages were delivered.
    fn all_reported(&self, producer: &Transactions, messages: usize, within: Duration) -> Result<(), Error> {
        let deadline = (self.watch.now)() + within + SLICE;
        let mut reported = 0;
        loop {
            producer.poll(LOOK);
            let reports = self.heard.reports();
            if !reports.is_empty() {
                self.stall.borrow_mut().progress((self.watch.now)(), self.heard.errors());
            }
            for report in reports {
                report.outcome.map_err(|error| Error::Step("sending", error))?;
                reported += 1;
            }
            if reported >= messages {
                return Ok(());
            }
            if (self.watch.stops)() {
                return Err(Error::Stopped);
            }
            if (self.watch.now)() > deadline {
                return Err(Error::TimedOut("sending", within));
            }
            self.say("sending")?;
        }
    }

    /// Makes a call that may block in slices, so that a stop need not wait for it. A call that timed out is gone on
    /// with by making it again.
    fn sliced(
        &self,
        what: &'static str,
        within: Duration,
        producer: &Transactions,
        mut call: impl FnMut(Duration) -> Result<(), KafkaError>,
    ) -> Result<(), Error> {
        let watch = self.watch;
        let deadline = (watch.now)() + within;
        loop {
            let began = (watch.now)();
            let called = call(SLICE);
            producer.poll(Duration::ZERO);
            match called {
                Ok(()) => return Ok(()),
                Err(error) if !is_retriable(&error) => return Err(Error::Step(what, error)),
                Err(_) if (watch.stops)() => return Err(Error::Stopped),
                Err(error) if (watch.now)() >= deadline => {
                    tracing::debug!(%error, what, "given up");
                    return Err(Error::TimedOut(what, within));
                }
                // One that does not block at all is not made again at once.
                Err(_) => std::thread::sleep((SLICE / 5).saturating_sub((watch.now)().saturating_sub(began))),
            }
            self.say(what)?;
        }
    }

    /// Says why nothing moves on, when it is time.
    ///
    /// # Errors
    /// When a connection failed and its files were replaced since: it may go with the new ones.
    fn say(&self, doing: &'static str) -> Result<(), Error> {
        let mut stall = self.stall.borrow_mut();
        let errors = self.heard.errors();
        let is_heard = stall.has_heard(errors);
        if stall.is_due((self.watch.now)(), errors) {
            if is_heard && self.replaced.is_due(self.security, (self.watch.now)()) {
                return Err(Error::Replaced);
            }
            let why = if is_heard { self.heard.silence(self.brokers, doing) } else { Error::Slow(doing) };
            (self.watch.stalled)(why);
        }
        Ok(())
    }
}

fn is_retriable(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_retriable() && !error.txn_requires_abort() && !error.is_fatal(),
        // What `commit_transaction` does first.
        KafkaError::Flush(code) => *code == RDKafkaErrorCode::OperationTimedOut,
        _ => false,
    }
}
