//! At least once: an idempotent producer, and the same `ce_id` whenever a release is sent.

use std::time::Duration;

use futures::FutureExt;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

use crate::domain::policy::Released;
use crate::encode;

use super::heard::Heard;
use super::topic::{self, RELEASES};
use super::{Error, STALLED_AFTER, Settings, Watch, headers};

/// The longest time between two looks at whether the delivery report is there.
const LOOK: Duration = Duration::from_millis(20);

pub(super) struct Idempotent {
    settings: Settings,
    heard: Heard,
    producer: FutureProducer<Heard>,
    is_ready: bool,
}

impl Idempotent {
    pub(super) fn new(settings: Settings) -> Result<Self, Error> {
        let heard = Heard::default();
        let producer = producer(&settings, &heard)?;
        Ok(Self { settings, heard, producer, is_ready: false })
    }

    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    pub(super) fn resume(&mut self, watch: Watch<'_>) -> Result<(), Error> {
        let asked = (&self.heard, self.settings.brokers.as_str());
        topic::check(self.producer.client(), &|| (), asked, (&self.settings.topic, RELEASES), watch)?;
        self.is_ready = true;
        Ok(())
    }

    pub(super) fn send(&mut self, releases: &[Released], watch: Watch<'_>) -> Result<usize, Error> {
        let mut bytes = 0;
        for released in releases {
            bytes += self.send_one(released, watch)?;
        }
        Ok(bytes)
    }

    fn send_one(&mut self, released: &Released, watch: Watch<'_>) -> Result<usize, Error> {
        let value = encode::message(released, self.settings.format)?;
        let record = FutureRecord::to(&self.settings.topic)
            .key(released.dataset())
            .payload(&value)
            .headers(headers(released, self.settings.format));
        let mut report = match self.producer.send_result(record) {
            Ok(report) => report,
            Err((error, _)) => return Err(self.failed(error)),
        };
        let (mut wait, mut since) = (Duration::from_millis(1), (watch.now)());
        // librdkafka tries for as long as the broker is away.
        let delivered = loop {
            if let Some(delivered) = (&mut report).now_or_never() {
                break delivered;
            }
            if (watch.stops)() {
                return Err(Error::Stopped);
            }
            if (watch.now)().saturating_sub(since) >= STALLED_AFTER {
                (watch.stalled)(self.heard.silence(&self.settings.brokers, "waiting for a delivery report"));
                since = (watch.now)();
            }
            std::thread::sleep(wait);
            wait = (wait * 2).min(LOOK);
        };
        match delivered {
            Ok(Ok(_)) => Ok(value.len()),
            Ok(Err((error, _))) => Err(self.failed(error)),
            Err(_) => Err(self.failed(KafkaError::Canceled)),
        }
    }

    fn failed(&mut self, error: KafkaError) -> Error {
        // What is wrong with the topic is asked before the next attempt.
        self.is_ready = false;
        let fatal = error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal)
            || self.producer.client().fatal_error().is_some();
        if fatal {
            // The idempotent producer cannot go on after a fatal error; the message keeps its id.
            match producer(&self.settings, &self.heard) {
                Ok(producer) => super::close(std::mem::replace(&mut self.producer, producer)),
                Err(error) => tracing::error!(%error, "no new kafka producer; it is tried again"),
            }
        }
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed) {
            return topic::not_allowed(&self.settings.topic, RELEASES);
        }
        self.heard.explain(error, &self.settings.brokers, "sending")
    }
}

fn producer(settings: &Settings, heard: &Heard) -> Result<FutureProducer<Heard>, KafkaError> {
    // Zero: librdkafka tries for ever.
    settings.producer().set("message.timeout.ms", "0").create_with_context(heard.clone())
}
