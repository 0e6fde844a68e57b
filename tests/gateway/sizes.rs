//! How many bytes leave when less is told: the figures of docs/egress.md. Whatever is told, it is told of the same records.

use std::fs;
use std::io::{Cursor, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow_ipc::reader::FileReader;
use bailiwick::config::Destination;
use bailiwick::egress::encode::Format;
use bailiwick::ingress::proto::ingest::PublishRequest;
use bailiwick::ingress::proto::ingest::publish_request::Payload;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use prost::encoding::{double, message, string};
use prost_types::Timestamp;
use serde_json::{Value, json};

use crate::common::folder::own_copy_of;
use crate::common::records::{introduction, request};
use crate::common::{self, TestGateway};

use super::oracle::Judge;
use super::sent::send_payments;

/// What stands in the example's policy before its metrics.
const METRICS: &str = "metrics = [\n";

/// What left as one file.
struct Left {
    cells: Vec<Value>,
    bytes: u64,
    compressed: u64,
}

impl Left {
    /// With a changed policy, and with a budget that a file does not suffice for by one byte: what it does then.
    async fn with(changes: &[(&str, &str)], whole: Option<(&Self, &str)>) -> Self {
        let lines = file_of(Format::JsonLines, changes, whole.map(|(whole, steps)| (whole.bytes, steps))).await;
        let steps = whole.map(|(whole, steps)| (whole.compressed, steps));
        let compressed = file_of(Format::JsonLinesZstd, changes, steps).await;
        let text = zstd::decode_all(&*compressed).unwrap();
        assert_eq!(lines, text, "the same lines in both formats");
        let cells = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let cells = cells.map(|line| serde_json::from_slice(line).unwrap()).collect();
        Self { cells, bytes: lines.len() as u64, compressed: compressed.len() as u64 }
    }

    fn payments(&self) -> u64 {
        self.cells.iter().map(|cell| cell["payments"].as_u64().unwrap_or_default()).sum()
    }

    fn told(&self) -> String {
        format!("{} cells, {} bytes, {} compressed", self.cells.len(), self.bytes, self.compressed)
    }
}

/// The only file that leaves.
async fn file_of(format: Format, changes: &[(&str, &str)], budget: Option<(u64, &str)>) -> Vec<u8> {
    let folder = own_copy_of("card-fraud");
    for (from, to) in changes {
        folder.edit("examples/card-fraud/policies/policy.toml", from, to);
    }
    if let Some((bytes, steps)) = budget {
        let budget = format!(
            "\n[destinations.fraud_desk.budget]\nbytes = {}\nper = \"P1D\"\nwhen_short = [{steps}\n",
            bytes - 1
        );
        folder.add("examples/card-fraud/gateway.toml", &budget);
    }
    let config = folder.path("examples/card-fraud/gateway.toml");
    let gateway = TestGateway::start_with(config.to_str().unwrap(), |config| {
        for destination in config.destinations.values_mut() {
            if let Destination::File(settings) = destination {
                (settings.format, settings.rotate_after) = (format, Duration::from_secs(3_600));
            }
        }
    })
    .await;
    send_payments(gateway.endpoint()).await;
    let TestGateway { app, released, journal: _journal } = gateway;
    assert_eq!(app.stop().await.left, []);
    // All of a dataset is in one directory.
    let of_dataset = only(released.path());
    let file = only(&of_dataset);
    fs::read(file).unwrap()
}

/// The only one that stands in a directory.
fn only(directory: &Path) -> PathBuf {
    let mut found = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let first = found.next().unwrap();
    assert_eq!(found.next(), None, "{}", directory.display());
    first
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_less_of_takes_fewer_bytes() {
    let whole = Left::with(&[], None).await;
    println!("the example: {}", whole.told());
    let remainders = ("group_by = [\n", "roll_up = [\"channel\", \"country\"]\ngroup_by = [\n");
    let with_remainders = Left::with(&[remainders], None).await;
    println!("with remainders: {}", with_remainders.told());
    assert!(with_remainders.payments() > whole.payments());

    // With the budget: the first step that suffices.
    let rolled_up = Left::with(&[], Some((&whole, "\"roll_up\", \"defer\"]\nroll_up = [\"channel\"]"))).await;
    println!("rolled up: {}", rolled_up.told());
    assert_eq!(rolled_up.payments(), whole.payments());
    let top = "\"top\", \"defer\"]\ntop = { rows = 5, by = \"payments\" }";
    let top = Left::with(&[], Some((&whole, top))).await;
    println!("the five largest: {}", top.told());
    assert!(top.payments() * 2 > whole.payments());
    for smaller in [&rolled_up, &top] {
        assert!(smaller.cells.iter().all(|cell| !cell["degraded"].is_null()));
        assert!(smaller.cells.len() * 2 < whole.cells.len() && smaller.bytes * 2 < whole.bytes);
        assert!(smaller.compressed * 4 < whole.compressed * 3);
    }

    // One number of one digit, with and without what has not changed.
    let few =
        ("  { name = \"payments\", fn = \"count\" },\n", "  { name = \"payments\", fn = \"count\", digits = 1 },\n]\n");
    let rest = fs::read_to_string(common::root().join("examples/card-fraud/policies/policy.toml")).unwrap();
    let (_, rest) = rest.split_once(METRICS).unwrap();
    let (rest, _) = rest.split_once("]\n\n").unwrap();
    let (_, rest) = rest.split_once('\n').unwrap();
    let rest = format!("{rest}]\n");
    let plain = Left::with(&[(&rest, ""), few], None).await;
    println!("one number of one digit: {}", plain.told());
    let on_change = Some((plain.bytes, "\"on_change\", \"defer\"]"));
    let steps = file_of(Format::JsonLines, &[(&rest, ""), few], on_change).await;
    let cells = steps.iter().filter(|byte| **byte == b'\n').count();
    println!("a budget one byte too small, what has changed: {cells} cells, {} bytes", steps.len());
    assert!(cells < plain.cells.len() && (steps.len() as u64) < plain.bytes);
    let changes = ("group_by = [\n", "only_on_change = true\ngroup_by = [\n");
    let changed = Left::with(&[(&rest, ""), few, changes], None).await;
    println!("the same, only what has changed: {}", changed.told());
    assert!(changed.cells.len() < plain.cells.len() && changed.bytes < plain.bytes);
}

/// An example in one format.
struct Sized {
    /// What it took in, and their bytes as protobuf rows.
    records: u64,
    raw: u64,
    file: Vec<u8>,
}

impl Sized {
    /// Of a judge that has records as rows.
    async fn of(judge: &mut Judge, format: Format) -> Self {
        let gateway = TestGateway::start_with(&format!("{}/gateway.toml", judge.example), |config| {
            for destination in config.destinations.values_mut() {
                if let Destination::File(settings) = destination {
                    (settings.format, settings.rotate_after) = (format, Duration::from_secs(3_600));
                }
            }
        })
        .await;
        let sent = judge.ask(&json!({"send": gateway.app.address().to_string()}));
        let (records, of_all) = (sent["accepted"].as_u64().unwrap(), sent["sent"].as_u64().unwrap());
        let raw = gateway.telemetry().total(|counts| &counts.bytes_in) * records / of_all;
        let TestGateway { app, released, journal: _journal } = gateway;
        assert_eq!(app.stop().await.left, []);
        Self { records, raw, file: fs::read(only(&only(released.path()))).unwrap() }
    }
}

/// How many cells a file has.
fn cells_of(file: &[u8], format: Format) -> usize {
    let lines = |text: &[u8]| text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
    let bytes = Bytes::copy_from_slice(file);
    match format {
        Format::JsonLines => lines(file),
        Format::JsonLinesZstd => lines(&zstd::decode_all(file).unwrap()),
        Format::Arrow => {
            FileReader::try_new(Cursor::new(bytes), None).unwrap().map(|batch| batch.unwrap().num_rows()).sum()
        }
        Format::Parquet => {
            ParquetRecordBatchReader::try_new(bytes, 1_024).unwrap().map(|batch| batch.unwrap().num_rows()).sum()
        }
        Format::Protobuf => unreachable!("for messages"),
    }
}

/// Raw bytes to released bytes of each example in each format of files.
#[tokio::test(flavor = "multi_thread")]
async fn each_example_in_each_format_has_the_same_cells_in_fewer_bytes() {
    let examples = [("card-fraud", "payments"), ("delivery-eta", "deliveries"), ("predictive-maintenance", "readings")];
    for (example, stream) in examples {
        let mut judge = Judge::of(example, stream);
        judge.ask(&json!({"prepare": "rows", "batch": 500, "shuffle": 0}));
        let mut cells_before = None;
        for (name, format) in Format::NAMES.into_iter().filter(|(_, format)| format.is_for_files()) {
            let sized = Sized::of(&mut judge, format).await;
            let (cells, bytes) = (cells_of(&sized.file, format), sized.file.len() as u64);
            println!(
                "{example}: {} records, {} bytes; {name}: {cells} cells, {bytes} bytes, {} of a cell, {} : 1",
                sized.records,
                sized.raw,
                bytes / cells as u64,
                sized.raw / bytes
            );
            assert_eq!(*cells_before.get_or_insert(cells), cells, "{example} as {name}");
            // The example with the fewest records in a cell has more than twice as much.
            assert!(format != Format::JsonLinesZstd || sized.raw > 20 * bytes, "{example}: {bytes} of {}", sized.raw);
        }
    }
}

/// What the aim is said of: so many records in a minute, for so many bytes in to one byte out.
const RECORDS_A_MINUTE: usize = 60_000;
const AIM: u64 = 5_000;
const MINUTES: usize = 3;
/// When the records begin.
const BEGIN: i64 = 1_782_885_600;
/// Where the records of the gateway are from.
const SERVED: [&str; 5] = ["DE", "ES", "FR", "IE", "NL"];

/// The example's records again and again as protobuf rows, one every millisecond, each time of other cards.
struct Repeated {
    /// The numbers of the cards, and all but card and time, encoded.
    records: Vec<(usize, Vec<u8>)>,
}

impl Repeated {
    fn new() -> Self {
        let mut data = String::new();
        let file = fs::File::open(common::root().join("examples/card-fraud/data.csv.gz")).unwrap();
        flate2::read::GzDecoder::new(file).read_to_string(&mut data).unwrap();
        let records = data.lines().skip(1).map(|record| record.split(',').collect::<Vec<_>>());
        let records = records.filter(|record| SERVED.contains(&record[2])).map(|record| {
            let mut rest = Vec::new();
            // The columns of the file are the fields of the stream, in their order.
            for (tag, value) in (1_u32..).zip(&record).skip(2) {
                match tag {
                    3 | 4 => string::encode(tag, &(*value).to_owned(), &mut rest),
                    _ => double::encode(tag, &value.parse().unwrap(), &mut rest),
                }
            }
            (record[1].strip_prefix("card-").unwrap().parse().unwrap(), rest)
        });
        Self { records: records.collect() }
    }

    /// Rows, from one to before another.
    fn rows(&self, from: usize, to: usize) -> Payload {
        let mut rows = Vec::new();
        for nth in from..to {
            let (card, rest) = &self.records[nth % self.records.len()];
            let card = format!("card-{:06}", card + nth / self.records.len() * 10_000);
            let time = Timestamp { seconds: BEGIN + nth as i64 / 1_000, nanos: (nth % 1_000) as i32 * 1_000_000 };
            let mut row = Vec::new();
            message::encode(1, &time, &mut row);
            string::encode(2, &card, &mut row);
            row.extend_from_slice(rest);
            prost::encoding::bytes::encode(1, &row, &mut rows);
        }
        Payload::Rows(rows.into())
    }
}

/// Through the gateway of the example, with windows of a minute and a destination for each format of files.
#[tokio::test(flavor = "multi_thread")]
async fn minutes_of_sixty_thousand_records_leave_in_as_few_bytes_as_we_aim_for() {
    let formats = Format::NAMES.into_iter().filter(|(_, format)| format.is_for_files());
    // Each with the name of its destination, which is also that of its folder.
    let formats: Vec<_> = formats.map(|(name, format)| (format!("as_{}", name.replace('-', "_")), format)).collect();
    let folder = own_copy_of("card-fraud");
    folder.edit("examples/card-fraud/policies/policy.toml", "size = \"PT10M\"", "size = \"PT1M\"");
    for (name, _) in &formats {
        let place = format!("\n[destinations.{name}]\ncountry = \"IE\"\naccepts = [\"payments_by_country\"]\n");
        folder.add("examples/card-fraud/policies/policy.toml", &place);
        let files = format!("\n[destinations.{name}]\nkind = \"file\"\ndirectory = \"{name}\"\n");
        folder.add("examples/card-fraud/gateway.toml", &files);
    }
    let config = folder.path("examples/card-fraud/gateway.toml");
    let gateway = TestGateway::start_with(config.to_str().unwrap(), |config| {
        for (name, format) in &formats {
            if let Some(Destination::File(settings)) = config.destinations.get_mut(name.as_str()) {
                settings.directory = folder.path(name);
                (settings.format, settings.rotate_after) = (*format, Duration::from_secs(3_600));
            }
        }
    })
    .await;
    let (repeated, all) = (Repeated::new(), MINUTES * RECORDS_A_MINUTE);
    let mut client = gateway.client().await;
    for from in (0..all).step_by(2_000) {
        let rows = repeated.rows(from, all.min(from + 2_000));
        let answer = client.publish_once(request("payments", "till-7", rows)).await.unwrap().into_inner();
        assert_eq!((answer.accepted, answer.refusals), (2_000, vec![]));
    }
    let complete_through = (BEGIN + 60 * MINUTES as i64) * 1_000_000;
    let end = PublishRequest { complete_through, ..introduction("payments", "till-7") };
    client.publish_once(end).await.unwrap();
    drop(client);
    let raw = gateway.telemetry().total(|counts| &counts.bytes_in);
    assert_eq!(gateway.app.stop().await.left, []);

    let counted = common::lines(&folder.path("as_jsonl"));
    let counted: u64 = counted.iter().map(|cell| cell["payments"].as_u64().unwrap()).sum();
    assert_eq!(counted, all as u64);
    let mut least = u64::MAX;
    for (name, format) in &formats {
        let file = fs::read(only(&only(&folder.path(name)))).unwrap();
        let (cells, bytes) = (cells_of(&file, *format), file.len() as u64);
        println!(
            "{all} records in {MINUTES} minutes, {raw} bytes, {} of a record; {name}: {cells} cells, {bytes} bytes, {} : 1, and \
             the aim is {AIM} : 1",
            raw / all as u64,
            raw / bytes
        );
        // Each country and channel, in each minute.
        assert_eq!(cells, MINUTES * SERVED.len() * 4, "{name}");
        least = least.min(bytes);
    }
    assert!(raw > AIM * least, "{raw} bytes came in, and {least} left");
}
