//! The `kafka` destination: one message per release, in CloudEvents' binary mode. Idempotent and `acks=all` at
//! least; with `exactly_once`, in transactions. A release that was not delivered is sent again.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::thread;
use std::time::Duration;

use arrow_schema::ArrowError;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};

use crate::domain::policy::Released;
use crate::domain::producer::Lsn;
use crate::encode::{self, Format};

use idempotent::Idempotent;
use transactional::Transactional;

mod fenced;
mod heard;
mod idempotent;
mod progress;
mod topic;
mod transactional;

/// Where messages go.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// The messages' format.
    pub format: Format,
    /// Whether every release is committed exactly once, for consumers that read with `read_committed`, and in which
    /// compacted topic the broker then keeps how far the destination is.
    pub progress_topic: Option<String>,
    /// More librdkafka settings, such as `security.protocol`. They cannot weaken delivery.
    pub options: BTreeMap<String, String>,
}

/// Settings that make a delivery sure and are not the operator's to change, with the other names that they go by.
pub const RESERVED: [&str; 11] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "enable.idempotence",
    "acks",
    "request.required.acks",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "transactional.id",
    "transaction.timeout.ms",
    "isolation.level",
    "enable.gapless.guarantee",
];

/// As [`RESERVED`], with `exactly_once`.
pub const RESERVED_EXACTLY_ONCE: [&str; 7] = [
    "retry.backoff.ms",
    "retry.backoff.max.ms",
    "group.id",
    "enable.auto.commit",
    "enable.partition.eof",
    "auto.offset.reset",
    "allow.auto.create.topics",
];

/// The end of the wait for one answer, after which it is looked whether to go on waiting.
const SLICE: Duration = Duration::from_millis(500);

/// After how long a wait it is said why.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// Why the destination cannot be used, or did not take a release.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// librdkafka does not take the settings, or reports a failure.
    #[error("kafka: {0}")]
    Client(#[from] KafkaError),
    /// What happened at which step of a transaction.
    #[error("kafka: {0}: {1}")]
    Step(&'static str, KafkaError),
    /// The columns could not be encoded.
    #[error("cannot encode a release")]
    Encode(#[from] ArrowError),
    /// A topic is missing.
    #[error("kafka: there is no topic `{0}`. Create it, {1}")]
    NoTopic(String, &'static str),
    /// No broker can be connected to, or the connection ends.
    #[error("kafka: no connection to `{brokers}`: {said}")]
    NoConnection {
        /// The brokers.
        brokers: String,
        /// What librdkafka says.
        said: String,
    },
    /// Something accepts the connection and does not answer as a broker does.
    #[error("kafka: no answer from `{brokers}`: {doing}. Is it a broker, and does it work?")]
    NoAnswer {
        /// The brokers.
        brokers: String,
        /// What was asked.
        doing: &'static str,
    },
    /// The broker does not accept the credentials.
    #[error(
        "kafka: `{brokers}` refuses the credentials: {said}. \
         Mend `sasl.*` or `ssl.*` in the destination's `options`"
    )]
    Authentication {
        /// The brokers.
        brokers: String,
        /// What librdkafka says.
        said: String,
    },
    /// An ACL is missing.
    #[error("kafka: not allowed to use {what} `{name}`: it needs an ACL for {operations}")]
    NotAllowed {
        /// What kind of resource.
        what: &'static str,
        /// Its name.
        name: String,
        /// The operations.
        operations: &'static str,
    },
    /// It took too long.
    #[error("kafka: not done within {1:?}: {0}")]
    TimedOut(&'static str, Duration),
    /// Another producer uses the transactional id, or the broker gave a transaction up.
    #[error(
        "kafka: fenced: another process delivers as `{0}`, or a transaction took longer than its timeout. \
         There must be one gateway of an id"
    )]
    Fenced(String),
    /// The producer was given up. `resume` makes a new one.
    #[error("kafka: the producer was given up")]
    NoProducer,
    /// The gateway stops.
    #[error("the gateway stops")]
    Stopped,
    /// What waits could not be read.
    #[error("the outbox cannot be read: {0}")]
    Outbox(Box<dyn StdError + Send + Sync>),
}

/// Whose releases a sink sends.
#[derive(Debug, Clone)]
pub struct Sender {
    /// The gateway's id.
    pub gateway: String,
    /// The destination's name.
    pub destination: String,
}

