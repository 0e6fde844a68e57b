//! A producer that invents contributors around one real person: the n-1 attack, at the default profile.

use std::ops::Range;
use std::time::Duration;

use bailiwick::config::OnStop;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::common::certs::{Authority, deployment, dialer, till};
use crate::common::folder::Folder;
use crate::common::records::{json_events, now, request};

const OFFICE: &str = "spiffe://corp.example/office";

const TRUSTED: &str = r#"
[[shown]]
conditions = ["origin.trusted_producers"]
for        = { stream = "events" }
by         = "the operator"
ref        = "all tills are our own"
"#;

struct Attack {
    authority: Authority,
    folder: Folder,
    at: Timestamp,
}

/// Who sends, under which name, and the records of which people.
type Sent<'s> = (String, &'s str, Range<usize>);

impl Attack {
    fn new() -> Self {
        let authority = Authority::new("root");
        let folder = deployment(&authority);
        Self { authority, folder, at: now() }
    }

    async fn send(&self, port: u16, (identity, producer, people): &Sent<'_>) {
        let name = identity.replace(['/', ':'], "_");
        let dialer = dialer(&self.folder, &name, Some(&self.authority.client(identity, |_| {})));
        let mut client = dialer.connect(&format!("https://localhost:{port}")).await.unwrap();
        let at = self.at.to_string();
        let record =
            |person| json!({ "at": at, "user": format!("u{person}"), "country": "FR", "kind": "v", "value": 500.0 });
        let records = json_events(people.clone().map(record));
        let answer = client.publish_once(request("events", producer, records)).await.unwrap().into_inner();
        assert_eq!(answer.accepted as usize, people.len());
    }

    /// What is released of what is sent. Between the senders the gateway is killed, if it is to be.
    async fn released(&self, sent: &[Sent<'_>], is_killed_between: bool) -> Vec<Value> {
        let (last, before) = sent.split_last().unwrap();
        if is_killed_between {
            for sent in before {
                let process = self.folder.spawn();
                self.send(process.address().port(), sent).await;
                process.kill();
            }
        }
        let started = self.folder.start_app(|config| {
            config.on_stop = OnStop::Release;
            config.stop_within = Duration::from_secs(60);
        });
        let app = started.await.unwrap();
        let here = if is_killed_between { &[][..] } else { before };
        for sent in here.iter().chain([last]) {
            self.send(app.address().port(), sent).await;
        }
        app.stop().await;
        self.folder.lines("released")
    }
}

/// Nine people are invented by one till, and one real person is brought by another one.
fn nine_and_one() -> [Sent<'static>; 2] {
    [(till("8"), "", 1..10), (till("7"), "", 0..1)]
}

#[tokio::test(flavor = "multi_thread")]
async fn who_invents_all_but_one_contributor_learns_nothing_of_that_one() {
    for is_killed_between in [false, true] {
        let released = Attack::new().released(&nine_and_one(), is_killed_between).await;
        assert_eq!(released, Vec::<Value>::new(), "killed: {is_killed_between}");
    }
    // Whoever speaks for many is one producer.
    let names = ["till-1", "till-2", "office"].map(|name| (OFFICE.to_owned(), name, 0..20));
    assert_eq!(Attack::new().released(&names, false).await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_that_holds_k_beside_any_one_producer_leaves_also_after_a_crash() {
    let sent = [(till("8"), "", 0..12), (till("7"), "", 10..22), (till("9"), "", 0..3)];
    for is_killed_between in [false, true] {
        let [cell] = &Attack::new().released(&sent, is_killed_between).await[..] else { panic!("one cell") };
        assert_eq!((&cell["events"], &cell["value_mean"]), (&json!(27), &json!(500.0)), "killed: {is_killed_between}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_can_vouch_for_the_producers() {
    let attack = Attack::new();
    attack.folder.add("policies/policy.toml", TRUSTED);
    assert_eq!(attack.released(&nine_and_one(), false).await.len(), 1);
    // A profile that asks for it still holds.
    let attack = Attack::new();
    attack.folder.add("policies/policy.toml", TRUSTED);
    attack.folder.add("policies/policy.toml", "[release.strict]\nmin_producers = 2\n");
    attack.folder.edit(
        "policies/policy.toml",
        "min_contributors = 10 ",
        "release = \"strict\"\nmin_contributors = 10 ",
    );
    assert_eq!(attack.released(&nine_and_one(), false).await, Vec::<Value>::new());
}
