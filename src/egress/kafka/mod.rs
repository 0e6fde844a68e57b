//! The `kafka` destination: a message per release, or several where one would be too large, in CloudEvents' binary mode.
//! Idempotent and `acks=all` at least; with `exactly_once`, in transactions. What was not delivered is sent again.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;

use crate::domain::name::{DatasetName, DestinationName, GatewayId};
use crate::domain::policy::Released;
use crate::egress::encode::{self, Format};
use crate::storage::Lsn;

pub use closing::are_closed;
use closing::close;
use heard::Heard;
use idempotent::Idempotent;
use limit::Limit;
use transactional::Transactional;

pub use limit::{Aside, Whose};
pub use mark::Mark;
pub use security::{Mechanism, Sasl, Security, Unusable, Which};

pub mod check;
mod closing;
mod fenced;
mod heard;
mod idempotent;
mod limit;
mod mark;
mod progress;
mod queue;
mod refused;
mod security;
mod topic;
mod transactional;
mod window;
mod within;

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
    /// How the brokers are spoken to.
    pub security: Security,
    /// More librdkafka settings, such as `linger.ms`. They can weaken neither delivery nor `security`.
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
pub const RESERVED_EXACTLY_ONCE: [&str; 6] = [
    "statistics.interval.ms",
    "group.id",
    "enable.auto.commit",
    "enable.partition.eof",
    "auto.offset.reset",
    "allow.auto.create.topics",
];

/// The end of the wait for one answer, after which it is looked whether to go on waiting.
const SLICE: Duration = Duration::from_millis(500);

/// After how long a wait without an answer it is said why; sooner when a connection failed meanwhile.
const STALLED_AFTER: Duration = Duration::from_secs(5);
const FAILED_AFTER: Duration = Duration::from_secs(1);

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
    Encode(#[from] encode::Error),
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
    /// The broker does not want us, or we do not want the broker.
    #[error("kafka: `{brokers}` {what}. {help}")]
    Refused {
        /// The brokers.
        brokers: String,
        /// What it does.
        what: String,
        /// What to do.
        help: String,
    },
    /// A file of `[tls]` or `[sasl]` cannot be used.
    #[error("kafka: {0}")]
    Unusable(#[from] Unusable),
    /// Files of `[tls]` or `[sasl]` were replaced.
    #[error("kafka: the files of [tls] or [sasl] were replaced: it is connected anew")]
    Replaced,
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
    /// It takes long, and nothing says why.
    #[error("kafka: the broker has not answered yet: {0}")]
    Slow(&'static str),
    /// One cell is larger than a message may be.
    #[error(transparent)]
    TooLarge(Box<TooLarge>),
    /// The broker takes less than is known.
    #[error(
        "kafka: the broker refuses messages of up to {bytes} bytes: smaller ones are tried. Allow DescribeConfigs on \
         topic `{topic}`, and its limit is known before"
    )]
    SizeRefused {
        /// The limit so far.
        bytes: usize,
        /// The topic.
        topic: String,
    },
    /// The end of a transaction was sent more than once, or it is not known that it was not.
    #[error("kafka: the end of a transaction was sent again: the next one gets a new epoch")]
    SentTwice,
    /// A progress record could not be written.
    #[error("kafka: cannot write a progress record: {0}")]
    Progress(String),
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
    pub gateway: GatewayId,
    /// The destination's name.
    pub destination: DestinationName,
}

impl Sender {
    /// `GATEWAY/DESTINATION`. No name has a `/` in it, so no other two are written alike.
    fn name(&self) -> String {
        format!("{}/{}", self.gateway, self.destination)
    }
}

/// A release that cannot be sent, however it is cut.
#[derive(Debug, thiserror::Error)]
#[error(
    "kafka: a cell of release {release} of dataset `{dataset}`, window {} to {}, takes {bytes} bytes as a message. That is \
     above the limit of {limit}, which is {whose}. Raise it; until then this release and those after it wait",
    window.0, window.1
)]
pub struct TooLarge {
    /// The release's id.
    pub release: String,
    /// Its dataset.
    pub dataset: DatasetName,
    /// Its window's start and end, as times.
    pub window: (String, String),
    /// What the largest cell takes as a message.
    pub bytes: usize,
    /// The limit.
    pub limit: usize,
    /// Who sets it.
    pub whose: Whose,
}

