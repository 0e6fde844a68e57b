//! At least once: an idempotent producer with many messages on their way, in order, and the same `ce_id` whenever a
//! release is sent.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::domain::policy::Released;
use crate::storage::Lsn;

use super::heard::Heard;
use super::limit::{self, Aside, Cut, Limit};
use super::queue::{Item, Queue};
use super::security::Replaced;
use super::topic::{self, Asker, RELEASES};
use super::window::Window;
use super::{Confirmed, Error, Settings, Stall, Watch, close, create};

/// How long one look for reports takes.
const LOOK: Duration = Duration::from_millis(2);
/// The most entries that wait for reports.
const ENTRIES_MAX: usize = 10_000;

pub(super) struct Idempotent {
    settings: Settings,
    heard: Heard,
    /// `None`: `resume` is due.
    producer: Option<BaseProducer<Heard>>,
    limit: Limit,
    /// The largest message that may be tried, when the broker refuses larger ones and does not tell its limit.
    learned: Option<usize>,
    queue: Queue,
    /// By number.
    on_way: BTreeMap<usize, OnWay>,
    bytes_on_way: usize,
    sent: usize,
    window: Window,
    stall: Stall,
    replaced: Replaced,
}

/// A message that was handed to the client.
struct OnWay {
    lsn: Lsn,
    bytes: usize,
    since: Duration,
    /// The bytes on their way when it was sent, with its own.
    together: usize,
}

impl Idempotent {
    pub(super) fn new(settings: Settings) -> Self {
        let limit = settings.limit(None, None);
        Self {
            heard: Heard::new(&settings.security),
            settings,
            producer: None,
            limit,
            learned: None,
            queue: Queue::default(),
            on_way: BTreeMap::new(),
            bytes_on_way: 0,
            sent: 0,
            window: Window::default(),
            stall: Stall::default(),
            replaced: Replaced::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn with_limit(self, limit: Limit) -> Self {
        Self { limit, ..self }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.producer.is_some()
    }

    pub(super) fn resume(&mut self, watch: Watch<'_>) -> Result<(), Error> {
        self.give_up();
        self.replaced.begin(&self.settings.security);
        let asker = Asker::new(&self.settings, &self.heard)?;
        let topic = self.settings.topic.as_str();
        let checked = asker.check(topic, RELEASES, watch);
        let topic_bytes = checked.map(|()| self.settings.topic_bytes(&asker.configs(&[topic], watch)));
        close(asker);
        self.limit = self.settings.limit(topic_bytes?, self.learned);
        let mut config = self.settings.producer(self.limit)?;
        // Zero: librdkafka tries for ever.
        config.set("message.timeout.ms", "0");
        self.heard = self.heard.for_another();
        let producer: BaseProducer<Heard> = create(&config, &self.heard)?;
        // For its token, if it has one.
        producer.poll(Duration::ZERO);
        self.producer = Some(producer);
        Ok(())
    }

    pub(super) fn has_room(&self) -> bool {
        self.queue.unsent_bytes() < self.window.bytes() && self.queue.items.len() < ENTRIES_MAX
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn messages(&self, releases: &[Released]) -> Result<Cut, Error> {
        limit::cut_all(releases, self.settings.format, self.limit)
    }

    pub(super) fn take(&mut self, lsn: Lsn, releases: &[Released]) -> Result<Vec<Aside>, Error> {
        let Cut { messages, aside } = self.messages(releases)?;
        self.queue.push(Item::new(lsn, releases.len(), messages));
        Ok(aside)
    }

    pub(super) fn advance(&mut self, watch: Watch<'_>) -> Result<Option<Confirmed>, Error> {
        let Some(producer) = &self.producer else { return Err(Error::NoProducer) };
        let is_replaced = self.replaced.is_due(&self.settings.security, (watch.now)());
        if is_replaced && self.on_way.is_empty() {
            return Err(Error::Replaced);
        }
        loop {
            if is_replaced {
                // What is on its way is waited for, so that nothing is sent twice.
                break;
            }
            // One message may always be on its way, however small the window has become.
            let room = if self.on_way.is_empty() { usize::MAX } else { self.window.bytes() };
            let Some((lsn, message)) = self.queue.next(room.saturating_sub(self.bytes_on_way)) else { break };
            self.sent += 1;
            self.bytes_on_way += message.bytes;
            let record = BaseRecord::with_opaque_to(&self.settings.topic, self.sent)
                .key(&message.key)
                .payload(&message.value)
                .headers(message.headers);
            producer.send(record).map_err(|(error, _)| Error::Step("sending", error))?;
            if self.on_way.is_empty() {
                self.stall.progress((watch.now)(), self.heard.errors());
            }
            let (bytes, since, together) = (message.bytes, (watch.now)(), self.bytes_on_way);
            self.on_way.insert(self.sent, OnWay { lsn, bytes, since, together });
        }
        producer.poll(if self.on_way.is_empty() { Duration::ZERO } else { LOOK });
        let is_fatal = producer.client().fatal_error().is_some();
        let reports = self.heard.reports();
        let now = (watch.now)();
        if !reports.is_empty() {
            self.stall.progress(now, self.heard.errors());
        }
        for report in reports {
            let Some(message) = self.on_way.remove(&report.number) else { continue };
            report.outcome.map_err(|error| self.failed(error))?;
            self.bytes_on_way -= message.bytes;
            self.queue.confirmed(message.lsn, message.bytes);
            self.window.took(message.together, now.saturating_sub(message.since));
        }
        if is_fatal {
            return Err(self.failed(KafkaError::Global(RDKafkaErrorCode::Fatal)));
        }
        if !self.on_way.is_empty() && self.stall.is_due(now, self.heard.errors()) {
            let doing = "waiting for a delivery report";
            let is_heard = self.stall.has_heard(self.heard.errors());
            if is_heard && is_replaced {
                return Err(Error::Replaced);
            }
            (watch.stalled)(if is_heard {
                self.heard.silence(&self.settings.brokers, doing)
            } else {
                Error::Slow(doing)
            });
        }
        Ok(self.queue.finished())
    }

    /// Forgets what is on its way. Some of it may arrive still.
    pub(super) fn give_up(&mut self) {
        if let Some(producer) = self.producer.take() {
            close(producer);
        }
        self.queue.clear();
        self.on_way.clear();
        self.bytes_on_way = 0;
    }

    fn failed(&mut self, error: KafkaError) -> Error {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                self.learned = Some(self.limit.halved());
                Error::SizeRefused { bytes: self.limit.bytes, topic: self.settings.topic.clone() }
            }
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => topic::not_allowed(&self.settings.topic, RELEASES),
            _ => self.heard.explain(error, &self.settings.brokers, "sending"),
        }
    }
}
