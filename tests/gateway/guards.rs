//! Kafka over TLS and with SASL, on a real broker: who is let in and who is not, in words; files that are replaced while
//! the gateway runs; no secret in anything that is said.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::thread;

use bailiwick::clock::Clock;
use bailiwick::egress::encode::Format;
use bailiwick::egress::kafka::{Error, Mechanism, Sasl, Security, Sender, Settings, Sink, Watch};
use bailiwick::identity::trust;

use crate::common::certs::{Authority, Issued, moment};
use crate::common::folder::Folder;
use crate::common::http::check;
use crate::common::process::{run, text};
use crate::common::{self, changed};

use super::guarded::{Guarded, PASSWORD, secret, token};
use super::process::{Deployment, Gateway};

const TOPIC: &str = "guarded";

/// What becomes of a destination that connects like this: ready, or why not. Where no broker answers in time, all of them
/// are busy, and it is asked again, as a gateway does.
fn connect(brokers: &str, security: Security) -> Result<(), String> {
    let settings = Settings {
        brokers: brokers.to_owned(),
        topic: TOPIC.to_owned(),
        format: Format::JsonLines,
        progress_topic: None,
        security,
        options: Default::default(),
    };
    let sender = Sender { gateway: "eu-1".parse().unwrap(), destination: "desk".parse().unwrap() };
    let (mut sink, clock) = (Sink::new(settings, &sender), Clock::start());
    let watch = Watch { stops: &|| false, now: &|| clock.now(), stalled: &|_| () };
    let nothing = || -> bailiwick::egress::kafka::Entries<'_> { Box::new(|| Ok(None)) };
    common::until(|| match sink.resume(0, &nothing, watch) {
        Err(Error::NoAnswer { .. }) => None,
        outcome => Some(outcome.map_err(|error| error.to_string())),
    })
}

/// Files of clients, each under its own name.
struct Clients(Folder);

impl Clients {
    fn tls(&self, name: &str, ca: &str, shown: Option<&Issued>) -> Option<trust::Files> {
        let path = |kind: &str| self.0.path(&format!("{name}-{kind}.pem"));
        self.0.write(&format!("{name}-ca.pem"), ca);
        let shown = shown.map(|issued| {
            fs::write(path("certificate"), &issued.certificate).unwrap();
            secret(&path("key"), &issued.key);
            (path("certificate"), path("key"))
        });
        Some(trust::Files { ca: path("ca"), shown })
    }

    fn secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path(name);
        secret(&path, &format!("{text}\n"));
        path
    }

    fn user(&self, name: &str, mechanism: Mechanism, user: &str, password: &str) -> Option<Sasl> {
        Some(Sasl::Password { mechanism, user: user.to_owned(), file: self.secret(name, password) })
    }
}

/// `Ok`, or words that are in what is said.
type Expected = Result<(), &'static str>;

