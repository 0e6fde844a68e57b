//! The `kafka` destination: one message per release, idempotent, `acks=all`. A release counts as sent when
//! its delivery report says so; while the broker is down it waits and is sent again.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow_schema::ArrowError;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

use crate::domain::policy::Released;
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

    /// Sends a release and waits for its delivery report, for as long as it takes. The bytes sent.
    ///
    /// # Errors
    /// When the release cannot be encoded.
    pub async fn send(&mut self, released: &Released) -> Result<usize, Error> {
        let value = encode::message(released, self.settings.format)?;
        loop {
            let record = FutureRecord::to(&self.settings.topic)
                .key(released.dataset())
                .payload(&value)
                .headers(headers(released, self.settings.format));
            match self.producer.send(record, Duration::from_secs(30)).await {
                Ok(_) => return Ok(value.len()),
                Err((error, _)) => self.recover(&error).await,
            }
        }
    }

    async fn recover(&mut self, error: &KafkaError) {
        tracing::warn!(%error, topic = self.settings.topic, "a release was not delivered and is sent again");
        let fatal = error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal)
            || self.producer.client().fatal_error().is_some();
        if fatal {
            // The idempotent producer cannot go on after a fatal error; the message keeps its id.
            match producer(&self.settings) {
                Ok(producer) => self.producer = producer,
                Err(error) => tracing::error!(%error, "no new kafka producer"),
            }
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

const RETRY_AFTER: Duration = Duration::from_millis(500);

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
