//! What librdkafka says: of its connections, of messages, of the requests that it sent. It reports most failures to a
//! client's context, and to the call that waits only that it waited in vain.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::Statistics;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;

use super::Error;

/// The context of all clients of a destination.
///
/// The last error is never forgotten: librdkafka does not repeat one that is the same as the one before.
#[derive(Clone, Default)]
pub(super) struct Heard {
    connections: Arc<Mutex<Connections>>,
    producer: Arc<Mutex<Said>>,
}

/// What all clients of a destination said of their connections.
#[derive(Default)]
struct Connections {
    last: Option<(RDKafkaErrorCode, String)>,
    /// How many errors there were.
    errors: u64,
}

/// What one producer said.
#[derive(Default)]
struct Said {
    /// How often it said anything.
    calls: u64,
    reports: Vec<Report>,
    ends: Option<i64>,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    /// The number it was sent under.
    pub(super) number: usize,
    pub(super) outcome: Result<(), KafkaError>,
}

impl Heard {
    /// For another producer of the same destination: what the one before says from now on is not heard here.
    pub(super) fn for_another(&self) -> Self {
        Self { connections: Arc::clone(&self.connections), producer: Arc::default() }
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.producer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many errors of connections there were.
    pub(super) fn errors(&self) -> u64 {
        self.connections().errors
    }

    /// What became of messages since the last call.
    pub(super) fn reports(&self) -> Vec<Report> {
        std::mem::take(&mut self.said().reports)
    }

    /// How often anything was said.
    pub(super) fn calls(&self) -> u64 {
        self.said().calls
    }

    /// How many ends of transactions the producer had sent when it last counted its requests. `None`: it has not
    /// counted since [`Self::forget_ends`].
    pub(super) fn ends(&self) -> Option<i64> {
        self.said().ends
    }

    /// What was counted so far is too old.
    pub(super) fn forget_ends(&self) {
        self.said().ends = None;
    }

    /// Why an answer does not come.
    pub(super) fn silence(&self, brokers: &str, doing: &'static str) -> Error {
        let brokers = brokers.to_owned();
        let last = self.connections().last.clone();
        match last {
            Some((RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed, said)) => {
                Error::Authentication { brokers, said }
            }
            // A connection that was made and says nothing.
            Some((_, said)) if said.contains("ApiVersionRequest failed") && said.contains("Timed out") => {
                Error::NoAnswer { brokers, doing }
            }
            Some((_, said)) => Error::NoConnection { brokers, said },
            None => Error::NoAnswer { brokers, doing },
        }
    }

    /// What an error means. One that only says that something waited in vain is explained by what was heard.
    pub(super) fn explain(&self, error: KafkaError, brokers: &str, doing: &'static str) -> Error {
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::MessageTimedOut
                | RDKafkaErrorCode::Resolve,
            ) => self.silence(brokers, doing),
            _ => Error::Step(doing, error),
        }
    }
}

impl ClientContext for Heard {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, log_message: &str) {
        self.said().calls += 1;
        tracing::debug!(target: "librdkafka", ?level, fac, "{log_message}");
    }

    fn stats(&self, statistics: Statistics) {
        let ends = statistics.brokers.values().filter_map(|broker| broker.req.get("EndTxn")).sum();
        let mut said = self.said();
        said.calls += 1;
        said.ends = Some(ends);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
        self.said().calls += 1;
        let Some(code) = error.rdkafka_error_code() else { return };
        let mut connections = self.connections();
        connections.errors += 1;
        // That all brokers are down is said after why the last of them is.
        if code != RDKafkaErrorCode::AllBrokersDown || connections.last.is_none() {
            connections.last = Some((code, without_name(reason).to_owned()));
        }
    }
}

impl ConsumerContext for Heard {}

impl ProducerContext for Heard {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let outcome = result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        let mut said = self.said();
        said.calls += 1;
        said.reports.push(Report { number, outcome });
    }
}

/// librdkafka begins with the broker's name as it calls it: `127.0.0.1:9092/bootstrap: Connect to ...`.
fn without_name(reason: &str) -> &str {
    match reason.split_once(": ") {
        Some((name, rest)) if name.contains('/') && !name.contains(' ') => rest,
        _ => reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(code: RDKafkaErrorCode, reason: &str) -> Heard {
        let heard = Heard::default();
        heard.error(KafkaError::Global(code), reason);
        heard.error(KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        heard
    }

    #[test]
    fn a_call_that_waited_in_vain_is_explained_by_the_last_error() {
        let in_vain = KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerTransportFailure);
        let explained = |heard: Heard| heard.explain(in_vain.clone(), "b:1", "asking").to_string();
        let refused =
            "b:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)";
        assert_eq!(
            explained(heard(RDKafkaErrorCode::BrokerTransportFailure, refused)),
            "kafka: no connection to `b:1`: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)"
        );
        let wrong =
            explained(heard(RDKafkaErrorCode::Authentication, "sasl_plaintext://b:1/1: SASL authentication error: no"));
        assert!(wrong.contains("refuses the credentials: SASL authentication error: no"), "{wrong}");
        assert!(explained(Heard::default()).contains("no answer from `b:1`"));
        let silent = "b:1/bootstrap: ApiVersionRequest failed: Local: Timed out: probably due to broker version < 0.10";
        assert!(explained(heard(RDKafkaErrorCode::BrokerTransportFailure, silent)).contains("no answer from `b:1`"));
    }

    #[test]
    fn an_answer_is_what_it_says() {
        let heard = heard(RDKafkaErrorCode::BrokerTransportFailure, "b:1/1: Disconnected");
        let answer = KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge);
        assert!(matches!(heard.explain(answer, "b:1", "sending"), Error::Step("sending", _)));
    }
}
