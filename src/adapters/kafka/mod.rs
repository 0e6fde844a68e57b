//! The `kafka` destination: one message per release, idempotent, `acks=all`. A release counts as sent when
//! its delivery report says so; while the broker is down it waits and is sent again.

use std::collections::BTreeMap;

use arrow_schema::ArrowError;
use futures::executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

use crate::domain::policy::Released;
use crate::domain::producer::Lsn;
use crate::encode::{self, Format};

/// Where messages go.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// The messages' format.
    pub format: Format,
    /// More librdkafka settings, such as `security.protocol`. They cannot weaken delivery.
    pub options: BTreeMap<String, String>,
}

/// Settings that make a delivery sure and are not the operator's to change.
pub const RESERVED: [&str; 5] =
    ["bootstrap.servers", "enable.idempotence", "acks", "message.timeout.ms", "delivery.timeout.ms"];

/// Why the destination cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// librdkafka does not take the settings.
    #[error("kafka: {0}")]
    Client(#[from] KafkaError),
    /// The columns could not be encoded.
    #[error("cannot encode a release")]
    Encode(#[from] ArrowError),
}

/// The destination.
pub struct Sink {
    settings: Settings,
    producer: FutureProducer,
}

impl Sink {
    /// Makes the producer. It connects when it sends.
    ///
    /// # Errors
    /// When librdkafka does not take the settings.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let producer = producer(&settings)?;
        Ok(Self { settings, producer })
    }

    /// How far the broker says that the destination is in the outbox.
    ///
    /// # Errors
    /// When it does not say.
    pub fn resume(&mut self) -> Result<Lsn, Error> {
        Ok(0)
    }

    /// Sends the releases that stand in the outbox at `lsn`, and waits for their delivery reports. The bytes sent.
    ///
    /// # Errors
    /// When one was not delivered, or cannot be encoded.
    pub fn send(&mut self, _lsn: Lsn, releases: &[Released]) -> Result<usize, Error> {
        let mut bytes = 0;
        for released in releases {
            let value = encode::message(released, self.settings.format)?;
            let record = FutureRecord::to(&self.settings.topic)
                .key(released.dataset())
                .payload(&value)
                .headers(headers(released, self.settings.format));
            let sent = self.producer.send_result(record).map_err(|(error, _)| error);
            let delivered = sent.map(block_on);
            match delivered {
                Ok(Ok(Ok(_))) => bytes += value.len(),
                Ok(Ok(Err((error, _)))) | Err(error) => return Err(self.failed(error)),
                Ok(Err(_)) => return Err(self.failed(KafkaError::Canceled)),
            }
        }
        Ok(bytes)
    }

    fn failed(&mut self, error: KafkaError) -> Error {
        let fatal = error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal)
            || self.producer.client().fatal_error().is_some();
        if fatal {
            // The idempotent producer cannot go on after a fatal error; the message keeps its id.
            match producer(&self.settings) {
                Ok(producer) => self.producer = producer,
                Err(error) => tracing::error!(%error, "no new kafka producer"),
            }
        }
        error.into()
    }
}

fn producer(settings: &Settings) -> Result<FutureProducer, KafkaError> {
    let mut config = ClientConfig::new();
    config.set("client.id", "bailiwick").set("compression.type", "gzip").set("linger.ms", "5");
    for (key, value) in &settings.options {
        config.set(key, value);
    }
    config
        .set("bootstrap.servers", &settings.brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // Zero: librdkafka tries for ever.
        .set("message.timeout.ms", "0")
        .create()
}

/// CloudEvents 1.0, Kafka binary mode.
fn headers(released: &Released, format: Format) -> OwnedHeaders {
    let source = format!("/bailiwick/{}", released.gateway());
    let time = encode::rfc3339(released.window_end());
    let policy = released.policy().to_string();
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_id", released.id()),
        ("ce_source", &source),
        ("ce_type", "dev.bailiwick.release"),
        ("ce_subject", released.dataset()),
        ("ce_time", &time),
        ("ce_bailiwickpolicy", &policy),
        ("content-type", format.media_type()),
    ];
    let owned = OwnedHeaders::new_with_capacity(headers.len());
    headers.into_iter().fold(owned, |owned, (key, value)| owned.insert(Header { key, value: Some(value) }))
}
