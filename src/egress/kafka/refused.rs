//! What librdkafka says of a connection that the broker, or we, do not want: for whom we say that we are, for what the
//! broker shows, for a port that speaks something else.

use rdkafka::error::RDKafkaErrorCode;

use super::security::{Sasl, Security};

/// Why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) what: String,
    pub(super) help: String,
}

impl Refused {
    fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what: what.into(), help: help.into() }
    }
}

/// What an error of a connection means, when it is a refusal that its text alone tells of.
pub(super) fn of_text(code: RDKafkaErrorCode, said: &str, security: &Security) -> Option<Refused> {
    let is_authentication =
        matches!(code, RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed);
    if is_authentication {
        return Some(of_authentication(said, security));
    }
    let (state, millis) = ended_in(said).unwrap_or_default();
    if security.tls.is_none() && (state == "APIVERSION_QUERY" || said.contains("Invalid response size")) {
        let help = "If so, add [tls] to the destination, with the authority that signed the broker's certificate (`ca`), \
                    or name another port; if not, look whether the broker works";
        return Some(Refused::new("ends the connection before it answers: perhaps it speaks TLS on this port", help));
    }
    if security.sasl.is_none() && state == "UP" && millis < SOON_MS {
        let help = "If so, add [sasl] to the destination, or name another port; if not, look whether the broker works";
        return Some(Refused::new("ends the connection at the first question: perhaps it wants a user", help));
    }
    None
}

/// A connection that ends sooner was not wanted.
const SOON_MS: u64 = 2_000;

/// In which state a connection was when the broker ended it, and for how long: `Disconnected: ... (after 3ms in state UP)`.
/// Whoever writes just then hears of a broken pipe.
fn ended_in(said: &str) -> Option<(&str, u64)> {
    let fails = ["Send failed: ", "Receive failed: "].iter().any(|begin| said.starts_with(begin));
    let is_ended = fails && ["Broken pipe", "Connection reset"].iter().any(|why| said.contains(why));
    let (_, after) = said.rsplit_once("(after ").filter(|_| is_ended || said.starts_with("Disconnected: "))?;
    let (millis, state) = after.split_once("ms in state ")?;
    Some((state.split([')', ',']).next()?, millis.parse().ok()?))
}

fn of_authentication(said: &str, security: &Security) -> Refused {
    if let Some((_, why)) = said.split_once("Failed to acquire SASL OAUTHBEARER token: ") {
        return Refused::new(format!("gets no token from us: {why}"), "The file is read again every 10 s");
    }
    if said.contains("mechanism handshake failed") {
        let (_, taken) = said.rsplit_once("supported mechanisms:").unwrap_or_default();
        let taken = taken.split(" (after").next().unwrap_or_default().trim();
        return match taken {
            "" => Refused::new("wants no user on this port", "Remove [sasl], or name the port for users"),
            taken => Refused::new(
                "does not take this `mechanism`",
                format!("Set `mechanism` in [sasl] to one that the broker takes: {taken}"),
            ),
        };
    }
    let help = match &security.sasl {
        Some(Sasl::Token { .. }) => "Put a token that the broker takes into `token_file`; it is read again",
        Some(Sasl::Password { .. }) => "Correct `user` or `password_file` in [sasl]; the file is read again",
        None => "Add [sasl] to the destination",
    };
    Refused::new(format!("refuses the credentials: {said}"), help)
}

/// Whether a look at the handshake may tell more: with TLS most of what goes wrong looks alike.
pub(super) fn is_worth_a_look(code: RDKafkaErrorCode, said: &str) -> bool {
    let is_connection = matches!(
        code,
        RDKafkaErrorCode::SSL | RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown
    );
    is_connection && !said.starts_with("Connect to") && !said.contains("Timed out")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::security::Mechanism;
    use super::*;

    const AUTHENTICATION: RDKafkaErrorCode = RDKafkaErrorCode::Authentication;
    const TRANSPORT: RDKafkaErrorCode = RDKafkaErrorCode::BrokerTransportFailure;

    fn said(code: RDKafkaErrorCode, said: &str, security: &Security) -> String {
        of_text(code, said, security).map(|refused| format!("{}. {}", refused.what, refused.help)).unwrap_or_default()
    }

    #[test]
    fn each_refusal_says_what_to_change() {
        let file = PathBuf::from("secret");
        let sasl = Sasl::Password { mechanism: Mechanism::Plain, user: "a".to_owned(), file: file.clone() };
        let password = Security { sasl: Some(sasl), ..Security::default() };
        let token = Security { sasl: Some(Sasl::Token { file }), ..Security::default() };
        let wrong = "SASL authentication error: Authentication failed: Invalid username or password (after 2ms in \
                     state AUTH_REQ)";
        assert!(said(AUTHENTICATION, wrong, &password).contains("`password_file` in [sasl]"));
        assert!(said(AUTHENTICATION, wrong, &token).contains("`token_file`"));
        let handshake = "SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's supported \
                         mechanisms: SCRAM-SHA-256,OAUTHBEARER (after 1ms in state AUTH_HANDSHAKE)";
        let taken = said(AUTHENTICATION, handshake, &password);
        assert!(taken.ends_with("one that the broker takes: SCRAM-SHA-256,OAUTHBEARER"), "{taken}");
        let state = "SASL PLAIN mechanism handshake failed: Broker: Request not valid in current SASL state: broker's \
                     supported mechanisms:  (after 1ms in state AUTH_HANDSHAKE)";
        assert!(said(AUTHENTICATION, state, &password).contains("Remove [sasl]"));
        let none = "Failed to acquire SASL OAUTHBEARER token: `t` holds no token";
        assert!(said(AUTHENTICATION, none, &token).contains("`t` holds no token"));
        let closed = |state: &str| format!("Disconnected: connection closed by peer (after 4ms in state {state})");
        let nobody = Security::default();
        assert!(said(TRANSPORT, &closed("APIVERSION_QUERY"), &nobody).contains("add [tls]"));
        assert!(said(TRANSPORT, &closed("UP, 1 identical error(s) suppressed"), &nobody).contains("add [sasl]"));
        assert_eq!(said(TRANSPORT, &closed("UP"), &password), "");
        let written = "Send failed: error:80000020:system library::Broken pipe: tls_retry_write_records failure (after 3ms in \
                       state UP)";
        assert!(said(TRANSPORT, written, &nobody).contains("add [sasl]"));
        let reset = "Receive failed: Connection reset by peer (after 2ms in state APIVERSION_QUERY)";
        assert!(said(TRANSPORT, reset, &nobody).contains("add [tls]"));
        let certificate = "Send failed: error:0A000086:certificate verify failed (after 3ms in state UP)";
        assert_eq!(said(TRANSPORT, certificate, &nobody), "");
        let later = "Disconnected: connection closed by peer (after 70021ms in state UP)";
        assert_eq!(said(TRANSPORT, later, &nobody), "");
        assert_eq!(said(TRANSPORT, "Connect to ipv4#127.0.0.1:1 failed: Connection refused", &password), "");
    }

    #[test]
    fn who_cannot_be_connected_to_is_not_looked_at() {
        assert!(is_worth_a_look(RDKafkaErrorCode::SSL, "SSL handshake failed: error:0A000086"));
        assert!(is_worth_a_look(TRANSPORT, "SSL handshake failed: Disconnected: connecting to a PLAINTEXT listener?"));
        assert!(!is_worth_a_look(TRANSPORT, "Connect to ipv4#127.0.0.1:1 failed: Connection refused"));
        assert!(!is_worth_a_look(AUTHENTICATION, "SASL authentication error: no"));
    }
}
