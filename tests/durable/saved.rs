//! What the report says came in, and what it saved: of which day, of which streams, and of which records.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bailiwick::config::OnStop;
use bailiwick::ingress::proto::ingest::publish_request::Payload;
use bailiwick::ingress::proto::ingest::{PublishRequest, PublishResponse};
use bailiwick::ledger::entry::What;
use bailiwick::ledger::{Clocks, Ledger, Outbox, Settings};
use bailiwick::storage::RealFileSystem;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::common::folder::Folder;
use crate::common::laws::{CLASSES, regime};
use crate::common::ledger::{entries, of_kind};
use crate::common::process::{run, text};
use crate::common::{gateway, records};

const GATEWAY: &str = r#"
[gateway]
stop_within = "PT60S"
id       = "g-1"
country  = "DE"
serves   = ["aa"]
policies = ["policies"]

[listen]
grpc = "127.0.0.1:0"

[journal]
directory = "journal"

[cost]
price_per_gib = 2

[destinations.desk]
kind         = "file"
directory    = "released/desk"

[destinations.hub]
kind         = "file"
directory    = "released/hub"
"#;

const STREAM: &str = r#"
[streams.NAME]
event_time   = "at"
history_from = "2013-01-01T00:00:00Z"
contributor  = "person"
undeclared   = "drop"

[streams.NAME.facts]
"subject.residence" = [{ field = "country", strength = 90 }]

[streams.NAME.fields]
at      = { type = "timestamp", class = "personal" }
person  = { type = "string", class = "personal" }
country = { type = "string", class = "personal" }

[datasets.NAME_by_country]
stream           = "NAME"
window           = { size = "PT1M", grace = "PT1S" }
min_contributors = 10
group_by         = [{ field = "country", domain = ["DE", "FR"] }]
metrics          = [{ name = "records", fn = "count" }]

[destinations.DESTINATION]
country = "IE"
accepts = ["NAME_by_country"]
"#;

