//! Certificates, authorities and lists are replaced while producers send: nothing fails, and what is over is over.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bailiwick::app::App;
use bailiwick::clock::Clock;
use bailiwick::commands::init::init;
use bailiwick::ingress::grpc::client::Dialer;
use rcgen::SerialNumber;
use serde_json::json;
use tonic::{Code, Status};

use crate::common::PATIENCE;
use crate::common::certs::{Authority, Issued, deployment, dialer, moment, only_for_owner, put, till};
use crate::common::folder::Folder;
use crate::common::records::{introduction, json_events, now, request};

fn endpoint(app: &App) -> String {
    format!("https://localhost:{}", app.address().port())
}

async fn introduce(app: &App, dialer: &Dialer) -> Result<(), Status> {
    let connected = dialer.connect(&endpoint(app)).await;
    let mut client = connected.map_err(|error| Status::unavailable(format!("{error:?}")))?;
    client.publish_once(introduction("events", "")).await.map(drop)
}

/// A gateway's certificate with a number, by which it can be told apart.
fn numbered(authority: &Authority, number: u64) -> Issued {
    authority.gateway(|parameters| parameters.serial_number = Some(SerialNumber::from(number)))
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_replaced_under_load_and_nothing_fails() {
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let folder = deployment(&first);
    // Both authorities are believed by everybody: what is old and what is new overlap.
    let both = first.pem() + &second.pem();
    folder.write("tls/ca.pem", &both);
    let app = Arc::new(folder.start_app(|_| {}).await.unwrap());
    let is_over = Arc::new(AtomicBool::new(false));
    let mut producers = Vec::new();
    for producer in 0..4 {
        let (app, is_over) = (Arc::clone(&app), Arc::clone(&is_over));
        let authority = if producer % 2 == 0 { &first } else { &second };
        let dialer =
            dialer(&folder, &format!("{producer}"), Some(&authority.client(&till(&producer.to_string()), |_| {})));
        producers.push(tokio::spawn(async move {
            let mut sent = 0;
            while !is_over.load(Ordering::Relaxed) {
                // A connection for a few requests, so that handshakes meet every set.
                let mut client = dialer.connect(&endpoint(&app)).await.unwrap();
                for _ in 0..4 {
                    let record =
                        json!({ "at": now().to_string(), "user": "u", "country": "FR", "kind": "view", "value": 1.0 });
                    let answer = client.publish_once(request("events", "", json_events([record]))).await.unwrap();
                    assert_eq!(answer.into_inner().accepted, 1);
                    sent += 1;
                }
            }
            sent
        }));
    }
    for turn in 0..20 {
        let authority = if turn % 2 == 0 { &second } else { &first };
        // The two files are never of one pair for a moment: then the old set stays.
        let issued = numbered(authority, 100 + turn);
        folder.write("tls/gateway.pem", &issued.certificate);
        app.refresh().await;
        put(&folder, &issued);
        app.refresh().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    let mut sent = 0;
    for producer in producers {
        sent += producer.await.unwrap();
    }
    assert!(sent > 40, "{sent}");
    let accepted = app.telemetry().total(|counts| &counts.accepted);
    assert_eq!(accepted, sent);
    assert_eq!(app.telemetry().turned_away.each().map(|(_, count)| count).sum::<u64>(), 0);
    let Ok(app) = Arc::try_unwrap(app) else { panic!("still used") };
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_goes_and_a_client_that_is_revoked_are_refused_from_then_on() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let folder = deployment(&old);
    folder.edit("gateway.toml", "client_ca    =", "revocation   = [\"tls/lists.pem\"]\nclient_ca    =");
    let ca = folder.read("tls/ca.pem");
    folder.write("tls/lists.pem", old.revokes(&[], 3_600) + &new.revokes(&[], 3_600));
    let app = folder.start_app(|_| {}).await.unwrap();
    let revoked = old.client(&till("1"), |parameters| parameters.serial_number = Some(SerialNumber::from(9_u64)));
    let (revoked, other) =
        (dialer(&folder, "1", Some(&revoked)), dialer(&folder, "2", Some(&old.client(&till("2"), |_| {}))));
    let later = dialer(&folder, "3", Some(&new.client(&till("3"), |_| {})));
    assert!(introduce(&app, &revoked).await.is_ok() && introduce(&app, &other).await.is_ok());
    assert!(introduce(&app, &later).await.is_err());
    folder.write("tls/lists.pem", old.revokes(&[9], 3_600) + &new.revokes(&[], 3_600));
    app.refresh().await;
    assert!(introduce(&app, &revoked).await.is_err() && introduce(&app, &other).await.is_ok());
    folder.write("tls/ca.pem", ca + &new.pem());
    app.refresh().await;
    assert!(introduce(&app, &other).await.is_ok() && introduce(&app, &later).await.is_ok());
    folder.write("tls/ca.pem", new.pem());
    app.refresh().await;
    assert!(introduce(&app, &other).await.is_err() && introduce(&app, &later).await.is_ok());
    // What cannot be used leaves what is in force.
    for (name, text) in [("tls/ca.pem", "nonsense"), ("tls/lists.pem", ""), ("tls/gateway.pem", "")] {
        let before = folder.read(name);
        folder.write(name, text);
        app.refresh().await;
        assert!(introduce(&app, &later).await.is_ok(), "{name}");
        folder.write(name, before);
        app.refresh().await;
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_replaced_as_kubernetes_does_it_is_read_again() {
    let authority = Authority::new("root");
    let folder = Folder::new();
    init(folder.root()).map_err(|_| "init").unwrap();
    let sound = deployment(&authority);
    for name in ["gateway.toml", "policies/policy.toml"] {
        folder.write(name, sound.read(name));
    }
    // tls/NAME -> ..data/NAME, and ..data -> a folder of its own for each version.
    fs::create_dir_all(folder.path("tls")).unwrap();
    let version = |number: u64, ca: &str| {
        let (name, issued) = (format!("tls/..{number}"), numbered(&authority, number));
        folder.write(&format!("{name}/gateway.pem"), &issued.certificate);
        folder.write(&format!("{name}/gateway.key"), &issued.key);
        folder.write(&format!("{name}/ca.pem"), ca);
        only_for_owner(&folder.path(&format!("{name}/gateway.key")));
        symlink(format!("..{number}"), folder.path("tls/..new")).unwrap();
        fs::rename(folder.path("tls/..new"), folder.path("tls/..data")).unwrap();
    };
    version(1, &authority.pem());
    for name in ["gateway.pem", "gateway.key", "ca.pem"] {
        symlink(format!("..data/{name}"), folder.path(&format!("tls/{name}"))).unwrap();
    }
    let app = folder.start_app(|_| {}).await.unwrap();
    let till = dialer(&folder, "till", Some(&authority.client(&till("7"), |_| {})));
    introduce(&app, &till).await.unwrap();
    version(2, &Authority::new("another").pem());
    app.refresh().await;
    assert!(introduce(&app, &till).await.is_err());
    version(3, &authority.pem());
    app.refresh().await;
    introduce(&app, &till).await.unwrap();
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_when_the_proof_of_its_client_does_and_its_client_comes_back() {
    let authority = Authority::new("root");
    let folder = deployment(&authority);
    let app = folder.start_app(|_| {}).await.unwrap();
    let short = authority.client(&till("1"), |parameters| parameters.not_after = moment(3));
    let dialer = dialer(&folder, "short", Some(&short));
    let mut client = dialer.connect(&endpoint(&app)).await.unwrap();
    client.publish_once(introduction("events", "")).await.unwrap();
    let began = Clock::start();
    let refused = loop {
        match client.publish_once(introduction("events", "")).await {
            Ok(_) => assert!(began.now() < PATIENCE, "it is still served"),
            Err(refused) => break refused,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_ne!(refused.code(), Code::PermissionDenied, "{refused:?}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_with_a_word_at_the_age_of_its_connection() {
    let authority = Authority::new("root");
    let folder = deployment(&authority);
    folder.edit("gateway.toml", "trust_domain =", "connection_age_max = \"PT1S\"\ntrust_domain =");
    let app = folder.start_app(|_| {}).await.unwrap();
    let dialer = dialer(&folder, "till", Some(&authority.client(&till("7"), |_| {})));
    let mut client = dialer.connect(&endpoint(&app)).await.unwrap();
    let (requests, outgoing) = tokio::sync::mpsc::channel(1);
    let sending = tokio::spawn(async move {
        let mut sent = 0_u64;
        while requests.send(introduction("events", "")).await.is_ok() {
            sent += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sent
    });
    let requests = tokio_stream::wrappers::ReceiverStream::new(outgoing);
    let mut answers = client.publish(requests).await.unwrap().into_inner();
    let mut answered = 0_u64;
    let ended = loop {
        match answers.message().await {
            Ok(Some(_)) => answered += 1,
            Ok(None) => panic!("it ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
    assert!(ended.message().contains("age") && answered > 10, "{ended:?} after {answered}");
    drop(answers);
    // The same channel goes on, on a new connection.
    let began = Clock::start();
    while client.publish_once(introduction("events", "")).await.is_err() {
        assert!(began.now() < PATIENCE, "it does not come back");
    }
    sending.abort();
    app.stop().await;
}
