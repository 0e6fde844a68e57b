//! What can be said of a destination's settings, and of the files that they name, without a network: librdkafka itself is
//! asked whether it takes them.

use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;

use crate::domain::policy::Widest;

use crate::identity::look;

use super::heard::Heard;
use super::security::{PREFIXES, Sasl, Security};
use super::{RESERVED, RESERVED_EXACTLY_ONCE, Settings, Unusable, Which, close, create, limit};

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
    /// `[destinations.NAME.sasl]`.
    Sasl,
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
    if let Some(message) = secret_in_plain_text(settings) {
        add(Key::Sasl, message);
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

/// What is wrong with the files that settings name, as of a moment in seconds since the Unix epoch, and whether the
/// destination works nevertheless once it is put right outside.
#[must_use]
pub fn files(settings: &Settings, now: i64) -> Option<(Unusable, bool)> {
    let config = match settings.producer(settings.limit(None, None)) {
        Ok(config) => config,
        Err(unusable) => return Some((unusable, false)),
    };
    // Of settings that are wrong themselves it is said where they stand.
    if let Some(said) = refusal(config, settings)
        && check(settings).is_empty()
    {
        let which = if settings.security.tls.is_some() { Which::Certificate } else { Which::Secret };
        let help = "Write the files of [tls] and [sasl] again".to_owned();
        return Some((Unusable { which, message: format!("librdkafka does not take the files: {said}"), help }, false));
    }
    let certificate = settings.security.certificate()?;
    let shown = certificate.display();
    let (message, help) = match look::ended(certificate, now) {
        Some(until) => (
            format!("`{shown}` holds our certificate, which ended at {until}"),
            "Put a new one in its place; until then the broker may not let us in, and releases wait",
        ),
        None => {
            let end = look::end(certificate, "our certificate").filter(|end| end.is_near(now))?;
            let message = format!("`{shown}` holds our certificate, which {}", end.when(now));
            (message, "Have a new one issued and put it in its place, with its key; the gateway reads them")
        }
    };
    Some((Unusable { which: Which::Certificate, message, help: help.to_owned() }, true))
}

/// A cell of a dataset that may be larger than a message, so that no cut of a release can fit: its bytes, and the limit.
#[must_use]
pub fn too_wide(settings: &Settings, widest: &Widest) -> Option<(usize, usize)> {
    let limit = settings.limit(None, None).bytes;
    // Columns that Arrow cannot write are not of a valid dataset.
    let bytes = limit::widest(widest, settings.format).ok()?;
    (bytes > limit).then_some((bytes, limit))
}

/// `HOST` or `HOST:PORT`, comma-separated.
fn brokers(brokers: &str) -> Option<String> {
    for broker in brokers.split(',').map(str::trim) {
        if broker.contains("://") {
            return Some(format!(
                "`{broker}` has a protocol before it: write HOST:PORT; [tls] and [sasl] of the destination say the protocol"
            ));
        }
        let (host, port) = host_and_port(broker);
        if host.is_empty() {
            return Some(format!("`{brokers}` names no broker: write HOST:PORT, several with commas between"));
        }
        if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return Some(format!("`{broker}` has no port from 1 to 65535: write HOST:PORT"));
        }
    }
    None
}

fn host_and_port(broker: &str) -> (&str, Option<&str>) {
    match broker.rsplit_once(':') {
        // An IPv6 address stands in brackets.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (broker, None),
    }
}

/// Without TLS a password or a token can be read by whoever is between, and by whoever says that he is the broker.
fn secret_in_plain_text(settings: &Settings) -> Option<String> {
    let Security { tls: None, sasl: Some(sasl), may_be_plain } = &settings.security else { return None };
    let is_loopback = |broker: &str| {
        let host = host_and_port(broker).0.trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    let what = if let Sasl::Token { .. } = sasl { "the token" } else { "the password" };
    let is_here = settings.brokers.split(',').map(str::trim).all(is_loopback);
    match (is_here, *may_be_plain) {
        (true, true) => None,
        (true, false) => Some(format!(
            "[sasl] without [tls] would send {what} in plain text: add [tls], or `plaintext = true` to [sasl], since these \
             brokers are on loopback"
        )),
        (false, _) => Some(format!("[sasl] without [tls] would send {what} over the network in plain text: add [tls]")),
    }
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
    if PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return Some(format!("`{name}` {}", typed(name)));
    }
    if name == "plugin.library.paths" {
        return Some("`plugin.library.paths` loads foreign code into the gateway and is not taken".to_owned());
    }
    let value = settings.options.get(name)?;
    let mut config = rdkafka::ClientConfig::new();
    config.set(name, value);
    match config.create_native_config() {
        Err(KafkaError::ClientConfig(_, said, ..)) => Some(format!("librdkafka does not take `{name}`: {said}")),
        _ => None,
    }
}