#[test]
fn who_is_let_in_is_let_in_and_who_is_not_is_told_why_and_what_to_do() {
    let Some(guarded) = Guarded::shared() else { return };
    guarded.broker.create_topics(TOPIC);
    let (clients, authority, other) = (Clients(Folder::new()), &guarded.authority, Authority::new("other"));
    let mut cases: Vec<(String, &str, Security, Expected)> = Vec::new();
    let mut case = |name: &str, at: &'static str, tls, sasl, expected| {
        cases.push((name.to_owned(), at, Security { tls, sasl, may_be_plain: true }, expected));
    };
    let tls = |name: &str| clients.tls(name, &authority.pem(), None);
    for (name, mechanism) in Mechanism::NAMES.into_iter().filter(|(name, _)| *name != "OAUTHBEARER") {
        let user = |kind: &str, user, password| clients.user(&format!("{name}-{kind}"), mechanism, user, password);
        let refused = Err("refuses the credentials");
        case(name, "USERS", tls(name), user("right", "alice", PASSWORD), Ok(()));
        case(&format!("{name}, wrong password"), "USERS", tls(name), user("wrong", "alice", "wrong-one"), refused);
        case(&format!("{name}, wrong user"), "USERS", tls(name), user("nobody", "mallory", PASSWORD), refused);
    }
    let with_token = |name: &str, token: &str| Some(Sasl::Token { file: clients.secret(name, token) });
    case("a token", "USERS", tls("token"), with_token("good", &token(3_600)), Ok(()));
    case("a token that ended", "USERS", tls("token"), with_token("ended", &token(-5)), Err("has ended"));
    case(
        "a token that the broker does not take",
        "USERS",
        tls("token"),
        with_token("odd", "odd.token.here"),
        Err("`token_file`"),
    );
    let plain = |name: &str| clients.user(name, Mechanism::Plain, "alice", PASSWORD);
    let scram = clients.user("open-scram", Mechanism::ScramSha256, "alice", PASSWORD);
    case("plain text on loopback", "OPEN", None, plain("open-plain"), Ok(()));
    case("another mechanism", "OPEN", None, scram, Err("one that the broker takes: PLAIN"));
    case("a user where none is asked for", "TLS", tls("user-tls"), plain("user-tls"), Err("wants no user"));
    case("nobody where a user is asked for", "USERS", tls("nobody"), None, Err("perhaps it wants a user"));

    case("TLS", "TLS", tls("tls"), None, Ok(()));
    case("another authority", "TLS", clients.tls("other", &other.pem(), None), None, Err("no authority in `ca`"));
    case("another host", "ELSEWHERE", tls("elsewhere"), None, Err("not for `127.0.0.1`, but for"));
    case("a broker's certificate that ended", "ENDED", tls("ended"), None, Err("certificate that has ended"));
    let shown = |name: &str, issued: &Issued| clients.tls(name, &authority.pem(), Some(issued));
    let sound = Guarded::client(authority, |_| {});
    case("a certificate", "MUTUAL", shown("sound", &sound), None, Ok(()));
    let below = authority.below("between");
    let between = Guarded::client(&below, |_| {}).with(&below.pem());
    case("a certificate with one above it", "MUTUAL", shown("between", &between), None, Ok(()));
    case("no certificate", "MUTUAL", tls("none"), None, Err("wants a certificate of ours"));
    let foreign = Guarded::client(&other, |_| {});
    case("a certificate of others", "MUTUAL", shown("foreign", &foreign), None, Err("does not take our certificate"));
    let past = Guarded::client(authority, |certificate| {
        (certificate.not_before, certificate.not_after) = (moment(-7_200), moment(-3_600));
    });
    case("a certificate that ended", "MUTUAL", shown("past", &past), None, Err("our certificate, which ended at 20"));
    case("TLS where plain text is spoken", "PLAINTEXT", tls("plain"), None, Err("does not speak TLS"));
    case("plain text where TLS is spoken", "TLS", None, None, Err("perhaps it speaks TLS"));

    let outcomes: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = cases
            .iter()
            .map(|(_, at, security, _)| scope.spawn(|| connect(&guarded.at(at), security.clone())))
            .collect();
        running.into_iter().map(|running| running.join().unwrap()).collect()
    });
    let mut wrong = Vec::new();
    for ((name, _, _, expected), outcome) in cases.iter().zip(outcomes) {
        let is_right = match (expected, &outcome) {
            (Ok(()), Ok(())) => true,
            (Err(words), Err(said)) => said.contains(words),
            _ => false,
        };
        if !is_right {
            wrong.push(format!("{name}: {outcome:?} and not {expected:?}"));
        }
        let said = outcome.err().unwrap_or_default();
        for hidden in [PASSWORD, "wrong-one", "odd.token", "PRIVATE"] {
            assert!(!said.contains(hidden), "{name}: {said}");
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// Nothing that was said has any of these in it.
fn says_none_of(lines: &[String], secrets: &[&str]) {
    for line in lines {
        for secret in secrets {
            assert!(!line.contains(secret), "a secret is in the log: {line}");
        }
    }
}

/// The releases of a topic, each once, and as many as the files have.
fn each_once(guarded: &Guarded, deployment: &Deployment, topic: &str) {
    let (ids, expected) = (guarded.broker.ids(topic), deployment.released());
    assert!(expected.len() > 100, "{} releases", expected.len());
    assert_eq!(ids.len(), expected.len());
    assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), expected);
}

const SASL: &str = r#"
[destinations.fraud_desk.tls]
ca = "tls/ca.pem"

