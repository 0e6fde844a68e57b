//! Exactly once: the releases of an outbox's entry and the progress record are one transaction. What was committed,
//! the broker says: whenever an outcome is not clear, the producer is given up, a new one fences it, and the progress
//! is read before anything is sent again.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};

use crate::domain::policy::Released;
use crate::domain::producer::Lsn;
use crate::encode;

use super::fenced::Fenced;
use super::heard::Heard;
use super::progress::{self, Progress};
use super::topic::{PROGRESS, RELEASES};
use super::{Error, Lookup, SLICE, STALLED_AFTER, Sender, Settings, Watch, close, headers};

/// How long the broker keeps a transaction open that it hears nothing of.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);
/// How long messages may wait for the broker. Less than the transaction's timeout.
const DELIVERY_WITHIN: Duration = Duration::from_secs(20);
/// The time between two looks at whether the messages of a transaction are all delivered.
const LOOK: Duration = Duration::from_millis(1);
/// How long the broker may take to give a producer its epoch: it ends first what an earlier one left open.
const EPOCH_WITHIN: Duration = Duration::from_secs(20);
/// How long it may take for a commit. After that nobody but the broker knows.
const COMMIT_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take for an abort.
const ABORT_WITHIN: Duration = Duration::from_secs(5);
/// How long librdkafka waits before it sends a request again, at least.
const RETRY_BACKOFF: Duration = Duration::from_secs(1);
/// A commit that took longer may have been sent twice. The broker (before KIP-890) cannot tell a copy that was held up
/// somewhere from the end of the next transaction, so that must be of a new epoch. The backoff is shortened by
/// chance, by up to a fifth.
const SENT_ONCE_WITHIN: Duration = Duration::from_millis(600);

type Transactions = ThreadedProducer<Heard>;

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
    progress: Progress,
    fenced: Fenced,
}

/// What a failure of librdkafka means.
enum Meaning {
    /// The transaction is to be aborted; then all goes on.
    Abort,
    /// Whatever it is, only a new producer helps.
    GiveUp,
}

impl Transactional {
    pub(super) fn new(settings: Settings, progress_topic: String, sender: &Sender) -> Result<Self, Error> {
        let key = sender.name();
        let id = format!("bailiwick/{key}");
        let progress = Progress::default();
        let (heard, fenced) = (Heard::default(), Fenced::default());
        let sink = Self { settings, heard, progress_topic, id, key, producer: None, progress, fenced };
        // Settings that librdkafka does not take are found at the start.
        close(sink.producer()?);
        Ok(sink)
    }

    fn producer(&self) -> Result<Transactions, KafkaError> {
        let millis = |duration: Duration| duration.as_millis().to_string();
        let mut config = self.settings.producer();
        if !self.settings.options.contains_key("linger.ms") {
            // A transaction is small and whole: there is nothing to wait for.
            config.set("linger.ms", "0");
        }
        config
            .set("transactional.id", &self.id)
            .set("transaction.timeout.ms", millis(TRANSACTION_TIMEOUT))
            .set("message.timeout.ms", millis(DELIVERY_WITHIN))
            .set("retry.backoff.ms", millis(RETRY_BACKOFF))
            .set("retry.backoff.max.ms", millis(RETRY_BACKOFF))
            .create_with_context(self.heard.clone())
    }

    pub(super) fn is_ready(&self) -> bool {
        self.producer.is_some()
    }

    pub(super) fn resume(&mut self, cursor: Lsn, outbox: Lookup<'_>, watch: Watch<'_>) -> Result<Lsn, Error> {
        self.give_up();
        self.fenced.wait(watch)?;
        let reader = progress::Reader::new(&self.settings, &self.id, &self.heard)?;
        let agreed = self.begin(&reader, cursor, outbox, watch);
        reader.close();
        agreed
    }

    fn begin(
        &mut self,
        reader: &progress::Reader,
        cursor: Lsn,
        outbox: Lookup<'_>,
        watch: Watch<'_>,
    ) -> Result<Lsn, Error> {
        reader.check(&self.settings.topic, RELEASES, watch)?;
        reader.check(&self.progress_topic, PROGRESS, watch)?;
        let producer = self.producer.insert(self.producer()?);
        // First this one has the id for itself, and what an earlier one left open is ended. Only then is what is
        // committed all that will be.
        let patience = Patience { heard: &self.heard, brokers: &self.settings.brokers, watch };
        let initialised = patience.sliced("getting an epoch", EPOCH_WITHIN, |slice| producer.init_transactions(slice));
        let read = initialised.and_then(|()| reader.read(&self.progress_topic, &self.key, watch));
        let agreed = read.and_then(|progress| Ok((progress.agreed(cursor, outbox)?, progress)));
        match agreed {
            Ok((through, progress)) => {
                tracing::info!(id = self.id, position = progress.position(), cursor, through, "going on in kafka");
                self.progress = progress.through(through);
                Ok(through)
            }
            Err(error) => {
                self.give_up();
                Err(self.named(error))
            }
        }
    }

