//! Released files are read by other programs, in both formats.

use std::process::Command;

use bailiwick::commands::send::{Input, Options, SharedTotals, epoch_now, publish};
use bailiwick::config::Destination;
use bailiwick::egress::encode::Format;
use bailiwick::ingress::grpc::client::Dialer;
use tempfile::TempDir;

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
async fn pandas_pyarrow_and_duckdb_read_the_same_cells_from_both_formats() {
    let (lines, arrow) = (released_as(Format::JsonLines).await, released_as(Format::Arrow).await);
    let script = common::root().join("tests/python/read_files.py");
    let output = Command::new(common::python()).arg(script).args([lines.path(), arrow.path()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
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