[destinations.fraud_desk.sasl]
mechanism     = "SCRAM-SHA-512"
user          = "bob"
password_file = "secrets/kafka"
"#;

/// The password that comes after the first one.
const NEXT: &str = "staple-after-rotation";

/// What is said once the destination answers as it should.
fn goes_on(gateway: &Gateway, times: usize) {
    gateway.wait_for("going on in kafka", times);
}

#[test]
fn transactions_go_over_tls_with_a_password_that_is_put_right_and_then_replaced() {
    let Some(guarded) = Guarded::shared() else { return };
    let topic = format!("password-{}", std::process::id());
    guarded.broker.create_topics(&topic);
    let deployment = Deployment::new(&guarded.at("USERS"), &topic, &format!("exactly_once = true\n{SASL}"));
    deployment.write("tls/ca.pem", guarded.authority.pem());
    let password = deployment.path("secrets/kafka");
    secret(&password, "not-the-password");
    let gateway = deployment.start();
    let said = gateway.wait_for("refuses the credentials", 1);
    assert!(said.contains("fraud_desk") && said.contains("`password_file` in [sasl]"), "{said}");
    assert!(deployment.send().wait().unwrap().success());
    secret(&password, PASSWORD);
    goes_on(&gateway, 1);
    let cursor = deployment.cursor_after(None);
    // What the broker takes is changed first, as with any rotation; then the file.
    guarded.set_password("bob", NEXT);
    secret(&password, "");
    gateway.wait_for("were replaced and cannot be used", 1);
    secret(&password, NEXT);
    gateway.wait_for("it is connected to anew", 1);
    goes_on(&gateway, 2);
    assert!(cursor.is_some());
    let log = gateway.stop();
    each_once(&guarded, &deployment, &topic);
    let checked = run(deployment.root(), &["check", "-c", "gateway.toml"]);
    let said: Vec<String> = log.into_iter().chain([text(&checked.stdout), text(&checked.stderr)]).collect();
    says_none_of(&said, &[PASSWORD, NEXT, "not-the-password"]);
}

const TOKEN: &str = r#"
[destinations.fraud_desk.tls]
ca = "tls/ca.pem"

[destinations.fraud_desk.sasl]
mechanism  = "OAUTHBEARER"
token_file = "secrets/token"
"#;

#[test]
fn transactions_go_by_a_token_that_ends_and_is_replaced() {
    let Some(guarded) = Guarded::shared() else { return };
    let topic = format!("token-{}", std::process::id());
    guarded.broker.create_topics(&topic);
    let deployment = Deployment::new(&guarded.at("USERS"), &topic, &format!("exactly_once = true\n{TOKEN}"));
    deployment.write("tls/ca.pem", guarded.authority.pem());
    let (file, first) = (deployment.path("secrets/token"), token(25));
    secret(&file, &first);
    let gateway = deployment.start();
    // Half a minute and more: it goes on when the token ends.
    let mut sending = deployment.send_slowly();
    // The broker takes nothing more by it, and the gateway says what to do.
    let said = gateway.wait_for("`token_file`", 1);
    assert!(said.contains("fraud_desk"), "{said}");
    assert!(["refuses the credentials", "has ended", "gets no token"].iter().any(|why| said.contains(why)), "{said}");
    let next = token(3_600);
    secret(&file, &next);
    assert!(sending.wait().unwrap().success());
    let log = gateway.stop();
    each_once(&guarded, &deployment, &topic);
    says_none_of(&log, &[&first, &next]);
}

const MUTUAL: &str = r#"
[destinations.fraud_desk.tls]
ca          = "tls/ca.pem"
certificate = "tls/gateway.pem"
key         = "tls/gateway.key"
"#;

