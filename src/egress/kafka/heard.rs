//! What librdkafka says: of its connections, of messages, of the requests that it sent. It reports most failures to a
//! client's context, and to the call that waits only that it waited in vain.

use std::error::Error as StdError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rdkafka::Statistics;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;

use crate::clock::wall_clock;
use crate::identity::look::look;

use super::Error;
use super::refused::{self, Refused};
use super::security::Security;

/// How long a look at a broker may hold up the delivery that waits for its answer.
const LOOK_WITHIN: Duration = Duration::from_secs(3);

/// The context of all clients of a destination.
///
/// The last error is never forgotten: librdkafka does not repeat one that is the same as the one before.
#[derive(Clone, Default)]
pub(super) struct Heard {
    connections: Arc<Mutex<Connections>>,
    producer: Arc<Mutex<Said>>,
    security: Arc<Security>,
}

/// What all clients of a destination said of their connections.
#[derive(Default)]
struct Connections {
    last: Option<Failure>,
    /// How many errors there were.
    errors: u64,
    /// What a look at a broker told, and how many errors there were then.
    looked: Option<(u64, Option<Refused>)>,
}

/// What became of a connection.
#[derive(Clone)]
struct Failure {
    code: RDKafkaErrorCode,
    said: String,
    /// `HOST:PORT`, when it is said.
    broker: Option<String>,
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
    /// For the clients of a destination whose brokers are spoken to like this.
    pub(super) fn new(security: &Security) -> Self {
        Self { security: Arc::new(security.clone()), ..Self::default() }
    }

    /// For another producer of the same destination: what the one before says from now on is not heard here.
    pub(super) fn for_another(&self) -> Self {
        Self { producer: Arc::default(), ..self.clone() }
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection failed, or all.
    fn failed(&self, code: RDKafkaErrorCode, reason: &str) {
        let mut connections = self.connections();
        connections.errors += 1;
        // That all brokers are down is said after why the last of them is.
        if code != RDKafkaErrorCode::AllBrokersDown || connections.last.is_none() {
            let (broker, said) = without_name(reason);
            connections.last = Some(Failure { code, said: said.to_owned(), broker: broker.map(str::to_owned) });
        }
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

    /// Why an answer does not come. With TLS it may take a look at the broker, of up to [`LOOK_WITHIN`].
    pub(super) fn silence(&self, brokers: &str, doing: &'static str) -> Error {
        let brokers = brokers.to_owned();
        let Some(last) = self.connections().last.clone() else { return Error::NoAnswer { brokers, doing } };
        let refused = refused::of_text(last.code, &last.said, &self.security).or_else(|| self.look(&last));
        match refused {
            Some(Refused { what, help }) => Error::Refused { brokers, what, help },
            // A connection that was made and says nothing.
            None if last.said.contains("ApiVersionRequest failed") && last.said.contains("Timed out") => {
                Error::NoAnswer { brokers, doing }
            }
            None => Error::NoConnection { brokers, said: last.said },
        }
    }

    /// Takes a look at the broker of a connection that failed, once for each failure.
    fn look(&self, last: &Failure) -> Option<Refused> {
        let tls = self.security.tls.clone().filter(|_| refused::is_worth_a_look(last.code, &last.said))?;
        let errors = self.errors();
        if let Some((looked, told)) = &self.connections().looked
            && *looked == errors
        {
            return told.clone();
        }
        let (host, port) = last.broker.as_deref()?.rsplit_once(':')?;
        let (host, port) = (host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?);
        let (tell, told) = mpsc::channel();
        let looking = thread::Builder::new().name("kafka-look".into()).spawn(move || {
            let _ = tell.send(look(&host, port, &tls, wall_clock().as_second()));
        });
        let fault = looking.ok().and_then(|_| told.recv_timeout(LOOK_WITHIN).ok()).flatten();
        let refused = fault.map(|fault| Refused { what: fault.to_string(), help: fault.help().to_owned() });
        self.connections().looked = Some((errors, refused.clone()));
        refused
    }

    /// What an error means. One that only says that something waited in vain is explained by what was heard.
    pub(super) fn explain(&self, error: KafkaError, brokers: &str, doing: &'static str) -> Error {
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::SSL
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
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn StdError>> {
        Ok(self.security.token()?)
    }

    fn log(&self, level: RDKafkaLogLevel, fac: &str, log_message: &str) {
        self.said().calls += 1;
        tracing::debug!(target: "librdkafka", ?level, fac, "{log_message}");
        // `[thrd:NAME]: NAME: Disconnected: ...`. Other failures come as errors.
        if fac == "FAIL"
            && let Some((_, reason)) = log_message.rsplit_once("]: ")
            && reason.contains("Disconnected: ")
        {
            self.failed(RDKafkaErrorCode::BrokerTransportFailure, reason);
        }
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
        if let Some(code) = error.rdkafka_error_code() {
            self.failed(code, reason);
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

/// librdkafka begins with the broker's name as it calls it: `sasl_ssl://127.0.0.1:9092/bootstrap: Connect to ...`. The
/// broker's address, and the rest.
fn without_name(reason: &str) -> (Option<&str>, &str) {
    match reason.split_once(": ") {
        Some((name, rest)) if name.contains('/') && !name.contains(' ') => {
            let address = name.split_once("://").map_or(name, |(_, address)| address);
            (address.split('/').next(), rest)
        }
        _ => (None, reason),
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
        assert!(wrong.contains("`b:1` refuses the credentials: SASL authentication error: no"), "{wrong}");
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

    #[test]
    fn that_a_connection_ends_is_heard_from_the_log() {
        let heard = Heard::default();
        let line = "[bailiwick#consumer-2] [thrd:b:1/bootstrap]: b:1/bootstrap: Disconnected: connection closed by \
                    peer: receive 0 after POLLIN (after 3ms in state APIVERSION_QUERY)";
        heard.log(RDKafkaLogLevel::Info, "FAIL", line);
        let said = heard.silence("b:1", "asking").to_string();
        assert!(heard.errors() == 1 && said.contains("perhaps it speaks TLS"), "{said}");
    }

    #[test]
    fn a_broker_has_an_address_in_front_of_what_is_said_of_it() {
        assert_eq!(without_name("sasl_ssl://b.example:9093/bootstrap: no"), (Some("b.example:9093"), "no"));
        assert_eq!(without_name("[::1]:9093/1: SSL: no"), (Some("[::1]:9093"), "SSL: no"));
        assert_eq!(without_name("1/1 brokers are down"), (None, "1/1 brokers are down"));
    }
}
