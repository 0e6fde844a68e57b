//! What librdkafka says of its connections. It reports most failures to a client's context, and to the call that waits
//! only that it waited in vain.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;

use super::Error;

/// The context of all clients of a destination.
///
/// What was heard is never forgotten: librdkafka does not repeat an error that is the same as the one before.
#[derive(Clone, Default)]
pub(super) struct Heard(Arc<Mutex<Option<(RDKafkaErrorCode, String)>>>);

impl Heard {
    /// The last error of a connection.
    fn last(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why an answer does not come.
    pub(super) fn silence(&self, brokers: &str, doing: &'static str) -> Error {
        let brokers = brokers.to_owned();
        match self.last() {
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
        tracing::debug!(target: "librdkafka", ?level, fac, "{log_message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
        let Some(code) = error.rdkafka_error_code() else { return };
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // That all brokers are down is said after why the last of them is.
        if code != RDKafkaErrorCode::AllBrokersDown || last.is_none() {
            *last = Some((code, without_name(reason).to_owned()));
        }
    }
}

impl ConsumerContext for Heard {}

impl ProducerContext for Heard {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
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
