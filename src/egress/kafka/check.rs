//! What can be said of a destination's settings without a network: librdkafka itself is asked whether it takes them.

use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;

use crate::domain::policy::Widest;

use super::heard::Heard;
use super::{RESERVED, RESERVED_EXACTLY_ONCE, Settings, close, limit};

/// A key of a destination that cannot be used as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which key.
    pub key: Key,
    /// What is wrong.
    pub message: String,
}

/// A key of `[destinations.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// `brokers`.
    Brokers,
    /// `topic`.
    Topic,
    /// `progress_topic`.
    ProgressTopic,
    /// This one of `[destinations.NAME.options]`.
    Option(String),
    /// The options together.
    Options,
}

/// What Kafka takes as a topic's name.
const TOPIC_BYTES_MAX: usize = 249;

/// Everything that is wrong with settings.
#[must_use]
pub fn check(settings: &Settings) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |key, message| problems.push(Problem { key, message });
    if let Some(message) = brokers(&settings.brokers) {
        add(Key::Brokers, message);
    }
    if let Some(message) = topic(&settings.topic) {
        add(Key::Topic, message);
    }
    if let Some(name) = &settings.progress_topic {
        if let Some(message) = topic(name) {
            add(Key::ProgressTopic, message);
        }
        if *name == settings.topic {
            add(Key::ProgressTopic, "`progress_topic` must be another topic than `topic`".to_owned());
        }
    }
    let mut refused = false;
    for name in settings.options.keys() {
        if let Some(message) = option(settings, name) {
            refused = true;
            add(Key::Option(name.clone()), message);
        }
    }
    if !refused && let Some(message) = together(settings) {
        add(Key::Options, message);
    }
    problems
}

/// A cell of a dataset that may be larger than a message, so that no cut of a release can fit: its bytes, and the limit.
#[must_use]
pub fn too_wide(settings: &Settings, widest: &Widest) -> Option<(usize, usize)> {
    let limit = settings.limit(None, None).bytes;
    // Columns that Arrow cannot write are not of a valid dataset.
    let bytes = limit::widest(widest, settings.format).ok()?;
    (bytes > limit).then_some((bytes, limit))
}

/// `HOST` or `HOST:PORT`, comma-separated, each perhaps with a protocol before it.
fn brokers(brokers: &str) -> Option<String> {
    for broker in brokers.split(',').map(str::trim) {
        let address = broker.split_once("://").map_or(broker, |(_, address)| address);
        let (host, port) = match address.rsplit_once(':') {
            // An IPv6 address stands in brackets.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (address, None),
        };
        if host.is_empty() {
            return Some(format!("`{brokers}` names no broker: write HOST:PORT, several with commas between"));
        }
        if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return Some(format!("`{broker}` has no port from 1 to 65535: write HOST:PORT"));
        }
    }
    None
}

fn topic(name: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_possible =
        (1..=TOPIC_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain) && !matches!(name, "." | "..");
    (!is_possible).then(|| {
        format!("`{name}` cannot be a topic's name: that is 1 to {TOPIC_BYTES_MAX} of a-z, A-Z, 0-9, `.`, `_` and `-`, and not `.` or `..`")
    })
}

fn option(settings: &Settings, name: &str) -> Option<String> {
    let only_exactly_once = settings.progress_topic.is_some() && RESERVED_EXACTLY_ONCE.contains(&name);
    if only_exactly_once || RESERVED.contains(&name) {
        return Some(format!("`{name}` is set by bailiwick and cannot be changed"));
    }
    if name == "plugin.library.paths" {
        return Some("`plugin.library.paths` loads foreign code into the gateway and is not taken".to_owned());
    }
    let value = settings.options.get(name)?;
    let mut config = rdkafka::ClientConfig::new();
    config.set(name, value);
    match config.create_native_config() {
        Err(KafkaError::ClientConfig(_, said, ..)) => {
            Some(format!("librdkafka does not take `{name}`: {}", without(&said, name, value)))
        }
        _ => None,
    }
}

/// What librdkafka says, without the value of what may be a secret.
fn without(said: &str, name: &str, value: &str) -> String {
    let may_be_secret = ["password", "secret", "key", "pem", "token"].iter().any(|word| name.contains(word));
    if may_be_secret && !value.is_empty() { said.replace(value, "...") } else { said.to_owned() }
}