impl Sender {
    /// `GATEWAY/DESTINATION`, with what stands in it written so that no other two are written alike.
    fn name(&self) -> String {
        let plain = |name: &str| name.replace('%', "%25").replace('/', "%2F");
        format!("{}/{}", plain(&self.gateway), plain(&self.destination))
    }
}

/// An entry of the outbox that has releases for the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its position.
    pub lsn: Lsn,
    /// The id of its last release for the destination; `None` when it has none.
    pub release: Option<String>,
}

/// The first entry of the outbox at a position or after it.
pub type Lookup<'a> = &'a dyn Fn(Lsn) -> Result<Option<Waiting>, Box<dyn StdError + Send + Sync>>;

/// What a call that may block looks at meanwhile.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Whether the gateway stops, so that nothing is waited for any longer.
    pub stops: &'a dyn Fn() -> bool,
    /// A monotonic clock.
    pub now: &'a dyn Fn() -> Duration,
    /// Hears why the call has not come back yet.
    pub stalled: &'a dyn Fn(Error),
}

/// The destination.
pub struct Sink(Kind);

enum Kind {
    Idempotent(Idempotent),
    Transactional(Transactional),
}

impl Sink {
    /// Checks the settings. It connects when it is used.
    ///
    /// # Errors
    /// When librdkafka does not take the settings.
    pub fn new(settings: Settings, sender: &Sender) -> Result<Self, Error> {
        Ok(Self(match settings.progress_topic.clone() {
            None => Kind::Idempotent(Idempotent::new(settings)?),
            Some(topic) => Kind::Transactional(Transactional::new(settings, topic, sender)?),
        }))
    }

    /// Whether `send` can be called. If not, `resume` is due: something came out that only the broker knows.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match &self.0 {
            Kind::Idempotent(sink) => sink.is_ready(),
            Kind::Transactional(sink) => sink.is_ready(),
        }
    }

    /// Makes ready to send, and tells after which position of the outbox: `cursor`, or further if the broker has
    /// more. `outbox` tells what the outbox holds, as a position by itself says nothing if the outbox is another one.
    ///
    /// # Errors
    /// When the broker does not say.
    pub fn resume(&mut self, cursor: Lsn, outbox: Lookup<'_>, watch: Watch<'_>) -> Result<Lsn, Error> {
        match &mut self.0 {
            Kind::Idempotent(sink) => sink.resume(watch).map(|()| cursor),
            Kind::Transactional(sink) => sink.resume(cursor, outbox, watch),
        }
    }

    /// Sends the releases that stand in the outbox at `lsn`, and waits until the broker has them for good. The bytes
    /// sent.
    ///
    /// # Errors
    /// When one was not delivered, or it is not known whether it was, or cannot be encoded.
    pub fn send(&mut self, lsn: Lsn, releases: &[Released], watch: Watch<'_>) -> Result<usize, Error> {
        match &mut self.0 {
            Kind::Idempotent(sink) => sink.send(releases, watch),
            Kind::Transactional(sink) => sink.send(lsn, releases, watch),
        }
    }
}

impl Settings {
    /// The settings of every client.
    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", "bailiwick");
        for (key, value) in &self.options {
            config.set(key, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    /// Those of a producer that neither loses nor doubles a message while it lives.
    fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        for (key, value) in [("compression.type", "gzip"), ("linger.ms", "5")] {
            if !self.options.contains_key(key) {
                config.set(key, value);
            }
        }
        config.set("enable.idempotence", "true").set("acks", "all");
        config
    }
}

/// Closes a client on a thread of its own: that can hang while a broker does not answer.
fn close<T: Send + 'static>(client: T) {
    if let Err(error) = thread::Builder::new().name("kafka-close".into()).spawn(move || drop(client)) {
        tracing::warn!(%error, "no thread to close a kafka client on");
    }
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

/// The version of librdkafka.
#[must_use]
pub fn library_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_destinations_of_any_gateways_have_one_name() {
        let pairs =
            [("a-b", "c"), ("a", "b-c"), ("a/b", "c"), ("a", "b/c"), ("a%2Fb", "c"), ("a", "b%2Fc"), ("a%", "2Fb")];
        let names = pairs.map(|(gateway, destination)| {
            Sender { gateway: gateway.to_owned(), destination: destination.to_owned() }.name()
        });
        let distinct: std::collections::BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), pairs.len(), "{names:?}");
        assert_eq!(names[0], "a-b/c");
    }
}
