//! What the engineer meets: stuck clients, a destination that is away, another process, changed policies, damage.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bailiwick::app::{App, check_journal};
use bailiwick::clock::Clock;
use bailiwick::commands::send::{Input, Options, SharedTotals, epoch_now, publish, snapshot};
use bailiwick::config::{Destination, OnStop};
use bailiwick::ingress::grpc::client::Dialer;
use bailiwick::ingress::proto::ingest::PublishRequest;

use tempfile::TempDir;

use crate::common::process::{run, text};
use crate::common::{self, PATIENCE, TestGateway, gateway, records};

fn options(endpoint: String, complete: bool) -> Options {
    Options {
        dialer: Dialer::default(),
        endpoint,
        stream: "payments".into(),
        producer: "till-7".into(),
        follow: false,
        batch: 500,
        complete,
        epoch: epoch_now(),
        patience: PATIENCE,
    }
}

pub(super) async fn send_payments(endpoint: String, complete: bool) -> u64 {
    let data = common::root().join("examples/card-fraud/data.csv.gz");
    let totals = SharedTotals::default();
    publish(vec![Input::new(data, None).into()], &options(endpoint, complete), &totals).await.unwrap();
    snapshot(&totals).accepted
}

fn segments(log: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "segment"));
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_with_a_hundred_stuck_clients_ends_in_time_and_loses_nothing() {
    let gateway = TestGateway::start_with("card-fraud/gateway.toml", |config| {
        config.stop_within = Duration::from_secs(4);
        config.on_stop = OnStop::Keep;
    })
    .await;
    // Some say nothing, some stop in the middle of the preface.
    let mut stuck: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(gateway.app.address()).unwrap()).collect();
    stuck.iter_mut().step_by(2).for_each(|client| client.write_all(b"PRI * HTTP/2.0\r\n").unwrap());
    let accepted = send_payments(gateway.endpoint(), false).await;
    let TestGateway { app, released, journal } = gateway;
    let clock = Clock::start();
    app.stop().await;
    assert!(clock.now() < Duration::from_secs(4) + PATIENCE, "took {:?}", clock.now());
    let mut config = common::example("card-fraud/gateway.toml", released.path());
    config.journal.directory = journal.path().to_owned();
    config.on_stop = OnStop::Release;
    gateway::start(config).await.unwrap().stop().await;
    let counted: i64 = common::lines(released.path()).iter().map(|line| line["payments"].as_i64().unwrap()).sum();
    let reference = TestGateway::start("card-fraud/gateway.toml").await;
    assert_eq!(send_payments(reference.endpoint(), false).await, accepted);
    let expected: i64 = reference.stop().await.iter().map(|line| line["payments"].as_i64().unwrap()).sum();
    assert_eq!(counted, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_destination_is_away_producers_go_on_and_afterwards_everything_arrives() {
    let gateway = TestGateway::start_with("card-fraud/gateway.toml", |config| {
        for destination in config.destinations.values_mut() {
            if let Destination::File(settings) = destination {
                settings.directory = settings.directory.join("away");
                settings.rotate_after = Duration::ZERO;
            }
        }
    })
    .await;
    // A file in the place of the directory.
    let away = gateway.released.path().join("away");
    fs::write(&away, "").unwrap();
    assert_eq!(send_payments(gateway.endpoint(), true).await, 8_417);
    fs::remove_file(&away).unwrap();
    assert!(gateway.stop().await.len() > 50);
}

/// Starts with the same journal and without the destination. The error, if there is one.
async fn start_without_fraud_desk(journal: &Path, released: &Path) -> Result<App, String> {
    let mut config = common::example("card-fraud/gateway.toml", released);
    config.journal.directory = journal.to_owned();
    assert!(config.destinations.remove("fraud_desk").is_some());
    gateway::start(config).await.map_err(|error| format!("{error:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_has_everything_may_be_removed() {
    let gateway = TestGateway::start("card-fraud/gateway.toml").await;
    send_payments(gateway.endpoint(), true).await;
    let TestGateway { app, released, journal } = gateway;
    assert_eq!(app.stop().await.left, []);
    let mut config = common::example("card-fraud/gateway.toml", released.path());
    config.journal.directory = journal.path().to_owned();
    assert!(config.destinations.remove("fraud_desk").is_some());
    check_journal(&config).unwrap();
    let app = start_without_fraud_desk(journal.path(), released.path()).await;
    app.unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_releases_wait_for_may_not_be_removed_and_they_are_counted() {
    let gateway = TestGateway::start_with("card-fraud/gateway.toml", |config| {
        // All is in the outbox by then, also on a slow machine.
        config.stop_within = Duration::from_secs(15);
        for destination in config.destinations.values_mut() {
            if let Destination::File(settings) = destination {
                settings.directory = settings.directory.join("away");
            }
        }
    })
    .await;
    fs::write(gateway.released.path().join("away"), "").unwrap();
    send_payments(gateway.endpoint(), true).await;
    let TestGateway { app, released, journal } = gateway;
    let left = app.stop().await.left;
    let [left] = left.as_slice() else { panic!("{left:?}") };
    assert!(left.destination == "fraud_desk" && left.releases > 0, "{left:?}");
    let mut config = common::example("card-fraud/gateway.toml", released.path());
    config.journal.directory = journal.path().to_owned();
    check_journal(&config).unwrap();
    assert!(config.destinations.remove("fraud_desk").is_some());
    let checked = check_journal(&config).unwrap_err();
    let error = start_without_fraud_desk(journal.path(), released.path()).await.err().unwrap();
    assert_eq!(format!("{checked:#}"), error);
    let waiting = format!("`fraud_desk`, which is not declared: {} of dataset `payments_by_country`", left.releases);
    assert!(error.contains(&waiting), "{waiting}: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn released_files_have_the_mode_that_is_declared() {
    for (declared, expected) in [(None, 0o640), (Some(0o604), 0o604)] {
        let gateway = TestGateway::start_with("card-fraud/gateway.toml", |config| {
            for destination in config.destinations.values_mut() {
                if let (Destination::File(settings), Some(mode)) = (destination, declared) {
                    settings.mode = mode;
                }
            }
        })
        .await;
        send_payments(gateway.endpoint(), true).await;
        let TestGateway { app, released, journal: _journal } = gateway;
        app.stop().await;
        let directory = released.path().join("payments_by_country");
        let modes = fs::read_dir(directory).unwrap().map(|file| file.unwrap().metadata().unwrap().permissions().mode());
        let modes: Vec<u32> = modes.map(|mode| mode & 0o7777).collect();
        assert!(!modes.is_empty() && modes.iter().all(|mode| *mode == expected), "{modes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journals_directory_is_its_owners_only() {
    let released = TempDir::new().unwrap();
    let mut config = common::example("card-fraud/gateway.toml", released.path());
    config.journal.directory = released.path().join("new/journal");
    let directory = config.journal.directory.clone();
    let app = gateway::start(config).await.unwrap();
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_journal_is_refused() {
    let gateway = TestGateway::start("card-fraud/gateway.toml").await;
    let mut config = common::example("card-fraud/gateway.toml", gateway.released.path());
    config.journal.directory = gateway.journal.path().to_owned();
    let error = gateway::start_at_once(config).await.err().unwrap();
    assert!(format!("{error:#}").contains("is in use by another process"), "{error:#}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_that_are_open_are_not_counted_on_under_another_declaration() {
    let gateway = TestGateway::start_with("card-fraud/gateway.toml", |config| config.on_stop = OnStop::Keep).await;
    send_payments(gateway.endpoint(), false).await;
    let TestGateway { app, released, journal } = gateway;
    app.stop().await;
    let mut config = common::example("card-fraud/gateway.toml", released.path());
    config.journal.directory = journal.path().to_owned();
    let plan = Arc::get_mut(&mut config.policy).unwrap().streams.get_mut("payments").unwrap();
    let mut dataset = (*plan.datasets[0]).clone();
    dataset.keys.pop();
    plan.datasets = vec![dataset.into()];
    plan.counted.clone_from(&plan.datasets);
    let error = gateway::start(config).await.err().unwrap();
    assert!(format!("{error:#}").contains("windows of dataset `payments_by_country` are open"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_said_and_set_aside_and_the_rest_is_counted() {
    let gateway = TestGateway::start_with("card-fraud/gateway.toml", |config| {
        config.on_stop = OnStop::Keep;
        // Without a checkpoint everything is counted from the journal.
        config.journal.checkpoints.every = Duration::from_secs(3_600);
    })
    .await;
    send_payments(gateway.endpoint(), false).await;
    let TestGateway { app, released, journal } = gateway;
    app.stop().await;
    let directory = journal.path().display().to_string();
    let task = |task: &str| run(journal.path(), &["journal", task, &directory]);
    assert!(task("verify").status.success());
    let checkpoints = journal.path().join("checkpoints");
    fs::read_dir(&checkpoints).unwrap().for_each(|entry| fs::remove_file(entry.unwrap().path()).unwrap());
    let segment = segments(&journal.path().join("log")).remove(0);
    let mut file = fs::File::options().read(true).write(true).open(&segment).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.seek(SeekFrom::Start(middle)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(middle)).unwrap();
    file.write_all(&[!byte[0]]).unwrap();
    drop(file);
    let verified = task("verify");
    assert_eq!(verified.status.code(), Some(1));
    assert!(text(&verified.stdout).contains("DAMAGE in"), "{}", text(&verified.stdout));
    assert!(text(&verified.stdout).contains("lost: up to"), "{}", text(&verified.stdout));
    let repaired = task("repair");
    assert!(repaired.status.success(), "{}", text(&repaired.stderr));
    assert_eq!(fs::read_dir(journal.path().join("log/damaged")).unwrap().count(), 1);
    assert!(task("verify").status.success());
    let mut config = common::example("card-fraud/gateway.toml", released.path());
    config.journal.directory = journal.path().to_owned();
    config.on_stop = OnStop::Release;
    gateway::start(config).await.unwrap().stop().await;
    assert!(!common::lines(released.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_its_answers_does_not_keep_the_others_waiting() {
    let gateway = TestGateway::start_with("delivery-eta/gateway.toml", |config| {
        config.limits.batch_bytes_max = 200_000;
        config.limits.in_flight_bytes_max = 400_000;
    })
    .await;
    // It sends until its window is full of answers, each with the scores of some hundred records.
    let request = |producer: &str| PublishRequest { producer: producer.into(), ..deliveries(400) };
    let requests = futures::stream::repeat_with(move || request("never reads"));
    let unread = gateway.client().await.publish(requests).await.unwrap().into_inner();
    let accepted = || gateway.telemetry().total(|counts| &counts.accepted);
    // Others are answered, also when nothing of it has been taken in for 20 of their requests.
    let (mut sent, mut of_unread, mut since) = (0, 0, 0);
    while since < 20 {
        let mut client = gateway.client().await;
        let answer = client.publish_once(PublishRequest { producer: "reads".into(), ..deliveries(10) });
        let answer = tokio::time::timeout(PATIENCE, answer).await.expect("an answer").unwrap();
        assert_eq!(answer.into_inner().accepted, 10);
        sent += 10;
        let now = accepted() - sent;
        since = if now == 0 || now > of_unread { 0 } else { since + 1 };
        of_unread = now;
    }
    drop(unread);
    gateway.stop().await;
}

fn deliveries(count: usize) -> PublishRequest {
    let record = |person: usize| {
        format!(
            "{{\"event_time\":\"2013-11-01T12:00:00Z\",\"recipient\":\"r-{person}\",\"country\":\"DE\",\"carrier\":\"UA\",\
             \"origin\":\"EWR\",\"distance\":100.0,\"dep_delay\":3,\"hour\":12,\"weekday\":4}}"
        )
    };
    let payload = records::json_events((0..count).map(record));
    PublishRequest { want_scores: true, ..records::request("deliveries", "", payload) }
}
