//! Certificates, authorities and lists are replaced while producers send: nothing fails, and what is over is over.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bailiwick::app::App;
use bailiwick::clock::Clock;
use bailiwick::commands::init::init;
use bailiwick::identity::trust;
use bailiwick::ingress::grpc::client::Dialer;
use rcgen::SerialNumber;
use serde_json::json;
use tonic::{Code, Status};

use super::tokens::{Issuer, RULES, TOKENS};
use crate::common::PATIENCE;
use crate::common::certs::{Authority, Issued, deployment, dialer, files, moment, only_for_owner, put, till};
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

/// How long everything is replaced, in seconds: `BAILIWICK_TEST_ROTATION_SECONDS`, or ten.
fn rotation_seconds() -> u64 {
    std::env::var("BAILIWICK_TEST_ROTATION_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

/// Who sends one record after the other until it is over, on connections of so many requests.
struct Producers {
    is_over: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<u64>>,
}

impl Producers {
    fn start(&mut self, app: &App, dialer: Dialer, requests: usize) {
        let (endpoint, is_over) = (endpoint(app), Arc::clone(&self.is_over));
        self.tasks.push(tokio::spawn(async move {
            let mut sent = 0;
            while !is_over.load(Ordering::Relaxed) {
                let mut client = dialer.connect(&endpoint).await.unwrap();
                for _ in 0..requests {
                    let record =
                        json!({ "at": now().to_string(), "user": "u", "country": "FR", "kind": "view", "value": 1.0 });
                    let call = dialer.call(request("events", "", json_events([record]))).unwrap();
                    let answer = client.publish_once(call).await.unwrap();
                    assert_eq!(answer.into_inner().accepted, 1);
                    sent += 1;
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                }
            }
            sent
        }));
    }

    /// How many records were sent.
    async fn stop(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        let mut sent = 0;
        for task in self.tasks {
            sent += task.await.unwrap();
        }
        sent
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_replaced_under_load_and_nothing_fails() {
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let (old_issuer, new_issuer) = (Issuer::named("old"), Issuer::named("new"));
    let folder = deployment(&first);
    folder.add("gateway.toml", TOKENS);
    folder.add("policies/policy.toml", RULES);
    folder.edit(
        "gateway.toml",
        "trust_domain =",
        "revocation = [\"tls/lists.pem\"]\nhandshakes_per_second_per_address_max = 100000\n\
         handshakes_per_second_max = 100000\ntrust_domain =",
    );
    // What is old and what is new overlap: everybody believes both authorities and both issuers.
    let replace = |turn: u64| {
        let (one, other) = if turn.is_multiple_of(2) { (&second, &first) } else { (&first, &second) };
        folder.write("tls/ca.pem", one.pem() + &other.pem());
        folder.write("tls/lists.pem", one.revokes(&[turn], 3_600) + &other.revokes(&[], 3_600));
        folder.write("tls/jwks.json", old_issuer.jwks_with(&new_issuer));
        put(&folder, &numbered(one, 1_000 + turn));
    };
    replace(1);
    let app = folder.start_app(|_| {}).await.unwrap();
    let mut producers = Producers { is_over: Arc::default(), tasks: Vec::new() };
    for (number, authority) in [&first, &second, &first, &second].into_iter().enumerate() {
        // Some connect again and again, so that handshakes meet every set; some stay.
        let shown = authority.client(&till(&number.to_string()), |_| {});
        let requests = if number < 2 { 4 } else { usize::MAX };
        producers.start(&app, dialer(&folder, &number.to_string(), Some(&shown)), requests);
    }
    for (name, issuer) in [("old", &old_issuer), ("new", &new_issuer)] {
        let file = format!("clients/{name}.token");
        folder.write(&file, issuer.token(&format!("tenants/{name}"), 3_600));
        let bare = Dialer::verifying(trust::client(&files(&folder, name, None)).unwrap());
        producers.start(&app, bare.with_token(folder.path(&file)), 4);
    }
    let clock = Clock::start();
    let mut turn = 2;
    let is_enough = |turn: u64| turn > 3 && app.telemetry().total(|counts| &counts.accepted) > 40;
    let seconds = Duration::from_secs(rotation_seconds());
    while clock.now() < seconds || !is_enough(turn) {
        assert!(clock.now() < seconds + PATIENCE, "producers do not go on");
        // The two files are not of one pair for a moment: then the old set stays.
        folder.write("tls/gateway.pem", numbered(&first, 9).certificate);
        app.refresh().await;
        replace(turn);
        app.refresh().await;
        turn += 1;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let sent = producers.stop().await;
    eprintln!("{sent} records in {:?}, while everything was replaced {} times", clock.now(), turn - 2);
    assert!(sent > 40 && turn > 3, "{sent}");
    let accepted = app.telemetry().total(|counts| &counts.accepted);
    assert_eq!(accepted, sent);
    assert_eq!(app.telemetry().turned_away.each().map(|(_, count)| count).sum::<u64>(), 0);
    // What is old is over now.
    folder.write("tls/ca.pem", second.pem());
    folder.write("tls/lists.pem", second.revokes(&[], 3_600));
    folder.write("tls/jwks.json", new_issuer.jwks());
    put(&folder, &numbered(&second, 2_000));
    app.refresh().await;
    let of = |authority: &Authority, name: &str| dialer(&folder, name, Some(&authority.client(&till(name), |_| {})));
    assert!(introduce(&app, &of(&first, "old")).await.is_err());
    introduce(&app, &of(&second, "new")).await.unwrap();
    for (name, is_served) in [("old", false), ("new", true)] {
        let bare = Dialer::verifying(trust::client(&files(&folder, name, None)).unwrap());
        let bare = bare.with_token(folder.path(&format!("clients/{name}.token")));
        let mut client = bare.connect(&endpoint(&app)).await.unwrap();
        let call = bare.call(introduction("events", "")).unwrap();
        assert_eq!(client.publish_once(call).await.is_ok(), is_served, "{name}");
    }
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
    // The first of these lives that is long enough to come in by.
    let mut lives = [3, 20, 120].into_iter();
    let mut client = loop {
        let life = lives.next().expect("it does not come in");
        let short = authority.client(&till("1"), |parameters| parameters.not_after = moment(life));
        let dialer = dialer(&folder, "short", Some(&short));
        if let Ok(mut client) = dialer.connect(&endpoint(&app)).await
            && client.publish_once(introduction("events", "")).await.is_ok()
        {
            break client;
        }
    };
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
    let began = Clock::start();
    // On a busy machine a connection may be of age before much is answered; the next one has a second, too.
    loop {
        let (requests, outgoing) = tokio::sync::mpsc::channel(1);
        let sending = tokio::spawn(async move {
            while requests.send(introduction("events", "")).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let (mut answered, mut ended) = (0_u64, None);
        match client.publish(tokio_stream::wrappers::ReceiverStream::new(outgoing)).await {
            Ok(answers) => {
                let mut answers = answers.into_inner();
                while ended.is_none() {
                    match answers.message().await {
                        Ok(Some(_)) => answered += 1,
                        Ok(None) => panic!("it ended without a word"),
                        Err(status) => ended = Some(status),
                    }
                }
            }
            Err(status) => ended = Some(status),
        }
        sending.abort();
        if answered > 10 {
            let ended = ended.unwrap();
            assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
            assert!(ended.message().contains("age"), "{ended:?} after {answered}");
            break;
        }
        assert!(began.now() < PATIENCE, "{ended:?} after {answered}");
    }
    // The same channel goes on, on a new connection.
    let began = Clock::start();
    while client.publish_once(introduction("events", "")).await.is_err() {
        assert!(began.now() < PATIENCE, "it does not come back");
    }
    app.stop().await;
}

/// Tries until a client is served, or is not.
async fn comes_to(app: &App, dialer: &Dialer, is_served: bool) {
    let began = Clock::start();
    loop {
        app.refresh().await;
        let introduced = introduce(app, dialer).await;
        if introduced.is_ok() == is_served {
            return;
        }
        assert!(began.now() < PATIENCE, "it does not come to that: {introduced:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_is_believed_from_its_beginning_to_its_end_without_another_set() {
    let sound = Authority::new("sound");
    let folder = deployment(&sound);
    let (ends, begins) = (Authority::holding("ends", -60, 30), Authority::holding("begins", 10, 3_600));
    // The clients go on trusting the gateway's authority alone.
    let of = |authority: &Authority, name: &str| dialer(&folder, name, Some(&authority.client(&till(name), |_| {})));
    let (always, before, after) = (of(&sound, "1"), of(&ends, "2"), of(&begins, "3"));
    folder.edit("gateway.toml", "client_ca    = \"tls/ca.pem\"", "client_ca    = \"tls/clients.pem\"");
    folder.write("tls/clients.pem", sound.pem() + &ends.pem() + &begins.pem());
    let app = folder.start_app(|_| {}).await.unwrap();
    introduce(&app, &before).await.unwrap();
    // An open connection ends with its authority.
    let mut open = before.connect(&endpoint(&app)).await.unwrap();
    open.publish_once(introduction("events", "")).await.unwrap();
    comes_to(&app, &after, true).await;
    comes_to(&app, &before, false).await;
    // Connections end in whole seconds.
    let ended = async {
        while open.publish_once(introduction("events", "")).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("a connection outlives its authority");
    introduce(&app, &always).await.unwrap();
    let unknown = app.telemetry().turned_away.each().find(|(name, _)| *name == "unknown_authority").unwrap().1;
    assert!(unknown > 0);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_comes_too_early_is_taken_when_its_time_comes() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let folder = deployment(&old);
    let app = folder.start_app(|_| {}).await.unwrap();
    folder.write("tls/ca.pem", new.pem());
    put(&folder, &new.gateway(|parameters| parameters.not_before = moment(20)));
    let till = dialer(&folder, "1", Some(&new.client(&till("1"), |_| {})));
    app.refresh().await;
    assert!(introduce(&app, &till).await.is_err(), "it is taken before its time");
    comes_to(&app, &till, true).await;
    assert!(app.certificates()[0].left(now().as_second()) > 3_000, "{:?}", app.certificates());
    app.stop().await;
}

#[test]
fn bad_files_of_tls_keep_no_policy_out_and_each_says_what_came_of_it() {
    let folder = deployment(&Authority::new("root"));
    let gateway = folder.spawn();
    folder.write("tls/ca.pem", "nonsense");
    folder.edit("policies/policy.toml", "write      = [\"events\"]\nas ", "write      = []\nas ");
    assert!(gateway.reload().contains("other policies are in force"), "{:?}", gateway.log());
    gateway.wait_for("the files of [tls] were replaced and cannot be used together", 1);
    // And the other way round.
    folder.write("tls/ca.pem", Authority::new("another").pem());
    folder.write("policies/broken.toml", "nonsense");
    assert!(gateway.reload().contains("the policies were not replaced"), "{:?}", gateway.log());
    gateway.wait_for("the files of [tls] are read again and in force", 1);
    gateway.stop();
}