/// An entry of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its position.
    pub lsn: Lsn,
    /// What it has for the destination; `None` when that is nothing.
    pub mark: Option<Mark>,
}

/// Gives the entries of the outbox after the cursor, one after the other.
pub type Entries<'a> = Box<dyn FnMut() -> Result<Option<Waiting>, Box<dyn StdError + Send + Sync>> + 'a>;

/// Reads the outbox from the cursor on.
pub type Outbox<'a> = &'a dyn Fn() -> Entries<'a>;

/// What the broker has for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Confirmed {
    /// Every entry through this position that the sink has taken.
    pub through: Lsn,
    /// So many releases more than before.
    pub releases: usize,
    /// So many bytes.
    pub bytes: usize,
}

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
    Idempotent(Box<Idempotent>),
    Transactional(Box<Transactional>),
}

/// What an entry takes as messages.
#[derive(Debug, Clone, Copy)]
pub struct Takes {
    /// Key, headers, values and what is around them, before they are compressed together.
    pub bytes: u64,
    /// How many cells the topic does not take.
    pub set_aside: usize,
}

impl Sink {
    /// A destination that is not connected yet.
    #[must_use]
    pub fn new(settings: Settings, sender: &Sender) -> Self {
        Self(match settings.progress_topic.clone() {
            None => Kind::Idempotent(Box::new(Idempotent::new(settings))),
            Some(topic) => Kind::Transactional(Box::new(Transactional::new(settings, topic, sender))),
        })
    }

    /// Whether entries can be taken and sent. If not, `resume` is due: something came out that only the broker knows.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match &self.0 {
            Kind::Idempotent(sink) => sink.is_ready(),
            Kind::Transactional(sink) => sink.is_ready(),
        }
    }

    /// Makes ready to send what comes after the cursor. `outbox` tells what that is, as a position by itself says
    /// nothing if the outbox is another one.
    ///
    /// # Errors
    /// When the broker cannot be asked, or does not allow it.
    pub fn resume(&mut self, cursor: Lsn, outbox: Outbox<'_>, watch: Watch<'_>) -> Result<(), Error> {
        match &mut self.0 {
            Kind::Idempotent(sink) => sink.resume(watch),
            Kind::Transactional(sink) => sink.resume(cursor, outbox, watch),
        }
    }

    /// Whether there is room for another entry.
    #[must_use]
    pub fn has_room(&self) -> bool {
        match &self.0 {
            Kind::Idempotent(sink) => sink.has_room(),
            Kind::Transactional(sink) => sink.has_room(),
        }
    }

    /// Whether everything that was taken is confirmed.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        match &self.0 {
            Kind::Idempotent(sink) => sink.is_idle(),
            Kind::Transactional(sink) => sink.is_idle(),
        }
    }

    /// What an entry with these releases takes.
    ///
    /// # Errors
    /// When it cannot be made into messages.
    pub fn takes(&self, lsn: Lsn, releases: &[Released]) -> Result<Takes, Error> {
        let made = match &self.0 {
            Kind::Idempotent(sink) => sink.messages(releases)?,
            Kind::Transactional(sink) => sink.messages(lsn, releases)?.map(|(_, made)| made).unwrap_or_default(),
        };
        let bytes = made.messages.iter().map(|message| message.bytes as u64).sum();
        Ok(Takes { bytes, set_aside: made.aside.len() })
    }

    /// Takes the next entry of the outbox, with its releases for this destination, which may be none. The cells that the
    /// topic does not take are given back, to be kept elsewhere before anything is confirmed.
    ///
    /// # Errors
    /// When it cannot be made into messages. What was taken before stays.
    pub fn take(&mut self, lsn: Lsn, releases: &[Released]) -> Result<Vec<Aside>, Error> {
        match &mut self.0 {
            Kind::Idempotent(sink) => sink.take(lsn, releases),
            Kind::Transactional(sink) => sink.take(lsn, releases),
        }
    }

    /// Sends, and hears what the broker has confirmed since the last call.
    ///
    /// # Errors
    /// When something was not delivered, or it is not known whether it was.
    pub fn advance(&mut self, watch: Watch<'_>) -> Result<Option<Confirmed>, Error> {
        match &mut self.0 {
            Kind::Idempotent(sink) => sink.advance(watch),
            Kind::Transactional(sink) => sink.advance(watch),
        }
    }

    /// Forgets what was taken and is not confirmed; `resume` is due.
    pub fn give_up(&mut self) {
        match &mut self.0 {
            Kind::Idempotent(sink) => sink.give_up(),
            Kind::Transactional(sink) => sink.give_up(),
        }
    }
}