/// Two streams, of which one goes to the desk and the other one to the hub.
fn deployment() -> Folder {
    let stream = |name: &str, destination: &str| STREAM.replace("NAME", name).replace("DESTINATION", destination);
    let (visits, orders) = (stream("visits", "desk"), stream("orders", "hub"));
    Folder::holding([
        ("gateway.toml", GATEWAY),
        ("policies/classes.toml", CLASSES),
        ("policies/policy.toml", &format!("schema = \"bailiwick.policy/1\"\n{visits}{orders}")),
        ("policies/aa.toml", &regime("aa", r#""DE", "FR""#, "DE", "redirect")),
        ("policies/bb.toml", &regime("bb", r#""IN""#, "IN", "refuse")),
    ])
}

/// Records of this country, each of some 8 KiB: what is not declared comes in, too, and is dropped.
fn of(country: &str, records: usize) -> Vec<Value> {
    let record = |person: usize| {
        let person = format!("{country}-{person:05}");
        json!({ "at": "2026-11-20T03:00:01Z", "person": person, "country": country, "note": "n".repeat(8_000) })
    };
    (0..records).map(record).collect()
}

fn length(payload: &Payload) -> u64 {
    let (Payload::Rows(bytes) | Payload::ArrowIpc(bytes) | Payload::CloudEvents(bytes)) = payload;
    bytes.len() as u64
}

#[track_caller]
fn report(ledger: &Path, arguments: &[&str]) -> (Value, String) {
    let ledger = ledger.display().to_string();
    let printed = |more: &[&str]| {
        let output = run(Path::new("."), &[&["report", "-d", &ledger], arguments, more].concat());
        assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    };
    (serde_json::from_str(&printed(&["--json"])).unwrap(), printed(&[]))
}

/// Counts of bytes are in steps of so many: twice k times what stands for a record.
const STEP: u64 = 20 * 16_384;

#[tokio::test(flavor = "multi_thread")]
async fn each_destination_is_compared_with_the_accepted_records_of_its_own_streams() {
    let folder = deployment();
    let app = folder.start_app(|config| config.on_stop = OnStop::Release).await.unwrap();
    let endpoint = gateway::endpoint(&app);
    let send = async |stream: &str, sequence: u64, payload: Payload| -> PublishResponse {
        let introduction = records::introduction(stream, "till-7");
        let request = PublishRequest { payload: Some(payload), sequence, epoch: 1, ..introduction };
        records::publish_in_a_call(&endpoint, request).await
    };
    // Of the visits, half of each request is refused.
    let half = [of("DE", 200), of("IN", 200)].concat();
    let visits = records::json_events(&half);
    for sequence in 1..=3 {
        let answer = send("visits", sequence, visits.clone()).await;
        let refused = answer.refusals.iter().map(|run| run.count).sum::<u32>();
        assert_eq!((answer.accepted, refused), (200, 200), "{:?}", answer.refusals);
    }
    // Of the orders, one request is sent twice, and another one is none.
    let orders = records::json_events(of("FR", 300));
    for is_duplicate in [false, true, true] {
        let answer = send("orders", 4, orders.clone()).await;
        assert_eq!((answer.accepted, answer.duplicate), (300, is_duplicate));
    }
    let malformed = Payload::CloudEvents(vec![7; 2_000_000].into());
    let (of_visits, of_orders, of_none) = (length(&visits), length(&orders), length(&malformed));
    assert_eq!(send("orders", 5, malformed).await.accepted, 0);
    app.stop().await;

    let ledger = folder.path("journal/ledger");
    let entries = entries(&ledger);
    // Over a midnight there are two.
    let worked = of_kind(&entries, "work");
    let accepted = |stream: &str| worked.iter().filter_map(|work| work["bytes_accepted"][stream].as_u64()).sum::<u64>();
    assert!(accepted("visits").abs_diff(3 * of_visits / 2) < STEP, "{worked:?} of {of_visits}");
    assert!(accepted("orders").abs_diff(of_orders) < STEP, "{worked:?} of {of_orders}");
    assert!(["visits", "orders"].iter().all(|stream| accepted(stream).is_multiple_of(STEP)), "{worked:?}");

    let config = folder.path("gateway.toml").display().to_string();
    let (whole, page) = report(&ledger, &["-c", &config]);
    let cost = &whole["cost"];
    let all = accepted("visits") + accepted("orders");
    assert_eq!(cost["bytes_accepted"].as_u64(), Some(all));
    assert!(cost["bytes_in"].as_u64().unwrap().abs_diff(3 * of_visits + 3 * of_orders + of_none) < STEP, "{cost}");
    let bytes_out = cost["bytes_out"].as_u64().unwrap();
    assert_eq!(cost["ratio"].as_f64(), Some(all as f64 / bytes_out as f64));
    let saved = |came_in: u64, out: u64| Some((came_in as f64 - out as f64) / f64::from(1 << 30) * 2.0);
    assert_eq!(cost["saved"].as_f64(), saved(all, bytes_out));
    let border = |cost: &Value, destination: &str| {
        let mut borders = cost["borders"].as_array().unwrap().iter();
        borders.find(|border| border["destination"] == destination).unwrap().clone()
    };
    for (destination, stream) in [("desk", "visits"), ("hub", "orders")] {
        let border = border(cost, destination);
        assert_eq!((&border["streams"], border["bytes_in"].as_u64()), (&json!([stream]), Some(accepted(stream))));
        assert_eq!(
            border["saved"].as_f64(),
            saved(accepted(stream), border["bytes_out"].as_u64().unwrap()),
            "{border}"
        );
        assert!(page.contains(&format!("<td>{stream}</td><td class=\"n\">{}</td>", accepted(stream))), "{page}");
    }
    assert!(page.contains(&format!("{all} of them of accepted records")), "{page}");
    // Somebody else's count is shared out as the ledger says.
    let given = report(&ledger, &["-c", &config, "--bytes-in", "1000000"]).0["cost"].clone();
    assert!(given["bytes_accepted"].is_null(), "{given}");
    let shares = ["desk", "hub"].map(|destination| border(&given, destination)["bytes_in"].as_u64().unwrap());
    assert_eq!(
        (shares[0], shares.iter().sum()),
        ((1e6 * accepted("visits") as f64 / all as f64).round() as u64, 1_000_000)
    );
    // Who does not have the policies that it left under cannot say of which streams it was.
    folder.edit("policies/policy.toml", "min_contributors = 10", "min_contributors = 11");
    let kept = report(&ledger, &["-c", &config]).0["cost"].clone();
    assert_eq!(kept, *cost, "the gateway keeps them");
    folder.edit("gateway.toml", "directory = \"journal\"", "directory = \"elsewhere\"");
    let unknown = border(&report(&ledger, &["-c", &config]).0["cost"], "desk");
    assert!(["streams", "bytes_in", "saved"].iter().all(|key| unknown[key].is_null()), "{unknown}");
}

/// What a gateway says that runs over two midnights, as this version says it, and as the ones before did.
#[test]
fn what_came_in_before_midnight_is_of_the_day_that_ended() {
    let time = |text: &str| text.parse::<Timestamp>().unwrap().as_microsecond();
    for is_of_now in [true, false] {
        let folder = Folder::new();
        let directory = folder.path("ledger");
        let (key, seen) = (folder.path("ledger.key"), folder.path("ledger-seen"));
        let settings = Settings { directory: directory.clone(), key, origin: "test/ledger".to_owned(), seen };
        let wall = Arc::new(AtomicI64::new(0));
        let shown = Arc::clone(&wall);
        let clocks = Clocks { wall: Box::new(move || shown.load(Ordering::Relaxed)), now: Box::new(|| Duration::ZERO) };
        let outbox = Outbox { last: 0, confirmed: Box::new(|_, _, _| false) };
        let ledger = Ledger::new(settings, Arc::new(RealFileSystem), clocks, outbox);
        let note = |at: &str, what: What| {
            wall.store(time(at), Ordering::Relaxed);
            ledger.note(what);
        };
        let work = |since: &str, until: &str, records: u64| What::Work {
            since: is_of_now.then(|| since.to_owned()),
            until: is_of_now.then(|| until.to_owned()),
            cpu_seconds: (!is_of_now).then_some(3),
            cpu_milliseconds: is_of_now.then_some(3_125),
            records,
            bytes_in: Some(records * 1_000),
            bytes_accepted: is_of_now.then(|| [("visits".to_owned(), records * 900)].into()),
        };
        let sent = |bytes| What::Sent { destination: "desk".to_owned(), releases: Vec::new(), bytes };
        wall.store(time("2026-11-26T23:50:00Z"), Ordering::Relaxed);
        ledger.open().unwrap();
        let start = ("g-1".to_owned(), "0.1.0".to_owned());
        let models = std::collections::BTreeMap::new();
        note("2026-11-26T23:50:00Z", What::Start { gateway: start.0, program: start.1, dry_run: false, models });
        note("2026-11-26T23:59:50Z", sent(500));
        note("2026-11-27T00:00:00.150Z", work("2026-11-26T23:50:00Z", "2026-11-27T00:00:00Z", 8_000));
        note("2026-11-28T00:00:00.150Z", work("2026-11-27T00:00:00Z", "2026-11-28T00:00:00Z", 2_000));
        note("2026-11-28T06:00:00Z", work("2026-11-28T00:00:00Z", "2026-11-28T06:00:00Z", 600));
        note("2026-11-28T06:00:00Z", What::Stop { gateway: "g-1".to_owned() });
        ledger.close();
        let of = |from: &str, to: &str| {
            let (whole, page) = report(&directory, &["--from", from, "--to", to]);
            (whole["work"].clone(), whole["cost"].clone(), page)
        };
        let seconds = if is_of_now { 3.125 } else { 3.0 };
        let (work, cost, page) = of("2026-11-26", "2026-11-27");
        assert_eq!((work["records"].as_u64(), work["cpu_seconds"].as_f64()), (Some(8_000), Some(seconds)));
        assert_eq!((work["until"].as_str(), work["in_part"].as_u64()), (Some("2026-11-27T00:00:00Z"), Some(0)));
        assert_eq!(work["cpu_seconds_per_million_records"].as_f64(), Some(seconds * 125.0));
        assert_eq!((cost["bytes_in"].as_u64(), cost["bytes_out"].as_u64()), (Some(8_000_000), Some(500)));
        assert_eq!(cost["bytes_accepted"].as_u64(), is_of_now.then_some(7_200_000));
        assert_eq!(cost["ratio"].as_f64(), Some(if is_of_now { 14_400.0 } else { 16_000.0 }));
        assert!(
            page.contains(&format!("{seconds:.3} CPU seconds")) && !page.contains("the same share counts"),
            "{page}"
        );
        let (work, cost, _) = of("2026-11-27", "2026-11-28");
        assert_eq!((work["records"].as_u64(), cost["bytes_in"].as_u64()), (Some(2_000), Some(2_000_000)));
        let months = [("2026-11-01", "2026-11-27"), ("2026-11-27", "2026-12-01"), ("2026-11-01", "2026-12-01")];
        let months = months.map(|(from, to)| of(from, to).0["records"].as_u64().unwrap());
        assert_eq!(months, [8_000, 2_600, 10_600]);
        let (work, cost, page) = of("2026-11-27T06:00:00Z", "2026-11-27T12:00:00Z");
        assert_eq!((work["records"].as_u64(), work["in_part"].as_u64()), (Some(500), Some(1)));
        assert_eq!((cost["bytes_in"].as_u64(), &work["until"]), (Some(500_000), &"2026-11-27T12:00:00Z".into()));
        assert!(page.contains("the same share counts"), "{page}");
        assert_eq!(of("2026-11-28T06:00:00Z", "2026-11-29").1, Value::Null, "nothing is said of then");
    }
}
