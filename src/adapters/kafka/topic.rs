//! Whether a topic can be used: asked before anything is sent, so that what is missing has a name.

use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::heard::Heard;
use super::{Error, SLICE, Watch};

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

/// Asks the broker for a topic. `serve` lets the client hear what happens.
pub(super) fn check<C: ClientContext>(
    client: &Client<C>,
    serve: &dyn Fn(),
    (heard, brokers): (&Heard, &str),
    (topic, need): (&str, Need),
    watch: Watch<'_>,
) -> Result<(), Error> {
    let doing = "asking for the topic";
    let deadline = (watch.now)() + ANSWER_WITHIN;
    let metadata = loop {
        match client.fetch_metadata(Some(topic), SLICE) {
            Ok(metadata) => break metadata,
            Err(_) if (watch.stops)() => return Err(Error::Stopped),
            Err(error) if !is_silence(&error) || (watch.now)() >= deadline => {
                serve();
                return Err(heard.explain(error, brokers, doing));
            }
            Err(_) => serve(),
        }
    };
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
