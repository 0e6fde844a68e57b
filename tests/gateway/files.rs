//! Released files are read by other programs, in every format.

use std::fs;
use std::process::Command;

use bailiwick::commands::send::{Input, Options, SharedTotals, epoch_now, publish};
use bailiwick::config::Destination;
use bailiwick::egress::encode::Format;
use bailiwick::ingress::grpc::client::Dialer;
use tempfile::TempDir;

use crate::common::folder::copy;
use crate::common::process::{copy_of, run, text};
use crate::common::{self, TestGateway};

async fn released_as(format: Format) -> TempDir {
    let gateway = TestGateway::start_with("card-fraud/gateway.toml", |config| {
        for destination in config.destinations.values_mut() {
            if let Destination::File(settings) = destination {
                settings.format = format;
            }
        }
    })
    .await;
    let options = Options {
        dialer: Dialer::default(),
        endpoint: gateway.endpoint(),
        stream: "payments".into(),
        producer: "till-7".into(),
        follow: false,
        batch: 500,
        complete: true,
        epoch: epoch_now(),
        patience: std::time::Duration::from_secs(60),
    };
    let data = common::root().join("examples/card-fraud/data.csv.gz");
    publish(vec![Input::new(data, None).into()], &options, &SharedTotals::default()).await.unwrap();
    let TestGateway { app, released, journal: _journal } = gateway;
    assert_eq!(app.stop().await.left, []);
    released
}

#[tokio::test(flavor = "multi_thread")]
async fn pandas_pyarrow_duckdb_and_zstd_read_the_same_cells_from_every_format() {
    let mut folders = Vec::new();
    for (_, format) in Format::NAMES {
        folders.push(released_as(format).await);
    }
    let script = common::root().join("tests/python/read_files.py");
    let folders = folders.iter().map(TempDir::path);
    let output = Command::new(common::python()).arg(script).args(folders).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    println!("{}", text(&output.stdout));
}

#[test]
fn messages_have_a_format_that_is_for_messages() {
    let (folder, _) = copy_of("card-fraud");
    let name = "examples/card-fraud/gateway.toml";
    folder.edit(
        name,
        "kind         = \"file\"\ndirectory    = \"released\"",
        "kind = \"kafka\"\nbrokers = \"127.0.0.1:1\"\ntopic = \"t\"",
    );
    folder.edit(name, "rotate_after = \"PT1S\"", "");
    for format in ["parquet", "jsonl-zstd"] {
        let before = if format == "parquet" { "jsonl" } else { "parquet" };
        folder.edit(name, &format!("format       = \"{before}\""), &format!("format       = \"{format}\""));
        let said = text(&run(folder.root(), &["check", "-c", name]).stderr);
        assert!(said.contains(&format!("`{format}` is for files; messages are `jsonl` or `arrow`")), "{said}");
    }
}

#[test]
fn digits_that_cannot_be_are_an_error() {
    let (folder, _) = copy_of("card-fraud");
    let policy = "examples/card-fraud/policies/policy.toml";
    // The copy has a link to the example's own policies.
    let policies = folder.path("examples/card-fraud/policies");
    fs::remove_file(&policies).unwrap();
    copy(&common::root().join("examples/card-fraud/policies"), &policies);
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