#[test]
fn a_broker_that_is_not_believed_gets_nothing_until_its_authority_is_named() {
    let Some(guarded) = Guarded::shared() else { return };
    let topic = format!("authority-{}", std::process::id());
    guarded.broker.create_topics(&topic);
    let deployment = Deployment::new(&guarded.at("MUTUAL"), &topic, MUTUAL);
    let issued = Guarded::client(&guarded.authority, |_| {});
    deployment.write("tls/gateway.pem", &issued.certificate);
    secret(&deployment.path("tls/gateway.key"), &issued.key);
    deployment.write("tls/ca.pem", Authority::new("other").pem());
    let gateway = deployment.start();
    let said = gateway.wait_for("shows a certificate that no authority in `ca` has signed", 1);
    assert!(said.contains("fraud_desk") && said.contains("Add the authority"), "{said}");
    assert!(deployment.send().wait().unwrap().success());
    deployment.write("tls/ca.pem", guarded.authority.pem());
    let cursor = deployment.cursor_after(None);
    let next = Guarded::client(&guarded.authority, |_| {});
    // One file after the other, as whoever replaces them does.
    deployment.write("tls/gateway.pem", &next.certificate);
    gateway.wait_for("were replaced and cannot be used", 1);
    secret(&deployment.path("tls/gateway.key"), &next.key);
    gateway.wait_for("it is connected to anew", 1);
    assert!(cursor.is_some());
    let log = gateway.stop();
    each_once(&guarded, &deployment, &topic);
    let keys: Vec<&str> = [&issued, &next].into_iter().filter_map(|issued| issued.key.lines().nth(1)).collect();
    says_none_of(&log, &keys);
}

#[test]
fn the_end_of_a_certificate_for_kafka_is_said_ahead_and_bad_secrets_keep_no_policy_out() {
    let authority = Authority::new("brokers");
    let deployment = Deployment::new("127.0.0.1:9", "desk", &(MUTUAL.to_owned() + SASL.split_once("\n\n").unwrap().1));
    // Less than a third of its life is left.
    let soon = Guarded::client(&authority, |certificate| {
        (certificate.not_before, certificate.not_after) = (moment(-3_600), moment(600));
    });
    deployment.write("tls/ca.pem", authority.pem());
    deployment.write("tls/gateway.pem", &soon.certificate);
    secret(&deployment.path("tls/gateway.key"), &soon.key);
    secret(&deployment.path("secrets/kafka"), PASSWORD);
    let port = common::free_port();
    deployment.add("gateway.toml", &format!("\n[http]\nlisten = \"127.0.0.1:{port}\"\n"));
    let checked = run(deployment.root(), &["check", "-c", "gateway.toml"]);
    let said = text(&checked.stdout) + &text(&checked.stderr);
    assert_eq!(checked.status.code(), Some(0), "{said}");
    assert!(said.contains("holds our certificate, which ends in") && said.contains(" minutes"), "{said}");
    let gateway = deployment.start();
    let line = gateway.wait_for("a certificate for Kafka is near its end", 1);
    assert!(line.contains("the certificate that destination `fraud_desk` shows to Kafka"), "{line}");
    let address = format!("127.0.0.1:{port}");
    let found = check(&address, "certificate");
    assert_eq!(found["state"], "warning", "{found}");
    assert!(found["says"].as_str().unwrap().contains("`fraud_desk` shows to Kafka ends in "), "{found}");
    // The next one is seen when it is there.
    let next = Guarded::client(&authority, |_| {});
    deployment.write("tls/gateway.pem", &next.certificate);
    secret(&deployment.path("tls/gateway.key"), &next.key);
    common::until(|| Some(()).filter(|()| check(&address, "certificate")["state"] == "well"));
    // Files of a destination are a matter of their own: policies come into force without them.
    secret(&deployment.path("secrets/kafka"), "");
    deployment.write("tls/ca.pem", "nothing");
    deployment.add("policies/policy.toml", "# Another version.\n");
    let came = gateway.reload();
    assert!(came.contains("policies are in force"), "{came}");
    gateway.kill();
}