#[cfg(test)]
impl Sink {
    /// One that is not connected, and knows how large a message may be.
    pub(crate) fn with_limit(settings: Settings, bytes: usize, whose: Whose) -> Self {
        Self(Kind::Idempotent(Box::new(Idempotent::new(settings).with_limit(Limit { bytes, whose }))))
    }
}

impl Settings {
    /// The settings of every client, with what the files of its security hold now.
    fn client(&self) -> Result<ClientConfig, Unusable> {
        let mut config = self.declared();
        self.security.put(&mut config)?;
        Ok(config)
    }

    /// What is declared of every client, without what is in files.
    fn declared(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        // That a connection ends, librdkafka tells its log alone.
        config.set_log_level(RDKafkaLogLevel::Info).set("client.id", "bailiwick");
        for (key, value) in &self.options {
            config.set(key, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    /// The most bytes of a message: what the client takes, what the topic takes if the broker tells, and what was
    /// learned.
    fn limit(&self, topic: Option<usize>, learned: Option<usize>) -> Limit {
        let client = self.options.get("message.max.bytes").and_then(|bytes| bytes.parse().ok());
        Limit::of(client.unwrap_or(limit::CLIENT_BYTES), topic, learned)
    }

    /// What the topic takes, by what the broker told of it.
    fn topic_bytes(&self, configs: &BTreeMap<(String, String), String>) -> Option<usize> {
        configs.get(&(self.topic.clone(), "max.message.bytes".to_owned()))?.parse().ok()
    }

    /// Those of a producer that neither loses nor doubles a message while it lives.
    fn producer(&self, limit: Limit) -> Result<ClientConfig, Unusable> {
        Ok(self.producing(self.client()?, limit))
    }

    fn producing(&self, mut config: ClientConfig, limit: Limit) -> ClientConfig {
        for (key, value) in [("compression.type", "gzip"), ("linger.ms", "5")] {
            if !self.options.contains_key(key) {
                config.set(key, value);
            }
        }
        config.set("enable.idempotence", "true").set("acks", "all");
        // The client fills batches up to this, and the broker refuses a batch as it refuses a message.
        config.set("message.max.bytes", limit.bytes.max(limit::LEAST).to_string());
        config
    }
}

/// Makes a client. An error shows no setting's value, which may be a secret.
fn create<C: FromClientConfigAndContext<Heard>>(config: &ClientConfig, heard: &Heard) -> Result<C, KafkaError> {
    config.create_with_context(heard.clone()).map_err(|error| match error {
        KafkaError::ClientConfig(result, said, name, _) => {
            KafkaError::ClientConfig(result, said, name, "(not shown)".to_owned())
        }
        error => error,
    })
}

/// How long something has not moved on.
#[derive(Debug, Default)]
struct Stall {
    since: Duration,
    said: Duration,
    errors: u64,
}

impl Stall {
    /// It moves on. `errors` counts the failures of connections so far.
    fn progress(&mut self, now: Duration, errors: u64) {
        *self = Self { since: now, said: now, errors };
    }

    /// Whether a connection failed since it moved on last.
    fn has_heard(&self, errors: u64) -> bool {
        errors > self.errors
    }

    /// Whether it is time to say why it does not move on.
    fn is_due(&mut self, now: Duration, errors: u64) -> bool {
        let after = if self.has_heard(errors) { FAILED_AFTER } else { STALLED_AFTER };
        let is_due = now.saturating_sub(self.since) >= after && now.saturating_sub(self.said) >= FAILED_AFTER;
        if is_due {
            self.said = now;
        }
        is_due
    }
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
        let pairs = [("a-b", "c"), ("a", "b-c"), ("a.b", "c"), ("a", "b.c"), ("a-", "b-c"), ("a-b-", "c"), ("a", "b")];
        let names = pairs.map(|(gateway, destination)| {
            Sender { gateway: gateway.parse().unwrap(), destination: destination.parse().unwrap() }.name()
        });
        let distinct: std::collections::BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), pairs.len(), "{names:?}");
        assert_eq!(names[0], "a-b/c");
    }
}