    /// What a failure means, as far as it has a name.
    fn named(&self, error: Error) -> Error {
        let Error::Step(doing, cause) = error else { return error };
        match cause.rdkafka_error_code() {
            Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed) => Error::NotAllowed {
                what: "the transactional id",
                name: self.id.clone(),
                operations: "Write and Describe",
            },
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Error::NotAllowed {
                what: "the topic or the progress topic of",
                name: self.settings.topic.clone(),
                operations: "Write and Describe, and of the progress topic for Read",
            },
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => {
                Error::NotAllowed { what: "the consumer group", name: self.id.clone(), operations: "Read" }
            }
            _ => self.heard.explain(cause, &self.settings.brokers, doing),
        }
    }

    pub(super) fn send(&mut self, lsn: Lsn, releases: &[Released], watch: Watch<'_>) -> Result<usize, Error> {
        let Some(last) = releases.last() else { return Ok(0) };
        let producer = self.producer.as_ref().ok_or(Error::NoProducer)?;
        let values = releases.iter().map(|released| encode::message(released, self.settings.format));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        let progress = self.progress.and(lsn, last.id());
        match self.transaction(producer, lsn, releases, &values, &progress, watch) {
            Ok(took) => {
                self.progress = progress;
                if took > SENT_ONCE_WITHIN {
                    tracing::info!(id = self.id, ?took, "a commit took long: the next transaction gets a new epoch");
                    self.give_up();
                }
                Ok(values.iter().map(Vec::len).sum())
            }
            Err(error) => {
                let error = self.failed(error, watch);
                Err(self.named(error))
            }
        }
    }

    /// One transaction, committed. How long the commit took.
    fn transaction(
        &self,
        producer: &Transactions,
        lsn: Lsn,
        releases: &[Released],
        values: &[Vec<u8>],
        progress: &Progress,
        watch: Watch<'_>,
    ) -> Result<Duration, Error> {
        producer.begin_transaction().map_err(|error| Error::Step("beginning a transaction", error))?;
        let sent = |error: KafkaError| Error::Step("sending", error);
        for (released, value) in releases.iter().zip(values) {
            let record = BaseRecord::to(&self.settings.topic)
                .key(released.dataset())
                .payload(value)
                .headers(headers(released, self.settings.format));
            producer.send(record).map_err(|(error, _)| sent(error))?;
        }
        let (value, position) = (progress.to_json(), lsn.to_string());
        let header = Header { key: "bailiwick_position", value: Some(&position) };
        let record = BaseRecord::to(&self.progress_topic)
            .partition(progress::PARTITION)
            .key(&self.key)
            .payload(&value)
            .headers(OwnedHeaders::new().insert(header));
        producer.send(record).map_err(|(error, _)| sent(error))?;
        let patience = Patience { heard: &self.heard, brokers: &self.settings.brokers, watch };
        patience.all_reported(producer)?;
        let began = (watch.now)();
        patience.sliced("committing", COMMIT_WITHIN, |slice| producer.commit_transaction(slice))?;
        Ok((watch.now)().saturating_sub(began))
    }

    /// After a failure: aborts the transaction if that is all that it takes, and otherwise gives the producer up.
    fn failed(&mut self, error: Error, watch: Watch<'_>) -> Error {
        let Some(producer) = &self.producer else { return error };
        if let Error::Client(cause) | Error::Step(_, cause) = &error {
            if is_fenced(producer, cause) {
                self.fenced.again((watch.now)());
                self.give_up();
                return Error::Fenced(self.id.clone());
            }
            if let Meaning::Abort = meaning(producer, cause) {
                let began = (watch.now)();
                let patience = Patience { heard: &self.heard, brokers: &self.settings.brokers, watch };
                let aborted = patience.sliced("aborting", ABORT_WITHIN, |slice| producer.abort_transaction(slice));
                if aborted.is_ok() && (watch.now)().saturating_sub(began) < SENT_ONCE_WITHIN {
                    return error;
                }
            }
        }
        self.give_up();
        error
    }

    fn give_up(&mut self) {
        if let Some(producer) = self.producer.take() {
            close(producer);
        }
    }
}

fn meaning(producer: &Transactions, error: &KafkaError) -> Meaning {
    if producer.client().fatal_error().is_some() {
        return Meaning::GiveUp;
    }
    match error {
        KafkaError::Transaction(error) if error.txn_requires_abort() => Meaning::Abort,
        // The message did not get into librdkafka's queue.
        KafkaError::MessageProduction(_) => Meaning::Abort,
        _ => Meaning::GiveUp,
    }
}

fn is_fenced(producer: &Transactions, error: &KafkaError) -> bool {
    let fatal = producer.client().fatal_error().map(|(code, _)| code);
    let codes = [error.rdkafka_error_code(), fatal];
    codes.into_iter().flatten().any(|code| {
        matches!(
            code,
            RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch
        )
    })
}

/// Waits, and says why when it takes long.
struct Patience<'p> {
    heard: &'p Heard,
    brokers: &'p str,
    watch: Watch<'p>,
}

impl Patience<'_> {
    /// Waits until every message was delivered or failed: the commit says which. The producer's own `flush` looks only
    /// every 100 ms.
    fn all_reported(&self, producer: &Transactions) -> Result<(), Error> {
        let began = (self.watch.now)();
        let mut said = began;
        while producer.in_flight_count() > 0 {
            if (self.watch.stops)() {
                return Err(Error::Stopped);
            }
            if (self.watch.now)().saturating_sub(began) > DELIVERY_WITHIN + SLICE {
                return Err(Error::TimedOut("sending", DELIVERY_WITHIN));
            }
            self.say("sending", &mut said);
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Makes a call that may block in slices, so that a stop need not wait for it. A call that timed out is gone on
    /// with by making it again.
    fn sliced(
        &self,
        what: &'static str,
        within: Duration,
        mut call: impl FnMut(Duration) -> Result<(), KafkaError>,
    ) -> Result<(), Error> {
        let watch = self.watch;
        let deadline = (watch.now)() + within;
        let mut said = (watch.now)();
        loop {
            let began = (watch.now)();
            match call(SLICE) {
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
            self.say(what, &mut said);
        }
    }

    fn say(&self, doing: &'static str, said: &mut Duration) {
        let now = (self.watch.now)();
        if now.saturating_sub(*said) >= STALLED_AFTER {
            (self.watch.stalled)(self.heard.silence(self.brokers, doing));
            *said = now;
        }
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