#[test]
fn what_is_declared_wrong_is_said_with_its_place_and_without_the_secret() {
    let authority = Authority::new("brokers");
    let deployment = |kafka: &str| {
        let deployment = Deployment::new("kafka.example:9093", "desk", kafka);
        let issued = Guarded::client(&authority, |_| {});
        deployment.write("tls/ca.pem", authority.pem());
        deployment.write("tls/gateway.pem", &issued.certificate);
        secret(&deployment.path("tls/gateway.key"), &issued.key);
        secret(&deployment.path("secrets/kafka"), "hunter2\n");
        deployment
    };
    let said = |deployment: &Deployment| {
        let checked = run(deployment.root(), &["check", "-c", "gateway.toml"]);
        let said = text(&checked.stdout) + &text(&checked.stderr);
        assert!(!said.contains("hunter2"), "{said}");
        (checked.status.code(), said)
    };
    let refused = |deployment: &Deployment, words: &[&str]| {
        let (code, said) = said(deployment);
        assert_eq!(code, Some(64), "{said}");
        words.iter().for_each(|words| assert!(said.contains(words), "no `{words}` in\n{said}"));
    };
    // As the page shows it.
    let page = fs::read_to_string(common::root().join("docs/security.md")).unwrap();
    let (_, shown) = page.split_once("```toml\n[destinations.hub.tls]").unwrap();
    let shown = format!("[destinations.hub.tls]{}", shown.split("```").next().unwrap());
    let shown = changed(&shown, "destinations.hub", "destinations.fraud_desk");
    let shown = changed(&changed(&shown, "kafka-ca", "ca"), "gateway-1.", "gateway.");
    for sound in ["", SASL, MUTUAL, &shown] {
        let (code, said) = said(&deployment(sound));
        assert_eq!(code, Some(0), "{sound}: {said}");
    }
    let open = deployment(SASL);
    fs::set_permissions(open.path("secrets/kafka"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    refused(&open, &["mode 0644", "chmod 600", "password_file = "]);
    let gone = deployment(SASL);
    fs::remove_file(gone.path("secrets/kafka")).unwrap();
    refused(&gone, &["cannot read", "secrets/kafka", "the password in one line"]);
    let empty = deployment(SASL);
    secret(&empty.path("secrets/kafka"), "\n");
    refused(&empty, &["does not hold one line"]);
    let open = deployment(MUTUAL);
    fs::set_permissions(open.path("tls/gateway.key"), std::os::unix::fs::PermissionsExt::from_mode(0o604)).unwrap();
    refused(&open, &["mode 0604", "key         = "]);
    let other = deployment(MUTUAL);
    secret(&other.path("tls/gateway.key"), &Guarded::client(&authority, |_| {}).key);
    refused(&other, &["are no certificate and its key"]);
    let none = deployment(MUTUAL);
    none.write("tls/ca.pem", "hunter2");
    refused(&none, &["holds no certificate in PEM", "ca          = "]);
    let past = deployment(MUTUAL);
    let ended = Guarded::client(&authority, |certificate| {
        (certificate.not_before, certificate.not_after) = (moment(-7_200), moment(-3_600));
    });
    past.write("tls/gateway.pem", &ended.certificate);
    secret(&past.path("tls/gateway.key"), &ended.key);
    let (code, warned) = said(&past);
    assert_eq!(code, Some(0), "{warned}");
    assert!(warned.contains("our certificate, which ended at 20"), "{warned}");

    let (_, alone) = SASL.split_once("[destinations.fraud_desk.sasl]").unwrap();
    refused(
        &deployment(&format!("[destinations.fraud_desk.sasl]{alone}plaintext = true\n")),
        &["over the network in plain text: add [tls]"],
    );
    let without = |text: &str, line: &str| {
        text.lines().filter(|found| !found.starts_with(line)).map(|line| format!("{line}\n")).collect::<String>()
    };
    refused(&deployment(&without(MUTUAL, "key")), &["`key` is missing beside it"]);
    refused(&deployment(&without(MUTUAL, "ca")), &["`ca`"]);
    refused(&deployment(&without(SASL, "user")), &["`user` is missing"]);
    refused(
        &deployment(&changed(SASL, "SCRAM-SHA-512", "OAUTHBEARER")),
        &["`token_file` is missing", "is not for this"],
    );
    refused(&deployment(&changed(SASL, "SCRAM-SHA-512", "SCRAM-SHA-1")), &["`mechanism` cannot be `SCRAM-SHA-1`"]);
    refused(
        &deployment("[destinations.fraud_desk.options]\n\"sasl.password\" = \"hunter\"\n"),
        &["write the password to a file"],
    );
    refused(&deployment(&format!("verify = false\n{MUTUAL}")), &["verify"]);
}
