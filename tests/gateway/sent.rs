//! Files of records, sent to a gateway as a producer that has no more.

use std::path::PathBuf;

use bailiwick::commands::send::{Input, Options, SharedTotals, epoch_now, publish};
use bailiwick::ingress::grpc::client::Dialer;

use crate::common::{self, PATIENCE};

/// Sends the payments of the example.
pub(crate) async fn send_payments(endpoint: String) {
    send_file(endpoint, "payments", common::root().join("examples/card-fraud/data.csv.gz")).await;
}

/// Sends a file of records of a stream.
pub(crate) async fn send_file(endpoint: String, stream: &str, data: PathBuf) {
    let options = Options {
        dialer: Dialer::default(),
        endpoint,
        stream: stream.into(),
        producer: "till-7".into(),
        follow: false,
        batch: 500,
        complete: true,
        epoch: epoch_now(),
        patience: PATIENCE,
    };
    publish(vec![Input::new(data, None).into()], &options, &SharedTotals::default()).await.unwrap();
}
