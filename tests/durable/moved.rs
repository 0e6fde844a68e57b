//! The journal's directory is taken away under a running gateway.

use std::fs;
use std::future::Future;
use std::time::Duration;

use bailiwick::clock::Clock;
use bailiwick::commands::Failure;
use bailiwick::commands::journal::{Task, journal as look};
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::deployment::Deployment;
use super::numbers::{counted, publish, refusal, request};
use crate::common::process::PATIENCE;
use crate::common::{self, TestGateway};

/// Asks again until the answer is the wanted one.
pub(super) async fn until<T: PartialEq, F: Future<Output = T>>(wanted: T, ask: impl Fn() -> F) {
    let clock = Clock::start();
    while ask().await != wanted {
        assert!(clock.now() < PATIENCE, "it does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn health(gateway: &TestGateway) -> ServingStatus {
    health_of(gateway, "").await
}

/// The health of one service.
pub(super) async fn health_of(gateway: &TestGateway, service: &str) -> ServingStatus {
    let channel = Endpoint::new(gateway.endpoint()).unwrap().connect().await.unwrap();
    let mut client = HealthClient::new(channel);
    let request = HealthCheckRequest { service: service.into() };
    // A service that was not named yet does not serve.
    client.check(request).await.map_or(ServingStatus::NotServing, |answer| answer.into_inner().status())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_found_again_is_not_acked_and_is_when_it_can() {
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    publish(&gateway, request(3, 1, 10)).await.unwrap();
    let (log, elsewhere) = (gateway.journal.path().join("log"), gateway.journal.path().join("elsewhere"));
    fs::rename(&log, &elsewhere).unwrap();
    // Taken while the directory is away: it must not be answered before the directory is back.
    let pending = tokio::spawn({
        let mut client = gateway.client().await;
        async move { client.publish_once(request(3, 2, 10)).await }
    });
    until(ServingStatus::NotServing, || health(&gateway)).await;
    let refused = publish(&gateway, request(0, 0, 10)).await.unwrap_err();
    assert_eq!(refusal(&refused).0, "REASON_JOURNAL_FAILING");
    let is_answered = pending.is_finished();
    fs::rename(&elsewhere, &log).unwrap();
    until(ServingStatus::Serving, || health(&gateway)).await;
    match pending.await.unwrap() {
        Ok(answer) => {
            assert!(!is_answered, "acked, and nobody would find it again");
            assert_eq!(answer.into_inner().durable_through, 2);
        }
        // An idle journal looks by itself: the request may have come after that.
        Err(refused) => {
            assert_eq!(refusal(&refused).0, "REASON_JOURNAL_FAILING");
            publish(&gateway, request(3, 2, 10)).await.unwrap();
        }
    }
    publish(&gateway, request(3, 3, 10)).await.unwrap();
    assert_eq!(counted(&gateway.stop().await), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_made_where_the_whole_journal_was() {
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    publish(&gateway, request(3, 1, 10)).await.unwrap();
    let here = gateway.journal.path().to_owned();
    // The ledger is opened while the gateway runs.
    common::until(|| here.join("ledger/log/lock").exists().then_some(()));
    let elsewhere = here.with_extension("elsewhere");
    fs::rename(&here, &elsewhere).unwrap();
    until(ServingStatus::NotServing, || health(&gateway)).await;
    assert!(!here.exists(), "something was made where the journal was");
    fs::rename(&elsewhere, &here).unwrap();
    until(ServingStatus::Serving, || health(&gateway)).await;
    publish(&gateway, request(3, 2, 10)).await.unwrap();
    assert_eq!(counted(&gateway.stop().await), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_removed_is_said_at_once_at_the_stop_and_at_the_next_start() {
    for log in ["log", "outbox"] {
        let gateway =
            TestGateway::start_with("delivery-eta/gateway.toml", |config| config.stop_within = Duration::from_secs(10))
                .await;
        publish(&gateway, request(3, 1, 10)).await.unwrap();
        let TestGateway { app, journal, .. } = gateway;
        for entry in fs::read_dir(journal.path().join(log)).unwrap().map(Result::unwrap) {
            fs::remove_file(entry.path()).unwrap();
        }
        let failed = tokio::time::timeout(PATIENCE, app.failed()).await.expect("it does not say that it failed");
        assert!(failed.contains("were removed while it ran"), "{failed}");
        let [unwritten] = &app.stop().await.unwritten[..] else { panic!("one log cannot be written") };
        assert!(unwritten.contains(" cannot be written: "), "{unwritten}");
        let Err(Failure::Found(report)) = look(Task::Verify, journal.path(), false) else {
            panic!("`{log}` was emptied, and that is sound")
        };
        assert!(report.contains(&format!("`{log}` holds no segment, and a gateway has run here")), "{report}");
    }
}

fn on_a_free_port() -> Deployment {
    let deployment = Deployment::new();
    deployment.edit("gateway.toml", "127.0.0.1:7497", "127.0.0.1:0");
    deployment
}

/// It ends by itself, and the next start says what is lost, once.
#[test]
fn a_gateway_whose_log_was_removed_ends_with_70_and_the_next_start_says_what_is_lost() {
    const EMPTIED: &str = "holds no segment, and a gateway has run here";
    let folder = on_a_free_port();
    for log in ["log", "outbox"] {
        let process = folder.spawn();
        for entry in fs::read_dir(folder.path("journal").join(log)).unwrap().map(Result::unwrap) {
            fs::remove_file(entry.path()).unwrap();
        }
        assert_eq!(common::until(|| process.ended()).code(), Some(70));
        process.wait_for("were removed while it ran", 1);
        let process = folder.spawn();
        let said = process.wait_for(EMPTIED, 1);
        assert!(said.contains(&format!("`{log}` {EMPTIED}")), "{said}");
        process.stop();
        let log = folder.spawn().stop();
        assert!(log.iter().all(|line| !line.contains(EMPTIED)), "it has a segment: {log:?}");
    }
    // What says that they have begun moves away with the whole directory.
    fs::rename(folder.path("journal"), folder.path("elsewhere")).unwrap();
    let log = folder.spawn().stop();
    assert!(log.iter().all(|line| !line.contains(EMPTIED)), "{log:?}");
    // Nothing here says that there was one. A person may know.
    let begins = |log: &[String]| log.iter().any(|line| line.contains("there was no journal here: a new one begins"));
    assert!(begins(&log) && !begins(&folder.spawn().stop()), "{log:?}");
    assert!(folder.path("elsewhere/begun").exists() && folder.path("journal/begun").exists());
}

#[test]
fn a_stop_while_a_log_is_away_ends_with_70() {
    let folder = on_a_free_port();
    for log in ["journal/log", "journal/outbox"] {
        let process = folder.spawn();
        fs::rename(folder.path(log), folder.path("elsewhere")).unwrap();
        process.wait_for("the log cannot be written", 1);
        let (code, said) = process.terminate();
        assert_eq!(code, Some(70), "{said:?}");
        assert!(said.iter().any(|line| line.contains("Put back what was removed or moved before the next start")));
        fs::rename(folder.path("elsewhere"), folder.path(log)).unwrap();
        folder.spawn().stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outbox_is_watched_as_the_journal_is() {
    let gateway = TestGateway::start("delivery-eta/gateway.toml").await;
    let (outbox, elsewhere) = (gateway.journal.path().join("outbox"), gateway.journal.path().join("elsewhere"));
    fs::rename(&outbox, &elsewhere).unwrap();
    until(ServingStatus::NotServing, || health(&gateway)).await;
    fs::rename(&elsewhere, &outbox).unwrap();
    until(ServingStatus::Serving, || health(&gateway)).await;
    publish(&gateway, request(3, 1, 10)).await.unwrap();
    assert_eq!(counted(&gateway.stop().await), 10);
}
