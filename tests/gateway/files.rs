//! Released files are read by other programs, in both formats.

use std::process::Command;

use bailiwick::commands::send::{Input, Options, SharedTotals, epoch_now, publish};
use bailiwick::config::Destination;
use bailiwick::egress::encode::Format;
use bailiwick::ingress::grpc::client::Dialer;
use tempfile::TempDir;

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
