//! What the broker tells of topics before anything is sent, so that what is missing has a name.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::heard::Heard;
use super::{Error, SLICE, Settings, Watch, create};

/// How long the broker may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What a topic is needed for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    /// The operations that an ACL must allow.
    pub(super) operations: &'static str,
    /// How to create one that is missing.
    pub(super) creation: &'static str,
}

/// What is sent.
pub(super) const RELEASES: Need = Need { operations: "Write and Describe", creation: "or name another one" };
/// How far the destination is.
pub(super) const PROGRESS: Need =
    Need { operations: "Read, Write and Describe", creation: "with `cleanup.policy=compact` and one partition" };

/// A client that asks. It joins no group and creates no topic.
pub(super) struct Asker {
    pub(super) consumer: BaseConsumer<Heard>,
    heard: Heard,
    settings: Settings,
}

impl Asker {
    pub(super) fn new(settings: &Settings, heard: &Heard) -> Result<Self, Error> {
        let mut config = settings.client()?;
        config.set("allow.auto.create.topics", "false").set("isolation.level", "read_uncommitted");
        let consumer: BaseConsumer<Heard> = create(&config, heard)?;
        // For its token, if it has one.
        let _ = consumer.poll(Duration::ZERO);
        Ok(Self { consumer, heard: heard.clone(), settings: settings.clone() })
    }

    /// Asks whether a topic can be used.
    pub(super) fn check(&self, topic: &str, need: Need, watch: Watch<'_>) -> Result<(), Error> {
        let doing = "asking for the topic";
        let metadata = self.ask(doing, watch, |within| self.consumer.client().fetch_metadata(Some(topic), within))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let error = found.and_then(|found| found.error()).map(RDKafkaErrorCode::from);
        match error {
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Err(not_allowed(topic, need)),
            None if found.is_some_and(|found| !found.partitions().is_empty()) => Ok(()),
            None | Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                Err(Error::NoTopic(topic.to_owned(), need.creation))
            }
            Some(code) => Err(Error::Step(doing, KafkaError::MetadataFetch(code))),
        }
    }

    /// The first and the next offset of a partition.
    pub(super) fn watermarks(&self, topic: &str, partition: i32, watch: Watch<'_>) -> Result<(i64, i64), Error> {
        self.ask("asking for the end of the progress topic", watch, |within| {
            self.consumer.fetch_watermarks(topic, partition, within)
        })
    }

    /// Asks in slices, so that a stop need not wait for the answer.
    fn ask<T>(
        &self,
        doing: &'static str,
        watch: Watch<'_>,
        question: impl Fn(Duration) -> Result<T, KafkaError>,
    ) -> Result<T, Error> {
        let deadline = (watch.now)() + ANSWER_WITHIN;
        loop {
            let answer = question(SLICE);
            // Errors of connections are heard only here.
            let _ = self.consumer.poll(Duration::ZERO);
            match answer {
                Ok(answer) => return Ok(answer),
                Err(_) if (watch.stops)() => return Err(Error::Stopped),
                Err(error) if !is_silence(&error) || (watch.now)() >= deadline => {
                    return Err(self.heard.explain(error, &self.settings.brokers, doing));
                }
                Err(_) => {}
            }
        }
    }

    /// The settings of topics by topic and name, as far as the broker tells them: that needs an ACL for
    /// DescribeConfigs, which nothing else does, and another proof than a token.
    pub(super) fn configs(&self, topics: &[&str], watch: Watch<'_>) -> BTreeMap<(String, String), String> {
        let mut found = BTreeMap::new();
        // Nobody polls this client, so it would never ask for a token.
        if self.settings.security.has_token() {
            return found;
        }
        let made = self.settings.client().map_err(Error::from);
        let made = made.and_then(|config| Ok(create(&config, &self.heard)?));
        let admin: AdminClient<Heard> = match made {
            Ok(admin) => admin,
            Err(error) => {
                tracing::debug!(%error, "no client to ask for the settings of topics");
                return found;
            }
        };
        let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN));
        for topic in topics {
            let resource = [ResourceSpecifier::Topic(topic)];
            let mut asked = Box::pin(admin.describe_configs(&resource, &options));
            let deadline = (watch.now)() + ANSWER_WITHIN;
            let answer = loop {
                if let Some(answer) = (&mut asked).now_or_never() {
                    break answer.ok();
                }
                if (watch.stops)() || (watch.now)() >= deadline {
                    break None;
                }
                std::thread::sleep(Duration::from_millis(5));
            };
            let configs = answer.into_iter().flatten().flatten().flat_map(|resource| resource.entries);
            let values = configs.filter_map(|entry| Some((((*topic).to_owned(), entry.name), entry.value?)));
            found.extend(values);
        }
        super::close(admin);
        found
    }
}

/// Warns when a progress topic does not keep what it must.
pub(super) fn warn_of_retention(topic: &str, configs: &BTreeMap<(String, String), String>) {
    let Some(policy) = configs.get(&(topic.to_owned(), "cleanup.policy".to_owned())) else { return };
    let has = |wanted: &str| policy.split(',').any(|found| found.trim() == wanted);
    if has("delete") {
        tracing::warn!(
            topic,
            policy,
            "the progress topic expires: the progress of a quiet destination is lost. Set `cleanup.policy=compact`"
        );
    } else if !has("compact") {
        tracing::warn!(
            topic,
            policy,
            "the progress topic is not compacted, so it grows without end: set `cleanup.policy=compact`"
        );
    }
}

pub(super) fn not_allowed(topic: &str, need: Need) -> Error {
    Error::NotAllowed { what: "topic", name: topic.to_owned(), operations: need.operations }
}

/// Whether an error says only that no answer came.
fn is_silence(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::OperationTimedOut)
    )
}