/// Some settings are taken one by one and not together, or only when a client is made. Without brokers it connects to
/// nothing.
fn together(settings: &Settings) -> Option<String> {
    let mut config = settings.producer(settings.limit(None, None));
    config.remove("bootstrap.servers");
    if settings.progress_topic.is_some() {
        config.set("transactional.id", "check");
    }
    match config.create_with_context::<_, BaseProducer<Heard>>(Heard::default()) {
        Ok(producer) => {
            close(producer);
            None
        }
        Err(KafkaError::ClientCreation(said) | KafkaError::ClientConfig(_, said, ..)) => {
            Some(format!("librdkafka does not take these settings: {said}"))
        }
        Err(error) => Some(format!("librdkafka does not take these settings: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::encode::Format;

    fn settings() -> Settings {
        Settings {
            brokers: "a:9092, [::1]:9093,SASL_PLAINTEXT://b:1".to_owned(),
            topic: "releases".to_owned(),
            format: Format::JsonLines,
            progress_topic: Some("releases-progress".to_owned()),
            options: Default::default(),
        }
    }

    /// The first problem of settings with these options.
    fn with(options: &[(&str, &str)]) -> Option<(Key, String)> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let problem = check(&Settings { options, ..settings() }).into_iter().next()?;
        Some((problem.key, problem.message))
    }

    #[test]
    fn what_is_right_is_not_complained_of() {
        assert_eq!(check(&settings()), []);
        let credentials = [("sasl.username", "a"), ("sasl.password", "b")];
        let mechanism = [("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanism", "PLAIN")];
        assert_eq!(with(&[credentials, mechanism].concat()), None);
        assert_eq!(with(&mechanism).map(|(key, _)| key), Some(Key::Options), "without credentials");
        assert_eq!(with(&[("message.max.bytes", "5000000"), ("linger.ms", "20")]), None);
    }

    #[test]
    fn brokers_and_topics_that_cannot_be() {
        for brokers in ["", " ", "a:9092,", ":9092", "a:0", "a:http", "a:70000"] {
            let problems = check(&Settings { brokers: brokers.to_owned(), ..settings() });
            assert_eq!(problems.first().map(|problem| &problem.key), Some(&Key::Brokers), "{brokers}");
        }
        for topic in ["", ".", "..", "a b", "a/b", "ä", &"x".repeat(250)] {
            let problems = check(&Settings { topic: topic.to_owned(), ..settings() });
            assert_eq!(problems.first().map(|problem| &problem.key), Some(&Key::Topic), "{topic}");
            let problems = check(&Settings { progress_topic: Some(topic.to_owned()), ..settings() });
            assert_eq!(problems.first().map(|problem| &problem.key), Some(&Key::ProgressTopic), "{topic}");
        }
        let same = check(&Settings { progress_topic: Some("releases".to_owned()), ..settings() });
        assert_eq!(same.first().map(|problem| &problem.key), Some(&Key::ProgressTopic));
    }

    #[test]
    fn options_that_librdkafka_does_not_take() {
        let refused = |name: &str, value: &str, said: &str| {
            let (key, message) = with(&[(name, value)]).unwrap();
            assert_eq!(key, Key::Option(name.to_owned()));
            assert!(message.contains(said), "{message}");
        };
        refused("no.such.option", "1", "No such configuration property");
        refused("linger.ms", "soon", "linger.ms");
        refused("message.max.bytes", "1", "outside allowed range");
        refused("ssl.ca.location", "/etc/ca.pem", "not supported in this build");
        refused("acks", "1", "is set by bailiwick");
        refused("statistics.interval.ms", "5", "is set by bailiwick");
        refused("plugin.library.paths", "x.so", "foreign code");
        let (key, message) = with(&[("security.protocol", "ssl")]).unwrap();
        assert!(message.contains("librdkafka does not take"), "{key:?} {message}");
        let (key, _) = with(&[("max.in.flight.requests.per.connection", "9")]).unwrap();
        assert_eq!(key, Key::Options, "not with an idempotent producer");
    }
}