/// Where that what an option would say is said.
fn typed(name: &str) -> &'static str {
    match name {
        "sasl.mechanism" | "sasl.mechanisms" => "is not taken here: write `mechanism` in [destinations.NAME.sasl]",
        "sasl.username" => "is not taken here: write `user` in [destinations.NAME.sasl]",
        "sasl.password" => {
            "is not taken here: write the password to a file, and `password_file` in [destinations.NAME.sasl]"
        }
        "security.protocol" => {
            "is not taken here: with [destinations.NAME.tls] it is TLS, with [destinations.NAME.sasl] the broker is told \
             who we are"
        }
        "ssl.ca.location" | "ssl.ca.pem" => "is not taken here: write `ca` in [destinations.NAME.tls]",
        "ssl.certificate.location" | "ssl.certificate.pem" => {
            "is not taken here: write `certificate` in [destinations.NAME.tls]"
        }
        "ssl.key.location" | "ssl.key.pem" => "is not taken here: write `key` in [destinations.NAME.tls]",
        "enable.ssl.certificate.verification" | "ssl.endpoint.identification.algorithm" => {
            "cannot be changed: the broker's certificate and its host name are always verified"
        }
        name if name.starts_with("sasl.") => {
            "is not taken: [destinations.NAME.sasl] has `mechanism`, `user`, `password_file` and `token_file`"
        }
        _ => "is not taken: [destinations.NAME.tls] has `ca`, `certificate` and `key`",
    }
}

/// Some settings are taken one by one and not together, or only when a client is made.
fn together(settings: &Settings) -> Option<String> {
    let said = refusal(settings.producing(settings.declared(), settings.limit(None, None)), settings)?;
    Some(format!("librdkafka does not take these settings: {said}"))
}

/// What librdkafka says when it does not make a client. Without brokers it connects to nothing.
fn refusal(mut config: rdkafka::ClientConfig, settings: &Settings) -> Option<String> {
    config.remove("bootstrap.servers");
    if settings.progress_topic.is_some() {
        config.set("transactional.id", "check");
    }
    match create::<BaseProducer<Heard>>(&config, &Heard::default()) {
        Ok(producer) => {
            close(producer);
            None
        }
        Err(KafkaError::ClientCreation(said) | KafkaError::ClientConfig(_, said, ..)) => Some(said),
        Err(error) => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::encode::Format;

    fn settings() -> Settings {
        Settings {
            brokers: "a:9092, [::1]:9093,b".to_owned(),
            topic: "releases".to_owned(),
            format: Format::JsonLines,
            progress_topic: Some("releases-progress".to_owned()),
            security: Security::default(),
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
        assert_eq!(with(&[("message.max.bytes", "5000000"), ("linger.ms", "20")]), None);
    }

    #[test]
    fn brokers_and_topics_that_cannot_be() {
        for brokers in ["", " ", "a:9092,", ":9092", "a:0", "a:http", "a:70000", "PLAINTEXT://a:9092"] {
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
        refused("ssl.ca.location", "/etc/ca.pem", "write `ca` in [destinations.NAME.tls]");
        refused("sasl.password", "hunter2", "`password_file` in [destinations.NAME.sasl]");
        refused("security.protocol", "ssl", "with [destinations.NAME.tls] it is TLS");
        refused("enable.ssl.certificate.verification", "false", "always verified");
        refused("ssl.endpoint.identification.algorithm", "none", "always verified");
        refused("ssl.keystore.location", "a.p12", "[destinations.NAME.tls] has");
        refused("sasl.oauthbearer.method", "oidc", "[destinations.NAME.sasl] has");
        assert!(!with(&[("sasl.password", "hunter2")]).unwrap().1.contains("hunter2"));
        refused("acks", "1", "is set by bailiwick");
        refused("statistics.interval.ms", "5", "is set by bailiwick");
        refused("plugin.library.paths", "x.so", "foreign code");
        let (key, _) = with(&[("max.in.flight.requests.per.connection", "9")]).unwrap();
        assert_eq!(key, Key::Options, "not with an idempotent producer");
    }

    #[test]
    fn an_option_that_is_wrong_is_no_error_of_the_files() {
        let options = [("linger.mss".to_owned(), "5".to_owned())].into();
        assert!(files(&Settings { options, ..settings() }, 0).is_none());
    }

    #[test]
    fn every_setting_about_security_is_ours() {
        let names = ["ssl.cipher.suites", "ssl.crl.location", "ssl_ca", "sasl.kerberos.kinit.cmd"];
        for name in names.into_iter().chain(["enable.sasl.oauthbearer.unsecure.jwt", "security.protocol"]) {
            assert_eq!(with(&[(name, "a")]).map(|(key, _)| key), Some(Key::Option(name.to_owned())));
        }
    }

    #[test]
    fn a_secret_goes_in_plain_text_to_loopback_alone_and_only_when_that_is_said() {
        let sasl = Some(Sasl::Token { file: "token".into() });
        let said = |brokers: &str, may_be_plain: bool| {
            let security = Security { tls: None, sasl: sasl.clone(), may_be_plain };
            let problems = check(&Settings { brokers: brokers.to_owned(), security, ..settings() });
            problems.into_iter().find(|problem| problem.key == Key::Sasl).map(|problem| problem.message)
        };
        assert!(said("127.0.0.1:9092,[::1]:1,localhost", false).unwrap().contains("`plaintext = true`"));
        assert_eq!(said("127.0.0.1:9092,[::1]:1,localhost", true), None);
        for brokers in ["127.0.0.1:9092,b:9092", "10.0.0.1:9092", "localhost.example:9092"] {
            assert!(said(brokers, true).unwrap().contains("over the network in plain text: add [tls]"), "{brokers}");
        }
    }
}
