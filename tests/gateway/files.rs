//! Released files are read by other programs, in every format.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::process::Command;
use std::time::Duration;

use bailiwick::config::Destination;
use bailiwick::egress::encode::Format;
use tempfile::TempDir;

use crate::common::folder::own_copy_of;
use crate::common::process::{copy_of, run, text};
use crate::common::{self, TestGateway};

use super::sent::{send_file, send_payments};

fn of_files() -> impl Iterator<Item = Format> {
    Format::NAMES.into_iter().map(|(_, format)| format).filter(|format| format.is_for_files())
}

async fn released_as(format: Format) -> TempDir {
    let gateway = TestGateway::start_with("card-fraud/gateway.toml", |config| {
        for destination in config.destinations.values_mut() {
            if let Destination::File(settings) = destination {
                settings.format = format;
            }
        }
    })
    .await;
    send_payments(gateway.endpoint()).await;
    let TestGateway { app, released, journal: _journal } = gateway;
    assert_eq!(app.stop().await.left, []);
    released
}

#[tokio::test(flavor = "multi_thread")]
async fn pandas_pyarrow_duckdb_and_zstd_read_the_same_cells_from_every_format() {
    let mut folders = Vec::new();
    for format in of_files() {
        folders.push(released_as(format).await);
    }
    let script = common::root().join("tests/python/read_files.py");
    let folders = folders.iter().map(TempDir::path);
    let output = Command::new(common::python()).arg(script).args(folders).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    println!("{}", text(&output.stdout));
}

/// Data of the deliveries with a column that is not declared, and with other names of the same recipients.
fn with_secrets(secret: &str) -> String {
    let mut data = String::new();
    let file = fs::File::open(common::root().join("examples/delivery-eta/data.csv.gz")).unwrap();
    flate2::read::GzDecoder::new(file).read_to_string(&mut data).unwrap();
    let (header, records) = data.split_once('\n').unwrap();
    let recipient = header.split(',').position(|name| name == "recipient").unwrap();
    let records = records.lines().enumerate().map(|(at, record)| {
        let mut values: Vec<String> = record.split(',').map(str::to_owned).collect();
        values[recipient].insert_str(0, secret);
        format!("{},{secret}-{at}\n", values.join(","))
    });
    format!("{header},note\n{}", records.collect::<String>())
}

/// All files that leave for these data, by name.
async fn files_of(data: &str, format: Format) -> BTreeMap<String, Vec<u8>> {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("data.csv");
    fs::write(&file, data).unwrap();
    let gateway = TestGateway::start_with("delivery-eta/gateway.toml", |config| {
        for destination in config.destinations.values_mut() {
            if let Destination::File(settings) = destination {
                (settings.format, settings.rotate_after) = (format, Duration::from_secs(3_600));
            }
        }
    })
    .await;
    send_file(gateway.endpoint(), "deliveries", file).await;
    let TestGateway { app, released, journal: _journal } = gateway;
    assert_eq!(app.stop().await.left, []);
    let mut files = BTreeMap::new();
    let mut folders = vec![released.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(released.path()).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_changes_no_byte_that_leaves() {
    for format in of_files() {
        let (one, other) =
            (files_of(&with_secrets("anna"), format).await, files_of(&with_secrets("mohammed"), format).await);
        assert!(!one.is_empty() && one == other, "{format:?}: {:?} and {:?}", one.keys(), other.keys());
    }
}

#[test]
fn messages_and_files_have_formats_that_are_for_them() {
    let (folder, _) = copy_of("card-fraud");
    let name = "examples/card-fraud/gateway.toml";
    let said = || text(&run(folder.root(), &["check", "-c", name]).stderr);
    folder.edit(name, "format       = \"jsonl\"", "format = \"protobuf\"");
    let files = "`protobuf` is for messages; files are `jsonl`, `jsonl-zstd`, `arrow`, `parquet`";
    assert!(said().contains(files), "{}", said());
    folder.edit(
        name,
        "kind         = \"file\"\ndirectory    = \"released\"",
        "kind = \"kafka\"\nbrokers = \"127.0.0.1:1\"\ntopic = \"t\"",
    );
    folder.edit(name, "rotate_after = \"PT1S\"", "");
    assert_eq!(said(), "");
    folder.edit(name, "format = \"protobuf\"", "format = \"parquet\"");
    let messages = "`parquet` is for files; messages are `jsonl`, `jsonl-zstd`, `arrow`, `protobuf`";
    assert!(said().contains(messages), "{}", said());
}

#[test]
fn digits_that_cannot_be_are_an_error() {
    let folder = own_copy_of("card-fraud");
    let policy = "examples/card-fraud/policies/policy.toml";
    let said = || text(&run(folder.root(), &["check", "-c", "examples/card-fraud/gateway.toml"]).stderr);
    folder.edit(policy, "fn = \"mean\", field = \"amount\" }", "fn = \"mean\", field = \"amount\", digits = 4 }");
    assert_eq!(said(), "");
    folder.edit(policy, "digits = 4", "digits = 16");
    assert!(said().contains("`digits` is 16, and must be 1 to 15"), "{}", said());
    folder.edit(policy, ", digits = 16", "");
    folder.edit(policy, "edges = [0, 0.01", "digits = 3, edges = [0, 0.01");
    assert!(said().contains("`digits` is for single numbers; a histogram has counts"), "{}", said());
}

#[test]
fn a_file_that_would_take_all_the_memory_is_an_error() {
    let (folder, _) = copy_of("card-fraud");
    let check = || {
        let output = run(folder.root(), &["check", "-c", "examples/card-fraud/gateway.toml"]);
        (output.status.success(), text(&output.stderr))
    };
    let (name, after) = ("examples/card-fraud/gateway.toml", "rotate_after = \"PT1S\"");
    folder.edit(name, after, "rotate_bytes = 268435456");
    assert_eq!(check(), (true, String::new()));
    for (before, wrong) in [("268435456", "268435457"), ("268435457", "0")] {
        folder.edit(name, before, wrong);
        let (is_usable, said) = check();
        assert!(
            !is_usable && said.contains(&format!("`rotate_bytes` is {wrong}, and must be 1 to 268435456")),
            "{said}"
        );
    }
}
