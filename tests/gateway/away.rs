//! Destinations that do not take releases: the log says which, how many releases wait and why, within seconds; a stop
//! names what it leaves.

use std::fs;
use std::net::TcpListener;
use std::thread;

use super::broker::Broker;
use super::guarded::secret;
use super::process::{Deployment, Gateway, number};
use crate::common::free_port;

/// What the gateway says of a destination that does not take releases.
const AWAY: &str = "the destination does not take releases";
const EXACTLY_ONCE: &str = "exactly_once = true";
const MODES: [&str; 2] = ["", EXACTLY_ONCE];

/// Waits until the log says why the Kafka destination does not take releases.
fn wait_for_reason(gateway: &Gateway, reason: &str) {
    let began = gateway.wait_for(AWAY, 1);
    assert!(began.contains("fraud_desk"), "{began}");
    gateway.wait_for(reason, 1);
}

#[test]
fn a_broker_that_is_away_is_named_with_what_waits() {
    for mode in MODES {
        let port = free_port();
        let deployment = Deployment::new(&format!("127.0.0.1:{port}"), "nobody", mode);
        // The files have everything by then, also on a slow machine.
        deployment.change("stop_within = \"PT60S\"", "stop_within = \"PT20S\"");
        let gateway = deployment.start();
        wait_for_reason(&gateway, "Connection refused");
        assert!(deployment.send().wait().unwrap().success());
        let last = gateway.stop_with_releases_left();
        let releases = deployment.released().len();
        assert!(releases > 100);
        assert!(last.contains(&format!("{releases} for `fraud_desk`: ")), "{releases} releases: {last}");
        assert!(last.contains("Connection refused"), "{last}");
    }
}

/// The stop would wait for a destination that takes nothing.
#[test]
fn a_second_signal_ends_the_stop_and_the_exit_code_says_so() {
    let deployment = Deployment::new(&format!("127.0.0.1:{}", free_port()), "nobody", "");
    let gateway = deployment.start();
    assert!(deployment.send().wait().unwrap().success());
    gateway.signal("TERM");
    gateway.wait_for("stopping", 1);
    let (code, log) = gateway.terminate();
    assert_eq!(code, Some(75), "{}", log.join("\n"));
    assert!(log.last().unwrap().contains("a second signal ended the stop"), "{}", log.join("\n"));
}

#[test]
fn a_broker_that_accepts_and_never_answers_is_named() {
    for mode in MODES {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let _held: Vec<_> = listener.incoming().collect();
        });
        let deployment = Deployment::new(&address, "silence", mode);
        deployment.change("stop_within = \"PT60S\"", "stop_within = \"PT3S\"");
        let gateway = deployment.start();
        wait_for_reason(&gateway, &format!("no answer from `{address}`"));
        assert!(deployment.send().wait().unwrap().success());
        assert!(gateway.stop_with_releases_left().contains("for `fraud_desk`"));
    }
}

#[test]
fn what_the_broker_refuses_is_named_as_what_it_is() {
    let [plain, sasl, controller] = [(); 3].map(|()| free_port());
    let listeners = format!("PLAINTEXT://127.0.0.1:{plain},SASL_PLAINTEXT://127.0.0.1:{sasl}");
    let login = "org.apache.kafka.common.security.plain.PlainLoginModule";
    let properties = [
        plain.to_string(),
        format!("advertised.listeners={listeners}"),
        format!("listeners={listeners},CONTROLLER://127.0.0.1:{controller}"),
        format!("controller.quorum.voters=1@127.0.0.1:{controller}"),
        "sasl.enabled.mechanisms=PLAIN".to_owned(),
        format!("listener.name.sasl_plaintext.plain.sasl.jaas.config={login} required user_alice=\"right\";"),
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned(),
        "super.users=User:ANONYMOUS".to_owned(),
    ];
    let Some(broker) = Broker::own(properties.into()) else { return };
    broker.create_topics("releases");
    let user = "[destinations.fraud_desk.sasl]\nmechanism = \"PLAIN\"\nuser = \"alice\"\npassword_file = \"password\"\n\
                plaintext = true\n";
    for mode in MODES {
        for (password, reason) in [
            ("wrong", "refuses the credentials"),
            ("right", "not allowed to use topic `releases`: it needs an ACL for Write and Describe"),
        ] {
            let deployment = Deployment::new(&format!("127.0.0.1:{sasl}"), "releases", &format!("{mode}\n{user}"));
            secret(&deployment.path("password"), password);
            wait_for_reason(&deployment.start(), reason);
        }
        let deployment = Deployment::new(&broker.address, "nowhere", mode);
        wait_for_reason(&deployment.start(), "there is no topic `nowhere`");
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_named_with_what_waits_and_when_it_is_over() {
    let port = free_port();
    let deployment = Deployment::new(&format!("127.0.0.1:{port}"), "nobody", "");
    // Without Kafka.
    let path = deployment.path("gateway.toml");
    let config = fs::read_to_string(&path).unwrap();
    let (rest, _) = config.split_once("[destinations.fraud_desk]").unwrap();
    fs::write(&path, format!("{rest}[destinations.fraud_desk]\nkind = \"file\"\ndirectory = \"desk\"\n")).unwrap();
    let directory = deployment.path("released");
    fs::write(&directory, "").unwrap();
    let gateway = deployment.start();
    assert!(deployment.send().wait().unwrap().success());
    let line = gateway.wait_for(AWAY, 1);
    assert!(line.contains("destination=\"archive\"") && line.contains("released"), "{line}");
    assert!(number(&line, "releases") > 0, "{line}");
    fs::remove_file(&directory).unwrap();
    gateway.wait_for("the destination takes releases again", 1);
    gateway.stop();
    assert!(deployment.released().len() > 100);
}
